//! `Scan` and `Loop`: the way back is a `Scan` over what each turn kept, from the last to the first.

use secateur_engine::expr::{Builder, Call};
use secateur_engine::ir::{Attr, AttrValue, DType, Dim, Graph, Model, Node, NodeId, Type, ValueId};
use secateur_engine::ops::{Fact, NodeRef};
use secateur_engine::opt::Facts;

use super::close::{Closed, Undone, added, call, identity, prune, rename, zeros};
use super::{Forward, Site, body};
use crate::DiffError;
use crate::reach::differentiable;

/// How inputs and outputs are divided.
#[derive(Clone)]
struct Layout {
    /// Inputs before the states: none, or the trip count and the condition.
    lead: usize,
    /// Outputs of the body before the states: none, or the condition.
    skip: usize,
    states: usize,
    /// Axes of the inputs that are taken slice by slice, and whether from the last to the first.
    scans: Vec<(i64, i64)>,
    /// The same of the outputs that are stacked.
    stacks: Vec<(i64, i64)>,
}

fn layout(node: &Node, body: &Graph) -> Option<Layout> {
    let ints = |name: &str, count: usize| match node.attr(name) {
        Some(AttrValue::Ints(all)) if all.len() == count => all.clone(),
        _ => vec![0; count],
    };
    let pairs = |what: &str, count: usize| {
        let both = ["axes", "directions"].map(|kind| ints(&format!("scan_{what}_{kind}"), count));
        both[0].iter().copied().zip(both[1].iter().copied()).collect()
    };
    let mut l = Layout {
        lead: 0,
        skip: 0,
        states: 0,
        scans: vec![],
        stacks: vec![],
    };
    if node.is("Loop") {
        (l.lead, l.skip) = (2, 1);
        l.states = node.inputs.len().saturating_sub(2);
    } else {
        let Some(AttrValue::Int(count)) = node.attr("num_scan_inputs") else {
            return None;
        };
        let scans = usize::try_from(count.unwrap_or(0)).ok()?;
        l.states = node.inputs.len().checked_sub(scans)?;
        l.scans = pairs("input", scans);
    }
    let stacks = body.outputs.len().checked_sub(l.skip + l.states)?;
    l.stacks = pairs("output", stacks);
    Some(l)
}

/// The body with inputs of the types that hold for every turn.
fn settled(model: &Model, facts: &Facts, node: &Node) -> Result<Option<(Layout, Closed)>, DiffError> {
    let Some(body) = body(node, "body") else {
        return Ok(None);
    };
    let Some(l) = layout(node, body) else {
        return Ok(None);
    };
    let fact = |i: usize| node.inputs[i].map_or_else(Fact::unknown, |v| facts.of(v).clone());
    let lead = [DType::I64, DType::Bool]
        .map(|d| Type::tensor(d, [0usize; 0]))
        .into_iter();
    let states = (l.lead..l.lead + l.states).map(|i| fact(i).ty);
    let slices = l.scans.iter().enumerate();
    let slices = slices.map(|(i, (axis, _))| fact(l.states + i).slice(*axis).ty);
    let mut given: Vec<Type> = lead.take(l.lead).chain(states).chain(slices).collect();
    let closed = Closed::new(model, facts, body, &given);
    let made = closed.facts()?;
    let mut changes = false;
    for i in 0..l.states {
        let out = &made.of(body.outputs[l.skip + i].value).ty;
        if *out != given[l.lead + i] {
            // What is carried may change its shape from turn to turn.
            given[l.lead + i] = Fact::from(given[l.lead + i].clone()).without_shape().ty;
            changes = true;
        }
    }
    Ok(Some(match changes {
        true => (l, Closed::new(model, facts, body, &given)),
        false => (l, closed),
    }))
}

