//! `secateur run`: one inference.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use secateur::engine::ir::Datum;
use secateur::engine::run::StepTime;
use secateur::{Outputs, Session, Tensor};
use serde_json::{Value, json};

use super::shapes::wanted;
use secateur::train::data::{npy, npz};

use super::source::{Feeder, InputFlags};
use super::table::Table;
use super::ui::Ui;
use super::{Cmd, Outcome, card, written};

/// The verb.
pub(super) struct Run;

#[derive(Args)]
struct Flags {
    /// The ONNX file
    model: PathBuf,
    #[command(flatten)]
    inputs: InputFlags,
    /// Write the outputs to this .npz, or a single one to this .npy
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
    /// Show the time each operator or each node takes
    #[arg(long, value_enum)]
    profile: Option<Grouping>,
    /// Make these values outputs too
    #[arg(long, value_name = "NAME", num_args = 1..)]
    dump: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Grouping {
    /// One row for each operator
    Op,
    /// One row for each node
    Layer,
}

impl Cmd for Run {
    fn command(&self) -> Command {
        Flags::augment_args(Command::new("run")).about("Runs a model once")
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        run(&Flags::from_arg_matches(flags)?, ui)
    }
}

fn run(flags: &Flags, ui: &Ui) -> Result<Outcome> {
    let model = card::load(&flags.model)?;
    if let Some(path) = &flags.output {
        check(path, flags.force, model.graph.outputs.len() + flags.dump.len())?;
    }
    let feeder = Feeder::new(&wanted(&model), &flags.inputs, ui)?;
    let builder = ui.session(&model);
    let builder = flags.dump.iter().fold(builder, |b, name| b.tap(name));
    let place = || flags.model.display().to_string();
    let session = builder.build().with_context(place)?;
    let inputs = feeder.make(ui.common.seed)?;
    let feeds = || inputs.iter().map(|(n, t)| (n, t));
    // The plan is made, and memory mapped, before the clock runs.
    session.prepare(feeds()).with_context(place)?;
    ui.noted(&session);
    let start = Instant::now();
    let outputs = session.run(feeds()).with_context(place)?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let profile = flags
        .profile
        .map(|by| profile(&session, &inputs, by))
        .transpose()?;
    ui.say(&format!(
        "{}\n{ms:.3} ms on {} threads",
        outputs_table(&outputs),
        session.threads()
    ));
    if let Some(rows) = &profile {
        ui.say(&format!("\n{}", profile_table(rows)));
    }
    if let Some(path) = &flags.output {
        write(path, flags.force, &outputs)?;
    }
    let named = outputs.names.iter().zip(&outputs.values);
    let described: Vec<Value> = named.map(|(n, v)| describe(n, v)).collect();
    Ok(Outcome::done(json!({
        "model": place(),
        "threads": session.threads(),
        "ms": ms,
        "outputs": described,
        "profile": profile.iter().flatten().map(Row::json).collect::<Vec<_>>(),
    })))
}

/// What a glance at the elements tells.
struct Glance {
    min: f64,
    max: f64,
    mean: f64,
    zeros: usize,
    nans: usize,
    first: Vec<f64>,
}

fn glance(t: &Tensor) -> Option<Glance> {
    let x = t.floats()?;
    let real = || x.iter().copied().filter(|x| !x.is_nan());
    let count = real().count();
    Some(Glance {
        min: real().fold(f64::INFINITY, f64::min),
        max: real().fold(f64::NEG_INFINITY, f64::max),
        mean: real().sum::<f64>() / count as f64,
        zeros: t.zeros_count(),
        nans: x.len() - count,
        first: x.iter().take(8).copied().collect(),
    })
}

fn describe(name: &str, value: &Datum) -> Value {
    let Datum::Tensor(t) = value else {
        return json!({"name": name, "type": value.ty().to_string()});
    };
    let mut json = json!({"name": name, "type": t.dtype().to_string(), "shape": t.dims()});
    if let Some(g) = glance(t) {
        for (key, x) in [("min", g.min), ("max", g.max), ("mean", g.mean)] {
            json[key] = json!(x);
        }
        json["zeros"] = json!(g.zeros);
        json["nans"] = json!(g.nans);
        json["first"] = json!(g.first);
    }
    json
}

fn outputs_table(outputs: &Outputs) -> Table {
    let mut table = Table::new(&[
        "output", "type", "shape", "min", "max", "mean", "zeros", "NaN", "first",
    ]);
    for (name, value) in outputs.names.iter().zip(&outputs.values) {
        let Datum::Tensor(t) = value else {
            table.row(vec![name.to_string(), value.ty().to_string()]);
            continue;
        };
        let mut row = vec![name.to_string(), t.dtype().to_string(), format!("{:?}", t.dims())];
        if let Some(g) = glance(t) {
            row.extend([g.min, g.max, g.mean].map(short));
            row.extend([g.zeros, g.nans].map(|n| n.to_string()));
            let first: Vec<_> = g.first.iter().take(4).map(|x| short(*x)).collect();
            row.push(first.join(" "));
        }
        table.row(row);
    }
    table
}

/// A number in about six characters.
fn short(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        a if x.fract() == 0.0 && a < 1e9 => format!("{x}"),
        a if (1e-3..1e6).contains(&a) => format!("{x:.5}"),
        _ => format!("{x:.3e}"),
    }
}

