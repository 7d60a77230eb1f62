//! `If`: each branch gives the gradients of what either captures.

use secateur_engine::Tensor;
use secateur_engine::expr::{Builder, Call};
use secateur_engine::ir::{Attr, AttrValue, Graph, Name, Node, Type, ValueId};
use secateur_engine::opt::Facts;

use super::close::{Closed, Undone, call, identity, prune, rename, zeros};
use super::{Forward, Site};
use crate::DiffError;

const BRANCHES: [&str; 2] = ["then_branch", "else_branch"];

/// The backward `If`.
pub(crate) struct Backward {
    branches: [Graph; 2],
    /// The outputs whose gradients it captures, by these names.
    dy: Vec<(usize, Name)>,
    /// What it gives the gradients of.
    of: Vec<ValueId>,
}

/// A branch that was differentiated.
struct Branch {
    closed: Closed,
    facts: Facts,
    undone: Undone,
    kept: Vec<ValueId>,
}

fn branch(site: &Site, name: &str) -> Result<Branch, DiffError> {
    let mut closed = Closed::new(site.model, site.facts(), site.body(name)?, &[]);
    let outputs = closed.model.graph.outputs.iter().map(|p| p.value);
    let outputs: Vec<_> = outputs.take(site.node().outputs.len()).collect();
    let by: Vec<_> = closed.wanted(site).map(|(inner, _)| inner).collect();
    let undone = closed.differentiate(site, &outputs, &by)?;
    let facts = closed.facts()?;
    let kept = undone.split.kept(&closed.model.graph).collect();
    Ok(Branch {
        closed,
        facts,
        undone,
        kept,
    })
}

/// Divides an `If`.
pub(super) fn apart(site: &Site) -> Result<(Forward, Backward), DiffError> {
    let both = [branch(site, BRANCHES[0])?, branch(site, BRANCHES[1])?];
    let outputs = site.node().outputs.len();
    let dy: Vec<_> = (0..outputs).map(|i| (i, site.name(&format!("dy{i}")))).collect();
    let mut of = vec![];
    for b in &both {
        let there = b
            .closed
            .captured
            .iter()
            .filter(|(inner, _)| b.undone.of(*inner).is_some());
        of.extend(there.map(|(_, outer)| *outer));
    }
    of.sort();
    of.dedup();
    let names = |which: usize| {
        let all = 0..both[which].kept.len();
        all.map(|i| site.name(&format!("kept{which}_{i}")))
            .collect::<Vec<_>>()
    };
    let kept = [names(0), names(1)];
    let mut attrs = vec![];
    for (which, b) in both.iter().enumerate() {
        let other = &both[1 - which];
        let mut graph = b.closed.forward(site, &b.undone.split, &b.kept);
        let own = graph.outputs.split_off(graph.outputs.len() - b.kept.len());
        graph.outputs.truncate(outputs);
        let mut stand_ins = vec![];
        for &v in &other.kept {
            let name = site.name(&format!("none{which}_{}", stand_ins.len()));
            stand_ins.push(nothing(&mut graph, &name, &other.facts.of(v).ty));
        }
        // What the first branch keeps comes before what the second keeps.
        let (before, behind) = if which == 0 { (own, vec![]) } else { (vec![], own) };
        graph.outputs.extend(before);
        stand_ins.into_iter().for_each(|v| graph.output(v, None));
        graph.outputs.extend(behind);
        attrs.push((BRANCHES[which], AttrValue::Graph(Box::new(graph))));
    }
    let back = |which: usize| backward(site, &both[which], &kept[which], &dy, &of);
    let back = Backward {
        branches: [back(0)?, back(1)?],
        dy,
        of,
    };
    let forward = Forward {
        attrs,
        outputs,
        kept: kept.concat(),
    };
    Ok((forward, back))
}

/// What stands where the other branch keeps a value of type `ty`: zeros of its shape, where that is known, so that both can be
/// stacked.
fn nothing(graph: &mut Graph, name: &str, ty: &Type) -> ValueId {
    let zero = ty.dtype().and_then(|d| Tensor::zeros(d, &[]));
    let zero = graph.constant(name, zero.unwrap_or_else(|| Tensor::scalar(0f32)));
    let Some(dims) = ty.dims().filter(|d| !d.is_empty()) else {
        return zero;
    };
    let dims: Vec<_> = dims.iter().map(|&d| d as i64).collect();
    let shape = graph.constant(format!("{name}_shape"), Tensor::of(&[dims.len()], dims));
    let y = graph.value(format!("{name}_all"));
    graph.node(Node::new("Expand", vec![Some(zero), Some(shape)], vec![Some(y)]));
    y
}

fn backward(
    site: &Site,
    b: &Branch,
    kept: &[Name],
    dy: &[(usize, Name)],
    of: &[ValueId],
) -> Result<Graph, DiffError> {
    let mut graph = b.closed.backward(&b.undone.split);
    for &outer in of {
        let inner = b
            .closed
            .captured
            .iter()
            .find(|(_, o)| *o == outer)
            .map(|(i, _)| *i);
        let dx = match inner.and_then(|v| b.undone.of(v)) {
            Some(dx) => identity(&mut graph, dx),
            None => {
                let name = &site.model.graph[outer].name;
                let x = inner.unwrap_or_else(|| graph.value(name.clone()));
                let ty: &Type = &site.facts().of(outer).ty;
                zeros(&mut graph, x, ty).ok_or_else(|| site.wrong("a captured value has no known type"))?
            }
        };
        graph.output(dx, None);
    }
    prune(&mut graph);
    let dy = b
        .undone
        .dy
        .iter()
        .zip(dy)
        .filter_map(|(v, (_, name))| Some(((*v)?, name)));
    call(&mut graph, dy.chain(b.kept.iter().copied().zip(kept)));
    rename(&mut graph, 0, &site.name("b"));
    Ok(graph)
}

impl Backward {
    pub(super) fn write(
        &self,
        b: &Builder,
        node: &Node,
        dy: &dyn Fn(usize) -> Option<ValueId>,
    ) -> Vec<(ValueId, ValueId)> {
        for (i, name) in &self.dy {
            if let Some(dy) = dy(*i) {
                let copy = b.at(dy).op("Identity", &[]);
                b.rename(copy.id, name.clone());
            }
        }
        let branches = BRANCHES.iter().zip(&self.branches);
        let attrs = branches.map(|(name, g)| Attr::new(*name, AttrValue::Graph(Box::new(g.clone()))));
        let call = Call {
            domain: "",
            op: "If",
            inputs: &node.inputs[..1],
            attrs: attrs.collect(),
            outputs: self.of.len(),
        };
        super::write(b, call, self.of.clone())
    }
}
