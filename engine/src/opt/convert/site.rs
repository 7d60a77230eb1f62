//! A node on its way from one version to the next, and what a change may ask and write there.

use std::sync::Arc;

use super::Names;
use crate::ir::{Attr, AttrValue, DType, Graph, Node, Shape, Tensor, ValueId};
use crate::ops::{self, Fact};
use crate::opt::infer::Facts;

/// Why a node cannot be written in another version.
pub(super) type Done = Result<(), String>;

/// Where a node stands.
pub(super) struct Site<'a> {
    pub(super) graph: &'a mut Graph,
    pub(super) facts: &'a mut Facts,
    names: &'a mut Names,
    /// The version that the node is written in.
    pub(super) at: i64,
    /// The version that it is to be written in.
    pub(super) to: i64,
    stem: String,
    made: Vec<Node>,
}

impl<'a> Site<'a> {
    pub(super) fn new(
        graph: &'a mut Graph,
        facts: &'a mut Facts,
        names: &'a mut Names,
        [at, to]: [i64; 2],
        node: &Node,
    ) -> Site<'a> {
        let output = node.outputs.iter().flatten().next();
        let stem = output.map_or_else(|| node.label().to_owned(), |v| graph[*v].name.to_string());
        Site {
            graph,
            facts,
            names,
            at,
            to,
            stem,
            made: vec![],
        }
    }

    /// The nodes that take the place of the one.
    pub(super) fn finish(self) -> Vec<Node> {
        self.made
    }

    /// Adds a node that stands as it is.
    pub(super) fn put(&mut self, node: Node) -> Done {
        self.made.push(node);
        Ok(())
    }

    /// Adds a node in the version that is being made, and notes what follows of its outputs.
    pub(super) fn note(&mut self, node: Node) {
        self.note_at(node, self.to);
    }

    /// The same in version `opset`.
    pub(super) fn note_at(&mut self, node: Node, opset: i64) {
        let facts =
            ops::find(node.domain(), &node.op).and_then(|op| op.infer(&self.facts.view(&node, opset)).ok());
        for (v, fact) in node.outputs.iter().zip(facts.into_iter().flatten()) {
            if let Some(v) = v {
                self.facts.set(*v, fact, None);
            }
        }
        self.made.push(node);
    }

    /// A new value.
    pub(super) fn value(&mut self) -> ValueId {
        let name = self.names.fresh(&self.stem);
        let v = self.graph.value(name);
        self.facts.set(v, Fact::unknown(), None);
        v
    }

    /// A constant. It is a node, for subgraphs, functions and old files have no initialisers.
    pub(super) fn constant(&mut self, t: Tensor) -> ValueId {
        let v = self.value();
        self.facts.set(v, Fact::of(&t), Some(Arc::new(t.clone())));
        let mut node = Node::new("Constant", vec![], vec![Some(v)]);
        node.set("value", t);
        self.made.push(node);
        v
    }

    /// A constant list of integers.
    pub(super) fn list(&mut self, ints: Vec<i64>) -> ValueId {
        self.constant(Tensor::of(&[ints.len()], ints))
    }

    /// The output of a standard operator on `inputs`.
    pub(super) fn apply(&mut self, op: &str, inputs: &[ValueId], attrs: Vec<Attr>) -> ValueId {
        let v = self.value();
        self.apply_to(v, op, inputs, attrs);
        v
    }

    /// The same, the output being `v`.
    pub(super) fn apply_to(&mut self, v: ValueId, op: &str, inputs: &[ValueId], attrs: Vec<Attr>) {
        let inputs = inputs.iter().copied().map(Some).collect();
        self.note(Node {
            attrs,
            ..Node::new(op, inputs, vec![Some(v)])
        });
    }

    /// The elements of input `i`, if it is there and they are known.
    pub(super) fn konst(&self, node: &Node, i: usize) -> Option<Arc<Tensor>> {
        self.facts.konst(input(node, i)?).cloned()
    }

    /// The elements of input `i`, which must be known where it is there.
    pub(super) fn known(&self, node: &Node, i: usize, what: &str) -> Result<Option<Arc<Tensor>>, String> {
        match (input(node, i), self.konst(node, i)) {
            (None, _) => Ok(None),
            (_, Some(t)) => Ok(Some(t)),
            _ => Err(format!("its {what} (input {i}) are not constant")),
        }
    }

    /// The same of integers.
    pub(super) fn ints(&self, node: &Node, i: usize, what: &str) -> Result<Option<Vec<i64>>, String> {
        let Some(t) = self.known(node, i, what)? else {
            return Ok(None);
        };
        t.ints()
            .map(Some)
            .ok_or_else(|| format!("its {what} (input {i}) are no integers"))
    }

    /// The shape of input `i`, where it is known.
    pub(super) fn shape(&self, node: &Node, i: usize) -> Option<Shape> {
        self.facts.of(input(node, i)?).ty.shape().cloned()
    }

    /// The rank of input `i`.
    pub(super) fn rank(&self, node: &Node, i: usize) -> Result<usize, String> {
        let shape = self.shape(node, i);
        shape
            .map(|s| s.len())
            .ok_or_else(|| format!("the rank of input {i} is not known"))
    }

    /// The element type of input `i`, where it is known.
    pub(super) fn type_of(&self, node: &Node, i: usize) -> Option<DType> {
        self.facts.of(input(node, i)?).ty.dtype()
    }

    /// The element type of input `i`.
    pub(super) fn dtype(&self, node: &Node, i: usize) -> Result<DType, String> {
        let dtype = self.type_of(node, i);
        dtype.ok_or_else(|| format!("the element type of input {i} is not known"))
    }

    /// The scalar `x` of the element type of input `i`.
    pub(super) fn scalar_like(&mut self, node: &Node, i: usize, x: f64) -> Result<ValueId, String> {
        let dtype = self.dtype(node, i)?;
        let t = Tensor::rounded(dtype, &[], &[x]);
        let t = t.ok_or_else(|| format!("input {i} is of type {dtype}"))?;
        Ok(self.constant(t))
    }
}

