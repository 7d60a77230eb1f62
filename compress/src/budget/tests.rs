use std::sync::Arc;

use secateur_engine::ir::{Attr, DType, Dim, Node, Type};
use secateur_engine::plan::Rates;
use secateur_engine::random::Random;
use secateur_engine::{Model, Tensor};

use super::*;
use crate::methods::find;
use crate::methods::tests::chain;
use crate::recover::RecoverError;
use crate::rounds::{School, Score, Told, Turn};
use crate::scan::Effort;
use crate::trim::Frame;
use crate::{Choice, Pattern, Weight, weights};

/// A school in which accuracy falls with the squares of what is missing, in some weights more than in others.
struct Squares {
    start: Vec<Vec<f64>>,
    /// By weight.
    hurts: Vec<f64>,
    /// What recovery makes of the harm.
    left: f64,
    recovered: u32,
}

impl Squares {
    fn new(model: &Model, hurts: &[f64], left: f64) -> Squares {
        let start = weights(model)
            .iter()
            .map(|w| w.tensor.floats().unwrap())
            .collect();
        Squares {
            start,
            hurts: hurts.to_vec(),
            left,
            recovered: 0,
        }
    }
}

impl School for Squares {
    fn score(&mut self, model: &Model) -> Result<Option<Score>, RecoverError> {
        let now = weights(model).into_iter().map(|w| w.tensor.floats().unwrap());
        let each = now
            .zip(&self.start)
            .zip(&self.hurts)
            .map(|((now, start), hurts)| {
                let squares = |(a, b): (f64, &f64)| (a - b).powi(2);
                hurts * now.into_iter().zip(start).map(squares).sum::<f64>() / start.len() as f64
            });
        let share = if self.recovered > 0 { self.left } else { 1.0 };
        let loss = share * each.sum::<f64>();
        let accuracy = Some(1.0 - loss);
        Ok(Some(Score { loss, accuracy }))
    }

    fn recover(&mut self, _: Turn, model: Model, _: &[Weight], _: Told) -> Result<Model, RecoverError> {
        self.recovered += 1;
        Ok(model)
    }
}

fn model() -> Model {
    let weight = |seed| Random::new(seed).normals(&[16, 16], 0.0, 1.0);
    chain((1..=3).map(weight).collect::<Vec<Tensor>>())
}

/// A search that may lose so much.
fn searching<'a>(
    choice: &'a Choice,
    rates: &'a Arc<Rates>,
    max_drop: f64,
    target: Option<&str>,
) -> Search<'a> {
    Search {
        subject: Subject {
            method: find("magnitude").unwrap(),
            pattern: Pattern::Unstructured.into(),
            shown: None,
            seed: 0,
            choice,
            frame: Frame::default(),
            effort: Effort::default(),
        },
        budget: Budget {
            max_drop,
            target: target.map(|t| t.parse().unwrap()),
            tries: 20,
            sizes: Sizes {
                shapes: vec![vec![1, 16]],
                threads: 1,
                rates,
            },
        },
        clock: None,
        checkpoint: None,
        resume: false,
    }
}

/// What a search finds that is measured by `hurts` and may lose so much.
fn search(hurts: [f64; 3], left: f64, max_drop: f64, target: Option<&str>) -> Found {
    let (model, choice, rates) = (model(), Choice::default(), Arc::<Rates>::default());
    let search = searching(&choice, &rates, max_drop, target);
    let mut school = Squares::new(&model, &hurts, left);
    let found = search.run(&model, (None, &mut school), &mut |_| ()).unwrap();
    let after = school.score(&found.model).unwrap().unwrap();
    assert_eq!(after, found.after);
    assert!(found.before.accuracy.unwrap() - after.accuracy.unwrap() <= max_drop);
    found
}

/// The zeros of each weight.
fn zeros(model: &Model) -> Vec<usize> {
    weights(model).iter().map(|w| w.tensor.zeros_count()).collect()
}

/// All weights together: 768 floats.
const WHOLE: f64 = 768.0 * 4.0 / 1e6;

/// A school whose recovery takes all weights away.
struct Ruin(Squares);

impl School for Ruin {
    fn score(&mut self, model: &Model) -> Result<Option<Score>, RecoverError> {
        self.0.score(model)
    }

