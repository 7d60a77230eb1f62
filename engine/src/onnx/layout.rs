//! Where each tensor goes when a model with external files is written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::external::{Entries, below, number};
use super::rope::wide;
use super::{ErrorKind, OnnxError};
use crate::ir::{AttrValue, Bytes, Constant, Data, External, Form, Graph, Model};

/// Tensors moved out of the message begin at multiples of this, so that they can be mapped by themselves.
const ALIGN: u64 = 4096;
/// Shorter tensors stay in the message.
const SMALL: usize = 1024;

/// Which tensors leave a message that would be too long with them.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub(super) enum Move {
    Nothing,
    Initializers,
    Everything,
}

/// Tensors and the files they go to.
#[derive(Default)]
pub(super) struct Layout {
    /// The entries of tensors that do not stay where their form says.
    pub(super) places: HashMap<*const Constant, Entries>,
    /// The files to write, by their path below the model's folder.
    pub(super) files: BTreeMap<PathBuf, Contents>,
}

/// What goes into one external file.
#[derive(Default)]
pub(super) struct Contents {
    /// Positions and bytes. Parts that overlap agree.
    pub(super) pieces: Vec<(u64, Bytes)>,
    /// Taken stretches: from beginning to end and the file they are copied from.
    taken: BTreeMap<u64, (u64, Option<PathBuf>)>,
}

impl Contents {
    /// Puts `bytes` at `at`, unless something else is there already. What comes unchanged from the same place of the
    /// same file may overlap.
    fn claim(&mut self, at: u64, bytes: &Bytes, source: Option<&Path>) -> bool {
        let Some(end) = at.checked_add(wide(bytes.len())) else {
            return false;
        };
        let (mut first, mut last) = (at, end);
        let mut met = vec![];
        for (&begin, (until, from)) in self.taken.range(..end).rev() {
            if *until <= at {
                break;
            }
            if from.is_none() || from.as_deref() != source {
                return false;
            }
            (first, last) = (first.min(begin), last.max(*until));
            met.push(begin);
        }
        met.iter().for_each(|begin| drop(self.taken.remove(begin)));
        if first < last {
            self.taken.insert(first, (last, source.map(Path::to_owned)));
        }
        self.pieces.push((at, bytes.clone()));
        true
    }

    /// Puts `bytes` behind everything else, and says where.
    fn append(&mut self, bytes: &Bytes) -> u64 {
        let end = self.taken.last_key_value().map_or(0, |(_, (end, _))| *end);
        let at = end.next_multiple_of(ALIGN);
        self.claim(at, bytes, None);
        at
    }
}

/// The state of laying out one model.
struct Planner<'a> {
    path: &'a Path,
    dir: PathBuf,
    overwrite: bool,
    /// Files that tensors of the model are mapped from.
    held: HashSet<&'a Path>,
    layout: Layout,
    /// The file for tensors that have no place of their own.
    fresh: Option<String>,
}

/// Decides where the tensors of `model` go if it is written to `path`.
///
/// A tensor unchanged since it was read keeps its file and its position in it; in the folder it was read from, nothing
/// is written for it. A changed one keeps them too where that leaves an existing file alone: the file may be mapped, or
/// belong to another model.
pub(super) fn plan(model: &Model, path: &Path, overwrite: bool, moved: Move) -> Result<Layout, OnnxError> {
    let constants = constants(model);
    let mut planner = Planner::new(path, overwrite, &constants)?;
    let mut changed = vec![];
    let mut loose = vec![];
    for &(c, initializer) in &constants {
        let Data::Bytes(bytes) = c.tensor.data() else {
            continue;
        };
        match &c.form {
            Form::External(e) if e.source.is_some() => planner.unchanged(c, e, bytes, &mut loose)?,
            Form::External(e) => changed.push((c, e, bytes)),
            Form::Raw | Form::Typed { .. } if bytes.len() >= SMALL => match moved {
                Move::Initializers if initializer => loose.push(c),
                Move::Everything => loose.push(c),
                _ => {}
            },
            _ => {}
        }
    }
    for (c, e, bytes) in changed {
        planner.changed(c, e, bytes, &mut loose)?;
    }
    for c in loose {
        planner.loose(c)?;
    }
    Ok(planner.layout)
}

