//! Activations. Their vector forms, with which other kernels end too, are in [`act`].

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI, FRAC_2_SQRT_PI, SQRT_2};

use secateur_simd::Simd;

use super::case::floats;
use super::grad::{only, unless};
use super::pointwise::Function;
use super::{Case, NodeRef, OpError};
use crate::cpu::act::{self, ActFn};
use crate::expr::Ex;
use crate::ir::Attr;

/// Opsets of the activations that are as old as ONNX.
const OLD: &[u16] = &[1, 6, 13];
/// Those of the ones that learnt `bfloat16` late.
const LATE: &[u16] = &[1, 6, 22];

impl Function for act::Relu {
    const NAME: &'static str = "Relu";
    const SINCE: &'static [u16] = &[1, 6, 13, 14];
    const INTS: Option<fn(i128) -> i128> = Some(|x| x.max(0));
    const WITHIN: (f64, f64) = (0.0, 0.0);
    fn read(_: &NodeRef) -> Result<Self, OpError> {
        Ok(act::Relu {})
    }
    fn exact(self, x: f64) -> f64 {
        if x < 0.0 { 0.0 } else { x }
    }
    fn cases() -> Vec<Case> {
        vec![
            Case::new("many", [floats(&[40_001], 1)]),
            Case::new("old", [floats(&[3], 1)]).opset(1),
        ]
    }
    fn vjp<'a>(self, _: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        // NaN passes the gradient on.
        Some(unless(y.op("LessOrEqual", &[y.constant(0.0)]), dy))
    }
}

impl Function for act::LeakyRelu {
    const NAME: &'static str = "LeakyRelu";
    const SINCE: &'static [u16] = &[1, 6, 16];
    const WITHIN: (f64, f64) = (0.0, 2e-7);
    fn read(n: &NodeRef) -> Result<Self, OpError> {
        Ok(act::LeakyRelu {
            alpha: n.float_or("alpha", 0.01)?,
        })
    }
    fn exact(self, x: f64) -> f64 {
        if x < 0.0 { f64::from(self.alpha) * x } else { x }
    }
    fn cases() -> Vec<Case> {
        vec![Case::new("alpha", [floats(&[37], 1)]).attr("alpha", -0.3)]
    }
    fn vjp<'a>(self, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        let above = x.op("Greater", &[x.constant(0.0)]);
        Some(above.op("Where", &[dy, dy * f64::from(self.alpha)]))
    }
}

impl Function for act::ThresholdedRelu {
    const NAME: &'static str = "ThresholdedRelu";
    const SINCE: &'static [u16] = &[10, 22];
    const WITHIN: (f64, f64) = (0.0, 0.0);
    fn read(n: &NodeRef) -> Result<Self, OpError> {
        Ok(act::ThresholdedRelu {
            alpha: n.float_or("alpha", 1.0)?,
        })
    }
    fn exact(self, x: f64) -> f64 {
        if x <= self.alpha.into() { 0.0 } else { x }
    }
    fn cases() -> Vec<Case> {
        vec![Case::new("alpha", [floats(&[37], 1)]).attr("alpha", -0.5)]
    }
    fn vjp<'a>(self, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        let bound = x.constant(self.alpha.into());
        Some(unless(x.op("LessOrEqual", &[bound]), dy))
    }
}

impl Function for act::Elu {
    const NAME: &'static str = "Elu";
    const SINCE: &'static [u16] = LATE;
    const WITHIN: (f64, f64) = (0.0, 1e-6);
    fn read(n: &NodeRef) -> Result<Self, OpError> {
        Ok(act::Elu {
            alpha: n.float_or("alpha", 1.0)?,
        })
    }
    fn exact(self, x: f64) -> f64 {
        if x < 0.0 {
            f64::from(self.alpha) * x.exp_m1()
        } else {
            x
        }
    }
    fn cases() -> Vec<Case> {
        vec![Case::new("alpha", [floats(&[37], 1)]).attr("alpha", 2.5)]
    }
    fn vjp<'a>(self, x: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        let above = x.op("Greater", &[x.constant(0.0)]);
        Some(above.op("Where", &[dy, dy * (y + f64::from(self.alpha))]))
    }
}

