//! How the axes of all values of a model hang together.

use std::collections::HashMap;
use std::rc::Rc;

use secateur_engine::ir::{Dim, Model, Node, NodeId, Type, ValueId};
use secateur_engine::ops::{self, NodeRef, Tie};
use secateur_engine::opt::Facts;
use secateur_engine::opt::infer::{full_name, infer, infer_node, opset_of};

use super::rules::{self, Rule};
use super::space::{ONE, Space, Spaces};

/// The spaces of the axes of a value.
pub(crate) type Axes = Vec<Space>;

/// What a node spells out and what has to be spelt anew when axes become shorter.
#[derive(Clone, Debug)]
pub(crate) struct Fix {
    pub(crate) node: NodeId,
    pub(crate) at: Slot,
    pub(crate) what: What,
}

/// Where sizes stand.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Slot {
    /// An attribute: an integer or a list.
    Attr(&'static str),
    /// An input.
    Input(usize),
}

/// Which sizes stand there.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// One number: the size of a space.
    Size(Space),
    /// One number for each space, where there is one.
    Sizes(Vec<Option<Space>>),
    /// Number `place` of the bounds of a `Slice`, which is to mean the first index behind `upto` on the axis `all`.
    Bound { place: usize, upto: Space, all: Space },
    /// The sizes of the outputs of a `Split`, which may be left out where they are equal.
    Parts(Vec<Space>),
}

/// Indices that are summed over.
#[derive(Clone, Debug)]
pub(crate) struct Sum {
    pub(crate) node: NodeId,
    pub(crate) space: Space,
    /// The values that are multiplied, if it is a sum of products; else the one whose elements are added.
    pub(crate) operands: Vec<ValueId>,
}

/// The axes of a model's values.
pub(crate) struct Trace<'m> {
    pub(crate) model: &'m Model,
    pub(crate) facts: Facts,
    /// What is known of the model whatever the sizes of its inputs are.
    pub(crate) any: Facts,
    pub(crate) spaces: Spaces,
    pub(crate) of: HashMap<ValueId, Axes>,
    pub(crate) fixes: Vec<Fix>,
    pub(crate) sums: Vec<Sum>,
    /// The spaces whose sizes an integer value is made of.
    sizes: HashMap<ValueId, Axes>,
}

/// A node, the spaces of what it reads and makes, and what its rule finds out.
pub(crate) struct View<'a, 'n> {
    pub(crate) n: &'a NodeRef<'n>,
    pub(crate) id: NodeId,
    any: &'a Facts,
    pub(crate) spaces: &'a mut Spaces,
    pub(crate) ins: Vec<Option<Axes>>,
    pub(crate) outs: Vec<Option<Axes>>,
    pub(crate) fixes: &'a mut Vec<Fix>,
    pub(crate) sums: &'a mut Vec<Sum>,
}

