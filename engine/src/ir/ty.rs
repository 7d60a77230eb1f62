//! Types of values.

use std::fmt;

use super::{Bytes, DType, Dim, Name};

/// The size of each axis, outermost first.
pub type Shape = Vec<Dim>;

/// What a value may hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// A tensor.
    Tensor {
        /// Its element type; `None` where it is not known.
        dtype: Option<DType>,
        /// Its shape; `None` where not even the rank is known.
        shape: Option<Shape>,
    },
    /// A sparse tensor.
    Sparse {
        /// Its element type; `None` where it is not known.
        dtype: Option<DType>,
        /// Its shape; `None` where not even the rank is known.
        shape: Option<Shape>,
    },
    /// A list of values of one type.
    Sequence(Box<Type>),
    /// A value or none.
    Optional(Box<Type>),
    /// A dictionary.
    Map {
        /// The type of its keys.
        key: DType,
        /// The type of its values.
        value: Box<Type>,
    },
    /// A type that only its domain knows.
    Opaque {
        /// The domain.
        domain: Name,
        /// The name within the domain.
        name: Name,
    },
    /// Nothing is known.
    Unknown,
}

impl Type {
    /// A tensor type.
    pub fn tensor(dtype: DType, shape: impl IntoIterator<Item = impl Into<Dim>>) -> Type {
        Type::Tensor {
            dtype: Some(dtype),
            shape: Some(shape.into_iter().map(Into::into).collect()),
        }
    }

    /// The element type of a tensor.
    pub fn dtype(&self) -> Option<DType> {
        match self {
            Type::Tensor { dtype, .. } | Type::Sparse { dtype, .. } => *dtype,
            _ => None,
        }
    }

    /// The shape of a tensor.
    pub fn shape(&self) -> Option<&Shape> {
        match self {
            Type::Tensor { shape, .. } | Type::Sparse { shape, .. } => shape.as_ref(),
            _ => None,
        }
    }

    /// The shape of a tensor where every size is a number.
    pub fn dims(&self) -> Option<Vec<usize>> {
        self.shape()?.iter().map(Dim::size).collect()
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Type::Tensor { dtype, shape } | Type::Sparse { dtype, shape } => {
                if matches!(self, Type::Sparse { .. }) {
                    f.write_str("sparse ")?;
                }
                match dtype {
                    Some(d) => write!(f, "{d}")?,
                    None => f.write_str("?")?,
                }
                match shape {
                    Some(s) => {
                        let dims: Vec<_> = s.iter().map(Dim::to_string).collect();
                        write!(f, "[{}]", dims.join(", "))
                    }
                    None => f.write_str("[..]"),
                }
            }
            Type::Sequence(t) => write!(f, "sequence({t})"),
            Type::Optional(t) => write!(f, "optional({t})"),
            Type::Map { key, value } => write!(f, "map({key}, {value})"),
            Type::Opaque { domain, name } => write!(f, "opaque({domain}.{name})"),
            Type::Unknown => f.write_str("?"),
        }
    }
}

/// A type as a file declares it. Declarations may be wrong; what the engine relies on is inferred.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// What it says.
    pub ty: Type,
    /// The `TypeProto` as it was read, where writing `ty` would not give the same bytes (denotations, unknown fields).
    pub proto: Option<Bytes>,
}

impl From<Type> for Declared {
    fn from(ty: Type) -> Declared {
        Declared { ty, proto: None }
    }
}
