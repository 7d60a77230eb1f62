//! One training of a network of which a part is masked out.

use std::time::{Duration, Instant};

use secateur_engine::{Model, Tensor};
use secateur_train::{Course, Event, Scores, Spec, Trainer};

use super::masks::Masks;
use super::{Point, Trial};
use crate::error::TicketError;

/// What a training begins with.
pub(super) struct Lesson {
    pub(super) start: Model,
    pub(super) masks: Masks,
    /// The step at which it begins.
    pub(super) from: u64,
}

/// What it ends in.
pub(super) struct Learned {
    /// At the step that is gone back to, if it came by there and that is not the first.
    pub(super) rewound: Option<Model>,
    pub(super) trained: Model,
    pub(super) curve: Vec<Point>,
    pub(super) accuracy: f64,
    pub(super) final_accuracy: f64,
    pub(super) seconds: f64,
}

impl Learned {
    /// Where the loss was least.
    pub(super) fn best(&self) -> Point {
        let best = self.curve.iter().min_by(|a, b| a.loss.total_cmp(&b.loss));
        best.copied().unwrap_or(Point {
            step: 0,
            loss: f64::NAN,
            accuracy: f64::NAN,
        })
    }

    /// The first step that is at least so good.
    pub(super) fn reaches(&self, accuracy: f64) -> Option<u64> {
        self.curve.iter().find(|p| p.accuracy >= accuracy).map(|p| p.step)
    }
}

impl Lesson {
    /// Trains to the last step.
    pub(super) fn learn(&self, trial: &Trial, watch: &mut dyn FnMut(Event)) -> Result<Learned, TicketError> {
        let begun = Instant::now();
        let masks = self.masks.tensors();
        let mut school = School::new(trial, &self.start, &masks)?;
        school.trainer.begin_at(self.from);
        let rewind = (self.from == 0 && trial.rewind > 0).then_some(trial.rewind);
        let (mut rewound, mut best, mut curve) = (None, None, Vec::<Point>::new());
        let mut at = self.from;
        while at < trial.steps {
            let measured = (at / trial.every + 1) * trial.every;
            let stop = rewind.filter(|&k| k > at).map_or(measured, |k| k.min(measured));
            at = stop.min(trial.steps);
            school.trainer.advance(at, watch)?;
            if Some(at) == rewind {
                rewound = Some(school.model(&self.start)?);
            }
            if !at.is_multiple_of(trial.every) && at < trial.steps {
                continue;
            }
            let state = school.trainer.state().to_vec();
            let point = school.point(at, &state)?;
            if curve.iter().all(|p| point.loss < p.loss) {
                best = Some(state);
            }
            curve.push(point);
        }
        let state = school.trainer.state().to_vec();
        let final_accuracy = school.right(&state, 2)?;
        Ok(Learned {
            rewound,
            trained: school.model(&self.start)?,
            accuracy: best.map_or(Ok(final_accuracy), |state| school.right(&state, 2))?,
            final_accuracy,
            curve,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }
}

/// A network while it learns.
pub(super) struct School<'a> {
    trainer: Trainer<'a>,
    trial: &'a Trial<'a>,
}

impl<'a> School<'a> {
    pub(super) fn new(
        trial: &'a Trial<'a>,
        model: &'a Model,
        masks: &'a [(&'a str, Tensor)],
    ) -> Result<School<'a>, TicketError> {
        let [train, ..] = trial.examples;
        let spec = Spec {
            masks,
            hold_zeros: false,
            ..trial.course.spec
        };
        let course = Course {
            spec,
            epochs: trial.steps.div_ceil(train.batches().max(1) as u64),
            patience: None,
            checkpoint: None,
            keep: Duration::MAX,
            ..trial.course
        };
        let trainer = Trainer::new(model, course, (train.clone(), None))?;
        Ok(School { trainer, trial })
    }

    /// The names of what is trained.
    pub(super) fn trained(&self) -> Vec<String> {
        let weights = self.trainer.graph().state.iter().filter_map(|s| s.weight);
        let graph = &self.trial.model.graph;
        weights.map(|v| graph[v].name.to_string()).collect()
    }

    /// `start`, the model that it began with, after the steps so far.
    fn model(&self, start: &Model) -> Result<Model, TicketError> {
        let mut model = start.clone();
        self.trainer.graph().put_back(self.trainer.state(), &mut model)?;
        Ok(model)
    }

    fn scores(&mut self, state: &[Tensor], examples: usize) -> Result<(f64, f64), TicketError> {
        let Scores { loss, terms } = self.trainer.score_state(state, self.trial.examples[examples])?;
        Ok((loss, terms.last().copied().unwrap_or(f64::NAN)))
    }

    fn right(&mut self, state: &[Tensor], examples: usize) -> Result<f64, TicketError> {
        Ok(self.scores(state, examples)?.1)
    }

    fn point(&mut self, step: u64, state: &[Tensor]) -> Result<Point, TicketError> {
        let (loss, accuracy) = self.scores(state, 1)?;
        Ok(Point { step, loss, accuracy })
    }
}
