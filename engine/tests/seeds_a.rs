//! Rows A1 to A38 of the founding documents: the operators.

mod measure;

use measure::{
    apart, call, floats, ints, model, near, noise, ops_run, optimised, private, run, slope_error, tensor,
    typed,
};
use secateur_engine::expr::Ex;
use secateur_engine::ir::{Attr, DType};
use secateur_engine::{Model, Session, Tensor};

/// Checks that `op` with `attrs` gives `ys` for `xs`, within `tolerance`.
fn values(op: &str, attrs: Vec<Attr>, pairs: &[(f64, f64)], tolerance: f64) {
    let (xs, ys): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let m = model(22, [&[xs.len()]], |[x]| vec![x.with(op, &[], attrs)]);
    near(&run(&m, &[&tensor(&[xs.len()], &xs)], 1e-6)[0], &ys, tolerance);
}

/// `op` of doubles.
fn of_doubles(op: &'static str, attrs: Vec<Attr>) -> impl Fn(&[f64]) -> Vec<f64> {
    move |x| {
        let attrs = attrs.clone();
        let m = typed(22, [(DType::F64, &[x.len()])], |[x]| vec![x.with(op, &[], attrs)]);
        floats(&optimised(&m, &[("x0", &Tensor::of(&[x.len()], x.to_vec()))])[0])
    }
}

fn mixed(weight: &Tensor, a: &Tensor, b: &Tensor) -> (Model, Vec<Tensor>) {
    let m = model(13, [weight.dims(), a.dims(), b.dims()], |[w, a, b]| {
        vec![w * a + (w.constant(1.0) - w) * b]
    });
    let y = run(&m, &[weight, a, b], 1e-6);
    (m, y)
}

#[test]
fn a1_convex_combination() {
    let (a, b) = (tensor(&[2], &[1.0, 2.0]), tensor(&[2], &[3.0, 4.0]));
    let (m, y) = mixed(&tensor(&[], &[0.3]), &a, &b);
    near(&y[0], &[2.4, 3.4], 1e-6);
    assert_eq!(ops_run(&m), ["secateur.Lerp"]);
    near(&mixed(&tensor(&[2], &[0.2, 0.8]), &a, &b).1[0], &[2.6, 2.4], 1e-6);
    // On the segment, up to rounding; at its ends exactly.
    let (a, b) = (noise(&[500], 1), noise(&[500], 2));
    let w: Vec<f64> = floats(&noise(&[500], 3)).iter().map(|x| x / 2.0 + 0.5).collect();
    let y = mixed(&tensor(&[500], &w), &a, &b).1;
    for ((y, a), b) in floats(&y[0]).into_iter().zip(floats(&a)).zip(floats(&b)) {
        assert!(a.min(b) - 1e-7 <= y && y <= a.max(b) + 1e-7, "{a} {b} {y}");
    }
    assert_eq!(mixed(&tensor(&[], &[1.0]), &a, &b).1[0], a);
    assert_eq!(mixed(&tensor(&[], &[0.0]), &a, &b).1[0], b);
}

#[test]
fn a1_weights_outside_are_refused_where_they_are_checked() {
    let lerp = |checked: i64| {
        model(13, [&[2], &[2], &[2]], |x| {
            vec![private("Lerp", &x, vec![Attr::new("checked", checked)])]
        })
    };
    let (a, b) = (tensor(&[2], &[1.0, 2.0]), tensor(&[2], &[3.0, 4.0]));
    let y = |checked, weight: &Tensor| {
        let session = Session::builder(&lerp(checked)).build().unwrap();
        session.run([("x0", weight), ("x1", &a), ("x2", &b)])
    };
    for outside in [-0.1, 1.1, f64::NAN] {
        let weight = tensor(&[2], &[0.5, outside]);
        let e = y(1, &weight).unwrap_err();
        assert!(e.to_string().contains("between 0 and 1"), "{e}");
        assert!(y(0, &weight).is_ok());
    }
    near(&y(1, &tensor(&[2], &[0.0, 1.0])).unwrap()[0], &[3.0, 2.0], 0.0);
}

#[test]
fn a2_sum_of_feature_maps() {
    let m = model(13, [&[2], &[2]], |[a, b]| vec![a + b, b + a]);
    let y = run(&m, &[&tensor(&[2], &[1.0, 0.0]), &tensor(&[2], &[0.0, 1.0])], 0.0);
    near(&y[0], &[1.0, 1.0], 0.0);
    let m = model(13, [&[1, 4, 8, 8], &[1, 4, 8, 8]], |[a, b]| vec![a + b, b + a]);
    let y = run(&m, &[&noise(&[1, 4, 8, 8], 1), &noise(&[1, 4, 8, 8], 2)], 1e-6);
    assert_eq!(y[0], y[1]);
}

#[test]
fn a3_linear_layer() {
    let w: Vec<f64> = (1..=15).map(|i| f64::from(i) / 10.0).collect();
    let x = tensor(&[1, 2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let want = [1.4, 3.2, 5.0, 6.8, 8.6, 3.2, 7.7, 12.2, 16.7, 21.2];
    let m = model(13, [&[1, 2, 3]], |[x]| {
        let w = x.tensor(tensor(&[5, 3], &w));
        let turned = w.with("Transpose", &[], vec![Attr::new("perm", vec![1i64, 0])]);
        let flat = x.op("Reshape", &[ints(x, &[2, 3])]);
        vec![
            x.matmul(turned),
            flat.with("Gemm", &[w], vec![Attr::new("transB", 1i64)]),
        ]
    });
    let y = run(&m, &[&x], 1e-6);
    assert_eq!(y[0].dims(), [1, 2, 5]);
    near(&y[0], &want, 1e-6);
    near(&y[1], &want, 1e-6);
}

fn conv<'a>(x: Ex<'a>, w: Tensor, rest: Vec<Attr>) -> Ex<'a> {
    x.with("Conv", &[x.tensor(w)], rest)
}

fn pads(n: i64) -> Attr {
    Attr::new("pads", vec![n; 4])
}

