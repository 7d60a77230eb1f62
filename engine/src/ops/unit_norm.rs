//! `LpNormalization` and `MeanVarianceNormalization`: rows brought to norm 1, or to mean 0 and variance 1.

use super::case::floats;
use super::shape::{arity, distinct_axes, like_first};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, onnx, shape};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Tensor};

/// `x / ‖x‖` along an axis; zeros stay zeros.
pub struct LpNormalization;

/// `(x - mean) / (√variance + 1e-9)` along some axes.
pub struct MeanVarianceNormalization;

/// What `op` makes of `x` along `axes`, which stay with size 1.
fn reduced<'a>(n: &NodeRef, x: Ex<'a>, op: &str, axes: &[i64]) -> Ex<'a> {
    match n.opset() {
        ..18 => x.with(op, &[], vec![Attr::new("axes", axes)]),
        _ => x.op(op, &[x.tensor(Tensor::of(&[axes.len()], axes.to_vec()))]),
    }
}

fn floats_only(n: &NodeRef) -> Result<(), OpError> {
    arity(n, 1, 1)?;
    match n.dtype(0).filter(|d| !d.is_float()) {
        Some(d) => Err(OpError::new(format!("expected floats, found {d}"))),
        None => Ok(()),
    }
}

fn double(dims: &[usize], seed: u64) -> Option<Tensor> {
    Tensor::rounded(DType::F64, dims, &floats(dims, seed).floats()?)
}

impl Op for LpNormalization {
    fn name(&self) -> OpName {
        onnx("LpNormalization")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        floats_only(n)?;
        let (axis, p) = (n.int_or("axis", -1)?, n.int_or("p", 2)?);
        NodeRef::axis(axis, n.rank(0).unwrap_or(usize::MAX >> 1))?;
        match p {
            1 | 2 => like_first(n),
            _ => Err(OpError::new(format!("attribute \"p\" is {p}; expected 1 or 2"))),
        }
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)?;
        let along = NodeRef::axis(n.int_or("axis", -1).ok()?, rank).ok()?;
        Some(shape::tied(
            rank,
            |i| if i == along { vec![] } else { vec![(0, i)] },
        ))
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        // Not what a formula is recognised as: there is no kernel that would be better.
        let x = *x.first().filter(|_| n.has(0))?;
        let op = if n.int_or("p", 2).ok()? == 1 {
            "ReduceL1"
        } else {
            "ReduceL2"
        };
        let norm = reduced(n, x, op, &[n.int_or("axis", -1).ok()?]);
        let zero = norm.constant(0.0);
        let some = norm.op("Equal", &[zero]).op("Where", &[norm.constant(1.0), norm]);
        Some(vec![x / some])
    }

    fn cases(&self) -> Vec<Case> {
        let mut zeros = floats(&[3, 4], 1)
            .elements::<f32>()
            .map(std::borrow::Cow::into_owned);
        if let Some(z) = zeros.as_mut() {
            z[4..8].fill(0.0);
        }
        let mut all = vec![
            Case::new("rows", [floats(&[2, 5, 7], 1)]),
            Case::new("columns", [floats(&[2, 5, 7], 1)])
                .attr("axis", 1)
                .attr("p", 1),
            Case::new("zeros", [Tensor::of(&[3, 4], zeros.unwrap_or_default())]).opset(17),
        ];
        all.extend(double(&[3, 4], 1).map(|x| Case::new("double precision", [x])));
        all
    }
}

impl Op for MeanVarianceNormalization {
    fn name(&self) -> OpName {
        onnx("MeanVarianceNormalization")
    }

    fn since(&self) -> &'static [u16] {
        &[9, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        floats_only(n)?;
        distinct_axes(over(n)?, n.rank(0).unwrap_or(usize::MAX >> 1))?;
        like_first(n)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)?;
        let over = distinct_axes(over(n).ok()?, rank).ok()?;
        let kept = |i: usize| if over.contains(&i) { vec![] } else { vec![(0, i)] };
        Some(shape::tied(rank, kept))
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        // As above.
        let x = *x.first().filter(|_| n.has(0))?;
        let mean = |x: Ex<'a>| Some(reduced(n, x, "ReduceMean", over(n).ok()?));
        // The mean of squared distances: the difference of squares loses all digits where the mean is large.
        let distance = x - mean(x)?;
        let deviation = mean(distance * distance)?.op("Sqrt", &[]);
        Some(vec![distance / (deviation + 1e-9)])
    }

    fn cases(&self) -> Vec<Case> {
        let mut all = vec![
            Case::new("images", [floats(&[3, 3, 3, 2], 1)]),
            Case::new("one axis", [floats(&[3, 7], 1)]).attr("axes", vec![-1i64]),
            Case::new("an old version", [floats(&[2, 3, 4, 5], 1)]).opset(9),
        ];
        all.extend(double(&[2, 1, 3, 4], 1).map(|x| Case::new("double precision", [x])));
        all
    }
}

fn over<'a>(n: &NodeRef<'a>) -> Result<&'a [i64], OpError> {
    Ok(n.ints("axes")?.unwrap_or(&[0, 2, 3]))
}
