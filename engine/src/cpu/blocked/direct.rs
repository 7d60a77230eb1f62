//! Convolution as it is defined: for each tile of pixels and output channels, the sum over windows and input channels.

use std::ops::Range;
use std::sync::Arc;

use super::tile::{Tile, height, width};
use super::{BLOCK, Source, clear_tail};
use crate::cpu::conv::{Images, Shape};
use crate::cpu::gemm::{Floats, Scratch, balanced};
use crate::cpu::window::Window;
use crate::cpu::{Ending, Order, Packed, Pool};
use crate::ir::Bytes;

/// Bytes of pixels that are worked on at once, to stay in the second cache.
const BYTES: usize = 600 << 10;
/// Bytes of a panel that are read at once: what is fetched ahead must not push out what is in use.
const PANEL: usize = 144 << 10;
/// Bytes of weights that every thread may read; of more, each reads its own part.
const SHARED: usize = 512 << 10;
/// Tasks that there should be, so that several threads are busy to the end.
const TASKS: usize = 8;

/// Weights in the order in which tiles read them: `[groups][parts of the sum][outputs / width][part][width]`.
pub struct Panels(Floats);

/// A convolution whose output stands in blocks of channels.
pub struct Direct {
    shape: Shape,
    panels: Option<Arc<Panels>>,
    source: Source,
    /// Parts of the sum, as offsets of the source.
    parts: Vec<Range<usize>>,
    /// Whether each task works on pixels of its own; if not, tasks share the output channels.
    own: bool,
    /// Ranges of panels, one for each task on the same pixels.
    groups: Vec<Range<usize>>,
    spread: Option<Spread>,
}

/// Where pixels of the output go that do not stand one behind the other, in rows of `across` pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    /// Pixels of all of the image.
    pub(crate) plane: usize,
    /// Where the first pixel goes.
    pub(crate) first: usize,
    /// How far rows and columns of the output are apart there.
    pub(crate) step: [usize; 2],
}

impl Spread {
    /// Where a pixel of the window's output goes.
    pub(crate) fn pixel(&self, at: usize, w: &Window) -> usize {
        let across = w.output.last().copied().unwrap_or(1).max(1);
        self.first + at / across * self.step[0] + at % across * self.step[1]
    }
}

/// Channels of one offset.
pub(super) fn depth(shape: &Shape) -> usize {
    if shape.inputs < BLOCK { 1 } else { BLOCK }
}

/// Offsets: blocks of channels, or single ones, times elements of the window.
pub(super) fn units(shape: &Shape) -> usize {
    shape.inputs.div_ceil(depth(shape)) * shape.window.taps()
}

pub(super) fn parts(shape: &Shape) -> impl Iterator<Item = Range<usize>> {
    let unit = depth(shape) * width() * size_of::<f32>();
    balanced(units(shape), (PANEL / unit).max(1))
}

impl Panels {
    /// The order for a convolution of this shape.
    pub fn order(shape: &Shape) -> Order {
        let s = shape;
        let name = format!("blocked {}x{}x{} by {}", s.groups, s.outputs, s.depth(), width());
        Order::floats(name, Panels::len(s))
    }

    /// Floats.
    pub(super) fn len(shape: &Shape) -> usize {
        let panels = shape.groups * shape.outputs.div_ceil(width());
        panels * units(shape) * depth(shape) * width()
    }

    /// Packs `[groups * outputs, inputs, window]`.
    pub fn new(w: &[f32], shape: &Shape) -> Panels {
        let (depth, taps) = (depth(shape), shape.window.taps());
        let panels = shape.outputs.div_ceil(width());
        let mut data = Floats::zeros(Panels::len(shape));
        let mut to = data.slice_mut().chunks_exact_mut(width());
        for group in 0..shape.groups {
            for part in parts(shape) {
                for panel in 0..panels {
                    for k in part.start * depth..part.end * depth {
                        let (unit, lane) = (k / depth, k % depth);
                        let (channel, tap) = (unit / taps * depth + lane, unit % taps);
                        let Some(row) = to.next().filter(|_| channel < shape.inputs) else {
                            continue;
                        };
                        let outputs = panel * width()..shape.outputs.min((panel + 1) * width());
                        for (to, o) in row.iter_mut().zip(outputs) {
                            let o = group * shape.outputs + o;
                            *to = w[(o * shape.inputs + channel) * taps + tap];
                        }
                    }
                }
            }
        }
        Panels(data)
    }
}

