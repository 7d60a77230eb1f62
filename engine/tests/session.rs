//! Sessions as callers see them: what is given, what is got, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

use secateur_engine::ir::{Attr, DType, Dim, Node, Opset, Type};
use secateur_engine::run::RunErrorKind;
use secateur_engine::{Model, Session, Tensor};

/// `y = Relu(x + w)` and `z = Reshape(y, [-1])` with `x: float[n, 3]` and `w: float[m, 3]`.
fn model() -> Model {
    let mut m = Model {
        ir_version: Some(8),
        opsets: vec![Opset {
            domain: None,
            version: Some(17),
            extra: Default::default(),
        }],
        ..Model::default()
    };
    let g = &mut m.graph;
    let x = g.input("x", Type::tensor(DType::F32, [Dim::symbol("n"), Dim::Known(3)]));
    let w = g.input("w", Type::tensor(DType::F32, [Dim::symbol("n"), Dim::Known(3)]));
    let flat = g.constant("flat", Tensor::of(&[1], vec![-1i64]));
    let [sum, y, z] = ["sum", "y", "z"].map(|name| g.value(name));
    g.node(Node::new("Add", vec![Some(x), Some(w)], vec![Some(sum)]));
    g.node(Node::new("Relu", vec![Some(sum)], vec![Some(y)]));
    g.node(Node::new("Reshape", vec![Some(y), Some(flat)], vec![Some(z)]));
    g.output(y, None);
    g.output(z, None);
    m
}

fn rows(n: usize, from: f32) -> Tensor {
    Tensor::of(&[n, 3], (0..3 * n).map(|i| from + i as f32).collect())
}

fn refused(inputs: &[(&str, Tensor)]) -> RunErrorKind {
    let session = Session::builder(&model()).build().unwrap();
    session
        .run(inputs.iter().map(|(n, t)| (n, t)))
        .unwrap_err()
        .kind()
        .clone()
}

#[test]
fn shapes_change_from_run_to_run_and_outputs_share_nothing() {
    let session = Session::builder(&model()).threads(2).build().unwrap();
    for n in [2, 0, 5, 2] {
        let out = session
            .run([("x", &rows(n, -4.0)), ("w", &rows(n, 1.0))])
            .unwrap();
        let want: Vec<f32> = (0..3 * n).map(|i| (2.0 * i as f32 - 3.0).max(0.0)).collect();
        assert_eq!(out["y"], Tensor::of(&[n, 3], want.clone()));
        assert_eq!(out["z"], Tensor::of(&[3 * n], want));
    }
}

#[test]
fn one_session_runs_on_many_threads() {
    let session = Session::builder(&model()).threads(2).build().unwrap();
    let want = session.run([("x", &rows(7, 0.0)), ("w", &rows(7, 0.5))]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let got = session.run([("x", &rows(7, 0.0)), ("w", &rows(7, 0.5))]).unwrap();
                    assert_eq!(got, want);
                }
            });
        }
    });
}

#[test]
fn arrays_go_in_and_come_out() {
    let session = Session::builder(&model()).build().unwrap();
    let x = ndarray::Array2::from_elem((3, 2), 1.5f32);
    let w = ndarray::array![[0.0f32, -2.0, 1.0], [1.0, 1.0, 1.0]];
    // A transposed view is not in row-major order.
    let out = session.run([("x", x.t()), ("w", w.view())]).unwrap();
    let y = out.into_first().unwrap().into_array::<f32>().unwrap();
    assert_eq!(y, ndarray::array![[1.5f32, 0.0, 2.5], [2.5, 2.5, 2.5]].into_dyn());
}

#[test]
fn wrong_inputs_are_refused_with_what_was_expected() {
    let given = [("x", rows(2, 0.0)), ("w", rows(2, 0.0))];
    let [x, w] = given.clone();
    assert!(
        matches!(refused(std::slice::from_ref(&x)), RunErrorKind::MissingInput { name, .. } if name == "w")
    );
    let unknown = refused(&[x.clone(), w.clone(), ("v", rows(2, 0.0))]);
    assert!(matches!(unknown, RunErrorKind::UnknownInput { known, .. } if known == ["x", "w"]));
    for bad in [
        rows(3, 0.0),
        Tensor::of(&[2], vec![0f32; 2]),
        Tensor::of(&[2, 3], vec![0f64; 6]),
    ] {
        let kind = refused(&[x.clone(), ("w", bad)]);
        assert!(
            matches!(&kind, RunErrorKind::WrongInput { name, .. } if name == "w"),
            "{kind:?}"
        );
    }
}

#[test]
fn a_free_dimension_may_be_fixed_but_must_exist() {
    let m = model();
    let session = Session::builder(&m).size("n", 2).build().unwrap();
    assert!(session.run([("x", &rows(3, 0.0)), ("w", &rows(3, 0.0))]).is_err());
    let Err(e) = Session::builder(&m).size("batch", 2).build() else {
        panic!("built")
    };
    assert!(e.to_string().contains("\"n\""), "{e}");
}

#[test]
fn taps_show_inner_values() {
    let session = Session::builder(&model()).tap("sum").build().unwrap();
    let out = session
        .run([("x", &rows(1, -4.0)), ("w", &rows(1, 1.0))])
        .unwrap();
    assert_eq!(out["sum"], Tensor::of(&[1, 3], vec![-3f32, -1.0, 1.0]));
}

#[test]
fn every_unsupported_operator_is_listed() {
    let mut m = model();
    let y = m.graph.outputs[0].value;
    for (op, domain) in [("Magic", None), ("Trick", Some("com.acme")), ("Magic", None)] {
        let out = m.graph.value(format!("out{}", m.graph.values.len()));
        let node = Node {
            domain: domain.map(Into::into),
            ..Node::new(op, vec![Some(y)], vec![Some(out)])
        };
        m.graph.node(node);
    }
    let Err(e) = Session::builder(&m).build() else {
        panic!("built")
    };
    let RunErrorKind::Unsupported(all) = e.kind() else {
        panic!("{e}")
    };
    let found: Vec<_> = all.iter().map(|u| (&*u.op, u.opset, u.nodes.len())).collect();
    assert_eq!(found, [("Magic", Some(17), 2), ("com.acme.Trick", None, 1)]);
}

#[test]
fn an_attribute_that_nobody_understands_is_an_error() {
    let mut m = model();
    let relu = m.graph.order[1];
    m.graph[relu].attrs.push(Attr::new("slope", 0.5f32));
    let session = Session::builder(&m).build().unwrap();
    let e = session
        .run([("x", &rows(1, 0.0)), ("w", &rows(1, 0.0))])
        .unwrap_err()
        .to_string();
    assert!(e.contains("slope") && e.contains("Relu"), "{e}");
}

#[test]
fn a_run_that_memory_cannot_hold_is_refused() {
    let mut m = model();
    let y = m.graph.outputs[0].value;
    let size = m
        .graph
        .constant("size", Tensor::of(&[4], vec![1i64 << 20, 1 << 20, 1, 3]));
    let big = m.graph.value("big");
    m.graph
        .node(Node::new("Expand", vec![Some(y), Some(size)], vec![Some(big)]));
    m.graph.output(big, None);
    let session = Session::builder(&m).build().unwrap();
    let e = session
        .run([("x", &rows(1, 0.0)), ("w", &rows(1, 0.0))])
        .unwrap_err();
    assert!(matches!(e.kind(), RunErrorKind::Plan(_)), "{e}");
}
