//! What two models are worth on a data set.

use std::fmt;

use anyhow::{Context, Result, ensure};
use secateur::engine::ir::Model;
use secateur::train::data::{self, Batch, Data, Options};
use serde_json::{Value, json};

use crate::cmd::compare::argmax;
use crate::cmd::shapes::{Wanted, wanted};
use crate::cmd::source::photo::PhotoFlags;
use crate::engines::Loaded;

/// The share of images that each model names right.
pub(super) struct Metric {
    images: usize,
    a: f64,
    b: f64,
    /// The share on which they say the same.
    pub(super) agreement: f64,
}

impl Metric {
    /// By how many percentage points the second is worse than the first.
    pub(super) fn drop_points(&self) -> f64 {
        100.0 * (self.a - self.b)
    }

    /// As `metric{}` has it.
    pub(super) fn json(&self) -> Value {
        json!({"name": "accuracy", "samples": self.images, "a": self.a, "b": self.b, "drop_points": self.drop_points()})
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (a, b) = (100.0 * self.a, 100.0 * self.b);
        write!(f, "accuracy on {} images: {a:.2} % and {b:.2} %", self.images)
    }
}

/// Examples that are run at a time where the model leaves it open.
const BATCH: usize = 360;

/// Runs both on the test examples of `data`, a source with how it is split, and what its pixels become.
///
/// # Errors
///
/// If there is no such data set, or the models take something else.
pub(super) fn measure(
    data: (&str, &Options, &PhotoFlags),
    model: &Model,
    a: &mut dyn Loaded,
    b: &mut dyn Loaded,
) -> Result<Metric> {
    let wanted = wanted(model);
    let examples = examples((data.0, data.1), &wanted)?;
    let pixels = data.2.normalize(&examples);
    let batch = wanted.first().and_then(Wanted::batch);
    let batch = batch.unwrap_or(BATCH.min(examples.len()));
    let (mut right, mut agreed) = ([0; 2], 0);
    for from in (0..examples.len()).step_by(batch.max(1)) {
        // A model for batches of one size gets the last example again, and what it says of that is left out.
        let which: Vec<usize> = (from..from + batch).map(|i| i.min(examples.len() - 1)).collect();
        let some = examples.normalized(&which, pixels.as_ref())?;
        let n = batch.min(examples.len() - from);
        let labels = some
            .labels
            .ints()
            .context("the labels of the data are no classes")?;
        let (x, y) = (answers(a, &some, batch)?, answers(b, &some, batch)?);
        for ((x, y), label) in x.iter().zip(&y).zip(labels).take(n) {
            let is_right = |said: usize| usize::from(said as i64 == label);
            right = [right[0] + is_right(*x), right[1] + is_right(*y)];
            agreed += usize::from(x == y);
        }
    }
    let share = |count: usize| count as f64 / examples.len() as f64;
    Ok(Metric {
        images: examples.len(),
        a: share(right[0]),
        b: share(right[1]),
        agreement: share(agreed),
    })
}

/// The examples of `data` that nothing was learned from, as `wanted` takes them.
fn examples((data, options): (&str, &Options), wanted: &[Wanted]) -> Result<Data> {
    let each: Vec<_> = wanted.iter().map(Wanted::example).collect();
    let image = wanted.first().and_then(Wanted::image);
    let options = Options {
        image,
        ..options.clone()
    };
    let splits = data::open(data, &options)?;
    let test = splits.test.context("the data has no test examples")?;
    Ok(test.fit(&each, None)?)
}

/// The class that the first output names for each example.
fn answers(engine: &mut dyn Loaded, batch: &Batch, n: usize) -> Result<Vec<usize>> {
    let outputs = engine.run(&batch.inputs)?.outputs;
    let first = outputs
        .into_first()
        .context("the model has no tensor as its first output")?;
    let said = argmax(&first);
    ensure!(
        said.len() == n,
        "the first output, of shape {:?}, does not have one row for each of {n} examples",
        first.dims()
    );
    Ok(said)
}
