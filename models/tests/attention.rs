//! The attention family, row by row, against dense masked attention computed in `f64`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

#[path = "../../engine/tests/measure/mod.rs"]
mod measure;

use measure::{apart, floats, near, noise, ops_run, run, run_named, tensor, typed};
use secateur_engine::expr::{Builder, Ex};
use secateur_engine::ir::{Attr, Constant, DType, Dim, Type, ValueId};
use secateur_engine::{Model, Session, Tensor, onnx, opt, plan};
use secateur_models::attention::{
    ATTENTIONS, AttentionError, Class, Heads, Mask, Setting, additive, cluster, clustered, compressed, cross,
    kind, masked, segments,
};
use secateur_models::blocks::{softmax, transpose};
use secateur_models::{Draft, Random};

/// Rows.
type Rows = Vec<Vec<f64>>;

/// Dense attention over the pairs that `allows` has: the results and the weights.
fn dense(q: &Rows, k: &Rows, v: &Rows, allows: impl Fn(usize, usize) -> bool) -> (Rows, Rows) {
    let scale = 1.0 / (k[0].len() as f64).sqrt();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let row = |i: usize| {
        let score = |j: usize| match allows(i, j) {
            true => dot(&q[i], &k[j]) * scale,
            false => f64::NEG_INFINITY,
        };
        let s: Vec<f64> = (0..k.len()).map(score).collect();
        let most = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let e: Vec<f64> = s.iter().map(|s| (s - most).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.into_iter().map(|e| e / sum).collect::<Vec<f64>>()
    };
    let weights: Rows = (0..q.len()).map(row).collect();
    (mix(&weights, v), weights)
}

/// `a b`
fn mix(a: &Rows, b: &Rows) -> Rows {
    let column = |w: &[f64], e: usize| w.iter().zip(b).map(|(w, b)| w * b[e]).sum::<f64>();
    a.iter()
        .map(|w| (0..b[0].len()).map(|e| column(w, e)).collect())
        .collect()
}

fn rows(t: &Tensor) -> Rows {
    let width = *t.dims().last().unwrap();
    floats(t).chunks(width).map(<[f64]>::to_vec).collect()
}

fn flat(rows: &Rows) -> Vec<f64> {
    rows.concat()
}

fn weight(m: &Model, name: &str) -> Tensor {
    let v = m.graph.find(name).unwrap_or_else(|| panic!("no {name}"));
    m.graph.konst(v).unwrap().clone()
}

fn linear(x: &Rows, m: &Model, name: &str) -> Rows {
    let bias = floats(&weight(m, &format!("{name}.bias")));
    let mut y = mix(x, &rows(&weight(m, &format!("{name}.weight"))));
    y.iter_mut()
        .for_each(|y| y.iter_mut().zip(&bias).for_each(|(y, b)| *y += b));
    y
}

/// Queries, keys and values of one head of layer `layer`.
fn head(m: &Model, x: &Rows, s: &Setting, layer: usize, head: usize) -> [Rows; 3] {
    let qkv = linear(x, m, &format!("attention.{layer}.qkv"));
    [0, 1, 2].map(|part| {
        let from = part * s.width + head * s.size();
        qkv.iter()
            .map(|row| row[from..from + s.size()].to_vec())
            .collect()
    })
}

/// What a stack of attention layers gives if `attend(layer, q, k, v)` is what each head does.
fn stacked(m: &Model, x: &Tensor, s: &Setting, attend: impl Fn(usize, [Rows; 3]) -> Rows) -> Vec<f64> {
    let n = x.dims()[1];
    let batch = |mut x: Rows| {
        for layer in 0..s.layers {
            let mut all: Rows = vec![vec![]; n];
            for h in 0..s.heads {
                let y = attend(layer, head(m, &x, s, layer, h));
                all.iter_mut().zip(y).for_each(|(all, y)| all.extend(y));
            }
            x = linear(&all, m, &format!("attention.{layer}.out"));
        }
        x
    };
    rows(x).chunks(n).flat_map(|x| flat(&batch(x.to_vec()))).collect()
}

/// Checks model `m` of setting `s` against dense attention with `mask`.
fn parity(m: &Model, s: &Setting, mask: &Mask) {
    let x = noise(&[2, s.length, s.width], 11);
    let y = run_named(m, &[("x", &x)], 1e-5);
    let want = stacked(m, &x, s, |_, [q, k, v]| {
        dense(&q, &k, &v, |i, j| mask.allows(i, j)).0
    });
    near(&y[0], &want, 1e-5);
}

/// Checks the variant `name`, and that the mask is there once for two layers and all heads.
fn mask_parity(name: &str, s: &Setting, mask: &Mask) {
    let m = (kind(name).unwrap().build)(s).unwrap();
    let truths = |v: &&ValueId| m.graph.konst(**v).unwrap().dtype() == DType::Bool;
    let masks: Vec<_> = m.graph.initializers.iter().filter(truths).collect();
    assert_eq!(masks.len(), 1, "{name}");
    assert_eq!(m.graph.konst(*masks[0]), Some(&mask.tensor()), "{name}");
    parity(&m, s, mask);
}

fn two_layers() -> Setting {
    Setting {
        layers: 2,
        width: 8,
        ..Setting::default()
    }
}

/// A model of what one head does, with inputs `x0`, `x1`, `x2` of `[1, 1, n, d]` for queries, keys and values.
fn bare<const N: usize>(
    sizes: [(usize, usize); N],
    write: impl for<'a> FnOnce([Ex<'a>; N]) -> Vec<Ex<'a>>,
) -> Model {
    let dims = sizes.map(|(n, d)| [1, 1, n, d]);
    let mut i = 0;
    let inputs = dims.each_ref().map(|d| {
        i += 1;
        (DType::F32, &d[..])
    });
    assert_eq!(i, N);
    typed(17, inputs, write)
}

fn one(rows: &[&[f64]]) -> Tensor {
    tensor(&[1, 1, rows.len(), rows[0].len()], &rows.concat())
}

fn qkv<'a>([q, k, v]: [Ex<'a>; 3], size: usize) -> Heads<'a> {
    Heads { q, k, v, size }
}

const EYE: &[&[f64]] = &[&[1.0, 0.0], &[0.0, 1.0]];
const V: &[&[f64]] = &[&[1.0, 2.0], &[3.0, 4.0]];

fn noisy(n: usize, d: usize, seed: u64) -> Tensor {
    noise(&[1, 1, n, d], seed)
}

