//! Gradients of the weights of convolutions: sums over images and pixels.
//!
//! The batch is cut into slices by its size alone; each has partial sums of its own, which are added in order. So results are
//! the same on any number of threads.

mod depthwise;
mod slots;
mod sum;
mod winograd;

use super::direct::depth;
use super::tile::width;
use super::{BLOCK, Source};
use crate::cpu::conv::Shape;
use crate::cpu::gemm::Scratch;
use crate::cpu::{Io, Kernel, Pool};
use crate::ops::OpError;
use slots::Slots;
use sum::{Sum, cut};

/// Bytes of pixels that are copied at once, to stay in the second cache.
const BYTES: usize = 400 << 10;
/// Pixels over which all rows are summed before the next, to stay in the first cache.
const PIXELS: usize = 256;

/// The gradient of the weights of a convolution of `shape`: input 0 is its image, input 1 the gradient of its output.
pub struct Gradient {
    shape: Shape,
    method: Method,
}

enum Method {
    Direct(Box<Direct>),
    Winograd(Box<winograd::Winograd>),
    Depthwise(depthwise::Depthwise),
}

impl Gradient {
    /// As it is defined, where [`super::Direct::fits`]. Few channels are read row by row, as [`super::Direct::reads_rows`]
    /// says; everything else stands in blocks.
    pub fn direct(shape: Shape) -> Gradient {
        Gradient {
            method: Method::Direct(Box::new(Direct::new(&shape))),
            shape,
        }
    }

    /// By fewer multiplications, where [`super::Winograd::fits`].
    pub fn winograd(shape: Shape) -> Gradient {
        Gradient {
            method: Method::Winograd(Box::new(winograd::Winograd::new(&shape))),
            shape,
        }
    }

    /// Each channel by itself, where [`super::Depthwise::fits`].
    pub fn depthwise(shape: Shape) -> Gradient {
        Gradient {
            method: Method::Depthwise(depthwise::Depthwise::new(&shape)),
            shape,
        }
    }

    /// Whether there is nothing to sum.
    fn is_empty(&self) -> bool {
        let s = &self.shape;
        s.images * s.window.positions() * s.window.plane() == 0
    }
}

impl Kernel for Gradient {
    fn scratch(&self, threads: usize) -> usize {
        let floats = match &self.method {
            _ if self.is_empty() => 0,
            Method::Direct(k) => k.scratch(threads),
            Method::Winograd(k) => k.scratch(&self.shape, threads),
            Method::Depthwise(k) => k.scratch(),
        };
        floats * size_of::<f32>()
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        if self.is_empty() {
            io.output(0).slice::<f32>().fill(0.0);
            return Ok(());
        }
        let memory = Memory {
            x: io.input(0).ptr(),
            dy: io.input(1).ptr(),
            w: Scratch::from(io.output(0).slice()),
            scratch: Scratch::new(io.scratch),
        };
        // SAFETY: inputs, output and scratch memory are as large as the shape says; nobody else writes to them.
        unsafe {
            match &self.method {
                Method::Direct(k) => k.run(&self.shape, memory, io.pool),
                Method::Winograd(k) => k.run(&self.shape, memory, io.pool),
                Method::Depthwise(k) => k.run(&self.shape, memory, io.pool),
            }
        }
        Ok(())
    }
}

/// Image, gradient of the output, gradient of the weights, and scratch memory.
#[derive(Clone, Copy)]
struct Memory {
    x: *const f32,
    dy: *const f32,
    w: Scratch,
    scratch: Scratch,
}

// SAFETY: what is written is so in parts, each by one task.
unsafe impl Sync for Memory {}

/// The gradient as it is defined.
struct Direct {
    source: Source,
    slots: Slots,
    /// Where each row of partial sums lies in the source: channels in a block one behind the other.
    rows: Vec<usize>,
    /// The row of each weight of an output.
    from: Vec<usize>,
}

impl Direct {
    fn new(s: &Shape) -> Direct {
        let source = Source::new(s, BYTES, 1, usize::MAX);
        let (depth, taps) = (depth(s), s.window.taps());
        let mut rows = Vec::with_capacity(s.depth());
        let mut from = vec![0; s.depth()];
        for (unit, &offset) in source.offsets.iter().enumerate() {
            let first = unit / taps * depth;
            for channel in first..s.inputs.min(first + depth) {
                from[channel * taps + unit % taps] = rows.len();
                rows.push(offset + channel - first);
            }
        }
        Direct {
            slots: Slots::new(s, usize::MAX),
            source,
            rows,
            from,
        }
    }

    fn scratch(&self, threads: usize) -> usize {
        self.slots.floats() + self.source.floats() * threads
    }

    /// # Safety
    ///
    /// The memory is of the sizes that the shape and [`scratch`](Direct::scratch) say.
    unsafe fn run(&self, s: &Shape, m: Memory, pool: &Pool) {
        let copies = m.scratch.behind(self.slots.floats());
        pool.run_with(self.slots.tasks(), &|thread, task| {
            let copy = copies.of(thread, self.source.floats());
            // SAFETY: each thread has its own copy, and each task its own partial sums.
            unsafe { self.task(s, m, task, copy) };
        });
        // SAFETY: all partial sums are there.
        unsafe { self.slots.finish(m.scratch, &self.from, m.w, pool) };
    }

    /// # Safety
    ///
    /// As for [`run`](Direct::run); nobody else uses `copy`.
    unsafe fn task(&self, s: &Shape, m: Memory, task: usize, copy: *mut f32) {
        let share = self.slots.share(task);
        let (plane, blocks) = (s.window.positions(), s.outputs.div_ceil(BLOCK));
        let channels = if depth(s) == 1 {
            s.inputs
        } else {
            s.inputs.next_multiple_of(BLOCK)
        };
        let some = PIXELS.div_ceil(self.source.blocks[0].spots[0].len.max(1));
        for image in share.images.clone() {
            let place = image * s.groups + share.group;
            let x = m.x.wrapping_add(place * channels * s.window.plane());
            for (b, block) in self.source.blocks.iter().enumerate() {
                // SAFETY: as the caller says.
                unsafe { self.source.fill(x, b, self.source.all(), copy) };
                let from = match self.source.floats() {
                    0 => x.wrapping_add(block.first * BLOCK),
                    _ => copy,
                };
                let first = image == share.images.start && b == 0;
                for panel in share.panels.clone() {
                    let (o, slot) = (panel * width() / BLOCK, self.slots.at(&share, panel));
                    for (i, spots) in block.spots.chunks(some).enumerate() {
                        for rows in cut(self.rows.len()) {
                            let sum = Sum {
                                x: from,
                                rows: &self.rows[rows.clone()],
                                y: m.dy.wrapping_add((place * blocks + o) * plane * BLOCK),
                                y_block: plane * BLOCK,
                                blocks: (blocks - o).min(width() / BLOCK),
                                spots,
                                sums: m.scratch.behind(slot + rows.start * width()).start(),
                                accumulate: !(first && i == 0),
                            };
                            // SAFETY: the rows lie in the source, and these are partial sums of this task.
                            unsafe { sum.run(depth(s) == 1) };
                        }
                    }
                }
            }
        }
    }
}
