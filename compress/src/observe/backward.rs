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
    /// For each value the output that is its gradient, if what is differentiated depends on it.
    grads: Vec<Option<String>>,
    /// Outputs that are values themselves.
    also: Vec<String>,
}

/// What one pass back shows.
pub(crate) struct Slopes<'a> {
    /// The gradient by each of the values, where there is one.
    pub(crate) by: Vec<Option<&'a Tensor>>,
    /// The other values.
    pub(crate) also: Vec<&'a Tensor>,
}

/// Why there are no gradients by the values `by` in `runs`, if there are none.
pub(crate) fn without(model: &Model, by: &[ValueId], runs: &[Run]) -> Option<MethodError> {
    let mut new = fixed(model, runs);
    let heads = match Head::of(&new, None) {
        Ok(heads) => heads,
        Err(e) => return Some(e),
    };
    let of: Vec<_> = heads.iter().map(|h| (h.value, None)).collect();
    differentiate(&mut new, &Gradients::new(&of, by))
        .err()
        .map(MethodError::from)
}

/// Hands to `each` what the `values` of `model` are, for each example.
pub(crate) fn values(
    model: &Model,
    values: &[ValueId],
    examples: &Examples,
    each: &mut dyn FnMut(Slopes) -> Result<(), MethodError>,
) -> Result<(), MethodError> {
    let seen = Backward::new(model.clone(), &[], (&[], values), vec![], examples.effort.threads)?;
    for run in examples.runs {
        seen.shown(run, &[], each)?;
        examples.effort.watch.advance(1);
    }
    Ok(())
}

/// Hands to `each` gradients by the values `by`, the sum of whose products with themselves over all passes is the second derivative by
/// them (see [`Need::Curvature`]), and beside them what `also` is; for each example as many passes as its outputs need.
pub(crate) fn slopes(
    model: &Model,
    (by, also): (&[ValueId], &[ValueId]),
    examples: &Examples,
    each: &mut dyn FnMut(Slopes) -> Result<(), MethodError>,
) -> Result<(), MethodError> {
    let model = &fixed(model, examples.runs);
    probed(model, (by, also), Need::Curvature, examples, |_, _| Ok(()), each)
}

