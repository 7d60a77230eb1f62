//! The model as plain data: exactly what an ONNX file can say, and no more.
//!
//! Nothing here knows what any operator means. A node whose operator nobody implements is still a node: it loads,
//! survives every pass and is written back as it was read.

mod attr;
mod count;
mod datum;
mod dim;
mod dtype;
mod edit;
mod extra;
mod graph;
mod model;
mod node;
mod print;
pub(crate) mod small;
mod tensor;
mod ty;
mod verify;

pub use attr::{Attr, AttrValue};
pub use datum::{Datum, Map};
pub use dim::{Dim, DimExpr};
pub use dtype::DType;
pub use edit::Patch;
pub use extra::{Extra, Field};
pub use graph::{Graph, Links, NodeId, Port, Value, ValueId};
pub use model::{Function, Model, Opset, version};
pub use node::Node;
pub(crate) use tensor::extent;
pub use tensor::{Buffer, Bytes, Constant, Data, Element, External, Form, SizeMismatch, Tensor, count};
pub use ty::{Declared, Shape, Type};
pub(crate) use verify::{DEPTH, shallow};
pub use verify::{Flaw, verify};

pub use half::{bf16, f16};

/// A name: cheap to copy and to compare.
pub type Name = std::sync::Arc<str>;
