//! A small chart for each weight, all with one scale.

use secateur::compress::budget::Curve;

use super::super::super::chart::{Scale, dot, escaped, line, rule, shortened, text};
use super::super::words::amount;
use super::{Measure, WIDTH, percents};

/// In a row.
const ACROSS: usize = 4;
const LEFT: f64 = 44.0;
const HEIGHT: f64 = 138.0;
const GAP: f64 = 18.0;
/// Room for the name above a panel, and for figures below.
const HEAD: f64 = 24.0;
const FOOT: f64 = 24.0;

/// Where a panel is, and its scales.
struct Panel {
    left: f64,
    right: f64,
    top: f64,
    foot: f64,
    x: Scale,
    y: Scale,
}

impl Panel {
    fn new(measure: &Measure, i: usize, top: f64) -> Panel {
        let wide = (WIDTH - LEFT) / ACROSS as f64;
        let left = LEFT + wide * (i % ACROSS) as f64;
        let top = top + HEIGHT * (i / ACROSS) as f64 + HEAD;
        let (right, foot) = (left + wide - GAP, top + HEIGHT - HEAD - FOOT);
        let points = measure.curves.iter().flat_map(|c| &c.points);
        Panel {
            left,
            right,
            top,
            foot,
            x: Scale::new([0.0, 100.0], [left, right], 2),
            y: Scale::new(points.map(|p| measure.worth(p)), [foot, top], 3),
        }
    }

    fn grid(&self, first: bool) -> String {
        let across = self.y.ticks().into_iter().map(|(at, label)| {
            let name = text([self.left - 6.0, at + 4.0], "soft small", "end", &label);
            rule([self.left, at, self.right, at], "grid") + if first { &name } else { "" }
        });
        let anchors = ["start", "middle", "end"];
        let below = self
            .x
            .ticks()
            .into_iter()
            .zip(anchors)
            .map(|((at, label), anchor)| {
                text(
                    [at, self.foot + 14.0],
                    "soft small",
                    anchor,
                    &format!("{label} %"),
                )
            });
        across.chain(below).collect()
    }

    fn draw(&self, measure: &Measure, curve: &Curve, first: bool) -> String {
        let finite =
            |p: &&secateur::compress::budget::Point| measure.worth(p).is_finite() && p.sparsity.is_finite();
        let points: Vec<_> = curve.points.iter().filter(finite).collect();
        let place = |p: &&secateur::compress::budget::Point| {
            [self.x.at(100.0 * p.sparsity), self.y.at(measure.worth(p))]
        };
        let path: Vec<[f64; 2]> = points.iter().map(place).collect();
        let dots = points.iter().map(|p| {
            let words = format!(
                "{} zeros: {}",
                percents(p.sparsity),
                amount(measure.worth(p), measure.unit)
            );
            format!(
                "<g><title>{words}</title>{}</g>",
                dot(place(p), 2.5, r#"class="live""#)
            )
        });
        let dots: String = dots.collect();
        let chosen = (measure.chosen)(&curve.weight).map(|share| {
            let at = self.x.at(100.0 * share);
            rule([at, self.top, at, self.foot], "axis")
        });
        let name = text(
            [self.left, self.top - 8.0],
            "small",
            "start",
            &shortened(&curve.weight, 31),
        );
        format!(
            "<g><title>{}</title>{}{}{}{dots}{name}</g>",
            escaped(&curve.weight),
            self.grid(first),
            chosen.unwrap_or_default(),
            line(&path, r#"class="path""#)
        )
    }
}

/// The chart's size and what is drawn.
pub(super) fn draw(measure: &Measure, top: f64) -> ([f64; 2], String) {
    let panel = |(i, curve): (usize, &Curve)| {
        Panel::new(measure, i, top + 20.0).draw(measure, curve, i % ACROSS == 0)
    };
    let panels: String = measure.curves.iter().enumerate().map(panel).collect();
    let title = format!("{} by zeros of that weight", measure.title());
    let title = text([8.0, top + 12.0], "soft", "start", &title);
    let rows = measure.curves.len().div_ceil(ACROSS);
    ([WIDTH, top + 20.0 + HEIGHT * rows as f64], title + &panels)
}
