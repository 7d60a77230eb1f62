//! `CenterCropPad`: the middle of a tensor, or a border around it.

use super::case::floats;
use super::grad::sizes;
use super::pick::{given, knowing, pick, place, sized};
use super::shape::{arity, show, spelt};
use super::{Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, onnx};
use crate::ir::{Dim, Tensor};

/// Some axes brought to given sizes: what is too long is cut off on both sides, what is too short gets zeros there.
pub struct CenterCropPad;

/// The axes that the sizes are for, in their order.
fn axes(n: &NodeRef, rank: usize) -> Result<Vec<usize>, OpError> {
    let Some(list) = n.ints("axes")? else {
        return Ok((0..rank).collect());
    };
    super::shape::distinct_axes(list, rank)?;
    list.iter().map(|&a| NodeRef::axis(a, rank)).collect()
}

impl Op for CenterCropPad {
    fn name(&self) -> OpName {
        onnx("CenterCropPad")
    }

    fn since(&self) -> &'static [u16] {
        &[18]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        let sizes = spelt(n, 1)?;
        let Some(x) = n.shape(0) else {
            n.ignore(&["axes"]);
            return Ok(vec![Fact::tensor(n.dtype(0), None)]);
        };
        let axes = axes(n, x.len())?;
        let sizes = sizes.unwrap_or_else(|| vec![Dim::Unknown; axes.len()]);
        if sizes.len() != axes.len() || sizes.iter().any(|s| s.known().is_some_and(|s| s < 0)) {
            return Err(OpError::new(format!(
                "sizes {}; expected {} of 0 or more",
                show(&sizes),
                axes.len()
            )));
        }
        let mut shape = x.clone();
        for (axis, size) in axes.into_iter().zip(sizes) {
            shape[axis] = size;
        }
        Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let t = given(x, 0)?;
        let dims = knowing(n, x, |n| sized(self, n, 0))?;
        let zero = Tensor::zeros(t.dtype(), &[1]);
        let zero = zero.ok_or_else(|| OpError::new(format!("no zero of {}", t.dtype())))?;
        let from = |(axis, &i): (usize, &usize)| {
            let (old, new) = (t.dims()[axis], dims[axis]);
            let shifted = i + old.saturating_sub(new) / 2;
            shifted
                .checked_sub(new.saturating_sub(old) / 2)
                .filter(|&i| i < old)
        };
        let y = pick(t.dtype(), &dims, &[t, &zero], |at| {
            let from: Option<Vec<_>> = at.iter().enumerate().map(from).collect();
            Ok(from.map_or((1, 0), |from| (0, place(from, t.dims()))))
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        // What was cut off gets zeros, and zeros that were put there are cut off.
        let to = sizes(n, 0, x[0]?);
        Some(vec![Some(dy[0]?.op("CenterCropPad", &[to]))])
    }

    fn cases(&self) -> Vec<Case> {
        let sizes = |s: &[i64]| Tensor::of(&[s.len()], s.to_vec());
        vec![
            Case::new("cut and filled", [floats(&[5, 4, 3], 1), sizes(&[2, 7, 3])]).konst(&[1]),
            Case::new("some axes", [floats(&[5, 4, 3], 1), sizes(&[6, 2])]).attr("axes", vec![-1i64, 0]),
            Case::new(
                "bytes",
                [
                    Tensor::of(&[5], vec![1u8, 2, 3, 4, 5]),
                    Tensor::of(&[1], vec![2i32]),
                ],
            ),
            Case::new("nothing left", [floats(&[5], 1), sizes(&[0])]).konst(&[1]),
        ]
    }
}
