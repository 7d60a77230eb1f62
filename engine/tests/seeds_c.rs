//! Rows C1 to C17 of the founding documents: fusions, rewrites and numerics.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

mod measure;

use measure::{apart, floats, ints, model, near, noise, ops_run, optimised, rewritten, run, tensor, typed};
use secateur_engine::expr::Ex;
use secateur_engine::ir::{Attr, DType};
use secateur_engine::opt::{Scope, Why};
use secateur_engine::{Model, Session, Tensor, opt, plan};

fn layer_norm(x: Ex<'_>, width: usize) -> Ex<'_> {
    let (scale, bias) = (x.tensor(noise(&[width], 31)), x.tensor(noise(&[width], 32)));
    x.with(
        "LayerNormalization",
        &[scale, bias],
        vec![Attr::new("epsilon", 1e-5f32)],
    )
}

fn feed_forward<'a>(x: Ex<'a>, [w1, w2]: &[Tensor; 2]) -> Ex<'a> {
    x.matmul(x.tensor(w1.clone()))
        .op("Relu", &[])
        .matmul(x.tensor(w2.clone()))
}

/// How often `rule` fired.
fn fired(m: &Model, scope: Scope, rule: &str) -> usize {
    rewritten(m, scope).1.counts().get(rule).copied().unwrap_or(0)
}

fn count(ops: &[String], op: &str) -> usize {
    ops.iter().filter(|o| *o == op).count()
}

#[test]
fn c1_residual_and_layer_norm() {
    let w = [noise(&[8, 16], 1), noise(&[16, 8], 2)];
    let post = |w: [Tensor; 2]| {
        model(17, [&[5, 8]], move |[x]| {
            vec![layer_norm(x + feed_forward(x, &w), 8)]
        })
    };
    let pre = model(17, [&[5, 8]], |[x]| vec![x + feed_forward(layer_norm(x, 8), &w)]);
    let x = noise(&[5, 8], 3);
    let (a, b) = (run(&post(w.clone()), &[&x], 1e-6), run(&pre, &[&x], 1e-6));
    assert!(apart(&a[0], &b[0]) > 0.1);
    let nothing = [tensor(&[8, 16], &[0.0; 128]), tensor(&[16, 8], &[0.0; 128])];
    let plain = model(17, [&[5, 8]], |[x]| vec![layer_norm(x, 8)]);
    let y = run(&post(nothing), &[&x], 1e-6);
    assert!(apart(&y[0], &run(&plain, &[&x], 1e-6)[0]) < 1e-6);
    // Spelled out, the normalisation is one node again, and the sum before it stays before it.
    let m = model(13, [&[5, 8]], |[x]| {
        let x = x + feed_forward(x, &w);
        let mean = |x: Ex<'_>| x.with("ReduceMean", &[], vec![Attr::new("axes", vec![-1i64])]).id;
        let centred = x - Ex { id: mean(x), ..x };
        let variance = Ex {
            id: mean(centred.op("Pow", &[x.constant(2.0)])),
            ..x
        };
        let unit = centred / (variance + f64::from(1e-5f32)).op("Sqrt", &[]);
        vec![unit * x.tensor(noise(&[8], 31)) + x.tensor(noise(&[8], 32))]
    });
    let y = run(&m, &[&x], 1e-5);
    assert!(apart(&y[0], &a[0]) < 1e-5);
    let ops = ops_run(&m);
    assert_eq!(ops.last().map(|op| &**op), Some("LayerNormalization"), "{ops:?}");
}

