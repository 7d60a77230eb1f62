//! Kernels of convolutions.

use std::sync::Arc;

use num_traits::Zero;

use super::{Sizes, sizes};
use crate::cpu::blocked::{self, BLOCK, Fresh, Origin};
use crate::cpu::conv::{Convolution, Depthwise, Images, Shape, Weights};
use crate::cpu::gemm::{Bands, Floats, Strides, tile_size};
use crate::cpu::number::{ByType, Int, Real, by_type};
use crate::cpu::sparse::{Code, Matrix, Plan, Product};
use crate::cpu::{Candidate, Cost, Io, Kernel, Order, Post};
use crate::ir::DType;
use crate::ops::{NodeRef, OpError};

/// The kernels for `post(Conv + residual)`, the residual being input 3.
pub(super) fn candidates(n: &NodeRef, post: Post) -> Vec<Candidate> {
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
        post,
    };
    let count = |d: &[usize]| d.iter().map(|&n| n as f64).product::<f64>();
    let elements = count(&x) + count(&w) + count(&y);
    let after = post.flops() * count(&y);
    let cost = |bytes: usize, efficiency| Cost {
        flops: 2.0 * shape.work() + after,
        bytes: elements * bytes as f64,
        efficiency,
    };
    if n.dtype(0) == Some(DType::F32) && !s.window.is_wide() {
        return floats(n, shape.clone(), cost);
    }
    if !post.is_none() || n.has(3) {
        return vec![];
    }
    let plain = n.dtype(0).and_then(|dtype| {
        let kernel = by_type(dtype, Plain { s, bias: n.has(2) })??;
        Some(Candidate {
            name: format!("conv.{}", format!("{dtype:?}").to_lowercase()),
            cost: cost(dtype.bits() / 8, 0.005),
            layouts: Default::default(),
            sparse: None,
            build: Box::new(|| kernel),
        })
    });
    plain.into_iter().collect()
}

fn floats(n: &NodeRef, shape: Shape, cost: impl Fn(usize, f64) -> Cost) -> Vec<Candidate> {
    let mut all = in_blocks(n, &shape);
    let (isa, extra) = (
        secateur_simd::isa(),
        Extra {
            bias: n.has(2),
            residual: n.has(3),
        },
    );
    if let Some(kernel) = Depthwise::new(shape.clone()) {
        let kernel = Single { kernel, extra };
        all.push(Candidate::new(
            format!("conv.f32.{isa}.depthwise"),
            cost(4, 0.06),
            kernel,
        ));
        return all;
    }
    let size = (shape.outputs, shape.depth());
    let strides = Strides::rows(size.1);
    let groups = shape.groups;
    let weights = n.packs(1, Bands::order(groups, size, strides), move |w| {
        Bands::new(w, groups, size, strides)
    });
    // Vectors hold neighbouring pixels.
    let (lanes, pixels) = (tile_size().1 / 2, shape.window.positions().max(1));
    let filled = pixels as f64 / pixels.next_multiple_of(lanes) as f64;
    let rows = cost(4, 0.6);
    all.push(Candidate::later(
        format!("conv.f32.{isa}"),
        Cost {
            flops: rows.flops / filled,
            ..rows
        },
        move || General {
            kernel: Convolution::new(shape, weights.map_or(Weights::Plain, |w| Weights::Packed(w()))),
            extra,
        },
    ));
    all
}

