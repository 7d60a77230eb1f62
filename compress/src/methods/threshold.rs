//! Weights below a given magnitude go.

use secateur_engine::ir::Model;

use super::magnitude::magnitudes;
use super::{Amount, Method, Task};
use crate::change::{Change, Cut, Mask, Plan};
use crate::error::MethodError;
use crate::math::Float;
use crate::math::float::with_float;
use crate::observe::Stats;
use crate::weights::Weight;

/// Pruning of all weights with |x| < a threshold, or of all blocks whose mean magnitude is below it. The threshold is first rounded
/// to the type of the weights: with a threshold of 0.1 the `f32` next to 0.1 stays, though 0.1 may be larger.
pub(super) struct Threshold;

impl Method for Threshold {
    fn name(&self) -> &'static str {
        "threshold"
    }

    fn about(&self) -> &'static str {
        "Sets weights below a given magnitude to zero."
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
                cut: below(w, threshold),
            })
        };
        Ok(Plan(task.targets()?.into_iter().map(mask).collect()))
    }
}

/// What is below `threshold`: of what equals it all stay, which is no more than there are elements.
fn below(weight: &Weight, threshold: f64) -> Cut {
    let rounded = with_float!(weight.kind, F => F::value(F::nearest(threshold)));
    // Beyond the largest number of the type the threshold is rounded down, and even that number goes.
    let largest = with_float!(weight.kind, F => F::value(F::below(F::INFINITY)));
    let beyond = rounded == largest && threshold > largest;
    Cut::Small {
        threshold: rounded,
        ties: if beyond { 0 } else { weight.elements() },
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
        // What equals the threshold stays.
        assert_eq!(zeros, [(1, 1), (0, 0)]);
        let plan = decide(&Threshold, &model, goal(1e9), 1).unwrap();
        let report = apply(&plan, &mut model).unwrap();
        let zeros: Vec<_> = report
            .edits
            .iter()
            .map(|e| (e.zeros_before, e.zeros_after))
            .collect();
        assert_eq!(zeros, [(1, 3), (0, 2)]);
    }

    /// Row E5: |w| < 0.01 goes, and 0.01 itself stays.
    #[test]
    fn what_equals_the_threshold_stays() {
        let x = [0.5f32, -0.009, 0.01, 0.0, -0.02];
        let mut model = chain(vec![Tensor::of(&[1, 5], x.to_vec())]);
        let goal = Goal {
            amount: Amount::Threshold(0.01),
            scope: Scope::Global,
            pattern: Pattern::Unstructured,
        };
        let plan = decide(&Threshold, &model, goal, 1).unwrap();
        let report = apply(&plan, &mut model).unwrap();
        let edit = &report.edits[0];
        assert_eq!((edit.zeros_before, edit.zeros_after), (1, 2));
        let g = &model.graph;
        let left = g.konst(g.find("w0").unwrap()).unwrap();
        let expected = [0.5, 0.0, 0.01, 0.0, -0.02f32];
        assert_eq!(left.elements::<f32>().unwrap(), &expected[..]);
        // A block whose mean is the threshold stays too.
        let mut model = chain(vec![Tensor::of(&[1, 8], [[1f32; 4], [0.5; 4]].concat())]);
        let goal = Goal {
            amount: Amount::Threshold(1.0),
            pattern: "block4x1".parse().unwrap(),
            ..goal
        };
        apply(&decide(&Threshold, &model, goal, 1).unwrap(), &mut model).unwrap();
        let g = &model.graph;
        assert_eq!(g.konst(g.find("w0").unwrap()).unwrap().zeros_count(), 4);
    }
}
