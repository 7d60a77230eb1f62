//! Elementary functions of one number.

use std::f64::consts::FRAC_2_SQRT_PI;

use secateur_simd::{Simd, math};

use super::arith::never_negative;
use super::case::{floats, odd_floats};
use super::pointwise::Function;
use super::{Case, NodeRef, OpError};
use crate::cpu::act::ActFn;
use crate::cpu::trig::sin_shifted;
use crate::expr::Ex;
use crate::ir::Dim;

/// `|x|`
#[derive(Clone, Copy)]
pub struct Abs;
impl ActFn for Abs {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.abs(x)
    }
}
impl Function for Abs {
    const NAME: &'static str = "Abs";
    const SINCE: &'static [u16] = &[1, 6, 13];
    const INTS: Option<fn(i128) -> i128> = Some(i128::abs);
    const DIMS: Option<fn(&Dim) -> Dim> = Some(|d| match d {
        Dim::Known(n) => n.checked_abs().map_or(Dim::Unknown, Dim::Known),
        d if never_negative(d) => d.clone(),
        _ => Dim::Unknown,
    });
    const WITHIN: (f64, f64) = (0.0, 0.0);
    fn read(_: &NodeRef) -> Result<Abs, OpError> {
        Ok(Abs)
    }
    fn exact(self, x: f64) -> f64 {
        x.abs()
    }
    fn cases() -> Vec<Case> {
        vec![
            Case::new("many", [floats(&[40_001], 1)]),
            Case::new("old", [floats(&[3], 1)]).opset(1),
        ]
    }
    fn vjp<'a>(self, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        Some(dy * x.op("Sign", &[]))
    }
}

/// `-x`
#[derive(Clone, Copy)]
pub struct Neg;
impl ActFn for Neg {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.neg(x)
    }
}
impl Function for Neg {
    const NAME: &'static str = "Neg";
    const SINCE: &'static [u16] = &[1, 6, 13];
    const INTS: Option<fn(i128) -> i128> = Some(|x| -x);
    const DIMS: Option<fn(&Dim) -> Dim> = Some(|d| Dim::Known(0) - d.clone());
    const WITHIN: (f64, f64) = (0.0, 0.0);
    fn read(_: &NodeRef) -> Result<Neg, OpError> {
        Ok(Neg)
    }
    fn exact(self, x: f64) -> f64 {
        -x
    }
    fn vjp<'a>(self, _: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        Some(-dy)
    }
}

/// `1` above 0, `-1` below, else `x` itself
#[derive(Clone, Copy)]
pub struct Sign;
impl ActFn for Sign {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let zero = s.splat(0.0);
        let up = s.select(s.lt(zero, x), s.splat(1.0), x);
        s.select(s.lt(x, zero), s.splat(-1.0), up)
    }
}
impl Function for Sign {
    const NAME: &'static str = "Sign";
    const SINCE: &'static [u16] = &[9, 13];
    const INTS: Option<fn(i128) -> i128> = Some(i128::signum);
    const FLAT: bool = true;
    const WITHIN: (f64, f64) = (0.0, 0.0);
    fn read(_: &NodeRef) -> Result<Sign, OpError> {
        Ok(Sign)
    }
    fn exact(self, x: f64) -> f64 {
        if x == 0.0 { x } else { x.signum() }
    }
}

/// The greatest integer that is not above `x`
#[derive(Clone, Copy)]
pub struct Floor;
impl ActFn for Floor {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.floor(x)
    }
}
impl Function for Floor {
    const NAME: &'static str = "Floor";
    const SINCE: &'static [u16] = &[1, 6, 13];
    const FLAT: bool = true;
    const WITHIN: (f64, f64) = (0.0, 0.0);
    fn read(_: &NodeRef) -> Result<Floor, OpError> {
        Ok(Floor)
    }
    fn exact(self, x: f64) -> f64 {
        x.floor()
    }
}

/// The least integer that is not below `x`
#[derive(Clone, Copy)]
pub struct Ceil;
impl ActFn for Ceil {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.neg(s.floor(s.neg(x)))
    }
}
impl Function for Ceil {
    const NAME: &'static str = "Ceil";
    const SINCE: &'static [u16] = &[1, 6, 13];
    const FLAT: bool = true;
    const WITHIN: (f64, f64) = (0.0, 0.0);
    fn read(_: &NodeRef) -> Result<Ceil, OpError> {
        Ok(Ceil)
    }
    fn exact(self, x: f64) -> f64 {
        x.ceil()
    }
}

/// The nearest integer, ties to even
#[derive(Clone, Copy)]
pub struct Round;
impl ActFn for Round {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.round(x)
    }
}
impl Function for Round {
    const NAME: &'static str = "Round";
    const SINCE: &'static [u16] = &[11, 22];
    const FLAT: bool = true;
    const WITHIN: (f64, f64) = (0.0, 0.0);
    fn read(_: &NodeRef) -> Result<Round, OpError> {
        Ok(Round)
    }
    fn exact(self, x: f64) -> f64 {
        x.round_ties_even()
    }
}

