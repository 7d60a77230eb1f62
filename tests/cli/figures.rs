//! What the verbs find out.

use std::fs;

use secateur::engine::onnx;
use secateur::{Model, Tensor};

use super::*;

/// Multiply-adds of one image: three convolutions and the classifier.
const MACS: u64 = 64 * 24 * 9 + 64 * 32 * 24 * 9 + 16 * 64 * 32 * 9 + 1024 * 10;

fn near(value: &Value, expected: f64) {
    let found = value.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-9, "{found}, expected {expected}");
}

#[test]
fn inspect_counts() {
    let said = done(&["inspect", DIGITS, "-s", "batch=4"]);
    assert_eq!(said["ops"]["Conv"], 3);
    assert_eq!(said["opsets"]["ai.onnx"], 17);
    assert_eq!(said["inputs"][0]["name"], "image");
    assert_eq!(said["inputs"][0]["shape"], serde_json::json!(["batch", 1, 8, 8]));
    assert_eq!(said["outputs"][0]["name"], "logits");
    assert_eq!((&said["parameters"], &said["zeros"]), (&36_290.into(), &0.into()));
    assert_eq!(said["macs"], 4 * MACS);
    assert!(said["peak_memory_bytes"].as_u64().unwrap() > 4 * 24 * 64 * 4);
    assert_eq!(said["unsupported"], serde_json::json!([]));
}

#[test]
fn inspect_lists_what_is_not_supported() {
    let folder = Folder::new("unsupported");
    let mut model = Model::load(DIGITS).unwrap();
    let nodes: Vec<_> = model.graph.order.clone();
    model.graph[nodes[0]].op = "Convolve".into();
    model.graph[nodes[2]].op = "Relax".into();
    let file = folder.file("odd.onnx");
    model.save(&file).unwrap();
    let said = done(&["inspect", &file]);
    let ops: Vec<_> = said["unsupported"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| &u["op"])
        .collect();
    assert_eq!(ops, ["Convolve", "Relax"]);
    assert!(said["macs"].is_null() && said["peak_memory_bytes"].is_null());
    let error = refused(&["run", &file]);
    assert!(
        error.contains("Convolve (opset 17)") && error.contains("Relax"),
        "{error}"
    );
}

#[test]
fn run_takes_arrays_and_gives_arrays() {
    let folder = Folder::new("arrays");
    let head = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 8, 8), }";
    let len = u16::try_from(head.len()).unwrap().to_le_bytes();
    let ones = 1f32.to_le_bytes().repeat(128);
    let npy = [b"\x93NUMPY\x01\x00", &len[..], head.as_bytes(), &ones].concat();
    let x = folder.write("x.npy", &npy);
    let from_file = done(&["run", DIGITS, "-i", &format!("image={x}")]);
    let made = done(&["run", DIGITS, "-i", "image=ones", "-s", "batch=2"]);
    assert_eq!(from_file["outputs"], made["outputs"]);
    assert_eq!(from_file["outputs"][0]["shape"], serde_json::json!([2, 10]));
    // What it writes, it reads.
    let out = folder.file("out.npz");
    done(&["run", DIGITS, "-i", &x, "-o", &out, "--dump", "image"]);
    let again = done(&["run", DIGITS, "-i", &format!("image={out}:image")]);
    assert_eq!(again["outputs"], made["outputs"]);
    assert!(refused(&["run", DIGITS, "-i", &format!("{out}:imag")]).contains("\"image\""));
}

#[test]
fn run_takes_photos() {
    let folder = Folder::new("photos");
    // A grey PNG of one white pixel, resized to 8×8.
    let photo = folder.write("white.png", WHITE);
    let white = done(&["run", DIGITS, "-i", &format!("image={photo}")]);
    let ones = done(&["run", DIGITS, "-i", "image=ones"]);
    assert_eq!(white["outputs"], ones["outputs"]);
    let broken = folder.write("broken.png", &WHITE[..40]);
    assert!(refused(&["run", DIGITS, "-i", &broken]).contains("broken.png"));
}

#[test]
fn the_seed_decides_and_threads_do_not() {
    let outputs = |more: &[&str]| done(&[&["run", DIGITS][..], more].concat())["outputs"].clone();
    assert_eq!(
        outputs(&["--seed", "3", "-t", "1"]),
        outputs(&["--seed", "3", "-t", "2"])
    );
    assert_ne!(outputs(&["--seed", "3"]), outputs(&["--seed", "4"]));
}

#[test]
fn profiles_add_up() {
    for by in ["op", "layer"] {
        let said = done(&["run", DIGITS, "--profile", by]);
        let rows = said["profile"].as_array().unwrap();
        let total: f64 = rows.iter().map(|r| r["percent"].as_f64().unwrap()).sum();
        assert!(rows.len() >= 4 && (total - 100.0).abs() < 1e-6, "{by}: {said}");
    }
}

