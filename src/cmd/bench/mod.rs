//! `secateur bench`: how long a model takes, here and in other engines.

mod baseline;
mod rival;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::engine::ir::Dim;
use serde_json::{Map, Value, json};

use super::shapes::{Wanted, wanted};
use super::source::{Feeder, InputFlags};
use super::table::Table;
use super::timing::{median, quantile};
use super::ui::Ui;
use super::{Cmd, Outcome, card};
use crate::engines::{self, Job};
use rival::Rival;

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
    /// Size of the first free dimension, the batch
    #[arg(long, short, value_name = "N")]
    batch: Option<usize>,
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
    inputs: InputFlags,
    #[arg(long, hide = true)]
    worker: Option<String>,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim().parse::<f64>();
    number.map_err(|_| "expected a percentage, as in 3%".into())
}

impl Cmd for Bench {
    fn command(&self) -> Command {
        Flags::augment_args(
            Command::new("bench").about("Measures how long a model takes, here and in other engines"),
        )
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        let flags = Flags::from_arg_matches(flags)?;
        match &flags.worker {
            Some(engine) => work(engine, &flags, ui),
            None => bench(&flags, ui),
        }
    }
}

fn feeder(flags: &Flags, ui: &Ui) -> Result<Feeder> {
    let model = card::load(&flags.model)?;
    let inputs = wanted(&model);
    let mut ui = ui.clone();
    if let Some(n) = flags.batch {
        ui.common.sizes.extend(batch(&inputs, n)?);
    }
    Feeder::new(&inputs, &flags.inputs, &ui)
}

/// The dimension to set for a batch of `n`, the first of the first input that has any; none where it is `n` already.
fn batch(inputs: &[Wanted], n: usize) -> Result<Option<(String, usize)>> {
    ensure!(n > 0, "a batch of 0");
    let first = inputs.iter().find_map(|i| Some((i, i.ty.shape()?.first()?)));
    match first {
        Some((_, Dim::Symbol(s))) => Ok(Some((s.to_string(), n))),
        Some((_, d)) if d.size() == Some(n) => Ok(None),
        Some((i, _)) => bail!("input {:?} is {}: its batch is not free", i.name, i.ty),
        None => bail!("no input has a batch"),
    }
}

/// What the process of one engine does.
fn work(engine: &str, flags: &Flags, ui: &Ui) -> Result<Outcome> {
    let mut quiet = ui.clone();
    quiet.common.quiet = true;
    let serve = || {
        let inputs = feeder(flags, &quiet)?.make(ui.common.seed)?;
        let job = Job {
            file: &flags.model,
            setup: &ui.setup(),
            taps: &[],
        };
        rival::serve(engine, &job, &inputs)
    };
    if let Err(e) = serve() {
        super::ui::stdout(&format!("{}\n", json!({"error": super::ui::chain(&e)})));
    }
    std::process::exit(0)
}

fn bench(flags: &Flags, ui: &Ui) -> Result<Outcome> {
    flags
        .engines
        .iter()
        .try_for_each(|e| engines::find(e).map(drop))?;
    ensure!(
        flags.time > 0.0 && flags.time.is_finite(),
        "--time {} is no time",
        flags.time
    );
    let baseline = flags.baseline.as_deref().map(baseline::read).transpose()?;
    let inputs = feeder(flags, ui)?;
    let mut rivals = vec![];
    for name in &flags.engines {
        let rival = Rival::start(name)?;
        rival.notes.iter().for_each(|n| ui.note(n));
        rivals.push(rival);
    }
    measure(&mut rivals, flags, ui)?;
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

/// How long an engine that has run is left alone: threads that wait actively for more work, as those of ONNX Runtime do,
/// would take the cores from the next one.
const REST: Duration = Duration::from_millis(5);

/// Runs the engines in turn until the time is over, at least three times each.
fn measure(rivals: &mut [Rival], flags: &Flags, ui: &Ui) -> Result<()> {
    for _ in 0..flags.warmup {
        rivals.iter_mut().try_for_each(|r| r.run().map(drop))?;
    }
    let total = flags.runs.map_or((flags.time * 1e3) as u64, |n| n as u64);
    let what = if flags.runs.is_some() {
        "measuring, runs"
    } else {
        "measuring, ms"
    };
    let progress = ui.progress(total, what);
    let start = Instant::now();
    let mut shown = 0;
    for round in 1.. {
        for r in rivals.iter_mut() {
            let ms = r.run()?;
            r.times.push(ms);
            std::thread::sleep(REST);
        }
        let done = flags.runs.map_or(start.elapsed().as_millis() as u64, |_| round);
        progress.add(done.min(total) - shown);
        shown = done.min(total);
        if done >= total && (round >= 3 || flags.runs.is_some()) {
            break;
        }
    }
    Ok(())
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
        "batch": flags.batch,
        "results": results.iter().map(Figures::json).collect::<Vec<_>>(),
        "ratio": ratios,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur::engine::ir::{DType, Type};

    #[test]
    fn percentages() {
        assert_eq!(percent("3%"), Ok(3.0));
        assert_eq!(percent("2.5"), Ok(2.5));
        assert!(percent("x%").is_err());
    }

    #[test]
    fn the_batch_is_the_first_free_dimension() {
        let input = |dim| Wanted {
            name: "x".into(),
            ty: Type::tensor(DType::F32, [dim, Dim::Known(3)]),
        };
        let of = |dim, n| batch(&[input(dim)], n);
        assert_eq!(of(Dim::symbol("b"), 4).unwrap(), Some(("b".into(), 4)));
        assert_eq!(of(Dim::Known(4), 4).unwrap(), None);
        assert!(of(Dim::Known(1), 4).is_err());
    }
}
