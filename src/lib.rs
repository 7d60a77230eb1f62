//! Runs, prunes and rewrites ONNX models; ordinary zeros in ordinary files run faster.

pub use secateur_engine::*;
