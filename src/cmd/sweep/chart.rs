//! A chart of speed-ups as SVG: a line for each engine and pattern, over zeros.

use super::super::chart::{COLOURS, STYLE, Scale, dot, line, rule, sheet, text};
use super::rows::Line;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 58.0;
/// Room for the lines' names.
const RIGHT: f64 = 226.0;
const TOP: f64 = 86.0;
const BOTTOM: f64 = 52.0;
/// Between two lines of text.
const LEADING: f64 = 18.0;

/// What this chart has beside others.
const MORE: &str = ".title{font-size:19px}.one{stroke:#1d2b24;stroke-width:1.5}.leader{stroke:#b9c2bc}\
.mark{font-size:12px;font-weight:600;paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}";

/// Where figures are drawn.
struct Axes {
    speedups: Scale,
}

impl Axes {
    fn of(lines: &[Line]) -> Axes {
        let all = lines.iter().flat_map(|l| &l.points).map(|p| p.1);
        Axes {
            speedups: Scale::new(all.chain([0.0, 1.2]), [HEIGHT - BOTTOM, TOP], 8),
        }
    }

    fn x(share: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * share
    }

    fn y(&self, speedup: f64) -> f64 {
        self.speedups.at(speedup)
    }

    fn grid(&self) -> String {
        let (left, right, foot) = (Axes::x(0.0), Axes::x(1.0), self.y(0.0));
        let across = self.speedups.ticks().into_iter().map(|(y, label)| {
            rule([left, y, right, y], "grid")
                + &text([left - 8.0, y + 4.5], "soft", "end", &format!("{label}×"))
        });
        let up = |i: usize| {
            let x = Axes::x(i as f64 / 10.0);
            let name = text([x, foot + 20.0], "soft", "middle", &format!("{} %", 10 * i));
            rule([x, TOP, x, foot], "grid") + if i.is_multiple_of(2) { &name } else { "" }
        };
        let lines: String = (0..=10).map(up).chain(across).collect();
        let middle = (left + right) / 2.0;
        lines
            + &rule([left, self.y(1.0), right, self.y(1.0)], "one")
            + &text(
                [middle, HEIGHT - 10.0],
                "soft",
                "middle",
                "zeros among the weights",
            )
            + &text(
                [left, TOP - 10.0],
                "soft",
                "start",
                "speed-up over the same engine's dense model",
            )
    }
}

/// How one line is drawn.
struct Pen<'a> {
    colour: &'a str,
    /// Gaps, by engine.
    dash: &'a str,
}