fn conv(x: Ex<'_>, from: usize, to: usize, side: usize, seed: u64) -> Ex<'_> {
    let w = x.tensor(noise(&[to, from, side, side], seed));
    let b = x.tensor(noise(&[to], seed + 50));
    x.with("Conv", &[w, b], vec![Attr::new("pads", vec![side as i64 / 2; 4])])
}

fn norm(x: Ex<'_>, c: usize, seed: u64) -> Ex<'_> {
    let variance: Vec<f64> = floats(&noise(&[c], seed + 3))
        .iter()
        .map(|x| x.abs() + 0.5)
        .collect();
    let gamma: Vec<f64> = floats(&noise(&[c], seed)).iter().map(|x| x - 0.3).collect();
    let parameters = [
        tensor(&[c], &gamma),
        noise(&[c], seed + 1),
        noise(&[c], seed + 2),
        tensor(&[c], &variance),
    ];
    x.op("BatchNormalization", &parameters.map(|t| x.tensor(t)))
}

fn relu(x: Ex<'_>) -> Ex<'_> {
    x.op("Relu", &[])
}

#[test]
fn c2_conv_batchnorm() {
    let dims = [1, 4, 5, 5];
    let standard = model(13, [&dims], |[x]| {
        let y = relu(norm(conv(x, 4, 4, 3, 1), 4, 2));
        vec![relu(norm(conv(y, 4, 4, 3, 3), 4, 4) + x)]
    });
    let bottleneck = model(13, [&dims], |[x]| {
        let y = relu(norm(conv(x, 4, 2, 1, 1), 2, 2));
        let y = relu(norm(conv(y, 2, 2, 3, 3), 2, 4));
        vec![relu(
            norm(conv(y, 2, 6, 1, 5), 6, 6) + norm(conv(x, 4, 6, 1, 7), 6, 8),
        )]
    });
    let pre = model(13, [&dims], |[x]| {
        let y = conv(relu(norm(x, 4, 1)), 4, 4, 3, 2);
        vec![conv(relu(norm(y, 4, 3)), 4, 4, 3, 4) + x]
    });
    let dense = model(13, [&dims], |[x]| {
        vec![(0..3).fold(x, |x, layer| {
            let channels = 4 + 2 * layer as usize;
            let new = conv(relu(norm(x, channels, layer + 1)), channels, 2, 3, layer + 20);
            x.with("Concat", &[new], vec![Attr::new("axis", 1i64)])
        })]
    });
    for (m, folded, left) in [(standard, 2, 0), (bottleneck, 4, 0), (pre, 1, 1), (dense, 0, 3)] {
        assert_eq!(fired(&m, Scope::Portable, "conv-batchnorm"), folded);
        assert_eq!(
            count(&rewritten(&m, Scope::Portable).0, "BatchNormalization"),
            left
        );
        run(&m, &[&noise(&dims, 9)], 1e-5);
    }
}

#[test]
fn convolutions_take_in_what_is_the_same_for_a_channel() {
    let dims = [1, 4, 5, 6];
    let constant = |x: Ex<'_>, dims: &[usize], seed| x.tensor(noise(dims, seed)).id;
    let after = |shape: &'static [usize], product: bool| {
        model(13, [&dims], move |[x]| {
            let y = conv(x, 4, 6, 3, 1);
            let c = Ex {
                id: constant(x, shape, 3),
                ..x
            };
            vec![relu(if product { y * c } else { y + c })]
        })
    };
    for product in [true, false] {
        for shape in [&[1usize][..], &[], &[6, 1, 1], &[1, 6, 1, 1]] {
            let m = after(shape, product);
            assert_eq!(fired(&m, Scope::Portable, "conv-affine"), 1, "{shape:?}");
            run(&m, &[&noise(&dims, 9)], 1e-5);
        }
        // Along rows, columns, or of more axes than the convolution has.
        for shape in [&[5usize, 1][..], &[6], &[1, 1, 6, 1, 1]] {
            assert_eq!(
                fired(&after(shape, product), Scope::Portable, "conv-affine"),
                0,
                "{shape:?}"
            );
        }
    }
    // Weights that two convolutions share would be copied.
    let shared = model(13, [&dims], |[x]| {
        let w = x.tensor(noise(&[4, 4, 1, 1], 5));
        let y = x.op("Conv", &[w]);
        vec![(y * 2.0).op("Conv", &[w])]
    });
    assert_eq!(fired(&shared, Scope::Portable, "conv-affine"), 0);
    let transposed = model(13, [&dims], |[x]| {
        let w = x.tensor(noise(&[4, 3, 2, 2], 5));
        let y = x.with("ConvTranspose", &[w], vec![Attr::new("strides", vec![2i64, 2])]);
        vec![norm(y, 3, 7) * 2.0]
    });
    assert_eq!(fired(&transposed, Scope::Portable, "conv-batchnorm"), 1);
    assert_eq!(fired(&transposed, Scope::Portable, "conv-affine"), 1);
    run(&transposed, &[&noise(&dims, 9)], 1e-5);
}

#[test]
fn c3_conv_relu_batchnorm_is_not_folded() {
    let dims = [1, 3, 8, 8];
    let branch = |x: Ex<'_>, seed, fold: bool| {
        let y = conv(x, 3, 4, 3, seed);
        (if fold {
            relu(norm(y, 4, seed + 1))
        } else {
            norm(relu(y), 4, seed + 1)
        })
        .id
    };
    let build = |fold: bool| {
        model(13, [&dims], move |[x]| {
            let [a, b] = [1, 5].map(|seed| Ex {
                id: branch(x, seed, fold),
                ..x
            });
            let y = conv(a + b, 4, 6, 3, 9);
            vec![if fold {
                relu(norm(y, 6, 10))
            } else {
                norm(relu(y), 6, 10)
            }]
        })
    };
    let m = build(false);
    assert_eq!(fired(&m, Scope::Engine, "conv-batchnorm"), 0);
    assert_eq!(count(&ops_run(&m), "BatchNormalization"), 3);
    let x = noise(&dims, 7);
    let y = run(&m, &[&x], 1e-5);
    // Some scales are negative, where the two orders differ even in sign.
    assert!(
        [1, 5, 9]
            .iter()
            .any(|&s| floats(&noise(&[4], s + 1)).iter().any(|g| g - 0.3 < 0.0))
    );
    assert!(apart(&y[0], &run(&build(true), &[&x], 1e-5)[0]) > 0.1);
}

#[test]
fn c4_residual_joins_the_convolution() {
    let dims = [1, 4, 6, 6];
    let standard = model(13, [&dims], |[x]| {
        let y = relu(norm(conv(x, 4, 4, 3, 1), 4, 2));
        vec![relu(norm(conv(y, 4, 4, 3, 3), 4, 4) + x)]
    });
    assert_eq!(ops_run(&standard), ["secateur.Conv", "secateur.Conv"]);
    let x = noise(&dims, 7);
    run(&standard, &[&x], 1e-6);
    // Weights of zero leave the shortcut alone.
    let zero = |x: Ex<'_>| {
        let w = x.tensor(tensor(&[4, 4, 3, 3], &[0.0; 144]));
        x.with("Conv", &[w], vec![Attr::new("pads", vec![1i64; 4])]).id
    };
    let m = model(13, [&dims], |[x]| {
        let f = Ex { id: zero(x), ..x };
        vec![relu(f + x), f + x]
    });
    let y = run(&m, &[&x], 0.0);
    let positive: Vec<f64> = floats(&x).iter().map(|x| x.max(0.0)).collect();
    near(&y[0], &positive, 0.0);
    assert_eq!(y[1], x);
}

