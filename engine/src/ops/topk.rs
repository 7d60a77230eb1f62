//! ONNX `TopK`: the greatest or least elements along an axis, and where they stand.

use std::cmp::Ordering;

use super::formula::apply;
use super::grad::{at, zeros};
use super::pick::{given, integers, knowing, place, rearranged, sized};
use super::shape::{arity, ranked, show, tied};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::moves::{chunks, short, width};
use crate::cpu::number::{ByType, Int, Numbers, Real, by_type};
use crate::cpu::rows::rows;
use crate::cpu::{Candidate, Cost, Io, Pool, View};
use crate::ir::{Attr, DType, Dim, Element, Tensor, count};

/// ONNX `TopK`.
///
/// Equal elements come in the order in which they stand, and NaN counts as the greatest.
pub struct TopK;

fn axis(n: &NodeRef, rank: usize) -> Result<usize, OpError> {
    NodeRef::axis(n.int_or("axis", -1)?, rank)
}

fn largest(n: &NodeRef) -> Result<bool, OpError> {
    // The result is sorted in any case.
    n.ignore(&["sorted"]);
    Ok(n.opset() < 11 || n.int_or("largest", 1)? != 0)
}

/// The number of elements wanted.
fn wanted(n: &NodeRef) -> Result<Dim, OpError> {
    let k = match n.opset() {
        ..10 => match n.int("k")? {
            Some(k) => Dim::Known(k),
            None => return Err(OpError::new("attribute \"k\" is missing")),
        },
        _ => match n.data(1) {
            Some(k) if k.len() == 1 => k[0].clone(),
            Some(k) => return Err(OpError::new(format!("{} values of k; expected one", k.len()))),
            None => Dim::Unknown,
        },
    };
    match k.known().is_some_and(|k| k < 0) {
        true => Err(OpError::new(format!("k is {k}; expected 0 or more"))),
        false => Ok(k),
    }
}

/// How `a` and `b`, whose first parts are their values and second their places, are ordered.
fn before<T: PartialOrd + Copy>(a: &(T, usize), b: &(T, usize), largest: bool) -> Ordering {
    #[expect(clippy::eq_op, reason = "only NaN differs from itself")]
    let nan = |x: T| x != x;
    let by_value = a.0.partial_cmp(&b.0).unwrap_or_else(|| nan(a.0).cmp(&nan(b.0)));
    let by_value = if largest { by_value.reverse() } else { by_value };
    by_value.then(a.1.cmp(&b.1))
}

/// For each element of the result, where it stands along the axis, all lanes one after the other.
fn places<T: PartialOrd + Copy>(
    all: &[T],
    dims: &[usize],
    axis: usize,
    k: usize,
    largest: bool,
) -> Vec<usize> {
    let inner: usize = dims[axis + 1..].iter().product();
    let outer: usize = dims[..axis].iter().product();
    let mut places = vec![0; outer * k * inner];
    for lane in 0..outer * inner {
        let (o, i) = (lane / inner, lane % inner);
        let at = |j: usize| (all[(o * dims[axis] + j) * inner + i], j);
        let mut lane: Vec<_> = (0..dims[axis]).map(at).collect();
        lane.sort_by(|a, b| before(a, b, largest));
        for (j, (_, p)) in lane.into_iter().take(k).enumerate() {
            places[(o * k + j) * inner + i] = p;
        }
    }
    places
}

