//! `compress`: the whole way under one budget.

use std::fs;

use super::*;

/// Half of 50,200 multiplications, which is the same on all machines.
const HALF: [&str; 10] = [
    "--max-drop",
    "3",
    "--target",
    "0.0251M",
    "--data",
    "digits",
    "--finetune",
    "2",
    "--batch",
    "50",
];

#[test]
fn the_target_is_met_within_the_budget() {
    let folder = Folder::new("compress");
    let a = trained(&folder, 6);
    let [out, page, curves] = ["out.onnx", "p.html", "c.csv"].map(|f| folder.file(f));
    let more = ["--report", &page, "--sensitivity", &curves];
    let said = done(&[&["compress", &a, &out][..], &HALF, &more].concat());
    assert_eq!(
        (&said["reached"], &said["verified"]),
        (&true.into(), &true.into()),
        "{said}"
    );
    assert!(number(&said["target"]["after"]) <= number(&said["target"]["wanted"]));
    assert!(number(&said["metric"]["drop_points"]) <= 3.0);
    assert_eq!(
        (&said["metric"]["name"], &said["metric"]["examples"]),
        (&"accuracy".into(), &180.into())
    );
    // Half of the test examples measured the steps and half the result, so the budget holds on all of them.
    let verified = done(&["verify", &a, &out, "--data", "digits", "--max-drop", "3"]);
    assert_eq!(verified["metric"]["samples"], 360);
    assert!(number(&said["after"]["zeros_percent"]) > 45.0 && said["before"]["zeros"] == 0);
    let steps = said["steps"].as_array().unwrap();
    assert!(!steps.is_empty() && steps.iter().all(|s| s["after"]["accuracy"].is_number()));
    let model = secateur::engine::onnx::load(Path::new(&out)).unwrap();
    let entries = secateur::engine::onnx::metadata(&model);
    let receipt: Value = serde_json::from_str(&entries.last().unwrap().1).unwrap();
    assert_eq!(
        (&receipt["verb"], &receipt["flags"]["recipe"]),
        (&"compress".into(), &said["recipe"])
    );
    assert!(fs::metadata(&page).unwrap().len() > 0);
    // A row for each of three weights and its levels.
    assert_eq!(fs::read_to_string(&curves).unwrap().lines().count(), 1 + 3 * 8);
}

#[test]
fn what_breaks_the_budget_is_not_written() {
    let folder = Folder::new("compress-broken");
    let (a, out) = (trained(&folder, 6), folder.write("out.onnx", b"old"));
    let args = [
        "compress",
        &a,
        &out,
        "--force",
        "--max-drop",
        "0.1",
        "--target",
        "0.0002M",
        "--data",
        "digits",
        "--finetune",
        "0",
        "--tries",
        "4",
    ];
    let (said, status) = json(&args);
    assert_eq!((status, &said["reached"]), (1, &false.into()), "{said}");
    match said["output"].is_null() {
        true => {
            assert_eq!(fs::read(&out).unwrap(), b"old");
            assert!(
                said["reason"].as_str().unwrap().contains("nothing is pruned"),
                "{said}"
            );
        }
        // A little may hold.
        false => {
            assert!(number(&said["metric"]["drop_points"]) <= 0.1 + 1e-7, "{said}");
            assert!(
                said["reason"]
                    .as_str()
                    .unwrap()
                    .contains("the target is not reached"),
                "{said}"
            );
        }
    }
}

#[test]
fn without_labels_it_agrees_with_what_it_was() {
    let folder = Folder::new("compress-agreement");
    let (a, out) = (trained(&folder, 6), folder.file("out.onnx"));
    for source in [
        &["--data", "digits", "--task", "none"][..],
        &["-i", "rand", "--samples", "400"],
    ] {
        let how = [
            "--force",
            "--max-drop",
            "10",
            "--target",
            "0.0351M",
            "--finetune",
            "10",
        ];
        let said = done(&[&["compress", &a, &out][..], &how, source].concat());
        assert_eq!(said["metric"]["name"], "agreement");
        assert_eq!(number(&said["metric"]["before"]), 100.0);
        assert!(
            number(&said["metric"]["drop_points"]) <= 10.0 && said["reached"] == true,
            "{said}"
        );
    }
}

