//! Every optimiser against a plain loop.

mod run;

use run::{Run, doubles, model, near};
use secateur_train::OPTIMIZERS;
use secateur_train::optim::{Lbfgs, Optimizer, optimizer};

/// `Σ a (w - c)² / 2 + w⁴ / 4`, over two parameters of three and two elements.
const A: [f64; 5] = [1.0, 10.0, 0.3, 4.0, 2.0];
const C: [f64; 5] = [1.0, -2.0, 3.0, 0.5, -0.5];
const START: [f64; 5] = [0.4, 0.3, -0.2, 0.1, -0.6];

fn slope(w: &[f64]) -> Vec<f64> {
    (0..5).map(|i| A[i] * (w[i] - C[i]) + w[i].powi(3)).collect()
}

fn bowl() -> secateur_engine::Model {
    let weights = [
        ("w", doubles(&[3], &START[..3])),
        ("v", doubles(&[2, 1], &START[3..])),
    ];
    model(&weights, &[], |x| {
        let part = |w: secateur_engine::expr::Ex<'_>, range: std::ops::Range<usize>, dims: &[usize]| {
            let t = |x: &[f64; 5]| w.tensor(doubles(dims, &x[range.clone()]));
            let away = w - t(&C);
            let sum = |x: secateur_engine::expr::Ex<'_>| {
                x.with(
                    "ReduceSum",
                    &[],
                    vec![secateur_engine::ir::Attr::new("keepdims", 0)],
                )
                .id
            };
            sum(away * away * t(&A) * 0.5 + w * w * w * w * 0.25)
        };
        let (a, b) = (part(x[0], 0..3, &[3]), part(x[1], 3..5, &[2, 1]));
        let at = |id| secateur_engine::expr::Ex { id, ..x[0] };
        at(a) + at(b)
    })
}

/// The parameters after each of 20 steps: `next` gives a step's move, from the gradient and the number of the step from 1.
fn plain(rate: f64, mut next: impl FnMut(&[f64], &[f64], i32) -> Vec<f64>) -> Vec<f64> {
    let mut w = START.to_vec();
    for t in 1..=20 {
        let along = next(&w, &slope(&w), t);
        w.iter_mut().zip(along).for_each(|(w, m)| *w -= rate * m);
    }
    w
}

fn each(mut f: impl FnMut(usize) -> f64) -> Vec<f64> {
    (0..5).map(&mut f).collect()
}

fn adam(decay: f64) -> Vec<f64> {
    let (mut m, mut v) = ([0.0; 5], [0.0; 5]);
    plain(0.05, |w, g, t| {
        each(|i| {
            m[i] = 0.9 * m[i] + 0.1 * g[i];
            v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
            let (mean, square) = (m[i] / (1.0 - 0.9f64.powi(t)), v[i] / (1.0 - 0.999f64.powi(t)));
            mean / (square.sqrt() + 1e-8) + decay * w[i]
        })
    })
}

/// Adam's steps, those of each of the two parameters as long as it is.
fn lamb() -> Vec<f64> {
    let (mut m, mut v) = ([0.0; 5], [0.0; 5]);
    plain(0.05, |w, g, t| {
        let mut along = each(|i| {
            m[i] = 0.9 * m[i] + 0.1 * g[i];
            v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
            let (mean, square) = (m[i] / (1.0 - 0.9f64.powi(t)), v[i] / (1.0 - 0.999f64.powi(t)));
            mean / (square.sqrt() + 1e-6)
        });
        for part in [0..3, 3..5] {
            let length = |x: &[f64]| dot(x, x).sqrt();
            let ratio = length(&w[part.clone()]) / length(&along[part.clone()]);
            along[part].iter_mut().for_each(|x| *x *= ratio);
        }
        along
    })
}

fn rmsprop(centred: bool) -> Vec<f64> {
    let (mut s, mut m) = ([0.0; 5], [0.0; 5]);
    plain(0.01, |_, g, _| {
        each(|i| {
            s[i] = 0.99 * s[i] + 0.01 * g[i] * g[i];
            m[i] = 0.99 * m[i] + 0.01 * g[i];
            let square = if centred { s[i] - m[i] * m[i] } else { s[i] };
            g[i] / (square.sqrt() + 1e-8)
        })
    })
}

fn momentum(ahead: bool) -> Vec<f64> {
    let mut v = [0.0; 5];
    plain(0.01, |_, g, _| {
        each(|i| {
            v[i] = 0.9 * v[i] + g[i];
            if ahead { g[i] + 0.9 * v[i] } else { v[i] }
        })
    })
}

