//! What is done to a model, step by step, as data: TOML that people write, and what receipts hold.
//!
//! ```
//! # use secateur_compress::recipe::Recipe;
//! let recipe: Recipe = r#"
//!     [[step]]
//!     [step.prune]
//!     sparsity = 0.9
//!     rounds = 5
//!     finetune = { data = "digits", epochs = 10, lr = 0.001 }
//!
//!     [[step]]
//!     [step.recover]
//!     data = "digits"
//!     repairs = ["bn"]
//! "#.parse()?;
//! assert_eq!(recipe.step.len(), 2);
//! assert_eq!(recipe.toml()?.parse::<Recipe>()?, recipe);
//! # Ok::<(), String>(())
//! ```

mod budget;

use std::str::FromStr;

pub use budget::Budgeted;
use secateur_train::Schedule;
use secateur_train::loss::loss;
use secateur_train::optim::optimizer;
use serde::{Deserialize, Serialize};

use crate::groups::Of;
use crate::methods::{Amount, Goal, Scope, find};
use crate::recover::{REPAIRS, Repair};
use crate::rounds::{Aim, Ramp};
use crate::trim::{ROUND_TO, Trim};
use crate::{Blend, Choice, Grain, METHODS, Pattern, Piece};

mod cuts;
mod photos;

pub use photos::Photos;

/// Steps, taken one after the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The seed of everything random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The steps.
    #[serde(default)]
    pub step: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// Weights become zero, or pieces are cut away.
    Prune(Box<Prune>),
    /// The model is trained further; its zeros stay.
    Finetune(Finetune),
    /// The model is repaired without training.
    Recover(Recover),
    /// The model is pruned and trained as far as a budget allows.
    Budget(Box<Budgeted>),
}

/// A step that prunes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prune {
    /// What chooses the weights: a name of [`METHODS`]; see [`Prune::method`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Which weights are zero together, or what is cut away.
    pub pattern: Grain,
    /// The share of zeros afterwards, or of what is cut away; that of the pattern, or a half, where neither this nor a threshold
    /// is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<f64>,
    /// Weights of less than this magnitude become zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Which weights a share is a share of; what the method does usually, where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Of what is cut away, what a share is a share of; the number of what goes where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<Of>,
    /// What widths that are cut become multiples of; [`ROUND_TO`] where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_to: Option<u32>,
    /// What to leave alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// What to prune though it would be left alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Examples on which the method sees the model at work, if it wants to; those of recovery where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Inputs without labels on which it sees the model at work where there are no such examples: `NAME=SOURCE`, as the command
    /// line has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// The number of these examples, or of these inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<u32>,
    /// In how many rounds.
    pub rounds: u32,
    /// How the share grows from round to round.
    pub schedule: Ramp,
    /// How photos among these become numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub photos: Option<Photos>,
    /// What makes up for it in each round, without training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recover: Option<Recover>,
    /// How the model is trained in the rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finetune: Option<Finetune>,
}

impl Default for Prune {
    fn default() -> Prune {
        Prune {
            method: None,
            pattern: Grain::default(),
            sparsity: None,
            threshold: None,
            scope: None,
            of: None,
            round_to: None,
            keep: vec![],
            include: vec![],
            data: None,
            inputs: vec![],
            photos: None,
            samples: None,
            rounds: 1,
            schedule: Ramp::default(),
            recover: None,
            finetune: None,
        }
    }
}

/// A training; what is left out is as the command line has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finetune {
    /// The examples.
    pub data: String,
    /// How often all examples are seen, in all rounds together.
    pub epochs: u64,
    /// Examples in a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// The optimiser, with its settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<String>,
    /// The rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// How the rate goes on in a round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr_schedule: Option<String>,
    /// The loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<String>,
    /// Random changes of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<String>,
    /// The part of the examples that the model is measured by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<String>,
    /// What labels are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// A model to learn from: a file, `self` for the model before the recipe, or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// The share of the teacher in what is made small; with 1 labels do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher_weight: Option<f64>,
    /// What the teacher's and the model's scores are divided by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// How photos among the examples become numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub photos: Option<Photos>,
}

/// Repairs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recover {
    /// The examples.
    pub data: String,
    /// What is done, in this order; names of [`REPAIRS`].
    pub repairs: Vec<String>,
    /// The number of examples that are looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// How photos among the examples become numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub photos: Option<Photos>,
}

impl Prune {
    /// What is to be reached.
    pub fn aim(&self) -> Aim {
        match self.pattern {
            Grain::Zeros(pattern) => Aim::Zeros(self.goal(pattern)),
            Grain::Cuts(piece) => Aim::Cuts(self.trim(piece)),
        }
    }

    /// What is to be reached by zeros of `pattern`.
    pub fn goal(&self, pattern: Pattern) -> Goal {
        let share = self.sparsity.or(pattern.share()).unwrap_or(0.5);
        Goal {
            amount: self.threshold.map_or(Amount::Sparsity(share), Amount::Threshold),
            scope: self.scope(),
            pattern,
        }
    }

    /// The name of what chooses the weights: `threshold` where there is one, `magnitude` else, if nothing is said.
    pub fn method(&self) -> &str {
        let usual = if self.threshold.is_some() {
            "threshold"
        } else {
            "magnitude"
        };
        self.method.as_deref().unwrap_or(usual)
    }

    /// Which weights a share is a share of.
    pub fn scope(&self) -> Scope {
        let usual = || match self.pattern {
            Grain::Zeros(_) => find(self.method()).map_or(Scope::default(), |m| m.scope()),
            Grain::Cuts(_) if self.of == Some(Of::Ms) => Scope::Global,
            Grain::Cuts(_) if find(self.method()).is_some_and(|m| m.cuts()) => Scope::Global,
            Grain::Cuts(_) => Scope::Layer,
        };
        self.scope.unwrap_or_else(usual)
    }

