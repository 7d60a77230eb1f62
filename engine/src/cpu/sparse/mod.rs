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
mod plan;
#[cfg(test)]
mod tests;
mod tile;
mod vector;
mod zeros;

use std::ops::Range;
use std::sync::Arc;

pub use code::{Code, Cut, Kind};
use grid::Grid;
use lay::{Added, Channels, Drain, Fill, Halo, lanes};
use plan::Near;
pub use plan::{Plan, Rows, Sparsity};
use tile::Strip;
pub use vector::{Tokens, Vector};
pub use zeros::{Matrix, Zeros};

use super::blocked::BLOCK;
use super::conv::Images;
use super::gemm::Scratch;
use super::{Ending, Pool};

/// Something that is added to the sums: one number for each channel, or one for each channel and position.
#[derive(Clone, Copy)]
pub struct Addend<'a> {
    /// That of the first channel and position.
    pub x: *const f32,
    /// Its place for each position.
    pub at: At<'a>,
}

/// Where an addend is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At<'a> {
    /// The same for all positions.
    Nowhere,
    /// As the output.
    Output,
    /// As [`Plan::places`] makes them.
    Places(&'a [u32]),
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

/// A product with encoded weights.
pub struct Product {
    plan: Plan,
    code: Arc<Code>,
    /// What is brought near.
    channels: Vec<Channels>,
    /// For as many images as are taken at once, and for those that are left.
    tables: Vec<Table>,
}

/// Where positions are in memory.
struct Table {
    grid: Grid,
    /// Where positions follow each other in the output, for each strip, where the end of sums needs it.
    runs: Vec<Vec<(u32, u32)>>,
}

/// What is computed at once: some images, or all rows of a matrix.
#[derive(Clone, Copy)]
struct Batch<'a> {
    x: *const f32,
    y: *mut f32,
    add: [Option<Addend<'a>>; 2],
    table: &'a Table,
}

// SAFETY: as above.
unsafe impl Send for Batch<'_> {}
// SAFETY: as above.
unsafe impl Sync for Batch<'_> {}

impl Product {
    /// The product with weights that were encoded as [`Plan::cut`] says.
    pub fn new(plan: Plan, code: Arc<Code>) -> Product {
        let (taps, phases) = (plan.frame.taps.len().max(1), plan.frame.planes());
        let parts = plan.slots.iter().zip(&plan.cut.parts);
        let channels = parts.flat_map(|(&slot, columns)| {
            let (all, x) = (columns.start / taps..columns.end / taps, plan.x);
            blocks_of(all.clone()).map(move |c| Channels {
                x: c.start / BLOCK * x.block + c.start % BLOCK * x.channel,
                live: c.len(),
                slot: slot + 1 + (c.start - all.start) * phases,
            })
        });
        let step = if plan.whole { BLOCK } else { plan.cut.matrix.rows };
        let table = |images: usize| {
            let grid = plan.grid(images);
            let runs = |strip: &Range<usize>| plan.frame.runs(&grid.to, strip.clone(), step, lanes());
            Table {
                runs: match plan.post.ending() {
                    Some(_) => vec![],
                    None => plan.strips.iter().map(runs).collect(),
                },
                grid,
            }
        };
        let (whole, left) = (
            plan.images.min(plan.frame.images),
            plan.images % plan.frame.images,
        );
        let counts = [Some(whole), (left != whole % plan.frame.images).then_some(left)];
        Product {
            channels: channels.collect(),
            tables: counts.into_iter().flatten().map(table).collect(),
            code,
            plan,
        }
    }

    /// Floats from slot to slot of a strip of so many vectors, or of planes.
    fn slot(&self, vectors: usize) -> usize {
        let frame = &self.plan.frame;
        lanes() * if frame.single() { vectors } else { frame.pitch() }
    }

    /// Floats of what is brought near of a strip, or of planes, with a vector before and behind.
    fn near(&self) -> usize {
        let slots = self.plan.slots.last().copied().unwrap_or(0);
        (slots * self.slot(self.widest()) + 2 * lanes()).next_multiple_of(BLOCK)
    }

    /// How many of these each thread has, and how many there are on so many threads.
    fn copies(&self, threads: usize) -> (usize, usize) {
        match self.plan.near {
            Near::Shared => (1, 1),
            Near::Own(strips) => (strips, strips * threads),
        }
    }

    /// Words by which a thread knows what it has brought near, in whole cache lines.
    fn tags(&self) -> usize {
        self.copies(1).0.next_multiple_of(BLOCK)
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
        let each = self.sums().next_multiple_of(BLOCK) + self.tags();
        (self.copies(threads).1 * self.near() + threads * each) * size_of::<f32>()
    }

    /// Computes the output.
    ///
    /// # Safety
    ///
    /// All that the plan was made for is readable, the output writable, and nobody else writes to them; the output is not the
    /// input. An addend may be the output itself, position by position.
    pub unsafe fn run(&self, x: Operands, scratch: &mut [u8], pool: &Pool) {
        let p = &self.plan;
        for first in (0..p.images).step_by(p.frame.images) {
            let of_y = first * p.y.image;
            let add = x.add.map(|a| {
                a.map(|a| Addend {
                    x: a.x.wrapping_add(if a.at == At::Output { of_y } else { 0 }),
                    ..a
                })
            });
            let batch = Batch {
                x: x.x.wrapping_add(first * p.x.image),
                y: x.y.wrapping_add(of_y),
                add,
                table: match self.tables.get(1).filter(|_| first + p.frame.images > p.images) {
                    Some(rest) => rest,
                    None => &self.tables[0],
                },
            };
            // SAFETY: as the caller says.
            unsafe { self.batch(batch, scratch, pool) };
        }
    }

    /// # Safety
    ///
    /// As for [`run`](Product::run).
    unsafe fn batch(&self, x: Batch, scratch: &mut [u8], pool: &Pool) {
        debug_assert!(scratch.len() >= self.scratch(pool.threads()), "scratch memory");
        let (p, threads) = (&self.plan, pool.threads());
        let (blocks, strips) = (p.cut.blocks(), p.strips.len());
        let near = Scratch::new(scratch);
        let sums = near.behind(self.copies(threads).1 * self.near());
        let each = self.sums().next_multiple_of(BLOCK);
        let tags = sums.behind(threads * each);
        // SAFETY: there are as many floats.
        unsafe { std::slice::from_raw_parts_mut(tags.start(), threads * self.tags()).fill(0.0) };
        for group in 0..p.cut.groups {
            if p.near == Near::Shared {
                // SAFETY: each task fills the planes of its part.
                pool.run(p.cut.parts.len(), &|part| unsafe {
                    self.fill_planes(x, group, part, near.start().wrapping_add(lanes()));
                });
            }
            pool.run_with(blocks * strips, &|thread, i| {
                let (block, strip) = match p.by_rows {
                    true => (i / strips, i % strips),
                    false => (i % blocks, i / blocks),
                };
                // SAFETY: threads have memory of their own, and tasks their part of the output.
                unsafe {
                    let near = match p.near {
                        Near::Shared => near.start().wrapping_add(lanes()),
                        Near::Own(count) => {
                            let near = near.of(thread, count * self.near());
                            self.brought(x, [group, strip], near, tags.of(thread, self.tags()))
                        }
                    };
                    self.block(x, [group, block, strip], near, sums.of(thread, each));
                }
            });
        }
    }

    /// Where a thread has what is read at a strip; it is brought there unless it is there, as the tag says.
    unsafe fn brought(
        &self,
        x: Batch,
        [group, strip]: [usize; 2],
        near: *mut f32,
        tags: *mut f32,
    ) -> *const f32 {
        let (p, (count, _)) = (&self.plan, self.copies(1));
        let single = p.frame.single();
        let (slot, tag) = match single {
            true => (strip % count, group * p.strips.len() + strip + 1),
            false => (0, group + 1),
        };
        let near = near.wrapping_add(slot * self.near() + lanes());
        // SAFETY: memory and tag are this thread's.
        unsafe {
            let there = tags.cast::<u32>().add(slot);
            if *there != tag as u32 {
                *there = tag as u32;
                match single {
                    true => self.fill_strip(x, group, strip, near),
                    false => (0..p.cut.parts.len()).for_each(|part| self.fill_planes(x, group, part, near)),
                }
            }
        }
        near
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
            add: [given(x.bias, At::Nowhere), given(x.residual, At::Output)],
        };
        // SAFETY: as the caller says.
        unsafe { self.run(all, scratch, pool) };
    }

    /// Brings all channels at the positions of a strip near.
    unsafe fn fill_strip(&self, x: Batch, group: usize, strip: usize, near: *mut f32) {
        let p = &self.plan;
        let (strip, lanes) = (p.strips[strip].clone(), lanes());
        let slot = self.slot(strip.len());
        for &first in &p.slots[..p.cut.parts.len()] {
            // SAFETY: the slot of zeros is there.
            unsafe { std::slice::from_raw_parts_mut(near.wrapping_add(first * slot), slot).fill(0.0) };
        }
        let fill = Fill {
            x: x.x.wrapping_add(group * p.x.group),
            channel: p.x.channel,
            all: &self.channels,
            from: &x.table.grid.from[0][strip.start * lanes..strip.end * lanes],
            to: near,
            slot: [slot, 1],
            by_channels: p.whole,
        };
        // SAFETY: as `run` says.
        unsafe { fill.run() };
    }

    /// Brings the planes of a part near.
    unsafe fn fill_planes(&self, x: Batch, group: usize, part: usize, near: *mut f32) {
        let (p, lanes) = (&self.plan, lanes());
        let (slot, phases) = (self.slot(0), p.frame.planes());
        let slots = p.slots[part]..p.slots[part + 1];
        let first = near.wrapping_add(slots.start * slot);
        // SAFETY: the planes of the part are there.
        unsafe {
            std::slice::from_raw_parts_mut(first, slot).fill(0.0);
            for channels in self.channels.iter().filter(|c| slots.contains(&c.slot)) {
                for (phase, from) in x.table.grid.from.iter().enumerate() {
                    let to = near.wrapping_add(phase * slot + p.frame.halo[0] * lanes);
                    let fill = Fill {
                        x: x.x.wrapping_add(group * p.x.group),
                        channel: p.x.channel,
                        all: std::slice::from_ref(channels),
                        from,
                        to,
                        slot: [slot, phases],
                        by_channels: true,
                    };
                    fill.run();
                    let to = to.wrapping_add(channels.slot * slot);
                    for plane in (0..channels.live).map(|c| to.wrapping_add(c * phases * slot)) {
                        let (vectors, halo) = (p.frame.vectors, p.frame.halo);
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
        x: Batch<'a>,
        [group, block, strip]: [usize; 3],
        near: *const f32,
        sums: *mut f32,
    ) {
        let (p, lanes) = (&self.plan, lanes());
        let vectors = p.strips[strip].clone();
        let (slot, single) = (self.slot(vectors.len()), p.frame.single());
        let (unit, start) = match single {
            true => (slot, 0),
            false => (lanes, (p.frame.halo[0] + vectors.start) * lanes),
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
            let at = match a.at {
                At::Nowhere => None,
                At::Output => Some(&x.table.grid.to[positions.clone()]),
                At::Places(at) => Some(&at[positions.clone()]),
            };
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
            to: &x.table.grid.to[positions.clone()],
            y,
            block: p.y.block,
            whole: p.whole,
        };
        // SAFETY: as `run` says.
        unsafe {
            drain.run();
            self.end(x, y, strip, rows.len());
        }
    }

    /// What the end of sums does not do in registers.
    unsafe fn end(&self, x: Batch, y: *mut f32, strip: usize, rows: usize) {
        let p = &self.plan;
        for &(start, len) in x.table.runs.get(strip).into_iter().flatten() {
            let y = y.wrapping_add(start as usize);
            // SAFETY: these are the positions and channels that were just written.
            unsafe {
                match p.whole {
                    false => p.post.apply_rows(y, p.cut.matrix.rows, len as usize, rows),
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
