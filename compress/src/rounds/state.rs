//! Where rounds stand, in a file, so that they can go on.
//!
//! The file is the model as the last round has left it, as ONNX; what else is needed is JSON in its metadata.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use secateur_engine::onnx::{load, metadata, save, set_metadata};
use secateur_train::{fingerprint, whole};
use serde::{Deserialize, Serialize};

use super::{Row, Run, School};
use crate::Examples;
use crate::budget;
use crate::recover::RecoverError;

/// The key of the metadata.
const KEY: &str = "secateur.rounds";

#[derive(Serialize, Deserialize)]
struct State {
    /// What must be the same where rounds go on.
    purpose: Vec<(String, String)>,
    rows: Vec<Row>,
}

/// A word for the runs of `examples`.
fn seen(examples: &Examples) -> String {
    let mut hash = DefaultHasher::new();
    for run in examples.runs {
        let inputs = run.inputs.iter().map(|(_, x)| x);
        inputs.chain(&run.labels).for_each(|x| x.bytes().hash(&mut hash));
    }
    format!("{} runs, {:016x}", examples.runs.len(), hash.finish())
}

/// A word for what times are predicted by.
pub(crate) fn times(by: &budget::Sizes) -> String {
    let mut hash = DefaultHasher::new();
    let text = format!("{:?} on {} threads, {:?}", by.shapes, by.threads, by.rates);
    text.hash(&mut hash);
    format!("{:016x}", hash.finish())
}

impl Run<'_> {
    fn purpose(&self, school: &dyn School) -> Vec<(String, String)> {
        let r = &self.rounds;
        let own = [
            ("the model", format!("{:016x}", fingerprint(self.start))),
            ("the method", r.method.name().to_owned()),
            ("the method's seed", r.seed.to_string()),
            ("what the method sees", r.shown.map_or(String::new(), seen)),
            ("the goal", format!("{:?}", r.aim)),
            ("the sizes", format!("{:?}", r.frame.sizes)),
            (
                "what times are predicted by",
                r.frame.times.map_or(String::new(), times),
            ),
            ("what is left alone", format!("{:?}", r.choice)),
            ("the number of rounds", r.count.to_string()),
            ("the schedule", r.ramp.to_string()),
        ];
        let all = own.into_iter().chain(school.purpose());
        all.map(|(what, text)| (what.to_owned(), text)).collect()
    }

    /// Writes where the rounds stand to `path`, all or nothing.
    pub(super) fn keep(&self, path: &Path, school: &dyn School) -> Result<(), RecoverError> {
        let state = State {
            purpose: self.purpose(school),
            rows: self.rows.clone(),
        };
        let text = serde_json::to_string(&state).map_err(|e| RecoverError::checkpoint(path, e))?;
        let mut model = whole(&self.model);
        set_metadata(&mut model, KEY, &text);
        Ok(save(&model, path, true)?)
    }

    /// Goes on where `path` was written, to the same result as if nothing had come between. Whether there was such a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or belongs to other rounds.
    pub fn resume(&mut self, school: &dyn School, path: &Path) -> Result<bool, RecoverError> {
        if !path.exists() {
            return Ok(false);
        }
        let mut model = load(path)?;
        let entries = metadata(&model);
        let text = entries.iter().find(|(key, _)| key == KEY).map(|(_, text)| text);
        let text = text.ok_or_else(|| {
            let what = "it is a model, but does not say which rounds of pruning it comes from";
            RecoverError::checkpoint(path, what)
        })?;
        let state: State = serde_json::from_str(text)
            .map_err(|e| RecoverError::checkpoint(path, format!("it is of another version: {e}")))?;
        if let Some(what) = differs(&state.purpose, &self.purpose(school)) {
            let what = format!("it was written by another run: {what}");
            return Err(RecoverError::checkpoint(path, what));
        }
        // Rounds change the graph only, and this file's metadata is none of the model's.
        model.extra = self.start.extra.clone();
        self.model = model;
        self.rows = state.rows;
        Ok(true)
    }
}

/// In what two runs differ.
pub(crate) fn differs(old: &[(String, String)], new: &[(String, String)]) -> Option<String> {
    let of = |all: &[(String, String)], what: &str| {
        let found = all.iter().find(|(name, _)| name == what);
        found.map_or("not set".to_owned(), |(_, text)| text.clone())
    };
    let names = new.iter().chain(old).map(|(name, _)| name);
    let mut pairs = names.map(|name| (name, of(old, name), of(new, name)));
    let (name, old, new) = pairs.find(|(_, old, new)| old != new)?;
    Some(format!("{name} was {old}, and is {new} now"))
}
