//! Shape rules that many operators share.

use super::{Axes, Fact, NodeRef, OpError, Tie};
use crate::ir::{DType, Dim, DimExpr, Shape, count};

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
            (x, y) if at_most(&y, &x) => Ok(x),
            (x, y) if at_most(&x, &y) => Ok(y),
            _ => Ok(Dim::Unknown),
        })
        .collect()
}

/// Whether `x` is `y`, but at most some number above 1: that number does not broadcast with a greater `y`.
pub fn at_most(x: &Dim, y: &Dim) -> bool {
    let Dim::Expr(e) = x else { return false };
    match &**e {
        DimExpr::Min(a, Dim::Known(n)) | DimExpr::Min(Dim::Known(n), a) => *n > 1 && a.same(y),
        _ => false,
    }
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

/// The most elements of an integer tensor that are followed before the model runs.
const FOLLOWED: usize = 64;

/// `fact` with the elements `data`, if it is a tensor of 32 or 64-bit integers with that many.
pub fn with_data(fact: Fact, data: Option<Vec<Dim>>) -> Fact {
    let fits = |d: &Dim| match fact.ty.dtype() {
        Some(DType::I64) => true,
        Some(DType::I32) => d.known().is_none_or(|x| i32::try_from(x).is_ok()),
        _ => false,
    };
    let size = fact.ty.dims().and_then(|d| count(&d));
    let data = data.filter(|d| d.len() <= FOLLOWED && size == Some(d.len()) && d.iter().all(fits));
    Fact { data, ..fact }
}

/// The elements of input `i`, if they are few; they may be unknown one by one where only their number is known.
pub fn followed(n: &NodeRef, i: usize) -> Option<Vec<Dim>> {
    if let Some(data) = n.data(i) {
        return (data.len() <= FOLLOWED).then_some(data);
    }
    let len = count(&n.dims(i)?).filter(|&len| len <= FOLLOWED)?;
    Some(vec![Dim::Unknown; len])
}

/// The shape that the elements of input `i` spell; `None` where not even their number is known.
///
/// # Errors
///
/// If the input is not a vector.
pub fn spelt(n: &NodeRef, i: usize) -> Result<Option<Shape>, OpError> {
    let rank = ranked(n, i, 1)?;
    Ok(n.data(i).or_else(|| {
        let len = rank?[0].size().filter(|&len| len <= FOLLOWED)?;
        Some(vec![Dim::Unknown; len])
    }))
}

/// The product of sizes.
pub fn product(dims: &[Dim]) -> Dim {
    dims.iter().fold(Dim::Known(1), |p, d| p * d.clone())
}

/// Sizes as numbers.
///
/// # Errors
///
/// If one is negative, or not a number.
pub fn sizes(dims: &[Dim]) -> Result<Vec<usize>, OpError> {
    dims.iter()
        .map(|d| d.size())
        .collect::<Option<_>>()
        .ok_or_else(|| OpError::new(format!("{} is not a shape", show(dims))))
}

/// Refuses a node that lacks one of the first `least` inputs or has more than `most`.
///
/// # Errors
///
/// If it does.
pub fn arity(n: &NodeRef, least: usize, most: usize) -> Result<(), OpError> {
    if let Some(i) = (0..least).find(|&i| !n.has(i)) {
        return Err(OpError::new(format!("input {i} is missing")));
    }
    match n.arity() {
        found if found > most => Err(OpError::new(format!(
            "expected at most {most} inputs, found {found}"
        ))),
        _ => Ok(()),
    }
}

/// Integers that are an attribute in older versions of an operator, an input in newer ones.
#[derive(Clone, Debug, PartialEq)]
pub enum Listed {
    /// They are left out.
    Absent,
    /// They are there, but not known yet, except perhaps how many.
    Hidden(Option<usize>),
    /// They are known.
    Known(Vec<i64>),
}

/// The integers in attribute `name` before opset `since`, in input `i` from then on.
///
/// # Errors
///
/// If the attribute is of another kind, or the input is no vector or scalar of integers.
pub fn listed(n: &NodeRef, name: &str, i: usize, since: i64) -> Result<Listed, OpError> {
    if n.opset() < since {
        let ints = n.ints(name)?;
        return Ok(ints.map_or(Listed::Absent, |ints| Listed::Known(ints.to_vec())));
    }
    if !n.has(i) {
        return Ok(Listed::Absent);
    }
    if let Some(d) = n.dtype(i).filter(|d| !d.is_int()) {
        return Err(OpError::new(format!(
            "input {i} is of type {d}; expected integers"
        )));
    }
    if n.rank(i).is_some_and(|r| r > 1) {
        ranked(n, i, 1)?;
    }
    Ok(match n.ints_in(i) {
        Some(ints) => Listed::Known(ints),
        None => Listed::Hidden(n.dims(i).and_then(|d| count(&d))),
    })
}

/// The axes in `list` of a tensor of rank `rank`, ascending.
///
/// # Errors
///
/// If there is no such axis, or one is named twice.
pub fn distinct_axes(list: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
    let mut axes = list
        .iter()
        .map(|&a| NodeRef::axis(a, rank))
        .collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    match axes.windows(2).find(|w| w[0] == w[1]) {
        Some(w) => Err(OpError::new(format!("axis {} is named twice", w[0]))),
        None => Ok(axes),
    }
}

/// The equation of an operator whose output axis `i` is one with the axes of inputs that `input` names.
pub fn tied(rank: usize, input: impl Fn(usize) -> Vec<(usize, usize)>) -> Axes {
    let ties = (0..rank).map(|i| Tie {
        output: Some(i),
        inputs: input(i),
    });
    Axes(ties.filter(|t| !t.inputs.is_empty()).collect())
}

/// A scalar of type `dtype`.
pub fn scalar_of(dtype: DType) -> Fact {
    Fact::tensor(Some(dtype), Some(vec![]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_cut_to_a_number_broadcasts_only_as_it_is() {
        let n = Dim::symbol("n");
        let cut = |to: i64| vec![n.lesser(&Dim::Known(to))];
        let known = |a: &[Dim], b: &[Dim]| broadcast(a, b).unwrap()[0] == n;
        let whole = [n.clone()];
        assert!(known(&whole, &cut(512)) && known(&cut(2), &whole));
        // 1 broadcasts with all, and another symbol may be 1.
        assert_eq!(broadcast(&whole, &cut(1)).unwrap(), [Dim::Unknown]);
        assert_eq!(broadcast(&[Dim::symbol("m")], &cut(512)).unwrap(), [Dim::Unknown]);
    }
}
