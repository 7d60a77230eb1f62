//! The optimiser.

mod pattern;

pub use pattern::Pattern;
