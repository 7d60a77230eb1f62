//! Elementary functions on vectors.
//!
//! Each states its greatest error as a constant, in units in the last place of the exact result (rounding alone costs up
//! to 0.5). The tests measure it with every set against 64-bit references, over a sample and, if asked, over all floats;
//! the constant is their tolerance. Results may differ within it between a set with a fused multiply-add and one without.

use crate::isa::Simd;

/// The greatest error of [`exp`] in ulp.
pub const EXP_ULP: f64 = 1.2;
/// The greatest error of [`log`] in ulp.
pub const LOG_ULP: f64 = 1.1;
/// The greatest error of [`tanh`] in ulp.
pub const TANH_ULP: f64 = 2.75;
/// The greatest error of [`sigmoid`] in ulp.
pub const SIGMOID_ULP: f64 = 2.5;
/// The greatest error of [`erf`] in ulp.
pub const ERF_ULP: f64 = 2.75;

/// 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
const SHIFT: f32 = 12582912.0;
/// The first 15 bits of ln 2: its products with small integers are exact, without a fused multiply-add too.
const LN_2_HIGH: f32 = 0.69314575;
/// `ln 2 - LN_2_HIGH`
const LN_2_LOW: f32 = 1.4286068e-6;

/// `e^x` within [`EXP_ULP`], denormal results included; 0 and infinity where it leaves the range of floats.
///
/// `2^n e^r` with the integer `n` nearest to `x / ln 2` and `|r| <= ln 2 / 2`, reduced in two steps (Cody and Waite),
/// and a minimax polynomial of degree 6.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // Beyond these the result is 0 or infinity whatever `x`.
    let x = clamp(s, x, -104.0, 89.0);
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(SHIFT + 254.0));
    let n = s.sub(shifted, s.splat(SHIFT + 254.0));
    let r = s.fma(n, s.splat(-LN_2_HIGH), x);
    let r = s.fma(n, s.splat(-LN_2_LOW), r);
    let c = [
        1.0,
        1.0,
        0.49999994,
        0.16666521,
        0.04166839,
        0.008368712,
        0.0013814608,
    ];
    let y = polynomial(s, r, c);
    // `2^n` in two factors, since it may itself be out of range where the result is not; the second rounds.
    let n = s.bits(shifted);
    let half = s.shr_i32::<1>(n);
    let rest = s.sub_i32(n, half);
    let y = s.mul(y, s.from_bits(s.shl_i32::<23>(half)));
    s.mul(y, s.from_bits(s.shl_i32::<23>(rest)))
}

/// `ln x` within [`LOG_ULP`], denormal arguments included; `-inf` for zeros, NaN below.
///
/// `n ln 2 + ln(1 + f)` with `-1/3 <= f < 1/3` and a minimax polynomial of degree 10.
#[inline(always)]
pub fn log<S: Simd>(s: S, x: S::F32) -> S::F32 {
    const TWO_THIRDS: i32 = 0x3f2a_aaab;
    let (zero, infinity) = (s.splat(0.0), s.splat(f32::INFINITY));
    let denormal = s.lt(x, s.splat(f32::MIN_POSITIVE));
    let normal = s.select(denormal, s.mul(x, s.splat(8388608.0)), x); // times 2^23
    let bits = s.bits(normal);
    let n = s.shr_i32::<23>(s.sub_i32(bits, s.splat_i32(TWO_THIRDS)));
    let f = s.sub(s.from_bits(s.sub_i32(bits, s.shl_i32::<23>(n))), s.splat(1.0));
    let n = s.add(s.to_f32(n), s.select(denormal, s.splat(-23.0), zero));
    let c = [
        -0.5,
        0.33333215,
        -0.24999797,
        0.20010406,
        -0.16680488,
        0.1400587,
        -0.12184262,
        0.13984436,
        -0.12891681,
    ];
    let y = s.fma(polynomial(s, f, c), s.mul(f, f), f);
    let y = s.fma(n, s.splat(std::f32::consts::LN_2), y);
    let y = s.select(s.lt(x, infinity), y, infinity);
    let outside = s.select(s.eq(x, zero), s.splat(f32::NEG_INFINITY), s.splat(f32::NAN));
    s.select(s.lt(zero, x), y, outside)
}

