//! Convolution as a product of weights that stream and pixels that stay.

use std::ops::Range;
use std::sync::Arc;

use super::super::gemm::{
    Addend, Bands, Scratch, Strides, Tile, balanced, bands_into, k_blocks, panel_into, tile_size,
};
use super::super::{Ending, Pool};
use super::gather::{BEHIND, Gather, To};
use super::{Images, Shape};

/// Bytes of the gathered pixels that are worked on at once, to stay in the second cache.
const BYTES: usize = 512 << 10;
/// Tasks that there should be, so that several threads are busy to the end.
const TASKS: usize = 16;
/// Images times groups times blocks of pixels that there should be; with less than half, all tasks gather together.
const OWN: usize = 8;
/// Rows of a panel that fit the first cache with what else is there; of more, pixels are read slowly where they are.
const NEAR: usize = 128;
/// Bands that make a task worth reading all pixels for.
const BANDS: usize = 6;

/// The weights of a convolution, `[groups, outputs, inputs * window]`.
#[derive(Clone)]
pub enum Weights {
    /// As [`Bands`], one for each group.
    Packed(Arc<Bands>),
    /// Row-major; packed when the kernel runs.
    Plain,
}

/// A convolution of any kind.
pub struct Convolution {
    shape: Shape,
    weights: Weights,
    /// `None` where the pixels are taken from the image as they are.
    gather: Option<Gather>,
    /// Blocks of pixels.
    blocks: Vec<Range<usize>>,
    /// Whether the pixels are gathered once for all tasks.
    together: bool,
    /// Floats from row to row of gathered pixels.
    pitch: usize,
}

/// Rows of a product that are worked on at once.
fn longest(depth: usize) -> usize {
    k_blocks(depth).map(|ks| ks.len()).max().unwrap_or(0)
}

/// A task's part of the work: some bands of output channels and one block of pixels of one group of one image.
struct Part {
    image: usize,
    group: usize,
    bands: Range<usize>,
    pixels: Range<usize>,
}

impl Convolution {
    /// A convolution with `weights`.
    pub fn new(mut shape: Shape, weights: Weights) -> Convolution {
        let identity = shape.window.is_identity();
        if identity {
            shape.window = shape.window.flat();
        }
        let (width, pixels, outer) = (
            tile_size().1,
            shape.window.positions(),
            shape.images * shape.groups,
        );
        let panels = pixels.div_ceil(width);
        let depth = longest(shape.depth());
        let fit = (BYTES / (size_of::<f32>() * depth.max(1) * width)).max(1);
        // Smaller blocks, down to two panels, until there are some for several threads.
        let wanted = OWN
            .div_ceil(outer.max(1))
            .min(panels / 2)
            .max(panels.div_ceil(fit))
            .max(1);
        let blocks = balanced(panels, panels.div_ceil(wanted));
        let blocks: Vec<_> = blocks
            .map(|b| b.start * width..pixels.min(b.end * width))
            .collect();
        let few = outer * blocks.len() < OWN / 2;
        let in_place = identity && !few && depth <= NEAR;
        let together = few && !in_place;
        let blocks = if together {
            balanced(pixels, pixels).collect()
        } else {
            blocks
        };
        let most = blocks.iter().map(Range::len).max().unwrap_or(0);
        let gather = (!in_place).then(|| Gather::new(shape.window.clone(), most));
        // An odd number of cache lines, to use all sets of the first cache.
        let pitch = (most.next_multiple_of(width) + BEHIND).next_multiple_of(32) + 16;
        Convolution {
            shape,
            weights,
            gather,
            blocks,
            together,
            pitch,
        }
    }

    /// Whether weights have to be packed when the kernel runs.
    pub fn packs(&self) -> bool {
        matches!(self.weights, Weights::Plain)
    }

    /// Floats of all packed weights.
    fn weights_len(&self) -> usize {
        let s = &self.shape;
        (s.groups * s.outputs * s.depth()).next_multiple_of(16)
    }

    /// Floats of scratch memory of a thread, and of those that all share for gathered pixels.
    fn floats(&self) -> (usize, usize) {
        let depth = longest(self.shape.depth());
        match (&self.gather, self.together) {
            (None, _) => (depth * tile_size().1, 0),
            (Some(g), false) => (g.floats() + depth * self.pitch, 0),
            (Some(g), true) => (g.floats(), self.shape.depth() * self.pitch),
        }
    }

