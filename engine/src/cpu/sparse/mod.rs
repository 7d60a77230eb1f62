//! Products and convolutions whose weights have zeros.
//!
//! `y = post(W x + addends)` for weights `W [outputs, channels * window]` of which only those that are not zero are kept and
//! multiplied. A vector holds neighbouring positions (tokens, pixels), for which every weight is the same. Input and output
//! stand as the dense kernels want them, channels side by side: blocks of them are transposed as they are read into
//! memory near the processor, in any order of positions, and transposed back when sums are ended. So dense and sparse
//! kernels follow each other without copies between them.
//!
//! Sums go in the order of the encoding, which depends on the weights alone. What is multiplied by a zero is not looked at, even
//! where it is infinite or NaN.

mod code;
mod grid;
mod lay;
#[cfg(test)]
mod tests;
mod tile;
mod vector;
mod zeros;

use std::ops::Range;
use std::sync::Arc;

pub use code::{Code, Cut, Kind};
pub use grid::Grid;
use grid::NOWHERE;
use lay::{Added, Drain, Fill, Halo, lanes};
use tile::Strip;
pub use vector::{Tokens, Vector};
pub use zeros::{Matrix, Zeros};

use super::blocked::BLOCK;
use super::conv::{Images, Shape};
use super::gemm::{Scratch, balanced};
use super::{Cost, Ending, Pool, Post};

/// Bytes of what lies under a part of the weights, which stay in the nearest cache.
const NEAR: usize = 36 << 10;
/// Most rows of a block: their sums stay in the second cache.
const ROWS: usize = 512;
/// Bytes of weights that every thread may read; of more, each reads its own part.
const SHARED: usize = 512 << 10;
/// The share of weights that are there below which strips are half as wide.
const NARROW: f64 = 0.25;

/// The share of zeros from which on sparse kernels are offered.
pub const WORTH: f64 = 0.1;

/// How channels lie in memory: floats from group to group, block to block, and channel to channel.
#[derive(Clone, Copy, Debug)]
struct Side {
    group: usize,
    block: usize,
    channel: usize,
}

/// How a product is computed, which follows from shapes and the number of weights.
#[derive(Clone, Debug)]
pub struct Plan {
    cut: Cut,
    grid: Grid,
    post: Post,
    x: Side,
    y: Side,
    /// Whether whole blocks of channels are written.
    whole: bool,
    strips: Vec<Range<usize>>,
    /// The slot of zeros with which each part begins, and behind the last.
    slots: Vec<usize>,
    /// Whether each task brings what it reads into memory of its own.
    own: bool,
    /// Where positions follow each other in the output, for each strip, where the end of sums needs it.
    runs: Vec<Vec<(u32, u32)>>,
    cost: Cost,
}

/// Something that is added to the sums: one number for each channel, or one for each channel and position.
#[derive(Clone, Copy)]
pub struct Addend<'a> {
    /// That of the first channel and position.
    pub x: *const f32,
    /// Its place for each position, as [`Plan::places`] makes them; none where all positions have the same.
    pub at: Option<&'a [u32]>,
}

/// The memory of a product.
#[derive(Clone, Copy)]
pub struct Operands<'a> {
    /// The input.
    pub x: *const f32,
    /// The output.
    pub y: *mut f32,
    /// What is added.
    pub add: [Option<Addend<'a>>; 2],
}

// SAFETY: `Product::run` asks for what makes its tasks independent of each other.
unsafe impl Send for Operands<'_> {}
// SAFETY: as above.
unsafe impl Sync for Operands<'_> {}

/// Rows of a matrix as positions: where each is read and written, and the zeros of the weights.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The first float of each row of the input.
    pub from: Vec<u32>,
    /// The first float of each row of the output.
    pub to: Vec<u32>,
    /// The weights.
    pub matrix: Matrix,
    /// Their zeros.
    pub zeros: Zeros,
    /// What is applied in the end.
    pub post: Post,
}

