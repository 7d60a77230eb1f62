//! Axes of size 1 that come and go.

use super::grad::shaped;
use super::reshape::{VIEW, reshaped};
use super::shape::{Listed, arity, distinct_axes, listed, show, tied, with_data};
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, case, onnx};
use crate::ir::{Dim, Tensor};

/// ONNX `Squeeze`: axes of size 1 removed.
pub struct Squeeze;

/// ONNX `Unsqueeze`: axes of size 1 inserted.
pub struct Unsqueeze;

/// The axes of input 0 that stay; `None` where that is not known.
fn kept(n: &NodeRef) -> Result<Option<Vec<usize>>, OpError> {
    let list = listed(n, "axes", 1, 13)?;
    let Some(shape) = n.shape(0) else { return Ok(None) };
    let gone = match list {
        Listed::Hidden(_) => return Ok(None),
        Listed::Absent if shape.iter().any(|d| d.known().is_none()) => return Ok(None),
        Listed::Absent => (0..shape.len()).filter(|&i| shape[i] == Dim::Known(1)).collect(),
        Listed::Known(axes) => distinct_axes(&axes, shape.len())?,
    };
    if let Some(i) = gone.iter().find(|&&i| shape[i].known().is_some_and(|d| d != 1)) {
        return Err(OpError::new(format!(
            "axis {i} of shape {} is not of size 1",
            show(shape)
        )));
    }
    Ok(Some((0..shape.len()).filter(|i| !gone.contains(i)).collect()))
}

/// For each axis of the output, the axis of input 0 that it is, if any; `None` where that is not known.
fn spread(n: &NodeRef) -> Result<Option<Vec<Option<usize>>>, OpError> {
    let list = listed(n, "axes", 1, 13)?;
    let Some(rank) = n.rank(0) else { return Ok(None) };
    let axes = match list {
        Listed::Absent => return Err(OpError::new("axes are missing")),
        Listed::Hidden(_) => return Ok(None),
        Listed::Known(axes) => distinct_axes(&axes, rank + axes.len())?,
    };
    let mut old = 0..rank;
    let from = |i| if axes.contains(&i) { None } else { old.next() };
    Ok(Some((0..rank + axes.len()).map(from).collect()))
}

impl Op for Squeeze {
    fn name(&self) -> OpName {
        onnx("Squeeze")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 11, 13, 21, 23, 24, 25]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, if n.opset() < 13 { 1 } else { 2 })?;
        let shape = kept(n)?.and_then(|kept| {
            let of = n.shape(0)?;
            Some(kept.iter().map(|&i| of[i].clone()).collect())
        });
        Ok(vec![with_data(Fact::tensor(n.dtype(0), shape), n.data(0))])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let kept = kept(n).ok()??;
        Some(tied(kept.len(), |i| vec![(0, kept[i])]))
    }

    fn laws(&self) -> Laws {
        VIEW
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        reshaped(self, n, x)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        Some(vec![Some(shaped(n, 0, x[0]?, dy[0]?))])
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[1, 3, 1, 2, 1], 1);
        vec![
            Case::new("all", [x()]),
            Case::new("some", [x(), Tensor::of(&[2], vec![0i64, -3])]).konst(&[1]),
            Case::new("none", [x(), Tensor::of(&[0], Vec::<i64>::new())]).konst(&[1]),
            Case::new("by attribute", [x()])
                .attr("axes", vec![2i64, 0])
                .opset(1),
            Case::new("integers", [Tensor::of(&[1, 2], vec![4i32, 5])]),
        ]
    }
}

impl Op for Unsqueeze {
    fn name(&self) -> OpName {
        onnx("Unsqueeze")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 11, 13, 21, 23, 24, 25]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let inputs = if n.opset() < 13 { 1 } else { 2 };
        arity(n, inputs, inputs)?;
        let shape = match (spread(n)?, n.shape(0)) {
            (Some(from), Some(of)) => {
                let size = |a: Option<usize>| a.map_or(Dim::Known(1), |a| of[a].clone());
                Some(from.into_iter().map(size).collect())
            }
            _ => None,
        };
        Ok(vec![with_data(Fact::tensor(n.dtype(0), shape), n.data(0))])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let from = spread(n).ok()??;
        Some(tied(from.len(), |i| {
            from[i].map(|a| (0, a)).into_iter().collect()
        }))
    }

    fn laws(&self) -> Laws {
        VIEW
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        reshaped(self, n, x)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        Some(vec![Some(shaped(n, 0, x[0]?, dy[0]?))])
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[3, 2], 1);
        vec![
            Case::new("two", [x(), Tensor::of(&[2], vec![-1i64, 1])]).konst(&[1]),
            Case::new("one", [x(), Tensor::of(&[1], vec![0i64])]),
            Case::new("by attribute", [x()])
                .attr("axes", vec![0i64, 3])
                .opset(11),
            Case::new("a scalar", [Tensor::scalar(7i64), Tensor::of(&[1], vec![0i64])]).konst(&[0, 1]),
        ]
    }
}
