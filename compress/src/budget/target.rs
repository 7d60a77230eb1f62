//! What a budget is to reach.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What is to become less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Milliseconds of a run on this machine.
    Ms,
    /// Megabytes of constants (10⁶ bytes) in a file that leaves out zeros where that makes it smaller: f32 values with their indices.
    Mb,
    /// Multiplications of a run, in millions, those by zeros left out.
    Macs,
}

/// How far it is to go: `2x`, `8ms`, `4.5MB` or `300M` (multiplications).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// So many times as fast.
    Times(f64),
    /// At most so much.
    Most(Quantity, f64),
}

impl Target {
    /// What becomes less.
    pub fn quantity(self) -> Quantity {
        match self {
            Target::Times(_) => Quantity::Ms,
            Target::Most(quantity, _) => quantity,
        }
    }

    /// The most that it may be, where it was `before`.
    pub fn most(self, before: f64) -> f64 {
        match self {
            Target::Times(n) => before / n,
            Target::Most(_, most) => most,
        }
    }
}

/// The units, with what a number of them is to be multiplied by.
const UNITS: &[(&str, Quantity, f64)] = &[
    ("GMACs", Quantity::Macs, 1e3),
    ("G", Quantity::Macs, 1e3),
    ("MMACs", Quantity::Macs, 1.0),
    ("MB", Quantity::Mb, 1.0),
    ("KB", Quantity::Mb, 1e-3),
    ("ms", Quantity::Ms, 1.0),
    ("M", Quantity::Macs, 1.0),
];

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let wrong = || format!("{text:?} is no target; expected 2x, 8ms, 4.5MB or 300M (MACs)");
        let number = |digits: &str| {
            let x = digits.trim().parse::<f64>().ok();
            x.filter(|x| x.is_finite() && *x > 0.0).ok_or_else(wrong)
        };
        if let Some(times) = text.strip_suffix(['x', '×']) {
            let times = number(times)?;
            return match times >= 1.0 {
                true => Ok(Target::Times(times)),
                false => Err(format!("{text:?} would be slower; expected at least 1x")),
            };
        }
        let unit = UNITS
            .iter()
            .find_map(|(unit, q, by)| Some((text.strip_suffix(unit)?, *q, by)));
        let (digits, quantity, by) = unit.ok_or_else(wrong)?;
        Ok(Target::Most(quantity, number(digits)? * by))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Target::Times(n) => write!(f, "{n}x"),
            Target::Most(Quantity::Ms, x) => write!(f, "{x}ms"),
            Target::Most(Quantity::Mb, x) => write!(f, "{x}MB"),
            Target::Most(Quantity::Macs, x) => write!(f, "{x}M"),
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.to_string()
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Target, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_they_are_written() {
        for text in ["2x", "1.5x", "8ms", "4.5MB", "300M"] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
            assert_eq!(target.to_string().parse(), Ok(target));
        }
        assert_eq!("0.3GMACs".parse(), Ok(Target::Most(Quantity::Macs, 300.0)));
        assert_eq!("2x".parse::<Target>().map(|t| t.most(10.0)), Ok(5.0));
        for bad in ["", "x", "2", "0.5x", "-3ms", "infms", "nanx", "3 miles"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
