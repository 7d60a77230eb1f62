//! Kernels of transposed convolutions.

use super::{Inputs, Sizes};
use crate::cpu::conv::{Images, Transposed};
use crate::cpu::{Candidate, Cost, Io, Kernel};
use crate::ir::DType;
use crate::ops::{NodeRef, OpError};

pub(super) fn candidates(n: &NodeRef, inputs: Inputs) -> Vec<Candidate> {
    let (Some(x), Some(w), Some(y)) = (n.dims(0), n.dims(1), n.out_dims(0)) else {
        return vec![];
    };
    let Some(s) = Sizes::of(n, inputs, &x, &w).ok().filter(|s| s.dims() == y) else {
        return vec![];
    };
    if n.dtype(0) != Some(DType::F32) || s.window.is_wide() {
        return vec![];
    }
    let count = |d: &[usize]| d.iter().map(|&n| n as f64).product::<f64>();
    let cost = Cost {
        flops: 2.0 * count(&x) * count(&w[1..]),
        bytes: 4.0 * (count(&x) + count(&w) + count(&y)),
        efficiency: 0.4,
    };
    let kernel = Transposed::new(&s.window, s.images, s.groups, [s.inputs, s.outputs]);
    let made = kernel.map(|kernel| {
        let kernel = Spreading {
            kernel,
            bias: n.has(inputs.bias).then_some(inputs.bias),
        };
        Candidate::new(
            format!("convtranspose.f32.{}", secateur_simd::isa()),
            cost,
            kernel,
        )
    });
    made.into_iter().collect()
}

struct Spreading {
    kernel: Transposed,
    bias: Option<usize>,
}

impl Kernel for Spreading {
    fn scratch(&self, threads: usize) -> usize {
        self.kernel.scratch(threads)
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let images = Images {
            x: io.input(0).ptr(),
            bias: self.bias.map_or(std::ptr::null(), |i| io.input(i).ptr()),
            residual: std::ptr::null(),
            y: io.output(0).ptr(),
        };
        let w = io.input(1).slice();
        // SAFETY: the sizes are those of the inputs and the output, which nobody else writes to.
        unsafe { self.kernel.run(images, w, io.scratch, io.pool) };
        Ok(())
    }
}
