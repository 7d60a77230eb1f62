//! What is cut away by what is lost once the rest is fitted.

use secateur_engine::ir::Model;

use super::{Method, Task};
use crate::change::Plan;
use crate::error::MethodError;
use crate::observe::{Need, Stats};
use crate::weights::Weight;

/// Optimal Brain Surgeon for structures (Kurtic, Frantar and Alistarh 2023, arXiv:2302.04089): by the error that a least-squares fit of what
/// is left would leave, weighed by curvature; see [`Harms`](crate::Harms). It makes no zeros.
pub(super) struct Surgeon;

/// Why it makes no zeros.
const WHY: &str =
    "method surgeon chooses what is cut away, --pattern structured and the like; for zeros use sparsegpt";

impl Method for Surgeon {
    fn name(&self) -> &'static str {
        "surgeon"
    }

    fn about(&self) -> &'static str {
        "Cuts away what hurts outputs least once the rest is fitted."
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Products, Need::Curvature]
    }

    fn cuts(&self) -> bool {
        true
    }

    fn without(&self, _: &Model, _: &Weight) -> Option<String> {
        Some(WHY.into())
    }

    fn scores(&self, _: &Model, _: &Weight, _: &Stats) -> Result<Vec<f32>, MethodError> {
        Err(MethodError::goal(WHY))
    }

    fn decide(&self, _: &Task, _: &Stats) -> Result<Plan, MethodError> {
        Err(MethodError::goal(WHY))
    }
}
