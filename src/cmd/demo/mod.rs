//! `secateur demo`: the whole main job on what is built in: train, measure, compress, write, read back, verify, report.

mod school;
mod step;
mod trial;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde_json::json;

use super::compress::Compress;
use super::digits::Digits;
use super::table::{Table, thousands};
use super::ui::Ui;
use super::written;
use super::{Cmd, Outcome};
use step::{Done, Step};

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
        Flags::augment_args(Command::new("demo"))
            .about("Trains a model of digits and compresses it within a budget, with nothing else needed")
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        demo(&Flags::from_arg_matches(flags)?, ui)
    }
}

/// The shares of zeros to prune to, in percent, with no training after that. The first is the model as it is.
const SHARES: [u32; 6] = [0, 50, 70, 80, 90, 95];

/// By how many points accuracy may fall.
const MAX_DROP: &str = "1";
/// How much faster it is to be.
const TARGET: &str = "1.5x";

fn demo(flags: &Flags, ui: &Ui) -> Result<Outcome> {
    let start = Instant::now();
    std::fs::create_dir_all(&flags.output).with_context(|| flags.output.display().to_string())?;
    let page = flags.output.join("report.html");
    let all = SHARES.map(Done::Pruned).into_iter().chain([Done::Compressed]);
    let files = all.map(|d| d.file(&flags.output)).chain([page.clone()]);
    // What could not be written in the end is said before anything is trained.
    files
        .into_iter()
        .try_for_each(|f| written::check(&f, flags.force || step::ours(&f)))?;
    let digits = Digits::test()?;
    let dense = school::trained(&school::untrained(ui.common.seed)?, ui)?;
    let step = |share| Step::new(trial::pruned(&dense, share)?, share, &digits, flags, ui);
    let mut steps: Vec<Step> = SHARES.into_iter().map(step).collect::<Result<_>>()?;
    // What an earlier run found is not taken for what this one finds.
    for old in [&page, &Done::Compressed.file(&flags.output)] {
        if step::ours(old) {
            std::fs::remove_file(old).with_context(|| old.display().to_string())?;
        }
    }
    let compressed = compress(&steps[0], &page, flags, ui)?;
    let page = Some(page.as_path()).filter(|_| !compressed.json["report"].is_null());
    // Nothing is written that breaks the budget.
    if !compressed.json["output"].is_null() {
        steps.push(Step::read(Done::Compressed, &digits, flags, ui)?);
    }
    let times = trial::race(steps.iter().map(|s| &s.trial), &digits)?;
    steps.iter_mut().zip(times).for_each(|(step, ms)| step.ms = ms);
    ui.say(&text(&steps, page, ui.threads()));
    let pass = steps.len() > SHARES.len();
    let json = json!({
        "model": "conv4 for digits, trained here",
        "threads": ui.threads(),
        "images": digits.labels.len(),
        "steps": steps.iter().map(Step::json).collect::<Vec<_>>(),
        "compress": compressed.json,
        "report": page.map(|p| p.display().to_string()),
        "seconds": start.elapsed().as_secs_f64(),
        "pass": pass,
    });
    Ok(Outcome { json, pass })
}

/// The command that compresses `dense`, and what it does.
fn compress(dense: &Step, page: &Path, flags: &Flags, ui: &Ui) -> Result<Outcome> {
    let output = Done::Compressed.file(&flags.output);
    let (judges, path) = (school::JUDGES.to_string(), |p: &Path| p.display().to_string());
    let files = [&dense.file, &output, page].map(path);
    let command = [
        "compress",
        &files[0],
        &files[1],
        "--data",
        "digits",
        "--max-drop",
        MAX_DROP,
        "--target",
        TARGET,
        "--pattern",
        "structured+unstructured",
        "--validation",
        &judges,
        "--augment",
        school::AUGMENT,
        "--finetune",
        "25",
        "--lr",
        "2e-3",
        "--report",
        &files[2],
    ];
    ui.say(&format!("$ secateur {}", command.join(" ")));
    // Whose files they are was looked at before.
    let all = [&["secateur"], &command[..], &["--force"]].concat();
    let parsed = super::command().try_get_matches_from(all)?;
    let (_, flags) = parsed.subcommand().context("no verb")?;
    Compress.run(flags, ui)
}

fn text(steps: &[Step], page: Option<&Path>, threads: usize) -> String {
    let mut table = Table::new(&step::HEADS);
    steps.iter().for_each(|s| table.row(s.cells()));
    let (dense, last) = (&steps[0], &steps[steps.len() - 1]);
    let weights = thousands(dense.trial.zeros.weights);
    let about = format!(
        "A digits CNN of {weights} weights on {} test images; ms is one image on {threads} threads.",
        dense.trial.images
    );
    let told = match page {
        Some(page) => format!("Report: {}", page.display()),
        None => "Nothing held within the budget, so there is no compressed model and no report.".to_owned(),
    };
    let (file, first) = (last.file.display(), dense.file.display());
    format!(
        "\n{about}\n\n{table}\n\n{told}\n\nNext:\n  \
         secateur inspect {file}\n  \
         secateur verify {first} {file} --data digits --max-drop 5\n  \
         secateur bench {file} -b 64\n  \
         secateur prune your-model.onnx pruned.onnx --sparsity 0.8\n  \
         secateur compress your-model.onnx small.onnx --data your-images/ --max-drop 1 --target 2x"
    )
}
