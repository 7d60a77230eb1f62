//! What exporters spell out is recognised in every form they write, near misses are not, and both compute the same.

use super::*;
use crate::ir::{Attr, AttrValue};

/// An attribute.
fn attr(name: &str, value: impl Into<AttrValue>) -> Vec<Attr> {
    vec![Attr::new(name, value)]
}

fn ints<'a>(x: Ex<'a>, v: &[i64]) -> Ex<'a> {
    x.tensor(Tensor::of(&[v.len()], v.to_vec()))
}

/// A model of floats: dimensions that are 0 are free.
fn built(opset: i64, shapes: &[&[i64]], write: impl for<'a> Fn(&[Ex<'a>]) -> Ex<'a>) -> Model {
    let mut m = super::model(opset, |x| x);
    m.graph = Graph::default();
    let names = ["x", "y", "z", "w"];
    let free = ["a", "b", "c", "d"];
    let ids: Vec<ValueId> = shapes
        .iter()
        .zip(names)
        .map(|(dims, name)| {
            let dim = |(i, &d): (usize, &i64)| {
                if d == 0 {
                    Dim::symbol(free[i])
                } else {
                    Dim::Known(d)
                }
            };
            m.graph
                .input(name, Type::tensor(DType::F32, dims.iter().enumerate().map(dim)))
        })
        .collect();
    let b = Builder::new(&m.graph, opset);
    let all: Vec<_> = ids.iter().map(|&v| b.at(v)).collect();
    let y = write(&all).id;
    b.finish().apply(&mut m.graph).unwrap();
    m.graph.output(y, None);
    m
}

/// Optimises `m` for the engine, checks that it computes the same, and gives the operators and the report. Free dimensions
/// are 3.
fn engine(m: &Model) -> (Vec<String>, Report) {
    let inputs: Vec<(String, Tensor)> = (m.graph.inputs.iter().enumerate())
        .map(|(i, p)| {
            let ty = &p.ty.as_ref().unwrap().ty;
            let dims: Vec<usize> = ty
                .shape()
                .unwrap()
                .iter()
                .map(|d| d.size().unwrap_or(3))
                .collect();
            (m.graph[p.value].name.to_string(), floats(&dims, i as u64 + 5))
        })
        .collect();
    let feeds = || inputs.iter().map(|(n, x)| (n, x));
    let plain = Session::builder(m).unoptimized().build().unwrap();
    let fast = Session::builder(m).build().unwrap();
    let (want, got) = (plain.run(feeds()).unwrap(), fast.run(feeds()).unwrap());
    for ((_, g), (_, w)) in got.tensors().zip(want.tensors()) {
        assert_eq!(g.dims(), w.dims(), "{:?}", ops(fast.model()));
        for (a, b) in g.floats().unwrap().iter().zip(w.floats().unwrap()) {
            assert!(
                (a - b).abs() <= 2e-5 + 2e-5 * b.abs(),
                "{a}, expected {b}: {:?}",
                ops(fast.model())
            );
        }
    }
    (ops(fast.model()), fast.report().clone())
}

/// Checks that `m` holds `op` once when it is optimised.
fn becomes(m: &Model, op: &str, form: &str) {
    let (ops, report) = engine(m);
    let found = ops.iter().filter(|o| *o == op).count();
    let why: Vec<_> = report
        .events
        .iter()
        .filter_map(|e| Some((e.rule, e.refused?)))
        .collect();
    assert_eq!(found, 1, "{form}: {ops:?}: {why:?}");
}

/// Checks that `m` does not hold `op` when it is optimised, and that `rule` says why.
fn stays(m: &Model, op: &str, rule: &str, why: &str) {
    let (ops, report) = engine(m);
    assert!(!ops.iter().any(|o| o == op), "{why}: {ops:?}");
    let said = report
        .events
        .iter()
        .filter(|e| e.rule == rule)
        .filter_map(|e| Some(e.refused?.to_string()));
    let said: Vec<_> = said.collect();
    assert!(
        why.is_empty() || said.iter().any(|s| s == why),
        "expected {why:?}, found {said:?}"
    );
}

fn mean<'a>(x: Ex<'a>) -> Ex<'a> {
    x.with("ReduceMean", &[], attr("axes", vec![-1i64]))
}

fn late<'a>(x: Ex<'a>, axes: &[i64]) -> Ex<'a> {
    x.op("ReduceMean", &[ints(x, axes)])
}

fn pow<'a>(x: Ex<'a>, e: f64) -> Ex<'a> {
    x.op("Pow", &[x.constant(e)])
}

fn sqrt<'a>(x: Ex<'a>) -> Ex<'a> {
    x.op("Sqrt", &[])
}

fn row<'a>(x: Ex<'a>, seed: u64) -> Ex<'a> {
    x.tensor(floats(&[8], seed))
}

const EPS: f64 = 1e-5;

type Form = for<'a> fn(Ex<'a>) -> Ex<'a>;

