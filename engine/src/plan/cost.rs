//! What nodes cost, from the equations of their operators.

use crate::ir::{Dim, Model, NodeId};
use crate::ops;
use crate::opt::Facts;
use crate::opt::infer::opset_of;

/// Multiply-adds of `node`: what its operator says, else the product of the sizes of all letters of its equation, where it sums products
/// of two inputs. 0 for other operators; unknown where a size is.
pub fn macs(model: &Model, facts: &Facts, node: NodeId) -> Dim {
    let node = &model.graph[node];
    let n = facts.view(node, opset_of(&model.opsets, node));
    let Some(op) = ops::find(node.domain(), &node.op) else {
        return Dim::Known(0);
    };
    if let Some(said) = op.macs(&n) {
        return said;
    }
    let Some(axes) = op.axes(&n) else {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Attr, Node, Opset, Type};
    use crate::ir::{DType, Tensor};
    use crate::opt::infer::infer;

    /// The multiply-adds of one `op` of two groups over 12 × 10 elements of 6 channels, with a weight of these sizes and steps of 2.
    fn steps(op: &str, weight: [usize; 4]) -> Dim {
        let mut model = Model::default();
        model.opsets.push(Opset {
            domain: None,
            version: Some(13),
            extra: Default::default(),
        });
        let g = &mut model.graph;
        let dims = [3usize, 6, 12, 10].map(Dim::from);
        let x = g.input("x", Type::tensor(DType::F32, dims));
        let w = g.constant("w", Tensor::of(&weight, vec![0.0f32; weight.iter().product()]));
        let y = g.value("y");
        let mut node = Node::new(op, vec![Some(x), Some(w)], vec![Some(y)]);
        node.attrs = vec![Attr::new("strides", vec![2i64, 2]), Attr::new("group", 2i64)];
        let id = g.node(node);
        g.output(y, None);
        macs(&model, &infer(&model, &Default::default()).unwrap(), id)
    }

    #[test]
    fn convolutions_count_outputs_and_their_transposes_inputs() {
        let taps = 3 * 3;
        assert_eq!(
            steps("Conv", [8, 3, 3, 3]),
            Dim::Known((3 * 8 * 3 * taps * 5 * 4) as i64)
        );
        assert_eq!(
            steps("ConvTranspose", [6, 4, 3, 3]),
            Dim::Known((3 * 6 * 4 * taps * 12 * 10) as i64)
        );
    }
}
