//! `secateur train` and `secateur finetune`: weights that fit examples.

mod curves;
mod finetune;
mod flags;
mod parts;
mod report;
mod start;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::Model;
use secateur::train::{Course, Event, Spec, Trainer, portable};
use serde_json::json;

use super::card::{self, Card};
use super::recipe::{fitted, freed, sized as sized_by};
use super::source::InputFlags;
use super::timing::Trial;
use super::ui::Ui;
use super::written::{self, Receipt, Target};
use super::{Cmd, Outcome, new};
pub(super) use finetune::Finetune;
pub(super) use flags::{Flags, Learning};
pub(super) use parts::Parts;
pub(super) use start::{Start, classes_of, output};

/// The verb.
pub(super) struct Train;

#[derive(Args)]
struct TrainFlags {
    /// An architecture (see `new --list`), which is made as large as the data wants it, or an ONNX file
    model: String,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    how: Flags,
    /// Set a number of the architecture
    #[arg(long, value_name = "KEY=V", value_parser = new::setting)]
    set: Vec<(String, String)>,
}

impl Cmd for Train {
    fn command(&self) -> Command {
        let about = "Trains an architecture or a model on examples";
        TrainFlags::augment_args(Command::new("train"))
            .about(about)
            .after_help(Learning::names())
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        let flags = TrainFlags::from_arg_matches(flags)?;
        let job = Job {
            verb: "train",
            from: &flags.model,
            target: &flags.target,
            how: &flags.how,
            hold_zeros: false,
            ui,
        };
        job.check()?;
        job.run(Start::arch_or_file(
            &flags.model,
            &flags.set,
            &flags.how.learning,
            ui,
        )?)
    }
}

/// What both verbs do.
struct Job<'a> {
    verb: &'a str,
    /// The file that is read, or the name of an architecture.
    from: &'a str,
    target: &'a Target,
    how: &'a Flags,
    /// Whether weights that are 0 stay so.
    hold_zeros: bool,
    ui: &'a Ui,
}

