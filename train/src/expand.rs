//! Operators without a rule of their own, replaced by their bodies.

use std::collections::{HashMap, HashSet};

use secateur_engine::expr::Builder;
use secateur_engine::ir::{Model, Node, NodeId, Patch, Value, ValueId};
use secateur_engine::ops::{self, NodeRef};
use secateur_engine::opt::infer::{Facts, infer, opset_of};

use crate::reach::{Reach, reads};
use crate::{DiffError, Gradients, Rounding, round};

/// Bodies are made of simpler operators; this deep they never go.
const DEPTH: usize = 16;

/// Replaces every node that a gradient flows through and that has a body but no rule.
pub(crate) fn expand(model: &mut Model, g: &Gradients) -> Result<(), DiffError> {
    for _ in 0..DEPTH {
        let reach = Reach::new(model, g)?;
        let without: Vec<_> = without_rule(model, &reach, g.rounding);
        let mut changed = false;
        for id in without {
            if let Some(patch) = expanded(model, &reach.facts, id) {
                patch.apply(&mut model.graph)?;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    Ok(())
}

/// Writes operators of this engine's own domain, which gradients are made with, in ONNX's: what other runtimes can read.
///
/// # Errors
///
/// If one of them cannot be written so as long as a size is not known, or a node does not fit its operator.
pub fn portable(model: &mut Model) -> Result<(), DiffError> {
    for _ in 0..DEPTH {
        let own = model.graph.iter().filter(|(_, n)| n.domain() == "secateur");
        let own: Vec<_> = own.map(|(id, _)| id).collect();
        if own.is_empty() {
            break;
        }
        let facts = infer(model, &HashMap::new())?;
        for id in own {
            let Some(patch) = expanded(model, &facts, id) else {
                let what = "can be written in ONNX's operators only where sizes are known";
                return Err(DiffError::value(
                    &format!("secateur.{}", model.graph[id].op),
                    what,
                ));
            };
            patch.apply(&mut model.graph)?;
        }
    }
    model.opsets.retain(|o| o.domain.as_deref() != Some("secateur"));
    // Nodes of one body are called alike, which other runtimes refuse.
    let mut seen = HashSet::new();
    for id in model.graph.order.clone() {
        let node = &mut model.graph[id];
        node.name = node.name.take().filter(|n| seen.insert(n.clone()));
    }
    Ok(())
}

fn without_rule(model: &Model, reach: &Reach, rounding: Rounding) -> Vec<NodeId> {
    let builder = Builder::new(&model.graph, ops::OPSET).knowing(&reach.facts);
    let on_the_way = model
        .graph
        .iter()
        .filter(|(_, n)| reach.outputs(n).next().is_some());
    let without = on_the_way.filter(|(_, node)| {
        let n = reach.facts.view(node, opset_of(&model.opsets, node));
        !has_rule(&builder, &n, reach, rounding)
    });
    without.map(|(id, _)| id).collect()
}

/// Whether the operator of `n` has a gradient of its own: found by asking for it, with the outputs in the place of theirs.
fn has_rule(b: &Builder, n: &NodeRef, reach: &Reach, rounding: Rounding) -> bool {
    let node = n.node();
    let at = |v: &Option<ValueId>| v.map(|v| b.at(v));
    let x: Vec<_> = node.inputs.iter().map(at).collect();
    let y: Vec<_> = node.outputs.iter().map(at).collect();
    let dy = node.outputs.iter().map(|v| at(&v.filter(|&v| reach.flows(v))));
    let dy: Vec<_> = dy.collect();
    let through = rounding == Rounding::StraightThrough && round::through(n, &x, &dy).is_some();
    through || ops::find(node.domain(), &node.op).is_some_and(|op| op.vjp(n, &x, &y, &dy).is_some())
}

fn expanded(model: &Model, facts: &Facts, id: NodeId) -> Option<Patch> {
    let node = &model.graph[id];
    let opset = opset_of(&model.opsets, node);
    let written = ops::body_opset(node.domain(), opset);
    let builder = Builder::inside(&model.graph, written, &node.attrs).knowing(facts);
    // Bodies do not touch inputs that are left out.
    let hole = |v: &Option<ValueId>| builder.at(v.unwrap_or(ValueId(u32::MAX)));
    let holes: Vec<_> = node.inputs.iter().map(hole).collect();
    let op = ops::find(node.domain(), &node.op)?;
    let outputs = op.spelled(&facts.view(node, opset), &holes)?;
    let outputs: Vec<_> = outputs.iter().map(|e| e.id).collect();
    let mut patch = builder.finish();
    used(&mut patch, &outputs);
    for inner in &mut patch.nodes {
        inner.name = Some(node.label().into());
    }
    for (old, new) in node.outputs.iter().zip(outputs) {
        let Some(old) = *old else { continue };
        let new = own(&mut patch, new);
        patch.replace.push((old, new));
    }
    patch.remove = vec![id];
    Some(patch)
}

/// Drops the nodes and constants that nothing reads on the way to `outputs`.
pub(crate) fn used(patch: &mut Patch, outputs: &[ValueId]) {
    let mut read: HashSet<ValueId> = outputs.iter().copied().collect();
    let made = patch.nodes.iter().flat_map(|n| n.outputs.iter().flatten());
    let names = made
        .filter_map(|&v| Some((patch.own(v)?.name.clone(), v)))
        .collect();
    patch.nodes.reverse();
    patch.nodes.retain(|n| {
        let used = n.outputs.iter().flatten().any(|v| read.contains(v));
        if used {
            read.extend(reads(&names, n));
        }
        used
    });
    patch.nodes.reverse();
    patch.forget(|v| !read.contains(&v));
}

/// `v`, or its copy where no node of the patch makes it or it takes another value's place already.
fn own(patch: &mut Patch, v: ValueId) -> ValueId {
    let taken = patch.replace.iter().any(|&(_, new)| new == v);
    if patch.producer(v).is_some() && !taken {
        return v;
    }
    let copy = patch.value(Value {
        name: "Identity".into(),
        ty: None,
        konst: None,
    });
    patch
        .nodes
        .push(Node::new("Identity", vec![Some(v)], vec![Some(copy)]));
    copy
}
