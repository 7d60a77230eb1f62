//! Kernels of normalisation by batches, and of its gradient.

use super::{check, spatial, split, trains};
use crate::cpu::affine::Affine;
use crate::cpu::blocked::{Channels, Given};
use crate::cpu::number::{ByType, Int, Real, by_type};
use crate::cpu::{Candidate, Cost, Io, Kernel};
use crate::ir::DType;
use crate::ops::{NodeRef, OpError};

pub(super) fn candidates(n: &NodeRef) -> Vec<Candidate> {
    match trains(n) {
        Ok(true) => training(n).into_iter().collect(),
        Ok(false) => fixed(n),
        Err(_) => vec![],
    }
}

/// The channels of input 0, of floats as all inputs are, in blocks; `None` where there are no elements.
fn channels(n: &NodeRef, inputs: usize) -> Option<Channels> {
    let floats = (0..inputs).all(|i| n.dtype(i) == Some(DType::F32));
    let channels = Channels::new(&n.dims(0).filter(|d| floats && d.len() > 2)?);
    (channels.count() > 0 && channels.channels > 0).then_some(channels)
}

/// The kernel where mean and variance are those of the input.
fn training(n: &NodeRef) -> Option<Candidate> {
    let channels = channels(n, 5).filter(|_| n.opset() >= 14)?;
    super::parameters(n, 1..5).ok()?;
    let kernel = Trained {
        channels,
        epsilon: check(n).ok()?,
        momentum: n.float_or("momentum", 0.9).ok()?.into(),
    };
    let name = format!("batchnormalization.f32.{}.blocks.training", secateur_simd::isa());
    let bytes = 12 * n.dims(0)?.iter().product::<usize>();
    Some(Candidate::new(name, Cost::bytes(bytes), kernel).blocked(&[0], true))
}

struct Trained {
    channels: Channels,
    epsilon: f64,
    momentum: f64,
}

impl Kernel for Trained {
    fn scratch(&self, _threads: usize) -> usize {
        self.channels.scratch()
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let x = Given::new(io.input(0).ptr(), None);
        let [scale, bias, mean, variance] = [1, 2, 3, 4].map(|i| io.input(i).slice::<f32>());
        // SAFETY: input and output are in blocks of channels as the sizes say.
        let found = unsafe { self.channels.moments(x, io.scratch, io.pool) };
        let line = |c: usize| {
            let factor = f64::from(scale[c]) / (found[c].variance + self.epsilon).sqrt();
            [found[c].mean as f32, 0.0, factor as f32, bias[c]]
        };
        let y = io.outputs[0].as_ref().expect("output").ptr();
        // SAFETY: as above.
        unsafe { self.channels.apply(x, y, io.scratch, line, io.pool) };
        let nearer =
            |old: f32, new: f64| (f64::from(old) * self.momentum + new * (1.0 - self.momentum)) as f32;
        for (i, old) in [(1, mean), (2, variance)] {
            let Some(Some(to)) = io.outputs.get_mut(i) else {
                continue;
            };
            let all = to.slice::<f32>().iter_mut().zip(old).zip(&found);
            all.for_each(|((to, &old), new)| {
                *to = nearer(old, if i == 1 { new.mean } else { new.variance });
            });
        }
        Ok(())
    }
}

/// The kernel of the gradients of input, scale and bias.
pub(super) fn gradient(n: &NodeRef) -> Option<Candidate> {
    let kernel = Gradient {
        channels: channels(n, 3)?,
        epsilon: n.float_or("epsilon", 1e-5).ok()?.into(),
    };
    let name = format!("batchnormalizationgrad.f32.{}.blocks", secateur_simd::isa());
    let bytes = 20 * n.dims(0)?.iter().product::<usize>();
    Some(Candidate::new(name, Cost::bytes(bytes), kernel).blocked(&[0, 2], true))
}

struct Gradient {
    channels: Channels,
    epsilon: f64,
}

impl Kernel for Gradient {
    fn scratch(&self, _threads: usize) -> usize {
        self.channels.scratch()
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let given = Given::new(io.input(0).ptr(), Some(io.input(2).ptr()));
        let scale = io.input(1).slice::<f32>();
        // SAFETY: the images are in blocks of channels as the sizes say.
        let found = unsafe { self.channels.moments(given, io.scratch, io.pool) };
        let inverse = |c: usize| 1.0 / (found[c].variance + self.epsilon).sqrt();
        let count = self.channels.count() as f64;
        let line = |c: usize| {
            let (m, inverse) = (&found[c], inverse(c));
            let slope = f64::from(scale[c]) * inverse;
            let spread = -slope * inverse * inverse * m.product / count;
            [m.mean, slope, spread, -slope * m.sum / count].map(|x| x as f32)
        };
        let dx = io.outputs[0].as_ref().expect("output").ptr();
        // SAFETY: as above.
        unsafe { self.channels.apply(given, dx, io.scratch, line, io.pool) };
        for i in [1, 2] {
            let Some(Some(to)) = io.outputs.get_mut(i) else {
                continue;
            };
            let sums = |(c, to): (usize, &mut f32)| {
                *to = if i == 1 {
                    found[c].product * inverse(c)
                } else {
                    found[c].sum
                } as f32;
            };
            to.slice::<f32>().iter_mut().enumerate().for_each(sums);
        }
        Ok(())
    }
}

/// The kernels where mean and variance are given.
fn fixed(n: &NodeRef) -> Vec<Candidate> {
    let (Some(dims), Some(dtype), Ok(epsilon)) = (n.dims(0), n.dtype(0), check(n)) else {
        return vec![];
    };
    let Ok(spatial) = spatial(n) else {
        return vec![];
    };
    let (channels, plane) = split(&dims, spatial);
    if dims.is_empty() || (1..5).any(|i| n.dims(i).is_none_or(|p| p.iter().product::<usize>() != channels)) {
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
        let blocks = self::channels(n, 5).filter(|_| spatial).map(|channels| {
            let kernel = Blocks { channels, epsilon };
            Candidate::new(format!("{name}.blocks"), cost, kernel).blocked(&[0], true)
        });
        let rows = Candidate::new(name, cost, kernel);
        return blocks.into_iter().chain([rows]).collect();
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

/// On blocks of channels.
struct Blocks {
    channels: Channels,
    epsilon: f64,
}

impl Kernel for Blocks {
    fn scratch(&self, _threads: usize) -> usize {
        self.channels.scratch()
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let [scale, bias, mean, variance] = [1, 2, 3, 4].map(|i| io.input(i).slice::<f32>());
        let x = Given::new(io.input(0).ptr(), None);
        let line = |c: usize| {
            let factor = f64::from(scale[c]) / (f64::from(variance[c]) + self.epsilon).sqrt();
            [mean[c], 0.0, factor as f32, bias[c]]
        };
        let y = io.outputs[0].as_ref().expect("output").ptr();
        // SAFETY: input and output are in blocks of channels as the sizes say.
        unsafe { self.channels.apply(x, y, io.scratch, line, io.pool) };
        Ok(())
    }
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
