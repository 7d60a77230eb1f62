//! Batches, one epoch after the other.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::DataError;
use super::augment::Augment;
use super::batch::{Batch, Dress, gather};
use super::normalize::Normalize;
use super::store::Data;
use super::stream::{Purpose, permutation, stream};

/// How batches are made.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Examples of a batch, at least 1.
    pub batch: usize,
    /// Decides the order and what is random in augmentation.
    pub seed: u64,
    /// Whether each epoch has an order of its own.
    pub shuffle: bool,
    /// Whether to leave out a last batch that is smaller than the others.
    pub drop_last: bool,
    /// Random changes of images.
    pub augment: Augment,
    /// Standardisation.
    pub normalize: Option<Normalize>,
    /// Threads that make batches before they are asked for; at 0 they are made when they are. Batches are the same.
    pub threads: usize,
}

impl Default for LoaderOptions {
    fn default() -> LoaderOptions {
        LoaderOptions {
            batch: 64,
            seed: 0,
            shuffle: true,
            drop_last: false,
            augment: Augment::default(),
            normalize: None,
            threads: 1,
        }
    }
}

/// Which batch comes next. What it holds follows from this, the data and the options alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The batch in it, from 0.
    pub batch: usize,
}

/// Makes batches of examples.
#[derive(Clone, Debug)]
pub struct Loader(Arc<Recipe>);

#[derive(Debug)]
struct Recipe {
    data: Arc<Data>,
    options: LoaderOptions,
}

impl Loader {
    /// Batches of `data`.
    ///
    /// # Errors
    ///
    /// If the options do not fit the data.
    pub fn new(data: Arc<Data>, options: LoaderOptions) -> Result<Loader, DataError> {
        Ok(Loader(Arc::new(Recipe { data, options })))
    }

    /// Where the examples come from.
    pub fn data(&self) -> &Arc<Data> {
        &self.0.data
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> usize {
        let (n, batch) = (self.0.data.len(), self.0.options.batch);
        if self.0.options.drop_last {
            n / batch
        } else {
            n.div_ceil(batch)
        }
    }

    /// What comes after the batch at `position`.
    pub fn after(&self, position: Position) -> Position {
        match position.batch + 1 < self.batches() {
            true => Position {
                batch: position.batch + 1,
                ..position
            },
            false => Position {
                epoch: position.epoch + 1,
                batch: 0,
            },
        }
    }

    /// The batches of epoch `epoch`, from the one with the number `from` on.
    pub fn epoch(&self, epoch: u64, from: usize) -> Epoch {
        let order = self.0.order(epoch);
        Epoch {
            recipe: self.0.clone(),
            order: order.into(),
            epoch,
            next: from,
            end: self.batches(),
        }
    }
}

impl Recipe {
    /// The rows of the store in the order of an epoch.
    fn order(&self, epoch: u64) -> Vec<u32> {
        let rows = &self.data.rows;
        if !self.options.shuffle {
            return rows.to_vec();
        }
        let mut random = stream(self.options.seed, Purpose::Order, epoch, 0);
        permutation(rows.len(), &mut random)
            .iter()
            .map(|&i| rows[i as usize])
            .collect()
    }

    fn batch(&self, order: &[u32], epoch: u64, number: usize) -> Result<Batch, DataError> {
        let first = number * self.options.batch;
        let rows = &order[first..order.len().min(first + self.options.batch)];
        let dress = Dress {
            normalize: self.options.normalize.as_ref(),
            augment: Some((&self.options.augment, self.options.seed, epoch)),
        };
        gather(&self.data, rows, first, dress)
    }
}

/// The batches of an epoch.
pub struct Epoch {
    recipe: Arc<Recipe>,
    order: Arc<[u32]>,
    epoch: u64,
    next: usize,
    end: usize,
}

impl Iterator for Epoch {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.next < self.end).then(|| {
            self.next += 1;
            self.recipe.batch(&self.order, self.epoch, self.next - 1)
        })
    }
}
