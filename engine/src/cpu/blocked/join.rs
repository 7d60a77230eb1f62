//! Channels of several images side by side, where blocks of one do not begin where blocks of the result do.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::BLOCK;
use crate::cpu::gemm::Scratch;
use crate::cpu::{Io, Kernel};
use crate::ops::OpError;

/// Pixels of a block that make a task.
const TASK: usize = 256;

/// `Concat` along channels, all images in blocks.
pub struct Join {
    images: usize,
    pixels: usize,
    /// Blocks of each part.
    blocks: Vec<usize>,
    /// What each block of the result is made of.
    runs: Vec<Vec<Run>>,
}

/// Some lanes of a block of a part.
#[derive(Clone, Copy)]
struct Run {
    part: usize,
    block: usize,
    /// The first lane there, and in the result.
    from: usize,
    to: usize,
    len: usize,
}

impl Join {
    /// Of parts with so many `channels`.
    pub fn new(images: usize, channels: &[usize], pixels: usize) -> Join {
        let all: usize = channels.iter().sum();
        let mut runs = vec![vec![]; all.div_ceil(BLOCK)];
        let mut at = 0;
        for (part, &count) in channels.iter().enumerate() {
            let mut channel = 0;
            while channel < count {
                let (from, to) = (channel % BLOCK, at % BLOCK);
                let len = (BLOCK - from.max(to)).min(count - channel);
                let block = channel / BLOCK;
                runs[at / BLOCK].push(Run {
                    part,
                    block,
                    from,
                    to,
                    len,
                });
                (channel, at) = (channel + len, at + len);
            }
        }
        Join {
            images,
            pixels,
            blocks: channels.iter().map(|c| c.div_ceil(BLOCK)).collect(),
            runs,
        }
    }
}

impl Kernel for Join {
    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let parts = (0..self.blocks.len()).map(|i| io.input(i).slice::<f32>());
        let parts: Vec<&[f32]> = parts.collect();
        let (pool, pixels) = (io.pool, self.pixels);
        let y = Scratch::from(io.output(0).slice::<f32>());
        let pieces = pixels.div_ceil(TASK);
        pool.run(self.images * self.runs.len() * pieces, &|task| {
            let (row, first) = (task / pieces, task % pieces * TASK);
            let (image, block) = (row / self.runs.len(), row % self.runs.len());
            let count = TASK.min(pixels - first);
            let to = y.behind((row * pixels + first) * BLOCK).start();
            // SAFETY: the result has these pixels of this block, and no other task writes to them.
            let to = unsafe { std::slice::from_raw_parts_mut(to, count * BLOCK) };
            if self.runs[block].iter().map(|r| r.len).sum::<usize>() < BLOCK {
                to.fill(0.0);
            }
            for run in &self.runs[block] {
                let row = image * self.blocks[run.part] + run.block;
                let from = &parts[run.part][(row * pixels + first) * BLOCK..][..count * BLOCK];
                match run.len {
                    BLOCK => to.copy_from_slice(from),
                    _ => dispatch(Lanes { from, to, run }),
                }
            }
        });
        Ok(())
    }
}

struct Lanes<'a> {
    from: &'a [f32],
    to: &'a mut [f32],
    run: &'a Run,
}

impl Vectorised for Lanes<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Run { from, to, len, .. } = *self.run;
        let pixels = self.from.chunks_exact(BLOCK).zip(self.to.chunks_exact_mut(BLOCK));
        for (x, y) in pixels {
            let (x, y) = (&x[from..from + len], &mut y[to..to + len]);
            for lane in (0..len).step_by(S::LANES) {
                let n = S::LANES.min(len - lane);
                // SAFETY: both have `n` lanes from there.
                unsafe {
                    let v = s.load_first(x.as_ptr().add(lane), n);
                    s.store_first(y.as_mut_ptr().add(lane), n, v);
                }
            }
        }
    }
}