#[test]
fn c5_dead_residual_branch_is_dropped() {
    let dims = [1, 4, 6, 6];
    let build = |beta: f64| {
        model(13, [&dims], move |[x]| {
            let before = x.exp();
            let h = relu(norm(conv(before, 4, 4, 3, 1), 4, 2));
            let w = h.tensor(tensor(&[4, 4, 3, 3], &[0.0; 144]));
            let h = h.with("Conv", &[w], vec![Attr::new("pads", vec![1i64; 4])]);
            let all = |v: f64| h.tensor(tensor(&[4], &[v; 4]));
            let h = h.op("BatchNormalization", &[all(1.5), all(beta), all(0.0), all(1.0)]);
            vec![relu(before + h).op("Neg", &[])]
        })
    };
    let m = build(0.0);
    let (ops, report) = rewritten(&m, Scope::Portable);
    assert_eq!(ops, ["Exp", "Relu", "Neg"]);
    assert_eq!(report.counts().get("zero-branch"), Some(&1));
    assert!(ops.len() < m.graph.order.len());
    let x = noise(&dims, 3);
    let direct = model(13, [&dims], |[x]| vec![relu(x.exp()).op("Neg", &[])]);
    let y = run(&m, &[&x], 1e-6);
    assert_eq!(y, run(&direct, &[&x], 1e-6));
    assert_eq!(y, measure::plain(&m, &[("x0", &x)]));
    // A shift is not nothing.
    let (ops, report) = rewritten(&build(0.5), Scope::Portable);
    assert_eq!(count(&ops, "Conv"), 2);
    let said = report
        .events
        .iter()
        .filter(|e| e.rule == "zero-branch")
        .find_map(|e| e.refused);
    assert_eq!(
        said,
        Some(Why::No("the weights of a branch are zeros, but its bias is not"))
    );
}

