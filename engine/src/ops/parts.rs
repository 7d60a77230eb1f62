//! Tensors cut into parts and put together, whatever their elements are.

use std::ops::Range;

use super::OpError;
use crate::ir::{Bytes, DType, Data, Tensor, Type, count};

fn wrong(what: impl Into<String>) -> OpError {
    OpError::new(what)
}

/// The parts put together along `axis`.
///
/// # Errors
///
/// If there is none, or they differ in type or in another axis.
pub fn join(all: &[Tensor], axis: usize) -> Result<Tensor, OpError> {
    let first = all
        .first()
        .ok_or_else(|| wrong("there is nothing to put together"))?;
    let mut dims = first.dims().to_vec();
    if axis >= dims.len() {
        return Err(wrong(format!("axis {axis} of a tensor of rank {}", dims.len())));
    }
    dims[axis] = 0;
    for t in all {
        let fits =
            t.dims().len() == dims.len() && (0..dims.len()).all(|a| a == axis || t.dims()[a] == dims[a]);
        if !fits || t.dtype() != first.dtype() {
            return Err(wrong(format!(
                "expected {}{:?} but for axis {axis}, found {}{:?}",
                first.dtype(),
                first.dims(),
                t.dtype(),
                t.dims()
            )));
        }
        dims[axis] = dims[axis]
            .checked_add(t.dims()[axis])
            .ok_or_else(|| wrong("too many elements"))?;
    }
    let (outer, inner) = (rows(&dims[..axis])?, rows(&dims[axis + 1..])?);
    let runs = all.iter().map(|t| t.dims()[axis] * inner);
    let runs: Vec<usize> = runs.collect();
    if first.dtype() == DType::String {
        let rows = (0..outer).flat_map(|o| {
            all.iter()
                .zip(&runs)
                .flat_map(move |(t, &run)| t.strings()[o * run..(o + 1) * run].iter().cloned())
        });
        return made(first.dtype(), dims, Data::Strings(rows.collect()));
    }
    let width = width(first.dtype())?;
    let mut bytes = vec![];
    for o in 0..outer {
        for (t, &run) in all.iter().zip(&runs) {
            bytes.extend_from_slice(&t.bytes()[o * run * width..(o + 1) * run * width]);
        }
    }
    made(first.dtype(), dims, Data::Bytes(Bytes::new(bytes)))
}

/// The parts put together along a new axis. With no part, `like` gives the type of each.
///
/// # Errors
///
/// If they differ, or there is none and `like` does not say what they would be.
pub fn stack(all: &[Tensor], axis: usize, like: Option<&Type>) -> Result<Tensor, OpError> {
    if all.is_empty() {
        let dtype = like.and_then(Type::dtype).unwrap_or(DType::F32);
        let mut dims = like.and_then(Type::dims).unwrap_or_default();
        dims.insert(axis.min(dims.len()), 0);
        let none = Tensor::zeros(dtype, &dims);
        return none.ok_or_else(|| wrong(format!("no empty tensor of {dtype}")));
    }
    let thin = |t: &Tensor| {
        let mut dims = t.dims().to_vec();
        if axis > dims.len() {
            return Err(wrong(format!(
                "a new axis {axis} in a tensor of rank {}",
                dims.len()
            )));
        }
        dims.insert(axis, 1);
        t.reshaped(&dims).ok_or_else(|| wrong("too many elements"))
    };
    join(&all.iter().map(thin).collect::<Result<Vec<_>, _>>()?, axis)
}

/// The slices `range` along `axis`.
///
/// # Errors
///
/// If there are not so many.
pub fn part(t: &Tensor, axis: usize, range: Range<usize>) -> Result<Tensor, OpError> {
    let size = t.dims().get(axis).copied().unwrap_or(0);
    if range.start > range.end || range.end > size {
        return Err(wrong(format!("slices {range:?} of {size}")));
    }
    let mut dims = t.dims().to_vec();
    dims[axis] = range.len();
    let (outer, inner) = (rows(&dims[..axis])?, rows(&dims[axis + 1..])?);
    let runs = (0..outer).map(|o| (o * size + range.start) * inner..(o * size + range.end) * inner);
    if t.dtype() == DType::String {
        let picked = runs.flat_map(|r| t.strings()[r].iter().cloned());
        return made(t.dtype(), dims, Data::Strings(picked.collect()));
    }
    let width = width(t.dtype())?;
    if let (1, Data::Bytes(all)) = (outer, t.data()) {
        let bytes = range.start * inner * width..range.end * inner * width;
        let shared = all.slice(bytes).ok_or_else(|| wrong("too few elements"))?;
        return made(t.dtype(), dims, Data::Bytes(shared));
    }
    let mut bytes = Vec::with_capacity(outer * range.len() * inner * width);
    for r in runs {
        bytes.extend_from_slice(&t.bytes()[r.start * width..r.end * width]);
    }
    made(t.dtype(), dims, Data::Bytes(Bytes::new(bytes)))
}

/// The slice `at` along `axis`, without that axis.
///
/// # Errors
///
/// If there is no such slice.
pub fn slice_at(t: &Tensor, axis: usize, at: usize) -> Result<Tensor, OpError> {
    let thin = part(t, axis, at..at + 1)?;
    let mut dims = thin.dims().to_vec();
    dims.remove(axis);
    thin.reshaped(&dims).ok_or_else(|| wrong("too many elements"))
}

fn rows(dims: &[usize]) -> Result<usize, OpError> {
    count(dims).ok_or_else(|| wrong("too many elements"))
}

fn width(dtype: DType) -> Result<usize, OpError> {
    match dtype.bits() {
        bits if bits > 0 && bits % 8 == 0 => Ok(bits / 8),
        _ => Err(wrong(format!("tensors of {dtype} cannot be cut or put together"))),
    }
}

fn made(dtype: DType, dims: Vec<usize>, data: Data) -> Result<Tensor, OpError> {
    Tensor::new(dtype, dims, data).map_err(|e| wrong(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_can_be_put_together() {
        let t = Tensor::of(&[2, 5, 3], (0..30).collect::<Vec<i32>>());
        for axis in 0..3 {
            let size = t.dims()[axis];
            let parts = [part(&t, axis, 0..1).unwrap(), part(&t, axis, 1..size).unwrap()];
            assert_eq!(join(&parts, axis).unwrap(), t);
            let slices: Vec<_> = (0..size).map(|i| slice_at(&t, axis, i).unwrap()).collect();
            assert_eq!(stack(&slices, axis, None).unwrap(), t);
        }
        assert!(part(&t, 1, 2..6).is_err());
        assert!(join(&[], 0).is_err());
    }
}
