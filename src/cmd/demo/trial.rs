//! What a pruned model is worth.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use secateur::compress::{Amount, Choice, Effort, Goal, Pattern, Scope};
use secateur::{Model, Session, Tensor};

use crate::cmd::compare::argmax;
use crate::cmd::digits::Digits;
use crate::cmd::pruning::{self, Zeros};
use crate::cmd::timing::median;
use crate::rates;

/// `dense` with the smallest `share` percent of all weights together set to zero.
///
/// # Errors
///
/// If the model has no weights.
pub(super) fn pruned(dense: &Model, share: u32) -> Result<Model> {
    let goal = Goal {
        amount: Amount::Sparsity(f64::from(share) / 100.0),
        scope: Scope::Global,
        pattern: Pattern::Unstructured,
    };
    pruning::pruned(dense, &Choice::default(), goal, &Effort::default())
}

/// A model that has named the digits on all test images.
pub(super) struct Trial {
    pub(super) session: Session,
    pub(super) outputs: Tensor,
    pub(super) zeros: Zeros,
    pub(super) images: usize,
    /// Images named right.
    pub(super) right: usize,
}

impl Trial {
    /// Runs `model` on the images.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub(super) fn new(model: &Model, digits: &Digits, threads: usize) -> Result<Trial> {
        let session = Session::builder(model)
            .threads(threads)
            .rates(rates::cached())
            .build()?;
        let outputs = session
            .run([("image", &digits.images)])?
            .into_first()
            .context("no output")?;
        let said = argmax(&outputs);
        Ok(Trial {
            right: said.iter().zip(&digits.labels).filter(|(s, l)| s == l).count(),
            images: digits.labels.len(),
            session,
            outputs,
            zeros: Zeros::of(model, &Choice::default())?,
        })
    }

    /// The share of images named right.
    pub(super) fn accuracy(&self) -> f64 {
        self.right as f64 / self.images as f64
    }
}

const BUDGET: Duration = Duration::from_secs(2);
const ROUNDS: usize = 1000;

/// Median milliseconds of each on one image, run in turn.
///
/// # Errors
///
/// If one does not run.
pub(super) fn race<'a>(trials: impl IntoIterator<Item = &'a Trial>, digits: &Digits) -> Result<Vec<f64>> {
    let trials: Vec<_> = trials.into_iter().collect();
    let image = digits.first()?;
    let mut times = vec![vec![]; trials.len()];
    let start = Instant::now();
    while times[0].len() < ROUNDS && (times[0].len() < 3 || start.elapsed() < BUDGET) {
        for (trial, times) in trials.iter().zip(&mut times) {
            let start = Instant::now();
            trial.session.run([("image", &image)])?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(times.iter_mut().map(|t| median(t)).collect())
}

/// The bytes that `bytes` take when they are packed as ZIP archives pack them.
///
/// # Errors
///
/// None that is known.
pub(super) fn zipped(bytes: &[u8]) -> Result<usize> {
    let mut packer = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::default());
    packer.write_all(bytes)?;
    Ok(packer.finish()?.len())
}
