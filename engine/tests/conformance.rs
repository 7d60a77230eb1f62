//! ONNX's own backend tests, which `scripts/conformance.sh` fetches: every case through the reference interpreter, the
//! optimised engine, and the engine once more after write and read.
//!
//! `SECATEUR_MODELS` is the folder with `onnx-tests`. `CASES` (a part of a case's path) picks some. With `CONFORMANCE`, the
//! verdicts are written to that file, one line for each case: suite, case, operator, and a verdict for each way of running.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use secateur_engine::ir::{Bytes, Constant, DType, Datum, Model, Tensor, Type};
use secateur_engine::run::{Feed, Session};
use secateur_engine::{onnx, opt};

const SUITES: &[&str] = &["node", "simple", "pytorch-converted", "pytorch-operator", "light"];

/// The suite's tolerances: `|got - want| <= ATOL + rtol * |want|`.
const ATOL: f64 = 1e-7;
const RTOL: f64 = 1e-3;

/// One model, and the sets of inputs and outputs that it is tried on.
struct Case {
    suite: &'static str,
    name: String,
    model: PathBuf,
    sets: Vec<PathBuf>,
    rtol: f64,
}

fn sorted(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    found.sort();
    found
}

fn text(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn cases(root: &Path) -> Vec<Case> {
    let mut all = vec![];
    for &suite in SUITES {
        for path in sorted(&root.join(suite)) {
            let case = |model: PathBuf, sets, name| Case {
                suite,
                // As in the suite's own data.json.
                rtol: if text(&model).contains("densenet121") {
                    2e-3
                } else {
                    RTOL
                },
                model,
                sets,
                name,
            };
            if path.is_dir() {
                let sets = sorted(&path).into_iter().filter(|p| p.is_dir()).collect();
                all.push(case(path.join("model.onnx"), sets, text(&path)));
            } else if path.extension().is_some_and(|e| e == "onnx") {
                let name = text(&path).replace(".onnx", "");
                all.push(case(path.clone(), vec![path], name));
            }
        }
    }
    let wanted = std::env::var("CASES").unwrap_or_default();
    all.retain(|c| c.model.to_string_lossy().contains(&wanted));
    all
}

fn value(path: &Path, ty: &Type) -> Result<Datum, String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    onnx::parse_value(Bytes::new(bytes), ty).map_err(|e| format!("{}: {e}", path.display()))
}

/// Inputs by name and expected outputs.
type Data = (Vec<(String, Datum)>, Vec<Datum>);

/// The data of one set.
fn data(model: &Model, set: &Path) -> Result<Data, String> {
    let g = &model.graph;
    let ty = |p: &secateur_engine::ir::Port| p.ty.as_ref().map_or(Type::Unknown, |d| d.ty.clone());
    if set.extension().is_some_and(|e| e == "onnx") {
        return light(model, set);
    }
    let mut inputs = vec![];
    for (i, p) in g.inputs.iter().enumerate() {
        let path = set.join(format!("input_{i}.pb"));
        if path.exists() {
            inputs.push((g[p.value].name.to_string(), value(&path, &ty(p))?));
        }
    }
    let outputs = g.outputs.iter().enumerate();
    let outputs = outputs.map(|(i, p)| value(&set.join(format!("output_{i}.pb")), &ty(p)));
    Ok((inputs, outputs.collect::<Result<_, _>>()?))
}

/// The set of a light model: its input counts from 0 to 1.
fn light(model: &Model, path: &Path) -> Result<Data, String> {
    let g = &model.graph;
    let port = g
        .inputs
        .iter()
        .find(|p| g[p.value].konst.is_none())
        .ok_or("no input")?;
    let dims = port.ty.as_ref().and_then(|d| d.ty.dims()).ok_or("no shape")?;
    let n: usize = dims.iter().product();
    let x = Tensor::of(&dims, (0..n).map(|i| (i as f64 / n as f64) as f32).collect());
    let out = path.with_file_name(format!("{}_output_0.pb", text(path).replace(".onnx", "")));
    let y = value(&out, &Type::Unknown)?;
    Ok((vec![(g[port.value].name.to_string(), x.into())], vec![y]))
}

fn differs(got: &Datum, want: &Datum, rtol: f64) -> Option<String> {
    let lists = |a: &[Datum], b: &[Datum]| {
        let lengths = (a.len() != b.len()).then(|| format!("{} elements, expected {}", a.len(), b.len()));
        lengths.or_else(|| a.iter().zip(b).find_map(|(a, b)| differs(a, b, rtol)))
    };
    match (got, want) {
        (Datum::Tensor(a), Datum::Tensor(b)) => tensors(a, b, rtol),
        (Datum::Sequence(_, a), Datum::Sequence(_, b)) => lists(a, b),
        (Datum::Optional(_, None), Datum::Optional(_, None)) => None,
        (Datum::Optional(_, Some(a)), Datum::Optional(_, Some(b))) => differs(a, b, rtol),
        (Datum::Optional(_, Some(a)), b) => differs(a, b, rtol),
        (a, Datum::Optional(_, Some(b))) => differs(a, b, rtol),
        (a, b) => (a != b).then(|| format!("{}, expected {}", a.ty(), b.ty())),
    }
}

