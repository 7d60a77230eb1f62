//! The engine of secateur: the ONNX graph as data, its operators, optimiser, plan and CPU kernels.

pub mod ir;
pub mod onnx;
