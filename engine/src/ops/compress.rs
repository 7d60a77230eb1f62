//! ONNX `Compress`: the slices that a mask keeps.

use super::grad::put_back;
use super::pick::{given, place, rearranged};
use super::shape::{arity, ranked};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::expr::Ex;
use crate::ir::{DType, Data, Dim, Tensor};

/// ONNX `Compress`: slices of an axis, or without one elements, where the condition is true.
pub struct Compress;

/// The axis, if there is one.
fn axis(n: &NodeRef, rank: usize) -> Result<Option<usize>, OpError> {
    n.int("axis")?.map(|a| NodeRef::axis(a, rank)).transpose()
}

/// The places that a mask keeps of `len`.
fn kept(mask: &Tensor, len: usize) -> Result<Vec<usize>, OpError> {
    let truths = mask.truths().ok_or_else(|| {
        OpError::new(format!(
            "the condition is of type {}; expected bool",
            mask.dtype()
        ))
    })?;
    let kept: Vec<_> = (0..truths.len()).filter(|&i| truths[i]).collect();
    match kept.last() {
        Some(&last) if last >= len => Err(OpError::new(format!(
            "the condition keeps element {last} of an axis of size {len}"
        ))),
        _ => Ok(kept),
    }
}

impl Op for Compress {
    fn name(&self) -> OpName {
        onnx("Compress")
    }

    fn since(&self) -> &'static [u16] {
        &[9, 11]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        ranked(n, 1, 1)?;
        let found = match n.konst(1).and_then(Tensor::truths) {
            Some(t) => Dim::from(t.iter().filter(|&&t| t).count()),
            None => Dim::Unknown,
        };
        let shape = match n.shape(0) {
            Some(of) => Some(match axis(n, of.len())? {
                Some(axis) => {
                    let mut shape = of.clone();
                    shape[axis] = found;
                    shape
                }
                None => vec![found],
            }),
            None => n.int("axis")?.is_none().then(|| vec![found]),
        };
        Ok(vec![Fact::tensor(n.dtype(0), shape)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)?;
        let axis = axis(n, rank).ok()??;
        Some(super::shape::tied(rank, |i| match i == axis {
            true => vec![],
            false => vec![(0, i)],
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, mask) = (given(x, 0)?, given(x, 1)?);
        let Some(axis) = axis(n, x.dims().len())? else {
            let kept = kept(mask, x.len())?;
            return Ok(vec![rearranged(x, &[kept.len()], |at| kept[at[0]])?]);
        };
        let kept = kept(mask, x.dims()[axis])?;
        let mut dims = x.dims().to_vec();
        dims[axis] = kept.len();
        let y = rearranged(x, &dims, |at| {
            let from = at.iter().enumerate();
            let from = from.map(|(a, &i)| if a == axis { kept[i] } else { i });
            place(from, x.dims())
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (stays, attrs) = (x[1]?, n.node().attrs.clone());
        let take = |places: Ex<'a>| places.with("Compress", &[stays], attrs);
        Some(vec![Some(put_back(n, x[0]?, dy[0]?, take)), None])
    }

    fn cases(&self) -> Vec<Case> {
        let bools = |b: &[u8]| Tensor::bools(&[b.len()], b.iter().map(|&b| b != 0));
        let words = Data::Strings(vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()].into());
        let mut all = vec![
            Case::new("slices", [case::floats(&[3, 4], 1), bools(&[0, 1, 1])]).attr("axis", 0i64),
            Case::new(
                "the last axis, shorter",
                [case::floats(&[2, 3, 4], 1), bools(&[1, 0, 1])],
            )
            .attr("axis", -1i64)
            .konst(&[1]),
            Case::new("elements", [case::floats(&[2, 3], 1), bools(&[0, 1, 0, 0, 1])]).opset(9),
            Case::new("none", [Tensor::of(&[2], vec![1i64, 2]), bools(&[0, 0])]),
        ];
        let words = Tensor::new(DType::String, vec![3], words).ok();
        all.extend(words.map(|w| Case::new("strings", [w, bools(&[1, 0, 1])])));
        all
    }
}