fn two_gemms(sizes: [usize; 3]) -> Model {
    let [a, b, c] = sizes;
    model(13, [&[2, a]], |[x]| {
        let scale = 1.0 / (b as f64).sqrt();
        let gemm = |x: Ex<'_>, from: usize, to: usize, seed| {
            let w = x.tensor(noise(&[to, from], seed));
            let attrs = vec![Attr::new("transB", 1i64), Attr::new("alpha", scale as f32)];
            x.with("Gemm", &[w, x.tensor(noise(&[to], seed + 5))], attrs).id
        };
        let h = Ex {
            id: gemm(x, a, b, 1),
            ..x
        };
        vec![Ex {
            id: gemm(h, b, c, 2),
            ..x
        }]
    })
}

#[test]
fn c6_linear_after_linear() {
    let wide = two_gemms([64, 768, 64]);
    let (ops, _) = rewritten(&wide, Scope::Portable);
    assert_eq!(ops, ["Gemm"]);
    let y = run(&wide, &[&noise(&[2, 64], 3)], 1e-5);
    assert_eq!(y[0].dims(), [2, 64]);
    let narrow = two_gemms([768, 64, 768]);
    let (ops, report) = rewritten(&narrow, Scope::Portable);
    assert_eq!(ops, ["Gemm", "Gemm"]);
    assert_eq!((2 * 768 * 64, 768 * 768), (98_304, 589_824));
    let said = report
        .events
        .iter()
        .filter(|e| e.rule == "linear-linear")
        .find_map(|e| e.refused);
    assert_eq!(said, Some(Why::No("two products are no dearer than one")));
}

/// `-log softmax(x)[class]`, spelled out or by the logarithm of the sum.
fn cross_entropy(class: i64, spelled: bool) -> Model {
    model(13, [&[1, 3]], move |[x]| {
        let axis = || vec![Attr::new("axis", 1i64)];
        let pick = |x: Ex<'_>| x.with("Gather", &[ints(x, &[class])], axis()).id;
        if spelled {
            let log = x.with("Softmax", &[], axis()).log();
            return vec![-Ex { id: pick(log), ..x }];
        }
        let lse = x.with("ReduceLogSumExp", &[], vec![Attr::new("axes", vec![1i64])]);
        vec![lse - Ex { id: pick(x), ..x }]
    })
}

#[test]
fn c7_cross_entropy_by_the_log_of_the_sum() {
    let x = tensor(&[1, 3], &[2.0, 1.0, 0.1]);
    let large = tensor(&[1, 3], &[2000.0, 1000.0, 100.0]);
    near(&run(&cross_entropy(1, false), &[&x], 1e-6)[0], &[1.417030], 1e-6);
    near(
        &run(&cross_entropy(1, false), &[&large], 1e-6)[0],
        &[1000.0],
        1e-6,
    );
    let spelled = cross_entropy(1, true);
    near(&run(&spelled, &[&x], 1e-6)[0], &[1.417030], 1e-6);
    assert_eq!(count(&rewritten(&spelled, Scope::Portable).0, "LogSoftmax"), 1);
    // As it stands the probability is too small for a float; rewritten, the loss is finite.
    let plain = floats(&measure::plain(&spelled, &[("x0", &large)])[0]);
    assert_eq!(plain, [f64::INFINITY]);
    near(&optimised(&spelled, &[("x0", &large)])[0], &[1000.0], 1e-6);
}

