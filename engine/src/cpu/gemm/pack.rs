//! Operands in the order in which tiles read them.

use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};

use secateur_simd::{Simd, Vectorised, dispatch};

use super::tile::tile_size;
use crate::cpu::{Arena, Order, Packed};
use crate::ir::Bytes;

/// The distance between neighbouring elements of a matrix, in floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strides {
    /// From row to row.
    pub row: usize,
    /// From column to column.
    pub col: usize,
}

impl Strides {
    /// Those of a row-major matrix of `cols` columns.
    pub fn rows(cols: usize) -> Strides {
        Strides { row: cols, col: 1 }
    }

    /// Those of the transposed matrix.
    pub fn transposed(self) -> Strides {
        Strides {
            row: self.col,
            col: self.row,
        }
    }
}

/// Bytes of memory that packed weights share.
const SLAB: usize = 32 << 20;
/// Weights of fewer bytes have memory of their own.
const SMALL: usize = 64 << 10;

/// Floats aligned to a cache line. Large ones stand side by side in common memory, whose pages can be huge.
pub struct Floats {
    start: *mut f32,
    len: usize,
    _memory: Arc<Memory>,
}

// SAFETY: no two share a float, so they are as a vector would be.
unsafe impl Send for Floats {}
// SAFETY: as above.
unsafe impl Sync for Floats {}

/// Memory that is only reached through the floats in it.
#[expect(dead_code, reason = "holds the memory")]
enum Memory {
    Own(Arena),
    /// Only to be read.
    Mapped(Bytes),
}

/// The memory that has room left, and where that begins.
static OPEN: Mutex<Option<(Weak<Memory>, Rest)>> = Mutex::new(None);

/// Floats that nobody has taken.
struct Rest(*mut f32, usize);

// SAFETY: nobody else reaches them.
unsafe impl Send for Rest {}

impl Floats {
    /// `len` zeros, perhaps with a few more behind them.
    pub fn zeros(len: usize) -> Floats {
        let len = len.next_multiple_of(16);
        let bytes = len * size_of::<f32>();
        if bytes < SMALL {
            return Floats::fresh(bytes).0;
        }
        let mut open = OPEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((memory, rest)) = &mut *open
            && let Some(memory) = memory.upgrade()
            && rest.1 >= len
        {
            let start = rest.0;
            *rest = Rest(start.wrapping_add(len), rest.1 - len);
            return Floats {
                start,
                len,
                _memory: memory,
            };
        }
        let (mut all, memory) = Floats::fresh(bytes.max(SLAB));
        let rest = Rest(all.start.wrapping_add(len), all.len - len);
        all.len = len;
        *open = Some((Arc::downgrade(&memory), rest));
        all
    }

    fn fresh(bytes: usize) -> (Floats, Arc<Memory>) {
        let mut arena = Arena::new(bytes);
        let (start, len) = (
            arena.bytes_mut().as_mut_ptr().cast(),
            arena.len() / size_of::<f32>(),
        );
        let memory = Arc::new(Memory::Own(arena));
        let floats = Floats {
            start,
            len,
            _memory: memory.clone(),
        };
        (floats, memory)
    }

    /// A copy of `x` with zeros up to a multiple of `to`.
    pub fn whole(x: &[f32], to: usize) -> Floats {
        let mut all = Floats::zeros(x.len().next_multiple_of(to));
        all.slice_mut()[..x.len()].copy_from_slice(x);
        all
    }

