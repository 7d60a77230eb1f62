//! Engines under measurement, each in a process of its own: so its peak memory is its own, and no two share threads.
//!
//! The parent writes a line for each run and reads a line of JSON in return.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use secateur::engine::ir::Dim;
use secateur::{Model, Tensor};
use serde_json::{Value, json};

use super::shapes::{Wanted, wanted};
use super::source::{Feeder, InputFlags};
use super::{card, ui};
use crate::engines::{self, Job, Setup};

/// The flags of verbs that measure engines.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RivalFlags {
    /// Size of the first free dimension, the batch
    #[arg(long, short, value_name = "N")]
    pub(crate) batch: Option<usize>,
    #[command(flatten)]
    given: InputFlags,
    /// The engine that this process is to run.
    #[arg(long, hide = true)]
    pub(crate) worker: Option<String>,
}

impl RivalFlags {
    /// The inputs of the model in `file`; says on standard error what the flags leave open.
    ///
    /// # Errors
    ///
    /// If the file is no model, or the flags do not fit it.
    pub(crate) fn feeder(&self, file: &Path, ui: &ui::Ui) -> Result<Feeder> {
        self.inputs(&card::load(file)?, ui)
    }

    /// The inputs of `model`; says on standard error what the flags leave open.
    ///
    /// # Errors
    ///
    /// If the flags do not fit it.
    pub(crate) fn inputs(&self, model: &Model, ui: &ui::Ui) -> Result<Feeder> {
        let inputs = wanted(model);
        let mut ui = ui.clone();
        if let Some(n) = self.batch {
            ui.common.sizes.extend(batch(&inputs, n)?);
        }
        Feeder::new(&inputs, &self.given, &ui)
    }

    /// What the process of `engine` does; it does not return.
    pub(crate) fn work(&self, engine: &str, file: &Path, ui: &ui::Ui, setup: &Setup) -> ! {
        let quiet = ui.quiet();
        let work = || {
            let inputs = self.feeder(file, &quiet)?.make(ui.common.seed)?;
            let taps = &[];
            serve(engine, &Job { file, setup, taps }, &inputs)
        };
        if let Err(e) = work() {
            ui::stdout(&format!("{}\n", json!({"error": ui::chain(&e)})));
        }
        std::process::exit(0)
    }
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

/// Runs the model once for each line of standard input, and answers each with what it took.
///
/// # Errors
///
/// If the engine cannot load or run the model.
fn serve(engine: &str, job: &Job, inputs: &[(String, Tensor)]) -> Result<()> {
    let engine = engines::find(engine)?;
    engine.start()?;
    let start = Instant::now();
    let mut loaded = engine.load(job)?;
    loaded.prepare(inputs)?;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    ui::stdout(&format!(
        "{}\n",
        json!({"version": loaded.version(), "load_ms": load_ms, "notes": loaded.notes()})
    ));
    for line in std::io::stdin().lines() {
        let answer = match line?.as_str() {
            "run" => json!({"ms": loaded.run(inputs)?.ms}),
            _ => json!({"peak_rss_mb": peak_rss_mb()}),
        };
        ui::stdout(&format!("{answer}\n"));
    }
    Ok(())
}

/// The most memory this process has had, in megabytes (10⁶ bytes); unknown but on Linux.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// An engine in a process of its own.
pub(crate) struct Rival {
    pub(crate) name: String,
    pub(crate) version: String,
    /// What it has to say of how it was made ready.
    pub(crate) notes: Vec<String>,
    /// Milliseconds from opening the file until the first run could begin.
    pub(crate) load_ms: f64,
    /// Milliseconds of each run.
    pub(crate) times: Vec<f64>,
    child: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Rival {
    /// Starts the process, which gets the same command line and `more`, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If the engine cannot load the model.
    pub(crate) fn start(name: &str, more: &[&OsStr]) -> Result<Rival> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .args(["--worker", name])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start another process")?;
        let questions = child.stdin.take().context("no pipe")?;
        let answers = BufReader::new(child.stdout.take().context("no pipe")?).lines();
        let mut rival = Rival {
            name: name.to_owned(),
            version: String::new(),
            notes: vec![],
            load_ms: 0.0,
            times: vec![],
            child,
            questions,
            answers,
        };
        let ready = rival.answer()?;
        rival.version = ready["version"].as_str().unwrap_or("unknown").to_owned();
        let notes = ready["notes"].as_array().into_iter().flatten();
        rival.notes = notes.filter_map(|n| Some(n.as_str()?.to_owned())).collect();
        rival.load_ms = ready["load_ms"].as_f64().unwrap_or(0.0);
        Ok(rival)
    }

