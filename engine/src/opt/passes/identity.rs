//! Nodes that change nothing.

use crate::ir::{AttrValue, Model, Node, Patch};
use crate::opt::{Pass, PassError, Report, Scope};

/// Takes out `Identity` and, at inference, `Dropout`.
///
/// An `Identity` from an input or initialiser to an output stays: the output's name must be kept.
pub(super) struct Identity;

impl Pass for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }

    fn run(&self, model: &mut Model, _: Scope, report: &mut Report) -> Result<(), PassError> {
        let mut links = model.graph.links();
        let opset = model.opset("").unwrap_or(1);
        for id in model.graph.order.clone() {
            let graph = &mut model.graph;
            let node = &graph[id];
            let (Some(&Some(x)), Some(&Some(y))) = (node.inputs.first(), node.outputs.first()) else {
                continue;
            };
            if !changes_nothing(node, opset) || (links.kept(y) && links.producer(x).is_none()) {
                continue;
            }
            // The output's name wins over the inner one, unless that has to be kept itself.
            if links.kept(y) && links.kept(x) {
                continue;
            }
            report.fired(self.name(), node.label());
            if links.kept(y) {
                take_over(graph, id, x, y, &links);
                links = graph.links();
            } else {
                let mut patch = Patch::new(graph);
                patch.replace.push((y, x));
                patch.remove.push(id);
                patch.apply_with(graph, &mut links)?;
            }
        }
        Ok(())
    }
}

fn changes_nothing(node: &Node, opset: i64) -> bool {
    let tests = || matches!(node.attr("is_test"), Some(AttrValue::Int(Some(t))) if *t != 0);
    let training = node.inputs.get(2).is_some_and(Option::is_some) || (opset < 7 && !tests());
    let mask = node.outputs.get(1).is_some_and(Option::is_some);
    node.is("Identity") || (node.is("Dropout") && !training && !mask)
}

/// Lets the producer of `x` make `y` itself, and everybody read that.
fn take_over(
    graph: &mut crate::ir::Graph,
    identity: crate::ir::NodeId,
    x: crate::ir::ValueId,
    y: crate::ir::ValueId,
    links: &crate::ir::Links,
) {
    let Some((producer, slot)) = links.producer(x) else {
        return;
    };
    graph.order.retain(|&n| n != identity);
    graph[producer].outputs[slot] = Some(y);
    for &n in links.readers(x) {
        let inputs = graph[n].inputs.iter_mut().flatten();
        inputs.filter(|v| **v == x).for_each(|v| *v = y);
    }
}
