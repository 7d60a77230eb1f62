//! Searches with several seeds, side by side.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use secateur::Model;
use secateur::compress::ticket::{Arm, Done, Past, Rate, Row, Search, Trial};
use secateur::train::data::Loader;
use secateur::train::loss::{Accuracy, loss};
use secateur::train::{Course, Event, Spec, Term};
use serde_json::{Value, json};

use super::super::pruning::percent;
use super::super::train::{Start, output};
use super::super::ui::{Progress, Ui};
use super::super::{Outcome, written};
use super::chart;
use super::flags::Flags;
use super::folder::{Folder, Room};
use super::report::{Report, figures};

/// What is to be done.
pub(super) struct Job<'a> {
    pub(super) flags: &'a Flags,
    pub(super) start: &'a Start,
    pub(super) ui: &'a Ui,
}

/// What all seeds have in common.
struct Plan {
    validation: Loader,
    test: Loader,
    rate: f64,
    /// Of a training.
    steps: u64,
    controls: Vec<Arm>,
    /// For each search.
    threads: usize,
    folder: Option<Folder>,
    progress: Progress,
    /// Whether somewhere something went wrong.
    failed: AtomicBool,
}

impl Job<'_> {
    pub(super) fn run(&self) -> Result<Outcome> {
        let (flags, ui) = (self.flags, self.ui);
        let learning = &flags.learning;
        let (train, validation) = self.start.loaders(learning, ui)?;
        let missing = |what: &str| format!("there are no {what} examples, by which tickets are measured");
        let (steps, controls) = (
            flags.steps.unwrap_or(flags.epochs * train.batches() as u64),
            flags.controls(),
        );
        let each = 1 + u64::from(flags.rounds) * (controls.len() as u64 + 1);
        let mut plan = Plan {
            validation: validation.with_context(|| missing("validation"))?,
            test: self.start.test(ui)?.with_context(|| missing("test"))?,
            rate: learning.rate(&*learning.optimizer()?),
            steps,
            controls,
            threads: ui.threads(),
            folder: None,
            progress: ui.progress(flags.seeds * each * steps, "training"),
            failed: AtomicBool::new(false),
        };
        let purpose = self.purpose(&plan, &train);
        let folder = flags.out.as_deref();
        let folder = folder.map(|path| Folder::open(path, &purpose, (flags.resume, flags.force)));
        plan.folder = folder.transpose()?;
        let report = Report::new(&self.start.name, self.seeds(&mut plan)?);
        drop(plan.progress);
        self.write(&report)?;
        ui.say(&report.text());
        let mut json = report.json();
        json["data"] = json!(learning.data);
        json["seed"] = json!(ui.common.seed);
        json["output"] = json!(plan.folder.map(|f| f.path().display().to_string()));
        json["flags"] = purpose;
        Ok(Outcome::done(json))
    }

    /// All that the results depend on, but the number of seeds, which may change.
    fn purpose(&self, plan: &Plan, train: &Loader) -> Value {
        let flags = self.flags;
        let mut all = flags.learning.json(plan.rate, self.start.batch);
        let settings: Vec<String> = flags.set.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let examples = [train, &plan.validation, &plan.test];
        let own = json!({
            "model": self.start.name,
            "set": settings,
            "steps": plan.steps,
            "every": flags.every,
            "rounds": flags.rounds,
            "rate": flags.rate,
            "scope": format!("{:?}", flags.scope).to_lowercase(),
            "rewind": flags.rewind,
            "arms": plan.controls.iter().map(|a| a.name()).collect::<Vec<_>>(),
            "seed": self.ui.common.seed,
            "examples": examples.map(|l| format!("{:016x}", l.data().fingerprint())),
        });
        all.extend(own.as_object().cloned().unwrap_or_default());
        Value::Object(all)
    }

    /// The tables and charts that are asked for.
    fn write(&self, report: &Report) -> Result<()> {
        let force = self.flags.force || self.flags.resume;
        let files = [
            (&self.flags.csv, report.csv()),
            (&self.flags.svg, chart::chart(report)),
        ];
        for (file, text) in files.into_iter().filter_map(|(f, t)| Some((f.as_ref()?, t))) {
            written::replace(file, force, |out| Ok(out.write_all(text.as_bytes())?))?;
        }
        Ok(())
    }

    /// What came of all seeds, in their order. Steps are too small for threads to share them well, so each takes a seed.
    fn seeds(&self, plan: &mut Plan) -> Result<Vec<Row>> {
        let seeds = self.flags.seeds;
        let workers = plan.threads.min(usize::try_from(seeds).unwrap_or(usize::MAX));
        plan.threads /= workers;
        let (plan, next) = (&*plan, &AtomicU64::new(0));
        let numbers = (0..seeds).map(|i| self.ui.common.seed.wrapping_add(i));
        let done = |f: &Folder| numbers.map(|seed| f.done(seed)).sum();
        plan.progress
            .begin(plan.steps * plan.folder.as_ref().map_or(0, done));
        let work = move || -> Result<Vec<Row>> {
            let mut rows = vec![];
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= seeds || plan.failed.load(Ordering::Relaxed) {
                    return Ok(rows);
                }
                let found = self.seed(plan, self.ui.common.seed.wrapping_add(i));
                let failed = |_: &anyhow::Error| plan.failed.store(true, Ordering::Relaxed);
                rows.extend(found.inspect_err(failed)?);
            }
        };
        let done: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            running.into_iter().map(|w| w.join()).collect()
        });
        let mut rows = vec![];
        for found in done {
            rows.extend(found.map_err(|_| anyhow!("a thread that trains ended"))??);
        }
        rows.sort_by_key(|r| r.seed.wrapping_sub(self.ui.common.seed));
        Ok(rows)
    }

    /// What came of the trainings of a seed.
    fn seed(&self, plan: &Plan, seed: u64) -> Result<Vec<Row>> {
        let (flags, start) = (self.flags, self.start);
        let learning = &flags.learning;
        let drawn = |seed| start.redrawn(learning, seed);
        let model = drawn(seed)?.unwrap_or_else(|| start.model.clone());
        let other = drawn(other(seed))?;
        let mut ui = self.ui.quiet();
        ui.common.seed = seed;
        let (train, _) = start.loaders(learning, &ui)?;
        let optimizer = learning.optimizer()?;
        let label = loss(learning.loss(start.classes)).map_err(|e| anyhow!(e))?;
        let scores = output(&start.model, &*label).with_context(|| start.name.clone())?;
        let of = [scores.as_str(), "label"];
        let term = |loss, weight| Term {
            loss,
            of: &of,
            weight,
        };
        let terms = [term(&*label, 1.0), term(&Accuracy, 0.0)];
        let groups = learning.groups();
        let course = Course {
            spec: Spec {
                groups: &groups,
                clip: learning.clip(),
                segments: learning.segments(),
                seed: seed as u32,
                ..Spec::new(&terms, &*optimizer)
            },
            rate: plan.rate,
            schedule: &learning.schedule,
            epochs: flags.epochs,
            patience: None,
            teachers: &[],
            checkpoint: None,
            keep: Duration::MAX,
            threads: plan.threads,
            rates: &crate::rates::cached(),
        };
        let trial = Trial {
            model: &model,
            other: other.as_ref(),
            course,
            examples: [&train, &plan.validation, &plan.test],
            steps: plan.steps,
            every: flags.every,
            rounds: flags.rounds,
            rate: Rate {
                share: flags.rate,
                scope: flags.scope.into(),
            },
            rewind: flags.rewind,
            controls: &plan.controls,
            seed,
        };
        self.search(trial, plan)
    }

    fn search(&self, trial: Trial, plan: &Plan) -> Result<Vec<Row>> {
        let (name, progress) = (&self.start.name, &plan.progress);
        let room = plan.folder.as_ref().map(|f| f.seed(trial.seed, trial.model));
        let room: Option<Room> = room.transpose()?;
        let past = room.as_ref().map_or(Ok(Past::default()), |r| r.past(&trial))?;
        let mut rows = past.rows.clone();
        let mut search = Search::new(trial, past).with_context(|| name.clone())?;
        while let Some((round, arm)) = search.upcoming() {
            if plan.failed.load(Ordering::Relaxed) {
                break;
            }
            let told = format!("seed {}, round {round}, {}", trial.seed, arm.name());
            let mut taken = 0;
            let done = search.next(&mut |event| {
                if let Event::Step { loss, .. } = event {
                    progress.tell(&format!("{told}, loss {loss:.4}"));
                    progress.add(1);
                    taken += 1;
                }
            });
            let done = done.with_context(|| format!("{name}: {told}"))?;
            let Some(done) = done else { break };
            // What is gone back to was not trained again.
            progress.add(plan.steps - taken);
            progress.line(&line(&done.row));
            rows.push(done.row.clone());
            room.as_ref()
                .map_or(Ok(()), |r| r.keep(&self.signed(done), &rows))?;
        }
        Ok(rows)
    }

    /// The same with receipts in its models.
    fn signed(&self, mut done: Done) -> Done {
        let row = &done.row;
        let mut figures = figures(row);
        // What was interrupted ends in the same file.
        figures.as_object_mut().map(|f| f.remove("seconds"));
        let receipt = written::Receipt {
            verb: "ticket",
            flags: json!({
                "data": self.flags.learning.data,
                "rate": self.flags.rate,
                "rewind": self.flags.rewind,
                "round": row.round,
            }),
            seed: row.seed,
            figures,
        };
        let models: [Option<&mut Model>; 2] = [done.ticket.as_mut(), Some(&mut done.trained)];
        models.into_iter().flatten().for_each(|m| receipt.sign(m));
        done
    }
}

/// A seed that is none of those of the trials.
fn other(seed: u64) -> u64 {
    seed ^ 0x5eed_0000_0000_0000
}

fn line(row: &Row) -> String {
    let steps = row
        .steps_to_target
        .map_or("never".to_owned(), |s| format!("in step {s}"));
    format!(
        "seed {}, round {}, {}: {} % of the weights; test accuracy {:.2} %, {:.2} % at the end; as good as dense {steps}; {:.1} s",
        row.seed,
        row.round,
        row.arm.name(),
        percent((1e4 * row.remaining).round() / 1e4),
        100.0 * row.accuracy,
        100.0 * row.final_accuracy,
        row.seconds
    )
}