/// Multiply-adds of the matrix products of `m`.
fn macs(m: &Model) -> i64 {
    let facts = opt::infer::infer(m, &Default::default()).unwrap();
    let one = |(id, _): (_, &_)| plan::macs(m, &facts, id);
    let all = m.graph.iter().map(one).fold(Dim::Known(0), |all, d| all + d);
    all.known().unwrap()
}

#[test]
fn b1_projections_in_one_product() {
    let s = Setting::default();
    let m = (kind("dense").unwrap().build)(&s).unwrap();
    let x = noise(&[1, 5, s.width], 3);
    let (w, b) = (
        weight(&m, "attention.0.qkv.weight"),
        weight(&m, "attention.0.qkv.bias"),
    );
    let together = measure::model(17, [&[1, 5, s.width]], |[x]| {
        let y = secateur_models::blocks::linear(x, x.tensor(w.clone()), x.tensor(b.clone()));
        secateur_models::blocks::split(y, &[s.width; 3], -1)
    });
    let apart_ = measure::model(17, [&[5, s.width]], |[x]| {
        let part = |i: usize| {
            let column = |r: &Vec<f64>| r[i * s.width..(i + 1) * s.width].to_vec();
            let w_: Vec<f64> = rows(&w).iter().flat_map(column).collect();
            let b_ = &floats(&b)[i * s.width..(i + 1) * s.width];
            let (w, b) = (tensor(&[s.width, s.width], &w_), tensor(&[s.width], b_));
            x.op("Gemm", &[x.tensor(w), x.tensor(b)])
        };
        vec![part(0), part(1), part(2)]
    });
    let fused = run(&together, &[&x], 1e-6);
    let three = run(&apart_, &[&x.reshaped(&[5, s.width]).unwrap()], 1e-6);
    for (a, b) in fused.iter().zip(&three) {
        near(a, &floats(b), 1e-6);
    }
    // Without its row of weights, an element of a token has no influence on the queries.
    let mut zeroed = floats(&w);
    zeroed[2 * 3 * s.width..][..s.width].fill(0.0);
    let zeroed = tensor(w.dims(), &zeroed);
    let m = measure::model(17, [&[1, 5, s.width]], |[x]| {
        vec![secateur_models::blocks::split(x.matmul(x.tensor(zeroed.clone())), &[s.width; 3], -1)[0]]
    });
    let mut other = floats(&x);
    other.iter_mut().skip(2).step_by(s.width).for_each(|x| *x += 1.0);
    assert_eq!(run(&m, &[&x], 1e-6), run(&m, &[&tensor(x.dims(), &other)], 1e-6));
}

#[test]
fn b2_scaled_dot_product() {
    let m = bare([(2, 2); 3], |x| {
        let h = qkv(x, 2);
        vec![h.attend(None), h.weights(None)]
    });
    let y = run(&m, &[&one(EYE), &one(EYE), &one(V)], 1e-6);
    near(&y[0], &[1.660477, 2.660477, 2.339523, 3.339523], 1e-6);
    near(&y[1], &[0.66976, 0.33024, 0.33024, 0.66976], 1e-5);
    // Masked, and every result between the least and the greatest value.
    let (n, d) = (9, 5);
    let mask = Mask::causal(n);
    let m = bare([(n, d); 3], |x| {
        let h = qkv(x, d);
        let mask = h.q.tensor(mask.tensor());
        vec![h.attend(Some(mask)), h.weights(Some(mask)), h.attend(None)]
    });
    let [q, k, v] = [1, 2, 3].map(|seed| noisy(n, d, seed));
    let y = run(&m, &[&q, &k, &v], 1e-5);
    let (q, k, v) = (rows(&q), rows(&k), rows(&v));
    let (out, weights) = dense(&q, &k, &v, |i, j| j <= i);
    near(&y[0], &flat(&out), 1e-5);
    near(&y[1], &flat(&weights), 1e-5);
    near(&y[2], &flat(&dense(&q, &k, &v, |_, _| true).0), 1e-5);
    for row in rows(&y[1]) {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    }
    for row in rows(&y[2]) {
        for (e, y) in row.iter().enumerate() {
            let column = || v.iter().map(|v| v[e]);
            let (low, high) = (
                column().fold(f64::MAX, f64::min),
                column().fold(f64::MIN, f64::max),
            );
            assert!(low - 1e-6 <= *y && *y <= high + 1e-6, "{low} {y} {high}");
        }
    }
}

#[test]
fn b2_scaled_dot_product_in_half_precision() {
    let (n, d) = (6, 4);
    let dims = [1, 1, n, d];
    let m = typed(17, [(DType::F16, &dims[..]); 3], |x| vec![qkv(x, d).attend(None)]);
    let half = |seed| Tensor::rounded(DType::F16, &dims, &floats(&noisy(n, d, seed))).unwrap();
    let [q, k, v] = [1, 2, 3].map(half);
    let y = measure::optimised(&m, &[("x0", &q), ("x1", &k), ("x2", &v)]);
    let want = dense(&rows(&q), &rows(&k), &rows(&v), |_, _| true).0;
    near(&y[0], &flat(&want), 2e-3);
}

#[test]
fn b3_columns_instead_of_rows() {
    let columns = |axis: i64| {
        bare([(2, 2); 3], |[q, k, v]| {
            let scores = transpose(k, &[0, 1, 3, 2]).matmul(q) * (1.0 / 2f64.sqrt());
            let a = scores.with("Softmax", &[], vec![Attr::new("axis", axis)]);
            vec![v.matmul(a), a]
        })
    };
    let by_rows = bare([(2, 2); 3], |x| vec![qkv(x, 2).attend(None)]);
    let t = |x: &[&[f64]]| one(&[&[x[0][0], x[1][0]], &[x[0][1], x[1][1]]]);
    let q: &[&[f64]] = &[&[1.0, 0.0], &[2.0, 0.0]];
    let given = [&t(q), &t(EYE), &t(V)];
    // The keys are the rows of KᵀQ: the softmax runs along the columns.
    let right = run(&columns(2), &given, 1e-6);
    let row_form = run(&by_rows, &[&one(q), &one(EYE), &one(V)], 1e-6);
    let o = rows(&row_form[0]);
    near(&right[0], &[o[0][0], o[1][0], o[0][1], o[1][1]], 1e-6);
    near(&right[1], &[0.6698, 0.8044, 0.3302, 0.1956], 1e-4);
    let wrong = run(&columns(3), &given, 1e-6);
    near(&wrong[1], &[0.3302, 0.6698, 0.5, 0.5], 1e-4);
}

