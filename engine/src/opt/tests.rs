//! Patterns and rules on small graphs, each compared with the reference before and after.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

mod group;
mod recognition;

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

/// Every spelling of the approximation by `tanh`, of the factor `c`.
fn gelu_tanh<'a>(x: Ex<'a>, spelling: usize, c: f64) -> Ex<'a> {
    let cube = match spelling {
        0 => x + x * x * x * c,
        1 => x + x.op("Pow", &[x.constant(3.0)]) * c,
        2 => x * (x * x * c + 1.0),
        _ => x * (x.constant(1.0) + x.op("Pow", &[x.constant(2.0)]) * c),
    };
    (x * 0.5) * ((cube * 0.797_884_6).tanh() + 1.0)
}

#[test]
fn every_spelling_of_the_approximation_of_gelu_becomes_one_node() {
    for spelling in 0..4 {
        let m = |opset, c| model(opset, move |x| gelu_tanh(x, spelling, c));
        assert_eq!(
            optimised(&m(20, 0.044715), Scope::Portable),
            ["Gelu"],
            "{spelling}"
        );
        assert_eq!(optimised(&m(13, 0.044715), Scope::Engine), ["Gelu"], "{spelling}");
        assert!(optimised(&m(13, 0.044715), Scope::Portable).contains(&"Tanh".into()));
        assert!(
            refusals(&m(13, 0.044715), "gelu-tanh")
                .iter()
                .any(|why| why.contains("opset"))
        );
        assert!(
            !optimised(&m(20, 0.05), Scope::Engine).contains(&"Gelu".into()),
            "{spelling}"
        );
        let read = tapped(m(20, 0.044715), "Tanh");
        assert!(!optimised(&read, Scope::Portable).contains(&"Gelu".into()));
        assert!(refusals(&read, "gelu-tanh").contains(&ELSEWHERE.to_owned()));
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
fn numbers_behind_an_activation_join_the_product() {
    let of = |number: Tensor| {
        model(13, move |x| {
            let y = x.matmul(x.tensor(floats(&[8, 8], 1))).op("Relu", &[]);
            y.op("Mul", &[x.constant(0.5)])
                .op("Add", &[x.tensor(number.clone())])
        })
    };
    let m = of(floats(&[1, 1], 2));
    assert_eq!(optimised(&m, Scope::Engine), ["secateur.MatMul"]);
    assert_eq!(optimised(&m, Scope::Portable), ["MatMul", "Relu", "Mul", "Add"]);
    let whys = |number| refusals(&of(number), "scaled").join(", ");
    assert!(whys(floats(&[8], 2)).contains("no single constant"));
    assert!(whys(floats(&[1, 1, 1], 2)).contains("more axes"));
}

#[test]
fn a_factor_of_each_column_is_in_the_weights() {
    let of = |factor: Tensor| {
        model(13, move |x| {
            let y = x.matmul(x.tensor(floats(&[8, 8], 1))) + x.tensor(floats(&[8], 2));
            y.op("Mul", &[x.tensor(factor.clone())]) + x
        })
    };
    for dims in [&[8][..], &[1, 8], &[], &[1, 1]] {
        let m = of(floats(dims, 3));
        assert_eq!(optimised(&m, Scope::Portable), ["MatMul", "Add", "Add"]);
    }
    let m = of(floats(&[3, 1], 3));
    assert_eq!(optimised(&m, Scope::Portable), ["MatMul", "Add", "Mul", "Add"]);
}

#[test]
fn a_residual_that_broadcasts_stays_outside() {
    let m = model(13, |x| {
        x.matmul(x.tensor(floats(&[8, 8], 1))) + x.op("ReduceMax", &[])
    });
    assert_eq!(optimised(&m, Scope::Engine), ["MatMul", "ReduceMax", "Add"]);
}

#[test]
fn a_product_is_no_residual_of_itself() {
    let m = model(13, |x| {
        let y = x.matmul(x.tensor(floats(&[8, 8], 1)));
        y + y
    });
    assert_eq!(optimised(&m, Scope::Engine), ["MatMul", "Add"]);
}

fn refusals(m: &Model, rule: &str) -> Vec<String> {
    let scope = RULES.iter().find(|r| r.name() == rule).unwrap().scope();
    let report = optimize(&mut m.clone(), scope).unwrap();
    let of = |e: Event| (e.rule == rule).then_some(e.refused?);
    let all = report.events.into_iter().filter_map(of);
    all.map(|why| why.to_string()).collect()
}

/// `m` with the output of its first node of operator `op` as an output too.
fn tapped(mut m: Model, op: &str) -> Model {
    let (_, node) = m.graph.iter().find(|(_, n)| n.is(op)).unwrap();
    let v = node.outputs[0].unwrap();
    m.graph.output(v, None);
    m
}

const ELSEWHERE: &str = "an intermediate value is read elsewhere";

fn share(x: Ex<'_>) -> Ex<'_> {
    x.sigmoid()
}

type Write = for<'a> fn(Ex<'a>) -> Ex<'a>;

/// Every spelling of a convex combination, with a weight between 0 and 1.
const LERPS: &[Write] = &[
    |x| share(x) * x.exp() + (x.constant(1.0) - share(x)) * x.tanh(),
    |x| x.tanh() * (x.constant(1.0) - share(x)) + x.exp() * share(x),
    |x| x.tanh() + share(x) * (x.exp() - x.tanh()),
    |x| (x.exp() - x.tanh()) * share(x) + x.tanh(),
    |x| x.tanh() - share(x) * (x.tanh() - x.exp()),
    |x| x.exp() * 0.25 + x.tanh() * 0.75,
    |x| x.constant(0.25) * x.exp() + x.tanh() * 0.75,
    |x| x.tanh() + (x.exp() - x.tanh()) * 0.25,
    |x| {
        let (w, a, b) = (share(x), x.exp(), x.tanh());
        let d = a - b;
        let cases = [b + w * d, a - d * (w.constant(1.0) - w)];
        w.op("Less", &[w.constant(0.5)]).op("Where", &cases)
    },
];

#[test]
fn every_spelling_of_a_convex_combination_becomes_one_node() {
    for (i, write) in LERPS.iter().enumerate() {
        let mut found = optimised(&model(13, write), Scope::Engine);
        found.retain(|op| !["Exp", "Sigmoid", "Tanh"].contains(&&**op));
        assert_eq!(found, ["secateur.Lerp"], "spelling {i}");
        assert!(!optimised(&model(13, write), Scope::Portable).contains(&"secateur.Lerp".into()));
    }
}

#[test]
fn of_two_constant_weights_the_smaller_one_mixes() {
    // 1 - 0.999 in floats is wrong in the fifth digit.
    let spellings: [Write; 2] = [
        |x| x.exp() * 0.999 + x.tanh() * 0.001,
        |x| x.tanh() * 0.001 + x.exp() * 0.999,
    ];
    for write in spellings {
        let mut m = model(13, write);
        optimize(&mut m, Scope::Engine).unwrap();
        let (_, node) = m.graph.iter().find(|(_, n)| &*n.op == "Lerp").unwrap();
        let weight = node.inputs[0].and_then(|v| m.graph.konst(v)?.item());
        assert_eq!(weight, Some(f64::from(0.001f32)));
    }
}

#[test]
fn what_is_no_convex_combination_stays() {
    let misses: &[(Write, &str)] = &[
        (
            |x| x * 0.25 + x.tanh() * 0.7,
            "the constant weights are no shares that add up to 1",
        ),
        (
            |x| x * 1.25 + x.tanh() * -0.25,
            "the constant weights are no shares that add up to 1",
        ),
        (
            |x| x.tanh() + x.exp() * (x - x.tanh()),
            "the weight is not known to lie between 0 and 1",
        ),
        (
            |x| x.tanh() + (x - x.tanh()) * 1.5,
            "the weight is not known to lie between 0 and 1",
        ),
        (|x| share(x) * x + (x.constant(1.0) - x.exp()) * x.tanh(), ""),
        (|x| share(x) * x + (x.constant(2.0) - share(x)) * x.tanh(), ""),
    ];
    for (i, (write, why)) in misses.iter().enumerate() {
        let m = model(13, write);
        assert!(
            !optimised(&m, Scope::Engine).contains(&"secateur.Lerp".into()),
            "miss {i}"
        );
        let said = refusals(&m, "lerp");
        assert_eq!(
            said.iter().any(|s| s == why),
            !why.is_empty(),
            "miss {i}: {said:?}"
        );
    }
    let m = tapped(model(13, LERPS[0]), "Sub");
    assert!(!optimised(&m, Scope::Engine).contains(&"secateur.Lerp".into()));
    assert!(refusals(&m, "lerp").contains(&ELSEWHERE.to_owned()));
}

#[test]
fn the_logarithm_of_a_softmax_is_one_node() {
    let softmax = |x: Ex<'_>| {
        x.with("Softmax", &[], vec![crate::ir::Attr::new("axis", 0i64)])
            .id
    };
    for opset in [11, 13] {
        let m = model(opset, |x| Ex { id: softmax(x), ..x }.log());
        assert_eq!(optimised(&m, Scope::Portable), ["LogSoftmax"]);
        let m = tapped(m, "Softmax");
        assert_eq!(optimised(&m, Scope::Portable), ["Softmax", "Log"]);
        assert!(refusals(&m, "log-softmax").contains(&ELSEWHERE.to_owned()));
    }
    assert_eq!(
        optimised(&model(13, |x| x.exp().log()), Scope::Portable),
        ["Exp", "Log"]
    );
}

#[test]
fn the_logarithm_of_one_and_an_exponential_is_softplus() {
    let m = model(13, |x| (x.constant(1.0) + x.exp()).log());
    assert_eq!(optimised(&m, Scope::Portable), ["Softplus"]);
    let read = tapped(m, "Exp");
    assert_eq!(optimised(&read, Scope::Portable), ["Exp", "Add", "Log"]);
    assert!(refusals(&read, "softplus").contains(&ELSEWHERE.to_owned()));
    assert_eq!(
        optimised(&model(13, |x| (x.exp() + 2.0).log()), Scope::Portable),
        ["Exp", "Add", "Log"]
    );
}

/// A chain of products by random weights of these sizes, with biases or without.
fn chain(sizes: &'static [usize], bias: bool) -> Model {
    model(13, move |x| {
        let step = |x: Ex<'_>, (i, s): (usize, &[usize])| {
            let seed = i as u64 + 1;
            let y = x.matmul(x.tensor(floats(s, seed)));
            if bias {
                (y + y.tensor(floats(&s[1..], seed + 9))).id
            } else {
                y.id
            }
        };
        let steps = sizes.windows(2).enumerate();
        steps.fold(x, |x, s| Ex { id: step(x, s), ..x })
    })
}

