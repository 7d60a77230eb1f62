//! Folders of images, one subfolder a class, or without classes.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use secateur_engine::ir::{Bytes, count};

use super::DataError;
use super::options::{Options, Task};
use super::photo::{MAX_SIDE, Photo};
use super::store::{Cells, Column, Labels, Parts, Store};

/// What white is.
pub(super) const UNIT: f32 = 255.0;

/// The names of files that are taken.
const TAKEN: &[&str] = &["bmp", "jpeg", "jpg", "pgm", "png", "ppm", "tif", "tiff", "webp"];
/// Those of images that cannot be read; other files are passed over.
const REFUSED: &[&str] = &["avif", "gif", "heic"];

/// Whether `path` is a folder with folders or images in it.
pub(super) fn takes(path: &Path) -> bool {
    path.is_dir() && inside(path).is_ok_and(|all| all.iter().any(|p| p.is_dir() || is_image(p)))
}

/// What is in a folder and not hidden, sorted.
fn inside(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let wrong = |e: std::io::Error| DataError::from(e).in_file(folder);
    let mut all = vec![];
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            all.push(entry.path());
        }
    }
    all.sort();
    Ok(all)
}

fn name(path: &Path) -> String {
    path.file_name()
        .map_or(String::new(), |n| n.to_string_lossy().into_owned())
}

/// The images in a folder with their classes; those without have no labels.
struct Images {
    folder: PathBuf,
    files: Vec<PathBuf>,
    labels: Vec<i64>,
}

impl Images {
    /// Those in the subfolders of `folder`, which are named as `known` says, where it is said.
    fn find(folder: &Path, known: Option<&[String]>) -> Result<(Images, Vec<String>), DataError> {
        let folders = folders(folder)?;
        if folders.is_empty() {
            let what = "expected one folder a class, found images; with --task none they need no labels";
            return Err(DataError::label(what).in_file(folder));
        }
        let names = match known {
            Some(names) => names.to_vec(),
            None => folders.iter().map(|p| name(p)).collect(),
        };
        let mut found = Images {
            folder: folder.to_owned(),
            files: vec![],
            labels: vec![],
        };
        for folder in &folders {
            let class = names.iter().position(|n| *n == name(folder));
            let unknown =
                || DataError::label(format!("expected a folder for one of {names:?}")).in_file(folder);
            let files = images(folder)?;
            let class = class.ok_or_else(unknown)?;
            found.labels.extend(files.iter().map(|_| class as i64));
            found.files.extend(files);
        }
        match found.files.is_empty() {
            true => Err(DataError::missing("no folders with images").in_file(folder)),
            false => Ok((found, names)),
        }
    }

    /// Those in `folder` and its subfolders, whatever these are called.
    fn all(folder: &Path) -> Result<Images, DataError> {
        let mut files = files(folder)?;
        for folder in folders(folder)? {
            files.extend(self::files(&folder)?);
        }
        let found = Images {
            folder: folder.to_owned(),
            files,
            labels: vec![],
        };
        match found.files.is_empty() {
            true => Err(DataError::missing("no images").in_file(folder)),
            false => Ok(found),
        }
    }

    fn labels(&mut self) -> Labels {
        match self.labels.is_empty() {
            true => Labels::Values(vec![0.0; self.files.len()], 1),
            false => Labels::Classes(std::mem::take(&mut self.labels)),
        }
    }

    fn store(mut self, names: &[String], dims: [usize; 3], options: &Options) -> Result<Store, DataError> {
        let labels = self.labels();
        let size = count(&[self.files.len(), dims[0], dims[1], dims[2]]);
        let cells = match size.filter(|&s| s <= options.memory) {
            Some(_) => Cells::Pixels {
                bytes: Bytes::new(all(&self.files, dims, options.threads)?),
                unit: UNIT,
            },
            None => Cells::Photos(self.files),
        };
        Ok(Store {
            source: self.folder.display().to_string(),
            columns: vec![Column {
                name: "image".into(),
                dims: dims.to_vec(),
                cells,
            }],
            labels,
            names: names.into(),
            vocabulary: vec![].into(),
        })
    }
}

/// How the file's name ends, in lower case.
fn end(path: &Path) -> String {
    path.extension()
        .map_or(String::new(), |e| e.to_string_lossy().to_lowercase())
}

fn is_image(path: &Path) -> bool {
    TAKEN.contains(&end(path).as_str()) && path.is_file()
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    Ok(inside(folder)?.into_iter().filter(|p| p.is_dir()).collect())
}

