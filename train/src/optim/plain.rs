//! Steps along the gradient.

use secateur_engine::expr::Ex;

use super::{Move, Optimizer, Slot};
use crate::settings::settings;

/// Gradient descent: each step goes along the gradient.
#[derive(Clone, Copy, Debug)]
pub struct Sgd;
settings!(Sgd {});

impl Optimizer for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn about(&self) -> &'static str {
        "along the gradient"
    }

    fn rate(&self) -> f64 {
        0.01
    }

    fn step<'a>(&self, all: &[Slot<'a>], _: Ex<'a>) -> Vec<Move<'a>> {
        let along = |s: &Slot<'a>| Move {
            along: s.gradient,
            state: vec![],
        };
        all.iter().map(along).collect()
    }
}

/// `v ← momentum · v + g`, and a step along `v` (Polyak 1964), or along `g + momentum · v` (Nesterov 1983, in the form of
/// Sutskever et al. 2013). The rate is not a part of `v`.
#[derive(Clone, Copy, Debug)]
pub struct Momentum {
    /// What is left of `v` after a step.
    pub momentum: f64,
    /// Whether to look ahead.
    pub ahead: bool,
}

impl Default for Momentum {
    fn default() -> Momentum {
        Momentum {
            momentum: 0.9,
            ahead: false,
        }
    }
}

impl Momentum {
    /// The one that looks ahead.
    pub fn nesterov() -> Momentum {
        Momentum {
            ahead: true,
            ..Momentum::default()
        }
    }
}
settings!(Momentum { momentum: 0.0..1.0 });

impl Optimizer for Momentum {
    fn name(&self) -> &'static str {
        if self.ahead { "nesterov" } else { "momentum" }
    }

    fn about(&self) -> &'static str {
        match self.ahead {
            true => "along a decaying sum of gradients, looked at from where it leads",
            false => "along a decaying sum of gradients",
        }
    }

    fn rate(&self) -> f64 {
        0.01
    }

    fn state(&self) -> Vec<String> {
        vec!["sum".into()]
    }

    fn step<'a>(&self, all: &[Slot<'a>], _: Ex<'a>) -> Vec<Move<'a>> {
        let one = |s: &Slot<'a>| {
            let sum = s.state[0] * self.momentum + s.gradient;
            let along = if self.ahead {
                s.gradient + sum * self.momentum
            } else {
                sum
            };
            Move {
                along,
                state: vec![sum],
            }
        };
        all.iter().map(one).collect()
    }
}
