//! Looking up on the CPU: every index is checked before anything is read.

use super::{axis, batch, tuples};
use crate::cpu::copy::steps;
use crate::cpu::indices::{indices, integers};
use crate::cpu::moves::{short, width};
use crate::cpu::rows::rows;
use crate::cpu::{Candidate, Cost, Io, Kernel};
use crate::ir::DType;
use crate::ops::pick::bounded;
use crate::ops::{NodeRef, OpError};

/// A kernel that takes the first input byte by byte, wherever it lies: tables of words are large.
struct Bytewise<F>(F);

impl<F: Fn(&mut Io) -> Result<(), OpError> + Send + Sync> Kernel for Bytewise<F> {
    fn aligned(&self, i: usize) -> bool {
        i != 0
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        (self.0)(io)
    }
}

fn product(dims: &[usize]) -> Option<usize> {
    crate::ir::count(dims)
}

/// The kernel `op`, if the output fits into memory.
fn candidate(
    op: &str,
    dtype: DType,
    out: &[usize],
    run: impl Fn(&mut Io) -> Result<(), OpError> + Send + Sync + 'static,
) -> Option<Candidate> {
    let bytes = dtype.bytes(product(out)?)?;
    let name = format!("{op}.{}", short(dtype));
    Some(Candidate::new(
        name,
        Cost::bytes(bytes.checked_mul(2)?),
        Bytewise(run),
    ))
}

pub(super) fn gather(n: &NodeRef) -> Option<Candidate> {
    let (dtype, dims) = (n.dtype(0)?, n.dims(0)?);
    let axis = axis(n, dims.len()).ok()?;
    let row = product(&dims[axis + 1..])?.checked_mul(width(dtype)?)?;
    let (len, by) = (dims[axis], product(&n.dims(1)?)?);
    candidate("gather", dtype, &n.out_dims(0)?, move |io| {
        let index = indices(&io.input(1), len)?;
        let (pool, x) = (io.pool, io.input(0).bytes());
        rows(pool, x, io.output(0).bytes(), row, |i| {
            (i / by * len + index[i % by]) * row
        });
        Ok(())
    })
}

pub(super) fn gather_elements(n: &NodeRef) -> Option<Candidate> {
    let (dtype, dims, out) = (n.dtype(0)?, n.dims(0)?, n.out_dims(0)?);
    let axis = axis(n, dims.len()).ok()?;
    let (width, of) = (width(dtype)?, steps(&dims));
    let inner = out.clone();
    candidate("gatherelements", dtype, &out, move |io| {
        let mut places = indices(&io.input(1), dims[axis])?;
        let by = of[axis] as usize;
        for (flat, place) in places.iter_mut().enumerate() {
            *place *= by;
            let mut rest = flat;
            for (a, &size) in inner.iter().enumerate().rev() {
                if a != axis {
                    *place += rest % size * of[a] as usize;
                }
                rest /= size;
            }
        }
        let (pool, x) = (io.pool, io.input(0).bytes());
        rows(pool, x, io.output(0).bytes(), width, |i| places[i] * width);
        Ok(())
    })
}

/// The places, in elements, of the slices that `count` tuples of `len` indices name in data of dimensions `dims`; each
/// `each` of them belong to the next index of the `batch` leading axes.
///
/// # Errors
///
/// If an index is out of bounds.
pub(in crate::ops) fn slices(
    tuples: &[i64],
    (count, len): (usize, usize),
    dims: &[usize],
    (batch, each): (usize, usize),
) -> Result<Vec<usize>, OpError> {
    let steps = steps(dims);
    let slice: usize = dims[batch..].iter().product();
    let place = |t: usize| {
        let tuple = tuples[t * len..(t + 1) * len].iter().zip(&dims[batch..]);
        tuple
            .zip(&steps[batch..])
            .try_fold(t / each.max(1) * slice, |place, ((&i, &size), &step)| {
                Ok(place + bounded(i, size)? * step as usize)
            })
    };
    (0..count).map(place).collect()
}

pub(super) fn gather_nd(n: &NodeRef) -> Option<Candidate> {
    let (dtype, dims, by) = (n.dtype(0)?, n.dims(0)?, n.dims(1)?);
    let batch = batch(n).ok()?;
    let len = tuples(n, 1, batch).ok()??;
    let width = width(dtype)?;
    let row = product(&dims[batch + len..])?.checked_mul(width)?;
    let outer = &by[..by.len() - 1];
    let (count, each) = (product(outer)?, product(&outer[batch..])?);
    candidate("gathernd", dtype, &n.out_dims(0)?, move |io| {
        let all = integers(&io.input(1))?;
        let places = slices(&all, (count, len), &dims, (batch, each))?;
        let (pool, x) = (io.pool, io.input(0).bytes());
        rows(pool, x, io.output(0).bytes(), row, |i| places[i] * width);
        Ok(())
    })
}
