//! `secateur prune`: a model in which weights are zero.

mod cut;
mod flags;
mod found;
mod layers;

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::Model;
use secateur::compress::recipe::{Prune as Pruned, Recipe, Step};
use secateur::compress::recover::RecoverError;
use secateur::compress::{
    Effort, Goal, METHODS, Method, Plan, Report, Room, Stats, Task, Weight, apply_with, methods, observe,
    preview, weights,
};
use secateur::engine::onnx;
use serde_json::{Value, json};

use super::bars::Bars;
use super::card::{self, Card};
use super::recipe::{Chain, Cooked, Shown, Source, names};
use super::timing::Trial;
use super::ui::Ui;
use super::written::{Receipt, Target};
use super::{Cmd, Outcome};

use cut::Shape;

use flags::Flags;
use layers::{Layers, compared};

/// The verb.
pub(super) struct Prune;

impl Cmd for Prune {
    fn command(&self) -> Command {
        let methods = METHODS
            .iter()
            .map(|m| format!("  {:<10} {}", m.name(), m.about()));
        let help = format!(
            "Methods:\n{}\n\n{}",
            methods.collect::<Vec<_>>().join("\n"),
            names()
        );
        let about = "Writes the model with weights set to zero";
        Flags::augment_args(Command::new("prune").about(about).after_help(help))
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        let said = flags.value_source("seed") == Some(ValueSource::CommandLine);
        let flags = Flags::from_arg_matches(flags)?;
        let target = flags.target();
        target.as_ref().map_or(Ok(()), Target::check)?;
        let force = target.as_ref().is_some_and(|t| t.force);
        flags.recovery.check(force)?;
        let pattern = match flags.pattern {
            Shape::Zero(pattern) => pattern,
            Shape::Cut(..) => return cut::run(&flags, ui),
        };
        if flags.of.is_some() || flags.round_to.is_some() {
            bail!("--of and --round-to say how to cut away; --pattern {pattern} makes zeros");
        }
        let prune = || Ok(flags.prune(&flags.goal(pattern, ui)?));
        let mut recipe = flags.recovery.recipe(prune, ui.common.seed)?;
        let seed = recipe.seed.filter(|_| !said).unwrap_or(ui.common.seed);
        recipe.seed = Some(seed);
        let ui = &seeded(ui, seed);
        let old = card::load(&flags.model)?;
        let prune = pruned(&recipe);
        let mut weights = weights(&old);
        prune.choice().mark(&mut weights)?;
        prune.pattern.mark(&mut weights);
        let method = methods::find(prune.method()).context("no such method")?;
        methods::mark(method, &old, &mut weights);
        let job = Job {
            trial: Trial::of(&old, &flags.inputs, ui)?,
            bars: Bars::new(ui),
            old: &old,
            weights: &weights,
            flags: &flags,
            goal: prune.goal(),
            prune,
            recipe: &recipe,
            ui,
        };
        let (json, samples) = match (&target, flags.recovery.more()) {
            (Some(target), true) => job.cook(target)?,
            (None, _) if flags.recovery.trains() => {
                bail!("--dry-run: recovery cannot be foreseen; leave it out")
            }
            (target, _) => {
                let (plan, samples) = job.decide(method)?;
                let done = match target {
                    Some(target) => job.write(&plan, target)?,
                    None => job.preview(&plan)?,
                };
                (job.report(&done, None), samples)
            }
        };
        flags.recovery.save(&recipe, force)?;
        let mut json = json;
        json["samples"] = json!(samples);
        json["output"] = json!(target.map(|t| t.output.display().to_string()));
        Ok(Outcome::done(json))
    }
}

/// The first step that prunes, whose weights are those of the tables; one that prunes nothing where there is none.
fn pruned(recipe: &Recipe) -> Pruned {
    let mut prunes = recipe.step.iter().filter_map(|step| match step {
        Step::Prune(prune) => Some((**prune).clone()),
        _ => None,
    });
    prunes.next().unwrap_or_else(|| Pruned {
        sparsity: Some(0.0),
        ..Pruned::default()
    })
}

/// `ui` with another seed.
fn seeded(ui: &Ui, seed: u64) -> Ui {
    let mut ui = ui.clone();
    ui.common.seed = seed;
    ui
}

