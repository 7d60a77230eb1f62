//! Biases that make up for what was taken away (Nagel et al. 2019, arXiv:1906.04721, there for quantised weights).

use secateur_engine::ir::{AttrValue, Links, Model, Node, NodeId, ValueId};

use super::moments::Moments;
use super::put::{own, put};
use super::{Calibration, RecoverError};

/// A sum of something with a constant, channel by channel.
struct Site {
    /// The name of the sum.
    output: String,
    /// The axis of its channels, from the end if negative.
    axis: isize,
    bias: ValueId,
    /// What the constant is multiplied by before it is added.
    factor: f64,
}

/// What [`correct`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Corrected {
    /// Biases that were shifted.
    pub shifted: usize,
    /// Biases of layers whose channels are others than the original's, which are as they were.
    pub other: usize,
}

/// Shifts the bias of every convolution, product and batch normalisation of the main graph so that the mean of each channel is that of
/// the `original` on the same examples, layer after layer, so that each sees what those before it make by then. Layers
/// without a bias get none.
///
/// # Errors
///
/// If one of the models does not run on the examples.
pub fn correct(model: &mut Model, original: &Model, with: &Calibration) -> Result<Corrected, RecoverError> {
    let nodes: Vec<NodeId> = model.graph.order.clone();
    let links = model.graph.links();
    let all: Vec<Site> = nodes
        .into_iter()
        .filter_map(|id| site(model, &links, id))
        .collect();
    let known = |s: &Site| original.graph.find(&s.output).is_some();
    let (sites, other): (Vec<_>, Vec<_>) = all.into_iter().partition(known);
    let places: Vec<_> = sites.iter().map(|s| (&*s.output, s.axis)).collect();
    let targets = match places.is_empty() {
        true => vec![],
        false => with.moments(original, &places)?,
    };
    let mut done = Corrected {
        shifted: 0,
        other: other.len(),
    };
    for (site, target) in sites.iter().zip(targets) {
        let now = with.moments(model, &[(&site.output, site.axis)])?;
        let both = target.zip(now.into_iter().next().flatten());
        match both.is_some_and(|(target, now)| shift(model, (site, &links), &target, &now)) {
            true => done.shifted += 1,
            false => done.other += 1,
        }
    }
    Ok(done)
}

/// Whether the bias could be shifted by the difference of the means.
fn shift(model: &mut Model, (site, links): (&Site, &Links), target: &Moments, now: &Moments) -> bool {
    let (target, now) = (target.means(), now.means());
    let old = own(model, links, site.bias).and_then(|t| t.floats());
    match old.filter(|old| old.len() == now.len() && now.len() == target.len()) {
        Some(old) => {
            let by = target
                .iter()
                .zip(&now)
                .map(|(target, now)| (target - now) / site.factor);
            let new: Vec<f64> = old.iter().zip(by).map(|(old, by)| old + by).collect();
            new.iter().all(|x| x.is_finite()) && put(model, site.bias, &new)
        }
        None => false,
    }
}

/// The sum that `id` makes with a constant of its own.
fn site(model: &Model, links: &Links, id: NodeId) -> Option<Site> {
    let node = &model.graph[id];
    let of = |i: usize, axis, factor: f64| {
        Some(Site {
            output: model.graph[node.outputs.first().copied()??].name.to_string(),
            axis,
            bias: vector((model, links), node, i)?,
            factor,
        })
    };
    if node.is("Conv") || node.is("ConvTranspose") || node.is("BatchNormalization") {
        return of(2, 1, 1.0);
    }
    if node.is("Gemm") {
        let beta = match node.attr("beta") {
            Some(AttrValue::Float(Some(beta))) => f64::from(*beta),
            _ => 1.0,
        };
        return of(2, 1, beta).filter(|_| beta != 0.0);
    }
    if node.is("Add") {
        let product = |i: usize| {
            let v = node.inputs.get(i).copied().flatten()?;
            links.producer(v).filter(|(id, _)| model.graph[*id].is("MatMul"))
        };
        return match (product(0), product(1)) {
            (Some(_), None) => of(1, -1, 1.0),
            (None, Some(_)) => of(0, -1, 1.0),
            _ => None,
        };
    }
    None
}

/// Input `i` of `node`, if it is a constant along one axis that nothing else reads.
fn vector((model, links): (&Model, &Links), node: &Node, i: usize) -> Option<ValueId> {
    let v = node.inputs.get(i).copied().flatten()?;
    let t = own(model, links, v)?;
    let along = t.dims().last().is_some_and(|&n| n == t.len() && n > 0);
    along.then_some(v)
}
