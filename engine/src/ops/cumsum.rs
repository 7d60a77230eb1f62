//! ONNX `CumSum` and `CumProd`: sums and products of all elements so far along an axis.

use super::grad::only;
use super::pick::given;
use super::shape::{arity, like_first};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::indices::integers;
use crate::cpu::moves::{chunks, short};
use crate::cpu::number::{ByType, Int, Numbers, Real, by_type};
use crate::cpu::{Candidate, Cost, Io, Pool, View, ViewMut};
use crate::expr::Ex;
use crate::ir::{Attr, Element, Tensor, count};

/// ONNX `CumSum`, or with `PRODUCT` ONNX `CumProd`.
pub struct Cumulative<const PRODUCT: bool>;

/// What the attributes say.
#[derive(Clone, Copy)]
struct Order {
    /// Without the element itself.
    exclusive: bool,
    /// From the end.
    reverse: bool,
}

fn order(n: &NodeRef) -> Result<Order, OpError> {
    Ok(Order {
        exclusive: n.int_or("exclusive", 0)? != 0,
        reverse: n.int_or("reverse", 0)? != 0,
    })
}

fn axis_of(all: &[i64], rank: usize) -> Result<usize, OpError> {
    match all {
        [axis] => NodeRef::axis(*axis, rank),
        _ => Err(OpError::new(format!("{} axes; expected one", all.len()))),
    }
}

/// The sizes before, along and behind `axis`.
fn around(dims: &[usize], axis: usize) -> (usize, usize, usize) {
    let product = |d: &[usize]| d.iter().product();
    (product(&dims[..axis]), dims[axis], product(&dims[axis + 1..]))
}

/// Replaces each element by what `join` makes of those so far, beginning with `first`.
fn join<T: Copy>(
    all: &mut [T],
    (dims, axis): (&[usize], usize),
    order: Order,
    (first, join): (T, impl Fn(T, T) -> T),
) {
    let (outer, len, inner) = around(dims, axis);
    for lane in 0..outer * inner {
        let mut sum = first;
        for i in 0..len {
            let i = if order.reverse { len - 1 - i } else { i };
            let x = &mut all[(lane / inner * len + i) * inner + lane % inner];
            let next = join(sum, *x);
            *x = if order.exclusive { sum } else { next };
            sum = next;
        }
    }
}

impl<const PRODUCT: bool> Op for Cumulative<PRODUCT> {
    fn name(&self) -> OpName {
        onnx(if PRODUCT { "CumProd" } else { "CumSum" })
    }