    fn recover(&mut self, _: Turn, model: Model, _: &[Weight], _: Told) -> Result<Model, RecoverError> {
        let none = weights(&model).into_iter().map(|w| {
            let dims = w.tensor.dims();
            Tensor::zeros(DType::F32, dims).unwrap()
        });
        Ok(chain(none.collect()))
    }
}

#[test]
fn recovery_that_makes_it_worse_is_left_out() {
    let (model, choice, rates) = (model(), Choice::default(), Arc::<Rates>::default());
    let hurts = [0.01, 1.0, 0.01];
    let search = searching(&choice, &rates, 0.05, Some("0.0015MB"));
    let mut school = Ruin(Squares::new(&model, &hurts, 1.0));
    let found = search.run(&model, (None, &mut school), &mut |_| ()).unwrap();
    let mut plain = Squares::new(&model, &hurts, 1.0);
    let without = search.run(&model, (None, &mut plain), &mut |_| ()).unwrap();
    assert_eq!(found.model, without.model);
    assert!(found.cost < found.cost_before && found.tries.iter().all(|t| t.after == t.before));
}

#[test]
fn what_hurts_least_goes_first_and_the_target_is_met() {
    let found = search([0.01, 1.0, 0.01], 1.0, 0.05, Some("0.0015MB"));
    assert!(found.reached() && found.cost <= 0.0015, "{:?}", found.tries);
    assert!((found.cost_before - WHOLE).abs() < 1e-12);
    let [a, b, c] = zeros(&found.model)[..] else {
        panic!("three weights")
    };
    assert!(a > 128 && c > 128 && b < 64, "{a}, {b}, {c}");
    assert!(found.tries.iter().all(|t| t.verdict == Verdict::Kept));
}

#[test]
fn the_budget_is_never_broken() {
    for max_drop in [0.0, 0.01, 0.1, 0.3] {
        let found = search([1.0, 1.0, 1.0], 1.0, max_drop, Some("0.0001M"));
        assert!(!found.reached());
        assert!(found.tries.iter().any(|t| t.verdict == Verdict::TakenBack));
        assert_eq!(
            zeros(&found.model).iter().sum::<usize>() > 0,
            max_drop >= 0.01,
            "{max_drop}"
        );
    }
}

#[test]
fn recovery_goes_farther() {
    let without = search([1.0, 1.0, 1.0], 1.0, 0.02, Some("0.0001M"));
    let with = search([1.0, 1.0, 1.0], 0.05, 0.02, Some("0.0001M"));
    assert!(with.cost < 0.8 * without.cost, "{}, {}", with.cost, without.cost);
}

#[test]
fn without_a_target_it_goes_as_far_as_it_may() {
    let found = search([0.0, 0.0, 1.0], 1.0, 0.01, None);
    let [a, b, _] = zeros(&found.model)[..] else {
        panic!("three weights")
    };
    assert!(!found.reached() && found.cost <= found.cost_before);
    // Which weights are worth it is for the cost of kernels to say.
    assert!(a <= 244 && b <= 244);
}

#[test]
fn curves_begin_with_the_weight_as_it_is_and_go_down() {
    let found = search([0.5, 1.0, 0.0], 1.0, 0.01, Some("0.002MB"));
    assert_eq!(found.curves.len(), 3);
    for (curve, hurts) in found.curves.iter().zip([0.5, 1.0, 0.0]) {
        assert_eq!(curve.points.len(), 1 + LEVELS.len());
        assert_eq!((curve.elements, curve.points[0].sparsity), (256, 0.0));
        let down = |w: &[Point]| w[0].score.loss <= w[1].score.loss && w[0].cost >= w[1].cost;
        assert!(curve.points.windows(2).all(down), "{curve:?}");
        assert_eq!(curve.points.last().unwrap().score.loss > 0.0, hurts > 0.0);
    }
}

