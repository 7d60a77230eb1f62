//! Convolution with windows of 3 × 3 by fewer multiplications.
//!
//! S. Winograd's minimal filtering, A. Lavin and S. Gray, *Fast algorithms for convolutional neural networks*, 2016. Tiles of
//! the input and the weights are evaluated at a few points, multiplied there, and interpolated. F(4 × 4) takes the points 0,
//! ±1/√2, ±√2 and infinity, with which the error stays below twice that of the definition; F(2 × 2) takes 0, ±1 and infinity
//! and is more exact than the definition.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::direct::tiles;
use super::filters::Filters;
use super::minimal::{F2, F4, Minimal};
use super::tile::{Tile, width};
use super::{BLOCK, clear_tail};
use crate::cpu::conv::{Images, Shape};
use crate::cpu::gemm::{Scratch, balanced};
use crate::cpu::{Ending, Pool};

/// Bytes of transformed tiles that are worked on at once, to stay in the second cache.
const BYTES: usize = 800 << 10;
/// Bytes of weights that every thread may read; of more, each reads its own part.
const SHARED: usize = 1 << 20;
/// Tasks that there should be, so that several threads are busy to the end.
const TASKS: usize = 4;
/// The same where tasks work on several images.
const GROUPS: usize = 16;
/// Tiles that are worked on at once, from which on more are no faster.
const TILES: usize = 32;

/// What a point of a transformed tile costs, in multiply-adds of its channel.
const TRANSFORM: f64 = 4.0;

/// A convolution by Winograd's method.
pub struct Winograd {
    shape: Shape,
    filters: Option<Arc<Filters>>,
    /// Outputs along each axis of a tile.
    tile: usize,
    /// Tiles along a row of the image.
    across: usize,
    /// Rows of tiles that are worked on together.
    blocks: Vec<Range<usize>>,
    /// Images that are worked on together.
    groups: Vec<Range<usize>>,
    /// Whether each task works on tiles of its own; if not, tasks share the channels.
    own: bool,
}

/// Memory of the tiles of a block.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) v: *mut f32,
    pub(super) m: *mut f32,
    /// Tiles.
    pub(super) tiles: usize,
    /// Floats from point to point of `v` and of `m`.
    pub(super) pitch: [usize; 2],
}

impl Memory {
    /// The memory of the tiles of the image `i` of `images`.
    fn image(self, i: usize, images: usize) -> Memory {
        let first = self.tiles / images * i * BLOCK;
        Memory {
            v: self.v.wrapping_add(first),
            m: self.m.wrapping_add(first),
            ..self
        }
    }
}

impl Winograd {
    /// Whether there is such a convolution: with windows of 3 × 3, one step apart, over blocks of channels.
    pub fn fits(shape: &Shape) -> bool {
        let w = &shape.window;
        w.size == [3, 3]
            && w.strides == [1, 1]
            && w.dilations == [1, 1]
            && shape.groups == 1
            && shape.inputs >= BLOCK
    }

    /// Multiply-adds at the points, and bytes of the transformed weights.
    pub fn work(shape: &Shape, four: bool) -> (f64, f64) {
        let whole = |channels: usize| channels.next_multiple_of(BLOCK) as f64;
        let tile = if four { 4 } else { 2 };
        let tiles: usize = shape.window.output.iter().map(|n| n.div_ceil(tile)).product();
        let points = (tile + 2) * (tile + 2);
        let (inputs, outputs) = (whole(shape.inputs), whole(shape.outputs));
        // A channel's tile is transformed along both axes, read and written.
        let both = inputs * outputs + TRANSFORM * (inputs + outputs);
        (
            (shape.images * tiles * points) as f64 * both,
            points as f64 * inputs * outputs * size_of::<f32>() as f64,
        )
    }

