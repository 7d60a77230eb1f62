//! Training steps run one after the other.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "tests use what they need, and end where they cannot go on"
)]

use secateur_engine::expr::{Builder, Ex};
use secateur_engine::ir::{DType, Opset, Type};
use secateur_engine::{Model, Session, Tensor, ops};
use secateur_train::{Group, Loss, Optimizer, Settings, Spec, StepGraph, Term, step};

/// A loss that is the sum of what it is given.
#[derive(Debug)]
pub(crate) struct Sum;

impl Settings for Sum {
    fn settings(&self) -> Vec<(&'static str, f64)> {
        vec![]
    }

    fn set(&mut self, name: &str, _: f64) -> Result<(), String> {
        Err(format!("no setting {name:?}"))
    }
}

impl Loss for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn about(&self) -> &'static str {
        "the sum of all elements"
    }

    fn takes(&self) -> &'static [&'static str] {
        &["values"]
    }

    fn write<'a>(&self, x: &[Ex<'a>]) -> Ex<'a> {
        x[0].with(
            "ReduceSum",
            &[],
            vec![secateur_engine::ir::Attr::new("keepdims", 0)],
        )
    }
}

/// The sum of the output `y`.
pub(crate) const SUM: &[Term] = &[Term {
    loss: &Sum,
    of: &["y"],
    weight: 1.0,
}];

/// The model that makes `y` of initialisers and of inputs of the same type, in this order.
pub(crate) fn model(
    weights: &[(&str, Tensor)],
    inputs: &[(&str, &[usize])],
    write: impl for<'a> FnOnce(&[Ex<'a>]) -> Ex<'a>,
) -> Model {
    let mut model = Model {
        ir_version: Some(10),
        opsets: vec![Opset {
            domain: Some("".into()),
            version: Some(ops::OPSET),
            extra: Default::default(),
        }],
        ..Model::default()
    };
    let graph = &mut model.graph;
    let dtype = weights.first().map_or(DType::F64, |(_, t)| t.dtype());
    let mut all: Vec<_> = weights
        .iter()
        .map(|(n, t)| graph.constant(*n, t.clone()))
        .collect();
    for (name, dims) in inputs {
        let ty = Type::tensor(dtype, dims.iter().copied());
        let v = graph.input(*name, ty.clone());
        graph[v].ty = Some(ty);
        all.push(v);
    }
    let before = graph.clone();
    let builder = Builder::new(&before, ops::OPSET);
    let y = write(&all.iter().map(|&v| builder.at(v)).collect::<Vec<_>>()).id;
    builder.finish().apply(graph).unwrap();
    graph[y].name = "y".into();
    graph.output(y, None);
    model
}

pub(crate) fn doubles(dims: &[usize], x: &[f64]) -> Tensor {
    Tensor::of(dims, x.to_vec())
}

/// The group of constants that have no name of their own, if there are any.
pub(crate) fn frozen(model: &Model) -> Vec<Group> {
    let graph = &model.graph;
    let named = graph.initializers.iter().map(|&v| &graph[v].name);
    let any = named.into_iter().any(|n| n.starts_with("constant"));
    any.then(|| Group::frozen("constant*")).into_iter().collect()
}

/// A loop of steps.
pub(crate) struct Run {
    pub(crate) graph: StepGraph,
    session: Session,
    pub(crate) state: Vec<Tensor>,
}

impl Run {
    pub(crate) fn new(model: &Model, spec: &Spec) -> Run {
        let graph = step(model, spec).unwrap();
        let session = Session::builder(&graph.model).threads(1).build().unwrap();
        let state = graph.state.iter().map(|s| s.start.clone()).collect();
        Run {
            graph,
            session,
            state,
        }
    }

    /// The steps of `optimizer` that make the sum of `y` small. Constants that have no name of their own stay.
    pub(crate) fn of(model: &Model, optimizer: &dyn Optimizer) -> Run {
        let groups = frozen(model);
        let spec = Spec {
            groups: &groups,
            ..Spec::new(SUM, optimizer)
        };
        Run::new(model, &spec)
    }

    /// Takes a step; the outputs by name.
    pub(crate) fn step(&mut self, rate: f64, feeds: &[(&str, Tensor)]) -> Vec<(String, Tensor)> {
        let dtype = self.graph.state[0].start.dtype();
        let rate = Tensor::rounded(dtype, &[], &[rate]).unwrap();
        let state = self.graph.state.iter().map(|s| s.input.as_str()).zip(&self.state);
        let all = state.chain([(self.graph.rate.as_str(), &rate)]);
        let all = all.chain(feeds.iter().map(|(n, t)| (*n, t)));
        let outputs = self.session.run(all.collect::<Vec<_>>()).unwrap();
        self.state = self
            .graph
            .state
            .iter()
            .map(|s| outputs[s.output.as_str()].clone())
            .collect();
        outputs
            .tensors()
            .map(|(n, t)| (n.to_owned(), t.clone()))
            .collect()
    }

    /// A step; the loss before it.
    pub(crate) fn loss(&mut self, rate: f64, feeds: &[(&str, Tensor)]) -> f64 {
        let outputs = self.step(rate, feeds);
        let loss = outputs.iter().find(|(n, _)| *n == self.graph.loss);
        loss.and_then(|(_, t)| t.item()).unwrap()
    }

    /// What the state called `name` is now.
    pub(crate) fn get(&self, name: &str) -> Vec<f64> {
        let at = self.graph.state.iter().position(|s| s.input == name);
        self.state[at.unwrap()].floats().unwrap()
    }

    /// Puts the state called `name`.
    pub(crate) fn set(&mut self, name: &str, x: &[f64]) {
        let at = self.graph.state.iter().position(|s| s.input == name).unwrap();
        self.state[at] = Tensor::rounded(self.state[at].dtype(), self.state[at].dims(), x).unwrap();
    }
}

/// Asserts that both are the same within `tolerance`.
#[track_caller]
pub(crate) fn near(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len(), "{a:?}, expected {b:?}");
    let mut pairs = a.iter().zip(b);
    let fit = pairs.all(|(a, b)| (a - b).abs() <= tolerance * (1.0 + b.abs()));
    assert!(fit, "{a:?}, expected {b:?}");
}
