//! Changes to a model, as values: decided, written down, read again, compared, applied.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Change {
    /// Elements become zero.
    Mask(Mask),
}

/// Small elements of one constant become zero: those with |x| ≤ `threshold`, except that of those with |x| = `threshold`
/// the first `ties` in row-major order stay. NaNs stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mask {
    /// The constant; see [`Weight::name`](crate::Weight::name).
    pub value: String,
    /// The number of elements it has.
    pub elements: u64,
    /// The threshold, ≥ 0. In files it is text, which keeps every number exactly, infinity too.
    #[serde(with = "text")]
    pub threshold: f64,
    /// How many elements of the threshold's magnitude stay.
    pub ties: u64,
}

/// What a method decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan(pub Vec<Change>);

impl Change {
    /// The name of the value that is changed.
    pub fn value(&self) -> &str {
        match self {
            Change::Mask(m) => &m.value,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Change::Mask(m) => {
                let Mask {
                    value,
                    elements,
                    threshold,
                    ties,
                } = m;
                write!(
                    f,
                    "mask {value:?} ({elements} elements): |x| ≤ {threshold} becomes 0"
                )?;
                match ties {
                    0 => Ok(()),
                    n => write!(f, ", but the first {n} of |x| = {threshold} stay"),
                }
            }
        }
    }
}

/// One line for each change.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.iter().try_for_each(|c| writeln!(f, "{c}"))
    }
}

mod text {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(x: &f64, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(x)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        let x: f64 = String::deserialize(d)?.parse().map_err(Error::custom)?;
        match x >= 0.0 {
            true => Ok(x),
            false => Err(Error::custom(format!(
                "expected a threshold of at least 0, found {x}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(threshold: f64, ties: u64) -> Change {
        Change::Mask(Mask {
            value: "w".into(),
            elements: 10,
            threshold,
            ties,
        })
    }

    #[test]
    fn a_plan_comes_back_as_it_was_written() {
        let thresholds = [0.0, 0.1, f64::from(0.1f32), 5e-324, f64::MAX, f64::INFINITY];
        let plan = Plan(thresholds.iter().map(|&x| mask(x, 3)).collect());
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        assert!(text.starts_with(r#"[{"change":"mask","value":"w","elements":10,"threshold":"0","ties":3}"#));
    }

    #[test]
    fn an_impossible_threshold_is_refused() {
        for bad in ["-1", "NaN", "x"] {
            let text =
                format!(r#"[{{"change":"mask","value":"w","elements":1,"threshold":"{bad}","ties":0}}]"#);
            assert!(serde_json::from_str::<Plan>(&text).is_err());
        }
    }

    #[test]
    fn a_plan_is_printed_line_by_line() {
        let text = Plan(vec![mask(0.5, 0), mask(0.25, 2)]).to_string();
        let expected = "mask \"w\" (10 elements): |x| ≤ 0.5 becomes 0\n\
            mask \"w\" (10 elements): |x| ≤ 0.25 becomes 0, but the first 2 of |x| = 0.25 stay\n";
        assert_eq!(text, expected);
    }
}