/// The images in a folder, not in those inside it.
fn files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let all = inside(folder)?;
    if let Some(path) = all.iter().find(|p| REFUSED.contains(&end(p).as_str())) {
        return Err(DataError::format(format!("expected an image, one of {TAKEN:?}")).in_file(path));
    }
    Ok(all.into_iter().filter(|p| is_image(p)).collect())
}

/// The images in the folder of a class.
fn images(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let files = files(folder)?;
    match files.is_empty() {
        true => Err(DataError::missing("no images of this class").in_file(folder)),
        false => Ok(files),
    }
}

/// All images of `files`, one after the other, decoded by so many threads.
fn all(files: &[PathBuf], dims: [usize; 3], threads: usize) -> Result<Vec<u8>, DataError> {
    let width = dims.iter().product::<usize>();
    let mut pixels = vec![0; files.len() * width];
    let share = files.len().div_ceil(threads.max(1)).max(1);
    let some = |(files, out): (&[PathBuf], &mut [u8])| -> Result<(), DataError> {
        for (file, out) in files.iter().zip(out.chunks_exact_mut(width)) {
            decode(file, dims, out)?;
        }
        Ok(())
    };
    thread::scope(|s| {
        let parts = files.chunks(share).zip(pixels.chunks_mut(share * width));
        let running: Vec<_> = parts.map(|part| s.spawn(move || some(part))).collect();
        let ended = || DataError::missing("a thread that decodes images ended");
        running
            .into_iter()
            .try_for_each(|r| r.join().map_err(|_| ended())?)
    })?;
    Ok(pixels)
}

fn decode(file: &Path, [channels, height, width]: [usize; 3], out: &mut [u8]) -> Result<(), DataError> {
    let photo = Photo::read(file)?;
    for (c, plane) in out.chunks_exact_mut(height * width).enumerate() {
        let pixels = photo.plane(c, channels, [height, width]);
        plane
            .iter_mut()
            .zip(pixels)
            .for_each(|(o, p)| *o = p.round() as u8);
    }
    Ok(())
}

/// The image in `file` as bytes of the shape `dims`, `[channels, height, width]`.
pub(super) fn decoded(file: &Path, dims: &[usize]) -> Result<Vec<u8>, DataError> {
    let &[c, h, w] = dims else {
        return Err(
            DataError::shape(format!("expected three axes for an image, found {dims:?}")).in_file(file),
        );
    };
    let mut out = vec![0; c * h * w];
    decode(file, [c, h, w], &mut out)?;
    Ok(out)
}

/// The size that is asked for, or else that of the first image.
fn size(first: &Path, options: &Options) -> Result<[usize; 3], DataError> {
    let dims = match options.image {
        Some(dims) => dims,
        None => {
            let photo = Photo::read(first)?;
            [if photo.is_grey() { 1 } else { 3 }, photo.height(), photo.width()]
        }
    };
    let fits = matches!(dims[0], 1 | 3 | 4) && dims[1..].iter().all(|d| (1..=MAX_SIDE).contains(d));
    let wrong = || {
        DataError::choice(format!(
            "expected [channels, height, width] for images, found {dims:?}"
        ))
    };
    fits.then_some(dims).ok_or_else(wrong)
}

