//! The steps of a recipe, taken one after the other.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use secateur::Model;
use secateur::compress::groups::Of;
use secateur::compress::methods::find;
use secateur::compress::recipe::{Finetune, Prune, Recipe, Recover, Step};
use secateur::compress::recover::Recovery;
use secateur::compress::rounds::{Aim, Event, Ramp, Rounds, Row, Run, School, Score};
use secateur::compress::trim::Frame;
use secateur::compress::{Choice, Effort, Examples, Method};
use secateur::train;
use serde_json::{Value, json};

use super::super::source::InputFlags;
use super::super::table::Table;
use super::super::ui::{Progress, Ui};
use super::examples::{Shown, Source};
use super::lesson::Lesson;
use super::sized::{freed, sized};

/// A recipe and what it is applied to.
pub(in crate::cmd) struct Chain<'a> {
    pub(in crate::cmd) recipe: &'a Recipe,
    /// The model before anything was done.
    pub(in crate::cmd) old: &'a Model,
    pub(in crate::cmd) name: &'a Path,
    /// Where state is kept, and whether it goes on from there.
    pub(in crate::cmd) state: (Option<&'a Path>, bool),
    pub(in crate::cmd) inputs: &'a InputFlags,
    pub(in crate::cmd) frame: Frame<'a>,
    pub(in crate::cmd) effort: Effort<'a>,
    pub(in crate::cmd) ui: &'a Ui,
}

/// What came of it.
pub(in crate::cmd) struct Cooked {
    pub(in crate::cmd) model: Model,
    /// On how many examples methods saw the model at work.
    pub(in crate::cmd) samples: usize,
    /// The rounds of each step.
    steps: Vec<Vec<Row>>,
    /// The last that there was: by its test examples the result is measured.
    lesson: Option<Lesson>,
    /// What the first and the last model make of examples that were in no round, where there are some.
    test: Option<[Score; 2]>,
}

/// A step in the form that all have: rounds with recovery.
#[derive(Clone, Copy)]
struct Part<'a> {
    prune: Option<&'a Prune>,
    finetune: Option<&'a Finetune>,
    recover: Option<&'a Recover>,
}

impl<'a> Part<'a> {
    fn of(step: &'a Step) -> Result<Part<'a>> {
        let none = Part {
            prune: None,
            finetune: None,
            recover: None,
        };
        Ok(match step {
            Step::Prune(p) => Part {
                prune: Some(p),
                finetune: p.finetune.as_ref(),
                recover: p.recover.as_ref(),
            },
            Step::Finetune(f) => Part {
                finetune: Some(f),
                ..none
            },
            Step::Recover(r) => Part {
                recover: Some(r),
                ..none
            },
            Step::Budget(_) => anyhow::bail!("a budget is for compress --recipe"),
            other => anyhow::bail!("prune has no step {other:?}"),
        })
    }

    /// Whether it recovers by examples.
    fn looks(&self) -> bool {
        self.finetune.is_some() || self.recover.is_some()
    }

    fn lesson(&self) -> (Option<&'a Finetune>, Option<&'a Recover>) {
        (self.finetune, self.recover)
    }

    /// What chooses weights; nothing is asked of it where nothing is pruned.
    fn method(&self) -> Result<&'static dyn Method> {
        let name = self.prune.map_or("magnitude", |p| p.method());
        find(name).context("no such method")
    }

    fn rounds<'r>(
        &self,
        (choice, shown): (&'r Choice, Option<&'r Examples<'r>>),
        chain: &Chain<'r>,
    ) -> Result<Rounds<'r>> {
        Ok(Rounds {
            method: self.method()?,
            shown,
            seed: chain.ui.common.seed,
            aim: self.prune.map(Prune::aim),
            choice,
            frame: chain.frame,
            count: self.prune.map_or(1, |p| p.rounds),
            ramp: self.prune.map_or(Ramp::OneShot, |p| p.schedule),
            effort: chain.effort,
        })
    }
}

