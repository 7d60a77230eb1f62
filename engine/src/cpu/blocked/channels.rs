//! Sums over all images for each channel, and what normalisation makes of them.
//!
//! Sums of few pixels are kept in floats, measured from the mean of these pixels; they are put together in doubles, in an order
//! that the sizes decide.

use std::ops::Range;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::BLOCK;
use crate::cpu::Pool;
use crate::cpu::elementwise::Ptr;
use crate::cpu::gemm::Scratch;

/// Pixels whose sums are kept in floats.
const FEW: usize = 256;
/// Elements that make a task worth handing to another thread.
const TASK: usize = 1 << 13;
/// Vectors that are kept of few pixels.
const KEPT: usize = 5;

/// Images in blocks of channels.
#[derive(Clone, Copy, Debug)]
pub struct Channels {
    /// Images.
    pub images: usize,
    /// Channels of an image.
    pub channels: usize,
    /// Pixels of a channel.
    pub pixels: usize,
}

/// What is known of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// The mean of its elements.
    pub mean: f64,
    /// The mean of their squared distances from it.
    pub variance: f64,
    /// The sum of the second image.
    pub sum: f64,
    /// The sum of the products of the second image with the distances from the mean.
    pub product: f64,
}

/// An affine function of one or two images for each channel: `a x + b (z - mean) + c`.
#[derive(Clone, Copy)]
struct Lines<'a> {
    /// `mean`, `a`, `b` and `c`, a vector of each for each block.
    factors: &'a [f32],
    /// Without `a`.
    single: bool,
}

/// Images that are read.
#[derive(Clone, Copy)]
pub struct Given(*const f32, Option<*const f32>);

// SAFETY: they are only read, or written where the same task has read them.
unsafe impl Sync for Given {}

impl Given {
    /// One image, or two.
    pub fn new(x: *const f32, dy: Option<*const f32>) -> Given {
        Given(x, dy)
    }

    fn behind(self, floats: usize) -> Given {
        Given(
            self.0.wrapping_add(floats),
            self.1.map(|p| p.wrapping_add(floats)),
        )
    }
}

impl Channels {
    /// Of `[images, channels, ...]`.
    pub fn new(dims: &[usize]) -> Channels {
        Channels {
            images: dims[0],
            channels: dims[1],
            pixels: dims[2..].iter().product(),
        }
    }

    fn blocks(&self) -> usize {
        self.channels.div_ceil(BLOCK)
    }

    fn parts(&self) -> usize {
        self.pixels.div_ceil(FEW)
    }

    /// Elements that are summed for each channel.
    pub fn count(&self) -> usize {
        self.images * self.pixels
    }

    /// Floats of sums of few pixels.
    fn floats(&self) -> usize {
        self.images * self.blocks() * self.parts() * KEPT * BLOCK
    }

    /// Bytes of scratch memory.
    pub fn scratch(&self) -> usize {
        (self.floats() + 4 * self.blocks() * BLOCK) * size_of::<f32>()
    }

    /// Calls `task` for each block of each image, on all threads: the place of its first float, and its number.
    fn each(&self, pool: &Pool, task: &(dyn Fn(usize, usize) + Sync)) {
        let plane = self.pixels * BLOCK;
        pool.split(
            self.images * self.blocks(),
            TASK.div_ceil(plane.max(1)),
            &|all: Range<usize>| {
                all.for_each(|at| task(at * plane, at));
            },
        );
    }

    /// What is known of each channel.
    ///
    /// # Safety
    ///
    /// The images are readable; nobody else uses the scratch memory, which is as large as was asked for.
    pub unsafe fn moments(&self, given: Given, scratch: &mut [u8], pool: &Pool) -> Vec<Moments> {
        let memory = Scratch::new(scratch);
        let each = self.parts() * KEPT * BLOCK;
        self.each(pool, &|from, at| {
            dispatch(Sums {
                given: given.behind(from),
                pixels: self.pixels,
                to: memory.behind(at * each).start(),
            });
        });
        // SAFETY: the scratch memory is that large, and was filled just now.
        let sums = unsafe { std::slice::from_raw_parts(memory.start(), self.floats()) };
        (0..self.blocks())
            .flat_map(|block| self.whole(sums, block))
            .take(self.channels)
            .collect()
    }