impl Function for act::Selu {
    const NAME: &'static str = "Selu";
    const SINCE: &'static [u16] = LATE;
    const WITHIN: (f64, f64) = (5e-7, 5e-7);
    fn read(n: &NodeRef) -> Result<Self, OpError> {
        let (alpha, gamma) = selu(n);
        Ok(act::Selu {
            alpha: n.float_or("alpha", alpha)?,
            gamma: n.float_or("gamma", gamma)?,
        })
    }
    fn exact(self, x: f64) -> f64 {
        let y = if x < 0.0 {
            f64::from(self.alpha) * x.exp_m1()
        } else {
            x
        };
        f64::from(self.gamma) * y
    }
    fn body<'a>(n: &NodeRef, x: Ex<'a>) -> Option<Ex<'a>> {
        let (alpha, gamma) = selu(n);
        let zero = x.constant(0.0);
        // Whatever the sign of alpha.
        let below = (x.op("Min", &[zero]).exp() - 1.0) * x.attr("alpha", alpha);
        Some((x.op("Max", &[zero]) + below) * x.attr("gamma", gamma))
    }
    fn cases() -> Vec<Case> {
        vec![
            Case::new("old", [floats(&[37], 1)]).opset(1),
            Case::new("both", [floats(&[37], 1)])
                .attr("alpha", 2.5)
                .attr("gamma", 0.5),
        ]
    }
    fn vjp<'a>(self, x: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        let (alpha, gamma) = (f64::from(self.alpha), f64::from(self.gamma));
        let above = x.op("Greater", &[x.constant(0.0)]);
        Some(above.op("Where", &[dy * gamma, dy * (y + alpha * gamma)]))
    }
}

/// The defaults of `alpha` and `gamma`.
fn selu(n: &NodeRef) -> (f32, f32) {
    match n.opset() {
        ..6 => (1.6732, 1.0507),
        _ => (1.673_263_2, 1.050_701),
    }
}

impl Function for act::Celu {
    const NAME: &'static str = "Celu";
    const SINCE: &'static [u16] = &[12];
    const WITHIN: (f64, f64) = (5e-7, 5e-7);
    fn read(n: &NodeRef) -> Result<Self, OpError> {
        let alpha = n.float_or("alpha", 1.0)?;
        match alpha > 0.0 && alpha.is_finite() {
            true => Ok(act::Celu { alpha }),
            false => Err(OpError::new(format!(
                "attribute \"alpha\" is {alpha}; expected a number above 0"
            ))),
        }
    }
    fn exact(self, x: f64) -> f64 {
        let alpha = f64::from(self.alpha);
        if x < 0.0 { alpha * (x / alpha).exp_m1() } else { x }
    }
    fn body<'a>(_: &NodeRef, x: Ex<'a>) -> Option<Ex<'a>> {
        let (zero, alpha) = (x.constant(0.0), x.attr("alpha", 1.0));
        // `Elu` is exact near 0, where one less than an exponential is not.
        let below = (x.op("Min", &[zero]) / alpha).op("Elu", &[]) * alpha;
        Some(x.op("Max", &[zero]) + below)
    }
    fn cases() -> Vec<Case> {
        let case = |name, alpha: f32| Case::new(name, [floats(&[37], 1)]).attr("alpha", alpha);
        vec![
            case("alpha", 2.5),
            case("a large alpha", 1e6),
            case("the largest alpha", f32::MAX),
            case("the smallest alpha", f32::MIN_POSITIVE),
        ]
    }
    fn vjp<'a>(self, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        let above = x.op("Greater", &[x.constant(0.0)]);
        let below = dy * (x / f64::from(self.alpha)).exp();
        Some(above.op("Where", &[dy, below]))
    }
}

impl Function for act::Sigmoid {
    const NAME: &'static str = "Sigmoid";
    const SINCE: &'static [u16] = OLD;
    const WITHIN: (f64, f64) = (1e-44, 4e-7);
    fn read(_: &NodeRef) -> Result<Self, OpError> {
        Ok(act::Sigmoid {})
    }
    fn exact(self, x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }
    fn vjp<'a>(self, _: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        Some(dy * (y * (y.constant(1.0) - y)))
    }
}

