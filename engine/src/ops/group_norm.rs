//! `InstanceNormalization` and `GroupNormalization`: normalisation of channels.

use super::binary::candidate;
use super::case::floats;
use super::formula::ints;
use super::grad::shaped;
use super::norm::centred;
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, Tie, onnx, shape};
use crate::cpu::norm::{GroupKernel, doubles_moments};
use crate::cpu::{Candidate, Kernel};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Tensor, count};

/// Each channel of each image to mean 0 and variance 1, times a scale, plus a bias.
pub struct InstanceNormalization;

/// Each group of channels of each image to mean 0 and variance 1, times a scale, plus a bias. The two are given for each
/// channel, before opset 21 for each group.
pub struct GroupNormalization;

/// How channels are grouped, and what of scale and bias belongs to each.
struct Plan {
    groups: usize,
    size: [usize; 3],
    affine: Vec<usize>,
    dims: Vec<usize>,
}

/// The plan for an input of dimensions `dims`; `groups` of channels, and the sizes of scale and bias.
fn plan(dims: &[usize], groups: usize, given: [usize; 2], per_group: bool) -> Result<Plan, OpError> {
    let wrong = |what: String| Err(OpError::new(what));
    let [images, channels, ..] = *dims else {
        return wrong(format!(
            "expected [batch, channels, …], found {} axes",
            dims.len()
        ));
    };
    if groups == 0 || channels % groups != 0 {
        return wrong(format!("{channels} channels do not make {groups} groups"));
    }
    let expected = if per_group { groups } else { channels };
    if given != [expected; 2] {
        return wrong(format!(
            "expected a scale and a bias of {expected} elements, found {given:?}"
        ));
    }
    let (Some(area), Some(_)) = (count(&dims[2..]), count(dims)) else {
        return wrong("the input is larger than memory".into());
    };
    let each = channels / groups;
    let affine = (0..images * channels).map(|c| {
        if per_group {
            c % channels / each
        } else {
            c % channels
        }
    });
    Ok(Plan {
        groups: images * groups,
        size: [images * groups, each, area],
        affine: affine.collect(),
        dims: dims.to_vec(),
    })
}

/// Whether scale and bias are given for each group. Opset 21, where that ended, brought `stash_type`: what has it is of
/// then, whatever the model imports.
fn per_group(n: &NodeRef) -> bool {
    n.opset() < 21 && !matches!(n.int("stash_type"), Ok(Some(_)))
}

fn groups(n: &NodeRef) -> Result<usize, OpError> {
    let g = n.int("num_groups")?;
    g.and_then(|g| usize::try_from(g).ok())
        .filter(|&g| g > 0)
        .ok_or_else(|| {
            OpError::new(format!(
                "attribute \"num_groups\": expected a positive number, found {g:?}"
            ))
        })
}

fn infer(n: &NodeRef, groups: Option<usize>) -> Result<Vec<Fact>, OpError> {
    n.ignore(&["consumed_inputs"]);
    n.float("epsilon")?;
    shape::same_dtype(n)?;
    if let Some(d) = n.dtype(0).filter(|d| !d.is_float()) {
        return Err(OpError::new(format!("expected floats, found {d}")));
    }
    let (mut channels, mut expected) = (Dim::Unknown, Dim::Unknown);
    if let Some(s) = n.shape(0) {
        channels = s.get(1).cloned().ok_or_else(|| {
            OpError::new(format!("expected [batch, channels, …], found {}", shape::show(s)))
        })?;
        expected = channels.clone();
    }
    if let Some(g) = groups {
        if channels.size().is_some_and(|c| c % g != 0) {
            return Err(OpError::new(format!(
                "{channels} channels do not make {g} groups"
            )));
        }
        if per_group(n) {
            expected = Dim::from(g);
        }
    }
    for i in 1..3 {
        if !n.has(i) {
            return Err(OpError::new(format!("input {i} is left out")));
        }
        if let (Some(s), Some(c)) = (shape::ranked(n, i, 1)?, expected.known())
            && s[0].known().is_some_and(|d| d != c)
        {
            return Err(OpError::new(format!(
                "input {i} has {} elements; expected {c}",
                s[0]
            )));
        }
    }
    shape::like_first(n)
}