/// One row of a profile.
struct Row {
    name: String,
    op: String,
    kernel: String,
    nodes: usize,
    ms: f64,
    percent: f64,
}

impl Row {
    fn json(&self) -> Value {
        json!({"name": self.name, "op": self.op, "kernel": self.kernel, "nodes": self.nodes, "ms": self.ms, "percent": self.percent})
    }
}

const PROFILE_TIME: Duration = Duration::from_millis(500);
const PROFILE_RUNS: usize = 50;

/// Mean times of several runs, longest first.
fn profile(session: &Session, inputs: &[(String, Tensor)], by: Grouping) -> Result<Vec<Row>> {
    let start = Instant::now();
    let mut all: Vec<Vec<StepTime>> = vec![];
    while all.is_empty() || (all.len() < PROFILE_RUNS && start.elapsed() < PROFILE_TIME) {
        all.push(session.profile(inputs.iter().map(|(n, t)| (n, t)))?.1);
    }
    let mut rows: Vec<Row> = vec![];
    for i in 0..all[0].len() {
        let ms = all.iter().map(|run| run[i].ms).sum::<f64>() / all.len() as f64;
        let step = &all[0][i];
        let same = rows
            .iter_mut()
            .find(|r| by == Grouping::Op && r.op == step.op && r.kernel == step.kernel);
        match same {
            Some(row) => {
                row.nodes += 1;
                row.ms += ms;
            }
            None => rows.push(Row {
                name: if by == Grouping::Op {
                    step.op.clone()
                } else {
                    step.node.clone()
                },
                op: step.op.clone(),
                kernel: step.kernel.clone(),
                nodes: 1,
                ms,
                percent: 0.0,
            }),
        }
    }
    let total: f64 = rows.iter().map(|r| r.ms).sum();
    rows.iter_mut().for_each(|r| r.percent = 100.0 * r.ms / total);
    rows.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    Ok(rows)
}

fn profile_table(rows: &[Row]) -> Table {
    let mut table = Table::new(&["name", "operator", "kernel", "nodes", "ms", "%"]);
    for r in rows {
        let (ms, percent) = (format!("{:.4}", r.ms), format!("{:.1}", r.percent));
        table.row([
            r.name.clone(),
            r.op.clone(),
            r.kernel.clone(),
            r.nodes.to_string(),
            ms,
            percent,
        ]);
    }
    let total: f64 = rows.iter().map(|r| r.ms).sum();
    table.row([
        "all".into(),
        String::new(),
        String::new(),
        String::new(),
        format!("{total:.4}"),
        "100.0".into(),
    ]);
    table
}

/// Refuses early what [`write`] would refuse.
fn check(path: &Path, force: bool, outputs: usize) -> Result<()> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("npz") => {}
        Some("npy") if outputs == 1 => {}
        Some("npy") => bail!(
            "{}: a .npy file holds one array, and there are {outputs}: use .npz",
            path.display()
        ),
        _ => bail!("{}: expected a name that ends in .npz or .npy", path.display()),
    }
    written::check(path, force)
}

fn write(path: &Path, force: bool, outputs: &Outputs) -> Result<()> {
    let named: Vec<_> = outputs.tensors().collect();
    if named.len() < outputs.names.len() {
        bail!(
            "{}: only tensors can be written, and other outputs are not",
            path.display()
        );
    }
    written::replace(path, force, |out| match &named[..] {
        [(_, only)] if path.extension().is_some_and(|e| e == "npy") => Ok(out.write_all(&npy::write(only)?)?),
        _ => Ok(npz::write(out, named.iter().copied())?),
    })
}
