//! Kernels one after the other.

use super::{Io, Kernel, ViewMut};
use crate::ops::OpError;

/// Folds all inputs into output 0, from left to right.
pub struct Chain {
    /// Each combines its inputs 0 and 1: the first one the node's, the others the result so far and the node's next.
    pub steps: Vec<Box<dyn Kernel>>,
    /// Changes the result in the end.
    pub last: Option<Box<dyn Kernel>>,
}

impl Kernel for Chain {
    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        for (i, step) in self.steps.iter().enumerate() {
            match i {
                0 => step.run(io)?,
                _ => rerun(&**step, io, Some(i + 1))?,
            }
        }
        match &self.last {
            Some(last) => rerun(&**last, io, self.steps.is_empty().then_some(0)),
            None => Ok(()),
        }
    }
}

/// Runs `kernel` on output 0 and on the node's input `next`; alone on that, if nothing was written yet.
fn rerun(kernel: &dyn Kernel, io: &mut Io, next: Option<usize>) -> Result<(), OpError> {
    let so_far = io.output(0).again();
    let inputs = match next {
        Some(0) => [io.inputs[0], None],
        Some(i) => [Some(so_far), io.inputs[i]],
        None => [Some(so_far), None],
    };
    let pool = io.pool;
    let Io { outputs, scratch, .. } = io;
    let mut outputs = [outputs[0].as_mut().map(ViewMut::reborrow)];
    kernel.run(&mut Io {
        inputs: &inputs,
        outputs: &mut outputs,
        scratch,
        pool,
    })
}
