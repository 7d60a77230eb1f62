//! What verbs that take recipes are asked for: examples, recovery, where state is kept, and the recipe itself.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use secateur::compress::recipe::{Finetune, Recipe, Recover, Step};
use secateur::compress::recover::REPAIRS;
use secateur::compress::rounds::RAMPS;

use super::super::written;

/// The flags. What one verb says otherwise of them, or asks for beside them, it changes in its command.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Recovery")]
pub(in crate::cmd) struct RecoveryFlags {
    /// Examples to recover by, and for methods that want to see the model at work: `digits` (built in), IDX files (MNIST), a CSV
    /// or NPZ file, or a folder of images, with one folder a class where they have labels
    #[arg(long, value_name = "D")]
    pub(in crate::cmd) data: Option<String>,
    /// Train for so many epochs, in all rounds together; zeros stay zeros
    #[arg(long, value_name = "EPOCHS")]
    pub(in crate::cmd) finetune: Option<u64>,
    /// Repair without training: weights fits what is left after a cut to do what the layers did, then, in this order, bn takes the
    /// statistics of batch normalisations anew, bias shifts biases; none repairs nothing
    #[arg(long, value_name = "weights,bn,bias|none", value_delimiter = ',')]
    recover: Vec<String>,
    /// How many examples repairs look at
    #[arg(long, value_name = "N", requires = "recover")]
    recover_samples: Option<usize>,
    /// Learn from the outputs of a model too: self (A, before anything is done), a file, or none [default: none]
    #[arg(long, value_name = "self|T.onnx|none")]
    teacher: Option<String>,
    /// The share of the teacher in what is made small; with 1 labels do not count [default: 0.5]
    #[arg(long, value_name = "X")]
    teacher_weight: Option<f64>,
    /// What the teacher's and the model's scores are divided by [default: 2]
    #[arg(long, value_name = "X")]
    temperature: Option<f64>,
    /// Examples in a step [default: 64]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// How steps follow from gradients, as `finetune` has it
    #[arg(long, value_name = "NAME[:KEY=V,…]")]
    optimizer: Option<String>,
    /// The rate [default: what the optimiser usually takes]
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    /// How the rate goes on in each round, in epochs, as the --schedule of `finetune` has it
    #[arg(long, value_name = "S")]
    lr_schedule: Option<String>,
    /// What is made small, as `finetune` has it
    #[arg(long, value_name = "NAME[:KEY=V,…]")]
    loss: Option<String>,
    /// Change training images at random: flip,crop:4,rotate:10,color:0.2
    #[arg(long, value_name = "A")]
    augment: Option<String>,
    /// Examples set apart to measure each round by: a number or a share [default: 10%]
    #[arg(long, value_name = "N")]
    validation: Option<String>,
    /// What labels are: classes, values, or none, where the model learns from what it was [default: classes]
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Keep the state after each round in F, and that of training beside it, so that it can go on when it is stopped at any moment
    #[arg(long, value_name = "F")]
    pub(in crate::cmd) checkpoint: Option<PathBuf>,
    /// Go on from --checkpoint, if there is one
    #[arg(long, requires = "checkpoint")]
    pub(in crate::cmd) resume: bool,
    /// Take the steps that this TOML file lists
    #[arg(long, value_name = "R.toml", conflicts_with_all = ["data", "finetune", "recover", "recover_samples", "teacher", "teacher_weight", "temperature", "batch", "optimizer", "lr", "lr_schedule", "loss", "augment", "validation", "task"])]
    pub(in crate::cmd) recipe: Option<PathBuf>,
    /// Write what is done as a recipe, for --recipe
    #[arg(long, value_name = "R.toml")]
    pub(in crate::cmd) save_recipe: Option<PathBuf>,
}

impl RecoveryFlags {
    /// The steps: those of the file, or else the one that `step` makes of the other flags.
    pub(in crate::cmd) fn recipe(&self, step: impl FnOnce() -> Result<Step>, seed: u64) -> Result<Recipe> {
        if let Some(path) = &self.recipe {
            let place = || path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(place)?;
            return text
                .parse::<Recipe>()
                .map_err(anyhow::Error::msg)
                .with_context(place);
        }
        let recipe = Recipe {
            seed: Some(seed),
            step: vec![step()?],
        };
        recipe.check().map_err(anyhow::Error::msg)?;
        Ok(recipe)
    }

