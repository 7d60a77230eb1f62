//! `LayerNormalization` and `RMSNormalization`: normalisation of rows.

use super::binary::{candidate, stretch};
use super::case::floats;
use super::formula::apply;
use super::grad::{at, folded};
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, Tie, onnx, shape};
use crate::cpu::norm::LayerKernel;
use crate::cpu::{Candidate, Kernel};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Shape, Tensor, count};

/// `(x - mean) / sqrt(variance + epsilon) * scale + bias` along the axes from `axis` on.
pub struct LayerNormalization;

/// `x / sqrt(mean(x²) + epsilon) * scale` along the axes from `axis` on.
pub struct RMSNormalization;

/// The default of `epsilon`.
pub(super) const EPSILON: f32 = 1e-5;

/// The first of the axes that are normalised.
pub(super) fn first(n: &NodeRef, rank: usize) -> Result<usize, OpError> {
    NodeRef::axis(n.int_or("axis", -1)?, rank)
}

/// The type in which the statistics are computed.
fn stash(n: &NodeRef) -> Result<DType, OpError> {
    let code = n.int_or("stash_type", 1)?;
    let dtype = i32::try_from(code).map(DType::from_code);
    dtype
        .ok()
        .filter(|d| matches!(d, DType::F32 | DType::BF16 | DType::F16 | DType::F64))
        .ok_or_else(|| {
            OpError::new(format!(
                "attribute \"stash_type\": expected a float type, found {code}"
            ))
        })
}

fn check(n: &NodeRef, inputs: usize) -> Result<(), OpError> {
    n.float("epsilon")?;
    stash(n)?;
    for i in 0..inputs {
        if !n.has(i) {
            return Err(OpError::new(format!("input {i} is left out")));
        }
    }
    if let Some(d) = n.dtype(0).filter(|d| !d.is_float()) {
        return Err(OpError::new(format!("expected floats, found {d}")));
    }
    let Some(x) = n.shape(0) else {
        first(n, usize::MAX >> 1)?;
        return Ok(());
    };
    first(n, x.len())?;
    for i in 1..n.arity() {
        let Some(s) = n.shape(i) else { continue };
        let both = shape::broadcast(x, s)?;
        let grows = both
            .iter()
            .zip(x)
            .any(|(b, x)| b.known().is_some_and(|b| x.known().is_some_and(|x| b != x)));
        if both.len() != x.len() || grows {
            return Err(OpError::new(format!(
                "input {i} has shape {}, which does not broadcast to {}",
                shape::show(s),
                shape::show(x)
            )));
        }
    }
    Ok(())
}

/// Axes before the first that is normalised hang together.
fn axes(n: &NodeRef) -> Option<Axes> {
    let first = first(n, n.rank(0)?).ok()?;
    let tie = |i| Tie {
        output: Some(i),
        inputs: vec![(0, i)],
    };
    Some(Axes((0..first).map(tie).collect()))
}

/// The mean of `x` along its last axes, from `axis` on.
fn mean<'a>(n: &NodeRef, x: Ex<'a>) -> Option<Ex<'a>> {
    let axis = n.int_or("axis", -1).ok()?;
    let axes: Vec<i64> = match n.rank(0) {
        Some(rank) => (first(n, rank).ok()? as i64 - rank as i64..0).collect(),
        None if (-64..0).contains(&axis) => (axis..0).collect(),
        None => return None,
    };
    Some(match n.opset() {
        ..18 => x.with("ReduceMean", &[], vec![Attr::new("axes", axes)]),
        _ => x.op("ReduceMean", &[x.tensor(Tensor::of(&[axes.len()], axes))]),
    })
}

/// `x` as elements of type `to`, where it is known to be of another.
fn cast<'a>(x: Ex<'a>, from: Option<DType>, to: DType) -> Ex<'a> {
    match from {
        Some(d) if d != to => x.with("Cast", &[], vec![Attr::new("to", i64::from(to.code()))]),
        _ => x,
    }
}

/// `x`, input 0 of `n`, normalised along the axes from `axis` (below 0) on, and its gradient where that of the result is `g`.
pub(super) fn centred<'a>(n: &NodeRef, x: Ex<'a>, g: Ex<'a>, axis: i64) -> Option<[Ex<'a>; 2]> {
    let own = n.dtype(0)?;
    let wide = if own == DType::F64 { own } else { DType::F32 };
    let attrs = vec![
        Attr::new("axis", axis),
        Attr::new("epsilon", n.float_or("epsilon", EPSILON).ok()?),
        Attr::new("stash_type", i64::from(wide.code())),
    ];
    let made = apply(x, "LayerNormalization", &[Some(x.constant(1.0))], attrs, 3);
    let (normal, inverse) = (made[0], super::formula::cast(made[2], wide, own));
    let axes: Vec<_> = (axis..0).collect();
    let mean = |x: Ex<'a>| folded(x, "ReduceMean", &axes);
    Some([normal, (g - mean(g) - normal * mean(g * normal)) * inverse])
}

