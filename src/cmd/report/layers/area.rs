//! The whole model as one area: as wide as layers are large, as high as what is left of them.

use super::super::super::chart::{Scale, bar, rule, text};
use super::super::words::{chart as figure, percent};
use super::Row;

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 44.0;
const TOP: f64 = 8.0;
const FOOT: f64 = 166.0;
/// What is not seen is not believed to be there.
const LEAST: f64 = 0.6;

/// Left and width of each layer.
fn places(rows: &[Row]) -> Vec<(f64, f64)> {
    let size = |r: &Row| r.parts.whole() as f64;
    let all: f64 = rows.iter().map(size).sum::<f64>().max(1.0);
    let room = WIDTH - LEFT;
    let wide = |r: &Row| (room * size(r) / all).max(LEAST);
    // What small ones take, large ones give.
    let too_much: f64 = rows.iter().map(wide).sum::<f64>() / room;
    let mut left = LEFT;
    let place = |r: &Row| {
        let (from, width) = (left, wide(r) / too_much);
        left += width;
        (from, width)
    };
    rows.iter().map(place).collect()
}

fn column(row: &Row, (left, width): (f64, f64)) -> String {
    let (p, y) = (row.parts, Scale::new([0.0, 100.0], [FOOT, TOP], 4));
    let share = |n: u64| percent(n, p.whole());
    let gap = if width > 6.0 { 1.5 } else { 0.0 };
    let part = |from: u64, to: u64, class: &str| {
        let (low, high) = (y.at(share(from)), y.at(share(to)));
        match to > from {
            true => bar(
                [left, high, width - gap, low - high],
                &format!(r#"class="{class}""#),
            ),
            false => String::new(),
        }
    };
    let before = y.at(share(p.before - p.zeros_before));
    let mark = match p.zeros_before > 0 {
        true => rule([left, before, left + width - gap, before], "axis"),
        false => String::new(),
    };
    let number = match width > 18.0 {
        true => text(
            [left + (width - gap) / 2.0, FOOT + 16.0],
            "soft small",
            "middle",
            &row.number.to_string(),
        ),
        false => String::new(),
    };
    format!(
        "<g>{}{}{}{}{mark}{number}</g>",
        row.title(),
        part(p.after, p.whole(), "gone"),
        part(p.live(), p.after, "pale"),
        part(0, p.live(), "live"),
    )
}

/// The chart.
pub(super) fn chart(rows: &[Row]) -> String {
    let y = Scale::new([0.0, 100.0], [FOOT, TOP], 2);
    let grid = y.ticks().into_iter().map(|(at, label)| {
        rule([LEFT - 4.0, at, WIDTH, at], "grid")
            + &text([LEFT - 8.0, at + 4.0], "soft small", "end", &format!("{label} %"))
    });
    let columns = rows.iter().zip(places(rows)).map(|(r, at)| column(r, at));
    let drawn: String = grid.chain(columns).collect();
    let key = "<span class=\"key live\"></span>left&emsp;<span class=\"key pale\"></span>zero&emsp;\
        <span class=\"key gone\"></span>cut away. Each column is a weight, in the order of the file and as wide as it had parameters, \
        so areas are parameters; a line across it marks where its zeros began before.";
    figure(
        [WIDTH, HEIGHT],
        "Share of the parameters of each weight that is left, zero, or cut away",
        &drawn,
        key,
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::Layer;
    use super::super::Parts;
    use super::*;

    #[test]
    fn small_layers_are_seen_and_all_fit() {
        let layer = |n: usize| Layer {
            name: "w".into(),
            op: "Gemm".into(),
            shape_before: vec![n],
            shape_after: vec![n],
            zeros_before: 0,
            zeros_after: 0,
            ms: None,
        };
        for sizes in [vec![1, 1_000_000], vec![0], vec![7; 400]] {
            let layers: Vec<Layer> = sizes.iter().map(|n| layer(*n)).collect();
            let row = |l| Row {
                number: 1,
                layer: l,
                parts: Parts::of(l),
            };
            let rows: Vec<Row> = layers.iter().map(row).collect();
            let all = places(&rows);
            assert!(all.iter().all(|p| p.1 > 0.5), "{all:?}");
            let (left, width) = all[all.len() - 1];
            assert!((left + width - WIDTH).abs() < 1e-6, "{all:?}");
        }
    }
}
