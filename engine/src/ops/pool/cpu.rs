//! Kernels of pools.

use num_traits::{Float, NumCast, Zero};

use super::{Sizes, counts};
use crate::cpu::blocked::{self, BLOCK, Unpooling};
use crate::cpu::number::{ByType, Int, Real, by_type};
use crate::cpu::pool::{Means, Planes, Pooling};
use crate::cpu::{Candidate, Cost, Io, Kernel};
use crate::ir::{DType, Element};
use crate::ops::{NodeRef, OpError};

/// What becomes of a window.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The greatest element; indices count columns first or rows first.
    Max { by_column: bool },
    /// The mean.
    Mean,
}

pub(super) fn candidates(n: &NodeRef, kind: Kind) -> Vec<Candidate> {
    let (Some(x), Some(y), Some(dtype)) = (n.dims(0), n.out_dims(0), n.dtype(0)) else {
        return vec![];
    };
    let Some(s) = Some(&x)
        .filter(|x| x.len() > 2)
        .and_then(|x| Sizes::new(n, x).ok())
    else {
        return vec![];
    };
    let Some(counts) = counts(n, &s).ok().filter(|_| s.dims == y) else {
        return vec![];
    };
    let op = n.node().op.to_lowercase();
    let (from, to) = (s.window.plane() as f64, s.window.positions() as f64);
    let channels = s.channels as f64;
    let cost = Cost {
        flops: channels * to * s.window.taps() as f64,
        bytes: channels * (from + to) * (dtype.bits() / 8) as f64,
        efficiency: 1.0,
    };
    if dtype == DType::F32 && !n.wants(1) && !s.window.is_wide() {
        let blocks = in_blocks(&op, &s, &x, (kind, &counts), cost);
        let means = match kind {
            Kind::Mean => Some(Means::new(&counts)),
            Kind::Max { .. } => None,
        };
        if let Some(pooling) = Pooling::new(s.window.clone(), s.channels, means) {
            let kernel = Floats(pooling);
            let name = format!("{op}.f32.{}", secateur_simd::isa());
            return blocks
                .into_iter()
                .chain([Candidate::new(name, cost, kernel)])
                .collect();
        }
    }
    let kernel = by_type(
        dtype,
        Plain {
            s,
            kind,
            counts,
            indices: n.wants(1),
        },
    )
    .flatten();
    let made = kernel.map(|kernel| Candidate {
        name: format!("{op}.{}", format!("{dtype:?}").to_lowercase()),
        cost: Cost {
            efficiency: 0.02,
            ..cost
        },
        layouts: Default::default(),
        sparse: None,
        build: Box::new(|| kernel),
    });
    made.into_iter().collect()
}

/// The kernel on blocks of channels, for windows over two axes.
fn in_blocks(
    op: &str,
    s: &Sizes,
    x: &[usize],
    (kind, counts): (Kind, &[usize]),
    cost: Cost,
) -> Option<Candidate> {
    let pooling = blocked::Pooling {
        window: Some(s.window.clone()).filter(|w| w.size.len() == 2)?,
        blocks: x[0] * x[1].div_ceil(BLOCK),
        means: matches!(kind, Kind::Mean).then(|| Means::new(counts)),
    };
    let kernel = move |io: &mut Io| {
        let (x, pool) = (io.input(0).slice::<f32>(), io.pool);
        pooling.run(x, io.output(0).slice(), pool);
    };
    let name = format!("{op}.f32.{}.blocks", secateur_simd::isa());
    Some(Candidate::new(name, cost, kernel).blocked(&[0], true))
}

/// The kernel of the gradient of the greatest elements.
pub(super) fn unpooling(n: &NodeRef) -> Option<Candidate> {
    let (x, dy) = (n.dims(0).filter(|x| x.len() == 4)?, n.dims(1)?);
    let s = Sizes::new(n, &x).ok()?;
    // Places in windows are counted in floats.
    let counted = s.window.taps() < 1 << 24;
    if n.dtype(0) != Some(DType::F32) || s.dims != dy || s.window.is_wide() || !counted {
        return None;
    }
    let (from, to) = (s.window.plane(), s.window.positions());
    let cost = Cost {
        flops: 3.0 * (s.channels * to * s.window.taps()) as f64,
        ..Cost::bytes(4 * s.channels * (2 * from + to))
    };
    let kernel = Unpooling {
        window: s.window,
        blocks: x[0] * x[1].div_ceil(BLOCK),
    };
    let run = move |io: &mut Io| {
        let given = (io.input(0).slice(), io.input(1).slice());
        let pool = io.pool;
        kernel.run(given, io.output(0).slice(), pool);
    };
    let name = format!("maxpoolgrad.f32.{}.blocks", secateur_simd::isa());
    Some(Candidate::new(name, cost, run).blocked(&[0, 1], true))
}

