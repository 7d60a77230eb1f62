//! Weights by least squares, drawn towards those that there were.

use super::factor::{cholesky, dot, forms, mirror, solve};

/// How strongly weights are drawn, as shares of the mean square of an input.
const RIDGES: [f64; 6] = [1e-9, 1e-6, 1e-4, 1e-2, 1e-1, 1.0];

/// The first of them that is tried.
const FIRST: usize = 2;

/// As often as this systems are solved at most.
pub const TRIES: usize = RIDGES.len() + 1;

/// The share where nothing tells which is best.
const USUAL: f64 = 1e-2;

/// Sums over rows: of inputs `a` (with a bias the last is 1) and of what is to be made of them, `y`.
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
    /// Whether the last column is a bias: it may be anything.
    pub bias: bool,
}

/// A part of a fit, with inputs of its own: the sums of what weights are learned from and of what tells how well, and the weights that
/// there were. Where there are biases, parts have them in common.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// What is learned from.
    pub seen: &'a Sums,
    /// What tells how well.
    pub held: &'a Sums,
    /// The weights there were.
    pub prior: Prior<'a>,
}

/// How a fit is computed.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Threads; results do not depend on it.
    pub threads: usize,
    /// Called with how often systems were solved.
    pub tried: &'a dyn Fn(usize),
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
    pub fn error(&self, w: &[f64], columns: usize, threads: usize) -> f64 {
        self.target + forms(&self.inputs, columns, w, threads) - 2.0 * dot(w, &self.both)
    }
}

impl Prior<'_> {
    /// Columns that are no bias.
    fn drawn(&self) -> usize {
        self.columns - usize::from(self.bias)
    }
}

/// The weights of each of `parts` for which the sum over them of `error(w) + λ |w − prior|²` is least, where `λ` is the share `ridge` of the
/// mean square of an input of a part, those zero that are zero in `prior`; `None` where they are not determined, or not finite.
pub fn fit(parts: &[(&Sums, Prior)], ridge: f64, threads: usize) -> Option<Vec<Vec<f64>>> {
    let mut found = vec![];
    for (sums, prior) in parts {
        found.push(sums.drawn(*prior, ridge, threads)?);
    }
    if parts.first().is_some_and(|(_, prior)| prior.bias) {
        join(parts, &mut found)?;
    }
    let finite = found.iter().flatten().all(|x| x.is_finite());
    finite.then_some(found)
}

impl Sums {
    /// The weights without a bias, those zero that may not be others yet. With one, a row behind them says what a bias of 1 takes off each.
    fn drawn(&self, prior: Prior, ridge: f64, threads: usize) -> Option<Vec<f64>> {
        let (n, m) = (prior.columns, prior.drawn());
        let mean = (0..m).map(|i| self.inputs[i * n + i]).sum::<f64>() / m.max(1) as f64;
        let more = if mean > 0.0 { ridge * mean } else { 1.0 };
        let narrow =
            |x: &[f64]| -> Vec<f64> { x.chunks_exact(n).flat_map(|row| &row[..m]).copied().collect() };
        let mut l = narrow(&self.inputs[..m * n]);
        (0..m).for_each(|i| l[i * m + i] += more);
        if !cholesky(&mut l, m, threads) {
            return None;
        }
        mirror(&mut l, m);
        let mut w = narrow(&self.both);
        let weights = prior.weights.chunks_exact(n).flat_map(|row| &row[..m]);
        w.iter_mut()
            .zip(weights)
            .for_each(|(w, prior)| *w += more * prior);
        w.extend(
            prior
                .bias
                .then(|| &self.inputs[m * n..m * n + m])
                .into_iter()
                .flatten(),
        );
        solve(&l, m, &mut w, threads);
        if prior.bias {
            return Some(w);
        }
        keep_zeros(&mut w, prior);
        Some(w)
    }
}

/// What was pruned stays pruned; whether the others do better then is seen by the examples that are held back.
fn keep_zeros(w: &mut [f64], prior: Prior) {
    let (n, m) = (prior.columns, prior.drawn());
    let rows = prior.weights.chunks_exact(n).zip(w.chunks_exact_mut(m.max(1)));
    for (prior, w) in rows {
        w.iter_mut()
            .zip(prior)
            .filter(|(_, p)| **p == 0.0)
            .for_each(|(w, _)| *w = 0.0);
    }
}

