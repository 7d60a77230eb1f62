//! Programs: graphs made ready to run, as plans with what no plan can hold in between.
//!
//! Most graphs are one plan. Where types or shapes only follow from values (a size that was computed, a list, a
//! subgraph), the plan ends, the node runs by itself on the values that are there, and another plan is made for what
//! follows. Plans are kept for the next run with values of the same types.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::direct::{self, direct};
use super::finish::heaviest;
use super::fork::Turn;
use super::lower::{Known, PlanError, Start, choices, lower};
use super::single::Single;
use super::{Plan, Rates, Uses};
use crate::cpu::{Cache, Frame, Outside, Packs, Place, Pool, View};
use crate::ir::{
    Buffer, DEPTH, DType, Data, Datum, Dim, Graph, Model, Name, Node, NodeId, Port, Tensor, Type, ValueId,
};
use crate::ops::OpError;
use crate::opt::infer::{NodeError, full_name, opset_of};
use crate::opt::{PassError, ready};

/// The time one step of a run took.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// The node.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// The kernel that ran.
    pub kernel: String,
    /// Milliseconds.
    pub ms: f64,
}

/// What a run works with.
pub struct Context<'a> {
    /// The threads.
    pub pool: &'a Pool,
    /// Bytes that it may work in.
    pub memory: usize,
    /// Bytes of the values that graphs around hold meanwhile.
    pub held: usize,
    /// Where the time of each step is noted.
    pub times: Option<&'a mut Vec<StepTime>>,
}

/// A value while a program runs.
pub enum Held<'f> {
    /// Elements of the caller, not copied.
    Array(DType, Vec<usize>, &'f [u8]),
    /// A value; not known when plans are made.
    Own(Datum),
    /// A tensor that plans are made with.
    Known(Arc<Tensor>),
}

impl Held<'_> {
    /// A value, aligned for kernels.
    pub fn own(d: Datum) -> Self {
        match d {
            Datum::Tensor(t) => Held::Own(Datum::Tensor(t.aligned())),
            other => Held::Own(other),
        }
    }

    fn ty(&self) -> Type {
        match self {
            Held::Array(d, dims, _) => Type::tensor(*d, dims.iter().copied()),
            Held::Own(d) => d.ty(),
            Held::Known(t) => Type::tensor(t.dtype(), t.dims().iter().copied()),
        }
    }

    fn known(&self) -> Known {
        match self {
            Held::Known(t) => (self.ty(), Some(t.clone())),
            _ => (self.ty(), None),
        }
    }

    fn datum(&self) -> Datum {
        match self {
            Held::Array(d, dims, bytes) => {
                let buffer = Buffer::new(*d, dims.iter().product()).map(|mut b| {
                    b.bytes_mut().copy_from_slice(bytes);
                    b
                });
                tensor_of(*d, dims, buffer.unwrap_or_default()).into()
            }
            Held::Own(d) => d.clone(),
            Held::Known(t) => Datum::Tensor(Tensor::clone(t)),
        }
    }

    fn view(&self) -> View<'_> {
        match self {
            Held::Array(d, dims, bytes) => View::new(*d, dims, bytes),
            Held::Own(Datum::Tensor(t)) => View::of(t),
            Held::Known(t) => View::of(t),
            Held::Own(_) => View::new(DType::U8, &[0], &[]),
        }
    }

    fn size(&self) -> usize {
        match self {
            Held::Array(..) => 0,
            Held::Own(d) => d.size(),
            Held::Known(t) => t.size(),
        }
    }

    fn tensor(&self) -> Option<&Tensor> {
        match self {
            Held::Own(d) => d.tensor(),
            Held::Known(t) => Some(t),
            Held::Array(..) => None,
        }
    }
}

fn tensor_of(dtype: DType, dims: &[usize], buffer: Buffer) -> Tensor {
    let data = Data::Bytes(buffer.share());
    Tensor::new(dtype, dims.to_vec(), data).unwrap_or_else(|_| Tensor::of::<u8>(&[0], vec![]))
}

