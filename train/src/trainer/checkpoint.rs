//! The state of training in a file, so that it can go on.
//!
//! A checkpoint is a `safetensors` file: the state under the names of the step's inputs, the best state so far under names that begin
//! with `best/`, and all else as JSON in its metadata.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize};
use secateur_engine::ir::{Bytes, DType, Data, Form};
use secateur_engine::onnx;
use secateur_engine::{Model, Tensor};
use serde::{Deserialize, Serialize};

use super::{Log, Progress, Trainer};
use crate::data::{Loader, LoaderOptions};
use crate::words::{SEED, fingerprint};
use crate::{State, TrainError};

/// The key of the metadata.
const KEY: &str = "secateur.training";

/// Bytes of initialisers that one file takes; no protobuf message has two gigabytes.
const MOST: usize = 1 << 30;

/// What the names of the best state begin with.
const BEST: &str = "best/";

/// What a checkpoint belongs to: what must be the same where it goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Purpose {
    /// The step, without its weights.
    step: String,
    /// The weights that it began with.
    start: String,
    teachers: Vec<String>,
    data: String,
    validation: String,
    batches: String,
    rate: f64,
    schedule: String,
    patience: Option<u64>,
}

/// What is in the metadata.
#[derive(Serialize, Deserialize)]
struct Header {
    purpose: Purpose,
    log: Log,
}

impl Trainer<'_> {
    /// What checkpoints of this training are for.
    pub(super) fn purpose(&self) -> Purpose {
        let options = LoaderOptions {
            threads: 1,
            ..self.train.options().clone()
        };
        let graph = &self.graph;
        let start = graph.state.iter().map(|s| s.start.bytes());
        let teachers = self
            .course
            .teachers
            .iter()
            .map(|t| format!("{} of {:016x}", t.output, fingerprint_of(t.model)));
        let examples =
            |loader: &Loader| format!("{:?} ({:016x})", loader.data(), loader.data().fingerprint());
        Purpose {
            step: format!("{:016x}", fingerprint_of(&graph.model)),
            start: format!("{:016x}", start.fold(SEED, fingerprint)),
            teachers: teachers.collect(),
            data: examples(&self.train),
            validation: self.validation.as_ref().map_or("none".into(), examples),
            batches: format!("{options:?}"),
            rate: self.course.rate,
            schedule: self.course.schedule.to_string(),
            patience: self.course.patience,
        }
    }

    /// Goes on where the checkpoint of the [`Course`](super::Course) was written, to the same result as if nothing had come between. Whether there was
    /// one.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or belongs to another training.
    pub fn resume(&mut self) -> Result<bool, TrainError> {
        let Some(path) = self.course.checkpoint.filter(|p| p.exists()) else {
            return Ok(false);
        };
        let wrong = |what: String| TrainError::checkpoint(path, what);
        let bytes = fs::read(path).map_err(|e| wrong(e.to_string()))?;
        let header = header(&bytes).map_err(&wrong)?;
        let (mine, found) = (self.purpose.clone(), header.purpose);
        if let Some(what) = differs(&mine, &found) {
            return Err(wrong(format!("it was written by another training: {what}")));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| wrong(e.to_string()))?;
        let read = |prefix: &str| -> Result<Vec<Tensor>, TrainError> {
            let state = self.graph.state.iter();
            state
                .map(|s| tensor(&tensors, prefix, s).map_err(&wrong))
                .collect()
        };
        let best = tensors.names().iter().any(|n| n.starts_with(BEST));
        self.now = Progress {
            log: header.log,
            state: read("")?,
            best: best.then(|| read(BEST)).transpose()?,
        };
        Ok(true)
    }

    /// Writes where training stands to `path`, all or nothing.
    pub(super) fn write(&self, path: &Path) -> Result<(), TrainError> {
        let wrong = |what: String| TrainError::checkpoint(path, what);
        let header = Header {
            purpose: self.purpose.clone(),
            log: self.now.log.clone(),
        };
        let header = serde_json::to_string(&header).map_err(|e| wrong(e.to_string()))?;
        let names = |prefix: &'static str| {
            self.graph
                .state
                .iter()
                .map(move |s| format!("{prefix}{}", s.input))
        };
        let state = names("").zip(&self.now.state);
        let best = names(BEST).zip(self.now.best.iter().flatten());
        let views = state.chain(best).map(|(name, t)| Ok((name, view(t)?)));
        let views: Vec<_> = views.collect::<Result<_, String>>().map_err(&wrong)?;
        let bytes = serialize(views, Some(HashMap::from([(KEY.into(), header)])));
        let bytes = bytes.map_err(|e| wrong(e.to_string()))?;
        replace(path, &bytes).map_err(|e| wrong(e.to_string()))
    }
}

