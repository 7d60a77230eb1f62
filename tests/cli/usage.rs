//! Help, mistakes, and what is said of them.

use std::process::Stdio;

use super::*;

const VERBS: &[&str] = &["bench", "inspect", "optimize", "run", "verify"];

#[test]
fn every_verb_has_help_and_wants_a_file() {
    for verb in VERBS {
        let help = secateur(&[verb, "--help"]);
        assert_eq!(help.status, 0);
        for flag in ["--json", "--quiet", "--threads", "--size", "--seed"] {
            assert!(help.out.contains(flag), "{verb} {flag}");
        }
        assert!(refused(&[verb]).contains("<MODEL>"), "{verb}");
    }
    assert_eq!(secateur(&["demo", "--help"]).status, 0);
    assert!(secateur(&["--help"]).out.contains("inspect"));
    assert_eq!(secateur(&["--version"]).status, 0);
    assert_eq!(secateur(&[]).status, 2);
}

#[test]
fn unknown_names_list_the_known_ones_and_the_nearest() {
    let folder = Folder::new("names");
    let out = folder.file("x.onnx");
    for (args, near, known) in [
        (&["inspct", DIGITS][..], "'inspect'", "verify"),
        (&["inspect", "--tpo", "3", DIGITS], "--top", "--json"),
        (&["inspect", DIGITS, "-s", "batc=2"], "\"batch\"", "[\"batch\"]"),
        (&["run", DIGITS, "-i", "imag=ones"], "\"image\"", "[\"image\"]"),
        (&["run", DIGITS, "--dump", "logitz"], "\"logits\"", "conv1.weight"),
        (&["run", DIGITS, "-i", "image=onse"], "ones", "x.npz:KEY"),
        (&["run", DIGITS, "--profile", "opp"], "'op'", "layer"),
        (&["bench", DIGITS, "--engine", "orrt"], "\"ort\"", "tract"),
        (
            &["verify", DIGITS, DIGITS, "--engine", "sel"],
            "\"self\"",
            "tract",
        ),
        (
            &["verify", DIGITS, DIGITS, "--data", "digit"],
            "\"digits\"",
            "an .npz file with x and y",
        ),
        (
            &["optimize", DIGITS, &out, "--level", "basik"],
            "'basic'",
            "extended",
        ),
    ] {
        let said = refused(args);
        assert!(said.contains(near) && said.contains(known), "{args:?}: {said}");
    }
}

#[test]
fn an_error_is_one_object_too() {
    for args in [
        &["inspect", "no-such.onnx"][..],
        &["inspect"],
        &["inspect", DIGITS, "-s", "x"],
        &["insp"],
    ] {
        let (value, status) = json(args);
        assert_eq!(status, 2);
        assert!(!value["error"].as_str().unwrap().is_empty(), "{value}");
    }
}

#[test]
fn wrong_inputs_are_refused_with_what_was_expected() {
    for (source, expected) in [
        ("image=ones@1x3x8x8", "float[batch, 1, 8, 8]"),
        ("image=ones@64", "float[batch, 1, 8, 8]"),
        ("image=1,2,3", "3 numbers"),
        ("image=no-such.npy", "no-such.npy"),
        ("image=no-such.npz:x", "no-such.npz"),
        ("image=no-such.png", "no-such.png"),
        ("image=rand:3:1", "LO ≤ HI"),
        ("image=ones@axb", "not a shape"),
    ] {
        let said = refused(&["run", DIGITS, "-i", source]);
        assert!(said.contains(expected), "{source}: {said}");
    }
    assert!(refused(&["verify", DIGITS]).contains("nothing to compare"));
    assert!(refused(&["bench", DIGITS, "--fail-if-slower", "3%"]).contains("--baseline"));
    assert!(refused(&["bench", DIGITS, "-b", "0"]).contains("batch"));
}

#[test]
fn what_was_left_out_is_said_unless_quiet() {
    let said = secateur(&["run", DIGITS]).err;
    assert!(said.contains("random") && said.contains("batch"), "{said}");
    assert_eq!(secateur(&["run", DIGITS, "--quiet"]).err, "");
    assert_eq!(secateur(&["run", DIGITS, "-q", "--json"]).err, "");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = command(&["inspect", DIGITS])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let end = child.wait_with_output().unwrap();
    assert_eq!(
        end.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&end.stderr)
    );
}
