//! Tensors repeated.

use super::formula::{concat, ints};
use super::grad::{flat, folded, shaped, sizes};
use super::pick::{given, knowing, place, rearranged, sized};
use super::shape::{arity, broadcast, show, spelt, tied, with_data};
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::Candidate;
use crate::cpu::blocked;
use crate::cpu::copy::{Lay, StridedCopy, steps};
use crate::cpu::moves::{Move, candidates, width};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Shape, Tensor};

/// ONNX `Expand`: broadcast to a shape, two ways.
pub struct Expand;

/// ONNX `Tile`: repeated along each axis.
pub struct Tile;

/// The data of `n` if it is one element, as often as `shape` needs.
fn repeated(n: &NodeRef, shape: Option<&Shape>) -> Option<Vec<Dim>> {
    let sizes: Option<Vec<_>> = shape?.iter().map(Dim::size).collect();
    let count = crate::ir::count(&sizes?)?;
    match &n.data(0)?[..] {
        [one] if count <= 64 => Some(vec![one.clone(); count]),
        all => (all.len() == count && count <= 64).then(|| all.to_vec()),
    }
}

/// The copy that reads input 0 again and again, axes aligned at the end, to fill output 0.
fn copy(of: &[usize], out: &[usize], dtype: DType) -> Option<Vec<Move>> {
    let (from, to) = (steps(of), steps(out));
    let first = out.len().checked_sub(of.len())?;
    let (mut dims, mut reads, mut writes) = (vec![], vec![], vec![]);
    for (i, &len) in out.iter().enumerate() {
        let (size, step) = i.checked_sub(first).map_or((1, 0), |a| (of[a], from[a]));
        if len > 0 {
            dims.extend([len / size.max(1), size]);
            reads.extend([0, step]);
            writes.extend([to[i].checked_mul(size as isize)?, to[i]]);
        } else {
            dims.extend([0, 0]);
            reads.extend([0, 0]);
            writes.extend([0, 0]);
        }
    }
    let lay = |steps| Lay { start: 0, steps };
    let copy = StridedCopy::new(width(dtype)?, &dims, &lay(reads), &lay(writes))?;
    Some(vec![Move {
        input: 0,
        output: 0,
        copy,
    }])
}

/// The kernels that make `op` of input 0, axes aligned at the end.
fn kernels(n: &NodeRef, op: &str) -> Vec<Candidate> {
    let (Some(of), Some(out), Some(dtype)) = (n.dims(0), n.out_dims(0), n.dtype(0)) else {
        return vec![];
    };
    let mut all = candidates(op, dtype, copy(&of, &out, dtype));
    let image = of.len() > 2 && of.len() == out.len() && of[1] == out[1] && dtype == DType::F32;
    if let (true, Some(of), Some(out)) = (image, blocked::dims(&of), blocked::dims(&out)) {
        let blocks = candidates(&format!("{op}.blocks"), dtype, copy(&of, &out, dtype));
        all.extend(blocks.into_iter().map(|c| c.blocked(&[0], true)));
    }
    all
}

/// Input 0 read again and again, axes aligned at the end, as reference.
fn wrapped(op: &dyn Op, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let data = given(x, 0)?;
    let dims = knowing(n, x, |n| sized(op, n, 0))?;
    let first = dims.len() - data.dims().len().min(dims.len());
    let y = rearranged(data, &dims, |at| {
        place(
            at[first..].iter().zip(data.dims()).map(|(i, d)| i % d),
            data.dims(),
        )
    })?;
    Ok(vec![y])
}

impl Op for Expand {
    fn name(&self) -> OpName {
        onnx("Expand")
    }