impl<'m> Trace<'m> {
    /// The axes of `model` for inputs of the sizes that `facts` begin with.
    ///
    /// # Errors
    ///
    /// The first node whose inputs do not fit it.
    pub(crate) fn new(
        model: &'m Model,
        sizes: &HashMap<ValueId, Type>,
    ) -> Result<Trace<'m>, secateur_engine::opt::infer::NodeError> {
        let mut trace = Trace {
            model,
            facts: Facts::initial(&model.graph),
            any: infer(model, &HashMap::new()).unwrap_or_default(),
            spaces: Spaces::default(),
            of: HashMap::new(),
            fixes: vec![],
            sums: vec![],
            sizes: HashMap::new(),
        };
        let g = &model.graph;
        for (&v, ty) in sizes {
            trace.facts.set(v, ty.clone().into(), None);
        }
        for &v in &g.initializers {
            trace.value(v);
        }
        // Files of old versions list initialisers among the inputs.
        for p in g.inputs.iter().filter(|p| g[p.value].konst.is_none()) {
            trace.value(p.value);
            trace.pin(p.value, "an input of the model");
        }
        for (id, node) in g.iter() {
            infer_node(model, node, &mut trace.facts)?;
            node.outputs.iter().flatten().for_each(|&v| trace.value(v));
            trace.node(id, node);
            trace.count(node);
        }
        let links = g.links();
        let outputs: Vec<_> = g.outputs.iter().map(|p| p.value).collect();
        for &v in &outputs {
            trace.pin(v, "an output of the model");
            trace.pin_sizes(v, "its size is an output of the model");
        }
        let captured = (0u32..g.values.len() as u32).map(ValueId);
        for v in captured.filter(|v| links.kept(*v) && !outputs.contains(v)) {
            trace.pin(v, "read inside a subgraph");
            trace.pin_sizes(v, "its size is read inside a subgraph");
        }
        Ok(trace)
    }

    /// New letters for the axes of `v`, if its shape is known.
    fn value(&mut self, v: ValueId) {
        if let Some(dims) = self.facts.of(v).ty.dims() {
            let axes = dims.iter().map(|&d| self.spaces.fresh(d)).collect();
            self.of.insert(v, axes);
        }
    }

    fn pin(&mut self, v: ValueId, why: &str) {
        let why = Rc::from(why);
        for axis in self.of.get(&v).into_iter().flatten() {
            self.spaces.pin(axis, &why);
        }
    }

    /// Pins the axes whose sizes the integers `v` are made of.
    fn pin_sizes(&mut self, v: ValueId, why: &str) {
        let why = Rc::from(why);
        for axis in self.sizes.get(&v).into_iter().flatten() {
            self.spaces.pin(axis, &why);
        }
    }

    /// Follows sizes that are computed with. Axes whose size becomes a number of the computation, such as the scale of attention,
    /// cannot be cut.
    fn count(&mut self, node: &Node) {
        let read = |i: usize| node.inputs.get(i).copied().flatten();
        let of = |v: ValueId| self.sizes.get(&v).cloned().unwrap_or_default();
        let sizes: Axes = match &*node.op {
            "Shape" => read(0).and_then(|v| self.of.get(&v).cloned()).unwrap_or_default(),
            "Size" => read(0).and_then(|v| self.of.get(&v).cloned()).unwrap_or_default(),
            "Gather" => read(0).map(|v| self.picked(v, read(1))).unwrap_or_default(),
            "Slice" => read(0)
                .map(|v| self.sliced(v, [read(1), read(2)]))
                .unwrap_or_default(),
            "ConstantOfShape" => vec![],
            op if SHAPED.contains(&op) => read(0).map(of).unwrap_or_default(),
            _ => node.inputs.iter().flatten().flat_map(|&v| of(v)).collect(),
        };
        if sizes.is_empty() {
            return;
        }
        for &v in node.outputs.iter().flatten() {
            if self.facts.of(v).ty.dtype().is_some_and(|d| d.is_float()) {
                let why = Rc::from(format!("{:?} computes with the size of the axis", node.label()));
                sizes.iter().for_each(|s| self.spaces.pin(s, &why));
            } else {
                self.sizes.insert(v, sizes.clone());
            }
        }
    }

    /// The sizes that `Slice` takes from a list.
    fn sliced(&self, v: ValueId, bounds: [Option<ValueId>; 2]) -> Axes {
        let all = self.sizes.get(&v).cloned().unwrap_or_default();
        let list = self.facts.of(v).ty.dims().is_some_and(|d| d == [all.len()]);
        let len = all.len() as i64;
        let bound = |v: Option<ValueId>| match self.facts.konst(v?)?.ints()?[..] {
            [i] => usize::try_from(if i < 0 { i + len } else { i }.clamp(0, len)).ok(),
            _ => None,
        };
        match (bound(bounds[0]), bound(bounds[1])) {
            (Some(start), Some(end)) if list && start <= end => all[start..end].to_vec(),
            _ => all,
        }
    }

    /// The sizes that `Gather` takes from a list.
    fn picked(&self, v: ValueId, indices: Option<ValueId>) -> Axes {
        let all = self.sizes.get(&v).cloned().unwrap_or_default();
        let list = self.facts.of(v).ty.dims().is_some_and(|d| d == [all.len()]);
        let which = indices.and_then(|i| self.facts.konst(i)?.ints()).filter(|_| list);
        let at = |i: i64| usize::try_from(if i < 0 { i + all.len() as i64 } else { i }).ok();
        match which {
            Some(which) => which
                .into_iter()
                .filter_map(|i| all.get(at(i)?).cloned())
                .collect(),
            None => all,
        }
    }

    fn node(&mut self, id: NodeId, node: &Node) {
        let opset = opset_of(&self.model.opsets, node);
        let n = self.facts.view(node, opset);
        let axes = |vs: &[Option<ValueId>]| -> Vec<Option<Axes>> {
            vs.iter().map(|v| self.of.get(&(*v)?).cloned()).collect()
        };
        let (ins, outs) = (axes(&node.inputs), axes(&node.outputs));
        let mut view = View {
            n: &n,
            id,
            any: &self.any,
            spaces: &mut self.spaces,
            ins,
            outs,
            fixes: &mut self.fixes,
            sums: &mut self.sums,
        };
        let known = view
            .ins
            .iter()
            .zip(&node.inputs)
            .all(|(a, v)| a.is_some() || v.is_none());
        match rules::find(node) {
            Some(rule) if known => view.by(rule),
            _ => view.stated(),
        }
    }
}

