//! What became of every weight.

use secateur::compress::{Amount, Edit, Exempt, Goal, Report, Weight};
use serde_json::{Value, json};

use super::super::table::{Table, thousands};
use super::super::ui::Ui;

/// The weights of a model with their zeros before and after.
pub(super) struct Layers<'a> {
    rows: Vec<(&'a Weight, Edit)>,
    /// Constants of at least two axes that were left alone.
    skipped: Vec<(&'a Weight, &'a Exempt)>,
}

impl<'a> Layers<'a> {
    /// `report` says what was done to those of `weights` that are not exempt.
    pub(super) fn new(weights: &'a [Weight], report: Report) -> Layers<'a> {
        let mut edits: std::collections::HashMap<_, _> =
            report.edits.into_iter().map(|e| (e.value.clone(), e)).collect();
        let pruned = weights.iter().filter(|w| w.exempt.is_none());
        let skipped = weights.iter().filter(|w| w.tensor.dims().len() > 1);
        Layers {
            rows: pruned
                .map(|w| (w, edits.remove(&w.name).unwrap_or_else(|| unchanged(w))))
                .collect(),
            skipped: skipped.filter_map(|w| Some((w, w.exempt.as_ref()?))).collect(),
        }
    }

    fn sum(&self, figure: impl Fn(&Edit) -> u64) -> u64 {
        self.rows.iter().map(|(_, e)| figure(e)).sum()
    }

    /// Zeros more than there were.
    pub(super) fn new_zeros(&self) -> u64 {
        self.sum(|e| e.zeros_after.saturating_sub(e.zeros_before))
    }

    /// The figures of all weights together.
    pub(super) fn total(&self) -> Value {
        json!({
            "layers": self.rows.len(),
            "weights": self.sum(|e| e.elements),
            "zeros_before": self.sum(|e| e.zeros_before),
            "zeros": self.sum(|e| e.zeros_after),
            "changed": self.sum(|e| e.changed),
        })
    }

    /// As `layers[]` has them.
    pub(super) fn json(&self) -> Value {
        let row = |(w, e): &(&Weight, Edit)| {
            json!({
                "name": w.name,
                "nodes": w.nodes,
                "type": w.tensor.dtype().to_string(),
                "shape": w.tensor.dims(),
                "elements": e.elements,
                "zeros_before": e.zeros_before,
                "zeros": e.zeros_after,
                "changed": e.changed,
                "zeros_percent": share(e.zeros_after, e.elements),
            })
        };
        self.rows.iter().map(row).collect()
    }

    /// As `skipped[]` has them.
    pub(super) fn skipped(&self) -> Value {
        let row = |(w, why): &(&Weight, &Exempt)| json!({"name": w.name, "elements": w.elements(), "reason": why.to_string()});
        self.skipped.iter().map(row).collect()
    }

    /// One row for each weight, and one for all.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(&["weight", "shape", "elements", "zeros % before", "zeros %"]);
        let mut row = |name: &str, shape: String, elements, before, after| {
            let percent = |zeros| format!("{:.2}", share(zeros, elements));
            table.row([
                name.to_owned(),
                shape,
                thousands(elements),
                percent(before),
                percent(after),
            ]);
        };
        for (w, e) in &self.rows {
            let shape = format!("{:?}", w.tensor.dims());
            row(&w.name, shape, e.elements, e.zeros_before, e.zeros_after);
        }
        let all = [
            |e: &Edit| e.elements,
            |e: &Edit| e.zeros_before,
            |e: &Edit| e.zeros_after,
        ];
        let [elements, before, after] = all.map(|figure| self.sum(figure));
        row(
            "all",
            format!("{} weights", self.rows.len()),
            elements,
            before,
            after,
        );
        table
    }

    /// Says on standard error what a look at the figures might miss.
    pub(super) fn notes(&self, goal: &Goal, ui: &Ui) {
        let empty = self
            .rows
            .iter()
            .filter(|(_, e)| e.zeros_after == e.elements && e.zeros_before < e.elements);
        let empty: Vec<_> = empty.map(|(w, _)| format!("{:?}", w.name)).collect();
        let whole = matches!(goal.amount, Amount::Sparsity(1.0));
        if !empty.is_empty() && !whole {
            ui.note(&format!(
                "nothing is left of {}; --keep spares it",
                empty.join(", ")
            ));
        }
        let nans = self.sum(|e| e.nans);
        if nans > 0 {
            ui.note(&format!("{nans} weights are NaN and stay"));
        }
        if self.new_zeros() == 0 && self.sum(|e| e.changed) == 0 {
            ui.note("no weight was changed: there are as many zeros as asked for already");
        }
        if let [(first, why), ..] = &self.skipped[..] {
            let n = self.skipped.len();
            let name = &first.name;
            ui.note(&format!(
                "left alone: {n} constants of two or more axes, such as {name:?} ({why})"
            ));
        }
    }
}

/// What became of `old` weights in `new` ones of the same names.
pub(super) fn compared(old: &[Weight], new: &[Weight]) -> Report {
    let now: std::collections::HashMap<_, _> = new.iter().map(|w| (&w.name, w)).collect();
    let edit = |w: &Weight| {
        let mut edit = unchanged(w);
        let Some(new) = now.get(&w.name) else {
            // Of a weight that is gone nothing is left.
            edit.zeros_after = edit.elements;
            return edit;
        };
        let live = new.elements() - new.tensor.zeros_count() as u64;
        edit.zeros_after = edit.elements.saturating_sub(live);
        if let (Some(a), Some(b)) = (w.tensor.floats(), new.tensor.floats()) {
            let pairs = || a.iter().zip(&b);
            edit.changed = pairs().filter(|(a, b)| **b != 0.0 && a != b).count() as u64;
            edit.nans = b.iter().filter(|x| x.is_nan()).count() as u64;
        }
        edit
    };
    let mut report = Report::default();
    let pruned = old.iter().filter(|w| w.exempt.is_none());
    report.edits.extend(pruned.map(edit));
    report
}

/// What is reported of a weight that the plan does not mention.
fn unchanged(w: &Weight) -> Edit {
    let zeros = w.tensor.zeros_count() as u64;
    Edit {
        value: w.name.clone(),
        elements: w.elements(),
        zeros_before: zeros,
        zeros_after: zeros,
        nans: 0,
        changed: 0,
    }
}

/// In percent.
fn share(zeros: u64, elements: u64) -> f64 {
    100.0 * zeros as f64 / elements.max(1) as f64
}
