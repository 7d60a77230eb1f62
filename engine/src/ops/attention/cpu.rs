//! Attention of floats in tiles of keys, so that scores never leave the cache and memory grows with the length only.
//!
//! The softmax goes along: what was summed is scaled down whenever a greater score turns up (Milakov and Gimelshein,
//! "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022).

mod linear;
mod rows;
mod turn;

use super::heads::Sizes;
use super::{NodeRef, OpError, Options, sizes};
use crate::cpu::gemm::{Addend, Scratch, Tile, balanced, tile_size};
use crate::cpu::{Candidate, Cost, Ending, Io, Kernel};
use crate::ir::DType;
pub(super) use linear::linear;
use rows::{Dots, Finish, Mix, Rows};
pub(super) use turn::{Turns, rotary};

/// Queries that a task handles.
const QUERIES: usize = 64;
/// Keys whose scores are held at once.
const KEYS: usize = 512;
/// Fewer rows than this are multiplied with keys and values as they lie.
const FEW: usize = 8;

/// Distances in floats: from sequence to sequence, head to head, and row to row.
#[derive(Clone, Copy, Debug)]
struct Steps {
    batch: usize,
    head: usize,
    row: usize,
}

impl Steps {
    fn of(heads: usize, length: usize, size: usize, packed: bool) -> Steps {
        let batch = heads * length * size;
        match packed {
            true => Steps {
                batch,
                head: size,
                row: heads * size,
            },
            false => Steps {
                batch,
                head: length * size,
                row: size,
            },
        }
    }
}

/// A mask, in elements.
#[derive(Clone, Copy, Debug)]
struct Mask {
    steps: Steps,
    /// Columns; there is nothing to be seen behind them.
    len: usize,
    bools: bool,
}

impl Mask {
    fn new(dims: &[usize], bools: bool) -> Mask {
        let step = |back: usize| match dims.len().checked_sub(back) {
            Some(axis) if dims[axis] != 1 => dims[axis + 1..].iter().product(),
            _ => 0,
        };
        Mask {
            steps: Steps {
                batch: step(4),
                head: step(3),
                row: step(2),
            },
            len: dims.last().copied().unwrap_or(0),
            bools,
        }
    }
}

/// The kernel. A lane is what shares one head of keys without a gap between its rows: a head of queries, or where there
/// is one query in each, all heads of a group.
struct Attend {
    s: Sizes,
    options: Options,
    scale: f32,
    /// Lanes of a sequence.
    lanes: usize,
    /// Heads of queries in a lane.
    per: usize,
    /// Queries of a lane.
    rows: usize,
    q: Steps,
    k: Steps,
    v: Steps,
    out: Steps,
    mask: Option<Mask>,
    lengths: bool,
}

/// The memory of a run.
#[derive(Clone, Copy)]
struct Memory<'a> {
    q: *const f32,
    k: *const f32,
    v: *const f32,
    past_k: *const f32,
    past_v: *const f32,
    mask: *const u8,
    lengths: Option<&'a [i64]>,
    out: *mut f32,
    keys: Scratch,
    values: Scratch,
    own: Scratch,
}

// SAFETY: tasks read the inputs and write rows of their own.
unsafe impl Send for Memory<'_> {}
// SAFETY: as above.
unsafe impl Sync for Memory<'_> {}

/// Keys or values: those that were there before, and the new ones.
#[derive(Clone, Copy)]
struct Lines {
    past: *const f32,
    past_len: usize,
    past_row: usize,
    new: *const f32,
    new_row: usize,
}

impl Lines {
    /// Line `j`.
    fn at(&self, j: usize) -> *const f32 {
        match j.checked_sub(self.past_len) {
            None => self.past.wrapping_add(j * self.past_row),
            Some(j) => self.new.wrapping_add(j * self.new_row),
        }
    }

