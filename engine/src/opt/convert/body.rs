//! Operators that an older version lacks, written by those that it has.

use std::collections::HashMap;

use super::site::{Done, Site, input, wants};
use crate::expr::Builder;
use crate::ir::{Constant, Graph, Node, ValueId};
use crate::ops;

/// Puts constants in the place of a node whose outputs are known, or else the nodes of its operator's body.
pub(super) fn written_out(s: &mut Site, node: Node) -> Done {
    let op = ops::find(node.domain(), &node.op).ok_or("the operator is unknown")?;
    let known: Option<Vec<_>> = node
        .outputs
        .iter()
        .flatten()
        .map(|v| s.facts.konst(*v).cloned())
        .collect();
    if let Some(known) = known.filter(|_| !op.laws().impure) {
        for (v, t) in node.outputs.iter().flatten().zip(known) {
            let mut constant = Node::new("Constant", vec![], vec![Some(*v)]);
            constant.set("value", (*t).clone());
            s.put(constant)?;
        }
        return Ok(());
    }
    let none = || {
        format!(
            "{} came with opset {}, and has no definition by older operators",
            node.op, s.at
        )
    };
    let (nodes, small, outputs) = body(s, &node).ok_or_else(none)??;
    let mut place: HashMap<ValueId, ValueId> = HashMap::new();
    for (y, v) in outputs.iter().zip(&node.outputs) {
        if let Some(v) = v
            && small.made.contains(y)
        {
            place.entry(*y).or_insert(*v);
        }
    }
    for (v, t) in small.constants {
        place.insert(v, s.constant(t));
    }
    for inner in nodes {
        let at = |s: &mut Site, place: &mut HashMap<ValueId, ValueId>, v: ValueId| match input(
            &node,
            v.0 as usize,
        )
        .filter(|_| v.0 < small.given)
        {
            Some(outer) => outer,
            None => *place.entry(v).or_insert_with(|| s.value()),
        };
        let inputs = inner.inputs.iter().map(|v| v.map(|v| at(s, &mut place, v)));
        let inputs = inputs.collect();
        let outputs = inner.outputs.iter().map(|v| v.map(|v| at(s, &mut place, v)));
        let outputs = outputs.collect();
        let node = Node {
            inputs,
            outputs,
            ..inner
        };
        s.note_at(node, s.at);
    }
    for (i, (y, v)) in outputs.iter().zip(&node.outputs).enumerate() {
        let from = match place.get(y) {
            Some(from) => Some(*from),
            None => input(&node, y.0 as usize),
        };
        if let (true, Some(v), Some(from)) = (wants(&node, i), v, from)
            && from != *v
        {
            s.apply_to(*v, "Identity", &[from], vec![]);
        }
    }
    Ok(())
}

/// What the nodes of a body stand on.
struct Small {
    given: u32,
    made: Vec<ValueId>,
    constants: Vec<(ValueId, crate::ir::Tensor)>,
}

type Body = (Vec<Node>, Small, Vec<ValueId>);

/// The nodes of the body of `node`, on values of their own: first its inputs, then what the body makes.
fn body(s: &Site, node: &Node) -> Option<Result<Body, String>> {
    let op = ops::find(node.domain(), &node.op)?;
    let mut graph = Graph::default();
    for v in &node.inputs {
        let at = graph.value(format!("x{}", graph.values.len()));
        if let Some(v) = v {
            graph[at].ty = Some(s.facts.of(*v).ty.clone());
            graph[at].konst = s.facts.konst(*v).map(|t| Constant::new((**t).clone()));
        }
    }
    let builder = Builder::inside(&graph, s.at, &node.attrs);
    let holes: Vec<_> = (0u32..)
        .map(ValueId)
        .take(node.inputs.len())
        .map(|v| builder.at(v))
        .collect();
    let n = s.facts.view(node, s.at);
    let outputs: Vec<_> = op.body(&n, &holes)?.iter().map(|e| e.id).collect();
    if let Err(e) = op.infer(&n) {
        return Some(Err(e.to_string()));
    }
    if !n.unread().is_empty() {
        return Some(Err(format!("attributes {:?} are not understood", n.unread())));
    }
    let patch = builder.finish();
    if patch.nodes.iter().any(|n| !n.domain().is_empty()) {
        return Some(Err("its definition needs operators of another domain".into()));
    }
    let given = graph.values.len() as u32;
    let constants = (given..)
        .map(ValueId)
        .zip(&patch.values)
        .filter_map(|(v, value)| Some((v, (*value.konst.as_ref()?.tensor).clone())))
        .collect();
    let made = patch
        .nodes
        .iter()
        .flat_map(|n| n.outputs.iter().flatten().copied())
        .collect();
    let small = Small {
        given,
        made,
        constants,
    };
    Some(Ok((live(patch.nodes, &outputs), small, outputs)))
}

/// The nodes that `outputs` need; bodies need not use all that they write.
fn live(nodes: Vec<Node>, outputs: &[ValueId]) -> Vec<Node> {
    let mut read: Vec<ValueId> = outputs.to_vec();
    let mut kept = vec![];
    for node in nodes.into_iter().rev() {
        if node.outputs.iter().flatten().any(|v| read.contains(v)) {
            read.extend(node.inputs.iter().flatten());
            kept.push(node);
        }
    }
    kept.reverse();
    kept
}
