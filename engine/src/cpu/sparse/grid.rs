//! Positions of the output as lanes of vectors, and where each finds what it reads.
//!
//! Under a window of one element the order is that of memory. Otherwise **lane `l` of vector `j` is position `l * vectors + j`** of a
//! plane whose rows have a gap of zeros: the same step from position to position is then a step by whole vectors, so that what
//! lies under each element of the window is read by aligned loads. Steps beyond the first or last vector are copies of
//! others, moved by one lane (the *halo*).
//!
//! A window that moves by more than one pixel reads several such planes (*phases*), each with every so manieth row and column.

use std::ops::Range;

use crate::cpu::blocked::{BLOCK, Spread};
use crate::cpu::window::Window;

/// What stands nowhere: a position of a gap, or beside the image.
pub(super) const NOWHERE: u32 = u32::MAX;

/// How positions are laid out in vectors.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Vectors of positions.
    pub(super) vectors: usize,
    /// Vectors of the halo, before and behind.
    pub(super) halo: [usize; 2],
    /// For each element of the window, the plane and the step in vectors; none where positions are those of memory.
    pub(super) taps: Vec<(usize, isize)>,
    /// The planes: a phase of rows and of columns each.
    phases: Vec<(usize, usize)>,
    /// Rows and columns, where there are planes.
    axes: Option<[Axis; 2]>,
    pub(super) images: usize,
}

/// Where positions read and write.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    /// For each plane that is read, the place of each position of the vectors in the input, or [`NOWHERE`].
    pub(super) from: Vec<Vec<u32>>,
    /// The place of each position in the output.
    pub(super) to: Vec<u32>,
}

/// How pixels lie in memory: floats from pixel to pixel, and from image to image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pixels {
    pub(super) step: usize,
    pub(super) image: usize,
    /// Where pixels go that do not stand one behind the other.
    pub(super) spread: Option<Spread>,
}

impl Pixels {
    /// Whether all places of so many images of `plane` pixels can be told.
    pub(super) fn fit(&self, images: usize, plane: usize) -> bool {
        let image = self.image.max(self.step.saturating_mul(plane));
        images.saturating_mul(image) < NOWHERE as usize
    }

    fn at(&self, image: usize, pixel: usize, w: &Window) -> u32 {
        let pixel = self.spread.map_or(pixel, |s| s.pixel(pixel, w));
        (image * self.image + pixel * self.step) as u32
    }
}

/// One axis: what of a plane is read, and what is real in it.
#[derive(Clone, Debug)]
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

impl Frame {
    /// The positions of a window over `images` images, for vectors of `lanes` lanes; `None` where it has more than two axes or
    /// there are none.
    pub(super) fn new(w: &Window, images: usize, lanes: usize) -> Option<Frame> {
        if w.size.len() > 2 || w.size.is_empty() || images * w.positions() == 0 {
            return None;
        }
        if w.taps() == 1 {
            let rows = Frame::rows(images * w.positions(), lanes);
            return Some(Frame { images, ..rows });
        }
        let one = Axis {
            out: 1,
            pitch: 1,
            taps: vec![(0, 0)],
            real: vec![1],
            stride: 1,
        };
        let mut axes: Vec<_> = (0..w.size.len()).map(|axis| Axis::new(w, axis)).collect();
        if axes.len() == 1 {
            axes.insert(0, one);
        }
        let axes = <[Axis; 2]>::try_from(axes).ok()?;
        let [rows, cols] = &axes;
        // Behind the last pixel that is read or written.
        let image = rows.pitch * cols.pitch;
        let len = (images - 1) * image + (rows.used() - 1) * cols.pitch + cols.used();
        let (mut phases, mut taps) = (vec![], vec![]);
        for (r, c) in rows
            .taps
            .iter()
            .flat_map(|r| cols.taps.iter().map(move |c| (r, c)))
        {
            let phase = (r.0, c.0);
            let at = phases.iter().position(|p| *p == phase).unwrap_or_else(|| {
                phases.push(phase);
                phases.len() - 1
            });
            taps.push((at, r.1 * cols.pitch as isize + c.1));
        }
        let least = taps.iter().map(|t| t.1).min()?.min(0);
        let most = taps.iter().map(|t| t.1).max()?.max(0);
        Some(Frame {
            vectors: len.div_ceil(lanes),
            halo: [-least as usize, most as usize],
            taps,
            phases,
            axes: Some(axes),
            images,
        })
    }