impl Function for act::HardSigmoid {
    const NAME: &'static str = "HardSigmoid";
    const SINCE: &'static [u16] = LATE;
    const WITHIN: (f64, f64) = (1e-7, 1e-6);
    fn read(n: &NodeRef) -> Result<Self, OpError> {
        Ok(act::HardSigmoid {
            alpha: n.float_or("alpha", 0.2)?,
            beta: n.float_or("beta", 0.5)?,
        })
    }
    fn exact(self, x: f64) -> f64 {
        (f64::from(self.alpha) * x + f64::from(self.beta)).clamp(0.0, 1.0)
    }
    fn cases() -> Vec<Case> {
        vec![
            Case::new("both", [floats(&[37], 1)])
                .attr("alpha", 0.7)
                .attr("beta", 0.1),
        ]
    }
    fn vjp<'a>(self, _: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        let (above, below) = (y.constant(0.0), y.constant(1.0));
        let inside = y.op("Greater", &[above]).op("And", &[y.op("Less", &[below])]);
        Some(only(inside, dy * f64::from(self.alpha)))
    }
}

impl Function for act::HardSwish {
    const NAME: &'static str = "HardSwish";
    const SINCE: &'static [u16] = &[14, 22];
    const WITHIN: (f64, f64) = (1e-6, 1e-6);
    fn read(_: &NodeRef) -> Result<Self, OpError> {
        Ok(act::HardSwish {})
    }
    fn exact(self, x: f64) -> f64 {
        x * (x / 6.0 + 0.5).clamp(0.0, 1.0)
    }
    fn body<'a>(_: &NodeRef, x: Ex<'a>) -> Option<Ex<'a>> {
        let attrs = vec![Attr::new("alpha", 1.0f32 / 6.0), Attr::new("beta", 0.5)];
        Some(x * x.with("HardSigmoid", &[], attrs))
    }
}

impl Function for act::Tanh {
    const NAME: &'static str = "Tanh";
    const SINCE: &'static [u16] = OLD;
    const WITHIN: (f64, f64) = (1e-44, 4e-7);
    fn read(_: &NodeRef) -> Result<Self, OpError> {
        Ok(act::Tanh {})
    }
    fn exact(self, x: f64) -> f64 {
        x.tanh()
    }
    fn vjp<'a>(self, _: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        Some(dy * (y.constant(1.0) - y * y))
    }
}

impl Function for act::Softplus {
    const NAME: &'static str = "Softplus";
    const SINCE: &'static [u16] = &[1, 22];
    const WITHIN: (f64, f64) = (0.0, 1e-6);
    fn read(_: &NodeRef) -> Result<Self, OpError> {
        Ok(act::Softplus {})
    }
    fn exact(self, x: f64) -> f64 {
        let above = if x < 0.0 { 0.0 } else { x };
        above + (-x.abs()).exp().ln_1p()
    }
    fn vjp<'a>(self, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        Some(dy * x.sigmoid())
    }
}

impl Function for act::Softsign {
    const NAME: &'static str = "Softsign";
    const SINCE: &'static [u16] = &[1, 22];
    const WITHIN: (f64, f64) = (0.0, 2e-7);
    fn read(_: &NodeRef) -> Result<Self, OpError> {
        Ok(act::Softsign {})
    }
    fn exact(self, x: f64) -> f64 {
        x / (1.0 + x.abs())
    }
    fn body<'a>(_: &NodeRef, x: Ex<'a>) -> Option<Ex<'a>> {
        Some(x / (x.op("Abs", &[]) + 1.0))
    }
    fn vjp<'a>(self, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        let below = x.op("Abs", &[]) + 1.0;
        Some(dy / (below * below))
    }
}

impl Function for act::Mish {
    const NAME: &'static str = "Mish";
    const SINCE: &'static [u16] = &[18, 22];
    const WITHIN: (f64, f64) = (0.0, 1e-6);
    fn read(_: &NodeRef) -> Result<Self, OpError> {
        Ok(act::Mish {})
    }
    fn exact(self, x: f64) -> f64 {
        x * act::Softplus {}.exact(x).tanh()
    }
    fn body<'a>(_: &NodeRef, x: Ex<'a>) -> Option<Ex<'a>> {
        Some(x * x.op("Softplus", &[]).tanh())
    }
}

