//! What training begins with: the model, its data, and what is made small.

use std::path::Path;

use anyhow::{Context, Result, bail};
use secateur::Model;
use secateur::engine::ir::{DType, Node};
use secateur::models::{ARCHS, Arch};
use secateur::train::data::{self, Data, Loader, LoaderOptions, Normalize, Splits};
use secateur::train::{Loss, standardize};

use super::super::card;
use super::super::shapes::{Wanted, wanted};
use super::super::ui::Ui;
use super::flags::Learning;

/// An architecture and its settings.
type Drawn = (&'static dyn Arch, Vec<(String, String)>);

/// A model and examples that fit it.
pub(in crate::cmd) struct Start {
    /// What it was before.
    pub(in crate::cmd) model: Model,
    /// The file that it was read from, or the architecture's name.
    pub(in crate::cmd) name: String,
    pub(in crate::cmd) splits: Splits,
    pub(in crate::cmd) classes: Option<usize>,
    /// Examples in a step.
    pub(in crate::cmd) batch: usize,
    /// How pixels become numbers, where that is said.
    pub(in crate::cmd) normalize: Option<Normalize>,
    /// Whether the model takes batches of that size only.
    fixed: bool,
    /// What it was drawn as, and with which settings, if it was not read from a file.
    arch: Option<Drawn>,
}

impl Start {
    /// An architecture, as large as the data wants it, or a file.
    pub(in crate::cmd) fn arch_or_file(
        name: &str,
        set: &[(String, String)],
        flags: &Learning,
        ui: &Ui,
    ) -> Result<Start> {
        let arch = ARCHS.iter().find(|a| a.name() == name);
        match arch {
            Some(arch) => Start::arch(*arch, set, flags, ui),
            None if Path::new(name).exists() => {
                if let Some((key, _)) = set.first() {
                    bail!("--set {key}: {name} is a file; only architectures have settings");
                }
                Start::file(Path::new(name), flags, ui)
            }
            None => match secateur::models::arch(name) {
                Ok(arch) => Start::arch(arch, set, flags, ui),
                Err(e) => bail!("{e}; nor is there a file of that name"),
            },
        }
    }

    /// Whether the model has first weights, and no statistics yet.
    pub(super) fn is_drawn(&self) -> bool {
        self.arch.is_some()
    }

    /// An architecture with sizes that follow from the data, unless they are set.
    fn arch(arch: &'static dyn Arch, set: &[(String, String)], flags: &Learning, ui: &Ui) -> Result<Start> {
        let given = |name: &str| set.iter().rev().find(|(n, _)| n == name)?.1.parse().ok();
        let image = match (given("channels"), given("height"), given("width")) {
            (Some(c), Some(h), Some(w)) => Some([c, h, w]),
            _ => None,
        };
        let splits = open(flags, image, ui)?;
        let mut all: Vec<(String, String)> = follow(&splits.train)
            .into_iter()
            .filter(|(name, _)| arch.settings().iter().any(|s| s.name == *name))
            .map(|(name, x)| (name.to_owned(), x.to_string()))
            .collect();
        all.extend(set.iter().cloned());
        let built = arch.build(&all, ui.common.seed);
        let model = built.context(arch.name().to_owned())?;
        let start = Start::new(model, arch.name().into(), splits, flags)?;
        Ok(Start {
            arch: Some((arch, all)),
            ..start
        })
    }

    /// The model drawn with another seed; `None` if it was read from a file.
    pub(in crate::cmd) fn redrawn(&self, flags: &Learning, seed: u64) -> Result<Option<Model>> {
        let Some((arch, settings)) = &self.arch else {
            return Ok(None);
        };
        let mut model = arch.build(settings, seed).context(self.name.clone())?;
        standardized(&mut model, &self.splits, flags)?;
        Ok(Some(model))
    }

    /// A model in a file.
    pub(in crate::cmd) fn file(path: &Path, flags: &Learning, ui: &Ui) -> Result<Start> {
        Start::given(card::load(path)?, path.display().to_string(), flags, ui)
    }

    /// A model called `name`.
    pub(in crate::cmd) fn given(model: Model, name: String, flags: &Learning, ui: &Ui) -> Result<Start> {
        let image = wanted(&model).first().and_then(Wanted::image);
        let splits = open(flags, image, ui)?;
        Start::new(model, name, splits, flags)
    }

    /// A model called `name` and the examples `splits`.
    pub(in crate::cmd) fn new(
        mut model: Model,
        name: String,
        splits: Splits,
        flags: &Learning,
    ) -> Result<Start> {
        let known = wanted(&model);
        let fixed = known.iter().find_map(Wanted::batch);
        let batch = match (flags.batch.map(|b| b as usize), fixed) {
            (Some(given), Some(fixed)) if given != fixed => {
                bail!("--batch {given}: {name} takes batches of {fixed} examples only")
            }
            (given, fixed) => fixed.or(given).unwrap_or(64),
        };
        let each: Vec<_> = known.iter().map(Wanted::example).collect();
        let classes = splits.train.classes();
        let told = classes.and_then(|_| classes_of(&model));
        let fit = |d: &Data| d.fit(&each, told).with_context(|| name.clone());
        let splits = Splits {
            train: fit(&splits.train)?.into(),
            validation: splits.validation.as_deref().map(fit).transpose()?.map(Into::into),
            test: splits.test.as_deref().map(fit).transpose()?.map(Into::into),
        };
        standardized(&mut model, &splits, flags)?;
        Ok(Start {
            normalize: flags.photo.normalize(&splits.train),
            model,
            name,
            splits,
            classes,
            batch,
            fixed: fixed.is_some(),
            arch: None,
        })
    }

    /// What loads the training examples, and those by which epochs are measured.
    pub(in crate::cmd) fn loaders(&self, flags: &Learning, ui: &Ui) -> Result<(Loader, Option<Loader>)> {
        let train = LoaderOptions {
            batch: self.batch,
            seed: ui.common.seed,
            drop_last: self.fixed,
            augment: flags.augment()?,
            normalize: self.normalize.clone(),
            threads: 1,
            ..LoaderOptions::default()
        };
        let validation = self.splits.validation.clone();
        let measured = validation.map(|d| self.measured(d, ui)).transpose()?;
        Ok((Loader::new(self.splits.train.clone(), train)?, measured))
    }

    /// What loads the examples that the result is measured by.
    pub(in crate::cmd) fn test(&self, ui: &Ui) -> Result<Option<Loader>> {
        self.splits.test.clone().map(|d| self.measured(d, ui)).transpose()
    }

    /// What loads `data`, in its order, for models to be measured by.
    pub(in crate::cmd) fn measured(&self, data: std::sync::Arc<Data>, ui: &Ui) -> Result<Loader> {
        let options = LoaderOptions {
            batch: if self.fixed {
                self.batch
            } else {
                self.batch.max(256)
            },
            shuffle: false,
            drop_last: self.fixed,
            normalize: self.normalize.clone(),
            threads: ui.threads(),
            ..LoaderOptions::default()
        };
        let (n, left) = (data.len(), data.len() % self.batch);
        if self.fixed && n == left {
            bail!(
                "{n} examples are no batch of {}, which is what {} takes",
                self.batch,
                self.name
            );
        }
        if self.fixed && left > 0 {
            let batch = self.batch;
            ui.note(&format!(
                "{left} of {n} examples are not measured: the model takes batches of {batch} only"
            ));
        }
        Ok(Loader::new(data, options)?)
    }
}

/// Lets `model` standardise its input, if that is wanted.
fn standardized(model: &mut Model, splits: &Splits, flags: &Learning) -> Result<()> {
    if let (true, Some(input)) = (flags.normalize, wanted(model).first()) {
        standardize(model, &input.name, &Normalize::of(&splits.train)?)?;
    }
    Ok(())
}

fn open(flags: &Learning, image: Option<[usize; 3]>, ui: &Ui) -> Result<Splits> {
    Ok(data::open(
        &flags.data,
        &flags.options(image, ui.common.seed, ui.threads()),
    )?)
}

/// The sizes of an architecture that follow from what it is to learn.
fn follow(data: &Data) -> Vec<(&'static str, usize)> {
    let mut sizes: Vec<_> = data.classes().map(|n| ("classes", n)).into_iter().collect();
    match data.inputs().first().map(|i| (i.dtype, &i.dims[..])) {
        Some((DType::F32, &[c, h, w])) => {
            sizes.extend([
                ("channels", c),
                ("height", h),
                ("width", w),
                ("features", c * h * w),
            ]);
        }
        Some((DType::F32, dims)) => sizes.push(("features", dims.iter().product())),
        Some((_, dims)) => {
            sizes.push(("vocabulary", data.vocabulary().len()));
            sizes.extend(dims.first().map(|&n| ("length", n)));
        }
        None => {}
    }
    sizes
}

/// How many classes the first output tells apart, where that is known.
pub(in crate::cmd) fn classes_of(model: &Model) -> Option<usize> {
    let port = model.graph.outputs.first()?;
    let shape = port.ty.as_ref()?.ty.shape()?;
    (shape.len() == 2).then(|| shape.get(1)?.size()).flatten()
}

/// The name of the value that `loss` looks at: the first output that is of floats, or what goes into the operator that makes it, if
/// the loss applies that itself.
pub(in crate::cmd) fn output(model: &Model, loss: &dyn Loss) -> Result<String> {
    let first = floats(model).into_iter().next();
    let first = first.context("the model has no output of floats that a loss could look at")?;
    before(model, &first, loss)
}

/// The outputs of `model` that are of floats, or may be.
pub(super) fn floats(model: &Model) -> Vec<String> {
    let ports = model.graph.outputs.iter();
    let floats = ports.filter(|p| {
        let dtype = p.ty.as_ref().and_then(|t| t.ty.dtype());
        dtype.is_none_or(|t| t.is_float())
    });
    floats.map(|p| model.graph[p.value].name.to_string()).collect()
}

/// The value that `loss` looks at of the output `name`: what goes into the operator that makes it, if the loss applies that itself.
pub(super) fn before(model: &Model, name: &str, loss: &dyn Loss) -> Result<String> {
    let g = &model.graph;
    let mut outputs = g.outputs.iter().map(|p| p.value);
    let v = outputs
        .find(|v| &*g[*v].name == name)
        .with_context(|| format!("no output {name:?}"))?;
    let makes = |n: &&Node| n.outputs.contains(&Some(v));
    let node = g.iter().map(|(_, n)| n).find(makes);
    let included = node.filter(|n| loss.includes().contains(&&*n.op));
    let input = included.and_then(|n| n.inputs.first().copied().flatten());
    Ok(g[input.unwrap_or(v)].name.to_string())
}
