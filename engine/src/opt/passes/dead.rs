//! Nodes and initialisers that nobody reads.

use std::collections::HashSet;

use crate::ir::{Graph, Model, ValueId};
use crate::opt::{Pass, PassError, Report, Scope};

/// Drops nodes that no output depends on, initialisers that nothing reads, and the `value_info` of what is gone.
///
/// Nodes whose operator is unknown go too if nobody reads them: ONNX has no side effects. Inputs stay.
pub(super) struct Dead;

impl Pass for Dead {
    fn name(&self) -> &'static str {
        "dead"
    }

    fn run(&self, model: &mut Model, _: Scope, report: &mut Report) -> Result<(), PassError> {
        let graph = &mut model.graph;
        let links = graph.links();
        let mut live = HashSet::new();
        let mut open: Vec<ValueId> = (0..graph.values.len() as u32)
            .map(ValueId)
            .filter(|&v| links.kept(v))
            .collect();
        while let Some(v) = open.pop() {
            if let Some((n, _)) = links.producer(v)
                && live.insert(n)
            {
                open.extend(graph[n].inputs.iter().flatten());
            }
        }
        let gone: Vec<_> = graph
            .order
            .iter()
            .copied()
            .filter(|n| !live.contains(n))
            .collect();
        for &n in &gone {
            report.fired(self.name(), graph[n].label());
        }
        graph.order.retain(|n| live.contains(n));
        self.initializers(graph, report);
        let defined = defined(graph);
        graph.infos.retain(|p| defined.contains(&p.value));
        Ok(())
    }
}

impl Dead {
    fn initializers(&self, graph: &mut Graph, report: &mut Report) {
        let links = graph.links();
        let read = |v: ValueId| links.kept(v) || !links.readers(v).is_empty();
        let unread: HashSet<_> = graph
            .initializers
            .iter()
            .copied()
            .filter(|&v| !read(v) && !graph.is_input(v))
            .collect();
        for &v in &unread {
            report.fired(self.name(), &*graph[v].name);
            graph[v].konst = None;
        }
        graph.initializers.retain(|v| !unread.contains(v));
    }
}

fn defined(graph: &Graph) -> HashSet<ValueId> {
    let inputs = graph.inputs.iter().map(|p| p.value);
    let made = graph
        .iter()
        .flat_map(|(_, n)| n.outputs.iter().flatten().copied());
    inputs
        .chain(made)
        .chain(graph.initializers.iter().copied())
        .collect()
}
