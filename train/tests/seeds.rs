//! Rows C7, C8, F2, F3, F17, F18 and F38 of the founding documents: gradients.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

mod small;

use secateur_engine::Tensor;
use secateur_engine::expr::Ex;
use secateur_engine::ir::Attr;
use small::{Small, doubles, gradients, near};

fn cross_entropy<'a>(scores: Ex<'a>, class: i64) -> Ex<'a> {
    let class = scores.tensor(Tensor::of(&[1], vec![class]));
    scores.op("SoftmaxCrossEntropyLoss", &[class])
}

#[test]
fn c7_cross_entropy_stays_finite() {
    let loss = |scores: [f64; 3]| {
        let mut small = Small::new(&[&[1, 3]], |x| cross_entropy(x[0], 1));
        small.model.graph.output(small.y, None);
        small.run(&[doubles(&[1, 3], &scores)])[0][0]
    };
    assert!((loss([2.0, 1.0, 0.1]) - 1.417030).abs() < 1e-6);
    assert_eq!(loss([2000.0, 1000.0, 100.0]), 1000.0);
}

#[test]
fn c8_the_gradient_of_cross_entropy_is_share_minus_one_hot() {
    let scores = doubles(&[1, 3], &[2.0, 1.0, 0.1]);
    let found = &gradients(&[scores], |x| cross_entropy(x[0], 1))[0];
    for (a, b) in found.iter().zip([0.65900, -0.75757, 0.09857]) {
        assert!((a - b).abs() < 1e-5, "{a}, {b}");
    }
    assert!(found.iter().sum::<f64>().abs() < 1e-12);
    let far = doubles(&[1, 3], &[2000.0, 1000.0, 100.0]);
    near(
        &gradients(&[far], |x| cross_entropy(x[0], 1))[0],
        &[1.0, -1.0, 0.0],
    );
}

/// `layers` neurons in a row: weight `x[0][i]`, bias `x[1][i]`, input `x[2]`.
fn chain<'a>(x: &[Ex<'a>], layers: i64, act: &str) -> Ex<'a> {
    let at = |p: Ex<'a>, i: i64| p.op("Gather", &[p.tensor(Tensor::scalar(i))]);
    (0..layers).fold(x[2], |z, i| (at(x[0], i) * z + at(x[1], i)).op(act, &[]))
}

#[test]
fn f2_a_chain_of_neurons_follows_the_product_formula() {
    let (w, b, x0) = (
        [0.9, -1.3, 0.4, 2.0, -0.7, 1.1, 0.3, -0.2, 1.7, 0.8],
        [0.1; 10],
        0.6,
    );
    let x = [doubles(&[10], &w), doubles(&[10], &b), doubles(&[], &[x0])];
    let found = gradients(&x, |x| chain(x, 10, "Sigmoid"));
    let slope = |z: f64| z * (1.0 - z);
    let mut z = vec![x0];
    for i in 0..10 {
        z.push(1.0 / (1.0 + (-(w[i] * z[i] + b[i])).exp()));
    }
    let first: f64 = (1..10).map(|i| slope(z[i + 1]) * w[i]).product();
    near(&found[0][..1], &[first * slope(z[1]) * x0]);
    near(&found[2], &[first * slope(z[1]) * w[0]]);
}

#[test]
fn f2_relu_passes_the_gradient_on_or_not() {
    let x = doubles(&[4], &[-2.0, 3.0, -0.5, 1.0]);
    assert_eq!(gradients(&[x], |x| x[0].op("Relu", &[])), [[0.0, 1.0, 0.0, 1.0]]);
}

#[test]
fn f3_gradients_vanish_and_explode() {
    let ones = |n: usize| doubles(&[n], &vec![1.0; n]);
    let zeros = |n: usize| doubles(&[n], &vec![0.0; n]);
    let x = [ones(10), zeros(10), doubles(&[], &[0.0])];
    let vanished = gradients(&x, |x| chain(x, 10, "Sigmoid"));
    assert!(vanished[2][0] > 0.0 && vanished[2][0] <= 0.25f64.powi(10));
    let x = [doubles(&[50], &[1.5; 50]), zeros(50), doubles(&[], &[1.0])];
    let exploded = gradients(&x, |x| chain(x, 50, "Relu"));
    near(&exploded[2], &[1.5f64.powi(50)]);
}

