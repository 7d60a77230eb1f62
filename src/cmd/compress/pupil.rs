//! The examples of a compression, and what is made small by them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use secateur::compress::Examples;
use secateur::compress::recipe::Budgeted;
use secateur::compress::recover::{Recovery, Repair};
use secateur::train::data::{self, Loader};
use secateur::train::{Course, Spec};
use secateur::{Model, Tensor};

use super::super::card;
use super::super::recipe::{INPUTS, PIXELS, SAMPLES, fitted, measuring, repairs, sized};
use super::super::shapes::wanted;
use super::super::source::{Feeder, InputFlags};
use super::super::train::{Flags, KEEP, Parts, Start};
use super::super::ui::Ui;
use super::agree::Original;
use super::exam::Exam;

/// A model with its examples, and how it learns.
pub(super) struct Pupil<'a> {
    flags: Flags,
    /// The model that is compressed, its sizes set.
    pub(super) start: Start,
    /// What it was before anything was done, its sizes set.
    pub(super) original: Model,
    /// Whom it learns from, if it is not that.
    teacher: Option<Model>,
    taught: bool,
    repairs: Vec<Repair>,
    samples: usize,
    tries: u32,
    /// A word for the inputs of `-i`, where these are the examples.
    made: Option<String>,
    ui: &'a Ui,
}

/// Where examples are measured by, and where state is kept.
pub(super) type Kept<'p> = (Option<&'p Path>, bool);

/// How many examples are made of random inputs, where nobody says.
const MADE: u32 = 512;

impl<'a> Pupil<'a> {
    /// The pupil that `model` is, which was `old` before the first step, as `budget` says.
    ///
    /// # Errors
    ///
    /// If the examples cannot be read, or do not fit the model.
    pub(super) fn new(
        (model, old): (&Model, &Model),
        (name, budget): (&Path, &Budgeted),
        inputs: &InputFlags,
        ui: &'a Ui,
    ) -> Result<Pupil<'a>> {
        let how = &budget.finetune;
        let flags = measuring(how)?;
        if !flags.labelled() && how.teacher.as_deref() == Some("none") {
            bail!("--teacher none: without labels there is nothing else to learn from");
        }
        let name = name.display().to_string();
        let set = sized(model, &ui.common.sizes);
        let mut made = None;
        let mut start = match how.data.as_str() {
            INPUTS => {
                let samples = budget.samples.unwrap_or(MADE);
                let options = flags.learning.options(None, ui.common.seed, ui.threads());
                let arrays = examples(model, (inputs, samples), ui)?;
                made = Some(word(arrays.iter().map(|(_, x)| x)));
                let splits = data::arrays("-i", &arrays, &options)?;
                Start::new(set, name, splits, &flags.learning)?
            }
            _ => Start::given(set, name, &flags.learning, ui)?,
        };
        let examples = start.splits.train.inputs();
        start.model = fitted(&start.model, examples);
        let teacher = match how.teacher.as_deref() {
            None | Some("self" | "none") => None,
            Some(file) => Some(card::load(Path::new(file))?),
        };
        Ok(Pupil {
            original: fitted(&sized(old, &ui.common.sizes), examples),
            taught: !flags.labelled() || how.teacher.as_deref() != Some("none"),
            repairs: repairs(budget.recover.as_ref())?,
            samples: budget.recover.as_ref().and_then(|r| r.samples).unwrap_or(SAMPLES),
            tries: budget.tries(),
            made,
            teacher,
            flags,
            start,
            ui,
        })
    }

    /// Whether there are labels by which models are measured.
    pub(super) fn labelled(&self) -> bool {
        self.flags.labelled()
    }

    /// What else than its school knows tells a search from others, where the method sees `shown`.
    pub(super) fn apart(&self, shown: Option<&Examples>) -> Vec<(&'static str, String)> {
        let seen = |e: &Examples| {
            let inputs = e.runs.iter().flat_map(|r| r.inputs.iter().map(|(_, x)| x));
            word(inputs.chain(e.runs.iter().flat_map(|r| &r.labels)))
        };
        let pixels = self.start.normalize.as_ref();
        let all = [
            ("the inputs of -i", self.made.clone()),
            ("what the method sees", shown.map(seen)),
            (PIXELS, pixels.map(|n| format!("{n:?}"))),
        ];
        all.into_iter()
            .filter_map(|(what, word)| Some((what, word?)))
            .collect()
    }

    /// Batches of an epoch.
    pub(super) fn batches(&self) -> Result<u64> {
        let (examples, _) = self.start.loaders(&self.flags.learning, &self.ui.quiet())?;
        Ok(examples.batches() as u64)
    }

    /// Trains for so many epochs after each step, at rates that go on as `schedule` says.
    pub(super) fn learns(&mut self, epochs: u64, schedule: Option<&str>) -> Result<()> {
        self.flags.epochs = epochs;
        if let Some(schedule) = schedule {
            self.flags.learning.schedule = schedule.parse().map_err(|e: String| anyhow!(e))?;
        }
        Ok(())
    }

    /// The examples by which steps are measured.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub(super) fn validation(&self) -> Result<Loader> {
        let (_, measured) = self.start.loaders(&self.flags.learning, self.ui)?;
        measured
            .context("a budget needs examples by which each step is measured; --validation sets some apart")
    }

    /// At most so many of them.
    pub(super) fn some(&self, n: usize) -> Result<Loader> {
        let all = self.validation()?;
        let batch = if all.options().drop_last {
            self.start.batch
        } else {
            1
        };
        let n = n.max(batch).next_multiple_of(batch);
        self.start
            .measured(all.data().some_of(n).into(), &self.ui.quiet())
    }

    /// The examples that no step sees.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub(super) fn test(&self) -> Result<Loader> {
        let test = self.start.test(self.ui)?;
        test.context("a budget needs test examples that no step has seen; the data have none")
    }

    /// Lets `with` examine models by `measured`.
    pub(super) fn examine<R>(
        &self,
        measured: Loader,
        (checkpoint, resume): Kept,
        with: impl FnOnce(&mut Exam) -> Result<R>,
    ) -> Result<R> {
        let original = match self.labelled() {
            true => None,
            false => Some(Original::new(&self.original, measured.clone(), self.ui)?),
        };
        let teacher = self.teacher.as_ref().unwrap_or(&self.original);
        let teacher = Some(teacher).filter(|_| self.taught);
        let parts = Parts::new(&self.flags, &self.start, teacher, self.ui)?;
        let names = parts.names();
        let (terms, teachers) = (parts.terms(&names), parts.teachers(teacher));
        let learning = &self.flags.learning;
        let (optimizer, groups) = (learning.optimizer()?, learning.groups());
        let course = Course {
            spec: Spec {
                groups: &groups,
                clip: learning.clip(),
                batch_statistics: self.flags.labelled(),
                seed: self.ui.common.seed as u32,
                ..Spec::new(&terms, &*optimizer)
            },
            rate: learning.rate(&*optimizer),
            schedule: &learning.schedule,
            epochs: self.flags.epochs * u64::from(self.tries),
            patience: None,
            teachers: &teachers,
            checkpoint,
            keep: KEEP,
            threads: self.ui.threads(),
            rates: &crate::rates::cached(),
        };
        let (examples, _) = self.start.loaders(learning, &self.ui.quiet())?;
        with(&mut Exam {
            recovery: Recovery {
                original: &self.original,
                course,
                examples,
                measured: Some(measured),
                classes: self.start.classes.is_some(),
                repairs: &self.repairs,
                samples: self.samples,
                resume,
                apart: vec![],
            },
            original,
        })
    }
}

