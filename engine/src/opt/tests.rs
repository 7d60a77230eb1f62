//! Patterns and rules on small graphs, each compared with the reference before and after.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use super::*;
use crate::expr::{Builder, Ex};
use crate::ir::{DType, Dim, Graph, Node, Tensor, Type, ValueId};
use crate::ops::case::floats;
use crate::run::Session;

/// A model `y = write(x)` of float vectors at `opset`.
fn model(opset: i64, write: impl for<'a> Fn(Ex<'a>) -> Ex<'a>) -> Model {
    let mut m = Model::default();
    m.opsets.push(crate::ir::Opset {
        domain: None,
        version: Some(opset),
        extra: Default::default(),
    });
    let x = m
        .graph
        .input("x", Type::tensor(DType::F32, [Dim::symbol("n"), Dim::Known(8)]));
    append(&mut m.graph, opset, x, write);
    m
}

/// Appends `write(x)` as the next output.
fn append(g: &mut Graph, opset: i64, x: ValueId, write: impl for<'a> Fn(Ex<'a>) -> Ex<'a>) {
    let b = Builder::new(g, opset);
    let y = write(b.at(x)).id;
    b.finish().apply(g).unwrap();
    g.output(y, None);
}

fn ops(m: &Model) -> Vec<String> {
    m.graph.iter().map(|(_, n)| infer::full_name(n)).collect()
}

/// Optimises `m`, checks that it computes the same, and returns its operators.
fn optimised(m: &Model, scope: Scope) -> Vec<String> {
    let mut new = m.clone();
    optimize(&mut new, scope).unwrap();
    let x = floats(&[3, 8], 7);
    let run = |m: &Model| {
        Session::builder(m)
            .unoptimized()
            .build()
            .unwrap()
            .run([("x", &x)])
            .unwrap()
    };
    let before = run(m);
    // Private operators are not in the model's opsets, so that only a session that optimises may use them.
    let after = match scope {
        Scope::Portable => run(&new),
        Scope::Engine => Session::builder(m).build().unwrap().run([("x", &x)]).unwrap(),
    };
    for (a, b) in before
        .tensors()
        .map(|(_, t)| t)
        .zip(after.tensors().map(|(_, t)| t))
    {
        let (a, b) = (a.floats().unwrap(), b.floats().unwrap());
        assert!(
            a.iter()
                .zip(&b)
                .all(|(a, b)| (a - b).abs() <= 1e-5 + 1e-5 * b.abs()),
            "{a:?} {b:?}"
        );
    }
    ops(&new)
}

/// As exporters write it, in single precision.
const ROOT: f64 = SQRT_2 as f32 as f64;

const GELUS: &[for<'a> fn(Ex<'a>) -> Ex<'a>] = &[
    |x| x * ((x / SQRT_2).erf() + 1.0) * 0.5,
    |x| ((x * FRAC_1_SQRT_2).erf() + 1.0) * (x * 0.5),
    |x| (x * 0.5) * (x.constant(1.0) + (x / ROOT).erf()),
    |x| x * (((x / ROOT).erf() + 1.0) / 2.0),
    |x| x.constant(0.5) * (x * ((x * (1.0 / ROOT)).erf() - (-1.0))),
];

#[test]
fn every_spelling_of_gelu_becomes_one_node() {
    for write in GELUS {
        assert_eq!(optimised(&model(20, write), Scope::Portable), ["Gelu"]);
        assert_eq!(optimised(&model(13, write), Scope::Engine), ["Gelu"]);
    }
}

#[test]
fn an_operator_of_a_later_opset_is_not_written() {
    let m = model(13, GELUS[0]);
    assert!(!optimised(&m, Scope::Portable).contains(&"Gelu".to_owned()));
}

#[test]
fn near_misses_stay_as_they_are() {
    let misses: &[for<'a> fn(Ex<'a>) -> Ex<'a>] = &[
        |x| x * ((x / 1.5).erf() + 1.0) * 0.5,
        |x| x * ((x / ROOT).erf() + 1.0) * 0.6,
        |x| x * ((x / ROOT).tanh() + 1.0) * 0.5,
        |x| x * (((x + 1.0) / ROOT).erf() + 1.0) * 0.5,
    ];
    for write in misses {
        let found = optimised(&model(20, write), Scope::Engine);
        assert!(!found.contains(&"Gelu".to_owned()), "{found:?}");
    }
}

