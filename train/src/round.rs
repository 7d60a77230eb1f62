//! What the gradient of rounding is.

use secateur_engine::expr::Ex;
use secateur_engine::ops::NodeRef;

/// What the gradient of rounding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rounding {
    /// 0 everywhere, as it is almost everywhere.
    #[default]
    Zero,
    /// That of no rounding: [straight through](https://arxiv.org/abs/1308.3432). So it is for `Round`.
    StraightThrough,
}

/// The gradients of the inputs of a node that rounds, as if it did not; `None` for any other.
pub(crate) fn through<'a>(
    n: &NodeRef,
    _x: &[Option<Ex<'a>>],
    dy: &[Option<Ex<'a>>],
) -> Option<Vec<Option<Ex<'a>>>> {
    n.node().is("Round").then(|| dy.to_vec())
}
