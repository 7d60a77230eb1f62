//! `MatMulInteger` and `QLinearMatMul`: products of matrices of bytes.

pub(crate) mod cases;
mod cpu;

use super::matmul::matrices::{Matrices, check_size};
use super::matmul::product_shape;
use super::quant::{code_of, rounded_to};
use super::shape::arity;
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, Tie, onnx};
use crate::cpu::Candidate;
use crate::ir::{DType, Shape, Tensor, count, small};

/// ONNX `MatMulInteger`: `(A - zero point) (B - zero point)`, summed in 32 bits.
pub struct MatMulInteger;

/// ONNX `QLinearMatMul`: the product of quantised matrices, quantised.
pub struct QLinearMatMul;

/// Where an operator has its operands and their zero points.
#[derive(Clone, Copy, Debug)]
struct Places {
    a: usize,
    b: usize,
    zeros: [usize; 2],
}

const INTEGER: Places = Places {
    a: 0,
    b: 1,
    zeros: [2, 3],
};

const LINEAR: Places = Places {
    a: 0,
    b: 3,
    zeros: [2, 5],
};

/// Whether the type is one of 8-bit integers.
pub(crate) fn byte(d: DType) -> bool {
    matches!(d, DType::U8 | DType::I8)
}

/// Refuses inputs that are not of a type that `fits`.
pub(crate) fn typed(n: &NodeRef, inputs: &[usize], fits: impl Fn(DType) -> bool) -> Result<(), OpError> {
    for &i in inputs {
        if let Some(d) = n.dtype(i).filter(|&d| !fits(d)) {
            return Err(OpError::new(format!(
                "input {i} is of type {d}; expected numbers of 8 bits"
            )));
        }
    }
    Ok(())
}

/// Refuses a zero point of another type than what it belongs to.
pub(crate) fn paired(n: &NodeRef, pairs: &[(usize, usize)]) -> Result<(), OpError> {
    for &(i, zero) in pairs {
        if let (Some(x), Some(z)) = (n.dtype(i), n.dtype(zero))
            && x != z
        {
            return Err(OpError::new(format!(
                "input {zero} is of type {z}; expected that of input {i}, {x}"
            )));
        }
    }
    Ok(())
}

fn shape(n: &NodeRef, at: Places) -> Result<Option<Shape>, OpError> {
    let (Some(a), Some(b)) = (n.shape(at.a), n.shape(at.b)) else {
        return Ok(None);
    };
    product_shape(a, b).map(Some)
}

/// Which of `len` numbers row `row` (of all) of matrices of `m` rows has: one for all, or one each.
///
/// # Errors
///
/// If there are as many as nothing asks for.
fn spread(len: usize, m: usize, all: usize) -> Result<impl Fn(usize) -> usize + Copy, OpError> {
    match len == 1 || len == m || len == all {
        true => Ok(move |i: usize| i % len.max(1)),
        false => Err(OpError::new(format!(
            "{len} scales or zero points; expected 1 or {m}"
        ))),
    }
}

/// Rows of all left operands and columns of all right operands.
fn totals(m: &Matrices, a: &[usize], b: &[usize]) -> [usize; 2] {
    let all = |d: &[usize]| count(d).unwrap_or(0) / m.k.max(1);
    [all(a), all(b)]
}

/// Calls `each` with the row, the column and the two places of the operands of every element of the product.
fn elements(m: &Matrices, mut each: impl FnMut(usize, usize, usize, usize)) {
    for [a, b] in &m.batch {
        for i in 0..m.m {
            for j in 0..m.n {
                each(
                    a / m.k.max(1) + i,
                    b / m.k.max(1) + j,
                    a + i * m.a.row,
                    b + j * m.b.col,
                );
            }
        }
    }
}

/// The elements of input `i`, 0 where it is left out.
pub(crate) fn values(x: &[Option<&Tensor>], i: usize) -> Result<Vec<f64>, OpError> {
    match x.get(i).copied().flatten() {
        None => Ok(vec![0.0]),
        Some(t) => t
            .floats()
            .ok_or_else(|| OpError::new(format!("input {i} is of type {}; expected numbers", t.dtype()))),
    }
}

/// A sum of products with its row and column.
type Sum = (usize, usize, f64);

