//! Means and variances of what flows between nodes, channel by channel.

use secateur_engine::Tensor;

/// Sums over all elements of each channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moments {
    count: f64,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Adds the elements of `x`, whose channels are its axis `axis`, or counted from the end where that is negative. Whether it has that
    /// axis, as many channels as before, and floats.
    pub(super) fn add(&mut self, x: &Tensor, axis: isize) -> bool {
        let rank = x.dims().len();
        let axis = usize::try_from(axis)
            .ok()
            .or_else(|| rank.checked_add_signed(axis));
        let Some(axis) = axis.filter(|&a| a < rank && x.dtype().is_float()) else {
            return false;
        };
        let (channels, inner) = (x.dims()[axis], x.dims()[axis + 1..].iter().product::<usize>());
        if self.sums.is_empty() {
            (self.sums, self.squares) = (vec![0.0; channels], vec![0.0; channels]);
        }
        if self.sums.len() != channels || channels == 0 {
            return false;
        }
        self.count += (x.len() / channels) as f64;
        match x.elements::<f32>() {
            Some(x) => self.sum(x.iter().map(|&x| f64::from(x)), inner),
            None => match x.floats() {
                Some(x) => self.sum(x.into_iter(), inner),
                None => return false,
            },
        }
        true
    }

    fn sum(&mut self, x: impl Iterator<Item = f64>, inner: usize) {
        let (mut channel, mut left) = (0, inner);
        for x in x {
            self.sums[channel] += x;
            self.squares[channel] += x * x;
            left -= 1;
            if left == 0 {
                (channel, left) = ((channel + 1) % self.sums.len(), inner);
            }
        }
    }

    pub(super) fn means(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| sum / self.count).collect()
    }

    /// Those of the elements, not of a population they were drawn from.
    pub(super) fn variances(&self) -> Vec<f64> {
        let each = self.squares.iter().zip(self.means());
        each.map(|(squares, mean)| (squares / self.count - mean * mean).max(0.0))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_summed_by_themselves() {
        let mut m = Moments::default();
        let x = Tensor::of(&[2, 2, 2], vec![1f32, 3.0, 10.0, 10.0, 5.0, 7.0, 10.0, 30.0]);
        assert!(m.add(&x, 1));
        assert_eq!((m.means(), m.variances()), (vec![4.0, 15.0], vec![5.0, 75.0]));
        assert!(m.add(&Tensor::of(&[1, 2], vec![4f64, 15.0]), -1));
        assert_eq!((m.means(), m.variances()), (vec![4.0, 15.0], vec![4.0, 60.0]));
    }

    #[test]
    fn what_has_no_such_channels_is_refused() {
        let mut m = Moments::default();
        let of = |dims: &[usize]| Tensor::of(dims, vec![1f32; dims.iter().product()]);
        assert!(!m.add(&of(&[3]), 1) && !m.add(&of(&[3]), -2) && !m.add(&of(&[0, 0]), 1));
        assert!(m.add(&of(&[1, 3]), 1));
        assert!(!m.add(&of(&[3, 1]), 1));
        assert!(!m.add(&Tensor::of(&[1, 3], vec![1i64; 3]), 1));
    }
}
