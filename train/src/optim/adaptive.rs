//! Steps that have a length of their own for each element: gradients divided by what they were before.
//!
//! What keeps divisors from being 0 is added to the root, never under it.

use secateur_engine::expr::Ex;
use secateur_engine::ir::DType;

use super::{Move, Optimizer, Slot};
use crate::settings::settings;
use crate::words::{cast, either, sqrt, total};

/// Divides by the root of the sum of all squared gradients (Duchi, Hazan, Singer 2011).
#[derive(Clone, Copy, Debug)]
pub struct AdaGrad {
    /// Added to the root.
    pub eps: f64,
}

impl Default for AdaGrad {
    fn default() -> AdaGrad {
        AdaGrad { eps: 1e-10 }
    }
}
settings!(AdaGrad { eps: 0.0..=1.0 });

/// Divides by the root of the mean of all squared gradients, so that the first step is the rate in each element.
#[derive(Clone, Copy, Debug)]
pub struct MeanSquare {
    /// Added to the root.
    pub eps: f64,
}

impl Default for MeanSquare {
    fn default() -> MeanSquare {
        MeanSquare { eps: 1e-10 }
    }
}
settings!(MeanSquare { eps: 0.0..=1.0 });

/// Divides by the root of a running mean of squared gradients (Hinton 2012), or of their variance.
#[derive(Clone, Copy, Debug)]
pub struct RmsProp {
    /// What is left of the mean after a step.
    pub alpha: f64,
    /// Added to the root.
    pub eps: f64,
    /// Whether the square of the mean gradient is subtracted from the mean square.
    pub variance: bool,
}

impl Default for RmsProp {
    fn default() -> RmsProp {
        RmsProp {
            alpha: 0.99,
            eps: 1e-8,
            variance: false,
        }
    }
}

impl RmsProp {
    /// The one that divides by the deviation.
    pub fn centred() -> RmsProp {
        RmsProp {
            variance: true,
            ..RmsProp::default()
        }
    }
}
settings!(RmsProp {
    alpha: 0.0..1.0,
    eps: 0.0..=1.0
});

/// A running mean of gradients divided by the root of that of their squares, both corrected for having begun at 0 (Kingma
/// and Ba 2014); with decoupled decay AdamW (Loshchilov and Hutter 2017).
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    /// What is left of the mean after a step.
    pub beta1: f64,
    /// What is left of the mean square after a step.
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
    /// See [`Optimizer::decay`].
    pub decay: f64,
    /// Whether it is called AdamW.
    pub w: bool,
}

impl Default for Adam {
    fn default() -> Adam {
        Adam {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            decay: 0.0,
            w: false,
        }
    }
}

impl Adam {
    /// AdamW: with a decay of 0.01.
    pub fn decoupled() -> Adam {
        Adam {
            decay: 0.01,
            w: true,
            ..Adam::default()
        }
    }
}
settings!(Adam {
    beta1: 0.0..1.0,
    beta2: 0.0..1.0,
    eps: 0.0..=1.0,
    decay: 0.0..=1.0
});

/// Adam, with a step that is as long as the parameter is, times the rate, however large or small its elements are: each tensor by
/// itself (LAMB, You et al. 2020, arXiv:1904.00962). What is 0 as a whole moves as far as Adam says.
#[derive(Clone, Copy, Debug)]
pub struct Lamb {
    /// What is left of the mean after a step.
    pub beta1: f64,
    /// What is left of the mean square after a step.
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
}

impl Default for Lamb {
    fn default() -> Lamb {
        Lamb {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-6,
        }
    }
}
settings!(Lamb {
    beta1: 0.0..1.0,
    beta2: 0.0..1.0,
    eps: 0.0..=1.0
});

/// A value that follows `new` and keeps the share `kept` of what it was.
fn running<'a>(old: Ex<'a>, new: Ex<'a>, kept: f64) -> Ex<'a> {
    old * kept + new * (1.0 - kept)
}

/// The scalar double `x` for use beside `like`.
fn beside<'a>(x: Ex<'a>, like: Ex<'a>) -> Ex<'a> {
    x.op("CastLike", &[like])
}

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(|&n| n.into()).collect()
}

impl Optimizer for AdaGrad {
    fn name(&self) -> &'static str {
        "adagrad"
    }

    fn about(&self) -> &'static str {
        "gradients divided by the root of the sum of their squares"
    }

    fn rate(&self) -> f64 {
        0.01
    }

    fn state(&self) -> Vec<String> {
        names(&["squares"])
    }

    fn step<'a>(&self, all: &[Slot<'a>], _: Ex<'a>) -> Vec<Move<'a>> {
        let one = |s: &Slot<'a>| {
            let squares = s.state[0] + s.gradient * s.gradient;
            Move {
                along: s.gradient / (sqrt(squares) + self.eps),
                state: vec![squares],
            }
        };
        all.iter().map(one).collect()
    }
}

