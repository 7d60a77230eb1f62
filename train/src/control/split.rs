//! What of a differentiated model is its own, and what is its gradient.

use std::collections::HashSet;

use secateur_engine::ir::{Graph, NodeId, ValueId};

use crate::reach::reads;

/// The nodes of a differentiated model, in order.
pub(super) struct Split {
    /// Those that its outputs need.
    pub(super) early: Vec<NodeId>,
    /// Those that only its gradients need.
    pub(super) late: Vec<NodeId>,
    /// The values that gradients read and no late node makes.
    pub(super) crossing: Vec<ValueId>,
}

/// Divides the nodes of `graph` by whether `outputs` or only `grads` need them.
pub(super) fn split(graph: &Graph, outputs: &[ValueId], grads: &[ValueId]) -> Split {
    let names = graph.names();
    let needed = |of: &[ValueId]| {
        let mut read: HashSet<ValueId> = of.iter().copied().collect();
        let mut nodes = HashSet::new();
        for (id, node) in graph.iter().rev() {
            if node.outputs.iter().flatten().any(|v| read.contains(v)) {
                nodes.insert(id);
                read.extend(reads(&names, node));
            }
        }
        nodes
    };
    let (early, all) = (needed(outputs), needed(grads));
    let late = graph.order.iter().copied();
    let late: Vec<_> = late.filter(|n| all.contains(n) && !early.contains(n)).collect();
    let made: HashSet<_> = late
        .iter()
        .flat_map(|&n| graph[n].outputs.iter().flatten())
        .collect();
    let read = late
        .iter()
        .flat_map(|&n| reads(&names, &graph[n]))
        .chain(grads.iter().copied());
    let mut seen = HashSet::new();
    let crossing = read.filter(|v| !made.contains(v) && seen.insert(*v)).collect();
    Split {
        early: graph
            .order
            .iter()
            .copied()
            .filter(|n| early.contains(n))
            .collect(),
        late,
        crossing,
    }
}

impl Split {
    /// The values that gradients read and nodes of `graph`'s own make.
    pub(super) fn kept<'s>(&'s self, graph: &'s Graph) -> impl Iterator<Item = ValueId> + 's {
        let early = self.early.iter().flat_map(|&n| graph[n].outputs.iter().flatten());
        let early: HashSet<_> = early.copied().collect();
        self.crossing.iter().copied().filter(move |v| early.contains(v))
    }
}
