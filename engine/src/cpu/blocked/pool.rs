//! Pools: the greatest element or the mean of windows and of whole channels.

use std::ops::Range;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::BLOCK;
use crate::cpu::Pool;
use crate::cpu::gemm::Scratch;
use crate::cpu::pool::Means;
use crate::cpu::window::Window;

/// Elements read that make a task worth handing to another thread.
const TASK: usize = 1 << 16;

/// A pool by windows over one or two axes.
pub struct Pooling {
    /// The window, over two axes.
    pub window: Window,
    /// Images times blocks of channels.
    pub blocks: usize,
    /// For means; without, the greatest elements are taken.
    pub means: Option<Means>,
}

impl Pooling {
    /// Pools `x` into `y`.
    ///
    /// # Panics
    ///
    /// If one of them is shorter than the window says.
    pub fn run(&self, x: &[f32], y: &mut [f32], pool: &Pool) {
        let w = &self.window;
        assert!(
            x.len() >= self.blocks * w.plane() * BLOCK && y.len() >= self.blocks * w.positions() * BLOCK,
            "blocks"
        );
        let (rows, y) = (w.output[0], Scratch::from(y));
        let grain = TASK
            .div_ceil((w.output[1] * w.taps() * BLOCK).max(1))
            .min(rows.max(1));
        let pieces = rows.div_ceil(grain);
        pool.run(self.blocks * pieces, &|task| {
            let (block, piece) = (task / pieces, task % pieces);
            let x = &x[block * w.plane() * BLOCK..][..w.plane() * BLOCK];
            let rows = piece * grain..rows.min((piece + 1) * grain);
            let first = (block * w.positions() + rows.start * w.output[1]) * BLOCK;
            // SAFETY: these rows of the output are this task's own.
            let y = unsafe {
                std::slice::from_raw_parts_mut(y.behind(first).start(), rows.len() * w.output[1] * BLOCK)
            };
            dispatch(Rows {
                pooling: self,
                x,
                y,
                rows,
            });
        });
    }
}

struct Rows<'a> {
    pooling: &'a Pooling,
    x: &'a [f32],
    y: &'a mut [f32],
    rows: Range<usize>,
}

/// The elements of the window at `at` that lie in the image, as places.
#[inline(always)]
pub(super) fn inside(w: &Window, axis: usize, at: usize) -> impl Iterator<Item = usize> + Clone {
    let (first, pad, size) = (at * w.strides[axis], w.pads[axis], w.input[axis]);
    let step = w.dilations[axis];
    let skip = pad.saturating_sub(first).div_ceil(step).min(w.size[axis]);
    let places = (skip..w.size[axis]).map(move |k| first + k * step - pad);
    places.take_while(move |&p| p < size)
}

/// Whether windows are of 2 × 2, and none reaches beyond the image.
pub(super) fn is_quarters(w: &Window) -> bool {
    let reach = |a: usize| w.output[a].saturating_sub(1) * w.strides[a] + 2;
    w.size == [2, 2] && w.dilations == [1, 1] && w.pads == [0, 0] && (0..2).all(|a| reach(a) <= w.input[a])
}

impl Vectorised for Rows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let w = &self.pooling.window;
        let mean = self.pooling.means.as_ref();
        if mean.is_none() && is_quarters(w) {
            return self.quarters(s);
        }
        let begin = if mean.is_some() { 0.0 } else { f32::NEG_INFINITY };
        let mut y = self.y.chunks_exact_mut(S::LANES);
        for row in self.rows.clone() {
            for column in 0..w.output[1] {
                for lane in (0..BLOCK).step_by(S::LANES) {
                    let mut acc = s.splat(begin);
                    for place in inside(w, 0, row) {
                        let x = &self.x[place * w.input[1] * BLOCK..][..w.input[1] * BLOCK];
                        for across in inside(w, 1, column) {
                            let x = &x[across * BLOCK + lane..][..S::LANES];
                            // SAFETY: the slice has a whole vector.
                            let x = unsafe { s.load(x.as_ptr()) };
                            acc = match mean {
                                Some(_) => s.add(acc, x),
                                // NaN is passed over.
                                None => s.max(x, acc),
                            };
                        }
                    }
                    if let Some(Means(means)) = mean {
                        acc = s.mul(acc, s.splat(means[row * w.output[1] + column]));
                    }
                    if let Some(y) = y.next() {
                        // SAFETY: the slice has a whole vector.
                        unsafe { s.store(y.as_mut_ptr(), acc) };
                    }
                }
            }
        }
    }
}

