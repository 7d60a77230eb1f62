//! What each weight hurts when it alone is pruned.

mod heat;
mod panels;

use secateur::compress::budget::{Curve, Point};

use super::super::chart::{sheet, text};
use super::words::{Columns, NONE, amount, chart as figure, folded};
use super::{Story, style};

/// Up to so many curves have a panel of their own.
const PANELS: usize = 24;

const WIDTH: f64 = 920.0;

/// What is drawn of all curves.
struct Measure<'a> {
    curves: &'a [Curve],
    /// What is measured.
    name: &'a str,
    unit: &'static str,
    /// The share of zeros that was chosen for a weight, where it is known.
    chosen: &'a dyn Fn(&str) -> Option<f64>,
}

impl<'a> Measure<'a> {
    fn new(curves: &'a [Curve], name: &'a str, chosen: &'a dyn Fn(&str) -> Option<f64>) -> Measure<'a> {
        let mut points = curves.iter().flat_map(|c| &c.points);
        let accurate = points.all(|p| p.score.accuracy.is_some());
        Measure {
            curves,
            name: if accurate { name } else { "loss" },
            unit: if accurate { "%" } else { "" },
            chosen,
        }
    }

    /// What the model is worth at a point, in the unit.
    fn worth(&self, point: &Point) -> f64 {
        match point.score.accuracy {
            Some(share) if self.unit == "%" => 100.0 * share,
            _ => point.score.loss,
        }
    }

    /// By how much it is worse than where the curve begins, at least 0.
    fn harm(&self, curve: &Curve, point: &Point) -> f64 {
        let start = curve.points.first().map_or(f64::NAN, |p| self.worth(p));
        let fell = start - self.worth(point);
        let harm = if self.unit == "%" { fell } else { -fell };
        if harm.is_finite() { harm.max(0.0) } else { harm }
    }

    fn title(&self) -> String {
        let unit = if self.unit.is_empty() { "" } else { ", %" };
        format!("{}{unit}", super::words::capital(self.name))
    }

    /// The chart's size and what is drawn, below `top`.
    fn draw(&self, top: f64) -> ([f64; 2], String) {
        match self.curves.len() <= PANELS {
            true => panels::draw(self, top),
            false => heat::draw(self, top),
        }
    }

    /// The shares of zeros that were tried of any weight, from the least on.
    fn levels(&self) -> Vec<f64> {
        let mut all: Vec<f64> = self
            .curves
            .iter()
            .flat_map(|c| c.points.iter().skip(1))
            .map(|p| p.sparsity)
            .filter(|s| s.is_finite())
            .collect();
        all.sort_by(f64::total_cmp);
        all.dedup_by(|a, b| (*a - *b).abs() < 1e-3);
        all
    }

    fn table(&self) -> String {
        let levels = self.levels();
        let names: Vec<String> = levels.iter().map(|l| percents(*l)).collect();
        let heads: Vec<&str> = ["weight", "as it is"]
            .into_iter()
            .chain(names.iter().map(|n| &**n))
            .collect();
        let caption = format!("{} by zeros of one weight", self.title());
        let columns = Columns {
            caption: &caption,
            heads: &heads,
            words: &[0],
        };
        let row = |c: &Curve| {
            let said = |p: &Point| amount(self.worth(p), "");
            let cell = |l: &f64| at(c, *l).map_or(NONE.into(), said);
            let start = c.points.first().map_or(NONE.into(), said);
            [c.weight.clone(), start]
                .into_iter()
                .chain(levels.iter().map(cell))
                .collect()
        };
        let rows: Vec<Vec<String>> = self.curves.iter().map(row).collect();
        folded(columns.table(&rows), rows.len().max(13), "All curves in figures")
    }
}

/// The point of a curve at that share of zeros.
fn at(curve: &Curve, level: f64) -> Option<&Point> {
    let mut later = curve.points.iter().skip(1);
    later.find(|p| (p.sparsity - level).abs() < 1e-3)
}

fn percents(share: f64) -> String {
    let percent = (1000.0 * share).round() / 10.0;
    format!("{percent} %")
}

/// The section of the page; nothing where nothing was measured.
pub(super) fn section(story: &Story) -> String {
    if story.curves.is_empty() {
        return String::new();
    }
    let chosen = |name: &str| {
        let layer = story.layers.iter().find(|l| l.name == name)?;
        let elements: usize = layer.shape_after.iter().product();
        (elements > 0).then(|| layer.zeros_after as f64 / elements as f64)
    };
    let name = story.worth.as_ref().map_or("accuracy", |w| w.name);
    let measure = Measure::new(story.curves, name, &chosen);
    let (size, drawn) = measure.draw(0.0);
    let lines = story.curves.iter().any(|c| chosen(&c.weight).is_some());
    let caption = match (story.curves.len() <= PANELS, lines) {
        (true, true) => {
            "Each weight is pruned alone and nothing is trained; all panels have the same scale. The upright line is what was chosen in the end."
        }
        (true, false) => {
            "Each weight is pruned alone and nothing is trained; all panels have the same scale."
        }
        (false, _) => "Each weight is pruned alone and nothing is trained. The darker, the more is lost.",
    };
    format!(
        "<section>\n<h2>What each weight hurts</h2>\n{}{}</section>\n",
        figure(
            size,
            "What the model is worth as each weight alone is pruned",
            &drawn,
            caption
        ),
        measure.table()
    )
}

/// What each weight hurts, as a chart in SVG: a panel for each, or a line of a heat map where they are many.
pub(in crate::cmd) fn curves(curves: &[Curve]) -> String {
    let measure = Measure::new(curves, "accuracy", &|_| None);
    let ([width, height], drawn) = measure.draw(44.0);
    let title = text(
        [8.0, 26.0],
        "title",
        "start",
        "What each weight hurts when it alone is pruned",
    );
    sheet(
        [width, height],
        &style::chart(),
        "What each weight hurts when it alone is pruned",
        &(title + &drawn),
    )
}
