//! Worth and cost over the steps.

use super::super::super::chart::{Scale, dot, escaped, line, rule, text};
use super::super::Tried;
use super::super::words::chart as figure;
use super::Way;

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 268.0;
const TOP: f64 = 34.0;
const FOOT: f64 = 224.0;

/// A point of a panel: what was reached by a step, and from where, if it was recovered.
struct Point<'a> {
    step: &'a Tried,
    from: Option<f64>,
    to: Option<f64>,
}

/// One of the two graphs.
struct Panel<'a> {
    title: String,
    /// Left and right end.
    ends: [f64; 2],
    y: Scale,
    start: Option<f64>,
    bound: Option<(f64, &'a str)>,
    points: Vec<Point<'a>>,
    /// The units of worth and cost.
    units: (&'a str, &'a str),
}

impl Panel<'_> {
    /// The place of step `i`; the start is step 0.
    fn x(&self, i: usize) -> f64 {
        let [left, right] = self.ends;
        let margin = 18.0;
        left + margin + (right - left - 2.0 * margin) * i as f64 / self.points.len().max(1) as f64
    }

    fn grid(&self) -> String {
        let [left, right] = self.ends;
        let across = self.y.ticks().into_iter().map(|(at, label)| {
            rule([left, at, right, at], "grid") + &text([left - 8.0, at + 4.0], "soft small", "end", &label)
        });
        let step = self.points.len().div_ceil(12).max(1);
        let below = (0..=self.points.len()).step_by(step).map(|i| {
            let name = if i == 0 { "start".into() } else { i.to_string() };
            text([self.x(i), FOOT + 18.0], "soft small", "middle", &name)
        });
        let title = text([left, TOP - 16.0], "title", "start", &self.title);
        across.chain(below).chain([title]).collect()
    }

    /// The line that must not be passed.
    fn bound(&self) -> String {
        let Some((value, name)) = self.bound.filter(|b| self.y.holds(b.0)) else {
            return String::new();
        };
        let ([left, right], at) = (self.ends, self.y.at(value));
        rule([left, at, right, at], "bound") + &text([right, at - 5.0], "small red halo", "end", name)
    }

    /// From the start through all that was kept.
    fn path(&self) -> String {
        let kept = self.points.iter().enumerate().filter(|(_, p)| p.step.kept);
        let places =
            kept.filter_map(|(i, p)| Some([self.x(i + 1), self.y.at(p.to.filter(|v| v.is_finite())?)]));
        let start = self.start.map(|v| [self.x(0), self.y.at(v)]);
        let all: Vec<_> = start.into_iter().chain(places).collect();
        let first = start.map(|at| dot(at, 4.0, r#"class="hollow""#));
        line(&all, r#"class="path""#) + &first.unwrap_or_default()
    }

    fn mark(&self, i: usize, point: &Point) -> String {
        let x = self.x(i + 1);
        let Some(to) = point.to.filter(|v| v.is_finite()) else {
            return String::new();
        };
        let y = self.y.at(to);
        let from = point.from.filter(|v| v.is_finite()).map(|v| {
            let at = self.y.at(v);
            let end = match self.y.holds(v) {
                true => dot([x, at], 2.5, r#"class="hollow""#),
                false => beyond([x, at], at > y),
            };
            rule([x, y, x, at], "tie") + &end
        });
        let title = escaped(&point.step.title(self.units.0, self.units.1));
        let mark = match point.step.kept {
            true => dot([x, y], 4.5, r#"class="live""#),
            false => cross([x, y], 4.0),
        };
        format!("<g><title>{title}</title>{}{mark}</g>", from.unwrap_or_default())
    }

    fn draw(&self) -> String {
        let marks: String = self
            .points
            .iter()
            .enumerate()
            .map(|(i, p)| self.mark(i, p))
            .collect();
        self.grid() + &self.bound() + &self.path() + &marks
    }
}

/// What was taken back.
pub(super) fn cross([x, y]: [f64; 2], r: f64) -> String {
    format!(
        r#"<path class="back" d="M{:.1} {:.1}l{} {}m0 -{}l-{} {}"/>"#,
        x - r,
        y - r,
        2.0 * r,
        2.0 * r,
        2.0 * r,
        2.0 * r,
        2.0 * r
    )
}

/// An arrow at the edge: it goes on there.
fn beyond([x, y]: [f64; 2], down: bool) -> String {
    let tip = if down { 5.0 } else { -5.0 };
    format!(r#"<path class="grey" d="M{:.1} {:.1}h6l-3 {tip}z"/>"#, x - 3.0, y)
}

/// The chart: worth, and beside it cost where it is known.
pub(super) fn chart(way: &Way) -> String {
    let steps = &way.story.steps;
    let (worth, cost) = (
        steps.iter().any(|t| t.after.is_some()),
        steps.iter().any(|t| t.cost.is_some()),
    );
    let units = (way.unit(), way.story.aim.as_ref().map_or("", |a| a.unit));
    let ends = match (worth, cost) {
        (true, true) => [[52.0, 450.0], [522.0, 920.0]],
        _ => [[52.0, 920.0]; 2],
    };
    let floor = if way.worth.is_some_and(super::Worth::less_is_better) {
        "at most"
    } else {
        "at least"
    };
    let first = Panel {
        title: way.measure(),
        ends: ends[0],
        y: Scale::new(way.range(), [FOOT, TOP], 4),
        start: way.start.0,
        bound: way.floor().map(|v| (v, floor)),
        points: steps
            .iter()
            .map(|step| Point {
                step,
                from: step.before,
                to: step.after,
            })
            .collect(),
        units,
    };
    let costs = steps.iter().filter_map(|t| t.cost);
    let costs = costs.chain(way.start.1).chain(way.wanted()).chain([0.0]);
    let second = Panel {
        title: way.cost(),
        ends: ends[1],
        y: Scale::new(costs, [FOOT, TOP], 4),
        start: way.start.1,
        bound: way.wanted().map(|v| (v, "wanted")),
        points: steps
            .iter()
            .map(|step| Point {
                step,
                from: None,
                to: step.cost,
            })
            .collect(),
        units,
    };
    let drawn = [(worth, &first), (cost, &second)]
        .into_iter()
        .filter(|p| p.0)
        .map(|p| p.1.draw());
    let caption = "Dot: kept. Cross: taken back, the next step went on from the one before. Small ring: before it was trained again; \
        an arrow says that it lies beyond the edge. Steps are measured on examples of their own, apart from those of the figures at the top.";
    figure(
        [WIDTH, HEIGHT],
        "Worth and cost over the steps",
        &drawn.collect::<String>(),
        caption,
    )
}
