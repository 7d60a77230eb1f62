//! What becomes of scores in the end.

use crate::ops::{NodeRef, OpError};

/// A `post_transform`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Post {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

/// In the order of the numbers that `TreeEnsemble` gives them.
const NAMES: [(&str, Post); 5] = [
    ("NONE", Post::None),
    ("SOFTMAX", Post::Softmax),
    ("LOGISTIC", Post::Logistic),
    ("SOFTMAX_ZERO", Post::SoftmaxZero),
    ("PROBIT", Post::Probit),
];

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The inverse of the normal distribution's cumulative function, by Winitzki's approximation of the inverse error
/// function ("A handy approximation for the error function and its inverse", 2008), as ONNX Runtime has it.
fn probit(p: f64) -> f64 {
    const A: f64 = 0.147;
    let x = 2.0 * p - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let half = 2.0 / (std::f64::consts::PI * A) + 0.5 * log;
    let root = ((half * half - log / A).sqrt() - half).sqrt();
    std::f64::consts::SQRT_2 * if x < 0.0 { -root } else { root }
}

impl Post {
    /// The attribute `post_transform`, a string.
    pub(super) fn read(n: &NodeRef) -> Result<Post, OpError> {
        let name = n.str_or("post_transform", "NONE")?;
        let found = NAMES.iter().find(|(n, _)| *n == name);
        found
            .map(|(_, p)| *p)
            .ok_or_else(|| OpError::new(format!("there is no post_transform {name:?}")))
    }

    /// The attribute `post_transform`, a number.
    pub(super) fn numbered(n: &NodeRef) -> Result<Post, OpError> {
        let i = n.int_or("post_transform", 0)?;
        let found = usize::try_from(i).ok().and_then(|i| NAMES.get(i));
        found
            .map(|(_, p)| *p)
            .ok_or_else(|| OpError::new(format!("there is no post_transform {i}")))
    }

    /// Transforms the scores of one row. As in ONNX Runtime, a single score changes by `PROBIT` only.
    pub(super) fn apply(self, scores: &mut [f64]) {
        match self {
            Post::Probit => scores.iter_mut().for_each(|s| *s = probit(*s)),
            _ if scores.len() < 2 => {}
            Post::None => {}
            Post::Logistic => scores.iter_mut().for_each(|s| *s = logistic(*s)),
            Post::Softmax | Post::SoftmaxZero => {
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let keep = |s: f64| self == Post::SoftmaxZero && s.abs() <= 1e-7;
                let raise = |s: f64| {
                    if keep(s) {
                        s * (-top).exp()
                    } else {
                        (s - top).exp()
                    }
                };
                scores.iter_mut().for_each(|s| *s = raise(*s));
                let sum: f64 = scores.iter().sum();
                // Only zeros that are kept give no sum.
                let share = |s: f64| if sum == 0.0 { 0.5 } else { s / sum };
                scores.iter_mut().for_each(|s| *s = share(*s));
            }
        }
    }

    /// The scores of both classes from the one of the second: where `signed` opposite numbers, else parts of 1.
    pub(super) fn pair(self, score: f64, signed: bool) -> [f64; 2] {
        match self {
            Post::Logistic => [logistic(-score), logistic(score)],
            Post::Probit => [-probit(score), probit(score)],
            _ if signed => [-score, score],
            _ => [1.0 - score, score],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_become_probabilities() {
        let of = |p: Post, s: &[f64]| {
            let mut s = s.to_vec();
            p.apply(&mut s);
            s
        };
        assert_eq!(of(Post::Softmax, &[1.0, 1.0]), [0.5, 0.5]);
        assert_eq!(of(Post::Logistic, &[0.0, 0.0]), [0.5, 0.5]);
        assert_eq!(of(Post::SoftmaxZero, &[0.0, 3.0]), [0.0, 1.0]);
        assert_eq!(of(Post::SoftmaxZero, &[0.0, 0.0]), [0.5, 0.5]);
        assert_eq!(of(Post::Logistic, &[3.0]), [3.0]);
        assert!((probit(0.975) - 1.96).abs() < 3e-3 && probit(0.025) == -probit(0.975));
    }
}
