//! `demo`, from a folder in which there is nothing.

use std::fs;

use super::*;

fn demo(folder: &Folder, more: &[&str]) -> (Value, i32) {
    let args = [&["demo", "--json"][..], more].concat();
    let ran = command(&args).current_dir(&folder.0).output().unwrap();
    let value = serde_json::from_slice(&ran.stdout);
    let value = value.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&ran.stderr)));
    (value, ran.status.code().unwrap_or(-1))
}

#[test]
fn the_demo_trains_compresses_and_verifies() {
    let folder = Folder::new("demo");
    let (said, status) = demo(&folder, &[]);
    assert_eq!((status, &said["pass"]), (0, &true.into()), "{said}");
    let steps = said["steps"].as_array().unwrap();
    let of = |key: &str| -> Vec<f64> { steps.iter().map(|s| s[key].as_f64().unwrap()).collect() };
    let shares = of("sparsity");
    assert_eq!(
        (&shares[..6], shares.len()),
        (&[0.0, 0.5, 0.7, 0.8, 0.9, 0.95][..], 7)
    );
    let weights = of("weights")[0];
    let zeros = of("zeros");
    let cut = shares[1..6].iter().map(|s| (s * weights).round());
    assert!(zeros[1..6].iter().copied().eq(cut), "{zeros:?} of {weights}");
    let accuracy = of("accuracy");
    assert!(accuracy[0] >= 0.96, "{accuracy:?}");
    // Nothing is trained on after that but what is compressed, which holds its budget of a point.
    assert!(accuracy[5] < 0.8, "{accuracy:?}");
    assert!(
        zeros[6] > 0.0 && accuracy[6] >= accuracy[0] - 0.01 - 1e-9,
        "{accuracy:?}"
    );
    let tried = said["compress"]["steps"].as_array().unwrap();
    assert!(tried.iter().any(|t| t["kept"] == true), "{tried:?}");
    assert!(of("zipped_bytes")[..6].is_sorted_by(|a, b| a > b));
    assert!(
        steps
            .iter()
            .all(|s| s["verified"] == true && s["ms"].as_f64().unwrap() > 0.0)
    );
    for step in steps {
        let file = folder.file(step["file"].as_str().unwrap());
        let inspected = done(&["inspect", &file]);
        assert_eq!(inspected["zeros"], step["zeros"], "{file}");
        assert_eq!(inspected["unsupported"], serde_json::json!([]));
    }
    let page = fs::read_to_string(folder.file(said["report"].as_str().unwrap())).unwrap();
    assert!(page.contains("<svg") && !page.contains("http://") && !page.contains("https://"));
    assert!(page.contains("Held: Accuracy") && page.contains("conv4.weight"));
    // It replaces its own files, and no others.
    for name in ["report.html", "digits-80.onnx"] {
        let file = folder.file(&format!("secateur-demo/{name}"));
        let own = fs::read(&file).unwrap();
        fs::write(&file, b"mine").unwrap();
        let (refused, status) = demo(&folder, &[]);
        assert_eq!(status, 2);
        assert!(
            refused["error"].as_str().unwrap().contains("--force"),
            "{refused}"
        );
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        fs::write(&file, own).unwrap();
    }
}
