//! Activations: functions of one element that kernels apply to what they have just computed.

mod post;

use secateur_simd::{Simd, math};

use crate::expr::Ex;
pub use post::{Ending, Post};

/// A function of one element, as code that the loops around it are compiled with.
pub trait ActFn: Copy + Send + Sync {
    /// The function in every lane. NaN gives NaN.
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32;

    /// The activation that it is, for kernels that end with one.
    fn act(self) -> Option<Act> {
        None
    }
}

/// Something to do with an activation that is known only at run time: compiled once for each.
pub trait WithAct {
    /// What comes out.
    type Out;
    /// Does it.
    fn call<A: ActFn>(self, act: A) -> Self::Out;
}

macro_rules! acts {
    ($($(#[$doc:meta])* $name:ident $({ $($field:ident),* })? $op:literal |$s:ident, $x:ident| $body:expr;)*) => {
        /// An activation with its parameters.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Act {
            /// The element itself.
            None,
            $($(#[$doc])* $name $({ $(#[doc = concat!("`", stringify!($field), "` in the formula")] $field: f32),* })?,)*
        }

        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $name {
                $($(#[doc = concat!("`", stringify!($field), "` in the formula")] pub $field: f32),*)?
            }

            impl ActFn for $name {
                #[inline(always)]
                fn apply<S: Simd>(self, $s: S, $x: S::F32) -> S::F32 {
                    let Self { $($($field),*)? } = self;
                    $body
                }

                fn act(self) -> Option<Act> {
                    let Self { $($($field),*)? } = self;
                    Some(Act::$name { $($($field),*)? })
                }
            }
        )*

        impl Act {
            /// Calls `with` with the activation's code.
            pub fn with<W: WithAct>(self, with: W) -> W::Out {
                match self {
                    Act::None => with.call(Identity),
                    $(Act::$name { $($($field),*)? } => with.call($name { $($($field),*)? }),)*
                }
            }

            /// The activation of the ONNX operator `op`, its float attributes (`Clip`: its bounds) in the order of the
            /// specification in `params`. `GeluTanh` is `Gelu` approximated by `tanh`.
            pub fn named(op: &str, params: &[f32]) -> Option<Act> {
                match (op, params) {
                    $(($op, &[$($($field),*)?]) => Some(Act::$name { $($($field),*)? }),)*
                    _ => None,
                }
            }

            /// The operator and parameters of which [`named`](Act::named) makes it; `None` for [`Act::None`].
            pub fn name(self) -> Option<(&'static str, Vec<f32>)> {
                match self {
                    Act::None => None,
                    $(Act::$name { $($($field),*)? } => Some(($op, vec![$($($field),*)?])),)*
                }
            }
        }
    };
}

acts! {
    /// `max(x, 0)`
    Relu "Relu" |s, x| s.max(s.splat(0.0), x);
    /// `min(max(x, lo), hi)`
    Clip { lo, hi } "Clip" |s, x| s.min(s.splat(hi), s.max(s.splat(lo), x));
    /// `x`, below 0 `alpha x`
    LeakyRelu { alpha } "LeakyRelu" |s, x| s.select(s.lt(x, s.splat(0.0)), s.mul(s.splat(alpha), x), x);
    /// `x` above `alpha`, else 0
    ThresholdedRelu { alpha } "ThresholdedRelu" |s, x| {
        let nan = s.select(s.eq(x, x), s.splat(0.0), x);
        s.select(s.lt(s.splat(alpha), x), x, nan)
    };
    /// `max(0, min(1, alpha x + beta))`
    HardSigmoid { alpha, beta } "HardSigmoid" |s, x| hard_sigmoid(s, x, alpha, beta);
    /// `x max(0, min(1, x / 6 + 1/2))`
    HardSwish "HardSwish" |s, x| s.mul(x, hard_sigmoid(s, x, 1.0 / 6.0, 0.5));
    /// `1 / (1 + e^-x)`
    Sigmoid "Sigmoid" |s, x| math::sigmoid(s, x);
    /// `tanh x`
    Tanh "Tanh" |s, x| math::tanh(s, x);
    /// `x / (1 + e^(-alpha x))`
    Silu { alpha } "Swish" |s, x| s.mul(x, math::sigmoid(s, s.mul(s.splat(alpha), x)));
    /// `x / 2 (1 + erf(x / √2))`
    Gelu "Gelu" |s, x| {
        let half = s.mul(s.splat(0.5), x);
        s.fma(half, math::erf(s, s.mul(s.splat(std::f32::consts::FRAC_1_SQRT_2), x)), half)
    };
    /// `x / 2 (1 + tanh(√(2 / π) (x + 0.044715 x³)))`
    GeluTanh "GeluTanh" |s, x| {
        let half = s.mul(s.splat(0.5), x);
        let poly = s.fma(s.mul(x, x), s.splat(0.797_884_6 * 0.044_715), s.splat(0.797_884_6));
        s.fma(half, math::tanh(s, s.mul(x, poly)), half)
    };
    /// `x`, below 0 `alpha (e^x - 1)`
    Elu { alpha } "Elu" |s, x| s.select(s.lt(x, s.splat(0.0)), s.mul(s.splat(alpha), expm1_negative(s, x)), x);
    /// `x`, below 0 `alpha (e^(x / alpha) - 1)`
    Celu { alpha } "Celu" |s, x| {
        let below = s.mul(s.splat(alpha), expm1_negative(s, s.div(x, s.splat(alpha))));
        s.select(s.lt(x, s.splat(0.0)), below, x)
    };
    /// `gamma x`, below 0 `gamma alpha (e^x - 1)`
    Selu { alpha, gamma } "Selu" |s, x| {
        let below = s.mul(s.splat(alpha), expm1_negative(s, x));
        s.mul(s.splat(gamma), s.select(s.lt(x, s.splat(0.0)), below, x))
    };
    /// `ln(1 + e^x)`
    Softplus "Softplus" |s, x| {
        // ln(1 + e) for 0 < e <= 1: what 1 + e loses of e is put back as a factor.
        let (one, e) = (s.splat(1.0), math::exp(s, s.neg(s.abs(x))));
        let sum = s.add(one, e);
        let log = s.div(s.mul(math::log(s, sum), e), s.sub(sum, one));
        s.add(s.max(s.splat(0.0), x), s.select(s.eq(sum, one), e, log))
    };
    /// `x / (1 + |x|)`
    Softsign "Softsign" |s, x| s.div(x, s.add(s.splat(1.0), s.abs(x)));
    /// `x tanh(ln(1 + e^x))`
    Mish "Mish" |s, x| {
        // tanh(ln(1 + e)) = e (e + 2) / (e (e + 2) + 2), which is 1 beyond 20.
        let e = math::exp(s, s.min(s.splat(20.0), x));
        let n = s.mul(e, s.add(e, s.splat(2.0)));
        s.mul(x, s.div(n, s.add(n, s.splat(2.0))))
    };
}

#[derive(Clone, Copy)]
struct Identity;
impl ActFn for Identity {
    #[inline(always)]
    fn apply<S: Simd>(self, _: S, x: S::F32) -> S::F32 {
        x
    }
}

#[inline(always)]
fn hard_sigmoid<S: Simd>(s: S, x: S::F32, alpha: f32, beta: f32) -> S::F32 {
    let line = s.fma(s.splat(alpha), x, s.splat(beta));
    s.max(s.splat(0.0), s.min(s.splat(1.0), line))
}

/// `e^x - 1` for `x <= 0`, also where it is near 0: `2 t / (1 - t)` with `t = tanh(x / 2)`.
#[inline(always)]
fn expm1_negative<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let t = math::tanh(s, s.mul(s.splat(0.5), x));
    s.div(s.add(t, t), s.sub(s.splat(1.0), t))
}

impl Act {
    /// Applies it to each element.
    pub fn apply(self, x: &mut [f32]) {
        self.with(Slice(x));
    }

    /// The activation in ONNX operators that are in opset 9 already.
    pub fn body<'a>(self, x: Ex<'a>) -> Ex<'a> {
        let zero = || x.constant(0.0);
        let sigmoid = |alpha: f32| {
            if alpha == 1.0 {
                x.sigmoid()
            } else {
                (x * f64::from(alpha)).sigmoid()
            }
        };
        let gate = |alpha: f64, beta: f64| {
            (x * alpha + beta)
                .op("Max", &[zero()])
                .op("Min", &[x.constant(1.0)])
        };
        let half = |y: Ex<'a>| (x * 0.5) * (y + 1.0);
        let floats = |op: &str| match self.name() {
            Some((_, params)) => {
                let names = ["alpha", if op == "Selu" { "gamma" } else { "beta" }];
                let attrs = names.iter().zip(params).map(|(n, p)| crate::ir::Attr::new(*n, p));
                x.with(op, &[], attrs.collect())
            }
            None => x,
        };
        match self {
            Act::None => x,
            Act::Clip { lo, hi } => x
                .op("Max", &[x.constant(lo.into())])
                .op("Min", &[x.constant(hi.into())]),
            Act::HardSwish => x * gate(1.0 / 6.0, 0.5),
            Act::Silu { alpha } => x * sigmoid(alpha),
            Act::Gelu => half((x * std::f64::consts::FRAC_1_SQRT_2).erf()),
            Act::GeluTanh => {
                let cubic = x * ((x * x) * 0.044715 + 1.0);
                half((cubic * (2.0 / std::f64::consts::PI).sqrt()).tanh())
            }
            Act::Mish => x * x.op("Softplus", &[]).tanh(),
            Act::Celu { alpha } => {
                let below = x.op("Min", &[zero()]) / x.constant(alpha.into());
                x.op("Max", &[zero()]) + below.op("Elu", &[]) * f64::from(alpha)
            }
            Act::Relu => x.op("Relu", &[]),
            Act::LeakyRelu { .. } => floats("LeakyRelu"),
            Act::ThresholdedRelu { .. } => floats("ThresholdedRelu"),
            Act::HardSigmoid { .. } => floats("HardSigmoid"),
            Act::Sigmoid => x.sigmoid(),
            Act::Tanh => x.tanh(),
            Act::Elu { .. } => floats("Elu"),
            Act::Selu { .. } => floats("Selu"),
            Act::Softplus => x.op("Softplus", &[]),
            Act::Softsign => x.op("Softsign", &[]),
        }
    }
}

struct Slice<'a>(&'a mut [f32]);

impl WithAct for Slice<'_> {
    type Out = ();
    fn call<A: ActFn>(self, act: A) {
        super::elementwise::map_slice(self.0, act);
    }
}

#[cfg(test)]
mod tests;
