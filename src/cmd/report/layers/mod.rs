//! Layer by layer: where the weights were, and what is left of them.

mod area;
mod rows;
mod skyline;

use super::super::chart::escaped;
use super::super::table::thousands;
use super::words::{Columns, NONE, figure, folded, percent, shape};
use super::{Layer, Story};

/// Up to so many layers have a line of their own in the chart.
const ROWS: usize = 60;

/// How many elements of a layer are what.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Parts {
    before: u64,
    zeros_before: u64,
    after: u64,
    zeros_after: u64,
}

impl Parts {
    fn of(layer: &Layer) -> Parts {
        let elements = |dims: &[usize]| match dims {
            [] => 0,
            dims => dims.iter().fold(1u64, |n, d| n.saturating_mul(*d as u64)),
        };
        let (before, after) = (elements(&layer.shape_before), elements(&layer.shape_after));
        Parts {
            before,
            zeros_before: layer.zeros_before.min(before),
            after,
            zeros_after: layer.zeros_after.min(after),
        }
    }

    /// The larger of both, which is what is drawn.
    fn whole(&self) -> u64 {
        self.before.max(self.after)
    }

    fn live(&self) -> u64 {
        self.after - self.zeros_after
    }
}

/// A layer as charts have it.
struct Row<'a> {
    number: usize,
    layer: &'a Layer,
    parts: Parts,
}

impl Row<'_> {
    /// What is said where somebody points at it.
    fn title(&self) -> String {
        let (parts, layer) = (self.parts, self.layer);
        let after = match &layer.shape_after[..] {
            [] => "gone".into(),
            dims if dims == layer.shape_before => String::new(),
            dims => format!("now {}", shape(dims)),
        };
        let words = [
            format!("{} {}", self.number, layer.name),
            format!("{} {}", layer.op, shape(&layer.shape_before)),
            after,
            format!("{:.1} % zeros", percent(parts.zeros_after, parts.after)),
            format!("{} of {} left", thousands(parts.live()), thousands(parts.before)),
        ];
        let words: Vec<String> = words.into_iter().filter(|w| !w.is_empty()).collect();
        format!("<title>{}</title>", escaped(&words.join(", ")))
    }
}

/// The section about layers; nothing where there are none.
pub(super) fn section(story: &Story) -> String {
    let row = |(layer, number)| Row {
        number,
        layer,
        parts: Parts::of(layer),
    };
    let rows: Vec<Row> = story.layers.iter().zip(1..).map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let detail = match rows.len() <= ROWS {
        true => rows::chart(&rows),
        false => skyline::chart(&rows),
    };
    format!(
        "<section>\n<h2>Layers</h2>\n{}{detail}{}</section>\n",
        area::chart(&rows),
        table(&rows)
    )
}

fn table(rows: &[Row]) -> String {
    let timed = rows.iter().any(|r| r.layer.ms.is_some());
    let mut heads = vec![
        "",
        "weight",
        "operator",
        "shape",
        "parameters",
        "after",
        "zeros %",
        "after",
        "left %",
    ];
    if timed {
        heads.extend(["ms, predicted", "after"]);
    }
    let columns = Columns {
        caption: "Every weight, in the order of the file",
        heads: &heads,
        words: &[1, 2, 3],
    };
    let mut cells: Vec<Vec<String>> = rows.iter().map(|r| cells(r, timed)).collect();
    cells.push(total(rows, timed));
    folded(columns.table(&cells), rows.len(), "All weights in figures")
}

fn cells(row: &Row, timed: bool) -> Vec<String> {
    let (layer, p) = (row.layer, row.parts);
    let shapes = match &layer.shape_after[..] {
        dims if dims == layer.shape_before => shape(dims),
        [] => format!("{} → gone", shape(&layer.shape_before)),
        dims => format!("{} → {}", shape(&layer.shape_before), shape(dims)),
    };
    let mut cells = vec![
        row.number.to_string(),
        layer.name.clone(),
        layer.op.clone(),
        shapes,
    ];
    cells.extend(counts(&p));
    if timed {
        let ms = layer.ms.map(|(a, b)| [a, b].map(figure));
        cells.extend(ms.unwrap_or([NONE, NONE].map(str::to_owned)));
    }
    cells
}

fn counts(p: &Parts) -> [String; 5] {
    [
        thousands(p.before),
        thousands(p.after),
        format!("{:.1}", percent(p.zeros_before, p.before)),
        format!("{:.1}", percent(p.zeros_after, p.after)),
        format!("{:.1}", percent(p.live(), p.before)),
    ]
}

fn total(rows: &[Row], timed: bool) -> Vec<String> {
    let sum = |of: fn(&Parts) -> u64| rows.iter().map(|r| of(&r.parts)).fold(0, u64::saturating_add);
    let all = Parts {
        before: sum(|p| p.before),
        zeros_before: sum(|p| p.zeros_before),
        after: sum(|p| p.after),
        zeros_after: sum(|p| p.zeros_after),
    };
    let mut cells = vec![String::new(), "all".into(), String::new(), String::new()];
    cells.extend(counts(&all));
    if timed {
        let known = || rows.iter().filter_map(|r| r.layer.ms);
        cells.push(figure(known().map(|ms| ms.0).sum()));
        cells.push(figure(known().map(|ms| ms.1).sum()));
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(before: &[usize], after: &[usize], zeros: u64) -> Layer {
        Layer {
            name: "w".into(),
            op: "MatMul".into(),
            shape_before: before.to_vec(),
            shape_after: after.to_vec(),
            zeros_before: 0,
            zeros_after: zeros,
            ms: None,
        }
    }

    #[test]
    fn parts_add_up() {
        let cut = Parts::of(&layer(&[4, 5], &[3, 5], 6));
        assert_eq!((cut.whole(), cut.after, cut.live()), (20, 15, 9));
        let gone = Parts::of(&layer(&[4, 5], &[], 99));
        assert_eq!(
            (gone.whole(), gone.after, gone.live(), gone.zeros_after),
            (20, 0, 0, 0)
        );
        let huge = Parts::of(&layer(&[usize::MAX, 5], &[0], 0));
        assert_eq!((huge.before, huge.live()), (u64::MAX, 0));
    }
}
