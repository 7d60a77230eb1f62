//! Gradients of the weights of convolutions of each channel by itself.

use std::ops::Range;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::super::BLOCK;
use super::Memory;
use crate::cpu::Pool;
use crate::cpu::conv::Shape;
use crate::cpu::gemm::balanced;

/// Slices of a batch.
const SLICES: usize = 8;

/// Partial sums `[slices][channels / 16][window][16]`.
pub(super) struct Depthwise {
    slices: Vec<Range<usize>>,
    one: usize,
}

impl Depthwise {
    pub(super) fn new(s: &Shape) -> Depthwise {
        Depthwise {
            slices: balanced(s.images, s.images.div_ceil(SLICES)).collect(),
            one: s.groups.next_multiple_of(BLOCK) * s.window.taps(),
        }
    }

    /// Floats.
    pub(super) fn scratch(&self) -> usize {
        self.slices.len() * self.one
    }

    /// # Safety
    ///
    /// The memory is of the sizes that the shape and [`scratch`](Depthwise::scratch) say.
    pub(super) unsafe fn run(&self, s: &Shape, m: Memory, pool: &Pool) {
        let (blocks, taps) = (s.groups.div_ceil(BLOCK), s.window.taps());
        pool.run(self.slices.len() * blocks, &|task| {
            let (slice, block) = (task / blocks, task % blocks);
            let sums = m.scratch.behind(slice * self.one + block * taps * BLOCK);
            dispatch(Sums {
                shape: s,
                m,
                images: self.slices[slice].clone(),
                block,
                sums: sums.start(),
            });
        });
        let channel = |c: usize| {
            for tap in 0..taps {
                let at = (c / BLOCK * taps + tap) * BLOCK + c % BLOCK;
                let part = |slice: usize| m.scratch.behind(slice * self.one + at).start();
                // SAFETY: all partial sums are there, and the weights of this channel are this task's own.
                unsafe {
                    let all = (1..self.slices.len()).map(|slice| *part(slice));
                    *m.w.behind(c * taps + tap).start() = all.fold(*part(0), |a, b| a + b);
                }
            }
        };
        pool.split(s.groups, 64, &|channels| channels.for_each(channel));
    }
}

struct Sums<'a> {
    shape: &'a Shape,
    m: Memory,
    images: Range<usize>,
    block: usize,
    sums: *mut f32,
}

impl Vectorised for Sums<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let w = &self.shape.window;
        let blocks = self.shape.groups.div_ceil(BLOCK);
        for at in 0..w.taps() * BLOCK / S::LANES {
            let (tap, lane) = (at / (BLOCK / S::LANES), at % (BLOCK / S::LANES) * S::LANES);
            let (down, across) = (inside(w, 0, tap / w.size[1]), inside(w, 1, tap % w.size[1]));
            let (top, left) = (tap / w.size[1] * w.dilations[0], tap % w.size[1] * w.dilations[1]);
            let mut total = s.splat(0.0);
            for image in self.images.clone() {
                let place = image * blocks + self.block;
                let x = self.m.x.wrapping_add(place * w.plane() * BLOCK + lane);
                let dy = self.m.dy.wrapping_add(place * w.positions() * BLOCK + lane);
                let mut acc = [s.splat(0.0); 4];
                for row in down.clone() {
                    let y = row * w.strides[0] + top - w.pads[0];
                    let (x, dy) = (
                        x.wrapping_add(y * w.input[1] * BLOCK),
                        dy.wrapping_add(row * w.output[1] * BLOCK),
                    );
                    for first in across.clone().step_by(4) {
                        let (under, count) = (first * w.strides[1] + left - w.pads[1], across.end - first);
                        for (i, acc) in acc.iter_mut().enumerate().take(count) {
                            let x = x.wrapping_add((under + i * w.strides[1]) * BLOCK);
                            let dy = dy.wrapping_add((first + i) * BLOCK);
                            // SAFETY: both pixels lie in their images.
                            *acc = unsafe { s.fma(s.load(x), s.load(dy), *acc) };
                        }
                    }
                }
                let sum = s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3]));
                total = s.add(total, sum);
            }
            // SAFETY: there is a sum for each element of the window.
            unsafe { s.store(self.sums.wrapping_add(tap * BLOCK + lane), total) };
        }
    }
}

/// The windows along `axis` whose element `tap` lies over the image.
#[inline(always)]
fn inside(w: &crate::cpu::window::Window, axis: usize, tap: usize) -> Range<usize> {
    let (ahead, stride) = (tap * w.dilations[axis], w.strides[axis]);
    let first = w.pads[axis].saturating_sub(ahead).div_ceil(stride);
    let end = (w.input[axis] + w.pads[axis])
        .saturating_sub(ahead)
        .div_ceil(stride);
    let end = end.min(w.output[axis]);
    first.min(end)..end
}
