//! Gradients of nodes that run subgraphs.
//!
//! A subgraph is made a model of its own, in which what it captures is an input, and that model is differentiated. What was
//! there before is the forward subgraph; what was added is the backward one. Values that the second reads and the first makes
//! become further outputs of the node.

mod branch;
mod close;
mod split;
mod turns;

use std::collections::HashMap;

use secateur_engine::expr::{Builder, Call, Ex};
use secateur_engine::ir::{Graph, Model, Name, Node, NodeId, ValueId};
use secateur_engine::ops::{Fact, OpError};
use secateur_engine::opt::Facts;
use secateur_engine::opt::infer::opset_of;

use crate::reach::Reach;
use crate::{DiffError, Gradients, Rounding};
pub(crate) use turns::outputs;

/// The backward subgraphs of nodes, whose forward subgraphs make what those read.
pub(crate) type Backwards = HashMap<NodeId, Backward>;

/// What a node becomes on the way back.
pub(crate) enum Backward {
    Branch(branch::Backward),
    Turns(turns::Backward),
}

/// Where a node stands, and what is known there.
#[derive(Clone, Copy)]
struct Site<'a> {
    model: &'a Model,
    reach: &'a Reach,
    rounding: Rounding,
    id: NodeId,
}

impl<'a> Site<'a> {
    fn node(&self) -> &'a Node {
        &self.model.graph[self.id]
    }

    fn facts(&self) -> &'a Facts {
        &self.reach.facts
    }

    fn body(&self, name: &str) -> Result<&'a Graph, DiffError> {
        body(self.node(), name).ok_or_else(|| self.wrong("a subgraph is missing"))
    }

    fn wrong(&self, what: &str) -> DiffError {
        let (node, opset) = (self.node(), opset_of(&self.model.opsets, self.node()));
        let error = self
            .facts()
            .error(&self.model.graph, node, opset, OpError::new(what));
        error.into()
    }

    /// A name that no value has, here or in another node's subgraph.
    fn name(&self, what: &str) -> Name {
        let stem = format!("{}_{}_{what}", self.node().label(), self.id.0);
        self.model.graph.fresh(&stem)
    }
}

/// The subgraph `name` of `node`.
fn body<'a>(node: &'a Node, name: &str) -> Option<&'a Graph> {
    node.attr(name)?.graphs().first()
}

/// Takes the nodes that a gradient flows through and that run subgraphs apart. They make what their gradients read.
pub(crate) fn prepare(model: &mut Model, g: &Gradients) -> Result<Backwards, DiffError> {
    let named = |v: ValueId| g.by.contains(&v) || g.of.iter().any(|&(y, _)| y == v);
    for id in model.graph.order.clone() {
        let node = &model.graph[id];
        if node.is("Loop") || node.is("Scan") {
            turns::hoist(model, id, &named);
        }
    }
    let reach = Reach::new(model, g)?;
    let on_the_way = |n: &Node| reach.outputs(n).next().is_some();
    let nodes = model.graph.iter().filter(|(_, n)| on_the_way(n));
    let ids: Vec<_> = nodes.map(|(id, _)| id).collect();
    let mut all = Backwards::new();
    for id in ids {
        let site = Site {
            model,
            reach: &reach,
            rounding: g.rounding,
            id,
        };
        let node = site.node();
        let made = if node.is("If") {
            let (forward, back) = branch::apart(&site)?;
            Some((forward, Backward::Branch(back)))
        } else if node.is("Loop") || node.is("Scan") {
            let (forward, back) = turns::apart(&site)?;
            Some((forward, Backward::Turns(back)))
        } else {
            None
        };
        if let Some((forward, back)) = made {
            forward.apply(model, id);
            all.insert(id, back);
        }
    }
    Ok(all)
}

/// A node that makes more than it did.
struct Forward {
    attrs: Vec<(&'static str, secateur_engine::ir::AttrValue)>,
    /// How many outputs it has before those that are added.
    outputs: usize,
    /// Names of the outputs that are added, whose ids follow those of the model's values.
    kept: Vec<Name>,
}

impl Forward {
    fn apply(self, model: &mut Model, id: NodeId) {
        let graph = &mut model.graph;
        let mut kept = vec![];
        for name in self.kept {
            kept.push(Some(graph.value(name)));
        }
        let mut outputs = graph[id].outputs.clone();
        outputs.resize(self.outputs, None);
        for v in outputs.iter_mut().filter(|v| v.is_none()) {
            let name = graph.fresh("unread");
            *v = Some(graph.value(name));
        }
        outputs.extend(kept);
        let node = &mut graph[id];
        node.outputs = outputs;
        self.attrs
            .into_iter()
            .for_each(|(name, value)| node.set(name, value));
    }
}

impl Backward {
    /// Writes the backward node; pairs of a value and its gradient.
    pub(crate) fn write(
        &self,
        b: &Builder,
        node: &Node,
        grads: &dyn Fn(ValueId) -> Option<ValueId>,
    ) -> Vec<(ValueId, ValueId)> {
        let dy = |i: usize| {
            let y = node.outputs.get(i).copied().flatten();
            y.map(|y| grads(y).unwrap_or_else(|| zeros(b.at(y)).id))
        };
        match self {
            Backward::Branch(back) => back.write(b, node, &dy),
            Backward::Turns(back) => back.write(b, node, &dy),
        }
    }
}

/// Zeros like `x`.
fn zeros(x: Ex<'_>) -> Ex<'_> {
    x.constant(0.0).op("Expand", &[x.op("Shape", &[])])
}

/// Writes a node whose outputs are the gradients of `of`.
fn write(b: &Builder, call: Call, of: Vec<ValueId>) -> Vec<(ValueId, ValueId)> {
    use secateur_engine::expr::Sink;
    let made = b.call(call);
    let pairs: Vec<_> = of.into_iter().zip(made).collect();
    for &(x, dx) in &pairs {
        b.know(dx, Fact::from(b.fact(x).ty));
    }
    pairs
}
