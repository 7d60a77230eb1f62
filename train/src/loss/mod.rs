//! Losses: what training makes small, as expressions.

mod classes;
mod contrast;
mod distance;
mod shares;

use secateur_engine::expr::Ex;
use secateur_engine::ir::Type;

pub use classes::{Accuracy, BinaryCrossEntropy, CrossEntropy, LogLikelihood, TokenCrossEntropy};
pub use contrast::InfoNce;
pub use distance::Distance;
pub use shares::{Distillation, Entropy, KlDivergence};

use crate::settings::{Settings, parse};

/// A number that says how far outputs are from what they should be.
pub trait Loss: Settings {
    /// The name by which it is chosen.
    fn name(&self) -> &'static str;

    /// What it is, in a line.
    fn about(&self) -> &'static str;

    /// What it compares, in order.
    fn takes(&self) -> &'static [&'static str];

    /// Operators that a model may end in and that the loss applies itself: it looks at what goes into them.
    fn includes(&self) -> &'static [&'static str] {
        &[]
    }

    /// The type of the second of these where the first is of type `of`.
    fn target(&self, of: &Type) -> Type {
        of.clone()
    }

    /// The loss of `x`, as many as [`Loss::takes`] names: a scalar.
    fn write<'a>(&self, x: &[Ex<'a>]) -> Ex<'a>;
}

/// Makes a loss with its usual settings.
pub type Make = fn() -> Box<dyn Loss>;

/// All losses, sorted by name.
pub static LOSSES: &[Make] = &[
    || Box::new(Accuracy),
    || Box::new(BinaryCrossEntropy),
    || Box::new(CrossEntropy::default()),
    || Box::new(Distillation::default()),
    || Box::new(Entropy),
    || Box::new(InfoNce::default()),
    || Box::new(KlDivergence),
    || Box::new(Distance::L1),
    || Box::new(Distance::Mse),
    || Box::new(LogLikelihood::default()),
    || Box::new(Distance::Rmse),
    || Box::new(TokenCrossEntropy::default()),
];

/// The loss that `text` says: a name of [`LOSSES`], perhaps with settings, such as `cross-entropy:smoothing=0.1`.
///
/// # Errors
///
/// If there is none of that name, or it has no such setting.
pub fn loss(text: &str) -> Result<Box<dyn Loss>, String> {
    let all = LOSSES.iter().map(|make| make());
    parse("loss", text, all.map(|l| (l.name(), l)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_sorted_and_found_by_name() {
        let names: Vec<_> = LOSSES.iter().map(|make| make().name()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        for name in names {
            let mut found = loss(name).unwrap();
            assert_eq!(found.name(), name);
            assert!(!found.about().is_empty() && (1..=2).contains(&found.takes().len()));
            for (setting, x) in found.settings() {
                found.set(setting, x).unwrap();
            }
        }
        assert!(loss("mes").unwrap_err().contains("did you mean \"mse\"?"));
    }
}
