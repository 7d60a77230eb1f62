//! Products of a few rows with a right operand that has zeros.

use std::sync::Arc;

use super::cpu::{Added, Extra, added, addends};
use super::matrices::Matrices;
use crate::cpu::sparse::{Sparsity, Tokens, Vector};
use crate::cpu::{Candidate, Cost, Io, Kernel, Post};
use crate::ops::{NodeRef, OpError};

/// The kernel that reads as few bytes of weights as can be. It takes any number of rows, so that a batch may take what was chosen
/// for one of them; the price says that it is for few.
pub(super) fn candidate(n: &NodeRef, m: &Matrices, extra: &Extra) -> Option<Candidate> {
    let (size, strides, rows) = ((m.k, m.n), m.b, m.batch.len() * m.m);
    let add = addends(n, m, extra)?;
    let even = |p: usize, at: &[usize; 2]| {
        let first = p * m.m;
        let along = |a: &Added| a.starts[p] == first * a.row;
        *at == [first * m.a.row, 0] && add.iter().flatten().all(along)
    };
    let even = m.batch.iter().enumerate().all(|(p, at)| even(p, at));
    if !even || extra.alpha != 1.0 || rows == 0 || (m.a.col != 1 && m.k != 1) {
        return None;
    }
    let zeros = n.zeros(1, m.weights())?;
    let ending = extra.post.flops() * (rows * m.n) as f64;
    let cost = |live: usize| {
        let cost = Vector::cost(live, size, rows);
        Cost {
            flops: cost.flops + ending,
            ..cost
        }
    };
    let costs = (0..=100)
        .map(|share| cost(zeros.len * (100 - share) / 100))
        .collect();
    let sparsity = Sparsity { zeros, costs };
    if !sparsity.is_worth() {
        return None;
    }
    let pack = n.packs(1, Vector::order(size, strides), move |w| {
        Vector::new(w, size, strides)
    })?;
    let op = n.node().op.to_lowercase();
    let name = format!("{op}.f32.{}.sparse.vector", secateur_simd::isa());
    let (pitch, post) = (m.a.row, extra.post);
    let made = Candidate::later(name, cost(zeros.live), move || Product {
        weights: pack(),
        rows,
        pitch,
        add,
        post,
    });
    Some(made.sparse(sparsity))
}

/// A product by [`Vector`].
struct Product {
    weights: Arc<Vector>,
    rows: usize,
    pitch: usize,
    add: [Option<Added>; 2],
    post: Post,
}

impl Kernel for Product {
    fn reads(&self, i: usize) -> bool {
        i != 1
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let add = added(io, &self.add);
        let all = Tokens {
            x: io.input(0).ptr(),
            rows: self.rows,
            pitch: self.pitch,
            y: io.output(0).ptr(),
            add,
            post: self.post,
        };
        // SAFETY: sizes and strides are those of the inputs and the output, which nobody else writes to.
        unsafe { self.weights.run(all, io.pool) };
        Ok(())
    }
}
