//! What measures a model, and makes it good again.

use secateur::Model;
use secateur::compress::recover::{RecoverError, Recovery};
use secateur::compress::rounds::{School, Score, Told, Turn};
use secateur::compress::{Plan, Watch, Weight};

use super::agree::Original;

/// A school that measures by labels, or by agreement with what a model was.
pub(super) struct Exam<'a> {
    pub(super) recovery: Recovery<'a>,
    /// Where there are no labels.
    pub(super) original: Option<Original<'a>>,
}

impl School for Exam<'_> {
    fn purpose(&self) -> Vec<(&'static str, String)> {
        self.recovery.purpose()
    }

    fn score(&mut self, model: &Model) -> Result<Option<Score>, RecoverError> {
        match &self.original {
            Some(original) => original.score(model).map(Some),
            None => self.recovery.score(model),
        }
    }

    fn kept(&mut self, turn: Turn) {
        self.recovery.kept(turn);
    }

    fn prepare(
        &mut self,
        turn: Turn,
        model: &Model,
        plan: Plan,
        by: (&dyn Watch, Told),
    ) -> Result<Plan, RecoverError> {
        self.recovery.prepare(turn, model, plan, by)
    }

    fn recover(
        &mut self,
        turn: Turn,
        model: Model,
        pruned: &[Weight],
        told: Told,
    ) -> Result<Model, RecoverError> {
        self.recovery.recover(turn, model, pruned, told)
    }
}
