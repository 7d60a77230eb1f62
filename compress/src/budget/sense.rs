//! What each weight of a model hurts and saves as it alone is pruned.

use secateur_engine::Model;
use serde::{Deserialize, Serialize};

use super::cost::{Costs, Sizes};
use super::cut::Cutting;
use super::target::Quantity;
use crate::methods::{Amount, Goal, Method, Scope, Task, mark};
use crate::recover::RecoverError;
use crate::rounds::{School, Score};
use crate::scan::Effort;
use crate::trim::Frame;
use crate::{Choice, Examples, Grain, Pattern, Stats, Weight, apply_with, observe, weights};

/// The shares of zeros that are tried, where the pattern does not say one.
pub const LEVELS: &[f64] = &[0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98];

/// What is pruned, and how.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// What chooses elements of a weight.
    pub method: &'a dyn Method,
    /// Which of them are zero together, or what is cut away.
    pub pattern: Grain,
    /// On what the method sees the model at work, if it wants to.
    pub shown: Option<&'a Examples<'a>>,
    /// Decides what methods draw.
    pub seed: u64,
    /// Which weights to prune; of what is cut away, what is to be kept.
    pub choice: &'a Choice,
    /// By what sizes models are followed where they are cut.
    pub frame: Frame<'a>,
    /// How passes over the weights are made.
    pub effort: Effort<'a>,
}

/// A weight pruned so far, or a group or a block cut so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The share of its elements that is zero, or of its indices that is gone; 1 where a block is gone.
    pub sparsity: f64,
    /// What the model is worth; nothing is recovered.
    pub score: Score,
    /// What the weight is predicted to cost; of what is cut, by how much more than at the cheapest point.
    pub cost: f64,
}

/// How a model fares as one of its weights alone is pruned, or one group or block is cut, further and further.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The name of the weight, the group or the block.
    pub weight: String,
    /// The number of its elements, or of its indices; 1 of a block.
    pub elements: u64,
    /// From the weight as it is on, by sparsity.
    pub points: Vec<Point>,
}

/// What is to be gone of a weight, a group or a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Part {
    /// The share that is to be zero or gone.
    pub(super) share: f64,
    /// Of how many elements or indices it is one.
    pub(super) of: u64,
}

/// By name what is to be gone; nothing more of what it says nothing of.
pub(super) type Parts<'a> = &'a dyn Fn(&str) -> Option<Part>;

impl Subject<'_> {
    /// The shares of zeros that are tried.
    fn levels(&self) -> Vec<f64> {
        let own = self.pattern.zeros().and_then(Pattern::share);
        own.map_or(LEVELS.to_vec(), |share| vec![share])
    }

    /// The weights of `model`, those that are left alone marked. Where it is cut, no zeros are made.
    pub(super) fn marked(&self, model: &Model) -> Result<Vec<Weight>, RecoverError> {
        let mut all = weights(model);
        if let Some(pattern) = self.pattern.zeros() {
            self.choice.mark(&mut all)?;
            pattern.mark(&mut all);
            mark(self.method, model, &mut all);
        }
        Ok(all)
    }

    /// `model` with what `parts` says gone.
    pub(super) fn pruned(&self, model: &Model, parts: Parts) -> Result<Model, RecoverError> {
        match self.pattern {
            Grain::Zeros(pattern) => self.ready(model, pattern)?.pruned(parts),
            Grain::Cuts(piece) => Cutting::new(self, model, piece)?.cut(parts),
        }
    }

    /// The share of what `curves` have that is zero in `model`, or gone.
    pub(super) fn gone(&self, model: &Model, curves: &[Curve]) -> Result<f64, RecoverError> {
        if let Some(piece) = self.pattern.piece() {
            let left = Cutting::new(self, model, piece)?.left(curves);
            let all: u64 = curves.iter().map(|c| c.elements).sum();
            return Ok(1.0 - left as f64 / all.max(1) as f64);
        }
        let all = self.marked(model)?;
        let pruned = all.iter().filter(|w| w.exempt.is_none());
        let (n, zeros) = pruned.fold((0, 0), |(n, z), w| {
            (n + w.elements(), z + w.tensor.zeros_count() as u64)
        });
        Ok(zeros as f64 / n.max(1) as f64)
    }

    /// `model`, ready to be pruned.
    pub(super) fn ready<'m>(
        &self,
        model: &'m Model,
        pattern: Pattern,
    ) -> Result<Ready<'m, '_>, RecoverError> {
        let weights = self.marked(model)?;
        let targets: Vec<&Weight> = weights.iter().filter(|w| w.exempt.is_none()).collect();
        let stats = match (self.method.needs(), self.shown) {
            ([], _) => Stats::seeded(self.seed),
            (needs, Some(shown)) => observe(model, &targets, needs, shown)?,
            (_, None) => return Err(RecoverError::unshown(self.method)),
        };
        Ok(Ready {
            subject: self,
            pattern,
            model,
            weights,
            stats,
        })
    }
}

