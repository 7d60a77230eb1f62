//! From a graph with known input shapes to a plan.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::layout::{Form, Pick, only_turned, read_in_blocks, turns};
use super::memory::Buffer;
use super::single::{Choice, Choices};
use super::{Offer, Plan, Rates, Share, Step, Uses};
use crate::cpu::sparse::Sparsity;
use crate::cpu::{Build, Candidate, Cost, Io, Packs, View};
use crate::expr::Builder;
use crate::ir::{Constant, DType, Graph, Model, Node, Tensor, Type, ValueId};
use crate::ops::{self, Fact, NodeRef, Op, OpError};
use crate::opt::infer::{Facts, NodeError, full_name, infer_node, opset_of};
use crate::reference;

/// The kernel of nodes that have none. It reads its inputs after it has begun to write.
const REFERENCE: &str = "reference";

/// Why a graph cannot be planned.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PlanError {
    /// A node that does not fit its operator, or that no kernel runs.
    Node(NodeError),
    /// A node that refused its inputs while the graph ran.
    Run(NodeError),
    /// An output of the graph that nothing makes.
    Output(String),
    /// A run would work in more memory than there is.
    Memory {
        /// Bytes that it would work in.
        needed: usize,
        /// Bytes that there are.
        available: usize,
        /// The node that makes the most of it.
        node: String,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            PlanError::Node(e) | PlanError::Run(e) => e.fmt(f),
            PlanError::Output(name) => {
                write!(f, "output {name:?}: nothing makes it")
            }
            PlanError::Memory {
                needed,
                available,
                node,
            } => {
                write!(
                    f,
                    "a run with these shapes works in {needed} bytes; there are {available}; most is made by {node}"
                )
            }
        }
    }
}

impl std::error::Error for PlanError {}

impl From<NodeError> for PlanError {
    fn from(e: NodeError) -> Self {
        PlanError::Node(e)
    }
}

/// Bytes of constants that a plan may compute beforehand, beside as many as it computes them from.
const FOLDED: usize = 16 << 20;

/// What a value is stored in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Store {
    Input(usize),
    Constant(usize),
    Buffer(usize),
}

/// A buffer while steps are being collected.
pub(super) struct Room {
    pub(super) buffer: Buffer,
    /// The graph output it is handed out as.
    pub(super) output: Option<usize>,
    /// The values that have used it.
    pub(super) values: Vec<ValueId>,
}

/// Where a step finds a value, and how it sees it.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) store: Store,
    pub(super) dtype: DType,
    pub(super) dims: Vec<usize>,
}

impl Seat {
    /// Whether element by element both are where the other is.
    pub(super) fn is_like(&self, other: &Seat) -> bool {
        (self.dtype.bits(), &self.dims) == (other.dtype.bits(), &other.dims)
    }
}

/// A step while its values have no places yet, and its kernel is not made.
pub(super) struct Draft {
    pub(super) step: Step,
    pub(super) build: Build,
    /// The inputs in whose place outputs may be written.
    pub(super) over: Vec<usize>,
    /// Whether that holds for all outputs, not only the first.
    pub(super) all_over: bool,
    pub(super) inputs: Vec<Option<Seat>>,
    pub(super) outputs: Vec<Option<Seat>>,
}

/// The type of a value, and its elements where they are known.
pub(super) type Known = (Type, Option<Arc<Tensor>>);

/// What a plan begins with.
pub(super) struct Start<'a> {
    pub(super) model: &'a Model,
    pub(super) uses: &'a Uses,
    pub(super) packs: &'a Packs,
    /// The place of the first node.
    pub(super) from: usize,
    /// The values that are there, initialisers aside.
    pub(super) known: &'a HashMap<ValueId, Known>,
    pub(super) threads: usize,
    /// What kernels take.
    pub(super) rates: &'a Rates,
    /// Inputs whose memory may be taken for the outputs that follow them.
    pub(super) state: &'a [(ValueId, ValueId)],
    /// Bytes that a run may work in, if that is limited.
    pub(super) memory: Option<usize>,
    /// No kernel is built and no constant kept, so that nothing is copied.
    pub(super) dry: bool,
    /// Kernels that are to be chosen where there are such.
    pub(super) follow: Option<&'a Choices>,
}

