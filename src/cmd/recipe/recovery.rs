//! What is asked of `prune` beyond zeros: rounds and recovery.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use secateur::compress::recipe::{Finetune, Prune, Recipe, Recover, Step};
use secateur::compress::recover::REPAIRS;
use secateur::compress::rounds::{RAMPS, Ramp};

use super::super::written;

/// The flags.
#[derive(clap::Args, Debug, Default)]
#[command(next_help_heading = "Recovery")]
pub(in crate::cmd) struct RecoveryFlags {
    /// Examples to recover by, and for methods that want to see the model at work: `digits` (built in), IDX files (MNIST), a CSV
    /// or NPZ file, or a folder of images, with one folder a class where they have labels
    #[arg(long, value_name = "D")]
    data: Option<String>,
    /// Train for so many epochs, in all rounds together; zeros stay zeros
    #[arg(long, value_name = "EPOCHS", requires = "data")]
    finetune: Option<u64>,
    /// Prune in N rounds, with recovery in each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How the share of what is gone grows from round to round: cubic, exponential, linear, one-shot [default: cubic]
    #[arg(long, value_name = "NAME")]
    schedule: Option<Ramp>,
    /// Repair without training, in this order: bn takes the statistics of batch normalisations anew, bias shifts biases
    #[arg(long, value_name = "bn,bias", value_delimiter = ',', requires = "data")]
    recover: Vec<String>,
    /// How many examples repairs look at
    #[arg(long, value_name = "N", requires = "recover")]
    recover_samples: Option<usize>,
    /// Learn from the outputs of a model too: self (the one before pruning), a file, or none [default: none]
    #[arg(long, value_name = "self|T.onnx|none", requires = "finetune")]
    teacher: Option<String>,
    /// The share of the teacher in what is made small; with 1 labels do not count [default: 0.5]
    #[arg(long, value_name = "X", requires = "teacher")]
    teacher_weight: Option<f64>,
    /// What the teacher's and the model's scores are divided by [default: 2]
    #[arg(long, value_name = "X", requires = "teacher")]
    temperature: Option<f64>,
    /// Examples in a step
    #[arg(long, short, value_name = "N", requires = "data")]
    batch: Option<u32>,
    /// How steps follow from gradients, as `finetune` has it
    #[arg(long, value_name = "NAME[:KEY=V,…]", requires = "finetune")]
    optimizer: Option<String>,
    /// The rate [default: what the optimiser usually takes]
    #[arg(long, value_name = "X", requires = "finetune")]
    lr: Option<f64>,
    /// How the rate goes on in each round, in epochs, as the --schedule of `finetune` has it
    #[arg(long, value_name = "S", requires = "finetune")]
    lr_schedule: Option<String>,
    /// What is made small, as `finetune` has it
    #[arg(long, value_name = "NAME[:KEY=V,…]", requires = "data")]
    loss: Option<String>,
    /// Change training images at random: flip,crop:4,rotate:10,color:0.2
    #[arg(long, value_name = "A", requires = "finetune")]
    augment: Option<String>,
    /// Examples set apart to measure each round by: a number or a share [default: 10%]
    #[arg(long, value_name = "N", requires = "data")]
    validation: Option<String>,
    /// What labels are: classes, values, or none, where the model learns from what it was [default: classes]
    #[arg(long, value_name = "NAME", requires = "data")]
    task: Option<String>,
    /// Keep the state after each round in F, and that of training beside it, so that it can go on when it is stopped at any moment
    #[arg(long, value_name = "F")]
    pub(in crate::cmd) checkpoint: Option<PathBuf>,
    /// Go on from --checkpoint, if there is one
    #[arg(long, requires = "checkpoint")]
    pub(in crate::cmd) resume: bool,
    /// Take the steps that this TOML file lists
    #[arg(long, value_name = "R.toml", conflicts_with_all = ["method", "pattern", "sparsity", "threshold", "scope", "keep", "include", "data", "rounds", "schedule", "samples", "of", "round_to"])]
    recipe: Option<PathBuf>,
    /// Write what is done as a recipe, for --recipe
    #[arg(long, value_name = "R.toml")]
    save_recipe: Option<PathBuf>,
}

impl RecoveryFlags {
    /// Whether there is more to do than to prune at once.
    pub(in crate::cmd) fn more(&self) -> bool {
        self.trains() || self.data.is_some()
    }

    /// Whether that is more than to measure.
    pub(in crate::cmd) fn trains(&self) -> bool {
        let rounds = self.rounds.is_some_and(|n| n > 1);
        let taught = self.finetune.is_some() || !self.recover.is_empty();
        rounds || taught || self.recipe.is_some() || self.checkpoint.is_some()
    }

    /// The steps, of which `prune` is what the other flags say.
    pub(in crate::cmd) fn recipe(&self, prune: impl FnOnce() -> Result<Prune>, seed: u64) -> Result<Recipe> {
        if let Some(path) = &self.recipe {
            let place = || path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(place)?;
            return text
                .parse::<Recipe>()
                .map_err(anyhow::Error::msg)
                .with_context(place);
        }
        let prune = Prune {
            rounds: self.rounds.unwrap_or(1),
            schedule: self.schedule()?,
            recover: self.repairs(),
            finetune: self.lesson(),
            ..prune()?
        };
        let recipe = Recipe {
            seed: Some(seed),
            step: vec![Step::Prune(prune.into())],
        };
        recipe.check().map_err(anyhow::Error::msg)?;
        Ok(recipe)
    }

    fn schedule(&self) -> Result<Ramp> {
        match (self.schedule, self.rounds.unwrap_or(1)) {
            (Some(Ramp::OneShot), n) if n > 1 => bail!("--rounds {n}: --schedule one-shot takes one round"),
            (schedule, _) => Ok(schedule.unwrap_or_default()),
        }
    }

    fn repairs(&self) -> Option<Recover> {
        let data = self.data.clone().filter(|_| !self.recover.is_empty())?;
        Some(Recover {
            data,
            repairs: self.recover.clone(),
            samples: self.recover_samples,
        })
    }

    /// What training there is, and what its examples are.
    pub(in crate::cmd) fn lesson(&self) -> Option<Finetune> {
        Some(Finetune {
            data: self.data.clone()?,
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
        })
    }

    /// Refuses early what could not be written in the end.
    pub(in crate::cmd) fn check(&self, force: bool) -> Result<()> {
        self.save_recipe
            .iter()
            .try_for_each(|f| written::check(f, force))?;
        match &self.checkpoint {
            Some(f) => {
                written::check(f, self.resume || force).context("--checkpoint; --resume goes on from it")
            }
            None => Ok(()),
        }
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
