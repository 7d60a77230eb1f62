//! What is done with rows of scores.

use std::f32::consts::{LN_2, LOG2_E};

use secateur_simd::{Simd, Vectorised, dispatch, math};

use super::QUERIES;
use super::tiles::Step;

/// One step of the softmax of a task's rows.
pub(super) struct Rows<'a> {
    /// The scores, which become shares.
    pub(super) scores: *mut f32,
    /// From row to row of the scores.
    pub(super) pitch: usize,
    /// The keys of this step.
    pub(super) step: &'a Step,
    /// Rows.
    pub(super) count: usize,
    /// The first key that row 0 does not see, and how much later that of each next row is; none where `None`.
    pub(super) open: Option<(usize, usize)>,
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
    /// Whether the mask has truth values, and its elements from row to row.
    pub(super) mask: Option<(bool, usize)>,
}

impl Rows<'_> {
    /// Makes the step.
    ///
    /// # Safety
    ///
    /// All that the fields describe is there, rows of scores with room for one more vector, and nobody else sees what
    /// is written.
    pub(super) unsafe fn run(&self) {
        dispatch(Softmax(self));
    }

    /// The columns that row `r` sees; not fewer than the row before.
    pub(super) fn seen(&self, r: usize) -> usize {
        match self.open {
            None => self.step.keys,
            Some((open, step)) => self.step.before(open + r * step),
        }
    }
}

struct Softmax<'a>(&'a Rows<'a>);

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

