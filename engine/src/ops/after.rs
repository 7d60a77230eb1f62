//! A value that is not looked at too early.

use super::shape::{arity, like_first};
use super::{Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, case, private};
use crate::expr::Ex;

/// The first input, once the second is there. So what is computed from it again is not taken for what was computed before, and
/// not computed before it is needed.
pub struct After;

impl Op for After {
    fn name(&self) -> OpName {
        private("After")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        like_first(n)
    }

    fn laws(&self) -> Laws {
        Laws {
            still: true,
            ..Laws::default()
        }
    }

    fn body<'a>(&self, _: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        Some(vec![x.first()?.op("Identity", &[])])
    }

    fn vjp<'a>(&self, _: &NodeRef, _: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        Some(vec![dy[0], None])
    }

    fn cases(&self) -> Vec<Case> {
        vec![Case::new(
            "floats",
            [case::floats(&[2, 3], 1), case::floats(&[4], 2)],
        )]
    }
}
