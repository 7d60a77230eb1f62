//! Schools that are told apart by more than they know themselves.

use secateur::Model;
use secateur::compress::recover::RecoverError;
use secateur::compress::rounds::{School, Score, Told, Turn};
use secateur::compress::{Plan, Watch, Weight};

/// A school, and what else must be the same where its state is gone on with: names and words.
pub(in crate::cmd) struct Apart<'a> {
    pub(in crate::cmd) school: &'a mut dyn School,
    pub(in crate::cmd) by: Vec<(&'static str, String)>,
}

impl School for Apart<'_> {
    fn purpose(&self) -> Vec<(&'static str, String)> {
        let mut all = self.school.purpose();
        all.extend(self.by.iter().cloned());
        all
    }

    fn score(&mut self, model: &Model) -> Result<Option<Score>, RecoverError> {
        self.school.score(model)
    }

    fn kept(&mut self, turn: Turn) {
        self.school.kept(turn);
    }

    fn prepare(
        &mut self,
        turn: Turn,
        model: &Model,
        plan: Plan,
        by: (&dyn Watch, Told),
    ) -> Result<Plan, RecoverError> {
        self.school.prepare(turn, model, plan, by)
    }

    fn recover(
        &mut self,
        turn: Turn,
        model: Model,
        pruned: &[Weight],
        told: Told,
    ) -> Result<Model, RecoverError> {
        self.school.recover(turn, model, pruned, told)
    }
}
