//! What rounds are to reach, and how far they have come.

use secateur_engine::Model;

use super::{Event, Rounds, Told, Turn};
use crate::methods::{Amount, Goal, Task, mark};
use crate::recover::RecoverError;
use crate::trim::{First, Rank, Trim};
use crate::{Pattern, Plan, Stats, Weight, observe, weights};

/// What is to be reached.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Aim {
    /// Weights are zero.
    Zeros(Goal),
    /// Pieces are gone.
    Cuts(Trim),
}

impl From<Goal> for Aim {
    fn from(goal: Goal) -> Aim {
        Aim::Zeros(goal)
    }
}

impl From<Trim> for Aim {
    fn from(trim: Trim) -> Aim {
        Aim::Cuts(trim)
    }
}

/// What the first model had, by which a share is counted.
pub(super) enum Progress {
    /// Weights to prune, and the share of them that was zero.
    Zeros { elements: u64, from: f64 },
    /// What could be cut.
    Cuts(First),
}

impl Progress {
    pub(super) fn new(model: &Model, rounds: &Rounds) -> Result<Progress, RecoverError> {
        if let Some(Aim::Cuts(trim)) = &rounds.aim {
            return Ok(Progress::Cuts(trim.first(model, &rounds.frame)?));
        }
        let (elements, live) = counts(&rounds.marked(model)?);
        let from = 1.0 - live as f64 / elements.max(1) as f64;
        Ok(Progress::Zeros { elements, from })
    }

    /// What the round `turn` does to `model`.
    pub(super) fn plan(
        &self,
        model: &Model,
        rounds: &Rounds,
        turn: Turn,
        told: Told,
    ) -> Result<Plan, RecoverError> {
        let Turn { round, of } = turn;
        match (self, &rounds.aim) {
            (Progress::Cuts(first), Some(Aim::Cuts(trim))) => {
                let share = rounds.ramp.share((0.0, trim.share), round, of);
                let what = (trim.piece, &rounds.frame);
                let rank = Rank::new(model, what, rounds.method, rounds.shown, rounds.seed)?;
                rank.note().into_iter().for_each(|note| told(Event::Note(note)));
                trim.decide(model, (share, first), &rank, &rounds.frame)
            }
            (Progress::Zeros { from, .. }, Some(Aim::Zeros(goal))) => {
                let share = |to| rounds.ramp.share((*from, to), round, of);
                zeros(model, rounds, stage(*goal, turn, share))
            }
            _ => Ok(Plan::default()),
        }
    }

    /// The share that is gone of what the first model had.
    pub(super) fn gone(&self, model: &Model, rounds: &Rounds) -> Result<f64, RecoverError> {
        match (self, &rounds.aim) {
            (Progress::Cuts(first), Some(Aim::Cuts(trim))) => {
                Ok(1.0 - trim.left(model, first, &rounds.frame)?)
            }
            (Progress::Zeros { elements, .. }, _) => {
                let (_, live) = counts(&rounds.marked(model)?);
                Ok(1.0 - live as f64 / (*elements).max(1) as f64)
            }
            (Progress::Cuts(_), _) => Ok(0.0),
        }
    }
}

impl Rounds<'_> {
    /// The weights of `model`, those that are not to be pruned marked. Where pieces are cut away, no weight is pruned that has none.
    pub(super) fn marked(&self, model: &Model) -> Result<Vec<Weight>, RecoverError> {
        let mut all = weights(model);
        match &self.aim {
            Some(Aim::Cuts(_)) => {}
            Some(Aim::Zeros(goal)) => {
                self.choice.mark(&mut all)?;
                goal.pattern.mark(&mut all);
                mark(self.method, model, &mut all);
            }
            None => self.choice.mark(&mut all)?,
        }
        Ok(all)
    }
}

/// What a round is to reach on the way to `goal`.
fn stage(goal: Goal, Turn { round, of }: Turn, share: impl Fn(f64) -> f64) -> Goal {
    match (goal.pattern, goal.amount) {
        (Pattern::Most { keep, of: n }, Amount::Sparsity(_)) if round < of => {
            let to = 1.0 - keep as f64 / n as f64;
            // Rounded, so that a share of thirds does not keep one more.
            let kept = ((1.0 - share(to)) * n as f64 - 1e-9).ceil() as usize;
            let keep = kept.clamp(keep, n);
            Goal {
                amount: Amount::Sparsity(1.0 - keep as f64 / n as f64),
                pattern: Pattern::Most { keep, of: n },
                ..goal
            }
        }
        (_, Amount::Sparsity(to)) => Goal {
            amount: Amount::Sparsity(share(to)),
            ..goal
        },
        (_, Amount::Threshold(_)) => goal,
    }
}

/// What makes zeros of `model`.
fn zeros(model: &Model, rounds: &Rounds, goal: Goal) -> Result<Plan, RecoverError> {
    let weights = rounds.marked(model)?;
    let task = Task {
        model,
        weights: &weights,
        goal,
        effort: rounds.effort,
    };
    let stats = match (rounds.method.needs(), rounds.shown) {
        ([], _) => Stats::seeded(rounds.seed),
        (needs, Some(shown)) => observe(model, &task.targets()?, needs, shown)?,
        (_, None) => return Err(RecoverError::unshown(rounds.method)),
    };
    Ok(rounds.method.decide(&task, &stats)?)
}

/// How many elements the weights to prune have, and how many of them are not zero.
fn counts(weights: &[Weight]) -> (u64, u64) {
    let pruned = weights.iter().filter(|w| w.exempt.is_none());
    pruned.fold((0, 0), |(elements, live), w| {
        let n = w.elements();
        (elements + n, live + n - w.tensor.zeros_count() as u64)
    })
}
