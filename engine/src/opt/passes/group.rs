//! Connected nodes that work element by element, as one.

use std::collections::{BTreeSet, HashMap};

use crate::cpu::program::{Code, Step};
use crate::ir::{DType, Graph, Links, Model, Node, NodeId, Patch, Shape, Value, ValueId};
use crate::ops::elementwise::{Formula, INPUTS, code};
use crate::opt::infer::{Facts, infer};
use crate::opt::{Pass, PassError, Report, Scope};

/// The most steps of a group, and the most values that others read of it.
const STEPS: usize = 64;
const OUTPUTS: usize = 12;

/// Makes one `secateur.Elementwise` of connected nodes that work element by element on floats of one shape, whatever is broadcast
/// to it. It is for graphs in which all other rules have found what they look for.
pub(crate) struct Group;

impl Pass for Group {
    fn name(&self) -> &'static str {
        "group"
    }

    fn run(&self, model: &mut Model, scope: Scope, report: &mut Report) -> Result<(), PassError> {
        if scope != Scope::Engine {
            return Ok(());
        }
        let facts = infer(model, &HashMap::new())?;
        let mut links = model.graph.links();
        for group in groups(&model.graph, &links, &facts) {
            let Some(patch) = joined(&model.graph, &links, &group) else {
                continue;
            };
            report.fired(self.name(), model.graph[group[group.len() - 1]].label());
            patch.apply_with(&mut model.graph, &mut links)?;
        }
        model.graph.sort();
        Ok(())
    }
}

/// What a node is as a step of a group, and the shape of what it makes.
fn step<'f>(graph: &Graph, facts: &'f Facts, id: NodeId) -> Option<(Code, &'f Shape)> {
    let node = &graph[id];
    let private = match &*node.op {
        "Lerp" => "secateur",
        _ => "",
    };
    let code = code(&node.op).filter(|_| node.domain() == private)?;
    let to_floats = |n: &Node| n.attr("to") == Some(&i64::from(DType::F32.code()).into());
    let plain = match code {
        Code::Cast => node.attrs.len() == 1 && to_floats(node),
        Code::Gelu => node.attrs.iter().all(|a| a.value == "none".into()),
        _ => node.attrs.is_empty(),
    };
    let [Some(y)] = node.outputs[..] else { return None };
    let of = |v: ValueId| facts.of(v).ty.dtype();
    let known = |v: &Option<ValueId>| v.is_some_and(|v| matches!(of(v), Some(DType::F32 | DType::Bool)));
    let fits = plain && node.inputs.len() == code.arity() && node.inputs.iter().all(known);
    // What casts truth values is a step, what casts anything else is not.
    let right = match code {
        Code::Cast => of(node.inputs[0]?) == Some(DType::Bool),
        Code::Where => of(y) == Some(DType::F32),
        _ => known(&Some(y)),
    };
    let shape = facts.of(y).ty.shape().filter(|_| fits && right)?;
    facts.konst(y).is_none().then_some((code, shape))
}

/// Nodes in groups, while these grow.
struct Groups<'a> {
    graph: &'a Graph,
    links: &'a Links,
    /// The place in the order of each node.
    place: HashMap<NodeId, usize>,
    /// The group of the node at each place, called by one of its places.
    of: Vec<usize>,
    members: Vec<Vec<usize>>,
}

/// The groups of more than one node, each in order.
fn groups(graph: &Graph, links: &Links, facts: &Facts) -> Vec<Vec<NodeId>> {
    let order = &graph.order;
    let mut all = Groups {
        graph,
        links,
        place: order.iter().enumerate().map(|(i, n)| (*n, i)).collect(),
        of: (0..order.len()).collect(),
        members: (0..order.len()).map(|i| vec![i]).collect(),
    };
    let steps: Vec<_> = order.iter().map(|&n| step(graph, facts, n)).collect();
    for (i, here) in steps.iter().enumerate() {
        let Some((_, shape)) = here else { continue };
        for p in all.before(i) {
            let alike = |(_, s): (Code, &Shape)| {
                s.len() == shape.len() && s.iter().zip(*shape).all(|(a, b)| a.same(b))
            };
            if steps[p].is_some_and(alike) {
                all.join(all.of[p], all.of[i]);
            }
        }
    }
    let groups = all.members.into_iter().filter(|m| m.len() > 1);
    groups
        .map(|m| m.into_iter().map(|i| order[i]).collect())
        .collect()
}

