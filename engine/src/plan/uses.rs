//! Where the values of a graph are read.

use crate::ir::{Graph, NodeId, ValueId};

/// The places in the order of a graph at which each value is read, by nodes and their subgraphs.
pub(crate) struct Uses {
    /// Ascending; a node that reads a value twice stands there twice.
    places: Vec<Vec<usize>>,
    output: Vec<bool>,
}

impl Uses {
    /// The uses in `graph`, where the subgraphs of a node read `captured`.
    pub(super) fn new(graph: &Graph, captured: impl Fn(NodeId) -> Vec<ValueId>) -> Uses {
        let mut places = vec![vec![]; graph.values.len()];
        for (at, (id, node)) in graph.iter().enumerate() {
            let read = node.inputs.iter().flatten().copied().chain(captured(id));
            read.for_each(|v| places[v.0 as usize].push(at));
        }
        let mut output = vec![false; graph.values.len()];
        graph
            .outputs
            .iter()
            .for_each(|p| output[p.value.0 as usize] = true);
        Uses { places, output }
    }

    /// How often `v` is read from place `from` on.
    pub(super) fn after(&self, v: ValueId, from: usize) -> usize {
        let places = self.places.get(v.0 as usize).map_or(&[][..], |p| p);
        places.len() - places.partition_point(|&p| p < from)
    }

    /// Whether `v` is an output.
    pub(super) fn is_output(&self, v: ValueId) -> bool {
        self.output.get(v.0 as usize).is_some_and(|&o| o)
    }

    /// The last place at which `v` is read; beyond all places if it is an output.
    pub(super) fn last(&self, v: ValueId) -> Option<usize> {
        match self.is_output(v) {
            true => Some(usize::MAX),
            false => self.places.get(v.0 as usize)?.last().copied(),
        }
    }
}
