//! The inputs of a transposed convolution as rows: one for each place of the output.
//!
//! Where it goes in steps, a place of the output is reached by some of the taps only: by those of its class, which is the same for all
//! places that are whole steps apart.

/// The taps of a transposed convolution, class by class; an element for each axis of space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// The size of the window.
    pub taps: Vec<usize>,
    /// Steps.
    pub strides: Vec<usize>,
    /// Distances of taps.
    pub dilations: Vec<usize>,
}

/// How a transposed convolution goes over an image; all of the same length, an element for each axis of space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// The window.
    pub classes: Classes,
    /// What is cut off before.
    pub before: Vec<usize>,
    /// The size of the output.
    pub output: Vec<usize>,
}

/// The digits of `x`, of which `sizes` are the bases, the last first to count.
fn digits(mut x: usize, sizes: &[usize]) -> Vec<usize> {
    let mut digits = vec![0; sizes.len()];
    for (digit, size) in digits.iter_mut().zip(sizes).rev() {
        (*digit, x) = (x % size, x / size);
    }
    digits
}

impl Classes {
    /// Those of such windows; `None` where a step is 0, or there is no tap.
    pub fn new(taps: &[usize], strides: &[usize], dilations: &[usize]) -> Option<Classes> {
        let none = taps.iter().chain(strides).any(|&x| x == 0);
        (!none).then(|| Classes {
            taps: taps.to_vec(),
            strides: strides.to_vec(),
            dilations: dilations.to_vec(),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.strides.iter().product()
    }

    /// What the window covers along axis `a`.
    pub fn reach(&self, a: usize) -> usize {
        (self.taps[a] - 1) * self.dilations[a] + 1
    }

    /// The taps of class `class`, ascending.
    pub fn taps(&self, class: usize) -> Vec<usize> {
        let rest = digits(class, &self.strides);
        let own = |tap: &usize| {
            let tap = digits(*tap, &self.taps);
            (0..tap.len()).all(|a| tap[a] * self.dilations[a] % self.strides[a] == rest[a])
        };
        (0..self.taps.iter().product()).filter(own).collect()
    }
}

impl Spread {
    /// The first place of the output along axis `a` whose class leaves `rest` there, and how many there are.
    fn along(&self, a: usize, rest: usize) -> (usize, usize) {
        let stride = self.classes.strides[a];
        let first = (rest + stride - self.before[a] % stride) % stride;
        (first, self.output[a].saturating_sub(first).div_ceil(stride))
    }

    /// For each axis the first place of the output of class `class` and how many there are.
    fn grid(&self, class: usize) -> (Vec<usize>, Vec<usize>) {
        let rest = digits(class, &self.classes.strides);
        rest.iter()
            .enumerate()
            .map(|(a, &rest)| self.along(a, rest))
            .unzip()
    }

    /// Places of the output of class `class`.
    pub fn places(&self, class: usize) -> usize {
        self.grid(class).1.iter().product()
    }

    /// Where each of the places of class `class` lies in the space of the output.
    pub fn at(&self, class: usize) -> Vec<usize> {
        let (first, counts) = self.grid(class);
        let place = |i: usize| {
            let place = digits(i, &counts);
            let axes =
                (0..place.len()).map(|a| (first[a] + place[a] * self.classes.strides[a], self.output[a]));
            axes.fold(0, |at, (x, size)| at * size + x)
        };
        (0..counts.iter().product()).map(place).collect()
    }

    /// Appends a row for each of the places `which` of class `class` of `image`, `[channels, space…]`: channels `group · inputs` and on
    /// at each tap of the class. Beside the image there are zeros.
    pub fn rows(
        &self,
        (image, space): (&[f32], &[usize]),
        (group, inputs): (usize, usize),
        (class, which): (usize, impl IntoIterator<Item = usize>),
        rows: &mut Vec<f32>,
    ) {
        let size: usize = space.iter().product();
        let image = &image[group * inputs * size..][..inputs * size];
        let taps = self.classes.taps(class);
        let taps: Vec<_> = taps.into_iter().map(|t| digits(t, &self.classes.taps)).collect();
        let (first, counts) = self.grid(class);
        for place in which {
            let place = digits(place, &counts);
            let place: Vec<usize> = (0..place.len())
                .map(|a| first[a] + place[a] * self.classes.strides[a] + self.before[a])
                .collect();
            for tap in &taps {
                match self.source(&place, tap, space) {
                    Some(at) => rows.extend(image[at..].iter().step_by(size).take(inputs)),
                    None => rows.resize(rows.len() + inputs, 0.0),
                }
            }
        }
    }

    /// Where in the space of the image what tap `tap` brings to `place` of the output before it is cut comes from.
    fn source(&self, place: &[usize], tap: &[usize], space: &[usize]) -> Option<usize> {
        let mut at = 0;
        for a in 0..space.len() {
            let way = place[a].checked_sub(tap[a] * self.classes.dilations[a])?;
            let x = way / self.classes.strides[a];
            at = at * space[a] + (x < space[a]).then_some(x)?;
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(
        taps: &[usize],
        strides: &[usize],
        dilations: &[usize],
        before: &[usize],
        output: &[usize],
    ) -> Spread {
        Spread {
            classes: Classes::new(taps, strides, dilations).unwrap(),
            before: before.to_vec(),
            output: output.to_vec(),
        }
    }

    /// What the definition makes of one channel: each element adds the window times itself at its place.
    fn made(s: &Spread, image: &[f32], space: &[usize], window: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; s.output.iter().product()];
        for (i, x) in image.iter().enumerate() {
            for (t, w) in window.iter().enumerate() {
                let (i, t) = (digits(i, space), digits(t, &s.classes.taps));
                let place = |a: usize| {
                    let at = i[a] * s.classes.strides[a] + t[a] * s.classes.dilations[a];
                    at.checked_sub(s.before[a]).filter(|at| *at < s.output[a])
                };
                let places: Option<Vec<usize>> = (0..space.len()).map(place).collect();
                let at = places.map(|p| p.iter().zip(&s.output).fold(0, |at, (p, n)| at * n + p));
                at.into_iter().for_each(|at| y[at] += x * w);
            }
        }
        y
    }

    #[test]
    fn rows_times_windows_are_what_the_definition_makes() {
        let cases = [
            (spread(&[4, 4], &[2, 2], &[1, 1], &[1, 1], &[6, 8]), vec![3, 4]),
            (spread(&[3, 2], &[1, 3], &[1, 1], &[0, 1], &[5, 9]), vec![3, 4]),
            (spread(&[3], &[2], &[2], &[3], &[7]), vec![5]),
            (spread(&[3], &[4], &[3], &[1], &[23]), vec![5]),
            (spread(&[1, 3], &[2, 3], &[1, 2], &[0, 0], &[5, 14]), vec![3, 4]),
        ];
        for (s, space) in cases {
            let n = space.iter().product::<usize>();
            let image: Vec<f32> = (0..n).map(|i| (i * 7 % 11) as f32 - 4.0).collect();
            let window: Vec<f32> = (0..s.classes.taps.iter().product::<usize>())
                .map(|i| (i * 5 % 7) as f32 - 3.0)
                .collect();
            let mut y = vec![f32::NAN; s.output.iter().product()];
            for class in 0..s.classes.count() {
                let (mut rows, taps) = (vec![], s.classes.taps(class));
                s.rows((&image, &space), (0, 1), (class, 0..s.places(class)), &mut rows);
                for (i, at) in s.at(class).into_iter().enumerate() {
                    let row = &rows[i * taps.len()..][..taps.len()];
                    y[at] = row.iter().zip(&taps).map(|(x, t)| x * window[*t]).sum();
                }
            }
            assert_eq!(y, made(&s, &image, &space, &window), "{s:?}");
        }
    }

    #[test]
    fn each_tap_has_one_class() {
        for (taps, strides, dilations) in [([4, 3], [2, 3], [1, 2]), ([2, 5], [3, 2], [2, 2])] {
            let classes = Classes::new(&taps, &strides, &dilations).unwrap();
            let mut all: Vec<_> = (0..classes.count()).flat_map(|c| classes.taps(c)).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..taps[0] * taps[1]));
        }
        assert_eq!(Classes::new(&[2], &[0], &[1]), None);
    }

    #[test]
    fn channels_of_a_group_lie_side_by_side() {
        // Two channels, the second group of one.
        let s = spread(&[2], &[1], &[1], &[0], &[3]);
        let mut rows = vec![];
        s.rows((&[1., 2., 3., 4.], &[2]), (1, 1), (0, 0..3), &mut rows);
        assert_eq!(rows, [3., 0., 4., 3., 0., 4.]);
    }
}
