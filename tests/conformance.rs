//! ONNX's own backend tests (`$SECATEUR_MODELS/onnx-tests`, fetched by `scripts/extended.sh`): every case whose operators
//! the engine has must give the expected outputs. Cases with other operators are counted and passed over.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secateur::engine::ir::{Bytes, Tensor};
use secateur::engine::onnx;
use secateur::engine::run::{RunError, Session, unsupported};

const SUITES: &[&str] = &["node", "simple", "pytorch-converted", "pytorch-operator"];

/// What errors say about element types, forms and modes that are refused for now.
const REFUSED: &[&str] = &[
    "is not supported",
    "are not run yet",
    "only inference is supported",
    "follows from the shapes",
    "do not follow from those of the inputs",
];

enum Verdict {
    Passed,
    Unsupported(String),
    Failed(String),
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    found.sort();
    found
}

/// The tensors `input_0.pb`, `input_1.pb` … of a data set; `None` where one is no tensor.
fn tensors(set: &Path, kind: &str) -> Option<Vec<Arc<Tensor>>> {
    let files = (0..)
        .map(|i| set.join(format!("{kind}_{i}.pb")))
        .take_while(|p| p.exists());
    files
        .map(|p| Some(onnx::parse_tensor(Bytes::new(std::fs::read(p).ok()?)).ok()?.1))
        .collect()
}

fn differs(got: &Tensor, want: &Tensor) -> Option<String> {
    if (got.dtype(), got.dims()) != (want.dtype(), want.dims()) {
        return Some(format!(
            "{}{:?}, expected {}{:?}",
            got.dtype(),
            got.dims(),
            want.dtype(),
            want.dims()
        ));
    }
    let (Some(g), Some(w)) = (got.floats(), want.floats()) else {
        return (got != want).then(|| "other elements".into());
    };
    let wide = matches!(want.dtype().bits(), 16) && want.dtype().is_float();
    let (atol, rtol) = if wide { (1e-2, 1e-2) } else { (1e-5, 1e-3) };
    let near =
        |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= atol + rtol * b.abs();
    let worst = g.iter().zip(&w).position(|(&a, &b)| !near(a, b))?;
    Some(format!("element {worst} is {}, expected {}", g[worst], w[worst]))
}

fn judge(case: &Path) -> Verdict {
    let model = match onnx::load(&case.join("model.onnx")) {
        Ok(m) => m,
        Err(e) => return Verdict::Failed(e.to_string()),
    };
    let missing = unsupported(&model);
    if let Some(u) = missing.first() {
        return Verdict::Unsupported(u.op.clone());
    }
    let refused = |e: RunError| {
        let what = e.to_string();
        match REFUSED.iter().find(|r| what.contains(**r)) {
            Some(r) => Verdict::Unsupported(format!("({r})")),
            None => Verdict::Failed(what),
        }
    };
    let session = match Session::builder(&model).threads(2).build() {
        Ok(s) => s,
        Err(e) => return refused(e),
    };
    for set in folders(case).iter().filter(|p| p.is_dir()) {
        let (Some(inputs), Some(outputs)) = (tensors(set, "input"), tensors(set, "output")) else {
            return Verdict::Unsupported("values that are no tensors".into());
        };
        let names: Vec<String> = session.inputs().map(|(n, _)| n.to_owned()).collect();
        let got = match session.run(names.iter().zip(inputs.iter().map(|t| &**t))) {
            Ok(y) => y,
            Err(e) => return refused(e),
        };
        let wrong = got.tensors.iter().zip(&outputs).find_map(|(g, w)| differs(g, w));
        if let Some(what) = wrong {
            return Verdict::Failed(what);
        }
    }
    Verdict::Passed
}

#[test]
fn supported_operators_conform() {
    let Some(dir) = std::env::var_os("SECATEUR_MODELS").map(PathBuf::from) else {
        eprintln!("skipped: SECATEUR_MODELS is not set");
        return;
    };
    let (mut passed, mut failed) = (0, vec![]);
    let mut lacking = std::collections::BTreeMap::<String, usize>::new();
    for case in SUITES
        .iter()
        .flat_map(|s| folders(&dir.join("onnx-tests").join(s)))
    {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        match judge(&case) {
            Verdict::Passed => passed += 1,
            Verdict::Unsupported(op) => *lacking.entry(op).or_default() += 1,
            Verdict::Failed(what) => failed.push(format!("{name}: {what}")),
        }
    }
    eprintln!(
        "{passed} cases passed, {} failed; passed over for want of: {lacking:?}",
        failed.len()
    );
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