/// The type in which a body computes: doubles stay what they are.
fn wide(n: &NodeRef) -> Option<DType> {
    let (own, stash) = (n.dtype(0).unwrap_or(DType::F32), stash(n).ok()?);
    Some(if own == DType::F64 { own } else { stash })
}

/// The kernel of both.
fn kernel(n: &NodeRef, centred: bool) -> Option<Box<dyn Kernel>> {
    let (dims, dtype) = (n.dims(0)?, n.dtype(0)?);
    let first = first(n, dims.len()).ok()?;
    let rows = count(&dims[..first])?;
    count(&dims)?;
    // A scale that differs between rows has no kernel.
    let spread = |i: usize| {
        let s = n.dims(i)?;
        let (before, own) = s.split_at(s.len().saturating_sub(dims.len() - first));
        let fits = before.iter().all(|&d| d == 1) && (n.dtype(i) == Some(dtype));
        fits.then(|| stretch(own, &dims[first..]))
    };
    Some(Box::new(LayerKernel {
        dtype,
        rows,
        epsilon: n.float_or("epsilon", EPSILON).ok()?,
        centred,
        scale: spread(1)?,
        bias: if n.has(2) { Some(spread(2)?) } else { None },
    }))
}

impl Op for LayerNormalization {
    fn name(&self) -> OpName {
        onnx("LayerNormalization")
    }

