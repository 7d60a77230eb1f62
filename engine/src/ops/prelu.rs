//! `PRelu`: a slope below 0 that is a tensor.

use num_traits::Float;

use super::arith::{self, Arith};
use super::binary;
use super::case::{floats, odd_floats};
use super::grad::unless;
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, onnx, shape};
use crate::cpu::Candidate;
use crate::ir::{Dim, Tensor};

/// `x`, below 0 `slope x`.
pub struct PRelu;

#[derive(Clone, Copy)]
struct Slope;
impl Arith for Slope {
    const NAME: &'static str = "PRelu";
    const COMMUTES: bool = false;
    #[inline(always)]
    fn real<F: Float>(x: F, slope: F) -> F {
        if x < F::zero() { slope * x } else { x }
    }
    #[inline(always)]
    fn int(x: i128, slope: i128) -> i128 {
        if x < 0 { slope.wrapping_mul(x) } else { x }
    }
    fn dim(_: &Dim, _: &Dim) -> Dim {
        Dim::Unknown
    }
}

/// Before opset 7 a slope of one axis stands under axis 1, the channels.
fn align(n: &NodeRef, ra: usize, rb: usize) -> Result<usize, OpError> {
    n.ignore(&["consumed_inputs"]);
    Ok(match (n.opset(), ra, rb) {
        (..7, 2.., 1) => ra - 2,
        _ => 0,
    })
}

/// A slope of one element stands for all, wherever it stands.
fn aligned(n: &NodeRef) -> binary::Align {
    let single = n.shape(1).is_some_and(|s| s.iter().all(|d| *d == Dim::Known(1)));
    if single { |_, _, _| Ok(0) } else { align }
}

impl Op for PRelu {
    fn name(&self) -> OpName {
        onnx("PRelu")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 6, 7, 9, 16]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        n.ignore(&["consumed_inputs"]);
        Ok(vec![binary::infer_same(n, aligned(n), None)?])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        match binary::shapes(n, aligned(n)) {
            Ok(Some([_, b])) if Some(b.len()) == n.rank(1) => shape::aligned(n),
            _ => None,
        }
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0],
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        arith::eval::<Slope>(n, x, aligned(n))
    }

    fn vjp<'a>(&self, _: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let ([a, slope], dy) = ([x[0]?, x[1]?], dy[0]?);
        let above = a.op("Greater", &[a.constant(0.0)]);
        Some(vec![
            Some(above.op("Where", &[dy, dy * slope])),
            Some(unless(above, dy * a)),
        ])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let walk = binary::walk(n, aligned(n)).zip(n.dtype(0));
        let kernel = walk.and_then(|(w, d)| arith::kernel::<Slope>(w, d));
        kernel.into_iter().map(|k| binary::candidate(n, "", k)).collect()
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("odd values", [odd_floats(&[2, 3, 5], 1), floats(&[3, 1], 2)]),
            Case::new("scalar", [floats(&[2, 3], 1), floats(&[1], 2)]),
            Case::new("old", [floats(&[2, 3, 5, 7], 1), floats(&[3], 2)]).opset(6),
            Case::new("old scalar", [floats(&[2, 3], 1), floats(&[1], 2)])
                .opset(1)
                .attr("consumed_inputs", vec![0, 0]),
            Case::new(
                "integers",
                [Tensor::of(&[3], vec![-3i32, 0, 4]), Tensor::of(&[1], vec![2i32])],
            ),
            Case::new(
                "double",
                [
                    Tensor::of(&[2], vec![-3.0f64, 4.0]),
                    Tensor::of(&[1], vec![0.5f64]),
                ],
            ),
            Case::new("nothing", [floats(&[0, 3], 1), floats(&[3], 2)]),
        ]
    }
}