impl Plan {
    /// A convolution of images in blocks of channels; of few input channels, of images row by row. `None` where it does not
    /// fit: over more than two axes, or in groups that are not of whole blocks.
    pub fn conv(shape: &Shape, zeros: &Zeros) -> Option<Plan> {
        let (w, whole) = (&shape.window, |n: usize| n.is_multiple_of(BLOCK));
        if shape.groups > 1 && !(whole(shape.inputs) && whole(shape.outputs)) {
            return None;
        }
        let (inputs, outputs) = (shape.inputs * shape.groups, shape.outputs * shape.groups);
        let y = grid::in_blocks(outputs, w.positions());
        let (x, channel) = match Plan::reads_rows(shape) {
            false => (grid::in_blocks(inputs, w.plane()), 1),
            true => (grid::row_by_row(inputs, w.plane()), w.plane()),
        };
        let grid = Grid::new(w, shape.images, [x, y], lanes())?;
        let matrix = Matrix::rows(shape.outputs, shape.depth());
        let side = |channels: usize, plane: usize, channel| Side {
            group: channels * plane,
            block: BLOCK * plane,
            channel,
        };
        let plan = Plan::new(grid, (matrix, shape.groups), w.taps(), zeros, shape.post)?;
        Some(
            Plan {
                x: side(shape.inputs, w.plane(), channel),
                y: side(shape.outputs, w.positions(), 1),
                whole: true,
                ..plan
            }
            .ready(),
        )
    }

    /// Whether a convolution reads images row by row.
    pub fn reads_rows(shape: &Shape) -> bool {
        shape.inputs < BLOCK
    }

    /// A product of rows of a matrix.
    pub fn rows(rows: Rows) -> Option<Plan> {
        let grid = Grid::rows(rows.from.into_iter(), rows.to.into_iter(), lanes());
        let plan = Plan::new(grid, (rows.matrix, 1), 1, &rows.zeros, rows.post)?;
        Some(plan.ready())
    }

    fn new(
        grid: Grid,
        (matrix, groups): (Matrix, usize),
        taps: usize,
        zeros: &Zeros,
        post: Post,
    ) -> Option<Plan> {
        if grid.vectors == 0 || groups * matrix.rows * matrix.cols == 0 {
            return None;
        }
        let (kind, work) = Plan::work(zeros);
        let share = zeros.live as f64 / zeros.len.max(1) as f64;
        let most = tile::widest(kind);
        let narrow = grid.taps.is_empty() && share < NARROW && kind == Kind::Pairs;
        let strips = strips(grid.vectors, if narrow { most.div_ceil(2) } else { most });
        let wide = strips.iter().map(Range::len).max().unwrap_or(1);
        let (slots, parts, places) = places(&grid, (matrix.cols / taps, taps), wide)?;
        let own = grid.taps.is_empty() && strips.len() >= 4 && 6 * zeros.live <= SHARED;
        let least = match strips.len() {
            8.. => 1,
            _ if own => 1,
            _ => (matrix.rows / 128).clamp(1, 4),
        };
        let blocks = matrix.rows.div_ceil(ROWS).max(least);
        let cut = Cut {
            kind,
            groups,
            matrix,
            block: matrix.rows.div_ceil(blocks).next_multiple_of(BLOCK),
            parts,
            places,
        };
        let cost = cost(&cut, &grid, zeros, work, post);
        Some(Plan {
            cut,
            grid,
            post,
            x: Side {
                group: 0,
                block: BLOCK,
                channel: 1,
            },
            y: Side {
                group: 0,
                block: BLOCK,
                channel: 1,
            },
            whole: false,
            strips,
            slots,
            own,
            runs: vec![],
            cost,
        })
    }

    /// With what follows from all the rest.
    fn ready(mut self) -> Plan {
        if self.post.ending().is_none() {
            let step = if self.whole { BLOCK } else { self.pitch_of_rows() };
            let runs = |strip: &Range<usize>| self.grid.runs(strip.clone(), step, lanes());
            self.runs = self.strips.iter().map(runs).collect();
        }
        self
    }

    /// Floats from row to row of a matrix that is written.
    fn pitch_of_rows(&self) -> usize {
        self.cut.matrix.rows
    }

