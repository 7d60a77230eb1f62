//! ONNX `Transpose`: the axes in another order.

use super::pick::{given, knowing, place, rearranged, sized};
use super::shape::{arity, distinct_axes, tied, with_data};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::Candidate;
use crate::cpu::copy::{Lay, StridedCopy, steps};
use crate::cpu::moves::{Move, candidates, width};
use crate::ir::{DType, Tensor};

/// ONNX `Transpose`.
pub struct Transpose;

/// For each axis of the output, that of the input; `None` where the rank is not known.
fn order(n: &NodeRef) -> Result<Option<Vec<usize>>, OpError> {
    let perm = n.ints("perm")?;
    let Some(rank) = n.rank(0).or(perm.map(<[i64]>::len)) else {
        return Ok(None);
    };
    let Some(perm) = perm else {
        return Ok(Some((0..rank).rev().collect()));
    };
    if distinct_axes(perm, rank)?.len() != rank {
        return Err(OpError::new(format!(
            "perm {perm:?} does not order the axes of a tensor of rank {rank}"
        )));
    }
    perm.iter()
        .map(|&a| NodeRef::axis(a, rank))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn copy(n: &NodeRef, dtype: DType) -> Option<StridedCopy> {
    let (from, dims) = (steps(&n.dims(0)?), n.out_dims(0)?);
    let order = order(n).ok()??;
    let from = Lay {
        start: 0,
        steps: order.iter().map(|&a| from[a]).collect(),
    };
    StridedCopy::new(width(dtype)?, &dims, &from, &Lay::dense(&dims))
}

impl Op for Transpose {
    fn name(&self) -> OpName {
        onnx("Transpose")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 13, 21, 23, 24, 25]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        let order = order(n)?;
        let shape = n
            .shape(0)
            .zip(order)
            .map(|(of, order)| order.iter().map(|&a| of[a].clone()).collect());
        let data = n.data(0).filter(|_| n.rank(0).is_some_and(|r| r < 2));
        Ok(vec![with_data(Fact::tensor(n.dtype(0), shape), data)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let order = order(n).ok()??;
        Some(tied(order.len(), |i| vec![(0, order[i])]))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = given(x, 0)?;
        let (dims, order) = knowing(n, x, |n| Ok((sized(self, n, 0)?, order(n)?.unwrap_or_default())))?;
        let mut source = vec![0; dims.len()];
        let y = rearranged(data, &dims, |at| {
            for (&a, &i) in order.iter().zip(at) {
                source[a] = i;
            }
            place(source.iter().copied(), data.dims())
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, _: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let order = order(n).ok()??;
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(i, &axis)| back[axis] = i);
        Some(vec![Some(super::formula::transpose(dy[0]?, &back))])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let Some(dtype) = n.dtype(0) else { return vec![] };
        let copy = copy(n, dtype).map(|copy| {
            vec![Move {
                input: 0,
                output: 0,
                copy,
            }]
        });
        candidates("transpose", dtype, copy)
    }

    fn cases(&self) -> Vec<Case> {
        let perm = |c: Case, p: &[i64]| c.attr("perm", p);
        let bytes = Tensor::of(&[19, 35], (0..665).map(|i| i as u8).collect());
        vec![
            Case::new("reversed", [case::odd_floats(&[3, 4, 5], 1)]),
            perm(
                Case::new("channels last", [case::floats(&[2, 17, 6, 7], 2)]),
                &[0, 2, 3, 1],
            ),
            perm(
                Case::new("channels first", [case::floats(&[1, 33, 20, 3], 3)]),
                &[0, 3, 1, 2],
            ),
            perm(
                Case::new("heads", [case::floats(&[1, 9, 4, 16], 4)]),
                &[0, 2, 1, 3],
            ),
            perm(Case::new("bytes", [bytes]), &[1, 0]).opset(1),
            perm(
                Case::new("wide", [Tensor::of(&[2, 3, 5], (0..30i64).collect())]),
                &[2, 0, 1],
            ),
            Case::new("empty", [case::floats(&[3, 0, 2], 1)]),
            Case::new("a scalar", [case::floats(&[], 1)]),
        ]
    }
}
