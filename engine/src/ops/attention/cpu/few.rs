//! Scores and values of a few rows, with keys and values as they lie.

use secateur_simd::{Simd, Vectorised, dispatch};

/// Scores of a few rows: `to[r, j] = scale * a[r] . lines[j]`.
pub(super) struct Dots {
    /// The rows.
    pub(super) a: *const f32,
    /// From row to row.
    pub(super) a_row: usize,
    /// Their number.
    pub(super) rows: usize,
    /// The lines.
    pub(super) lines: *const f32,
    /// From line to line.
    pub(super) row: usize,
    /// Their number.
    pub(super) count: usize,
    /// Numbers of a row and a line.
    pub(super) size: usize,
    /// What products are multiplied by.
    pub(super) scale: f32,
    /// The scores.
    pub(super) to: *mut f32,
    /// From row to row of them.
    pub(super) pitch: usize,
}

impl Dots {
    /// Computes the scores.
    ///
    /// # Safety
    ///
    /// All that the fields describe is there, and nobody else sees the scores.
    pub(super) unsafe fn run(self) {
        dispatch(self);
    }
}

impl Vectorised for Dots {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for j in 0..self.count {
            let line = self.lines.wrapping_add(j * self.row);
            for r in 0..self.rows {
                // SAFETY: `Dots::run` is promised all this.
                unsafe {
                    let product = dot(s, self.a.add(r * self.a_row), line, self.size);
                    *self.to.add(r * self.pitch + j) = self.scale * product;
                }
            }
        }
    }
}

/// # Safety
///
/// Both have `n` floats.
#[inline(always)]
unsafe fn dot<S: Simd>(s: S, a: *const f32, b: *const f32, n: usize) -> f32 {
    let mut acc = [s.splat(0.0); 4];
    let mut i = 0;
    // SAFETY: as the caller says.
    unsafe {
        while i + 4 * S::LANES <= n {
            for (k, acc) in acc.iter_mut().enumerate() {
                let at = i + k * S::LANES;
                *acc = s.fma(s.load(a.add(at)), s.load(b.add(at)), *acc);
            }
            i += 4 * S::LANES;
        }
        while i < n {
            let left = S::LANES.min(n - i);
            acc[0] = s.fma(s.load_first(a.add(i), left), s.load_first(b.add(i), left), acc[0]);
            i += left;
        }
    }
    s.sum(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3])))
}

/// Values of a few rows: `to[r] = [to[r] +] sum of parts[r, j] * lines[j]`.
pub(super) struct Mix {
    /// The shares.
    pub(super) parts: *const f32,
    /// From row to row of them.
    pub(super) pitch: usize,
    /// Rows.
    pub(super) rows: usize,
    /// The lines.
    pub(super) lines: *const f32,
    /// From line to line.
    pub(super) row: usize,
    /// Their number.
    pub(super) count: usize,
    /// Numbers of a line.
    pub(super) size: usize,
    /// The rows of the result.
    pub(super) to: *mut f32,
    /// From row to row of it.
    pub(super) to_row: usize,
    /// Whether they hold something already.
    pub(super) more: bool,
}

impl Mix {
    /// Computes the result.
    ///
    /// # Safety
    ///
    /// All that the fields describe is there, and nobody else sees the result.
    pub(super) unsafe fn run(self) {
        dispatch(self);
    }
}

/// Vectors of a row that are summed at a time.
const WIDE: usize = 4;

impl Vectorised for Mix {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let wide = WIDE * S::LANES;
        for r in 0..self.rows {
            let (parts, to) = (
                self.parts.wrapping_add(r * self.pitch),
                self.to.wrapping_add(r * self.to_row),
            );
            let whole = self.size - self.size % wide;
            for c in (0..whole).step_by(wide) {
                // SAFETY: `Mix::run` is promised all this.
                unsafe { self.sum::<S, WIDE>(s, parts, c, to.wrapping_add(c), S::LANES) };
            }
            for c in (whole..self.size).step_by(S::LANES) {
                let left = S::LANES.min(self.size - c);
                // SAFETY: as above.
                unsafe { self.sum::<S, 1>(s, parts, c, to.wrapping_add(c), left) };
            }
        }
    }
}

impl Mix {
    /// `V` vectors of a row from column `c` on, each of `n` numbers.
    ///
    /// # Safety
    ///
    /// As for [`run`](Mix::run).
    #[inline(always)]
    unsafe fn sum<S: Simd, const V: usize>(&self, s: S, parts: *const f32, c: usize, to: *mut f32, n: usize) {
        // SAFETY: as the caller says.
        unsafe {
            let mut acc = [s.splat(0.0); V];
            if self.more {
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = s.load_first(to.add(v * S::LANES), n);
                }
            }
            for j in 0..self.count {
                let (part, line) = (s.splat(*parts.add(j)), self.lines.add(j * self.row + c));
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = s.fma(part, s.load_first(line.add(v * S::LANES), n), *acc);
                }
            }
            for (v, acc) in acc.into_iter().enumerate() {
                s.store_first(to.add(v * S::LANES), n, acc);
            }
        }
    }
}
