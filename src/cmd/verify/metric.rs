//! What two models are worth on a data set.

use std::fmt;

use anyhow::{Context, Result, bail};
use secateur::Tensor;
use secateur::engine::ir::{Model, Type};
use secateur::engine::run::nearest;
use serde_json::{Value, json};

use crate::cmd::compare::argmax;
use crate::cmd::digits::Digits;
use crate::cmd::shapes::wanted;
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

/// Runs both on the test images of `data`.
///
/// # Errors
///
/// If there is no such data set, or the models take something else.
pub(super) fn measure(data: &str, model: &Model, a: &mut dyn Loaded, b: &mut dyn Loaded) -> Result<Metric> {
    let known = ["digits".to_owned()];
    if data != "digits" {
        bail!(
            "no data set {data:?}{}; the data sets are {known:?}",
            nearest(data, &known)
        );
    }
    let digits = Digits::test()?;
    let inputs = wanted(model);
    let [input] = &inputs[..] else {
        bail!("a model with {} inputs cannot take images", inputs.len());
    };
    let (images, batch) = shaped(&digits.images, &input.ty)?;
    let batches = batches(&images, batch);
    let (x, y) = (
        answers(a, &input.name, &batches)?,
        answers(b, &input.name, &batches)?,
    );
    let n = digits.labels.len();
    let share = |equal: usize| equal as f64 / n as f64;
    let right = |said: &[usize]| share(said.iter().zip(&digits.labels).filter(|(s, l)| s == l).count());
    if x.len() != n || y.len() != n {
        bail!("the first output does not have one row for each of {n} images");
    }
    Ok(Metric {
        images: n,
        a: right(&x),
        b: right(&y),
        agreement: share(x.iter().zip(&y).filter(|(p, q)| p == q).count()),
    })
}

/// The class that the first output names for each image.
fn answers(engine: &mut dyn Loaded, input: &str, batches: &[Tensor]) -> Result<Vec<usize>> {
    let mut all = vec![];
    for images in batches {
        let outputs = engine.run(&[(input.to_owned(), images.clone())])?.outputs;
        all.extend(argmax(
            &outputs
                .into_first()
                .context("the model has no tensor as its first output")?,
        ));
    }
    Ok(all)
}

/// The images in the form that an input of type `ty` takes, and how many at a time.
fn shaped(images: &Tensor, ty: &Type) -> Result<(Tensor, usize)> {
    let n = images.dims()[0];
    let shape = ty
        .shape()
        .with_context(|| format!("the input is {ty}, of no known shape"))?;
    let batch = shape.first().and_then(|d| d.size()).unwrap_or(n);
    let mut dims: Vec<usize> = shape.iter().map(|d| d.size().unwrap_or(1)).collect();
    if let Some(first) = dims.first_mut() {
        *first = n;
    }
    let fits = batch > 0 && n.is_multiple_of(batch) && ty.dtype().is_none_or(|d| d == images.dtype());
    let images = images.reshaped(&dims).filter(|_| fits);
    let images =
        images.with_context(|| format!("the input is {ty}, which does not take images of 1×8×8 floats"))?;
    Ok((images, batch))
}

fn batches(images: &Tensor, batch: usize) -> Vec<Tensor> {
    let mut dims = images.dims().to_vec();
    dims[0] = batch;
    let width = dims.iter().product::<usize>();
    let all = images.elements::<f32>().unwrap_or_default();
    all.chunks_exact(width.max(1))
        .map(|c| Tensor::of(&dims, c.to_vec()))
        .collect()
}
