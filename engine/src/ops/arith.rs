//! `Add`, `Sub`, `Mul`, `Div` and `Mod`: arithmetic of two numbers.

use num_traits::Float;

use super::binary::{self, Align, align};
use super::case::{floats, odd_floats};
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, onnx, shape};
use crate::cpu::number::Numbers;
use crate::cpu::walk::Walk;
use crate::cpu::{Candidate, Io, Kernel, blocks, elementwise};
use crate::expr::Ex;
use crate::ir::{DType, Dim, Tensor};

/// Arithmetic of two numbers of one type.
pub trait Arith: Copy + Send + Sync + 'static {
    /// The operator's name.
    const NAME: &'static str;
    /// Whether the operands may change places, and whether brackets may move.
    const COMMUTES: bool;
    /// Whether an integer 0 as the second operand is an error.
    const DIVIDES: bool = false;
    /// Its result for floats.
    fn real<F: Float>(a: F, b: F) -> F;
    /// Its result for integers, of which the low bits are kept.
    fn int(a: i128, b: i128) -> i128;
    /// Its result for symbols.
    fn dim(a: &Dim, b: &Dim) -> Dim;
    /// The gradients of both operands, by which the result `y` changes, whose own is `dy`.
    fn vjp<'a>(_x: [Ex<'a>; 2], _y: Ex<'a>, _dy: Ex<'a>) -> Option<[Ex<'a>; 2]> {
        None
    }
}

/// The operator of some arithmetic.
pub struct Binary<F>(pub F);

impl<F: Arith> Op for Binary<F> {
    fn name(&self) -> OpName {
        onnx(F::NAME)
    }

    fn since(&self) -> &'static [u16] {
        &[1, 6, 7, 13, 14]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer::<F>(n)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn laws(&self) -> Laws {
        Laws {
            commutes: F::COMMUTES,
            associates: F::COMMUTES,
            in_place: &[0, 1],
            elementwise: true,
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval::<F>(n, x, align)
    }

    fn vjp<'a>(&self, _: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let dx = F::vjp([x[0]?, x[1]?], y[0]?, dy[0]?)?;
        Some(dx.map(Some).into())
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::<F>(n)
    }

    fn cases(&self) -> Vec<Case> {
        cases()
    }
}

/// Trailing axes aligned; `None` where an old attribute says otherwise.
pub(crate) fn axes(n: &NodeRef) -> Option<Axes> {
    match binary::shapes(n, align) {
        Ok(Some([_, b])) if Some(b.len()) == n.rank(1) => shape::aligned(n),
        _ => None,
    }
}

fn infer<F: Arith>(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    let fact = binary::infer_same(n, align, None)?;
    Ok(vec![binary::follow(n, fact, |x| F::dim(x[0], x[1]))])
}

fn division_by_zero() -> OpError {
    OpError::new("an integer is divided by 0")
}

pub(crate) fn eval<F: Arith>(
    n: &NodeRef,
    x: &[Option<&Tensor>],
    align: Align,
) -> Result<Vec<Tensor>, OpError> {
    let [a, b] = binary::two(x)?;
    let ([da, db], out) = binary::together(n, align, a.dims(), b.dims())?;
    let at = binary::stretch(&da, &out)
        .into_iter()
        .zip(binary::stretch(&db, &out));
    let y = match (Numbers::of(a), Numbers::of(b)) {
        (Some(Numbers::Real(a)), Some(Numbers::Real(b))) => {
            Numbers::Real(at.map(|(i, j)| F::real(a[i], b[j])).collect())
        }
        (Some(Numbers::Int(_)), Some(Numbers::Int(b))) if F::DIVIDES && b.contains(&0) => {
            return Err(division_by_zero());
        }
        (Some(Numbers::Int(a)), Some(Numbers::Int(b))) => {
            Numbers::Int(at.map(|(i, j)| F::int(a[i], b[j])).collect())
        }
        _ => {
            return Err(OpError::new(format!(
                "no arithmetic of {} and {}",
                a.dtype(),
                b.dtype()
            )));
        }
    };
    let y = y.tensor(a.dtype(), &out);
    Ok(vec![y.ok_or_else(|| {
        OpError::new("the inputs have two element types")
    })?])
}