#[test]
fn c8_gradient_of_softmax_cross_entropy() {
    let x = tensor(&[1, 3], &[2.0, 1.0, 0.1]);
    let m = model(13, [&[1, 3]], |[x]| {
        let one_hot = x.tensor(tensor(&[1, 3], &[0.0, 1.0, 0.0]));
        let g = x.op("Softmax", &[]) - one_hot;
        vec![g, g.op("ReduceSum", &[ints(x, &[1])])]
    });
    let y = run(&m, &[&x], 1e-6);
    near(&y[0], &[0.65900, -0.75757, 0.09857], 1e-5);
    near(&y[1], &[0.0], 1e-6);
    let loss = typed(13, [(DType::F64, &[1, 3])], |[x]| {
        vec![
            -x.op("LogSoftmax", &[])
                .with("Gather", &[ints(x, &[1])], vec![Attr::new("axis", 1i64)]),
        ]
    });
    let at = |x: &[f64]| floats(&optimised(&loss, &[("x0", &Tensor::of(&[1, 3], x.to_vec()))])[0])[0];
    let slope = |i: usize| {
        let (mut up, mut down) = (floats(&x), floats(&x));
        (up[i], down[i]) = (up[i] + 1e-5, down[i] - 1e-5);
        (at(&up) - at(&down)) / 2e-5
    };
    near(&y[0], &[slope(0), slope(1), slope(2)], 1e-6);
}

#[test]
fn c9_clipped_probability() {
    let m = model(13, [&[2]], |[p]| vec![-p.op("Max", &[p.constant(1e-10)]).log()]);
    let y = run(&m, &[&tensor(&[2], &[0.0, 1e-12])], 1e-6);
    near(&y[0], &[23.02585, 23.02585], 1e-5);
    // Below the bound the clipped loss is flat; the one by the log of the sum is not.
    assert_eq!(floats(&y[0])[0], floats(&y[0])[1]);
    let by_sum = cross_entropy(2, false);
    let at = |x: f64| floats(&optimised(&by_sum, &[("x0", &tensor(&[1, 3], &[0.0, 0.0, x]))])[0])[0];
    assert!((at(-40.0) - at(-41.0) + 1.0).abs() < 1e-4);
}

#[test]
fn c10_activation_patterns() {
    type Write = for<'a> fn(Ex<'a>, Ex<'a>) -> Ex<'a>;
    const COEFFICIENT: f64 = 0.797885;
    let spelled: &[(Write, &str)] = &[
        (
            |x, _| x * 0.5 * ((x / std::f64::consts::SQRT_2).erf() + 1.0),
            "Gelu",
        ),
        (
            |x, _| x * 0.5 * (((x + x.op("Pow", &[x.constant(3.0)]) * 0.044715) * COEFFICIENT).tanh() + 1.0),
            "Gelu",
        ),
        (|x, _| x * x.sigmoid(), "Swish"),
        (|x, _| x * (x.exp() + 1.0).log().tanh(), "Mish"),
        (|x, _| x * x.op("Softplus", &[]).tanh(), "Mish"),
        // Highway: what passes through and what is carried.
        (
            |x, t| {
                let t = t.sigmoid();
                t * x.tanh() + (t.constant(1.0) - t) * x
            },
            "secateur.Lerp",
        ),
        (|x, t| t * x + (t.constant(1.0) - t) * x.exp(), "secateur.Lerp"),
    ];
    let given = [noise(&[33], 1), noise(&[33], 2)];
    for (i, (write, op)) in spelled.iter().enumerate() {
        let m = model(13, [&[33], &[33]], |[x, t]| vec![write(x, t)]);
        run(&m, &[&given[0], &given[1]], 1e-4);
        let ops = ops_run(&m);
        assert_eq!(count(&ops, op), 1, "{i}: {ops:?}");
        let rest = ops
            .iter()
            .filter(|o| !["Exp", "Sigmoid", "Tanh", op].contains(&&***o));
        assert_eq!(rest.count(), 0, "{i}: {ops:?}");
    }
    let misses: &[Write] = &[
        |x, _| x * 0.5 * (((x + x * x * x * 0.05) * COEFFICIENT).tanh() + 1.0),
        |x, _| x * 0.5 * (((x + x * x * x * 0.044715) * 0.8).tanh() + 1.0),
        |x, _| x * (x.constant(1.1) + x.sigmoid()),
        |x, t| t * x + (t.constant(0.9) - t) * x.exp(),
    ];
    for (i, write) in misses.iter().enumerate() {
        let m = model(13, [&[33], &[33]], |[x, t]| vec![write(x, t)]);
        run(&m, &[&given[0], &given[1]], 1e-6);
        let ops = ops_run(&m);
        for op in ["Gelu", "Swish", "Mish", "secateur.Lerp"] {
            assert_eq!(count(&ops, op), 0, "{i}: {ops:?}");
        }
    }
}

