//! Which weights are zero together.

use std::fmt;
use std::str::FromStr;

use secateur_engine::run::nearest;
use serde::{Deserialize, Serialize};

use crate::math::Tiles;
use crate::weights::{Exempt, Weight};

/// Which weights are zero together, in a weight seen as matrices [outputs, inputs]; see [`Matrix`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Pattern {
    /// Each weight by itself.
    #[default]
    Unstructured,
    /// Weights of so many neighbouring outputs and neighbouring inputs, aligned to these numbers.
    Block {
        /// Neighbouring outputs.
        outputs: usize,
        /// Neighbouring inputs; of a convolution input channels, at one place of the window.
        inputs: usize,
    },
    /// Of `of` neighbouring inputs of an output, aligned, the `keep` largest weights stay.
    Most {
        /// Weights that stay.
        keep: usize,
        /// Weights of which they stay.
        of: usize,
    },
    /// All weights of an output.
    Row,
    /// All weights of an input.
    Column,
}

/// The patterns by the names that recipes and the command line use.
pub static PATTERNS: &[(&str, Pattern)] = &[
    ("unstructured", Pattern::Unstructured),
    (
        "block4x1",
        Pattern::Block {
            outputs: 4,
            inputs: 1,
        },
    ),
    (
        "block1x4",
        Pattern::Block {
            outputs: 1,
            inputs: 4,
        },
    ),
    ("2:4", Pattern::Most { keep: 2, of: 4 }),
    ("4:8", Pattern::Most { keep: 4, of: 8 }),
    ("1:4", Pattern::Most { keep: 1, of: 4 }),
    ("row", Pattern::Row),
    ("column", Pattern::Column),
];

impl Pattern {
    /// The share of zeros that the pattern itself decides, where all blocks are whole.
    pub fn share(self) -> Option<f64> {
        match self {
            Pattern::Most { keep, of } => Some(1.0 - keep as f64 / of as f64),
            _ => None,
        }
    }

    /// Marks those of `weights` exempt that cannot have the pattern, because it is not known which of their axes are
    /// outputs and which inputs.
    pub fn mark(self, weights: &mut [Weight]) {
        let pruned = weights.iter_mut().filter(|w| w.exempt.is_none());
        pruned
            .filter(|w| !self.fits(w))
            .for_each(|w| w.exempt = Some(Exempt::Unordered));
    }

    /// Whether `weight` can have the pattern.
    pub(crate) fn fits(self, weight: &Weight) -> bool {
        self == Pattern::Unstructured || weight.matrix.as_ref().is_some_and(|m| m.tiles(self).is_some())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Pattern::Unstructured => f.write_str("unstructured"),
            Pattern::Block { outputs, inputs } => write!(f, "block{outputs}x{inputs}"),
            Pattern::Most { keep, of } => write!(f, "{keep}:{of}"),
            Pattern::Row => f.write_str("row"),
            Pattern::Column => f.write_str("column"),
        }
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.to_string()
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Pattern, String> {
        let found = PATTERNS.iter().find(|(name, _)| *name == text);
        let known: Vec<String> = PATTERNS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let near = || nearest(text, &known);
        found
            .map(|(_, p)| *p)
            .ok_or_else(|| format!("no pattern {text:?}{}; there are: {}", near(), known.join(", ")))
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Pattern, String> {
        text.parse()
    }
}

/// What an axis of a weight is for the product that the weight is an operand of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It tells matrices apart that do not mix: groups of a convolution, directions of a recurrent layer.
    Each,
    /// Outputs.
    Output,
    /// What is summed over: inputs.
    Input,
    /// Places of a window, which are summed over too.
    Tap,
}

/// A weight as the matrices [outputs, inputs] that its operator multiplies by: row-major axes, which may be more than the
/// tensor has, and what each is. The weight of a `Conv` is [outputs, inputs, taps…], in groups [groups, outputs, inputs,
/// taps…]; that of a `MatMul` [inputs, outputs].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// The size of each axis, outermost first.
    pub dims: Vec<usize>,
    /// What each is.
    pub roles: Vec<Role>,
}

impl Matrix {
    /// What `pattern` makes zero together, or chooses among; `None` for single weights, and where there is no such axis.
    pub fn tiles(&self, pattern: Pattern) -> Option<Tiles> {
        let (ones, last) = (vec![1; self.dims.len()], |role| self.last(role));
        let tile = match pattern {
            Pattern::Unstructured => return None,
            Pattern::Block { outputs, inputs } => {
                let mut tile = ones;
                tile[last(Role::Output)?] = outputs;
                tile[last(Role::Input)?] = inputs;
                tile
            }
            Pattern::Most { of, .. } => {
                let mut tile = ones;
                tile[last(Role::Input)?] = of;
                tile
            }
            Pattern::Row => self.all_but(Role::Output)?,
            Pattern::Column => self.all_but(Role::Input)?,
        };
        let dims = self.dims.clone();
        Some(Tiles { dims, tile })
    }

    fn last(&self, role: Role) -> Option<usize> {
        self.roles.iter().rposition(|r| *r == role)
    }

    /// A tile for each place along the axes of `role`.
    fn all_but(&self, role: Role) -> Option<Vec<usize>> {
        self.last(role)?;
        let apart = |r: Role| r == role || r == Role::Each;
        let axes = self.dims.iter().zip(&self.roles);
        Some(axes.map(|(&d, &r)| if apart(r) { 1 } else { d }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_called_by_their_names() {
        for (name, pattern) in PATTERNS {
            assert_eq!(pattern.to_string(), *name);
            assert_eq!(name.parse(), Ok(*pattern));
            let text = serde_json::to_string(pattern).unwrap();
            assert_eq!(serde_json::from_str::<Pattern>(&text).unwrap(), *pattern);
        }
        let error = "block4x2".parse::<Pattern>().unwrap_err();
        assert!(
            error.contains("did you mean \"block4x1\"") && error.contains("2:4"),
            "{error}"
        );
        assert_eq!(Pattern::Most { keep: 1, of: 4 }.share(), Some(0.75));
    }

    #[test]
    fn tiles_follow_from_the_roles() {
        use Role::{Each, Input, Output, Tap};
        let matrix = |axes: &[(usize, Role)]| Matrix {
            dims: axes.iter().map(|a| a.0).collect(),
            roles: axes.iter().map(|a| a.1).collect(),
        };
        let tile = |m: &Matrix, name: &str| m.tiles(name.parse().unwrap()).map(|t| t.tile);
        let conv = matrix(&[(2, Each), (8, Output), (6, Input), (3, Tap), (3, Tap)]);
        assert_eq!(tile(&conv, "unstructured"), None);
        assert_eq!(tile(&conv, "block4x1"), Some(vec![1, 4, 1, 1, 1]));
        assert_eq!(tile(&conv, "block1x4"), Some(vec![1, 1, 4, 1, 1]));
        assert_eq!(tile(&conv, "4:8"), Some(vec![1, 1, 8, 1, 1]));
        assert_eq!(tile(&conv, "row"), Some(vec![1, 1, 6, 3, 3]));
        assert_eq!(tile(&conv, "column"), Some(vec![1, 8, 1, 3, 3]));
        let product = matrix(&[(5, Input), (7, Output)]);
        assert_eq!(tile(&product, "block4x1"), Some(vec![1, 4]));
        assert_eq!(tile(&product, "row"), Some(vec![5, 1]));
        assert_eq!(tile(&matrix(&[(5, Output), (7, Each)]), "column"), None);
    }
}