impl View<'_, '_> {
    fn by(&mut self, rule: Rule) {
        if rule(self).is_none() {
            self.pin_all("its sizes are not known");
        }
    }

    /// How messages call the node.
    pub(crate) fn label(&self) -> String {
        let node = self.n.node();
        let name = node.name.as_deref().filter(|n| !n.is_empty());
        match name {
            Some(name) => format!("{} {name:?}", full_name(node)),
            None => full_name(node),
        }
    }

    /// Axis `a` of input `i`.
    pub(crate) fn input(&self, i: usize, a: usize) -> Option<Space> {
        self.ins.get(i)?.as_ref()?.get(a).cloned()
    }

    /// Axis `a` of output `i`.
    pub(crate) fn output(&self, i: usize, a: usize) -> Option<Space> {
        self.outs.get(i)?.as_ref()?.get(a).cloned()
    }

    /// Notes that `space` cannot be cut: the node does with it what `what` says.
    pub(crate) fn pin(&mut self, space: &Space, what: &str) {
        let why = format!("{}: {what}", self.label());
        self.spaces.pin(space, &Rc::from(why));
    }

    pub(crate) fn pin_all(&mut self, what: &str) {
        let all: Vec<_> = self
            .ins
            .iter()
            .chain(&self.outs)
            .flatten()
            .flatten()
            .cloned()
            .collect();
        all.iter().for_each(|s| self.pin(s, what));
    }

    /// Makes two spaces one; where they do not fit, neither can be cut.
    pub(crate) fn tie(&mut self, a: &Space, b: &Space) {
        if self.spaces.unify(a, b).is_err() {
            self.pin(a, "its parts do not fit together");
            self.pin(b, "its parts do not fit together");
        }
    }

    /// Ties each axis of input `i` to that of output `o`, but those that `skip` names.
    pub(crate) fn tie_axes(&mut self, i: usize, o: usize, skip: Option<usize>) {
        let (Some(Some(a)), Some(Some(b))) = (self.ins.get(i).cloned(), self.outs.get(o).cloned()) else {
            return;
        };
        for (axis, (a, b)) in a.iter().zip(&b).enumerate() {
            if Some(axis) != skip {
                self.tie(a, b);
            }
        }
    }

    /// Notes a sum over `space` of products of inputs.
    pub(crate) fn sum(&mut self, space: Space, inputs: &[usize]) {
        let node = self.n.node();
        let operands = inputs
            .iter()
            .filter_map(|&i| node.inputs.get(i).copied().flatten());
        self.sums.push(Sum {
            node: self.id,
            space,
            operands: operands.collect(),
        });
    }

    /// Notes that sizes have to be spelt anew.
    pub(crate) fn fix(&mut self, at: Slot, what: What) {
        let node = self.id;
        self.fixes.push(Fix { node, at, what });
    }

