//! Gradients of the weights of windows of 3 × 3 by fewer multiplications: F(3 × 3, 4 × 4), the adjoint of
//! [`super::super::winograd`]. Both images are taken to the points, and what is summed there comes back once for each slice.

use std::ops::Range;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::super::BLOCK;
use super::super::direct::Spot;
use super::super::filters::matrix;
use super::super::minimal::{A, B, F4, Minimal};
use super::super::tile::width;
use super::super::winograd;
use super::Memory;
use super::slots::{Share, Slots};
use super::sum::{Sum, cut};
use crate::cpu::Pool;
use crate::cpu::conv::{Images, Shape};
use crate::cpu::gemm::balanced;

/// Points of a tile.
const POINTS: usize = 36;
/// Bytes of transformed tiles that are worked on at once, to stay in the second cache.
const BYTES: usize = 640 << 10;
/// Bytes of sums at the points of a task, to stay there too.
const SUMS: usize = 1200 << 10;

/// The gradient by tiles of 4 × 4.
pub(super) struct Winograd {
    /// What takes the image to the points.
    image: winograd::Winograd,
    slots: Slots,
    /// Images that are worked on together.
    together: usize,
    /// The row of each weight of an output.
    from: Vec<usize>,
}

/// A thread's memory.
#[derive(Clone, Copy)]
struct Tiles {
    /// The image at the points, `[point][channels / 16][tile][16]`.
    v: *mut f32,
    /// The gradient of the output at the points, as `v`.
    z: *mut f32,
    /// Sums at the points, `[panel][point][channels][width]`.
    u: *mut f32,
    /// Floats from point to point of `v` and `z`.
    pitch: [usize; 2],
}

/// Floats from point to point: not a power of two apart.
fn pitch(tiles: usize, channels: usize) -> usize {
    (tiles * channels.next_multiple_of(BLOCK)).next_multiple_of(1024) + BLOCK
}

impl Winograd {
    pub(super) fn new(s: &Shape) -> Winograd {
        let panel = POINTS * s.inputs * width() * size_of::<f32>();
        let slots = Slots::new(s, (SUMS / panel.max(1)).max(1));
        let outputs = (slots.most() * width()).min(s.outputs);
        let [down, across] = [0, 1].map(|a| s.window.output[a].div_ceil(4));
        let row = POINTS * across * (s.inputs + outputs).next_multiple_of(BLOCK) * size_of::<f32>();
        let rows = (BYTES / row.max(1)).clamp(1, down.max(1));
        let blocks: Vec<_> = balanced(down, rows).collect();
        let whole = blocks.len() == 1;
        Winograd {
            together: if whole {
                (BYTES / (row * down).max(1)).max(1)
            } else {
                1
            },
            image: winograd::Winograd::inputs(s.clone(), blocks),
            slots,
            from: (0..s.depth()).collect(),
        }
    }

    /// Floats of `v`, `z` and `u`, and from point to point.
    fn floats(&self, s: &Shape) -> ([usize; 3], [usize; 2]) {
        let tiles = self.together * self.image.tiles();
        let outputs = self.slots.most() * width();
        let pitch = [s.inputs, outputs].map(|c| pitch(tiles, c));
        let sums = outputs * POINTS * s.inputs;
        ([POINTS * pitch[0], POINTS * pitch[1], sums], pitch)
    }

    pub(super) fn scratch(&self, s: &Shape, threads: usize) -> usize {
        self.slots.floats() + self.floats(s).0.iter().sum::<usize>() * threads
    }

    /// # Safety
    ///
    /// The memory is of the sizes that the shape and [`scratch`](Winograd::scratch) say.
    pub(super) unsafe fn run(&self, s: &Shape, m: Memory, pool: &Pool) {
        let own = m.scratch.behind(self.slots.floats());
        let ([v, z, u], pitch) = self.floats(s);
        pool.run_with(self.slots.tasks(), &|thread, task| {
            let v_own = own.of(thread, v + z + u);
            let tiles = Tiles {
                v: v_own,
                z: v_own.wrapping_add(v),
                u: v_own.wrapping_add(v + z),
                pitch,
            };
            // SAFETY: each thread has memory of its own, and each task its own partial sums.
            unsafe { self.task(s, m, &self.slots.share(task), tiles) };
        });
        // SAFETY: all partial sums are there.
        unsafe { self.slots.finish(m.scratch, &self.from, m.w, pool) };
    }

