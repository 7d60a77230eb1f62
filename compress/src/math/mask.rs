//! Small magnitudes set to zero.

use super::Float;

/// How magnitudes stand to a threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Census {
    /// Elements that are zero.
    pub zeros: u64,
    /// Elements below the threshold, zeros included if it is not zero.
    pub below: u64,
    /// Elements that equal the threshold.
    pub equal: u64,
    /// Elements that are NaN.
    pub nans: u64,
}

impl std::ops::AddAssign for Census {
    fn add_assign(&mut self, other: Census) {
        self.zeros += other.zeros;
        self.below += other.below;
        self.equal += other.equal;
        self.nans += other.nans;
    }
}

impl Census {
    /// Zeros after [`mask`] with the same threshold.
    pub fn zeros_after(&self, ties: u64) -> u64 {
        (self.below + self.equal.saturating_sub(ties)).max(self.zeros)
    }
}

fn number(n: usize) -> u64 {
    n as u64
}

/// Counts the elements of `x` on both sides of `threshold`, which is ≥ 0 and no NaN.
pub fn census<F: Float>(x: &[F::Stored], threshold: f64) -> Census {
    let (floor, exact) = F::floor(threshold);
    let zero = F::floor(0.0).0;
    let count = |what: &dyn Fn(F::Bits) -> bool| number(x.iter().filter(|&&x| what(F::magnitude(x))).count());
    let equal = count(&|bits| bits == floor);
    Census {
        zeros: count(&|bits| bits == zero),
        below: count(&|bits| bits < floor) + if exact { 0 } else { equal },
        equal: if exact { equal } else { 0 },
        nans: count(&|bits| bits > F::INFINITY),
    }
}

/// Copies `from` to `to`, with zero in the place of every element whose magnitude is at most `threshold`, except that of
/// those that equal it the first `ties` stay. A NaN stays, whatever the threshold, which is ≥ 0 and no NaN.
pub fn mask<F: Float>(from: &[F::Stored], to: &mut [F::Stored], threshold: f64, ties: u64) {
    let (floor, exact) = F::floor(threshold);
    let mut spare = if exact { ties } else { 0 };
    for (from, to) in from.chunks(CHUNK).zip(to.chunks_mut(CHUNK)) {
        for (&x, y) in from.iter().zip(to.iter_mut()) {
            *y = if F::magnitude(x) > floor {
                x
            } else {
                F::Stored::default()
            };
        }
        if spare > 0 {
            let equal = from.iter().zip(to).filter(|(x, _)| F::magnitude(**x) == floor);
            let taken = usize::try_from(spare).unwrap_or(usize::MAX);
            spare -= number(equal.take(taken).map(|(x, y)| *y = *x).count());
        }
    }
}

/// Elements that are looked at twice while they are in cache.
const CHUNK: usize = 4096;

#[cfg(test)]
mod tests {
    use super::super::float::{F16, F32};
    use super::*;

    fn stored(x: &[f32]) -> Vec<[u8; 4]> {
        x.iter().map(|x| x.to_le_bytes()).collect()
    }

    fn masked(x: &[f32], threshold: f64, ties: u64) -> Vec<f32> {
        let mut y = stored(x);
        mask::<F32>(&stored(x), &mut y, threshold, ties);
        let y: Vec<_> = y.into_iter().map(f32::from_le_bytes).collect();
        let zeros = y.iter().filter(|&&y| y == 0.0).count();
        let census = census::<F32>(&stored(x), threshold);
        assert_eq!(
            census.zeros_after(ties),
            zeros as u64,
            "{x:?} at {threshold}, {ties} ties"
        );
        y
    }

    #[test]
    fn the_threshold_itself_goes() {
        assert_eq!(masked(&[1.0, -2.0, 3.0, -0.5], 2.0, 0), [0.0, 0.0, 3.0, 0.0]);
        assert_eq!(masked(&[1.0, -2.0, 3.0], 1.5, 1), [0.0, -2.0, 3.0]);
    }

    #[test]
    fn the_first_ties_stay() {
        assert_eq!(masked(&[-2.0, 2.0, 1.0, 2.0], 2.0, 2), [-2.0, 2.0, 0.0, 0.0]);
        assert_eq!(masked(&[0.0, 1.0, -0.0], 0.0, 1), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn ties_are_counted_across_chunks() {
        let y = masked(&[1.0; 3 * CHUNK], 1.0, CHUNK as u64 + 5);
        assert!(y[..CHUNK + 5].iter().all(|&y| y == 1.0));
        assert!(y[CHUNK + 5..].iter().all(|&y| y == 0.0));
    }

    #[test]
    fn nan_stays_and_infinity_is_a_number() {
        let x = [f32::NAN, f32::INFINITY, f32::MAX];
        assert_eq!(census::<F32>(&stored(&x), 1.0).nans, 1);
        let y = masked(&x, f64::INFINITY, 0);
        assert!(y[0].is_nan());
        assert_eq!(y[1..], [0.0, 0.0]);
        assert_eq!(masked(&[f32::NEG_INFINITY], 1e300, 0), [f32::NEG_INFINITY]);
    }

    #[test]
    fn a_threshold_between_two_numbers_has_no_ties() {
        let x = [0.1f32, 0.2].map(|x| half::f16::from_f32(x).to_le_bytes());
        let mut y = x;
        mask::<F16>(&x, &mut y, 0.1, 5);
        assert_eq!(y, [[0, 0], x[1]]);
        assert_eq!(census::<F16>(&x, 0.1).below, 1);
    }
}
