//! Model architectures as ONNX graphs, written in the engine's expressions ([`Ex`](secateur_engine::expr::Ex)).
//!
//! What comes out is a complete [`Model`](secateur_engine::Model): it runs in a session, may be saved, and consists of
//! ONNX's own operators only.
#![forbid(unsafe_code)]

mod alexnet;
mod arch;
pub mod attention;
mod bert_base;
pub mod blocks;
mod draft;
mod lenet5;
mod lenet_300_100;
mod mobilenetv2;
mod net;
mod resnet50;

pub use arch::{ARCHS, Arch, ArchError, Size, Sizes, arch};
pub use draft::{Draft, IR_VERSION, OPSET};
pub use net::{Conv, Net};
pub use secateur_engine::random::Random;
