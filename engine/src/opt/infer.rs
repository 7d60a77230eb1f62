//! Types, shapes and constants of every value, from those of the inputs.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::ir::{DType, Dim, Graph, Model, Node, Opset, Tensor, Type, ValueId, version};
use crate::ops::{self, Fact, Input, NodeRef, Op, OpError};
use crate::reference;

/// Values above this many elements are not computed in advance.
const FOLD_LIMIT: usize = 1 << 22;

/// Bytes that values computed in advance may take together, beside as many as the initialisers that they are computed
/// from.
const FOLD_TOTAL: usize = 8 << 20;

/// Bytes of values in a subgraph that types may follow from.
const LEAN: usize = 64 << 10;

/// What is known of the values of a graph.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    facts: Vec<Fact>,
    konst: HashMap<ValueId, Arc<Tensor>>,
    /// Whether each value is an initialiser.
    fixed: Vec<bool>,
    /// Bytes that may still be computed in advance.
    room: usize,
    /// Bytes that have been.
    folded: usize,
    /// Initialisers that something has been computed from.
    spent: HashSet<ValueId>,
    /// Only types are wanted, for which small values do.
    lean: bool,
}

/// A node that cannot be understood, with everything needed to find it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeError {
    /// The node's name, or its operator's where it has none.
    pub node: String,
    /// Its operator, with the domain in front where it is not ONNX's own.
    pub op: String,
    /// The version at which its domain is imported.
    pub opset: i64,
    /// Its inputs: names with types.
    pub inputs: Vec<String>,
    /// What is wrong.
    pub what: OpError,
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let NodeError {
            node,
            op,
            opset,
            inputs,
            what,
        } = self;
        write!(
            f,
            "node {node:?} ({op}, opset {opset}; inputs {}): {what}",
            inputs.join(", ")
        )
    }
}

impl std::error::Error for NodeError {}

/// An operator's name with its domain in front where it is not ONNX's own.
pub fn full_name(node: &Node) -> String {
    match node.domain() {
        "" => node.op.to_string(),
        domain => format!("{domain}.{}", node.op),
    }
}

impl Facts {
    /// What is known of `v`.
    pub fn of(&self, v: ValueId) -> &Fact {
        static NOTHING: Fact = Fact {
            ty: Type::Unknown,
            data: None,
        };
        self.facts.get(v.0 as usize).unwrap_or(&NOTHING)
    }

    /// The elements of `v`, if they are known before the model runs.
    pub fn konst(&self, v: ValueId) -> Option<&Arc<Tensor>> {
        self.konst.get(&v)
    }

    /// `node` with what is known of its inputs.
    pub fn view<'a>(&'a self, node: &'a Node, opset: i64) -> NodeRef<'a> {
        let input = |v: ValueId| Input {
            value: v,
            fact: self.of(v),
            konst: self.konst(v).map(|t| &**t),
            fixed: self.fixed.get(v.0 as usize).is_some_and(|&f| f),
        };
        NodeRef::new(node, opset, node.inputs.iter().map(|v| v.map(input)).collect())
    }

    /// An error about `node`, with the inputs as they are known.
    pub fn error(&self, graph: &Graph, node: &Node, opset: i64, what: OpError) -> NodeError {
        let name = |v: ValueId| graph.values.get(v.0 as usize).map_or("", |v| &v.name);
        let input = |v: ValueId| format!("{}: {}", name(v), self.of(v).ty);
        NodeError {
            node: node.label().to_owned(),
            op: full_name(node),
            opset,
            inputs: node.inputs.iter().map(|v| v.map_or("_".into(), input)).collect(),
            what,
        }
    }

    /// What is known of the initialisers of `graph`, and nothing else.
    pub fn initial(graph: &Graph) -> Facts {
        let mut facts = Facts {
            facts: vec![Fact::unknown(); graph.values.len()],
            konst: HashMap::new(),
            fixed: vec![false; graph.values.len()],
            room: FOLD_TOTAL,
            folded: 0,
            spent: HashSet::new(),
            lean: false,
        };
        for &v in &graph.initializers {
            let Some(c) = &graph[v].konst else { continue };
            let fixed = (!graph.is_input(v)).then(|| c.tensor.clone());
            facts.fixed[v.0 as usize] = fixed.is_some();
            facts.set(v, Fact::of(&c.tensor), fixed);
        }
        facts
    }

