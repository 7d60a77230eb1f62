//! `secateur sweep`: how much faster zeros make a model, by pattern and sparsity.

mod chart;
mod flags;
mod layer;
mod layers;
mod models;
mod rows;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::Model;
use secateur::compress::{Choice, Effort, Goal};
use serde_json::{Value, json};

use super::bars::Bars;
use super::pruning::{self, Zeros};
use super::ui::Ui;
use super::written::{self, Scratch};
use super::{Cmd, Outcome};
use crate::rates;
use flags::Flags;
use rows::{Line, Row};

/// The verb.
pub(super) struct Sweep;

impl Cmd for Sweep {
    fn command(&self) -> Command {
        let about = "Measures how much faster zeros make a model or a layer, by pattern and sparsity";
        Flags::augment_args(Command::new("sweep")).about(about)
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        let flags = Flags::from_arg_matches(flags)?;
        match (&flags.rivals.worker, &flags.file) {
            // One cache is of one model.
            (Some(engine), Some(file)) => flags.rivals.work(engine, file, ui, &ui.uncached()),
            _ => sweep(&flags, ui),
        }
    }
}

/// What is swept.
struct Sweeping<'a> {
    flags: &'a Flags,
    name: String,
    /// As it comes.
    dense: Model,
    choice: Choice,
    /// Where files lie meanwhile.
    scratch: Scratch,
    time: Duration,
    ui: &'a Ui,
}

impl Sweeping<'_> {
    /// The model pruned to `goal`, and the share of its weights that is zero.
    fn pruned(&self, goal: Goal) -> Result<(Model, f64)> {
        let bars = Bars::new(self.ui);
        let effort = Effort {
            threads: self.ui.threads(),
            watch: &bars,
        };
        let model = pruning::pruned(&self.dense, &self.choice, goal, &effort).context(self.name.clone())?;
        let zeros = Zeros::of(&model, &self.choice)?.share();
        Ok((model, zeros))
    }
}

fn sweep(flags: &Flags, ui: &Ui) -> Result<Outcome> {
    for file in [&flags.csv, &flags.svg].into_iter().flatten() {
        written::check(file, flags.force)?;
    }
    let (name, dense) = flags.model(ui.common.seed)?;
    let sweeping = Sweeping {
        flags,
        name,
        dense,
        choice: flags.choice(),
        scratch: Scratch::new("sweep")?,
        time: flags.time()?,
        ui,
    };
    let (what, rows) = match flags.layers {
        true => ("layer", layers::measure(&sweeping)?),
        false => ("model", models::measure(&sweeping)?),
    };
    let lines = rows::lines(&rows);
    ui.say(&rows::table(&rows, what).to_string());
    if !flags.layers {
        let words: Vec<String> = lines.iter().map(Line::words).collect();
        ui.say(&format!("\n{}", words.join("\n")));
    }
    let csv = |path: &Path| save(path, flags.force, &rows::csv(&rows, what));
    flags.csv.as_deref().map_or(Ok(()), csv)?;
    let caption = caption(&sweeping);
    let svg = |path: &Path| save(path, flags.force, &chart::chart(&sweeping.name, &caption, &lines));
    flags.svg.as_deref().map_or(Ok(()), svg)?;
    Ok(Outcome::done(report(&sweeping, what, &rows, &lines)))
}

fn save(path: &Path, force: bool, text: &str) -> Result<()> {
    written::replace(path, force, |out| Ok(out.write_all(text.as_bytes())?))
}

/// What the figures hold for.
fn caption(s: &Sweeping) -> String {
    let (threads, batch) = (s.ui.threads(), s.flags.rivals.batch.unwrap_or(1));
    let plural = if threads == 1 { "" } else { "s" };
    format!(
        "{threads} thread{plural}, batch {batch}, f32, {}",
        rates::cpu_name()
    )
}

fn report(s: &Sweeping, what: &str, rows: &[Row], lines: &[Line]) -> Value {
    let path = |p: &Option<std::path::PathBuf>| p.as_ref().map(|p| p.display().to_string());
    json!({
        "model": s.name,
        "threads": s.ui.threads(),
        "batch": s.flags.rivals.batch,
        "cpu": rates::cpu_name(),
        "seed": s.ui.common.seed,
        "scope": s.flags.scope_name(),
        "keep": s.flags.keep,
        "rows": rows.iter().map(|r| r.json(what)).collect::<Vec<_>>(),
        "lines": lines.iter().map(|l| l.json(what)).collect::<Vec<_>>(),
        "csv": path(&s.flags.csv),
        "svg": path(&s.flags.svg),
    })
}
