//! What a model's output says of what is likely.

use std::collections::HashMap;

use secateur_engine::ir::{AttrValue, Model, Node, ValueId};
use secateur_engine::opt::infer::{infer, opset_of};
use secateur_train::Term;

use crate::error::MethodError;
use crate::math::chance::Stream;

/// A value of a model and the distribution that it stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    pub(super) value: ValueId,
    likely: Likely,
}

/// What a value says of what is likely.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Likely {
    /// One of the classes along an axis, with shares as its softmax. Negative axes count from the end.
    Class(isize),
    /// Yes or no, with the sigmoid as the share of yes.
    Yes,
    /// Numbers about the value, with variance 1.
    Near,
}

/// So many outputs of a run are taken one by one; more at once, with random signs.
const FEW: usize = 32;

impl Head {
    /// What the loss of `task` looks at, or else all outputs of floats, each without a last softmax or sigmoid; at least one.
    pub(super) fn of(model: &Model, task: Option<&Term>) -> Result<Vec<Head>, MethodError> {
        let g = &model.graph;
        let named = task.and_then(|t| Some((g.find(t.of.first()?)?, t.loss.name())));
        if let Some((value, loss)) = named {
            let likely = match loss {
                "cross-entropy" | "nll" | "distillation" => Likely::Class(1),
                "token-cross-entropy" => Likely::Class(-1),
                "binary-cross-entropy" => Likely::Yes,
                _ => Likely::Near,
            };
            return Ok(vec![Head { value, likely }]);
        }
        let facts = infer(model, &HashMap::new()).map_err(MethodError::run)?;
        let float = |v: &ValueId| facts.of(*v).ty.dtype().is_none_or(|d| d.is_float());
        let mut heads: Vec<Head> = vec![];
        for v in g.outputs.iter().map(|p| p.value).filter(float) {
            let head = Head::end(model, v);
            // A model may show scores beside their softmax.
            if !heads.iter().any(|h| h.value == head.value) {
                heads.push(head);
            }
        }
        match heads.is_empty() {
            true => Err(MethodError::run("the model has no output of floats")),
            false => Ok(heads),
        }
    }

    /// The output `v`, or what its softmax or sigmoid is made from.
    fn end(model: &Model, v: ValueId) -> Head {
        let mut nodes = model.graph.iter().map(|(_, n)| n);
        let last = nodes.find(|n| n.outputs.contains(&Some(v)));
        let before = last.and_then(|n| n.inputs.first().copied().flatten());
        let likely = last.and_then(|n| likely(n, opset_of(&model.opsets, n)));
        match (likely, before) {
            (Some(likely), Some(value)) => Head { value, likely },
            _ => Head {
                value: v,
                likely: Likely::Near,
            },
        }
    }

    /// The gradient of minus the logarithm of the likelihood of something drawn, by the value, which is `y`.
    pub(super) fn drawn(&self, y: &[f64], dims: &[usize], chance: Stream) -> Vec<f64> {
        match self.likely {
            Likely::Near => (0..y.len()).map(|i| chance.normal(i as u64)).collect(),
            Likely::Yes => {
                let one = |(i, &y): (usize, &f64)| {
                    let p = sigmoid(y);
                    p - f64::from(u8::from(chance.at(i as u64) < p))
                };
                y.iter().enumerate().map(one).collect()
            }
            Likely::Class(axis) => {
                let mut shares = y.to_vec();
                each_row(dims, axis, |row, first| {
                    softmax(&mut shares, row);
                    let mut left = chance.at(first as u64);
                    let pick = row.iter().find(|&&i| {
                        left -= shares[i];
                        left < 0.0
                    });
                    if let Some(&i) = pick.or(row.last()) {
                        shares[i] -= 1.0;
                    }
                });
                shares
            }
        }
    }

    /// Gradients by the value, which is `y`, the sum of whose products with themselves is the second derivative of minus the
    /// logarithm of the likelihood: exactly where the value has few elements, else on average.
    pub(super) fn probes(&self, y: &[f64], dims: &[usize], chance: Stream) -> Vec<Vec<f64>> {
        let unit = |k: usize| (0..y.len()).map(|i| f64::from(u8::from(i == k))).collect();
        let signs: Vec<Vec<f64>> = match y.len() <= FEW {
            true => (0..y.len()).map(unit).collect(),
            false => vec![(0..y.len()).map(|i| chance.sign(i as u64)).collect()],
        };
        signs.into_iter().map(|e| self.root(y, dims, e)).collect()
    }

    /// The root of the second derivative times `e`.
    fn root(&self, y: &[f64], dims: &[usize], mut e: Vec<f64>) -> Vec<f64> {
        match self.likely {
            Likely::Near => {}
            Likely::Yes => e.iter_mut().zip(y).for_each(|(e, &y)| {
                let p = sigmoid(y);
                *e *= (p * (1.0 - p)).sqrt();
            }),
            Likely::Class(axis) => {
                // diag(p) - p pᵀ = (diag(√p) - p √pᵀ) · the same turned.
                let mut shares = y.to_vec();
                each_row(dims, axis, |row, _| {
                    softmax(&mut shares, row);
                    let along: f64 = row.iter().map(|&i| shares[i].sqrt() * e[i]).sum();
                    row.iter()
                        .for_each(|&i| e[i] = shares[i].sqrt() * e[i] - shares[i] * along);
                });
            }
        }
        e
    }
}

