//! Where points of a grid lie in an image.

use crate::expr::Ex;
use crate::ir::DType;
use crate::ops::between::Beside;
use crate::ops::{NodeRef, OpError};

/// How elements between pixels are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// What is beside the image.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// How images of certain sizes are looked up.
#[derive(Clone, Debug)]
pub(super) struct Sampler {
    pub(super) mode: Mode,
    padding: Padding,
    /// Whether -1 and 1 are the centres of the outermost pixels.
    aligned: bool,
    /// Whether places are computed in double precision.
    double: bool,
    sizes: Vec<usize>,
}

/// Pixels along one axis with their weights; `None` beside the image.
type Along = ([(Option<usize>, f64); 4], usize);

impl Sampler {
    pub(super) fn of(n: &NodeRef, sizes: &[usize]) -> Result<Sampler, OpError> {
        let (mode, padding) = (n.str_or("mode", "linear")?, n.str_or("padding_mode", "zeros")?);
        let unknown = |name: &str, found: &str| OpError::new(format!("attribute {name:?} is {found:?}"));
        Ok(Sampler {
            mode: match mode {
                "nearest" => Mode::Nearest,
                "linear" | "bilinear" => Mode::Linear,
                "cubic" | "bicubic" => Mode::Cubic,
                other => return Err(unknown("mode", other)),
            },
            padding: match padding {
                "zeros" => Padding::Zeros,
                "border" => Padding::Border,
                "reflection" => Padding::Reflection,
                other => return Err(unknown("padding_mode", other)),
            },
            aligned: n.int_or("align_corners", 0)? != 0,
            double: n.dtype(1) == Some(DType::F64),
            sizes: sizes.to_vec(),
        })
    }

    /// Pixels that a point reads at most.
    pub(super) fn most(&self) -> usize {
        let along: usize = match self.mode {
            Mode::Nearest => 1,
            Mode::Linear => 2,
            Mode::Cubic => 4,
        };
        along.saturating_pow(self.sizes.len() as u32)
    }

    /// The place of `x` in pixels along an axis of `size`.
    fn place(&self, x: f64, size: usize) -> f64 {
        if self.double {
            return match self.aligned {
                true => (x + 1.0) / 2.0 * (size as f64 - 1.0),
                false => ((x + 1.0) * size as f64 - 1.0) / 2.0,
            };
        }
        let (x, size) = (x as f32, size as f32);
        f64::from(match self.aligned {
            true => (x + 1.0) / 2.0 * (size - 1.0),
            false => ((x + 1.0) * size - 1.0) / 2.0,
        })
    }

    /// [`place`](Sampler::place) of many.
    pub(super) fn scaled<'a>(&self, x: Ex<'a>, size: usize) -> Ex<'a> {
        match self.aligned {
            true => (x + 1.0) * ((size as f64 - 1.0) / 2.0),
            false => ((x + 1.0) * size as f64 - 1.0) / 2.0,
        }
    }

    /// What is beside an axis of `size`.
    pub(super) fn beside(&self, size: usize) -> Beside {
        match self.padding {
            Padding::Zeros => Beside::Zeros,
            Padding::Border => Beside::Border,
            Padding::Reflection => {
                let (low, high) = self.bounds(size);
                Beside::Mirror(low, high)
            }
        }
    }

    /// The bounds at which an axis of `size` is reflected.
    fn bounds(&self, size: usize) -> (f64, f64) {
        match self.aligned {
            true => (0.0, size as f64 - 1.0),
            false => (-0.5, size as f64 - 0.5),
        }
    }

    fn reflect(&self, x: f64, size: usize) -> f64 {
        let (low, high) = self.bounds(size);
        let range = high - low;
        let beyond = if x < low { low - x } else { x - high };
        if beyond <= 0.0 || beyond.is_nan() {
            return x;
        }
        if range <= 0.0 {
            return low;
        }
        let (times, rest) = ((beyond / range).trunc(), beyond % range);
        if (times % 2.0 == 0.0) == (x < low) {
            low + rest
        } else {
            high - rest
        }
    }

    /// The pixel at `at`, which may be beside the image.
    fn pixel(&self, at: f64, size: usize) -> Option<usize> {
        let inside = |x: f64| x.clamp(0.0, size as f64 - 1.0) as usize;
        match self.padding {
            Padding::Zeros => (at >= 0.0 && at < size as f64).then_some(at as usize),
            Padding::Border => Some(inside(at)),
            Padding::Reflection => Some(inside(self.reflect(at, size).trunc())),
        }
    }

    fn along(&self, x: f64, size: usize) -> Along {
        let mut place = self.place(x, size);
        if self.mode == Mode::Nearest {
            place = place.round_ties_even();
        }
        let (low, high) = self.bounds(size);
        // A cubic looks its neighbours up where they are: only they are brought inside.
        if self.mode != Mode::Cubic && (place < low || place > high) {
            place = match self.padding {
                Padding::Zeros => place,
                Padding::Border => place.clamp(0.0, size as f64 - 1.0),
                Padding::Reflection => self.reflect(place, size),
            };
        }
        let floor = place.floor();
        let t = place - floor;
        let at = |i: f64| self.pixel(floor + i, size);
        let none = (None, 0.0);
        match self.mode {
            Mode::Nearest => ([(self.pixel(place.trunc(), size), 1.0), none, none, none], 1),
            Mode::Linear => ([(at(0.0), 1.0 - t), (at(1.0), t), none, none], 2),
            Mode::Cubic => {
                let w = cubic(t);
                ([-1.0, 0.0, 1.0, 2.0].map(|i| (at(i), w[(i + 1.0) as usize])), 4)
            }
        }
    }

    /// Calls `each` with the place in the plane and the weight of every pixel of the image that `point` reads.
    pub(super) fn each(&self, point: impl Fn(usize) -> f64, mut each: impl FnMut(usize, f64)) {
        let axes = self.sizes.len();
        if self.sizes.contains(&0) {
            return;
        }
        // The first number of a point is that of the last axis.
        let along: Vec<Along> = (0..axes)
            .map(|a| self.along(point(axes - 1 - a), self.sizes[a]))
            .collect();
        self.combine(&along, 0, 0, 1.0, &mut each);
    }

    fn combine(
        &self,
        along: &[Along],
        axis: usize,
        at: usize,
        weight: f64,
        each: &mut impl FnMut(usize, f64),
    ) {
        let Some((pixels, count)) = along.get(axis) else {
            return each(at, weight);
        };
        for &(pixel, w) in &pixels[..*count] {
            if let Some(p) = pixel {
                self.combine(along, axis + 1, at * self.sizes[axis] + p, weight * w, each);
            }
        }
    }

    /// All pixels that a point reads.
    pub(super) fn taps(&self, point: &[f64]) -> Vec<(usize, f64)> {
        let mut all = vec![];
        self.each(|i| point[i], |at, weight| all.push((at, weight)));
        all
    }
}

/// The weights of four neighbours at `t` between the inner two: Keys' convolution with `a = -0.75`.
fn cubic(t: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let outer = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let inner = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)]
}