    /// Lines `from..to` as at most two runs of equal distances: first line, distance, offset and number.
    fn runs(self, from: usize, to: usize) -> impl Iterator<Item = (*const f32, usize, usize, usize)> {
        let cut = self.past_len.clamp(from, to);
        [(from, cut, self.past_row), (cut, to, self.new_row)]
            .into_iter()
            .filter(|(a, b, _)| a < b)
            .map(move |(a, b, row)| (self.at(a), row, a - from, b - a))
    }
}

/// The kernel for a node, if its types allow it.
/// The kernels: for heads in front of their rows, and for such as stand side by side in queries, or in all three, and in the
/// result.
pub(super) fn attention(n: &NodeRef) -> Vec<Candidate> {
    let sides = [0u64, 1, 7]
        .into_iter()
        .flat_map(|inputs| [(inputs, false), (inputs, true)]);
    let all = sides.map(|(inputs, output)| {
        let made = kernel(n, inputs, output)?;
        Some(if inputs == 0 && !output {
            made
        } else {
            made.turned(inputs, output)
        })
    });
    all.flatten().collect()
}

/// The kernel for inputs, as bits, and an output whose two middle axes are exchanged.
fn kernel(n: &NodeRef, turned: u64, output: bool) -> Option<Candidate> {
    let (s, options) = (sizes(n)?, Options::of(n).ok()?);
    let floats = [0, 1, 2, 4, 5]
        .iter()
        .all(|&i| !n.has(i) || n.dtype(i) == Some(DType::F32));
    let scores = n.wants(3) || options.precision.is_some_and(|p| p != DType::F32);
    if !floats || scores {
        return None;
    }
    let mask = match (n.has(3), n.dtype(3)) {
        (false, _) => None,
        (true, Some(DType::Bool)) => Some(Mask::new(&n.dims(3)?, true)),
        (true, Some(DType::F32)) => Some(Mask::new(&n.dims(3)?, false)),
        _ => return None,
    };
    // Keys and values that are handed on with earlier ones are copied as they come.
    let kept = n.wants(1) || n.wants(2) || n.has(4) || n.has(5);
    if (s.packed && (turned != 0 || output)) || (kept && turned > 1) {
        return None;
    }
    let side = |i: u32| s.packed || turned & (1 << i) != 0;
    let per = if s.queries == 1 { s.group() } else { 1 };
    let alone = |steps: Steps| match s.queries {
        1 => Steps {
            head: per * steps.head,
            row: steps.head,
            ..steps
        },
        _ => steps,
    };
    let kernel = Attend {
        s,
        options,
        scale: options.scale(s.depth) as f32,
        lanes: s.heads / per,
        per,
        rows: s.queries * per,
        q: alone(Steps::of(s.heads, s.queries, s.depth, side(0))),
        k: Steps::of(s.kv_heads, s.keys, s.depth, side(1)),
        v: Steps::of(s.kv_heads, s.keys, s.width, side(2)),
        out: alone(Steps::of(s.heads, s.queries, s.width, s.packed || output)),
        mask: mask.map(|m| Mask {
            steps: alone(m.steps),
            ..m
        }),
        lengths: n.has(6),
    };
    let size = |all: [usize; 4]| all.iter().map(|&n| n as f64).product::<f64>();
    let both = s.depth + s.width;
    let cost = Cost {
        flops: 2.0 * size([s.batch * s.heads, s.queries, s.total(), both]),
        bytes: 4.0
            * (size([s.batch, s.heads, s.queries, both]) + size([s.batch, s.kv_heads, s.total(), both])),
        efficiency: 0.6,
    };
    let name = format!("attention.f32.{}", secateur_simd::isa());
    Some(Candidate::new(name, cost, kernel))
}

impl Attend {
    /// Whether keys and values are used as they lie.
    fn few(&self) -> bool {
        self.rows < FEW
    }

    /// Floats of all packed keys of one head, and of all its values.
    fn packed(&self) -> [usize; 2] {
        let (width, total) = (tile_size().1, self.s.total());
        [
            total.next_multiple_of(width) * self.s.depth,
            self.s.width.next_multiple_of(width) * total,
        ]
    }