/// A number by which models are told from each other: that of one file with all their bytes.
pub fn fingerprint_of(model: &Model) -> u64 {
    fingerprint(SEED, &onnx::to_bytes(&whole(model)))
}

/// `model` with the initialisers that other files hold in the model itself, as far as one file has room for them.
pub fn whole(model: &Model) -> Model {
    let mut model = model.clone();
    let mut left = MOST;
    for v in model.graph.initializers.clone() {
        let Some(c) = model.graph[v].konst.as_mut() else {
            continue;
        };
        let bytes = c.tensor.bytes().len();
        if matches!(c.form, Form::External(_)) && bytes <= left {
            left -= bytes;
            c.form = Form::Raw;
        }
    }
    model
}

fn header(bytes: &[u8]) -> Result<Header, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| format!("it is no checkpoint: {e}"))?;
    let text = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
    let text = text.ok_or("it is no checkpoint: it holds tensors, but not where training stood")?;
    serde_json::from_str(text).map_err(|e| format!("it is no checkpoint of this version: {e}"))
}

/// In what two trainings differ.
fn differs(mine: &Purpose, found: &Purpose) -> Option<String> {
    let said = |what: &str, mine: String, found: String| {
        (mine != found).then(|| format!("{what} was {found}, and is {mine} now"))
    };
    let of = |p: &Purpose| (p.rate.to_string(), format!("{:?}", p.patience));
    let ((rate, patience), (old_rate, old_patience)) = (of(mine), of(found));
    said("the data", mine.data.clone(), found.data.clone())
        .or_else(|| said("the way of loading", mine.batches.clone(), found.batches.clone()))
        .or_else(|| {
            let (mine, found) = (mine.validation.clone(), found.validation.clone());
            said("what epochs are measured by", mine, found)
        })
        .or_else(|| said("the teacher", mine.teachers.join(", "), found.teachers.join(", ")))
        .or_else(|| said("the rate", rate, old_rate))
        .or_else(|| said("the schedule", mine.schedule.clone(), found.schedule.clone()))
        .or_else(|| said("the patience", patience, old_patience))
        .or_else(|| {
            let step = "the model, its weights, the loss, the optimiser or the seed are others";
            let same = (&mine.step, &mine.start) == (&found.step, &found.start);
            (!same).then(|| step.to_owned())
        })
}

/// The types that state has.
const TYPES: [(DType, Dtype); 3] = [
    (DType::F32, Dtype::F32),
    (DType::F64, Dtype::F64),
    (DType::I64, Dtype::I64),
];

fn view(t: &Tensor) -> Result<TensorView<'_>, String> {
    let ty = TYPES.iter().find(|(d, _)| *d == t.dtype());
    let ty = ty.ok_or_else(|| format!("state of type {} cannot be kept", t.dtype()))?;
    TensorView::new(ty.1, t.dims().to_vec(), t.bytes()).map_err(|e| e.to_string())
}

fn tensor(all: &SafeTensors, prefix: &str, state: &State) -> Result<Tensor, String> {
    let name = format!("{prefix}{}", state.input);
    let view = all.tensor(&name).map_err(|e| format!("{name}: {e}"))?;
    let ty = TYPES.iter().find(|(_, d)| *d == view.dtype()).map(|(d, _)| *d);
    let (dtype, dims) = (state.start.dtype(), state.start.dims());
    if (ty, view.shape()) != (Some(dtype), dims) {
        return Err(format!(
            "{name} is {:?}{:?}; expected {dtype}{dims:?}",
            view.dtype(),
            view.shape()
        ));
    }
    let bytes = Data::Bytes(Bytes::new(view.data().to_vec()));
    let tensor = Tensor::new(dtype, dims.to_vec(), bytes).map_err(|e| e.to_string())?;
    // State is written in place, as elements of its type.
    Ok(tensor.aligned())
}

/// Writes a file under another name and renames it when it is safe on the disk.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // One name, so that what a killed process leaves behind goes with the next write.
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let done = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    };
    done().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Makes a new name in a folder outlast a loss of power, where the system can.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            File::open(folder)?.sync_all()
        }
        _ => Ok(()),
    }
}
