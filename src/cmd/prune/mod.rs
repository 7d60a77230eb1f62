//! `secateur prune`: a model in which weights are zero.

mod cut;
mod flags;
mod found;
mod layers;

use std::path::Path;

use anyhow::{Context, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::Model;
use secateur::compress::{
    Effort, Goal, METHODS, Plan, Room, Task, Weight, apply_with, methods, preview, weights,
};
use secateur::engine::onnx;
use serde_json::{Value, json};

use super::bars::Bars;
use super::card::{self, Card};
use super::timing::Trial;
use super::ui::Ui;
use super::written::{Receipt, Target};
use super::{Cmd, Outcome};
use cut::Shape;
use flags::Flags;
use layers::Layers;

/// The verb.
pub(super) struct Prune;

impl Cmd for Prune {
    fn command(&self) -> Command {
        let methods = METHODS
            .iter()
            .map(|m| format!("  {:<10} {}", m.name(), m.about()));
        let help = format!("Methods:\n{}", methods.collect::<Vec<_>>().join("\n"));
        let about = "Writes the model with weights set to zero";
        Flags::augment_args(Command::new("prune").about(about).after_help(help))
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        let flags = Flags::from_arg_matches(flags)?;
        let target = flags.target();
        target.as_ref().map_or(Ok(()), Target::check)?;
        let pattern = match flags.pattern {
            Shape::Zero(pattern) => pattern,
            Shape::Cut(..) => return cut::run(&flags, ui),
        };
        let goal = flags.goal(pattern, ui)?;
        let old = card::load(&flags.model)?;
        let mut weights = weights(&old);
        flags.choice().mark(&mut weights)?;
        goal.pattern.mark(&mut weights);
        let job = Job {
            trial: Trial::of(&old, &flags.inputs, ui)?,
            bars: Bars::new(ui),
            old: &old,
            weights: &weights,
            flags: &flags,
            goal,
            ui,
        };
        let plan = job.decide()?;
        let done = match &target {
            Some(target) => job.write(&plan, target)?,
            None => job.preview(&plan)?,
        };
        let mut json = job.report(&done);
        json["output"] = json!(target.map(|t| t.output.display().to_string()));
        Ok(Outcome::done(json))
    }
}

struct Job<'a> {
    old: &'a Model,
    weights: &'a [Weight],
    flags: &'a Flags,
    goal: Goal,
    trial: Trial,
    bars: Bars<'a>,
    ui: &'a Ui,
}

struct Done<'a> {
    layers: Layers<'a>,
    before: Card,
    after: Card,
}

/// New tensors up to so many bytes altogether stay in memory; more go to files beside the output.
const MEMORY: usize = 64 << 20;

impl<'a> Job<'a> {
    fn effort(&self) -> Effort<'_> {
        Effort {
            threads: self.ui.threads(),
            watch: &self.bars,
        }
    }

    fn decide(&self) -> Result<Plan> {
        let task = Task {
            model: self.old,
            weights: self.weights,
            goal: self.goal,
            effort: self.effort(),
        };
        let method = methods::find(self.flags.method()).context("no such method")?;
        let place = || self.flags.model.display().to_string();
        method.decide(&task).with_context(place)
    }

    fn card(&self, model: &Model, file: &Path) -> Card {
        Card::of(model, Some(file), &self.trial.shapes)
    }

    fn preview(&self, plan: &Plan) -> Result<Done<'a>> {
        let report = preview(plan, self.old, &self.effort())?;
        let layers = Layers::new(self.weights, report);
        let before = self.card(self.old, &self.flags.model);
        let mut after = before.clone();
        after.zeros += layers.new_zeros() as usize;
        after.file_bytes = None;
        Ok(Done {
            layers,
            before,
            after,
        })
    }

    fn write(&self, plan: &Plan, target: &Target) -> Result<Done<'a>> {
        let mut before = self.card(self.old, &self.flags.model);
        let mut new = self.old.clone();
        let room = Room {
            memory: MEMORY,
            folder: folder(&target.output).to_owned(),
        };
        let report = apply_with(plan, &mut new, &self.effort(), Some(&room))?;
        let layers = Layers::new(self.weights, report);
        let receipt = Receipt {
            verb: "prune",
            flags: self.flags.json(&self.goal),
            seed: self.ui.common.seed,
            figures: layers.total(),
        };
        receipt.sign(&mut new);
        if self.flags.sparse_initializers {
            onnx::sparsify(&mut new);
        }
        target.write(&new)?;
        drop(new);
        // Figures of what lies in the file now.
        let new = card::load(&target.output)?;
        let mut after = self.card(&new, &target.output);
        [before.ms, after.ms] = self.trial.race([self.old, &new], self.ui);
        Ok(Done {
            layers,
            before,
            after,
        })
    }

    fn report(&self, done: &Done) -> Value {
        let Done {
            layers,
            before,
            after,
        } = done;
        layers.notes(&self.goal, self.ui);
        let head = self.flags.words(&self.goal);
        let table = card::table(&[("before", before), ("after", after)]);
        self.ui.say(&format!("{head}\n\n{}\n\n{table}", layers.table()));
        let mut json = json!({
            "model": self.flags.model.display().to_string(),
            "output": null,
            "seed": self.ui.common.seed,
            "before": before.json(),
            "after": after.json(),
            "layers": layers.json(),
            "skipped": layers.skipped(),
            "total": layers.total(),
        });
        if let (Value::Object(json), Value::Object(asked)) = (&mut json, self.flags.json(&self.goal)) {
            json.extend(asked);
        }
        json
    }
}

fn folder(file: &Path) -> &Path {
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}
