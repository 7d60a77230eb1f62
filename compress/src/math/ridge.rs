//! Weights by least squares, drawn towards those that there were.

use super::factor::{cholesky, dot, solve};

/// How strongly weights are drawn, as shares of the mean square of an input.
const RIDGES: [f64; 6] = [1e-9, 1e-6, 1e-4, 1e-2, 1e-1, 1.0];

/// The share where nothing tells which is best.
const USUAL: f64 = 1e-2;

/// Sums over rows: of inputs `a` and of what is to be made of them, `y`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// `Σ a aᵀ`, `[columns, columns]`.
    pub inputs: Vec<f64>,
    /// `Σ y aᵀ`, `[outputs, columns]`.
    pub both: Vec<f64>,
    /// `Σ |y|²`.
    pub target: f64,
    /// The number of rows.
    pub rows: u64,
}

/// Weights `[outputs, columns]`, from which new ones do not go further than they must.
#[derive(Clone, Copy, Debug)]
pub struct Prior<'a> {
    /// The weights.
    pub weights: &'a [f64],
    /// Their columns, of which there are some.
    pub columns: usize,
    /// So many of the last columns may be anything.
    pub free: usize,
}

impl Sums {
    /// No rows.
    pub fn new(columns: usize, outputs: usize) -> Sums {
        Sums {
            inputs: vec![0.0; columns * columns],
            both: vec![0.0; outputs * columns],
            ..Sums::default()
        }
    }

    /// The sums over the rows of both.
    pub fn and(&self, other: &Sums) -> Sums {
        let add = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect();
        Sums {
            inputs: add(&self.inputs, &other.inputs),
            both: add(&self.both, &other.both),
            target: self.target + other.target,
            rows: self.rows + other.rows,
        }
    }

    /// `Σ |y − w a|²` for weights `w`, `[outputs, columns]`.
    pub fn error(&self, w: &[f64], columns: usize) -> f64 {
        let rows = w.chunks_exact(columns).zip(self.both.chunks_exact(columns));
        let one = |(w, both): (&[f64], &[f64])| {
            let squares = self.inputs.chunks_exact(columns).zip(w);
            squares.map(|(row, x)| x * dot(row, w)).sum::<f64>() - 2.0 * dot(w, both)
        };
        self.target + rows.map(one).sum::<f64>()
    }

    /// The weights `w` for which `error(w) + λ |w − prior|²` is least, where `λ` is the share `ridge` of the mean square of an input, those zero
    /// that are zero in `prior`; `None` where they are not determined, or not finite.
    pub fn fit(&self, prior: Prior, ridge: f64) -> Option<Vec<f64>> {
        let n = prior.columns;
        let drawn = n - prior.free;
        let mean = (0..drawn).map(|i| self.inputs[i * n + i]).sum::<f64>() / drawn.max(1) as f64;
        let more = if mean > 0.0 { ridge * mean } else { 1.0 };
        let mut l = self.inputs.clone();
        (0..drawn).for_each(|i| l[i * n + i] += more);
        if !cholesky(&mut l, n) {
            return None;
        }
        let mut w = self.both.clone();
        for (w, prior) in w.chunks_exact_mut(n).zip(prior.weights.chunks_exact(n)) {
            let pairs = w.iter_mut().zip(prior).take(drawn);
            pairs.for_each(|(w, prior)| *w += more * prior);
            solve(&l, w);
            // What was pruned stays pruned; whether the others do better then is seen by the examples that are held back.
            let pairs = w.iter_mut().zip(prior).take(drawn);
            pairs.filter(|(_, p)| **p == 0.0).for_each(|(w, _)| *w = 0.0);
        }
        w.iter().all(|x| x.is_finite()).then_some(w)
    }
}

/// What errors may differ by where they are the same, as a share of all that is to be made: sums are made of products in single precision.
const SAME: f64 = 1e-7;

/// Weights that make the error least over `seen` and `held` together, drawn towards `prior` as strongly as is best for `held` where only
/// `seen` is known; `None` where none are better for it than `prior`.
pub fn fitted(seen: &Sums, held: &Sums, prior: Prior) -> Option<Vec<f64>> {
    let all = seen.and(held);
    if seen.rows == 0 || held.rows == 0 {
        return all.fit(prior, USUAL);
    }
    let before = held.error(prior.weights, prior.columns);
    let mut best = (before - SAME * held.target, None);
    for ridge in RIDGES {
        let error = seen.fit(prior, ridge).map(|w| held.error(&w, prior.columns));
        if let Some(error) = error.filter(|e| *e < best.0) {
            best = (error, Some(ridge));
        }
    }
    all.fit(prior, best.1?)
}

