//! `prune`: counts are exact, and nothing else in the file changes.

use std::path::Path;

use secateur::engine::ir::{AttrValue, DType, Form, Graph, Model, Node, Opset, Type};
use secateur::engine::onnx;
use secateur::{Session, Tensor};

use super::*;

/// Pseudo-random numbers from -1 to 1, none of them 0 and many equal in magnitude.
fn noise(n: usize, seed: usize) -> Vec<f64> {
    let number = |i: usize| (((i + seed) * 7919 % 2002) as f64 + 0.5) / 1001.0 - 1.0;
    (0..n).map(number).collect()
}

fn tensor(dtype: DType, dims: &[usize], seed: usize) -> Tensor {
    let n = dims.iter().product();
    Tensor::rounded(dtype, dims, &noise(n, seed)).unwrap()
}

/// Adds `x · w + b` and returns the sum.
fn layer(
    g: &mut Graph,
    x: secateur::engine::ir::ValueId,
    name: &str,
    w: Tensor,
) -> secateur::engine::ir::ValueId {
    let [w, b] =
        [(name, w), ("bias", Tensor::of(&[4], vec![0.25f32; 4]))].map(|(n, t)| g.constant(g.fresh(n), t));
    let [y, z] = ["y", "z"].map(|n| g.value(g.fresh(n)));
    let mut node = Node::new("MatMul", vec![Some(x), Some(w)], vec![Some(y)]);
    node.name = Some(format!("node_{name}").into());
    g.node(node);
    g.node(Node::new("Add", vec![Some(y), Some(b)], vec![Some(z)]));
    z
}

/// A file with a chain of matrix products with these weights.
fn chain(folder: &Folder, weights: Vec<(&str, Tensor)>) -> String {
    let opset = Opset {
        domain: None,
        version: Some(17),
        extra: Default::default(),
    };
    let mut model = Model {
        ir_version: Some(8),
        opsets: vec![opset],
        ..Model::default()
    };
    let g = &mut model.graph;
    g.name = Some("chain".into());
    let width = weights[0].1.dims()[0];
    let mut x = g.input("x", Type::tensor(DType::F32, [2, width]));
    for (name, w) in weights {
        x = layer(g, x, name, w);
    }
    g.output(x, Some(Type::tensor(DType::F32, [2usize, 4])));
    let path = folder.file("chain.onnx");
    onnx::save(&model, Path::new(&path), true).unwrap();
    path
}

fn f32s(dims: &[usize], seed: usize) -> Tensor {
    tensor(DType::F32, dims, seed)
}

fn load(path: &str) -> Model {
    onnx::load(Path::new(path)).unwrap()
}

fn weight(model: &Model, name: &str) -> Vec<f64> {
    let g = &model.graph;
    g[g.find(name).unwrap()]
        .konst
        .as_ref()
        .unwrap()
        .tensor
        .floats()
        .unwrap()
}

fn zeros(path: &str, name: &str) -> usize {
    weight(&load(path), name).iter().filter(|&&x| x == 0.0).count()
}

#[test]
fn the_share_is_exact_and_the_rest_of_the_file_stays() {
    let folder = Folder::new("prune-exact");
    let a = chain(&folder, vec![("a", f32s(&[50, 4], 1)), ("b", f32s(&[4, 4], 7))]);
    let b = folder.file("b.onnx");
    for (x, share) in [
        ("0", 0.0f64),
        ("0.001", 0.001),
        ("37%", 0.37),
        ("80", 0.8),
        ("0.999", 0.999),
        ("1", 1.0),
    ] {
        let said = done(&["prune", &a, &b, "--sparsity", x, "--force"]);
        let all = zeros(&b, "a") + zeros(&b, "b");
        assert_eq!(all, (216.0 * share).round() as usize, "{x}");
        assert_eq!(said["total"]["zeros"], all);
        assert_eq!(said["sparsity"], share);
        assert_eq!(said["after"]["zeros"], all, "biases have none");
        done(&["prune", &a, &b, "--sparsity", x, "--scope", "layer", "--force"]);
        assert_eq!(zeros(&b, "a"), (200.0 * share).round() as usize, "{x}");
        assert_eq!(zeros(&b, "b"), (16.0 * share).round() as usize, "{x}");
    }
    let (old, mut new) = (load(&a), load(&b));
    for name in ["a", "b"] {
        let v = old.graph.find(name).unwrap();
        new.graph[v].konst = old.graph[v].konst.clone();
    }
    assert_eq!(old.graph, new.graph);
}

