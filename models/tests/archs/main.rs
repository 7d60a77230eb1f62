//! Every architecture: its parameters and shapes, what comes out, what must hold of it, and that it learns.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

mod counts;
mod laws;
mod steps;
mod tasks;
mod text;

use secateur_engine::expr::Ex;
use secateur_engine::ir::{Constant, DType, Port};
use secateur_engine::{Model, Session, Tensor};
use secateur_models::{ARCHS, Draft, Net, Random, arch};

/// Settings of an architecture.
type Set = &'static [(&'static str, &'static str)];

/// Every architecture, as small as it may be used.
static SMALL: &[(&str, Set)] = &[
    (
        "alexnet",
        &[
            ("classes", "3"),
            ("channels", "1"),
            ("height", "63"),
            ("width", "65"),
            ("hidden", "8"),
        ],
    ),
    ("autoencoder", &[("features", "20"), ("hidden", "4")]),
    ("bert-base", BERT),
    (
        "conv4",
        &[
            ("classes", "3"),
            ("height", "8"),
            ("width", "12"),
            ("filters", "4"),
        ],
    ),
    (
        "densenet",
        &[
            ("classes", "3"),
            ("height", "8"),
            ("width", "8"),
            ("layers", "2"),
            ("growth", "4"),
        ],
    ),
    (
        "gru",
        &[
            ("classes", "3"),
            ("vocabulary", "20"),
            ("length", "6"),
            ("features", "5"),
            ("hidden", "8"),
        ],
    ),
    (
        "highway",
        &[
            ("classes", "3"),
            ("features", "10"),
            ("layers", "2"),
            ("hidden", "8"),
        ],
    ),
    ("lenet-300-100", &[("classes", "3"), ("features", "10")]),
    ("lenet5", &[("classes", "3"), ("height", "14"), ("width", "12")]),
    ("linear", &[("classes", "3"), ("features", "5")]),
    (
        "lstm",
        &[
            ("classes", "3"),
            ("vocabulary", "0"),
            ("length", "6"),
            ("features", "5"),
            ("hidden", "8"),
            ("layers", "2"),
        ],
    ),
    (
        "mlp",
        &[
            ("classes", "3"),
            ("features", "5"),
            ("hidden", "8"),
            ("activation", "tanh"),
        ],
    ),
    (
        "mobilenetv2",
        &[("classes", "3"), ("height", "32"), ("width", "32")],
    ),
    (
        "resnet20",
        &[
            ("classes", "3"),
            ("height", "8"),
            ("width", "8"),
            ("filters", "4"),
            ("blocks", "1"),
        ],
    ),
    (
        "resnet50",
        &[
            ("classes", "3"),
            ("height", "32"),
            ("width", "32"),
            ("filters", "4"),
        ],
    ),
    (
        "rnn",
        &[
            ("classes", "3"),
            ("vocabulary", "20"),
            ("length", "6"),
            ("features", "5"),
            ("hidden", "8"),
        ],
    ),
    ("transformer", TEXT),
    ("transformer-decoder", TEXT),
    ("transformer-encoder", TEXT),
    ("two-branch", &[("classes", "3"), ("height", "6"), ("width", "5")]),
    (
        "vgg11",
        &[
            ("classes", "3"),
            ("height", "32"),
            ("width", "32"),
            ("filters", "4"),
            ("hidden", "8"),
            ("batchnorm", "yes"),
        ],
    ),
    (
        "vgg16",
        &[
            ("classes", "3"),
            ("height", "32"),
            ("width", "32"),
            ("filters", "4"),
            ("hidden", "8"),
        ],
    ),
    (
        "vit",
        &[
            ("classes", "3"),
            ("height", "8"),
            ("width", "12"),
            ("patch", "4"),
            ("layers", "1"),
            ("hidden", "16"),
            ("heads", "2"),
            ("ffn", "24"),
        ],
    ),
];

const BERT: Set = &[
    ("layers", "2"),
    ("hidden", "16"),
    ("heads", "2"),
    ("ffn", "24"),
    ("vocabulary", "20"),
    ("positions", "12"),
    ("length", "7"),
    ("head", "classify"),
    ("classes", "3"),
];

const TEXT: Set = &[
    ("vocabulary", "20"),
    ("length", "6"),
    ("layers", "1"),
    ("hidden", "16"),
    ("heads", "2"),
    ("ffn", "24"),
];

fn build(name: &str, set: &[(&str, &str)]) -> Model {
    let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    let set: Vec<_> = set.iter().map(own).collect();
    arch(name).unwrap().build(&set, 1).unwrap()
}

/// The architecture `name` of [`SMALL`] with `more` settings.
fn small(name: &str, more: &[(&str, &str)]) -> Model {
    let (_, set) = SMALL.iter().find(|(n, _)| *n == name).unwrap();
    build(name, &[set, more].concat())
}

