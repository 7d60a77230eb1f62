//! From messages to the model.

use std::collections::HashMap;

use super::external::Files;
use super::rope::wide;
use super::wire::{Message, Record, Wire};
use super::{ErrorKind, OnnxError, attr, sparse, tensor, types};
use crate::ir::{Constant, Extra, Function, Graph, Model, Name, Node, Opset, Port, ValueId};

/// Bytes that the sparse initialisers of a file may take when made dense, whatever the file's size.
const DENSE: u64 = 128 << 20;
/// Bytes that they may take for each byte of the file.
const GROWTH: u64 = 256;
/// Bytes that they may take in any case.
const DENSE_MAX: u64 = 8 << 30;

/// Bytes that the sparse initialisers of a file of `len` bytes may take.
pub(super) fn allowance(len: u64) -> u64 {
    DENSE.saturating_add(len.saturating_mul(GROWTH)).min(DENSE_MAX)
}

type Decode = fn(&mut Reader, Message) -> Result<(Name, Constant), OnnxError>;

/// What reading one file needs to remember.
pub(super) struct Reader {
    /// The external files.
    pub(super) files: Files,
    left: u64,
}

impl Reader {
    /// A reader for a file of `len` bytes.
    pub(super) fn new(files: Files, len: usize) -> Reader {
        let left = allowance(wide(len));
        Reader { files, left }
    }

    /// Sets aside `size` bytes for a tensor that the file holds in fewer.
    pub(super) fn spend(&mut self, size: usize) -> Result<(), OnnxError> {
        match self.left.checked_sub(wide(size)) {
            Some(left) => self.left = left,
            None => {
                let what = format!(
                    "expected at most {} more bytes of sparse tensors, found {size}",
                    self.left
                );
                return Err(OnnxError::new(ErrorKind::TooLarge, what));
            }
        }
        Ok(())
    }
}

/// A graph being read, with its values by name.
#[derive(Default)]
struct Draft {
    graph: Graph,
    ids: HashMap<Name, ValueId>,
}

impl Draft {
    fn value(&mut self, name: &str) -> ValueId {
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let name: Name = name.into();
        let id = self.graph.value(name.clone());
        self.ids.insert(name, id);
        id
    }

    /// An input or output of a node: an empty name stands for none.
    fn end(&mut self, name: &str) -> Option<ValueId> {
        (!name.is_empty()).then(|| self.value(name))
    }

    fn bare(&mut self, r: &Record) -> Result<Port, OnnxError> {
        Ok(Port {
            value: self.value(r.text()?),
            ty: None,
            extra: Extra::default(),
        })
    }

    fn port(&mut self, r: &Record, what: &str) -> Result<Port, OnnxError> {
        let msg = r.message()?;
        self.typed(msg)
            .map_err(|e| e.within(format!("{what} {:?}", msg.label(1))))
    }

    fn typed(&mut self, msg: Message) -> Result<Port, OnnxError> {
        let mut name = "";
        let mut ty = None;
        let mut extra = Extra::default();
        for r in msg.records() {
            let r = r?;
            match (r.number, r.wire) {
                (1, Wire::Len) if r.filled() => name = r.text()?,
                (2, Wire::Len) => ty = Some(types::read(r.message()?)?),
                _ => extra.0.push(r.keep()),
            }
        }
        let value = self.value(name);
        Ok(Port { value, ty, extra })
    }

    fn constant(&mut self, reader: &mut Reader, r: &Record, read: Decode) -> Result<(), OnnxError> {
        let (name, constant) = read(reader, r.message()?)?;
        let v = self.value(&name);
        if self.graph[v].konst.replace(constant).is_some() {
            let what = "there are two initializers of this name";
            return Err(OnnxError::invalid(what).at(r.start()));
        }
        self.graph.initializers.push(v);
        Ok(())
    }

    fn initializer(&mut self, reader: &mut Reader, r: &Record) -> Result<(), OnnxError> {
        self.constant(reader, r, |reader, msg| tensor::read(reader, msg, true))
            .map_err(|e| e.within(format!("initializer {:?}", name_in(r, &[8]))))
    }

    fn sparse(&mut self, reader: &mut Reader, r: &Record) -> Result<(), OnnxError> {
        self.constant(reader, r, sparse::read)
            .map_err(|e| e.within(format!("sparse initializer {:?}", name_in(r, &[1, 8]))))
    }

    fn node(&mut self, reader: &mut Reader, r: &Record) -> Result<(), OnnxError> {
        let msg = r.message()?;
        let node = self.read_node(reader, msg).map_err(|e| {
            let at = self.graph.nodes.len();
            let (name, op) = (msg.label(3), msg.label(4));
            e.within(format!("node {at} {name:?} ({op})"))
        })?;
        self.graph.node(node);
        Ok(())
    }