/// The initialisers after portable optimisation.
fn constants(m: &Model) -> Vec<Tensor> {
    let mut m = m.clone();
    opt::optimize(&mut m, Scope::Portable).unwrap();
    m.graph
        .initializers
        .iter()
        .map(|&v| m.graph.konst(v).unwrap().clone())
        .collect()
}

#[test]
fn c11_weight_normalisation_is_baked() {
    let (v, g) = (noise(&[4, 3], 1), noise(&[4, 1], 2));
    let m = model(13, [&[2, 3]], |[x]| {
        let v = x.tensor(v.clone());
        let length = v.with("ReduceL2", &[], vec![Attr::new("axes", vec![1i64])]);
        vec![x.with(
            "Gemm",
            &[x.tensor(g.clone()) * (v / length)],
            vec![Attr::new("transB", 1i64)],
        )]
    });
    let x = noise(&[2, 3], 3);
    let y = run(&m, &[&x], 1e-6);
    let baked = constants(&m);
    assert_eq!(baked.len(), 1);
    let row = |(v, g): (&[f64], f64)| {
        let length = v.iter().map(|v| v * v).sum::<f64>().sqrt();
        v.iter().map(|v| g * v / length).collect::<Vec<f64>>()
    };
    let want: Vec<f64> = floats(&v).chunks(3).zip(floats(&g)).flat_map(row).collect();
    near(&baked[0], &want, 1e-6);
    let plain = model(13, [&[2, 3]], |[x]| {
        vec![x.with(
            "Gemm",
            &[x.tensor(baked[0].clone())],
            vec![Attr::new("transB", 1i64)],
        )]
    });
    assert!(apart(&y[0], &run(&plain, &[&x], 1e-6)[0]) < 1e-6);
}

/// `w` divided by its largest singular value, found by `steps` of power iteration.
fn spectral<'a>(x: Ex<'a>, w: &Tensor, steps: usize) -> Ex<'a> {
    let turn = |x: Ex<'a>| x.with("Transpose", &[], vec![Attr::new("perm", vec![1i64, 0])]);
    let unit = |x: Ex<'a>| x / x.with("ReduceL2", &[], vec![Attr::new("axes", vec![0i64, 1])]);
    let rows = w.dims()[0];
    let w = x.tensor(w.clone());
    let start = x.tensor(tensor(&[rows, 1], &vec![1.0; rows]));
    let (u, v) = (0..steps).fold((start, start), |(u, _), _| {
        let v = unit(turn(w).matmul(u));
        (unit(w.matmul(v)), v)
    });
    w / turn(u).matmul(w).matmul(v)
}

