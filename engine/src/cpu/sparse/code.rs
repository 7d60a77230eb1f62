//! Weights with zeros, as the [innermost loops](super::tile) read them.

use std::ops::Range;

use super::zeros::Matrix;
use crate::cpu::gemm::Floats;
use crate::cpu::{Order, Packed};
use crate::ir::Bytes;

/// How rows share what they load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Rows matched two by two; where only one has a weight, the other has one elsewhere.
    Pairs,
    /// Four neighbouring rows share all places.
    Quads,
}

impl Kind {
    /// Rows that share places.
    fn rows(self) -> usize {
        match self {
            Kind::Pairs => 2,
            Kind::Quads => 4,
        }
    }

    fn code(self) -> &'static [u8] {
        match self {
            Kind::Pairs => b"2",
            Kind::Quads => b"4",
        }
    }
}

/// How a matrix is cut, and where what its columns are multiplied by will be.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// How rows share loads.
    pub kind: Kind,
    /// Matrices, one behind the other.
    pub groups: usize,
    /// One of them.
    pub matrix: Matrix,
    /// Rows of a block, a multiple of 16.
    pub block: usize,
    /// Ranges of columns whose places fit the nearest cache.
    pub parts: Vec<Range<usize>>,
    /// The place of each column within its part; 0 is that of zeros.
    pub places: Vec<u16>,
}

/// Two rows (or four: the first of them) and their weights in a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Head {
    /// Rows of the block.
    pub(super) rows: [u16; 2],
    /// Columns where all have a weight: one place and a weight for each row.
    pub(super) both: u16,
    /// Pairs of columns, one for each row, with a place and a weight each; some of zeros.
    pub(super) single: u16,
}

/// The weights of a block of rows in a part of the columns.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) kind: Kind,
    pub(super) heads: &'a [Head],
    pub(super) weights: &'a [f32],
    pub(super) places: &'a [u16],
}

/// Weights with zeros in the order in which they are read, block by block and part by part.
pub struct Code {
    kind: Kind,
    /// Where heads, weights and places of each block and part begin, and where the last ends.
    starts: Vec<[u32; 3]>,
    heads: Floats,
    weights: Floats,
    places: Floats,
}

impl Cut {
    /// Blocks of rows of one group.
    pub fn blocks(&self) -> usize {
        self.matrix.rows.div_ceil(self.block)
    }

    /// The rows of a block.
    pub fn rows(&self, block: usize) -> Range<usize> {
        block * self.block..self.matrix.rows.min((block + 1) * self.block)
    }

    /// The order of weights that are cut so.
    pub fn order(&self) -> Order {
        let m = &self.matrix;
        let ends = self.parts.iter().map(|p| p.end as u64);
        let sum = ends.chain(self.places.iter().map(|&p| u64::from(p)));
        // Places follow from sizes that are not named here.
        let sum = sum.fold(0u64, |h, x| {
            (h ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
        });
        let name = format!(
            "sparse {:?} {}x{}x{} by {}, {}, {}: {sum:x}",
            self.kind, self.groups, m.rows, m.cols, self.block, m.row, m.col
        );
        let most =
            |part: &Range<usize>| usize::from(self.places[part.clone()].iter().copied().max().unwrap_or(0));
        let count = self.groups * self.blocks();
        let limits = [self.kind.rows(), count, self.block];
        Order {
            name,
            limits: limits.into_iter().chain(self.parts.iter().map(most)).collect(),
            ..Order::default()
        }
    }
}

/// What grows while weights are being encoded.
#[derive(Default)]
struct Growing {
    starts: Vec<[u32; 3]>,
    heads: Vec<Head>,
    weights: Vec<f32>,
    places: Vec<u16>,
}

impl Code {
    /// Encodes `w`.
    pub fn new(w: &[f32], cut: &Cut) -> Code {
        let mut to = Growing::default();
        let m = cut.matrix;
        let mut dense = vec![];
        for (group, block) in (0..cut.groups).flat_map(|g| (0..cut.blocks()).map(move |b| (g, b))) {
            for (i, part) in cut.parts.iter().enumerate() {
                to.mark();
                let rows = cut.rows(block);
                let from = (group * m.rows + rows.start) * m.row + part.start * m.col;
                block_into(&mut dense, &w[from.min(w.len())..], rows.len(), part.len(), m);
                let places = &cut.places[part.clone()];
                match cut.kind {
                    Kind::Pairs => to.pairs(&dense, places, i == 0),
                    Kind::Quads => to.quads(&dense, places, i == 0),
                }
            }
        }
        to.mark();
        Code {
            kind: cut.kind,
            starts: to.starts,
            heads: stored(&to.heads),
            weights: stored(&to.weights),
            places: stored(&to.places),
        }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let [heads, weights, places] = self.starts.last().map_or([0; 3], |s| s.map(|n| n as usize));
        heads * size_of::<Head>() + 4 * weights + 2 * places
    }

