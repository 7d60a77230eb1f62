//! Weights that are new in each run: packed, or taken to the points of Winograd's method, into scratch memory, by all
//! threads.

use std::marker::PhantomData;
use std::ops::Range;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::direct::{depth, parts, units};
use super::filters::matrix;
use super::minimal::{F2, F4, Minimal};
use super::tile::width;
use super::{BLOCK, Convolution, Depthwise, Direct, Filters, Panels, Winograd};
use crate::cpu::conv::{Images, Shape};
use crate::cpu::gemm::{Scratch, balanced};
use crate::cpu::{Io, Kernel, Pool, moves};
use crate::ops::OpError;

/// Floats of a run of weights that make a task.
const RUN: usize = 256;
/// Runs of weights that make a task.
const RUNS: usize = 16;
/// No place.
const NOWHERE: (usize, usize) = (usize::MAX, 0);

/// Where the weight of an output channel, an input channel and an element of the window stands.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Floats from group to group, from output to output and from input to input.
    pub(super) steps: [usize; 3],
    /// From there, the elements of the window.
    pub(super) places: Vec<usize>,
    /// Floats from the first to behind the last element of the window, used or not.
    pub(super) whole: usize,
}

impl Origin {
    /// Weights `[groups * outputs, inputs, window]`.
    pub fn new(shape: &Shape) -> Origin {
        let taps = shape.window.taps();
        Origin {
            steps: [shape.outputs * shape.depth(), shape.depth(), taps],
            places: (0..taps).collect(),
            whole: taps,
        }
    }

    /// Runs of weights of one output that stand one behind the other: how many, how far apart, how long.
    fn runs(&self, shape: &Shape) -> [usize; 3] {
        match self.steps[2] == self.whole {
            true => [1, 0, shape.inputs * self.whole],
            false => [shape.inputs, self.steps[2], self.whole],
        }
    }
}

/// How weights are packed.
enum Pack {
    /// As [`Panels`].
    Panels(Squares),
    /// As [`Filters`], by tiles of 4 × 4 or 2 × 2.
    Points(bool),
    /// As [`Depthwise`] takes them.
    Lanes,
}

/// Where the weights of one output go, and what is zero.
struct Squares {
    /// For each float of each run, where the first panel's row begins and how far panels are apart.
    to: Vec<(usize, usize)>,
    /// The same for rows of channels behind the last.
    zeros: Vec<(usize, usize)>,
    runs: [usize; 3],
    /// Runs and floats of them that make a task.
    pieces: Vec<[Range<usize>; 2]>,
}

impl Squares {
    fn new(shape: &Shape, origin: &Origin) -> Squares {
        let (depth, taps, panels) = (depth(shape), shape.window.taps(), shape.outputs.div_ceil(width()));
        let runs = origin.runs(shape);
        let mut to = vec![NOWHERE; runs[0] * runs[2]];
        let mut zeros = vec![];
        for part in parts(shape) {
            let (first, pitch) = (
                part.start * depth * panels * width(),
                part.len() * depth * width(),
            );
            for unit in part.clone() {
                for lane in 0..depth {
                    let (channel, tap) = (unit / taps * depth + lane, unit % taps);
                    let row = (first + ((unit - part.start) * depth + lane) * width(), pitch);
                    match channel < shape.inputs {
                        true => to[channel * origin.whole + origin.places[tap]] = row,
                        false => zeros.push(row),
                    }
                }
            }
        }
        let cut = |len, most| balanced(len, most).filter(|r| !r.is_empty());
        let piece = |a| cut(runs[2], RUN).map(move |b| [Range::clone(&a), b]);
        let pieces = cut(runs[0], RUNS).flat_map(piece).collect();
        Squares {
            to,
            zeros,
            runs,
            pieces,
        }
    }
}

/// A convolution whose weights are packed at the start of each run.
struct Part {
    kernel: Convolution,
    shape: Shape,
    origin: Origin,
    pack: Pack,
}