    /// The sums of few pixels of a block, put together.
    fn whole(&self, sums: &[f32], block: usize) -> [Moments; BLOCK] {
        let each = self.parts() * KEPT * BLOCK;
        let records = || {
            let images = sums.chunks_exact(each).skip(block).step_by(self.blocks());
            images.flat_map(|image| {
                let parts = image.chunks_exact(KEPT * BLOCK).enumerate();
                parts.map(|(i, part)| (FEW.min(self.pixels - i * FEW) as f64, part))
            })
        };
        let mut all = [Moments::default(); BLOCK];
        let count = self.count() as f64;
        for (n, part) in records() {
            for (lane, m) in all.iter_mut().enumerate() {
                m.mean += n * f64::from(part[lane]) + f64::from(part[BLOCK + lane]);
            }
        }
        all.iter_mut().for_each(|m| m.mean /= count);
        for (n, part) in records() {
            for (lane, m) in all.iter_mut().enumerate() {
                let at = |i: usize| f64::from(part[i * BLOCK + lane]);
                let away = at(0) - m.mean;
                m.variance += at(2) + away * (2.0 * at(1) + n * away);
                m.sum += at(3);
                m.product += at(4) + away * at(3);
            }
        }
        all.iter_mut().for_each(|m| m.variance /= count);
        all
    }

    /// Writes `factors[1] x + factors[2] z + factors[3]`, `z` being the first of the images less `factors[0]` and `x` the second, to
    /// `y`, which may be the memory of one of them. `line` says the factors of each channel.
    ///
    /// # Safety
    ///
    /// The images are readable, `y` is writable by nobody else, and so is the scratch memory.
    pub unsafe fn apply(
        &self,
        given: Given,
        y: *mut f32,
        scratch: &mut [u8],
        line: impl Fn(usize) -> [f32; 4],
        pool: &Pool,
    ) {
        let all: &mut [f32] = bytemuck::cast_slice_mut(&mut scratch[..16 * self.blocks() * BLOCK]);
        for (block, factors) in all.chunks_exact_mut(4 * BLOCK).enumerate() {
            for lane in 0..BLOCK {
                let channel = block * BLOCK + lane;
                let own = if channel < self.channels {
                    line(channel)
                } else {
                    [0.0; 4]
                };
                own.iter()
                    .enumerate()
                    .for_each(|(i, &f)| factors[i * BLOCK + lane] = f);
            }
        }
        let (all, y) = (&*all, Ptr::new(y));
        self.each(pool, &|from, at| {
            let factors = &all[at % self.blocks() * 4 * BLOCK..][..4 * BLOCK];
            dispatch(Apply {
                lines: Lines {
                    factors,
                    single: given.1.is_none(),
                },
                given: given.behind(from),
                pixels: self.pixels,
                y: y.get().wrapping_add(from),
            });
        });
    }

    /// The sum of each channel.
    pub fn sums(&self, x: &[f32], y: &mut [f32], scratch: &mut [u8], pool: &Pool) {
        let memory = Scratch::new(scratch);
        let x = &x[..self.images * self.blocks() * self.pixels * BLOCK];
        let each = self.parts() * BLOCK;
        self.each(pool, &|from, at| {
            dispatch(Totals {
                x: &x[from..][..self.pixels * BLOCK],
                to: memory.behind(at * each).start(),
            });
        });
        // SAFETY: the scratch memory is larger than that, and was filled just now.
        let sums = unsafe { std::slice::from_raw_parts(memory.start(), self.images * self.blocks() * each) };
        for (channel, y) in y.iter_mut().enumerate().take(self.channels) {
            let images = sums
                .chunks_exact(each)
                .skip(channel / BLOCK)
                .step_by(self.blocks());
            let parts = images.flat_map(|image| image[channel % BLOCK..].iter().step_by(BLOCK));
            *y = parts.map(|&x| f64::from(x)).sum::<f64>() as f32;
        }
    }
}

/// The sum of four, two and two.
#[inline(always)]
fn four<S: Simd>(s: S, [a, b, c, d]: [S::F32; 4]) -> S::F32 {
    s.add(s.add(a, b), s.add(c, d))
}

/// Calls `f` with each pixel and which of four sums it belongs to.
#[inline(always)]
fn pixels(range: Range<usize>, mut f: impl FnMut(usize, usize)) {
    let whole = range.start + range.len() / 4 * 4;
    for first in (range.start..whole).step_by(4) {
        for i in 0..4 {
            f(first + i, i);
        }
    }
    (whole..range.end).for_each(|at| f(at, at - whole));
}

/// The sums of few pixels each, of one block of one image.
struct Sums {
    given: Given,
    pixels: usize,
    to: *mut f32,
}