#[test]
fn c12_spectral_normalisation_is_baked() {
    let build = |w: Tensor, steps| {
        let n = w.dims()[1];
        model(13, [&[1, n]], move |[x]| {
            vec![x.with("Gemm", &[spectral(x, &w, steps)], vec![Attr::new("transB", 1i64)])]
        })
    };
    let m = build(tensor(&[2, 2], &[3.0, 0.0, 0.0, 1.0]), 20);
    run(&m, &[&noise(&[1, 2], 1)], 1e-6);
    let baked = constants(&m);
    assert_eq!(baked.len(), 1);
    near(&baked[0], &[1.0, 0.0, 0.0, 1.0 / 3.0], 1e-6);
    // The largest singular value of what was baked is 1.
    let w = &constants(&build(noise(&[4, 3], 2), 60))[0];
    let again = &constants(&build(w.clone(), 60))[0];
    assert!(apart(w, again) < 1e-3);
}

#[test]
fn c13_stacked_small_kernels() {
    let side = 15;
    let stack = |layers: usize| {
        model(13, [&[1, 1, side, side]], move |[x]| {
            let ones = x.tensor(tensor(&[1, 1, 3, 3], &[1.0; 9]));
            vec![(0..layers).fold(x, |x, _| {
                x.with("Conv", &[ones], vec![Attr::new("pads", vec![1i64; 4])])
            })]
        })
    };
    let mut impulse = vec![0.0; side * side];
    impulse[side * side / 2] = 1.0;
    for (layers, field) in [(2, 5), (3, 7)] {
        let y = floats(&run(&stack(layers), &[&tensor(&[1, 1, side, side], &impulse)], 1e-5)[0]);
        let rows = y.chunks(side).filter(|row| row.iter().any(|&y| y != 0.0)).count();
        let columns = (0..side)
            .filter(|&j| y.chunks(side).any(|row| row[j] != 0.0))
            .count();
        assert_eq!((rows, columns), (field, field));
        assert!(layers * 9 < field * field);
    }
}

/// The numbers that training would change: all initialisers but running statistics.
fn parameters(m: &Model) -> usize {
    let g = &m.graph;
    let statistics: Vec<_> = g
        .iter()
        .filter(|(_, n)| n.is("BatchNormalization"))
        .flat_map(|(_, n)| n.inputs[3..].iter().copied().flatten())
        .collect();
    let learnt = g.initializers.iter().filter(|v| !statistics.contains(v));
    learnt.map(|&v| g.konst(v).unwrap().len()).sum()
}

#[test]
fn c14_bottleneck_reduces_compute() {
    let dims = [1, 256, 2, 2];
    let bottleneck = model(13, [&dims], |[x]| {
        let y = relu(norm(conv(x, 256, 64, 1, 1), 64, 2));
        let y = relu(norm(conv(y, 64, 64, 3, 3), 64, 4));
        vec![relu(norm(conv(y, 64, 256, 1, 5), 256, 6) + x)]
    });
    let standard = model(13, [&dims], |[x]| {
        let y = relu(norm(conv(x, 256, 256, 3, 1), 256, 2));
        vec![relu(norm(conv(y, 256, 256, 3, 3), 256, 4) + x)]
    });
    assert_eq!(
        (parameters(&bottleneck), parameters(&standard)),
        (70_784, 1_181_184)
    );
    let macs = |m: &Model| -> i64 {
        let facts = opt::infer::infer(m, &Default::default()).unwrap();
        m.graph
            .iter()
            .map(|(id, _)| plan::macs(m, &facts, id).known().unwrap())
            .sum()
    };
    assert!(10 * macs(&bottleneck) < macs(&standard));
    let y = optimised(&bottleneck, &[("x0", &noise(&dims, 7))]);
    assert_eq!(y[0].dims(), dims);
}

#[test]
fn c15_inference_needs_less_memory_than_all_activations() {
    let (n, width, layers) = (16, 32, 20);
    let m = model(13, [&[n, width]], |[x]| {
        vec![(0..layers).fold(x, |x, i| {
            x.matmul(x.tensor(noise(&[width, width], i + 1))).exp().tanh()
        })]
    });
    let session = Session::builder(&m).threads(1).build().unwrap();
    let plan = session.plan(&[vec![n, width]]).unwrap();
    let activations: usize = plan
        .steps()
        .iter()
        .flat_map(|s| s.out_dims())
        .map(|d| 4 * d.iter().product::<usize>())
        .sum();
    assert!(
        plan.peak_bytes() < activations / 2,
        "{} of {activations}",
        plan.peak_bytes()
    );
}

