//! Worth over cost: what was given for what.

use super::super::super::chart::{Scale, bar, dot, escaped, line, rule, text};
use super::super::words::{amount, capital, chart as figure};
use super::Way;
use super::history::cross;

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 892.0;
const TOP: f64 = 36.0;
const FOOT: f64 = 306.0;

/// A model in the chart.
#[derive(Clone)]
struct Spot {
    name: String,
    title: String,
    cost: f64,
    worth: f64,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Start,
    Kept,
    Back,
}

fn spots(way: &Way) -> Vec<Spot> {
    let units = (way.unit(), way.story.aim.as_ref().map_or("", |a| a.unit));
    let start = way.start.0.zip(way.start.1).map(|(worth, cost)| Spot {
        name: "before".into(),
        title: format!("before, {}, {}", amount(worth, units.0), amount(cost, units.1)),
        cost,
        worth,
        kind: Kind::Start,
    });
    let steps = way.story.steps.iter().zip(1..).filter_map(|(step, i)| {
        Some(Spot {
            name: i.to_string(),
            title: step.title(units.0, units.1),
            cost: step.cost?,
            worth: step.after?,
            kind: if step.kept { Kind::Kept } else { Kind::Back },
        })
    });
    let all = start.into_iter().chain(steps);
    all.filter(|s| s.cost.is_finite() && s.worth.is_finite())
        .collect()
}

/// Where names were written.
struct Labels(Vec<[f64; 4]>);

impl Labels {
    /// `name` beside a mark, where there is room.
    fn put(&mut self, spot: &Spot, [x, y]: [f64; 2]) -> String {
        let name = &spot.name;
        let wide = 6.4 * name.chars().count() as f64;
        let tries = [
            ([x, y - 10.0], "middle", x - wide / 2.0),
            ([x, y + 18.0], "middle", x - wide / 2.0),
            ([x + 9.0, y + 4.0], "start", x + 9.0),
            ([x - 9.0, y + 4.0], "end", x - 9.0 - wide),
        ];
        let free = tries.into_iter().find(|(at, _, left)| {
            let own = [*left, at[1] - 11.0, left + wide, at[1] + 2.0];
            own[0] >= LEFT && own[2] <= WIDTH && self.0.iter().all(|b| apart(b, &own))
        });
        let Some((at, anchor, left)) = free else {
            return String::new();
        };
        self.0.push([left, at[1] - 11.0, left + wide, at[1] + 2.0]);
        text(at, "small halo", anchor, name)
    }
}

fn apart(a: &[f64; 4], b: &[f64; 4]) -> bool {
    a[2] < b[0] || b[2] < a[0] || a[3] < b[1] || b[3] < a[1]
}

fn grid(x: &Scale, y: &Scale, way: &Way) -> String {
    let across = y.ticks().into_iter().map(|(at, label)| {
        rule([LEFT, at, RIGHT, at], "grid") + &text([LEFT - 8.0, at + 4.0], "soft small", "end", &label)
    });
    let up = x.ticks().into_iter().map(|(at, label)| {
        rule([at, TOP, at, FOOT], "grid") + &text([at, FOOT + 18.0], "soft small", "middle", &label)
    });
    let names = text([LEFT, TOP - 16.0], "title", "start", &way.measure())
        + &text([RIGHT, FOOT + 40.0], "title", "end", &way.cost());
    across.chain(up).chain([names]).collect()
}

/// What was asked: at least this worth at most that cost.
fn asked(x: &Scale, y: &Scale, way: &Way) -> String {
    let at = way.floor().map(|v| y.at(v));
    let side = way.wanted().map(|v| x.at(v));
    let left = x.at(f64::NEG_INFINITY);
    let field = at.zip(side).map(|(at, side)| {
        let name = text([left + 6.0, TOP + 15.0], "soft small", "start", "asked for");
        let named = at - TOP > 22.0 && side - left > 60.0;
        bar([left, TOP, side - left, at - TOP], r#"class="asked""#) + if named { &name } else { "" }
    });
    let floor = at.map(|at| rule([LEFT, at, RIGHT, at], "bound"));
    let wall = side.map(|side| rule([side, TOP, side, FOOT], "bound"));
    [field, floor, wall].into_iter().flatten().collect()
}

fn mark(spot: &Spot, at: [f64; 2]) -> String {
    let drawn = match spot.kind {
        Kind::Start => dot(at, 5.0, r#"class="hollow""#),
        Kind::Kept => dot(at, 5.0, r#"class="live""#),
        Kind::Back => cross(at, 4.0),
    };
    format!("<g><title>{}</title>{drawn}</g>", escaped(&spot.title))
}

/// The section; nothing where fewer than two models can be compared.
pub(super) fn section(way: &Way) -> String {
    let spots = spots(way);
    if spots.len() < 2 {
        return String::new();
    }
    let less = way.worth.is_some_and(super::Worth::less_is_better);
    // The better is above.
    let ends = if less { [TOP, FOOT] } else { [FOOT, TOP] };
    let y = Scale::new(way.range(), ends, 5);
    let costs = spots.iter().map(|s| s.cost).chain(way.wanted());
    let x = Scale::new(costs.chain([0.0]), [LEFT, RIGHT], 8);
    let place = |s: &Spot| [x.at(s.cost), y.at(s.worth)];
    let path: Vec<[f64; 2]> = spots
        .iter()
        .filter(|s| matches!(s.kind, Kind::Start | Kind::Kept))
        .map(place)
        .collect();
    let marks: String = spots.iter().map(|s| mark(s, place(s))).collect();
    let mut labels = Labels(
        spots
            .iter()
            .map(place)
            .map(|[x, y]| [x - 5.0, y - 5.0, x + 5.0, y + 5.0])
            .collect(),
    );
    let names: String = spots.iter().rev().map(|s| labels.put(s, place(s))).collect();
    let drawn = grid(&x, &y, way) + &asked(&x, &y, way) + &line(&path, r#"class="path""#) + &marks + &names;
    let name = way.worth.map_or("Worth", |w| w.name);
    let title = format!(
        "{} against {}",
        capital(name),
        way.cost().split(',').next().unwrap_or("cost")
    );
    let caption =
        "Better is up and to the left. Numbers are those of the steps: dots were kept, crosses taken back.";
    format!(
        "<section>\n<h2>{}</h2>\n{}</section>\n",
        escaped(&title),
        figure([WIDTH, HEIGHT], &title, &drawn, caption),
    )
}
