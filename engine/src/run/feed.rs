//! What goes into a run, and what comes out.

use std::collections::HashMap;

use ndarray::{ArrayBase, ArrayView, Data as ArrayData, Dimension};

use super::{RunError, RunErrorKind};
use crate::ir::{DType, Datum, Dim, Element, Name, Tensor, Type};
use crate::plan::Held;

/// An input of a run.
pub enum Feed<'a> {
    /// A value that is there; tensors share their elements.
    Value(Datum),
    /// An array in row-major order, not copied.
    Array(DType, Vec<usize>, &'a [u8]),
}

impl<'a> Feed<'a> {
    /// The type.
    pub(super) fn ty(&self) -> Type {
        match self {
            Feed::Value(d) => d.ty(),
            Feed::Array(d, dims, _) => Type::tensor(*d, dims.iter().copied()),
        }
    }

    pub(super) fn held(self) -> Held<'a> {
        match self {
            Feed::Value(d) => Held::own(d),
            Feed::Array(d, dims, bytes) => Held::Array(d, dims, bytes),
        }
    }
}

impl From<&Tensor> for Feed<'_> {
    fn from(t: &Tensor) -> Self {
        Feed::Value(Datum::Tensor(t.clone()))
    }
}

/// What is given away may be overwritten; see [`Builder::state`](super::Builder::state).
impl From<Tensor> for Feed<'_> {
    fn from(t: Tensor) -> Self {
        Feed::Value(Datum::Tensor(t))
    }
}

impl From<Datum> for Feed<'_> {
    fn from(d: Datum) -> Self {
        Feed::Value(d)
    }
}

impl From<&Datum> for Feed<'_> {
    fn from(d: &Datum) -> Self {
        Feed::Value(d.clone())
    }
}

impl<'a, T: Element, D: Dimension> From<ArrayView<'a, T, D>> for Feed<'a> {
    fn from(a: ArrayView<'a, T, D>) -> Feed<'a> {
        let dims = a.shape().to_vec();
        match a.to_slice() {
            Some(s) => Feed::Array(T::DTYPE, dims, bytemuck::cast_slice(s)),
            None => Feed::Value(Tensor::of(&dims, a.iter().copied().collect()).into()),
        }
    }
}

impl<'a, T: Element, S: ArrayData<Elem = T>, D: Dimension> From<&'a ArrayBase<S, D>> for Feed<'a> {
    fn from(a: &'a ArrayBase<S, D>) -> Feed<'a> {
        a.view().into()
    }
}

/// The outputs of a run, in the model's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// Their names.
    pub names: Vec<Name>,
    /// What they are.
    pub values: Vec<Datum>,
}

impl Outputs {
    /// The output `name`, if there is one and it is a tensor.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        let at = self.names.iter().position(|n| &**n == name)?;
        self.values.get(at)?.tensor()
    }

    /// Names and elements of the outputs that are tensors.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let all = self.names.iter().zip(&self.values);
        all.filter_map(|(name, v)| Some((&**name, v.tensor()?)))
    }

    /// Takes the output `name` out, if there is one and it is a tensor.
    pub fn take(&mut self, name: &str) -> Option<Tensor> {
        let at = self.names.iter().position(|n| &**n == name)?;
        self.names.remove(at);
        match self.values.remove(at) {
            Datum::Tensor(t) => Some(t),
            _ => None,
        }
    }

    /// The first output, if it is a tensor.
    pub fn into_first(self) -> Option<Tensor> {
        match self.values.into_iter().next()? {
            Datum::Tensor(t) => Some(t),
            _ => None,
        }
    }
}

impl std::ops::Index<usize> for Outputs {
    type Output = Tensor;
    /// # Panics
    ///
    /// If there is no such output, or it is no tensor.
    fn index(&self, i: usize) -> &Tensor {
        let found = self.values.get(i).and_then(Datum::tensor);
        found.unwrap_or_else(|| panic!("output {i} is no tensor; the outputs are {:?}", self.names))
    }
}

impl std::ops::Index<&str> for Outputs {
    type Output = Tensor;
    /// # Panics
    ///
    /// If there is no such output, or it is no tensor; see [`Outputs::get`].
    fn index(&self, name: &str) -> &Tensor {
        let known = || format!("no tensor {name:?}; the outputs are {:?}", self.names);
        self.get(name).unwrap_or_else(|| panic!("{}", known()))
    }
}

/// Checks an input against its declared type; the same symbol must mean the same size in all inputs.
pub(super) fn fits(
    name: &str,
    ty: &Type,
    feed: &Feed,
    symbols: &mut HashMap<Name, usize>,
) -> Result<(), RunError> {
    let found = feed.ty();
    let wrong = |expected: String| {
        RunError::from(RunErrorKind::WrongInput {
            name: name.to_owned(),
            expected,
            found: found.to_string(),
        })
    };
    match (ty, &found) {
        (Type::Unknown, _) => return Ok(()),
        (Type::Tensor { .. }, Type::Tensor { .. }) => {}
        // An optional may be given as what it holds.
        (Type::Optional(of), _) if std::mem::discriminant(&**of) == std::mem::discriminant(&found) => {
            return Ok(());
        }
        (want, got) if std::mem::discriminant(want) == std::mem::discriminant(got) => return Ok(()),
        _ => return Err(wrong(ty.to_string())),
    }
    let dims = found.dims().unwrap_or_default();
    let rank = ty.shape().is_none_or(|s| s.len() == dims.len());
    if ty.dtype().is_some_and(|d| Some(d) != found.dtype()) || !rank {
        return Err(wrong(ty.to_string()));
    }
    for (d, &size) in ty.shape().into_iter().flatten().zip(&dims) {
        match d.named() {
            Dim::Known(n) if usize::try_from(n) != Ok(size) => return Err(wrong(ty.to_string())),
            Dim::Symbol(s) => {
                let seen = *symbols.entry(s.clone()).or_insert(size);
                if seen != size {
                    return Err(wrong(format!("{ty} with {s} = {seen}, as in another input")));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
