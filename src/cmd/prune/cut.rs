//! What `secateur prune` cuts away instead of setting it to zero.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use secateur::Model;
use secateur::compress::groups::{Kind, Shrink, Sizes, squares};
use secateur::compress::{
    Change, Effort, PATTERNS, Pattern, Plan, Report, Scope, apply_with, blocks, groups, least, preview,
};
use serde_json::{Value, json};

use super::super::Outcome;
use super::super::card::{self, Card};
use super::super::pruning::percent;
use super::super::timing::Trial;
use super::super::ui::Ui;
use super::super::written::{Receipt, Target};
use super::flags::Flags;
use super::found::Found;

/// What `--pattern` says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    /// Weights become zero.
    Zero(Pattern),
    /// Groups of these kinds become shorter.
    Cut(&'static str, &'static [Kind]),
}

/// The pattern that leaves out whole residual blocks.
const BLOCK: &str = "block";

/// Patterns that cut, by name.
static CUTS: &[(&str, &[Kind])] = &[
    (BLOCK, &[]),
    ("channel", &[Kind::Channel]),
    ("head", &[Kind::Head]),
    ("head-width", &[Kind::HeadWidth]),
    ("neuron", &[Kind::Neuron]),
    ("structured", &[Kind::Channel, Kind::Head, Kind::Neuron]),
];

impl Default for Shape {
    fn default() -> Shape {
        Shape::Zero(Pattern::default())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Shape::Zero(pattern) => pattern.fmt(f),
            Shape::Cut(name, _) => f.write_str(name),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        if let Some((name, kinds)) = CUTS.iter().find(|(name, _)| *name == text) {
            return Ok(Shape::Cut(name, kinds));
        }
        let zeros = PATTERNS.iter().map(|(n, _)| *n);
        let known: Vec<String> = zeros
            .chain(CUTS.iter().map(|(n, _)| *n))
            .map(String::from)
            .collect();
        let near = || secateur::engine::run::nearest(text, &known);
        let zero = text.parse().map(Shape::Zero);
        zero.map_err(|_| format!("no pattern {text:?}{}; there are: {}", near(), known.join(", ")))
    }
}

/// Cuts what the flags say and reports it.
pub(super) fn run(flags: &Flags, ui: &Ui) -> Result<Outcome> {
    let target = flags.target();
    let how = how(flags, ui)?;
    let old = card::load(&flags.model)?;
    let sizes: Sizes = ui.common.sizes.iter().cloned().collect();
    let place = || flags.model.display().to_string();
    let trial = Trial::of(&old, &flags.inputs, ui)?;
    let (found, plan) = match flags.pattern {
        Shape::Cut(BLOCK, _) => all_blocks(&old, &how, &sizes),
        _ => all_groups(&old, &how, &sizes),
    }
    .with_context(place)?;
    let job = Job {
        old: &old,
        flags,
        how: &how,
        found,
        plan,
        trial,
        ui,
    };
    let (after, report) = match &target {
        Some(target) => job.write(target)?,
        None => job.preview()?,
    };
    let mut json = job.report(&after, &report);
    json["output"] = json!(target.map(|t| t.output.display().to_string()));
    Ok(Outcome::done(json))
}

fn all_groups<'m>(old: &'m Model, how: &Shrink, sizes: &Sizes) -> Result<(Found<'m>, Plan)> {
    let found = groups(old, sizes)?;
    let cut = found.choose(&found.scores(&squares), how, sizes)?;
    Ok((Found::Groups(found), Plan(vec![Change::Narrow(cut)])))
}

fn all_blocks<'m>(old: &'m Model, how: &Shrink, sizes: &Sizes) -> Result<(Found<'m>, Plan)> {
    let found = blocks(old, sizes)?;
    ensure!(
        !found.is_empty(),
        "nothing to cut: the model has no residual blocks with weights"
    );
    let plan = least(&found, how.share).into_iter().map(Change::Bypass).collect();
    Ok((Found::Blocks(found), Plan(plan)))
}

fn how(flags: &Flags, ui: &Ui) -> Result<Shrink> {
    let Shape::Cut(_, kinds) = flags.pattern else {
        bail!("--pattern {} cuts nothing away", flags.pattern);
    };
    if flags.name() != "magnitude"
        || flags.recovery.more()
        || !flags.include.is_empty()
        || flags.sparse_initializers
    {
        bail!(
            "--pattern {} goes by magnitude and takes no --threshold, --include or --sparse-initializers, and nothing that trains",
            flags.pattern
        );
    }
    let share = flags.sparsity.unwrap_or_else(|| {
        ui.note("how much was not said: taken as --sparsity 50%");
        0.5
    });
    Ok(Shrink {
        share,
        of: flags.of.into(),
        scope: flags.scope.map_or(Scope::Layer, Scope::from),
        round_to: flags.round_to as usize,
        kinds: kinds.to_vec(),
        keep: flags.keep.clone(),
    })
}

