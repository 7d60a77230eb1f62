//! `secateur compress`: prune, recover and verify in one go, under one budget.

mod agree;
mod exam;
mod flags;
mod hunt;
mod pupil;
mod story;
mod usual;
mod whole;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secateur::Model;
use secateur::compress::Effort;
use secateur::compress::budget::Curve;
use secateur::compress::recipe::{Budgeted, Recipe, Step};
use serde_json::{Value, json};

use super::bars::Bars;
use super::card::{self, Card};
use super::recipe::{INPUTS, inputs, names, note, seeded};
use super::report;
use super::source::InputFlags;
use super::timing::Trial;
use super::ui::Ui;
use super::written;
use super::{Cmd, Outcome};

use flags::{Flags, WORDS};
use hunt::Hunt;
use pupil::Pupil;

/// The verb.
pub(super) struct Compress;

impl Cmd for Compress {
    fn command(&self) -> Command {
        let about = "Prunes, recovers and verifies under one budget";
        let command = Flags::augment_args(Command::new("compress"));
        let saying =
            |c: Command, (flag, words): (&'static str, &'static str)| c.mut_arg(flag, |a| a.help(words));
        let command = WORDS.into_iter().fold(command, saying);
        command.about(about).after_help(names())
    }

    fn run(&self, flags: &ArgMatches, ui: &Ui) -> Result<Outcome> {
        let matches = flags;
        let flags = Flags::from_arg_matches(matches)?;
        flags.check()?;
        let mut recipe = flags.recipe(ui.common.seed)?;
        note(&mut recipe, &flags.inputs)?;
        let inputs = inputs(&recipe, &flags.inputs);
        let ui = seeded(&mut recipe, matches, ui);
        let old = card::load(&flags.model)?;
        let job = Job {
            trial: Trial::of(&old, &inputs, &ui)?,
            inputs: &inputs,
            bars: Bars::new(&ui),
            flags: &flags,
            old: &old,
            ui: &ui,
        };
        job.run(recipe)
    }
}

/// What is asked, and of which model.
struct Job<'a> {
    flags: &'a Flags,
    inputs: &'a InputFlags,
    old: &'a Model,
    trial: Trial,
    bars: Bars<'a>,
    ui: &'a Ui,
}