impl Groups<'_> {
    /// The places of the nodes that the one at place `i` reads from, subgraphs of it included.
    fn before(&self, i: usize) -> Vec<usize> {
        let node = &self.graph[self.graph.order[i]];
        let captured = node
            .attrs
            .iter()
            .flat_map(|a| a.value.graphs())
            .flat_map(Graph::captures);
        let captured = captured.filter_map(|name| self.graph.find(&name));
        let read = node.inputs.iter().flatten().copied().chain(captured);
        let producers = read.filter_map(|v| self.links.producer(v));
        producers
            .filter_map(|(n, _)| self.place.get(&n).copied())
            .collect()
    }

    /// Makes one of two groups, unless it would be too large or there is a way from one to the other through other nodes.
    fn join(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        let mut both = [&self.members[a][..], &self.members[b]].concat();
        both.sort_unstable();
        if both.len() > STEPS || !self.fits(&both) || self.between(a, b) {
            return;
        }
        both.iter().for_each(|&i| self.of[i] = a);
        self.members[b].clear();
        self.members[a] = both;
    }

    /// Whether nodes would not have too many inputs and outputs as one.
    fn fits(&self, members: &[usize]) -> bool {
        let nodes: Vec<_> = members.iter().map(|&i| self.graph.order[i]).collect();
        let (inputs, outputs) = ends(self.graph, self.links, &nodes);
        inputs.len() <= INPUTS && outputs.len() <= OUTPUTS
    }

    /// Whether some node outside follows from one of the groups while the other follows from it.
    fn between(&self, a: usize, b: usize) -> bool {
        let mut seen = vec![false; self.of.len()];
        let mut open = vec![];
        let visit = |group: usize, open: &mut Vec<usize>| {
            open.extend(
                self.members[group]
                    .iter()
                    .flat_map(|&i| self.before(i))
                    .map(|p| self.of[p]),
            );
        };
        visit(a, &mut open);
        visit(b, &mut open);
        open.retain(|&g| g != a && g != b);
        while let Some(g) = open.pop() {
            if g == a || g == b {
                return true;
            }
            if !std::mem::replace(&mut seen[g], true) {
                visit(g, &mut open);
            }
        }
        false
    }
}

/// What a group of nodes reads from others, and which of its values others read.
fn ends(graph: &Graph, links: &Links, group: &[NodeId]) -> (BTreeSet<ValueId>, Vec<ValueId>) {
    let made: Vec<ValueId> = group.iter().filter_map(|&n| graph[n].outputs[0]).collect();
    let read = group
        .iter()
        .flat_map(|&n| graph[n].inputs.iter().flatten().copied());
    let inputs = read.filter(|v| !made.contains(v)).collect();
    let outside = |v: &ValueId| links.kept(*v) || links.readers(*v).iter().any(|r| !group.contains(r));
    (inputs, made.iter().copied().filter(outside).collect())
}

/// What puts one node in the place of `group`.
fn joined(graph: &Graph, links: &Links, group: &[NodeId]) -> Option<Patch> {
    let (inputs, outputs) = ends(graph, links, group);
    let mut values: Vec<ValueId> = inputs.iter().copied().collect();
    let mut steps = vec![];
    for &id in group {
        let node = &graph[id];
        let mut step = Step {
            code: code(&node.op)?,
            args: [0; 3],
        };
        for (to, v) in step.args.iter_mut().zip(node.inputs.iter().flatten()) {
            *to = values.iter().position(|x| x == v)?;
        }
        steps.push(step);
        values.push(node.outputs[0]?);
    }
    let place = |v: &ValueId| values.iter().position(|x| x == v)?.checked_sub(inputs.len());
    let results = outputs.iter().map(place).collect::<Option<Vec<_>>>()?;
    let mut patch = Patch::new(graph);
    let new = outputs.iter().map(|&v| {
        let value = Value {
            name: graph[v].name.clone(),
            ty: graph[v].ty.clone(),
            konst: None,
        };
        patch.value(value)
    });
    let new: Vec<_> = new.collect();
    patch.nodes.push(Node {
        domain: Some("secateur".into()),
        name: graph[*group.last()?].name.clone(),
        attrs: Formula { steps, results }.attrs(),
        ..Node::new(
            "Elementwise",
            inputs.iter().copied().map(Some).collect(),
            new.iter().copied().map(Some).collect(),
        )
    });
    patch.replace = outputs.into_iter().zip(new).collect();
    patch.remove = group.to_vec();
    Some(patch)
}
