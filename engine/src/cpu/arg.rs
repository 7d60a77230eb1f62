//! The position of the greatest or least element along an axis.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::elementwise::{source, target};
use super::number::{ByType, Int, Real, by_type};
use super::reduce::{Greatest, Least, fold_run};
use super::walk::CHUNK;
use super::{Io, Kernel};
use crate::ir::{DType, Element};

/// Columns that are handled together.
const WIDE: usize = 128;

/// A tensor seen as `[outer, size, inner]`; the axis in the middle is searched.
#[derive(Clone, Copy, Debug)]
pub struct Along {
    /// The product of the sizes of the axes before.
    pub outer: usize,
    /// The size of the axis.
    pub size: usize,
    /// The product of the sizes of the axes behind.
    pub inner: usize,
}

impl Along {
    /// Columns that a piece has at most, pieces of each row of columns, and pieces of a task.
    fn cut(&self) -> (usize, usize, usize) {
        let wide = self.inner.clamp(1, WIDE);
        (
            wide,
            self.inner.div_ceil(wide),
            (CHUNK / (self.size * wide).max(1)).max(1),
        )
    }
}

/// The kernel for elements of type `dtype`: the least where `least`, the last of equal ones where `last`.
pub fn kernel(dtype: DType, along: Along, least: bool, last: bool) -> Option<Box<dyn Kernel>> {
    let seek = Seek { along, least, last };
    match dtype {
        DType::F32 if along.inner == 1 && along.size >= 32 => Some(rows(seek)),
        // Positions are counted as floats, which are exact so far.
        DType::F32 if along.inner > 1 && along.size < 1 << 24 => Some(float_columns(seek)),
        _ => by_type(dtype, seek),
    }
}

#[derive(Clone, Copy)]
struct Seek {
    along: Along,
    least: bool,
    last: bool,
}

impl ByType for Seek {
    type Out = Box<dyn Kernel>;
    fn real<T: Real>(self) -> Box<dyn Kernel> {
        self.columns::<T>()
    }
    fn int<T: Int>(self) -> Box<dyn Kernel> {
        self.columns::<T>()
    }
}

impl Seek {
    /// Whether `x`, which stands behind `best`, takes its place. NaN takes any but NaN.
    #[inline(always)]
    #[expect(clippy::eq_op, reason = "only NaN differs from itself")]
    fn beats<T: PartialOrd>(self, x: T, best: T) -> bool {
        let ahead = if self.least { x < best } else { x > best };
        let (nan, best_nan) = (x != x, best != best);
        ahead || (nan && !best_nan) || (self.last && (x == best || (nan && best_nan)))
    }

    fn columns<T: Element>(self) -> Box<dyn Kernel> {
        let Along { outer, size, inner } = self.along;
        Box::new(move |io: &mut Io| {
            let x = source::<T>(io, 0, outer * size * inner);
            let out = target::<i64>(io, 0, outer * inner);
            let (wide, pieces, each) = self.along.cut();
            let all = outer * pieces;
            io.pool.run(all.div_ceil(each), &|task| {
                for p in task * each..all.min((task + 1) * each) {
                    let (row, column) = (p / pieces, p % pieces * wide);
                    let n = wide.min(inner - column);
                    // SAFETY: the columns are within the tensors whose sizes were checked; only this task has them.
                    unsafe {
                        let x = x.get().add(row * size * inner + column);
                        let out = std::slice::from_raw_parts_mut(out.get().add(row * inner + column), n);
                        self.piece(x, inner, size, out);
                    }
                }
            });
        })
    }

    /// # Safety
    ///
    /// `size` rows of as many elements as `out` has are readable at `x`, `stride` apart.
    unsafe fn piece<T: Element>(self, x: *const T, stride: usize, size: usize, out: &mut [i64]) {
        let mut best = [T::zeroed(); WIDE];
        for k in 0..size {
            for (i, (best, out)) in best.iter_mut().zip(&mut *out).enumerate() {
                // SAFETY: as the caller says.
                let x = unsafe { *x.add(k * stride + i) };
                if k == 0 || self.beats(x, *best) {
                    (*best, *out) = (x, k as i64);
                }
            }
        }
    }
}

