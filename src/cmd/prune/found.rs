//! Groups, blocks and layers that were found in a model, and what became of them.

use std::collections::BTreeMap;

use anyhow::Result;
use secateur::Model;
use secateur::compress::groups::{Groups, Of, Sizes};
use secateur::compress::recipe::{Prune, Recipe};
use secateur::compress::trim::Unit;
use secateur::compress::{Group, Piece, groups};
use serde_json::{Value, json};

use super::super::table::{Table, thousands};
use super::prunes;

/// What could be cut.
pub(super) struct Found<'m> {
    /// Groups of axes, where these become shorter.
    groups: Option<Box<Groups<'m>>>,
    /// What units are, where some may go.
    piece: Option<Piece>,
    /// What may go as a whole.
    units: Vec<Unit>,
}

/// By name what is left of each: its size, 1 or 0 of what goes as a whole.
pub(super) struct Kept {
    groups: BTreeMap<String, usize>,
    units: Vec<String>,
}

impl Kept {
    fn width(&self, g: &Group) -> usize {
        self.groups.get(&g.name).copied().unwrap_or(0)
    }

    fn has(&self, unit: &Unit) -> bool {
        self.units.contains(&unit.name)
    }
}

impl<'m> Found<'m> {
    /// What the first step of `recipe` that cuts away can cut of `model`; `None` where there is no such step.
    pub(super) fn of(recipe: &Recipe, model: &'m Model, sizes: &Sizes) -> Result<Option<Found<'m>>> {
        let cuts = |p: &'_ Prune| p.pattern.piece().map(|piece| (piece, p.of));
        let Some((piece, of)) = prunes(recipe).find_map(cuts) else {
            return Ok(None);
        };
        let narrow = !piece.kinds().is_empty();
        let whole = match (piece, of) {
            (Piece::Structured, Some(Of::Ms)) => Some(Piece::Block),
            _ => (!narrow).then_some(piece),
        };
        let of = |piece| Unit::all(model, piece, sizes);
        Ok(Some(Found {
            groups: match narrow {
                true => Some(groups(model, sizes)?.into()),
                false => None,
            },
            piece: whole,
            units: whole.map(of).transpose()?.unwrap_or_default(),
        }))
    }

    /// What is left in `new`.
    pub(super) fn kept(&self, new: &Model, sizes: &Sizes) -> Result<Kept> {
        let found = groups(new, sizes)?;
        let now = found.groups.iter().map(|g| (&*g.name, g.size));
        let now: BTreeMap<&str, usize> = now.collect();
        // What has one index left is no group any more.
        let one = |g: &Group| usize::from(g.axes.iter().any(|p| found.holds(&p.constant)));
        let size = |g: &Group| now.get(&*g.name).copied().unwrap_or_else(|| one(g));
        let old = self.groups.iter().flat_map(|g| &g.groups);
        let there = |u: &&Unit| u.constants.iter().any(|c| found.holds(c));
        Ok(Kept {
            groups: old.map(|g| (g.name.clone(), size(g))).collect(),
            units: self.units.iter().filter(there).map(|u| u.name.clone()).collect(),
        })
    }

    /// How much went.
    pub(super) fn total(&self, kept: &Kept) -> Value {
        let mut total = json!({});
        let gone = self.units.iter().filter(|u| !kept.has(u)).count();
        let mut cut = gone;
        if let Some(found) = &self.groups {
            let less = found.groups.iter().filter(|g| kept.width(g) < g.size);
            let less: Vec<&Group> = less.collect();
            total["groups"] = json!(found.groups.len());
            total["widths_before"] = json!(less.iter().map(|g| g.size).sum::<usize>());
            total["widths"] = json!(less.iter().map(|g| kept.width(g)).sum::<usize>());
            cut = less.len();
        }
        if let Some(piece) = self.piece {
            total[piece.counted()] = json!(self.units.len());
        }
        if self.piece.is_some() && self.groups.is_some() {
            total["blocks_cut"] = json!(gone);
        }
        total["cut"] = json!(cut);
        total
    }

    /// As `groups[]` and `uncut[]`, and `blocks[]`, have it.
    pub(super) fn json(&self, kept: &Kept) -> Value {
        let mut all = json!({});
        if let Some(found) = &self.groups {
            let uncut = found.uncut.iter();
            let uncut = uncut.map(|u| json!({"name": u.name, "size": u.size, "reason": u.reason}));
            all["groups"] = found.groups.iter().map(|g| group(g, kept)).collect();
            all["uncut"] = uncut.collect();
        }
        if self.piece.is_some() {
            all["blocks"] = self.units.iter().map(|u| unit(u, kept)).collect();
        }
        all
    }

    /// One row for each group or unit; and what stays whole, and why.
    pub(super) fn tables(&self, kept: &Kept) -> String {
        let mut all = vec![];
        if let Some(found) = &self.groups {
            let mut table = Table::new(&["group", "kind", "axes", "before", "after"]);
            for g in &found.groups {
                let sizes = [g.axes.len(), g.size, kept.width(g)].map(|n| thousands(n as u64));
                table.row([g.name.clone(), g.kind.to_string()].into_iter().chain(sizes));
            }
            all.push(format!("{table}{}", uncut(found)));
        }
        if let Some(piece) = self.piece.filter(|_| !self.units.is_empty()) {
            let name = piece.counted().trim_end_matches('s');
            let mut table = Table::new(&[name, "nodes", "parameters", "MACs", "score", ""]);
            for u in &self.units {
                let fate = if kept.has(u) { "stays" } else { "goes" };
                let counts = [u.nodes.len() as u64, u.parameters, u.macs].map(thousands);
                let end = [format!("{:.4}", u.score), fate.to_owned()];
                table.row([u.name.clone()].into_iter().chain(counts).chain(end));
            }
            all.push(table.to_string());
        }
        all.join("\n\n")
    }
}

/// What stays whole and why, as a table with an empty line before it; nothing where there is none.
fn uncut(found: &Groups) -> String {
    if found.uncut.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["stays whole", "size", "because"]);
    for u in &found.uncut {
        table.row([u.name.clone(), thousands(u.size as u64), u.reason.clone()]);
    }
    format!("\n\n{table}")
}

fn group(g: &Group, kept: &Kept) -> Value {
    let axes = g.axes.iter();
    let axes: Value = axes
        .map(|p| json!({"constant": p.constant, "axis": p.axis}))
        .collect();
    json!({"name": g.name, "kind": g.kind.to_string(), "size": g.size, "kept": kept.width(g), "axes": axes})
}

fn unit(u: &Unit, kept: &Kept) -> Value {
    json!({
        "sum": u.name,
        "nodes": u.nodes,
        "parameters": u.parameters,
        "macs": u.macs,
        "score": u.score,
        "kept": kept.has(u),
    })
}
