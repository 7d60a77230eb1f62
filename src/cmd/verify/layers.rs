//! Where inside a graph two runs part.

use std::collections::HashSet;

use anyhow::Result;
use secateur::engine::ir::Model;
use secateur::engine::opt::infer::full_name;
use secateur::{Outputs, Tensor};
use serde_json::{Value, json};

use super::Sides;
use crate::cmd::card;
use crate::cmd::compare::{Distance, Tolerance};
use crate::cmd::table::Table;
use crate::cmd::ui::Ui;

/// One value inside the first model.
pub(super) struct Layer {
    node: String,
    op: String,
    value: String,
    pub(super) distance: Distance,
}

impl Layer {
    /// As `layers[]` and `first_divergence` have it.
    pub(super) fn json(&self) -> Value {
        let mut json = self.distance.json();
        json["node"] = json!(self.node);
        json["op"] = json!(self.op);
        json["value"] = json!(self.value);
        json
    }
}

/// Compares every value that nodes of both models make, in the order of the first. Nothing is fused across these values.
///
/// # Errors
///
/// If a side cannot run with them as outputs.
pub(super) fn compare(
    sides: &Sides,
    model: &Model,
    inputs: &[(String, Tensor)],
    within: Tolerance,
) -> Result<Vec<Layer>> {
    let other = card::load(sides.b.1)?;
    let taps = common(model, &other);
    let [mut a, mut b] = sides.load(&taps)?;
    let (x, y) = (a.run(inputs)?.outputs, b.run(inputs)?.outputs);
    let layer = |(node, op, value): (String, String, String)| {
        let distance = Distance::of(find(&x, &value)?, find(&y, &value)?, within);
        Some(Layer {
            node,
            op,
            value,
            distance,
        })
    };
    Ok(made(model).filter_map(layer).collect())
}

fn find<'a>(outputs: &'a Outputs, name: &str) -> Option<&'a Tensor> {
    outputs.get(name)
}

/// Node, operator and name of everything that nodes make, in order.
fn made(model: &Model) -> impl Iterator<Item = (String, String, String)> {
    let g = &model.graph;
    g.iter().flat_map(move |(_, node)| {
        let outputs = node.outputs.iter().flatten();
        outputs.map(move |v| (node.label().to_owned(), full_name(node), g[*v].name.to_string()))
    })
}

/// What nodes of both models make and is no output yet.
fn common(a: &Model, b: &Model) -> Vec<String> {
    let there: HashSet<String> = made(b).map(|(.., name)| name).collect();
    let is_output = |m: &Model, name: &str| m.graph.outputs.iter().any(|p| &*m.graph[p.value].name == name);
    let inside = made(a).map(|(.., name)| name);
    inside
        .filter(|n| there.contains(n) && !is_output(a, n) && !is_output(b, n))
        .collect()
}

/// Shows the layers around the first that is out of tolerance, or the most distant ones.
pub(super) fn say(layers: &[Layer], ui: &Ui) {
    if layers.is_empty() {
        return;
    }
    let first = layers.iter().position(|l| !l.distance.pass());
    let mut table = Table::new(&["value", "node", "operator", "max abs", "max rel", "beyond"]);
    let shown = match first {
        Some(at) => layers[at.saturating_sub(3)..layers.len().min(at + 4)]
            .iter()
            .collect(),
        None => farthest(layers),
    };
    for l in shown {
        let d = &l.distance;
        let figures = [
            format!("{:.3e}", d.max_abs),
            format!("{:.3e}", d.max_rel),
            d.outside.to_string(),
        ];
        table.row(
            [l.value.clone(), l.node.clone(), l.op.clone()]
                .into_iter()
                .chain(figures),
        );
    }
    let title = match first {
        Some(at) => format!(
            "first divergence: {} of node {} ({})",
            layers[at].value, layers[at].node, layers[at].op
        ),
        None => format!(
            "all {} values inside are within tolerance; the most distant:",
            layers.len()
        ),
    };
    ui.say(&format!("\n{title}\n{table}"));
}

fn farthest(layers: &[Layer]) -> Vec<&Layer> {
    let mut all: Vec<&Layer> = layers.iter().collect();
    all.sort_by(|a, b| b.distance.max_abs.total_cmp(&a.distance.max_abs));
    all.truncate(5);
    all
}
