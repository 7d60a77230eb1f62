//! Values that are computed again for the gradients instead of being kept, as by Chen et al., "Training deep nets with
//! sublinear memory cost", 2016 (arXiv:1604.06174).

use std::collections::{HashMap, HashSet};

use secateur_engine::ir::{Graph, Links, Name, Node, NodeId, ValueId};
use secateur_engine::ops;

/// Lets the gradients in `graph`, all nodes from the `forward`-th on, read copies of what is not in `keep`. `grads` are the
/// gradients of its values, and `ends` where they begin.
///
/// The nodes between kept values are a segment. It is computed again once the gradient of the last of its values is there; what
/// it reads comes through `After`, so that the copies are neither merged with the originals nor run earlier. The last segment of all
/// is not computed again, for its gradients follow at once.
pub(crate) fn recompute(
    graph: &mut Graph,
    forward: usize,
    keep: &[ValueId],
    grads: (&[Option<ValueId>], &HashSet<ValueId>),
) {
    let links = graph.links();
    let old = Old {
        segments: Segments::new(graph, &links, forward, keep),
        graph: graph.clone(),
        links,
        forward,
    };
    let begin = old.beginnings(grads);
    let mut new = New {
        names: graph.values.iter().map(|v| v.name.clone()).collect(),
        copies: HashMap::new(),
        late: HashMap::new(),
        order: vec![],
        graph,
    };
    for &id in &old.graph.order {
        if id.0 as usize >= forward {
            let node = &old.graph[id];
            let read: Vec<_> = node.inputs.iter().flatten().copied().collect();
            read.iter().for_each(|&v| new.copy(&old, &begin, v));
            let inputs = new.graph[id].inputs.iter_mut().flatten();
            inputs.for_each(|v| *v = new.copies.get(v).copied().unwrap_or(*v));
        }
        new.order.push(id);
    }
    new.graph.order = new.order;
}

/// Which forward nodes are tied by values that are not kept.
struct Segments {
    /// By value: whether it is not kept.
    again: Vec<bool>,
    /// By node: another of its segment, or itself.
    parent: Vec<usize>,
}

impl Segments {
    fn new(graph: &Graph, links: &Links, forward: usize, keep: &[ValueId]) -> Segments {
        let keep: HashSet<_> = keep.iter().collect();
        let mut s = Segments {
            again: vec![false; graph.values.len()],
            parent: (0..forward).collect(),
        };
        for (id, node) in graph
            .iter()
            .filter(|(id, n)| (id.0 as usize) < forward && is_pure(n))
        {
            for v in node.outputs.iter().flatten() {
                // What subgraphs read, and what is an output, is there in any case.
                if keep.contains(v) || links.kept(*v) {
                    continue;
                }
                s.again[v.0 as usize] = true;
                let readers = links.readers(*v).iter().map(|n| n.0 as usize);
                readers
                    .filter(|&n| n < forward)
                    .for_each(|n| s.tie(id.0 as usize, n));
            }
        }
        s
    }

    fn again(&self, v: ValueId) -> bool {
        self.again.get(v.0 as usize).is_some_and(|&a| a)
    }

    fn tie(&mut self, a: usize, b: usize) {
        let (a, b) = (self.of(a), self.of(b));
        self.parent[a] = b;
    }

    /// The node by which the segment of node `n` is called.
    fn of(&self, mut n: usize) -> usize {
        while self.parent[n] != n {
            n = self.parent[n];
        }
        n
    }
}

/// Whether a copy of `node` computes the same.
fn is_pure(node: &Node) -> bool {
    let random = node.is("Dropout") && node.inputs.get(2).is_some_and(Option::is_some);
    !random && ops::find(node.domain(), &node.op).is_some_and(|op| !op.laws().impure)
}

/// The graph as it was.
struct Old {
    graph: Graph,
    links: Links,
    segments: Segments,
    forward: usize,
}

impl Old {
    /// The gradient at which each segment, by name, is computed again; none for those that are not.
    fn beginnings(&self, (grads, ends): (&[Option<ValueId>], &HashSet<ValueId>)) -> HashMap<usize, ValueId> {
        let (mut begin, mut seen) = (HashMap::new(), HashSet::new());
        for (id, node) in self
            .graph
            .iter()
            .rev()
            .filter(|(id, _)| (id.0 as usize) < self.forward)
        {
            let outputs = node.outputs.iter().flatten();
            let grad = outputs
                .filter_map(|v| Some((*v, grads.get(v.0 as usize).copied()??)))
                .next();
            let segment = self.segments.of(id.0 as usize);
            if let Some((v, dy)) = grad
                && seen.insert(segment)
                && !ends.contains(&v)
                && self.links.producer(dy).is_some()
            {
                begin.insert(segment, dy);
            }
        }
        begin
    }

    fn producer(&self, v: ValueId) -> Option<NodeId> {
        self.links.producer(v).map(|(id, _)| id)
    }
}

/// The graph as it becomes.
struct New<'g> {
    graph: &'g mut Graph,
    names: HashSet<Name>,
    copies: HashMap<ValueId, ValueId>,
    /// Kept values as they are read by each segment.
    late: HashMap<(usize, ValueId), ValueId>,
    order: Vec<NodeId>,
}

impl New<'_> {
    /// Makes a copy of `v`, if it is not kept, and of all that it takes.
    fn copy(&mut self, old: &Old, begin: &HashMap<usize, ValueId>, v: ValueId) {
        let Some(id) = old.producer(v).filter(|_| old.segments.again(v)) else {
            return;
        };
        let segment = old.segments.of(id.0 as usize);
        let Some(&dy) = begin.get(&segment) else { return };
        let (mut needed, mut left) = (HashSet::new(), vec![v]);
        while let Some(v) = left.pop() {
            let lacks = old.segments.again(v) && !self.copies.contains_key(&v);
            if let Some(id) = old.producer(v).filter(|_| lacks)
                && needed.insert(id)
            {
                left.extend(old.graph[id].inputs.iter().flatten());
            }
        }
        for &id in old.graph.order.iter().filter(|id| needed.contains(id)) {
            let mut node = old.graph[id].clone();
            for v in node.inputs.iter_mut().flatten() {
                *v = match self.copies.get(v) {
                    Some(copy) => *copy,
                    None => self.later(old, (segment, *v), dy),
                };
            }
            for v in node.outputs.iter_mut().flatten() {
                let copy = self.value(&old.graph[*v].name);
                if old.segments.again(*v) {
                    self.copies.insert(*v, copy);
                }
                *v = copy;
            }
            self.place(node);
        }
    }

    /// The kept value `v` as a segment reads it; constants are what they are.
    fn later(&mut self, old: &Old, (segment, v): (usize, ValueId), dy: ValueId) -> ValueId {
        if old.graph.konst(v).is_some() {
            return v;
        }
        if let Some(&late) = self.late.get(&(segment, v)) {
            return late;
        }
        let late = self.value(&old.graph[v].name);
        self.place(Node {
            domain: Some("secateur".into()),
            ..Node::new("After", vec![Some(v), Some(dy)], vec![Some(late)])
        });
        self.late.insert((segment, v), late);
        late
    }

    fn place(&mut self, node: Node) {
        self.graph.nodes.push(node);
        self.order.push(NodeId(self.graph.nodes.len() as u32 - 1));
    }

    fn value(&mut self, like: &str) -> ValueId {
        let mut name: Name = format!("{like}_again").into();
        while !self.names.insert(name.clone()) {
            name = format!("{like}_again{}", self.graph.values.len() + self.names.len()).into();
        }
        self.graph.value(name)
    }
}
