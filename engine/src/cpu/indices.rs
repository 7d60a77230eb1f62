//! Indices that come with the data.

use super::View;
use crate::ir::DType;
use crate::ops::OpError;

/// The elements of a view of 32 or 64-bit integers.
///
/// # Errors
///
/// If they are of another type.
pub fn integers(view: &View) -> Result<Vec<i64>, OpError> {
    match view.dtype() {
        DType::I32 => Ok(view.slice::<i32>().iter().map(|&x| x.into()).collect()),
        DType::I64 => Ok(view.slice::<i64>().to_vec()),
        other => Err(OpError::new(format!(
            "indices of type {other}; expected int32 or int64"
        ))),
    }
}

/// The elements of a view of indices into an axis of size `len`, counted from the end where they are negative.
///
/// # Errors
///
/// If one is out of bounds.
pub fn indices(view: &View, len: usize) -> Result<Vec<usize>, OpError> {
    let whole = i64::try_from(len).unwrap_or(i64::MAX);
    let from_start = |i: i64| if i < 0 { i + whole } else { i };
    let all = integers(view)?;
    if let Some(i) = all.iter().find(|&&i| !(0..whole).contains(&from_start(i))) {
        return Err(OpError::new(format!("index {i} is not in [-{len}, {len})")));
    }
    Ok(all.into_iter().map(|i| from_start(i) as usize).collect())
}