#[test]
fn a4_convolution() {
    // A shifted input gives a shifted output, away from the borders.
    let (h, w) = (9, 10);
    let m = model(13, [&[1, 2, h, w]], |[x]| {
        vec![conv(x, noise(&[3, 2, 3, 3], 1), vec![pads(1)])]
    });
    let x = noise(&[1, 2, h, w], 2);
    let mut moved = floats(&x);
    moved.chunks_mut(w).for_each(|row| row.rotate_right(1));
    let y = floats(&run(&m, &[&x], 1e-5)[0]);
    let z = floats(&run(&m, &[&tensor(x.dims(), &moved)], 1e-5)[0]);
    for (row, (y, z)) in y.chunks(w).zip(z.chunks(w)).enumerate() {
        for j in 2..w - 1 {
            assert!((y[j - 1] - z[j]).abs() < 1e-6, "row {row}, column {j}");
        }
    }
    // Sizes: "same" padding, stride, none.
    let sizes = [
        (vec![pads(1)], 64),
        (vec![pads(1), Attr::new("strides", vec![2i64; 2])], 32),
        (vec![], 62),
    ];
    for (attrs, side) in sizes {
        let m = model(13, [&[1, 3, 64, 64]], |[x]| {
            vec![conv(x, noise(&[2, 3, 3, 3], 1), attrs)]
        });
        assert_eq!(
            optimised(&m, &[("x0", &noise(&[1, 3, 64, 64], 1))])[0].dims(),
            [1, 2, side, side]
        );
    }
    let parameters = noise(&[32, 3, 3, 3], 1).len() + noise(&[32], 1).len();
    assert_eq!(parameters, 896);
}

#[test]
fn a5_pooling() {
    let two = || vec![Attr::new("kernel_shape", vec![2i64; 2])];
    let m = model(13, [&[1, 1, 2, 2]], |[x]| {
        vec![
            x.with("MaxPool", &[], two()),
            x.with("AveragePool", &[], two()),
            x.op("GlobalAveragePool", &[]),
        ]
    });
    let y = run(&m, &[&tensor(&[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0])], 0.0);
    assert_eq!([&y[0], &y[1], &y[2]].map(|t| floats(t)[0]), [4.0, 2.5, 2.5]);
    let z = run(&m, &[&tensor(&[1, 1, 2, 2], &[4.0, 2.0, 1.0, 3.0])], 0.0);
    assert_eq!(y[0], z[0]);
}

#[test]
fn a6_transposed_convolution() {
    let attrs = || vec![pads(1), Attr::new("strides", vec![2i64; 2])];
    let w = noise(&[3, 2, 4, 4], 1);
    let up = |w: Tensor| {
        model(13, [&[1, 3, 5, 6]], move |[y]| {
            vec![y.with("ConvTranspose", &[y.tensor(w)], attrs())]
        })
    };
    let down = model(13, [&[1, 2, 10, 12]], |[x]| vec![conv(x, w.clone(), attrs())]);
    let (x, y) = (noise(&[1, 2, 10, 12], 2), noise(&[1, 3, 5, 6], 3));
    let (cx, ty) = (run(&down, &[&x], 1e-5), run(&up(w), &[&y], 1e-5));
    assert_eq!(ty[0].dims(), [1, 2, 10, 12]);
    let dot = |a: &Tensor, b: &Tensor| floats(a).iter().zip(floats(b)).map(|(a, b)| a * b).sum::<f64>();
    let (left, right) = (dot(&cx[0], &y), dot(&x, &ty[0]));
    assert!(
        (left - right).abs() < 1e-5 * left.abs().max(1.0),
        "{left} {right}"
    );
}

fn batch_norm(x: Ex<'_>, c: usize, attrs: Vec<Attr>, outputs: usize) -> Vec<Ex<'_>> {
    let variance: Vec<f64> = floats(&noise(&[c], 4)).iter().map(|x| x.abs() + 0.5).collect();
    let rest = [
        noise(&[c], 1),
        noise(&[c], 2),
        noise(&[c], 3),
        tensor(&[c], &variance),
    ]
    .map(|t| x.tensor(t));
    let inputs: Vec<_> = std::iter::once(x).chain(rest).map(Some).collect();
    call("BatchNormalization", &inputs, attrs, outputs)
}

#[test]
fn a7_batch_normalisation() {
    let c = 5;
    let epsilon = f64::from(1e-5f32);
    let [gamma, beta, mean] = [1, 2, 3].map(|seed| floats(&noise(&[c], seed)));
    let variance: Vec<f64> = floats(&noise(&[c], 4))
        .iter()
        .map(|x| f64::from((x.abs() + 0.5) as f32))
        .collect();
    let factor: Vec<f64> = (0..c)
        .map(|i| gamma[i] / (variance[i] + epsilon).sqrt())
        .collect();
    let shift: Vec<f64> = (0..c).map(|i| beta[i] - mean[i] * factor[i]).collect();
    let m = model(15, [&[2, c, 3, 4]], |[x]| {
        let column = |data: &[f64]| x.tensor(tensor(&[1, c, 1, 1], data));
        vec![
            batch_norm(x, c, vec![], 1)[0],
            x * column(&factor) + column(&shift),
        ]
    });
    let y = run(&m, &[&noise(&[2, c, 3, 4], 7)], 1e-6);
    assert!(apart(&y[0], &y[1]) < 1e-6);
}

#[test]
fn a7_batch_normalisation_in_training() {
    let m = model(15, [&[4, 2, 3, 4]], |[x]| {
        let one = |v: f64| x.tensor(tensor(&[2], &[v, v]));
        let inputs = [x, one(1.0), one(0.0), one(0.0), one(1.0)].map(Some);
        call(
            "BatchNormalization",
            &inputs,
            vec![Attr::new("training_mode", 1i64)],
            3,
        )
    });
    let y = run(&m, &[&noise(&[4, 2, 3, 4], 7)], 1e-5);
    for channel in 0..2 {
        let x: Vec<f64> = floats(&y[0])
            .chunks(12)
            .skip(channel)
            .step_by(2)
            .flatten()
            .copied()
            .collect();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        assert!(
            mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-3,
            "{mean} {variance}"
        );
    }
}

#[test]
fn a8_layer_normalisation() {
    let norm = |x: Ex<'_>| {
        let one = |v: f64| x.tensor(tensor(&[4], &[v; 4]));
        x.with(
            "LayerNormalization",
            &[one(1.0), one(0.0)],
            vec![Attr::new("epsilon", 1e-5f32)],
        )
        .id
    };
    let m = model(17, [&[3, 4]], |[x]| vec![Ex { id: norm(x), ..x }]);
    let rows = [
        &[1.0, 2.0, 3.0, 4.0][..],
        &[9.0, -3.0, 0.5, 2.0],
        &[0.0, 0.0, 7.0, 1.0],
    ];
    let y = run(&m, &[&tensor(&[3, 4], &rows.concat())], 1e-6);
    near(
        &tensor(&[4], &floats(&y[0])[..4]),
        &[-1.34164, -0.44721, 0.44721, 1.34164],
        1e-5,
    );
    let alone = model(17, [&[1, 4]], |[x]| vec![Ex { id: norm(x), ..x }]);
    let z = run(&alone, &[&tensor(&[1, 4], rows[0])], 1e-6);
    assert_eq!(floats(&y[0])[..4], floats(&z[0])[..]);
}

