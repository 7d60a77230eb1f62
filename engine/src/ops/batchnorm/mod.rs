//! `BatchNormalization`, for inference and for training.

mod cpu;
mod grad;

use super::case::{floats, odd_floats};
use super::shape::show;
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, Tie, onnx};
use crate::cpu::Candidate;
use crate::ir::{DType, Tensor};
pub use grad::BatchNormalizationGrad;
use grad::Channels;

/// `scale (x - mean) / sqrt(variance + epsilon) + bias`, with one of each for every channel (axis 1). In training, mean and
/// variance are those of the input, and running ones are brought nearer to them.
pub struct BatchNormalization;

impl Op for BatchNormalization {
    fn name(&self) -> OpName {
        onnx("BatchNormalization")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 6, 7, 9, 14, 15]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        check(n)?;
        let fact = |i: usize| {
            n.input(i)
                .map_or_else(Fact::unknown, |x| Fact::from(x.fact.ty.clone()))
        };
        let mut all = vec![fact(0)];
        if trains(n)? {
            all.extend([fact(3), fact(4)]);
            // Older versions keep what they found in the input too.
            if n.opset() < 14 {
                all.extend([fact(3), fact(4)]);
            }
        }
        Ok(all)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let training = trains(n).ok()?;
        let parameters = |axis: usize| (1..5).filter(move |_| axis == 1).map(|i| (i, 0));
        let tie = |axis: usize| Tie {
            output: Some(axis),
            inputs: std::iter::once((0, axis)).chain(parameters(axis)).collect(),
        };
        let kept = |axis: &usize| *axis == 1 || !training;
        Some(Axes((0..n.rank(0)?).filter(kept).map(tie).collect()))
    }

    fn laws(&self) -> Laws {
        Laws {
            blocks: true,
            in_place: &[0],
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let epsilon = check(n)?;
        let all: Option<Vec<_>> = inputs.iter().take(5).map(|t| (*t)?.floats()).collect();
        let (Some(all), Some(Some(x))) = (all.filter(|a| a.len() == 5), inputs.first()) else {
            return Err(OpError::new("expected five tensors of floats"));
        };
        let (channels, plane) = split(x.dims(), spatial(n)?);
        if all[1..].iter().any(|p| p.len() != channels) {
            return Err(OpError::new(format!("expected {channels} of each parameter")));
        }
        let training = trains(n)?;
        let found = if training {
            moments(&all[0], channels, plane)
        } else {
            [vec![], vec![]]
        };
        let [mean, variance] = match training {
            true => [&found[0], &found[1]],
            false => [&all[3], &all[4]],
        };
        let normal = |(i, x): (usize, &f64)| {
            let c = i / plane % channels;
            all[1][c] * (x - mean[c]) / (variance[c] + epsilon).sqrt() + all[2][c]
        };
        let y: Vec<_> = all[0].iter().enumerate().map(normal).collect();
        let wrong = || OpError::new(format!("no normalisation of {}", x.dtype()));
        let mut made = vec![Tensor::rounded(x.dtype(), x.dims(), &y).ok_or_else(wrong)?];
        if training {
            let momentum = f64::from(n.float_or("momentum", 0.9)?);
            let nearer = |old: &[f64], new: &[f64]| -> Vec<f64> {
                let pairs = old.iter().zip(new);
                pairs.map(|(o, n)| o * momentum + n * (1.0 - momentum)).collect()
            };
            let [mean, variance] = found;
            let kept = [nearer(&all[3], &mean), nearer(&all[4], &variance), mean, variance];
            let count = if n.opset() < 14 { 4 } else { 2 };
            for (i, values) in kept.iter().take(count).enumerate() {
                let like = inputs.get(3 + i % 2).copied().flatten().ok_or_else(wrong)?;
                made.push(Tensor::rounded(like.dtype(), like.dims(), values).ok_or_else(wrong)?);
            }
        }
        Ok(made)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let all: Vec<_> = x.iter().copied().collect::<Option<_>>()?;
        let p = Channels::of(n, &all)?;
        match trains(n).ok()? {
            true => p.trained(n, &all, dy),
            false => p.fixed(&all, dy[0]?),
        }
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::candidates(n)
    }

    fn cases(&self) -> Vec<Case> {
        let positive = |dims: &[usize], seed| {
            let values: Vec<_> = floats(dims, seed).floats().unwrap_or_default();
            Tensor::of(dims, values.iter().map(|x| (x.abs() + 0.1) as f32).collect())
        };
        let case = |name, x: Tensor, c: usize| {
            let p = |seed| floats(&[c], seed);
            Case::new(name, [x, p(2), p(3), p(4), positive(&[c], 5)]).within(1e-5, 1e-5)
        };
        let far = |dims: &[usize]| {
            let values = floats(dims, 6).floats().unwrap_or_default();
            Tensor::of(dims, values.iter().map(|x| (x + 1e3) as f32).collect())
        };
        let half = |name, x: DType, p: DType| {
            let of = |dtype, t: Tensor| {
                let values = t.floats().unwrap_or_default();
                Tensor::rounded(dtype, t.dims(), &values).unwrap_or(t)
            };
            let c = case(name, floats(&[2, 3, 5], 1), 3);
            let inputs = c.inputs.into_iter().flatten().enumerate();
            let inputs = inputs.map(|(i, t)| of(if i == 0 { x } else { p }, t));
            Case::new(name, inputs.collect::<Vec<_>>()).within(2e-2, 1e-2)
        };
        vec![
            case("images", floats(&[2, 3, 5, 7], 1), 3).konst(&[1, 2, 3, 4]),
            case("rows", floats(&[5, 37], 1), 37).attr("epsilon", 0.01f32),
            case("one axis", floats(&[2, 3, 40], 1), 3)
                .attr("momentum", 0.5f32)
                .opset(9),
            case("an old form", floats(&[2, 3, 4], 1), 3)
                .attr("spatial", 1)
                .opset(7),
            case("the first form", floats(&[2, 3, 4], 1), 3)
                .attr("is_test", 1)
                .attr("consumed_inputs", vec![0i64; 5])
                .opset(1),
            case("odd values", odd_floats(&[1, 2, 10], 1), 2).attr("training_mode", 0),
            case("one axis alone", floats(&[6], 1), 1),
            case("training", floats(&[2, 3, 5, 7], 1), 3)
                .attr("training_mode", 1)
                .attr("momentum", 0.7f32)
                .outputs(3),
            case("training on more than a block", floats(&[3, 17, 19, 20], 1), 17)
                .attr("training_mode", 1)
                .outputs(3),
            case("training far from zero", far(&[5, 16, 30]), 16)
                .attr("training_mode", 1)
                .outputs(3)
                .within(1e-3, 1e-4),
            case("training, the first form", floats(&[2, 3, 4], 1), 3)
                .attr("consumed_inputs", vec![0i64; 5])
                .outputs(5)
                .opset(6),
            case("training by the number of outputs", floats(&[4, 3], 1), 3)
                .outputs(5)
                .opset(9),
            Case::new(
                "statistics of each place",
                [
                    floats(&[2, 3, 2], 1),
                    floats(&[3, 2], 2),
                    floats(&[3, 2], 3),
                    floats(&[3, 2], 4),
                    positive(&[3, 2], 5),
                ],
            )
            .attr("spatial", 0)
            .opset(7)
            .within(1e-5, 1e-5),
            case("no images", floats(&[0, 3, 2], 1), 3),
            half("half precision", DType::F16, DType::F16),
            half("half precision, float parameters", DType::F16, DType::F32),
            half("double precision", DType::F64, DType::F64).within(1e-12, 1e-12),
        ]
    }
}

