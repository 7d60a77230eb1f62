//! `secateur bench`: how long a model takes, here and in other engines.

mod baseline;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Map, Value, json};

use super::rival::{Pace, Rival, RivalFlags, race};
use super::table::Table;
use super::timing::{median, quantile};
use super::ui::Ui;
use super::{Cmd, Outcome};
use crate::engines;

/// The verb.
pub(super) struct Bench;

#[derive(Args)]
struct Flags {
    /// The ONNX file
    model: PathBuf,
    /// Engines to run in turn: self, ort, tract
    #[arg(
        long = "engine",
        value_name = "NAME,…",
        value_delimiter = ',',
        default_value = "self"
    )]
    engines: Vec<String>,
    /// Measure for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    time: f64,
    /// Measure this many runs of each engine instead
    #[arg(long, short = 'n', value_name = "N")]
    runs: Option<usize>,
    /// Runs of each engine before the clock counts
    #[arg(long, value_name = "N", default_value_t = 5)]
    warmup: usize,
    /// What an earlier run printed with --json
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Fail if the median of an engine is more than this slower than in the baseline
    #[arg(long, value_name = "PERCENT", value_parser = percent, requires = "baseline")]
    fail_if_slower: Option<f64>,
    #[command(flatten)]
    rivals: RivalFlags,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim().parse::<f64>();
    number.map_err(|_| "expected a percentage, as in 3%".into())
}

impl Cmd for Bench {
    fn command(&self) -> Command {
        Flags::augment_args(Command::new("bench"))
            .about("Measures how long a model takes, here and in other engines")
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        let flags = Flags::from_arg_matches(flags)?;
        match &flags.rivals.worker {
            Some(engine) => flags.rivals.work(engine, &flags.model, ui, &ui.setup()),
            None => bench(&flags, ui),
        }
    }
}

fn bench(flags: &Flags, ui: &Ui) -> Result<Outcome> {
    flags
        .engines
        .iter()
        .try_for_each(|e| engines::find(e).map(drop))?;
    ensure!(flags.runs != Some(0), "--runs 0 measures nothing");
    let pace = Pace {
        warmup: flags.warmup,
        time: Pace::time(flags.time)?,
        runs: flags.runs,
    };
    let baseline = flags.baseline.as_deref().map(baseline::read).transpose()?;
    let inputs = flags.rivals.feeder(&flags.model, ui)?;
    let mut rivals = vec![];
    for name in &flags.engines {
        let rival = Rival::start(name, &[])?;
        rival.notes.iter().for_each(|n| ui.note(n));
        rivals.push(rival);
    }
    race(&mut rivals, pace, ui)?;
    let mut results = vec![];
    for rival in &mut rivals {
        results.push(Figures::of(rival)?);
    }
    let mut json = report(&results, flags, ui);
    json["inputs"] = inputs
        .shapes()
        .iter()
        .map(|(w, d)| json!({"name": w.name, "shape": d}))
        .collect();
    let mut pass = true;
    if let Some(old) = baseline {
        let verdict = baseline::compare(&old, &json, flags.fail_if_slower)?;
        ui.say(&verdict.text);
        (json["baseline"], pass) = (verdict.json, verdict.pass);
        json["pass"] = json!(pass);
    }
    Ok(Outcome { json, pass })
}

/// What was measured of one engine.
struct Figures {
    engine: String,
    version: String,
    min_ms: f64,
    median_ms: f64,
    p90_ms: f64,
    runs: usize,
    load_ms: f64,
    peak_rss_mb: Option<f64>,
}

impl Figures {
    fn of(rival: &mut Rival) -> Result<Figures> {
        let peak_rss_mb = rival.peak_rss_mb()?;
        let times = &mut rival.times;
        Ok(Figures {
            engine: rival.name.clone(),
            version: rival.version.clone(),
            min_ms: quantile(times, 0.0),
            median_ms: median(times),
            p90_ms: quantile(times, 0.9),
            runs: times.len(),
            load_ms: rival.load_ms,
            peak_rss_mb,
        })
    }

    fn json(&self) -> Value {
        json!({
            "engine": self.engine,
            "version": self.version,
            "min_ms": self.min_ms,
            "median_ms": self.median_ms,
            "p90_ms": self.p90_ms,
            "runs": self.runs,
            "load_ms": self.load_ms,
            "peak_rss_mb": self.peak_rss_mb,
        })
    }

    fn cells(&self, ratio: Option<f64>) -> Vec<String> {
        let mut cells = vec![self.engine.clone(), self.version.clone()];
        cells.extend([self.min_ms, self.median_ms, self.p90_ms].map(|ms| format!("{ms:.3}")));
        cells.push(self.runs.to_string());
        cells.push(format!("{:.1}", self.load_ms));
        cells.push(self.peak_rss_mb.map_or("–".into(), |mb| format!("{mb:.1}")));
        cells.push(ratio.map_or("–".into(), |r| format!("{r:.3}")));
        cells
    }
}

fn report(results: &[Figures], flags: &Flags, ui: &Ui) -> Value {
    let own = results.iter().find(|f| f.engine == "self").map(|f| f.median_ms);
    let ratio = |f: &Figures| own.filter(|ms| *ms > 0.0).map(|ms| f.median_ms / ms);
    let head = [
        "engine",
        "version",
        "min ms",
        "median ms",
        "p90 ms",
        "runs",
        "load ms",
        "peak MB",
        "÷ self",
    ];
    let mut table = Table::new(&head);
    results.iter().for_each(|f| table.row(f.cells(ratio(f))));
    ui.say(&table.to_string());
    let ratios: Map<String, Value> = results
        .iter()
        .filter_map(|f| Some((f.engine.clone(), json!(ratio(f)?))))
        .collect();
    json!({
        "model": flags.model.display().to_string(),
        "threads": ui.threads(),
        "batch": flags.rivals.batch,
        "results": results.iter().map(Figures::json).collect::<Vec<_>>(),
        "ratio": ratios,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        assert_eq!(percent("3%"), Ok(3.0));
        assert_eq!(percent("2.5"), Ok(2.5));
        assert!(percent("x%").is_err());
    }
}