/// What is known of the outputs of `node`, if it takes turns: more than inference says.
pub(crate) fn outputs(model: &Model, facts: &Facts, node: &Node) -> Result<Vec<Fact>, DiffError> {
    if !node.is("Loop") && !node.is("Scan") {
        return Ok(vec![]);
    }
    let Some((l, closed)) = settled(model, facts, node)? else {
        return Ok(vec![]);
    };
    let (made, graph) = (closed.facts()?, &closed.model.graph);
    let turns = match l.scans.first() {
        Some(&(axis, _)) => {
            let shape = node.inputs[l.states].and_then(|v| facts.of(v).ty.shape());
            let at = shape.and_then(|s| Some((s, NodeRef::axis(axis, s.len()).ok()?)));
            at.map_or(Dim::Unknown, |(s, axis)| s[axis].clone())
        }
        None => {
            let first = node.outputs.iter().flatten().next();
            first.map_or(Dim::Unknown, |v| {
                Dim::symbol(format!("turns of {}", model.graph[*v].name))
            })
        }
    };
    let state = |i: usize| Fact::from(made.of(graph.inputs[l.lead + i].value).ty.clone());
    let stack = |(i, (axis, _)): (usize, &(i64, i64))| {
        let ty = &made.of(graph.outputs[l.skip + l.states + i].value).ty;
        let shape = ty.shape().and_then(|s| {
            let mut shape = s.clone();
            shape.insert(NodeRef::axis(*axis, s.len() + 1).ok()?, turns.clone());
            Some(shape)
        });
        Fact::tensor(ty.dtype(), shape)
    };
    let stacks = l.stacks.iter().enumerate().map(stack);
    Ok((0..l.states).map(state).chain(stacks).collect())
}

/// The backward `Scan`.
pub(crate) struct Backward {
    body: Graph,
    layout: Layout,
    /// The states that have gradients.
    states: Vec<usize>,
    /// What is captured and has a gradient, which is summed up.
    sums: Vec<ValueId>,
    /// What the turns kept.
    kept: Vec<ValueId>,
    /// The scan inputs that are read again.
    again: Vec<usize>,
    /// The stacks that have gradients.
    stacks: Vec<usize>,
    /// The scan inputs that gradients are made of.
    scans: Vec<usize>,
}

/// Makes what is carried and never changes something that is captured. Outputs that nobody reads go, unless they are `kept`.
pub(super) fn hoist(model: &mut Model, id: NodeId, kept: &dyn Fn(ValueId) -> bool) {
    let links = model.graph.links();
    let node = model.graph[id].clone();
    let Some(mut body) = body(&node, "body").cloned() else {
        return;
    };
    let Some(l) = layout(&node, &body) else { return };
    let (mut new, mut copies) = (node.clone(), vec![]);
    for i in (0..l.states).rev() {
        let (from, to) = (body.inputs[l.lead + i].value, body.outputs[l.skip + i].value);
        let (Some(outer), true) = (node.inputs[l.lead + i], from == to) else {
            continue;
        };
        let name = &model.graph[outer].name;
        if body.find(name).is_some_and(|v| v != from) {
            continue;
        }
        call(&mut body, [(from, name)].into_iter());
        body.inputs.remove(l.lead + i);
        body.outputs.remove(l.skip + i);
        new.inputs.remove(l.lead + i);
        if i < new.outputs.len()
            && let Some(y) = new.outputs.remove(i)
            && (kept(y) || links.kept(y) || !links.readers(y).is_empty())
        {
            copies.push((outer, y));
        }
    }
    new.set("body", AttrValue::Graph(Box::new(body)));
    model.graph[id] = new;
    for (x, y) in copies {
        model
            .graph
            .node(Node::new("Identity", vec![Some(x)], vec![Some(y)]));
    }
    model.graph.sort();
}