fn tensors(got: &Tensor, want: &Tensor, rtol: f64) -> Option<String> {
    if (got.dtype(), got.dims()) != (want.dtype(), want.dims()) {
        return Some(format!(
            "{}{:?}, expected {}{:?}",
            got.dtype(),
            got.dims(),
            want.dtype(),
            want.dims()
        ));
    }
    if got.dtype() == DType::String {
        return (got != want).then(|| "other strings".into());
    }
    let (Some(g), Some(w)) = (got.floats(), want.floats()) else {
        return (got != want).then(|| "other elements".into());
    };
    let near =
        |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= ATOL + rtol * b.abs();
    let worst = g.iter().zip(&w).position(|(&a, &b)| !near(a, b))?;
    Some(format!("element {worst} is {}, expected {}", g[worst], w[worst]))
}

#[derive(Clone, Copy)]
enum Way {
    Reference,
    Engine,
    Rewritten,
}

fn said(e: &dyn std::fmt::Display) -> String {
    e.to_string()
}

fn attempt(case: &Case, way: Way) -> Result<(), String> {
    let read = onnx::load(&case.model).map_err(|e| said(&e))?;
    let model = match way {
        Way::Rewritten => {
            onnx::parse(Bytes::new(onnx::to_bytes(&read)), case.model.parent()).map_err(|e| said(&e))?
        }
        _ => read,
    };
    gives(case, &model, matches!(way, Way::Reference))
}

/// Whether `model` gives what `case` wants.
fn gives(case: &Case, model: &Model, reference: bool) -> Result<(), String> {
    let builder = Session::builder(model).threads(2);
    let builder = if reference { builder.reference() } else { builder };
    let session = builder.build().map_err(|e| said(&e))?;
    for set in &case.sets {
        let (inputs, want) = data(model, set)?;
        let known: Vec<String> = session.inputs().map(|(n, _)| n.to_owned()).collect();
        let feeds = inputs
            .iter()
            .filter(|(n, _)| known.contains(n))
            .map(|(n, d)| (n, Feed::from(d)));
        let got = session.run(feeds).map_err(|e| said(&e))?;
        for (i, (g, w)) in got.values.iter().zip(&want).enumerate() {
            if let Some(what) = differs(g, w, case.rtol) {
                return Err(format!("output {i}: {what}"));
            }
        }
    }
    Ok(())
}

/// The operator that a case is about.
fn operator(case: &Case) -> String {
    let base = case.name.split("_expanded").next().unwrap_or_default();
    let model = case
        .model
        .parent()
        .and_then(|p| Some(p.parent()?.join(base).join("model.onnx")));
    let path = model.filter(|p| p.exists()).unwrap_or_else(|| case.model.clone());
    let Ok(model) = onnx::load(&path) else {
        return "?".into();
    };
    let nodes: Vec<_> = model.graph.iter().map(|(_, n)| n).collect();
    match (&nodes[..], case.suite) {
        ([only], _) => secateur_engine::opt::infer::full_name(only),
        ([.., last], "node") => secateur_engine::opt::infer::full_name(last),
        _ => format!("({})", case.suite),
    }
}

fn root() -> PathBuf {
    let given = PathBuf::from(std::env::var_os("SECATEUR_MODELS").expect("SECATEUR_MODELS"));
    Some(given.join("onnx-tests"))
        .filter(|r| r.exists())
        .unwrap_or(given)
}

fn guarded(f: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|p| {
        let text = p.downcast_ref::<String>().cloned();
        let text = text.or_else(|| Some((*p.downcast_ref::<&str>()?).into()));
        Err(format!("PANIC: {}", text.unwrap_or_default()))
    })
}

/// What `model` becomes on its way through opsets.
fn by_way_of(model: &Model, ways: &[i64]) -> Result<Model, String> {
    let mut model = model.clone();
    for &to in ways {
        opt::convert(&mut model, "", to).map_err(|e| said(&e))?;
    }
    Ok(model)
}

