//! `MatMul`, and the private one that adds and applies an activation.

pub(crate) mod cpu;
pub(crate) mod matrices;
mod sparse;
mod vector;

use super::case::{few_floats, floats, tame_floats};
use super::formula::ints;
use super::grad::turned;
use super::shape::{broadcast, same_dtype, show};
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, Tie, onnx, private};
use crate::cpu::{Candidate, Post};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Shape, Tensor};
use matrices::{Matrices, check_size, product};

/// The matrix product, as NumPy has it.
pub struct MatMul;

impl Op for MatMul {
    fn name(&self) -> OpName {
        onnx("MatMul")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 9, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn eval(&self, _n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let [Some(a), Some(b)] = x else {
            return Err(OpError::new("expected two inputs"));
        };
        let m = Matrices::new(a.dims(), b.dims(), [false; 2])?;
        check_size(&m.dims)?;
        Ok(vec![product(&m, a, b)?])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let ranks = [n.rank(0)?, n.rank(1)?];
        let (a, b, dy) = (x[0]?, x[1]?, dy[0]?);
        let thick = |x: Ex<'a>, axis: i64| x.op("Unsqueeze", &[ints(x, &[axis])]);
        let thin = |x: Ex<'a>, axis: i64| x.op("Squeeze", &[ints(x, &[axis])]);
        let (da, db) = match ranks {
            [1, 1] => (dy * b, dy * a),
            [1, rb] => {
                let (da, db) = gradients([2, rb], [thick(a, 0), b], thick(dy, -2));
                (thin(da, -2), db)
            }
            [ra, 1] => {
                let (da, db) = gradients([ra, 2], [a, thick(b, 1)], thick(dy, -1));
                (da, thin(db, -1))
            }
            _ => gradients(ranks, [a, b], dy),
        };
        Some(vec![Some(da), Some(db)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::candidates(n, [false; 2], cpu::Extra::default())
    }

    fn cases(&self) -> Vec<Case> {
        let case =
            |name, a: &[usize], b: &[usize]| Case::new(name, [floats(a, 1), floats(b, 2)]).within(1e-5, 1e-5);
        let few = |name, a: &[usize], b: &[usize], zeros| {
            Case::new(name, [floats(a, 1), few_floats(b, 2, zeros)])
                .konst(&[1])
                .within(1e-5, 1e-5)
        };
        let ints = |dims: &[usize], from: i64| {
            Tensor::of(
                dims,
                (0..dims.iter().product::<usize>() as i64)
                    .map(|i| i.wrapping_mul(from))
                    .collect(),
            )
        };
        let of = |dtype, dims: &[usize], seed| {
            let values = floats(dims, seed).floats().unwrap_or_default();
            Tensor::rounded(dtype, dims, &values).unwrap_or_else(|| Tensor::scalar(0f32))
        };
        vec![
            case("odd sizes", &[13, 17], &[17, 33]),
            case("constant weights", &[13, 17], &[17, 33]).konst(&[1]),
            case("constant left operand", &[29, 17], &[2, 17, 5]).konst(&[0]),
            case("a long sum", &[3, 1100], &[1100, 35])
                .konst(&[1])
                .within(1e-4, 1e-5),
            case("a batch against one matrix", &[2, 3, 5, 7], &[7, 9]).konst(&[1]),
            case("batches that broadcast", &[2, 1, 5, 7], &[3, 7, 4]),
            case("constant batch", &[3, 5, 7], &[3, 7, 40]).konst(&[1]),
            case("vector and matrix", &[7], &[3, 7, 4]),
            case("matrix and vector", &[2, 3, 7], &[7]),
            case("two vectors", &[70], &[70]),
            case("a row", &[1, 64], &[64, 70]).konst(&[1]),
            few("a row and few weights", &[1, 300], &[300, 70], 0.95),
            few("rows and half of the weights", &[3, 1, 70], &[70, 300], 0.5),
            few("rows and a column of few weights", &[7, 70], &[70], 0.7),
            case("no rows", &[0, 3], &[3, 4]),
            case("no columns", &[2, 3], &[3, 0]).konst(&[1]),
            case("empty sums", &[2, 0], &[0, 3]),
            case("no batch", &[0, 2, 3], &[3, 2]),
            Case::new("odd values", [tame_floats(&[4, 3], 1), tame_floats(&[3, 2], 2)]).within(1e-5, 1e-5),
            Case::new("integers wrap", [ints(&[3, 4], i64::MAX / 5), ints(&[4, 2], 7)]).opset(9),
            Case::new(
                "32-bit integers",
                [
                    Tensor::of(&[1, 2], vec![3i32, -4]),
                    Tensor::of(&[2, 1], vec![5i32, 6]),
                ],
            ),
            Case::new(
                "half precision",
                [of(DType::F16, &[5, 6], 1), of(DType::F16, &[6, 7], 2)],
            )
            .within(1e-2, 1e-3),
            Case::new(
                "brain floats",
                [of(DType::BF16, &[5, 6], 1), of(DType::BF16, &[6, 7], 2)],
            )
            .within(1e-1, 1e-2),
            Case::new(
                "double precision",
                [of(DType::F64, &[2, 5, 6], 1), of(DType::F64, &[6, 7], 2)],
            )
            .opset(1)
            .within(1e-12, 1e-12),
        ]
    }
}

/// The gradients of two operands of these ranks, neither a vector. Axes along which one was stretched are left to be summed,
/// except where a matrix meets a batch: there the sum is part of the product.
fn gradients<'a>([ra, rb]: [usize; 2], [a, b]: [Ex<'a>; 2], dy: Ex<'a>) -> (Ex<'a>, Ex<'a>) {
    let product = |a: Ex<'a>, b: Ex<'a>, turn: &'static str| a.with("Gemm", &[b], vec![Attr::new(turn, 1)]);
    let rows = |x: Ex<'a>| match ra {
        2 => x,
        _ => x.with("Flatten", &[], vec![Attr::new("axis", -1)]),
    };
    let da = match (ra, rb) {
        (2, 2) => product(dy, b, "transB"),
        _ => dy.matmul(turned(b, rb)),
    };
    let db = match rb {
        2 => product(rows(a), rows(dy), "transA"),
        _ => turned(a, ra).matmul(dy),
    };
    (da, db)
}

