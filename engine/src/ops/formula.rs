//! Words that several bodies are written with.

use super::NodeRef;
use crate::expr::{Call, Ex};
use crate::ir::{Attr, DType, Tensor};

/// Input `i` of a body, unless the node leaves it out.
pub(crate) fn given<'a>(n: &NodeRef, x: &[Ex<'a>], i: usize) -> Option<Ex<'a>> {
    x.get(i).copied().filter(|_| n.has(i))
}

/// Applies `op`, with the domain in front where it is not ONNX's own (`com.microsoft.Attention`), to `x` and `rest`.
pub(crate) fn apply<'a>(
    x: Ex<'a>,
    op: &str,
    rest: &[Option<Ex<'a>>],
    attrs: Vec<Attr>,
    outputs: usize,
) -> Vec<Ex<'a>> {
    let (domain, op) = op.rsplit_once('.').unwrap_or(("", op));
    let rest = rest.iter().map(|e| e.map(|e| e.id));
    let mut inputs: Vec<_> = std::iter::once(Some(x.id)).chain(rest).collect();
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    x.call(Call {
        domain,
        op,
        inputs: &inputs,
        attrs,
        outputs,
    })
}

/// A vector of integers.
pub(crate) fn ints<'a>(x: Ex<'a>, all: &[i64]) -> Ex<'a> {
    x.tensor(Tensor::of(&[all.len()], all.to_vec()))
}

/// `x` in the dimensions `dims`.
pub(crate) fn reshape<'a>(x: Ex<'a>, dims: &[usize]) -> Ex<'a> {
    let to: Vec<_> = dims.iter().map(|&d| d as i64).collect();
    let attrs = match dims.contains(&0) {
        true => vec![Attr::new("allowzero", 1)],
        false => vec![],
    };
    x.with("Reshape", &[ints(x, &to)], attrs)
}

/// `x` with axis `i` where `perm[i]` was.
pub(crate) fn transpose<'a>(x: Ex<'a>, perm: &[usize]) -> Ex<'a> {
    let perm: Vec<_> = perm.iter().map(|&p| p as i64).collect();
    x.with("Transpose", &[], vec![Attr::new("perm", perm)])
}

/// Every `step`-th element of `x` along `axis`, from `start` up to `end`.
pub(crate) fn stepped<'a>(x: Ex<'a>, axis: usize, start: usize, end: usize, step: usize) -> Ex<'a> {
    let one = |i: usize| ints(x, &[i as i64]);
    x.op("Slice", &[one(start), one(end), one(axis), one(step)])
}

/// The elements of `x` along `axis`, from `start` up to `end`.
pub(crate) fn slice<'a>(x: Ex<'a>, axis: usize, start: usize, end: usize) -> Ex<'a> {
    stepped(x, axis, start, end, 1)
}

/// `x` and `rest`, one behind the other along `axis`.
pub(crate) fn concat<'a>(x: Ex<'a>, rest: &[Ex<'a>], axis: usize) -> Ex<'a> {
    x.with("Concat", rest, vec![Attr::new("axis", axis as i64)])
}

/// `x` with `more` elements of value `value` behind it along the last of its `rank` axes.
pub(crate) fn longer<'a>(x: Ex<'a>, rank: usize, more: usize, value: f64) -> Ex<'a> {
    let mut pads = vec![0; 2 * rank];
    if let Some(last) = pads.last_mut() {
        *last = more as i64;
    }
    x.op("Pad", &[ints(x, &pads), x.constant(value)])
}

/// `x` as elements of type `to`, unless that is what they are.
pub(crate) fn cast<'a>(x: Ex<'a>, from: DType, to: DType) -> Ex<'a> {
    match from == to {
        true => x,
        false => x.with("Cast", &[], vec![Attr::new("to", i64::from(to.code()))]),
    }
}

/// `0, 1 ..` as 64-bit integers in the dimensions `dims`, counted from `start`.
pub(crate) fn count_up<'a>(x: Ex<'a>, dims: &[usize], start: i64) -> Ex<'a> {
    let len = dims.iter().product::<usize>() as i64;
    x.tensor(Tensor::of(dims, (start..start + len).collect()))
}

/// A tensor of `dims` zeros of type `dtype`; `None` where that is more than memory can hold.
pub(crate) fn zeros<'a>(x: Ex<'a>, dtype: DType, dims: &[usize]) -> Option<Ex<'a>> {
    // Spread from one element, for a cache may be large.
    let zero = x.tensor(Tensor::zeros(dtype, &[])?);
    let to: Vec<_> = dims.iter().map(|&d| d as i64).collect();
    Some(zero.op("Expand", &[ints(x, &to)]))
}
