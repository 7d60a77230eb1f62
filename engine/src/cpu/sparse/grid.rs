//! Positions of the output as lanes of vectors, and where each finds what it reads.
//!
//! Under a window of one element the order is that of memory. Otherwise **lane `l` of vector `j` is position `l * vectors + j`** of a
//! plane whose rows have a gap of zeros: the same step from position to position is then a step by whole vectors, so that what
//! lies under each element of the window is read by aligned loads. Steps beyond the first or last vector are copies of
//! others, moved by one lane (the *halo*).
//!
//! A window that moves by more than one pixel reads several such planes (*phases*), each with every so manieth row and column.

use crate::cpu::blocked::BLOCK;
use crate::cpu::window::Window;

/// What stands nowhere: a position of a gap, or beside the image.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Positions, and where they read and write.
#[derive(Clone, Debug)]
pub struct Grid {
    /// Vectors of positions.
    pub(super) vectors: usize,
    /// Vectors of the halo, before and behind.
    pub(super) halo: [usize; 2],
    /// For each plane that is read, the place of each position of the vectors in the input, or [`NOWHERE`].
    pub(super) from: Vec<Vec<u32>>,
    /// The place of each position in the output.
    pub(super) to: Vec<u32>,
    /// For each element of the window, the plane and the step in vectors; none where windows have one element.
    pub(super) taps: Vec<(usize, isize)>,
}

/// How pixels lie in memory: floats from pixel to pixel, and from image to image.
#[derive(Clone, Copy, Debug)]
pub struct Pixels {
    pub(super) step: usize,
    pub(super) image: usize,
}

impl Pixels {
    fn at(&self, image: usize, pixel: usize) -> u32 {
        (image * self.image + pixel * self.step) as u32
    }
}

/// One axis: what of a plane is read, and what is real in it.
struct Axis {
    /// Positions of the output.
    out: usize,
    /// Positions from one line to the same place of the next.
    pitch: usize,
    /// For each element of the window: phase, and steps from the position.
    taps: Vec<(usize, isize)>,
    /// Pixels of the input of each phase that are there and read.
    real: Vec<usize>,
    stride: usize,
}

impl Axis {
    fn new(w: &Window, axis: usize) -> Axis {
        let (out, stride) = (w.output[axis], w.strides[axis]);
        let tap = |t: usize| {
            let a = (t * w.dilations[axis]) as isize - w.pads[axis] as isize;
            (
                a.rem_euclid(stride as isize) as usize,
                a.div_euclid(stride as isize),
            )
        };
        let taps: Vec<_> = (0..w.size[axis]).map(tap).collect();
        let (mut real, mut pitch) = (vec![0; stride], out);
        for &(phase, _) in &taps {
            let steps = taps.iter().filter(|t| t.0 == phase).map(|t| t.1);
            let (least, most) = (steps.clone().min().unwrap_or(0), steps.max().unwrap_or(0));
            let read = (out as isize + most).max(0) as usize;
            let there = w.input[axis].saturating_sub(phase).div_ceil(stride);
            real[phase] = there.min(read);
            pitch = pitch.max(read).max(real[phase] + (-least).max(0) as usize);
        }
        Axis {
            out,
            pitch,
            taps,
            real,
            stride,
        }
    }

    /// The most that is real or written.
    fn used(&self) -> usize {
        self.real.iter().copied().max().unwrap_or(0).max(self.out)
    }
}

impl Grid {
    /// The positions of a window over `images` images, for vectors of `lanes` lanes; `None` where it has more than two axes or
    /// there are too many.
    pub fn new(w: &Window, images: usize, [x, y]: [Pixels; 2], lanes: usize) -> Option<Grid> {
        let furthest = |p: Pixels, plane: usize| images.checked_mul(p.image.max(p.step * plane));
        let fit = furthest(x, w.plane())?.max(furthest(y, w.positions())?) < NOWHERE as usize;
        if w.size.len() > 2 || w.size.is_empty() || !fit || images * w.positions() == 0 {
            return None;
        }
        match w.taps() {
            1 => Some(Grid::single(w, images, [x, y], lanes)),
            _ => Grid::planes(w, images, [x, y], lanes),
        }
    }

    /// As many rows of a matrix.
    pub(super) fn rows(from: impl Iterator<Item = u32>, to: impl Iterator<Item = u32>, lanes: usize) -> Grid {
        let mut all = Grid {
            vectors: 0,
            halo: [0; 2],
            from: vec![from.collect()],
            to: to.collect(),
            taps: vec![],
        };
        all.vectors = all.to.len().div_ceil(lanes);
        all.from[0].resize(all.vectors * lanes, NOWHERE);
        all.to.resize(all.vectors * lanes, NOWHERE);
        all
    }