/// Makes of weights of [`Sums::drawn`] those with the biases that are best for all parts together.
fn join(parts: &[(&Sums, Prior)], found: &mut [Vec<f64>]) -> Option<()> {
    let outputs = parts
        .first()
        .map_or(0, |(sums, prior)| sums.both.len() / prior.columns);
    // For each part the sums of inputs.
    let inputs = |(sums, prior): &(&Sums, Prior)| {
        let m = prior.drawn();
        sums.inputs[m * prior.columns..][..m].to_vec()
    };
    let inputs: Vec<Vec<f64>> = parts.iter().map(inputs).collect();
    let rows: f64 = parts.iter().filter_map(|(sums, _)| sums.inputs.last()).sum();
    let all = |w: &dyn Fn(usize, usize) -> f64, o: usize| -> f64 {
        let each = parts.iter().enumerate();
        each.map(|(p, (sums, prior))| sums.both[o * prior.columns + prior.drawn()] - w(p, o))
            .sum()
    };
    let row = |found: &[Vec<f64>], p: usize, o: usize| -> f64 {
        let m = inputs[p].len();
        dot(&inputs[p], &found[p][o * m..][..m])
    };
    let left = rows - (0..parts.len()).map(|p| row(found, p, outputs)).sum::<f64>();
    if left.is_nan() || left <= 0.0 {
        return None;
    }
    let biases: Vec<f64> = (0..outputs)
        .map(|o| all(&|p, o| row(found, p, o), o) / left)
        .collect();
    for ((_, prior), w) in parts.iter().zip(found.iter_mut()) {
        let m = prior.drawn();
        let more = w.split_off(outputs * m);
        for (w, bias) in w.chunks_exact_mut(m.max(1)).zip(&biases) {
            w.iter_mut().zip(&more).for_each(|(w, more)| *w -= bias * more);
        }
        keep_zeros(w, *prior);
    }
    let biases: Vec<f64> = (0..outputs)
        .map(|o| all(&|p, o| row(found, p, o), o) / rows)
        .collect();
    for ((_, prior), w) in parts.iter().zip(found) {
        let m = prior.drawn();
        *w = (0..outputs)
            .flat_map(|o| w[o * m..][..m].iter().chain([&biases[o]]))
            .copied()
            .collect();
    }
    Some(())
}

/// What errors may differ by where they are the same, as a share of all that is to be made: sums are made of products in single precision.
const SAME: f64 = 1e-7;

/// Weights of each of `parts` that make the error least over `seen` and `held` together, drawn towards `prior` as strongly as is best for
/// `held` where only `seen` is known; `None` where none are better for it than `prior`. Strengths are tried from the middle on in the
/// direction that is better.
pub fn fitted(parts: &[Part], work: Work) -> Option<Vec<Vec<f64>>> {
    let all: Vec<Sums> = parts.iter().map(|p| p.seen.and(p.held)).collect();
    let all: Vec<_> = all.iter().zip(parts).map(|(sums, p)| (sums, p.prior)).collect();
    let rows = |of: fn(&Part) -> u64| parts.iter().map(of).sum::<u64>();
    if rows(|p| p.seen.rows) == 0 || rows(|p| p.held.rows) == 0 {
        return fit(&all, USUAL, work.threads);
    }
    fit(&all, strength(parts, work)?, work.threads)
}

