//! The search for what a budget allows.

use anyhow::{Context, Result};
use secateur::Model;
use secateur::compress::budget::{
    Budget, Curve, Event, Foretold, Found, LEVELS, Quantity, Search, Sizes, Stage, Subject, Target, Try,
    Verdict, fall, holds,
};
use secateur::compress::methods::find;
use secateur::compress::recipe::Budgeted;
use secateur::compress::rounds::{self, School, Score};
use secateur::compress::trim::Frame;
use secateur::compress::{Choice, Effort, Examples, Method, Pattern, methods, weights};
use secateur::train;

use super::super::recipe::{INPUTS, Shown, Source};
use super::super::source::InputFlags;
use super::super::timing::Trial;
use super::super::ui::{Progress, Ui};
use super::pupil::{Kept, Pupil};
use super::usual;

/// A budget, and the model that it is for.
pub(super) struct Hunt<'a> {
    pub(super) pupil: &'a Pupil<'a>,
    /// The model as it was read.
    pub(super) old: &'a Model,
    pub(super) budget: &'a Budgeted,
    pub(super) choice: Choice,
    pub(super) trial: &'a Trial,
    pub(super) inputs: &'a InputFlags,
    pub(super) effort: Effort<'a>,
    pub(super) macs: Option<u64>,
    pub(super) ui: &'a Ui,
}

/// What was brought home.
pub(super) struct Catch {
    pub(super) found: Found,
    /// The last model that holds on the test examples too; none where there is none.
    pub(super) chosen: Option<Stage>,
    /// What the first model makes of the test examples, and the chosen one.
    pub(super) test: (Score, Option<Score>),
    /// By how much the models that were kept, but not chosen, fell there; the cheapest first.
    pub(super) failed: Vec<(u32, f64)>,
    /// The numbers of examples for validation and testing.
    pub(super) examples: [usize; 2],
}

impl Catch {
    /// The step that made what was chosen.
    pub(super) fn step(&self) -> Option<&Try> {
        let number = self.chosen.as_ref()?.number;
        self.found.tries.iter().find(|t| t.number == number)
    }

    /// The steps, those that did not hold on the test examples taken back.
    pub(super) fn tries(&self) -> Vec<Try> {
        let mut tries = self.found.tries.clone();
        let failed = |t: &&mut Try| self.failed.iter().any(|(number, _)| *number == t.number);
        tries
            .iter_mut()
            .filter(failed)
            .for_each(|t| t.verdict = Verdict::TakenBack);
        tries
    }

    /// Whether the model was as cheap as was wanted before anything was done.
    pub(super) fn idle(&self) -> bool {
        self.found.tries.is_empty() && self.found.reached()
    }
}

/// What is counted, in words.
pub(super) fn unit(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Ms => "ms",
        Quantity::Mb => "MB",
        Quantity::Macs => "M MACs",
    }
}

