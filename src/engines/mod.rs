//! What can run a model: this library, and others to compare it with.

mod ort;
mod own;
mod tract;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use secateur::engine::run::Builder;
use secateur::{Model, Outputs, Session, Tensor};

use crate::rates;

/// A program that runs ONNX files.
pub(crate) trait Engine: Sync {
    /// The name that `--engine` takes.
    fn name(&self) -> &'static str;

    /// Makes the engine itself ready.
    ///
    /// # Errors
    ///
    /// If it is not there.
    fn start(&self) -> Result<()> {
        Ok(())
    }

    /// Makes a model ready to run.
    ///
    /// # Errors
    ///
    /// If the engine is not there, or refuses the model.
    fn load(&self, job: &Job) -> Result<Box<dyn Loaded>>;
}

/// What is to be run, and how.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    /// The ONNX file.
    pub(crate) file: &'a Path,
    /// How the session is to be made.
    pub(crate) setup: &'a Setup,
    /// Values that are to be outputs too.
    pub(crate) taps: &'a [String],
}

/// How sessions are to be made. Other engines heed only the threads.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Threads to run on.
    pub(crate) threads: usize,
    /// Bytes that a run may work in, where that is limited.
    pub(crate) memory: Option<usize>,
    /// The size of the batch changes no bit.
    pub(crate) deterministic: bool,
    /// Where packed weights are found and kept.
    pub(crate) cache: Option<PathBuf>,
}

impl Setup {
    /// A builder of such a session of `model`.
    pub(crate) fn session<'m>(&self, model: &'m Model) -> Builder<'m> {
        let mut builder = Session::builder(model)
            .threads(self.threads)
            .rates(rates::cached());
        if let Some(bytes) = self.memory {
            builder = builder.memory(bytes);
        }
        if self.deterministic {
            builder = builder.deterministic();
        }
        if let Some(path) = &self.cache {
            builder = builder.cache(path);
        }
        builder
    }

    /// What is to be said of a session that has been made ready.
    pub(crate) fn notes(&self, session: &Session) -> Vec<String> {
        let Some((path, state)) = self.cache.as_ref().zip(session.cache()) else {
            return vec![];
        };
        let path = path.display();
        let refused = state
            .refused
            .map(|why| format!("cache {path} is not used: {why}"));
        let unsaved = state
            .unsaved
            .map(|why| format!("cache {path} is not written: {why}"));
        refused.into_iter().chain(unsaved).collect()
    }
}

/// A model made ready to run.
pub(crate) trait Loaded {
    /// The version of the engine.
    fn version(&self) -> String;

    /// Does what can be done before the first run on `inputs`.
    ///
    /// # Errors
    ///
    /// If the model cannot run on inputs of these shapes.
    fn prepare(&mut self, _inputs: &[(String, Tensor)]) -> Result<()> {
        Ok(())
    }

    /// What is to be said of how it was made ready.
    fn notes(&self) -> Vec<String> {
        vec![]
    }

    /// Runs the model once.
    ///
    /// # Errors
    ///
    /// If it cannot run on these inputs.
    fn run(&mut self, inputs: &[(String, Tensor)]) -> Result<Ran>;
}

/// A run that succeeded.
pub(crate) struct Ran {
    pub(crate) outputs: Outputs,
    /// Milliseconds of the run alone, without copying inputs to and outputs from the engine.
    pub(crate) ms: f64,
}

/// All engines, sorted by name.
pub(crate) static ENGINES: &[&dyn Engine] = &[&ort::OnnxRuntime, &own::Own, &tract::Tract];

/// The engine called `name`.
///
/// # Errors
///
/// If there is none.
pub(crate) fn find(name: &str) -> Result<&'static dyn Engine> {
    if let Some(engine) = ENGINES.iter().find(|e| e.name() == name) {
        return Ok(*engine);
    }
    let known: Vec<String> = ENGINES.iter().map(|e| e.name().to_owned()).collect();
    let near = secateur::engine::run::nearest(name, &known);
    bail!("no engine {name:?}{near}; the engines are {known:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_sorted_and_found() {
        assert!(ENGINES.is_sorted_by(|a, b| a.name() < b.name()));
        assert!(ENGINES.iter().all(|e| find(e.name()).is_ok()));
        assert!(
            find("orr")
                .err()
                .unwrap()
                .to_string()
                .contains("did you mean \"ort\"")
        );
    }
}
