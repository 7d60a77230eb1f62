//! From a graph with known input shapes to a plan.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;

use super::memory::{self, Buffer};
use super::{Plan, Step};
use crate::cpu::{Candidate, Cost, Io, Packs, Place, Slot, View};
use crate::ir::{DType, Graph, Model, Node, NodeId, Tensor, Type, ValueId};
use crate::ops::{self, Fact, NodeRef, Op, OpError};
use crate::opt::infer::{Facts, NodeError, full_name, infer, opset_of};
use crate::reference;

/// Rough rates of one core, by which candidates are compared: GFLOP/s and GB/s.
const RATES: (f64, f64) = (170.0, 16.0);

/// Why a graph cannot be planned.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PlanError {
    /// A node that does not fit its operator, or that no kernel runs.
    Node(NodeError),
    /// An output of the graph whose type or shape does not follow from the inputs'.
    Output(String),
    /// A run would work in more memory than the machine has.
    Memory {
        /// Bytes that it would work in.
        needed: usize,
        /// Bytes that there are.
        available: usize,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            PlanError::Node(e) => e.fmt(f),
            PlanError::Output(name) => {
                write!(
                    f,
                    "output {name:?}: its type and shape do not follow from those of the inputs"
                )
            }
            PlanError::Memory { needed, available } => {
                write!(
                    f,
                    "a run with these shapes works in {needed} bytes; the machine has {available}"
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

/// What a value is stored in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Store {
    Input(usize),
    Constant(usize),
    Buffer(usize),
}

/// A buffer while steps are being collected.
struct Room {
    buffer: Buffer,
    /// The graph output it is handed out as.
    output: Option<usize>,
    /// The values that have used it.
    values: Vec<ValueId>,
}

struct Lowering<'a> {
    model: &'a Model,
    facts: Facts,
    packs: &'a Packs,
    stores: HashMap<ValueId, Store>,
    rooms: Vec<Room>,
    constants: Vec<Tensor>,
    /// Number of steps that still read each value.
    pending: HashMap<ValueId, usize>,
    steps: Vec<(Step, Vec<Option<ValueId>>)>,
    /// No kernel is built and no constant kept, so that nothing is copied.
    dry: bool,
}

/// Plans `model`, whose inputs have the types `inputs`. Weights are packed into `packs`.
///
/// # Errors
///
/// If a node does not fit its operator, has an attribute that nobody understands, or a shape depends on the inputs' values.
pub fn lower(
    model: &Model,
    inputs: &HashMap<ValueId, Type>,
    packs: &Packs,
    threads: usize,
) -> Result<Plan, PlanError> {
    lower_as(model, inputs, packs, threads, false)
}

/// Bytes that a run of `model` would work in, as [`Plan::peak_bytes`] has them but without the scratch memory of kernels.
/// Weights are neither read nor packed.
///
/// # Errors
///
/// As [`lower`].
pub fn peak_bytes(model: &Model, inputs: &HashMap<ValueId, Type>) -> Result<usize, PlanError> {
    Ok(lower_as(model, inputs, &Packs::default(), 1, true)?.peak_bytes())
}

fn lower_as(
    model: &Model,
    inputs: &HashMap<ValueId, Type>,
    packs: &Packs,
    threads: usize,
    dry: bool,
) -> Result<Plan, PlanError> {
    let facts = infer(model, inputs)?;
    let mut low = Lowering {
        dry,
        model,
        facts,
        packs,
        stores: HashMap::new(),
        rooms: vec![],
        constants: vec![],
        pending: HashMap::new(),
        steps: vec![],
    };
    for (i, p) in model.graph.inputs.iter().enumerate() {
        low.stores.insert(p.value, Store::Input(i));
    }
    for (_, node) in model.graph.iter() {
        for v in node.inputs.iter().flatten() {
            *low.pending.entry(*v).or_default() += 1;
        }
    }
    for (id, _) in model.graph.iter() {
        low.node(id)?;
    }
    low.finish(threads)
}

impl Lowering<'_> {
    fn graph(&self) -> &Graph {
        &self.model.graph
    }

    fn node(&mut self, id: NodeId) -> Result<(), PlanError> {
        let model = self.model;
        let node = &model.graph[id];
        let wanted: Vec<_> = node
            .outputs
            .iter()
            .map(|v| v.filter(|v| self.is_read(*v)))
            .collect();
        if wanted.iter().flatten().all(|v| self.facts.konst(*v).is_some()) {
            return Ok(());
        }
        let opset = opset_of(&model.opsets, node);
        let error = |what: &str| self.facts.error(&model.graph, node, opset, OpError::new(what));
        let op = ops::find(node.domain(), &node.op).ok_or_else(|| error("the operator is unknown"))?;
        // What else a view reads (a shape, a flag) must be known now, for nobody looks at it when the plan runs.
        let known = node
            .inputs
            .iter()
            .skip(1)
            .flatten()
            .all(|v| self.facts.konst(*v).is_some());
        let view = op.laws().view && known;
        if let (true, Some(&Some(x)), [Some(y)]) = (view, node.inputs.first(), &wanted[..]) {
            return self.alias(x, *y, node, opset);
        }
        let (chosen, facts) = self.choose(op, node, opset)?;
        self.step(op, node, opset, chosen, &facts, &wanted)
    }

    fn is_read(&self, v: ValueId) -> bool {
        self.pending.contains_key(&v) || self.graph().outputs.iter().any(|p| p.value == v)
    }

    /// The best kernel for a node, and the types of its outputs.
    fn choose(
        &self,
        op: &'static dyn Op,
        node: &Node,
        opset: i64,
    ) -> Result<(Candidate, Vec<Fact>), PlanError> {
        let error = |what: OpError| self.facts.error(self.graph(), node, opset, what);
        let facts: Vec<_> = node
            .outputs
            .iter()
            .map(|v| v.map_or_else(Fact::unknown, |v| self.facts.of(v).clone()))
            .collect();
        let n = self.facts.view(node, opset).lowered(&facts, self.packs);
        for (v, fact) in node.outputs.iter().zip(&facts) {
            let Some(v) = v else { continue };
            let fixed = fact.ty.dtype().is_some_and(|d| d.bits() > 0);
            if size(fact).is_none() || !fixed {
                let what = format!(
                    "the type of its output {:?} is {}; expected numbers of a shape that follows from the shapes of the inputs",
                    self.graph()[*v].name,
                    fact.ty
                );
                return Err(error(OpError::new(what)).into());
            }
        }
        op.infer(&n).map_err(error)?;
        let ms = |c: &Candidate| c.cost.ms(RATES.0, RATES.1);
        let best = op.cpu(&n).into_iter().min_by(|a, b| ms(a).total_cmp(&ms(b)));
        let chosen = match best {
            Some(c) => c,
            None => interpreted(op, node, opset, &facts),
        };
        match &n.unread()[..] {
            [] => Ok((chosen, facts)),
            names => Err(error(OpError::new(format!("attributes {names:?} are not understood"))).into()),
        }
    }

    /// Lets `y` be the bytes of `x` under another shape.
    fn alias(&mut self, x: ValueId, y: ValueId, node: &Node, opset: i64) -> Result<(), PlanError> {
        let op = ops::find(node.domain(), &node.op);
        let n = self.facts.view(node, opset);
        let read = op.map_or(Ok(vec![]), |op| op.infer(&n));
        let error = |what| self.facts.error(self.graph(), node, opset, what);
        read.map_err(error)?;
        if !n.unread().is_empty() {
            return Err(error(OpError::new(format!(
                "attributes {:?} are not understood",
                n.unread()
            )))
            .into());
        }
        let store = self.store(x);
        self.stores.insert(y, store);
        let now = self.steps.len();
        if let Store::Buffer(b) = store {
            self.rooms[b].buffer.to = self.rooms[b].buffer.to.max(now);
            self.rooms[b].values.push(y);
        }
        // The step count of `x` is now that of whoever reads `y`.
        self.release(node);
        Ok(())
    }

    fn store(&mut self, v: ValueId) -> Store {
        if let Some(&s) = self.stores.get(&v) {
            return s;
        }
        let tensor = self.facts.konst(v).map(|t| Tensor::clone(t));
        self.constants
            .push(tensor.unwrap_or_else(|| Tensor::of::<u8>(&[0], vec![])));
        let s = Store::Constant(self.constants.len() - 1);
        self.stores.insert(v, s);
        s
    }

    fn release(&mut self, node: &Node) {
        for v in node.inputs.iter().flatten() {
            if let Some(n) = self.pending.get_mut(v) {
                *n -= 1;
            }
        }
    }

    fn step(
        &mut self,
        op: &dyn Op,
        node: &Node,
        opset: i64,
        chosen: Candidate,
        facts: &[Fact],
        wanted: &[Option<ValueId>],
    ) -> Result<(), PlanError> {
        let now = self.steps.len();
        for v in node.inputs.iter().flatten() {
            if let Store::Buffer(b) = self.store(*v) {
                self.rooms[b].buffer.to = now;
            }
        }
        self.release(node);
        for (slot, v) in wanted.iter().enumerate() {
            let Some(v) = *v else { continue };
            let bytes = size(&facts[slot]).unwrap_or(0);
            let taken = op
                .laws()
                .in_place
                .iter()
                .filter(|_| slot == 0)
                .find_map(|&i| self.free(node, i, bytes));
            let room = taken.unwrap_or_else(|| self.room(bytes));
            self.rooms[room].buffer.to = now;
            self.rooms[room].values.push(v);
            self.stores.insert(v, Store::Buffer(room));
        }
        let names = node
            .inputs
            .iter()
            .map(|v| v.map_or("_".into(), |v| self.graph()[v].name.to_string()));
        let step = Step {
            node: node.label().to_owned(),
            op: full_name(node),
            kernel: chosen.name,
            cost: chosen.cost,
            opset,
            run: match self.dry {
                true => Box::new(|_: &mut Io| {}),
                false => (chosen.build)(),
            },
            inputs: vec![],
            outputs: vec![],
            names: names.collect(),
            values: wanted.to_vec(),
        };
        self.steps.push((step, node.inputs.clone()));
        Ok(())
    }

    /// The buffer of input `i`, if nobody needs it any more and it has `bytes` bytes.
    fn free(&self, node: &Node, i: usize, bytes: usize) -> Option<usize> {
        let v = node.inputs.get(i).copied().flatten()?;
        let Some(&Store::Buffer(b)) = self.stores.get(&v) else {
            return None;
        };
        let done = |v: &ValueId| {
            self.pending.get(v).is_none_or(|&n| n == 0) && self.graph().outputs.iter().all(|p| p.value != *v)
        };
        (self.rooms[b].buffer.bytes == bytes && self.rooms[b].values.iter().all(done)).then_some(b)
    }

    fn room(&mut self, bytes: usize) -> usize {
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

    fn finish(mut self, threads: usize) -> Result<Plan, PlanError> {
        let end = self.steps.len();
        let outputs: Vec<ValueId> = self.graph().outputs.iter().map(|p| p.value).collect();
        for (i, &v) in outputs.iter().enumerate() {
            let ty = &self.facts.of(v).ty;
            if ty.dims().is_none() || ty.dtype().is_none_or(|d| d.bits() == 0) {
                return Err(PlanError::Output(self.graph()[v].name.to_string()));
            }
            if let Store::Buffer(b) = self.store(v) {
                self.rooms[b].buffer.to = end;
                self.rooms[b].output.get_or_insert(i);
            }
        }
        let inner: Vec<usize> = (0..self.rooms.len())
            .filter(|&r| self.rooms[r].output.is_none())
            .collect();
        let buffers: Vec<_> = inner.iter().map(|&r| self.rooms[r].buffer.clone()).collect();
        let (offsets, arena) = memory::place(&buffers);
        let mut places: Vec<_> = self
            .rooms
            .iter()
            .map(|r| r.output.map_or(Place::Arena(0), Place::Output))
            .collect();
        for (r, offset) in inner.into_iter().zip(offsets) {
            places[r] = Place::Arena(offset);
        }
        let mut steps = std::mem::take(&mut self.steps);
        for (step, inputs) in &mut steps {
            step.inputs = inputs.iter().map(|v| v.map(|v| self.slot(v, &places))).collect();
            step.outputs = step
                .values
                .iter()
                .map(|v| v.map(|v| self.slot(v, &places)))
                .collect();
        }
        let outputs: Vec<Slot> = outputs.into_iter().map(|v| self.slot(v, &places)).collect();
        let steps: Vec<Step> = steps.into_iter().map(|(s, _)| s).collect();
        let scratch = steps.iter().map(|s| s.run.scratch(threads)).max().unwrap_or(0);
        let sizes = [arena, scratch]
            .into_iter()
            .chain(outputs.iter().map(Slot::bytes));
        let needed = sizes.fold(0, usize::saturating_add);
        match memory::available() {
            Some(available) if needed > available && !self.dry => {
                return Err(PlanError::Memory { needed, available });
            }
            _ => {}
        }
        Ok(Plan {
            scratch,
            constants: match self.dry {
                true => vec![],
                false => self.constants_of(&steps, &outputs),
            },
            steps,
            outputs,
            arena,
            frames: Mutex::default(),
        })
    }

    fn slot(&mut self, v: ValueId, places: &[Place]) -> Slot {
        let place = match self.store(v) {
            Store::Input(i) => Place::Input(i),
            Store::Constant(i) => Place::Constant(i),
            Store::Buffer(b) => places[b],
        };
        let ty = &self.facts.of(v).ty;
        Slot {
            place,
            dtype: ty.dtype().unwrap_or(DType::F32),
            dims: ty.dims().unwrap_or_default(),
        }
    }

    /// The constants, those aligned that a kernel reads and the others left out.
    fn constants_of(&mut self, steps: &[Step], outputs: &[Slot]) -> Vec<Tensor> {
        let mut read = vec![false; self.constants.len()];
        let by_steps = steps.iter().flat_map(|s| {
            s.inputs
                .iter()
                .enumerate()
                .filter(|(i, _)| s.run.reads(*i))
                .filter_map(|(_, slot)| slot.as_ref())
        });
        for slot in by_steps.chain(outputs) {
            if let Place::Constant(i) = slot.place {
                read[i] = true;
            }
        }
        let constants = std::mem::take(&mut self.constants);
        let kept = |(t, read): (Tensor, bool)| {
            if read {
                t.aligned()
            } else {
                Tensor::of::<u8>(&[0], vec![])
            }
        };
        constants.into_iter().zip(read).map(kept).collect()
    }
}

/// The bytes of a tensor; `None` where they are not known, or are more than memory can have.
fn size(fact: &Fact) -> Option<usize> {
    let bytes = fact.ty.dtype()?.bytes(crate::ir::count(&fact.ty.dims()?)?)?;
    isize::try_from(bytes).is_ok().then_some(bytes)
}

/// Runs the reference where no kernel fits.
fn interpreted(op: &'static dyn Op, node: &Node, opset: i64, facts: &[Fact]) -> Candidate {
    let (node, facts) = (node.clone(), facts.to_vec());
    let bytes = facts.iter().filter_map(size).sum();
    Candidate::new("reference", Cost::bytes(bytes), move |io: &mut Io| {
        let tensor = |v: &View| {
            let bytes = crate::ir::Bytes::new(v.bytes().to_vec());
            Tensor::new(v.dtype(), v.dims().to_vec(), crate::ir::Data::Bytes(bytes))
        };
        let x: Vec<_> = io
            .inputs
            .iter()
            .map(|v| v.as_ref().and_then(|v| tensor(v).ok()))
            .collect();
        let x: Vec<_> = x.iter().map(Option::as_ref).collect();
        let seen: Vec<_> = x.iter().map(|t| t.map(Fact::of)).collect();
        let y = reference::eval(
            op,
            &NodeRef::new(&node, opset, reference::given(&node.inputs, &seen, &x)),
            &x,
        )?;
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