    /// A convolution with `filters`, or else with those that come with each run, by tiles of 4 × 4 or 2 × 2, of a shape that
    /// [`fits`](Winograd::fits).
    pub fn new(shape: Shape, filters: Option<Arc<Filters>>, four: bool) -> Winograd {
        let tile = if four { 4 } else { 2 };
        let [down, across] = [0, 1].map(|a| shape.window.output[a].div_ceil(tile));
        let points = (tile + 2) * (tile + 2);
        let row = across * points * (shape.inputs.next_multiple_of(BLOCK) + width()) * size_of::<f32>();
        let (_, weights) = Winograd::work(&shape, four);
        let fit = (BYTES / row.max(1)).max(1);
        let few = weights > SHARED as f64;
        let wanted = if few {
            1
        } else {
            TASKS.div_ceil(shape.images.max(1))
        };
        let blocks: Vec<_> = balanced(down, fit.min(down.div_ceil(wanted)).max(1)).collect();
        let own = blocks.len() * shape.images >= TASKS && !few;
        let together = match own && blocks.len() == 1 {
            true => (fit / down.max(1))
                .min(TILES.div_ceil((down * across).max(1)))
                .min(shape.images / GROUPS),
            false => 1,
        };
        Winograd {
            own,
            groups: balanced(shape.images, together.max(1)).collect(),
            shape,
            filters,
            tile,
            across,
            blocks,
        }
    }

    /// What takes `blocks`, rows of tiles of 4 × 4, of the input to the points.
    pub(super) fn inputs(shape: Shape, blocks: Vec<Range<usize>>) -> Winograd {
        Winograd {
            tile: 4,
            across: shape.window.output[1].div_ceil(4),
            own: true,
            filters: None,
            groups: vec![],
            shape,
            blocks,
        }
    }

    /// Rows of tiles that are worked on together.
    pub(super) fn blocks(&self) -> &[Range<usize>] {
        &self.blocks
    }

    /// Tiles along a row of the image.
    pub(super) fn across(&self) -> usize {
        self.across
    }

    /// Tiles of the largest block.
    pub(super) fn tiles(&self) -> usize {
        self.across * self.blocks.iter().map(Range::len).max().unwrap_or(0)
    }

    /// Whether by tiles of 4 × 4.
    pub(super) fn four(&self) -> bool {
        self.tile == 4
    }

    fn points(&self) -> usize {
        (self.tile + 2) * (self.tile + 2)
    }

    /// Floats from point to point, for tiles of `channels` channels: not a power of two apart.
    fn pitch(&self, tiles: usize, channels: usize) -> usize {
        (tiles * channels).next_multiple_of(1024) + BLOCK
    }

    /// Floats of the transformed input and of the products of one panel, for the largest block and group.
    fn floats(&self) -> [usize; 2] {
        let tiles = self.tiles() * self.groups.iter().map(Range::len).max().unwrap_or(0);
        let inputs = self.shape.inputs.next_multiple_of(BLOCK);
        [inputs, width()].map(|c| self.pitch(tiles, c) * self.points())
    }

    /// Bytes of scratch memory.
    pub fn scratch(&self, threads: usize) -> usize {
        let [v, m] = self.floats();
        let floats = if self.own {
            (v + m) * threads
        } else {
            v + m * threads
        };
        floats * size_of::<f32>()
    }

    /// What is convolved.
    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Computes the output. All but the bias stand in blocks of channels; that has zeros up to a whole number of blocks.
    ///
    /// # Safety
    ///
    /// All that [`Shape`] describes is readable, the output writable, and nobody else writes to them.
    pub unsafe fn run(&self, x: Images, scratch: &mut [u8], pool: &Pool) {
        debug_assert!(scratch.len() >= self.scratch(pool.threads()), "scratch memory");
        let memory = Scratch::new(scratch);
        let [v, m] = self.floats();
        let panels = self.shape.outputs.div_ceil(width());
        let channels = self.shape.inputs.div_ceil(BLOCK);
        if self.own {
            let blocks = self.blocks.len();
            pool.run_with(self.groups.len() * blocks, &|thread, task| {
                let (images, block) = (self.groups[task / blocks].clone(), task % blocks);
                let own = memory.of(thread, v + m);
                let at = self.memory((block, images.len()), own, own.wrapping_add(v));
                // SAFETY: each thread has memory of its own, and each task its part of the output.
                unsafe {
                    for (i, image) in images.clone().enumerate() {
                        self.transform(x, image, block, 0..channels, at.image(i, images.len()));
                    }
                    (0..panels).for_each(|p| self.panel(x, images.clone(), block, p, at));
                }
            });
            return;
        }
        for (image, block) in (0..self.shape.images).flat_map(|i| (0..self.blocks.len()).map(move |b| (i, b)))
        {
            // SAFETY: each task transforms channels of its own.
            pool.run(channels, &|c| unsafe {
                self.transform(
                    x,
                    image,
                    block,
                    c..c + 1,
                    self.memory((block, 1), memory.start(), std::ptr::null_mut()),
                );
            });
            pool.run_with(panels, &|thread, panel| {
                let at = self.memory((block, 1), memory.start(), memory.behind(v).of(thread, m));
                // SAFETY: each thread has memory of its own for products, and each task its part of the output.
                unsafe { self.panel(x, image..image + 1, block, panel, at) };
            });
        }
    }