/// The kernels on blocks of channels.
fn in_blocks(n: &NodeRef, shape: &Shape) -> Vec<Candidate> {
    if n.konst(1).is_none() || (n.has(2) && n.konst(2).is_none()) {
        return fresh(n, shape);
    }
    let mut all = vec![];
    let s = shape.clone();
    if blocked::Depthwise::fits(shape) {
        let w = n.packs(1, blocked::Depthwise::order(shape), move |w| {
            blocked::Depthwise::pack(w, &s)
        });
        all.extend(w.and_then(|w| {
            blocks(n, shape, dense(shape, "depthwise"), |s| {
                blocked::Convolution::Depthwise(blocked::Depthwise::new(s, Some(w())))
            })
        }));
        return all;
    }
    if blocked::Direct::fits(shape) {
        let w = n.packs(1, blocked::Panels::order(shape), move |w| {
            blocked::Panels::new(w, &s)
        });
        all.extend(w.and_then(|w| {
            blocks(n, shape, dense(shape, "direct"), |s| {
                blocked::Convolution::Direct(Box::new(blocked::Direct::new(s, Some(w()))))
            })
        }));
    }
    for four in [false, true]
        .into_iter()
        .filter(|_| blocked::Winograd::fits(shape))
    {
        let (s, variant) = (shape.clone(), if four { "winograd4" } else { "winograd2" });
        let w = n.packs(1, blocked::Filters::order(shape, four), move |w| {
            blocked::Filters::new(w, &s, four)
        });
        all.extend(w.and_then(|w| {
            blocks(n, shape, dense(shape, variant), move |s| {
                blocked::Convolution::Winograd(blocked::Winograd::new(s, Some(w()), four))
            })
        }));
    }
    all.extend(sparse(n, shape));
    all
}

/// The kernels that pack the weights in each run.
fn fresh(n: &NodeRef, shape: &Shape) -> Vec<Candidate> {
    let (bias, residual) = (n.has(2).then_some(2), n.has(3));
    let made = |variant: &str, build: fn(Shape) -> Fresh| {
        let (shown, cost, rows) = dense(shape, variant);
        let s = shape.clone();
        let name = format!("conv.f32.{}.blocks.{shown}.fresh", secateur_simd::isa());
        Candidate::later(name, packing(cost, shape), move || build(s).with(bias, residual))
            .blocked(if rows { &[3] } else { &[0, 3] }, true)
    };
    if blocked::Depthwise::fits(shape) {
        return vec![made("depthwise", |s| {
            Fresh::depthwise(s.clone(), Origin::new(&s))
        })];
    }
    let mut all = vec![];
    if blocked::Direct::fits(shape) {
        all.push(made("direct", Fresh::direct));
    }
    if blocked::Winograd::fits(shape) {
        all.push(made("winograd2", |s| {
            Fresh::winograd(s.clone(), Origin::new(&s), false)
        }));
        all.push(made("winograd4", |s| {
            Fresh::winograd(s.clone(), Origin::new(&s), true)
        }));
    }
    all
}

/// The same with weights packed in each run: read and written once.
pub(crate) fn packing(cost: Cost, s: &Shape) -> Cost {
    Cost {
        bytes: cost.bytes + (8 * s.groups * s.outputs * s.depth()) as f64,
        ..cost
    }
}

/// The kernel that leaves out weights that are zero.
fn sparse(n: &NodeRef, shape: &Shape) -> Option<Candidate> {
    let matrix = Matrix {
        taps: shape.window.taps(),
        ..Matrix::rows(shape.groups * shape.outputs, shape.depth())
    };
    let plan = Plan::conv(shape, &n.zeros(1, matrix)?, None)?;
    let cut = plan.cut().clone();
    let w = n.packs(1, cut.order(), move |w| Code::new(w, &cut))?;
    let kind = ("sparse", plan.cost(), Plan::reads_rows(shape));
    let sparsity = plan.sparsity();
    let made = blocks(n, shape, kind, |_| {
        blocked::Convolution::Sparse(Box::new(Product::new(plan, w())))
    });
    made.map(|c| c.sparse(sparsity))
}

/// Name, cost, and whether it reads images row by row.
type Kind<'a> = (&'a str, Cost, bool);

fn dense<'a>(shape: &Shape, variant: &'a str) -> Kind<'a> {
    let rows = variant == "direct" && blocked::Direct::reads_rows(shape);
    let shown = if rows { "rows" } else { variant };
    (shown, cost_in_blocks(shape, variant), rows)
}

/// Operations in the time that a byte of output takes beyond those that the second cache takes up.
const WAITED: f64 = 6.0;
const NEAR_BYTES: f64 = 262_144.0;

