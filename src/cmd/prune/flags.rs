//! What `secateur prune` is asked for.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use secateur::compress::groups::Of;
use secateur::compress::recipe::Prune;
use secateur::compress::rounds::{Aim, Ramp};
use secateur::compress::{Amount, Goal};
use secateur::compress::{Grain, METHODS, Pattern, Piece, Scope};
use serde_json::{Value, json};

use super::super::pruning::{ScopeFlag, percent, share};
use super::super::recipe::RecoveryFlags;
use super::super::source::InputFlags;
use super::super::ui::Ui;
use super::super::written::Target;

/// The flags of the verb.
#[derive(clap::Args)]
pub(super) struct Flags {
    /// The ONNX file
    pub(super) model: PathBuf,
    /// The ONNX file to write
    #[arg(required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
    /// Write nothing; say what would be pruned
    #[arg(long)]
    dry_run: bool,
    /// How weights are chosen [default: magnitude; threshold where --threshold is given]
    #[arg(long, value_parser = PossibleValuesParser::new(METHODS.iter().map(|m| m.name())), conflicts_with = "recipe")]
    method: Option<String>,
    /// Which weights are zero together: unstructured, block4x1 (four neighbouring outputs), block1x4 (inputs), row (an
    /// output), column (an input); or 2:4, 4:8, 1:4: how many of so many neighbouring inputs stay. Cut away instead, so that
    /// the model is smaller and dense: channel, neuron, head, head-width (of each head), structured (the first three),
    /// block (whole residual blocks), layer (whole layers)
    #[arg(long, value_name = "NAME", default_value_t, conflicts_with = "recipe")]
    pub(super) pattern: Grain,
    /// The share of weights that is zero afterwards, or of what is cut away: 0.8, 80% or 80; above 1 it is percent [default:
    /// 50%, or what the pattern says]
    #[arg(long, value_name = "X", value_parser = share, conflicts_with_all = ["threshold", "recipe"])]
    pub(super) sparsity: Option<f64>,
    /// Weights of less than this magnitude become zero
    #[arg(long, value_name = "X", conflicts_with = "recipe")]
    pub(super) threshold: Option<f64>,
    /// What --sparsity is a share of [default: global; layer for activation, apoz, sparsegpt and wanda, and where channels, neurons or heads
    /// are cut away by others than surgeon]
    #[arg(long, value_enum, conflicts_with_all = ["threshold", "recipe"])]
    pub(super) scope: Option<ScopeFlag>,
    /// What --sparsity is a share of where pieces are cut away [default: channels, or the number of
    /// blocks or layers]
    #[arg(long, value_enum, conflicts_with = "recipe")]
    pub(super) of: Option<OfFlag>,
    /// Numbers of channels and neurons that are cut become multiples of this where they are larger [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024), conflicts_with = "recipe")]
    pub(super) round_to: Option<u32>,
    /// Leave these alone: names of weights or of nodes that read them; `*` is any text, `?` any character
    #[arg(long, value_name = "GLOB", num_args = 1.., conflicts_with = "recipe")]
    pub(super) keep: Vec<String>,
    /// Prune these too though they would be left alone, such as embeddings
    #[arg(long, value_name = "GLOB", num_args = 1.., conflicts_with = "recipe")]
    pub(super) include: Vec<String>,
    /// On how many examples of --data, or of the inputs of -i where these are random, methods see the model at work
    /// [default: 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "recipe")]
    pub(super) samples: Option<u32>,
    /// Write weights as sparse initialisers where that is smaller: from two thirds of zeros on
    #[arg(long)]
    pub(super) sparse_initializers: bool,
    /// Prune in N rounds, with recovery in each
    #[arg(long, value_name = "N", help_heading = "Recovery", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "recipe")]
    rounds: Option<u32>,
    /// How the share of what is gone grows from round to round: cubic, exponential, linear, one-shot [default: cubic]
    #[arg(
        long,
        value_name = "NAME",
        help_heading = "Recovery",
        conflicts_with = "recipe"
    )]
    schedule: Option<Ramp>,
    #[command(flatten)]
    pub(super) recovery: RecoveryFlags,
    #[command(flatten)]
    pub(super) inputs: InputFlags,
}

/// What a share is a share of, as a flag.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum OfFlag {
    /// Widths: numbers of channels, neurons and heads
    #[default]
    Channels,
    /// Elements of the weights
    Parameters,
    /// Multiply-adds
    Macs,
    /// The time that a run is predicted to take; of structured, blocks may go too
    Ms,
}

impl From<OfFlag> for Of {
    fn from(flag: OfFlag) -> Of {
        match flag {
            OfFlag::Channels => Of::Channels,
            OfFlag::Parameters => Of::Parameters,
            OfFlag::Macs => Of::Macs,
            OfFlag::Ms => Of::Ms,
        }
    }
}

/// Of flags that say how a model recovers, what each is nothing without.
pub(super) const NEEDS: [(&str, &str); 13] = [
    ("finetune", "data"),
    ("recover", "data"),
    ("teacher", "finetune"),
    ("teacher_weight", "teacher"),
    ("temperature", "teacher"),
    ("batch", "data"),
    ("optimizer", "finetune"),
    ("lr", "finetune"),
    ("lr_schedule", "finetune"),
    ("loss", "data"),
    ("augment", "finetune"),
    ("validation", "data"),
    ("task", "data"),
];

impl Flags {
    /// Whether there is more to do than to prune at once.
    pub(super) fn more(&self) -> bool {
        self.trains() || self.recovery.data.is_some()
    }

