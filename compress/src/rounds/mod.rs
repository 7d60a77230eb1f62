//! Pruning in rounds: a part of what is to go, recovery, the next part.

mod aim;
mod ramp;
mod state;

use std::path::Path;
use std::time::Instant;

use secateur_engine::Model;
use serde::{Deserialize, Serialize};

pub use aim::Aim;
pub use ramp::{RAMPS, Ramp};
pub(crate) use state::{differs, times};

use aim::Progress;

use crate::methods::Method;
use crate::recover::RecoverError;
use crate::scan::{Effort, Watch};
use crate::trim::Frame;
use crate::{Choice, Examples, Plan, Weight, apply_with};

/// How a goal is reached.
#[derive(Clone)]
pub struct Rounds<'a> {
    /// What says how important weights are.
    pub method: &'a dyn Method,
    /// What is to be reached in the end; without it nothing is pruned, and there is only recovery.
    pub aim: Option<Aim>,
    /// On what the method sees the model at work, if it wants to.
    pub shown: Option<&'a Examples<'a>>,
    /// Decides what methods draw.
    pub seed: u64,
    /// Which weights are to become zero; what is cut away says by itself what is to be kept.
    pub choice: &'a Choice,
    /// By what sizes models are followed where they are cut.
    pub frame: Frame<'a>,
    /// The number of rounds, at least 1.
    pub count: u32,
    /// How the share of what is gone grows. Where the goal is a threshold, every round takes all that is below it.
    pub ramp: Ramp,
    /// How passes over the weights are made.
    pub effort: Effort<'a>,
}

/// What a model is worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The loss, as training has it; the first term of it where there are no classes.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// The share of examples that is classified right, where they have classes.
    pub accuracy: Option<f64>,
}

/// A number of JSON, which has `null` for those that are not finite.
fn number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// One round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its number, from 1.
    pub round: u32,
    /// The share of the weights to prune of the first model that is zero or gone now; of what is cut away the share that is gone of
    /// what was to be counted.
    pub sparsity: f64,
    /// What the model was worth before recovery.
    pub before: Option<Score>,
    /// What it is worth after.
    pub after: Option<Score>,
    /// Whether recovery made it no worse, and is kept.
    #[serde(default = "yes")]
    pub recovered: bool,
    /// Seconds it took.
    pub seconds: f64,
}

fn yes() -> bool {
    true
}

impl Score {
    /// Whether it is less than `other`: by accuracy where there is one, else by the loss. No number is worse than any.
    pub fn is_worse(&self, other: &Score) -> bool {
        match (self.accuracy, other.accuracy) {
            (Some(a), Some(b)) => a < b,
            _ => self.loss > other.loss || self.loss.is_nan() && !other.loss.is_nan(),
        }
    }
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

    /// `plan`, which `turn` does to `model`, with what makes up for it. The watch is told of runs.
    ///
    /// # Errors
    ///
    /// If the model does not run, or the plan is none that can be made up for.
    fn prepare(
        &mut self,
        _turn: Turn,
        _model: &Model,
        plan: Plan,
        (_watch, _told): (&dyn Watch, Told),
    ) -> Result<Plan, RecoverError> {
        Ok(plan)
    }

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
    progress: Progress,
    model: Model,
    rows: Vec<Row>,
}

impl<'a> Run<'a> {
    /// Makes `model` ready for `rounds`.
    ///
    /// # Errors
    ///
    /// If the choice of weights does not fit it, there is nothing to cut, or there are no rounds.
    pub fn new(model: &'a Model, rounds: Rounds<'a>) -> Result<Run<'a>, RecoverError> {
        if rounds.count == 0 {
            return Err(RecoverError::wrong("expected at least one round, found 0"));
        }
        Ok(Run {
            progress: Progress::new(model, &rounds)?,
            rounds,
            start: model,
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
        let plan = self.progress.plan(&model, &self.rounds, turn, &mut *told)?;
        let watch = self.rounds.effort.watch;
        let plan = school.prepare(turn, &model, plan, (watch, &mut *told))?;
        apply_with(&plan, &mut model, &self.rounds.effort, None)?;
        let before = school.score(&model)?;
        let pruned = self.rounds.marked(&model)?;
        let better = school.recover(turn, model.clone(), &pruned, told)?;
        let mut after = school.score(&better)?;
        let recovered = !before
            .zip(after)
            .is_some_and(|(before, after)| after.is_worse(&before));
        if recovered {
            model = better;
        } else {
            let Turn { round, of } = turn;
            told(Event::Note(&format!(
                "round {round} of {of}: recovery made the model worse; it stays as it was before"
            )));
            after = before;
        }
        let sparsity = self.progress.gone(&model, &self.rounds)?;
        self.model = model;
        self.rows.push(Row {
            round: turn.round,
            sparsity,
            before,
            after,
            recovered,
            seconds: begun.elapsed().as_secs_f64(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