#[test]
fn products_in_a_row_are_one_only_where_that_is_cheaper() {
    assert_eq!(optimised(&chain(&[8, 32, 8], false), Scope::Portable), ["MatMul"]);
    assert_eq!(
        optimised(&chain(&[8, 32, 8], true), Scope::Portable),
        ["MatMul", "Add", "Add"]
    );
    for bias in [false, true] {
        let m = chain(&[8, 2, 8], bias);
        assert_eq!(
            optimised(&m, Scope::Portable)
                .iter()
                .filter(|op| *op == "MatMul")
                .count(),
            2
        );
        assert!(refusals(&m, "linear-linear").contains(&"two products are no dearer than one".to_owned()));
    }
    let m = tapped(chain(&[8, 32, 8], false), "MatMul");
    assert_eq!(optimised(&m, Scope::Portable), ["MatMul", "MatMul"]);
    assert!(refusals(&m, "linear-linear").contains(&ELSEWHERE.to_owned()));
}

#[test]
fn zeros_in_weights_are_not_multiplied_away() {
    let diagonal = |rows: usize, columns: usize| {
        let at = |i: usize| f32::from(u8::from(i / columns % 8 == i % columns % 8 && i % columns < 9));
        Tensor::of(
            &[rows, columns],
            (0..rows * columns).map(at).collect::<Vec<f32>>(),
        )
    };
    let m = model(13, |x| {
        x.matmul(x.tensor(diagonal(8, 32)))
            .matmul(x.tensor(floats(&[32, 8], 1)))
    });
    assert_eq!(optimised(&m, Scope::Portable), ["MatMul"]);
    let sparse = |seed: usize| {
        let at = |i: usize| if i % 8 == seed { 1.0 } else { 0.0 };
        (0..256).map(at).collect::<Vec<f32>>()
    };
    let m = model(13, move |x| {
        let (a, b) = (Tensor::of(&[8, 32], sparse(0)), Tensor::of(&[32, 8], sparse(1)));
        let b = Tensor::of(
            &[32, 8],
            b.elements::<f32>()
                .unwrap()
                .iter()
                .map(|x| x * 2.0)
                .collect::<Vec<f32>>(),
        );
        x.matmul(x.tensor(a)).matmul(x.tensor(b))
    });
    assert_eq!(optimised(&m, Scope::Portable), ["MatMul"]);
    let ones = |dims: [usize; 2], keep: fn(usize, usize) -> bool| {
        let at = |i: usize| f32::from(u8::from(keep(i / dims[1], i % dims[1])));
        Tensor::of(&dims, (0..dims[0] * dims[1]).map(at).collect::<Vec<f32>>())
    };
    let m = model(13, move |x| {
        let (a, b) = (ones([8, 32], |_, j| j == 3), ones([32, 8], |i, _| i == 3));
        x.matmul(x.tensor(a)).matmul(x.tensor(b))
    });
    assert_eq!(optimised(&m, Scope::Portable), ["MatMul", "MatMul"]);
    assert!(
        refusals(&m, "linear-linear")
            .iter()
            .any(|why| why.contains("zeros"))
    );
}

