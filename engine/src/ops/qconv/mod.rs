//! `ConvInteger` and `QLinearConv`: convolutions of bytes.

mod cases;
mod cpu;

use super::conv::{Sizes, shape, sizes};
use super::matmul::matrices::check_size;
use super::pick::given;
use super::qmatmul::{byte, paired, typed, values};
use super::quant::code_of;
use super::shape::arity;
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, onnx};
use crate::cpu::Candidate;
use crate::ir::{DType, Tensor};

/// ONNX `ConvInteger`: the convolution of differences from zero points, summed in 32 bits.
pub struct ConvInteger;

/// ONNX `QLinearConv`: the convolution of a quantised tensor with quantised weights, quantised.
pub struct QLinearConv;

/// Where an operator has its weights, the zero points of both operands, and the bias.
#[derive(Clone, Copy, Debug)]
struct Places {
    w: usize,
    zeros: [usize; 2],
    bias: usize,
}

const INTEGER: Places = Places {
    w: 1,
    zeros: [2, 3],
    bias: usize::MAX,
};

const LINEAR: Places = Places {
    w: 3,
    zeros: [2, 5],
    bias: 8,
};

/// Checks that numbers of which there are `len` are one for all or one for each output channel.
fn of_channels(len: usize, channels: usize) -> Result<(), OpError> {
    match len == 1 || len == channels {
        true => Ok(()),
        false => Err(OpError::new(format!(
            "{len} scales or zero points; expected 1 or {channels}"
        ))),
    }
}

/// The sums, and the dimensions of the output.
fn sums(n: &NodeRef, x: &[Option<&Tensor>], at: Places) -> Result<(Vec<usize>, Vec<f64>), OpError> {
    let (image, weights) = (given(x, 0)?, given(x, at.w)?);
    let s = sizes(n, at.w, image.dims(), weights.dims())?;
    let mut dims = vec![s.images, s.groups * s.outputs];
    dims.extend(&s.window.output);
    check_size(&dims)?;
    let (data, weights) = (values(x, 0)?, values(x, at.w)?);
    let (zx, zw) = (values(x, at.zeros[0])?, values(x, at.zeros[1])?);
    of_channels(zx.len(), 1)?;
    of_channels(zw.len(), dims[1])?;
    let bias = values(x, at.bias)?;
    let Sizes { inputs, window, .. } = &s;
    let mut y = vec![];
    for channel in 0..dims[0] * dims[1] {
        let (o, place) = (channel % dims[1], channel / s.outputs * inputs);
        let zero = zw[o % zw.len()];
        for position in 0..window.positions() {
            let product = |c: usize, (tap, under): (usize, usize)| {
                let weight = weights[(o * inputs + c) * window.taps() + tap] - zero;
                (data[(place + c) * window.plane() + under] - zx[0]) * weight
            };
            let products = (0..*inputs).flat_map(|c| window.covered(position).map(move |k| product(c, k)));
            y.push(bias[o % bias.len()] + products.sum::<f64>());
        }
    }
    Ok((dims, y))
}

impl Op for ConvInteger {
    fn name(&self) -> OpName {
        onnx("ConvInteger")
    }

    fn since(&self) -> &'static [u16] {
        &[10]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 4)?;
        typed(n, &[0, 1], byte)?;
        paired(n, &[(0, 2), (1, 3)])?;
        let shape = shape(n, 1, INTEGER.bias)?;
        Ok(vec![Fact::tensor(Some(DType::I32), shape)])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dims, sums) = sums(n, x, INTEGER)?;
        let narrow = sums.iter().map(|&s| s as i64 as i32).collect();
        Ok(vec![Tensor::of(&dims, narrow)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::integer(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        cases::integer()
    }
}

impl Op for QLinearConv {
    fn name(&self) -> OpName {
        onnx("QLinearConv")
    }

    fn since(&self) -> &'static [u16] {
        &[10]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 8, 9)?;
        typed(n, &[0, 3, 7], byte)?;
        paired(n, &[(0, 2), (3, 5)])?;
        if let Some(d) = n.dtype(8).filter(|&d| d != DType::I32) {
            return Err(OpError::new(format!("the bias is of type {d}; expected int32")));
        }
        let shape = shape(n, LINEAR.w, LINEAR.bias)?;
        Ok(vec![Fact::tensor(n.dtype(7), shape)])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dims, sums) = sums(n, x, LINEAR)?;
        let (sx, sw, sy) = (values(x, 1)?, values(x, 4)?, values(x, 6)?);
        let (to, zero) = (given(x, 7)?.dtype(), values(x, 7)?);
        of_channels(sw.len(), dims[1])?;
        let (Some(&sx), Some(&sy), Some(&zero)) = (sx.first(), sy.first(), zero.first()) else {
            return Err(OpError::new("a tensor without a scale"));
        };
        let positions: usize = dims[2..].iter().product();
        let code = |(i, &sum): (usize, &f64)| {
            let scale = sw[i / positions % dims[1] % sw.len()];
            let sum = f64::from(sum as i64 as i32);
            code_of(to, sum, factor(sx as f32, scale as f32, sy as f32).into(), zero)
        };
        let codes = sums.iter().enumerate().map(code).collect();
        let y = Tensor::of_codes(to, &dims, codes);
        Ok(vec![
            y.ok_or_else(|| OpError::new("expected an output of 8 bits"))?,
        ])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::linear(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        cases::linear()
    }
}

/// What sums are multiplied by.
fn factor(x: f32, w: f32, y: f32) -> f32 {
    x * w / y
}