/// Of opset 13, with scale and bias.
const LAYER_NORMS: &[(&str, Form)] = &[
    ("torchscript", |x| {
        let d = x - mean(x);
        d / sqrt(mean(pow(d, 2.0)) + EPS) * row(x, 1) + row(x, 2)
    }),
    ("two differences", |x| {
        let square = (x - mean(x)) * (x - mean(x));
        row(x, 2) + row(x, 1) * ((x - mean(x)) / sqrt(mean(square) + EPS))
    }),
    ("reciprocal", |x| {
        let d = x - mean(x);
        d * sqrt(mean(d * d) + EPS).op("Reciprocal", &[]) * row(x, 1) + row(x, 2)
    }),
    ("one divided", |x| {
        let d = x - mean(x);
        d * (row(x, 1) * (x.constant(1.0) / sqrt(x.constant(EPS) + mean(d * d)))) + row(x, 2)
    }),
    ("powers", |x| {
        let d = x - mean(x);
        (row(x, 1) * d) * pow(mean(pow(d, 2.0)) + EPS, -0.5) + row(x, 2)
    }),
    ("root by power", |x| {
        let d = x - mean(x);
        d / pow(mean(d * d) + EPS, 0.5) * row(x, 1) + row(x, 2)
    }),
    ("tensorflow", |x| {
        let m = mean(x);
        let d = x - m;
        let r = sqrt(mean(d * d) + EPS).op("Reciprocal", &[]) * row(x, 1);
        x * r + (row(x, 2) - m * r)
    }),
    ("paddle", |x| {
        let d = x - mean(x);
        let n = d / sqrt(mean(pow(d, 2.0)) + EPS);
        n * row(x, 1).op("Reshape", &[ints(x, &[1, 8])]) + row(x, 2).op("Reshape", &[ints(x, &[1, 8])])
    }),
    ("without bias", |x| {
        let d = x - mean(x);
        d / sqrt(mean(d * d) + EPS) * row(x, 1)
    }),
    ("bare", |x| {
        let d = x - mean(x);
        d / sqrt(mean(d * d) + EPS)
    }),
    ("after a product", |x| {
        let x = x * (x + 1.0);
        let d = x - mean(x);
        d / sqrt(mean(d * d) + EPS) * row(x, 1) + row(x, 2)
    }),
];

#[test]
fn every_spelling_of_layer_norm_is_one_node() {
    for (form, write) in LAYER_NORMS {
        becomes(&model(13, write), "LayerNormalization", form);
        if *form != "paddle" {
            assert!(
                optimised(&model(17, write), Scope::Portable).contains(&"LayerNormalization".to_owned()),
                "{form}"
            );
        }
    }
    let m = model(18, |x| {
        let d = x - late(x, &[1]);
        d / sqrt(late(pow(d, 2.0), &[-1]) + EPS) * row(x, 1) + row(x, 2)
    });
    becomes(&m, "LayerNormalization", "axes as inputs");
    let m = built(18, &[&[0, 4, 5]], |x| {
        let x = x[0];
        let d = x - late(x, &[1, 2]);
        let w = |seed| x.tensor(floats(&[4, 5], seed));
        d / sqrt(late(d * d, &[-2, -1]) + EPS) * w(1) + w(2)
    });
    becomes(&m, "LayerNormalization", "two axes");
    let m = model(13, |x| {
        let d = x - summed(x);
        d / sqrt(summed(d * d) + EPS) * row(x, 1) + row(x, 2)
    });
    becomes(&m, "LayerNormalization", "sums");
}

const RMS_NORMS: &[(&str, Form)] = &[
    ("llama", |x| {
        row(x, 1) * (x * sqrt(mean(pow(x, 2.0)) + EPS).op("Reciprocal", &[]))
    }),
    ("torchscript", |x| {
        row(x, 1) * (x * (x.constant(1.0) / sqrt(mean(pow(x, 2.0)) + EPS)))
    }),
    ("divided", |x| x / sqrt(mean(x * x) + EPS) * row(x, 1)),
    ("power", |x| x * pow(mean(x * x) + EPS, -0.5) * row(x, 1)),
    ("bare", |x| x / sqrt(mean(x * x) + EPS)),
];

#[test]
fn every_spelling_of_rms_norm_is_one_node() {
    for (form, write) in RMS_NORMS {
        becomes(&model(13, write), "RMSNormalization", form);
        assert!(!optimised(&model(13, write), Scope::Portable).contains(&"RMSNormalization".to_owned()));
    }
}