#[test]
fn b4_multi_head() {
    let s = Setting {
        length: 7,
        width: 12,
        heads: 3,
        layers: 2,
        ..Setting::default()
    };
    for heads in [1, 3] {
        let s = Setting { heads, ..s.clone() };
        let m = (kind("dense").unwrap().build)(&s).unwrap();
        parity(&m, &s, &Mask::full(s.length));
    }
    assert_eq!([512 / 8, 12288 / 96], [64, 128]);
    let size = |width, heads| {
        Setting {
            width,
            heads,
            ..s.clone()
        }
        .size()
    };
    assert_eq!([size(512, 8), size(12288, 96)], [64, 128]);
    let large = Setting {
        width: 768,
        heads: 12,
        ..Setting::default()
    };
    let m = (kind("dense").unwrap().build)(&large).unwrap();
    let named = |v: &&ValueId| m.graph[**v].name.starts_with("attention.");
    let parameters = m
        .graph
        .initializers
        .iter()
        .filter(named)
        .map(|&v| m.graph.konst(v).unwrap().len());
    assert_eq!(parameters.sum::<usize>(), 2_362_368);
    assert_eq!(4 * (768 * 768 + 768), 2_362_368);
}

#[test]
fn b5_cross_attention() {
    let s = two_layers();
    let m = cross("cross", &s).unwrap();
    let (x, memory) = (noise(&[2, 3, s.width], 1), noise(&[2, 5, s.width], 2));
    let y = run_named(&m, &[("x", &x), ("memory", &memory)], 1e-5);
    assert_eq!(y[0].dims(), [2, 3, s.width]);
    let mut turned = rows(&memory);
    turned.chunks_mut(5).for_each(|c| c.rotate_left(2));
    let turned = tensor(memory.dims(), &flat(&turned));
    let z = run_named(&m, &[("x", &x), ("memory", &turned)], 1e-5);
    assert!(apart(&y[0], &z[0]) < 1e-6);
}

#[test]
fn b6_additive() {
    let build = |d_q: usize, n: usize, d_k: usize, w: [Tensor; 3]| {
        measure::model(17, [&[1, d_q], &[1, n, d_k]], move |[q, k]| {
            let (y, weights) = additive(q, k, k, w.map(|w| q.tensor(w)), None);
            vec![y, weights]
        })
    };
    let eye = || tensor(&[2, 2], &[1.0, 0.0, 0.0, 1.0]);
    let m = build(2, 2, 2, [eye(), eye(), tensor(&[2, 1], &[1.0, 1.0])]);
    let keys = tensor(&[1, 2, 2], &[0.0, 0.0, 1.0, 1.0]);
    let y = run(&m, &[&tensor(&[1, 2], &[0.0, 0.0]), &keys], 1e-6);
    near(&y[1], &[0.178993, 0.821007], 1e-6);
    near(&y[0], &[0.821007, 0.821007], 1e-6);
    assert!((2.0 * 1f64.tanh() - 1.523188).abs() < 1e-6);
    // Query and key of two sizes.
    let (d_q, n, d_k, a) = (3, 4, 5, 6);
    let w = [noise(&[d_q, a], 1), noise(&[d_k, a], 2), noise(&[a, 1], 3)];
    let (q, k) = (noise(&[1, d_q], 4), noise(&[1, n, d_k], 5));
    let y = run(&build(d_q, n, d_k, w.clone()), &[&q, &k], 1e-6);
    let hq = mix(&rows(&q), &rows(&w[0]));
    let hidden = |k: &Vec<f64>| {
        k.iter()
            .zip(&hq[0])
            .map(|(k, q)| (q + k).tanh())
            .collect::<Vec<f64>>()
    };
    let hidden: Rows = mix(&rows(&k), &rows(&w[1])).iter().map(hidden).collect();
    let e: Vec<f64> = flat(&mix(&hidden, &rows(&w[2])))
        .iter()
        .map(|e| e.exp())
        .collect();
    let weights: Vec<f64> = e.iter().map(|x| x / e.iter().sum::<f64>()).collect();
    near(&y[1], &weights, 1e-6);
    near(&y[0], &mix(&vec![weights], &rows(&k))[0], 1e-6);
}

fn phi(x: &Rows) -> Rows {
    let elu = |x: &f64| if *x > 0.0 { x + 1.0 } else { x.exp() };
    x.iter().map(|r| r.iter().map(elu).collect()).collect()
}

fn products(q: &Rows, k: &Rows) -> Rows {
    let dot = |q: &[f64], k: &[f64]| q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>();
    q.iter().map(|q| k.iter().map(|k| dot(q, k)).collect()).collect()
}

fn normalised(mut w: Rows) -> Rows {
    for row in &mut w {
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|w| *w /= sum);
    }
    w
}

#[test]
fn b7_linear_attention() {
    let build = |n_q: usize, n: usize, d: usize| {
        bare([(n_q, d), (n, d), (n, d)], |x| {
            let r = qkv(x, d).linear();
            vec![r.mean(), r.numerator, r.denominator]
        })
    };
    let y = run(&build(1, 2, 2), &[&one(&[&[1.0, 0.0]]), &one(EYE), &one(V)], 1e-6);
    // Without the normaliser the result is a sum, not a mean: the founding code's form.
    near(&y[1], &[17.0, 26.0], 1e-6);
    near(&y[2], &[9.0], 1e-6);
    near(&y[0], &[17.0 / 9.0, 26.0 / 9.0], 1e-6);
    near(&y[0], &[1.8889, 2.8889], 1e-4);
    // The weights of the two values are 5 and 4.
    let w = products(
        &phi(&vec![vec![1.0, 0.0]]),
        &phi(&vec![vec![1.0, 0.0], vec![0.0, 1.0]]),
    );
    assert_eq!(w, [[5.0, 4.0]]);
    let (n, d) = (12, 6);
    let [q, k, v] = [1, 2, 3].map(|seed| noisy(n, d, seed));
    let y = run(&build(n, n, d), &[&q, &k, &v], 1e-5);
    let w = products(&phi(&rows(&q)), &phi(&rows(&k)));
    assert!(flat(&w).iter().all(|&w| w > 0.0));
    near(&y[1], &flat(&mix(&w, &rows(&v))), 1e-5);
    near(&y[0], &flat(&mix(&normalised(w), &rows(&v))), 1e-5);
    // Work grows with the number of tokens; that of dense attention with its square.
    let dense = |n: usize| macs(&bare([(n, 8); 3], |x| vec![qkv(x, 8).attend(None)]));
    for n in [1024, 2048, 4096] {
        assert_eq!(macs(&build(2 * n, 2 * n, 8)), 2 * macs(&build(n, n, 8)));
        assert_eq!(dense(2 * n), 4 * dense(n));
    }
}

