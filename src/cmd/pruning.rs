//! What verbs that prune have in common.

use anyhow::{Context, Result};
use clap::ValueEnum;
use secateur::Model;
use secateur::compress::{Choice, Effort, Goal, Scope, Stats, Task, apply_with, methods, weights};

/// What a share is a share of, as a flag.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ScopeFlag {
    /// All weights together
    Global,
    /// Each layer by itself
    Layer,
}

impl From<ScopeFlag> for Scope {
    fn from(flag: ScopeFlag) -> Scope {
        match flag {
            ScopeFlag::Global => Scope::Global,
            ScopeFlag::Layer => Scope::Layer,
        }
    }
}

/// A share as people write it: 0.8, 80% or 80; above 1 it is percent.
///
/// # Errors
///
/// If it is none.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let (digits, percent) = match text.trim().strip_suffix('%') {
        Some(digits) => (digits.trim_end(), true),
        None => (text.trim(), false),
    };
    let x: f64 = digits
        .parse()
        .map_err(|_| format!("{digits:?} is not a number"))?;
    let share = if percent || x > 1.0 { x / 100.0 } else { x };
    match (0.0..=1.0).contains(&share) {
        true => Ok(share),
        false => Err("expected a share: 0 to 1, or 0% to 100%".into()),
    }
}

/// A share in percent, without the noise of binary fractions.
pub(crate) fn percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}

/// Weights that can be pruned, and those of them that are zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zeros {
    pub(crate) weights: u64,
    pub(crate) zeros: u64,
}

impl Zeros {
    /// Those of `model` that `choice` leaves to pruning.
    ///
    /// # Errors
    ///
    /// If the choice names what is not there.
    pub(crate) fn of(model: &Model, choice: &Choice) -> Result<Zeros> {
        let mut all = weights(model);
        choice.mark(&mut all)?;
        let counted = || all.iter().filter(|w| w.exempt.is_none());
        Ok(Zeros {
            weights: counted().map(|w| w.elements()).sum(),
            zeros: counted().map(|w| w.tensor.zeros_count() as u64).sum(),
        })
    }

    /// The share of zeros.
    pub(crate) fn share(&self) -> f64 {
        self.zeros as f64 / self.weights.max(1) as f64
    }
}

/// `dense`, pruned by magnitude.
///
/// # Errors
///
/// If there is nothing to prune, or the goal is none.
pub(crate) fn pruned(dense: &Model, choice: &Choice, goal: Goal, effort: &Effort) -> Result<Model> {
    let mut model = dense.clone();
    let mut all = weights(dense);
    choice.mark(&mut all)?;
    goal.pattern.mark(&mut all);
    let task = Task {
        model: dense,
        weights: &all,
        goal,
        effort: *effort,
    };
    let method = methods::find("magnitude").context("no method \"magnitude\"")?;
    apply_with(
        &method.decide(&task, &Stats::default())?,
        &mut model,
        effort,
        None,
    )?;
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_people_mean_them() {
        let read = ["0", "0.8", "80%", "80", " 80 % ", "1", "1%", "100", "0.5%"].map(|s| share(s).ok());
        let meant = [0.0, 0.8, 0.8, 0.8, 0.8, 1.0, 0.01, 1.0, 0.005].map(Some);
        assert_eq!(read, meant);
        assert!(
            ["-0.1", "101", "nan", "inf", "", "%", "a", "200%"]
                .iter()
                .all(|s| share(s).is_err())
        );
        assert_eq!([0.8, 0.001, 1.0 / 3.0].map(percent), [80.0, 0.1, 33.333333]);
    }
}
