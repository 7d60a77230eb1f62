//! Reference results of operators that only move elements.

use super::{Fact, NodeRef, Op, OpError};
use crate::ir::small::{packed, unpacked};
use crate::ir::{Bytes, DType, Data, Tensor, count};
use crate::reference;

/// Input `i` of `x`, which must be there.
///
/// # Errors
///
/// If it is left out.
pub fn given<'a>(x: &[Option<&'a Tensor>], i: usize) -> Result<&'a Tensor, OpError> {
    let found = x.get(i).copied().flatten();
    found.ok_or_else(|| OpError::new(format!("input {i} is missing")))
}

/// The elements of the integer tensor `t`, which is input `i`.
///
/// # Errors
///
/// If it is no tensor of integers.
pub fn integers(t: &Tensor, i: usize) -> Result<Vec<i64>, OpError> {
    t.ints()
        .ok_or_else(|| OpError::new(format!("input {i} is of type {}; expected integers", t.dtype())))
}

/// The tensor whose element at each index is the one that `from` names: a number of `sources` and a place in it.
///
/// # Errors
///
/// Those of `from`, or if the result is larger than memory.
pub fn pick(
    dtype: DType,
    dims: &[usize],
    sources: &[&Tensor],
    mut from: impl FnMut(&[usize]) -> Result<(usize, usize), OpError>,
) -> Result<Tensor, OpError> {
    if let Some(s) = sources.iter().find(|s| s.dtype() != dtype) {
        let found = s.dtype();
        return Err(OpError::new(format!(
            "elements of type {found} among elements of type {dtype}"
        )));
    }
    macro_rules! bytes {
        ($n:literal) => {{
            let parts: Vec<_> = sources.iter().map(|s| bytemuck::cast_slice(s.bytes())).collect();
            Data::Bytes(Bytes::new(collect::<[u8; $n]>(dims, &parts, &mut from)?))
        }};
    }
    let data = match (dtype, dtype.bits()) {
        (DType::String, _) => {
            let parts: Vec<_> = sources.iter().map(|s| s.strings()).collect();
            Data::Strings(collect(dims, &parts, &mut from)?.into())
        }
        (_, bits @ (2 | 4)) => {
            let parts: Vec<_> = sources.iter().map(|s| unpacked(s.bytes(), bits)).collect();
            let parts: Vec<_> = parts.iter().map(|p| &p[..]).collect();
            Data::Bytes(Bytes::new(packed(&collect(dims, &parts, &mut from)?, bits)))
        }
        (_, 8) => bytes!(1),
        (_, 16) => bytes!(2),
        (_, 32) => bytes!(4),
        (_, 64) => bytes!(8),
        (_, 128) => bytes!(16),
        _ => return Err(OpError::new(format!("elements of type {dtype} cannot be moved"))),
    };
    Tensor::new(dtype, dims.to_vec(), data).map_err(|e| OpError::new(e.to_string()))
}

/// [`pick`] from one tensor.
///
/// # Errors
///
/// Those of `from`, or if the result is larger than memory.
pub fn rearranged(
    x: &Tensor,
    dims: &[usize],
    mut from: impl FnMut(&[usize]) -> usize,
) -> Result<Tensor, OpError> {
    pick(x.dtype(), dims, &[x], |at| Ok((0, from(at))))
}

/// Calls `each` with every index of a tensor of dimensions `dims`, in row-major order.
///
/// # Errors
///
/// The first of `each`.
pub fn indices(dims: &[usize], mut each: impl FnMut(&[usize]) -> Result<(), OpError>) -> Result<(), OpError> {
    if dims.contains(&0) {
        return Ok(());
    }
    let mut at = vec![0; dims.len()];
    loop {
        each(&at)?;
        let Some(axis) = (0..dims.len()).rev().find(|&i| at[i] + 1 < dims[i]) else {
            return Ok(());
        };
        at[axis] += 1;
        at[axis + 1..].fill(0);
    }
}

/// The place of index `at` in a dense row-major tensor of dimensions `dims`.
pub fn place(at: impl IntoIterator<Item = usize>, dims: &[usize]) -> usize {
    at.into_iter().zip(dims).fold(0, |flat, (i, d)| flat * d + i)
}

/// Room for `n` elements.
///
/// # Errors
///
/// If there is not so much memory.
pub fn room<T>(n: Option<usize>) -> Result<Vec<T>, OpError> {
    let mut v = vec![];
    match n.is_some_and(|n| v.try_reserve_exact(n).is_ok()) {
        true => Ok(v),
        false => Err(OpError::new("the result is larger than memory")),
    }
}

/// `index` counted from the end of an axis of size `len` where it is negative.
///
/// # Errors
///
/// If it is out of bounds.
pub fn bounded(index: i64, len: usize) -> Result<usize, OpError> {
    let from_end = usize::try_from(index.unsigned_abs())
        .ok()
        .and_then(|back| len.checked_sub(back));
    let found = if index < 0 {
        from_end
    } else {
        usize::try_from(index).ok()
    };
    found
        .filter(|&i| i < len)
        .ok_or_else(|| OpError::new(format!("index {index} is not in [-{len}, {len})")))
}

/// Calls `f` with the node as one sees it who knows the elements of all inputs.
pub fn knowing<R>(n: &NodeRef, x: &[Option<&Tensor>], f: impl FnOnce(&NodeRef) -> R) -> R {
    let facts: Vec<_> = x.iter().map(|t| t.map(Fact::of)).collect();
    let inputs = reference::given(&n.node().inputs, &facts, x);
    f(&NodeRef::new(n.node(), n.opset(), inputs))
}

/// The sizes of output `i`, as [`Op::infer`] has them when all inputs are known.
///
/// # Errors
///
/// Those of inference, or if even then a size is not known.
pub fn sized(op: &dyn Op, n: &NodeRef, i: usize) -> Result<Vec<usize>, OpError> {
    let facts = op.infer(n)?;
    let dims = facts.get(i).and_then(|f| f.ty.dims());
    dims.ok_or_else(|| OpError::new(format!("the shape of output {i} does not follow from the inputs")))
}

fn collect<T: Clone>(
    dims: &[usize],
    sources: &[&[T]],
    from: &mut impl FnMut(&[usize]) -> Result<(usize, usize), OpError>,
) -> Result<Vec<T>, OpError> {
    let mut out = room(count(dims))?;
    indices(dims, |at| {
        let (source, place) = from(at)?;
        let found = sources.get(source).and_then(|s| s.get(place));
        out.push(
            found
                .cloned()
                .ok_or_else(|| OpError::new(format!("no element {place} in input {source}")))?,
        );
        Ok(())
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_below_a_byte_are_packed_again() {
        for bits in [2, 4] {
            let bytes = [0x1b, 0xe4, 0x72];
            assert_eq!(packed(&unpacked(&bytes, bits), bits), bytes);
        }
        let x = Tensor::new(DType::I4, vec![3], Data::Bytes(Bytes::new(vec![0x21u8, 0x03]))).unwrap();
        let y = rearranged(&x, &[3], |at| 2 - at[0]).unwrap();
        assert_eq!(y.bytes(), [0x23, 0x01]);
    }

    #[test]
    fn indices_count_from_the_end() {
        assert_eq!(bounded(-3, 3), Ok(0));
        assert_eq!(bounded(2, 3), Ok(2));
        assert!(bounded(3, 3).is_err() && bounded(-4, 3).is_err() && bounded(i64::MIN, 3).is_err());
    }
}
