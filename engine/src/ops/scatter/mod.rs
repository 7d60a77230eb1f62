//! Elements written by index.

mod cpu;

use super::gather::{index_type, lines, tuples};
use super::grad::{unless, zeros};
use super::pick::{bounded, given, indices, integers, knowing, pick, place};
use super::shape::{arity, like_first, show};
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::Candidate;
use crate::cpu::number::Numbers;
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Tensor};

/// ONNX `ScatterElements`: each update to its place in its line along an axis.
pub struct ScatterElements;

/// ONNX `Scatter`, the older name of [`ScatterElements`].
pub struct Scatter;

/// ONNX `ScatterND`: slices to the places that tuples of indices name.
pub struct ScatterND;

/// What becomes of an element and its update.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reduction {
    None,
    Add,
    Mul,
    Min,
    Max,
}

fn reduction(n: &NodeRef) -> Result<Reduction, OpError> {
    match if n.opset() >= 16 {
        n.str_or("reduction", "none")?
    } else {
        "none"
    } {
        "none" => Ok(Reduction::None),
        "add" => Ok(Reduction::Add),
        "mul" => Ok(Reduction::Mul),
        "min" => Ok(Reduction::Min),
        "max" => Ok(Reduction::Max),
        other => Err(OpError::new(format!(
            "attribute \"reduction\" is {other:?}, which has no meaning"
        ))),
    }
}

fn axis(n: &NodeRef, rank: usize) -> Result<usize, OpError> {
    NodeRef::axis(n.int_or("axis", 0)?, rank)
}

/// Output 0 is like the data; updates are of its type.
fn like_data(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    arity(n, 3, 3)?;
    index_type(n, 1)?;
    if let (Some(a), Some(b)) = (n.dtype(0), n.dtype(2))
        && a != b
    {
        return Err(OpError::new(format!("updates of type {b} to data of type {a}")));
    }
    let fit = |a: &Dim, b: &Dim| a.known().zip(b.known()).is_none_or(|(a, b)| a == b);
    if let Some((found, expected)) = n.shape(2).zip(update_shape(n)?) {
        let fits = found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| fit(a, b));
        if !fits {
            return Err(OpError::new(format!(
                "updates of shape {}; expected {}",
                show(found),
                show(&expected)
            )));
        }
    }
    like_first(n)
}

fn is_nd(n: &NodeRef) -> bool {
    &*n.node().op == "ScatterND"
}

/// The shape that the updates must have.
fn update_shape(n: &NodeRef) -> Result<Option<Vec<Dim>>, OpError> {
    if !is_nd(n) {
        lines(n, 1)?;
        return Ok(n.shape(1).cloned());
    }
    let len = tuples(n, 1, 0)?;
    Ok(n.shape(0).zip(n.shape(1)).zip(len).map(|((of, by), len)| {
        let (_, outer) = by.split_last().unwrap_or((&Dim::Unknown, &[]));
        [outer, &of[len..]].concat()
    }))
}

/// The gradients of data and updates.
fn gradients<'a>(n: &NodeRef, x: Exs<'_, 'a>, y: Ex<'a>, dy: Ex<'a>) -> Grads<'a> {
    let (data, by, updates) = (x[0]?, x[1]?, x[2]?);
    let (scatter, gather) = match is_nd(n) {
        true => ("ScatterND", "GatherND"),
        false => ("ScatterElements", "GatherElements"),
    };
    let mut attrs = n.node().attrs.clone();
    attrs.retain(|a| &*a.name == "axis");
    let taken = |from: Ex<'a>| from.with(gather, &[by], attrs.clone());
    let put = |to: Ex<'a>, updates: Ex<'a>, how: &'static str| {
        let how = attrs.iter().cloned().chain([Attr::new("reduction", how)]);
        to.with(scatter, &[by, updates], how.collect())
    };
    let (ddata, dupdates) = match reduction(n).ok()? {
        Reduction::None => (put(dy, zeros(n, 2, updates), "none"), taken(dy)),
        Reduction::Add => (dy, taken(dy)),
        Reduction::Mul => ((dy * y) / data, taken(dy * y) / updates),
        extreme => {
            let loses = if extreme == Reduction::Max {
                "Less"
            } else {
                "Greater"
            };
            let (lost, late) = (data.op(loses, &[y]), updates.op(loses, &[taken(y)]));
            let one = dy.constant(1.0);
            let winners = put(unless(lost, one), unless(late, one), "add");
            let share = dy / winners;
            (unless(lost, share), unless(late, taken(share)))
        }
    };
    Some(vec![Some(ddata), None, Some(dupdates)])
}

