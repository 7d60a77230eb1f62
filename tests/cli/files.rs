//! Files read and written.

use std::fs;

use super::*;

/// The verbs with a file to read, and one to write where they do.
fn readers<'a>(file: &'a str, out: &'a str) -> Vec<Vec<&'a str>> {
    vec![
        vec!["bench", file],
        vec!["inspect", file],
        vec!["optimize", file, out],
        vec!["prune", file, out],
        vec!["run", file],
        vec!["verify", file, DIGITS],
    ]
}

#[test]
fn broken_files_are_refused_with_the_place() {
    let folder = Folder::new("broken");
    let whole = fs::read(DIGITS).unwrap();
    let truncated = folder.write("truncated.onnx", &whole[..2000]);
    let empty = folder.write("empty.onnx", b"");
    let text = folder.write("text.onnx", b"This is no model.");
    let missing = folder.file("missing.onnx");
    let directory = folder.0.to_str().unwrap().to_owned();
    let out = folder.file("out.onnx");
    for file in [&truncated, &empty, &text, &missing, &directory] {
        for args in readers(file, &out) {
            assert!(refused(&args).contains(file.as_str()), "{args:?}");
        }
    }
    assert!(refused(&["verify", DIGITS, &truncated]).contains(&truncated));
    assert!(refused(&["inspect", &text]).contains("no ONNX model"));
    assert!(!fs::exists(out).unwrap());
}

#[test]
fn level_none_writes_the_same_bytes() {
    let folder = Folder::new("none");
    let out = folder.file("copy.onnx");
    let said = done(&["optimize", "--level", "none", DIGITS, &out]);
    assert_eq!(fs::read(&out).unwrap(), fs::read(DIGITS).unwrap());
    assert_eq!(said["before"]["nodes"], said["after"]["nodes"]);
}

#[test]
fn existing_files_are_kept_unless_forced() {
    let folder = Folder::new("force");
    let model = folder.write("a.onnx", b"mine");
    let array = folder.write("a.npz", b"mine");
    for args in [&["optimize", DIGITS, &model][..], &["run", DIGITS, "-o", &array]] {
        assert!(refused(args).contains("--force"), "{args:?}");
        assert_eq!(fs::read(args[args.len() - 1]).unwrap(), b"mine");
        assert_eq!(secateur(&[args, &["--force"]].concat()).status, 0, "{args:?}");
        assert_ne!(fs::read(args[args.len() - 1]).unwrap(), b"mine");
    }
    assert_eq!(
        fs::read_dir(&folder.0).unwrap().count(),
        2,
        "no temporary file is left"
    );
    assert!(refused(&["optimize", DIGITS, &folder.file("no/such/a.onnx")]).contains("folder"));
    assert!(refused(&["run", DIGITS, "-o", &folder.file("a.txt")]).contains(".npz"));
}

#[test]
fn a_model_may_be_written_over_itself() {
    let folder = Folder::new("itself");
    let file = folder.write("a.onnx", &fs::read(DIGITS).unwrap());
    assert_eq!(secateur(&["optimize", &file, &file]).status, 2);
    done(&["optimize", &file, &file, "--force"]);
    assert_eq!(done(&["inspect", &file])["unsupported"], serde_json::json!([]));
}

#[test]
fn what_was_done_is_written_into_the_file() {
    let folder = Folder::new("receipt");
    let (once, twice) = (folder.file("1.onnx"), folder.file("2.onnx"));
    done(&["optimize", "--level", "basic", DIGITS, &once]);
    done(&["optimize", &once, &twice, "--seed", "7"]);
    let metadata = &done(&["inspect", &twice])["metadata"];
    let entry = |n: u32| -> Value {
        serde_json::from_str(metadata[format!("secateur.{n}")].as_str().unwrap()).unwrap()
    };
    assert_eq!(
        (&entry(1)["verb"], &entry(1)["flags"]["level"]),
        (&"optimize".into(), &"basic".into())
    );
    assert_eq!(
        (&entry(2)["seed"], &entry(2)["version"]),
        (&7.into(), &env!("CARGO_PKG_VERSION").into())
    );
}

#[test]
fn one_file_is_not_taken_for_two_things() {
    let folder = Folder::new("two-things");
    let model = folder.file("m.onnx");
    fs::copy(DIGITS, &model).unwrap();
    let [out, png] = ["o.onnx", "s.png"].map(|f| folder.file(f));
    let compress = [
        "compress",
        &*model,
        &*out,
        "--data",
        "digits",
        "--max-drop",
        "1",
        "--force",
    ];
    let own = "a file of its own";
    for (args, part) in [
        ([&compress[..], &["--report", &out]].concat(), own),
        ([&compress[..], &["--save-recipe", &model]].concat(), own),
        ([&compress[..], &["--sensitivity", &png]].concat(), ".svg or .csv"),
        (
            vec!["prune", &model, &out, "--save-recipe", &model, "--force"],
            own,
        ),
        (
            vec!["train", "linear", &out, "--data", "digits", "--curves", &out],
            own,
        ),
        (
            vec!["prune", &model, folder.0.to_str().unwrap(), "--force"],
            "that is a folder",
        ),
    ] {
        let error = refused(&args);
        assert!(error.contains(part), "{args:?}: {error}");
    }
    assert_eq!(fs::read(&model).unwrap(), fs::read(DIGITS).unwrap());
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}
