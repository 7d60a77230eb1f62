//! The innermost loops: a few rows of weights times a strip of positions, kept in registers.
//!
//! A vector holds neighbouring positions; weights are broadcast. What bounds such a loop is how often memory is read, so rows go
//! two by two: where both have a weight, what lies under it is loaded once. It is a loop over data, the same for all weights.

use secateur_simd::{Simd, Vectorised, dispatch, opaque};

use super::code::{Head, Kind, Part};

/// Adds to sums what one part of the weights makes of a strip of positions.
#[derive(Clone, Copy)]
pub(super) struct Strip<'a> {
    /// The weights.
    pub(super) part: Part<'a>,
    /// What place 0 of the part is, at the first position; zeros.
    pub(super) x: *const f32,
    /// Floats from place to place.
    pub(super) unit: usize,
    /// The sums of the strip, row by row.
    pub(super) sums: *mut f32,
    /// Whether there are none yet.
    pub(super) first: bool,
}

/// Vectors of the widest strip, for weights of this kind.
pub(super) fn widest(kind: Kind) -> usize {
    struct Widest(Kind);
    impl Vectorised for Widest {
        type Out = usize;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> usize {
            most::<S>(self.0)
        }
    }
    dispatch(Widest(kind))
}

/// Sums, what is under the weights, and a weight fill the registers.
const fn most<S: Simd>(kind: Kind) -> usize {
    match (kind, S::REGS >= 32) {
        (Kind::Pairs, true) => 8,
        (Kind::Pairs, false) => 5,
        (Kind::Quads, true) => 5,
        (Kind::Quads, false) => 2,
    }
}

impl Strip<'_> {
    /// Works on a strip of `vectors` vectors.
    ///
    /// # Safety
    ///
    /// All places of the part can be read, so many vectors of each, and the sums written; `vectors` is at least 1 and at most
    /// [`widest`].
    pub(super) unsafe fn run(self, vectors: usize) {
        macro_rules! widths {
            ($($width:literal)*) => {
                match vectors {
                    $($width => dispatch(Wide::<$width>(self)),)*
                    _ => debug_assert!(false, "a strip of {vectors} vectors"),
                }
            };
        }
        widths!(1 2 3 4 5 6 7 8);
    }
}

struct Wide<'a, const B: usize>(Strip<'a>);

impl<const B: usize> Vectorised for Wide<'_, B> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: `Strip::run` is promised all this.
        unsafe {
            match self.0.part.kind {
                Kind::Pairs if B <= most::<S>(Kind::Pairs) => pairs::<S, B>(s, self.0),
                Kind::Quads if B <= most::<S>(Kind::Quads) => quads::<S, B>(s, self.0),
                _ => debug_assert!(false, "a strip of {B} vectors"),
            }
        }
    }
}

/// The sums of `R` rows of the strip.
#[inline(always)]
unsafe fn begin<S: Simd, const B: usize, const R: usize>(
    s: S,
    rows: [*mut f32; R],
    first: bool,
) -> [[S::F32; B]; R] {
    let mut sums = [[s.splat(0.0); B]; R];
    if !first {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (b, sum) in sums.iter_mut().enumerate() {
                // SAFETY: as the caller says.
                *sum = unsafe { s.load(rows[r].add(b * S::LANES)) };
            }
        }
    }
    sums
}

#[inline(always)]
unsafe fn end<S: Simd, const B: usize, const R: usize>(s: S, rows: [*mut f32; R], sums: [[S::F32; B]; R]) {
    for (r, sums) in sums.iter().enumerate() {
        for (b, &sum) in sums.iter().enumerate() {
            // SAFETY: as the caller says.
            unsafe { s.store(rows[r].add(b * S::LANES), sum) };
        }
    }
}

#[inline(always)]
unsafe fn pairs<S: Simd, const B: usize>(s: S, t: Strip) {
    let (mut w, mut places) = (t.part.weights.as_ptr(), t.part.places.as_ptr());
    // The address stands in a register of its own: added anew in each multiplication, it would cost another instruction.
    let under = |place: u16| opaque(t.x.wrapping_add(usize::from(place) * t.unit));
    for &Head { rows, both, single } in t.part.heads {
        // SAFETY: heads have weights and places of this number, and rows among the sums; the rest is as the caller says.
        unsafe {
            let row = |i: usize| t.sums.add(usize::from(rows[i]) * B * S::LANES);
            let rows = [row(0), row(1)];
            let mut sums = begin::<S, B, 2>(s, rows, t.first);
            for _ in 0..both {
                let (x, a, b) = (under(*places), s.splat(*w), s.splat(*w.add(1)));
                let [one, other] = &mut sums;
                for (i, (one, other)) in one.iter_mut().zip(other).enumerate() {
                    let x = s.load(x.add(i * S::LANES));
                    *one = s.fma(a, x, *one);
                    *other = s.fma(b, x, *other);
                }
                (w, places) = (w.add(2), places.add(1));
            }
            for _ in 0..single {
                let (x, y) = (under(*places), under(*places.add(1)));
                let (a, b) = (s.splat(*w), s.splat(*w.add(1)));
                let [one, other] = &mut sums;
                for (i, (one, other)) in one.iter_mut().zip(other).enumerate() {
                    *one = s.fma(a, s.load(x.add(i * S::LANES)), *one);
                    *other = s.fma(b, s.load(y.add(i * S::LANES)), *other);
                }
                (w, places) = (w.add(2), places.add(2));
            }
            end(s, rows, sums);
        }
    }
}

#[inline(always)]
unsafe fn quads<S: Simd, const B: usize>(s: S, t: Strip) {
    let (mut w, mut places) = (t.part.weights.as_ptr(), t.part.places.as_ptr());
    for head in t.part.heads {
        // SAFETY: as above.
        unsafe {
            let first = t.sums.add(usize::from(head.rows[0]) * B * S::LANES);
            let rows: [_; 4] = std::array::from_fn(|r| first.add(r * B * S::LANES));
            let mut sums = begin::<S, B, 4>(s, rows, t.first);
            for _ in 0..head.both {
                let at = opaque(t.x.wrapping_add(usize::from(*places) * t.unit));
                let x: [_; B] = std::array::from_fn(|i| s.load(at.add(i * S::LANES)));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let w = s.splat(*w.add(r));
                    for (sum, &x) in sums.iter_mut().zip(&x) {
                        *sum = s.fma(w, x, *sum);
                    }
                }
                (w, places) = (w.add(4), places.add(1));
            }
            end(s, rows, sums);
        }
    }
}
