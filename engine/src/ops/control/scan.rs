//! `Scan`.

use super::repeat::declared;
use super::{LAWS, tensor, unknown};
use crate::ir::{Datum, Tensor, Type};
use crate::ops::{Bodies, Fact, Laws, NodeRef, Op, OpError, OpName, onnx, parts};

/// Runs `body` once for each slice of its scan inputs; what it makes each time is stacked.
pub struct Scan;

/// How the inputs and outputs are divided.
struct Scheme {
    /// Whether an axis of batches comes first, and lengths may differ (opset 8).
    batched: bool,
    states: usize,
    inputs: Vec<(i64, bool)>,
    outputs: Vec<(i64, bool)>,
    /// The declared types of what is stacked.
    declared: Vec<Option<Type>>,
}

fn scheme(n: &NodeRef) -> Result<Scheme, OpError> {
    let body = n
        .graph("body")?
        .ok_or_else(|| OpError::new("attribute \"body\" is missing"))?;
    let batched = n.opset() < 9;
    let scans = n
        .int("num_scan_inputs")?
        .ok_or_else(|| OpError::new("attribute \"num_scan_inputs\" is missing"))?;
    let first = usize::from(batched);
    let given = n.arity().saturating_sub(first);
    let scans = usize::try_from(scans).ok().filter(|&s| s > 0 && s <= given);
    let scans = scans.ok_or_else(|| OpError::new(format!("\"num_scan_inputs\": expected 1 to {given}")))?;
    let states = given - scans;
    if body.inputs.len() != given || body.outputs.len() < states {
        return Err(OpError::new(format!(
            "the body has {} inputs and {} outputs; expected {given} and at least {states}",
            body.inputs.len(),
            body.outputs.len()
        )));
    }
    let made = body.outputs.len() - states;
    let old = if batched {
        "directions"
    } else {
        "scan_input_directions"
    };
    Ok(Scheme {
        batched,
        states,
        inputs: pairs(n, scans, "scan_input_axes", old)?,
        outputs: pairs(n, made, "scan_output_axes", "scan_output_directions")?,
        declared: body.outputs[states..]
            .iter()
            .map(|p| declared(body, p.value).cloned())
            .collect(),
    })
}

/// Axis and direction of each; the defaults are axis 0, forward.
fn pairs(n: &NodeRef, count: usize, axes: &str, directions: &str) -> Result<Vec<(i64, bool)>, OpError> {
    let read = |name: &str| -> Result<Vec<i64>, OpError> {
        let given = n.ints(name)?.map(<[i64]>::to_vec);
        let list = given.unwrap_or_else(|| vec![0; count]);
        match list.len() == count {
            true => Ok(list),
            false => Err(OpError::new(format!(
                "{name:?}: expected {count} numbers, found {}",
                list.len()
            ))),
        }
    };
    Ok(read(axes)?
        .into_iter()
        .zip(read(directions)?.into_iter().map(|d| d != 0))
        .collect())
}

impl Op for Scan {
    fn name(&self) -> OpName {
        onnx("Scan")
    }

