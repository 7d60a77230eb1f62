//! Rows F6, F7, F8, F16, F19 and F20 of the founding documents: what is known of a loss from its gradients.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

mod run;
mod small;

use run::{Run, model};
use secateur_engine::expr::Ex;
use secateur_engine::random::Random;
use secateur_engine::{Session, Tensor};
use secateur_train::optim::Sgd;
use secateur_train::{Spec, step};
use small::{Small, doubles, gradients};

/// A loss of two weights: its value and its gradient.
struct Loss(Small);

impl Loss {
    fn new(write: impl for<'a> Fn([Ex<'a>; 2]) -> Ex<'a>) -> Loss {
        let mut small = Small::new(&[&[], &[]], |x| write([x[0], x[1]]));
        small.model.graph.output(small.y, None);
        small.grad(small.y).unwrap();
        Loss(small)
    }

    fn at(&self, w: [f64; 2]) -> (f64, [f64; 2]) {
        let found = self.0.run(&w.map(|x| doubles(&[], &[x])));
        (found[0][0], [found[1][0], found[2][0]])
    }

    /// The Hessian at `w` times `v`, from two gradients.
    fn turned(&self, w: [f64; 2], v: [f64; 2]) -> [f64; 2] {
        let h = 1e-5;
        let side = |sign: f64| self.at([w[0] + sign * h * v[0], w[1] + sign * h * v[1]]).1;
        let (up, down) = (side(1.0), side(-1.0));
        [(up[0] - down[0]) / (2.0 * h), (up[1] - down[1]) / (2.0 * h)]
    }
}

fn product_of_weights() -> Loss {
    Loss::new(|[a, b]| {
        let away = a.constant(1.0) - a * b;
        away * away
    })
}

fn dot(a: [f64; 2], b: [f64; 2]) -> f64 {
    a[0] * b[0] + a[1] * b[1]
}

#[test]
fn f16_power_iteration_finds_the_way_down_without_the_hessian() {
    let loss = product_of_weights();
    let (shift, mut v) = (4.0, [0.8, 0.6]);
    for _ in 0..60 {
        let turned = loss.turned([0.0, 0.0], v);
        // The largest of `shift - H` is the least of `H`.
        let next = [shift * v[0] - turned[0], shift * v[1] - turned[1]];
        let length = dot(next, next).sqrt();
        v = next.map(|x| x / length);
    }
    let value = dot(v, loss.turned([0.0, 0.0], v));
    assert!((value + 2.0).abs() < 1e-6, "{value}");
    let half = 0.5f64.sqrt();
    assert!(v.iter().all(|x| (x - half).abs() < 1e-6), "{v:?}");
}

#[test]
fn f19_a_saddle_is_left_along_the_negative_eigenvector() {
    let loss = product_of_weights();
    let (start, slope) = loss.at([0.0, 0.0]);
    assert_eq!(slope, [0.0, 0.0]);
    // α² λ / 2 with α = 0.1 √2 and λ = -2.
    let predicted = 0.5 * 0.02 * -2.0;
    let gone = loss.at([0.1, 0.1]).0 - start;
    assert!((gone - -0.0199).abs() < 1e-12 && (gone - predicted).abs() < 2e-4);
}

#[test]
fn f20_the_second_order_model_is_exact_for_squares_and_of_third_order_else() {
    let left = |loss: &Loss, w: [f64; 2], d: [f64; 2]| {
        let (start, slope) = loss.at(w);
        let model = start + dot(slope, d) + 0.5 * dot(d, loss.turned(w, d));
        loss.at([w[0] + d[0], w[1] + d[1]]).0 - model
    };
    let square = Loss::new(|[a, b]| a * a * a.constant(3.0) + a * b - b * b);
    assert!(left(&square, [0.4, -1.1], [0.7, 2.0]).abs() < 1e-8);
    let loss = product_of_weights();
    let at = |h: f64| left(&loss, [0.3, 0.5], [h, 0.7 * h]);
    let ratio = at(0.02) / at(0.01);
    assert!((7.5..8.5).contains(&ratio), "{ratio}");
}

