//! Subgraphs as models of their own, and back.

use std::collections::{HashMap, HashSet};

use secateur_engine::Tensor;
use secateur_engine::ir::{Constant, Graph, Model, Name, Node, Port, Type, ValueId};
use secateur_engine::opt::Facts;
use secateur_engine::opt::infer::infer;

use super::Site;
use super::split::{Split, split};
use crate::reach::differentiable;
use crate::{DiffError, Gradients, differentiate};

/// A subgraph as a model: what it captures are inputs behind its own, or constants where they are known.
pub(super) struct Closed {
    pub(super) model: Model,
    /// What is captured: the values in it and around it.
    pub(super) captured: Vec<(ValueId, ValueId)>,
    fixed: Vec<ValueId>,
    /// The number of its own inputs, and of its values before it was differentiated.
    own: usize,
    values: usize,
}

fn port(value: ValueId, ty: Option<Type>) -> Port {
    Port {
        value,
        ty: ty.map(Into::into),
        extra: Default::default(),
    }
}

impl Closed {
    /// `body`, a subgraph of a node of `model`, with inputs of types `given`.
    pub(super) fn new(model: &Model, facts: &Facts, body: &Graph, given: &[Type]) -> Closed {
        let (mut graph, around) = (body.clone(), model.graph.names());
        let (mut captured, mut fixed) = (vec![], vec![]);
        for (p, ty) in graph.inputs.iter_mut().zip(given) {
            *p = port(p.value, Some(ty.clone()));
        }
        for name in body.captures() {
            let Some(&outer) = around.get(&name) else { continue };
            let inner = graph.find(&name).unwrap_or_else(|| graph.value(name));
            match facts.konst(outer) {
                Some(t) => {
                    graph[inner].konst = Some(Constant::new(Tensor::clone(t)));
                    graph.initializers.push(inner);
                    fixed.push(inner);
                }
                None => {
                    let ty = facts.of(outer).ty.clone();
                    graph.inputs.push(port(inner, Some(ty)));
                    captured.push((inner, outer));
                }
            }
        }
        graph.infos.clear();
        Closed {
            own: body.inputs.len(),
            values: graph.values.len(),
            model: Model {
                graph,
                opsets: model.opsets.clone(),
                ir_version: model.ir_version,
                ..Model::default()
            },
            captured,
            fixed,
        }
    }

    /// What is known of its values.
    pub(super) fn facts(&self) -> Result<Facts, DiffError> {
        Ok(infer(&self.model, &HashMap::new())?)
    }

    /// The captured values whose gradients are wanted.
    pub(super) fn wanted<'c>(&'c self, site: &Site<'c>) -> impl Iterator<Item = (ValueId, ValueId)> + 'c {
        let reach = site.reach;
        self.captured
            .iter()
            .copied()
            .filter(|&(_, outer)| reach.wanted(outer))
    }

    /// Differentiates outputs `of` by the values `by`: what is added reads the gradients of the outputs from new inputs.
    pub(super) fn differentiate(
        &mut self,
        site: &Site,
        of: &[ValueId],
        by: &[ValueId],
    ) -> Result<Undone, DiffError> {
        let facts = self.facts()?;
        let graph = &mut self.model.graph;
        let mut dy = vec![];
        for &y in of {
            let ty = &facts.of(y).ty;
            dy.push(differentiable(ty).then(|| graph.input(graph.fresh("dy"), ty.clone())));
        }
        let seeds: Vec<_> = of
            .iter()
            .zip(&dy)
            .filter_map(|(&y, &dy)| Some((y, Some(dy?))))
            .collect();
        let grads = match by.is_empty() {
            true => vec![],
            false => differentiate(
                &mut self.model,
                &Gradients {
                    of: &seeds,
                    by,
                    stop: &[],
                    rounding: site.rounding,
                    keep: None,
                },
            )?,
        };
        let graph = &self.model.graph;
        let outputs: Vec<_> = graph.outputs.iter().map(|p| p.value).collect();
        let found: Vec<_> = grads.iter().flatten().copied().collect();
        Ok(Undone {
            split: split(graph, &outputs, &found),
            dy,
            grads: by.iter().copied().zip(grads).collect(),
        })
    }

    /// The forward subgraph, which makes `kept` too.
    pub(super) fn forward(&self, site: &Site, split: &Split, kept: &[ValueId]) -> Graph {
        let mut graph = self.opened(&split.early);
        graph.inputs.truncate(self.own);
        for &v in kept {
            let copy = identity(&mut graph, v);
            graph.output(copy, None);
        }
        prune(&mut graph);
        rename(&mut graph, self.values, &site.name("f"));
        graph
    }

