//! `Loop`.

use super::endless::Watch;
use super::{LAWS, tensor, truth, unknown};
use crate::ir::{Datum, Graph, Tensor, ValueId};
use crate::ops::{Bodies, Fact, Laws, NodeRef, Op, OpError, OpName, onnx, parts, shape};

/// Runs `body` while its condition holds, at most `M` times; what it makes each time is stacked.
///
/// A loop that can be seen to run for ever is refused.
pub struct Loop;

impl Op for Loop {
    fn name(&self) -> OpName {
        onnx("Loop")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 11, 13, 16, 19, 21, 23, 24, 25]
    }

    fn laws(&self) -> Laws {
        LAWS
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let body = n
            .graph("body")?
            .ok_or_else(|| OpError::new("attribute \"body\" is missing"))?;
        let carried = n.arity().saturating_sub(2);
        if body.inputs.len() != carried + 2 || body.outputs.len() <= carried {
            return Err(OpError::new(format!(
                "{carried} values are carried, but the body has {} inputs and {} outputs; expected {} and at least {}",
                body.inputs.len(),
                body.outputs.len(),
                carried + 2,
                carried + 1
            )));
        }
        // What is carried may change its shape from turn to turn.
        let given: Vec<Fact> = [
            shape::scalar_of(crate::ir::DType::I64),
            shape::scalar_of(crate::ir::DType::Bool),
        ]
        .into_iter()
        .chain((2..n.arity()).map(|i| n.input(i).map_or_else(Fact::unknown, |x| x.fact.without_shape())))
        .collect();
        let Some(made) = n.inside("body", &given)? else {
            return Ok(unknown(n));
        };
        let facts = made.into_iter().skip(1).enumerate();
        Ok(facts
            .map(|(i, f)| {
                if i < carried {
                    f.without_shape()
                } else {
                    f.stacked()
                }
            })
            .collect())
    }

    fn apply(
        &self,
        n: &NodeRef,
        x: &[Option<&Datum>],
        bodies: Bodies,
    ) -> Option<Result<Vec<Datum>, OpError>> {
        Some(repeat(n, x, bodies))
    }
}

fn repeat(n: &NodeRef, x: &[Option<&Datum>], bodies: Bodies) -> Result<Vec<Datum>, OpError> {
    let limit = match x.first().copied().flatten() {
        None => None,
        Some(m) => {
            let ints = m.tensor().and_then(Tensor::ints).filter(|i| i.len() == 1);
            let wrong = || OpError::new(format!("the trip count: expected one integer, found {}", m.ty()));
            Some(ints.ok_or_else(wrong)?[0])
        }
    };
    let mut go = truth(x.get(1).copied().flatten(), "the condition")?.unwrap_or(true);
    let body = n
        .graph("body")?
        .ok_or_else(|| OpError::new("attribute \"body\" is missing"))?;
    let carried = x.len().saturating_sub(2);
    let missing = || OpError::new("a carried value is left out");
    let mut state = x
        .iter()
        .skip(2)
        .map(|d| d.cloned().ok_or_else(missing))
        .collect::<Result<Vec<_>, _>>()?;
    let stacks = body.outputs.len().saturating_sub(1 + carried);
    let mut stacked: Vec<Vec<Tensor>> = vec![vec![]; stacks];
    let mut watch = Watch::new(body, limit);
    let mut turn = 0i64;
    while go && limit.is_none_or(|m| turn < m) {
        let mut inputs: Vec<Datum> = vec![
            Tensor::of(&[], vec![turn]).into(),
            Tensor::bools(&[], [true]).into(),
        ];
        inputs.append(&mut state);
        let mut made = bodies("body", inputs)?.into_iter();
        go = truth(made.next().as_ref(), "the condition that the body gives")?.unwrap_or(true);
        state = made.by_ref().take(carried).collect();
        for (stack, y) in stacked.iter_mut().zip(made) {
            stack.push(tensor(y, "a scan output")?);
        }
        turn += 1;
        if go && limit.is_none_or(|m| turn < m) {
            watch.turned(turn, &state)?;
            if turn == 1 && watch.fixed {
                // Each turn makes as much as the first.
                let each = stacked.iter().flatten().map(Tensor::size).sum::<usize>();
                n.room(each.saturating_mul(usize::try_from(limit.unwrap_or(0)).unwrap_or(usize::MAX)))?;
            }
        }
    }
    let mut all = state;
    for (i, stack) in stacked.iter().enumerate() {
        let declared = declared(body, body.outputs[1 + carried + i].value);
        all.push(parts::stack(stack, 0, declared)?.into());
    }
    Ok(all)
}

/// The type that is declared of output `v`, for a stack of none.
pub(super) fn declared(body: &Graph, v: ValueId) -> Option<&crate::ir::Type> {
    let port = body.outputs.iter().find(|p| p.value == v)?;
    port.ty.as_ref().map(|d| &d.ty)
}