    /// How rows best share what they load, and the cycles that it takes for a vector of positions.
    fn work(zeros: &Zeros) -> (Kind, f64) {
        let density = zeros.live as f64 / zeros.len.max(1) as f64;
        let shared = share_of_pairs(density);
        let pairs = zeros.live as f64 * (0.575 * shared + 0.7 * (1.0 - shared));
        let quads = zeros.quads as f64 * 2.1;
        if quads < pairs {
            (Kind::Quads, quads)
        } else {
            (Kind::Pairs, pairs)
        }
    }

    /// How the weights are to be encoded.
    pub fn cut(&self) -> &Cut {
        &self.cut
    }

    /// What it costs.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// The places of an addend for each position, from that of each position of a matrix in order.
    pub fn places(&self, each: &[u32]) -> Vec<u32> {
        let mut all = each.to_vec();
        all.resize(self.grid.to.len(), NOWHERE);
        all
    }
}

/// How many of the weights of rows matched two by two stand in the same columns: interpolated from what matching finds in
/// random patterns.
fn share_of_pairs(density: f64) -> f64 {
    const FOUND: [(f64, f64); 8] = [
        (0.0, 0.22),
        (0.05, 0.24),
        (0.1, 0.27),
        (0.2, 0.34),
        (0.3, 0.42),
        (0.4, 0.5),
        (0.5, 0.59),
        (1.0, 1.0),
    ];
    let above = FOUND
        .iter()
        .position(|f| f.0 >= density)
        .unwrap_or(FOUND.len() - 1)
        .max(1);
    let ((x0, y0), (x1, y1)) = (FOUND[above - 1], FOUND[above]);
    y0 + (y1 - y0) * (density - x0) / (x1 - x0)
}

/// Floating-point operations in a cycle, by which cycles are turned into operations.
const PER_CYCLE: f64 = 64.0;

fn cost(cut: &Cut, grid: &Grid, zeros: &Zeros, work: f64, post: Post) -> Cost {
    let m = &cut.matrix;
    let (rows, groups) = (m.rows as f64, cut.groups as f64);
    let channels = m.cols as f64 / grid.taps.len().max(1) as f64;
    // Heads, and the transposition of what is read and written.
    let planes =
        grid.from.len() as f64 * (1.0 + (grid.halo[0] + grid.halo[1]) as f64 / 2.0 / grid.vectors as f64);
    let beside = groups * (3.0 * rows * cut.parts.len() as f64 + 5.0 * (channels * planes + rows));
    let vectors = (grid.vectors * lanes()) as f64 / 16.0;
    let elements = vectors * 16.0 * groups;
    let weights = 6.5 * zeros.live as f64;
    Cost {
        flops: PER_CYCLE * vectors * (work + beside) + post.flops() * elements * rows,
        bytes: 4.0 * elements * (channels * planes + rows) + 1.3 * weights,
        efficiency: 0.9,
    }
}

/// Strips of at most `most` vectors; where there are several, an even number of them, for two threads.
fn strips(vectors: usize, most: usize) -> Vec<Range<usize>> {
    let count = vectors.div_ceil(most);
    let count = if count > 1 { count.next_multiple_of(2) } else { 1 };
    balanced(vectors, vectors.div_ceil(count)).collect()
}

/// Slots with which parts begin, ranges of columns, and the place of each column in its part.
type Places = (Vec<usize>, Vec<Range<usize>>, Vec<u16>);

