//! Gradients through `If`, `Loop` and `Scan`, against central differences of the reference.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

use secateur_engine::ir::{
    Attr, AttrValue, Bytes, DType, Dim, Graph, Model, Node, Opset, Type, ValueId, verify,
};
use secateur_engine::ops::case::floats;
use secateur_engine::{Session, Tensor, onnx};
use secateur_train::{Gradients, differentiate};

/// A graph written by names.
#[derive(Default)]
struct Text(Graph);

impl Text {
    fn at(&mut self, name: &str) -> ValueId {
        let known = self.0.find(name);
        known.unwrap_or_else(|| self.0.value(name))
    }

    fn input(mut self, name: &str, dtype: DType, dims: &[usize]) -> Text {
        self.0.input(name, Type::tensor(dtype, dims.iter().copied()));
        self
    }

    fn constant(mut self, name: &str, t: Tensor) -> Text {
        self.0.constant(name, t);
        self
    }

    /// `"y z = Split a b"`
    fn line(self, line: &str) -> Text {
        self.with(line, vec![])
    }

    fn with(mut self, line: &str, attrs: Vec<Attr>) -> Text {
        let (made, call) = line.split_once(" = ").unwrap();
        let (op, read) = call.split_once(' ').unwrap_or((call, ""));
        let read = read.split_whitespace().map(|n| Some(self.at(n))).collect();
        let made = made.split_whitespace().map(|n| Some(self.at(n))).collect();
        let node = Node {
            attrs,
            ..Node::new(op, read, made)
        };
        self.0.node(node);
        self
    }

    fn out(mut self, names: &str) -> Graph {
        for name in names.split_whitespace() {
            let v = self.at(name);
            self.0.output(v, None);
        }
        self.0
    }
}

fn graph(name: &str, g: Graph) -> Attr {
    Attr::new(name, AttrValue::Graph(Box::new(g)))
}

fn numbers(dims: &[usize], seed: u64) -> Tensor {
    let values = floats(dims, seed).floats().unwrap();
    Tensor::rounded(DType::F64, dims, &values).unwrap()
}

fn model(graph: Graph) -> Model {
    let opsets = vec![Opset {
        domain: Some("".into()),
        version: Some(21),
        extra: Default::default(),
    }];
    Model {
        ir_version: Some(10),
        opsets,
        graph,
        ..Model::default()
    }
}

type Feeds = Vec<(&'static str, Tensor)>;

fn run(m: &Model, feeds: &Feeds, reference: bool) -> Vec<Tensor> {
    let builder = Session::builder(m).threads(1);
    let session = if reference { builder.reference() } else { builder };
    let session = session.build().unwrap();
    let names: Vec<_> = session.inputs().map(|(n, _)| n.to_owned()).collect();
    let feeds = feeds.iter().filter(|(n, _)| names.iter().any(|m| m == n));
    let feeds: Vec<_> = feeds.map(|(n, t)| (*n, t)).collect();
    let outputs = session.run(feeds).unwrap();
    outputs.tensors().map(|(_, t)| t.clone()).collect()
}

/// The sum of all floats that `m` makes.
fn sum(m: &Model, feeds: &Feeds) -> f64 {
    let all = run(m, feeds, true).into_iter().filter(|t| t.dtype().is_float());
    all.flat_map(|t| t.floats().unwrap()).sum()
}

/// Replaces the outputs of `m` by the gradients of the sum of those that are floats.
fn gradient(m: &Model, by: &[&str]) -> Model {
    let mut m = m.clone();
    let of: Vec<_> = m.graph.outputs.iter().map(|p| (p.value, None)).collect();
    let by: Vec<_> = by.iter().map(|n| m.graph.find(n).unwrap()).collect();
    let found = differentiate(&mut m, &Gradients::new(&of, &by)).unwrap_or_else(|e| panic!("{e}"));
    m.graph.outputs.clear();
    for v in found {
        m.graph.output(v.unwrap(), None);
    }
    verify(&m.graph).unwrap();
    m
}

/// Compares the gradients of `m` with its slopes, in the engine, the reference, and after a file; then those of the gradients.
fn check(m: &Model, feeds: &Feeds, by: &[&str], order: usize) {
    let d = gradient(m, by);
    let again = onnx::parse(Bytes::new(onnx::to_bytes(&d)), None).unwrap();
    let made = run(&d, feeds, true);
    for other in [run(&d, feeds, false), run(&again, feeds, false)] {
        for (a, b) in made.iter().zip(&other) {
            assert_eq!(a.dims(), b.dims());
            let pairs = a.floats().unwrap().into_iter().zip(b.floats().unwrap());
            pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-9 * (1.0 + a.abs()), "{a} and {b}"));
        }
    }
    for (name, dx) in by.iter().zip(&made) {
        let i = feeds.iter().position(|(n, _)| n == name).unwrap();
        let x = feeds[i].1.floats().unwrap();
        assert_eq!(feeds[i].1.dims(), dx.dims(), "{name}");
        for (at, dx) in dx.floats().unwrap().into_iter().enumerate() {
            let end = |h: f64| {
                let (mut f, mut v) = (feeds.clone(), x.clone());
                v[at] += h;
                f[i].1 = Tensor::rounded(DType::F64, feeds[i].1.dims(), &v).unwrap();
                sum(m, &f)
            };
            let slope = (end(1e-5) - end(-1e-5)) / 2e-5;
            assert!(
                (slope - dx).abs() < 1e-5 * (1.0 + slope.abs()),
                "order {order}, {name}[{at}]: gradient {dx}, slope {slope}"
            );
        }
    }
    if order > 1 {
        check(&d, feeds, by, order - 1);
    }
}