fn eval(n: &NodeRef, x: &[Option<&Tensor>], groups: Option<usize>) -> Result<Vec<Tensor>, OpError> {
    let &[Some(t), Some(scale), Some(bias)] = x else {
        return Err(OpError::new("expected three inputs"));
    };
    let wrong = || OpError::new(format!("expected floats, found {}", t.dtype()));
    let channels = t.dims().get(1).copied().unwrap_or(0);
    let per_group = groups.is_some() && per_group(n);
    let p = plan(
        t.dims(),
        groups.unwrap_or(channels.max(1)),
        [scale.len(), bias.len()],
        per_group,
    )?;
    let epsilon = f64::from(n.float_or("epsilon", 1e-5)?);
    let (scale, bias) = (
        scale.floats().ok_or_else(wrong)?,
        bias.floats().ok_or_else(wrong)?,
    );
    let mut v = t.floats().filter(|_| t.dtype().is_float()).ok_or_else(wrong)?;
    let [_, each, area] = p.size;
    for g in 0..p.groups {
        let group = &mut v[g * each * area..][..each * area];
        let (mean, inverse) = doubles_moments(group, true, epsilon);
        for (i, x) in group.iter_mut().enumerate() {
            let c = p.affine[g * each + i / area];
            *x = (*x - mean) * inverse * scale[c] + bias[c];
        }
    }
    Ok(vec![Tensor::rounded(t.dtype(), &p.dims, &v).ok_or_else(wrong)?])
}

fn cpu(n: &NodeRef, groups: Option<usize>) -> Vec<Candidate> {
    let kernel = || -> Option<Box<dyn Kernel>> {
        let (dims, dtype) = (n.dims(0)?, n.dtype(0)?);
        let channels = dims.get(1).copied()?;
        let given = [count(&n.dims(1)?)?, count(&n.dims(2)?)?];
        let per_group = groups.is_some() && per_group(n);
        let p = plan(&dims, groups.unwrap_or(channels.max(1)), given, per_group).ok()?;
        Some(Box::new(GroupKernel {
            dtype,
            size: p.size,
            epsilon: n.float_or("epsilon", 1e-5).ok()?,
            affine: p.affine,
        }))
    };
    kernel().into_iter().map(|k| candidate(n, "", k)).collect()
}

/// The gradients where so many `groups` of channels are normalised each for itself.
fn gradients<'a>(n: &NodeRef, x: Exs<'_, 'a>, dy: Ex<'a>, groups: i64) -> Grads<'a> {
    let (x0, scale, rank) = (x[0]?, x[1]?, n.rank(0)?);
    let rows = |x: Ex<'a>| x.op("Reshape", &[ints(x, &[0, groups, -1])]);
    let behind: Vec<_> = (1..rank as i64 - 1).collect();
    let wide = match behind.is_empty() {
        true => scale,
        false => scale.op("Unsqueeze", &[ints(scale, &behind)]),
    };
    let [normal, dx] = centred(n, rows(x0), rows(dy * wide), -1)?;
    let others: Vec<_> = (0..rank as i64).filter(|&axis| axis != 1).collect();
    let own = |dy: Ex<'a>| dy.with("ReduceSum", &[ints(dy, &others)], vec![Attr::new("keepdims", 0)]);
    let dscale = own(dy * shaped(n, 0, x0, normal));
    Some(vec![Some(shaped(n, 0, x0, dx)), Some(dscale), Some(own(dy))])
}