/// Cuts columns into parts of whole channels; `None` where a part has more places than can be told apart.
fn places(grid: &Grid, (channels, taps): (usize, usize), wide: usize) -> Option<Places> {
    let (phases, pitch) = match grid.taps.is_empty() {
        true => (1, 1),
        false => (grid.from.len(), grid.pitch()),
    };
    // Vectors that a strip reads of one channel.
    let mut read: Vec<(usize, isize)> = grid
        .taps
        .iter()
        .flat_map(|&(p, s)| (0..wide as isize).map(move |v| (p, s + v)))
        .collect();
    read.sort_unstable();
    read.dedup();
    let bytes = read.len().max(wide) * lanes() * size_of::<f32>();
    let room = (u16::MAX as usize / pitch).checked_sub(2)? / phases;
    let most = (NEAR / bytes).clamp(1, room.max(1));
    let most = if most > BLOCK { most / BLOCK * BLOCK } else { most };
    if room == 0 {
        return None;
    }
    let (mut slots, mut parts, mut places) = (vec![0], vec![], vec![]);
    for first in (0..channels).step_by(most) {
        let count = most.min(channels - first);
        parts.push(first * taps..(first + count) * taps);
        for channel in 0..count {
            let slot = |phase: usize| (1 + channel * phases + phase) * pitch;
            match grid.taps.is_empty() {
                true => places.push(slot(0) as u16),
                false => places.extend(grid.taps.iter().map(|&(p, s)| (slot(p) as isize + s) as u16)),
            }
        }
        slots.push(slots.last()? + 1 + count * phases);
    }
    Some((slots, parts, places))
}

/// A product with encoded weights.
pub struct Product {
    plan: Plan,
    code: Arc<Code>,
}

impl Product {
    /// The product with weights that were encoded as [`Plan::cut`] says.
    pub fn new(plan: Plan, code: Arc<Code>) -> Product {
        Product { plan, code }
    }

    /// Floats from slot to slot of a strip of so many vectors, or of planes.
    fn slot(&self, vectors: usize) -> usize {
        let vectors = if self.plan.grid.taps.is_empty() {
            vectors
        } else {
            self.plan.grid.pitch()
        };
        vectors * lanes()
    }

    /// Floats of what is brought near: for all strips, or planes; or the widest strip.
    fn near(&self) -> usize {
        let p = &self.plan;
        let slots = p.slots.last().copied().unwrap_or(0);
        let vectors = if p.own { self.widest() } else { p.grid.vectors };
        // A vector before and behind the planes.
        (slots * self.slot(vectors) + 2 * lanes()).next_multiple_of(BLOCK)
    }

    fn widest(&self) -> usize {
        self.plan.strips.iter().map(Range::len).max().unwrap_or(0)
    }

    /// Floats of the sums of a strip: more rows than a block has, one for a row without partner.
    fn sums(&self) -> usize {
        (self.plan.cut.block + BLOCK) * self.widest() * lanes()
    }

    /// Bytes of scratch memory.
    pub fn scratch(&self, threads: usize) -> usize {
        let copies = if self.plan.own { threads } else { 1 };
        (copies * self.near() + threads * self.sums().next_multiple_of(BLOCK)) * size_of::<f32>()
    }

    /// Computes the output.
    ///
    /// # Safety
    ///
    /// All that the plan was made for is readable, the output writable, and nobody else writes to them; the output is not the
    /// input. An addend may be the output itself, position by position.
    pub unsafe fn run(&self, x: Operands, scratch: &mut [u8], pool: &Pool) {
        debug_assert!(scratch.len() >= self.scratch(pool.threads()), "scratch memory");
        let p = &self.plan;
        let memory = Scratch::new(scratch);
        let copies = if p.own { pool.threads() } else { 1 };
        let sums = memory.behind(copies * self.near());
        let each = self.sums().next_multiple_of(BLOCK);
        let blocks = p.cut.blocks();
        for group in 0..p.cut.groups {
            // SAFETY: threads have memory of their own, and tasks their part of the output.
            unsafe {
                if p.own {
                    pool.run_with(p.strips.len(), &|thread, strip| {
                        let near = memory.of(thread, self.near()).wrapping_add(lanes());
                        self.fill_strip(x, group, strip, near);
                        for block in 0..blocks {
                            self.block(x, [group, block, strip], near, sums.of(thread, each));
                        }
                    });
                    continue;
                }
                let near = memory.start().wrapping_add(lanes());
                let near = Scratch::at(near);
                match p.grid.taps.is_empty() {
                    true => pool.run(p.strips.len() * 2, &|i| {
                        let at = p.strips[i / 2].start * p.slots.last().copied().unwrap_or(0) * lanes();
                        self.fill_half(x, group, i, near.behind(at).start());
                    }),
                    false => pool.run(p.cut.parts.len(), &|part| {
                        self.fill_planes(x, group, part, near.start())
                    }),
                }
                pool.run_with(blocks * p.strips.len(), &|thread, i| {
                    let (block, strip) = (i / p.strips.len(), i % p.strips.len());
                    let at = match p.grid.taps.is_empty() {
                        true => p.strips[strip].start * p.slots.last().copied().unwrap_or(0) * lanes(),
                        false => 0,
                    };
                    self.block(
                        x,
                        [group, block, strip],
                        near.behind(at).start(),
                        sums.of(thread, each),
                    );
                });
            }
        }
    }

