//! Windows that slide over images, as convolutions and pools have them.

use std::ops::Range;

/// By how much a window may exceed the image for kernels that visit all of its elements.
const WIDE: usize = 64;

/// A window over the spatial axes of an image; each list has one number for each axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Sizes of the input.
    pub input: Vec<usize>,
    /// Sizes of the output: positions of the window.
    pub output: Vec<usize>,
    /// Sizes of the window, in elements that it takes.
    pub size: Vec<usize>,
    /// Steps from position to position.
    pub strides: Vec<usize>,
    /// Steps from element to element of the window.
    pub dilations: Vec<usize>,
    /// Positions that the first window lies before the input.
    pub pads: Vec<usize>,
}

impl Window {
    /// The position in the input along `axis` of element `tap` of the window at `at`; `None` beside the input.
    pub fn place(&self, axis: usize, at: usize, tap: usize) -> Option<usize> {
        let place = at * self.strides[axis] + tap * self.dilations[axis];
        place
            .checked_sub(self.pads[axis])
            .filter(|&p| p < self.input[axis])
    }

    /// The elements of the window at `at` along `axis` that lie over the input.
    pub fn meeting(&self, axis: usize, at: usize) -> Range<usize> {
        let (start, pad, step) = (at * self.strides[axis], self.pads[axis], self.dilations[axis]);
        let end = (self.input[axis] + pad).saturating_sub(start).div_ceil(step);
        let end = end.min(self.size[axis]);
        pad.saturating_sub(start).div_ceil(step).min(end)..end
    }

    /// The elements of the window at `at` that lie over the input, in order, each with the element of an input plane that
    /// is under it. Takes no time for the others.
    pub fn covered(&self, mut at: usize) -> impl Iterator<Item = (usize, usize)> {
        let mut axes = vec![];
        for axis in (0..self.size.len()).rev() {
            let here = at % self.output[axis];
            axes.push((axis, here * self.strides[axis], self.meeting(axis, here)));
            at /= self.output[axis];
        }
        let count = axes.iter().map(|(.., taps)| taps.len()).product();
        (0..count).map(move |mut i: usize| {
            let (mut tap, mut taps, mut under, mut ahead) = (0, 1, 0, 1);
            for (axis, start, range) in &axes {
                let t = range.start + i % range.len();
                i /= range.len();
                tap += t * taps;
                taps *= self.size[*axis];
                under += (start + t * self.dilations[*axis] - self.pads[*axis]) * ahead;
                ahead *= self.input[*axis];
            }
            (tap, under)
        })
    }

    /// Whether it is so much larger than the input that most of its elements never lie over it.
    pub fn is_wide(&self) -> bool {
        let times = |axis: usize| {
            let most = self.input[axis].div_ceil(self.dilations[axis]).max(1);
            self.size[axis].div_ceil(most)
        };
        let axes = 0..self.size.len();
        axes.map(times).fold(1, usize::saturating_mul) > WIDE
    }

    /// Elements of an input plane.
    pub fn plane(&self) -> usize {
        self.input.iter().product()
    }

    /// Elements of an output plane.
    pub fn positions(&self) -> usize {
        self.output.iter().product()
    }

    /// Elements of the window.
    pub fn taps(&self) -> usize {
        self.size.iter().product()
    }

    /// The element of an input plane that is under element `tap` of the window at `at`; `None` beside the input.
    pub fn under(&self, mut at: usize, mut tap: usize) -> Option<usize> {
        let (mut under, mut ahead) = (0, 1);
        for axis in (0..self.size.len()).rev() {
            under += self.place(axis, at % self.output[axis], tap % self.size[axis])? * ahead;
            ahead *= self.input[axis];
            (at, tap) = (at / self.output[axis], tap / self.size[axis]);
        }
        Some(under)
    }

    /// Whether it takes each element where it is: one element, no steps, no padding.
    pub fn is_identity(&self) -> bool {
        self.taps() == 1 && self.input == self.output && self.strides.iter().all(|&s| s == 1)
    }

    /// A window of one element over all elements as one axis.
    pub fn flat(&self) -> Window {
        Window {
            input: vec![self.plane()],
            output: vec![self.plane()],
            size: vec![1],
            strides: vec![1],
            dilations: vec![1],
            pads: vec![0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(
        input: &[usize],
        output: &[usize],
        size: &[usize],
        steps: [usize; 2],
        pads: &[usize],
    ) -> Window {
        Window {
            input: input.to_vec(),
            output: output.to_vec(),
            size: size.to_vec(),
            strides: vec![steps[0]; input.len()],
            dilations: vec![steps[1]; input.len()],
            pads: pads.to_vec(),
        }
    }

    #[test]
    fn covered_is_what_lies_over_the_input() {
        for w in [
            window(&[5], &[5], &[3], [1, 1], &[1]),
            window(&[4, 6], &[3, 5], &[3, 2], [2, 3], &[2, 4]),
            window(&[3, 2], &[9, 7], &[9, 5], [1, 2], &[8, 6]),
            window(&[2, 3, 2], &[2, 2, 3], &[2, 7, 1], [3, 1], &[0, 5, 9]),
            window(&[0, 3], &[2, 2], &[2, 2], [1, 1], &[1, 0]),
        ] {
            for at in 0..w.positions() {
                let all = (0..w.taps()).filter_map(|tap| Some((tap, w.under(at, tap)?)));
                assert_eq!(
                    w.covered(at).collect::<Vec<_>>(),
                    all.collect::<Vec<_>>(),
                    "{w:?} {at}"
                );
            }
        }
    }

    #[test]
    fn windows_beyond_the_image_take_no_time() {
        let most = 1 << 31;
        let w = window(&[3, 2], &[2, 2], &[most, most], [1, 1], &[most - 2, most - 2]);
        assert!(w.is_wide());
        let all: usize = (0..4).map(|at| w.covered(at).count()).sum();
        assert_eq!(all, (2 + 3) * (2 + 2));
        assert!(!window(&[7, 7], &[7, 7], &[7, 7], [1, 1], &[3, 3]).is_wide());
    }
}
