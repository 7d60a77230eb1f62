//! What a graph must satisfy whatever its operators mean.

use std::collections::HashSet;
use std::fmt;

use super::{Graph, Name, ValueId};

/// Something wrong with a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Flaw {
    /// Where.
    pub place: String,
    /// What, as the rest of a sentence about the place.
    pub what: String,
}

impl Flaw {
    /// A flaw of `place`.
    pub fn new(place: impl Into<String>, what: impl Into<String>) -> Flaw {
        Flaw {
            place: place.into(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.place, self.what)
    }
}

impl std::error::Error for Flaw {}

/// Checks that each value has at most one definition, that every node comes after the producers of its inputs, and that
/// whatever is read is defined here or in a graph around.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn verify(graph: &Graph) -> Result<(), Flaw> {
    shallow(graph)?;
    within(graph, &HashSet::new())
}

/// Subgraphs within subgraphs may be this deep.
pub(crate) const DEPTH: usize = 64;

/// Checks that subgraphs are not nested too deep for what walks them, by level.
///
/// # Errors
///
/// If they are.
pub(crate) fn shallow(graph: &Graph) -> Result<(), Flaw> {
    let mut level = vec![graph];
    for _ in 0..=DEPTH {
        let nodes = level.iter().flat_map(|g| g.iter());
        level = nodes
            .flat_map(|(_, n)| n.attrs.iter().flat_map(|a| a.value.graphs()))
            .collect();
        if level.is_empty() {
            return Ok(());
        }
    }
    Err(Flaw::new(
        "subgraphs",
        format!("are nested more than {DEPTH} deep"),
    ))
}

fn within(graph: &Graph, outer: &HashSet<Name>) -> Result<(), Flaw> {
    single(graph)?;
    readable(graph, outer)
}

/// Checks that nothing is defined twice.
fn single(graph: &Graph) -> Result<(), Flaw> {
    let mut names = HashSet::new();
    let initializers = graph.initializers.iter().copied().filter(|&v| !graph.is_input(v));
    let made = graph
        .iter()
        .flat_map(|(_, n)| n.outputs.iter().flatten().copied());
    for v in graph
        .inputs
        .iter()
        .map(|p| p.value)
        .chain(initializers)
        .chain(made)
    {
        if !names.insert(&graph[v].name) {
            return Err(Flaw::new(
                format!("value {:?}", graph[v].name),
                "is defined twice",
            ));
        }
    }
    let mut seen = HashSet::new();
    match graph.iter().find(|(id, _)| !seen.insert(*id)) {
        Some((_, node)) => Err(Flaw::new(
            format!("node {:?}", node.label()),
            "stands twice in the order",
        )),
        None => Ok(()),
    }
}

/// Checks that everything is defined before it is read.
fn readable(graph: &Graph, outer: &HashSet<Name>) -> Result<(), Flaw> {
    let mut defined = vec![false; graph.values.len()];
    let mut names = outer.clone();
    let start = graph
        .inputs
        .iter()
        .map(|p| p.value)
        .chain(graph.initializers.iter().copied());
    for v in start {
        defined[v.0 as usize] = true;
        names.insert(graph[v].name.clone());
    }
    let known = |defined: &[bool], v: ValueId| defined[v.0 as usize] || outer.contains(&graph[v].name);
    for (_, node) in graph.iter() {
        if let Some(v) = node.inputs.iter().flatten().find(|v| !known(&defined, **v)) {
            return Err(Flaw::new(
                format!("node {:?} ({})", node.label(), node.op),
                format!(
                    "reads value {:?}, which nothing before it defines",
                    graph[*v].name
                ),
            ));
        }
        for g in node.attrs.iter().flat_map(|a| a.value.graphs()) {
            within(g, &names)?;
        }
        for &v in node.outputs.iter().flatten() {
            defined[v.0 as usize] = true;
            names.insert(graph[v].name.clone());
        }
    }
    match graph.outputs.iter().find(|p| !known(&defined, p.value)) {
        Some(p) => Err(Flaw::new(
            format!("output {:?}", graph[p.value].name),
            "is not defined",
        )),
        None => Ok(()),
    }
}
