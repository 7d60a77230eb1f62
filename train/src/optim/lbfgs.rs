//! Steps that take the curvature into account.

use secateur_engine::expr::Ex;
use secateur_engine::ir::DType;

use super::{Move, Optimizer, Slot};
use crate::settings::settings;
use crate::words::{cast, either, int, sum, total};

/// Limited-memory BFGS (Nocedal 1980): the direction comes from the last moves and what they changed in the gradient, over all
/// parameters together. There is no line search, since a step is one graph: the rate is the length (1 is Newton's), and the
/// first step is no longer than the rate in the sum of its elements. Meant for whole batches, whose gradients have no noise.
///
/// Two values for each pair and two more are kept for each parameter.
#[derive(Clone, Copy, Debug)]
pub struct Lbfgs {
    /// Moves that are remembered.
    pub pairs: usize,
    /// How much of the change of the gradient must lie along the move for the pair to be remembered.
    pub eps: f64,
}

impl Default for Lbfgs {
    fn default() -> Lbfgs {
        Lbfgs {
            pairs: 10,
            eps: 1e-10,
        }
    }
}
settings!(Lbfgs {
    pairs: 1.0..=100.0,
    eps: 0.0..1.0
});

/// One tensor for each parameter.
type All<'a> = Vec<Ex<'a>>;

/// The inner product over all parameters.
fn dot<'a>(a: &[Ex<'a>], b: &[Ex<'a>]) -> Option<Ex<'a>> {
    sum(a.iter().zip(b).map(|(&a, &b)| total(a * b)))
}

fn zip<'a>(a: &[Ex<'a>], b: &[Ex<'a>], f: impl Fn(Ex<'a>, Ex<'a>) -> Ex<'a>) -> All<'a> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

/// `1 / x`, or 0 where `x` is not above 0.
fn inverse(x: Ex<'_>) -> Ex<'_> {
    let (none, one) = (x.constant(0.0), x.constant(1.0));
    let above = x.op("Greater", &[none]);
    either(above, one / either(above, x, one), none)
}

impl Lbfgs {
    /// The remembered moves and changes of the gradient with the newest in front, if it is worth it.
    fn remembered<'a>(&self, all: &[Slot<'a>], t: Ex<'a>) -> Option<Vec<[All<'a>; 2]>> {
        let state = |i: usize| -> All<'a> { all.iter().map(|s| s.state[i]).collect() };
        let now: All<'a> = all.iter().map(|s| s.value).collect();
        let slope: All<'a> = all.iter().map(|s| s.gradient).collect();
        let newest = [
            zip(&now, &state(0), |a, b| a - b),
            zip(&slope, &state(1), |a, b| a - b),
        ];
        let bar = dot(&newest[1], &newest[1])? * self.eps;
        let bends = dot(&newest[0], &newest[1])?.op("Greater", &[bar]);
        // Before the first step there is nothing to compare with.
        let second = cast(t, DType::I64).op("Greater", &[int(t, 1)]);
        let counts = bends.op("And", &[second]);
        let mut before = newest;
        let mut pairs = vec![];
        for i in 0..self.pairs {
            let old = [state(2 + 2 * i), state(3 + 2 * i)];
            let kept = [0, 1].map(|k| zip(&before[k], &old[k], |new, old| either(counts, new, old)));
            pairs.push(kept);
            before = old;
        }
        Some(pairs)
    }

    /// The direction for the gradient `slope`, by the recursion in two loops.
    fn direction<'a>(pairs: &[[All<'a>; 2]], slope: All<'a>) -> Option<All<'a>> {
        let mut q = slope;
        let sizes = sum(q.iter().map(|&g| total(g.op("Abs", &[]))))?;
        let mut weights = vec![];
        for [s, y] in pairs {
            let rho = inverse(dot(s, y)?);
            let a = rho * dot(s, &q)?;
            q = zip(&q, y, |q, y| q - a * y);
            weights.push((rho, a));
        }
        let [s, y] = pairs.first()?;
        let (along, square) = (dot(s, y)?, dot(y, y)?);
        let one = sizes.constant(1.0);
        let first = one / sizes.op("Max", &[one]);
        let begun = along.op("Greater", &[along.constant(0.0)]);
        let scale = either(begun, along * inverse(square), first);
        q.iter_mut().for_each(|q| *q = *q * scale);
        for ([s, y], (rho, a)) in pairs.iter().zip(weights).rev() {
            let b = rho * dot(y, &q)?;
            q = zip(&q, s, |q, s| q + (a - b) * s);
        }
        Some(q)
    }
}

impl Optimizer for Lbfgs {
    fn name(&self) -> &'static str {
        "lbfgs"
    }

    fn about(&self) -> &'static str {
        "along Newton's direction as the last steps let it be guessed; for whole batches"
    }

    fn rate(&self) -> f64 {
        1.0
    }

    fn state(&self) -> Vec<String> {
        let pairs = (0..self.pairs).flat_map(|i| [format!("move{i}"), format!("change{i}")]);
        ["value", "gradient"]
            .map(String::from)
            .into_iter()
            .chain(pairs)
            .collect()
    }

    fn step<'a>(&self, all: &[Slot<'a>], t: Ex<'a>) -> Vec<Move<'a>> {
        let slope: All<'a> = all.iter().map(|s| s.gradient).collect();
        let pairs = self.remembered(all, t).unwrap_or_default();
        let along = Lbfgs::direction(&pairs, slope).unwrap_or_default();
        let moves = all.iter().zip(along).enumerate().map(|(i, (s, along))| {
            let pairs = pairs.iter().flat_map(|[s, y]| [s[i], y[i]]);
            Move {
                along,
                state: [s.value, s.gradient].into_iter().chain(pairs).collect(),
            }
        });
        moves.collect()
    }
}
