//! Elements looked up by index.

mod cpu;

pub(super) use cpu::slices;

use super::formula::{ints, transpose};
use super::grad::{put_back, zeros};
use super::pick::{bounded, given, indices, integers, knowing, pick, place, sized};
use super::shape::{arity, show, tied, with_data};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::Candidate;
use crate::expr::Ex;
use crate::ir::{Attr, Dim, Tensor};

/// ONNX `Gather`: slices of an axis, by index.
pub struct Gather;

/// ONNX `GatherElements`: for each index, the element in its line along an axis.
pub struct GatherElements;

/// ONNX `GatherND`: slices of leading axes, by tuples of indices.
pub struct GatherND;

fn axis(n: &NodeRef, rank: usize) -> Result<usize, OpError> {
    NodeRef::axis(n.int_or("axis", 0)?, rank)
}

/// Refuses indices that are no 32 or 64-bit integers.
pub(super) fn index_type(n: &NodeRef, i: usize) -> Result<(), OpError> {
    use crate::ir::DType::{I32, I64};
    match n.dtype(i) {
        None | Some(I32 | I64) => Ok(()),
        Some(d) => Err(OpError::new(format!(
            "input {i} is of type {d}; expected int32 or int64"
        ))),
    }
}

impl Op for Gather {
    fn name(&self) -> OpName {
        onnx("Gather")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 11, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        index_type(n, 1)?;
        let Some(of) = n.shape(0) else {
            n.int_or("axis", 0)?;
            return Ok(vec![Fact::tensor(n.dtype(0), None)]);
        };
        let axis = axis(n, of.len())?;
        let shape = n
            .shape(1)
            .map(|by| [&of[..axis], &by[..], &of[axis + 1..]].concat());
        let data = n.data(0).zip(n.ints_in(1)).filter(|_| of.len() == 1);
        let data = data.and_then(|(all, by)| {
            by.iter()
                .map(|&i| Some(all[bounded(i, all.len()).ok()?].clone()))
                .collect()
        });
        Ok(vec![with_data(Fact::tensor(n.dtype(0), shape), data)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let (rank, by) = (n.rank(0)?, n.rank(1)?);
        let axis = axis(n, rank).ok()?;
        Some(tied(rank + by - 1, |i| match i {
            _ if i < axis => vec![(0, i)],
            _ if i < axis + by => vec![(1, i - axis)],
            _ => vec![(0, i + 1 - by)],
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, by) = (given(x, 0)?, given(x, 1)?);
        let dims = knowing(n, x, |n| sized(self, n, 0))?;
        let axis = axis(n, data.dims().len())?;
        let (index, rank) = (integers(by, 1)?, by.dims().len());
        // Where nothing is taken none of them may be wrong either.
        for &i in &index {
            bounded(i, data.dims()[axis])?;
        }
        let y = pick(data.dtype(), &dims, &[data], |at| {
            let i = index[place(at[axis..axis + rank].iter().copied(), by.dims())];
            let mut source = at[..axis].to_vec();
            source.push(bounded(i, data.dims()[axis])?);
            source.extend(&at[axis + rank..]);
            Ok((0, place(source, data.dims())))
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (x0, by, dy, rank, more) = (x[0]?, x[1]?, dy[0]?, n.rank(0)?, n.rank(1)?);
        let axis = axis(n, rank).ok()?;
        let places = by.op("Unsqueeze", &[ints(by, &[-1])]);
        let add = vec![Attr::new("reduction", "add")];
        let nothing = zeros(n, 0, x0);
        if axis == 0 {
            return Some(vec![Some(nothing.with("ScatterND", &[places, dy], add)), None]);
        }
        // The axis comes first, and goes back.
        let ahead: Vec<usize> = std::iter::once(axis)
            .chain((0..rank).filter(|&a| a != axis))
            .collect();
        let inner = (0..axis).chain(axis + more..rank + more - 1);
        let indices_ahead: Vec<usize> = (axis..axis + more).chain(inner).collect();
        let back: Vec<usize> = (1..=axis).chain([0]).chain(axis + 1..rank).collect();
        let dy = transpose(dy, &indices_ahead);
        let all = transpose(nothing, &ahead).with("ScatterND", &[places, dy], add);
        Some(vec![Some(transpose(all, &back)), None])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::gather(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[4, 5, 3], 1);
        let by = |dims: &[usize], l: &[i64]| Tensor::of(dims, l.to_vec());
        vec![
            Case::new("rows", [x(), by(&[2, 2], &[3, 0, -1, -4])]),
            Case::new("one slice", [x(), by(&[], &[-2])])
                .attr("axis", 1i64)
                .konst(&[1]),
            Case::new("the last axis", [x(), Tensor::of(&[4], vec![2i32, 2, 0, 1])]).attr("axis", -1i64),
            Case::new("none", [x(), by(&[0], &[])]).attr("axis", 1i64),
            Case::new("of a shape", [by(&[3], &[7, 8, 9]), by(&[2], &[2, 0])]).konst(&[0, 1]),
            Case::new(
                "bytes",
                [Tensor::of(&[3, 2], (0..6u8).collect()), by(&[2], &[1, 1])],
            )
            .opset(1),
            Case::new("of strings", [strings(&["a", "b", "c"]), by(&[2], &[2, 1])]),
        ]
    }
}

fn strings(all: &[&str]) -> Tensor {
    use crate::ir::{DType, Data};
    let all: Vec<_> = all.iter().map(|s| s.as_bytes().to_vec()).collect();
    let dims = vec![all.len()];
    Tensor::new(DType::String, dims, Data::Strings(all.into())).unwrap_or_else(|_| Tensor::bools(&[0], []))
}

impl Op for GatherElements {
    fn name(&self) -> OpName {
        onnx("GatherElements")
    }

    fn since(&self) -> &'static [u16] {
        &[11, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        index_type(n, 1)?;
        lines(n, 1)?;
        Ok(vec![Fact::tensor(n.dtype(0), n.shape(1).cloned())])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        Some(tied(n.rank(1)?, |i| vec![(1, i)]))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, by) = (given(x, 0)?, given(x, 1)?);
        let dims = knowing(n, x, |n| sized(self, n, 0))?;
        let axis = axis(n, data.dims().len())?;
        let index = integers(by, 1)?;
        let y = pick(data.dtype(), &dims, &[data], |at| {
            let i = index[place(at.iter().copied(), &dims)];
            let mut source = at.to_vec();
            source[axis] = bounded(i, data.dims()[axis])?;
            Ok((0, place(source, data.dims())))
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let attrs = [Attr::new("reduction", "add")]
            .into_iter()
            .chain(n.node().attrs.clone());
        let nothing = zeros(n, 0, x[0]?);
        Some(vec![
            Some(nothing.with("ScatterElements", &[x[1]?, dy[0]?], attrs.collect())),
            None,
        ])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::gather_elements(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[3, 4], 1);
        let by = |dims: &[usize], l: &[i64]| Tensor::of(dims, l.to_vec());
        vec![
            Case::new("columns", [x(), by(&[2, 4], &[0, 1, 2, -1, -3, 0, 0, 1])]),
            Case::new("rows", [x(), Tensor::of(&[3, 2], vec![0i32, 1, 2, 3, -4, -1])]).attr("axis", 1i64),
            Case::new("fewer rows", [x(), by(&[1, 3], &[3, 3, 0])])
                .attr("axis", -1i64)
                .opset(11),
            Case::new("none", [x(), by(&[0, 4], &[])]),
        ]
    }
}

/// Checks that data and the indices `i` have one rank, and no other axis of the indices is the longer.
pub(super) fn lines(n: &NodeRef, i: usize) -> Result<(), OpError> {
    let (Some(of), Some(by)) = (n.shape(0), n.shape(i)) else {
        n.int_or("axis", 0)?;
        return Ok(());
    };
    let misfit = || {
        OpError::new(format!(
            "indices of shape {} do not fit data of shape {}",
            show(by),
            show(of)
        ))
    };
    if of.len() != by.len() {
        return Err(misfit());
    }
    let axis = axis(n, of.len())?;
    let longer = |a: &usize| *a != axis && by[*a].known().zip(of[*a].known()).is_some_and(|(b, o)| b > o);
    match (0..of.len()).any(|a| longer(&a)) {
        true => Err(misfit()),
        false => Ok(()),
    }
}

/// The number of leading axes that are walked together.
fn batch(n: &NodeRef) -> Result<usize, OpError> {
    let batch = match n.opset() {
        ..12 => 0,
        12.. => n.int_or("batch_dims", 0)?,
    };
    let negative = || OpError::new(format!("batch_dims is {batch}; expected 0 or more"));
    usize::try_from(batch).map_err(|_| negative())
}

/// Checks that tuples of `i` index axes of the data after `batch`, and gives their length.
pub(super) fn tuples(n: &NodeRef, i: usize, batch: usize) -> Result<Option<usize>, OpError> {
    let Some(by) = n.shape(i) else { return Ok(None) };
    let Some((last, _)) = by.split_last() else {
        return Err(OpError::new(format!(
            "input {i} is a scalar; expected tuples of indices"
        )));
    };
    let Some(of) = n.shape(0) else {
        return Ok(last.size());
    };
    let other = |(a, b): (&Dim, &Dim)| a.known().is_some_and(|a| b.known().is_some_and(|b| a != b));
    if of.iter().zip(by).take(batch).any(other) {
        return Err(OpError::new(format!(
            "the first {batch} axes of shapes {} and {} differ",
            show(of),
            show(by)
        )));
    }
    let most = of.len().checked_sub(batch).filter(|_| batch < by.len());
    match (most, last.size()) {
        (Some(most), Some(len)) if len <= most => Ok(Some(len)),
        (Some(_), None) => Ok(None),
        _ => Err(OpError::new(format!(
            "indices of shape {} do not fit data of shape {} after {batch} batch axes",
            show(by),
            show(of)
        ))),
    }
}

impl Op for GatherND {
    fn name(&self) -> OpName {
        onnx("GatherND")
    }

    fn since(&self) -> &'static [u16] {
        &[11, 12, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        index_type(n, 1)?;
        let batch = batch(n)?;
        let shape = match (n.shape(0), n.shape(1), tuples(n, 1, batch)?) {
            (Some(of), Some(by), Some(len)) => {
                let mut shape = [&by[..by.len() - 1], &of[batch + len..]].concat();
                for (a, d) in shape.iter_mut().enumerate().take(batch) {
                    if d.known().is_none() && *d != of[a] {
                        *d = if of[a].known().is_some() {
                            of[a].clone()
                        } else {
                            Dim::Unknown
                        };
                    }
                }
                Some(shape)
            }
            _ => None,
        };
        Ok(vec![Fact::tensor(n.dtype(0), shape)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let (batch, of, by) = (batch(n).ok()?, n.rank(0)?, n.rank(1)?);
        let len = tuples(n, 1, batch).ok()??;
        let rest = of - batch - len;
        Some(tied(by - 1 + rest, |i| match i {
            _ if i < batch => vec![(0, i), (1, i)],
            _ if i < by - 1 => vec![(1, i)],
            _ => vec![(0, i + batch + len + 1 - by)],
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, by) = (given(x, 0)?, given(x, 1)?);
        let (dims, batch, len) = knowing(n, x, |n| {
            let batch = batch(n)?;
            Ok((sized(self, n, 0)?, batch, tuples(n, 1, batch)?.unwrap_or(0)))
        })?;
        let (index, outer) = (integers(by, 1)?, by.dims().len() - 1);
        let y = pick(data.dtype(), &dims, &[data], |at| {
            let start = place(at[..outer].iter().copied(), by.dims()) * len;
            let mut source = at[..batch].to_vec();
            for (k, &i) in index[start..start + len].iter().enumerate() {
                source.push(bounded(i, data.dims()[batch + k])?);
            }
            source.extend(&at[outer..]);
            Ok((0, place(source, data.dims())))
        })?;
        // Indices that no element of the result asks for must be in bounds as well.
        indices(&by.dims()[..outer], |at| {
            let start = place(at.iter().copied(), by.dims()) * len;
            (0..len).try_for_each(|k| bounded(index[start + k], data.dims()[batch + k]).map(|_| ()))
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (x0, by, dy) = (x[0]?, x[1]?, dy[0]?);
        if batch(n).ok()? == 0 {
            let add = vec![Attr::new("reduction", "add")];
            return Some(vec![
                Some(zeros(n, 0, x0).with("ScatterND", &[by, dy], add)),
                None,
            ]);
        }
        let take = |places: Ex<'a>| places.with("GatherND", &[by], n.node().attrs.clone());
        Some(vec![Some(put_back(n, x0, dy, take)), None])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::gather_nd(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[2, 3, 4], 1);
        let by = |dims: &[usize], l: &[i64]| Tensor::of(dims, l.to_vec());
        vec![
            Case::new("elements", [x(), by(&[2, 3], &[0, -1, 3, 1, 2, -4])]),
            Case::new("slices", [x(), by(&[2, 2, 1], &[0, 1, 1, -2])]).opset(11),
            Case::new("in batches", [x(), by(&[2, 2, 1], &[0, 2, 1, -1])]).attr("batch_dims", 1i64),
            Case::new("none", [x(), by(&[0, 2], &[])]),
            Case::new("everything", [x(), by(&[2, 0], &[])]),
        ]
    }
}
