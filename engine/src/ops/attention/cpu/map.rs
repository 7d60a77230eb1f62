//! Which keys a mask hides, open and mixed: a map of it in pieces of some queries by some keys.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::lay::{Mask, Steps};
use super::{PANEL, QUERIES};

/// Nothing of a piece may be seen.
const HIDDEN: u32 = 0;
/// All of it may, and nothing is added.
const OPEN: u32 = 1;
/// The mask says; where it is packed, the number of the piece follows from what is above this.
const MIXED: u32 = 2;

/// What is added to scores of which nothing is to be left beside any other.
const FAR: f32 = -1e8;
/// What is added to a score beside which those with [`FAR`] have no weight.
const NEAR: f32 = -1e7;

/// The size of a map: one plane for each head that has a mask of its own, a band for each task's queries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    mask: Mask,
    /// Planes of a sequence, and of all.
    lanes: usize,
    planes: usize,
    bands: usize,
    panels: usize,
    /// Queries in all.
    rows: usize,
    /// Keys that the mask tells of.
    keys: usize,
    /// Whether scores with something far below zero added to them may be left out.
    far: bool,
}

/// Where a task finds its part of a mask.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// What each panel of keys is.
    tiles: &'a [u32],
    /// The first row of the mask.
    raw: *const u8,
    packed: Option<&'a [f32]>,
    grid: &'a Grid,
}

impl Grid {
    /// The map of `mask` for `batch` sequences of `lanes` heads of `rows` queries, and `keys` keys.
    pub(super) fn new(mask: Mask, [batch, lanes, rows, keys]: [usize; 4], far: bool) -> Grid {
        let own = |step: usize, n: usize| if step > 0 { n } else { 1 };
        let Steps { batch: b, head, row } = mask.steps;
        let keys = keys.min(mask.len);
        Grid {
            mask,
            lanes: own(head, lanes),
            planes: own(b, batch) * own(head, lanes),
            bands: own(row, rows.div_ceil(QUERIES)),
            panels: keys.div_ceil(PANEL),
            rows: own(row, rows),
            keys,
            far,
        }
    }

    /// Entries of the map.
    pub(super) fn len(&self) -> usize {
        self.planes.saturating_mul(self.bands).saturating_mul(self.panels)
    }

    /// Entries of a part.
    pub(super) fn panels(&self) -> usize {
        self.panels
    }

    /// Parts that can be surveyed by themselves.
    pub(super) fn parts(&self) -> usize {
        self.planes * self.bands
    }

    /// The queries of part `i`.
    fn count(&self, i: usize) -> usize {
        let first = i % self.bands * QUERIES;
        self.rows.min(first + QUERIES) - first
    }

    /// The mask of the first query of part `i`.
    fn row(&self, raw: *const u8, i: usize) -> *const u8 {
        let (plane, band) = (i / self.bands, i % self.bands);
        let s = self.mask.steps;
        let at = plane / self.lanes * s.batch + plane % self.lanes * s.head + band * QUERIES * s.row;
        raw.wrapping_add(at * self.mask.bytes())
    }

    /// Finds out what part `i` of the mask at `raw` is like.
    ///
    /// # Safety
    ///
    /// The mask is there.
    pub(super) unsafe fn survey(&self, raw: *const u8, i: usize, tiles: &mut [u32]) {
        let (from, count, row) = (self.row(raw, i), self.count(i), self.mask.steps.row);
        tiles.fill(0);
        let mut settled = true;
        for r in 0..count {
            let at = from.wrapping_add(r * row * self.mask.bytes());
            // SAFETY: row `r` of the mask has as many elements.
            settled &= unsafe {
                match self.mask.bools {
                    true => dispatch(Kinds(std::slice::from_raw_parts(at, self.keys), tiles)),
                    false => dispatch(Kinds(
                        std::slice::from_raw_parts(at.cast::<f32>(), self.keys),
                        tiles,
                    )),
                }
            };
        }
        let below = if settled && self.far { GONE | LOW } else { GONE };
        for t in tiles {
            *t = match *t {
                ZERO => OPEN,
                kinds if kinds & !below == 0 => HIDDEN,
                _ => MIXED,
            };
        }
    }

    /// Adds panel `panel` of part `i` of the mask to `pieces`.
    fn copy(&self, raw: &[u8], i: usize, panel: usize, pieces: &mut Vec<f32>) {
        let from = self.row(raw.as_ptr(), i) as usize - raw.as_ptr() as usize;
        let (bytes, begin) = (self.mask.bytes(), pieces.len());
        pieces.resize(begin + self.piece(), 0.0);
        let to = bytemuck::cast_slice_mut::<f32, u8>(&mut pieces[begin..]);
        let len = PANEL.min(self.keys - panel * PANEL) * bytes;
        for (r, to) in to.chunks_exact_mut(PANEL * bytes).enumerate().take(self.count(i)) {
            let at = from + (r * self.mask.steps.row + panel * PANEL) * bytes;
            to[..len].copy_from_slice(&raw[at..][..len]);
        }
    }

