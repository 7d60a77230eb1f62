//! `ticket`.

use std::fs;
use std::path::Path;

use super::*;

/// A search that takes a second.
const FEW: [&str; 17] = [
    "--data", "digits", "--batch", "100", "--lr", "0.003", "--epochs", "4", "--every", "10", "--rounds", "2",
    "--rate", "50%", "--seeds", "2", "--force",
];

/// The files of a folder and its folders, by the way to them.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match path.is_dir() {
            true => all.extend(files(&path).into_iter().map(|(n, b)| (format!("{name}/{n}"), b))),
            false => all.push((name, fs::read(&path).unwrap())),
        }
    }
    all.sort();
    all
}

#[test]
fn an_architecture_has_tickets() {
    let folder = Folder::new("ticket");
    let [out, csv, svg] = ["out", "t.csv", "t.svg"].map(|f| folder.file(f));
    let wanted = ["--out", &out, "--csv", &csv, "--svg", &svg];
    let said = done(&[&["ticket", "lenet-300-100"][..], &FEW, &wanted].concat());
    let rows = said["rows"].as_array().unwrap();
    // The dense network, and three arms in two rounds, with two seeds.
    assert_eq!(rows.len(), 14);
    for key in ["accuracy", "final_accuracy", "remaining", "target"] {
        assert!(rows.iter().all(|r| r[key].is_f64()), "{key}: {said}");
    }
    let of = |arm: &str, round: u64| -> Vec<f64> {
        let fit = rows.iter().filter(|r| r["arm"] == arm && r["round"] == round);
        fit.map(|r| r["remaining"].as_f64().unwrap()).collect()
    };
    assert_eq!(of("dense", 0), [1.0, 1.0]);
    for arm in ["ticket", "reinit", "random-mask"] {
        let left = of(arm, 2);
        assert!(left.iter().all(|x| (0.25..0.3).contains(x)), "{arm}: {said}");
    }
    assert_eq!(said["summary"].as_array().unwrap().len(), 7);
    let over: Vec<_> = said["leads"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| &l["over"])
        .collect();
    assert_eq!(
        over,
        ["dense", "reinit", "random-mask", "dense", "reinit", "random-mask"]
    );
    assert_eq!(fs::read_to_string(&csv).unwrap().lines().count(), 15);
    assert!(fs::read_to_string(&svg).unwrap().contains("<polyline"));
    // What the folder holds is ONNX that runs, and the ticket has zeros where its mask says so.
    let seed = |file: &str| folder.file(&format!("out/seed-1/{file}"));
    let zeros = |file: &str| done(&["inspect", &seed(file)])["zeros"].as_u64().unwrap();
    assert_eq!(zeros("ticket.onnx"), zeros("trained.onnx"));
    assert!(zeros("ticket.onnx") > 20_000);
    for file in ["ticket.onnx", "trained.onnx", "first.onnx", "start.onnx"] {
        done(&[
            "run",
            &seed(file),
            "-s",
            "batch=2",
            "-o",
            &folder.file("y.npz"),
            "--force",
        ]);
    }
    let ran = secateur(&["run", &seed("mask-02.onnx"), "-o", &folder.file("m.npz")]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert_eq!(
        fs::read(seed("first.onnx")).unwrap(),
        fs::read(seed("start.onnx")).unwrap()
    );
}

#[test]
fn a_file_has_tickets_too() {
    let folder = Folder::new("ticket-file");
    let out = folder.file("out");
    let args = [
        "ticket", DIGITS, "--data", "digits", "--steps", "20", "--every", "10", "--rounds", "1", "--scope",
        "global", "--rewind", "5", "--arms", "reinit", "--seeds", "1", "--out", &out,
    ];
    let said = done(&args);
    let arms: Vec<_> = said["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["arm"])
        .collect();
    assert_eq!(arms, ["dense", "reinit", "ticket"]);
    // Global: exactly a fifth of all together, rounded down.
    let remaining = said["rows"][2]["remaining"].as_f64().unwrap();
    assert!((remaining - 0.8).abs() < 1e-3, "{remaining}");
    let read = |name: &str| fs::read(folder.file(&format!("out/seed-0/{name}"))).unwrap();
    assert_ne!(read("first.onnx"), read("start.onnx"));
    // What is there is kept, unless it is gone on with or begun anew.
    assert!(refused(&args).contains("--resume goes on"));
    let again = done(&[&args[..], &["--resume"]].concat());
    assert_eq!(again["rows"], said["rows"]);
    let other = [&args[..], &["--resume", "--lr", "0.1"]].concat();
    assert!(refused(&other).contains("lr was"), "{}", refused(&other));
    done(&[&args[..], &["--force"]].concat());
}

#[test]
fn killed_and_resumed_it_ends_in_the_same_files() {
    let folder = Folder::new("ticket-resume");
    let [whole, out] = ["whole", "out"].map(|f| folder.file(f));
    let [one, two] = ["one.csv", "two.csv"].map(|f| folder.file(f));
    let args = [&["ticket", "lenet-300-100"][..], &FEW].concat();
    done(&[&args[..], &["--out", &whole, "--csv", &one]].concat());
    let resumed = [&args[..], &["--out", &out, "--resume", "--csv", &two]].concat();
    killed(&resumed, Duration::from_millis(50), || ());
    let untimed = |file: &str| -> Vec<String> {
        let text = fs::read_to_string(file).unwrap();
        let rows = text.lines().map(|l| l.rsplit_once(',').unwrap().0.to_owned());
        rows.collect()
    };
    assert_eq!(untimed(&one), untimed(&two));
    let models = |folder: &str| -> Vec<(String, Vec<u8>)> {
        let all = files(Path::new(folder)).into_iter();
        all.filter(|(n, _)| n.ends_with(".onnx")).collect()
    };
    let (a, b) = (models(&whole), models(&out));
    let names = |all: &[(String, Vec<u8>)]| all.iter().map(|x| x.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    assert_eq!(a.len(), 12);
    for (a, b) in a.iter().zip(&b) {
        assert!(a.1 == b.1, "{}", a.0);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let few = [
        "--data", "digits", "--steps", "5", "--rounds", "1", "--seeds", "1",
    ];
    let told = |more: &[&str]| refused(&[&["ticket", "lenet-300-100"][..], &few, more].concat());
    assert!(told(&["--rate", "1"]).contains("--rate 1: expected more than 0"));
    assert!(told(&["--rewind", "5"]).contains("going back to step 5"));
    assert!(told(&["--arms", "dense"]).contains("random-mask"));
    assert!(told(&["--validation", "0"]).contains("no validation examples"));
    assert!(told(&["--resume"]).contains("--out"));
    assert!(told(&["--lr", "1e30", "--optimizer", "sgd"]).contains("diverged"));
    let folder = Folder::new("ticket-refused");
    let table = folder.write(
        "t.csv",
        b"a,b,c\n1,2,0.5\n2,3,1.5\n3,4,0.1\n4,5,1.2\n5,6,0.3\n6,7,1.1\n",
    );
    let numbers = refused(&["ticket", "lenet-300-100", "--data", &table, "--task", "values"]);
    assert!(numbers.contains("labels that are classes"), "{numbers}");
}
