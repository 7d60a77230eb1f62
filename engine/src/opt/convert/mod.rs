//! Another version of an operator set: every node written as the new version has it, its meaning kept.
//!
//! A graph goes from version to version, one at a time. What changes for an operator between two neighbouring versions
//! stands in [`table`]; an operator that the older version lacks is written out by its constant outputs or its body.
//! Element types that a version added need no change on the way up, and are refused on the way down.

mod body;
mod form;
mod inputs;
mod meaning;
mod resize;
mod site;
mod table;
mod types;

use std::collections::HashSet;

use super::infer::{Facts, full_name, infer_node, known_inputs};
use super::{PassError, Report};
use crate::ir::{DType, Flaw, Graph, Model, Name, Node, NodeId, Opset, Type, ValueId, version};
use crate::ops::{self, OpError};
use site::Site;
use table::{Change, ROWS, Row};
use types::TYPES;

/// Older versions of ONNX's own operators than this are read, but not written.
const OLDEST: i64 = 7;

/// Writes `model` in version `to` of the operator set `domain` (`""` is ONNX's own), in subgraphs and functions too. A
/// domain that is not imported stays out.
///
/// # Errors
///
/// If a node cannot be said in that version: the error names it, and what stands against it. The model is then as it was.
pub fn convert(model: &mut Model, domain: &str, to: i64) -> Result<Report, PassError> {
    let mut report = Report::default();
    supported(domain, to)?;
    let mut new = model.clone();
    let mut names = Names::of(&new);
    if let Some(from) = new.opset(domain).filter(|&v| v != to) {
        supported_source(domain, from)?;
        let facts = facts(&new.graph, &new.opsets, None);
        let mut all = Conversion {
            model,
            opsets: new.opsets.clone(),
            domain,
            from,
            to,
            names: &mut names,
            report: &mut report,
        };
        all.graph(&mut new.graph, facts)?;
        import(&mut new.opsets, domain, to);
    }
    for f in &mut new.functions {
        let Some(from) = version(&f.opsets, domain).filter(|&v| v != to) else {
            continue;
        };
        supported_source(domain, from)?;
        let facts = facts(&f.graph, &f.opsets, None);
        let mut all = Conversion {
            model,
            opsets: f.opsets.clone(),
            domain,
            from,
            to,
            names: &mut names,
            report: &mut report,
        };
        all.graph(&mut f.graph, facts)?;
        import(&mut f.opsets, domain, to);
    }
    *model = new;
    Ok(report)
}

fn supported(domain: &str, to: i64) -> Result<(), Flaw> {
    let place = || Flaw::new(format!("opset {to}"), String::new());
    match domain {
        "" if to > ops::OPSET => Err(Flaw {
            what: format!("is not known here; the newest is {}", ops::OPSET),
            ..place()
        }),
        "" if to < OLDEST => Err(Flaw {
            what: format!("is not written; the oldest is {OLDEST}"),
            ..place()
        }),
        _ => Ok(()),
    }
}

fn supported_source(domain: &str, from: i64) -> Result<(), Flaw> {
    match domain {
        "" if !(1..=ops::OPSET).contains(&from) => Err(Flaw::new(
            format!("opset {from}"),
            format!("is not known here; the newest is {}", ops::OPSET),
        )),
        _ => Ok(()),
    }
}

fn import(opsets: &mut [Opset], domain: &str, to: i64) {
    for o in opsets {
        let own = o.domain.as_deref().unwrap_or("");
        if own == domain || (own == "ai.onnx" && domain.is_empty()) {
            o.version = Some(to);
        }
    }
}

/// The names of all values, so that new ones are new everywhere.
struct Names {
    used: HashSet<Name>,
    next: usize,
}

impl Names {
    fn of(model: &Model) -> Names {
        let mut used = HashSet::new();
        collect(&model.graph, &mut used);
        model.functions.iter().for_each(|f| collect(&f.graph, &mut used));
        Names { used, next: 0 }
    }

    fn fresh(&mut self, stem: &str) -> Name {
        loop {
            self.next += 1;
            let name: Name = format!("{stem}/{}", self.next).into();
            if self.used.insert(name.clone()) {
                return name;
            }
        }
    }
}

fn collect(graph: &Graph, used: &mut HashSet<Name>) {
    used.extend(graph.values.iter().map(|v| v.name.clone()));
    for (_, node) in graph.iter() {
        node.attrs
            .iter()
            .flat_map(|a| a.value.graphs())
            .for_each(|g| collect(g, used));
    }
}

