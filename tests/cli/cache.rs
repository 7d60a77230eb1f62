//! Packed weights in a file, and batches that do not matter.

use std::fs;

use super::*;

/// A network with weights that are worth keeping.
fn lenet(folder: &Folder) -> String {
    let file = folder.file("lenet.onnx");
    done(&["new", "lenet-300-100", &file]);
    file
}

/// What is said, and what the model makes of its inputs, on the set `isa`.
fn noted(model: &str, cache: &str, isa: &str) -> (String, Value) {
    let mut command = command(&["run", model, "--cache", cache, "--json"]);
    let ran = command.env("SECATEUR_ISA", isa).output().unwrap();
    assert!(ran.status.success());
    let value: Value = serde_json::from_slice(&ran.stdout).unwrap();
    (String::from_utf8(ran.stderr).unwrap(), value["outputs"].clone())
}

#[test]
fn a_cache_is_of_one_instruction_set() {
    let folder = Folder::new("cache-isa");
    let (model, cache) = (lenet(&folder), folder.file("weights"));
    let is_used = |(said, _): &(String, Value)| !said.contains("is not used");
    let (first, want) = noted(&model, &cache, "scalar");
    assert!(is_used(&(first, want.clone())));
    let bytes = fs::read(&cache).unwrap();
    let again = noted(&model, &cache, "scalar");
    assert!(is_used(&again));
    assert_eq!(again.1, want);
    assert_eq!(fs::read(&cache).unwrap(), bytes, "nothing had to be written");
    // The best of this processor.
    let other = noted(&model, &cache, "");
    assert_eq!(is_used(&other), fs::read(&cache).unwrap() == bytes);
    let best = noted(&model, &cache, "");
    assert!(is_used(&best));
    assert_eq!(best.1, other.1);
}

#[test]
fn a_model_is_not_taken_for_a_cache() {
    let folder = Folder::new("cache-model");
    let model = lenet(&folder);
    let before = fs::read(&model).unwrap();
    for verb in ["run", "explain"] {
        let said = secateur(&[verb, &model, "--cache", &model]);
        assert_eq!(said.status, 0);
        assert!(
            said.err.contains("is not used") && said.err.contains("is not written"),
            "{}",
            said.err
        );
    }
    let said = secateur(&["bench", &model, "--cache", &model, "-n", "1"]);
    assert!(said.err.contains("is not written"), "{}", said.err);
    assert_eq!(fs::read(&model).unwrap(), before);
}

#[test]
fn verbs_run_deterministically() {
    for verb in [
        &["run", DIGITS][..],
        &["explain", DIGITS],
        &["bench", DIGITS, "-n", "1"],
    ] {
        assert_eq!(json(&[verb, &["--deterministic"]].concat()).1, 0, "{verb:?}");
    }
}