#[test]
fn a_portable_rms_norm_needs_an_opset_that_has_it() {
    fn write(x: Ex<'_>) -> Ex<'_> {
        row(x, 1) * (x * pow(late(pow(x, 2.0), &[-1]) + EPS, -0.5))
    }
    assert_eq!(
        optimised(&model(23, write), Scope::Portable),
        ["RMSNormalization"]
    );
    let m = model(20, write);
    assert!(optimised(&m, Scope::Portable).len() > 1);
    assert_eq!(
        refusals(&m, "layer-norm"),
        ["the model's opset is older than the operator"]
    );
}

#[test]
fn half_floats_normalised_in_floats_are_one_node() {
    let f16 = || attr("to", i64::from(DType::F16.code()));
    let m = model(20, |x| {
        let x = x.with("Cast", &[], f16());
        let wide = x.with("Cast", &[], attr("to", 1));
        let n = (wide * pow(late(pow(wide, 2.0), &[-1]) + EPS, -0.5)).with("Cast", &[], f16());
        let w = Tensor::rounded(DType::F16, &[8], &[1.5; 8]).unwrap();
        (x.tensor(w) * n).with("Cast", &[], attr("to", 1))
    });
    let mut new = m.clone();
    optimize(&mut new, Scope::Engine).unwrap();
    assert_eq!(ops(&new), ["Cast", "RMSNormalization", "Cast"]);
}

#[test]
fn near_misses_of_norms_stay_and_say_why() {
    const LAST: &str = "the mean is not taken along the last axes";
    let misses: &[(Form, &str)] = &[
        (
            |x| {
                let d = x - first(x);
                d / sqrt(first(d * d) + EPS) * row(x, 1) + row(x, 2)
            },
            LAST,
        ),
        (
            |x| {
                let d = x - first(x);
                d / sqrt(mean(d * d) + EPS) * row(x, 1) + row(x, 2)
            },
            "mean and variance are taken along different axes",
        ),
        (
            |x| {
                let d = x - mean(x);
                d / (sqrt(mean(d * d)) + EPS) * row(x, 1) + row(x, 2)
            },
            "epsilon is added outside the root",
        ),
        (
            |x| {
                let d = x - mean(x);
                d / sqrt(mean(d * d) + mean(x)) * row(x, 1)
            },
            "",
        ),
        (
            |x| {
                let m = mean(x);
                (x - m) / sqrt(mean(x * x) - m * m + EPS) * row(x, 1) + row(x, 2)
            },
            "the variance is a mean of squares less the square of the mean, which is less exact than the operator",
        ),
        (|x| x.exp() / sqrt(mean(x * x) + EPS), ""),
    ];
    for (write, why) in misses {
        let m = model(13, write);
        stays(&m, "LayerNormalization", "layer-norm-engine", why);
        stays(&m, "RMSNormalization", "layer-norm-engine", why);
    }
    for op in ["Sub", "Sqrt", "Div", "ReduceMean"] {
        let m = tapped(model(13, LAYER_NORMS[0].1), op);
        let mut new = m.clone();
        let report = optimize(&mut new, Scope::Engine).unwrap();
        let whole = ops(&new).iter().filter(|o| *o == "LayerNormalization").count();
        // What is normalised may be read by others, but then scale and bias stay outside.
        assert_eq!(whole, usize::from(op == "Div"), "{op}: {:?}", ops(&new));
        let said = |e: &Event| e.refused.is_some_and(|why| why.to_string() == ELSEWHERE);
        assert!(
            report
                .events
                .iter()
                .any(|e| e.rule.starts_with("layer-norm") && said(e))
                || op == "Div",
            "{op}"
        );
    }
    // A constant of one element may have more axes than all else.
    let m = model(13, |x| {
        let d = x - mean(x);
        d / sqrt(mean(d * d) + x.tensor(Tensor::of(&[1, 1, 1], vec![1e-5f32]))) * row(x, 1)
    });
    stays(
        &m,
        "LayerNormalization",
        "layer-norm-engine",
        "the result has more axes than the input",
    );
    let m = built(13, &[&[0, 1]], |x| {
        let d = x[0] - mean(x[0]);
        d / sqrt(mean(d * d) + EPS) * row(x[0], 1)
    });
    stays(&m, "RMSNormalization", "layer-norm-engine", "");
    // A gate is no scale.
    let m = built(13, &[&[0, 8], &[0, 8]], |x| {
        let d = x[0] - mean(x[0]);
        d / sqrt(mean(d * d) + EPS) * x[1] + row(x[0], 1)
    });
    let (ops, _) = engine(&m);
    assert_eq!(ops, ["LayerNormalization", "secateur.Elementwise"]);
}

fn group_norm<'a>(x: Ex<'a>, groups: i64, ones: f32) -> Ex<'a> {
    let flat = x.op("Reshape", &[ints(x, &[0, groups, -1])]);
    let full = |v: f32| x.tensor(Tensor::of(&[groups as usize], vec![v; groups as usize]));
    let n = flat.with(
        "InstanceNormalization",
        &[full(ones), full(0.0)],
        attr("epsilon", 1e-3f32),
    );
    let back = n.op("Reshape", &[x.op("Shape", &[])]);
    let line = |seed| x.tensor(floats(&[6, 1, 1], seed));
    back * line(1) + line(2)
}

#[test]
fn group_norm_is_one_node() {
    let image: &[&[i64]] = &[&[0, 6, 4, 5]];
    for opset in [13, 17, 20, 21] {
        becomes(
            &built(opset, image, |x| group_norm(x[0], 3, 1.0)),
            "GroupNormalization",
            "groups",
        );
    }
    let m = built(17, image, |x| group_norm(x[0], 3, 2.0));
    stays(
        &m,
        "GroupNormalization",
        "group-norm",
        "the groups have a scale or bias of their own",
    );
    let m = tapped(
        built(17, image, |x| group_norm(x[0], 3, 1.0)),
        "InstanceNormalization",
    );
    stays(&m, "GroupNormalization", "group-norm", ELSEWHERE);
    // Groups across images.
    let m = built(17, &[&[2, 6, 4, 5]], |x| {
        let ones = |v: f32| x[0].tensor(Tensor::of(&[3], vec![v; 3]));
        let flat = x[0].op("Reshape", &[ints(x[0], &[4, 3, -1])]);
        let n = flat.op("InstanceNormalization", &[ones(1.0), ones(0.0)]);
        n.op("Reshape", &[ints(x[0], &[2, 6, 4, 5])])
    });
    stays(
        &m,
        "GroupNormalization",
        "group-norm",
        "the groups are no groups of channels",
    );
}

