//! What charts are drawn of: elements of SVG as text, scales, colours.

mod scale;

pub(in crate::cmd) use scale::Scale;

/// Colours that people who see few colours tell apart (Okabe and Ito 2008).
pub(in crate::cmd) const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#444444",
];

/// What all charts on white paper look like.
pub(in crate::cmd) const STYLE: &str = "text{font:13px system-ui,'Helvetica Neue',Arial,sans-serif;fill:#1d2b24}\
.title{font-size:16px;font-weight:600}.soft{fill:#5d6b64}.grid{stroke:#e3e7e3}\
.line{fill:none;stroke-width:2.5;stroke-linejoin:round;stroke-linecap:round}";

/// `words` as text or attribute of XML or HTML; characters that XML has not are shown as missing.
pub(in crate::cmd) fn escaped(words: &str) -> String {
    let mut text = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\t' | '\n' | '\r' => text.push(' '),
            '\u{fffe}' | '\u{ffff}' => text.push('\u{fffd}'),
            c if c.is_control() => text.push('\u{fffd}'),
            c => text.push(c),
        }
    }
    text
}

/// A straight line.
pub(in crate::cmd) fn rule([x1, y1, x2, y2]: [f64; 4], class: &str) -> String {
    format!(r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#)
}

/// `words`, whose `anchor` (`start`, `middle` or `end`) stands there.
pub(in crate::cmd) fn text([x, y]: [f64; 2], class: &str, anchor: &str, words: &str) -> String {
    let words = escaped(words);
    format!(r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{words}</text>"#)
}

/// A rectangle: left, top, width, height.
pub(in crate::cmd) fn bar([x, y, w, h]: [f64; 4], look: &str) -> String {
    let (w, h) = (w.max(0.0), h.max(0.0));
    format!(r#"<rect x="{x:.2}" y="{y:.2}" width="{w:.2}" height="{h:.2}" {look}/>"#)
}

/// A circle.
pub(in crate::cmd) fn dot([x, y]: [f64; 2], radius: f64, look: &str) -> String {
    format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" {look}/>"#)
}

/// A line through all points.
pub(in crate::cmd) fn line(points: &[[f64; 2]], look: &str) -> String {
    format!(r#"<polyline points="{}" {look}/>"#, places(points))
}

/// Places as SVG writes them.
pub(in crate::cmd) fn places(points: &[[f64; 2]]) -> String {
    let all: Vec<String> = points.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
    all.join(" ")
}

/// A chart of that size by itself, as a file on white paper; `label` is read to those who do not see it.
pub(in crate::cmd) fn sheet([width, height]: [f64; 2], style: &str, label: &str, drawn: &str) -> String {
    let label = escaped(label);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"{label}\">\n<style>{style}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{drawn}\n</svg>\n"
    )
}

/// `name` in at most so many columns, its middle left out; letters of East Asia take two.
pub(in crate::cmd) fn shortened(name: &str, columns: usize) -> String {
    let wide = |c: &char| if *c >= '\u{1100}' { 2 } else { 1 };
    if name.chars().map(|c| wide(&c)).sum::<usize>() <= columns {
        return name.to_owned();
    }
    let taken = |letters: &mut dyn Iterator<Item = char>, mut room: usize| -> Vec<char> {
        let fits = |c: &char| room.checked_sub(wide(c)).inspect(|left| room = *left).is_some();
        letters.take_while(fits).collect()
    };
    let room = columns.saturating_sub(1);
    let end = taken(&mut name.chars().rev(), room.div_ceil(2));
    let start = taken(&mut name.chars(), room / 2);
    start
        .into_iter()
        .chain(['…'])
        .chain(end.into_iter().rev())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_xml_is_escaped() {
        let bad = "a<b>&\"c\"]]>\u{0}\u{7}\u{ffff}\n";
        assert_eq!(
            escaped(bad),
            "a&lt;b&gt;&amp;&quot;c&quot;]]&gt;\u{fffd}\u{fffd}\u{fffd} "
        );
        assert_eq!(escaped("/层/conv²"), "/层/conv²");
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shortened("encoder.layer.0.weight", 22), "encoder.layer.0.weight");
        assert_eq!(shortened("encoder.layer.0.weight", 11), "encod…eight");
        assert_eq!(shortened("卷积层的权重", 7), "卷…重");
        assert_eq!(shortened("ab", 1), "…");
    }
}
