//! Keys and values in the order in which tiles read them.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::lay::{Lines, copy};
use super::{Attend, KEYS, Memory};
use crate::cpu::gemm::tile_size;

/// Values whose rows are no further apart than this are read as they lie.
const CLOSE: usize = 128;

impl Attend {
    /// Whether values are read as they lie by tiles too: rows of whole vectors, close together.
    pub(super) fn values_lie(&self) -> bool {
        let whole = self.s.width.is_multiple_of(tile_size().1 / 2);
        self.s.past == 0 && whole && self.v.row <= CLOSE
    }

    /// Floats of all packed keys of one head, and of all its values.
    pub(super) fn packed(&self) -> [usize; 2] {
        let (width, total) = (tile_size().1, self.s.total());
        [
            total.next_multiple_of(width) * self.s.depth,
            match self.values_lie() {
                true => 0,
                false => self.s.width.next_multiple_of(width) * total,
            },
        ]
    }

    /// Packs the keys and values of one head from `first` on, as many as a tile has.
    ///
    /// # Safety
    ///
    /// All of them are readable, and the shared memory has room.
    pub(super) unsafe fn pack(&self, m: &Memory, head: usize, first: usize) {
        let (s, width, [all_k, all_v]) = (&self.s, tile_size().1, self.packed());
        let end = s.total().min(first + KEYS);
        let (keys, to) = (self.keys(m, head), m.keys.of(head, all_k));
        for j in (first..end).step_by(width) {
            let panel = Turned {
                keys,
                first: j,
                count: width.min(end - j),
                depth: s.depth,
                to: to.wrapping_add(j * s.depth),
            };
            // SAFETY: these keys have as many numbers, and their panel as many rows.
            dispatch(panel);
        }
        if self.values_lie() {
            return;
        }
        let (values, to) = (self.values(m, head), m.values.of(head, all_v));
        for column in (0..s.width).step_by(width) {
            let cols = width.min(s.width - column);
            for j in first..end {
                let to = to.wrapping_add(column * s.total() + j * width);
                // SAFETY: value `j` has these columns, and their panel a row for it.
                unsafe {
                    copy(values.at(j).add(column), to, cols);
                    to.add(cols).write_bytes(0, width - cols);
                }
            }
        }
    }
}

/// A panel of keys, number by number.
struct Turned {
    keys: Lines,
    first: usize,
    /// Keys; zeros take the place of those that the panel has beyond.
    count: usize,
    depth: usize,
    to: *mut f32,
}

/// Lanes of the widest vectors.
const WIDEST: usize = 16;

impl Vectorised for Turned {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = 2 * S::LANES;
        for part in (0..width).step_by(S::LANES) {
            let whole = if part + S::LANES <= self.count {
                self.depth - self.depth % S::LANES
            } else {
                0
            };
            for d in (0..whole).step_by(S::LANES) {
                // SAFETY: the maker saw to it that the keys and the panel are there.
                unsafe { self.square(s, part, d) };
            }
            for i in part..part + S::LANES {
                let key = self.keys.at(self.first + i);
                for d in whole..self.depth {
                    // SAFETY: as above.
                    unsafe { *self.to.add(d * width + i) = if i < self.count { *key.add(d) } else { 0.0 } };
                }
            }
        }
    }
}

impl Turned {
    /// A vector of numbers from number `d` on, of as many keys from key `part` on: the two halves in turn, until all have
    /// changed their places.
    ///
    /// # Safety
    ///
    /// They are there, and the panel.
    #[inline(always)]
    unsafe fn square<S: Simd>(&self, s: S, part: usize, d: usize) {
        let n = S::LANES;
        let mut x = [s.splat(0.0); WIDEST];
        for (i, x) in x.iter_mut().enumerate().take(n) {
            // SAFETY: as the caller says.
            *x = unsafe { s.load(self.keys.at(self.first + part + i).add(d)) };
        }
        for _ in 0..n.trailing_zeros() {
            let mut y = x;
            for i in 0..n / 2 {
                let (low, high) = (x[i], x[i + n / 2]);
                y[2 * i] = s.zip_first(low, high);
                y[2 * i + 1] = s.zip_last(low, high);
            }
            x = y;
        }
        for (i, x) in x.into_iter().enumerate().take(n) {
            // SAFETY: as the caller says.
            unsafe { s.store(self.to.add((d + i) * 2 * n + part), x) };
        }
    }
}