    /// Notes what is known of `v`, which may be a value that the graph does not have.
    pub fn set(&mut self, v: ValueId, fact: Fact, konst: Option<Arc<Tensor>>) {
        let at = v.0 as usize;
        if at >= self.facts.len() {
            self.facts.resize(at + 1, Fact::unknown());
            self.fixed.resize(at + 1, false);
        }
        match konst.or_else(|| known(&fact).map(Arc::new)) {
            Some(t) => self.konst.insert(v, t),
            None => self.konst.remove(&v),
        };
        self.facts[at] = fact;
    }

    /// The same where values of `bytes` may be computed in advance.
    pub(crate) fn roomy(self, bytes: usize) -> Facts {
        Facts { room: bytes, ..self }
    }

    /// Bytes of the initialisers that `node` reads and nothing has been computed from yet.
    fn credit(&self, node: &Node) -> usize {
        if self.lean {
            return 0;
        }
        let own = node.inputs.iter().flatten();
        let own = own.filter(|v| self.fixed.get(v.0 as usize).is_some_and(|&f| f) && !self.spent.contains(v));
        own.filter_map(|v| self.konst(*v)).map(|t| t.size()).sum()
    }

    /// Notes that values of `size` bytes were computed from what `node` reads.
    fn spend(&mut self, node: &Node, size: usize) {
        let credit = self.credit(node);
        self.room = self.room.saturating_sub(size.saturating_sub(credit));
        self.folded = self.folded.saturating_add(size);
        self.spent
            .extend(node.inputs.iter().flatten().filter(|_| size > 0));
    }

    /// Bytes of the values that were computed in advance.
    pub(crate) fn folded(&self) -> usize {
        self.folded
    }

    /// The first id that no value has.
    pub fn end(&self) -> u32 {
        self.facts.len() as u32
    }
}

/// The version by which `node` is to be read: that of its domain. Operators of domains without versions of their own
/// (secateur's, `com.microsoft` and ONNX's preview) are read, and their bodies written, by that of ONNX's own.
pub fn opset_of(opsets: &[Opset], node: &Node) -> i64 {
    let domain = match node.domain() {
        "secateur" | "com.microsoft" | "ai.onnx.preview" => "",
        own => own,
    };
    match ops::find(node.domain(), &node.op) {
        // What the optimiser made may be newer than what the model imports.
        Some(op) => {
            let first = op.since().first().copied().unwrap_or(1).into();
            version(opsets, domain).unwrap_or(ops::OPSET).max(first)
        }
        None => version(opsets, domain).unwrap_or(0),
    }
}

/// Infers the types of all values of the main graph. `inputs` gives types of inputs that are known better than declared.
/// Unknown operators leave their outputs unknown.
///
/// # Errors
///
/// The first node whose inputs do not fit it.
pub fn infer(model: &Model, inputs: &HashMap<ValueId, Type>) -> Result<Facts, NodeError> {
    let graph = &model.graph;
    let mut facts = Facts::initial(graph);
    for p in &graph.inputs {
        let declared = p.ty.as_ref().map(|d| named(&d.ty));
        let ty = inputs
            .get(&p.value)
            .cloned()
            .or(declared)
            .unwrap_or(Type::Unknown);
        facts.set(p.value, ty.into(), None);
    }
    for (_, node) in graph.iter() {
        infer_node(model, node, &mut facts)?;
    }
    Ok(facts)
}

/// Notes the declared types of the inputs of `graph`.
pub fn known_inputs(graph: &Graph, facts: &mut Facts) {
    for p in &graph.inputs {
        let ty = p.ty.as_ref().map_or(Type::Unknown, |d| named(&d.ty));
        if ty != Type::Unknown {
            facts.set(p.value, ty.into(), None);
        }
    }
}

/// A tensor type whose sizes are numbers, symbols that mean one size each, or unknown.
fn named(ty: &Type) -> Type {
    match ty {
        Type::Tensor {
            dtype,
            shape: Some(shape),
        } => Type::Tensor {
            dtype: *dtype,
            shape: Some(shape.iter().map(Dim::named).collect()),
        },
        other => other.clone(),
    }
}

