//! Reverse-mode differentiation: gradients as further nodes of the graph.

use std::collections::BTreeSet;

use secateur_engine::Tensor;
use secateur_engine::expr::{Builder, Ex};
use secateur_engine::ir::{Model, Node, NodeId, Opset, ValueId, verify};
use secateur_engine::ops::{self, NodeRef, OpError};
use secateur_engine::opt::infer::opset_of;
use secateur_engine::opt::{convert, inline};

use crate::control::{self, Backwards};
use crate::reach::{Reach, differentiable};
use crate::{DiffError, Rounding, broadcast, expand, recompute, round};

/// What is differentiated, by what, and how.
#[derive(Clone, Copy, Debug)]
pub struct Gradients<'a> {
    /// The values whose sum is differentiated, each weighted, element by element, with the value of its own type that is given
    /// beside it: the gradient that comes from outside. Without one all weights are 1.
    pub of: &'a [(ValueId, Option<ValueId>)],
    /// The values by which it is differentiated: inputs, initialisers or what nodes make.
    pub by: &'a [ValueId],
    /// Values that are taken for constants: no gradient flows on into what they are made from.
    pub stop: &'a [ValueId],
    /// What the gradient of rounding is.
    pub rounding: Rounding,
    /// The values that are kept for the gradients, all others being computed again when they are read, which takes time and
    /// saves memory; [`checkpoints`](crate::checkpoints) picks some. `None`: all are kept.
    pub keep: Option<&'a [ValueId]>,
}

/// Appends to the main graph of `model` the nodes that compute the gradients of `g`; for each value of `g.by` the value that
/// is its gradient, or `None` where nothing depends on it. The caller makes outputs of what it wants to see.
///
/// The model is brought into the newest version of ONNX's operators ([`ops::OPSET`]), its functions are written out, and
/// operators that have no rule of their own are replaced by their bodies. Values keep their ids. Where a function has a kink,
/// its gradient is PyTorch's: 0 for `Relu` and `Abs` at 0, shares of one for equal elements of a maximum.
///
/// # Errors
///
/// If the model cannot be brought into the newest version, or a node on the way has no gradient, or it is not known which
/// axes of an input it stretches. The model is then as it was.
pub fn differentiate(model: &mut Model, g: &Gradients) -> Result<Vec<Option<ValueId>>, DiffError> {
    let mut new = model.clone();
    newest(&mut new)?;
    expand::expand(&mut new, g)?;
    let backwards = control::prepare(&mut new, g)?;
    let reach = Reach::new(&new, g)?;
    let graph = new.graph.clone();
    let mut tape = Tape {
        model: &new,
        reach: &reach,
        rounding: g.rounding,
        backwards: &backwards,
        builder: Builder::new(&graph, ops::OPSET).knowing(&reach.facts),
        grads: vec![None; graph.values.len()],
    };
    g.of.iter().try_for_each(|&(y, dy)| tape.seed(y, dy))?;
    for (id, node) in graph.iter().rev() {
        tape.node(id, node)?;
    }
    let found: Vec<_> = g.by.iter().map(|v| tape.grads[v.0 as usize]).collect();
    let grads = std::mem::take(&mut tape.grads);
    let mut patch = tape.builder.finish();
    // Rules know not which of their inputs count.
    expand::used(&mut patch, &found.iter().flatten().copied().collect::<Vec<_>>());
    patch.apply(&mut new.graph)?;
    if !backwards.is_empty() {
        // What subgraphs read counts too.
        new.graph.sort();
    }
    if let Some(keep) = g.keep {
        let ends = g.of.iter().map(|(y, _)| *y).collect();
        recompute::recompute(&mut new.graph, graph.nodes.len(), keep, (&grads, &ends));
    }
    verify(&new.graph)?;
    let domains: BTreeSet<String> = new.graph.iter().map(|(_, n)| n.domain().into()).collect();
    domains.iter().for_each(|d| import(&mut new, d, 1));
    *model = new;
    Ok(found)
}

impl<'a> Gradients<'a> {
    /// The gradient of the elements of all of `of` by `by`, with [`Rounding::Zero`].
    pub fn new(of: &'a [(ValueId, Option<ValueId>)], by: &'a [ValueId]) -> Gradients<'a> {
        Gradients {
            of,
            by,
            stop: &[],
            rounding: Rounding::Zero,
            keep: None,
        }
    }
}

/// Brings the main graph into the newest operators and in order.
pub(crate) fn newest(model: &mut Model) -> Result<(), DiffError> {
    inline(model)?;
    convert(model, "", ops::OPSET)?;
    import(model, "", ops::OPSET);
    model.graph.sort();
    verify(&model.graph)?;
    Ok(())
}

/// Imports version `version` of `domain`, unless another is imported.
fn import(model: &mut Model, domain: &str, version: i64) {
    if model.opset(domain).is_none() {
        model.opsets.push(Opset {
            domain: Some(domain.into()),
            version: Some(version),
            extra: Default::default(),
        });
    }
}

