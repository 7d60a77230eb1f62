//! Sessions: models made ready to run.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ndarray::{ArrayBase, ArrayView, Data as ArrayData, Dimension};

use crate::cpu::{Frame, Outside, Packs, Place, Pool, View, default_threads};
use crate::ir::{Buffer, DType, Data, Dim, Element, Model, Name, Tensor, Type, ValueId};
use crate::ops;
use crate::opt::infer::{NodeError, full_name};
use crate::opt::{self, Report, Scope};
use crate::plan::{Plan, PlanError, lower};

/// An operator that a model uses and the engine lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsupported {
    /// The operator, with its domain in front where it is not ONNX's own.
    pub op: String,
    /// The version at which its domain is imported; `None` where it is not.
    pub opset: Option<i64>,
    /// The nodes that use it.
    pub nodes: Vec<String>,
    /// What is the matter with it.
    pub why: &'static str,
}

/// All operators of `model` that the engine cannot run.
pub fn unsupported(model: &Model) -> Vec<Unsupported> {
    let mut found: Vec<Unsupported> = vec![];
    for (_, node) in model.graph.iter() {
        let opset = model.opset(node.domain());
        let function =
            |f: &crate::ir::Function| f.name == node.op && f.domain.as_deref().unwrap_or("") == node.domain();
        let why = match ops::find(node.domain(), &node.op) {
            _ if model.functions.iter().any(function) => "model-local functions are not run yet",
            None => "the engine does not have it",
            Some(_) if opset.is_none() => "the model does not import the operator's domain",
            Some(op)
                if op
                    .since()
                    .first()
                    .is_some_and(|&first| opset < Some(first.into())) =>
            {
                "the operator came with a later opset"
            }
            Some(_) => continue,
        };
        let op = full_name(node);
        match found.iter_mut().find(|u| u.op == op) {
            Some(u) => u.nodes.push(node.label().to_owned()),
            None => found.push(Unsupported {
                op,
                opset,
                nodes: vec![node.label().to_owned()],
                why,
            }),
        }
    }
    found
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let opset = self.opset.map_or("not imported".into(), |v| format!("opset {v}"));
        let shown: Vec<_> = self.nodes.iter().take(3).map(|n| format!("{n:?}")).collect();
        let more = if self.nodes.len() > 3 { ", …" } else { "" };
        write!(
            f,
            "{} ({opset}) at {} nodes ({}{more}): {}",
            self.op,
            self.nodes.len(),
            shown.join(", "),
            self.why
        )
    }
}

/// Why a model did not run.
#[derive(Debug)]
pub struct RunError(RunErrorKind);

/// What kind of [`RunError`] it is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RunErrorKind {
    /// Operators that the engine lacks, all of them.
    Unsupported(Vec<Unsupported>),
    /// The graph is not well formed, or a node does not fit its operator.
    Model(String),
    /// An input that the model does not have, with those it has.
    UnknownInput {
        /// The name that was given.
        given: String,
        /// The model's inputs.
        known: Vec<String>,
    },
    /// An input that was not given.
    MissingInput {
        /// Its name.
        name: String,
        /// Its declared type.
        expected: String,
    },
    /// An input of another type or shape than declared.
    WrongInput {
        /// Its name.
        name: String,
        /// Its declared type.
        expected: String,
        /// The type that was given.
        found: String,
    },
    /// A dimension that no input has.
    UnknownSize {
        /// The name that was given.
        given: String,
        /// The free dimensions of the inputs.
        known: Vec<String>,
    },
    /// No plan for inputs of these shapes.
    Plan(PlanError),
    /// A kernel refused its input while the model ran.
    Node(NodeError),
}

impl RunError {
    /// What kind of error it is.
    pub fn kind(&self) -> &RunErrorKind {
        &self.0
    }
}

impl From<RunErrorKind> for RunError {
    fn from(kind: RunErrorKind) -> RunError {
        RunError(kind)
    }
}

/// ` (did you mean "x"?)` where a known name is near the given one.
pub fn nearest(given: &str, known: &[String]) -> String {
    let near = known.iter().map(|k| (distance(given, k), k)).min();
    match near {
        Some((d, k)) if d <= 2.max(given.len() / 3) => format!(" (did you mean {k:?}?)"),
        _ => String::new(),
    }
}

