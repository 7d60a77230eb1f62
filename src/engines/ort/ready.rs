//! Models loaded by ONNX Runtime.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use secateur::{Model, Outputs, Tensor};

use super::convert::{tensor, value};
use super::library::{self, environment};
use crate::cmd::Scratch;
use crate::engines::{Job, Loaded, Ran};

/// A session of ONNX Runtime.
pub(super) struct Ready {
    session: Session,
    names: Vec<String>,
}

impl Ready {
    pub(super) fn new(job: &Job) -> Result<Ready> {
        let file = job.file.display().to_string();
        let tapped = tapped(job)?;
        let path = tapped.as_ref().map_or(job.file, |t| &t.1);
        let session = builder(job.setup.threads)?.commit_from_file(path);
        let session = session.map_err(|e| anyhow!("{file}: ONNX Runtime refuses it: {e}"))?;
        let names = session.outputs().iter().map(|o| o.name().to_owned()).collect();
        Ok(Ready { session, names })
    }
}

impl Loaded for Ready {
    fn version(&self) -> String {
        library::version()
    }

    fn run(&mut self, inputs: &[(String, Tensor)]) -> Result<Ran> {
        let aligned: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (&**n, t.aligned())).collect();
        let values = aligned.iter().map(|(name, t)| Ok((*name, value(t)?)));
        let values = values.collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let made = self
            .session
            .run(values)
            .map_err(|e| anyhow!("ONNX Runtime: {e}"))?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        let copy = |name: &String| {
            let value = made.get(name).context("it is missing");
            value
                .and_then(tensor)
                .with_context(|| format!("output {name:?} of ONNX Runtime"))
        };
        let outputs = Outputs {
            names: self.names.iter().map(|n| n.as_str().into()).collect(),
            values: self
                .names
                .iter()
                .map(|n| Ok(copy(n)?.into()))
                .collect::<Result<_>>()?,
        };
        Ok(Ran { outputs, ms })
    }
}

fn builder(threads: usize) -> Result<SessionBuilder> {
    let environment = environment()?;
    let options = || -> ort::Result<SessionBuilder> {
        Ok(Session::builder(&environment)?
            .with_log_level(LogLevel::Error)?
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?)
    };
    options().map_err(|e| anyhow!("ONNX Runtime: {e}"))
}

/// The model with the taps as outputs, where there are any.
fn tapped(job: &Job) -> Result<Option<(Scratch, PathBuf)>> {
    if job.taps.is_empty() {
        return Ok(None);
    }
    let mut model = Model::load(job.file)?;
    for name in job.taps {
        if let Some(v) = model.graph.find(name) {
            model.graph.output(v, None);
        }
    }
    let scratch = Scratch::new("taps")?;
    let file = scratch.save("tapped.onnx", &model)?;
    Ok(Some((scratch, file)))
}
