//! What is made small: the label's part, a teacher's, and what is only shown.

use anyhow::{Context, Result, anyhow};
use secateur::compress::recover::hints;
use secateur::train::data::Loader;
use secateur::train::loss::{Accuracy, loss};
use secateur::train::{Loss, Teacher, Term};
use secateur::{Model, Tensor};

use super::super::ui::Ui;
use super::start::{before, floats};
use super::{Flags, Start, output};

/// A part of what is made small.
struct Part {
    loss: Box<dyn Loss>,
    weight: f64,
    /// What it compares: a value of the model, and the name of a label.
    of: [String; 2],
    /// What of the teacher the label is, if a teacher says it.
    taught: Option<String>,
}

/// The parts of what is made small.
pub(in crate::cmd) struct Parts(Vec<Part>);

/// What terms call the teacher's values.
const TEACHER: &str = "teacher";

/// Batches by which it is told how much a value varies.
const FEW: usize = 8;

impl Parts {
    /// What `flags` say of the model of `start`, which may have a teacher.
    ///
    /// # Errors
    ///
    /// If a loss is unknown, or the models have nothing to compare.
    pub(in crate::cmd) fn new(
        flags: &Flags,
        start: &Start,
        teacher: Option<&Model>,
        ui: &Ui,
    ) -> Result<Parts> {
        match (teacher, flags.labelled()) {
            (Some(teacher), false) => Parts::distilled(flags, start, teacher, ui),
            (teacher, _) => Parts::learned(flags, start, teacher),
        }
    }

    /// What labels say, and a teacher beside them.
    fn learned(flags: &Flags, start: &Start, teacher: Option<&Model>) -> Result<Parts> {
        let classes = start.classes;
        let share = teacher.map_or(0.0, |_| flags.teacher_weight);
        let part = |name: &str, weight, label: &str| {
            let loss = loss(name).map_err(|e| anyhow!(e))?;
            let value = output(&start.model, &*loss).with_context(|| start.name.clone())?;
            let of = [value, label.to_owned()];
            Ok::<_, anyhow::Error>(Part {
                loss,
                weight,
                of,
                taught: None,
            })
        };
        let mut parts = vec![part(flags.learning.loss(classes), 1.0 - share, "label")?];
        if let Some(teacher) = teacher {
            let mut part = part(&flags.soft(classes), share, TEACHER)?;
            part.taught = Some(output(teacher, &*part.loss).context("--teacher")?);
            parts.push(part);
        }
        if classes.is_some() {
            parts.push(Part {
                loss: Box::new(Accuracy),
                weight: 0.0,
                of: parts[0].of.clone(),
                taught: None,
            });
        }
        Ok(Parts(parts))
    }

    /// Without labels, how far each output is from the teacher's, as large as that is, and unless a loss is said, what the last weights
    /// before the outputs say, each by how much it varies.
    fn distilled(flags: &Flags, start: &Start, teacher: &Model, ui: &Ui) -> Result<Parts> {
        let said = flags.learning.loss.as_deref();
        let (outputs, model) = (floats(teacher), &start.model);
        let hints = match said {
            Some(_) => vec![],
            None => hints(teacher, model),
        };
        let seen = seen(teacher, outputs.iter().chain(&hints), (flags, start), ui)?;
        let soft = format!("distillation:temperature={}", flags.temperature);
        let mut parts: Vec<Part> = vec![];
        for (name, spread) in outputs.iter().zip(&seen) {
            let usual = if spread.scores { &*soft } else { "mse" };
            let loss = loss(said.unwrap_or(usual)).map_err(|e| anyhow!(e))?;
            // Outputs of large numbers count no more than others.
            let weight = match (spread.scores, said) {
                (false, None) if spread.size() > 0.0 => about(1.0 / spread.size()),
                _ => 1.0,
            };
            // A teacher of the only output may call it something else.
            let value = match (before(model, name, &*loss), outputs.len()) {
                (Err(_), 1) => output(model, &*loss)?,
                // What the model does not say it need not learn.
                (Err(_), _) => continue,
                (Ok(found), _) => found,
            };
            let of = [value, format!("{TEACHER}{}", parts.len())];
            let taught = Some(before(teacher, name, &*loss)?);
            parts.push(Part {
                loss,
                weight,
                of,
                taught,
            });
        }
        for (name, spread) in hints.into_iter().zip(&seen[outputs.len()..]) {
            if spread.variance() > 0.0 && parts.iter().all(|p| p.of[0] != name) {
                parts.push(Part {
                    loss: loss("mse").map_err(|e| anyhow!(e))?,
                    weight: about(1.0 / spread.variance()),
                    of: [name.clone(), format!("{TEACHER}{}", parts.len())],
                    taught: Some(name),
                });
            }
        }
        match parts.is_empty() {
            true => Err(anyhow!(
                "the teacher has no output of floats that the model has too"
            )),
            false => Ok(Parts(parts)),
        }
    }