    /// The beginning of the backward subgraph: without inputs and outputs.
    pub(super) fn backward(&self, split: &Split) -> Graph {
        let mut graph = self.opened(&split.late);
        graph.inputs.clear();
        graph.outputs.clear();
        graph
    }

    fn opened(&self, order: &[secateur_engine::ir::NodeId]) -> Graph {
        let mut graph = self.model.graph.clone();
        graph.order = order.to_vec();
        for &v in &self.fixed {
            graph[v].konst = None;
        }
        graph.initializers.retain(|v| !self.fixed.contains(v));
        graph
    }
}

/// A model that was differentiated.
pub(super) struct Undone {
    pub(super) split: Split,
    /// Of each output the input that is its gradient; `None` where it has none.
    pub(super) dy: Vec<Option<ValueId>>,
    grads: HashMap<ValueId, Option<ValueId>>,
}

impl Undone {
    /// The gradient of `x`.
    pub(super) fn of(&self, x: ValueId) -> Option<ValueId> {
        self.grads.get(&x).copied().flatten()
    }
}

/// A copy of `v`, so that no value is twice an input or output.
pub(super) fn identity(graph: &mut Graph, v: ValueId) -> ValueId {
    added(graph, "Identity", &[v])
}

/// What `op` makes of `x`.
pub(super) fn added(graph: &mut Graph, op: &str, x: &[ValueId]) -> ValueId {
    let y = graph.value(graph.fresh(op));
    graph.node(Node::new(
        op,
        x.iter().copied().map(Some).collect(),
        vec![Some(y)],
    ));
    y
}

/// Zeros like `x`, a value of type `ty`.
pub(super) fn zeros(graph: &mut Graph, x: ValueId, ty: &Type) -> Option<ValueId> {
    let zero = Tensor::zeros(ty.dtype()?, &[])?;
    let zero = graph.constant(graph.fresh("zero"), zero);
    let shape = added(graph, "Shape", &[x]);
    Some(added(graph, "Expand", &[zero, shape]))
}

/// Drops the initialisers that nothing reads.
pub(super) fn prune(graph: &mut Graph) {
    let names = graph.names();
    let read = graph.iter().flat_map(|(_, n)| crate::reach::reads(&names, n));
    let read: HashSet<_> = read.chain(graph.outputs.iter().map(|p| p.value)).collect();
    let gone: Vec<_> = graph
        .initializers
        .iter()
        .copied()
        .filter(|v| !read.contains(v))
        .collect();
    gone.iter().for_each(|&v| graph[v].konst = None);
    graph.initializers.retain(|v| read.contains(v));
}

/// Gives the values from `first` on that `graph` itself defines names that begin with `stem`, so that none is hidden from the
/// graphs around it.
pub(super) fn rename(graph: &mut Graph, first: usize, stem: &str) {
    let captured = graph.captures();
    let mut renamed = HashMap::new();
    for (i, v) in graph.values.iter_mut().enumerate().skip(first) {
        if !captured.contains(&v.name) {
            let new: Name = format!("{stem}{i}").into();
            renamed.insert(std::mem::replace(&mut v.name, new.clone()), new);
        }
    }
    within(graph, &renamed);
}

/// Gives `values` names by which they are found around `graph`.
pub(super) fn call<'n>(graph: &mut Graph, values: impl Iterator<Item = (ValueId, &'n Name)>) {
    let mut renamed = HashMap::new();
    for (v, new) in values {
        renamed.insert(std::mem::replace(&mut graph[v].name, new.clone()), new.clone());
    }
    within(graph, &renamed);
}

/// Calls values of `graph` by their new names in its subgraphs.
fn within(graph: &mut Graph, renamed: &HashMap<Name, Name>) {
    for id in graph.order.clone() {
        let inner = graph[id].attrs.iter_mut().flat_map(|a| a.value.graphs_mut());
        inner.for_each(|g| follow(g, renamed));
    }
}

/// Calls what `graph` captures by its new name.
fn follow(graph: &mut Graph, renamed: &HashMap<Name, Name>) {
    let captured = graph.captures();
    let own = renamed.iter().filter(|(old, _)| captured.contains(*old));
    let own: HashMap<Name, Name> = own.map(|(a, b)| (a.clone(), b.clone())).collect();
    for v in &mut graph.values {
        if let Some(new) = own.get(&v.name) {
            v.name = new.clone();
        }
    }
    within(graph, &own);
}