impl Chain<'_> {
    /// Whether there are several steps, of which later ones could fail after the first has been taken.
    pub(in crate::cmd) fn many(&self) -> bool {
        self.recipe.step.len() > 1
    }

    /// Where an error of step `n` is.
    fn place(&self, n: u32) -> String {
        match self.many() {
            true => format!("step {n}"),
            false => self.name.display().to_string(),
        }
    }

    /// Makes ready what each step looks at, so that what is wrong with it is said before the first is taken. The last lesson that
    /// there is: by its test examples the result is measured.
    pub(in crate::cmd) fn rehearse(&self) -> Result<Option<Lesson>> {
        let (begin, ui) = (self.begin(), &self.ui.quiet());
        let mut last = None;
        for (step, n) in self.recipe.step.iter().zip(1..) {
            let part = Part::of(step)?;
            let ready = || -> Result<_> {
                self.shown(part, &begin, ui)?;
                if !part.looks() {
                    return Ok(None);
                }
                let lesson = Lesson::new(part.lesson(), &begin, self.old, (self.name, ui))?;
                lesson.give(self.old, (None, false), ui, |_| Ok(()))?;
                Ok(Some(lesson))
            };
            last = ready().with_context(|| self.place(n))?.or(last);
        }
        Ok(last)
    }

    /// Takes all steps.
    pub(in crate::cmd) fn run(&self) -> Result<Cooked> {
        let mut cooked = Cooked {
            model: self.begin(),
            samples: 0,
            steps: vec![],
            lesson: None,
            test: None,
        };
        for (step, n) in self.recipe.step.iter().zip(1..) {
            let number = self.many().then_some(n);
            self.step(Part::of(step)?, number, &mut cooked)
                .with_context(|| self.place(n))?;
        }
        if let Some(lesson) = cooked.lesson.take() {
            let test = |recovery: &mut Recovery| self.test(&lesson, recovery, &cooked.model);
            cooked.test = lesson.give(self.old, (None, false), self.ui, test)?;
        }
        cooked.model = freed(cooked.model, self.old);
        Ok(cooked)
    }

    /// What the first step begins with: what is trained has no free sizes where they are set.
    fn begin(&self) -> Model {
        let trains = |step: &Step| match step {
            Step::Prune(p) => p.finetune.is_some(),
            Step::Finetune(_) => true,
            _ => false,
        };
        match self.recipe.step.iter().any(trains) {
            true => sized(self.old, &self.ui.common.sizes),
            false => self.old.clone(),
        }
    }

    /// Where the state of step `n` is kept; of the only one there is no number.
    fn checkpoint(&self, n: Option<u32>) -> Option<PathBuf> {
        let path = self.state.0?;
        let Some(n) = n else {
            return Some(path.to_owned());
        };
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".step{n}"));
        Some(path.with_file_name(name))
    }

    /// On what the method of `part` sees `model` at work, if it wants to.
    fn shown(&self, part: Part, model: &Model, ui: &Ui) -> Result<Option<Shown>> {
        let method = part.method()?;
        let Some(prune) = part.prune.filter(|_| !method.needs().is_empty()) else {
            return Ok(None);
        };
        let source = Source::of(prune, self.inputs);
        Shown::new(model, method, source, ui).map(Some)
    }

    fn step(&self, part: Part, n: Option<u32>, cooked: &mut Cooked) -> Result<()> {
        let before = cooked.model.clone();
        match self.shown(part, &before, self.ui)? {
            Some(shown) => {
                cooked.samples += shown.samples();
                shown.with(self.effort, |shown| {
                    self.taken(part, n, (&before, Some(shown)), cooked)
                })
            }
            None => self.taken(part, n, (&before, None), cooked),
        }
    }

    fn taken(
        &self,
        part: Part,
        n: Option<u32>,
        (before, shown): (&Model, Option<&Examples>),
        cooked: &mut Cooked,
    ) -> Result<()> {
        let choice = part.prune.map(Prune::choice).unwrap_or_default();
        let mut run = Run::new(before, part.rounds((&choice, shown), self)?)?;
        let checkpoint = self.checkpoint(n);
        let state = (checkpoint.as_deref(), self.state.1);
        if !part.looks() {
            self.go(&mut run, &mut (), state, 0)?;
        } else {
            let lesson = Lesson::new(part.lesson(), before, self.old, (self.name, self.ui))?;
            let steps = lesson.steps(self.ui)?;
            lesson.give(self.old, state, self.ui, |recovery| {
                recovery.apart = lesson.apart();
                self.go(&mut run, recovery, state, steps)
            })?;
            cooked.lesson = Some(lesson);
        }
        self.short(part, run.rows());
        cooked.steps.push(run.rows().to_vec());
        cooked.model = run.model().clone();
        Ok(())
    }

    /// Says on standard error if less could be cut away than was asked. (Numbers of channels are rounded anyway.)
    fn short(&self, part: Part, rows: &[Row]) {
        let Some(Aim::Cuts(trim)) = part.prune.map(Prune::aim) else {
            return;
        };
        let gone = rows.last().map_or(0.0, |r| r.sparsity);
        if trim.of != Of::Channels && gone + 1e-9 < trim.share {
            let [asked, gone] = [trim.share, gone].map(|x| 100.0 * x);
            self.ui.note(&format!(
                "{asked:.2} % were to go; with pattern {} no more than {gone:.2} % can",
                trim.piece
            ));
        }
    }

    fn go(
        &self,
        run: &mut Run,
        school: &mut dyn School,
        (checkpoint, resume): (Option<&Path>, bool),
        steps: u64,
    ) -> Result<()> {
        if let Some(path) = checkpoint.filter(|_| resume)
            && !run.resume(school, path)?
        {
            self.ui.note("no round has ended yet; the first begins");
        }
        let watch = Watch {
            ui: self.ui,
            progress: (steps > 0).then(|| self.ui.progress(steps, "fine-tuning")),
        };
        Ok(run.run(school, checkpoint, &mut |event| watch.tell(event))?)
    }

    fn test(&self, lesson: &Lesson, recovery: &mut Recovery, model: &Model) -> Result<Option<[Score; 2]>> {
        recovery.measured = lesson.start.test(self.ui)?;
        let (old, new) = (recovery.score(self.old)?, recovery.score(model)?);
        Ok(old.zip(new).map(|(old, new)| [old, new]))
    }
}

