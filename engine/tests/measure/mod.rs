//! Small models, run in three ways that must agree: by the reference interpreter, as they are, and optimised.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "tests use what they need, and end where they cannot go on"
)]

use std::collections::HashMap;

use secateur_engine::expr::{Builder, Ex};
use secateur_engine::ir::{Attr, DType, Opset, Type, ValueId};
use secateur_engine::ops::Fact;
use secateur_engine::opt::infer::{full_name, opset_of};
use secateur_engine::opt::{self, Report, Scope};
use secateur_engine::{Model, Session, Tensor, ops, reference};

/// A model with float inputs `x0`, `x1`, … of the given shapes and one output for each expression that `write` gives.
pub(crate) fn model<const N: usize>(
    opset: i64,
    shapes: [&[usize]; N],
    write: impl for<'a> FnOnce([Ex<'a>; N]) -> Vec<Ex<'a>>,
) -> Model {
    typed(opset, shapes.map(|s| (DType::F32, s)), write)
}

/// The same with inputs of any type.
pub(crate) fn typed<const N: usize>(
    opset: i64,
    inputs: [(DType, &[usize]); N],
    write: impl for<'a> FnOnce([Ex<'a>; N]) -> Vec<Ex<'a>>,
) -> Model {
    let import = |domain: &str, version| Opset {
        domain: Some(domain.into()),
        version: Some(version),
        extra: Default::default(),
    };
    let mut m = Model {
        ir_version: Some(8),
        opsets: vec![import("", opset)],
        ..Model::default()
    };
    let mut count = 0;
    let ids = inputs.map(|(dtype, dims)| {
        count += 1;
        let ty = Type::tensor(dtype, dims.iter().copied());
        let v = m.graph.input(format!("x{}", count - 1), ty.clone());
        // By this the constants of expressions get their type.
        m.graph[v].ty = Some(ty);
        v
    });
    let g = m.graph.clone();
    let b = Builder::new(&g, opset);
    let outputs: Vec<ValueId> = write(ids.map(|v| b.at(v))).into_iter().map(|y| y.id).collect();
    b.finish().apply(&mut m.graph).unwrap();
    for y in outputs {
        let ty = m.graph[y].ty.clone();
        m.graph.output(y, ty);
    }
    if m.graph.iter().any(|(_, n)| n.domain() == "secateur") {
        m.opsets.push(import("secateur", 1));
    }
    m
}

/// The outputs of `m`, each node by its definition.
pub(crate) fn by_definition(m: &Model, inputs: &[(&str, &Tensor)]) -> Vec<Tensor> {
    let g = &m.graph;
    let constant = |(i, v): (usize, &secateur_engine::ir::Value)| {
        let tensor = Tensor::clone(&v.konst.as_ref()?.tensor);
        Some((ValueId(i as u32), tensor))
    };
    let mut env: HashMap<ValueId, Tensor> = g.values.iter().enumerate().filter_map(constant).collect();
    env.extend(inputs.iter().map(|&(name, t)| (g.find(name).unwrap(), t.clone())));
    for (_, node) in g.iter() {
        let op = ops::find(node.domain(), &node.op).unwrap_or_else(|| panic!("no operator {}", node.op));
        let x: Vec<_> = node.inputs.iter().map(|v| v.map(|v| &env[&v])).collect();
        let facts: Vec<_> = x.iter().map(|t| t.map(Fact::of)).collect();
        let given = reference::given(&node.inputs, &facts, &x);
        let n = ops::NodeRef::new(node, opset_of(&m.opsets, node), given);
        let y = reference::eval(op, &n, &x).unwrap_or_else(|e| panic!("{}: {e}", node.op));
        let made: Vec<_> = node
            .outputs
            .iter()
            .zip(y)
            .filter_map(|(v, y)| Some(((*v)?, y)))
            .collect();
        env.extend(made);
    }
    g.outputs.iter().map(|p| env[&p.value].clone()).collect()
}

/// The outputs of a run, which are all tensors.
pub(crate) fn tensors(outputs: secateur_engine::Outputs) -> Vec<Tensor> {
    outputs.tensors().map(|(_, t)| t.clone()).collect()
}

/// The outputs of `m` in an optimised session.
pub(crate) fn optimised(m: &Model, inputs: &[(&str, &Tensor)]) -> Vec<Tensor> {
    let session = Session::builder(m).threads(2).build().unwrap();
    tensors(session.run(inputs.iter().copied()).unwrap())
}

/// The outputs of `m` without optimisation.
pub(crate) fn plain(m: &Model, inputs: &[(&str, &Tensor)]) -> Vec<Tensor> {
    let session = Session::builder(m).threads(1).unoptimized().build().unwrap();
    tensors(session.run(inputs.iter().copied()).unwrap())
}