    /// Floats from row to row of a task's scores, which are read and written a vector at a time.
    fn pitch(&self) -> usize {
        self.s.total().min(KEYS).next_multiple_of(tile_size().1) + tile_size().1
    }

    /// Floats that a task works in: scores, and for each row the greatest one and the sum.
    fn own(&self) -> usize {
        let rows = self.rows.min(QUERIES);
        (rows * self.pitch() + 2 * QUERIES).next_multiple_of(16)
    }

    /// Floats for the packed keys and values of all heads.
    fn shared(&self) -> [usize; 2] {
        let heads = self.s.batch * self.s.kv_heads;
        match self.few() {
            true => [0, 0],
            false => self.packed().map(|n| n.saturating_mul(heads)),
        }
    }

    fn lines(&self, new: *const f32, past: *const f32, steps: Steps, size: usize, head: usize) -> Lines {
        let (b, h) = (head / self.s.kv_heads, head % self.s.kv_heads);
        Lines {
            past: past.wrapping_add(head * self.s.past * size),
            past_len: self.s.past,
            past_row: size,
            new: new.wrapping_add(b * steps.batch + h * steps.head),
            new_row: steps.row,
        }
    }

    fn keys(&self, m: &Memory, head: usize) -> Lines {
        self.lines(m.k, m.past_k, self.k, self.s.depth, head)
    }

    fn values(&self, m: &Memory, head: usize) -> Lines {
        self.lines(m.v, m.past_v, self.v, self.s.width, head)
    }

    /// Writes all keys, or all values, one head after the other.
    fn present(&self, io: &Io, output: usize, lines: impl Fn(usize) -> Lines + Sync, size: usize) {
        let Some(out) = io.outputs.get(output).and_then(Option::as_ref) else {
            return;
        };
        let (to, total) = (Target(out.ptr()), self.s.total());
        io.pool.run(self.s.batch * self.s.kv_heads, &|head| {
            let lines = lines(head);
            for j in 0..total {
                // SAFETY: the output has `total` lines for each head, and no other task this head.
                unsafe { copy(lines.at(j), to.line(head * total + j, size), size) };
            }
        });
    }

