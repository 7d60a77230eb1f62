//! Losses of classifiers. Classes lie on axis 1 of scores `[n, c, …]`, or on the last one of tokens; targets are integers.

use secateur_engine::expr::Ex;
use secateur_engine::ir::{Attr, DType, Type};

use super::Loss;
use crate::settings::settings;
use crate::words::{int, ints, mean, total};

/// The class that other frameworks leave out.
const LEFT_OUT: i64 = -100;

const TAKES: &[&str] = &["scores", "classes"];

/// The mean of `-log softmax(scores)[class]` over all that are not left out.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy {
    /// The share of the target that goes to all classes alike (Szegedy et al. 2015).
    pub smoothing: f64,
    /// The class of what is left out.
    pub ignore: i64,
}

impl Default for CrossEntropy {
    fn default() -> CrossEntropy {
        CrossEntropy {
            smoothing: 0.0,
            ignore: LEFT_OUT,
        }
    }
}
settings!(CrossEntropy {
    smoothing: 0.0..=1.0,
    ignore: -9e15..=9e15
});

/// [`CrossEntropy`] of scores `[…, c]` and classes `[…]`: of each token of each text.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenCrossEntropy {
    /// The loss of each token.
    pub of: CrossEntropy,
}

impl crate::settings::Settings for TokenCrossEntropy {
    fn settings(&self) -> Vec<(&'static str, f64)> {
        self.of.settings()
    }

    fn set(&mut self, name: &str, x: f64) -> Result<(), String> {
        self.of.set(name, x)
    }
}

/// The mean of `-scores[class]`, where the scores are logarithms of shares, over all that are not left out.
#[derive(Clone, Copy, Debug)]
pub struct LogLikelihood {
    /// The class of what is left out.
    pub ignore: i64,
}

impl Default for LogLikelihood {
    fn default() -> LogLikelihood {
        LogLikelihood { ignore: LEFT_OUT }
    }
}
settings!(LogLikelihood { ignore: -9e15..=9e15 });

/// The mean of `-y log p - (1 - y) log (1 - p)` with `p = sigmoid(scores)`, for any `y` from 0 to 1. It stays finite.
#[derive(Clone, Copy, Debug)]
pub struct BinaryCrossEntropy;
settings!(BinaryCrossEntropy {});

/// The share of those whose highest score is that of their class: to be shown, for it has no gradient.
#[derive(Clone, Copy, Debug)]
pub struct Accuracy;
settings!(Accuracy {});

fn ignoring(i: i64) -> Vec<Attr> {
    vec![Attr::new("ignore_index", i)]
}

/// The type of classes for scores of type `of`, whose axis `axis` they are on.
fn classes(of: &Type, axis: impl Fn(usize) -> usize) -> Type {
    let shape = of.shape().map(|s| {
        let mut s = s.clone();
        if axis(s.len()) < s.len() {
            s.remove(axis(s.len()));
        }
        s
    });
    Type::Tensor {
        dtype: Some(DType::I64),
        shape,
    }
}

impl CrossEntropy {
    /// With smoothing: a part of the loss is that of shares which are all equal.
    fn smooth<'a>(&self, scores: Ex<'a>, target: Ex<'a>) -> Ex<'a> {
        let log = scores.with("LogSoftmax", &[], vec![Attr::new("axis", 1)]);
        let own = log.with("NegativeLogLikelihoodLoss", &[target], ignoring(self.ignore));
        let even = -log.with("ReduceMean", &[ints(log, &[1])], vec![Attr::new("keepdims", 0)]);
        let counted = target.op("Equal", &[int(target, self.ignore)]).op("Not", &[]);
        let counted = counted.op("CastLike", &[scores]);
        let even = total(even * counted) / total(counted);
        own * (1.0 - self.smoothing) + even * self.smoothing
    }
}

impl Loss for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn about(&self) -> &'static str {
        "minus the logarithm of the share that the right class has"
    }

    fn includes(&self) -> &'static [&'static str] {
        &["Softmax", "LogSoftmax"]
    }

    fn takes(&self) -> &'static [&'static str] {
        TAKES
    }

    fn target(&self, of: &Type) -> Type {
        classes(of, |_| 1)
    }

    fn write<'a>(&self, x: &[Ex<'a>]) -> Ex<'a> {
        match self.smoothing {
            0.0 => x[0].with("SoftmaxCrossEntropyLoss", &[x[1]], ignoring(self.ignore)),
            _ => self.smooth(x[0], x[1]),
        }
    }
}

impl Loss for TokenCrossEntropy {
    fn name(&self) -> &'static str {
        "token-cross-entropy"
    }

    fn about(&self) -> &'static str {
        "cross-entropy of each token, with the classes on the last axis"
    }

    fn includes(&self) -> &'static [&'static str] {
        &["Softmax", "LogSoftmax"]
    }

    fn takes(&self) -> &'static [&'static str] {
        TAKES
    }

    fn target(&self, of: &Type) -> Type {
        classes(of, |rank| rank.saturating_sub(1))
    }

    fn write<'a>(&self, x: &[Ex<'a>]) -> Ex<'a> {
        let scores = x[0].with("Flatten", &[], vec![Attr::new("axis", -1)]);
        self.of.write(&[scores, x[1].op("Reshape", &[ints(x[1], &[-1])])])
    }
}

impl Loss for LogLikelihood {
    fn name(&self) -> &'static str {
        "nll"
    }

    fn about(&self) -> &'static str {
        "minus the score of the right class, where scores are logarithms of shares"
    }

    fn takes(&self) -> &'static [&'static str] {
        TAKES
    }

    fn target(&self, of: &Type) -> Type {
        classes(of, |_| 1)
    }

    fn write<'a>(&self, x: &[Ex<'a>]) -> Ex<'a> {
        x[0].with("NegativeLogLikelihoodLoss", &[x[1]], ignoring(self.ignore))
    }
}

impl Loss for BinaryCrossEntropy {
    fn name(&self) -> &'static str {
        "binary-cross-entropy"
    }

    fn about(&self) -> &'static str {
        "cross-entropy of yes and no, each score by itself"
    }

    fn includes(&self) -> &'static [&'static str] {
        &["Sigmoid"]
    }

    fn takes(&self) -> &'static [&'static str] {
        &["scores", "shares"]
    }

    fn write<'a>(&self, x: &[Ex<'a>]) -> Ex<'a> {
        mean(x[0].op("Softplus", &[]) - x[0] * x[1])
    }
}

impl Loss for Accuracy {
    fn name(&self) -> &'static str {
        "accuracy"
    }

    fn about(&self) -> &'static str {
        "the share that is right; to be shown, not trained by"
    }

    fn takes(&self) -> &'static [&'static str] {
        TAKES
    }

    fn target(&self, of: &Type) -> Type {
        classes(of, |_| 1)
    }

    fn write<'a>(&self, x: &[Ex<'a>]) -> Ex<'a> {
        let axis = vec![Attr::new("axis", 1), Attr::new("keepdims", 0)];
        let right = x[0].with("ArgMax", &[], axis).op("Equal", &[x[1]]);
        mean(right.op("CastLike", &[x[0]]))
    }
}
