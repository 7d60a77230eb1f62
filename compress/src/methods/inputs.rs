//! Methods that look at what weights are multiplied by.

use secateur_engine::ir::Model;

use super::{Method, Scope};
use crate::error::MethodError;
use crate::math::layout::Layout;
use crate::observe::{Inputs, Need, Stats};
use crate::weights::Weight;

/// By the mean magnitude of the neuron that a weight reads (Molchanov et al. 2017, arXiv:1611.06440): a neuron that is 0 on all
/// examples is not needed.
pub(super) struct Activation;

impl Method for Activation {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn about(&self) -> &'static str {
        "Takes weights that read the neurons of the least mean magnitude."
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Inputs]
    }

    fn scope(&self) -> Scope {
        Scope::Layer
    }

    fn together(&self) -> Option<&'static str> {
        Some("all weights of an input have the same score; use --pattern column")
    }

    fn scores(&self, _: &Model, weight: &Weight, seen: &Stats) -> Result<Vec<f32>, MethodError> {
        each(weight, seen, |inputs, at, _| inputs.mean[at])
    }
}

/// By how often the neuron that a weight reads is not zero (Hu et al. 2016, arXiv:1607.03250).
pub(super) struct ZeroShare;

impl Method for ZeroShare {
    fn name(&self) -> &'static str {
        "apoz"
    }

    fn about(&self) -> &'static str {
        "Takes weights that read the neurons which are most often zero."
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Inputs]
    }

    fn scope(&self) -> Scope {
        Scope::Layer
    }

    fn together(&self) -> Option<&'static str> {
        Some("all weights of an input have the same score; use --pattern column")
    }

    fn scores(&self, _: &Model, weight: &Weight, seen: &Stats) -> Result<Vec<f32>, MethodError> {
        each(weight, seen, |inputs, at, _| (1.0 - inputs.zeros[at]).max(0.0))
    }
}

/// By magnitude times the length of all that a weight was multiplied by, single weights within each output (Sun et al. 2024,
/// arXiv:2306.11695).
pub(super) struct Wanda;

impl Method for Wanda {
    fn name(&self) -> &'static str {
        "wanda"
    }

    fn about(&self) -> &'static str {
        "Takes the smallest products of magnitude and length of the input."
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Inputs]
    }

    fn scope(&self) -> Scope {
        Scope::Layer
    }

    fn rows(&self) -> bool {
        true
    }

    fn scores(&self, _: &Model, weight: &Weight, seen: &Stats) -> Result<Vec<f32>, MethodError> {
        each(weight, seen, |inputs, at, w| {
            let mean = inputs.squares[at] / inputs.rows.max(1) as f64;
            w.abs() * mean.sqrt()
        })
    }
}

/// A score for each element of `weight`, by its column in what was seen and itself; NaN elements have the score 0.
fn each(
    weight: &Weight,
    seen: &Stats,
    score: impl Fn(&Inputs, usize, f64) -> f64,
) -> Result<Vec<f32>, MethodError> {
    let inputs = seen.of(weight, |s| s.inputs.as_ref())?;
    let layout = weight.matrix.as_ref().map(Layout::of);
    let layout = layout.filter(|l| l.groups * l.columns == inputs.mean.len());
    let elements = weight.tensor.floats();
    let (Some(layout), Some(elements)) = (layout, elements) else {
        let name = &weight.name;
        return Err(MethodError::unseen(format!(
            "what was seen is of another weight than {name:?}"
        )));
    };
    let cells = layout.cells().into_iter().zip(elements);
    let one = |(cell, w): (crate::math::layout::Cell, f64)| match w.is_nan() {
        true => 0.0,
        false => score(inputs, cell.group * layout.columns + cell.column, w) as f32,
    };
    Ok(cells.map(one).collect())
}
