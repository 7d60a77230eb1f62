//! What can go wrong with data.

use std::fmt;
use std::io;
use std::path::Path;

/// Why data cannot be read or does not fit: the file, the place in it, what was expected and what was found.
#[derive(Clone, Debug, PartialEq)]
pub struct DataError {
    kind: DataErrorKind,
    file: String,
    place: String,
    what: String,
}

/// What kind of [`DataError`] it is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum DataErrorKind {
    /// There is no such data set, or nothing in it.
    Missing,
    /// The system refuses to read it.
    Io,
    /// The content is not what its format says.
    Format,
    /// A label that is none.
    Label,
    /// Examples of another shape or type than asked for.
    Shape,
    /// An option that does not fit the data.
    Choice,
}

impl DataError {
    pub(crate) fn new(kind: DataErrorKind, what: impl Into<String>) -> DataError {
        DataError {
            kind,
            file: String::new(),
            place: String::new(),
            what: what.into(),
        }
    }

    pub(crate) fn missing(what: impl Into<String>) -> DataError {
        DataError::new(DataErrorKind::Missing, what)
    }

    pub(crate) fn format(what: impl Into<String>) -> DataError {
        DataError::new(DataErrorKind::Format, what)
    }

    pub(crate) fn label(what: impl Into<String>) -> DataError {
        DataError::new(DataErrorKind::Label, what)
    }

    pub(crate) fn shape(what: impl Into<String>) -> DataError {
        DataError::new(DataErrorKind::Shape, what)
    }

    pub(crate) fn choice(what: impl Into<String>) -> DataError {
        DataError::new(DataErrorKind::Choice, what)
    }

    /// The same in the file or data set `name`, unless one is named already.
    #[must_use]
    pub(crate) fn of(mut self, name: &str) -> DataError {
        if self.file.is_empty() {
            self.file = name.to_owned();
        }
        self
    }

    /// The same in the file `path`, unless one is named already.
    #[must_use]
    pub(crate) fn in_file(self, path: &Path) -> DataError {
        self.of(&path.display().to_string())
    }

    /// The same at `place` of the file, unless one is named already.
    #[must_use]
    pub(crate) fn at(mut self, place: impl Into<String>) -> DataError {
        if self.place.is_empty() {
            self.place = place.into();
        }
        self
    }

    /// What kind of error it is.
    pub fn kind(&self) -> DataErrorKind {
        self.kind
    }
}

impl From<io::Error> for DataError {
    fn from(e: io::Error) -> DataError {
        DataError::new(DataErrorKind::Io, e.to_string())
    }
}

/// What is there, or else an error of the format.
pub(super) trait Wrong<T> {
    fn or_wrong<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, DataError>;
}

impl<T> Wrong<T> for Option<T> {
    fn or_wrong<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, DataError> {
        self.ok_or_else(|| DataError::format(what()))
    }
}

impl<T, E> Wrong<T> for Result<T, E> {
    fn or_wrong<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, DataError> {
        self.ok().or_wrong(what)
    }
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let parts = [&self.file, &self.place, &self.what];
        let said: Vec<&str> = parts
            .into_iter()
            .map(String::as_str)
            .filter(|p| !p.is_empty())
            .collect();
        f.write_str(&said.join(": "))
    }
}

impl std::error::Error for DataError {}