    /// Packs the keys and values of one head from `first` on, as many as a tile has.
    ///
    /// # Safety
    ///
    /// All of them are readable, and the shared memory has room.
    unsafe fn pack(&self, m: &Memory, head: usize, first: usize) {
        let (s, width, [all_k, all_v]) = (&self.s, tile_size().1, self.packed());
        let end = s.total().min(first + KEYS);
        let (keys, to) = (self.keys(m, head), m.keys.of(head, all_k));
        for j in first..end.next_multiple_of(width) {
            let to = to.wrapping_add(j / width * width * s.depth + j % width);
            for d in 0..s.depth {
                // SAFETY: key `j` has as many numbers, and its panel as many rows.
                unsafe { *to.add(d * width) = if j < end { *keys.at(j).add(d) } else { 0.0 } };
            }
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

    /// Rows `first..` of lane `lane`, as many as a task handles.
    ///
    /// # Safety
    ///
    /// The memory is that of the node, the packed keys and values are there, and no other task has these rows or the
    /// part of `thread`.
    unsafe fn block(&self, m: &Memory, lane: usize, first: usize, thread: usize) {
        let (b, h) = (lane / self.lanes, lane % self.lanes);
        let at = |s: Steps| b * s.batch + h * s.head + first * s.row;
        let (scores, pitch) = (m.own.of(thread, self.own()), self.pitch());
        let count = self.rows.min(first + QUERIES) - first;
        let task = Task {
            head: b * self.s.kv_heads + h * self.per / (self.s.group()),
            q: m.q.wrapping_add(at(self.q)),
            out: m.out.wrapping_add(at(self.out)),
            count,
            scores,
            state: scores.wrapping_add(self.rows.min(QUERIES) * pitch),
        };
        let end = self.end(m, b, first + count);
        // A row sees the keys up to its own place; rows of a lane of single queries stand at the same place.
        let step = usize::from(self.per == 1);
        for from in (0..end).step_by(KEYS) {
            let keys = KEYS.min(end - from);
            let open = (self.s.past + first * step + 1) as isize - from as isize;
            let rows = Rows {
                scores,
                pitch,
                keys,
                count,
                open: self.options.causal.then_some((open, step)),
                state: task.state,
                out: task.out,
                out_row: self.out.row,
                width: self.s.width,
                begun: from > 0,
                softcap: self.options.softcap,
                mask: self.mask.map(|mask| {
                    let size = if mask.bools { 1 } else { size_of::<f32>() };
                    let start = (at(mask.steps) + from) * size;
                    (m.mask.wrapping_add(start), mask.bools, mask.steps.row)
                }),
            };
            // SAFETY: as the caller says; keys `from..from + keys` are there.
            unsafe {
                match self.few() {
                    true => self.as_they_lie(m, &task, &rows, from),
                    false => self.in_tiles(m, &task, &rows, from),
                }
            }
        }
        // SAFETY: these are the rows of this task.
        unsafe {
            Finish {
                out: task.out,
                out_row: self.out.row,
                width: self.s.width,
                count,
                sums: (end > 0).then(|| task.state.wrapping_add(QUERIES).cast_const()),
            }
            .run();
        }
    }

    /// The keys of sequence `b` that some row before `last` may see.
    fn end(&self, m: &Memory, b: usize, last: usize) -> usize {
        let mask = self.mask.map_or(usize::MAX, |m| m.len);
        let length = match m.lengths {
            Some(all) => usize::try_from(all[b]).unwrap_or(0),
            None => usize::MAX,
        };
        let causal = match (self.options.causal, self.per) {
            (false, _) => usize::MAX,
            (true, 1) => self.s.past + last,
            // One query, at the first place.
            (true, _) => self.s.past + 1,
        };
        self.s.total().min(mask).min(length).min(causal)
    }

    /// # Safety
    ///
    /// As for [`block`](Attend::block).
    unsafe fn in_tiles(&self, m: &Memory, task: &Task, rows: &Rows, from: usize) {
        let (height, width) = tile_size();
        let (s, [all_k, all_v]) = (&self.s, self.packed());
        let tiles = balanced(task.count, height);
        let blank = Tile {
            a: task.q,
            a_row: self.q.row,
            a_k: 1,
            b: m.keys.of(task.head, all_k),
            b_k: width,
            k: s.depth,
            c: task.scores,
            c_row: rows.pitch,
            cols: width,
            alpha: self.scale,
            accumulate: false,
            add: [Addend::NONE; 2],
            end: Ending::NONE,
            next: None,
        };
        for j in (0..rows.keys).step_by(width) {
            for t in tiles.clone() {
                let tile = Tile {
                    a: blank.a.wrapping_add(t.start * blank.a_row),
                    b: blank.b.wrapping_add((from + j) * s.depth),
                    c: blank.c.wrapping_add(t.start * blank.c_row + j),
                    cols: width.min(rows.keys - j),
                    ..blank
                };
                // SAFETY: these rows and this panel are there, and so are the scores.
                unsafe { tile.run(t.len()) };
            }
        }
        // SAFETY: the scores were computed just now.
        unsafe { rows.run() };
        let values = m.values.of(task.head, all_v).wrapping_add(from * width);
        for column in (0..s.width).step_by(width) {
            for t in tiles.clone() {
                let tile = Tile {
                    a: task.scores.wrapping_add(t.start * rows.pitch),
                    a_row: rows.pitch,
                    b: values.wrapping_add(column * s.total()),
                    k: rows.keys,
                    c: task.out.wrapping_add(t.start * self.out.row + column),
                    c_row: self.out.row,
                    cols: width.min(s.width - column),
                    alpha: 1.0,
                    accumulate: rows.begun,
                    ..blank
                };
                // SAFETY: these rows and this panel are there, and the rows of the output are this task's.
                unsafe { tile.run(t.len()) };
            }
        }
    }

    /// # Safety
    ///
    /// As for [`block`](Attend::block).
    unsafe fn as_they_lie(&self, m: &Memory, task: &Task, rows: &Rows, from: usize) {
        let (s, to) = (&self.s, from + rows.keys);
        for (lines, row, offset, count) in self.keys(m, task.head).runs(from, to) {
            let dots = Dots {
                a: task.q,
                a_row: self.q.row,
                rows: task.count,
                lines,
                row,
                count,
                size: s.depth,
                scale: self.scale,
                to: task.scores.wrapping_add(offset),
                pitch: rows.pitch,
            };
            // SAFETY: the lines are keys, and there is a score for each.
            unsafe { dots.run() };
        }
        // SAFETY: the scores were computed just now.
        unsafe { rows.run() };
        for (lines, row, offset, count) in self.values(m, task.head).runs(from, to) {
            let mix = Mix {
                parts: task.scores.wrapping_add(offset),
                pitch: rows.pitch,
                rows: task.count,
                lines,
                row,
                count,
                size: s.width,
                to: task.out,
                to_row: self.out.row,
                more: rows.begun || offset > 0,
            };
            // SAFETY: the lines are values, and the rows of the output are this task's.
            unsafe { mix.run() };
        }
    }
}

/// Lines that tasks write, each its own.
#[derive(Clone, Copy)]
struct Target(*mut f32);

// SAFETY: tasks write lines of their own.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    fn line(self, i: usize, size: usize) -> *mut f32 {
        self.0.wrapping_add(i * size)
    }
}