impl Op for TopK {
    fn name(&self) -> OpName {
        onnx("TopK")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 10, 11, 24]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let inputs = if n.opset() < 10 { 1 } else { 2 };
        arity(n, inputs, inputs)?;
        if n.rank(1).is_some_and(|r| r != 0) {
            ranked(n, 1, 1)?;
        }
        largest(n)?;
        let k = wanted(n)?;
        let shape = match n.shape(0) {
            None => {
                n.int_or("axis", -1)?;
                None
            }
            Some(of) => {
                let axis = axis(n, of.len())?;
                if k.known().zip(of[axis].known()).is_some_and(|(k, d)| k > d) {
                    return Err(OpError::new(format!("k is {k}, of axis {axis} of {}", show(of))));
                }
                let mut shape = of.clone();
                shape[axis] = k;
                Some(shape)
            }
        };
        Ok(vec![
            Fact::tensor(n.dtype(0), shape.clone()),
            Fact::tensor(Some(DType::I64), shape),
        ])
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
        if n.opset() >= 10 {
            integers(given(x, 1)?, 1)?;
        }
        let dims = knowing(n, x, |n| sized(self, n, 0))?;
        let (axis, largest) = (axis(n, dims.len())?, largest(n)?);
        let refuse = || OpError::new(format!("elements of type {} have no order", data.dtype()));
        let places = match Numbers::of(data).ok_or_else(refuse)? {
            Numbers::Real(all) => places(&all, data.dims(), axis, dims[axis], largest),
            Numbers::Int(all) => places(&all, data.dims(), axis, dims[axis], largest),
        };
        let values = rearranged(data, &dims, |at| {
            let mut source = at.to_vec();
            source[axis] = places[place(at.iter().copied(), &dims)];
            place(source, data.dims())
        })?;
        let indices = places.iter().map(|&p| p as i64).collect();
        Ok(vec![values, Tensor::of(&dims, indices)])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (x0, k) = (x[0]?, x[1]?);
        let again = || apply(x0, "TopK", &[Some(k)], n.node().attrs.clone(), 2)[1];
        let places = at(y, 1).unwrap_or_else(again);
        let axis = vec![Attr::new("axis", n.int_or("axis", -1).ok()?)];
        let dx = zeros(n, 0, x0).with("ScatterElements", &[places, dy[0]?], axis);
        Some(vec![Some(dx), None])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        top(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let k = |k: i64| Tensor::of(&[1], vec![k]);
        let ties = || Tensor::of(&[2, 6], vec![3i32, 1, 3, 2, 1, 3, 0, 0, 0, 5, 5, -1]);
        vec![
            Case::new("odd floats", [case::odd_floats(&[3, 12], 1), k(4)])
                .outputs(2)
                .konst(&[1]),
            Case::new("least", [case::odd_floats(&[2, 30, 3], 1), k(3)])
                .attr("axis", 1i64)
                .attr("largest", 0i64)
                .outputs(2),
            Case::new("ties", [ties(), k(4)]).outputs(2),
            Case::new("all, unsorted", [ties(), k(6)])
                .attr("sorted", 0i64)
                .outputs(2)
                .konst(&[1]),
            Case::new("values only", [case::floats(&[40], 2), k(7)]),
            Case::new("few of many", [case::odd_floats(&[2, 700], 4), k(5)]).outputs(2),
            Case::new("least of many", [case::odd_floats(&[700, 2], 5), k(9)])
                .attr("axis", 0i64)
                .attr("largest", 0i64)
                .outputs(2),
            Case::new("none", [case::floats(&[2, 3], 1), k(0)])
                .outputs(2)
                .konst(&[1]),
            Case::new("k known before", [case::floats(&[4, 3], 1), k(2)])
                .attr("axis", 0i64)
                .outputs(2)
                .opset(10),
            Case::new("by attribute", [case::floats(&[2, 5], 3)])
                .attr("k", 3i64)
                .outputs(2)
                .opset(1),
        ]
    }
}

/// One block of lanes: its elements, where to put their places, the sizes along and behind the axis, and the order.
type Block<'a> = (&'a [u8], &'a mut [i64], (usize, usize), bool);

struct Pick;

impl ByType for Pick {
    type Out = fn(Block);
    fn real<T: Real>(self) -> fn(Block) {
        block::<T>
    }
    fn int<T: Int>(self) -> fn(Block) {
        block::<T>
    }
}

fn block<T: Element>((x, places, (len, inner), largest): Block) {
    let x: &[T] = bytemuck::cast_slice(x);
    let k = places.len() / inner.max(1);
    let order = |a: &(T, usize), b: &(T, usize)| before(a, b, largest);
    let mut lane: Vec<(T, usize)> = vec![];
    for i in 0..inner {
        lane.clear();
        let mut bar = None;
        for j in 0..len {
            let x = (x[j * inner + i], j);
            let behind = |bar: (T, usize)| match largest {
                true => x.0 <= bar.0,
                false => x.0 >= bar.0,
            };
            if bar.is_some_and(|bar| behind(bar) || order(&x, &bar).is_gt()) {
                continue;
            }
            lane.push(x);
            // What is not before the k-th of those seen so far will not be among the first k.
            if lane.len() >= 4 * k + 64 && k > 0 {
                bar = Some(*lane.select_nth_unstable_by(k - 1, order).1);
                lane.truncate(k);
            }
        }
        if k < lane.len() && k > 0 {
            lane.select_nth_unstable_by(k - 1, order);
        }
        lane.truncate(k);
        lane.sort_unstable_by(order);
        for (j, (_, place)) in lane.iter().enumerate() {
            places[j * inner + i] = *place as i64;
        }
    }
}

fn top(n: &NodeRef) -> Option<Candidate> {
    let (dtype, dims, out) = (n.dtype(0)?, n.dims(0)?, n.out_dims(0)?);
    let width = width(dtype)?;
    let run_block = by_type(dtype, Pick)?;
    let axis = axis(n, dims.len()).ok()?;
    let largest = largest(n).ok()?;
    let (len, k) = (dims[axis], out[axis]);
    let inner = count(&dims[axis + 1..])?;
    let total = count(&out)?;
    let find = move |pool: &Pool, x: &View, places: &mut [i64]| {
        let (from, x) = (len * inner * width, x.bytes());
        chunks(pool, places, k * inner, &|part, places| {
            run_block((&x[part * from..][..from], places, (len, inner), largest));
        });
    };
    let run = move |io: &mut Io| {
        let (pool, x) = (io.pool, io.input(0));
        let mut own = vec![];
        let (values, indices) = io.outputs.split_at_mut(1);
        let places = match indices.first_mut().and_then(Option::as_mut) {
            Some(out) => out.slice::<i64>(),
            None => {
                own.resize(total, 0);
                &mut own[..]
            }
        };
        find(pool, &x, places);
        if let Some(values) = &mut values[0] {
            rows(pool, x.bytes(), values.bytes(), width, |i| {
                (i / (k * inner) * len + places[i] as usize) * inner * width + i % inner * width
            });
        }
    };
    let bytes = count(&dims)?.checked_mul(width)?;
    let name = format!("topk.{}", short(dtype));
    Some(Candidate::new(name, Cost::bytes(4 * bytes), run))
}
