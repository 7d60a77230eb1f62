//! What goes together: weights that become zero, or pieces of a model that are cut away.

use std::fmt;
use std::str::FromStr;

use secateur_engine::run::nearest;
use serde::{Deserialize, Serialize};

use crate::groups::Kind;
use crate::pattern::{PATTERNS, Pattern};

/// What goes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Grain {
    /// Weights become zero; shapes stay.
    Zeros(Pattern),
    /// Pieces are cut away; the model becomes smaller and stays dense.
    Cuts(Piece),
}

/// What is cut away as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Piece {
    /// Residual blocks.
    Block,
    /// Channels of images.
    Channel,
    /// Heads of attention.
    Head,
    /// The width of each head.
    HeadWidth,
    /// Layers that keep the shape of what flows through them; see [`layers`](crate::layers()).
    Layer,
    /// Neurons.
    Neuron,
    /// Channels, heads and neurons.
    Structured,
}

/// The pieces by the names that recipes and the command line use.
pub static PIECES: &[(&str, Piece)] = &[
    ("block", Piece::Block),
    ("channel", Piece::Channel),
    ("head", Piece::Head),
    ("head-width", Piece::HeadWidth),
    ("layer", Piece::Layer),
    ("neuron", Piece::Neuron),
    ("structured", Piece::Structured),
];

impl Piece {
    /// The kinds of groups that become shorter; none where what goes is no part of an axis.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Piece::Block | Piece::Layer => &[],
            Piece::Channel => &[Kind::Channel],
            Piece::Head => &[Kind::Head],
            Piece::HeadWidth => &[Kind::HeadWidth],
            Piece::Neuron => &[Kind::Neuron],
            Piece::Structured => &[Kind::Channel, Kind::Head, Kind::Neuron],
        }
    }

    /// What a share is a share of where nothing else is said.
    pub fn counted(self) -> &'static str {
        match self {
            Piece::Block => "blocks",
            Piece::Layer => "layers",
            _ => "channels",
        }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let named = PIECES.iter().find(|(_, piece)| piece == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

impl Default for Grain {
    fn default() -> Grain {
        Grain::Zeros(Pattern::default())
    }
}

impl Grain {
    /// The pattern of zeros, if it makes some.
    pub fn zeros(self) -> Option<Pattern> {
        match self {
            Grain::Zeros(pattern) => Some(pattern),
            Grain::Cuts(_) => None,
        }
    }

    /// The piece that is cut away, if one is.
    pub fn piece(self) -> Option<Piece> {
        match self {
            Grain::Zeros(_) => None,
            Grain::Cuts(piece) => Some(piece),
        }
    }
}

impl From<Pattern> for Grain {
    fn from(pattern: Pattern) -> Grain {
        Grain::Zeros(pattern)
    }
}

impl From<Piece> for Grain {
    fn from(piece: Piece) -> Grain {
        Grain::Cuts(piece)
    }
}

impl fmt::Display for Grain {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Grain::Zeros(pattern) => pattern.fmt(f),
            Grain::Cuts(piece) => piece.fmt(f),
        }
    }
}

impl From<Grain> for String {
    fn from(grain: Grain) -> String {
        grain.to_string()
    }
}

impl FromStr for Grain {
    type Err = String;

    fn from_str(text: &str) -> Result<Grain, String> {
        let zeros = PATTERNS.iter().map(|&(n, p)| (n, Grain::Zeros(p)));
        let cuts = PIECES.iter().map(|&(n, p)| (n, Grain::Cuts(p)));
        let all: Vec<(&str, Grain)> = zeros.chain(cuts).collect();
        let known: Vec<String> = all.iter().map(|(n, _)| (*n).to_owned()).collect();
        let found = all.iter().find(|(name, _)| *name == text);
        let near = || nearest(text, &known);
        found
            .map(|(_, grain)| *grain)
            .ok_or_else(|| format!("no pattern {text:?}{}; there are: {}", near(), known.join(", ")))
    }
}

