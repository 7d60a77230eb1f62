//! Gradients of convolutional nets whose batch, or images, have no known size.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

use secateur_engine::ir::{Attr, DType, Dim, Model, Node, Type, ValueId};
use secateur_engine::ops::case::floats;
use secateur_engine::{Session, Tensor};
use secateur_train::{Gradients, differentiate};

/// An operator, the dimensions of its weights, and its attributes.
type Layer = (&'static str, Option<&'static [usize]>, Vec<Attr>);

/// Convolutions with strides, groups and dilations, pools of each kind, and a transposed convolution.
fn net(dims: [Dim; 4]) -> (Model, Vec<ValueId>, ValueId) {
    let mut m = Model::default();
    let g = &mut m.graph;
    let x = g.input("x", Type::tensor(DType::F32, dims));
    let mut by = vec![x];
    let mut weight = |g: &mut secateur_engine::ir::Graph, dims: &[usize]| {
        let w = g.constant(format!("w{}", by.len()), floats(dims, by.len() as u64 + 1));
        by.push(w);
        w
    };
    let two = || vec![2i64, 2];
    let mut h = x;
    let layers: [Layer; 9] = [
        (
            "Conv",
            Some(&[4, 2, 3, 3]),
            vec![Attr::new("strides", two()), Attr::new("pads", vec![1i64; 4])],
        ),
        ("Tanh", None, vec![]),
        (
            "MaxPool",
            None,
            vec![
                Attr::new("kernel_shape", two()),
                Attr::new("strides", vec![1i64, 2]),
            ],
        ),
        (
            "Conv",
            Some(&[6, 2, 2, 2]),
            vec![Attr::new("group", 2), Attr::new("dilations", two())],
        ),
        ("Relu", None, vec![]),
        (
            "ConvTranspose",
            Some(&[6, 3, 2, 3]),
            vec![Attr::new("strides", two())],
        ),
        (
            "AveragePool",
            None,
            vec![
                Attr::new("kernel_shape", two()),
                Attr::new("strides", two()),
                Attr::new("ceil_mode", 1),
            ],
        ),
        (
            "LpPool",
            None,
            vec![
                Attr::new("kernel_shape", two()),
                Attr::new("pads", vec![1i64, 0, 0, 1]),
            ],
        ),
        ("GlobalMaxPool", None, vec![]),
    ];
    for (i, (op, w, attrs)) in layers.into_iter().enumerate() {
        let mut inputs = vec![Some(h)];
        inputs.extend(w.map(|dims| Some(weight(g, dims))));
        h = g.value(format!("h{i}"));
        let node = Node::new(op, inputs, vec![Some(h)]);
        g.node(Node { attrs, ..node });
    }
    (m, by, h)
}

fn gradients(dims: [Dim; 4], x: &Tensor) -> Vec<Tensor> {
    let (mut m, by, y) = net(dims);
    let of = [(y, None)];
    let found = differentiate(&mut m, &Gradients::new(&of, &by)).unwrap_or_else(|e| panic!("{e}"));
    found.iter().for_each(|v| m.graph.output(v.unwrap(), None));
    let run = |builder: secateur_engine::run::Builder| {
        let outputs = builder.threads(1).build().unwrap().run([("x", x)]).unwrap();
        outputs.tensors().map(|(_, t)| t.clone()).collect::<Vec<_>>()
    };
    let made = run(Session::builder(&m));
    near(&made, &run(Session::builder(&m).reference()));
    made
}

fn near(a: &[Tensor], b: &[Tensor]) {
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.dims(), b.dims(), "gradient {i}");
        let pairs = a.floats().unwrap().into_iter().zip(b.floats().unwrap());
        pairs.for_each(|(a, b)| {
            assert!(
                (a - b).abs() < 2e-3 * (1.0 + a.abs()),
                "gradient {i}: {a} and {b}"
            )
        });
    }
}

#[test]
fn sizes_need_not_be_known() {
    let x = floats(&[3, 2, 14, 15], 1);
    let known = gradients([3i64, 2, 14, 15].map(Dim::Known), &x);
    assert!(
        known
            .iter()
            .all(|t| t.floats().unwrap().iter().any(|&v| v != 0.0))
    );
    let batch = [Dim::symbol("n"), Dim::Known(2), Dim::Known(14), Dim::Known(15)];
    near(&known, &gradients(batch, &x));
    let image = [
        Dim::symbol("n"),
        Dim::Known(2),
        Dim::symbol("h"),
        Dim::symbol("w"),
    ];
    near(&known, &gradients(image, &x));
}

/// The gradient of `x` through `op`, the output of which is weighted with 1, 2 ...
fn pooled(op: &str, attrs: Vec<Attr>, x: &[f32], dims: &[usize], out: &[usize]) -> Vec<f64> {
    let mut m = Model::default();
    let v = m.graph.input("x", Type::tensor(DType::F32, dims.iter().copied()));
    let y = m.graph.value("y");
    let node = Node::new(op, vec![Some(v)], vec![Some(y)]);
    m.graph.node(Node { attrs, ..node });
    let weights = (1..=out.iter().product::<usize>()).map(|i| i as f32).collect();
    let dy = m.graph.constant("dy", Tensor::of(out, weights));
    let of = [(y, Some(dy))];
    let found = differentiate(&mut m, &Gradients::new(&of, &[v])).unwrap();
    m.graph.output(found[0].unwrap(), None);
    let x = Tensor::of(dims, x.to_vec());
    let outputs = Session::builder(&m).build().unwrap().run([("x", &x)]).unwrap();
    outputs.into_first().unwrap().floats().unwrap()
}

#[test]
fn the_first_of_equals_has_the_gradient() {
    let window = vec![Attr::new("kernel_shape", vec![2i64])];
    let dx = pooled("MaxPool", window, &[1.0, 1.0, 1.0, 0.0], &[1, 1, 4], &[1, 1, 3]);
    assert_eq!(dx, [1.0, 2.0, 3.0, 0.0]);
    let dx = pooled("GlobalMaxPool", vec![], &[0.0, 7.0, 7.0], &[1, 1, 3], &[1, 1, 1]);
    assert_eq!(dx, [0.0, 1.0, 0.0]);
}

#[test]
fn windows_that_overlap_are_summed_and_the_border_counts_if_it_is_told_to() {
    let attrs = |counts: i64| {
        vec![
            Attr::new("kernel_shape", vec![2i64]),
            Attr::new("pads", vec![1i64, 0]),
            Attr::new("count_include_pad", counts),
        ]
    };
    let of = |counts| pooled("AveragePool", attrs(counts), &[0.0; 3], &[1, 1, 3], &[1, 1, 3]);
    assert_eq!(of(0), [2.0, 2.5, 1.5]);
    assert_eq!(of(1), [1.5, 2.5, 1.5]);
}