fn greatest(x: Ex<'_>) -> Ex<'_> {
    x.with("ReduceMax", &[], attr("axes", vec![-1i64]))
}

fn total(x: Ex<'_>, axis: i64) -> Ex<'_> {
    x.op("ReduceSum", &[ints(x, &[axis])])
}

fn clip(x: Ex<'_>) -> Ex<'_> {
    (x + 3.0).op("Clip", &[x.constant(0.0), x.constant(6.0)])
}

fn turn(x: Ex<'_>) -> Ex<'_> {
    x.with("Transpose", &[], attr("perm", vec![0i64, 2, 1]))
}

/// Two heads of keys or values as four.
fn doubled(x: Ex<'_>) -> Ex<'_> {
    let wide = x
        .op("Unsqueeze", &[ints(x, &[2])])
        .op("Expand", &[ints(x, &[1, 1, 2, 1, 1])]);
    wide.op("Reshape", &[ints(x, &[-1, 4, 6, 8])])
}

fn summed(x: Ex<'_>) -> Ex<'_> {
    total(x, -1) / 8.0
}

fn first(x: Ex<'_>) -> Ex<'_> {
    x.with("ReduceMean", &[], attr("axes", vec![0i64]))
}

#[test]
fn every_spelling_of_softmax_is_one_node() {
    let m = model(13, |x| {
        let e = (x - greatest(x)).exp();
        e / total(e, -1)
    });
    assert_eq!(optimised(&m, Scope::Portable), ["Softmax"]);
    let m = model(13, |x| x.exp() / total(x.exp(), 0));
    assert_eq!(optimised(&m, Scope::Portable), ["Softmax"]);
    let m = model(13, |x| x.exp() / total(x, -1));
    assert!(!optimised(&m, Scope::Portable).contains(&"Softmax".to_owned()));
    let m = model(13, |x| {
        let e = (x - greatest(x)).exp();
        e / total(e, -1)
    });
    assert!(!optimised(&tapped(m, "Exp"), Scope::Portable).contains(&"Softmax".to_owned()));
}

#[test]
fn activations_are_found_in_other_formulas_than_their_own() {
    let forms: &[(&str, Form)] = &[
        ("Sigmoid", |x| x.constant(1.0) / ((-x).exp() + 1.0)),
        ("Sigmoid", |x| {
            (x.constant(1.0) + (-x).exp()).op("Reciprocal", &[])
        }),
        ("Swish", |x| x / (x.constant(1.0) + (-x).exp())),
        ("Swish", |x| x.sigmoid() * x),
        ("Mish", |x| x * (x.exp() + 1.0).log().tanh()),
        ("Mish", |x| x.op("Softplus", &[]).tanh() * x),
        ("HardSwish", |x| {
            x * (x + 3.0).op("Relu", &[]).op("Min", &[x.constant(6.0)]) / 6.0
        }),
        ("HardSwish", |x| {
            let gate = vec![Attr::new("alpha", 0.166_666_7f32), Attr::new("beta", 0.5f32)];
            x.with("HardSigmoid", &[], gate) * x
        }),
        ("Gelu", |x| {
            let inner = (x + pow(x, 3.0) * 0.044715) * 0.797_884_56;
            x * 0.5 * (x.constant(1.0) + inner.tanh())
        }),
        ("Gelu", |x| {
            let inner = (x + x * pow(x, 2.0) * 0.044715) * 0.797_884_56;
            (inner.tanh() + 1.0) * x / 2.0
        }),
        ("Gelu", |x| x * 0.5 * ((x * 0.707_106_77).erf() + 1.0)),
    ];
    for (op, write) in forms {
        becomes(&model(13, write), op, op);
    }
    becomes(&model(13, |x| x * clip(x) / 6.0), "HardSwish", "clip");
    becomes(&model(13, |x| x * (clip(x) * (1.0 / 6.0))), "HardSwish", "clip");
    let misses: &[(&str, Form)] = &[
        ("HardSwish", |x| {
            x * (x + 3.0).op("Relu", &[]).op("Min", &[x.constant(6.0)]) / 5.0
        }),
        ("HardSwish", |x| {
            x * (x + 2.5).op("Relu", &[]).op("Min", &[x.constant(6.0)]) / 6.0
        }),
        ("Gelu", |x| {
            x * 0.5 * (((x + pow(x, 3.0) * 0.05) * 0.797_884_56).tanh() + 1.0)
        }),
        ("Gelu", |x| {
            x * 0.5 * (((x + pow(x, 4.0) * 0.044715) * 0.797_884_56).tanh() + 1.0)
        }),
        ("Mish", |x| x * (x.exp() + 2.0).log().tanh()),
        ("Swish", |x| x / ((-x).exp() + 2.0)),
        ("Swish", |x| (x + 1.0) * x.sigmoid()),
    ];
    for (op, write) in misses {
        stays(&model(13, write), op, "", "");
    }
}

/// Queries, keys and values of 2 heads, and what is between them.
const HEADS: &[&[i64]] = &[&[0, 2, 5, 4], &[0, 2, 6, 4], &[0, 2, 6, 4]];

fn swap(x: Ex<'_>) -> Ex<'_> {
    x.with("Transpose", &[], attr("perm", vec![0i64, 1, 3, 2]))
}

fn softmax(x: Ex<'_>) -> Ex<'_> {
    x.with("Softmax", &[], attr("axis", -1))
}

type Mixed = for<'a> fn(&[Ex<'a>]) -> Ex<'a>;

fn triangle(x: Ex<'_>, rows: usize, columns: usize, far: f32) -> Ex<'_> {
    let at = |i: usize| if i % columns <= i / columns { 0.0 } else { far };
    x.tensor(Tensor::of(
        &[1, 1, rows, columns],
        (0..rows * columns).map(at).collect(),
    ))
}

fn seen(x: Ex<'_>) -> Ex<'_> {
    x.tensor(Tensor::bools(&[5, 6], (0..30).map(|i| i % 4 != 1)))
}

const ATTENTIONS: &[(&str, Mixed)] = &[
    ("bare", |x| softmax(x[0].matmul(swap(x[1]))).matmul(x[2])),
    ("divided scores", |x| {
        softmax(x[0].matmul(swap(x[1])) / 2.0).matmul(x[2])
    }),
    ("scaled queries", |x| {
        softmax((x[0] * 0.5).matmul(swap(x[1]))).matmul(x[2])
    }),
    ("scaled keys", |x| {
        softmax(x[0].matmul(swap(x[1] * 0.5))).matmul(x[2])
    }),
    ("scaled both", |x| {
        softmax((x[0] * 0.7).matmul(swap(x[1]) * 0.7)).matmul(x[2])
    }),
    ("mask of minus infinity", |x| {
        let far = triangle(x[0], 5, 6, f32::NEG_INFINITY);
        softmax(x[0].matmul(swap(x[1])) * 0.5 + far).matmul(x[2])
    }),
    ("bias", |x| {
        let bias = x[0].tensor(floats(&[2, 5, 6], 3));
        softmax(bias + x[0].matmul(swap(x[1])) * 0.5).matmul(x[2])
    }),
    ("two masks", |x| {
        let bias = x[0].tensor(floats(&[2, 5, 6], 3));
        let far = triangle(x[0], 5, 6, f32::MIN);
        softmax(x[0].matmul(swap(x[1])) * 0.5 + bias + far).matmul(x[2])
    }),
    ("filled", |x| {
        let far = x[0].constant(f64::NEG_INFINITY);
        softmax(seen(x[0]).op("Where", &[x[0].matmul(swap(x[1])) * 0.5, far])).matmul(x[2])
    }),
    ("filled elsewhere", |x| {
        let far = x[0].constant(-1e9);
        let hidden = seen(x[0]).op("Not", &[]);
        softmax(hidden.op("Where", &[far, x[0].matmul(swap(x[1])) * 0.5])).matmul(x[2])
    }),
    ("one column", |x| {
        let bias = x[0].tensor(floats(&[5, 1], 3));
        softmax(x[0].matmul(swap(x[1])) * 0.5 + bias).matmul(x[2])
    }),
    ("soft cap", |x| {
        softmax((x[0].matmul(swap(x[1])) * 0.5 / 3.0).tanh() * 3.0).matmul(x[2])
    }),
    ("without numbers for nothing", |x| {
        let shares = softmax(x[0].matmul(swap(x[1])));
        shares
            .op("IsNaN", &[])
            .op("Where", &[x[0].constant(0.0), shares])
            .matmul(x[2])
    }),
    ("exponentials", |x| {
        let scores = x[0].matmul(swap(x[1])) * 0.5;
        let e = (scores - scores.with("ReduceMax", &[], attr("axes", vec![-1i64]))).exp();
        (e / e.op("ReduceSum", &[ints(e, &[-1])])).matmul(x[2])
    }),
];

#[test]
fn every_spelling_of_attention_is_one_node() {
    for (form, write) in ATTENTIONS {
        let op = match *form {
            "one column" => "secateur.Attention",
            _ => "Attention",
        };
        becomes(&built(13, HEADS, write), op, form);
        let whole = built(17, &[&[2, 2, 5, 4], &[2, 2, 6, 4], &[2, 2, 6, 4]], write);
        becomes(&whole, op, form);
    }
    // How many keys there are is not known, nor that the mask has as many columns.
    for columns in [1, 3] {
        let mask = floats(&[3, columns], 4);
        let m = built(13, &[&[0, 2, 0, 4], &[0, 2, 0, 4], &[0, 2, 0, 4]], move |x| {
            let mask = x[0].tensor(mask.clone());
            softmax(x[0].matmul(swap(x[1])) * 0.5 + mask).matmul(x[2])
        });
        becomes(&m, "secateur.Attention", "free keys");
    }
    // Heads are swapped with places in the same step as the keys are turned.
    let m = built(13, &[&[0, 2, 5, 4], &[0, 6, 2, 4], &[0, 2, 6, 4]], |x| {
        let k = x[1].with("Transpose", &[], attr("perm", vec![0i64, 2, 3, 1]));
        softmax(x[0].matmul(k)).matmul(x[2])
    });
    becomes(&m, "Attention", "turned at once");
    let m = built(13, &[&[0, 2, 5, 4], &[0, 2, 4, 6], &[0, 2, 6, 4]], |x| {
        softmax(x[0].matmul(x[1])).matmul(x[2])
    });
    becomes(&m, "Attention", "turned before");
    let m = built(13, &[&[0, 5, 4], &[0, 6, 4], &[0, 6, 4], &[0, 5, 6]], |x| {
        softmax(x[0].matmul(turn(x[1])) * 0.5 + x[3]).matmul(x[2])
    });
    becomes(&m, "Attention", "three axes");
    // `V Sᵀ`, as convolutional networks have it.
    let m = built(13, &[&[0, 5, 4], &[0, 6, 4], &[0, 4, 6]], |x| {
        x[2].matmul(turn(softmax(x[0].matmul(turn(x[1])) * 0.5)))
    });
    becomes(&m, "Attention", "turned shares");
}

fn attributes(m: &Model) -> Vec<Attr> {
    let mut new = m.clone();
    optimize(&mut new, Scope::Engine).unwrap();
    let found = new
        .graph
        .iter()
        .find(|(_, n)| n.is("Attention"))
        .map(|(_, n)| n.attrs.clone());
    found.unwrap_or_default()
}

#[test]
fn a_lower_triangle_is_no_mask_but_a_flag() {
    let square: &[&[i64]] = &[&[0, 2, 6, 4], &[0, 2, 6, 4], &[0, 2, 6, 4]];
    let causal = |m: &Model| attributes(m).iter().any(|a| &*a.name == "is_causal");
    for far in [f32::NEG_INFINITY, f32::MIN, -1e9] {
        let m = built(13, square, move |x| {
            softmax(x[0].matmul(swap(x[1])) + triangle(x[0], 6, 6, far)).matmul(x[2])
        });
        assert!(causal(&m));
        becomes(&m, "Attention", "triangle");
    }
    let m = built(14, &[&[0, 2, 0, 4], &[0, 2, 0, 4], &[0, 2, 0, 4]], |x| {
        let size = x[0].op("Shape", &[]).op("Gather", &[ints(x[0], &[2, 2])]);
        let ones = x[0]
            .constant(1.0)
            .op("Expand", &[size])
            .with("Trilu", &[], attr("upper", 0));
        let hidden = ones.op("Equal", &[x[0].constant(0.0)]);
        let mask = hidden.op("Where", &[x[0].constant(f64::NEG_INFINITY), x[0].constant(0.0)]);
        softmax(x[0].matmul(swap(x[1])) + mask).matmul(x[2])
    });
    assert!(causal(&m));
    becomes(&m, "Attention", "Trilu");
    let m = built(13, square, |x| {
        softmax(x[0].matmul(swap(x[1])) + triangle(x[0], 6, 6, -2.0)).matmul(x[2])
    });
    assert!(!causal(&m));
    becomes(&m, "Attention", "bias that is a triangle");
    let m = built(13, HEADS, |x| {
        softmax(x[0].matmul(swap(x[1])) + triangle(x[0], 5, 6, f32::MIN)).matmul(x[2])
    });
    assert!(causal(&m));
    becomes(&m, "Attention", "more keys than queries");
}

#[test]
fn keys_repeated_for_groups_of_heads_are_read_once() {
    let m = built(13, &[&[0, 4, 5, 8], &[0, 2, 6, 8], &[0, 2, 6, 8]], |x| {
        softmax(x[0].matmul(swap(doubled(x[1]))) * 0.3).matmul(doubled(x[2]))
    });
    let (ops, _) = engine(&m);
    assert_eq!(ops, ["Attention"]);
}

#[test]
fn near_misses_of_attention_stay_and_say_why() {
    const AXIS: &str = "the softmax runs along another axis than the keys";
    const PART: &str = "masked scores keep some of their weight";
    let misses: &[(Mixed, &str)] = &[
        (
            |x| {
                x[0].matmul(swap(x[1]))
                    .with("Softmax", &[], attr("axis", 2))
                    .matmul(x[2])
            },
            AXIS,
        ),
        (
            |x| {
                softmax(x[0].matmul(swap(x[1])) / x[0].with("ReduceMax", &[], attr("keepdims", 0)))
                    .matmul(x[2])
            },
            "the scale is not a constant",
        ),
        (
            |x| softmax(seen(x[0]).op("Where", &[x[0].matmul(swap(x[1])), x[0].constant(-1.0)])).matmul(x[2]),
            PART,
        ),
        (
            |x| softmax((x[0].matmul(swap(x[1])) + triangle(x[0], 5, 6, -9.0)) * 0.5).matmul(x[2]),
            "the mask is scaled or capped with the scores",
        ),
        (
            |x| softmax(x[0].matmul(swap(x[1])).tanh()).matmul(x[2]),
            "scores pass through a hyperbolic tangent without its factor",
        ),
        (
            |x| softmax(x[0].matmul(swap(x[1])) + x[0].exp().matmul(swap(x[1]))).matmul(x[2]),
            "a sum of two products of matrices goes into the softmax",
        ),
        (|x| x[0].matmul(swap(x[1])).sigmoid().matmul(x[2]), ""),
    ];
    for (write, why) in misses {
        stays(&built(13, HEADS, write), "Attention", "attention", why);
    }
    for op in ["Softmax", "MatMul", "Add"] {
        let m = tapped(built(13, HEADS, ATTENTIONS[6].1), op);
        stays(&m, "Attention", "attention", ELSEWHERE);
    }
    let m = built(13, &[&[1, 2, 5, 4], &[1, 2, 6, 4], &[1, 2, 6, 4]], |x| {
        let far = x[0].tensor(floats(&[3, 1, 2, 5, 6], 1));
        softmax(x[0].matmul(swap(x[1])) + far).matmul(swap(swap(x[2])))
    });
    stays(
        &m,
        "Attention",
        "attention",
        "the result has more axes than the input",
    );
}

#[test]
fn attention_broadcasts_as_its_formula_does() {
    // Free sizes are 3: a guess that they are the same, or that they are not 1, would be wrong.
    let shapes: &[&[&[i64]]] = &[
        &[&[2, 2, 5, 4], &[1, 2, 6, 4], &[1, 2, 6, 4]],
        &[&[1, 2, 5, 4], &[0, 2, 6, 4], &[0, 2, 6, 4]],
        &[&[0, 2, 5, 4], &[1, 2, 6, 4], &[0, 2, 6, 4]],
        &[&[2, 1, 5, 4], &[2, 0, 6, 4], &[2, 0, 6, 4]],
        &[&[2, 0, 5, 4], &[2, 1, 6, 4], &[2, 1, 6, 4]],
    ];
    for shapes in shapes {
        becomes(
            &built(13, shapes, ATTENTIONS[1].1),
            "secateur.Attention",
            "operands",
        );
    }
    let masks: &[&[i64]] = &[
        &[3, 1, 5, 6],
        &[0, 1, 5, 6],
        &[0, 2, 1, 6],
        &[5, 1],
        &[1, 0, 0, 0],
    ];
    for mask in masks {
        let (queries, keys) = if mask[mask.len() - 1] == 0 { (1, 3) } else { (5, 6) };
        let m = built(
            13,
            &[&[1, 1, queries, 4], &[1, 1, keys, 4], &[1, 1, keys, 4], mask],
            |x| softmax(x[0].matmul(swap(x[1])) * 0.5 + x[3]).matmul(x[2]),
        );
        becomes(&m, "secateur.Attention", "masks");
    }
    // A key for all columns of the mask.
    let m = built(13, &[&[2, 1, 5, 4], &[2, 1, 1, 4], &[2, 1, 6, 4], &[5, 6]], |x| {
        softmax(x[0].matmul(swap(x[1])) + x[3]).matmul(x[2])
    });
    becomes(&m, "secateur.Attention", "one key");
    // A triangle is a flag only where no other mask makes more rows.
    let m = built(
        13,
        &[&[0, 2, 3, 4], &[0, 2, 3, 4], &[0, 2, 3, 4], &[0, 1, 0, 0]],
        |x| softmax(x[0].matmul(swap(x[1])) + triangle(x[0], 3, 3, f32::MIN) + x[3]).matmul(x[2]),
    );
    becomes(&m, "secateur.Attention", "a triangle and another mask");
}

#[test]
fn attention_of_half_floats_is_recognised() {
    fn cast(x: Ex<'_>, to: DType) -> Ex<'_> {
        x.with("Cast", &[], attr("to", i64::from(to.code())))
    }
    let m = built(13, HEADS, |x| {
        let [q, k, v] = [0, 1, 2].map(|i| cast(x[i], DType::F16));
        let shares = cast(softmax(cast(q.matmul(swap(k)), DType::F32)), DType::F16);
        cast(shares.matmul(v), DType::F32)
    });
    let mut new = m.clone();
    optimize(&mut new, Scope::Engine).unwrap();
    let found = ops(&new);
    assert!(found.contains(&"secateur.Attention".to_owned()), "{found:?}");
    let inputs = [([3, 2, 5, 4], 5), ([3, 2, 6, 4], 6), ([3, 2, 6, 4], 7)].map(|(d, seed)| floats(&d, seed));
    let feeds = || ["x", "y", "z"].into_iter().zip(&inputs);
    let want = Session::builder(&m)
        .unoptimized()
        .build()
        .unwrap()
        .run(feeds())
        .unwrap();
    let got = Session::builder(&m).build().unwrap().run(feeds()).unwrap();
    for ((_, g), (_, w)) in got.tensors().zip(want.tensors()) {
        let pairs = g.floats().unwrap().into_iter().zip(w.floats().unwrap());
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 4e-3));
    }
}

fn shifted<'a>(x: &[Ex<'a>], windows: i64) -> Ex<'a> {
    let scores = x[0].matmul(swap(x[1])) * 0.5 + x[0].tensor(floats(&[1, 2, 5, 6], 2));
    let apart = scores.op("Reshape", &[ints(x[0], &[-1, windows, 2, 5, 6])]);
    let mask = x[0].tensor(floats(&[1, 3, 1, 5, 6], 3));
    softmax((apart + mask).op("Reshape", &[ints(x[0], &[-1, 2, 5, 6])])).matmul(x[2])
}

#[test]
fn windows_may_have_masks_of_their_own() {
    let m = built(13, &[&[6, 2, 5, 4], &[6, 2, 6, 4], &[6, 2, 6, 4]], |x| {
        shifted(x, 3)
    });
    becomes(&m, "Attention", "windows");
    let m = built(13, HEADS, |x| shifted(x, 3));
    becomes(&m, "Attention", "windows of a free number of images");
    let m = built(13, HEADS, |x| {
        let turned = (x[0].matmul(swap(x[1])) * 0.5).op("Reshape", &[ints(x[0], &[-1, 2, 6, 5])]);
        let back = (turned + x[0].tensor(floats(&[6, 5], 3))).op("Reshape", &[ints(x[0], &[-1, 2, 5, 6])]);
        softmax(back).matmul(x[2])
    });
    stays(
        &m,
        "Attention",
        "attention",
        "the scores are reshaped before the softmax",
    );
}

/// `[0, half)` or `[half, 8)` of the last axis.
fn part(x: Ex<'_>, from: i64, to: i64) -> Ex<'_> {
    x.op("Slice", &[ints(x, &[from]), ints(x, &[to]), ints(x, &[3])])
}

fn rotated(x: Ex<'_>) -> Ex<'_> {
    (-part(x, 4, i64::MAX)).with("Concat", &[part(x, 0, 4)], attr("axis", -1))
}

/// Angles of 5 places; the halves of each row are the same if `twice`.
fn angles(x: Ex<'_>, twice: bool) -> Ex<'_> {
    let half = floats(&[5, 4], 9).floats().unwrap();
    let at = |i: usize| half[i / 8 * 4 + i % 4] as f32 + if twice || i % 8 < 4 { 0.0 } else { 0.5 };
    x.tensor(Tensor::of(&[1, 1, 5, 8], (0..40).map(at).collect()))
}

/// Every second number of the last axis.
fn every_other(x: Ex<'_>, from: i64) -> Ex<'_> {
    let range = [from, i64::MAX, 3, 2].map(|i| ints(x, &[i]));
    x.op("Slice", &range)
}

/// `a` and `b` in turns.
fn stacked<'a>(a: Ex<'a>, b: Ex<'a>, dims: &[i64]) -> Ex<'a> {
    let [a, b] = [a, b].map(|x| x.op("Unsqueeze", &[ints(x, &[-1])]));
    let both = a.with("Concat", &[b], attr("axis", -1));
    both.op("Reshape", &[ints(a, dims)])
}

fn neighbours(x: Ex<'_>) -> Ex<'_> {
    stacked(-every_other(x, 1), every_other(x, 0), &[0, 3, 5, 8])
}

#[test]
fn rotary_embedding_of_neighbours_is_one_node() {
    let m = built(13, &[&[0, 3, 5, 8], &[5, 4]], |x| {
        let all = stacked(x[1], x[1], &[5, 8]).op("Unsqueeze", &[ints(x[0], &[0, 1])]);
        all.op("Sin", &[]) * neighbours(x[0]) + all.op("Cos", &[]) * x[0]
    });
    becomes(&m, "RotaryEmbedding", "computed");
    let pairs = |x: Ex<'_>, twice: bool| {
        let half = floats(&[5, 4], 9).floats().unwrap();
        let at = |i: usize| half[i / 2] as f32 + if twice || i.is_multiple_of(2) { 0.0 } else { 0.5 };
        x.tensor(Tensor::of(&[1, 1, 5, 8], (0..40).map(at).collect())).id
    };
    for twice in [true, false] {
        let m = built(13, &[&[0, 3, 5, 8]], |x| {
            let [cos, sin] = [true, twice].map(|twice| Ex {
                id: pairs(x[0], twice),
                ..x[0]
            });
            x[0] * cos + neighbours(x[0]) * sin
        });
        match twice {
            true => becomes(&m, "RotaryEmbedding", "neighbours"),
            false => stays(
                &m,
                "RotaryEmbedding",
                "rotary",
                "neighbours among the angles are not known to be the same",
            ),
        }
    }
    // Angles for halves do not fit neighbours.
    let m = built(13, &[&[0, 3, 5, 8]], |x| {
        x[0] * angles(x[0], true) + neighbours(x[0]) * angles(x[0], true)
    });
    stays(&m, "RotaryEmbedding", "rotary", "");
}

#[test]
fn rotary_embedding_is_one_node() {
    let image: &[&[i64]] = &[&[0, 3, 5, 8]];
    let m = built(13, image, |x| {
        x[0] * angles(x[0], true) + rotated(x[0]) * angles(x[0], true).tanh()
    });
    becomes(&m, "RotaryEmbedding", "halves");
    let m = built(13, &[&[0, 3, 5, 8], &[5, 4]], |x| {
        let all = x[1]
            .with("Concat", &[x[1]], attr("axis", -1))
            .op("Unsqueeze", &[ints(x[0], &[0, 1])]);
        all.op("Sin", &[]) * rotated(x[0]) + all.op("Cos", &[]) * x[0]
    });
    becomes(&m, "RotaryEmbedding", "computed");
    let m = built(13, &[&[0, 3, 5, 8], &[0, 1, 5, 4]], |x| {
        let all = x[1].op("Tile", &[ints(x[0], &[1, 1, 1, 2])]);
        all.op("Sin", &[]) * rotated(x[0]) + all.op("Cos", &[]) * x[0]
    });
    becomes(&m, "RotaryEmbedding", "by sequence");
    let m = built(13, image, |x| {
        x[0] * angles(x[0], false) + rotated(x[0]) * angles(x[0], true)
    });
    stays(
        &m,
        "RotaryEmbedding",
        "rotary",
        "both halves of the angles are not known to be the same",
    );
    let m = built(13, image, |x| {
        x[0] * angles(x[0], true) + rotated(x[0].tanh()) * angles(x[0], true)
    });
    stays(&m, "RotaryEmbedding", "rotary", "");
    let m = built(13, image, |x| {
        x[0] * angles(x[0], true) + rotated(x[0]) * angles(x[0], true)
    });
    stays(&tapped(m, "Neg"), "RotaryEmbedding", "rotary", ELSEWHERE);
}

#[test]
fn thousands_of_nodes_are_optimised_in_no_time() {
    let m = model(13, |x| {
        let mut x = x;
        for i in 0..340 {
            let d = x - mean(x);
            let y = d / sqrt(mean(d * d) + EPS) * row(x, i) + row(x, i + 1);
            let z = y * ((y / ROOT).erf() + 1.0) * 0.5;
            x = x + z.tanh();
        }
        x
    });
    assert!(m.graph.order.len() > 5000, "{}", m.graph.order.len());
    let start = std::time::Instant::now();
    let mut new = m.clone();
    optimize(&mut new, Scope::Engine).unwrap();
    let taken = start.elapsed();
    let found = ops(&new).iter().filter(|o| *o == "LayerNormalization").count();
    assert_eq!(found, 340);
    // Ten times what it takes without optimisation by the compiler.
    assert!(taken.as_secs_f64() < 20.0, "{taken:?}");
    println!("{} nodes in {taken:?}", m.graph.order.len());
}
