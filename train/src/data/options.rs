//! How a source is read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DataError;

/// What labels are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// One of some classes: labels are `i64[batch]`.
    #[default]
    Classes,
    /// Numbers: labels are `f32[batch, values]`.
    Values,
    /// There need be none; labels are zeros, `f32[batch, 1]`, if there are none.
    Unlabelled,
}

/// How many examples a split has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// This share of those that there are, from 0 to 1.
    Share(f64),
    /// As many as this.
    Count(usize),
}

impl Part {
    /// Of `n` examples, rounded to nearest.
    pub fn of(self, n: usize) -> usize {
        match self {
            Part::Share(share) => (share * n as f64).round() as usize,
            Part::Count(count) => count,
        }
    }
}

impl FromStr for Part {
    type Err = DataError;

    /// `500`, `0.1` or `10%`.
    fn from_str(text: &str) -> Result<Part, DataError> {
        let text = text.trim();
        if let Ok(count) = text.parse() {
            return Ok(Part::Count(count));
        }
        let (number, whole) = text
            .strip_suffix('%')
            .map_or((text, 1.0), |t| (t.trim_end(), 100.0));
        let share = number.parse::<f64>().ok().map(|x| x / whole);
        let share = share.filter(|s| (0.0..1.0).contains(s));
        let wrong = || {
            DataError::choice(format!(
                "expected a number of examples, or a share as 0.1 or 10%, found {text:?}"
            ))
        };
        share.map(Part::Share).ok_or_else(wrong)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Part::Share(share) => write!(f, "{share:?}"),
            Part::Count(count) => write!(f, "{count}"),
        }
    }
}

/// How a source is read and split.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// What labels are.
    pub task: Task,
    /// Decides which examples go into which split.
    pub seed: u64,
    /// Examples for validation, taken from those for training, unless the source has a split of its own for it.
    pub validation: Part,
    /// Where the source has test examples of its own and none for validation, takes a half of those for it instead. Models that have
    /// learned the training examples by heart are not judged by them then.
    pub halve: bool,
    /// Examples for testing; `None` is those that the source sets apart, or else a tenth.
    pub test: Option<Part>,
    /// To what photos are resized, `[channels, height, width]`.
    pub image: Option<[usize; 3]>,
    /// The column of a table that is the label, by its name, or by its number from 0; `None` is the last one, or the one
    /// that the table declares.
    pub label: Option<String>,
    /// Texts: words in the vocabulary, with the two ids for padding and for words outside it.
    pub vocabulary: usize,
    /// Texts: words of one example.
    pub words: usize,
    /// Threads that decode photos.
    pub threads: usize,
    /// Bytes that decoded examples may take; photos beyond are decoded again whenever they are read.
    pub memory: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            task: Task::Classes,
            seed: 0,
            validation: Part::Share(0.1),
            halve: false,
            test: None,
            image: None,
            label: None,
            vocabulary: 10_000,
            words: 128,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory: secateur_engine::plan::available().map_or(1 << 30, |free| free / 4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counts_or_shares() {
        let of = |t: &str| t.parse::<Part>();
        assert_eq!(of("500"), Ok(Part::Count(500)));
        assert_eq!(
            (of("0.25"), of(" 25 % ")),
            (Ok(Part::Share(0.25)), Ok(Part::Share(0.25)))
        );
        assert!(
            ["", "-1", "1.5", "100%", "nan", "x"]
                .iter()
                .all(|t| of(t).is_err())
        );
        assert_eq!((Part::Share(0.1).of(25), Part::Count(3).of(25)), (3, 3));
        let again = |p: Part| p.to_string().parse() == Ok(p);
        assert!(again(Part::Share(0.1)) && again(Part::Count(7)) && again(Part::Share(0.0)));
    }
}
