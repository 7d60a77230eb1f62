//! Triangles and diagonals.

use super::pick::{given, integers, pick, place};
use super::shape::{arity, like_first, ranked, show, tied};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::indices::integers as numbers;
use crate::cpu::moves::{chunks, short, width};
use crate::cpu::{Candidate, Cost, Io};
use crate::ir::{DType, Tensor, count};

/// ONNX `Trilu`: what is above or below a diagonal, 0 elsewhere.
pub struct Trilu;

/// Which columns of row `row` stay, of `columns`.
fn stays(row: usize, columns: usize, k: i64, upper: bool) -> std::ops::Range<usize> {
    let row = i64::try_from(row).unwrap_or(i64::MAX);
    let whole = i64::try_from(columns).unwrap_or(i64::MAX);
    let at = |x: i64| usize::try_from(x.clamp(0, whole)).unwrap_or(0);
    match upper {
        true => at(row.saturating_add(k))..columns,
        false => 0..at(row.saturating_add(k).saturating_add(1)),
    }
}

fn single(k: &[i64]) -> Result<i64, OpError> {
    match k {
        [k] => Ok(*k),
        _ => Err(OpError::new(format!("{} values of k; expected one", k.len()))),
    }
}

fn zero(dtype: DType) -> Result<Tensor, OpError> {
    Tensor::zeros(dtype, &[]).ok_or_else(|| OpError::new(format!("no zero of type {dtype}")))
}

impl Op for Trilu {
    fn name(&self) -> OpName {
        onnx("Trilu")
    }