    /// So many positions in their order in memory.
    pub(super) fn rows(count: usize, lanes: usize) -> Frame {
        Frame {
            vectors: count.div_ceil(lanes),
            halo: [0; 2],
            taps: vec![],
            phases: vec![(0, 0)],
            axes: None,
            images: 1,
        }
    }

    /// Whether positions stand in their order in memory, and each reads one place.
    pub(super) fn single(&self) -> bool {
        self.taps.is_empty()
    }

    /// Planes that are read.
    pub(super) fn planes(&self) -> usize {
        self.phases.len()
    }

    /// Vectors of a plane, halo included; odd, so that planes do not meet in the same places of a cache.
    pub(super) fn pitch(&self) -> usize {
        (self.halo[0] + self.vectors + self.halo[1]) | 1
    }

    /// Where the positions of a window read and write, of so many images of those that there may be.
    pub(super) fn grid(&self, w: &Window, [x, y]: [Pixels; 2], images: usize, lanes: usize) -> Grid {
        let Some([rows, cols]) = &self.axes else {
            let plane = w.positions().max(1);
            let each = || (0..images).flat_map(move |n| (0..plane).map(move |p| (n, p)));
            let from = each().map(|(n, p)| w.under(p, 0).map_or(NOWHERE, |u| x.at(n, u, w)));
            return self.grid_of(from, each().map(|(n, p)| y.at(n, p, w)), lanes);
        };
        let (image, across) = (rows.pitch * cols.pitch, w.input.last().copied().unwrap_or(1));
        let lines = |real: &dyn Fn(usize, usize, usize) -> Option<u32>| {
            let all = (0..self.vectors * lanes).map(|at| {
                let p = at % lanes * self.vectors + at / lanes;
                let (n, r, c) = (p / image, p % image / cols.pitch, p % cols.pitch);
                if n < images { real(n, r, c) } else { None }
            });
            all.map(|at| at.unwrap_or(NOWHERE)).collect::<Vec<_>>()
        };
        let from = self.phases.iter().map(|&(pr, pc)| {
            lines(&|n, r, c| {
                let there = r < rows.real[pr] && c < cols.real[pc];
                let pixel = (r * rows.stride + pr) * across + c * cols.stride + pc;
                there.then(|| x.at(n, pixel, w))
            })
        });
        Grid {
            from: from.collect(),
            to: lines(&|n, r, c| (r < rows.out && c < cols.out).then(|| y.at(n, r * cols.out + c, w))),
        }
    }

    /// The same for the rows of a matrix.
    pub(super) fn grid_of(
        &self,
        from: impl Iterator<Item = u32>,
        to: impl Iterator<Item = u32>,
        lanes: usize,
    ) -> Grid {
        let all = |places: &mut dyn Iterator<Item = u32>| {
            let mut all: Vec<_> = places.collect();
            all.resize(self.vectors * lanes, NOWHERE);
            all
        };
        Grid {
            from: vec![all(&mut { from })],
            to: all(&mut { to }),
        }
    }

    /// Where positions that follow each other in memory begin and how many they are, of the vectors `strip`; each `step`
    /// floats behind the one before.
    pub(super) fn runs(&self, to: &[u32], strip: Range<usize>, step: usize, lanes: usize) -> Vec<(u32, u32)> {
        let mut all: Vec<(u32, u32)> = vec![];
        let (outer, inner) = match self.single() {
            true => (strip.len(), lanes),
            false => (lanes, strip.len()),
        };
        for at in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
            let (vector, lane) = if self.single() { at } else { (at.1, at.0) };
            let to = to[(strip.start + vector) * lanes + lane];
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
        spread: None,
    }
}

/// Pixels of images whose channels are planes.
pub(super) fn row_by_row(channels: usize, plane: usize) -> Pixels {
    Pixels {
        step: 1,
        image: channels * plane,
        spread: None,
    }
}