impl Rows<'_> {
    /// # Safety
    ///
    /// As for [`run`](Rows::run).
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, s: S, r: usize) {
        let (x, n, all) = (
            self.scores.wrapping_add(r * self.pitch),
            self.seen(r),
            self.step.keys,
        );
        let (greatest, sum) = (self.state.wrapping_add(r), self.state.wrapping_add(QUERIES + r));
        // SAFETY: a row has room for a further vector; the rest is as the caller says.
        unsafe {
            (n..n.next_multiple_of(S::LANES)).for_each(|i| *x.add(i) = f32::NEG_INFINITY);
            if self.softcap > 0.0 {
                self.cap(s, x, n);
            }
            if let Some((bools, row)) = self.mask {
                for (columns, mask) in self.step.masked().filter(|(c, _)| c.start < n) {
                    let (x, n) = (x.add(columns.start), columns.end.min(n) - columns.start);
                    match bools {
                        true => hide(x, mask.add(r * row), n),
                        false => add(s, x, mask.cast::<f32>().add(r * row), n),
                    }
                }
            }
            let (old, kept) = match self.begun {
                true => (*greatest, *sum),
                false => (f32::NEG_INFINITY, 0.0),
            };
            let new = old.max(most(s, x, n));
            *greatest = new;
            if new == f32::NEG_INFINITY {
                // The search for the greatest passes over NaN.
                let odd = (0..n).any(|i| (*x.add(i)).is_nan()) || kept.is_nan();
                *sum = if odd { f32::NAN } else { 0.0 };
                x.write_bytes(0, all);
                return;
            }
            let total = shares(s, x, n, new);
            x.add(n).write_bytes(0, all - n);
            *sum = total;
            if self.begun {
                let factor = (old - new).exp();
                *sum += kept * factor;
                if factor != 1.0 {
                    scale(s, self.out.add(r * self.out_row), self.width, factor);
                }
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

/// Vectors of a row that are looked at together.
const TOGETHER: usize = 4;

/// The greatest of `n` floats, NaN aside.
///
/// # Safety
///
/// They are there, and as many more as fill a vector.
#[inline(always)]
unsafe fn most<S: Simd>(s: S, x: *const f32, n: usize) -> f32 {
    let mut most = [s.splat(f32::NEG_INFINITY); TOGETHER];
    let whole = n - n % (TOGETHER * S::LANES);
    // SAFETY: as the caller says.
    unsafe {
        for i in (0..whole).step_by(TOGETHER * S::LANES) {
            for (v, most) in most.iter_mut().enumerate() {
                *most = s.max(s.load(x.add(i + v * S::LANES)), *most);
            }
        }
        for i in (whole..n).step_by(S::LANES) {
            most[0] = s.max(s.load(x.add(i)), most[0]);
        }
    }
    s.greatest(s.max(s.max(most[0], most[1]), s.max(most[2], most[3])))
}

/// Makes shares of `n` scores of which none is above `shift`; gives their sum.
///
/// # Safety
///
/// As for [`most`], and nobody else sees them.
#[inline(always)]
unsafe fn shares<S: Simd>(s: S, x: *mut f32, n: usize, shift: f32) -> f32 {
    let (mut sums, shift) = ([s.splat(0.0); 2], s.splat(shift));
    for i in (0..n).step_by(2 * S::LANES) {
        for (v, sum) in sums.iter_mut().enumerate() {
            let at = i + v * S::LANES;
            if at < n {
                // SAFETY: as the caller says.
                unsafe {
                    let e = power(s, s.sub(s.load(x.add(at)), shift));
                    s.store(x.add(at), e);
                    *sum = s.add(*sum, e);
                }
            }
        }
    }
    s.sum(s.add(sums[0], sums[1]))
}

/// Below this, [`power`] is 0.
const LOWEST: f32 = -88.0;
/// 1.5 * 2^23 and the bias of exponents: adding it leaves the exponent of the nearest power of two in the low bits.
const SHIFT: f32 = 12582912.0 + 127.0;

/// `e^x` for `x <= 0`, less than 2e-7 away; 0 instead of denormal numbers.
#[inline(always)]
fn power<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // NaN is the second operand, which is what this returns then.
    let x = s.max(s.splat(LOWEST), x);
    let (shift, log2e) = (s.splat(SHIFT), s.splat(LOG2_E));
    let shifted = s.fma(x, log2e, shift);
    let r = s.fma(x, log2e, s.sub(shift, shifted));
    // 2^r for |r| <= 1/2, by a minimax polynomial.
    let mut y = s.splat(0.0013300607);
    for c in [0.009669691, 0.055505585, 0.24022283, LN_2, 1.0] {
        y = s.fma(y, r, s.splat(c));
    }
    s.mul(y, s.from_bits(s.shl_i32::<23>(s.bits(shifted))))
}

/// # Safety
///
/// Both have `n` elements.
#[inline(always)]
unsafe fn hide(x: *mut f32, seen: *const u8, n: usize) {
    for i in 0..n {
        // SAFETY: as the caller says.
        unsafe {
            // Without a branch, so that this is done with vectors.
            let score = *x.add(i);
            *x.add(i) = if *seen.add(i) == 0 {
                f32::NEG_INFINITY
            } else {
                score
            };
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Powers(Vec<f32>);

    impl Vectorised for Powers {
        type Out = Vec<f32>;
        #[inline(always)]
        fn run<S: Simd>(mut self, s: S) -> Vec<f32> {
            for x in self.0.chunks_exact_mut(S::LANES) {
                // SAFETY: these are as many floats as a vector has.
                unsafe { s.store(x.as_mut_ptr(), power(s, s.load(x.as_ptr()))) };
            }
            self.0
        }
    }

    #[test]
    fn powers_are_near_and_end_in_zero() {
        let x: Vec<f32> = (0..1 << 17).map(|i| i as f32 * -7e-4).collect();
        for (x, y) in x.iter().zip(dispatch(Powers(x.clone()))) {
            let want = f64::from(*x).exp();
            assert!((f64::from(y) - want).abs() < 2e-7, "{x}: {y}, {want}");
        }
        let odd = [0.0, f32::NAN, f32::NEG_INFINITY, f32::MIN].repeat(4);
        let y = dispatch(Powers(odd));
        assert!(y[0] == 1.0 && y[1].is_nan() && y[2..4] == [0.0; 2], "{y:?}");
    }
}
