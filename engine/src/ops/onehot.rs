//! ONNX `OneHot`, and where elements are not 0.

use super::formula::{concat, ints};
use super::pick::{bounded, given, knowing, pick, room, sized};
use super::shape::{arity, ranked};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::moves::{fill, short, width};
use crate::cpu::{Candidate, Cost, Io, View};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Tensor, count};

/// ONNX `OneHot`: a further axis that is "on" at the index and "off" elsewhere.
pub struct OneHot;

/// Where the further axis stands in a result of rank `rank`.
fn axis(n: &NodeRef, rank: usize) -> Result<usize, OpError> {
    NodeRef::axis(n.int_or("axis", -1)?, rank)
}

/// The number of classes, as far as it is known.
fn depth(n: &NodeRef) -> Result<Dim, OpError> {
    let depth = match n.data(1) {
        Some(d) if d.len() == 1 => d[0].clone(),
        Some(d) => return Err(OpError::new(format!("{} depths; expected one", d.len()))),
        None => match n.konst(1).and_then(Tensor::item) {
            Some(d) => Dim::Known(d as i64),
            None => Dim::Unknown,
        },
    };
    match depth.known().is_some_and(|d| d < 0) {
        true => Err(OpError::new(format!("a depth of {depth}; expected 0 or more"))),
        false => Ok(depth),
    }
}

impl Op for OneHot {
    fn name(&self) -> OpName {
        onnx("OneHot")
    }

