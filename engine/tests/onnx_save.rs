//! Files: what is written where, what is refused, and that errors leave nothing behind.
#![allow(clippy::unwrap_used)]

mod proto;

use std::fs;
use std::path::{Path, PathBuf};

use proto::everything;
use secateur_engine::ir::{Bytes, Constant, DType, External, Form, Model, Tensor};
use secateur_engine::onnx::{ErrorKind, OnnxError, load, save, to_bytes};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let dir = std::env::temp_dir().join(format!("secateur-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Folder(dir)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tensor(value: f32) -> Tensor {
    Tensor::of(&[1000], vec![value; 1000])
}

fn external(tensor: Tensor, entries: &[(&str, &str)]) -> Constant {
    let entries = entries
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect();
    Constant {
        form: Form::External(External {
            entries,
            source: None,
        }),
        ..Constant::new(tensor)
    }
}

/// A model of the external tensors `a`, `b` and so on, with the given entries.
fn model(entries: &[&[(&str, &str)]]) -> Model {
    let mut m = Model::default();
    for (name, (value, entries)) in ["a", "b", "c", "d"].iter().zip((1u16..).zip(entries)) {
        let v = m.graph.value(*name);
        m.graph[v].konst = Some(external(tensor(value.into()), entries));
        m.graph.initializers.push(v);
    }
    m
}

/// A model of three tensors: two in `w.bin`, with a gap, and one in `deep/v.bin`.
fn spread() -> Model {
    model(&[
        &[("location", "w.bin"), ("checksum", "?")],
        &[("location", "./w.bin"), ("offset", "8192"), ("length", "4000")],
        &[("location", "deep/v.bin"), ("other", "kept")],
    ])
}

fn value(m: &Model, name: &str) -> f32 {
    let v = m.graph.find(name).unwrap();
    m.graph.konst(v).unwrap().elements::<f32>().unwrap()[999]
}

fn entry<'a>(m: &'a Model, name: &str, key: &str) -> Option<&'a str> {
    match &m.graph[m.graph.find(name).unwrap()].konst.as_ref().unwrap().form {
        Form::External(e) => e.get(key),
        _ => None,
    }
}

fn change(m: &mut Model, name: &str, tensor: Tensor) {
    let v = m.graph.find(name).unwrap();
    m.graph[v].konst = Some(m.graph[v].konst.as_ref().unwrap().with(tensor));
}

fn refused<T>(result: Result<T, OnnxError>, kind: ErrorKind, parts: &[&str]) {
    let Err(e) = result else {
        panic!("not refused: {parts:?}")
    };
    assert_eq!(e.kind(), kind, "{e}");
    for part in parts {
        assert!(e.to_string().contains(part), "{e} lacks {part:?}");
    }
}

#[test]
fn a_model_in_one_file_is_written_and_replaced() {
    let dir = Folder::new("one");
    let path = dir.at("m.onnx");
    let m = everything(DType::ALL);
    save(&m, &path, false).unwrap();
    assert_eq!(dir.read("m.onnx"), to_bytes(&m));
    refused(save(&m, &path, false), ErrorKind::Exists, &["m.onnx"]);
    let mapped = load(&path).unwrap();
    let before = dir.read("m.onnx");
    save(&mapped, &path, true).unwrap();
    save(
        &Model {
            ir_version: Some(1),
            ..Model::default()
        },
        &path,
        true,
    )
    .unwrap();
    assert_eq!(to_bytes(&mapped), before);
    assert_eq!(dir.names(), ["m.onnx"]);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let dir = Folder::new("unreadable");
    refused(load(&dir.at("none.onnx")), ErrorKind::Io, &["none.onnx"]);
    refused(load(&dir.0), ErrorKind::Io, &["unreadable"]);
    fs::write(dir.at("empty.onnx"), b"").unwrap();
    refused(load(&dir.at("empty.onnx")), ErrorKind::Malformed, &["empty.onnx"]);
    let gone = dir.at("no such folder/m.onnx");
    refused(
        save(&Model::default(), &gone, false),
        ErrorKind::Io,
        &["no such folder"],
    );
}

#[test]
fn external_files_are_written_beside_the_model() {
    let (here, there) = (Folder::new("beside-a"), Folder::new("beside-b"));
    save(&spread(), &here.at("m.onnx"), false).unwrap();
    assert_eq!(here.names(), ["deep", "m.onnx", "w.bin"]);
    assert_eq!(here.read("w.bin").len(), 8192 + 4000);
    let m = load(&here.at("m.onnx")).unwrap();
    assert_eq!(["a", "b", "c"].map(|n| value(&m, n)), [1.0, 2.0, 3.0]);
    assert_eq!(entry(&m, "a", "checksum"), None);
    assert_eq!(entry(&m, "c", "other"), Some("kept"));
    save(&m, &there.at("m.onnx"), false).unwrap();
    for name in ["m.onnx", "w.bin", "deep/v.bin"] {
        assert_eq!(here.read(name), there.read(name), "{name}");
    }
    fs::remove_file(there.at("m.onnx")).unwrap();
    refused(
        save(&m, &there.at("m.onnx"), false),
        ErrorKind::Exists,
        &["w.bin"],
    );
    save(&m, &there.at("m.onnx"), true).unwrap();
    assert_eq!(there.names(), ["deep", "m.onnx", "w.bin"]);
}

