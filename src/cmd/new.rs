//! `secateur new`: an architecture with random weights.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::models::{ARCHS, Arch, Random, Sizes, arch};
use serde_json::{Map, Value, json};

use super::card::{self, Card};
use super::shapes::{self, wanted};
use super::table::Table;
use super::ui::Ui;
use super::written::{Receipt, Target};
use super::{Cmd, Outcome};

/// The verb.
pub(super) struct New;

#[derive(Args)]
struct Flags {
    /// The architecture; --list shows all
    #[arg(required_unless_present = "list")]
    arch: Option<String>,
    /// The ONNX file to write
    #[arg(required_unless_present = "list")]
    output: Option<PathBuf>,
    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
    /// Show all architectures and what may be set
    #[arg(long, conflicts_with_all = ["arch", "output"])]
    list: bool,
    /// Set a number of the architecture
    #[arg(long, value_name = "KEY=V", value_parser = setting)]
    set: Vec<(String, usize)>,
}

pub(super) fn setting(text: &str) -> Result<(String, usize), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=V")?;
    let value = value
        .parse()
        .map_err(|_| format!("{value:?} is no whole number"))?;
    Ok((key.to_owned(), value))
}

impl Cmd for New {
    fn command(&self) -> Command {
        Flags::augment_args(Command::new("new").about("Writes an architecture with random weights"))
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        let flags = Flags::from_arg_matches(flags)?;
        match (&flags.arch, &flags.output) {
            (Some(name), Some(output)) => {
                let target = Target {
                    output: output.clone(),
                    force: flags.force,
                };
                write(arch(name)?, &flags.set, &target, ui)
            }
            _ => Ok(list(ui)),
        }
    }
}

fn write(arch: &dyn Arch, set: &[(String, usize)], target: &Target, ui: &Ui) -> Result<Outcome> {
    target.check()?;
    let sizes = Sizes::of(arch, set).context(arch.name())?;
    let mut model = arch
        .write(&sizes, Random::new(ui.common.seed))
        .context(arch.name())?;
    let inputs = wanted(&model);
    let mut free = shapes::Sizes::of(&inputs, &ui.common.sizes)?;
    let dims = free.shapes(&inputs);
    free.note(ui);
    let bound: Vec<_> = inputs.into_iter().zip(dims).collect();
    let settings: Map<String, Value> = sizes.iter().map(|(k, v)| (k.to_owned(), json!(v))).collect();
    let figures = Card::of(&model, None, &bound);
    let receipt = Receipt {
        verb: "new",
        flags: json!({"arch": arch.name(), "set": settings}),
        seed: ui.common.seed,
        figures: json!({"parameters": figures.parameters, "macs": figures.macs}),
    };
    receipt.sign(&mut model);
    target.write(&model)?;
    let card = Card::of(&model, Some(&target.output), &bound);
    ui.say(&card::table(&[(arch.name(), &card)]).to_string());
    Ok(Outcome::done(json!({
        "model": target.output.display().to_string(),
        "arch": arch.name(),
        "settings": settings,
        "seed": ui.common.seed,
        "nodes": card.nodes,
        "parameters": card.parameters,
        "macs": card.macs,
        "file_mb": card.file_mb(),
    })))
}

fn list(ui: &Ui) -> Outcome {
    let mut table = Table::new(&["architecture", "is"]);
    for arch in ARCHS {
        table.row([arch.name(), arch.about()]);
        for s in arch.sizes() {
            table.row([
                String::new(),
                format!("--set {}={}: {}", s.name, s.default, s.about),
            ]);
        }
    }
    ui.say(&table.to_string());
    let one = |a: &&dyn Arch| {
        let setting = |s: &secateur::models::Size| json!({"name": s.name, "about": s.about, "default": s.default, "least": s.range.start(), "most": s.range.end()});
        let settings: Vec<Value> = a.sizes().iter().map(setting).collect();
        json!({"name": a.name(), "about": a.about(), "settings": settings})
    };
    Outcome::done(json!({ "archs": ARCHS.iter().map(one).collect::<Vec<_>>() }))
}
