//! ONNX `Hardmax`: 1 where the first greatest element stands.

use super::case::{floats, odd_floats};
use super::pick::given;
use super::shape::{arity, like_first, tied};
use super::softmax::span;
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, onnx};
use crate::cpu::moves::{chunks, short};
use crate::cpu::number::{ByType, Int, Real, by_type};
use crate::cpu::{Candidate, Cost, Io, Pool, View, ViewMut};
use crate::ir::{DType, Tensor, count};

/// ONNX `Hardmax`. Before opset 13 there is one greatest element of all axes from `axis` on.
pub struct Hardmax;

/// The place of the first element that is greater than those before.
fn greatest<T: PartialOrd + Copy>(n: usize, at: impl Fn(usize) -> T) -> usize {
    (1..n).fold(0, |best, i| if at(i) > at(best) { i } else { best })
}

impl Op for Hardmax {
    fn name(&self) -> OpName {
        onnx("Hardmax")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 11, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        span(n, n.rank(0).unwrap_or(usize::MAX >> 1))?;
        match n.dtype(0) {
            Some(d) if !d.is_float() => Err(OpError::new(format!("expected floats, found {d}"))),
            _ => like_first(n),
        }
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)?;
        let (first, end) = span(n, rank).ok()?;
        Some(tied(rank, |i| match (first..end).contains(&i) {
            true => vec![],
            false => vec![(0, i)],
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = given(x, 0)?;
        let wrong = || OpError::new(format!("expected floats, found {}", x.dtype()));
        let all = x.floats().ok_or_else(wrong)?;
        let (first, end) = span(n, x.dims().len())?;
        let size: usize = x.dims()[first..end].iter().product();
        let inner: usize = x.dims()[end..].iter().product();
        let mut y = vec![0.0; all.len()];
        for lane in 0..all.len() / size.max(1) {
            let at = |i: usize| (lane / inner * size + i) * inner + lane % inner;
            y[at(greatest(size, |i| all[at(i)]))] = 1.0;
        }
        let y = Tensor::rounded(x.dtype(), x.dims(), &y);
        Ok(vec![y.ok_or_else(wrong)?])
    }

    fn vjp<'a>(&self, _: &NodeRef, _: Exs<'_, 'a>, _: Exs<'_, 'a>, _: Exs<'_, 'a>) -> Grads<'a> {
        // A staircase.
        Some(vec![None])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernel(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let double = |x: Tensor| Tensor::rounded(DType::F64, x.dims(), &x.floats()?);
        let equal = Tensor::of(&[2, 3], vec![1f32, 5.0, 5.0, 2.0, 2.0, 2.0]);
        let mut all = vec![
            Case::new("rows", [floats(&[5, 37], 1)]),
            Case::new("columns", [floats(&[2, 5, 7], 1)]).attr("axis", 1),
            Case::new("equal ones", [equal]),
            Case::new("odd values", [odd_floats(&[3, 5], 1)]).attr("axis", -2),
            Case::new("old", [floats(&[2, 3, 5], 1)]).opset(11),
            Case::new("older", [floats(&[2, 3, 5], 1)])
                .opset(1)
                .attr("axis", 2),
            Case::new("nothing", [floats(&[0, 3], 1)]),
            Case::new("rows of nothing", [floats(&[3, 0], 1)]),
        ];
        all.extend(double(floats(&[4, 4], 1)).map(|x| Case::new("double", [x])));
        all
    }
}

type Run = fn(&Pool, &View, &mut ViewMut, (usize, usize));

struct Pick;

impl ByType for Pick {
    type Out = Option<Run>;
    fn real<T: Real>(self) -> Option<Run> {
        Some(|pool, x, y, (size, inner)| {
            let (x, block) = (x.slice::<T>(), size * inner);
            chunks(pool, y.slice::<T>(), block, &|part, y| {
                y.fill(T::rounded(0.0));
                for i in 0..if size == 0 { 0 } else { inner } {
                    let from = &x[part * block + i..];
                    y[greatest(size, |k| from[k * inner]) * inner + i] = T::rounded(1.0);
                }
            });
        })
    }
    fn int<T: Int>(self) -> Option<Run> {
        None
    }
}

fn kernel(n: &NodeRef) -> Option<Candidate> {
    let (dtype, dims) = (n.dtype(0)?, n.dims(0)?);
    let (first, end) = span(n, dims.len()).ok()?;
    let sizes = (count(&dims[first..end])?, count(&dims[end..])?);
    let run = by_type(dtype, Pick)??;
    let bytes = dtype.bytes(count(&dims)?)?;
    let name = format!("hardmax.{}", short(dtype));
    let kernel = move |io: &mut Io| {
        let (pool, x) = (io.pool, io.input(0));
        run(pool, &x, io.output(0), sizes);
    };
    Some(Candidate::new(name, Cost::bytes(2 * bytes), kernel))
}
