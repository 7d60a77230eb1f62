//! Models observed at work: what their weights are multiplied by, and how much depends on them.

pub(crate) mod backward;
pub(crate) mod forward;
mod head;
mod motion;
pub(crate) mod rows;
pub(crate) mod taps;

use std::collections::{BTreeMap, BTreeSet};

use secateur_engine::Tensor;
use secateur_engine::ir::{Model, ValueId};
use secateur_train::Term;

use crate::error::MethodError;
use crate::place::{At, Place, places};
use crate::scan::Effort;
use crate::weights::{Exempt, Weight};

pub use forward::{Inputs, Products};

/// What a method wants to know of a model at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Need {
    /// Means of what each column of a weight is multiplied by.
    Inputs,
    /// Second moments of that: of all pairs of columns.
    Products,
    /// Magnitudes of gradients; wants labels.
    Gradients,
    /// Squares of gradients, of labels or of what the model itself holds for likely.
    Squares,
    /// Second derivatives.
    Curvature,
    /// Where weights move in training; wants labels.
    Motion,
}

/// One run: what goes in, and what should come out.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// By name of the model's input.
    pub inputs: Vec<(String, Tensor)>,
    /// What the loss compares with.
    pub labels: Option<Tensor>,
}

/// What a model is observed on.
#[derive(Clone, Copy)]
pub struct Examples<'a> {
    /// Runs, best of one example each: squares are those of the gradients of a run.
    pub runs: &'a [Run],
    /// What labels are for; without it there are none. It compares a value of the model and a name that the model does not have.
    pub task: Option<Term<'a>>,
    /// Decides what is drawn.
    pub seed: u64,
    /// How it is done. The watch is told of runs.
    pub effort: Effort<'a>,
}

impl Examples<'_> {
    /// What labels are for, if every run has some.
    fn labelled(&self) -> Option<&Term<'_>> {
        let all = self.runs.iter().all(|r| r.labels.is_some());
        self.task.as_ref().filter(|_| all)
    }
}

/// A weight and its value in the main graph.
struct Watched<'a> {
    weight: &'a Weight,
    value: ValueId,
}

/// What was seen of one weight.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// See [`Need::Inputs`].
    pub inputs: Option<Inputs>,
    /// See [`Need::Products`].
    pub products: Option<Products>,
    /// The mean magnitude of the gradient of each element; see [`Need::Gradients`].
    pub gradients: Option<Vec<f32>>,
    /// The mean square of the gradient of each element; see [`Need::Squares`].
    pub squares: Option<Vec<f32>>,
    /// The second derivative by each element; see [`Need::Curvature`].
    pub curvature: Option<Vec<f32>>,
    /// The sum over steps of `-w · ∂L/∂w` of each element; see [`Need::Motion`].
    pub motion: Option<Vec<f32>>,
}

/// What was seen of the weights of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Decides what methods draw.
    pub seed: u64,
    /// By the weights' names.
    pub seen: BTreeMap<String, Seen>,
}

impl Stats {
    /// Nothing but a seed.
    pub fn seeded(seed: u64) -> Stats {
        let seen = BTreeMap::new();
        Stats { seed, seen }
    }

    /// What `pick` finds in what was seen of `weight`.
    ///
    /// # Errors
    ///
    /// If that is nothing.
    pub(crate) fn of<'s, T>(
        &'s self,
        weight: &Weight,
        pick: impl Fn(&'s Seen) -> Option<&'s T>,
    ) -> Result<&'s T, MethodError> {
        let name = &weight.name;
        let found = self.seen.get(name).and_then(pick);
        found.ok_or_else(|| {
            MethodError::unseen(format!("{name:?} has not been observed; examples are needed"))
        })
    }

    /// The same for one number an element.
    pub(crate) fn each<'s>(
        &'s self,
        weight: &Weight,
        pick: impl Fn(&'s Seen) -> Option<&'s Vec<f32>>,
    ) -> Result<&'s [f32], MethodError> {
        let all = self.of(weight, pick)?;
        match all.len() == weight.tensor.len() {
            true => Ok(all),
            false => Err(MethodError::unseen(format!(
                "{:?} has {} elements; of {} something was seen",
                weight.name,
                weight.tensor.len(),
                all.len()
            ))),
        }
    }
}

/// Marks those of `weights` exempt of which `needs` cannot be observed, with the reason.
pub fn mark(model: &Model, needs: &[Need], weights: &mut [Weight]) {
    let main = mains(model);
    let inputs = needs.iter().any(|n| matches!(n, Need::Inputs | Need::Products));
    let unreached = match needs.iter().all(|n| matches!(n, Need::Inputs | Need::Products)) {
        true => BTreeSet::new(),
        false => unreached(model, &main, weights),
    };
    let pruned = weights.iter_mut().filter(|w| w.exempt.is_none());
    for w in pruned.filter(|_| !needs.is_empty()) {
        let why = match main.get(&w.name) {
            None => Some("in a subgraph or function, which is not observed".to_owned()),
            Some(v) if unreached.contains(v) => Some("no output depends on it by a gradient".to_owned()),
            Some(&v) if inputs => taps::of(model, w, v).err(),
            Some(_) => None,
        };
        w.exempt = why.map(Exempt::Unobserved);
    }
}

