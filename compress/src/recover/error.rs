//! What can go wrong on the way to a smaller model that is as good.

use std::fmt;
use std::path::Path;

use secateur_engine::RunError;
use secateur_engine::onnx::OnnxError;
use secateur_engine::opt::PassError;
use secateur_train::data::DataError;
use secateur_train::{TrainError, TrainErrorKind};

use crate::{ApplyError, Method, MethodError};

/// Why rounds of pruning and recovery ended early. The model is as it was after the last round that ended.
#[derive(Debug)]
pub struct RecoverError {
    kind: Box<RecoverErrorKind>,
    /// In which round, counted from 1.
    round: Option<(u32, u32)>,
}

/// What kind of [`RecoverError`] it is.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecoverErrorKind {
    /// The method could not decide.
    Method(MethodError),
    /// What it decided could not be done.
    Apply(ApplyError),
    /// Training failed; see [`RecoverError::diverged`].
    Train(TrainError),
    /// The model did not run.
    Run(String),
    /// The state could not be kept, or belongs to something else.
    Checkpoint(String),
    /// What was asked for does not fit together.
    Wrong(String),
}

impl RecoverError {
    pub(crate) fn new(kind: RecoverErrorKind) -> RecoverError {
        RecoverError {
            kind: kind.into(),
            round: None,
        }
    }

    /// That something asked for, as `what` says, does not fit or cannot be had.
    pub fn wrong(what: impl Into<String>) -> RecoverError {
        RecoverError::new(RecoverErrorKind::Wrong(what.into()))
    }

    /// That `method` has no examples.
    pub(crate) fn unshown(method: &dyn Method) -> RecoverError {
        RecoverError::wrong(format!(
            "method {} sees the model at work; expected examples, found none",
            method.name()
        ))
    }

    pub(crate) fn checkpoint(path: &Path, what: impl fmt::Display) -> RecoverError {
        RecoverError::new(RecoverErrorKind::Checkpoint(format!(
            "{}: {what}",
            path.display()
        )))
    }

    /// In round `round` of `of`, where nobody has said so yet.
    pub(crate) fn within(mut self, round: u32, of: u32) -> RecoverError {
        self.round.get_or_insert((round, of));
        self
    }

    /// What kind of error it is.
    pub fn kind(&self) -> &RecoverErrorKind {
        &self.kind
    }

    /// Whether a name fits nothing, or leaves nothing.
    pub(crate) fn unmatched(&self) -> bool {
        use crate::MethodErrorKind::{Goal, Unmatched};
        let kind = match &*self.kind {
            RecoverErrorKind::Method(e) => e.kind(),
            _ => return false,
        };
        matches!(kind, Unmatched(..) | Goal(_))
    }

    /// Whether training made numbers that are none.
    pub fn diverged(&self) -> bool {
        match &*self.kind {
            RecoverErrorKind::Train(e) => matches!(e.kind(), TrainErrorKind::Diverged(_)),
            _ => false,
        }
    }
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some((round, of)) = self.round.filter(|(_, of)| *of > 1) {
            write!(f, "round {round} of {of}: ")?;
        }
        match &*self.kind {
            RecoverErrorKind::Method(e) => e.fmt(f),
            RecoverErrorKind::Apply(e) => e.fmt(f),
            RecoverErrorKind::Train(e) => e.fmt(f),
            RecoverErrorKind::Run(what)
            | RecoverErrorKind::Checkpoint(what)
            | RecoverErrorKind::Wrong(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for RecoverError {}

impl From<MethodError> for RecoverError {
    fn from(e: MethodError) -> RecoverError {
        RecoverError::new(RecoverErrorKind::Method(e))
    }
}

impl From<ApplyError> for RecoverError {
    fn from(e: ApplyError) -> RecoverError {
        RecoverError::new(RecoverErrorKind::Apply(e))
    }
}

impl From<TrainError> for RecoverError {
    fn from(e: TrainError) -> RecoverError {
        RecoverError::new(RecoverErrorKind::Train(e))
    }
}

impl From<DataError> for RecoverError {
    fn from(e: DataError) -> RecoverError {
        TrainError::from(e).into()
    }
}

impl From<RunError> for RecoverError {
    fn from(e: RunError) -> RecoverError {
        RecoverError::new(RecoverErrorKind::Run(e.to_string()))
    }
}

impl From<PassError> for RecoverError {
    fn from(e: PassError) -> RecoverError {
        RecoverError::new(RecoverErrorKind::Run(e.to_string()))
    }
}

impl From<OnnxError> for RecoverError {
    fn from(e: OnnxError) -> RecoverError {
        RecoverError::new(RecoverErrorKind::Checkpoint(e.to_string()))
    }
}