/// Batches and channels hang together; the rest is normalised.
fn axes(n: &NodeRef, affine: bool) -> Option<Axes> {
    n.rank(0).filter(|&r| r >= 2)?;
    let batch = Tie {
        output: Some(0),
        inputs: vec![(0, 0)],
    };
    let channels = Tie {
        output: Some(1),
        inputs: vec![(0, 1), (1, 0), (2, 0)],
    };
    Some(Axes(if affine {
        vec![batch, channels]
    } else {
        vec![batch]
    }))
}

const IN_PLACE: Laws = Laws {
    blocks: false,
    any: false,
    impure: false,
    commutes: false,
    associates: false,
    view: false,
    still: false,
    elementwise: false,
    in_place: &[0],
};

impl Op for InstanceNormalization {
    fn name(&self) -> OpName {
        onnx("InstanceNormalization")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 6, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n, None)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n, true)
    }

    fn laws(&self) -> Laws {
        IN_PLACE
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(n, x, None)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        gradients(n, x, dy[0]?, n.shape(0)?.get(1)?.known()?)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu(n, None)
    }

    fn cases(&self) -> Vec<Case> {
        let double = |n: usize| Tensor::of(&[n], (0..n).map(|i| i as f64 * 0.3 - 0.4).collect::<Vec<_>>());
        let all = [
            Case::new(
                "image",
                [floats(&[2, 3, 5, 7], 1), floats(&[3], 2), floats(&[3], 3)],
            ),
            Case::new("line", [floats(&[2, 3, 50], 1), floats(&[3], 2), floats(&[3], 3)])
                .attr("epsilon", 0.5),
            Case::new("old", [floats(&[1, 2, 4], 1), floats(&[2], 2), floats(&[2], 3)]).opset(1),
            Case::new(
                "nothing",
                [floats(&[0, 3, 5], 1), floats(&[3], 2), floats(&[3], 3)],
            ),
            Case::new(
                "double",
                [
                    double(24).reshaped(&[2, 3, 4]).unwrap_or_else(|| double(24)),
                    double(3),
                    double(3),
                ],
            ),
        ];
        all.into_iter().map(|c| c.within(3e-6, 3e-6)).collect()
    }
}

impl Op for GroupNormalization {
    fn name(&self) -> OpName {
        onnx("GroupNormalization")
    }

    fn since(&self) -> &'static [u16] {
        &[18, 21]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        // Statistics are computed in double precision, whatever the file asks for at least.
        n.ignore(&["stash_type"]);
        infer(n, Some(groups(n)?))
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n, false)
    }

    fn laws(&self) -> Laws {
        IN_PLACE
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(n, x, Some(groups(n)?))
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        gradients(n, x, dy[0]?, groups(n).ok()? as i64)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        groups(n).map(|g| cpu(n, Some(g))).unwrap_or_default()
    }

    fn cases(&self) -> Vec<Case> {
        let half = |x: Tensor| Tensor::rounded(DType::F16, x.dims(), &x.floats()?);
        let halves = [floats(&[2, 4, 3, 3], 1), floats(&[4], 2), floats(&[4], 3)].map(half);
        let all = [
            Case::new(
                "channels",
                [floats(&[2, 6, 5, 7], 1), floats(&[6], 2), floats(&[6], 3)],
            )
            .attr("num_groups", 3),
            Case::new(
                "one group",
                [floats(&[2, 6, 9], 1), floats(&[6], 2), floats(&[6], 3)],
            )
            .attr("num_groups", 1)
            .attr("epsilon", 0.5),
            Case::new(
                "per group",
                [floats(&[2, 6, 5], 1), floats(&[2], 2), floats(&[2], 3)],
            )
            .opset(18)
            .attr("num_groups", 2),
        ];
        let mut all: Vec<_> = all.into_iter().map(|c| c.within(3e-6, 3e-6)).collect();
        let halves: Option<Vec<_>> = halves.into_iter().collect();
        all.extend(halves.map(|x| Case::new("half", x).attr("num_groups", 2).within(4e-3, 4e-3)));
        all
    }
}
