//! `secateur prune`: a model in which weights are zero, or from which pieces are cut away.

mod flags;
mod found;
mod layers;

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::Model;
use secateur::compress::groups::Sizes;
use secateur::compress::recipe::{Prune as Pruned, Recipe, Step};
use secateur::compress::{
    Effort, Goal, METHODS, Plan, Report, Room, Stats, Task, Weight, apply_with, methods, observe, preview,
    weights,
};
use secateur::engine::onnx;
use serde_json::{Value, json};

use super::bars::Bars;
use super::card::{self, Card};
use super::recipe::{Chain, Cooked, Shown, Source, framed, inputs, names, note, seeded, untouched};
use super::source::InputFlags;
use super::timing::{LARGE, Trial};
use super::ui::Ui;
use super::written::{Receipt, Target, distinct, folder};
use super::{Cmd, Outcome, joined};

use flags::Flags;
use found::{Found, Kept};
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
        let about = "Writes the model with weights set to zero, or pieces of it cut away";
        let command = Flags::augment_args(Command::new("prune"));
        let needing = |c: Command, (flag, other)| c.mut_arg(flag, |a| a.requires(other));
        let command = flags::NEEDS.into_iter().fold(command, needing);
        command.about(about).after_help(help)
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        let matches = flags;
        let flags = Flags::from_arg_matches(matches)?;
        let target = flags.target();
        target.as_ref().map_or(Ok(()), Target::check)?;
        let force = target.as_ref().is_some_and(|t| t.force);
        flags.recovery.check(force)?;
        let models = [Some(flags.model.as_path()), target.as_ref().map(|t| &*t.output)];
        distinct(
            &models.into_iter().flatten().collect::<Vec<_>>(),
            flags.recovery.files(),
        )?;
        let step = || Ok(Step::Prune(flags.prune(ui)?.into()));
        let mut recipe = flags.recovery.recipe(step, ui.common.seed)?;
        note(&mut recipe, &flags.inputs)?;
        let inputs = inputs(&recipe, &flags.inputs);
        let ui = &seeded(&mut recipe, matches, ui);
        let old = card::load(&flags.model)?;
        let sizes: Sizes = ui.common.sizes.iter().cloned().collect();
        let place = || flags.model.display().to_string();
        let job = Job {
            zeros: Zeros::of(&recipe, &old)?,
            found: Found::of(&recipe, &old, &sizes).with_context(place)?,
            trial: Trial::of(&old, &inputs, ui)?,
            inputs: &inputs,
            bars: Bars::new(ui),
            old: &old,
            flags: &flags,
            recipe: &recipe,
            sizes: &sizes,
            ui,
        };
        let mut json = job.run(target.as_ref())?;
        flags.recovery.save(&recipe, force)?;
        json["output"] = json!(target.map(|t| t.output.display().to_string()));
        Ok(Outcome::done(json))
    }
}

/// The steps of `recipe` that prune.
fn prunes(recipe: &Recipe) -> impl Iterator<Item = &Pruned> {
    recipe.step.iter().filter_map(|step| match step {
        Step::Prune(prune) => Some(&**prune),
        _ => None,
    })
}

/// The first step that makes zeros, and the weights of its table.
struct Zeros {
    prune: Pruned,
    goal: Goal,
    weights: Vec<Weight>,
}

impl Zeros {
    /// That of `recipe`; one that makes no zeros where nothing is pruned at all.
    fn of(recipe: &Recipe, old: &Model) -> Result<Option<Zeros>> {
        let none = Pruned {
            sparsity: Some(0.0),
            ..Pruned::default()
        };
        let found = prunes(recipe).find(|p| p.pattern.zeros().is_some());
        let prune = match (found, prunes(recipe).next()) {
            (Some(prune), _) => prune.clone(),
            (None, None) => none,
            (None, Some(_)) => return Ok(None),
        };
        let pattern = prune.pattern.zeros().unwrap_or_default();
        let mut weights = weights(old);
        prune.choice().mark(&mut weights)?;
        pattern.mark(&mut weights);
        let method = methods::find(prune.method()).context("no such method")?;
        methods::mark(method, old, &mut weights);
        let goal = prune.goal(pattern);
        Ok(Some(Zeros { prune, goal, weights }))
    }
}

