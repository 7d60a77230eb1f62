//! `Conv`, and the private one that adds a residual and applies an activation.

mod cases;
pub(crate) mod cpu;
mod cpu_grad;
pub(super) mod grad;
mod runtime;

use super::matmul::{fits, matrices::check_size};
use super::shape::{same_dtype, show};
use super::window::Windows;
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, Tie, onnx, private};
use crate::cpu::{Candidate, Post, window::Window};
use crate::expr::{Call, Ex};
use crate::ir::{Dim, Shape, Tensor};
pub use grad::GradW;
pub use runtime::FusedConv;

/// The convolution: windows of input channels, weighted and summed, with a bias for each output channel.
pub struct Conv;

impl Op for Conv {
    fn name(&self) -> OpName {
        onnx("Conv")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 11, 22]
    }

    fn laws(&self) -> Laws {
        Laws {
            blocks: true,
            ..Laws::default()
        }
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(n, x)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        grad::vjp(n, x, dy)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::candidates(n, Post::NONE)
    }

    fn cases(&self) -> Vec<Case> {
        cases::plain()
    }
}

/// `activation(Conv(X, W, B) + residual)`; the residual (input 3) may be left out and has the output's shape.
pub struct Fused;

impl Op for Fused {
    fn name(&self) -> OpName {
        private("Conv")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let facts = infer(n)?;
        Post::of(n)?;
        fits(n, 3, &facts[0])?;
        Ok(facts)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn laws(&self) -> Laws {
        Laws {
            blocks: true,
            in_place: &[3],
            ..Laws::default()
        }
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let own = Post::ATTRIBUTES;
        let attrs = n.node().attrs.iter().filter(|a| !own.contains(&&*a.name));
        let inputs: Vec<_> = x
            .iter()
            .take(3)
            .enumerate()
            .map(|(i, x)| n.has(i).then_some(x.id))
            .collect();
        let call = Call {
            domain: "",
            op: "Conv",
            inputs: &inputs,
            attrs: attrs.cloned().collect(),
            outputs: 1,
        };
        let sums = *x.first()?.call(call).first()?;
        let sum = x.get(3).filter(|_| n.has(3)).map_or(sums, |&z| sums + z);
        Some(vec![Post::of(n).ok()?.body(sum)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        Post::of(n).map_or(vec![], |post| cpu::candidates(n, post))
    }

    fn cases(&self) -> Vec<Case> {
        cases::fused()
    }
}

/// The attributes, given the rank; `None` where that is not known. The weights are input `w`.
fn windows(n: &NodeRef, w: usize) -> Result<Option<Windows>, OpError> {
    let Some(rank) = n.rank(0).or(n.rank(w)) else {
        n.ignore(&["auto_pad", "dilations", "kernel_shape", "pads", "strides"]);
        return Ok(None);
    };
    for i in [0, w] {
        if rank < 3 || n.rank(i).is_some_and(|r| r != rank) {
            let shape = n.shape(i).map_or_else(String::new, |s| show(s));
            return Err(OpError::new(format!(
                "input {i} has shape {shape}; expected {rank} axes, and at least 3"
            )));
        }
    }
    let weights = n
        .shape(w)
        .and_then(|s| s[2..].iter().map(Dim::known).collect::<Option<Vec<_>>>());
    let size = match (n.ints("kernel_shape")?, weights) {
        (Some(k), Some(w)) if k != w => {
            return Err(OpError::new(format!(
                "attribute \"kernel_shape\" is {k:?}, but the weights have {w:?}"
            )));
        }
        (_, Some(w)) => w,
        (Some(k), None) => k.to_vec(),
        (None, None) => {
            n.ignore(&["auto_pad", "dilations", "pads", "strides"]);
            return Ok(None);
        }
    };
    Windows::of(n, rank - 2, size).map(Some)
}

fn group(n: &NodeRef) -> Result<i64, OpError> {
    match n.int_or("group", 1)? {
        g if g < 1 => Err(OpError::new(format!(
            "attribute \"group\" is {g}; expected at least 1"
        ))),
        g => Ok(g),
    }
}

fn infer(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    same_dtype(n)?;
    let dtype = (0..n.arity()).find_map(|i| n.dtype(i));
    Ok(vec![Fact::tensor(dtype, shape(n, 1, 2)?)])
}

/// The shape of the output, the weights being input `w` and the bias input `b`; `None` where its rank is not known.
///
/// # Errors
///
/// If the inputs do not go together, or attributes are wrong.
pub(crate) fn shape(n: &NodeRef, w: usize, b: usize) -> Result<Option<Shape>, OpError> {
    for i in [0, w] {
        if !n.has(i) {
            return Err(OpError::new(format!("input {i} is left out")));
        }
    }
    let (group, windows) = (group(n)?, windows(n, w)?);
    let dim = |i: usize, axis: usize| n.shape(i).map_or(Dim::Unknown, |s| s[axis].clone());
    let Some(rank) = n.rank(0).or(n.rank(w)) else {
        return Ok(None);
    };
    let (c, o, per_group) = (dim(0, 1), dim(w, 0), dim(w, 1));
    let wrong = match (c.known(), o.known(), per_group.known()) {
        (Some(c), _, Some(p)) if Some(c) != p.checked_mul(group) => true,
        (_, Some(o), _) => o % group != 0,
        _ => false,
    };
    let bias = super::shape::ranked(n, b, 1)?.map_or(Dim::Unknown, |s| s[0].clone());
    if wrong || matches!((bias.known(), o.known()), (Some(b), Some(o)) if b != o) {
        let shapes: Vec<_> = [0, w, b]
            .iter()
            .filter_map(|&i| n.shape(i))
            .map(|s| show(s))
            .collect();
        return Err(OpError::new(format!(
            "shapes {} in {group} groups do not go together",
            shapes.join(", ")
        )));
    }
    let o = if o.known().is_some() {
        o
    } else if bias.known().is_some() {
        bias
    } else {
        o
    };
    let mut shape = vec![dim(0, 0), o];
    match (windows, n.shape(0)) {
        (Some(w), Some(x)) => shape.extend(w.outputs(&x[2..])?),
        _ => shape.resize(rank, Dim::Unknown),
    }
    Ok(Some(shape))
}

/// Batch, output channels, output positions, and what is summed over: channels of a group, elements of the window.
fn axes(n: &NodeRef) -> Option<Axes> {
    let rank = n.rank(0).or(n.rank(1))?;
    let tie = |output, inputs: &[(usize, usize)]| Tie {
        output,
        inputs: inputs.iter().copied().filter(|(i, _)| n.has(*i)).collect(),
    };
    let group = group(n).ok()?;
    let single = n
        .shape(1)
        .is_some_and(|s| s[1] == Dim::Known(1) && s[0] == Dim::Known(group));
    let mut ties = vec![tie(Some(0), &[(0, 0), (3, 0)])];
    // With one channel a group, channels come out as they go in.
    ties.push(match group > 1 && single {
        true => tie(Some(1), &[(0, 1), (1, 0), (2, 0), (3, 1)]),
        false => tie(Some(1), &[(1, 0), (2, 0), (3, 1)]),
    });
    ties.push(match group {
        1 => tie(None, &[(0, 1), (1, 1)]),
        _ => tie(None, &[(1, 1)]),
    });
    ties.extend((2..rank).map(|a| tie(None, &[(1, a)])));
    ties.extend((2..rank).map(|a| tie(Some(a), &[(3, a)])));
    Some(Axes(ties))
}

/// Images, groups, input and output channels of a group, and the window.
pub(crate) struct Sizes {
    pub(crate) images: usize,
    pub(crate) groups: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) window: Window,
}

/// The sizes for an input of dimensions `x` and weights of dimensions `w`, which are input `at`.
///
/// # Errors
///
/// If they do not go together.
pub(crate) fn sizes(n: &NodeRef, at: usize, x: &[usize], w: &[usize]) -> Result<Sizes, OpError> {
    let groups = usize::try_from(group(n)?).unwrap_or(1);
    let wrong = || OpError::new(format!("{x:?} and {w:?} in {groups} groups do not go together"));
    if x.len() != w.len()
        || x.len() < 3
        || x[1] != w[1].saturating_mul(groups)
        || !w[0].is_multiple_of(groups)
    {
        return Err(wrong());
    }
    Ok(Sizes {
        images: x[0],
        groups,
        inputs: w[1],
        outputs: w[0] / groups,
        window: windows(n, at)?.ok_or_else(wrong)?.over(&x[2..])?,
    })
}

fn eval(n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (Some(Some(x)), Some(Some(w)), bias) = (x.first(), x.get(1), x.get(2).copied().flatten()) else {
        return Err(OpError::new("expected an image and weights"));
    };
    let s = sizes(n, 1, x.dims(), w.dims())?;
    let mut dims = vec![s.images, s.groups * s.outputs];
    dims.extend(&s.window.output);
    check_size(&dims)?;
    let wrong = || OpError::new(format!("no convolution of {}", x.dtype()));
    let (data, weights) = (x.floats().ok_or_else(wrong)?, w.floats().ok_or_else(wrong)?);
    let bias = bias
        .map(|b| b.floats().filter(|b| b.len() == dims[1]).ok_or_else(wrong))
        .transpose()?;
    let (taps, plane, positions) = (s.window.taps(), s.window.plane(), s.window.positions());
    let channels = s.images * s.groups * s.outputs;
    let mut y = vec![0.0; channels * positions];
    for at in 0..if channels > 0 { positions } else { 0 } {
        let covered: Vec<_> = s.window.covered(at).collect();
        for channel in 0..channels {
            let (o, place) = (channel % dims[1], channel / s.outputs * s.inputs);
            let mut sum = bias.as_ref().map_or(0.0, |b| b[o]);
            for c in 0..s.inputs {
                let (image, filter) = (
                    &data[(place + c) * plane..],
                    &weights[(o * s.inputs + c) * taps..],
                );
                sum += covered
                    .iter()
                    .map(|&(tap, under)| image[under] * filter[tap])
                    .sum::<f64>();
            }
            y[channel * positions + at] = sum;
        }
    }
    Ok(vec![Tensor::rounded(x.dtype(), &dims, &y).ok_or_else(wrong)?])
}
