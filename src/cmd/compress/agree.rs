//! How far a model agrees with what it was.

use anyhow::{Context, Result, bail};
use secateur::compress::recover::RecoverError;
use secateur::compress::rounds::Score;
use secateur::train::data::{Batch, Loader};
use secateur::{Model, Outputs, Session, Tensor};

use super::super::compare::argmax;
use super::super::ui::Ui;

/// What a model said of examples, which others are compared with.
pub(super) struct Original<'a> {
    model: &'a Model,
    /// The names of the outputs that are compared, with whether they are scores of classes.
    outputs: Vec<(String, bool)>,
    examples: Loader,
    /// What it said of each batch, where there is room for all.
    said: Option<Vec<Vec<Tensor>>>,
    ui: &'a Ui,
}

/// What is kept of what the original said, in bytes; beyond, it is asked again.
const ROOM: usize = 512 << 20;

/// What two models say of an output, over all examples so far.
#[derive(Clone, Copy, Default)]
struct Sums {
    rows: usize,
    agreed: usize,
    apart: f64,
    size: f64,
}

/// The square of how far two numbers are apart; what is no number is so only from other numbers.
fn apart(a: f64, b: f64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    let square = (a - b).powi(2);
    if square.is_nan() { f64::INFINITY } else { square }
}

/// Of each of `n` rows, whether it holds what is no number, so that none is the greatest.
fn rows_without_order(t: &Tensor, n: usize) -> Vec<bool> {
    let all = t.floats().unwrap_or_default();
    let width = (all.len() / n.max(1)).max(1);
    all.chunks(width)
        .map(|row| row.iter().any(|x| x.is_nan()))
        .collect()
}

impl Sums {
    fn add(&mut self, old: &Tensor, new: &Tensor, scores: bool) {
        if scores {
            let (a, b) = (argmax(old), argmax(new));
            self.rows += a.len();
            let broken = rows_without_order(new, b.len());
            let same = a.iter().zip(&b).zip(broken);
            self.agreed += same.filter(|((a, b), broken)| a == b && !broken).count();
        }
        let (old, new) = (old.floats().unwrap_or_default(), new.floats().unwrap_or_default());
        let same = old.len() == new.len();
        let apart = old.iter().zip(&new).map(|(a, b)| apart(*a, *b)).sum::<f64>();
        self.apart += if same { apart } else { f64::INFINITY };
        self.size += old.iter().filter(|a| a.is_finite()).map(|a| a * a).sum::<f64>();
    }

    /// ‖y − y₀‖ / ‖y₀‖.
    fn error(&self) -> f64 {
        if self.apart == 0.0 {
            return 0.0;
        }
        let error = (self.apart / self.size).sqrt();
        if error.is_finite() { error } else { f64::MAX }
    }

    /// The share of examples of the same class, or what the error leaves of 1.
    fn agreement(&self) -> f64 {
        match self.rows {
            0 => (1.0 - self.error()).max(0.0),
            rows => self.agreed as f64 / rows as f64,
        }
    }
}

impl<'a> Original<'a> {
    /// What `model` says of `examples`.
    ///
    /// # Errors
    ///
    /// If it does not run on them, or says nothing in floats.
    pub(super) fn new(model: &'a Model, examples: Loader, ui: &'a Ui) -> Result<Original<'a>> {
        let mut original = Original {
            model,
            outputs: vec![],
            examples,
            said: None,
            ui,
        };
        let session = original.session(model)?;
        let (mut said, mut bytes) = (vec![], 0);
        for batch in original.examples.epoch(0, 0) {
            let outputs = run(&session, &batch?)?;
            if original.outputs.is_empty() {
                original.outputs = compared(&outputs);
            }
            let kept = original.pick(&outputs)?;
            bytes += kept.iter().map(|t| t.bytes().len()).sum::<usize>();
            said.push(kept);
            if bytes > ROOM {
                return Ok(original);
            }
        }
        if original.outputs.is_empty() {
            bail!("the model has no output of floats by which it could be compared with what it was");
        }
        original.said = Some(said);
        Ok(original)
    }

    fn session(&self, model: &Model) -> Result<Session> {
        Ok(self.ui.uncached().session(model).build()?)
    }

    fn pick(&self, outputs: &Outputs) -> Result<Vec<Tensor>> {
        let one = |(name, _): &(String, bool)| {
            outputs
                .get(name)
                .cloned()
                .with_context(|| format!("the model has no output {name:?}"))
        };
        self.outputs.iter().map(one).collect()
    }

    /// The agreement of `model` as an accuracy, and the worst relative error of an output as a loss.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub(super) fn score(&self, model: &Model) -> Result<Score, RecoverError> {
        self.compare(model)
            .map_err(|e| RecoverError::wrong(format!("{e:#}")))
    }

    fn compare(&self, model: &Model) -> Result<Score> {
        let session = self.session(model)?;
        let again = match self.said {
            Some(_) => None,
            None => Some(self.session(self.model)?),
        };
        let mut sums = vec![Sums::default(); self.outputs.len()];
        for (i, batch) in self.examples.epoch(0, 0).enumerate() {
            let batch = batch?;
            let asked;
            let old = match (&self.said, &again) {
                (Some(said), _) => &said[i],
                (None, Some(session)) => {
                    asked = self.pick(&run(session, &batch)?)?;
                    &asked
                }
                (None, None) => bail!("the model it was is not there"),
            };
            let new = self.pick(&run(&session, &batch)?)?;
            for (((sum, old), new), (_, scores)) in sums.iter_mut().zip(old).zip(&new).zip(&self.outputs) {
                sum.add(old, new, *scores);
            }
        }
        let worst = sums.iter().map(Sums::agreement).fold(1.0, f64::min);
        Ok(Score {
            loss: sums.iter().map(Sums::error).fold(0.0, f64::max),
            accuracy: Some(worst),
        })
    }
}

fn run(session: &Session, batch: &Batch) -> Result<Outputs> {
    Ok(session.run(batch.inputs.iter().map(|(name, x)| (name.as_str(), x)))?)
}

/// The outputs of floats; scores of classes are those of one row an example.
fn compared(outputs: &Outputs) -> Vec<(String, bool)> {
    let all = outputs.names.iter().zip(&outputs.values);
    let floats = all.filter_map(|(name, v)| Some((name, v.tensor()?)));
    let floats = floats.filter(|(_, t)| t.dtype().is_float());
    let scores = |t: &Tensor| matches!(t.dims(), [_, classes] if *classes > 1);
    floats.map(|(name, t)| (name.to_string(), scores(t))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(old: &[f32], new: &[f32], scores: bool) -> f64 {
        let mut sums = Sums::default();
        let tensor = |x: &[f32]| Tensor::of(&[x.len() / 2, 2], x.to_vec());
        sums.add(&tensor(old), &tensor(new), scores);
        sums.agreement()
    }

    #[test]
    fn what_is_no_number_does_not_agree() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        assert_eq!(sums(&[1.0, 0.0, 0.0, 1.0], &[nan, 0.0, 0.0, 1.0], true), 0.5);
        assert_eq!(sums(&[1.0, 2.0], &[nan, 2.0], false), 0.0);
        assert_eq!(sums(&[1.0, 2.0], &[1.0, -9.0], false), 0.0);
        // A mask of infinities is no difference, and hides none.
        assert_eq!(sums(&[inf, 2.0], &[inf, 2.0], false), 1.0);
        assert_eq!(sums(&[inf, 2.0], &[inf, 1.0], false), 0.5);
    }
}