/// The gradient and the second derivatives of `write` at `x`, of two numbers.
fn hessian(x: [f64; 2], write: impl for<'a> Fn([Ex<'a>; 2]) -> Ex<'a>) -> ([f64; 2], [[f64; 2]; 2]) {
    let x = x.map(|x| doubles(&[], &[x]));
    let mut small = Small::new(&[&[], &[]], |x| write([x[0], x[1]]));
    let first = small.grad(small.y).unwrap();
    let both = small.run(&x);
    small.model.graph.outputs.clear();
    let mut second = vec![];
    for g in first {
        small.model.graph.outputs.clear();
        let found = small.grad(g.unwrap()).unwrap();
        let mut made = small.run(&x).into_iter();
        second.push([0, 1].map(|i| found[i].map_or(0.0, |_| made.next().unwrap()[0])));
    }
    ([both[0][0], both[1][0]], [second[0], second[1]])
}

#[test]
fn f17_second_derivatives_tell_a_minimum_from_a_saddle() {
    let sum = hessian([0.3, -0.4], |[x, y]| x * x + y * y);
    assert_eq!(sum, ([0.6, -0.8], [[2.0, 0.0], [0.0, 2.0]]));
    let difference = hessian([0.0, 0.0], |[x, y]| x * x - y * y);
    assert_eq!(difference, ([0.0, 0.0], [[2.0, 0.0], [0.0, -2.0]]));
}

#[test]
fn f18_the_saddle_of_a_product_of_weights() {
    fn loss<'a>([a, b]: [Ex<'a>; 2]) -> Ex<'a> {
        let away = a.constant(1.0) - a * b;
        away * away
    }
    let found = hessian([0.0, 0.0], loss);
    assert_eq!(found, ([0.0, 0.0], [[0.0, -2.0], [-2.0, 0.0]]));
    let at = |x: [f64; 2]| {
        let mut small = Small::new(&[&[], &[]], |x| loss([x[0], x[1]]));
        small.model.graph.output(small.y, None);
        small.run(&x.map(|x| doubles(&[], &[x])))[0][0]
    };
    assert!((at([0.1, 0.1]) - 0.9801).abs() < 1e-12);
    assert!((at([0.1, -0.1]) - 1.0201).abs() < 1e-12);
}

#[test]
fn f38_kinks_have_one_gradient_and_no_nan() {
    let zero = || [doubles(&[2], &[0.0, -0.0])];
    for op in ["Relu", "Abs", "Sign"] {
        let mut small = Small::new(&[&[2]], |x| x[0].op(op, &[]));
        let found = small.grad(small.y).unwrap();
        if found[0].is_some() {
            assert_eq!(small.run(&zero()), [[0.0, 0.0]], "{op}");
        }
    }
    assert_eq!(gradients(&zero(), |x| x[0].op("ReduceL2", &[])), [[0.0, 0.0]]);
    assert_eq!(gradients(&zero(), |x| x[0].op("ReduceMax", &[])), [[0.5, 0.5]]);
    let shared = gradients(&[zero(), zero()].concat(), |x| x[0].op("Max", &[x[1]]));
    assert_eq!(shared, [[0.5, 0.5], [0.5, 0.5]]);
    let clipped = gradients(&[doubles(&[3], &[-1.0, 0.0, 2.0])], |x| {
        x[0].op("Clip", &[x[0].constant(-1.0), x[0].constant(1.0)])
    });
    assert_eq!(clipped, [[1.0, 1.0, 0.0]]);
    let products = gradients(&[doubles(&[3], &[0.0, 2.0, 3.0])], |x| x[0].op("ReduceProd", &[]));
    assert_eq!(products, [[6.0, 0.0, 0.0]]);
    let leaky = gradients(&zero(), |x| {
        x[0].with("LeakyRelu", &[], vec![Attr::new("alpha", 0.5)])
    });
    assert_eq!(leaky, [[0.5, 0.5]]);
    // What is not a number stays to be seen.
    let nan = gradients(&[doubles(&[1], &[f64::NAN])], |x| x[0].op("Relu", &[]) * x[0]);
    assert!(nan[0][0].is_nan());
}
