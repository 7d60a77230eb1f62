//! Passes that look at the whole graph.

mod dead;
mod expand;
mod fold;
mod fuse;
mod group;
mod identity;
mod merge;
mod rewrite;

use super::Pass;
pub(crate) use group::Group;

/// The passes, in order: first what makes the graph smaller and its constants visible, then the rules that look for
/// patterns in what is left, and last what the rules left unread.
pub static PASSES: &[&dyn Pass] = &[
    &fold::Fold,
    &identity::Identity,
    &merge::Merge,
    &expand::Expand,
    &fuse::Fuse,
    &rewrite::Rewrite,
    &dead::Dead,
];

/// Those of [`PASSES`] that put no operator in the place of others: constants are folded, and what is doubled, unused or
/// does nothing is dropped.
pub static CLEANING: &[&dyn Pass] = &[&fold::Fold, &identity::Identity, &merge::Merge, &dead::Dead];

/// That of [`PASSES`] that puts operators in the place of what their bodies say, spelled out.
pub static FUSING: &[&dyn Pass] = &[&fuse::Fuse];
