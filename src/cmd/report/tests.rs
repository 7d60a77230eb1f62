use secateur::compress::budget::Point;
use secateur::compress::rounds::Score;

use super::*;

/// Figures of a model that was cut to a half.
fn cards() -> [Card; 2] {
    let before = Card {
        nodes: 12,
        parameters: 266_610,
        zeros: 0,
        file_bytes: Some(1_068_000),
        macs: Some(266_200),
        ms: Some(0.0421),
    };
    let after = Card {
        zeros: 239_000,
        ms: Some(0.0187),
        ..before.clone()
    };
    [before, after]
}

fn layer(i: usize, name: &str) -> Layer {
    let wide = 8 << (i % 7);
    let kept = [wide, wide - wide / 4, wide, 0][i % 4];
    let shape_after = if kept == 0 { vec![] } else { vec![kept, wide, 3, 3] };
    let zeros_after = (shape_after.iter().product::<usize>() as f64 * 0.9 * (i % 5) as f64 / 4.0) as u64;
    let ms = 0.01 * (1 + i % 9) as f64;
    Layer {
        name: name.into(),
        op: "Conv".into(),
        shape_before: vec![wide, wide, 3, 3],
        shape_after,
        zeros_before: (i % 3) as u64 * 7,
        zeros_after,
        ms: Some((ms, ms * 0.4)),
    }
}

fn curve(i: usize, name: &str) -> Curve {
    let point = |share: f64| Point {
        sparsity: share,
        score: Score {
            loss: 0.1 + share.powi(4) * (i % 5) as f64,
            accuracy: Some(0.986 - 0.2 * share.powi(4) * (i % 5) as f64),
        },
        cost: 1.0 - share,
    };
    Curve {
        weight: name.into(),
        cut: false,
        elements: 1000,
        points: [0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95].map(point).into(),
    }
}

fn tried(i: usize, kept: bool) -> Tried {
    let x = i as f64;
    Tried {
        label: format!("step {i}"),
        sparsity: 1.0 - 0.5 / x,
        cost: Some(0.0421 / (1.0 + 0.5 * x)),
        before: Some(98.6 - 9.0 * x),
        after: Some(if kept { 98.6 - 0.1 * x } else { 97.0 }),
        kept,
        seconds: Some(3.25),
    }
}

/// A story with everything in it, about so many layers.
fn story<'a>(cards: &'a [Card; 2], curves: &'a [Curve], count: usize) -> Story<'a> {
    Story {
        name: "lenet-300-100.onnx".into(),
        command: "secateur compress a.onnx b.onnx --data mnist --max-drop 1.0 --target 2x".into(),
        asked: "At most 1 point of accuracy for half the time.".into(),
        before: &cards[0],
        after: &cards[1],
        worth: Some(Worth {
            name: "accuracy",
            unit: "%",
            before: 98.61,
            after: 98.06,
            max_drop: Some(1.0),
            examples: 10_000,
        }),
        aim: Some(Aim {
            unit: "ms",
            before: 0.0421,
            wanted: 0.02105,
            after: 0.0187,
        }),
        layers: (0..count)
            .map(|i| layer(i, &format!("encoder.layer.{i}.weight")))
            .collect(),
        steps: vec![tried(1, true), tried(2, true), tried(3, false), tried(4, true)],
        curves,
        notes: vec![("threads".into(), "2".into()), ("seed".into(), "0".into())],
    }
}

fn curves_of(count: usize) -> Vec<Curve> {
    (0..count)
        .map(|i| curve(i, &format!("encoder.layer.{i}.weight")))
        .collect()
}

/// Panics unless every element is closed in turn, and nothing stands in a tag or text that must not.
fn assert_well_formed(html: &str) {
    const VOID: [&str; 2] = ["meta", "!doctype"];
    let mut open: Vec<&str> = vec![];
    let mut rest = html;
    while let Some((text, tail)) = rest.split_once('<') {
        assert!(!text.contains('>') || open.last() == Some(&"style"), "{text}");
        let (tag, after) = tail.split_once('>').expect("a tag ends");
        assert!(!tag.contains('<'), "{tag}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag
            .trim_start_matches('/')
            .split([' ', '/', '\n'])
            .next()
            .unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "before {after:.80}");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
        rest = after;
    }
    assert_eq!(open, Vec::<&str>::new());
    for reference in html.split('&').skip(1) {
        let name = reference.split(';').next().unwrap();
        assert!(["amp", "lt", "gt", "quot", "emsp"].contains(&name), "&{name}");
    }
}

/// Panics unless `page` is a page that needs nothing and in which all figures are numbers.
fn assert_sound(page: &str) {
    assert_well_formed(page);
    for bad in [
        "NaN", "inf\"", "\"inf", "-inf", "http:", "https:", "<script", "src=",
    ] {
        let found = page.lines().find(|l| l.contains(bad));
        assert_eq!(found, None, "{bad}");
    }
}

