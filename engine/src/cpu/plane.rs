//! One channel of an image with its border, laid out so that windows need no case distinctions.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::Ending;
use super::window::Window;

/// Floats behind the last one that vectors may reach.
const SLACK: usize = 64;
/// Floats of the largest plane: 256 MiB.
const MOST: usize = 1 << 26;
/// Elements of the largest window, whose offsets are listed.
const TAPS: usize = 1 << 20;

/// A channel cut into phases: the elements whose places differ by whole strides stand side by side.
///
/// Then each element of the window lies at a fixed distance from the position of the output, and neighbours in the
/// output have neighbours in the plane, whatever the stride. Rows of the output stand `pitch` apart; what is between
/// them is computed along and thrown away.
#[derive(Clone, Debug)]
pub(crate) struct Plane {
    axes: [Axis; 2],
    /// Floats of one phase.
    phase: usize,
    offsets: Vec<usize>,
}

/// One of the two axes.
#[derive(Clone, Copy, Debug)]
struct Axis {
    input: usize,
    output: usize,
    stride: usize,
    pad: usize,
    /// Elements of a phase.
    len: usize,
    /// The furthest phase that the window meets.
    phases: usize,
}

impl Axis {
    fn new(w: &Window, axis: Option<usize>, output: usize) -> Axis {
        let Some(a) = axis else {
            return Axis {
                input: 1,
                output: 1,
                stride: 1,
                pad: 0,
                len: 1,
                phases: 1,
            };
        };
        let (stride, reach) = (w.strides[a], (w.size[a].max(1) - 1) * w.dilations[a]);
        Axis {
            input: w.input[a],
            output,
            stride,
            pad: w.pads[a],
            len: output + reach / stride,
            phases: stride.min(reach + 1),
        }
    }
}

impl Plane {
    /// The plane for windows over one or two axes, of which it takes in what `rows` rows of the output need; `None` for
    /// more axes, and where it would be enormous.
    pub(crate) fn new(w: &Window, rows: usize) -> Option<Plane> {
        let axes = match w.size.len() {
            1 => [Axis::new(w, None, 1), Axis::new(w, Some(0), w.output[0])],
            2 => [Axis::new(w, Some(0), rows), Axis::new(w, Some(1), w.output[1])],
            _ => return None,
        };
        let phases = axes[0].phases.checked_mul(axes[1].phases)?;
        let elements = axes[0].len.checked_mul(axes[1].len)?;
        if elements.checked_mul(phases).is_none_or(|n| n > MOST) || w.taps() > TAPS {
            return None;
        }
        let phase = (elements + SLACK).next_multiple_of(16);
        let place = |tap: usize, a: usize, axis: &Axis| {
            let ahead = tap * w.dilations[a];
            (ahead % axis.stride, ahead / axis.stride)
        };
        let last = w.size.len() - 1;
        let offset = |tap: usize| {
            let (across, down) = (tap % w.size[last], tap / w.size[last]);
            let (px, x) = place(across, last, &axes[1]);
            let (py, y) = if last == 0 {
                (0, 0)
            } else {
                place(down, 0, &axes[0])
            };
            (py * axes[1].phases + px) * phase + y * axes[1].len + x
        };
        Some(Plane {
            axes,
            phase,
            offsets: (0..w.taps()).map(offset).collect(),
        })
    }

    /// Floats of memory it takes: the plane, and behind it the results of one output channel.
    pub(crate) fn floats(&self) -> usize {
        (self.axes[0].phases * self.axes[1].phases + 1) * self.phase
    }

    /// Where each element of the window lies, from the position of the output.
    pub(crate) fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Floats from row to row.
    pub(crate) fn pitch(&self) -> usize {
        self.axes[1].len
    }

    /// Positions to compute, those between the rows included.
    pub(crate) fn len(&self) -> usize {
        (self.axes[0].output.max(1) - 1) * self.axes[1].len + self.axes[1].output
    }

    /// Sets all of `plane` to `border` and returns where the results go.
    ///
    /// # Safety
    ///
    /// `plane` has [`floats`](Plane::floats) floats.
    pub(crate) unsafe fn clear(&self, plane: *mut f32, border: f32) -> *mut f32 {
        // SAFETY: as the caller says.
        unsafe { std::slice::from_raw_parts_mut(plane, self.floats()).fill(border) };
        plane.wrapping_add(self.floats() - self.phase)
    }

