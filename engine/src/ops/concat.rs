//! ONNX `Concat`: tensors one behind the other along an axis.

use super::formula::{apply, concat, ints};
use super::pick::{given, knowing, pick, place, sized};
use super::shape::{arity, followed, same_dtype, show, tied, with_data};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::blocked::{self, Join};
use crate::cpu::copy::{Lay, StridedCopy};
use crate::cpu::moves::{Move, candidates, in_blocks, width};
use crate::cpu::{Candidate, Cost};
use crate::ir::{Attr, DType, Dim, Shape, Tensor, count};

/// ONNX `Concat`.
pub struct Concat;

fn axis(n: &NodeRef, rank: usize) -> Result<usize, OpError> {
    let axis = match n.int("axis")? {
        None if n.opset() < 4 => 1,
        None => return Err(OpError::new("attribute \"axis\" is missing")),
        Some(axis) => axis,
    };
    NodeRef::axis(axis, rank)
}

/// The size of an axis that two inputs share.
fn common(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a, b) {
        (Dim::Known(x), Dim::Known(y)) => (x == y).then(|| a.clone()),
        (Dim::Known(_), _) | (_, Dim::Unknown) => Some(a.clone()),
        _ => Some(b.clone()),
    }
}

/// The shape of the output; `None` where no rank is known.
fn joined(n: &NodeRef) -> Result<Option<Shape>, OpError> {
    let Some(first) = (0..n.arity()).find_map(|i| n.shape(i)) else {
        return Ok(None);
    };
    let axis = axis(n, first.len())?;
    let mut joined = first.clone();
    joined[axis] = Dim::Known(0);
    for i in 0..n.arity() {
        let Some(s) = n.shape(i) else {
            joined[axis] = Dim::Unknown;
            continue;
        };
        if s.len() != first.len() {
            return Err(OpError::new(format!(
                "shapes {} and {} differ in rank",
                show(first),
                show(s)
            )));
        }
        joined[axis] = joined[axis].clone() + s[axis].clone();
        for a in (0..s.len()).filter(|&a| a != axis) {
            joined[a] = common(&joined[a], &s[a]).ok_or_else(|| {
                OpError::new(format!(
                    "input {i} has shape {}; expected {} at axis {a}",
                    show(s),
                    joined[a]
                ))
            })?;
        }
    }
    Ok(Some(joined))
}

/// On blocks of channels that are not whole in every part.
fn lanes(parts: &[Vec<usize>], dims: &[usize]) -> Option<Candidate> {
    let bytes = count(&blocked::dims(dims)?)?.checked_mul(2 * size_of::<f32>())?;
    let channels: Vec<_> = parts.iter().map(|d| d[1]).collect();
    let join = Join::new(dims[0], &channels, count(&dims[2..])?);
    Some(Candidate::new(
        "concat.blocks.f32.lanes",
        Cost::bytes(bytes),
        join,
    ))
}

fn copies(parts: &[Vec<usize>], dims: &[usize], axis: usize, dtype: DType) -> Option<Vec<Move>> {
    let dense = Lay::dense(dims);
    let mut at = 0;
    let copy = |(input, part): (usize, &Vec<usize>)| {
        let to = Lay {
            start: dense.steps[axis].checked_mul(isize::try_from(at).ok()?)?,
            steps: dense.steps.clone(),
        };
        at += part[axis];
        Some(Move {
            input,
            output: 0,
            copy: StridedCopy::new(width(dtype)?, part, &Lay::dense(part), &to)?,
        })
    };
    parts.iter().enumerate().map(copy).collect()
}

