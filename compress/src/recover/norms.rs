//! Statistics of batch normalisations, taken anew.

use secateur_engine::ir::{AttrValue, Links, Model, NodeId, ValueId};

use super::put::{own, put};
use super::{Calibration, RecoverError};

/// A normalisation by constants.
struct Norm {
    input: String,
    mean: ValueId,
    variance: ValueId,
}

/// Sets mean and variance of every `BatchNormalization` of the main graph to those of what flows into it, node after node, so that
/// each sees what those before it make by then. How many there are; of a model whose normalisations are part of its convolutions
/// none. Those that do not run on constants of their own are left alone.
///
/// # Errors
///
/// If the model does not run on the examples.
pub fn renormalize(model: &mut Model, with: &Calibration) -> Result<usize, RecoverError> {
    let nodes: Vec<NodeId> = model.graph.order.clone();
    let links = model.graph.links();
    let mut done = 0;
    for id in nodes {
        let Some(norm) = norm(model, &links, id) else {
            continue;
        };
        let found = with.moments(model, &[(&norm.input, 1)])?;
        let Some(moments) = found.into_iter().next().flatten() else {
            continue;
        };
        let mean = put(model, norm.mean, &moments.means());
        let variance = mean && put(model, norm.variance, &moments.variances());
        done += usize::from(variance);
    }
    Ok(done)
}

fn norm(model: &Model, links: &Links, id: NodeId) -> Option<Norm> {
    let (graph, node) = (&model.graph, &model.graph[id]);
    let training = matches!(node.attr("training_mode"), Some(AttrValue::Int(Some(1))));
    if !node.is("BatchNormalization") || training || node.outputs.iter().flatten().count() > 1 {
        return None;
    }
    let input = |i: usize| node.inputs.get(i).copied().flatten();
    let own = |i: usize| input(i).filter(|&v| own(model, links, v).is_some_and(|t| t.dims().len() == 1));
    Some(Norm {
        input: graph[input(0)?].name.to_string(),
        mean: own(3)?,
        variance: own(4)?,
    })
}
