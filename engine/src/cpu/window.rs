//! Windows that slide over images, as convolutions and pools have them.

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

    /// The positions along `axis` for which element `tap` of the window is within the input.
    pub fn inside(&self, axis: usize, tap: usize) -> std::ops::Range<usize> {
        let (stride, ahead) = (self.strides[axis], tap * self.dilations[axis]);
        let first = self.pads[axis].saturating_sub(ahead).div_ceil(stride);
        let last = (self.input[axis] + self.pads[axis])
            .saturating_sub(ahead)
            .div_ceil(stride);
        let out = self.output[axis];
        first.min(out)..last.min(out).max(first.min(out))
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

    /// For each element of the window along all axes but the last, for each row of the output, which row of the input it
    /// is on.
    pub fn rows(&self) -> Vec<Vec<Option<usize>>> {
        let axes = self.input.len() - 1;
        let all = |sizes: &[usize]| -> usize { sizes[..axes].iter().product() };
        let row = |mut tap: usize, mut at: usize| {
            let (mut place, mut ahead) = (0, 1);
            for axis in (0..axes).rev() {
                let (t, a) = (tap % self.size[axis], at % self.output[axis]);
                (tap, at) = (tap / self.size[axis], at / self.output[axis]);
                place += self.place(axis, a, t)? * ahead;
                ahead *= self.input[axis];
            }
            Some(place)
        };
        (0..all(&self.size))
            .map(|tap| (0..all(&self.output)).map(|at| row(tap, at)).collect())
            .collect()
    }

    /// Whether it takes each element where it is: one element, no steps, no padding.
    pub fn is_identity(&self) -> bool {
        self.taps() == 1 && self.input == self.output && self.strides.iter().all(|&s| s == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_agree_with_places() {
        for (input, size, stride, dilation, pad) in
            [(7, 3, 1, 1, 1), (9, 3, 2, 2, 3), (4, 5, 3, 1, 4), (1, 2, 1, 1, 1)]
        {
            let output = (input + 2 * pad - dilation * (size - 1) - 1) / stride + 1;
            let w = Window {
                input: vec![input],
                output: vec![output],
                size: vec![size],
                strides: vec![stride],
                dilations: vec![dilation],
                pads: vec![pad],
            };
            for tap in 0..size {
                for at in 0..output {
                    assert_eq!(
                        w.inside(0, tap).contains(&at),
                        w.place(0, at, tap).is_some(),
                        "{w:?} {tap} {at}"
                    );
                }
            }
        }
    }
}
