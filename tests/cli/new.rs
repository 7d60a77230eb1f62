//! Architectures that are written.

use super::*;

#[test]
fn a_new_model_is_written_and_runs() {
    let folder = Folder::new("new");
    let file = folder.file("lenet.onnx");
    let made = done(&["new", "lenet-300-100", &file, "-s", "batch=2"]);
    assert_eq!(made["parameters"], 266_610);
    assert_eq!(made["macs"], 2 * (784 * 300 + 300 * 100 + 100 * 10));
    let seen = done(&["inspect", &file]);
    assert_eq!(seen["parameters"], made["parameters"]);
    let receipt: Value = serde_json::from_str(seen["metadata"]["secateur.1"].as_str().unwrap()).unwrap();
    assert_eq!(receipt["flags"]["arch"], "lenet-300-100");
    let ran = done(&["run", &file, "-s", "batch=2", "-q"]);
    assert_eq!(ran["outputs"][0]["shape"], serde_json::json!([2, 10]));
    assert!(refused(&["new", "lenet5", &file]).contains("--force"));
    done(&["new", "lenet5", &file, "--force"]);
}

#[test]
fn the_seed_and_the_settings_decide() {
    let folder = Folder::new("new-seed");
    let write = |name: &str, more: &[&str]| {
        let file = folder.file(name);
        done(&[&["new", "lenet5", &file, "-q"], more].concat());
        std::fs::read(file).unwrap()
    };
    let first = write("a.onnx", &[]);
    assert_eq!(first, write("b.onnx", &["--seed", "0", "--set", "classes=10"]));
    assert_ne!(first, write("c.onnx", &["--seed", "1"]));
    assert_ne!(first.len(), write("d.onnx", &["--set", "classes=3"]).len());
    let file = folder.file("mlp.onnx");
    let set = [
        "--set",
        "dropout=0.5",
        "--set",
        "activation=tanh",
        "--set",
        "layers=1",
    ];
    let made = done(&[&["new", "mlp", &file][..], &set].concat());
    let settings = &made["settings"];
    assert_eq!(settings["dropout"], 0.5);
    assert_eq!(
        (&settings["activation"], &settings["layers"]),
        (&"tanh".into(), &1.into())
    );
    let ops = &done(&["inspect", &file])["ops"];
    assert_eq!((&ops["Dropout"], &ops["Tanh"]), (&1.into(), &1.into()));
}

#[test]
fn the_list_has_all_and_unknown_names_are_refused() {
    let list = done(&["new", "--list"]);
    let archs = list["archs"].as_array().unwrap();
    assert!(
        archs
            .iter()
            .any(|a| a["name"] == "resnet50" && a["settings"][0]["default"] == 1000)
    );
    let block = archs.iter().find(|a| a["name"] == "resnet20").unwrap();
    let block = block["settings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["name"] == "block");
    assert_eq!(block.unwrap()["choices"][2], "preactivation");
    assert!(secateur(&["new", "--list"]).out.contains("bert-base"));
    let folder = Folder::new("new-wrong");
    let file = folder.file("x.onnx");
    for (args, near, known) in [
        (&["new", "resnet", &file][..], "\"resnet50\"", "\"bert-base\""),
        (
            &["new", "lenet5", &file, "--set", "clases=3"],
            "\"classes\"",
            "\"height\"",
        ),
        (
            &["new", "lenet5", &file, "--set", "classes=0"],
            "from 1",
            "lenet5",
        ),
        (&["new", "lenet5", &file, "--set", "classes"], "KEY=V", "--set"),
        (
            &["new", "lenet5", &file, "-s", "bach=3"],
            "\"batch\"",
            "[\"batch\"]",
        ),
        (&["new", "lenet5"], "<OUTPUT>", "Usage"),
    ] {
        let said = refused(args);
        assert!(said.contains(near) && said.contains(known), "{args:?}: {said}");
    }
    assert!(!std::path::Path::new(&file).exists());
}
