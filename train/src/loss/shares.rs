//! Losses between shares that add up to 1 along the last axis. Each is the mean over all other axes.

use secateur_engine::expr::Ex;
use secateur_engine::ir::Attr;

use super::Loss;
use crate::settings::settings;
use crate::words::{last, mean};

/// What logarithms are taken of is at least this.
const LEAST: f64 = 1e-30;

/// `Σ p log (p / q)` with `q = softmax(scores)` and given shares `p`.
#[derive(Clone, Copy, Debug)]
pub struct KlDivergence;
settings!(KlDivergence {});

/// `T² Σ p log (p / q)` of scores divided by the temperature `T`: `p` of the teacher's, `q` of the own ones (Hinton, Vinyals, Dean
/// 2015).
#[derive(Clone, Copy, Debug)]
pub struct Distillation {
    /// Higher ones show more of the small shares.
    pub temperature: f64,
}

impl Default for Distillation {
    fn default() -> Distillation {
        Distillation { temperature: 4.0 }
    }
}
settings!(Distillation {
    temperature: 1e-3..=1e3
});

/// `-Σ p log p` with `p = softmax(scores)`: how undecided they are.
#[derive(Clone, Copy, Debug)]
pub struct Entropy;
settings!(Entropy {});

fn softmax<'a>(x: Ex<'a>, op: &str) -> Ex<'a> {
    x.with(op, &[], vec![Attr::new("axis", -1)])
}

impl Loss for KlDivergence {
    fn name(&self) -> &'static str {
        "kl"
    }

    fn about(&self) -> &'static str {
        "how far the shares that scores stand for are from given ones"
    }

    fn takes(&self) -> &'static [&'static str] {
        &["scores", "shares"]
    }

    fn write<'a>(&self, x: &[Ex<'a>]) -> Ex<'a> {
        let log = x[1].op("Max", &[x[1].constant(LEAST)]).log();
        mean(last(x[1] * (log - softmax(x[0], "LogSoftmax"))))
    }
}

impl Loss for Distillation {
    fn name(&self) -> &'static str {
        "distillation"
    }

    fn about(&self) -> &'static str {
        "how far scores are from a teacher's, both softened"
    }

    fn includes(&self) -> &'static [&'static str] {
        &["Softmax", "LogSoftmax"]
    }

    fn takes(&self) -> &'static [&'static str] {
        &["scores", "teacher's scores"]
    }

    fn write<'a>(&self, x: &[Ex<'a>]) -> Ex<'a> {
        let soft = 1.0 / self.temperature;
        let [own, teacher] = [x[0] * soft, x[1] * soft];
        let apart = softmax(teacher, "LogSoftmax") - softmax(own, "LogSoftmax");
        mean(last(softmax(teacher, "Softmax") * apart)) * self.temperature.powi(2)
    }
}

impl Loss for Entropy {
    fn name(&self) -> &'static str {
        "entropy"
    }

    fn about(&self) -> &'static str {
        "how undecided scores are"
    }

    fn takes(&self) -> &'static [&'static str] {
        &["scores"]
    }

    fn write<'a>(&self, x: &[Ex<'a>]) -> Ex<'a> {
        -mean(last(softmax(x[0], "Softmax") * softmax(x[0], "LogSoftmax")))
    }
}
