//! What was measured, and what follows from it.

use serde_json::{Value, json};

use crate::cmd::pruning::percent;
use crate::cmd::table::Table;
use crate::cmd::timing::{median, quantile};

/// Milliseconds of some runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Times {
    pub(super) min: f64,
    pub(super) median: f64,
}

impl Times {
    pub(super) fn of(times: &mut [f64]) -> Times {
        Times {
            min: quantile(times, 0.0),
            median: median(times),
        }
    }
}

/// One model or layer in one engine, at one sparsity.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The model or layer.
    pub(super) name: String,
    pub(super) engine: String,
    /// The pattern's name; `dense` of what was not pruned.
    pub(super) pattern: String,
    /// The share that was asked for.
    pub(super) sparsity: f64,
    /// The share of zeros among the weights that are pruned.
    pub(super) zeros: f64,
    pub(super) times: Times,
    /// The engine's dense time in the same turns ÷ its time.
    pub(super) speedup: f64,
    /// The time of the fastest other engine on the same file ÷ that of `self`; only of `self`.
    pub(super) vs_peer: Option<f64>,
}

/// What is not pruned is called.
pub(super) const DENSE: &str = "dense";

/// The columns of files.
const COLUMNS: [&str; 10] = [
    "engine",
    "pattern",
    "precision",
    "sparsity",
    "ms",
    "min_ms",
    "median_ms",
    "speedup",
    "zeros",
    "vs_peer",
];

impl Row {
    /// What the columns hold.
    fn values(&self) -> [Value; 10] {
        let Times { min, median } = self.times;
        [
            json!(self.engine),
            json!(self.pattern),
            json!("f32"),
            json!(self.sparsity),
            json!(min),
            json!(min),
            json!(median),
            json!(self.speedup),
            json!(self.zeros),
            json!(self.vs_peer),
        ]
    }

    /// As `rows[]` has it; `what` says what the name is of: `model` or `layer`.
    pub(super) fn json(&self, what: &str) -> Value {
        let mut json = json!({ what: self.name });
        for (key, value) in COLUMNS.into_iter().zip(self.values()) {
            json[key] = value;
        }
        json
    }
}

/// `rows` as comma-separated values.
pub(super) fn csv(rows: &[Row], what: &str) -> String {
    let mut text = format!("{what},{}\n", COLUMNS.join(","));
    for row in rows {
        let values = row.values();
        let cells = values.iter().map(|v| match v {
            Value::String(s) => quoted(s),
            Value::Null => String::new(),
            other => other.to_string(),
        });
        let cells: Vec<String> = std::iter::once(quoted(&row.name)).chain(cells).collect();
        text += &format!("{}\n", cells.join(","));
    }
    text
}

/// A cell as RFC 4180 has it.
fn quoted(cell: &str) -> String {
    match cell.contains([',', '"', '\n']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_owned(),
    }
}

/// `rows` for people.
pub(super) fn table(rows: &[Row], what: &str) -> Table {
    let heads = [
        what,
        "engine",
        "pattern",
        "sparsity %",
        "zeros %",
        "ms",
        "median ms",
        "speed-up",
        "peer ÷ self",
    ];
    let mut table = Table::new(&heads);
    for r in rows {
        table.row([
            r.name.clone(),
            r.engine.clone(),
            r.pattern.clone(),
            percent(r.sparsity).to_string(),
            format!("{:.1}", 100.0 * r.zeros),
            format!("{:.3}", r.times.min),
            format!("{:.3}", r.times.median),
            format!("{:.2}", r.speedup),
            r.vs_peer.map_or("–".into(), |x| format!("{x:.2}")),
        ]);
    }
    table
}

/// The least speed-up that counts as one.
const GAIN: f64 = 1.05;

/// The rows of one model or layer, engine and pattern.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) engine: String,
    pub(super) pattern: String,
    /// Sparsity and speed-up, ascending; without the dense one.
    pub(super) points: Vec<(f64, f64)>,
    /// [`Row::vs_peer`] at the greatest sparsity.
    pub(super) vs_peer: Option<f64>,
}

