//! What a session that is deterministic computes for the rows of a batch is what it computes for each alone, to the bit.
#![allow(clippy::unwrap_used, reason = "tests end where they cannot go on")]

mod measure;

use measure::{call, ints, model, noise};
use secateur_engine::expr::Ex;
use secateur_engine::ir::{Attr, AttrValue, Dim, Type};
use secateur_engine::run::Builder;
use secateur_engine::{Model, Session, Tensor};

const ROWS: usize = 5;

/// A model whose inputs have `n` rows.
fn batched<const N: usize>(
    shapes: [&[usize]; N],
    write: impl for<'a> FnOnce([Ex<'a>; N]) -> Vec<Ex<'a>>,
) -> Model {
    let mut m = model(17, shapes, write);
    let ports = m.graph.inputs.iter_mut().chain(&mut m.graph.outputs);
    for ty in ports.filter_map(|p| p.ty.as_mut()) {
        if let Type::Tensor {
            shape: Some(shape), ..
        } = &mut ty.ty
        {
            shape[0] = Dim::symbol("n");
        }
    }
    m
}

/// Floats of `dims`, small, so that sums stay near 1.
fn weights(dims: &[usize], seed: u64) -> Tensor {
    let depth = dims[1..].iter().product::<usize>() as f64;
    let x = measure::floats(&noise(dims, seed));
    measure::tensor(
        dims,
        &x.iter().map(|w| w * 2.0 / depth.sqrt()).collect::<Vec<f64>>(),
    )
}

fn conv<'a>(x: Ex<'a>, dims: [usize; 4], step: i64, groups: i64) -> Ex<'a> {
    let pad = (dims[2] / 2) as i64;
    let attrs = vec![
        Attr::new("pads", vec![pad; 4]),
        Attr::new("strides", vec![step; 2]),
        Attr::new("group", groups),
    ];
    x.with("Conv", &[x.tensor(weights(&dims, 3))], attrs)
        .op("Relu", &[])
}

fn turn<'a>(x: Ex<'a>, perm: &[i64]) -> Ex<'a> {
    x.with("Transpose", &[], vec![Attr::new("perm", perm.to_vec())])
}

/// Few pixels of many channels: where weights are most of the work, and where images are.
fn convolutions() -> Model {
    batched([&[ROWS, 3, 18, 18]], |[x]| {
        let x = conv(x, [16, 3, 3, 3], 2, 1);
        let y = conv(x, [16, 16, 3, 3], 1, 1) + x;
        let y = conv(y, [16, 1, 3, 3], 1, 16);
        let y = conv(y, [96, 16, 1, 1], 1, 1);
        let y = conv(y, [96, 96, 3, 3], 1, 1);
        let y = conv(y, [20, 96, 3, 3], 2, 1);
        let flat = y.op("GlobalAveragePool", &[]).op("Flatten", &[]);
        vec![flat.op("Gemm", &[flat.tensor(weights(&[20, 10], 4))])]
    })
}

fn perceptron() -> Model {
    batched([&[ROWS, 70]], |[x]| {
        let y = x.matmul(x.tensor(weights(&[70, 96], 1))) + x.tensor(weights(&[1, 96], 2));
        let y = y.op("Relu", &[]).matmul(x.tensor(weights(&[96, 33], 3)));
        vec![y.with("Softmax", &[], vec![Attr::new("axis", -1i64)])]
    })
}

/// Four heads of 16 over 21 places.
fn attention() -> Model {
    batched([&[ROWS, 21, 64]], |[x]| {
        let heads = |seed| {
            let y = x.matmul(x.tensor(weights(&[64, 64], seed)));
            y.op("Reshape", &[ints(x, &[0, -1, 4, 16])])
        };
        let (q, k) = (turn(heads(1), &[0, 2, 1, 3]), turn(heads(2), &[0, 2, 3, 1]));
        let p = (q.matmul(k) * 0.25).with("Softmax", &[], vec![Attr::new("axis", -1i64)]);
        let y = turn(p.matmul(turn(heads(3), &[0, 2, 1, 3])), &[0, 2, 1, 3]);
        let y = y.op("Reshape", &[ints(x, &[0, -1, 64])]) + x;
        let (scale, bias) = (x.tensor(weights(&[64], 4)), x.tensor(weights(&[64], 5)));
        let y = y.op("LayerNormalization", &[scale, bias]);
        vec![y.matmul(x.tensor(weights(&[64, 50], 6))).op("Tanh", &[])]
    })
}

