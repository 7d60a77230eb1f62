//! `Pow`: powers, the exponent perhaps of another type.

use num_traits::Float;
use secateur_simd::Simd;

use super::arith::{self, Arith, axes};
use super::binary::{self, align};
use super::case::{floats, odd_floats};
use super::grad::unless;
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, onnx};
use crate::cpu::act::ActFn;
use crate::cpu::number::Numbers;
use crate::cpu::walk::Walk;
use crate::cpu::{Candidate, Kernel, blocks, elementwise};
use crate::ir::{DType, Dim, Tensor};

/// `x^y` of the type of `x`. Of two integers exact, of which the low bits are kept; 0 where the exponent is negative and
/// the base neither 1 nor -1.
pub struct Pow;

#[derive(Clone, Copy)]
struct Power;
impl Arith for Power {
    const NAME: &'static str = "Pow";
    const COMMUTES: bool = false;
    #[inline(always)]
    fn real<F: Float>(x: F, y: F) -> F {
        x.powf(y)
    }
    fn int(x: i128, y: i128) -> i128 {
        match (x, y) {
            (1, _) => 1,
            (-1, y) => 1 - 2 * (y & 1),
            (_, ..0) => 0,
            (mut x, mut y) => {
                let mut power: i128 = 1;
                while y > 0 {
                    if y & 1 == 1 {
                        power = power.wrapping_mul(x);
                    }
                    x = x.wrapping_mul(x);
                    y >>= 1;
                }
                power
            }
        }
    }
    fn dim(_: &Dim, _: &Dim) -> Dim {
        Dim::Unknown
    }
}

/// A power that needs no logarithm.
#[derive(Clone, Copy)]
enum Plain {
    Square,
    Cube,
    Root,
    Reciprocal,
    ReciprocalRoot,
}

impl Plain {
    fn of(exponent: f64) -> Option<Plain> {
        Some(match exponent {
            2.0 => Plain::Square,
            3.0 => Plain::Cube,
            0.5 => Plain::Root,
            -1.0 => Plain::Reciprocal,
            -0.5 => Plain::ReciprocalRoot,
            _ => return None,
        })
    }
}

impl ActFn for Plain {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let one = s.splat(1.0);
        match self {
            Plain::Square => s.mul(x, x),
            Plain::Cube => s.mul(s.mul(x, x), x),
            Plain::Reciprocal => s.div(one, x),
            Plain::Root => root(s, x),
            Plain::ReciprocalRoot => s.div(one, root(s, x)),
        }
    }
}

/// The root as powers have it: of -0 it is 0, of minus infinity infinity.
#[inline(always)]
fn root<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let lowest = s.eq(x, s.splat(f32::NEG_INFINITY));
    let y = s.sqrt(s.add(x, s.splat(0.0)));
    s.select(lowest, s.splat(f32::INFINITY), y)
}

fn kernel(n: &NodeRef) -> Option<Box<dyn Kernel>> {
    let walk: Walk<2> = binary::walk(n, align)?;
    let (base, exponent) = (n.dtype(0)?, n.dtype(1)?);
    let plain = n.konst(1).and_then(Tensor::item).and_then(Plain::of);
    if let (DType::F32, Some(plain)) = (base, plain)
        && walk.lens()[0] == walk.len()
    {
        return Some(elementwise::map(walk.len(), plain));
    }
    if base == exponent {
        return arith::kernel::<Power>(walk, base);
    }
    match (blocks::ints(base), blocks::ints(exponent)) {
        (Some(x), Some(y)) => Some(blocks::zip_mixed(walk, [x, y], x, Power::int)),
        _ => {
            let (x, y) = (blocks::doubles(base)?, blocks::doubles(exponent)?);
            Some(blocks::zip_mixed(walk, [x, y], x, f64::powf))
        }
    }
}

