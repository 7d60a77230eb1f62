//! Names of classes.

use std::sync::Arc;

/// `0`, `1`, … as names of `n` classes.
pub(super) fn numbers(n: usize) -> Arc<[String]> {
    (0..n).map(|i| i.to_string()).collect()
}
