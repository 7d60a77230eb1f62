//! Softmax and its logarithm.

use secateur_simd::{Simd, Vectorised, dispatch, math};

use super::arg::Along;
use super::blocks::{self, Block};
use super::elementwise::{Ptr, source, target};
use super::rowwise::{RowFn, map_row, map_rows, update_rows};
use super::{Io, Kernel};
use crate::ir::DType;

/// The kernel along the axis in the middle, or of its logarithm.
pub fn kernel(dtype: DType, along: Along, log: bool) -> Option<Box<dyn Kernel>> {
    let Along { outer, size, inner } = along;
    let row = Softmax { log };
    if dtype == DType::F32 && inner == 1 {
        return Some(Box::new(move |io: &mut Io| map_rows(io, outer, size, row)));
    }
    if dtype == DType::F32 {
        return Some(Box::new(move |io: &mut Io| columns(io, along, log)));
    }
    if let Some(half) = blocks::floats(dtype) {
        return Some(Box::new(move |io: &mut Io| {
            update_rows(io, along, half, &|r, x| map_row(x, r, row));
        }));
    }
    let double: Block<f64> = blocks::doubles(dtype).filter(|_| dtype == DType::F64)?;
    Some(Box::new(move |io: &mut Io| {
        update_rows(io, along, double, &|_, x| by_definition(x, log));
    }))
}

/// Softmax of a row, or its logarithm, in place.
pub fn by_definition(x: &mut [f64], log: bool) {
    let greatest = x.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f64 = x.iter().map(|x| (x - greatest).exp()).sum();
    let finish = |x: f64| {
        if log {
            x - greatest - sum.ln()
        } else {
            (x - greatest).exp() / sum
        }
    };
    x.iter_mut().for_each(|x| *x = finish(*x));
}

/// Softmax of a row, or its logarithm.
#[derive(Clone, Copy)]
pub struct Softmax {
    /// Whether the logarithm is wanted.
    pub log: bool,
}

impl RowFn for Softmax {
    #[inline(always)]
    unsafe fn row<S: Simd>(self, s: S, _: usize, from: *const f32, to: *mut f32, n: usize) {
        // SAFETY: as the caller says; each pass reads an element before it writes it.
        unsafe {
            let greatest = s.splat(greatest(s, from, n));
            let sum = exponentials(s, from, to, n, greatest, !self.log);
            if self.log {
                let shift = s.splat(sum.ln());
                each(
                    s,
                    from,
                    to,
                    n,
                    #[inline(always)]
                    |x| s.sub(s.sub(x, greatest), shift),
                );
            } else {
                let factor = s.splat(1.0 / sum);
                each(
                    s,
                    to,
                    to,
                    n,
                    #[inline(always)]
                    |x| s.mul(x, factor),
                );
            }
        }
    }
}

/// The greatest of `n` floats; NaN may be passed over.
///
/// # Safety
///
/// They are readable.
#[inline(always)]
unsafe fn greatest<S: Simd>(s: S, x: *const f32, n: usize) -> f32 {
    let mut acc = [s.splat(f32::NEG_INFINITY); 4];
    let mut i = 0;
    // SAFETY: as the caller says.
    unsafe {
        while i + 4 * S::LANES <= n {
            for (k, acc) in acc.iter_mut().enumerate() {
                *acc = s.max(s.load(x.add(i + k * S::LANES)), *acc);
            }
            i += 4 * S::LANES;
        }
        while i + S::LANES <= n {
            acc[0] = s.max(s.load(x.add(i)), acc[0]);
            i += S::LANES;
        }
        let all = s.max(s.max(acc[0], acc[1]), s.max(acc[2], acc[3]));
        let rest = (i..n).map(|i| *x.add(i));
        rest.fold(s.greatest(all), f32::max)
    }
}

