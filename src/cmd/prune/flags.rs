//! What `secateur prune` is asked for.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use secateur::compress::{Amount, Choice, Goal, METHODS, Scope};
use serde_json::{Value, json};

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
    #[arg(long, value_parser = PossibleValuesParser::new(METHODS.iter().map(|m| m.name())))]
    method: Option<String>,
    /// Which weights are zero together
    #[arg(long, default_value = BUILT[0], value_parser = pattern)]
    pattern: String,
    /// The share of weights that is zero afterwards: 0.8, 80% or 80; above 1 it is percent [default: 50%]
    #[arg(long, value_name = "X", value_parser = share, conflicts_with = "threshold")]
    sparsity: Option<f64>,
    /// Weights of at most this magnitude become zero
    #[arg(long, value_name = "X")]
    threshold: Option<f64>,
    /// What --sparsity is a share of [default: global]
    #[arg(long, value_enum, conflicts_with = "threshold")]
    scope: Option<ScopeFlag>,
    /// Leave these alone: names of weights or of nodes that read them; `*` is any text, `?` any character
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    keep: Vec<String>,
    /// Prune these too though they would be left alone, such as embeddings
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    include: Vec<String>,
    /// Write weights as sparse initialisers where that is smaller: from two thirds of zeros on
    #[arg(long)]
    pub(super) sparse_initializers: bool,
    #[command(flatten)]
    pub(super) inputs: InputFlags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScopeFlag {
    /// All weights together
    Global,
    /// Each layer by itself
    Layer,
}

const BUILT: &[&str] = &["unstructured"];
const PLANNED: &[&str] = &["2:4", "block4x1", "channel", "head"];

fn pattern(text: &str) -> Result<String, String> {
    let why = match text {
        _ if BUILT.contains(&text) => return Ok(text.to_owned()),
        _ if PLANNED.contains(&text) => "not built yet",
        _ => "unknown",
    };
    Err(format!("this pattern is {why}; there is: {}", BUILT.join(", ")))
}

/// A share as people write it.
fn share(text: &str) -> Result<f64, String> {
    let (digits, percent) = match text.trim().strip_suffix('%') {
        Some(digits) => (digits.trim_end(), true),
        None => (text.trim(), false),
    };
    let x: f64 = digits
        .parse()
        .map_err(|_| format!("{digits:?} is not a number"))?;
    let share = if percent || x > 1.0 { x / 100.0 } else { x };
    match (0.0..=1.0).contains(&share) {
        true => Ok(share),
        false => Err("expected a share: 0 to 1, or 0% to 100%".into()),
    }
}

/// A share in percent, without the noise of binary fractions.
fn percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}

impl Flags {
    /// Where the model goes; nowhere in a dry run.
    pub(super) fn target(&self) -> Option<Target> {
        let output = self.output.clone().filter(|_| !self.dry_run)?;
        let force = self.force;
        Some(Target { output, force })
    }

    /// The method's name.
    pub(super) fn method(&self) -> &str {
        let default = match self.threshold {
            Some(_) => "threshold",
            None => "magnitude",
        };
        self.method.as_deref().unwrap_or(default)
    }

    /// What is to be reached; says on standard error what the flags leave open.
    pub(super) fn goal(&self, ui: &Ui) -> Result<Goal> {
        let amount = match (self.method(), self.sparsity, self.threshold) {
            (_, Some(share), _) => Amount::Sparsity(share),
            (_, _, Some(x)) => Amount::Threshold(x),
            ("threshold", ..) => bail!("--method threshold needs --threshold X"),
            _ => {
                ui.note("how much was not said: taken as --sparsity 50%");
                Amount::Sparsity(0.5)
            }
        };
        let scope = match self.scope {
            Some(ScopeFlag::Layer) => Scope::Layer,
            _ => Scope::Global,
        };
        Ok(Goal { amount, scope })
    }

    /// Which weights to prune.
    pub(super) fn choice(&self) -> Choice {
        Choice {
            keep: self.keep.clone(),
            include: self.include.clone(),
        }
    }

    /// What is asked, in words.
    pub(super) fn words(&self, goal: &Goal) -> String {
        let method = self.method();
        match (goal.amount, goal.scope) {
            (Amount::Sparsity(x), Scope::Global) => {
                format!("{method}: {} % of all weights together", percent(x))
            }
            (Amount::Sparsity(x), Scope::Layer) => format!("{method}: {} % of each layer", percent(x)),
            (Amount::Threshold(x), _) => format!("{method}: |x| ≤ {x}"),
        }
    }

    /// What is asked, for `--json` and the file's metadata.
    pub(super) fn json(&self, goal: &Goal) -> Value {
        let (sparsity, threshold) = match goal.amount {
            Amount::Sparsity(x) => (Some(x), None),
            Amount::Threshold(x) => (None, Some(x)),
        };
        let scope = match goal.scope {
            Scope::Global => "global",
            Scope::Layer => "layer",
        };
        json!({
            "method": self.method(),
            "pattern": self.pattern,
            "sparsity": sparsity,
            "threshold": threshold,
            "scope": sparsity.map(|_| scope),
            "keep": self.keep,
            "include": self.include,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_people_mean_them() {
        let read = ["0", "0.8", "80%", "80", " 80 % ", "1", "1%", "100", "0.5%"].map(|s| share(s).ok());
        let meant = [0.0, 0.8, 0.8, 0.8, 0.8, 1.0, 0.01, 1.0, 0.005].map(Some);
        assert_eq!(read, meant);
        assert!(
            ["-0.1", "101", "nan", "inf", "", "%", "a", "200%"]
                .iter()
                .all(|s| share(s).is_err())
        );
        assert_eq!([0.8, 0.001, 1.0 / 3.0].map(percent), [80.0, 0.1, 33.333333]);
    }

    #[test]
    fn patterns_that_are_not_built_are_refused() {
        assert!(
            pattern("2:4")
                .unwrap_err()
                .contains("not built yet; there is: unstructured")
        );
        assert!(pattern("3:4").unwrap_err().contains("unknown"));
    }
}
