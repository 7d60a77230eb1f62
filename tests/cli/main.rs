//! The command line as its users meet it: a process with arguments, two streams and an exit status.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod cache;
mod calibrate;
mod compress;
mod cut;
mod demo;
mod documented;
mod explain;
mod figures;
mod files;
mod hostile;
mod new;
mod prune;
mod prune_rounds;
mod recipes;
mod sweep;
mod ticket;
mod train;
mod usage;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/digits-cnn.onnx");

/// A photo of one white pixel.
const WHITE: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55\
        \0\0\0\nIDAT\x78\xda\x63\xf8\x0f\0\x01\x01\x01\0\x1c\xb0\x8c\x99\0\0\0\0IEND\xae\x42\x60\x82";

/// What came of one command.
struct Ran {
    status: i32,
    out: String,
    err: String,
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    // What was measured on this machine must not decide a test.
    let nowhere = concat!(env!("CARGO_TARGET_TMPDIR"), "/no-cache");
    command.args(args).env("XDG_CACHE_HOME", nowhere);
    command
}

fn secateur(args: &[&str]) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = command(args).output().unwrap();
    let ran = Ran {
        status: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    };
    assert!(!ran.err.contains("panicked"), "{args:?}: {}", ran.err);
    ran
}

/// The object that `args` with `--json` print, and the exit status.
fn json(args: &[&str]) -> (Value, i32) {
    let ran = secateur(&[args, &["--json"]].concat());
    let value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", ran.out));
    (value, ran.status)
}

/// The object that `args` with `--json` print; they must succeed.
fn done(args: &[&str]) -> Value {
    let (value, status) = json(args);
    assert_eq!(status, 0, "{args:?}: {value}");
    value
}

/// The error that `args` end in, with exit status 2 and nothing on standard output.
fn refused(args: &[&str]) -> String {
    let ran = secateur(args);
    assert_eq!(ran.status, 2, "{args:?}: {}{}", ran.out, ran.err);
    assert!(ran.out.is_empty(), "{args:?}: {}", ran.out);
    assert!(ran.err.contains("error: "), "{args:?}: {}", ran.err);
    ran.err
}

/// Runs `args` and kills it, again and again, each time `step` later, so that every part of it is hit, until it ends by
/// itself. After each time `killed` is called.
fn killed(args: &[&str], step: Duration, mut killed: impl FnMut()) {
    for wait in (1..).map(|i| step * i) {
        let mut run = command(args).spawn().unwrap();
        std::thread::sleep(wait);
        if let Some(status) = run.try_wait().unwrap() {
            assert!(status.success() && wait > step, "{args:?}");
            return;
        }
        run.kill().unwrap();
        run.wait().unwrap();
        killed();
    }
}

/// A folder for one test, empty at first and removed at last.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.0.join(name), bytes).unwrap();
        self.file(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A network of the digits that has learned for so many epochs, in a file.
fn trained(folder: &Folder, epochs: u32) -> String {
    let (file, epochs) = (folder.file("trained.onnx"), epochs.to_string());
    let how = [
        "--data", "digits", "--epochs", &epochs, "--batch", "50", "--lr", "0.003",
    ];
    done(&[&["train", "lenet-300-100", &file][..], &how].concat());
    file
}

fn number(x: &Value) -> f64 {
    x.as_f64().unwrap_or_else(|| panic!("{x}"))
}

/// The elements of all initialisers.
fn weights(file: &str) -> Vec<Vec<u8>> {
    let model = secateur::engine::onnx::load(Path::new(file)).unwrap();
    let g = &model.graph;
    let each = g.initializers.iter().filter_map(|&v| g.konst(v));
    each.map(|t| t.bytes().to_vec()).collect()
}
