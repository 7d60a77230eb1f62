//! The engine of secateur: the ONNX graph as data, its operators, optimiser, plan and CPU kernels.

pub mod cpu;
pub mod expr;
pub mod ir;
pub mod ops;
pub mod opt;
pub mod reference;
