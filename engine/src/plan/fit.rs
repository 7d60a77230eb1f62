//! Rates from measurements: least squares of relative errors, without negative coefficients.

use super::rates::Rate;
use crate::cpu::Cost;

/// A kernel's cost as it says, and the milliseconds that were measured.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What the kernel says.
    pub cost: Cost,
    /// Milliseconds, above 0.
    pub ms: f64,
}

/// Where the nearer caches may end, for [`Rate::near_bytes`].
const NEAR: [f64; 3] = [262_144.0, 1_048_576.0, 4_194_304.0];

/// What one more coefficient must make of the error to be believed.
const BETTER: f64 = 0.9;

/// The rate that fits `samples`, and its median relative error on samples that it was not fitted to: each fifth of them is
/// left out once.
pub fn fit(samples: &[Sample]) -> (Rate, f64) {
    let (mean, mut error) = held_out(samples, f64::INFINITY);
    let (mut near, mut least) = (f64::INFINITY, BETTER * mean);
    for candidate in NEAR {
        let (mean, median) = held_out(samples, candidate);
        if mean < least {
            (near, least, error) = (candidate, mean, median);
        }
    }
    (robust(samples, near), error)
}

const FOLDS: usize = 5;

/// The mean error on samples left out of the fit, none of them counted as more than all, and the median.
fn held_out(samples: &[Sample], near: f64) -> (f64, f64) {
    let mut errors = vec![];
    for fold in 0..FOLDS.min(samples.len()) {
        let part = |held: bool| {
            let all = samples.iter().enumerate();
            all.filter(move |(i, _)| (i % FOLDS == fold) == held)
                .map(|(_, s)| *s)
        };
        let rate = robust(&part(false).collect::<Vec<_>>(), near);
        errors.extend(part(true).map(|s| error(&rate, &s)));
    }
    errors.sort_by(f64::total_cmp);
    let median = errors.get(errors.len() / 2).copied().unwrap_or(f64::INFINITY);
    let sum: f64 = errors.iter().map(|e| e.min(1.0)).sum();
    (sum / errors.len() as f64, median)
}

fn error(rate: &Rate, s: &Sample) -> f64 {
    (rate.ms(&s.cost) / s.ms - 1.0).abs()
}

/// Rounds of weighing anew; a sample's weight is the inverse of its error, which is taken to be at least `FLOOR`.
const ROUNDS: usize = 24;
const FLOOR: f64 = 0.03;

/// The fit that a few odd samples do not move: nearly that of the least sum of relative errors, not of their squares.
///
/// Each round is a step of Gauss and Newton: since the overlap of arithmetic and traffic is homogeneous, it is the sum of
/// both, times how it grows with each at the last solution.
fn robust(samples: &[Sample], near: f64) -> Rate {
    let mut rows: Vec<Row> = samples.iter().map(|s| Row::new(s, near)).collect();
    let mut best = (f64::INFINITY, Rate::default());
    for _ in 0..ROUNDS {
        let rate = squares(&rows, near);
        let sum: f64 = samples.iter().map(|s| error(&rate, s)).sum();
        if sum < best.0 {
            best = (sum, rate);
        }
        for (row, s) in rows.iter_mut().zip(samples) {
            row.weight = 1.0 / error(&rate, s).max(FLOOR);
            let slopes = rate.parts(&s.cost).1;
            for (old, new) in row.slopes.iter_mut().zip(slopes) {
                // Half a step; and none to 0, from where nothing leads back.
                *old = (*old + new.max(0.02)) / 2.0;
            }
        }
    }
    best.1
}

/// Coefficients, in the order of [`Row::factors`].
const N: usize = 4;

/// One equation: the coefficients times these make 1.
struct Row {
    /// Of a microsecond, a nanosecond for each operation, each byte, and each far byte.
    factors: [f64; N],
    /// How the time grows with that of arithmetic and that of traffic.
    slopes: [f64; 2],
    weight: f64,
}

impl Row {
    fn new(s: &Sample, near: f64) -> Row {
        let far = (s.cost.bytes - near).max(0.0);
        let factors = [1e-3, s.cost.flops * 1e-6, s.cost.bytes * 1e-6, far * 1e-6];
        Row {
            factors: factors.map(|x| x / s.ms),
            slopes: [1.0; 2],
            weight: 1.0,
        }
    }

    fn factor(&self, i: usize) -> f64 {
        self.factors[i] * [1.0, self.slopes[0], self.slopes[1], self.slopes[1]][i]
    }
}