/// The slopes of the mean squared error of `w x` from `y` over batches of `size`: a weight for each batch, all the same.
fn slopes(size: usize, batches: usize, random: &mut Random) -> Vec<f64> {
    let mut draw = || (0..batches * size).map(|_| random.normal()).collect::<Vec<f64>>();
    let (x, noise) = (draw(), draw());
    let y: Vec<f64> = x.iter().zip(noise).map(|(x, n)| 2.0 * x + n).collect();
    let w = doubles(&[batches, 1], &vec![0.5; batches]);
    let [x, y] = [x, y].map(|all| doubles(&[batches, size], &all));
    let mut all = gradients(&[w, x, y], |x| {
        let away = x[0] * x[1] - x[2];
        away * away * away.constant(1.0 / size as f64)
    });
    all.swap_remove(0)
}

#[test]
fn f6_the_noise_of_a_gradient_falls_with_the_batch() {
    let random = &mut Random::new(4);
    let moments = |g: Vec<f64>| {
        let mean = g.iter().sum::<f64>() / g.len() as f64;
        let squares = g.iter().map(|x| (x - mean).powi(2));
        (mean, squares.sum::<f64>() / (g.len() - 1) as f64)
    };
    let (small, large) = (
        moments(slopes(8, 2000, random)),
        moments(slopes(32, 2000, random)),
    );
    let ratio = small.1 / large.1;
    assert!((3.2..4.8).contains(&ratio), "{ratio}");
    // E[2 (w x - y) x] with w = 0.5, and y = 2 x but for noise.
    assert!((small.0 + 3.0).abs() < 0.15 && (large.0 + 3.0).abs() < 0.08);
}

#[test]
fn f7_memory_grows_with_the_batch() {
    let needs = |batch: usize| {
        let weight = Random::new(1).normals(&[64, 64], 0.0, 0.1);
        let net = model(&[("w", weight)], &[("x", &[batch, 64])], |x| {
            (0..4).fold(x[1], |y, _| y.op("MatMul", &[x[0]]).op("Tanh", &[]))
        });
        let graph = step(&net, &Spec::new(run::SUM, &Sgd)).unwrap();
        let session = Session::builder(&graph.model).threads(1).build().unwrap();
        let state = graph.state.iter().map(|s| (s.input.as_str(), s.start.clone()));
        let more = [
            (graph.rate.as_str(), Tensor::scalar(0.1f32)),
            ("x", Random::new(2).normals(&[batch, 64], 0.0, 1.0)),
        ];
        let feeds: Vec<_> = state.chain(more).collect();
        let plan = session.prepare(feeds.iter().map(|(n, t)| (*n, t))).unwrap();
        plan.peak_bytes() as f64
    };
    let [a, b, c] = [256, 512, 1024].map(needs);
    let ratio = (c - b) / (b - a);
    assert!((1.8..2.2).contains(&ratio) && b > a, "{a}, {b}, {c}");
}

#[test]
fn f8_a_sharp_minimum_suffers_more_from_moves_of_its_weights() {
    // Two parabolas: a sharp one about -1, a flat one about 2.
    fn wells<'a>(w: Ex<'a>) -> Ex<'a> {
        let from = |at: f64| (w - w.constant(at)) * (w - w.constant(at));
        (from(-1.0) * w.constant(40.0)).op("Min", &[from(2.0)])
    }
    let ends = |start: f64| {
        let net = model(&[("w", doubles(&[1], &[start]))], &[], |x| wells(x[0]));
        let mut run = Run::of(&net, &Sgd);
        (0..400).for_each(|_| drop(run.step(0.01, &[])));
        run.get("w")[0]
    };
    let [sharp, flat] = [-1.2, 0.5].map(ends);
    assert!((sharp + 1.0).abs() < 1e-3 && (flat - 2.0).abs() < 1e-2);
    let mut small = Small::new(&[&[]], |x| wells(x[0]));
    small.model.graph.output(small.y, None);
    let rise = |w: f64| [-0.1, 0.1].map(|d| small.run(&[doubles(&[], &[w + d])])[0][0]);
    let worst = |w: f64| rise(w).into_iter().fold(0.0, f64::max);
    assert!(worst(sharp) > 20.0 * worst(flat));
}
