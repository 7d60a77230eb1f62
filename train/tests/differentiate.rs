//! What `differentiate` promises: second derivatives, stops, rounding, errors.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

mod small;

use secateur_engine::expr::Ex;
use secateur_engine::ir::{Attr, DType, Dim, Model, Node, Opset, Type};
use secateur_engine::ops::case::floats;
use secateur_engine::{Session, Tensor};
use secateur_train::{DiffErrorKind, Gradients, Rounding, differentiate};
use small::{Small, doubles, gradients, near};

/// Small doubles that look random.
fn noise(dims: &[usize], seed: u64) -> Tensor {
    Tensor::rounded(DType::F64, dims, &floats(dims, seed).floats().unwrap()).unwrap()
}

type Write = for<'a> fn(&[Ex<'a>]) -> Ex<'a>;

fn ints<'a>(x: Ex<'a>, all: &[i64]) -> Ex<'a> {
    x.tensor(Tensor::of(&[all.len()], all.to_vec()))
}

/// What stands in for an input that is not given.
fn nothing<'a>(x: Ex<'a>) -> Ex<'a> {
    x.tensor(Tensor::of(&[0], Vec::<f32>::new()))
}

/// Operators whose rules are differentiated again, with inputs.
const TWICE: &[(&str, &[&[usize]], Write)] = &[
    ("Softmax", &[&[2, 3]], |x| {
        x[0].with("Softmax", &[], vec![Attr::new("axis", 1)])
    }),
    ("LogSoftmax", &[&[2, 3]], |x| {
        x[0].with("LogSoftmax", &[], vec![Attr::new("axis", 1)])
    }),
    ("Gelu", &[&[4]], |x| x[0].op("Gelu", &[])),
    ("Pow", &[&[3], &[3]], |x| (x[0] * x[0]).op("Pow", &[x[1]])),
    ("Div", &[&[3], &[1]], |x| x[0] / x[1]),
    ("LayerNormalization", &[&[2, 4], &[4], &[4]], |x| {
        x[0].op("LayerNormalization", &x[1..])
    }),
    ("RMSNormalization", &[&[2, 4], &[4]], |x| {
        x[0].op("RMSNormalization", &x[1..])
    }),
    ("MatMul", &[&[2, 3, 2], &[2, 3]], |x| x[0].matmul(x[1])),
    ("Gemm", &[&[2, 3], &[3, 2], &[2]], |x| x[0].op("Gemm", &x[1..])),
    ("Einsum", &[&[2, 3], &[3]], |x| {
        x[0].with("Einsum", &[x[1], x[1]], vec![Attr::new("equation", "ij,j,k->ki")])
    }),
    ("Gather", &[&[4]], |x| {
        x[0].op("Gather", &[ints(x[0], &[1, 1, 3])])
    }),
    ("Slice", &[&[5]], |x| {
        x[0].op(
            "Slice",
            &[
                ints(x[0], &[4]),
                ints(x[0], &[0]),
                ints(x[0], &[0]),
                ints(x[0], &[-2]),
            ],
        )
    }),
    ("Pad", &[&[4]], |x| {
        x[0].with("Pad", &[ints(x[0], &[2, 1])], vec![Attr::new("mode", "reflect")])
    }),
    ("ReduceLogSumExp", &[&[2, 3]], |x| {
        x[0].op("ReduceLogSumExp", &[ints(x[0], &[1])])
    }),
    ("ReduceProd", &[&[2, 3]], |x| {
        x[0].op("ReduceProd", &[ints(x[0], &[1])])
    }),
    ("CumSum", &[&[4]], |x| {
        x[0].op("CumSum", &[x[0].tensor(Tensor::scalar(0i64))])
    }),
    ("TopK", &[&[4]], |x| x[0].op("TopK", &[ints(x[0], &[2])])),
    ("SoftmaxCrossEntropyLoss", &[&[2, 3]], |x| {
        x[0].op("SoftmaxCrossEntropyLoss", &[ints(x[0], &[2, 0])])
    }),
];