#[test]
fn the_smallest_go_and_of_equal_ones_the_last() {
    let folder = Folder::new("prune-which");
    let same = Tensor::of(&[4, 4], vec![0.5f32; 16]);
    let a = chain(&folder, vec![("a", f32s(&[50, 4], 3)), ("same", same)]);
    let b = folder.file("b.onnx");
    done(&["prune", &a, &b, "--sparsity", "0.5"]);
    let (old, new) = (weight(&load(&a), "a"), weight(&load(&b), "a"));
    let kept = old.iter().zip(&new).filter(|(_, y)| **y != 0.0);
    let least = kept
        .map(|(x, y)| if x == y { x.abs() } else { panic!("{x} became {y}") })
        .fold(9.0, f64::min);
    let gone = old.iter().zip(&new).filter(|(_, y)| **y == 0.0);
    assert!(gone.fold(0.0, |m, (x, _)| x.abs().max(m)) <= least);
    done(&[
        "prune",
        &a,
        &b,
        "--sparsity",
        "0.25",
        "--scope",
        "layer",
        "--force",
    ]);
    let same: Vec<bool> = weight(&load(&b), "same").iter().map(|&x| x == 0.5).collect();
    assert_eq!(same, [[true; 12].to_vec(), vec![false; 4]].concat());
}

#[test]
fn a_threshold_leaves_what_equals_it() {
    let folder = Folder::new("prune-threshold");
    let w = Tensor::of(&[2, 4], vec![0.1f32, -0.1, 0.2, 0.0, -0.0, 0.11, f32::NAN, -7.0]);
    let a = chain(&folder, vec![("w", w)]);
    let b = folder.file("b.onnx");
    let said = done(&["prune", &a, &b, "--threshold", "0.1"]);
    assert_eq!((&said["method"], zeros(&b, "w")), (&Value::from("threshold"), 2));
    done(&[
        "prune",
        &a,
        &b,
        "--method",
        "threshold",
        "--threshold",
        "1e9",
        "--force",
    ]);
    assert_eq!(zeros(&b, "w"), 7, "NaN stays");
    done(&["prune", &a, &b, "--sparsity", "100%", "--force"]);
    assert_eq!(zeros(&b, "w"), 7, "NaN stays");
}

#[test]
fn every_float_type_keeps_its_form() {
    let folder = Folder::new("prune-types");
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        let a = chain(&folder, vec![("w", tensor(dtype, &[50, 4], 5))]);
        let mut typed = load(&a);
        let v = typed.graph.find("w").unwrap();
        typed.graph[v].konst.as_mut().unwrap().form = Form::Typed { payload: None };
        let (t, b) = (folder.file("typed.onnx"), folder.file("b.onnx"));
        onnx::save(&typed, Path::new(&t), true).unwrap();
        for path in [&a, &t] {
            done(&["prune", path, &b, "--sparsity", "0.7", "--force"]);
            assert_eq!(zeros(&b, "w"), 140, "{dtype}");
            let form = |path| load(path).graph[v].konst.clone().unwrap().form;
            assert_eq!(form(path), form(&b));
        }
    }
}

#[test]
fn external_weights_go_beside_the_new_model() {
    let folder = Folder::new("prune-external");
    let a = chain(&folder, vec![("w", f32s(&[500, 4], 1)), ("v", f32s(&[4, 4], 2))]);
    let mut model = load(&a);
    let w = model.graph.find("w").unwrap();
    model.graph[w].konst.as_mut().unwrap().form = Form::External(secateur::engine::ir::External {
        entries: vec![("location".into(), "weights.bin".into())],
        source: None,
    });
    onnx::save(&model, Path::new(&a), true).unwrap();
    std::fs::create_dir(folder.0.join("out")).unwrap();
    let b = folder.file("out/b.onnx");
    let said = done(&["prune", &a, &b, "--sparsity", "0.5", "--keep", "v"]);
    assert_eq!(zeros(&b, "w"), 1000);
    assert!(said["after"]["file_mb"].as_f64().unwrap() > 0.008);
    assert_eq!(
        std::fs::metadata(folder.0.join("out/weights.bin")).unwrap().len(),
        8000
    );
    // In place: the old data stay as long as somebody may have them mapped.
    assert!(refused(&["prune", &a, &a]).contains("--force"));
    done(&["prune", &a, &a, "--sparsity", "0.75", "--keep", "v", "--force"]);
    assert_eq!(zeros(&a, "w"), 1500);
    let left = std::fs::read_dir(&folder.0)
        .unwrap()
        .flatten()
        .map(|e| e.file_name().into_string().unwrap());
    assert!(
        left.into_iter()
            .all(|name| !name.contains("spill") && !name.contains("tmp"))
    );
}

