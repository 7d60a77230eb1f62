//! Sessions: models made ready to run.

mod error;
mod feed;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use crate::cpu::CacheState;
use crate::cpu::{Cache, Pool, default_threads};
use crate::ir::{DType, Dim, Graph, Model, Name, Port, Type, ValueId};
use crate::opt::{self, Report};
pub use crate::plan::StepTime;
use crate::plan::{Context, Plan, Program, Rates, Ways, available, batch};
pub use error::{RunError, RunErrorKind, Unsupported, distance, nearest, unsupported};
use feed::fits;
pub use feed::{Feed, Outputs};

/// How a session is to be made.
pub struct Builder<'a> {
    model: &'a Model,
    threads: usize,
    optimize: bool,
    sizes: Vec<(String, usize)>,
    taps: Vec<String>,
    reference: bool,
    deterministic: bool,
    memory: Option<usize>,
    cache: Option<PathBuf>,
    rates: Arc<Rates>,
    state: Vec<(String, String)>,
}

/// A model made ready to run: optimised, its weights packed when first needed, with a plan for each set of input shapes.
///
/// What no plan can be made for before the values are there (a shape that depends on them, a subgraph, a list) runs node
/// by node between plans. A session may run on many threads at once.
pub struct Session {
    program: Program,
    inputs: Vec<(Name, Type)>,
    outputs: Vec<Name>,
    report: Report,
    pool: Pool,
    memory: usize,
    cache: Option<Arc<Cache>>,
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

    /// Runs the graph as it is by [`Op::eval`](crate::ops::Op::eval) only, without kernels: slow, and as ONNX defines it.
    pub fn reference(self) -> Self {
        Builder {
            reference: true,
            ..self.unoptimized()
        }
    }

    /// Computes the same, to the bit, whatever the batch is: the first dimension of inputs, where it is free. Kernels are chosen
    /// for a batch of one and used for all, which may take longer. On any number of threads results are the same anyhow, and on
    /// another instruction set they differ all the same. An operator that is defined over the whole batch, such as a dynamic
    /// quantisation, mixes its rows here too.
    pub fn deterministic(self) -> Self {
        Builder {
            deterministic: true,
            ..self
        }
    }

    /// Refuses runs that work in more than `bytes`, inputs and weights aside. The default is what the machine has free when
    /// the session is made.
    pub fn memory(self, bytes: usize) -> Self {
        Builder {
            memory: Some(bytes),
            ..self
        }
    }

    /// Keeps packed weights in the file `path`: when a plan has been made they are written there, and the next session maps them
    /// instead of packing. They are found by what they were made from, and so are never those of another model; a file of another
    /// version, another instruction set, or damaged, is replaced. The file must not be changed in place while a session is there.
    pub fn cache(self, path: impl Into<PathBuf>) -> Self {
        Builder {
            cache: Some(path.into()),
            ..self
        }
    }

    /// Says that the output `after` takes the place of the input `before` in the next run. Where no step still reads that when the
    /// output is written, it is written into the same memory, if the input is given away (a [`Tensor`](crate::ir::Tensor), not a
    /// reference) and nobody else has its elements; else they are copied first. What comes out is the same.
    pub fn state(mut self, before: impl Into<String>, after: impl Into<String>) -> Self {
        self.state.push((before.into(), after.into()));
        self
    }

    /// Chooses kernels by what they take here, as measured by `secateur calibrate`, instead of the built-in table.
    pub fn rates(self, rates: Arc<Rates>) -> Self {
        Builder { rates, ..self }
    }