/// Divides a `Loop` or `Scan`.
pub(super) fn apart(site: &Site) -> Result<(Forward, Backward), DiffError> {
    let settled = settled(site.model, site.facts(), site.node())?;
    let (l, mut closed) = settled.ok_or_else(|| site.wrong("the subgraph does not fit"))?;
    let inputs: Vec<_> = closed.model.graph.inputs.iter().map(|p| p.value).collect();
    let outputs: Vec<_> = closed.model.graph.outputs.iter().map(|p| p.value).collect();
    let types = closed.facts()?;
    let states = (0..l.states).filter(|i| differentiable(&types.of(inputs[l.lead + i]).ty));
    let states: Vec<_> = states.collect();
    let outer = |i: usize| site.node().inputs[l.states + i];
    let wanted = (0..l.scans.len()).filter(|&i| outer(i).is_some_and(|v| site.reach.wanted(v)));
    let scans: Vec<_> = wanted.collect();
    let mut by: Vec<_> = states.iter().map(|i| inputs[l.lead + i]).collect();
    by.extend(scans.iter().map(|i| inputs[l.states + i]));
    by.extend(closed.wanted(site).map(|(inner, _)| inner));
    let undone = closed.differentiate(site, &outputs[l.skip..], &by)?;
    let scans: Vec<_> = scans
        .into_iter()
        .filter(|i| undone.of(inputs[l.states + i]).is_some())
        .collect();
    let mut kept: Vec<_> = undone.split.kept(&closed.model.graph).collect();
    let crosses = |v: &ValueId| undone.split.crossing.contains(v);
    kept.extend(inputs[..l.lead + l.states].iter().filter(|v| crosses(v)));
    let mut again: Vec<_> = (0..l.scans.len())
        .filter(|i| crosses(&inputs[l.states + i]))
        .collect();
    let stacks = (0..l.stacks.len()).filter(|i| undone.dy[l.states + i].is_some());
    let stacks: Vec<_> = stacks.collect();
    if kept.is_empty() && again.is_empty() && stacks.is_empty() {
        // Something must say how many turns there were.
        match l.scans.is_empty() {
            true => kept.push(inputs[0]),
            false => again.push(0),
        }
    }
    let sums = closed.captured.iter().copied();
    let sums: Vec<_> = sums.filter(|(inner, _)| undone.of(*inner).is_some()).collect();
    let mut graph = closed.backward(&undone.split);
    let parts = Parts {
        types: &types,
        undone: &undone,
        states: states
            .iter()
            .map(|&i| (inputs[l.lead + i], undone.dy[i]))
            .collect(),
        sums: sums.iter().map(|(inner, _)| *inner).collect(),
        slices: kept
            .iter()
            .copied()
            .chain(again.iter().map(|i| inputs[l.states + i]))
            .chain(stacks.iter().filter_map(|i| undone.dy[l.states + i]))
            .collect(),
        scans: scans.iter().map(|i| inputs[l.states + i]).collect(),
    };
    parts
        .write(&mut graph)
        .ok_or_else(|| site.wrong("what it carries has no known type"))?;
    prune(&mut graph);
    rename(&mut graph, 0, &site.name("b"));
    let base = site.model.graph.values.len() as u32;
    let back = Backward {
        body: graph,
        states,
        sums: sums.iter().map(|(_, outer)| *outer).collect(),
        kept: (base..base + kept.len() as u32).map(ValueId).collect(),
        again,
        stacks,
        scans,
        layout: l.clone(),
    };
    Ok((forward(site, &l, &closed, &undone, &kept), back))
}

fn forward(site: &Site, l: &Layout, closed: &Closed, undone: &Undone, kept: &[ValueId]) -> Forward {
    let graph = closed.forward(site, &undone.split, kept);
    let mut attrs = vec![("body", AttrValue::Graph(Box::new(graph)))];
    if site.node().is("Scan") {
        let more = vec![(0, 0); kept.len()];
        let (axes, directions) = unzip(&[&l.stacks[..], &more].concat());
        attrs.push(("scan_output_axes", axes));
        attrs.push(("scan_output_directions", directions));
    }
    Forward {
        attrs,
        outputs: l.states + l.stacks.len(),
        kept: (0..kept.len()).map(|i| site.name(&format!("kept{i}"))).collect(),
    }
}

