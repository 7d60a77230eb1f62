//! The inputs of a convolution as rows: one for each place of the output.

/// How a convolution goes over an image; all of the same length, an element for each axis of space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The size of the window.
    pub taps: Vec<usize>,
    /// Steps.
    pub strides: Vec<usize>,
    /// Distances of taps.
    pub dilations: Vec<usize>,
    /// The border before; that behind follows from the output.
    pub before: Vec<usize>,
    /// The size of the output.
    pub output: Vec<usize>,
}

impl Window {
    /// Places of the output.
    pub fn places(&self) -> usize {
        self.output.iter().product()
    }

    /// Appends a row for each of the places `which` of `image`, `[channels, space…]`: channels `group · inputs` and on at each tap,
    /// in the order of [`Layout`](super::layout::Layout). Beside the image there are zeros.
    pub fn rows(
        &self,
        (image, space): (&[f32], &[usize]),
        (group, inputs): (usize, usize),
        which: impl IntoIterator<Item = usize>,
        rows: &mut Vec<f32>,
    ) {
        let size: usize = space.iter().product();
        let image = &image[group * inputs * size..][..inputs * size];
        for place in which {
            for tap in 0..self.taps.iter().product() {
                match self.at(place, tap, space) {
                    Some(at) => rows.extend(image[at..].iter().step_by(size).take(inputs)),
                    None => rows.resize(rows.len() + inputs, 0.0),
                }
            }
        }
    }

    /// Where in the space of the image tap `tap` lies at place `place`, if it does.
    fn at(&self, mut place: usize, mut tap: usize, space: &[usize]) -> Option<usize> {
        let (mut at, mut step) = (0, 1);
        for a in (0..space.len()).rev() {
            let (p, t) = (place % self.output[a], tap % self.taps[a]);
            (place, tap) = (place / self.output[a], tap / self.taps[a]);
            let x = (p * self.strides[a] + t * self.dilations[a]).checked_sub(self.before[a])?;
            at += (x < space[a]).then_some(x * step)?;
            step *= space[a];
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_what_the_window_sees() {
        // Two channels of 2 x 3, a window of 2 x 2 with a border of 1 before the columns.
        let image: Vec<f32> = (1..=12u8).map(f32::from).collect();
        let window = Window {
            taps: vec![2, 2],
            strides: vec![1, 2],
            dilations: vec![1, 1],
            before: vec![0, 1],
            output: vec![1, 2],
        };
        let mut rows = vec![];
        window.rows((&image, &[2, 3]), (0, 2), 0..2, &mut rows);
        let first = [0., 0., 1., 7., 0., 0., 4., 10.];
        let second = [2., 8., 3., 9., 5., 11., 6., 12.];
        assert_eq!(rows, [first, second].concat());
        rows.clear();
        window.rows((&image, &[2, 3]), (1, 1), 1..2, &mut rows);
        assert_eq!(rows, [8., 9., 11., 12.]);
    }

    #[test]
    fn holes_and_steps_in_one_dimension() {
        let window = Window {
            taps: vec![2],
            strides: vec![2],
            dilations: vec![3],
            before: vec![1],
            output: vec![2],
        };
        let mut rows = vec![];
        window.rows((&[1., 2., 3., 4.], &[4]), (0, 1), 0..2, &mut rows);
        assert_eq!(rows, [0., 3., 2., 0.]);
    }
}
