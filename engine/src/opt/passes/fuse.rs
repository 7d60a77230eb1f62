//! Fusion by body: formulas that define an operator become the operator.

use std::collections::HashSet;

use crate::ir::{Graph, Links, Model, Node, NodeId, Patch, Value};
use crate::ops::{OPS, Op};
use crate::opt::{Pass, PassError, Pattern, Report, Scope, Why};

/// Replaces every spelled-out operator body by the operator, if the model's opset has it or the engine is to run it.
pub(super) struct Fuse;

impl Pass for Fuse {
    fn name(&self) -> &'static str {
        "fuse"
    }

    fn run(&self, model: &mut Model, scope: Scope, report: &mut Report) -> Result<(), PassError> {
        let bodies: Vec<(&dyn Op, Pattern)> = OPS
            .iter()
            .filter(|op| allowed(model, **op, scope))
            .filter_map(|op| Some((*op, Pattern::of(*op)?)))
            .collect();
        let mut links = model.graph.links();
        let mut gone = HashSet::new();
        for id in model.graph.order.clone() {
            if gone.contains(&id) {
                continue;
            }
            for (op, pattern) in &bodies {
                match fused(&model.graph, &links, id, *op, pattern) {
                    Some(Ok(patch)) => {
                        report.fired(op.name().name, model.graph[id].label());
                        gone.extend(patch.remove.iter().copied());
                        patch.apply(&mut model.graph)?;
                        links = model.graph.links();
                        break;
                    }
                    Some(Err(why)) => report.refused(op.name().name, model.graph[id].label(), why),
                    None => {}
                }
            }
        }
        Ok(())
    }
}

fn allowed(model: &Model, op: &dyn Op, scope: Scope) -> bool {
    let name = op.name();
    let first = op.since().first().copied().unwrap_or(1).into();
    let has = model.opset(name.domain).is_some_and(|v| v >= first);
    match scope {
        Scope::Engine => name.domain.is_empty(),
        Scope::Portable => name.domain.is_empty() && has,
    }
}

fn fused(
    graph: &Graph,
    links: &Links,
    id: NodeId,
    op: &dyn Op,
    pattern: &Pattern,
) -> Option<Result<Patch, Why>> {
    let &[Some(out)] = &graph[id].outputs[..] else {
        return None;
    };
    let m = pattern.find(graph, links, out)?;
    if m.nodes.len() == 1 && graph[id].is(op.name().name) {
        return None;
    }
    if !m.is_private(graph, links) {
        return Some(Err(Why::No("an intermediate value is read elsewhere")));
    }
    let mut patch = Patch::new(graph);
    let name = op.name();
    let new = patch.value(Value {
        name: name.name.into(),
        ty: None,
        konst: None,
    });
    patch.nodes.push(Node {
        attrs: m.attrs.clone(),
        name: graph[id].name.clone(),
        ..Node::new(
            name.name,
            m.inputs.iter().copied().map(Some).collect(),
            vec![Some(new)],
        )
    });
    patch.replace.push((out, new));
    patch.remove = m.nodes;
    Some(Ok(patch))
}
