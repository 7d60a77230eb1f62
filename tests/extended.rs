//! Tests on real models and on ONNX's own test files, which `scripts/extended.sh` fetches.
//!
//! They read `$SECATEUR_MODELS/NAME/…` and leave the models they write in `$SECATEUR_OUT`, for other runtimes to judge.
//! What is not there is skipped, with the reason on standard error.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};

use secateur::engine::ir::{AttrValue, Bytes, Data, Dim, Element, Model, Node, Tensor};
use secateur::engine::onnx;
use secateur::engine::ops::case::floats;
use secateur::engine::opt::{Scope, optimize};
use secateur::engine::run::{Outputs, Session};

/// A model of `scripts/models.tsv`, with sizes for its free dimensions and others to try.
struct Real {
    name: &'static str,
    sizes: &'static [(&'static str, usize)],
    other: &'static [(&'static str, usize)],
}

const REAL: &[Real] = &[
    Real {
        name: "opennsfw-resnet50thin",
        sizes: &[("unk__653", 1)],
        other: &[("unk__653", 3)],
    },
    Real {
        name: "nudenet-yolov8n",
        sizes: &[("batch", 1), ("height", 320), ("width", 320)],
        other: &[("batch", 2), ("height", 192), ("width", 256)],
    },
    Real {
        name: "orientation-lcnet",
        sizes: &[("DynamicDimension.0", 1)],
        other: &[("DynamicDimension.0", 2)],
    },
    Real {
        name: "minilm-l3-fp32",
        sizes: &[("batch_size", 1), ("sequence_length", 128)],
        other: &[("batch_size", 3), ("sequence_length", 17)],
    },
];

/// What exporters spelled out in models of `scripts/models.tsv`, and how often: operators of the optimised model, and activations
/// of kernels.
const SPELLED_OUT: &[(&str, &[(&str, usize)])] = &[
    // TensorFlow's.
    (
        "opennsfw-resnet50thin/open-nsfw.onnx",
        &[("Relu", 49), ("Add", 0), ("BatchNormalization", 0)],
    ),
    // Paddle's.
    (
        "ppocr-v4/ch_PP-OCRv4_rec_infer.onnx",
        &[
            ("Attention", 2),
            ("LayerNormalization", 5),
            ("HardSwish", 28),
            ("Swish", 7),
            ("Clip", 0),
            ("Pow", 0),
            ("ReduceMean", 0),
        ],
    ),
    (
        "ppocr-v4/ch_PP-OCRv4_det_infer.onnx",
        &[("HardSwish", 24), ("Clip", 0)],
    ),
    (
        "ppocr-v4/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        &[("HardSwish", 18), ("Clip", 0), ("BatchNormalization", 0)],
    ),
    // PyTorch's.
    (
        "vit-s/vit_s_focus.onnx",
        &[
            ("Attention", 12),
            ("LayerNormalization", 25),
            ("Gelu", 12),
            ("Erf", 0),
        ],
    ),
    (
        "minilm-l6-int8/model.onnx",
        &[
            ("Attention", 6),
            ("LayerNormalization", 13),
            ("Gelu", 6),
            ("Erf", 0),
        ],
    ),
];

fn folder() -> Option<PathBuf> {
    let dir = std::env::var_os("SECATEUR_MODELS").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("skipped: SECATEUR_MODELS is not set");
    }
    dir
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "onnx") {
            found.push(path);
        }
    }
}

fn real(model: &Real) -> Option<Model> {
    let mut found = vec![];
    files(&folder()?.join(model.name), &mut found);
    let Some(path) = found.first() else {
        eprintln!("skipped: {} has not been fetched", model.name);
        return None;
    };
    Some(onnx::load(path).unwrap())
}

/// Inputs for a model with these sizes of its free dimensions: small integers, and floats in [-2, 2).
fn inputs(model: &Model, sizes: &[(&str, usize)], seed: u64) -> Vec<(String, Tensor)> {
    let graph = &model.graph;
    let ports = graph.inputs.iter().filter(|p| graph[p.value].konst.is_none());
    ports
        .map(|p| {
            let ty = &p.ty.as_ref().unwrap().ty;
            let size = |d: &Dim| match d {
                Dim::Symbol(s) => sizes.iter().find(|(n, _)| *n == &**s).unwrap().1,
                d => d.size().unwrap(),
            };
            let dims: Vec<_> = ty.shape().unwrap().iter().map(size).collect();
            let random = floats(&dims, seed);
            let tensor = match ty.dtype() == Some(i64::DTYPE) {
                true => Tensor::of(
                    &dims,
                    random.floats().unwrap().iter().map(|x| x.abs() as i64).collect(),
                ),
                false => random,
            };
            (graph[p.value].name.to_string(), tensor)
        })
        .collect()
}

fn run(model: &Model, threads: usize, inputs: &[(String, Tensor)]) -> Outputs {
    let session = Session::builder(model).threads(threads).build().unwrap();
    session.run(inputs.iter().map(|(n, t)| (n, t))).unwrap()
}

fn assert_close(got: &Outputs, want: &Outputs, what: &str) {
    for ((name, g), (_, w)) in got.tensors().zip(want.tensors()) {
        assert_eq!((g.dtype(), g.dims()), (w.dtype(), w.dims()), "{what}: {name}");
        for (a, b) in g.floats().unwrap().iter().zip(w.floats().unwrap()) {
            assert!(
                (a - b).abs() <= 1e-4 + 1e-3 * b.abs(),
                "{what}: {name}: {a}, expected {b}"
            );
        }
    }
}