    /// Checks and optimises the model.
    ///
    /// # Errors
    ///
    /// If it uses operators that the engine lacks (all are listed), or is not well formed.
    pub fn build(self) -> Result<Session, RunError> {
        let flaw = |e: crate::ir::Flaw| RunErrorKind::Model(e.to_string());
        crate::ir::shallow(&self.model.graph).map_err(flaw)?;
        let mut functions = self.model.functions.iter();
        functions
            .try_for_each(|f| crate::ir::shallow(&f.graph))
            .map_err(flaw)?;
        let mut model = self.model.clone();
        opt::inline(&mut model).map_err(|e| RunErrorKind::Model(e.to_string()))?;
        let missing = unsupported(&model);
        if !missing.is_empty() {
            return Err(RunErrorKind::Unsupported(missing).into());
        }
        // Nothing may be computed beforehand from the size of a batch that must not matter.
        let batch = self.deterministic.then(|| batch(&model.graph));
        let late = |(name, _): &(String, usize)| batch.iter().flatten().any(|b| **b == **name);
        let (late, early): (Vec<_>, Vec<_>) = self.sizes.iter().cloned().partition(late);
        fix_sizes(model.graph.inputs.iter_mut().filter_map(declared), &early)?;
        for name in &self.taps {
            let known = || model.graph.values.iter().map(|v| v.name.to_string()).collect();
            let v = model.graph.find(name).ok_or_else(|| RunErrorKind::UnknownInput {
                given: name.clone(),
                known: known(),
            })?;
            model.graph.output(v, None);
        }
        model.graph.sort();
        let wrong = |e: opt::PassError| RunErrorKind::Model(e.to_string());
        let report = match self.optimize {
            true => opt::ready(&mut model).map_err(wrong)?,
            false => crate::ir::verify(&model.graph)
                .map(|()| Report::default())
                .map_err(|e| RunErrorKind::Model(e.to_string()))?,
        };
        let g = &model.graph;
        // What was looked at once is not needed before kernels pack it.
        for g in [&self.model.graph, g] {
            let weights = g.initializers.iter().filter_map(|&v| g.konst(v));
            weights.for_each(crate::ir::Tensor::unload);
        }
        let input = |p: &Port| {
            let ty = p.ty.as_ref().map_or(Type::Unknown, |d| d.ty.clone());
            (g[p.value].name.clone(), ty)
        };
        let mut inputs: Vec<_> = g.inputs.iter().map(input).collect();
        fix_sizes(inputs.iter_mut().map(|(_, ty)| ty), &late)?;
        let doubled = |i: usize| {
            let ((a, b), rest) = (&self.state[i], &self.state[..i]);
            rest.iter().any(|(x, y)| a == x || b == y)
        };
        if let Some(i) = (0..self.state.len()).find(|&i| doubled(i)) {
            let (before, after) = &self.state[i];
            let what = format!("state {before:?} to {after:?}: one of them is state already");
            return Err(RunErrorKind::Model(what).into());
        }
        let state = self.state.iter().map(|pair| pair_of(g, pair));
        let ways = Ways {
            state: state.collect::<Result<_, _>>()?,
            optimized: self.optimize,
            reference: self.reference,
            batch,
            cache: self.cache.as_deref().map(|path| Arc::new(Cache::open(path))),
            rates: match self.deterministic {
                true => Arc::default(),
                false => self.rates,
            },
        };
        Ok(Session {
            cache: ways.cache.clone(),
            inputs,
            outputs: g.outputs.iter().map(|p| g[p.value].name.clone()).collect(),
            report,
            pool: Pool::new(self.threads),
            memory: self.memory.or_else(available).unwrap_or(usize::MAX),
            program: Program::new(model, &ways).map_err(wrong)?,
        })
    }
}

/// The values of an input and of the output that follows it.
fn pair_of(g: &Graph, (before, after): &(String, String)) -> Result<(ValueId, ValueId), RunError> {
    let find = |ports: &[Port], what: &str, given: &str| {
        let names: Vec<String> = ports.iter().map(|p| g[p.value].name.to_string()).collect();
        let at = names.iter().position(|n| n == given);
        at.map(|i| ports[i].value).ok_or_else(|| {
            let near = nearest(given, &names);
            RunErrorKind::Model(format!("state: no {what} {given:?}{near}; there are {names:?}"))
        })
    };
    Ok((
        find(&g.inputs, "input", before)?,
        find(&g.outputs, "output", after)?,
    ))
}

