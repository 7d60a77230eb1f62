//! Methods that look at how much the loss depends on weights.

use secateur_engine::ir::Model;

use super::Method;
use crate::error::MethodError;
use crate::observe::{Need, Seen, Stats};
use crate::weights::Weight;

/// By `|w| · E|∂L/∂w|`: the mean change of the loss, to first order (Molchanov et al. 2019, arXiv:1906.10771).
pub(super) struct Taylor;

impl Method for Taylor {
    fn name(&self) -> &'static str {
        "taylor"
    }

    fn about(&self) -> &'static str {
        "Takes weights with which the loss changes least, to first order."
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Gradients]
    }

    fn scores(&self, _: &Model, weight: &Weight, seen: &Stats) -> Result<Vec<f32>, MethodError> {
        each(weight, seen, |s| s.gradients.as_ref(), |w, g| w.abs() * g)
    }
}

/// By `½ · F · w²` with the diagonal `F` of the Fisher information: the mean square of the gradient of `log p` (Theis et al. 2018,
/// arXiv:1801.05787).
pub(super) struct Fisher;

impl Method for Fisher {
    fn name(&self) -> &'static str {
        "fisher"
    }

    fn about(&self) -> &'static str {
        "Takes weights by whose squares times squared gradients lie low."
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Squares]
    }

    fn scores(&self, _: &Model, weight: &Weight, seen: &Stats) -> Result<Vec<f32>, MethodError> {
        each(weight, seen, |s| s.squares.as_ref(), |w, f| 0.5 * f * w * w)
    }
}

/// Optimal Brain Damage: by `½ · H · w²` with the diagonal `H` of the second derivative (LeCun et al. 1989), without the second
/// derivatives of the model itself, as there (Gauss and Newton's form): exactly the loss where that is quadratic.
pub(super) struct Damage;

impl Method for Damage {
    fn name(&self) -> &'static str {
        "obd"
    }

    fn about(&self) -> &'static str {
        "Optimal Brain Damage: takes the least squares times curvature."
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Curvature]
    }

    fn scores(&self, _: &Model, weight: &Weight, seen: &Stats) -> Result<Vec<f32>, MethodError> {
        each(weight, seen, |s| s.curvature.as_ref(), |w, h| 0.5 * h * w * w)
    }
}

/// By the sum of `-w · ∂L/∂w` over steps of training: weights that go towards zero go (Sanh et al. 2020, arXiv:2005.07683).
pub(super) struct Movement;

impl Method for Movement {
    fn name(&self) -> &'static str {
        "movement"
    }

    fn about(&self) -> &'static str {
        "Takes weights that training moves towards zero most."
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Motion]
    }

    fn batch(&self) -> usize {
        32
    }

    fn scores(&self, _: &Model, weight: &Weight, seen: &Stats) -> Result<Vec<f32>, MethodError> {
        // Scores begin at 0; all weights move down by the same, so that sums and ranks stay.
        let all = seen.seen.values().filter_map(|s| s.motion.as_ref()).flatten();
        let least = all.fold(f32::INFINITY, |m, &x| m.min(x));
        each(weight, seen, |s| s.motion.as_ref(), |_, m| m - f64::from(least))
    }
}

/// A score for each element of `weight`, by itself and what `pick` finds; NaN elements have the score 0.
fn each<'s>(
    weight: &Weight,
    seen: &'s Stats,
    pick: impl Fn(&'s Seen) -> Option<&'s Vec<f32>>,
    score: impl Fn(f64, f64) -> f64,
) -> Result<Vec<f32>, MethodError> {
    let found = seen.each(weight, pick)?;
    let elements = weight.tensor.floats().unwrap_or_default();
    let one = |(w, &x): (f64, &f32)| match w.is_nan() {
        true => 0.0,
        false => score(w, f64::from(x)) as f32,
    };
    Ok(elements.into_iter().zip(found).map(one).collect())
}
