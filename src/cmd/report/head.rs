//! What it is about and what came of it, in figures.

use super::super::chart::escaped;
use super::super::table::thousands;
use super::words::{Columns, NONE, amount, capital, figure, maybe, percent, times};
use super::{Aim, Story, Worth};

/// One figure in large type.
struct Figure {
    name: String,
    big: String,
    from: String,
}

impl Figure {
    fn draw(&self) -> String {
        let [name, big, from] = [&self.name, &self.big, &self.from].map(|s| escaped(s));
        format!("<div><dt>{name}</dt><dd class=\"big\">{big}</dd><dd class=\"from\">{from}</dd></div>\n")
    }

    /// By how many times `after` is less, or more; `None` where that cannot be said.
    fn of(name: &str, words: [&str; 2], before: f64, after: f64, unit: &str) -> Option<Figure> {
        let ratio = times(before, after)?;
        let (word, by) = if ratio >= 0.995 {
            (words[0], ratio)
        } else {
            (words[1], 1.0 / ratio)
        };
        Some(Figure {
            name: format!("{name}, {word} by"),
            big: format!("{by:.2}×"),
            from: format!("{} → {}", amount(before, unit), amount(after, unit)),
        })
    }
}

/// Time, size, multiplications, weights, and what it is worth, as far as they changed or are known.
fn figures(story: &Story) -> Vec<Figure> {
    let (a, b) = (story.before, story.after);
    let both = |x: Option<u64>, y: Option<u64>| Some((x? as f64, y? as f64));
    let changed = |(x, y): &(f64, f64)| (x / y - 1.0).abs() > 0.005;
    let aim = story.aim.as_ref();
    let timed = a.ms.zip(b.ms);
    let time = timed.and_then(|(x, y)| Figure::of("Time", ["faster", "slower"], x, y, "ms"));
    let aimed = aim
        .filter(|aim| aim.unit != "ms" || time.is_none())
        .and_then(|aim| Figure::of(aimed_at(aim), ["less", "more"], aim.before, aim.after, aim.unit));
    let file = both(a.file_bytes, b.file_bytes).filter(changed);
    let file = file.and_then(|(x, y)| Figure::of("File", ["smaller", "larger"], x / 1e6, y / 1e6, "MB"));
    let macs = both(a.macs, b.macs).filter(changed);
    let macs = macs.and_then(|(x, y)| Figure::of("MACs", ["fewer", "more"], x / 1e6, y / 1e6, "M"));
    [
        time,
        aimed,
        file,
        macs,
        left(story),
        story.worth.as_ref().map(worth),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn aimed_at(aim: &Aim) -> &'static str {
    match aim.unit {
        "ms" => "Time",
        "MB" => "Weights",
        _ => "Multiplications",
    }
}

/// The weights that are left and not zero.
fn left(story: &Story) -> Option<Figure> {
    let live = |card: &super::Card| card.parameters.saturating_sub(card.zeros) as u64;
    let (before, after) = (live(story.before), live(story.after));
    (before > 0 && before != after).then(|| Figure {
        name: "Weights left, not zero".into(),
        big: format!("{:.1} %", percent(after, before)),
        from: format!("{} → {}", thousands(before), thousands(after)),
    })
}

fn worth(worth: &Worth) -> Figure {
    let (name, unit) = (capital(worth.name), worth.unit);
    Figure {
        name,
        big: amount(worth.after, unit),
        from: format!(
            "was {}, on {} examples",
            amount(worth.before, unit),
            thousands(worth.examples as u64)
        ),
    }
}

/// A gate and whether it was passed.
fn gate(pass: bool, [yes, no]: [&str; 2], words: &str) -> String {
    let (class, mark, said) = if pass {
        ("yes", "✓", yes)
    } else {
        ("no", "✗", no)
    };
    format!(
        "<li class=\"{class}\"><b aria-hidden=\"true\">{mark}</b>{said}: {}</li>\n",
        escaped(words)
    )
}

/// Whether the budget holds.
fn budget(worth: &Worth) -> Option<String> {
    let most = worth.max_drop?;
    let (drop, unit) = (
        worth.drop(),
        if worth.unit == "%" { "points" } else { worth.unit },
    );
    let by = match unit {
        "points" => format!("{:.2} points", drop.abs()),
        unit => amount(drop.abs(), unit),
    };
    let way = match (drop > 0.0) == worth.less_is_better() {
        _ if !drop.is_finite() => "cannot be told".into(),
        _ if drop == 0.0 => "stayed as it was".into(),
        true => format!("rose by {by}"),
        false => format!("fell by {by}"),
    };
    let kind = if worth.less_is_better() { "rise" } else { "fall" };
    let words = format!("{} {way}; it may {kind} by {}", capital(worth.name), figure(most));
    Some(gate(drop <= most + 1e-9, ["Held", "Not held"], &words))
}

/// Whether the target is reached.
fn target(aim: &Aim) -> Option<String> {
    let wanted = aim.most()?;
    let words = format!(
        "{}; at most {} wanted",
        amount(aim.after, aim.unit),
        amount(wanted, aim.unit)
    );
    Some(gate(
        aim.after <= wanted * (1.0 + 1e-9),
        ["Reached", "Not reached"],
        &words,
    ))
}

/// The figures of both files.
fn cards(story: &Story) -> String {
    let row = |name: &str, card: &super::Card| {
        vec![
            name.to_owned(),
            thousands(card.nodes as u64),
            thousands(card.parameters as u64),
            format!("{:.2}", card.zeros_percent()),
            card.file_mb().map_or(NONE.into(), |mb| format!("{mb:.3}")),
            card.macs.map_or(NONE.into(), thousands),
            maybe(card.ms, ""),
        ]
    };
    let columns = Columns {
        caption: "Both files",
        heads: &[
            "",
            "nodes",
            "parameters",
            "zeros %",
            "file MB",
            "MACs, zeros too",
            "ms",
        ],
        words: &[0],
    };
    columns.table(&[row("before", story.before), row("after", story.after)])
}

/// The top of the page.
pub(super) fn head(story: &Story) -> String {
    let figures: String = figures(story).iter().map(Figure::draw).collect();
    let budget = story.worth.as_ref().and_then(budget);
    let target = story.aim.as_ref().and_then(target);
    let gates: String = budget.into_iter().chain(target).collect();
    let gates = match gates.is_empty() {
        true => gates,
        false => format!("<ul class=\"gates\">\n{gates}</ul>\n"),
    };
    let [name, asked, command] = [&story.name, &story.asked, &story.command].map(|s| escaped(s));
    format!(
        "<header><p class=\"over\">Compressed with secateur</p>\n<h1><bdi>{name}</bdi></h1>\n<p>{asked}</p>\n<pre><code>{command}</code></pre>\n</header>\n\
         <section aria-label=\"What came of it\">\n<dl class=\"figures\">\n{figures}</dl>\n{gates}{}</section>\n",
        cards(story)
    )
}