    /// The floats, perhaps with a few more behind them.
    pub fn slice(&self) -> &[f32] {
        // SAFETY: they lie in memory that is held, and were zeros before somebody wrote them.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// The floats, perhaps with a few more behind them.
    pub fn slice_mut(&mut self) -> &mut [f32] {
        if matches!(*self._memory, Memory::Mapped(_)) {
            *self = Floats::whole(self.slice(), 1);
        }
        // SAFETY: as above, and nobody else has these.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Packed for Floats {
    fn parts(&self) -> Vec<&[u8]> {
        vec![bytemuck::cast_slice(self.slice())]
    }

    fn from_parts(parts: &[Bytes]) -> Option<Floats> {
        let bytes = parts.first()?;
        let floats: &[f32] = bytemuck::try_cast_slice(bytes).ok()?;
        Some(Floats {
            start: floats.as_ptr().cast_mut(),
            len: floats.len(),
            _memory: Arc::new(Memory::Mapped(bytes.clone())),
        })
    }
}

/// `len` cut into ranges of at most `max`, as few and as equal as can be; one empty range where `len` is 0.
pub(crate) fn balanced(len: usize, max: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let parts = len.div_ceil(max.max(1)).max(1);
    (0..parts).map(move |i| len * i / parts..len * (i + 1) / parts)
}

/// The ranges into which a sum of `k` products is cut, so that a panel stays within half the second cache's reach.
pub(crate) fn k_blocks(k: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    balanced(k, if k <= 1024 { 1024 } else { 512 })
}

/// A right operand `[k, n]` as panels of as many columns as a tile has: `[n / width][k][width]`, zeros behind `n`.
pub struct Panels {
    /// The floats.
    pub data: Floats,
}

impl Panels {
    /// The order of `count` matrices with `strides`, which the instruction set in use decides.
    pub fn order(count: usize, (k, n): (usize, usize), strides: Strides) -> Order {
        let name = format!("panels {k}x{n} by {}, {strides:?}", tile_size().1);
        Order::floats(name, count * Panels::len(k, n))
    }

    /// Floats of one matrix.
    pub fn len(k: usize, n: usize) -> usize {
        n.next_multiple_of(tile_size().1) * k
    }

    /// `count` matrices that follow each other in `b`, each of `k * n` elements with `strides`.
    pub fn new(b: &[f32], count: usize, (k, n): (usize, usize), strides: Strides) -> Panels {
        let (width, len) = (tile_size().1, Panels::len(k, n));
        let mut data = Floats::zeros(count * len);
        if len > 0 {
            let matrices = data.slice_mut().chunks_exact_mut(len).zip(b.chunks_exact(k * n));
            for (to, from) in matrices {
                for (j, panel) in to.chunks_exact_mut(k * width).enumerate() {
                    let cols = width.min(n - j * width);
                    // SAFETY: the last element of these columns is the last but `n - j * width - cols` of the matrix.
                    unsafe { panel_into(panel, from.as_ptr().add(j * width * strides.col), strides, cols) };
                }
            }
        }
        Panels { data }
    }
}

impl Packed for Panels {
    fn parts(&self) -> Vec<&[u8]> {
        self.data.parts()
    }

    fn from_parts(parts: &[Bytes]) -> Option<Panels> {
        let data = Floats::from_parts(parts)?;
        Some(Panels { data })
    }
}

impl Packed for Vec<Panels> {
    fn parts(&self) -> Vec<&[u8]> {
        self.iter().flat_map(Packed::parts).collect()
    }

    fn from_parts(parts: &[Bytes]) -> Option<Self> {
        parts.chunks(1).map(Panels::from_parts).collect()
    }
}

/// Fills `panel`, rows of a tile's width, with `cols` columns from `b` on and zeros behind.
///
/// # Safety
///
/// As many rows of `b` as `panel` has are readable.
pub(crate) unsafe fn panel_into(panel: &mut [f32], b: *const f32, strides: Strides, cols: usize) {
    let width = tile_size().1;
    if strides.col == 1 {
        return dispatch(CopyRows {
            panel,
            b,
            pitch: strides.row,
            cols,
        });
    }
    // What lies in memory column by column is turned square by square.
    let depth = panel.len() / width;
    let (even, whole) = match strides.row {
        1 => dispatch(TurnColumns {
            panel,
            b,
            pitch: strides.col,
            cols,
        }),
        _ => (0, 0),
    };
    for k in 0..depth {
        let row = &mut panel[k * width..][..width];
        let done = if k < even { whole } else { 0 };
        row[cols..].fill(0.0);
        for (j, x) in row[..cols].iter_mut().enumerate().skip(done) {
            // SAFETY: row `k` has `cols` floats.
            *x = unsafe { *b.add(k * strides.row + j * strides.col) };
        }
    }
}

/// Copies whole vectors of columns, for whole vectors of rows, of a matrix whose columns lie in memory one by one; how many rows and
/// columns these are.
struct TurnColumns<'a> {
    panel: &'a mut [f32],
    b: *const f32,
    /// From column to column.
    pitch: usize,
    cols: usize,
}

impl Vectorised for TurnColumns<'_> {
    type Out = (usize, usize);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (usize, usize) {
        let lanes = S::LANES;
        let whole = self.cols / lanes * lanes;
        let squares = self.panel.chunks_exact_mut(2 * lanes * lanes);
        let even = squares.len() * lanes;
        for (i, rows) in squares.enumerate() {
            for j in (0..whole).step_by(lanes) {
                let column = |c: usize| {
                    self.b
                        .wrapping_add((j + c.min(lanes - 1)) * self.pitch + i * lanes)
                };
                let columns: [*const f32; 16] = std::array::from_fn(column);
                // SAFETY: the matrix has these rows of these columns.
                let square = unsafe { s.load_turned(&columns) };
                for (row, x) in rows.chunks_exact_mut(2 * lanes).zip(square) {
                    // SAFETY: a row of the panel has two vectors.
                    unsafe { s.store(row.as_mut_ptr().add(j), x) };
                }
            }
        }
        (even, whole)
    }
}

