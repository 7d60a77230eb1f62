//! Which values a gradient flows through.

use std::collections::HashMap;

use secateur_engine::ir::{Graph, Model, Name, Node, Type, ValueId};
use secateur_engine::opt::infer::{Facts, infer_node, known_inputs};

use crate::{DiffError, Gradients, Rounding, control};

/// What is known of the values of a model, and which of them depend on those it is differentiated by.
pub(crate) struct Reach {
    pub(crate) facts: Facts,
    /// By value: whether a gradient of it is wanted.
    wanted: Vec<bool>,
    /// By value: whether its gradient flows on into the node that makes it.
    flows: Vec<bool>,
}

impl Reach {
    pub(crate) fn new(model: &Model, g: &Gradients) -> Result<Reach, DiffError> {
        let facts = facts(model, g.by)?;
        let graph = &model.graph;
        let mut reach = Reach {
            facts,
            wanted: vec![false; graph.values.len()],
            flows: vec![false; graph.values.len()],
        };
        g.by.iter().for_each(|v| reach.wanted[v.0 as usize] = true);
        let names = graph.names();
        for (_, node) in graph.iter() {
            if reads(&names, node).iter().any(|&v| reach.wanted(v)) {
                reach.spread(node, g);
            }
        }
        Ok(reach)
    }

    fn spread(&mut self, node: &Node, g: &Gradients) {
        for &v in node.outputs.iter().flatten() {
            let quantised = g.rounding == Rounding::StraightThrough && node.is("QuantizeLinear");
            let has = quantised || differentiable(&self.facts.of(v).ty);
            let flows = has && !g.stop.contains(&v);
            self.flows[v.0 as usize] |= flows;
            self.wanted[v.0 as usize] |= flows;
        }
    }

    /// Whether the gradient of `v` is wanted.
    pub(crate) fn wanted(&self, v: ValueId) -> bool {
        self.wanted.get(v.0 as usize).is_some_and(|&w| w)
    }

    /// Whether the gradient of `v` flows on into the node that makes it.
    pub(crate) fn flows(&self, v: ValueId) -> bool {
        self.flows.get(v.0 as usize).is_some_and(|&w| w)
    }

    /// The outputs of `node` through which a gradient flows.
    pub(crate) fn outputs<'n>(&'n self, node: &'n Node) -> impl Iterator<Item = ValueId> + 'n {
        node.outputs.iter().flatten().copied().filter(|&v| self.flows(v))
    }
}

/// What `node` reads: its inputs, and what its subgraphs find by their `names`.
pub(crate) fn reads(names: &HashMap<Name, ValueId>, node: &Node) -> Vec<ValueId> {
    let inner = node.attrs.iter().flat_map(|a| a.value.graphs());
    let captured = inner
        .flat_map(Graph::captures)
        .filter_map(|name| names.get(&name).copied());
    node.inputs.iter().flatten().copied().chain(captured).collect()
}

/// Floats, and what may turn out to be floats, have gradients.
pub(crate) fn differentiable(ty: &Type) -> bool {
    match ty.dtype() {
        Some(dtype) => dtype.is_float(),
        None => *ty == Type::Unknown || matches!(ty, Type::Tensor { .. }),
    }
}

/// What is known of all values where those of `by` may change.
fn facts(model: &Model, by: &[ValueId]) -> Result<Facts, DiffError> {
    let graph: &Graph = &model.graph;
    let mut facts = Facts::initial(graph);
    known_inputs(graph, &mut facts);
    let hide = |facts: &mut Facts, v: ValueId| facts.set(v, facts.of(v).ty.clone().into(), None);
    by.iter().for_each(|&v| hide(&mut facts, v));
    for (_, node) in graph.iter() {
        infer_node(model, node, &mut facts)?;
        let better = control::outputs(model, &facts, node)?;
        let pairs = node
            .outputs
            .iter()
            .zip(better)
            .filter_map(|(v, fact)| Some(((*v)?, fact)));
        pairs.for_each(|(v, fact)| facts.set(v, fact, None));
        let made = node.outputs.iter().flatten();
        made.filter(|v| by.contains(v)).for_each(|&v| hide(&mut facts, v));
    }
    Ok(facts)
}
