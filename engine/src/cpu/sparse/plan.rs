//! How a product with sparse weights is computed: layout, parts, tasks, and what it costs.

use std::ops::Range;

use super::code::{Cut, Kind};
use super::grid::{self, Frame, Grid, NOWHERE, Pixels};
use super::lay::lanes;
use super::tile;
use super::zeros::{Matrix, Zeros};
use crate::cpu::blocked::{BLOCK, Spread};
use crate::cpu::conv::Shape;
use crate::cpu::gemm::balanced;
use crate::cpu::window::Window;
use crate::cpu::{Cost, Post};

/// Bytes of what lies under a part of the weights, which stay in the nearest cache.
const NEAR: usize = 36 << 10;
/// Most rows of a block: their sums stay in the second cache.
const ROWS: usize = 512;
/// Bytes of weights that every thread may read; of more, each reads its own part.
const SHARED: usize = 512 << 10;
/// Bytes of what is read that every thread may keep.
const KEPT: usize = 1 << 20;
/// The share of weights that are there below which strips are half as wide.
const NARROW: f64 = 0.25;

/// The share of zeros from which on sparse kernels are offered.
const WORTH: f64 = 0.1;

/// How channels lie in memory: floats from image to image, group to group, block to block, and channel to channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    pub(super) image: usize,
    pub(super) group: usize,
    pub(super) block: usize,
    pub(super) channel: usize,
}

/// Where what is read is brought to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Near {
    /// Planes, to memory that all threads share, before anything else.
    Shared,
    /// To memory of each thread, by itself, when it needs it: so many strips, or all planes.
    Own(usize),
}

/// Where positions read and write.
#[derive(Clone, Debug)]
enum Places {
    Window(Box<Window>, Box<[Pixels; 2]>),
    Rows([Vec<u32>; 2]),
}

/// How a product is computed, which follows from shapes and the number of weights.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) cut: Cut,
    pub(super) frame: Frame,
    places: Places,
    pub(super) post: Post,
    pub(super) x: Side,
    pub(super) y: Side,
    /// All images; the frame has those that are taken at once.
    pub(super) images: usize,
    /// Whether whole blocks of channels are written.
    pub(super) whole: bool,
    pub(super) strips: Vec<Range<usize>>,
    /// The slot of zeros with which each part begins, and behind the last.
    pub(super) slots: Vec<usize>,
    pub(super) near: Near,
    /// Whether the strips of a block of rows follow each other, so that each thread reads weights of its own.
    pub(super) by_rows: bool,
    zeros: Zeros,
    forms: Forms,
}

/// What is to be said of a kernel that leaves out zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct Sparsity {
    /// The zeros of its weights.
    pub zeros: Zeros,
    /// What it would cost if 0, 1, 2 … 100 % of the weights were zeros, in blocks where they are in blocks now.
    pub costs: Vec<Cost>,
}

impl Sparsity {
    /// Whether there are so many zeros that the kernel may be chosen.
    pub fn is_worth(&self) -> bool {
        self.zeros.share() > WORTH
    }

    /// The shares at which it may be chosen, and what it would cost there.
    pub fn offers(&self) -> impl Iterator<Item = (f64, &Cost)> {
        let all = self.costs.iter().enumerate();
        all.map(|(percent, cost)| (percent as f64 / 100.0, cost))
            .filter(|(share, _)| *share > WORTH)
    }
}

/// Rows of a matrix as positions: where each is read and written, and the zeros of the weights.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The first float of each row of the input.
    pub from: Vec<u32>,
    /// The first float of each row of the output.
    pub to: Vec<u32>,
    /// The weights.
    pub matrix: Matrix,
    /// Their zeros.
    pub zeros: Zeros,
    /// What is applied in the end.
    pub post: Post,
}