/// The sums of products of differences from zero points.
fn sums(x: &[Option<&Tensor>], at: Places) -> Result<(Matrices, Vec<Sum>), OpError> {
    let (a, b) = (super::pick::given(x, at.a)?, super::pick::given(x, at.b)?);
    let m = Matrices::new(a.dims(), b.dims(), [false; 2])?;
    check_size(&m.dims)?;
    let (va, vb) = (values(x, at.a)?, values(x, at.b)?);
    let (za, zb) = (values(x, at.zeros[0])?, values(x, at.zeros[1])?);
    let [rows, cols] = totals(&m, a.dims(), b.dims());
    let (ia, ib) = (spread(za.len(), m.m, rows)?, spread(zb.len(), m.n, cols)?);
    let mut all = vec![];
    elements(&m, |row, col, pa, pb| {
        let (za, zb) = (za[ia(row)], zb[ib(col)]);
        let each = (0..m.k).map(|k| (va[pa + k * m.a.col] - za) * (vb[pb + k * m.b.row] - zb));
        all.push((row, col, each.sum()));
    });
    Ok((m, all))
}

/// `...mk,...kn->...mn`
fn axes(n: &NodeRef, at: Places) -> Option<Axes> {
    let (ra, rb) = (n.rank(at.a)?, n.rank(at.b)?);
    if ra < 2 || rb != 2 {
        return None;
    }
    let tie = |output, inputs: &[(usize, usize)]| Tie {
        output,
        inputs: inputs.to_vec(),
    };
    let mut ties: Vec<_> = (0..ra - 1).map(|i| tie(Some(i), &[(at.a, i)])).collect();
    ties.push(tie(Some(ra - 1), &[(at.b, 1)]));
    ties.push(tie(None, &[(at.a, ra - 1), (at.b, 0)]));
    Some(Axes(ties))
}

impl Op for MatMulInteger {
    fn name(&self) -> OpName {
        onnx("MatMulInteger")
    }

    fn since(&self) -> &'static [u16] {
        &[10]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 4)?;
        typed(n, &[0, 1], byte)?;
        paired(n, &[(0, 2), (1, 3)])?;
        Ok(vec![Fact::tensor(Some(DType::I32), shape(n, INTEGER)?)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n, INTEGER)
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (m, sums) = sums(x, INTEGER)?;
        // What does not fit wraps around.
        let narrow = sums.iter().map(|s| s.2 as i64 as i32).collect();
        Ok(vec![Tensor::of(&m.dims, narrow)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::integer(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        cases::integer()
    }
}

/// What sums of products are multiplied by, in the precision of the scales.
fn factor(dtype: DType, [a, b, y]: [f64; 3]) -> f64 {
    let r = |x| rounded_to(dtype, x);
    r(r(a * b) / y)
}

impl Op for QLinearMatMul {
    fn name(&self) -> OpName {
        onnx("QLinearMatMul")
    }

    fn since(&self) -> &'static [u16] {
        &[10, 21]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 8, 8)?;
        let fits = |d| byte(d) || (small::is_small(d) && d.bits() == 8 && d != DType::F8E8M0);
        typed(n, &[0, 3, 7], fits)?;
        paired(n, &[(0, 2), (3, 5), (1, 4), (1, 6)])?;
        let shape = shape(n, LINEAR)?;
        Ok(vec![Fact::tensor(n.dtype(7), shape)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n, LINEAR)
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (m, sums) = sums(x, LINEAR)?;
        let (sa, sb, sy) = (values(x, 1)?, values(x, 4)?, values(x, 6)?);
        let (scale, zero) = (super::pick::given(x, 1)?.dtype(), super::pick::given(x, 7)?);
        let dims = |i| super::pick::given(x, i).map(Tensor::dims);
        let [rows, cols] = totals(&m, dims(0)?, dims(3)?);
        let (ia, ib) = (spread(sa.len(), m.m, rows)?, spread(sb.len(), m.n, cols)?);
        let (Some(&sy), Some(&zy)) = (sy.first(), values(x, 7)?.first()) else {
            return Err(OpError::new("an output without a scale"));
        };
        let code = |&(row, col, sum): &Sum| {
            let factor = factor(scale, [sa[ia(row)], sb[ib(col)], sy]);
            code_of(zero.dtype(), sum, factor, zy)
        };
        let codes = sums.iter().map(code).collect();
        let y = Tensor::of_codes(zero.dtype(), &m.dims, codes);
        Ok(vec![
            y.ok_or_else(|| OpError::new("expected an output of 8 bits"))?,
        ])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::linear(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        cases::linear()
    }
}