/// `activation(A B + bias + residual)`; bias (input 2) and residual (input 3) may be left out and broadcast to the product.
pub struct Fused;

impl Op for Fused {
    fn name(&self) -> OpName {
        private("MatMul")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let facts = infer(n)?;
        Post::of(n)?;
        (2..4).try_for_each(|i| fits(n, i, &facts[0]))?;
        Ok(facts)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n).map(|axes| added(n, axes))
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[3],
            ..Laws::default()
        }
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let product = x[0].matmul(*x.get(1)?);
        let sum = (2..x.len())
            .filter(|&i| n.has(i))
            .fold(product, |sum, i| sum + x[i]);
        Some(vec![Post::of(n).ok()?.body(sum)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let Ok(post) = Post::of(n) else { return vec![] };
        let extra = cpu::Extra {
            add: [(2, 1.0), (3, 1.0)],
            post,
            ..cpu::Extra::default()
        };
        cpu::candidates(n, [false; 2], extra)
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name, dims: [&[usize]; 4]| {
            let inputs = dims.iter().zip(1..).map(|(d, seed)| floats(d, seed));
            Case::new(name, inputs).within(1e-4, 1e-5)
        };
        vec![
            case("all", [&[2, 5, 70], &[70, 33], &[33], &[2, 5, 33]]).konst(&[1, 2]),
            case("a long sum", [&[5, 1300], &[1300, 33], &[33], &[5, 33]]).konst(&[1, 2]),
            case("a bias by row", [&[4, 3, 5], &[4, 5, 6], &[3, 1], &[4, 1, 6]]),
            case("no bias", [&[3, 5], &[5, 6], &[], &[3, 6]]).without(2),
            case("no residual", [&[3, 5], &[5, 6], &[1], &[]]).without(3),
            case("vectors", [&[5], &[3, 5, 6], &[6], &[3, 6]]),
            case("bounds", [&[5, 70], &[70, 33], &[33], &[5, 33]])
                .attr("activation", "Clip")
                .attr("params", vec![-1.0, 2.5])
                .konst(&[1]),
            case("scaled", [&[5, 1300], &[1300, 33], &[33], &[5, 33]])
                .attr("activation", "Tanh")
                .attr("scale", -0.5f32)
                .attr("shift", 3.0f32)
                .konst(&[1, 2]),
            case("a scaled row", [&[1, 40], &[40, 33], &[33], &[1, 33]])
                .attr("activation", "HardSwish")
                .attr("scale", -0.5f32)
                .attr("shift", 3.0f32)
                .konst(&[1, 2]),
            case("an activation", [&[3, 5], &[5, 20], &[20], &[3, 20]]).attr("activation", "HardSwish"),
        ]
    }
}

