//! ONNX `TensorScatter`: new elements written into a cache, for each sequence at its own place.

use super::super::formula::{apply, ints};
use super::super::grad::{at, int, sizes, zeros};
use super::super::pick::{given, integers, pick, place};
use super::super::shape::{arity, like_first, ranked, show};
use super::super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::moves::{short, width};
use crate::cpu::{Candidate, Cost, Io};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Tensor, count};

/// ONNX `TensorScatter`.
pub struct TensorScatter;

/// Whether places behind the end are those at the start.
fn circular(n: &NodeRef) -> Result<bool, OpError> {
    match n.str_or("mode", "linear")? {
        "linear" => Ok(false),
        "circular" => Ok(true),
        other => Err(OpError::new(format!(
            "attribute \"mode\": expected \"linear\" or \"circular\", found {other:?}"
        ))),
    }
}

fn axis(n: &NodeRef, rank: usize) -> Result<usize, OpError> {
    match NodeRef::axis(n.int_or("axis", -2)?, rank)? {
        0 => Err(OpError::new("axis 0 is that of the sequences")),
        axis => Ok(axis),
    }
}

/// Where each sequence's new elements begin in a cache of `len` places.
fn begins(places: &[i64], new: usize, len: usize, circular: bool) -> Result<Vec<usize>, OpError> {
    let one = |&at: &i64| {
        let begin = match circular {
            true => at.checked_rem_euclid(len as i64),
            false => Some(at),
        };
        let begin = begin.and_then(|at| usize::try_from(at).ok());
        begin
            .filter(|b| circular || b.checked_add(new).is_some_and(|end| end <= len))
            .ok_or_else(|| OpError::new(format!("{new} elements at {at} leave a cache of {len}")))
    };
    places.iter().map(one).collect()
}

impl Op for TensorScatter {
    fn name(&self) -> OpName {
        onnx("TensorScatter")
    }

