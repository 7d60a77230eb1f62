//! Engines under measurement, each in a process of its own: so its peak memory is its own, and no two share threads.
//!
//! The parent writes a line for each run and reads a line of JSON in return.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use secateur::Tensor;
use serde_json::{Value, json};

use crate::cmd::ui;
use crate::engines::{self, Job};

/// Runs the model once for each line of standard input, and answers each with what it took.
///
/// # Errors
///
/// If the engine cannot load or run the model.
pub(super) fn serve(engine: &str, job: &Job, inputs: &[(String, Tensor)]) -> Result<()> {
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
pub(super) struct Rival {
    pub(super) name: String,
    pub(super) version: String,
    /// What it has to say of how it was made ready.
    pub(super) notes: Vec<String>,
    /// Milliseconds from opening the file until the first run could begin.
    pub(super) load_ms: f64,
    /// Milliseconds of each run.
    pub(super) times: Vec<f64>,
    child: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Rival {
    /// Starts the process, which gets the same command line, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If the engine cannot load the model.
    pub(super) fn start(name: &str) -> Result<Rival> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .args(["--worker", name])
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
    pub(super) fn run(&mut self) -> Result<f64> {
        self.ask("run")?["ms"]
            .as_f64()
            .context("an answer without a time")
    }

    /// The most memory its process has had so far, in megabytes (10⁶ bytes); `None` where the system does not say.
    ///
    /// # Errors
    ///
    /// If the process has ended.
    pub(super) fn peak_rss_mb(&mut self) -> Result<Option<f64>> {
        Ok(self.ask("peak")?["peak_rss_mb"].as_f64())
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
