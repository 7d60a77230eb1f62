//! Scaled-dot-product attention, written out.

mod operands;
mod peel;
mod write;

use super::read::input;
use crate::expr::{Builder, Ex};
use crate::ir::ValueId;
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};
use operands::{keys, swapping, ungrouped};
use peel::{Mask, below_softmax, peel};
use write::Writer;

/// `softmax(scale Q Kᵀ + mask) V` becomes `Attention`, which never holds all scores: with the scale on `Q`, on `K`, on both,
/// or on the scores; with `K` transposed in any way; with masks that are added or chosen by `Where`, lower triangles as
/// `is_causal`; with masks for each window of an image; with a soft cap; with keys and values that are repeated for groups of heads; with three or four axes.
///
/// Where it is not known that nothing broadcasts, or numbers are half floats, it becomes `secateur.Attention`, which finds out
/// when all sizes are there and computes in `float`.
///
/// A query that may see no key gets zeros, where the formula with a mask of minus infinity has no number for it.
pub(super) struct Attention;

impl Rule for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn scope(&self) -> Scope {
        Scope::Engine
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![
            Pattern::loose(2, |x| x[0].matmul(x[1])),
            Pattern::loose(2, |x| x[1].matmul(x[0].op("Transpose", &[]))),
        ]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let &[shares, v] = &m.inputs[..] else {
            return Err(Why::NoEffect);
        };
        // Values times shares, both turned.
        let turned = match m.nodes[..] {
            [_, n] => Some(swapping(&site.graph[n]).ok_or(Why::NoEffect)?),
            _ => None,
        };
        let mut scores = peel(site, below_softmax(site, shares)?)?;
        let (q, factor) = site.scaled(scores.queries);
        let (swapped, more) = site.scaled(scores.swapped);
        scores.scale *= factor * more;
        let (mut k, perm) = keys(site, swapped)?;
        if perm.is_none() {
            let (bare, last) = site.scaled(k);
            (k, scores.scale) = (bare, scores.scale * last);
        }
        let found = operands::check(site, [q, k, v], &perm)?;
        let heads = found.heads && perm.is_none() && turned.is_none();
        let [k, v] = match (ungrouped(site, k), ungrouped(site, v)) {
            (Some(k), Some(v)) if heads && same_heads(site, k, v) => [k, v],
            _ => [k, v],
        };
        site.same_rank(m.nodes[0], q)?;
        let masks = scores.masks.iter().map(Mask::value);
        let leaves: Vec<_> = [q, k, v].into_iter().chain(masks).collect();
        site.private(m.nodes[0], &leaves)?;
        let writer = Writer {
            site,
            b,
            found,
            turned,
            perm,
        };
        writer.write(&scores, [q, k, v])
    }
}

fn same_heads(site: &Site, k: ValueId, v: ValueId) -> bool {
    let heads = |v: ValueId| site.shape(v)?.get(1)?.known();
    heads(k).is_some() && heads(k) == heads(v)
}
