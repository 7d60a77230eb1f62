//! Constant folding.

use std::collections::HashMap;

use crate::ir::{Constant, Model, NodeId, Tensor};
use crate::opt::infer::{Facts, infer};
use crate::opt::{Pass, PassError, Report, Scope};

/// Bytes by which folding a node may make a file larger.
const GROWTH: usize = 1 << 16;

/// Bytes by which folding all of a model's nodes may make it larger where it is to be run here.
const TOTAL: usize = 8 << 20;

/// Replaces nodes whose results are known by initialisers, `Constant` included.
///
/// Not folded for a portable result: what would make the file larger by more than 64 KiB, such as a `ConstantOfShape` or
/// a `DequantizeLinear` of weights. Outputs of the graph keep their node.
pub(super) struct Fold;

impl Pass for Fold {
    fn name(&self) -> &'static str {
        "fold"
    }

    fn run(&self, model: &mut Model, scope: Scope, report: &mut Report) -> Result<(), PassError> {
        let facts = infer(model, &HashMap::new())?;
        let links = model.graph.links();
        let mut room = TOTAL;
        let foldable: Vec<NodeId> = model
            .graph
            .iter()
            .filter(|(_, node)| {
                let mut outputs = node.outputs.iter().flatten();
                outputs.all(|&v| facts.konst(v).is_some() && !links.kept(v))
                    && pays(model, node, &facts, scope)
                    && fits(node, &facts, &links, &mut room)
            })
            .map(|(id, _)| id)
            .collect();
        for id in foldable {
            let graph = &mut model.graph;
            report.fired(self.name(), graph[id].label());
            for v in graph[id].outputs.clone().into_iter().flatten() {
                let Some(t) = facts.konst(v) else { continue };
                graph[v].konst = Some(Constant {
                    tensor: t.clone(),
                    ..Constant::new(Tensor::clone(t))
                });
                graph.initializers.push(v);
            }
            graph.order.retain(|&n| n != id);
        }
        let made = &model.graph.initializers;
        model.graph.infos.retain(|p| !made.contains(&p.value));
        Ok(())
    }
}

/// Whether there is room for the results of `node`, beside inputs that others read too.
fn fits(node: &crate::ir::Node, facts: &Facts, links: &crate::ir::Links, room: &mut usize) -> bool {
    let size = |v: &crate::ir::ValueId| facts.konst(*v).map_or(0, |t| t.size());
    let results = node
        .outputs
        .iter()
        .flatten()
        .map(size)
        .fold(0, usize::saturating_add);
    let own = node
        .inputs
        .iter()
        .flatten()
        .filter(|v| links.readers(**v).len() == 1 && !links.kept(**v));
    let growth = results.saturating_sub(own.map(size).sum());
    let fits = node.is("Constant") || growth <= *room;
    if fits && !node.is("Constant") {
        *room -= growth;
    }
    fits
}

fn pays(model: &Model, node: &crate::ir::Node, facts: &Facts, scope: Scope) -> bool {
    if scope == Scope::Engine || node.is("Constant") {
        return true;
    }
    let size = |t: &Tensor| t.bytes().len();
    let before = node
        .inputs
        .iter()
        .flatten()
        .filter_map(|&v| model.graph.konst(v))
        .map(size)
        .sum::<usize>();
    let after = node
        .outputs
        .iter()
        .flatten()
        .filter_map(|&v| facts.konst(v))
        .map(|t| size(t))
        .sum::<usize>();
    after <= before + GROWTH
}
