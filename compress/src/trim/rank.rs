//! How important what could go is.

use std::collections::HashMap;

use secateur_engine::{Model, Tensor};

use super::{First, Frame};
use crate::error::MethodError;
use crate::grain::Piece;
use crate::groups::{Groups, squares};
use crate::harm::Harms;
use crate::methods::{Method, mark};
use crate::recover::RecoverError;
use crate::{Examples, Need, Stats, Weight, observe, weights};

/// How important the elements of a model's constants are.
#[derive(Clone, Debug, PartialEq)]
pub enum Rank {
    /// Their squares.
    Squares,
    /// What a method says of them.
    Scores {
        /// By name of a constant.
        of: HashMap<String, Vec<f64>>,
        /// Whether they are about the loss, so that sums of different layers can be compared.
        loss: bool,
    },
    /// What is lost with indices of groups and with units.
    Harms(Box<Harms>),
}

impl Rank {
    /// What `method` says of `model`, of which something is to go that is a `piece`, shown at work on `shown` if it wants to see that; `seed`
    /// decides what it draws.
    ///
    /// # Errors
    ///
    /// If it wants to see the model at work and cannot.
    pub fn new(
        model: &Model,
        (piece, frame): (Piece, &Frame),
        method: &dyn Method,
        shown: Option<&Examples>,
        seed: u64,
    ) -> Result<Rank, RecoverError> {
        if method.name() == "magnitude" {
            return Ok(Rank::Squares);
        }
        if let (true, Some(shown)) = (method.cuts(), shown) {
            let harms = Harms::new(model, piece, frame.sizes, shown)?;
            return Ok(Rank::Harms(Box::new(harms)));
        }
        let mut all = weights(model);
        mark(method, model, &mut all);
        let targets: Vec<&Weight> = all.iter().filter(|w| w.exempt.is_none()).collect();
        let stats = match (method.needs(), shown) {
            ([], _) => Stats::seeded(seed),
            (needs, Some(shown)) => observe(model, &targets, needs, shown)?,
            (_, None) => return Err(RecoverError::unshown(method)),
        };
        let one = |w: &&Weight| -> Result<_, RecoverError> {
            let found = method.scores(model, w, &stats)?;
            Ok((w.name.clone(), found.into_iter().map(f64::from).collect()))
        };
        let input = |n: &Need| matches!(n, Need::Inputs | Need::Products);
        Ok(Rank::Scores {
            of: targets.iter().map(one).collect::<Result<_, _>>()?,
            loss: !method.needs().is_empty() && !method.needs().iter().any(input),
        })
    }

    /// What it says of the elements of the constant `name`; `None` where they have no say.
    pub fn of(&self, name: &str, tensor: &Tensor) -> Option<Vec<f64>> {
        match self {
            Rank::Squares => squares(name, tensor),
            Rank::Scores { of, .. } => of.get(name).cloned(),
            Rank::Harms(_) => None,
        }
    }

    /// For each group of `found` how important each index is.
    ///
    /// # Errors
    ///
    /// If what was seen does not say.
    pub(crate) fn scores(&self, found: &Groups) -> Result<Vec<Vec<f64>>, MethodError> {
        let Rank::Harms(harms) = self else {
            return Ok(found.scores(&|name, t| self.of(name, t)));
        };
        let mut scores = found.scores(&squares);
        let all: Vec<usize> = (0..found.groups.len()).collect();
        for (g, curve) in harms.curves(found, &all)? {
            scores[g] = curve.scores();
        }
        Ok(scores)
    }

    /// `first` without the groups of `found` of which nothing is known: they stay.
    pub(crate) fn known(&self, found: &Groups, first: &First) -> First {
        let mut first = first.clone();
        if let Rank::Harms(harms) = self {
            for (g, group) in found.groups.iter().enumerate() {
                if !harms.knows(found, g) {
                    first.sizes.remove(&group.name);
                }
            }
        }
        first
    }

    /// Something that whoever asked may want to know.
    pub(crate) fn note(&self) -> Option<&str> {
        match self {
            Rank::Harms(harms) => harms.note(),
            _ => None,
        }
    }
}