#[test]
fn a_branch_of_zeros_goes_with_all_that_only_it_needs() {
    let zeros = |dims: &[usize]| Tensor::zeros(DType::F32, dims).unwrap();
    let branch = |x: Ex<'_>, w: Tensor, b: Tensor| {
        let h = x.matmul(x.tensor(floats(&[8, 8], 1))).op("Relu", &[]);
        (h.matmul(h.tensor(w)) + h.tensor(b)).id
    };
    let block = |w: Tensor, b: Tensor| {
        model(13, move |x| {
            x.tanh()
                + Ex {
                    id: branch(x, w.clone(), b.clone()),
                    ..x
                }
        })
    };
    assert_eq!(
        optimised(&block(zeros(&[8, 8]), zeros(&[8])), Scope::Portable),
        ["Tanh"]
    );
    let m = block(zeros(&[8, 8]), floats(&[8], 2));
    assert!(optimised(&m, Scope::Portable).len() > 1);
    assert!(
        refusals(&m, "zero-branch")
            .iter()
            .any(|why| why.contains("its bias is not"))
    );
    // A sum that broadcasts what stays is no copy of it.
    let m = model(13, move |x| {
        x.with("ReduceMax", &[], vec![crate::ir::Attr::new("axes", vec![1i64])])
            + x.matmul(x.tensor(zeros(&[8, 8])))
    });
    assert_eq!(optimised(&m, Scope::Portable), ["ReduceMax", "MatMul", "Add"]);
    assert!(
        refusals(&m, "zero-branch")
            .iter()
            .any(|why| why.contains("another shape"))
    );
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
