//! Accuracy and steps over the weights that are left, as SVG: a line for each arm, and a band in which the mean lies.

use secateur::compress::math::Interval;
use secateur::compress::ticket::Arm;

use super::report::{Group, Report};

const WIDTH: f64 = 940.0;
const HEIGHT: f64 = 420.0;
/// A panel is so wide.
const PANEL: f64 = 380.0;
/// Where panels begin.
const LEFTS: [f64; 2] = [64.0, 534.0];
const TOP: f64 = 84.0;
const BOTTOM: f64 = 54.0;

/// Arms in the order of the key, with colours that people who see few colours tell apart (Okabe and Ito 2008).
const ARMS: [(Arm, &str); 4] = [
    (Arm::Dense, "#444444"),
    (Arm::Ticket, "#0072b2"),
    (Arm::Reinit, "#d55e00"),
    (Arm::RandomMask, "#009e73"),
];

const STYLE: &str = "text{font:13px system-ui,'Helvetica Neue',Arial,sans-serif;fill:#1d2b24}\
.title{font-size:16px;font-weight:600}.soft{fill:#5d6b64}.grid{stroke:#e3e7e3}\
.line{fill:none;stroke-width:2.5;stroke-linejoin:round;stroke-linecap:round}.band{stroke:none;opacity:.15}";

/// A point of a line: the share that is left, and what was measured.
type Dot = (f64, Interval);

/// A panel: what is drawn over the share that is left.
struct Panel {
    title: &'static str,
    left: f64,
    lines: Vec<(Arm, &'static str, Vec<Dot>)>,
    /// The least share.
    least: f64,
    /// The least and greatest value.
    range: (f64, f64),
    /// From line to line of the grid.
    step: f64,
}

impl Panel {
    fn of(report: &Report, title: &'static str, left: f64, value: fn(&Group) -> Option<Interval>) -> Panel {
        let line = |&(arm, colour): &(Arm, &'static str)| {
            let groups = report.groups.iter().filter(|g| g.arm == arm);
            let dots: Vec<Dot> = groups.filter_map(|g| Some((g.remaining, value(g)?))).collect();
            (arm, colour, dots)
        };
        let lines: Vec<_> = ARMS.iter().map(line).collect();
        let shares = report.groups.iter().map(|g| g.remaining);
        let means = lines.iter().flat_map(|l| &l.2).map(|d| d.1.mean);
        let (low, high) = means.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| {
            (a.min(x), b.max(x))
        });
        let room = if high > low { 0.08 * (high - low) } else { 0.5 };
        let range = match high.is_finite() {
            true => (low - room, high + room),
            false => (0.0, 1.0),
        };
        Panel {
            title,
            left,
            // With the dense network alone there would be no width.
            least: shares.fold(0.5, f64::min),
            step: step((range.1 - range.0) / 5.0),
            lines,
            range,
        }
    }

    fn x(&self, share: f64) -> f64 {
        self.left + PANEL * share.ln() / self.least.ln()
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
        TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - share)
    }

    fn grid(&self) -> String {
        let (right, foot) = (self.left + PANEL, HEIGHT - BOTTOM);
        let digits = (-self.step.log10().floor()).max(0.0) as usize;
        let across = |i: i64| {
            let value = self.step * i as f64;
            let y = self.y(value);
            rule([self.left, y, right, y])
                + &text(
                    [self.left - 7.0, y + 4.5],
                    "soft",
                    "end",
                    &format!("{value:.digits$}"),
                )
        };
        let shares = [1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];
        let up = |share: f64| {
            let x = self.x(share);
            let words = format!("{} %", 100.0 * share);
            rule([x, TOP, x, foot]) + &text([x, foot + 20.0], "soft", "middle", &words)
        };
        let shares = shares.into_iter().filter(|s| *s >= self.least);
        let [first, last] = [
            (self.range.0 / self.step).ceil(),
            (self.range.1 / self.step).floor(),
        ];
        let lines: String = (first as i64..=last as i64)
            .map(across)
            .chain(shares.map(up))
            .collect();
        let middle = self.left + PANEL / 2.0;
        lines
            + &text([self.left, TOP - 12.0], "title", "start", self.title)
            + &text([middle, HEIGHT - 10.0], "soft", "middle", "weights left")
    }

    fn draw(&self) -> String {
        self.grid() + &self.lines.iter().map(|l| self.line(l)).collect::<String>()
    }

    fn line(&self, (arm, colour, dots): &(Arm, &str, Vec<Dot>)) -> String {
        let dots: Vec<Dot> = match (arm, dots.first()) {
            // The dense network has all weights: what it reaches is to be compared everywhere.
            (Arm::Dense, Some(&(_, x))) => vec![(1.0, x), (self.least, x)],
            _ => dots.clone(),
        };
        let place = |share: f64, value: f64| format!("{:.1},{:.1}", self.x(share), self.y(value));
        let middle: Vec<String> = dots.iter().map(|d| place(d.0, d.1.mean)).collect();
        let known = dots.iter().filter(|d| d.1.half.is_finite());
        let above = known.clone().map(|d| place(d.0, d.1.mean + d.1.half));
        let below = known.rev().map(|d| place(d.0, d.1.mean - d.1.half));
        let band: Vec<String> = above.chain(below).collect();
        let circles: String = match arm {
            Arm::Dense => String::new(),
            _ => dots.iter().map(|d| self.circle(d, colour)).collect(),
        };
        let dash = if *arm == Arm::Dense { "6 5" } else { "none" };
        format!(
            r#"<polygon class="band" fill="{colour}" points="{}"/><polyline class="line" stroke="{colour}" stroke-dasharray="{dash}" points="{}"/>{circles}"#,
            band.join(" "),
            middle.join(" ")
        )
    }

    fn circle(&self, dot: &Dot, colour: &str) -> String {
        let (x, y) = (self.x(dot.0), self.y(dot.1.mean));
        format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#)
    }
}

