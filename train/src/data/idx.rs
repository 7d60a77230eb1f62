//! IDX files, the format of MNIST (LeCun and others 1998).

use std::path::{Path, PathBuf};

use secateur_engine::Tensor;
use secateur_engine::ir::{Bytes, DType, Data, count};

use super::array::{self, Pair};
use super::error::Wrong;
use super::options::Options;
use super::store::{Parts, Store};
use super::{DataError, file};

/// The element type of each code in the third byte.
const TYPES: &[(u8, DType)] = &[
    (8, DType::U8),
    (9, DType::I8),
    (11, DType::I16),
    (12, DType::I32),
    (13, DType::F32),
    (14, DType::F64),
];

/// The array in a file whose content is `bytes`.
fn parse(bytes: &Bytes) -> Result<Tensor, DataError> {
    let &[0, 0, code, rank, ..] = &**bytes else {
        return Err(DataError::format(
            "expected an IDX file, which begins with two zeros, a type and a number of axes",
        ));
    };
    let known = TYPES.iter().find(|(c, _)| *c == code);
    let &(_, dtype) = known.or_wrong(|| format!("expected a type of elements from 8 to 14, found {code}"))?;
    let start = 4 + 4 * usize::from(rank);
    let sizes = bytes
        .get(4..start)
        .or_wrong(|| format!("ends in the sizes of its {rank} axes"))?;
    let size = |b: &[u8]| b.iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
    let dims: Vec<usize> = sizes.chunks_exact(4).map(size).collect();
    let expected = count(&dims).and_then(|n| dtype.bytes(n));
    let expected = expected.or_wrong(|| format!("the shape {dims:?} is too large"))?;
    let found = bytes.len() - start;
    let wrong = || format!("expected {expected} bytes of elements for the shape {dims:?}, found {found}");
    let end = (expected == found).then_some(start + expected).or_wrong(wrong)?;
    let mut data = bytes.slice(start..end).or_wrong(wrong)?;
    let width = dtype.bits() / 8;
    if width > 1 {
        let mut turned = data.to_vec();
        turned.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        data = Bytes::new(turned);
    }
    let tensor = Tensor::new(dtype, dims, Data::Bytes(data)).map_err(|e| DataError::format(e.to_string()))?;
    Ok(tensor.aligned())
}

/// The folder in which the files are.
fn home(path: &Path) -> &Path {
    if path.is_dir() {
        path
    } else {
        path.parent().unwrap_or(path)
    }
}

/// The file of `part` (`train`, `t10k`) with `what` (`images`, `labels`) of `axes` axes.
fn find(folder: &Path, part: &str, what: &str, axes: usize) -> Option<PathBuf> {
    let name = |sep: &str, end: &str| folder.join(format!("{part}-{what}{sep}idx{axes}-ubyte{end}"));
    let names = ["-", "."]
        .into_iter()
        .flat_map(|sep| ["", ".gz"].map(|end| name(sep, end)));
    names.into_iter().find(|p| p.is_file())
}

/// Whether `path` is a folder of such files, or one of them.
pub(super) fn takes(path: &Path) -> bool {
    let named = path
        .file_name()
        .is_some_and(|n| n.to_string_lossy().contains("idx"));
    (path.is_dir() || named) && find(home(path), "train", "images", 3).is_some()
}

/// The training images, and those for testing where they are there.
pub(super) fn read(path: &Path, options: &Options) -> Result<Parts, DataError> {
    let folder = home(path);
    let part = |name| part(folder, name, options);
    let none = || DataError::missing("no images for training").in_file(folder);
    let parts = Parts {
        train: part("train")?.ok_or_else(none)?,
        validation: None,
        test: part("t10k")?,
    };
    Ok(parts.named())
}

fn part(folder: &Path, name: &str, options: &Options) -> Result<Option<Store>, DataError> {
    let Some(images) = find(folder, name, "images", 3) else {
        return Ok(None);
    };
    let none = || DataError::missing(format!("no file {name}-labels-idx1-ubyte beside it")).in_file(&images);
    let labels = find(folder, name, "labels", 1).ok_or_else(none)?;
    let read = |path: &Path| parse(&file::content(path)?).map_err(|e| e.in_file(path));
    let pair = Pair {
        x: read(&images)?,
        y: read(&labels)?,
    };
    let place = labels.file_name().map(|n| n.to_string_lossy().into_owned());
    array::store(pair, &images, &place.unwrap_or_default(), options).map(Some)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::file::tests::{Folder, gzip};
    use crate::data::open;

    fn idx(code: u8, dims: &[u32], data: &[u8]) -> Vec<u8> {
        let head = [0, 0, code, dims.len() as u8];
        let sizes: Vec<u8> = dims.iter().flat_map(|d| d.to_be_bytes()).collect();
        [&head, &sizes[..], data].concat()
    }

    fn mnist(images: u32) -> Folder {
        let folder = Folder::new();
        let pixels: Vec<u8> = (0..images * 6).map(|i| i as u8).collect();
        let labels: Vec<u8> = (0..images).map(|i| (i % 3) as u8).collect();
        folder.file(
            "train-images-idx3-ubyte.gz",
            gzip(&idx(8, &[images, 2, 3], &pixels)),
        );
        folder.file("train-labels-idx1-ubyte", idx(8, &[images], &labels));
        folder.file("t10k-images.idx3-ubyte", idx(8, &[1, 2, 3], &[255; 6]));
        folder.file("t10k-labels.idx1-ubyte", idx(8, &[1], &[4]));
        folder
    }

    #[test]
    fn folders_of_idx_files_are_read() {
        let folder = mnist(20);
        let options = Options {
            validation: "5".parse().unwrap(),
            ..Options::default()
        };
        let splits = open(folder.path(), &options).unwrap();
        let sizes = [
            Some(&splits.train),
            splits.validation.as_ref(),
            splits.test.as_ref(),
        ]
        .map(|d| d.unwrap().len());
        assert_eq!(sizes, [15, 5, 1]);
        assert_eq!(splits.train.inputs()[0].dims, [1, 2, 3]);
        assert_eq!(splits.train.classes(), Some(5));
        let batch = splits.test.unwrap().batch(&[0]).unwrap();
        assert_eq!(batch.inputs[0].1, Tensor::of(&[1, 1, 2, 3], vec![1f32; 6]));
        assert_eq!(batch.labels, Tensor::of(&[1], vec![4i64]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let whole = idx(13, &[2], &[63, 128, 0, 0, 64, 0, 0, 0]);
        let read = |b: &[u8]| parse(&Bytes::new(b.to_vec()));
        assert_eq!(read(&whole).unwrap().floats().unwrap(), [1.0, 2.0]);
        for n in 0..whole.len() {
            assert!(read(&whole[..n]).is_err(), "{n}");
        }
        let huge = read(&idx(14, &[u32::MAX; 3], &[])).unwrap_err().to_string();
        assert!(huge.contains("too large"), "{huge}");
        let folder = mnist(20);
        let path = folder.file("train-labels-idx1-ubyte", &idx(8, &[20], &[0; 20])[..20]);
        let e = open(folder.path(), &Options::default()).unwrap_err().to_string();
        let said = "expected 20 bytes of elements for the shape [20], found 12";
        assert_eq!(e, format!("{}: {said}", path.display()));
        std::fs::remove_file(path).unwrap();
        assert!(open(folder.path(), &Options::default()).is_err());
    }
}
