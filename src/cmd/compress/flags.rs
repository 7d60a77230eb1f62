//! What `secateur compress` is asked for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;
use secateur::compress::budget::Target as Aim;
use secateur::compress::recipe::{Budgeted, Finetune, Recipe, Recover, Step};
use secateur::compress::{Blend, METHODS};

use super::super::recipe::RecoveryFlags;
use super::super::source::InputFlags;
use super::super::written::{self, Target};

/// The flags of the verb.
#[derive(clap::Args)]
pub(super) struct Flags {
    /// The ONNX file
    pub(super) model: PathBuf,
    /// The ONNX file to write
    #[arg(required_unless_present_any = ["dry_run", "sensitivity"])]
    output: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long)]
    pub(super) force: bool,
    /// Write nothing; say what the curves foretell, without recovery
    #[arg(long)]
    pub(super) dry_run: bool,
    /// By how many points the model may be worse: percentage points of accuracy, or of agreement with A where there are no labels, or
    /// percent of the loss where labels are numbers
    #[arg(long, value_name = "X", value_parser = points)]
    pub(super) max_drop: Option<f64>,
    /// How far to go: 2x as fast, 8ms a run, 4.5MB, or 300M multiplications a run [default: as far as --max-drop allows]
    #[arg(long, value_name = "2x|8ms|4.5MB|300M")]
    target: Option<Aim>,
    /// How many steps are tried at most [default: 12]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    tries: Option<u32>,
    /// Draw how much each weight hurts as it alone is pruned: SVG, or a table if F ends in .csv
    #[arg(long, value_name = "F.svg|F.csv")]
    pub(super) sensitivity: Vec<PathBuf>,
    /// Write a page about what was done, which needs no other file
    #[arg(long, value_name = "F.html")]
    pub(super) report: Option<PathBuf>,
    /// How weights are chosen [default: magnitude]
    #[arg(long, value_parser = PossibleValuesParser::new(METHODS.iter().map(|m| m.name()).filter(|m| *m != "threshold")))]
    method: Option<String>,
    /// Which weights are zero together: unstructured, block4x1, block1x4, row, column, 2:4, 4:8, 1:4; or what is cut away instead:
    /// channel, neuron, head, head-width, structured, block, layer; or both, such as structured+unstructured
    #[arg(long, value_name = "NAME", default_value_t)]
    pattern: Blend,
    /// Leave these alone: names of weights or of nodes that read them; `*` is any text, `?` any character
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    keep: Vec<String>,
    /// Prune these too though they would be left alone, such as embeddings
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    include: Vec<String>,
    /// How many examples methods see the model at work on, and how many are made of random -i [default: 128; 512 of -i]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) samples: Option<u32>,
    /// Write weights as sparse initialisers where that is smaller: from two thirds of zeros on. A target in MB does so anyway
    #[arg(long)]
    pub(super) sparse_initializers: bool,
    #[command(flatten)]
    pub(super) lesson: LessonFlags,
    #[command(flatten)]
    pub(super) inputs: InputFlags,
}

/// How the model is measured and recovers.
#[derive(clap::Args)]
#[command(next_help_heading = "Recovery")]
pub(super) struct LessonFlags {
    /// Examples by which the model is measured and recovers: `digits` (built in), IDX files (MNIST), a CSV or NPZ file, or a folder of
    /// images with one folder a class. Without them, the inputs of -i
    #[arg(long, value_name = "D")]
    pub(super) data: Option<String>,
    /// Train for so many epochs after each step [default: by the size of model and data]; 0 does not train
    #[arg(long, value_name = "EPOCHS")]
    pub(super) finetune: Option<u64>,
    /// Repair without training, in this order: bn takes the statistics of batch normalisations anew, bias shifts biases
    #[arg(long, value_name = "bn,bias", value_delimiter = ',', requires = "data")]
    recover: Vec<String>,
    /// How many examples repairs look at
    #[arg(long, value_name = "N", requires = "recover")]
    recover_samples: Option<usize>,
    /// Learn from the outputs of a model too: self (A), a file, or none [default: self]
    #[arg(long, value_name = "self|T.onnx|none")]
    teacher: Option<String>,
    /// The share of the teacher in what is made small; with 1 labels do not count [default: 0.5]
    #[arg(long, value_name = "X")]
    teacher_weight: Option<f64>,
    /// What the teacher's and the model's scores are divided by [default: 2]
    #[arg(long, value_name = "X")]
    temperature: Option<f64>,
    /// Examples in a step [default: 64, fewer for large models]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// How steps follow from gradients, as `finetune` has it
    #[arg(long, value_name = "NAME[:KEY=V,…]")]
    optimizer: Option<String>,
    /// The rate [default: by the size of the model]
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    /// How the rate goes on after each step, in epochs, as the --schedule of `finetune` has it [default: cosine to the end]
    #[arg(long, value_name = "S")]
    lr_schedule: Option<String>,
    /// What is made small, as `finetune` has it
    #[arg(long, value_name = "NAME[:KEY=V,…]")]
    loss: Option<String>,
    /// Change training images at random: flip,crop:4,rotate:10,color:0.2
    #[arg(long, value_name = "A")]
    augment: Option<String>,
    /// Training examples set apart to measure each step by: a number or a share [default: half of the test examples, where the data have
    /// their own and labels; else 10%, or 20% without labels]
    #[arg(long, value_name = "N")]
    validation: Option<String>,
    /// What labels are: classes, values, or none, where the model is measured by and learns from what it was [default: classes; none for an
    /// archive without labels]
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Keep the state after each step in F, and that of training beside it, so that it can go on when it is stopped at any moment
    #[arg(long, value_name = "F")]
    pub(super) checkpoint: Option<PathBuf>,
    /// Go on from --checkpoint, if there is one
    #[arg(long, requires = "checkpoint")]
    pub(super) resume: bool,
    /// Take the steps that this TOML file lists
    #[arg(long, value_name = "R.toml", conflicts_with_all = ["target", "tries", "method", "pattern", "keep", "include", "samples", "data", "finetune", "recover", "recover_samples", "teacher", "teacher_weight", "temperature", "batch", "optimizer", "lr", "lr_schedule", "loss", "augment", "validation", "task"])]
    recipe: Option<PathBuf>,
    /// Write what is done as a recipe, for --recipe
    #[arg(long, value_name = "R.toml")]
    save_recipe: Option<PathBuf>,
}

