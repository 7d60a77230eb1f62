//! What a few runs say of all runs.

/// A mean and how far it may be off: the mean of all runs lies within `mean ± half` with 95 % confidence, if runs are normal
/// (Student 1908). With fewer than two numbers `half` is infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The mean of the numbers.
    pub mean: f64,
    /// `t · s / √n`, s being the deviation with n - 1 degrees of freedom.
    pub half: f64,
}

impl Interval {
    /// That of `x`; `None` of no numbers.
    pub fn of(x: &[f64]) -> Option<Interval> {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let squares: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
        let half = match x.len() {
            0 => return None,
            1 => f64::INFINITY,
            len => quantile(len - 1) * (squares / (n - 1.0) / n).sqrt(),
        };
        Some(Interval { mean, half })
    }

    /// That of the differences of pairs: `a` less `b`.
    pub fn paired(a: &[f64], b: &[f64]) -> Option<Interval> {
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        Interval::of(&differences)
    }

    /// Whether all of it lies above 0.
    pub fn is_above_zero(&self) -> bool {
        self.mean - self.half > 0.0
    }
}

/// Quantiles of Student's distribution at 97.5 % with 1, 2, 3 … degrees of freedom.
const QUANTILES: [f64; 30] = [
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604,
    2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555,
    2.0518, 2.0484, 2.0452, 2.0423,
];

/// The quantile of Student's distribution at 97.5 %: beyond the table by the first terms of its expansion about the normal one
/// (Abramowitz and Stegun 26.7.5), good to 10⁻⁴.
fn quantile(freedom: usize) -> f64 {
    let z = 1.959_963_985_f64;
    let (one, n) = (QUANTILES.get(freedom.wrapping_sub(1)), freedom as f64);
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    one.copied().unwrap_or(z + first / n + second / (n * n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_textbook() {
        // Of 1 to 5: s = 1.5811, t = 2.7764.
        let found = Interval::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!(
            found.mean == 3.0 && (found.half - 1.9632).abs() < 1e-4,
            "{found:?}"
        );
        let equal = Interval::of(&[2.0, 2.0]).unwrap();
        assert_eq!((equal.mean, equal.half), (2.0, 0.0));
        assert!(Interval::of(&[]).is_none());
        assert_eq!(Interval::of(&[1.0]).unwrap().half, f64::INFINITY);
    }

    #[test]
    fn quantiles_go_on_beyond_the_table() {
        for (freedom, known) in [(30, 2.0423), (31, 2.0395), (60, 2.0003), (1000, 1.9623)] {
            assert!(
                (quantile(freedom) - known).abs() < 1e-4,
                "{freedom}: {}",
                quantile(freedom)
            );
        }
    }

    #[test]
    fn pairs_are_compared_one_by_one() {
        let (a, b) = ([0.9, 0.5, 0.7], [0.8, 0.4, 0.6]);
        let found = Interval::paired(&a, &b).unwrap();
        assert!((found.mean - 0.1).abs() < 1e-12 && found.half < 1e-12);
        assert!(found.is_above_zero());
        assert!(!Interval::of(&a.map(|x| x - 0.7)).unwrap().is_above_zero());
    }
}
