//! Groups of axes made shorter.

use std::collections::BTreeMap;

use secateur_engine::Model;

use super::climb::climb;
use super::{First, Frame, Rank, Trim, followed};
use crate::change::{Change, Keep, Narrow, Plan};
use crate::groups::{Groups, Of, Shrink};
use crate::harm::Harms;
use crate::math::allot::Rung;
use crate::methods::Scope;
use crate::recover::RecoverError;

impl Trim {
    /// The same of groups.
    fn shrink(&self, share: f64) -> Shrink {
        Shrink {
            share,
            of: self.of,
            scope: self.scope,
            round_to: self.round_to,
            kinds: self.piece.kinds().to_vec(),
            keep: self.keep.clone(),
        }
    }
}

/// The groups of `model` that may be cut.
pub(super) fn sizes(
    trim: &Trim,
    model: &Model,
    frame: &Frame,
) -> Result<BTreeMap<String, usize>, RecoverError> {
    Ok(followed(model, frame)?.cuttable(&trim.shrink(trim.share))?)
}

pub(super) fn decide(
    trim: &Trim,
    model: &Model,
    (share, first): (f64, &First),
    rank: &Rank,
    frame: &Frame,
) -> Result<Plan, RecoverError> {
    let found = followed(model, frame)?;
    let groups = match rank {
        Rank::Harms(harms) if trim.scope == Scope::Global => least(&found, (share, first), trim, harms)?,
        _ => {
            let first = rank.known(&found, first);
            found.choose_of(&rank.scores(&found)?, &trim.shrink(share), &first)
        }
    };
    Ok(Plan(vec![Change::Narrow(Narrow {
        sizes: frame.sizes.clone(),
        groups,
    })]))
}

/// What of groups stays so that what goes hurts least for what it saves, and enough goes.
fn least(
    found: &Groups,
    (share, first): (f64, &First),
    trim: &Trim,
    harms: &Harms,
) -> Result<Vec<Keep>, RecoverError> {
    let all = 0..found.groups.len();
    let free: Vec<usize> = all
        .filter(|&g| first.sizes.contains_key(&found.groups[g].name))
        .collect();
    let curves = harms.curves(found, &free)?;
    let full: Vec<usize> = free.iter().map(|&g| found.groups[g].size).collect();
    let measure = |widths: &[usize]| found.measure(&free, widths, trim.of);
    let whole = measure(&full);
    let (mut ladders, mut rungs) = (vec![], vec![]);
    for (at, &g) in free.iter().enumerate() {
        let group = &found.groups[g];
        let width = first.sizes.get(&group.name).copied().unwrap_or(group.size);
        let curve = curves.get(&g);
        let narrower = curve.map(|_| found.narrower(g, width, trim.round_to));
        let widths: Vec<usize> = std::iter::once(group.size)
            .chain(narrower.unwrap_or_default())
            .collect();
        let rung = |&w: &usize| {
            let mut only = full.clone();
            only[at] = w;
            Rung {
                cost: measure(&only) - whole,
                harm: curve.map_or(0.0, |c| c.at(group.size - w)),
            }
        };
        rungs.push(widths.iter().map(rung).collect::<Vec<_>>());
        ladders.push(widths);
    }
    let ended = match trim.of {
        // What has one index left is no group any more.
        Of::Channels => first.sizes.len() - free.len(),
        _ => 0,
    };
    let target = first.whole * (1.0 - share) - ended as f64;
    let widths = |at: &[usize]| {
        ladders
            .iter()
            .zip(at)
            .map(|(l, &at)| l[at])
            .collect::<Vec<usize>>()
    };
    let reached = |at: &[usize]| Ok(measure(&widths(at)) <= target);
    let at = climb(&rungs, target - whole, STEPS, &reached)?;
    let cut = free
        .iter()
        .zip(widths(&at))
        .filter(|&(&g, w)| w < found.groups[g].size);
    let keep = |(&g, w): (&usize, usize)| Some(found.keep(g, &curves.get(&g)?.scores(), w));
    Ok(cut.filter_map(keep).collect())
}

/// In so many steps it is found how much is needed.
const STEPS: u32 = 16;

/// How much there is of what a share is a share of.
pub(super) fn amount(found: &Groups, of: Of, first: &First) -> Result<f64, RecoverError> {
    let all = Narrow::default();
    Ok(match of {
        Of::Parameters => found.parameters(&all) as f64,
        Of::Macs | Of::Ms => found.macs(&all) as f64,
        Of::Channels => {
            let by_name: BTreeMap<&str, usize> = found.groups.iter().map(|g| (&*g.name, g.size)).collect();
            // What has one index left is no group any more.
            let width = |name: &String| by_name.get(&**name).copied().unwrap_or(1);
            first.sizes.keys().map(width).sum::<usize>() as f64
        }
    })
}