impl Plan {
    /// A convolution of images in blocks of channels; of few input channels, of images row by row. `None` where it does not
    /// fit: over more than two axes, or in groups that are not of whole blocks. The output may be spread over a larger one.
    pub(crate) fn conv(shape: &Shape, zeros: &Zeros, spread: Option<Spread>) -> Option<Plan> {
        let (w, whole) = (&shape.window, |n: usize| n.is_multiple_of(BLOCK));
        if shape.groups > 1 && !(whole(shape.inputs) && whole(shape.outputs)) {
            return None;
        }
        let (inputs, outputs) = (shape.inputs * shape.groups, shape.outputs * shape.groups);
        let plane = spread.map_or(w.positions(), |s| s.plane);
        let y = Pixels {
            spread,
            ..grid::in_blocks(outputs, plane)
        };
        let (x, channel) = match Plan::reads_rows(shape) {
            false => (grid::in_blocks(inputs, w.plane()), 1),
            true => (grid::row_by_row(inputs, w.plane()), w.plane()),
        };
        let images = together(w, shape.images, lanes())?;
        if !x.fit(images, w.plane()) || !y.fit(images, plane) {
            return None;
        }
        let side = |channels: usize, plane: usize, image, channel| Side {
            image,
            group: channels * plane,
            block: BLOCK * plane,
            channel,
        };
        let matrix = Matrix::rows(shape.outputs, shape.depth());
        let frame = Frame::new(w, images, lanes())?;
        let places = Places::Window(w.clone().into(), [x, y].into());
        let plan = Plan::new(
            (frame, places),
            (matrix, shape.groups),
            w.taps(),
            zeros,
            shape.post,
        )?;
        Some(Plan {
            x: side(shape.inputs, w.plane(), x.image, channel),
            y: side(shape.outputs, plane, y.image, 1),
            images: shape.images,
            whole: true,
            ..plan
        })
    }

    /// Whether a convolution reads images row by row.
    pub fn reads_rows(shape: &Shape) -> bool {
        shape.inputs < BLOCK
    }

    /// A product of rows of a matrix.
    pub fn rows(rows: Rows) -> Option<Plan> {
        let frame = Frame::rows(rows.to.len(), lanes());
        let places = Places::Rows([rows.from, rows.to]);
        Plan::new((frame, places), (rows.matrix, 1), 1, &rows.zeros, rows.post)
    }

    fn new(
        (frame, places): (Frame, Places),
        (matrix, groups): (Matrix, usize),
        taps: usize,
        zeros: &Zeros,
        post: Post,
    ) -> Option<Plan> {
        if frame.vectors == 0 || groups * matrix.rows * matrix.cols == 0 {
            return None;
        }
        let (channels, frame_images) = (matrix.cols / taps, frame.images);
        let forms = Forms::new(&frame, channels)?;
        let form = forms.of(zeros);
        let strips = strips(frame.vectors, form.wide);
        let (slots, parts, places_of) = cut(&frame, (channels, taps), form.channels)?;
        let all = frame.vectors * lanes() * matrix.cols * size_of::<f32>();
        let (near, by_rows) = match (frame.single(), strips.len()) {
            (false, ..3) => (Near::Own(1), true),
            (false, _) => (Near::Shared, false),
            (true, count) if 6 * zeros.live > SHARED && all < KEPT => (Near::Own(count), true),
            (true, _) => (Near::Own(1), false),
        };
        let blocks = matrix.rows.div_ceil(ROWS).max((matrix.rows / 128).clamp(1, 4));
        let side = Side {
            image: 0,
            group: 0,
            block: BLOCK,
            channel: 1,
        };
        Some(Plan {
            cut: Cut {
                kind: form.kind,
                groups,
                matrix,
                block: matrix.rows.div_ceil(blocks).next_multiple_of(BLOCK),
                parts,
                places: places_of,
            },
            frame,
            places,
            post,
            x: side,
            y: side,
            images: frame_images,
            whole: false,
            strips,
            slots,
            near,
            by_rows,
            zeros: *zeros,
            forms,
        })
    }

    /// How the weights are to be encoded.
    pub fn cut(&self) -> &Cut {
        &self.cut
    }

    /// What it costs.
    pub fn cost(&self) -> Cost {
        self.cost_of(&self.zeros)
    }

    /// What is to be said of its zeros.
    pub fn sparsity(&self) -> Sparsity {
        Sparsity {
            zeros: self.zeros,
            costs: (0..=100)
                .map(|share| self.cost_of(&self.with(f64::from(share) / 100.0)))
                .collect(),
        }
    }

    /// Such a share of zeros, in blocks where they are in blocks now.
    fn with(&self, share: f64) -> Zeros {
        let m = &self.cut.matrix;
        let all = self.cut.groups * m.rows.div_ceil(4) * m.cols;
        let quads = if self.cut.kind == Kind::Quads {
            all as f64 * (1.0 - share)
        } else {
            all as f64
        };
        Zeros {
            live: (self.zeros.len as f64 * (1.0 - share)) as usize,
            quads: quads as usize,
            ..self.zeros
        }
    }

