//! `MaxUnpool`: puts elements back where `MaxPool` found them.

use super::{checked, grad};
use crate::ir::{DType, Dim, Shape, Tensor, count};
use crate::ops::case::floats;
use crate::ops::grad::at;
use crate::ops::pick::{given, integers, room, sized};
use crate::ops::shape::{arity, show, spelt};
use crate::ops::{Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, onnx};

/// Zeros but at the places that the second input names, counted through the whole result before it is enlarged to the
/// sizes of the third.
pub struct MaxUnpool;

/// The shape that the attributes give.
pub(super) fn natural(n: &NodeRef, x: &[Dim]) -> Result<Shape, OpError> {
    let axes = x.len() - 2;
    let list = |name: &str, default: i64, len: usize, least: i64| -> Result<Vec<i64>, OpError> {
        let list = n.ints(name)?.filter(|l| !l.is_empty());
        let list = list.map_or(vec![default; len], <[i64]>::to_vec);
        match list.len() == len && list.iter().all(|&v| (least..=i64::from(i32::MAX)).contains(&v)) {
            true => Ok(list),
            false => Err(OpError::new(format!(
                "attribute {name:?} is {list:?}; expected {len} numbers of at least {least}"
            ))),
        }
    };
    let size = list("kernel_shape", 0, axes, 1)?;
    let (strides, pads) = (list("strides", 1, axes, 1)?, list("pads", 0, 2 * axes, 0)?);
    let mut shape = x[..2].to_vec();
    for a in 0..axes {
        let whole = (x[a + 2].clone() - Dim::Known(1)) * Dim::Known(strides[a]);
        let size = whole + Dim::Known(size[a] - pads[a] - pads[a + axes]);
        if size.known().is_some_and(|s| s < 0) {
            return Err(OpError::new(format!(
                "the border leaves nothing of axis {}",
                a + 2
            )));
        }
        shape.push(size);
    }
    Ok(shape)
}

impl Op for MaxUnpool {
    fn name(&self) -> OpName {
        onnx("MaxUnpool")
    }

    fn since(&self) -> &'static [u16] {
        &[9, 11, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 3)?;
        n.ignore(&["kernel_shape", "strides", "pads"]);
        if let Some(d) = n.dtype(1).filter(|d| *d != DType::I64) {
            return Err(OpError::new(format!("input 1 is of type {d}; expected int64")));
        }
        let Some(x) = checked(n)? else {
            return Ok(vec![Fact::tensor(n.dtype(0), spelt(n, 2)?)]);
        };
        let natural = natural(n, x)?;
        let shape = match n.has(2) {
            true => spelt(n, 2)?.unwrap_or_else(|| vec![Dim::Unknown; x.len()]),
            false => natural.clone(),
        };
        let less = |(a, b): (&Dim, &Dim)| matches!((a.known(), b.known()), (Some(a), Some(b)) if a < b);
        if shape.len() != x.len() || shape.iter().zip(&natural).any(less) {
            return Err(OpError::new(format!(
                "an output of shape {}; expected at least {}",
                show(&shape),
                show(&natural)
            )));
        }
        Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (t, places) = (given(x, 0)?, integers(given(x, 1)?, 1)?);
        let dims = crate::ops::pick::knowing(n, x, |n| sized(self, n, 0))?;
        let shape: Vec<Dim> = t.dims().iter().map(|&d| Dim::from(d)).collect();
        let natural = crate::ops::shape::sizes(&natural(n, &shape)?)?;
        let wrong = || OpError::new(format!("no unpooling of {}", t.dtype()));
        let v = t.floats().ok_or_else(wrong)?;
        if v.len() != places.len() {
            return Err(OpError::new(format!(
                "{} places for {} elements",
                places.len(),
                v.len()
            )));
        }
        let (inner, len) = (count(&natural).unwrap_or(0), count(&dims));
        let mut y: Vec<f64> = room(len)?;
        y.resize(len.unwrap_or(0), 0.0);
        for (x, &place) in v.iter().zip(&places) {
            let from = usize::try_from(place).ok().filter(|&p| p < inner);
            let mut from =
                from.ok_or_else(|| OpError::new(format!("place {place} is not in [0, {inner})")))?;
            let (mut at, mut ahead) = (0, 1);
            for (size, whole) in natural.iter().zip(&dims).rev() {
                at += from % size * ahead;
                from /= size;
                ahead *= whole;
            }
            y[at] = *x;
        }
        Ok(vec![Tensor::rounded(t.dtype(), &dims, &y).ok_or_else(wrong)?])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        grad::unpooled(n, x, at(dy, 0)?)
    }

    fn cases(&self) -> Vec<Case> {
        let places = || Tensor::of(&[1, 1, 2, 2], vec![5i64, 7, 13, 15]);
        let x = || floats(&[1, 1, 2, 2], 1);
        vec![
            Case::new("sizes from the window", [x(), places()])
                .attr("kernel_shape", vec![2i64, 2])
                .attr("strides", vec![2i64, 2]),
            Case::new(
                "given sizes",
                [x(), places(), Tensor::of(&[4], vec![1i64, 1, 5, 6])],
            )
            .attr("kernel_shape", vec![2i64, 2])
            .attr("strides", vec![2i64, 2])
            .konst(&[2]),
            Case::new(
                "one axis",
                [floats(&[2, 1, 2], 1), Tensor::of(&[2, 1, 2], vec![0i64, 2, 3, 5])],
            )
            .attr("kernel_shape", vec![3i64])
            .attr("strides", vec![2i64])
            .attr("pads", vec![1i64, 1])
            .opset(9),
        ]
    }
}
