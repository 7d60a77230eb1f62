//! What operators of two tensors have in common: broadcasting in its old and new forms, and element types.

use super::shape::{broadcast, same_dtype, show};
use super::{Fact, NodeRef, OpError};
use crate::cpu::walk::Walk;
use crate::cpu::{Candidate, Cost, Kernel};
use crate::ir::{DType, Dim, Shape, Tensor, count};

/// The most elements that are followed through shape computations.
const FOLLOWED: usize = 64;

/// How many axes of size 1 to append to the second shape, of rank `rb`, so that its axes stand under those of the first,
/// of rank `ra`.
pub(crate) type Align = fn(n: &NodeRef, ra: usize, rb: usize) -> Result<usize, OpError>;

/// Trailing axes stand under each other; before opset 7, `axis` says where the second shape starts.
///
/// # Errors
///
/// If `axis` leaves no room for it.
pub(crate) fn align(n: &NodeRef, ra: usize, rb: usize) -> Result<usize, OpError> {
    if n.opset() >= 7 {
        return Ok(0);
    }
    n.ignore(&["consumed_inputs"]);
    let (limited, axis) = (n.int_or("broadcast", 0)?, n.int("axis")?);
    let Some(axis) = axis.filter(|_| limited != 0 && rb > 0) else {
        return Ok(0);
    };
    let start = NodeRef::axis(axis, ra)?;
    ra.checked_sub(start + rb).ok_or_else(|| {
        OpError::new(format!(
            "the second input has {rb} axes; from axis {start} the first has only {}",
            ra - start
        ))
    })
}

/// The shapes of both inputs, the second one aligned with the first.
///
/// # Errors
///
/// If it cannot be.
pub(crate) fn shapes(n: &NodeRef, align: Align) -> Result<Option<[Shape; 2]>, OpError> {
    let (Some(a), Some(b)) = (n.shape(0), n.shape(1)) else {
        let _ = align(n, usize::MAX >> 1, 0);
        return Ok(None);
    };
    let ones = align(n, a.len(), b.len())?;
    let b = b.iter().cloned().chain(std::iter::repeat_n(Dim::Known(1), ones));
    Ok(Some([a.clone(), b.collect()]))
}

/// The types of both inputs' broadcast, of element type `out` or else that of the inputs.
///
/// # Errors
///
/// If they do not broadcast.
pub(crate) fn infer(n: &NodeRef, align: Align, out: Option<DType>) -> Result<Fact, OpError> {
    super::shape::arity(n, 2, 2)?;
    for i in 0..2 {
        if !n.has(i) {
            return Err(OpError::new(format!(
                "input {i} is left out; expected two inputs"
            )));
        }
    }
    let shape = match shapes(n, align)? {
        Some([a, b]) => Some(broadcast(&a, &b)?),
        None => None,
    };
    Ok(Fact::tensor(out.or(n.dtype(0)).or(n.dtype(1)), shape))
}

/// [`infer`] for inputs of one element type.
///
/// # Errors
///
/// If they have two, or do not broadcast.
pub(crate) fn infer_same(n: &NodeRef, align: Align, out: Option<DType>) -> Result<Fact, OpError> {
    same_dtype(n)?;
    infer(n, align, out)
}

/// `fact` with its elements, as far as `f` of the inputs' elements knows them, if it is a scalar or a vector of integers or
/// truth values.
pub(crate) fn follow(n: &NodeRef, fact: Fact, f: impl Fn(&[&Dim]) -> Dim) -> Fact {
    let dtype = fact.ty.dtype();
    let ranks = (0..n.arity()).all(|i| n.rank(i).is_some_and(|r| r <= 1));
    if n.arity() == 0 || !ranks || !matches!(dtype, Some(DType::I64 | DType::I32 | DType::Bool)) {
        return fact;
    }
    let Some(all) = (0..n.arity()).map(|i| n.data(i)).collect::<Option<Vec<_>>>() else {
        return fact;
    };
    let len = all.iter().map(Vec::len).find(|&l| l != 1).unwrap_or(1);
    if len > FOLLOWED || all.iter().any(|x| x.len() != 1 && x.len() != len) {
        return fact;
    }
    let at = |i: usize| -> Vec<&Dim> { all.iter().map(|x| &x[if x.len() == 1 { 0 } else { i }]).collect() };
    // What leaves the range of an `i32` wraps around.
    let fits = |d: &Dim| dtype != Some(DType::I32) || d.known().is_none_or(|n| i32::try_from(n).is_ok());
    let data: Vec<_> = (0..len).map(|i| f(&at(i))).collect();
    let data = Some(data).filter(|d| d.iter().all(fits));
    Fact { data, ..fact }
}