#[test]
fn onnx_test_files_are_written_as_they_were_read() {
    let Some(dir) = folder() else { return };
    let mut all = vec![];
    files(&dir.join("onnx-tests"), &mut all);
    let mut same = 0;
    for path in &all {
        let bytes = std::fs::read(path).unwrap();
        let model = onnx::parse(Bytes::new(bytes.clone()), path.parent());
        let model = model.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(
            onnx::to_bytes(&model) == bytes,
            "{} is not written as it was read",
            path.display()
        );
        same += 1;
    }
    eprintln!(
        "{same} of {} files of onnx-tests are written byte for byte",
        all.len()
    );
}

#[test]
fn threads_do_not_change_a_bit() {
    for r in REAL {
        let Some(model) = real(r) else { continue };
        let x = inputs(&model, r.sizes, 1);
        assert_eq!(run(&model, 1, &x), run(&model, 2, &x), "{}", r.name);
    }
}

/// Rows `from..to` of tensors that have `all` of them; others as they are.
fn rows(t: &Tensor, from: usize, to: usize, all: usize) -> Tensor {
    let mut dims = t.dims().to_vec();
    if dims.first() != Some(&all) {
        return t.clone();
    }
    let each = t.bytes().len() / all;
    dims[0] = to - from;
    let bytes = Bytes::new(t.bytes()[from * each..to * each].to_vec());
    Tensor::new(t.dtype(), dims, Data::Bytes(bytes)).unwrap()
}

/// Whether sessions compute for each row of a batch of five what they compute for it alone, on one and two threads.
fn independent(model: &Model, sizes: &[(&str, usize)], deterministic: bool) -> bool {
    const ROWS: usize = 5;
    let mut sizes = sizes.to_vec();
    sizes[0].1 = ROWS;
    let x = inputs(model, &sizes, 3);
    let session = |threads| {
        let builder = Session::builder(model).threads(threads);
        let way = if deterministic {
            builder.deterministic()
        } else {
            builder
        };
        way.build().unwrap()
    };
    let (one, two) = (session(1), session(2));
    let all = one.run(x.iter().map(|(n, t)| (n, t))).unwrap();
    assert_eq!(all, two.run(x.iter().map(|(n, t)| (n, t))).unwrap());
    let alone = |s: &Session, i: usize| {
        let x: Vec<_> = x.iter().map(|(n, t)| (n, rows(t, i, i + 1, ROWS))).collect();
        s.run(x.iter().map(|(n, t)| (n, t))).unwrap()
    };
    let same = |i: usize, got: Outputs| {
        let mut pairs = got.tensors().zip(all.tensors());
        pairs.all(|((_, a), (_, b))| *a == rows(b, i, i + 1, ROWS))
    };
    (0..ROWS).all(|i| same(i, alone(if i % 2 == 0 { &one } else { &two }, i)))
}

#[test]
fn the_batch_does_not_change_a_bit_where_that_is_asked() {
    let mut others = vec![];
    for r in REAL {
        let Some(model) = real(r) else { continue };
        assert!(independent(&model, r.sizes, true), "{}", r.name);
        others.push(independent(&model, r.sizes, false));
    }
    // Else nothing is shown.
    assert!(others.is_empty() || others.contains(&false));
}

#[test]
fn optimised_models_compute_the_same() {
    for r in REAL {
        let Some(model) = real(r) else { continue };
        let mut optimised = model.clone();
        optimize(&mut optimised, Scope::Portable).unwrap();
        if let Some(out) = std::env::var_os("SECATEUR_OUT") {
            let path = Path::new(&out).join(format!("{}-optimised.onnx", r.name));
            onnx::save(&optimised, &path, true).unwrap();
            optimised = onnx::load(&path).unwrap();
        }
        for sizes in [r.sizes, r.other] {
            let x = inputs(&model, sizes, 2);
            let plain = Session::builder(&model).threads(2).unoptimized().build().unwrap();
            let want = plain.run(x.iter().map(|(n, t)| (n, t))).unwrap();
            assert_close(&run(&model, 2, &x), &want, r.name);
            assert_close(&run(&optimised, 2, &x), &want, r.name);
        }
    }
}

#[test]
fn no_node_is_left_to_the_reference() {
    for r in REAL {
        let Some(model) = real(r) else { continue };
        let session = Session::builder(&model).build().unwrap();
        let shapes: Vec<_> = inputs(&model, r.sizes, 1)
            .iter()
            .map(|(_, t)| t.dims().to_vec())
            .collect();
        let plan = session.plan(&shapes).unwrap();
        let slow: Vec<_> = plan
            .steps()
            .iter()
            .filter(|s| s.kernel == "reference")
            .map(|s| &s.op)
            .collect();
        assert!(slow.is_empty(), "{}: {slow:?}", r.name);
    }
}

#[test]
fn what_exporters_spelled_out_is_recognised() {
    let Some(dir) = folder() else { return };
    for (name, expected) in SPELLED_OUT {
        let path = dir.join(name);
        if !path.exists() {
            eprintln!("skipped: {name} has not been fetched");
            continue;
        }
        let mut model = onnx::load(&path).unwrap();
        optimize(&mut model, Scope::Engine).unwrap();
        for &(op, count) in *expected {
            let is = |n: &Node| match n.attr("activation") {
                _ if &*n.op == op => true,
                Some(AttrValue::Bytes(Some(act))) => **act == *op.as_bytes(),
                _ => false,
            };
            let found = model.graph.iter().filter(|(_, n)| is(n)).count();
            assert_eq!(found, count, "{name}: {op}");
        }
    }
}
