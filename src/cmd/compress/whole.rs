//! The whole way: search or recipe, file, verification, figures.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use secateur::Model;
use secateur::compress::budget::{Costs, Curve, Quantity, Sizes, Target as Aimed, Verdict};
use secateur::compress::recipe::Recipe;
use secateur::compress::rounds::Score;
use secateur::engine::onnx;
use serde_json::{Value, json};

use super::super::card::{self, Card};
use super::super::recipe::{Chain, Cooked, framed, freed, untouched};
use super::super::report::{self, Aim, Story, Tried};
use super::super::written::{Receipt, Target};
use super::super::{Outcome, joined};
use super::Job;
use super::hunt::{self, Catch, Hunt};
use super::story::{self, Measured};

/// What is to be written and told, whichever way it was made.
struct Made<'a> {
    model: Model,
    recipe: &'a Recipe,
    /// Of test examples, where there are some.
    worth: Option<Measured>,
    max_drop: Option<f64>,
    target: Option<Aimed>,
    /// What the model costs in the quantity of the target, before and after, where that is not time.
    cost: Option<[f64; 2]>,
    curves: &'a [Curve],
    tried: Vec<Tried>,
    /// As `--json` has the steps, and the table of them.
    steps: Value,
    table: String,
    more: Value,
    sparse: bool,
}

/// What was written, measured.
struct Measures {
    before: Card,
    after: Card,
    /// What it costs, and what it was to cost, where that is known.
    aim: Option<Aim>,
    /// Whether the file computes the same; none where that could not be compared.
    equal: Option<bool>,
    reached: Option<bool>,
}

