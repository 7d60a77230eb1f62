//! Training, as the demo needs it.

use std::time::Duration;

use anyhow::{Context, Result};
use secateur::Model;
use secateur::models::arch;
use secateur::train::data::{self, Loader, LoaderOptions, Options};
use secateur::train::loss::{Accuracy, loss};
use secateur::train::optim::Adam;
use secateur::train::{Course, Event, Spec, Term, Trainer};

use crate::cmd::ui::Ui;
use crate::rates;

/// Epochs in which the model learns.
pub(super) const EPOCHS: u64 = 40;

/// How images are changed at random before the model sees them.
pub(super) const AUGMENT: &str = "crop:1,rotate:15";

/// Images by which the steps of compression are judged; nothing learns from them.
pub(super) const JUDGES: usize = 240;

/// A convolutional network for 8×8 images, untrained.
///
/// # Errors
///
/// None that is known.
pub(super) fn untrained(seed: u64) -> Result<Model> {
    let set = [
        ("channels", "1"),
        ("height", "8"),
        ("width", "8"),
        ("filters", "48"),
    ];
    let set = set.map(|(k, v)| (k.to_owned(), v.to_owned()));
    Ok(arch("conv4")?.build(&set, seed)?)
}

/// `model` after it has learned from all images but those of the test and those to judge by.
///
/// # Errors
///
/// None that is known.
pub(super) fn trained(model: &Model, ui: &Ui) -> Result<Model> {
    let part = Options {
        validation: data::Part::Count(JUDGES),
        seed: ui.common.seed,
        ..Options::default()
    };
    let options = LoaderOptions {
        batch: 32,
        seed: ui.common.seed,
        augment: AUGMENT.parse()?,
        ..LoaderOptions::default()
    };
    let loader = Loader::new(data::open("digits", &part)?.train, options)?;
    let output = model.graph.outputs.first().context("the model has no output")?;
    let output = model.graph[output.value].name.to_string();
    let of = [output.as_str(), "label"];
    let (entropy, adam) = (
        loss("cross-entropy:smoothing=0.1").map_err(anyhow::Error::msg)?,
        Adam::default(),
    );
    let term = |loss, weight| Term {
        loss,
        of: &of,
        weight,
    };
    let terms = [term(&*entropy, 1.0), term(&Accuracy, 0.0)];
    let course = Course {
        spec: Spec::new(&terms, &adam),
        rate: 2e-3,
        schedule: &format!("cosine:{EPOCHS}").parse().map_err(anyhow::Error::msg)?,
        epochs: EPOCHS,
        patience: None,
        teachers: &[],
        checkpoint: None,
        keep: Duration::MAX,
        threads: ui.threads(),
        rates: &rates::cached(),
    };
    let mut trainer = Trainer::new(model, course, (loader, None))?;
    let progress = ui.progress(trainer.steps().1, "training, steps");
    trainer.run(&mut |event| {
        if let Event::Step { loss, .. } = event {
            progress.tell(&format!("loss {loss:.4}"));
            progress.add(1);
        }
    })?;
    Ok(trainer.model()?)
}