#[test]
fn bench_measures_and_judges() {
    let folder = Folder::new("bench");
    let quick = ["bench", DIGITS, "--runs", "5", "--warmup", "1", "-b", "2"];
    let said = done(&quick);
    let result = &said["results"][0];
    assert_eq!((&result["engine"], &result["runs"]), (&"self".into(), &5.into()));
    let ms = |key: &str| result[key].as_f64().unwrap();
    assert!(0.0 < ms("min_ms") && ms("min_ms") <= ms("median_ms") && ms("median_ms") <= ms("p90_ms"));
    assert!(ms("load_ms") > 0.0);
    near(&said["ratio"]["self"], 1.0);
    assert_eq!(said["inputs"][0]["shape"], serde_json::json!([2, 1, 8, 8]));
    let baseline = |ms: f64| {
        let text = serde_json::json!({"results": [{"engine": "self", "median_ms": ms}]}).to_string();
        folder.write("old.json", text.as_bytes())
    };
    for (old_ms, status) in [(1e-6, 1), (1e6, 0)] {
        let old = baseline(old_ms);
        let gate = ["--baseline", &old, "--fail-if-slower", "3%"];
        let (said, found) = json(&[&quick[..], &gate].concat());
        assert_eq!((found, &said["pass"]), (status, &(status == 0).into()), "{said}");
    }
}

#[test]
fn optimised_models_verify() {
    let folder = Folder::new("optimised");
    for (level, fewer) in [("basic", 0), ("extended", 3)] {
        let out = folder.file(&format!("{level}.onnx"));
        let said = done(&["optimize", DIGITS, &out, "--level", level]);
        let nodes = |side: &str| said[side]["nodes"].as_u64().unwrap();
        assert_eq!(nodes("before") - nodes("after"), fewer, "{level}");
        assert!(said["after"]["ms"].as_f64().unwrap() > 0.0);
        let verdict = done(&["verify", DIGITS, &out, "--layers", "--data", "digits"]);
        assert_eq!(verdict["pass"], true);
        near(&verdict["argmax_agreement"], 1.0);
        near(&verdict["metric"]["a"], 356.0 / 360.0);
        near(&verdict["metric"]["b"], 356.0 / 360.0);
        assert!(verdict["first_divergence"].is_null());
    }
}

#[test]
fn verify_finds_where_models_part() {
    let folder = Folder::new("parted");
    let mut model = Model::load(DIGITS).unwrap();
    let v = model.graph.find("conv3.weight").unwrap();
    let old = model.graph[v].konst.clone().unwrap();
    let doubled: Vec<f32> = old
        .tensor
        .elements::<f32>()
        .unwrap()
        .iter()
        .map(|x| 2.0 * x)
        .collect();
    model.graph[v].konst = Some(old.with(Tensor::of(old.tensor.dims(), doubled)));
    let other = folder.file("other.onnx");
    onnx::save(&model, other.as_ref(), false).unwrap();
    let (said, status) = json(&["verify", DIGITS, &other, "--layers"]);
    assert_eq!((status, &said["pass"]), (1, &false.into()));
    assert_eq!(said["first_divergence"]["node"], "/conv3/Conv");
    assert!(said["max_abs"].as_f64().unwrap() > 1e-3);
    let loose = ["verify", DIGITS, &other, "--atol", "1e9"];
    assert_eq!(done(&loose)["pass"], true);
    let gate = ["verify", DIGITS, &other, "--data", "digits", "--max-drop", "100"];
    assert_eq!(done(&gate)["pass"], true);
}

#[test]
fn engines_that_were_not_built_in_say_so() {
    for (engine, built) in [("ort", cfg!(feature = "ort")), ("tract", cfg!(feature = "tract"))] {
        if !built {
            let said = refused(&["verify", DIGITS, "--engine", engine]);
            assert!(said.contains(&format!("--features {engine}")), "{said}");
            assert!(refused(&["bench", DIGITS, "--engine", engine]).contains("--features"));
        }
    }
}

#[cfg(feature = "ort")]
#[test]
fn onnx_runtime_agrees() {
    let ran = secateur(&["verify", DIGITS, "--engine", "ort", "--layers", "--json"]);
    if ran.err.contains("ONNX Runtime is not found") {
        eprintln!("skipped: {}", ran.err);
        return;
    }
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.status, &said["pass"]), (0, &true.into()), "{said}");
    assert!(said["layers"].as_array().unwrap().len() >= 11);
    let both = done(&["bench", DIGITS, "--engine", "self,ort", "--runs", "3"]);
    assert!(both["ratio"]["ort"].as_f64().unwrap() > 0.0);
    assert_eq!(both["results"][1]["engine"], "ort");
}

#[test]
fn nothing_is_left_behind() {
    let folder = Folder::new("clean");
    let ran = command(&["run", DIGITS]).current_dir(&folder.0).output().unwrap();
    assert!(ran.status.success());
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
}