/// What the data are called that `-i` gives.
pub(super) const INPUTS: &str = "-i";

fn points(text: &str) -> Result<f64, String> {
    let digits = text.trim().trim_end_matches('%');
    let x: Option<f64> = digits.parse().ok();
    let x = x.filter(|x| x.is_finite() && *x >= 0.0);
    x.ok_or_else(|| format!("{text:?} is no number of points from 0 on"))
}

/// The checkpoint `file`, and those beside it that a search or a recipe left.
fn state(file: &Path) -> Result<Vec<PathBuf>> {
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

impl Flags {
    /// Where the model goes; nowhere where none is written.
    pub(super) fn target(&self) -> Option<Target> {
        let output = self.output.clone().filter(|_| !self.dry_run)?;
        let force = self.force;
        Some(Target { output, force })
    }

    /// Refuses early what could not be written in the end.
    pub(super) fn check(&self) -> Result<()> {
        let lesson = &self.lesson;
        if self.report.is_some() && self.target().is_none() {
            bail!("--report tells of a model that was written; --dry-run and --sensitivity alone write none");
        }
        if lesson.save_recipe.is_some() && self.only_curves() {
            bail!("--save-recipe: with --sensitivity alone nothing is done that a recipe could list");
        }
        self.target().as_ref().map_or(Ok(()), Target::check)?;
        let others = self
            .sensitivity
            .iter()
            .chain(&self.report)
            .chain(&lesson.save_recipe);
        others
            .into_iter()
            .try_for_each(|f| written::check(f, self.force))?;
        match &lesson.checkpoint {
            Some(f) => state(f)?
                .iter()
                .try_for_each(|f| written::check(f, lesson.resume || self.force))
                .context("--checkpoint; --resume goes on from it"),
            None => Ok(()),
        }
    }

    /// Whether only curves are asked for.
    pub(super) fn only_curves(&self) -> bool {
        self.output.is_none() && !self.dry_run
    }

    /// The steps, and whether a file says them.
    pub(super) fn recipe(&self, seed: u64) -> Result<Recipe> {
        let Some(path) = &self.lesson.recipe else {
            return Ok(Recipe {
                seed: Some(seed),
                step: vec![Step::Budget(self.budget()?.into())],
            });
        };
        let place = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(place)?;
        text.parse::<Recipe>()
            .map_err(anyhow::Error::msg)
            .with_context(place)
    }

    fn budget(&self) -> Result<Budgeted> {
        let budget = Budgeted {
            max_drop: match self.max_drop {
                Some(points) => points,
                None if self.only_curves() => 0.0,
                None => bail!(
                    "how much may be lost? --max-drop X says it in points (1.0); or --recipe R.toml lists steps"
                ),
            },
            target: self.target,
            tries: self.tries,
            method: self.method.clone(),
            pattern: self.pattern,
            keep: self.keep.clone(),
            include: self.include.clone(),
            samples: self.samples,
            recover: self.lesson.repairs(),
            finetune: self.lesson.finetune(&self.inputs)?,
        };
        Ok(budget)
    }

    /// The flags of `prune` that steps before the last go by.
    pub(super) fn recovery(&self) -> RecoveryFlags {
        let mut flags = RecoveryFlags::default();
        let beside = |f: &PathBuf| {
            let mut name = f.file_name().unwrap_or_default().to_owned();
            name.push(".chain");
            f.with_file_name(name)
        };
        flags.checkpoint = self.lesson.checkpoint.as_ref().map(beside);
        flags.resume = self.lesson.resume;
        flags
    }

    /// Whether a file says what is done.
    pub(super) fn by_recipe(&self) -> bool {
        self.lesson.recipe.is_some()
    }

    /// Where the recipe is to be written.
    pub(super) fn save_recipe(&self) -> Option<&PathBuf> {
        self.lesson.save_recipe.as_ref()
    }
}

impl LessonFlags {
    fn repairs(&self) -> Option<Recover> {
        let data = self.data.clone().filter(|_| !self.recover.is_empty())?;
        Some(Recover {
            data,
            repairs: self.recover.clone(),
            samples: self.recover_samples,
        })
    }

    fn finetune(&self, inputs: &InputFlags) -> Result<Finetune> {
        let data = match (&self.data, inputs.inputs.is_empty()) {
            (Some(data), _) => data.clone(),
            (None, false) => INPUTS.to_owned(),
            (None, true) => bail!(
                "by what is the model to be measured? --data D gives examples, -i NAME=SOURCE inputs without labels"
            ),
        };
        Ok(Finetune {
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
        })
    }
}