/// `tanh x` within [`TANH_ULP`], and never beyond 1.
///
/// `u / (2 - u)` with `u = 1 - e^(-2|x|)`, and the sign of `x`.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let a = s.min(s.splat(10.0), s.abs(x));
    let u = one_minus_exp_neg(s, s.add(a, a));
    copysign(s, s.div(u, s.sub(s.splat(2.0), u)), x)
}

/// The logistic function `1 / (1 + e^-x)` within [`SIGMOID_ULP`], also where it is near 0.
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let one = s.splat(1.0);
    let e = exp(s, s.neg(s.abs(x)));
    s.div(s.select(s.lt(x, s.splat(0.0)), e, one), s.add(one, e))
}

/// The error function within [`ERF_ULP`], and never beyond 1.
///
/// `1 - e^(-|x| g(|x|))` with a minimax polynomial `g` of degree 8, and the sign of `x`.
#[inline(always)]
pub fn erf<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let a = s.min(s.splat(3.95), s.abs(x));
    let c = [
        0.0033791708,
        0.6366194,
        0.10277783,
        -0.019153064,
        -0.00016039544,
        0.0016670267,
        -0.00063283637,
        0.000117641124,
        -9.256248e-6,
    ];
    // The first term is 9/8 + c[0], since its rounding to one float would be the greatest error.
    let z = s.fma(a, s.splat(1.125), s.mul(a, polynomial(s, a, c)));
    copysign(s, one_minus_exp_neg(s, z), x)
}

/// The lesser of `a` and `b`; NaN where either is NaN. Of two zeros, either.
#[inline(always)]
pub fn min_nan<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32 {
    s.select(s.eq(a, a), s.min(a, b), a)
}

/// The greater of `a` and `b`; NaN where either is NaN. Of two zeros, either.
#[inline(always)]
pub fn max_nan<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32 {
    s.select(s.eq(a, a), s.max(a, b), a)
}

/// `1 - e^-z` with a small relative error, for `0 <= z < 80`.
#[inline(always)]
fn one_minus_exp_neg<S: Simd>(s: S, z: S::F32) -> S::F32 {
    const BIASED: f32 = SHIFT + 127.0;
    let shifted = s.fma(z, s.splat(-std::f32::consts::LOG2_E), s.splat(BIASED));
    let n = s.sub(shifted, s.splat(BIASED));
    let r = s.fma(n, s.splat(LN_2_HIGH), z);
    let r = s.fma(n, s.splat(LN_2_LOW), r);
    let c = [-0.49999997, 0.16666543, -0.0416672, 0.00836653, -0.0013882519];
    let m = s.fma(polynomial(s, r, c), s.mul(r, r), r);
    let scale = s.from_bits(s.shl_i32::<23>(s.bits(shifted)));
    s.fma(scale, m, s.sub(s.splat(1.0), scale))
}

/// `a >= 0` with the sign of `b`
#[inline(always)]
fn copysign<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32 {
    s.from_bits(s.or_i32(s.bits(a), s.and_i32(s.bits(b), s.splat_i32(i32::MIN))))
}

/// `c[0] + c[1] x + c[2] x^2 + …`
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F32, c: [f32; N]) -> S::F32 {
    let mut y = s.splat(c[N - 1]);
    for &c in c[..N - 1].iter().rev() {
        y = s.fma(y, x, s.splat(c));
    }
    y
}

/// `x` within `low..=high`; NaN stays.
#[inline(always)]
fn clamp<S: Simd>(s: S, x: S::F32, low: f32, high: f32) -> S::F32 {
    s.max(s.splat(low), s.min(s.splat(high), x))
}

#[cfg(test)]
mod tests;
