//! Rows F30 to F36 of the founding documents: weights before the first step.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

mod run;

use run::model;
use secateur_engine::expr::Ex;
use secateur_engine::ir::Attr;
use secateur_engine::random::Random;
use secateur_engine::{Model, Session, Tensor};
use secateur_train::{INITS, Init, initialize, lsuv};

fn zeros(dims: &[usize]) -> Tensor {
    Tensor::zeros(secateur_engine::ir::DType::F32, dims).unwrap()
}

fn product(dims: [usize; 2]) -> Model {
    model(&[("w", zeros(&dims))], &[("x", &[1, dims[0]])], |x| {
        x[1].matmul(x[0])
    })
}

fn weights(model: &Model, name: &str) -> Vec<f64> {
    let v = model.graph.find(name).unwrap();
    model.graph.konst(v).and_then(Tensor::floats).unwrap()
}

fn drawn(mut model: Model, name: &str) -> Vec<f64> {
    let init: Init = name.parse().unwrap();
    assert_eq!(initialize(&mut model, "w", init, 7).unwrap(), 1);
    weights(&model, "w")
}

/// The second moment.
fn power(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64
}

#[track_caller]
fn within(x: f64, expected: f64, share: f64) {
    assert!((x / expected - 1.0).abs() < share, "{x}, expected {expected}");
}

#[test]
fn ways_are_sorted_and_found_by_name() {
    assert!(INITS.is_sorted_by(|a, b| a.0 < b.0));
    INITS
        .iter()
        .for_each(|(name, init)| assert_eq!(name.parse(), Ok(*init)));
    assert!("xavier".parse::<Init>().unwrap_err().contains("xavier-normal"));
}

#[test]
fn f30_f31_f34_variances_follow_from_the_fans() {
    let [inputs, outputs] = [512, 256];
    let all = [
        ("xavier", 2.0 / 768.0),
        ("he", 2.0 / 512.0),
        ("lecun", 1.0 / 512.0),
    ];
    for (name, variance) in all {
        for kind in ["normal", "uniform"] {
            let x = drawn(product([inputs, outputs]), &format!("{name}-{kind}"));
            within(power(&x), variance, 0.03);
            assert!(x.iter().sum::<f64>().abs() / (x.len() as f64) < 1e-3);
            let most = x.iter().fold(0.0, |a: f64, x| a.max(x.abs()));
            assert_eq!(most > (3.0 * variance).sqrt() * 1.0001, kind == "normal");
        }
    }
}

#[test]
fn fans_are_those_of_the_node_that_reads() {
    let conv = model(&[("w", zeros(&[64, 32, 3, 3]))], &[("x", &[1, 32, 8, 8])], |x| {
        x[1].op("Conv", &[x[0]])
    });
    within(power(&drawn(conv, "he-normal")), 2.0 / 288.0, 0.05);
    let gemm = |turned: i64, dims: [usize; 2]| {
        model(&[("w", zeros(&dims))], &[("x", &[1, 300])], |x| {
            x[1].with("Gemm", &[x[0]], vec![Attr::new("transB", turned)])
        })
    };
    within(
        power(&drawn(gemm(1, [100, 300]), "lecun-normal")),
        1.0 / 300.0,
        0.05,
    );
    within(
        power(&drawn(gemm(0, [300, 100]), "lecun-normal")),
        1.0 / 300.0,
        0.05,
    );
}

/// `layers` products with an activation behind each, of `x: [64, 128]`.
fn stack(layers: usize, act: &str) -> Model {
    let names: Vec<String> = (0..layers).map(|i| format!("w{i}")).collect();
    let weights: Vec<_> = names.iter().map(|n| (n.as_str(), zeros(&[128, 128]))).collect();
    model(&weights, &[("x", &[64, 128])], |x| {
        (0..layers).fold(x[layers], |h, i| h.matmul(x[i]).op(act, &[]))
    })
}

fn outputs(model: &Model, x: &Tensor) -> Vec<f64> {
    let made = Session::builder(model)
        .threads(1)
        .build()
        .unwrap()
        .run([("x", x)])
        .unwrap();
    made.into_first().unwrap().floats().unwrap()
}

#[test]
fn f31_twenty_layers_of_relu_keep_the_signal() {
    let mut net = stack(20, "Relu");
    initialize(&mut net, "*", "he-normal".parse().unwrap(), 1).unwrap();
    let y = power(&outputs(&net, &Random::new(3).tensor(&[64, 128], 1.0)));
    assert!((0.5..2.0).contains(&y), "{y}");
}

