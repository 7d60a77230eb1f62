//! Training over epochs: steps, evaluation, checkpoints, and what stops it.

mod checkpoint;
mod diverged;
mod evaluate;
mod probe;
mod run;
mod teacher;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secateur_engine::plan::Rates;
use secateur_engine::{Model, Session, Tensor};
use serde::{Deserialize, Serialize};

pub use checkpoint::{fingerprint_of, whole};
pub use diverged::Diverged;
pub use evaluate::{Scores, evaluate};
pub use teacher::Teacher;

use crate::data::{Loader, Position};
use crate::schedule::Patience;
use crate::{Schedule, Spec, StepGraph, TrainError, step};
use checkpoint::Purpose;
use evaluate::{Sums, score};
use probe::Probe;
use teacher::Teachers;

/// How a model is trained.
#[derive(Clone, Copy, Debug)]
pub struct Course<'a> {
    /// What a step does. Of the names of [`Term::of`](crate::Term::of) that the model does not have, those of `teachers` are theirs,
    /// and the others get the labels of the data.
    pub spec: Spec<'a>,
    /// The rate that the schedule begins with.
    pub rate: f64,
    /// How it goes on. Time is counted in epochs, and goes on within them.
    pub schedule: &'a Schedule,
    /// How often all examples are seen.
    pub epochs: u64,
    /// After so many epochs in which the loss of the validation examples was not the least so far training ends, and the weights are
    /// those of the best epoch.
    pub patience: Option<u64>,
    /// Models whose outputs are labels.
    pub teachers: &'a [Teacher<'a>],
    /// Where the state of training is kept, so that it can go on when it is stopped at any moment: written at the end of each epoch,
    /// and in between; see `keep`.
    pub checkpoint: Option<&'a Path>,
    /// How much time passes at most before it is written again within an epoch.
    pub keep: Duration,
    /// Threads to run on.
    pub threads: usize,
    /// What kernels take.
    pub rates: &'a Arc<Rates>,
}

/// What is measured of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// Its number, from 1.
    pub epoch: u64,
    /// The rate of its last step.
    pub rate: f64,
    /// Means over the examples it was trained on, while it changed.
    pub train: Scores,
    /// What it makes of the validation examples at the end, as a file for inference.
    pub validation: Option<Scores>,
    /// Seconds, with evaluation.
    pub seconds: f64,
    /// Milliseconds of a step: the median.
    pub step_ms: f64,
}

/// What training tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step was taken.
    Step {
        /// Steps so far, and all that there will be.
        done: u64,
        /// As [`Course::epochs`] has it.
        of: u64,
        /// The epoch, from 1.
        epoch: u64,
        /// The loss of its batch.
        loss: f64,
        /// The rate.
        rate: f64,
    },
    /// An epoch has ended.
    Epoch(&'a EpochRow),
}

/// A model on its way through a [`Course`].
pub struct Trainer<'a> {
    model: &'a Model,
    course: Course<'a>,
    graph: StepGraph,
    session: Session,
    teachers: Teachers,
    train: Loader,
    validation: Option<Loader>,
    purpose: Purpose,
    /// Made when it is first asked for.
    probe: Option<Probe>,
    now: Progress,
}

/// What changes while training runs, and all that is needed to go on.
#[derive(Clone, Debug)]
struct Progress {
    log: Log,
    /// As [`StepGraph::state`].
    state: Vec<Tensor>,
    /// That of the epoch with the least loss of the validation examples, where training may end early.
    best: Option<Vec<Tensor>>,
}

/// The part of it that is no tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Log {
    steps: u64,
    position: Position,
    /// Those of the epoch so far.
    sums: Sums,
    schedule: Schedule,
    patience: Patience,
    rows: Vec<EpochRow>,
    stopped: bool,
    /// The rate of the last step.
    rate: f64,
    /// Seconds of the epoch so far, and milliseconds of its steps.
    seconds: f64,
    took: Vec<f64>,
}

