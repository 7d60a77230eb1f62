//! Common subexpressions.

use std::collections::HashMap;

use crate::ir::{DType, Graph, Model, NodeId, Patch, ValueId};
use crate::ops;
use crate::opt::infer::full_name;
use crate::opt::{Pass, PassError, Report, Scope};

/// Constants of more bytes are not compared: weights are rarely doubled, and shapes often are.
const SMALL: usize = 64;

/// Merges nodes that compute the same from the same inputs, or from equal small constants. Those with subgraphs, and random
/// ones, stay apart.
pub(super) struct Merge;

impl Pass for Merge {
    fn name(&self) -> &'static str {
        "merge"
    }

    fn run(&self, model: &mut Model, _: Scope, report: &mut Report) -> Result<(), PassError> {
        let alias = equal_constants(&model.graph);
        let mut links = model.graph.links();
        let mut seen: HashMap<(String, Vec<Option<ValueId>>), Vec<NodeId>> = HashMap::new();
        for id in model.graph.order.clone() {
            let graph = &mut model.graph;
            let node = &graph[id];
            let pure = ops::find(node.domain(), &node.op).is_some_and(|op| !op.laws().impure);
            if !pure || node.attrs.iter().any(|a| !a.value.graphs().is_empty()) {
                continue;
            }
            let read = |v: &Option<ValueId>| v.map(|v| alias.get(&v).copied().unwrap_or(v));
            let inputs = node.inputs.iter().map(read).collect();
            let same = seen.entry((full_name(node), inputs)).or_default();
            let twin = same.iter().copied().find(|&other| {
                graph[other].attrs == node.attrs && shape(&graph[other].outputs) == shape(&node.outputs)
            });
            let kept = |v: &ValueId| graph.outputs.iter().any(|p| p.value == *v);
            match twin {
                None => same.push(id),
                Some(_) if node.outputs.iter().flatten().any(kept) => {}
                Some(twin) => {
                    let mut patch = Patch::new(graph);
                    let pairs = node.outputs.iter().zip(&graph[twin].outputs);
                    patch.replace = pairs.filter_map(|(a, b)| Some(((*a)?, (*b)?))).collect();
                    patch.remove.push(id);
                    report.fired(self.name(), node.label());
                    patch.apply_with(graph, &mut links)?;
                }
            }
        }
        Ok(())
    }
}

/// The first of all equal constants, for each that has one before it.
fn equal_constants(graph: &Graph) -> HashMap<ValueId, ValueId> {
    let mut first = HashMap::new();
    let constants = graph
        .initializers
        .iter()
        .filter_map(|&v| Some((v, graph.konst(v)?)));
    let small = constants.filter(|(_, t)| t.dtype() != DType::String && t.bytes().len() <= SMALL);
    small
        .filter_map(|(v, t)| {
            let one = *first
                .entry((t.dtype().to_string(), t.dims(), t.bytes()))
                .or_insert(v);
            (one != v).then_some((v, one))
        })
        .collect()
}

/// Which outputs are wanted.
fn shape(outputs: &[Option<ValueId>]) -> Vec<bool> {
    outputs.iter().map(Option::is_some).collect()
}
