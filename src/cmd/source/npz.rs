//! Archives of arrays as NumPy writes them: `.npz`, a ZIP file of `.npy` files.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use secateur::Tensor;
use secateur::engine::run::nearest;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::npy;

/// The array `key` of the archive `path`; without a key the only one.
///
/// # Errors
///
/// If the archive cannot be read or has no such array.
pub(crate) fn read(path: &Path, key: Option<&str>) -> Result<Tensor> {
    let mut archive = ZipArchive::new(File::open(path)?)?;
    let names = archive.file_names().collect::<Result<Vec<_>, _>>()?;
    let bare = |n: &std::borrow::Cow<str>| n.strip_suffix(".npy").unwrap_or(n).to_owned();
    let keys: Vec<String> = names.iter().map(bare).collect();
    let key = match (key, &keys[..]) {
        (Some(key), _) => key,
        (None, [only]) => only,
        (None, _) => bail!("say which of its arrays with :KEY; it has {keys:?}"),
    };
    let Some(at) = keys.iter().position(|k| k == key) else {
        bail!("no array {key:?}{}; it has {keys:?}", nearest(key, &keys));
    };
    let mut bytes = vec![];
    archive.by_index(at)?.read_to_end(&mut bytes)?;
    npy::read(&bytes).with_context(|| format!("array {key:?}"))
}

/// Writes an archive of `arrays`, not compressed.
///
/// # Errors
///
/// If the system refuses, or an array is of a type that NumPy lacks.
pub(crate) fn write<'a>(
    out: impl Write + Seek,
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    let mut archive = ZipWriter::new(out);
    for (name, tensor) in arrays {
        let bytes = npy::write(tensor).with_context(|| format!("array {name:?}"))?;
        let large = bytes.len() as u64 >= u64::from(u32::MAX);
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(large);
        archive.start_file(format!("{name}.npy"), options)?;
        archive.write_all(&bytes)?;
    }
    archive.finish()?;
    Ok(())
}