/// Columns of floats, a vector of them at a time.
fn float_columns(seek: Seek) -> Box<dyn Kernel> {
    let Along { outer, size, inner } = seek.along;
    Box::new(move |io: &mut Io| {
        let x = source::<f32>(io, 0, outer * size * inner);
        let out = target::<i64>(io, 0, outer * inner);
        let (wide, pieces, each) = seek.along.cut();
        let all = outer * pieces;
        io.pool.run(all.div_ceil(each), &|task| {
            for p in task * each..all.min((task + 1) * each) {
                let (row, column) = (p / pieces, p % pieces * wide);
                let n = wide.min(inner - column);
                // SAFETY: the columns are within the tensors whose sizes were checked; only this task has them.
                let (x, out) = unsafe {
                    let out = out.get().add(row * inner + column);
                    let x = x.get().add(row * size * inner + column);
                    (x, std::slice::from_raw_parts_mut(out, n))
                };
                dispatch(Columns { seek, x, out });
            }
        });
    })
}

struct Columns<'a> {
    seek: Seek,
    x: *const f32,
    out: &'a mut [i64],
}

impl Vectorised for Columns<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut places = [0.0f32; 64];
        assert!(S::LANES <= places.len());
        for c in (0..self.out.len()).step_by(S::LANES) {
            let n = S::LANES.min(self.out.len() - c);
            // SAFETY: whoever made it says that the columns are readable; the array has as many floats as a vector.
            unsafe {
                let best = self.seek.vector(s, self.x.add(c), n);
                s.store(places.as_mut_ptr(), best);
            }
            for (out, place) in self.out[c..c + n].iter_mut().zip(places) {
                *out = place as i64;
            }
        }
    }
}

impl Seek {
    /// The positions for `n` columns, at most a vector.
    ///
    /// # Safety
    ///
    /// The columns are readable from `x` on.
    #[inline(always)]
    unsafe fn vector<S: Simd>(self, s: S, x: *const f32, n: usize) -> S::F32 {
        let Along { size, inner, .. } = self.along;
        let (mut best, mut place) = (s.splat(f32::NEG_INFINITY), s.splat(0.0));
        for k in 0..size {
            // SAFETY: as the caller says.
            let x = unsafe { s.load_first(x.add(k * inner), n) };
            let x = if self.least { s.neg(x) } else { x };
            let here = s.splat(k as f32);
            if k == 0 {
                best = x;
                continue;
            }
            // NaN takes the place of all but NaN; nothing takes its place but, if the last is sought, NaN.
            let over_nan = if self.last { here } else { place };
            let as_nan = s.select(s.eq(best, best), here, over_nan);
            let as_number = if self.last {
                let ahead = s.select(s.lt(x, best), place, here);
                s.select(s.eq(best, best), ahead, place)
            } else {
                s.select(s.lt(best, x), here, place)
            };
            place = s.select(s.eq(x, x), as_number, as_nan);
            best = s.select(s.eq(x, x), s.select(s.lt(best, x), x, best), x);
        }
        place
    }
}

/// Rows of floats: the greatest is found first, then its place.
fn rows(seek: Seek) -> Box<dyn Kernel> {
    let Along { outer, size, .. } = seek.along;
    Box::new(move |io: &mut Io| {
        let x = source::<f32>(io, 0, outer * size);
        let out = target::<i64>(io, 0, outer);
        let each = (CHUNK / size).max(1);
        io.pool.run(outer.div_ceil(each), &|task| {
            for row in task * each..outer.min((task + 1) * each) {
                // SAFETY: the row is within the tensor whose size was checked.
                let x = unsafe { std::slice::from_raw_parts(x.get().add(row * size), size) };
                let best = if seek.least {
                    fold_run::<Least>(x)
                } else {
                    fold_run::<Greatest>(x)
                };
                let found = |x: &f32| *x == best || (x.is_nan() && best.is_nan());
                let at = match seek.last {
                    false => x.iter().position(found),
                    true => x.iter().rposition(found),
                };
                // SAFETY: within the output whose size was checked; only this task has it.
                unsafe { *out.get().add(row) = at.unwrap_or(0) as i64 };
            }
        });
    })
}