    fn cost_of(&self, zeros: &Zeros) -> Cost {
        let (m, frame, form) = (&self.cut.matrix, &self.frame, self.forms.of(zeros));
        let (rows, groups) = (m.rows as f64, self.cut.groups as f64);
        let channels = m.cols as f64 / frame.taps.len().max(1) as f64;
        let width = frame.vectors as f64 / strips(frame.vectors, form.wide).len() as f64;
        // Heads, and the transposition of what is read and written.
        let halo = (frame.halo[0] + frame.halo[1]) as f64 / 2.0 / frame.vectors as f64;
        let planes = frame.planes() as f64 * (1.0 + halo);
        let parts = (channels / form.channels as f64).ceil();
        let head = 2.1 + 8.6 / width;
        // Planes are gathered, written and read again.
        let (turn, moves) = if frame.single() { (4.5, 1.0) } else { (7.0, 3.0) };
        let beside = groups * (head * rows * parts + turn * channels * planes + 4.5 * rows);
        let times = self.images as f64 / self.frame.images as f64;
        let elements = times * (frame.vectors * lanes()) as f64;
        let all = elements * groups;
        let moved = 4.0 * all * (moves * channels * planes + rows);
        let cycles = elements / 16.0 * (cycles(form.kind, zeros, width) + beside)
            + FAR * (moved - NEAR_BYTES).max(0.0);
        Cost {
            flops: PER_CYCLE * cycles + self.post.flops() * all * rows,
            bytes: moved.min(NEAR_BYTES) + 1.3 * 6.5 * zeros.live as f64,
            efficiency: 0.9,
        }
    }

    /// Where positions read and write, of so many images.
    pub(super) fn grid(&self, images: usize) -> Grid {
        match &self.places {
            Places::Window(w, pixels) => self.frame.grid(w, **pixels, images, lanes()),
            Places::Rows([from, to]) => self
                .frame
                .grid_of(from.iter().copied(), to.iter().copied(), lanes()),
        }
    }

    /// The places of an addend for each position, from that of each position of a matrix in order.
    pub fn places(&self, mut each: Vec<u32>) -> Vec<u32> {
        each.resize(self.frame.vectors * lanes(), NOWHERE);
        each
    }
}

/// How rows share loads, the widest strip, and the channels of a part.
#[derive(Clone, Copy, Debug)]
struct Form {
    kind: Kind,
    wide: usize,
    channels: usize,
}

/// The forms that there are: pairs of rows, pairs in narrow strips, rows by fours.
#[derive(Clone, Copy, Debug)]
struct Forms([Form; 3]);

impl Forms {
    /// `None` where a part would have more places than can be told apart.
    fn new(frame: &Frame, channels: usize) -> Option<Forms> {
        let form = |kind: Kind, narrow: bool| {
            let most = tile::widest(kind);
            let wide = if narrow { most.div_ceil(2) } else { most };
            Some(Form {
                kind,
                wide,
                channels: part(frame, channels, wide)?,
            })
        };
        Some(Forms([
            form(Kind::Pairs, false)?,
            form(Kind::Pairs, frame.single())?,
            form(Kind::Quads, false)?,
        ]))
    }

    /// The form for weights with such zeros. Nothing of how sums are made may depend on the number of positions, that is, on the
    /// batch.
    fn of(&self, zeros: &Zeros) -> Form {
        let [pairs, narrow, quads] = self.0;
        match (
            cycles(Kind::Quads, zeros, 8.0) < cycles(Kind::Pairs, zeros, 8.0),
            zeros.density() < NARROW,
        ) {
            (true, _) => quads,
            (false, true) => narrow,
            (false, false) => pairs,
        }
    }
}

/// Cycles that the weights take for a vector of positions, in strips of so many. Two loads are done in a cycle, and two
/// multiplications.
fn cycles(kind: Kind, zeros: &Zeros, width: f64) -> f64 {
    match kind {
        Kind::Quads => zeros.quads as f64 * f64::max(2.1, 4.0 / width),
        Kind::Pairs => {
            let shared = share_of_pairs(zeros.density());
            let (both, single) = (0.5 + 0.3 / width, 0.5 + 0.75 / width);
            zeros.live as f64 * (both * shared + single * (1.0 - shared))
        }
    }
}