fn local_model(n: usize, d: usize, radius: usize) -> Model {
    bare([(n, d); 3], |x| {
        let h = qkv(x, d);
        vec![h.local(n, radius, h.q.tensor(Mask::inside(n, radius).tensor()))]
    })
}

#[test]
fn b8_local_window() {
    let (n, d) = (11, 4);
    let [q, k, v] = [1, 2, 3].map(|seed| noisy(n, d, seed));
    let y = run(&local_model(n, d, 3), &[&q, &k, &v], 1e-5);
    let band = Mask::band(n, 3);
    let want = dense(&rows(&q), &rows(&k), &rows(&v), |i, j| band.allows(i, j)).0;
    near(&y[0], &flat(&want), 1e-5);
    // A window of 2n-1 and more is full attention.
    let full = dense(&rows(&q), &rows(&k), &rows(&v), |_, _| true).0;
    for radius in [n - 1, n + 2] {
        let y = run(&local_model(n, d, radius), &[&q, &k, &v], 1e-5);
        near(&y[0], &flat(&full), 1e-5);
    }
    // The founding code ran its softmax over one element, so that it averaged the values whatever q and k were, with zeros
    // beyond the ends. Here equal scores give the mean of the values that exist, and others other weights.
    let v = one(&[&[1.0], &[2.0], &[3.0], &[4.0]]);
    let slip = [1.0, 2.0, 3.0, 7.0 / 3.0];
    let softmax_of_one: Vec<f64> = (0..4i64)
        .map(|i| {
            (i - 1..=i + 1)
                .map(|j| if (0..4).contains(&j) { (j + 1) as f64 } else { 0.0 })
                .sum::<f64>()
                / 3.0
        })
        .collect();
    assert!(softmax_of_one.iter().zip(slip).all(|(a, b)| (a - b).abs() < 1e-3));
    let zeros = one(&[&[0.0][..]; 4]);
    let y = run(&local_model(4, 1, 1), &[&zeros, &zeros, &v], 1e-6);
    near(&y[0], &[1.5, 2.0, 3.0, 3.5], 1e-6);
    let k = one(&[&[3.0], &[0.0], &[0.0], &[0.0]]);
    let z = run(&local_model(4, 1, 1), &[&one(&[&[1.0][..]; 4]), &k, &v], 1e-6);
    assert!(apart(&y[0], &z[0]) > 0.1);
}

#[test]
fn b9_truncated() {
    let (n, d) = (16, 3);
    assert_eq!(Mask::band(n, 1).pairs(), 46);
    assert_eq!(Mask::full(n).pairs(), 256);
    assert_eq!(Mask::inside(n, 1).pairs(), 46);
    let [q, k, v] = [1, 2, 3].map(|seed| noisy(n, d, seed));
    let y = run(&local_model(n, d, 1), &[&q, &k, &v], 1e-5);
    let want = dense(&rows(&q), &rows(&k), &rows(&v), |i, j| i.abs_diff(j) <= 1).0;
    near(&y[0], &flat(&want), 1e-5);
    // A token outside the window has no influence at all.
    for t in [&k, &v] {
        let mut other = floats(t);
        other[9 * d..10 * d].iter_mut().for_each(|x| *x += 5.0);
        let other = tensor(t.dims(), &other);
        let (k, v) = if std::ptr::eq(t, &k) {
            (&other, &v)
        } else {
            (&k, &other)
        };
        let z = run(&local_model(n, d, 1), &[&q, k, v], 1e-5);
        for (i, (a, b)) in rows(&y[0]).iter().zip(rows(&z[0])).enumerate() {
            assert_eq!(*a == b, !(8..=10).contains(&i), "row {i}");
        }
    }
    mask_parity("truncated", &two_layers(), &Mask::band(16, 2));
}

#[test]
fn b10_clustered() {
    let s = two_layers();
    let of: Vec<usize> = (0..s.length).map(|i| [0, 2, 2, 1, 0, 2, 1][i % 7]).collect();
    parity(&clustered("clustered", &s, &of).unwrap(), &s, &Mask::cluster(&of));
    parity(
        &clustered("clustered", &s, &[5; 16]).unwrap(),
        &s,
        &Mask::full(16),
    );
    parity(
        &masked("masked", &s, &Mask::cluster(&of)).unwrap(),
        &s,
        &Mask::cluster(&of),
    );
    // Σ size² pairs are computed, each with two products of `size` elements.
    let squares = |of: &[usize]| {
        (0..3)
            .map(|c| of.iter().filter(|&&o| o == c).count().pow(2))
            .sum::<usize>()
    };
    assert_eq!(Mask::cluster(&of).pairs(), squares(&of));
    let pieces = bare([(16, 4); 3], |x| vec![qkv(x, 4).clusters(&of)]);
    assert_eq!(macs(&pieces), 2 * 4 * squares(&of) as i64);
    // Two blobs far apart: what is left out has no weight anyway.
    let (n, d) = (10, 4);
    let blob = |i: usize| if i.is_multiple_of(2) { 9.0 } else { -9.0 };
    let mut x = floats(&noisy(n, d, 4));
    (0..n).for_each(|i| x[i * d] += blob(i));
    let x = tensor(&[1, 1, n, d], &x);
    let of: Vec<usize> = (0..n).map(|i| i % 2).collect();
    let m = bare([(n, d); 3], |x| {
        vec![qkv(x, d).clusters(&of), qkv(x, d).attend(None)]
    });
    let y = run(&m, &[&x, &x, &noisy(n, d, 5)], 1e-5);
    assert!(apart(&y[0], &y[1]) < 1e-3);
}

