//! A line for each layer: its size, its zeros, its time.

use super::super::super::chart::{Scale, bar, dot, rule, shortened, text};
use super::super::words::{chart as figure, percent};
use super::Row;

const WIDTH: f64 = 920.0;
const TOP: f64 = 46.0;
/// From line to line.
const LEADING: f64 = 21.0;
/// Where names end and graphs begin.
const NAMES: f64 = 286.0;
const GAP: f64 = 46.0;

/// One graph: its title, its scale, and what it draws of a row at a height.
struct Graph<'a> {
    title: &'a str,
    scale: Scale,
    unit: &'a str,
    draw: &'a dyn Fn(&Row, &Scale, f64) -> String,
}

impl Graph<'_> {
    fn grid(&self, foot: f64) -> String {
        let ticks = self.scale.ticks();
        let start = ticks.first().map_or(0.0, |t| t.0);
        let tick = |(at, label): &(f64, String)| {
            let words = format!("{label}{}", self.unit);
            rule([*at, TOP - 4.0, *at, foot], "grid")
                + &text([*at, TOP - 10.0], "soft small", "middle", &words)
        };
        let ticks: String = ticks.iter().map(tick).collect();
        ticks + &text([start, TOP - 30.0], "title", "start", self.title)
    }
}

fn size(row: &Row, x: &Scale, y: f64) -> String {
    let (p, zero) = (row.parts, x.at(0.0));
    let part = |from: u64, to: u64, class: &str| {
        let (from, to) = (x.at(from as f64), x.at(to as f64));
        match to > from {
            true => bar([from, y - 6.0, to - from, 12.0], &format!(r#"class="{class}""#)),
            false => String::new(),
        }
    };
    // Else the smallest would not be seen at all.
    let least = match p.live() {
        0 => String::new(),
        _ => bar([zero, y - 6.0, 1.0, 12.0], r#"class="live""#),
    };
    part(p.after, p.whole(), "gone") + &part(p.live(), p.after, "pale") + &part(0, p.live(), "live") + &least
}

fn zeros(row: &Row, x: &Scale, y: f64) -> String {
    let p = row.parts;
    let from = x.at(percent(p.zeros_before, p.before));
    let to = x.at(percent(p.zeros_after, p.after));
    let start = dot([from, y], 3.5, r#"class="hollow""#);
    match p.after {
        0 => start + &text([x.at(100.0), y + 4.0], "soft small", "end", "gone"),
        _ => rule([from, y, to, y], "tie") + &start + &dot([to, y], 4.0, r#"class="live""#),
    }
}

fn time(row: &Row, x: &Scale, y: f64) -> String {
    let Some((before, after)) = row.layer.ms else {
        return String::new();
    };
    let zero = x.at(0.0);
    let one = |ms: f64, y: f64, class: &str| {
        let look = format!(r#"class="{class}""#);
        bar([zero, y, (x.at(ms) - zero).max(0.5), 5.0], &look)
    };
    one(before, y - 6.0, "pale") + &one(after, y + 0.5, "live")
}

fn line(row: &Row, y: f64, graphs: &[Graph]) -> String {
    let number = text([22.0, y + 4.0], "soft small", "end", &row.number.to_string());
    let name = text([30.0, y + 4.0], "", "start", &shortened(&row.layer.name, 37));
    let drawn: String = graphs.iter().map(|g| (g.draw)(row, &g.scale, y)).collect();
    format!("<g>{}{number}{name}{drawn}</g>", row.title())
}

/// The chart.
pub(super) fn chart(rows: &[Row]) -> String {
    let timed = rows.iter().any(|r| r.layer.ms.is_some());
    let count = if timed { 3.0 } else { 2.0 };
    let wide = (WIDTH - NAMES - GAP * count) / count;
    let place = |i: f64| {
        let from = NAMES + GAP * (i + 0.5) + wide * i;
        [from, from + wide]
    };
    let sizes = rows.iter().map(|r| r.parts.whole() as f64);
    let times = rows.iter().filter_map(|r| r.layer.ms);
    let times = times.flat_map(|(a, b)| [a, b]).chain([0.0]);
    let mut graphs = vec![
        Graph {
            title: "Parameters",
            scale: Scale::new(sizes.chain([0.0]), place(0.0), 3),
            unit: "",
            draw: &size,
        },
        Graph {
            title: "Zeros",
            scale: Scale::new([0.0, 100.0], place(1.0), 2),
            unit: " %",
            draw: &zeros,
        },
    ];
    if timed {
        graphs.push(Graph {
            title: "Predicted ms",
            scale: Scale::new(times, place(2.0), 3),
            unit: "",
            draw: &time,
        });
    }
    let foot = TOP + LEADING * rows.len() as f64;
    let grid: String = graphs.iter().map(|g| g.grid(foot)).collect();
    let height = |i: usize| TOP + LEADING * (i as f64 + 0.5);
    let lines: String = rows
        .iter()
        .enumerate()
        .map(|(i, r)| line(r, height(i), &graphs))
        .collect();
    let caption = "Parameters: blue is left, pale is zero, dashed is cut away. Zeros: ring before, dot after. Times: pale before, blue after, \
        as the cost model predicts them for the operator that takes the weight.";
    figure(
        [WIDTH, foot + 8.0],
        "Parameters, zeros and predicted time of each weight, before and after",
        &(grid + &lines),
        if timed {
            caption
        } else {
            caption.split(" Times").next().unwrap_or(caption)
        },
    )
}
