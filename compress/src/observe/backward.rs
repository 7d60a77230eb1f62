//! Gradients by weights.

use std::collections::HashMap;

use secateur_engine::ir::{DType, Dim, Model, Node, Type, ValueId};
use secateur_engine::opt::infer::infer;
use secateur_engine::{Session, Tensor};
use secateur_train::{Gradients, Term, differentiate, measure};

use super::head::Head;
use super::{Examples, Need, Run, Stats, Sums, Watched};
use crate::error::MethodError;
use crate::math::chance::Stream;

/// A model that makes gradients.
struct Backward {
    session: Session,
    /// Names of inputs that are labels, or the gradient that comes from outside.
    extra: Vec<String>,
    /// For each weight the output that is its gradient, if anything depends on it.
    grads: Vec<Option<String>>,
}

/// Observes gradients, their squares, or second derivatives.
pub(super) fn observe(
    model: &Model,
    watched: &[Watched],
    need: Need,
    examples: &Examples,
    stats: &mut Stats,
) -> Result<(), MethodError> {
    let mut sums: Vec<Sums> = watched.iter().map(|_| Sums::default()).collect();
    match (examples.labelled().filter(|_| need != Need::Curvature), need) {
        (Some(term), _) => labelled(model, watched, (term, need), examples, &mut sums)?,
        (None, _) => unlabelled(model, watched, need, examples, &mut sums)?,
    }
    for (w, sum) in watched.iter().zip(&mut sums) {
        let name = &w.weight.name;
        sum.0.resize(w.weight.tensor.len(), 0.0);
        let mean = Some(sum.over(examples.runs.len(), name)?);
        let seen = stats.seen.entry(name.clone()).or_default();
        match need {
            Need::Gradients => seen.gradients = mean,
            Need::Squares => seen.squares = mean,
            _ => seen.curvature = mean,
        }
    }
    Ok(())
}

fn labelled(
    model: &Model,
    watched: &[Watched],
    (term, need): (&Term, Need),
    examples: &Examples,
    sums: &mut [Sums],
) -> Result<(), MethodError> {
    let measured = measure(model, std::slice::from_ref(term))?;
    let loss = measured.model.graph.find(&measured.loss);
    let loss = loss.ok_or_else(|| MethodError::run("the loss is lost"))?;
    let back = Backward::new(
        measured.model,
        (loss, None),
        watched,
        measured.labels,
        examples.effort.threads,
    )?;
    for run in examples.runs {
        let labels = run.labels.as_ref();
        back.run(run, labels, sums, |_, x| {
            if need == Need::Gradients { x.abs() } else { x * x }
        })?;
        examples.effort.watch.advance(1);
    }
    Ok(())
}

fn unlabelled(
    model: &Model,
    watched: &[Watched],
    need: Need,
    examples: &Examples,
    sums: &mut [Sums],
) -> Result<(), MethodError> {
    let head = Head::of(model, examples.task.as_ref())?;
    let name = model.graph[head.value].name.clone();
    let is_output = model.graph.outputs.iter().any(|p| p.value == head.value);
    let builder = Session::builder(model).threads(examples.effort.threads);
    let forward = if is_output { builder } else { builder.tap(&*name) }.build()?;
    let mut new = model.clone();
    let outside = new.graph.fresh("outside");
    let dy = new.graph.input(outside.clone(), like(model, head.value)?);
    let of = (head.value, Some(dy));
    let back = Backward::new(
        new,
        of,
        watched,
        vec![outside.to_string()],
        examples.effort.threads,
    )?;
    for (i, run) in examples.runs.iter().enumerate() {
        let outputs = forward.run(run.inputs.iter().map(|(n, x)| (n, x)))?;
        let y = outputs.get(&name);
        let y = y.and_then(|t| Some((t, t.floats()?)));
        let (t, y) = y.ok_or_else(|| MethodError::run(format!("value {name:?} is no tensor of floats")))?;
        let chance = Stream::new(examples.seed, &format!("run {i}"));
        let all = match need {
            Need::Curvature => head.probes(&y, t.dims(), chance),
            _ => vec![head.drawn(&y, t.dims(), chance)],
        };
        for dy in all {
            let dy = Tensor::rounded(t.dtype(), t.dims(), &dy);
            back.run(run, dy.as_ref(), sums, |_, x| x * x)?;
        }
        examples.effort.watch.advance(1);
    }
    Ok(())
}

/// The type of `v`, as an input may declare it.
fn like(model: &Model, v: ValueId) -> Result<Type, MethodError> {
    let facts = infer(model, &HashMap::new()).map_err(MethodError::run)?;
    let ty = &facts.of(v).ty;
    let dim = |d: &Dim| d.size().map_or(Dim::Unknown, Dim::from);
    let dtype = ty.dtype().unwrap_or(DType::F32);
    Ok(match ty.shape() {
        Some(shape) => Type::tensor(dtype, shape.iter().map(dim)),
        None => Type::Tensor {
            dtype: Some(dtype),
            shape: None,
        },
    })
}

impl Backward {
    fn new(
        mut model: Model,
        of: (ValueId, Option<ValueId>),
        watched: &[Watched],
        extra: Vec<String>,
        threads: usize,
    ) -> Result<Backward, MethodError> {
        let by: Vec<ValueId> = watched.iter().map(|w| w.value).collect();
        let found = differentiate(&mut model, &Gradients::new(&[of], &by))?;
        let g = &mut model.graph;
        g.outputs.clear();
        let mut grads = vec![];
        for v in found {
            let output = v.map(|v| {
                let name = g.fresh("gradient");
                let copy = g.value(name.clone());
                g.node(Node::new("Identity", vec![Some(v)], vec![Some(copy)]));
                g.output(copy, None);
                name.to_string()
            });
            grads.push(output);
        }
        let session = Session::builder(&model).threads(threads).build()?;
        Ok(Backward {
            session,
            extra,
            grads,
        })
    }

    /// Adds `f` of the gradients of one run to `sums`.
    fn run(
        &self,
        run: &Run,
        extra: Option<&Tensor>,
        sums: &mut [Sums],
        f: impl Fn(usize, f64) -> f64,
    ) -> Result<(), MethodError> {
        let inputs = run.inputs.iter().map(|(n, x)| (n.as_str(), x));
        let more = self.extra.iter().filter_map(|n| Some((n.as_str(), extra?)));
        let outputs = self.session.run(inputs.chain(more))?;
        for (name, sum) in self.grads.iter().zip(sums) {
            let Some(name) = name else { continue };
            let lost = || MethodError::run(format!("{name} is lost"));
            sum.add(outputs.get(name).ok_or_else(lost)?, &f)?;
        }
        Ok(())
    }
}
