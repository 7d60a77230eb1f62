//! A model with zeros in the place of what a plan cuts away: as large as before, so that its layers can be compared.

use std::collections::HashSet;
use std::sync::Arc;

use secateur_engine::ir::{Graph, Model, Node, NodeId, ValueId};

use super::RecoverError;
use crate::apply::{Stays, forced_with};
use crate::{Change, Plan, apply};

/// What a plan leaves, at full size.
pub(super) struct Shadow {
    pub(super) model: Model,
    /// What stays of the constants that are cut.
    pub(super) stays: Stays,
}

impl Shadow {
    /// That of `model` after `plan`.
    pub(super) fn of(model: &Model, plan: &Plan) -> Result<Shadow, RecoverError> {
        let mut shadow = Shadow {
            model: model.clone(),
            stays: Stays::new(),
        };
        let mut units = vec![];
        for change in &plan.0 {
            match change {
                Change::Narrow(narrow) => {
                    let (model, stays) = forced_with(narrow, &shadow.model)?;
                    shadow.model = model;
                    shadow.stays.extend(stays);
                }
                Change::Bypass(_) | Change::Skip(_) => units.push(change.clone()),
                Change::Mask(_) | Change::Replace(_) => {
                    return Err(RecoverError::wrong(format!(
                        "repair weights makes up for what is cut away; expected a pattern that cuts, found zeros of {:?} (method \
                         sparsegpt makes up for them)",
                        change.value()
                    )));
                }
            }
        }
        apply(&Plan(units), &mut shadow.model)?;
        Ok(shadow)
    }

    /// The values of the main graph that may be others than those of `model`.
    pub(super) fn touched(&self, model: &Model) -> HashSet<ValueId> {
        let g = &self.model.graph;
        let (links, names) = (model.graph.links(), model.graph.names());
        let own = g.names();
        let mut found: HashSet<ValueId> = HashSet::new();
        for &v in &g.initializers {
            let before = names.get(&g[v].name).and_then(|v| model.graph[*v].konst.as_ref());
            let same = before
                .zip(g[v].konst.as_ref())
                .is_some_and(|(a, b)| Arc::ptr_eq(&a.tensor, &b.tensor));
            found.extend((!same).then_some(v));
        }
        for (_, node) in g.iter() {
            let reads = reads(node, |name| own.get(name).copied());
            let before = node.outputs.iter().flatten().next().and_then(|v| {
                let (id, _) = links.producer(*names.get(&g[*v].name)?)?;
                Some(&model.graph[id])
            });
            let same = before.is_some_and(|b| alike((&model.graph, b), (g, node)));
            if !same || reads.iter().any(|v| found.contains(v)) {
                found.extend(node.outputs.iter().flatten());
            }
        }
        found
    }
}

/// Whether two nodes do the same with values of the same names.
fn alike((a, before): (&Graph, &Node), (b, after): (&Graph, &Node)) -> bool {
    let names = |g: &Graph, n: &Node| -> Vec<_> {
        let each = n.inputs.iter().map(|v| v.map(|v| g[v].name.clone()));
        each.collect()
    };
    before.op == after.op && names(a, before) == names(b, after) && before.attrs == after.attrs
}

/// All values that `node` reads, in its subgraphs too, where `find` finds a value by its name.
pub(super) fn reads(
    node: &Node,
    find: impl Fn(&secateur_engine::ir::Name) -> Option<ValueId>,
) -> Vec<ValueId> {
    let inner = node.attrs.iter().flat_map(|a| a.value.graphs());
    let captured: Vec<ValueId> = inner
        .flat_map(Graph::captures)
        .filter_map(|name| find(&name))
        .collect();
    node.inputs.iter().flatten().copied().chain(captured).collect()
}

/// Where each node stands in the order of `graph`.
pub(super) fn position(graph: &Graph, node: NodeId) -> usize {
    graph
        .order
        .iter()
        .position(|n| *n == node)
        .unwrap_or(graph.order.len())
}
