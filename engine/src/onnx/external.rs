//! Tensors kept in files of their own: reading.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::OnnxError;
use super::rope::{Encoder, Rope, wide};
use super::wire::{Message, Wire};
use crate::ir::{Bytes, DType, External, Extra, count};

/// The entries of `external_data`: pairs of key and value.
pub(super) type Entries = Vec<(String, String)>;

/// The external files of a model, each mapped once.
pub(super) struct Files {
    dir: Option<PathBuf>,
    open: HashMap<PathBuf, (Bytes, PathBuf)>,
}

/// Reads the entries of the tensor `msg`. Where they are written unusually, the records themselves go to `extra`.
pub(super) fn entries(msg: Message, extra: &mut Extra) -> Result<Entries, OnnxError> {
    let mut entries = vec![];
    let mut records = vec![];
    let mut exact = true;
    for r in msg.records() {
        let r = r?;
        if (r.number, r.wire) == (13, Wire::Len) {
            let entry = pair(r.message()?)?;
            exact &= encode(&entry).into_vec() == r.bytes();
            entries.push(entry);
            records.push(r.keep());
        }
    }
    if !exact {
        extra.0.extend(records);
    }
    Ok(entries)
}

/// Reads a `StringStringEntryProto`.
pub(super) fn pair(msg: Message) -> Result<(String, String), OnnxError> {
    let text = |number| match msg.last(number, Wire::Len)? {
        Some(r) => r.text().map(String::from),
        None => Ok(String::new()),
    };
    Ok((text(1)?, text(2)?))
}

/// The message for a `StringStringEntryProto`.
pub(super) fn encode((key, value): &(String, String)) -> Rope {
    let mut e = Encoder::default();
    e.bytes(1, key);
    e.bytes(2, value);
    e.finish()
}

/// Writes `entries`, unless `extra` keeps records that say the same.
pub(super) fn write_entries(e: &mut Encoder, entries: &Entries, extra: &Extra) {
    let kept: Option<Vec<_>> = extra.of(13).map(kept_pair).collect();
    if kept.as_ref() != Some(entries) {
        entries.iter().for_each(|entry| e.rope(13, encode(entry)));
    }
}

fn kept_pair(record: &Bytes) -> Option<(String, String)> {
    let r = Message::new(record).last(13, Wire::Len).ok()??;
    pair(r.message().ok()?).ok()
}

/// A location as a path below the model's folder.
pub(super) fn below(location: &str) -> Result<PathBuf, OnnxError> {
    let refused = || {
        let why = format!("{location:?} is not a path below the model's folder");
        OnnxError::external(why)
    };
    let mut path = PathBuf::new();
    for part in Path::new(location).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return Err(refused()),
        }
    }
    match path.as_os_str().is_empty() {
        true => Err(refused()),
        false => Ok(path),
    }
}

/// Looks up an entry that is a number of bytes.
pub(super) fn number(entries: &Entries, key: &str) -> Result<Option<u64>, OnnxError> {
    let mut found = entries.iter().filter(|(k, _)| k == key);
    let (first, second) = (found.next(), found.next());
    match (first.map(|(_, text)| text.parse()), second) {
        (None, _) => Ok(None),
        (Some(Ok(n)), None) => Ok(Some(n)),
        _ => {
            let all: Vec<_> = entries.iter().filter(|(k, _)| k == key).map(|(_, v)| v).collect();
            let what = format!("expected one number of bytes as {key}, found {all:?}");
            Err(OnnxError::external(what))
        }
    }
}

impl Files {
    /// Files below `dir`; without it every reference to one is an error.
    pub(super) fn new(dir: Option<&Path>) -> Files {
        Files {
            dir: dir.map(Path::to_owned),
            open: HashMap::new(),
        }
    }

    /// Where `entries` say that a tensor's bytes are, and the bytes.
    pub(super) fn find(
        &mut self,
        entries: Entries,
        dtype: DType,
        dims: &[usize],
    ) -> Result<(Bytes, External), OnnxError> {
        let mut external = External {
            entries,
            source: None,
        };
        let location = external.get("location").unwrap_or("").to_owned();
        let (file, path) = self.open(&location)?;
        let offset = number(&external.entries, "offset")?.unwrap_or(0);
        let asked = count(dims).and_then(|n| dtype.bytes(n)).map(wide);
        let rest = wide(file.len()).saturating_sub(offset);
        let len = number(&external.entries, "length")?.or(asked).unwrap_or(rest);
        let part = slice(&file, offset, len).ok_or_else(|| {
            let found = file.len();
            OnnxError::external(format!(
                "expected {len} bytes at {offset} in {location:?}, found a file of {found}"
            ))
        })?;
        external.source = Some((path, offset));
        Ok((part, external))
    }

    fn open(&mut self, location: &str) -> Result<(Bytes, PathBuf), OnnxError> {
        let below = below(location)?;
        if let Some((bytes, path)) = self.open.get(&below) {
            return Ok((bytes.clone(), path.clone()));
        }
        let Some(dir) = &self.dir else {
            let what = format!("expected a folder to find {location:?} in, found none");
            return Err(OnnxError::external(what));
        };
        let unreadable = |e| OnnxError::external(format!("cannot map {location:?}: {e}"));
        let root = dir.canonicalize().map_err(unreadable)?;
        let path = root.join(&below).canonicalize().map_err(unreadable)?;
        if !path.starts_with(&root) {
            let what = format!("{location:?} leads out of the model's folder");
            return Err(OnnxError::external(what));
        }
        let bytes = Bytes::map(&path).map_err(unreadable)?;
        self.open.insert(below, (bytes.clone(), path.clone()));
        Ok((bytes, path))
    }
}

fn slice(file: &Bytes, offset: u64, len: u64) -> Option<Bytes> {
    let begin = usize::try_from(offset).ok()?;
    let end = begin.checked_add(usize::try_from(len).ok()?)?;
    file.slice(begin..end)
}
