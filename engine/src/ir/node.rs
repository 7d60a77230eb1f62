//! Nodes.

use super::{Attr, AttrValue, Extra, Name, ValueId};

/// One application of an operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// The domain as it is spelled; `None` where the file leaves it out. See [`Node::domain`].
    pub domain: Option<Name>,
    /// The operator's name within the domain.
    pub op: Name,
    /// The node's own name; `None` where the file leaves it out.
    pub name: Option<Name>,
    /// Inputs in order; `None` where an optional one is left out by an empty name.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs in order; `None` where an optional one is left out by an empty name.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes in the file's order, including ones nobody understands.
    pub attrs: Vec<Attr>,
    /// Other fields: overload, documentation, metadata, unknown ones.
    pub extra: Extra,
}

impl Node {
    /// A node of the standard domain without attributes.
    pub fn new(op: impl Into<Name>, inputs: Vec<Option<ValueId>>, outputs: Vec<Option<ValueId>>) -> Node {
        Node {
            op: op.into(),
            inputs,
            outputs,
            ..Node::default()
        }
    }

    /// The domain, with ONNX's own always the empty string.
    pub fn domain(&self) -> &str {
        match self.domain.as_deref() {
            Some("ai.onnx") | None => "",
            Some(other) => other,
        }
    }

    /// Whether this is the standard operator `op`.
    pub fn is(&self, op: &str) -> bool {
        &*self.op == op && self.domain().is_empty()
    }

    /// The attribute `name`'s value.
    pub fn attr(&self, name: &str) -> Option<&AttrValue> {
        self.attrs.iter().find(|a| &*a.name == name).map(|a| &a.value)
    }

    /// Sets the attribute `name`, in place where there is one.
    pub fn set(&mut self, name: &str, value: impl Into<AttrValue>) {
        let new = Attr::new(name, value);
        match self.attrs.iter_mut().find(|a| &*a.name == name) {
            Some(old) => *old = new,
            None => self.attrs.push(new),
        }
    }

    /// How messages call the node: its name, or its first output's number.
    pub fn label(&self) -> &str {
        self.name.as_deref().filter(|n| !n.is_empty()).unwrap_or(&self.op)
    }
}