    fn since(&self) -> &'static [u16] {
        &[8, 9, 11, 16, 19, 21, 23, 24, 25]
    }

    fn laws(&self) -> Laws {
        LAWS
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let scheme = scheme(n)?;
        if scheme.batched {
            return Ok(unknown(n));
        }
        let fact = |i: usize| n.input(i).map_or_else(Fact::unknown, |x| x.fact.clone());
        let states = (0..scheme.states).map(fact);
        let slices = scheme
            .inputs
            .iter()
            .enumerate()
            .map(|(i, (axis, _))| fact(scheme.states + i).slice(*axis));
        let given: Vec<Fact> = states.chain(slices).collect();
        let Some(made) = n.inside("body", &given)? else {
            return Ok(unknown(n));
        };
        let facts = made.into_iter().enumerate();
        Ok(facts
            .map(|(i, f)| {
                if i < scheme.states {
                    f.without_shape()
                } else {
                    Fact::unknown()
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
        Some(apply(n, x, bodies))
    }
}

fn apply(n: &NodeRef, x: &[Option<&Datum>], bodies: Bodies) -> Result<Vec<Datum>, OpError> {
    let scheme = scheme(n)?;
    let missing = || OpError::new("an input is left out");
    let first = usize::from(scheme.batched);
    let given = x
        .iter()
        .skip(first)
        .map(|d| d.copied_or(missing))
        .collect::<Result<Vec<Datum>, _>>()?;
    if !scheme.batched {
        return scan(&scheme, given, None, bodies);
    }
    let lengths = x
        .first()
        .copied()
        .flatten()
        .and_then(Datum::tensor)
        .and_then(Tensor::ints);
    let given = given
        .into_iter()
        .map(|d| tensor(d, "an input"))
        .collect::<Result<Vec<_>, _>>()?;
    let batch = given
        .first()
        .and_then(|t| t.dims().first().copied())
        .ok_or_else(missing)?;
    let mut all: Vec<Vec<Tensor>> = vec![];
    for b in 0..batch {
        let own = given
            .iter()
            .map(|t| parts::slice_at(t, 0, b).map(Datum::Tensor))
            .collect::<Result<Vec<_>, _>>()?;
        let length = lengths.as_ref().and_then(|l| l.get(b).copied());
        let made = scan(&scheme, own, length, bodies)?;
        all.resize(made.len(), vec![]);
        for (stack, y) in all.iter_mut().zip(made) {
            stack.push(tensor(y, "an output")?);
        }
    }
    all.iter()
        .map(|stack| parts::stack(stack, 0, None).map(Datum::Tensor))
        .collect()
}

trait Copied {
    fn copied_or(&self, missing: impl Fn() -> OpError) -> Result<Datum, OpError>;
}

impl Copied for Option<&Datum> {
    fn copied_or(&self, missing: impl Fn() -> OpError) -> Result<Datum, OpError> {
        self.cloned().ok_or_else(missing)
    }
}

fn scan(
    scheme: &Scheme,
    given: Vec<Datum>,
    length: Option<i64>,
    bodies: Bodies,
) -> Result<Vec<Datum>, OpError> {
    let mut state = given;
    let slices = state.split_off(scheme.states);
    let slices = slices
        .into_iter()
        .map(|d| tensor(d, "a scan input"))
        .collect::<Result<Vec<_>, _>>()?;
    let mut axes = vec![];
    let mut turns = None;
    for (t, (axis, _)) in slices.iter().zip(&scheme.inputs) {
        let axis = NodeRef::axis(*axis, t.dims().len())?;
        let size = t.dims()[axis];
        if turns.is_some_and(|n| n != size) {
            return Err(OpError::new(format!(
                "scan inputs have {size} and {} slices",
                turns.unwrap_or(0)
            )));
        }
        turns = Some(size);
        axes.push(axis);
    }
    let turns = turns.unwrap_or(0);
    let turns = length
        .and_then(|l| usize::try_from(l).ok())
        .map_or(turns, |l| l.min(turns));
    let mut stacked: Vec<Vec<Tensor>> = vec![vec![]; scheme.outputs.len()];
    for turn in 0..turns {
        let mut inputs = std::mem::take(&mut state);
        for ((t, &axis), (_, back)) in slices.iter().zip(&axes).zip(&scheme.inputs) {
            let at = if *back { t.dims()[axis] - 1 - turn } else { turn };
            inputs.push(parts::slice_at(t, axis, at)?.into());
        }
        let mut made = bodies("body", inputs)?.into_iter();
        state = made.by_ref().take(scheme.states).collect();
        for (stack, y) in stacked.iter_mut().zip(made) {
            stack.push(tensor(y, "a scan output")?);
        }
    }
    let ways = scheme.outputs.iter().zip(&scheme.declared);
    for (mut stack, ((axis, back), declared)) in stacked.into_iter().zip(ways) {
        if *back {
            stack.reverse();
        }
        let like = declared.as_ref();
        let rank = like.and_then(Type::shape).map_or(0, Vec::len);
        let rank = stack.first().map_or(rank, |t| t.dims().len()) + 1;
        state.push(parts::stack(&stack, NodeRef::axis(*axis, rank)?, like)?.into());
    }
    Ok(state)
}