struct Job<'a> {
    old: &'a Model,
    flags: &'a Flags,
    inputs: &'a InputFlags,
    recipe: &'a Recipe,
    zeros: Option<Zeros>,
    found: Option<Found<'a>>,
    sizes: &'a Sizes,
    trial: Trial,
    bars: Bars<'a>,
    ui: &'a Ui,
}

/// What became of the model.
struct Done<'a> {
    layers: Option<Layers<'a>>,
    kept: Option<Kept>,
    before: Card,
    after: Card,
    /// Whether what was read back computes the same; none where that could not be compared.
    verified: Option<bool>,
}

/// New tensors up to so many bytes altogether stay in memory; more go to files beside the output.
const MEMORY: usize = 64 << 20;

impl Job<'_> {
    /// Does what is asked, and tells.
    fn run(&self, target: Option<&Target>) -> Result<Value> {
        let recovers = target.is_some() && self.flags.more();
        if target.is_none() && self.flags.trains() {
            bail!("--dry-run: recovery cannot be foreseen; leave it out");
        }
        let at_once = self.zeros.as_ref().filter(|_| self.found.is_none() && !recovers);
        let Some(zeros) = at_once else {
            let cooked = self.cook().map_err(|e| untouched(e, target))?;
            let done = self.finished(&cooked, target)?;
            let mut json = self.report(&done, Some(&cooked));
            json["samples"] = json!(cooked.samples);
            return Ok(json);
        };
        let (plan, samples) = self.decide(zeros)?;
        let done = match target {
            Some(target) => self.write(zeros, &plan, target)?,
            None => self.preview(zeros, &plan)?,
        };
        let mut json = self.report(&done, None);
        json["samples"] = json!(samples);
        Ok(json)
    }

    fn effort(&self) -> Effort<'_> {
        Effort {
            threads: self.ui.threads(),
            watch: &self.bars,
        }
    }

    /// The plan, and the number of examples that it was made from.
    fn decide(&self, zeros: &Zeros) -> Result<(Plan, usize)> {
        let method = methods::find(zeros.prune.method()).context("no such method")?;
        let task = Task {
            model: self.old,
            weights: &zeros.weights,
            goal: zeros.goal,
            effort: self.effort(),
        };
        let place = || self.flags.model.display().to_string();
        let targets = task.targets().with_context(place)?;
        let mut stats = Stats::seeded(self.ui.common.seed);
        let mut samples = 0;
        if !method.needs().is_empty() {
            let source = Source::of(&zeros.prune, self.inputs);
            let shown = Shown::new(self.old, method, source, self.ui)?;
            samples = shown.samples();
            let seen = shown.with(self.effort(), |e| observe(self.old, &targets, method.needs(), e));
            stats = seen.with_context(place)?;
        }
        Ok((method.decide(&task, &stats).with_context(place)?, samples))
    }

    fn card(&self, model: &Model, file: Option<&Path>) -> Card {
        Card::of(model, file, &self.trial.shapes)
    }

    fn before(&self) -> Card {
        self.card(self.old, Some(&self.flags.model))
    }

    fn preview<'z>(&self, zeros: &'z Zeros, plan: &Plan) -> Result<Done<'z>> {
        let report = preview(plan, self.old, &self.effort())?;
        let layers = Layers::new(&zeros.weights, report);
        let before = self.before();
        let mut after = before.clone();
        after.zeros += layers.new_zeros() as usize;
        after.file_bytes = None;
        Ok(Done {
            layers: Some(layers),
            kept: None,
            before,
            after,
            verified: None,
        })
    }

    fn write<'z>(&self, zeros: &'z Zeros, plan: &Plan, target: &Target) -> Result<Done<'z>> {
        let mut new = self.old.clone();
        let room = Room {
            memory: MEMORY,
            folder: folder(&target.output).to_owned(),
        };
        let report = apply_with(plan, &mut new, &self.effort(), Some(&room))?;
        let layers = Layers::new(&zeros.weights, report);
        let ([before, after], verified) = self.sign(new, target, layers.total())?;
        Ok(Done {
            layers: Some(layers),
            kept: None,
            before,
            after,
            verified,
        })
    }

    /// Writes the `new` model, and measures what was written. Whether that computes the same could be compared.
    fn sign(&self, mut new: Model, target: &Target, figures: Value) -> Result<([Card; 2], Option<bool>)> {
        let mut before = self.before();
        let mut flags = self.asked();
        flags["recipe"] = json!(self.recipe);
        let receipt = Receipt {
            verb: "prune",
            flags,
            seed: self.ui.common.seed,
            figures,
        };
        receipt.sign(&mut new);
        if self.flags.sparse_initializers {
            onnx::sparsify(&mut new);
        }
        target.verified(&new, |back, file| {
            let small = card::weight_bytes(back) <= LARGE;
            let proved = small.then(|| self.trial.proved(&new, back, self.ui));
            // Figures of what lies in the file.
            let mut after = self.card(back, Some(file));
            [before.ms, after.ms] = self.trial.race([self.old, back], self.ui);
            Ok(([before, after], proved.transpose()?.flatten()))
        })
    }

    /// Takes the steps of the recipe.
    fn cook(&self) -> Result<Cooked> {
        framed((self.sizes, &self.trial), self.ui, |frame| {
            let chain = Chain {
                inputs: self.inputs,
                recipe: self.recipe,
                old: self.old,
                name: &self.flags.model,
                state: self.flags.recovery.state(),
                frame,
                effort: self.effort(),
                ui: self.ui,
            };
            if chain.many() {
                chain.rehearse()?;
            }
            chain.run()
        })
    }

    /// Writes what came of the recipe, if it is to be written, and measures it.
    fn finished(&self, cooked: &Cooked, target: Option<&Target>) -> Result<Done<'_>> {
        let layers = self.zeros.as_ref().map(|zeros| {
            let report: Report = compared(&zeros.weights, &weights(&cooked.model));
            Layers::new(&zeros.weights, report)
        });
        let kept = self.found.as_ref().map(|f| f.kept(&cooked.model, self.sizes));
        let kept = kept.transpose()?;
        let ([before, after], verified) = match target {
            None => ([self.before(), self.card(&cooked.model, None)], None),
            Some(target) => {
                let total = self.total(layers.as_ref(), kept.as_ref());
                let figures = json!({"rounds": cooked.record(), "test": cooked.test()});
                self.sign(cooked.model.clone(), target, joined(total, figures))?
            }
        };
        Ok(Done {
            layers,
            kept,
            before,
            after,
            verified,
        })
    }

    /// What the first step that prunes is asked for.
    fn asked(&self) -> Value {
        let first = prunes(self.recipe).next();
        let none = || self.zeros.as_ref().map(|z| &z.prune);
        first.or_else(none).map_or(json!({}), flags::asked)
    }

    fn total(&self, layers: Option<&Layers>, kept: Option<&Kept>) -> Value {
        let zeros = layers.map_or(json!({}), Layers::total);
        let cuts = self.found.as_ref().zip(kept).map(|(f, k)| f.total(k));
        joined(zeros, cuts.unwrap_or(json!({})))
    }

    fn report(&self, done: &Done, cooked: Option<&Cooked>) -> Value {
        let Done {
            layers,
            kept,
            before,
            after,
            verified,
        } = done;
        if let (Some(layers), Some(zeros)) = (layers, &self.zeros) {
            layers.notes(&zeros.goal, self.ui);
        }
        let cuts = self.found.as_ref().zip(kept.as_ref());
        let words = prunes(self.recipe).map(|p| format!("{}\n", flags::words(p)));
        let tables = [
            Some(words.collect()),
            layers.as_ref().map(|l| l.table().to_string()),
            cuts.map(|(found, kept)| found.tables(kept)),
            cooked.filter(|_| self.flags.more()).map(Cooked::table),
            Some(card::table(&[("before", before), ("after", after)]).to_string()),
        ];
        let all: Vec<String> = tables.into_iter().flatten().collect();
        self.ui.say(&all.join("\n\n"));
        let mut json = json!({
            "model": self.flags.model.display().to_string(),
            "output": null,
            "seed": self.ui.common.seed,
            "before": before.json(),
            "after": after.json(),
            "verified": verified,
            "total": self.total(layers.as_ref(), kept.as_ref()),
            "rounds": cooked.map_or(json!([]), Cooked::rounds),
            "test": cooked.map_or(Value::Null, Cooked::test),
            "recipe": self.recipe,
        });
        if let Some(layers) = layers {
            json["layers"] = layers.json();
            json["skipped"] = layers.skipped();
        }
        if let Some((found, kept)) = cuts {
            json = joined(json, found.json(kept));
        }
        joined(json, self.asked())
    }
}