/// The gradients so far, on the way from the end of the graph to its beginning.
struct Tape<'a> {
    model: &'a Model,
    reach: &'a Reach,
    rounding: Rounding,
    backwards: &'a Backwards,
    builder: Builder<'a>,
    grads: Vec<Option<ValueId>>,
}

impl Tape<'_> {
    /// Begins at `y` with the gradient `dy`, or ones.
    fn seed(&mut self, y: ValueId, dy: Option<ValueId>) -> Result<(), DiffError> {
        let (fact, name) = (self.builder.fact(y), &self.model.graph[y].name);
        if !differentiable(&fact.ty) {
            return Err(DiffError::value(name, "is no float and has no gradient"));
        }
        let dy = match dy {
            Some(dy) if self.builder.fact(dy).ty.dtype() != fact.ty.dtype() => {
                return Err(DiffError::value(name, "has a gradient of another type"));
            }
            Some(dy) => dy,
            None => ones(self.builder.at(y), fact.ty.dims()).id,
        };
        if self.reach.wanted(y) {
            self.add(y, dy);
        }
        Ok(())
    }

    fn add(&mut self, v: ValueId, more: ValueId) {
        let sum = match self.grads[v.0 as usize] {
            Some(so_far) => (self.builder.at(so_far) + self.builder.at(more)).id,
            None => more,
        };
        self.grads[v.0 as usize] = Some(sum);
    }

    fn node(&mut self, id: NodeId, node: &Node) -> Result<(), DiffError> {
        let flowing = |v: ValueId| self.grads[v.0 as usize].filter(|_| self.reach.flows(v));
        let dy: Vec<_> = node.outputs.iter().map(|v| v.and_then(flowing)).collect();
        if dy.iter().all(Option::is_none) {
            return Ok(());
        }
        if let Some(back) = self.backwards.get(&id) {
            let grads = |v: ValueId| self.grads[v.0 as usize];
            let found = back.write(&self.builder, node, &grads);
            let wanted = found.into_iter().filter(|(x, _)| self.reach.wanted(*x));
            wanted.for_each(|(x, dx)| self.add(x, dx));
            return Ok(());
        }
        let opset = opset_of(&self.model.opsets, node);
        let n = self.reach.facts.view(node, opset);
        let dx = match self.rule(&n, &dy) {
            Some(dx) => dx,
            None => return Err(self.wrong(&n, without_rule(&n).into())),
        };
        for (i, dx) in dx.into_iter().enumerate() {
            let x = node.inputs.get(i).copied().flatten();
            if let (Some(x), Some(dx)) = (x.filter(|&x| self.reach.wanted(x)), dx) {
                let dx = broadcast::undone(&self.builder, &n, i, dx).map_err(|what| self.wrong(&n, what))?;
                self.add(x, dx);
            }
        }
        Ok(())
    }

    /// The gradients of the inputs of `n`.
    fn rule(&self, n: &NodeRef, dy: &[Option<ValueId>]) -> Option<Vec<Option<ValueId>>> {
        let b = &self.builder;
        let at = |v: &Option<ValueId>| v.map(|v| b.at(v));
        let node = n.node();
        let x: Vec<_> = node.inputs.iter().map(at).collect();
        let y: Vec<_> = node.outputs.iter().map(at).collect();
        let dy: Vec<_> = dy.iter().map(at).collect();
        let dx = match self.rounding {
            Rounding::Zero => None,
            Rounding::StraightThrough => round::through(n, &x, &dy),
        };
        let dx = dx.or_else(|| ops::find(node.domain(), &node.op)?.vjp(n, &x, &y, &dy))?;
        Some(dx.into_iter().map(|e| e.map(|e| e.id)).collect())
    }

    fn wrong(&self, n: &NodeRef, what: String) -> DiffError {
        let (graph, facts) = (&self.model.graph, &self.reach.facts);
        facts.error(graph, n.node(), n.opset(), OpError::new(what)).into()
    }
}

/// Why there is no rule for `n`.
fn without_rule(n: &NodeRef) -> &'static str {
    match (0..n.arity()).all(|i| !n.has(i) || n.dims(i).is_some()) {
        true => "the operator has no gradient",
        false => {
            "the operator has no gradient, or none as long as sizes of its inputs are not known; set them"
        }
    }
}

/// Ones in the shape of `y`, whose dimensions are `dims` where they are known.
fn ones(y: Ex<'_>, dims: Option<Vec<usize>>) -> Ex<'_> {
    let one = y.constant(1.0);
    match dims {
        Some(dims) if dims.is_empty() => one,
        Some(dims) => {
            let to: Vec<_> = dims.iter().map(|&d| d as i64).collect();
            one.op("Expand", &[y.tensor(Tensor::of(&[to.len()], to))])
        }
        None => one.op("Expand", &[y.op("Shape", &[])]),
    }
}