/// A subgraph as a program, and the values around it that it reads, which follow its own inputs.
struct Body {
    attr: Name,
    program: Program,
    /// The number of inputs of its own.
    inputs: usize,
    captured: Vec<ValueId>,
}

type Key = (usize, Vec<u8>);

/// How programs are made.
#[derive(Clone, Default)]
pub struct Ways {
    /// Subgraphs are optimised.
    pub optimized: bool,
    /// Only `eval` runs, no kernel.
    pub reference: bool,
    /// The names of the free dimension whose size must not change a bit of what is computed for each of its elements.
    pub batch: Option<Vec<Name>>,
    /// Where packed weights are found and kept.
    pub cache: Option<Arc<Cache>>,
    /// What kernels take.
    pub rates: Arc<Rates>,
    /// Inputs whose memory may be taken for the outputs that follow them.
    pub state: Vec<(ValueId, ValueId)>,
}

impl Ways {
    /// The same for subgraphs.
    fn inside(&self) -> Ways {
        Ways {
            state: vec![],
            ..self.clone()
        }
    }
}

/// A graph made ready to run.
pub struct Program {
    model: Model,
    uses: Uses,
    bodies: HashMap<NodeId, Vec<Body>>,
    packs: Packs,
    plans: Mutex<HashMap<Key, Arc<Plan>>>,
    ways: Ways,
    /// The shapes that follow from the batch, where it must not matter.
    single: Option<Single>,
}

/// Plans that a program keeps; with more the cache starts anew.
const PLANS: usize = 256;

/// Values of more bytes are not known to plans, beside initialisers.
const KNOWN: usize = 4096;

type Env<'f> = HashMap<ValueId, Held<'f>>;

impl Program {
    /// Makes `model`, whose functions have been inlined, ready.
    ///
    /// # Errors
    ///
    /// If a subgraph is not well formed.
    pub fn new(model: Model, ways: &Ways) -> Result<Program, PassError> {
        Program::nested(model, ways, HashMap::new(), 0)
    }

    /// The same `depth` deep in another program; `around` are shapes of inputs that are known there.
    fn nested(
        model: Model,
        ways: &Ways,
        around: HashMap<ValueId, Vec<Dim>>,
        depth: usize,
    ) -> Result<Program, PassError> {
        if depth > DEPTH {
            let what = format!("are nested more than {DEPTH} deep");
            return Err(crate::ir::Flaw::new("subgraphs", what).into());
        }
        let mut model = model;
        name_outputs(&mut model.graph);
        let single = ways
            .batch
            .as_ref()
            .map(|batch| Single::new(&model, batch, around));
        let names = model.graph.names();
        let mut bodies = HashMap::new();
        for (id, node) in model.graph.iter() {
            let graphs = node
                .attrs
                .iter()
                .flat_map(|a| a.value.graphs().iter().map(|g| (a.name.clone(), g)));
            let made = graphs
                .map(|(attr, g)| body(&model, &names, attr, g, (ways, single.as_ref(), depth)))
                .collect::<Result<Vec<_>, PassError>>()?;
            if !made.is_empty() {
                bodies.insert(id, made);
            }
        }
        let captured = |id: NodeId| {
            bodies
                .get(&id)
                .into_iter()
                .flatten()
                .flat_map(|b| b.captured.clone())
                .collect()
        };
        Ok(Program {
            uses: Uses::new(&model.graph, captured),
            bodies,
            packs: Packs::new(ways.cache.clone()),
            plans: Mutex::default(),
            ways: ways.clone(),
            single,
            model,
        })
    }

