//! `sweep`: rows, files, and what is refused.

use super::*;

const QUICK: [&str; 4] = ["--time", "0.01", "-t", "1"];

fn swept(args: &[&str]) -> Value {
    done(&[&["sweep"], args, &QUICK].concat())
}

/// The rows of `self`: pattern, sparsity and zeros.
fn own(said: &Value) -> Vec<(&str, f64, f64)> {
    let rows = said["rows"].as_array().unwrap().iter();
    let own = rows.filter(|r| r["engine"] == "self");
    let row = |r: &'_ Value| [&r["sparsity"], &r["zeros"]].map(|x| x.as_f64().unwrap());
    own.map(|r| (r["pattern"].as_str().unwrap(), row(r)[0], row(r)[1]))
        .collect()
}

#[test]
fn every_pattern_is_measured_at_every_sparsity() {
    let said = swept(&[
        DIGITS,
        "--sparsity",
        "0,50,90",
        "--pattern",
        "unstructured,2:4,row",
        "-b",
        "2",
    ]);
    assert_eq!(
        (&said["model"], &said["threads"], &said["batch"]),
        (&DIGITS.into(), &1.into(), &2.into())
    );
    let own = own(&said);
    let asked: Vec<_> = own.iter().map(|r| (r.0, r.1)).collect();
    let expected = [
        ("dense", 0.0),
        ("unstructured", 0.5),
        ("unstructured", 0.9),
        ("2:4", 0.5),
        ("row", 0.5),
        ("row", 0.9),
    ];
    assert_eq!(asked, expected);
    assert_eq!(own[0].2, 0.0);
    assert!((own[1].2 - 0.5).abs() < 1e-3 && (own[2].2 - 0.9).abs() < 1e-3);
    assert!(
        (0.45..0.51).contains(&own[3].2),
        "the first layer has one input channel"
    );
    let rows = said["rows"].as_array().unwrap();
    let alone = rows.iter().all(|r| r["engine"] == "self");
    for row in rows {
        let ms = |key: &str| row[key].as_f64().unwrap();
        assert!(0.0 < ms("ms") && ms("ms") == ms("min_ms") && ms("min_ms") <= ms("median_ms"));
        assert!(ms("speedup") > 0.0 && row["precision"] == "f32" && row["model"] == DIGITS);
        assert_eq!(row["vs_peer"].is_null(), alone || row["engine"] != "self");
    }
    let lines = said["lines"].as_array().unwrap();
    let patterns: Vec<_> = lines
        .iter()
        .filter(|l| l["engine"] == "self")
        .map(|l| &l["pattern"])
        .collect();
    assert_eq!(patterns, ["unstructured", "2:4", "row"]);
    assert!(
        lines
            .iter()
            .all(|l| l.get("break_even").is_some() && l.get("vs_peer").is_some())
    );
}

#[test]
fn files_are_written_and_kept() {
    let folder = Folder::new("sweep-files");
    let [csv, svg] = ["s.csv", "s.svg"].map(|n| folder.file(n));
    let args = [
        DIGITS,
        "--sparsity",
        "50",
        "--pattern",
        "unstructured",
        "--csv",
        &csv,
        "--svg",
        &svg,
    ];
    let said = swept(&args);
    assert_eq!(
        (&said["csv"], &said["svg"]),
        (&csv.as_str().into(), &svg.as_str().into())
    );
    let text = std::fs::read_to_string(&csv).unwrap();
    let head = "model,engine,pattern,precision,sparsity,ms,min_ms,median_ms,speedup,zeros,vs_peer";
    assert_eq!(text.lines().next(), Some(head));
    assert_eq!(text.lines().count(), 1 + said["rows"].as_array().unwrap().len());
    let text = std::fs::read_to_string(&svg).unwrap();
    assert!(text.starts_with("<svg ") && text.trim_end().ends_with("</svg>"));
    assert!(text.contains("digits-cnn") && text.contains("1 thread, batch 1"));
    assert!(refused(&[&["sweep"], &args[..], &QUICK].concat()).contains("--force"));
    swept(&[&args[..], &["--force"]].concat());
}

#[test]
fn layers_and_architectures_are_models_too() {
    let said = swept(&[
        "--layer",
        "conv:8x4x3x3,stride=2@9x9",
        "--sparsity",
        "75",
        "--pattern",
        "block4x1",
    ]);
    assert_eq!(said["model"], "conv:8x4x3x3,stride=2@9x9");
    assert_eq!(own(&said)[1], ("block4x1", 0.75, 0.75));
    let said = swept(&[
        "lenet-300-100",
        "--sparsity",
        "80",
        "--pattern",
        "block1x4",
        "--keep",
        "fc3*",
    ]);
    assert!((own(&said)[1].2 - 0.8).abs() < 1e-4, "of what is not kept");
    assert!(refused(&["sweep", "lenet-300"]).contains("lenet-300-100"));
    assert!(refused(&["sweep", "--layer", "conv:8x4@9x9"]).contains("matmul:ROWSx"));
}

#[test]
fn layer_by_layer() {
    let said = swept(&[
        DIGITS,
        "--layers",
        "--sparsity",
        "50",
        "--pattern",
        "unstructured",
        "--scope",
        "layer",
    ]);
    let rows = said["rows"].as_array().unwrap();
    assert!(rows.len() >= 8 && rows.len().is_multiple_of(2), "{rows:?}");
    let (dense, sparse) = rows.split_at(rows.len() / 2);
    assert!(dense.iter().all(|r| r["pattern"] == "dense" && r["zeros"] == 0.0));
    assert!(
        sparse
            .iter()
            .all(|r| (r["zeros"].as_f64().unwrap() - 0.5).abs() < 0.02),
        "{sparse:?}"
    );
    assert!(rows.iter().any(|r| r["layer"] == "/conv3/Conv"));
    assert!(
        rows.iter()
            .all(|r| r["engine"] == "self" && r["speedup"].as_f64().unwrap() > 0.0)
    );
}

#[test]
fn what_cannot_be_swept_is_refused() {
    let refuse = |more: &[&str]| refused(&[&["sweep", DIGITS], more].concat());
    assert!(refuse(&["--pattern", "block4x2"]).contains("did you mean \"block4x1\""));
    assert!(refuse(&["--precision", "int8"]).contains("only f32 is there yet"));
    assert!(refuse(&["--engine", "orr"]).contains("did you mean \"ort\""));
    assert!(refuse(&["--sparsity", "50,120"]).contains("expected a share"));
    assert!(refuse(&["--keep", "lost"]).contains("fits no weight"));
    assert!(refuse(&["--time", "0"]).contains("no time"));
    assert!(refuse(&["--layer", "matmul:1x2x3"]).contains("--layer"));
    assert!(refused(&["sweep"]).contains("MODEL"));
}

#[test]
fn temporary_files_are_removed() {
    let folder = Folder::new("sweep-temporary");
    for more in [&["--sparsity", "50"][..], &["--sparsity", "50", "--keep", "lost"]] {
        let args = [&["sweep", "lenet-300-100", "--pattern", "row"], more, &QUICK].concat();
        let ran = command(&args).env("TMPDIR", &folder.0).output().unwrap();
        // ONNX Runtime leaves a file of its own.
        let names = std::fs::read_dir(&folder.0)
            .unwrap()
            .flatten()
            .map(|e| e.file_name());
        let left: Vec<_> = names.filter(|n| n != ".ses").collect();
        assert!(left.is_empty(), "{left:?} {ran:?}");
    }
}