#[test]
fn f34_a_stack_of_selu_stays_normal() {
    let mut net = stack(20, "Selu");
    initialize(&mut net, "*", "lecun-normal".parse().unwrap(), 1).unwrap();
    let y = outputs(&net, &Random::new(3).tensor(&[64, 128], 1.0));
    let mean = y.iter().sum::<f64>() / y.len() as f64;
    assert!(
        mean.abs() < 0.2 && (power(&y) - mean * mean - 1.0).abs() < 0.3,
        "{mean}, {}",
        power(&y)
    );
}

#[test]
fn f32_orthogonal_rows_or_columns() {
    for dims in [[24, 24], [40, 24], [24, 40]] {
        let w = drawn(product(dims), "orthogonal");
        let [rows, columns] = dims;
        let at = |r: usize, c: usize| w[r * columns + c];
        let count = rows.min(columns);
        for (i, j) in (0..count).flat_map(|i| (0..count).map(move |j| (i, j))) {
            let dot: f64 = match rows <= columns {
                true => (0..columns).map(|k| at(i, k) * at(j, k)).sum(),
                false => (0..rows).map(|k| at(k, i) * at(k, j)).sum(),
            };
            assert!(
                (dot - f64::from(u8::from(i == j))).abs() < 1e-5,
                "{dims:?}: {i}, {j}: {dot}"
            );
        }
    }
    let mut square = product([24, 24]);
    initialize(&mut square, "*", Init::Orthogonal, 1).unwrap();
    let x = Random::new(5).tensor(&[1, 24], 1.0);
    within(power(&outputs(&square, &x)), power(&x.floats().unwrap()), 1e-4);
}

#[test]
fn f33_every_layer_makes_variance_1_of_data() {
    let mut net = stack(6, "Tanh");
    let x = Random::new(3).tensor(&[64, 128], 3.0);
    let runs = lsuv(&mut net, "*", 1, &[("x", x.clone())]).unwrap();
    assert!((6..=30).contains(&runs), "{runs}");
    let products: Vec<String> = net
        .graph
        .iter()
        .filter(|(_, n)| n.is("MatMul"))
        .map(|(_, n)| net.graph[n.outputs[0].unwrap()].name.to_string())
        .collect();
    for name in products {
        let made = Session::builder(&net)
            .tap(&name)
            .build()
            .unwrap()
            .run([("x", &x)])
            .unwrap();
        let y = made[name.as_str()].floats().unwrap();
        let mean = y.iter().sum::<f64>() / y.len() as f64;
        within(power(&y) - mean * mean, 1.0, 0.05);
    }
}

/// `x + f(x) · b`, whose second branch begins with `b`.
fn branch() -> Model {
    model(
        &[("a", zeros(&[16, 16])), ("b", zeros(&[16, 16]))],
        &[("x", &[4, 16])],
        |x| {
            let inner: Ex<'_> = x[2].matmul(x[0]).op("Relu", &[]);
            x[2] + inner.matmul(x[1])
        },
    )
}

#[test]
fn f35_f36_new_branches_say_nothing_or_little() {
    let mut net = branch();
    let x = Random::new(2).tensor(&[4, 16], 1.0);
    initialize(&mut net, "a", "he-normal".parse().unwrap(), 1).unwrap();
    initialize(&mut net, "b", Init::Zero, 1).unwrap();
    assert_eq!(outputs(&net, &x), x.floats().unwrap());
    initialize(&mut net, "b", Init::Small, 1).unwrap();
    let apart: Vec<f64> = outputs(&net, &x)
        .iter()
        .zip(x.floats().unwrap())
        .map(|(y, x)| y - x)
        .collect();
    let share = (power(&apart) / power(&x.floats().unwrap())).sqrt();
    assert!(share > 0.0 && share < 0.1, "{share}");
}

#[test]
fn the_same_seed_gives_the_same_and_wrong_patterns_are_named() {
    let draw = |seed| {
        let mut net = branch();
        initialize(&mut net, "*", "he-normal".parse().unwrap(), seed).unwrap();
        weights(&net, "b")
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let e = initialize(&mut branch(), "c*", Init::Zero, 1)
        .unwrap_err()
        .to_string();
    assert!(e.contains("\"c*\"") && e.contains("there are: a, b"), "{e}");
}