#[test]
fn a_saved_recipe_makes_the_same_file() {
    let folder = Folder::new("compress-recipe");
    let (a, [x, y, recipe]) = (
        trained(&folder, 6),
        ["x.onnx", "y.onnx", "r.toml"].map(|f| folder.file(f)),
    );
    let said = done(
        &[
            &["compress", &a, &x][..],
            &HALF,
            &["--seed", "5", "--save-recipe", &recipe],
        ]
        .concat(),
    );
    let again = done(&["compress", &a, &y, "--recipe", &recipe]);
    assert_eq!(said["recipe"], again["recipe"]);
    assert_eq!(fs::read(&x).unwrap(), fs::read(&y).unwrap());
    let chain = folder.write(
        "chain.toml",
        b"[[step]]\nprune = { sparsity = 0.9, finetune = { data = 'digits', epochs = 2, batch = 50 } }\n",
    );
    let gate = |most: &str| {
        json(&[
            "compress",
            &a,
            &y,
            "--recipe",
            &chain,
            "--force",
            "--max-drop",
            most,
        ])
    };
    let (said, status) = gate("100");
    assert!(
        status == 0 && number(&said["after"]["zeros_percent"]) > 80.0,
        "{said}"
    );
    let old = fs::read(&y).unwrap();
    let (said, status) = gate("0");
    let drop = number(&said["metric"]["drop_points"]);
    assert_eq!(status, i32::from(drop > 1e-7), "{said}");
    assert!(status == 0 || fs::read(&y).unwrap() == old);
}

#[test]
fn killed_and_resumed_it_ends_in_the_same_weights() {
    let folder = Folder::new("compress-resume");
    let (a, [whole, out, state]) = (
        trained(&folder, 6),
        ["w.onnx", "o.onnx", "state"].map(|f| folder.file(f)),
    );
    done(&[&["compress", &a, &whole][..], &HALF].concat());
    let kept = ["--checkpoint", &state, "--resume"];
    let args = [&["compress", &a, &out][..], &HALF, &kept].concat();
    killed(&args, Duration::from_millis(400), || {
        assert!(!Path::new(&out).exists() || weights(&out) == weights(&whole));
        let _ = fs::remove_file(&out);
    });
    assert_eq!(weights(&out), weights(&whole));
    let other = [
        &["compress", &a, &out, "--force", "--seed", "3"][..],
        &HALF,
        &kept,
    ]
    .concat();
    assert!(refused(&other).contains("was 0, and is 3 now"));
}

#[test]
fn curves_and_forecasts_write_no_model() {
    let folder = Folder::new("compress-curves");
    let (a, [out, svg]) = (trained(&folder, 6), ["o.onnx", "s.svg"].map(|f| folder.file(f)));
    let said = done(&["compress", &a, "--sensitivity", &svg, "--data", "digits"]);
    assert_eq!(said["curves"].as_array().unwrap().len(), 3);
    assert!(fs::metadata(&svg).unwrap().len() > 0);
    let said = done(&[&["compress", &a, &out, "--dry-run"][..], &HALF].concat());
    let told = &said["foretold"];
    assert!(number(&told["after"]) <= number(&told["wanted"]) * 1.01, "{told}");
    // Names may be of what is cut or of weights where both go.
    let both = ["--pattern", "structured+unstructured", "--keep", "fc3.weight*"];
    let said = done(&[&["compress", &a, &out, "--dry-run"][..], &HALF, &both].concat());
    let curves = said["curves"].as_array().unwrap();
    assert!(curves.iter().any(|c| c["cut"] == true) && curves.iter().any(|c| c["cut"] == false));
    assert!(
        curves
            .iter()
            .all(|c| !c["weight"].as_str().unwrap().starts_with("fc3")),
        "{curves:?}"
    );
    let wrong = ["--pattern", "structured+unstructured", "--include", "fc9"];
    let error = refused(&[&["compress", &a, &out, "--dry-run"][..], &HALF, &wrong].concat());
    assert!(error.contains("\"fc9\" fits no"), "{error}");
    assert!(!Path::new(&out).exists());
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = Folder::new("compress-refused");
    let (out, wrong) = (
        folder.file("out.onnx"),
        folder.write(
            "r.toml",
            b"[[step]]\nbudget = { max_drop = -1.0, finetune = { data = 'digits', epochs = 1 } }\n",
        ),
    );
    let two = folder.write(
        "two.toml",
        b"[[step]]\nprune = {}\n[[step]]\nbudget = { max_drop = 1.0, finetune = { data = 'digits', epochs = 1 } }\n",
    );
    for (more, part) in [
        (&["--max-drop", "1"][..], "--data D gives examples"),
        (&["--data", "digits"], "--max-drop X says it in points"),
        (&["--data", "digits", "--max-drop=-1"], "no number of points"),
        (
            &["--data", "digits", "--max-drop", "1", "--target", "2 miles"],
            "2 miles",
        ),
        (
            &["--data", "digits", "--max-drop", "1", "--validation", "0"],
            "examples by which each step is measured",
        ),
        (&["--data", "nowhere", "--max-drop", "1"], "nowhere"),
        (
            &["--recipe", &wrong],
            "expected a max_drop of 0 points or more, found -1",
        ),
        (
            &["--recipe", &two],
            "expected a budget as the only step, found 2 steps",
        ),
        (
            &["--data", "digits", "--max-drop", "1", "--keep", "no-such"],
            "no-such",
        ),
    ] {
        let error = refused(&[&["compress", DIGITS, &out][..], more].concat());
        assert!(error.contains(part), "{more:?}: {error}");
    }
    assert!(!Path::new(&out).exists());
}
