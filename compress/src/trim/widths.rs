//! Groups of axes made shorter.

use std::collections::BTreeMap;

use secateur_engine::Model;

use super::{First, Frame, Rank, Trim, followed};
use crate::change::{Change, Narrow, Plan};
use crate::groups::{Groups, Of, Shrink};
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
    let scores = found.scores(&|name, t| rank.of(name, t));
    let groups = found.choose_of(&scores, &trim.shrink(share), first);
    Ok(Plan(vec![Change::Narrow(Narrow {
        sizes: frame.sizes.clone(),
        groups,
    })]))
}

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
