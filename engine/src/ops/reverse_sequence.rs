//! ONNX `ReverseSequence`: the first elements of each sequence turned round.

use super::pick::{given, integers, place, rearranged};
use super::shape::{arity, like_first, ranked, show};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::moves::{short, width};
use crate::cpu::rows::rows;
use crate::cpu::{Candidate, Cost, Io, indices};
use crate::ir::{Tensor, count};

/// ONNX `ReverseSequence`.
pub struct ReverseSequence;

/// Whether the first axis is that of the batch, not of time.
fn batch_first(n: &NodeRef) -> Result<bool, OpError> {
    match (n.int_or("batch_axis", 1)?, n.int_or("time_axis", 0)?) {
        (1, 0) => Ok(false),
        (0, 1) => Ok(true),
        (b, t) => Err(OpError::new(format!(
            "batch_axis {b} and time_axis {t}; expected 0 and 1 or 1 and 0"
        ))),
    }
}

/// The length of each of `batch` sequences, of at most `time` elements.
fn lengths(all: &[i64], batch: usize, time: usize) -> Result<Vec<usize>, OpError> {
    if all.len() != batch {
        return Err(OpError::new(format!(
            "{} lengths of {batch} sequences",
            all.len()
        )));
    }
    all.iter()
        .map(|&l| {
            let fits = usize::try_from(l).ok().filter(|&l| l <= time);
            fits.ok_or_else(|| OpError::new(format!("a length of {l}; expected 0 to {time}")))
        })
        .collect()
}

/// Where the element at `t` of a sequence comes from.
fn source(t: usize, length: usize) -> usize {
    if t < length { length - 1 - t } else { t }
}

impl Op for ReverseSequence {
    fn name(&self) -> OpName {
        onnx("ReverseSequence")
    }

    fn since(&self) -> &'static [u16] {
        &[10]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        batch_first(n)?;
        ranked(n, 1, 1)?;
        match n.shape(0).filter(|s| s.len() < 2) {
            Some(s) => Err(OpError::new(format!(
                "shape {}; expected two dimensions or more",
                show(s)
            ))),
            None => like_first(n),
        }
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let time = usize::from(batch_first(n).ok()?);
        Some(super::shape::tied(n.rank(0)?, |i| match i {
            _ if i == time => vec![],
            0 | 1 => vec![(0, i), (1, 0)],
            _ => vec![(0, i)],
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, list) = (given(x, 0)?, integers(given(x, 1)?, 1)?);
        let &[a, b, ..] = x.dims() else {
            return Err(OpError::new("expected two dimensions or more"));
        };
        let first = batch_first(n)?;
        let lengths = if first {
            lengths(&list, a, b)?
        } else {
            lengths(&list, b, a)?
        };
        let y = rearranged(x, x.dims(), |at| {
            let mut from = at.to_vec();
            match first {
                true => from[1] = source(at[1], lengths[at[0]]),
                false => from[0] = source(at[0], lengths[at[1]]),
            }
            place(from, x.dims())
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let attrs = n.node().attrs.clone();
        Some(vec![Some(dy[0]?.with("ReverseSequence", &[x[1]?], attrs))])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernel(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let list = |l: &[i64]| Tensor::of(&[l.len()], l.to_vec());
        vec![
            Case::new("time first", [case::floats(&[4, 3, 2], 1), list(&[4, 0, 3])]),
            Case::new("batch first", [case::floats(&[3, 5], 1), list(&[2, 5, 1])])
                .attr("batch_axis", 0i64)
                .attr("time_axis", 1i64),
            Case::new("nothing", [case::floats(&[0, 2], 1), list(&[0, 0])]),
            Case::new(
                "integers",
                [Tensor::of(&[2, 2], vec![1i64, 2, 3, 4]), list(&[1, 2])],
            ),
        ]
    }
}

fn kernel(n: &NodeRef) -> Option<Candidate> {
    let (dtype, dims, first) = (n.dtype(0)?, n.dims(0)?, batch_first(n).ok()?);
    let row = count(&dims[2..])?.checked_mul(width(dtype)?)?;
    let (a, b) = (dims[0], dims[1]);
    let bytes = a.checked_mul(b)?.checked_mul(row)?;
    let run = move |io: &mut Io| {
        let list = indices::integers(&io.input(1))?;
        let lengths = if first {
            lengths(&list, a, b)?
        } else {
            lengths(&list, b, a)?
        };
        let (pool, x) = (io.pool, io.input(0));
        rows(pool, x.bytes(), io.output(0).bytes(), row, |i| {
            let (p, q) = (i / b, i % b);
            let from = match first {
                true => p * b + source(q, lengths[p]),
                false => source(p, lengths[q]) * b + q,
            };
            from * row
        });
        Ok(())
    };
    let name = format!("reversesequence.{}", short(dtype));
    Some(Candidate::new(name, Cost::bytes(2 * bytes), run))
}