fn declared(p: &mut Port) -> Option<&mut Type> {
    p.ty.as_mut().map(|d| &mut d.ty)
}

/// Puts numbers in the place of free dimensions.
fn fix_sizes<'t>(
    types: impl Iterator<Item = &'t mut Type>,
    sizes: &[(String, usize)],
) -> Result<(), RunError> {
    let mut known = vec![];
    for ty in types {
        let Type::Tensor {
            shape: Some(shape), ..
        } = ty
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
            reference: false,
            deterministic: false,
            memory: None,
            cache: None,
            rates: Arc::default(),
            state: vec![],
        }
    }

    /// Names and declared types of the inputs.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, &Type)> {
        self.inputs.iter().map(|(n, t)| (&**n, t))
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
        self.program.model()
    }

    /// What became of the cache of packed weights so far, if there is one.
    pub fn cache(&self) -> Option<CacheState> {
        self.cache.as_ref().map(|c| c.state())
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
        self.execute(self.feeds(inputs)?, None)
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
        let mut times = vec![];
        let outputs = self.execute(self.feeds(inputs)?, Some(&mut times))?;
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
        let held: Vec<_> = feeds.into_iter().map(Feed::held).collect();
        Ok(self.program.plan(&held, self.pool.threads(), self.memory)?)
    }

    /// The plan for inputs of these shapes, in the order of the inputs: of the whole graph, or of the part that comes
    /// before the first node that needs values.
    ///
    /// # Errors
    ///
    /// If the model cannot run with them.
    pub fn plan(&self, shapes: &[Vec<usize>]) -> Result<Arc<Plan>, RunError> {
        let typed = self.inputs.iter().zip(shapes);
        let types: Vec<_> = typed
            .map(|((_, ty), dims)| Type::tensor(ty.dtype().unwrap_or(DType::F32), dims.iter().copied()))
            .collect();
        Ok(self.program.plan_for(&types, self.pool.threads(), self.memory)?)
    }

    /// Inputs in the model's order, checked.
    fn feeds<'f, N: AsRef<str>, F: Into<Feed<'f>>>(
        &self,
        inputs: impl IntoIterator<Item = (N, F)>,
    ) -> Result<Vec<Feed<'f>>, RunError> {
        let mut given: Vec<Option<Feed>> = self.inputs.iter().map(|_| None).collect();
        for (name, feed) in inputs {
            let name = name.as_ref();
            match self.inputs.iter().position(|(n, _)| &**n == name) {
                Some(i) => given[i] = Some(feed.into()),
                None => {
                    return Err(RunErrorKind::UnknownInput {
                        given: name.to_owned(),
                        known: self.inputs.iter().map(|(n, _)| n.to_string()).collect(),
                    }
                    .into());
                }
            }
        }
        let mut symbols = HashMap::new();
        let graph = &self.program.model().graph;
        let ports = graph.inputs.iter().zip(&self.inputs);
        given
            .into_iter()
            .zip(ports)
            .map(|(feed, (port, (name, ty)))| {
                let default = || graph[port.value].konst.as_ref();
                let feed = match (feed, default()) {
                    (Some(feed), _) => feed,
                    (None, Some(c)) => Feed::Value(c.tensor.aligned().into()),
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

    fn execute(&self, feeds: Vec<Feed>, times: Option<&mut Vec<StepTime>>) -> Result<Outputs, RunError> {
        let held = feeds.into_iter().map(Feed::held).collect();
        let mut context = Context {
            pool: &self.pool,
            memory: self.memory,
            held: 0,
            times,
        };
        Ok(Outputs {
            names: self.outputs.clone(),
            values: self.program.run(held, &mut context)?,
        })
    }
}