/// How strongly weights are drawn at best, if that is better than what there was.
fn strength(parts: &[Part], work: Work) -> Option<f64> {
    let seen: Vec<_> = parts.iter().map(|p| (p.seen, p.prior)).collect();
    let error = |w: &mut dyn Iterator<Item = &[f64]>| -> f64 {
        let each = parts.iter().zip(w);
        each.map(|(p, w)| p.held.error(w, p.prior.columns, work.threads))
            .sum()
    };
    let tries = std::cell::Cell::new(0);
    let of = |i: usize| {
        let found = fit(&seen, RIDGES[i], work.threads);
        tries.set(tries.get() + 1);
        (work.tried)(tries.get());
        found.map_or(f64::INFINITY, |w| error(&mut w.iter().map(Vec::as_slice)))
    };
    let target: f64 = parts.iter().map(|p| p.held.target).sum();
    let (mut at, mut least) = (FIRST, of(FIRST));
    let stronger = of(FIRST + 1);
    let up = stronger < least || least.is_infinite();
    if up {
        (at, least) = (FIRST + 1, stronger);
    }
    let next = |at: usize| match up {
        true => Some(at + 1).filter(|i| *i < RIDGES.len()),
        false => at.checked_sub(1),
    };
    let mut here = at;
    while let Some(i) = next(here) {
        let error = of(i);
        // On the way down errors may be too small to tell; they are all tried.
        if up && error >= least && least.is_finite() {
            break;
        }
        here = i;
        if error < least {
            (at, least) = (i, error);
        }
    }
    let before = error(&mut parts.iter().map(|p| p.prior.weights));
    (least < before - SAME * target).then_some(RIDGES[at])
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

    fn prior(bias: bool) -> Prior<'static> {
        Prior {
            weights: &PRIOR,
            columns: 3,
            bias,
        }
    }

    fn fitted(seen: &Sums, held: &Sums, prior: Prior) -> Option<Vec<f64>> {
        let work = Work {
            threads: 1,
            tried: &|_| {},
        };
        super::fitted(&[Part { seen, held, prior }], work)?.pop()
    }

    fn fit(sums: &Sums, prior: Prior, ridge: f64) -> Option<Vec<f64>> {
        super::fit(&[(sums, prior)], ridge, 1)?.pop()
    }

    #[test]
    fn the_error_is_that_of_the_rows() {
        let s = sums(0..50, 0.0);
        assert!(s.error(&[1.0, 1.0, 0.0, -1.0, 0.0, 1.0], 3, 1).abs() < 1e-9);
        let stream = Stream::new(1, "rows");
        let x = |row: u64| stream.at(row * 8) - 0.5;
        // The first output lacks twice the first input, the second has it too often once.
        let expected: f64 = (0..50).map(|row| 5.0 * x(row) * x(row)).sum();
        assert!((s.error(&PRIOR, 3, 1) - expected).abs() < 1e-9);
    }

    #[test]
    fn what_can_be_made_is_made_though_inputs_depend_on_each_other() {
        let w = fitted(&sums(0..60, 0.0), &sums(60..80, 0.0), prior(false)).unwrap();
        assert!(sums(80..90, 0.0).error(&w, 3, 1) < 1e-9, "{w:?}");
    }

    #[test]
    fn what_is_zero_stays_zero_and_the_others_make_up_for_it() {
        let weights = [1.0, 0.0, LITTLE, 0.0, LITTLE, 1.0];
        let pruned = Prior {
            weights: &weights,
            columns: 3,
            bias: false,
        };
        let (seen, held) = (sums(0..60, 0.0), sums(60..80, 0.0));
        let w = fitted(&seen, &held, pruned).unwrap();
        assert_eq!((w[1], w[3]), (0.0, 0.0));
        assert!(held.error(&w, 3, 1) < 0.9 * held.error(&weights, 3, 1), "{w:?}");
    }

    #[test]
    fn a_stronger_pull_stays_nearer() {
        let s = sums(0..60, 0.5);
        let far = |ridge| -> f64 {
            let w = fit(&s, prior(false), ridge).unwrap();
            w.iter().zip(PRIOR).map(|(w, p)| (w - p).powi(2)).sum()
        };
        assert!(far(1e3) < far(1.0) && far(1.0) < far(1e-3) && far(1e12) < 1e-9);
    }

    #[test]
    fn free_columns_are_not_drawn() {
        // The third column is drawn to nothing: it is what it would be alone.
        let (s, strong) = (sums(0..60, 0.0), 1e9);
        let w = fit(&s, prior(true), strong).unwrap();
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
            bias: false,
        };
        let (few, many) = (sums(0..2, 3.0), sums(2..400, 0.0));
        assert_eq!(fitted(&few, &many, known), None);
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let mut s = sums(0..9, 0.0);
        s.both[0] = f64::NAN;
        assert_eq!(fit(&s, prior(false), 0.1), None);
        s.inputs[0] = f64::INFINITY;
        assert_eq!(fit(&s, prior(false), 0.1), None);
    }
}
