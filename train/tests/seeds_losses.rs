//! Rows G1 to G8, G15, G17 and G19 of the founding documents: losses.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

mod small;

use secateur_engine::Tensor;
use secateur_engine::expr::Ex;
use secateur_train::LOSSES;
use secateur_train::loss::loss;
use small::{Small, doubles};

/// The loss `text` of doubles, the last of which may be integers that are written into the graph.
fn value(text: &str, x: &[Tensor], classes: Option<&Tensor>) -> f64 {
    let small = written(text, x, classes, |y| y);
    small.run(x)[0][0]
}

fn written(
    text: &str,
    x: &[Tensor],
    classes: Option<&Tensor>,
    more: impl for<'a> FnOnce(Ex<'a>) -> Ex<'a>,
) -> Small {
    let loss = loss(text).unwrap();
    let shapes: Vec<&[usize]> = x.iter().map(Tensor::dims).collect();
    let mut small = Small::new(&shapes, |x| {
        let classes = classes.map(|c| x[0].tensor(c.clone()));
        let all: Vec<Ex> = x.iter().copied().chain(classes).collect();
        more(loss.write(&all))
    });
    small.model.graph.output(small.y, None);
    small
}

/// The gradients of the loss by all of `x`.
fn slopes(text: &str, x: &[Tensor], classes: Option<&Tensor>) -> Vec<Vec<f64>> {
    let mut small = written(text, x, classes, |y| y);
    small.model.graph.outputs.clear();
    small.grad(small.y).unwrap();
    small.run(x)
}

#[track_caller]
fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()), "{a}, expected {b}");
}

fn ints(dims: &[usize], x: &[i64]) -> Tensor {
    Tensor::of(dims, x.to_vec())
}

fn three() -> [Tensor; 2] {
    [doubles(&[3], &[4.0, 3.0, 10.0]), doubles(&[3], &[5.0, 3.0, 8.0])]
}

#[test]
fn g1_mean_squared_error() {
    near(value("mse", &three(), None), 5.0 / 3.0);
    let found = slopes("mse", &three(), None);
    found[0]
        .iter()
        .zip([-2.0 / 3.0, 0.0, 4.0 / 3.0])
        .for_each(|(&a, b)| near(a, b));
    let one = |x| value("mse", &[doubles(&[1], &[x]), doubles(&[1], &[0.0])], None);
    assert_eq!((one(10.0), one(100.0)), (100.0, 10_000.0));
}

#[test]
fn g2_its_root_and_g3_the_mean_distance() {
    near(value("rmse", &three(), None), 1.290994);
    near(value("l1", &three(), None), 1.0);
    assert_eq!(slopes("l1", &three(), None)[0], [-1.0 / 3.0, 0.0, 1.0 / 3.0]);
}

#[test]
fn g4_squares_of_shares_learn_nothing_where_they_are_most_wrong() {
    let scores = [doubles(&[1, 2], &[10.0, -10.0])];
    let mut squares = Small::new(&[&[1, 2]], |x| {
        let right = x[0].tensor(doubles(&[1, 2], &[0.0, 1.0]));
        let apart = x[0].op("Softmax", &[]) - right;
        apart * apart
    });
    squares.grad(squares.y).unwrap();
    let slow = squares.run(&scores)[0][0];
    assert!((slow - 8.2e-9).abs() < 1e-10, "{slow}");
    near(
        slopes("cross-entropy", &scores, Some(&ints(&[1], &[1])))[0][0],
        1.0,
    );
}

#[test]
fn g5_cross_entropy() {
    let scores = [doubles(&[1, 3], &[2.0, 1.0, 0.1])];
    near(value("cross-entropy", &scores, Some(&ints(&[1], &[1]))), 1.417030);
    let even = [doubles(&[2, 10], &[0.3; 20])];
    near(
        value("cross-entropy", &even, Some(&ints(&[2], &[3, 7]))),
        10f64.ln(),
    );
    // What is left out does not count, with smoothing or without.
    let two = [doubles(&[2, 3], &[2.0, 1.0, 0.1, 5.0, 5.0, -5.0])];
    near(
        value("cross-entropy", &two, Some(&ints(&[2], &[1, -100]))),
        1.417030,
    );
    // Smoothing: a tenth of the mean over all classes.
    let log = [-0.417030, -1.417030, -2.317030];
    let smooth = 0.9 * 1.417030 - 0.1 * log.iter().sum::<f64>() / 3.0;
    near(
        value("cross-entropy:smoothing=0.1", &two, Some(&ints(&[2], &[1, -100]))),
        smooth,
    );
    let log = [doubles(&[1, 3], &log)];
    near(value("nll", &log, Some(&ints(&[1], &[1]))), 1.417030);
}

#[test]
fn g6_binary_cross_entropy() {
    let d = |score: f64, share: f64| {
        value(
            "binary-cross-entropy",
            &[doubles(&[1], &[score]), doubles(&[1], &[share])],
            None,
        )
    };
    near(d(0.0, 1.0) + d(0.0, 0.0), 1.386294);
    near(d(-1000.0, 1.0), 1000.0);
    assert_eq!(d(1000.0, 1.0), 0.0);
}

#[test]
fn g7_the_likeliest_shares_are_those_observed() {
    let seen = [0.3, 0.5, 0.2];
    let classes = ints(&[10], &[0, 0, 0, 1, 1, 1, 1, 1, 2, 2]);
    let of = |shares: [f64; 3]| {
        let rows: Vec<f64> = shares.map(f64::ln).repeat(10);
        value("cross-entropy", &[doubles(&[10, 3], &rows)], Some(&classes))
    };
    near(of(seen), 1.029653);
    near(of([1.0 / 3.0; 3]), 1.098612);
}

