//! What can go wrong.

use std::fmt;
use std::path::Path;

use secateur_engine::RunError;
use secateur_engine::ir::Flaw;
use secateur_engine::opt::{NodeError, PassError};

use crate::data::DataError;
use crate::trainer::Diverged;

/// Why a model could not be differentiated. The model is as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct DiffError(DiffErrorKind);

/// What kind of [`DiffError`] it is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DiffErrorKind {
    /// The model cannot be brought into the newest version of ONNX's operators, or is not well formed.
    Model(PassError),
    /// A node on the way has no gradient, or not all is known that it takes.
    Node(NodeError),
    /// A value that was named is not one with a gradient: its name, and what is wrong.
    Value(String, &'static str),
}

impl DiffError {
    pub(crate) fn value(name: &str, what: &'static str) -> DiffError {
        DiffError(DiffErrorKind::Value(name.into(), what))
    }

    /// What kind of error it is.
    pub fn kind(&self) -> &DiffErrorKind {
        &self.0
    }
}

impl fmt::Display for DiffError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.0 {
            DiffErrorKind::Model(e) => e.fmt(f),
            DiffErrorKind::Node(e) => e.fmt(f),
            DiffErrorKind::Value(name, what) => write!(f, "value {name:?} {what}"),
        }
    }
}

impl std::error::Error for DiffError {}

impl From<PassError> for DiffError {
    fn from(e: PassError) -> Self {
        DiffError(DiffErrorKind::Model(e))
    }
}

impl From<Flaw> for DiffError {
    fn from(e: Flaw) -> Self {
        PassError::from(e).into()
    }
}

impl From<NodeError> for DiffError {
    fn from(e: NodeError) -> Self {
        DiffError(DiffErrorKind::Node(e))
    }
}

/// Why no training step could be made of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainError(TrainErrorKind);

/// What kind of [`TrainError`] it is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TrainErrorKind {
    /// The model cannot be differentiated.
    Diff(DiffError),
    /// What was asked for does not fit the model.
    Wrong(String),
    /// The model did not run.
    Run(String),
    /// Examples cannot be read or do not fit.
    Data(DataError),
    /// Something became infinite or no number.
    Diverged(Box<Diverged>),
    /// A checkpoint cannot be written, or is none of this training: the file, and why.
    Checkpoint(String),
}

impl TrainError {
    pub(crate) fn wrong(what: impl Into<String>) -> TrainError {
        TrainError(TrainErrorKind::Wrong(what.into()))
    }

    pub(crate) fn diverged(what: Diverged) -> TrainError {
        TrainError(TrainErrorKind::Diverged(Box::new(what)))
    }

    pub(crate) fn checkpoint(path: &Path, what: impl fmt::Display) -> TrainError {
        TrainError(TrainErrorKind::Checkpoint(format!("{}: {what}", path.display())))
    }

    /// What kind of error it is.
    pub fn kind(&self) -> &TrainErrorKind {
        &self.0
    }
}

impl fmt::Display for TrainError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.0 {
            TrainErrorKind::Diff(e) => e.fmt(f),
            TrainErrorKind::Wrong(what) | TrainErrorKind::Run(what) | TrainErrorKind::Checkpoint(what) => {
                f.write_str(what)
            }
            TrainErrorKind::Data(e) => e.fmt(f),
            TrainErrorKind::Diverged(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for TrainError {}

impl From<DiffError> for TrainError {
    fn from(e: DiffError) -> Self {
        TrainError(TrainErrorKind::Diff(e))
    }
}

impl From<PassError> for TrainError {
    fn from(e: PassError) -> Self {
        DiffError::from(e).into()
    }
}

impl From<Flaw> for TrainError {
    fn from(e: Flaw) -> Self {
        DiffError::from(e).into()
    }
}

impl From<NodeError> for TrainError {
    fn from(e: NodeError) -> Self {
        DiffError::from(e).into()
    }
}

impl From<DataError> for TrainError {
    fn from(e: DataError) -> Self {
        TrainError(TrainErrorKind::Data(e))
    }
}

impl From<RunError> for TrainError {
    fn from(e: RunError) -> Self {
        TrainError(TrainErrorKind::Run(e.to_string()))
    }
}
