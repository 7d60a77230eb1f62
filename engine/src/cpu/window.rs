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
