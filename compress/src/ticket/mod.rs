//! Lottery tickets: parts of a network that learn by themselves what the whole learns (Frankle and Carbin 2019; with rewinding to
//! an early step, Frankle, Dziugaite, Roy and Carbin 2020).
//!
//! The dense network is trained from its first weights W0 to the end. Then, round by round, the smallest of the trained weights are
//! masked out, what is left goes back to W0 or to what it was at an early step, and is trained again. Beside the ticket that this makes
//! stand controls: the same mask with other first weights, and as many weights elsewhere.

mod layers;
mod masks;
mod school;

use secateur_engine::Model;
use secateur_engine::random::Random;
use secateur_train::data::Loader;
use secateur_train::{Course, Event};
use serde::{Deserialize, Serialize};

use crate::error::TicketError;
pub use masks::{Layer, Masks, Rate};
use masks::{set, shuffle};
use school::{Lesson, School};

/// What a network begins with, and which part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// All weights from W0 on.
    Dense,
    /// The mask that trained magnitudes gave, and W0 (or what they were at the step that is gone back to).
    Ticket,
    /// The same mask, and other first weights of the same distribution, trained from step 0 on.
    Reinit,
    /// As many weights of each layer elsewhere, and the values that the ticket begins with.
    RandomMask,
}

impl Arm {
    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Arm::Dense => "dense",
            Arm::Ticket => "ticket",
            Arm::Reinit => "reinit",
            Arm::RandomMask => "random-mask",
        }
    }
}

/// A search for tickets with one seed.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// The network with W0.
    pub model: &'a Model,
    /// The same network drawn with another seed, for [`Arm::Reinit`]; without it the elements of each pruned weight of W0 are put into
    /// a random order.
    pub other: Option<&'a Model>,
    /// How all are trained. Its last term is the share that is right; masks, patience and checkpoints have no say.
    pub course: Course<'a>,
    /// Examples to train on, to measure by on the way, and for the result alone.
    pub examples: [&'a Loader; 3],
    /// Steps of a training.
    pub steps: u64,
    /// After so many steps each it is measured.
    pub every: u64,
    /// How often weights are masked out.
    pub rounds: u32,
    /// How many.
    pub rate: Rate,
    /// The step whose weights are gone back to; at 0 those are W0, to the bit.
    pub rewind: u64,
    /// The controls that are trained beside dense network and ticket.
    pub controls: &'a [Arm],
    /// Decides other first weights and other masks.
    pub seed: u64,
}

/// What was measured of one training on the validation examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Steps so far, those before what was gone back to included.
    pub step: u64,
    /// The loss.
    pub loss: f64,
    /// The share that is right.
    pub accuracy: f64,
}

/// What came of one training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was trained.
    pub arm: Arm,
    /// The seed of the trial.
    pub seed: u64,
    /// How often weights were masked out before: 0 for the dense network.
    pub round: u32,
    /// The share of the prunable weights that is left.
    pub remaining: f64,
    /// Their number.
    pub weights: u64,
    /// The accuracy on the validation examples that the dense network had when its loss on them was least.
    pub target: f64,
    /// The first step that was measured at which the accuracy on the validation examples was at least `target`.
    pub steps_to_target: Option<u64>,
    /// The step that was measured at which the loss of the validation examples was least.
    pub best_step: u64,
    /// The accuracy on the test examples with the weights of `best_step`.
    pub accuracy: f64,
    /// The same with the weights of the last step.
    pub final_accuracy: f64,
    /// Seconds that it took.
    pub seconds: f64,
    /// All that was measured on the way.
    pub curve: Vec<Point>,
}

/// What was done before.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// What came of trainings, in the order in which [`Search::next`] gave them.
    pub rows: Vec<Row>,
    /// What is gone back to, if the dense network was trained.
    pub start: Option<Model>,
    /// A model of the masks of the round that is next or underway ([`Masks::model`]), from the first round on.
    pub masks: Option<Model>,
}

/// One training and what it leaves behind.
#[derive(Clone, Debug)]
pub struct Done {
    /// What came of it.
    pub row: Row,
    /// What is gone back to, after the dense network.
    pub start: Option<Model>,
    /// What it began with, after a ticket.
    pub ticket: Option<Model>,
    /// What it learned: the weights of the last step, from whose magnitudes the next masks follow.
    pub trained: Model,
    /// The masks of the next round, after the dense network and tickets, unless this was the last round.
    pub next: Option<Masks>,
}

/// The trainings of a trial, one after the other.
pub struct Search<'a> {
    trial: Trial<'a>,
    whole: Masks,
    last: Vec<String>,
    start: Option<Model>,
    masks: Option<Masks>,
    target: Option<f64>,
    /// How many are done.
    done: usize,
}

