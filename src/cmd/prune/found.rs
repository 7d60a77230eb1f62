//! Groups and blocks that were found in a model, and what became of them.

use secateur::compress::groups::Groups;
use secateur::compress::{Block, Change, Group, Plan, Report};
use serde_json::{Value, json};

use super::super::table::{Table, thousands};

/// What could be cut.
pub(super) enum Found<'m> {
    /// Groups of axes.
    Groups(Groups<'m>),
    /// Residual blocks.
    Blocks(Vec<Block>),
}

impl Found<'_> {
    /// As `groups[]` and `uncut[]`, or `blocks[]`, have it.
    pub(super) fn json(&self, report: &Report, plan: &Plan) -> Value {
        match self {
            Found::Groups(found) => {
                let groups: Value = found.groups.iter().map(|g| group(g, report)).collect();
                let uncut = found.uncut.iter();
                let uncut: Value = uncut
                    .map(|u| json!({"name": u.name, "size": u.size, "reason": u.reason}))
                    .collect();
                json!({"groups": groups, "uncut": uncut})
            }
            Found::Blocks(found) => {
                let blocks: Value = found.iter().map(|b| block(b, plan)).collect();
                json!({ "blocks": blocks })
            }
        }
    }

    /// One row for each group or block.
    pub(super) fn table(&self, report: &Report, plan: &Plan) -> Table {
        match self {
            Found::Groups(found) => {
                let mut table = Table::new(&["group", "kind", "axes", "before", "after"]);
                for g in &found.groups {
                    let sizes = [g.axes.len(), g.size, kept(g, report)].map(|n| thousands(n as u64));
                    table.row([g.name.clone(), g.kind.to_string()].into_iter().chain(sizes));
                }
                table
            }
            Found::Blocks(found) => {
                let mut table = Table::new(&["block", "nodes", "parameters", "score", ""]);
                for b in found {
                    let fate = if gone(b, plan) { "goes" } else { "stays" };
                    let counts = [b.nodes.len() as u64, b.parameters].map(thousands);
                    let end = [format!("{:.4}", b.score), fate.to_owned()];
                    table.row([b.sum.clone()].into_iter().chain(counts).chain(end));
                }
                table
            }
        }
    }

    /// What stays whole and why, as a table with an empty line behind it; nothing where there is none.
    pub(super) fn uncut(&self) -> String {
        let Found::Groups(found) = self else {
            return String::new();
        };
        if found.uncut.is_empty() {
            return String::new();
        }
        let mut table = Table::new(&["stays whole", "size", "because"]);
        for u in &found.uncut {
            table.row([u.name.clone(), thousands(u.size as u64), u.reason.clone()]);
        }
        format!("{table}\n\n")
    }
}

fn kept(g: &Group, report: &Report) -> usize {
    let width = report.widths.iter().find(|w| w.group == g.name);
    width.map_or(g.size, |w| w.after)
}

fn gone(b: &Block, plan: &Plan) -> bool {
    plan.0.contains(&Change::Bypass(b.bypass()))
}

fn group(g: &Group, report: &Report) -> Value {
    let axes = g.axes.iter();
    let axes: Value = axes
        .map(|p| json!({"constant": p.constant, "axis": p.axis}))
        .collect();
    json!({"name": g.name, "kind": g.kind.to_string(), "size": g.size, "kept": kept(g, report), "axes": axes})
}

fn block(b: &Block, plan: &Plan) -> Value {
    json!({"sum": b.sum, "nodes": b.nodes, "parameters": b.parameters, "score": b.score, "kept": !gone(b, plan)})
}
