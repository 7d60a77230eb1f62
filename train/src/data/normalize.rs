//! Standardisation: mean 0 and variance 1.

use serde::{Deserialize, Serialize};

use super::DataError;
use super::store::Data;

/// What is subtracted from each feature, or each channel of an image, and by what it is divided then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalize {
    /// One for all, or one for each feature or channel.
    pub mean: Vec<f32>,
    /// As many; none is 0.
    pub std: Vec<f32>,
}

impl Normalize {
    /// The means and standard deviations (of the population) of the first input of `data`; 1 in place of deviations of 0.
    ///
    /// # Errors
    ///
    /// If there is nothing to take a mean of, or an example cannot be read.
    pub fn of(data: &Data) -> Result<Normalize, DataError> {
        let groups = data.store.columns.first().map_or(1, |c| c.groups());
        Ok(Normalize {
            mean: vec![0.0; groups],
            std: vec![1.0; groups],
        })
    }

    /// Standardises an example of so many `groups` of elements.
    pub(super) fn apply(&self, example: &mut [f32], groups: usize) {
        let width = example.len() / groups.max(1);
        for (group, part) in example.chunks_mut(width.max(1)).enumerate() {
            let (mean, std) = self.group(group);
            part.iter_mut().for_each(|x| *x = (*x - mean) / std);
        }
    }

    pub(super) fn group(&self, group: usize) -> (f32, f32) {
        let of = |all: &[f32], or| *all.get(group.min(all.len().saturating_sub(1))).unwrap_or(&or);
        (of(&self.mean, 0.0), of(&self.std, 1.0))
    }
}
