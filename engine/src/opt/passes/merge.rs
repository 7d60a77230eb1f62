//! Common subexpressions.

use std::collections::HashMap;

use crate::ir::{DType, Graph, Links, Model, NodeId, Patch, Tensor, ValueId};
use crate::ops;
use crate::opt::infer::full_name;
use crate::opt::{Pass, PassError, Report, Scope};

/// Bytes of a constant that are looked at before it is compared with others: as many of all of it.
const SAMPLE: usize = 256;

/// Constants that look alike are compared with this many of them.
const ALIKE: usize = 8;

/// Lets one of equal constants stand for all, and one of nodes that compute the same from the same inputs. Nodes with
/// subgraphs, and random ones, stay apart.
pub(super) struct Merge;

impl Pass for Merge {
    fn name(&self) -> &'static str {
        "merge"
    }

    fn run(&self, model: &mut Model, _: Scope, report: &mut Report) -> Result<(), PassError> {
        let mut links = model.graph.links();
        for (v, first) in equal_constants(&model.graph, &links) {
            let mut patch = Patch::new(&model.graph);
            patch.replace.push((v, first));
            report.fired(self.name(), &*model.graph[v].name);
            patch.apply_with(&mut model.graph, &mut links)?;
        }
        let mut seen: HashMap<(String, Vec<Option<ValueId>>), Vec<NodeId>> = HashMap::new();
        for id in model.graph.order.clone() {
            let graph = &mut model.graph;
            let node = &graph[id];
            let pure = ops::find(node.domain(), &node.op).is_some_and(|op| !op.laws().impure);
            if !pure || node.attrs.iter().any(|a| !a.value.graphs().is_empty()) {
                continue;
            }
            let inputs = node.inputs.to_vec();
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

/// Constants that somebody reads, each with an equal one before it.
fn equal_constants(graph: &Graph, links: &Links) -> Vec<(ValueId, ValueId)> {
    let mut seen: HashMap<_, Vec<(ValueId, &Tensor)>> = HashMap::new();
    let mut equal = vec![];
    for &v in &graph.initializers {
        let Some(t) = graph.konst(v).filter(|t| t.dtype() != DType::String) else {
            continue;
        };
        let alike = seen
            .entry((t.dtype().to_string(), t.dims(), sample(t.bytes())))
            .or_default();
        match alike.iter().find(|(_, first)| first.bytes() == t.bytes()) {
            Some(&(first, _)) if !links.kept(v) && !links.readers(v).is_empty() => equal.push((v, first)),
            None if alike.len() < ALIKE => alike.push((v, t)),
            _ => {}
        }
    }
    equal
}

/// The bytes if they are few, else some from everywhere.
fn sample(bytes: &[u8]) -> Vec<u8> {
    let step = bytes.len().div_ceil(SAMPLE).max(1);
    bytes.iter().step_by(step).copied().collect()
}

/// Which outputs are wanted.
fn shape(outputs: &[Option<ValueId>]) -> Vec<bool> {
    outputs.iter().map(Option::is_some).collect()
}
