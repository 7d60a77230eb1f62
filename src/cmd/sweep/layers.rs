//! Layer by layer, within the model.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use anyhow::Result;
use secateur::engine::ir::{Graph, NodeId, ValueId};
use secateur::{Model, Session, Tensor};

use super::Sweeping;
use super::rows::{DENSE, Row, Times};
use crate::cmd::explain;

/// Operators that are layers, of whatever domain.
const LAYERS: [&str; 4] = ["Conv", "ConvTranspose", "Gemm", "MatMul"];
/// Rounds at least.
const ROUNDS: usize = 3;

/// One layer in one session.
struct Layer {
    name: String,
    zeros: f64,
    times: Vec<f64>,
}

/// A session and its layers, in the order in which they run.
struct Watched {
    session: Session,
    layers: Vec<Layer>,
    /// For each step of a run, which layer it is.
    steps: Vec<Option<usize>>,
}

impl Watched {
    fn new(model: &Model, inputs: &[(String, Tensor)], s: &Sweeping) -> Result<Watched> {
        let session = s.ui.uncached().session(model).build()?;
        let zeros = explain::zeros(session.model());
        let (mut layers, mut steps, mut named) = (vec![], vec![], HashSet::new());
        for step in session.profile(inputs.iter().map(|(n, t)| (n, t)))?.1 {
            let is_layer = LAYERS.contains(&step.op.rsplit('.').next().unwrap_or_default());
            let key = (step.node, step.op);
            let zeros = zeros.get(&key).copied().filter(|_| is_layer);
            steps.push(zeros.map(|_| layers.len()));
            if let Some(zeros) = zeros {
                let name = origin(&model.graph, &key.0, &mut named).unwrap_or(key.0);
                let times = vec![];
                layers.push(Layer { name, zeros, times });
            }
        }
        Ok(Watched {
            session,
            layers,
            steps,
        })
    }

    fn run(&mut self, inputs: &[(String, Tensor)]) -> Result<()> {
        let times = self.session.profile(inputs.iter().map(|(n, t)| (n, t)))?.1;
        for (step, layer) in times.iter().zip(&self.steps) {
            if let Some(layer) = layer.and_then(|i| self.layers.get_mut(i)) {
                layer.times.push(step.ms);
            }
        }
        Ok(())
    }

    /// The layers with their times, which begin anew.
    fn take(&mut self) -> Vec<(String, f64, Times)> {
        let layer = |l: &'_ mut Layer| {
            (
                l.name.clone(),
                l.zeros,
                Times::of(&mut std::mem::take(&mut l.times)),
            )
        };
        self.layers.iter_mut().map(layer).collect()
    }
}

/// The layer that became part of the node `label`, which may be called after what joined it: the nearest one before it in
/// the graph as it was that is not among `named`.
fn origin(graph: &Graph, label: &str, named: &mut HashSet<NodeId>) -> Option<String> {
    let made: HashMap<ValueId, NodeId> = graph
        .iter()
        .flat_map(|(id, n)| n.outputs.iter().flatten().map(move |&v| (v, id)))
        .collect();
    let start = graph
        .iter()
        .find(|(id, n)| n.label() == label && !named.contains(id));
    let mut queue: VecDeque<NodeId> = start.map(|(id, _)| id).into_iter().collect();
    let mut seen = HashSet::new();
    while let Some(id) = queue.pop_front() {
        let node = &graph[id];
        if LAYERS.contains(&&*node.op) && named.insert(id) {
            return Some(node.label().to_owned());
        }
        let before = node.inputs.iter().flatten().filter_map(|v| made.get(v).copied());
        queue.extend(before.filter(|id| seen.insert(*id)));
    }
    None
}

/// Measures each layer of each pruned model, in turns with the dense one.
pub(super) fn measure(s: &Sweeping) -> Result<Vec<Row>> {
    let inputs = s.flags.rivals.inputs(&s.dense, s.ui)?.make(s.ui.common.seed)?;
    let mut dense = Watched::new(&s.dense, &inputs, s)?;
    let goals = s.flags.goals();
    let progress = s.ui.progress(goals.len() as u64, "patterns and sparsities");
    let mut rows = vec![];
    for (goal, share) in &goals {
        let mut sparse = Watched::new(&s.pruned(*goal)?.0, &inputs, s)?;
        run(&mut [&mut dense, &mut sparse], &inputs, s)?;
        let (before, after) = (dense.take(), sparse.take());
        if rows.is_empty() {
            rows.extend(before.iter().map(|l| row(l, (DENSE, 0.0), l.2.min)));
        }
        let before: HashMap<String, f64> = before.into_iter().map(|(name, _, t)| (name, t.min)).collect();
        let of =
            |l: &(String, f64, Times)| Some(row(l, (&goal.pattern.to_string(), *share), *before.get(&l.0)?));
        rows.extend(after.iter().filter_map(of));
        progress.add(1);
    }
    if goals.is_empty() {
        run(&mut [&mut dense], &inputs, s)?;
        rows = dense
            .take()
            .iter()
            .map(|l| row(l, (DENSE, 0.0), l.2.min))
            .collect();
    }
    Ok(rows)
}

fn run(both: &mut [&mut Watched], inputs: &[(String, Tensor)], s: &Sweeping) -> Result<()> {
    let start = Instant::now();
    for round in 1.. {
        both.iter_mut().try_for_each(|w| w.run(inputs))?;
        if round >= ROUNDS && start.elapsed() >= s.time {
            break;
        }
    }
    Ok(())
}

/// The row of a layer, which takes `dense` milliseconds without zeros.
fn row((name, zeros, times): &(String, f64, Times), (pattern, sparsity): (&str, f64), dense: f64) -> Row {
    Row {
        name: name.clone(),
        engine: "self".into(),
        pattern: pattern.to_owned(),
        sparsity,
        zeros: *zeros,
        times: *times,
        speedup: dense / times.min,
        vs_peer: None,
    }
}
