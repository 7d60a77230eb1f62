//! Optimisers: what a step does with a gradient, as expressions.
//!
//! A step is written into the graph beside the gradients, so that it is planned, fused and saved like everything else.

mod adaptive;
mod lbfgs;
mod plain;

use secateur_engine::expr::Ex;

pub use adaptive::{AdaGrad, Adam, Lamb, MeanSquare, RmsProp};
pub use lbfgs::Lbfgs;
pub use plain::{Momentum, Sgd};

use crate::settings::{Settings, parse};

/// A parameter within a step.
pub struct Slot<'a> {
    /// What it is now.
    pub value: Ex<'a>,
    /// The gradient by it.
    pub gradient: Ex<'a>,
    /// Its state, as [`Optimizer::state`] names it.
    pub state: Vec<Ex<'a>>,
}

/// What becomes of a parameter in a step.
pub struct Move<'a> {
    /// What is subtracted from it, times the rate.
    pub along: Ex<'a>,
    /// Its state after the step.
    pub state: Vec<Ex<'a>>,
}

/// A way from gradients to steps.
pub trait Optimizer: Settings {
    /// The name by which it is chosen.
    fn name(&self) -> &'static str;

    /// What it does, in a line.
    fn about(&self) -> &'static str;

    /// The rate that it usually takes.
    fn rate(&self) -> f64;

    /// Names of the values that it keeps for each parameter, each in the parameter's shape and 0 at first.
    fn state(&self) -> Vec<String> {
        vec![]
    }

    /// The share of a parameter that goes with each step, times the rate, where the caller names none: decoupled decay.
    fn decay(&self) -> f64 {
        0.0
    }

    /// The moves of all parameters in step `t`: a scalar double that counts from 1.
    fn step<'a>(&self, all: &[Slot<'a>], t: Ex<'a>) -> Vec<Move<'a>>;
}

/// Makes an optimiser with its usual settings.
pub type Make = fn() -> Box<dyn Optimizer>;

/// All optimisers, sorted by name.
pub static OPTIMIZERS: &[Make] = &[
    || Box::new(AdaGrad::default()),
    || Box::new(Adam::default()),
    || Box::new(Adam::decoupled()),
    || Box::new(Lamb::default()),
    || Box::new(Lbfgs::default()),
    || Box::new(MeanSquare::default()),
    || Box::new(Momentum::default()),
    || Box::new(Momentum::nesterov()),
    || Box::new(RmsProp::default()),
    || Box::new(RmsProp::centred()),
    || Box::new(Sgd),
];

/// The optimiser that `text` says: a name of [`OPTIMIZERS`], perhaps with settings, such as `adam:beta1=0.95,eps=1e-6`.
///
/// # Errors
///
/// If there is none of that name, or it has no such setting.
pub fn optimizer(text: &str) -> Result<Box<dyn Optimizer>, String> {
    let all = OPTIMIZERS.iter().map(|make| make());
    parse("optimizer", text, all.map(|o| (o.name(), o)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optimizers_are_sorted_and_found_by_name() {
        let names: Vec<_> = OPTIMIZERS.iter().map(|make| make().name()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        for name in names {
            let mut found = optimizer(name).unwrap();
            assert_eq!(found.name(), name);
            assert!(!found.about().is_empty() && found.rate() > 0.0);
            for (setting, x) in found.settings() {
                found.set(setting, x).unwrap();
            }
        }
        assert!(optimizer("adma").unwrap_err().contains("did you mean \"adam\"?"));
        assert_eq!(optimizer("adam:eps=1e-3").unwrap().settings()[2], ("eps", 1e-3));
    }
}
