//! `If`.

use super::{LAWS, truth, unknown};
use crate::ir::Datum;
use crate::ops::{Bodies, Fact, Laws, NodeRef, Op, OpError, OpName, onnx};

/// Runs `then_branch` or `else_branch`.
pub struct If;

impl Op for If {
    fn name(&self) -> OpName {
        onnx("If")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 11, 13, 16, 19, 21, 23, 24, 25]
    }

    fn laws(&self) -> Laws {
        LAWS
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        for branch in ["then_branch", "else_branch"] {
            let graph = n.graph(branch)?;
            let graph = graph.ok_or_else(|| OpError::new(format!("attribute {branch:?} is missing")))?;
            if graph.outputs.len() < n.node().outputs.len() {
                return Err(OpError::new(format!(
                    "has {} outputs, but {branch:?} has {}",
                    n.node().outputs.len(),
                    graph.outputs.len()
                )));
            }
        }
        let both = n.inside("then_branch", &[])?.zip(n.inside("else_branch", &[])?);
        Ok(match both {
            Some((a, b)) => a.into_iter().zip(b).map(|(a, b)| a.either(&b)).collect(),
            None => unknown(n),
        })
    }

    fn apply(
        &self,
        _: &NodeRef,
        x: &[Option<&Datum>],
        bodies: Bodies,
    ) -> Option<Result<Vec<Datum>, OpError>> {
        Some((|| {
            let taken = truth(x.first().copied().flatten(), "the condition")?;
            match taken.ok_or_else(|| OpError::new("the condition is left out"))? {
                true => bodies("then_branch", vec![]),
                false => bodies("else_branch", vec![]),
            }
        })())
    }
}