pub(super) struct Lowering<'a> {
    pub(super) start: Start<'a>,
    pub(super) facts: Facts,
    /// Where values are; under their dimensions where they stand in blocks of channels.
    pub(super) stores: HashMap<(ValueId, Form), Store>,
    pub(super) inputs: Vec<ValueId>,
    pub(super) rooms: Vec<Room>,
    pub(super) constants: Vec<Tensor>,
    /// Number of steps that still read each value.
    pending: HashMap<ValueId, usize>,
    /// Values that others only read with two axes exchanged.
    pub(super) only_turned: HashSet<ValueId>,
    /// Images that are best made in blocks of channels.
    pub(super) read_in_blocks: HashSet<ValueId>,
    pub(super) steps: Vec<Draft>,
    /// The place of the node that is planned, and how many came before it in its body.
    pub(super) turn: (usize, usize),
    chosen: Choices,
}

/// Plans the graph from a place on, as far as types and shapes follow from what is known. Weights are packed.
///
/// # Errors
///
/// If a node does not fit its operator or has an attribute that nobody understands, or a run would take too much memory.
pub(super) fn lower(start: Start) -> Result<Plan, PlanError> {
    let (low, end, asked) = walk(start)?;
    low.finish(end, asked)
}

/// The kernels that [`lower`] would choose.
///
/// # Errors
///
/// As [`lower`].
pub(super) fn choices(start: Start) -> Result<Choices, PlanError> {
    Ok(walk(start)?.0.chosen)
}

/// Plans nodes as far as they go; with the place of the first that is not planned, and the inputs whose elements it asked for.
fn walk(start: Start) -> Result<(Lowering, usize, u64), PlanError> {
    let mut low = Lowering {
        facts: Facts::initial(&start.model.graph).roomy(FOLDED),
        stores: HashMap::new(),
        inputs: vec![],
        rooms: vec![],
        constants: vec![],
        pending: HashMap::new(),
        only_turned: only_turned(&start.model.graph),
        read_in_blocks: read_in_blocks(&start.model.graph),
        steps: vec![],
        turn: (0, 0),
        chosen: Choices::new(),
        start,
    };
    for (&v, (ty, konst)) in low.start.known {
        low.facts.set(v, ty.clone().into(), konst.clone());
    }
    let model = low.start.model;
    let (mut end, mut asked) = (low.start.from, 0);
    for &id in &model.graph.order[low.start.from..] {
        let node = &model.graph[id];
        low.turn = (end, 0);
        match low.fits(node)? {
            Ok(()) => low.node(node)?,
            Err(wants) => {
                asked = wants;
                break;
            }
        }
        end += 1;
    }
    Ok((low, end, asked))
}

/// Bytes that a run of `model` would work in, as [`Plan::peak_bytes`] has them but without the scratch memory of kernels;
/// up to the first node that needs values. Weights are neither read nor packed.
///
/// # Errors
///
/// As a session has them.
pub fn peak_bytes(model: &Model, inputs: &HashMap<ValueId, Type>) -> Result<usize, PlanError> {
    let known = inputs.iter().map(|(&v, ty)| (v, (ty.clone(), None))).collect();
    let start = Start {
        model,
        uses: &Uses::new(&model.graph, |_| vec![]),
        packs: &Packs::default(),
        from: 0,
        known: &known,
        threads: 1,
        rates: &Rates::default(),
        state: &[],
        memory: None,
        dry: true,
        follow: None,
    };
    Ok(lower(start)?.peak_bytes())
}

