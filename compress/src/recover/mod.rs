//! What makes a model good again from which something was taken away: statistics taken anew, biases, fine-tuning.

mod bias;
mod calibrate;
mod error;
mod hints;
mod moments;
mod norms;
mod put;
mod refit;
mod tune;

use std::path::{Path, PathBuf};

use secateur_engine::Model;
use secateur_train::data::Loader;
use secateur_train::{Course, Spec, Term, evaluate, fingerprint};

pub use bias::{Corrected, correct};
pub use calibrate::Calibration;
pub use error::{RecoverError, RecoverErrorKind};
pub use hints::hints;
use hints::learnable;
pub use norms::renormalize;
pub(crate) use put::own;
pub use refit::{Refitted, refit};

use crate::rounds::{Event, School, Score, Told, Turn};
use crate::{Plan, Watch, Weight};

/// A way of making up for what is taken away without training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repair {
    /// See [`correct`].
    Bias,
    /// See [`renormalize`].
    Norms,
    /// See [`refit`]. It comes before the others, with the cut.
    Weights,
}

/// The repairs by the names that recipes and the command line use, with what they do.
pub static REPAIRS: &[(&str, Repair, &str)] = &[
    (
        "bias",
        Repair::Bias,
        "Shifts biases so that means are the original's.",
    ),
    (
        "bn",
        Repair::Norms,
        "Takes the statistics of batch normalisations anew.",
    ),
    (
        "weights",
        Repair::Weights,
        "Fits weights so that what is left of each layer does what the layer did; where something is cut away.",
    ),
];

/// Recovery by the examples of a training.
pub struct Recovery<'a> {
    /// The model before anything was taken away.
    pub original: &'a Model,
    /// How the model is trained; its epochs are those of all rounds together, of which each gets an equal part, the last ones one more
    /// where they cannot be equal. Its checkpoint says whether, and where, the state of training is kept: a file for each round whose
    /// name begins so.
    pub course: Course<'a>,
    /// The examples it is trained on; each round has its own order.
    pub examples: Loader,
    /// Those it is measured by.
    pub measured: Option<Loader>,
    /// Whether the last of the terms is an accuracy.
    pub classes: bool,
    /// What comes before training, in this order.
    pub repairs: &'a [Repair],
    /// The number of training examples that repairs look at.
    pub samples: usize,
    /// Whether training goes on where a checkpoint was written.
    pub resume: bool,
    /// What else must be the same where state is gone on with: names and words.
    pub apart: Vec<(&'static str, String)>,
}

impl School for Recovery<'_> {
    fn purpose(&self) -> Vec<(&'static str, String)> {
        let (course, spec) = (&self.course, &self.course.spec);
        let options = self.examples.options();
        let teachers = course.teachers.iter();
        let teachers: Vec<_> = teachers
            .map(|t| format!("{} of {:016x}", t.output, fingerprint(t.model)))
            .collect();
        let own = vec![
            ("the original", format!("{:016x}", fingerprint(self.original))),
            ("the data", told(&self.examples)),
            ("the batch", options.batch.to_string()),
            ("the seed", options.seed.to_string()),
            ("augmentation", options.augment.to_string()),
            ("the loss", format!("{:?}", spec.terms)),
            ("the optimiser", format!("{:?}", spec.optimizer)),
            ("the groups of weights", format!("{:?}", spec.groups)),
            ("clipping", format!("{:?}", spec.clip)),
            ("the rate", course.rate.to_string()),
            ("the schedule of the rate", course.schedule.to_string()),
            ("the number of epochs", course.epochs.to_string()),
            ("the patience", format!("{:?}", course.patience)),
            ("the teacher", teachers.join(", ")),
            (
                "what is measured by",
                self.measured.as_ref().map_or(String::new(), told),
            ),
            ("the repairs", format!("{:?} by {}", self.repairs, self.samples)),
        ];
        own.into_iter().chain(self.apart.iter().cloned()).collect()
    }

    fn kept(&mut self, turn: Turn) {
        if let Some(path) = self.checkpoint(turn) {
            // What stays is only in the way of nobody.
            let _ = std::fs::remove_file(path);
        }
    }

    fn score(&mut self, model: &Model) -> Result<Option<Score>, RecoverError> {
        let Some(examples) = &self.measured else {
            return Ok(None);
        };
        let terms = learnable(model, &self.course);
        let course = Course {
            spec: Spec {
                terms: &terms,
                ..self.course.spec
            },
            ..self.course
        };
        let scores = evaluate(model, &course, examples)?;
        // What training makes small has teachers in it; without classes the label's term alone says what the model is worth, if there is one.
        let taught = |term: &Term| self.course.teachers.iter().any(|t| term.of.contains(&t.label));
        let label = terms.iter().position(|t| !taught(t)).filter(|_| !self.classes);
        let first = label.and_then(|i| scores.terms.get(i).copied());
        Ok(Some(Score {
            loss: first.unwrap_or(scores.loss),
            accuracy: scores.terms.last().copied().filter(|_| self.classes),
        }))
    }

    fn prepare(
        &mut self,
        turn: Turn,
        model: &Model,
        plan: Plan,
        (watch, told): (&dyn Watch, Told),
    ) -> Result<Plan, RecoverError> {
        if !self.repairs.contains(&Repair::Weights) || plan.0.is_empty() {
            return Ok(plan);
        }
        let done = refit(model, &plan, &self.shown()?, watch)?;
        if turn.round == 1 && (done.fitted == 0 || done.other > 0) {
            let Refitted { fitted, other, .. } = done;
            told(Event::Note(&format!(
                "repair weights has fitted {fitted} weights; {other} that see less or something else are as they were"
            )));
        }
        Ok(done.plan)
    }

    fn recover(
        &mut self,
        turn: Turn,
        mut model: Model,
        pruned: &[Weight],
        told: Told,
    ) -> Result<Model, RecoverError> {
        for repair in self.repairs {
            self.repair(*repair, turn, &mut model, told)?;
        }
        self.tune(turn, model, pruned, told)
    }
}

/// A word for the examples of `loader`.
fn told(loader: &Loader) -> String {
    let data = loader.data();
    format!("{data:?} ({:016x})", data.fingerprint())
}

impl Recovery<'_> {
    /// Where the state of training is kept in a round.
    fn checkpoint(&self, turn: Turn) -> Option<PathBuf> {
        let path: &Path = self.course.checkpoint?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".round{}", turn.round));
        Some(path.with_file_name(name))
    }

    fn shown(&self) -> Result<Calibration<'_>, RecoverError> {
        Ok(Calibration {
            examples: self.calibration()?,
            samples: self.samples,
            threads: self.course.threads,
            rates: self.course.rates,
        })
    }

    fn repair(&self, repair: Repair, turn: Turn, model: &mut Model, told: Told) -> Result<(), RecoverError> {
        let with = self.shown()?;
        let note = match repair {
            // That was done before the cut.
            Repair::Weights => return Ok(()),
            Repair::Norms => match renormalize(model, &with)? {
                0 => {
                    "there is no batch normalisation to take statistics of; it may be part of the convolutions"
                }
                _ => return Ok(()),
            },
            Repair::Bias => match correct(model, self.original, &with)? {
                Corrected { shifted: 0, .. } => "there is no bias to correct",
                Corrected { other: 1.., .. } => {
                    "some biases are not corrected: their layers are others than the original's"
                }
                _ => return Ok(()),
            },
        };
        if turn.round == 1 {
            told(Event::Note(note));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
