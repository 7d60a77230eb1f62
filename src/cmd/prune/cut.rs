//! What `secateur prune` cuts away instead of setting it to zero.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use secateur::Model;
use secateur::compress::groups::{Kind, Shrink, Sizes, squares};
use secateur::compress::recipe::Recipe;
use secateur::compress::{
    Block, Change, Effort, PATTERNS, Pattern, Plan, Report, Scope, Stats, Weight, apply_with, blocks, groups,
    least, matches, methods, observe, preview, weights,
};
use serde_json::{Value, json};

use super::super::Outcome;
use super::super::card::{self, Card};
use super::super::pruning::percent;
use super::super::recipe::{Chain, Cooked, Shown, Source};
use super::super::timing::Trial;
use super::super::ui::Ui;
use super::super::written::{Receipt, Target};
use super::flags::Flags;
use super::found::Found;
use super::{joined, kept};

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

/// What `--round-to` is where it is not given.
const ROUND_TO: u32 = 16;

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
    let after = flags.recovery.after(ui.common.seed)?;
    let (found, plan) = match flags.pattern {
        Shape::Cut(BLOCK, _) => all_blocks(&old, &how, &sizes),
        _ => all_groups(&old, (&how, &sizes), flags, ui),
    }
    .with_context(place)?;
    let job = Job {
        old: &old,
        flags,
        how: &how,
        found,
        plan,
        after,
        trial,
        ui,
    };
    let done = match &target {
        Some(target) => job.write(target)?,
        None => job.preview()?,
    };
    let mut json = job.report(&done);
    json["output"] = json!(target.map(|t| t.output.display().to_string()));
    Ok(Outcome::done(json))
}

fn all_groups<'m>(
    old: &'m Model,
    (how, sizes): (&Shrink, &Sizes),
    flags: &Flags,
    ui: &Ui,
) -> Result<(Found<'m>, Plan)> {
    let found = groups(old, sizes)?;
    let scores = match flags.name() {
        "magnitude" => found.scores(&squares),
        _ => {
            let all = scores(old, flags, ui)?;
            found.scores(&|name, _| all.get(name).cloned())
        }
    };
    let cut = found.choose(&scores, how, sizes)?;
    Ok((Found::Groups(found.into()), Plan(vec![Change::Narrow(cut)])))
}

/// By name of a weight how important the method of `flags` finds its elements.
fn scores(old: &Model, flags: &Flags, ui: &Ui) -> Result<HashMap<String, Vec<f64>>> {
    let method = flags.method()?;
    let mut all = weights(old);
    methods::mark(method, old, &mut all);
    let targets: Vec<_> = all.iter().filter(|w| w.exempt.is_none()).collect();
    let mut stats = Stats::seeded(ui.common.seed);
    if !method.needs().is_empty() {
        let lesson = flags.recovery.lesson();
        let source = Source {
            data: flags.recovery.data(),
            lesson: lesson.as_ref(),
            samples: flags.samples,
            inputs: &flags.inputs,
        };
        let shown = Shown::new(old, method, source, ui)?;
        stats = shown.with(Effort::default(), |e| observe(old, &targets, method.needs(), e))?;
    }
    let one = |w: &&Weight| {
        let found = method.scores(old, w, &stats)?;
        Ok((w.name.clone(), found.into_iter().map(f64::from).collect()))
    };
    targets.iter().map(one).collect()
}

fn all_blocks<'m>(old: &'m Model, how: &Shrink, sizes: &Sizes) -> Result<(Found<'m>, Plan)> {
    let found = blocks(old, sizes)?;
    ensure!(
        !found.is_empty(),
        "nothing to cut: the model has no residual blocks with weights"
    );
    let free = unkept(&found, &how.keep)?;
    ensure!(!free.is_empty(), "nothing to cut: --keep leaves no block");
    let plan = least(&free, how.share).into_iter().map(Change::Bypass).collect();
    Ok((Found::Blocks(found), Plan(plan)))
}

/// Those of `blocks` whose sum and nodes no pattern of `keep` fits; each of these fits some block.
fn unkept(blocks: &[Block], keep: &[String]) -> Result<Vec<Block>> {
    let fits = |b: &Block, glob: &str| {
        let names = std::iter::once(&b.sum).chain(&b.nodes);
        names.into_iter().any(|n| matches(glob, n))
    };
    for glob in keep {
        let found = blocks.iter().any(|b| fits(b, glob));
        ensure!(found, "{glob:?} fits no sum and no node of a block");
    }
    let free = blocks.iter().filter(|b| !keep.iter().any(|glob| fits(b, glob)));
    Ok(free.cloned().collect())
}

/// Refuses what has no meaning for whole blocks.
fn for_blocks(flags: &Flags) -> Result<()> {
    if flags.name() != "magnitude" {
        bail!("--pattern block goes by magnitude");
    }
    if flags.of.is_some() || flags.round_to.is_some() || flags.scope.is_some() {
        bail!("--pattern block takes no --of, --round-to or --scope: --sparsity is the share of blocks");
    }
    Ok(())
}

