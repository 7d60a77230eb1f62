//! Weights up to a given magnitude go.

use secateur_engine::ir::Model;

use super::magnitude::magnitudes;
use super::{Amount, Method, Task};
use crate::change::{Change, Cut, Mask, Plan};
use crate::error::MethodError;
use crate::math::Float;
use crate::math::float::with_float;
use crate::observe::Stats;
use crate::weights::Weight;

/// Pruning of all weights with |x| ≤ a threshold, or of all blocks whose mean magnitude is. The threshold is first rounded to the type of the weights: a threshold of 0.1
/// prunes the `f32` next to 0.1, though that is larger.
pub(super) struct Threshold;

impl Method for Threshold {
    fn name(&self) -> &'static str {
        "threshold"
    }

    fn about(&self) -> &'static str {
        "Sets weights of at most a given magnitude to zero."
    }

    fn scores(&self, _: &Model, weight: &Weight, _: &Stats) -> Result<Vec<f32>, MethodError> {
        Ok(magnitudes(weight))
    }

    fn decide(&self, task: &Task, _: &Stats) -> Result<Plan, MethodError> {
        let threshold = threshold(task.goal.amount)?;
        let pattern = task.goal.pattern;
        if pattern.share().is_some() {
            let what = format!("pattern {pattern} decides itself how much goes, and takes no threshold");
            return Err(MethodError::goal(what));
        }
        let mask = |w: &Weight| {
            Change::Mask(Mask {
                value: w.name.clone(),
                elements: w.elements(),
                tiles: w.matrix.as_ref().and_then(|m| m.tiles(pattern)),
                cut: Cut::Small {
                    threshold: with_float!(w.kind, F => F::value(F::nearest(threshold))),
                    ties: 0,
                },
            })
        };
        Ok(Plan(task.targets()?.into_iter().map(mask).collect()))
    }
}

fn threshold(amount: Amount) -> Result<f64, MethodError> {
    let what = match amount {
        Amount::Threshold(x) if (0.0..f64::INFINITY).contains(&x) => return Ok(x),
        Amount::Threshold(x) => format!("expected a threshold of at least 0, found {x}"),
        Amount::Sparsity(_) => "method threshold takes a threshold; method magnitude takes a sparsity".into(),
    };
    Err(MethodError::goal(what))
}

#[cfg(test)]
mod tests {
    use secateur_engine::Tensor;

    use super::super::tests::{chain, decide};
    use super::super::{Goal, Scope};
    use super::*;
    use crate::apply::apply;
    use crate::pattern::Pattern;

    #[test]
    fn the_threshold_is_rounded_to_the_type_of_the_weights() {
        let half = Tensor::rounded(
            secateur_engine::ir::DType::F16,
            &[1, 3],
            &[0.1, -0.2, f64::INFINITY],
        );
        let mut model = chain(vec![
            Tensor::of(&[2, 2], vec![0.1f32, -0.2, 0.0, f32::NAN]),
            half.unwrap(),
        ]);
        let goal = |x| Goal {
            amount: Amount::Threshold(x),
            scope: Scope::Global,
            pattern: Pattern::Unstructured,
        };
        let plan = decide(&Threshold, &model, goal(0.1), 1).unwrap();
        let report = apply(&plan, &mut model).unwrap();
        let zeros: Vec<_> = report
            .edits
            .iter()
            .map(|e| (e.zeros_before, e.zeros_after))
            .collect();
        assert_eq!(zeros, [(1, 2), (0, 1)]);
        let plan = decide(&Threshold, &model, goal(1e9), 1).unwrap();
        let report = apply(&plan, &mut model).unwrap();
        let zeros: Vec<_> = report
            .edits
            .iter()
            .map(|e| (e.zeros_before, e.zeros_after))
            .collect();
        assert_eq!(zeros, [(2, 3), (1, 2)]);
    }
}
