//! Transposed convolutions.
//!
//! Weights times pixels give, for each pixel, the windows that it adds to the output. A task makes some rows of some
//! channels of the output: the product of what lies above them, which stays in the second cache, and then the sums. Rows
//! of the input under two tasks' rows are multiplied twice, so that no two tasks write to one place.

use std::ops::Range;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::Images;
use crate::cpu::gemm::{Addend, Gemm, Operands, Place, Rhs, Scratch, Strides, tile_size};
use crate::cpu::window::Window;
use crate::cpu::{Pool, Post};

/// Floats of a product that stays in the second cache.
const CACHED: usize = 96 << 10;
/// Rows of a product that make the packing of the pixels cheap.
const ROWS: usize = 48;

/// A transposed convolution over up to three axes.
pub struct Transposed {
    images: usize,
    groups: usize,
    inputs: usize,
    outputs: usize,
    axes: [Axis; 3],
    /// The axis of which tasks have ranges; those before it have one element.
    along: usize,
    /// Output channels of a task.
    channels: usize,
    /// Output elements of a task along `along`.
    range: usize,
    /// Floats of the largest product of a task.
    product: usize,
    /// Products inside a task are not shared out.
    alone: Pool,
}

/// One axis: `x` elements, each of which adds `size` elements to `y`.
#[derive(Clone, Copy, Debug)]
struct Axis {
    x: usize,
    y: usize,
    size: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
}

impl Axis {
    const ONE: Axis = Axis {
        x: 1,
        y: 1,
        size: 1,
        stride: 1,
        dilation: 1,
        pad: 0,
    };

    /// The elements of `x` whose element `tap` falls into `y`, and where the first falls, from the start of `y`.
    #[inline(always)]
    fn meet(&self, tap: usize, x: &Range<usize>, y: &Range<usize>) -> (Range<usize>, usize) {
        let ahead = tap * self.dilation;
        let bound = |y: usize| (y + self.pad).saturating_sub(ahead).div_ceil(self.stride);
        let last = bound(y.end).clamp(x.start, x.end);
        let first = bound(y.start).clamp(x.start, last);
        let falls = (first * self.stride + ahead).saturating_sub(self.pad + y.start);
        (first..last, falls)
    }

    /// The elements of `x` that add to `y`.
    fn above(&self, y: &Range<usize>) -> Range<usize> {
        let ahead = (self.size - 1) * self.dilation;
        let first = (y.start + self.pad).saturating_sub(ahead).div_ceil(self.stride);
        let last = (y.end + self.pad).div_ceil(self.stride).min(self.x);
        first.min(last)..last
    }
}

impl Transposed {
    /// The kernel for a window over the output, one position for each element of the input; channels of a group are
    /// `[inputs, outputs]`. `None` for more than three axes, and where products would be enormous.
    pub fn new(
        window: &Window,
        images: usize,
        groups: usize,
        [inputs, outputs]: [usize; 2],
    ) -> Option<Transposed> {
        let mut axes = [Axis::ONE; 3];
        let first = 3usize.checked_sub(window.size.len())?;
        for (a, axis) in axes[first..].iter_mut().enumerate() {
            *axis = Axis {
                x: window.output[a],
                y: window.input[a],
                size: window.size[a],
                stride: window.strides[a],
                dilation: window.dilations[a],
                pad: window.pads[a],
            };
        }
        let along = axes
            .iter()
            .position(|a| a.x != 1 || a.y != 1 || a.size != 1)?
            .min(2);
        let inner: usize = axes[along + 1..].iter().map(|a| a.x).product();
        let each = window.taps().checked_mul(inner)?.max(1);
        let channels = ROWS.div_ceil(window.taps()).clamp(1, outputs.max(1));
        let axis = axes[along];
        let again = ((axis.size - 1).checked_mul(axis.dilation)?) / axis.stride;
        let rows = (CACHED / (channels * each)).max(4 * again).max(1);
        let range = rows.checked_mul(axis.stride)?.min(axis.y.max(1));
        let above = range.checked_add((axis.size - 1) * axis.dilation)?;
        let above = (above.div_ceil(axis.stride) + 1).min(axis.x);
        let sizes = [channels, window.taps(), above, inner];
        let product = sizes.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        product.checked_mul(64)?;
        Some(Transposed {
            images,
            groups,
            inputs,
            outputs,
            axes,
            along,
            channels,
            range,
            product: product.next_multiple_of(16),
            alone: Pool::new(1),
        })
    }

    fn taps(&self) -> usize {
        self.axes.iter().map(|a| a.size).product()
    }

    /// Elements of an input plane within one of `along`.
    fn inner_x(&self) -> usize {
        self.axes[self.along + 1..].iter().map(|a| a.x).product()
    }

    fn inner_y(&self) -> usize {
        self.axes[self.along + 1..].iter().map(|a| a.y).product()
    }

    /// Floats that a thread works in: the product, and a panel of pixels.
    fn part(&self) -> usize {
        let panel = self.inputs * tile_size().1;
        (self.product + panel).next_multiple_of(16)
    }

    /// Bytes of scratch memory.
    pub fn scratch(&self, threads: usize) -> usize {
        threads
            .saturating_mul(self.part())
            .saturating_mul(size_of::<f32>())
    }