impl Op for Concat {
    fn name(&self) -> OpName {
        onnx("Concat")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 4, 11, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, n.arity().max(1), usize::MAX)?;
        same_dtype(n)?;
        let dtype = (0..n.arity()).find_map(|i| n.dtype(i));
        let shape = joined(n)?;
        let vectors = shape.as_ref().is_some_and(|s| s.len() == 1);
        let parts = (0..n.arity()).map(|i| followed(n, i).filter(|_| vectors));
        let data = parts.collect::<Option<Vec<_>>>().map(|p| p.concat());
        Ok(vec![with_data(Fact::tensor(dtype, shape), data)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)?;
        let axis = axis(n, rank).ok()?;
        Some(tied(rank, |i| {
            (0..n.arity())
                .filter(|_| i != axis)
                .map(|input| (input, i))
                .collect()
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let parts = (0..x.len()).map(|i| given(x, i)).collect::<Result<Vec<_>, _>>()?;
        let dims = knowing(n, x, |n| sized(self, n, 0))?;
        let axis = axis(n, dims.len())?;
        let dtype = given(x, 0)?.dtype();
        let y = pick(dtype, &dims, &parts, |at| {
            let (mut part, mut along) = (0, at[axis]);
            while along >= parts[part].dims()[axis] {
                along -= parts[part].dims()[axis];
                part += 1;
            }
            let at = at
                .iter()
                .enumerate()
                .map(|(a, &i)| if a == axis { along } else { i });
            Ok((part, place(at, parts[part].dims())))
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (dy, rank) = (dy[0]?, (0..n.arity()).find_map(|i| n.rank(i))?);
        if x.len() == 1 {
            return Some(vec![Some(dy)]);
        }
        let axis = axis(n, rank).ok()? as i64;
        let known = (0..x.len()).map(|i| Some(n.dims(i)?[axis as usize] as i64));
        let lengths = match known.collect::<Option<Vec<_>>>() {
            Some(lengths) => ints(dy, &lengths),
            None => {
                let cut = vec![Attr::new("start", axis), Attr::new("end", axis + 1)];
                let all: Vec<_> = x
                    .iter()
                    .map(|x| Some((*x)?.with("Shape", &[], cut.clone())))
                    .collect::<Option<_>>()?;
                concat(all[0], &all[1..], 0)
            }
        };
        let parts = apply(
            dy,
            "Split",
            &[Some(lengths)],
            vec![Attr::new("axis", axis)],
            x.len(),
        );
        Some(parts.into_iter().map(Some).collect())
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let parts = (0..n.arity()).map(|i| n.dims(i)).collect::<Option<Vec<_>>>();
        let (Some(dtype), Some(dims), Some(parts)) = (n.out_dtype(0), n.out_dims(0), parts) else {
            return vec![];
        };
        let Ok(axis) = axis(n, dims.len()) else {
            return vec![];
        };
        let mut all = candidates("concat", dtype, copies(&parts, &dims, axis, dtype));
        let blocks = in_blocks("concat", dtype, (&dims, &parts, axis), |dims, parts| {
            copies(parts, dims, axis, dtype)
        });
        let lanes = || lanes(&parts, &dims).filter(|_| axis == 1 && dtype == DType::F32);
        let blocks = if blocks.is_empty() {
            lanes().into_iter().collect()
        } else {
            blocks
        };
        let inputs: Vec<_> = (0..parts.len()).collect();
        all.extend(blocks.into_iter().map(|c| c.blocked(&inputs, true)));
        all
    }

    fn cases(&self) -> Vec<Case> {
        let f = |dims: &[usize], seed| case::floats(dims, seed);
        vec![
            Case::new("channels", [f(&[2, 3, 4], 1), f(&[2, 1, 4], 2), f(&[2, 5, 4], 3)]).attr("axis", 1i64),
            Case::new("the last axis", [f(&[3, 2], 1), f(&[3, 7], 2)]).attr("axis", -1i64),
            Case::new("the first axis", [f(&[1, 5], 1), f(&[0, 5], 2), f(&[2, 5], 3)]).attr("axis", 0i64),
            Case::new(
                "blocks",
                [f(&[2, 32, 3, 2], 1), f(&[2, 16, 3, 2], 2), f(&[2, 5, 3, 2], 3)],
            )
            .attr("axis", 1i64),
            Case::new(
                "parts of blocks",
                [
                    f(&[2, 24, 3, 2], 1),
                    f(&[2, 1, 3, 2], 2),
                    f(&[2, 37, 3, 2], 3),
                    f(&[2, 3, 3, 2], 4),
                ],
            )
            .attr("axis", 1i64),
            Case::new("rows", [f(&[2, 5, 3, 2], 1), f(&[2, 5, 1, 2], 2)]).attr("axis", 2i64),
            Case::new("one", [f(&[4], 1)]).attr("axis", 0i64),
            Case::new(
                "integers",
                [Tensor::of(&[2], vec![1i64, 2]), Tensor::of(&[1], vec![-1i64])],
            )
            .attr("axis", 0i64)
            .konst(&[0]),
            Case::new("by default", [f(&[2, 3], 1), f(&[2, 3], 2)]).opset(1),
        ]
    }
}
