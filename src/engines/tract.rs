//! tract, with the feature `tract`.

use anyhow::Result;

use super::{Engine, Job, Loaded};

/// tract.
pub(super) struct Tract;

impl Engine for Tract {
    fn name(&self) -> &'static str {
        "tract"
    }

    #[cfg(not(feature = "tract"))]
    fn load(&self, _job: &Job) -> Result<Box<dyn Loaded>> {
        anyhow::bail!("this program was built without tract; build it with --features tract")
    }

    #[cfg(feature = "tract")]
    fn load(&self, job: &Job) -> Result<Box<dyn Loaded>> {
        ready::load(job)
    }
}

#[cfg(feature = "tract")]
mod ready {
    use super::*;
    pub(super) fn load(_job: &Job) -> Result<Box<dyn Loaded>> {
        todo!()
    }
}
