//! Fusion by body: formulas that define an operator become the operator.

use crate::ir::{Graph, Links, Model, Node, NodeId, Patch, Value};
use crate::ops::{OPS, Op};
use crate::opt::{Index, Pass, PassError, Pattern, Report, Scope, Why};

/// Replaces every spelled-out operator body by the operator, if the model's opset has it or the engine is to run it.
pub(super) struct Fuse;

impl Pass for Fuse {
    fn name(&self) -> &'static str {
        "fuse"
    }

    fn run(&self, model: &mut Model, scope: Scope, report: &mut Report) -> Result<(), PassError> {
        let allowed = OPS.iter().filter(|op| allowed(model, **op, scope));
        let (ops, patterns): (Vec<&dyn Op>, Vec<Pattern>) =
            allowed.filter_map(|op| Some((*op, Pattern::of(*op)?))).unzip();
        let index = Index::of(patterns.iter());
        let mut links = model.graph.links();
        for id in model.graph.order.clone().into_iter().rev() {
            for &i in index.at(&model.graph[id]) {
                let alive = |v| links.producer(v).is_some_and(|(p, _)| p == id);
                if !model.graph[id]
                    .outputs
                    .first()
                    .copied()
                    .flatten()
                    .is_some_and(alive)
                {
                    break;
                }
                let name = ops[i].name().name;
                match fused(&model.graph, &links, id, ops[i], &patterns[i]) {
                    Some(Ok(patch)) => {
                        report.fired(name, model.graph[id].label());
                        patch.apply_with(&mut model.graph, &mut links)?;
                        break;
                    }
                    Some(Err(why)) => report.refused(name, model.graph[id].label(), why),
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
    let name = op.name().name;
    if m.nodes.len() == 1 && graph[id].is(name) {
        return None;
    }
    if !m.is_private(graph, links) {
        return Some(Err(Why::No("an intermediate value is read elsewhere")));
    }
    let mut patch = Patch::new(graph);
    let new = patch.value(Value {
        name: name.into(),
        ty: None,
        konst: None,
    });
    patch.nodes.push(Node {
        attrs: m.attrs,
        name: graph[id].name.clone(),
        ..Node::new(
            name,
            m.inputs.iter().copied().map(Some).collect(),
            vec![Some(new)],
        )
    });
    patch.replace.push((out, new));
    patch.remove = m.nodes;
    Some(Ok(patch))
}
