//! Attributes of nodes.

use super::{Constant, Declared, Extra, Graph, Name};
use crate::ir::Bytes;

/// One attribute, as the file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Attr {
    /// The attribute's name.
    pub name: Name,
    /// Its value.
    pub value: AttrValue,
    /// The `type` field, where there is one.
    pub code: Option<i32>,
    /// Other fields: documentation, unknown ones, and those beside the one that `value` holds.
    pub extra: Extra,
}

/// The value of an attribute.
///
/// A scalar is `None` where the file says the type but leaves the value out, as proto3 writers do with zeros;
/// it then means 0, 0.0 or the empty string.
#[derive(Clone, Debug, PartialEq)]
pub enum AttrValue {
    /// A 64-bit integer.
    Int(Option<i64>),
    /// A 32-bit float.
    Float(Option<f32>),
    /// Raw bytes, usually UTF-8.
    Bytes(Option<Vec<u8>>),
    /// A tensor.
    Tensor(Constant),
    /// A subgraph. Names that it does not define come from outside.
    Graph(Box<Graph>),
    /// A `SparseTensorProto`, not decoded.
    Sparse(Bytes),
    /// A type.
    Type(Declared),
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// Byte strings.
    Strings(Vec<Vec<u8>>),
    /// Tensors.
    Tensors(Vec<Constant>),
    /// Subgraphs.
    Graphs(Vec<Graph>),
    /// `SparseTensorProto`s, not decoded.
    Sparses(Vec<Bytes>),
    /// Types.
    Types(Vec<Declared>),
    /// The attribute of this name of the function whose body holds the node.
    Ref(Name),
    /// No value and no type that says which.
    Nothing,
}

impl Attr {
    /// An attribute with `value`, as this library writes it.
    pub fn new(name: impl Into<Name>, value: impl Into<AttrValue>) -> Attr {
        let value = value.into();
        Attr {
            name: name.into(),
            code: value.code(),
            value,
            extra: Extra::default(),
        }
    }
}

impl AttrValue {
    /// The number `AttributeProto.AttributeType` gives the kind of value; `None` where it does not follow.
    pub fn code(&self) -> Option<i32> {
        Some(match self {
            AttrValue::Float(_) => 1,
            AttrValue::Int(_) => 2,
            AttrValue::Bytes(_) => 3,
            AttrValue::Tensor(_) => 4,
            AttrValue::Graph(_) => 5,
            AttrValue::Floats(_) => 6,
            AttrValue::Ints(_) => 7,
            AttrValue::Strings(_) => 8,
            AttrValue::Tensors(_) => 9,
            AttrValue::Graphs(_) => 10,
            AttrValue::Sparse(_) => 11,
            AttrValue::Sparses(_) => 12,
            AttrValue::Type(_) => 13,
            AttrValue::Types(_) => 14,
            AttrValue::Ref(_) | AttrValue::Nothing => return None,
        })
    }

    /// The subgraphs it holds.
    pub fn graphs(&self) -> &[Graph] {
        match self {
            AttrValue::Graph(g) => std::slice::from_ref(g),
            AttrValue::Graphs(g) => g,
            _ => &[],
        }
    }

    /// The subgraphs it holds.
    pub fn graphs_mut(&mut self) -> &mut [Graph] {
        match self {
            AttrValue::Graph(g) => std::slice::from_mut(g),
            AttrValue::Graphs(g) => g,
            _ => &mut [],
        }
    }
}

macro_rules! from {
    ($($t:ty, $x:ident => $value:expr;)*) => {
        $(impl From<$t> for AttrValue { fn from($x: $t) -> AttrValue { $value } })*
    };
}
from! {
    i64, x => AttrValue::Int(Some(x));
    f32, x => AttrValue::Float(Some(x));
    &str, x => AttrValue::Bytes(Some(x.into()));
    Vec<i64>, x => AttrValue::Ints(x);
    &[i64], x => AttrValue::Ints(x.to_vec());
    Vec<f32>, x => AttrValue::Floats(x);
    super::Tensor, x => AttrValue::Tensor(Constant::new(x));
    Graph, x => AttrValue::Graph(Box::new(x));
}
