//! What a model makes of examples.

use secateur_engine::run::Outputs;
use secateur_engine::{Model, Session, Tensor};
use serde::{Deserialize, Serialize};

use super::{Course, Teachers};
use crate::TrainError;
use crate::data::Loader;
use crate::terms::measure;

/// Means over examples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// What training makes small.
    pub loss: f64,
    /// The terms, as [`Spec::terms`](crate::Spec::terms) has them.
    pub terms: Vec<f64>,
}

/// Sums over examples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sums {
    examples: f64,
    loss: f64,
    terms: Vec<f64>,
}

impl Sums {
    /// Adds the means over a batch of so many examples, by the names of the outputs that they are; the loss.
    pub(super) fn add(
        &mut self,
        examples: usize,
        outputs: &Outputs,
        (loss, terms): (&str, &[String]),
    ) -> f64 {
        let item = |name: &str| outputs.get(name).and_then(Tensor::item).unwrap_or(f64::NAN);
        let (n, loss) = (examples as f64, item(loss));
        self.examples += n;
        self.loss += n * loss;
        self.terms.resize(terms.len(), 0.0);
        let each = self.terms.iter_mut().zip(terms);
        each.for_each(|(sum, name)| *sum += n * item(name));
        loss
    }

    pub(super) fn means(&self) -> Scores {
        Scores {
            loss: self.loss / self.examples,
            terms: self.terms.iter().map(|x| x / self.examples).collect(),
        }
    }
}

/// What `model`, as for inference, makes of `examples`.
pub(super) fn score(
    model: &Model,
    course: &Course,
    teachers: &Teachers,
    examples: &Loader,
) -> Result<Scores, TrainError> {
    let measured = measure(model, course.spec.terms)?;
    let builder = Session::builder(&measured.model).threads(course.threads);
    let session = builder.rates(course.rates.clone()).build()?;
    let mut sums = Sums::default();
    for batch in examples.epoch(0, 0) {
        let batch = batch?;
        let labels = teachers.labels(&measured.labels, &batch)?;
        let inputs = batch.inputs.iter().map(|(name, x)| (name.as_str(), x));
        let inputs = inputs.chain(labels.iter().map(|(name, x)| (*name, x)));
        let outputs = session.run(inputs)?;
        sums.add(batch.len(), &outputs, (&measured.loss, &measured.terms));
    }
    Ok(sums.means())
}

/// What `model`, which need not be the one that a [`Trainer`](super::Trainer) was made of, makes of `examples` by the terms of `course`.
///
/// # Errors
///
/// If it cannot run on them, or does not have what the terms compare.
pub fn evaluate(model: &Model, course: &Course, examples: &Loader) -> Result<Scores, TrainError> {
    score(model, course, &Teachers::new(course)?, examples)
}
