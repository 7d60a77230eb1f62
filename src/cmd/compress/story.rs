//! What a compression has to show: tables, JSON, and what goes into the page.

use std::collections::HashMap;

use secateur::Model;
use secateur::compress::budget::{Curve, Quantity, Try, Verdict};
use secateur::compress::rounds::Score;
use secateur::compress::{Weight, weights};
use serde_json::{Value, json};

use super::super::report::{Layer, Tried, Worth};
use super::super::table::Table;
use super::hunt;

/// What came of a step, in words.
pub(super) fn verdict(t: &Try) -> &'static str {
    match t.verdict {
        Verdict::Kept => "kept",
        Verdict::TakenBack => "taken back",
    }
}

/// The curves as a table of comma-separated values.
pub(super) fn csv(curves: &[Curve]) -> String {
    let mut text = String::from("weight,elements,sparsity,loss,accuracy,cost\n");
    for c in curves {
        for p in &c.points {
            let name = match c.weight.contains([',', '"']) {
                true => format!("\"{}\"", c.weight.replace('"', "\"\"")),
                false => c.weight.clone(),
            };
            let accuracy = p.score.accuracy.map_or(String::new(), |a| a.to_string());
            text.push_str(&format!(
                "{name},{},{},{},{accuracy},{}\n",
                c.elements, p.sparsity, p.score.loss, p.cost
            ));
        }
    }
    text
}

/// A row for each curve: what the model is worth as a weight is pruned.
pub(super) fn curves(curves: &[Curve]) -> Table {
    let later = curves.iter().flat_map(|c| c.points.iter().skip(1));
    let mut levels: Vec<f64> = later.map(|p| p.sparsity).collect();
    levels.sort_by(f64::total_cmp);
    levels.dedup_by(|a, b| (*a - *b).abs() < 1e-3);
    let head: Vec<String> = levels.iter().map(|l| format!("{:.0} %", 100.0 * l)).collect();
    let head: Vec<&str> = ["weight", "elements", "as it is"]
        .into_iter()
        .chain(head.iter().map(String::as_str))
        .collect();
    let mut table = Table::new(&head);
    for c in curves {
        let at = |level: &f64| {
            let mut later = c.points.iter().skip(1);
            later.find(|p| (p.sparsity - level).abs() < 1e-3)
        };
        let points = levels
            .iter()
            .map(|l| at(l).map_or("–".into(), |p| hunt::worth(&p.score)));
        let first = c.points.first().map_or("–".into(), |p| hunt::worth(&p.score));
        let start = [c.weight.clone(), c.elements.to_string(), first];
        table.row(start.into_iter().chain(points));
    }
    table
}

/// A row for each weight and the share of it that would be zero.
pub(super) fn shares(shares: &[(String, f64)]) -> Table {
    let mut table = Table::new(&["weight", "zeros %"]);
    for (name, share) in shares {
        table.row([name.clone(), format!("{:.2}", 100.0 * share)]);
    }
    table
}

/// A row for each step.
pub(super) fn steps(tries: &[Try], quantity: Quantity) -> Table {
    let unit = hunt::unit(quantity);
    let mut table = Table::new(&["step", "pruned %", unit, "before recovery", "after", "", "s"]);
    for t in tries {
        let [before, after] = [&t.before, &t.after].map(hunt::worth);
        table.row([
            t.number.to_string(),
            format!("{:.2}", 100.0 * t.sparsity),
            format!("{:.4}", t.cost),
            before,
            after,
            verdict(t).to_owned(),
            format!("{:.1}", t.seconds),
        ]);
    }
    table
}

/// As `steps[]` has them.
pub(super) fn json(tries: &[Try]) -> Value {
    let one = |t: &Try| {
        json!({
            "step": t.number,
            "aim": t.aim,
            "cost": t.cost,
            "sparsity": t.sparsity,
            "before": t.before,
            "after": t.after,
            "kept": t.verdict == Verdict::Kept,
            "seconds": t.seconds,
        })
    };
    tries.iter().map(one).collect()
}

/// What is measured.
#[derive(Clone, Copy)]
pub(super) struct Measured {
    /// "accuracy", "agreement" or "loss".
    pub(super) name: &'static str,
    pub(super) before: Score,
    pub(super) after: Score,
    pub(super) examples: usize,
}

impl Measured {
    /// The figure of `score`: in percent, or the loss.
    fn figure(&self, score: &Score) -> f64 {
        score.accuracy.map_or(score.loss, |a| 100.0 * a)
    }

    /// By how many points it is worse.
    pub(super) fn points(&self) -> f64 {
        100.0 * secateur::compress::budget::fall(&self.before, &self.after)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "examples": self.examples,
            "before": self.figure(&self.before),
            "after": self.figure(&self.after),
            "loss_before": self.before.loss,
            "loss_after": self.after.loss,
            "drop_points": self.points(),
        })
    }

    /// As the page has it; `max_drop` is in points.
    pub(super) fn worth(&self, max_drop: Option<f64>) -> Worth {
        let loss = self.before.accuracy.is_none();
        let bound = |points: f64| {
            if loss {
                points / 100.0 * self.before.loss
            } else {
                points
            }
        };
        Worth {
            name: self.name,
            unit: if loss { "" } else { "%" },
            before: self.figure(&self.before),
            after: self.figure(&self.after),
            max_drop: max_drop.map(bound),
            examples: self.examples,
        }
    }
}

/// The steps as the page has them.
pub(super) fn tried(tries: &[Try]) -> Vec<Tried> {
    let figure = |s: &Score| Some(s.accuracy.map_or(s.loss, |a| 100.0 * a));
    let one = |t: &Try| Tried {
        label: format!("step {}", t.number),
        sparsity: t.sparsity,
        cost: Some(t.cost),
        before: figure(&t.before),
        after: figure(&t.after),
        kept: t.verdict == Verdict::Kept,
        seconds: Some(t.seconds),
    };
    tries.iter().map(one).collect()
}

/// The weights of `old` that have at least two axes, with what `new` has of them and predicted milliseconds by name.
pub(super) fn layers(old: &Model, new: &Model, ms: [&HashMap<String, f64>; 2]) -> Vec<Layer> {
    let after = weights(new);
    let found = |w: &Weight| after.iter().find(|n| n.name == w.name);
    let op = |w: &Weight| {
        let node = w
            .nodes
            .first()
            .and_then(|name| old.graph.iter().find(|(_, n)| n.label() == name));
        node.map_or(String::new(), |(_, n)| n.op.to_string())
    };
    let one = |w: Weight| {
        let new = found(&w);
        Layer {
            op: op(&w),
            shape_before: w.tensor.dims().to_vec(),
            shape_after: new.map_or(vec![], |n| n.tensor.dims().to_vec()),
            zeros_before: w.tensor.zeros_count() as u64,
            zeros_after: new.map_or(0, |n| n.tensor.zeros_count() as u64),
            ms: ms[0].get(&w.name).zip(ms[1].get(&w.name)).map(|(a, b)| (*a, *b)),
            name: w.name,
        }
    };
    let large = weights(old).into_iter().filter(|w| w.tensor.dims().len() > 1);
    large.map(one).collect()
}