impl Packed for Panels {
    fn parts(&self) -> Vec<&[u8]> {
        self.0.parts()
    }

    fn from_parts(parts: &[Bytes]) -> Option<Panels> {
        Floats::from_parts(parts).map(Panels)
    }
}

impl Direct {
    /// Whether there is such a convolution: over at most two axes; of groups, only those of whole blocks.
    pub fn fits(shape: &Shape) -> bool {
        let whole = |n: usize| n.is_multiple_of(BLOCK);
        shape.window.size.len() <= 2
            && (shape.groups == 1 || (whole(shape.inputs) && whole(shape.outputs)))
            && Source::fits(shape)
    }

    /// Whether the input is row-major: that of few channels is.
    pub fn reads_rows(shape: &Shape) -> bool {
        depth(shape) == 1
    }

    /// A convolution of a shape that [`fits`](Direct::fits) with `panels`, or else with those that come with each run.
    pub fn new(shape: Shape, panels: Option<Arc<Panels>>) -> Direct {
        Direct::spread(shape, panels, None)
    }

    /// The same that writes its pixels elsewhere.
    pub(super) fn spread(shape: Shape, panels: Option<Arc<Panels>>, spread: Option<Spread>) -> Direct {
        let weights = shape.outputs * shape.depth() * size_of::<f32>();
        let outer = shape.images * shape.groups;
        let wanted = TASKS.div_ceil(outer.max(1));
        let few = weights > SHARED;
        let line = spread.and(shape.window.output.last().copied());
        let wanted = if few { 1 } else { wanted };
        let source = Source::new(&shape, BYTES, wanted, line.unwrap_or(usize::MAX));
        let own = source.blocks.len() * outer >= TASKS / 2 || (!few && shape.outputs <= width());
        let split = if own { 1 } else { TASKS };
        let count = shape.outputs.div_ceil(width());
        Direct {
            parts: parts(&shape).collect(),
            groups: balanced(count, count.div_ceil(split)).collect(),
            own,
            source,
            panels,
            shape,
            spread,
        }
    }

    /// Pixels of an image of the output.
    fn plane(&self) -> usize {
        self.spread
            .map_or(self.shape.window.positions(), |spread| spread.plane)
    }

    /// Where a pixel of the output goes.
    fn pixel(&self, at: usize) -> usize {
        self.spread.map_or(at, |s| s.pixel(at, &self.shape.window))
    }

    /// Bytes of scratch memory.
    pub fn scratch(&self, threads: usize) -> usize {
        let threads = if self.own { threads } else { 1 };
        self.source.floats() * threads * size_of::<f32>()
    }

    /// What is convolved.
    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Computes the output. `x` is row-major if [`reads_rows`](Direct::reads_rows) says so; the output, the residual and
    /// otherwise the input stand in blocks; `x.bias` has zeros up to a whole number of blocks.
    ///
    /// # Safety
    ///
    /// All that [`Shape`] describes is readable, the output writable, and nobody else writes to them.
    pub unsafe fn run(&self, x: Images, scratch: &mut [u8], pool: &Pool) {
        let s = &self.shape;
        debug_assert!(scratch.len() >= self.scratch(pool.threads()), "scratch memory");
        let (memory, floats) = (Scratch::new(scratch), self.source.floats());
        let (outer, blocks) = (s.images * s.groups, self.source.blocks.len());
        if self.own {
            pool.run_with(outer * blocks * self.groups.len(), &|thread, task| {
                let (place, task) = (
                    task / (blocks * self.groups.len()),
                    task % (blocks * self.groups.len()),
                );
                let (block, group) = (task % blocks, task / blocks);
                let to = memory.of(thread, floats);
                // SAFETY: each thread has its own scratch memory, and each task its part of the output.
                unsafe {
                    self.source
                        .fill(self.input(x, place), block, self.source.all(), to);
                    self.part(x, place, block, self.groups[group].clone(), to);
                }
            });
            return;
        }
        for (place, block) in (0..outer).flat_map(|p| (0..blocks).map(move |b| (p, b))) {
            if floats > 0 {
                let all = self.source.all();
                let pieces: Vec<_> = balanced(all.len(), all.len().div_ceil(TASKS)).collect();
                // SAFETY: each task writes pixels of its own channels.
                pool.run(pieces.len(), &|i| unsafe {
                    self.source
                        .fill(self.input(x, place), block, pieces[i].clone(), memory.start());
                });
            }
            // SAFETY: each task has its part of the output.
            pool.run(self.groups.len(), &|i| unsafe {
                self.part(x, place, block, self.groups[i].clone(), memory.start());
            });
        }
    }