/// Divided by the root of the sum of squares, or of their mean.
fn divided(mean: bool) -> Vec<f64> {
    let mut s = [0.0; 5];
    plain(0.1, |_, g, t| {
        each(|i| {
            s[i] += g[i] * g[i];
            let square = if mean { s[i] / f64::from(t) } else { s[i] };
            g[i] / (square.sqrt() + 1e-10)
        })
    })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// BFGS with the inverse of the Hessian written out, from the last ten pairs.
fn lbfgs(rate: f64) -> Vec<f64> {
    let mut pairs: Vec<[Vec<f64>; 2]> = vec![];
    let mut last: Option<[Vec<f64>; 2]> = None;
    plain(rate, |w, g, _| {
        if let Some([w0, g0]) = &last {
            let pair = [each(|i| w[i] - w0[i]), each(|i| g[i] - g0[i])];
            if dot(&pair[0], &pair[1]) > 1e-10 * dot(&pair[1], &pair[1]) {
                pairs.push(pair);
            }
        }
        last = Some([w.to_vec(), g.to_vec()]);
        let pairs = &pairs[pairs.len().saturating_sub(10)..];
        let scale = match pairs.last() {
            Some([s, y]) => dot(s, y) / dot(y, y),
            None => 1.0 / g.iter().map(|g| g.abs()).sum::<f64>().max(1.0),
        };
        let mut h: Vec<Vec<f64>> = (0..5)
            .map(|i| each(|j| if i == j { scale } else { 0.0 }))
            .collect();
        for [s, y] in pairs {
            let rho = 1.0 / dot(s, y);
            let keep = |i: usize, j: usize| f64::from(u8::from(i == j)) - rho * s[i] * y[j];
            let new = |i: usize, j: usize| {
                let inner = (0..5).flat_map(|k| (0..5).map(move |l| (k, l)));
                inner.map(|(k, l)| keep(i, k) * h[k][l] * keep(j, l)).sum::<f64>() + rho * s[i] * s[j]
            };
            h = (0..5).map(|i| each(|j| new(i, j))).collect();
        }
        each(|i| dot(&h[i], g))
    })
}

#[test]
fn every_optimizer_takes_the_steps_of_a_plain_loop() {
    let all = [
        ("adagrad", 0.1, divided(false)),
        ("adam", 0.05, adam(0.0)),
        ("adamw", 0.05, adam(0.01)),
        ("lamb", 0.05, lamb()),
        ("lbfgs", 0.5, lbfgs(0.5)),
        ("mean-square", 0.1, divided(true)),
        ("momentum", 0.01, momentum(false)),
        ("nesterov", 0.01, momentum(true)),
        ("rmsprop", 0.01, rmsprop(false)),
        ("rmsprop-centred", 0.01, rmsprop(true)),
        ("sgd", 0.01, plain(0.01, |_, g, _| g.to_vec())),
    ];
    let bowl = bowl();
    let names: Vec<_> = OPTIMIZERS.iter().map(|make| make().name()).collect();
    assert_eq!(names, all.each_ref().map(|a| a.0));
    for (name, rate, expected) in all {
        let mut run = Run::of(&bowl, &*optimizer(name).unwrap());
        let losses: Vec<f64> = (0..20).map(|_| run.loss(rate, &[])).collect();
        let found = [run.get("w"), run.get("v")].concat();
        assert!(losses[19] < losses[0], "{name}: {losses:?}");
        near(&found, &expected, if name == "lbfgs" { 1e-7 } else { 1e-10 });
    }
}

#[test]
fn f15_lbfgs_finds_the_end_of_a_valley_that_descent_does_not() {
    let valley = |x: &[secateur_engine::expr::Ex<'_>]| -> secateur_engine::ir::ValueId {
        let at = |i: i64| x[0].op("Gather", &[x[0].tensor(secateur_engine::Tensor::scalar(i))]);
        let (a, b) = (at(0), at(1));
        let (away, off) = (a.constant(1.0) - a, b - a * a);
        (away * away + off * off * 100.0).id
    };
    let start = [("w", doubles(&[2], &[-1.2, 1.0]))];
    let model = model(&start, &[], |x| secateur_engine::expr::Ex {
        id: valley(x),
        ..x[0]
    });
    let end = |optimizer: &dyn Optimizer, rate: f64| {
        let mut run = Run::of(&model, optimizer);
        (0..200).for_each(|_| {
            run.step(rate, &[]);
        });
        run.loss(0.0, &[])
    };
    let descent = end(&*optimizer("sgd").unwrap(), 1e-3);
    let newton = end(&Lbfgs::default(), 1.0);
    assert!(
        descent.is_finite() && newton < descent * 1e-3,
        "{newton}, {descent}"
    );
}
