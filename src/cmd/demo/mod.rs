//! `secateur demo`: the whole main job on what is built in: measure, prune, write, read back, verify.

mod chart;
mod page;
mod school;
mod trial;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::Model;
use secateur::engine::ir::Bytes;
use secateur::engine::onnx;
use serde_json::{Value, json};

use super::digits::Digits;
use super::table::{Table, thousands};
use super::ui::Ui;
use super::written::{self, Receipt};
use super::{Cmd, Outcome};
use trial::Trial;

/// The verb.
pub(super) struct Demo;

#[derive(Args)]
struct Flags {
    /// The folder to write to, made if it is not there
    #[arg(long, short, value_name = "DIR", default_value = "secateur-demo")]
    output: PathBuf,
    /// Replace files that the demo did not write
    #[arg(long)]
    force: bool,
}

impl Cmd for Demo {
    fn command(&self) -> Command {
        Flags::augment_args(
            Command::new("demo")
                .about("Trains, prunes and trains on a model of digits, with nothing else needed"),
        )
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        demo(&Flags::from_arg_matches(flags)?, ui)
    }
}

/// The shares of zeros to prune to, in percent. The first is the model as it is.
const SHARES: [u32; 6] = [0, 50, 70, 80, 90, 95];

/// The shares to which the model is pruned and trained on, in percent.
const TUNED: [u32; 2] = [90, 95];

/// One row of the demo.
struct Step {
    share: u32,
    /// Whether it was trained on after it was pruned.
    tuned: bool,
    file: PathBuf,
    trial: Trial,
    file_bytes: usize,
    zipped_bytes: usize,
    /// Whether the model read back from the file gives the same outputs, bit for bit.
    verified: bool,
    ms: f64,
}

fn demo(flags: &Flags, ui: &Ui) -> Result<Outcome> {
    let start = Instant::now();
    std::fs::create_dir_all(&flags.output).with_context(|| flags.output.display().to_string())?;
    let page = flags.output.join("report.html");
    let steps = SHARES.map(|share| (share, false)).into_iter();
    let all: Vec<_> = steps.chain(TUNED.map(|share| (share, true))).collect();
    let files = all.iter().map(|&s| file(s, flags)).chain([page.clone()]);
    // What could not be written in the end is said before anything is trained.
    files
        .into_iter()
        .try_for_each(|f| written::check(&f, flags.force || ours(&f)))?;
    let digits = Digits::test()?;
    let dense = school::trained(&school::untrained(ui.common.seed)?, school::EPOCHS, ui)?;
    let mut steps = vec![];
    for (share, tuned) in all {
        let mut model = trial::pruned(&dense, share)?;
        if tuned {
            model = school::trained(&model, school::TUNING, ui)?;
        }
        steps.push(step(model, (share, tuned), &digits, flags, ui)?);
    }
    let times = trial::race(steps.iter_mut().map(|s| &mut s.trial), &digits)?;
    steps.iter_mut().zip(times).for_each(|(step, ms)| step.ms = ms);
    let html = page::page(&steps, ui.threads());
    replace(&page, html.as_bytes(), flags.force)?;
    let seconds = start.elapsed().as_secs_f64();
    ui.say(&text(&steps, &page, ui.threads()));
    let pass = steps.iter().all(|s| s.verified);
    Ok(Outcome {
        json: json!({
            "model": "conv4 for digits, trained here",
            "threads": ui.threads(),
            "images": digits.labels.len(),
            "steps": steps.iter().map(Step::json).collect::<Vec<_>>(),
            "report": page.display().to_string(),
            "seconds": seconds,
            "pass": pass,
        }),
        pass,
    })
}

/// Where a model goes.
fn file((share, tuned): (u32, bool), flags: &Flags) -> PathBuf {
    let more = if tuned { "-tuned" } else { "" };
    flags.output.join(format!("digits-{share}{more}.onnx"))
}

/// Tries a model, writes it, reads it back and tries that.
fn step(
    mut model: Model,
    (share, tuned): (u32, bool),
    digits: &Digits,
    flags: &Flags,
    ui: &Ui,
) -> Result<Step> {
    let mut trial = Trial::new(&model, digits, ui.threads())?;
    sign(&mut model, (share, tuned), &trial, ui);
    let file = file((share, tuned), flags);
    let bytes = onnx::to_bytes(&model);
    replace(&file, &bytes, flags.force)?;
    let read = Model::load(&file)?;
    let again = Trial::new(&read, digits, ui.threads())?;
    let verified = trial.outputs == again.outputs;
    trial.session = again.session;
    Ok(Step {
        share,
        tuned,
        file,
        trial,
        file_bytes: bytes.len(),
        zipped_bytes: trial::zipped(&bytes)?,
        verified,
        ms: 0.0,
    })
}

