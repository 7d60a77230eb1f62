//! `BatchNormalization`, for inference and for training.

use super::case::{floats, odd_floats};
use super::formula::{cast, ints};
use super::grad;
use super::shape::show;
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, Tie, onnx};
use crate::cpu::number::{ByType, Int, Real, by_type};
use crate::cpu::{Candidate, Cost, Io, Kernel};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Tensor};

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

/// What is needed to say a gradient with one number for each channel.
struct Channels {
    rank: i64,
    epsilon: f64,
    /// The types of all inputs.
    types: [DType; 5],
}

impl Channels {
    fn of(n: &NodeRef, x: &[Ex]) -> Option<Channels> {
        let types: Option<Vec<_>> = (0..x.len()).map(|i| n.dtype(i)).collect();
        Some(Channels {
            rank: n.rank(0)? as i64,
            epsilon: n.float_or("epsilon", 1e-5).ok()?.into(),
            types: types?.try_into().ok()?,
        })
    }

    /// Input `i`, in the type of the first.
    fn given<'a>(&self, x: &[Ex<'a>], i: usize) -> Ex<'a> {
        cast(x[i], self.types[i], self.types[0])
    }

    /// One number for each channel, in the rank of the input.
    fn wide<'a>(&self, p: Ex<'a>) -> Ex<'a> {
        match (1..self.rank - 1).collect::<Vec<_>>() {
            behind if behind.is_empty() => p,
            behind => p.op("Unsqueeze", &[ints(p, &behind)]),
        }
    }

    /// One number for each channel, made by `op` of those of all images.
    fn folded<'a>(&self, v: Ex<'a>, op: &str) -> Ex<'a> {
        let keep = i64::from(self.rank == 1);
        let others: Vec<_> = (0..self.rank).filter(|&a| a != 1).collect();
        v.with(op, &[ints(v, &others)], vec![Attr::new("keepdims", keep)])
    }

    fn inverse<'a>(&self, variance: Ex<'a>) -> Ex<'a> {
        (variance + self.epsilon).op("Sqrt", &[]).op("Reciprocal", &[])
    }

    /// The gradients of all inputs, in their own types.
    fn typed<'a>(&self, dx: [Option<Ex<'a>>; 5]) -> Grads<'a> {
        let own = |(dx, &to): (Option<Ex<'a>>, &DType)| dx.map(|dx| cast(dx, self.types[0], to));
        Some(dx.into_iter().zip(&self.types).map(own).collect())
    }

    /// The gradients where mean and variance are given.
    fn fixed<'a>(&self, x: &[Ex<'a>], dy: Ex<'a>) -> Grads<'a> {
        let [scale, mean, variance] = [1, 3, 4].map(|i| self.given(x, i));
        let inverse = self.inverse(variance);
        let slope = scale * inverse;
        let sum = self.folded(dy, "ReduceSum");
        let product = self.folded(dy * (x[0] - self.wide(mean)), "ReduceSum");
        let dvariance = product * slope * (inverse * inverse) * -0.5;
        let dx = [
            dy * self.wide(slope),
            product * inverse,
            sum,
            -(sum * slope),
            dvariance,
        ];
        self.typed(dx.map(Some))
    }

    /// The gradients where mean and variance are those of the input, which the running ones are brought nearer to.
    fn trained<'a>(&self, n: &NodeRef, x: &[Ex<'a>], dy: Exs<'_, 'a>) -> Grads<'a> {
        let (own, scale, dy0) = (self.types[0], self.given(x, 1), dy[0]?);
        let momentum = f64::from(n.float_or("momentum", 0.9).ok()?);
        let running = |i: usize| dy.get(i).copied().flatten();
        let new = |i: usize| running(i).map(|d| cast(d, self.types[2 + i], own) * (1.0 - momentum));
        let away = x[0] - self.wide(self.folded(x[0], "ReduceMean"));
        let inverse = self.inverse(self.folded(away * away, "ReduceMean"));
        let sum = self.folded(dy0, "ReduceSum");
        let product = self.folded(dy0 * away, "ReduceSum");
        let size = |x: Ex<'a>| grad::cast(x.op("Size", &[]), own);
        let count = size(x[0]) / size(x[1]);
        let slope = scale * inverse;
        // What each channel's mean and variance give to all its elements.
        let mean = new(1).map_or(sum * slope, |d| sum * slope - d) / count;
        let spread = product * slope * (inverse * inverse);
        let spread = new(2).map_or(spread, |d| spread - d * 2.0) / count;
        let dx = dy0 * self.wide(slope) - self.wide(mean) - away * self.wide(spread);
        let old = |i: usize| running(i).map(|d| cast(d, self.types[2 + i], own) * momentum);
        self.typed([Some(dx), Some(product * inverse), Some(sum), old(1), old(2)])
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

