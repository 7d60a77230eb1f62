//! Model architectures as ONNX graphs, written in the engine's expressions ([`Ex`](secateur_engine::expr::Ex)).
//!
//! What comes out is a complete [`Model`](secateur_engine::Model): it runs in a session, may be saved, and consists of
//! ONNX's own operators only.
#![forbid(unsafe_code)]

mod alexnet;
mod arch;
pub mod attention;
mod autoencoder;
mod bert_base;
pub mod blocks;
mod conv4;
mod densenet;
mod draft;
mod highway;
mod lenet5;
mod lenet_300_100;
mod linear;
mod mlp;
mod mobilenetv2;
mod net;
mod recurrent;
mod resnet20;
mod resnet50;
mod setting;
mod transformer;
mod transformer_decoder;
mod transformer_encoder;
mod two_branch;
mod vgg;
mod vit;

pub use arch::{ARCHS, Arch, ArchError, arch};
pub use draft::{Draft, IR_VERSION, OPSET};
pub use net::{Conv, Net};
pub use secateur_engine::random::Random;
pub use setting::{Kind, Setting, Settings, Value};
