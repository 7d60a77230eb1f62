//! What can go wrong.

use std::fmt;
use std::io;

use secateur_engine::RunError;
use secateur_train::{DiffError, TrainError};

/// Why a method could not decide.
#[derive(Debug, PartialEq)]
pub struct MethodError(MethodErrorKind);

/// What kind of [`MethodError`] it is.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum MethodErrorKind {
    /// The goal is not one, or not one of this method.
    Goal(String),
    /// A pattern fits no name; with the names that are most like it.
    Unmatched(String, Vec<String>),
    /// There is nothing to prune.
    Nothing(String),
    /// The method wants to see the model at work, and has not, or not enough.
    Unseen(String),
    /// The model cannot be observed at work.
    Run(String),
}

impl MethodError {
    pub(crate) fn goal(what: impl Into<String>) -> MethodError {
        MethodError(MethodErrorKind::Goal(what.into()))
    }

    pub(crate) fn unmatched(pattern: &str, nearest: Vec<String>) -> MethodError {
        MethodError(MethodErrorKind::Unmatched(pattern.into(), nearest))
    }

    pub(crate) fn nothing(what: impl Into<String>) -> MethodError {
        MethodError(MethodErrorKind::Nothing(what.into()))
    }

    pub(crate) fn unseen(what: impl Into<String>) -> MethodError {
        MethodError(MethodErrorKind::Unseen(what.into()))
    }

    pub(crate) fn run(what: impl fmt::Display) -> MethodError {
        MethodError(MethodErrorKind::Run(what.to_string()))
    }

    /// What kind of error it is.
    pub fn kind(&self) -> &MethodErrorKind {
        &self.0
    }
}

impl From<RunError> for MethodError {
    fn from(e: RunError) -> Self {
        MethodError::run(e)
    }
}

impl From<TrainError> for MethodError {
    fn from(e: TrainError) -> Self {
        MethodError::run(e)
    }
}

impl From<DiffError> for MethodError {
    fn from(e: DiffError) -> Self {
        MethodError::run(e)
    }
}

impl fmt::Display for MethodError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.0 {
            MethodErrorKind::Goal(what)
            | MethodErrorKind::Nothing(what)
            | MethodErrorKind::Unseen(what)
            | MethodErrorKind::Run(what) => f.write_str(what),
            MethodErrorKind::Unmatched(pattern, nearest) if nearest.is_empty() => {
                write!(f, "{pattern:?} fits no weight; the model has none")
            }
            MethodErrorKind::Unmatched(pattern, nearest) => write!(
                f,
                "{pattern:?} fits no weight and no node that reads one; the nearest names are {nearest:?}"
            ),
        }
    }
}

impl std::error::Error for MethodError {}

/// Why a plan could not be applied, and to which value. The model is as it was.
#[derive(Debug)]
pub struct ApplyError {
    kind: ApplyErrorKind,
    value: String,
}

/// What kind of [`ApplyError`] it is.
#[derive(Debug)]
#[non_exhaustive]
pub enum ApplyErrorKind {
    /// The model has no constant of that name.
    Unknown,
    /// The constant is not the one that the plan was made for.
    Mismatch(String),
    /// The file system refused to keep a tensor.
    Spill(io::Error),
    /// The model has no group of that name.
    NoGroup,
    /// The model has no sum of two values of that name.
    NoBlock,
    /// The model has no value of that name, or none that a layer makes.
    NoLayer,
    /// Shapes would not be what they should.
    Shape(String),
}

impl ApplyError {
    pub(crate) fn new(kind: ApplyErrorKind, value: &str) -> ApplyError {
        let value = value.to_owned();
        ApplyError { kind, value }
    }

    /// What kind of error it is.
    pub fn kind(&self) -> &ApplyErrorKind {
        &self.kind
    }

    /// The value that the plan wants to change.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let value = &self.value;
        match &self.kind {
            ApplyErrorKind::Unknown => write!(f, "value {value:?}: the model has no such constant"),
            ApplyErrorKind::Mismatch(what) => write!(f, "value {value:?}: {what}"),
            ApplyErrorKind::Spill(e) => write!(f, "value {value:?}: cannot be kept in a file: {e}"),
            ApplyErrorKind::NoGroup => write!(f, "group {value:?}: the model has none of that name"),
            ApplyErrorKind::NoBlock => write!(
                f,
                "block {value:?}: the model has no sum of two values of that name"
            ),
            ApplyErrorKind::NoLayer => write!(f, "layer {value:?}: the model has none that makes that value"),
            ApplyErrorKind::Shape(what) => write!(f, "group {value:?} and others: {what}"),
        }
    }
}

impl std::error::Error for ApplyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ApplyErrorKind::Spill(e) => Some(e),
            _ => None,
        }
    }
}

/// Why a search for lottery tickets cannot go on.
#[derive(Clone, Debug, PartialEq)]
pub struct TicketError(TicketErrorKind);

/// What kind of [`TicketError`] it is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TicketErrorKind {
    /// What was asked for does not fit the model, or what was done before.
    Wrong(String),
    /// The model cannot be trained.
    Train(TrainError),
}

impl TicketError {
    pub(crate) fn wrong(what: impl Into<String>) -> TicketError {
        TicketError(TicketErrorKind::Wrong(what.into()))
    }

    /// What kind of error it is.
    pub fn kind(&self) -> &TicketErrorKind {
        &self.0
    }
}

impl fmt::Display for TicketError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.0 {
            TicketErrorKind::Wrong(what) => f.write_str(what),
            TicketErrorKind::Train(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for TicketError {}

impl From<TrainError> for TicketError {
    fn from(e: TrainError) -> TicketError {
        TicketError(TicketErrorKind::Train(e))
    }
}
