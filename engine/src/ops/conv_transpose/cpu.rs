//! Kernels of transposed convolutions.

use std::sync::Arc;

use super::{Inputs, Sizes};
use crate::cpu::blocked::{BLOCK, Convolution, Fresh, Phase, Winograd};
use crate::cpu::conv::{self, Images, Shape};
use crate::cpu::sparse::{Code, Matrix, Plan, Product, Sparsity};
use crate::cpu::{Candidate, Cost, Io, Kernel, Post};
use crate::ir::DType;
use crate::ops::conv::cpu::{InBlocks, bias, cost_in_blocks, packing};
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
    let kernel = conv::Transposed::new(&s.window, s.images, s.groups, [s.inputs, s.outputs]);
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
    made.into_iter().chain(in_blocks(n, inputs, s)).collect()
}

/// The kernel that leaves out weights that are zero.
fn sparse(n: &NodeRef, inputs: Inputs, phases: &[Arc<Phase>]) -> Option<Candidate> {
    let bias = bias(n, inputs.bias)?;
    let w = n.konst(1)?;
    let zeros = n.zeros(1, Matrix::rows(1, w.len()))?;
    let plans = |share: f64| phases.iter().map(|p| p.sparse(share)).collect::<Option<Vec<_>>>();
    let all = plans(zeros.share())?;
    let sum = |costs: &[Cost]| Cost {
        flops: costs.iter().map(|c| c.flops).sum(),
        bytes: costs.iter().map(|c| c.bytes).sum(),
        efficiency: 0.9,
    };
    let each: Vec<_> = all.iter().map(|p| p.sparsity().costs).collect();
    let at = |percent: usize| sum(&each.iter().map(|costs| costs[percent]).collect::<Vec<_>>());
    let costs = (0..=100).map(at).collect();
    let cost = sum(&all.iter().map(Plan::cost).collect::<Vec<_>>());
    let pack = |(phase, plan): (&Arc<Phase>, Plan)| {
        let (own, cut) = (phase.clone(), plan.cut().clone());
        let code = n.packs(1, phase.order_of(&plan), move |w| Code::new(&own.own(w), &cut))?;
        Some((plan, code))
    };
    let packs = phases.iter().zip(all).map(pack).collect::<Option<Vec<_>>>()?;
    let name = format!("convtranspose.f32.{}.blocks.sparse", secateur_simd::isa());
    let made = Candidate::later(name, cost, move || {
        let all = packs.into_iter().map(|(plan, code)| {
            let product = Product::new(plan, code());
            Convolution::Sparse(Box::new(product))
        });
        InBlocks {
            kernel: Convolution::Transposed(all.collect()),
            bias: bias(),
            residual: false,
        }
    });
    Some(made.blocked(&[0], true).sparse(Sparsity { zeros, costs }))
}

/// The kernel on blocks of channels, for weights that are known.
fn in_blocks(n: &NodeRef, inputs: Inputs, s: Sizes) -> Vec<Candidate> {
    let shape = Shape {
        images: s.images,
        groups: s.groups,
        inputs: s.inputs,
        outputs: s.outputs,
        window: s.window,
        post: Post::NONE,
    };
    let known = n.konst(1).is_some() && (!n.has(inputs.bias) || n.konst(inputs.bias).is_some());
    if let Some(p) = Phase::depthwise(&shape).filter(|_| !known) {
        let cost = packing(cost_in_blocks(p.shape(), "depthwise"), &shape);
        let build = move || Fresh::depthwise(p.shape().clone(), p.origin());
        return vec![made(n, inputs, ".depthwise", cost, Box::new(build))];
    }
    let phases = match known || n.has(inputs.bias) {
        true => Phase::all(&shape),
        false => Phase::some(&shape),
    };
    let phases: Vec<Arc<Phase>> = phases.into_iter().map(Arc::new).collect();
    if phases.is_empty() {
        return vec![];
    }
    if !known {
        return fresh(n, inputs, &shape, &phases);
    }
    let both = [dense(n, inputs, &shape, &phases), sparse(n, inputs, &phases)];
    both.into_iter().flatten().collect()
}

/// A kernel that packs the weights in each run.
fn made(
    n: &NodeRef,
    inputs: Inputs,
    variant: &str,
    cost: Cost,
    build: Box<dyn FnOnce() -> Fresh + Send>,
) -> Candidate {
    let bias = n.has(inputs.bias).then_some(inputs.bias);
    let name = format!("convtranspose.f32.{}.blocks{variant}.fresh", secateur_simd::isa());
    Candidate::later(name, cost, move || build().with(bias, false)).blocked(&[0], true)
}

/// The kernels that pack the weights in each run.
fn fresh(n: &NodeRef, inputs: Inputs, s: &Shape, phases: &[Arc<Phase>]) -> Vec<Candidate> {
    let own = phases.to_vec();
    let gaps = phases.len() < s.window.strides.iter().product();
    let each = move || {
        let all = own.iter().map(|p| (p.dense(None), p.shape().clone(), p.origin()));
        let all = Fresh::phases(all);
        if gaps { all.with_gaps() } else { all }
    };
    let mut all = vec![made(n, inputs, "", packing(cost(s, phases), s), Box::new(each))];
    let single = phases
        .first()
        .filter(|p| phases.len() == 1 && !gaps && Winograd::fits(p.shape()));
    for (p, four) in single
        .into_iter()
        .flat_map(|p| [(p.clone(), false), (p.clone(), true)])
    {
        let variant = if four { ".winograd4" } else { ".winograd2" };
        let cost = packing(cost_in_blocks(p.shape(), &variant[1..]), s);
        let build = move || Fresh::winograd(p.shape().clone(), p.origin(), four);
        all.push(made(n, inputs, variant, cost, Box::new(build)));
    }
    all
}

fn dense(n: &NodeRef, inputs: Inputs, s: &Shape, phases: &[Arc<Phase>]) -> Option<Candidate> {
    let bias = bias(n, inputs.bias)?;
    let pack = |p: &Arc<Phase>| {
        let own = p.clone();
        Some((p.clone(), n.packs(1, p.order(), move |w| own.pack(w))?))
    };
    let packs = phases.iter().map(pack).collect::<Option<Vec<_>>>()?;
    let name = format!("convtranspose.f32.{}.blocks", secateur_simd::isa());
    let made = Candidate::later(name, cost(s, phases), move || InBlocks {
        kernel: Convolution::Transposed(packs.into_iter().map(|(p, w)| p.dense(Some(w()))).collect()),
        bias: bias(),
        residual: false,
    });
    Some(made.blocked(&[0], true))
}

/// What the phases cost together.
fn cost(s: &Shape, phases: &[Arc<Phase>]) -> Cost {
    let macs: f64 = phases.iter().map(|p| p.work()).sum();
    let whole = |c: usize| (s.groups * c).next_multiple_of(BLOCK) as f64;
    let pixels = whole(s.inputs) * s.window.positions() as f64 * phases.len() as f64
        + whole(s.outputs) * s.window.plane() as f64;
    Cost {
        flops: 2.0 * macs,
        bytes: 2.0 * s.images as f64 * pixels,
        efficiency: 0.85,
    }
}

struct Spreading {
    kernel: conv::Transposed,
    bias: Option<usize>,
}

impl Kernel for Spreading {
    fn scratch(&self, threads: usize) -> usize {
        self.kernel.scratch(threads)
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let images = Images {
            x: io.input(0).ptr(),
            w: std::ptr::null(),
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
