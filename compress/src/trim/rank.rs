//! How important what could go is.

use std::collections::HashMap;

use secateur_engine::{Model, Tensor};

use crate::groups::squares;
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
}

impl Rank {
    /// What `method` says of `model`, shown at work on `shown` if it wants to see that; `seed` decides what it draws.
    ///
    /// # Errors
    ///
    /// If it wants to see the model at work and cannot.
    pub fn new(
        model: &Model,
        method: &dyn Method,
        shown: Option<&Examples>,
        seed: u64,
    ) -> Result<Rank, RecoverError> {
        if method.name() == "magnitude" {
            return Ok(Rank::Squares);
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
        }
    }
}