impl<'a> Trainer<'a> {
    /// Makes `model` ready to be trained on what `train` loads, and to be measured by `validation`.
    ///
    /// # Errors
    ///
    /// If the model, what `course` says and the data do not fit each other.
    pub fn new(
        model: &'a Model,
        course: Course<'a>,
        (train, validation): (Loader, Option<Loader>),
    ) -> Result<Trainer<'a>, TrainError> {
        if course.patience.is_some() && validation.is_none() {
            let what = "training ends early by the loss of validation examples; there are none";
            return Err(TrainError::wrong(what));
        }
        if train.batches() == 0 {
            return Err(TrainError::wrong(format!(
                "{} examples are no whole batch",
                train.data().len()
            )));
        }
        let graph = step(model, &course.spec)?;
        let builder = Session::builder(&graph.model)
            .threads(course.threads)
            .rates(course.rates.clone());
        let state = graph.state.iter();
        let session = state.fold(builder, |b, s| b.state(&s.input, &s.output)).build()?;
        let now = Progress {
            state: graph.state.iter().map(|s| s.start.clone()).collect(),
            best: None,
            log: Log {
                steps: 0,
                position: Position::default(),
                sums: Sums::default(),
                schedule: course.schedule.clone(),
                patience: Patience::default(),
                rows: vec![],
                stopped: false,
                rate: 0.0,
                seconds: 0.0,
                took: vec![],
            },
        };
        let mut trainer = Trainer {
            purpose: Purpose::default(),
            probe: None,
            teachers: Teachers::new(&course)?,
            model,
            course,
            graph,
            session,
            train,
            validation,
            now,
        };
        if course.checkpoint.is_some() {
            trainer.purpose = trainer.purpose();
        }
        Ok(trainer)
    }

    /// The model as training has left it.
    ///
    /// # Errors
    ///
    /// None, unless the model was changed meanwhile.
    pub fn model(&self) -> Result<Model, TrainError> {
        let best = self.now.best.as_ref().unwrap_or(&self.now.state);
        self.with(best)
    }

    fn with(&self, state: &[Tensor]) -> Result<Model, TrainError> {
        let mut model = self.model.clone();
        self.graph.put_back(state, &mut model)?;
        Ok(model)
    }

    /// Steps that were taken, and all that there will be.
    pub fn steps(&self) -> (u64, u64) {
        let all = self.course.epochs * self.train.batches() as u64;
        (self.now.log.steps, all)
    }

    /// What goes from step to step, as [`StepGraph::state`](crate::StepGraph::state) lists it, after the last step. [`StepGraph::put_back`] makes
    /// a model of it.
    pub fn state(&self) -> &[Tensor] {
        &self.now.state
    }

    /// Begins after so many steps of the course instead of before the first: the rate and the examples are those that follow then, while
    /// the weights and the optimiser's state are as they are at a beginning.
    pub fn begin_at(&mut self, steps: u64) {
        let batches = self.train.batches() as u64;
        self.now.log.steps = steps;
        self.now.log.position = Position {
            epoch: steps / batches,
            batch: (steps % batches) as usize,
        };
    }

    /// What was measured of each epoch.
    pub fn rows(&self) -> &[EpochRow] {
        &self.now.log.rows
    }

    /// That of the epoch whose weights the model has.
    pub fn row(&self) -> Option<&EpochRow> {
        let loss = |r: &&EpochRow| r.validation.as_ref().map_or(f64::INFINITY, |v| v.loss);
        match self.now.best {
            // Of equal losses the first is the best.
            Some(_) => self.rows().iter().min_by(|a, b| loss(a).total_cmp(&loss(b))),
            None => self.rows().last(),
        }
    }

    /// Whether it ended before all epochs, since nothing became better any more.
    pub fn stopped(&self) -> bool {
        self.now.log.stopped
    }

    /// The step as a graph, as it was first.
    pub fn graph(&self) -> &StepGraph {
        &self.graph
    }

    /// What the model as training has left it makes of other examples.
    ///
    /// # Errors
    ///
    /// If it cannot run on them.
    pub fn score(&self, examples: &Loader) -> Result<Scores, TrainError> {
        score(&self.model()?, &self.course, &self.teachers, examples)
    }
}