impl TryFrom<String> for Grain {
    type Error = String;

    fn try_from(text: String) -> Result<Grain, String> {
        text.parse()
    }
}

/// Pieces that are cut away, zeros in what is left, or both: `structured`, `unstructured`, `structured+unstructured`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Blend {
    cuts: Option<Piece>,
    zeros: Option<Pattern>,
}

impl Blend {
    /// The pattern of zeros, if it makes some.
    pub fn zeros(self) -> Option<Pattern> {
        self.zeros
    }

    /// The piece that is cut away, if one is.
    pub fn piece(self) -> Option<Piece> {
        self.cuts
    }

    fn parts(self) -> impl Iterator<Item = Grain> {
        let cuts = self.cuts.map(Grain::Cuts);
        cuts.into_iter().chain(self.zeros.map(Grain::Zeros))
    }
}

impl<T: Into<Grain>> From<T> for Blend {
    fn from(one: T) -> Blend {
        let one = one.into();
        Blend {
            cuts: one.piece(),
            zeros: one.zeros(),
        }
    }
}

impl Default for Blend {
    fn default() -> Blend {
        Grain::default().into()
    }
}

impl fmt::Display for Blend {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, part) in self.parts().enumerate() {
            write!(f, "{}{part}", if i > 0 { "+" } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Blend {
    type Err = String;

    fn from_str(text: &str) -> Result<Blend, String> {
        let mut parts = text.split('+').map(|part| part.trim().parse::<Grain>());
        let mut blend: Blend = parts.next().unwrap_or(Ok(Grain::default()))?.into();
        for part in parts {
            let twice = || {
                format!(
                    "{text:?} has two patterns of a kind; expected what is cut away and a pattern of zeros"
                )
            };
            match (part?, &mut blend) {
                (
                    Grain::Cuts(piece),
                    Blend {
                        cuts: cuts @ None, ..
                    },
                ) => *cuts = Some(piece),
                (
                    Grain::Zeros(pattern),
                    Blend {
                        zeros: zeros @ None, ..
                    },
                ) => *zeros = Some(pattern),
                _ => return Err(twice()),
            }
        }
        Ok(blend)
    }
}

impl TryFrom<String> for Blend {
    type Error = String;

    fn try_from(text: String) -> Result<Blend, String> {
        text.parse()
    }
}

impl From<Blend> for String {
    fn from(blend: Blend) -> String {
        blend.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_and_zeros_go_together_in_any_order() {
        let both = Blend {
            cuts: Some(Piece::Structured),
            zeros: Some(Pattern::Unstructured),
        };
        for text in ["structured+unstructured", "unstructured + structured"] {
            assert_eq!(text.parse(), Ok(both));
        }
        assert_eq!(both.to_string(), "structured+unstructured");
        assert_eq!("2:4".parse::<Blend>().unwrap().to_string(), "2:4");
        assert_eq!("head".parse(), Ok(Blend::from(Piece::Head)));
        for bad in ["", "+", "head+neuron", "2:4+row", "head+"] {
            assert!(bad.parse::<Blend>().is_err(), "{bad}");
        }
    }

    #[test]
    fn grains_are_told_apart_by_name() {
        assert!(PIECES.is_sorted_by_key(|(name, _)| *name));
        for &(name, piece) in PIECES {
            let grain = Grain::Cuts(piece);
            assert_eq!((name.parse(), &*grain.to_string()), (Ok(grain), name));
            let text = serde_json::to_string(&grain).unwrap();
            assert_eq!(serde_json::from_str::<Grain>(&text).unwrap(), grain);
        }
        let most = Pattern::Most { keep: 2, of: 4 };
        assert_eq!("2:4".parse(), Ok(Grain::from(most)));
        let error = "chanel".parse::<Grain>().unwrap_err();
        assert!(
            error.contains("did you mean \"channel\"") && error.contains("block4x1"),
            "{error}"
        );
    }
}
