//! Operators that make strings and numbers, spelled out.

use std::collections::HashMap;

use crate::expr::Builder;
use crate::ir::{DType, Model, NodeId, Patch};
use crate::ops;
use crate::opt::infer::{Facts, infer, opset_of};
use crate::opt::{Pass, PassError, Report, Scope};

/// Replaces nodes that make strings as well as numbers by their bodies, so that kernels, which know no strings, can compute
/// the numbers: a classifier with names for its classes becomes one that numbers them, and the names are looked up.
pub(super) struct Expand;

impl Pass for Expand {
    fn name(&self) -> &'static str {
        "expand"
    }

    fn run(&self, model: &mut Model, scope: Scope, report: &mut Report) -> Result<(), PassError> {
        if scope != Scope::Engine {
            return Ok(());
        }
        let facts = infer(model, &HashMap::new())?;
        for id in model.graph.order.clone() {
            if let Some(patch) = expanded(model, id, &facts) {
                report.fired(self.name(), model.graph[id].label());
                patch.apply(&mut model.graph)?;
            }
        }
        Ok(())
    }
}

fn expanded(model: &Model, id: NodeId, facts: &Facts) -> Option<Patch> {
    let node = &model.graph[id];
    let made: Vec<_> = node
        .outputs
        .iter()
        .flatten()
        .map(|v| facts.of(*v).ty.dtype())
        .collect();
    if made.len() < 2 || !made.contains(&Some(DType::String)) {
        return None;
    }
    let op = ops::find(node.domain(), &node.op)?;
    let inputs = node.inputs.iter().copied().collect::<Option<Vec<_>>>()?;
    let opset = opset_of(&model.opsets, node);
    let written = ops::body_opset(node.domain(), opset);
    let builder = Builder::inside(&model.graph, written, &node.attrs);
    let holes: Vec<_> = inputs.iter().map(|&v| builder.at(v)).collect();
    let outputs = op.body(&facts.view(node, opset), &holes)?;
    let outputs: Vec<_> = outputs.iter().map(|e| e.id).collect();
    let mut patch = builder.finish();
    for inner in &mut patch.nodes {
        inner.name = node.name.clone();
    }
    let pairs = node.outputs.iter().zip(outputs);
    patch.replace = pairs.filter_map(|(old, new)| Some(((*old)?, new))).collect();
    patch.remove = vec![id];
    Some(patch)
}