/// A recurrent layer whose weights are captured.
fn recurrent(directions: i64) -> Model {
    let body = Text::default()
        .input("h", DType::F64, &[2, 3])
        .input("x", DType::F64, &[2, 4])
        .line("xw = MatMul x W")
        .line("hr = MatMul h R")
        .line("s = Add xw hr")
        .line("t = Tanh s")
        .line("more = Mul t t")
        .out("t more");
    let g = Text::default()
        .input("X", DType::F64, &[5, 2, 4])
        .input("H", DType::F64, &[2, 3])
        .input("W", DType::F64, &[4, 3])
        .input("R", DType::F64, &[3, 3])
        .with(
            "last all = Scan H X",
            vec![
                graph("body", body),
                Attr::new("num_scan_inputs", 1),
                Attr::new("scan_input_directions", vec![directions]),
                Attr::new("scan_output_directions", vec![directions]),
                Attr::new("scan_output_axes", vec![1i64]),
            ],
        )
        .line("y = Sin all")
        .out("last y");
    model(g)
}

fn recurrent_feeds() -> Feeds {
    vec![
        ("X", numbers(&[5, 2, 4], 1)),
        ("H", numbers(&[2, 3], 2)),
        ("W", numbers(&[4, 3], 3)),
        ("R", numbers(&[3, 3], 4)),
    ]
}

#[test]
fn a_scan_forward() {
    check(&recurrent(0), &recurrent_feeds(), &["X", "H", "W", "R"], 2);
}

#[test]
fn a_scan_backward() {
    check(&recurrent(1), &recurrent_feeds(), &["X", "R"], 1);
}

#[test]
fn either_branch() {
    let g = || {
        let then = Text::default()
            .line("a = Sin x")
            .line("b = Mul a z")
            .line("c = Mul b b")
            .out("c");
        let other = Text::default().line("d = Exp x").out("d");
        let g = Text::default()
            .input("go", DType::Bool, &[])
            .input("x", DType::F64, &[3])
            .input("w", DType::F64, &[3])
            .line("z = Mul w w")
            .with(
                "y = If go",
                vec![graph("then_branch", then), graph("else_branch", other)],
            )
            .line("u = Mul y w");
        model(g.out("u"))
    };
    for go in [true, false] {
        let feeds = vec![
            ("go", Tensor::bools(&[], [go])),
            ("x", numbers(&[3], 1)),
            ("w", numbers(&[3], 2)),
        ];
        check(&g(), &feeds, &["x", "w"], 2);
    }
}

/// `x` times `w`, plus the number of the turn, a number of times.
fn power() -> Model {
    let body = Text::default()
        .input("i", DType::I64, &[])
        .input("go", DType::Bool, &[])
        .input("s", DType::F64, &[2])
        .line("same = Identity go")
        .with("n = Cast i", vec![Attr::new("to", 11)])
        .line("p = Mul s w")
        .line("next = Add p n")
        .line("seen = Mul next next")
        .out("same next seen");
    let g = Text::default()
        .input("x", DType::F64, &[2])
        .input("w", DType::F64, &[2])
        .constant("times", Tensor::scalar(4i64))
        .constant("yes", Tensor::bools(&[], [true]))
        .with("end seen = Loop times yes x", vec![graph("body", body)]);
    model(g.out("end seen"))
}

