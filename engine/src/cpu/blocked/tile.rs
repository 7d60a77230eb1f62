//! The innermost loop: pixels by output channels, kept in registers.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::BLOCK;
use crate::cpu::Ending;

/// Pixels by output channels, `y = [y +] x w [+ bias] [+ residual]`, ended.
///
/// Pixels stand side by side: [`BLOCK`] floats apart where blocks of channels are read, else one.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// The first pixel.
    pub(super) x: *const f32,
    /// Where, from there, each block of channels under each element of the window begins.
    pub(super) offsets: &'a [usize],
    /// Rows of [`width`] weights, one for each channel of each offset.
    pub(super) w: *const f32,
    /// The first pixel of the first block of output channels.
    pub(super) y: *mut f32,
    /// Floats from block to block of output channels, and of the residual.
    pub(super) y_block: usize,
    /// Floats from pixel to pixel of them.
    pub(super) y_pixel: usize,
    /// Blocks of output channels that are computed.
    pub(super) blocks: usize,
    /// One float for each output channel; null where there is none.
    pub(super) bias: *const f32,
    /// As `y`; null where there is none.
    pub(super) residual: *const f32,
    /// Whether the sums are added to what `y` holds.
    pub(super) accumulate: bool,
    /// What is done in the end.
    pub(super) end: Ending,
    /// Where the weights stand that are needed next: a cache line of them is fetched for each row of weights.
    pub(super) next: Option<*const f32>,
    /// Whether only for every second row, where other tiles fetch the rest: what is asked for at once comes late.
    pub(super) slowly: bool,
}

/// Output channels of a panel of weights, for the instruction set in use.
pub(super) fn width() -> usize {
    size().1
}

/// Most pixels of a tile, for the instruction set in use.
pub(super) fn height() -> usize {
    size().0
}

fn size() -> (usize, usize) {
    struct Size;
    impl Vectorised for Size {
        type Out = (usize, usize);
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> (usize, usize) {
            (rows::<S>(), columns::<S>())
        }
    }
    dispatch(Size)
}

/// Accumulators, weights and one pixel fill the registers.
const fn rows<S: Simd>() -> usize {
    match (S::REGS, S::LANES) {
        (32.., 16..) => 14,
        (_, 4) if S::REGS < 32 => 2,
        _ => 6,
    }
}

const fn columns<S: Simd>() -> usize {
    if S::LANES < BLOCK { BLOCK } else { 2 * S::LANES }
}

impl Tile<'_> {
    /// Computes `pixels` pixels; `single` where offsets are those of single channels, whose pixels stand one float apart.
    ///
    /// # Safety
    ///
    /// All that the fields describe is readable, the pixels of `y` are writable and nobody else sees them. `pixels` is at
    /// least 1 and at most [`height`].
    pub(super) unsafe fn run(&self, pixels: usize, single: bool) {
        macro_rules! heights {
            ($($h:literal)*) => {
                match pixels {
                    $($h => dispatch(Pixels::<$h>(self, single)),)*
                    _ => debug_assert!(false, "a tile of {pixels} pixels"),
                }
            };
        }
        heights!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }
}

struct Pixels<'a, const H: usize>(&'a Tile<'a>, bool);

impl<const H: usize> Vectorised for Pixels<'_, H> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if H > rows::<S>() {
            return;
        }
        let Pixels(t, single) = self;
        // SAFETY: `Tile::run` is promised all this.
        unsafe {
            match (S::LANES, t.blocks, single) {
                (4, _, false) => compute::<S, H, 4, BLOCK>(s, t),
                (4, _, true) => compute::<S, H, 4, 1>(s, t),
                (16, 1, false) => compute::<S, H, 1, BLOCK>(s, t),
                (16, 1, true) => compute::<S, H, 1, 1>(s, t),
                (_, _, false) => compute::<S, H, 2, BLOCK>(s, t),
                (_, _, true) => compute::<S, H, 2, 1>(s, t),
            }
        }
    }
}

/// `V` vectors of output channels; offsets are those of `N` channels each, in pixels `N` floats apart.
#[inline(always)]
unsafe fn compute<S: Simd, const H: usize, const V: usize, const N: usize>(s: S, t: &Tile) {
    let mut acc = [[s.splat(0.0); V]; H];
    let mut w = t.w;
    // A line that is in the cache already costs a tile that has nothing to fetch next to nothing.
    let (mut next, step) = t.next.map_or((t.w, 0), |p| (p, 16));
    let steps = [if t.slowly { 0 } else { step }, step];
    for &offset in t.offsets {
        let x = t.x.wrapping_add(offset);
        for lane in 0..N {
            s.prefetch(next);
            next = next.wrapping_add(steps[if N == 1 { 1 } else { lane % 2 }]);
            // SAFETY: the row of weights is readable, and so is the channel of each pixel.
            unsafe {
                let row: [S::F32; V] = std::array::from_fn(|v| s.load(w.add(v * S::LANES)));
                for (i, acc) in acc.iter_mut().enumerate() {
                    let x = s.splat(*x.add(i * N + lane));
                    for (acc, &row) in acc.iter_mut().zip(&row) {
                        *acc = s.fma(x, row, *acc);
                    }
                }
            }
            w = w.wrapping_add(columns::<S>());
        }
    }
    // SAFETY: the pixels of `y` and of the residual are there, and a bias for each channel.
    unsafe { finish(s, t, acc) };
}

#[inline(always)]
unsafe fn finish<S: Simd, const H: usize, const V: usize>(s: S, t: &Tile, acc: [[S::F32; V]; H]) {
    let mut bias = [s.splat(0.0); V];
    if !t.bias.is_null() {
        // SAFETY: as the caller says.
        bias = std::array::from_fn(|v| unsafe { s.load(t.bias.add(v * S::LANES)) });
    }
    for (i, acc) in acc.into_iter().enumerate() {
        for (v, acc) in acc.into_iter().enumerate() {
            let lane = v * S::LANES;
            let at = lane / BLOCK * t.y_block + i * t.y_pixel + lane % BLOCK;
            let mut y = s.add(acc, bias[v]);
            // SAFETY: as the caller says.
            unsafe {
                if t.accumulate {
                    y = s.add(y, s.load(t.y.add(at)));
                }
                if !t.residual.is_null() {
                    y = s.add(y, s.load(t.residual.add(at)));
                }
                y = t.end.apply(s, y);
                s.store(t.y.add(at), y);
            }
        }
    }
}
