//! `x * factor + summand` with one of each for every channel.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::{Pool, View, ViewMut};
use crate::ir::Element;

/// Elements of a task.
const TASK: usize = 1 << 14;

/// An affine function of each channel of `[images, channels, plane]`.
#[derive(Clone, Copy, Debug)]
pub struct Affine {
    /// Channels of an image.
    pub channels: usize,
    /// Elements of a channel of an image.
    pub plane: usize,
    /// Elements of all images.
    pub len: usize,
}

#[derive(Clone, Copy)]
struct Memory(*const f32, *mut f32);
// SAFETY: each task has elements of its own.
unsafe impl Sync for Memory {}

impl Memory {
    fn at(&self, i: usize) -> (*const f32, *mut f32) {
        (self.0.wrapping_add(i), self.1.wrapping_add(i))
    }
}

impl Affine {
    /// Computes `y`, which may be the memory of `x`.
    ///
    /// # Panics
    ///
    /// If one of them has another number of elements.
    pub fn run(&self, x: View, y: &mut ViewMut, factor: &[f32], summand: &[f32], pool: &Pool) {
        assert_eq!((x.len(), y.len()), (self.len, self.len), "elements");
        assert_eq!(
            (factor.len(), summand.len()),
            (self.channels, self.channels),
            "channels"
        );
        let memory = Memory(x.ptr(), y.ptr());
        if self.len == 0 {
            return;
        }
        if self.plane == 1 {
            let rows = self.len / self.channels;
            return pool.split(rows, TASK.div_ceil(self.channels), &|rows| {
                for row in rows {
                    let at = row * self.channels;
                    let (x, y) = memory.at(at);
                    dispatch(Row {
                        x,
                        y,
                        factor,
                        summand,
                        len: self.channels,
                    });
                }
            });
        }
        // Pieces of a channel, so that large images are shared out too.
        let pieces = self.plane.div_ceil(TASK);
        let piece = self.plane.div_ceil(pieces);
        let grain = TASK.div_ceil(piece);
        pool.split(self.len / self.plane * pieces, grain, &|parts| {
            for part in parts {
                let (channel, start) = (part / pieces, part % pieces * piece);
                let (at, c) = (channel * self.plane + start, channel % self.channels);
                let (x, y) = memory.at(at);
                let len = piece.min(self.plane.saturating_sub(start));
                dispatch(Row {
                    x,
                    y,
                    factor: &factor[c..=c],
                    summand: &summand[c..=c],
                    len,
                });
            }
        });
    }
}

/// Calls `f` with the position and value of each element of `x` and writes its result to `y`, which may be the memory of
/// `x`.
///
/// # Panics
///
/// If they have different numbers of elements.
pub fn each<T: Element>(x: View, y: &mut ViewMut, f: impl Fn(usize, T) -> T) {
    assert_eq!(x.len(), y.len(), "elements");
    let (from, to) = (x.ptr::<T>(), y.ptr::<T>());
    for i in 0..x.len() {
        // SAFETY: both have this element; where they are one, it is read before it is written.
        unsafe { to.add(i).write(f(i, from.add(i).read())) };
    }
}

/// One number for all, or one for each.
struct Row<'a> {
    x: *const f32,
    y: *mut f32,
    factor: &'a [f32],
    summand: &'a [f32],
    len: usize,
}

impl Vectorised for Row<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let one = self.factor.len() == 1;
        let (f, a) = (s.splat(self.factor[0]), s.splat(self.summand[0]));
        for i in (0..self.len).step_by(S::LANES) {
            let n = S::LANES.min(self.len - i);
            // SAFETY: all have `len` elements, of which these are `n` from `i` on.
            unsafe {
                let x = s.load_first(self.x.add(i), n);
                let y = match one {
                    true => s.fma(x, f, a),
                    false => {
                        let f = s.load_first(self.factor.as_ptr().add(i), n);
                        s.fma(x, f, s.load_first(self.summand.as_ptr().add(i), n))
                    }
                };
                if n == S::LANES {
                    s.store(self.y.add(i), y);
                } else {
                    s.store_first(self.y.add(i), n, y);
                }
            }
        }
    }
}
