//! Where weights move in training.

use secateur_engine::ir::Model;
use secateur_engine::{Session, Tensor};
use secateur_train::optim::optimizer;
use secateur_train::{Spec, step};

use super::{Examples, Stats, Sums, Watched};
use crate::error::MethodError;

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
    let descent = optimizer("sgd").map_err(MethodError::run)?;
    let terms = [*term];
    let spec = Spec {
        seed: examples.seed as u32,
        ..Spec::new(&terms, &*descent)
    };
    let graph = step(model, &spec)?;
    let rate = descent.rate();
    let first = graph.state.iter().find(|s| s.weight.is_some());
    let dtype = first.map_or(secateur_engine::ir::DType::F32, |s| s.start.dtype());
    let rate_input = Tensor::rounded(dtype, &[], &[rate]).ok_or_else(|| MethodError::run("no rate"))?;
    let session = Session::builder(&graph.model)
        .threads(examples.effort.threads)
        .build()?;
    let mut state: Vec<Tensor> = graph.state.iter().map(|s| s.start.clone()).collect();
    let place = |w: &Watched| {
        let at = graph.state.iter().position(|s| s.weight == Some(w.value));
        let name = &w.weight.name;
        at.ok_or_else(|| {
            let what = "is not trained: the loss does not depend on it, or it is no initialiser";
            MethodError::run(format!("{name:?} {what}"))
        })
    };
    let places: Vec<usize> = watched.iter().map(place).collect::<Result<_, _>>()?;
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
            .chain([(graph.rate.as_str(), &rate_input)]);
        let mut outputs = session.run(all)?;
        let lost = || MethodError::run("a step of training lost its state");
        let next: Option<Vec<Tensor>> = graph.state.iter().map(|s| outputs.take(&s.output)).collect();
        let next = next.ok_or_else(lost)?;
        for (&at, sum) in places.iter().zip(&mut sums) {
            let old = state[at].floats().ok_or_else(lost)?;
            sum.add(&next[at], |i, new| old[i] * (new - old[i]) / rate)?;
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