    /// # Safety
    ///
    /// As for [`run`](Winograd::run); nobody else uses the tiles.
    unsafe fn task(&self, s: &Shape, m: Memory, share: &Share, t: Tiles) {
        let mut accumulate = false;
        for images in balanced(share.images.len(), self.together) {
            let images = share.images.start + images.start..share.images.start + images.end;
            for block in 0..self.image.blocks().len() {
                let count = images.len() * self.image.blocks()[block].len() * self.image.across();
                // SAFETY: as the caller says; the tiles of these images have room.
                unsafe {
                    self.transform(s, m, (images.clone(), block, count), share, t);
                    self.multiply(s, count, share, t, accumulate);
                }
                accumulate = true;
            }
        }
        for (i, panel) in share.panels.clone().enumerate() {
            dispatch(Back {
                inputs: s.inputs,
                u: t.u.wrapping_add(i * POINTS * s.inputs * width()),
                sums: m.scratch.behind(self.slots.at(share, panel)).start(),
                blocks: (s.outputs - panel * width()).div_ceil(BLOCK).min(width() / BLOCK),
            });
        }
    }

    /// Takes some rows of some images, `count` tiles, to the points.
    ///
    /// # Safety
    ///
    /// As for [`task`](Winograd::task).
    unsafe fn transform(
        &self,
        s: &Shape,
        m: Memory,
        (images, block, count): (Range<usize>, usize, usize),
        share: &Share,
        t: Tiles,
    ) {
        let null = std::ptr::null();
        let given = Images {
            x: m.x,
            w: null,
            bias: null,
            residual: null,
            y: std::ptr::null_mut(),
        };
        let (first, end) = (share.panels.start * width(), share.panels.end * width());
        let outputs = first / BLOCK..end.min(s.outputs).div_ceil(BLOCK);
        let each = count / images.len().max(1);
        for (i, image) in images.enumerate() {
            let at = winograd::Memory {
                v: t.v.wrapping_add(i * each * BLOCK),
                m: std::ptr::null_mut(),
                tiles: count,
                pitch: t.pitch,
            };
            // SAFETY: as the caller says.
            unsafe {
                self.image
                    .transform(given, image, block, 0..s.inputs.div_ceil(BLOCK), at)
            };
            let [high, wide] = [s.window.output[0], s.window.output[1]];
            dispatch(Spread {
                dy: m
                    .dy
                    .wrapping_add(image * s.outputs.div_ceil(BLOCK) * high * wide * BLOCK),
                size: [high, wide],
                outputs: outputs.clone(),
                rows: self.image.blocks()[block].clone(),
                z: t.z.wrapping_add(i * each * BLOCK),
                tiles: count,
                pitch: t.pitch[1],
            });
        }
    }

    /// Sums over `count` tiles at each point.
    ///
    /// # Safety
    ///
    /// As for [`task`](Winograd::task); the tiles are there.
    unsafe fn multiply(&self, s: &Shape, count: usize, share: &Share, t: Tiles, accumulate: bool) {
        let rows: Vec<_> = (0..s.inputs)
            .map(|c| c / BLOCK * count * BLOCK + c % BLOCK)
            .collect();
        let spots = [Spot {
            from: 0,
            at: 0,
            len: count,
        }];
        for point in 0..POINTS {
            for (i, panel) in share.panels.clone().enumerate() {
                let own = (i * POINTS + point) * s.inputs;
                for some in cut(s.inputs) {
                    let sum = Sum {
                        x: t.v.wrapping_add(point * t.pitch[0]),
                        rows: &rows[some.clone()],
                        y: t.z.wrapping_add(point * t.pitch[1] + i * width() * count),
                        y_block: count * BLOCK,
                        blocks: (s.outputs - panel * width()).div_ceil(BLOCK).min(width() / BLOCK),
                        spots: &spots,
                        sums: t.u.wrapping_add((own + some.start) * width()),
                        accumulate,
                    };
                    // SAFETY: the tiles are there, and the sums are this thread's.
                    unsafe { sum.run(false) };
                }
            }
        }
    }
}

