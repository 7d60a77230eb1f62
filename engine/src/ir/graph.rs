//! Graphs.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use super::{Constant, Declared, Extra, Name, Node, Tensor, Type};

/// Index of a [`Value`] in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

/// Index of a [`Node`] in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// A named edge of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The name, unique within the graph. A value that the graph neither defines nor takes as input is the value of the
    /// same name of the graph around it.
    pub name: Name,
    /// What inference found out; `None` before it ran.
    pub ty: Option<Type>,
    /// The initialiser, where there is one.
    pub konst: Option<Constant>,
}

/// An input, an output or an entry of `value_info`: a value with what the file declares of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// The value.
    pub value: ValueId,
    /// Its declared type, where there is one.
    pub ty: Option<Declared>,
    /// Other fields: documentation, metadata, unknown ones.
    pub extra: Extra,
}

/// A directed acyclic graph of nodes.
///
/// Nodes and values keep their ids as long as they live; removed ones only leave `order` and the readers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// The graph's name; `None` where the file leaves it out.
    pub name: Option<Name>,
    /// All nodes ever added, by [`NodeId`].
    pub nodes: Vec<Node>,
    /// All values, by [`ValueId`].
    pub values: Vec<Value>,
    /// The living nodes, each after the producers of its inputs.
    pub order: Vec<NodeId>,
    /// What the caller supplies. An input that has an initialiser may be left out.
    pub inputs: Vec<Port>,
    /// What the caller gets.
    pub outputs: Vec<Port>,
    /// The entries of `value_info`.
    pub infos: Vec<Port>,
    /// The values that have an initialiser, in the file's order.
    pub initializers: Vec<ValueId>,
    /// Other fields: documentation, metadata, quantisation annotations, unknown ones.
    pub extra: Extra,
}

impl std::ops::Index<ValueId> for Graph {
    type Output = Value;
    fn index(&self, v: ValueId) -> &Value {
        &self.values[v.0 as usize]
    }
}

impl std::ops::IndexMut<ValueId> for Graph {
    fn index_mut(&mut self, v: ValueId) -> &mut Value {
        &mut self.values[v.0 as usize]
    }
}

impl std::ops::Index<NodeId> for Graph {
    type Output = Node;
    fn index(&self, n: NodeId) -> &Node {
        &self.nodes[n.0 as usize]
    }
}

impl std::ops::IndexMut<NodeId> for Graph {
    fn index_mut(&mut self, n: NodeId) -> &mut Node {
        &mut self.nodes[n.0 as usize]
    }
}

impl Graph {
    /// Adds a value that nothing defines yet. The caller sees to it that the name is new; see [`Graph::fresh`].
    pub fn value(&mut self, name: impl Into<Name>) -> ValueId {
        self.values.push(Value {
            name: name.into(),
            ty: None,
            konst: None,
        });
        ValueId(self.values.len() as u32 - 1)
    }

    /// Adds an initialiser.
    pub fn constant(&mut self, name: impl Into<Name>, tensor: Tensor) -> ValueId {
        let v = self.value(name);
        self[v].ty = Some(Type::tensor(tensor.dtype(), tensor.dims().iter().copied()));
        self[v].konst = Some(Constant::new(tensor));
        self.initializers.push(v);
        v
    }

    /// Adds an input of type `ty`.
    pub fn input(&mut self, name: impl Into<Name>, ty: Type) -> ValueId {
        let value = self.value(name);
        self.inputs.push(Port {
            value,
            ty: Some(ty.into()),
            extra: Extra::default(),
        });
        value
    }

    /// Makes `value` an output.
    pub fn output(&mut self, value: ValueId, ty: Option<Type>) {
        self.outputs.push(Port {
            value,
            ty: ty.map(Into::into),
            extra: Extra::default(),
        });
    }

    /// Adds a node at the end.
    pub fn node(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        let id = NodeId(self.nodes.len() as u32 - 1);
        self.order.push(id);
        id
    }