/// The least of 1, 2 and 5 times a power of ten that is at least `x`.
fn step(x: f64) -> f64 {
    let power = 10f64.powf(x.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= x);
    power * factor.unwrap_or(10.0)
}

fn rule([x1, y1, x2, y2]: [f64; 4]) -> String {
    format!(r#"<line class="grid" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#)
}

fn text([x, y]: [f64; 2], class: &str, anchor: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    format!(r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{words}</text>"#)
}

/// The chart of what `report` says.
pub(super) fn chart(report: &Report) -> String {
    let percent = |i: Interval| Interval {
        mean: 100.0 * i.mean,
        half: 100.0 * i.half,
    };
    let accuracy: fn(&Group) -> Option<Interval> = |g| Some(g.accuracy);
    let mut right = Panel::of(report, "Test accuracy, %", LEFTS[0], accuracy);
    right
        .lines
        .iter_mut()
        .flat_map(|l| &mut l.2)
        .for_each(|d| d.1 = percent(d.1));
    right.range = (100.0 * right.range.0, 100.0 * right.range.1);
    right.step = step((right.range.1 - right.range.0) / 5.0);
    let steps = Panel::of(report, "Steps until as good as dense", LEFTS[1], |g| g.steps);
    let seeds = report.groups.first().map_or(0, |g| g.seeds);
    let name = report.model.rsplit('/').next().unwrap_or(&report.model);
    let title =
        format!("Lottery tickets: {name}, means of {seeds} seeds and where they lie with 95 % confidence");
    let shown = ARMS
        .iter()
        .filter(|(arm, _)| report.groups.iter().any(|g| g.arm == *arm));
    let key: String = shown
        .enumerate()
        .map(|(i, (arm, colour))| {
            let x = LEFTS[0] + 120.0 * i as f64;
            let line = format!(
                r#"<line x1="{x}" x2="{}" y1="46" y2="46" stroke="{colour}" stroke-width="3"/>"#,
                x + 22.0
            );
            line + &text([x + 28.0, 50.5], "", "start", arm.name())
        })
        .collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n\
         <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}{key}\n{}\n{}\n</svg>\n",
        text([LEFTS[0], 26.0], "title", "start", &title),
        right.draw(),
        steps.draw(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, row};
    use super::*;

    #[test]
    fn every_arm_is_drawn_once_a_panel() {
        let svg = chart(&report());
        for (arm, colour) in ARMS {
            let lines = svg
                .matches(&format!("stroke=\"{colour}\" stroke-dasharray"))
                .count();
            assert_eq!(lines, 2, "{}", arm.name());
        }
        assert!(svg.contains(">ticket<") && svg.contains(">reinit<") && !svg.contains(">random-mask<"));
        assert!(svg.contains("means of 2 seeds") && svg.contains(">50 %<"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn lines_of_the_grid_are_round_numbers() {
        let steps = [0.7, 1.0, 1.1, 34.0, 600.0].map(step);
        assert_eq!(steps, [1.0, 1.0, 2.0, 50.0, 1000.0]);
        assert!((step(0.03) - 0.05).abs() < 1e-12);
    }

    #[test]
    fn one_seed_has_no_band() {
        let rows = vec![
            row(Arm::Dense, 0, 0, 0.9, None),
            row(Arm::Ticket, 0, 1, 0.8, None),
        ];
        let svg = chart(&Report::new("a/<m>.onnx", rows));
        assert!(
            svg.contains("&lt;m>.onnx") && !svg.contains("NaN") && !svg.contains("inf"),
            "{svg}"
        );
    }
}