impl Job<'_> {
    /// Searches, writes what was found, and says it.
    pub(super) fn hunted(&self, hunt: &Hunt, recipe: &Recipe) -> Result<Outcome> {
        let target = self.flags.target().context("there is no file to write")?;
        if hunt.quantity() == Quantity::Ms && crate::rates::cached().threads() == 0 {
            self.ui.note("times are predicted by built-in rates, which may mislead the search; `secateur calibrate` measures this machine's once");
        }
        let caught = hunt
            .run(self.flags.recovery.state())
            .map_err(|e| untouched(e, Some(&target)))?;
        self.draw(&caught.found.curves)?;
        self.save(recipe)?;
        let budget = hunt.budget;
        let name = match (hunt.pupil.labelled(), caught.test.0.accuracy) {
            (false, _) => "agreement",
            (true, Some(_)) => "accuracy",
            (true, None) => "loss",
        };
        let validation = Measured {
            name,
            before: caught.found.before,
            after: caught.step().map_or(caught.found.before, |t| t.after),
            examples: caught.examples[0],
        };
        let more = json!({
            "budget": {"max_drop": budget.max_drop, "tries": budget.tries(), "validation": validation.json()},
            "curves": caught.found.curves,
        });
        let model = match &caught.chosen {
            Some(stage) => freed(stage.model.clone(), self.old),
            None if caught.idle() => self.old.clone(),
            None => return Ok(self.nothing(hunt, &caught, (recipe, more))),
        };
        let found = &caught.found;
        let quantity = hunt.quantity();
        let cost = caught.step().map_or(found.cost, |t| t.cost);
        let tries = caught.tries();
        let made = Made {
            model,
            recipe,
            worth: Some(Measured {
                name,
                before: caught.test.0,
                after: caught.test.1.unwrap_or(caught.test.0),
                examples: caught.examples[1],
            }),
            max_drop: Some(budget.max_drop),
            target: budget.target,
            cost: (quantity != Quantity::Ms).then_some([found.cost_before, cost]),
            curves: &found.curves,
            tried: story::tried(&tries),
            steps: story::json(&tries),
            table: story::steps(&tries, quantity).to_string(),
            more,
            sparse: self.flags.sparse_initializers || quantity == Quantity::Mb,
        };
        let why = || stopped(&caught, hunt);
        self.finish(made, &target, &why)
    }

    /// That nothing holds, said; nothing is written.
    fn nothing(&self, hunt: &Hunt, caught: &Catch, (recipe, more): (&Recipe, Value)) -> Outcome {
        let points = hunt.budget.max_drop;
        let reason = match (&caught.failed[..], &caught.found.tries[..]) {
            ([], []) => "nothing is pruned: there is nothing to prune that would make it cheaper".to_owned(),
            ([], tries) if !caught.found.kept.is_empty() => format!(
                "nothing is pruned: no step that holds made it cheaper; at best {:.4} {} of {:.4}",
                tries
                    .iter()
                    .filter(|t| t.verdict == Verdict::Kept)
                    .map(|t| t.cost)
                    .fold(f64::INFINITY, f64::min),
                hunt::unit(hunt.quantity()),
                caught.found.cost_before
            ),
            ([], tries) => format!(
                "nothing is pruned: each of {} steps broke the budget of {points} points on the {} validation examples",
                tries.len(),
                caught.examples[0]
            ),
            (failed, _) => {
                let least = failed
                    .iter()
                    .map(|(_, fell)| 100.0 * fell)
                    .fold(f64::INFINITY, f64::min);
                format!(
                    "nothing is pruned: what held on the validation examples lost {least:.2} points or more on the {} test examples, and \
                     the budget is {points}",
                    caught.examples[1]
                )
            }
        };
        let table = story::steps(&caught.tries(), hunt.quantity());
        self.ui.say(&format!("{table}\n\n{reason}; {}", self.unwritten()));
        let json = json!({
            "model": self.flags.model.display().to_string(),
            "output": null,
            "seed": self.ui.common.seed,
            "steps": story::json(&caught.tries()),
            "before": self.card(self.old, &self.flags.model).json(),
            "after": null,
            "metric": null,
            "verified": null,
            "report": null,
            "target": hunt.budget.target.map(|t| json!({"asked": t.to_string()})),
            "reached": false,
            "reason": reason,
            "recipe": recipe,
        });
        Outcome {
            json: joined(json, more),
            pass: false,
        }
    }

    /// What is not written, in words.
    fn unwritten(&self) -> &'static str {
        match self.flags.report {
            Some(_) => "no file is written, and no page is written",
            None => "no file is written",
        }
    }

    /// Takes the steps of `recipe`, which has no budget; `--max-drop` is a gate in the end.
    pub(super) fn chain(&self, recipe: &Recipe) -> Result<Outcome> {
        let Some(target) = self.flags.target() else {
            bail!("--dry-run and --sensitivity alone: recovery cannot be foreseen; the recipe has no budget");
        };
        if !self.flags.sensitivity.is_empty() {
            bail!("--sensitivity is drawn by the search for a budget; the recipe has none");
        }
        let (checkpoint, resume) = self.flags.recovery.state();
        let checkpoint = checkpoint.map(beside);
        let free = self.ui.common.sizes.iter().cloned().collect();
        let cooked = framed((&free, &self.trial), self.ui, |frame| {
            self.cook(&Chain {
                inputs: self.inputs,
                recipe,
                old: self.old,
                name: &self.flags.model,
                state: (checkpoint.as_deref(), resume),
                frame,
                effort: self.effort(),
                ui: self.ui,
            })
        });
        let cooked = cooked.map_err(|e| untouched(e, Some(&target)))?;
        self.save(recipe)?;
        let test = cooked.test();
        let score = |which: &str| serde_json::from_value::<Score>(test[which].clone()).ok();
        let worth = score("before")
            .zip(score("after"))
            .map(|(before, after)| Measured {
                name: if before.accuracy.is_some() {
                    "accuracy"
                } else {
                    "loss"
                },
                before,
                after,
                examples: 0,
            });
        if worth.is_none() && self.flags.max_drop.is_some() {
            bail!("--max-drop: the test examples did not tell what the models are worth");
        }
        let rounds = cooked.rounds();
        let made = Made {
            model: cooked.model.clone(),
            recipe,
            worth,
            max_drop: self.flags.max_drop,
            target: None,
            cost: None,
            curves: &[],
            tried: rounds.as_array().into_iter().flatten().map(round).collect(),
            table: cooked.table(),
            steps: rounds,
            more: json!({}),
            sparse: self.flags.sparse_initializers,
        };
        // What is no number is too much.
        let holds = |w: &Measured, most: f64| w.points() <= most + 1e-7;
        let broken = made.worth.zip(made.max_drop).filter(|(w, most)| !holds(w, *most));
        match broken {
            Some((worth, most)) => Ok(self.broken(&made, worth, most)),
            None => self.finish(made, &target, &String::new),
        }
    }

    /// Takes the steps, if what has to be known of them in the end can be.
    fn cook(&self, chain: &Chain) -> Result<Cooked> {
        let last = match chain.many() || self.flags.max_drop.is_some() {
            true => chain.rehearse()?,
            false => None,
        };
        if self.flags.max_drop.is_some() {
            let none = "the recipe looks at no test examples by which the drop could be measured";
            let lesson = last.context(none).and_then(|lesson| lesson.measures());
            lesson.context("--max-drop")?;
        }
        chain.run()
    }

    /// That a recipe lost too much, said; nothing is written.
    fn broken(&self, made: &Made, worth: Measured, most: f64) -> Outcome {
        let reason = format!(
            "the budget is broken: the recipe loses {:.2} points of {}, and --max-drop is {most}",
            worth.points(),
            worth.name
        );
        self.ui
            .say(&format!("{}\n\n{reason}; {}", made.table, self.unwritten()));
        let json = json!({
            "model": self.flags.model.display().to_string(),
            "output": null,
            "seed": self.ui.common.seed,
            "steps": made.steps,
            "before": self.card(self.old, &self.flags.model).json(),
            "after": null,
            "metric": worth.json(),
            "verified": null,
            "report": null,
            "reached": false,
            "reason": reason,
            "recipe": made.recipe,
        });
        Outcome { json, pass: false }
    }

    /// Writes the model, if what is read back computes the same, measures it, and says everything. `why` says why a target was not reached.
    fn finish(&self, mut made: Made, target: &Target, why: &dyn Fn() -> String) -> Result<Outcome> {
        let before = self.card(self.old, &self.flags.model);
        let receipt = Receipt {
            verb: "compress",
            flags: json!({"recipe": made.recipe, "max_drop": made.max_drop, "sparse_initializers": made.sparse}),
            seed: self.ui.common.seed,
            figures: json!({"steps": timeless(&made.steps), "metric": made.worth.map(|w| w.json())}),
        };
        receipt.sign(&mut made.model);
        if made.sparse {
            onnx::sparsify(&mut made.model);
        }
        let (measures, page) = target.verified(&made.model, |new, file| {
            let equal = self.trial.proved(&made.model, new, self.ui)?;
            let measures = self.measured(&made, (before, new), (file, equal));
            let page = self.page(&made, &measures, new);
            Ok((measures, page))
        })?;
        for (file, text) in self.flags.report.iter().zip(page) {
            self.put(file, &text)?;
        }
        Ok(self.told(&made, &measures, (target, why)))
    }

    /// Measures what `file` holds, and whether it was `equal` to what was to be written.
    fn measured(
        &self,
        made: &Made,
        (mut before, new): (Card, &Model),
        (file, equal): (&Path, Option<bool>),
    ) -> Measures {
        let mut after = self.card(new, file);
        [before.ms, after.ms] = self.trial.race([self.old, new], self.ui);
        let cost = match (made.target.map(Aimed::quantity), made.cost) {
            (None, _) => before.ms.zip(after.ms).map(|(a, b)| [a, b]),
            (Some(Quantity::Mb), _) => {
                Some([before.file_mb().unwrap_or(0.0), after.file_mb().unwrap_or(0.0)])
            }
            (Some(_), Some(cost)) => Some(cost),
            (Some(_), None) => before.ms.zip(after.ms).map(|(a, b)| [a, b]),
        };
        let aim = cost.map(|[before, after]| Aim {
            unit: hunt::unit(made.target.map_or(Quantity::Ms, Aimed::quantity)),
            before,
            wanted: made.target.map_or(0.0, |t| t.most(before)),
            after,
        });
        Measures {
            reached: made
                .target
                .map(|_| aim.as_ref().is_some_and(|a| a.after <= a.wanted)),
            equal,
            before,
            after,
            aim,
        }
    }

    /// The page, if one is wanted.
    fn page(&self, made: &Made, measures: &Measures, new: &Model) -> Option<String> {
        self.flags.report.as_ref()?;
        let ms = [self.old, new].map(|m| self.predicted(m));
        let Measures { before, after, .. } = measures;
        let story = Story {
            name: self.flags.model.display().to_string(),
            command: command(),
            asked: asked(made),
            before,
            after,
            worth: made.worth.map(|w| w.worth(made.max_drop)),
            aim: measures.aim.as_ref().map(|a| Aim { ..*a }),
            layers: story::layers(self.old, new, [&ms[0], &ms[1]]),
            steps: made.tried.iter().map(again).collect(),
            curves: made.curves,
            notes: vec![
                ("version".into(), env!("CARGO_PKG_VERSION").into()),
                ("threads".into(), self.ui.threads().to_string()),
                ("instruction set".into(), secateur::engine::cpu::isa().to_string()),
                ("seed".into(), self.ui.common.seed.to_string()),
            ],
        };
        Some(report::page(&story))
    }

    /// By name of a weight what its products are predicted to take.
    fn predicted(&self, model: &Model) -> HashMap<String, f64> {
        let rates = crate::rates::cached();
        let sizes = Sizes {
            shapes: self.trial.shapes.iter().map(|(_, dims)| dims.clone()).collect(),
            threads: self.ui.threads(),
            rates: &rates,
        };
        // A page without this column is better than none.
        Costs::new(model, Quantity::Ms, &sizes)
            .map(|c| c.of)
            .unwrap_or_default()
    }

    fn told(
        &self,
        made: &Made,
        measures: &Measures,
        (target, why): (&Target, &dyn Fn() -> String),
    ) -> Outcome {
        let reason = reason(made, measures, why);
        let table = card::table(&[("before", &measures.before), ("after", &measures.after)]);
        self.ui.say(&format!("{}\n\n{table}\n\n{reason}", made.table));
        let aim = measures.aim.as_ref();
        let json = json!({
            "model": self.flags.model.display().to_string(),
            "output": target.output.display().to_string(),
            "seed": self.ui.common.seed,
            "steps": made.steps,
            "before": measures.before.json(),
            "after": measures.after.json(),
            "metric": made.worth.map(|w| w.json()),
            "target": made.target.map(|t| json!({
                "asked": t.to_string(),
                "unit": hunt::unit(t.quantity()),
                "before": aim.map(|a| a.before),
                "wanted": aim.map(|a| a.wanted),
                "after": aim.map(|a| a.after),
            })),
            "reached": measures.reached,
            "reason": reason,
            "verified": measures.equal,
            "report": self.flags.report.as_ref().map(|f| f.display().to_string()),
            "recipe": made.recipe,
        });
        Outcome {
            json: joined(json, made.more.clone()),
            pass: measures.reached != Some(false),
        }
    }
}

