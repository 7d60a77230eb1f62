//! The gradient of the normalisation of rows.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::elementwise::{Ptr, source, target};
use super::gemm::{Scratch, balanced};
use super::norm::{load, moments, store};
use super::{Io, Kernel};
use crate::ops::OpError;

/// Rows are summed in at most so many parts, which their number decides.
const PARTS: usize = 16;

/// The fewest rows of a part.
const ROWS: usize = 8;

/// Of rows `x` that are normalised to mean 0 and variance 1 (`epsilon` is added) and multiplied by `scale`, and of the gradient of
/// that: the gradients of `x`, and where they are wanted of `scale` and of what was added.
///
/// Inputs are `x: [rows, len]`, `scale: [len]` and the gradient; every row is read from memory once.
pub struct NormGrad {
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub len: usize,
    /// What is added to the variance.
    pub epsilon: f32,
}

impl NormGrad {
    fn parts(&self) -> usize {
        self.rows.div_ceil(ROWS).clamp(1, PARTS)
    }
}

impl Kernel for NormGrad {
    fn scratch(&self, _: usize) -> usize {
        self.parts() * 2 * self.len * size_of::<f32>()
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let all = self.rows * self.len;
        let (x, scale, dy) = (source(io, 0, all), source(io, 1, self.len), source(io, 2, all));
        let dx = target(io, 0, all);
        let sums = [1, 2].map(|i| {
            let wanted = io.outputs.get(i).is_some_and(Option::is_some);
            wanted.then(|| target::<f32>(io, i, self.len))
        });
        let (scratch, pool) = (Scratch::new(io.scratch), io.pool);
        let parts: Vec<_> = balanced(self.rows, self.rows.div_ceil(self.parts())).collect();
        pool.run(parts.len(), &|p| {
            dispatch(Part {
                size: self,
                at: [x, scale, dy, dx],
                sums: scratch.of(p, 2 * self.len),
                rows: parts[p].clone(),
            });
        });
        for (k, sum) in sums.into_iter().enumerate() {
            let Some(sum) = sum else { continue };
            // SAFETY: the output has `len` floats, and each part as many of both sums; no task runs any more.
            unsafe {
                let sum = std::slice::from_raw_parts_mut(sum.get(), self.len);
                sum.fill(0.0);
                for p in 0..parts.len() {
                    let part = scratch.of(p, 2 * self.len).add(k * self.len);
                    let part = std::slice::from_raw_parts(part, self.len);
                    sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
                }
            }
        }
        Ok(())
    }
}

/// Some rows.
struct Part<'a> {
    size: &'a NormGrad,
    /// `x`, the scale, its gradient, and that of `x`.
    at: [Ptr<f32>; 4],
    sums: *mut f32,
    rows: std::ops::Range<usize>,
}

impl Vectorised for Part<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let NormGrad { len, epsilon, .. } = *self.size;
        let [x, scale, dy, dx] = self.at;
        // SAFETY: the rows are within the inputs and the output, and the sums are this part's own.
        unsafe {
            std::slice::from_raw_parts_mut(self.sums, 2 * len).fill(0.0);
            for row in self.rows {
                let (x, dy, dx) = (
                    x.get().add(row * len),
                    dy.get().add(row * len),
                    dx.get().add(row * len),
                );
                one(s, [x, scale.get(), dy], dx, self.sums, (len, epsilon));
            }
        }
    }
}

/// # Safety
///
/// As many floats as a row has are readable at `x`, and writable at `to`; twice as many at `sums`.
#[inline(always)]
unsafe fn one<S: Simd>(
    s: S,
    [x, w, dy]: [*const f32; 3],
    to: *mut f32,
    sums: *mut f32,
    (n, epsilon): (usize, f32),
) {
    // SAFETY: as the caller says; `to` may be an input, for each element is read before it is written.
    unsafe {
        let (mean, inverse) = moments(s, x, n, true, epsilon);
        let (mean, inverse) = (s.splat(mean as f32), s.splat(inverse as f32));
        let normal = |i, m| s.mul(s.sub(load(s, x.add(i), m), mean), inverse);
        let (mut of_g, mut of_both) = (s.splat(0.0), s.splat(0.0));
        for i in (0..n).step_by(S::LANES) {
            let m = S::LANES.min(n - i);
            let (d, x) = (load(s, dy.add(i), m), normal(i, m));
            let g = s.mul(d, load(s, w.add(i), m));
            of_g = s.add(of_g, g);
            // Lanes behind the end are `-mean` in `x`, and 0 in the gradient.
            of_both = s.fma(g, x, of_both);
            let (scale, bias) = (sums.add(i), sums.add(n + i));
            store(s, scale, m, s.fma(d, x, load(s, scale, m)));
            store(s, bias, m, s.add(d, load(s, bias, m)));
        }
        let of_g = s.splat(s.sum(of_g) / n as f32);
        let of_both = s.splat(s.sum(of_both) / n as f32);
        for i in (0..n).step_by(S::LANES) {
            let m = S::LANES.min(n - i);
            let (d, x) = (load(s, dy.add(i), m), normal(i, m));
            let g = s.sub(s.mul(d, load(s, w.add(i), m)), of_g);
            store(s, to.add(i), m, s.mul(s.sub(g, s.mul(x, of_both)), inverse));
        }
    }
}