/// For each update in order, the place it goes to.
fn places(n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<usize>, OpError> {
    let (data, by) = (given(x, 0)?, given(x, 1)?);
    let (dims, index) = (data.dims(), integers(by, 1)?);
    let mut places = vec![];
    if !is_nd(n) {
        let axis = axis(n, dims.len())?;
        indices(by.dims(), |at| {
            let mut to = at.to_vec();
            to[axis] = bounded(index[place(at.iter().copied(), by.dims())], dims[axis])?;
            places.push(place(to, dims));
            Ok(())
        })?;
        return Ok(places);
    }
    let (len, outer) = match by.dims().split_last() {
        Some((&len, outer)) => (len, outer),
        None => return Err(OpError::new("indices are a scalar")),
    };
    let all = [outer, &dims[len..]].concat();
    indices(&all, |at| {
        let tuple = place(at[..outer.len()].iter().copied(), outer) * len;
        let mut to = vec![];
        for k in 0..len {
            to.push(bounded(index[tuple + k], dims[k])?);
        }
        to.extend(&at[outer.len()..]);
        places.push(place(to, dims));
        Ok(())
    })?;
    Ok(places)
}

fn eval(n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (data, updates) = (given(x, 0)?, given(x, 2)?);
    knowing(n, x, like_data)?;
    let places = places(n, x)?;
    let reduction = reduction(n)?;
    if reduction == Reduction::None {
        let mut from = vec![None; data.len()];
        places.iter().enumerate().for_each(|(i, &p)| from[p] = Some(i));
        let dims = data.dims();
        let y = pick(data.dtype(), dims, &[data, updates], |at| {
            let p = place(at.iter().copied(), dims);
            Ok(from[p].map_or((0, p), |i| (1, i)))
        })?;
        return Ok(vec![y]);
    }
    let refuse = || OpError::new(format!("elements of type {} cannot be reduced", data.dtype()));
    let y = match (Numbers::of(data), Numbers::of(updates)) {
        (Some(Numbers::Real(mut a)), Some(Numbers::Real(b))) => {
            places
                .iter()
                .zip(b)
                .for_each(|(&p, b)| a[p] = real(reduction, a[p], b));
            Numbers::Real(a)
        }
        (Some(Numbers::Int(mut a)), Some(Numbers::Int(b))) => {
            places
                .iter()
                .zip(b)
                .for_each(|(&p, b)| a[p] = int(reduction, a[p], b));
            Numbers::Int(a)
        }
        _ => return Err(refuse()),
    };
    Ok(vec![y.tensor(data.dtype(), data.dims()).ok_or_else(refuse)?])
}

fn real(reduction: Reduction, a: f64, b: f64) -> f64 {
    match reduction {
        Reduction::None => b,
        Reduction::Add => a + b,
        Reduction::Mul => a * b,
        _ if a.is_nan() || b.is_nan() => f64::NAN,
        Reduction::Min => a.min(b),
        Reduction::Max => a.max(b),
    }
}

/// Sums and products keep the low 64 bits.
fn int(reduction: Reduction, a: i128, b: i128) -> i128 {
    let low = |x: i128| i128::from(x as i64);
    match reduction {
        Reduction::None => b,
        Reduction::Add => low(a.wrapping_add(b)),
        Reduction::Mul => low(a.wrapping_mul(b)),
        Reduction::Min => a.min(b),
        Reduction::Max => a.max(b),
    }
}

const OVER: Laws = Laws {
    blocks: false,
    any: false,
    impure: false,
    commutes: false,
    associates: false,
    view: false,
    still: false,
    elementwise: false,
    in_place: &[0],
};

fn by(dims: &[usize], l: &[i64]) -> Tensor {
    Tensor::of(dims, l.to_vec())
}

fn element_cases() -> Vec<Case> {
    let x = || case::floats(&[3, 4], 1);
    vec![
        Case::new(
            "columns",
            [
                x(),
                by(&[2, 4], &[0, 1, 2, -1, 1, 0, 0, 0]),
                case::floats(&[2, 4], 2),
            ],
        ),
        Case::new("rows", [x(), by(&[3, 1], &[3, 0, -2]), case::floats(&[3, 1], 2)]).attr("axis", 1i64),
        Case::new(
            "bytes",
            [
                Tensor::of(&[4], vec![1u8, 2, 3, 4]),
                Tensor::of(&[2], vec![3i32, -4]),
                Tensor::of(&[2], vec![9u8, 8]),
            ],
        ),
        Case::new("none", [x(), by(&[0, 4], &[]), case::floats(&[0, 4], 2)]),
    ]
}

/// Each reduction, with places that are met twice.
fn reduced(mut make: impl FnMut(Tensor, Tensor) -> Case) -> Vec<Case> {
    let mut cases = vec![];
    for reduction in ["add", "mul", "min", "max"] {
        let ints = (0..12).map(|x| x * 37 - 200).collect::<Vec<i32>>();
        let all = [
            make(case::odd_floats(&[3, 4], 1), case::odd_floats(&[2, 4], 2)).within(0.0, 1e-6),
            make(
                Tensor::of(&[3, 4], ints),
                Tensor::of(&[2, 4], vec![3i32, -5, 7, 0, 9, i32::MAX, 2, 4]),
            ),
        ];
        cases.extend(all.map(|c| c.attr("reduction", reduction).opset(18)));
    }
    cases
}

impl Op for ScatterElements {
    fn name(&self) -> OpName {
        onnx("ScatterElements")
    }

    fn since(&self) -> &'static [u16] {
        &[11, 13, 16, 18]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        reduction(n)?;
        like_data(n)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn laws(&self) -> Laws {
        OVER
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(n, x)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        gradients(n, x, y[0]?, dy[0]?)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::scatter(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = element_cases();
        cases.extend(reduced(|x, u| {
            Case::new("twice", [x, by(&[2, 4], &[0, 1, 2, 0, 0, 1, 1, -3]), u])
        }));
        cases
    }
}

impl Op for Scatter {
    fn name(&self) -> OpName {
        onnx("Scatter")
    }

    fn since(&self) -> &'static [u16] {
        &[9]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        like_data(n)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn laws(&self) -> Laws {
        OVER
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(n, x)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::scatter(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        element_cases().into_iter().map(|c| c.opset(9)).collect()
    }
}

impl Op for ScatterND {
    fn name(&self) -> OpName {
        onnx("ScatterND")
    }

    fn since(&self) -> &'static [u16] {
        &[11, 13, 16, 18]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        reduction(n)?;
        like_data(n)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn laws(&self) -> Laws {
        OVER
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(n, x)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        gradients(n, x, y[0]?, dy[0]?)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::scatter(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[3, 4], 1);
        let truths = Tensor::bools(&[3], [true, false, true]);
        let mut cases = vec![
            Case::new(
                "elements",
                [x(), by(&[2, 2], &[0, -1, 2, 1]), case::floats(&[2], 2)],
            ),
            Case::new("slices", [x(), by(&[2, 1], &[2, -3]), case::floats(&[2, 4], 2)]).opset(11),
            Case::new("all", [x(), by(&[0], &[]), case::floats(&[3, 4], 2)]),
            Case::new("bools", [truths, by(&[1, 1], &[1]), Tensor::bools(&[1], [true])]),
        ];
        cases.extend(reduced(|x, u| Case::new("twice", [x, by(&[2, 1], &[1, 1]), u])));
        cases
    }
}

/// Whether elements of this type can be added and compared.
fn reducible(d: DType) -> bool {
    d.is_int() || d.is_float()
}