/// What a convolution on blocks costs: multiply-adds, bytes of weights, and the share of the peak that it reaches.
pub(crate) fn cost_in_blocks(s: &Shape, variant: &str) -> Cost {
    let whole = |c: usize| c.next_multiple_of(BLOCK) as f64;
    let (inputs, outputs) = (s.inputs * s.groups, s.outputs * s.groups);
    let rows = variant == "direct" && blocked::Direct::reads_rows(s);
    let (inside, read) = match rows {
        true => (s.inputs as f64, inputs as f64),
        false => (whole(s.inputs), whole(inputs)),
    };
    let pixels = read * s.window.plane() as f64 + whole(outputs) * s.window.positions() as f64;
    let (macs, weights, efficiency) = match variant {
        "winograd2" | "winograd4" => {
            let (macs, weights) = blocked::Winograd::work(s, variant == "winograd4");
            (macs, weights, 0.75)
        }
        "depthwise" => (s.work() / outputs as f64 * whole(outputs), 0.0, 0.25),
        _ => {
            let each = (s.groups * s.window.taps()) as f64 * inside * whole(s.outputs);
            ((s.images * s.window.positions()) as f64 * each, 4.0 * each, 0.9)
        }
    };
    let elements = s.images as f64 * whole(outputs) * s.window.positions() as f64;
    let waited = match variant {
        "direct" => WAITED * (4.0 * elements - NEAR_BYTES).max(0.0),
        _ => 0.0,
    };
    Cost {
        flops: 2.0 * macs + s.post.flops() * elements + waited,
        bytes: 2.0 * s.images as f64 * pixels + 1.3 * weights,
        efficiency,
    }
}

fn blocks(
    n: &NodeRef,
    shape: &Shape,
    (shown, cost, rows): Kind,
    build: impl FnOnce(Shape) -> blocked::Convolution + Send + 'static,
) -> Option<Candidate> {
    let bias = bias(n, 2)?;
    let (shape, residual) = (shape.clone(), n.has(3));
    let name = format!("conv.f32.{}.blocks.{shown}", secateur_simd::isa());
    let made = Candidate::later(name, cost, move || InBlocks {
        kernel: build(shape),
        bias: bias(),
        residual,
    });
    Some(made.blocked(if rows { &[3] } else { &[0, 3] }, true))
}

/// What packs input `i`, the bias, if there is one; `None` where it is not known.
pub(crate) fn bias(n: &NodeRef, i: usize) -> Option<impl FnOnce() -> Option<Arc<Floats>> + Send + 'static> {
    let pack = match n.has(i) {
        true => {
            let len = n.konst(i)?.len().next_multiple_of(2 * BLOCK);
            let order = Order::floats("whole panels", len);
            Some(n.packs(i, order, |b| Floats::whole(b, 2 * BLOCK))?)
        }
        false => None,
    };
    Some(move || pack.map(|pack| pack()))
}

/// A convolution on blocks of channels, with its bias and perhaps a residual, input 3.
pub(crate) struct InBlocks {
    pub(crate) kernel: blocked::Convolution,
    pub(crate) bias: Option<Arc<Floats>>,
    pub(crate) residual: bool,
}

impl Kernel for InBlocks {
    fn reads(&self, i: usize) -> bool {
        i == 0 || (self.residual && i == 3)
    }

    fn scratch(&self, threads: usize) -> usize {
        self.kernel.scratch(threads)
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let images = Images {
            x: io.input(0).ptr(),
            w: std::ptr::null(),
            bias: self
                .bias
                .as_ref()
                .map_or(std::ptr::null(), |b| b.slice().as_ptr()),
            residual: if self.residual {
                io.input(3).ptr()
            } else {
                std::ptr::null()
            },
            y: io.output(0).ptr(),
        };
        // SAFETY: the shape is that of the inputs and the output, which nobody else writes to.
        unsafe { self.kernel.run(images, io.scratch, io.pool) };
        Ok(())
    }
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
            w: std::ptr::null(),
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