    /// The memory of a block of so many images.
    fn memory(&self, (block, images): (usize, usize), v: *mut f32, m: *mut f32) -> Memory {
        let tiles = images * self.blocks[block].len() * self.across;
        let inputs = self.shape.inputs.next_multiple_of(BLOCK);
        Memory {
            v,
            m,
            tiles,
            pitch: [inputs, width()].map(|c| self.pitch(tiles, c)),
        }
    }

    /// # Safety
    ///
    /// As for [`run`](Winograd::run); `at.v` has room.
    pub(super) unsafe fn transform(
        &self,
        x: Images,
        image: usize,
        block: usize,
        channels: Range<usize>,
        at: Memory,
    ) {
        let task = Inputs {
            w: self,
            x: x.x,
            image,
            block,
            channels,
            at,
        };
        match self.tile {
            4 => dispatch(Transform::<F4, 6, 4, _>(task, PhantomData)),
            _ => dispatch(Transform::<F2, 4, 2, _>(task, PhantomData)),
        }
    }

    /// # Safety
    ///
    /// As for [`run`](Winograd::run); `at.v` holds the tiles, and `at.m` has room.
    unsafe fn panel(&self, x: Images, images: Range<usize>, block: usize, panel: usize, at: Memory) {
        let s = &self.shape;
        let inputs = s.inputs.next_multiple_of(BLOCK);
        let blocks = (s.outputs - panel * width()).div_ceil(BLOCK).min(width() / BLOCK);
        let offsets: Vec<_> = (0..inputs / BLOCK).map(|c| c * at.tiles * BLOCK).collect();
        let size = inputs * width();
        let filters = self.filters.as_ref().map_or(x.w, |f| f.0.slice().as_ptr());
        // As in direct convolutions.
        let slowly = tiles(at.tiles).count() >= 4;
        let share = if slowly { BLOCK / 2 } else { BLOCK };
        for point in 0..self.points() {
            let w = filters.wrapping_add((panel * self.points() + point) * size);
            for (t, spot) in tiles(at.tiles).enumerate() {
                let tile = Tile {
                    x: at.v.wrapping_add(point * at.pitch[0] + spot.start * BLOCK),
                    offsets: &offsets,
                    w,
                    y: at.m.wrapping_add(point * at.pitch[1] + spot.start * BLOCK),
                    y_block: at.tiles * BLOCK,
                    y_pixel: BLOCK,
                    blocks,
                    bias: std::ptr::null(),
                    residual: std::ptr::null(),
                    accumulate: false,
                    end: Ending::NONE,
                    next: (t * share < width()).then(|| w.wrapping_add(size + t * share * inputs)),
                    slowly,
                };
                // SAFETY: these are tiles of the block and rows of the filters.
                unsafe { tile.run(spot.len(), false) };
            }
        }
        for (i, image) in images.clone().enumerate() {
            let task = Outputs {
                w: self,
                x,
                image,
                block,
                panel,
                blocks,
                at: at.image(i, images.len()),
            };
            match self.tile {
                4 => dispatch(Transform::<F4, 6, 4, _>(task, PhantomData)),
                _ => dispatch(Transform::<F2, 4, 2, _>(task, PhantomData)),
            }
        }
    }
}

struct Transform<F, const N: usize, const M: usize, T>(T, PhantomData<F>);

struct Inputs<'a> {
    w: &'a Winograd,
    x: *const f32,
    image: usize,
    block: usize,
    channels: Range<usize>,
    at: Memory,
}

