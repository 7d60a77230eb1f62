//! Matrix products of floats.
//!
//! A product is cut into tiles that fit the registers. Weights are packed once, in the order in which tiles read them,
//! and the next ones are fetched into the second cache while the present ones are used; activations are read in place.
//! Sums are never shared between threads, so the result does not depend on their number.

mod pack;
#[cfg(test)]
mod tests;
mod tile;

use std::ops::Range;

use secateur_simd::dispatch;

use super::elementwise::{Inside, Ptr};
use super::{Ending, LINE, Pool, Post};
pub use pack::{Bands, Floats, Panels, Strides};
pub(crate) use pack::{balanced, bands_into, k_blocks, panel_into};
pub use tile::Addend;
pub(crate) use tile::{Tile, tile_size};

/// The matrices of one product of a batch, as distances in floats from the first.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place {
    /// Of A.
    pub a: usize,
    /// Of B, in panels where it is packed.
    pub b: usize,
    /// Of each addend.
    pub add: [usize; 2],
}

/// The right operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rhs {
    /// Weights, as [`Panels`].
    Packed,
    /// As it is in memory.
    Strided(Strides),
}

/// A batch of products `C = post(alpha A B + addends)`, `A [m, k]`, `B [k, n]`, `C [m, n]` row-major, one after the other.
#[derive(Clone, Debug)]
pub struct Gemm {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// How A lies in memory.
    pub a: Strides,
    /// How B lies in memory.
    pub b: Rhs,
    /// The matrices of each product.
    pub batch: Vec<Place>,
    /// What the products are multiplied by.
    pub alpha: f32,
    /// What is applied in the end.
    pub post: Post,
}

/// The memory of a [`Gemm`].
#[derive(Clone, Copy)]
pub struct Operands {
    /// A.
    pub a: *const f32,
    /// B.
    pub b: *const f32,
    /// C.
    pub c: *mut f32,
    /// What is added.
    pub add: [Addend; 2],
}

// SAFETY: `Gemm::run` asks for what makes its tasks independent of each other.
unsafe impl Send for Operands {}
// SAFETY: as above.
unsafe impl Sync for Operands {}

/// Bytes of A that are worked on at once, to stay in the second cache.
const A_BYTES: usize = 600 << 10;
/// Multiply-adds that make a task worth handing to another thread.
const TASK: usize = 1 << 18;

/// Tiles of rows up to which columns of B are read where they are: for more, which read them more often, a copy pays.
const IN_PLACE: usize = 12;

/// Tasks that there should be, so that several threads are busy to the end.
const TASKS: usize = 16;

/// Tasks that are enough where more of them would do the same work again.
const FEW: usize = 4;

/// The shortest sums that are cut into slices, the length of these, and how many there are at most.
const LONG: usize = 2048;
const SLICE: usize = 512;
const SLICES: usize = 8;

/// Elements of a product of so long sums up to which each slice has one of its own.
const SMALL: usize = 1 << 16;

