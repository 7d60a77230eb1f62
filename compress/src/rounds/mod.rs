//! Pruning in rounds: a part of the zeros, recovery, the next part.

mod ramp;
mod state;

use std::path::Path;
use std::time::Instant;

use secateur_engine::Model;
use serde::{Deserialize, Serialize};

pub use ramp::{RAMPS, Ramp};

use crate::methods::{Amount, Goal, Method, Task, mark};
use crate::recover::RecoverError;
use crate::scan::Effort;
use crate::{Choice, Examples, Pattern, Plan, Stats, Weight, apply_with, observe, weights};

/// How a goal is reached.
#[derive(Clone, Copy)]
pub struct Rounds<'a> {
    /// What chooses the weights.
    pub method: &'a dyn Method,
    /// What is to be reached in the end; without a goal nothing is pruned, and there is only recovery.
    pub goal: Option<Goal>,
    /// On what the method sees the model at work, if it wants to.
    pub shown: Option<&'a Examples<'a>>,
    /// Decides what methods draw.
    pub seed: u64,
    /// Which weights to prune.
    pub choice: &'a Choice,
    /// The number of rounds, at least 1.
    pub count: u32,
    /// How the share of zeros grows. Where the goal is a threshold, every round takes all that is below it.
    pub ramp: Ramp,
    /// How passes over the weights are made.
    pub effort: Effort<'a>,
}

/// What a model is worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The loss, as training has it.
    pub loss: f64,
    /// The share of examples that is classified right, where they have classes.
    pub accuracy: Option<f64>,
}

/// One round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its number, from 1.
    pub round: u32,
    /// The share of the weights to prune of the first model that is zero or gone now.
    pub sparsity: f64,
    /// What the model was worth before recovery.
    pub before: Option<Score>,
    /// What it is worth after.
    pub after: Option<Score>,
    /// Seconds it took.
    pub seconds: f64,
}

/// Where a round stands among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its number, from 1.
    pub round: u32,
    /// How many there are.
    pub of: u32,
}

/// What rounds tell while they run.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A round begins.
    Begin(Turn),
    /// Training tells something.
    Train(secateur_train::Event<'a>),
    /// Something that the caller may want to know was left out.
    Note(&'a str),
    /// A round has ended.
    Round(&'a Row),
}

/// Told of what happens.
pub type Told<'w> = &'w mut dyn FnMut(Event);

/// What makes a pruned model good again, and says how good it is.
pub trait School {
    /// What tells it from others, by name: what must be the same where rounds go on.
    fn purpose(&self) -> Vec<(&'static str, String)> {
        vec![]
    }

    /// What `model` is worth, if that is known.
    ///
    /// # Errors
    ///
    /// If it does not run.
    fn score(&mut self, model: &Model) -> Result<Option<Score>, RecoverError>;

    /// What `turn` led to is safe: what was kept only to go on within it can go.
    fn kept(&mut self, _turn: Turn) {}

    /// `model` after recovery. Weights that are zero stay so, and all zeros of those of `pruned` that are not exempt.
    ///
    /// # Errors
    ///
    /// If training fails.
    fn recover(
        &mut self,
        turn: Turn,
        model: Model,
        pruned: &[Weight],
        told: Told,
    ) -> Result<Model, RecoverError>;
}

/// There is no recovery, and nothing is known.
impl School for () {
    fn score(&mut self, _: &Model) -> Result<Option<Score>, RecoverError> {
        Ok(None)
    }

    fn recover(&mut self, _: Turn, model: Model, _: &[Weight], _: Told) -> Result<Model, RecoverError> {
        Ok(model)
    }
}

/// A model on its way through [`Rounds`].
pub struct Run<'a> {
    rounds: Rounds<'a>,
    start: &'a Model,
    /// Weights to prune of the first model, and the share of them that was zero.
    elements: u64,
    from: f64,
    model: Model,
    rows: Vec<Row>,
}

impl<'a> Run<'a> {
    /// Makes `model` ready for `rounds`.
    ///
    /// # Errors
    ///
    /// If the choice of weights does not fit it, or there are no rounds.
    pub fn new(model: &'a Model, rounds: Rounds<'a>) -> Result<Run<'a>, RecoverError> {
        if rounds.count == 0 {
            return Err(RecoverError::wrong("expected at least one round, found 0"));
        }
        let all = marked(model, &rounds)?;
        let (elements, live) = counts(&all);
        Ok(Run {
            rounds,
            start: model,
            elements,
            from: 1.0 - live as f64 / elements.max(1) as f64,
            model: model.clone(),
            rows: vec![],
        })
    }

    /// The model as the last round has left it.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The rounds that have ended.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Takes the rounds that are left and tells `told`. After each the state is written to `checkpoint`, all or nothing; see
    /// [`Run::resume`].
    ///
    /// # Errors
    ///
    /// If a round cannot be decided, done, recovered from or kept.
    pub fn run(
        &mut self,
        school: &mut dyn School,
        checkpoint: Option<&Path>,
        told: Told,
    ) -> Result<(), RecoverError> {
        while (self.rows.len() as u32) < self.rounds.count {
            let turn = Turn {
                round: self.rows.len() as u32 + 1,
                of: self.rounds.count,
            };
            self.round(turn, school, told)
                .map_err(|e| e.within(turn.round, turn.of))?;
            if let Some(path) = checkpoint {
                self.keep(path, school)?;
                school.kept(turn);
            }
            self.rows
                .iter()
                .last()
                .into_iter()
                .for_each(|row| told(Event::Round(row)));
        }
        Ok(())
    }

    fn round(&mut self, turn: Turn, school: &mut dyn School, told: Told) -> Result<(), RecoverError> {
        told(Event::Begin(turn));
        let begun = Instant::now();
        let mut model = self.model.clone();
        if let Some(goal) = self.rounds.goal {
            let plan = decide_round(&model, &self.rounds, self.goal(goal, turn))?;
            apply_with(&plan, &mut model, &self.rounds.effort, None)?;
        }
        let before = school.score(&model)?;
        let pruned = marked(&model, &self.rounds)?;
        let model = school.recover(turn, model, &pruned, told)?;
        let after = school.score(&model)?;
        let (_, live) = counts(&marked(&model, &self.rounds)?);
        self.model = model;
        self.rows.push(Row {
            round: turn.round,
            sparsity: 1.0 - live as f64 / self.elements.max(1) as f64,
            before,
            after,
            seconds: begun.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    /// What the round is to reach.
    fn goal(&self, goal: Goal, Turn { round, of }: Turn) -> Goal {
        let share = |to| self.rounds.ramp.share((self.from, to), round, of);
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
}

/// What one round does to `model`.
fn decide_round(model: &Model, rounds: &Rounds, goal: Goal) -> Result<Plan, RecoverError> {
    let weights = marked(model, rounds)?;
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

/// The weights of `model`, those that are not to be pruned marked.
fn marked(model: &Model, rounds: &Rounds) -> Result<Vec<Weight>, RecoverError> {
    let mut all = weights(model);
    rounds.choice.mark(&mut all)?;
    if let Some(goal) = rounds.goal {
        goal.pattern.mark(&mut all);
        mark(rounds.method, model, &mut all);
    }
    Ok(all)
}

/// How many elements the weights to prune have, and how many of them are not zero.
fn counts(weights: &[Weight]) -> (u64, u64) {
    let pruned = weights.iter().filter(|w| w.exempt.is_none());
    pruned.fold((0, 0), |(elements, live), w| {
        let n = w.elements();
        (elements + n, live + n - w.tensor.zeros_count() as u64)
    })
}

#[cfg(test)]
mod tests;