    /// Block and part number `at`.
    pub(super) fn part(&self, at: usize) -> Part<'_> {
        let (from, to) = (self.starts[at], self.starts[at + 1]);
        let range = |i: usize| from[i] as usize..to[i] as usize;
        Part {
            kind: self.kind,
            heads: &bytemuck::cast_slice(self.heads.slice())[range(0)],
            weights: &self.weights.slice()[range(1)],
            places: &bytemuck::cast_slice(self.places.slice())[range(2)],
        }
    }
}

impl Part<'_> {
    /// Whether heads have as many weights and places as they say, and rows of a block of `rows`, or the one behind.
    fn is_whole(&self, rows: usize) -> bool {
        let (mut weights, mut places) = (0, 0);
        for h in self.heads {
            let (both, single) = (usize::from(h.both), usize::from(h.single));
            let last = match self.kind {
                Kind::Pairs => usize::from(h.rows[0].max(h.rows[1])),
                Kind::Quads => usize::from(h.rows[0]) + 3,
            };
            if last > rows || (self.kind == Kind::Quads && single > 0) {
                return false;
            }
            weights += if self.kind == Kind::Pairs {
                2 * (both + single)
            } else {
                4 * both
            };
            places += both + 2 * single;
        }
        weights == self.weights.len() && places == self.places.len()
    }
}

impl Packed for Code {
    fn parts(&self) -> Vec<&[u8]> {
        let starts = bytemuck::cast_slice(&self.starts);
        let all = [&self.heads, &self.weights, &self.places].map(|f| bytemuck::cast_slice(f.slice()));
        [self.kind.code(), starts].into_iter().chain(all).collect()
    }

    fn from_parts(parts: &[Bytes]) -> Option<Code> {
        let [kind, starts, rest @ ..] = parts else {
            return None;
        };
        let floats = |i: usize| Floats::from_parts(rest.get(i..=i)?);
        let code = Code {
            kind: [Kind::Pairs, Kind::Quads]
                .into_iter()
                .find(|k| k.code() == &kind[..])?,
            starts: bytemuck::try_cast_slice(starts).ok()?.to_vec(),
            heads: floats(0)?,
            weights: floats(1)?,
            places: floats(2)?,
        };
        let rising = code.starts.windows(2).all(|s| (0..3).all(|i| s[0][i] <= s[1][i]));
        let [heads, weights, places] = code.starts.last()?.map(|n| n as usize);
        let there = heads <= code.heads.slice().len() / 2
            && weights <= code.weights.slice().len()
            && places <= 2 * code.places.slice().len();
        (rising && there).then_some(code)
    }

    /// The loops trust what it says.
    fn keeps(&self, limits: &[usize]) -> bool {
        let [rows, blocks, block, most @ ..] = limits else {
            return false;
        };
        let count = blocks * most.len();
        self.kind.rows() == *rows
            && self.starts.len() == count + 1
            && (0..count).all(|at| {
                let (part, most) = (self.part(at), most[at % most.len()]);
                part.places.iter().all(|&p| usize::from(p) <= most) && part.is_whole(*block)
            })
    }
}

fn stored<T: bytemuck::Pod>(all: &[T]) -> Floats {
    let bytes: &[u8] = bytemuck::cast_slice(all);
    let mut floats = Floats::zeros(bytes.len().div_ceil(size_of::<f32>()));
    bytemuck::cast_slice_mut(floats.slice_mut())[..bytes.len()].copy_from_slice(bytes);
    floats
}

/// Copies a block of rows of a part of the columns, the nearer index inside.
fn block_into(to: &mut Vec<f32>, w: &[f32], rows: usize, cols: usize, m: Matrix) {
    to.clear();
    to.resize(rows * cols, 0.0);
    if m.col == 1 {
        for (r, row) in to.chunks_exact_mut(cols.max(1)).enumerate() {
            row.copy_from_slice(&w[r * m.row..][..cols]);
        }
        return;
    }
    for c in 0..cols {
        for r in 0..rows {
            to[r * cols + c] = w[c * m.col + r * m.row];
        }
    }
}

/// A row of a part: which columns have a weight.
struct Row<'a> {
    row: u16,
    weights: &'a [f32],
    live: Vec<u64>,
    count: usize,
}