/// Channels, and elements of each within an image; of each place where the statistics are not `spatial`.
fn split(dims: &[usize], spatial: bool) -> (usize, usize) {
    match dims {
        [_, rest @ ..] if !spatial => (rest.iter().product(), 1),
        [_, c, rest @ ..] => (*c, rest.iter().product()),
        _ => (1, 1),
    }
}

/// The mean and the variance (of the whole population) of each channel.
fn moments(x: &[f64], channels: usize, plane: usize) -> [Vec<f64>; 2] {
    let of = |c: usize, f: &dyn Fn(f64) -> f64| -> f64 {
        let own = x
            .chunks((channels * plane).max(1))
            .flat_map(|image| &image[c * plane..(c + 1) * plane]);
        let (sum, count) = own.fold((0.0, 0usize), |(sum, n), &x| (sum + f(x), n + 1));
        sum / count as f64
    };
    let mean: Vec<f64> = (0..channels).map(|c| of(c, &|x| x)).collect();
    let variance = (0..channels).map(|c| of(c, &|x| (x - mean[c]).powi(2))).collect();
    [mean, variance]
}

/// Whether there is one mean for each channel, and not for each element of an image.
fn spatial(n: &NodeRef) -> Result<bool, OpError> {
    Ok(n.opset() >= 9 || n.int_or("spatial", 1)? != 0)
}

/// Whether the statistics are those of the input.
///
/// # Errors
///
/// If an attribute is of the wrong kind.
pub(crate) fn trains(n: &NodeRef) -> Result<bool, OpError> {
    Ok(match n.opset() {
        ..7 => n.int_or("is_test", 0)? == 0,
        7..14 => (1..5).any(|i| n.wants(i)),
        14.. => n.int_or("training_mode", 0)? != 0,
    })
}

/// Reads the attributes and returns `epsilon`.
fn check(n: &NodeRef) -> Result<f64, OpError> {
    n.float("momentum")?;
    n.ignore(&["consumed_inputs"]);
    trains(n)?;
    for i in 0..5 {
        if !n.has(i) {
            return Err(OpError::new(format!("input {i} is left out")));
        }
    }
    if let Some(x) = n.shape(0).filter(|x| spatial(n) == Ok(true) && x.len() != 1) {
        let channels = x.get(1).and_then(|c| c.known());
        let fits = |i: usize| {
            n.shape(i).is_none_or(|p| {
                p.len() == 1 && (channels.is_none() || p[0].known().is_none() || p[0].known() == channels)
            })
        };
        if let Some(i) = (1..5).find(|&i| x.len() < 2 || !fits(i)) {
            let p = n.shape(i).map_or_else(String::new, |s| show(s));
            return Err(OpError::new(format!(
                "input 0 has shape {} and input {i} {p}; expected one number for each channel",
                show(x)
            )));
        }
    }
    Ok(n.float_or("epsilon", 1e-5)?.into())
}

/// Refuses inputs `slots` that do not have one number for each channel of input 0.
fn parameters(n: &NodeRef, slots: std::ops::Range<usize>) -> Result<(), OpError> {
    let Some(channels) = n.dims(0).and_then(|d| d.get(1).copied()) else {
        return Ok(());
    };
    for i in slots {
        match n.dims(i) {
            Some(found) if found != [channels] => {
                return Err(OpError::new(format!(
                    "input {i}: expected [{channels}], found {found:?}"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}