fn sign(model: &mut Model, (share, tuned): (u32, bool), trial: &Trial, ui: &Ui) {
    let receipt = Receipt {
        verb: "demo",
        flags: json!({
            "epochs": school::EPOCHS,
            "method": "magnitude",
            "sparsity": f64::from(share) / 100.0,
            "scope": "global",
            "finetune": if tuned { school::TUNING } else { 0 },
        }),
        seed: ui.common.seed,
        figures: json!({"zeros": trial.zeros.zeros, "accuracy": trial.accuracy()}),
    };
    receipt.sign(model);
}

/// Writes a file, over another one only if the demo wrote it.
fn replace(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
    written::replace(path, force || ours(path), |out| {
        Ok(std::io::Write::write_all(out, bytes)?)
    })
}

/// Whether the demo wrote the file.
fn ours(path: &Path) -> bool {
    let Ok(old) = std::fs::read(path) else {
        return false;
    };
    if old.starts_with(page::HEAD.as_bytes()) {
        return true;
    }
    let model = onnx::parse(Bytes::new(old), None);
    model.is_ok_and(|m| {
        let all = onnx::metadata(&m);
        all.iter()
            .any(|(k, v)| k == "secateur.1" && v.contains(r#""verb":"demo""#))
    })
}

impl Step {
    fn name(&self) -> String {
        match (self.share, self.tuned) {
            (0, _) => "dense".into(),
            (share, false) => format!("pruned {share} %"),
            (share, true) => format!("{share} %, tuned"),
        }
    }

    fn json(&self) -> Value {
        let zeros = &self.trial.zeros;
        json!({
            "name": self.name(),
            "tuned": self.tuned,
            "sparsity": f64::from(self.share) / 100.0,
            "file": self.file.display().to_string(),
            "weights": zeros.weights,
            "zeros": zeros.zeros,
            "zeros_percent": 100.0 * zeros.share(),
            "right": self.trial.right,
            "accuracy": self.trial.accuracy(),
            "file_bytes": self.file_bytes,
            "zipped_bytes": self.zipped_bytes,
            "ms": self.ms,
            "verified": self.verified,
        })
    }

    /// The row of the tables, as text.
    fn cells(&self) -> [String; 8] {
        let kb = |bytes: usize| format!("{:.1}", bytes as f64 / 1e3);
        [
            self.name(),
            thousands(self.trial.zeros.zeros),
            format!("{:.2}", 100.0 * self.trial.zeros.share()),
            format!("{:.2}", 100.0 * self.trial.accuracy()),
            kb(self.file_bytes),
            kb(self.zipped_bytes),
            format!("{:.3}", self.ms),
            if self.verified {
                "same bits".into()
            } else {
                "DIFFERS".into()
            },
        ]
    }
}

/// The heads of [`Step::cells`].
const HEADS: [&str; 8] = [
    "model",
    "zeros",
    "zeros %",
    "accuracy %",
    "file kB",
    "zipped kB",
    "ms",
    "read back",
];

fn text(steps: &[Step], page: &Path, threads: usize) -> String {
    let mut table = Table::new(&HEADS);
    steps.iter().for_each(|s| table.row(s.cells()));
    let weights = thousands(steps[0].trial.zeros.weights);
    let about = format!(
        "A digits CNN of {weights} weights on {} test images; ms is one batch of all of them on {threads} threads.",
        steps[0].trial.images
    );
    let file = steps.iter().find(|s| s.tuned).map_or(page, |s| &s.file).display();
    format!(
        "{about}\n\n{table}\n\nReport: {}\n\nNext:\n  \
         secateur inspect {file}\n  \
         secateur verify {} {file} --data digits --max-drop 5\n  \
         secateur bench {file} -b 64\n  \
         secateur prune your-model.onnx pruned.onnx --sparsity 0.8\n  \
         secateur finetune pruned.onnx tuned.onnx --data your-images/",
        page.display(),
        steps[0].file.display()
    )
}