#[test]
fn a9_relu() {
    let grid: Vec<f64> = (-16..16).map(|i| f64::from(i) / 2.0).collect();
    assert_eq!((grid[0], grid[31]), (-8.0, 7.5));
    values(
        "Relu",
        vec![],
        &grid.iter().map(|&x| (x, x.max(0.0))).collect::<Vec<_>>(),
        0.0,
    );
    // The derivative is that of a step, and by convention 0 at 0.
    let away: Vec<f64> = grid.iter().copied().filter(|&x| x != 0.0).collect();
    let step = |x: f64| f64::from(x > 0.0);
    assert!(slope_error(of_doubles("Relu", vec![]), &away, step) < 1e-9);
    assert_eq!(step(0.0), 0.0);
}

#[test]
fn a10_sigmoid() {
    values(
        "Sigmoid",
        vec![],
        &[(0.0, 0.5), (-1.0, 0.268941), (2.0, 0.880797)],
        1e-6,
    );
    let f = of_doubles("Sigmoid", vec![]);
    assert!(slope_error(&f, &[0.0], |_| 0.25) < 1e-9);
    let at: Vec<f64> = (-40..=40).map(|i| f64::from(i) / 8.0).collect();
    let (up, down) = (f(&at.iter().map(|x| x + 1e-5).collect::<Vec<_>>()), f(&at));
    assert!(up.iter().zip(&down).all(|(a, b)| (a - b) / 1e-5 < 0.25 + 1e-6));
    let m = model(13, [&[8, 1]], |[x]| {
        let both = x.with(
            "Concat",
            &[x.tensor(tensor(&[8, 1], &[0.0; 8]))],
            vec![Attr::new("axis", 1i64)],
        );
        let p = both.with("Softmax", &[], vec![Attr::new("axis", 1i64)]);
        vec![
            p.op("Slice", &[ints(x, &[0]), ints(x, &[1]), ints(x, &[1])]),
            x.sigmoid(),
        ]
    });
    let y = run(&m, &[&noise(&[8, 1], 3)], 1e-6);
    assert!(apart(&y[0], &y[1]) < 1e-6);
}

#[test]
fn a11_tanh() {
    values(
        "Tanh",
        vec![],
        &[(1.0, 0.761594), (100.0, 1.0), (-100.0, -1.0)],
        1e-6,
    );
    let f = of_doubles("Tanh", vec![]);
    assert!(slope_error(&f, &[0.0], |_| 1.0) < 1e-9);
    let m = model(13, [&[9]], |[x]| vec![x.tanh(), -(-x).tanh()]);
    let y = run(&m, &[&noise(&[9], 3)], 1e-6);
    assert_eq!(y[0], y[1]);
    let x = 1f64;
    let first = (1.0 - (-2.0 * x).exp()) / (1.0 + (-2.0 * x).exp());
    let second = (x.exp() - (-x).exp()) / (x.exp() + (-x).exp());
    assert!((first - second).abs() < 1e-15);
    let overflows = (1000f64.exp() - (-1000f64).exp()) / (1000f64.exp() + (-1000f64).exp());
    assert!(overflows.is_nan());
}

#[test]
fn a12_leaky_relu() {
    values(
        "LeakyRelu",
        vec![Attr::new("alpha", 0.01f32)],
        &[(-2.0, -0.02), (2.0, 2.0)],
        1e-7,
    );
    values("LeakyRelu", vec![], &[(-2.0, -0.02)], 1e-7);
    values(
        "LeakyRelu",
        vec![Attr::new("alpha", 0.2f32)],
        &[(-2.0, -0.4)],
        1e-7,
    );
    assert!(slope_error(of_doubles("LeakyRelu", vec![]), &[-3.0, -0.5], |_| 0.01) < 1e-9);
}

#[test]
fn a13_prelu() {
    let m = model(16, [&[1, 2, 2, 2], &[2, 1, 1], &[1]], |[x, each, one]| {
        vec![x.op("PRelu", &[each]), x.op("PRelu", &[one])]
    });
    let x = tensor(&[1, 2, 2, 2], &[-2.0, 2.0, -1.0, 0.0, -2.0, -4.0, 3.0, 1.0]);
    let slope = |a: f64| tensor(&[2, 1, 1], &[a, 0.5]);
    let one = tensor(&[1], &[0.25]);
    let y = run(&m, &[&x, &slope(0.25), &one], 1e-7);
    near(&y[0], &[-0.5, 2.0, -0.25, 0.0, -1.0, -2.0, 3.0, 1.0], 1e-7);
    near(&y[1], &[-0.5, 2.0, -0.25, 0.0, -0.5, -1.0, 3.0, 1.0], 1e-7);
    // The loss with gradient 1 at x = -2 changes with the slope by min(0, x).
    let z = run(&m, &[&x, &slope(0.75), &one], 1e-7);
    near(
        &tensor(&[1], &[(floats(&z[0])[0] - floats(&y[0])[0]) / 0.5]),
        &[-2.0],
        1e-6,
    );
}

#[test]
fn a14_elu() {
    values(
        "Elu",
        vec![],
        &[(-1.0, -0.632121), (-2.0, -0.864665), (3.0, 3.0)],
        1e-6,
    );
    assert!(slope_error(of_doubles("Elu", vec![]), &[0.0], |_| 1.0) < 1e-4);
}

#[test]
fn a15_selu() {
    values(
        "Selu",
        vec![],
        &[(1.0, 1.050701), (-1.0, -1.111331), (-2.0, -1.520166)],
        2e-6,
    );
    // Twenty layers of LeCun-normal weights keep mean 0 and variance 1.
    let (n, width) = (64, 128);
    let m = model(13, [&[n, width]], |[x]| {
        vec![(0..20).fold(x, |x, layer| {
            let w = x.tensor(normal(&[width, width], (1.0 / width as f64).sqrt(), layer + 10));
            x.matmul(w).op("Selu", &[])
        })]
    });
    let y = floats(&optimised(&m, &[("x0", &normal(&[n, width], 1.0, 1))])[0]);
    let mean = y.iter().sum::<f64>() / y.len() as f64;
    let variance = y.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / y.len() as f64;
    assert!(
        mean.abs() < 0.15 && (variance - 1.0).abs() < 0.3,
        "{mean} {variance}"
    );
}

