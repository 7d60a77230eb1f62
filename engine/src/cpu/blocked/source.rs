//! Where a convolution finds its pixels: in the image, or in a copy in which every element of the window lies at a fixed
//! distance from its pixel of the output.

use std::ops::Range;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::BLOCK;
use super::direct::{Spot, tiles};
use crate::cpu::conv::Shape;
use crate::cpu::gemm::balanced;
use crate::cpu::window::Window;

/// Rows of the output shorter than this are put together to tiles.
const SHORT: usize = 8;
/// Floats of the largest copy: 256 MiB.
const MOST: usize = 1 << 26;

/// Pixels of the output that are computed together.
pub(super) struct Block {
    /// The first pixel, or row of pixels.
    pub(super) first: usize,
    /// Pixels, or rows.
    len: usize,
    /// The tiles.
    pub(super) spots: Vec<Spot>,
}

enum Kind {
    /// The image, as it is.
    Image,
    /// Rows with their border, columns that are whole strides apart side by side.
    Rows(Rows),
    /// The pixels under each element of the window, row by row of the output.
    Taps(usize),
}

/// Sizes of copied rows, in pixels.
#[derive(Clone, Copy)]
struct Rows {
    /// Columns of the output and what the window needs beyond.
    columns: usize,
    /// Sets of columns.
    phases: usize,
    /// Rows, of the largest block.
    rows: usize,
}

/// The pixels of a convolution.
pub(super) struct Source {
    window: Window,
    kind: Kind,
    /// Floats of a pixel: those of a block, or one.
    unit: usize,
    /// Channels or blocks of channels.
    channels: usize,
    pub(super) blocks: Vec<Block>,
    /// Where each channel or block of channels under each element of the window begins.
    pub(super) offsets: Vec<usize>,
}

/// Sizes, strides, dilations and pads over two axes.
struct Axes {
    size: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    pad: [usize; 2],
    input: [usize; 2],
    output: [usize; 2],
}

impl Axes {
    fn new(w: &Window) -> Axes {
        let two = |v: &[usize], one: usize| match v {
            [a, b] => [*a, *b],
            [a] => [one, *a],
            _ => [one; 2],
        };
        Axes {
            size: two(&w.size, 1),
            stride: two(&w.strides, 1),
            dilation: two(&w.dilations, 1),
            pad: two(&w.pads, 0),
            input: two(&w.input, 1),
            output: two(&w.output, 1),
        }
    }

    /// Steps from the first to the last element of the window.
    fn reach(&self, axis: usize) -> usize {
        (self.size[axis].max(1) - 1) * self.dilation[axis]
    }

    /// Rows of the input that `rows` rows of the output need.
    fn rows(&self, rows: usize) -> usize {
        (rows.max(1) - 1) * self.stride[0] + self.reach(0) + 1
    }
}

impl Source {
    /// Whether copies are of bearable size.
    pub(super) fn fits(shape: &Shape) -> bool {
        let a = Axes::new(&shape.window);
        let each = [
            a.output[1] + a.reach(1),
            a.rows(a.output[0]).min(a.reach(0) + 64 * a.stride[0]),
            a.stride[1],
            shape.inputs + BLOCK,
        ];
        let all = each.iter().try_fold(1usize, |n, &x| n.checked_mul(x));
        let taps = shape
            .depth()
            .saturating_mul(SHORT)
            .saturating_mul(shape.window.positions().min(1 << 12));
        all.is_some_and(|n| n <= MOST) && taps <= MOST
    }

    /// For tiles of at most `bytes` bytes of pixels, in at least about `wanted` blocks; no tile goes beyond a multiple of `line`
    /// pixels of the output.
    pub(super) fn new(shape: &Shape, bytes: usize, wanted: usize, line: usize) -> Source {
        let single = shape.inputs < BLOCK;
        let unit = if single { 1 } else { BLOCK };
        let channels = shape.inputs.div_ceil(unit);
        let mut window = shape.window.clone();
        if window.is_identity() && !single {
            window = window.flat();
        }
        let a = Axes::new(&window);
        let mut source = Source {
            kind: Kind::Image,
            unit,
            channels,
            blocks: vec![],
            offsets: vec![],
            window,
        };
        let floats = bytes / size_of::<f32>();
        if source.window.is_identity() && !single {
            source.image(floats, wanted, line);
        } else if a.output[1] >= SHORT || single {
            source.rows(&a, floats, wanted);
        } else {
            source.taps(floats, wanted, line);
        }
        source
    }

    fn image(&mut self, floats: usize, wanted: usize, line: usize) {
        let pixels = self.window.plane();
        self.offsets = (0..self.channels).map(|c| c * pixels * BLOCK).collect();
        let fit = floats / (self.channels * BLOCK).max(1);
        self.cut(pixels, fit, wanted.min(pixels / 28), |r| in_lines(r, line));
    }

