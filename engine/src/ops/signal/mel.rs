//! `MelWeightMatrix`: triangles that gather the bins of a spectrum as ears do.

use super::taper::dtype;
use super::{at_least, bins};
use crate::ir::{DType, Dim, Tensor};
use crate::ops::matmul::matrices::check_size;
use crate::ops::pick::{given, integers};
use crate::ops::shape::arity;
use crate::ops::{Case, Fact, NodeRef, Op, OpError, OpName, onnx};

/// The matrix `[bins, bands]` of weights, with which spectra are multiplied: triangles evenly spaced on the mel scale
/// `2595 log10(1 + hertz / 700)`, of height 1.
pub struct MelWeightMatrix;

impl Op for MelWeightMatrix {
    fn name(&self) -> OpName {
        onnx("MelWeightMatrix")
    }

    fn since(&self) -> &'static [u16] {
        &[17]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 5, 5)?;
        let bands = at_least(n, 0, 0)?.unwrap_or(Dim::Unknown);
        let length = at_least(n, 1, 0)?.unwrap_or(Dim::Unknown);
        at_least(n, 2, 1)?;
        let shape = vec![bins(&length, true), bands];
        Ok(vec![Fact::tensor(Some(dtype(n)?), Some(shape))])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let whole = |i: usize| -> Result<usize, OpError> {
            let all = integers(given(x, i)?, i)?;
            let one = all.first().and_then(|&v| usize::try_from(v).ok());
            one.ok_or_else(|| OpError::new(format!("input {i} is {all:?}; expected a number")))
        };
        let hertz = |i: usize| -> Result<f64, OpError> {
            let found = given(x, i)?.item();
            found.ok_or_else(|| OpError::new(format!("input {i}: expected a float")))
        };
        let (bands, length, rate) = (whole(0)?, whole(1)?, whole(2)?);
        let dims = [length / 2 + 1, bands];
        check_size(&dims)?;
        let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
        let (low, high) = (mel(hertz(3)?), mel(hertz(4)?));
        let step = (high - low) / (bands + 2) as f64;
        let bin = |i: usize| {
            let hertz = 700.0 * (10f64.powf((low + i as f64 * step) / 2595.0) - 1.0);
            ((length as f64 + 1.0) * hertz / rate as f64).floor() as i64
        };
        let mut y = vec![0.0; dims[0] * bands];
        for band in 0..bands {
            let [left, middle, right] = [bin(band), bin(band + 1), bin(band + 2)];
            let mut set = |at: i64, weight: f64| {
                if let Some(at) = usize::try_from(at).ok().filter(|&at| at < dims[0]) {
                    y[at * bands + band] = weight;
                }
            };
            let within = |a: i64| a.clamp(-1, dims[0] as i64);
            (within(left)..=within(middle)).for_each(|at| {
                let rise = (at - left) as f64 / (middle - left) as f64;
                set(at, if middle == left { 1.0 } else { rise });
            });
            (within(middle)..within(right)).for_each(|at| {
                set(at, (right - at) as f64 / (right - middle) as f64);
            });
        }
        let wrong = || OpError::new(format!("no weights of {}", DType::F32));
        Ok(vec![Tensor::rounded(dtype(n)?, &dims, &y).ok_or_else(wrong)?])
    }

    fn cases(&self) -> Vec<Case> {
        let of = |bands: i64, length: i64| {
            [
                Tensor::scalar(bands),
                Tensor::scalar(length),
                Tensor::scalar(8192i64),
                Tensor::scalar(0f32),
                Tensor::scalar(4096f32),
            ]
        };
        vec![
            Case::new("eight bands", of(8, 16)).konst(&[0, 1]),
            Case::new("doubles", of(20, 256)).attr("output_datatype", 11),
            Case::new("no bands", of(0, 16)),
        ]
    }
}
