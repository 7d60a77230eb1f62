//! Archives of arrays as NumPy writes them: `.npz`, a ZIP file of `.npy` files.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use secateur_engine::Tensor;
use secateur_engine::run::nearest;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::array::{self, Pair};
use super::options::{Options, Task};
use super::store::{Parts, Store};
use super::{DataError, file, npy};

impl From<ZipError> for DataError {
    fn from(e: ZipError) -> DataError {
        match e {
            ZipError::Io(e) => e.into(),
            e => DataError::format(e.to_string()),
        }
    }
}

/// An archive that is open for reading.
struct Archive {
    zip: ZipArchive<File>,
    keys: Vec<String>,
}

impl Archive {
    fn open(path: &Path) -> Result<Archive, DataError> {
        let zip = ZipArchive::new(File::open(path)?)?;
        let names = zip.file_names().collect::<Result<Vec<_>, _>>()?;
        let bare = |n: &std::borrow::Cow<str>| n.strip_suffix(".npy").unwrap_or(n).to_owned();
        let keys = names.iter().map(bare).collect();
        Ok(Archive { zip, keys })
    }

    /// The array `key`, if there is one.
    fn get(&mut self, key: &str) -> Result<Option<Tensor>, DataError> {
        let Some(at) = self.keys.iter().position(|k| k == key) else {
            return Ok(None);
        };
        let place = |e: DataError| e.at(format!("array {key:?}"));
        let mut bytes = vec![];
        let limit = file::limit();
        let packed = self.zip.by_index(at)?;
        packed
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| place(e.into()))?;
        if bytes.len() as u64 > limit {
            return Err(place(DataError::format(format!("takes more than {limit} bytes"))));
        }
        npy::read(&bytes).map(Some).map_err(place)
    }

    fn need(&mut self, key: &str) -> Result<Tensor, DataError> {
        let near = nearest(key, &self.keys);
        let none = DataError::missing(format!("no array {key:?}{near}; it has {:?}", self.keys));
        self.get(key)?.ok_or(none)
    }
}

impl Archive {
    /// The array `key`; zeros, one for each of `x`, where it is missing and there need be no labels.
    fn labels(&mut self, key: &str, x: &Tensor, options: &Options) -> Result<Tensor, DataError> {
        let n = x.dims().first().copied().unwrap_or(0);
        let missing = !self.keys.iter().any(|k| k == key);
        match options.task == Task::Unlabelled && missing {
            true => Ok(Tensor::of(&[n], vec![0f32; n])),
            false => self.need(key),
        }
    }
}

/// The array `key` of the archive `path`; without a key the only one.
///
/// # Errors
///
/// If the archive cannot be read or has no such array.
pub fn read(path: &Path, key: Option<&str>) -> Result<Tensor, DataError> {
    let mut archive = Archive::open(path)?;
    let key = match (key, &archive.keys[..]) {
        (Some(key), _) => key.to_owned(),
        (None, [only]) => only.clone(),
        (None, keys) => {
            let what = format!("say which of its arrays with :KEY; it has {keys:?}");
            return Err(DataError::missing(what));
        }
    };
    archive.need(&key)
}

