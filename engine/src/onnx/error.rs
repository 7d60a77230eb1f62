//! What can be wrong with a file.

use std::fmt;
use std::io;

/// Why a file could not be read or written, and where in it.
pub struct OnnxError(Box<Fault>);

struct Fault {
    kind: ErrorKind,
    /// Innermost first.
    place: Vec<String>,
    what: String,
    byte: Option<usize>,
    cause: Option<io::Error>,
}

/// What sort of thing an [`OnnxError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused to open, map, write or rename a file.
    Io,
    /// The bytes are not a protobuf message, or a name is not UTF-8.
    Malformed,
    /// The message contradicts itself: sizes that do not match, a name given twice.
    Invalid,
    /// A tensor's external file is missing, too short, or not where it may be.
    External,
    /// More nesting, more memory or a longer message than the library allows.
    TooLarge,
    /// There is a file of that name, and nobody asked to overwrite it.
    Exists,
}

impl OnnxError {
    pub(super) fn new(kind: ErrorKind, what: impl Into<String>) -> OnnxError {
        OnnxError(Box::new(Fault {
            kind,
            place: vec![],
            what: what.into(),
            byte: None,
            cause: None,
        }))
    }

    pub(super) fn malformed(what: impl Into<String>) -> OnnxError {
        OnnxError::new(ErrorKind::Malformed, what)
    }

    pub(super) fn invalid(what: impl Into<String>) -> OnnxError {
        OnnxError::new(ErrorKind::Invalid, what)
    }

    pub(super) fn external(what: impl Into<String>) -> OnnxError {
        OnnxError::new(ErrorKind::External, what)
    }

    pub(super) fn io(what: &str, cause: io::Error) -> OnnxError {
        let mut error = OnnxError::new(ErrorKind::Io, format!("{what}: {cause}"));
        error.0.cause = Some(cause);
        error
    }

    /// Adds the byte of the file where it happened, unless a closer one is known.
    pub(super) fn at(mut self, byte: usize) -> OnnxError {
        self.0.byte.get_or_insert(byte);
        self
    }

    /// Adds the place around the places it has.
    pub(super) fn within(mut self, place: impl Into<String>) -> OnnxError {
        self.0.place.push(place.into());
        self
    }

    /// What sort of thing it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Where it happened, outermost first: `model.onnx → graph → initializer "w"`.
    pub fn place(&self) -> String {
        let parts: Vec<_> = self.0.place.iter().rev().map(String::as_str).collect();
        match parts.is_empty() {
            true => "model".into(),
            false => parts.join(" → "),
        }
    }

    /// The byte of the model file where it happened, if it happened in one.
    pub fn byte(&self) -> Option<usize> {
        self.0.byte
    }
}

impl fmt::Display for OnnxError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.0.what)?;
        match self.0.byte {
            Some(byte) => write!(f, " (at byte {byte})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for OnnxError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for OnnxError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let cause = self.0.cause.as_ref()?;
        Some(cause)
    }
}