/// What the output of `node` stands for, by what goes into it.
fn likely(node: &Node, opset: i64) -> Option<Likely> {
    let axis = match node.attr("axis") {
        Some(AttrValue::Int(Some(axis))) => *axis as isize,
        _ if opset < 13 => 1,
        _ => -1,
    };
    match node.is("Softmax") || node.is("LogSoftmax") {
        true => Some(Likely::Class(axis)),
        false => node.is("Sigmoid").then_some(Likely::Yes),
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Calls `f` with the places of each row along `axis`, and the number of its first.
fn each_row(dims: &[usize], axis: isize, mut f: impl FnMut(&[usize], usize)) {
    let rank = dims.len() as isize;
    let axis = (if axis < 0 { axis + rank } else { axis }).clamp(0, (rank - 1).max(0)) as usize;
    let n = dims.get(axis).copied().unwrap_or(1);
    let inner: usize = dims.iter().skip(axis + 1).product();
    let outer: usize = dims.iter().take(axis).product();
    for o in 0..outer {
        for i in 0..inner {
            let first = o * n * inner + i;
            let row: Vec<usize> = (0..n).map(|k| first + k * inner).collect();
            f(&row, first);
        }
    }
}

/// Puts shares in the place of scores.
fn softmax(x: &mut [f64], row: &[usize]) {
    let most = row.iter().fold(f64::NEG_INFINITY, |m, &i| m.max(x[i]));
    let sum: f64 = row.iter().map(|&i| (x[i] - most).exp()).sum();
    row.iter().for_each(|&i| x[i] = (x[i] - most).exp() / sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(likely: Likely) -> Head {
        let value = ValueId(0);
        Head { value, likely }
    }

    /// The sum of products of probes.
    fn second(probes: &[Vec<f64>]) -> Vec<f64> {
        let n = probes[0].len();
        let cell = |i: usize| probes.iter().map(|p| p[i / n] * p[i % n]).sum();
        (0..n * n).map(cell).collect()
    }

    #[test]
    fn probes_make_the_second_derivative() {
        let y = [0.3, -1.0, 2.0, 0.1];
        let chance = Stream::new(0, "");
        // Two rows of two classes on axis 1 of [2, 2]: p₁p₂ on the diagonal.
        let classes = second(&head(Likely::Class(1)).probes(&y, &[2, 2], chance));
        let p = |a: f64, b: f64| a.exp() / (a.exp() + b.exp());
        let (q, r) = (p(0.3, -1.0), p(2.0, 0.1));
        let (a, b) = (q * (1.0 - q), r * (1.0 - r));
        let expected = [a, -a, 0.0, 0.0, -a, a, 0.0, 0.0, 0.0, 0.0, b, -b, 0.0, 0.0, -b, b];
        assert!(classes.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-12));
        let yes = second(&head(Likely::Yes).probes(&[0.0], &[1], chance));
        assert!((yes[0] - 0.25).abs() < 1e-12);
        assert_eq!(second(&head(Likely::Near).probes(&[7.0], &[1], chance)), [1.0]);
    }

    #[test]
    fn many_outputs_are_probed_at_once_and_right_on_average() {
        let y: Vec<f64> = (0..40).map(|i| f64::from(i % 5)).collect();
        let h = head(Likely::Class(1));
        let mut sum = vec![0.0; 40];
        for seed in 0..4000 {
            let probes = h.probes(&y, &[1, 40], Stream::new(seed, "p"));
            assert_eq!(probes.len(), 1);
            sum.iter_mut()
                .zip(&probes[0])
                .for_each(|(s, x)| *s += x * x / 4000.0);
        }
        let mut p = y.clone();
        softmax(&mut p, &(0..40).collect::<Vec<_>>());
        assert!(
            sum.iter()
                .zip(&p)
                .all(|(s, p)| (s / (p * (1.0 - p)) - 1.0).abs() < 0.2)
        );
    }

    #[test]
    fn what_is_drawn_is_as_often_as_it_is_likely() {
        let y = [1.0f64, 0.0, -1.0];
        let mut sum = [0.0; 3];
        for seed in 0..6000 {
            let g = head(Likely::Class(-1)).drawn(&y, &[1, 3], Stream::new(seed, "d"));
            assert!(g.iter().sum::<f64>().abs() < 1e-12 && g.iter().filter(|x| **x < 0.0).count() == 1);
            sum.iter_mut().zip(g).for_each(|(s, g)| *s += g / 6000.0);
        }
        // The mean gradient of the likelihood of what one holds for likely is 0.
        assert!(sum.iter().all(|s| s.abs() < 0.02), "{sum:?}");
    }
}
