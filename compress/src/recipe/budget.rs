//! A step that goes as far as a budget allows.

use serde::{Deserialize, Serialize};

use super::{Finetune, Recover};
use crate::budget::Target;
use crate::methods::find;
use crate::{Blend, Choice, METHODS};

/// A step that prunes as far as the model stays good; the only one of its recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgeted {
    /// By how many points the model may be worse: percentage points of accuracy or of agreement with what it was, or percent of the loss.
    pub max_drop: f64,
    /// How far to go; as far as the budget allows where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// How many steps are tried at most; [`Budgeted::tries`] where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries: Option<u32>,
    /// What chooses the weights: a name of [`METHODS`]; `magnitude` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Which weights are zero together, what is cut away, or both.
    #[serde(default)]
    pub pattern: Blend,
    /// What to leave alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// What to prune though it would be left alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// The inputs that the data `-i` stands for, `NAME=SOURCE` as the command line has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// The number of examples on which the method sees the model at work, if it wants to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u32>,
    /// What makes up for each step without training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover: Option<Recover>,
    /// The examples, and how the model is trained after each step: its epochs are those of one step. The data `-i` is
    /// [`Budgeted::inputs`].
    pub finetune: Finetune,
}

impl Budgeted {
    /// The name of what chooses the weights.
    pub fn method(&self) -> &str {
        self.method.as_deref().unwrap_or("magnitude")
    }

    /// How many steps are tried at most.
    pub fn tries(&self) -> u32 {
        self.tries.unwrap_or(12)
    }

    /// Which weights are pruned.
    pub fn choice(&self) -> Choice {
        Choice {
            keep: self.keep.clone(),
            include: self.include.clone(),
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.pattern.zeros().is_none() && !self.include.is_empty() {
            return Err(format!("pattern {} takes no include", self.pattern));
        }
        if !(self.max_drop >= 0.0 && self.max_drop.is_finite()) {
            return Err(format!(
                "expected a max_drop of 0 points or more, found {}",
                self.max_drop
            ));
        }
        if self.tries == Some(0) {
            return Err("expected at least one try, found 0".into());
        }
        if find(self.method()).is_none() {
            let names: Vec<&str> = METHODS.iter().map(|m| m.name()).collect();
            return Err(format!(
                "no method {:?}; there are: {}",
                self.method(),
                names.join(", ")
            ));
        }
        if self.method() == "threshold" {
            return Err(
                "method threshold takes no share of zeros, which a budget decides; expected another".into(),
            );
        }
        self.finetune.check()?;
        self.recover.iter().try_for_each(Recover::check)?;
        self.recover.iter().try_for_each(|r| r.goes_with(self.pattern))
    }
}
