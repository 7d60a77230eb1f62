//! Where weights move in training.

use secateur_engine::expr::Ex;
use secateur_engine::ir::{DType, Model, ValueId};
use secateur_engine::{Session, Tensor};
use secateur_train::optim::{Move, Optimizer, Sgd, Slot};
use secateur_train::{Group, Settings, Spec, StepGraph, step};

use super::backward::{fixed, independent};
use super::{Examples, Stats, Sums, Watched};
use crate::error::MethodError;
use crate::place::held;

/// Gradient descent that shows the gradient of each step: from the steps themselves small ones cannot be told.
#[derive(Debug)]
struct Shown;

impl Settings for Shown {
    fn settings(&self) -> Vec<(&'static str, f64)> {
        Sgd.settings()
    }

    fn set(&mut self, name: &str, x: f64) -> Result<(), String> {
        Sgd.set(name, x)
    }
}

impl Optimizer for Shown {
    fn name(&self) -> &'static str {
        Sgd.name()
    }

    fn about(&self) -> &'static str {
        Sgd.about()
    }

    fn rate(&self) -> f64 {
        Sgd.rate()
    }

    fn state(&self) -> Vec<String> {
        vec!["gradient".into()]
    }

    fn step<'a>(&self, all: &[Slot<'a>], _: Ex<'a>) -> Vec<Move<'a>> {
        let along = |s: &Slot<'a>| Move {
            along: s.gradient,
            state: vec![s.gradient],
        };
        all.iter().map(along).collect()
    }
}

/// Takes a step of gradient descent with each run, in order, and adds up `-w · ∂L/∂w` (Sanh et al. 2020, arXiv:2005.07683): how far
/// a weight went away from zero, times itself. The model itself stays as it is.
pub(super) fn observe(
    model: &Model,
    watched: &[Watched],
    examples: &Examples,
    stats: &mut Stats,
) -> Result<(), MethodError> {
    let Some(term) = examples.labelled() else {
        return Ok(());
    };
    let (terms, groups) = ([*term], groups(watched));
    let spec = Spec {
        seed: examples.seed as u32,
        groups: &groups,
        ..Spec::new(&terms, &Shown)
    };
    let mut model = fixed(model, examples.runs);
    watched.iter().for_each(|w| loosen(&mut model, w.value));
    let graph = step(&model, &spec)?;
    let places = places(
        &graph,
        watched,
        &format!("the loss of {:?}", term.of.first().unwrap_or(&"")),
    )?;
    let dtype = graph.state.first().map_or(DType::F32, |s| s.start.dtype());
    let rate = Tensor::rounded(dtype, &[], &[Shown.rate()]);
    let rate = rate.ok_or_else(|| MethodError::run("no rate"))?;
    let session = Session::builder(&graph.model)
        .threads(examples.effort.threads)
        .build()?;
    let mut state: Vec<Tensor> = graph.state.iter().map(|s| s.start.clone()).collect();
    let mut sums: Vec<Sums> = watched.iter().map(|_| Sums::default()).collect();
    for run in examples.runs {
        let inputs = run.inputs.iter().map(|(n, x)| (n.as_str(), x));
        let labels = graph
            .labels
            .iter()
            .filter_map(|n| Some((n.as_str(), run.labels.as_ref()?)));
        let before = graph.state.iter().zip(&state).map(|(s, x)| (s.input.as_str(), x));
        let all = inputs
            .chain(labels)
            .chain(before)
            .chain([(graph.rate.as_str(), &rate)]);
        let mut outputs = session.run(all)?;
        let lost = || MethodError::run("a step of training lost its state");
        let next: Option<Vec<Tensor>> = graph.state.iter().map(|s| outputs.take(&s.output)).collect();
        let next = next.ok_or_else(lost)?;
        for (&at, sum) in places.iter().zip(&mut sums) {
            let old = state[at].floats().ok_or_else(lost)?;
            // Beside a weight is its gradient.
            sum.add(next.get(at + 1).ok_or_else(lost)?, |i, g| -old[i] * g)?;
        }
        state = next;
        examples.effort.watch.advance(1);
    }
    for (w, sum) in watched.iter().zip(sums) {
        let name = &w.weight.name;
        stats.seen.entry(name.clone()).or_default().motion = Some(sum.over(1, name)?);
    }
    Ok(())
}

/// All that is watched is trained, whatever it looks like; other weights are as usual.
fn groups(watched: &[Watched]) -> Vec<Group> {
    let special = |c: char| c == '*' || c == '?';
    let named = watched.iter().filter(|w| !w.weight.value.contains(special));
    let one = |w: &Watched| Group {
        train: Some(true),
        ..Group::new(&*w.weight.value)
    };
    named.map(one).collect()
}

/// Makes an initialiser of what a `Constant` node holds.
fn loosen(model: &mut Model, v: ValueId) {
    let g = &mut model.graph;
    let made = g.iter().find(|(_, n)| n.outputs.first() == Some(&Some(v)));
    let Some(id) = made.map(|(id, _)| id) else { return };
    let Some(constant) = held(g, id).map(|(_, c)| c.clone()) else {
        return;
    };
    g.order.retain(|&n| n != id);
    g[v].konst = Some(constant);
    g.initializers.push(v);
}

/// Where the state of each weight is.
fn places(graph: &StepGraph, watched: &[Watched], loss: &str) -> Result<Vec<usize>, MethodError> {
    let at = |w: &Watched| graph.state.iter().position(|s| s.weight == Some(w.value));
    let lost = watched.iter().filter(|w| at(w).is_none());
    let lost: Vec<String> = lost.map(|w| format!("{:?}", w.weight.name)).collect();
    match lost.is_empty() {
        true => Ok(watched.iter().filter_map(at).collect()),
        false => Err(independent(loss, &lost)),
    }
}