    /// What each part compares.
    pub(in crate::cmd) fn names(&self) -> Vec<[&str; 2]> {
        self.0.iter().map(|p| [&*p.of[0], &*p.of[1]]).collect()
    }

    /// The parts as training has them.
    pub(in crate::cmd) fn terms<'t>(&'t self, names: &'t [[&'t str; 2]]) -> Vec<Term<'t>> {
        let each = self.0.iter().zip(names);
        let term = |(p, of): (&'t Part, &'t [&'t str; 2])| Term {
            loss: &*p.loss,
            of,
            weight: p.weight,
        };
        each.map(term).collect()
    }

    /// What `teacher` says.
    pub(in crate::cmd) fn teachers<'t>(&'t self, teacher: Option<&'t Model>) -> Vec<Teacher<'t>> {
        let taught = |p: &'t Part| {
            Some(Teacher {
                label: &p.of[1],
                model: teacher?,
                output: p.taught.as_deref()?,
            })
        };
        self.0.iter().filter_map(taught).collect()
    }
}

/// `x` to two digits, which are the same on any number of threads.
fn about(x: f64) -> f64 {
    let place = 10f64.powf(x.log10().floor() - 1.0);
    (x / place).round() * place
}

/// How large numbers are, and how much they vary.
#[derive(Clone, Copy, Default)]
struct Spread {
    n: f64,
    sum: f64,
    squares: f64,
    /// Whether they are scores of classes, a row an example.
    scores: bool,
}

impl Spread {
    fn add(&mut self, t: &Tensor) {
        let numbers = t.floats().unwrap_or_default();
        self.n += numbers.len() as f64;
        self.sum += numbers.iter().sum::<f64>();
        self.squares += numbers.iter().map(|x| x * x).sum::<f64>();
        self.scores = matches!(t.dims(), [_, classes] if *classes > 1);
    }

    /// The mean of the squares.
    fn size(&self) -> f64 {
        self.squares / self.n.max(1.0)
    }

    fn variance(&self) -> f64 {
        let mean = self.sum / self.n.max(1.0);
        (self.size() - mean * mean).max(0.0)
    }
}

/// What a few training examples say of the values `names` of `teacher`.
fn seen<'n>(
    teacher: &Model,
    names: impl Iterator<Item = &'n String>,
    (flags, start): (&Flags, &Start),
    ui: &Ui,
) -> Result<Vec<Spread>> {
    let names: Vec<&String> = names.collect();
    let known = |name: &str| {
        let g = &teacher.graph;
        g.outputs.iter().any(|p| &*g[p.value].name == name)
    };
    let taps = names.iter().filter(|name| !known(name));
    let session = taps.fold(ui.uncached().session(teacher), |s, name| s.tap(name.as_str()));
    let session = session.build().context("--teacher")?;
    let (examples, _): (Loader, _) = start.loaders(&flags.learning, &ui.quiet())?;
    let mut all = vec![Spread::default(); names.len()];
    for batch in examples.epoch(0, 0).take(FEW) {
        let batch = batch?;
        let inputs = session.inputs().map(|(n, _)| n.to_owned()).collect::<Vec<_>>();
        let fed = batch
            .inputs
            .iter()
            .filter_map(|(name, x)| match (&inputs[..], &batch.inputs[..]) {
                // The only input may be called something else.
                ([only], [_]) => Some((only.as_str(), x)),
                _ => inputs.contains(name).then_some((name.as_str(), x)),
            });
        let said = session.run(fed).context("--teacher")?;
        for (spread, name) in all.iter_mut().zip(&names) {
            let t = said
                .get(name)
                .with_context(|| format!("the teacher has no tensor {name:?}"))?;
            spread.add(t);
        }
    }
    Ok(all)
}