    fn since(&self) -> &'static [u16] {
        &[8, 13]
    }

    fn laws(&self) -> Laws {
        Laws {
            still: true,
            ..Laws::default()
        }
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        let shape = match (n.shape(0), spelt(n, 1)?) {
            (_, Some(to)) if to.iter().any(|d| d.known().is_some_and(|d| d < 0)) => {
                return Err(OpError::new(format!("{} is not a shape", show(&to))));
            }
            (Some(of), Some(to)) => Some(broadcast(of, &to)?),
            _ => None,
        };
        let data = repeated(n, shape.as_ref());
        Ok(vec![with_data(Fact::tensor(n.dtype(0), shape), data)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let of = n.shape(0)?;
        let rank = spelt(n, 1).ok()??.len().max(of.len());
        Some(tied(rank, |i| match (i + of.len()).checked_sub(rank) {
            Some(a) if of[a] != Dim::Known(1) => vec![(0, a)],
            _ => vec![],
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        wrapped(self, n, x)
    }

    fn vjp<'a>(&self, n: &NodeRef, _: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        // Where it is not known which axes are stretched, the sum is not either.
        let (of, to) = (n.shape(0)?, spelt(n, 1).ok()??);
        let beside = |i: usize| (i + to.len()).checked_sub(of.len()).map(|i| &to[i]);
        let clear = |(i, d): (usize, &Dim)| {
            let stays = |to: &Dim| *to == Dim::Known(1) || d.same(to);
            d.known().is_some() || beside(i).is_none_or(stays)
        };
        of.iter()
            .enumerate()
            .all(clear)
            .then(|| vec![dy.first().copied().flatten(), None])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernels(n, "expand")
    }

    fn cases(&self) -> Vec<Case> {
        let to = |s: &[i64]| Tensor::of(&[s.len()], s.to_vec());
        vec![
            Case::new("more axes", [case::floats(&[3, 1], 1), to(&[2, 1, 6])]).konst(&[1]),
            Case::new("both ways", [case::floats(&[2, 1, 5], 1), to(&[7, 1])]),
            Case::new("a pixel", [case::floats(&[2, 19, 1, 1], 1), to(&[2, 19, 3, 2])]).konst(&[1]),
            Case::new("a scalar", [Tensor::scalar(3i64), to(&[4])]).konst(&[0, 1]),
            Case::new("to nothing", [case::floats(&[1, 3], 1), to(&[0, 3])]).konst(&[1]),
            Case::new("bools", [Tensor::bools(&[2, 1], [true, false]), to(&[2, 40])]).konst(&[1]),
        ]
    }
}

/// The repeats along each axis of input 0; `None` where the rank is not known.
fn repeats(n: &NodeRef) -> Result<Option<Vec<Dim>>, OpError> {
    let rank = n.rank(0);
    if n.opset() >= 6 {
        arity(n, 2, 2)?;
        let repeats = spelt(n, 1)?;
        let fit = repeats.as_ref().zip(rank).is_none_or(|(l, r)| l.len() == r);
        if !fit {
            return Err(OpError::new(format!(
                "repeats {}; expected one for each of {} axes",
                show(&repeats.unwrap_or_default()),
                rank.unwrap_or(0)
            )));
        }
        return Ok(repeats.or(rank.map(|r| vec![Dim::Unknown; r])));
    }
    arity(n, 3, 3)?;
    let Some(rank) = rank else { return Ok(None) };
    let number = |i| n.konst(i).and_then(Tensor::item).map(|x| x as i64);
    let mut all = vec![Dim::Known(1); rank];
    match (number(1), number(2)) {
        (tiles, Some(axis)) => {
            all[NodeRef::axis(axis, rank)?] = tiles.map_or(Dim::Unknown, Dim::Known);
        }
        (_, None) => all.fill(Dim::Unknown),
    }
    Ok(Some(all))
}

impl Op for Tile {
    fn name(&self) -> OpName {
        onnx("Tile")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 6, 13]
    }

    fn laws(&self) -> Laws {
        Laws {
            still: true,
            ..Laws::default()
        }
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let repeats = repeats(n)?;
        if let Some(r) = repeats
            .as_ref()
            .filter(|r| r.iter().any(|d| d.known().is_some_and(|d| d < 0)))
        {
            return Err(OpError::new(format!(
                "repeats {}; expected none below 0",
                show(r)
            )));
        }
        let shape = match (n.shape(0), repeats) {
            (Some(of), Some(r)) => Some(of.iter().zip(r).map(|(d, r)| d.clone() * r).collect()),
            (None, Some(r)) => Some(vec![Dim::Unknown; r.len()]),
            _ => None,
        };
        let data = repeated(n, shape.as_ref());
        Ok(vec![with_data(Fact::tensor(n.dtype(0), shape), data)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let r = repeats(n).ok()??;
        Some(tied(r.len(), |i| match r[i] == Dim::Known(1) {
            true => vec![(0, i)],
            false => vec![],
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        wrapped(self, n, x)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (x0, dy, rank) = (x[0]?, dy[0]?, n.rank(0)?);
        let column = |x: Ex<'a>| x.op("Unsqueeze", &[ints(x, &[1])]);
        // Each axis as repeats of itself.
        let both = flat(concat(column(x[1]?), &[column(sizes(n, 0, x0))], 1));
        let apart = dy.with("Reshape", &[both], vec![Attr::new("allowzero", 1)]);
        let repeats: Vec<i64> = (0..rank as i64).map(|i| 2 * i).collect();
        let dx = folded(apart, "ReduceSum", &repeats);
        Some(vec![Some(shaped(n, 0, x0, dx)), None])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernels(n, "tile")
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[2, 3, 4], 1);
        let times = |s: &[i64]| Tensor::of(&[s.len()], s.to_vec());
        vec![
            Case::new("every axis", [x(), times(&[2, 1, 3])]).konst(&[1]),
            Case::new("known late", [x(), times(&[1, 5, 2])]),
            Case::new("to nothing", [x(), times(&[1, 0, 2])]).konst(&[1]),
            Case::new("a scalar", [case::floats(&[], 1), times(&[])]).konst(&[1]),
            Case::new(
                "the first version",
                [x(), Tensor::scalar(3f32), Tensor::scalar(1f32)],
            )
            .konst(&[1, 2])
            .opset(1),
        ]
    }
}
