//! `prune` with recovery: rounds, fine-tuning, repairs, recipes.

use std::fs;

use secateur::Tensor;
use secateur::engine::ir::{Attr, DType, Dim, Model, Node, Opset, Type};
use secateur::engine::onnx;

use super::*;

const ROUNDS: [&str; 14] = [
    "--sparsity",
    "0.95",
    "--data",
    "digits",
    "--finetune",
    "3",
    "--rounds",
    "3",
    "--schedule",
    "linear",
    "--batch",
    "50",
    "--lr",
    "0.003",
];

#[test]
fn rounds_with_recovery_end_at_the_target_and_make_up_for_it() {
    let folder = Folder::new("prune-rounds");
    let (a, out) = (trained(&folder, 4), folder.file("out.onnx"));
    let said = done(&[&["prune", &a, &out][..], &ROUNDS].concat());
    let rounds = said["rounds"].as_array().unwrap();
    let shares: Vec<f64> = rounds.iter().map(|r| number(&r["sparsity"])).collect();
    assert_eq!(shares.len(), 3);
    assert!(shares.is_sorted());
    let (zeros, weights) = (number(&said["total"]["zeros"]), number(&said["total"]["weights"]));
    assert_eq!(zeros, (0.95 * weights).round());
    assert_eq!(shares[2], zeros / weights);
    let last = &rounds[2];
    assert!(
        number(&last["after"]["accuracy"]) >= number(&last["before"]["accuracy"]),
        "{last}"
    );
    let once = folder.file("once.onnx");
    done(&["prune", &a, &once, "--sparsity", "0.95"]);
    let untuned = done(&["verify", &once, &once, "--data", "digits"]);
    let tuned = number(&said["test"]["after"]["accuracy"]);
    assert!(tuned > number(&untuned["metric"]["a"]) + 0.1, "{said}");
    // The receipt says it all.
    let model = secateur::engine::onnx::load(Path::new(&out)).unwrap();
    let entries = secateur::engine::onnx::metadata(&model);
    let receipt: Value = serde_json::from_str(&entries.last().unwrap().1).unwrap();
    assert_eq!(receipt["verb"], "prune");
    assert_eq!(receipt["flags"]["recipe"], said["recipe"]);
    let mut rounds = said["rounds"].clone();
    for row in rounds.as_array_mut().unwrap() {
        // What differs from run to run is no part of a file.
        assert!(row.as_object_mut().unwrap().remove("seconds").is_some());
    }
    assert_eq!(receipt["figures"]["rounds"], rounds);
}

