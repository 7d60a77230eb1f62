//! ONNX Runtime, with the feature `ort`.

#[cfg(feature = "ort")]
mod convert;
#[cfg(feature = "ort")]
mod library;
#[cfg(feature = "ort")]
mod ready;

use anyhow::Result;

use super::{Engine, Job, Loaded};

/// ONNX Runtime, one operator after another.
pub(super) struct OnnxRuntime;

impl Engine for OnnxRuntime {
    fn name(&self) -> &'static str {
        "ort"
    }

    #[cfg(feature = "ort")]
    fn start(&self) -> Result<()> {
        library::environment().map(drop)
    }

    #[cfg(not(feature = "ort"))]
    fn load(&self, _job: &Job) -> Result<Box<dyn Loaded>> {
        anyhow::bail!("this program was built without ONNX Runtime; build it with --features ort")
    }

    #[cfg(feature = "ort")]
    fn load(&self, job: &Job) -> Result<Box<dyn Loaded>> {
        Ok(Box::new(ready::Ready::new(job)?))
    }
}