#[test]
fn b11_reformer() {
    let (d, m) = (8, 3);
    let r = Random::new(3).tensor(&[d, m], 1.0);
    let directions = r.elements::<f32>().unwrap().into_owned();
    // Equal vectors share a bucket, and vectors share one the more often the more alike they are.
    let mut random = Random::new(7);
    let mut rates = vec![];
    for bin in 0..5 {
        let cosine: f64 = -0.8 + 0.4 * bin as f64;
        let shared = (0..400).filter(|_| {
            let [a, b] = pair(&mut random, d, cosine);
            let directions = random.tensor(&[d, m], 1.0);
            let directions = directions.elements::<f32>().unwrap();
            assert_eq!(
                cluster::lsh(&a, &directions, d),
                cluster::lsh(&a.clone(), &directions, d)
            );
            cluster::lsh(&a, &directions, d) == cluster::lsh(&b, &directions, d)
        });
        rates.push(shared.count());
    }
    assert!(rates.is_sorted_by(|a, b| a < b), "{rates:?}");
    // The graph hashes the keys itself; the same buckets as masks give the same.
    let n = 12;
    let model = bare([(n, d); 3], |x| {
        let h = qkv(x, d);
        vec![h.hashed(h.q.tensor(r.clone()))]
    });
    let [q, k, v] = [1, 2, 3].map(|seed| noisy(n, d, seed));
    let of = cluster::lsh(&k.elements::<f32>().unwrap(), &directions, d);
    assert!(of.iter().any(|&o| o != of[0]));
    let y = run(&model, &[&q, &k, &v], 1e-5);
    near(
        &y[0],
        &flat(&dense(&rows(&q), &rows(&k), &rows(&v), |i, j| of[i] == of[j]).0),
        1e-5,
    );
    let pieces = bare([(n, d); 3], |x| vec![qkv(x, d).clusters(&of)]);
    near(&run(&pieces, &[&q, &k, &v], 1e-5)[0], &floats(&y[0]), 1e-5);
}

/// Two vectors of length 1 with the given cosine.
fn pair(r: &mut Random, d: usize, cosine: f64) -> [Vec<f32>; 2] {
    let unit = |x: Vec<f64>| {
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        x.into_iter().map(|x| x / norm).collect::<Vec<f64>>()
    };
    let mut draw = || unit((0..d).map(|_| r.normal()).collect());
    let (a, b) = (draw(), draw());
    let along: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
    let across = unit(a.iter().zip(&b).map(|(a, b)| b - along * a).collect());
    let sine = (1.0 - cosine * cosine).sqrt();
    let b = a.iter().zip(&across).map(|(a, c)| (cosine * a + sine * c) as f32);
    [a.iter().map(|&a| a as f32).collect(), b.collect()]
}

#[test]
fn b12_routing() {
    let (n, d, clusters) = (12, 4, 3);
    let c = Random::new(5).tensor(&[clusters, d], 0.5);
    let build = |c: &Tensor| {
        let c = c.clone();
        bare([(n, d); 3], move |x| vec![qkv(x, d).routed(&c)])
    };
    let [q, k, v] = [1, 2, 3].map(|seed| noisy(n, d, seed));
    let (keys, centroids) = (k.elements::<f32>().unwrap(), c.elements::<f32>().unwrap());
    let of = cluster::nearest(&keys, &centroids, d);
    assert!(of.iter().any(|&o| o != of[0]));
    let y = run(&build(&c), &[&q, &k, &v], 1e-5);
    near(
        &y[0],
        &flat(&dense(&rows(&q), &rows(&k), &rows(&v), |i, j| of[i] == of[j]).0),
        1e-5,
    );
    let single = Random::new(5).tensor(&[1, d], 0.5);
    let y = run(&build(&single), &[&q, &k, &v], 1e-5);
    near(
        &y[0],
        &flat(&dense(&rows(&q), &rows(&k), &rows(&v), |_, _| true).0),
        1e-5,
    );
    // A step moves the centroids towards their members.
    let spread = |c: &[f32]| -> f32 {
        let far = |x: &[f32], c: &[f32]| -> f32 { x.iter().zip(c).map(|(a, b)| (a - b).powi(2)).sum() };
        keys.chunks(d)
            .zip(&of)
            .map(|(x, &o)| far(x, &c[o * d..(o + 1) * d]))
            .sum()
    };
    let moved = cluster::update(&keys, &centroids, d);
    assert!(spread(&moved) < spread(&centroids));
}

#[test]
fn b13_small_weights_dropped() {
    let eye: &[&[f64]] = &[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0]];
    let m = bare([(1, 1), (3, 1), (3, 3)], |x| {
        let h = qkv(x, 1);
        vec![
            h.weights(None),
            h.threshold(None, 0.1),
            h.top_k(None, 2),
            h.threshold(None, 0.9),
        ]
    });
    let keys = one(&[&[2.0], &[1.0], &[0.1]]);
    let y = run(&m, &[&one(&[&[1.0]]), &keys, &one(eye)], 1e-6);
    near(&y[0], &[0.659, 0.2424, 0.0986], 1e-4);
    let w = floats(&y[0]);
    assert!((w[0] + w[1] - 0.9014).abs() < 1e-4);
    near(&y[1], &[0.73106, 0.26894, 0.0], 1e-5);
    near(&y[2], &[0.73106, 0.26894, 0.0], 1e-5);
    near(&y[3], &[1.0, 0.0, 0.0], 1e-6);
    // The result moves by no more than twice the dropped mass times the longest value.
    let (n, d, least) = (14, 5, 0.07);
    let m = bare([(n, d); 3], |x| {
        let h = qkv(x, d);
        vec![h.attend(None), h.threshold(None, least), h.weights(None)]
    });
    let [q, k, v] = [1, 2, 3].map(|seed| noisy(n, d, seed));
    let y = run(&m, &[&q, &k, &v], 1e-5);
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let longest = rows(&v).iter().map(|v| norm(v)).fold(0.0, f64::max);
    let mut dropped_any = false;
    for ((a, b), w) in rows(&y[0]).iter().zip(rows(&y[1])).zip(rows(&y[2])) {
        let dropped: f64 = w.iter().filter(|&&w| w < least).sum();
        dropped_any |= dropped > 0.0;
        let moved: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
        assert!(norm(&moved) <= 2.0 * dropped * longest + 1e-6);
    }
    assert!(dropped_any);
}

