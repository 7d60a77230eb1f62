//! What `--json` prints is what docs/cli.md says.

use std::collections::BTreeSet;
use std::fs;

use super::*;

/// The words of the section of docs/cli.md about a verb.
fn section(verb: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md")).unwrap();
    let (_, rest) = text.split_once(&format!("\n## {verb}\n")).unwrap();
    let own = rest.split("\n## ").next().unwrap();
    let words = own.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.map(str::to_owned).collect()
}

/// Whether what is called `name` is told of elsewhere: recipes, flags, and the figures of a model.
fn elsewhere(name: &str, value: &Value) -> bool {
    ["recipe", "flags"].contains(&name) || value.get("file_mb").is_some()
}

/// The names of all entries of `json`, at any depth.
fn names(json: &Value, found: &mut BTreeSet<String>) {
    match json {
        Value::Object(all) => {
            for (name, value) in all {
                found.insert(name.clone());
                if !elsewhere(name, value) {
                    names(value, found);
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|x| names(x, found)),
        _ => {}
    }
}

/// Refuses what the section about `verb` does not name of what `args` print.
fn named(verb: &str, args: &[&str]) {
    let (said, _) = json(args);
    let mut found = BTreeSet::new();
    names(&said, &mut found);
    let known = section(verb);
    let missing: Vec<_> = found.difference(&known).collect();
    assert!(
        found.len() > 5 && missing.is_empty(),
        "{args:?}: {missing:?} of {said}"
    );
}

#[test]
fn every_name_is_documented() {
    let folder = Folder::new("documented");
    let out = folder.file("o.onnx");
    let recipe = folder.write("r.toml", b"[[step]]\nprune = { sparsity = 0.5 }\n");
    let page = folder.file("p.html");
    let data = ["--data", "digits", "--batch", "50"];
    let prune = ["prune", DIGITS, &*out, "--force"];
    for more in [
        &["--dry-run"][..],
        &["--pattern", "structured", "--sparsity", "0.3"],
        &["--data", "digits", "--finetune", "1", "--rounds", "2"],
    ] {
        named("prune", &[&prune[..], more].concat());
    }
    let blocks = folder.file("blocks.onnx");
    done(&["new", "resnet20", &blocks]);
    named(
        "prune",
        &["prune", &blocks, &out, "--force", "--pattern", "block"],
    );
    let compress = ["compress", DIGITS, &*out, "--force", "--report", &page];
    let search = [
        "--max-drop",
        "90",
        "--target",
        "0.03M",
        "--tries",
        "1",
        "--finetune",
        "1",
    ];
    named("compress", &[&compress[..], &data, &search].concat());
    named("compress", &[&compress[..], &["--recipe", &recipe]].concat());
    named(
        "compress",
        &[&["compress", DIGITS, "--dry-run"][..], &data, &search].concat(),
    );
    let train = ["--force", "--epochs", "1", "--patience", "1"];
    named("train", &[&["train", "linear", &out][..], &train, &data].concat());
    named(
        "train",
        &[&["finetune", DIGITS, &out][..], &train, &data].concat(),
    );
    let ticket = [
        "ticket", "linear", "--epochs", "1", "--rounds", "1", "--seeds", "2",
    ];
    named("ticket", &[&ticket[..], &data].concat());
}