#[test]
fn a_loop() {
    let feeds = vec![("x", numbers(&[2], 1)), ("w", numbers(&[2], 2))];
    check(&power(), &feeds, &["x", "w"], 2);
}

#[test]
fn a_branch_in_a_loop() {
    let then = Text::default().line("a = Mul s w").line("b = Sin a").out("b");
    let other = Text::default().line("c = Add s x").out("c");
    let body = Text::default()
        .input("i", DType::I64, &[])
        .input("go", DType::Bool, &[])
        .input("s", DType::F64, &[2])
        .constant("two", Tensor::scalar(2i64))
        .line("odd = Mod i two")
        .with("is = Cast odd", vec![Attr::new("to", 9)])
        .line("same = Identity go")
        .with(
            "next = If is",
            vec![graph("then_branch", then), graph("else_branch", other)],
        )
        .out("same next");
    let g = Text::default()
        .input("x", DType::F64, &[2])
        .input("w", DType::F64, &[2])
        .constant("times", Tensor::scalar(5i64))
        .constant("yes", Tensor::bools(&[], [true]))
        .with("end = Loop times yes x", vec![graph("body", body)]);
    let feeds = vec![("x", numbers(&[2], 1)), ("w", numbers(&[2], 2))];
    check(&model(g.out("end")), &feeds, &["x", "w"], 1);
}

#[test]
fn what_has_no_gradient_is_named() {
    let body = Text::default()
        .input("e", DType::F64, &[2])
        .line("f = Mul e w")
        .out("f");
    let g = Text::default()
        .input("x", DType::F64, &[2])
        .input("w", DType::F64, &[2])
        .line("list = SequenceConstruct x x")
        .with("made = SequenceMap list", vec![graph("body", body)])
        .constant("zero", Tensor::scalar(0i64))
        .line("y = SequenceAt made zero");
    let mut m = model(g.out("y"));
    let (y, w) = (m.graph.find("y").unwrap(), m.graph.find("w").unwrap());
    let before = m.clone();
    let e = differentiate(&mut m, &Gradients::new(&[(y, None)], &[w])).unwrap_err();
    assert!(e.to_string().contains("Sequence"), "{e}");
    assert_eq!(m, before);
}

/// The gradients of an LSTM in both directions, over sequences of several lengths.
fn layer(steps: Dim, batch: Dim, feeds: &Feeds) -> Vec<Tensor> {
    let mut m = model(Graph::default());
    let g = &mut m.graph;
    let x = g.input(
        "X",
        Type::tensor(DType::F64, [steps, batch.clone(), Dim::Known(3)]),
    );
    let lengths = g.input("lengths", Type::tensor(DType::I32, [batch]));
    let w = g.constant("W", numbers(&[2, 8, 3], 1));
    let r = g.constant("R", numbers(&[2, 8, 2], 2));
    let y = g.value("Y");
    let inputs = vec![Some(x), Some(w), Some(r), None, Some(lengths)];
    g.node(Node {
        attrs: vec![
            Attr::new("direction", "bidirectional"),
            Attr::new("hidden_size", 2),
        ],
        ..Node::new("LSTM", inputs, vec![Some(y)])
    });
    g.output(y, None);
    let d = gradient(&m, &["X", "W", "R"]);
    let made = run(&d, feeds, true);
    assert_eq!(made.len(), 3);
    assert!(made.iter().zip(run(&d, feeds, false)).all(|(a, b)| near(a, &b)));
    made
}

fn near(a: &Tensor, b: &Tensor) -> bool {
    let pairs = a.floats().unwrap().into_iter().zip(b.floats().unwrap());
    a.dims() == b.dims()
        && pairs
            .into_iter()
            .all(|(a, b)| (a - b).abs() < 1e-9 * (1.0 + a.abs()))
}

#[test]
fn a_recurrent_layer_need_not_know_steps_and_batch() {
    let feeds = vec![
        ("X", numbers(&[6, 2, 3], 5)),
        ("lengths", Tensor::of(&[2], vec![6i32, 4])),
    ];
    let known = layer(Dim::Known(6), Dim::Known(2), &feeds);
    let unknown = layer(Dim::symbol("t"), Dim::symbol("n"), &feeds);
    assert!(known.iter().zip(&unknown).all(|(a, b)| near(a, b)));
    let x = known[0].floats().unwrap();
    assert!(x[..3].iter().all(|&v| v != 0.0), "the first step counts");
    assert!(
        x[33..].iter().all(|&v| v == 0.0),
        "what lies behind the end does not"
    );
}
