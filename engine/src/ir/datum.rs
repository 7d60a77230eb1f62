//! Values of any kind, as they are while a model runs.

use super::{DType, Tensor, Type};

/// A value: a tensor, or what is built of values.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// A tensor.
    Tensor(Tensor),
    /// A list of values of one type, which an empty list has too.
    Sequence(Type, Vec<Datum>),
    /// A value of the type, or none.
    Optional(Type, Option<Box<Datum>>),
    /// A dictionary.
    Map(Map),
}

/// A dictionary: keys and values of the same number, in the order they were put in.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// The keys, a tensor of integers or strings of shape `[n]`.
    pub keys: Tensor,
    /// The values, a tensor of shape `[n]`.
    pub values: Tensor,
}

impl Datum {
    /// The type.
    pub fn ty(&self) -> Type {
        match self {
            Datum::Tensor(t) => Type::tensor(t.dtype(), t.dims().iter().copied()),
            Datum::Sequence(of, _) => Type::Sequence(Box::new(of.clone())),
            Datum::Optional(of, _) => Type::Optional(Box::new(of.clone())),
            Datum::Map(m) => Type::Map {
                key: m.keys.dtype(),
                value: Box::new(Type::tensor(m.values.dtype(), Vec::<usize>::new())),
            },
        }
    }

    /// The tensor, if it is one.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            Datum::Tensor(t) => Some(t),
            _ => None,
        }
    }

    /// Bytes that it takes, what it shares with others included.
    pub fn size(&self) -> usize {
        const EACH: usize = 128;
        match self {
            Datum::Tensor(t) => t.size().saturating_add(EACH),
            Datum::Sequence(_, all) => all.iter().fold(EACH, |n, d| n.saturating_add(d.size())),
            Datum::Optional(_, d) => d.as_ref().map_or(EACH, |d| d.size()),
            Datum::Map(m) => m.keys.size().saturating_add(m.values.size()),
        }
    }

    /// The element type, if it is a tensor.
    pub fn dtype(&self) -> Option<DType> {
        self.tensor().map(Tensor::dtype)
    }
}

impl From<Tensor> for Datum {
    fn from(t: Tensor) -> Datum {
        Datum::Tensor(t)
    }
}
