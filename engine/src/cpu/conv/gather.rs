//! The pixels under each element of a window, as rows of a matrix.

use std::ops::Range;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::super::plane::Plane;
use super::super::window::Window;

/// Fills rows of the matrix `[channels * window, pixels]`.
#[derive(Clone, Debug)]
pub(super) struct Gather {
    window: Window,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// The image is the matrix.
    Image,
    /// Rows of one channel with their border, cut out anew for each block of pixels.
    Strip(Plane),
    /// Windows over more than two axes: the image, element by element.
    Elements,
}

/// Floats that may be written behind the last pixel of a row.
pub(super) const BEHIND: usize = 16;

impl Gather {
    /// For blocks of at most `pixels` pixels.
    pub(super) fn new(window: Window, pixels: usize) -> Gather {
        let across = window.output.last().copied().unwrap_or(1).max(1);
        // A block may begin and end within a row.
        let rows = (pixels.div_ceil(across) + 1).min(window.positions().div_ceil(across));
        let source = match Plane::new(&window, rows) {
            _ if window.is_identity() => Source::Image,
            Some(plane) => Source::Strip(plane),
            None => Source::Elements,
        };
        Gather { window, source }
    }

    /// Floats of scratch memory that [`fill`](Gather::fill) needs.
    pub(super) fn floats(&self) -> usize {
        match &self.source {
            Source::Strip(plane) => plane.floats(),
            _ => 0,
        }
    }

    /// Writes, for each of `ks` (channel, then element of the window), a row of the pixels `pixels`, `pitch` apart.
    ///
    /// # Safety
    ///
    /// `x` is the first of as many planes as `ks` asks for; `to` is writable for `ks.len()` rows and [`BEHIND`] floats
    /// behind the pixels of each; `scratch` has [`floats`](Gather::floats) floats.
    pub(super) unsafe fn fill(
        &self,
        x: *const f32,
        ks: Range<usize>,
        pixels: Range<usize>,
        to: To,
        scratch: *mut f32,
    ) {
        match &self.source {
            Source::Elements => {
                // SAFETY: as the caller says.
                unsafe { self.elements(x, ks, pixels, to) }
            }
            Source::Image => dispatch(Copy {
                gather: self,
                x,
                ks,
                pixels,
                to,
            }),
            Source::Strip(plane) => {
                let across = self.window.output.last().copied().unwrap_or(1);
                let (row, taps) = (pixels.start / across, self.window.taps());
                // SAFETY: as the caller says.
                unsafe { plane.clear(scratch, 0.0) };
                for channel in ks.start / taps..ks.end.div_ceil(taps) {
                    let these = ks.start.max(channel * taps)..ks.end.min((channel + 1) * taps);
                    let to = To {
                        ptr: to.ptr.wrapping_add((these.start - ks.start) * to.pitch),
                        ..to
                    };
                    let taps = these.start - channel * taps..these.end - channel * taps;
                    // SAFETY: the channel is a plane of the input.
                    unsafe { plane.fill(scratch, x.add(channel * self.window.plane()), row) };
                    let (start, len) = (pixels.start % across, pixels.len());
                    dispatch(Runs {
                        plane,
                        strip: scratch,
                        taps,
                        across,
                        start,
                        len,
                        to,
                    });
                }
            }
        }
    }

    /// # Safety
    ///
    /// As for [`fill`](Gather::fill).
    unsafe fn elements(&self, x: *const f32, ks: Range<usize>, pixels: Range<usize>, to: To) {
        let (w, taps) = (&self.window, self.window.taps());
        for (i, k) in ks.enumerate() {
            for (j, pixel) in pixels.clone().enumerate() {
                let place = w.under(pixel, k % taps);
                // SAFETY: the place is within the plane of the channel.
                unsafe {
                    let value = place.map_or(0.0, |p| *x.add(k / taps * w.plane() + p));
                    to.ptr.add(i * to.pitch + j).write(value);
                }
            }
        }
    }
}

/// Where rows go.
#[derive(Clone, Copy)]
pub(super) struct To {
    pub(super) ptr: *mut f32,
    /// Floats from row to row.
    pub(super) pitch: usize,
}

/// Copies rows of the image.
struct Copy<'a> {
    gather: &'a Gather,
    x: *const f32,
    ks: Range<usize>,
    pixels: Range<usize>,
    to: To,
}

impl Vectorised for Copy<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (plane, len) = (self.gather.window.plane(), self.pixels.len());
        for (i, k) in self.ks.clone().enumerate() {
            let from = self.x.wrapping_add(k * plane + self.pixels.start);
            let to = self.to.ptr.wrapping_add(i * self.to.pitch);
            for j in (0..len).step_by(S::LANES) {
                // SAFETY: both rows have `len` floats.
                unsafe {
                    match len - j {
                        left if left >= S::LANES => s.store(to.add(j), s.load(from.add(j))),
                        left => s.store_first(to.add(j), left, s.load_first(from.add(j), left)),
                    }
                }
            }
        }
    }
}

/// Copies pieces of the rows of a strip.
struct Runs<'a> {
    plane: &'a Plane,
    strip: *const f32,
    taps: Range<usize>,
    across: usize,
    /// The first pixel in its row.
    start: usize,
    len: usize,
    to: To,
}

impl Vectorised for Runs<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (i, &offset) in self.plane.offsets()[self.taps.clone()].iter().enumerate() {
            let row = self.to.ptr.wrapping_add(i * self.to.pitch);
            // Rows of the strip, the first one from `start` on.
            let (mut from, mut skip, mut at) = (self.strip.wrapping_add(offset), self.start, 0);
            while at < self.len {
                let run = (self.across - skip).min(self.len - at);
                let mut j = 0;
                while j < run {
                    // SAFETY: the strip goes on behind its last row, and so do rows of `to`; what is written beyond the
                    // run is overwritten by the next one.
                    unsafe { s.store(row.add(at + j), s.load(from.add(skip + j))) };
                    j += S::LANES;
                }
                from = from.wrapping_add(self.plane.pitch());
                (skip, at) = (0, at + run);
            }
        }
    }
}