fn how(flags: &Flags, ui: &Ui) -> Result<Shrink> {
    let Shape::Cut(_, kinds) = flags.pattern else {
        bail!("--pattern {} cuts nothing away", flags.pattern);
    };
    if flags.threshold.is_some() || !flags.include.is_empty() || flags.sparse_initializers {
        bail!(
            "--pattern {} takes no --threshold, --include or --sparse-initializers",
            flags.pattern
        );
    }
    if matches!(flags.pattern, Shape::Cut(BLOCK, _)) {
        for_blocks(flags)?;
    }
    let share = flags.sparsity.unwrap_or_else(|| {
        ui.note("how much was not said: taken as --sparsity 50%");
        0.5
    });
    Ok(Shrink {
        share,
        of: flags.of.unwrap_or_default().into(),
        scope: flags.scope.map_or(Scope::Layer, Scope::from),
        round_to: flags.round_to.unwrap_or(ROUND_TO) as usize,
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
    /// What follows.
    after: Option<Recipe>,
    trial: Trial,
    ui: &'a Ui,
}

/// What was written: the figures before and after, what was cut, and what came of recovery.
struct Written {
    cards: Cards,
    report: Report,
    cooked: Option<Cooked>,
}

/// The figures before and after.
type Cards = [Card; 2];

impl Job<'_> {
    fn before(&self) -> Card {
        Card::of(self.old, Some(&self.flags.model), &self.trial.shapes)
    }

    fn preview(&self) -> Result<Written> {
        if self.after.is_some() {
            bail!("--dry-run: recovery cannot be foreseen; leave it out");
        }
        let report = preview(&self.plan, self.old, &Effort::default())
            .with_context(|| self.flags.model.display().to_string())?;
        let mut new = self.old.clone();
        apply_with(&self.plan, &mut new, &Effort::default(), None)?;
        Ok(Written {
            cards: [self.before(), Card::of(&new, None, &self.trial.shapes)],
            report,
            cooked: None,
        })
    }

    /// `cut`, after what follows.
    fn recovered(&self, cut: &Model) -> Result<Option<Cooked>> {
        let Some(recipe) = &self.after else {
            return Ok(None);
        };
        let chain = Chain {
            recipe,
            old: self.old,
            start: cut,
            name: &self.flags.model,
            flags: &self.flags.recovery,
            inputs: &self.flags.inputs,
            effort: Effort::default(),
            ui: self.ui,
        };
        chain.run().map(Some)
    }

    fn write(&self, target: &Target) -> Result<Written> {
        let mut new = self.old.clone();
        let place = || self.flags.model.display().to_string();
        let report = apply_with(&self.plan, &mut new, &Effort::default(), None).with_context(place)?;
        let cooked = self.recovered(&new).map_err(|e| kept(e, target))?;
        if let Some(cooked) = &cooked {
            new = cooked.model.clone();
        }
        let mut flags = self.asked();
        flags["after"] = json!(self.after);
        let receipt = Receipt {
            verb: "prune",
            flags,
            seed: self.ui.common.seed,
            figures: joined(self.total(&report), figures(cooked.as_ref(), Cooked::record)),
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
        Ok(Written {
            cards,
            report,
            cooked,
        })
    }

    /// What is asked, for `--json` and the file's metadata.
    fn asked(&self) -> Value {
        let of = serde_json::to_value(self.how.of).unwrap_or_default();
        let scope = serde_json::to_value(self.how.scope).unwrap_or_default();
        let (of, scope, round_to) = match &self.found {
            Found::Groups(_) => (of, scope, json!(self.how.round_to)),
            Found::Blocks(_) => (json!("blocks"), Value::Null, Value::Null),
        };
        json!({
            "method": self.flags.name(),
            "pattern": self.flags.pattern.to_string(),
            "sparsity": self.how.share,
            "of": of,
            "scope": scope,
            "round_to": round_to,
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

    fn report(&self, done: &Written) -> Value {
        let Written {
            cards: [before, after],
            report,
            cooked,
        } = done;
        let table = card::table(&[("before", before), ("after", after)]);
        let head = format!(
            "{}: {} % of {} go",
            self.flags.pattern,
            percent(self.how.share),
            self.asked()["of"].as_str().unwrap_or_default()
        );
        self.ui.say(&format!(
            "{head}\n\n{}\n\n{}{}{table}",
            self.found.table(report, &self.plan),
            self.found.uncut(),
            cooked
                .as_ref()
                .map_or(String::new(), |c| format!("{}\n\n", c.table())),
        ));
        let json = json!({
            "model": self.flags.model.display().to_string(),
            "output": null,
            "seed": self.ui.common.seed,
            "before": before.json(),
            "after": after.json(),
            "total": self.total(report),
        });
        let json = joined(json, figures(cooked.as_ref(), Cooked::rounds));
        let json = joined(json, self.found.json(report, &self.plan));
        joined(json, self.asked())
    }
}

/// What is told of recovery.
fn figures(cooked: Option<&Cooked>, rounds: fn(&Cooked) -> Value) -> Value {
    json!({
        "rounds": cooked.map_or(json!([]), rounds),
        "test": cooked.map_or(Value::Null, Cooked::test),
    })
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
