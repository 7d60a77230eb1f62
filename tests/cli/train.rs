//! `train` and `finetune`.

use std::fs;

use secateur::engine::ir::{DType, Dim, Model, Node, Opset, Tensor, Type};
use secateur::engine::onnx;

use super::*;

/// A network that learns the digits in seconds.
const NET: [&str; 8] = [
    "--data", "digits", "--epochs", "3", "--batch", "100", "--lr", "0.003",
];

#[test]
fn an_architecture_learns_the_digits() {
    let folder = Folder::new("train");
    let [out, svg, csv, step] = ["out.onnx", "c.svg", "c.csv", "step.onnx"].map(|f| folder.file(f));
    let files = ["--curves", &svg, "--curves", &csv, "--save-training-graph", &step];
    let said = done(&[&["train", "lenet-300-100", &out][..], &NET, &files].concat());
    let epochs = said["epochs"].as_array().unwrap();
    assert_eq!(epochs.len(), 3);
    for key in ["loss", "accuracy", "val_loss", "val_accuracy", "seconds"] {
        assert!(epochs.iter().all(|e| e[key].is_f64()), "{key}: {said}");
    }
    assert!(epochs[2]["loss"].as_f64() < epochs[0]["loss"].as_f64());
    assert!(said["test"]["accuracy"].as_f64().unwrap() > 0.85, "{said}");
    assert!(said["step_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(said["before"]["parameters"], said["after"]["parameters"]);
    let verified = done(&["verify", &out, &out, "--data", "digits"]);
    let of = |x: &Value| x.as_f64().unwrap();
    assert!((of(&verified["metric"]["a"]) - of(&said["test"]["accuracy"])).abs() < 1e-6);
    assert!(fs::read_to_string(&svg).unwrap().contains("<polyline"));
    let table = fs::read_to_string(&csv).unwrap();
    assert_eq!(table.lines().count(), 4);
    // The step is plain ONNX.
    let ops = done(&["inspect", &step]);
    assert_eq!(ops["unsupported"], serde_json::json!([]));
    let private = |key: &String| key.starts_with("secateur.");
    assert!(!ops["ops"].as_object().unwrap().keys().any(private), "{ops}");
    // What is there is kept.
    let again = [&["train", "lenet-300-100", &out][..], &NET].concat();
    assert_eq!(secateur(&again).status, 2);
}

#[test]
fn what_was_pruned_stays_pruned() {
    let folder = Folder::new("finetune");
    let [pruned, tuned, thawed] = ["p.onnx", "t.onnx", "w.onnx"].map(|f| folder.file(f));
    done(&["prune", DIGITS, &pruned, "--sparsity", "0.9"]);
    let few = [
        "--data", "digits", "--epochs", "1", "--batch", "100", "--lr", "0.0003",
    ];
    let teach = ["--teacher", DIGITS];
    let said = done(&[&["finetune", &pruned, &tuned][..], &few, &teach].concat());
    assert_eq!(said["before"]["zeros"], said["after"]["zeros"]);
    let zeros = |file: &str| done(&["inspect", file])["zeros"].as_u64().unwrap();
    assert_eq!(zeros(&tuned), zeros(&pruned));
    done(&[&["finetune", &pruned, &thawed, "--thaw-zeros"][..], &few].concat());
    assert!(zeros(&thawed) < zeros(&pruned) / 10);
}

#[test]
fn killed_and_resumed_it_ends_in_the_same_file() {
    let folder = Folder::new("resume");
    let [whole, out, state] = ["whole.onnx", "out.onnx", "state"].map(|f| folder.file(f));
    done(&[&["train", "lenet-300-100", &whole][..], &NET].concat());
    let kept = ["--checkpoint", &state, "--resume", "--force"];
    let args = [&["train", "lenet-300-100", &out][..], &NET, &kept].concat();
    killed(&args, Duration::from_millis(100), || ());
    assert_eq!(fs::read(&out).unwrap(), fs::read(&whole).unwrap());
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = Folder::new("train-refused");
    let out = folder.file("out.onnx");
    let told = |model: &str, more: &[&str]| {
        let ran = secateur(&[&["train", model, &out][..], more].concat());
        assert_eq!(ran.status, 2, "{}", ran.err);
        assert!(!std::path::Path::new(&out).exists());
        ran.err
    };
    let classes = told("conv4", &["--data", "digits", "--set", "classes=7"]);
    assert!(classes.contains("expected a label from 0 to 6"), "{classes}");
    fs::create_dir_all(folder.file("empty")).unwrap();
    assert!(told("conv4", &["--data", &folder.file("empty")]).contains("empty"));
    fs::create_dir_all(folder.file("mnist")).unwrap();
    folder.write("mnist/train-images-idx3-ubyte", &[0, 0, 8, 3, 0, 0, 0, 9, 0, 0]);
    folder.write("mnist/train-labels-idx1-ubyte", &[0, 0, 8, 1, 0, 0, 0, 9]);
    let cut = told("conv4", &["--data", &folder.file("mnist")]);
    assert!(
        cut.contains("train-images-idx3-ubyte: ends in the sizes"),
        "{cut}"
    );
    let table = folder.write("t.csv", b"a,b,c\n1,2,0\n2,3,1\n3,4,0\n4,5,1\n5,6,0\n6,7,1\n");
    let shape = told(DIGITS, &["--data", &table]);
    assert!(
        shape.contains("expected") && shape.contains("[1, 8, 8]"),
        "{shape}"
    );
    let diverged = told(
        "conv4",
        &[
            "--data",
            "digits",
            "--optimizer",
            "sgd",
            "--lr",
            "1e30",
            "--epochs",
            "1",
        ],
    );
    assert!(
        diverged.contains("step") && diverged.contains("diverged"),
        "{diverged}"
    );
}

#[test]
fn an_operator_without_gradient_is_named() {
    let folder = Folder::new("train-no-gradient");
    let mut model = Model {
        ir_version: Some(10),
        opsets: [("", 21), ("ai.onnx.ml", 3)].map(opset).into(),
        ..Model::default()
    };
    let g = &mut model.graph;
    let rows = || Type::tensor(DType::F32, [Dim::Symbol("batch".into()), 2usize.into()]);
    let x = g.input("x", rows());
    let [v, w] = [("v", [2, 3]), ("w", [3, 2])].map(|(n, d)| g.constant(n, Tensor::of(&d, vec![0.5f32; 6])));
    let [hidden, unit, scores] = ["hidden", "unit", "scores"].map(|n| g.value(n));
    g.node(Node::new("MatMul", vec![Some(x), Some(v)], vec![Some(hidden)]));
    let mut normal = Node::new("Normalizer", vec![Some(hidden)], vec![Some(unit)]);
    normal.domain = Some("ai.onnx.ml".into());
    normal.name = Some("unit length".into());
    g.node(normal);
    g.node(Node::new("MatMul", vec![Some(unit), Some(w)], vec![Some(scores)]));
    g.output(scores, Some(rows()));
    let file = folder.file("unit.onnx");
    onnx::save(&model, Path::new(&file), true).unwrap();
    let table = folder.write("t.csv", b"a,b,c\n1,2,0\n2,3,1\n3,4,0\n4,5,1\n5,6,0\n6,7,1\n");
    let out = folder.file("out.onnx");
    let ran = secateur(&["train", &file, &out, "--data", &table, "--validation", "0"]);
    assert_eq!(ran.status, 2, "{}", ran.err);
    for part in ["unit.onnx", "\"unit length\"", "Normalizer", "has no gradient"] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
    assert!(!Path::new(&out).exists());
}

fn opset((domain, version): (&str, i64)) -> Opset {
    Opset {
        domain: Some(domain.into()),
        version: Some(version),
        extra: Default::default(),
    }
}
