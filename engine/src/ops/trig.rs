//! Circular and hyperbolic functions and their inverses.

use secateur_simd::Simd;

use super::pointwise::Function;
use super::{NodeRef, OpError};
use crate::cpu::act::ActFn;
use crate::cpu::trig::by_lane;
use crate::expr::Ex;

fn root(x: Ex<'_>) -> Ex<'_> {
    x.op("Sqrt", &[])
}

/// Functions that are computed as doubles, element by element: they are rare, and few double instructions would help.
macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident $since:expr, $exact:expr, $slope:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name;
        impl ActFn for $name {
            #[inline(always)]
            fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
                by_lane(s, x, |x| self.exact(x.into()) as f32)
            }
        }
        impl Function for $name {
            const NAME: &'static str = stringify!($name);
            const SINCE: &'static [u16] = $since;
            const WITHIN: (f64, f64) = (0.0, 1e-7);
            fn read(_: &NodeRef) -> Result<$name, OpError> {
                Ok($name)
            }
            fn exact(self, x: f64) -> f64 {
                let f: fn(f64) -> f64 = $exact;
                f(x)
            }
            fn vjp<'a>(self, x: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
                let slope: for<'e> fn(Ex<'e>, Ex<'e>, Ex<'e>) -> Ex<'e> = $slope;
                Some(slope(x, y, dy))
            }
        }
    )*};
}
functions! {
    /// The angle whose cosine is `x`
    Acos &[7, 22], f64::acos, |x, _, dy| -(dy / root(-(x * x - 1.0)));
    /// The number whose hyperbolic cosine is `x`
    Acosh &[9, 22], f64::acosh, |x, _, dy| dy / root(x * x - 1.0);
    /// The angle whose sine is `x`
    Asin &[7, 22], f64::asin, |x, _, dy| dy / root(-(x * x - 1.0));
    /// The number whose hyperbolic sine is `x`
    Asinh &[9, 22], f64::asinh, |x, _, dy| dy / root(x * x + 1.0);
    /// The angle whose tangent is `x`
    Atan &[7, 22], f64::atan, |x, _, dy| dy / (x * x + 1.0);
    /// The number whose hyperbolic tangent is `x`
    Atanh &[9, 22], f64::atanh, |x, _, dy| -(dy / (x * x - 1.0));
    /// The hyperbolic cosine
    Cosh &[9, 22], f64::cosh, |x, _, dy| dy * x.op("Sinh", &[]);
    /// The hyperbolic sine
    Sinh &[9, 22], f64::sinh, |x, _, dy| dy * x.op("Cosh", &[]);
    /// The tangent
    Tan &[7, 22], f64::tan, |_, y, dy| dy * (y * y + 1.0);
}
