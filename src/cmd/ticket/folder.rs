//! The folder in which tickets lie, and from which a search goes on.
//!
//! ```text
//! search.json            what is searched for; a search with other flags is refused
//! seed-0/first.onnx      the weights before the first step, written before it is taken
//!        start.onnx      those that are gone back to
//!        mask-03.onnx    the masks of a round
//!        ticket.onnx     the smallest ticket that became as good as the dense network, or else the last: before training
//!        trained.onnx    and after
//!        rows.json       what came of each training that is complete, with all that was measured on the way
//! ```

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use secateur::Model;
use secateur::compress::ticket::{Arm, Done, Past, Row, Trial};
use secateur::engine::onnx;
use secateur::train::whole;
use serde_json::Value;

use super::super::card;
use super::super::written;

const SEARCH: &str = "search.json";
const ROWS: &str = "rows.json";

/// The folder of a search.
pub(super) struct Folder(PathBuf);

/// The folder of a seed.
pub(super) struct Room(PathBuf);

impl Folder {
    /// The folder `path` for a search with `purpose`, new unless it is to be resumed or begun anew.
    ///
    /// # Errors
    ///
    /// If another search is there, or the system refuses.
    pub(super) fn open(path: &Path, purpose: &Value, (resume, force): (bool, bool)) -> Result<Folder> {
        let file = path.join(SEARCH);
        let named = || path.display().to_string();
        fs::create_dir_all(path).with_context(named)?;
        if file.exists() && !resume {
            if !force {
                bail!(
                    "{}: a search is there already; --resume goes on, --force begins anew",
                    named()
                );
            }
            forget(path).with_context(named)?;
        } else if file.exists() {
            let found = json(&file)?;
            if let Some(what) = differs(purpose, &found) {
                bail!("{}: the search there is another: {what}", named());
            }
            return Ok(Folder(path.into()));
        }
        if let Some(rows) = orphan(path).with_context(named)? {
            bail!(
                "{}: left by a search that is not known; remove it",
                rows.display()
            );
        }
        write(&file, purpose)?;
        Ok(Folder(path.into()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// How many trainings of a seed are done.
    pub(super) fn done(&self, seed: u64) -> u64 {
        let rows = json(&self.room(seed).join(ROWS)).ok();
        rows.and_then(|r| r.as_array().map(Vec::len)).unwrap_or(0) as u64
    }

    fn room(&self, seed: u64) -> PathBuf {
        self.0.join(format!("seed-{seed}"))
    }

    /// The folder of a seed, whose first weights are those of `first`.
    ///
    /// # Errors
    ///
    /// If they were others when the search began, or the system refuses.
    pub(super) fn seed(&self, seed: u64, first: &Model) -> Result<Room> {
        let room = Room(self.room(seed));
        fs::create_dir_all(&room.0).with_context(|| room.0.display().to_string())?;
        let file = room.0.join("first.onnx");
        let bytes = onnx::to_bytes(&whole(first));
        match fs::read(&file) {
            Ok(found) if found == bytes => {}
            Ok(_) if room.0.join(ROWS).exists() => {
                bail!("{}: the search began with other weights", file.display())
            }
            _ => written::replace(&file, true, |out| Ok(out.write_all(&bytes)?))?,
        }
        Ok(room)
    }
}

impl Room {
    /// What was done before.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(super) fn past(&self, trial: &Trial) -> Result<Past> {
        let file = self.0.join(ROWS);
        if !file.exists() {
            return Ok(Past::default());
        }
        let rows: Vec<Row> =
            serde_json::from_value(json(&file)?).with_context(|| file.display().to_string())?;
        let each = trial.controls.len() + 1;
        let round = (rows.len().max(1) - 1) / each + 1;
        let start = match trial.rewind {
            0 => trial.model.clone(),
            _ => card::load(&self.0.join("start.onnx"))?,
        };
        let masks = (round <= trial.rounds as usize).then(|| card::load(&self.mask(round as u32)));
        Ok(Past {
            start: Some(start),
            masks: masks.transpose()?,
            rows,
        })
    }

    /// Keeps what a training left behind; `rows` are all so far. What is complete is said last of all.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(super) fn keep(&self, done: &Done, rows: &[Row]) -> Result<()> {
        let save = |name: &str, model: &Model| onnx::save(model, &self.0.join(name), true);
        if let Some(start) = &done.start {
            save("start.onnx", start)?;
        }
        if let Some(next) = &done.next {
            onnx::save(&next.model(), &self.mask(done.row.round + 1), true)?;
        }
        if let (Some(ticket), true) = (&done.ticket, is_shown(rows)) {
            save("ticket.onnx", ticket)?;
            save("trained.onnx", &done.trained)?;
        }
        write(&self.0.join(ROWS), &serde_json::to_value(rows)?)
    }

    fn mask(&self, round: u32) -> PathBuf {
        self.0.join(format!("mask-{round:02}.onnx"))
    }
}

/// Whether the last of `rows` is the ticket that is shown: as good as the dense network, or none before was.
fn is_shown(rows: &[Row]) -> bool {
    let good = |r: &Row| r.arm == Arm::Ticket && r.steps_to_target.is_some();
    rows.last().is_some_and(good) || !rows.iter().any(good)
}

/// Rows of a seed in `path`.
fn orphan(path: &Path) -> std::io::Result<Option<PathBuf>> {
    let entries = fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
    let rows = entries.into_iter().map(|e| e.path().join(ROWS));
    Ok(rows.into_iter().find(|file| file.exists()))
}

/// Removes what a search left, and nothing else.
fn forget(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let seed = name.to_str().and_then(|n| n.strip_prefix("seed-"));
        if seed.is_some_and(|s| s.parse::<u64>().is_ok()) {
            // The rows first: without them the rest says nothing.
            let rows = entry.path().join(ROWS);
            if rows.exists() {
                fs::remove_file(rows)?;
            }
            fs::remove_dir_all(entry.path())?;
        }
    }
    // Last of all: what is left of a search must not pass for part of another.
    fs::remove_file(path.join(SEARCH))
}

fn json(path: &Path) -> Result<Value> {
    let read = || -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    read().with_context(|| path.display().to_string())
}

fn write(path: &Path, value: &Value) -> Result<()> {
    written::replace(path, true, |out| Ok(out.write_all(value.to_string().as_bytes())?))
}

/// In what two searches differ.
fn differs(mine: &Value, found: &Value) -> Option<String> {
    let mine = mine.as_object()?;
    let other = mine.iter().find(|(key, value)| found.get(key) != Some(value));
    other.map(|(key, value)| {
        let was = found.get(key).unwrap_or(&Value::Null);
        format!("{key} was {was}, and is {value} now")
    })
}
