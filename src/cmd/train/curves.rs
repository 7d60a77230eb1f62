//! Losses and accuracies over epochs, as a chart or a table.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use secateur::train::Scores;

use super::super::chart::{COLOURS, STYLE, Scale, line, rule, sheet, text};
use super::super::written;
use super::report::Shown;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 360.0;
/// A panel is so wide; between two is room for figures.
const PANEL: f64 = 350.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 48.0;

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
    left: f64,
    lines: [Vec<(f64, f64)>; 2],
    y: Scale,
    epochs: f64,
}

impl Panel<'_> {
    fn x(&self, epoch: f64) -> f64 {
        let share = match self.epochs > 1.0 {
            true => (epoch - 1.0) / (self.epochs - 1.0),
            false => 0.5,
        };
        self.left + PANEL * share
    }

    fn draw(&self) -> String {
        let (left, right) = (self.left, self.left + PANEL);
        let grid = self.y.ticks().into_iter().map(|(y, label)| {
            rule([left, y, right, y], "grid") + &text([left - 6.0, y + 4.0], "soft", "end", &label)
        });
        let curve = |(points, colour): (&Vec<(f64, f64)>, &str)| {
            let place = |(epoch, value): &(f64, f64)| [self.x(*epoch), self.y.at(*value)];
            let points: Vec<[f64; 2]> = points.iter().map(place).collect();
            line(&points, &format!(r#"class="line" stroke="{colour}""#))
        };
        let curves = self.lines.iter().zip(COLOURS).map(curve);
        let ends = [(1.0, "start"), (self.epochs, "end")].map(|(epoch, anchor)| {
            let at = [self.x(epoch), HEIGHT - BOTTOM + 20.0];
            text(at, "soft", anchor, &format!("epoch {epoch}"))
        });
        let title = text([left, 26.0], "title", "start", self.title);
        [title]
            .into_iter()
            .chain(grid)
            .chain(curves)
            .chain(ends)
            .collect()
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
    let panel = |title, left: f64, of: &dyn Fn(&Scores) -> Option<f64>| {
        let lines = [line(of, false), line(of, true)];
        let all = lines.iter().flatten().map(|(_, v)| *v);
        Panel {
            title,
            left,
            y: Scale::new(all, [HEIGHT - BOTTOM, TOP], 4),
            lines,
            epochs: shown.rows.last().map_or(1.0, |r| r.epoch as f64),
        }
        .draw()
    };
    let loss = panel("Loss", LEFT, &|s| Some(s.loss));
    let accuracy = match shown.rows.first().and_then(|r| shown.accuracy(&r.train)) {
        Some(_) => panel("Accuracy", LEFT + PANEL + 80.0, &|s| shown.accuracy(s)),
        None => String::new(),
    };
    let key = |x: f64, name: &str, colour: &str| {
        format!(r#"<text x="{x}" y="46" style="fill:{colour}">{name}</text>"#)
    };
    let keys = key(LEFT, "training", COLOURS[0]) + &key(LEFT + 70.0, "validation", COLOURS[1]);
    sheet(
        [WIDTH, HEIGHT],
        STYLE,
        "Losses and accuracies over epochs",
        &(keys + &loss + &accuracy),
    )
}
