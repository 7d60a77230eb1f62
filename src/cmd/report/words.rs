//! Figures in words, and tables of them.

use super::super::chart::escaped;
use super::super::table::thousands;

/// What stands where there is no figure.
pub(super) const NONE: &str = "–";

/// `x` by three or four figures.
pub(super) fn figure(x: f64) -> String {
    let size = x.abs();
    let whole = || {
        let sign = if x < 0.0 { "−" } else { "" };
        sign.to_owned() + &thousands(size.round() as u64)
    };
    match size {
        _ if !x.is_finite() => NONE.into(),
        0.0 => "0".into(),
        1e15.. => format!("{x:.2e}"),
        999.5.. => whole(),
        ..1e-6 => format!("{x:.1e}"),
        _ => {
            let digits = (2.0 - size.log10().floor()).clamp(0.0, 8.0) as usize;
            format!("{x:.digits$}").replace('-', "−")
        }
    }
}

/// `x` with its unit: percent by two digits, others by three figures.
pub(super) fn amount(x: f64, unit: &str) -> String {
    match unit {
        _ if !x.is_finite() => NONE.into(),
        "%" => format!("{x:.2} %"),
        "" => figure(x),
        unit => format!("{} {unit}", figure(x)),
    }
}

/// [`amount`] where there is one.
pub(super) fn maybe(x: Option<f64>, unit: &str) -> String {
    x.map_or(NONE.into(), |x| amount(x, unit))
}

/// The share `part` is of `whole`, in percent; of nothing it is 0.
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

/// How many times `before` is as much as `after`, if both can be compared.
pub(super) fn times(before: f64, after: f64) -> Option<f64> {
    let ratio = before / after;
    (before > 0.0 && after > 0.0 && ratio.is_finite()).then_some(ratio)
}

/// The sizes of a tensor.
pub(super) fn shape(dims: &[usize]) -> String {
    let all: Vec<String> = dims.iter().map(usize::to_string).collect();
    all.join("×")
}

/// `word` with a capital.
pub(super) fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

/// A table for people; columns in which there are words are set flush left, the first heads its row.
pub(super) struct Columns<'a> {
    pub(super) caption: &'a str,
    pub(super) heads: &'a [&'a str],
    /// Which of them hold words.
    pub(super) words: &'a [usize],
}

impl Columns<'_> {
    /// The table with these rows.
    pub(super) fn table(&self, rows: &[Vec<String>]) -> String {
        let heads: String = self
            .heads
            .iter()
            .enumerate()
            .map(|(i, head)| format!("<th scope=\"col\"{}>{}</th>", self.class(i), escaped(head)))
            .collect();
        let rows: String = rows.iter().map(|r| self.row(r)).collect();
        format!(
            "<div class=\"scroll\"><table><caption>{}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n",
            escaped(self.caption)
        )
    }

    fn class(&self, column: usize) -> &str {
        if self.words.contains(&column) {
            " class=\"word\""
        } else {
            ""
        }
    }

    fn row(&self, cells: &[String]) -> String {
        let cell = |(i, words): (usize, &String)| {
            let (class, words) = (self.class(i), escaped(words));
            match i {
                0 => format!("<th scope=\"row\"{class}>{words}</th>"),
                _ if class.is_empty() => format!("<td>{words}</td>"),
                _ => format!("<td{class}><bdi>{words}</bdi></td>"),
            }
        };
        let cells: String = cells.iter().enumerate().map(cell).collect();
        format!("<tr>{cells}</tr>\n")
    }
}

/// A table behind a chart: folded where it is long.
pub(super) fn folded(table: String, rows: usize, what: &str) -> String {
    match rows > 12 {
        true => format!("<details><summary>{what}</summary>\n{table}</details>\n"),
        false => table,
    }
}

/// A chart in the page, with what stands under it; `label` is read to those who do not see it. `caption` is HTML.
pub(super) fn chart([width, height]: [f64; 2], label: &str, drawn: &str, caption: &str) -> String {
    let label = escaped(label);
    format!(
        "<figure><div class=\"scroll\"><svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\"><title>{label}</title>\n\
         {drawn}\n</svg></div>\n<figcaption>{caption}</figcaption></figure>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_as_exact_as_they_are_read() {
        let said = [0.0, 0.012345, 1.2345, 98.6111, 999.9, 123_456.7, -0.5].map(figure);
        assert_eq!(
            said,
            ["0", "0.0123", "1.23", "98.6", "1,000", "123,457", "−0.500"]
        );
        assert_eq!([f64::NAN, f64::INFINITY].map(figure), [NONE, NONE]);
        assert_eq!(amount(98.6111, "%"), "98.61 %");
        assert_eq!(amount(0.5, "ms"), "0.500 ms");
        assert_eq!([1e300, 1e-9].map(figure), ["1.00e300", "1.0e-9"]);
    }

    #[test]
    fn only_amounts_are_compared() {
        assert_eq!(times(10.0, 5.0), Some(2.0));
        let none = [(0.0, 1.0), (1.0, 0.0), (f64::NAN, 1.0), (f64::INFINITY, 1.0)];
        assert!(none.iter().all(|(a, b)| times(*a, *b).is_none()));
    }

    #[test]
    fn tables_say_what_heads_what() {
        let columns = Columns {
            caption: "c",
            heads: &["n", "w"],
            words: &[1],
        };
        let html = columns.table(&[vec!["1".into(), "<x>".into()]]);
        assert!(html.contains("<th scope=\"row\">1</th><td class=\"word\"><bdi>&lt;x&gt;</bdi></td>"));
        assert!(html.contains("<th scope=\"col\" class=\"word\">w</th>"));
    }
}