    /// The part of a map and a mask that head `h` of sequence `b` has for the queries from `first` on.
    pub(super) fn part<'a>(
        &'a self,
        tiles: &'a [u32],
        packed: Option<&'a [f32]>,
        raw: *const u8,
        [b, h, first]: [usize; 3],
    ) -> Part<'a> {
        let own = |n: usize, i: usize| if n > 1 { i } else { 0 };
        let sequences = self.planes / self.lanes.max(1);
        let plane = own(sequences, b) * self.lanes + own(self.lanes, h);
        let i = plane * self.bands + own(self.bands, first / QUERIES);
        Part {
            tiles: &tiles[i * self.panels..][..self.panels],
            raw: self.row(raw, i),
            packed,
            grid: self,
        }
    }

    /// Floats of a packed piece.
    fn piece(&self) -> usize {
        self.rows.min(QUERIES) * PANEL * self.mask.bytes() / size_of::<f32>()
    }
}

impl Part<'_> {
    /// Whether some of panel `p` may be seen.
    pub(super) fn seen(&self, p: usize) -> bool {
        self.tiles[p] != HIDDEN
    }

    /// What the mask of panel `p` begins with; null where all of it may be seen.
    pub(super) fn panel(&self, p: usize) -> *const u8 {
        match (self.tiles[p], self.packed) {
            (OPEN, _) => std::ptr::null(),
            (_, None) => self.raw.wrapping_add(p * PANEL * self.grid.mask.bytes()),
            (mixed, Some(all)) => {
                let at = (mixed - MIXED) as usize * self.grid.piece();
                all[at..].as_ptr().cast()
            }
        }
    }

    /// From row to row of what [`panel`](Part::panel) gives, in elements.
    pub(super) fn row(&self) -> usize {
        match self.packed {
            Some(_) if self.grid.mask.steps.row > 0 => PANEL,
            _ => self.grid.mask.steps.row,
        }
    }
}

/// The map of a constant mask, and what of the mask is still to be read.
pub(super) struct Packed {
    pub(super) tiles: Vec<u32>,
    /// The mixed pieces, unless they are most of the mask.
    pub(super) pieces: Option<Vec<f32>>,
}

/// Bytes of a mask after which those that were read may be dropped.
const READ: usize = 4 << 20;

impl Packed {
    /// Of the mask in `raw`; `done` is called now and then when what was read of it is not needed any more.
    pub(super) fn new(grid: &Grid, raw: &[u8], done: impl Fn()) -> Packed {
        let (mut tiles, mut pieces, mut mixed) = (vec![0; grid.len()], vec![], 0);
        let most = tiles.len() / 2;
        let each = (QUERIES * grid.keys * grid.mask.bytes()).max(1);
        for (i, tiles) in tiles.chunks_mut(grid.panels.max(1)).enumerate() {
            // SAFETY: the tensor has the dimensions that the grid was made of.
            unsafe { grid.survey(raw.as_ptr(), i, tiles) };
            for (panel, tile) in tiles.iter_mut().enumerate().filter(|(_, t)| **t == MIXED) {
                *tile += mixed;
                mixed += 1;
                if mixed as usize <= most {
                    grid.copy(raw, i, panel, &mut pieces);
                }
            }
            if (i + 1).is_multiple_of(READ.div_ceil(each)) {
                done();
            }
        }
        Packed {
            tiles,
            pieces: (mixed as usize <= most).then_some(pieces),
        }
    }

    /// The panels of keys that may be seen, of those that `limit` says there are for a band.
    pub(super) fn open(&self, grid: &Grid, limit: impl Fn(usize) -> usize) -> usize {
        let parts = self.tiles.chunks(grid.panels.max(1)).enumerate();
        let open = |(i, tiles): (usize, &[u32])| {
            let seen = tiles.iter().take(limit(i % grid.bands));
            seen.filter(|&&t| t != HIDDEN).count()
        };
        parts.map(open).sum()
    }
}

// What elements of a piece there are, as bits.
/// Nothing is added.
const ZERO: u32 = 1;
/// Minus infinity, or false.
const GONE: u32 = 2;
/// At most [`FAR`], but finite.
const LOW: u32 = 4;
/// Anything else.
const OTHER: u32 = 8;

/// Notes what elements of a row there are in each panel; says whether one of them is [`NEAR`] or above.
struct Kinds<'a, T>(&'a [T], &'a mut [u32]);

/// An element of a mask.
trait Kind: Copy {
    fn kind(self) -> u32;
    fn near(self) -> bool;
}

