//! Kernels of gradients of the weights of convolutions.

use crate::cpu::blocked::{self, BLOCK, Gradient};
use crate::cpu::conv::Shape;
use crate::cpu::{Candidate, Cost, Post};
use crate::ir::DType;
use crate::ops::NodeRef;
use crate::ops::window::Windows;

/// The convolution whose weights have the gradient; `None` where sizes are not known or do not go together.
fn shape(n: &NodeRef) -> Option<Shape> {
    let (x, dy, w) = (n.dims(0)?, n.dims(1)?, n.out_dims(0)?);
    let groups = usize::try_from(super::group(n).ok()?).ok()?;
    let size = n.ints("kernel_shape").ok()??;
    let mut window = Windows::of(n, size.len(), size.to_vec())
        .ok()?
        .over(&x[2..])
        .ok()?;
    let fits = dy[2..].iter().zip(&window.output).all(|(dy, all)| dy <= all);
    window.output = dy[2..].to_vec();
    let s = Shape {
        images: x[0],
        groups,
        inputs: w[1],
        outputs: w[0] / groups,
        window,
        post: Post::NONE,
    };
    (fits && x[0] == dy[0] && w[0] == dy[1] && x[1] == groups * w[1]).then_some(s)
}

/// The kernels on blocks of channels.
pub(super) fn candidates(n: &NodeRef) -> Vec<Candidate> {
    let s = shape(n).filter(|s| n.dtype(0) == Some(DType::F32) && !s.window.is_wide());
    let Some(s) = s else { return vec![] };
    let made = |variant: &str, macs: f64, efficiency, build: fn(Shape) -> Gradient| {
        let rows = variant == "rows";
        let name = format!("convgradw.f32.{}.blocks.{variant}", secateur_simd::isa());
        let (cost, s) = (cost(&s, macs, efficiency, rows), s.clone());
        Candidate::later(name, cost, move || build(s)).blocked(if rows { &[1] } else { &[0, 1] }, false)
    };
    let whole = |c: usize| c.next_multiple_of(BLOCK) as f64;
    if blocked::Depthwise::fits(&s) {
        let macs = s.work() / s.groups.max(1) as f64 * whole(s.groups);
        return vec![made("depthwise", macs, 0.2, Gradient::depthwise)];
    }
    let mut all = vec![];
    if blocked::Direct::fits(&s) {
        let variant = if blocked::Direct::reads_rows(&s) {
            "rows"
        } else {
            "direct"
        };
        let macs = s.work() / s.outputs.max(1) as f64 * whole(s.outputs);
        all.push(made(variant, macs, 0.85, Gradient::direct));
    }
    if blocked::Winograd::fits(&s) {
        let (macs, _) = blocked::Winograd::work(&s, true);
        all.push(made("winograd4", macs, 0.65, Gradient::winograd));
    }
    all
}

/// Both images are read, and partial sums of slices of the batch written and read.
fn cost(s: &Shape, macs: f64, efficiency: f64, rows: bool) -> Cost {
    let whole = |c: usize, rows: bool| if rows { c } else { c.next_multiple_of(BLOCK) };
    let x = whole(s.groups * s.inputs, rows) * s.window.plane();
    let dy = whole(s.groups * s.outputs, false) * s.window.positions();
    let sums = s.images.min(8) * s.groups * s.outputs * s.depth();
    Cost {
        flops: 2.0 * macs,
        bytes: 4.0 * (s.images * (x + dy) + 2 * sums) as f64,
        efficiency,
    }
}