/// For each element of a tensor of dimensions `out`, the position in one of dimensions `from` that broadcasts to it.
pub(crate) fn stretch(from: &[usize], out: &[usize]) -> Vec<usize> {
    let ahead: Vec<_> = (0..from.len())
        .map(|i| count(&from[i + 1..]).unwrap_or(0))
        .collect();
    let place = |mut i: usize| {
        let mut at = 0;
        for (back, &size) in out.iter().rev().enumerate() {
            let index = i % size;
            i /= size;
            if let Some(axis) = from.len().checked_sub(back + 1).filter(|&a| from[a] != 1) {
                at += index * ahead[axis];
            }
        }
        at
    };
    (0..count(out).unwrap_or(0)).map(place).collect()
}

/// Dimensions of both inputs, the second aligned, and of their broadcast.
type Together = ([Vec<usize>; 2], Vec<usize>);

/// The dimensions `a` and `b` of two inputs, the second aligned, and of their broadcast.
///
/// # Errors
///
/// If they do not broadcast, or the result is larger than memory.
pub(crate) fn together(n: &NodeRef, align: Align, a: &[usize], b: &[usize]) -> Result<Together, OpError> {
    let mut b = b.to_vec();
    b.resize(b.len() + align(n, a.len(), b.len())?, 1);
    let out = broadcast_dims(a, &b)?;
    Ok(([a.to_vec(), b], out))
}

/// The dimensions that `a` and `b` broadcast to.
///
/// # Errors
///
/// If they do not, or the result is larger than memory.
pub(crate) fn broadcast_dims(a: &[usize], b: &[usize]) -> Result<Vec<usize>, OpError> {
    let wide = |d: &[usize]| -> Shape { d.iter().map(|&d| Dim::from(d)).collect() };
    let out = broadcast(&wide(a), &wide(b))?;
    let known: Option<Vec<_>> = out.iter().map(Dim::size).collect();
    known
        .filter(|d| count(d).is_some_and(|n| n < isize::MAX as usize / 16))
        .ok_or_else(|| OpError::new(format!("{} has more elements than memory can hold", show(&out))))
}

/// The two inputs, which must be there.
///
/// # Errors
///
/// If one is not.
pub(crate) fn two<'a>(x: &[Option<&'a Tensor>]) -> Result<[&'a Tensor; 2], OpError> {
    match x {
        [Some(a), Some(b)] => Ok([a, b]),
        _ => Err(OpError::new("expected two inputs")),
    }
}

/// The walk along the result of a node whose shapes are known.
pub(crate) fn walk(n: &NodeRef, align: Align) -> Option<Walk<2>> {
    let ([a, b], out) = together(n, align, &n.dims(0)?, &n.dims(1)?).ok()?;
    (n.out_dims(0)? == out).then(|| Walk::new(&out, [&a, &b]))?
}

/// The bytes that the inputs and outputs of `n` have together.
pub(crate) fn traffic(n: &NodeRef) -> Cost {
    let bytes = |dtype: Option<DType>, dims: Option<Vec<usize>>| {
        let elements = dims.as_deref().and_then(count)?;
        dtype?.bytes(elements)
    };
    let inputs = (0..n.arity()).filter_map(|i| bytes(n.dtype(i), n.dims(i)));
    let outputs = (0..n.node().outputs.len()).filter_map(|i| bytes(n.out_dtype(i), n.out_dims(i)));
    Cost::bytes(inputs.chain(outputs).sum())
}

/// The candidate of a kernel that is there already, called `op.dtype.isa`.
pub(crate) fn candidate(n: &NodeRef, variant: &str, kernel: Box<dyn Kernel>) -> Candidate {
    let dtype = n
        .dtype(0)
        .map_or(String::new(), |d| format!("{d:?}").to_lowercase());
    let op = n.node().op.to_lowercase();
    Candidate {
        name: format!("{op}.{dtype}.{}{variant}", secateur_simd::isa()),
        cost: traffic(n),
        layouts: Default::default(),
        sparse: None,
        build: Box::new(move || kernel),
    }
}
