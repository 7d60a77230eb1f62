//! Matrix products whose right operand has zeros.

use super::cpu::{Added, Extra, addends};
use super::matrices::Matrices;
use crate::cpu::sparse::{Addend, At, Code, Operands, Plan, Product, Rows};
use crate::cpu::{Candidate, Io, Kernel};
use crate::ops::{NodeRef, OpError};

/// Most rows of the left operand.
const ROWS: usize = 1 << 20;

/// The kernel that leaves out weights that are zero.
pub(super) fn candidate(n: &NodeRef, m: &Matrices, extra: &Extra) -> Option<Candidate> {
    let matrix = m.weights();
    let one = m.batch.iter().all(|b| b[1] == 0) && (m.a.col == 1 || m.k == 1);
    if !one || m.batch.is_empty() || m.batch.len().saturating_mul(m.m) > ROWS {
        return None;
    }
    let zeros = n.zeros(1, matrix)?;
    let add = addends(n, m, extra)?;
    let fits = |a: &Added| a.scale == 1.0 && (a.col == 1 || m.n == 1);
    if !add.iter().flatten().all(fits) {
        return None;
    }
    let each = || {
        m.batch
            .iter()
            .enumerate()
            .flat_map(|(p, b)| (0..m.m).map(move |i| (p, b[0], i)))
    };
    let place = |at: usize| u32::try_from(at).ok().filter(|&at| at < u32::MAX);
    let from = each().map(|(_, a, i)| place(a + i * m.a.row));
    let to = each().map(|(p, _, i)| place((p * m.m + i) * m.n));
    let plan = Plan::rows(Rows {
        from: from.collect::<Option<_>>()?,
        to: to.collect::<Option<_>>()?,
        matrix,
        zeros,
        post: extra.post,
    })?;
    let places = |a: &Added| {
        let same = a.row == 0 && a.starts.iter().all(|&s| s == 0);
        let all = each().map(|(p, _, i)| place(a.starts[p] + i * a.row));
        let all = if same {
            None
        } else {
            Some(plan.places(all.collect::<Option<_>>()?))
        };
        Some((a.input, all))
    };
    let mut added = [const { None }; 2];
    for (added, a) in added.iter_mut().zip(add.iter().flatten()) {
        *added = Some(places(a)?);
    }
    let (cut, alpha) = (plan.cut().clone(), extra.alpha);
    let mut order = cut.order();
    order.name += &format!(" times {alpha}");
    let pack = n.packs(1, order, move |w| match alpha {
        1.0 => Code::new(w, &cut),
        _ => Code::new(&w.iter().map(|w| w * alpha).collect::<Vec<_>>(), &cut),
    })?;
    let op = n.node().op.to_lowercase();
    let name = format!("{op}.f32.{}.sparse", secateur_simd::isa());
    let sparsity = plan.sparsity();
    let made = Candidate::later(name, plan.cost(), move || Sparse {
        kernel: Product::new(plan, pack()),
        add: added,
    });
    Some(made.sparse(sparsity))
}

/// A product without the weights that are zero, and the inputs that are added, with their place for each row.
struct Sparse {
    kernel: Product,
    add: [Option<(usize, Option<Vec<u32>>)>; 2],
}

impl Kernel for Sparse {
    fn scratch(&self, threads: usize) -> usize {
        self.kernel.scratch(threads)
    }

    fn reads(&self, i: usize) -> bool {
        i != 1
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let add = [0, 1].map(|i: usize| {
            let (input, at) = self.add[i].as_ref()?;
            Some(Addend {
                x: io.input(*input).ptr(),
                at: at.as_deref().map_or(At::Nowhere, At::Places),
            })
        });
        let all = Operands {
            x: io.input(0).ptr(),
            y: io.output(0).ptr(),
            add,
        };
        // SAFETY: the plan was made for the shapes of the inputs and the output, which nobody else writes to.
        unsafe { self.kernel.run(all, io.scratch, io.pool) };
        Ok(())
    }
}