impl Op for Pow {
    fn name(&self) -> OpName {
        onnx("Pow")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 7, 12, 13, 15]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let known = binary::infer(n, align, None)?;
        Ok(vec![Fact::tensor(n.dtype(0), known.ty.shape().cloned())])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0],
            elementwise: true,
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let [a, b] = binary::two(x)?;
        let ([da, db], out) = binary::together(n, align, a.dims(), b.dims())?;
        let at = binary::stretch(&da, &out)
            .into_iter()
            .zip(binary::stretch(&db, &out));
        let y = match (Numbers::of(a), Numbers::of(b)) {
            (Some(Numbers::Int(a)), Some(Numbers::Int(b))) => {
                Numbers::Int(at.map(|(i, j)| Power::int(a[i], b[j])).collect())
            }
            _ => {
                let wrong = || OpError::new(format!("there is no power of {} and {}", a.dtype(), b.dtype()));
                let (v, w) = (a.floats().ok_or_else(wrong)?, b.floats().ok_or_else(wrong)?);
                let powers: Vec<_> = at.map(|(i, j)| v[i].powf(w[j])).collect();
                return Ok(vec![Tensor::rounded(a.dtype(), &out, &powers).ok_or_else(wrong)?]);
            }
        };
        let y = y.tensor(a.dtype(), &out);
        Ok(vec![y.ok_or_else(|| OpError::new("expected numbers"))?])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (a, y, dy, own) = (x[0]?, y[0]?, dy[0]?, n.dtype(0)?);
        let b = super::formula::cast(x[1]?, n.dtype(1)?, own);
        if let Some(known) = n.konst(1).and_then(Tensor::item) {
            let slope = match known {
                0.0 => return Some(vec![None, None]),
                1.0 => dy,
                2.0 => dy * (a * 2.0),
                0.5 => dy / (y * 2.0),
                _ => dy * (a.op("Pow", &[a.constant(known - 1.0)]) * known),
            };
            return Some(vec![Some(slope), None]);
        }
        let slope = dy * (b * a.op("Pow", &[b - 1.0]));
        let da = unless(b.op("Equal", &[b.constant(0.0)]), slope);
        if !n.dtype(1)?.is_float() {
            return Some(vec![Some(da), None]);
        }
        // The limit at 0, whose logarithm is none.
        let nothing = a
            .op("Equal", &[a.constant(0.0)])
            .op("And", &[b.op("GreaterOrEqual", &[b.constant(0.0)])]);
        let db = unless(nothing, dy * (y * a.log()));
        Some(vec![Some(da), Some(super::formula::cast(db, own, n.dtype(1)?))])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernel(n)
            .into_iter()
            .map(|k| binary::candidate(n, "", k))
            .collect()
    }

    fn cases(&self) -> Vec<Case> {
        let f = |x: &[f32]| Tensor::of(&[x.len()], x.to_vec());
        let mut all: Vec<_> = [2.0f32, 3.0, 0.5, -1.0, -0.5, 1.5]
            .map(|y| Case::new("known exponent", [odd_floats(&[5, 7], 1), f(&[y])]).konst(&[1]))
            .into();
        all.extend([
            Case::new("exponents", [odd_floats(&[5, 7], 1), floats(&[7], 2)]),
            Case::new("exponents of one base", [f(&[1.7]), odd_floats(&[5, 7], 1)]),
            Case::new("known, larger", [f(&[3.0]), floats(&[2, 2], 1)]).konst(&[1]),
            Case::new("old broadcast", [floats(&[2, 3, 4], 1), floats(&[2, 3], 2)])
                .opset(1)
                .attr("broadcast", 1)
                .attr("axis", 0),
            Case::new(
                "double",
                [
                    Tensor::of(&[2], vec![2.0f64, 3.0]),
                    Tensor::of(&[1], vec![0.3f64]),
                ],
            ),
            Case::new("nothing", [floats(&[0], 1), floats(&[1], 2)]),
        ]);
        let mut all: Vec<_> = all.into_iter().map(|c| c.within(1e-38, 4e-7)).collect();
        let ints = Tensor::of(&[5], vec![2i64, -3, -1, 1, 0]);
        all.extend([
            Case::new(
                "integers",
                [ints.clone(), Tensor::of(&[5], vec![62i64, 41, -3, -9, 0])],
            ),
            Case::new("mixed integers", [ints.clone(), Tensor::of(&[], vec![3u8])]),
            Case::new("integers to floats", [ints, f(&[0.5, 2.0, 3.0, 7.0, 2.0])]),
            Case::new(
                "floats to integers",
                [floats(&[3, 5], 1), Tensor::of(&[5], vec![0i32, 1, 2, -3, 7])],
            )
            .within(0.0, 2e-7),
        ]);
        all
    }
}