    fn read_node(&mut self, reader: &mut Reader, msg: Message) -> Result<Node, OnnxError> {
        let mut node = Node::default();
        for r in msg.records() {
            let r = r?;
            match (r.number, r.wire) {
                (1, Wire::Len) => node.inputs.push(self.end(r.text()?)),
                (2, Wire::Len) => node.outputs.push(self.end(r.text()?)),
                (3, Wire::Len) => node.name = Some(r.text()?.into()),
                (4, Wire::Len) if r.filled() => node.op = r.text()?.into(),
                (5, Wire::Len) => node.attrs.push(attr::read(reader, r.message()?)?),
                (7, Wire::Len) => node.domain = Some(r.text()?.into()),
                _ => node.extra.0.push(r.keep()),
            }
        }
        Ok(node)
    }

    /// Adds what `msg`, a `GraphProto`, says.
    fn read_graph(&mut self, reader: &mut Reader, msg: Message) -> Result<(), OnnxError> {
        for r in msg.records() {
            let r = r?;
            match (r.number, r.wire) {
                (1, Wire::Len) => self.node(reader, &r)?,
                (2, Wire::Len) => self.graph.name = Some(r.text()?.into()),
                (5, Wire::Len) => self.initializer(reader, &r)?,
                (15, Wire::Len) => self.sparse(reader, &r)?,
                (11, Wire::Len) => {
                    let port = self.port(&r, "input")?;
                    self.graph.inputs.push(port);
                }
                (12, Wire::Len) => {
                    let port = self.port(&r, "output")?;
                    self.graph.outputs.push(port);
                }
                (13, Wire::Len) => {
                    let port = self.port(&r, "value_info")?;
                    self.graph.infos.push(port);
                }
                _ => self.graph.extra.0.push(r.keep()),
            }
        }
        Ok(())
    }
}

/// The text at the end of the path of field numbers `path`, as far as it can be read.
fn name_in(r: &Record, path: &[u32]) -> String {
    match (r.message(), path) {
        (Ok(msg), [last]) => msg.label(*last),
        (Ok(msg), [first, rest @ ..]) => match msg.last(*first, Wire::Len) {
            Ok(Some(r)) => name_in(&r, rest),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

/// Reads a subgraph.
pub(super) fn graph(reader: &mut Reader, msg: Message) -> Result<Graph, OnnxError> {
    let mut draft = Draft::default();
    draft
        .read_graph(reader, msg)
        .map_err(|e| e.within(format!("graph {:?}", msg.label(2))))?;
    Ok(draft.graph)
}

fn opset(r: &Record) -> Result<Opset, OnnxError> {
    let mut opset = Opset {
        domain: None,
        version: None,
        extra: Extra::default(),
    };
    for r in r.message()?.records() {
        let r = r?;
        match (r.number, r.wire) {
            (1, Wire::Len) => opset.domain = Some(r.text()?.into()),
            (2, Wire::Varint) => opset.version = Some(r.int()),
            _ => opset.extra.0.push(r.keep()),
        }
    }
    Ok(opset)
}

fn function(reader: &mut Reader, msg: Message) -> Result<Function, OnnxError> {
    let mut f = Function::default();
    let mut draft = Draft::default();
    for r in msg.records() {
        let r = r?;
        match (r.number, r.wire) {
            (1, Wire::Len) if r.filled() => f.name = r.text()?.into(),
            (4, Wire::Len) => {
                let port = draft.bare(&r)?;
                draft.graph.inputs.push(port);
            }
            (5, Wire::Len) => {
                let port = draft.bare(&r)?;
                draft.graph.outputs.push(port);
            }
            (6, Wire::Len) => f.attrs.push(r.text()?.into()),
            (7, Wire::Len) => draft.node(reader, &r)?,
            (9, Wire::Len) => f.opsets.push(opset(&r)?),
            (10, Wire::Len) => f.domain = Some(r.text()?.into()),
            (11, Wire::Len) => f.defaults.push(attr::read(reader, r.message()?)?),
            (12, Wire::Len) => {
                let port = draft.port(&r, "value_info")?;
                draft.graph.infos.push(port);
            }
            (13, Wire::Len) => f.overload = Some(r.text()?.into()),
            _ => f.extra.0.push(r.keep()),
        }
    }
    f.graph = draft.graph;
    Ok(f)
}

/// Reads a model.
pub(super) fn model(reader: &mut Reader, msg: Message) -> Result<Model, OnnxError> {
    let mut model = Model::default();
    let mut main = Draft::default();
    for r in msg.records() {
        let r = r?;
        match (r.number, r.wire) {
            (1, Wire::Varint) => model.ir_version = Some(r.int()),
            (7, Wire::Len) if r.filled() => {
                let msg = r.message()?;
                main.read_graph(reader, msg).map_err(|e| e.within("graph"))?;
            }
            (8, Wire::Len) => model
                .opsets
                .push(opset(&r).map_err(|e| e.within("opset_import"))?),
            (25, Wire::Len) => {
                let msg = r.message()?;
                let place = |e: OnnxError| e.within(format!("function {:?}", msg.label(1)));
                model.functions.push(function(reader, msg).map_err(place)?);
            }
            _ => model.extra.0.push(r.keep()),
        }
    }
    model.graph = main.graph;
    Ok(model)
}