impl Rows<'_> {
    /// The greatest of windows of 2 × 2 that lie in the image.
    #[inline(always)]
    fn quarters<S: Simd>(self, s: S) {
        let w = &self.pooling.window;
        let (line, [down, along]) = (w.input[1] * BLOCK, [w.strides[0], w.strides[1] * BLOCK]);
        let mut y = self.y.chunks_exact_mut(BLOCK);
        for row in self.rows.clone() {
            for column in 0..w.output[1] {
                let first = row * down * line + column * along;
                let x = &self.x[first..][..line + 2 * BLOCK];
                let Some(y) = y.next() else { return };
                for lane in (0..BLOCK).step_by(S::LANES) {
                    let mut best = s.splat(f32::NEG_INFINITY);
                    for place in [0, BLOCK, line, line + BLOCK] {
                        // SAFETY: the slice ends behind the last place. NaN is passed over.
                        best = s.max(unsafe { s.load(x.as_ptr().add(place + lane)) }, best);
                    }
                    // SAFETY: a block has a whole vector from `lane` on.
                    unsafe { s.store(y.as_mut_ptr().add(lane), best) };
                }
            }
        }
    }
}

/// A pool of whole channels.
#[derive(Clone, Copy)]
pub struct Global {
    /// Images times blocks of channels.
    pub blocks: usize,
    /// Pixels of a channel.
    pub pixels: usize,
    /// The mean; else the greatest element.
    pub mean: bool,
}

impl Global {
    /// Pools `x` into `y`.
    ///
    /// # Panics
    ///
    /// If one of them is shorter than the sizes say.
    pub fn run(&self, x: &[f32], y: &mut [f32], pool: &Pool) {
        let plane = self.pixels * BLOCK;
        assert!(
            x.len() >= self.blocks * plane && y.len() >= self.blocks * BLOCK,
            "blocks"
        );
        let grain = TASK.div_ceil(plane.max(1));
        let y = Scratch::from(y);
        pool.split(self.blocks, grain, &|range| {
            for block in range {
                // SAFETY: this block of the output is this task's own.
                let y = unsafe { std::slice::from_raw_parts_mut(y.behind(block * BLOCK).start(), BLOCK) };
                dispatch(Whole {
                    x: &x[block * plane..(block + 1) * plane],
                    y,
                    mean: self.mean,
                });
            }
        });
    }
}

struct Whole<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    mean: bool,
}

impl Vectorised for Whole<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let begin = if self.mean { 0.0 } else { f32::NEG_INFINITY };
        let scale = (1.0 / (self.x.len() / BLOCK) as f64) as f32;
        for (lane, y) in (0..BLOCK)
            .step_by(S::LANES)
            .zip(self.y.chunks_exact_mut(S::LANES))
        {
            // Several sums, so that one need not wait for another.
            let mut acc = [s.splat(begin); 4];
            for (i, x) in self.x.chunks_exact(BLOCK).enumerate() {
                // SAFETY: the block has a whole vector from `lane` on.
                let x = unsafe { s.load(x[lane..].as_ptr()) };
                let acc = &mut acc[i % 4];
                *acc = if self.mean { s.add(*acc, x) } else { s.max(x, *acc) };
            }
            let [a, b, c, d] = acc;
            let both = |a, b| if self.mean { s.add(a, b) } else { s.max(a, b) };
            let mut all = both(both(a, b), both(c, d));
            if self.mean {
                all = s.mul(all, s.splat(scale));
            }
            // SAFETY: the slice has a whole vector.
            unsafe { s.store(y.as_mut_ptr(), all) };
        }
    }
}