impl<'a> Planner<'a> {
    fn new(
        path: &'a Path,
        overwrite: bool,
        constants: &[(&'a Constant, bool)],
    ) -> Result<Planner<'a>, OnnxError> {
        let sources = constants.iter().filter_map(|(c, _)| match &c.form {
            Form::External(e) => e.source.as_ref().map(|(path, _)| path.as_path()),
            _ => None,
        });
        let planner = Planner {
            path,
            dir: super::folder(path).to_owned(),
            overwrite,
            held: sources.collect(),
            layout: Layout::default(),
            fresh: None,
        };
        match planner.is_held(path) {
            true => Err(OnnxError::external("the model's own tensors are in this file")),
            false => Ok(planner),
        }
    }

    fn is_held(&self, path: &Path) -> bool {
        path.canonicalize().is_ok_and(|p| self.held.contains(&*p))
    }

    /// The file below the model's folder that `location` names, as one to be written. `None` where it is mapped.
    fn file(&mut self, location: &str) -> Result<Option<&mut Contents>, OnnxError> {
        let below = below(location)?;
        let target = self.dir.join(&below);
        if self.is_held(&target) {
            return Ok(None);
        }
        if Some(below.as_os_str()) == self.path.file_name() {
            let what = format!("expected tensors in another file than the model, found {location:?}");
            return Err(OnnxError::external(what));
        }
        if !self.overwrite && target.exists() {
            let what = format!("there is a file {location:?} for external data already");
            return Err(OnnxError::new(ErrorKind::Exists, what));
        }
        Ok(Some(self.layout.files.entry(below).or_default()))
    }

    /// Whether nothing is lost if a changed tensor goes to the file `below`: it is new, or being replaced anyway.
    fn is_free(&self, below: &Path) -> bool {
        self.layout.files.contains_key(below) || !self.dir.join(below).exists()
    }

    fn unchanged(
        &mut self,
        c: &'a Constant,
        e: &External,
        bytes: &Bytes,
        loose: &mut Vec<&'a Constant>,
    ) -> Result<(), OnnxError> {
        let Some((source, offset)) = &e.source else {
            return Ok(());
        };
        let location = e.get("location").unwrap_or("");
        let target = self.dir.join(below(location)?);
        if target.canonicalize().is_ok_and(|p| p == *source) {
            return Ok(());
        }
        let file = self.file(location)?;
        if !file.is_some_and(|f| f.claim(*offset, bytes, Some(source))) {
            loose.push(c);
        }
        Ok(())
    }

    fn changed(
        &mut self,
        c: &'a Constant,
        e: &External,
        bytes: &Bytes,
        loose: &mut Vec<&'a Constant>,
    ) -> Result<(), OnnxError> {
        let location = e.get("location").unwrap_or("");
        let home = match location {
            "" => false,
            some => self.is_free(&below(some)?),
        };
        let offset = number(&e.entries, "offset")?.unwrap_or(0);
        let before = number(&e.entries, "length")?;
        let file = match home {
            true => self.file(location)?,
            false => None,
        };
        let Some(file) = file else {
            loose.push(c);
            return Ok(());
        };
        let fits = before.is_none_or(|len| len == wide(bytes.len()));
        let at = match fits && file.claim(offset, bytes, None) {
            true => offset,
            false => file.append(bytes),
        };
        let entries = placed(&e.entries, location, at, bytes);
        self.layout.places.insert(c, entries);
        Ok(())
    }

    /// Finds a place for a tensor that has none.
    fn loose(&mut self, c: &Constant) -> Result<(), OnnxError> {
        let Data::Bytes(bytes) = c.tensor.data() else {
            return Ok(());
        };
        let location = match self.fresh.take() {
            Some(location) => location,
            None => self.fresh_file()?,
        };
        let file = self.layout.files.entry(PathBuf::from(&location)).or_default();
        let at = file.append(bytes);
        let old: &[(String, String)] = match &c.form {
            Form::External(e) => &e.entries,
            _ => &[],
        };
        self.layout.places.insert(c, placed(old, &location, at, bytes));
        self.fresh = Some(location);
        Ok(())
    }

    /// The name of a file that no tensor is mapped from or goes to.
    fn fresh_file(&self) -> Result<String, OnnxError> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let mut location = format!("{name}.data");
        let mut n = 0;
        while self.is_held(&self.dir.join(&location)) || self.layout.files.contains_key(Path::new(&location))
        {
            n += 1;
            location = format!("{name}.{n}.data");
        }
        if !self.overwrite && self.dir.join(&location).exists() {
            let what = format!("there is a file {location:?} for external data already");
            return Err(OnnxError::new(ErrorKind::Exists, what));
        }
        Ok(location)
    }
}

/// `entries` with another place. A checksum does not survive that.
fn placed(entries: &[(String, String)], location: &str, at: u64, bytes: &Bytes) -> Entries {
    let place = [
        ("location", location.to_owned()),
        ("offset", at.to_string()),
        ("length", bytes.len().to_string()),
    ];
    let mut entries = entries.to_vec();
    entries.retain(|(key, _)| key != "checksum");
    for (key, value) in place {
        match entries.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => entries.push((key.into(), value)),
        }
    }
    entries
}

/// Every tensor of `model` that is written as a `TensorProto`, and whether it is an initialiser.
fn constants(model: &Model) -> Vec<(&Constant, bool)> {
    let mut all = vec![];
    in_graph(&model.graph, &mut all);
    for f in &model.functions {
        in_graph(&f.graph, &mut all);
        f.defaults.iter().for_each(|a| in_value(&a.value, &mut all));
    }
    all
}

fn in_graph<'a>(graph: &'a Graph, all: &mut Vec<(&'a Constant, bool)>) {
    let initializers = graph.initializers.iter().filter_map(|&v| graph[v].konst.as_ref());
    all.extend(initializers.map(|c| (c, true)));
    for attr in graph.iter().flat_map(|(_, node)| &node.attrs) {
        in_value(&attr.value, all);
    }
}

fn in_value<'a>(value: &'a AttrValue, all: &mut Vec<(&'a Constant, bool)>) {
    match value {
        AttrValue::Tensor(c) => all.push((c, false)),
        AttrValue::Tensors(c) => all.extend(c.iter().map(|c| (c, false))),
        _ => value.graphs().iter().for_each(|g| in_graph(g, all)),
    }
}
