//! Common subexpressions.

use std::collections::HashMap;

use crate::ir::{Model, NodeId, Patch, ValueId};
use crate::ops;
use crate::opt::infer::full_name;
use crate::opt::{Pass, PassError, Report, Scope};

/// Merges nodes that compute the same from the same inputs. Those with subgraphs, and random ones, stay apart.
pub(super) struct Merge;

impl Pass for Merge {
    fn name(&self) -> &'static str {
        "merge"
    }

    fn run(&self, model: &mut Model, _: Scope, report: &mut Report) -> Result<(), PassError> {
        let mut seen: HashMap<(String, Vec<Option<ValueId>>), Vec<NodeId>> = HashMap::new();
        for id in model.graph.order.clone() {
            let graph = &mut model.graph;
            let node = &graph[id];
            let pure = ops::find(node.domain(), &node.op).is_some_and(|op| !op.laws().impure);
            if !pure || node.attrs.iter().any(|a| !a.value.graphs().is_empty()) {
                continue;
            }
            let same = seen.entry((full_name(node), node.inputs.clone())).or_default();
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
                    patch.apply(graph)?;
                }
            }
        }
        Ok(())
    }
}

/// Which outputs are wanted.
fn shape(outputs: &[Option<ValueId>]) -> Vec<bool> {
    outputs.iter().map(Option::is_some).collect()
}
