//! Normalisation by the squares of neighbouring channels.

use std::ops::Range;

use secateur_simd::{Simd, Vectorised, dispatch, math};

use super::elementwise::{source, target};
use super::{Io, Kernel};
use crate::ops::OpError;

/// Elements of a plane that a task handles.
const CHUNK: usize = 1 << 11;

/// `x / (bias + factor * sum of squares)^beta`, the sum over channels from `before` before to `behind` behind each.
pub struct LrnKernel {
    /// Images, channels, and elements of a plane.
    pub size: [usize; 3],
    /// Channels before.
    pub before: usize,
    /// Channels behind.
    pub behind: usize,
    /// What is added to the sums.
    pub bias: f32,
    /// What the sums are multiplied by.
    pub factor: f32,
    /// The exponent.
    pub beta: f32,
}

impl Kernel for LrnKernel {
    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let [images, channels, plane] = self.size;
        let len = images * channels * plane;
        let (x, y) = (source::<f32>(io, 0, len), target::<f32>(io, 0, len));
        let parts = plane.div_ceil(CHUNK);
        io.pool.run(images * channels * parts, &|task| {
            let (channel, part) = (task / parts, task % parts);
            let (image, c) = (channel / channels, channel % channels);
            let near = c.saturating_sub(self.before)..channels.min(c + self.behind + 1);
            let start = part * CHUNK;
            dispatch(Part {
                k: self,
                // SAFETY: the image and the part of the channel are within both; no other task writes there.
                x: unsafe { x.get().add(image * channels * plane + start) },
                // SAFETY: as above.
                y: unsafe { y.get().add(channel * plane + start) },
                channel: c,
                near,
                len: CHUNK.min(plane - start),
            });
        });
        Ok(())
    }
}

struct Part<'a> {
    k: &'a LrnKernel,
    /// The first channel of the image.
    x: *const f32,
    y: *mut f32,
    channel: usize,
    near: Range<usize>,
    len: usize,
}

impl Vectorised for Part<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (k, plane) = (self.k, self.k.size[2]);
        for at in (0..self.len).step_by(S::LANES) {
            let n = S::LANES.min(self.len - at);
            // SAFETY: each channel has `n` elements from `at` on.
            let load = |c: usize| unsafe {
                let p = self.x.add(c * plane + at);
                if n == S::LANES {
                    s.load(p)
                } else {
                    s.load_first(p, n)
                }
            };
            let mut sum = s.splat(0.0);
            for c in self.near.clone() {
                let x = load(c);
                sum = s.fma(x, x, sum);
            }
            let base = s.fma(s.splat(k.factor), sum, s.splat(k.bias));
            let x = load(self.channel);
            let y = if k.beta == 0.75 {
                let root = s.sqrt(base);
                s.div(x, s.mul(root, s.sqrt(root)))
            } else {
                s.mul(x, math::exp(s, s.mul(s.splat(-k.beta), math::log(s, base))))
            };
            // SAFETY: as above.
            unsafe { s.store_first(self.y.add(at), n, y) };
        }
    }
}
