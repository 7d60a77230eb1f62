//! What all verbs have in common: flags, notes, progress.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use secateur::engine::cpu::default_threads;
use secateur::engine::run::Builder;
use secateur::{Model, Session};

use crate::engines::Setup;

/// The flags that every verb takes, before or after its name.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Common {
    /// Print one JSON object on standard output, and all else on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no progress and no notes
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Run on N threads [default: the smaller of physical cores, affinity mask and cgroup quota]
    #[arg(long, short, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Compute the same, to the bit, for any size of the batch; this may take longer
    #[arg(long, global = true)]
    pub(crate) deterministic: bool,
    /// Keep packed weights in FILE, so that the next load need not pack them
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cache: Option<PathBuf>,
    /// Set a free dimension of the inputs
    #[arg(long = "size", short, global = true, value_name = "NAME=SIZE", value_parser = size)]
    pub(crate) sizes: Vec<(String, usize)>,
    /// Refuse runs that work in more than SIZE (512M, 2GiB) [default: what the machine has free]
    #[arg(long, global = true, value_name = "SIZE", value_parser = bytes)]
    pub(crate) max_memory: Option<usize>,
    /// Seed of everything random
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

fn bytes(text: &str) -> Result<usize, String> {
    let wrong = || format!("{text:?} is not a size; expected a number with K, M, G or T");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..]
        .to_ascii_uppercase()
        .trim_end_matches('B')
        .trim_end_matches('I')
    {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    match number * f64::from(shift).exp2() {
        n if n.is_finite() && n >= 0.0 => Ok(n as usize),
        _ => Err(wrong()),
    }
}

fn size(text: &str) -> Result<(String, usize), String> {
    let (name, size) = text.rsplit_once('=').ok_or("expected NAME=SIZE")?;
    let size = size.parse().map_err(|_| format!("{size:?} is not a size"))?;
    Ok((name.to_owned(), size))
}

/// Where a verb finds the common flags, and what it talks to people through.
#[derive(Clone)]
pub(crate) struct Ui {
    pub(crate) common: Common,
}

impl Ui {
    pub(crate) fn new(common: Common) -> Ui {
        Ui { common }
    }

    /// The number of threads to run on.
    pub(crate) fn threads(&self) -> usize {
        self.common.threads.map_or_else(default_threads, usize::from)
    }

    /// How sessions are to be made.
    pub(crate) fn setup(&self) -> Setup {
        Setup {
            threads: self.threads(),
            memory: self.common.max_memory,
            deterministic: self.common.deterministic,
            cache: self.common.cache.clone(),
        }
    }

    /// The same without a cache of packed weights, which is of one model.
    pub(crate) fn uncached(&self) -> Setup {
        Setup {
            cache: None,
            ..self.setup()
        }
    }

    /// The same that says nothing of its own accord.
    pub(crate) fn quiet(&self) -> Ui {
        let mut quiet = self.clone();
        quiet.common.quiet = true;
        quiet
    }

    /// A builder of a session of `model` as the common flags want it.
    pub(crate) fn session<'m>(&self, model: &'m Model) -> Builder<'m> {
        self.setup().session(model)
    }

    /// Says what is to be said of how a session was made ready.
    pub(crate) fn noted(&self, session: &Session) {
        self.setup().notes(session).iter().for_each(|n| self.note(n));
    }

    /// Says on standard error what was assumed or left out.
    pub(crate) fn note(&self, text: &str) {
        if !self.common.quiet {
            stderr(&format!("note: {text}\n"));
        }
    }

    /// A result for people: on standard output, unless that is for JSON.
    pub(crate) fn say(&self, text: &str) {
        match self.common.json {
            false => stdout(&format!("{text}\n")),
            true if self.common.quiet => {}
            true => stderr(&format!("{text}\n")),
        }
    }

    /// Progress of `total` steps of `what`.
    pub(crate) fn progress(&self, total: u64, what: &str) -> Progress {
        let bar = match (self.common.quiet, io::stderr().is_terminal()) {
            (true, _) => Shown::Nothing,
            (false, true) => Shown::Bar(bar(total, what)),
            (false, false) => Shown::Lines(Mutex::new(Lines::new(what, total))),
        };
        Progress(bar)
    }
}

/// Progress of long work: a bar on a terminal, a line every few seconds elsewhere.
pub(crate) struct Progress(Shown);

enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines(Mutex<Lines>),
}

struct Lines {
    what: String,
    told: String,
    done: u64,
    total: u64,
    /// What was done before.
    from: u64,
    start: Instant,
    last: Instant,
}

/// Time between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(3);

fn bar(total: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(what.to_owned());
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}, {per_sec}, {eta} left{prefix}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

impl Lines {
    fn new(what: &str, total: u64) -> Lines {
        let now = Instant::now();
        Lines {
            what: what.to_owned(),
            told: String::new(),
            done: 0,
            from: 0,
            total,
            start: now,
            last: now,
        }
    }

    fn set(&mut self, done: u64) {
        self.done = done.min(self.total);
        if self.last.elapsed() >= PAUSE && self.done > self.from {
            self.last = Instant::now();
            let rate = (self.done - self.from) as f64 / self.start.elapsed().as_secs_f64();
            let left = (self.total - self.done) as f64 / rate;
            let Lines {
                what,
                told,
                done,
                total,
                ..
            } = self;
            stderr(&format!(
                "{what}: {done}/{total}, {rate:.1}/s, {left:.0} s left{told}\n"
            ));
        }
    }
}

impl Progress {
    /// `by` more steps are done.
    pub(crate) fn add(&self, by: u64) {
        match &self.0 {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.inc(by),
            Shown::Lines(lines) => {
                let mut lines = lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let done = lines.done + by;
                lines.set(done);
            }
        }
    }
}

impl Progress {
    /// So many steps were done before.
    pub(crate) fn begin(&self, done: u64) {
        match &self.0 {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                bar.set_position(done);
                bar.reset_eta();
            }
            Shown::Lines(lines) => {
                let mut lines = lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                (lines.done, lines.from) = (done, done);
            }
        }
    }

    /// What stands behind the progress from now on.
    pub(crate) fn tell(&self, text: &str) {
        let text = format!("; {text}");
        match &self.0 {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.set_prefix(text),
            Shown::Lines(lines) => {
                lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).told = text;
            }
        }
    }

    /// A line of its own, which stays.
    pub(crate) fn line(&self, text: &str) {
        match &self.0 {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.println(text),
            Shown::Lines(_) => stderr(&format!("{text}\n")),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Writes `text` to standard output; a reader that has gone away is no error.
pub(crate) fn stdout(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes `text` to standard error, if anybody listens.
pub(crate) fn stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// An error with its causes in one line, each said once.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.contains(cause.as_str()) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(" → ");
        }
        text.push_str(&cause);
    }
    text
}