    fn since(&self) -> &'static [u16] {
        if PRODUCT { &[26] } else { &[11, 14] }
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        order(n)?;
        if let (Some(axis), Some(rank)) = (n.ints_in(1), n.rank(0)) {
            axis_of(&axis, rank)?;
        }
        like_first(n)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)?;
        let axis = axis_of(&n.ints_in(1)?, rank).ok()?;
        Some(super::shape::tied(rank, |i| match i == axis {
            true => vec![],
            false => vec![(0, i)],
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, axis) = (given(x, 0)?, super::pick::integers(given(x, 1)?, 1)?);
        let (dims, order) = (data.dims(), order(n)?);
        let axis = axis_of(&axis, dims.len())?;
        let refuse = || OpError::new(format!("elements of type {} cannot be added up", data.dtype()));
        let mut all = Numbers::of(data).ok_or_else(refuse)?;
        match &mut all {
            Numbers::Real(all) if PRODUCT => join(all, (dims, axis), order, (1.0, |a, b| a * b)),
            Numbers::Real(all) => join(all, (dims, axis), order, (0.0, |a, b| a + b)),
            // The low bits of the result are the result of the low bits.
            Numbers::Int(all) if PRODUCT => join(all, (dims, axis), order, (1, i128::wrapping_mul)),
            Numbers::Int(all) => join(all, (dims, axis), order, (0, i128::wrapping_add)),
        }
        Ok(vec![all.tensor(data.dtype(), dims).ok_or_else(refuse)?])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (x0, axis, y, dy) = (x[0]?, x[1]?, y[0]?, dy[0]?);
        let Order { exclusive, reverse } = order(n).ok()?;
        let along = |x: Ex<'a>, op: &str, exclusive: bool, reverse: bool| {
            let attrs = [("exclusive", exclusive), ("reverse", reverse)];
            x.with(
                op,
                &[axis],
                attrs.map(|(name, is)| Attr::new(name, i64::from(is))).into(),
            )
        };
        let back = |dy: Ex<'a>| along(dy, "CumSum", exclusive, !reverse);
        if !PRODUCT {
            return Some(vec![Some(back(dy)), None]);
        }
        // Behind the first zero nothing counts; its own gradient is that of the product without it.
        let (one, none) = (x0.constant(1.0), x0.constant(0.0));
        let zeros = along(only(x0.op("Equal", &[none]), one), "CumSum", false, reverse);
        let first = zeros.op("Equal", &[one]).op("And", &[x0.op("Equal", &[none])]);
        let others = first.op("Where", &[one, x0]);
        let at_first = back(dy * along(others, "CumProd", exclusive, reverse));
        let before = only(zeros.op("Equal", &[none]), back(dy * y) / others);
        Some(vec![Some(first.op("Where", &[at_first, before])), None])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let (Some(dtype), Some(dims), Ok(order)) = (n.dtype(0), n.dims(0), order(n)) else {
            return vec![];
        };
        let Some(run) = by_type(dtype, Pick::<PRODUCT>) else {
            return vec![];
        };
        let bytes = count(&dims).and_then(|c| dtype.bytes(c)).unwrap_or(0);
        let kernel = move |io: &mut Io| {
            let axis = axis_of(&integers(&io.input(1))?, dims.len())?;
            let (pool, x) = (io.pool, io.input(0));
            run(pool, &x, io.output(0), around(&dims, axis), order);
            Ok(())
        };
        let op = if PRODUCT { "cumprod" } else { "cumsum" };
        let name = format!("{op}.{}", short(dtype));
        vec![Candidate::new(name, Cost::bytes(2 * bytes), kernel)]
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[3, 5, 4], 1);
        let mut cases = vec![
            Case::new(
                "integers",
                [
                    Tensor::of(&[4], vec![1i32, i32::MAX, 3, -4]),
                    Tensor::scalar(0i64),
                ],
            ),
            Case::new(
                "bytes",
                [Tensor::of(&[3], vec![200u8, 100, 7]), Tensor::scalar(-1i32)],
            ),
            Case::new("nothing", [case::floats(&[2, 0], 1), Tensor::scalar(1i64)]),
        ];
        if !PRODUCT {
            let x = [case::floats(&[2, 3], 1), Tensor::scalar(1i64)];
            cases.push(Case::new("older", x).opset(11).within(1e-5, 0.0));
        }
        for (exclusive, reverse) in [(0i64, 0i64), (0, 1), (1, 0), (1, 1)] {
            for axis in [0i64, 1, -1] {
                let c = Case::new("each order", [x(), Tensor::of(&[1], vec![axis])]).within(1e-5, 0.0);
                cases.push(c.attr("exclusive", exclusive).attr("reverse", reverse));
            }
        }
        cases
    }
}

type Run = fn(&Pool, &View, &mut ViewMut, (usize, usize, usize), Order);

struct Pick<const PRODUCT: bool>;

impl<const PRODUCT: bool> ByType for Pick<PRODUCT> {
    type Out = Run;
    fn real<T: Real>(self) -> Run {
        |pool, x, y, around, order| match PRODUCT {
            true => {
                let multiply = |a: T::Wide, b: T| a * b.wide();
                let how = (num_traits::one(), multiply, T::narrow);
                run::<T, T::Wide>(pool, x, y, (around, order), how);
            }
            false => {
                let add = |a: T::Wide, b: T| a + b.wide();
                let how = (num_traits::zero(), add, T::narrow);
                run::<T, T::Wide>(pool, x, y, (around, order), how);
            }
        }
    }
    fn int<T: Int>(self) -> Run {
        |pool, x, y, around, order| {
            let narrow = |x: i64| T::narrow(x.into());
            match PRODUCT {
                true => {
                    let multiply = |a: i64, b: T| a.wrapping_mul(b.wide() as i64);
                    run::<T, i64>(pool, x, y, (around, order), (1, multiply, narrow));
                }
                false => {
                    let add = |a: i64, b: T| a.wrapping_add(b.wide() as i64);
                    run::<T, i64>(pool, x, y, (around, order), (0, add, narrow));
                }
            }
        }
    }
}

fn run<T: Element, A: Copy + Sync>(
    pool: &Pool,
    x: &View,
    y: &mut ViewMut,
    ((_, len, inner), order): ((usize, usize, usize), Order),
    (zero, add, narrow): (A, impl Fn(A, T) -> A + Sync, impl Fn(A) -> T + Sync),
) {
    let x: &[T] = x.slice();
    let block = len * inner;
    chunks(pool, y.slice::<T>(), block, &|part, y| {
        let x = &x[part * block..][..y.len()];
        let mut sums = vec![zero; inner];
        for i in 0..len {
            let i = if order.reverse { len - 1 - i } else { i };
            let (x, y) = (&x[i * inner..][..inner], &mut y[i * inner..][..inner]);
            for ((sum, &x), y) in sums.iter_mut().zip(x).zip(y) {
                let next = add(*sum, x);
                *y = narrow(if order.exclusive { *sum } else { next });
                *sum = next;
            }
        }
    });
}