    /// Computes a convolution.
    ///
    /// # Safety
    ///
    /// As for [`run`](Product::run); the bias has zeros up to a whole number of blocks.
    pub unsafe fn convolve(&self, x: Images, scratch: &mut [u8], pool: &Pool) {
        let given = |x: *const f32, at| (!x.is_null()).then_some(Addend { x, at });
        let all = Operands {
            x: x.x,
            y: x.y,
            add: [
                given(x.bias, None),
                given(x.residual, Some(&self.plan.grid.to[..])),
            ],
        };
        // SAFETY: as the caller says.
        unsafe { self.run(all, scratch, pool) };
    }

    /// Brings the channels of some parts at the positions of a strip near.
    unsafe fn fill_parts(
        &self,
        x: Operands,
        group: usize,
        strip: usize,
        parts: Range<usize>,
        near: *mut f32,
    ) {
        let p = &self.plan;
        let (strip, lanes) = (p.strips[strip].clone(), lanes());
        let slot = self.slot(strip.len());
        for part in parts {
            let first = near.wrapping_add(p.slots[part] * slot);
            // SAFETY: the slot of zeros is there.
            unsafe { std::slice::from_raw_parts_mut(first, slot).fill(0.0) };
            for channels in blocks_of(p.cut.parts[part].clone()) {
                let to = first.wrapping_add((1 + channels.start - p.cut.parts[part].start) * slot);
                let fill = Fill {
                    x: self.channel(x.x, group, channels.start),
                    channel: p.x.channel,
                    live: channels.len(),
                    from: &p.grid.from[0][strip.start * lanes..strip.end * lanes],
                    to,
                    pitch: slot,
                };
                // SAFETY: as `run` says.
                unsafe { fill.run() };
            }
        }
    }

    unsafe fn fill_strip(&self, x: Operands, group: usize, strip: usize, near: *mut f32) {
        // SAFETY: as the caller says.
        unsafe { self.fill_parts(x, group, strip, 0..self.plan.cut.parts.len(), near) };
    }

    /// The first or second half of the parts of a strip, as `i` is even or odd.
    unsafe fn fill_half(&self, x: Operands, group: usize, i: usize, near: *mut f32) {
        let parts = self.plan.cut.parts.len();
        let half = if i.is_multiple_of(2) {
            0..parts / 2
        } else {
            parts / 2..parts
        };
        // SAFETY: as the caller says.
        unsafe { self.fill_parts(x, group, i / 2, half, near) };
    }

    /// Where a channel of the input begins.
    fn channel(&self, x: *const f32, group: usize, channel: usize) -> *const f32 {
        let side = &self.plan.x;
        let inside = channel % BLOCK * side.channel;
        x.wrapping_add(group * side.group + channel / BLOCK * side.block + inside)
    }

    /// Brings the planes of a part near.
    unsafe fn fill_planes(&self, x: Operands, group: usize, part: usize, near: *mut f32) {
        let (p, lanes) = (&self.plan, lanes());
        let (slot, phases, taps) = (self.slot(0), p.grid.from.len(), p.grid.taps.len());
        let columns = &p.cut.parts[part];
        let first = near.wrapping_add(p.slots[part] * slot);
        let all = columns.start / taps..columns.end / taps;
        // SAFETY: the planes of the part are there.
        unsafe {
            std::slice::from_raw_parts_mut(first, slot).fill(0.0);
            for channels in blocks_of(all.clone()) {
                for (phase, from) in p.grid.from.iter().enumerate() {
                    let plane = 1 + (channels.start - all.start) * phases + phase;
                    let to = first.wrapping_add(plane * slot + p.grid.halo[0] * lanes);
                    let fill = Fill {
                        x: self.channel(x.x, group, channels.start),
                        channel: p.x.channel,
                        live: channels.len(),
                        from,
                        to,
                        pitch: phases * slot,
                    };
                    fill.run();
                    for plane in (0..channels.len()).map(|c| to.wrapping_add(c * phases * slot)) {
                        let (vectors, halo) = (p.grid.vectors, p.grid.halo);
                        Halo { plane, vectors, halo }.run();
                    }
                }
            }
        }
    }