impl Lowering<'_> {
    pub(super) fn graph(&self) -> &Graph {
        &self.start.model.graph
    }

    /// Whether a plan can hold `node`; if not, the inputs whose elements it lacks, as bits.
    fn fits(&mut self, node: &Node) -> Result<Result<(), u64>, PlanError> {
        let bodies = node.attrs.iter().any(|a| !a.value.graphs().is_empty());
        let any = bodies || ops::find(node.domain(), &node.op).is_none_or(|op| op.laws().any);
        let model = self.start.model;
        let asked = match any {
            true => return Ok(Err(0)),
            false => infer_node(model, node, &mut self.facts)?,
        };
        let there = |v: &ValueId| self.facts.konst(*v).is_some() || numbers(self.facts.of(*v));
        let wanted = node.outputs.iter().flatten().filter(|v| self.is_read(**v));
        let all: Vec<_> = wanted.collect();
        let folded = all.iter().all(|v| self.facts.konst(**v).is_some());
        let planned = node.inputs.iter().flatten().all(|v| numbers(self.facts.of(*v)));
        Ok(match folded || (planned && all.into_iter().all(there)) {
            true => Ok(()),
            false => Err(asked),
        })
    }

    fn node(&mut self, node: &Node) -> Result<(), PlanError> {
        self.turn.1 += 1;
        let mut wanted: Vec<_> = node
            .outputs
            .iter()
            .map(|v| v.filter(|v| self.is_read(*v)))
            .collect();
        if wanted.iter().flatten().all(|v| self.facts.konst(*v).is_some()) {
            self.release(node);
            return Ok(());
        }
        let opset = opset_of(&self.start.model.opsets, node);
        let error = |what: &str| self.facts.error(self.graph(), node, opset, OpError::new(what));
        let op = ops::find(node.domain(), &node.op).ok_or_else(|| error("the operator is unknown"))?;
        // What else a view reads (a shape, a flag) must be known now, for nobody looks at it when the plan runs.
        let known = node
            .inputs
            .iter()
            .skip(1)
            .flatten()
            .all(|v| self.facts.konst(*v).is_some());
        let same = |x: ValueId, y: ValueId| op.laws().still && self.facts.of(x).ty == self.facts.of(y).ty;
        let pair = node
            .inputs
            .first()
            .copied()
            .flatten()
            .zip(wanted.first().copied().flatten());
        let view = (op.laws().view && known) || pair.is_some_and(|(x, y)| same(x, y));
        if let (true, Some(&Some(x)), [Some(y)]) = (view, node.inputs.first(), &wanted[..]) {
            return self.alias(x, *y, node, opset);
        }
        if let (true, Some((x, y))) = (turns(node), pair)
            && self.facts.of(x).ty.dtype().is_some_and(|d| d.bits() >= 8)
            && let Some(store) = self.turn(x, y)
        {
            self.shared(store, y);
            self.release(node);
            return Ok(());
        }
        // Kernels write their first output even where only others are read, and all of them where they go element by element.
        let written = if op.laws().elementwise { wanted.len() } else { 1 };
        for (wanted, v) in wanted.iter_mut().zip(&node.outputs).take(written) {
            *wanted = wanted.or(v.filter(|v| numbers(self.facts.of(*v))));
        }
        let (chosen, facts) = self.choose(op, node, opset)?;
        if let Some(pick) = chosen.as_ref().filter(|_| self.start.dry) {
            self.chosen.insert(self.turn, Choice::of(&node.op, pick));
        }
        match chosen {
            Some(chosen) => self.step(op, node, opset, chosen, &facts, &wanted),
            None if self.expand(op, node, opset, &facts)? => Ok(()),
            None => {
                let chosen = Pick::rows(interpreted(op, node, opset, &facts), node);
                self.step(op, node, opset, chosen, &facts, &wanted)
            }
        }
    }

    /// Plans the nodes of the body of `node` in its place, if it has one that plans can hold.
    fn expand(&mut self, op: &dyn Op, node: &Node, opset: i64, facts: &[Fact]) -> Result<bool, PlanError> {
        let Some(nodes) = self.body(op, node, opset)? else {
            return Ok(false);
        };
        // The outputs may be known better from the body, but must not be other ones.
        for inner in &nodes {
            if !matches!(self.fits_inside(inner), Ok(true)) {
                self.restore(node, facts);
                return Ok(false);
            }
        }
        self.agrees(node, opset, facts)?;
        self.restore(node, facts);
        for v in nodes.iter().flat_map(|n| n.inputs.iter().flatten()) {
            let seen = self.after(*v);
            self.pending.insert(*v, seen + 1);
        }
        for inner in &nodes {
            self.node(inner)?;
        }
        self.release(node);
        Ok(true)
    }

    /// Refuses a body that makes other outputs than `facts`, which what follows is planned for.
    fn agrees(&self, node: &Node, opset: i64, facts: &[Fact]) -> Result<(), PlanError> {
        for (v, fact) in node.outputs.iter().zip(facts) {
            let Some(made) = v.map(|v| &self.facts.of(v).ty) else {
                continue;
            };
            let known = made.dims().zip(fact.ty.dims()).is_some_and(|(a, b)| a != b);
            let typed = made.dtype().zip(fact.ty.dtype()).is_some_and(|(a, b)| a != b);
            if known || typed {
                let what = OpError::new(format!("its body makes {made}; expected {}", fact.ty));
                return Err(self.facts.error(self.graph(), node, opset, what).into());
            }
        }
        Ok(())
    }

    /// Whether a plan can hold a node of a body.
    fn fits_inside(&mut self, inner: &Node) -> Result<bool, PlanError> {
        infer_node(self.start.model, inner, &mut self.facts)?;
        let known = |v: &ValueId| self.facts.konst(*v).is_some() || numbers(self.facts.of(*v));
        Ok(inner.inputs.iter().chain(&inner.outputs).flatten().all(known))
    }

    fn restore(&mut self, node: &Node, facts: &[Fact]) {
        for (v, fact) in node.outputs.iter().zip(facts) {
            if let Some(v) = v {
                self.facts.set(*v, fact.clone(), None);
            }
        }
    }

    /// The nodes of the body of `node`, on values of the graph and new ones.
    fn body(&mut self, op: &dyn Op, node: &Node, opset: i64) -> Result<Option<Vec<Node>>, PlanError> {
        let mut small = Graph::default();
        for v in &node.inputs {
            let at = small.value(format!("x{}", small.values.len()));
            if let Some(v) = v {
                small[at].ty = Some(self.facts.of(*v).ty.clone());
                small[at].konst = self.facts.konst(*v).map(|t| Constant::new(Tensor::clone(t)));
            }
        }
        let builder = Builder::inside(&small, ops::body_opset(node.domain(), opset), &node.attrs);
        let holes: Vec<_> = (0u32..)
            .map(ValueId)
            .take(node.inputs.len())
            .map(|v| builder.at(v))
            .collect();
        let n = self.facts.view(node, opset);
        let Some(outputs) = op.body(&n, &holes) else {
            return Ok(None);
        };
        let error = |what| self.facts.error(self.graph(), node, opset, what);
        op.infer(&n).map_err(error)?;
        if !n.unread().is_empty() {
            return Err(error(OpError::unread(&n.unread())).into());
        }
        let outputs: Vec<_> = outputs.iter().map(|e| e.id).collect();
        let patch = builder.finish();
        let base = self.facts.end();
        let given = small.values.len() as u32;
        let mut place: HashMap<ValueId, ValueId> = HashMap::new();
        let mut extra = vec![];
        for (y, v) in outputs.iter().zip(&node.outputs) {
            let Some(v) = v else { continue };
            let made = patch.producer(*y).is_some() && !place.contains_key(y);
            match made {
                true => drop(place.insert(*y, *v)),
                false => extra.push((*y, *v)),
            }
        }
        for (i, value) in (0u32..).zip(&patch.values) {
            let id = ValueId(base + i);
            let konst = value.konst.as_ref().map(|c| c.tensor.clone());
            let fact = konst.as_ref().map_or_else(Fact::unknown, |t| Fact::of(t));
            self.facts.set(id, fact, konst);
        }
        let at = |v: ValueId| match (v.0.checked_sub(given), place.get(&v)) {
            (_, Some(&named)) => Some(named),
            (Some(new), None) => Some(ValueId(base + new)),
            (None, None) => node.inputs[v.0 as usize],
        };
        let moved = |n: &Node| Node {
            name: Some(node.label().into()),
            inputs: n.inputs.iter().map(|v| v.and_then(at)).collect(),
            outputs: n.outputs.iter().map(|v| v.and_then(at)).collect(),
            ..n.clone()
        };
        let mut nodes: Vec<_> = patch.nodes.iter().map(moved).collect();
        let copies = extra
            .into_iter()
            .map(|(y, v)| Node::new("Identity", vec![at(y)], vec![Some(v)]));
        nodes.extend(copies);
        // Bodies need not use all that they write.
        let mut read: HashSet<ValueId> = node.outputs.iter().flatten().copied().collect();
        nodes.reverse();
        nodes.retain(|n| {
            let used = n.outputs.iter().flatten().any(|v| read.contains(v));
            if used {
                read.extend(n.inputs.iter().flatten());
            }
            used
        });
        nodes.reverse();
        Ok(Some(nodes))
    }

    /// How many steps still read `v`.
    fn after(&self, v: ValueId) -> usize {
        let counted = self.pending.get(&v).copied();
        counted.unwrap_or_else(|| self.start.uses.after(v, self.start.from))
    }

    fn is_read(&self, v: ValueId) -> bool {
        self.after(v) > 0 || self.start.uses.is_output(v)
    }

    /// The best kernel for a node, and the types of its outputs.
    fn choose(
        &self,
        op: &'static dyn Op,
        node: &Node,
        opset: i64,
    ) -> Result<(Option<Pick>, Vec<Fact>), PlanError> {
        let error = |what: OpError| self.facts.error(self.graph(), node, opset, what);
        let facts: Vec<_> = node
            .outputs
            .iter()
            .map(|v| v.map_or_else(Fact::unknown, |v| self.facts.of(v).clone()))
            .collect();
        let n = self.facts.view(node, opset).lowered(&facts, self.start.packs);
        for (v, fact) in node.outputs.iter().zip(&facts) {
            let first = std::ptr::eq(fact, &facts[0]);
            if !v.is_some_and(|v| self.is_read(v) || (first && numbers(fact))) {
                continue;
            }
            let limit = self.start.memory.unwrap_or(usize::MAX);
            let extent = fact.ty.dims().and_then(|d| crate::ir::extent(&d));
            let what = match size(fact).and_then(|bytes| Some(bytes.max(extent?))) {
                Some(bytes) if bytes <= limit => continue,
                Some(bytes) => format!(
                    "an output of type {} takes {bytes} bytes; there are {limit}",
                    fact.ty
                ),
                None => format!("an output of type {} takes more than memory can have", fact.ty),
            };
            return Err(error(OpError::new(what)).into());
        }
        op.infer(&n).map_err(error)?;
        let offers = op.cpu(&n).into_iter().map(|c| Pick::new(c, node, &n));
        let all: Vec<_> = offers.chain(self.in_blocks(op, node, &n, &facts)).collect();
        let best = self.cheapest(node, all);
        // A body or a reference may read attributes that nothing else reads.
        match &n.unread()[..] {
            names if best.is_some() && !names.is_empty() => Err(error(OpError::unread(names)).into()),
            _ => Ok((best, facts)),
        }
    }

    /// The cheapest of `all`, with what was offered.
    fn cheapest(&self, node: &Node, all: Vec<Pick>) -> Option<Pick> {
        let price = |p: &Pick| self.price(&p.candidate) + self.moves(node, p, 1);
        let full = all.iter().filter(|p| p.candidate.sparse.is_none()).map(price);
        let full = full.fold(f64::INFINITY, f64::min);
        let offer = |p: &Pick| Offer {
            kernel: p.candidate.name.clone(),
            ms: self.ms(&p.candidate),
            moves_ms: self.moves(node, p, self.start.threads),
            sparse: p.candidate.sparse.as_ref().map(|s| self.share(node, p, s, full)),
        };
        let offers = all.iter().map(offer).collect();
        let key = |p: &Pick| (self.strays(&node.op, p), price(p));
        let all = all.into_iter().map(|p| (key(&p), p));
        let best = all.min_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let (_, best) = best?;
        Some(Pick { offers, ..best })
    }

    /// The zeros of a sparse kernel, and at how many it is as cheap as another that costs `full`.
    fn share(&self, node: &Node, p: &Pick, s: &Sparsity, full: f64) -> Share {
        let room = full - self.moves(node, p, 1);
        let ms = |cost: &Cost| self.start.rates.sparse_price(&p.candidate.name, cost);
        let even = s.offers().find(|(_, cost)| ms(cost) <= room);
        Share {
            zeros: s.zeros.share(),
            pattern: s.zeros.pattern(),
            break_even: even.map(|(share, _)| share),
        }
    }

    /// What choices compare.
    pub(super) fn price(&self, c: &Candidate) -> f64 {
        self.start.rates.price(c)
    }

    /// Milliseconds that a kernel is predicted to take.
    fn ms(&self, c: &Candidate) -> f64 {
        self.start.rates.ms(&c.name, &c.cost, self.start.threads)
    }

    /// Lets `y` be the bytes of `x` under another shape.
    fn alias(&mut self, x: ValueId, y: ValueId, node: &Node, opset: i64) -> Result<(), PlanError> {
        let op = ops::find(node.domain(), &node.op);
        let n = self.facts.view(node, opset);
        let read = op.map_or(Ok(vec![]), |op| op.infer(&n));
        let error = |what| self.facts.error(self.graph(), node, opset, what);
        read.map_err(error)?;
        if !n.unread().is_empty() {
            return Err(error(OpError::unread(&n.unread())).into());
        }
        let (from, to) = (size(self.facts.of(x)), size(self.facts.of(y)));
        if from != to {
            let what = format!(
                "the output would be of type {}, which has other elements",
                self.facts.of(y).ty
            );
            return Err(error(OpError::new(what)).into());
        }
        let store = self.place(x, &Form::Rows);
        self.stores.insert((y, Form::Rows), store);
        self.shared(store, y);
        // The step count of `x` is now that of whoever reads `y`.
        self.release(node);
        Ok(())
    }

    fn name(&self, v: ValueId) -> String {
        let value = self.graph().values.get(v.0 as usize);
        value.map_or("_".into(), |v| v.name.to_string())
    }

    /// Where `v` is, as the caller gave it or as a constant.
    pub(super) fn given(&mut self, v: ValueId) -> Store {
        if self.facts.konst(v).is_none() && self.start.known.contains_key(&v) {
            self.inputs.push(v);
            return Store::Input(self.inputs.len() - 1);
        }
        let tensor = self.facts.konst(v).map(|t| Tensor::clone(t));
        self.constant(tensor.unwrap_or_else(|| Tensor::of::<u8>(&[0], vec![])))
    }

    /// Notes that `y` is in the memory of another value.
    fn shared(&mut self, store: Store, y: ValueId) {
        let now = self.steps.len();
        if let Store::Buffer(b) = store {
            self.rooms[b].buffer.to = self.rooms[b].buffer.to.max(now);
            self.rooms[b].values.push(y);
        }
    }

    pub(super) fn constant(&mut self, t: Tensor) -> Store {
        self.constants.push(t);
        Store::Constant(self.constants.len() - 1)
    }

    fn release(&mut self, node: &Node) {
        for v in node.inputs.iter().flatten() {
            let left = self.after(*v).saturating_sub(1);
            self.pending.insert(*v, left);
        }
    }

    fn step(
        &mut self,
        op: &dyn Op,
        node: &Node,
        opset: i64,
        chosen: Pick,
        facts: &[Fact],
        wanted: &[Option<ValueId>],
    ) -> Result<(), PlanError> {
        let inputs = node.inputs.iter().zip(&chosen.inputs);
        let seats: Vec<_> = inputs.map(|(v, form)| v.map(|v| self.seat(v, form))).collect();
        let now = self.steps.len();
        for seat in seats.iter().flatten() {
            if let Store::Buffer(b) = seat.store {
                self.rooms[b].buffer.to = now;
            }
        }
        self.release(node);
        let mut outputs = vec![];
        let laws = op.laws();
        // What reads an input elsewhere than where it writes must not find it overwritten as another input.
        let alone = |i: usize| {
            let store = seats.get(i)?.as_ref()?.store;
            let mut others = seats.iter().enumerate().filter(|(other, _)| *other != i);
            let alone = others.all(|(_, s)| s.as_ref().is_none_or(|s| s.store != store));
            (laws.elementwise || alone).then_some(i)
        };
        let able = laws
            .in_place
            .iter()
            .filter(|_| chosen.candidate.name != REFERENCE);
        let over: Vec<usize> = able.filter_map(|&i| alone(i)).collect();
        for (slot, v) in wanted.iter().enumerate() {
            let form = chosen.output(slot, &facts[slot]);
            let Some(v) = *v else {
                outputs.push(None);
                continue;
            };
            let (dtype, dims) = self.seen(&facts[slot], &form);
            let bytes = dtype.bytes(dims.iter().product()).unwrap_or(0);
            // Two outputs never take the place of one input.
            let first = |i: usize| {
                outputs
                    .iter()
                    .flatten()
                    .all(|o: &Seat| seats[i].as_ref().is_some_and(|s| s.store != o.store))
            };
            let mut taken = over
                .iter()
                .filter(|&&i| (slot == 0 || laws.elementwise) && first(i));
            let here = Seat {
                store: Store::Buffer(0),
                dtype,
                dims,
            };
            let taken = taken.find_map(|&i| {
                let seat = seats[i].as_ref().filter(|s| s.is_like(&here))?;
                self.free(seat, bytes)
            });
            let room = taken.unwrap_or_else(|| self.room(bytes));
            self.rooms[room].buffer.to = now;
            self.rooms[room].values.push(v);
            let store = Store::Buffer(room);
            self.stores.insert((v, form), store);
            outputs.push(Some(Seat { store, ..here }));
        }
        let names = node.inputs.iter().map(|v| v.map_or("_".into(), |v| self.name(v)));
        let step = Step {
            node: node.label().to_owned(),
            op: full_name(node),
            ms: self.ms(&chosen.candidate),
            offers: chosen.offers,
            kernel: chosen.candidate.name,
            cost: chosen.candidate.cost,
            opset,
            run: Box::new(|_: &mut Io| {}),
            inputs: vec![],
            outputs: vec![],
            names: names.collect(),
        };
        self.steps.push(Draft {
            step,
            build: chosen.candidate.build,
            over,
            all_over: laws.elementwise,
            inputs: seats,
            outputs,
        });
        Ok(())
    }

    /// Adds a step that is no node's: the copy of `v` in another layout.
    pub(super) fn reorder(&mut self, v: ValueId, from: Seat, dims: Vec<usize>, chosen: Candidate) -> Store {
        let now = self.steps.len();
        if let Store::Buffer(b) = from.store {
            self.rooms[b].buffer.to = now;
        }
        let dtype = from.dtype;
        let room = self.room(dtype.bytes(dims.iter().product()).unwrap_or(0));
        self.rooms[room].values.push(v);
        let store = Store::Buffer(room);
        let step = Step {
            node: self.name(v),
            op: "Reorder".into(),
            ms: self.ms(&chosen),
            offers: vec![],
            kernel: chosen.name,
            cost: chosen.cost,
            opset: 0,
            run: Box::new(|_: &mut Io| {}),
            inputs: vec![],
            outputs: vec![],
            names: vec![self.name(v)],
        };
        self.steps.push(Draft {
            step,
            build: chosen.build,
            over: vec![],
            all_over: false,
            inputs: vec![Some(from)],
            outputs: vec![Some(Seat { store, dtype, dims })],
        });
        store
    }

    /// The buffer of a value, if nobody needs it any more and it has `bytes` bytes.
    fn free(&self, seat: &Seat, bytes: usize) -> Option<usize> {
        let Store::Buffer(b) = seat.store else {
            return None;
        };
        let done = |v: &ValueId| self.after(*v) == 0 && !self.start.uses.is_output(*v);
        (self.rooms[b].buffer.bytes == bytes && self.rooms[b].values.iter().all(done)).then_some(b)
    }

    pub(super) fn room(&mut self, bytes: usize) -> usize {
        let now = self.steps.len();
        self.rooms.push(Room {
            buffer: Buffer {
                bytes,
                from: now,
                to: now,
            },
            output: None,
            values: vec![],
        });
        self.rooms.len() - 1
    }
}

