//! Broadcasting undone: what an input was stretched to is summed.

use secateur_engine::Tensor;
use secateur_engine::expr::{Builder, Ex};
use secateur_engine::ir::{Attr, Dim, Shape, ValueId};
use secateur_engine::ops::shape::at_most;
use secateur_engine::ops::{self, NodeRef};

/// `dx`, the gradient of input `i` of `n`, in the shape of that input.
///
/// # Errors
///
/// If it is not known along which axes the input was stretched, or the gradient is of another type.
pub(crate) fn undone(b: &Builder, n: &NodeRef, i: usize, dx: ValueId) -> Result<ValueId, String> {
    let fact = b.fact(dx);
    if let (Some(is), Some(was)) = (fact.ty.dtype(), n.dtype(i))
        && is != was
        && was.is_float()
    {
        return Err(format!("the gradient of input {i}, of {was}, would be of {is}"));
    }
    let (Some(from), Some(to)) = (fact.ty.shape(), n.shape(i)) else {
        return match may_stretch(n, i) {
            true => Err(format!(
                "the rank of input {i} is not known, so its gradient is not either; set its shape"
            )),
            false => Ok(dx),
        };
    };
    let extra = from.len().checked_sub(to.len());
    let extra = extra.ok_or_else(|| format!("the gradient of input {i} would have fewer axes than it"))?;
    let mut summed = vec![];
    for axis in 0..to.len() {
        if stretched(n, (i, axis), &from[extra + axis], &to[axis])? {
            summed.push(axis + extra);
        }
    }
    Ok(folded(b.at(dx), extra, &summed).id)
}

/// Whether input `i` has other inputs beside it that it may be stretched to.
fn may_stretch(n: &NodeRef, i: usize) -> bool {
    let op = ops::find(n.node().domain(), &n.node().op);
    let alone = (0..n.arity()).all(|j| j == i || !n.has(j));
    !alone && op.is_some_and(|op| op.laws().elementwise)
}

/// Whether an axis of an input, of size `to`, was stretched to `from`.
fn stretched(n: &NodeRef, (i, axis): (usize, usize), from: &Dim, to: &Dim) -> Result<bool, String> {
    match (from, to) {
        (from, to) if from.same(to) || at_most(to, from) => Ok(false),
        (_, Dim::Known(1)) => Ok(true),
        (Dim::Known(a), Dim::Known(b)) => Err(format!(
            "the gradient of input {i} would have {a} elements along axis {axis}; expected {b}"
        )),
        _ if partners(n, i, axis, to) => Err(format!(
            "it is not known whether axis {axis} of input {i}, {to} elements, is stretched to {from}; set its size"
        )),
        _ => Ok(false),
    }
}

/// Whether an axis of another input lies beside this one, and may be longer.
fn partners(n: &NodeRef, i: usize, axis: usize, size: &Dim) -> bool {
    let equation = ops::find(n.node().domain(), &n.node().op).and_then(|op| op.axes(n));
    let Some(equation) = equation else {
        return may_stretch(n, i);
    };
    let tie = equation.0.iter().find(|t| t.inputs.contains(&(i, axis)));
    let other = |&(j, a): &(usize, usize)| (j, a) != (i, axis) && longer(n.shape(j), a, size);
    tie.is_some_and(|t| t.output.is_some() && t.inputs.iter().any(other))
}

fn longer(shape: Option<&Shape>, axis: usize, size: &Dim) -> bool {
    shape.is_none_or(|s| s[axis] != Dim::Known(1) && !s[axis].same(size))
}

/// `x` summed over its first `extra` axes, which go, and over `summed`, which stay with size 1.
fn folded<'a>(x: Ex<'a>, extra: usize, summed: &[usize]) -> Ex<'a> {
    let sum = |x: Ex<'a>, axes: Vec<i64>, keep: i64| match axes.is_empty() {
        true => x,
        false => {
            let axes = x.tensor(Tensor::of(&[axes.len()], axes));
            x.with("ReduceSum", &[axes], vec![Attr::new("keepdims", keep)])
        }
    };
    let summed = sum(x, summed.iter().map(|&a| a as i64).collect(), 1);
    sum(summed, (0..extra as i64).collect(), 0)
}