/// The sum of `e^(x - greatest)`, each written to `to` if `keep`.
///
/// # Safety
///
/// `n` floats are readable at `from` and writable at `to`.
#[inline(always)]
unsafe fn exponentials<S: Simd>(
    s: S,
    from: *const f32,
    to: *mut f32,
    n: usize,
    greatest: S::F32,
    keep: bool,
) -> f32 {
    let mut acc = [s.splat(0.0); 2];
    let even = n - n % S::LANES;
    // SAFETY: as the caller says.
    unsafe {
        for i in (0..even).step_by(S::LANES) {
            let e = math::exp(s, s.sub(s.load(from.add(i)), greatest));
            if keep {
                s.store(to.add(i), e);
            }
            acc[i / S::LANES % 2] = s.add(acc[i / S::LANES % 2], e);
        }
        let mut sum = s.sum(s.add(acc[0], acc[1]));
        if even < n {
            let mut rest = [f32::NEG_INFINITY; 64];
            assert!(S::LANES <= rest.len());
            rest.as_mut_ptr().copy_from(from.add(even), n - even);
            let e = math::exp(s, s.sub(s.load(rest.as_ptr()), greatest));
            s.store(rest.as_mut_ptr(), e);
            sum += rest[..n - even].iter().sum::<f32>();
            if keep {
                to.add(even).copy_from(rest.as_ptr(), n - even);
            }
        }
        sum
    }
}

/// `to[i] = f(from[i])`
///
/// # Safety
///
/// `n` floats are readable at `from` and writable at `to`.
#[inline(always)]
unsafe fn each<S: Simd>(s: S, from: *const f32, to: *mut f32, n: usize, f: impl Fn(S::F32) -> S::F32) {
    let even = n - n % S::LANES;
    // SAFETY: as the caller says.
    unsafe {
        for i in (0..even).step_by(S::LANES) {
            s.store(to.add(i), f(s.load(from.add(i))));
        }
        let rest = f(s.load_first(from.add(even), n - even));
        s.store_first(to.add(even), n - even, rest);
    }
}

/// Columns that a task handles at least.
const WIDE: usize = 64;

fn columns(io: &mut Io, along: Along, log: bool) {
    let Along { outer, size, inner } = along;
    let len = outer * size * inner;
    let (x, out) = (source::<f32>(io, 0, len), target::<f32>(io, 0, len));
    let pieces = inner.div_ceil(WIDE);
    io.pool.run(outer * pieces, &|task| {
        let (row, column) = (task / pieces, task % pieces * WIDE);
        let at = row * size * inner + column;
        dispatch(Columns {
            x,
            out,
            at,
            size,
            stride: inner,
            n: WIDE.min(inner - column),
            log,
        });
    });
}

struct Columns {
    x: Ptr<f32>,
    out: Ptr<f32>,
    at: usize,
    size: usize,
    stride: usize,
    n: usize,
    log: bool,
}

impl Vectorised for Columns {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for c in (0..self.n).step_by(S::LANES) {
            // SAFETY: whoever made it says that the columns are within both tensors.
            unsafe {
                let (x, out) = (self.x.get().add(self.at + c), self.out.get().add(self.at + c));
                self.vector(s, x, out, S::LANES.min(self.n - c));
            }
        }
    }
}

impl Columns {
    /// Up to a vector of columns.
    ///
    /// # Safety
    ///
    /// `n` columns of `size` rows are readable at `x` and writable at `out`.
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, s: S, x: *const f32, out: *mut f32, n: usize) {
        let rows = || (0..self.size).map(|k| k * self.stride);
        // SAFETY: as the caller says; each pass reads an element before it writes it.
        unsafe {
            let mut greatest = s.splat(f32::NEG_INFINITY);
            for k in rows() {
                greatest = s.max(s.load_first(x.add(k), n), greatest);
            }
            let mut sum = s.splat(0.0);
            for k in rows() {
                let e = math::exp(s, s.sub(s.load_first(x.add(k), n), greatest));
                sum = s.add(sum, e);
                if !self.log {
                    s.store_first(out.add(k), n, e);
                }
            }
            if self.log {
                let shift = math::log(s, sum);
                for k in rows() {
                    let y = s.sub(s.sub(s.load_first(x.add(k), n), greatest), shift);
                    s.store_first(out.add(k), n, y);
                }
            } else {
                let factor = s.div(s.splat(1.0), sum);
                for k in rows() {
                    s.store_first(out.add(k), n, s.mul(s.load_first(out.add(k), n), factor));
                }
            }
        }
    }
}