/// The images in `path/CLASS`, or in `path/train/CLASS`, `path/validation/CLASS` and `path/test/CLASS`; without labels those beside the
/// subfolders too.
pub(super) fn read(path: &Path, options: &Options) -> Result<Parts, DataError> {
    let classes = match options.task {
        Task::Values => {
            let what = "the labels of folders are classes, not numbers";
            return Err(DataError::choice(what));
        }
        task => task == Task::Classes,
    };
    let find = |folder: &Path, known: Option<&[String]>| match classes {
        true => Images::find(folder, known),
        false => Ok((Images::all(folder)?, vec![])),
    };
    let part = |names: &[&str]| names.iter().map(|n| path.join(n)).find(|p| p.is_dir());
    let filled = |p: &PathBuf| !classes || folders(p).is_ok_and(|all| !all.is_empty());
    let parted = part(&["train"]).filter(filled);
    let (train, names) = find(parted.as_deref().unwrap_or(path), None)?;
    let dims = size(&train.files[0], options)?;
    let other = |folders: &[&str]| match part(folders).filter(|_| parted.is_some()) {
        Some(folder) => find(&folder, Some(&names))?
            .0
            .store(&names, dims, options)
            .map(Some),
        None => Ok(None),
    };
    Ok(Parts {
        validation: other(&["validation", "valid", "val"])?,
        test: other(&["test"])?,
        train: train.store(&names, dims, options)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::file::tests::Folder;
    use crate::data::{Part, open};

    fn png(value: u8) -> Vec<u8> {
        let mut out = std::io::Cursor::new(vec![]);
        let image = image::RgbImage::from_pixel(4, 2, image::Rgb([value; 3]));
        image.write_to(&mut out, image::ImageFormat::Png).unwrap();
        out.into_inner()
    }

    fn folder() -> Folder {
        let folder = Folder::new();
        for (i, class) in ["dog", "cat", "eel"].iter().enumerate() {
            for j in 0..4 {
                folder.file(&format!("train/{class}/{j}.png"), png((10 * i + j) as u8));
            }
            folder.file(&format!("test/{class}/0.PNG"), png(255));
        }
        folder.file("train/cat/notes.txt", "");
        folder.file("train/.hidden/x.png", "");
        folder
    }

    #[test]
    fn subfolders_are_classes() {
        let folder = folder();
        let options = Options {
            validation: Part::Count(0),
            ..Options::default()
        };
        let splits = open(folder.path(), &options).unwrap();
        assert_eq!(splits.train.names(), ["cat", "dog", "eel"]);
        assert_eq!(
            (splits.train.len(), splits.train.inputs()[0].dims.clone()),
            (12, vec![3, 2, 4])
        );
        let batch = splits.train.batch(&[3, 4]).unwrap();
        assert_eq!(batch.labels.ints().unwrap(), [0, 1]);
        let pixels = batch.inputs[0].1.floats().unwrap();
        assert_eq!((pixels[0], pixels[24]), (f64::from(13f32 / 255.0), 0.0));
        assert_eq!(
            splits.test.unwrap().batch(&[0]).unwrap().inputs[0]
                .1
                .floats()
                .unwrap(),
            [1.0; 24]
        );
    }

    #[test]
    fn images_without_labels_need_no_classes() {
        let folder = Folder::new();
        for i in 0..5 {
            folder.file(&format!("{i}.png"), png(i));
        }
        folder.file("more/5.png", png(5));
        let free = Options {
            task: Task::Unlabelled,
            validation: Part::Count(0),
            test: Some(Part::Count(1)),
            ..Options::default()
        };
        let splits = open(folder.path(), &free).unwrap();
        assert_eq!((splits.train.len(), splits.test.unwrap().len()), (5, 1));
        assert_eq!(splits.train.classes(), None);
        let labels = splits.train.batch(&[0, 1]).unwrap().labels;
        assert_eq!(labels, secateur_engine::Tensor::of(&[2, 1], vec![0f32; 2]));
        fs::remove_dir_all(folder.0.join("more")).unwrap();
        let error = open(folder.path(), &Options::default()).unwrap_err().to_string();
        assert!(error.contains("with --task none they need no labels"), "{error}");
        let classes = self::folder();
        let free = Options { test: None, ..free };
        let splits = open(classes.path(), &free).unwrap();
        assert_eq!((splits.train.len(), splits.test.unwrap().len()), (12, 3));
    }

    #[test]
    fn what_does_not_fit_into_memory_is_decoded_again() {
        let folder = folder();
        let small = Options {
            image: Some([1, 4, 4]),
            memory: 0,
            ..Options::default()
        };
        let (a, b) = (
            open(folder.path(), &small).unwrap().train,
            open(
                folder.path(),
                &Options {
                    memory: 1 << 20,
                    threads: 3,
                    ..small
                },
            )
            .unwrap()
            .train,
        );
        let which: Vec<usize> = (0..a.len()).collect();
        assert_eq!(a.batch(&which).unwrap(), b.batch(&which).unwrap());
        assert_eq!(a.inputs()[0].dims, [1, 4, 4]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let folder = folder();
        let said = || open(folder.path(), &Options::default()).unwrap_err().to_string();
        let bad = folder.file("test/eel/1.jpg", "no image");
        assert!(said().contains("test/eel/1.jpg: "), "{}", said());
        fs::remove_file(bad).unwrap();
        folder.file("test/newt/1.png", png(1));
        assert!(
            said().contains("test/newt: expected a folder for one of [\"cat\", \"dog\", \"eel\"]"),
            "{}",
            said()
        );
        folder.file("train/eel/1.gif", "");
        assert!(
            said().contains("train/eel/1.gif: expected an image"),
            "{}",
            said()
        );
        fs::create_dir(folder.0.join("train/ant")).unwrap();
        assert!(
            said().contains("train/ant: no images of this class"),
            "{}",
            said()
        );
    }
}