    /// The living nodes in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> {
        self.order.iter().map(|&n| (n, &self[n]))
    }

    /// The elements of `v`, if it is an initialiser that no caller can replace.
    pub fn konst(&self, v: ValueId) -> Option<&Tensor> {
        let konst = self[v].konst.as_ref()?;
        (!self.is_input(v)).then_some(&*konst.tensor)
    }

    /// Whether `v` is an input, with an initialiser or without.
    pub fn is_input(&self, v: ValueId) -> bool {
        self.inputs.iter().any(|p| p.value == v)
    }

    /// The value called `name`. Takes time in proportion to the number of values; see [`Graph::names`] for many look-ups.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        let at = self.values.iter().position(|v| &*v.name == name)?;
        Some(ValueId(at as u32))
    }

    /// Every value by name.
    pub fn names(&self) -> HashMap<Name, ValueId> {
        let ids = (0u32..).map(ValueId);
        self.values.iter().map(|v| v.name.clone()).zip(ids).collect()
    }

    /// A name that begins with `stem` and that no value here or in a subgraph has.
    pub fn fresh(&self, stem: &str) -> Name {
        let mut name = stem.to_owned();
        let mut number = self.values.len();
        while name.is_empty() || self.has(&name) {
            name = format!("{stem}_{number}");
            number += 1;
        }
        name.into()
    }

    fn has(&self, name: &str) -> bool {
        self.values.iter().any(|v| &*v.name == name)
            || self
                .iter()
                .flat_map(|(_, n)| &n.attrs)
                .flat_map(|a| a.value.graphs())
                .any(|g| g.has(name))
    }

    /// Names of values that the graph reads but does not define, its subgraphs' included.
    pub fn captures(&self) -> BTreeSet<Name> {
        let mut defined = vec![false; self.values.len()];
        let inputs = self.inputs.iter().map(|p| p.value);
        let made = self.iter().flat_map(|(_, n)| n.outputs.iter().flatten().copied());
        for v in inputs.chain(self.initializers.iter().copied()).chain(made) {
            defined[v.0 as usize] = true;
        }
        let read = self.iter().flat_map(|(_, n)| n.inputs.iter().flatten().copied());
        let outputs = self.outputs.iter().map(|p| p.value);
        let mut names: BTreeSet<Name> = read
            .chain(outputs)
            .filter(|v| !defined[v.0 as usize])
            .map(|v| self[v].name.clone())
            .collect();
        let here: BTreeSet<&Name> = (0..self.values.len())
            .filter(|&i| defined[i])
            .map(|i| &self.values[i].name)
            .collect();
        for (_, node) in self.iter() {
            for g in node.attrs.iter().flat_map(|a| a.value.graphs()) {
                names.extend(g.captures().into_iter().filter(|n| !here.contains(n)));
            }
        }
        names
    }

    /// Puts every node after the producers of what it and its subgraphs read, changing the order as little as that takes.
    /// Files should be in order, but not all are. Nodes of a cycle keep their places.
    pub fn sort(&mut self) {
        let links = self.links();
        let names = self.names();
        let needs = |n: NodeId| -> Vec<NodeId> {
            let node = &self[n];
            let inner = node
                .attrs
                .iter()
                .flat_map(|a| a.value.graphs())
                .flat_map(Graph::captures);
            let captured: Vec<_> = inner.filter_map(|name| names.get(&name).copied()).collect();
            let read = node.inputs.iter().flatten().copied().chain(captured);
            read.filter_map(|v| links.producer(v)).map(|(p, _)| p).collect()
        };
        let mut place = vec![None; self.nodes.len()];
        for (i, n) in self.order.iter().enumerate() {
            place[n.0 as usize].get_or_insert(i);
        }
        let mut missing = vec![0usize; self.order.len()];
        let mut waits: Vec<Vec<usize>> = vec![vec![]; self.order.len()];
        for (i, &n) in self.order.iter().enumerate() {
            for p in needs(n).into_iter().filter_map(|p| place[p.0 as usize]) {
                missing[i] += 1;
                waits[p].push(i);
            }
        }
        let mut ready: BinaryHeap<_> = (0..missing.len())
            .filter(|&i| missing[i] == 0)
            .map(Reverse)
            .collect();
        let mut done = vec![false; missing.len()];
        let mut order = Vec::with_capacity(missing.len());
        while let Some(Reverse(i)) = ready.pop() {
            done[i] = true;
            order.push(self.order[i]);
            for &w in &waits[i] {
                missing[w] -= 1;
                if missing[w] == 0 {
                    ready.push(Reverse(w));
                }
            }
        }
        let cyclic = self.order.iter().zip(&done).filter(|(_, done)| !**done);
        order.extend(cyclic.map(|(n, _)| *n));
        self.order = order;
    }

    /// Who makes and who reads each value, as of now.
    pub fn links(&self) -> Links {
        let mut links = Links {
            producer: vec![None; self.values.len()],
            readers: vec![vec![]; self.values.len()],
            kept: vec![false; self.values.len()],
        };
        let mut names = None;
        for (id, node) in self.iter() {
            for v in node.inputs.iter().flatten() {
                links.readers[v.0 as usize].push(id);
            }
            for (slot, v) in node.outputs.iter().enumerate() {
                if let Some(v) = v {
                    links.producer[v.0 as usize] = Some((id, slot));
                }
            }
            for g in node.attrs.iter().flat_map(|a| a.value.graphs()) {
                let names = names.get_or_insert_with(|| self.names());
                for v in g.captures().iter().filter_map(|n| names.get(n)) {
                    links.kept[v.0 as usize] = true;
                }
            }
        }
        for p in &self.outputs {
            links.kept[p.value.0 as usize] = true;
        }
        links
    }
}

