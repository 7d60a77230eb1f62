//! `ArgMax` and `ArgMin`: where the greatest or least element stands along an axis.

use std::cmp::Ordering;

use super::binary::candidate;
use super::case::{floats, odd_floats};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, Tie, onnx};
use crate::cpu::arg::{self, Along};
use crate::cpu::number::Numbers;
use crate::cpu::{Candidate, Kernel};
use crate::ir::{DType, Dim, Tensor, count};

/// The position of the greatest element along an axis. NaN counts as greatest; of equal ones the first, or the last
/// with `select_last_index`.
pub struct ArgMax;

/// The position of the least element along an axis. NaN counts as least; of equal ones the first, or the last with
/// `select_last_index`.
pub struct ArgMin;

struct Attributes {
    axis: usize,
    keep: bool,
    last: bool,
}

fn read(n: &NodeRef, rank: usize) -> Result<Attributes, OpError> {
    Ok(Attributes {
        axis: NodeRef::axis(n.int_or("axis", 0)?, rank)?,
        keep: n.int_or("keepdims", 1)? != 0,
        last: n.opset() >= 12 && n.int_or("select_last_index", 0)? != 0,
    })
}

fn infer(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    if let Some(d) = n.dtype(0).filter(|d| !d.is_float() && !d.is_int()) {
        return Err(OpError::new(format!("expected a tensor of numbers, found {d}")));
    }
    let Some(shape) = n.shape(0) else {
        read(n, usize::MAX >> 1)?;
        return Ok(vec![Fact::tensor(Some(DType::I64), None)]);
    };
    let a = read(n, shape.len())?;
    let mut shape = shape.clone();
    if shape[a.axis] == Dim::Known(0) {
        return Err(OpError::new(format!("axis {} has no element", a.axis)));
    }
    shape[a.axis] = Dim::Known(1);
    if !a.keep {
        shape.remove(a.axis);
    }
    Ok(vec![Fact::tensor(Some(DType::I64), Some(shape))])
}

fn axes(n: &NodeRef) -> Option<Axes> {
    let rank = n.rank(0)?;
    let a = read(n, rank).ok()?;
    let tie = |axis| Tie {
        output: Some(if axis > a.axis && !a.keep { axis - 1 } else { axis }),
        inputs: vec![(0, axis)],
    };
    Some(Axes((0..rank).filter(|&i| i != a.axis).map(tie).collect()))
}

/// The order in which the first of the greatest is sought: NaN above all.
fn order<T: PartialOrd>(a: &T, b: &T, turn: bool) -> Ordering {
    match a.partial_cmp(b) {
        Some(o) if turn => o.reverse(),
        Some(o) => o,
        None => a
            .partial_cmp(a)
            .is_some()
            .cmp(&b.partial_cmp(b).is_some())
            .reverse(),
    }
}

fn eval(n: &NodeRef, x: &[Option<&Tensor>], least: bool) -> Result<Vec<Tensor>, OpError> {
    let t = x.first().copied().flatten();
    let t = t.ok_or_else(|| OpError::new("expected a tensor"))?;
    let a = read(n, t.dims().len())?;
    let (size, mut dims) = (t.dims()[a.axis], t.dims().to_vec());
    let inner: usize = dims[a.axis + 1..].iter().product();
    if size == 0 {
        return Err(OpError::new(format!("axis {} has no element", a.axis)));
    }
    dims[a.axis] = 1;
    let seek = |better: &dyn Fn(usize, usize) -> Ordering, at: usize| -> i64 {
        let start = at / inner * inner * size + at % inner;
        let best = (1..size).fold(0, |best, i| {
            match better(start + i * inner, start + best * inner) {
                Ordering::Greater => i,
                Ordering::Equal if a.last => i,
                _ => best,
            }
        });
        best as i64
    };
    let len = count(&dims).ok_or_else(|| OpError::new("the result is larger than memory"))?;
    let y: Vec<i64> = match Numbers::of(t) {
        Some(Numbers::Real(v)) => (0..len)
            .map(|i| seek(&|a, b| order(&v[a], &v[b], least), i))
            .collect(),
        Some(Numbers::Int(v)) => (0..len)
            .map(|i| seek(&|a, b| order(&v[a], &v[b], least), i))
            .collect(),
        None => {
            return Err(OpError::new(format!(
                "expected a tensor of numbers, found {}",
                t.dtype()
            )));
        }
    };
    if !a.keep {
        dims.remove(a.axis);
    }
    Ok(vec![Tensor::of(&dims, y)])
}

fn cpu(n: &NodeRef, least: bool) -> Vec<Candidate> {
    kernel(n, least)
        .into_iter()
        .map(|k| candidate(n, "", k))
        .collect()
}

fn kernel(n: &NodeRef, least: bool) -> Option<Box<dyn Kernel>> {
    let dims = n.dims(0)?;
    let a = read(n, dims.len()).ok()?;
    let along = Along {
        outer: count(&dims[..a.axis])?,
        size: dims[a.axis],
        inner: count(&dims[a.axis + 1..])?,
    };
    arg::kernel(n.dtype(0)?, along, least, a.last)
}

fn cases() -> Vec<Case> {
    let ties = Tensor::of(
        &[2, 6],
        vec![
            1.0f32,
            5.0,
            5.0,
            0.0,
            0.0,
            5.0,
            3.0,
            f32::NAN,
            9.0,
            f32::NAN,
            0.0,
            1.0,
        ],
    );
    let few = |dtype| Tensor::rounded(dtype, &[2, 4], &[3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 9.0]);
    let mut all = vec![
        Case::new("rows", [floats(&[5, 37], 1)]).attr("axis", 1),
        Case::new("columns", [floats(&[3, 5, 300], 1)]).attr("axis", -2),
        Case::new("default", [odd_floats(&[5, 3], 1)]),
        Case::new("dropped", [floats(&[3, 4, 5], 1)])
            .attr("axis", 1)
            .attr("keepdims", 0),
        Case::new("first of equal", [ties.clone()]).attr("axis", -1),
        Case::new("last of equal", [ties.clone()])
            .attr("axis", -1)
            .attr("select_last_index", 1),
        Case::new("columns, last", [ties])
            .attr("axis", 0)
            .attr("select_last_index", 1),
        Case::new("columns with NaN", [odd_floats(&[5, 19], 2)]).attr("axis", 0),
        Case::new("last, columns with NaN", [odd_floats(&[19, 5], 2)])
            .attr("axis", 0)
            .attr("select_last_index", 1),
        Case::new("nothing", [floats(&[0, 3], 1)]).attr("axis", 1),
        Case::new("old", [floats(&[3, 4], 1)]).opset(1).attr("axis", 1),
    ];
    for dtype in [
        DType::F64,
        DType::F16,
        DType::BF16,
        DType::I64,
        DType::I32,
        DType::U8,
        DType::I8,
    ] {
        all.extend(few(dtype).map(|x| Case::new("other types", [x]).attr("axis", 1)));
    }
    all
}

impl Op for ArgMax {
    fn name(&self) -> OpName {
        onnx("ArgMax")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 11, 12, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(n, x, false)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu(n, false)
    }

    fn cases(&self) -> Vec<Case> {
        cases()
    }
}

impl Op for ArgMin {
    fn name(&self) -> OpName {
        onnx("ArgMin")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 11, 12, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(n, x, true)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu(n, true)
    }

    fn cases(&self) -> Vec<Case> {
        cases()
    }
}
