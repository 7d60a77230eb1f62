//! Writing models to files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::write::Writer;
use super::{ErrorKind, OnnxError};
use crate::ir::Model;

/// Writes `model` to the file `path`.
pub fn save(model: &Model, path: &Path, overwrite: bool) -> Result<(), OnnxError> {
    let place = |e: OnnxError| e.within(path.display().to_string());
    if !overwrite && path.exists() {
        return Err(place(OnnxError::new(ErrorKind::Exists, "there is such a file")));
    }
    let rope = Writer::default().model(model);
    let temp = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(&temp)?);
        rope.write_to(&mut out)?;
        out.flush()?;
        fs::rename(&temp, path)
    };
    write().map_err(|e| place(OnnxError::io("cannot write", e)))
}