/// Normal numbers, each the sum of twelve uniform ones.
fn normal(dims: &[usize], std: f64, seed: u64) -> Tensor {
    let n: usize = dims.iter().product();
    let uniform = floats(&noise(&[12 * n], seed));
    let data: Vec<f64> = uniform
        .chunks(12)
        .map(|u| u.iter().sum::<f64>() / 2.0 * std)
        .collect();
    tensor(dims, &data)
}

#[test]
fn a16_gelu() {
    let tanh = || vec![Attr::new("approximate", "tanh")];
    values("Gelu", tanh(), &[(1.0, 0.841192), (-1.0, -0.158808)], 1e-6);
    values("Gelu", vec![], &[(1.0, 0.841345), (-1.0, -0.158655)], 1e-6);
    let grid: Vec<f64> = (-500..=500).map(|i| f64::from(i) / 100.0).collect();
    let (a, b) = (
        of_doubles("Gelu", tanh())(&grid),
        of_doubles("Gelu", vec![])(&grid),
    );
    let (gap, at) = a
        .iter()
        .zip(&b)
        .zip(&grid)
        .map(|((a, b), x)| ((a - b).abs(), x.abs()))
        .fold((0.0, 0.0), |m, x| if x.0 > m.0 { x } else { m });
    assert!(
        (gap - 4.73e-4).abs() < 1e-6 && (at - 2.70f64).abs() < 0.06,
        "{gap} at {at}"
    );
    // Each spelling is recognised as itself.
    let tanh_form = |x: Ex<'_>| {
        let cube = x * x * x;
        (x * 0.5 * (((x + cube * 0.044715) * 0.797_884_560_802_865_4).tanh() + 1.0)).id
    };
    let erf_form = |x: Ex<'_>| (x * 0.5 * ((x / std::f64::consts::SQRT_2).erf() + 1.0)).id;
    let m = model(20, [&[7]], |[x]| {
        vec![
            Ex {
                id: tanh_form(x),
                ..x
            },
            Ex { id: erf_form(x), ..x },
        ]
    });
    let y = run(
        &m,
        &[&tensor(&[7], &[-2.7, -1.0, -0.1, 0.0, 0.5, 1.0, 2.7])],
        1e-6,
    );
    assert!((apart(&y[0], &y[1]) - 4.73e-4).abs() < 2e-6);
    near(
        &tensor(&[2], &[floats(&y[0])[5], floats(&y[1])[5]]),
        &[0.841192, 0.841345],
        1e-6,
    );
}

#[test]
fn a17_swish() {
    let m = |beta: f64| model(13, [&[3]], move |[x]| vec![x * (x * beta).sigmoid()]);
    let x = tensor(&[3], &[1.0, -1.0, -2.0]);
    let y = run(&m(1.0), &[&x], 1e-6);
    near(&y[0], &[0.731059, -0.268941, -0.238406], 1e-6);
    let y = floats(&y[0]);
    assert!(y[1] < y[2]);
    assert_eq!(ops_run(&m(1.0)), ["Swish"]);
    let y = run(&m(1.5), &[&x], 1e-6);
    near(
        &y[0],
        &[1.0, -1.0, -2.0].map(|x: f64| x / (1.0 + (-1.5 * x).exp())),
        1e-6,
    );
    assert_eq!(ops_run(&m(1.5)), ["Swish"]);
}

#[test]
fn a18_mish() {
    let pairs = [
        (1.0, 0.865098),
        (-1.0, -0.303401),
        (2.0, 1.943959),
        (100.0, 100.0),
    ];
    values("Mish", vec![], &pairs, 1e-6);
    let m = model(13, [&[4]], |[x]| vec![x * x.op("Softplus", &[]).tanh()]);
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
    near(&run(&m, &[&tensor(&[4], &x)], 1e-6)[0], &y, 1e-6);
    assert_eq!(ops_run(&m), ["Mish"]);
}

#[test]
fn a19_softmax() {
    values_of("Softmax", &[2.0, 1.0, 0.1], &[0.659, 0.242, 0.099], 5e-4);
    values_of("Softmax", &[3.0, 1.0, 0.2], &[0.836, 0.113, 0.051], 5e-4);
    let e: Vec<f64> = [3.0, 1.0, 0.2].map(f64::exp).into();
    near(&tensor(&[3], &e), &[20.09, 2.72, 1.22], 5e-3);
    assert!((e.iter().sum::<f64>() - 24.03).abs() < 5e-3);
    values_of("Softmax", &[1002.0, 1001.0, 1000.1], &[0.659, 0.242, 0.099], 5e-4);
    let m = model(13, [&[5, 9]], |[x]| vec![x.op("Softmax", &[])]);
    let y = floats(&run(&m, &[&noise(&[5, 9], 1)], 1e-6)[0]);
    for row in y.chunks(9) {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-6 && row.iter().all(|&p| 0.0 < p && p < 1.0));
    }
}

/// Checks `op` of a row.
fn values_of(op: &str, x: &[f64], y: &[f64], tolerance: f64) {
    let m = model(13, [&[1, x.len()]], |[x]| vec![x.op(op, &[])]);
    near(&run(&m, &[&tensor(&[1, x.len()], x)], 1e-6)[0], y, tolerance);
}

#[test]
fn a20_argmax() {
    let m = model(13, [&[2, 3]], |[x]| {
        vec![x.with("ArgMax", &[], vec![Attr::new("axis", 1i64)])]
    });
    let y = run(&m, &[&tensor(&[2, 3], &[3.0, 1.0, 0.2, 1.0, 2.0, 2.0])], 0.0);
    assert_eq!(y[0].ints().unwrap(), [0, 1]);
}

#[test]
fn a20_hardmax() {
    values_of("Hardmax", &[3.0, 1.0, 0.2], &[1.0, 0.0, 0.0], 0.0);
    values_of("Hardmax", &[1.0, 2.0, 2.0], &[0.0, 1.0, 0.0], 0.0);
}

#[test]
fn a21_log_softmax() {
    let m = model(13, [&[1, 3]], |[x]| {
        let lse = x.with("ReduceLogSumExp", &[], vec![Attr::new("axes", vec![1i64])]);
        vec![lse, lse - x, x.op("LogSoftmax", &[])]
    });
    let y = run(&m, &[&tensor(&[1, 3], &[2.0, 1.0, 0.1])], 1e-6);
    near(&y[0], &[2.417030], 1e-6);
    near(&y[1], &[0.417030, 1.417030, 2.317030], 1e-6);
    near(&y[2], &[-0.417030, -1.417030, -2.317030], 1e-6);
}