mod cpu {
    use super::*;
    use crate::cpu::affine::Affine;

    pub(super) fn candidates(n: &NodeRef) -> Vec<Candidate> {
        let (Some(dims), Some(dtype), Ok(epsilon)) = (n.dims(0), n.dtype(0), check(n)) else {
            return vec![];
        };
        let (Ok(false), Ok(spatial)) = (trains(n), spatial(n)) else {
            return vec![];
        };
        let (channels, plane) = split(&dims, spatial);
        if dims.is_empty()
            || (1..5).any(|i| n.dims(i).is_none_or(|p| p.iter().product::<usize>() != channels))
        {
            return vec![];
        }
        let len: usize = dims.iter().product();
        let cost = Cost::bytes(2 * len * dtype.bits() / 8);
        let same = (1..5).all(|i| n.dtype(i) == Some(DType::F32));
        if dtype == DType::F32 && same {
            let affine = Affine { channels, plane, len };
            let kernel = Normal {
                affine,
                epsilon: epsilon as f32,
            };
            let name = format!("batchnormalization.f32.{}", secateur_simd::isa());
            return vec![Candidate::new(name, cost, kernel)];
        }
        let parameters = n.dtype(1).filter(|d| (2..5).all(|i| n.dtype(i) == Some(*d)));
        let Some(parameters) = parameters else {
            return vec![];
        };
        let plain = by_type(
            dtype,
            Plain {
                channels,
                plane,
                epsilon,
                parameters,
            },
        )
        .flatten();
        let made = plain.map(|kernel| Candidate {
            name: format!("batchnormalization.{}", format!("{dtype:?}").to_lowercase()),
            cost,
            layouts: Default::default(),
            sparse: None,
            build: Box::new(|| kernel),
        });
        made.into_iter().collect()
    }

    struct Normal {
        affine: Affine,
        epsilon: f32,
    }

    impl Kernel for Normal {
        fn scratch(&self, _threads: usize) -> usize {
            2 * self.affine.channels * size_of::<f32>()
        }

        fn run(&self, io: &mut Io) -> Result<(), OpError> {
            let [scale, bias, mean, variance] = [1, 2, 3, 4].map(|i| io.input(i).slice::<f32>());
            let x = io.input(0);
            let y = io.outputs[0].as_mut().expect("output");
            let len = self.affine.channels;
            let floats = bytemuck::cast_slice_mut::<u8, f32>(&mut io.scratch[..2 * len * size_of::<f32>()]);
            let (factor, summand) = floats.split_at_mut(len);
            for c in 0..len {
                // In `f64`, as folding it into weights does.
                let f = f64::from(scale[c]) / f64::from(variance[c] + self.epsilon).sqrt();
                factor[c] = f as f32;
                summand[c] = (f64::from(bias[c]) - f * f64::from(mean[c])) as f32;
            }
            self.affine.run(x, y, factor, summand, io.pool);
            Ok(())
        }
    }

    /// Other element types, one element after the other.
    struct Plain {
        channels: usize,
        plane: usize,
        epsilon: f64,
        parameters: DType,
    }

    /// The parameters as `f64`.
    struct Wide<'a, 'b>(&'a Io<'b>, usize);
    impl ByType for Wide<'_, '_> {
        type Out = Vec<f64>;
        fn real<T: Real>(self) -> Vec<f64> {
            let all = self.0.input(self.1).slice::<T>().iter();
            all.map(|x| num_traits::cast(x.wide()).unwrap_or(f64::NAN))
                .collect()
        }
        fn int<T: Int>(self) -> Vec<f64> {
            vec![]
        }
    }

    impl ByType for Plain {
        type Out = Option<Box<dyn Kernel>>;

        fn real<T: Real>(self) -> Self::Out {
            Some(Box::new(move |io: &mut Io| {
                let p = [1, 2, 3, 4].map(|i| by_type(self.parameters, Wide(io, i)).unwrap_or_default());
                crate::cpu::affine::each(io.input(0), io.output(0), |i, x: T| {
                    let c = i / self.plane % self.channels;
                    let x: f64 = num_traits::cast(x.wide()).unwrap_or(f64::NAN);
                    let y = p[0][c] * (x - p[2][c]) / (p[3][c] + self.epsilon).sqrt() + p[1][c];
                    T::narrow(num_traits::cast(y).unwrap_or_else(num_traits::Float::nan))
                });
            }))
        }

        fn int<T: Int>(self) -> Self::Out {
            None
        }
    }
}
