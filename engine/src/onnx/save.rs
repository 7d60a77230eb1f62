//! Writing models to files.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::layout::{Contents, Move, plan};
use super::rope::{Rope, wide};
use super::write::Writer;
use super::{ErrorKind, OnnxError, folder};
use crate::ir::Model;

/// Longer messages cannot be read by protobuf's libraries.
const MAX_LEN: u64 = (1 << 31) - 1;

/// Writes `model` to the file `path`, and its external tensors to files below the same folder.
///
/// Tensors stay in the external files that they were read from: in the same folder these are left alone, in another one
/// files of the same names and layout are written, holding what the model refers to. Tensors that have changed since go
/// to the same place where there is no such file yet, else to a new file, `<file name>.data` or, where tensors are
/// mapped from that, `<file name>.1.data` and so on. If the message would have more than 2 GiB − 1 bytes, initialisers of
/// at least 1 KiB move to that file, and if that is not enough, so do other tensors.
///
/// Everything is written under temporary names first and renamed when complete, the model last; replacing the file that
/// the model was read from is safe. If there is an error, files that were there are as they were, unless it
/// happened while renaming, and new ones are removed.
///
/// # Errors
///
/// If there is a file `path`, or one where an external file has to go, and `overwrite` is false; if the system refuses;
/// if the message is too long whatever moves.
pub fn save(model: &Model, path: &Path, overwrite: bool) -> Result<(), OnnxError> {
    write(model, path, overwrite, MAX_LEN).map_err(|e| e.within(path.display().to_string()))
}

fn write(model: &Model, path: &Path, overwrite: bool, max: u64) -> Result<(), OnnxError> {
    if !overwrite && path.exists() {
        let what = "there is such a file already";
        return Err(OnnxError::new(ErrorKind::Exists, what));
    }
    let (rope, files) = fit(model, path, overwrite, max)?;
    let mut staging = Staging::default();
    for (below, mut contents) in files {
        let place = |e: OnnxError| e.within(format!("external file {:?}", below.display()));
        staging.folders(folder(path), &below).map_err(place)?;
        contents.pieces.sort_by_key(|(at, _)| *at);
        staging
            .add(&folder(path).join(&below), |out| write_pieces(out, &contents))
            .map_err(place)?;
    }
    staging.add(path, |out| rope.write_to(out))?;
    staging.commit()
}

/// The message, at most `max` bytes long, and what goes beside it.
fn fit(
    model: &Model,
    path: &Path,
    overwrite: bool,
    max: u64,
) -> Result<(Rope, BTreeMap<PathBuf, Contents>), OnnxError> {
    let mut len = 0;
    for moved in [Move::Nothing, Move::Initializers, Move::Everything] {
        let layout = plan(model, path, overwrite, moved)?;
        let writer = Writer {
            places: layout.places,
        };
        let rope = writer.model(model);
        len = rope.len();
        if len <= max {
            return Ok((rope, layout.files));
        }
    }
    let what = format!("expected a message of at most {max} bytes, found {len} without the tensors");
    Err(OnnxError::new(ErrorKind::TooLarge, what))
}

fn write_pieces(out: &mut BufWriter<File>, contents: &Contents) -> io::Result<()> {
    let mut end = 0;
    for (at, bytes) in &contents.pieces {
        if *at != end {
            out.seek(SeekFrom::Start(*at))?;
        }
        out.write_all(bytes)?;
        end = at.saturating_add(wide(bytes.len()));
    }
    Ok(())
}

/// Files written under temporary names. Dropped before the end, it takes back what it can.
#[derive(Default)]
struct Staging {
    files: Vec<Staged>,
    /// Folders made for them, outer ones first.
    folders: Vec<PathBuf>,
}

struct Staged {
    temp: PathBuf,
    target: PathBuf,
    /// There was nothing of the target's name when it was renamed.
    new: Option<bool>,
}

impl Staging {
    /// Makes the folders on the way from `dir` to `below`, which must not lead out of it.
    fn folders(&mut self, dir: &Path, below: &Path) -> Result<(), OnnxError> {
        let refused = |e| OnnxError::io("cannot make the folder", e);
        let mut at = dir.to_owned();
        for part in below.parent().into_iter().flat_map(Path::components) {
            at.push(part);
            if !at.exists() {
                fs::create_dir(&at).map_err(refused)?;
                self.folders.push(at.clone());
            }
        }
        let (root, at) = (
            dir.canonicalize().map_err(refused)?,
            at.canonicalize().map_err(refused)?,
        );
        match at.starts_with(root) {
            true => Ok(()),
            false => Err(OnnxError::external("leads out of the model's folder")),
        }
    }

    fn add(
        &mut self,
        target: &Path,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), OnnxError> {
        let refused = |e| OnnxError::io("cannot write", e);
        let (file, temp) = temporary(folder(target)).map_err(refused)?;
        self.files.push(Staged {
            temp,
            target: target.to_owned(),
            new: None,
        });
        let mut out = BufWriter::new(file);
        write(&mut out).and_then(|()| out.flush()).map_err(refused)
    }

    fn commit(mut self) -> Result<(), OnnxError> {
        for file in &mut self.files {
            let new = !file.target.exists();
            fs::rename(&file.temp, &file.target).map_err(|e| OnnxError::io("cannot rename", e))?;
            file.new = Some(new);
        }
        self.files.clear();
        self.folders.clear();
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        for file in &self.files {
            // Nothing more can be done where removing fails.
            let _ = match file.new {
                None => fs::remove_file(&file.temp),
                Some(true) => fs::remove_file(&file.target),
                Some(false) => Ok(()),
            };
        }
        for dir in self.folders.iter().rev() {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// A new file in `dir`.
fn temporary(dir: &Path) -> io::Result<(File, PathBuf)> {
    for n in 0.. {
        let path = dir.join(format!(".secateur-{}-{n}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && n < 10_000 => {}
            done => return done.map(|file| (file, path)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::super::{load, to_bytes};
    use super::*;
    use crate::ir::{Attr, AttrValue, Constant, Node, Tensor};

    #[test]
    fn long_messages_lose_their_weights_to_a_file() {
        let mut m = Model::default();
        let big = || Tensor::of(&[1000], vec![1.5f32; 1000]);
        let v = m.graph.constant("w", big());
        m.graph.constant("small", Tensor::scalar(1.0f32));
        let mut node = Node::new("Constant", vec![], vec![]);
        node.attrs = vec![Attr::new("value", AttrValue::Tensor(Constant::new(big())))];
        m.graph.node(node);
        let dir = std::env::temp_dir().join(format!("secateur-{}-long", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("m.onnx");
        let written = |max| {
            write(&m, &path, true, max)?;
            let data = fs::read(dir.join("m.onnx.data")).map_or(0, |d| d.len());
            Ok::<_, OnnxError>((fs::read(&path).unwrap().len(), data))
        };
        let whole = to_bytes(&m).len();
        assert_eq!(written(wide(whole)).unwrap(), (whole, 0));
        let (message, data) = written(wide(whole) - 1).unwrap();
        assert!(message < 4300 && data == 4000);
        assert_eq!(
            *load(&path).unwrap().graph.values[0]
                .konst
                .as_ref()
                .unwrap()
                .tensor,
            big()
        );
        let (message, data) = written(1000).unwrap();
        assert!(message < 1000 && data == 4096 + 4000);
        assert_eq!(load(&path).unwrap().graph.konst(v), Some(&big()));
        assert_eq!(written(10).unwrap_err().kind(), ErrorKind::TooLarge);
        fs::remove_dir_all(&dir).unwrap();
    }
}