/// A model and what its method saw of it.
pub(super) struct Ready<'m, 's> {
    subject: &'s Subject<'s>,
    pattern: Pattern,
    model: &'m Model,
    pub(super) weights: Vec<Weight>,
    stats: Stats,
}

impl Ready<'_, '_> {
    /// The weights to prune.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Weight> {
        self.weights.iter().filter(|w| w.exempt.is_none())
    }

    /// The model with a share of each weight zero, as `parts` says; what has as many zeros stays as it is.
    pub(super) fn pruned(&self, parts: Parts) -> Result<Model, RecoverError> {
        let (subject, mut new) = (self.subject, self.model.clone());
        for w in self.targets() {
            let share = parts(&w.name).map(|p| p.share);
            let Some(share) = share.filter(|s| *s > zeros(w)) else {
                continue;
            };
            let task = Task {
                model: self.model,
                weights: std::slice::from_ref(w),
                goal: Goal {
                    amount: Amount::Sparsity(share),
                    scope: Scope::Layer,
                    pattern: self.pattern,
                },
                effort: subject.effort,
            };
            let plan = subject.method.decide(&task, &self.stats)?;
            apply_with(&plan, &mut new, &subject.effort, None)?;
        }
        Ok(new)
    }
}

/// The curve of each weight of `model` that is to be pruned, or of each group and each block that may be cut, in the order of the file;
/// `told` hears of each.
///
/// # Errors
///
/// If the model cannot be pruned, run, or scored.
pub fn sensitivity(
    model: &Model,
    subject: &Subject,
    (quantity, sizes): (Quantity, &Sizes),
    school: &mut dyn School,
    told: &mut dyn FnMut(&Curve),
) -> Result<Vec<Curve>, RecoverError> {
    let start = scored(school, model)?;
    let pattern = match subject.pattern {
        Grain::Zeros(pattern) => pattern,
        Grain::Cuts(piece) => {
            let cutting = Cutting::new(subject, model, piece)?;
            return cutting.curves((start, school), (quantity, sizes), told);
        }
    };
    let ready = subject.ready(model, pattern)?;
    let costs = level_costs(&ready, quantity, sizes)?;
    let mut curves = vec![];
    for w in ready.targets() {
        let mut points = vec![Point {
            sparsity: zeros(w),
            score: start,
            cost: costs[0].of.get(&w.name).copied().unwrap_or(0.0),
        }];
        let levels = subject.levels().into_iter().zip(&costs[1..]);
        for (level, costs) in levels.filter(|(l, _)| *l > zeros(w)) {
            let part = Part {
                share: level,
                of: w.elements(),
            };
            let only = |other: &str| (other == w.name).then_some(part);
            points.push(Point {
                sparsity: level,
                score: scored(school, &ready.pruned(&only)?)?,
                cost: costs.of.get(&w.name).copied().unwrap_or(0.0),
            });
        }
        let curve = Curve {
            weight: w.name.clone(),
            elements: w.elements(),
            points,
        };
        told(&curve);
        curves.push(curve);
    }
    Ok(curves)
}

/// The costs of `model` as it is, and with all its weights at each of the levels.
fn level_costs(ready: &Ready, quantity: Quantity, sizes: &Sizes) -> Result<Vec<Costs>, RecoverError> {
    let mut all = vec![Costs::new(ready.model, quantity, sizes)?];
    for level in ready.subject.levels() {
        let pruned = ready.pruned(&|_| Some(Part { share: level, of: 0 }))?;
        all.push(Costs::new(&pruned, quantity, sizes)?);
    }
    Ok(all)
}

/// What `model` is worth.
pub(super) fn scored(school: &mut dyn School, model: &Model) -> Result<Score, RecoverError> {
    let score = school.score(model)?;
    score.ok_or_else(|| RecoverError::wrong("a budget needs examples by which models are measured"))
}

fn zeros(w: &Weight) -> f64 {
    w.tensor.zeros_count() as f64 / w.tensor.len() as f64
}