/// The type of the product.
///
/// # Errors
///
/// If an operand is missing or a scalar, or the shapes do not go together.
pub(crate) fn infer(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    same_dtype(n)?;
    for i in 0..2 {
        if !n.has(i) || n.rank(i) == Some(0) {
            return Err(OpError::new(format!(
                "input {i}: expected a tensor of at least one axis"
            )));
        }
    }
    let dtype = n.dtype(0).or(n.dtype(1));
    let (Some(a), Some(b)) = (n.shape(0), n.shape(1)) else {
        return Ok(vec![Fact::tensor(dtype, None)]);
    };
    Ok(vec![Fact::tensor(dtype, Some(product_shape(a, b)?))])
}

/// The shape of the product of tensors of shapes `of_a` and `of_b`.
///
/// # Errors
///
/// If one is a scalar, or they do not go together.
pub(crate) fn product_shape(of_a: &Shape, of_b: &Shape) -> Result<Shape, OpError> {
    let (mut a, mut b) = (of_a.clone(), of_b.clone());
    if a.len() == 1 {
        a.insert(0, Dim::Known(1));
    }
    if b.len() == 1 {
        b.push(Dim::Known(1));
    }
    let (ra, rb) = (a.len(), b.len());
    if ra < 2 || rb < 2 {
        return Err(OpError::new("a scalar; expected a tensor of at least one axis"));
    }
    if let (Dim::Known(x), Dim::Known(y)) = (&a[ra - 1], &b[rb - 2])
        && x != y
    {
        let (a, b) = (show(of_a), show(of_b));
        return Err(OpError::new(format!(
            "{a} and {b} do not multiply: rows of {x} against columns of {y}"
        )));
    }
    let mut shape = broadcast(&a[..ra - 2], &b[..rb - 2])?;
    if of_a.len() != 1 {
        shape.push(a[ra - 2].clone());
    }
    if of_b.len() != 1 {
        shape.push(b[rb - 1].clone());
    }
    Ok(shape)
}

/// Checks that input `i` broadcasts to `product` and no further.
pub(crate) fn fits(n: &NodeRef, i: usize, product: &Fact) -> Result<(), OpError> {
    let (Some(z), Some(shape)) = (n.shape(i), product.ty.shape()) else {
        return Ok(());
    };
    let all = broadcast(z, shape)?;
    let grown = all.len() > shape.len()
        || all
            .iter()
            .zip(shape)
            .any(|(a, s)| matches!((a, s), (Dim::Known(a), Dim::Known(s)) if a != s));
    match grown {
        true => Err(OpError::new(format!(
            "input {i} has shape {}; expected one that broadcasts to {}",
            show(z),
            show(shape)
        ))),
        false => Ok(()),
    }
}

/// `...mk,...kn->...mn`
fn axes(n: &NodeRef) -> Option<Axes> {
    let (ra, rb) = (n.rank(0)?, n.rank(1)?);
    let batch = ra.max(rb).saturating_sub(2);
    let stretched = |i: usize, axis: usize| n.shape(i).is_some_and(|s| s[axis] == Dim::Known(1));
    let mut ties: Vec<_> = (0..batch)
        .map(|out| {
            let at = |i: usize, rank: usize| Some((i, (out + rank).checked_sub(batch + 2)?));
            let both: Vec<_> = [at(0, ra), at(1, rb)].into_iter().flatten().collect();
            let one = |&(i, axis): &(usize, usize)| stretched(i, axis);
            let inputs = match both.iter().all(one) {
                true => both,
                false => both.into_iter().filter(|x| !one(x)).collect(),
            };
            Tie {
                output: Some(out),
                inputs,
            }
        })
        .collect();
    let mut out = batch;
    for (i, axis) in [(0, ra.checked_sub(2)), (1, (rb > 1).then(|| rb - 1))] {
        if let Some(axis) = axis {
            ties.push(Tie {
                output: Some(out),
                inputs: vec![(i, axis)],
            });
            out += 1;
        }
    }
    ties.push(Tie {
        output: None,
        inputs: vec![(0, ra - 1), (1, rb.saturating_sub(2))],
    });
    Some(Axes(ties))
}

/// `axes` with the axes of inputs 2 and 3, which broadcast to the output.
pub(crate) fn added(n: &NodeRef, mut axes: Axes) -> Axes {
    let rank = axes.0.iter().filter(|t| t.output.is_some()).count();
    for i in 2..4 {
        let Some(shape) = n.shape(i) else { continue };
        for tie in &mut axes.0 {
            let axis = tie.output.and_then(|out| (out + shape.len()).checked_sub(rank));
            if let Some(axis) = axis.filter(|&a| shape[a] != Dim::Known(1)) {
                tie.inputs.push((i, axis));
            }
        }
    }
    axes
}
