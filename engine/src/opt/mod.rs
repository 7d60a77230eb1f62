//! The optimiser: what rewrites a model, and in which order.
//!
//! Portable passes keep to the operators of the model's own opsets, so that any runtime loads the result. Engine passes
//! bring in secateur's private operators, whose kernels do several steps at once; each has a body in ONNX's own.

mod convert;
mod find;
pub mod infer;
mod inline;
mod passes;
mod pattern;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;

use crate::ir::{Flaw, Model, verify};
pub use convert::convert;
pub use find::Match;
pub use infer::{Facts, NodeError};
pub use inline::{function, inline};
pub use passes::{CLEANING, FUSING, PASSES};
use pattern::Index;
pub use pattern::Pattern;
pub use rules::{RULES, Rule, Site};

/// For whom the result of a rewrite is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// For every runtime: only operators that the model's opsets have.
    Portable,
    /// For this engine: private operators too.
    Engine,
}

/// Why a rule did not fire where its pattern was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// Nothing would change.
    NoEffect,
    /// A condition does not hold.
    No(&'static str),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Why::NoEffect => f.write_str("nothing would change"),
            Why::No(why) => f.write_str(why),
        }
    }
}

/// One rewrite that happened, or did not.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The rule or pass.
    pub rule: &'static str,
    /// The node, as it was called before.
    pub node: String,
    /// `None` where it fired.
    pub refused: Option<Why>,
}

/// What the passes did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Every rewrite, in order.
    pub events: Vec<Event>,
}

impl Report {
    fn fired(&mut self, rule: &'static str, node: impl Into<String>) {
        self.events.push(Event {
            rule,
            node: node.into(),
            refused: None,
        });
    }

    fn refused(&mut self, rule: &'static str, node: impl Into<String>, why: Why) {
        let event = Event {
            rule,
            node: node.into(),
            refused: Some(why),
        };
        if !self.events.contains(&event) {
            self.events.push(event);
        }
    }

    /// Drops refusals that were overcome later, that are of nodes that are gone, or that were said before.
    fn settle(&mut self, graph: &crate::ir::Graph) {
        let nodes: HashSet<&str> = graph.iter().map(|(_, n)| n.label()).collect();
        let fired = self.events.iter().filter(|e| e.refused.is_none());
        let fired: HashSet<_> = fired.map(|e| (e.rule, e.node.clone())).collect();
        let mut said = HashSet::new();
        self.events.retain(|e| {
            let open = nodes.contains(&*e.node) && !fired.contains(&(e.rule, e.node.clone()));
            e.refused.is_none() || (open && said.insert((e.rule, e.node.clone(), e.refused)))
        });
    }

    /// Whether anything changed.
    pub fn changed(&self) -> bool {
        self.events.iter().any(|e| e.refused.is_none())
    }

    /// How often each rule fired.
    pub fn counts(&self) -> std::collections::BTreeMap<&'static str, usize> {
        let mut counts = std::collections::BTreeMap::new();
        for e in self.events.iter().filter(|e| e.refused.is_none()) {
            *counts.entry(e.rule).or_insert(0) += 1;
        }
        counts
    }
}

/// Why a model cannot be optimised.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PassError {
    /// A node that does not fit its operator.
    Node(NodeError),
    /// A graph that is not well formed.
    Flaw(Flaw),
}

impl fmt::Display for PassError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            PassError::Node(e) => e.fmt(f),
            PassError::Flaw(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for PassError {}

impl From<NodeError> for PassError {
    fn from(e: NodeError) -> Self {
        PassError::Node(e)
    }
}

impl From<Flaw> for PassError {
    fn from(e: Flaw) -> Self {
        PassError::Flaw(e)
    }
}

/// One step of a pipeline.
pub trait Pass: Sync {
    /// The name, as reports show it.
    fn name(&self) -> &'static str;
    /// Rewrites `model`, going only as far as `scope` allows.
    ///
    /// # Errors
    ///
    /// If a node does not fit its operator, or the graph is not well formed.
    fn run(&self, model: &mut Model, scope: Scope, report: &mut Report) -> Result<(), PassError>;
}

/// Puts the nodes in order, and lets no input stand for an initialiser where the caller could not replace it anyway: before
/// IR version 4 every initialiser had to be an input.
fn prepare(model: &mut Model, report: &mut Report) {
    let graph = &mut model.graph;
    let before = graph.order.clone();
    graph.sort();
    if graph.order != before {
        report.fired("sort", "");
    }
    if model.ir_version.is_some_and(|v| v < 4) {
        let constant = |p: &crate::ir::Port| graph.values[p.value.0 as usize].konst.is_some();
        if graph.inputs.iter().any(constant) {
            let values = &graph.values;
            graph
                .inputs
                .retain(|p| values[p.value.0 as usize].konst.is_none());
            model.ir_version = Some(4);
            report.fired("initializers", "");
        }
    }
}

/// Passes are repeated until none changes anything, but not more often than this.
const ROUNDS: usize = 8;

/// Optimises `model` in place as far as `scope` allows, with all of [`PASSES`].
///
/// # Errors
///
/// If a node does not fit its operator, or the graph is not well formed. The model is then between two passes.
pub fn optimize(model: &mut Model, scope: Scope) -> Result<Report, PassError> {
    apply(model, scope, PASSES)
}

/// Optimises `model` for this engine, and in the end makes one of nodes that work element by element, which no rule would find its
/// patterns in any more.
///
/// # Errors
///
/// As [`optimize`].
pub fn ready(model: &mut Model) -> Result<Report, PassError> {
    let mut report = optimize(model, Scope::Engine)?;
    // What was refused stays said, though the nodes are steps of others now.
    let grouped = apply(model, Scope::Engine, &[&passes::Group])?;
    report.events.extend(grouped.events);
    Ok(report)
}

/// Repeats `passes` over `model` until none changes anything.
///
/// # Errors
///
/// As [`optimize`].
pub fn apply(model: &mut Model, scope: Scope, passes: &[&dyn Pass]) -> Result<Report, PassError> {
    let mut report = Report::default();
    prepare(model, &mut report);
    verify(&model.graph)?;
    for _ in 0..ROUNDS {
        let mut round = Report::default();
        for pass in passes {
            pass.run(model, scope, &mut round)?;
            verify(&model.graph)?;
        }
        let changed = round.changed();
        report.events.append(&mut round.events);
        if !changed {
            break;
        }
    }
    report.settle(&model.graph);
    Ok(report)
}
