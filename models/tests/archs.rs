//! Every architecture: its parameters, its shapes, and what comes out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

use secateur_engine::ir::{DType, Port, Type};
use secateur_engine::{Model, Session, Tensor};
use secateur_models::{Random, Sizes, arch};

fn build(name: &str, sizes: &[(&str, usize)]) -> Model {
    let arch = arch(name).unwrap();
    let sizes: Vec<_> = sizes.iter().map(|&(n, v)| (n.to_owned(), v)).collect();
    arch.write(&Sizes::of(arch, &sizes).unwrap(), Random::new(1))
        .unwrap()
}

/// Elements of all named float initialisers; statistics of BatchNormalization, which are not learned, are left out.
fn parameters(m: &Model) -> usize {
    let learned = |name: &str| name.ends_with(".weight") || name.ends_with(".bias");
    let tensors = m
        .graph
        .initializers
        .iter()
        .map(|&v| (&m.graph[v].name, m.graph.konst(v).unwrap()));
    tensors
        .filter(|(name, _)| learned(name))
        .map(|(_, t)| t.len())
        .sum()
}

/// Inputs of this shape: floats from 0 to 1, and whole numbers below `below`.
fn inputs(m: &Model, dims: &[usize], below: usize, seed: u64) -> Vec<(String, Tensor)> {
    let mut r = Random::new(seed);
    let n: usize = dims.iter().product();
    let mut draw = |p: &Port| {
        let tensor = match p.ty.as_ref().unwrap().ty.dtype() {
            Some(DType::I64) => Tensor::of(dims, (0..n).map(|_| r.below(below) as i64).collect::<Vec<i64>>()),
            _ => Tensor::of(dims, r.between(n, 0.0, 1.0)),
        };
        (m.graph[p.value].name.to_string(), tensor)
    };
    m.graph.inputs.iter().map(&mut draw).collect()
}

/// Checks that the outputs are finite, neither vanish nor explode, and depend on the inputs.
fn sane(m: &Model, dims: &[usize], below: usize, want: &[usize]) {
    let session = Session::builder(m).threads(2).build().unwrap();
    let run = |seed| {
        let inputs = inputs(m, dims, below, seed);
        let outputs = session.run(inputs.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
        let y = outputs.tensors().next().unwrap().1;
        assert_eq!(y.dims(), want);
        y.floats().unwrap()
    };
    let y = run(1);
    let mean = y.iter().sum::<f64>() / y.len() as f64;
    let std = (y.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / y.len() as f64).sqrt();
    assert!(
        (0.05..20.0).contains(&std),
        "mean {mean}, standard deviation {std}"
    );
    assert_ne!(y, run(2));
    let declared = &m.graph.outputs[0].ty.as_ref().unwrap().ty;
    assert!(
        matches!(declared, Type::Tensor { shape: Some(s), .. } if s.len() == want.len()),
        "{declared}"
    );
}

#[test]
fn lenet_300_100() {
    let m = build("lenet-300-100", &[]);
    assert_eq!(parameters(&m), 266_610);
    sane(&m, &[3, 784], 0, &[3, 10]);
}

#[test]
fn lenet5() {
    let m = build("lenet5", &[]);
    assert_eq!(parameters(&m), 61_706);
    sane(&m, &[2, 1, 28, 28], 0, &[2, 10]);
}

#[test]
fn alexnet() {
    let m = build("alexnet", &[("hidden", 100)]);
    // Of 61,100,840 the three layers at the end have all but these.
    let layers = |h: usize| 9217 * h + (h + 1) * h + (h + 1) * 1000;
    assert_eq!(parameters(&m), 61_100_840 - layers(4096) + layers(100));
    sane(&m, &[1, 3, 224, 224], 0, &[1, 1000]);
}

#[test]
fn resnet50() {
    let m = build("resnet50", &[("size", 32)]);
    assert_eq!(parameters(&m), 25_557_032);
    sane(&m, &[1, 3, 32, 32], 0, &[1, 1000]);
}

#[test]
fn mobilenetv2() {
    let m = build("mobilenetv2", &[("size", 64), ("classes", 10)]);
    assert_eq!(parameters(&m), 3_504_872 - 990 * 1281);
    sane(&m, &[2, 3, 64, 64], 0, &[2, 10]);
}

#[test]
fn bert() {
    let small = [
        ("hidden", 96),
        ("heads", 4),
        ("ffn", 192),
        ("vocab", 100),
        ("positions", 20),
    ];
    let m = build("bert-base", &small);
    let layer = 4 * (96 * 96 + 96) + 2 * 96 * 192 + 192 + 96 + 4 * 96;
    assert_eq!(parameters(&m), (100 + 20 + 2 + 2) * 96 + 12 * layer);
    sane(&m, &[2, 9], 2, &[2, 9, 96]);
    let fixed = build("bert-base", &[&small[..], &[("seq", 9), ("layers", 1)]].concat());
    assert!(
        fixed.graph.inputs[0]
            .ty
            .as_ref()
            .unwrap()
            .ty
            .to_string()
            .contains('9')
    );
}

#[test]
fn attention_and_gelu_of_bert_are_recognised() {
    let m = build(
        "bert-base",
        &[
            ("hidden", 32),
            ("heads", 2),
            ("ffn", 64),
            ("vocab", 50),
            ("layers", 3),
        ],
    );
    let session = Session::builder(&m).build().unwrap();
    let count = |op: &str| session.model().graph.iter().filter(|(_, n)| &*n.op == op).count();
    assert_eq!((count("Attention"), count("Softmax"), count("Erf")), (3, 0, 0));
}

#[test]
fn sizes_must_fit_together() {
    let refused = |given: &[(&str, usize)]| {
        let bert = arch("bert-base").unwrap();
        let given: Vec<_> = given.iter().map(|&(n, v)| (n.to_owned(), v)).collect();
        bert.write(&Sizes::of(bert, &given).unwrap(), Random::new(0))
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&[("heads", 7)]).contains("multiple of heads"));
    assert!(refused(&[("seq", 600)]).contains("positions"));
}

#[test]
fn the_seed_decides() {
    let lenet = arch("lenet5").unwrap();
    let write = |seed| {
        let m = lenet
            .write(&Sizes::of(lenet, &[]).unwrap(), Random::new(seed))
            .unwrap();
        m.graph
            .konst(m.graph.find("fc1.weight").unwrap())
            .unwrap()
            .clone()
    };
    assert_eq!(write(1), write(1));
    assert_ne!(write(1), write(2));
}
