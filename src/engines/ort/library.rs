//! Where the library of ONNX Runtime is.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};
use ort::environment::Environment;

/// The library, loaded and set up once.
///
/// # Errors
///
/// If it is not found, or is too old.
pub(super) fn environment() -> Result<Environment> {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    if let Some(made) = ENVIRONMENT.get() {
        return Ok(made.clone());
    }
    let path = find()?;
    let found = ort::init_from(&path).map_err(|e| anyhow!("{}: {e}", path.display()))?;
    let made = found
        .with_telemetry(false)
        .build()
        .map_err(|e| anyhow!("ONNX Runtime: {e}"))?;
    Ok(ENVIRONMENT.get_or_init(|| made).clone())
}

/// What `ORT_DYLIB_PATH` says, else the library of the Python package.
fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()) {
        let path = PathBuf::from(path);
        return match path.is_file() {
            true => Ok(path),
            false => bail!("ORT_DYLIB_PATH is {}, where there is no file", path.display()),
        };
    }
    let how = "set ORT_DYLIB_PATH to its library, or install the Python package onnxruntime";
    of_python().with_context(|| format!("ONNX Runtime is not found: {how}"))
}

fn of_python() -> Option<PathBuf> {
    // The package is looked for but not imported.
    let find = "import importlib.util as u; print(u.find_spec('onnxruntime').submodule_search_locations[0])";
    let said = Command::new("python3").args(["-c", find]).output().ok()?;
    let folder = PathBuf::from(String::from_utf8(said.stdout).ok()?.trim()).join("capi");
    let files = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|e| Some(e.ok()?.path()));
    let is_library = |p: &PathBuf| {
        let name = p.file_name().and_then(|n| n.to_str()).unwrap_or("");
        name.starts_with("libonnxruntime.") || name == "onnxruntime.dll"
    };
    files.filter(is_library).max()
}

/// The version, as the name of the library's file has it: `libonnxruntime.so.1.31.1`.
pub(super) fn version() -> String {
    let file = find().and_then(|f| Ok(f.canonicalize()?)).unwrap_or_default();
    let name = file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let number = name
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .trim_end_matches(".dylib");
    if number.is_empty() {
        "unknown".into()
    } else {
        number.to_owned()
    }
}