/// The outputs of `m` for inputs `x0`, `x1`, …, which all three ways give within `tolerance`, absolute and relative.
pub(crate) fn run(m: &Model, inputs: &[&Tensor], tolerance: f64) -> Vec<Tensor> {
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("x{i}")).collect();
    let named: Vec<_> = names.iter().map(|n| &**n).zip(inputs.iter().copied()).collect();
    run_named(m, &named, tolerance)
}

/// The same for named inputs.
pub(crate) fn run_named(m: &Model, inputs: &[(&str, &Tensor)], tolerance: f64) -> Vec<Tensor> {
    let want = by_definition(m, inputs);
    for (way, got) in [("plain", plain(m, inputs)), ("optimised", optimised(m, inputs))] {
        for (g, w) in got.iter().zip(&want) {
            assert_eq!((g.dtype(), g.dims()), (w.dtype(), w.dims()), "{way}");
            near_with(way, g, &floats(w), tolerance);
        }
    }
    optimised(m, inputs)
}

/// The elements as `f64`.
pub(crate) fn floats(t: &Tensor) -> Vec<f64> {
    t.floats().unwrap()
}

/// Checks that `got` has the elements `want` within `tolerance`, absolute and relative.
pub(crate) fn near(got: &Tensor, want: &[f64], tolerance: f64) {
    near_with("", got, want, tolerance);
}

fn near_with(what: &str, got: &Tensor, want: &[f64], tolerance: f64) {
    let got = floats(got);
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        let fits = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * b.abs().max(1.0);
        assert!(fits, "{what} element {i}: {a}, expected {b}");
    }
}

/// The greatest absolute difference of two tensors.
pub(crate) fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let pairs = floats(a).into_iter().zip(floats(b));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// Floats of dimensions `dims`.
pub(crate) fn tensor(dims: &[usize], data: &[f64]) -> Tensor {
    Tensor::rounded(DType::F32, dims, data).unwrap()
}

/// Floats that look random, between -1 and 1.
pub(crate) fn noise(dims: &[usize], seed: u64) -> Tensor {
    let half: Vec<f64> = floats(&ops::case::floats(dims, seed))
        .iter()
        .map(|x| x / 2.0)
        .collect();
    tensor(dims, &half)
}

/// The operators of `m` after optimisation, and what was done.
pub(crate) fn rewritten(m: &Model, scope: Scope) -> (Vec<String>, Report) {
    let mut m = m.clone();
    let report = opt::optimize(&mut m, scope).unwrap();
    (m.graph.iter().map(|(_, n)| full_name(n)).collect(), report)
}

/// The operators of `m` as a session runs it.
pub(crate) fn ops_run(m: &Model) -> Vec<String> {
    rewritten(m, Scope::Engine).0
}

/// Attributes from names and values.
pub(crate) fn attrs<const N: usize>(all: [Attr; N]) -> Vec<Attr> {
    all.into()
}

/// Applies a private operator to `inputs`.
pub(crate) fn private<'a>(op: &str, inputs: &[Ex<'a>], attrs: Vec<Attr>) -> Ex<'a> {
    let ids: Vec<_> = inputs.iter().map(|x| Some(x.id)).collect();
    let call = secateur_engine::expr::Call {
        domain: "secateur",
        op,
        inputs: &ids,
        attrs,
        outputs: 1,
    };
    inputs[0].call(call)[0]
}

/// Applies `op` with some inputs left out, for `outputs` outputs.
pub(crate) fn call<'a>(op: &str, inputs: &[Option<Ex<'a>>], attrs: Vec<Attr>, outputs: usize) -> Vec<Ex<'a>> {
    let ids: Vec<_> = inputs.iter().map(|x| x.map(|x| x.id)).collect();
    let call = secateur_engine::expr::Call {
        domain: "",
        op,
        inputs: &ids,
        attrs,
        outputs,
    };
    inputs.iter().flatten().next().unwrap().call(call)
}

/// A constant vector of integers.
pub(crate) fn ints<'a>(x: Ex<'a>, values: &[i64]) -> Ex<'a> {
    x.tensor(Tensor::of(&[values.len()], values.to_vec()))
}

/// The greatest absolute difference between the derivative of a function of one double and `slope`, by central
/// differences at `at`.
pub(crate) fn slope_error(f: impl Fn(&[f64]) -> Vec<f64>, at: &[f64], slope: impl Fn(f64) -> f64) -> f64 {
    let h = 1e-5;
    let moved = |h: f64| f(&at.iter().map(|x| x + h).collect::<Vec<f64>>());
    let pairs = moved(h).into_iter().zip(moved(-h)).zip(at);
    pairs
        .map(|((p, m), &x)| ((p - m) / (2.0 * h) - slope(x)).abs())
        .fold(0.0, f64::max)
}