    fn since(&self) -> &'static [u16] {
        &[17]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        check(n, 2)?;
        let of_rows = |s: &Shape| -> Result<Shape, OpError> {
            let first = first(n, s.len())?;
            let ones = std::iter::repeat_n(Dim::Known(1), s.len() - first);
            Ok(s[..first].iter().cloned().chain(ones).collect())
        };
        let seen = Fact::tensor(Some(stash(n)?), n.shape(0).map(of_rows).transpose()?);
        let mut all = shape::like_first(n)?;
        all.extend([seen.clone(), seen]);
        Ok(all)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0],
            ..Laws::default()
        }
    }

    fn arity(&self) -> usize {
        3
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let (own, wide) = (n.dtype(0), wide(n)?);
        let x0 = cast(*x.first()?, own, wide);
        let middle = mean(n, x0)?;
        let d = x0 - middle;
        let variance = mean(n, d.op("Pow", &[d.constant(2.0)]))?;
        let deviation = (variance + variance.attr("epsilon", EPSILON)).op("Sqrt", &[]);
        let y = cast(d / deviation, own.map(|_| wide), own.unwrap_or(wide)) * *x.get(1)?;
        let bias = x.get(2).filter(|_| n.node().inputs.get(2) != Some(&None));
        let mut all = vec![bias.map_or(y, |b| y + *b)];
        if n.wants(1) || n.wants(2) {
            let note = |x| cast(x, own.map(|_| wide), stash(n).unwrap_or(wide));
            all.extend([note(middle), note(deviation.op("Reciprocal", &[]))]);
        }
        Some(all)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        if at(dy, 1).is_some() || at(dy, 2).is_some() {
            return None;
        }
        let (x0, scale, dy) = (x[0]?, x[1]?, dy[0]?);
        if let Some(dx) = super::norm_grad::call(n, [x0, scale, dy]) {
            return Some(dx.into_iter().map(Some).collect());
        }
        let first = first(n, n.rank(0)?).ok()?;
        let axes = first as i64 - n.rank(0)? as i64;
        let [normal, dx] = centred(n, x0, dy * scale, axes)?;
        Some(vec![Some(dx), Some(dy * normal), Some(dy)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernel(n, true).into_iter().map(|k| candidate(n, "", k)).collect()
    }

    fn cases(&self) -> Vec<Case> {
        let few = |dtype: DType| {
            let x = floats(&[3, 20], 1).floats().unwrap_or_default();
            let tensors = [
                Tensor::rounded(dtype, &[3, 20], &x),
                Tensor::rounded(dtype, &[20], &x[..20]),
                Tensor::rounded(dtype, &[20], &x[20..40]),
            ];
            tensors.into_iter().collect::<Option<Vec<_>>>()
        };
        let all = [
            Case::new(
                "rows",
                [floats(&[2, 5, 37], 1), floats(&[37], 2), floats(&[37], 3)],
            ),
            Case::new("long rows", [floats(&[3, 2500], 1), floats(&[2500], 2)]),
            Case::new(
                "statistics",
                [floats(&[2, 5, 33], 1), floats(&[33], 2), floats(&[33], 3)],
            )
            .outputs(3),
            Case::new(
                "two axes",
                [floats(&[2, 5, 7], 1), floats(&[5, 7], 2), floats(&[5, 7], 3)],
            )
            .attr("axis", 1)
            .attr("epsilon", 0.1)
            .outputs(3),
            Case::new(
                "broadcast scale",
                [floats(&[2, 5, 7], 1), floats(&[5, 1], 2), floats(&[1], 3)],
            )
            .attr("axis", -2),
            Case::new("scale of each row", [floats(&[2, 7], 1), floats(&[2, 1], 2)]),
            Case::new(
                "opset 17",
                [floats(&[4, 16], 1), floats(&[16], 2), floats(&[16], 3)],
            )
            .opset(17),
            Case::new("nothing", [floats(&[0, 3], 1), floats(&[3], 2)]),
        ];
        let mut all: Vec<_> = all.into_iter().map(|c| c.within(4e-6, 4e-6)).collect();
        all.extend(few(DType::F64).map(|x| Case::new("double", x).outputs(3).within(1e-6, 1e-6)));
        all.extend(few(DType::F16).map(|x| Case::new("half", x).outputs(3).within(4e-3, 4e-3)));
        all.extend(few(DType::BF16).map(|x| Case::new("half", x).within(4e-2, 2e-2)));
        all
    }
}

impl Op for RMSNormalization {
    fn name(&self) -> OpName {
        onnx("RMSNormalization")
    }

    fn since(&self) -> &'static [u16] {
        &[23]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        check(n, 2)?;
        Ok(vec![Fact::tensor(n.dtype(1), n.shape(0).cloned())])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0],
            ..Laws::default()
        }
    }

    fn arity(&self) -> usize {
        2
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let (own, wide) = (n.dtype(0), wide(n)?);
        let x0 = cast(*x.first()?, own, wide);
        let square = mean(n, x0.op("Pow", &[x0.constant(2.0)]))?;
        let inverse = (square + square.attr("epsilon", EPSILON))
            .op("Sqrt", &[])
            .op("Reciprocal", &[]);
        let out = n.dtype(1).unwrap_or(wide);
        Some(vec![cast(x0 * inverse, own.map(|_| wide), out) * *x.get(1)?])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (x0, scale, dy) = (x[0]?, x[1]?, dy[0]?);
        let first = first(n, n.rank(0)?).ok()?;
        let axes: Vec<_> = (first as i64 - n.rank(0)? as i64..0).collect();
        let mean = |x: Ex<'a>| folded(x, "ReduceMean", &axes);
        let epsilon = n.float_or("epsilon", EPSILON).ok()?;
        let root = (mean(x0 * x0) + f64::from(epsilon)).op("Sqrt", &[]);
        let (normal, g) = (x0 / root, dy * scale);
        let dx = (g - normal * mean(g * normal)) / root;
        Some(vec![Some(dx), Some(dy * normal)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernel(n, false)
            .into_iter()
            .map(|k| candidate(n, "", k))
            .collect()
    }

    fn cases(&self) -> Vec<Case> {
        let all = [
            Case::new("rows", [floats(&[2, 5, 37], 1), floats(&[37], 2)]),
            Case::new("two axes", [floats(&[2, 5, 7], 1), floats(&[5, 7], 2)])
                .attr("axis", 1)
                .attr("epsilon", 0.1),
            Case::new("one scale", [floats(&[3, 300], 1), floats(&[], 2)]),
            Case::new("nothing", [floats(&[0, 3], 1), floats(&[3], 2)]),
        ];
        let mut all: Vec<_> = all.into_iter().map(|c| c.within(2e-6, 4e-6)).collect();
        let half = |x: Tensor| Tensor::rounded(DType::F16, x.dims(), &x.floats()?);
        let halves = half(floats(&[3, 20], 1)).zip(half(floats(&[20], 2)));
        all.extend(halves.map(|(a, b)| Case::new("half", [a, b]).within(4e-3, 4e-3)));
        all
    }
}