impl Hunt<'_> {
    fn model(&self) -> &Model {
        &self.pupil.start.model
    }

    pub(super) fn quantity(&self) -> Quantity {
        self.budget.target.map_or(Quantity::Ms, Target::quantity)
    }

    /// Calls `with` with the search.
    fn search<R>(&self, kept: Kept, with: impl FnOnce(&Search) -> Result<R>) -> Result<R> {
        let method = find(self.budget.method()).context("no such method")?;
        match self.shown(method)? {
            Some(shown) => shown.with(self.effort, |shown| self.with(method, Some(shown), kept, with)),
            None => self.with(method, None, kept, with),
        }
    }

    /// On what the method sees the model at work, if it wants to.
    fn shown(&self, method: &dyn Method) -> Result<Option<Shown>> {
        if method.needs().is_empty() {
            return Ok(None);
        }
        let how = &self.budget.finetune;
        let source = Source {
            data: Some(how.data.as_str()).filter(|d| *d != INPUTS),
            lesson: Some(how),
            photos: how.photos.as_ref(),
            halve: how.validation.is_none(),
            samples: self.budget.samples,
            inputs: self.inputs.clone(),
        };
        // Inputs of -i are made for the sizes of -s, which are set already in the model that learns.
        let model = if how.data == INPUTS {
            self.old
        } else {
            self.model()
        };
        Shown::new(model, method, source, self.ui).map(Some)
    }

    fn with<R>(
        &self,
        method: &dyn Method,
        shown: Option<&Examples>,
        (checkpoint, resume): Kept,
        with: impl FnOnce(&Search) -> Result<R>,
    ) -> Result<R> {
        let rates = crate::rates::cached();
        let quiet = self.ui.quiet();
        let free = self.ui.common.sizes.iter().cloned().collect();
        let clock = |model: &Model| {
            let [old, new] = self.trial.race([self.model(), model], &quiet);
            Some([old?, new?])
        };
        with(&Search {
            subject: Subject {
                method,
                pattern: self.budget.pattern,
                shown,
                seed: self.ui.common.seed,
                choice: &self.choice,
                frame: Frame {
                    sizes: &free,
                    times: None,
                },
                effort: self.effort,
            },
            budget: Budget {
                max_drop: self.budget.max_drop / 100.0,
                target: self.budget.target,
                tries: self.budget.tries(),
                sizes: Sizes {
                    shapes: self.trial.shapes.iter().map(|(_, dims)| dims.clone()).collect(),
                    threads: self.ui.threads(),
                    rates: &rates,
                },
            },
            clock: Some(&clock),
            checkpoint,
            resume,
        })
    }

    /// The weights to prune, and the runs of each example that their curves ask for; of what is cut, about so many.
    fn runs(&self) -> Result<(u64, usize)> {
        let method = find(self.budget.method()).context("no such method")?;
        let mut all = weights(self.model());
        let zeros = self.budget.pattern.zeros();
        if let Some(pattern) = zeros {
            // With cuts beside zeros names may be of what is cut; the search says which fit nothing.
            if self.budget.pattern.piece().is_none() {
                self.choice.mark(&mut all)?;
            }
            pattern.mark(&mut all);
            methods::mark(method, self.model(), &mut all);
        }
        let n = all.iter().filter(|w| w.exempt.is_none()).count();
        let levels = match zeros.and_then(Pattern::share) {
            Some(_) => 1,
            None => LEVELS.len(),
        };
        Ok((n as u64, 1 + n * levels))
    }

    /// Lets `with` measure by the few examples that curves are drawn from.
    fn scout<R>(&self, with: impl FnOnce(&mut dyn School) -> Result<R>) -> Result<R> {
        let n = usual::seen(self.macs, self.runs()?.1);
        self.pupil
            .examine(self.pupil.some(n)?, (None, false), |exam| with(exam))
    }

    /// What each weight hurts.
    pub(super) fn curves(&self) -> Result<Vec<Curve>> {
        let watch = Watch::new(self.ui, self.runs()?.0);
        self.search((None, false), |search| {
            self.scout(|school| Ok(search.curves(self.model(), school, &mut |e| watch.tell(e))?))
        })
    }

    /// What `curves` foretell.
    pub(super) fn foretold(&self, curves: Vec<Curve>) -> Result<Foretold> {
        self.search((None, false), |search| Ok(search.foretold(self.model(), curves)?))
    }

    /// Searches, and tries what was found on examples that no step has seen.
    pub(super) fn run(&self, kept: Kept) -> Result<Catch> {
        let (validation, test) = (self.pupil.validation()?, self.pupil.test()?);
        let examples = [validation.data().len(), test.data().len()];
        let watch = Watch::new(self.ui, self.runs()?.0);
        let found = self.search(kept, |search| {
            self.pupil.examine(validation, kept, |exam| {
                exam.recovery.apart = self.pupil.apart(search.subject.shown);
                let told = &mut |e: Event<'_>| watch.tell(e);
                self.scout(|scout| Ok(search.run(self.model(), (Some(scout), exam), told)?))
            })
        })?;
        drop(watch);
        self.pupil
            .examine(test, (None, false), |exam| self.proved(found, examples, exam))
    }

    /// Whether `model` takes less time than the first, where time counts and both run.
    fn is_faster(&self, model: &Model) -> bool {
        let timed = self.quantity() == Quantity::Ms;
        let raced = timed.then(|| self.trial.race([self.model(), model], &self.ui.quiet()));
        !matches!(raced, Some([Some(old), Some(new)]) if new >= old)
    }

    /// The cheapest of the models that were kept which holds by `school` too, and costs less than the first.
    fn proved(&self, found: Found, examples: [usize; 2], school: &mut dyn School) -> Result<Catch> {
        let mut score = |model: &Model| {
            let score = school.score(model)?;
            score.context("there are no test examples")
        };
        let before = score(self.model())?;
        let (mut failed, mut chosen) = (vec![], None);
        let cost = |stage: &Stage| {
            let made = found.tries.iter().find(|t| t.number == stage.number);
            made.map_or(f64::INFINITY, |t| t.cost)
        };
        let mut stages: Vec<&Stage> = found
            .kept
            .iter()
            .filter(|s| cost(s) < found.cost_before)
            .collect();
        stages.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
        for stage in stages {
            // A step may have been timed while the machine was busy with something else.
            if !self.is_faster(&stage.model) {
                continue;
            }
            let after = score(&stage.model)?;
            if holds(&before, &after, self.budget.max_drop / 100.0) {
                chosen = Some((stage.clone(), after));
                break;
            }
            failed.push((stage.number, fall(&before, &after)));
        }
        let (chosen, after) = chosen.map_or((None, None), |(stage, after)| (Some(stage), Some(after)));
        Ok(Catch {
            found,
            chosen,
            test: (before, after),
            failed,
            examples,
        })
    }
}

