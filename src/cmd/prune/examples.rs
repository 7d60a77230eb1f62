//! On what methods see the model at work.

use anyhow::{Context, Result, anyhow, bail};
use secateur::Model;
use secateur::compress::{Effort, Examples, Method, Run};
use secateur::train::data::{self, Data, Loader, LoaderOptions, Options};
use secateur::train::loss::loss;
use secateur::train::{Loss, Term};

use super::super::shapes::{Wanted, wanted};
use super::super::source::{Feeder, InputFlags};
use super::super::train::{classes_of, output};
use super::super::ui::Ui;

/// What the model is shown.
pub(super) struct Shown {
    runs: Vec<Run>,
    /// The loss of labels, and the names of what it compares.
    task: Option<(Box<dyn Loss>, [String; 2])>,
    seed: u64,
}

/// Where examples come from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) data: Option<&'a str>,
    /// How many, if that is said.
    pub(super) samples: Option<u32>,
    pub(super) inputs: &'a InputFlags,
}

/// How many examples there are where nobody says.
const SAMPLES: u32 = 128;

impl Shown {
    /// Examples of `--data`, or else the inputs of `-i`.
    ///
    /// # Errors
    ///
    /// If there are neither, or they do not fit the model.
    pub(super) fn new(model: &Model, method: &dyn Method, source: Source, ui: &Ui) -> Result<Shown> {
        let samples = source.samples.unwrap_or(SAMPLES);
        match (source.data, source.inputs.inputs.is_empty()) {
            (Some(data), _) => Shown::data(model, method, (data, samples as usize), ui),
            (None, false) => Shown::inputs(model, (source.inputs, samples), ui),
            (None, true) => bail!(
                "method {} sees the model at work: --data D gives it examples, -i NAME=SOURCE inputs without labels",
                method.name()
            ),
        }
    }

    fn data(model: &Model, method: &dyn Method, (name, samples): (&str, usize), ui: &Ui) -> Result<Shown> {
        let known = wanted(model);
        let seed = ui.common.seed;
        let options = Options {
            seed,
            image: known.first().and_then(Wanted::image),
            threads: ui.threads(),
            ..Options::default()
        };
        let splits = data::open(name, &options)?;
        let classes = splits.train.classes();
        let each: Vec<_> = known.iter().map(Wanted::example).collect();
        let fitted: Data = splits.train.fit(&each, classes.and_then(|_| classes_of(model)))?;
        let fixed = known.iter().find_map(Wanted::batch);
        let options = LoaderOptions {
            batch: fixed.unwrap_or(method.batch()).min(fitted.len()),
            seed,
            drop_last: fixed.is_some(),
            threads: 0,
            ..LoaderOptions::default()
        };
        let loader = Loader::new(fitted.into(), options)?;
        let (mut runs, mut left) = (vec![], samples);
        for batch in loader.epoch(0, 0) {
            let batch = batch?;
            left = left.saturating_sub(batch.len());
            runs.push(Run {
                inputs: batch.inputs,
                labels: Some(batch.labels),
            });
            if left == 0 {
                break;
            }
        }
        if left > 0 {
            ui.note(&format!(
                "--data has {} examples, all of which are shown",
                samples - left
            ));
        }
        let loss = loss(if classes.is_some() { "cross-entropy" } else { "mse" }).map_err(|e| anyhow!(e))?;
        let of = [output(model, &*loss)?, model.graph.fresh("label").to_string()];
        let task = Some((loss, of));
        Ok(Shown { runs, task, seed })
    }

    fn inputs(model: &Model, (inputs, samples): (&InputFlags, u32), ui: &Ui) -> Result<Shown> {
        let feeder = Feeder::new(&wanted(model), inputs, &ui.quiet())?;
        let seed = ui.common.seed;
        let n = if feeder.is_fixed() { 1 } else { u64::from(samples) };
        let run = |i: u64| {
            let inputs = feeder.make(seed.wrapping_add(i)).context("examples of -i")?;
            Ok(Run { inputs, labels: None })
        };
        let runs = (0..n).map(run).collect::<Result<_>>()?;
        let task = None;
        Ok(Shown { runs, task, seed })
    }

    /// How many examples there are: of labels where there are some, else runs.
    pub(super) fn samples(&self) -> usize {
        let of = |r: &Run| r.labels.as_ref().map_or(1, |l| l.dims()[0]);
        self.runs.iter().map(of).sum()
    }

    /// Calls `f` with the examples.
    pub(super) fn with<T>(&self, effort: Effort, f: impl FnOnce(&Examples) -> T) -> T {
        let names: Vec<&str> = self
            .task
            .iter()
            .flat_map(|(_, of)| of)
            .map(String::as_str)
            .collect();
        let term = self.task.as_ref().map(|(loss, _)| Term {
            loss: &**loss,
            of: &names,
            weight: 1.0,
        });
        f(&Examples {
            runs: &self.runs,
            task: term,
            seed: self.seed,
            effort,
        })
    }
}