struct Job<'a> {
    old: &'a Model,
    flags: &'a Flags,
    how: &'a Shrink,
    found: Found<'a>,
    plan: Plan,
    trial: Trial,
    ui: &'a Ui,
}

/// The figures before and after.
type Cards = [Card; 2];

impl Job<'_> {
    fn before(&self) -> Card {
        Card::of(self.old, Some(&self.flags.model), &self.trial.shapes)
    }

    fn preview(&self) -> Result<(Cards, Report)> {
        let report = preview(&self.plan, self.old, &Effort::default())
            .with_context(|| self.flags.model.display().to_string())?;
        let mut new = self.old.clone();
        apply_with(&self.plan, &mut new, &Effort::default(), None)?;
        Ok(([self.before(), Card::of(&new, None, &self.trial.shapes)], report))
    }

    fn write(&self, target: &Target) -> Result<(Cards, Report)> {
        let mut new = self.old.clone();
        let place = || self.flags.model.display().to_string();
        let report = apply_with(&self.plan, &mut new, &Effort::default(), None).with_context(place)?;
        let receipt = Receipt {
            verb: "prune",
            flags: self.asked(),
            seed: self.ui.common.seed,
            figures: self.total(&report),
        };
        receipt.sign(&mut new);
        target.write(&new)?;
        let new = card::load(&target.output)?;
        let mut cards = [
            self.before(),
            Card::of(&new, Some(&target.output), &self.trial.shapes),
        ];
        let times = self.trial.race([self.old, &new], self.ui);
        cards.iter_mut().zip(times).for_each(|(c, ms)| c.ms = ms);
        Ok((cards, report))
    }

    /// What is asked, for `--json` and the file's metadata.
    fn asked(&self) -> Value {
        let of = serde_json::to_value(self.how.of).unwrap_or_default();
        let scope = serde_json::to_value(self.how.scope).unwrap_or_default();
        json!({
            "method": "magnitude",
            "pattern": self.flags.pattern.to_string(),
            "sparsity": self.how.share,
            "of": of,
            "scope": scope,
            "round_to": self.how.round_to,
            "keep": self.how.keep,
        })
    }

    fn total(&self, report: &Report) -> Value {
        let sum = |of: fn(&secateur::compress::Width) -> usize| report.widths.iter().map(of).sum::<usize>();
        match &self.found {
            Found::Groups(found) => json!({
                "groups": found.groups.len(),
                "cut": report.widths.len(),
                "widths_before": sum(|w| w.before),
                "widths": sum(|w| w.after),
            }),
            Found::Blocks(found) => json!({"blocks": found.len(), "cut": self.plan.0.len()}),
        }
    }

    fn report(&self, cards: &Cards, report: &Report) -> Value {
        let [before, after] = cards;
        let table = card::table(&[("before", before), ("after", after)]);
        let head = format!(
            "{}: {} % of {} go",
            self.flags.pattern,
            percent(self.how.share),
            self.asked()["of"].as_str().unwrap_or_default()
        );
        self.ui.say(&format!(
            "{head}\n\n{}\n\n{}{table}",
            self.found.table(report, &self.plan),
            self.found.uncut()
        ));
        let mut json = json!({
            "model": self.flags.model.display().to_string(),
            "output": null,
            "seed": self.ui.common.seed,
            "before": before.json(),
            "after": after.json(),
            "total": self.total(report),
        });
        if let (Value::Object(json), Value::Object(more)) = (&mut json, self.found.json(report, &self.plan)) {
            json.extend(more);
        }
        if let (Value::Object(json), Value::Object(asked)) = (&mut json, self.asked()) {
            json.extend(asked);
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_told_apart_by_name() {
        assert!(CUTS.is_sorted_by_key(|c| c.0));
        for (name, kinds) in CUTS {
            assert_eq!(name.parse(), Ok(Shape::Cut(name, kinds)));
        }
        assert_eq!("2:4".parse(), Ok(Shape::Zero(Pattern::Most { keep: 2, of: 4 })));
        let error = "chanel".parse::<Shape>().unwrap_err();
        assert!(
            error.contains("did you mean \"channel\"") && error.contains("block4x1"),
            "{error}"
        );
    }
}