impl Job<'_> {
    fn run(&self, mut recipe: Recipe) -> Result<Outcome> {
        let budget = match &mut recipe.step[..] {
            [Step::Budget(budget)] => budget,
            _ => return self.chain(&recipe),
        };
        if let Some(points) = self.flags.max_drop {
            budget.max_drop = points;
        }
        self.fill(budget)?;
        let mut budget = budget.as_ref().clone();
        let place = || self.flags.model.display().to_string();
        let named = (self.flags.model.as_path(), &budget);
        let mut pupil = Pupil::new((self.old, self.old), named, self.inputs, self.ui).with_context(place)?;
        self.measure_out(&mut budget, &mut pupil)?;
        recipe.step = vec![Step::Budget(budget.clone().into())];
        let hunt = Hunt {
            pupil: &pupil,
            old: self.old,
            budget: &budget,
            choice: budget.choice(),
            trial: &self.trial,
            inputs: self.inputs,
            effort: self.effort(),
            macs: self.card(self.old, &self.flags.model).macs,
            ui: self.ui,
        };
        let done = match (self.flags.dry_run, self.flags.only_curves()) {
            (false, false) => self.hunted(&hunt, &recipe),
            _ => self.foretold(&hunt, &recipe),
        };
        done.with_context(place)
    }

    fn effort(&self) -> Effort<'_> {
        Effort {
            threads: self.ui.threads(),
            watch: &self.bars,
        }
    }

    fn card(&self, model: &Model, file: &Path) -> Card {
        Card::of(model, Some(file), &self.trial.shapes)
    }

    /// Fills in what nobody said of how the model learns, as far as it follows from the model alone.
    fn fill(&self, budget: &mut Budgeted) -> Result<()> {
        if budget.finetune.data == INPUTS && self.inputs.inputs.is_empty() {
            bail!("the recipe's examples are the inputs that -i gives; none is given");
        }
        let card = self.card(self.old, &self.flags.model);
        let unlabelled = budget.finetune.data == INPUTS || without_labels(&budget.finetune.data);
        usual::lesson(
            &mut budget.finetune,
            card.parameters,
            self.each(&card),
            unlabelled,
        );
        usual::repairs(budget);
        Ok(())
    }

    /// Multiply-adds of an example.
    fn each(&self, card: &Card) -> Option<u64> {
        let batch = self
            .trial
            .shapes
            .first()
            .and_then(|(_, dims)| dims.first().copied());
        card.macs.map(|m| m / batch.unwrap_or(1).max(1) as u64)
    }

    /// Fills in how long the model learns, which depends on its examples.
    fn measure_out(&self, budget: &mut Budgeted, pupil: &mut Pupil) -> Result<()> {
        let card = self.card(self.old, &self.flags.model);
        let how = &mut budget.finetune;
        if let (None, true) = (
            self.flags.recovery.finetune,
            how.epochs == 0 && !self.flags.by_recipe(),
        ) {
            how.epochs = usual::epochs(self.each(&card), pupil.start.batch, pupil.batches()?);
        }
        if how.lr_schedule.is_none() && how.epochs > 0 {
            how.lr_schedule = Some(usual::schedule(how.epochs));
        }
        pupil.learns(how.epochs, how.lr_schedule.as_deref())
    }

    /// Writes the curves where they are wanted.
    fn draw(&self, curves: &[Curve]) -> Result<()> {
        for file in &self.flags.sensitivity {
            let text = match file.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
                true => story::csv(curves),
                false => report::curves(curves),
            };
            self.put(file, &text)?;
        }
        Ok(())
    }

    fn put(&self, file: &Path, text: &str) -> Result<()> {
        written::replace(file, self.flags.force, |out| Ok(out.write_all(text.as_bytes())?))
    }

    /// Writes the recipe, if that is wanted.
    fn save(&self, recipe: &Recipe) -> Result<()> {
        self.flags.recovery.save(recipe, self.flags.force)
    }

    /// Measures the curves, and says what they foretell.
    fn foretold(&self, hunt: &Hunt, recipe: &Recipe) -> Result<Outcome> {
        let curves = hunt.curves()?;
        self.draw(&curves)?;
        self.ui.say(&story::curves(&curves).to_string());
        let before = self.card(self.old, &self.flags.model);
        let mut json = json!({
            "model": self.flags.model.display().to_string(),
            "output": null,
            "seed": self.ui.common.seed,
            "steps": [],
            "before": before.json(),
            "after": null,
            "curves": curves,
        });
        if self.flags.dry_run {
            json["recipe"] = json!(recipe);
            json["foretold"] = self.said(hunt, curves)?;
            self.save(recipe)?;
        }
        Ok(Outcome::done(json))
    }

    /// What `curves` foretell, said.
    fn said(&self, hunt: &Hunt, curves: Vec<Curve>) -> Result<Value> {
        let told = hunt.foretold(curves)?;
        let unit = hunt::unit(hunt.quantity());
        let (before, after) = (told.cost_before, told.cost);
        let wanted = match hunt.budget.target {
            Some(target) => format!("; {target} wants {:.4}", told.aim),
            None => String::new(),
        };
        self.ui.say(&format!(
            "\n{}\n\npredicted: {before:.4} {unit} before, {after:.4} after{wanted}; what recovery makes of it cannot be foreseen",
            story::shares(&told.shares)
        ));
        let shares = told
            .shares
            .iter()
            .map(|(name, share)| json!({"name": name, "sparsity": share}));
        Ok(json!({
            "unit": unit,
            "before": before,
            "after": after,
            "wanted": hunt.budget.target.map(|_| told.aim),
            "layers": shares.collect::<Vec<_>>(),
        }))
    }
}

/// Whether `data` is an archive of arrays without labels.
fn without_labels(data: &str) -> bool {
    let path = PathBuf::from(data);
    let archive = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz"));
    archive
        && ["y", "y_train"]
            .iter()
            .all(|key| secateur::train::data::npz::read(&path, Some(key)).is_err())
}
