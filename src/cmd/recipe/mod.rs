//! Recipes: steps that prune and recover, the flags that ask for them, and the examples that they look at.

mod chain;
mod examples;
mod lesson;
mod recovery;
mod sized;

pub(in crate::cmd) use chain::{Chain, Cooked};
pub(in crate::cmd) use examples::{Shown, Source};
pub(in crate::cmd) use lesson::{SAMPLES, given, repairs};
pub(in crate::cmd) use recovery::{RecoveryFlags, names};
pub(in crate::cmd) use sized::{fitted, freed, sized};