#[test]
fn b14_linformer() {
    let (n, d) = (6, 4);
    let build = |rank: usize, e: Tensor| {
        assert_eq!(e.dims(), [rank, n]);
        bare([(n, d); 3], move |x| {
            let h = qkv(x, d);
            let e = h.q.tensor(e);
            vec![h.projected(e, e)]
        })
    };
    let eye: Vec<f64> = (0..n * n).map(|i| f64::from(i % (n + 1) == 0)).collect();
    let [q, k, v] = [1, 2, 3].map(|seed| noisy(n, d, seed));
    let y = run(&build(n, tensor(&[n, n], &eye)), &[&q, &k, &v], 1e-5);
    near(
        &y[0],
        &flat(&dense(&rows(&q), &rows(&k), &rows(&v), |_, _| true).0),
        1e-5,
    );
    let cost = |rank: usize| macs(&build(rank, tensor(&[rank, n], &vec![1.0; rank * n])));
    assert_eq!(cost(4), 2 * cost(2));
}

#[test]
fn b15_performer() {
    let (n, d) = (24, 4);
    let [q, k, v] = [1, 2, 3].map(|seed| noisy(n, d, seed));
    let want = dense(&rows(&q), &rows(&k), &rows(&v), |_, _| true).0;
    let error = |features: usize| {
        let one = |seed: u64| {
            let w = Random::new(seed).tensor(&[d, features], 1.0);
            let m = bare([(n, d); 3], move |x| {
                let h = qkv(x, d);
                vec![h.features(h.q.tensor(w)).mean()]
            });
            let y = measure::optimised(&m, &[("x0", &q), ("x1", &k), ("x2", &v)]);
            let squares = floats(&y[0])
                .into_iter()
                .zip(flat(&want))
                .map(|(a, b)| (a - b).powi(2));
            squares.sum::<f64>()
        };
        (0..4).map(one).sum::<f64>()
    };
    let errors = [64, 256, 1024].map(error);
    assert!(errors.is_sorted_by(|a, b| a > b), "{errors:?}");
}

#[test]
fn b16_linear_transformer() {
    let (n, d) = (9, 4);
    let m = bare([(n, d); 3], |x| vec![qkv(x, d).linear_causal().mean()]);
    let [q, k, v] = [1, 2, 3].map(|seed| noisy(n, d, seed));
    let y = run(&m, &[&q, &k, &v], 1e-5);
    let mut w = products(&phi(&rows(&q)), &phi(&rows(&k)));
    for (i, row) in w.iter_mut().enumerate() {
        row.iter_mut().skip(i + 1).for_each(|w| *w = 0.0);
    }
    near(&y[0], &flat(&mix(&normalised(w), &rows(&v))), 1e-5);
}

#[test]
fn b17_blockwise() {
    let s = two_layers();
    let m = (kind("blockwise").unwrap().build)(&s).unwrap();
    let mask = Mask::block(s.length, s.block);
    parity(&m, &s, &mask);
    parity(&masked("masked", &s, &mask).unwrap(), &s, &mask);
    assert_eq!(mask.pairs(), s.length * s.length / (s.length / s.block));
    let pieces = bare([(16, 4); 3], |x| vec![qkv(x, 4).blocks(4, 4)]);
    assert_eq!(macs(&pieces), 2 * 4 * mask.pairs() as i64);
}

#[test]
fn b18_image_transformer() {
    let s = Setting {
        radius: 1,
        ..two_layers()
    };
    mask_parity("image", &s, &Mask::window(4, 4, 1));
    assert!(Mask::window(4, 4, 1).allows(0, 5) && !Mask::window(4, 4, 1).allows(3, 4));
}

#[test]
fn b19_sparse_transformer() {
    let s = two_layers();
    let mask = |n: usize, s: usize| Mask::band(n, s / 2).or(&Mask::strided(n, s));
    mask_parity("sparse", &s, &mask(s.length, s.block));
    let pairs = mask(64, 8).pairs() as f64;
    assert!((pairs / (2.0 * 64.0 * 8.0) - 1.0).abs() < 0.05, "{pairs}");
    let dilated = Setting { block: 2, ..s };
    mask_parity("dilated", &dilated, &Mask::dilated(16, 2, 2));
}

#[test]
fn b20_axial() {
    let (h, w) = (4, 4);
    let s = Setting {
        width: 8,
        ..Setting::default()
    };
    let m = (kind("axial").unwrap().build)(&s).unwrap();
    let x = noise(&[2, s.length, s.width], 11);
    let y = run_named(&m, &[("x", &x)], 1e-5);
    let (rows_, columns) = (Mask::rows(h, w), Mask::columns(h, w));
    let twice = Setting { layers: 2, ..s };
    let want = stacked(&m, &x, &twice, |layer, [q, k, v]| {
        let mask = if layer == 0 { &rows_ } else { &columns };
        dense(&q, &k, &v, |i, j| mask.allows(i, j)).0
    });
    near(&y[0], &want, 1e-5);
    let (h, w) = (3, 5);
    assert_eq!(
        Mask::rows(h, w).pairs() + Mask::columns(h, w).pairs(),
        h * w * (h + w)
    );
    let [q, k, v] = [1, 2, 3].map(|seed| noisy(h * w, 2, seed));
    let m = bare([(h * w, 2); 3], |x| {
        vec![qkv(x, 2).blocks(h, w), qkv(x, 2).columns(h, w)]
    });
    assert_eq!(macs(&m), 2 * 2 * (h * w * (h + w)) as i64);
    let y = run(&m, &[&q, &k, &v], 1e-5);
    let want = |m: Mask| flat(&dense(&rows(&q), &rows(&k), &rows(&v), |i, j| m.allows(i, j)).0);
    near(&y[0], &want(Mask::rows(h, w)), 1e-5);
    near(&y[1], &want(Mask::columns(h, w)), 1e-5);
}

#[test]
fn b21_longformer() {
    let s = two_layers();
    let mask = Mask::new(16, 16, |i, j| i == 0 || j == 0 || i.abs_diff(j) <= 2);
    mask_parity("longformer", &s, &mask);
}

#[test]
fn b22_etc() {
    let s = two_layers();
    let mask = Mask::new(16, 16, |i, j| i < 4 || j < 4 || i.abs_diff(j) <= 2);
    mask_parity("etc", &s, &mask);
}

#[test]
fn b23_big_bird() {
    let s = two_layers();
    let mask = |n: usize| {
        Mask::band(n, s.radius)
            .or(&Mask::global(n, &[0]))
            .or(&Mask::random(n, s.block, 1, s.seed))
    };
    mask_parity("big-bird", &s, &mask(s.length));
    let pairs = [256, 512].map(|n| mask(n).pairs() as f64);
    assert!((pairs[1] / pairs[0] - 2.0).abs() < 0.05, "{pairs:?}");
}