/// In one sentence how it ended.
fn reason(made: &Made, measures: &Measures, why: &dyn Fn() -> String) -> String {
    let worth = made.worth.filter(|w| w.points().is_finite());
    let lost = worth.map_or(String::new(), |w| {
        let on = match w.examples {
            0 => "the test examples".to_owned(),
            n => format!("{n} test examples"),
        };
        format!(
            ", {:.2} points of {} lost on {on} that no step has seen",
            w.points(),
            w.name
        )
    });
    let far = measures.aim.as_ref().map(|a| {
        let (unit, before, after, wanted) = (a.unit, a.before, a.after, a.wanted);
        format!(
            "{:.2}x: {after:.4} {unit} of {before:.4}, wanted {wanted:.4}",
            before / after.max(f64::MIN_POSITIVE)
        )
    });
    match (measures.reached, far) {
        (Some(true), Some(far)) => format!("reached: {far}{lost}"),
        (Some(_), far) => {
            let far = far.unwrap_or_else(|| "the model could not be timed".into());
            format!("the target is not reached: {far}{lost}; {}", why())
        }
        (None, _) => format!("done{lost}"),
    }
}

/// Why a search went no farther.
fn stopped(caught: &Catch, hunt: &Hunt) -> String {
    let tries = &caught.found.tries;
    let points = hunt.budget.max_drop;
    let chosen = caught.step().map_or(0, |t| t.number);
    let broken = tries
        .iter()
        .rfind(|t| t.number > chosen && t.verdict == Verdict::TakenBack);
    match broken {
        _ if !caught.failed.is_empty() => {
            format!("what went farther broke the budget of {points} points on the test examples")
        }
        Some(t) => format!(
            "step {} went farther and lost {:.2} points of {points} on the validation examples",
            t.number,
            100.0 * secateur::compress::budget::fall(&caught.found.before, &t.after)
        ),
        None if tries.iter().any(|t| t.number > chosen) => {
            "what went farther was measured to be no cheaper".to_owned()
        }
        None if tries.len() >= hunt.budget.tries() as usize => {
            format!("all {} tries are taken; --tries allows more", tries.len())
        }
        None if caught.found.reached() => match hunt.quantity() {
            Quantity::Ms => "it was when the step was measured; times vary on a busy machine".to_owned(),
            _ => "it was when the step was measured".to_owned(),
        },
        None if hunt.budget.pattern.piece().is_some() && hunt.budget.pattern.zeros().is_some() => {
            "pruning more is predicted to save no more".to_owned()
        }
        None => "pruning more is predicted to save no more; --pattern structured+unstructured both cuts and makes zeros".to_owned(),
    }
}