impl Vectorised for Sums {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (part, first) in (0..self.pixels).step_by(FEW).enumerate() {
            let range = first..self.pixels.min(first + FEW);
            for lane in (0..BLOCK).step_by(S::LANES) {
                let to = self.to.wrapping_add(part * KEPT * BLOCK + lane);
                let kept = match self.given.1 {
                    // SAFETY: all pixels are there.
                    Some(_) => unsafe { self.few::<S, true>(s, range.clone(), lane) },
                    // SAFETY: as above.
                    None => unsafe { self.few::<S, false>(s, range.clone(), lane) },
                };
                for (i, kept) in kept.into_iter().enumerate() {
                    // SAFETY: there is a vector for each.
                    unsafe { s.store(to.wrapping_add(i * BLOCK), kept) };
                }
            }
        }
    }
}

impl Sums {
    /// Where it is measured from, sum, sum of squares, and with two images the sum of the second and that of the products.
    #[inline(always)]
    unsafe fn few<S: Simd, const TWO: bool>(&self, s: S, range: Range<usize>, lane: usize) -> [S::F32; KEPT] {
        let Given(x, dy) = self.given;
        let zero = [s.splat(0.0); 4];
        let mut acc = zero;
        let x = x.wrapping_add(lane);
        let dy = dy.unwrap_or(x).wrapping_add(if TWO { lane } else { 0 });
        pixels(
            range.clone(),
            #[inline(always)]
            |at, i| {
                // SAFETY: as the caller says.
                acc[i] = s.add(acc[i], unsafe { s.load(x.wrapping_add(at * BLOCK)) });
            },
        );
        let mean = s.mul(four(s, acc), s.splat(1.0 / range.len() as f32));
        // What is not finite is no place to measure from.
        let shift = s.select(s.lt(s.abs(mean), s.splat(f32::INFINITY)), mean, s.splat(0.0));
        let (mut sum, mut squares, mut second, mut products) = (zero, zero, zero, zero);
        pixels(
            range,
            #[inline(always)]
            |at, i| {
                // SAFETY: as the caller says.
                let away = s.sub(unsafe { s.load(x.wrapping_add(at * BLOCK)) }, shift);
                sum[i] = s.add(sum[i], away);
                squares[i] = s.fma(away, away, squares[i]);
                if TWO {
                    // SAFETY: as the caller says.
                    let dy = unsafe { s.load(dy.wrapping_add(at * BLOCK)) };
                    second[i] = s.add(second[i], dy);
                    products[i] = s.fma(away, dy, products[i]);
                }
            },
        );
        [
            shift,
            four(s, sum),
            four(s, squares),
            four(s, second),
            four(s, products),
        ]
    }
}

struct Apply<'a> {
    lines: Lines<'a>,
    given: Given,
    pixels: usize,
    y: *mut f32,
}

impl Vectorised for Apply<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Given(z, x) = self.given;
        let x = x.unwrap_or(z);
        for lane in (0..BLOCK).step_by(S::LANES) {
            // SAFETY: there is a block of each factor.
            let factor = |i: usize| unsafe { s.load(self.lines.factors[i * BLOCK + lane..].as_ptr()) };
            let (mean, a, b, c) = (factor(0), factor(1), factor(2), factor(3));
            for at in 0..self.pixels {
                let at = at * BLOCK + lane;
                // SAFETY: all pixels are there, and each is read before it is written.
                unsafe {
                    let y = s.fma(s.sub(s.load(z.wrapping_add(at)), mean), b, c);
                    let y = match self.lines.single {
                        true => y,
                        false => s.fma(s.load(x.wrapping_add(at)), a, y),
                    };
                    s.store(self.y.wrapping_add(at), y);
                }
            }
        }
    }
}

/// The sums of few pixels each, of one block of one image, and nothing else.
struct Totals<'a> {
    x: &'a [f32],
    to: *mut f32,
}

impl Vectorised for Totals<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (part, x) in self.x.chunks(FEW * BLOCK).enumerate() {
            for lane in (0..BLOCK).step_by(S::LANES) {
                let mut acc = [s.splat(0.0); 4];
                pixels(
                    0..x.len() / BLOCK,
                    #[inline(always)]
                    |at, i| {
                        // SAFETY: the block has a whole vector from `lane` on.
                        acc[i] = s.add(acc[i], unsafe {
                            s.load(x.as_ptr().wrapping_add(at * BLOCK + lane))
                        });
                    },
                );
                // SAFETY: there is a vector for each part.
                unsafe { s.store(self.to.wrapping_add(part * BLOCK + lane), four(s, acc)) };
            }
        }
    }
}