    fn input(&self, x: Images, place: usize) -> *const f32 {
        let s = &self.shape;
        let channels = if depth(s) == 1 {
            s.inputs
        } else {
            s.inputs.next_multiple_of(BLOCK)
        };
        x.x.wrapping_add(place * channels * s.window.plane())
    }

    /// # Safety
    ///
    /// As for [`run`](Direct::run); `pixels` are those of the block, where they are not read from the image.
    unsafe fn part(&self, x: Images, place: usize, block: usize, panels: Range<usize>, pixels: *const f32) {
        let s = &self.shape;
        let plane = self.plane();
        let y_pixel = self.spread.map_or(1, |s| s.step[1]) * BLOCK;
        let block = &self.source.blocks[block];
        let (from, depth) = match self.source.floats() {
            0 => (self.input(x, place).wrapping_add(block.first * BLOCK), depth(s)),
            _ => (pixels, depth(s)),
        };
        let count = s.outputs.div_ceil(width());
        let group = place % s.groups;
        let weights = self.panels.as_ref().map_or(x.w, |p| p.0.slice().as_ptr());
        let weights = weights.wrapping_add(group * count * units(s) * depth * width());
        let out = place * s.outputs.div_ceil(BLOCK) * plane;
        // The tiles that fetch the next weights: those of two, or of four half as fast.
        let slowly = block.spots.len() >= 4 && depth > 1;
        let share = if slowly { BLOCK / 2 } else { BLOCK };
        for part in &self.parts {
            let rows = part.len() * depth;
            for panel in panels.clone() {
                let w = weights.wrapping_add((part.start * depth * count + panel * rows) * width());
                let o = panel * width();
                let blocks = (s.outputs - o).div_ceil(BLOCK).min(width() / BLOCK);
                for (t, spot) in block.spots.iter().enumerate() {
                    let at = (out + o / BLOCK * plane + self.pixel(spot.at)) * BLOCK;
                    let (first, last) = (part.start == 0, part.end == units(s));
                    let given = |p: *const f32, at: usize| match first && !p.is_null() {
                        true => p.wrapping_add(at),
                        false => std::ptr::null(),
                    };
                    let tile = Tile {
                        x: from.wrapping_add(spot.from),
                        offsets: &self.source.offsets[part.clone()],
                        w,
                        y: x.y.wrapping_add(at),
                        y_block: plane * BLOCK,
                        y_pixel,
                        blocks,
                        bias: given(x.bias, group * s.outputs + o),
                        residual: given(x.residual, at),
                        accumulate: !first,
                        end: s.post.ending().filter(|_| last).unwrap_or(Ending::NONE),
                        next: (t * share < width()).then(|| w.wrapping_add((width() + t * share) * rows)),
                        slowly,
                    };
                    // SAFETY: these are pixels of the source, rows of the panel and this part's own pixels.
                    unsafe {
                        tile.run(spot.len, depth == 1);
                        // Pixels that stand apart are ended one by one.
                        let (pixels, len) = if y_pixel == BLOCK {
                            (1, spot.len)
                        } else {
                            (spot.len, 1)
                        };
                        for y in (0..pixels).map(|p| tile.y.wrapping_add(p * y_pixel)) {
                            if last && s.post.ending().is_none() {
                                s.post.apply_rows(y, tile.y_block, blocks, len * BLOCK);
                            }
                            if o + blocks * BLOCK > s.outputs {
                                clear_tail(y.add((blocks - 1) * tile.y_block), len, s.outputs);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Pixels of one tile.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    /// Floats from the first pixel of the source.
    pub(super) from: usize,
    /// The first pixel of the output.
    pub(super) at: usize,
    /// Pixels.
    pub(super) len: usize,
}

/// Cuts `len` pixels into tiles.
pub(super) fn tiles(len: usize) -> impl Iterator<Item = Range<usize>> {
    balanced(len, height())
}
