//! Groups and blocks that were found in a model, and what became of them.

use std::collections::BTreeMap;

use anyhow::Result;
use secateur::Model;
use secateur::compress::groups::{Groups, Sizes};
use secateur::compress::recipe::Recipe;
use secateur::compress::{Block, Group, blocks, groups};
use serde_json::{Value, json};

use super::super::table::{Table, thousands};
use super::prunes;

/// What could be cut.
pub(super) enum Found<'m> {
    /// Groups of axes.
    Groups(Box<Groups<'m>>),
    /// Residual blocks.
    Blocks(Vec<Block>),
}

/// By name what is left of each: its size, 1 or 0 of what goes as a whole.
pub(super) struct Kept(BTreeMap<String, usize>);

impl Kept {
    fn of(&self, name: &str) -> usize {
        self.0.get(name).copied().unwrap_or(0)
    }
}

impl<'m> Found<'m> {
    /// What the first step of `recipe` that cuts away can cut of `model`; `None` where there is no such step.
    pub(super) fn of(recipe: &Recipe, model: &'m Model, sizes: &Sizes) -> Result<Option<Found<'m>>> {
        let Some(piece) = prunes(recipe).find_map(|p| p.pattern.piece()) else {
            return Ok(None);
        };
        Ok(Some(match piece.kinds() {
            [] => Found::Blocks(blocks(model, sizes)?),
            _ => Found::Groups(groups(model, sizes)?.into()),
        }))
    }

    /// What is left in `new`.
    pub(super) fn kept(&self, new: &Model, sizes: &Sizes) -> Result<Kept> {
        Ok(Kept(match self {
            Found::Blocks(_) => blocks(new, sizes)?.into_iter().map(|b| (b.sum, 1)).collect(),
            Found::Groups(old) => {
                let found = groups(new, sizes)?;
                let now = found.groups.iter().map(|g| (&*g.name, g.size));
                let now: BTreeMap<&str, usize> = now.collect();
                // What has one index left is no group any more.
                let one = |g: &Group| usize::from(g.axes.iter().any(|p| found.holds(&p.constant)));
                let size = |g: &Group| now.get(&*g.name).copied().unwrap_or_else(|| one(g));
                old.groups.iter().map(|g| (g.name.clone(), size(g))).collect()
            }
        }))
    }

    /// How much went.
    pub(super) fn total(&self, kept: &Kept) -> Value {
        match self {
            Found::Groups(found) => {
                let cut: Vec<&Group> = found
                    .groups
                    .iter()
                    .filter(|g| kept.of(&g.name) < g.size)
                    .collect();
                json!({
                    "groups": found.groups.len(),
                    "cut": cut.len(),
                    "widths_before": cut.iter().map(|g| g.size).sum::<usize>(),
                    "widths": cut.iter().map(|g| kept.of(&g.name)).sum::<usize>(),
                })
            }
            Found::Blocks(found) => {
                let gone = found.iter().filter(|b| kept.of(&b.sum) == 0);
                json!({"blocks": found.len(), "cut": gone.count()})
            }
        }
    }

    /// As `groups[]` and `uncut[]`, or `blocks[]`, have it.
    pub(super) fn json(&self, kept: &Kept) -> Value {
        match self {
            Found::Groups(found) => {
                let groups: Value = found.groups.iter().map(|g| group(g, kept)).collect();
                let uncut = found.uncut.iter();
                let uncut: Value = uncut
                    .map(|u| json!({"name": u.name, "size": u.size, "reason": u.reason}))
                    .collect();
                json!({"groups": groups, "uncut": uncut})
            }
            Found::Blocks(found) => {
                let blocks: Value = found.iter().map(|b| block(b, kept)).collect();
                json!({ "blocks": blocks })
            }
        }
    }

    /// One row for each group or block; and what stays whole, and why.
    pub(super) fn tables(&self, kept: &Kept) -> String {
        match self {
            Found::Groups(found) => {
                let mut table = Table::new(&["group", "kind", "axes", "before", "after"]);
                for g in &found.groups {
                    let sizes = [g.axes.len(), g.size, kept.of(&g.name)].map(|n| thousands(n as u64));
                    table.row([g.name.clone(), g.kind.to_string()].into_iter().chain(sizes));
                }
                format!("{table}{}", uncut(found))
            }
            Found::Blocks(found) => {
                let mut table = Table::new(&["block", "nodes", "parameters", "score", ""]);
                for b in found {
                    let fate = if kept.of(&b.sum) == 0 { "goes" } else { "stays" };
                    let counts = [b.nodes.len() as u64, b.parameters].map(thousands);
                    let end = [format!("{:.4}", b.score), fate.to_owned()];
                    table.row([b.sum.clone()].into_iter().chain(counts).chain(end));
                }
                table.to_string()
            }
        }
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
    json!({"name": g.name, "kind": g.kind.to_string(), "size": g.size, "kept": kept.of(&g.name), "axes": axes})
}

fn block(b: &Block, kept: &Kept) -> Value {
    let stays = kept.of(&b.sum) > 0;
    json!({"sum": b.sum, "nodes": b.nodes, "parameters": b.parameters, "score": b.score, "kept": stays})
}
