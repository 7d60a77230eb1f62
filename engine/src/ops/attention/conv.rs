//! `CausalConvWithState` of ONNX and of ONNX Runtime: each channel convolved with what came before.

use super::super::formula::{apply, concat, given, reshape, slice, transpose, zeros};
use super::super::shape::{arity, product, ranked};
use super::super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, microsoft, onnx};
use super::heads::agree;
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Shape, Tensor};

/// ONNX's own: `[batch, channels, length]`.
pub struct CausalConvWithState;

/// ONNX Runtime's, with dilation, channels last, and a window of states.
pub struct Causal;

/// What the attributes say, beyond the activation.
#[derive(Clone, Copy, Debug)]
struct Form {
    dilation: usize,
    /// Whether the channels, however many axes they have, come last.
    last: bool,
    /// States that are kept; `None` for one without an axis for them.
    window: Option<usize>,
}

const PLAIN: Form = Form {
    dilation: 1,
    last: false,
    window: None,
};

impl Form {
    fn of(n: &NodeRef) -> Result<Form, OpError> {
        let int = |name: &str, default: i64, low: i64, high: i64| {
            let found = n.int_or(name, default)?;
            let fits = usize::try_from(found)
                .ok()
                .filter(|_| (low..=high).contains(&found));
            fits.ok_or_else(|| {
                OpError::new(format!(
                    "attribute {name:?}: expected {low} to {high}, found {found}"
                ))
            })
        };
        int("ndim", 1, 1, 1)?;
        Ok(Form {
            dilation: int("dilation", 1, 1, 1 << 20)?,
            last: int("channels_last", 0, 0, 1)? == 1,
            window: Some(int("state_window", 0, 0, 8)?).filter(|&w| w > 0),
        })
    }

    /// The axis along which the convolution runs.
    fn axis(self) -> usize {
        if self.last { 1 } else { 2 }
    }
}

/// Whether the result goes through `x sigmoid(x)`.
fn gated(n: &NodeRef) -> Result<bool, OpError> {
    match n.str_or("activation", "none")? {
        "none" => Ok(false),
        "silu" | "swish" => Ok(true),
        other => Err(OpError::new(format!(
            "attribute \"activation\": expected \"silu\", \"swish\" or \"none\", found {other:?}"
        ))),
    }
}

/// The shape of the states, from those of input and weights.
fn states(n: &NodeRef, x: &Shape, w: &Shape, form: Form) -> Result<Shape, OpError> {
    let channels = if form.last { product(&x[2..]) } else { x[1].clone() };
    agree("channels of input and weights", &channels, &w[0])?;
    agree("depth of the weights", &Dim::Known(1), &w[1])?;
    if w[2] == Dim::Known(0) {
        return Err(OpError::new("the kernels have no taps"));
    }
    let mut state = x.clone();
    state[form.axis()] = (w[2].clone() - Dim::Known(1)) * Dim::from(form.dilation);
    state.splice(0..0, form.window.map(Dim::from));
    if let Some(past) = ranked(n, 3, state.len())? {
        for (a, b) in past.iter().zip(&state) {
            agree("sizes of the earlier state", a, b)?;
        }
    }
    Ok(state)
}

fn infer(n: &NodeRef, form: Form) -> Result<Vec<Fact>, OpError> {
    arity(n, 2, 4)?;
    super::floats(n, 0..4)?;
    gated(n)?;
    let w = ranked(n, 1, 3)?;
    let x = match n.shape(0) {
        Some(x) if form.last && x.len() < 3 => {
            return Err(OpError::new("input 0: expected at least 3 dimensions"));
        }
        x if form.last => x,
        _ => ranked(n, 0, 3)?,
    };
    let state = match (x, w) {
        (Some(x), Some(w)) => Some(states(n, x, w, form)?),
        _ => None,
    };
    let fact = |shape| Fact::tensor(n.dtype(0), shape);
    Ok(vec![fact(x.cloned()), fact(state)])
}

/// The dimensions of the input, which say how channels lie.
struct Lay {
    dims: Vec<usize>,
    last: bool,
}

impl Lay {
    fn channels(&self) -> usize {
        match self.last {
            true => self.dims[2..].iter().product(),
            false => self.dims[1],
        }
    }

    /// `x` of the input's dimensions, but `length` long, as `[batch, channels, length]`.
    fn inward<'a>(&self, x: Ex<'a>, length: usize) -> Ex<'a> {
        match self.last {
            true => transpose(reshape(x, &[self.dims[0], length, self.channels()]), &[0, 2, 1]),
            false => x,
        }
    }

    /// The dimensions of a part that is `length` long.
    fn part(&self, length: usize) -> Vec<usize> {
        let mut dims = self.dims.clone();
        dims[if self.last { 1 } else { 2 }] = length;
        dims
    }

    /// The opposite of [`inward`](Lay::inward).
    fn outward<'a>(&self, x: Ex<'a>, length: usize) -> Ex<'a> {
        match self.last {
            true => reshape(transpose(x, &[0, 2, 1]), &self.part(length)),
            false => x,
        }
    }
}