/// How many of the weights of rows matched two by two stand in the same columns: interpolated from what matching finds in
/// random patterns.
fn share_of_pairs(density: f64) -> f64 {
    const FOUND: [(f64, f64); 8] = [
        (0.0, 0.22),
        (0.05, 0.24),
        (0.1, 0.27),
        (0.2, 0.34),
        (0.3, 0.42),
        (0.4, 0.5),
        (0.5, 0.59),
        (1.0, 1.0),
    ];
    let above = FOUND
        .iter()
        .position(|f| f.0 >= density)
        .unwrap_or(FOUND.len() - 1)
        .max(1);
    let ((x0, y0), (x1, y1)) = (FOUND[above - 1], FOUND[above]);
    y0 + (y1 - y0) * (density - x0) / (x1 - x0)
}

/// Floating-point operations in a cycle, by which cycles are turned into operations.
const PER_CYCLE: f64 = 64.0;

/// Cycles for a byte of what is read and written beyond what stays in the second cache: nothing is computed meanwhile.
const FAR: f64 = 0.09;
const NEAR_BYTES: f64 = 524_288.0;

/// Vectors of planes of several images that are taken at once, to stay in the second cache.
const TOGETHER: usize = 256;

/// How many images are taken at once.
fn together(w: &Window, images: usize, lanes: usize) -> Option<usize> {
    let fits = |n: usize| Some(Frame::new(w, n, lanes)?.vectors <= TOGETHER);
    if w.taps() == 1 {
        return (images > 0).then_some(images);
    }
    let mut all = 1;
    while 2 * all <= images && fits(2 * all)? {
        all *= 2;
    }
    Some(all)
}

/// Strips of at most `most` vectors; where there are several, an even number of them, for two threads.
fn strips(vectors: usize, most: usize) -> Vec<Range<usize>> {
    let count = vectors.div_ceil(most);
    let count = if count > 1 { count.next_multiple_of(2) } else { 1 };
    balanced(vectors, vectors.div_ceil(count)).collect()
}

/// Slots with which parts begin, ranges of columns, and the place of each column in its part.
type Parts = (Vec<usize>, Vec<Range<usize>>, Vec<u16>);

/// The channels of a part whose places fit the nearest cache; `None` where it would have more places than can be told apart.
fn part(frame: &Frame, channels: usize, wide: usize) -> Option<usize> {
    let (phases, pitch) = planes(frame);
    // Vectors that a strip reads of one channel.
    let mut read: Vec<(usize, isize)> = frame
        .taps
        .iter()
        .flat_map(|&(p, s)| (0..wide as isize).map(move |v| (p, s + v)))
        .collect();
    read.sort_unstable();
    read.dedup();
    let bytes = read.len().max(wide) * lanes() * size_of::<f32>();
    // As for the most vectors that are taken at once.
    let most = pitch.max(TOGETHER + frame.halo[0] + frame.halo[1] + 1);
    let most = if frame.single() { 1 } else { most };
    let room = (u16::MAX as usize / most).checked_sub(2)? / phases;
    let most = (NEAR / bytes).clamp(1, room.max(1));
    let most = if most > BLOCK { most / BLOCK * BLOCK } else { most };
    (room > 0).then_some(most.min(channels.max(1)))
}

/// Planes of a channel, and vectors from one to the next.
fn planes(frame: &Frame) -> (usize, usize) {
    match frame.single() {
        true => (1, 1),
        false => (frame.planes(), frame.pitch()),
    }
}

/// Cuts columns into parts of `most` channels.
fn cut(frame: &Frame, (channels, taps): (usize, usize), most: usize) -> Option<Parts> {
    let (phases, pitch) = planes(frame);
    let (mut slots, mut parts, mut places) = (vec![0], vec![], vec![]);
    for first in (0..channels).step_by(most) {
        let count = most.min(channels - first);
        parts.push(first * taps..(first + count) * taps);
        for channel in 0..count {
            let slot = |phase: usize| (1 + channel * phases + phase) * pitch;
            match frame.single() {
                true => places.push(slot(0) as u16),
                false => places.extend(frame.taps.iter().map(|&(p, s)| (slot(p) as isize + s) as u16)),
            }
        }
        slots.push(slots.last()? + 1 + count * phases);
    }
    Some((slots, parts, places))
}