    fn since(&self) -> &'static [u16] {
        &[14]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 2)?;
        n.int_or("upper", 1)?;
        match n.shape(0) {
            Some(s) if s.len() < 2 => Err(OpError::new(format!(
                "input 0 has shape {}; expected matrices",
                show(s)
            ))),
            _ => like_first(n),
        }
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)?;
        Some(tied(rank, |i| match i + 2 < rank {
            true => vec![(0, i)],
            false => vec![],
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = given(x, 0)?;
        let dims = data.dims();
        if dims.len() < 2 {
            return Err(OpError::new("expected matrices"));
        }
        let k = match x.get(1).copied().flatten() {
            Some(k) => single(&integers(k, 1)?)?,
            None => 0,
        };
        let (row, column) = (dims.len() - 2, dims.len() - 1);
        let upper = n.int_or("upper", 1)? != 0;
        let zero = zero(data.dtype())?;
        let y = pick(data.dtype(), dims, &[data, &zero], |at| {
            let (r, c) = (at[row] as i128, at[column] as i128);
            let inside = if upper {
                c >= r + i128::from(k)
            } else {
                c <= r + i128::from(k)
            };
            Ok(if inside {
                (0, place(at.iter().copied(), dims))
            } else {
                (1, 0)
            })
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let attrs = n.node().attrs.clone();
        Some(vec![Some(
            super::formula::apply(dy[0]?, "Trilu", &[x.get(1).copied().flatten()], attrs, 1)[0],
        )])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let (Some(dtype), Some(dims), Ok(upper)) = (n.dtype(0), n.dims(0), n.int_or("upper", 1)) else {
            return vec![];
        };
        let (Some(width), &[.., rows, columns]) = (width(dtype), &dims[..]) else {
            return vec![];
        };
        let bytes = count(&dims).unwrap_or(0).saturating_mul(2 * width);
        let run = move |io: &mut Io| {
            let k = match io.inputs.get(1).copied().flatten() {
                Some(k) => single(&numbers(&k)?)?,
                None => 0,
            };
            let (pool, x) = (io.pool, io.input(0).bytes());
            let row = columns * width;
            let each = (64 << 10) / row.max(1) + 1;
            chunks(pool, io.output(0).bytes(), each * row, &|part, y| {
                for (r, y) in y.chunks_mut(row).enumerate() {
                    let r = part * each + r;
                    let stays = stays(r % rows, columns, k, upper != 0);
                    let (start, end) = (stays.start.min(stays.end) * width, stays.end * width);
                    y[..start].fill(0);
                    y[start..end].copy_from_slice(&x[r * row..][start..end]);
                    y[end..].fill(0);
                }
            });
            Ok(())
        };
        let name = format!("trilu.{}", short(dtype));
        vec![Candidate::new(name, Cost::bytes(bytes), run)]
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[2, 4, 5], 1);
        let mut cases = vec![
            Case::new("integers", [Tensor::of(&[3, 3], (1..10i64).collect())]),
            Case::new("bools", [Tensor::bools(&[2, 2], [true; 4]), Tensor::scalar(1i64)]).attr("upper", 0i64),
            Case::new("no columns", [case::floats(&[3, 0], 1)]),
        ];
        for k in [-5, -1, 0, 2, 7, i64::MIN, i64::MAX] {
            for upper in [0i64, 1] {
                cases.push(Case::new("a diagonal", [x(), Tensor::scalar(k)]).attr("upper", upper));
            }
        }
        cases
    }
}

/// ONNX `EyeLike`: 1 on a diagonal, 0 elsewhere.
pub struct EyeLike;

fn eye_type(n: &NodeRef) -> Result<Option<DType>, OpError> {
    match n.int("dtype")? {
        None => Ok(n.dtype(0)),
        Some(code) => match i32::try_from(code).map(DType::from_code) {
            Ok(DType::Other(_)) | Err(_) => Err(OpError::new(format!("{code} is no element type"))),
            Ok(d) => Ok(Some(d)),
        },
    }
}

fn eye(dtype: DType, rows: usize, columns: usize, k: i64) -> Option<Tensor> {
    let mut all = super::pick::room(count(&[rows, columns])).ok()?;
    for r in 0..rows {
        all.extend((0..columns).map(|c| f64::from(u8::from(c as i128 == r as i128 + i128::from(k)))));
    }
    Tensor::rounded(dtype, &[rows, columns], &all)
}

impl Op for EyeLike {
    fn name(&self) -> OpName {
        onnx("EyeLike")
    }

    fn since(&self) -> &'static [u16] {
        &[9, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        n.int_or("k", 0)?;
        Ok(vec![Fact::tensor(eye_type(n)?, ranked(n, 0, 2)?.cloned())])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let like = given(x, 0)?;
        let dtype = eye_type(n)?.unwrap_or(like.dtype());
        let &[rows, columns] = like.dims() else {
            return Err(OpError::new("expected a matrix"));
        };
        let eye = eye(dtype, rows, columns, n.int_or("k", 0)?);
        Ok(vec![eye.ok_or_else(|| {
            OpError::new(format!("no unit matrix of type {dtype}"))
        })?])
    }

    fn vjp<'a>(&self, _: &NodeRef, _: Exs<'_, 'a>, _: Exs<'_, 'a>, _: Exs<'_, 'a>) -> Grads<'a> {
        // Only the shape of the input counts.
        Some(vec![None])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let (Some(dtype), Some(dims), Ok(k)) = (n.out_dtype(0), n.out_dims(0), n.int_or("k", 0)) else {
            return vec![];
        };
        let Some(eye) = eye(dtype, dims[0], dims[1], k) else {
            return vec![];
        };
        let cost = Cost::bytes(eye.bytes().len());
        let run = move |io: &mut Io| io.output(0).bytes().copy_from_slice(eye.bytes());
        vec![Candidate::new("eyelike.told", cost, run)]
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("like the input", [Tensor::of(&[3, 3], vec![0i32; 9])]).opset(9),
            Case::new("of another type", [case::floats(&[2, 4], 1)])
                .attr("dtype", 11i64)
                .attr("k", 1i64),
            Case::new("below", [case::floats(&[4, 3], 1)]).attr("k", -2i64),
        ]
    }
}