    /// The examples on which the method sees the model at work.
    pub fn data(&self) -> Option<&str> {
        let finetune = self.finetune.as_ref().map(|f| &f.data);
        let recover = self.recover.as_ref().map(|r| &r.data);
        self.data.as_ref().or(finetune).or(recover).map(String::as_str)
    }

    /// How photos become numbers on which the method sees the model at work.
    pub fn photos(&self) -> Option<&Photos> {
        let finetune = self.finetune.as_ref().map(|f| &f.photos);
        let recover = self.recover.as_ref().map(|r| &r.photos);
        let found = match (&self.data, finetune.or(recover)) {
            (None, Some(photos)) => photos,
            _ => &self.photos,
        };
        found.as_ref()
    }

    /// Which weights are pruned.
    pub fn choice(&self) -> Choice {
        Choice {
            keep: self.keep.clone(),
            include: self.include.clone(),
        }
    }

    fn check(&self) -> Result<(), String> {
        let names = || METHODS.iter().map(|m| m.name()).collect::<Vec<_>>().join(", ");
        if find(self.method()).is_none() {
            return Err(format!("no method {:?}; there are: {}", self.method(), names()));
        }
        if let Some(x) = self.sparsity.filter(|x| !(0.0..=1.0).contains(x)) {
            return Err(format!("expected a sparsity from 0 to 1, found {x}"));
        }
        if self.sparsity.is_some() && self.threshold.is_some() {
            return Err("expected sparsity or threshold, found both".into());
        }
        if self.rounds == 0 {
            return Err("expected at least one round, found 0".into());
        }
        if self.schedule == Ramp::OneShot && self.rounds > 1 {
            return Err(format!(
                "schedule one-shot takes one round, found {}",
                self.rounds
            ));
        }
        self.fits()?;
        self.photos.iter().try_for_each(Photos::check)?;
        self.finetune.iter().try_for_each(Finetune::check)?;
        self.recover.iter().try_for_each(Recover::check)?;
        self.recover
            .iter()
            .try_for_each(|r| r.goes_with(self.pattern.into()))
    }
}

impl Finetune {
    fn check(&self) -> Result<(), String> {
        self.photos.iter().try_for_each(Photos::check)?;
        self.optimizer.iter().try_for_each(|o| optimizer(o).map(drop))?;
        self.loss.iter().try_for_each(|l| loss(l).map(drop))?;
        let schedule = |s: &String| s.parse::<Schedule>().map(drop);
        self.lr_schedule.iter().try_for_each(schedule)
    }
}

impl Recover {
    fn check(&self) -> Result<(), String> {
        let known = |name: &String| REPAIRS.iter().any(|(n, ..)| n == name);
        let names = || REPAIRS.iter().map(|(n, ..)| *n).collect::<Vec<_>>().join(", ");
        self.photos.iter().try_for_each(Photos::check)?;
        match self.repairs.iter().find(|name| !known(name)) {
            Some(wrong) => Err(format!("no repair {wrong:?}; there are: {}", names())),
            None => Ok(()),
        }
    }

    /// Whether it goes with what a step does to weights.
    fn goes_with(&self, pattern: Blend) -> Result<(), String> {
        match self.makes_up() && pattern.piece().is_none() {
            true => Err(format!(
                "repair weights makes up for what is cut away; pattern {pattern} makes zeros"
            )),
            false => Ok(()),
        }
    }

    /// Whether weights are fitted to what a cut leaves.
    fn makes_up(&self) -> bool {
        let weights = |name: &String| {
            let named = REPAIRS.iter().find(|(n, ..)| n == name);
            matches!(named, Some((_, Repair::Weights, _)))
        };
        self.repairs.iter().any(weights)
    }
}

impl Step {
    fn check(&self) -> Result<(), String> {
        match self {
            Step::Prune(prune) => prune.check(),
            Step::Finetune(finetune) => finetune.check(),
            Step::Recover(recover) if recover.repairs.is_empty() => Err("no repairs are named".into()),
            Step::Recover(recover) if recover.makes_up() => {
                Err("repair weights makes up for what its own step cuts away; this one only recovers".into())
            }
            Step::Recover(recover) => recover.check(),
            Step::Budget(budget) => budget.check(),
        }
    }
}

impl Recipe {
    /// Whether all that it names is there and fits together.
    ///
    /// # Errors
    ///
    /// What does not, and in which step.
    pub fn check(&self) -> Result<(), String> {
        for (step, n) in self.step.iter().zip(1..) {
            step.check().map_err(|e| format!("step {n}: {e}"))?;
        }
        let budget = |step: &Step| matches!(step, Step::Budget(_));
        match (self.step.iter().any(budget), self.step.len()) {
            (_, 0) => Err("the recipe has no [[step]]".into()),
            (true, n) if n > 1 => Err(format!("expected a budget as the only step, found {n} steps")),
            _ => Ok(()),
        }
    }

    /// The recipe as people write it.
    ///
    /// # Errors
    ///
    /// If a name cannot be written as TOML.
    pub fn toml(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|e| e.to_string())
    }
}

impl FromStr for Recipe {
    type Err = String;

    /// Reads TOML; names that do not exist are refused.
    fn from_str(text: &str) -> Result<Recipe, String> {
        let recipe: Recipe = toml::from_str(text).map_err(|e| e.to_string())?;
        recipe.check()?;
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests;
