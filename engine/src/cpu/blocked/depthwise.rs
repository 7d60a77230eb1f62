//! Convolutions of each channel by itself.

use std::ops::Range;
use std::sync::Arc;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::{BLOCK, clear_tail};
use crate::cpu::conv::{Images, Shape};
use crate::cpu::gemm::Floats;
use crate::cpu::{Ending, Order, Pool};

/// Multiply-adds that make a task worth handing to another thread.
const TASK: usize = 1 << 18;

/// A convolution whose groups have one input and one output channel, over two axes.
pub struct Depthwise {
    shape: Shape,
    weights: Option<Arc<Floats>>,
}

impl Depthwise {
    /// Whether there is such a convolution.
    pub fn fits(shape: &Shape) -> bool {
        shape.inputs == 1 && shape.outputs == 1 && shape.window.size.len() == 2
    }

    /// The order of weights.
    pub fn order(shape: &Shape) -> Order {
        let taps = shape.window.taps();
        let name = format!("depthwise {}x{taps}", shape.groups);
        Order::floats(name, shape.groups.next_multiple_of(BLOCK) * taps)
    }

    /// Weights `[channels, 1, window]` as `[channels / 16, window, 16]`.
    pub fn pack(w: &[f32], shape: &Shape) -> Floats {
        let taps = shape.window.taps();
        let mut data = Floats::zeros(shape.groups.next_multiple_of(BLOCK) * taps);
        let to = data.slice_mut();
        for (channel, w) in w.chunks_exact(taps.max(1)).enumerate().take(shape.groups) {
            for (tap, &w) in w.iter().enumerate() {
                to[(channel / BLOCK * taps + tap) * BLOCK + channel % BLOCK] = w;
            }
        }
        data
    }

    /// A convolution of a shape that [`fits`](Depthwise::fits) with [packed](Depthwise::pack) weights, or else with those that
    /// come with each run.
    pub fn new(shape: Shape, weights: Option<Arc<Floats>>) -> Depthwise {
        Depthwise { shape, weights }
    }

    /// What is convolved.
    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Computes the output. All stands in blocks of channels; the bias has zeros up to a whole number of blocks.
    ///
    /// # Safety
    ///
    /// All that [`Shape`] describes is readable, the output writable, and nobody else writes to them.
    pub unsafe fn run(&self, x: Images, pool: &Pool) {
        let s = &self.shape;
        let (rows, blocks) = (s.window.output[0], s.groups.div_ceil(BLOCK));
        let row = s.window.output[1] * s.window.taps() * BLOCK;
        let grain = TASK.div_ceil(row.max(1)).min(rows.max(1));
        let pieces = rows.div_ceil(grain);
        pool.run(s.images * blocks * pieces, &|task| {
            let (place, piece) = (task / pieces, task % pieces);
            let rows = piece * grain..rows.min((piece + 1) * grain);
            dispatch(Rows {
                kernel: self,
                x,
                place,
                block: place % blocks,
                rows,
            });
        });
    }
}

struct Rows<'a> {
    kernel: &'a Depthwise,
    x: Images,
    /// Image and block.
    place: usize,
    block: usize,
    rows: Range<usize>,
}

/// What one row of the output is computed from.
#[derive(Clone, Copy)]
struct Row {
    /// The image's first row, before the padding, of the first element of the window.
    top: isize,
    /// Rows of the window that lie in the image.
    down: (usize, usize),
    /// The lanes in question.
    lane: usize,
}

/// The memory of one block of channels.
#[derive(Clone, Copy)]
struct Block {
    x: *const f32,
    w: *const f32,
    y: *mut f32,
    residual: *const f32,
    end: Ending,
}

impl Vectorised for Rows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let shape = &self.kernel.shape;
        let w = &shape.window;
        let (from, to) = (self.place * w.plane() * BLOCK, self.place * w.positions() * BLOCK);
        let residual = match self.x.residual.is_null() {
            true => self.x.residual,
            false => self.x.residual.wrapping_add(to),
        };
        let weights = self.kernel.weights.as_ref();
        let weights = weights.map_or(self.x.w, |w| w.slice().as_ptr());
        let memory = Block {
            x: self.x.x.wrapping_add(from),
            w: weights.wrapping_add(self.block * w.taps() * BLOCK),
            y: self.x.y.wrapping_add(to),
            residual,
            end: shape.post.ending().unwrap_or(Ending::NONE),
        };
        for at in self.rows.clone() {
            let top = (at * w.strides[0]) as isize - w.pads[0] as isize;
            let inside = |k: usize| {
                let place = top + (k * w.dilations[0]) as isize;
                place >= 0 && (place as usize) < w.input[0]
            };
            let first = (0..w.size[0]).find(|&k| inside(k)).unwrap_or(0);
            let last = (first..w.size[0])
                .rev()
                .find(|&k| inside(k))
                .map_or(first, |k| k + 1);
            for lane in (0..BLOCK).step_by(S::LANES) {
                let row = Row {
                    top,
                    down: (first, last),
                    lane,
                };
                // SAFETY: `run` is promised the image, the weights and the output.
                unsafe { self.row(s, memory, at, row) };
            }
            let row = memory.y.wrapping_add(at * w.output[1] * BLOCK);
            // SAFETY: this row has just been written.
            unsafe {
                if shape.post.ending().is_none() {
                    shape.post.apply_rows(row, 0, 1, w.output[1] * BLOCK);
                }
                if (self.block + 1) * BLOCK > shape.groups {
                    clear_tail(row, w.output[1], shape.groups);
                }
            }
        }
    }
}