impl Part {
    fn new(kernel: Convolution, shape: Shape, origin: Origin) -> Part {
        let pack = match &kernel {
            Convolution::Winograd(k) => Pack::Points(k.four()),
            Convolution::Depthwise(_) => Pack::Lanes,
            _ => Pack::Panels(Squares::new(&shape, &origin)),
        };
        Part {
            kernel,
            shape,
            origin,
            pack,
        }
    }

    /// Floats of packed weights.
    fn floats(&self) -> usize {
        let s = &self.shape;
        let floats = match self.pack {
            Pack::Panels(_) => Panels::len(s),
            Pack::Points(four) => Filters::len(s, if four { 36 } else { 16 }),
            Pack::Lanes => s.groups.next_multiple_of(BLOCK) * s.window.taps(),
        };
        floats.next_multiple_of(BLOCK)
    }

    /// # Safety
    ///
    /// All weights are readable at `w`, and [`floats`](Part::floats) are writable at `to`.
    unsafe fn pack(&self, w: Weights, to: Scratch, pool: &Pool) {
        let s = &self.shape;
        let blocks = s.outputs.div_ceil(BLOCK);
        match &self.pack {
            Pack::Panels(squares) => {
                let pieces = squares.pieces.len();
                pool.run(s.groups * blocks * pieces, &|task| {
                    dispatch(Turn {
                        part: self,
                        squares,
                        w,
                        to: to.start(),
                        block: task / pieces,
                        piece: task % pieces,
                    });
                });
            }
            Pack::Points(four) => {
                let inputs = s.inputs.div_ceil(BLOCK);
                pool.run(blocks * inputs, &|task| {
                    let at = At {
                        part: self,
                        w,
                        to: to.start(),
                        block: task / inputs,
                        inputs: task % inputs,
                    };
                    match four {
                        true => dispatch(ToPoints::<F4, 6, 4>(at, PhantomData)),
                        false => dispatch(ToPoints::<F2, 4, 2>(at, PhantomData)),
                    }
                });
            }
            Pack::Lanes => {
                let taps = s.window.taps();
                for at in 0..self.floats() / BLOCK {
                    let (block, tap) = (at / taps, at % taps);
                    for lane in 0..BLOCK {
                        let channel = block * BLOCK + lane;
                        // SAFETY: as the caller says.
                        unsafe {
                            *to.start().add(at * BLOCK + lane) = match channel < s.groups {
                                true => *w.0.add(channel * self.origin.whole + self.origin.places[tap]),
                                false => 0.0,
                            };
                        }
                    }
                }
            }
        }
    }
}

/// Weights, as they come.
#[derive(Clone, Copy)]
struct Weights(*const f32);

// SAFETY: nobody writes to them while a convolution runs.
unsafe impl Sync for Weights {}

/// Convolutions whose weights, input 1, are new in each run, and so is the bias.
pub struct Fresh {
    parts: Vec<Part>,
    bias: Option<usize>,
    residual: bool,
    /// Whether some pixels are none of any part's.
    gaps: bool,
}

impl Fresh {
    /// As it is defined.
    pub fn direct(shape: Shape) -> Fresh {
        let origin = Origin::new(&shape);
        let kernel = Convolution::Direct(Box::new(Direct::new(shape.clone(), None)));
        Fresh::of(vec![Part::new(kernel, shape, origin)])
    }

    /// By Winograd's method, with weights from `origin`.
    pub fn winograd(shape: Shape, origin: Origin, four: bool) -> Fresh {
        let kernel = Convolution::Winograd(Winograd::new(shape.clone(), None, four));
        Fresh::of(vec![Part::new(kernel, shape, origin)])
    }

    /// Each channel by itself, with weights from `origin`.
    pub fn depthwise(shape: Shape, origin: Origin) -> Fresh {
        let kernel = Convolution::Depthwise(Depthwise::new(shape.clone(), None));
        Fresh::of(vec![Part::new(kernel, shape, origin)])
    }

    /// A convolution for each phase.
    pub fn phases(all: impl IntoIterator<Item = (Convolution, Shape, Origin)>) -> Fresh {
        let part = |(kernel, shape, origin)| Part::new(kernel, shape, origin);
        Fresh::of(all.into_iter().map(part).collect())
    }