fn cpu<F: Arith>(n: &NodeRef) -> Vec<Candidate> {
    let kernel = binary::walk(n, align)
        .zip(n.dtype(0))
        .and_then(|(w, d)| kernel::<F>(w, d));
    kernel.into_iter().map(|k| binary::candidate(n, "", k)).collect()
}

/// The kernel for elements of type `dtype`.
pub(crate) fn kernel<F: Arith>(walk: Walk<2>, dtype: DType) -> Option<Box<dyn Kernel>> {
    let kernel = quotient::<F>(walk, dtype)?;
    if !F::DIVIDES || !dtype.is_int() {
        return Some(kernel);
    }
    Some(Box::new(move |io: &mut Io| match elementwise::has_zero(io, 1) {
        true => Err(division_by_zero()),
        false => kernel.run(io),
    }))
}

/// The same, without a look at the divisors.
fn quotient<F: Arith>(walk: Walk<2>, dtype: DType) -> Option<Box<dyn Kernel>> {
    Some(match dtype {
        DType::F32 => elementwise::zip_floats(walk, F::real::<f32>),
        DType::F64 => elementwise::zip(walk, F::real::<f64>),
        DType::I64 => elementwise::zip(walk, |a: i64, b: i64| F::int(a.into(), b.into()) as i64),
        DType::I32 => elementwise::zip(walk, |a: i32, b: i32| F::int(a.into(), b.into()) as i32),
        other => match (blocks::floats(other), blocks::ints(other)) {
            (Some(b), _) => blocks::zip(walk, (b, b), F::real::<f32>),
            (None, Some(b)) => blocks::zip(walk, (b, b), F::int),
            (None, None) => return None,
        },
    })
}

fn cases() -> Vec<Case> {
    let ints = |dims: &[usize], k: i64| {
        let n: usize = dims.iter().product();
        Tensor::of::<i64>(dims, (0..n as i64).map(|i| i * i * k - 5).collect())
    };
    let half = |dims: &[usize], seed| Tensor::rounded(DType::F16, dims, &floats(dims, seed).floats()?);
    let mut all = vec![
        Case::new("odd size", [floats(&[37], 1), floats(&[37], 2)]),
        Case::new("odd values", [odd_floats(&[5, 5], 1), odd_floats(&[5, 1], 2)]),
        Case::new(
            "one against the other",
            [floats(&[3, 1, 7], 1), floats(&[4, 1], 2)],
        ),
        Case::new("bias", [floats(&[2, 3, 4, 5], 1), floats(&[3, 1, 1], 2)]),
        Case::new("scalar first", [floats(&[], 1), floats(&[130, 160], 2)]),
        Case::new("scalar second", [floats(&[130, 160], 2), floats(&[1], 1)]),
        Case::new("nothing", [floats(&[0, 3], 1), floats(&[3], 2)]),
        Case::new("integers", [ints(&[2, 9], 3), ints(&[9], 1)]),
        Case::new(
            "wrapping",
            [
                Tensor::of::<i8>(&[5], vec![127, -128, -128, 3, -7]),
                Tensor::of::<i8>(&[5], vec![2, 127, -1, 5, 2]),
            ],
        ),
        Case::new(
            "unsigned",
            [
                Tensor::of(&[2], vec![u64::MAX, 7]),
                Tensor::of(&[2], vec![2u64, 9]),
            ],
        ),
        Case::new(
            "double",
            [
                Tensor::of(&[3], vec![1.0f64, 2.5, -3.0]),
                Tensor::of(&[1], vec![0.1f64]),
            ],
        ),
        Case::new("old broadcast", [floats(&[2, 3, 4, 5], 1), floats(&[3, 4], 2)])
            .opset(6)
            .attr("broadcast", 1)
            .attr("axis", 1),
        Case::new("old suffix", [floats(&[2, 3, 4], 1), floats(&[3, 4], 2)])
            .opset(1)
            .attr("broadcast", 1)
            .attr("consumed_inputs", vec![0, 0]),
    ];
    all.extend(half(&[9], 1).zip(half(&[9], 2)).map(|(a, b)| {
        // Rounding twice, by way of float, may differ from rounding once.
        Case::new("half", [a, b]).within(0.0, 1e-3)
    }));
    all
}

