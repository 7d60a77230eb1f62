//! Kernels of convolutions.

use std::sync::Arc;

use num_traits::Zero;

use super::{Sizes, sizes};
use crate::cpu::conv::{Convolution, Depthwise, Images, Shape, Weights};
use crate::cpu::gemm::{Bands, Strides};
use crate::cpu::number::{ByType, Int, Real, by_type};
use crate::cpu::{Act, Candidate, Cost, Io, Kernel};
use crate::ir::DType;
use crate::ops::{NodeRef, OpError};

/// The kernels for `act(Conv + residual)`, the residual being input 3.
pub(super) fn candidates(n: &NodeRef, act: Act) -> Vec<Candidate> {
    let (Some(x), Some(w), Some(y)) = (n.dims(0), n.dims(1), n.out_dims(0)) else {
        return vec![];
    };
    let Ok(s) = sizes(n, 1, &x, &w) else { return vec![] };
    let broadcast = n.has(3) && n.dims(3).as_ref() != Some(&y);
    if y[2..] != s.window.output || broadcast {
        return vec![];
    }
    let shape = Shape {
        images: s.images,
        groups: s.groups,
        inputs: s.inputs,
        outputs: s.outputs,
        window: s.window.clone(),
        act,
    };
    let count = |d: &[usize]| d.iter().map(|&n| n as f64).product::<f64>();
    let elements = count(&x) + count(&w) + count(&y);
    let cost = |bytes: usize, efficiency| Cost {
        flops: 2.0 * shape.work(),
        bytes: elements * bytes as f64,
        efficiency,
    };
    if n.dtype(0) == Some(DType::F32) && !s.window.is_wide() {
        return floats(n, shape.clone(), cost);
    }
    if act != Act::None || n.has(3) {
        return vec![];
    }
    let plain = n.dtype(0).and_then(|dtype| {
        let kernel = by_type(dtype, Plain { s, bias: n.has(2) })??;
        Some(Candidate {
            name: format!("conv.{}", format!("{dtype:?}").to_lowercase()),
            cost: cost(dtype.bits() / 8, 0.005),
            build: Box::new(|| kernel),
        })
    });
    plain.into_iter().collect()
}

fn floats(n: &NodeRef, shape: Shape, cost: impl Fn(usize, f64) -> Cost) -> Vec<Candidate> {
    let (isa, extra) = (
        secateur_simd::isa(),
        Extra {
            bias: n.has(2),
            residual: n.has(3),
        },
    );
    if let Some(kernel) = Depthwise::new(shape.clone()) {
        let kernel = Single { kernel, extra };
        return vec![Candidate::new(
            format!("conv.f32.{isa}.depthwise"),
            cost(4, 0.15),
            kernel,
        )];
    }
    let size = (shape.outputs, shape.depth());
    let weights = n.konst(1).map(|t| {
        n.packed(
            1,
            &format!(
                "{} {}",
                shape.groups,
                Bands::layout(size.0, size.1, Strides::rows(size.1))
            ),
            || {
                let data = t.elements::<f32>().unwrap_or_default();
                Bands::new(&data, shape.groups, size, Strides::rows(size.1))
            },
        )
    });
    let kernel = General {
        kernel: Convolution::new(
            shape,
            weights.map_or(Weights::Plain, |w: Arc<Bands>| Weights::Packed(w)),
        ),
        extra,
    };
    vec![Candidate::new(format!("conv.f32.{isa}"), cost(4, 0.75), kernel)]
}

/// Which inputs there are beyond image and weights.
#[derive(Clone, Copy)]
struct Extra {
    bias: bool,
    residual: bool,
}

impl Extra {
    fn images(self, io: &mut Io) -> Images {
        let given = |there: bool, i: usize| {
            if there {
                io.input(i).ptr()
            } else {
                std::ptr::null()
            }
        };
        Images {
            x: io.input(0).ptr(),
            bias: given(self.bias, 2),
            residual: given(self.residual, 3),
            y: io.output(0).ptr(),
        }
    }
}

struct General {
    kernel: Convolution,
    extra: Extra,
}

impl Kernel for General {
    fn reads(&self, i: usize) -> bool {
        i != 1 || self.kernel.packs()
    }

    fn scratch(&self, threads: usize) -> usize {
        self.kernel.scratch(threads)
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let images = self.extra.images(io);
        let w: &[f32] = if self.kernel.packs() {
            io.input(1).slice()
        } else {
            &[]
        };
        // SAFETY: the shape is that of the inputs and the output, which nobody else writes to.
        unsafe { self.kernel.run(images, w, io.scratch, io.pool) };
        Ok(())
    }
}

struct Single {
    kernel: Depthwise,
    extra: Extra,
}

impl Kernel for Single {
    fn scratch(&self, threads: usize) -> usize {
        self.kernel.scratch(threads)
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let (images, w) = (self.extra.images(io), io.input(1).slice());
        // SAFETY: as above.
        unsafe { self.kernel.run(images, w, io.scratch, io.pool) };
        Ok(())
    }
}

/// Other element types, one element of the output after the other.
struct Plain {
    s: Sizes,
    bias: bool,
}

impl ByType for Plain {
    type Out = Option<Box<dyn Kernel>>;

    fn real<T: Real>(self) -> Self::Out {
        let Plain { s, bias } = self;
        Some(Box::new(move |io: &mut Io| {
            let (x, w): (&[T], &[T]) = (io.input(0).slice(), io.input(1).slice());
            let bias: Option<&[T]> = bias.then(|| io.input(2).slice());
            let (pool, taps) = (io.pool, s.window.taps());
            let y = std::sync::Mutex::new(
                io.output(0)
                    .slice::<T>()
                    .chunks_mut(s.window.positions().max(1))
                    .enumerate(),
            );
            pool.run(s.images * s.groups * s.outputs, &|_| {
                let next = y.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
                let Some((channel, y)) = next else { return };
                let (o, place) = (channel % (s.groups * s.outputs), channel / s.outputs * s.inputs);
                for (at, y) in y.iter_mut().enumerate() {
                    let mut sum = bias.map_or(T::Wide::zero(), |b| b[o].wide());
                    for (tap, under) in s.window.covered(at) {
                        for c in 0..s.inputs {
                            let weight = w[(o * s.inputs + c) * taps + tap].wide();
                            sum = sum + x[(place + c) * s.window.plane() + under].wide() * weight;
                        }
                    }
                    *y = T::narrow(sum);
                }
            });
        }))
    }

    fn int<T: Int>(self) -> Self::Out {
        None
    }
}
