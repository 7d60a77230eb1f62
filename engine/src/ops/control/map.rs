//! `SequenceMap`.

use super::{LAWS, unknown};
use crate::ir::{Datum, Type};
use crate::ops::{Bodies, Fact, Laws, NodeRef, Op, OpError, OpName, onnx, sequence};

/// Runs `body` on each element of a sequence, and makes sequences of what it makes.
pub struct SequenceMap;

impl Op for SequenceMap {
    fn name(&self) -> OpName {
        onnx("SequenceMap")
    }

    fn since(&self) -> &'static [u16] {
        &[17]
    }

    fn laws(&self) -> Laws {
        LAWS
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        n.graph("body")?
            .ok_or_else(|| OpError::new("attribute \"body\" is missing"))?;
        Ok(unknown(n))
    }

    fn apply(
        &self,
        n: &NodeRef,
        x: &[Option<&Datum>],
        bodies: Bodies,
    ) -> Option<Result<Vec<Datum>, OpError>> {
        Some(apply(n, x, bodies))
    }
}

fn apply(n: &NodeRef, x: &[Option<&Datum>], bodies: Bodies) -> Result<Vec<Datum>, OpError> {
    let Some(Some(Datum::Sequence(_, first))) = x.first() else {
        return Err(OpError::new("input 0: expected a sequence"));
    };
    let mut made: Vec<Vec<Datum>> = vec![vec![]; n.node().outputs.len()];
    for i in 0..first.len() {
        let mut inputs = vec![];
        for d in x.iter().flatten() {
            inputs.push(match d {
                Datum::Sequence(_, all) => {
                    let short = || {
                        OpError::new(format!(
                            "a sequence has {} elements, the first {}",
                            all.len(),
                            first.len()
                        ))
                    };
                    all.get(i).cloned().ok_or_else(short)?
                }
                other => (*other).clone(),
            });
        }
        for (list, y) in made.iter_mut().zip(bodies("body", inputs)?) {
            list.push(y);
        }
    }
    let of = |list: &[Datum]| list.first().map_or(Type::Unknown, sequence::element);
    Ok(made
        .into_iter()
        .map(|list| Datum::Sequence(of(&list), list))
        .collect())
}