/// A word that tells these tensors from others.
fn word<'t>(all: impl Iterator<Item = &'t Tensor>) -> String {
    let mut hash = DefaultHasher::new();
    for x in all {
        (x.dims(), x.bytes()).hash(&mut hash);
    }
    format!("{:016x}", hash.finish())
}

/// Inputs of `-i` as arrays of all examples.
fn examples(model: &Model, (flags, samples): (&InputFlags, u32), ui: &Ui) -> Result<Vec<(String, Tensor)>> {
    let feeder = Feeder::new(&wanted(model), flags, &ui.quiet())?;
    let seed = ui.common.seed;
    let mut runs = vec![feeder.make(seed).context("examples of -i")?];
    let each = runs[0]
        .iter()
        .map(|(_, t)| t.dims().first().copied().unwrap_or(1))
        .max()
        .unwrap_or(1);
    let more = if feeder.is_fixed() {
        1
    } else {
        u64::from(samples).div_ceil(each.max(1) as u64)
    };
    for i in 1..more {
        runs.push(feeder.make(seed.wrapping_add(i))?);
    }
    let names: Vec<String> = runs[0].iter().map(|(name, _)| name.clone()).collect();
    let all = names.into_iter().enumerate().map(|(i, name)| {
        let parts: Vec<&Tensor> = runs.iter().map(|run| &run[i].1).collect();
        let whole = joined(&parts).with_context(|| format!("input {name:?}"))?;
        Ok((name, whole))
    });
    all.collect()
}

/// `parts` one after the other along the first axis.
fn joined(parts: &[&Tensor]) -> Result<Tensor> {
    let first = parts[0];
    let [n, rest @ ..] = first.dims() else {
        bail!("a scalar cannot be split into examples; expected an axis of the batch");
    };
    let mut dims = vec![n * parts.len()];
    dims.extend_from_slice(rest);
    let all: Vec<f64> = match first.dtype().is_float() {
        true => parts
            .iter()
            .flat_map(|t| t.floats().unwrap_or_default())
            .collect(),
        false => parts
            .iter()
            .flat_map(|t| t.ints().unwrap_or_default())
            .map(|x| x as f64)
            .collect(),
    };
    Tensor::rounded(first.dtype(), &dims, &all)
        .with_context(|| format!("elements of type {} are no examples", first.dtype()))
}