impl<F: Minimal<N, M>, const N: usize, const M: usize> Vectorised for Transform<F, N, M, Inputs<'_>> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Inputs {
            w,
            x,
            image,
            block,
            channels,
            at,
        } = self.0;
        let [high, wide] = [w.shape.window.input[0], w.shape.window.input[1]];
        let [top, left] = [w.shape.window.pads[0], w.shape.window.pads[1]];
        let all = w.shape.inputs.div_ceil(BLOCK);
        for channel in channels {
            let x = x.wrapping_add((image * all + channel) * high * wide * BLOCK);
            for (i, row) in w.blocks[block].clone().enumerate() {
                for column in 0..w.across {
                    let tile = (channel * at.tiles + i * w.across + column) * BLOCK;
                    for lane in (0..BLOCK).step_by(S::LANES) {
                        let mut d = [[s.splat(0.0); N]; N];
                        for (y, d) in d.iter_mut().enumerate() {
                            let Some(y) = (row * M + y).checked_sub(top).filter(|&y| y < high) else {
                                continue;
                            };
                            for (c, d) in d.iter_mut().enumerate() {
                                let place = (column * M + c).wrapping_sub(left);
                                if place < wide {
                                    // SAFETY: the pixel lies in the image.
                                    *d = unsafe { s.load(x.add((y * wide + place) * BLOCK + lane)) };
                                }
                            }
                        }
                        for row in &mut d {
                            *row = F::input(s, *row);
                        }
                        for across in 0..N {
                            let points = F::input(s, column_of(s, &d, across));
                            for (down, &v) in points.iter().enumerate() {
                                let point = down * N + across;
                                // SAFETY: the tiles have room at each point.
                                unsafe { s.store(at.v.add(point * at.pitch[0] + tile + lane), v) };
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Column `c`; in loops, which are compiled with the set's features wherever they are.
#[inline(always)]
pub(super) fn column_of<S: Simd, const R: usize, const C: usize>(
    s: S,
    m: &[[S::F32; C]; R],
    c: usize,
) -> [S::F32; R] {
    let mut column = [s.splat(0.0); R];
    for r in 0..R {
        column[r] = m[r][c];
    }
    column
}

struct Outputs<'a> {
    w: &'a Winograd,
    x: Images,
    image: usize,
    block: usize,
    panel: usize,
    blocks: usize,
    at: Memory,
}

impl<F: Minimal<N, M>, const N: usize, const M: usize> Vectorised for Transform<F, N, M, Outputs<'_>> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Outputs {
            w,
            x,
            image,
            block,
            panel,
            blocks,
            at,
        } = self.0;
        let [high, wide] = [w.shape.window.output[0], w.shape.window.output[1]];
        let post = w.shape.post;
        let end = post.ending().unwrap_or(Ending::NONE);
        let first = panel * width() / BLOCK;
        for b in 0..blocks {
            let place = (image * w.shape.outputs.div_ceil(BLOCK) + first + b) * high * wide * BLOCK;
            for (i, row) in w.blocks[block].clone().enumerate() {
                for column in 0..w.across {
                    let tile = (b * at.tiles + i * w.across + column) * BLOCK;
                    for lane in (0..BLOCK).step_by(S::LANES) {
                        // Products by columns, of which the first transform makes `M` each.
                        let mut half = [[s.splat(0.0); M]; N];
                        for (across, half) in half.iter_mut().enumerate() {
                            let mut m = [s.splat(0.0); N];
                            for (down, m) in m.iter_mut().enumerate() {
                                let point = down * N + across;
                                // SAFETY: the products of this tile are there.
                                *m = unsafe { s.load(at.m.add(point * at.pitch[1] + tile + lane)) };
                            }
                            *half = F::output(s, m);
                        }
                        let mut bias = s.splat(0.0);
                        if !x.bias.is_null() {
                            // SAFETY: there is a bias for each channel.
                            bias = unsafe { s.load(x.bias.add((first + b) * BLOCK + lane)) };
                        }
                        for down in 0..M.min(high - row * M) {
                            let y = F::output(s, column_of(s, &half, down));
                            for (across, &y) in y.iter().enumerate().take(wide - column * M) {
                                let pixel = (row * M + down) * wide + column * M + across;
                                let to = place + pixel * BLOCK + lane;
                                let mut y = s.add(y, bias);
                                // SAFETY: the pixel lies in the image, and in the residual.
                                unsafe {
                                    if !x.residual.is_null() {
                                        y = s.add(y, s.load(x.residual.add(to)));
                                    }
                                    y = end.apply(s, y);
                                    s.store(x.y.add(to), y);
                                }
                            }
                        }
                    }
                }
                let rows = row * M..high.min((row + 1) * M);
                let from = x.y.wrapping_add(place + rows.start * wide * BLOCK);
                // SAFETY: these are rows of this block that have been written.
                unsafe {
                    if post.ending().is_none() {
                        post.apply_rows(from, 0, 1, rows.len() * wide * BLOCK);
                    }
                    if (first + b + 1) * BLOCK > w.shape.outputs {
                        clear_tail(from, rows.len() * wide, w.shape.outputs);
                    }
                }
            }
        }
    }
}