#[test]
fn an_unchanged_model_leaves_its_external_files_alone() {
    let dir = Folder::new("alone");
    save(&spread(), &dir.at("m.onnx"), false).unwrap();
    let before = fs::metadata(dir.at("w.bin")).unwrap().modified().unwrap();
    let m = load(&dir.at("m.onnx")).unwrap();
    save(&m, &dir.at("m.onnx"), true).unwrap();
    save(&m, &dir.at("copy.onnx"), false).unwrap();
    assert_eq!(dir.read("m.onnx"), dir.read("copy.onnx"));
    assert_eq!(before, fs::metadata(dir.at("w.bin")).unwrap().modified().unwrap());
    assert_eq!(dir.names(), ["copy.onnx", "deep", "m.onnx", "w.bin"]);
    refused(
        save(&m, &dir.at("w.bin"), true),
        ErrorKind::External,
        &["w.bin", "in this file"],
    );
}

#[test]
fn changed_tensors_do_not_touch_a_mapped_file() {
    let dir = Folder::new("mapped");
    save(&spread(), &dir.at("m.onnx"), false).unwrap();
    let before = dir.read("w.bin");
    for n in [1, 2] {
        let mut m = load(&dir.at("m.onnx")).unwrap();
        change(&mut m, "b", tensor(7.0 + n as f32));
        save(&m, &dir.at("m.onnx"), true).unwrap();
        let m = load(&dir.at("m.onnx")).unwrap();
        assert_eq!(["a", "b", "c"].map(|n| value(&m, n)), [1.0, 7.0 + n as f32, 3.0]);
        assert_eq!(entry(&m, "a", "location"), Some("w.bin"));
    }
    assert_eq!(dir.names(), ["deep", "m.onnx", "m.onnx.data", "w.bin"]);
    let mut m = load(&dir.at("m.onnx")).unwrap();
    change(&mut m, "a", tensor(9.0));
    save(&m, &dir.at("m.onnx"), true).unwrap();
    assert!(dir.names().contains(&"m.onnx.1.data".into()));
    change(&mut m, "b", tensor(9.0));
    change(&mut m, "c", tensor(9.0));
    save(&m, &dir.at("copy.onnx"), true).unwrap();
    assert_eq!(dir.read("w.bin"), before);
    let copy = load(&dir.at("copy.onnx")).unwrap();
    assert_eq!(["a", "b", "c"].map(|n| value(&copy, n)), [9.0; 3]);
    assert!(dir.names().contains(&"copy.onnx.data".into()));
}

#[test]
fn changed_tensors_keep_their_place_where_they_fit() {
    let (here, there) = (Folder::new("fit-a"), Folder::new("fit-b"));
    save(&spread(), &here.at("m.onnx"), false).unwrap();
    let mut m = load(&here.at("m.onnx")).unwrap();
    change(&mut m, "a", tensor(9.0));
    change(&mut m, "b", Tensor::of(&[2000], vec![8.0f32; 2000]));
    save(&m, &there.at("m.onnx"), false).unwrap();
    let m = load(&there.at("m.onnx")).unwrap();
    assert_eq!(["a", "b", "c"].map(|n| value(&m, n)), [9.0, 8.0, 3.0]);
    assert_eq!(entry(&m, "a", "offset"), Some("0"));
    assert_eq!(entry(&m, "b", "offset"), Some("4096"));
    assert_eq!(entry(&m, "b", "length"), Some("8000"));
    assert_eq!(there.read("w.bin").len(), 4096 + 8000);
}

