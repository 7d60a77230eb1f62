//! A column for each of many layers: its size, its zeros, its time.

use super::super::super::chart::{Scale, bar, rule, text};
use super::super::words::{chart as figure, percent};
use super::Row;

const WIDTH: f64 = 920.0;
const LEFT: f64 = 52.0;
/// Of one graph.
const HEIGHT: f64 = 104.0;
const GAP: f64 = 40.0;
const TOP: f64 = 26.0;

/// One graph: its title and unit, and of a row what is drawn behind and before.
struct Graph<'a> {
    title: &'a str,
    unit: &'a str,
    /// A value that the scale reaches.
    most: f64,
    of: &'a dyn Fn(&Row) -> [f64; 2],
}

impl Graph<'_> {
    fn draw(&self, rows: &[Row], top: f64) -> String {
        let foot = top + HEIGHT;
        let all = rows.iter().flat_map(|r| (self.of)(r)).chain([0.0, self.most]);
        let y = Scale::new(all, [foot, top], 3);
        let grid = y.ticks().into_iter().map(|(at, label)| {
            let words = format!("{label}{}", self.unit);
            rule([LEFT, at, WIDTH, at], "grid") + &text([LEFT - 6.0, at + 4.0], "soft small", "end", &words)
        });
        let wide = (WIDTH - LEFT) / rows.len() as f64;
        let gap = if wide > 5.0 { 1.0 } else { 0.0 };
        let column = |(i, row): (usize, &Row)| {
            let left = LEFT + wide * i as f64;
            let [behind, before] = (self.of)(row).map(|v| y.at(v));
            let part = |at: f64, class: &str| match foot - at > 0.05 {
                true => bar([left, at, wide - gap, foot - at], &format!(r#"class="{class}""#)),
                false => String::new(),
            };
            format!(
                "<g>{}{}{}</g>",
                row.title(),
                part(behind, "pale"),
                part(before, "live")
            )
        };
        let columns = rows.iter().enumerate().map(column);
        let title = text([LEFT, top - 10.0], "title", "start", self.title);
        grid.chain([title]).chain(columns).collect()
    }
}

/// The numbers of layers, at round ones.
fn numbers(count: usize, y: f64) -> String {
    let wide = (WIDTH - LEFT) / count as f64;
    let step = [5, 10, 20, 50, 100, 500].into_iter().find(|s| count / s <= 20);
    let step = step.unwrap_or(1000);
    (step..=count)
        .step_by(step)
        .map(|n| {
            let x = LEFT + wide * (n as f64 - 0.5);
            let anchor = if x > WIDTH - 12.0 { "end" } else { "middle" };
            text([x, y], "soft small", anchor, &n.to_string())
        })
        .collect()
}

/// The chart.
pub(super) fn chart(rows: &[Row]) -> String {
    let timed = rows.iter().any(|r| r.layer.ms.is_some());
    let graphs = [
        Graph {
            title: "Parameters, before and left",
            unit: "",
            most: 0.0,
            of: &|r| [r.parts.whole() as f64, r.parts.live() as f64],
        },
        Graph {
            title: "Gone: zero or cut away, of each weight's parameters",
            unit: " %",
            most: 100.0,
            of: &|r| [0.0, percent(r.parts.whole() - r.parts.live(), r.parts.whole())],
        },
        Graph {
            title: "Predicted ms, before and after",
            unit: "",
            most: 0.0,
            of: &|r| r.layer.ms.map_or([0.0; 2], |(a, b)| [a, b]),
        },
    ];
    let shown = &graphs[..if timed { 3 } else { 2 }];
    let top = |i: usize| TOP + (HEIGHT + GAP) * i as f64;
    let drawn: String = shown
        .iter()
        .enumerate()
        .map(|(i, g)| g.draw(rows, top(i)))
        .collect();
    let height = top(shown.len()) - GAP + 22.0;
    let numbers = numbers(rows.len(), height - 6.0);
    figure(
        [WIDTH, height],
        "Parameters, zeros and predicted time of each weight, before and after",
        &(drawn + &numbers),
        "Pale before, blue after. The numbers are those of the weights in the order of the file, named in the table.",
    )
}
