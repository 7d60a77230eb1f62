//! The engine of secateur: the ONNX graph as data, its operators, optimiser, plan and CPU kernels.

pub mod cpu;
pub mod expr;
pub mod glob;
pub mod ir;
pub mod onnx;
pub mod ops;
pub mod opt;
pub mod plan;
pub mod random;
pub mod reference;
pub mod run;

pub use ir::{Model, Tensor};
pub use ndarray;
pub use run::{Feed, Outputs, RunError, Session};