/// The model of `write` for an input `x` of this shape.
fn network(dims: &[usize], write: impl for<'a> FnOnce(&'a Net<'a>, Ex<'a>) -> Ex<'a>) -> Model {
    let mut d = Draft::new("test");
    let x = d.input("x", dims.iter().copied());
    d.network(Random::new(3), |n| vec![("y".into(), write(n, n.at(x)))])
        .unwrap()
}

/// The initialiser `name`.
fn weight(m: &Model, name: &str) -> Tensor {
    m.graph.konst(m.graph.find(name).unwrap()).unwrap().clone()
}

/// Sets all elements of the initialiser `name`.
fn fill(m: &mut Model, name: &str, value: f32) {
    let old = weight(m, name);
    put(m, name, Tensor::of(old.dims(), vec![value; old.len()]));
}

fn put(m: &mut Model, name: &str, tensor: Tensor) {
    let v = m.graph.find(name).unwrap();
    m.graph[v].konst = Some(Constant::new(tensor));
}

/// Elements of the initialisers whose names end in one of `ends`.
fn elements(m: &Model, ends: &[&str]) -> usize {
    let fits = |name: &str| ends.iter().any(|end| name.ends_with(end));
    let all = m.graph.initializers.iter();
    let all = all.filter(|&&v| fits(&m.graph[v].name));
    all.map(|&v| m.graph.konst(v).unwrap().len()).sum()
}

/// Elements of all that is learned.
fn parameters(m: &Model) -> usize {
    elements(m, &[".weight", ".bias"])
}

/// Inputs for a batch of `batch`: floats from 0 to 1, five words, and sequences that end at different places.
fn inputs(m: &Model, batch: usize, seed: u64) -> Vec<(String, Tensor)> {
    let mut r = Random::new(seed);
    let mut draw = |p: &Port| {
        let (name, ty) = (m.graph[p.value].name.to_string(), &p.ty.as_ref().unwrap().ty);
        let free = |name: &str| if name == "batch" { batch } else { 9 };
        let size = |d: &secateur_engine::ir::Dim| d.size().unwrap_or_else(|| free(&d.to_string()));
        let dims: Vec<usize> = ty.shape().unwrap().iter().map(size).collect();
        let n = dims.iter().product();
        let word = |i: usize, r: &mut Random| match &*name {
            "attention_mask" | "source_mask" => i64::from(i % dims[1] + i / dims[1] < dims[1]),
            "token_type_ids" => r.below(2) as i64,
            _ => r.below(5) as i64,
        };
        let tensor = match ty.dtype() {
            Some(DType::I64) => Tensor::of(&dims, (0..n).map(|i| word(i, &mut r)).collect::<Vec<i64>>()),
            _ => Tensor::of(&dims, r.between(n, 0.0, 1.0)),
        };
        (name, tensor)
    };
    m.graph.inputs.iter().map(&mut draw).collect()
}

/// The outputs of `m` in order, and then its values `taps`.
fn run(m: &Model, inputs: &[(String, Tensor)], taps: &[&str]) -> Vec<Tensor> {
    let session = Session::builder(m).threads(2);
    let session = taps.iter().fold(session, |s, tap| s.tap(*tap)).build().unwrap();
    let outputs = session.run(inputs.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
    outputs.tensors().map(|(_, t)| t.clone()).collect()
}

/// The first output of `m`, whose one input is `x`.
fn apply(m: &Model, x: &Tensor) -> Vec<f64> {
    let name = m.graph[m.graph.inputs[0].value].name.to_string();
    run(m, &[(name, x.clone())], &[])[0].floats().unwrap()
}

#[track_caller]
fn near(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    let far = a
        .iter()
        .zip(b)
        .find(|(a, b)| (*a - *b).abs() > tolerance * b.abs().max(1.0));
    assert!(far.is_none() && !a.iter().any(|x| x.is_nan()), "{far:?}");
}

#[test]
fn every_architecture_gives_what_its_operators_define() {
    let names: Vec<&str> = SMALL.iter().map(|(name, _)| *name).collect();
    let all: Vec<&str> = ARCHS.iter().map(|a| a.name()).collect();
    assert_eq!(names, all);
    for (name, set) in SMALL {
        let m = build(name, set);
        let inputs = inputs(&m, 2, 7);
        let slow = Session::builder(&m).reference().build().unwrap();
        let slow = slow.run(inputs.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
        let fast = run(&m, &inputs, &[]);
        for ((output, expected), y) in slow.tensors().zip(&fast) {
            println!("{name}: {output} {:?}", y.dims());
            assert_eq!(y.dims(), expected.dims());
            near(&y.floats().unwrap(), &expected.floats().unwrap(), 1e-4);
        }
    }
}
