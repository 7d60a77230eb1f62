//! Plans: the steps that run a graph for values of known types, and the memory they work in; and programs, which run
//! plans and what lies between them.

mod built_in;
mod cost;
mod direct;
mod finish;
mod fit;
mod fork;
mod layout;
mod lower;
mod memory;
mod program;
mod rates;
mod single;
mod uses;

use std::sync::Arc;

use crate::cpu::{Cost, Frame, Job, Kernel, Slot};
use crate::ir::{Tensor, Type, ValueId};
use crate::ops::OpError;
use crate::opt::infer::NodeError;
pub use cost::macs;
pub use fit::{Sample, fit};
pub(crate) use fork::Turn;
pub use lower::{PlanError, peak_bytes};
pub use memory::available;
pub use program::{Context, Held, Program, StepTime, Ways};
pub use rates::{Rate, Rates, Scaling};
pub(crate) use single::batch;
pub(crate) use uses::Uses;

/// A kernel that a node could have had.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Its name.
    pub kernel: String,
    /// Milliseconds that it is predicted to take.
    pub ms: f64,
    /// Milliseconds of the copies into other layouts that it is charged with.
    pub moves_ms: f64,
    /// What is to be said of zeros, where it leaves them out.
    pub sparse: Option<Share>,
}

/// The zeros that a sparse kernel leaves out, and those that it needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The share of the weights that are zero.
    pub zeros: f64,
    /// How they lie, in the words of pruning; empty where there are none.
    pub pattern: &'static str,
    /// The share from which on the kernel is predicted to be faster than those that leave nothing out; `None` if it never is.
    pub break_even: Option<f64>,
}

/// One kernel on its way through the graph.
pub struct Step {
    /// The node, as messages call it.
    pub node: String,
    /// Its operator, with the domain in front where it is not ONNX's own.
    pub op: String,
    /// The kernel that was chosen.
    pub kernel: String,
    /// What it costs, as the kernel says.
    pub cost: Cost,
    /// Milliseconds that it is predicted to take.
    pub ms: f64,
    /// The kernels that were offered, this one among them.
    pub offers: Vec<Offer>,
    pub(crate) opset: i64,
    pub(crate) run: Box<dyn Kernel>,
    pub(crate) inputs: Vec<Option<Slot>>,
    pub(crate) outputs: Vec<Option<Slot>>,
    /// Names of the inputs, for errors.
    pub(crate) names: Vec<String>,
}

impl Step {
    /// An error of the kernel, with everything that is known of the step.
    pub(crate) fn error(&self, what: OpError) -> NodeError {
        let described = self
            .names
            .iter()
            .zip(&self.inputs)
            .map(|(name, slot)| match slot {
                Some(slot) => format!("{name}: {}", Type::tensor(slot.dtype, slot.dims.iter().copied())),
                None => name.clone(),
            });
        NodeError {
            node: self.node.clone(),
            op: self.op.clone(),
            opset: self.opset,
            inputs: described.collect(),
            what,
        }
    }

    /// What is run.
    pub(crate) fn job(&self) -> Job<'_> {
        Job {
            kernel: &*self.run,
            inputs: &self.inputs,
            outputs: &self.outputs,
        }
    }

    /// That it took `ms` milliseconds.
    fn took(&self, ms: f64) -> StepTime {
        StepTime {
            node: self.node.clone(),
            op: self.op.clone(),
            kernel: self.kernel.clone(),
            ms,
        }
    }

    /// Shapes of the outputs that are wanted.
    pub fn out_dims(&self) -> Vec<&[usize]> {
        self.outputs.iter().flatten().map(|s| &s.dims[..]).collect()
    }
}

/// How to run a graph, or a stretch of it, for values of known types.
pub struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) turns: Vec<Turn>,
    pub(crate) constants: Vec<Tensor>,
    /// The values from outside that steps read, by number.
    pub(crate) inputs: Vec<ValueId>,
    /// The values that somebody reads when all steps are done, and where they are.
    pub(crate) outputs: Vec<(ValueId, Slot)>,
    /// Inputs and the outputs that are written over them, by number.
    pub(crate) state: Vec<(usize, usize)>,
    /// Small values that somebody reads later and that are the same in every run.
    pub(crate) known: Vec<(ValueId, Arc<Tensor>)>,
    /// The place of the first node that is not part of it.
    pub(crate) end: usize,
    /// The inputs of that node whose elements its shapes depend on, as bits.
    pub(crate) asked: u64,
    /// Whether that is the end of the graph.
    pub(crate) whole: bool,
    /// Bytes of constants that it computed.
    pub(crate) folded: usize,
    pub(crate) arena: usize,
    pub(crate) scratch: usize,
    pub(crate) frames: std::sync::Mutex<Vec<Frame>>,
}

impl Plan {
    /// The steps that run side by side with others, each thread's for itself.
    pub fn forks(&self) -> impl Iterator<Item = &[Vec<usize>]> {
        self.turns.iter().filter_map(|t| match t {
            Turn::Fork(shares) => Some(&shares[..]),
            Turn::Step(_) => None,
        })
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether it runs the whole graph; if not, the rest is planned when values are there.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Bytes that a run works in: values between steps, scratch memory of kernels, and outputs.
    pub fn peak_bytes(&self) -> usize {
        let outputs = self.outputs.iter().map(|(_, slot)| slot.bytes());
        self.arena + self.scratch + outputs.sum::<usize>()
    }
}
