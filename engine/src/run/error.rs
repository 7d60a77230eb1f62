//! What can go wrong between a model and its outputs.

use std::fmt;

use crate::ir::{Graph, Model, Opset, version};
use crate::ops;
use crate::opt;
use crate::opt::infer::{NodeError, full_name};
use crate::plan::PlanError;

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

/// All operators of `model` that the engine cannot run, its functions and subgraphs included.
pub fn unsupported(model: &Model) -> Vec<Unsupported> {
    let mut found = vec![];
    search(model, &model.graph, &model.opsets, &mut found);
    for f in &model.functions {
        search(model, &f.graph, &f.opsets, &mut found);
    }
    found
}

fn search(model: &Model, graph: &Graph, opsets: &[Opset], found: &mut Vec<Unsupported>) {
    for (_, node) in graph.iter() {
        for g in node.attrs.iter().flat_map(|a| a.value.graphs()) {
            search(model, g, opsets, found);
        }
        let opset = version(opsets, node.domain());
        let why = match ops::find(node.domain(), &node.op) {
            _ if opt::function(model, node).is_some() => continue,
            None => "the engine does not have it",
            Some(_) if opset.is_none() && node.domain() != "secateur" => {
                "the model does not import the operator's domain"
            }
            Some(op)
                if op
                    .since()
                    .first()
                    .is_some_and(|&first| opset.is_some_and(|v| v < first.into())) =>
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

impl From<PlanError> for RunError {
    fn from(e: PlanError) -> RunError {
        match e {
            PlanError::Run(e) => RunError(RunErrorKind::Node(e)),
            other => RunError(RunErrorKind::Plan(other)),
        }
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
