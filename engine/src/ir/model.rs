//! Models.

use super::{Attr, Extra, Graph, Name};

/// One entry of `opset_import`.
#[derive(Clone, Debug, PartialEq)]
pub struct Opset {
    /// The domain as it is spelled; `None` where the file leaves it out.
    pub domain: Option<Name>,
    /// The version; `None` where the file leaves it out.
    pub version: Option<i64>,
    /// Unknown fields.
    pub extra: Extra,
}

/// A model-local function.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function {
    /// The name, as nodes refer to it.
    pub name: Name,
    /// The domain as it is spelled; `None` where the file leaves it out.
    pub domain: Option<Name>,
    /// The overload; `None` where the file leaves it out.
    pub overload: Option<Name>,
    /// Nodes, values, inputs (without types), outputs (without types) and `value_info`.
    pub graph: Graph,
    /// Names of attributes without a default.
    pub attrs: Vec<Name>,
    /// Attributes with their defaults.
    pub defaults: Vec<Attr>,
    /// The operator sets its nodes are written in.
    pub opsets: Vec<Opset>,
    /// Other fields.
    pub extra: Extra,
}

/// A model, field for field what an ONNX file can say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// `ir_version`; `None` where the file leaves it out.
    pub ir_version: Option<i64>,
    /// The main graph.
    pub graph: Graph,
    /// The operator sets that nodes are written in.
    pub opsets: Vec<Opset>,
    /// Model-local functions.
    pub functions: Vec<Function>,
    /// Other fields: producer, metadata, documentation, training information, unknown ones.
    pub extra: Extra,
}

/// The version that `opsets` import of `domain` (`""` is ONNX's own).
pub fn version(opsets: &[Opset], domain: &str) -> Option<i64> {
    let spelled = |o: &Opset| match o.domain.as_deref() {
        Some("ai.onnx") | None => domain.is_empty(),
        Some(d) => d == domain,
    };
    opsets.iter().find(|o| spelled(o))?.version
}

impl Model {
    /// The version of `domain` (`""` is ONNX's own) that the model imports.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        version(&self.opsets, domain)
    }
}
