//! Changes to a model, as values: decided, written down, read again, compared, applied.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bytes::{Bits, Raw};
use crate::groups::Sizes;
use crate::math::Tiles;

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Change {
    /// Elements become zero.
    Mask(Mask),
    /// All elements of a constant become others.
    Replace(Replace),
    /// Groups of axes become shorter.
    Narrow(Narrow),
    /// A residual block is left out.
    Bypass(Bypass),
    /// A layer is left out.
    Skip(Skip),
}

/// One constant gets other elements. Its type and shape stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replace {
    /// The constant; see [`Weight::name`](crate::Weight::name).
    pub value: String,
    /// The number of elements it has.
    pub elements: u64,
    /// The new elements, as files hold them: row-major, little-endian. In plans they are base64.
    pub data: Raw,
}

/// A sum of two values becomes one of them: of `x + f(x)` stays `x`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bypass {
    /// The name of the sum.
    pub sum: String,
    /// Which input stays: 0 or 1.
    pub stays: usize,
}

/// What goes into a layer takes the place of what comes out of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// The name of what comes out.
    pub value: String,
    /// The name of what goes in.
    pub stays: String,
}

/// Of [groups](crate::groups()) of axes only some indices stay, in all that they run through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Narrow {
    /// The sizes of free dimensions that the groups were found with.
    #[serde(default, skip_serializing_if = "Sizes::is_empty")]
    pub sizes: Sizes,
    /// What stays of each group.
    pub groups: Vec<Keep>,
}

/// What stays of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The group; see [`Group::name`](crate::groups::Group::name).
    pub group: String,
    /// The number of indices it has.
    pub size: usize,
    /// The indices that stay, ascending; at least one.
    pub keep: Vec<usize>,
}

/// Small elements of one constant become zero, or whole tiles of them. NaNs stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mask {
    /// The constant; see [`Weight::name`](crate::Weight::name).
    pub value: String,
    /// The number of elements it has.
    pub elements: u64,
    /// What becomes zero as a whole, or is chosen from; single elements where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiles: Option<Tiles>,
    /// Which of them become zero.
    #[serde(flatten)]
    pub cut: Cut,
}

/// Which elements or tiles become zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Those whose (mean) magnitude is at most `threshold`, except that of those that equal it the first `ties` in
    /// row-major order stay.
    Small {
        /// The threshold, ≥ 0. In files it is text, which keeps every number exactly, infinity too.
        #[serde(with = "text")]
        threshold: f64,
        /// How many that equal it stay.
        ties: u64,
    },
    /// In each tile all elements but this many of the largest; of equal ones the first stay.
    AllBut(u64),
    /// Those with a one, in row-major order. There are no tiles.
    Listed(Bits),
}

/// What a method decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan(pub Vec<Change>);

impl Change {
    /// The name of the value, the first group or the sum that is changed.
    pub fn value(&self) -> &str {
        match self {
            Change::Mask(m) => &m.value,
            Change::Replace(r) => &r.value,
            Change::Narrow(n) => n.groups.first().map_or("", |k| &k.group),
            Change::Bypass(b) => &b.sum,
            Change::Skip(s) => &s.value,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Change::Mask(m) => m.fmt(f),
            Change::Replace(r) => write!(
                f,
                "replace {:?} ({} elements): by {} bytes",
                r.value,
                r.elements,
                r.data.0.len()
            ),
            Change::Narrow(n) => n.fmt(f),
            Change::Bypass(b) => write!(f, "bypass {:?}: input {} stays", b.sum, b.stays),
            Change::Skip(s) => write!(f, "skip {:?}: {:?} stays", s.value, s.stays),
        }
    }
}