/// Rows that are fetched before they are copied.
const AHEAD: usize = 24;

/// Copies rows that lie in memory as they are wanted.
struct CopyRows<'a> {
    panel: &'a mut [f32],
    b: *const f32,
    pitch: usize,
    cols: usize,
}

impl Vectorised for CopyRows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let lanes = S::LANES;
        let (first, second) = (self.cols.min(lanes), self.cols.saturating_sub(lanes));
        for (k, row) in self.panel.chunks_exact_mut(2 * lanes).enumerate() {
            let from = self.b.wrapping_add(k * self.pitch);
            // Rows are often pages apart, where the processor does not look ahead.
            s.prefetch(from.wrapping_add(AHEAD * self.pitch));
            s.prefetch(from.wrapping_add(AHEAD * self.pitch + 2 * lanes - 1));
            // SAFETY: a row of the panel has two vectors, and row `k` of the matrix `cols` floats.
            unsafe {
                let (x, y) = match second == lanes {
                    true => (s.load(from), s.load(from.add(lanes))),
                    false => (
                        s.load_first(from, first),
                        s.load_first(from.wrapping_add(first), second),
                    ),
                };
                s.store(row.as_mut_ptr(), x);
                s.store(row.as_mut_ptr().add(lanes), y);
            }
        }
    }
}

/// A left operand `[m, k]` in the order in which tiles read it when it is the weights that stream: for each range of
/// `k`, for each tile of rows, `[k][rows]`.
pub struct Bands {
    /// The floats.
    pub data: Floats,
}

impl Bands {
    /// The order of `count` matrices, which the instruction set in use decides.
    pub fn order(count: usize, (m, k): (usize, usize), strides: Strides) -> Order {
        let name = format!("{count} bands {m}x{k} by {}, {strides:?}", tile_size().0);
        Order::floats(name, count * m * k)
    }

    /// `count` matrices that follow each other in `a`, each of `m * k` elements with `strides`.
    pub fn new(a: &[f32], count: usize, (m, k): (usize, usize), strides: Strides) -> Bands {
        let mut data = Floats::zeros(count * m * k);
        let matrices = a
            .chunks_exact((m * k).max(1))
            .zip(data.slice_mut().chunks_exact_mut((m * k).max(1)));
        matrices
            .take(count)
            .for_each(|(from, to)| bands_into(to, from, (m, k), strides));
        Bands { data }
    }
}

impl Packed for Bands {
    fn parts(&self) -> Vec<&[u8]> {
        self.data.parts()
    }

    fn from_parts(parts: &[Bytes]) -> Option<Bands> {
        let data = Floats::from_parts(parts)?;
        Some(Bands { data })
    }
}

/// Fills `to` with the matrix `[m, k]` in `a` as [`Bands`].
pub(crate) fn bands_into(to: &mut [f32], a: &[f32], (m, k): (usize, usize), strides: Strides) {
    let mut to = to.iter_mut();
    for ks in k_blocks(k) {
        for rows in balanced(m, tile_size().0) {
            for k in ks.clone() {
                let column = rows.clone().map(|i| a[i * strides.row + k * strides.col]);
                to.by_ref()
                    .take(rows.len())
                    .zip(column)
                    .for_each(|(to, x)| *to = x);
            }
        }
    }
}