#[test]
fn gradients_can_be_differentiated_again() {
    for (name, shapes, write) in TWICE {
        let x: Vec<_> = (1..).zip(*shapes).map(|(seed, s)| noise(s, seed)).collect();
        // The sum of the squares of what comes out, whose gradients then depend on everything.
        let mut small = Small::new(shapes, |x| {
            let y = write(x);
            y * y
        });
        let first = differentiate(&mut small.model, &Gradients::new(&[(small.y, None)], &small.x)).unwrap();
        let g = first[0].unwrap();
        small.model.graph.output(g, None);
        let once = small.model.clone();
        small.model.graph.outputs.clear();
        small.grad(g).unwrap();
        let second = small.run(&x);
        small.model = once;
        let sum = |x: &[Tensor]| small.run(x)[0].iter().sum::<f64>();
        let h = 1e-5;
        for (i, t) in x.iter().enumerate() {
            for at in 0..t.len() {
                let end = |h: f64| {
                    let (mut x, mut v) = (x.clone(), t.floats().unwrap());
                    v[at] += h;
                    x[i] = doubles(t.dims(), &v);
                    sum(&x)
                };
                let (slope, found) = ((end(h) - end(-h)) / (2.0 * h), second[i][at]);
                let near = (slope - found).abs() < 1e-6 * (1.0 + slope.abs());
                assert!(near, "{name}, x{i}[{at}]: {found}, slope {slope}");
            }
        }
    }
}

#[test]
fn what_is_given_from_outside_weighs_the_outputs() {
    let mut small = Small::new(&[&[2], &[2]], |x| x[0] * x[0]);
    let of = [(small.y, Some(small.x[1]))];
    let found = differentiate(&mut small.model, &Gradients::new(&of, &small.x[..1])).unwrap();
    small.model.graph.output(found[0].unwrap(), None);
    let y = small.run(&[doubles(&[2], &[3.0, 5.0]), doubles(&[2], &[10.0, -1.0])]);
    near(&y[0], &[60.0, -10.0]);
}

#[test]
fn a_value_in_between_has_a_gradient_and_a_stop_ends_it() {
    let mut small = Small::new(&[&[]], |x| x[0].exp() * x[0]);
    let exp = small
        .model
        .graph
        .iter()
        .find(|(_, n)| n.is("Exp"))
        .unwrap()
        .1
        .outputs[0]
        .unwrap();
    let (of, by) = ([(small.y, None)], [small.x[0], exp]);
    let mut stopped = small.model.clone();
    let found = differentiate(&mut small.model, &Gradients::new(&of, &by)).unwrap();
    found
        .iter()
        .for_each(|v| small.model.graph.output(v.unwrap(), None));
    let e = 2f64.exp();
    near(&small.run(&[doubles(&[], &[2.0])]).concat(), &[3.0 * e, 2.0]);
    let g = Gradients {
        stop: &[exp],
        ..Gradients::new(&of, &by)
    };
    let found = differentiate(&mut stopped, &g).unwrap();
    found.iter().for_each(|v| stopped.graph.output(v.unwrap(), None));
    small.model = stopped;
    near(&small.run(&[doubles(&[], &[2.0])]).concat(), &[e, 2.0]);
}

#[test]
fn no_value_of_a_weight_is_written_into_the_gradient() {
    let mut m = Model::default();
    let x = m.graph.input("x0", Type::tensor(DType::F64, [1usize]));
    let p = m.graph.constant("p", doubles(&[], &[2.0]));
    let y = m.graph.value("y");
    m.graph
        .node(Node::new("Pow", vec![Some(x), Some(p)], vec![Some(y)]));
    let found = differentiate(&mut m, &Gradients::new(&[(y, None)], &[x, p])).unwrap();
    m.graph.output(found[0].unwrap(), None);
    // Another weight: the gradient follows.
    m.graph[p].konst = Some(secateur_engine::ir::Constant::new(doubles(&[], &[3.0])));
    let session = Session::builder(&m).build().unwrap();
    let outputs = session.run([("x0", &doubles(&[1], &[2.0]))]).unwrap();
    near(&outputs.into_first().unwrap().floats().unwrap(), &[12.0]);
}