/// The number of insertions, deletions and replacements of characters that make `b` of `a` (Levenshtein 1966).
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let next = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.0 {
            RunErrorKind::Unsupported(all) => {
                write!(f, "{} operators are not supported:", all.len())?;
                all.iter().try_for_each(|u| write!(f, "\n  {u}"))
            }
            RunErrorKind::Model(what) => f.write_str(what),
            RunErrorKind::UnknownInput { given, known } => {
                write!(
                    f,
                    "no input {given:?}{}; the inputs are {known:?}",
                    nearest(given, known)
                )
            }
            RunErrorKind::UnknownSize { given, known } => {
                write!(
                    f,
                    "no free dimension {given:?}{}; the free dimensions are {known:?}",
                    nearest(given, known)
                )
            }
            RunErrorKind::MissingInput { name, expected } => {
                write!(f, "input {name:?} is missing; expected {expected}")
            }
            RunErrorKind::WrongInput {
                name,
                expected,
                found,
            } => {
                write!(f, "input {name:?}: expected {expected}, found {found}")
            }
            RunErrorKind::Plan(e) => e.fmt(f),
            RunErrorKind::Node(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for RunError {}

/// An input of a run.
pub enum Feed<'a> {
    /// A tensor that is there.
    Tensor(&'a Tensor),
    /// A tensor made for this run.
    Owned(Tensor),
    /// An array in row-major order, not copied.
    Array(DType, Vec<usize>, &'a [u8]),
}

impl Feed<'_> {
    fn ty(&self) -> (DType, &[usize]) {
        match self {
            Feed::Tensor(t) => (t.dtype(), t.dims()),
            Feed::Owned(t) => (t.dtype(), t.dims()),
            Feed::Array(d, dims, _) => (*d, dims),
        }
    }

    fn view(&self) -> View<'_> {
        match self {
            Feed::Tensor(t) => View::of(t),
            Feed::Owned(t) => View::of(t),
            Feed::Array(d, dims, bytes) => View::new(*d, dims, bytes),
        }
    }
}

impl<'a> From<&'a Tensor> for Feed<'a> {
    fn from(t: &'a Tensor) -> Feed<'a> {
        match t.data() {
            Data::Bytes(b) if b.as_ptr().align_offset(8) != 0 => Feed::Owned(t.aligned()),
            _ => Feed::Tensor(t),
        }
    }
}

impl<'a, T: Element, D: Dimension> From<ArrayView<'a, T, D>> for Feed<'a> {
    fn from(a: ArrayView<'a, T, D>) -> Feed<'a> {
        let dims = a.shape().to_vec();
        match a.to_slice() {
            Some(s) => Feed::Array(T::DTYPE, dims, bytemuck::cast_slice(s)),
            None => Feed::Owned(Tensor::of(&dims, a.iter().copied().collect())),
        }
    }
}

impl<'a, T: Element, S: ArrayData<Elem = T>, D: Dimension> From<&'a ArrayBase<S, D>> for Feed<'a> {
    fn from(a: &'a ArrayBase<S, D>) -> Feed<'a> {
        a.view().into()
    }
}

/// The outputs of a run, in the model's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// Their names.
    pub names: Vec<Name>,
    /// Their elements.
    pub tensors: Vec<Tensor>,
}

impl Outputs {
    /// The output `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        let at = self.names.iter().position(|n| &**n == name)?;
        self.tensors.get(at)
    }
}

impl std::ops::Index<usize> for Outputs {
    type Output = Tensor;
    fn index(&self, i: usize) -> &Tensor {
        &self.tensors[i]
    }
}

impl std::ops::Index<&str> for Outputs {
    type Output = Tensor;
    /// # Panics
    ///
    /// If there is no such output; see [`Outputs::get`].
    fn index(&self, name: &str) -> &Tensor {
        let known = || format!("no output {name:?}; the outputs are {:?}", self.names);
        self.get(name).unwrap_or_else(|| panic!("{}", known()))
    }
}

/// How a session is to be made.
pub struct Builder<'a> {
    model: &'a Model,
    threads: usize,
    optimize: bool,
    sizes: Vec<(String, usize)>,
    taps: Vec<String>,
}

