//! By which steps a share of zeros is reached.

use std::fmt;
use std::str::FromStr;

use secateur_engine::run::nearest;
use serde::{Deserialize, Serialize};

/// How the share of zeros grows from round to round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Ramp {
    /// All of it in the first round.
    OneShot,
    /// As much in every round.
    Linear,
    /// Much at first and little at last: what is missing falls with the third power of the rounds that are left (Zhu &
    /// Gupta 2017, arXiv:1710.01878).
    #[default]
    Cubic,
    /// Every round takes the same share of the weights that are left.
    Exponential,
}

/// The ramps by the names that recipes and the command line use, with what they do.
pub static RAMPS: &[(&str, Ramp, &str)] = &[
    ("cubic", Ramp::Cubic, "Much at first and little at last."),
    (
        "exponential",
        Ramp::Exponential,
        "Every round takes the same share of what is left.",
    ),
    ("linear", Ramp::Linear, "Every round takes as much."),
    ("one-shot", Ramp::OneShot, "The first round takes all."),
];

impl Ramp {
    /// The share of zeros after round `round` of `of`, counted from 1, on the way from the share `from` to the share `to`.
    /// It falls from no round to the next, and is exactly `to` in the last; where there are more zeros than `to` already,
    /// it is `to` in all.
    pub fn share(self, (from, to): (f64, f64), round: u32, of: u32) -> f64 {
        if round >= of || from >= to {
            return to;
        }
        let left = 1.0 - f64::from(round) / f64::from(of);
        match self {
            Ramp::OneShot => to,
            Ramp::Linear => to - (to - from) * left,
            Ramp::Cubic => to - (to - from) * left.powi(3),
            Ramp::Exponential => 1.0 - (1.0 - to).powf(1.0 - left) * (1.0 - from).powf(left),
        }
    }
}

impl fmt::Display for Ramp {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let named = RAMPS.iter().find(|(_, ramp, _)| ramp == self);
        f.write_str(named.map_or("", |(name, ..)| name))
    }
}

impl From<Ramp> for String {
    fn from(ramp: Ramp) -> String {
        ramp.to_string()
    }
}

impl FromStr for Ramp {
    type Err = String;

    fn from_str(text: &str) -> Result<Ramp, String> {
        let found = RAMPS.iter().find(|(name, ..)| *name == text);
        let known: Vec<String> = RAMPS.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let near = || nearest(text, &known);
        found
            .map(|(_, ramp, _)| *ramp)
            .ok_or_else(|| format!("no schedule {text:?}{}; there are: {}", near(), known.join(", ")))
    }
}

impl TryFrom<String> for Ramp {
    type Error = String;

    fn try_from(text: String) -> Result<Ramp, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramps_are_sorted_and_come_back_by_name() {
        assert!(RAMPS.is_sorted_by_key(|(name, ..)| name));
        for (name, ramp, about) in RAMPS {
            assert_eq!((name.parse(), &*ramp.to_string()), (Ok(*ramp), *name));
            assert!(about.ends_with('.'));
        }
        let wrong = "cubik".parse::<Ramp>().unwrap_err();
        assert!(wrong.contains("did you mean \"cubic\"?"), "{wrong}");
    }

    #[test]
    fn no_ramp_falls_and_all_end_exactly() {
        for (_, ramp, _) in RAMPS {
            for (from, to) in [
                (0.0, 0.9),
                (0.3, 0.95),
                (0.5, 0.5),
                (0.9, 0.5),
                (0.0, 1.0),
                (0.0, 0.0),
            ] {
                let shares: Vec<f64> = (1..=7).map(|r| ramp.share((from, to), r, 7)).collect();
                assert!(shares.is_sorted(), "{ramp} {from} {to}: {shares:?}");
                assert_eq!(shares[6], to, "{ramp}");
                assert!(shares[0] >= from.min(to), "{ramp} {from} {to}: {shares:?}");
                assert_eq!(ramp.share((from, to), 1, 1), to);
            }
        }
    }

    #[test]
    fn ramps_take_what_their_names_say() {
        let near = |ramp: Ramp, from, expected: [f64; 3]| {
            for (round, share) in (1..).zip(expected) {
                let found = ramp.share((from, 0.9), round, 4);
                assert!(
                    (found - share).abs() < 1e-12,
                    "{ramp} {round}: {found}, not {share}"
                );
            }
        };
        near(Ramp::OneShot, 0.1, [0.9, 0.9, 0.9]);
        near(Ramp::Linear, 0.1, [0.3, 0.5, 0.7]);
        near(Ramp::Cubic, 0.1, [0.9 - 0.8 * 27.0 / 64.0, 0.8, 0.9 - 0.8 / 64.0]);
        // What is left is multiplied by the fourth root of a ten thousandth, a tenth.
        for (round, left) in [(1, 0.1f64), (2, 0.01), (3, 0.001)] {
            let share = Ramp::Exponential.share((0.0, 0.9999), round, 4);
            assert!((share - (1.0 - left)).abs() < 1e-12, "{round}: {share}");
        }
    }
}
