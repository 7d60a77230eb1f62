//! From rows to blocks and back.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::BLOCK;
use crate::cpu::Pool;
use crate::cpu::gemm::Scratch;

/// Pixels of a block of channels that make a task.
const TASK: usize = 1 << 10;

/// Writes `[images, channels, pixels]` in blocks.
///
/// # Panics
///
/// If a slice is shorter than the sizes say.
pub fn pack(x: &[f32], y: &mut [f32], sizes: [usize; 3], pool: &Pool) {
    let [images, channels, pixels] = sizes;
    assert!(x.len() >= images * channels * pixels, "channels");
    assert!(
        y.len() >= images * channels.next_multiple_of(BLOCK) * pixels,
        "blocks"
    );
    let y = Scratch::from(y);
    each(sizes, pool, |rows, block, live, range| {
        let to = y.behind((block * pixels + range.start) * BLOCK).start();
        // SAFETY: the block has these pixels, and no other task writes to them.
        let to = unsafe { std::slice::from_raw_parts_mut(to, range.len() * BLOCK) };
        let from = &x[rows * pixels + range.start..(rows + live - 1) * pixels + range.end];
        dispatch(Pack {
            from,
            to,
            pixels,
            live,
        });
    });
}

/// Writes blocks as `[images, channels, pixels]`.
///
/// # Panics
///
/// If a slice is shorter than the sizes say.
pub fn unpack(x: &[f32], y: &mut [f32], sizes: [usize; 3], pool: &Pool) {
    let [images, channels, pixels] = sizes;
    assert!(
        x.len() >= images * channels.next_multiple_of(BLOCK) * pixels,
        "blocks"
    );
    assert!(y.len() >= images * channels * pixels, "channels");
    let y = Scratch::from(y);
    each(sizes, pool, |rows, block, live, range| {
        let from = &x[(block * pixels + range.start) * BLOCK..][..range.len() * BLOCK];
        let to = y.behind(rows * pixels + range.start).start();
        dispatch(Unpack {
            from,
            to,
            pixels,
            live,
        });
    });
}

/// Pixels of the `live` channels of a block, `pixels` apart in `from`.
struct Pack<'a> {
    from: &'a [f32],
    to: &'a mut [f32],
    pixels: usize,
    live: usize,
}

impl Vectorised for Pack<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let count = self.to.len() / BLOCK;
        let whole = count - count % S::LANES;
        for pixel in (0..whole).step_by(S::LANES) {
            for lane in (0..BLOCK).step_by(S::LANES) {
                let mut square = [s.splat(0.0); BLOCK];
                for (i, row) in square.iter_mut().enumerate().take(S::LANES) {
                    if lane + i < self.live {
                        let from = &self.from[(lane + i) * self.pixels + pixel..][..S::LANES];
                        // SAFETY: there are as many.
                        *row = unsafe { s.load(from.as_ptr()) };
                    }
                }
                let square = s.turned(square);
                for (i, &row) in square.iter().enumerate().take(S::LANES) {
                    let to = &mut self.to[(pixel + i) * BLOCK + lane..][..S::LANES];
                    // SAFETY: there are as many.
                    unsafe { s.store(to.as_mut_ptr(), row) };
                }
            }
        }
        for (pixel, to) in self.to.chunks_exact_mut(BLOCK).enumerate().skip(whole) {
            for (lane, to) in to.iter_mut().enumerate() {
                *to = match lane < self.live {
                    true => self.from[lane * self.pixels + pixel],
                    false => 0.0,
                };
            }
        }
    }
}

/// Pixels of a block of channels, of which `live` go to channels `pixels` apart from `to`.
struct Unpack<'a> {
    from: &'a [f32],
    to: *mut f32,
    pixels: usize,
    live: usize,
}

impl Vectorised for Unpack<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let count = self.from.len() / BLOCK;
        let whole = count - count % S::LANES;
        for pixel in (0..whole).step_by(S::LANES) {
            for lane in (0..self.live).step_by(S::LANES) {
                let mut square = [s.splat(0.0); BLOCK];
                for (i, row) in square.iter_mut().enumerate().take(S::LANES) {
                    let from = &self.from[(pixel + i) * BLOCK + lane..][..S::LANES];
                    // SAFETY: there are as many.
                    *row = unsafe { s.load(from.as_ptr()) };
                }
                let square = s.turned(square);
                for (i, &row) in square.iter().enumerate().take(S::LANES.min(self.live - lane)) {
                    // SAFETY: `unpack` gave the pixels of the live channels to this task alone.
                    unsafe { s.store(self.to.add((lane + i) * self.pixels + pixel), row) };
                }
            }
        }
        for (pixel, from) in self.from.chunks_exact(BLOCK).enumerate().skip(whole) {
            for (lane, &x) in from.iter().enumerate().take(self.live) {
                // SAFETY: as above.
                unsafe { *self.to.add(lane * self.pixels + pixel) = x };
            }
        }
    }
}

/// Calls `part` with the first row, the block, the number of its channels and some pixels.
fn each(
    [images, channels, pixels]: [usize; 3],
    pool: &Pool,
    part: impl Fn(usize, usize, usize, std::ops::Range<usize>) + Sync,
) {
    let (blocks, pieces) = (channels.div_ceil(BLOCK), pixels.div_ceil(TASK));
    pool.run(images * blocks * pieces, &|task| {
        let (block, piece) = (task / pieces, task % pieces);
        let first = block % blocks * BLOCK;
        let rows = block / blocks * channels + first;
        let range = piece * TASK..pixels.min((piece + 1) * TASK);
        part(rows, block, BLOCK.min(channels - first), range);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_go_into_blocks_and_back() {
        let pool = Pool::new(2);
        for sizes in [
            [2, 37, 19],
            [1, 16, 2 * TASK + 5],
            [3, 5, 1],
            [1, 48, 32],
            [2, 0, 3],
        ] {
            let [images, channels, pixels] = sizes;
            let x: Vec<f32> = (1..=images * channels * pixels).map(|i| i as f32).collect();
            let blocks = channels.div_ceil(BLOCK);
            let mut y = vec![-1.0; images * blocks * pixels * BLOCK];
            pack(&x, &mut y, sizes, &pool);
            for (at, &y) in y.iter().enumerate() {
                let (image, block) = (at / BLOCK / pixels / blocks, at / BLOCK / pixels % blocks);
                let channel = block * BLOCK + at % BLOCK;
                let row = (image * channels + channel) * pixels;
                let want = (channel < channels).then(|| x[row + at / BLOCK % pixels]);
                assert_eq!(y, want.unwrap_or(0.0), "{sizes:?} at {at}");
            }
            let mut back = vec![-1.0; x.len()];
            unpack(&y, &mut back, sizes, &pool);
            assert_eq!(back, x, "{sizes:?}");
        }
    }
}