    /// Computes the output.
    ///
    /// # Safety
    ///
    /// Images, weights `[groups * inputs, outputs, window]` and bias have the sizes that the kernel was made for, and
    /// nobody else writes to the output.
    pub unsafe fn run(&self, images: Images, w: &[f32], scratch: &mut [u8], pool: &Pool) {
        debug_assert!(scratch.len() >= self.scratch(pool.threads()), "scratch memory");
        let memory = Scratch::new(scratch);
        let blocks = self.outputs.div_ceil(self.channels.max(1));
        let ranges = self.axes[self.along].y.div_ceil(self.range.max(1));
        let tasks = self.images * self.groups * blocks * ranges;
        pool.run_with(tasks, &|thread, task| {
            let first = task / ranges % blocks * self.channels;
            let part = Part {
                group: task / ranges / blocks,
                channels: first..self.outputs.min(first + self.channels),
                rows: task % ranges * self.range
                    ..self.axes[self.along].y.min((task % ranges + 1) * self.range),
            };
            // SAFETY: as the caller promises; no two tasks share an element of the output, no two threads memory.
            unsafe { self.part_of(images, w, part, memory.of(thread, self.part())) };
        });
    }

    /// # Safety
    ///
    /// As for [`run`](Transposed::run); `memory` has [`part`](Transposed::part) floats of this task's own.
    unsafe fn part_of(&self, images: Images, w: &[f32], part: Part, memory: *mut f32) {
        let axis = self.axes[self.along];
        let (taps, inner_x, inner_y) = (self.taps(), self.inner_x(), self.inner_y());
        let above = axis.above(&part.rows);
        let n = above.len() * inner_x;
        let m = part.channels.len() * taps;
        // SAFETY: the memory has room for the product and behind it for a panel.
        let (cols, panel) = unsafe {
            let all = std::slice::from_raw_parts_mut(memory, self.part());
            all.split_at_mut(self.product)
        };
        let cols = &mut cols[..m * n];
        if n > 0 {
            let plane = axis.x * inner_x;
            let gemm = Gemm {
                m,
                n,
                k: self.inputs,
                a: Strides {
                    row: 1,
                    col: self.outputs * taps,
                },
                b: Rhs::Strided(Strides { row: plane, col: 1 }),
                batch: vec![Place::default()],
                alpha: 1.0,
                post: Post::NONE,
            };
            let group = part.group % self.groups;
            let operands = Operands {
                a: w.as_ptr()
                    .wrapping_add((group * self.inputs * self.outputs + part.channels.start) * taps),
                b: images
                    .x
                    .wrapping_add(part.group * self.inputs * plane + above.start * inner_x),
                c: cols.as_mut_ptr(),
                add: [Addend::NONE; 2],
            };
            // SAFETY: the group's weights and channels, of which these rows are within the plane.
            unsafe { gemm.run(operands, bytemuck::cast_slice_mut(panel), &self.alone) };
        }
        for (i, channel) in part.channels.enumerate() {
            let at = part.group * self.outputs + channel;
            let start = (at * axis.y + part.rows.start) * inner_y;
            // SAFETY: these rows of the output are this task's own; the bias has a float for each channel.
            let (y, bias) = unsafe {
                let y = images.y.wrapping_add(start);
                let bias = match images.bias.is_null() {
                    true => 0.0,
                    false => *images.bias.add(at % (self.groups * self.outputs)),
                };
                (std::slice::from_raw_parts_mut(y, part.rows.len() * inner_y), bias)
            };
            y.fill(bias);
            if n > 0 {
                dispatch(Sum {
                    of: self,
                    cols: &cols[i * taps * n..(i + 1) * taps * n],
                    above: &above,
                    rows: &part.rows,
                    y,
                });
            }
        }
    }
}

/// A task's part of the work.
struct Part {
    /// Image and group.
    group: usize,
    channels: Range<usize>,
    rows: Range<usize>,
}

/// Adds the windows of one channel to its rows.
struct Sum<'a> {
    of: &'a Transposed,
    cols: &'a [f32],
    above: &'a Range<usize>,
    rows: &'a Range<usize>,
    y: &'a mut [f32],
}

impl Vectorised for Sum<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let [a, b, c] = self.of.axes;
        let ranges = |i: usize| match i == self.of.along {
            true => (self.above.clone(), self.rows.clone()),
            false => (0..self.of.axes[i].x, 0..self.of.axes[i].y),
        };
        let [(xa, ya), (xb, yb), (xc, yc)] = [ranges(0), ranges(1), ranges(2)];
        let plane = xa.len() * xb.len() * xc.len();
        for tap in 0..a.size * b.size * c.size {
            let (ia, fa) = a.meet(tap / (b.size * c.size), &xa, &ya);
            let (ib, fb) = b.meet(tap / c.size % b.size, &xb, &yb);
            let (ic, fc) = c.meet(tap % c.size, &xc, &yc);
            let from = &self.cols[tap * plane..(tap + 1) * plane];
            for i in ia.clone() {
                for j in ib.clone() {
                    let row = ((i - xa.start) * xb.len() + j - xb.start) * xc.len();
                    let x = &from[row + ic.start - xc.start..row + ic.end - xc.start];
                    let down = (fa + (i - ia.start) * a.stride) * yb.len() + fb + (j - ib.start) * b.stride;
                    add(x, self.y, down * yc.len() + fc, c.stride);
                }
            }
        }
    }
}

/// Adds `x` to elements of `y` from `start` on, `stride` apart.
#[inline(always)]
fn add(x: &[f32], y: &mut [f32], start: usize, stride: usize) {
    if x.is_empty() {
        return;
    }
    let y = &mut y[start..start + (x.len() - 1) * stride + 1];
    match stride {
        1 => y.iter_mut().zip(x).for_each(|(y, x)| *y += x),
        // Written out so that it becomes shuffles.
        2 => y.iter_mut().step_by(2).zip(x).for_each(|(y, x)| *y += x),
        _ => y.iter_mut().step_by(stride).zip(x).for_each(|(y, x)| *y += x),
    }
}