#[test]
fn a22_softplus() {
    values(
        "Softplus",
        vec![],
        &[(0.0, std::f64::consts::LN_2), (100.0, 100.0)],
        1e-6,
    );
    let y = of_doubles("Softplus", vec![])(&[-100.0])[0];
    assert!(y > 0.0 && y < 1e-40, "{y}");
}

#[test]
fn a23_threshold_unit() {
    let m = model(13, [&[4]], |[x]| {
        let high = x.op("GreaterOrEqual", &[x.constant(0.5)]);
        vec![high.op("Where", &[x.constant(1.0), x.constant(0.0)])]
    });
    near(
        &run(&m, &[&tensor(&[4], &[-1.0, 0.49, 0.5, 1.0])], 0.0)[0],
        &[0.0, 0.0, 1.0, 1.0],
        0.0,
    );
}

#[test]
fn a24_concat() {
    // Four layers of growth 12 on 16 channels.
    let m = model(13, [&[1, 16, 4, 4]], |[x]| {
        vec![(0..4).fold(x, |x, layer| {
            let channels = 16 + 12 * layer as usize;
            let new = conv(x, noise(&[12, channels, 3, 3], layer + 1), vec![pads(1)]);
            x.with("Concat", &[new], vec![Attr::new("axis", 1i64)])
        })]
    });
    let x = noise(&[1, 16, 4, 4], 9);
    let y = run(&m, &[&x], 1e-3);
    assert_eq!(y[0].dims(), [1, 64, 4, 4]);
    assert_eq!(floats(&y[0])[..256], floats(&x)[..]);
    let (prefix, n) = (3, 5);
    let m = model(13, [&[1, prefix, 4], &[1, n, 4]], |[p, x]| {
        vec![p.with("Concat", &[x], vec![Attr::new("axis", 1i64)])]
    });
    let y = run(&m, &[&noise(&[1, prefix, 4], 1), &noise(&[1, n, 4], 2)], 0.0);
    assert_eq!(y[0].dims(), [1, prefix + n, 4]);
}

#[test]
fn a25_token_embedding() {
    let table = noise(&[30, 768], 1);
    let m = typed(13, [(DType::I64, &[9])], |[ids]| {
        vec![ids.tensor(table.clone()).op("Gather", &[ids])]
    });
    let ids = Tensor::of(&[9], vec![1i64, 5, 6, 7, 8, 5, 9, 10, 2]);
    let y = run(&m, &[&ids], 0.0);
    assert_eq!(y[0].dims(), [9, 768]);
    let rows: Vec<Vec<f64>> = floats(&y[0]).chunks(768).map(<[f64]>::to_vec).collect();
    assert_eq!(rows[1], rows[5]);
    assert_eq!(rows[1], floats(&table)[5 * 768..6 * 768]);
}

/// `PE(p, 2i) = sin(p / 10000^(2i/d))`, `PE(p, 2i + 1)` the cosine, for `n` positions from `from`.
fn positions<'a>(x: Ex<'a>, from: f64, n: usize, d: usize) -> Ex<'a> {
    let scalar = |v: f64| x.tensor(tensor(&[], &[v]));
    let p = scalar(from).op("Range", &[scalar(from + n as f64), scalar(1.0)]);
    let rates: Vec<f64> = (0..d / 2)
        .map(|i| 10000f64.powf(-2.0 * i as f64 / d as f64))
        .collect();
    let column = p.op("Unsqueeze", &[ints(x, &[1])]);
    let angles = (column * x.tensor(tensor(&[d / 2], &rates))).op("Unsqueeze", &[ints(x, &[2])]);
    let both = angles
        .op("Sin", &[])
        .with("Concat", &[angles.op("Cos", &[])], vec![Attr::new("axis", 2i64)]);
    both.op("Reshape", &[ints(x, &[n as i64, d as i64])])
}

#[test]
fn a26_positional_encoding() {
    let (n, d) = (3, 8);
    let m = model(13, [&[n, d]], |[x]| vec![x + positions(x, 1.0, n, d)]);
    let same = tensor(&[n, d], &[0.5; 24]);
    let y = floats(&run(&m, &[&same], 1e-6)[0]);
    assert!(y[..d] != y[d..2 * d] && y[d..2 * d] != y[2 * d..]);
    assert_eq!(ops_run(&m), ["Add"]);
    let want: Vec<f64> = (0..n * d)
        .map(|i| {
            let angle = (1 + i / d) as f64 / 10000f64.powf((i % d / 2 * 2) as f64 / d as f64);
            0.5 + if i % 2 == 0 { angle.sin() } else { angle.cos() }
        })
        .collect();
    near(&tensor(&[24], &y), &want, 1e-5);
    // The formula goes on beyond whatever was trained.
    let m = model(13, [&[2, d]], |[x]| vec![x + positions(x, 9_999.0, 2, d)]);
    let y = floats(&run(&m, &[&tensor(&[2, d], &[0.0; 16])], 1e-5)[0]);
    assert!(y.iter().all(|x| x.is_finite()) && y[..d] != y[d..]);
}

/// Inputs of a recurrent operator: `x: [steps, 1, inputs]`, `w`, `r`, `b`, no lengths, and the rest.
fn recurrent<'a>(
    op: &str,
    x: Ex<'a>,
    weights: [Tensor; 3],
    rest: &[Ex<'a>],
    mut attrs: Vec<Attr>,
    hidden: i64,
) -> Vec<Ex<'a>> {
    attrs.push(Attr::new("hidden_size", hidden));
    let [w, r, b] = weights.map(|t| Some(x.tensor(t)));
    let rest = rest.iter().copied().map(Some);
    let inputs: Vec<_> = [Some(x), w, r, b, None].into_iter().chain(rest).collect();
    let outputs = if op == "LSTM" { 3 } else { 2 };
    call(op, &inputs, attrs, outputs)
}

