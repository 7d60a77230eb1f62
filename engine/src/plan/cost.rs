//! What nodes cost, from the equations of their operators.

use crate::ir::{Dim, Model, NodeId};
use crate::ops;
use crate::opt::Facts;
use crate::opt::infer::opset_of;

/// Multiply-adds of `node`: the product of the sizes of all letters of its equation, where it sums products of two
/// inputs. 0 for other operators; unknown where a size is.
pub fn macs(model: &Model, facts: &Facts, node: NodeId) -> Dim {
    let node = &model.graph[node];
    let n = facts.view(node, opset_of(&model.opsets, node));
    let Some(axes) = ops::find(node.domain(), &node.op).and_then(|op| op.axes(&n)) else {
        return Dim::Known(0);
    };
    // In a convolution in groups, no letter that is summed over stands for the same axis of both.
    let reads = |i: usize| axes.0.iter().any(|t| t.inputs.iter().any(|x| x.0 == i));
    if !(axes.0.iter().any(|t| t.output.is_none()) && reads(0) && reads(1)) {
        return Dim::Known(0);
    }
    let out = node
        .outputs
        .first()
        .copied()
        .flatten()
        .and_then(|v| facts.of(v).ty.shape());
    let size = |tie: &ops::Tie| {
        let made = tie.output.and_then(|axis| out?.get(axis).cloned());
        let read = tie
            .inputs
            .first()
            .and_then(|&(i, axis)| n.shape(i)?.get(axis).cloned());
        made.or(read).unwrap_or(Dim::Unknown)
    };
    axes.0.iter().map(size).fold(Dim::Known(1), |all, d| all * d)
}
