//! Where a search stands, in a file, so that it can go on.
//!
//! The file is JSON; the models that were kept lie beside it as ONNX, each under its name with the number of the step behind it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use secateur_engine::Model;
use secateur_engine::onnx::{load, save};
use secateur_train::{fingerprint, whole};
use serde::{Deserialize, Serialize};

use super::search::{Search, Stage, Try, Verdict};
use super::sense::Curve;
use super::target::Quantity;
use crate::recover::RecoverError;
use crate::rounds::{School, Score, times};

/// What changes while a search runs, but for its models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// What the first model is worth, and what it costs.
    pub(super) before: Score,
    pub(super) cost: f64,
    /// What is predicted where all curves are at their cheapest, as far as the first model tells.
    pub(super) least: f64,
    /// What was measured of the first model, of what was predicted.
    pub(super) scale: f64,
    /// The same of the last, beyond that.
    pub(super) bias: f64,
    /// The part of what is left that the next step takes.
    pub(super) stride: f64,
    pub(super) curves: Vec<Curve>,
    pub(super) tries: Vec<Try>,
    /// What was taken back since a step was kept: the shares of each curve.
    #[serde(default)]
    pub(super) broken: Vec<Vec<f64>>,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Saved {
    /// What must be the same where a search goes on.
    purpose: Vec<(String, String)>,
    state: State,
}

/// Where the model that step `number` made is kept.
fn beside(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".kept{number}"));
    path.with_file_name(name)
}

fn purpose(search: &Search, start: &Model, school: &dyn School) -> Vec<(String, String)> {
    let (subject, budget) = (&search.subject, &search.budget);
    let target = budget.target.map_or("none".into(), |t| t.to_string());
    let timed = budget.target.is_none_or(|t| t.quantity() == Quantity::Ms);
    let by = if timed {
        times(&budget.sizes)
    } else {
        String::new()
    };
    let sizes: BTreeMap<_, _> = subject.frame.sizes.iter().collect();
    let own = [
        ("the model", format!("{:016x}", fingerprint(start))),
        ("the method", subject.method.name().to_owned()),
        ("the method's seed", subject.seed.to_string()),
        ("the pattern", format!("{:?}", subject.pattern)),
        ("what is left alone", format!("{:?}", subject.choice)),
        ("the budget", budget.max_drop.to_string()),
        ("the target", target),
        ("the number of tries", budget.tries.to_string()),
        ("the shapes of inputs", format!("{:?}", budget.sizes.shapes)),
        ("the sizes", format!("{sizes:?}")),
        ("the threads", budget.sizes.threads.to_string()),
        ("what times are predicted by", by),
    ];
    let all = own.into_iter().chain(school.purpose());
    all.map(|(what, text)| (what.to_owned(), text)).collect()
}

impl State {
    /// Writes where the search stands to `path`, all or nothing.
    pub(super) fn keep(
        &self,
        path: &Path,
        (search, start, school): (&Search, &Model, &dyn School),
        kept: &[Stage],
    ) -> Result<(), RecoverError> {
        // The models first: what names them comes last.
        if let Some(stage) = kept.last() {
            save(&whole(&stage.model), &beside(path, stage.number), true)?;
        }
        let saved = Saved {
            purpose: purpose(search, start, school),
            state: self.clone(),
        };
        let wrong = |e: String| RecoverError::checkpoint(path, e);
        let text = serde_json::to_string(&saved).map_err(|e| wrong(e.to_string()))?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".tmp");
        let temporary = path.with_file_name(name);
        let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
        written.map_err(|e| wrong(e.to_string()))
    }

    /// What `path` says, with the models that were kept; none where there is no such file.
    pub(super) fn load(
        path: &Path,
        search: &Search,
        start: &Model,
        school: &dyn School,
    ) -> Result<Option<(State, Vec<Stage>)>, RecoverError> {
        if !path.exists() {
            return Ok(None);
        }
        let wrong = |e: String| RecoverError::checkpoint(path, e);
        let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let none = |e| wrong(format!("it is no state of a search of this version: {e}"));
        let saved: Saved = serde_json::from_str(&text).map_err(none)?;
        if let Some(what) = crate::rounds::differs(&saved.purpose, &purpose(search, start, school)) {
            return Err(wrong(format!("it was written by another run: {what}")));
        }
        let kept = saved.state.tries.iter().filter(|t| t.verdict == Verdict::Kept);
        let stage = |t: &Try| {
            let mut model = load(&beside(path, t.number))?;
            // Steps change the graph only.
            model.extra = start.extra.clone();
            let number = t.number;
            Ok(Stage { number, model })
        };
        let kept = kept.map(stage).collect::<Result<_, RecoverError>>()?;
        Ok(Some((saved.state, kept)))
    }
}