impl Rows<'_> {
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, s: S, m: Block, at: usize, row: Row) {
        let w = &self.kernel.shape.window;
        // SAFETY: as the caller says.
        unsafe {
            match (w.size[1], w.strides[1], w.dilations[1]) {
                (3, 1, 1) => self.fours::<S, 3, 6>(s, m, at, row, 1),
                (3, 2, 1) => self.fours::<S, 3, 9>(s, m, at, row, 2),
                (5, 1, 1) => self.fours::<S, 5, 8>(s, m, at, row, 1),
                (5, 2, 1) => self.fours::<S, 5, 11>(s, m, at, row, 2),
                _ => self.any(s, m, at, row),
            }
        }
    }

    /// Four pixels at a time: of windows of `K` columns they read `C` columns of the image.
    #[inline(always)]
    unsafe fn fours<S: Simd, const K: usize, const C: usize>(
        &self,
        s: S,
        m: Block,
        at: usize,
        row: Row,
        stride: usize,
    ) {
        let w = &self.kernel.shape.window;
        for column in (0..w.output[1]).step_by(4) {
            let first = column * stride;
            let inner = first >= w.pads[1] && first - w.pads[1] + C <= w.input[1];
            let mut acc = [s.splat(0.0); 4];
            for k in row.down.0..row.down.1 {
                let place = (row.top + (k * w.dilations[0]) as isize) as usize * w.input[1];
                let x = m.x.wrapping_add(place * BLOCK + row.lane);
                let weights = m.w.wrapping_add(k * K * BLOCK + row.lane);
                let mut columns = [s.splat(0.0); C];
                for (i, column) in columns.iter_mut().enumerate() {
                    let place = (first + i).wrapping_sub(w.pads[1]);
                    if inner || place < w.input[1] {
                        // SAFETY: the pixel lies in the image.
                        *column = unsafe { s.load(x.add(place * BLOCK)) };
                    }
                }
                for i in 0..K {
                    // SAFETY: there is a weight for each element of the window.
                    let weight = unsafe { s.load(weights.add(i * BLOCK)) };
                    for (p, acc) in acc.iter_mut().enumerate() {
                        *acc = s.fma(columns[p * stride + i], weight, *acc);
                    }
                }
            }
            for (p, acc) in acc.into_iter().enumerate().take(w.output[1] - column) {
                // SAFETY: as the caller says.
                unsafe { self.finish(s, m, at, column + p, row.lane, acc) };
            }
        }
    }

    #[inline(always)]
    unsafe fn any<S: Simd>(&self, s: S, m: Block, at: usize, row: Row) {
        let w = &self.kernel.shape.window;
        for column in 0..w.output[1] {
            let mut acc = s.splat(0.0);
            for k in row.down.0..row.down.1 {
                let place = (row.top + (k * w.dilations[0]) as isize) as usize * w.input[1];
                for i in 0..w.size[1] {
                    let across = (column * w.strides[1] + i * w.dilations[1]).wrapping_sub(w.pads[1]);
                    if across < w.input[1] {
                        // SAFETY: the pixel lies in the image.
                        unsafe {
                            let x = s.load(m.x.add((place + across) * BLOCK + row.lane));
                            let weight = s.load(m.w.add((k * w.size[1] + i) * BLOCK + row.lane));
                            acc = s.fma(x, weight, acc);
                        }
                    }
                }
            }
            // SAFETY: as the caller says.
            unsafe { self.finish(s, m, at, column, row.lane, acc) };
        }
    }

    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S, m: Block, at: usize, column: usize, lane: usize, acc: S::F32) {
        let shape = &self.kernel.shape;
        let to = (at * shape.window.output[1] + column) * BLOCK + lane;
        let mut y = acc;
        // SAFETY: as the caller says.
        unsafe {
            if !self.x.bias.is_null() {
                y = s.add(y, s.load(self.x.bias.add(self.block * BLOCK + lane)));
            }
            if !m.residual.is_null() {
                y = s.add(y, s.load(m.residual.add(to)));
            }
            y = m.end.apply(s, y);
            s.store(m.y.add(to), y);
        }
    }
}