    /// The model as it is run.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The plan that a run on these inputs begins with.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn plan(&self, inputs: &[Held], threads: usize, memory: usize) -> Result<Arc<Plan>, PlanError> {
        let env = self.model.graph.inputs.iter().zip(inputs);
        let known: HashMap<_, _> = env.map(|(p, held)| (p.value, held.known())).collect();
        self.segment(0, &known, threads, memory)
    }

    /// The plan that a run on inputs of these types begins with.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn plan_for(&self, types: &[Type], threads: usize, memory: usize) -> Result<Arc<Plan>, PlanError> {
        let env = self.model.graph.inputs.iter().zip(types);
        let known: HashMap<_, _> = env.map(|(p, ty)| (p.value, (ty.clone(), None))).collect();
        self.segment(0, &known, threads, memory)
    }

    /// The plan from node `from` on, as far as it goes.
    fn segment(
        &self,
        from: usize,
        known: &HashMap<ValueId, Known>,
        threads: usize,
        memory: usize,
    ) -> Result<Arc<Plan>, PlanError> {
        let key = (from, key(known));
        let lock = || self.plans.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(plan) = lock().get(&key) {
            return Ok(plan.clone());
        }
        let one = self.single.as_ref().and_then(|s| s.of(known));
        let start = |known, memory, follow| Start {
            model: &self.model,
            uses: &self.uses,
            packs: &self.packs,
            from,
            known,
            threads,
            rates: &self.ways.rates,
            state: &self.ways.state,
            memory,
            dry: memory.is_none(),
            follow,
        };
        // Where there is no plan for a batch of one, there is nothing to follow.
        let follow = one.as_ref().and_then(|one| choices(start(one, None, None)).ok());
        let plan = Arc::new(lower(start(known, Some(memory), follow.as_ref()))?);
        if let Some(cache) = &self.ways.cache {
            cache.save();
        }
        let mut plans = lock();
        // Plans keep what they work in for the next run.
        let idle = |p: &Plan| p.arena.saturating_add(p.scratch).saturating_add(p.folded);
        let all = plans.values().fold(idle(&plan), |n, p| n.saturating_add(idle(p)));
        if plans.len() >= PLANS || all > memory / 4 {
            plans.clear();
        }
        plans.insert(key, plan.clone());
        Ok(plan)
    }

    /// Runs the program on the values of its inputs, in order.
    ///
    /// # Errors
    ///
    /// If a node refuses its inputs.
    pub fn run(&self, inputs: Vec<Held>, context: &mut Context) -> Result<Vec<Datum>, PlanError> {
        let ports = self.model.graph.inputs.iter().map(|p| p.value);
        let given = inputs.len();
        let mut env: Env = ports.zip(inputs).collect();
        let outer = context.held;
        let nodes = self.model.graph.order.len();
        let (mut at, mut promoted) = (0, None);
        let mut lent = vec![];
        while at < nodes {
            let mut asked = 0;
            if !self.ways.reference {
                let known = env.iter().map(|(&v, held)| (v, held.known())).collect();
                let plan = self.segment(at, &known, context.pool.threads(), context.memory)?;
                let needed = plan
                    .peak_bytes()
                    .saturating_add(outer)
                    .saturating_add(self.held(&env, given));
                if needed > context.memory {
                    return Err(PlanError::Memory {
                        needed,
                        available: context.memory,
                        node: heaviest(&plan.steps),
                    });
                }
                self.execute(&plan, &mut env, context)?;
                self.forget(&mut env, at, plan.end);
                if plan.end > at {
                    (at, promoted) = (plan.end, None);
                    settle(&mut env, lent.drain(..));
                }
                asked = plan.asked;
            }
            if at >= nodes {
                break;
            }
            if promoted != Some(at) {
                lent = self.promote(at, asked, &mut env);
                promoted = Some(at);
                if !lent.is_empty() {
                    continue;
                }
            }
            context.held = outer.saturating_add(self.held(&env, given));
            let done = self.alone(at, &mut env, context);
            context.held = outer;
            done?;
            self.forget(&mut env, at, at + 1);
            settle(&mut env, lent.drain(..));
            at += 1;
        }
        let outputs = self.model.graph.outputs.iter();
        outputs.map(|p| self.lookup(&env, p)).collect()
    }

    /// Bytes of the values in `env`, beside the first `given` inputs, which belong to others.
    fn held(&self, env: &Env, given: usize) -> usize {
        let inputs = &self.model.graph.inputs;
        let inputs = &inputs[..given.min(inputs.len())];
        let own = env.iter().filter(|(v, _)| !inputs.iter().any(|p| p.value == **v));
        own.map(|(_, held)| held.size()).fold(0, usize::saturating_add)
    }

    fn lookup(&self, env: &Env, p: &Port) -> Result<Datum, PlanError> {
        let found = match env.get(&p.value) {
            Some(held) => Some(held.datum()),
            None => self
                .initializer(p.value)
                .map(|t| Datum::Tensor(Tensor::clone(&t))),
        };
        found.ok_or_else(|| PlanError::Output(self.model.graph[p.value].name.to_string()))
    }

    fn initializer(&self, v: ValueId) -> Option<Arc<Tensor>> {
        let konst = self.model.graph.values.get(v.0 as usize)?.konst.as_ref()?;
        Some(konst.tensor.clone())
    }

    /// Drops the values that nobody after `to` reads.
    fn forget(&self, env: &mut Env, from: usize, to: usize) {
        if to > from {
            env.retain(|v, _| self.uses.last(*v).is_some_and(|last| last >= to));
        }
    }

    /// Makes the small values that the node at `at` asked for known to plans, and says which they are.
    fn promote(&self, at: usize, asked: u64, env: &mut Env) -> Vec<ValueId> {
        let node = &self.model.graph[self.model.graph.order[at]];
        let wanted = node.inputs.iter().enumerate();
        let wanted = wanted.filter(|(i, _)| asked & (1 << (*i).min(63)) != 0);
        let mut promoted = vec![];
        for v in wanted.filter_map(|(_, v)| *v) {
            let Some(held) = env.get_mut(&v).filter(|h| !matches!(h, Held::Known(_))) else {
                continue;
            };
            match held.datum() {
                Datum::Tensor(t) if t.dtype().bits() > 0 && t.bytes().len() <= KNOWN => {
                    *held = Held::Known(Arc::new(t));
                    promoted.push(v);
                }
                _ => {}
            }
        }
        promoted
    }

    /// Runs one node by itself.
    fn alone(&self, at: usize, env: &mut Env, context: &mut Context) -> Result<(), PlanError> {
        let id = self.model.graph.order[at];
        let node = &self.model.graph[id];
        let x: Vec<Option<Datum>> = node.inputs.iter().map(|v| self.get(env, (*v)?)).collect();
        let start = context.times.as_ref().map(|_| Instant::now());
        let opset = opset_of(&self.model.opsets, node);
        let limit = direct::Limit(context.memory.saturating_sub(context.held));
        let mut turns = Turns {
            base: context.held,
            skip: carried(node),
            piled: 0,
        };
        let mut run = |attr: &str, inputs: Vec<Datum>| {
            let inputs = self.inputs_of(id, attr, inputs, env)?;
            turns.run(self.body(id, attr)?, inputs, context)
        };
        let y = direct(node, opset, &x, limit, &mut run);
        let y = y.map_err(|what| self.refused(node, opset, &x, what))?;
        for (v, y) in node.outputs.iter().zip(y) {
            if let Some(v) = v {
                env.insert(*v, Held::own(y));
            }
        }
        if let (Some(start), Some(times)) = (start, &mut context.times) {
            times.push(StepTime {
                node: node.label().to_owned(),
                op: full_name(node),
                kernel: "alone".into(),
                ms: start.elapsed().as_secs_f64() * 1e3,
            });
        }
        Ok(())
    }

    /// The value `v`, if it is there.
    fn get(&self, env: &Env, v: ValueId) -> Option<Datum> {
        match env.get(&v) {
            Some(held) => Some(held.datum()),
            None => self.initializer(v).map(|t| Datum::Tensor(Tensor::clone(&t))),
        }
    }

    /// The subgraph of node `id` that is attribute `attr`.
    fn body(&self, id: NodeId, attr: &str) -> Result<&Body, OpError> {
        let bodies = self.bodies.get(&id).map_or(&[][..], |b| b);
        let body = bodies.iter().find(|b| &*b.attr == attr);
        body.ok_or_else(|| OpError::new(format!("attribute {attr:?} is no subgraph")))
    }

    /// The inputs of a subgraph, and behind them what it captures.
    fn inputs_of(
        &self,
        id: NodeId,
        attr: &str,
        mut inputs: Vec<Datum>,
        env: &Env,
    ) -> Result<Vec<Datum>, OpError> {
        let body = self.body(id, attr)?;
        if inputs.len() != body.inputs {
            return Err(OpError::new(format!(
                "subgraph {attr:?} has {} inputs; expected {}",
                body.inputs,
                inputs.len()
            )));
        }
        for v in &body.captured {
            let missing = || {
                let name = &self.model.graph[*v].name;
                OpError::new(format!("subgraph {attr:?} reads {name:?}, which nothing defines"))
            };
            inputs.push(self.get(env, *v).ok_or_else(missing)?);
        }
        Ok(inputs)
    }

    /// What is said where `node` refuses the values `x`.
    fn refused(&self, node: &Node, opset: i64, x: &[Option<Datum>], what: OpError) -> PlanError {
        let inputs = node.inputs.iter().zip(x).map(|(v, x)| match (v, x) {
            (Some(v), Some(x)) => format!("{}: {}", self.model.graph[*v].name, x.ty()),
            (Some(v), None) => self.model.graph[*v].name.to_string(),
            (None, _) => "_".into(),
        });
        PlanError::Run(NodeError {
            node: node.label().to_owned(),
            op: full_name(node),
            opset,
            inputs: inputs.collect(),
            what,
        })
    }

    /// Runs a plan on what is in `env`, and puts there what it makes.
    fn execute(&self, plan: &Plan, env: &mut Env, context: &mut Context) -> Result<(), PlanError> {
        for (v, t) in &plan.known {
            env.insert(*v, Held::Known(t.clone()));
        }
        if plan.steps.is_empty() && plan.outputs.is_empty() {
            return Ok(());
        }
        let slots = plan.outputs.iter().map(|(_, slot)| slot);
        let mut outputs: Vec<_> = slots
            .enumerate()
            .map(|(i, s)| match s.place == Place::Output(i) {
                true => plan
                    .taken(i, env)
                    .or_else(|| Buffer::new(s.dtype, s.dims.iter().product())),
                false => None,
            })
            .map(Option::unwrap_or_default)
            .collect();
        let nothing = || View::new(DType::U8, &[0], &[]);
        let views: Vec<_> = plan
            .inputs
            .iter()
            .map(|v| env.get(v).map_or_else(nothing, Held::view))
            .collect();
        let lock = || {
            plan.frames
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
        };
        let idle = lock().pop();
        let mut frame = idle.unwrap_or_else(|| Frame::new(plan.arena, plan.scratch));
        let mut outside = Outside::new(&views, &plan.constants, &mut outputs);
        let error = |i: usize, what| PlanError::Run(plan.steps[i].error(what));
        let job = |i: usize| plan.steps[i].job();
        for turn in &plan.turns {
            // Steps are timed one by one.
            if let (Turn::Fork(shares), None) = (turn, &context.times) {
                let done = frame.fork(shares, &job, &mut outside, context.pool);
                done.map_err(|(i, what)| error(i, what))?;
                continue;
            }
            for i in turn.steps() {
                let start = context.times.as_ref().map(|_| Instant::now());
                let done = frame.step(job(i), &mut outside, context.pool);
                done.map_err(|what| error(i, what))?;
                if let (Some(start), Some(times)) = (start, &mut context.times) {
                    let ms = start.elapsed().as_secs_f64() * 1e3;
                    times.push(plan.steps[i].took(ms));
                }
            }
        }
        let made = collect(plan, &frame, env, outputs);
        lock().push(frame);
        env.extend(made);
        Ok(())
    }
}

