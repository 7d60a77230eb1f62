//! `secateur ticket`: parts of a network that learn by themselves what the whole learns.

mod chart;
mod folder;
mod report;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::Model;
use secateur::compress::ticket::{Arm, Done, Past, Rate, Row, Search, Trial};
use secateur::train::data::Loader;
use secateur::train::loss::{Accuracy, loss};
use secateur::train::{Course, Event, Spec, Term};
use serde_json::{Value, json};

use super::pruning::{ScopeFlag, percent, share};
use super::train::{Learning, Start, output};
use super::ui::{Progress, Ui};
use super::{Cmd, Outcome, new, written};
use folder::Folder;
use report::Report;

/// The verb.
pub(super) struct Ticket;

#[derive(Args)]
struct Flags {
    /// An architecture (see `new --list`), which is made as large as the data wants it, or an ONNX file with first weights
    model: String,
    #[command(flatten)]
    learning: Learning,
    /// How often all training examples are seen in a training
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
    /// Steps of a training instead
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Measure by the validation examples after so many steps each
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// How often weights are masked out
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The share of what is left that goes in a round: 0.2, 20% or 20
    #[arg(long, value_name = "X", default_value = "20%", value_parser = share)]
    rate: f64,
    /// Take that share of each layer, of output layers half of it, or rank all weights together
    #[arg(long, value_enum, default_value = "layer")]
    scope: ScopeFlag,
    /// Go back to the weights after so many steps instead of the first ones
    #[arg(long, value_name = "STEP", default_value_t = 0)]
    rewind: u64,
    /// What is trained beside the dense network
    #[arg(
        long,
        value_name = "A",
        value_enum,
        value_delimiter = ',',
        default_value = "ticket,reinit,random-mask"
    )]
    arms: Vec<ArmFlag>,
    /// Repeat with N seeds, from --seed on
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Write tickets and masks as ONNX files to this folder, and what --resume needs
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on in --out, if something is there
    #[arg(long, requires = "out")]
    resume: bool,
    /// Write the rows as a table
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw accuracy and steps over the weights that are left
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Replace files that are there, and begin anew in --out
    #[arg(long)]
    force: bool,
    /// Set a number of the architecture
    #[arg(long, value_name = "KEY=V", value_parser = new::setting)]
    set: Vec<(String, String)>,
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ArmFlag {
    Ticket,
    Reinit,
    RandomMask,
}

impl Cmd for Ticket {
    fn command(&self) -> Command {
        let about = "Finds lottery tickets: parts of a network that learn what the whole learns";
        Flags::augment_args(Command::new("ticket").about(about).after_help(Learning::names()))
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        let flags = Flags::from_arg_matches(flags)?;
        flags.check()?;
        let start = Start::arch_or_file(&flags.model, &flags.set, &flags.learning, ui)?;
        if start.classes.is_none() {
            bail!("tickets are measured by the share of right answers; expected labels that are classes");
        }
        let job = Job {
            flags: &flags,
            start: &start,
            ui,
        };
        job.run()
    }
}

impl Flags {
    /// Refuses early what cannot be done or could not be written in the end.
    fn check(&self) -> Result<()> {
        if !(self.rate > 0.0 && self.rate < 1.0) {
            bail!("--rate {}: expected more than 0 and less than 1", self.rate);
        }
        let mut files = self.csv.iter().chain(&self.svg);
        files.try_for_each(|f| written::check(f, self.force || self.resume))
    }

    /// What is trained beside dense networks and tickets, once each.
    fn controls(&self) -> Vec<Arm> {
        let all = [
            (ArmFlag::Reinit, Arm::Reinit),
            (ArmFlag::RandomMask, Arm::RandomMask),
        ];
        let wanted = all.into_iter().filter(|(flag, _)| self.arms.contains(flag));
        wanted.map(|(_, arm)| arm).collect()
    }
}

/// What is to be done.
struct Job<'a> {
    flags: &'a Flags,
    start: &'a Start,
    ui: &'a Ui,
}

/// What all trainings of all seeds have in common.
struct Plan<'a> {
    course: Course<'a>,
    measured: [&'a Loader; 2],
    steps: u64,
    controls: &'a [Arm],
}