/// A model made ready to run: optimised, its weights packed when first needed, with a plan for each set of input shapes.
///
/// A session may run on many threads at once.
pub struct Session {
    model: Model,
    inputs: Vec<(Name, Type, bool)>,
    outputs: Vec<Name>,
    report: Report,
    pool: Pool,
    packs: Packs,
    plans: Mutex<HashMap<Vec<Vec<usize>>, Arc<Plan>>>,
}

/// Plans that a session keeps; with more sets of shapes the cache starts anew.
const PLANS: usize = 64;

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

impl<'a> Builder<'a> {
    /// Runs on `n` threads. The default is the smaller of the cores, the affinity mask and the cgroup quota.
    pub fn threads(self, n: usize) -> Self {
        Builder {
            threads: n.max(1),
            ..self
        }
    }

    /// Fixes the free dimension `name`.
    pub fn size(mut self, name: impl Into<String>, size: usize) -> Self {
        self.sizes.push((name.into(), size));
        self
    }

    /// Makes the value `name` an output too. Taps keep fusion from computing over them.
    pub fn tap(mut self, name: impl Into<String>) -> Self {
        self.taps.push(name.into());
        self
    }

    /// Runs the graph as it is, node by node.
    pub fn unoptimized(self) -> Self {
        Builder {
            optimize: false,
            ..self
        }
    }

    /// Checks and optimises the model.
    ///
    /// # Errors
    ///
    /// If it uses operators that the engine lacks (all are listed), or is not well formed.
    pub fn build(self) -> Result<Session, RunError> {
        let missing = unsupported(self.model);
        if !missing.is_empty() {
            return Err(RunErrorKind::Unsupported(missing).into());
        }
        let mut model = self.model.clone();
        fix_sizes(&mut model, &self.sizes)?;
        for name in &self.taps {
            let known = || model.graph.values.iter().map(|v| v.name.to_string()).collect();
            let v = model.graph.find(name).ok_or_else(|| RunErrorKind::UnknownInput {
                given: name.clone(),
                known: known(),
            })?;
            model.graph.output(v, None);
        }
        model.graph.sort();
        let report = match self.optimize {
            true => {
                opt::optimize(&mut model, Scope::Engine).map_err(|e| RunErrorKind::Model(e.to_string()))?
            }
            false => crate::ir::verify(&model.graph)
                .map(|()| Report::default())
                .map_err(|e| RunErrorKind::Model(e.to_string()))?,
        };
        let g = &model.graph;
        let input = |p: &crate::ir::Port| {
            let ty = p.ty.as_ref().map_or(Type::Unknown, |d| d.ty.clone());
            (g[p.value].name.clone(), ty, g[p.value].konst.is_some())
        };
        Ok(Session {
            inputs: g.inputs.iter().map(input).collect(),
            outputs: g.outputs.iter().map(|p| g[p.value].name.clone()).collect(),
            report,
            pool: Pool::new(self.threads),
            packs: Packs::default(),
            plans: Mutex::default(),
            model,
        })
    }
}

/// Puts numbers in the place of free dimensions.
fn fix_sizes(model: &mut Model, sizes: &[(String, usize)]) -> Result<(), RunError> {
    let mut known = vec![];
    for p in &mut model.graph.inputs {
        let Some(Type::Tensor {
            shape: Some(shape), ..
        }) = p.ty.as_mut().map(|d| &mut d.ty)
        else {
            continue;
        };
        for d in shape {
            if let Dim::Symbol(s) = d {
                known.push(s.to_string());
                if let Some((_, size)) = sizes.iter().find(|(n, _)| n == &**s) {
                    *d = Dim::from(*size);
                }
            }
        }
    }
    known.sort();
    known.dedup();
    match sizes.iter().find(|(n, _)| !known.contains(n)) {
        Some((given, _)) => Err(RunErrorKind::UnknownSize {
            given: given.clone(),
            known,
        }
        .into()),
        None => Ok(()),
    }
}

