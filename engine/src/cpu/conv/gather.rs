//! The pixels under each element of a window, as rows of a matrix.

use std::ops::Range;

use secateur_simd::{Simd, Vectorised, dispatch};

use super::super::window::Window;

/// Fills rows of the matrix `[channels * window, pixels]`.
#[derive(Clone, Debug)]
pub(super) struct Gather {
    window: Window,
    /// For each element of the window along all axes but the last: the input row of each output row.
    rows: Vec<Vec<Option<usize>>>,
    /// For each element of the window along the last axis: the positions where it is within the input.
    inside: Vec<Range<usize>>,
}

impl Gather {
    pub(super) fn new(window: Window) -> Gather {
        let last = window.size.len() - 1;
        Gather {
            rows: window.rows(),
            inside: (0..window.size[last])
                .map(|tap| window.inside(last, tap))
                .collect(),
            window,
        }
    }

    /// Writes, for each of `ks` (channel, then element of the window) a row of the pixels `pixels`, `pitch` apart.
    ///
    /// # Safety
    ///
    /// `x` is the first of as many planes as `ks` asks for; `to` is writable for `ks.len()` rows.
    pub(super) unsafe fn fill(
        &self,
        x: *const f32,
        ks: Range<usize>,
        pixels: Range<usize>,
        to: *mut f32,
        pitch: usize,
    ) {
        dispatch(Fill {
            gather: self,
            x,
            ks,
            pixels,
            to,
            pitch,
        });
    }
}

struct Fill<'a> {
    gather: &'a Gather,
    x: *const f32,
    ks: Range<usize>,
    pixels: Range<usize>,
    to: *mut f32,
    pitch: usize,
}

impl Vectorised for Fill<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (g, w) = (self.gather, &self.gather.window);
        let last = w.size.len() - 1;
        let (width, across) = (w.output[last], w.size[last]);
        let (stride, dilation, pad) = (w.strides[last], w.dilations[last], w.pads[last]);
        if width == 0 {
            return;
        }
        for (i, k) in self.ks.clone().enumerate() {
            let (channel, tap) = (k / w.taps(), k % w.taps());
            let (rows, inside) = (&g.rows[tap / across], &g.inside[tap % across]);
            let plane = self.x.wrapping_add(channel * w.plane());
            let ahead = tap % across * dilation;
            let mut to = self.to.wrapping_add(i * self.pitch);
            let mut at = self.pixels.start;
            while at < self.pixels.end {
                let (row, start) = (at / width, at % width);
                let end = width.min(start + self.pixels.end - at);
                let (from, until) = match rows[row] {
                    Some(_) => (inside.start.clamp(start, end), inside.end.clamp(start, end)),
                    None => (end, end),
                };
                let until = until.max(from);
                // SAFETY: the row of `to` has a place for each pixel; those of `inside` lie within the input row.
                unsafe {
                    zero(s, to, from - start);
                    if let Some(row) = rows[row]
                        && from < until
                    {
                        let p = plane.wrapping_add(row * w.input[last] + from * stride + ahead - pad);
                        let to = to.wrapping_add(from - start);
                        match stride {
                            1 => copy(s, p, to, until - from),
                            _ => (0..until - from).for_each(|j| *to.add(j) = *p.add(j * stride)),
                        }
                    }
                    zero(s, to.wrapping_add(until - start), end - until);
                }
                to = to.wrapping_add(end - start);
                at += end - start;
            }
        }
    }
}

#[inline(always)]
unsafe fn copy<S: Simd>(s: S, from: *const f32, to: *mut f32, len: usize) {
    for i in (0..len).step_by(S::LANES) {
        // SAFETY: the caller says that both have `len` floats.
        unsafe {
            match len - i {
                left if left >= S::LANES => s.store(to.add(i), s.load(from.add(i))),
                left => s.store_first(to.add(i), left, s.load_first(from.add(i), left)),
            }
        }
    }
}

#[inline(always)]
unsafe fn zero<S: Simd>(s: S, to: *mut f32, len: usize) {
    for i in (0..len).step_by(S::LANES) {
        // SAFETY: the caller says that there are `len` floats.
        unsafe { s.store_first(to.add(i), S::LANES.min(len - i), s.splat(0.0)) };
    }
}
