//! Attention of floats in tiles of keys, so that scores never leave the cache and memory grows with the length only.
//!
//! The softmax goes along: what was summed is scaled down whenever a greater score turns up (Milakov and Gimelshein,
//! "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022). Keys that a mask hides from
//! all queries of a task are not looked at.

mod few;
mod lay;
mod linear;
mod map;
mod pack;
mod rows;
mod tiles;
mod turn;

use std::sync::Arc;

use super::heads::Sizes;
use super::{NodeRef, OpError, Options, sizes};
use crate::cpu::gemm::{Scratch, tile_size};
use crate::cpu::{Candidate, Cost, Io, Kernel};
use crate::ir::{DType, Tensor};
use lay::{Lines, Mask, Steps, Target, copy};
pub(super) use linear::linear;
use map::{Grid, Packed};
pub(super) use turn::{Turns, rotary};

/// Queries that a task handles.
const QUERIES: usize = 64;
/// Keys whose scores are held at once.
const KEYS: usize = 512;
/// Keys that are left out or looked at together: a multiple of a tile's columns, whatever the instruction set.
const PANEL: usize = 32;
/// Fewer rows than this are multiplied with keys and values as they lie.
const FEW: usize = 8;

/// The kernel. A lane is what shares one head of keys without a gap between its rows: a head of queries, or where there
/// is one query in each, all heads of a group.
#[derive(Clone)]
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
    mask: Option<Masked>,
    lengths: bool,
}

/// A mask, and the map of it where it is a constant.
#[derive(Clone)]
struct Masked {
    mask: Mask,
    grid: Grid,
    known: Option<Arc<Packed>>,
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
    tiles: Option<&'a [u32]>,
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

/// The kernels for a node, if its types allow them: for heads in front of their rows, and for such as stand side by side
/// in queries, or in all three, and in the result.
pub(super) fn attention(n: &NodeRef) -> Vec<Candidate> {
    let Some(plain) = Attend::of(n) else { return vec![] };
    let sides = [0u64, 1, 7]
        .into_iter()
        .flat_map(|inputs| [(inputs, false), (inputs, true)]);
    // Keys and values that are handed on with earlier ones are copied as they come.
    let kept = n.wants(1) || n.wants(2) || n.has(4) || n.has(5);
    let fits = |&(inputs, output): &(u64, bool)| match plain.s.packed {
        true => inputs == 0 && !output,
        false => !kept || inputs <= 1,
    };
    let cost = plain.cost();
    let name = format!("attention.f32.{}", secateur_simd::isa());
    let made = |(inputs, output)| {
        let made = Candidate::new(name.clone(), cost, plain.clone().turned(inputs, output));
        if inputs == 0 && !output {
            made
        } else {
            made.turned(inputs, output)
        }
    };
    sides.filter(fits).map(made).collect()
}

impl Masked {
    /// Input 3 of a node, for `rows` queries in each of `lanes` lanes; `far` as [`Grid`] has it.
    fn of(n: &NodeRef, mask: Mask, s: &Sizes, [lanes, rows]: [usize; 2], far: bool) -> Masked {
        let all = [s.batch, lanes, rows, s.total()];
        let grid = Grid::new(mask, all, far);
        let pack = |tensor: &Tensor| match mask.bools {
            true => Packed::new(&grid, tensor.bytes(), || tensor.unload()),
            false => Packed::new(&grid, tensor.aligned().bytes(), || tensor.unload()),
        };
        let konst = n.input(3).and_then(|x| x.konst);
        Masked {
            mask,
            known: konst.map(|t| n.kept(3, &format!("map {all:?} {far}"), || pack(t))),
            grid,
        }
    }

    fn pieces(&self) -> Option<&[f32]> {
        self.known.as_ref()?.pieces.as_deref()
    }

    /// Whether the mask itself is read by runs.
    fn read(&self) -> bool {
        self.pieces().is_none()
    }

    /// Entries of a map that runs make.
    fn made(&self) -> usize {
        if self.known.is_some() { 0 } else { self.grid.len() }
    }
}

impl Attend {
    /// The kernel for heads in front of their rows, unless inputs and output have them side by side by themselves.
    fn of(n: &NodeRef) -> Option<Attend> {
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
        let per = if s.queries == 1 { s.group() } else { 1 };
        let (lanes, rows) = (s.heads / per, s.queries * per);
        let plain = Attend {
            s,
            options,
            scale: options.scale(s.depth) as f32,
            lanes,
            per,
            rows,
            q: Steps::of(s.heads, s.queries, s.depth, s.packed),
            k: Steps::of(s.kv_heads, s.keys, s.depth, s.packed),
            v: Steps::of(s.kv_heads, s.keys, s.width, s.packed),
            out: Steps::of(s.heads, s.queries, s.width, s.packed),
            mask: None,
            lengths: n.has(6),
        };
        let far = !options.causal && !n.has(6);
        let masked = |m: Mask| {
            let steps = plain.alone(m.steps);
            Masked::of(n, Mask { steps, ..m }, &s, [lanes, rows], far)
        };
        Some(Attend {
            mask: mask.map(masked),
            q: plain.alone(plain.q),
            out: plain.alone(plain.out),
            ..plain
        })
    }