/// `Swish` is what others call SiLU, with a factor.
impl Function for act::Silu {
    const NAME: &'static str = "Swish";
    const SINCE: &'static [u16] = &[24];
    const WITHIN: (f64, f64) = (1e-44, 1e-6);
    fn read(n: &NodeRef) -> Result<Self, OpError> {
        Ok(act::Silu {
            alpha: n.float_or("alpha", 1.0)?,
        })
    }
    fn exact(self, x: f64) -> f64 {
        x * act::Sigmoid {}.exact(f64::from(self.alpha) * x)
    }
    fn body<'a>(_: &NodeRef, x: Ex<'a>) -> Option<Ex<'a>> {
        Some(x * (x * x.attr("alpha", 1.0)).sigmoid())
    }
    fn cases() -> Vec<Case> {
        vec![Case::new("alpha", [floats(&[37], 1)]).attr("alpha", 1.7)]
    }
    fn vjp<'a>(self, x: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        let alpha = f64::from(self.alpha);
        let share = (x * alpha).sigmoid();
        Some(dy * (share + y * (share.constant(1.0) - share) * alpha))
    }
}

/// `x / 2 (1 + erf(x / √2))`, or its approximation by `tanh`.
#[derive(Clone, Copy)]
pub struct Gelu {
    tanh: bool,
}

impl ActFn for Gelu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        match self.tanh {
            false => act::Gelu {}.apply(s, x),
            true => act::GeluTanh {}.apply(s, x),
        }
    }

    fn act(self) -> Option<act::Act> {
        Some(if self.tanh {
            act::Act::GeluTanh
        } else {
            act::Act::Gelu
        })
    }
}

/// The factor of the cube in the approximation.
const CUBIC: f64 = 0.044715;

impl Function for Gelu {
    const NAME: &'static str = "Gelu";
    const SINCE: &'static [u16] = &[20];
    const WITHIN: (f64, f64) = (5e-7, 1e-6);
    const EXTREMES: bool = false;
    fn read(n: &NodeRef) -> Result<Self, OpError> {
        match n.str_or("approximate", "none")? {
            "none" => Ok(Gelu { tanh: false }),
            "tanh" => Ok(Gelu { tanh: true }),
            other => Err(OpError::new(format!(
                "attribute \"approximate\": expected \"none\" or \"tanh\", found {other:?}"
            ))),
        }
    }
    fn exact(self, x: f64) -> f64 {
        let y = match self.tanh {
            false => super::unary::erf(x * FRAC_1_SQRT_2),
            true => (FRAC_2_PI.sqrt() * (x + CUBIC * x * x * x)).tanh(),
        };
        0.5 * x * (1.0 + y)
    }
    fn body<'a>(n: &NodeRef, x: Ex<'a>) -> Option<Ex<'a>> {
        let y = match Gelu::read(n).ok()?.tanh {
            false => (x / SQRT_2).erf(),
            true => ((x + (x * x * x) * CUBIC) * FRAC_2_PI.sqrt()).tanh(),
        };
        Some(x * (y + 1.0) * 0.5)
    }
    fn cases() -> Vec<Case> {
        vec![
            Case::new("tanh", [floats(&[3, 77], 1)]).attr("approximate", "tanh"),
            Case::new("exact", [floats(&[3, 77], 1)]).attr("approximate", "none"),
        ]
    }
    fn vjp<'a>(self, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        let half = |share: Ex<'a>| (share + 1.0) * 0.5;
        let (share, slope) = match self.tanh {
            false => {
                let density = (x * x * -0.5).exp() * (FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * 0.5);
                (half((x / SQRT_2).erf()), density)
            }
            true => {
                let (square, c) = (x * x, FRAC_2_PI.sqrt());
                let t = ((x + (square * x) * CUBIC) * c).tanh();
                let inner = square * (3.0 * CUBIC * c * 0.5) + c * 0.5;
                (half(t), inner * (t.constant(1.0) - t * t))
            }
        };
        Some(dy * (share + x * slope))
    }
}