#[test]
fn globs_keep_and_include() {
    let folder = Folder::new("prune-globs");
    let a = chain(
        &folder,
        vec![("first", f32s(&[50, 4], 1)), ("last", f32s(&[4, 4], 2))],
    );
    let b = folder.file("b.onnx");
    done(&["prune", &a, &b, "--sparsity", "1", "--keep", "fir*"]);
    assert_eq!((zeros(&b, "first"), zeros(&b, "last")), (0, 16));
    done(&[
        "prune",
        &a,
        &b,
        "--sparsity",
        "1",
        "--force",
        "--keep",
        "node_l?st",
        "--include",
        "bias*",
    ]);
    assert_eq!(
        (zeros(&b, "first"), zeros(&b, "last"), zeros(&b, "bias")),
        (200, 0, 4)
    );
    let said = done(&["prune", &a, "--dry-run", "--keep", "last"]);
    assert_eq!(said["skipped"][0]["reason"], "kept on request");
    assert_eq!(said["layers"].as_array().unwrap().len(), 1);
    let error = refused(&["prune", &a, &b, "--force", "--keep", "lost"]);
    assert!(
        error.contains("\"lost\" fits no weight") && error.contains("\"last\""),
        "{error}"
    );
    let error = refused(&["prune", &a, &b, "--force", "--keep", "*"]);
    assert!(
        error.contains("nothing to prune") && error.contains("kept on request"),
        "{error}"
    );
}

#[test]
fn the_result_depends_on_the_flags_alone() {
    let folder = Folder::new("prune-same");
    let a = chain(&folder, vec![("a", f32s(&[5000, 4], 1)), ("b", f32s(&[4, 4], 2))]);
    let [b, c] = ["b.onnx", "c.onnx"].map(|n| folder.file(n));
    let flags = ["--sparsity", "0.6", "--keep", "b"];
    done(&[&["prune", &a, &b, "-t", "1"], &flags[..]].concat());
    done(&[&["prune", &a, &c, "-t", "5"], &flags[..]].concat());
    assert_eq!(std::fs::read(&b).unwrap(), std::fs::read(&c).unwrap());
    let dry = done(&[&["prune", &a, "--dry-run"], &flags[..]].concat());
    let wet = done(&[&["prune", &a, &b, "--force"], &flags[..]].concat());
    assert_eq!(dry["layers"], wet["layers"]);
    assert_eq!(dry["after"]["zeros"], wet["after"]["zeros"]);
    let (_, receipt) = onnx::metadata(&load(&b)).pop().unwrap();
    let receipt: Value = serde_json::from_str(&receipt).unwrap();
    assert_eq!(
        (&receipt["verb"], &receipt["figures"]),
        (&"prune".into(), &wet["total"])
    );
    assert_eq!(receipt["flags"]["keep"][0], "b");
}

#[test]
fn constants_in_nodes_and_odd_tensors_do_no_harm() {
    let folder = Folder::new("prune-odd");
    let a = chain(
        &folder,
        vec![("w", f32s(&[10, 4], 1)), ("zeros", f32s(&[4, 4], 2))],
    );
    let mut model = load(&a);
    let g = &mut model.graph;
    g.constant("empty", Tensor::of(&[0, 4], Vec::<f32>::new()));
    let w = g.find("w").unwrap();
    let t = g[w].konst.take().unwrap();
    g.initializers.retain(|&v| v != w);
    let mut node = Node::new("Constant", vec![], vec![Some(w)]);
    node.set("value", AttrValue::Tensor(t));
    let id = g.node(node);
    g.order.rotate_right(1);
    assert_eq!(g.order[0], id);
    onnx::save(&model, Path::new(&a), true).unwrap();
    let b = folder.file("b.onnx");
    done(&["prune", &a, &b, "--sparsity", "0.5"]);
    let new = load(&b);
    let Some(AttrValue::Tensor(c)) = new.graph[new.graph.order[0]].attr("value") else {
        panic!("a tensor");
    };
    assert_eq!(c.tensor.zeros_count() + zeros(&b, "zeros"), 28);
    let session = Session::builder(&new).threads(1).build().unwrap();
    let y = session
        .run([("x", f32s(&[2, 10], 3))].iter().map(|(n, t)| (n, t)))
        .unwrap();
    assert_eq!(y[0].dims(), [2, 4]);
}