impl Kind for u8 {
    #[inline(always)]
    fn kind(self) -> u32 {
        if self == 0 { GONE } else { ZERO }
    }

    #[inline(always)]
    fn near(self) -> bool {
        self != 0
    }
}

impl Kind for f32 {
    #[inline(always)]
    fn kind(self) -> u32 {
        let low = if self == f32::NEG_INFINITY { GONE } else { LOW };
        let high = if self == 0.0 { ZERO } else { OTHER };
        if self <= FAR { low } else { high }
    }

    #[inline(always)]
    fn near(self) -> bool {
        self >= NEAR
    }
}

impl<T: Kind> Vectorised for Kinds<'_, T> {
    type Out = bool;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> bool {
        let mut near = false;
        for (x, tile) in self.0.chunks(PANEL).zip(self.1) {
            let (mut kinds, mut some) = (0, false);
            for &x in x {
                kinds |= x.kind();
                some |= x.near();
            }
            *tile |= kinds;
            near |= some;
        }
        near
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(dims: &[usize], x: &[f32], far: bool) -> (Grid, Packed) {
        let (rows, keys) = (dims[dims.len() - 2], dims[dims.len() - 1]);
        let heads = dims.iter().rev().nth(2).copied().unwrap_or(1);
        let grid = Grid::new(Mask::new(dims, false), [1, heads, rows, keys], far);
        let packed = Packed::new(&grid, bytemuck::cast_slice(x), || {});
        (grid, packed)
    }

    #[test]
    fn a_band_is_hidden_open_and_mixed() {
        let n = 4 * QUERIES + 5;
        let at = |i: usize, j: usize| {
            if i.abs_diff(j) <= 8 {
                0.0
            } else {
                f32::NEG_INFINITY
            }
        };
        let x: Vec<f32> = (0..n * n).map(|p| at(p / n, p % n)).collect();
        let (x, (grid, all)) = (&x[..], map(&[n, n], &x, false));
        let pieces = all.pieces.as_ref().unwrap();
        for (i, &tile) in all.tiles.iter().enumerate() {
            let (band, panel) = (i / grid.panels, i % grid.panels);
            let of = (band * QUERIES..n.min((band + 1) * QUERIES))
                .flat_map(|i| (panel * PANEL..n.min((panel + 1) * PANEL)).map(move |j| x[i * n + j]));
            let (open, hidden) = (of.clone().all(|x| x == 0.0), of.clone().all(|x| x != 0.0));
            assert_eq!((tile == OPEN, tile == HIDDEN), (open, hidden), "{band} {panel}");
            if tile >= MIXED {
                let piece = &pieces[(tile - MIXED) as usize * grid.piece()..][..grid.piece()];
                let (first, keys) = (band * QUERIES, PANEL.min(n - panel * PANEL));
                let row = |r: usize| &piece[r * PANEL..][..keys];
                let kept: Vec<f32> = (0..grid.count(band)).flat_map(row).copied().collect();
                assert_eq!(kept, of.collect::<Vec<_>>(), "{band} {panel} from {first}");
            }
        }
        assert!(all.open(&grid, |_| usize::MAX) < all.tiles.len() / 2);
    }

    #[test]
    fn what_is_far_is_hidden_beside_something_near() {
        let n = 3 * PANEL;
        let row = |near: f32| (0..n).map(move |j| if j < PANEL { near } else { -1e9 });
        let tiles = |rows: Vec<f32>, far| map(&[rows.len() / n, n], &rows, far).1.tiles;
        let both: Vec<f32> = row(0.0).chain(row(0.5)).collect();
        let seen = |t: Vec<u32>| t.iter().map(|&t| t != HIDDEN).collect::<Vec<_>>();
        assert_eq!(seen(tiles(both.clone(), true)), [true, false, false]);
        assert_eq!(seen(tiles(both, false)), [true; 3]);
        // A row with nothing near has equal weights.
        let idle: Vec<f32> = row(0.0).chain(row(-1e9)).collect();
        assert_eq!(seen(tiles(idle, true)), [true; 3]);
        let odd: Vec<f32> = row(f32::NAN).collect();
        assert_eq!(seen(tiles(odd, true)), [true; 3]);
    }

    #[test]
    fn one_row_serves_all_queries() {
        let x: Vec<f32> = (0..4 * PANEL)
            .map(|j| if j < PANEL { 0.0 } else { f32::NEG_INFINITY })
            .collect();
        let (grid, all) = map(&[1, 4 * PANEL], &x, false);
        let part = grid.part(
            &all.tiles,
            all.pieces.as_deref(),
            std::ptr::null(),
            [0, 0, 5 * QUERIES],
        );
        assert_eq!([0, 1, 2, 3].map(|p| part.seen(p)), [true, false, false, false]);
        assert!(part.panel(0).is_null());
        assert_eq!(part.row(), 0);
    }
}