    /// A block of rows at the positions of a strip; `near` is what [`fill_strip`](Product::fill_strip) or
    /// [`fill_planes`](Product::fill_planes) filled.
    unsafe fn block<'a>(
        &self,
        x: Operands<'a>,
        [group, block, strip]: [usize; 3],
        near: *const f32,
        sums: *mut f32,
    ) {
        let (p, lanes) = (&self.plan, lanes());
        let vectors = p.strips[strip].clone();
        let (slot, single) = (self.slot(vectors.len()), p.grid.taps.is_empty());
        let (unit, start) = match single {
            true => (slot, 0),
            false => (lanes, (p.grid.halo[0] + vectors.start) * lanes),
        };
        let place = (group * p.cut.blocks() + block) * p.cut.parts.len();
        for part in 0..p.cut.parts.len() {
            let strip = Strip {
                part: self.code.part(place + part),
                x: near.wrapping_add(p.slots[part] * slot + start),
                unit,
                sums,
                first: part == 0,
            };
            // SAFETY: places lie within the part, for they were made so, or kept to their limits.
            unsafe { strip.run(vectors.len()) };
        }
        let rows = p.cut.rows(block);
        let positions = vectors.start * lanes..vectors.end * lanes;
        let added = |a: Addend<'a>| {
            let at = a.at.map(|at| &at[positions.clone()]);
            let (of_group, of_block) = match (at, p.whole) {
                (Some(_), _) => (p.y.group, p.y.block),
                (None, _) => (p.cut.matrix.rows, BLOCK),
            };
            Added {
                x: a.x.wrapping_add(group * of_group + rows.start / BLOCK * of_block),
                at,
                block: of_block,
            }
        };
        let y =
            x.y.wrapping_add(group * p.y.group + rows.start / BLOCK * p.y.block);
        let drain = Drain {
            sums,
            vectors: vectors.len(),
            rows: rows.len(),
            add: x.add.map(|a| a.map(added)),
            end: p.post.ending().unwrap_or(Ending::NONE),
            to: &p.grid.to[positions.clone()],
            y,
            block: p.y.block,
            whole: p.whole,
        };
        // SAFETY: as `run` says.
        unsafe {
            drain.run();
            self.end(y, strip, rows.len());
        }
    }

    /// What the end of sums does not do in registers.
    unsafe fn end(&self, y: *mut f32, strip: usize, rows: usize) {
        let p = &self.plan;
        for &(start, len) in p.runs.get(strip).into_iter().flatten() {
            let y = y.wrapping_add(start as usize);
            // SAFETY: these are the positions and channels that were just written.
            unsafe {
                match p.whole {
                    false => p.post.apply_rows(y, p.pitch_of_rows(), len as usize, rows),
                    true => {
                        let blocks = rows.div_ceil(BLOCK);
                        p.post.apply_rows(y, p.y.block, blocks, len as usize * BLOCK);
                        if !rows.is_multiple_of(BLOCK) {
                            let last = y.wrapping_add((blocks - 1) * p.y.block);
                            super::blocked::clear_tail(last, len as usize, rows);
                        }
                    }
                }
            }
        }
    }
}

/// The channels of a range, cut where blocks begin.
fn blocks_of(channels: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let first = channels.start / BLOCK;
    (first..channels.end.div_ceil(BLOCK))
        .map(move |b| channels.start.max(b * BLOCK)..channels.end.min((b + 1) * BLOCK))
}
