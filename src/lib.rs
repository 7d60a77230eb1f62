//! Runs, prunes and rewrites ONNX models; ordinary zeros in ordinary files run faster.

pub use secateur_compress as compress;
pub use secateur_engine as engine;
pub use secateur_engine::{Feed, Model, Outputs, RunError, Session, Tensor};
