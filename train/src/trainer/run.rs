//! The loop over epochs and steps.

use std::time::Instant;

use secateur_engine::Tensor;
use secateur_engine::run::Outputs;

use super::evaluate::score;
use super::{EpochRow, Event, Trainer};
use crate::TrainError;
use crate::data::{Batch, Position};

/// Told of what happens.
pub(super) type Watch<'w> = &'w mut dyn FnMut(Event);

impl Trainer<'_> {
    /// Trains to the end, from where a checkpoint left off if there was one, and tells `watch`.
    ///
    /// # Errors
    ///
    /// If an example cannot be read, a checkpoint cannot be written, or the loss becomes infinite or no number: see
    /// [`Diverged`](super::Diverged).
    pub fn run(&mut self, watch: Watch) -> Result<(), TrainError> {
        self.advance(u64::MAX, watch)?;
        Ok(())
    }

    /// The same, up to the step with the number `until`, from 1 over all epochs; whether there are more to come. Weights are the same
    /// however training is divided.
    ///
    /// # Errors
    ///
    /// As [`Trainer::run`].
    pub fn advance(&mut self, until: u64, watch: Watch) -> Result<bool, TrainError> {
        let mut written = Instant::now();
        while self.goes_on() && self.now.log.steps < until {
            self.epoch(until, &mut written, watch)?;
        }
        Ok(self.goes_on())
    }

    fn goes_on(&self) -> bool {
        self.now.log.position.epoch < self.course.epochs && !self.now.log.stopped
    }

    /// The rest of an epoch, or of it what comes up to the step `until`.
    fn epoch(&mut self, until: u64, written: &mut Instant, watch: Watch) -> Result<(), TrainError> {
        let anchor = self.now.clone();
        let Position { epoch, batch } = self.now.log.position;
        let mut begun = Instant::now();
        for examples in self.train.epoch(epoch, batch) {
            let loss = self.take(&examples?)?;
            if !loss.is_finite() {
                return Err(self.diverged(anchor));
            }
            let log = &mut self.now.log;
            log.seconds += begun.elapsed().as_secs_f64();
            begun = Instant::now();
            watch(Event::Step {
                done: log.steps,
                of: self.course.epochs * self.train.batches() as u64,
                epoch: epoch + 1,
                loss,
                rate: log.rate,
            });
            if self.course.checkpoint.is_some() && written.elapsed() >= self.course.keep {
                if !self.is_sound() {
                    return Err(self.diverged(anchor));
                }
                self.keep()?;
                *written = Instant::now();
            }
            if self.now.log.steps >= until {
                break;
            }
        }
        // The last step may have made what no loss has shown yet.
        if !self.is_sound() {
            return Err(self.diverged(anchor));
        }
        if self.now.log.position.batch < self.train.batches() {
            return Ok(());
        }
        self.end(begun)?;
        self.keep()?;
        *written = Instant::now();
        self.now
            .log
            .rows
            .last()
            .into_iter()
            .for_each(|row| watch(Event::Epoch(row)));
        Ok(())
    }

    /// Takes a step; the loss before it.
    pub(super) fn take(&mut self, batch: &Batch) -> Result<f64, TrainError> {
        let begun = Instant::now();
        let log = &self.now.log;
        let time = log.position.epoch as f64 + log.position.batch as f64 / self.train.batches() as f64;
        let rate = log.schedule.rate(self.course.rate, time);
        let outputs = self.step(batch, rate)?;
        let graph = &self.graph;
        let log = &mut self.now.log;
        let loss = log.sums.add(batch.len(), &outputs, (&graph.loss, &graph.terms));
        log.rate = rate;
        log.steps += 1;
        log.position.batch += 1;
        log.took.push(begun.elapsed().as_secs_f64() * 1e3);
        Ok(loss)
    }

    /// Runs a step on the state, which is then that after it.
    pub(super) fn step(&mut self, batch: &Batch, rate: f64) -> Result<Outputs, TrainError> {
        let (graph, labels) = (&self.graph, self.teachers.labels(&self.graph.labels, batch)?);
        let kind = graph.state.first().map(|s| s.start.dtype());
        let rate = kind.and_then(|d| Tensor::rounded(d, &[], &[rate]));
        let rate = rate.ok_or_else(|| TrainError::wrong("the model has nothing to train"))?;
        let state = std::mem::take(&mut self.now.state);
        let state = graph.state.iter().map(|s| s.input.as_str()).zip(state);
        let inputs = batch.inputs.iter().map(|(name, x)| (name.as_str(), x.clone()));
        let inputs = inputs.chain(labels).chain([(graph.rate.as_str(), rate)]);
        let mut outputs = self.session.run(state.chain(inputs))?;
        let made = graph.state.iter().filter_map(|s| outputs.take(&s.output));
        self.now.state = made.collect();
        Ok(outputs)
    }

    /// Measures what an epoch has made, and goes on to the next.
    fn end(&mut self, begun: Instant) -> Result<(), TrainError> {
        let validation = match &self.validation {
            Some(examples) => {
                let model = self.with(&self.now.state)?;
                Some(score(&model, &self.course, &self.teachers, examples)?)
            }
            None => None,
        };
        let log = &mut self.now.log;
        let loss = validation.as_ref().map_or(log.sums.means().loss, |s| s.loss);
        log.schedule.observe(loss);
        if let (Some(patience), true) = (self.course.patience, validation.is_some()) {
            if log.patience.observe(loss) {
                self.now.best = Some(self.now.state.clone());
            }
            log.stopped = log.patience.waited >= patience;
        }
        let mut took = std::mem::take(&mut log.took);
        took.sort_by(f64::total_cmp);
        log.rows.push(EpochRow {
            epoch: log.position.epoch + 1,
            rate: log.rate,
            train: std::mem::take(&mut log.sums).means(),
            validation,
            seconds: std::mem::take(&mut log.seconds) + begun.elapsed().as_secs_f64(),
            step_ms: took.get(took.len() / 2).copied().unwrap_or(0.0),
        });
        log.position = Position {
            epoch: log.position.epoch + 1,
            batch: 0,
        };
        Ok(())
    }

    fn keep(&self) -> Result<(), TrainError> {
        let path = self.course.checkpoint;
        path.map_or(Ok(()), |path| self.write(path))
    }
}
