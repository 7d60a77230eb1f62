//! Accuracy and steps over the weights that are left, as SVG: a line for each arm, and a band in which the mean lies.

use secateur::compress::math::Interval;
use secateur::compress::ticket::Arm;

use super::super::chart::{COLOURS, STYLE, Scale, dot, line, places, rule, sheet, text};
use super::report::{Group, Report};

const WIDTH: f64 = 940.0;
const HEIGHT: f64 = 420.0;
/// A panel is so wide.
const PANEL: f64 = 380.0;
/// Where panels begin.
const LEFTS: [f64; 2] = [64.0, 534.0];
const TOP: f64 = 84.0;
const BOTTOM: f64 = 54.0;

/// Arms in the order of the key, with their colours.
const ARMS: [(Arm, &str); 4] = [
    (Arm::Dense, COLOURS[7]),
    (Arm::Ticket, COLOURS[0]),
    (Arm::Reinit, COLOURS[1]),
    (Arm::RandomMask, COLOURS[2]),
];

/// The band in which the mean lies.
const BAND: &str = ".band{stroke:none;opacity:.15}";

/// A point of a line: the share that is left, and what was measured.
type Dot = (f64, Interval);

/// A panel: what is drawn over the share that is left.
struct Panel {
    title: &'static str,
    left: f64,
    lines: Vec<(Arm, &'static str, Vec<Dot>)>,
    /// The least share.
    least: f64,
    y: Scale,
}

impl Panel {
    fn new(report: &Report, title: &'static str, left: f64, value: fn(&Group) -> Option<Interval>) -> Panel {
        let line = |&(arm, colour): &(Arm, &'static str)| {
            let groups = report.groups.iter().filter(|g| g.arm == arm);
            let dots: Vec<Dot> = groups.filter_map(|g| Some((g.remaining, value(g)?))).collect();
            (arm, colour, dots)
        };
        let lines: Vec<_> = ARMS.iter().map(line).collect();
        let shares = report.groups.iter().map(|g| g.remaining);
        let means = lines.iter().flat_map(|l| &l.2).map(|d| d.1.mean);
        Panel {
            title,
            left,
            // With the dense network alone there would be no width.
            least: shares.fold(0.5, f64::min),
            y: Scale::new(means, [HEIGHT - BOTTOM, TOP], 5),
            lines,
        }
    }

    fn x(&self, share: f64) -> f64 {
        self.left + PANEL * share.ln() / self.least.ln()
    }

    fn grid(&self) -> String {
        let (right, foot) = (self.left + PANEL, HEIGHT - BOTTOM);
        let across = self.y.ticks().into_iter().map(|(y, label)| {
            rule([self.left, y, right, y], "grid") + &text([self.left - 7.0, y + 4.5], "soft", "end", &label)
        });
        let shares = [1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];
        let up = |share: f64| {
            let x = self.x(share);
            let words = format!("{} %", 100.0 * share);
            rule([x, TOP, x, foot], "grid") + &text([x, foot + 20.0], "soft", "middle", &words)
        };
        let shares = shares.into_iter().filter(|s| *s >= self.least);
        let lines: String = across.chain(shares.map(up)).collect();
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
        let place = |share: f64, value: f64| [self.x(share), self.y.at(value)];
        let middle: Vec<[f64; 2]> = dots.iter().map(|d| place(d.0, d.1.mean)).collect();
        let known = dots.iter().filter(|d| d.1.half.is_finite());
        let above = known.clone().map(|d| place(d.0, d.1.mean + d.1.half));
        let below = known.rev().map(|d| place(d.0, d.1.mean - d.1.half));
        let band: Vec<[f64; 2]> = above.chain(below).collect();
        let fill = format!(r#"fill="{colour}""#);
        let circles: String = match arm {
            Arm::Dense => String::new(),
            _ => middle.iter().map(|at| dot(*at, 3.5, &fill)).collect(),
        };
        let dash = if *arm == Arm::Dense { "6 5" } else { "none" };
        let look = format!(r#"class="line" stroke="{colour}" stroke-dasharray="{dash}""#);
        let band = format!(r#"<polygon class="band" {fill} points="{}"/>"#, places(&band));
        band + &line(&middle, &look) + &circles
    }
}

fn percent(share: Interval) -> Interval {
    Interval {
        mean: 100.0 * share.mean,
        half: 100.0 * share.half,
    }
}

/// The chart of what `report` says.
pub(super) fn chart(report: &Report) -> String {
    let right = Panel::new(report, "Test accuracy, %", LEFTS[0], |g| {
        Some(percent(g.accuracy))
    });
    let steps = Panel::new(report, "Steps until as good as dense", LEFTS[1], |g| g.steps);
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
    let title = text([LEFTS[0], 26.0], "title", "start", &title);
    sheet(
        [WIDTH, HEIGHT],
        &format!("{STYLE}{BAND}"),
        "Accuracy, and steps until as good as dense, over the weights that are left",
        &format!("{title}{key}\n{}\n{}", right.draw(), steps.draw()),
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
    fn one_seed_has_no_band() {
        let rows = vec![
            row(Arm::Dense, 0, 0, 0.9, None),
            row(Arm::Ticket, 0, 1, 0.8, None),
        ];
        let svg = chart(&Report::new("a/<m>.onnx", rows));
        assert!(
            svg.contains("&lt;m&gt;.onnx") && !svg.contains("NaN") && !svg.contains("inf"),
            "{svg}"
        );
    }
}