    /// Bytes of scratch memory.
    pub fn scratch(&self, threads: usize) -> usize {
        let (own, shared) = self.floats();
        let packed = if self.packs() { self.weights_len() } else { 0 };
        (own * threads + shared + packed) * size_of::<f32>()
    }

    /// Computes the output; `w` are the weights where they are not packed.
    ///
    /// # Safety
    ///
    /// All that [`Shape`] describes is readable, the output writable, and nobody else writes to them.
    pub unsafe fn run(&self, x: Images, w: &[f32], scratch: &mut [u8], pool: &Pool) {
        let s = &self.shape;
        if s.images * s.groups * s.outputs * s.window.positions() == 0 {
            return;
        }
        debug_assert!(scratch.len() >= self.scratch(pool.threads()), "scratch memory");
        let (own, shared) = self.floats();
        let base = Scratch::new(scratch);
        let weights = match &self.weights {
            Weights::Packed(bands) => bands.data.slice(),
            // SAFETY: scratch memory ends with a place for the weights.
            Weights::Plain => unsafe { self.pack(w, base.behind(own * pool.threads() + shared).start()) },
        };
        let tiles = s.outputs.div_ceil(tile_size().0);
        let outer = s.images * s.groups;
        let alone = self.gather.is_some() && !self.together;
        let blocks = self.blocks.len();
        let rounds = if self.together { outer } else { 1 };
        let split = match alone {
            true => 1,
            false => TASKS.div_ceil(outer / rounds * blocks).min(tiles.div_ceil(BANDS)),
        };
        let bands: Vec<_> = balanced(tiles, tiles.div_ceil(split)).collect();
        let each = outer / rounds * bands.len() * blocks;
        for round in 0..rounds {
            let pixels = base.behind(own * pool.threads());
            if self.together {
                // SAFETY: scratch memory has a place for them behind that of the threads.
                unsafe { self.gather_all(x, round, pixels, base, pool) };
            }
            pool.run_with(each, &|thread, task| {
                let place = round + task / (bands.len() * blocks);
                let part = Part {
                    image: place / s.groups,
                    group: place % s.groups,
                    bands: bands[task / blocks % bands.len()].clone(),
                    pixels: self.blocks[task % blocks].clone(),
                };
                let scratch = if self.together {
                    pixels.start()
                } else {
                    base.of(thread, own)
                };
                let weights = &weights[part.group * s.outputs * s.depth()..];
                // SAFETY: no two parts share an element of the output, and no two tasks a thread's number.
                unsafe { self.part(x, weights.as_ptr(), part, scratch) };
            });
        }
    }

    /// # Safety
    ///
    /// `to` is writable for all weights.
    unsafe fn pack(&self, w: &[f32], to: *mut f32) -> &[f32] {
        let s = &self.shape;
        let size = (s.outputs, s.depth());
        // SAFETY: as the caller says.
        let all = unsafe { std::slice::from_raw_parts_mut(to, s.groups * s.outputs * s.depth()) };
        let len = (size.0 * size.1).max(1);
        let groups = all.chunks_exact_mut(len).zip(w.chunks_exact(len));
        groups.for_each(|(to, w)| bands_into(to, w, size, Strides::rows(size.1)));
        all
    }

    /// The first plane of a group.
    fn input(&self, x: Images, image: usize, group: usize) -> *const f32 {
        let s = &self.shape;
        x.x.wrapping_add((image * s.groups + group) * s.inputs * s.window.plane())
    }

    /// # Safety
    ///
    /// As for [`run`](Convolution::run); `to` is writable for all gathered pixels.
    unsafe fn gather_all(&self, x: Images, place: usize, to: Scratch, own: Scratch, pool: &Pool) {
        let s = &self.shape;
        let Some(gather) = &self.gather else { return };
        let taps = s.window.taps();
        let grain = (1usize << 14).div_ceil(self.pitch * taps);
        pool.run_with(s.inputs.div_ceil(grain), &|thread, task| {
            let ks = task * grain * taps..s.inputs.min((task + 1) * grain) * taps;
            let to = To {
                ptr: to.of(ks.start, self.pitch),
                pitch: self.pitch,
            };
            let channels = self.input(x, place / s.groups, place % s.groups);
            // SAFETY: each task writes rows of its own, and each thread has scratch memory of its own.
            unsafe {
                gather.fill(
                    channels.add(task * grain * s.window.plane()),
                    0..ks.len(),
                    0..s.window.positions(),
                    to,
                    own.of(thread, gather.floats()),
                )
            };
        });
    }

