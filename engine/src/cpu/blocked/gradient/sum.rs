//! The innermost loop: sums over pixels of the products of some channels with a panel of others, kept in registers.

use std::ops::Range;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::super::BLOCK;
use super::super::direct::Spot;
use super::super::tile::width;
use crate::cpu::gemm::balanced;

/// `sums[row] = [sums[row] +] Σ x[row, pixel] y[pixel]`, a panel of `y`'s channels wide.
#[derive(Clone, Copy)]
pub(super) struct Sum<'a> {
    /// The first pixel; pixels stand [`BLOCK`] floats apart, or one.
    pub(super) x: *const f32,
    /// Where, from there, each row begins.
    pub(super) rows: &'a [usize],
    /// The first pixel of the first block, pixels [`BLOCK`] floats apart.
    pub(super) y: *const f32,
    /// Floats from block to block of `y`.
    pub(super) y_block: usize,
    /// Blocks of `y` that are multiplied.
    pub(super) blocks: usize,
    /// The pixels: where they stand in `x`, and which they are of `y`.
    pub(super) spots: &'a [Spot],
    /// One panel's width for each row.
    pub(super) sums: *mut f32,
    /// Whether to add to what `sums` holds.
    pub(super) accumulate: bool,
}

/// Cuts rows into as many as are summed at once.
pub(super) fn cut(rows: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    struct Most;
    impl Vectorised for Most {
        type Out = usize;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> usize {
            most::<S>()
        }
    }
    balanced(rows, dispatch(Most))
}

/// Accumulators, vectors of `y` and one of `x` fill the registers.
const fn most<S: Simd>() -> usize {
    match (S::REGS, S::LANES) {
        (32.., 16..) => 12,
        (_, 4) if S::REGS < 32 => 2,
        _ => 6,
    }
}

impl Sum<'_> {
    /// Computes the sums of as many rows as [`cut`] gives.
    ///
    /// # Safety
    ///
    /// All that the fields describe is readable, and `sums` writable by nobody else; `single` where the pixels of `x` are
    /// one float apart.
    pub(super) unsafe fn run(&self, single: bool) {
        macro_rules! rows {
            ($($n:literal)*) => {
                match self.rows.len() {
                    $($n => dispatch(Rows::<$n>(self, single)),)*
                    n => debug_assert!(n == 0, "a sum of {n} rows"),
                }
            };
        }
        rows!(1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

struct Rows<'a, const R: usize>(&'a Sum<'a>, bool);

impl<const R: usize> Vectorised for Rows<'_, R> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if R > most::<S>() {
            return;
        }
        let Rows(t, single) = self;
        // SAFETY: `Sum::run` is promised all this.
        unsafe {
            match (S::LANES, t.blocks, single) {
                (4, _, false) => compute::<S, R, 4, 1, BLOCK>(s, t),
                (4, _, true) => compute::<S, R, 4, 1, 1>(s, t),
                (8, _, false) => compute::<S, R, 2, 1, BLOCK>(s, t),
                (8, _, true) => compute::<S, R, 2, 1, 1>(s, t),
                (_, 1, false) => compute::<S, R, 1, 4, BLOCK>(s, t),
                (_, 1, true) => compute::<S, R, 1, 4, 1>(s, t),
                (_, _, false) => compute::<S, R, 2, 2, BLOCK>(s, t),
                (_, _, true) => compute::<S, R, 2, 2, 1>(s, t),
            }
        }
    }
}

/// `V` vectors of `y`, `P` pixels at a time, which stand `N` floats apart in `x`.
#[inline(always)]
unsafe fn compute<S: Simd, const R: usize, const V: usize, const P: usize, const N: usize>(s: S, t: &Sum) {
    let mut acc = [[s.splat(0.0); V]; R];
    let mut rows = [0; R];
    rows.copy_from_slice(&t.rows[..R]);
    for spot in t.spots {
        let mut x = t.x.wrapping_add(spot.from);
        let mut y = t.y.wrapping_add(spot.at * BLOCK);
        // SAFETY: the pixels are there.
        unsafe {
            for _ in 0..spot.len / P {
                pixels::<S, R, V, P, N>(s, &mut acc, &rows, (x, y), t.y_block);
                (x, y) = (x.wrapping_add(P * N), y.wrapping_add(P * BLOCK));
            }
            for _ in 0..spot.len % P {
                pixels::<S, R, V, 1, N>(s, &mut acc, &rows, (x, y), t.y_block);
                (x, y) = (x.wrapping_add(N), y.wrapping_add(BLOCK));
            }
        }
    }
    let width = width();
    for (r, acc) in acc.into_iter().enumerate() {
        for (v, acc) in acc.into_iter().enumerate() {
            let to = t.sums.wrapping_add(r * width + v * S::LANES);
            // SAFETY: there is a sum for each row.
            unsafe {
                match t.accumulate {
                    true => s.store(to, s.add(s.load(to), acc)),
                    false => s.store(to, acc),
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn pixels<S: Simd, const R: usize, const V: usize, const P: usize, const N: usize>(
    s: S,
    acc: &mut [[S::F32; V]; R],
    rows: &[usize; R],
    (x, y): (*const f32, *const f32),
    y_block: usize,
) {
    let mut own = [[s.splat(0.0); V]; P];
    for (p, own) in own.iter_mut().enumerate() {
        for (v, own) in own.iter_mut().enumerate() {
            let lane = v * S::LANES;
            let at = lane / BLOCK * y_block + p * BLOCK + lane % BLOCK;
            // SAFETY: as the caller says.
            *own = unsafe { s.load(y.wrapping_add(at)) };
        }
    }
    for r in 0..R {
        let x = x.wrapping_add(rows[r]);
        for (p, own) in own.iter().enumerate() {
            // SAFETY: as the caller says.
            let x = s.splat(unsafe { *x.wrapping_add(p * N) });
            for v in 0..V {
                acc[r][v] = s.fma(x, own[v], acc[r][v]);
            }
        }
    }
}
