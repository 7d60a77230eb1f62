//! Runs, prunes and rewrites ONNX models; ordinary zeros in ordinary files run faster.
//!
//! A [`Model`] is exactly what an ONNX file says. A [`Session`] is a model made ready to run: its inputs are views of
//! arrays, which are not copied where they are in row-major order, and its outputs are arrays.
//!
//! ```
//! use secateur::ndarray::{Array4, Axis};
//! use secateur::{Model, Session};
//!
//! let model = Model::load("tests/data/digits-cnn.onnx")?;
//! let session = Session::builder(&model).threads(2).build()?;
//! let images = Array4::<f32>::zeros((3, 1, 8, 8));
//! let outputs = session.run([("image", images.view())])?;
//! let logits = outputs["logits"].view::<f32>().ok_or("no floats")?;
//! assert_eq!(logits.shape(), [3, 10]);
//! assert_eq!(logits.index_axis(Axis(0), 0), logits.index_axis(Axis(0), 2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Everything else is in [`engine`]: the graph as data ([`engine::ir`]), files ([`engine::onnx`]), operators
//! ([`engine::ops`]), the optimiser ([`engine::opt`]), plans ([`engine::plan`]). The command line stands behind the
//! feature `cli`, which is on unless default features are turned off.

pub use secateur_compress as compress;
pub use secateur_engine as engine;
pub use secateur_engine::{Feed, Model, Outputs, RunError, Session, Tensor, ndarray};
pub use secateur_models as models;
pub use secateur_train as train;
