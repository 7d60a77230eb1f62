//! Shape rules that many operators share.

use super::{Axes, Fact, NodeRef, OpError, Tie};
use crate::ir::{Dim, Shape};

/// The shape that `a` and `b` broadcast to, as NumPy has it.
///
/// # Errors
///
/// If two sizes differ and neither is 1.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Shape, OpError> {
    let rank = a.len().max(b.len());
    let at = |s: &[Dim], i: usize| {
        (i + s.len())
            .checked_sub(rank)
            .map_or(Dim::Known(1), |i| s[i].clone())
    };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x.same(&y) => Ok(x),
            (Dim::Known(1), y) => Ok(y),
            (x, Dim::Known(1)) => Ok(x),
            (Dim::Known(x), Dim::Known(y)) => Err(OpError::new(format!(
                "shapes {} and {} do not broadcast: {x} against {y} at axis {i}",
                show(a),
                show(b)
            ))),
            // One of the two must be the number or be 1; either way the result is the number.
            (Dim::Known(x), _) | (_, Dim::Known(x)) => Ok(Dim::Known(x)),
            _ => Ok(Dim::Unknown),
        })
        .collect()
}

/// A shape as messages show it.
pub fn show(shape: &[Dim]) -> String {
    let dims: Vec<_> = shape.iter().map(Dim::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// The shape that all inputs of `n` broadcast to; `None` where a rank is not known.
///
/// # Errors
///
/// If they do not broadcast.
pub fn broadcast_all(n: &NodeRef) -> Result<Option<Shape>, OpError> {
    let mut all = Shape::new();
    for i in (0..n.arity()).filter(|&i| n.has(i)) {
        match n.shape(i) {
            Some(s) => all = broadcast(&all, s)?,
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

/// One output of the first input's element type and the inputs' broadcast shape.
///
/// # Errors
///
/// If the inputs do not broadcast or their element types differ.
pub fn elementwise(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    same_dtype(n)?;
    let dtype = (0..n.arity()).find_map(|i| n.dtype(i));
    Ok(vec![Fact::tensor(dtype, broadcast_all(n)?)])
}

/// Checks that all inputs have one element type, as far as it is known.
///
/// # Errors
///
/// If two differ.
pub fn same_dtype(n: &NodeRef) -> Result<(), OpError> {
    let mut types = (0..n.arity()).filter_map(|i| Some((i, n.dtype(i)?)));
    let Some((first, dtype)) = types.next() else {
        return Ok(());
    };
    match types.find(|(_, d)| *d != dtype) {
        Some((i, d)) => Err(OpError::new(format!(
            "input {first} is of type {dtype} and input {i} of type {d}; expected one type"
        ))),
        None => Ok(()),
    }
}

/// Output 0 is like input 0.
///
/// # Errors
///
/// Never; the form is that of [`Op::infer`](super::Op::infer).
pub fn like_first(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    Ok(vec![
        n.input(0)
            .map_or_else(Fact::unknown, |x| x.fact.ty.clone().into()),
    ])
}

/// The rank and sizes of input `i`, which must have rank `rank` where it is known.
///
/// # Errors
///
/// If the rank is another.
pub fn ranked<'a>(n: &NodeRef<'a>, i: usize, rank: usize) -> Result<Option<&'a Shape>, OpError> {
    match n.shape(i) {
        Some(s) if s.len() != rank => Err(OpError::new(format!(
            "input {i} has shape {}; expected {rank} dimensions",
            show(s)
        ))),
        other => Ok(other),
    }
}

/// The equation of an elementwise operator with trailing axes aligned; `None` where a rank is not known.
pub fn aligned(n: &NodeRef) -> Option<Axes> {
    let inputs = (0..n.arity()).filter(|&i| n.has(i));
    let shapes: Vec<_> = inputs.map(|i| Some((i, n.shape(i)?))).collect::<Option<_>>()?;
    let rank = shapes.iter().map(|(_, s)| s.len()).max().unwrap_or(0);
    let tie = |out: usize| {
        let along = |&(i, s): &(usize, &Shape)| {
            let axis = (out + s.len()).checked_sub(rank)?;
            let stretched = s[axis] == Dim::Known(1) && shapes.iter().any(|(_, o)| !is_one(o, out, rank));
            (!stretched).then_some((i, axis))
        };
        Tie {
            output: Some(out),
            inputs: shapes.iter().filter_map(along).collect(),
        }
    };
    Some(Axes((0..rank).map(tie).collect()))
}

fn is_one(shape: &Shape, out: usize, rank: usize) -> bool {
    (out + shape.len())
        .checked_sub(rank)
        .is_none_or(|axis| shape[axis] == Dim::Known(1))
}
