//! What `secateur compress` is asked for.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;
use secateur::compress::budget::Target as Aim;
use secateur::compress::recipe::{Budgeted, Recipe, Step};
use secateur::compress::{Blend, METHODS};

use super::super::recipe::{INPUTS, RecoveryFlags};
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
    #[arg(long, value_name = "2x|8ms|4.5MB|300M", conflicts_with = "recipe")]
    target: Option<Aim>,
    /// How many steps are tried at most [default: 12]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), conflicts_with = "recipe")]
    tries: Option<u32>,
    /// Draw how much each weight hurts as it alone is pruned: SVG, or a table if F ends in .csv
    #[arg(long, value_name = "F.svg|F.csv")]
    pub(super) sensitivity: Vec<PathBuf>,
    /// Write a page about what was done, which needs no other file
    #[arg(long, value_name = "F.html")]
    pub(super) report: Option<PathBuf>,
    /// How weights are chosen [default: magnitude]
    #[arg(long, value_parser = PossibleValuesParser::new(METHODS.iter().map(|m| m.name()).filter(|m| *m != "threshold")), conflicts_with = "recipe")]
    method: Option<String>,
    /// Which weights are zero together: unstructured, block4x1, block1x4, row, column, 2:4, 4:8, 1:4; or what is cut away instead:
    /// channel, neuron, head, head-width, structured, block, layer; or both, such as structured+unstructured
    #[arg(long, value_name = "NAME", default_value_t, conflicts_with = "recipe")]
    pattern: Blend,
    /// Leave these alone: names of weights or of nodes that read them; `*` is any text, `?` any character
    #[arg(long, value_name = "GLOB", num_args = 1.., conflicts_with = "recipe")]
    keep: Vec<String>,
    /// Prune these too though they would be left alone, such as embeddings
    #[arg(long, value_name = "GLOB", num_args = 1.., conflicts_with = "recipe")]
    include: Vec<String>,
    /// How many examples methods see the model at work on, and how many are made of random -i [default: 128; 512 of -i]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "recipe")]
    pub(super) samples: Option<u32>,
    /// Write weights as sparse initialisers where that is smaller: from two thirds of zeros on. A target in MB does so anyway
    #[arg(long)]
    pub(super) sparse_initializers: bool,
    #[command(flatten)]
    pub(super) recovery: RecoveryFlags,
    #[command(flatten)]
    pub(super) inputs: InputFlags,
}

/// What the verb says otherwise than others of how a model recovers.
pub(super) const WORDS: [(&str, &str); 9] = [
    (
        "data",
        "Examples by which the model is measured and recovers: `digits` (built in), IDX files (MNIST), a CSV or NPZ file, or a folder of \
         images with one folder a class. Without them, the inputs of -i",
    ),
    (
        "finetune",
        "Train for so many epochs after each step [default: by the size of model and data]; 0 does not train",
    ),
    (
        "teacher",
        "Learn from the outputs of a model too: self (A), a file, or none [default: self]",
    ),
    (
        "batch",
        "Examples in a step [default: 64, fewer for large models]",
    ),
    ("lr", "The rate [default: by the size of the model]"),
    (
        "lr_schedule",
        "How the rate goes on after each step, in epochs, as the --schedule of `finetune` has it [default: up for a tenth of them, then cosine to the end]",
    ),
    (
        "validation",
        "Training examples set apart to measure each step by: a number or a share [default: half of the test examples, where the data have \
         their own; else 10%, or 20% without labels]",
    ),
    (
        "task",
        "What labels are: classes, values, or none, where the model is measured by and learns from what it was [default: classes; none for \
         an archive without labels]",
    ),
    (
        "checkpoint",
        "Keep the state after each step in F, and that of training beside it, so that it can go on when it is stopped at any moment",
    ),
];

fn points(text: &str) -> Result<f64, String> {
    let digits = text.trim().trim_end_matches('%');
    let x: Option<f64> = digits.parse().ok();
    let x = x.filter(|x| x.is_finite() && *x >= 0.0);
    x.ok_or_else(|| format!("{text:?} is no number of points from 0 on"))
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
        if self.report.is_some() && self.target().is_none() {
            bail!("--report tells of a model that was written; --dry-run and --sensitivity alone write none");
        }
        if self.recovery.save_recipe.is_some() && self.only_curves() {
            bail!("--save-recipe: with --sensitivity alone nothing is done that a recipe could list");
        }
        self.target().as_ref().map_or(Ok(()), Target::check)?;
        let others = self.sensitivity.iter().chain(&self.report);
        let drawn = |f: &&PathBuf| {
            f.extension()
                .is_some_and(|e| ["svg", "csv"].iter().any(|known| e.eq_ignore_ascii_case(known)))
        };
        if let Some(other) = self.sensitivity.iter().find(|f| !drawn(f)) {
            bail!(
                "--sensitivity {}: expected a name that ends in .svg or .csv",
                other.display()
            );
        }
        let models = [Some(&self.model), self.output.as_ref()];
        let models: Vec<&Path> = models.into_iter().flatten().map(|p| &**p).collect();
        written::distinct(&models, others.clone().chain(self.recovery.files()))?;
        others
            .into_iter()
            .try_for_each(|f| written::check(f, self.force))?;
        self.recovery.check(self.force)
    }

    /// Whether only curves are asked for.
    pub(super) fn only_curves(&self) -> bool {
        self.output.is_none() && !self.dry_run
    }

    /// The steps.
    pub(super) fn recipe(&self, seed: u64) -> Result<Recipe> {
        let step = || Ok(Step::Budget(self.budget()?.into()));
        self.recovery.recipe(step, seed)
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
            inputs: vec![],
            samples: self.samples,
            recover: self.recovery.repairs(&self.data()?),
            finetune: self.recovery.lesson(self.data()?),
        };
        Ok(budget)
    }

    /// The examples.
    fn data(&self) -> Result<String> {
        match (&self.recovery.data, self.inputs.inputs.is_empty()) {
            (Some(data), _) => Ok(data.clone()),
            (None, false) => Ok(INPUTS.to_owned()),
            (None, true) => bail!(
                "by what is the model to be measured? --data D gives examples, -i NAME=SOURCE inputs without labels"
            ),
        }
    }

    /// Whether a file says what is done.
    pub(super) fn by_recipe(&self) -> bool {
        self.recovery.recipe.is_some()
    }
}