impl Job<'_> {
    fn run(&self) -> Result<Outcome> {
        let (flags, start, ui) = (self.flags, self.start, self.ui);
        let learning = &flags.learning;
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
        let (train, validation) = start.loaders(learning, ui)?;
        let missing = |what: &str| format!("there are no {what} examples, by which tickets are measured");
        let validation = validation.with_context(|| missing("validation"))?;
        let test = start.test(ui)?.with_context(|| missing("test"))?;
        let course = Course {
            spec: Spec {
                groups: &groups,
                clip: learning.clip(),
                segments: learning.segments(),
                ..Spec::new(&terms, &*optimizer)
            },
            rate: learning.rate(&*optimizer),
            schedule: &learning.schedule,
            epochs: flags.epochs,
            patience: None,
            teachers: &[],
            checkpoint: None,
            keep: Duration::MAX,
            threads: ui.threads(),
            rates: &crate::rates::cached(),
        };
        let plan = Plan {
            course,
            measured: [&validation, &test],
            steps: flags.steps.unwrap_or(flags.epochs * train.batches() as u64),
            controls: &flags.controls(),
        };
        self.seeds(&plan, &train)
    }

    /// All that the results depend on, but the seeds, which may become more.
    fn purpose(&self, plan: &Plan, train: &Loader) -> Value {
        let flags = self.flags;
        let mut all = flags.learning.json(plan.course.rate, self.start.batch);
        let settings: Vec<String> = flags.set.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let [validation, test] = plan.measured;
        let data = [train, validation, test].map(|l| format!("{:016x}", l.data().fingerprint()));
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
            "examples": data,
        });
        all.extend(own.as_object().cloned().unwrap_or_default());
        Value::Object(all)
    }

    fn seeds(&self, plan: &Plan, train: &Loader) -> Result<Outcome> {
        let (flags, ui) = (self.flags, self.ui);
        let purpose = self.purpose(plan, train);
        let folder = flags.out.as_deref();
        let folder = folder.map(|path| Folder::open(path, &purpose, (flags.resume, flags.force)));
        let folder = folder.transpose()?;
        let each = 1 + u64::from(flags.rounds) * (plan.controls.len() as u64 + 1);
        let progress = ui.progress(flags.seeds * each * plan.steps, "training");
        let mut rows = vec![];
        for seed in (0..flags.seeds).map(|i| ui.common.seed.wrapping_add(i)) {
            rows.extend(self.seed(plan, seed, folder.as_ref(), &progress)?);
        }
        drop(progress);
        let report = Report::new(&self.start.name, rows);
        self.write(&report)?;
        ui.say(&report.text());
        let mut json = report.json();
        json["data"] = json!(flags.learning.data);
        json["seed"] = json!(ui.common.seed);
        json["output"] = json!(folder.map(|f| f.path().display().to_string()));
        json["flags"] = purpose;
        Ok(Outcome::done(json))
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

    /// What came of the trainings of a seed.
    fn seed(&self, plan: &Plan, seed: u64, folder: Option<&Folder>, progress: &Progress) -> Result<Vec<Row>> {
        let (flags, start) = (self.flags, self.start);
        let drawn = |seed| start.redrawn(&flags.learning, seed);
        let model = drawn(seed)?.unwrap_or_else(|| start.model.clone());
        let other = drawn(other(seed))?;
        let mut ui = self.ui.quiet();
        ui.common.seed = seed;
        let (train, _) = start.loaders(&flags.learning, &ui)?;
        let [validation, test] = plan.measured;
        let trial = Trial {
            model: &model,
            other: other.as_ref(),
            course: Course {
                spec: Spec {
                    seed: seed as u32,
                    ..plan.course.spec
                },
                ..plan.course
            },
            examples: [&train, validation, test],
            steps: plan.steps,
            every: flags.every,
            rounds: flags.rounds,
            rate: Rate {
                share: flags.rate,
                scope: flags.scope.into(),
            },
            rewind: flags.rewind,
            controls: plan.controls,
            seed,
        };
        let room = folder.map(|f| f.seed(seed, &model)).transpose()?;
        let past = room.as_ref().map_or(Ok(Past::default()), |r| r.past(&trial))?;
        let mut rows = past.rows.clone();
        let mut search = Search::new(trial, past).with_context(|| start.name.clone())?;
        progress.add(rows.len() as u64 * plan.steps);
        while let Some((round, arm)) = search.upcoming() {
            let told = format!("seed {seed}, round {round}, {}", arm.name());
            let mut taken = 0;
            let done = search.next(&mut |event| {
                if let Event::Step { loss, .. } = event {
                    progress.tell(&format!("{told}, loss {loss:.4}"));
                    progress.add(1);
                    taken += 1;
                }
            });
            let done = done.with_context(|| format!("{}: {told}", start.name))?;
            let Some(done) = done else { break };
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
        let mut figures = report::figures(row);
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