/// Who makes and who reads each value of a graph at one moment.
pub struct Links {
    producer: Vec<Option<(NodeId, usize)>>,
    readers: Vec<Vec<NodeId>>,
    kept: Vec<bool>,
}

impl Links {
    /// Takes out node `n` of `graph`. What its subgraphs read counts as read for good.
    pub fn forget(&mut self, graph: &Graph, n: NodeId) {
        for v in graph[n].inputs.iter().flatten() {
            if let Some(readers) = self.readers.get_mut(v.0 as usize) {
                readers.retain(|&r| r != n);
            }
        }
        for v in graph[n].outputs.iter().flatten() {
            if self.producer(*v).is_some_and(|(p, _)| p == n) {
                self.producer[v.0 as usize] = None;
            }
        }
    }

    /// Brings in node `n` of `graph`, which may be new like its values.
    pub fn note(&mut self, graph: &Graph, n: NodeId) {
        let count = graph.values.len();
        self.producer.resize(count, None);
        self.readers.resize(count, vec![]);
        self.kept.resize(count, false);
        for v in graph[n].inputs.iter().flatten() {
            self.readers[v.0 as usize].push(n);
        }
        for (slot, v) in graph[n].outputs.iter().enumerate() {
            if let Some(v) = v {
                self.producer[v.0 as usize] = Some((n, slot));
            }
        }
        for g in graph[n].attrs.iter().flat_map(|a| a.value.graphs()) {
            for v in g.captures().iter().filter_map(|name| graph.find(name)) {
                self.kept[v.0 as usize] = true;
            }
        }
    }

    /// The node that makes `v`, and which of its outputs it is.
    pub fn producer(&self, v: ValueId) -> Option<(NodeId, usize)> {
        self.producer.get(v.0 as usize).copied().flatten()
    }

    /// The nodes that read `v`, once for each input that does.
    pub fn readers(&self, v: ValueId) -> &[NodeId] {
        self.readers.get(v.0 as usize).map_or(&[], |r| r)
    }

    /// Whether `v` is an output of the graph or is read inside a subgraph.
    pub fn kept(&self, v: ValueId) -> bool {
        self.kept.get(v.0 as usize).is_some_and(|&k| k)
    }
}