struct Job<'a> {
    old: &'a Model,
    weights: &'a [Weight],
    flags: &'a Flags,
    goal: Goal,
    prune: Pruned,
    recipe: &'a Recipe,
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

    /// The plan, and the number of examples that it was made from.
    fn decide(&self, method: &dyn Method) -> Result<(Plan, usize)> {
        let task = Task {
            model: self.old,
            weights: self.weights,
            goal: self.goal,
            effort: self.effort(),
        };
        let place = || self.flags.model.display().to_string();
        let targets = task.targets().with_context(place)?;
        let mut stats = Stats::seeded(self.ui.common.seed);
        let mut samples = 0;
        if !method.needs().is_empty() {
            let source = Source {
                data: self.prune.data(),
                lesson: self.prune.finetune.as_ref(),
                samples: self.prune.samples,
                inputs: &self.flags.inputs,
            };
            let shown = Shown::new(self.old, method, source, self.ui)?;
            samples = shown.samples();
            let seen = shown.with(self.effort(), |e| observe(self.old, &targets, method.needs(), e));
            stats = seen.with_context(place)?;
        }
        Ok((method.decide(&task, &stats).with_context(place)?, samples))
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
        let before = self.card(self.old, &self.flags.model);
        let mut new = self.old.clone();
        let room = Room {
            memory: MEMORY,
            folder: folder(&target.output).to_owned(),
        };
        let report = apply_with(plan, &mut new, &self.effort(), Some(&room))?;
        self.finish(new, (before, report), target, json!({}))
    }

    /// Writes the `new` model, and measures what was written.
    fn finish(
        &self,
        mut new: Model,
        (mut before, report): (Card, Report),
        target: &Target,
        figures: Value,
    ) -> Result<Done<'a>> {
        let layers = Layers::new(self.weights, report);
        let mut flags = flags::asked(&self.prune);
        flags["recipe"] = json!(self.recipe);
        let receipt = Receipt {
            verb: "prune",
            flags,
            seed: self.ui.common.seed,
            figures: joined(layers.total(), figures),
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

    /// Takes the steps of the recipe, with recovery; on how many examples methods saw the model at work.
    fn cook(&self, target: &Target) -> Result<(Value, usize)> {
        let chain = Chain {
            inputs: &self.flags.inputs,
            recipe: self.recipe,
            old: self.old,
            start: self.old,
            name: &self.flags.model,
            flags: &self.flags.recovery,
            effort: self.effort(),
            ui: self.ui,
        };
        let cooked = chain.run().map_err(|e| kept(e, target))?;
        let before = self.card(self.old, &self.flags.model);
        let report = compared(self.weights, &weights(&cooked.model));
        let figures = json!({"rounds": cooked.record(), "test": cooked.test()});
        let done = self.finish(cooked.model.clone(), (before, report), target, figures)?;
        Ok((self.report(&done, Some(&cooked)), cooked.samples))
    }

    fn report(&self, done: &Done, cooked: Option<&Cooked>) -> Value {
        let Done {
            layers,
            before,
            after,
        } = done;
        layers.notes(&self.goal, self.ui);
        let head = flags::words(&self.prune);
        let table = card::table(&[("before", before), ("after", after)]);
        let rounds = cooked.map_or(String::new(), |c| format!("{}\n\n", c.table()));
        self.ui
            .say(&format!("{head}\n\n{}\n\n{rounds}{table}", layers.table()));
        let json = json!({
            "model": self.flags.model.display().to_string(),
            "output": null,
            "seed": self.ui.common.seed,
            "before": before.json(),
            "after": after.json(),
            "layers": layers.json(),
            "skipped": layers.skipped(),
            "total": layers.total(),
            "rounds": cooked.map_or(json!([]), Cooked::rounds),
            "test": cooked.map_or(Value::Null, Cooked::test),
            "recipe": self.recipe,
        });
        joined(json, flags::asked(&self.prune))
    }
}

/// The entries of both objects.
fn joined(a: Value, b: Value) -> Value {
    match (a, b) {
        (Value::Object(mut a), Value::Object(b)) => {
            a.extend(b);
            Value::Object(a)
        }
        (a, _) => a,
    }
}

/// Says of an error in training what became of the file.
fn kept(e: anyhow::Error, target: &Target) -> anyhow::Error {
    let diverged = e
        .downcast_ref::<RecoverError>()
        .is_some_and(RecoverError::diverged);
    let output = target.output.display();
    match (diverged, target.output.exists()) {
        (true, true) => e.context(format!("{output} is as it was")),
        (true, false) => e.context(format!("{output} is not written")),
        (false, _) => e,
    }
}

fn folder(file: &Path) -> &Path {
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}
