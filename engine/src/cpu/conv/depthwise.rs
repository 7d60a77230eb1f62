//! Convolutions of single channels.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::super::gemm::Scratch;
use super::super::plane::Plane;
use super::super::{Ending, Pool};
use super::{Images, Shape};

/// Multiply-adds that make a task worth handing to another thread.
const TASK: usize = 1 << 16;

/// A convolution whose groups have one input channel, over one or two axes.
///
/// Each channel is copied into a `Plane`, where every element of the window lies at a fixed distance from the position
/// of the output, so that one loop runs over all rows without regard for borders.
pub struct Depthwise {
    shape: Shape,
    plane: Plane,
}

impl Depthwise {
    /// `None` if a group has several input channels or the image more than two axes.
    pub fn new(shape: Shape) -> Option<Depthwise> {
        // Many sums of the only channel are a matter for products.
        let fits = shape.inputs == 1 && (shape.groups > 1 || shape.outputs == 1);
        let plane = Plane::new(&shape.window, *shape.window.output.first()?).filter(|_| fits)?;
        Some(Depthwise { shape, plane })
    }

    /// Bytes of scratch memory.
    pub fn scratch(&self, threads: usize) -> usize {
        self.plane.floats() * threads * size_of::<f32>()
    }

    /// Computes the output with weights `w`, `[groups, outputs, window]`.
    ///
    /// # Safety
    ///
    /// All that [`Shape`] describes is readable, the output writable, and nobody else writes to them.
    pub unsafe fn run(&self, x: Images, w: &[f32], scratch: &mut [u8], pool: &Pool) {
        let s = &self.shape;
        let (channels, taps) = (s.images * s.groups, s.window.taps());
        if channels * s.outputs * s.window.positions() == 0 {
            return;
        }
        debug_assert!(scratch.len() >= self.scratch(pool.threads()), "scratch memory");
        let memory = Scratch::new(scratch);
        let grain = TASK.div_ceil((s.outputs * s.window.positions()).saturating_mul(taps.max(1)));
        pool.run_with(channels.div_ceil(grain), &|thread, task| {
            let plane = memory.of(thread, self.plane.floats());
            // SAFETY: each thread has a plane of its own, and each channel an output of its own.
            unsafe {
                let sums = self.plane.clear(plane, 0.0);
                for channel in task * grain..channels.min((task + 1) * grain) {
                    let group = channel % s.groups;
                    self.plane.fill(plane, x.x.add(channel * s.window.plane()), 0);
                    for o in 0..s.outputs {
                        let at = group * s.outputs + o;
                        let bias = if x.bias.is_null() { 0.0 } else { *x.bias.add(at) };
                        let w = w.as_ptr().add(at * taps);
                        dispatch(Correlate {
                            plane: &self.plane,
                            x: plane,
                            w,
                            bias,
                            to: sums,
                        });
                        self.finish(x, sums, (channel * s.outputs + o) * s.window.positions());
                    }
                }
            }
        });
    }

    /// Moves the sums to the output from `at` on, with what is left to do.
    ///
    /// # Safety
    ///
    /// As for [`run`](Depthwise::run).
    unsafe fn finish(&self, x: Images, sums: *const f32, at: usize) {
        let len = self.shape.window.positions();
        let residual = if x.residual.is_null() {
            x.residual
        } else {
            x.residual.wrapping_add(at)
        };
        let y = x.y.wrapping_add(at);
        let end = self.shape.post.ending();
        // SAFETY: as the caller says.
        unsafe {
            self.plane.unpack(sums, y, residual, end.unwrap_or(Ending::NONE));
            if end.is_none() {
                self.shape.post.apply_rows(y, 0, 1, len);
            }
        }
    }
}

struct Correlate<'a> {
    plane: &'a Plane,
    x: *const f32,
    w: *const f32,
    bias: f32,
    to: *mut f32,
}

impl Vectorised for Correlate<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: the plane has room behind its last element, as has the memory for the sums.
        unsafe {
            match self.plane.offsets().len() {
                3 => self.fixed::<S, 3>(s),
                9 => self.fixed::<S, 9>(s),
                25 => self.fixed::<S, 25>(s),
                _ => self.any(s),
            }
        }
    }
}

/// Vectors that are worked on at once, so that one sum need not wait for another.
const AT_ONCE: usize = 4;

impl Correlate<'_> {
    /// For windows of `T` elements, whose weights stay in registers as far as they go.
    #[inline(always)]
    unsafe fn fixed<S: Simd, const T: usize>(self, s: S) {
        let (mut w, mut x) = ([s.splat(0.0); T], [self.x; T]);
        for t in 0..T {
            // SAFETY: there is a weight for each element of the window.
            w[t] = s.splat(unsafe { *self.w.add(t) });
            x[t] = self.x.wrapping_add(self.plane.offsets()[t]);
        }
        for j in (0..self.plane.len()).step_by(AT_ONCE * S::LANES) {
            let mut acc = [s.splat(self.bias); AT_ONCE];
            for t in 0..T {
                for (v, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: the plane goes on for this many vectors behind its last element.
                    *acc = s.fma(unsafe { s.load(x[t].add(j + v * S::LANES)) }, w[t], *acc);
                }
            }
            for (v, acc) in acc.into_iter().enumerate() {
                // SAFETY: as does the memory for the sums.
                unsafe { s.store(self.to.add(j + v * S::LANES), acc) };
            }
        }
    }

    /// For all other windows.
    #[inline(always)]
    unsafe fn any<S: Simd>(self, s: S) {
        for j in (0..self.plane.len()).step_by(AT_ONCE * S::LANES) {
            let mut acc = [s.splat(self.bias); AT_ONCE];
            for (t, &offset) in self.plane.offsets().iter().enumerate() {
                // SAFETY: there is a weight for each element of the window.
                let w = s.splat(unsafe { *self.w.add(t) });
                for (v, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: the plane goes on for this many vectors behind its last element.
                    *acc = s.fma(unsafe { s.load(self.x.add(offset + j + v * S::LANES)) }, w, *acc);
                }
            }
            for (v, acc) in acc.into_iter().enumerate() {
                // SAFETY: as does the memory for the sums.
                unsafe { s.store(self.to.add(j + v * S::LANES), acc) };
            }
        }
    }
}