impl<'a> Row<'a> {
    fn new(row: usize, weights: &'a [f32]) -> Row<'a> {
        let word = |c: &[f32]| c.iter().rev().fold(0, |bits, &w| bits << 1 | u64::from(w != 0.0));
        let live: Vec<u64> = weights.chunks(64).map(word).collect();
        Row {
            row: row as u16,
            count: live.iter().map(|w| w.count_ones() as usize).sum(),
            weights,
            live,
        }
    }

    fn shared(&self, other: &Row) -> usize {
        let words = self.live.iter().zip(&other.live);
        words.map(|(a, b)| (a & b).count_ones() as usize).sum()
    }
}

/// The places of the bits that are set.
fn bits(words: impl Iterator<Item = u64>) -> impl Iterator<Item = usize> {
    words.enumerate().flat_map(|(i, mut word)| {
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| 64 * i + word.trailing_zeros() as usize);
            word &= word.wrapping_sub(1);
            bit
        })
    })
}

/// Rows of like number of weights among which a partner is looked for.
const NEAR: usize = 64;

/// What a pair costs beyond what its second row would cost elsewhere; measured in cycles.
fn price(a: &Row, b: &Row) -> f64 {
    let both = a.shared(b);
    let more = a.count.max(b.count) - both;
    4.2 * both as f64 + 5.4 * more as f64 - 2.7 * b.count as f64
}

impl Growing {
    fn mark(&mut self) {
        let lens = [self.heads.len(), self.weights.len(), self.places.len()];
        self.starts.push(lens.map(|n| n as u32));
    }

    /// Matches rows in pairs and orders these by their number of weights, so that loops end where the processor expects it.
    fn pairs(&mut self, dense: &[f32], places: &[u16], first: bool) {
        let rows = dense.chunks_exact(places.len().max(1)).enumerate();
        let mut rows: Vec<_> = rows.map(|(r, w)| Row::new(r, w)).collect();
        let none = vec![0.0; places.len()];
        if rows.len() % 2 == 1 {
            rows.push(Row::new(rows.len(), &none));
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.count));
        let mut left: Vec<&Row> = rows.iter().rev().collect();
        let mut matched = vec![];
        while let Some(a) = left.pop() {
            let near = left.iter().enumerate().rev().take(NEAR);
            let best = near.min_by(|x, y| price(a, x.1).total_cmp(&price(a, y.1)));
            let Some((at, _)) = best else { break };
            let b = left.remove(at);
            let both = a.shared(b);
            matched.push((both, a.count.max(b.count) - both, a, b));
        }
        matched.sort_by_key(|(both, single, ..)| (*both, *single));
        for (both, single, a, b) in matched {
            if first || both + single > 0 {
                self.pair(places, (a, b), (both, single));
            }
        }
    }

    fn pair(&mut self, places: &[u16], (a, b): (&Row, &Row), (both, single): (usize, usize)) {
        self.heads.push(Head {
            rows: [a.row, b.row],
            both: both as u16,
            single: single as u16,
        });
        let words = || a.live.iter().zip(&b.live);
        for c in bits(words().map(|(a, b)| a & b)) {
            self.places.push(places[c]);
            self.weights.extend([a.weights[c], b.weights[c]]);
        }
        let mut one = bits(words().map(|(a, b)| a & !b));
        let mut other = bits(words().map(|(a, b)| b & !a));
        for _ in 0..single {
            // Where a row has no more, zeros by zero: what else is there could be infinite.
            for (row, c) in [(a, one.next()), (b, other.next())] {
                self.places.push(c.map_or(0, |c| places[c]));
                self.weights.push(c.map_or(0.0, |c| row.weights[c]));
            }
        }
    }

    fn quads(&mut self, dense: &[f32], places: &[u16], first: bool) {
        let cols = places.len().max(1);
        let mut all = vec![];
        for (i, rows) in dense.chunks(4 * cols).enumerate() {
            let of = |r: usize, c: usize| rows.get(r * cols + c).copied().unwrap_or(0.0);
            let live = (0..places.len()).filter(|&c| (0..4).any(|r| of(r, c) != 0.0));
            let columns: Vec<_> = live
                .map(|c| (places[c], [0, 1, 2, 3].map(|r| of(r, c))))
                .collect();
            all.push((4 * i, columns));
        }
        all.sort_by_key(|(_, columns)| columns.len());
        for (row, columns) in all
            .into_iter()
            .filter(|(_, columns)| first || !columns.is_empty())
        {
            self.heads.push(Head {
                rows: [row as u16, 0],
                both: columns.len() as u16,
                single: 0,
            });
            for (place, weights) in columns {
                self.places.push(place);
                self.weights.extend(weights);
            }
        }
    }
}
