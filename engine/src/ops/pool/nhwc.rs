//! `NhwcMaxPool` of ONNX Runtime: channels behind pixels.

use super::windows;
use crate::expr::{Call, Ex};
use crate::ir::{Attr, DType, Dim, Tensor};
use crate::ops::shape::{arity, show};
use crate::ops::{Case, Fact, NodeRef, Op, OpError, OpName, microsoft};

/// `MaxPool` of bytes `[batch, …, channels]`.
pub struct NhwcMaxPool;

impl Op for NhwcMaxPool {
    fn name(&self) -> OpName {
        microsoft("NhwcMaxPool")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        let axes = n.ints("kernel_shape")?.map_or(0, <[i64]>::len);
        let windows = windows(n, n.rank(0).map_or(axes, |r| r.saturating_sub(2)))?;
        let Some(x) = n.shape(0) else {
            return Ok(vec![Fact::tensor(n.dtype(0), Some(vec![Dim::Unknown; axes + 2]))]);
        };
        let [batch, pixels @ .., channels] = &x[..] else {
            return Err(OpError::new(format!(
                "input 0 has shape {}; expected [batch, …, channels]",
                show(x)
            )));
        };
        let mut shape = vec![batch.clone()];
        shape.extend(windows.outputs(pixels)?);
        shape.push(channels.clone());
        Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let rank = n.ints("kernel_shape").ok()??.len() as i64 + 2;
        let turned = |x: Ex<'a>, perm: Vec<i64>| x.with("Transpose", &[], vec![Attr::new("perm", perm)]);
        let first = turned(
            *x.first()?,
            [0, rank - 1].into_iter().chain(1..rank - 1).collect(),
        );
        let call = Call {
            domain: "",
            op: "MaxPool",
            inputs: &[Some(first.id)],
            attrs: n.node().attrs.clone(),
            outputs: 1,
        };
        let pooled = *first.call(call).first()?;
        Some(vec![turned(
            pooled,
            [0].into_iter().chain(2..rank).chain([1]).collect(),
        )])
    }

    fn cases(&self) -> Vec<Case> {
        let x = |dtype| {
            let values: Vec<f64> = (0..2 * 5 * 6 * 3).map(|i| f64::from(i * 37 % 101)).collect();
            Tensor::rounded(dtype, &[2, 5, 6, 3], &values).unwrap_or_else(|| Tensor::scalar(0u8))
        };
        vec![
            Case::new("bytes", [x(DType::U8)])
                .attr("kernel_shape", vec![3i64, 2])
                .attr("strides", vec![2i64, 1])
                .attr("pads", vec![1i64, 0, 1, 1])
                .opset(1),
            Case::new("signed bytes", [x(DType::I8)])
                .attr("kernel_shape", vec![2i64, 2])
                .attr("ceil_mode", 1)
                .attr("strides", vec![2i64, 2])
                .opset(1),
        ]
    }
}
