//! Step by step: what was tried, what it was worth, what it cost.

mod history;
mod trade;

use super::words::{Columns, NONE, amount, figure, folded, maybe};
use super::{Story, Tried, Worth};

/// What charts know of the way.
struct Way<'a> {
    story: &'a Story<'a>,
    worth: Option<&'a Worth>,
    /// What it was worth, on the examples of the steps, and cost before the first of them.
    start: (Option<f64>, Option<f64>),
}

impl<'a> Way<'a> {
    fn new(story: &'a Story<'a>) -> Way<'a> {
        let worth = story.worth.as_ref();
        let start = first(story).or(worth.map(|w| w.before));
        Way {
            story,
            worth,
            start: (
                start.filter(|x| x.is_finite()),
                story.aim.as_ref().map(|a| a.before),
            ),
        }
    }

    /// The worst that is allowed, on the examples of the steps.
    fn floor(&self) -> Option<f64> {
        let (worth, start) = (self.worth?, self.start.0?);
        let drop = worth.max_drop?;
        Some(if worth.less_is_better() {
            start + drop
        } else {
            start - drop
        })
    }

    fn wanted(&self) -> Option<f64> {
        self.story.aim.as_ref()?.most()
    }

    /// What is measured, with its unit, as the title of a scale.
    fn measure(&self) -> String {
        let (name, unit) = self.worth.map_or(("worth", ""), |w| (w.name, w.unit));
        titled(name, unit)
    }

    fn unit(&self) -> &'static str {
        self.worth.map_or("", |w| w.unit)
    }

    fn cost(&self) -> String {
        let unit = self.story.aim.as_ref().map_or("", |a| a.unit);
        let name = match unit {
            "ms" => "time",
            "MB" => "weights",
            _ => "cost",
        };
        titled(name, unit)
    }

    /// What is worth drawing to scale: what was reached and what is allowed; far worse is drawn at the edge.
    fn range(&self) -> Vec<f64> {
        let steps = &self.story.steps;
        let (start, floor) = (self.start.0, self.floor());
        let kept = steps.iter().filter(|t| t.kept).filter_map(|t| t.after);
        let mut all: Vec<f64> = start.into_iter().chain(floor).chain(kept).collect();
        let near = |x: &f64| match start.zip(floor) {
            Some((start, floor)) if start != floor => (x - start).abs() <= 8.0 * (floor - start).abs(),
            _ => true,
        };
        all.extend(steps.iter().filter_map(|t| t.after).filter(near));
        all
    }
}

/// What curves begin with is measured as steps are.
fn first(story: &Story) -> Option<f64> {
    let (score, worth) = (story.curves.first()?.points.first()?.score, story.worth.as_ref()?);
    match worth.unit {
        "%" => score.accuracy.map(|share| 100.0 * share),
        _ if worth.less_is_better() => Some(score.loss),
        _ => None,
    }
}

fn titled(name: &str, unit: &str) -> String {
    match unit {
        "" => name.to_owned(),
        unit => format!("{name}, {unit}"),
    }
}

impl Tried {
    /// What is said where somebody points at it.
    fn title(&self, unit: &str, cost_unit: &str) -> String {
        let mut words = vec![
            self.label.clone(),
            format!("{} pruned", amount(100.0 * self.sparsity, "%")),
        ];
        words.extend(self.cost.map(|c| amount(c, cost_unit)));
        words.extend(
            self.before
                .map(|x| format!("{} before recovery", amount(x, unit))),
        );
        words.extend(self.after.map(|x| format!("{} after", amount(x, unit))));
        words.push(verdict(self).into());
        words.join(", ")
    }
}

fn verdict(tried: &Tried) -> &'static str {
    if tried.kept { "kept" } else { "taken back" }
}

/// The sections about steps; nothing where there were none.
pub(super) fn section(story: &Story) -> String {
    if story.steps.is_empty() {
        return String::new();
    }
    let way = Way::new(story);
    let (trade, history, table) = (trade::section(&way), history::chart(&way), table(&way));
    format!("{trade}<section>\n<h2>Steps</h2>\n{history}{table}</section>\n")
}

fn table(way: &Way) -> String {
    let story = way.story;
    let cost = way.cost();
    let columns = Columns {
        caption: "What was tried, in order",
        heads: &["", "pruned %", &cost, "before recovery", "after", "", "s"],
        words: &[0, 5],
    };
    let unit = way.unit();
    let row = |t: &Tried| {
        vec![
            t.label.clone(),
            if t.sparsity.is_finite() {
                format!("{:.2}", 100.0 * t.sparsity)
            } else {
                NONE.into()
            },
            t.cost.map_or(NONE.into(), figure),
            maybe(t.before, unit),
            maybe(t.after, unit),
            verdict(t).into(),
            t.seconds
                .filter(|s| s.is_finite())
                .map_or(NONE.into(), |s| format!("{s:.1}")),
        ]
    };
    let start = vec![
        "start".into(),
        String::new(),
        way.start.1.map_or(NONE.into(), figure),
        String::new(),
        maybe(way.start.0, unit),
        String::new(),
        String::new(),
    ];
    let rows: Vec<_> = [start].into_iter().chain(story.steps.iter().map(row)).collect();
    folded(columns.table(&rows), story.steps.len(), "All steps in figures")
}