/// What is known of the values of `graph`, which stands in another. Nodes that do not fit leave their outputs unknown:
/// a conversion is no check.
fn facts(graph: &Graph, opsets: &[Opset], around: Option<(&Graph, &Facts)>) -> Facts {
    let inside = Model {
        graph: graph.clone(),
        opsets: opsets.to_vec(),
        ..Model::default()
    };
    let mut facts = Facts::initial(graph);
    known_inputs(graph, &mut facts);
    if let Some((outer, known)) = around {
        let names = outer.names();
        for name in graph.captures() {
            if let (Some(v), Some(&o)) = (graph.find(&name), names.get(&name)) {
                facts.set(v, known.of(o).clone(), known.konst(o).cloned());
            }
        }
    }
    for (_, node) in graph.iter() {
        // A node that cannot be understood is refused where its meaning changes, and only there.
        let _ = infer_node(&inside, node, &mut facts);
    }
    facts
}

/// One operator set on its way from a version to another.
struct Conversion<'a> {
    model: &'a Model,
    opsets: Vec<Opset>,
    domain: &'a str,
    from: i64,
    to: i64,
    names: &'a mut Names,
    report: &'a mut Report,
}

impl Conversion<'_> {
    fn graph(&mut self, graph: &mut Graph, mut facts: Facts) -> Result<(), PassError> {
        self.subgraphs(graph, &facts)?;
        self.check(graph, &facts)?;
        if !self.domain.is_empty() {
            return Ok(());
        }
        let before = read(graph);
        match self.from < self.to {
            true => {
                for v in self.from + 1..=self.to {
                    self.sweep(graph, &mut facts, v - 1, v)?;
                }
            }
            false => {
                for v in (self.to..self.from).rev() {
                    self.sweep(graph, &mut facts, v + 1, v)?;
                }
            }
        }
        drop_unread(graph, &before);
        Ok(())
    }

    fn subgraphs(&mut self, graph: &mut Graph, known: &Facts) -> Result<(), PassError> {
        for id in graph.order.clone() {
            let mut attrs = std::mem::take(&mut graph[id].attrs);
            let inner = attrs.iter_mut().flat_map(|a| a.value.graphs_mut());
            let done = inner.into_iter().try_for_each(|g| {
                let inside = facts(g, &self.opsets, Some((graph, known)));
                self.graph(g, inside)
            });
            graph[id].attrs = attrs;
            done?;
        }
        Ok(())
    }

    /// Whether the conversion speaks of `node`.
    fn concerns(&self, node: &Node) -> bool {
        node.domain() == self.domain && super::function(self.model, node).is_none()
    }

    /// Refuses operators that nobody knows, types that the target lacks, and versions of other domains that differ.
    fn check(&self, graph: &Graph, facts: &Facts) -> Result<(), PassError> {
        for (_, node) in graph.iter().filter(|(_, n)| self.concerns(n)) {
            let wrong = |what: String| facts.error(graph, node, self.from, OpError::new(what));
            let Some(op) = ops::find(node.domain(), &node.op) else {
                return Err(wrong("the operator is unknown, so nobody can say what changes".into()).into());
            };
            let meaning = |v: i64| op.since().iter().rev().find(|&&s| i64::from(s) <= v);
            if !self.domain.is_empty() && meaning(self.from) != meaning(self.to) {
                let (domain, to) = (self.domain, self.to);
                return Err(wrong(format!("version {to} of {domain} gives it another meaning")).into());
            }
            let ends = node.inputs.iter().chain(&node.outputs).flatten();
            let young = ends
                .filter_map(|v| facts.of(*v).ty.dtype())
                .find(|&d| self.domain.is_empty() && (self.to + 1..=self.from).contains(&born(d)));
            if let Some(d) = young {
                let what = format!("opset {} has no {d}, which came with opset {}", self.to, born(d));
                return Err(wrong(what).into());
            }
        }
        Ok(())
    }

    /// Takes all nodes from version `at` to its neighbour `to`.
    fn sweep(&mut self, graph: &mut Graph, facts: &mut Facts, at: i64, to: i64) -> Result<(), PassError> {
        let rows: Vec<_> = ROWS.iter().filter(|r| r.at == at.max(to)).collect();
        let mut order = vec![];
        for id in std::mem::take(&mut graph.order) {
            let node = &graph[id];
            let change = match self.concerns(node) {
                true => change_of(&rows, node, [at, to]),
                false => None,
            };
            let Some(change) = change else {
                order.push(id);
                continue;
            };
            let node = node.clone();
            let made = self.step(graph, facts, &rows, (node, change), [at, to])?;
            if made == [graph[id].clone()] {
                order.push(id);
                continue;
            }
            self.report.fired("opset", graph[id].label());
            let start = graph.nodes.len() as u32;
            graph.nodes.extend(made);
            order.extend((start..graph.nodes.len() as u32).map(NodeId));
        }
        graph.order = order;
        Ok(())
    }

    /// The nodes that say in version `to` what one says in version `at`.
    fn step(
        &mut self,
        graph: &mut Graph,
        facts: &mut Facts,
        rows: &[&Row],
        (node, change): (Node, Change),
        [at, to]: [i64; 2],
    ) -> Result<Vec<Node>, PassError> {
        let mut site = Site::new(graph, facts, self.names, [at, to], &node);
        let new_type = site
            .type_of(&node, 0)
            .filter(|&d| to < at && added(&node.op, at, d));
        let done = match new_type.filter(|_| !matches!(change, Change::Body)) {
            Some(d) => Err(format!("it is of {d}")),
            None => change.apply(&mut site, node.clone()),
        };
        if let Err(why) = done {
            let what = format!("opset {to} cannot say this {}: {why}", full_name(&node));
            return Err(facts.error(graph, &node, at, OpError::new(what)).into());
        }
        let made = site.finish();
        if !matches!(change, Change::Body) {
            return Ok(made);
        }
        // A body is written in the version that its operator was read by.
        let mut all = vec![];
        for node in made {
            match change_of(rows, &node, [at, to]) {
                Some(change) => all.extend(self.step(graph, facts, rows, (node, change), [at, to])?),
                None => all.push(node),
            }
        }
        Ok(all)
    }
}