impl Session {
    /// How to make a session of `model`.
    pub fn builder(model: &Model) -> Builder<'_> {
        Builder {
            model,
            threads: default_threads(),
            optimize: true,
            sizes: vec![],
            taps: vec![],
        }
    }

    /// Names and declared types of the inputs.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, &Type)> {
        self.inputs.iter().map(|(n, t, _)| (&**n, t))
    }

    /// Names of the outputs.
    pub fn outputs(&self) -> &[Name] {
        &self.outputs
    }

    /// The number of threads it runs on.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The model as it is run.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the optimiser did.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Runs the model on `inputs`, by name. Arrays in row-major order are not copied.
    ///
    /// # Errors
    ///
    /// If an input is missing, unknown, or of another type or shape than declared; if the model cannot run with these shapes.
    pub fn run<'f, N: AsRef<str>, F: Into<Feed<'f>>>(
        &self,
        inputs: impl IntoIterator<Item = (N, F)>,
    ) -> Result<Outputs, RunError> {
        let feeds = self.feeds(inputs)?;
        self.execute(&feeds, &mut |_, _| {})
    }

    /// Like [`Session::run`], with the time of each step.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    pub fn profile<'f, N: AsRef<str>, F: Into<Feed<'f>>>(
        &self,
        inputs: impl IntoIterator<Item = (N, F)>,
    ) -> Result<(Outputs, Vec<StepTime>), RunError> {
        let feeds = self.feeds(inputs)?;
        let mut times = vec![];
        let mut last = Instant::now();
        let outputs = self.execute(&feeds, &mut |plan, i| {
            let now = Instant::now();
            if let Some(step) = i.checked_sub(1).map(|i| &plan.steps[i]) {
                times.push(StepTime {
                    node: step.node.clone(),
                    op: step.op.clone(),
                    kernel: step.kernel.clone(),
                    ms: now.duration_since(last).as_secs_f64() * 1e3,
                });
            }
            last = Instant::now();
        })?;
        Ok((outputs, times))
    }

    /// Does what can be done before the first run on `inputs`, and says how they will be run.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    pub fn prepare<'f, N: AsRef<str>, F: Into<Feed<'f>>>(
        &self,
        inputs: impl IntoIterator<Item = (N, F)>,
    ) -> Result<Arc<Plan>, RunError> {
        let feeds = self.feeds(inputs)?;
        self.plan(&feeds.iter().map(|f| f.ty().1.to_vec()).collect::<Vec<_>>())
    }

    /// The plan for inputs of these shapes, in the order of the inputs.
    ///
    /// # Errors
    ///
    /// If the model cannot run with them.
    pub fn plan(&self, shapes: &[Vec<usize>]) -> Result<Arc<Plan>, RunError> {
        let mut plans = self.plans.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(plan) = plans.get(shapes) {
            return Ok(plan.clone());
        }
        let types =
            self.model
                .graph
                .inputs
                .iter()
                .zip(&self.inputs)
                .zip(shapes)
                .map(|((p, (_, ty, _)), dims)| {
                    let dtype = ty.dtype().unwrap_or(DType::F32);
                    (p.value, Type::tensor(dtype, dims.iter().copied()))
                });
        let types: HashMap<ValueId, Type> = types.collect();
        let plan =
            lower(&self.model, &types, &self.packs, self.pool.threads()).map_err(RunErrorKind::Plan)?;
        let plan = Arc::new(plan);
        if plans.len() >= PLANS {
            plans.clear();
        }
        plans.insert(shapes.to_vec(), plan.clone());
        Ok(plan)
    }

    /// Inputs in the model's order, checked.
    fn feeds<'f, N: AsRef<str>, F: Into<Feed<'f>>>(
        &self,
        inputs: impl IntoIterator<Item = (N, F)>,
    ) -> Result<Vec<Feed<'f>>, RunError> {
        let mut given: Vec<Option<Feed>> = self.inputs.iter().map(|_| None).collect();
        for (name, feed) in inputs {
            let name = name.as_ref();
            match self.inputs.iter().position(|(n, ..)| &**n == name) {
                Some(i) => given[i] = Some(feed.into()),
                None => {
                    return Err(RunErrorKind::UnknownInput {
                        given: name.to_owned(),
                        known: self.inputs.iter().map(|(n, ..)| n.to_string()).collect(),
                    }
                    .into());
                }
            }
        }
        let mut symbols = HashMap::new();
        let ports = self.model.graph.inputs.iter().zip(&self.inputs);
        given
            .into_iter()
            .zip(ports)
            .map(|(feed, (port, (name, ty, _)))| {
                let default = || self.model.graph[port.value].konst.as_ref();
                let feed = match (feed, default()) {
                    (Some(feed), _) => feed,
                    (None, Some(c)) => Feed::Owned(c.tensor.aligned()),
                    (None, None) => {
                        return Err(RunErrorKind::MissingInput {
                            name: name.to_string(),
                            expected: ty.to_string(),
                        }
                        .into());
                    }
                };
                fits(name, ty, &feed, &mut symbols)?;
                Ok(feed)
            })
            .collect()
    }

    fn execute(&self, feeds: &[Feed], step: &mut dyn FnMut(&Plan, usize)) -> Result<Outputs, RunError> {
        let shapes: Vec<_> = feeds.iter().map(|f| f.ty().1.to_vec()).collect();
        let plan = self.plan(&shapes)?;
        let views: Vec<_> = feeds.iter().map(Feed::view).collect();
        let idle = plan
            .frames
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .pop();
        let mut frame = idle.unwrap_or_else(|| Frame::new(plan.arena, plan.scratch));
        let mut outputs: Vec<_> = plan
            .outputs
            .iter()
            .map(|s| Buffer::new(s.dtype, s.dims.iter().product()).unwrap_or_default())
            .collect();
        let mut outside = Outside {
            inputs: &views,
            constants: &plan.constants,
            outputs: &mut outputs,
        };
        for (i, s) in plan.steps.iter().enumerate() {
            step(&plan, i);
            let done = frame.step(&*s.run, &s.inputs, &s.outputs, &mut outside, &self.pool);
            done.map_err(|what| {
                let described = s.names.iter().zip(&s.inputs).map(|(name, slot)| match slot {
                    Some(slot) => format!("{name}: {}", Type::tensor(slot.dtype, slot.dims.iter().copied())),
                    None => name.clone(),
                });
                RunErrorKind::Node(NodeError {
                    node: s.node.clone(),
                    op: s.op.clone(),
                    opset: s.opset,
                    inputs: described.collect(),
                    what,
                })
            })?;
        }
        step(&plan, plan.steps.len());
        let tensors = collect(&plan, &frame, &views, outputs);
        plan.frames
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .push(frame);
        Ok(Outputs {
            names: self.outputs.clone(),
            tensors,
        })
    }
}

