//! Writing by index on the CPU, in the order of the updates: every index is checked before anything is written.

use num_traits::{Float, PrimInt, WrappingAdd, WrappingMul};

use super::{Reduction, axis, is_nd, reducible, reduction};
use crate::cpu::copy::steps;
use crate::cpu::indices::{indices, integers};
use crate::cpu::moves::{short, width};
use crate::cpu::number::Real;
use crate::cpu::{Candidate, Cost, Io, View, ViewMut};
use crate::ir::{DType, Element, count};
use crate::ops::gather::{slices, tuples};
use crate::ops::{NodeRef, OpError};

/// How indices name places.
enum Way {
    /// By the axis, and the dimensions of indices and data.
    Lines(usize, Vec<usize>, Vec<usize>),
    /// By the number and length of tuples, and the dimensions of the data.
    Tuples(usize, usize, Vec<usize>),
}

impl Way {
    /// The place of each row of the updates, in elements.
    fn places(&self, by: &View) -> Result<Vec<usize>, OpError> {
        match self {
            Way::Tuples(count, len, dims) => {
                let all = integers(by)?;
                slices(&all, (*count, *len), dims, (0, (*count).max(1)))
            }
            Way::Lines(axis, by_dims, dims) => {
                let steps = steps(dims);
                let mut places = indices(by, dims[*axis])?;
                for (flat, place) in places.iter_mut().enumerate() {
                    *place *= steps[*axis] as usize;
                    let mut rest = flat;
                    for (a, &size) in by_dims.iter().enumerate().rev() {
                        if a != *axis {
                            *place += rest % size * steps[a] as usize;
                        }
                        rest /= size;
                    }
                }
                Ok(places)
            }
        }
    }
}

pub(super) fn scatter(n: &NodeRef) -> Option<Candidate> {
    let (dtype, dims, by) = (n.dtype(0)?, n.dims(0)?, n.dims(1)?);
    let width = width(dtype)?;
    let reduction = reduction(n).ok()?;
    if reduction != Reduction::None && !reducible(dtype) {
        return None;
    }
    let (way, row) = match is_nd(n) {
        true => {
            let len = tuples(n, 1, 0).ok()??;
            let tuples = count(by.split_last()?.1)?;
            let row = count(&dims[len..])?;
            (Way::Tuples(tuples, len, dims.clone()), row)
        }
        false => (Way::Lines(axis(n, dims.len()).ok()?, by, dims.clone()), 1),
    };
    let bytes = count(&dims)?.checked_mul(2 * width)?;
    let name = format!("{}.{}", n.node().op.to_lowercase(), short(dtype));
    let run = move |io: &mut Io| {
        let places = way.places(&io.input(1))?;
        let (data, updates) = (io.input(0), io.input(2));
        let y = io.output(0);
        if !data.in_place() {
            y.bytes().copy_from_slice(data.bytes());
        }
        match reduction {
            Reduction::None => {
                let row = row * width;
                for (update, place) in updates.bytes().chunks_exact(row.max(1)).zip(places) {
                    y.bytes()[place * width..][..row].copy_from_slice(update);
                }
            }
            _ => reduce(reduction, dtype, &updates, y, row, &places),
        }
        Ok(())
    };
    Some(Candidate::new(name, Cost::bytes(bytes), run))
}

fn reduce(r: Reduction, dtype: DType, updates: &View, y: &mut ViewMut, row: usize, places: &[usize]) {
    macro_rules! by_type {
        ($f:ident: $($d:ident $t:ty),*) => {
            $(if dtype == DType::$d {
                return over::<$t>(updates.slice(), y.slice(), row, places, |a, b| $f(r, a, b));
            })*
        };
    }
    by_type!(real: F32 f32, F64 f64, F16 half::f16, BF16 half::bf16);
    by_type!(int: U8 u8, I8 i8, U16 u16, I16 i16, U32 u32, I32 i32, U64 u64, I64 i64);
}

fn over<T: Element>(updates: &[T], y: &mut [T], row: usize, places: &[usize], f: impl Fn(T, T) -> T) {
    for (update, &place) in updates.chunks_exact(row.max(1)).zip(places) {
        for (y, &u) in y[place..][..row].iter_mut().zip(update) {
            *y = f(*y, u);
        }
    }
}

fn real<T: Real>(reduction: Reduction, a: T, b: T) -> T {
    let (a, b) = (a.wide(), b.wide());
    let nan = a.is_nan() || b.is_nan();
    T::narrow(match reduction {
        Reduction::None => b,
        Reduction::Add => a + b,
        Reduction::Mul => a * b,
        _ if nan => T::Wide::nan(),
        Reduction::Min => a.min(b),
        Reduction::Max => a.max(b),
    })
}

fn int<T: PrimInt + WrappingAdd + WrappingMul>(reduction: Reduction, a: T, b: T) -> T {
    match reduction {
        Reduction::None => b,
        Reduction::Add => a.wrapping_add(&b),
        Reduction::Mul => a.wrapping_mul(&b),
        Reduction::Min => a.min(b),
        Reduction::Max => a.max(b),
    }
}