#[test]
fn g8_divergence_of_shares() {
    let of = |scores: [f64; 2], shares: [f64; 2]| {
        value(
            "kl",
            &[doubles(&[1, 2], &scores), doubles(&[1, 2], &shares)],
            None,
        )
    };
    near(of([0.0, 0.0], [0.9, 0.1]), 0.368064);
    assert!(of([0.9f64.ln(), 0.1f64.ln()], [0.9, 0.1]).abs() < 1e-12);
    near(of([0.0, 0.0], [1.0, 0.0]), 2f64.ln());
    assert!(of([0.3, -0.4], [0.2, 0.8]) > 0.0);
}

#[test]
fn distillation_is_cross_entropy_of_softened_scores() {
    let [own, teacher] = [
        doubles(&[1, 3], &[1.0, -0.5, 0.2]),
        doubles(&[1, 3], &[2.0, 0.5, -1.0]),
    ];
    assert!(value("distillation", &[own.clone(), own.clone()], None).abs() < 1e-12);
    // The gradient is T (q - p).
    let found = slopes(
        "distillation:temperature=2",
        &[own.clone(), teacher.clone()],
        None,
    );
    let soft = |t: &Tensor| {
        let e: Vec<f64> = t.floats().unwrap().iter().map(|x| (x / 2.0).exp()).collect();
        e.iter().map(|x| x / e.iter().sum::<f64>()).collect::<Vec<_>>()
    };
    for ((g, q), p) in found[0].iter().zip(soft(&own)).zip(soft(&teacher)) {
        near(*g, 2.0 * (q - p));
    }
}

#[test]
fn g15_infonce() {
    let same = doubles(&[4, 2], &[1.0; 8]);
    near(value("infonce", &[same.clone(), same], None), 1.945910);
    let apart: Vec<f64> = (0..16).map(|i| f64::from(u8::from(i % 5 == 0)) * 3.0).collect();
    let apart = doubles(&[4, 4], &apart);
    near(
        value("infonce:temperature=0.5", &[apart.clone(), apart], None),
        0.594438,
    );
}

#[test]
fn g17_entropy_falls_as_shares_are_decided() {
    let of = |shares: [f64; 2]| value("entropy", &[doubles(&[1, 2], &shares.map(f64::ln))], None);
    near(of([0.5, 0.5]), 2f64.ln());
    near(of([0.9, 0.1]), 0.325083);
    let x = [0.2, -0.1];
    let g = &slopes("entropy", &[doubles(&[1, 2], &x)], None)[0];
    let of = |x: [f64; 2]| value("entropy", &[doubles(&[1, 2], &x)], None);
    assert!(of([x[0] - 0.5 * g[0], x[1] - 0.5 * g[1]]) < of(x));
}

#[test]
fn g19_tokens_of_the_answer_alone_count() {
    let rows: Vec<f64> = [0.3, 0.5, 0.8, 0.9]
        .iter()
        .flat_map(|p: &f64| [p.ln(), (1.0 - p).ln()])
        .collect();
    let scores = [doubles(&[2, 2, 2], &rows)];
    let mean = value(
        "token-cross-entropy",
        &scores,
        Some(&ints(&[2, 2], &[-100, 0, 0, 0])),
    );
    near(mean, 0.340550);
    near(mean * 3.0, 1.021651);
    let prompt = slopes(
        "token-cross-entropy",
        &scores,
        Some(&ints(&[2, 2], &[-100, 0, 0, 0])),
    );
    assert_eq!(prompt[0][..2], [0.0, 0.0]);
    assert!(prompt[0][2] < 0.0);
}

#[test]
fn gradients_are_slopes() {
    let noise = |dims: &[usize], seed| {
        let x = secateur_engine::random::Random::new(seed).tensor(dims, 1.0);
        doubles(dims, &x.floats().unwrap())
    };
    for make in LOSSES {
        let made = make();
        let (name, takes) = (made.name(), made.takes());
        if name == "accuracy" {
            continue;
        }
        let dims: &[usize] = if name.starts_with("token") {
            &[2, 2, 3]
        } else {
            &[4, 3]
        };
        let integer = takes.get(1) == Some(&"classes");
        let mut x = vec![noise(dims, 1)];
        if takes.len() > 1 && !integer {
            let t = noise(dims, 2).floats().unwrap();
            let share = |x: &f64| {
                if takes[1] == "shares" {
                    x.abs().min(1.0)
                } else {
                    *x
                }
            };
            x.push(doubles(dims, &t.iter().map(share).collect::<Vec<_>>()));
        }
        let shape: &[usize] = if dims.len() == 3 { &[2, 2] } else { &[4] };
        let classes = integer.then(|| ints(shape, &[2, 0, -100, 1]));
        let with = if name == "cross-entropy" {
            "cross-entropy:smoothing=0.2"
        } else {
            name
        };
        let found = slopes(with, &x, classes.as_ref());
        let small = written(with, &x, classes.as_ref(), |y| y);
        for i in 0..x[0].len() {
            let end = |h: f64| {
                let (mut x, mut v) = (x.clone(), x[0].floats().unwrap());
                v[i] += h;
                x[0] = doubles(dims, &v);
                small.run(&x)[0][0]
            };
            let slope = (end(1e-5) - end(-1e-5)) / 2e-5;
            assert!(
                (found[0][i] - slope).abs() < 1e-7,
                "{name}[{i}]: {}, slope {slope}",
                found[0][i]
            );
        }
    }
}

#[test]
fn accuracy_counts_what_is_right() {
    let scores = [doubles(&[4, 2], &[1.0, 0.0, 0.0, 1.0, 3.0, 2.0, -1.0, -2.0])];
    assert_eq!(value("accuracy", &scores, Some(&ints(&[4], &[0, 1, 1, 0]))), 0.75);
}