#[test]
fn a27_plain_recurrence_unrolled() {
    let (steps, inputs, hidden) = (4, 3, 5);
    let [w, u] = [noise(&[inputs, hidden], 1), noise(&[hidden, hidden], 2)];
    let b = noise(&[hidden], 3);
    let m = model(14, [&[steps, 1, inputs]], |[x]| {
        let step = |h: Ex<'_>, t: usize| {
            let at = x.op("Gather", &[x.tensor(Tensor::scalar(t as i64))]);
            (at.matmul(x.tensor(w.clone())) + h.matmul(x.tensor(u.clone())) + x.tensor(b.clone()))
                .tanh()
                .id
        };
        let zero = x.tensor(tensor(&[1, hidden], &[0.0; 5]));
        vec![(0..steps).fold(zero, |h, t| Ex { id: step(h, t), ..h })]
    });
    let x = noise(&[steps, 1, inputs], 4);
    let y = run(&m, &[&x], 1e-6);
    let mut h = vec![0.0; hidden];
    let (xs, w, u, b) = (floats(&x), floats(&w), floats(&u), floats(&b));
    for x in xs.chunks(inputs) {
        let dot = |a: &[f64], m: &[f64], j: usize| {
            a.iter()
                .enumerate()
                .map(|(i, a)| a * m[i * hidden + j])
                .sum::<f64>()
        };
        h = (0..hidden)
            .map(|j| (dot(x, &w, j) + dot(&h, &u, j) + b[j]).tanh())
            .collect();
    }
    near(&y[0], &h, 1e-6);
    let back: Vec<f64> = xs.chunks(inputs).rev().flatten().copied().collect();
    assert!(apart(&run(&m, &[&tensor(&[steps, 1, inputs], &back)], 1e-6)[0], &y[0]) > 1e-3);
}

#[test]
fn a27_plain_recurrence() {
    let (steps, inputs, hidden) = (4, 3, 5);
    let [w, u, b] = [
        noise(&[1, hidden, inputs], 1),
        noise(&[1, hidden, hidden], 2),
        noise(&[1, 2 * hidden], 3),
    ];
    let m = model(14, [&[steps, 1, inputs]], |[x]| {
        recurrent("RNN", x, [w.clone(), u.clone(), b.clone()], &[], vec![], 5)
    });
    let x = noise(&[steps, 1, inputs], 4);
    let y = run(&m, &[&x], 1e-6);
    let mut h = vec![0.0; hidden];
    let (xs, w, u, b) = (floats(&x), floats(&w), floats(&u), floats(&b));
    for x in xs.chunks(inputs) {
        let dot =
            |a: &[f64], m: &[f64], j: usize| a.iter().zip(&m[j * a.len()..]).map(|(a, m)| a * m).sum::<f64>();
        h = (0..hidden)
            .map(|j| (dot(x, &w, j) + dot(&h, &u, j) + b[j] + b[hidden + j]).tanh())
            .collect();
    }
    near(&y[1], &h, 1e-6);
}

#[test]
fn a28_lstm() {
    // Gates in the order input, output, forget, cell; the forget gate open and the input gate shut keep the cell.
    let steps = 100;
    let bias = [-100.0, 0.0, 100.0, 0.3, 0.0, 0.0, 0.0, 0.0];
    let weights = || {
        [
            noise(&[1, 4, 2], 1),
            tensor(&[1, 4, 1], &[0.0; 4]),
            tensor(&[1, 8], &bias),
        ]
    };
    let m = model(14, [&[steps, 1, 2], &[1, 1, 1], &[1, 1, 1]], |[x, h, c]| {
        recurrent("LSTM", x, weights(), &[h, c], vec![], 1)
    });
    let (h, c) = (tensor(&[1, 1, 1], &[0.0]), tensor(&[1, 1, 1], &[0.625]));
    let y = run(&m, &[&noise(&[steps, 1, 2], 5), &h, &c], 1e-6);
    near(&y[2], &[0.625], 0.0);
    // One step by the definition.
    let (n, hidden) = (3, 2);
    let [w, r, b] = [noise(&[1, 8, n], 1), noise(&[1, 8, 2], 2), noise(&[1, 16], 3)];
    let m = model(14, [&[1, 1, n], &[1, 1, 2], &[1, 1, 2]], |[x, h, c]| {
        recurrent("LSTM", x, [w.clone(), r.clone(), b.clone()], &[h, c], vec![], 2)
    });
    let [x, h, c] = [noise(&[1, 1, n], 4), noise(&[1, 1, 2], 5), noise(&[1, 1, 2], 6)];
    let y = run(&m, &[&x, &h, &c], 1e-6);
    let (x, h, c, w, r, b) = (
        floats(&x),
        floats(&h),
        floats(&c),
        floats(&w),
        floats(&r),
        floats(&b),
    );
    let dot =
        |a: &[f64], m: &[f64], j: usize| a.iter().zip(&m[j * a.len()..]).map(|(a, m)| a * m).sum::<f64>();
    let gate = |g: usize, j: usize| {
        let k = g * hidden + j;
        dot(&x, &w, k) + dot(&h, &r, k) + b[k] + b[8 + k]
    };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let cell = |j: usize| sigmoid(gate(2, j)) * c[j] + sigmoid(gate(0, j)) * gate(3, j).tanh();
    near(&y[2], &[cell(0), cell(1)], 1e-6);
    near(&y[1], &[0, 1].map(|j| sigmoid(gate(1, j)) * cell(j).tanh()), 1e-6);
}

#[test]
fn a29_gru_state_update() {
    let m = model(13, [&[3], &[3], &[3]], |[z, h, new]| {
        vec![z * h + (z.constant(1.0) - z) * new]
    });
    let y = run(
        &m,
        &[
            &tensor(&[3], &[0.3, 1.0, 0.0]),
            &tensor(&[3], &[1.0; 3]),
            &tensor(&[3], &[3.0; 3]),
        ],
        1e-6,
    );
    near(&y[0], &[2.4, 1.0, 3.0], 1e-6);
    assert_eq!(ops_run(&m), ["secateur.Lerp"]);
}

#[test]
fn a29_gru() {
    // z is how much of the old state stays; with no weights it follows from its bias, and the candidate from its own.
    for (z, want) in [(0.3f64, 2.4), (1.0, 1.0), (0.0, 3.0)] {
        let bias = (z / (1.0 - z)).ln().clamp(-100.0, 100.0);
        let weights = || {
            let bias = [bias, 0.0, 3.0, 0.0, 0.0, 0.0];
            [
                tensor(&[1, 3, 1], &[0.0; 3]),
                tensor(&[1, 3, 1], &[0.0; 3]),
                tensor(&[1, 6], &bias),
            ]
        };
        let names = Attr::new(
            "activations",
            secateur_engine::ir::AttrValue::Strings(vec![b"Sigmoid".into(), b"Relu".into()]),
        );
        let m = model(14, [&[1, 1, 1], &[1, 1, 1]], |[x, h]| {
            recurrent("GRU", x, weights(), &[h], vec![names], 1)
        });
        let one = tensor(&[1, 1, 1], &[1.0]);
        near(&run(&m, &[&one, &one], 1e-6)[1], &[want], 1e-6);
    }
}