fn recurrent() -> Model {
    batched([&[ROWS, 7, 20]], |[x]| {
        let layer = |op: &str, gates: usize, seed| {
            let w = x.tensor(weights(&[1, gates * 24, 20], seed));
            let r = x.tensor(weights(&[1, gates * 24, 24], seed + 1));
            let attrs = vec![Attr::new("hidden_size", 24i64)];
            let y = call(op, &[Some(turn(x, &[1, 0, 2])), Some(w), Some(r)], attrs, 1)[0];
            turn(y, &[2, 0, 1, 3])
        };
        vec![layer("LSTM", 4, 1), layer("GRU", 3, 3)]
    })
}

fn models() -> Vec<(&'static str, Model)> {
    vec![
        ("convolutions", convolutions()),
        ("perceptron", perceptron()),
        ("attention", attention()),
        ("recurrent", recurrent()),
    ]
}

/// Rows `from..to` of `t`.
fn rows(t: &Tensor, from: usize, to: usize) -> Tensor {
    let mut dims = t.dims().to_vec();
    let each = t.len() / dims[0];
    dims[0] = to - from;
    let x = t.elements::<f32>().unwrap();
    Tensor::of(&dims, x[from * each..to * each].to_vec())
}

fn outputs(session: &Session, x: &Tensor) -> Vec<Tensor> {
    measure::tensors(session.run([("x0", x)]).unwrap())
}

/// Whether a session computes for rows of a batch what it computes for each alone.
fn independent(m: &Model, way: impl Fn(Builder) -> Builder) -> bool {
    let mut dims = m.graph.inputs[0].ty.as_ref().unwrap().ty.shape().unwrap().clone();
    dims[0] = Dim::Known(ROWS as i64);
    let dims: Vec<usize> = dims.iter().map(|d| d.size().unwrap()).collect();
    let x = noise(&dims, 9);
    let session = |threads| way(Session::builder(m)).threads(threads).build().unwrap();
    let (one, two) = (session(1), session(2));
    let all = outputs(&one, &x);
    assert_eq!(all, outputs(&two, &x), "1 and 2 threads differ");
    (0..ROWS).all(|i| {
        let alone = outputs(&two, &rows(&x, i, i + 1));
        alone.iter().zip(&all).all(|(a, b)| *a == rows(b, i, i + 1))
    })
}

#[test]
fn the_batch_changes_no_bit() {
    for (name, m) in models() {
        assert!(independent(&m, |b| b.deterministic()), "{name}");
        assert!(
            independent(&m, |b| b.deterministic().unoptimized()),
            "{name}, as it is"
        );
    }
}

/// Else these tests would show nothing.
#[test]
fn otherwise_it_may() {
    assert!(!independent(&convolutions(), |b| b));
}

#[test]
fn a_batch_that_is_fixed_changes_no_bit() {
    let m = convolutions();
    let free = Session::builder(&m).deterministic().build().unwrap();
    let fixed = Session::builder(&m)
        .deterministic()
        .size("n", ROWS)
        .build()
        .unwrap();
    let x = noise(&[ROWS, 3, 18, 18], 9);
    assert_eq!(outputs(&free, &x), outputs(&fixed, &x));
    assert!(fixed.run([("x0", &rows(&x, 0, 1))]).is_err());
}

#[test]
fn a_batch_may_have_no_name() {
    let mut m = convolutions();
    for ty in m.graph.inputs.iter_mut().filter_map(|p| p.ty.as_mut()) {
        if let Type::Tensor {
            shape: Some(shape), ..
        } = &mut ty.ty
        {
            shape[0] = Dim::Unknown;
        }
    }
    assert!(independent(&m, |b| b.deterministic()));
}

#[test]
fn branches_know_the_batch_around_them() {
    let mut inner = convolutions().graph;
    inner.inputs.clear();
    let m = batched([&[ROWS, 3, 18, 18]], |[x]| {
        let most = x
            .op("Abs", &[])
            .with("ReduceMax", &[], vec![Attr::new("keepdims", 0i64)]);
        let branch = |name| Attr::new(name, AttrValue::Graph(Box::new(inner.clone())));
        let branches = vec![branch("then_branch"), branch("else_branch")];
        vec![(most + 1.0).op("Greater", &[most]).with("If", &[], branches)]
    });
    assert!(independent(&m, |b| b.deterministic()));
    assert!(!independent(&m, |b| b));
}
