//! Words that losses and optimisers are written with.

use secateur_engine::Tensor;
use secateur_engine::expr::Ex;
use secateur_engine::ir::{Attr, DType};

/// The square root.
pub(crate) fn sqrt(x: Ex<'_>) -> Ex<'_> {
    x.op("Sqrt", &[])
}

/// The sum of all elements, a scalar.
pub(crate) fn total(x: Ex<'_>) -> Ex<'_> {
    x.with("ReduceSum", &[], vec![Attr::new("keepdims", 0)])
}

/// The mean of all elements, a scalar.
pub(crate) fn mean(x: Ex<'_>) -> Ex<'_> {
    x.with("ReduceMean", &[], vec![Attr::new("keepdims", 0)])
}

/// The sum along the last axis, which goes.
pub(crate) fn last(x: Ex<'_>) -> Ex<'_> {
    x.with("ReduceSum", &[ints(x, &[-1])], vec![Attr::new("keepdims", 0)])
}

/// `x` as elements of type `to`.
pub(crate) fn cast(x: Ex<'_>, to: DType) -> Ex<'_> {
    x.with("Cast", &[], vec![Attr::new("to", i64::from(to.code()))])
}

/// A row of integers.
pub(crate) fn ints<'a>(x: Ex<'a>, l: &[i64]) -> Ex<'a> {
    x.tensor(Tensor::of(&[l.len()], l.to_vec()))
}

/// An integer.
pub(crate) fn int(x: Ex<'_>, i: i64) -> Ex<'_> {
    x.tensor(Tensor::scalar(i))
}

/// `a` where `there`, else `b`.
pub(crate) fn either<'a>(there: Ex<'a>, a: Ex<'a>, b: Ex<'a>) -> Ex<'a> {
    there.op("Where", &[a, b])
}

/// The sum of some values; `None` of none.
pub(crate) fn sum<'a>(all: impl IntoIterator<Item = Ex<'a>>) -> Option<Ex<'a>> {
    all.into_iter().reduce(|a, b| a + b)
}
