//! The one door through which graphs are rewritten.

use super::{Flaw, Graph, Links, Node, NodeId, Value, ValueId};

/// A rewrite as a value: what is added, what takes the place of what, and what goes.
///
/// Values of the patch have ids that follow the graph's own, so that its nodes may read both.
#[derive(Clone, Debug)]
pub struct Patch {
    /// Id of the patch's first value: the number of values of the graph it was made for.
    base: usize,
    /// New values; those with an initialiser become initialisers.
    pub values: Vec<Value>,
    /// New nodes, each after the producers of its inputs.
    pub nodes: Vec<Node>,
    /// Pairs of a value of the graph and the value, old or new, that takes its place.
    pub replace: Vec<(ValueId, ValueId)>,
    /// Nodes that go.
    pub remove: Vec<NodeId>,
}

impl Patch {
    /// An empty patch for `graph`.
    pub fn new(graph: &Graph) -> Patch {
        Patch {
            base: graph.values.len(),
            values: vec![],
            nodes: vec![],
            replace: vec![],
            remove: vec![],
        }
    }

    /// Adds a value; the name is made unique when the patch is applied.
    pub fn value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId((self.base + self.values.len()) as u32 - 1)
    }

    /// The patch's own value `v`; `None` if it is one of the graph.
    pub fn own(&self, v: ValueId) -> Option<&Value> {
        self.values.get(self.place(v)?)
    }

    /// Which of the patch's own values `v` would be; `None` if it is one of the graph.
    pub(crate) fn place(&self, v: ValueId) -> Option<usize> {
        (v.0 as usize).checked_sub(self.base)
    }

    /// Makes no initialisers of the new values that are `unread`.
    pub fn forget(&mut self, unread: impl Fn(ValueId) -> bool) {
        let ids = (self.base as u32..).map(ValueId);
        let gone = self.values.iter_mut().zip(ids).filter(|(_, v)| unread(*v));
        gone.for_each(|(value, _)| value.konst = None);
    }

    /// The new node that makes `v`.
    pub fn producer(&self, v: ValueId) -> Option<usize> {
        self.nodes.iter().position(|n| n.outputs.contains(&Some(v)))
    }

    /// Applies the patch. New nodes stand where the last removed node stood. A replaced value keeps its name, and an
    /// output stays an output. The graph is as it was if there is an error.
    ///
    /// # Errors
    ///
    /// If the patch was made for another graph, or a node would go that somebody still reads.
    pub fn apply(self, graph: &mut Graph) -> Result<(), Flaw> {
        let mut links = graph.links();
        self.apply_with(graph, &mut links).map(|_| ())
    }

    /// The same where `links` are those of the graph, which are kept up to date. The new nodes.
    ///
    /// # Errors
    ///
    /// As [`Patch::apply`].
    pub fn apply_with(mut self, graph: &mut Graph, links: &mut Links) -> Result<Vec<NodeId>, Flaw> {
        if self.base != graph.values.len() {
            return Err(Flaw::new(
                "a rewrite",
                "was made for an earlier state of the graph",
            ));
        }
        self.check_readers(graph, links)?;
        let last = graph.order.iter().rposition(|n| self.remove.contains(n));
        let at = last.unwrap_or_else(|| self.earliest(graph, links));
        let kept_before = graph.order[..at]
            .iter()
            .filter(|n| !self.remove.contains(n))
            .count();
        graph.order.retain(|n| !self.remove.contains(n));
        let mut redirect = vec![];
        for (old, new) in std::mem::take(&mut self.replace) {
            match self.producer(new) {
                Some(_) => self.rename(new, old),
                None if links.kept(old) => {
                    let node = Node::new("Identity", vec![Some(new)], vec![Some(old)]);
                    self.nodes.push(node);
                    redirect.push((old, new));
                }
                None => redirect.push((old, new)),
            }
        }
        self.remove.iter().for_each(|&n| links.forget(graph, n));
        let added = self.append(graph, kept_before);
        added.iter().for_each(|&n| links.note(graph, n));
        for (old, new) in redirect {
            let readers: Vec<_> = links
                .readers(old)
                .iter()
                .copied()
                .filter(|n| !added.contains(n))
                .collect();
            for n in readers {
                links.forget(graph, n);
                let inputs = graph[n].inputs.iter_mut().flatten();
                inputs.filter(|v| **v == old).for_each(|v| *v = new);
                links.note(graph, n);
            }
        }
        Ok(added)
    }

    /// Position right after the producers of everything the new nodes read.
    fn earliest(&self, graph: &Graph, links: &Links) -> usize {
        let read = self.nodes.iter().flat_map(|n| n.inputs.iter().flatten());
        let producers: Vec<_> = read.filter_map(|&v| links.producer(v)).map(|(n, _)| n).collect();
        let last = graph.order.iter().rposition(|n| producers.contains(n));
        last.map_or(0, |i| i + 1)
    }

    fn check_readers(&self, graph: &Graph, links: &Links) -> Result<(), Flaw> {
        for &n in &self.remove {
            for &v in graph[n].outputs.iter().flatten() {
                let replaced = self.replace.iter().any(|&(old, _)| old == v);
                let outside = links.readers(v).iter().any(|r| !self.remove.contains(r));
                if !replaced && (outside || links.kept(v)) {
                    return Err(Flaw::new(
                        format!("value {:?}", graph[v].name),
                        "is still read, but a rewrite removes the node that makes it",
                    ));
                }
            }
        }
        Ok(())
    }

    fn rename(&mut self, from: ValueId, to: ValueId) {
        for node in &mut self.nodes {
            let ends = node.inputs.iter_mut().chain(&mut node.outputs).flatten();
            ends.filter(|v| **v == from).for_each(|v| *v = to);
        }
    }

    fn append(self, graph: &mut Graph, at: usize) -> Vec<NodeId> {
        for mut value in self.values {
            value.name = graph.fresh(&value.name);
            if value.konst.is_some() {
                graph.initializers.push(ValueId(graph.values.len() as u32));
            }
            graph.values.push(value);
        }
        let first = graph.nodes.len() as u32;
        let ids: Vec<_> = (first..first + self.nodes.len() as u32).map(NodeId).collect();
        graph.nodes.extend(self.nodes);
        graph.order.splice(at..at, ids.iter().copied());
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Type, verify};
    use super::*;

    fn chain() -> (Graph, [ValueId; 3]) {
        let mut g = Graph::default();
        let x = g.input("x", Type::Unknown);
        let (a, y) = (g.value("a"), g.value("y"));
        g.node(Node::new("Relu", vec![Some(x)], vec![Some(a)]));
        g.node(Node::new("Exp", vec![Some(a)], vec![Some(y)]));
        g.output(y, None);
        (g, [x, a, y])
    }

    #[test]
    fn a_replaced_output_keeps_its_name() {
        let (mut g, [x, _, y]) = chain();
        let mut p = Patch::new(&g);
        let new = p.value(Value {
            name: "new".into(),
            ty: None,
            konst: None,
        });
        p.nodes.push(Node::new("Tanh", vec![Some(x)], vec![Some(new)]));
        p.replace.push((y, new));
        p.remove = g.order.clone();
        p.apply(&mut g).unwrap();
        verify(&g).unwrap();
        assert_eq!(g.order.len(), 1);
        assert_eq!(&*g[g.outputs[0].value].name, "y");
    }

    #[test]
    fn replacing_an_output_by_an_input_leaves_an_identity() {
        let (mut g, [x, _, y]) = chain();
        let mut p = Patch::new(&g);
        p.replace.push((y, x));
        p.remove = g.order.clone();
        p.apply(&mut g).unwrap();
        verify(&g).unwrap();
        assert!(g[g.order[0]].is("Identity"));
    }

    #[test]
    fn a_node_that_is_still_read_does_not_go() {
        let (mut g, _) = chain();
        let before = g.clone();
        let mut p = Patch::new(&g);
        p.remove.push(g.order[0]);
        assert!(p.apply(&mut g).is_err());
        assert_eq!(g, before);
    }
}
