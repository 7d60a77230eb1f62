//! A line of a heat map for each weight, in the order of the file.

use secateur::compress::budget::Curve;

use super::super::super::chart::{bar, escaped, shortened, text};
use super::super::words::amount;
use super::{Measure, WIDTH, at, percents};

const TOP: f64 = 52.0;
const GAP: f64 = 22.0;
/// Up to so many weights stand in one column, and in two; how high their lines are; what letters they have.
const BLOCKS: [(usize, usize, f64, &str); 3] = [
    (40, 1, 17.0, "small"),
    (110, 2, 14.0, "small"),
    (usize::MAX, 3, 11.0, "tiny"),
];

/// How the lines are laid out.
struct Layout {
    blocks: usize,
    leading: f64,
    letters: &'static str,
    levels: Vec<f64>,
    /// The harm that is drawn darkest.
    most: f64,
}

impl Layout {
    fn new(measure: &Measure) -> Layout {
        let count = measure.curves.len();
        let fits = |b: &(usize, usize, f64, &str)| count <= b.0;
        let (_, blocks, leading, letters) = BLOCKS.into_iter().find(fits).unwrap_or(BLOCKS[2]);
        let points = measure
            .curves
            .iter()
            .flat_map(|c| c.points.iter().map(|p| measure.harm(c, p)));
        Layout {
            blocks,
            leading,
            letters,
            levels: measure.levels(),
            most: points.filter(|h| h.is_finite()).fold(0.0, f64::max),
        }
    }

    fn rows(&self, count: usize) -> usize {
        count.div_ceil(self.blocks)
    }

    fn wide(&self) -> f64 {
        (WIDTH - GAP * (self.blocks - 1) as f64) / self.blocks as f64
    }

    fn names(&self) -> f64 {
        0.5 * self.wide()
    }

    /// Left of cell `level` in a block.
    fn cell(&self, block: usize, level: usize) -> f64 {
        let cells = self.wide() - self.names();
        let each = cells / self.levels.len().max(1) as f64;
        (self.wide() + GAP) * block as f64 + self.names() + each * level as f64
    }

    /// The darkness of a harm: small ones are told apart better than great ones, and where there is none a cell is seen too.
    fn shade(&self, harm: f64) -> f64 {
        let share = if self.most > 0.0 { harm / self.most } else { 0.0 };
        0.05 + 0.95 * share.clamp(0.0, 1.0).sqrt()
    }

    fn heads(&self, top: f64) -> String {
        let head = |block: usize| {
            let one = move |(i, level): (usize, &f64)| {
                let x = (self.cell(block, i) + self.cell(block, i + 1)) / 2.0;
                // In narrow blocks there is no room for the sign.
                let words = percents(*level);
                let words = if self.blocks < 3 {
                    &words
                } else {
                    words.trim_end_matches(" %")
                };
                text([x, top - 6.0], "soft small", "middle", words)
            };
            self.levels.iter().enumerate().map(one).collect::<String>()
        };
        (0..self.blocks).map(head).collect()
    }

    fn row(&self, measure: &Measure, (i, curve): (usize, &Curve), top: f64) -> String {
        let rows = self.rows(measure.curves.len());
        let (block, y) = (i / rows, top + self.leading * (i % rows) as f64);
        let cell = |(l, level): (usize, &f64)| {
            let point = at(curve, *level)?;
            let harm = measure.harm(curve, point);
            let words = format!(
                "{}, {} zeros: {}",
                curve.weight,
                percents(*level),
                amount(measure.worth(point), measure.unit)
            );
            let (left, right) = (self.cell(block, l), self.cell(block, l + 1));
            let place = [left, y, right - left - 1.0, self.leading - 1.0];
            let drawn = match harm.is_finite() {
                true => bar(
                    place,
                    &format!(r#"class="harm" fill-opacity="{:.2}""#, self.shade(harm)),
                ),
                false => bar(place, r#"class="gone""#),
            };
            Some(format!("<g><title>{}</title>{drawn}</g>", escaped(&words)))
        };
        let cells: String = self.levels.iter().enumerate().filter_map(cell).collect();
        let letter = if self.letters == "tiny" { 5.0 } else { 6.0 };
        let name = shortened(&curve.weight, ((self.names() - 8.0) / letter) as usize);
        let end = self.cell(block, 0) - 7.0;
        let base = y + 0.5 * self.leading + 3.5;
        format!("{}{cells}", text([end, base], self.letters, "end", &name))
    }

    /// What the shades mean.
    fn key(&self, measure: &Measure, y: f64) -> String {
        let (count, wide) = (6, 44.0);
        let left = WIDTH - wide * count as f64;
        let unit = if measure.unit == "%" {
            " points of "
        } else {
            " of "
        };
        let one = |i: usize| {
            let share = (i as f64 / (count - 1) as f64).powi(2);
            let (x, harm) = (left + wide * i as f64, self.most * share);
            let look = format!(r#"class="harm" fill-opacity="{:.2}""#, self.shade(harm));
            let words = match harm {
                0.0 => "0".into(),
                ..1.0 => format!("{harm:.2}"),
                _ => format!("{harm:.1}"),
            };
            bar([x, y - 10.0, wide - 1.0, 8.0], &look)
                + &text([x + wide / 2.0, y + 9.0], "soft small", "middle", &words)
        };
        let name = format!("lost,{unit}{}", measure.name);
        (0..count).map(one).collect::<String>() + &text([left - 8.0, y - 2.0], "soft small", "end", &name)
    }
}

/// The chart's size and what is drawn.
pub(super) fn draw(measure: &Measure, top: f64) -> ([f64; 2], String) {
    let layout = Layout::new(measure);
    let (start, count) = (top + TOP, measure.curves.len());
    let rows = measure
        .curves
        .iter()
        .enumerate()
        .map(|row| layout.row(measure, row, start));
    let rows: String = rows.collect();
    let title = text([8.0, top + 12.0], "soft", "start", "Zeros of that weight");
    let height = start + layout.leading * layout.rows(count) as f64 + 8.0;
    (
        [WIDTH, height],
        title + &layout.key(measure, top + 14.0) + &layout.heads(start) + &rows,
    )
}
