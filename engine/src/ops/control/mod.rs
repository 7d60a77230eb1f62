//! Operators that run subgraphs.

mod branch;
mod endless;
mod map;
mod repeat;
mod scan;

pub use branch::If;
pub use map::SequenceMap;
pub use repeat::Loop;
pub use scan::Scan;

use super::{Fact, Laws, NodeRef, OpError};
use crate::ir::{Datum, Tensor};

/// What they have in common.
const LAWS: Laws = Laws {
    blocks: false,
    any: true,
    impure: true,
    commutes: false,
    associates: false,
    view: false,
    still: false,
    elementwise: false,
    in_place: &[],
};

/// Nothing is known of the outputs.
fn unknown(n: &NodeRef) -> Vec<Fact> {
    vec![Fact::unknown(); n.node().outputs.len()]
}

/// The single truth in `x`.
fn truth(x: Option<&Datum>, what: &str) -> Result<Option<bool>, OpError> {
    let Some(x) = x else { return Ok(None) };
    let one = x.tensor().and_then(Tensor::truths).filter(|t| t.len() == 1);
    let wrong = || OpError::new(format!("{what}: expected one boolean, found {}", x.ty()));
    Ok(Some(one.ok_or_else(wrong)?[0]))
}

fn tensor(x: Datum, what: &str) -> Result<Tensor, OpError> {
    match x {
        Datum::Tensor(t) => Ok(t),
        other => Err(OpError::new(format!(
            "{what}: expected a tensor, found {}",
            other.ty()
        ))),
    }
}
