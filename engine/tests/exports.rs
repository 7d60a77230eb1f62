//! Graphs that PyTorch's exporters wrote, by `scripts/export_graphs.py`: they give what ONNX Runtime gave, and what they spell
//! out is recognised.
//!
//! `SECATEUR_GRAPHS` is the folder they are in; without it, the test is skipped. `GRAPH` picks one by name, and shows what the
//! optimiser made of it.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secateur_engine::ir::{Bytes, Datum, Model, Type};
use secateur_engine::onnx;
use secateur_engine::opt::infer::full_name;
use secateur_engine::run::{Feed, Session};

/// What is to be found in each graph when it is optimised, by both exporters: operators, and activations of kernels.
const EXPECTED: &[(&str, &[(&str, usize)])] = &[
    (
        "encoder",
        &[
            ("Attention", 2),
            ("LayerNormalization", 5),
            ("Gelu", 2),
            ("Softmax", 0),
            ("Erf", 0),
        ],
    ),
    (
        "bert",
        &[
            ("Attention", 2),
            ("LayerNormalization", 5),
            ("Gelu", 2),
            ("Softmax", 0),
            ("Erf", 0),
        ],
    ),
    (
        "gpt",
        &[
            ("Attention", 2),
            ("LayerNormalization", 5),
            ("GeluTanh", 2),
            ("Softmax", 0),
            ("Trilu", 0),
        ],
    ),
    (
        "decoder",
        &[
            ("Attention", 2),
            ("RMSNormalization", 5),
            ("RotaryEmbedding", 4),
            ("Swish", 2),
            ("Softmax", 0),
            ("Neg", 0),
        ],
    ),
    ("tagger", &[("LSTM", 2), ("LogSoftmax", 1)]),
    (
        "unet",
        &[
            ("Attention", 1),
            ("GroupNormalization", 11),
            ("Swish", 10),
            ("InstanceNormalization", 0),
            ("Softmax", 0),
        ],
    ),
    (
        "swin",
        &[
            ("Attention", 2),
            ("LayerNormalization", 5),
            ("Gelu", 2),
            ("Softmax", 0),
            ("Erf", 0),
        ],
    ),
];

fn value(path: &Path, ty: &Type) -> Datum {
    onnx::parse_value(Bytes::new(std::fs::read(path).unwrap()), ty).unwrap()
}

fn port_type(p: &secateur_engine::ir::Port) -> Type {
    p.ty.as_ref().map_or(Type::Unknown, |d| d.ty.clone())
}

fn inputs(model: &Model, set: &Path) -> Vec<(String, Datum)> {
    let ports = model.graph.inputs.iter().enumerate();
    ports
        .map(|(i, p)| {
            let x = value(&set.join(format!("input_{i}.pb")), &port_type(p));
            (model.graph[p.value].name.to_string(), x)
        })
        .collect()
}

/// Operators of the optimised model, and the activations that kernels took in, with how many there are.
fn counts(model: &Model) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for (_, node) in model.graph.iter() {
        let name = full_name(node);
        let name = name.strip_prefix("secateur.").unwrap_or(&name);
        *all.entry(name.to_owned()).or_insert(0) += 1;
        if let Some(secateur_engine::ir::AttrValue::Bytes(Some(act))) = node.attr("activation") {
            *all.entry(String::from_utf8_lossy(act).into_owned()).or_insert(0) += 1;
        }
    }
    all
}

fn farthest(got: &Datum, want: &Datum) -> f64 {
    let (Datum::Tensor(a), Datum::Tensor(b)) = (got, want) else {
        panic!("expected tensors");
    };
    assert_eq!((a.dtype(), a.dims()), (b.dtype(), b.dims()));
    let (a, b) = (a.floats().unwrap(), b.floats().unwrap());
    let off = |(x, y): (&f64, &f64)| {
        if x == y || (x.is_nan() && y.is_nan()) {
            0.0
        } else {
            (x - y).abs() / (1.0 + y.abs())
        }
    };
    a.iter().zip(&b).map(off).fold(0.0, f64::max)
}

fn check(folder: &Path, loud: bool) -> Vec<String> {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let model = onnx::load(&folder.join("model.onnx")).unwrap();
    let session = match Session::builder(&model).threads(2).build() {
        Ok(session) => session,
        Err(e) => return vec![format!("{name}: {e}")],
    };
    let found = counts(session.model());
    let mut wrong = vec![];
    for i in 0.. {
        let set = folder.join(format!("test_data_set_{i}"));
        if !set.join("output_0.pb").exists() {
            break;
        }
        let x = inputs(&model, &set);
        let feeds = x.iter().map(|(n, x)| (n, Feed::from(x.clone())));
        let got = match session.run(feeds) {
            Ok(got) => got,
            Err(e) => {
                wrong.push(format!("{name}, set {i}: {e}"));
                continue;
            }
        };
        for (j, got) in got.values.iter().enumerate() {
            let off = farthest(got, &value(&set.join(format!("output_{j}.pb")), &Type::Unknown));
            if off.is_nan() || off > 1e-4 {
                wrong.push(format!("{name}, set {i}, output {j}: off by {off:e}"));
            }
        }
    }
    let kind = name.rsplit_once('-').unwrap().0;
    for (op, want) in EXPECTED
        .iter()
        .filter(|e| e.0 == kind || e.0 == name)
        .flat_map(|e| e.1)
    {
        let have = found.get(*op).copied().unwrap_or(0);
        if have != *want {
            wrong.push(format!("{name}: {have} of {op}, expected {want}"));
        }
    }
    eprintln!("{name}: {found:?}");
    if loud {
        for (_, node) in session.model().graph.iter() {
            let g = &session.model().graph;
            let names: Vec<_> = node
                .inputs
                .iter()
                .map(|v| v.map_or("_", |v| &*g[v].name))
                .collect();
            let attrs: Vec<_> = node
                .attrs
                .iter()
                .map(|a| format!("{}={:?}", a.name, a.value))
                .collect();
            eprintln!(
                "  {} {names:?} {}",
                full_name(node),
                attrs.join(" ").chars().take(120).collect::<String>()
            );
        }
        for e in session.report().events.iter().filter(|e| e.refused.is_some()) {
            eprintln!("  {} at {}: {}", e.rule, e.node, e.refused.unwrap());
        }
    }
    wrong
}

#[test]
fn exported_graphs_agree_with_onnx_runtime_and_are_recognised() {
    let Some(dir) = std::env::var_os("SECATEUR_GRAPHS").map(PathBuf::from) else {
        eprintln!("skipped: SECATEUR_GRAPHS is not set");
        return;
    };
    let only = std::env::var("GRAPH").unwrap_or_default();
    let mut folders: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .collect();
    folders.retain(|p| p.join("test_data_set_0/output_0.pb").exists() && p.to_string_lossy().contains(&only));
    folders.sort();
    let wrong: Vec<_> = folders.iter().flat_map(|f| check(f, !only.is_empty())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
