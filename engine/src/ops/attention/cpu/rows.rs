//! What is done with rows of scores.

use secateur_simd::{Simd, Vectorised, dispatch, math};

use super::QUERIES;

/// One step of the softmax of a task's rows.
pub(super) struct Rows {
    /// The scores, which become shares.
    pub(super) scores: *mut f32,
    /// From row to row of the scores.
    pub(super) pitch: usize,
    /// Keys in this step.
    pub(super) keys: usize,
    /// Rows.
    pub(super) count: usize,
    /// How many of the keys row 0 sees, and how many more each next row does; all where `None`.
    pub(super) open: Option<(isize, usize)>,
    /// The greatest score of each row so far; [`QUERIES`] floats on, the sums.
    pub(super) state: *mut f32,
    /// What was mixed so far.
    pub(super) out: *mut f32,
    /// From row to row of it.
    pub(super) out_row: usize,
    /// Its columns.
    pub(super) width: usize,
    /// Whether there was a step before.
    pub(super) begun: bool,
    /// Where scores are softly cut off; 0 for nowhere.
    pub(super) softcap: f32,
    /// The mask of row 0: its first element, whether it has truth values, and the elements from row to row.
    pub(super) mask: Option<(*const u8, bool, usize)>,
}

impl Rows {
    /// Makes the step.
    ///
    /// # Safety
    ///
    /// All that the fields describe is there, rows of scores with room for one more vector, and nobody else sees what
    /// is written.
    pub(super) unsafe fn run(&self) {
        dispatch(Softmax(self));
    }

    /// The keys that row `r` sees.
    fn seen(&self, r: usize) -> usize {
        match self.open {
            None => self.keys,
            Some((open, step)) => usize::try_from(open + (r * step) as isize)
                .unwrap_or(0)
                .min(self.keys),
        }
    }
}

struct Softmax<'a>(&'a Rows);

impl Vectorised for Softmax<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for r in 0..self.0.count {
            // SAFETY: `Rows::run` is promised all this.
            unsafe { self.0.row(s, r) };
        }
    }
}

impl Rows {
    /// # Safety
    ///
    /// As for [`run`](Rows::run).
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, s: S, r: usize) {
        let (x, n) = (self.scores.wrapping_add(r * self.pitch), self.seen(r));
        let (greatest, sum) = (self.state.wrapping_add(r), self.state.wrapping_add(QUERIES + r));
        let vectors = || (0..n).step_by(S::LANES);
        // SAFETY: a row has room for a further vector; the rest is as the caller says.
        unsafe {
            let filled = n.next_multiple_of(S::LANES);
            (n..filled.max(self.keys)).for_each(|i| *x.add(i) = f32::NEG_INFINITY);
            if self.softcap > 0.0 {
                self.cap(s, x, n);
            }
            if let Some((mask, bools, row)) = self.mask {
                match bools {
                    true => hide(x, mask.add(r * row), n),
                    false => add(s, x, mask.cast::<f32>().add(r * row), n),
                }
            }
            let mut most = s.splat(f32::NEG_INFINITY);
            for i in vectors() {
                most = s.max(s.load(x.add(i)), most);
            }
            let (old, kept) = match self.begun {
                true => (*greatest, *sum),
                false => (f32::NEG_INFINITY, 0.0),
            };
            let new = old.max(s.greatest(most));
            *greatest = new;
            if new == f32::NEG_INFINITY {
                // The search for the greatest passes over NaN.
                let odd = (0..n).any(|i| (*x.add(i)).is_nan()) || kept.is_nan();
                *sum = if odd { f32::NAN } else { 0.0 };
                (0..self.keys).for_each(|i| *x.add(i) = 0.0);
                return;
            }
            let (mut all, shift) = (s.splat(0.0), s.splat(new));
            for i in vectors() {
                let e = math::exp(s, s.sub(s.load(x.add(i)), shift));
                s.store(x.add(i), e);
                all = s.add(all, e);
            }
            (n..self.keys).for_each(|i| *x.add(i) = 0.0);
            let factor = (old - new).exp();
            *sum = kept * factor + s.sum(all);
            if self.begun && factor != 1.0 {
                scale(s, self.out.add(r * self.out_row), self.width, factor);
            }
        }
    }

    /// # Safety
    ///
    /// `n` floats are there, and room for a further vector.
    #[inline(always)]
    unsafe fn cap<S: Simd>(&self, s: S, x: *mut f32, n: usize) {
        let (cap, back) = (s.splat(self.softcap), s.splat(1.0 / self.softcap));
        for i in (0..n).step_by(S::LANES) {
            // SAFETY: as the caller says.
            unsafe {
                let (p, left) = (x.add(i), S::LANES.min(n - i));
                let y = math::tanh(s, s.mul(s.load_first(p, left), back));
                s.store_first(p, left, s.mul(y, cap));
            }
        }
    }
}

/// # Safety
///
/// Both have `n` elements.
#[inline(always)]
unsafe fn hide(x: *mut f32, seen: *const u8, n: usize) {
    for i in 0..n {
        // SAFETY: as the caller says.
        unsafe {
            if *seen.add(i) == 0 {
                *x.add(i) = f32::NEG_INFINITY;
            }
        }
    }
}

/// # Safety
///
/// Both have `n` elements.
#[inline(always)]
unsafe fn add<S: Simd>(s: S, x: *mut f32, mask: *const f32, n: usize) {
    for i in (0..n).step_by(S::LANES) {
        // SAFETY: as the caller says.
        unsafe {
            let (p, left) = (x.add(i), S::LANES.min(n - i));
            let y = s.add(s.load_first(p, left), s.load_first(mask.add(i), left));
            s.store_first(p, left, y);
        }
    }
}

/// # Safety
///
/// `n` floats are there.
#[inline(always)]
unsafe fn scale<S: Simd>(s: S, x: *mut f32, n: usize, factor: f32) {
    let factor = s.splat(factor);
    for i in (0..n).step_by(S::LANES) {
        // SAFETY: as the caller says.
        unsafe {
            let (p, left) = (x.add(i), S::LANES.min(n - i));
            s.store_first(p, left, s.mul(s.load_first(p, left), factor));
        }
    }
}

/// Divides what was mixed by the sums.
pub(super) struct Finish {
    /// The rows.
    pub(super) out: *mut f32,
    /// From row to row.
    pub(super) out_row: usize,
    /// Columns.
    pub(super) width: usize,
    /// Rows.
    pub(super) count: usize,
    /// The sums; `None` where nothing was mixed.
    pub(super) sums: Option<*const f32>,
}

impl Finish {
    /// Divides, or writes zeros.
    ///
    /// # Safety
    ///
    /// The rows are writable, and there is a sum for each.
    pub(super) unsafe fn run(self) {
        dispatch(self);
    }
}

impl Vectorised for Finish {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for r in 0..self.count {
            // SAFETY: `Finish::run` is promised all this.
            unsafe {
                let row = self.out.add(r * self.out_row);
                match self.sums.map(|sums| *sums.add(r)) {
                    None => row.write_bytes(0, self.width),
                    Some(0.0) => row.write_bytes(0, self.width),
                    Some(sum) => scale(s, row, self.width, 1.0 / sum),
                }
            }
        }
    }
}

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
