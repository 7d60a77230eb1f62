//! What each weight of a model hurts and saves as it alone is pruned.

use secateur_engine::Model;
use serde::{Deserialize, Serialize};

use super::cost::Sizes;
use super::cut::Cutting;
use super::ready::Ready;
use super::target::Quantity;
use crate::change::Plan;
use crate::methods::{Method, mark};
use crate::recover::RecoverError;
use crate::rounds::{School, Score};
use crate::scan::Effort;
use crate::trim::Frame;
use crate::{Blend, Choice, Examples, Pattern, Weight, apply_with, weights};

/// The shares of zeros that are tried, where the pattern does not say one.
pub const LEVELS: &[f64] = &[0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98];

/// What is pruned, and how.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// What chooses elements of a weight.
    pub method: &'a dyn Method,
    /// Which of them are zero together, what is cut away, or both.
    pub pattern: Blend,
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
    /// Whether pieces of it are cut away; else elements of it become zero.
    #[serde(default)]
    pub cut: bool,
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
    pub(super) fn levels(&self) -> Vec<f64> {
        let own = self.pattern.zeros().and_then(Pattern::share);
        own.map_or(LEVELS.to_vec(), |share| vec![share])
    }

    /// Whether `curve` has nothing between its points: what is cut away goes by steps, and a pattern may say its share.
    pub(super) fn steps(&self, curve: &Curve) -> bool {
        curve.cut || self.pattern.zeros().and_then(Pattern::share).is_some()
    }

    /// The weights of `model`, those that are left alone marked. Where no zeros are made, none is.
    pub(super) fn marked(&self, model: &Model) -> Result<Vec<Weight>, RecoverError> {
        let mut all = weights(model);
        if let Some(pattern) = self.pattern.zeros() {
            // Some names are of what is cut away, and may be gone.
            let fitting = self.pattern.piece().map(|_| self.choice.fitting(&all));
            fitting.as_ref().unwrap_or(self.choice).mark(&mut all)?;
            pattern.mark(&mut all);
            mark(self.method, model, &mut all);
        }
        Ok(all)
    }

    /// `model` after `plan`.
    pub(super) fn applied(&self, model: &Model, plan: &Plan) -> Result<Model, RecoverError> {
        let mut new = model.clone();
        apply_with(plan, &mut new, &self.effort, None)?;
        Ok(new)
    }

    /// The share of what `curves` have that is zero in `model`, or gone: of elements, if zeros are made, else of what is cut.
    pub(super) fn gone(&self, model: &Model, curves: &[Curve]) -> Result<f64, RecoverError> {
        let all = |cut: bool| {
            curves
                .iter()
                .filter(|c| c.cut == cut)
                .map(|c| c.elements)
                .sum::<u64>()
        };
        let left = match (self.pattern.zeros(), self.pattern.piece()) {
            (None, Some(piece)) => Cutting::new(self, model, piece)?.left(curves),
            _ => {
                let named = |w: &&Weight| curves.iter().any(|c| !c.cut && c.weight == w.name);
                let live = |w: &Weight| w.elements() - w.tensor.zeros_count() as u64;
                weights(model).iter().filter(named).map(live).sum()
            }
        };
        Ok(1.0 - left as f64 / all(self.pattern.zeros().is_none()).max(1) as f64)
    }
}

/// The curve of each weight of `model` that is to be pruned, and of each group and each block that may be cut, in the order of the file,
/// cuts first; `told` hears of each.
///
/// # Errors
///
/// If the model cannot be pruned, run, or scored.
pub fn sensitivity(
    model: &Model,
    subject: &Subject,
    by: (Quantity, &Sizes),
    school: &mut dyn School,
    told: &mut dyn FnMut(&Curve),
) -> Result<Vec<Curve>, RecoverError> {
    let ready = Ready::new(subject, model)?;
    ready.check()?;
    let start = scored(school, model)?;
    ready.curves((start, school), by, told)
}

/// What `model` is worth.
pub(super) fn scored(school: &mut dyn School, model: &Model) -> Result<Score, RecoverError> {
    let score = school.score(model)?;
    score.ok_or_else(|| RecoverError::wrong("a budget needs examples by which models are measured"))
}