#[test]
fn multiplications_by_zeros_are_not_counted() {
    let model = model();
    let rates = Arc::<Rates>::default();
    let sizes = Sizes {
        shapes: vec![vec![2, 16]],
        threads: 1,
        rates: &rates,
    };
    let macs = Costs::new(&model, Quantity::Macs, &sizes).unwrap();
    let each = 2.0 * 256.0 / 1e6;
    assert!((macs.whole - 3.0 * each).abs() < 1e-12 && macs.of.len() == 3);
    let choice = Choice::default();
    let subject = Subject {
        method: find("magnitude").unwrap(),
        pattern: Pattern::Unstructured.into(),
        shown: None,
        seed: 0,
        choice: &choice,
        frame: Frame::default(),
        effort: Effort::default(),
    };
    let pruned = ready::Ready::new(&subject, &model)
        .unwrap()
        .pruned(&|name| (name == "w1").then_some(sense::Part { share: 0.75, of: 256 }))
        .unwrap();
    let macs = Costs::new(&pruned, Quantity::Macs, &sizes).unwrap();
    assert!((macs.whole - 2.25 * each).abs() < 1e-12);
    assert!((macs.of["w1"] - 0.25 * each).abs() < 1e-12);
    // Products in a row may be one product in the plan.
    let ms = Costs::new(&model, Quantity::Ms, &sizes).unwrap();
    assert!(ms.whole > 0.0 && ms.of.values().sum::<f64>() <= ms.whole + 1e-12);
}

#[test]
fn biases_and_weights_that_share_a_node_are_told_apart() {
    let mut model = Model::default();
    let g = &mut model.graph;
    let x = g.input("x", Type::tensor(DType::F32, [Dim::from(2usize), 4usize.into()]));
    let w = g.constant("w", Random::new(1).normals(&[4, 3], 0.0, 1.0));
    let b = g.constant("b", Tensor::zeros(DType::F32, &[3]).unwrap());
    let y = g.value("y");
    g.node(Node::new("Gemm", [x, w, b].map(Some).into(), vec![Some(y)]));
    let [v, u] = ["v", "u"].map(|n| g.constant(n, Random::new(2).normals(&[3, 4], 0.0, 1.0)));
    let (both, z) = (g.value("both"), g.value("z"));
    let mut join = Node::new("Concat", [v, u].map(Some).into(), vec![Some(both)]);
    join.attrs.push(Attr::new("axis", 1));
    g.node(join);
    g.node(Node::new("MatMul", [y, both].map(Some).into(), vec![Some(z)]));
    g.output(z, None);
    let rates = Arc::<Rates>::default();
    let sizes = Sizes {
        shapes: vec![vec![2, 4]],
        threads: 1,
        rates: &rates,
    };
    let macs = Costs::new(&model, Quantity::Macs, &sizes).unwrap();
    // 2 · 4 · 3, and 2 · 3 · 8 of which each half is a weight's.
    let near = |a: f64, b: f64| (a - b / 1e6).abs() < 1e-12;
    assert!(near(macs.whole, 72.0) && near(macs.of["w"], 24.0), "{macs:?}");
    assert!(near(macs.of["v"], 24.0) && near(macs.of["u"], 24.0) && !macs.of.contains_key("b"));
}

#[test]
fn what_is_made_part_of_another_node_has_its_cost() {
    let mut model = Model {
        opsets: chain(vec![Random::new(1).normals(&[2, 2], 0.0, 1.0)]).opsets,
        ..Model::default()
    };
    let g = &mut model.graph;
    let x = g.input(
        "x",
        Type::tensor(DType::F32, [Dim::from(1usize), 256usize.into()]),
    );
    let w = g.constant("w", Random::new(1).normals(&[256, 512], 0.0, 1.0));
    let b = g.constant("b", Tensor::zeros(DType::F32, &[512]).unwrap());
    let [y, z] = ["y", "z"].map(|n| g.value(n));
    g.node(Node::new("Gemm", [x, w, b].map(Some).into(), vec![Some(y)]));
    g.node(Node::new("Relu", vec![Some(y)], vec![Some(z)]));
    g.output(z, None);
    let rates = Arc::<Rates>::default();
    let sizes = Sizes {
        shapes: vec![vec![1, 256]],
        threads: 1,
        rates: &rates,
    };
    let ms = |model: &Model| Costs::new(model, Quantity::Ms, &sizes).unwrap();
    let dense = ms(&model);
    assert!(dense.of["w"] > 0.5 * dense.whole, "{dense:?}");
    let choice = Choice::default();
    let subject = Subject {
        method: find("magnitude").unwrap(),
        pattern: Pattern::Unstructured.into(),
        shown: None,
        seed: 0,
        choice: &choice,
        frame: Frame::default(),
        effort: Effort::default(),
    };
    let part = sense::Part { share: 0.95, of: 0 };
    let sparse = ms(&ready::Ready::new(&subject, &model)
        .unwrap()
        .pruned(&|_| Some(part))
        .unwrap());
    assert!(sparse.of["w"] < 0.5 * dense.of["w"], "{sparse:?}");
}
