//! `secateur optimize`: an equal model that does less.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use secateur::Model;
use secateur::engine::onnx;
use secateur::engine::opt::{self, CLEANING, PASSES, Pass, PassError, Report, Scope};
use serde_json::{Value, json};

use super::card::{self, Card};
use super::source::InputFlags;
use super::timing::Trial;
use super::ui::Ui;
use super::written::{Receipt, Target};
use super::{Cmd, Outcome};

/// The verb.
pub(super) struct Optimize;

#[derive(Args)]
struct Flags {
    /// The ONNX file
    model: PathBuf,
    #[command(flatten)]
    target: Target,
    /// How far to go
    #[arg(long, value_enum, default_value_t = Level::Extended)]
    level: Level,
    /// Use standard operators only (what is written always does so far)
    #[arg(long)]
    portable: bool,
    /// Write the model in this version of ONNX's operators
    #[arg(long, value_name = "N")]
    opset: Option<i64>,
    /// Write weights as sparse initialisers where that is smaller: from two thirds of zeros on
    #[arg(long)]
    sparse_initializers: bool,
    #[command(flatten)]
    inputs: InputFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Level {
    /// Read and write: the same bytes
    None,
    /// Fold constants; drop what is doubled, unused or does nothing
    Basic,
    /// Also fold BatchNormalization into Conv, and fuse formulas into operators
    Extended,
}

impl Level {
    fn passes(self) -> &'static [&'static dyn Pass] {
        match self {
            Level::None => &[],
            Level::Basic => CLEANING,
            Level::Extended => PASSES,
        }
    }
}

impl Cmd for Optimize {
    fn command(&self) -> Command {
        Flags::augment_args(Command::new("optimize")).about("Writes an equal model that does less")
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        optimize(&Flags::from_arg_matches(flags)?, ui)
    }
}

fn optimize(flags: &Flags, ui: &Ui) -> Result<Outcome> {
    flags.target.check()?;
    let old = card::load(&flags.model)?;
    let trial = Trial::of(&old, &flags.inputs, ui)?;
    let mut before = Card::of(&old, Some(&flags.model), &trial.shapes);
    let mut new = old.clone();
    let report = rewrite(&mut new, flags).with_context(|| flags.model.display().to_string())?;
    let changes = flags.level != Level::None || flags.opset.is_some();
    if changes {
        sign(&mut new, flags, ui, &before, &report);
    }
    if flags.sparse_initializers {
        onnx::sparsify(&mut new);
    }
    flags.target.write(&new)?;
    let mut after = Card::of(&new, Some(&flags.target.output), &trial.shapes);
    if changes {
        [before.ms, after.ms] = trial.race([&old, &new], ui);
    }
    ui.say(&card::table(&[("before", &before), ("after", &after)]).to_string());
    let rules = rules(&report);
    if !report.counts().is_empty() {
        let fired: Vec<_> = report
            .counts()
            .iter()
            .map(|(rule, n)| format!("{rule} ×{n}"))
            .collect();
        ui.say(&format!("\n{}", fired.join(", ")));
    }
    Ok(Outcome::done(json!({
        "model": flags.model.display().to_string(),
        "output": flags.target.output.display().to_string(),
        "before": before.json(),
        "after": after.json(),
        "rules": rules,
    })))
}

/// First the version, as rules keep to the operators that the model's has.
fn rewrite(new: &mut Model, flags: &Flags) -> Result<Report, PassError> {
    let mut report = match flags.opset {
        Some(to) => opt::convert(new, "", to)?,
        None => Report::default(),
    };
    if flags.level != Level::None {
        let done = opt::apply(new, Scope::Portable, flags.level.passes())?;
        report.events.extend(done.events);
    }
    Ok(report)
}

fn sign(new: &mut Model, flags: &Flags, ui: &Ui, before: &Card, report: &Report) {
    let receipt = Receipt {
        verb: "optimize",
        flags: json!({"level": format!("{:?}", flags.level).to_lowercase(), "portable": flags.portable, "opset": flags.opset}),
        seed: ui.common.seed,
        figures: json!({
            "nodes_before": before.nodes,
            "nodes_after": new.graph.order.len(),
            "rules": report.counts(),
        }),
    };
    receipt.sign(new);
}

/// How often each rule fired, and where and why it was refused.
pub(super) fn rules(report: &Report) -> Vec<Value> {
    let mut names: Vec<&str> = report.events.iter().map(|e| e.rule).collect();
    names.sort_unstable();
    names.dedup();
    let one = |name: &&str| {
        let of = || report.events.iter().filter(|e| e.rule == *name);
        let refused = of().filter_map(|e| Some((e, e.refused?)));
        json!({
            "name": name,
            "fired": of().filter(|e| e.refused.is_none()).count(),
            "refused": refused.map(|(e, why)| json!({"node": e.node, "why": why.to_string()})).collect::<Vec<_>>(),
        })
    };
    names.iter().map(one).collect()
}
