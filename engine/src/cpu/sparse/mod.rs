//! Products whose weights have zeros.

mod vector;

pub use vector::{Tokens, Vector};