impl Plan {
    /// The memory of the input that output `i` is written over, if there is one.
    fn taken(&self, i: usize, env: &mut Env) -> Option<Buffer> {
        let (input, _) = self.state.iter().find(|(_, output)| *output == i)?;
        match env.remove(&self.inputs[*input])? {
            Held::Own(Datum::Tensor(t)) => Buffer::taken(t),
            other => match other.datum() {
                Datum::Tensor(t) => Buffer::taken(t),
                _ => None,
            },
        }
    }
}

/// The memory of a node that runs subgraphs, perhaps many times.
struct Turns {
    /// Bytes that are held anyhow.
    base: usize,
    /// Outputs of each run that are let go at the next; what follows them is kept.
    skip: usize,
    /// Bytes of what is kept.
    piled: usize,
}

impl Turns {
    fn run(&mut self, body: &Body, inputs: Vec<Datum>, context: &mut Context) -> Result<Vec<Datum>, OpError> {
        let sizes = |all: &[Datum]| all.iter().map(Datum::size).fold(0, usize::saturating_add);
        let own = sizes(&inputs[..body.inputs]);
        context.held = self.base.saturating_add(self.piled).saturating_add(own);
        let held = inputs.into_iter().map(Held::own).collect();
        let done = body.program.run(held, context);
        let made = done.map_err(|e| OpError::new(format!("in {:?}: {e}", body.attr)))?;
        self.piled = self
            .piled
            .saturating_add(sizes(made.get(self.skip..).unwrap_or(&[])));
        // What is piled up is put together in the end.
        let needed = self.piled.saturating_mul(2).saturating_add(self.base);
        match needed > context.memory {
            true => Err(OpError::new(format!(
                "its results take {needed} bytes so far; there are {}",
                context.memory
            ))),
            false => Ok(made),
        }
    }
}

