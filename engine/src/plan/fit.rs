//! Rates from measurements: least squares of relative errors, without negative coefficients.

use super::rates::Rate;
use crate::cpu::Cost;

/// A kernel's cost as it says, and the milliseconds that were measured.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What the kernel says.
    pub cost: Cost,
    /// Milliseconds.
    pub ms: f64,
}

/// The rate that fits `samples`, and its median relative error on samples that it was not fitted to: each fifth of them is
/// left out once.
pub fn fit(samples: &[Sample]) -> (Rate, f64) {
    let mut errors = vec![];
    for fold in 0..FOLDS.min(samples.len()) {
        let part = |held: bool| {
            let all = samples.iter().enumerate();
            all.filter(move |(i, _)| (i % FOLDS == fold) == held)
                .map(|(_, s)| *s)
        };
        let rate = robust(&part(false).collect::<Vec<_>>());
        errors.extend(part(true).map(|s| (rate.ms(&s.cost) / s.ms - 1.0).abs()));
    }
    errors.sort_by(f64::total_cmp);
    let error = errors.get(errors.len() / 2).copied().unwrap_or(f64::INFINITY);
    (robust(samples), error)
}

const FOLDS: usize = 5;

/// Rounds of weighing anew; a sample's weight is the inverse of its error, which is taken to be at least `FLOOR`.
const ROUNDS: usize = 12;
const FLOOR: f64 = 0.03;

/// The fit that a few odd samples do not move: nearly that of the least sum of relative errors, not of their squares.
fn robust(samples: &[Sample]) -> Rate {
    let mut weights = vec![1.0; samples.len()];
    let mut rate = Rate::default();
    for _ in 0..ROUNDS {
        rate = squares(samples, &weights);
        for (w, s) in weights.iter_mut().zip(samples) {
            *w = 1.0 / (rate.ms(&s.cost) / s.ms - 1.0).abs().max(FLOOR);
        }
    }
    rate
}

/// What the three coefficients of [`Rate`] are multiplied by to milliseconds, over the time measured.
fn row(s: &Sample) -> [f64; 3] {
    [
        1e-3 / s.ms,
        s.cost.flops * 1e-6 / s.ms,
        s.cost.bytes * 1e-6 / s.ms,
    ]
}

/// Weighted least squares: of all sets of coefficients that may differ from 0, the best whose solution has none below.
fn squares(samples: &[Sample], weights: &[f64]) -> Rate {
    let mut best = (f64::INFINITY, [0.0; 3]);
    for set in 1..8u32 {
        let free: Vec<usize> = (0..3).filter(|i| set & 1 << i != 0).collect();
        let Some(x) = solve(samples, weights, &free).filter(|x| x.iter().all(|&x| x >= 0.0)) else {
            continue;
        };
        let off = |(s, w): (&Sample, &f64)| {
            let sum: f64 = row(s).iter().zip(x).map(|(a, x)| a * x).sum();
            w * (sum - 1.0).powi(2)
        };
        let loss = samples.iter().zip(weights).map(off).sum();
        if loss < best.0 {
            best = (loss, x);
        }
    }
    let [fixed_us, ns_per_flop, ns_per_byte] = best.1;
    Rate {
        fixed_us,
        ns_per_flop,
        ns_per_byte,
    }
}

/// The coefficients `free`, by the normal equations; the others are 0.
fn solve(samples: &[Sample], weights: &[f64], free: &[usize]) -> Option<[f64; 3]> {
    let n = free.len();
    let mut m = vec![vec![0.0; n + 1]; n];
    for (s, w) in samples.iter().zip(weights) {
        let a = row(s);
        for (i, &p) in free.iter().enumerate() {
            for (j, &q) in free.iter().enumerate() {
                m[i][j] += w * a[p] * a[q];
            }
            m[i][n] += w * a[p];
        }
    }
    // Elimination on a matrix scaled to ones on the diagonal, where a small pivot means that columns are alike.
    let scale: Vec<f64> = (0..n).map(|i| m[i][i].sqrt()).collect();
    if scale.contains(&0.0) {
        return None;
    }
    for (i, row) in m.iter_mut().enumerate() {
        for (x, s) in row.iter_mut().zip(scale.iter().chain([&1.0])) {
            *x /= s * scale[i];
        }
    }
    for p in 0..n {
        if m[p][p] < 1e-9 {
            return None;
        }
        let pivot = m[p].clone();
        for (_, row) in m.iter_mut().enumerate().filter(|(i, _)| *i != p) {
            let factor = row[p] / pivot[p];
            row.iter_mut().zip(&pivot).for_each(|(x, y)| *x -= factor * y);
        }
    }
    let mut x = [0.0; 3];
    for (i, &p) in free.iter().enumerate() {
        x[p] = m[i][n] / m[i][i] / scale[i];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rate: Rate, noise: impl Fn(usize) -> f64) -> Vec<Sample> {
        let one = |i: usize| {
            let cost = Cost {
                flops: [1e5, 1e6, 3e7, 2e8][i % 4],
                bytes: [4e4, 1e6, 2e5, 5e6, 9e4][i % 5],
                efficiency: 1.0,
            };
            Sample {
                ms: rate.ms(&cost) * noise(i),
                cost,
            }
        };
        (0..40).map(one).collect()
    }

    fn near(a: f64, b: f64, within: f64) -> bool {
        (a - b).abs() <= within * b
    }

    #[test]
    fn known_coefficients_come_back() {
        let rate = Rate {
            fixed_us: 2.0,
            ns_per_flop: 0.006,
            ns_per_byte: 0.05,
        };
        let (exact, error) = fit(&samples(rate, |_| 1.0));
        assert!(error < 1e-9 && near(exact.ns_per_flop, 0.006, 1e-9), "{exact:?}");
        // A few per cent either way, and each tenth run disturbed.
        let noise = |i: usize| {
            [0.97, 1.02, 1.0, 1.03, 0.99, 0.98, 1.01][i % 7] * [1.0, 3.0][usize::from(i % 10 == 9)]
        };
        let (noisy, error) = fit(&samples(rate, noise));
        assert!(error < 0.05, "{error}");
        assert!(near(noisy.fixed_us, 2.0, 0.15), "{noisy:?}");
        assert!(near(noisy.ns_per_flop, 0.006, 0.05), "{noisy:?}");
        assert!(near(noisy.ns_per_byte, 0.05, 0.05), "{noisy:?}");
    }

    #[test]
    fn no_coefficient_is_below_zero() {
        // Time falls with bytes: the best straight line would have a negative slope.
        let falling = |i: usize| Sample {
            cost: Cost::bytes(1000 * (i + 1)),
            ms: 1.0 / (i + 1) as f64,
        };
        let all: Vec<_> = (0..10).map(falling).collect();
        let (rate, _) = fit(&all);
        assert!(
            rate.fixed_us > 0.0 && rate.ns_per_byte >= 0.0 && rate.ns_per_flop == 0.0,
            "{rate:?}"
        );
    }

    #[test]
    fn nothing_measured_is_no_rate_to_trust() {
        assert_eq!(fit(&[]), (Rate::default(), f64::INFINITY));
    }
}
