//! Every architecture takes training steps.

use secateur_train::loss::loss;
use secateur_train::optim::optimizer;
use secateur_train::{Optimizer, Spec, StepGraph, Term, step};

use super::*;

/// A model that is being trained, with what goes from step to step.
pub(super) struct Run {
    graph: StepGraph,
    session: Session,
    state: Vec<Tensor>,
}

impl Run {
    /// Steps of `optimizer` by the loss `kind` between the first output of `m` and `label`.
    pub(super) fn new(m: &Model, kind: &str, optimizer: &dyn Optimizer) -> Run {
        let kind = loss(kind).unwrap();
        let output = m.graph[m.graph.outputs[0].value].name.to_string();
        let terms = [Term {
            loss: &*kind,
            of: &[&output, "label"],
            weight: 1.0,
        }];
        let spec = Spec {
            outputs: &[&output],
            ..Spec::new(&terms, optimizer)
        };
        let graph = step(m, &spec).unwrap();
        let session = Session::builder(&graph.model).threads(2).build().unwrap();
        let state = graph.state.iter().map(|s| s.start.clone()).collect();
        Run {
            graph,
            session,
            state,
        }
    }

    /// The loss, and the model's output before the step.
    pub(super) fn step(&mut self, rate: f32, batch: &[(String, Tensor)]) -> (f64, Tensor) {
        let rate = Tensor::scalar(rate);
        let state = self.graph.state.iter().map(|s| s.input.as_str()).zip(&self.state);
        let feeds = state.chain([(self.graph.rate.as_str(), &rate)]);
        let feeds: Vec<_> = feeds.chain(batch.iter().map(|(n, t)| (n.as_str(), t))).collect();
        let outputs = self.session.run(feeds).unwrap();
        let output = outputs[self.graph.model.graph[self.graph.model.graph.outputs[1].value]
            .name
            .as_ref()]
        .clone();
        let new = self.graph.state.iter().map(|s| outputs[&*s.output].clone());
        self.state = new.collect();
        (outputs[&*self.graph.loss].item().unwrap(), output)
    }

    /// Puts what was learned into `m`.
    pub(super) fn put_back(&self, m: &mut Model) {
        self.graph.put_back(&self.state, m).unwrap();
    }
}

/// The loss that fits the first output of `m`, and labels for a batch of `batch`.
fn labels(m: &Model, batch: usize) -> (&'static str, Tensor) {
    let y = run(m, &inputs(m, batch, 8), &[]).swap_remove(0);
    let mut r = Random::new(9);
    let classes = |dims: &[usize], r: &mut Random| {
        let n: usize = dims.iter().product();
        Tensor::of(dims, (0..n).map(|_| r.below(3) as i64).collect::<Vec<i64>>())
    };
    match (y.dims(), &*m.graph[m.graph.outputs[0].value].name) {
        (dims, "reconstruction") => ("mse", r.tensor(dims, 1.0)),
        ([batch, length, _], _) => ("token-cross-entropy", classes(&[*batch, *length], &mut r)),
        _ => ("cross-entropy", classes(&[batch], &mut r)),
    }
}

/// The losses of `count` steps on one batch; checks that the first sees what inference gives.
fn losses(m: &Model, count: usize, rate: f32) -> Vec<f64> {
    let mut batch = inputs(m, 4, 8);
    let (kind, label) = labels(m, 4);
    let expected = run(m, &batch, &[])[0].floats().unwrap();
    batch.push(("label".into(), label));
    let mut run = Run::new(m, kind, &*optimizer("adam").unwrap());
    let moves = ["BatchNormalization", "Dropout"];
    let same = !m.graph.iter().any(|(_, n)| moves.contains(&&*n.op));
    let step = |i| {
        let (loss, y) = run.step(rate, &batch);
        if i == 0 && same {
            near(&y.floats().unwrap(), &expected, 1e-5);
        }
        loss
    };
    (0..count).map(step).collect()
}

#[test]
fn every_architecture_learns() {
    for (name, set) in SMALL {
        let all = losses(&build(name, set), 10, 3e-3);
        println!("{name}: {:.4} to {:.4}", all[0], all[9]);
        assert!(all[9] < all[0], "{name}: {all:?}");
    }
}

#[test]
fn other_forms_learn() {
    let forms: &[(&str, &[(&str, &str)])] = &[
        (
            "bert-base",
            &[("head", "tokens"), ("dropout", "0.1"), ("length", "0")],
        ),
        ("gru", &[("vocabulary", "0")]),
        ("mlp", &[("activation", "selu"), ("dropout", "0.2")]),
        ("resnet20", &[("block", "bottleneck")]),
        ("resnet20", &[("block", "preactivation")]),
        (
            "transformer-encoder",
            &[("vocabulary", "0"), ("norm", "pre"), ("dropout", "0.1")],
        ),
        ("vgg16", &[("batchnorm", "yes"), ("dropout", "0.1")]),
    ];
    for (name, set) in forms {
        let all = losses(&small(name, set), 10, 3e-3);
        assert!(all[9] < all[0], "{name} {set:?}: {all:?}");
    }
}
