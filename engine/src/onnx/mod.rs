//! ONNX files, read and written without loss.
//!
//! For every file that can be read, writing what was read gives an equal message, fields that nobody knows included;
//! where the file was written canonically (fields ascending by number, as protobuf's libraries do), it gives the same
//! bytes. Weights are mapped, not copied: a tensor read from `raw_data` is a part of the mapped file.
//!
//! ```no_run
//! # fn main() -> Result<(), secateur_engine::onnx::OnnxError> {
//! use std::path::Path;
//! let model = secateur_engine::onnx::load(Path::new("model.onnx"))?;
//! secateur_engine::onnx::save(&model, Path::new("copy.onnx"), false)?;
//! # Ok(())
//! # }
//! ```
#![deny(clippy::as_conversions)]

mod attr;
mod error;
mod external;
mod layout;
mod meta;
mod packed;
mod read;
mod rope;
mod save;
mod sparse;
mod tensor;
mod types;
mod value;
mod wire;
mod write;

use std::path::Path;
use std::sync::Arc;

pub use error::{ErrorKind, OnnxError};
pub use meta::{metadata, producer, set_metadata, text};
pub use save::save;
pub use sparse::sparsify;
pub use value::parse_value;

use crate::ir::{Bytes, Model, Name, Tensor};

/// Reads the model in the file `path`, and the external files it refers to, which lie below the same folder.
///
/// All files are mapped, and must not be changed in place while the model or a tensor of it lives. Replacing them by
/// renaming, as [`save`] does, is safe.
///
/// # Errors
///
/// If a file cannot be mapped, or as [`parse`].
pub fn load(path: &Path) -> Result<Model, OnnxError> {
    let place = |e: OnnxError| e.within(path.display().to_string());
    let bytes = Bytes::map(path).map_err(|e| place(OnnxError::io("cannot map the file", e)))?;
    parse(bytes, Some(folder(path))).map_err(place)
}

/// The folder that the file `path` is in.
fn folder(path: &Path) -> &Path {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty());
    dir.unwrap_or(Path::new("."))
}

/// Reads a model from memory. External files are looked up below `dir`; without it they are refused.
///
/// # Errors
///
/// If the bytes are no model, or one that contradicts itself: tensors whose data does not have the size that type and
/// dimensions ask for, two initialisers of one name. If messages are nested more than 100 deep, or the sparse
/// initialisers would take more than 128 MiB and 256 bytes for each byte of the file when made dense.
pub fn parse(bytes: Bytes, dir: Option<&Path>) -> Result<Model, OnnxError> {
    if bytes.is_empty() {
        return Err(OnnxError::malformed("expected a model, found no bytes"));
    }
    let mut reader = read::Reader::new(external::Files::new(dir), bytes.len());
    read::model(&mut reader, wire::Message::new(&bytes))
}

/// Reads a `TensorProto` by itself, as ONNX's test data are kept: its name and elements.
///
/// # Errors
///
/// If the bytes are no tensor, or its data is not as long as its type and dimensions ask for.
pub fn parse_tensor(bytes: Bytes) -> Result<(Name, Arc<Tensor>), OnnxError> {
    let mut reader = read::Reader::new(external::Files::new(None), bytes.len());
    let (name, constant) = tensor::read(&mut reader, wire::Message::new(&bytes), true)?;
    Ok((name, constant.tensor))
}

/// The bytes of the file for `model`.
///
/// Tensors read from external files stay references to them. External ones whose elements have changed since are
/// written into the message; [`save`] writes files for them.
pub fn to_bytes(model: &Model) -> Vec<u8> {
    write::Writer::default().model(model).into_vec()
}

impl Model {
    /// Reads the model in the file `path`; see [`load`].
    ///
    /// # Errors
    ///
    /// As [`load`].
    pub fn load(path: impl AsRef<Path>) -> Result<Model, OnnxError> {
        load(path.as_ref())
    }

    /// Writes the model to the file `path`, which must not be there yet; see [`save`] for overwriting.
    ///
    /// # Errors
    ///
    /// As [`save`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), OnnxError> {
        save(self, path.as_ref(), false)
    }
}