/// `model` with all inputs but the first known before it runs, as they mostly are in real models.
fn known(case: &Case, model: &Model) -> Option<Model> {
    let (inputs, _) = data(model, case.sets.first()?).ok()?;
    let mut new = model.clone();
    let first = new.graph.inputs.first()?.value;
    for (name, value) in inputs {
        let v = new.graph.find(&name)?;
        let Datum::Tensor(t) = value else { return None };
        if v != first && new.graph[v].konst.is_none() {
            new.graph[v].konst = Some(Constant::new(t));
            new.graph.initializers.push(v);
        }
    }
    let left = new.graph.inputs.len();
    let values = &new.graph.values;
    new.graph
        .inputs
        .retain(|p| values[p.value.0 as usize].konst.is_none());
    new.ir_version = new.ir_version.max(Some(4));
    (new.graph.inputs.len() < left && case.sets.len() == 1).then_some(new)
}

/// Every case that passes, converted to the newest opset and back again, and to older ones. With `CONVERTED`, the models are
/// written to that folder, for `scripts/opset_check.py`; with `CONVERSIONS`, what was refused and why to that file.
#[test]
#[ignore = "needs SECATEUR_MODELS/onnx-tests"]
fn converted_cases() {
    let (mut same, mut refused, mut failed) = (0, String::new(), vec![]);
    std::panic::set_hook(Box::new(|_| {}));
    let folder = std::env::var_os("CONVERTED").map(PathBuf::from);
    for case in cases(&root()) {
        let Ok(model) = onnx::load(&case.model) else {
            continue;
        };
        let Some(own) = model.opset("") else { continue };
        if guarded(|| gives(&case, &model, false)).is_err() {
            continue;
        }
        let mut ways: Vec<Vec<i64>> = vec![vec![27], vec![27, own.max(7)]];
        let older = [24, 21, 19, 17, 15, 13, 12, 11, 10, 9, 8, 7];
        ways.extend(older.iter().filter(|&&v| v < own).map(|&v| vec![v]));
        ways.retain(|w| w.last() != Some(&own) || w.len() > 1);
        let known = known(&case, &model).filter(|m| guarded(|| gives(&case, m, false)).is_ok());
        let both = [("", Some(model)), (".known", known)];
        let both = both.into_iter().filter_map(|(what, m)| Some((what, m?)));
        for ((what, model), way) in both.flat_map(|m| ways.iter().map(move |w| (m.clone(), w))) {
            let name = format!("{}{what} {own} {way:?}", case.name);
            let done = guarded(|| {
                let new = match by_way_of(&model, way) {
                    Ok(new) => new,
                    Err(why) => {
                        writeln!(refused, "{name}\t{why}").unwrap();
                        return Ok(());
                    }
                };
                same += 1;
                if let Some(folder) = &folder {
                    let to = way.last().unwrap_or(&own);
                    let path = folder.join(format!("{}{what}.{}.{to}.onnx", case.name, way.len()));
                    onnx::save(&new, &path, true).map_err(|e| said(&e))?;
                }
                gives(&case, &new, false)
            });
            if let Err(why) = done {
                failed.push(format!("{name}: {why}"));
            }
        }
    }
    let _ = std::panic::take_hook();
    if let Some(path) = std::env::var_os("CONVERSIONS") {
        std::fs::write(path, &refused).unwrap();
    }
    let count = refused.lines().count();
    eprintln!("{}", failed.join("\n"));
    eprintln!("{same} conversions, {count} refused, {} failures", failed.len());
    assert!(failed.is_empty());
}

#[test]
#[ignore = "needs SECATEUR_MODELS/onnx-tests"]
fn every_case() {
    let (mut table, mut failed, mut count) = (String::new(), vec![], 0);
    std::panic::set_hook(Box::new(|_| {}));
    for case in cases(&root()) {
        count += 1;
        let op = operator(&case);
        write!(table, "{}\t{}\t{op}", case.suite, case.name).unwrap();
        for (way, name) in [
            (Way::Reference, "reference"),
            (Way::Engine, "engine"),
            (Way::Rewritten, "rewritten"),
        ] {
            let done = guarded(|| attempt(&case, way));
            let verdict = done.err().map_or("ok".into(), |e| e.replace(['\n', '\t'], " "));
            write!(table, "\t{verdict}").unwrap();
            if verdict != "ok" {
                failed.push(format!("{} [{op}] {name}: {verdict}", case.name));
            }
        }
        table.push('\n');
    }
    let _ = std::panic::take_hook();
    if let Some(path) = std::env::var_os("CONFORMANCE") {
        std::fs::write(path, &table).unwrap();
    }
    eprintln!("{}\n{count} cases, {} failures", failed.join("\n"), failed.len());
    let panics: Vec<_> = failed.iter().filter(|f| f.contains("PANIC")).collect();
    assert!(panics.is_empty(), "{panics:#?}");
    assert!(
        failed.len() * 100 <= count * 3,
        "more than one case in a hundred fails"
    );
}