impl Job<'_> {
    /// Refuses early what could not be written in the end.
    fn check(&self) -> Result<()> {
        self.target.check()?;
        self.how.check()?;
        let force = self.target.force;
        let others = self.how.curves.iter().chain(&self.how.save_training_graph);
        let read = self.how.teacher.iter().map(|t| &**t);
        let models: Vec<&Path> = read.chain([&*self.target.output, Path::new(self.from)]).collect();
        written::distinct(&models, others.clone().chain(&self.how.checkpoint))?;
        others.into_iter().try_for_each(|f| written::check(f, force))?;
        match &self.how.checkpoint {
            Some(f) if !self.how.resume => {
                written::check(f, force).context("--checkpoint; --resume goes on from it")
            }
            Some(f) => written::check(f, true),
            None => Ok(()),
        }
    }

    fn run(&self, mut start: Start) -> Result<Outcome> {
        let (how, learning, ui) = (self.how, &self.how.learning, self.ui);
        let optimizer = learning.optimizer()?;
        let sized = |m: &Model| fitted(&sized_by(m, &ui.common.sizes), start.splits.train.inputs());
        let teacher = how.teacher.as_deref().map(card::load).transpose()?;
        let (teacher, pupil) = (teacher.as_ref().map(sized), sized(&start.model));
        let free = std::mem::replace(&mut start.model, pupil);
        let start = &start;
        let parts = Parts::new(how, start, teacher.as_ref(), ui)?;
        let names = parts.names();
        let (terms, teachers) = (parts.terms(&names), parts.teachers(teacher.as_ref()));
        let groups = learning.groups();
        let rate = learning.rate(&*optimizer);
        let course = Course {
            spec: Spec {
                groups: &groups,
                clip: learning.clip(),
                batch_statistics: how.labelled() || start.is_drawn(),
                segments: learning.segments(),
                hold_zeros: self.hold_zeros,
                seed: ui.common.seed as u32,
                ..Spec::new(&terms, &*optimizer)
            },
            rate,
            schedule: &learning.schedule,
            epochs: how.epochs,
            patience: how.patience,
            teachers: &teachers,
            checkpoint: how.checkpoint.as_deref(),
            keep: KEEP,
            threads: ui.threads(),
            rates: &crate::rates::cached(),
        };
        let mut trainer =
            Trainer::new(&start.model, course, start.loaders(learning, ui)?).context(start.name.clone())?;
        if how.resume && !trainer.resume()? {
            ui.note("there is no checkpoint yet; training begins");
        }
        let test = start.test(ui)?;
        self.watch(&mut trainer, start)
            .with_context(|| start.name.clone())?;
        let test = test.map(|t| trainer.score(&t)).transpose();
        let (test, failed) = test.map_or_else(|e| (None, Some(e)), |test| (test, None));
        let mut model = freed(trainer.model()?, &free);
        let shown = report::Shown::of(&trainer, test, start.classes.is_some());
        let receipt = Receipt {
            verb: self.verb,
            flags: how.json(rate, start.batch, self.hold_zeros),
            seed: ui.common.seed,
            figures: shown.last(),
        };
        receipt.sign(&mut model);
        let cards = self.written(start, &model)?;
        self.graph(&trainer)?;
        if let Some(e) = failed {
            let written = self.target.output.display();
            return Err(e).with_context(|| format!("{written} is written, but could not be measured"));
        }
        for file in &how.curves {
            curves::write(file, self.target.force, &shown)?;
        }
        Ok(self.done(start, &shown, &cards))
    }

    /// Writes the step, if that is wanted.
    fn graph(&self, trainer: &Trainer) -> Result<()> {
        let Some(path) = &self.how.save_training_graph else {
            return Ok(());
        };
        let mut step = trainer.graph().model.clone();
        portable(&mut step)?;
        let target = Target {
            output: path.clone(),
            force: self.target.force,
        };
        target.write(&step)
    }

    fn watch(&self, trainer: &mut Trainer, start: &Start) -> Result<()> {
        let steps = trainer.steps();
        let progress = self.ui.progress(steps.1, "training");
        progress.begin(steps.0);
        trainer.run(&mut |event| match event {
            Event::Step {
                loss, rate, epoch, ..
            } => {
                progress.tell(&format!("epoch {epoch}, loss {loss:.4}, rate {rate:.2e}"));
                progress.add(1);
            }
            Event::Epoch(row) => progress.line(&report::line(row, start.classes.is_some())),
        })?;
        Ok(())
    }

    /// Writes `model`, if what is read back computes the same; the figures of what was and what is.
    fn written(&self, start: &Start, model: &Model) -> Result<[Card; 2]> {
        let ui = &self.ui.quiet();
        let trial = Trial::of(&start.model, &InputFlags::default(), ui)?;
        let of = |model: &Model, file: Option<&Path>| Card::of(model, file, &trial.shapes);
        let read = Path::new(&start.name);
        self.target.verified(model, |back, file| {
            trial.proved(model, back, ui)?;
            let mut before = of(&start.model, Some(read).filter(|f| f.exists()));
            let mut after = of(back, Some(file));
            [before.ms, after.ms] = trial.race([&start.model, back], ui);
            Ok([before, after])
        })
    }

    /// The tables and the object in which training ends.
    fn done(&self, start: &Start, shown: &report::Shown, [before, after]: &[Card; 2]) -> Outcome {
        let ui = self.ui;
        let table = card::table(&[("before", before), ("after", after)]);
        ui.say(&format!("{}\n\n{table}", shown.table()));
        let mut json = shown.json();
        json["model"] = json!(start.name);
        json["output"] = json!(self.target.output.display().to_string());
        json["seed"] = json!(ui.common.seed);
        json["before"] = before.json();
        json["after"] = after.json();
        Outcome::done(json)
    }
}

/// How long a run may lose when it is stopped.
pub(in crate::cmd) const KEEP: Duration = Duration::from_secs(30);