/// Infers the types of the outputs of `node`. Returns the inputs whose elements were asked for in vain, as bits.
///
/// # Errors
///
/// If the inputs do not fit the operator.
pub fn infer_node(model: &Model, node: &Node, facts: &mut Facts) -> Result<u64, NodeError> {
    let Some(op) = ops::find(node.domain(), &node.op) else {
        declared(&model.graph, node, facts);
        return Ok(0);
    };
    let opset = opset_of(&model.opsets, node);
    let scope = |g: &Graph, inputs: &[Fact]| subgraph(model, facts, g, inputs);
    let n = facts.view(node, opset).within(&scope);
    let wrong = |what| facts.error(&model.graph, node, opset, what);
    let inferred = op.infer(&n).map_err(wrong)?;
    let asked = n.asked();
    if inferred.len() < node.outputs.len() {
        let what = format!(
            "has {} outputs; expected at most {}",
            node.outputs.len(),
            inferred.len()
        );
        return Err(wrong(OpError::new(what)));
    }
    let folded = fold(op, &n, &inferred, facts.room.saturating_add(facts.credit(node))).map_err(wrong)?;
    let size = folded.iter().flatten().map(Tensor::size).sum();
    facts.spend(node, size);
    let mut folded = folded.into_iter().flatten();
    for (v, fact) in node.outputs.iter().zip(inferred) {
        let konst = folded.next().map(Arc::new);
        // What was computed is known better than what was inferred.
        let fact = match &konst {
            Some(t) => Fact {
                data: fact.data,
                ..Fact::of(t)
            },
            None => fact,
        };
        if let Some(v) = v {
            facts.set(*v, fact, konst);
        }
    }
    Ok(asked)
}

/// Types of the outputs of the subgraph `g`, for inputs of the given types, where values around it are as in `facts`.
fn subgraph(model: &Model, facts: &Facts, g: &Graph, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let mut inner = Facts::initial(g);
    // What is large is computed when the subgraph is optimised, not whenever somebody asks for types.
    (inner.room, inner.lean) = (LEAN.min(facts.room), true);
    for (p, fact) in g.inputs.iter().zip(inputs) {
        inner.set(p.value, fact.clone(), None);
    }
    let around = model.graph.names();
    for name in g.captures() {
        if let (Some(v), Some(&outer)) = (g.find(&name), around.get(&name)) {
            inner.set(v, facts.of(outer).clone(), facts.konst(outer).cloned());
        }
    }
    let inside = Model {
        graph: g.clone(),
        opsets: model.opsets.clone(),
        ..Model::default()
    };
    for (_, node) in g.iter() {
        infer_node(&inside, node, &mut inner).map_err(|e| OpError::new(format!("in a subgraph: {e}")))?;
    }
    Ok(g.outputs
        .iter()
        .map(|p| inner.of(p.value).ty.clone().into())
        .collect())
}

/// Takes the declared types of the outputs of a node whose operator is unknown.
fn declared(graph: &Graph, node: &Node, facts: &mut Facts) {
    for p in graph.infos.iter().chain(&graph.outputs) {
        if let (true, Some(d)) = (node.outputs.contains(&Some(p.value)), &p.ty) {
            facts.set(p.value, d.ty.clone().into(), None);
        }
    }
}

/// The outputs of a node whose inputs are all known, unless they are many.
fn fold(op: &dyn Op, n: &NodeRef, inferred: &[Fact], room: usize) -> Result<Option<Vec<Tensor>>, OpError> {
    let elements = |f: &Fact| f.ty.dims().and_then(|d| crate::ir::count(&d));
    let x: Vec<_> = (0..n.arity()).map(|i| n.input(i)?.konst).collect();
    let total = inferred
        .iter()
        .map(elements)
        .try_fold(0usize, |all, n| all.checked_add(n?));
    let bytes = inferred.iter().fold(0usize, |all, f| {
        all.saturating_add(reference::bytes(f, &x).unwrap_or(usize::MAX))
    });
    let small = total.is_some_and(|n| n <= FOLD_LIMIT) && bytes <= room;
    let all = (0..n.arity()).all(|i| x[i].is_some() || !n.has(i));
    if !small || !all || op.laws().impure || op.laws().any {
        return Ok(None);
    }
    let y = reference::eval(op, n, &x)?;
    // An attribute that nobody understands is refused where the node is planned, so it must stay.
    Ok(n.unread().is_empty().then_some(y))
}

/// An integer tensor whose elements were all inferred.
fn known(fact: &Fact) -> Option<Tensor> {
    let data = fact.data.as_ref()?;
    let dims = fact.ty.dims()?;
    let ints = data.iter().map(Dim::known).collect::<Option<Vec<i64>>>()?;
    if crate::ir::count(&dims) != Some(ints.len()) {
        return None;
    }
    match fact.ty.dtype()? {
        DType::I64 => Some(Tensor::of(&dims, ints)),
        DType::I32 => {
            let narrow = ints
                .iter()
                .map(|&i| i32::try_from(i).ok())
                .collect::<Option<Vec<_>>>()?;
            Some(Tensor::of(&dims, narrow))
        }
        _ => None,
    }
}