#[test]
fn a_neutral_constant_may_be_left_out() {
    assert_eq!(
        optimised(&model(24, |x| x * x.sigmoid()), Scope::Portable),
        ["Swish"]
    );
    let mut m = model(24, |x| x * (x * 1.702).sigmoid());
    optimize(&mut m, Scope::Portable).unwrap();
    let node = &m.graph[m.graph.order[0]];
    assert_eq!(node.attr("alpha"), Some(&1.702f32.into()));
}

#[test]
fn an_intermediate_that_is_read_elsewhere_stops_a_fusion_and_says_so() {
    let mut m = model(24, |x| x * x.sigmoid());
    let inner = m.graph[m.graph.order[0]].outputs[0].unwrap();
    m.graph.output(inner, None);
    let report = optimize(&mut m, Scope::Portable).unwrap();
    assert_eq!(ops(&m), ["Sigmoid", "Mul"]);
    let why = Some(Why::No("an intermediate value is read elsewhere"));
    assert!(
        report
            .events
            .iter()
            .any(|e| e.rule == "Swish" && e.refused == why),
        "{report:?}"
    );
}

#[test]
fn an_unknown_operator_survives() {
    let mut m = model(24, |x| x * x.sigmoid());
    let (y, z) = (m.graph.outputs[0].value, m.graph.value("z"));
    let magic = Node {
        domain: Some("com.acme".into()),
        attrs: vec![crate::ir::Attr::new("spell", 7)],
        ..Node::new("Gelu", vec![Some(y), None], vec![Some(z)])
    };
    m.graph.node(magic.clone());
    m.graph.outputs.clear();
    m.graph.output(z, None);
    optimize(&mut m, Scope::Portable).unwrap();
    assert_eq!(m.graph[*m.graph.order.last().unwrap()], magic);
}

#[test]
fn equal_nodes_are_merged_and_dead_ones_go() {
    let mut m = model(13, |x| x.exp() + x.exp());
    append(&mut m.graph, 13, ValueId(0), |x| x.tanh());
    m.graph.outputs.pop();
    assert_eq!(optimised(&m, Scope::Portable), ["Exp", "Add"]);
}

#[test]
fn shapes_are_folded_only_where_they_are_known() {
    let m = model(13, |x| {
        let size = x.op("Shape", &[]);
        let last = size.op("Gather", &[x.tensor(Tensor::scalar(1i64))]);
        x * last.with("Cast", &[], vec![crate::ir::Attr::new("to", 1)])
    });
    assert_eq!(optimised(&m, Scope::Portable), ["Mul"]);
    let m = model(13, |x| {
        let first = x.op("Shape", &[]).op("Gather", &[x.tensor(Tensor::scalar(0i64))]);
        x * first.with("Cast", &[], vec![crate::ir::Attr::new("to", 1)])
    });
    assert_eq!(optimised(&m, Scope::Portable), ["Shape", "Gather", "Cast", "Mul"]);
}

#[test]
fn bias_residual_and_activation_join_the_product() {
    let m = model(13, |x| {
        let w = x.tensor(floats(&[8, 8], 1));
        let b = x.tensor(floats(&[8], 2));
        (x.matmul(w) + b + x).op("Relu", &[])
    });
    assert_eq!(optimised(&m, Scope::Engine), ["secateur.MatMul"]);
    assert_eq!(optimised(&m, Scope::Portable), ["MatMul", "Add", "Add", "Relu"]);
}

#[test]
fn a_residual_that_broadcasts_stays_outside() {
    let m = model(13, |x| {
        x.matmul(x.tensor(floats(&[8, 8], 1))) + x.op("ReduceMax", &[])
    });
    assert_eq!(optimised(&m, Scope::Engine), ["MatMul", "ReduceMax", "Add"]);
}

#[test]
fn an_identity_goes_but_names_stay() {
    let mut m = model(13, |x| x.exp().op("Identity", &[]));
    let name = m.graph[m.graph.outputs[0].value].name.clone();
    optimize(&mut m, Scope::Portable).unwrap();
    assert_eq!(
        (ops(&m), &m.graph[m.graph.outputs[0].value].name),
        (vec!["Exp".into()], &name)
    );
    let m = model(13, |x| x.op("Identity", &[]));
    assert_eq!(optimised(&m, Scope::Portable), ["Identity"]);
}

#[test]
fn disorder_is_put_in_order() {
    let mut m = model(13, |x| x.exp().tanh());
    m.graph.order.reverse();
    assert_eq!(optimised(&m, Scope::Portable), ["Exp", "Tanh"]);
}