fn body<'a>(n: &NodeRef, x: &[Ex<'a>], form: Form) -> Option<Vec<Ex<'a>>> {
    let (own, w, dims) = (n.dtype(0)?, n.dims(1)?, n.dims(0)?);
    let lay = Lay {
        last: form.last,
        dims,
    };
    let (length, channels) = (*lay.dims.get(form.axis())?, lay.channels());
    let kept = w.get(2)?.checked_sub(1)?.checked_mul(form.dilation)?;
    let past = match (given(n, x, 3), form.window) {
        (None, _) => zeros(x[0], own, &[lay.dims[0], channels, kept])?,
        (Some(p), None) => lay.inward(p, kept),
        (Some(p), Some(window)) => {
            let newest = slice(p, 0, window - 1, window);
            lay.inward(reshape(newest, &lay.part(kept)), kept)
        }
    };
    let all = concat(past, &[lay.inward(x[0], length)], 2);
    let attrs = vec![
        Attr::new("group", channels as i64),
        Attr::new("dilations", vec![form.dilation as i64]),
    ];
    let y = apply(all, "Conv", &[Some(*x.get(1)?), given(n, x, 2)], attrs, 1)[0];
    let y = match gated(n).ok()? {
        true => y * y.sigmoid(),
        false => y,
    };
    // After `end` elements.
    let state = |end: usize| lay.outward(slice(all, 2, end, end + kept), kept);
    let states = match form.window {
        None => state(length),
        Some(window) => {
            let mut one = lay.part(kept);
            one.insert(0, 1);
            let slots = (0..window).map(|j| match (length + j + 1).checked_sub(window) {
                Some(end) if end > 0 => Some(reshape(state(end), &one)),
                _ => zeros(x[0], own, &one),
            });
            let slots = slots.collect::<Option<Vec<_>>>()?;
            concat(slots[0], &slots[1..], 0)
        }
    };
    Some(vec![lay.outward(y, length), states])
}

impl Op for CausalConvWithState {
    fn name(&self) -> OpName {
        onnx("CausalConvWithState")
    }

    fn since(&self) -> &'static [u16] {
        &[27]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n, PLAIN)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        body(n, x, PLAIN)
    }

    fn cases(&self) -> Vec<Case> {
        let all = || {
            [
                case::floats(&[2, 4, 6], 1),
                case::floats(&[4, 1, 3], 2),
                case::floats(&[4], 3),
                case::floats(&[2, 4, 2], 4),
            ]
        };
        let half = |t: &Tensor| Tensor::rounded(DType::F16, t.dims(), &t.floats()?);
        let halves = all().iter().map(half).collect::<Option<Vec<_>>>();
        let [x, w, ..] = all();
        let mut cases = vec![
            Case::new("all", all()).attr("activation", "silu").outputs(2),
            Case::new("no bias", all()).without(2).attr("activation", "none"),
            Case::new("nothing before", all()).without(3).outputs(2),
            Case::new("the least", [x, w]),
            Case::new(
                "short",
                [case::floats(&[1, 1, 1], 1), case::floats(&[1, 1, 4], 2)],
            )
            .outputs(2),
            Case::new(
                "one tap",
                [case::floats(&[1, 2, 3], 1), case::floats(&[2, 1, 1], 2)],
            )
            .outputs(2),
        ];
        cases.extend(halves.map(|x| Case::new("half", x).outputs(2)));
        cases.into_iter().map(|c| c.within(1e-5, 1e-5)).collect()
    }
}

impl Op for Causal {
    fn name(&self) -> OpName {
        microsoft("CausalConvWithState")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n, Form::of(n)?)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        body(n, x, Form::of(n).ok()?)
    }

    fn cases(&self) -> Vec<Case> {
        let (w, b) = (case::floats(&[4, 1, 3], 2), case::floats(&[4], 3));
        let of = |name, x: &[usize], state: &[usize]| {
            let inputs = [case::floats(x, 1), w.clone(), b.clone(), case::floats(state, 4)];
            Case::new(name, inputs).outputs(2).within(1e-5, 1e-5)
        };
        vec![
            of("plain", &[2, 4, 6], &[2, 4, 2]).attr("ndim", 1),
            of("dilated", &[2, 4, 6], &[2, 4, 4]).attr("dilation", 2),
            of("channels last", &[2, 6, 2, 2], &[2, 2, 2, 2]).attr("channels_last", 1),
            of("a window", &[2, 4, 6], &[3, 2, 4, 2]).attr("state_window", 3),
            of("a wide window", &[2, 1, 4], &[3, 2, 2, 4])
                .attr("state_window", 3)
                .attr("channels_last", 1)
                .attr("activation", "swish"),
        ]
    }
}
