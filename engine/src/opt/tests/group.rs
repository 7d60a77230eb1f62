//! Nodes that work element by element as one, and products that read transposes.

use super::*;

/// The operators of `m` as a session runs it, which computes what the reference does.
fn ready_ops(m: &Model) -> Vec<String> {
    let mut new = m.clone();
    ready(&mut new).unwrap();
    verify(&new.graph).unwrap();
    let x = floats(&[3, 8], 7);
    let run = |s: crate::run::Builder| s.threads(2).build().unwrap().run([("x", &x)]).unwrap();
    let (want, got) = (run(Session::builder(m).reference()), run(Session::builder(m)));
    for ((_, a), (_, b)) in want.tensors().zip(got.tensors()) {
        assert_eq!((a.dtype(), a.dims()), (b.dtype(), b.dims()));
        let (Some(a), Some(b)) = (a.floats(), b.floats()) else {
            assert_eq!(a.bytes(), b.bytes());
            continue;
        };
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 + 1e-5 * b.abs();
        assert!(a.iter().zip(&b).all(near), "{a:?} {b:?}");
    }
    ops(&new)
}

const GROUP: &str = "secateur.Elementwise";

#[test]
fn connected_nodes_of_one_shape_are_one() {
    let mut m = model(17, |x| (x.exp() + 1.0) / (x.op("Abs", &[]) + 2.0));
    let x = m.graph.inputs[0].value;
    append(&mut m.graph, 17, x, |x| (x * 3.0).op("Floor", &[]));
    // The second output has no value in common with the first but an input.
    assert_eq!(ready_ops(&m), [GROUP, GROUP]);
}

#[test]
fn a_value_that_others_read_is_an_output_of_the_group() {
    let mut m = model(17, |x| x);
    m.graph.outputs.clear();
    let x = m.graph.inputs[0].value;
    append(&mut m.graph, 17, x, |x| {
        let e = x.exp();
        let low = e.op("Less", &[x.constant(1.0)]);
        let picked = low.op("Where", &[e, x]);
        picked + picked.with("ReduceSum", &[], vec![])
    });
    assert_eq!(ready_ops(&m), [GROUP, "ReduceSum", "Add"]);
}

#[test]
fn nodes_with_a_way_around_between_them_stay_apart() {
    let m = model(17, |x| {
        let a = x.exp() * 2.0;
        let sum = a.with("ReduceMean", &[], vec![crate::ir::Attr::new("axes", vec![1i64])]);
        (a - sum) * x
    });
    assert_eq!(ready_ops(&m), [GROUP, "ReduceMean", GROUP]);
}

#[test]
fn what_a_product_does_on_its_way_out_is_not_taken() {
    let m = model(17, |x| {
        let w = x.tensor(floats(&[8, 8], 3));
        x.matmul(w).op("Relu", &[]) * x
    });
    assert_eq!(ready_ops(&m), ["secateur.MatMul", "Mul"]);
}

#[test]
fn integers_and_other_shapes_stay() {
    let m = model(17, |x| {
        let row = x.tensor(floats(&[2, 1, 8], 3));
        (x * 2.0 + 1.0) * row
    });
    assert_eq!(ready_ops(&m), [GROUP, "Mul"]);
}

#[test]
fn products_read_and_make_transposes() {
    let perm = |x: Ex<'_>, p: &[i64]| -> ValueId {
        x.with("Transpose", &[], vec![crate::ir::Attr::new("perm", p)]).id
    };
    let m = model(17, |x| {
        let cube = x.op("Reshape", &[x.tensor(Tensor::of(&[4], vec![-1i64, 2, 2, 2]))]);
        let at = |id| Ex { id, ..x };
        let keys = at(perm(cube, &[0, 2, 3, 1]));
        let scores = at(perm(cube, &[0, 2, 1, 3])).matmul(keys);
        at(perm(scores.matmul(cube), &[0, 3, 1, 2]))
    });
    let ops = ready_ops(&m);
    assert_eq!(
        ops.iter().filter(|op| *op == "com.microsoft.FusedMatMul").count(),
        2,
        "{ops:?}"
    );
    assert!(ops.iter().all(|op| op != "MatMul"), "{ops:?}");
}
