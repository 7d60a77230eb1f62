//! From places in the result to places in the source, one axis at a time.
//!
//! Coordinates are computed in single precision, as other engines do it: at a tie the rounding decides which pixel is
//! the nearest.

use crate::ops::OpError;

/// Longer axes are not resized.
const LONGEST: usize = 1 << 26;

/// How pixels are made of others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mode {
    /// One that is near.
    Nearest(Nearest),
    /// The two beside, by distance.
    Linear,
    /// The four around, by a cubic with this coefficient.
    Cubic(f32),
}

/// Which pixel is the nearest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Nearest {
    /// The one before; when shrinking, the one behind. What the first versions did.
    Simple,
    Floor,
    Ceil,
    RoundPreferFloor,
    RoundPreferCeil,
}

/// How coordinates correspond.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Transformation {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    TfHalfPixel,
    AlignCorners,
    Asymmetric,
    TfCropAndResize,
}

/// All that a node says of how to resize.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Style {
    pub(super) mode: Mode,
    pub(super) transformation: Transformation,
    pub(super) exclude_outside: bool,
    pub(super) antialias: bool,
    pub(super) extrapolation: f32,
}

/// One axis: how long it is, and how long it becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stretch {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) scale: f32,
    /// Start and end of the part that is taken, as parts of the whole.
    pub(super) roi: (f32, f32),
}

/// Where the pixels of one axis come from: each is a weighted sum of `taps` pixels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Taps {
    pub(super) taps: usize,
    /// `[to, taps]`
    pub(super) index: Vec<usize>,
    /// `[to, taps]`
    pub(super) weight: Vec<f32>,
    /// Whether a pixel lies outside the source and takes the extrapolation value.
    pub(super) outside: Vec<bool>,
}

impl Style {
    /// Whether the axis stays as it is.
    pub(super) fn keeps(&self, s: &Stretch) -> bool {
        self.transformation != Transformation::TfCropAndResize && s.scale == 1.0 && s.from == s.to
    }

    /// Where the pixels of an axis come from.
    pub(super) fn taps(&self, s: &Stretch) -> Result<Taps, OpError> {
        if s.from == 0 && s.to > 0 {
            return Err(OpError::new(format!(
                "an empty axis cannot become one of size {}",
                s.to
            )));
        }
        if s.to > LONGEST {
            return Err(OpError::new(format!(
                "an axis of size {}; expected at most {LONGEST}",
                s.to
            )));
        }
        let reach = self.reach(s.scale)?;
        let taps = (reach.end - reach.start) as usize;
        let mut all = Taps {
            taps,
            index: vec![],
            weight: vec![],
            outside: vec![],
        };
        for i in 0..s.to {
            let x = self.coordinate(s, i);
            let outside = self.transformation == Transformation::TfCropAndResize
                && !(0.0..=s.from as f32 - 1.0).contains(&x);
            all.outside.push(outside);
            self.pixel(s, x, reach.clone(), &mut all);
        }
        Ok(all)
    }

    /// Which pixels count, from the one before the coordinate on.
    fn reach(&self, scale: f32) -> Result<std::ops::Range<i64>, OpError> {
        let half = match self.mode {
            Mode::Nearest(_) => return Ok(0..1),
            Mode::Linear => 1.0,
            Mode::Cubic(_) => 2.0,
        };
        let scale = if self.antialias { scale.min(1.0) } else { 1.0 };
        let start = (-half / f64::from(scale)).floor() + 1.0;
        if !(-65536.0..=0.0).contains(&start) {
            return Err(OpError::new(format!(
                "a scale of {scale} reaches over too many pixels"
            )));
        }
        Ok(start as i64..2 - start as i64)
    }

