//! The operator that gives back what it is given.

use super::pick::given;
use super::shape::{arity, like_first, with_data};
use super::{Bodies, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, case, onnx};
use crate::ir::{Datum, Tensor};

/// ONNX `Identity`: the input.
pub struct Identity;

impl Op for Identity {
    fn name(&self) -> OpName {
        onnx("Identity")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 13, 14, 16, 19, 21, 23, 24, 25]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        let same = like_first(n)?.remove(0);
        Ok(vec![with_data(same, n.data(0))])
    }

    fn laws(&self) -> Laws {
        Laws {
            view: true,
            ..Laws::default()
        }
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![given(x, 0)?.clone()])
    }

    fn apply(&self, _: &NodeRef, x: &[Option<&Datum>], _: Bodies) -> Option<Result<Vec<Datum>, OpError>> {
        match x.first().copied().flatten() {
            None | Some(Datum::Tensor(_)) => None,
            Some(other) => Some(Ok(vec![other.clone()])),
        }
    }

    fn vjp<'a>(&self, _: &NodeRef, _: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        Some(vec![Some(dy[0]?)])
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("floats", [case::floats(&[2, 3], 1)]),
            Case::new("integers", [Tensor::of(&[2], vec![5i64, -1])]).opset(1),
        ]
    }
}