/// The outputs of a node's subgraph that are let go when it runs again; what follows is kept.
fn carried(node: &Node) -> usize {
    match (&*node.op, node.attr("num_scan_inputs")) {
        ("Loop", _) => node.inputs.len().saturating_sub(1),
        ("Scan", Some(crate::ir::AttrValue::Int(n))) => {
            let scans = n.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            node.inputs.len().saturating_sub(scans)
        }
        _ => 0,
    }
}

/// Lets the values `lent` to plans be like others again.
fn settle(env: &mut Env, lent: impl Iterator<Item = ValueId>) {
    for v in lent {
        if let Some(held) = env.get_mut(&v) {
            *held = Held::Own(held.datum());
        }
    }
}

/// The outputs of a plan; those that no step wrote share the elements of what they are a view of.
fn collect<'f>(plan: &Plan, frame: &Frame, env: &Env<'f>, outputs: Vec<Buffer>) -> Vec<(ValueId, Held<'f>)> {
    let owned = plan.outputs.iter().zip(outputs).enumerate();
    let own: Vec<Option<Tensor>> = owned
        .map(|(i, ((_, slot), buffer))| {
            (slot.place == Place::Output(i)).then(|| tensor_of(slot.dtype, &slot.dims, buffer))
        })
        .collect();
    let value = |i: usize| -> Held<'f> {
        let slot = &plan.outputs[i].1;
        let shared = match slot.place {
            Place::Output(j) => own[j].as_ref(),
            Place::Constant(j) => Some(&plan.constants[j]),
            Place::Input(j) => match env.get(&plan.inputs[j]) {
                Some(Held::Array(d, _, bytes)) => return Held::Array(*d, slot.dims.clone(), bytes),
                held => held.and_then(Held::tensor),
            },
            Place::Arena(_) => None,
        };
        let tensor = shared.and_then(|t| t.reshaped(&slot.dims)).unwrap_or_else(|| {
            let mut buffer = Buffer::new(slot.dtype, slot.dims.iter().product()).unwrap_or_default();
            frame.read(slot, &[], &plan.constants, buffer.bytes_mut());
            tensor_of(slot.dtype, &slot.dims, buffer)
        });
        Held::Own(Datum::Tensor(tensor))
    };
    plan.outputs
        .iter()
        .enumerate()
        .map(|(i, (v, _))| (*v, value(i)))
        .collect()
}