/// `a + b`
#[derive(Clone, Copy)]
pub struct Add;
impl Arith for Add {
    const NAME: &'static str = "Add";
    const COMMUTES: bool = true;
    #[inline(always)]
    fn real<F: Float>(a: F, b: F) -> F {
        a + b
    }
    #[inline(always)]
    fn int(a: i128, b: i128) -> i128 {
        a + b
    }
    fn dim(a: &Dim, b: &Dim) -> Dim {
        a.clone() + b.clone()
    }
    fn vjp<'a>(_: [Ex<'a>; 2], _: Ex<'a>, dy: Ex<'a>) -> Option<[Ex<'a>; 2]> {
        Some([dy, dy])
    }
}

/// `a - b`
#[derive(Clone, Copy)]
pub struct Sub;
impl Arith for Sub {
    const NAME: &'static str = "Sub";
    const COMMUTES: bool = false;
    #[inline(always)]
    fn real<F: Float>(a: F, b: F) -> F {
        a - b
    }
    #[inline(always)]
    fn int(a: i128, b: i128) -> i128 {
        a - b
    }
    fn dim(a: &Dim, b: &Dim) -> Dim {
        a.clone() - b.clone()
    }
    fn vjp<'a>(_: [Ex<'a>; 2], _: Ex<'a>, dy: Ex<'a>) -> Option<[Ex<'a>; 2]> {
        Some([dy, -dy])
    }
}

/// `a * b`
#[derive(Clone, Copy)]
pub struct Mul;
impl Arith for Mul {
    const NAME: &'static str = "Mul";
    const COMMUTES: bool = true;
    #[inline(always)]
    fn real<F: Float>(a: F, b: F) -> F {
        a * b
    }
    #[inline(always)]
    fn int(a: i128, b: i128) -> i128 {
        a.wrapping_mul(b)
    }
    fn dim(a: &Dim, b: &Dim) -> Dim {
        a.clone() * b.clone()
    }
    fn vjp<'a>([a, b]: [Ex<'a>; 2], _: Ex<'a>, dy: Ex<'a>) -> Option<[Ex<'a>; 2]> {
        Some([dy * b, dy * a])
    }
}

/// `a / b`; of integers rounded towards 0, and an error where `b` is 0.
#[derive(Clone, Copy)]
pub struct Div;
impl Arith for Div {
    const NAME: &'static str = "Div";
    const COMMUTES: bool = false;
    const DIVIDES: bool = true;
    #[inline(always)]
    fn real<F: Float>(a: F, b: F) -> F {
        a / b
    }
    #[inline(always)]
    fn int(a: i128, b: i128) -> i128 {
        // Division of 64 bits is several times faster, and known to be enough where the type is no `u64`.
        match (i64::try_from(a), i64::try_from(b)) {
            (_, Ok(0)) => 0,
            (Ok(a), Ok(b)) => a.wrapping_div(b).into(),
            _ => a / b,
        }
    }
    fn dim(a: &Dim, b: &Dim) -> Dim {
        match (a, b) {
            (_, Dim::Known(0)) => Dim::Unknown,
            (Dim::Known(a), Dim::Known(b)) => Dim::Known(a.wrapping_div(*b)),
            _ if never_negative(a) && never_negative(b) => a.floor_div(b),
            _ => Dim::Unknown,
        }
    }
    fn vjp<'a>([_, b]: [Ex<'a>; 2], y: Ex<'a>, dy: Ex<'a>) -> Option<[Ex<'a>; 2]> {
        let da = dy / b;
        Some([da, -(da * y)])
    }
}

/// Whether a value that follows from sizes cannot be below 0.
pub(crate) fn never_negative(d: &Dim) -> bool {
    use crate::ir::DimExpr::{Floor, Max, Min, Sum};
    match d {
        Dim::Known(n) => *n >= 0,
        Dim::Symbol(_) => true,
        Dim::Unknown => false,
        Dim::Expr(e) => match &**e {
            Sum(terms) => terms.iter().all(|(f, k)| *k >= 0 && f.iter().all(never_negative)),
            Floor(a, b) | Min(a, b) => never_negative(a) && never_negative(b),
            Max(a, b) => never_negative(a) || never_negative(b),
        },
    }
}

