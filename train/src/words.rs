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

/// What a [`fingerprint`] begins with.
pub(crate) const SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// What `bytes` add to a fingerprint (FNV-1a, 8 bytes at a time).
pub(crate) fn fingerprint(hash: u64, bytes: &[u8]) -> u64 {
    let add = |hash: u64, part: &[u8]| {
        let mut eight = [0; 8];
        eight[..part.len()].copy_from_slice(part);
        (hash ^ u64::from_le_bytes(eight))
            .wrapping_mul(0x100_0000_01b3)
            .rotate_left(23)
    };
    let hash = bytes.chunks(8).fold(hash, add);
    add(hash, &(bytes.len() as u64).to_le_bytes())
}