    /// Whether that is more than to measure.
    pub(super) fn trains(&self) -> bool {
        let how = &self.recovery;
        let rounds = self.rounds.is_some_and(|n| n > 1);
        let taught = how.finetune.is_some() || how.repaired();
        rounds || taught || how.recipe.is_some() || how.checkpoint.is_some()
    }

    fn ramp(&self) -> Result<Ramp> {
        match (self.schedule, self.rounds.unwrap_or(1)) {
            (Some(Ramp::OneShot), n) if n > 1 => bail!("--rounds {n}: --schedule one-shot takes one round"),
            (schedule, _) => Ok(schedule.unwrap_or_default()),
        }
    }

    /// Where the model goes; nowhere in a dry run.
    pub(super) fn target(&self) -> Option<Target> {
        let output = self.output.clone().filter(|_| !self.dry_run)?;
        let force = self.force;
        Some(Target { output, force })
    }

    /// The method's name.
    pub(super) fn name(&self) -> &str {
        let default = match self.threshold {
            Some(_) => "threshold",
            None => "magnitude",
        };
        self.method.as_deref().unwrap_or(default)
    }

    /// What is asked, as a step of a recipe; says on standard error what the flags leave open.
    pub(super) fn prune(&self, ui: &Ui) -> Result<Prune> {
        if self.name() == "threshold" && self.threshold.is_none() && self.sparsity.is_none() {
            bail!("--method threshold needs --threshold X");
        }
        let usual = || {
            let own = self.pattern.zeros().and_then(Pattern::share);
            own.unwrap_or_else(|| {
                ui.note("how much was not said: taken as --sparsity 50%");
                0.5
            })
        };
        let sparsity = match self.threshold {
            None => Some(self.sparsity.unwrap_or_else(usual)),
            Some(_) => None,
        };
        let prune = Prune {
            method: Some(self.name().to_owned()),
            pattern: self.pattern,
            sparsity,
            threshold: self.threshold,
            scope: self.scope.map(Scope::from),
            of: self.of.map(Of::from),
            round_to: self.round_to,
            keep: self.keep.clone(),
            include: self.include.clone(),
            samples: self.samples,
            rounds: self.rounds.unwrap_or(1),
            schedule: self.ramp()?,
            recover: self
                .recovery
                .data
                .as_deref()
                .and_then(|d| self.recovery.repairs(d)),
            finetune: self.recovery.data.clone().map(|data| self.recovery.lesson(data)),
            ..Prune::default()
        };
        Ok(Prune {
            // What a method usually takes is written down where it has a say.
            scope: prune.scope.or_else(|| scoped(&prune).then(|| prune.scope())),
            ..prune
        })
    }
}

/// Whether a scope has a say in what is asked.
fn scoped(prune: &Prune) -> bool {
    let narrow = |p: Piece| !p.kinds().is_empty() && prune.of != Some(Of::Ms);
    prune.pattern.piece().is_none_or(narrow)
}

/// What is asked, in words.
pub(super) fn words(prune: &Prune) -> String {
    let method = match prune.pattern {
        Grain::Zeros(Pattern::Unstructured) => prune.method().to_owned(),
        pattern => format!("{}, {pattern}", prune.method()),
    };
    let goal = match prune.aim() {
        Aim::Zeros(goal) => goal,
        Aim::Cuts(trim) => return format!("{method}: {} % of {} go", percent(trim.share), of(prune)),
        _ => return method,
    };
    match (goal.amount, goal.scope) {
        (Amount::Sparsity(x), _) if goal.pattern.share().is_some() => {
            format!("{method}: {} % of each layer", percent(x))
        }
        (Amount::Sparsity(x), Scope::Global) => {
            format!("{method}: {} % of all weights together", percent(x))
        }
        (Amount::Sparsity(x), Scope::Layer) => format!("{method}: {} % of each layer", percent(x)),
        (Amount::Threshold(x), _) => format!("{method}: |x| < {x}"),
    }
}

/// What a share of what is cut away is a share of.
fn of(prune: &Prune) -> String {
    let counted = prune.pattern.piece().map_or("", |p| p.counted());
    let named = |of: Of| {
        serde_json::to_value(of)
            .ok()
            .and_then(|v| Some(v.as_str()?.to_owned()))
    };
    prune.of.and_then(named).unwrap_or_else(|| counted.to_owned())
}

/// What is asked, for `--json` and the file's metadata.
pub(super) fn asked(prune: &Prune) -> Value {
    let scope = match prune.scope() {
        Scope::Global => "global",
        Scope::Layer => "layer",
    };
    let (cuts, amount) = match prune.aim() {
        Aim::Zeros(Goal { amount, .. }) => (None, amount),
        Aim::Cuts(trim) => (Some(trim.round_to), Amount::Sparsity(trim.share)),
        _ => (None, Amount::Sparsity(0.0)),
    };
    let sparsity = match amount {
        Amount::Sparsity(x) => Some(x),
        Amount::Threshold(_) => None,
    };
    let mut asked = json!({
        "method": prune.method(),
        "pattern": prune.pattern.to_string(),
        "sparsity": sparsity,
        "threshold": prune.threshold,
        "scope": (sparsity.is_some() && scoped(prune)).then_some(scope),
        "data": prune.data(),
        "inputs": prune.inputs,
        "samples": prune.samples,
        "keep": prune.keep,
        "include": prune.include,
    });
    if let Some(round_to) = cuts {
        asked["of"] = json!(of(prune));
        let narrow = prune.pattern.piece().is_some_and(|p| !p.kinds().is_empty());
        asked["round_to"] = json!(narrow.then_some(round_to));
    }
    asked
}
