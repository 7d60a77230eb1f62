//! Work on whole rows of a tensor.

use std::marker::PhantomData;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::Io;
use super::arg::Along;
use super::blocks::Block;
use super::elementwise::{raw_source, raw_target, source, target};

/// Elements that a task handles, where each costs some arithmetic.
const CHUNK: usize = 1 << 12;

/// A function that computes a row of floats from another, perhaps in the same memory.
pub trait RowFn: Copy + Send + Sync {
    /// Computes `n` floats at `to` from those at `from`, of row `row`. Marked `#[inline(always)]`.
    ///
    /// # Safety
    ///
    /// They are readable and writable; the two are the same or do not overlap.
    unsafe fn row<S: Simd>(self, s: S, row: usize, from: *const f32, to: *mut f32, n: usize);
}

/// Computes the rows of output 0, of `n` floats, from those of input 0, which may be overwritten in place.
pub fn map_rows(io: &mut Io, rows: usize, n: usize, f: impl RowFn) {
    let (x, out) = (source::<f32>(io, 0, rows * n), target::<f32>(io, 0, rows * n));
    let each = (CHUNK / n.max(1)).max(1);
    io.pool.run(rows.div_ceil(each), &|task| {
        let first = task * each;
        // SAFETY: the rows are within both; no other task has them.
        let (from, to) = unsafe { (x.get().add(first * n), out.get().add(first * n)) };
        dispatch(Rows {
            f,
            from,
            to,
            n,
            first,
            last: rows.min(first + each),
            rows: PhantomData::<&f32>,
        });
    });
}

/// Applies `f` to a row.
pub fn map_row(x: &mut [f32], row: usize, f: impl RowFn) {
    let (to, n) = (x.as_mut_ptr(), x.len());
    dispatch(Rows {
        f,
        from: to,
        to,
        n,
        first: row,
        last: row + 1,
        rows: PhantomData::<&f32>,
    });
}

struct Rows<'a, F> {
    f: F,
    from: *const f32,
    to: *mut f32,
    n: usize,
    first: usize,
    last: usize,
    rows: PhantomData<&'a f32>,
}

impl<F: RowFn> Vectorised for Rows<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.first..self.last {
            let at = (row - self.first) * self.n;
            // SAFETY: whoever made it says that the rows are readable and writable.
            unsafe { self.f.row(s, row, self.from.add(at), self.to.add(at), self.n) };
        }
    }
}

/// Calls `f` with each row along the axis in the middle, converted, and writes back what it leaves as output 0. Input 0
/// may be overwritten in place.
pub fn update_rows<W: Copy + Default + Send + Sync>(
    io: &mut Io,
    along: Along,
    block: Block<W>,
    f: &(dyn Fn(usize, &mut [W]) + Sync),
) {
    let Along { outer, size, inner } = along;
    let len = outer * size * inner;
    let (x, out) = (
        raw_source(io, 0, len, block.bytes()),
        raw_target(io, 0, len, block.bytes()),
    );
    let rows = outer * inner;
    let each = (CHUNK / size.max(1)).max(1);
    io.pool.run(rows.div_ceil(each), &|task| {
        let mut row = vec![W::default(); size];
        for r in task * each..rows.min((task + 1) * each) {
            let start = r / inner * inner * size + r % inner;
            // SAFETY: the row is within both tensors, whose sizes were checked; no other task has it.
            unsafe {
                match inner {
                    1 => block.fetch(x, start, 1, &mut row),
                    _ => (0..size).for_each(|i| block.fetch(x, start + i * inner, 1, &mut row[i..=i])),
                }
                f(r, &mut row);
                match inner {
                    1 => block.put(&row, out, start),
                    _ => (0..size).for_each(|i| block.put(&row[i..=i], out, start + i * inner)),
                }
            }
        }
    });
}
