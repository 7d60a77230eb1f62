//! Where a loss that is no number came from.

use std::collections::HashMap;
use std::fmt;

use secateur_engine::ir::Node;
use secateur_engine::run::Outputs;
use secateur_engine::{Session, Tensor};

use super::{Progress, Trainer};
use crate::TrainError;
use crate::data::Batch;

/// A step in which something became infinite or no number.
#[derive(Clone, Debug, PartialEq)]
pub struct Diverged {
    /// The step, counted from 1 over all epochs.
    pub step: u64,
    /// The epoch, from 1.
    pub epoch: u64,
    /// The rate of the step.
    pub rate: f64,
    /// The first node that made it of finite inputs: its name and operator.
    pub node: Option<(String, String)>,
    /// What it made first, and what it was made of: names with the greatest magnitude.
    pub made: Vec<(String, f64)>,
}

impl fmt::Display for Diverged {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "step {} (epoch {}, rate {:e}) diverged",
            self.step, self.epoch, self.rate
        )?;
        let Some((node, op)) = &self.node else {
            return write!(f, ": what goes into it is not finite");
        };
        write!(
            f,
            ": the first that is not finite is made by node {node:?} ({op})"
        )?;
        let mut of = self
            .made
            .iter()
            .map(|(name, most)| format!("{name} up to {most:.3e}"));
        match of.next() {
            Some(first) => {
                let rest: Vec<_> = std::iter::once(first).chain(of).collect();
                write!(f, " of {}", rest.join(", "))
            }
            None => Ok(()),
        }?;
        write!(f, "; a smaller rate or clipping may help")
    }
}

impl Trainer<'_> {
    /// Whether all state is finite.
    pub(super) fn is_sound(&self) -> bool {
        self.now.state.iter().all(finite)
    }

    /// What went wrong since `anchor`: the steps are taken again, one by one, until one makes what is not finite.
    pub(super) fn diverged(&mut self, anchor: Progress) -> TrainError {
        let failed = self.now.log.clone();
        self.now = anchor;
        let position = self.now.log.position;
        let rest = self.train.epoch(position.epoch, position.batch);
        for batch in rest {
            let told = batch.map_err(TrainError::from).and_then(|b| self.again(&b));
            match told {
                Ok(None) => {}
                Ok(Some(found)) => return TrainError::diverged(found),
                Err(e) => return e,
            }
            if self.now.log.steps > failed.steps {
                break;
            }
        }
        TrainError::diverged(Diverged {
            step: failed.steps,
            epoch: failed.position.epoch + 1,
            rate: failed.rate,
            node: None,
            made: vec![],
        })
    }

    /// Takes a step again; what it made that is not finite.
    fn again(&mut self, batch: &Batch) -> Result<Option<Diverged>, TrainError> {
        let before = self.now.state.clone();
        let loss = self.take(batch)?;
        if loss.is_finite() && self.is_sound() {
            return Ok(None);
        }
        let log = &self.now.log;
        let (node, made) = self.culprit(&before, batch, log.rate)?;
        Ok(Some(Diverged {
            step: log.steps,
            epoch: log.position.epoch + 1,
            rate: log.rate,
            node,
            made,
        }))
    }

    /// The first node that makes what is not finite of what is, and the magnitudes of its inputs.
    fn culprit(
        &self,
        before: &[Tensor],
        batch: &Batch,
        rate: f64,
    ) -> Result<(Option<Culprit>, Vec<Extent>), TrainError> {
        let graph = &self.graph.model.graph;
        let made = graph.iter().flat_map(|(_, n)| n.outputs.iter().flatten());
        let names = made.map(|&v| graph[v].name.to_string());
        let builder = Session::builder(&self.graph.model)
            .unoptimized()
            .threads(self.course.threads);
        let outputs: Vec<String> = graph
            .outputs
            .iter()
            .map(|p| graph[p.value].name.to_string())
            .collect();
        let hidden = names.filter(|n| !outputs.contains(n));
        let session = hidden.fold(builder, |b, name| b.tap(name)).build()?;
        let rate = before
            .first()
            .and_then(|t| Tensor::rounded(t.dtype(), &[], &[rate]));
        let state = self
            .graph
            .state
            .iter()
            .map(|s| s.input.as_str())
            .zip(before.iter().cloned());
        let inputs = batch.inputs.iter().map(|(n, x)| (n.as_str(), x.clone()));
        let inputs = inputs.chain(self.teachers.labels(&self.graph.labels, batch)?);
        let inputs: HashMap<&str, Tensor> = state
            .chain(inputs)
            .chain(rate.map(|r| (self.graph.rate.as_str(), r)))
            .collect();
        let outputs = session.run(inputs.iter().map(|(n, x)| (*n, x)))?;
        let all = Values {
            trainer: self,
            inputs: &inputs,
            outputs: &outputs,
        };
        let nodes: Vec<&Node> = graph.iter().map(|(_, n)| n).collect();
        let guilty = |n: &&&Node| all.made(n).any(|t| !finite(t)) && all.read(n).all(|(_, t)| finite(t));
        Ok(match nodes.iter().find(guilty) {
            Some(n) => {
                let of = all.read(n).map(|(name, t)| (name.to_owned(), extent(t)));
                (Some((n.label().to_owned(), n.op.to_string())), of.collect())
            }
            None => (None, vec![]),
        })
    }
}

/// The name and operator of a node.
type Culprit = (String, String);

/// A value, and its greatest magnitude.
type Extent = (String, f64);

/// The values of a step.
struct Values<'a> {
    trainer: &'a Trainer<'a>,
    inputs: &'a HashMap<&'a str, Tensor>,
    outputs: &'a Outputs,
}

impl<'a> Values<'a> {
    fn of(&self, name: &str) -> Option<&'a Tensor> {
        self.inputs.get(name).or_else(|| self.outputs.get(name))
    }

    fn made(&self, n: &'a Node) -> impl Iterator<Item = &'a Tensor> {
        let graph = &self.trainer.graph.model.graph;
        n.outputs
            .iter()
            .flatten()
            .filter_map(|&v| self.of(&graph[v].name))
    }

    fn read(&self, n: &'a Node) -> impl Iterator<Item = (&'a str, &'a Tensor)> {
        let graph = &self.trainer.graph.model.graph;
        n.inputs.iter().flatten().filter_map(|&v| {
            let there = graph.konst(v).or_else(|| self.of(&graph[v].name));
            Some((&*graph[v].name, there?))
        })
    }
}

fn finite(t: &Tensor) -> bool {
    match t.elements::<f32>() {
        Some(x) => x.iter().all(|x| x.is_finite()),
        None => !t.dtype().is_float() || t.floats().is_none_or(|x| x.iter().all(|x| x.is_finite())),
    }
}

fn extent(t: &Tensor) -> f64 {
    let all = t.floats().unwrap_or_default();
    all.into_iter().map(f64::abs).fold(0.0, f64::max)
}
