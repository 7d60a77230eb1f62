//! ONNX `Split`: a tensor cut into parts along an axis.

use super::pick::{given, knowing, place, rearranged, sized};
use super::shape::{Listed, arity, listed, show, tied, with_data};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::Candidate;
use crate::cpu::copy::{Lay, StridedCopy};
use crate::cpu::moves::{Move, candidates, in_blocks, width};
use crate::expr::Ex;
use crate::ir::{DType, Dim, Tensor};

/// ONNX `Split`.
pub struct Split;

fn axis(n: &NodeRef, rank: usize) -> Result<usize, OpError> {
    NodeRef::axis(n.int_or("axis", 0)?, rank)
}

/// The number of parts, and their lengths where they are told.
fn told(n: &NodeRef) -> Result<(usize, Option<Vec<Dim>>), OpError> {
    let parts = n.node().outputs.len();
    if n.opset() >= 18
        && let Some(wanted) = n.int("num_outputs")?
        && usize::try_from(wanted) != Ok(parts)
    {
        return Err(OpError::new(format!(
            "num_outputs is {wanted}; found {parts} outputs"
        )));
    }
    // The first version takes the lengths as attribute or as input, the input of the data's type.
    let list = match n.opset() {
        1 if n.ints("split")?.is_none() && n.has(1) => match n.konst(1).and_then(Tensor::floats) {
            Some(x) => Listed::Known(x.into_iter().map(|x| x as i64).collect()),
            None => Listed::Hidden(None),
        },
        _ => listed(n, "split", 1, 13)?,
    };
    match list {
        Listed::Absent => Ok((parts, None)),
        Listed::Hidden(_) => Ok((parts, Some(vec![Dim::Unknown; parts]))),
        Listed::Known(l) if l.len() == parts && l.iter().all(|&l| l >= 0) => {
            Ok((parts, Some(l.into_iter().map(Dim::Known).collect())))
        }
        Listed::Known(l) => Err(OpError::new(format!(
            "parts of lengths {l:?}; expected {parts}, none of them negative"
        ))),
    }
}

/// The length of each part of an axis of size `whole`.
fn lengths(n: &NodeRef, whole: &Dim) -> Result<Vec<Dim>, OpError> {
    let (parts, told) = told(n)?;
    if let Some(l) = told {
        let sum = l.iter().fold(Dim::Known(0), |s, l| s + l.clone());
        return match (sum.known(), whole.known()) {
            (Some(a), Some(b)) if a != b => Err(OpError::new(format!(
                "parts of lengths {} of an axis of size {b}",
                show(&l)
            ))),
            _ => Ok(l),
        };
    }
    let count = Dim::from(parts);
    if n.opset() < 18 {
        if whole
            .known()
            .is_some_and(|w| w.checked_rem(parts as i64) != Some(0))
        {
            return Err(OpError::new(format!(
                "an axis of size {whole} does not split into {parts} equal parts"
            )));
        }
        return Ok(vec![whole.floor_div(&count); parts]);
    }
    let each = whole.ceil_div(&count);
    let mut left = whole.clone();
    let mut lengths = vec![];
    for i in 0..parts {
        let part = match (left.known(), each.known()) {
            (Some(l), Some(e)) => Dim::Known(l.min(e)),
            _ if i + 1 == parts => left.clone(),
            _ => each.clone(),
        };
        left = left - part.clone();
        lengths.push(part);
    }
    Ok(lengths)
}

fn copies(dims: &[usize], parts: &[Vec<usize>], axis: usize, dtype: DType) -> Option<Vec<Move>> {
    let from = Lay::dense(dims);
    let mut at = 0;
    let copy = |(output, part): (usize, &Vec<usize>)| {
        let from = Lay {
            start: from.steps[axis].checked_mul(at)?,
            ..from.clone()
        };
        at += isize::try_from(part[axis]).ok()?;
        Some(Move {
            input: 0,
            output,
            copy: StridedCopy::new(width(dtype)?, part, &from, &Lay::dense(part))?,
        })
    };
    parts.iter().enumerate().map(copy).collect()
}

