//! Training of ONNX models.
//!
//! A model is differentiated as a graph: its gradients are ordinary nodes beside its own, which the engine runs like any
//! others, and which can be written to a file or differentiated again.
//!
//! ```
//! use secateur_engine::ir::{Model, Node, Type};
//! use secateur_engine::{Session, Tensor};
//! use secateur_train::{Gradients, differentiate};
//!
//! // y = x · x
//! let mut model = Model::default();
//! let x = model.graph.input("x", Type::tensor(secateur_engine::ir::DType::F32, [2usize]));
//! let y = model.graph.value("y");
//! model.graph.node(Node::new("Mul", vec![Some(x), Some(x)], vec![Some(y)]));
//!
//! let found = differentiate(&mut model, &Gradients::new(&[(y, None)], &[x]))?;
//! model.graph.output(found[0].ok_or("y does not depend on x")?, None);
//!
//! let x = Tensor::of(&[2], vec![3.0f32, -1.0]);
//! let outputs = Session::builder(&model).build()?.run([("x", &x)])?;
//! assert_eq!(outputs.into_first().and_then(|t| t.floats()), Some(vec![6.0, -2.0]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod broadcast;
mod control;
pub mod data;
mod diff;
mod error;
mod expand;
mod group;
pub mod init;
pub mod loss;
mod modes;
pub mod optim;
mod reach;
mod recompute;
mod round;
pub mod schedule;
mod segments;
mod settings;
mod spec;
mod standardize;
mod step;
mod terms;
mod trainer;
mod update;
mod words;

pub use diff::{Gradients, differentiate};
pub use error::{DiffError, DiffErrorKind, TrainError, TrainErrorKind};
pub use expand::portable;
pub use group::Group;
pub use init::{INITS, Init, initialize, lsuv};
pub use loss::{LOSSES, Loss};
pub use optim::{OPTIMIZERS, Optimizer};
pub use round::Rounding;
pub use schedule::Schedule;
pub use segments::{Segments, checkpoints};
pub use settings::Settings;
pub use spec::{Spec, State, StepGraph, Term};
pub use standardize::standardize;
pub use step::step;
pub use terms::{Measured, measure};
pub use trainer::{
    Course, Diverged, EpochRow, Event, Scores, Teacher, Trainer, evaluate, fingerprint_of as fingerprint,
    whole,
};
pub use update::{Clip, zeros_held};