    fn answer(&mut self) -> Result<Value> {
        let Some(line) = self.answers.next() else {
            let status = self.child.wait()?;
            bail!("engine {}: its process ended ({status})", self.name);
        };
        let answer: Value = serde_json::from_str(&line?).context("an answer that is no JSON")?;
        match answer["error"].as_str() {
            Some(error) => bail!("engine {}: {error}", self.name),
            None => Ok(answer),
        }
    }

    fn ask(&mut self, question: &str) -> Result<Value> {
        // If the process has ended, its last answer says why.
        let _ = writeln!(self.questions, "{question}");
        self.answer()
    }

    /// Milliseconds of one more run.
    ///
    /// # Errors
    ///
    /// If the run fails.
    pub(crate) fn run(&mut self) -> Result<f64> {
        self.ask("run")?["ms"]
            .as_f64()
            .context("an answer without a time")
    }

    /// The most memory its process has had so far, in megabytes (10⁶ bytes); `None` where the system does not say.
    ///
    /// # Errors
    ///
    /// If the process has ended.
    pub(crate) fn peak_rss_mb(&mut self) -> Result<Option<f64>> {
        Ok(self.ask("peak")?["peak_rss_mb"].as_f64())
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long engines are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Rounds before the clock counts.
    pub(crate) warmup: usize,
    /// Rounds until this much time is over, at least three.
    pub(crate) time: Duration,
    /// So many rounds instead.
    pub(crate) runs: Option<usize>,
}

impl Pace {
    /// The time that `--time` says.
    ///
    /// # Errors
    ///
    /// If that is none.
    pub(crate) fn time(seconds: f64) -> Result<Duration> {
        let time = Duration::try_from_secs_f64(seconds).ok().filter(|t| !t.is_zero());
        time.with_context(|| format!("--time {seconds} is no time"))
    }
}

/// How long an engine that has run is left alone: threads that wait actively for more work, as those of ONNX Runtime do,
/// would take the cores from the next one.
const REST: Duration = Duration::from_millis(5);

/// How long an engine runs before it is the next one's turn, at most: its first run finds its memory out of the caches.
const TURN: Duration = Duration::from_millis(100);
/// Turns that each engine has at least.
const TURNS: u32 = 3;

/// Runs `rivals` in turn and adds what each run took to their times.
///
/// # Errors
///
/// If a run fails.
pub(crate) fn race(rivals: &mut [Rival], pace: Pace, ui: &ui::Ui) -> Result<()> {
    for _ in 0..pace.warmup {
        rivals.iter_mut().try_for_each(|r| r.run().map(drop))?;
    }
    let total = pace.runs.map_or(pace.time.as_millis() as u64, |n| n as u64);
    let what = if pace.runs.is_some() {
        "measuring, runs"
    } else {
        "measuring, ms"
    };
    let progress = ui.progress(total, what);
    let (start, count) = (Instant::now(), rivals.len().max(1) as u32);
    let turn = TURN.min(pace.time / (TURNS * count));
    let full = |r: &Rival| pace.runs.is_some_and(|n| r.times.len() >= n);
    let mut shown = 0;
    for round in 1.. {
        for r in rivals.iter_mut() {
            let began = Instant::now();
            while !full(r) {
                let ms = r.run()?;
                r.times.push(ms);
                if began.elapsed() >= turn {
                    break;
                }
            }
            std::thread::sleep(REST);
        }
        let runs = rivals.iter().map(|r| r.times.len()).min().unwrap_or(0);
        let done = pace
            .runs
            .map_or(start.elapsed().as_millis() as u64, |_| runs as u64);
        progress.add(done.min(total) - shown);
        shown = done.min(total);
        if done >= total && (round >= TURNS || pace.runs.is_some()) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur::engine::ir::{DType, Type};

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

    #[test]
    fn some_times_are_none() {
        assert_eq!(Pace::time(0.5).unwrap(), Duration::from_millis(500));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Pace::time(bad).is_err());
        }
    }
}
