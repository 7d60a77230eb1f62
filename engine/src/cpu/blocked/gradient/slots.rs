//! Partial sums, one for each slice of the batch, and how they become weights as ONNX has them.

use std::ops::Range;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::super::BLOCK;
use super::super::tile::width;
use crate::cpu::Pool;
use crate::cpu::conv::Shape;
use crate::cpu::gemm::{Scratch, balanced};

/// Slices of a batch.
const SLICES: usize = 8;
/// Bytes of all partial sums, beyond which there are fewer slices.
const BYTES: usize = 16 << 20;
/// Tasks that there should be, so that several threads are busy to the end.
const TASKS: usize = 8;
/// Floats of a row of weights that make a task.
const ROW: usize = 256;

/// Memory `[slices][groups][outputs / width][rows][width]`, a row for each input channel and element of the window.
pub(super) struct Slots {
    groups: usize,
    outputs: usize,
    rows: usize,
    /// Images of each slice: decided by the shape alone.
    slices: Vec<Range<usize>>,
    /// Panels of each task on the same images.
    shares: Vec<Range<usize>>,
}

/// One task's images, group, and panels of outputs.
pub(super) struct Share {
    pub(super) slice: usize,
    pub(super) images: Range<usize>,
    pub(super) group: usize,
    pub(super) panels: Range<usize>,
}

impl Slots {
    /// For tasks of at most `most` panels.
    pub(super) fn new(s: &Shape, most: usize) -> Slots {
        let panels = s.outputs.div_ceil(width());
        let each = s.groups * panels * s.depth() * width() * size_of::<f32>();
        let slices = (BYTES / each.max(1)).clamp(1, SLICES);
        let slices: Vec<_> = balanced(s.images, s.images.div_ceil(slices)).collect();
        let wanted = TASKS.div_ceil((slices.len() * s.groups).max(1));
        Slots {
            groups: s.groups,
            outputs: s.outputs,
            rows: s.depth(),
            slices,
            shares: balanced(panels, panels.div_ceil(wanted).min(most)).collect(),
        }
    }

    /// Floats of all slots.
    pub(super) fn floats(&self) -> usize {
        self.slices.len() * self.one()
    }

    fn one(&self) -> usize {
        self.groups * self.outputs.div_ceil(width()) * self.panel()
    }

    fn panel(&self) -> usize {
        self.rows * width()
    }

    pub(super) fn tasks(&self) -> usize {
        self.slices.len() * self.groups * self.shares.len()
    }

    /// Most panels of a task.
    pub(super) fn most(&self) -> usize {
        self.shares.iter().map(Range::len).max().unwrap_or(0)
    }

    /// What a task does; those on the same images follow each other.
    pub(super) fn share(&self, task: usize) -> Share {
        let (place, share) = (task / self.shares.len(), task % self.shares.len());
        let slice = place / self.groups;
        Share {
            slice,
            images: self.slices[slice].clone(),
            group: place % self.groups,
            panels: self.shares[share].clone(),
        }
    }

    /// Where the partial sums of a panel begin.
    pub(super) fn at(&self, share: &Share, panel: usize) -> usize {
        let panels = self.outputs.div_ceil(width());
        share.slice * self.one() + (share.group * panels + panel) * self.panel()
    }

    /// Adds the slots in order and writes `[groups * outputs, rows]`; element `i` of a row is in row `from[i]` of the slots.
    ///
    /// # Safety
    ///
    /// The slots are filled, and `w` is writable by nobody else.
    pub(super) unsafe fn finish(&self, slots: Scratch, from: &[usize], w: Scratch, pool: &Pool) {
        let (blocks, pieces) = (self.outputs.div_ceil(BLOCK), self.rows.div_ceil(ROW));
        pool.run(self.groups * blocks * pieces, &|task| {
            let (block, piece) = (task / pieces, task % pieces);
            dispatch(Finish {
                slots: self,
                data: slots.start(),
                from,
                w: w.start(),
                group: block / blocks,
                first: block % blocks * BLOCK,
                row: piece * ROW..self.rows.min((piece + 1) * ROW),
            });
        });
    }
}

struct Finish<'a> {
    slots: &'a Slots,
    data: *const f32,
    from: &'a [usize],
    w: *mut f32,
    group: usize,
    /// The first output.
    first: usize,
    row: Range<usize>,
}

impl Vectorised for Finish<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let t = self.slots;
        let panels = t.outputs.div_ceil(width());
        let panel = (self.group * panels + self.first / width()) * t.panel() + self.first % width();
        for lane in (0..BLOCK).step_by(S::LANES) {
            let from = self.data.wrapping_add(panel + lane);
            let live = t.outputs.saturating_sub(self.first + lane).min(S::LANES);
            for at in self.row.clone().step_by(S::LANES) {
                let n = S::LANES.min(self.row.end - at);
                let mut square = [s.splat(0.0); 16];
                for (square, &row) in square.iter_mut().zip(&self.from[at..at + n]) {
                    let from = from.wrapping_add(row * width());
                    for slice in 0..t.slices.len() {
                        // SAFETY: each slice has this row.
                        let part = unsafe { s.load(from.wrapping_add(slice * t.one())) };
                        *square = if slice == 0 { part } else { s.add(*square, part) };
                    }
                }
                let square = s.turned(square);
                for (i, &row) in square.iter().enumerate().take(live) {
                    let output = self.group * t.outputs + self.first + lane + i;
                    // SAFETY: the weights of this output are this task's own.
                    unsafe { s.store_first(self.w.wrapping_add(output * t.rows + at), n, row) };
                }
            }
        }
    }
}
