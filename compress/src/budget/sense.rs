//! What each weight of a model hurts and saves as it alone is pruned.

use secateur_engine::Model;
use serde::{Deserialize, Serialize};

use super::cost::{Costs, Sizes};
use super::target::Quantity;
use crate::methods::{Amount, Goal, Method, Scope, Task, mark};
use crate::recover::RecoverError;
use crate::rounds::{School, Score};
use crate::scan::Effort;
use crate::{Choice, Examples, Pattern, Stats, Weight, apply_with, observe, weights};

/// The shares of zeros that are tried, where the pattern does not say one.
pub const LEVELS: &[f64] = &[0.25, 0.5, 0.7, 0.8, 0.9, 0.95];

/// What is pruned, and how.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// What chooses elements of a weight.
    pub method: &'a dyn Method,
    /// Which of them are zero together.
    pub pattern: Pattern,
    /// On what the method sees the model at work, if it wants to.
    pub shown: Option<&'a Examples<'a>>,
    /// Decides what methods draw.
    pub seed: u64,
    /// Which weights to prune.
    pub choice: &'a Choice,
    /// How passes over the weights are made.
    pub effort: Effort<'a>,
}

/// A weight pruned so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The share of its elements that is zero.
    pub sparsity: f64,
    /// What the model is worth; nothing is recovered.
    pub score: Score,
    /// What the weight is predicted to cost.
    pub cost: f64,
}

/// How a model fares as one of its weights alone is pruned further and further.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The weight's name.
    pub weight: String,
    /// The number of its elements.
    pub elements: u64,
    /// From the weight as it is on, by sparsity.
    pub points: Vec<Point>,
}

impl Subject<'_> {
    /// The shares of zeros that are tried.
    fn levels(&self) -> Vec<f64> {
        self.pattern.share().map_or(LEVELS.to_vec(), |share| vec![share])
    }

    /// The weights of `model`, those that are left alone marked.
    pub(super) fn marked(&self, model: &Model) -> Result<Vec<Weight>, RecoverError> {
        let mut all = weights(model);
        self.choice.mark(&mut all)?;
        self.pattern.mark(&mut all);
        mark(self.method, model, &mut all);
        Ok(all)
    }

    /// `model`, ready to be pruned.
    pub(super) fn ready<'m>(&self, model: &'m Model) -> Result<Ready<'m, '_>, RecoverError> {
        let weights = self.marked(model)?;
        let targets: Vec<&Weight> = weights.iter().filter(|w| w.exempt.is_none()).collect();
        let stats = match (self.method.needs(), self.shown) {
            ([], _) => Stats::seeded(self.seed),
            (needs, Some(shown)) => observe(model, &targets, needs, shown)?,
            (_, None) => return Err(RecoverError::unshown(self.method)),
        };
        Ok(Ready {
            subject: self,
            model,
            weights,
            stats,
        })
    }
}

/// A model and what its method saw of it.
pub(super) struct Ready<'m, 's> {
    subject: &'s Subject<'s>,
    model: &'m Model,
    pub(super) weights: Vec<Weight>,
    stats: Stats,
}

impl Ready<'_, '_> {
    /// The weights to prune.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Weight> {
        self.weights.iter().filter(|w| w.exempt.is_none())
    }

    /// The model with a share of each weight zero, as `share` says; what has as many zeros stays as it is.
    pub(super) fn pruned(&self, share: impl Fn(&Weight) -> Option<f64>) -> Result<Model, RecoverError> {
        let (subject, mut new) = (self.subject, self.model.clone());
        for w in self.targets() {
            let Some(share) = share(w).filter(|s| *s > zeros(w)) else {
                continue;
            };
            let task = Task {
                model: self.model,
                weights: std::slice::from_ref(w),
                goal: Goal {
                    amount: Amount::Sparsity(share),
                    scope: Scope::Layer,
                    pattern: subject.pattern,
                },
                effort: subject.effort,
            };
            let plan = subject.method.decide(&task, &self.stats)?;
            apply_with(&plan, &mut new, &subject.effort, None)?;
        }
        Ok(new)
    }
}

/// The curve of each weight of `model` that is to be pruned, in the order of the file; `told` hears of each.
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
    let ready = subject.ready(model)?;
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
            let only = |other: &Weight| (other.name == w.name).then_some(level);
            points.push(Point {
                sparsity: level,
                score: scored(school, &ready.pruned(only)?)?,
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
        let pruned = ready.pruned(|_| Some(level))?;
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
