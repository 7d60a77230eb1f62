//! ONNX's classical machine learning: the domain `ai.onnx.ml`.

pub mod arrays;
pub mod labels;
pub mod linear;
pub mod maps;
mod post;
mod rows;
pub mod svm;
pub mod tree;

use super::{Fact, NodeRef, OpError};
use crate::ir::{DType, Dim, Shape};

/// Refuses an input 0 that is no tensor of numbers.
fn numeric(n: &NodeRef) -> Result<(), OpError> {
    super::shape::arity(n, 1, 1)?;
    match n.dtype(0) {
        None | Some(DType::F32 | DType::F64 | DType::I64 | DType::I32) => Ok(()),
        Some(d) => Err(OpError::new(format!(
            "input 0 is of type {d}; expected float, double, int64 or int32"
        ))),
    }
}

/// The number of rows of input 0, a tensor `[n, c]` or `[c]`, and that of its columns.
fn table(n: &NodeRef) -> Result<(Dim, Dim), OpError> {
    match n.shape(0).map(|s| &s[..]) {
        None => Ok((Dim::Unknown, Dim::Unknown)),
        Some([c]) => Ok((Dim::Known(1), c.clone())),
        Some([r, c]) => Ok((r.clone(), c.clone())),
        Some(s) => Err(OpError::new(format!(
            "input 0 has shape {}; expected [n, c] or [c]",
            super::shape::show(s)
        ))),
    }
}

/// A tensor of floats.
fn floats(shape: Shape) -> Fact {
    Fact::tensor(Some(DType::F32), Some(shape))
}

/// Numbers that an attribute holds as floats.
fn widened(x: Option<&[f32]>) -> Vec<f64> {
    x.unwrap_or(&[]).iter().map(|&x| x.into()).collect()
}

/// An error about attributes that do not go together.
fn misfit(what: impl std::fmt::Display) -> OpError {
    OpError::new(format!("the attributes do not fit each other: {what}"))
}