#[test]
fn a_saved_recipe_makes_the_same_file() {
    let folder = Folder::new("prune-recipe");
    let (a, [x, y, recipe]) = (
        trained(&folder, 4),
        ["x.onnx", "y.onnx", "r.toml"].map(|f| folder.file(f)),
    );
    let more = [
        "--seed",
        "5",
        "--teacher",
        "self",
        "--recover",
        "bn,bias",
        "--save-recipe",
        &recipe,
    ];
    let said = done(&[&["prune", &a, &x][..], &ROUNDS, &more].concat());
    let again = done(&["prune", &a, &y, "--recipe", &recipe]);
    assert_eq!(said["recipe"], again["recipe"]);
    assert_eq!(weights(&x), weights(&y));
    let text = fs::read_to_string(&recipe).unwrap();
    assert!(
        text.contains("[step.prune.finetune]") && text.contains("teacher = \"self\""),
        "{text}"
    );
    // A chain of several steps.
    let steps = "[[step]]\nprune = { sparsity = 0.8 }\n\
        [[step]]\nrecover = { data = 'digits', repairs = ['bias'], samples = 32 }\n\
        [[step]]\nfinetune = { data = 'digits', epochs = 1, batch = 50 }\n";
    let chain = folder.write("chain.toml", steps.as_bytes());
    let said = done(&["prune", &a, &x, "--recipe", &chain, "--force"]);
    let rounds = said["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 3);
    assert!(
        rounds.iter().all(|r| (number(&r["sparsity"]) - 0.8).abs() < 1e-4),
        "{said}"
    );
    let wrong = folder.write("wrong.toml", b"[[step]]\nprune = { sparsty = 0.8 }\n");
    let error = refused(&["prune", &a, &x, "--recipe", &wrong, "--force"]);
    assert!(
        error.contains("wrong.toml") && error.contains("sparsty"),
        "{error}"
    );
}

#[test]
fn killed_and_resumed_it_ends_in_the_same_weights() {
    let folder = Folder::new("prune-resume");
    let (a, [whole, out, state]) = (
        trained(&folder, 4),
        ["w.onnx", "o.onnx", "state"].map(|f| folder.file(f)),
    );
    done(&[&["prune", &a, &whole][..], &ROUNDS].concat());
    let kept = ["--checkpoint", &state, "--resume"];
    let args = [&["prune", &a, &out][..], &ROUNDS, &kept].concat();
    killed(&args, Duration::from_millis(150), || {
        // Nothing or all of it.
        assert!(!Path::new(&out).exists() || weights(&out) == weights(&whole));
        let _ = fs::remove_file(&out);
    });
    assert_eq!(weights(&out), weights(&whole));
    let other = [&["prune", &a, &out, "--force", "--seed", "3"][..], &ROUNDS, &kept].concat();
    let error = refused(&other);
    assert!(error.contains("was 0, and is 3 now"), "{error}");
}

#[test]
fn what_diverges_leaves_the_old_file() {
    let folder = Folder::new("prune-diverged");
    let (a, out) = (trained(&folder, 4), folder.write("out.onnx", b"old"));
    let wild = [
        "--data",
        "digits",
        "--finetune",
        "2",
        "--rounds",
        "2",
        "--optimizer",
        "sgd",
        "--lr",
        "1e30",
        "--force",
    ];
    let error = refused(&[&["prune", &a, &out][..], &wild].concat());
    assert!(
        error.contains("out.onnx is as it was") && error.contains("diverged"),
        "{error}"
    );
    assert_eq!(fs::read(&out).unwrap(), b"old");
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = Folder::new("prune-rounds-refused");
    let out = folder.file("out.onnx");
    for (more, part) in [
        (
            &["--rounds", "2", "--schedule", "one-shot"][..],
            "one-shot takes one round",
        ),
        (&["--schedule", "cubik"], "did you mean \"cubic\"?"),
        (&["--finetune", "1"], "--data"),
        (&["--data", "digits", "--recover", "bm"], "no repair \"bm\""),
        (
            &["--data", "digits", "--finetune", "1", "--optimizer", "adm"],
            "did you mean \"adam\"?",
        ),
        (&["--data", "digits", "--finetune", "1", "--dry-run"], "--dry-run"),
        (&["--resume"], "--checkpoint"),
    ] {
        let error = refused(&[&["prune", DIGITS, &out][..], more].concat());
        assert!(error.contains(part), "{more:?}: {error}");
        assert!(!Path::new(&out).exists());
    }
}

#[test]
fn without_labels_it_learns_from_what_it_was() {
    let folder = Folder::new("prune-unlabelled");
    let (a, out) = (trained(&folder, 4), folder.file("out.onnx"));
    // The images of the digits, as an archive of nothing else.
    let data = secateur::train::data::open("digits", &Default::default())
        .unwrap()
        .train;
    let all: Vec<usize> = (0..600).collect();
    let x = data.batch(&all).unwrap().inputs.remove(0).1;
    let archive = folder.file("x.npz");
    let file = fs::File::create(&archive).unwrap();
    secateur::train::data::npz::write(file, [("x", &x.reshaped(&[600, 64]).unwrap())]).unwrap();
    let how = [
        "--sparsity",
        "0.9",
        "--finetune",
        "4",
        "--batch",
        "50",
        "--lr",
        "0.003",
    ];
    let said = done(
        &[
            &["prune", &a, &out, "--data", &archive, "--task", "none"][..],
            &how,
        ]
        .concat(),
    );
    let row = &said["rounds"][0];
    assert_eq!(row["after"]["accuracy"], Value::Null);
    assert!(
        number(&row["after"]["loss"]) < 0.8 * number(&row["before"]["loss"]),
        "{row}"
    );
    // A pruned model is not within the tolerances, which is a status of 1.
    let agreement =
        |file: &str| number(&json(&["verify", &a, file, "--data", "digits"]).0["argmax_agreement"]);
    let once = folder.file("once.onnx");
    done(&["prune", &a, &once, "--sparsity", "0.9"]);
    assert!(agreement(&out) > agreement(&once), "{said}");
    // Labels that are there are not looked at.
    let unseen = ["--data", "digits", "--task", "none", "--finetune", "1"];
    let said = done(&[&["prune", &a, &out, "--force"][..], &unseen].concat());
    assert!(said["rounds"][0]["after"]["accuracy"].is_null(), "{said}");
}

#[test]
fn the_test_is_that_of_the_file_and_of_the_last_seed_said() {
    let folder = Folder::new("prune-tested");
    let (a, b) = (trained(&folder, 4), folder.file("b.onnx"));
    let steps = "seed = 7\n[[step]]\nprune = { sparsity = 0.5, finetune = { data = 'digits', epochs = 1 } }\n\
        [[step]]\nprune = { sparsity = 0.99 }\n";
    let recipe = folder.write("r.toml", steps.as_bytes());
    let saved = folder.file("saved.toml");
    let more = ["--recipe", &recipe, "--seed", "0", "--save-recipe", &saved];
    let said = done(&[&["prune", &a, &b][..], &more].concat());
    let test = number(&said["test"]["after"]["accuracy"]);
    let file = json(&["verify", &a, &b, "--data", "digits"]).0;
    assert!((test - number(&file["metric"]["b"])).abs() < 1e-6, "{said}");
    assert_eq!((&said["seed"], &said["recipe"]["seed"]), (&0.into(), &0.into()));
    assert!(fs::read_to_string(&saved).unwrap().contains("seed = 0"));
    assert!(number(&said["total"]["changed"]) > 0.0, "{said}");
}

#[test]
fn zeros_of_vectors_that_were_asked_for_stay() {
    let folder = Folder::new("prune-vectors");
    let (a, b) = (trained(&folder, 4), folder.file("b.onnx"));
    let inspected = done(&["inspect", &a]);
    let biases = ["--include", "*bias*", "--keep", "*weight*", "--sparsity", "60%"];
    let said = done(
        &[
            &["prune", &a, &b][..],
            &biases,
            &["--data", "digits", "--finetune", "1"],
        ]
        .concat(),
    );
    let zeros = |file: &str| done(&["inspect", file])["zeros"].as_u64().unwrap();
    let total = said["total"]["zeros"].as_u64().unwrap();
    assert!(total > 0 && zeros(&b) >= total, "{inspected} {said}");
    assert_eq!(
        said["rounds"][0]["sparsity"],
        said["total"]["zeros"].as_f64().unwrap() / said["total"]["weights"].as_f64().unwrap()
    );
}

/// A network of the digits for images of any size, whose paddings follow from the size.
fn of_any_size(folder: &Folder) -> String {
    let opset = Opset {
        domain: None,
        version: Some(21),
        extra: Default::default(),
    };
    let mut model = Model {
        ir_version: Some(10),
        opsets: vec![opset],
        ..Model::default()
    };
    let random = |n: usize, dims: &[usize]| {
        Tensor::of(dims, (0..n).map(|i| (i as f32 * 1.7).sin()).collect::<Vec<_>>())
    };
    let g = &mut model.graph;
    let sizes = [
        Dim::symbol("n"),
        1usize.into(),
        Dim::symbol("h"),
        Dim::symbol("w"),
    ];
    let x = g.input("x", Type::tensor(DType::F32, sizes));
    let [w, v] = [
        g.constant("w", random(72, &[8, 1, 3, 3])),
        g.constant("v", random(80, &[8, 10])),
    ];
    let [c, p, f, y] = ["c", "p", "f", "y"].map(|name| g.value(name));
    let mut conv = Node::new("Conv", vec![Some(x), Some(w)], vec![Some(c)]);
    conv.attrs = vec![
        Attr::new("auto_pad", "SAME_UPPER"),
        Attr::new("strides", vec![2, 2]),
    ];
    g.node(conv);
    g.node(Node::new("GlobalAveragePool", vec![Some(c)], vec![Some(p)]));
    g.node(Node::new("Flatten", vec![Some(p)], vec![Some(f)]));
    g.node(Node::new("MatMul", vec![Some(f), Some(v)], vec![Some(y)]));
    g.output(
        y,
        Some(Type::tensor(DType::F32, [Dim::symbol("n"), 10usize.into()])),
    );
    folder.write("any.onnx", &onnx::to_bytes(&model))
}

#[test]
fn free_sizes_are_set_while_a_model_is_trained_and_come_back() {
    let folder = Folder::new("prune-free-sizes");
    let (a, b) = (of_any_size(&folder), folder.file("b.onnx"));
    let asked = [
        "prune",
        &a,
        &b,
        "--data",
        "digits",
        "--finetune",
        "1",
        "--sparsity",
        "50%",
    ];
    let error = refused(&[&asked[..], &["-s", "n=1"]].concat());
    assert!(error.contains("size"), "{error}");
    done(&[&asked[..], &["-s", "h=8", "-s", "w=8"]].concat());
    let inputs = |file: &str| done(&["inspect", file])["inputs"].clone();
    assert_eq!(inputs(&a), inputs(&b));
    // A teacher has the sizes of the examples too.
    let c = folder.file("c.onnx");
    let tune = ["finetune", &b, &c, "--teacher", &a, "--task", "none"];
    done(&[&tune[..], &["--data", "digits", "--epochs", "1"]].concat());
    assert_eq!(inputs(&a), inputs(&c));
}