/// Tells people of rounds.
struct Watch<'a> {
    ui: &'a Ui,
    progress: Option<Progress>,
}

impl Watch<'_> {
    fn tell(&self, event: Event) {
        match (event, &self.progress) {
            (Event::Train(train::Event::Step { loss, rate, .. }), Some(progress)) => {
                progress.tell(&format!("loss {loss:.4}, rate {rate:.2e}"));
                progress.add(1);
            }
            (Event::Note(text), _) => self.ui.note(text),
            (Event::Round(row), Some(progress)) => progress.line(&line(row)),
            _ => {}
        }
    }
}

fn line(row: &Row) -> String {
    let [before, after] = [row.before, row.after].map(worth);
    let (round, zeros, seconds) = (row.round, 100.0 * row.sparsity, row.seconds);
    format!("round {round}: {zeros:.2} % pruned, {before} before recovery, {after} after; {seconds:.1} s")
}

/// What a model is worth, in words.
fn worth(score: Option<Score>) -> String {
    match score {
        Some(Score {
            accuracy: Some(x), ..
        }) => format!("{:.2} %", 100.0 * x),
        Some(score) => format!("loss {:.4}", score.loss),
        None => "–".into(),
    }
}

impl Cooked {
    /// One row for each round, and the test.
    pub(in crate::cmd) fn table(&self) -> String {
        let mut table = Table::new(&["step", "round", "pruned %", "before recovery", "after", "s"]);
        for (rows, step) in self.steps.iter().zip(1..) {
            for row in rows {
                let [before, after] = [row.before, row.after].map(worth);
                let (pruned, seconds) = (100.0 * row.sparsity, row.seconds);
                table.row([
                    format!("{step}"),
                    row.round.to_string(),
                    format!("{pruned:.2}"),
                    before,
                    after,
                    format!("{seconds:.1}"),
                ]);
            }
        }
        let test = self.test.map(|[old, new]| {
            let [old, new] = [old, new].map(|s| worth(Some(s)));
            format!("\n\ntest: {old} before pruning, {new} after")
        });
        format!("{table}{}", test.unwrap_or_default())
    }

    /// The rounds as receipts have them: without times, so that the same run makes the same file.
    pub(in crate::cmd) fn record(&self) -> Value {
        let mut rounds = self.rounds();
        for row in rounds.as_array_mut().into_iter().flatten() {
            row.as_object_mut().map(|r| r.remove("seconds"));
        }
        rounds
    }

    /// As `rounds[]` has them.
    pub(in crate::cmd) fn rounds(&self) -> Value {
        let steps = self.steps.iter().zip(1..);
        let row = |(step, row): (i32, &Row)| {
            json!({
                "step": step,
                "round": row.round,
                "sparsity": row.sparsity,
                "before": row.before,
                "after": row.after,
                "recovered": row.recovered,
                "seconds": row.seconds,
            })
        };
        let all = steps.flat_map(|(rows, step)| rows.iter().map(move |r| (step, r)));
        all.map(row).collect()
    }

    /// As `test{}` has it.
    pub(in crate::cmd) fn test(&self) -> Value {
        self.test
            .map_or(Value::Null, |[old, new]| json!({"before": old, "after": new}))
    }
}