/// What a task works on.
struct Task {
    /// The head of keys, counted through all sequences.
    head: usize,
    q: *const f32,
    out: *mut f32,
    count: usize,
    scores: *mut f32,
    state: *mut f32,
}

/// # Safety
///
/// `n` floats are readable at `from` and writable at `to`, and the two do not overlap.
unsafe fn copy(from: *const f32, to: *mut f32, n: usize) {
    // SAFETY: as the caller says.
    unsafe { std::ptr::copy_nonoverlapping(from, to, n) };
}

impl Kernel for Attend {
    fn scratch(&self, threads: usize) -> usize {
        let [keys, values] = self.shared();
        let own = self.own().saturating_mul(threads);
        let all = [keys.next_multiple_of(16), values.next_multiple_of(16), own];
        all.into_iter()
            .fold(0, usize::saturating_add)
            .saturating_mul(size_of::<f32>())
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let at = |i: usize| io.inputs.get(i).copied().flatten();
        let floats = |i: usize| at(i).map_or(std::ptr::null(), |v| v.ptr::<f32>());
        let scratch = Scratch::new(io.scratch);
        let [keys, values] = self.shared().map(|n| n.next_multiple_of(16));
        let m = Memory {
            q: floats(0),
            k: floats(1),
            v: floats(2),
            past_k: floats(4),
            past_v: floats(5),
            mask: at(3).map_or(std::ptr::null(), |v| v.start()),
            lengths: at(6).filter(|_| self.lengths).map(|v| v.slice::<i64>()),
            out: io.outputs[0].as_ref().map_or(std::ptr::null_mut(), |v| v.ptr()),
            keys: scratch,
            values: scratch.behind(keys),
            own: scratch.behind(keys + values),
        };
        self.present(io, 1, |head| self.keys(&m, head), self.s.depth);
        self.present(io, 2, |head| self.values(&m, head), self.s.width);
        if m.out.is_null() {
            return Ok(());
        }
        if !self.few() {
            let tiles = self.s.total().div_ceil(KEYS);
            io.pool.run(self.s.batch * self.s.kv_heads * tiles, &|task| {
                // SAFETY: each task packs keys and values of its own.
                unsafe { self.pack(&m, task / tiles, task % tiles * KEYS) };
            });
        }
        let blocks = self.rows.div_ceil(QUERIES);
        io.pool
            .run_with(self.s.batch * self.lanes * blocks, &|thread, task| {
                // SAFETY: each task has rows of its own, and each thread a part of the scratch memory.
                unsafe { self.block(&m, task / blocks, task % blocks * QUERIES, thread) };
            });
        Ok(())
    }
}