/// The kernels of the global pools.
pub(super) fn global(n: &NodeRef, mean: bool) -> Vec<Candidate> {
    let (Some(x), Some(dtype)) = (n.dims(0), n.dtype(0)) else {
        return vec![];
    };
    if x.len() < 3 {
        return vec![];
    }
    let (channels, plane) = (x[0] * x[1], x[2..].iter().product::<usize>());
    let op = n.node().op.to_lowercase();
    let cost = Cost::bytes(channels * plane * dtype.bits() / 8);
    if dtype == DType::F32 {
        let planes = Planes {
            channels,
            plane,
            mean,
        };
        let kernel = move |io: &mut Io| {
            let (x, pool) = (io.input(0).slice::<f32>(), io.pool);
            planes.run(x, io.output(0).slice(), pool);
        };
        let whole = blocked::Global {
            blocks: x[0] * x[1].div_ceil(BLOCK),
            pixels: plane,
            mean,
        };
        let in_blocks = move |io: &mut Io| {
            let (x, pool) = (io.input(0).slice::<f32>(), io.pool);
            whole.run(x, io.output(0).slice(), pool);
        };
        let name = format!("{op}.f32.{}", secateur_simd::isa());
        return vec![
            Candidate::new(format!("{name}.blocks"), cost, in_blocks).blocked(&[0], true),
            // Each plane ends in a sum over the lanes of a vector.
            Candidate::new(
                name,
                Cost {
                    flops: channels as f64,
                    efficiency: 3e-4,
                    ..cost
                },
                kernel,
            ),
        ];
    }
    let made = by_type(dtype, Whole { plane, mean })
        .flatten()
        .map(|kernel| Candidate {
            name: format!("{op}.{}", format!("{dtype:?}").to_lowercase()),
            cost,
            layouts: Default::default(),
            sparse: None,
            build: Box::new(|| kernel),
        });
    made.into_iter().collect()
}

struct Floats(Pooling);

impl Kernel for Floats {
    fn scratch(&self, threads: usize) -> usize {
        self.0.scratch(threads)
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let x = io.input(0).slice();
        let (scratch, pool) = (&mut *io.scratch, io.pool);
        // A field of its own, unlike `Io::output`.
        let y = io.outputs[0].as_mut().expect("output").slice();
        self.0.run(x, y, scratch, pool);
        Ok(())
    }
}

/// One element of the output after the other.
struct Plain {
    s: Sizes,
    kind: Kind,
    counts: Vec<usize>,
    indices: bool,
}

impl Plain {
    fn max<T: Element>(self, least: T) -> Box<dyn Kernel> {
        let Plain { s, kind, indices, .. } = self;
        let by_column = matches!(kind, Kind::Max { by_column: true });
        Box::new(move |io: &mut Io| {
            let x = io.input(0).slice::<T>();
            let best = |channel: usize, at: usize| {
                let all = &x[channel * s.window.plane()..];
                s.window.covered(at).fold(
                    (least, 0),
                    |best, (_, u)| if all[u] > best.0 { (all[u], u) } else { best },
                )
            };
            let positions = s.window.positions().max(1);
            let y = io.output(0).slice::<T>();
            y.iter_mut()
                .enumerate()
                .for_each(|(i, y)| *y = best(i / positions, i % positions).0);
            // Nobody may read them.
            if let (true, Some(Some(y))) = (indices, io.outputs.get_mut(1)) {
                let y = y.slice::<i64>();
                for (i, y) in y.iter_mut().enumerate() {
                    let place = best(i / positions, i % positions).1;
                    let place = if by_column {
                        super::transposed(place, &s.window.input)
                    } else {
                        place
                    };
                    *y = (i / positions * s.window.plane() + place) as i64;
                }
            }
        })
    }
}

impl ByType for Plain {
    type Out = Option<Box<dyn Kernel>>;

    fn real<T: Real>(self) -> Self::Out {
        if let Kind::Max { .. } = self.kind {
            return Some(self.max(T::narrow(T::Wide::neg_infinity())));
        }
        let Plain { s, counts, .. } = self;
        let counts: Vec<T::Wide> = counts.into_iter().map(NumCast::from).collect::<Option<_>>()?;
        Some(Box::new(move |io: &mut Io| {
            let x = io.input(0).slice::<T>();
            for (i, y) in io.output(0).slice::<T>().iter_mut().enumerate() {
                let (channel, at) = (i / counts.len(), i % counts.len());
                let under = s.window.covered(at);
                let values = under.map(|(_, u)| x[channel * s.window.plane() + u].wide());
                *y = T::narrow(values.fold(T::Wide::zero(), |sum, v| sum + v) / counts[at]);
            }
        }))
    }

    fn int<T: Int>(self) -> Self::Out {
        match self.kind {
            Kind::Max { .. } => Some(self.max(T::min_value())),
            Kind::Mean => None,
        }
    }
}

/// Whole channels of other types.
struct Whole {
    plane: usize,
    mean: bool,
}

impl ByType for Whole {
    type Out = Option<Box<dyn Kernel>>;

    fn real<T: Real>(self) -> Self::Out {
        let Whole { plane, mean } = self;
        let count: T::Wide = NumCast::from(plane)?;
        Some(Box::new(move |io: &mut Io| {
            let x = io.input(0).slice::<T>();
            for (i, y) in io.output(0).slice::<T>().iter_mut().enumerate() {
                let all = x[i * plane..(i + 1) * plane].iter().map(|v| v.wide());
                *y = T::narrow(match mean {
                    true => all.fold(T::Wide::zero(), |sum, v| sum + v) / count,
                    false => all.fold(T::Wide::neg_infinity(), |best, v| if v > best { v } else { best }),
                });
            }
        }))
    }

    fn int<T: Int>(self) -> Self::Out {
        None
    }
}
