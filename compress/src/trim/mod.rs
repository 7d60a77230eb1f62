//! Pieces of a model cut away: how much of what, which of them go, and how much is left.

mod climb;
mod rank;
mod time;
mod unit;
mod whole;
mod widths;

use std::collections::BTreeMap;

use secateur_engine::Model;

pub use rank::Rank;
pub(crate) use time::thinned;
pub use unit::Unit;
pub(crate) use unit::together;

use crate::budget;
use crate::change::Plan;
use crate::error::MethodError;
use crate::grain::Piece;
use crate::groups::{Groups, Of, Sizes, groups};
use crate::methods::Scope;
use crate::recover::RecoverError;

/// Numbers of channels and neurons are made multiples of this where nobody says of what: the channels of a block.
pub const ROUND_TO: usize = 16;

/// How much to cut away of what.
#[derive(Clone, Debug, PartialEq)]
pub struct Trim {
    /// What goes.
    pub piece: Piece,
    /// The share that goes: from 0 to below 1.
    pub share: f64,
    /// What it is a share of; [`Of::Channels`] is the number of what goes, also where that is blocks. By [`Of::Ms`],
    /// [`Piece::Structured`] may take blocks too.
    pub of: Of,
    /// Whether all groups are ranked together, or each loses the same share of its indices. By [`Of::Ms`] all are.
    pub scope: Scope,
    /// Widths are made multiples of this where they were larger, except numbers of heads and their widths.
    pub round_to: usize,
    /// Patterns of names; what has such a name, or weights or nodes of such a name, stays.
    pub keep: Vec<String>,
}

/// By what sizes models are followed.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Those of free dimensions, by name.
    pub sizes: &'a Sizes,
    /// Those by which times are predicted, where they count.
    pub times: Option<&'a budget::Sizes<'a>>,
}

impl Default for Frame<'_> {
    /// Example sizes.
    fn default() -> Self {
        static NONE: Sizes = Sizes::new();
        Frame {
            sizes: &NONE,
            times: None,
        }
    }
}

/// What the first model had, of which a share is to go in one round or in several.
#[derive(Clone, Debug, PartialEq)]
pub struct First {
    /// By the name of what may be cut its size: of groups the number of indices, 1 of what goes as a whole.
    pub sizes: BTreeMap<String, usize>,
    /// All that there was of what a share is a share of.
    pub whole: f64,
}

impl Trim {
    /// What `model` has.
    ///
    /// # Errors
    ///
    /// If the share is none, a name fits nothing, or there is nothing to cut.
    pub fn first(&self, model: &Model, frame: &Frame) -> Result<First, RecoverError> {
        if !(0.0..1.0).contains(&self.share) {
            let what = format!("expected a share from 0 to below 1, found {}", self.share);
            return Err(MethodError::goal(what).into());
        }
        let sizes = match (self.of, self.piece.kinds()) {
            (Of::Ms, _) => time::sizes(self, model, frame)?,
            (_, []) => unit::sizes((self.piece, &self.keep), model, frame)?,
            _ => widths::sizes(self, model, frame)?,
        };
        let mut first = First { sizes, whole: 1.0 };
        first.whole = self.amount(model, &first, frame)?;
        match first.whole > 0.0 {
            true => Ok(first),
            false => Err(MethodError::nothing("there is nothing of what a share is to go of").into()),
        }
    }

    /// What to cut away of `model`, so that `share` of what was there at first is gone: what `rank` finds least important. What of
    /// `first` is gone by now is counted, and what was not there at first stays.
    ///
    /// # Errors
    ///
    /// If the model cannot be followed, or was not seen as the rank needs it.
    pub fn decide(
        &self,
        model: &Model,
        (share, first): (f64, &First),
        rank: &Rank,
        frame: &Frame,
    ) -> Result<Plan, RecoverError> {
        match (self.of, self.piece.kinds()) {
            (Of::Ms, _) => time::decide(self, model, (share, first), rank, frame),
            (_, []) => whole::decide(self, model, (share, first), rank, frame),
            _ => widths::decide(self, model, (share, first), rank, frame),
        }
    }

    /// The share of what `first` had that `model` has.
    ///
    /// # Errors
    ///
    /// If the model cannot be followed.
    pub fn left(&self, model: &Model, first: &First, frame: &Frame) -> Result<f64, RecoverError> {
        Ok(self.amount(model, first, frame)? / first.whole)
    }

    fn amount(&self, model: &Model, first: &First, frame: &Frame) -> Result<f64, RecoverError> {
        match self.of {
            Of::Ms => time::amount(model, frame),
            Of::Channels if self.piece.kinds().is_empty() => whole::number(self, model, first, frame),
            _ => widths::amount(&followed(model, frame)?, self.of, first),
        }
    }
}

fn followed<'m>(model: &'m Model, frame: &Frame) -> Result<Groups<'m>, RecoverError> {
    groups(model, frame.sizes).map_err(|e| MethodError::run(e).into())
}

#[cfg(test)]
mod tests;