/// Observes gradients, their squares, or second derivatives.
pub(super) fn observe(
    model: &Model,
    watched: &[Watched],
    need: Need,
    examples: &Examples,
    stats: &mut Stats,
) -> Result<(), MethodError> {
    let model = &fixed(model, examples.runs);
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
        &[(loss, None)],
        (&watched.iter().map(|w| w.value).collect::<Vec<_>>(), &[]),
        measured.labels,
        examples.effort.threads,
    )?;
    back.all_reached(
        watched,
        &format!("the loss of {:?}", term.of.first().unwrap_or(&"")),
    )?;
    for run in examples.runs {
        let labels: Vec<&Tensor> = run.labels.iter().collect();
        back.run(run, &labels, sums, |_, x| {
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
    let by: Vec<ValueId> = watched.iter().map(|w| w.value).collect();
    let check = |back: &Backward, of: &str| back.all_reached(watched, of);
    probed(model, (&by, &[]), need, examples, check, &mut |slopes| {
        let found = slopes.by.iter().zip(&mut *sums);
        let found = found.filter_map(|(x, sum)| Some(((*x)?, sum)));
        found
            .into_iter()
            .try_for_each(|(x, sum)| sum.add(x, |_, x| x * x))
    })
}

/// Follows gradients of the outputs back to the values `by`, after `check` has seen which of them are reached.
fn probed(
    model: &Model,
    (by, also): (&[ValueId], &[ValueId]),
    need: Need,
    examples: &Examples,
    check: impl Fn(&Backward, &str) -> Result<(), MethodError>,
    each: &mut dyn FnMut(Slopes) -> Result<(), MethodError>,
) -> Result<(), MethodError> {
    let heads = Head::of(model, examples.task.as_ref())?;
    let names: Vec<String> = heads
        .iter()
        .map(|h| model.graph[h.value].name.to_string())
        .collect();
    let outputs: Vec<&str> = model
        .graph
        .outputs
        .iter()
        .map(|p| &*model.graph[p.value].name)
        .collect();
    let tapped = names.iter().filter(|n| !outputs.contains(&n.as_str()));
    let builder = Session::builder(model).threads(examples.effort.threads);
    let forward = tapped.fold(builder, |b, n| b.tap(n)).build()?;
    let mut new = model.clone();
    let (mut of, mut extra) = (vec![], vec![]);
    for head in &heads {
        let outside = new.graph.fresh("outside");
        extra.push(outside.to_string());
        of.push((
            head.value,
            Some(new.graph.input(outside, like(model, head.value)?)),
        ));
    }
    let back = Backward::new(new, &of, (by, also), extra, examples.effort.threads)?;
    let quoted: Vec<String> = names.iter().map(|n| format!("{n:?}")).collect();
    check(&back, &quoted.join(", "))?;
    for (i, run) in examples.runs.iter().enumerate() {
        let outputs = forward.run(run.inputs.iter().map(|(n, x)| (n, x)))?;
        let seen = |name: &String| {
            let t = outputs.get(name);
            let y = t.and_then(|t| Some((t, t.floats()?)));
            y.ok_or_else(|| MethodError::run(format!("value {name:?} is no tensor of floats")))
        };
        let seen: Vec<_> = names.iter().map(seen).collect::<Result<_, _>>()?;
        let chance = |k: usize| {
            let output = if k == 0 {
                String::new()
            } else {
                format!(", output {k}")
            };
            Stream::new(examples.seed, &format!("run {i}{output}"))
        };
        for dys in outside(&heads, &seen, need, chance) {
            let wrong = || MethodError::run("an output is no tensor of floats");
            let dys = dys.iter().zip(&seen);
            let dys = dys.map(|(dy, (t, _))| Tensor::rounded(t.dtype(), t.dims(), dy).ok_or_else(wrong));
            let dys: Vec<Tensor> = dys.collect::<Result<_, _>>()?;
            back.shown(run, &dys.iter().collect::<Vec<_>>(), each)?;
        }
        examples.effort.watch.advance(1);
    }
    Ok(())
}

/// Gradients by each of the outputs `seen`, as often as they are to be followed back.
fn outside(
    heads: &[Head],
    seen: &[(&Tensor, Vec<f64>)],
    need: Need,
    chance: impl Fn(usize) -> Stream,
) -> Vec<Vec<Vec<f64>>> {
    let each = || heads.iter().zip(seen).enumerate();
    if need != Need::Curvature {
        let drawn = each().map(|(k, (head, (t, y)))| head.drawn(y, t.dims(), chance(k)));
        return vec![drawn.collect()];
    }
    // Second derivatives of several outputs add up: each has probes of its own.
    let probes = each().flat_map(|(k, (head, (t, y)))| {
        let all = head.probes(y, t.dims(), chance(k));
        all.into_iter().map(move |probe| alone(probe, k, seen))
    });
    probes.collect()
}

/// The gradient `probe` by output `k`, and none by the others.
fn alone(probe: Vec<f64>, k: usize, all: &[(&Tensor, Vec<f64>)]) -> Vec<Vec<f64>> {
    let mut dys: Vec<Vec<f64>> = all.iter().map(|(_, y)| vec![0.0; y.len()]).collect();
    dys[k] = probe;
    dys
}

/// Which of `values` no output of floats depends on in a way that has a gradient; `None` where the model has no gradients at
/// all, which [`observe`] says.
pub(super) fn unreached(model: &Model, values: &[ValueId]) -> Option<Vec<bool>> {
    let mut new = model.clone();
    let of: Vec<_> = Head::of(model, None).ok()?;
    let of: Vec<_> = of.iter().map(|h| (h.value, None)).collect();
    let found = differentiate(&mut new, &Gradients::new(&of, values)).ok()?;
    Some(found.iter().map(Option::is_none).collect())
}

/// `model` with inputs declared as large as they are in all of `runs`: which axes are stretched follows from sizes.
pub(super) fn fixed(model: &Model, runs: &[Run]) -> Model {
    let mut model = model.clone();
    let g = &mut model.graph;
    for at in 0..g.inputs.len() {
        let name = g[g.inputs[at].value].name.clone();
        let given = |r: &Run| Some(r.inputs.iter().find(|(n, _)| **n == *name)?.1.dims().to_vec());
        let mut all = runs.iter().map(given);
        let Some(dims) = all
            .next()
            .flatten()
            .filter(|d| all.all(|o| o.as_ref() == Some(d)))
        else {
            continue;
        };
        let Some(ty) = g.inputs[at].ty.as_mut() else {
            continue;
        };
        if let Type::Tensor { shape, .. } = &mut ty.ty {
            *shape = Some(dims.into_iter().map(Dim::from).collect());
        }
    }
    model
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
        of: &[(ValueId, Option<ValueId>)],
        (by, also): (&[ValueId], &[ValueId]),
        extra: Vec<String>,
        threads: usize,
    ) -> Result<Backward, MethodError> {
        let found = match by {
            [] => vec![],
            by => differentiate(&mut model, &Gradients::new(of, by))?,
        };
        let g = &mut model.graph;
        g.outputs.clear();
        let mut copied = |v: ValueId| {
            let name = g.fresh("gradient");
            let copy = g.value(name.clone());
            g.node(Node::new("Identity", vec![Some(v)], vec![Some(copy)]));
            g.output(copy, None);
            name.to_string()
        };
        let grads = found.into_iter().map(|v| v.map(&mut copied)).collect();
        let also = also.iter().map(|&v| copied(v)).collect();
        let session = Session::builder(&model).threads(threads).build()?;
        Ok(Backward {
            session,
            extra,
            grads,
            also,
        })
    }

    /// Refuses weights that have no gradient.
    fn all_reached(&self, watched: &[Watched], of: &str) -> Result<(), MethodError> {
        let none = |(w, _): &(&Watched, &Option<String>)| format!("{:?}", w.weight.name);
        let each = watched.iter().zip(&self.grads);
        let lost: Vec<String> = each.filter(|(_, g)| g.is_none()).map(|e| none(&e)).collect();
        match lost.is_empty() {
            true => Ok(()),
            false => Err(independent(of, &lost)),
        }
    }

    /// Hands what one run shows to `each`; `extra` goes into the inputs of that name.
    fn shown(
        &self,
        run: &Run,
        extra: &[&Tensor],
        each: &mut dyn FnMut(Slopes) -> Result<(), MethodError>,
    ) -> Result<(), MethodError> {
        let inputs = run.inputs.iter().map(|(n, x)| (n.as_str(), x));
        let more = self.extra.iter().map(String::as_str).zip(extra.iter().copied());
        let outputs = self.session.run(inputs.chain(more))?;
        let seen = |name: &String| {
            let lost = || MethodError::run(format!("{name} is lost"));
            outputs.get(name).ok_or_else(lost)
        };
        let by = self.grads.iter().map(|name| name.as_ref().map(seen).transpose());
        each(Slopes {
            by: by.collect::<Result<_, _>>()?,
            also: self.also.iter().map(seen).collect::<Result<_, _>>()?,
        })
    }

    /// Adds `f` of the gradients of one run to `sums`; `extra` goes into the inputs of that name.
    fn run(
        &self,
        run: &Run,
        extra: &[&Tensor],
        sums: &mut [Sums],
        f: impl Fn(usize, f64) -> f64,
    ) -> Result<(), MethodError> {
        self.shown(run, extra, &mut |slopes| {
            let found = slopes.by.iter().zip(&mut *sums);
            let mut found = found.filter_map(|(x, sum)| Some(((*x)?, sum)));
            found.try_for_each(|(x, sum)| sum.add(x, &f))
        })
    }
}

/// Of `weights` nothing can be said, for `of` does not depend on them.
pub(super) fn independent(of: &str, weights: &[String]) -> MethodError {
    MethodError::run(format!(
        "{of} does not depend on {}, of which gradients say nothing; leave such weights out with --keep",
        weights.join(", ")
    ))
}