/// Input `i`, unless it is left out.
pub(super) fn input(node: &Node, i: usize) -> Option<ValueId> {
    node.inputs.get(i).copied().flatten()
}

/// Whether output `i` may be read.
pub(super) fn wants(node: &Node, i: usize) -> bool {
    node.outputs.get(i).is_some_and(Option::is_some)
}

/// Sets input `i`, with left-out ones before it where there are fewer.
pub(super) fn set_input(node: &mut Node, i: usize, v: Option<ValueId>) {
    if node.inputs.len() <= i {
        node.inputs.resize(i + 1, None);
    }
    node.inputs[i] = v;
    while node.inputs.last() == Some(&None) {
        node.inputs.pop();
    }
}

/// Takes the attribute `name` away.
pub(super) fn take(node: &mut Node, name: &str) -> Option<AttrValue> {
    let at = node.attrs.iter().position(|a| &*a.name == name)?;
    Some(node.attrs.remove(at).value)
}

fn kind<T>(name: &str, value: &AttrValue) -> Result<T, String> {
    match value {
        AttrValue::Ref(of) => Err(format!("attribute {name:?} is parameter {of:?} of a function")),
        _ => Err(format!("attribute {name:?} is of another kind")),
    }
}

/// The integer attribute `name`.
pub(super) fn int(node: &Node, name: &str) -> Result<Option<i64>, String> {
    match node.attr(name) {
        None => Ok(None),
        Some(AttrValue::Int(x)) => Ok(Some(x.unwrap_or(0))),
        Some(other) => kind(name, other),
    }
}

/// The float attribute `name`.
pub(super) fn float(node: &Node, name: &str) -> Result<Option<f32>, String> {
    match node.attr(name) {
        None => Ok(None),
        Some(AttrValue::Float(x)) => Ok(Some(x.unwrap_or(0.0))),
        Some(other) => kind(name, other),
    }
}

/// The attribute `name`, a list of integers.
pub(super) fn ints(node: &Node, name: &str) -> Result<Option<Vec<i64>>, String> {
    match node.attr(name) {
        None => Ok(None),
        Some(AttrValue::Ints(x)) => Ok(Some(x.clone())),
        Some(other) => kind(name, other),
    }
}

/// The attribute `name`, a list of floats.
pub(super) fn floats(node: &Node, name: &str) -> Result<Option<Vec<f32>>, String> {
    match node.attr(name) {
        None => Ok(None),
        Some(AttrValue::Floats(x)) => Ok(Some(x.clone())),
        Some(other) => kind(name, other),
    }
}

/// The string attribute `name`, `default` where it is left out.
pub(super) fn text(node: &Node, name: &str, default: &str) -> Result<String, String> {
    match node.attr(name) {
        None => Ok(default.into()),
        Some(AttrValue::Bytes(x)) => Ok(String::from_utf8_lossy(x.as_deref().unwrap_or(&[])).into_owned()),
        Some(other) => kind(name, other),
    }
}

/// `axis` counted from the front.
pub(super) fn forward(axis: i64, rank: usize) -> Result<i64, String> {
    let rank = i64::try_from(rank).map_err(|_| "too many axes")?;
    let axis = if axis < 0 { axis.saturating_add(rank) } else { axis };
    match (0..rank.max(1)).contains(&axis) {
        true => Ok(axis),
        false => Err(format!("axis {axis} is beyond rank {rank}")),
    }
}