impl Line {
    /// The sparsity from which on it is faster than dense, between two points by a straight line; `None` where it never gains
    /// [`GAIN`], so that noise about 1 is no break-even.
    pub(super) fn break_even(&self) -> Option<f64> {
        if self.points.iter().all(|p| p.1 < GAIN) {
            return None;
        }
        let below = self.points.iter().rposition(|p| p.1 < 1.0);
        let above = self.points.get(below.map_or(0, |i| i + 1))?;
        Some(match below.map(|i| self.points[i]) {
            Some((x, y)) => x + (above.0 - x) * (1.0 - y) / (above.1 - y),
            None => above.0,
        })
    }

    /// As `lines[]` has it.
    pub(super) fn json(&self, what: &str) -> Value {
        json!({
            what: self.name,
            "engine": self.engine,
            "pattern": self.pattern,
            "precision": "f32",
            "break_even": self.break_even(),
            "vs_peer": self.vs_peer,
        })
    }

    /// The same in words.
    pub(super) fn words(&self) -> String {
        let Line { engine, pattern, .. } = self;
        match self.break_even() {
            Some(x) => format!(
                "{engine}, {pattern}: faster than dense from {:.0} % zeros on",
                100.0 * x
            ),
            None => format!("{engine}, {pattern}: nowhere faster than dense"),
        }
    }
}

/// The lines in `rows`, in their order.
pub(super) fn lines(rows: &[Row]) -> Vec<Line> {
    let mut lines: Vec<Line> = vec![];
    for row in rows.iter().filter(|r| r.pattern != DENSE) {
        let same = |l: &&mut Line| (&l.name, &l.engine, &l.pattern) == (&row.name, &row.engine, &row.pattern);
        let point = (row.sparsity, row.speedup);
        match lines.iter_mut().find(same) {
            Some(line) => {
                line.points.push(point);
                line.vs_peer = row.vs_peer;
            }
            None => lines.push(Line {
                name: row.name.clone(),
                engine: row.engine.clone(),
                pattern: row.pattern.clone(),
                points: vec![point],
                vs_peer: row.vs_peer,
            }),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sparsity: f64, speedup: f64) -> Row {
        Row {
            name: "a,\"b\"".into(),
            engine: "self".into(),
            pattern: if sparsity == 0.0 { DENSE } else { "row" }.into(),
            sparsity,
            zeros: sparsity,
            times: Times {
                min: 1.0,
                median: 2.0,
            },
            speedup,
            vs_peer: Some(3.0).filter(|_| sparsity > 0.5),
        }
    }

    fn break_even(points: &[(f64, f64)]) -> Option<f64> {
        let rows: Vec<Row> = points.iter().map(|&(x, y)| row(x, y)).collect();
        lines(&rows)[0].break_even().map(|x| (x * 1e9).round() / 1e9)
    }

    #[test]
    fn break_even_is_where_the_line_crosses_one_for_good() {
        assert_eq!(break_even(&[(0.0, 1.0), (0.5, 0.5), (0.75, 1.5)]), Some(0.625));
        assert_eq!(break_even(&[(0.5, 0.5), (0.75, 1.0), (0.9, 2.0)]), Some(0.75));
        assert_eq!(break_even(&[(0.5, 1.1), (0.6, 0.9), (0.7, 1.1)]), Some(0.65));
        assert_eq!(break_even(&[(0.5, 1.2), (0.9, 1.3)]), Some(0.5));
        assert_eq!(break_even(&[(0.5, 1.2), (0.9, 0.9)]), None);
        assert_eq!(break_even(&[(0.5, 0.99), (0.9, 1.02)]), None, "noise");
    }

    #[test]
    fn files_have_the_columns_of_the_rows() {
        let rows = [row(0.0, 1.0), row(0.9, 2.0)];
        let text = csv(&rows, "model");
        let lines: Vec<&str> = text.lines().collect();
        let json = rows[1].json("model");
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(|k| &**k).collect();
        assert_eq!(lines[0], keys.join(","));
        assert_eq!(
            lines[1],
            "\"a,\"\"b\"\"\",self,dense,f32,0.0,1.0,1.0,2.0,1.0,0.0,"
        );
        assert_eq!(
            lines[2],
            "\"a,\"\"b\"\"\",self,row,f32,0.9,1.0,1.0,2.0,2.0,0.9,3.0"
        );
    }
}
