//! Where examples come from. To add a source: a file here and a row in [`SOURCES`].

use std::path::Path;

use secateur_engine::run::nearest;

use super::options::{Options, Task};
use super::split::{self, Splits};
use super::store::Parts;
use super::{DataError, digits, folder, idx, npz, table};

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
pub static SOURCES: &[Source] = &[
    Source {
        name: "digits",
        about: "digits, 1,797 embedded images of handwritten digits",
        takes: digits::takes,
        read: digits::read,
    },
    Source {
        name: "npz",
        about: "an .npz file with x and y",
        takes: npz::takes,
        read: npz::examples,
    },
    Source {
        name: "table",
        about: "a table of numbers or texts, .csv, .tsv or .tab",
        takes: table::takes,
        read: table::read,
    },
    Source {
        name: "idx",
        about: "a folder of IDX files with the names of MNIST's",
        takes: idx::takes,
        read: idx::read,
    },
    Source {
        name: "images",
        about: "a folder of images, with one subfolder a class where they have labels",
        takes: folder::takes,
        read: folder::read,
    },
];

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
        let near = nearest(source, &["digits".to_owned()]);
        return Err(DataError::missing(format!("{what}: {}{near}", known.join("; "))).of(source));
    };
    // Of other sources labels are there, and not looked at.
    let labelled = options.task == Task::Unlabelled && !matches!(found.name, "npz" | "images");
    let how = Options {
        task: if labelled { Task::Classes } else { options.task },
        ..options.clone()
    };
    let mut parts = (found.read)(path, &how).map_err(|e| e.of(source))?;
    if labelled {
        parts.forget();
    }
    split::splits(parts, options).map_err(|e| e.of(source))
}
