//! What goes as a whole.

use std::collections::BTreeMap;

use secateur_engine::Model;

use super::{First, Frame, Rank, Trim};
use crate::blocks::{Block, blocks};
use crate::change::{Change, Plan};
use crate::error::MethodError;
use crate::glob::nearest;
use crate::groups::Of;
use crate::matches;
use crate::recover::RecoverError;

fn all(model: &Model, frame: &Frame) -> Result<Vec<Block>, RecoverError> {
    blocks(model, frame.sizes).map_err(|e| MethodError::run(e).into())
}

/// The blocks of `model` that may go.
pub(super) fn sizes(
    trim: &Trim,
    model: &Model,
    frame: &Frame,
) -> Result<BTreeMap<String, usize>, RecoverError> {
    let found = all(model, frame)?;
    if found.is_empty() {
        let what = "nothing to cut: the model has no residual blocks with weights";
        return Err(MethodError::nothing(what).into());
    }
    let free = unkept(&found, &trim.keep)?;
    if free.is_empty() {
        return Err(MethodError::nothing("nothing to cut: what is to be kept leaves no block").into());
    }
    Ok(free.into_iter().map(|b| (b.sum.clone(), 1)).collect())
}

/// Those of `blocks` whose sum and nodes no pattern of `keep` fits; each of these fits some block.
fn unkept<'b>(blocks: &'b [Block], keep: &[String]) -> Result<Vec<&'b Block>, MethodError> {
    let names = |b: &'b Block| std::iter::once(&b.sum).chain(&b.nodes).map(String::as_str);
    let fits = |b: &'b Block, glob: &str| names(b).any(|n| matches(glob, n));
    for glob in keep {
        if !blocks.iter().any(|b| fits(b, glob)) {
            let near = nearest(glob, blocks.iter().flat_map(names)).join("\", \"");
            let what = format!("{glob:?} fits no sum and no node of a block; the nearest names are \"{near}\"");
            return Err(MethodError::goal(what));
        }
    }
    let free = blocks.iter().filter(|b| !keep.iter().any(|glob| fits(b, glob)));
    Ok(free.collect())
}

/// How many of the first are still there.
pub(super) fn number(model: &Model, first: &First, frame: &Frame) -> Result<f64, RecoverError> {
    let found = all(model, frame)?;
    Ok(found.iter().filter(|b| first.sizes.contains_key(&b.sum)).count() as f64)
}

pub(super) fn decide(
    trim: &Trim,
    model: &Model,
    (share, first): (f64, &First),
    _rank: &Rank,
    frame: &Frame,
) -> Result<Plan, RecoverError> {
    let mut free = all(model, frame)?;
    free.retain(|b| first.sizes.contains_key(&b.sum));
    let _ = (Of::Channels, trim);
    let go = (first.sizes.len() as f64 * share).round() as usize;
    let gone = first.sizes.len() - free.len();
    let mut order: Vec<usize> = (0..free.len()).collect();
    order.sort_by(|&a, &b| free[a].score.total_cmp(&free[b].score).then(b.cmp(&a)));
    order.truncate(go.saturating_sub(gone));
    order.sort_unstable();
    Ok(Plan(order.into_iter().map(|i| Change::Bypass(free[i].bypass())).collect()))
}