#[test]
fn b25_transformer_xl() {
    let s = Setting {
        width: 8,
        radius: 3,
        ..Setting::default()
    };
    let m = segments("transformer-xl", &s, s.radius).unwrap();
    let x = noise(&[2, 12, s.width], 4);
    let part = |from: usize, to: usize| {
        let each = rows(&x)
            .chunks(12)
            .flat_map(|x| x[from..to].to_vec())
            .collect::<Rows>();
        tensor(&[2, to - from, s.width], &flat(&each))
    };
    let empty = tensor(&[2, 0, s.width], &[]);
    let step = |x: &Tensor, memory: &Tensor| {
        let session = Session::builder(&m).build().unwrap();
        measure::tensors(session.run([("x", x), ("memory.0", memory)]).unwrap())
    };
    let long = step(&x, &empty);
    let first = step(&part(0, 5), &empty);
    let second = step(&part(5, 12), &first[1]);
    for (batch, want) in rows(&long[0]).chunks(12).enumerate() {
        let mut got = rows(&first[0])[batch * 5..(batch + 1) * 5].to_vec();
        got.extend(rows(&second[0])[batch * 7..(batch + 1) * 7].to_vec());
        near(&tensor(&[12, s.width], &flat(&got)), &flat(&want.to_vec()), 1e-5);
    }
    // The memory holds no more than it may, and what it holds is what was read last.
    assert_eq!(second[1].dims(), [2, 3, s.width]);
    assert_eq!(second[1], part(9, 12));
    let want = stacked(&m, &x, &s, |_, [q, k, v]| {
        dense(&q, &k, &v, |i, j| j <= i && i - j <= 3).0
    });
    near(&long[0], &want, 1e-5);
    run_named(&m, &[("x", &part(5, 12)), ("memory.0", &first[1])], 1e-5);
}

#[test]
fn b26_memory_compressed() {
    let s = Setting {
        width: 8,
        ..Setting::default()
    };
    let mut m = compressed("memory-compressed", &s, 1).unwrap();
    let eye: Vec<f64> = (0..64).map(|i| f64::from(i % 9 == 0)).collect();
    let v = m.graph.find("attention.0.compress.weight").unwrap();
    m.graph[v].konst = Some(Constant::new(tensor(&[8, 8, 1], &eye)));
    parity(&m, &s, &Mask::full(s.length));
    for (n, rate, fewer) in [(10, 4, 3), (8, 4, 2), (7, 3, 3), (5, 1, 5)] {
        let m = compressed("memory-compressed", &s, rate).unwrap();
        let x = noise(&[1, n, s.width], 2);
        run_named(&m, &[("x", &x)], 1e-5);
        // As written: optimised, the scores never leave a kernel for attention.
        let session = Session::builder(&m).unoptimized().build().unwrap();
        let plan = session.prepare([("x", &x)]).unwrap();
        let scores = plan.steps().iter().find(|s| s.op == "Softmax").unwrap();
        assert_eq!(scores.out_dims(), [[1, s.heads, n, fewer]]);
    }
}

#[test]
fn b27_taxonomy() {
    let names = [
        ("linformer", Class::LowRank),
        ("performer", Class::LowRank),
        ("linear-transformer", Class::LowRank),
        ("blockwise", Class::Fixed),
        ("image", Class::Fixed),
        ("sparse", Class::Fixed),
        ("axial", Class::Fixed),
        ("longformer", Class::Learnable),
        ("etc", Class::Learnable),
        ("big-bird", Class::Learnable),
        ("sinkhorn", Class::Learnable),
        ("routing", Class::Learnable),
        ("transformer-xl", Class::Recurrence),
        ("memory-compressed", Class::Memory),
    ];
    assert_eq!(names.len(), 14);
    for (name, class) in names {
        assert_eq!(kind(name).map(|k| k.class), Some(class), "{name}");
    }
    let mut classes: Vec<Class> = ATTENTIONS
        .iter()
        .map(|k| k.class)
        .filter(|&c| c != Class::Plain)
        .collect();
    classes.sort();
    classes.dedup();
    assert_eq!(classes.len(), 5);
    let Err(e) = (kind("sinkhorn").unwrap().build)(&Setting::default()) else {
        panic!("built")
    };
    assert_eq!(e, AttentionError::NotImplemented("sinkhorn"));
    assert!(kind("no such").is_none());
}

/// A plan of one sequence of `n` tokens for the variant `name`, and the operations of its attention alone.
fn planned(name: &str, n: usize) -> (std::sync::Arc<plan::Plan>, f64) {
    let s = Setting {
        length: n,
        block: 4,
        radius: 8,
        ..Setting::default()
    };
    let m = (kind(name).unwrap().build)(&s).unwrap();
    let session = Session::builder(&m).threads(1).build().unwrap();
    let plan = session.plan(&[vec![1, n, s.width]]).unwrap();
    let fused = plan.steps().iter().filter(|s| s.op == "Attention");
    let flops = fused.map(|s| s.cost.flops).sum();
    (plan, flops)
}

#[test]
fn b28_work_and_memory_grow_with_what_is_computed() {
    let growth = |name: &str| {
        let [(a, few), (b, many)] = [512, 1024].map(|n| planned(name, n));
        assert!(few > 0.0, "{name} is not fused");
        (many / few, b.peak_bytes() as f64 / a.peak_bytes() as f64)
    };
    let (work, memory) = growth("dense");
    assert!(
        (work - 4.0).abs() < 0.01 && memory < 2.1,
        "dense: {work}, {memory}"
    );
    for name in ["dilated", "etc", "longformer"] {
        let (work, memory) = growth(name);
        assert!(work < 2.2 && memory < 2.1, "{name}: {work}, {memory}");
    }
    let [a, b] = [512, 1024].map(|n| planned("linear", n).0.peak_bytes());
    assert!(b < 2 * a + 4096, "linear: {a}, {b}");
}

#[test]
fn masks_of_many_tiles() {
    let s = Setting {
        length: 200,
        ..two_layers()
    };
    let n = s.length;
    let band = Mask::band(n, 9);
    for mask in [
        Mask::block(n, 50),
        Mask::dilated(n, 3, 5),
        Mask::random(n, 40, 1, 3).or(&Mask::band(n, 0)),
        Mask::window(10, 20, 2),
        Mask::axial(10, 20),
        band.and(&Mask::causal(n)),
        band.or(&Mask::global(n, &[0, 150])),
        band,
    ] {
        parity(&masked("masked", &s, &mask).unwrap(), &s, &mask);
    }
}