/// The outputs as tensors; those that no step wrote in place are copied from where they are.
fn collect(plan: &Plan, frame: &Frame, inputs: &[View], mut outputs: Vec<Buffer>) -> Vec<Tensor> {
    for i in 0..outputs.len() {
        let slot = &plan.outputs[i];
        match slot.place {
            Place::Output(j) if j == i => {}
            Place::Output(j) => {
                let copy = outputs[j].bytes_mut().to_vec();
                outputs[i].bytes_mut().copy_from_slice(&copy);
            }
            _ => frame.read(slot, inputs, &plan.constants, outputs[i].bytes_mut()),
        }
    }
    let tensor = |(slot, buffer): (&crate::cpu::Slot, Buffer)| {
        let data = Data::Bytes(buffer.share());
        Tensor::new(slot.dtype, slot.dims.clone(), data).unwrap_or_else(|_| Tensor::of::<u8>(&[0], vec![]))
    };
    plan.outputs.iter().zip(outputs).map(tensor).collect()
}

/// Checks an input against its declared type; the same symbol must mean the same size in all inputs.
fn fits(name: &str, ty: &Type, feed: &Feed, symbols: &mut HashMap<Name, usize>) -> Result<(), RunError> {
    let (dtype, dims) = feed.ty();
    let wrong = |expected: String| {
        RunError::from(RunErrorKind::WrongInput {
            name: name.to_owned(),
            expected,
            found: Type::tensor(dtype, dims.iter().copied()).to_string(),
        })
    };
    if dtype.bits() == 0 {
        return Err(wrong("numbers: tensors of strings are not run yet".into()));
    }
    let rank = ty.shape().is_none_or(|s| s.len() == dims.len());
    if ty.dtype().is_some_and(|d| d != dtype) || !rank {
        return Err(wrong(ty.to_string()));
    }
    for (d, &size) in ty.shape().into_iter().flatten().zip(dims) {
        match d.named() {
            Dim::Known(n) if usize::try_from(n) != Ok(size) => return Err(wrong(ty.to_string())),
            Dim::Symbol(s) => {
                let seen = *symbols.entry(s.clone()).or_insert(size);
                if seen != size {
                    return Err(wrong(format!("{ty} with {s} = {seen}, as in another input")));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