/// What a plan depends on, beside the graph: types, and elements that are known.
fn key(known: &HashMap<ValueId, Known>) -> Vec<u8> {
    let mut all: Vec<_> = known.iter().collect();
    all.sort_by_key(|(v, _)| **v);
    let mut key = vec![];
    for (v, (ty, konst)) in all {
        key.extend(v.0.to_le_bytes());
        match (ty.dtype(), ty.dims()) {
            (Some(d), Some(dims)) if matches!(ty, Type::Tensor { .. }) => {
                key.extend(d.code().to_le_bytes());
                key.extend((dims.len() as u64).to_le_bytes());
                dims.iter().for_each(|&d| key.extend((d as u64).to_le_bytes()));
            }
            _ => key.extend(format!("{ty};").bytes()),
        }
        match konst {
            Some(t) => {
                key.push(1);
                key.extend_from_slice(t.bytes());
            }
            None => key.push(0),
        }
    }
    key
}

/// Names first outputs that are left out before others: kernels write them all the same.
fn name_outputs(graph: &mut Graph) {
    for id in graph.order.clone() {
        if graph[id].outputs.len() > 1 && graph[id].outputs[0].is_none() {
            let v = graph.value(format!("unnamed#{}", graph.values.len()));
            graph[id].outputs[0] = Some(v);
        }
    }
}