#[test]
fn patterns_go_as_whole_blocks() {
    let folder = Folder::new("prune-patterns");
    let a = chain(&folder, vec![("a", f32s(&[50, 4], 1)), ("b", f32s(&[4, 4], 7))]);
    let b = folder.file("b.onnx");
    // [inputs, outputs]: a row of the matrix is a column here.
    let zero_rows = |path: &str| {
        weight(&load(path), "a")
            .chunks(4)
            .filter(|r| r.iter().all(|x| *x == 0.0))
            .count()
    };
    for (pattern, layer) in [("block4x1", "layer"), ("column", "layer"), ("block4x1", "global")] {
        let said = done(&[
            "prune",
            &a,
            &b,
            "--pattern",
            pattern,
            "--sparsity",
            "60",
            "--scope",
            layer,
            "--force",
        ]);
        assert_eq!(
            (&said["pattern"], &said["sparsity"]),
            (&pattern.into(), &0.6.into())
        );
        let all = zeros(&b, "a") + zeros(&b, "b");
        assert!(
            (130..138).contains(&all) && said["total"]["zeros"] == all,
            "{all}"
        );
        assert_eq!(4 * zero_rows(&b), zeros(&b, "a"));
    }
    done(&[
        "prune",
        &a,
        &b,
        "--pattern",
        "row",
        "--sparsity",
        "50%",
        "--scope",
        "layer",
        "--force",
    ]);
    let w = weight(&load(&b), "a");
    let empty = (0..4).filter(|n| w.iter().skip(*n).step_by(4).all(|x| *x == 0.0));
    assert_eq!((empty.count(), zeros(&b, "a")), (2, 100));
    let said = done(&["prune", &a, &b, "--pattern", "1:4", "--force"]);
    assert_eq!(said["sparsity"], 0.75);
    // Of 50 inputs the last two are a block of their own, of which one stays.
    assert_eq!((zeros(&b, "a"), zeros(&b, "b")), (148, 12));
    let dry = done(&["prune", &a, "--dry-run", "--pattern", "1:4"]);
    assert_eq!(dry["layers"], said["layers"]);
    let said = done(&[
        "prune",
        &a,
        &b,
        "--pattern",
        "row",
        "--threshold",
        "9",
        "--include",
        "bias*",
        "--force",
    ]);
    let bias = said["layers"]
        .as_array()
        .unwrap()
        .iter()
        .any(|l| l["name"] == "bias");
    assert!(!bias && zeros(&b, "a") == 200 && zeros(&b, "bias") == 0);
}

#[test]
fn bad_goals_are_refused() {
    let refuse = |flags: &[&str]| refused(&[&["prune", DIGITS, "--dry-run"], flags].concat());
    for bad in ["-0.1", "101", "120%", "nan", "much"] {
        refuse(&[&format!("--sparsity={bad}")]);
    }
    assert!(refuse(&["--pattern", "block4x"]).contains("did you mean \"block4x1\""));
    assert!(refuse(&["--pattern", "2:4", "--sparsity", "0.8"]).contains("a sparsity of 0.5 and not 0.8"));
    assert!(refuse(&["--pattern", "2:4", "--threshold", "1"]).contains("takes no threshold"));
    assert!(refuse(&["--method", "nothing"]).contains("magnitude"));
    assert!(refuse(&["--method", "wanda"]).contains("--data"));
    assert!(refuse(&["--method", "apoz", "--data", "digits"]).contains("--pattern column"));
    assert!(refuse(&["--method", "taylor", "-i", "ones"]).contains("labels"));
    assert!(refuse(&["--method", "wanda", "--data", "nowhere"]).contains("nowhere"));
    assert!(refuse(&["--method", "sparsegpt", "--data", "digits", "--pattern", "row"]).contains("row"));
    assert!(refuse(&["--method", "surgeon", "--data", "digits"]).contains("use sparsegpt"));
    assert!(refuse(&["--method", "surgeon", "--pattern", "structured"]).contains("--data"));
    assert!(refuse(&["--method", "magnitude", "--threshold", "1"]).contains("takes a sparsity"));
    assert!(refuse(&["--method", "threshold", "--sparsity", "1"]).contains("takes a threshold"));
    assert!(refuse(&["--method", "threshold"]).contains("--threshold"));
    assert!(refuse(&["--threshold=-1"]).contains("at least 0"));
    refuse(&["--threshold", "1", "--sparsity", "1"]);
    assert!(refused(&["prune", DIGITS]).contains("OUTPUT"));
}

