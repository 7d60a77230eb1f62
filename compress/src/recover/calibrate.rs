//! Runs over calibration examples, and what comes out at a place of a model.

use std::sync::Arc;

use secateur_engine::plan::Rates;
use secateur_engine::{Model, Session, Tensor};
use secateur_train::data::Loader;

use super::RecoverError;
use super::moments::Moments;

/// Examples by which statistics are taken, and how they are run.
#[derive(Clone, Debug)]
pub struct Calibration<'a> {
    /// What makes batches of the examples; the first epoch is taken.
    pub examples: Loader,
    /// The number of examples, up to whole batches.
    pub samples: usize,
    /// Threads to run on.
    pub threads: usize,
    /// What kernels take.
    pub rates: &'a Arc<Rates>,
}

impl Calibration<'_> {
    /// What goes into the model, by name, batch by batch.
    pub(super) fn batches(&self) -> Result<Vec<Vec<(String, Tensor)>>, RecoverError> {
        let (mut found, mut seen) = (vec![], 0);
        for batch in self.examples.epoch(0, 0) {
            let batch = batch?;
            seen += batch.len();
            found.push(batch.inputs);
            if seen >= self.samples {
                break;
            }
        }
        Ok(found)
    }

    /// The moments of the values of `model` with these names and channel axes. Where one is not what its axis says, there is none.
    pub(super) fn moments(
        &self,
        model: &Model,
        places: &[(&str, isize)],
    ) -> Result<Vec<Option<Moments>>, RecoverError> {
        let mut model = model.clone();
        // What comes behind is not computed.
        model.graph.outputs.clear();
        let builder = Session::builder(&model)
            .threads(self.threads)
            .rates(self.rates.clone());
        let tapped = places.iter().fold(builder, |b, (name, _)| b.tap(*name));
        let session = tapped.build()?;
        let mut found: Vec<Option<Moments>> = places.iter().map(|_| Some(Moments::default())).collect();
        let mut seen = 0;
        for batch in self.examples.epoch(0, 0) {
            let batch = batch?;
            let known = |name: &str| session.inputs().any(|(n, _)| n == name);
            let fed = batch.inputs.iter().filter(|(name, _)| known(name));
            let outputs = session.run(fed.map(|(name, x)| (name.as_str(), x)))?;
            for ((name, axis), sums) in places.iter().zip(&mut found) {
                let added = |m: &mut Moments| outputs.get(name).is_some_and(|x| m.add(x, *axis));
                *sums = sums.take().and_then(|mut m| added(&mut m).then_some(m));
            }
            seen += batch.len();
            if seen >= self.samples {
                break;
            }
        }
        Ok(found)
    }
}