#[test]
fn b29_prefix() {
    let build = |prefix: usize, k: Tensor, v: Tensor| {
        assert_eq!(k.dims(), [1, 1, prefix, 2]);
        bare([(1, 2), (2, 2), (2, 2)], move |x| {
            vec![qkv(x, 2).prefixed(&k, &v)]
        })
    };
    let q = one(&[&[1.0, 0.0]]);
    let inputs = [&q, &one(EYE), &one(V)];
    let y = run(
        &build(1, one(&[&[2.0, 0.0]]), one(&[&[10.0, 10.0]])),
        &inputs,
        1e-6,
    );
    near(&y[0], &[6.463837, 6.887861], 1e-6);
    let all: Rows = vec![vec![2.0, 0.0], vec![1.0, 0.0], vec![0.0, 1.0]];
    let (_, w) = dense(&rows(&q), &all, &all, |_, _| true);
    near(&tensor(&[3], &w[0]), &[0.575975, 0.283995, 0.140029], 1e-6);
    // Both parts for themselves, joined by the logarithms of their sums.
    let part = |k: &Rows, v: &Rows| {
        let scores: Vec<f64> = products(&rows(&q), k)[0]
            .iter()
            .map(|s| (s / 2f64.sqrt()).exp())
            .collect();
        (
            dense(&rows(&q), k, v, |_, _| true).0[0].clone(),
            scores.iter().sum::<f64>().ln(),
        )
    };
    let (a, lse_a) = part(&vec![vec![2.0, 0.0]], &vec![vec![10.0, 10.0]]);
    let (b, lse_b) = part(&rows(&one(EYE)), &rows(&one(V)));
    let share = 1.0 / (1.0 + (lse_b - lse_a).exp());
    let merged: Vec<f64> = a
        .iter()
        .zip(&b)
        .map(|(a, b)| share * a + (1.0 - share) * b)
        .collect();
    near(&y[0], &merged, 1e-6);
    let none = tensor(&[1, 1, 0, 2], &[]);
    let y = run(&build(0, none.clone(), none), &inputs, 1e-6);
    near(
        &y[0],
        &flat(&dense(&rows(&q), &rows(&one(EYE)), &rows(&one(V)), |_, _| true).0),
        1e-6,
    );
}

#[test]
fn the_table_is_sorted() {
    assert!(ATTENTIONS.is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn every_variant_runs_and_survives_a_file() {
    for k in ATTENTIONS {
        let s = two_layers();
        let m = match (k.build)(&s) {
            Ok(m) => m,
            Err(AttentionError::NotImplemented(_)) => continue,
            Err(e) => panic!("{}: {e}", k.name),
        };
        let again = onnx::parse(secateur_engine::ir::Bytes::new(onnx::to_bytes(&m)), None).unwrap();
        let inputs: Vec<(String, Tensor)> = m.graph.inputs.iter().map(|p| drawn(&m, p, &s)).collect();
        let named: Vec<_> = inputs.iter().map(|(n, t)| (&**n, t)).collect();
        let y = run_named(&m, &named, 1e-5);
        assert!(
            y.iter().all(|y| floats(y).iter().all(|x| x.is_finite())),
            "{}",
            k.name
        );
        assert_eq!(measure::optimised(&again, &named), y, "{}", k.name);
        for (p, y) in m.graph.outputs.iter().zip(&y) {
            let declared = p.ty.as_ref().and_then(|d| d.ty.shape()).unwrap();
            let fits = |(d, &n): (&Dim, &usize)| d.size().is_none_or(|d| d == n);
            assert!(
                declared.iter().zip(y.dims()).all(fits),
                "{}: {declared:?}",
                k.name
            );
        }
    }
}

fn drawn(m: &Model, p: &secateur_engine::ir::Port, s: &Setting) -> (String, Tensor) {
    let Some(Type::Tensor {
        shape: Some(shape), ..
    }) = p.ty.as_ref().map(|d| &d.ty)
    else {
        panic!("an input without a shape")
    };
    let size = |d: &Dim| match d {
        Dim::Symbol(n) if &**n == "batch" => 2,
        Dim::Symbol(_) => s.length,
        d => d.size().unwrap(),
    };
    let dims: Vec<usize> = shape.iter().map(size).collect();
    (m.graph[p.value].name.to_string(), noise(&dims, 9))
}

#[test]
fn wrong_settings_are_refused() {
    let s = Setting::default();
    let refused = |name: &str, s: Setting| {
        let e = (kind(name).unwrap().build)(&s).unwrap_err();
        assert!(matches!(e, AttentionError::Setting(_)), "{name}: {e}");
    };
    refused(
        "dense",
        Setting {
            heads: 3,
            ..s.clone()
        },
    );
    refused(
        "dense",
        Setting {
            layers: 0,
            ..s.clone()
        },
    );
    for k in ATTENTIONS.iter().filter(|k| k.name != "sinkhorn") {
        refused(
            k.name,
            Setting {
                width: 0,
                ..s.clone()
            },
        );
        refused(
            k.name,
            Setting {
                block: 0,
                ..s.clone()
            },
        );
        refused(
            k.name,
            Setting {
                length: 0,
                ..s.clone()
            },
        );
    }
    refused(
        "axial",
        Setting {
            block: 5,
            ..s.clone()
        },
    );
    assert!(masked("idle", &s, &Mask::new(16, 16, |i, _| i > 0)).is_err());
    assert!(masked("size", &s, &Mask::full(5)).is_err());
}

#[test]
fn weights_are_shared_by_what_reads_them() {
    // Nothing in the way of a session folds a mask into one copy a layer.
    let s = two_layers();
    let m = masked("band", &s, &Mask::band(16, 2)).unwrap();
    let session = Session::builder(&m).build().unwrap();
    let g = &session.model().graph;
    let masks = g.initializers.iter();
    let masks = masks.filter(|&&v| g.konst(v).unwrap().dims().ends_with(&[16, 16]));
    assert_eq!(masks.count(), 1);
    assert_eq!(
        ops_run(&m)
            .iter()
            .filter(|op| *op == "Softmax" || *op == "Attention")
            .count(),
        2
    );
    let mut d = Draft::new("one");
    let x = d.input("x", [Dim::symbol("n"), Dim::Known(2)]);
    let m = d
        .finish(|b: &Builder| vec![("y".into(), softmax(b.at(x)))])
        .unwrap();
    assert_eq!(m.graph.order.len(), 1);
}