#[test]
fn a_story_is_told() {
    let (cards, curves) = (cards(), curves_of(5));
    let page = page(&story(&cards, &curves, 5));
    assert_sound(&page);
    for words in [
        "lenet-300-100.onnx",
        "--max-drop 1.0 --target 2x",
        "2.25×",
        "Time, faster by",
        "0.0421 ms → 0.0187 ms",
        "98.06 %",
        "Held: Accuracy fell by 0.55 points; it may fall by 1.00",
        "Reached: 0.0187 ms; at most 0.0210 ms wanted",
        "step 3",
        "taken back",
        "encoder.layer.3.weight",
        "64×64×3×3 → gone",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert_eq!(
        page.matches("<path class=\"back\"").count(),
        3,
        "a step that was taken back, in each graph"
    );
}

#[test]
fn what_was_not_held_is_said() {
    let cards = cards();
    let mut story = story(&cards, &[], 2);
    let worth = story.worth.as_mut().unwrap();
    (worth.name, worth.unit, worth.before, worth.after) = ("loss", "", 0.2, 1.5);
    story.aim.as_mut().unwrap().after = 0.04;
    let page = page(&story);
    assert_sound(&page);
    assert!(
        page.contains("Not held: Loss rose by 1.30; it may rise by 1.00"),
        "{page}"
    );
    assert!(page.contains("Not reached: 0.0400 ms; at most 0.0210 ms wanted"));
}

#[test]
fn models_of_any_size_have_a_page() {
    let cards = cards();
    for count in [0, 1, 12, 60, 61, 400] {
        let curves = curves_of(count);
        let page = page(&story(&cards, &curves, count));
        assert_sound(&page);
        let last = format!("encoder.layer.{}.weight", count.max(1) - 1);
        assert_eq!(page.contains(&last), count > 0, "{count}");
    }
}

#[test]
fn names_may_be_anything() {
    let cards = cards();
    let name = "</style><script>\"&'卷积/层\u{0}\u{202e}".repeat(9);
    let curves = vec![curve(1, &name)];
    let mut story = story(&cards, &curves, 0);
    story.layers = vec![layer(1, &name)];
    (story.name, story.command, story.asked) = (name.clone(), name.clone(), name.clone());
    story.steps[0].label = name.clone();
    story.notes = vec![(name.clone(), name.clone())];
    let page = page(&story);
    assert_sound(&page);
    assert_sound(&super::curves(&curves).replace("http://www.w3.org/2000/svg", ""));
}

#[test]
fn what_is_not_known_is_left_out() {
    let card = Card {
        nodes: 0,
        parameters: 0,
        zeros: 0,
        file_bytes: None,
        macs: None,
        ms: None,
    };
    let cards = [card.clone(), card];
    let mut story = story(&cards, &[], 0);
    (story.worth, story.aim) = (None, None);
    (story.steps, story.notes) = (vec![], vec![]);
    let page = page(&story);
    assert_sound(&page);
    assert!(!page.contains("<h2>") && !page.contains("<svg"), "{page}");
}

#[test]
fn what_is_no_number_breaks_nothing() {
    let cards = cards();
    for bad in [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -1.0,
        1e300,
        f64::MIN_POSITIVE,
    ] {
        let mut curve = curve(1, "w");
        for p in &mut curve.points {
            p.score = Score {
                loss: bad,
                accuracy: (bad > 0.0).then_some(bad),
            };
            p.cost = bad;
        }
        curve.points[3].sparsity = bad;
        let curves: Vec<Curve> = (0..30).map(|_| curve.clone()).collect();
        let mut story = story(&cards, &curves, 3);
        let worth = story.worth.as_mut().unwrap();
        (worth.before, worth.after, worth.max_drop) = (bad, bad, Some(bad));
        story.aim = Some(Aim {
            unit: "ms",
            before: bad,
            wanted: bad,
            after: bad,
        });
        let odd = Tried {
            sparsity: bad,
            cost: Some(bad),
            before: Some(bad),
            after: Some(bad),
            seconds: Some(bad),
            ..tried(1, true)
        };
        story.steps.push(odd);
        story.layers[0].ms = Some((bad, bad));
        let page = page(&story);
        assert_sound(&page);
        assert_sound(&super::curves(&curves[..3]).replace("http://www.w3.org/2000/svg", ""));
    }
}

#[test]
fn losses_are_drawn_where_there_is_no_accuracy() {
    let mut curves = curves_of(2);
    curves
        .iter_mut()
        .flat_map(|c| &mut c.points)
        .for_each(|p| p.score.accuracy = None);
    let svg = super::curves(&curves);
    assert!(svg.contains("Loss by zeros") && !svg.contains('%'.to_string().repeat(2).as_str()));
    assert_eq!(svg.matches("<polyline").count(), 2);
}