impl Op for Split {
    fn name(&self) -> OpName {
        onnx("Split")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 2, 11, 13, 18]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 2)?;
        let Some(shape) = n.shape(0) else {
            let (parts, _) = told(n)?;
            axis(n, 64)?;
            return Ok(vec![Fact::tensor(n.dtype(0), None); parts]);
        };
        let axis = axis(n, shape.len())?;
        let mut data = n.data(0).filter(|_| shape.len() == 1).unwrap_or_default();
        let part = |len: Dim| {
            let mut shape = shape.clone();
            shape[axis] = len.clone();
            let rest = data.split_off(len.size().unwrap_or(usize::MAX).min(data.len()));
            let data = std::mem::replace(&mut data, rest);
            with_data(
                Fact::tensor(n.dtype(0), Some(shape)),
                Some(data).filter(|d| !d.is_empty()),
            )
        };
        Ok(lengths(n, &shape[axis])?.into_iter().map(part).collect())
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)?;
        let axis = axis(n, rank).ok()?;
        Some(tied(rank, |i| match i == axis {
            true => vec![],
            false => vec![(0, i)],
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = given(x, 0)?;
        let axis = axis(n, data.dims().len())?;
        let mut start = 0;
        let part = |i| {
            let dims = knowing(n, x, |n| sized(self, n, i))?;
            let y = rearranged(data, &dims, |at| {
                let at = at
                    .iter()
                    .enumerate()
                    .map(|(a, &i)| if a == axis { start + i } else { i });
                place(at, data.dims())
            });
            start += dims[axis];
            y
        };
        (0..n.node().outputs.len()).map(part).collect()
    }

    fn vjp<'a>(&self, n: &NodeRef, _: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let axis = axis(n, n.rank(0)?).ok()?;
        let part = |(y, dy): (&Option<Ex<'a>>, &Option<Ex<'a>>)| match dy {
            Some(dy) => Some(*dy),
            // Nothing depends on this part.
            None => Some(
                y.as_ref()?
                    .constant(0.0)
                    .op("Expand", &[y.as_ref()?.op("Shape", &[])]),
            ),
        };
        let parts: Vec<_> = y.iter().zip(dy).map(part).collect::<Option<_>>()?;
        let (first, rest) = parts.split_first()?;
        Some(vec![Some(super::formula::concat(*first, rest, axis))])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let parts = (0..n.node().outputs.len()).map(|i| n.out_dims(i));
        let (Some(dtype), Some(dims), Some(parts)) =
            (n.dtype(0), n.dims(0), parts.collect::<Option<Vec<_>>>())
        else {
            return vec![];
        };
        let Ok(axis) = axis(n, dims.len()) else {
            return vec![];
        };
        let mut all = candidates("split", dtype, copies(&dims, &parts, axis, dtype));
        let blocks = in_blocks("split", dtype, (&dims, &parts, axis), |dims, parts| {
            copies(dims, parts, axis, dtype)
        });
        all.extend(blocks.into_iter().map(|c| c.blocked(&[0], true)));
        all
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[3, 8, 2], 1);
        let lengths = || Tensor::of(&[3], vec![3i64, 0, 5]);
        vec![
            Case::new("lengths", [x(), lengths()])
                .attr("axis", -2i64)
                .konst(&[1])
                .outputs(3),
            Case::new("lengths known late", [x(), lengths()])
                .attr("axis", 1i64)
                .opset(13)
                .outputs(3),
            Case::new(
                "blocks",
                [case::floats(&[2, 39, 2, 2], 1), Tensor::of(&[2], vec![32i64, 7])],
            )
            .attr("axis", 1i64)
            .konst(&[1])
            .outputs(2),
            Case::new("equal", [x()]).outputs(3).opset(13),
            Case::new("a shorter last part", [x()])
                .attr("axis", 1i64)
                .attr("num_outputs", 3i64)
                .outputs(3),
            Case::new("by attribute", [x()])
                .attr("axis", 1i64)
                .attr("split", vec![2i64, 6])
                .outputs(2)
                .opset(2),
            Case::new(
                "the first version",
                [case::floats(&[5], 1), Tensor::of(&[2], vec![2f32, 3.0])],
            )
            .konst(&[1])
            .outputs(2)
            .opset(1),
            Case::new("integers", [Tensor::of(&[4], vec![1i64, 2, 3, 4])])
                .konst(&[0])
                .outputs(2),
        ]
    }
}