/// Tells people how it goes.
struct Watch<'a> {
    ui: &'a Ui,
    curves: std::cell::RefCell<Option<Progress>>,
    steps: std::cell::RefCell<Option<Progress>>,
}

impl<'a> Watch<'a> {
    fn new(ui: &'a Ui, weights: u64) -> Watch<'a> {
        Watch {
            ui,
            curves: Some(ui.progress(weights, "curves of weights")).into(),
            steps: None.into(),
        }
    }

    fn tell(&self, event: Event) {
        match event {
            Event::Curve(_) => {
                self.curves.borrow().iter().for_each(|p| p.add(1));
            }
            Event::Begin(_) => {
                self.curves.take();
                self.steps.take();
            }
            Event::Rounds(rounds::Event::Train(train::Event::Step {
                done, of, loss, rate, ..
            })) => {
                let mut steps = self.steps.borrow_mut();
                let progress = steps.get_or_insert_with(|| {
                    let progress = self.ui.progress(of, "fine-tuning");
                    progress.begin(done - 1);
                    progress
                });
                progress.tell(&format!("loss {loss:.4}, rate {rate:.2e}"));
                progress.add(1);
            }
            Event::Rounds(rounds::Event::Note(text)) => self.ui.note(text),
            Event::Try(t) => {
                self.steps.take();
                if !self.ui.common.quiet {
                    super::super::stderr(&format!("{}\n", line(t)));
                }
            }
            _ => {}
        }
    }
}

fn line(t: &Try) -> String {
    let [before, after] = [&t.before, &t.after].map(worth);
    let (number, zeros, seconds) = (t.number, 100.0 * t.sparsity, t.seconds);
    let verdict = super::story::verdict(t);
    format!(
        "step {number}: {zeros:.2} % pruned, {before} before recovery, {after} after, cost {:.4}: {verdict}; {seconds:.1} s",
        t.cost
    )
}

/// What a model is worth, in words.
pub(super) fn worth(score: &Score) -> String {
    match score.accuracy {
        Some(x) => format!("{:.2} %", 100.0 * x),
        None => format!("loss {:.4}", score.loss),
    }
}