/// The square root
#[derive(Clone, Copy)]
pub struct Sqrt;
impl ActFn for Sqrt {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.sqrt(x)
    }
}
impl Function for Sqrt {
    const NAME: &'static str = "Sqrt";
    const SINCE: &'static [u16] = &[1, 6, 13];
    const WITHIN: (f64, f64) = (0.0, 0.0);
    fn read(_: &NodeRef) -> Result<Sqrt, OpError> {
        Ok(Sqrt)
    }
    fn exact(self, x: f64) -> f64 {
        x.sqrt()
    }
    fn vjp<'a>(self, _: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        Some(dy / (y * 2.0))
    }
}

/// `1 / x`
#[derive(Clone, Copy)]
pub struct Reciprocal;
impl ActFn for Reciprocal {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.div(s.splat(1.0), x)
    }
}
impl Function for Reciprocal {
    const NAME: &'static str = "Reciprocal";
    const SINCE: &'static [u16] = &[1, 6, 13];
    const WITHIN: (f64, f64) = (0.0, 0.0);
    fn read(_: &NodeRef) -> Result<Reciprocal, OpError> {
        Ok(Reciprocal)
    }
    fn exact(self, x: f64) -> f64 {
        x.recip()
    }
    fn vjp<'a>(self, _: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        Some(-(dy * y * y))
    }
}

/// `e^x`
#[derive(Clone, Copy)]
pub struct Exp;
impl ActFn for Exp {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        math::exp(s, x)
    }
}
impl Function for Exp {
    const NAME: &'static str = "Exp";
    const SINCE: &'static [u16] = &[1, 6, 13];
    const WITHIN: (f64, f64) = (0.0, 3e-7);
    fn read(_: &NodeRef) -> Result<Exp, OpError> {
        Ok(Exp)
    }
    fn exact(self, x: f64) -> f64 {
        x.exp()
    }
    fn cases() -> Vec<Case> {
        vec![
            Case::new("many", [floats(&[40_001], 1)]),
            Case::new("old", [odd_floats(&[3, 7], 1)]).opset(1),
        ]
    }
    fn vjp<'a>(self, _: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        Some(dy * y)
    }
}

/// The natural logarithm
#[derive(Clone, Copy)]
pub struct Log;
impl ActFn for Log {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        math::log(s, x)
    }
}
impl Function for Log {
    const NAME: &'static str = "Log";
    const SINCE: &'static [u16] = &[1, 6, 13];
    const WITHIN: (f64, f64) = (0.0, 3e-7);
    fn read(_: &NodeRef) -> Result<Log, OpError> {
        Ok(Log)
    }
    fn exact(self, x: f64) -> f64 {
        x.ln()
    }
    fn vjp<'a>(self, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        Some(dy / x)
    }
}

/// The sine
#[derive(Clone, Copy)]
pub struct Sin;
impl ActFn for Sin {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        sin_shifted(s, x, 0)
    }
}
impl Function for Sin {
    const NAME: &'static str = "Sin";
    const SINCE: &'static [u16] = &[7, 22];
    const WITHIN: (f64, f64) = (1.5e-7, 2e-7);
    fn read(_: &NodeRef) -> Result<Sin, OpError> {
        Ok(Sin)
    }
    fn exact(self, x: f64) -> f64 {
        x.sin()
    }
    fn vjp<'a>(self, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        Some(dy * x.op("Cos", &[]))
    }
}

/// The cosine
#[derive(Clone, Copy)]
pub struct Cos;
impl ActFn for Cos {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        sin_shifted(s, x, 1)
    }
}
impl Function for Cos {
    const NAME: &'static str = "Cos";
    const SINCE: &'static [u16] = &[7, 22];
    const WITHIN: (f64, f64) = (1.5e-7, 2e-7);
    fn read(_: &NodeRef) -> Result<Cos, OpError> {
        Ok(Cos)
    }
    fn exact(self, x: f64) -> f64 {
        x.cos()
    }
    fn vjp<'a>(self, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        Some(-(dy * x.op("Sin", &[])))
    }
}

/// The error function
#[derive(Clone, Copy)]
pub struct Erf;
impl ActFn for Erf {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        math::erf(s, x)
    }
}
impl Function for Erf {
    const NAME: &'static str = "Erf";
    const SINCE: &'static [u16] = &[9, 13];
    const WITHIN: (f64, f64) = (1e-44, 4e-7);
    fn read(_: &NodeRef) -> Result<Erf, OpError> {
        Ok(Erf)
    }
    fn exact(self, x: f64) -> f64 {
        erf(x)
    }
    fn vjp<'a>(self, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        Some(dy * (-(x * x)).exp() * FRAC_2_SQRT_PI)
    }
}

/// The error function within 1e-15: `2/√π e^(-x²) Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1))`, whose terms have one sign.
pub(crate) fn erf(x: f64) -> f64 {
    if x.is_nan() || x.abs() > 6.0 {
        return if x.is_nan() { x } else { x.signum() };
    }
    let (mut term, mut sum, mut n) = (x, 0.0, 0.0);
    while sum + term != sum {
        sum += term;
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_is_what_tables_say() {
        for (x, y) in [
            (0.5, 0.520_499_877_813_046_5),
            (2.0, 0.995_322_265_018_952_7),
            (-1.0, -0.842_700_792_949_714_9),
        ] {
            assert!((erf(x) - y).abs() < 1e-15, "{x}: {}", erf(x));
        }
        assert!((erf(5.9) - 1.0).abs() < 1e-15);
    }
}
