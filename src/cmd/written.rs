//! Files that verbs write, and what they say of how they were made.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use secateur::Model;
use secateur::engine::onnx;
use serde_json::{Value, json};

use super::card;

/// Where a verb writes its model.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Target {
    /// The ONNX file to write
    pub(crate) output: PathBuf,
    /// Replace the file if there is one
    #[arg(long)]
    pub(crate) force: bool,
}

impl Target {
    /// Refuses early, before any long work, what [`Target::write`] would refuse.
    ///
    /// # Errors
    ///
    /// If the file is there and not to be replaced, or its folder is not there.
    pub(crate) fn check(&self) -> Result<()> {
        check(&self.output, self.force)
    }

    /// Writes `model`.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(crate) fn write(&self, model: &Model) -> Result<()> {
        Ok(onnx::save(model, &self.output, self.force)?)
    }

    /// Writes `model` once `look` has passed what was read back of it, and the file that this is in meanwhile.
    ///
    /// # Errors
    ///
    /// If the system refuses, or `look` does. Then nothing is left, and a file that was there is as it was.
    pub(crate) fn verified<R>(
        &self,
        model: &Model,
        look: impl FnOnce(&Model, &Path) -> Result<R>,
    ) -> Result<R> {
        self.check()?;
        let place = || self.output.display().to_string();
        let beside = Beside::new(&self.output).with_context(place)?;
        let file = beside.0.join(self.output.file_name().unwrap_or_default());
        onnx::save(model, &file, true)?;
        let seen = card::load(&file).and_then(|back| look(&back, &file));
        let seen = seen.with_context(|| format!("{} is not written: read back, it fails", place()))?;
        match beside.alone(&file)? {
            true => fs::rename(&file, &self.output).with_context(place)?,
            // Tensors in files of their own stay where they lie, which only the place itself tells.
            false => {
                drop(beside);
                self.write(model)?;
            }
        }
        Ok(seen)
    }
}

/// A folder beside a file, removed with all that is in it, from which files can be renamed into place.
struct Beside(PathBuf);

impl Beside {
    fn new(path: &Path) -> Result<Beside> {
        let mut name = OsString::from(".");
        name.push(path.file_name().context("that is no name of a file")?);
        name.push(format!(".{}.tmp", std::process::id()));
        let folder = path.with_file_name(name);
        fs::create_dir_all(&folder)?;
        Ok(Beside(folder))
    }

    /// Whether there is nothing but `file`.
    fn alone(&self, file: &Path) -> Result<bool> {
        let all = fs::read_dir(&self.0)?.collect::<Result<Vec<_>, _>>()?;
        Ok(all.iter().all(|entry| entry.path() == file))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Refuses to write over a file, or into a folder that is not there or takes no files.
///
/// # Errors
///
/// In all these cases.
pub(crate) fn check(path: &Path, force: bool) -> Result<()> {
    if path.is_dir() {
        bail!(
            "{}: that is a folder; expected the name of a file",
            path.display()
        );
    }
    if path.exists() && !force {
        bail!(
            "{}: the file is there already; --force replaces it",
            path.display()
        );
    }
    let folder = folder(path);
    if !folder.is_dir() {
        bail!("{}: there is no such folder to write to", path.display());
    }
    let probe = folder.join(format!(".secateur-{}.probe", std::process::id()));
    let made = File::create(&probe);
    // Another check may have removed it.
    let _ = fs::remove_file(&probe);
    match made {
        Ok(_) => Ok(()),
        Err(e) => bail!("{}: its folder takes no files: {e}", path.display()),
    }
}

/// The folder of the file `path`.
pub(crate) fn folder(path: &Path) -> &Path {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Refuses files among `others` that are one of `models`, or each other.
///
/// # Errors
///
/// If there are such.
pub(crate) fn distinct<'p>(models: &[&Path], others: impl IntoIterator<Item = &'p PathBuf>) -> Result<()> {
    let place = |path: &Path| {
        let folder = folder(path);
        let whole = folder.canonicalize().unwrap_or(folder.to_owned());
        whole.join(path.file_name().unwrap_or_default())
    };
    let mut taken: Vec<PathBuf> = models.iter().map(|p| place(p)).collect();
    for path in others {
        if taken.contains(&place(path)) {
            bail!(
                "{}: the command line names it for something else too; expected a file of its own",
                path.display()
            );
        }
        taken.push(place(path));
    }
    Ok(())
}

/// Writes a file under a temporary name and renames it when it is complete.
///
/// # Errors
///
/// As [`check`]; if `write` fails or the system refuses.
pub(crate) fn replace(
    path: &Path,
    force: bool,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    check(path, force)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let done = || -> Result<()> {
        let mut out = BufWriter::new(File::create(&temporary)?);
        write(&mut out)?;
        out.flush()?;
        Ok(fs::rename(&temporary, path)?)
    };
    done().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        e.context(path.display().to_string())
    })
}

/// A folder for temporary files of this process, removed with all that is in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A new folder for `what`.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(crate) fn new(what: &str) -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("secateur-{what}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Scratch(path))
    }

    /// Writes `model` to the file `name`, whose path it returns.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(crate) fn save(&self, name: &str, model: &Model) -> Result<PathBuf> {
        let file = self.0.join(name);
        onnx::save(model, &file, true)?;
        Ok(file)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What was done to a model, for its `metadata_props`.