/// Writes an archive of `arrays`, not compressed.
///
/// # Errors
///
/// If the system refuses, or an array is of a type that NumPy lacks.
pub fn write<'a>(
    out: impl Write + Seek,
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<(), DataError> {
    let mut archive = ZipWriter::new(out);
    for (name, tensor) in arrays {
        let bytes = npy::write(tensor).map_err(|e| e.at(format!("array {name:?}")))?;
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

/// Whether `path` is an archive of arrays.
pub(super) fn takes(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz"))
}

/// `x` and `y`, or `x_train` and `y_train`; also `_validation` (`_val`) and `_test`, where they are there.
pub(super) fn examples(path: &Path, options: &Options) -> Result<Parts, DataError> {
    let wrong = |e: DataError| e.in_file(path);
    let mut archive = Archive::open(path).map_err(wrong)?;
    let mut part = |end: &str| part(&mut archive, path, end, options).map_err(wrong);
    let train = part("_train")?;
    let (validation, test) = (part("_validation")?.or(part("_val")?), part("_test")?);
    let parts = Parts {
        train: match train {
            Some(train) => train,
            None => {
                let x = archive.need("x").map_err(wrong)?;
                let y = archive.labels("y", &x, options).map_err(wrong)?;
                array::store(Pair { x, y }, path, "array \"y\"", options)?
            }
        },
        validation,
        test,
    };
    Ok(parts.named())
}

fn part(
    archive: &mut Archive,
    path: &Path,
    end: &str,
    options: &Options,
) -> Result<Option<Store>, DataError> {
    let Some(x) = archive.get(&format!("x{end}"))? else {
        return Ok(None);
    };
    let y = archive.labels(&format!("y{end}"), &x, options)?;
    let place = format!("array \"y{end}\"");
    array::store(Pair { x, y }, path, &place, options).map(Some)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::data::file::tests::Folder;
    use crate::data::{Part, open};

    fn archive(arrays: &[(&str, &Tensor)]) -> Vec<u8> {
        let mut out = Cursor::new(vec![]);
        write(&mut out, arrays.iter().copied()).unwrap();
        out.into_inner()
    }

    fn arrays(n: usize) -> (Tensor, Tensor) {
        let x = Tensor::of(&[n, 2], (0..2 * n).map(|i| i as f32).collect());
        (x, Tensor::of(&[n], (0..n).map(|i| (i % 3) as i32).collect()))
    }

    fn all() -> Options {
        Options {
            validation: Part::Count(0),
            ..Options::default()
        }
    }

    #[test]
    fn without_labels_there_are_zeros() {
        let folder = Folder::new();
        let (x, y) = arrays(5);
        let path = folder.file("x.npz", archive(&[("x", &x)]));
        let of = |task| open(path.to_str().unwrap(), &Options { task, ..all() });
        let train = of(Task::Unlabelled).unwrap().train;
        assert_eq!(train.classes(), None);
        let batch = train.batch(&[0, 1]).unwrap();
        assert_eq!(batch.labels, Tensor::of(&[2, 1], vec![0f32; 2]));
        assert!(
            of(Task::Values)
                .unwrap_err()
                .to_string()
                .contains("no array \"y\"")
        );
        // Where there are labels they do not matter, whatever they are.
        let path = folder.file("xy.npz", archive(&[("x", &x), ("y", &y)]));
        let task = Task::Unlabelled;
        let both = open(path.to_str().unwrap(), &Options { task, ..all() }).unwrap();
        assert_eq!(both.train.classes(), None);
        let digits = open("digits", &Options { task, ..all() }).unwrap();
        assert_eq!((digits.train.classes(), digits.train.len()), (None, 1437));
    }

    #[test]
    fn archives_have_x_and_y_or_a_split() {
        let folder = Folder::new();
        let ((x, y), (s, t)) = (arrays(20), arrays(4));
        let plain = folder.file("a.npz", archive(&[("x", &x), ("y", &y)]));
        let splits = open(plain.to_str().unwrap(), &all()).unwrap();
        assert_eq!((splits.train.len(), splits.test.unwrap().len()), (18, 2));
        assert_eq!(splits.train.classes(), Some(3));
        let of = [("x_train", &x), ("y_train", &y), ("x_test", &s), ("y_test", &t)];
        let parted = folder.file("b.npz", archive(&of));
        let splits = open(parted.to_str().unwrap(), &all()).unwrap();
        assert_eq!((splits.train.len(), splits.test.unwrap().len()), (20, 4));
        let values = Options {
            task: Task::Values,
            ..all()
        };
        let labels = open(plain.to_str().unwrap(), &values)
            .unwrap()
            .train
            .batch(&[0])
            .unwrap()
            .labels;
        assert_eq!(labels.dims(), [1, 1]);
    }

    #[test]
    fn no_byte_is_believed() {
        let folder = Folder::new();
        let (x, y) = arrays(20);
        let good = archive(&[("x", &x), ("y", &y)]);
        let read = |bytes: &[u8]| open(folder.file("a.npz", bytes).to_str().unwrap(), &all());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let _ = read(&bad);
            assert!(read(&good[..at]).is_err(), "{at}");
        }
        let e = read(&archive(&[("x", &x), ("z", &y)])).unwrap_err().to_string();
        assert!(e.contains("a.npz: no array \"y\""), "{e}");
    }
}
