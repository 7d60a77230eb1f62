//! Rows K3, K4, K5 and K9 of the founding documents: what a converter must not get wrong.

mod measure;

use measure::{apart, call, floats, model, near, ops_run, run, tensor};
use secateur_engine::ir::{Attr, AttrValue, DType};
use secateur_engine::opt::infer;
use secateur_engine::{Model, Tensor};

/// `Gemm` of `[1, inputs]` by `w`, turned or not.
fn gemm(inputs: usize, w: &Tensor, turned: bool) -> Model {
    model(13, [&[1, inputs]], |[x]| {
        vec![x.with(
            "Gemm",
            &[x.tensor(w.clone())],
            vec![Attr::new("transB", i64::from(turned))],
        )]
    })
}

#[test]
fn k3_weight_orientation() {
    let w = tensor(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let ones = tensor(&[1, 2], &[1.0, 1.0]);
    near(&run(&gemm(2, &w, true), &[&ones], 0.0)[0], &[3.0, 7.0], 0.0);
    near(&run(&gemm(2, &w, false), &[&ones], 0.0)[0], &[4.0, 6.0], 0.0);
    // A matrix of [outputs, inputs] that is not square is refused in the wrong orientation.
    let w: Vec<f64> = (1..=15).map(|i| f64::from(i) / 10.0).collect();
    let w = tensor(&[5, 3], &w);
    let x = tensor(&[1, 3], &[1.0, 2.0, 3.0]);
    near(
        &run(&gemm(3, &w, true), &[&x], 1e-6)[0],
        &[1.4, 3.2, 5.0, 6.8, 8.6],
        1e-6,
    );
    assert!(infer::infer(&gemm(3, &w, false), &Default::default()).is_err());
}

#[test]
fn k4_gate_orientation() {
    // The update gate says how much of the old state stays.
    let m = model(13, [&[1], &[1], &[1]], |[z, h, new]| {
        vec![z * h + (z.constant(1.0) - z) * new]
    });
    let given = [tensor(&[1], &[0.3]), tensor(&[1], &[1.0]), tensor(&[1], &[3.0])];
    near(&run(&m, &given.each_ref(), 1e-6)[0], &[2.4], 1e-6);
    let swapped = [&given[0], &given[2], &given[1]];
    near(&run(&m, &swapped, 1e-6)[0], &[1.6], 1e-6);
    assert_eq!(ops_run(&m), ["secateur.Lerp"]);
}

#[test]
fn k4_gru_gate_order() {
    // Gates in the order update, reset, hidden.
    let z = (0.3f64 / 0.7).ln();
    let m = model(14, [&[1, 1, 1], &[1, 1, 1]], |[x, h]| {
        let zeros = || Some(x.tensor(tensor(&[1, 3, 1], &[0.0; 3])));
        let bias = x.tensor(tensor(&[1, 6], &[z, 50.0, 3.0, 0.0, 0.0, 0.0]));
        let names = AttrValue::Strings(vec![b"Sigmoid".into(), b"Relu".into()]);
        let attrs = vec![Attr::new("hidden_size", 1i64), Attr::new("activations", names)];
        call(
            "GRU",
            &[Some(x), zeros(), zeros(), Some(bias), None, Some(h)],
            attrs,
            2,
        )
    });
    let one = tensor(&[1, 1, 1], &[1.0]);
    near(&run(&m, &[&one, &one], 1e-6)[1], &[2.4], 1e-6);
}

#[test]
fn k5_gelu_variants() {
    let grid: Vec<f64> = (-300..=300).map(|i| f64::from(i) / 60.0).collect();
    let m = model(20, [&[601]], |[x]| {
        ["tanh", "none"]
            .map(|form| x.with("Gelu", &[], vec![Attr::new("approximate", form)]))
            .to_vec()
    });
    let y = run(&m, &[&tensor(&[601], &grid)], 1e-6);
    let gap = apart(&y[0], &y[1]);
    assert!((4.6e-4..4.8e-4).contains(&gap), "{gap}");
}

#[test]
fn k9_mask_constant_in_half_precision() {
    let to = |x| vec![Attr::new("to", x)];
    let masked = model(13, [&[1, 3]], |[x]| {
        let clamped = x.op("Clip", &[x.constant(-65504.0), x.constant(65504.0)]);
        let half = clamped.with("Cast", &[], to(10i64));
        let p = half.op("Softmax", &[]);
        vec![half.with("Cast", &[], to(1i64)), p.with("Cast", &[], to(1i64))]
    });
    let y = run(&masked, &[&tensor(&[1, 3], &[-1e9, 2.0, -1e9])], 1e-3);
    near(&y[0], &[-65504.0, 2.0, -65504.0], 0.0);
    near(&y[1], &[0.0, 1.0, 0.0], 1e-6);
    // Without a key at all, too.
    let y = run(&masked, &[&tensor(&[1, 3], &[-1e9; 3])], 1e-3);
    assert!(floats(&y[1]).iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-3));
    // What the clamp is for.
    let half = Tensor::rounded(DType::F16, &[2], &[-1e9, -65504.0]).unwrap();
    assert_eq!(floats(&half), [f64::NEG_INFINITY, -65504.0]);
}
