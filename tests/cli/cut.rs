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
        (["--of", "channels"], "share of blocks"),
        (["--round-to", "8"], "takes no round_to"),
        (["--scope", "global"], "no scope"),
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
    assert!(threshold.contains("takes no threshold"), "{threshold}");
    let zeros = refused(&["prune", &a, &b, "--round-to", "8"]);
    assert!(zeros.contains("pattern unstructured makes zeros"), "{zeros}");
    let block = refused(&["prune", &a, &b, "--pattern", "block", "--of", "channels"]);
    assert!(block.contains("share of blocks"), "{block}");
    let name = refused(&["prune", &a, &b, "--pattern", "chanel"]);
    assert!(name.contains("did you mean \"channel\""), "{name}");
    done(&["new", "lenet5", &a, "--force"]);
    let keep = refused(&["prune", &a, &b, "--pattern", "structured", "--keep", "nothing*"]);
    assert!(keep.contains("fits no"), "{keep}");
}

const ROUNDS: [&str; 16] = [
    "--pattern",
    "structured",
    "--sparsity",
    "0.6",
    "--of",
    "macs",
    "--data",
    "digits",
    "--finetune",
    "3",
    "--rounds",
    "3",
    "--batch",
    "50",
    "--lr",
    "0.003",
];

#[test]
fn cuts_take_rounds_recipes_and_checkpoints_as_zeros_do() {
    let folder = Folder::new("cut-rounds");
    let a = trained(&folder, 3);
    let [b, c, state, recipe] = ["b.onnx", "c.onnx", "state", "r.toml"].map(|n| folder.file(n));
    let kept = ["--checkpoint", &state, "--save-recipe", &recipe];
    let said = done(&[&["prune", &a, &b][..], &ROUNDS, &kept].concat());
    let rounds = said["rounds"].as_array().unwrap();
    let shares: Vec<f64> = rounds.iter().map(|r| r["sparsity"].as_f64().unwrap()).collect();
    assert!(
        shares.len() == 3 && shares.is_sorted() && shares[0] > 0.3,
        "{said}"
    );
    let macs = |when: &str| said[when]["macs"].as_f64().unwrap();
    assert!(
        (1.0 - macs("after") / macs("before") - shares[2]).abs() < 1e-3,
        "{said}"
    );
    assert!((shares[2] - 0.6).abs() < 0.06, "{said}");
    let accuracy = |when: &str| said["test"][when]["accuracy"].as_f64().unwrap();
    assert!(accuracy("after") > accuracy("before") - 0.1, "{said}");
    // The same by the recipe, and from a round that had ended.
    done(&["prune", &a, &c, "--recipe", &recipe]);
    assert_eq!(weights(&b), weights(&c));
    let text = std::fs::read_to_string(&recipe).unwrap();
    assert!(
        text.contains("pattern = \"structured\"") && text.contains("of = \"macs\""),
        "{text}"
    );
    let on = [&["prune", &a, &c, "--force", "--resume"][..], &ROUNDS, &kept[..2]].concat();
    let resumed = done(&on);
    assert_eq!(weights(&b), weights(&c));
    assert_eq!(resumed["rounds"], said["rounds"]);
    let other = [&on[..], &["--round-to", "8"]].concat();
    assert!(refused(&other).contains("the goal was"));
}

