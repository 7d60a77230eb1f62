//! Steps that cut away, and what they have no use for.

use super::{Grain, Of, Piece, Prune, ROUND_TO, Trim};

impl Prune {
    /// What is to be cut away of `piece`.
    pub fn trim(&self, piece: Piece) -> Trim {
        Trim {
            piece,
            share: self.sparsity.unwrap_or(0.5),
            of: self.of.unwrap_or_default(),
            scope: self.scope(),
            round_to: self.round_to.map_or(ROUND_TO, |n| n as usize),
            keep: self.keep.clone(),
        }
    }

    /// Whether what is said goes with the pattern.
    pub(super) fn fits(&self) -> Result<(), String> {
        let pattern = self.pattern;
        let Grain::Cuts(piece) = pattern else {
            return match (self.of, self.round_to) {
                (None, None) => Ok(()),
                _ => Err(format!(
                    "of and round_to say how to cut away; pattern {pattern} makes zeros"
                )),
            };
        };
        if self.threshold.is_some() || !self.include.is_empty() {
            return Err(format!("pattern {pattern} takes no threshold and no include"));
        }
        if self.sparsity.is_some_and(|x| x >= 1.0) {
            return Err(format!(
                "pattern {pattern} leaves something; expected a sparsity below 1, found {}",
                self.sparsity.unwrap_or_default()
            ));
        }
        if self.round_to == Some(0) {
            return Err("expected round_to to be at least 1, found 0".into());
        }
        let whole = piece.kinds().is_empty();
        if whole && (self.round_to.is_some() || self.scope.is_some()) {
            return Err(format!(
                "pattern {pattern} takes no round_to and no scope: what goes, goes as a whole"
            ));
        }
        match self.of {
            Some(Of::Ms) if self.scope.is_some() => {
                Err("of ms takes no scope: all goes by what it saves".into())
            }
            Some(Of::Channels) if whole => Err(format!(
                "pattern {pattern} has no channels: without of, sparsity is the share of {}",
                piece.counted()
            )),
            _ => Ok(()),
        }
    }
}