/// The values of those of `weights` to prune that have no gradient.
fn unreached(model: &Model, main: &BTreeMap<String, ValueId>, weights: &[Weight]) -> BTreeSet<ValueId> {
    let pruned = weights.iter().filter(|w| w.exempt.is_none());
    let values: Vec<ValueId> = pruned.filter_map(|w| main.get(&w.name).copied()).collect();
    let lost = backward::unreached(model, &values).unwrap_or_default();
    let each = values.into_iter().zip(lost);
    each.filter(|(_, lost)| *lost).map(|(v, _)| v).collect()
}

/// Runs `model` and says what was seen of `weights`.
///
/// # Errors
///
/// If there are no examples, or none with labels where `needs` has a need for them; if the model does not run on them, or has
/// no gradients; or if something is not finite.
pub fn observe(
    model: &Model,
    weights: &[&Weight],
    needs: &[Need],
    examples: &Examples,
) -> Result<Stats, MethodError> {
    let mut stats = Stats::seeded(examples.seed);
    let needs: BTreeSet<Need> = needs.iter().copied().collect();
    if needs.is_empty() {
        return Ok(stats);
    }
    check(&needs, examples)?;
    let watched = watched(model, weights)?;
    let passes = needs.iter().filter(|n| **n != Need::Products).count().max(1);
    let runs = passes * examples.runs.len();
    examples.effort.watch.runs("observing", runs as u64);
    if needs.contains(&Need::Inputs) || needs.contains(&Need::Products) {
        let products = needs.contains(&Need::Products);
        forward::observe(model, &watched, products, examples, &mut stats)?;
    }
    for need in needs {
        match need {
            Need::Inputs | Need::Products => {}
            Need::Motion => motion::observe(model, &watched, examples, &mut stats)?,
            Need::Gradients | Need::Squares | Need::Curvature => {
                backward::observe(model, &watched, need, examples, &mut stats)?;
            }
        }
    }
    Ok(stats)
}

fn watched<'a>(model: &Model, weights: &[&'a Weight]) -> Result<Vec<Watched<'a>>, MethodError> {
    let main = mains(model);
    let one = |weight: &'a Weight| match main.get(&weight.name) {
        Some(&value) => Ok(Watched { weight, value }),
        None => {
            let what = format!("{:?} is not in the main graph", weight.name);
            Err(MethodError::run(what))
        }
    };
    weights.iter().map(|w| one(w)).collect()
}

fn check(needs: &BTreeSet<Need>, examples: &Examples) -> Result<(), MethodError> {
    if examples.runs.is_empty() {
        return Err(MethodError::unseen(
            "there are no examples to observe the model on",
        ));
    }
    let labels = [Need::Gradients, Need::Motion].iter().any(|n| needs.contains(n));
    match labels && examples.labelled().is_none() {
        true => Err(MethodError::unseen("the method needs examples with labels")),
        false => Ok(()),
    }
}

/// The values of constants of the main graph.
fn mains(model: &Model) -> BTreeMap<String, ValueId> {
    let main = |p: &Place| p.site.scope.function.is_none() && p.site.scope.path.is_empty();
    let value = |p: Place| {
        let v = match p.site.at {
            At::Initializer(v) => Some(v),
            At::Attr(node, _) => model.graph[node].outputs.first().copied().flatten(),
        };
        Some((p.name, v?))
    };
    places(model).into_iter().filter(main).filter_map(value).collect()
}

/// Sums, element by element.
#[derive(Default)]
struct Sums(Vec<f64>);

impl Sums {
    /// Adds `f` of each element.
    fn add(&mut self, x: &Tensor, f: impl Fn(usize, f64) -> f64) -> Result<(), MethodError> {
        let wrong = || MethodError::run("a gradient is no tensor of floats");
        let x = x.floats().ok_or_else(wrong)?;
        self.0.resize(x.len(), 0.0);
        let each = self.0.iter_mut().zip(x).enumerate();
        each.for_each(|(i, (sum, x))| *sum += f(i, x));
        Ok(())
    }

    /// The sums over `n`.
    fn over(&self, n: usize, name: &str) -> Result<Vec<f32>, MethodError> {
        let n = n as f64;
        let mean: Vec<f32> = self.0.iter().map(|x| (x / n) as f32).collect();
        finite(&mean, name)?;
        Ok(mean)
    }
}

fn finite(x: &[f32], name: &str) -> Result<(), MethodError> {
    match x.iter().all(|x| x.is_finite()) {
        true => Ok(()),
        false => Err(MethodError::run(format!(
            "what was seen of {name:?} is not finite: the model, or its gradients, make infinity or NaN"
        ))),
    }
}
