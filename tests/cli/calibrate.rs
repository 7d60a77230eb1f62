//! `secateur calibrate`, and what comes of its cache.

use super::*;

/// Runs `args` with `--json`, and a cache in `folder`.
fn cached(folder: &Folder, args: &[&str]) -> (Value, String) {
    let ran = command(&[args, &["--json"]].concat())
        .env("XDG_CACHE_HOME", folder.file("cache"))
        .output()
        .unwrap();
    let err = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(0), "{args:?}: {err}");
    (serde_json::from_slice(&ran.stdout).unwrap(), err)
}

#[test]
fn what_was_measured_is_kept_used_and_added_to() {
    let folder = Folder::new("calibrate");
    let (before, _) = cached(&folder, &["explain", DIGITS]);
    assert_eq!(before["rates"], "built-in");
    let (said, err) = cached(&folder, &["calibrate", "Relu", "-t", "2"]);
    assert!(err.contains("GFLOP/s") && err.contains("written to"), "{err}");
    assert_eq!(said["threads"], 2);
    assert!(said["isa"].is_string() && said["cpu"].is_string());
    let named = |v: &Value, part: &str| {
        let all = v["kernels"].as_array().unwrap();
        let of = |k: &&Value| k["kernel"].as_str().unwrap().starts_with(part);
        all.iter().find(of).cloned()
    };
    let relu = named(&said, "relu.f32").unwrap();
    assert!(relu["cases"].as_u64() >= Some(5), "{relu}");
    for map in [&relu, &relu["all_threads"]] {
        assert!(map["fixed_us"].as_f64() >= Some(0.0) && map["error"].as_f64() >= Some(0.0));
        for key in ["gflops", "gbytes_per_s"] {
            assert!(map[key].is_null() || map[key].as_f64() > Some(0.0), "{map}");
        }
    }
    let (after, _) = cached(&folder, &["explain", DIGITS]);
    assert_eq!(after["rates"], "calibrated");
    cached(&folder, &["calibrate", "sqrt", "-t", "2"]);
    let text = std::fs::read_to_string(said["file"].as_str().unwrap()).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(named(&file, "relu.f32").unwrap(), relu);
    assert!(named(&file, "sqrt.f32").is_some());
}

#[test]
fn a_corrupt_cache_is_reported_and_ignored() {
    let folder = Folder::new("corrupt");
    let (said, _) = cached(&folder, &["calibrate", "Sqrt", "-t", "1"]);
    for text in ["{", "[]", "{\"threads\": 1, \"kernels\": [{\"kernel\": 1}]}"] {
        std::fs::write(said["file"].as_str().unwrap(), text).unwrap();
        let (explained, err) = cached(&folder, &["explain", DIGITS]);
        assert_eq!(explained["rates"], "built-in", "{text}");
        assert!(err.contains("warning: ") && err.contains("rates-"), "{err}");
    }
    cached(&folder, &["calibrate", "Sqrt", "-t", "1"]);
    let (explained, err) = cached(&folder, &["explain", DIGITS]);
    assert_eq!(explained["rates"], "calibrated");
    assert!(!err.contains("warning"), "{err}");
}

#[test]
fn what_cannot_be_measured_or_kept_is_refused() {
    let said = refused(&["calibrate", "MatMull"]);
    assert!(
        said.contains("did you mean \"MatMul\"") && said.contains("Softmax"),
        "{said}"
    );
    let folder = Folder::new("unwritable");
    let file = folder.write("file", b"");
    let ran = command(&["calibrate", "Sqrt"])
        .env("XDG_CACHE_HOME", file)
        .output()
        .unwrap();
    let err = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{err}");
    assert!(err.contains("the cache cannot be written"), "{err}");
}