    /// The same for inputs, as bits, and an output whose two middle axes are exchanged.
    fn turned(self, inputs: u64, output: bool) -> Attend {
        let s = &self.s;
        let side = |i: u32| s.packed || inputs & (1 << i) != 0;
        Attend {
            q: self.alone(Steps::of(s.heads, s.queries, s.depth, side(0))),
            k: Steps::of(s.kv_heads, s.keys, s.depth, side(1)),
            v: Steps::of(s.kv_heads, s.keys, s.width, side(2)),
            out: self.alone(Steps::of(s.heads, s.queries, s.width, s.packed || output)),
            ..self
        }
    }

    /// The distances where each head has one query, which stand in one lane.
    fn alone(&self, steps: Steps) -> Steps {
        match self.s.queries {
            1 => Steps {
                head: self.per * steps.head,
                row: steps.head,
                ..steps
            },
            _ => steps,
        }
    }

    /// What it costs, for the pairs that it does not leave out.
    fn cost(&self) -> Cost {
        let s = &self.s;
        let size = |all: [usize; 4]| all.iter().map(|&n| n as f64).product::<f64>();
        let both = s.depth + s.width;
        Cost {
            flops: 2.0 * self.share() * size([s.batch * s.heads, s.queries, s.total(), both]),
            bytes: 4.0
                * (size([s.batch, s.heads, s.queries, both]) + size([s.batch, s.kv_heads, s.total(), both])),
            efficiency: 0.6,
        }
    }

    /// The share of the pairs of a query and a key that is looked at, as far as that is known.
    fn share(&self) -> f64 {
        let bands = self.rows.div_ceil(QUERIES);
        let keys = |band: usize| self.limit((band + 1) * QUERIES).min(self.s.total());
        let all = (bands * self.s.total()).max(1) as f64;
        let below = (0..bands).map(keys).sum::<usize>() as f64 / all;
        match self
            .mask
            .as_ref()
            .and_then(|m| Some((&m.grid, m.known.as_ref()?)))
        {
            None => below,
            Some((grid, known)) => {
                let open = known.open(grid, |band| keys(band).div_ceil(PANEL));
                below.min(open as f64 / grid.len().max(1) as f64)
            }
        }
    }

    /// The first key that no row before `last` sees for being later than it.
    fn limit(&self, last: usize) -> usize {
        match (self.options.causal, self.per) {
            (false, _) => usize::MAX,
            (true, 1) => self.s.past + last,
            // One query, at the first place.
            (true, _) => self.s.past + 1,
        }
    }

    /// Whether keys and values are used as they lie.
    fn few(&self) -> bool {
        self.rows < FEW
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

    /// Floats for the packed keys and values of all heads, and for the map of a mask.
    fn shared(&self) -> [usize; 3] {
        let heads = self.s.batch * self.s.kv_heads;
        let map = self.mask.as_ref().map_or(0, Masked::made);
        let [keys, values] = match self.few() {
            true => [0, 0],
            false => self.packed().map(|n| n.saturating_mul(heads)),
        };
        [keys, values, map].map(|n| n.next_multiple_of(16))
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

    /// The map of the mask, made in `memory` unless it is known.
    fn tiles<'a>(&'a self, io: &Io, mask: *const u8, memory: Scratch) -> Option<&'a [u32]> {
        let Masked { grid, known, .. } = self.mask.as_ref()?;
        if let Some(known) = known {
            return Some(&known.tiles);
        }
        let (mask, each) = (Shared(mask), grid.panels());
        io.pool.run(grid.parts(), &|i| {
            // SAFETY: the mask is there, and no two tasks have a part of the map in common.
            unsafe {
                let tiles = std::slice::from_raw_parts_mut(memory.of(i, each).cast(), each);
                grid.survey(mask.at(), i, tiles);
            }
        });
        // SAFETY: there is memory for as many, all of which was written; it outlasts the run.
        Some(unsafe { std::slice::from_raw_parts(memory.start().cast(), grid.len()) })
    }
}

/// A mask that tasks read.
#[derive(Clone, Copy)]
struct Shared(*const u8);

// SAFETY: nobody writes it.
unsafe impl Sync for Shared {}

impl Shared {
    fn at(&self) -> *const u8 {
        self.0
    }
}

impl Kernel for Attend {
    fn scratch(&self, threads: usize) -> usize {
        let own = self.own().saturating_mul(threads);
        let all = self.shared().into_iter().chain([own]);
        all.fold(0, usize::saturating_add)
            .saturating_mul(size_of::<f32>())
    }

    fn reads(&self, i: usize) -> bool {
        i != 3 || self.mask.as_ref().is_none_or(Masked::read)
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let at = |i: usize| io.inputs.get(i).copied().flatten();
        let floats = |i: usize| at(i).map_or(std::ptr::null(), |v| v.ptr::<f32>());
        let scratch = Scratch::new(io.scratch);
        let [keys, values, map] = self.shared();
        let mask = at(3)
            .filter(|_| self.reads(3))
            .map_or(std::ptr::null(), |v| v.start());
        let m = Memory {
            q: floats(0),
            k: floats(1),
            v: floats(2),
            past_k: floats(4),
            past_v: floats(5),
            mask,
            tiles: self.tiles(io, mask, scratch.behind(keys + values)),
            lengths: at(6).filter(|_| self.lengths).map(|v| v.slice::<i64>()),
            out: io.outputs[0].as_ref().map_or(std::ptr::null_mut(), |v| v.ptr()),
            keys: scratch,
            values: scratch.behind(keys),
            own: scratch.behind(keys + values + map),
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