    fn rows(&mut self, a: &Axes, floats: usize, wanted: usize) {
        let rows = Rows {
            columns: a.output[1] + a.reach(1) / a.stride[1],
            phases: a.stride[1].min(a.reach(1) + 1),
            rows: 0,
        };
        let pitch = rows.columns * rows.phases * self.unit;
        let fit = floats / (pitch * self.channels).max(1);
        let fit = (fit.saturating_sub(a.reach(0) + 1) / a.stride[0] + 1).max(1);
        // What neighbours both copy should stay small.
        let wanted = wanted.min(a.output[0] / (2 * a.size[0]).max(4));
        let step = a.stride[0] * pitch;
        let (across, unit) = (a.output[1], self.unit);
        let spots = |r: Range<usize>| {
            let tile = move |row: usize, first: usize| {
                tiles(across).map(move |t| Spot {
                    from: row * step + t.start * unit,
                    at: (first + row) * across + t.start,
                    len: t.len(),
                })
            };
            (0..r.len()).flat_map(|row| tile(row, r.start)).collect()
        };
        self.cut(a.output[0], fit, wanted, spots);
        let most = self.blocks.iter().map(|b| b.len).max().unwrap_or(0);
        let rows = Rows {
            rows: a.rows(most),
            ..rows
        };
        let tap = |tap: usize| {
            let (y, x) = (tap / a.size[1] * a.dilation[0], tap % a.size[1] * a.dilation[1]);
            y * pitch + (x % a.stride[1] * rows.columns + x / a.stride[1]) * unit
        };
        let taps = a.size[0] * a.size[1];
        let channel = |c: usize| (0..taps).map(move |t| c * rows.rows * pitch + tap(t));
        self.offsets = (0..self.channels).flat_map(channel).collect();
        self.kind = Kind::Rows(rows);
    }

    fn taps(&mut self, floats: usize, wanted: usize, line: usize) {
        let (pixels, taps) = (self.window.positions(), self.window.taps());
        let fit = floats / (self.channels * taps * BLOCK).max(1);
        self.cut(pixels, fit.max(56), wanted.min(pixels / 28), |r| {
            in_lines(r, line)
        });
        let most = self.blocks.iter().map(|b| b.len).max().unwrap_or(0);
        self.offsets = (0..self.channels * taps).map(|u| u * most * BLOCK).collect();
        self.kind = Kind::Taps(most);
    }

    /// Cuts `len` pixels or rows into blocks of at most `fit`, about `wanted` of them or more.
    fn cut(&mut self, len: usize, fit: usize, wanted: usize, spots: impl Fn(Range<usize>) -> Vec<Spot>) {
        let each = fit.min(len.div_ceil(wanted.max(1))).max(1);
        let block = |r: Range<usize>| Block {
            first: r.start,
            len: r.len(),
            spots: spots(r),
        };
        self.blocks = balanced(len, each).map(block).collect();
    }

    /// Floats of the copy of a block; 0 where the image is read as it is.
    pub(super) fn floats(&self) -> usize {
        let floats = match self.kind {
            Kind::Image => 0,
            Kind::Rows(r) => self.channels * r.rows * r.phases * r.columns * self.unit,
            Kind::Taps(most) => self.channels * self.window.taps() * most * BLOCK,
        };
        floats.next_multiple_of(BLOCK)
    }

    /// What [`fill`](Source::fill) may be asked for: channels, or blocks of them.
    pub(super) fn all(&self) -> Range<usize> {
        0..self.channels
    }

    /// Copies some of the channels of a block to `to`.
    ///
    /// # Safety
    ///
    /// `x` has all channels of the window's input, `to` as many [`floats`](Source::floats).
    pub(super) unsafe fn fill(&self, x: *const f32, block: usize, channels: Range<usize>, to: *mut f32) {
        if !matches!(self.kind, Kind::Image) {
            dispatch(Fill {
                source: self,
                x,
                block: &self.blocks[block],
                channels,
                to,
            });
        }
    }
}

/// Tiles of pixels that stand one behind the other, in lines of `line`.
fn in_lines(pixels: Range<usize>, line: usize) -> Vec<Spot> {
    let mut spots = vec![];
    let mut at = pixels.start;
    while at < pixels.end {
        let end = pixels.end.min((at / line + 1).saturating_mul(line));
        spots.extend(tiles(end - at).map(|t| Spot {
            from: (at - pixels.start + t.start) * BLOCK,
            at: at + t.start,
            len: t.len(),
        }));
        at = end;
    }
    spots
}

struct Fill<'a> {
    source: &'a Source,
    x: *const f32,
    block: &'a Block,
    channels: Range<usize>,
    to: *mut f32,
}