#[test]
fn old_models_are_brought_to_the_newest_opset() {
    let mut m = Model {
        opsets: vec![Opset {
            domain: None,
            version: Some(11),
            extra: Default::default(),
        }],
        ..Model::default()
    };
    let x = m.graph.input("x0", Type::tensor(DType::F64, [2usize, 3]));
    let y = m.graph.value("y");
    let sum = Node {
        attrs: vec![Attr::new("axes", vec![1i64]), Attr::new("keepdims", 0)],
        ..Node::new("ReduceSumSquare", vec![Some(x)], vec![Some(y)])
    };
    m.graph.node(sum);
    let found = differentiate(&mut m, &Gradients::new(&[(y, None)], &[x])).unwrap();
    assert_eq!(m.opset(""), Some(secateur_engine::ops::OPSET));
    m.graph.output(found[0].unwrap(), None);
    let small = Small {
        model: m,
        x: vec![x],
        y,
    };
    let x = noise(&[2, 3], 1);
    let twice: Vec<_> = x.floats().unwrap().iter().map(|x| 2.0 * x).collect();
    near(&small.run(&[x])[0], &twice);
}

#[test]
fn symbolic_sizes_are_summed_where_they_are_known_to_be_stretched() {
    let n = || vec![Dim::symbol("n"), Dim::Known(3)];
    let mut small = Small::symbolic(&[n(), n(), vec![Dim::Known(3)]], |x| (x[0] + x[1]) * x[2]);
    small.grad(small.y).unwrap();
    let y = small.run(&[
        noise(&[2, 3], 1),
        noise(&[2, 3], 2),
        doubles(&[3], &[1.0, 2.0, 3.0]),
    ]);
    assert_eq!(y[0], [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
    assert_eq!(y[2].len(), 3);
}

#[test]
fn images_of_a_batch_of_unknown_size_are_resized() {
    let dims = || vec![Dim::symbol("n"), Dim::Known(1), Dim::Known(2), Dim::Known(3)];
    let linear = || vec![Attr::new("mode", "linear")];
    // Sizes as exporters compute them, and scales.
    for by_sizes in [true, false] {
        let mut small = Small::symbolic(&[dims()], |x| {
            let x = x[0];
            match by_sizes {
                true => {
                    let kept = x.op("Shape", &[]).op("Slice", &[ints(x, &[0]), ints(x, &[2])]);
                    let sizes = kept.with("Concat", &[ints(x, &[4, 5])], vec![Attr::new("axis", 0)]);
                    x.with("Resize", &[nothing(x), nothing(x), sizes], linear())
                }
                false => {
                    let scales = x.tensor(Tensor::of(&[4], vec![1f32, 1.0, 2.0, 0.7]));
                    x.with("Resize", &[nothing(x), scales], linear())
                }
            }
        });
        small.grad(small.y).unwrap();
        let dx = &small.run(&[noise(&[3, 1, 2, 3], 1)])[0];
        // Each image counts alike; weights of a pixel sum up to 1.
        assert_eq!((dx.len(), &dx[..6]), (18, &dx[6..12]));
        let pixels = if by_sizes { 20.0 } else { 8.0 };
        let sum: f64 = dx[..6].iter().sum();
        assert!((sum - pixels).abs() < 1e-6, "{sum}");
    }
}

#[test]
fn an_axis_that_may_be_stretched_is_named() {
    let shape = |name: &str| vec![Dim::Known(2), Dim::symbol(name)];
    let mut small = Small::symbolic(&[shape("n"), shape("m")], |x| x[0] * x[1]);
    let before = small.model.clone();
    let e = small.grad(small.y).unwrap_err();
    assert!(matches!(e.kind(), DiffErrorKind::Node(_)));
    let text = e.to_string();
    for part in [
        "Mul",
        "opset 27",
        "axis 1 of input 0",
        "n elements",
        "set its size",
    ] {
        assert!(text.contains(part), "{text}: {part}");
    }
    assert_eq!(small.model, before);
}

#[test]
fn an_operator_without_a_gradient_is_named() {
    let mut small = Small::new(&[&[4]], |x| x[0].op("Unique", &[]) * 2.0);
    let before = small.model.clone();
    let text = small.grad(small.y).unwrap_err().to_string();
    for part in ["Unique", "opset 27", "x0", "has no gradient"] {
        assert!(text.contains(part), "{text}: {part}");
    }
    assert_eq!(small.model, before);
}

#[test]
fn whole_numbers_have_no_gradient() {
    let mut small = Small::new(&[&[4]], |x| x[0].op("Shape", &[]));
    let text = small.grad(small.y).unwrap_err().to_string();
    assert!(text.contains("is no float"), "{text}");
}

fn straight(x: &[Tensor], write: Write) -> Vec<Vec<f64>> {
    let shapes: Vec<_> = x.iter().map(Tensor::dims).collect();
    let mut small = Small::new(&shapes, write);
    let of = [(small.y, None)];
    let g = Gradients {
        rounding: Rounding::StraightThrough,
        ..Gradients::new(&of, &small.x)
    };
    let found = differentiate(&mut small.model, &g).unwrap();
    found
        .iter()
        .flatten()
        .for_each(|&v| small.model.graph.output(v, None));
    small.run(x)
}

#[test]
fn rounding_lets_the_gradient_straight_through() {
    let x = [doubles(&[3], &[0.4, -1.2, 7.0])];
    assert_eq!(straight(&x, |x| x[0].op("Round", &[]) * 3.0), [[3.0, 3.0, 3.0]]);
    let mut small = Small::new(&[&[3]], |x| x[0].op("Round", &[]) * 3.0);
    assert_eq!(small.grad(small.y).unwrap(), [None]);
}

#[test]
fn what_quantisation_cuts_off_has_no_gradient() {
    fn pair<'a>(x: &[Ex<'a>]) -> Ex<'a> {
        let float = |x: Ex<'a>, to: DType| x.with("Cast", &[], vec![Attr::new("to", i64::from(to.code()))]);
        let scale = x[0].tensor(Tensor::of(&[2], vec![0.5f32, 1.0]));
        let zero = x[0].tensor(Tensor::of(&[2], vec![0i8, 100]));
        let axis = || vec![Attr::new("axis", 0)];
        let q = float(x[0], DType::F32).with("QuantizeLinear", &[scale, zero], axis());
        float(q.with("DequantizeLinear", &[scale, zero], axis()), DType::F64)
    }
    let x = [doubles(&[2, 3], &[63.5, 63.8, -64.2, 27.0, 28.0, -128.0])];
    let found = straight(&x, |x| pair(x) * 2.0);
    assert_eq!(found, [[2.0, 0.0, 2.0, 2.0, 0.0, 2.0]]);
}

#[test]
fn a_matrix_against_a_batch_is_one_product() {
    let mut small = Small::new(&[&[2, 5, 3], &[3, 4]], |x| x[0].matmul(x[1]));
    small.grad(small.y).unwrap();
    let ops: Vec<_> = small.model.graph.iter().map(|(_, n)| n.op.to_string()).collect();
    assert!(!ops.contains(&"ReduceSum".to_owned()), "{ops:?}");
    let ones = gradients(&[noise(&[2, 5, 3], 1), noise(&[3, 4], 2)], |x| x[0].matmul(x[1]));
    assert_eq!(ones[1].len(), 12);
}