    fn of(parts: Vec<Part>) -> Fresh {
        Fresh {
            parts,
            bias: None,
            residual: false,
            gaps: false,
        }
    }

    /// The same where pixels that no part computes become zero.
    pub fn with_gaps(self) -> Fresh {
        Fresh { gaps: true, ..self }
    }

    /// The same with the bias in this input, and perhaps a residual in input 3.
    pub fn with(self, bias: Option<usize>, residual: bool) -> Fresh {
        Fresh {
            bias,
            residual,
            ..self
        }
    }

    /// Floats of the bias, up to whole panels.
    fn biases(&self) -> usize {
        let outputs = self.parts.first().map_or(0, |p| p.shape.groups * p.shape.outputs);
        self.bias.map_or(0, |_| outputs.next_multiple_of(2 * BLOCK))
    }

    fn packed(&self) -> usize {
        self.biases() + self.parts.iter().map(Part::floats).sum::<usize>()
    }
}

impl Kernel for Fresh {
    fn scratch(&self, threads: usize) -> usize {
        let each = self.parts.iter().map(|p| p.kernel.scratch(threads));
        self.packed() * size_of::<f32>() + each.max().unwrap_or(0)
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let (x, w) = (io.input(0).ptr(), Weights(io.input(1).ptr()));
        if self.gaps {
            let pool = io.pool;
            moves::fill(pool, io.output(0).bytes(), &[0]);
        }
        let null = std::ptr::null();
        let residual = if self.residual { io.input(3).ptr() } else { null };
        let mut images = Images {
            x,
            w: null,
            bias: null,
            residual,
            y: io.output(0).ptr(),
        };
        let given: Option<&[f32]> = self.bias.map(|i| io.input(i).slice());
        let (head, rest) = io.scratch.split_at_mut(self.packed() * size_of::<f32>());
        let memory = Scratch::new(head);
        if let Some(given) = given {
            // SAFETY: this is the beginning of the scratch memory, which is aligned.
            let bias = unsafe { std::slice::from_raw_parts_mut(memory.start(), self.biases()) };
            let (to, tail) = bias.split_at_mut(given.len());
            to.copy_from_slice(given);
            tail.fill(0.0);
            images.bias = memory.start();
        }
        let mut at = memory.behind(self.biases());
        for part in &self.parts {
            images.w = at.start();
            // SAFETY: the shapes are those of the inputs and the output, which nobody else writes to; the scratch memory is
            // as large as was asked for.
            unsafe {
                part.pack(w, at, io.pool);
                part.kernel.run(images, rest, io.pool);
            }
            at = at.behind(part.floats());
        }
        Ok(())
    }
}

/// Packs a piece of the weights of a block of outputs.
struct Turn<'a> {
    part: &'a Part,
    squares: &'a Squares,
    w: Weights,
    to: *mut f32,
    /// The block among those of all groups.
    block: usize,
    piece: usize,
}

impl Vectorised for Turn<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (shape, origin, squares) = (&self.part.shape, &self.part.origin, self.squares);
        let blocks = shape.outputs.div_ceil(BLOCK);
        let (group, first) = (self.block / blocks, self.block % blocks * BLOCK);
        let panels = shape.outputs.div_ceil(width());
        let all = units(shape) * depth(shape) * panels * width();
        let to = self.to.wrapping_add(group * all + first % width());
        let panel = first / width();
        let from = self.w.0.wrapping_add(group * origin.steps[0]);
        let [runs, floats] = squares.pieces[self.piece].clone();
        for lane in (0..BLOCK).step_by(S::LANES) {
            let live = shape.outputs.saturating_sub(first + lane).min(S::LANES);
            for run in runs.clone() {
                let from = from.wrapping_add((first + lane) * origin.steps[1] + run * squares.runs[1]);
                for float in floats.clone().step_by(S::LANES) {
                    let n = S::LANES.min(floats.end - float);
                    // SAFETY: `Part::pack` is promised the weights.
                    let square = unsafe { turned(s, from.wrapping_add(float), origin.steps[1], live, n) };
                    let places = &squares.to[run * squares.runs[2] + float..][..n];
                    for (i, &(row, pitch)) in places.iter().enumerate() {
                        if row != NOWHERE.0 {
                            // SAFETY: the row is one of the panel.
                            unsafe { s.store(to.wrapping_add(row + panel * pitch + lane), square[i]) };
                        }
                    }
                }
            }
            for &(row, pitch) in squares.zeros.iter().filter(|_| self.piece == 0) {
                // SAFETY: as above.
                unsafe { s.store(to.wrapping_add(row + panel * pitch + lane), s.splat(0.0)) };
            }
        }
    }
}

