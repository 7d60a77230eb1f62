//! A model of the demo: tried, written, read back and tried again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use secateur::Model;
use secateur::engine::ir::Bytes;
use secateur::engine::onnx;
use serde_json::{Value, json};

use super::trial::{self, Trial};
use super::{Flags, school};
use crate::cmd::digits::Digits;
use crate::cmd::report;
use crate::cmd::table::thousands;
use crate::cmd::ui::Ui;
use crate::cmd::written::{Receipt, Target};

/// What was done to a model after it was trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Done {
    /// So many percent of its weights are zero; nothing was trained after that.
    Pruned(u32),
    /// It was compressed within the budget.
    Compressed,
}

impl Done {
    pub(super) fn name(self) -> String {
        match self {
            Done::Pruned(0) => "dense".into(),
            Done::Pruned(share) => format!("pruned {share} %"),
            Done::Compressed => "compressed".into(),
        }
    }

    /// Where the model goes.
    pub(super) fn file(self, folder: &Path) -> PathBuf {
        folder.join(match self {
            Done::Pruned(share) => format!("digits-{share}.onnx"),
            Done::Compressed => "digits-compressed.onnx".into(),
        })
    }
}

/// One row of the demo.
pub(super) struct Step {
    pub(super) done: Done,
    pub(super) file: PathBuf,
    pub(super) trial: Trial,
    pub(super) file_bytes: usize,
    pub(super) zipped_bytes: usize,
    /// Milliseconds of one image.
    pub(super) ms: f64,
}

impl Step {
    /// Tries a model, writes it, reads it back and tries that.
    ///
    /// # Errors
    ///
    /// If it cannot be written, or does not give the same outputs, bit for bit, when it is read back.
    pub(super) fn new(mut model: Model, share: u32, digits: &Digits, flags: &Flags, ui: &Ui) -> Result<Step> {
        let trial = Trial::new(&model, digits, ui.threads())?;
        sign(&mut model, share, &trial, ui);
        let done = Done::Pruned(share);
        let output = done.file(&flags.output);
        let force = flags.force || ours(&output);
        Target { output, force }.verified(&model, |back, _| {
            let again = Trial::new(back, digits, ui.threads())?;
            ensure!(again.outputs == trial.outputs, "it computes something else");
            Ok(())
        })?;
        Step::read(done, digits, flags, ui)
    }

    /// Reads a model that was written and verified, and tries it.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub(super) fn read(done: Done, digits: &Digits, flags: &Flags, ui: &Ui) -> Result<Step> {
        let file = done.file(&flags.output);
        let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
        Ok(Step {
            done,
            trial: Trial::new(&Model::load(&file)?, digits, ui.threads())?,
            file_bytes: bytes.len(),
            zipped_bytes: trial::zipped(&bytes)?,
            file,
            ms: 0.0,
        })
    }

    /// The row of `steps[]`.
    pub(super) fn json(&self) -> Value {
        let zeros = &self.trial.zeros;
        json!({
            "name": self.done.name(),
            "tuned": self.done == Done::Compressed,
            "sparsity": match self.done {
                Done::Pruned(share) => f64::from(share) / 100.0,
                Done::Compressed => zeros.share(),
            },
            "file": self.file.display().to_string(),
            "weights": zeros.weights,
            "zeros": zeros.zeros,
            "zeros_percent": 100.0 * zeros.share(),
            "right": self.trial.right,
            "accuracy": self.trial.accuracy(),
            "file_bytes": self.file_bytes,
            "zipped_bytes": self.zipped_bytes,
            "ms": self.ms,
            "verified": true,
        })
    }

    /// The row of the table.
    pub(super) fn cells(&self) -> [String; 8] {
        let kb = |bytes: usize| format!("{:.1}", bytes as f64 / 1e3);
        [
            self.done.name(),
            thousands(self.trial.zeros.zeros),
            format!("{:.2}", 100.0 * self.trial.zeros.share()),
            format!("{:.2}", 100.0 * self.trial.accuracy()),
            kb(self.file_bytes),
            kb(self.zipped_bytes),
            format!("{:.3}", self.ms),
            "same bits".into(),
        ]
    }
}

/// The heads of [`Step::cells`].
pub(super) const HEADS: [&str; 8] = [
    "model",
    "zeros",
    "zeros %",
    "accuracy %",
    "file kB",
    "zipped kB",
    "ms",
    "read back",
];

fn sign(model: &mut Model, share: u32, trial: &Trial, ui: &Ui) {
    let receipt = Receipt {
        verb: "demo",
        flags: json!({
            "epochs": school::EPOCHS,
            "method": "magnitude",
            "sparsity": f64::from(share) / 100.0,
            "scope": "global",
        }),
        seed: ui.common.seed,
        figures: json!({"zeros": trial.zeros.zeros, "accuracy": trial.accuracy()}),
    };
    receipt.sign(model);
}

/// Whether the demo wrote the file.
pub(super) fn ours(path: &Path) -> bool {
    let Ok(old) = std::fs::read(path) else {
        return false;
    };
    if old.starts_with(report::HEAD.as_bytes()) {
        return true;
    }
    let model = onnx::parse(Bytes::new(old), None);
    model.is_ok_and(|m| {
        let all = onnx::metadata(&m);
        all.iter()
            .any(|(k, v)| k == "secateur.1" && v.contains(r#""verb":"demo""#))
    })
}
