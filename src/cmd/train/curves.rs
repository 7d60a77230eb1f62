//! Losses and accuracies over epochs, as a chart or a table.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use secateur::train::Scores;

use super::super::written;
use super::report::Shown;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 360.0;
/// A panel is so wide; between two is room for figures.
const PANEL: f64 = 350.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 48.0;

const STYLE: &str = "text{font:13px system-ui,'Helvetica Neue',Arial,sans-serif;fill:#1d2b24}\
.title{font-size:16px;font-weight:600}.soft{fill:#5d6b64}.grid{stroke:#e3e7e3}\
.train{fill:none;stroke:#0072b2;stroke-width:2.5}.validation{fill:none;stroke:#d55e00;stroke-width:2.5}\
.t{fill:#0072b2}.v{fill:#d55e00}";

/// Writes the curves: a table if the file's name ends in `.csv`, else a chart.
pub(super) fn write(path: &Path, force: bool, shown: &Shown) -> Result<()> {
    let text = match path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
        true => csv(shown),
        false => svg(shown),
    };
    written::replace(path, force, |out| Ok(out.write_all(text.as_bytes())?))
}

fn csv(shown: &Shown) -> String {
    let cell = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
    let mut text = String::from("epoch,rate,loss,accuracy,val_loss,val_accuracy,seconds,step_ms\n");
    for r in &shown.rows {
        let val = r.validation.as_ref();
        let cells = [
            r.epoch.to_string(),
            r.rate.to_string(),
            r.train.loss.to_string(),
            cell(shown.accuracy(&r.train)),
            cell(val.map(|v| v.loss)),
            cell(val.and_then(|v| shown.accuracy(v))),
            format!("{:.3}", r.seconds),
            format!("{:.4}", r.step_ms),
        ];
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

/// A panel of the chart: a title, and the training and validation curves over epochs.
struct Panel<'a> {
    title: &'a str,
    at: f64,
    lines: [Vec<(f64, f64)>; 2],
    /// The least and greatest value.
    range: (f64, f64),
    epochs: f64,
}

impl Panel<'_> {
    fn x(&self, epoch: f64) -> f64 {
        let share = if self.epochs > 1.0 {
            (epoch - 1.0) / (self.epochs - 1.0)
        } else {
            0.5
        };
        self.at + PANEL * share
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value - low) / (high - low))
    }

    fn draw(&self) -> String {
        let rule = |i: u32| {
            let (low, high) = self.range;
            let value = low + (high - low) * f64::from(i) / 4.0;
            let y = self.y(value);
            let words = if high - low < 0.02 {
                format!("{value:.4}")
            } else {
                format!("{value:.2}")
            };
            format!(
                r#"<line class="grid" x1="{:.1}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/><text class="soft" x="{:.1}" y="{:.1}" text-anchor="end">{words}</text>"#,
                self.at,
                self.at + PANEL,
                self.at - 6.0,
                y + 4.0
            )
        };
        let curve = |(line, class): (&Vec<(f64, f64)>, &str)| {
            let points: Vec<_> = line
                .iter()
                .map(|&(epoch, v)| format!("{:.1},{:.1}", self.x(epoch), self.y(v)))
                .collect();
            format!(r#"<polyline class="{class}" points="{}"/>"#, points.join(" "))
        };
        let rules: String = (0..=4).map(rule).collect();
        let curves: String = self
            .lines
            .iter()
            .zip(["train", "validation"])
            .map(curve)
            .collect();
        let ends = [(1.0, "start"), (self.epochs, "end")];
        let ends = ends.iter().map(|(epoch, anchor)| {
            let (x, y) = (self.x(*epoch), HEIGHT - BOTTOM + 20.0);
            format!(r#"<text class="soft" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">epoch {epoch}</text>"#)
        });
        let title = format!(
            r#"<text class="title" x="{:.1}" y="26">{}</text>"#,
            self.at, self.title
        );
        title + &rules + &curves + &ends.collect::<String>()
    }
}

fn svg(shown: &Shown) -> String {
    let line = |of: &dyn Fn(&Scores) -> Option<f64>, validation: bool| -> Vec<(f64, f64)> {
        let rows = shown.rows.iter().filter_map(|r| {
            let scores = if validation {
                r.validation.as_ref()?
            } else {
                &r.train
            };
            let value = of(scores).filter(|x| x.is_finite())?;
            Some((r.epoch as f64, value))
        });
        rows.collect()
    };
    let panel = |title, at: f64, of: &dyn Fn(&Scores) -> Option<f64>| {
        let lines = [line(of, false), line(of, true)];
        let all = lines.iter().flatten().map(|(_, v)| *v);
        let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
            (a.min(v), b.max(v))
        });
        let range = match high > low {
            true => (low, high),
            false if high.is_finite() => (low - 0.5, high + 0.5),
            false => (0.0, 1.0),
        };
        let epochs = shown.rows.last().map_or(1.0, |r| r.epoch as f64);
        Panel {
            title,
            at,
            lines,
            range,
            epochs,
        }
        .draw()
    };
    let loss = panel("Loss", LEFT, &|s| Some(s.loss));
    let accuracy = match shown.rows.first().and_then(|r| shown.accuracy(&r.train)) {
        Some(_) => panel("Accuracy", LEFT + PANEL + 80.0, &|s| shown.accuracy(s)),
        None => String::new(),
    };
    let key =
        r#"<text class="t" x="60" y="46">training</text><text class="v" x="130" y="46">validation</text>"#;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Losses and accuracies over epochs"><style>{STYLE}</style><rect width="100%" height="100%" fill="white"/>{key}{loss}{accuracy}</svg>"##
    )
}
