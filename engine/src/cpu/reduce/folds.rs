//! What elements contribute to a fold, and how the contributions are joined.

use secateur_simd::{Simd, math};

/// A function of two numbers by which many are folded.
pub trait Join: Copy + Send + Sync + 'static {
    /// The fold of nothing.
    const START: f64;
    /// The fold of no integers.
    const NONE: i128;
    /// Of vectors.
    fn join<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32;
    /// Of doubles.
    fn real(a: f64, b: f64) -> f64;
    /// Of integers.
    fn int(a: i128, b: i128) -> i128;
}

/// What an element contributes.
pub trait Term: Copy + Send + Sync + 'static {
    /// Whether elements are measured from their greatest, which the output holds already.
    const SHIFTED: bool = false;
    /// The element that contributes 0.
    const ZERO: f32 = 0.0;
    /// Of vectors; `shift` is the greatest.
    fn term<S: Simd>(s: S, x: S::F32, shift: S::F32) -> S::F32;
    /// Of doubles.
    fn real(x: f64, shift: f64) -> f64;
    /// Of integers.
    fn int(x: i128) -> i128;
}

/// Addition.
#[derive(Clone, Copy)]
pub struct Plus;
impl Join for Plus {
    const START: f64 = 0.0;
    const NONE: i128 = 0;
    #[inline(always)]
    fn join<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32 {
        s.add(a, b)
    }
    fn real(a: f64, b: f64) -> f64 {
        a + b
    }
    fn int(a: i128, b: i128) -> i128 {
        a.wrapping_add(b)
    }
}

/// Multiplication.
#[derive(Clone, Copy)]
pub struct Times;
impl Join for Times {
    const START: f64 = 1.0;
    const NONE: i128 = 1;
    #[inline(always)]
    fn join<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32 {
        s.mul(a, b)
    }
    fn real(a: f64, b: f64) -> f64 {
        a * b
    }
    fn int(a: i128, b: i128) -> i128 {
        a.wrapping_mul(b)
    }
}

/// The greater; NaN where either is.
#[derive(Clone, Copy)]
pub struct Greatest;
impl Join for Greatest {
    const START: f64 = f64::NEG_INFINITY;
    const NONE: i128 = i128::MIN;
    #[inline(always)]
    fn join<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32 {
        math::max_nan(s, a, b)
    }
    fn real(a: f64, b: f64) -> f64 {
        if a > b || a.is_nan() { a } else { b }
    }
    fn int(a: i128, b: i128) -> i128 {
        a.max(b)
    }
}

/// The lesser; NaN where either is.
#[derive(Clone, Copy)]
pub struct Least;
impl Join for Least {
    const START: f64 = f64::INFINITY;
    const NONE: i128 = i128::MAX;
    #[inline(always)]
    fn join<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32 {
        math::min_nan(s, a, b)
    }
    fn real(a: f64, b: f64) -> f64 {
        if a < b || a.is_nan() { a } else { b }
    }
    fn int(a: i128, b: i128) -> i128 {
        a.min(b)
    }
}

/// The element itself.
#[derive(Clone, Copy)]
pub struct Itself;
impl Term for Itself {
    #[inline(always)]
    fn term<S: Simd>(_: S, x: S::F32, _: S::F32) -> S::F32 {
        x
    }
    fn real(x: f64, _: f64) -> f64 {
        x
    }
    fn int(x: i128) -> i128 {
        x
    }
}

/// Its size.
#[derive(Clone, Copy)]
pub struct Size;
impl Term for Size {
    #[inline(always)]
    fn term<S: Simd>(s: S, x: S::F32, _: S::F32) -> S::F32 {
        s.abs(x)
    }
    fn real(x: f64, _: f64) -> f64 {
        x.abs()
    }
    fn int(x: i128) -> i128 {
        x.abs()
    }
}

/// Its square.
#[derive(Clone, Copy)]
pub struct Square;
impl Term for Square {
    #[inline(always)]
    fn term<S: Simd>(s: S, x: S::F32, _: S::F32) -> S::F32 {
        s.mul(x, x)
    }
    fn real(x: f64, _: f64) -> f64 {
        x * x
    }
    fn int(x: i128) -> i128 {
        x.wrapping_mul(x)
    }
}

/// Its exponential, measured from the greatest.
#[derive(Clone, Copy)]
pub struct Exponential;
impl Term for Exponential {
    const SHIFTED: bool = true;
    const ZERO: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn term<S: Simd>(s: S, x: S::F32, shift: S::F32) -> S::F32 {
        math::exp(s, s.sub(x, shift))
    }
    fn real(x: f64, shift: f64) -> f64 {
        (x - shift).exp()
    }
    fn int(x: i128) -> i128 {
        x
    }
}
