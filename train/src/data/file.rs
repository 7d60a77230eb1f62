//! Files as bytes.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use secateur_engine::ir::Bytes;

use super::DataError;

/// Bytes that unpacked content may have: what the machine has free.
pub(super) fn limit() -> u64 {
    secateur_engine::plan::available().map_or(1 << 33, |free| free as u64 / 2)
}

/// The content of `path`: mapped, or unpacked where it is packed by gzip.
///
/// # Errors
///
/// If it cannot be read, or unpacked takes more than the machine has free.
pub(super) fn content(path: &Path) -> Result<Bytes, DataError> {
    let bytes = Bytes::map(path).map_err(|e| DataError::from(e).in_file(path))?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    unpacked(&bytes, limit())
        .map(Bytes::new)
        .map_err(|e| e.in_file(path))
}

fn unpacked(bytes: &[u8], limit: u64) -> Result<Vec<u8>, DataError> {
    let mut out = vec![];
    let read = MultiGzDecoder::new(bytes).take(limit + 1).read_to_end(&mut out);
    read.map_err(|e| DataError::format(format!("cannot be unpacked: {e}")))?;
    match out.len() as u64 > limit {
        true => Err(DataError::format(format!(
            "takes more than {limit} bytes unpacked"
        ))),
        false => Ok(out),
    }
}

/// The end of the name in lower case, without the dot and without `.gz` after it.
pub(super) fn extension(path: &Path) -> String {
    let lower = |e: Option<&OsStr>| e.map_or(String::new(), |e| e.to_string_lossy().to_lowercase());
    match lower(path.extension()) {
        end if end == "gz" => lower(path.file_stem().map(Path::new).and_then(Path::extension)),
        end => end,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A folder that goes when this does.
    pub(in crate::data) struct Folder(pub(in crate::data) PathBuf);

    impl Folder {
        pub(in crate::data) fn new() -> Folder {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("secateur-data-{}-{n}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        /// The path of a new file in it, in folders that are made.
        pub(in crate::data) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            path
        }

        pub(in crate::data) fn path(&self) -> &str {
            self.0.to_str().unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    pub(in crate::data) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn packed_files_are_unpacked_within_bounds() {
        let folder = Folder::new();
        let path = folder.file("x.csv.gz", gzip(b"1,2\n"));
        assert_eq!(&*content(&path).unwrap(), b"1,2\n");
        assert_eq!(extension(&path), "csv");
        assert!(unpacked(&gzip(&[0; 1000]), 999).is_err() && unpacked(&gzip(&[0; 999]), 999).is_ok());
        let broken = folder.file("y.gz", &gzip(&[1; 1000])[..15]);
        let e = content(&broken).unwrap_err().to_string();
        assert!(e.contains("y.gz: cannot be unpacked"), "{e}");
        assert!(content(&folder.0.join("none")).is_err());
    }
}