impl fmt::Display for Narrow {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, k) in self.groups.iter().enumerate() {
            let end = if i + 1 < self.groups.len() { "\n" } else { "" };
            write!(f, "{k}{end}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (group, size, keep) = (&self.group, self.size, &self.keep);
        write!(f, "narrow {group:?} from {size} to {}: {keep:?} stay", keep.len())
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (value, elements) = (&self.value, &self.elements);
        write!(f, "mask {value:?} ({elements} elements")?;
        match &self.tiles {
            Some(t) => write!(f, " as {:?} in tiles of {:?}): ", t.dims, t.tile)?,
            None => f.write_str("): ")?,
        }
        let what = if self.tiles.is_some() { "mean |x|" } else { "|x|" };
        match &self.cut {
            Cut::Small { threshold, ties: 0 } => write!(f, "{what} ≤ {threshold} becomes 0"),
            Cut::Small { threshold, ties } if *ties >= *elements => {
                write!(f, "{what} < {threshold} becomes 0")
            }
            Cut::Small { threshold, ties } => write!(
                f,
                "{what} ≤ {threshold} becomes 0, but the first {ties} of {what} = {threshold} stay"
            ),
            Cut::AllBut(keep) => write!(f, "all but the {keep} largest of each become 0"),
            Cut::Listed(bits) => write!(f, "{} listed ones become 0", bits.ones()),
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
            tiles: None,
            cut: Cut::Small { threshold, ties },
        })
    }

    /// A mask over tiles of 5.
    fn tiled(cut: Cut) -> Change {
        let (dims, tile) = (vec![2, 5], vec![1, 5]);
        Change::Mask(Mask {
            value: "w".into(),
            elements: 10,
            tiles: Some(Tiles { dims, tile }),
            cut,
        })
    }

    #[test]
    fn a_plan_comes_back_as_it_was_written() {
        let thresholds = [0.0, 0.1, f64::from(0.1f32), 5e-324, f64::MAX, f64::INFINITY];
        let mut plan = Plan(thresholds.iter().map(|&x| mask(x, 3)).collect());
        let bits = Bits::of([true, false, true, false, false, false, false, false, true, false]);
        plan.0.push(Change::Replace(Replace {
            value: "w".into(),
            elements: 1,
            data: Raw(vec![0, 0, 128, 63]),
        }));
        let listed = Change::Mask(Mask {
            value: "w".into(),
            elements: 10,
            tiles: None,
            cut: Cut::Listed(bits),
        });
        plan.0.push(listed);
        plan.0.push(tiled(Cut::AllBut(2)));
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        let first = r#"[{"change":"mask","value":"w","elements":10,"small":{"threshold":"0","ties":3}}"#;
        let last = r#""tiles":{"dims":[2,5],"tile":[1,5]},"all_but":2}]"#;
        assert!(text.starts_with(first) && text.ends_with(last), "{text}");
        assert!(
            text.contains(r#""elements":1,"data":"AACAPw=="}"#) && text.contains(r#""listed":"BQE="}"#),
            "{text}"
        );
        let said = plan.to_string();
        assert!(said.contains("replace \"w\" (1 elements): by 4 bytes\n"));
        assert!(said.contains("mask \"w\" (10 elements): 3 listed ones become 0\n"));
    }

    #[test]
    fn an_impossible_threshold_is_refused() {
        for bad in ["-1", "NaN", "x"] {
            let text = |x: &str| {
                format!(
                    r#"[{{"change":"mask","value":"w","elements":1,"small":{{"threshold":"{x}","ties":0}}}}]"#
                )
            };
            assert!(serde_json::from_str::<Plan>(&text(bad)).is_err());
            assert!(serde_json::from_str::<Plan>(&text("1")).is_ok());
        }
    }

    #[test]
    fn a_plan_is_printed_line_by_line() {
        let threshold = 0.5;
        let tiles = [Cut::Small { threshold, ties: 1 }, Cut::AllBut(2)].map(tiled);
        let plain = [mask(0.5, 0), mask(0.25, 2)];
        let text = Plan(plain.into_iter().chain(tiles).collect()).to_string();
        let expected = "mask \"w\" (10 elements): |x| ≤ 0.5 becomes 0\n\
            mask \"w\" (10 elements): |x| ≤ 0.25 becomes 0, but the first 2 of |x| = 0.25 stay\n\
            mask \"w\" (10 elements as [2, 5] in tiles of [1, 5]): mean |x| ≤ 0.5 becomes 0, but the first 1 of mean |x| = \
            0.5 stay\n\
            mask \"w\" (10 elements as [2, 5] in tiles of [1, 5]): all but the 2 largest of each become 0\n";
        assert_eq!(text, expected);
    }
}
