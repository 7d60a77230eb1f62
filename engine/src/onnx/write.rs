//! From the model to messages.

use std::collections::HashMap;

use super::external::Entries;
use super::rope::{Encoder, Rope};
use super::{attr, sparse, tensor, types};
use crate::ir::{Constant, Form, Function, Graph, Model, Node, Opset, Port, ValueId};

/// Writes messages.
#[derive(Default)]
pub(super) struct Writer {
    /// Tensors that go to another place than their form says, by address.
    pub(super) places: HashMap<*const Constant, Entries>,
}

impl Writer {
    /// The message for a model.
    pub(super) fn model(&self, model: &Model) -> Rope {
        let mut e = Encoder::new(&model.extra);
        if let Some(version) = model.ir_version {
            e.int(1, version);
        }
        if model.graph != Graph::default() {
            e.rope(7, self.graph(&model.graph));
        }
        model.opsets.iter().for_each(|o| e.rope(8, opset(o)));
        for f in &model.functions {
            e.rope(25, self.function(f));
        }
        e.finish()
    }

    /// The message for a graph.
    pub(super) fn graph(&self, graph: &Graph) -> Rope {
        let mut e = Encoder::new(&graph.extra);
        for (_, node) in graph.iter() {
            e.rope(1, self.node(graph, node));
        }
        e.some(2, graph.name.as_ref().map(|n| n.as_bytes()));
        let mut sparse = vec![];
        for value in graph.initializers.iter().map(|&v| &graph[v]) {
            let Some(c) = &value.konst else { continue };
            let other = match c.form {
                Form::Sparse { .. } => sparse::write(c, &value.name),
                _ => None,
            };
            match other {
                Some(rope) => sparse.push(rope),
                None => e.rope(5, self.tensor(c, &value.name)),
            }
        }
        graph.inputs.iter().for_each(|p| e.rope(11, port(graph, p)));
        graph.outputs.iter().for_each(|p| e.rope(12, port(graph, p)));
        graph.infos.iter().for_each(|p| e.rope(13, port(graph, p)));
        sparse.into_iter().for_each(|rope| e.rope(15, rope));
        e.finish()
    }

    /// The message for a tensor.
    pub(super) fn tensor(&self, c: &Constant, name: &str) -> Rope {
        let own = match &c.form {
            Form::External(e) if e.source.is_some() => Some(&e.entries),
            _ => None,
        };
        let place = self.places.get(&std::ptr::from_ref(c)).or(own);
        tensor::write(c, name, place)
    }

    fn node(&self, graph: &Graph, node: &Node) -> Rope {
        let mut e = Encoder::new(&node.extra);
        let name = |v: &Option<ValueId>| v.map_or(&b""[..], |v| graph[v].name.as_bytes());
        node.inputs.iter().for_each(|v| e.bytes(1, name(v)));
        node.outputs.iter().for_each(|v| e.bytes(2, name(v)));
        e.some(3, node.name.as_ref().map(|n| n.as_bytes()));
        e.filled(4, &node.op);
        node.attrs.iter().for_each(|a| e.rope(5, attr::write(self, a)));
        e.some(7, node.domain.as_ref().map(|n| n.as_bytes()));
        e.finish()
    }

    fn function(&self, f: &Function) -> Rope {
        let mut e = Encoder::new(&f.extra);
        let name = |p: &Port| f.graph[p.value].name.clone();
        e.filled(1, &f.name);
        f.graph.inputs.iter().for_each(|p| e.bytes(4, name(p).as_bytes()));
        f.graph
            .outputs
            .iter()
            .for_each(|p| e.bytes(5, name(p).as_bytes()));
        f.attrs.iter().for_each(|a| e.bytes(6, a.as_bytes()));
        for (_, node) in f.graph.iter() {
            e.rope(7, self.node(&f.graph, node));
        }
        f.opsets.iter().for_each(|o| e.rope(9, opset(o)));
        e.some(10, f.domain.as_ref().map(|n| n.as_bytes()));
        f.defaults.iter().for_each(|a| e.rope(11, attr::write(self, a)));
        f.graph.infos.iter().for_each(|p| e.rope(12, port(&f.graph, p)));
        e.some(13, f.overload.as_ref().map(|n| n.as_bytes()));
        e.finish()
    }
}

fn port(graph: &Graph, port: &Port) -> Rope {
    let mut e = Encoder::new(&port.extra);
    e.filled(1, &graph[port.value].name);
    if let Some(ty) = &port.ty {
        e.rope(2, types::write(ty));
    }
    e.finish()
}

fn opset(opset: &Opset) -> Rope {
    let mut e = Encoder::new(&opset.extra);
    e.some(1, opset.domain.as_ref().map(|n| n.as_bytes()));
    if let Some(version) = opset.version {
        e.int(2, version);
    }
    e.finish()
}
