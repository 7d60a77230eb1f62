//! `secateur new`: an architecture with random weights.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::models::{ARCHS, Arch, Kind, Random, Setting, Settings, Value as Set, arch};
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
    /// Set something of the architecture
    #[arg(long, value_name = "KEY=V", value_parser = setting)]
    set: Vec<(String, String)>,
}

pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=V")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Cmd for New {
    fn command(&self) -> Command {
        Flags::augment_args(Command::new("new")).about("Writes an architecture with random weights")
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

fn write(arch: &dyn Arch, set: &[(String, String)], target: &Target, ui: &Ui) -> Result<Outcome> {
    target.check()?;
    let set = Settings::of(arch, set).context(arch.name())?;
    let mut model = arch
        .write(&set, Random::new(ui.common.seed))
        .context(arch.name())?;
    let inputs = wanted(&model);
    let mut free = shapes::Sizes::of(&inputs, &ui.common.sizes)?;
    let dims = free.shapes(&inputs);
    free.note(ui);
    let bound: Vec<_> = inputs.into_iter().zip(dims).collect();
    let settings: Map<String, Value> = set.iter().map(|(k, v)| (k.to_owned(), value(v))).collect();
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
        for s in arch.settings() {
            let words = match s.kind {
                Kind::Word(words) => format!(" ({})", words.join(", ")),
                _ => String::new(),
            };
            table.row([
                String::new(),
                format!("--set {}={}: {}{words}", s.name, s.kind.default(), s.about),
            ]);
        }
    }
    ui.say(&table.to_string());
    let one = |a: &&dyn Arch| {
        let settings: Vec<Value> = a.settings().iter().map(described).collect();
        json!({"name": a.name(), "about": a.about(), "settings": settings})
    };
    Outcome::done(json!({ "archs": ARCHS.iter().map(one).collect::<Vec<_>>() }))
}

fn value(set: Set) -> Value {
    match set {
        Set::Number(n) => json!(n),
        Set::Share(x) => json!(x),
        Set::Word(word) => json!(word),
    }
}

fn described(s: &Setting) -> Value {
    let mut all = json!({"name": s.name, "about": s.about, "default": value(s.kind.default())});
    match &s.kind {
        Kind::Number { range, .. } => {
            all["least"] = json!(range.start());
            all["most"] = json!(range.end());
        }
        Kind::Share => all["least"] = json!(0),
        Kind::Word(words) => all["choices"] = json!(words),
    }
    all
}
