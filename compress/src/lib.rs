//! Compression of ONNX models. A method looks at a model and decides; what it decided is a plan, which is data; applying
//! the plan is the only thing that edits.
//!
//! ```
//! use secateur_compress::{Amount, Choice, Effort, Goal, Pattern, Scope, Stats, Task, apply, methods, weights};
//! # use secateur_engine::ir::{Model, Node, Type};
//! # use secateur_engine::Tensor;
//! # let mut model = Model::default();
//! # let x = model.graph.input("x", Type::Unknown);
//! # let w = model.graph.constant("w", Tensor::of(&[2, 2], vec![0.1f32, -3.0, 2.0, 0.5]));
//! # let y = model.graph.value("y");
//! # model.graph.node(Node::new("MatMul", vec![Some(x), Some(w)], vec![Some(y)]));
//! # model.graph.output(y, None);
//! let mut weights = weights(&model);
//! Choice::default().mark(&mut weights)?;
//! let goal = Goal { amount: Amount::Sparsity(0.5), scope: Scope::Global, pattern: Pattern::Unstructured };
//! let task = Task { model: &model, weights: &weights, goal, effort: Effort::default() };
//! let method = methods::find("magnitude").ok_or("no such method")?;
//! let plan = method.decide(&task, &Stats::default())?;
//! print!("{plan}");
//! let report = apply(&plan, &mut model)?;
//! assert_eq!(report.edits[0].zeros_after, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod apply;
mod blocks;
pub mod budget;
mod bytes;
mod change;
mod contraction;
mod error;
mod glob;
mod grain;
pub mod groups;
mod harm;
mod layers;
pub mod math;
pub mod methods;
pub mod observe;
mod pattern;
mod place;
pub mod recipe;
pub mod recover;
pub mod rounds;
mod scan;
pub mod stats;
pub mod ticket;
pub mod trim;
mod weights;

pub use apply::{Edit, Report, Room, Width, apply, apply_with, forced, preview};
pub use blocks::{Block, blocks, least};
pub use bytes::{Bits, Raw};
pub use change::{Bypass, Change, Cut, Keep, Mask, Narrow, Plan, Replace, Skip};
pub use error::{ApplyError, ApplyErrorKind, MethodError, MethodErrorKind, TicketError, TicketErrorKind};
pub use glob::Choice;
pub use grain::{Blend, Grain, PIECES, Piece};
pub use groups::{Group, Groups, groups};
pub use harm::Harms;
pub use layers::{Layer, layers};
pub use methods::{Amount, Goal, METHODS, Method, Scope, Task};
pub use observe::{Examples, Need, Run, Stats, observe};
pub use pattern::{Matrix, PATTERNS, Pattern, Role};
pub use scan::{Effort, Watch};
pub use secateur_engine::glob::matches;
pub use weights::{Exempt, Weight, weights};
