//! This library.

use std::time::Instant;

use anyhow::{Context, Result};
use secateur::{Model, Session, Tensor};

use crate::rates;

use super::{Engine, Job, Loaded, Ran};

/// This library.
pub(super) struct Own;

struct Ready(Session);

impl Engine for Own {
    fn name(&self) -> &'static str {
        "self"
    }

    fn load(&self, job: &Job) -> Result<Box<dyn Loaded>> {
        let model = Model::load(job.file)?;
        let builder = rates::session(&model, job.threads, job.memory);
        let builder = job.taps.iter().fold(builder, |b, name| b.tap(name));
        let session = builder.build().with_context(|| job.file.display().to_string())?;
        Ok(Box::new(Ready(session)))
    }
}

impl Loaded for Ready {
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").into()
    }

    fn prepare(&mut self, inputs: &[(String, Tensor)]) -> Result<()> {
        self.0.prepare(inputs.iter().map(|(n, t)| (n, t)))?;
        Ok(())
    }

    fn run(&mut self, inputs: &[(String, Tensor)]) -> Result<Ran> {
        let start = Instant::now();
        let outputs = self.0.run(inputs.iter().map(|(n, t)| (n, t)))?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        Ok(Ran { outputs, ms })
    }
}
