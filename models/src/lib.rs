//! Model architectures as ONNX graphs, written in the engine's expressions ([`Ex`](secateur_engine::expr::Ex)).
//!
//! What comes out is a complete [`Model`](secateur_engine::Model): it runs in a session, may be saved, and consists of
//! ONNX's own operators only.
#![forbid(unsafe_code)]

pub mod attention;
pub mod blocks;
mod draft;
mod random;

pub use draft::{Draft, IR_VERSION, OPSET};
pub use random::Random;
