//! Linear attention of floats: one task for each state.

use secateur_simd::{Simd, Vectorised, dispatch};

use super::super::heads::Sizes;
use super::super::linear::Update;
use super::lay::Target;
use crate::cpu::gemm::Scratch;
use crate::cpu::{Candidate, Cost, Io, Kernel};
use crate::ir::DType;
use crate::ops::{NodeRef, OpError};

/// The kernel.
struct Recur {
    s: Sizes,
    /// Columns of decay and of beta.
    columns: [usize; 2],
    scale: f32,
    fades: bool,
    corrects: bool,
}

/// The kernel for a node, if all its inputs are floats.
pub(in super::super) fn linear(
    n: &NodeRef,
    s: Sizes,
    columns: [usize; 2],
    update: Update,
) -> Option<Candidate> {
    if (0..6).any(|i| n.has(i) && n.dtype(i) != Some(DType::F32)) {
        return None;
    }
    let kernel = Recur {
        s,
        columns,
        scale: update.scale(s.depth) as f32,
        fades: update.fades,
        corrects: update.corrects,
    };
    let size = |all: [usize; 4]| all.iter().map(|&n| n as f64).product::<f64>();
    let state = size([s.batch * s.kv_heads, s.keys, s.depth, s.width]);
    let cost = Cost {
        flops: state * (6 + 2 * s.group()) as f64,
        bytes: 4.0 * size([s.batch, s.keys, s.heads + s.kv_heads, s.depth + s.width]),
        efficiency: 0.1,
    };
    let name = format!("linearattention.f32.{}", secateur_simd::isa());
    Some(Candidate::new(name, cost, kernel))
}

impl Recur {
    /// Floats that a task works in: the state, and a value.
    fn own(&self) -> usize {
        (self.s.depth.saturating_mul(self.s.width))
            .saturating_add(self.s.width)
            .next_multiple_of(16)
    }
}

impl Kernel for Recur {
    fn scratch(&self, threads: usize) -> usize {
        self.own()
            .saturating_mul(threads)
            .saturating_mul(size_of::<f32>())
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let s = &self.s;
        let input = |i: usize| io.inputs.get(i).copied().flatten().map(|v| v.slice::<f32>());
        let output = |i: usize| {
            io.outputs
                .get(i)
                .and_then(Option::as_ref)
                .map(|v| Target(v.ptr()))
        };
        let (q, k, v) = (io.input(0).slice(), io.input(1).slice(), io.input(2).slice());
        let (past, decay, beta) = (input(3), input(4), input(5));
        let (out, present) = (output(0), output(1));
        let scratch = Scratch::new(io.scratch);
        let each = s.depth * s.width;
        io.pool.run_with(s.batch * s.kv_heads, &|thread, task| {
            let own = scratch.of(thread, self.own());
            // SAFETY: each thread has such a part of the scratch memory.
            let (state, value) =
                unsafe { std::slice::from_raw_parts_mut(own, self.own()) }.split_at_mut(each);
            match past {
                Some(past) => state.copy_from_slice(&past[task * each..][..each]),
                None => state.fill(0.0),
            }
            let (b, h) = (task / s.kv_heads, task % s.kv_heads);
            for t in 0..s.keys {
                let at = b * s.keys + t;
                let fade = decay.filter(|_| self.fades).map(|all| {
                    let n = self.columns[0] / s.kv_heads;
                    &all[at * self.columns[0] + h * n..][..n]
                });
                let rate = beta
                    .filter(|_| self.corrects)
                    .map(|all| all[at * self.columns[1] + if self.columns[1] > 1 { h } else { 0 }]);
                let first = at * s.heads + h * s.group();
                dispatch(Step {
                    state,
                    value: &mut value[..s.width],
                    k: &k[(at * s.kv_heads + h) * s.depth..][..s.depth],
                    v: &v[(at * s.kv_heads + h) * s.width..][..s.width],
                    q: &q[first * s.depth..][..s.group() * s.depth],
                    fade,
                    rate,
                    scale: self.scale,
                    // SAFETY: these heads of this element are this task's own.
                    out: out.map(|out| unsafe {
                        std::slice::from_raw_parts_mut(out.line(first, s.width), s.group() * s.width)
                    }),
                });
            }
            if let Some(present) = present {
                // SAFETY: this state is this task's own.
                let to = unsafe { std::slice::from_raw_parts_mut(present.line(task, each), each) };
                to.copy_from_slice(state);
            }
        });
        Ok(())
    }
}

/// One element through one state, `[depth, width]`.
struct Step<'a> {
    state: &'a mut [f32],
    value: &'a mut [f32],
    k: &'a [f32],
    v: &'a [f32],
    /// The queries of the group.
    q: &'a [f32],
    /// The decay, of each row or of all.
    fade: Option<&'a [f32]>,
    rate: Option<f32>,
    scale: f32,
    out: Option<&'a mut [f32]>,
}

impl Vectorised for Step<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let width = self.v.len();
        if width == 0 {
            return;
        }
        self.value.fill(0.0);
        for (d, row) in self.state.chunks_exact_mut(width).enumerate() {
            if let Some(fade) = self.fade {
                let factor = fade[if fade.len() > 1 { d } else { 0 }].exp();
                row.iter_mut().for_each(|x| *x *= factor);
            }
            if self.rate.is_some() {
                add(self.value, row, self.k[d]);
            }
        }
        let rate = self.rate.unwrap_or(1.0);
        let known = self.rate.is_some();
        for (x, v) in self.value.iter_mut().zip(self.v) {
            *x = if known { rate * (v - *x) } else { *v };
        }
        for (row, &k) in self.state.chunks_exact_mut(width).zip(self.k) {
            add(row, self.value, k);
        }
        let Some(out) = self.out else { return };
        let depth = self.k.len();
        for (g, out) in out.chunks_exact_mut(width).enumerate() {
            out.fill(0.0);
            for (d, row) in self.state.chunks_exact(width).enumerate() {
                add(out, row, self.scale * self.q[g * depth + d]);
            }
        }
    }
}

/// `to += factor * from`
#[inline(always)]
fn add(to: &mut [f32], from: &[f32], factor: f32) {
    for (x, y) in to.iter_mut().zip(from) {
        *x += factor * y;
    }
}