#[test]
fn c16_heads_are_independent() {
    let (h, n, d) = (8, 24, 16);
    let dims = [1, h, n, d];
    let m = model(13, [&dims, &dims, &dims], |[q, k, v]| {
        let turned = k.with("Transpose", &[], vec![Attr::new("perm", vec![0i64, 1, 3, 2])]);
        let w = (q.matmul(turned) * 0.25).with("Softmax", &[], vec![Attr::new("axis", -1i64)]);
        vec![w.matmul(v)]
    });
    let x = [1, 2, 3].map(|seed| noise(&dims, seed));
    let on = |threads: usize, m: &Model, x: &[Tensor; 3]| {
        let session = Session::builder(m).threads(threads).build().unwrap();
        measure::tensors(
            session
                .run([("x0", &x[0]), ("x1", &x[1]), ("x2", &x[2])])
                .unwrap(),
        )
    };
    let together = on(1, &m, &x);
    for threads in [2, 3, 8] {
        assert_eq!(on(threads, &m, &x), together);
    }
    let each = floats(&together[0]);
    let one = [1, 1, n, d];
    let single = model(13, [&one, &one, &one], |[q, k, v]| {
        let turned = k.with("Transpose", &[], vec![Attr::new("perm", vec![0i64, 1, 3, 2])]);
        let w = (q.matmul(turned) * 0.25).with("Softmax", &[], vec![Attr::new("axis", -1i64)]);
        vec![w.matmul(v)]
    });
    for head in 0..h {
        let part = |t: &Tensor| tensor(&one, &floats(t)[head * n * d..(head + 1) * n * d]);
        let y = on(2, &single, &x.each_ref().map(part));
        near(&y[0], &each[head * n * d..(head + 1) * n * d], 1e-6);
    }
}

/// Attention of `b` sequences padded to `n`, whose true lengths are an input.
fn padded(b: usize, n: usize, d: usize) -> Model {
    typed(
        13,
        [(DType::F32, &[b, n, d]), (DType::I64, &[b])],
        |[x, lengths]| {
            let turned = x.with("Transpose", &[], vec![Attr::new("perm", vec![0i64, 2, 1])]);
            let places = x.tensor(Tensor::of(&[1, 1, n], (0..n as i64).collect::<Vec<i64>>()));
            let mask = places.op("Less", &[lengths.op("Reshape", &[ints(x, &[-1, 1, 1])])]);
            let scores = x.matmul(turned) * (1.0 / (d as f64).sqrt());
            let filled = mask.op("Where", &[scores, x.constant(-1e9)]);
            vec![
                filled
                    .with("Softmax", &[], vec![Attr::new("axis", -1i64)])
                    .matmul(x),
            ]
        },
    )
}

#[test]
fn c17_padded_batches() {
    let (lengths, n, d) = ([3usize, 6, 1], 6, 4);
    let x = noise(&[3, n, d], 1);
    let given = Tensor::of(&[3], lengths.map(|l| l as i64).to_vec());
    let m = padded(3, n, d);
    let y = floats(&run(&m, &[&x, &given], 1e-5)[0]);
    let macs = |m: &Model| -> i64 {
        let facts = opt::infer::infer(m, &Default::default()).unwrap();
        m.graph
            .iter()
            .map(|(id, _)| plan::macs(m, &facts, id).known().unwrap())
            .sum()
    };
    let mut work = 0;
    for (i, &len) in lengths.iter().enumerate() {
        let own = tensor(&[1, len, d], &floats(&x)[i * n * d..(i * n + len) * d]);
        let m = padded(1, len, d);
        let z = run(&m, &[&own, &Tensor::of(&[1], vec![len as i64])], 1e-5);
        near(&z[0], &y[i * n * d..(i * n + len) * d], 1e-5);
        work += macs(&m);
    }
    let squares: usize = lengths.iter().map(|l| l * l).sum();
    assert_eq!(work * (3 * n * n) as i64, macs(&m) * squares as i64);
}