/// The remainder with the sign of `a` (`fmod`).
#[derive(Clone, Copy)]
struct Remainder;
impl Arith for Remainder {
    const NAME: &'static str = "Mod";
    const COMMUTES: bool = false;
    const DIVIDES: bool = true;
    #[inline(always)]
    fn real<F: Float>(a: F, b: F) -> F {
        a % b
    }
    #[inline(always)]
    fn int(a: i128, b: i128) -> i128 {
        match (i64::try_from(a), i64::try_from(b)) {
            (_, Ok(0)) => 0,
            (Ok(a), Ok(b)) => a.wrapping_rem(b).into(),
            _ => a % b,
        }
    }
    fn dim(a: &Dim, b: &Dim) -> Dim {
        match (a, b) {
            (_, Dim::Known(0)) => Dim::Unknown,
            (Dim::Known(a), Dim::Known(b)) => Dim::Known(a.wrapping_rem(*b)),
            _ if never_negative(a) && never_negative(b) => a.clone() - b.clone() * a.floor_div(b),
            _ => Dim::Unknown,
        }
    }
}

/// The remainder with the sign of `b`, for integers.
#[derive(Clone, Copy)]
struct Modulo;
impl Arith for Modulo {
    const NAME: &'static str = "Mod";
    const COMMUTES: bool = false;
    const DIVIDES: bool = true;
    #[inline(always)]
    fn real<F: Float>(a: F, b: F) -> F {
        a - b * (a / b).floor()
    }
    #[inline(always)]
    fn int(a: i128, b: i128) -> i128 {
        let r = Remainder::int(a, b);
        if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
    }
    fn dim(a: &Dim, b: &Dim) -> Dim {
        match (Remainder::dim(a, b), b) {
            (Dim::Known(r), Dim::Known(b)) if r != 0 && (r < 0) != (*b < 0) => Dim::Known(r + b),
            (r, _) => r,
        }
    }
}

/// The remainder: with the sign of the divisor, or with `fmod` of the dividend. Of integers, an error where the divisor is 0.
pub struct Mod;

impl Op for Mod {
    fn name(&self) -> OpName {
        onnx("Mod")
    }

    fn since(&self) -> &'static [u16] {
        &[10, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        match n.int_or("fmod", 0)? {
            0 if n.dtype(0).is_some_and(|d| d.is_float()) => Err(OpError::new(
                "floats have only the remainder of fmod = 1; found fmod = 0",
            )),
            0 => infer::<Modulo>(n),
            _ => infer::<Remainder>(n),
        }
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0, 1],
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        match n.int_or("fmod", 0)? {
            0 => eval::<Modulo>(n, x, align),
            _ => eval::<Remainder>(n, x, align),
        }
    }

    fn vjp<'a>(&self, _: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let ([a, b], dy) = ([x[0]?, x[1]?], dy[0]?);
        // a = b · whole + y
        let whole = ((a - y[0]?) / b).op("Round", &[]);
        Some(vec![Some(dy), Some(-(dy * whole))])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        match n.int_or("fmod", 0) {
            Ok(0) => cpu::<Modulo>(n),
            Ok(_) => cpu::<Remainder>(n),
            Err(_) => vec![],
        }
    }

    fn cases(&self) -> Vec<Case> {
        let a = Tensor::of(&[6], vec![-5i32, 5, -5, 5, 0, 7]);
        let b = Tensor::of(&[6], vec![3i32, -3, -3, 3, 4, 7]);
        vec![
            Case::new("floor", [a.clone(), b.clone()]),
            Case::new("truncated", [a, b]).attr("fmod", 1),
            Case::new("floats", [odd_floats(&[4, 5], 3), floats(&[5], 4)]).attr("fmod", 1),
            Case::new(
                "unsigned",
                [Tensor::of(&[2], vec![u64::MAX, 9]), Tensor::of(&[1], vec![7u64])],
            ),
            Case::new(
                "low",
                [Tensor::of(&[1], vec![i64::MIN]), Tensor::of(&[1], vec![-1i64])],
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_stay_symbolic() {
        let h = Dim::symbol("h");
        assert_eq!(
            Div::dim(&(h.clone() * Dim::Known(4)), &Dim::Known(2)),
            h.clone() * Dim::Known(2)
        );
        assert_eq!(Div::dim(&Dim::Known(-7), &Dim::Known(2)), Dim::Known(-3));
        assert_eq!(
            Div::dim(&(h.clone() - Dim::Known(1)), &Dim::Known(2)),
            Dim::Unknown
        );
        assert_eq!(
            Remainder::dim(&(h.clone() * Dim::Known(4)), &Dim::Known(4)),
            Dim::Known(0)
        );
        assert_eq!(Modulo::dim(&Dim::Known(-7), &Dim::Known(4)), Dim::Known(1));
    }
}
