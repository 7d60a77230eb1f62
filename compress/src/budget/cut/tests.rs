use std::sync::Arc;

use secateur_engine::plan::Rates;
use secateur_engine::random::Random;

use super::*;
use crate::budget::{Budget, Found, Search, Verdict};
use crate::methods::find;
use crate::methods::tests::chain;
use crate::rounds::{Told, Turn};
use crate::scan::Effort;
use crate::trim::Frame;
use crate::{Choice, Weight, weights};

/// Matrices of 16 by 128, 128 by 96 and 96 by 8.
fn model() -> Model {
    let of = |n, dims: &[usize]| Random::new(n).normals(dims, 0.0, 1.0);
    chain(vec![of(1, &[16, 128]), of(2, &[128, 96]), of(3, &[96, 8])])
}

/// A school in which accuracy falls with the squares of the share of neurons that are gone, in one layer more than in another.
struct Neurons {
    hurts: [f64; 2],
}

fn widths(model: &Model) -> [usize; 2] {
    let all = weights(model);
    [0, 1].map(|i| all[i].tensor.dims()[1])
}

impl School for Neurons {
    fn score(&mut self, model: &Model) -> Result<Option<Score>, RecoverError> {
        let [a, b] = widths(model).map(|n| n as f64);
        let gone = [1.0 - a / 128.0, 1.0 - b / 96.0];
        let loss = gone.iter().zip(self.hurts).map(|(g, h)| h * g * g).sum();
        let accuracy = Some(1.0 - loss);
        Ok(Some(Score { loss, accuracy }))
    }

    fn recover(&mut self, _: Turn, model: Model, _: &[Weight], _: Told) -> Result<Model, RecoverError> {
        Ok(model)
    }
}

fn search(hurts: [f64; 2], max_drop: f64, target: &str, keep: &[&str]) -> Result<Found, RecoverError> {
    blended("neuron", hurts, (max_drop, target), keep)
}

fn blended(
    pattern: &str,
    hurts: [f64; 2],
    (max_drop, target): (f64, &str),
    keep: &[&str],
) -> Result<Found, RecoverError> {
    let (model, rates) = (model(), Arc::<Rates>::default());
    let choice = Choice {
        keep: keep.iter().map(|k| (*k).to_owned()).collect(),
        include: vec![],
    };
    let search = Search {
        subject: Subject {
            method: find("magnitude").unwrap(),
            pattern: pattern.parse().unwrap(),
            shown: None,
            seed: 0,
            choice: &choice,
            frame: Frame::default(),
            effort: Effort::default(),
        },
        budget: Budget {
            max_drop,
            target: Some(target.parse().unwrap()),
            tries: 12,
            sizes: Sizes {
                shapes: vec![vec![1, 16]],
                threads: 1,
                rates: &rates,
            },
        },
        clock: None,
        checkpoint: None,
        resume: false,
    };
    search.run(&model, (None, &mut Neurons { hurts }), &mut |_| ())
}

#[test]
fn groups_are_cut_where_it_hurts_least() {
    // 15,104 weights; a third of them.
    let found = search([0.001, 1.0], 0.3, "0.02MB", &[]).unwrap();
    assert!(found.reached(), "{:?}", found.tries);
    let [a, b] = widths(&found.model);
    assert!(a < 64 && b > 64 && a % 16 == 0 && b % 16 == 0, "{a}, {b}");
    let last = found.tries.last().unwrap();
    let gone = 1.0 - (a + b) as f64 / 224.0;
    assert!((last.sparsity - gone).abs() < 1e-12, "{last:?}");
    let names: Vec<_> = found.curves.iter().map(|c| (&*c.weight, c.elements)).collect();
    assert_eq!(names, [("w0[1]", 128), ("w1[1]", 96)]);
    for curve in &found.curves {
        let down = |w: &[Point]| w[0].score.loss < w[1].score.loss && w[0].cost > w[1].cost;
        assert!(curve.points.windows(2).all(down), "{curve:?}");
        assert_eq!(curve.points.last().unwrap().cost, 0.0);
    }
}

#[test]
fn cuts_that_break_the_budget_are_taken_back() {
    let found = search([1.0, 1.0], 0.02, "0.004MB", &[]).unwrap();
    assert!(!found.reached());
    assert!(found.tries.iter().any(|t| t.verdict == Verdict::TakenBack));
    assert!(found.before.accuracy.unwrap() - found.after.accuracy.unwrap() <= 0.02);
    assert!(found.cost < found.cost_before, "{:?}", found.tries);
}

#[test]
fn what_is_to_be_kept_has_no_curve() {
    let found = search([0.0, 0.0], 0.3, "0.03MB", &["w0"]).unwrap();
    assert_eq!(widths(&found.model)[0], 128);
    assert_eq!(found.curves.len(), 1);
    let error = search([0.0, 0.0], 0.3, "0.03MB", &["v*"]).unwrap_err();
    assert!(error.to_string().contains("\"v*\" fits no"), "{error}");
    let none = search([0.0, 0.0], 0.3, "0.03MB", &["w*"]).unwrap_err();
    assert!(none.to_string().contains("nothing to cut"), "{none}");
}

#[test]
fn what_goes_together_may_save_less_than_the_sum() {
    // The second matrix loses rows and columns: all of both layers that may go saves less than what each saves alone.
    let found = search([0.001, 0.001], 0.3, "0.008MB", &[]).unwrap();
    let alone = |c: &Curve| c.points[0].cost;
    let least = found.cost_before - found.curves.iter().map(alone).sum::<f64>();
    assert!(least < 0.0, "{least}");
    assert!(found.reached() && found.cost > 0.004, "{:?}", found.tries);
}

#[test]
fn zeros_go_where_cuts_end() {
    let cheapest = search([0.0, 0.0], 0.3, "0.0001M", &["w2"]).unwrap();
    let both = blended("neuron+unstructured", [0.0, 0.0], (0.3, "0.0001M"), &["w2"]).unwrap();
    assert!(both.cost < 0.5 * cheapest.cost, "{} {}", both.cost, cheapest.cost);
    // The neurons of the second layer are columns of what is to be kept.
    assert_eq!(widths(&both.model), [16, 96]);
    let all = weights(&both.model);
    let zeros: Vec<usize> = all.iter().map(|w| w.tensor.zeros_count()).collect();
    assert!(zeros[0] > 0 && zeros[1] > 0 && zeros[2] == 0, "{zeros:?}");
    let names: Vec<_> = both.curves.iter().map(|c| (&*c.weight, c.cut)).collect();
    assert_eq!(names, [("w0[1]", true), ("w0", false), ("w1", false)]);
    // Of the elements of w0 and w1, which are 14,336.
    let live: u64 = all[..2]
        .iter()
        .map(|w| w.elements() - w.tensor.zeros_count() as u64)
        .sum();
    let sparsity = both
        .tries
        .iter()
        .rfind(|t| t.verdict == Verdict::Kept)
        .unwrap()
        .sparsity;
    assert!(
        (sparsity - (1.0 - live as f64 / 14336.0)).abs() < 1e-12,
        "{sparsity}"
    );
    let error = blended("neuron+unstructured", [0.0, 0.0], (0.3, "1MB"), &["v*"]).unwrap_err();
    assert!(error.to_string().contains("\"v*\" fits no"), "{error}");
}
