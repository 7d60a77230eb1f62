//! Where examples come from. To add a source: a file here and a row in [`SOURCES`].

use std::path::Path;

use super::options::Options;
use super::split::{self, Splits};
use super::store::Parts;
use super::{DataError, digits};

/// One kind of source.
pub struct Source {
    /// Its name.
    pub name: &'static str,
    /// What it is, in words.
    pub about: &'static str,
    takes: fn(&Path) -> bool,
    read: fn(&Path, &Options) -> Result<Parts, DataError>,
}

/// All kinds of sources, in the order in which they are asked whether a path is theirs.
pub static SOURCES: &[Source] = &[Source {
    name: "digits",
    about: "1,797 images of handwritten digits, 8×8, embedded",
    takes: digits::takes,
    read: digits::read,
}];

/// The examples of `source`, `digits` or the path of a file or folder, in splits.
///
/// # Errors
///
/// If there is no such source, it is not what its format says, or `options` do not fit it.
pub fn open(source: &str, options: &Options) -> Result<Splits, DataError> {
    let path = Path::new(source);
    let Some(found) = SOURCES.iter().find(|s| (s.takes)(path)) else {
        let what = if path.exists() {
            "is none of"
        } else {
            "is neither there nor one of"
        };
        let known: Vec<&str> = SOURCES.iter().map(|s| s.about).collect();
        return Err(DataError::missing(format!("{what}: {}", known.join("; "))).of(source));
    };
    let parts = (found.read)(path, options).map_err(|e| e.of(source))?;
    split::splits(parts, options).map_err(|e| e.of(source))
}