/// What happens to `node` between two neighbouring versions.
fn change_of(rows: &[&Row], node: &Node, [at, to]: [i64; 2]) -> Option<Change> {
    let newer = at.max(to);
    let row = rows.iter().find(|r| r.ops.contains(&&*node.op));
    match row.map_or(Change::Same, |r| if to > at { r.up } else { r.down }) {
        Change::Same => {}
        change => return Some(change),
    }
    let first = ops::find("", &node.op).and_then(|op| op.since().first().copied());
    if to < at && first.is_some_and(|f| i64::from(f) == newer) {
        return Some(Change::Body);
    }
    if to < at && TYPES.iter().any(|t| t.0 == &*node.op && t.1 == at) {
        // Nothing changes but the types that it may be of.
        return Some(Change::Free(&[]));
    }
    let consumed = to > at && newer == 6 && node.attr("consumed_inputs").is_some();
    consumed.then_some(Change::Free(&["consumed_inputs"]))
}

/// Whether version `at` of `op` is the first that takes `dtype`.
fn added(op: &str, at: i64, dtype: DType) -> bool {
    let bit = u32::try_from(dtype.code())
        .ok()
        .and_then(|c| 1u32.checked_shl(c))
        .unwrap_or(0);
    TYPES.iter().any(|t| t.0 == op && t.1 == at && t.2 & bit != 0)
}

/// The version that brought an element type.
fn born(d: DType) -> i64 {
    use DType::*;
    match d {
        BF16 => 13,
        F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ => 19,
        U4 | I4 => 21,
        F4E2M1 => 23,
        F8E8M0 => 24,
        U2 | I2 => 25,
        _ => 1,
    }
}

/// Whether each value is read.
fn read(graph: &Graph) -> Vec<bool> {
    let links = graph.links();
    (0..graph.values.len() as u32)
        .map(|v| !links.readers(ValueId(v)).is_empty() || links.kept(ValueId(v)))
        .collect()
}

/// Drops the constants that were read before and are not any more.
fn drop_unread(graph: &mut Graph, before: &[bool]) {
    let now = read(graph);
    let gone = |v: ValueId| before.get(v.0 as usize).is_none_or(|&r| r) && !now[v.0 as usize];
    let inputs: Vec<_> = graph.inputs.iter().map(|p| p.value).collect();
    graph.initializers.retain(|&v| !gone(v) || inputs.contains(&v));
    let kept = graph.initializers.clone();
    for (i, value) in graph.values.iter_mut().enumerate() {
        if value.konst.is_some() && !kept.contains(&ValueId(i as u32)) {
            value.konst = None;
        }
    }
    let nodes = &graph.nodes;
    graph.order.retain(|id| {
        let node = &nodes[id.0 as usize];
        !(node.is("Constant") && node.outputs.iter().flatten().all(|&v| gone(v)))
    });
}

/// Whether a type is a tensor type of known sizes without elements.
fn is_nothing(ty: &Type) -> bool {
    ty.shape().is_some_and(|s| s.iter().any(|d| d.known() == Some(0)))
}