/// `n` floats of each of `live` rows that are `step` apart, turned: vector `i` has float `i` of each row, and zeros behind.
///
/// # Safety
///
/// The floats are readable; `n` and `live` are at most the number of lanes.
#[inline(always)]
unsafe fn turned<S: Simd>(s: S, from: *const f32, step: usize, live: usize, n: usize) -> [S::F32; 16] {
    let mut square = [s.splat(0.0); 16];
    for (i, row) in square.iter_mut().enumerate().take(live) {
        let from = from.wrapping_add(i * step);
        // SAFETY: as the caller says.
        *row = unsafe {
            match n == S::LANES {
                true => s.load(from),
                false => s.load_first(from, n),
            }
        };
    }
    s.turned(square)
}

/// A block of outputs and a block of inputs.
struct At<'a> {
    part: &'a Part,
    w: Weights,
    to: *mut f32,
    block: usize,
    inputs: usize,
}

struct ToPoints<'a, F, const N: usize, const M: usize>(At<'a>, PhantomData<F>);

impl<F: Minimal<N, M>, const N: usize, const M: usize> Vectorised for ToPoints<'_, F, N, M> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let At {
            part,
            w,
            to,
            block,
            inputs,
        } = self.0;
        let (shape, origin) = (&part.shape, &part.origin);
        let (first, all, width) = (block * BLOCK, shape.inputs.next_multiple_of(BLOCK), width());
        let to = to.wrapping_add(first / width * N * N * all * width + first % width);
        let mut rows = [[s.splat(0.0); 3]; N];
        for (row, k) in rows.iter_mut().zip(matrix(F::POINTS)) {
            for (x, k) in row.iter_mut().zip(k) {
                *x = s.splat(k as f32);
            }
        }
        for lane in (0..BLOCK).step_by(S::LANES) {
            let live = shape.outputs.saturating_sub(first + lane).min(S::LANES);
            for channel in inputs * BLOCK..(inputs + 1) * BLOCK {
                let mut g = [s.splat(0.0); 9];
                let from =
                    w.0.wrapping_add((first + lane) * origin.steps[1] + channel * origin.steps[2]);
                for at in (0..9).step_by(S::LANES).take_while(|_| channel < shape.inputs) {
                    let n = S::LANES.min(9 - at);
                    // SAFETY: there are 9 weights for each output and input.
                    let square = unsafe { turned(s, from.wrapping_add(at), origin.steps[1], live, n) };
                    g[at..at + n].copy_from_slice(&square[..n]);
                }
                let mut own = [s.splat(0.0); 9];
                for tap in 0..9 {
                    own[tap] = g[origin.places[tap]];
                }
                let to = to.wrapping_add(channel * width + lane);
                for y in 0..N {
                    let mut half = [s.splat(0.0); 3];
                    for x in 0..3 {
                        let sum = s.fma(rows[y][1], own[3 + x], s.mul(rows[y][0], own[x]));
                        half[x] = s.fma(rows[y][2], own[6 + x], sum);
                    }
                    for (x, row) in rows.iter().enumerate() {
                        let sum = s.fma(row[1], half[1], s.mul(row[0], half[0]));
                        let sum = s.fma(row[2], half[2], sum);
                        // SAFETY: each point has a row for each channel.
                        unsafe { s.store(to.wrapping_add((y * N + x) * all * width), sum) };
                    }
                }
            }
        }
    }
}