impl<'a> Search<'a> {
    /// Goes on from `past`, to the same as if nothing had come between.
    ///
    /// # Errors
    ///
    /// If model, course and examples do not fit each other, there is nothing to prune, or `past` is not of this trial.
    pub fn new(trial: Trial<'a>, past: Past) -> Result<Search<'a>, TicketError> {
        trial.check()?;
        let names = School::new(&trial, trial.model, &[])?.trained();
        let whole = layers::whole(trial.model, &names)?;
        let names: Vec<&str> = whole.0.iter().map(|l| &*l.name).collect();
        let mut search = Search {
            last: layers::last(trial.model, &names),
            start: past.start,
            masks: past.masks.map(|m| whole.read(&m)).transpose()?,
            target: past.rows.first().map(|r| r.target),
            done: past.rows.len(),
            whole,
            trial,
        };
        let order: Vec<_> = (0..search.done).map_while(|i| search.task(i)).collect();
        let past: Vec<_> = past.rows.iter().map(|r| (r.round, r.arm)).collect();
        let ready = search.done == 0 || search.task(search.done).is_none() || search.masks.is_some();
        if order != past || !ready || (search.done > 0 && search.start.is_none()) {
            return Err(TicketError::wrong(
                "what was done before is not of this search for tickets",
            ));
        }
        if search.done == 0 {
            (search.start, search.masks) = (None, None);
        }
        Ok(search)
    }

    /// Trainings that are done, and all.
    pub fn counts(&self) -> (usize, usize) {
        (self.done, self.trial.trainings())
    }

    /// The round and what is trained next.
    pub fn upcoming(&self) -> Option<(u32, Arm)> {
        self.task(self.done)
    }

    /// The training with the number `i`. Tickets come last in a round, since the masks of the next follow from them.
    fn task(&self, i: usize) -> Option<(u32, Arm)> {
        let controls = self.trial.controls;
        let i = match i.checked_sub(1) {
            None => return Some((0, Arm::Dense)),
            Some(i) => i,
        };
        let (round, place) = (i / (controls.len() + 1), i % (controls.len() + 1));
        let round = u32::try_from(round + 1)
            .ok()
            .filter(|r| *r <= self.trial.rounds)?;
        Some((round, controls.get(place).copied().unwrap_or(Arm::Ticket)))
    }

    /// Does the next training and tells `watch` of its steps; `None` if all are done.
    ///
    /// # Errors
    ///
    /// If examples cannot be read, or training diverges. The same training can be tried again.
    pub fn next(&mut self, watch: &mut dyn FnMut(Event)) -> Result<Option<Done>, TicketError> {
        let Some((round, arm)) = self.upcoming() else {
            return Ok(None);
        };
        let lesson = self.lesson(round, arm)?;
        let learned = lesson.learn(&self.trial, watch)?;
        let target = self.target.unwrap_or(learned.best().accuracy);
        let row = Row {
            arm,
            seed: self.trial.seed,
            round,
            remaining: lesson.masks.remaining(),
            weights: lesson.masks.counts().0,
            target,
            steps_to_target: learned.reaches(target),
            best_step: learned.best().step,
            accuracy: learned.accuracy,
            final_accuracy: learned.final_accuracy,
            seconds: learned.seconds,
            curve: learned.curve.clone(),
        };
        let leads = matches!(arm, Arm::Dense | Arm::Ticket) && round < self.trial.rounds;
        let next = leads.then(|| lesson.masks.next(&learned.trained, self.trial.rate, &self.last));
        let next = next.transpose()?;
        let ticket = (arm == Arm::Ticket)
            .then(|| lesson.masks.applied(&lesson.start))
            .transpose()?;
        self.target = Some(target);
        if arm == Arm::Dense {
            self.start = Some(
                learned
                    .rewound
                    .clone()
                    .unwrap_or_else(|| self.trial.model.clone()),
            );
        }
        self.masks = next.clone().or(self.masks.take());
        self.done += 1;
        Ok(Some(Done {
            row,
            start: self.start.clone().filter(|_| arm == Arm::Dense),
            ticket,
            trained: learned.trained,
            next,
        }))
    }

    /// What a training begins with.
    fn lesson(&self, round: u32, arm: Arm) -> Result<Lesson, TicketError> {
        let masks = self
            .masks
            .as_ref()
            .filter(|_| arm != Arm::Dense)
            .unwrap_or(&self.whole);
        let start = || self.start.clone().unwrap_or_else(|| self.trial.model.clone());
        let mut lesson = Lesson {
            start: start(),
            masks: masks.clone(),
            from: self.trial.rewind,
        };
        match arm {
            Arm::Ticket => {}
            Arm::Dense => (lesson.start, lesson.from) = (self.trial.model.clone(), 0),
            Arm::Reinit => (lesson.start, lesson.from) = (self.drawn()?, 0),
            Arm::RandomMask => {
                let mut random = Random::new(stream(self.trial.seed, 1 + u64::from(round)));
                lesson.masks = masks.shuffled(&mut random);
            }
        }
        Ok(lesson)
    }

    /// The network with other first weights.
    fn drawn(&self) -> Result<Model, TicketError> {
        if let Some(other) = self.trial.other {
            return Ok(other.clone());
        }
        let mut model = self.trial.model.clone();
        let mut random = Random::new(stream(self.trial.seed, 0));
        for layer in &self.whole.0 {
            let mut values = layer.values(&model)?;
            shuffle(&mut values, &mut random);
            set(&mut model, &layer.name, &values);
        }
        Ok(model)
    }
}

/// A seed for one purpose.
fn stream(seed: u64, purpose: u64) -> u64 {
    Random::new(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15)).bits()
}

impl Trial<'_> {
    /// How many trainings it is.
    pub fn trainings(&self) -> usize {
        1 + self.rounds as usize * (self.controls.len() + 1)
    }

    fn check(&self) -> Result<(), TicketError> {
        let share = self.rate.share;
        if !(share > 0.0 && share < 1.0) {
            return Err(TicketError::wrong(format!(
                "the rate is {share}; expected a share between 0 and 1"
            )));
        }
        if self.steps == 0 || self.every == 0 || self.rewind >= self.steps {
            return Err(TicketError::wrong(format!(
                "{} steps, measured after {} each, going back to step {}: expected steps from 1 on, and to go back to one of them",
                self.steps, self.every, self.rewind
            )));
        }
        match self
            .controls
            .iter()
            .all(|c| matches!(c, Arm::Reinit | Arm::RandomMask))
        {
            true => Ok(()),
            false => Err(TicketError::wrong("dense network and tickets are no controls")),
        }
    }
}