pub(crate) struct Receipt<'a> {
    /// The verb.
    pub(crate) verb: &'a str,
    /// Its flags, those left out included.
    pub(crate) flags: Value,
    /// The seed.
    pub(crate) seed: u64,
    /// What was measured.
    pub(crate) figures: Value,
}

impl Receipt<'_> {
    /// Adds an entry `secateur.N` to the model's metadata, N being one more than the entries that are there.
    pub(crate) fn sign(&self, model: &mut Model) {
        let old = onnx::metadata(model);
        let number = |(key, _): &(String, String)| key.strip_prefix("secateur.")?.parse::<u32>().ok();
        let last = old.iter().filter_map(number).max().unwrap_or(0);
        let entry = json!({
            "verb": self.verb,
            "flags": self.flags,
            "seed": self.seed,
            "version": env!("CARGO_PKG_VERSION"),
            "figures": self.figures,
        });
        let key = format!("secateur.{}", last.saturating_add(1));
        onnx::set_metadata(model, &key, &entry.to_string());
    }
}

#[cfg(test)]
mod tests {
    use secateur::Tensor;
    use secateur::engine::ir::{Constant, External, Form};

    use super::*;

    #[test]
    fn receipts_are_numbered() {
        let mut model = Model::default();
        let receipt = Receipt {
            verb: "optimize",
            flags: json!({"level": "basic"}),
            seed: 7,
            figures: json!({}),
        };
        receipt.sign(&mut model);
        receipt.sign(&mut model);
        let entries = onnx::metadata(&model);
        assert_eq!(entries[1].0, "secateur.2");
        let text: Value = serde_json::from_str(&entries[0].1).unwrap();
        assert_eq!(text["seed"], 7);
    }

    /// An empty folder for one test.
    fn empty(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("secateur-written-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut all: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    }

    /// A model of one weight, all `x`.
    fn model(x: f32) -> Model {
        let mut model = Model::default();
        model.graph.constant("w", Tensor::of(&[500], vec![x; 500]));
        model
    }

    fn weight(model: &Model) -> f64 {
        let w = model.graph.find("w").unwrap();
        model.graph.konst(w).unwrap().floats().unwrap()[0]
    }

    #[test]
    fn what_fails_when_read_back_is_not_written() {
        let folder = empty("verified");
        let output = folder.join("m.onnx");
        let target = |force| Target {
            output: output.clone(),
            force,
        };
        let no = |_: &Model, file: &Path| -> Result<()> { bail!("{} is wrong", file.exists()) };
        let error = target(false).verified(&model(1.0), no).unwrap_err();
        assert!(format!("{error:#}").ends_with("true is wrong"), "{error:#}");
        assert_eq!(names(&folder), [""; 0]);
        let read = target(false).verified(&model(2.0), |back, _| Ok(weight(back)));
        assert_eq!((read.unwrap(), names(&folder)), (2.0, vec!["m.onnx".to_owned()]));
        assert!(target(true).verified(&model(3.0), no).is_err());
        assert!(target(false).verified(&model(3.0), |_, _| Ok(())).is_err());
        assert_eq!(weight(&Model::load(&output).unwrap()), 2.0);
        assert_eq!(names(&folder), ["m.onnx"]);
        target(true).verified(&model(4.0), |_, _| Ok(())).unwrap();
        assert_eq!(weight(&Model::load(&output).unwrap()), 4.0);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn tensors_in_files_of_their_own_are_verified_and_stay_there() {
        let folder = empty("external");
        let output = folder.join("m.onnx");
        let mut outside = model(0.0);
        let w = outside.graph.find("w").unwrap();
        let mut konst = Constant::new(Tensor::of(&[2], vec![0f32; 2]));
        konst.form = Form::External(External {
            entries: vec![("location".to_owned(), "w.bin".to_owned())],
            source: None,
        });
        outside.graph[w].konst = Some(konst);
        onnx::save(&outside, &output, false).unwrap();
        let read = Model::load(&output).unwrap();
        let target = Target { output, force: true };
        let no = |_: &Model, _: &Path| -> Result<()> { bail!("no") };
        let both = ["m.onnx", "w.bin"];
        assert!(target.verified(&read, no).is_err());
        assert_eq!(names(&folder), both);
        assert_eq!(target.verified(&read, |back, _| Ok(weight(back))).unwrap(), 0.0);
        assert_eq!(names(&folder), both);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_refused_early() {
        let dir = empty("early");
        let refused = |path: &Path| format!("{:#}", check(path, true).unwrap_err());
        assert!(refused(&dir).contains("that is a folder"));
        assert!(refused(&dir.join("no/x")).contains("no such folder"));
        if Path::new("/proc/self").is_dir() {
            assert!(refused(Path::new("/proc/x")).contains("takes no files"));
        }
        check(&dir.join("x"), false).unwrap();
        assert_eq!(names(&dir), [""; 0]);
        let [a, b, c] = ["a", "./b", "c"].map(|f| dir.join(f));
        let again = dir.join("b");
        assert!(distinct(&[&a, &a], [&b, &c]).is_ok());
        assert!(distinct(&[&a], [&b, &again]).is_err());
        assert!(distinct(&[&a, &again], [&c, &b]).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = empty("replaced");
        let file = folder.join("x");
        assert!(replace(&file, false, |_| bail!("no")).is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        replace(&file, false, |out| Ok(out.write_all(b"1")?)).unwrap();
        assert!(replace(&file, false, |_| Ok(())).is_err());
        replace(&file, true, |out| Ok(out.write_all(b"2")?)).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"2");
        fs::remove_dir_all(&folder).unwrap();
    }
}