    /// Windows of one element.
    fn single(w: &Window, images: usize, [x, y]: [Pixels; 2], lanes: usize) -> Grid {
        let each = || (0..images).flat_map(|n| (0..w.positions()).map(move |p| (n, p)));
        let from = each().map(|(n, p)| w.under(p, 0).map_or(NOWHERE, |u| x.at(n, u)));
        Grid::rows(from, each().map(|(n, p)| y.at(n, p)), lanes)
    }

    fn planes(w: &Window, images: usize, [x, y]: [Pixels; 2], lanes: usize) -> Option<Grid> {
        let one = Axis {
            out: 1,
            pitch: 1,
            taps: vec![(0, 0)],
            real: vec![1],
            stride: 1,
        };
        let mut axes = (0..w.size.len())
            .map(|axis| Axis::new(w, axis))
            .collect::<Vec<_>>();
        if axes.len() == 1 {
            axes.insert(0, one);
        }
        let [rows, cols] = <[Axis; 2]>::try_from(axes).ok()?;
        let across = w.input.last().copied()?;
        // Where each image begins, and behind the last pixel that is read or written.
        let image = rows.pitch * cols.pitch;
        let len = (images - 1) * image + (rows.used() - 1) * cols.pitch + cols.used();
        let vectors = len.div_ceil(lanes);
        let mut phases: Vec<(usize, usize)> = vec![];
        let mut taps = vec![];
        for r in &rows.taps {
            for c in &cols.taps {
                let phase = (r.0, c.0);
                let at = phases.iter().position(|p| *p == phase).unwrap_or_else(|| {
                    phases.push(phase);
                    phases.len() - 1
                });
                taps.push((at, r.1 * cols.pitch as isize + c.1));
            }
        }
        let place = |at: usize| {
            let p = at % lanes * vectors + at / lanes;
            (p / image, p % image / cols.pitch, p % cols.pitch)
        };
        let lines = |real: &dyn Fn(usize, usize, usize) -> Option<u32>| {
            let all = (0..vectors * lanes).map(place);
            all.map(|(n, r, c)| if n < images { real(n, r, c) } else { None }.unwrap_or(NOWHERE))
                .collect::<Vec<_>>()
        };
        let from = phases.iter().map(|&(pr, pc)| {
            lines(&|n, r, c| {
                let there = r < rows.real[pr] && c < cols.real[pc];
                let pixel = (r * rows.stride + pr) * across + c * cols.stride + pc;
                there.then(|| x.at(n, pixel))
            })
        });
        let from = from.collect();
        let to = lines(&|n, r, c| (r < rows.out && c < cols.out).then(|| y.at(n, r * cols.out + c)));
        let least = taps.iter().map(|t| t.1).min()?.min(0);
        let most = taps.iter().map(|t| t.1).max()?.max(0);
        Some(Grid {
            vectors,
            halo: [-least as usize, most as usize],
            from,
            to,
            taps,
        })
    }

    /// The share of lanes that hold a position of the output.
    pub fn filled(&self) -> f64 {
        let live = self.to.iter().filter(|&&at| at != NOWHERE).count();
        live as f64 / self.to.len().max(1) as f64
    }

    /// Vectors of a plane, halo included; odd, so that planes do not meet in the same places of a cache.
    pub(super) fn pitch(&self) -> usize {
        (self.halo[0] + self.vectors + self.halo[1]) | 1
    }

    /// Where positions that follow each other in memory begin and how many they are, of the vectors `strip`; each `step`
    /// floats behind the one before.
    pub(super) fn runs(&self, strip: std::ops::Range<usize>, step: usize, lanes: usize) -> Vec<(u32, u32)> {
        let mut all: Vec<(u32, u32)> = vec![];
        let single = self.taps.is_empty();
        let (outer, inner) = if single {
            (strip.len(), lanes)
        } else {
            (lanes, strip.len())
        };
        for at in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
            let (vector, lane) = if single { at } else { (at.1, at.0) };
            let to = self.to[(strip.start + vector) * lanes + lane];
            match all.last_mut() {
                _ if to == NOWHERE => {}
                Some((start, len)) if *start as usize + *len as usize * step == to as usize => *len += 1,
                _ => all.push((to, 1)),
            }
        }
        all
    }
}

/// Pixels of images in blocks of channels.
pub(super) fn in_blocks(channels: usize, plane: usize) -> Pixels {
    Pixels {
        step: BLOCK,
        image: channels.next_multiple_of(BLOCK) * plane,
    }
}

/// Pixels of images whose channels are planes.
pub(super) fn row_by_row(channels: usize, plane: usize) -> Pixels {
    Pixels {
        step: 1,
        image: channels * plane,
    }
}