impl Optimizer for MeanSquare {
    fn name(&self) -> &'static str {
        "mean-square"
    }

    fn about(&self) -> &'static str {
        "gradients divided by the root of the mean of their squares"
    }

    fn rate(&self) -> f64 {
        0.01
    }

    fn state(&self) -> Vec<String> {
        names(&["squares"])
    }

    fn step<'a>(&self, all: &[Slot<'a>], t: Ex<'a>) -> Vec<Move<'a>> {
        let one = |s: &Slot<'a>| {
            let squares = s.state[0] + s.gradient * s.gradient;
            let root = sqrt(squares / beside(t, s.value));
            Move {
                along: s.gradient / (root + self.eps),
                state: vec![squares],
            }
        };
        all.iter().map(one).collect()
    }
}

impl Optimizer for RmsProp {
    fn name(&self) -> &'static str {
        if self.variance {
            "rmsprop-centred"
        } else {
            "rmsprop"
        }
    }

    fn about(&self) -> &'static str {
        match self.variance {
            true => "gradients divided by their running deviation",
            false => "gradients divided by the root of a running mean of their squares",
        }
    }

    fn rate(&self) -> f64 {
        0.001
    }

    fn state(&self) -> Vec<String> {
        names(if self.variance {
            &["square", "mean"]
        } else {
            &["square"]
        })
    }

    fn step<'a>(&self, all: &[Slot<'a>], _: Ex<'a>) -> Vec<Move<'a>> {
        let one = |s: &Slot<'a>| {
            let square = running(s.state[0], s.gradient * s.gradient, self.alpha);
            let mean = s.state.get(1).map(|&m| running(m, s.gradient, self.alpha));
            // Rounding may leave a constant gradient a variance below 0.
            let spread = mean.map_or(square, |m| (square - m * m).op("Relu", &[]));
            Move {
                along: s.gradient / (sqrt(spread) + self.eps),
                state: std::iter::once(square).chain(mean).collect(),
            }
        };
        all.iter().map(one).collect()
    }
}

impl Optimizer for Adam {
    fn name(&self) -> &'static str {
        if self.w { "adamw" } else { "adam" }
    }

    fn about(&self) -> &'static str {
        match self.w {
            true => "adam, and a share of each parameter goes with each step",
            false => "a running mean of gradients divided by the root of that of their squares",
        }
    }

    fn rate(&self) -> f64 {
        0.001
    }

    fn state(&self) -> Vec<String> {
        names(&["mean", "square"])
    }

    fn decay(&self) -> f64 {
        self.decay
    }

    fn step<'a>(&self, all: &[Slot<'a>], t: Ex<'a>) -> Vec<Move<'a>> {
        // In doubles: what is left of 1 after a step or two is all that counts.
        let t = cast(t, DType::F64);
        let left = |c: f64| t.constant(1.0) - t.constant(c).op("Pow", &[t]);
        // Divided by once, not for each element.
        let once = |x: Ex<'a>| x.constant(1.0) / x;
        let (of_mean, of_root) = (once(left(self.beta1)), once(sqrt(left(self.beta2))));
        let one = |s: &Slot<'a>| {
            let mean = running(s.state[0], s.gradient, self.beta1);
            let square = running(s.state[1], s.gradient * s.gradient, self.beta2);
            let root = sqrt(square) * beside(of_root, s.value) + self.eps;
            Move {
                along: mean * beside(of_mean, s.value) / root,
                state: vec![mean, square],
            }
        };
        all.iter().map(one).collect()
    }
}

impl Optimizer for Lamb {
    fn name(&self) -> &'static str {
        "lamb"
    }

    fn about(&self) -> &'static str {
        "adam, with steps of each tensor in proportion to its length"
    }

    fn rate(&self) -> f64 {
        0.001
    }

    fn state(&self) -> Vec<String> {
        Adam::default().state()
    }

    fn step<'a>(&self, all: &[Slot<'a>], t: Ex<'a>) -> Vec<Move<'a>> {
        let Lamb { beta1, beta2, eps } = *self;
        let adam = Adam {
            beta1,
            beta2,
            eps,
            ..Adam::default()
        };
        let length = |x: Ex<'a>| sqrt(total(x * x));
        let mut moves = adam.step(all, t);
        for (slot, m) in all.iter().zip(&mut moves) {
            let (of_value, of_move) = (length(slot.value), length(m.along));
            let none = of_value.constant(0.0);
            let nothing = (of_value * of_move).op("Equal", &[none]);
            let ratio = either(nothing, none.constant(1.0), of_value / of_move);
            m.along = m.along * ratio;
        }
        moves
    }
}
