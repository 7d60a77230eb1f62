//! `prune` where it cuts away: the file is smaller, and says what was cut and what stays whole and why.

use std::path::Path;

use secateur::engine::onnx;

use super::*;

#[test]
fn channels_and_neurons_go_and_the_rest_is_named() {
    let folder = Folder::new("cut-lenet");
    let [a, b] = ["a.onnx", "b.onnx"].map(|n| folder.file(n));
    done(&["new", "lenet5", &a]);
    let dry = done(&[
        "prune",
        &a,
        "--pattern",
        "structured",
        "--sparsity",
        "50%",
        "--dry-run",
    ]);
    assert!(dry["output"].is_null() && dry["after"]["file_mb"].is_null());
    let said = done(&["prune", &a, &b, "--pattern", "structured", "--sparsity", "50%"]);
    assert_eq!(said["groups"], dry["groups"]);
    let kept: Vec<_> = said["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| g["kept"].as_u64().unwrap())
        .collect();
    // 6 and 16 are no more than 16 and are not rounded; 120 and 84 are.
    assert_eq!(kept, [3, 8, 64, 48], "{said}");
    let reasons: Vec<_> = said["uncut"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| u["reason"].as_str().unwrap())
        .collect();
    assert!(reasons.contains(&"an output of the model"), "{reasons:?}");
    for figure in ["parameters", "file_mb", "macs"] {
        let of = |when: &str| said[when][figure].as_f64().unwrap();
        assert!(of("after") < 0.7 * of("before"), "{figure}: {said}");
    }
    let model = onnx::load(Path::new(&b)).unwrap();
    assert_eq!(
        model.graph.order.len() as u64,
        said["before"]["nodes"].as_u64().unwrap()
    );
    done(&["run", &b]);
}

#[test]
fn blocks_are_left_out_as_a_whole() {
    let folder = Folder::new("cut-blocks");
    let [a, b] = ["a.onnx", "b.onnx"].map(|n| folder.file(n));
    done(&["new", "resnet20", &a]);
    let said = done(&["prune", &a, &b, "--pattern", "block", "--sparsity", "33%"]);
    // Two of the nine make their sum with a projection, whose branch is no block.
    assert_eq!(said["total"], serde_json::json!({"blocks": 7, "cut": 2}));
    let nodes = |when: &str| said[when]["nodes"].as_u64().unwrap();
    assert!(nodes("after") < nodes("before"));
    assert_eq!(
        (&said["of"], &said["scope"]),
        (&"blocks".into(), &serde_json::Value::Null)
    );
    done(&["run", &b]);
    // A block that was left out stays if it is to be kept, by its sum or by its nodes.
    let all = said["blocks"].as_array().unwrap();
    let gone = all.iter().find(|b| b["kept"] == false).unwrap();
    let prune = |more: &[&str]| -> Vec<String> {
        let flags = [
            "prune",
            &a,
            "--pattern",
            "block",
            "--sparsity",
            "90%",
            "--dry-run",
        ];
        flags.iter().chain(more).map(|s| s.to_string()).collect()
    };
    let flags = prune(&["--keep", gone["sum"].as_str().unwrap()]);
    let less = done(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let mut all = less["blocks"].as_array().unwrap().iter();
    assert_eq!(all.find(|b| b["sum"] == gone["sum"]).unwrap()["kept"], true);
    for (more, why) in [
        (["--keep", "nothing*"], "fits no"),
        (["--keep", "Conv*"], "leaves no block"),
        (["--of", "macs"], "takes no --of"),
        (["--round-to", "8"], "takes no --of"),
        (["--scope", "global"], "takes no --of"),
    ] {
        let flags = prune(&more);
        let said = refused(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let folder = Folder::new("cut-refused");
    let [a, b] = ["a.onnx", "b.onnx"].map(|n| folder.file(n));
    done(&["new", "linear", &a]);
    let none = refused(&["prune", &a, &b, "--pattern", "channel"]);
    assert!(none.contains("nothing to cut"), "{none}");
    let threshold = refused(&["prune", &a, &b, "--pattern", "head", "--threshold", "0.1"]);
    assert!(threshold.contains("takes no --threshold"), "{threshold}");
    let zeros = refused(&["prune", &a, &b, "--round-to", "8"]);
    assert!(zeros.contains("--pattern unstructured makes zeros"), "{zeros}");
    let block = refused(&["prune", &a, &b, "--pattern", "block", "--of", "channels"]);
    assert!(block.contains("share of blocks"), "{block}");
    let name = refused(&["prune", &a, &b, "--pattern", "chanel"]);
    assert!(name.contains("did you mean \"channel\""), "{name}");
    done(&["new", "lenet5", &a, "--force"]);
    let keep = refused(&["prune", &a, &b, "--pattern", "structured", "--keep", "nothing*"]);
    assert!(keep.contains("fits no"), "{keep}");
}