    /// The place in the source of pixel `i` of the result.
    fn coordinate(&self, s: &Stretch, i: usize) -> f32 {
        let (i, scale) = (i as f32, s.scale);
        let (from, to) = (s.from as f32, s.to as f32);
        // What the scale makes of the size, which may have been cut off.
        let width = if (scale * from) as usize == s.to {
            scale * from
        } else {
            to
        };
        match self.transformation {
            Transformation::HalfPixel => (i + 0.5) / scale - 0.5,
            Transformation::HalfPixelSymmetric => {
                let offset = from / 2.0 * (1.0 - to / (scale * from));
                offset + (i + 0.5) / scale - 0.5
            }
            Transformation::PytorchHalfPixel if to > 1.0 => (i + 0.5) / scale - 0.5,
            Transformation::PytorchHalfPixel => 0.0,
            Transformation::TfHalfPixel => (i + 0.5) / scale,
            Transformation::AlignCorners if to > 1.0 => i * (from - 1.0) / (width - 1.0),
            Transformation::AlignCorners => 0.0,
            Transformation::Asymmetric => i / scale,
            Transformation::TfCropAndResize if to > 1.0 => {
                s.roi.0 * (from - 1.0) + i * (s.roi.1 - s.roi.0) * (from - 1.0) / (width - 1.0)
            }
            Transformation::TfCropAndResize => 0.5 * (s.roi.0 + s.roi.1) * (from - 1.0),
        }
    }

    /// Adds the pixel at `x`.
    fn pixel(&self, s: &Stretch, x: f32, reach: std::ops::Range<i64>, all: &mut Taps) {
        let last = s.from as i64 - 1;
        if let Mode::Nearest(nearest) = self.mode {
            let near = nearest.of(x, s.scale) as i64;
            all.index.push(near.clamp(0, last) as usize);
            all.weight.push(1.0);
            return;
        }
        let before = x.floor();
        let ratio = x - before;
        let start = all.weight.len();
        for i in reach {
            let at = (before as i64).saturating_add(i);
            let excluded = self.exclude_outside && !(0..=last).contains(&at);
            all.index.push(at.clamp(0, last) as usize);
            all.weight.push(if excluded {
                0.0
            } else {
                self.weight(s.scale, i as f32 - ratio)
            });
        }
        if self.exclude_outside || self.antialias {
            let weights = &mut all.weight[start..];
            let sum: f32 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|w| *w /= sum);
            }
        }
    }

    /// The weight of a pixel at a distance of `d`.
    fn weight(&self, scale: f32, d: f32) -> f32 {
        let d = d.abs() * if self.antialias { scale.min(1.0) } else { 1.0 };
        match self.mode {
            Mode::Cubic(a) if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            Mode::Cubic(a) if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            Mode::Cubic(_) => 0.0,
            _ => (1.0 - d).max(0.0),
        }
    }
}

impl Nearest {
    fn of(self, x: f32, scale: f32) -> f32 {
        match self {
            Nearest::Simple if scale < 1.0 => x.ceil(),
            Nearest::Simple => x.trunc(),
            Nearest::Floor => x.floor(),
            Nearest::Ceil => x.ceil(),
            Nearest::RoundPreferFloor => (x - 0.5).ceil(),
            Nearest::RoundPreferCeil => (x + 0.5).floor(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taps(mode: Mode, transformation: Transformation, from: usize, to: usize) -> Taps {
        let style = Style {
            mode,
            transformation,
            exclude_outside: false,
            antialias: false,
            extrapolation: 0.0,
        };
        let stretch = Stretch {
            from,
            to,
            scale: to as f32 / from as f32,
            roi: (0.0, 1.0),
        };
        style.taps(&stretch).unwrap()
    }

    #[test]
    fn ties_are_broken_as_told() {
        let near = |n| taps(Mode::Nearest(n), Transformation::HalfPixel, 4, 2).index;
        assert_eq!(near(Nearest::RoundPreferFloor), [0, 2]);
        assert_eq!(near(Nearest::RoundPreferCeil), [1, 3]);
    }

    #[test]
    fn doubling_repeats() {
        let floor = taps(Mode::Nearest(Nearest::Floor), Transformation::Asymmetric, 3, 6);
        assert_eq!(floor.index, [0, 0, 1, 1, 2, 2]);
        let linear = taps(Mode::Linear, Transformation::HalfPixel, 2, 4);
        assert_eq!(linear.index, [0, 0, 0, 1, 0, 1, 1, 1]);
        assert_eq!(linear.weight, [0.25, 0.75, 0.75, 0.25, 0.25, 0.75, 0.75, 0.25]);
    }

    #[test]
    fn weights_add_up_to_one() {
        for to in [3, 7, 11, 20] {
            let t = taps(Mode::Cubic(-0.75), Transformation::HalfPixel, 7, to);
            for w in t.weight.chunks(4) {
                assert!((w.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{w:?}");
            }
        }
    }
}