    /// Copies what rows of the output from `first` on need of the channel `x` into `plane`, of which the border is set
    /// already.
    ///
    /// # Safety
    ///
    /// `x` has an input plane of the window, `plane` has [`floats`](Plane::floats) floats.
    pub(crate) unsafe fn fill(&self, plane: *mut f32, x: *const f32, first: usize) {
        dispatch(Fill {
            plane: self,
            x,
            first,
            to: plane,
        });
    }

    /// Moves results to the rows of `y`, adds `residual` unless it is null, and ends them.
    ///
    /// # Safety
    ///
    /// `results` has [`len`](Plane::len) floats, `y` and `residual` one for each position of the window.
    pub(crate) unsafe fn unpack(&self, results: *const f32, y: *mut f32, residual: *const f32, end: Ending) {
        dispatch(Unpack {
            plane: self,
            results,
            y,
            residual,
            end,
        });
    }
}

struct Fill<'a> {
    plane: &'a Plane,
    x: *const f32,
    first: usize,
    to: *mut f32,
}

impl Vectorised for Fill<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [down, across] = self.plane.axes;
        // Of the rows of the image, those that lie in the plane; others would be `first` phases and more before it.
        let before = self.first * down.stride;
        let rows = before.saturating_sub(down.pad)
            ..down
                .input
                .min((before + down.len * down.stride).saturating_sub(down.pad));
        for row in rows {
            let (phase, at) = (
                (row + down.pad - before) % down.stride,
                (row + down.pad - before) / down.stride,
            );
            if phase >= down.phases || at >= down.len {
                continue;
            }
            let from = self.x.wrapping_add(row * across.input);
            for column in 0..across.phases {
                // The first element of this phase.
                let first = (column + across.stride - across.pad % across.stride) % across.stride;
                let start = (first + across.pad) / across.stride;
                if first >= across.input || start >= across.len {
                    continue;
                }
                let count = (across.input - first)
                    .div_ceil(across.stride)
                    .min(across.len - start);
                let to = (phase * across.phases + column) * self.plane.phase + at * across.len + start;
                // SAFETY: `count` elements are within the row of the input and that of the plane.
                unsafe { copy(s, from.add(first), across.stride, self.to.add(to), count) };
            }
        }
    }
}

#[inline(always)]
unsafe fn copy<S: Simd>(s: S, from: *const f32, stride: usize, to: *mut f32, len: usize) {
    // SAFETY: the caller says that `to` has `len` floats, and `from` as many, `stride` apart.
    unsafe {
        match stride {
            1 => {
                for i in (0..len).step_by(S::LANES) {
                    match len - i {
                        left if left >= S::LANES => s.store(to.add(i), s.load(from.add(i))),
                        left => s.store_first(to.add(i), left, s.load_first(from.add(i), left)),
                    }
                }
            }
            // Written out so that it becomes shuffles.
            2 => (0..len).for_each(|i| *to.add(i) = *from.add(2 * i)),
            _ => (0..len).for_each(|i| *to.add(i) = *from.add(stride * i)),
        }
    }
}

struct Unpack<'a> {
    plane: &'a Plane,
    results: *const f32,
    y: *mut f32,
    residual: *const f32,
    end: Ending,
}

impl Vectorised for Unpack<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [down, across] = self.plane.axes;
        for row in 0..down.output {
            let (from, to) = (row * across.len, row * across.output);
            for i in (0..across.output).step_by(S::LANES) {
                let n = S::LANES.min(across.output - i);
                // SAFETY: a row of the output has `n` floats from `i` on; results go on beyond them.
                unsafe {
                    let mut v = s.load(self.results.add(from + i));
                    if !self.residual.is_null() {
                        v = s.add(v, s.load_first(self.residual.add(to + i), n));
                    }
                    v = self.end.apply(s, v);
                    if n == S::LANES {
                        s.store(self.y.add(to + i), v);
                    } else {
                        s.store_first(self.y.add(to + i), n, v);
                    }
                }
            }
        }
    }
}