/// Weighted least squares: of all sets of coefficients that may differ from 0, the best whose solution has none below.
fn squares(rows: &[Row], near: f64) -> Rate {
    let mut best = (f64::INFINITY, [0.0; N]);
    for set in 1..1u32 << N {
        let free: Vec<usize> = (0..N).filter(|i| set & 1 << i != 0).collect();
        let Some(x) = solve(rows, &free).filter(|x| x.iter().all(|&x| x >= 0.0)) else {
            continue;
        };
        let off = |row: &Row| {
            let sum: f64 = x.iter().enumerate().map(|(i, x)| x * row.factor(i)).sum();
            row.weight * (sum - 1.0).powi(2)
        };
        let loss = rows.iter().map(off).sum();
        if loss < best.0 {
            best = (loss, x);
        }
    }
    let [fixed_us, ns_per_flop, ns_per_byte, ns_per_far_byte] = best.1;
    Rate {
        fixed_us,
        ns_per_flop,
        ns_per_byte,
        near_bytes: if ns_per_far_byte > 0.0 { near } else { 0.0 },
        ns_per_far_byte,
    }
}

/// The coefficients `free`, by the normal equations; the others are 0.
fn solve(rows: &[Row], free: &[usize]) -> Option<[f64; N]> {
    let n = free.len();
    let mut m = vec![vec![0.0; n + 1]; n];
    for row in rows {
        for (i, &p) in free.iter().enumerate() {
            let a = row.weight * row.factor(p);
            for (j, &q) in free.iter().enumerate() {
                m[i][j] += a * row.factor(q);
            }
            m[i][n] += a;
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
    let mut x = [0.0; N];
    for (i, &p) in free.iter().enumerate() {
        x[p] = m[i][n] / m[i][i] / scale[i];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        fixed_us: 2.0,
        ns_per_flop: 0.006,
        ns_per_byte: 0.05,
        near_bytes: 0.0,
        ns_per_far_byte: 0.0,
    };

    fn samples(rate: Rate, noise: impl Fn(usize) -> f64) -> Vec<Sample> {
        let one = |i: usize| {
            let cost = Cost {
                flops: [1e5, 1e6, 3e7, 2e8][i % 4],
                bytes: [4e4, 1e6, 2e5, 5e6, 9e4][i % 5] * (1.0 + i as f64 / 40.0),
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
        let (exact, error) = fit(&samples(RATE, |_| 1.0));
        assert!(error < 1e-3 && near(exact.ns_per_flop, 0.006, 1e-3), "{exact:?}");
        // A few per cent either way, and each tenth run disturbed.
        let noise = |i: usize| {
            [0.97, 1.02, 1.0, 1.03, 0.99, 0.98, 1.01][i % 7] * [1.0, 3.0][usize::from(i % 10 == 9)]
        };
        let (noisy, error) = fit(&samples(RATE, noise));
        assert!(error < 0.05, "{error}");
        assert!(near(noisy.fixed_us, 2.0, 0.15), "{noisy:?}");
        assert!(near(noisy.ns_per_flop, 0.006, 0.05), "{noisy:?}");
        assert!(near(noisy.ns_per_byte, 0.05, 0.05), "{noisy:?}");
    }

    #[test]
    fn the_end_of_the_cache_is_found() {
        let rate = Rate {
            ns_per_flop: 0.0,
            near_bytes: NEAR[1],
            ns_per_far_byte: 0.2,
            ..RATE
        };
        let (found, error) = fit(&samples(rate, |i| [0.98, 1.02][i % 2]));
        assert!(error < 0.04 && found.near_bytes == NEAR[1], "{found:?}");
        assert!(near(found.ns_per_far_byte, 0.2, 0.1), "{found:?}");
        assert!(near(found.ns_per_byte, 0.05, 0.1), "{found:?}");
    }

    #[test]
    fn no_coefficient_is_below_zero() {
        // Time falls with bytes: the best straight line would have a negative slope.
        let falling = |i: usize| Sample {
            cost: Cost::bytes(1000 * (i + 1)),
            ms: 1.0 / (i + 1) as f64,
        };
        let (rate, _) = fit(&(0..10).map(falling).collect::<Vec<_>>());
        assert!(rate.fixed_us > 0.0 && rate.ns_per_flop == 0.0, "{rate:?}");
        assert!(rate.ns_per_byte >= 0.0 && rate.ns_per_far_byte >= 0.0, "{rate:?}");
    }

    #[test]
    fn nothing_measured_is_no_rate_to_trust() {
        assert_eq!(fit(&[]), (Rate::default(), f64::INFINITY));
    }
}