#[test]
fn every_method_reaches_the_share_on_any_number_of_threads() {
    let folder = Folder::new("prune-methods");
    let [b, c] = ["b.onnx", "c.onnx"].map(|n| folder.file(n));
    for m in secateur::compress::METHODS
        .iter()
        .filter(|m| m.name() != "threshold" && m.name() != "bn-scale" && !m.cuts())
    {
        let pattern = m.together().map_or("unstructured", |_| "column");
        let flags = [
            "--method",
            m.name(),
            "--sparsity",
            "0.7",
            "--pattern",
            pattern,
            "--force",
        ];
        let seen = ["--data", "digits", "--samples", "12", "--seed", "3"];
        let run =
            |to: &str, threads| done(&[&["prune", DIGITS, to, "-t", threads], &flags[..], &seen].concat());
        let said = run(&b, "1");
        run(&c, "3");
        assert_eq!(
            std::fs::read(&b).unwrap(),
            std::fs::read(&c).unwrap(),
            "{}",
            m.name()
        );
        assert_eq!(
            said["samples"],
            if m.needs().is_empty() {
                0
            } else {
                12.max(m.batch())
            }
        );
        let total = &said["total"];
        let (zeros, all) = (
            total["zeros"].as_u64().unwrap(),
            total["weights"].as_u64().unwrap(),
        );
        let wanted = (all as f64 * 0.7).round() as u64;
        match m.together() {
            // Of layers each is rounded.
            None => assert!(zeros.abs_diff(wanted) <= 4, "{}: {zeros} {wanted}", m.name()),
            Some(_) => assert!(
                zeros >= wanted && zeros < wanted + all / 10,
                "{}: {zeros} {wanted}",
                m.name()
            ),
        }
    }
    let rows = ["--method", "bn-scale", "--pattern", "row", "--dry-run"];
    let norm = done(&[&["prune", DIGITS], &rows[..]].concat());
    let left = norm["skipped"].as_array().unwrap();
    let why = |w: &Value| {
        w["reason"]
            .as_str()
            .unwrap()
            .contains("no batch normalisation follows")
    };
    assert!(
        left.iter().any(|w| w["name"] == "fc.weight" && why(w)),
        "{left:?}"
    );
    let inputs = done(&[
        "prune",
        DIGITS,
        &b,
        "--method",
        "obd",
        "-i",
        "rand",
        "--samples",
        "5",
        "--force",
    ]);
    assert_eq!(inputs["samples"], 5);
}

#[test]
fn a_model_is_pruned_without_flags() {
    let folder = Folder::new("prune-plain");
    let b = folder.file("b.onnx");
    let ran = secateur(&["prune", DIGITS, &b]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(ran.err.contains("--sparsity 50%"), "{}", ran.err);
    let last: Vec<&str> = ran.out.lines().rev().take(2).collect();
    assert!(
        last[1].starts_with("before") && last[0].starts_with("after"),
        "{}",
        ran.out
    );
    assert_eq!(
        zeros(&b, "fc.weight")
            + zeros(&b, "conv1.weight")
            + zeros(&b, "conv2.weight")
            + zeros(&b, "conv3.weight"),
        17900
    );
}

#[test]
fn sparse_initializers_hold_the_same_in_fewer_bytes() {
    let folder = Folder::new("sparse_initializers");
    let [dense, sparse, again] = ["dense.onnx", "sparse.onnx", "again.onnx"].map(|n| folder.file(n));
    done(&["prune", DIGITS, &dense, "--sparsity", "90%"]);
    done(&[
        "prune",
        DIGITS,
        &sparse,
        "--sparsity",
        "90%",
        "--sparse-initializers",
    ]);
    done(&[
        "optimize",
        "--level",
        "none",
        "--sparse-initializers",
        &dense,
        &again,
    ]);
    let size = |path: &str| std::fs::metadata(path).unwrap().len();
    let load = |path: &str| onnx::load(Path::new(path)).unwrap().graph;
    let (was, len) = (load(&dense), size(&dense));
    for path in [&sparse, &again] {
        let now = load(path);
        assert!(size(path) < len / 2, "{} of {len} bytes", size(path));
        let kept = |g: &Graph, name: &str| g.find(name).and_then(|v| g.konst(v)).map(|t| t.bytes().to_vec());
        for &v in &was.initializers {
            assert_eq!(
                kept(&was, &was[v].name),
                kept(&now, &was[v].name),
                "{path}: {}",
                was[v].name
            );
        }
    }
}