    fn since(&self) -> &'static [u16] {
        &[9, 11]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 3, 3)?;
        ranked(n, 2, 1)?;
        let depth = depth(n)?;
        let shape = match n.shape(0) {
            Some(of) => {
                let mut shape = of.clone();
                shape.insert(axis(n, of.len() + 1)?, depth);
                Some(shape)
            }
            None => {
                n.int_or("axis", -1)?;
                None
            }
        };
        Ok(vec![Fact::tensor(n.dtype(2), shape)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)? + 1;
        let axis = axis(n, rank).ok()?;
        Some(super::shape::tied(rank, |i| match i {
            _ if i < axis => vec![(0, i)],
            _ if i > axis => vec![(0, i - 1)],
            _ => vec![],
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (indices, values) = (given(x, 0)?, given(x, 2)?);
        if values.len() != 2 {
            return Err(OpError::new(format!(
                "{} values; expected off and on",
                values.len()
            )));
        }
        let dims = knowing(n, x, |n| sized(self, n, 0))?;
        let axis = axis(n, dims.len())?;
        let numbers = indices
            .floats()
            .ok_or_else(|| OpError::new("indices are no numbers"))?;
        let y = pick(values.dtype(), &dims, &[values], |at| {
            let from = at[..axis].iter().chain(&at[axis + 1..]).copied();
            let i = numbers[super::pick::place(from, indices.dims())] as i64;
            let on = bounded(i, dims[axis]).is_ok_and(|i| i == at[axis]);
            Ok((0, usize::from(on)))
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (dy, attrs) = (dy[0]?, n.node().attrs.clone());
        let switch = dy.constant(0.0).op("Unsqueeze", &[ints(dy, &[0])]);
        let switch = concat(switch, &[switch + 1.0], 0);
        let there = x[0]?.with("OneHot", &[x[1]?, switch], attrs);
        let all = |x: Ex<'a>| {
            x.with("ReduceSum", &[], vec![Attr::new("keepdims", 0)])
                .op("Reshape", &[ints(x, &[1])])
        };
        let on = all(dy * there);
        Some(vec![None, None, Some(concat(all(dy) - on, &[on], 0))])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        one_hot(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let on_off = || Tensor::of(&[2], vec![0.5f32, 3.0]);
        let by = || Tensor::of(&[2, 3], vec![0i64, 3, -1, 4, -5, 2]);
        vec![
            Case::new("behind", [by(), Tensor::scalar(4i64), on_off()]).konst(&[1]),
            Case::new("in front", [by(), Tensor::of(&[1], vec![4i32]), on_off()])
                .attr("axis", 0i64)
                .opset(9),
            Case::new(
                "floats as indices",
                [
                    Tensor::of(&[3], vec![1f32, 2.0, 7.0]),
                    Tensor::scalar(3f32),
                    Tensor::of(&[2], vec![-1i64, 1]),
                ],
            )
            .attr("axis", -2i64)
            .konst(&[1]),
            Case::new(
                "small floats as indices",
                [
                    Tensor::of_codes(DType::F4E2M1, &[3], vec![2, 4, 6])
                        .unwrap_or_else(|| Tensor::scalar(0f32)),
                    Tensor::scalar(5i64),
                    on_off(),
                ],
            )
            .konst(&[1]),
            Case::new(
                "bytes as indices",
                [
                    Tensor::of(&[2], vec![1u8, 0]),
                    Tensor::scalar(2i64),
                    Tensor::bools(&[2], [false, true]),
                ],
            ),
        ]
    }
}

/// The elements of a view of numbers, cut off to integers.
fn whole(view: &View) -> Vec<i64> {
    match view.dtype() {
        DType::I64 => view.slice::<i64>().to_vec(),
        dtype => super::cast::widened(dtype, view.bytes())
            .into_iter()
            .map(|x| x as i64)
            .collect(),
    }
}

fn one_hot(n: &NodeRef) -> Option<Candidate> {
    let (dtype, dims) = (n.out_dtype(0)?, n.out_dims(0)?);
    let width = width(dtype)?;
    n.dtype(0).filter(|d| d.bits() >= 8)?;
    let axis = axis(n, dims.len()).ok()?;
    let (depth, inner) = (dims[axis], count(&dims[axis + 1..])?);
    let bytes = count(&dims)?.checked_mul(width)?;
    let run = move |io: &mut Io| {
        let values = io.input(2).bytes();
        if values.len() != 2 * width {
            return Err(OpError::new("expected two values, off and on"));
        }
        let indices = whole(&io.input(0));
        let (off, on) = values.split_at(width);
        let pool = io.pool;
        let y = io.output(0).bytes();
        fill(pool, y, off);
        for (i, &index) in indices.iter().enumerate() {
            if let Ok(k) = bounded(index, depth) {
                let at = (i / inner * depth + k) * inner + i % inner;
                y[at * width..][..width].copy_from_slice(on);
            }
        }
        Ok(())
    };
    let name = format!("onehot.{}", short(dtype));
    Some(Candidate::new(name, Cost::bytes(bytes), run))
}

/// ONNX `NonZero`: the indices of all elements that are not 0, `[rank, found]`.
pub struct NonZero;

fn found(x: &Tensor) -> Result<Vec<bool>, OpError> {
    let strings = x.strings().iter().map(|s| !s.is_empty()).collect();
    match (x.dtype(), x.floats()) {
        (DType::String, _) => Ok(strings),
        (_, Some(all)) => Ok(all.iter().map(|&x| x != 0.0).collect()),
        (dtype, None) => Err(OpError::new(format!(
            "elements of type {dtype} cannot be compared with 0"
        ))),
    }
}

impl Op for NonZero {
    fn name(&self) -> OpName {
        onnx("NonZero")
    }

    fn since(&self) -> &'static [u16] {
        &[9, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        let count = match n.konst(0) {
            Some(x) => Dim::from(found(x)?.iter().filter(|&&f| f).count()),
            None => Dim::Unknown,
        };
        let rank = n.rank(0).map_or(Dim::Unknown, Dim::from);
        Ok(vec![Fact::tensor(Some(DType::I64), Some(vec![rank, count]))])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = given(x, 0)?;
        let found = found(x)?;
        let places: Vec<_> = (0..x.len()).filter(|&i| found[i]).collect();
        let mut all: Vec<i64> = room(count(&[x.dims().len(), places.len()]))?;
        for axis in 0..x.dims().len() {
            let behind: usize = x.dims()[axis + 1..].iter().product();
            all.extend(places.iter().map(|p| (p / behind % x.dims()[axis]) as i64));
        }
        Ok(vec![Tensor::of(&[x.dims().len(), places.len()], all)])
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("floats", [case::odd_floats(&[3, 4], 1)]).konst(&[0]),
            Case::new("bools", [Tensor::bools(&[2, 1, 2], [true, false, false, true])]),
            Case::new("none", [Tensor::of(&[2, 2], vec![0i64; 4])]).opset(9),
            Case::new("a scalar", [Tensor::scalar(2i32)]),
        ]
    }
}
