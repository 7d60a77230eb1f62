//! What a model makes of examples again and again, while its weights change.

use secateur_engine::{Session, Tensor};

use super::evaluate::Sums;
use super::{Scores, Trainer};
use crate::TrainError;
use crate::data::Loader;
use crate::step::freed;
use crate::terms::measure;

/// A session of the model for inference whose weights are inputs, so that it is made once.
pub(super) struct Probe {
    session: Session,
    labels: Vec<String>,
    loss: String,
    terms: Vec<String>,
    /// Inputs that are weights, each with its place in the state.
    weights: Vec<(String, usize)>,
}

impl Probe {
    fn new(trainer: &Trainer) -> Result<Probe, TrainError> {
        let course = &trainer.course;
        let measured = measure(trainer.model, course.spec.terms)?;
        let mut model = measured.model;
        let mut weights = vec![];
        for (i, s) in trainer.graph.state.iter().enumerate() {
            let Some(v) = s.weight else { continue };
            let name = trainer.model.graph[v].name.to_string();
            // What inference does not read is not there any more.
            if let Some(v) = model
                .graph
                .find(&name)
                .filter(|&v| model.graph.konst(v).is_some())
            {
                freed(&mut model, v)?;
                weights.push((name, i));
            }
        }
        let builder = Session::builder(&model).threads(course.threads);
        Ok(Probe {
            session: builder.rates(course.rates.clone()).build()?,
            labels: measured.labels,
            loss: measured.loss,
            terms: measured.terms,
            weights,
        })
    }
}

impl Trainer<'_> {
    /// What the model makes of `examples` with the weights of `state`, one of this trainer's; see [`Trainer::state`]. Made for being
    /// asked often: a session is only made the first time.
    ///
    /// # Errors
    ///
    /// If it cannot run on them.
    pub fn score_state(&mut self, state: &[Tensor], examples: &Loader) -> Result<Scores, TrainError> {
        let probe = match self.probe.take() {
            Some(probe) => probe,
            None => Probe::new(self)?,
        };
        let scores = self.probed(&probe, state, examples);
        self.probe = Some(probe);
        scores
    }

    fn probed(&self, probe: &Probe, state: &[Tensor], examples: &Loader) -> Result<Scores, TrainError> {
        if state.len() != self.graph.state.len() {
            let (found, expected) = (state.len(), self.graph.state.len());
            return Err(TrainError::wrong(format!(
                "{found} tensors are no state of this training; expected {expected}"
            )));
        }
        let mut sums = Sums::default();
        for batch in examples.epoch(0, 0) {
            let batch = batch?;
            let labels = self.teachers.labels(&probe.labels, &batch)?;
            let weights = probe.weights.iter().map(|(name, i)| (name.as_str(), &state[*i]));
            let inputs = batch.inputs.iter().map(|(name, x)| (name.as_str(), x));
            let inputs = inputs.chain(labels.iter().map(|(name, x)| (*name, x)));
            let outputs = probe.session.run(inputs.chain(weights))?;
            sums.add(batch.len(), &outputs, (&probe.loss, &probe.terms));
        }
        Ok(sums.means())
    }
}
