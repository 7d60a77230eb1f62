//! A chart as SVG: accuracy as a line over bars of zeros.

use super::Step;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 56.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 48.0;

/// The vertical place of `percent`.
fn y(percent: f64) -> f64 {
    TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - percent / 100.0)
}

/// The horizontal place of step `i` of `n`.
fn x(i: usize, n: usize) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * (i as f64 + 0.5) / n as f64
}

fn text(x: f64, y: f64, class: &str, anchor: &str, words: &str) -> String {
    format!(r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{words}</text>"#)
}

fn grid() -> String {
    let line = |percent: i32| {
        let at = y(f64::from(percent));
        let rule = format!(
            r#"<line x1="{LEFT}" x2="{}" y1="{at:.1}" y2="{at:.1}" class="grid"/>"#,
            WIDTH - RIGHT
        );
        rule + &text(LEFT - 8.0, at + 4.0, "axis", "end", &format!("{percent} %"))
    };
    (0..=5).map(|i| line(20 * i)).collect()
}

fn bar(step: &Step, at: f64, width: f64) -> String {
    let (top, foot) = (y(100.0 * step.trial.zeros.share()), y(0.0));
    let zeros = format!("{:.1} % zeros", 100.0 * step.trial.zeros.share());
    format!(
        r#"<rect x="{:.1}" y="{top:.1}" width="{width:.1}" height="{:.1}" rx="3" class="bar"><title>{zeros}</title></rect>"#,
        at - width / 2.0,
        foot - top
    )
}

fn dot(step: &Step, at: f64) -> String {
    let percent = 100.0 * step.trial.accuracy();
    let mark = format!(
        r#"<circle cx="{at:.1}" cy="{:.1}" r="4.5" class="dot"/>"#,
        y(percent)
    );
    mark + &text(
        at,
        y(percent) + 22.0,
        "figure",
        "middle",
        &format!("{percent:.1} %"),
    )
}

/// The chart of `steps`.
pub(super) fn chart(steps: &[Step]) -> String {
    let n = steps.len();
    let width = 0.56 * (WIDTH - LEFT - RIGHT) / n as f64;
    let places: Vec<(&Step, f64)> = steps.iter().enumerate().map(|(i, s)| (s, x(i, n))).collect();
    let bars: String = places.iter().map(|(s, at)| bar(s, *at, width)).collect();
    let point = |(s, at): &(&Step, f64)| format!("{at:.1},{:.1}", y(100.0 * s.trial.accuracy()));
    let points: Vec<String> = places.iter().map(point).collect();
    let dots: String = places.iter().map(|(s, at)| dot(s, *at)).collect();
    let names: String = places
        .iter()
        .map(|(s, at)| text(*at, HEIGHT - BOTTOM + 22.0, "axis", "middle", &s.cells()[0]))
        .collect();
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Accuracy and zeros of each model">{}{bars}<polyline points="{}" class="line"/>{dots}{names}</svg>"#,
        grid(),
        points.join(" ")
    )
}