/// What was typed, without the folder of the program.
fn command() -> String {
    let typed = std::env::args().skip(1);
    std::iter::once("secateur".to_owned())
        .chain(typed)
        .collect::<Vec<_>>()
        .join(" ")
}

fn points(n: f64) -> String {
    let many = if n == 1.0 { "" } else { "s" };
    format!("{n} point{many}")
}

/// What was asked, in one sentence.
fn asked(made: &Made) -> String {
    match (made.max_drop, made.target) {
        (Some(most), Some(target)) => format!("{target}, at a loss of at most {}", points(most)),
        (Some(most), None) => format!("As far as a loss of at most {} allows", points(most)),
        (None, _) => "The steps of a recipe".to_owned(),
    }
}

/// A round of a recipe as the page has it.
fn round(row: &Value) -> Tried {
    let figure = |which: &str| {
        let score = &row[which];
        score["accuracy"]
            .as_f64()
            .map(|a| 100.0 * a)
            .or(score["loss"].as_f64())
    };
    Tried {
        label: format!("step {}, round {}", row["step"], row["round"]),
        sparsity: row["sparsity"].as_f64().unwrap_or(0.0),
        cost: None,
        before: figure("before"),
        after: figure("after"),
        kept: true,
        seconds: row["seconds"].as_f64(),
    }
}

fn again(t: &Tried) -> Tried {
    Tried {
        label: t.label.clone(),
        ..*t
    }
}

/// `steps` without what differs from run to run.
fn timeless(steps: &Value) -> Value {
    let mut steps = steps.clone();
    for row in steps.as_array_mut().into_iter().flatten() {
        row.as_object_mut().map(|r| r.remove("seconds"));
    }
    steps
}

/// Where the steps of a recipe are kept, which are not those of a search.
fn beside(checkpoint: &Path) -> PathBuf {
    let mut name = checkpoint.file_name().unwrap_or_default().to_owned();
    name.push(".chain");
    checkpoint.with_file_name(name)
}