#[test]
fn tensors_that_want_the_same_place_all_get_one() {
    let (here, there) = (Folder::new("same-a"), Folder::new("same-b"));
    let at = [("location", "w.bin"), ("offset", "64"), ("length", "4000")];
    save(&model(&[&at, &at, &[], &[]]), &here.at("m.onnx"), false).unwrap();
    let m = load(&here.at("m.onnx")).unwrap();
    assert_eq!(["a", "b", "c", "d"].map(|n| value(&m, n)), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(entry(&m, "d", "location"), Some("m.onnx.data"));
    assert_eq!(entry(&m, "d", "offset"), Some("4096"));
    let mut tied = m.clone();
    let a = m.graph.find("a").unwrap();
    let b = m.graph.find("b").unwrap();
    tied.graph[b].konst = m.graph[a].konst.clone();
    save(&tied, &there.at("m.onnx"), false).unwrap();
    assert_eq!(there.read("w.bin").len(), 64 + 4000);
    let tied = load(&there.at("m.onnx")).unwrap();
    assert_eq!(
        ["a", "b", "c", "d"].map(|n| value(&tied, n)),
        [1.0, 1.0, 3.0, 4.0]
    );
}

#[test]
fn models_of_two_folders_can_be_joined() {
    let (one, two) = (Folder::new("join-a"), Folder::new("join-b"));
    save(&model(&[&[("location", "w.bin")]]), &one.at("m.onnx"), false).unwrap();
    save(
        &model(&[
            &[("location", "w.bin")],
            &[("location", "w.bin"), ("offset", "4096")],
        ]),
        &two.at("m.onnx"),
        false,
    )
    .unwrap();
    let mut joined = load(&one.at("m.onnx")).unwrap();
    let other = load(&two.at("m.onnx")).unwrap();
    let v = joined.graph.value("b");
    joined.graph[v].konst = other.graph[other.graph.find("b").unwrap()].konst.clone();
    joined.graph.initializers.push(v);
    save(&joined, &one.at("joined.onnx"), false).unwrap();
    let back = load(&one.at("joined.onnx")).unwrap();
    assert_eq!(["a", "b"].map(|n| value(&back, n)), [1.0, 2.0]);
    assert_eq!(
        one.names(),
        ["joined.onnx", "joined.onnx.data", "m.onnx", "w.bin"]
    );
}

#[test]
fn external_files_must_be_where_they_may() {
    let dir = Folder::new("where");
    let inner = dir.at("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(dir.at("outside.bin"), vec![0; 4000]).unwrap();
    fs::write(inner.join("short.bin"), vec![0; 3999]).unwrap();
    fs::write(inner.join("long.bin"), vec![0; 5000]).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(dir.at("outside.bin"), inner.join("link.bin")).unwrap();
    let absolute = dir.at("outside.bin").display().to_string();
    let read = |entries: &[(&str, &str)]| {
        let mut m = model(&[entries]);
        if let Form::External(e) = &mut m.graph.values[0].konst.as_mut().unwrap().form {
            e.source = Some((PathBuf::new(), 0));
        }
        fs::write(inner.join("m.onnx"), to_bytes(&m)).unwrap();
        load(&inner.join("m.onnx"))
    };
    let named = |file| ["m.onnx → graph → initializer \"a\"", file];
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "\"\""),
        (&[("location", &absolute)], "outside.bin"),
        (&[("location", "../outside.bin")], "outside.bin"),
        (&[("location", "a/../../outside.bin")], "outside.bin"),
        (&[("location", "missing.bin")], "missing.bin"),
        (&[("location", ".")], "\".\""),
        (
            &[("location", "short.bin")],
            "expected 4000 bytes at 0 in \"short.bin\", found a file of 3999",
        ),
        (&[("location", "long.bin"), ("offset", "1001")], "long.bin"),
        (
            &[("location", "long.bin"), ("offset", "18446744073709551615")],
            "long.bin",
        ),
        (&[("location", "long.bin"), ("offset", "-1")], "offset"),
        (&[("location", "long.bin"), ("length", "5001")], "long.bin"),
        (
            &[("location", "long.bin"), ("length", "1"), ("length", "2")],
            "length",
        ),
        #[cfg(unix)]
        (&[("location", "link.bin")], "link.bin"),
    ];
    for (entries, file) in cases {
        refused(read(entries), ErrorKind::External, &named(file));
    }
    refused(
        read(&[("location", "long.bin"), ("length", "4999")]),
        ErrorKind::Invalid,
        &["4000", "4999"],
    );
    assert_eq!(
        value(
            &read(&[("location", "./long.bin"), ("offset", "1000")]).unwrap(),
            "a"
        ),
        0.0
    );
    let outward = model(&[&[("location", "../w.bin")]]);
    refused(
        save(&outward, &inner.join("new.onnx"), false),
        ErrorKind::External,
        &["../w.bin"],
    );
    let itself = model(&[&[("location", "new.onnx")]]);
    refused(
        save(&itself, &inner.join("new.onnx"), false),
        ErrorKind::External,
        &["new.onnx"],
    );
}

#[test]
fn errors_leave_nothing_behind() {
    let (here, there) = (Folder::new("nothing-a"), Folder::new("nothing-b"));
    save(&spread(), &here.at("m.onnx"), false).unwrap();
    let m = load(&here.at("m.onnx")).unwrap();
    fs::create_dir_all(there.at("w.bin/full")).unwrap();
    fs::write(there.at("m.onnx"), b"before").unwrap();
    refused(save(&m, &there.at("m.onnx"), true), ErrorKind::Io, &["m.onnx"]);
    assert_eq!(there.read("m.onnx"), b"before");
    assert_eq!(there.names(), ["m.onnx", "w.bin"]);
}

#[test]
fn spilled_bytes_are_what_was_filled_in() {
    let dir = Folder::new("spill");
    let fill = |to: &mut [u8]| to.iter_mut().zip(0..=250).for_each(|(to, i)| *to += i);
    let bytes = Bytes::spilled(&dir.0, 100_000, fill).unwrap();
    assert_eq!((bytes.len(), bytes[250], bytes[99_999]), (100_000, 250, 0));
    assert_eq!(
        Bytes::spilled(&dir.0, 0, |to| assert!(to.is_empty()))
            .unwrap()
            .len(),
        0
    );
    assert!(Bytes::spilled(Path::new("/no such folder"), 1, |_| {}).is_err());
    #[cfg(unix)]
    assert!(dir.names().is_empty());
}
