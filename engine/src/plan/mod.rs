//! A plan: the steps that run a graph for one set of input shapes, and the memory they work in.

mod cost;
mod lower;
mod memory;

use crate::cpu::{Cost, Frame, Kernel, Slot};
use crate::ir::{Tensor, Type, ValueId};
pub use cost::macs;
pub use lower::{PlanError, lower, peak_bytes};

/// One kernel on its way through the graph.
pub struct Step {
    /// The node, as messages call it.
    pub node: String,
    /// Its operator, with the domain in front where it is not ONNX's own.
    pub op: String,
    /// The kernel that was chosen.
    pub kernel: String,
    /// What it is predicted to cost.
    pub cost: Cost,
    pub(crate) opset: i64,
    pub(crate) run: Box<dyn Kernel>,
    pub(crate) inputs: Vec<Option<Slot>>,
    pub(crate) outputs: Vec<Option<Slot>>,
    /// Names of the inputs, for errors.
    pub(crate) names: Vec<String>,
    /// The values it makes, for taps.
    pub(crate) values: Vec<Option<ValueId>>,
}

impl Step {
    /// Shapes of the outputs that are wanted.
    pub fn out_dims(&self) -> Vec<&[usize]> {
        self.outputs.iter().flatten().map(|s| &s.dims[..]).collect()
    }
}

/// How to run a graph for one set of input shapes.
pub struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) constants: Vec<Tensor>,
    /// Where each output of the graph is when all steps are done, in order.
    pub(crate) outputs: Vec<Slot>,
    pub(crate) arena: usize,
    pub(crate) scratch: usize,
    pub(crate) frames: std::sync::Mutex<Vec<Frame>>,
}

impl Plan {
    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Bytes that a run works in: values between steps, scratch memory of kernels, and outputs.
    pub fn peak_bytes(&self) -> usize {
        self.arena + self.scratch + self.outputs.iter().map(Slot::bytes).sum::<usize>()
    }

    /// Types of the graph's outputs, in order.
    pub fn output_types(&self) -> Vec<Type> {
        self.outputs
            .iter()
            .map(|s| Type::tensor(s.dtype, s.dims.iter().copied()))
            .collect()
    }
}