fn unzip(pairs: &[(i64, i64)]) -> (AttrValue, AttrValue) {
    let (axes, directions): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
    (AttrValue::Ints(axes), AttrValue::Ints(directions))
}

/// What the backward body is made of, as values of the differentiated body.
struct Parts<'a> {
    types: &'a Facts,
    undone: &'a Undone,
    /// States, with the gradients of what they become.
    states: Vec<(ValueId, Option<ValueId>)>,
    sums: Vec<ValueId>,
    /// What is read slice by slice.
    slices: Vec<ValueId>,
    scans: Vec<ValueId>,
}

impl Parts<'_> {
    /// Makes inputs and outputs.
    fn write(&self, graph: &mut Graph) -> Option<()> {
        let mut outputs = vec![];
        for &(x, dy) in &self.states {
            // The gradient of what is no float any more after a turn is not read.
            let dy = dy.unwrap_or_else(|| graph.value(graph.fresh("dy")));
            take(graph, dy);
            let dx = match self.undone.of(x) {
                Some(dx) => identity(graph, dx),
                None => zeros(graph, dy, &self.types.of(x).ty)?,
            };
            outputs.push((dx, None));
        }
        for &x in &self.sums {
            let so_far = graph.value(graph.fresh("sum"));
            take(graph, so_far);
            outputs.push((added(graph, "Add", &[so_far, self.undone.of(x)?]), None));
        }
        self.slices.iter().for_each(|&v| take(graph, v));
        for &x in &self.scans {
            let dx = identity(graph, self.undone.of(x)?);
            // Of no turns a stack has this type.
            outputs.push((dx, Some(self.types.of(x).ty.clone())));
        }
        outputs.into_iter().for_each(|(v, ty)| graph.output(v, ty));
        Some(())
    }
}

fn take(graph: &mut Graph, value: ValueId) {
    graph.inputs.push(secateur_engine::ir::Port {
        value,
        ty: None,
        extra: Default::default(),
    });
}

impl Backward {
    pub(super) fn write(
        &self,
        b: &Builder,
        node: &Node,
        dy: &dyn Fn(usize) -> Option<ValueId>,
    ) -> Vec<(ValueId, ValueId)> {
        let l = &self.layout;
        let back = |&(axis, direction): &(i64, i64)| (axis, 1 - direction);
        let mut inputs: Vec<_> = self.states.iter().map(|&i| dy(i)).collect();
        inputs.extend(self.sums.iter().map(|&x| Some(super::zeros(b.at(x)).id)));
        inputs.extend(self.kept.iter().copied().map(Some));
        inputs.extend(self.again.iter().map(|i| node.inputs[l.states + i]));
        inputs.extend(self.stacks.iter().map(|i| dy(l.states + i)));
        let mut slices = vec![(0, 1); self.kept.len()];
        slices.extend(self.again.iter().map(|&i| back(&l.scans[i])));
        slices.extend(self.stacks.iter().map(|&i| back(&l.stacks[i])));
        let made: Vec<_> = self.scans.iter().map(|&i| back(&l.scans[i])).collect();
        let of = self.states.iter().map(|i| node.inputs[l.lead + i]);
        let of = of.chain(self.sums.iter().copied().map(Some));
        let of: Vec<_> = of
            .chain(self.scans.iter().map(|i| node.inputs[l.states + i]))
            .flatten()
            .collect();
        let (input_axes, input_directions) = unzip(&slices);
        let (output_axes, output_directions) = unzip(&made);
        let call = Call {
            domain: "",
            op: "Scan",
            inputs: &inputs,
            attrs: vec![
                Attr::new("body", AttrValue::Graph(Box::new(self.body.clone()))),
                Attr::new("num_scan_inputs", slices.len() as i64),
                Attr::new("scan_input_axes", input_axes),
                Attr::new("scan_input_directions", input_directions),
                Attr::new("scan_output_axes", output_axes),
                Attr::new("scan_output_directions", output_directions),
            ],
            outputs: of.len(),
        };
        super::write(b, call, of)
    }
}
