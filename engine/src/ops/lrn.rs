//! `LRN`: normalisation by the squares of neighbouring channels.

use super::binary::candidate;
use super::case::floats;
use super::formula::ints;
use super::grad::shaped;
use super::pick::given;
use super::shape::{arity, like_first, show};
use super::{Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, onnx};
use crate::cpu::Candidate;
use crate::cpu::lrn::LrnKernel;
use crate::expr::Ex;
use crate::ir::{Attr, DType, Tensor, count};

/// `x / (bias + alpha / size * sum of squares)^beta`, the sum over `size` neighbouring channels.
pub struct LRN;

struct Attrs {
    alpha: f32,
    beta: f32,
    bias: f32,
    size: usize,
}

impl Attrs {
    fn of(n: &NodeRef) -> Result<Attrs, OpError> {
        let size = n.int("size")?;
        let positive = size.and_then(|s| usize::try_from(s).ok()).filter(|&s| s > 0);
        Ok(Attrs {
            alpha: n.float_or("alpha", 1e-4)?,
            beta: n.float_or("beta", 0.75)?,
            bias: n.float_or("bias", 1.0)?,
            size: positive.ok_or_else(|| {
                OpError::new(format!(
                    "attribute \"size\": expected a positive number, found {size:?}"
                ))
            })?,
        })
    }

    /// Channels before and behind that count.
    fn near(&self) -> [usize; 2] {
        [(self.size - 1) / 2, (self.size - 1).div_ceil(2)]
    }
}

impl Attrs {
    /// The sum of the elements of `v`, shaped like input 0, over the channels that count for each, or for which each counts,
    /// divided by `size`.
    fn near_mean<'a>(&self, n: &NodeRef, x: Ex<'a>, v: Ex<'a>, turned: bool) -> Ex<'a> {
        let [before, behind] = self.near().map(|c| c as i64);
        let (before, behind) = if turned {
            (behind, before)
        } else {
            (before, behind)
        };
        let column = v.op("Reshape", &[ints(v, &[0, 0, -1])]);
        let attrs = vec![
            Attr::new("kernel_shape", vec![self.size as i64, 1]),
            Attr::new("pads", vec![before, 0, behind, 0]),
            Attr::new("count_include_pad", 1),
        ];
        let column = column.op("Unsqueeze", &[ints(v, &[1])]);
        shaped(n, 0, x, column.with("AveragePool", &[], attrs))
    }
}

/// Images, channels and elements of a plane.
fn split(dims: &[usize]) -> Option<[usize; 3]> {
    let [images, channels, ref rest @ ..] = *dims else {
        return None;
    };
    count(dims)?;
    Some([images, channels, count(rest)?])
}

impl Op for LRN {
    fn name(&self) -> OpName {
        onnx("LRN")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        Attrs::of(n)?;
        match (n.shape(0), n.dtype(0)) {
            (Some(s), _) if s.len() < 2 => Err(OpError::new(format!(
                "expected [batch, channels, …], found {}",
                show(s)
            ))),
            (_, Some(d)) if !d.is_float() => Err(OpError::new(format!("expected floats, found {d}"))),
            _ => like_first(n),
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (a, x) = (Attrs::of(n)?, given(x, 0)?);
        let wrong = || OpError::new(format!("no normalisation of {}{:?}", x.dtype(), x.dims()));
        let [_, channels, plane] = split(x.dims()).ok_or_else(wrong)?;
        let v = x.floats().ok_or_else(wrong)?;
        let [before, behind] = a.near();
        let (alpha, beta, bias) = (f64::from(a.alpha), f64::from(a.beta), f64::from(a.bias));
        let y = v.iter().enumerate().map(|(i, x)| {
            let (channel, at) = (i / plane, i % plane);
            let (c, image) = (channel % channels, channel / channels * channels);
            let near = c.saturating_sub(before)..channels.min(c.saturating_add(behind).saturating_add(1));
            let sum: f64 = near.map(|c| v[(image + c) * plane + at].powi(2)).sum();
            x / (bias + alpha / a.size as f64 * sum).powf(beta)
        });
        let y: Vec<f64> = y.collect();
        Ok(vec![Tensor::rounded(x.dtype(), x.dims(), &y).ok_or_else(wrong)?])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (a, x0, y, dy) = (Attrs::of(n).ok()?, x[0]?, y[0]?, dy[0]?);
        let [alpha, beta] = [a.alpha, a.beta].map(f64::from);
        let sum = a.near_mean(n, x0, x0 * x0, false) * alpha + f64::from(a.bias);
        let around = a.near_mean(n, x0, dy * y / sum, true);
        let dx = dy * sum.op("Pow", &[sum.constant(-beta)]) - x0 * around * (2.0 * alpha * beta);
        Some(vec![Some(dx)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let kernel = || {
            let a = Attrs::of(n).ok()?;
            let size = split(&n.dims(0)?)?;
            let [before, behind] = a.near().map(|d| d.min(size[1]));
            (n.dtype(0)? == DType::F32).then_some(LrnKernel {
                size,
                before,
                behind,
                bias: a.bias,
                factor: a.alpha / a.size as f32,
                beta: a.beta,
            })
        };
        kernel()
            .into_iter()
            .map(|k| candidate(n, "", Box::new(k)))
            .collect()
    }

    fn cases(&self) -> Vec<Case> {
        let half = |t: Tensor| Tensor::rounded(DType::F16, t.dims(), &t.floats().unwrap_or_default());
        let double = |t: Tensor| Tensor::rounded(DType::F64, t.dims(), &t.floats().unwrap_or_default());
        let x = || floats(&[2, 7, 5, 9], 1);
        let mut all = vec![
            Case::new("five channels", [x()])
                .attr("size", 5)
                .attr("alpha", 0.5f32),
            Case::new("an even number", [x()])
                .attr("size", 4)
                .attr("alpha", 2.0f32)
                .attr("beta", 0.5f32)
                .attr("bias", 2.0f32),
            Case::new("more than there are", [floats(&[1, 3, 40], 2)])
                .attr("size", 99)
                .opset(1),
            Case::new("a long plane", [floats(&[1, 4, 5000], 3)])
                .attr("size", 3)
                .attr("beta", 1.25f32)
                .attr("alpha", 1.0f32),
            Case::new("no plane", [floats(&[3, 6], 4)]).attr("size", 3),
            Case::new("nothing", [floats(&[0, 3, 5], 1)]).attr("size", 3),
        ];
        all = all.into_iter().map(|c| c.within(2e-6, 4e-6)).collect();
        all.extend(half(x()).map(|x| Case::new("half", [x]).attr("size", 3).within(2e-3, 2e-3)));
        all.extend(double(x()).map(|x| Case::new("double", [x]).attr("size", 3)));
        all
    }
}
