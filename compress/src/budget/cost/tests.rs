use secateur_engine::Tensor;
use secateur_engine::ir::{Attr, AttrValue, Dim, Graph, Node, Opset};
use secateur_engine::onnx::to_bytes;
use secateur_engine::random::Random;

use super::*;

fn cost(model: &Model) -> Costs {
    let rates = Arc::<Rates>::default();
    let sizes = Sizes {
        shapes: vec![],
        threads: 1,
        rates: &rates,
    };
    Costs::new(model, Quantity::Mb, &sizes).unwrap()
}

/// What the file has beside the elements, in bytes; negative where constants are counted that it has not.
fn beside(model: &Model, costs: &Costs) -> f64 {
    let mut written = model.clone();
    sparsify(&mut written);
    to_bytes(&written).len() as f64 - 1e6 * costs.whole
}

/// Integers that are made of `n`, as bytes of weights.
fn bytes(n: u64, dims: &[usize]) -> Tensor {
    let mut random = Random::new(n);
    let all = (0..dims.iter().product()).map(|_| random.below(255) as i64 as i8);
    Tensor::of(dims, all.collect::<Vec<i8>>())
}

/// `x`, of 4 by 64.
fn begun() -> Model {
    let mut model = Model::default();
    model.opsets.push(Opset {
        domain: Some("".into()),
        version: Some(21),
        extra: Default::default(),
    });
    let rows = Type::tensor(DType::F32, [Dim::from(4usize), 64usize.into()]);
    model.graph.input("x", rows);
    model
}

fn op(g: &mut Graph, op: &str, inputs: &[secateur_engine::ir::ValueId]) -> secateur_engine::ir::ValueId {
    let y = g.value(format!("y{}", g.values.len()));
    let inputs = inputs.iter().copied().map(Some).collect();
    g.node(Node::new(op, inputs, vec![Some(y)]));
    y
}

#[test]
fn quantised_weights_count_by_their_bytes() {
    let mut model = begun();
    let g = &mut model.graph;
    let x = g.find("x").unwrap();
    let [w, scale, zero] = [
        ("w", bytes(1, &[64, 128])),
        ("scale", Tensor::scalar(0.1f32)),
        ("zero", Tensor::scalar(0i8)),
    ]
    .map(|(name, t)| g.constant(name, t));
    let w = op(g, "DequantizeLinear", &[w, scale, zero]);
    let y = op(g, "MatMul", &[x, w]);
    let last = g.constant("last", Random::new(2).normals(&[128, 8], 0.0, 1.0));
    let y = op(g, "MatMul", &[y, last]);
    g.output(y, None);
    let costs = cost(&model);
    let of = |name| (1e6 * costs.of[name]).round();
    assert_eq!(
        [of("w"), of("scale"), of("zero"), of("last")],
        [8192.0, 4.0, 1.0, 4096.0]
    );
    assert!((1e6 * costs.whole - 12293.0).abs() < 1e-6);
    assert!((0.0..400.0).contains(&beside(&model, &costs)));
}

/// Indices, halves of bytes, texts, and constants of nodes.
#[test]
fn constants_that_are_no_weights_count() {
    let mut model = begun();
    let g = &mut model.graph;
    let all = [
        ("places", Tensor::of(&[500], (0..500).collect::<Vec<i64>>())),
        ("words", Tensor::texts(&[2], ["eight by", "te"])),
        ("nibbles", Tensor::zeros(DType::I4, &[33]).unwrap()),
        ("truths", Tensor::bools(&[9], [true; 9])),
    ];
    all.into_iter().for_each(|(name, t)| {
        let v = g.constant(name, t);
        g.output(v, None);
    });
    let held = g.value("held");
    let mut node = Node::new("Constant", vec![], vec![Some(held)]);
    let table = Constant::new(Tensor::of(&[40, 8], vec![0f32; 320]));
    node.attrs.push(Attr::new("value", AttrValue::Tensor(table)));
    g.node(node);
    let costs = cost(&model);
    let of = |name| (1e6 * costs.of[name]).round();
    let names = ["places", "words", "nibbles", "truths", "held"];
    // What a node holds stays dense, zeros or not.
    assert_eq!(names.map(of), [4000.0, 10.0, 17.0, 9.0, 1280.0]);
    assert_eq!(costs.of.len(), names.len());
    assert!((0.0..400.0).contains(&beside(&model, &costs)));
}

#[test]
fn constants_of_subgraphs_count_and_stay_dense() {
    let mut model = begun();
    let branch = |n| {
        let mut g = Graph::default();
        let w = g.constant(format!("w{n}"), rare(n, &[64, 64]));
        let q = g.constant(format!("q{n}"), bytes(n, &[32, 64]));
        [w, q].iter().for_each(|v| g.output(*v, None));
        g
    };
    let g = &mut model.graph;
    let yes = g.constant("yes", Tensor::bools(&[], [true]));
    let (w, q) = (g.value("w"), g.value("q"));
    let mut node = Node::new("If", vec![Some(yes)], vec![Some(w), Some(q)]);
    for (name, n) in [("then_branch", 1), ("else_branch", 2)] {
        node.attrs
            .push(Attr::new(name, AttrValue::Graph(branch(n).into())));
    }
    g.node(node);
    let main = g.constant("main", rare(3, &[64, 64]));
    let x = g.find("x").unwrap();
    let y = op(g, "MatMul", &[x, main]);
    g.output(y, None);
    let costs = cost(&model);
    assert_eq!(costs.of.len(), 6, "{costs:?}");
    let live = 4096.0 / 16.0;
    let expected = 2.0 * (4.0 * 4096.0 + 2048.0) + 1.0 + live * 12.0;
    assert!((1e6 * costs.whole - expected).abs() < 1e-6, "{costs:?}");
    assert!((0.0..1000.0).contains(&beside(&model, &costs)));
}

/// Floats of which one in 16 is not zero.
fn rare(n: u64, dims: &[usize]) -> Tensor {
    let all: Vec<f64> = Random::new(n).normals(dims, 1.0, 0.1).floats().unwrap();
    let all = all.into_iter().enumerate();
    let kept = all.map(|(i, x)| if i % 16 == 0 { x as f32 } else { 0.0 });
    Tensor::of(dims, kept.collect())
}