#[test]
fn a30_gram_matrix() {
    let m = |n: usize, d: usize| {
        model(13, [&[n, d]], |[x]| {
            vec![x.matmul(x.with("Transpose", &[], vec![Attr::new("perm", vec![1i64, 0])]))]
        })
    };
    let g = floats(&run(&m(2, 2), &[&tensor(&[2, 2], &[1.0, 2.0, 3.0, 4.0])], 1e-6)[0]);
    assert_eq!(g, [5.0, 11.0, 11.0, 25.0]);
    assert_eq!(g[0] * g[3] - g[1] * g[2], 4.0);
    let x = noise(&[5, 3], 2);
    let g = floats(&run(&m(5, 3), &[&x], 1e-6)[0]);
    for i in 0..5 {
        for j in 0..5 {
            assert_eq!(g[5 * i + j], g[5 * j + i]);
        }
        let v: Vec<f64> = floats(&noise(&[5], 7 + i as u64));
        let form: f64 = (0..25).map(|k| v[k / 5] * g[k] * v[k % 5]).sum();
        assert!(form > -1e-6, "{form}");
    }
}

#[test]
fn a31_masked_fill() {
    let filled = |fill: f64| {
        typed(
            13,
            [(DType::F32, &[2, 4]), (DType::Bool, &[2, 4])],
            move |[x, mask]| vec![mask.op("Where", &[x, x.constant(fill)]).op("Softmax", &[])],
        )
    };
    let x = tensor(&[2, 4], &[1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
    let mask = Tensor::bools(&[2, 4], [true, false, true, false, false, false, false, false]);
    let y = floats(&run(&filled(-1e9), &[&x, &mask], 1e-6)[0]);
    assert!(y[1] < 1e-7 && y[3] < 1e-7 && (y[0] + y[2] - 1.0).abs() < 1e-6);
    // A row without any key: equal weights with a finite fill, none with an infinite one.
    assert_eq!(y[4..], [0.25; 4]);
    let y = floats(&run(&filled(f64::NEG_INFINITY), &[&x, &mask], 1e-6)[0]);
    assert!(y[4..].iter().all(|x| x.is_nan()));
    let half = |x: f64| floats(&Tensor::rounded(DType::F16, &[1], &[x]).unwrap())[0];
    assert_eq!((half(-1e9), half(-65504.0)), (f64::NEG_INFINITY, -65504.0));
}

#[test]
fn a32_einsum() {
    let (b, n, d, e) = (2, 64, 3, 5);
    let einsum = |x: Ex<'_>, y: Ex<'_>, equation: &str| {
        x.with("Einsum", &[y], vec![Attr::new("equation", equation)]).id
    };
    let m = model(13, [&[b, n, d], &[b, n, d], &[b, n, e]], |[q, k, v]| {
        let kv = Ex {
            id: einsum(k, v, "bnd,bne->bde"),
            ..q
        };
        let y = Ex {
            id: einsum(q, kv, "bnd,bde->bne"),
            ..q
        };
        let turned = k.with("Transpose", &[], vec![Attr::new("perm", vec![0i64, 2, 1])]);
        vec![y, q.matmul(turned.matmul(v))]
    });
    let [q, k] = [1, 2].map(|seed| noise(&[b, n, d], seed));
    let v = noise(&[b, n, e], 3);
    let y = run(&m, &[&q, &k, &v], 1e-5);
    assert!(apart(&y[0], &y[1]) < 1e-5);
    // No matrix of n by n is made.
    let session = Session::builder(&m).build().unwrap();
    let plan = session.prepare([("x0", &q), ("x1", &k), ("x2", &v)]).unwrap();
    let large = |s: &secateur_engine::plan::Step| {
        s.out_dims()
            .iter()
            .any(|d| d.iter().product::<usize>() >= b * n * n)
    };
    assert!(!plan.steps().iter().any(large));
}

#[test]
fn a33_attention_layouts() {
    let (b, n, h, s) = (2i64, 5i64, 3i64, 4i64);
    let perm = || vec![Attr::new("perm", vec![0i64, 2, 1, 3])];
    let dims = [b as usize, n as usize, (h * s) as usize];
    let m = model(13, [&dims], |[x]| {
        let split = x
            .op("Reshape", &[ints(x, &[b, -1, h, s])])
            .with("Transpose", &[], perm());
        let merged = split
            .with("Transpose", &[], perm())
            .op("Reshape", &[ints(x, &[b, -1, h * s])]);
        vec![merged, split]
    });
    let x = noise(&dims, 1);
    let y = run(&m, &[&x], 0.0);
    assert_eq!(y[0], x);
    assert_eq!(y[1].dims(), [2, 3, 5, 4]);
    // A product of triple width splits into three.
    let d = 6;
    let w = noise(&[d, 3 * d], 2);
    let m = model(13, [&[1, 5, d]], |[x]| {
        let sizes = ints(x, &[6, 6, 6]);
        let y = x.matmul(x.tensor(w.clone()));
        let mut all = call(
            "Split",
            &[Some(y), Some(sizes)],
            vec![Attr::new("axis", -1i64)],
            3,
        );
        for part in 0..3 {
            let column = |r: &[f64]| r[part * d..(part + 1) * d].to_vec();
            let own: Vec<f64> = floats(&w).chunks(3 * d).flat_map(column).collect();
            all.push(x.matmul(x.tensor(tensor(&[d, d], &own))));
        }
        all
    });
    let y = run(&m, &[&noise(&[1, 5, d], 3)], 1e-6);
    (0..3).for_each(|i| assert!(apart(&y[i], &y[i + 3]) < 1e-6));
    // Padding the sequence on both sides, and its shifted slices.
    let m = model(13, [&[1, 4, 2]], |[x]| {
        let padded = x.op("Pad", &[ints(x, &[0, 1, 0, 0, 1, 0])]);
        let shifted = |i: i64| padded.op("Slice", &[ints(x, &[i]), ints(x, &[i + 4]), ints(x, &[1])]);
        vec![shifted(0), shifted(1), shifted(2)]
    });
    let x = tensor(&[1, 4, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let y = run(&m, &[&x], 0.0);
    near(&y[0], &[0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 0.0);
    assert_eq!(y[1], x);
    near(&y[2], &[3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.0, 0.0], 0.0);
}

#[test]
fn a34_choice_of_a_token() {
    let p = tensor(&[1, 3], &[0.3, 0.5, 0.2]);
    let m = model(13, [&[1, 3]], |[p]| {
        vec![p.with("ArgMax", &[], vec![Attr::new("axis", 1i64)])]
    });
    assert_eq!(run(&m, &[&p], 0.0)[0].ints().unwrap(), [1]);
    // At random: the first token whose cumulated probability exceeds a uniform number.
    let draws = 10_000;
    let m = model(13, [&[1, 3], &[draws, 1]], |[p, u]| {
        let below = p
            .op("CumSum", &[p.tensor(Tensor::scalar(1i64))])
            .op("LessOrEqual", &[u]);
        let count = below.with("Cast", &[], vec![Attr::new("to", 1i64)]);
        vec![count.op("ReduceSum", &[ints(p, &[1])])]
    });
    let u: Vec<f64> = floats(&noise(&[draws, 1], 5))
        .iter()
        .map(|x| x / 2.0 + 0.5)
        .collect();
    let y = floats(&optimised(&m, &[("x0", &p), ("x1", &tensor(&[draws, 1], &u))])[0]);
    for (token, want) in [0.3, 0.5, 0.2].into_iter().enumerate() {
        let share = y.iter().filter(|&&t| t == token as f64).count() as f64 / draws as f64;
        assert!((share - want).abs() < 0.02, "{token}: {share}");
    }
}

/// One step of causal attention whose keys and values so far come and go as tensors.
fn decode_step(past: usize, d: usize, w: &[Tensor; 3]) -> Model {
    model(13, [&[1, d], &[past, d], &[past, d]], |[x, k, v]| {
        let [q, new_k, new_v] = [0, 1, 2].map(|i| x.matmul(x.tensor(w[i].clone())));
        let join = |old: Ex<'_>, new: Ex<'_>| old.with("Concat", &[new], vec![Attr::new("axis", 0i64)]).id;
        let (k, v) = (
            Ex {
                id: join(k, new_k),
                ..x
            },
            Ex {
                id: join(v, new_v),
                ..x
            },
        );
        let turned = k.with("Transpose", &[], vec![Attr::new("perm", vec![1i64, 0])]);
        vec![q.matmul(turned).op("Softmax", &[]).matmul(v), k, v]
    })
}

#[test]
fn a35_autoregressive_decoding() {
    let (n, d) = (6, 4);
    let w = [1, 2, 3].map(|seed| noise(&[d, d], seed));
    let full = model(13, [&[n, d]], |[x]| {
        let [q, k, v] = [0, 1, 2].map(|i| x.matmul(x.tensor(w[i].clone())));
        let mask = Tensor::bools(&[n, n], (0..n * n).map(|i| i % n <= i / n));
        let scores = q.matmul(k.with("Transpose", &[], vec![Attr::new("perm", vec![1i64, 0])]));
        let masked = x.tensor(mask).op("Where", &[scores, x.constant(-1e9)]);
        vec![masked.op("Softmax", &[]).matmul(v)]
    });
    let x = noise(&[n, d], 9);
    let want = floats(&run(&full, &[&x], 1e-5)[0]);
    let (mut k, mut v) = (tensor(&[0, d], &[]), tensor(&[0, d], &[]));
    for t in 0..n {
        let token = tensor(&[1, d], &floats(&x)[t * d..(t + 1) * d]);
        let y = run(&decode_step(t, d, &w), &[&token, &k, &v], 1e-5);
        near(&y[0], &want[t * d..(t + 1) * d], 1e-5);
        [k, v] = [y[1].clone(), y[2].clone()];
    }
}

#[test]
fn a36_identity() {
    let build = |with: bool| {
        model(13, [&[3, 4]], move |[x]| {
            let same = |x: Ex<'_>| if with { x.op("Identity", &[]).id } else { x.id };
            let y = Ex { id: same(x), ..x }.exp();
            vec![Ex { id: same(y), ..x }.tanh()]
        })
    };
    let x = noise(&[3, 4], 1);
    assert_eq!(run(&build(true), &[&x], 1e-6), run(&build(false), &[&x], 1e-6));
    assert_eq!(ops_run(&build(true)), ops_run(&build(false)));
    assert_eq!(build(true).graph.order.len(), 4);
}

#[test]
fn a37_dropout() {
    let m = model(13, [&[40]], |[x]| vec![x.op("Dropout", &[x.constant(0.4)]).exp()]);
    let x = noise(&[40], 1);
    let plain = model(13, [&[40]], |[x]| vec![x.exp()]);
    assert_eq!(run(&m, &[&x], 0.0), run(&plain, &[&x], 0.0));
    assert_eq!(ops_run(&m), ["Exp"]);
}

#[test]
fn a37_dropout_in_training() {
    let n = 20_000;
    let m = model(13, [&[n]], |[x]| {
        let training = x.tensor(Tensor::bools(&[], [true]));
        call(
            "Dropout",
            &[Some(x), Some(x.constant(0.4)), Some(training)],
            vec![Attr::new("seed", 5i64)],
            1,
        )
    });
    let y = floats(&optimised(&m, &[("x0", &tensor(&[n], &vec![1.0; n]))])[0]);
    let kept = y.iter().filter(|&&y| y != 0.0).count() as f64 / n as f64;
    assert!((kept - 0.6).abs() < 0.02, "{kept}");
    assert!((y.iter().sum::<f64>() / n as f64 - 1.0).abs() < 0.03);
}

#[test]
fn a38_kernel_trick() {
    let phi = |x: Ex<'_>| {
        let at = |i: i64| x.op("Slice", &[ints(x, &[i]), ints(x, &[i + 1])]);
        let (a, b) = (at(0), at(1));
        let axis = vec![Attr::new("axis", 0i64)];
        (a * a)
            .with("Concat", &[b * b, a * b * std::f64::consts::SQRT_2], axis)
            .id
    };
    let m = model(13, [&[2], &[2]], |[x, z]| {
        let (p, q) = (Ex { id: phi(x), ..x }, Ex { id: phi(z), ..x });
        let dot = x.matmul(z);
        vec![p.matmul(q), dot * dot]
    });
    let y = run(
        &m,
        &[&tensor(&[2], &[1.0, 2.0]), &tensor(&[2], &[3.0, 4.0])],
        1e-6,
    );
    near(&y[0], &[121.0], 1e-5);
    near(&y[1], &[121.0], 1e-5);
}