/// A subgraph of `model` as a program. Values around it that are constant become its own.
fn body(
    model: &Model,
    names: &HashMap<Name, ValueId>,
    attr: Name,
    graph: &Graph,
    (ways, single, depth): (&Ways, Option<&Single>, usize),
) -> Result<Body, PassError> {
    let mut graph = graph.clone();
    graph.sort();
    let inputs = graph.inputs.len();
    for p in &mut graph.inputs {
        // What is carried through a loop may change its shape.
        if let Some(Type::Tensor { shape, .. }) = p.ty.as_mut().map(|d| &mut d.ty) {
            *shape = None;
        }
    }
    let mut captured = vec![];
    for name in graph.captures() {
        let outer = names.get(&name).copied();
        let v = graph.find(&name).unwrap_or_else(|| graph.value(name.clone()));
        match outer.and_then(|o| model.graph.konst(o).map(|_| model.graph[o].konst.clone())) {
            Some(konst) => {
                graph[v].konst = konst;
                graph.initializers.push(v);
            }
            None => {
                let missing =
                    || crate::ir::Flaw::new(format!("value {name:?}"), "is read, but nothing defines it");
                captured.push(outer.ok_or_else(missing)?);
                graph.inputs.push(Port {
                    value: v,
                    ty: None,
                    extra: Default::default(),
                });
            }
        }
    }
    let mut inner = Model {
        ir_version: Some(10),
        graph,
        opsets: model.opsets.clone(),
        ..Model::default()
    };
    match ways.optimized {
        true => ready(&mut inner).map(|_| ())?,
        false => crate::ir::verify(&inner.graph)?,
    }
    let captures = inner.graph.inputs.iter().skip(inputs).zip(&captured);
    let around = captures.filter_map(|(p, outer)| Some((p.value, single?.shape(*outer)?.clone())));
    let around = around.collect();
    Ok(Body {
        attr,
        program: Program::nested(inner, &ways.inside(), around, depth + 1)?,
        inputs,
        captured,
    })
}