/// A task's part of the work: some rows and panels of one product.
struct Part {
    place: usize,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl Gemm {
    /// The same as one product of more rows, where the products have B in common and follow each other in the others.
    /// `row` are the distances between the rows of the addends.
    pub fn merged(self, row: [usize; 2]) -> Gemm {
        let next = |p: usize| Place {
            a: p * self.m * self.a.row,
            b: 0,
            add: row.map(|r| p * self.m * r),
        };
        if self.batch.is_empty() || !self.batch.iter().enumerate().all(|(p, at)| *at == next(p)) {
            return self;
        }
        Gemm {
            m: self.m * self.batch.len(),
            batch: vec![Place::default()],
            ..self
        }
    }

    /// Bytes of scratch memory.
    pub fn scratch(&self, threads: usize) -> usize {
        match self.b {
            Rhs::Packed => 0,
            Rhs::Strided(_) => {
                let sums = self.slices().map_or(0, |slices| slices * self.sum_len());
                (threads * self.panel_len() + sums) * size_of::<f32>()
            }
        }
    }

    /// In how many slices the sums are computed, each of which reads its part of both operands once; `None` for few of them, or where
    /// more is done than a product. Sizes alone decide, and only where rows of A lie beside each other, as in gradients of weights: the
    /// sums of other products, whose rows may be a batch, are the same for any number of rows.
    fn slices(&self) -> Option<usize> {
        let turned = self.a.row == 1 && self.a.col > 1;
        let plain = turned && self.batch.len() == 1 && self.b != Rhs::Packed && self.post.is_none();
        (plain && self.k >= LONG && self.m * self.n <= SMALL).then(|| self.k.div_ceil(SLICE).min(SLICES))
    }

    /// Floats of the product of a slice.
    fn sum_len(&self) -> usize {
        (self.m * self.n).next_multiple_of(LINE / size_of::<f32>())
    }

    /// Computes C in slices, whose products are added in order.
    ///
    /// # Safety
    ///
    /// As for [`run`](Gemm::run).
    unsafe fn run_sliced(&self, slices: usize, x: Operands, scratch: Scratch, pool: &Pool) {
        let Rhs::Strided(b) = self.b else { return };
        let ranges: Vec<_> = balanced(self.k, self.k.div_ceil(slices)).collect();
        let (each, sums) = (
            self.panel_len(),
            scratch.behind(pool.threads() * self.panel_len()),
        );
        pool.run_with(ranges.len(), &|thread, t| {
            let (x, at) = (x, self.batch[0]);
            let slice = Gemm {
                k: ranges[t].len(),
                batch: vec![Place {
                    a: at.a + ranges[t].start * self.a.col,
                    b: at.b + ranges[t].start * b.row,
                    ..at
                }],
                ..self.clone()
            };
            let part = Part {
                place: 0,
                rows: 0..self.m,
                panels: 0..self.n.div_ceil(tile_size().1),
            };
            let c = sums.of(t, self.sum_len());
            // SAFETY: the operands are those of the whole, and each slice has sums and, for its time, a thread's panel to itself.
            unsafe { slice.part(Operands { c, ..x }, part, scratch.of(thread, each)) };
        });
        let whole = Ptr::new(x.c);
        pool.split(self.m * self.n, TASK / 16, &|range| {
            // SAFETY: sums have as many floats as C, of which each task writes a stretch of its own.
            dispatch(Inside(
                #[inline(always)]
                || unsafe {
                    let c = std::slice::from_raw_parts_mut(whole.get().add(range.start), range.len());
                    c.fill(0.0);
                    for t in 0..ranges.len() {
                        let sum = sums.of(t, self.sum_len()).add(range.start);
                        let sum = std::slice::from_raw_parts(sum, range.len());
                        c.iter_mut().zip(sum).for_each(|(c, x)| *c += x);
                    }
                },
            ));
        });
    }

    /// Floats of one panel.
    fn panel_len(&self) -> usize {
        self.k * tile_size().1
    }

    /// Ranges of rows: as many as fit the cache with the part of A that is read at once, but several where there are few
    /// panels to share out.
    fn row_blocks(&self) -> usize {
        let panels = self.n.div_ceil(tile_size().1) * self.batch.len();
        let depth = k_blocks(self.k).map(|ks| ks.len()).max().unwrap_or(0);
        let for_cache = (self.m * depth * size_of::<f32>()).div_ceil(A_BYTES);
        // What must be copied is copied for each range.
        let copied = matches!(self.b, Rhs::Strided(s) if s.col != 1);
        let enough = if copied && self.m <= IN_PLACE * tile_size().0 {
            FEW
        } else {
            TASKS
        };
        let for_threads = enough
            .div_ceil(panels.max(1))
            .min(self.m.div_ceil(2 * tile_size().0));
        for_cache.max(for_threads).max(1)
    }

    /// Computes C.
    ///
    /// # Safety
    ///
    /// All of A, B and the addends that the sizes and strides describe is readable, C is writable, and nobody else
    /// writes to them. An addend may be C itself, element by element.
    pub unsafe fn run(&self, x: Operands, scratch: &mut [u8], pool: &Pool) {
        let (panels, blocks) = (self.n.div_ceil(tile_size().1), self.row_blocks());
        if self.m == 0 {
            return;
        }
        let rows: Vec<_> = balanced(self.m, self.m.div_ceil(blocks)).collect();
        let outer = self.batch.len() * rows.len();
        let work = rows[0].len() * tile_size().1 * self.k.max(1);
        // Few groups, for the panels of one share what of A is in the cache; but none too small for a task.
        let groups = TASKS.div_ceil(outer.max(1)).min((panels * work).div_ceil(TASK));
        let groups: Vec<_> = balanced(panels, panels.div_ceil(groups.max(1))).collect();
        let each = self.panel_len();
        let nothing = x.add.iter().all(|add| !add.is_some());
        if let Some(slices) = self.slices().filter(|_| nothing) {
            // SAFETY: as the caller says.
            return unsafe { self.run_sliced(slices, x, Scratch::new(scratch), pool) };
        }
        debug_assert!(scratch.len() >= self.scratch(pool.threads()), "scratch memory");
        let scratch = Scratch::new(scratch);
        // A panel is read by one thread where all of A stays near anyway.
        let by_panel =
            rows.len() > 1 && self.batch.len() == 1 && self.m * self.k * size_of::<f32>() <= A_BYTES;
        let parts = outer * groups.len();
        let grain = TASK.div_ceil(work * groups[0].len().max(1));
        pool.run_with(parts.div_ceil(grain), &|thread, task| {
            for i in task * grain..parts.min((task + 1) * grain) {
                let (row, group) = match by_panel {
                    true => (i % rows.len(), i / rows.len()),
                    false => (i / groups.len() % rows.len(), i % groups.len()),
                };
                let part = Part {
                    place: i / groups.len() / rows.len(),
                    rows: rows[row].clone(),
                    panels: groups[group].clone(),
                };
                // SAFETY: no two parts share an element of C, and no two tasks a thread's number at the same time.
                unsafe { self.part(x, part, scratch.of(thread, each)) };
            }
        });
    }

    /// # Safety
    ///
    /// As for [`run`](Gemm::run); `scratch` is writable for one panel unless B is packed.
    unsafe fn part(&self, x: Operands, part: Part, scratch: *mut f32) {
        let (width, place) = (tile_size().1, self.batch[part.place]);
        let tiles = balanced(part.rows.len(), tile_size().0);
        // The tiles that fetch the next weights: those of two, or of four half as fast.
        let slowly = tiles.clone().count() >= 4;
        let share = if slowly { 8 } else { 16 };
        for ks in k_blocks(self.k) {
            let last = ks.end == self.k;
            for panel in part.panels.clone() {
                let j = panel * width;
                let cols = width.min(self.n - j);
                // SAFETY: the panel is within B, as `run` is promised.
                let (b, b_k) =
                    unsafe { self.panel(x.b.wrapping_add(place.b), j, &ks, part.rows.len(), scratch) };
                // The same rows of the next panel, or the next rows of the first, or what lies behind all.
                let ahead = match (panel + 1 < part.panels.end, last) {
                    (true, _) => self.k * width,
                    (false, true) => (self.k - ks.start) * width,
                    // Wrapping, for it lies before this one.
                    (false, false) => ks
                        .len()
                        .wrapping_sub((part.panels.len() - 1) * self.k)
                        .wrapping_mul(width),
                };
                for (t, tile) in tiles.clone().enumerate() {
                    let i = part.rows.start + tile.start;
                    let here = |add: usize| x.add[add].at(i, j);
                    // Before anything is stored, since an addend may be C itself.
                    let given = |add: usize| ks.start == 0 && x.add[add].is_some();
                    let add = [0, 1].map(|n| {
                        if given(n) {
                            shift(here(n), place.add[n])
                        } else {
                            Addend::NONE
                        }
                    });
                    let c = x.c.wrapping_add((part.place * self.m + i) * self.n + j);
                    let next = b.wrapping_add(ahead.wrapping_add(t * ks.len() * share));
                    let one = Tile {
                        a: x.a.wrapping_add(place.a + i * self.a.row + ks.start * self.a.col),
                        a_row: self.a.row,
                        a_k: self.a.col,
                        b,
                        b_k,
                        k: ks.len(),
                        c,
                        c_row: self.n,
                        cols,
                        alpha: self.alpha,
                        accumulate: ks.start > 0,
                        add,
                        end: self.post.ending().filter(|_| last).unwrap_or(Ending::NONE),
                        next: (self.b == Rhs::Packed && t * share < width).then_some(next),
                        slowly,
                    };
                    // SAFETY: these are rows and columns of the matrices; C's are this part's own.
                    unsafe {
                        one.run(tile.len());
                        if last && self.post.ending().is_none() {
                            self.post.apply_rows(c, self.n, tile.len(), cols);
                        }
                    }
                }
            }
        }
    }

    /// Rows `ks` of columns `j..` of `b` for tiles, with the distance from row to row: where they are, or copied to `scratch`.
    ///
    /// # Safety
    ///
    /// As for [`part`](Gemm::part).
    unsafe fn panel(
        &self,
        b: *const f32,
        j: usize,
        ks: &Range<usize>,
        rows: usize,
        scratch: *mut f32,
    ) -> (*const f32, usize) {
        let (height, width) = tile_size();
        let strides = match self.b {
            Rhs::Packed => return (b.wrapping_add(j * self.k + ks.start * width), width),
            Rhs::Strided(s) => s,
        };
        let from = b.wrapping_add(j * strides.col + ks.start * strides.row);
        if strides.col == 1 && rows <= IN_PLACE * height && self.n - j >= width {
            return (from, strides.row);
        }
        // SAFETY: scratch memory has this length, and B these columns.
        unsafe {
            let panel = std::slice::from_raw_parts_mut(scratch, ks.len() * width);
            panel_into(panel, from, strides, width.min(self.n - j));
        }
        (scratch, width)
    }
}

fn shift(add: Addend, by: usize) -> Addend {
    Addend {
        ptr: add.ptr.wrapping_add(by),
        ..add
    }
}

/// Scratch memory of which each thread has a part.
#[derive(Clone, Copy)]
pub(crate) struct Scratch(*mut f32);

// SAFETY: each thread takes its own part.
unsafe impl Send for Scratch {}
// SAFETY: as above.
unsafe impl Sync for Scratch {}

impl Scratch {
    /// Memory aligned to 64 bytes.
    pub(crate) fn new(bytes: &mut [u8]) -> Scratch {
        Scratch(bytes.as_mut_ptr().cast())
    }

    /// Memory that is there already.
    pub(crate) fn from(floats: &mut [f32]) -> Scratch {
        Scratch(floats.as_mut_ptr())
    }

    /// What is behind the first `len` floats.
    pub(crate) fn behind(self, len: usize) -> Scratch {
        Scratch(self.0.wrapping_add(len))
    }

    /// The first float.
    pub(crate) fn start(self) -> *mut f32 {
        self.0
    }

    /// The part of `thread`, of `len` floats.
    pub(crate) fn of(self, thread: usize, len: usize) -> *mut f32 {
        self.0.wrapping_add(thread * len)
    }
}