    fn since(&self) -> &'static [u16] {
        &[24]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 3)?;
        circular(n)?;
        if let (Some(a), Some(b)) = (n.dtype(0), n.dtype(1))
            && a != b
        {
            return Err(OpError::new(format!("{b} cannot be written among {a}")));
        }
        ranked(n, 2, 1)?;
        if let Some(d) = n.dtype(2).filter(|d| *d != DType::I64) {
            return Err(OpError::new(format!("input 2 is of type {d}; expected int64")));
        }
        let (Some(cache), Some(new)) = (n.shape(0), n.shape(1)) else {
            axis(n, usize::MAX >> 1)?;
            return like_first(n);
        };
        let axis = axis(n, cache.len())?;
        let fits = |i: usize| match (cache[i].known(), new[i].known()) {
            (Some(c), Some(u)) => c == u || (i == axis && u < c),
            _ => true,
        };
        if cache.len() != new.len() || !(0..cache.len()).all(fits) {
            return Err(OpError::new(format!(
                "{} does not fit into {} along axis {axis}",
                show(new),
                show(cache)
            )));
        }
        like_first(n)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0],
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (cache, new) = (given(x, 0)?, given(x, 1)?);
        let (dims, axis, circular) = (cache.dims(), axis(n, cache.dims().len())?, circular(n)?);
        let (len, count) = (dims[axis], new.dims()[axis]);
        let places = match x.get(2).copied().flatten() {
            Some(t) => integers(t, 2)?,
            None => vec![0; dims[0]],
        };
        let begins = begins(&places, count, len, circular)?;
        if begins.len() != dims[0] {
            return Err(OpError::new("expected a place for each sequence"));
        }
        let y = pick(cache.dtype(), dims, &[cache, new], |at| {
            let behind = (at[axis] + len - begins[at[0]]) % len;
            let mut from = at.to_vec();
            from[axis] = behind;
            Ok(match behind < count {
                true => (1, place(from, new.dims())),
                false => (0, place(at.iter().copied(), dims)),
            })
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (cache, new, dy) = (x[0]?, x[1]?, dy[0]?);
        let (rank, attrs) = (n.rank(0)?, n.node().attrs.clone());
        let axis = axis(n, rank).ok()?;
        let to = at(x, 2);
        let dcache = apply(dy, "TensorScatter", &[Some(zeros(n, 1, new)), to], attrs, 1)[0];
        // Where in its line each new element went.
        let along = |x: Ex<'a>, own: usize| {
            let mut dims = vec![1; rank];
            dims[own] = -1;
            x.op("Reshape", &[ints(x, &dims)])
        };
        let length = |x: Ex<'a>| {
            let cut = vec![Attr::new("start", axis as i64), Attr::new("end", axis as i64 + 1)];
            x.with("Shape", &[], cut)
        };
        let count = length(new).op("Squeeze", &[]);
        let order = along(int(new, 0).op("Range", &[count, int(new, 1)]), axis);
        let places = to.map_or(order, |to| along(to, 0) + order);
        let places = places
            .op("Mod", &[length(cache)])
            .op("Expand", &[sizes(n, 1, new)]);
        let dnew = dy.with("GatherElements", &[places], vec![Attr::new("axis", axis as i64)]);
        Some(vec![Some(dcache), Some(dnew), None])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernel(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let at = |all: Vec<i64>| Tensor::of(&[all.len()], all);
        let of = |name, cache: &[usize], new: &[usize], all| {
            Case::new(name, [case::floats(cache, 1), case::floats(new, 2), at(all)])
        };
        let bytes = |dims: &[usize], from: u8| {
            let len = dims.iter().product::<usize>() as u8;
            Tensor::of(dims, (from..from + len).collect())
        };
        vec![
            of("in line", &[2, 3, 7, 5], &[2, 3, 2, 5], vec![5, 0]).attr("mode", "linear"),
            of("around", &[2, 3, 7, 5], &[2, 3, 3, 5], vec![6, -1]).attr("mode", "circular"),
            of("another axis", &[2, 7, 3, 5], &[2, 1, 3, 5], vec![1, 2]).attr("axis", 1),
            of("all", &[1, 4, 2], &[1, 4, 2], vec![0]),
            of("nothing", &[1, 4, 2], &[1, 0, 2], vec![4]),
            Case::new("at the start", [bytes(&[2, 4, 3], 0), bytes(&[2, 2, 3], 100)]),
            Case::new(
                "nibbles",
                [
                    Tensor::zeros(DType::I4, &[1, 4, 3]).unwrap_or_else(|| Tensor::scalar(0f32)),
                    Tensor::zeros(DType::I4, &[1, 2, 3]).unwrap_or_else(|| Tensor::scalar(0f32)),
                ],
            ),
        ]
    }
}

fn kernel(n: &NodeRef) -> Option<Candidate> {
    let (dtype, cache, new) = (n.dtype(0)?, n.dims(0)?, n.dims(1)?);
    let (axis, circular) = (axis(n, cache.len()).ok()?, circular(n).ok()?);
    let inner = count(&cache[axis + 1..])?.checked_mul(width(dtype)?)?;
    let (len, add, batch) = (cache[axis], new[axis], cache[0]);
    let outer = count(&cache[..axis])?;
    let placed = n.has(2);
    let run = move |io: &mut Io| {
        let places = match placed {
            true => io.input(2).slice::<i64>().to_vec(),
            false => vec![0; batch],
        };
        let begins = begins(&places, add, len, circular)?;
        if begins.len() != batch {
            return Err(OpError::new("expected a place for each sequence"));
        }
        let (cache, new) = (io.input(0), io.input(1).bytes());
        let out = io.output(0).bytes();
        if !cache.in_place() {
            out.copy_from_slice(cache.bytes());
        }
        for o in 0..outer {
            let begin = begins[o / (outer / batch)];
            let first = add.min(len - begin);
            let from = &new[o * add * inner..][..add * inner];
            let (head, tail) = from.split_at(first * inner);
            let to = &mut out[o * len * inner..][..len * inner];
            to[begin * inner..][..head.len()].copy_from_slice(head);
            to[..tail.len()].copy_from_slice(tail);
        }
        Ok(())
    };
    let bytes = count(&cache)?.checked_mul(width(dtype)?)?;
    Some(Candidate::new(
        format!("tensorscatter.{}", short(dtype)),
        Cost::bytes(bytes.saturating_mul(2)),
        run,
    ))
}