impl Vectorised for Fill<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let a = Axes::new(&self.source.window);
        for channel in self.channels.clone() {
            let x = self
                .x
                .wrapping_add(channel * a.input[0] * a.input[1] * self.source.unit);
            // SAFETY: `fill` is promised the image and the room for the copy.
            unsafe {
                match self.source.kind {
                    Kind::Image => {}
                    Kind::Rows(r) => self.rows(s, &a, r, x, channel),
                    Kind::Taps(most) => self.taps(s, &a, most, x, channel),
                }
            }
        }
    }
}

impl Fill<'_> {
    #[inline(always)]
    unsafe fn rows<S: Simd>(&self, s: S, a: &Axes, r: Rows, x: *const f32, channel: usize) {
        let unit = self.source.unit;
        let top = self.block.first * a.stride[0];
        for row in 0..a.rows(self.block.len) {
            let to = self
                .to
                .wrapping_add((channel * r.rows + row) * r.phases * r.columns * unit);
            let place = (top + row).checked_sub(a.pad[0]).filter(|&p| p < a.input[0]);
            let Some(place) = place else {
                // SAFETY: the copy has this row.
                unsafe { zero(s, to, r.phases * r.columns * unit) };
                continue;
            };
            let from = x.wrapping_add(place * a.input[1] * unit);
            for phase in 0..r.phases {
                let to = to.wrapping_add(phase * r.columns * unit);
                // Column `j` is `j * stride + phase - pad` of the image.
                let before = a.pad[1]
                    .saturating_sub(phase)
                    .div_ceil(a.stride[1])
                    .min(r.columns);
                let first = before * a.stride[1] + phase - a.pad[1].min(before * a.stride[1] + phase);
                let inside = a.input[1]
                    .saturating_sub(first)
                    .div_ceil(a.stride[1])
                    .min(r.columns - before);
                // SAFETY: the copy has these columns, and so has the image.
                unsafe {
                    zero(s, to, before * unit);
                    let (from, at) = (from.wrapping_add(first * unit), to.wrapping_add(before * unit));
                    copy(s, from, a.stride[1], at, inside, unit);
                    zero(
                        s,
                        at.wrapping_add(inside * unit),
                        (r.columns - before - inside) * unit,
                    );
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn taps<S: Simd>(&self, s: S, a: &Axes, most: usize, x: *const f32, channel: usize) {
        let taps = a.size[0] * a.size[1];
        for tap in 0..taps {
            let to = self.to.wrapping_add((channel * taps + tap) * most * BLOCK);
            for pixel in 0..self.block.len {
                let at = self.block.first + pixel;
                let under = |axis: usize, at: usize, tap: usize| {
                    let place = at * a.stride[axis] + tap * a.dilation[axis];
                    place.checked_sub(a.pad[axis]).filter(|&p| p < a.input[axis])
                };
                let y = under(0, at / a.output[1], tap / a.size[1]);
                let place = y.zip(under(1, at % a.output[1], tap % a.size[1]));
                let to = to.wrapping_add(pixel * BLOCK);
                // SAFETY: the copy has this pixel, and so has the image.
                unsafe {
                    match place {
                        Some((y, column)) => {
                            copy(
                                s,
                                x.wrapping_add((y * a.input[1] + column) * BLOCK),
                                1,
                                to,
                                1,
                                BLOCK,
                            );
                        }
                        None => zero(s, to, BLOCK),
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn zero<S: Simd>(s: S, to: *mut f32, floats: usize) {
    let whole = floats / S::LANES * S::LANES;
    // SAFETY: the caller says that there are as many floats.
    unsafe {
        for i in (0..whole).step_by(S::LANES) {
            s.store(to.add(i), s.splat(0.0));
        }
        s.store_first(to.add(whole), floats - whole, s.splat(0.0));
    }
}

/// Copies `len` pixels of `unit` floats that are `stride` apart.
#[inline(always)]
unsafe fn copy<S: Simd>(s: S, from: *const f32, stride: usize, to: *mut f32, len: usize, unit: usize) {
    // SAFETY: the caller says that they are there.
    unsafe {
        if unit == 1 && stride != 1 {
            (0..len).for_each(|i| *to.add(i) = *from.add(i * stride));
            return;
        }
        let (pieces, run) = if stride == 1 { (1, len * unit) } else { (len, unit) };
        for piece in 0..pieces {
            let (from, to) = (from.add(piece * stride * unit), to.add(piece * unit));
            let whole = run / S::LANES * S::LANES;
            for i in (0..whole).step_by(S::LANES) {
                s.store(to.add(i), s.load(from.add(i)));
            }
            if whole < run {
                s.store_first(
                    to.add(whole),
                    run - whole,
                    s.load_first(from.add(whole), run - whole),
                );
            }
        }
    }
}