/// Takes rows of tiles of blocks of `dy` to the points.
struct Spread {
    dy: *const f32,
    size: [usize; 2],
    outputs: Range<usize>,
    rows: Range<usize>,
    z: *mut f32,
    tiles: usize,
    pitch: usize,
}

impl Vectorised for Spread {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [high, wide] = self.size;
        let across = wide.div_ceil(4);
        for (b, block) in self.outputs.clone().enumerate() {
            let dy = self.dy.wrapping_add(block * high * wide * BLOCK);
            for (i, row) in self.rows.clone().enumerate() {
                for column in 0..across {
                    let tile = (b * self.tiles + i * across + column) * BLOCK;
                    for lane in (0..BLOCK).step_by(S::LANES) {
                        let mut half = [[s.splat(0.0); 6]; 4];
                        for (y, half) in half.iter_mut().enumerate().take(high - row * 4) {
                            let from = ((row * 4 + y) * wide + column * 4) * BLOCK + lane;
                            let mut d = [s.splat(0.0); 4];
                            for (x, d) in d.iter_mut().enumerate().take(wide - column * 4) {
                                // SAFETY: the pixel lies in the image.
                                *d = unsafe { s.load(dy.wrapping_add(from + x * BLOCK)) };
                            }
                            *half = to_points(s, d);
                        }
                        for x in 0..6 {
                            let points = to_points(s, winograd::column_of(s, &half, x));
                            for (y, &z) in points.iter().enumerate() {
                                let at = (y * 6 + x) * self.pitch + tile + lane;
                                // SAFETY: the tiles have room at each point.
                                unsafe { s.store(self.z.wrapping_add(at), z) };
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The transpose of [`F4::output`](Minimal::output).
#[inline(always)]
fn to_points<S: Simd>(s: S, y: [S::F32; 4]) -> [S::F32; 6] {
    let k = |x: f64| s.splat(x as f32);
    let even = s.fma(k(0.5), y[2], y[0]);
    let odd = s.fma(k(A * A * A), y[3], s.mul(k(A), y[1]));
    let even2 = s.fma(k(2.0), y[2], y[0]);
    let odd2 = s.fma(k(B * B * B), y[3], s.mul(k(B), y[1]));
    [
        y[0],
        s.add(even, odd),
        s.sub(even, odd),
        s.add(even2, odd2),
        s.sub(even2, odd2),
        y[3],
    ]
}

/// Takes the sums at the points of a panel back to weights.
struct Back {
    inputs: usize,
    u: *const f32,
    sums: *mut f32,
    blocks: usize,
}

impl Vectorised for Back {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut g = [[s.splat(0.0); 3]; 6];
        for (row, k) in g.iter_mut().zip(matrix(F4::POINTS)) {
            for (x, k) in row.iter_mut().zip(k) {
                *x = s.splat(k as f32);
            }
        }
        let width = width();
        for channel in 0..self.inputs {
            for lane in (0..self.blocks * BLOCK).step_by(S::LANES) {
                let mut half = [[s.splat(0.0); 6]; 3];
                for x in 0..6 {
                    for (y, g) in g.iter().enumerate() {
                        let at = ((y * 6 + x) * self.inputs + channel) * width + lane;
                        // SAFETY: there is a sum at each point.
                        let u = unsafe { s.load(self.u.wrapping_add(at)) };
                        for (half, &g) in half.iter_mut().zip(g) {
                            half[x] = s.fma(g, u, half[x]);
                        }
                    }
                }
                for tap in 0..9 {
                    let mut sum = s.splat(0.0);
                    for (g, &half) in g.iter().zip(&half[tap / 3]) {
                        sum = s.fma(g[tap % 3], half, sum);
                    }
                    let at = (channel * 9 + tap) * width + lane;
                    // SAFETY: there is a row for each weight.
                    unsafe { s.store(self.sums.wrapping_add(at), sum) };
                }
            }
        }
    }
}
