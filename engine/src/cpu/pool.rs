//! Pools of floats: the greatest element or the mean of windows and of whole channels.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::gemm::Scratch;
use super::plane::Plane;
use super::window::Window;
use super::{Ending, Pool};

/// Elements that make a task worth handing to another thread.
const TASK: usize = 1 << 14;

/// What sums are multiplied by to become means.
pub struct Means(pub(super) Vec<f32>);

impl Means {
    /// For sums of `counts` elements, one for each position.
    pub fn new(counts: &[usize]) -> Means {
        Means(counts.iter().map(|&n| (1.0 / n as f64) as f32).collect())
    }
}

/// A pool by windows over one or two axes.
///
/// As a depthwise convolution, it copies each channel into a `Plane`.
pub struct Pooling {
    window: Window,
    plane: Plane,
    channels: usize,
    means: Option<Means>,
}

/// The memory of a pool, which its tasks share out.
#[derive(Clone, Copy)]
struct Memory {
    x: *const f32,
    y: *mut f32,
}

// SAFETY: each task reads and writes channels of its own.
unsafe impl Sync for Memory {}

impl Memory {
    fn x(&self, i: usize) -> *const f32 {
        self.x.wrapping_add(i)
    }

    fn y(&self, i: usize) -> *mut f32 {
        self.y.wrapping_add(i)
    }
}

impl Pooling {
    /// A pool of `channels` channels: means, or else the greatest elements. `None` for windows over more axes.
    pub fn new(window: Window, channels: usize, means: Option<Means>) -> Option<Pooling> {
        let plane = Plane::new(&window, *window.output.first()?)?;
        Some(Pooling {
            window,
            plane,
            channels,
            means,
        })
    }

    /// Bytes of scratch memory.
    pub fn scratch(&self, threads: usize) -> usize {
        self.plane.floats() * threads * size_of::<f32>()
    }

    /// Pools `x` into `y`.
    ///
    /// # Panics
    ///
    /// If one of them is shorter than the window says.
    pub fn run(&self, x: &[f32], y: &mut [f32], scratch: &mut [u8], pool: &Pool) {
        let (from, to) = (self.window.plane(), self.window.positions());
        assert!(
            x.len() >= self.channels * from && y.len() >= self.channels * to,
            "channels"
        );
        assert!(scratch.len() >= self.scratch(pool.threads()), "scratch memory");
        let all = Memory {
            x: x.as_ptr(),
            y: y.as_mut_ptr(),
        };
        if to == 0 {
            return;
        }
        let memory = Scratch::new(scratch);
        let border = if self.means.is_some() {
            0.0
        } else {
            f32::NEG_INFINITY
        };
        let grain = TASK.div_ceil(to.saturating_mul(self.window.taps()));
        pool.run_with(self.channels.div_ceil(grain), &|thread, task| {
            let plane = memory.of(thread, self.plane.floats());
            // SAFETY: each thread has a plane of its own, and each channel its part of `x` and `y`.
            unsafe {
                let results = self.plane.clear(plane, border);
                for channel in task * grain..self.channels.min((task + 1) * grain) {
                    self.plane.fill(plane, all.x(channel * from), 0);
                    dispatch(Reduce {
                        plane: &self.plane,
                        x: plane,
                        sum: self.means.is_some(),
                        to: results,
                    });
                    let y = all.y(channel * to);
                    self.plane.unpack(results, y, std::ptr::null(), Ending::NONE);
                    if let Some(Means(means)) = &self.means {
                        dispatch(Multiply {
                            y: std::slice::from_raw_parts_mut(y, to),
                            by: means,
                        });
                    }
                }
            }
        });
    }
}

struct Reduce<'a> {
    plane: &'a Plane,
    x: *const f32,
    sum: bool,
    to: *mut f32,
}

impl Vectorised for Reduce<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let start = s.splat(if self.sum { 0.0 } else { f32::NEG_INFINITY });
        for j in (0..self.plane.len()).step_by(2 * S::LANES) {
            let mut acc = [start; 2];
            for &offset in self.plane.offsets() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: the plane goes on for two vectors behind its last element, as do the results.
                    let x = unsafe { s.load(self.x.add(offset + j + v * S::LANES)) };
                    // Of NaN and a number, `max` takes the second.
                    *acc = if self.sum { s.add(*acc, x) } else { s.max(x, *acc) };
                }
            }
            for (v, acc) in acc.into_iter().enumerate() {
                // SAFETY: as above.
                unsafe { s.store(self.to.add(j + v * S::LANES), acc) };
            }
        }
    }
}

struct Multiply<'a> {
    y: &'a mut [f32],
    by: &'a [f32],
}

impl Vectorised for Multiply<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // Plain enough for the compiler to use the set's vectors.
        self.y.iter_mut().zip(self.by).for_each(|(y, by)| *y *= by);
    }
}

/// A pool of whole channels.
#[derive(Clone, Copy, Debug)]
pub struct Planes {
    /// How many there are.
    pub channels: usize,
    /// Elements of each.
    pub plane: usize,
    /// Whether the mean is asked for, or else the greatest element.
    pub mean: bool,
}

impl Planes {
    /// Pools `x` into `y`.
    pub fn run(&self, x: &[f32], y: &mut [f32], pool: &Pool) {
        let grain = TASK.div_ceil(self.plane.max(1));
        let all = Memory {
            x: x.as_ptr(),
            y: y.as_mut_ptr(),
        };
        assert!(
            x.len() >= self.channels * self.plane && y.len() >= self.channels,
            "channels"
        );
        pool.split(self.channels, grain, &|channels| {
            for channel in channels {
                // SAFETY: both have this channel, and no other task writes it.
                unsafe {
                    let x = std::slice::from_raw_parts(all.x(channel * self.plane), self.plane);
                    all.y(channel).write(dispatch(Channel { x, mean: self.mean }));
                }
            }
        });
    }
}

struct Channel<'a> {
    x: &'a [f32],
    mean: bool,
}

impl Vectorised for Channel<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let start = if self.mean { 0.0 } else { f32::NEG_INFINITY };
        let mut acc = [s.splat(start); 4];
        let join = |acc: S::F32, x: S::F32| if self.mean { s.add(acc, x) } else { s.max(x, acc) };
        let blocks = self.x.chunks_exact(4 * S::LANES);
        let rest = blocks.remainder();
        for block in blocks {
            for (v, acc) in acc.iter_mut().enumerate() {
                // SAFETY: a block has four vectors.
                *acc = join(*acc, unsafe { s.load(block.as_ptr().add(v * S::LANES)) });
            }
        }
        let both = join(join(acc[0], acc[1]), join(acc[2], acc[3]));
        match self.mean {
            true => (s.sum(both) + rest.iter().sum::<f32>()) / self.x.len() as f32,
            false => rest
                .iter()
                .fold(s.greatest(both), |best, &x| if x > best { x } else { best }),
        }
    }
}
