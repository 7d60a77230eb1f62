//! Words that gradients are written with.

use super::formula::{ints, reshape};
use super::{Exs, NodeRef};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Tensor};

/// Input or output `i`, unless it is left out.
pub(crate) fn at<'a>(all: Exs<'_, 'a>, i: usize) -> Option<Ex<'a>> {
    all.get(i).copied().flatten()
}

/// The sizes of `x`, input `i` of `n`.
pub(crate) fn sizes<'a>(n: &NodeRef, i: usize, x: Ex<'a>) -> Ex<'a> {
    match n.dims(i) {
        Some(dims) => ints(x, &dims.iter().map(|&d| d as i64).collect::<Vec<_>>()),
        None => x.op("Shape", &[]),
    }
}

/// `dy` in the shape of `x`, input `i` of `n`, which has as many elements.
pub(crate) fn shaped<'a>(n: &NodeRef, i: usize, x: Ex<'a>, dy: Ex<'a>) -> Ex<'a> {
    match n.dims(i) {
        Some(dims) => reshape(dy, &dims),
        None => dy.with("Reshape", &[sizes(n, i, x)], vec![Attr::new("allowzero", 1)]),
    }
}

/// `y` stretched to the shape of `x`, input `i` of `n`.
pub(crate) fn spread<'a>(n: &NodeRef, i: usize, x: Ex<'a>, y: Ex<'a>) -> Ex<'a> {
    y.op("Expand", &[sizes(n, i, x)])
}

/// Zeros in the shape of `x`, input `i` of `n`.
pub(crate) fn zeros<'a>(n: &NodeRef, i: usize, x: Ex<'a>) -> Ex<'a> {
    spread(n, i, x, x.constant(0.0))
}

/// `dy`, but 0 where `gone`. What the comparison says of NaN decides whether its gradient passes.
pub(crate) fn unless<'a>(gone: Ex<'a>, dy: Ex<'a>) -> Ex<'a> {
    gone.op("Where", &[dy.constant(0.0), dy])
}

/// `dy`, but 0 where not `there`.
pub(crate) fn only<'a>(there: Ex<'a>, dy: Ex<'a>) -> Ex<'a> {
    there.op("Where", &[dy, dy.constant(0.0)])
}

/// The integer `i`.
pub(crate) fn int(x: Ex<'_>, i: i64) -> Ex<'_> {
    x.tensor(Tensor::scalar(i))
}

/// `x` folded by `op` along `axes`, which stay with size 1.
pub(crate) fn folded<'a>(x: Ex<'a>, op: &str, axes: &[i64]) -> Ex<'a> {
    match axes.is_empty() {
        true => x,
        false => x.op(op, &[ints(x, axes)]),
    }
}

/// All elements of `x` in one row.
pub(crate) fn flat(x: Ex<'_>) -> Ex<'_> {
    x.op("Reshape", &[ints(x, &[-1])])
}

/// `x`, numbers of any type, as elements of type `to`.
pub(crate) fn cast(x: Ex<'_>, to: DType) -> Ex<'_> {
    x.with("Cast", &[], vec![Attr::new("to", i64::from(to.code()))])
}

/// The matrices in the last two of the `rank` axes of `x`, turned.
pub(crate) fn turned(x: Ex<'_>, rank: usize) -> Ex<'_> {
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    super::formula::transpose(x, &perm)
}

/// The gradient of `x`, input 0 of `n`, of which `take` picks elements: each of `dy` back at the place that it came from.
pub(crate) fn put_back<'a>(
    n: &NodeRef,
    x: Ex<'a>,
    dy: Ex<'a>,
    take: impl FnOnce(Ex<'a>) -> Ex<'a>,
) -> Ex<'a> {
    let count = match n.dims(0) {
        Some(dims) => int(x, dims.iter().product::<usize>() as i64),
        None => x.op("Size", &[]),
    };
    let places = int(x, 0).op("Range", &[count, int(x, 1)]);
    let picked = flat(take(shaped(n, 0, x, places)));
    let nothing = x
        .constant(0.0)
        .op("Expand", &[count.op("Unsqueeze", &[ints(x, &[0])])]);
    let all = nothing.with(
        "ScatterElements",
        &[picked, flat(dy)],
        vec![Attr::new("axis", 0), Attr::new("reduction", "add")],
    );
    shaped(n, 0, x, all)
}
