//! Batches, one epoch after the other.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

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
        let wrong = |what: String| Err(DataError::choice(what).of(data.source()));
        let (n, batch) = (data.len(), options.batch);
        if batch == 0 || n == 0 || (options.drop_last && batch > n) {
            return wrong(format!("expected batches of 1 to {n} examples, found {batch}"));
        }
        let column = &data.store.columns[0];
        if !options.augment.is_none() && column.image().is_none() {
            return wrong(format!("augmentation {}: expected images", options.augment));
        }
        if options.augment.color > 0.0 && !column.is_pixels() {
            return wrong("augmentation color: expected images of bytes".into());
        }
        if let Some(normalize) = &options.normalize {
            normalize.check(column).map_err(|e| e.of(data.source()))?;
        }
        Ok(Loader(Arc::new(Recipe { data, options })))
    }

    /// Where the examples come from.
    pub fn data(&self) -> &Arc<Data> {
        &self.0.data
    }

    /// How batches are made.
    pub fn options(&self) -> &LoaderOptions {
        &self.0.options
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

    /// The batches of epoch `epoch`, from the one with the number `from` on. They are made from now on, whether they are
    /// asked for or not, a few in advance.
    pub fn epoch(&self, epoch: u64, from: usize) -> Epoch {
        let work = Work {
            recipe: self.0.clone(),
            order: self.0.order(epoch).into(),
            epoch,
            end: self.batches(),
        };
        let threads = self.0.options.threads.min(work.end.saturating_sub(from));
        let made = (0..threads)
            .map(|i| work.clone().start(from + i, threads))
            .collect::<Option<Vec<_>>>();
        Epoch {
            next: from,
            workers: made.unwrap_or_default(),
            work,
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
        let order = permutation(rows.len(), &mut random);
        order.iter().map(|&i| rows[i as usize]).collect()
    }
}

/// The batches of one epoch, as they can be made anywhere.
#[derive(Clone)]
struct Work {
    recipe: Arc<Recipe>,
    order: Arc<[u32]>,
    epoch: u64,
    end: usize,
}

/// Batches that a thread holds ready.
const AHEAD: usize = 2;

impl Work {
    fn batch(&self, number: usize) -> Result<Batch, DataError> {
        let Recipe { data, options } = &*self.recipe;
        let first = number * options.batch;
        let rows = &self.order[first..self.order.len().min(first + options.batch)];
        let augment = Some((&options.augment, options.seed, self.epoch));
        let dress = Dress {
            normalize: options.normalize.as_ref(),
            augment: augment.filter(|_| !options.augment.is_none()),
        };
        gather(data, rows, first, dress)
    }

    /// A thread that makes every `step`th batch from the one with the number `from` on; `None` where there can be none.
    fn start(self, from: usize, step: usize) -> Option<Worker> {
        let (send, ready) = sync_channel(AHEAD);
        let run = move || {
            for number in (from..self.end).step_by(step) {
                if send.send(self.batch(number)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("secateur-data".into())
            .spawn(run)
            .ok()?;
        Some(Worker { ready, thread })
    }
}

struct Worker {
    ready: Receiver<Result<Batch, DataError>>,
    thread: JoinHandle<()>,
}

/// The batches of an epoch. Threads that make them end when this goes.
pub struct Epoch {
    work: Work,
    next: usize,
    /// In turns; without any, batches are made as they are asked for.
    workers: Vec<Worker>,
}

impl Iterator for Epoch {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.work.end {
            return None;
        }
        let batch = match self.workers.is_empty() {
            true => self.work.batch(self.next),
            false => {
                let ended = || DataError::missing("a thread that makes batches ended");
                self.workers[0].ready.recv().unwrap_or_else(|_| Err(ended()))
            }
        };
        self.next += 1;
        if !self.workers.is_empty() {
            self.workers.rotate_left(1);
        }
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.work.end.saturating_sub(self.next);
        (left, Some(left))
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        let all = std::mem::take(&mut self.workers);
        let running: Vec<JoinHandle<()>> = all.into_iter().map(|w| w.thread).collect();
        for thread in running {
            // What a thread has to say is of no use any more.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use secateur_engine::Tensor;

    use super::*;
    use crate::data::{Options, Part, open};

    fn digits() -> Arc<Data> {
        let options = Options {
            validation: Part::Count(1437 - 50),
            ..Options::default()
        };
        open("digits", &options).unwrap().train
    }

    fn loader(options: LoaderOptions) -> Loader {
        Loader::new(digits(), options).unwrap()
    }

    fn all(loader: &Loader, epoch: u64, from: usize) -> Vec<Batch> {
        loader.epoch(epoch, from).collect::<Result<_, _>>().unwrap()
    }

    fn busy(threads: usize) -> LoaderOptions {
        LoaderOptions {
            batch: 8,
            seed: 5,
            augment: "flip,crop:1,rotate:20,color:0.2".parse().unwrap(),
            normalize: Some(Normalize::of(&digits()).unwrap()),
            threads,
            ..LoaderOptions::default()
        }
    }

    #[test]
    fn batches_are_the_same_however_they_are_made() {
        let plain = loader(busy(0));
        assert_eq!((plain.batches(), all(&plain, 2, 0)[6].len()), (7, 2));
        for threads in [1, 2, 3, 20] {
            assert_eq!(all(&loader(busy(threads)), 2, 0), all(&plain, 2, 0));
        }
        let again = all(&plain, 2, 0);
        assert_eq!(all(&loader(busy(2)), 2, 4), again[4..]);
        assert_ne!(all(&plain, 3, 0), again);
        let other = LoaderOptions { seed: 6, ..busy(0) };
        assert_ne!(all(&loader(other), 2, 0), again);
    }

    #[test]
    fn an_epoch_has_every_example_once() {
        let data = digits();
        let inks = |images: &[Tensor]| {
            let rows = images.iter().flat_map(|t| {
                t.floats()
                    .unwrap()
                    .chunks(64)
                    .map(<[f64]>::to_vec)
                    .collect::<Vec<_>>()
            });
            let mut rows: Vec<Vec<f64>> = rows.collect();
            rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
            rows
        };
        let options = LoaderOptions {
            batch: 8,
            ..LoaderOptions::default()
        };
        let shuffled = all(&loader(options.clone()), 0, 0);
        let images: Vec<Tensor> = shuffled.iter().map(|b| b.inputs[0].1.clone()).collect();
        let whole = data
            .batch(&(0..50).collect::<Vec<_>>())
            .unwrap()
            .inputs
            .remove(0)
            .1;
        assert_eq!(inks(&images), inks(std::slice::from_ref(&whole)));
        assert_eq!(
            shuffled.iter().map(|b| b.first).collect::<Vec<_>>(),
            [0, 8, 16, 24, 32, 40, 48]
        );
        let straight = LoaderOptions {
            batch: 50,
            shuffle: false,
            ..LoaderOptions::default()
        };
        assert_eq!(all(&loader(straight), 1, 0)[0].inputs[0].1, whole);
        let dropped = loader(LoaderOptions {
            drop_last: true,
            ..options
        });
        assert_eq!((dropped.batches(), all(&dropped, 0, 0).len()), (6, 6));
    }

    #[test]
    fn positions_are_read_as_they_were_written() {
        let at = Position { epoch: 1, batch: 6 };
        let text = serde_json::to_string(&at).unwrap();
        assert_eq!(serde_json::from_str::<Position>(&text).unwrap(), at);
    }

    #[test]
    fn a_loader_may_go_before_its_batches() {
        let mut some = loader(busy(2)).epoch(0, 0);
        assert!(some.next().unwrap().is_ok());
        drop(some);
        assert_eq!(loader(busy(2)).epoch(0, 99).count(), 0);
    }

    #[test]
    fn options_must_fit() {
        let wrong = |options| Loader::new(digits(), options).unwrap_err().to_string();
        let none = LoaderOptions {
            batch: 0,
            ..LoaderOptions::default()
        };
        assert_eq!(
            wrong(none),
            "digits: expected batches of 1 to 50 examples, found 0"
        );
        let large = LoaderOptions {
            batch: 51,
            drop_last: true,
            ..LoaderOptions::default()
        };
        assert!(wrong(large).contains("found 51"));
        let normalize = Some(Normalize {
            mean: vec![0.0; 3],
            std: vec![1.0; 3],
        });
        let three = LoaderOptions {
            normalize,
            ..LoaderOptions::default()
        };
        assert!(wrong(three).contains("expected 1 or 1 of both"));
    }
}