    /// The repairs by the examples `data`, if something is said of them; how photos become numbers, other flags say.
    pub(in crate::cmd) fn repairs(&self, data: &str) -> Option<Recover> {
        let none = self.recover == ["none"];
        self.repaired().then(|| Recover {
            data: data.to_owned(),
            repairs: if none { vec![] } else { self.recover.clone() },
            samples: self.recover_samples,
            photos: None,
        })
    }

    /// What training there is by the examples `data`.
    pub(in crate::cmd) fn lesson(&self, data: String) -> Finetune {
        Finetune {
            data,
            epochs: self.finetune.unwrap_or(0),
            batch: self.batch,
            optimizer: self.optimizer.clone(),
            lr: self.lr,
            lr_schedule: self.lr_schedule.clone(),
            loss: self.loss.clone(),
            augment: self.augment.clone(),
            validation: self.validation.clone(),
            task: self.task.clone(),
            teacher: self.teacher.clone(),
            teacher_weight: self.teacher_weight,
            temperature: self.temperature,
            photos: None,
        }
    }

    /// Whether repairs are asked for.
    pub(in crate::cmd) fn repaired(&self) -> bool {
        !self.recover.is_empty()
    }

    /// Where state is kept, and whether it goes on from there.
    pub(in crate::cmd) fn state(&self) -> (Option<&Path>, bool) {
        (self.checkpoint.as_deref(), self.resume)
    }

    /// The files that these flags name.
    pub(in crate::cmd) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.recipe
            .iter()
            .chain(&self.save_recipe)
            .chain(&self.checkpoint)
    }

    /// Refuses early what could not be written in the end.
    pub(in crate::cmd) fn check(&self, force: bool) -> Result<()> {
        self.save_recipe
            .iter()
            .try_for_each(|f| written::check(f, force))?;
        let Some(file) = &self.checkpoint else {
            return Ok(());
        };
        let kept = kept(file)?;
        let mut kept = kept.iter();
        kept.try_for_each(|f| written::check(f, self.resume || force))
            .context("--checkpoint; --resume goes on from it")
    }

    /// Writes the recipe, if that is wanted.
    pub(in crate::cmd) fn save(&self, recipe: &Recipe, force: bool) -> Result<()> {
        let Some(file) = &self.save_recipe else {
            return Ok(());
        };
        let text = recipe.toml().map_err(anyhow::Error::msg)?;
        written::replace(file, force, |out| Ok(out.write_all(text.as_bytes())?))
    }
}

/// The checkpoint `file`, and those beside it that a search or a recipe left.
fn kept(file: &Path) -> Result<Vec<PathBuf>> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty());
    let ours = |path: &PathBuf| {
        let other = path.file_name().unwrap_or_default().to_string_lossy();
        let end = other.strip_prefix(&*name).unwrap_or_default();
        [".kept", ".round", ".step", ".chain"]
            .iter()
            .any(|start| end.starts_with(start))
    };
    let mut all = vec![file.to_owned()];
    // Of a folder that is not there the check of the file itself tells.
    for entry in std::fs::read_dir(folder.unwrap_or(Path::new(".")))
        .into_iter()
        .flatten()
    {
        all.push(file.with_file_name(entry?.file_name()));
    }
    all.retain(|f| f == file || ours(f));
    Ok(all)
}

/// What is said of names below the flags.
pub(in crate::cmd) fn names() -> String {
    let ramps = RAMPS
        .iter()
        .map(|(name, _, about)| format!("\n  {name:<12} {about}"));
    let repairs = REPAIRS
        .iter()
        .map(|(name, _, about)| format!("\n  {name:<12} {about}"));
    format!(
        "Schedules:{}\n\nRepairs:{}",
        ramps.collect::<String>(),
        repairs.collect::<String>()
    )
}