    /// The integers of input `i`, if they are the same whatever the sizes of the model's inputs are.
    pub(crate) fn fixed(&self, i: usize) -> Option<Vec<i64>> {
        let v = self.n.node().inputs.get(i).copied().flatten()?;
        let konst = self.any.konst(v).and_then(|t| t.ints());
        konst.or_else(|| self.any.of(v).data.as_ref()?.iter().map(Dim::known).collect())
    }

    /// Outputs beside the first, of which equations say nothing.
    fn seconds(&mut self) {
        match &*self.n.node().op {
            _ if self.n.node().outputs.iter().skip(1).all(Option::is_none) => {}
            "Dropout" => self.tie_axes(0, 1, None),
            _ => self.pin_all("it makes more than one output"),
        }
    }

    /// What the operator's equation says; axes of which it says nothing cannot be cut.
    pub(crate) fn stated(&mut self) {
        let node = self.n.node();
        let op = ops::find(node.domain(), &node.op).filter(|op| !op.laws().any && understood(node));
        let made = self.outs.first().is_some_and(Option::is_some);
        let Some(axes) = op.and_then(|op| op.axes(self.n)).filter(|_| made) else {
            return self.pin_all("it is not known what becomes of its axes");
        };
        let mut told: Vec<Vec<bool>> = self.ins.iter().map(|a| vec![false; rank(a)]).collect();
        let mut made: Vec<Vec<bool>> = self.outs.iter().map(|a| vec![false; rank(a)]).collect();
        for tie in &axes.0 {
            self.follow(tie);
            for &(i, a) in &tie.inputs {
                told.get_mut(i)
                    .and_then(|t| t.get_mut(a))
                    .into_iter()
                    .for_each(|t| *t = true);
            }
            if let Some(o) = tie.output {
                made.first_mut()
                    .and_then(|t| t.get_mut(o))
                    .into_iter()
                    .for_each(|t| *t = true);
            }
        }
        let outs = self.outs.iter().zip(&made).take(1);
        let axes = self.ins.iter().zip(&told).chain(outs);
        let rest: Vec<Space> = axes
            .flat_map(|(a, told)| {
                a.iter()
                    .flatten()
                    .zip(told)
                    .filter(|(_, t)| !**t)
                    .map(|(s, _)| s.clone())
            })
            .collect();
        rest.iter()
            .for_each(|s| self.pin(s, "it mixes what lies along the axis"));
        self.seconds();
    }

    fn follow(&mut self, tie: &Tie) {
        let spaces: Vec<Space> = tie.inputs.iter().filter_map(|&(i, a)| self.input(i, a)).collect();
        let wide: Vec<Space> = spaces.iter().filter(|s| **s != ONE).cloned().collect();
        if let Some(out) = tie.output.and_then(|a| self.output(0, a)) {
            if wide.is_empty() {
                self.pin(&out, "it makes the axis");
            }
            return wide.iter().for_each(|s| self.tie(s, &out));
        }
        let Some(first) = wide.first() else { return };
        wide.iter().skip(1).for_each(|s| self.tie(s, first));
        let mut inputs: Vec<usize> = tie.inputs.iter().map(|x| x.0).collect();
        inputs.dedup();
        match inputs.len() {
            1 if !ADDS.contains(&&*self.n.node().op) => self.pin(first, "it reduces the axis to one number"),
            _ => self.sum(first.clone(), &inputs),
        }
    }
}

/// Operators of other domains that spell out no sizes: all of what they do is in their equations. Sorted.
static FOREIGN: &[&str] = &[
    "BiasGelu",
    "DequantizeLinear",
    "FastGelu",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "Gelu",
    "QuantizeLinear",
    "QuickGelu",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];

fn understood(node: &Node) -> bool {
    node.domain().is_empty() || FOREIGN.binary_search(&&*node.op).is_ok()
}

/// Operators of which only the first input is computed with; the others say shapes and places.
static SHAPED: &[&str] = &[
    "Expand",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Unsqueeze",
    "Upsample",
];

/// Reductions in which zeros have no say.
static ADDS: &[&str] = &["Einsum", "ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare"];

fn rank(axes: &Option<Axes>) -> usize {
    axes.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_sorted() {
        assert!(FOREIGN.is_sorted() && SHAPED.is_sorted() && ADDS.is_sorted());
    }
}