/// Whether a value is a tensor of numbers of a known shape.
fn numbers(fact: &Fact) -> bool {
    matches!(fact.ty, Type::Tensor { .. })
        && fact.ty.dims().is_some()
        && fact.ty.dtype().is_some_and(|d| d.bits() > 0)
}

/// The bytes of a tensor; `None` where they are not known, or are more than memory can have.
pub(super) fn size(fact: &Fact) -> Option<usize> {
    let bytes = fact.ty.dtype()?.bytes(crate::ir::count(&fact.ty.dims()?)?)?;
    isize::try_from(bytes).is_ok().then_some(bytes)
}

/// Runs the reference where no kernel fits.
fn interpreted(op: &'static dyn Op, node: &Node, opset: i64, facts: &[Fact]) -> Candidate {
    let (node, facts) = (node.clone(), facts.to_vec());
    let bytes = facts.iter().filter_map(size).sum();
    Candidate::new(REFERENCE, Cost::bytes(bytes), move |io: &mut Io| {
        let tensor = |v: &View| {
            let bytes = crate::ir::Bytes::new(v.to_vec());
            Tensor::new(v.dtype(), v.dims().to_vec(), crate::ir::Data::Bytes(bytes))
        };
        let x: Vec<_> = io
            .inputs
            .iter()
            .map(|v| v.as_ref().and_then(|v| tensor(v).ok()))
            .collect();
        let x: Vec<_> = x.iter().map(Option::as_ref).collect();
        let seen: Vec<_> = x.iter().map(|t| t.map(Fact::of)).collect();
        let n = NodeRef::new(&node, opset, reference::given(&node.inputs, &seen, &x));
        op.infer(&n)?;
        let y = reference::eval(op, &n, &x)?;
        if !n.unread().is_empty() {
            return Err(OpError::unread(&n.unread()));
        }
        for (out, y) in io.outputs.iter_mut().zip(&y) {
            let Some(out) = out else { continue };
            if (out.dtype(), out.dims()) != (y.dtype(), y.dims()) {
                return Err(OpError::new(format!(
                    "made {}{:?}; expected {}{:?}",
                    y.dtype(),
                    y.dims(),
                    out.dtype(),
                    out.dims()
                )));
            }
            out.bytes().copy_from_slice(y.bytes());
        }
        Ok(())
    })
}