#[cfg(test)]
mod tests {
    use super::super::chance::Stream;
    use super::*;

    /// Rows of three inputs, the second twice the first, and two outputs that are sums of them, with so much noise.
    fn sums(rows: std::ops::Range<u64>, noise: f64) -> Sums {
        let s = Stream::new(1, "rows");
        let mut sums = Sums::new(3, 2);
        for row in rows {
            let x = |i: u64| s.at(row * 8 + i) - 0.5;
            let a = [x(0), 2.0 * x(0), x(1)];
            let y = [a[0] + a[1] + noise * x(2), a[2] - a[0] + noise * x(3)];
            (0..9).for_each(|i| sums.inputs[i] += a[i / 3] * a[i % 3]);
            (0..6).for_each(|i| sums.both[i] += y[i / 3] * a[i % 3]);
            sums.target += y[0] * y[0] + y[1] * y[1];
            sums.rows += 1;
        }
        sums
    }

    /// Nearly nothing, but not pruned.
    const LITTLE: f64 = 1e-13;

    const PRIOR: [f64; 6] = [1.0, LITTLE, LITTLE, LITTLE, LITTLE, 1.0];

    fn prior(free: usize) -> Prior<'static> {
        Prior {
            weights: &PRIOR,
            columns: 3,
            free,
        }
    }

    #[test]
    fn the_error_is_that_of_the_rows() {
        let s = sums(0..50, 0.0);
        assert!(s.error(&[1.0, 1.0, 0.0, -1.0, 0.0, 1.0], 3).abs() < 1e-9);
        let stream = Stream::new(1, "rows");
        let x = |row: u64| stream.at(row * 8) - 0.5;
        // The first output lacks twice the first input, the second has it too often once.
        let expected: f64 = (0..50).map(|row| 5.0 * x(row) * x(row)).sum();
        assert!((s.error(&PRIOR, 3) - expected).abs() < 1e-9);
    }

    #[test]
    fn what_can_be_made_is_made_though_inputs_depend_on_each_other() {
        let w = fitted(&sums(0..60, 0.0), &sums(60..80, 0.0), prior(0)).unwrap();
        assert!(sums(80..90, 0.0).error(&w, 3) < 1e-9, "{w:?}");
    }

    #[test]
    fn what_is_zero_stays_zero_and_the_others_make_up_for_it() {
        let weights = [1.0, 0.0, LITTLE, 0.0, LITTLE, 1.0];
        let pruned = Prior {
            weights: &weights,
            columns: 3,
            free: 0,
        };
        let (seen, held) = (sums(0..60, 0.0), sums(60..80, 0.0));
        let w = fitted(&seen, &held, pruned).unwrap();
        assert_eq!((w[1], w[3]), (0.0, 0.0));
        assert!(held.error(&w, 3) < 0.9 * held.error(&weights, 3), "{w:?}");
    }

    #[test]
    fn a_stronger_pull_stays_nearer() {
        let s = sums(0..60, 0.5);
        let far = |ridge| -> f64 {
            let w = s.fit(prior(0), ridge).unwrap();
            w.iter().zip(PRIOR).map(|(w, p)| (w - p).powi(2)).sum()
        };
        assert!(far(1e3) < far(1.0) && far(1.0) < far(1e-3) && far(1e12) < 1e-9);
    }

    #[test]
    fn free_columns_are_not_drawn() {
        // The third column is drawn to nothing: it is what it would be alone.
        let (s, strong) = (sums(0..60, 0.0), 1e9);
        let w = s.fit(prior(1), strong).unwrap();
        let alone = (s.both[5] - s.inputs[6] * PRIOR[3] - s.inputs[7] * PRIOR[4]) / s.inputs[8];
        assert!((w[5] - alone).abs() < 1e-6 && (w[5] - 1.0).abs() > 1e-3, "{w:?}");
    }

    #[test]
    fn what_was_learned_by_chance_is_left() {
        // So few rows say nothing of the others, of which the weights that there were know all.
        let weights = [1.0, 1.0, 0.0, -1.0, 0.0, 1.0];
        let known = Prior {
            weights: &weights,
            columns: 3,
            free: 0,
        };
        let (few, many) = (sums(0..2, 3.0), sums(2..400, 0.0));
        assert_eq!(fitted(&few, &many, known), None);
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let mut s = sums(0..9, 0.0);
        s.both[0] = f64::NAN;
        assert_eq!(s.fit(prior(0), 0.1), None);
        s.inputs[0] = f64::INFINITY;
        assert_eq!(s.fit(prior(0), 0.1), None);
    }
}