#[test]
fn zeros_and_cuts_are_steps_of_one_recipe() {
    let folder = Folder::new("cut-chain");
    let [a, b] = ["a.onnx", "b.onnx"].map(|n| folder.file(n));
    done(&["new", "resnet20", &a]);
    let steps = "[[step]]\nprune = { pattern = 'block', sparsity = 0.3 }\n\
        [[step]]\nprune = { pattern = 'channel', sparsity = 0.25, of = 'parameters', round_to = 4 }\n\
        [[step]]\nprune = { sparsity = 0.8 }\n";
    let recipe = folder.write("r.toml", steps.as_bytes());
    let said = done(&["prune", &a, &b, "--recipe", &recipe]);
    let shares: Vec<f64> = said["rounds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["sparsity"].as_f64().unwrap())
        .collect();
    assert!((shares[0] - 2.0 / 7.0).abs() < 1e-9, "{said}");
    assert!(
        (0.25..0.4).contains(&shares[1]) && (shares[2] - 0.8).abs() < 1e-3,
        "{said}"
    );
    let of = |when: &str, figure: &str| said[when][figure].as_f64().unwrap();
    assert!(of("after", "parameters") < 0.8 * of("before", "parameters"));
    assert!(of("after", "zeros") > 0.7 * of("after", "parameters"));
    assert_eq!(said["total"]["cut"], 2);
    assert!(said["layers"].as_array().unwrap().len() > 10);
    done(&["run", &b]);
}

#[test]
fn receipts_say_what_methods_looked_at() {
    let folder = Folder::new("cut-looked");
    let [a, b, recipe] = ["a.onnx", "b.onnx", "r.toml"].map(|n| folder.file(n));
    done(&["new", "lenet5", &a]);
    let looked = |file: &str| {
        let model = onnx::load(Path::new(file)).unwrap();
        let receipt: Value = serde_json::from_str(&onnx::metadata(&model).last().unwrap().1).unwrap();
        (
            receipt["flags"]["inputs"].clone(),
            receipt["flags"]["recipe"]["step"][0].clone(),
        )
    };
    let name = done(&["inspect", &a])["inputs"][0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let source = format!("{name}=rand:-1:1");
    for pattern in ["unstructured", "structured"] {
        let flags = [
            "--pattern",
            pattern,
            "--method",
            "wanda",
            "-i",
            &source,
            "--samples",
            "4",
            "--rounds",
            "2",
        ];
        let more = ["--force", "--save-recipe", &recipe];
        done(&[&["prune", &a, &b][..], &flags, &more].concat());
        let (inputs, step) = looked(&b);
        assert_eq!(inputs, serde_json::json!([source]));
        assert_eq!(step["prune"]["inputs"], inputs, "{step}");
        let before = weights(&b);
        done(&["prune", &a, &b, "--recipe", &recipe, "--force"]);
        assert_eq!((weights(&b), looked(&b).0), (before, inputs));
    }
    done(&["prune", &a, &b, "-i", &source, "--force"]);
    assert_eq!(looked(&b).0, serde_json::json!([]));
}

#[test]
fn what_goes_is_chosen_by_what_the_fit_leaves() {
    let folder = Folder::new("cut-surgeon");
    let [b, c] = ["b.onnx", "c.onnx"].map(|n| folder.file(n));
    let seen = ["--data", "digits", "--samples", "64", "--round-to", "1"];
    let accuracy = |method: &str, of: &str, recover: &str| {
        let cut = [
            "--pattern",
            "structured",
            "--sparsity",
            "80%",
            "--method",
            method,
            "--of",
            of,
        ];
        let more = ["--recover", recover, "--force"];
        let said = done(&[&["prune", DIGITS, &b][..], &cut, &seen, &more].concat());
        assert!(said["after"]["macs"].as_u64() < said["before"]["macs"].as_u64());
        said["test"]["after"]["accuracy"].as_f64().unwrap()
    };
    for of in ["macs", "parameters"] {
        let kept = accuracy("surgeon", of, "weights");
        assert!(kept > 0.9, "{of}: {kept}");
    }
    let (kept, by_chance) = (
        accuracy("surgeon", "macs", "none"),
        accuracy("random", "macs", "none"),
    );
    assert!(kept > by_chance + 0.3, "{kept} {by_chance}");
    // The same on any number of threads.
    let cut = [
        "--pattern",
        "structured",
        "--method",
        "surgeon",
        "--sparsity",
        "60%",
        "--of",
        "macs",
    ];
    for (file, threads) in [(&b, "1"), (&c, "2")] {
        let flags = ["--force", "-t", threads];
        done(&[&["prune", DIGITS, file][..], &cut, &seen, &flags].concat());
    }
    assert_eq!(weights(&b), weights(&c));
}

#[test]
fn layers_go_as_a_whole() {
    let folder = Folder::new("cut-layers");
    let [a, b] = ["a.onnx", "b.onnx"].map(|n| folder.file(n));
    done(&["new", "transformer-encoder", &a]);
    let said = done(&["prune", &a, &b, "--pattern", "layer", "--sparsity", "50%"]);
    assert_eq!(said["total"], serde_json::json!({"layers": 2, "cut": 1}));
    assert_eq!((&said["of"], &said["round_to"]), (&"layers".into(), &Value::Null));
    let all = said["blocks"].as_array().unwrap();
    let gone: Vec<u64> = all
        .iter()
        .filter(|l| l["kept"] == false)
        .map(|l| l["parameters"].as_u64().unwrap())
        .collect();
    let parameters = |when: &str| said[when]["parameters"].as_u64().unwrap();
    assert_eq!(gone, [parameters("before") - parameters("after")]);
    done(&["run", &b]);
}

#[test]
fn what_saves_time_goes_until_the_share_is_reached() {
    let folder = Folder::new("cut-ms");
    let [a, b, c, recipe] = ["a.onnx", "b.onnx", "c.onnx", "r.toml"].map(|n| folder.file(n));
    done(&["new", "resnet20", &a]);
    let flags = [
        "--pattern",
        "structured",
        "--of",
        "ms",
        "--sparsity",
        "30%",
        "-t",
        "1",
    ];
    let said = done(&[&["prune", &a, &b][..], &flags, &["--save-recipe", &recipe]].concat());
    let gone = said["rounds"][0]["sparsity"].as_f64().unwrap();
    assert!((0.3..0.6).contains(&gone), "{said}");
    assert_eq!((&said["of"], &said["scope"]), (&"ms".into(), &Value::Null));
    let blocks = said["blocks"].as_array().unwrap();
    let groups = said["groups"].as_array().unwrap();
    let less = groups.iter().any(|g| g["kept"].as_u64() < g["size"].as_u64());
    assert!(less || blocks.iter().any(|b| b["kept"] == false), "{said}");
    done(&["prune", &a, &c, "--recipe", &recipe, "-t", "1"]);
    assert_eq!(weights(&b), weights(&c));
    let scope = refused(&[&["prune", &a, &b, "--force", "--scope", "layer"][..], &flags].concat());
    assert!(scope.contains("takes no scope"), "{scope}");
}

#[test]
fn what_cannot_be_reached_is_said() {
    let folder = Folder::new("cut-short");
    let a = folder.file("a.onnx");
    done(&[
        "new",
        "bert-base",
        &a,
        "--set",
        "layers=1",
        "--set",
        "hidden=48",
        "--set",
        "heads=4",
    ]);
    let flags = [
        "--pattern",
        "head",
        "--of",
        "parameters",
        "--sparsity",
        "90%",
        "--dry-run",
    ];
    let ran = secateur(&[&["prune", &a][..], &flags].concat());
    assert!(
        ran.err
            .contains("90.00 % were to go; with pattern head no more than"),
        "{}",
        ran.err
    );
}

#[test]
fn weights_make_up_for_what_is_cut_away() {
    let folder = Folder::new("cut-refit");
    let a = trained(&folder, 3);
    let [b, c, d, recipe] = ["b.onnx", "c.onnx", "d.onnx", "r.toml"].map(|n| folder.file(n));
    let cut = ["--pattern", "neuron", "--sparsity", "0.8", "--data", "digits"];
    let fitted = [
        "--recover",
        "weights",
        "--recover-samples",
        "512",
        "--save-recipe",
        &recipe,
    ];
    let raw = done(&[&["prune", &a, &b][..], &cut].concat());
    let said = done(&[&["prune", &a, &c][..], &cut, &fitted].concat());
    let loss = |said: &Value, when: &str| said["test"][when]["loss"].as_f64().unwrap();
    let hurt = |said: &Value| loss(said, "after") - loss(said, "before");
    assert!(
        hurt(&raw) > 0.05 && hurt(&said) < 0.5 * hurt(&raw),
        "{raw} {said}"
    );
    assert_eq!(said["after"]["parameters"], raw["after"]["parameters"]);
    done(&["prune", &a, &d, "--recipe", &recipe]);
    assert_eq!(weights(&c), weights(&d));
    let zeros = ["--sparsity", "0.8", "--data", "digits", "--recover", "weights"];
    let error = refused(&[&["prune", &a, &folder.file("e.onnx")][..], &zeros].concat());
    assert!(error.contains("pattern unstructured makes zeros"), "{error}");
}