impl Pen<'_> {
    fn stroke(&self) -> String {
        format!(r#"stroke="{}" stroke-dasharray="{}""#, self.colour, self.dash)
    }

    fn dot(&self, at: [f64; 2]) -> String {
        dot(at, 3.5, &format!(r#"fill="{}""#, self.colour))
    }

    fn ring(&self, at: [f64; 2]) -> String {
        let colour = self.colour;
        dot(
            at,
            5.0,
            &format!(r##"fill="#fff" stroke="{colour}" stroke-width="2.5""##),
        )
    }

    fn curve(&self, points: &[[f64; 2]]) -> String {
        line(points, &format!(r#"class="line" {}"#, self.stroke()))
    }
}

/// A colour for each pattern, gaps for each engine but `self`.
fn pen<'a>(line: &Line, lines: &[Line]) -> Pen<'a> {
    let rank = |key: fn(&Line) -> &str| {
        let mut seen: Vec<&str> = vec![];
        for l in lines {
            if !seen.contains(&key(l)) {
                seen.push(key(l));
            }
        }
        seen.iter().position(|k| *k == key(line)).unwrap_or(0)
    };
    let dash = match &*line.engine {
        "self" => "none",
        "ort" => "7 6",
        _ => "1 5",
    };
    let colour = COLOURS[rank(|l| &l.pattern) % COLOURS.len()];
    Pen { colour, dash }
}

/// Places of labels as near as can be to where they want to be, apart from each other, within the chart.
fn spread(wanted: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    let mut placed = wanted.to_vec();
    let mut floor = TOP;
    for &i in &order {
        placed[i] = placed[i].max(floor);
        floor = placed[i] + LEADING;
    }
    let mut ceiling = HEIGHT - BOTTOM;
    for &i in order.iter().rev() {
        placed[i] = placed[i].min(ceiling);
        ceiling = placed[i] - LEADING;
    }
    placed
}

/// Names beside the ends of lines, with what they reach.
fn names(lines: &[Line], axes: &Axes) -> String {
    let ends: Vec<(f64, f64)> = lines.iter().filter_map(|l| l.points.last().copied()).collect();
    let wanted: Vec<f64> = ends.iter().map(|e| axes.y(e.1)).collect();
    let farthest = ends.iter().fold(0.0, |most: f64, e| most.max(e.0));
    let start = Axes::x(1.0) + 14.0;
    let one = |((line, &(share, speedup)), y): ((&Line, &(f64, f64)), f64)| {
        let (pen, end) = (pen(line, lines), [Axes::x(share), axes.y(speedup)]);
        let leader = match share == farthest {
            true => rule([end[0] + 6.0, end[1], start - 3.0, y], "leader"),
            false => String::new(),
        };
        let words = format!("{}, {} {speedup:.2}×", line.engine, line.pattern);
        leader
            + &pen.curve(&[[start, y], [start + 26.0, y]])
            + &text([start + 33.0, y + 4.5], "", "start", &words)
    };
    lines.iter().zip(&ends).zip(spread(&wanted)).map(one).collect()
}

/// The dots at which lines come to be faster than dense, and their sparsity in percent.
fn marks(lines: &[Line], axes: &Axes) -> String {
    let at = |l: &Line| Some((l.break_even()?, pen(l, lines)));
    let mut found: Vec<_> = lines
        .iter()
        .filter(|l| l.points.len() > 1)
        .filter_map(at)
        .collect();
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    // How far right each row of labels is taken: below and above the line at 1, then further away.
    let mut rows = [(18.0, 0.0), (-11.0, 0.0), (34.0, 0.0), (-27.0, 0.0)];
    let (mut dots, mut labels) = (String::new(), String::new());
    for (share, pen) in found {
        let (x, y) = (Axes::x(share), axes.y(1.0));
        dots += &pen.ring([x, y]);
        if let Some(row) = rows.iter_mut().find(|r| r.1 <= x) {
            row.1 = x + 42.0;
            let words = format!("{:.0} %", 100.0 * share);
            labels += &text([x, y + row.0], "mark", "middle", &words);
        }
    }
    dots + &labels
}

/// The chart of `lines`.
pub(super) fn chart(title: &str, caption: &str, lines: &[Line]) -> String {
    let axes = Axes::of(lines);
    let curve = |line: &Line| {
        let (pen, place) = (pen(line, lines), |p: &(f64, f64)| [Axes::x(p.0), axes.y(p.1)]);
        let measured: Vec<[f64; 2]> = line.points.iter().map(place).collect();
        let dots: String = measured.iter().map(|p| pen.dot(*p)).collect();
        let dense = [Axes::x(0.0), axes.y(1.0)];
        match (&measured[..], &*line.engine) {
            // A single point says nothing of what lies before it.
            ([[x, y]], "self") => dots + &text([x - 8.0, y + 4.0], "mark", "end", &line.pattern),
            ([_], _) => dots,
            _ => pen.curve(&[&[dense], &measured[..]].concat()) + &dots,
        }
    };
    let curves: String = lines.iter().map(curve).collect();
    let name = title.rsplit('/').next().unwrap_or(title);
    let title = format!("What zeros save: {name}");
    let head = text([LEFT, 26.0], "title", "start", &title) + &text([LEFT, 45.0], "soft", "start", caption);
    let (marks, names) = (marks(lines, &axes), names(lines, &axes));
    sheet(
        [WIDTH, HEIGHT],
        &format!("{STYLE}{MORE}"),
        &title,
        &[head, axes.grid(), curves, marks, names].join("\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(engine: &str, pattern: &str, points: &[(f64, f64)]) -> Line {
        Line {
            name: "m".into(),
            engine: engine.into(),
            pattern: pattern.into(),
            points: points.to_vec(),
            vs_peer: None,
        }
    }

    #[test]
    fn labels_stand_apart_and_inside() {
        let placed = spread(&[100.0, 101.0, 99.0, 428.0, 428.0]);
        let mut sorted = placed.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(
            sorted.windows(2).all(|w| w[1] - w[0] >= LEADING - 1e-9),
            "{placed:?}"
        );
        assert!(placed[2] < placed[0] && placed[0] < placed[1]);
        assert!(placed.iter().all(|y| (TOP..=HEIGHT - BOTTOM).contains(y)));
    }

    #[test]
    fn everything_is_drawn() {
        let lines = [
            line("self", "unstructured", &[(0.5, 0.8), (0.9, 2.0)]),
            line("ort", "unstructured", &[(0.5, 0.9), (0.9, 0.9)]),
            line("self", "2:4", &[(0.5, 1.5)]),
        ];
        let svg = chart("a/<b>.onnx", "2 threads", &lines);
        assert!(svg.contains("What zeros save: &lt;b&gt;.onnx") && svg.contains("2 threads"));
        for words in [
            "self, unstructured 2.00×",
            "ort, unstructured 0.90×",
            "self, 2:4 1.50×",
            ">57 %<",
            ">2×<",
        ] {
            assert!(svg.contains(words), "{words}: {svg}");
        }
        assert_eq!(svg.matches("r=\"5\"").count(), 1, "one of them becomes faster");
        assert_eq!(
            svg.matches("stroke-dasharray=\"7 6\"").count(),
            2,
            "a curve and its name"
        );
        let top = |lines: &[Line]| Axes::of(lines).speedups.ticks().pop().map(|t| t.1);
        assert_eq!((top(&lines), top(&[])), (Some("2".into()), Some("1.2".into())));
    }
}
