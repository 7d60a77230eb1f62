//! Fine-tuning in rounds: what is zero stays zero.

use secateur_engine::{Model, Tensor};
use secateur_train::data::{Augment, Loader, LoaderOptions};
use secateur_train::{Course, Spec, Trainer};

use super::hints::learnable;
use super::{RecoverError, Recovery};
use crate::Weight;
use crate::rounds::{Event, Told, Turn};

/// Examples that repairs look at in one run, of models that take any number.
const BATCH: usize = 8;

impl Recovery<'_> {
    /// Examples as they are, in an order that the seed decides.
    pub(super) fn calibration(&self) -> Result<Loader, RecoverError> {
        let own = self.examples.options();
        let options = LoaderOptions {
            // A batch that must be whole is one that the model wants so.
            batch: if own.drop_last {
                own.batch
            } else {
                own.batch.min(BATCH)
            },
            augment: Augment::default(),
            ..own.clone()
        };
        Ok(Loader::new(self.examples.data().clone(), options)?)
    }

    /// Examples in the order of this round.
    fn examples(&self, turn: Turn) -> Result<Loader, RecoverError> {
        let own = self.examples.options();
        let options = LoaderOptions {
            seed: own.seed ^ (u64::from(turn.round - 1) << 32),
            ..own.clone()
        };
        Ok(Loader::new(self.examples.data().clone(), options)?)
    }

    /// `model`, trained for the epochs of this round.
    pub(super) fn tune(
        &self,
        turn: Turn,
        model: Model,
        pruned: &[Weight],
        told: Told,
    ) -> Result<Model, RecoverError> {
        let epochs = share(self.course.epochs, turn);
        if epochs == 0 {
            return Ok(model);
        }
        let held = held(&model, pruned);
        let masks: Vec<_> = held.iter().map(|(name, mask)| (&**name, mask.clone())).collect();
        let path = self.checkpoint(turn);
        let terms = learnable(&model, &self.course);
        let course = Course {
            spec: Spec {
                terms: &terms,
                hold_zeros: true,
                masks: &masks,
                ..self.course.spec
            },
            epochs,
            checkpoint: path.as_deref(),
            ..self.course
        };
        let measured = self.measured.clone().filter(|_| course.patience.is_some());
        let mut trainer = Trainer::new(&model, course, (self.examples(turn)?, measured))?;
        if self.resume {
            trainer.resume()?;
        }
        trainer.run(&mut |event| told(Event::Train(event)))?;
        Ok(trainer.model()?)
    }
}

/// The epochs of a round, of `all`.
fn share(all: u64, Turn { round, of }: Turn) -> u64 {
    let until = |round: u32| all * u64::from(round) / u64::from(of);
    until(round) - until(round - 1)
}

/// Masks for the zeros of `pruned`: also where nothing is left, which could as well be a weight that is to be trained, and of vectors.
fn held(model: &Model, pruned: &[Weight]) -> Vec<(String, Tensor)> {
    let cut = pruned.iter().filter(|w| w.exempt.is_none());
    let trained = cut.filter(|w| {
        let v = model.graph.find(&w.value);
        w.name == *w.value && v.is_some_and(|v| model.graph.konst(v).is_some())
    });
    let mask = |w: &Weight| {
        // What has been trained meanwhile has zeros of its own.
        let now = model.graph.find(&w.value).and_then(|v| model.graph.konst(v))?;
        let live = now.floats()?.into_iter().map(|x| x != 0.0);
        Some((w.name.clone(), Tensor::bools(now.dims(), live)))
    };
    trained
        .filter(|w| w.tensor.zeros_count() > 0)
        .filter_map(mask)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_shared_and_none_is_lost() {
        let shares = |all, of| {
            (1..=of)
                .map(|round| share(all, Turn { round, of }))
                .collect::<Vec<_>>()
        };
        assert_eq!(shares(10, 5), [2, 2, 2, 2, 2]);
        assert_eq!(shares(10, 3), [3, 3, 4]);
        assert_eq!(shares(1, 4), [0, 0, 0, 1]);
        assert_eq!(shares(0, 2), [0, 0]);
    }
}