    /// # Safety
    ///
    /// As for [`run`](Convolution::run); `scratch` has the pixels, or room for them.
    unsafe fn part(&self, x: Images, weights: *const f32, part: Part, scratch: *mut f32) {
        let s = &self.shape;
        let (width, positions) = (tile_size().1, s.window.positions());
        let image = self.input(x, part.image, part.group);
        let channel = (part.image * s.groups + part.group) * s.outputs;
        let tail = part.pixels.len() % width;
        let tiles: Vec<_> = balanced(s.outputs, tile_size().0).collect();
        for ks in k_blocks(s.depth()) {
            // SAFETY: scratch memory has room for `ks.len()` rows; the planes of a group follow each other.
            let (b, b_k) = unsafe { self.pixels(image, &ks, &part.pixels, scratch) };
            for rows in &tiles[part.bands.clone()] {
                let a = weights.wrapping_add(ks.start * s.outputs + rows.start * ks.len());
                for j in (0..part.pixels.len()).step_by(width) {
                    let cols = width.min(part.pixels.len() - j);
                    // The last pixels of a row of the image are not followed by others that may be read.
                    let copied = self.gather.is_none() && cols == tail;
                    let (b, b_k) = if copied {
                        (scratch.cast_const(), width)
                    } else {
                        (b.wrapping_add(j), b_k)
                    };
                    let at = (channel + rows.start) * positions + part.pixels.start + j;
                    let first = ks.start == 0;
                    let bias = Addend {
                        ptr: x.bias,
                        row: 1,
                        col: 0,
                        scale: 1.0,
                    };
                    let residual = Addend {
                        ptr: x.residual.wrapping_add(at),
                        row: positions,
                        col: 1,
                        scale: 1.0,
                    };
                    let last = ks.end == s.depth();
                    let tile = Tile {
                        a,
                        a_row: 1,
                        a_k: rows.len(),
                        b,
                        b_k,
                        k: ks.len(),
                        c: x.y.wrapping_add(at),
                        c_row: positions,
                        cols,
                        alpha: 1.0,
                        accumulate: !first,
                        add: [
                            if first && bias.is_some() {
                                bias.at(part.group * s.outputs + rows.start, 0)
                            } else {
                                Addend::NONE
                            },
                            if first && !x.residual.is_null() {
                                residual
                            } else {
                                Addend::NONE
                            },
                        ],
                        end: s.post.ending().filter(|_| last).unwrap_or(Ending::NONE),
                        next: (j == 0).then(|| a.wrapping_add(rows.len() * ks.len())),
                        slowly: false,
                    };
                    // SAFETY: these are rows and columns of the matrices; those of the output are this part's own.
                    unsafe {
                        tile.run(rows.len());
                        if last && s.post.ending().is_none() {
                            s.post.apply_rows(tile.c, positions, rows.len(), cols);
                        }
                    }
                }
            }
        }
    }

    /// Rows `ks` of the pixels, from the first of `block` on, with the distance from row to row. Of an image itself, the
    /// columns that do not fill a panel are copied to `scratch`.
    ///
    /// # Safety
    ///
    /// As for [`part`](Convolution::part).
    unsafe fn pixels(
        &self,
        image: *const f32,
        ks: &Range<usize>,
        block: &Range<usize>,
        scratch: *mut f32,
    ) -> (*const f32, usize) {
        let (width, positions) = (tile_size().1, self.shape.window.positions());
        let Some(gather) = &self.gather else {
            let b = image.wrapping_add(ks.start * positions + block.start);
            let tail = block.len() % width;
            if tail > 0 {
                // SAFETY: as the caller says.
                unsafe {
                    let to = std::slice::from_raw_parts_mut(scratch, ks.len() * width);
                    panel_into(to, b.add(block.len() - tail), Strides::rows(positions), tail);
                }
            }
            return (b, positions);
        };
        if self.together {
            return (scratch.wrapping_add(ks.start * self.pitch), self.pitch);
        }
        let to = To {
            ptr: scratch.wrapping_add(gather.floats()),
            pitch: self.pitch,
        };
        // SAFETY: as the caller says.
        unsafe { gather.fill(image, ks.clone(), block.clone(), to, scratch) };
        (to.ptr, self.pitch)
    }
}
