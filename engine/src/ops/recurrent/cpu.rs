//! Kernels of recurrent layers: one product for the inputs of all steps, then small products with packed weights.

use std::sync::Arc;

use super::squash::Squash;
use super::{
    Attrs, B, C0, Cell, H0, LENS, P, R, Recurrent, STEPS, Sizes, W, X, bytes, lengths, per_direction,
};
use crate::cpu::gemm::{Addend, Gemm, Operands, Panels, Place, Rhs, Strides};
use crate::cpu::{Candidate, Cost, Io, Kernel, Order, Pool, Post, moves};
use crate::ir::DType;
use crate::ops::{NodeRef, OpError};

/// Multiply-adds of a step above which threads share it rather than take a direction each.
const SHARED: usize = 1 << 20;

pub(super) fn candidates(n: &NodeRef, op: &Recurrent) -> Option<Candidate> {
    let (attrs, cell) = (Attrs::of(n, op).ok()?, op.cell);
    let sizes = Sizes::of(n, &attrs).ok()?;
    let fits = n.dtype(X) == Some(DType::F32) && n.dtype(LENS).is_none_or(|d| d == DType::I32);
    if !fits || n.out_dims(0).is_some_and(|y| y != sizes.shapes()[0]) {
        return None;
    }
    let (g, h) = (cell.gates() * sizes.hidden, sizes.hidden);
    let strides = Strides {
        row: 1,
        col: sizes.inputs,
    };
    let order = Panels::order(sizes.directions, (sizes.inputs, g), strides);
    let w = n.konst(W).map(|t| {
        n.packed(W, &order, || {
            of_inputs(&t.elements().unwrap_or_default(), cell, &sizes)
        })
    });
    let order = order_of_state(cell, &sizes);
    let r = n.konst(R).map(|t| {
        n.packed(R, &order, || {
            of_state(&t.elements().unwrap_or_default(), cell, &sizes)
        })
    });
    let work = [sizes.steps, sizes.batch, sizes.directions, g, sizes.inputs + h];
    let read = [
        sizes.steps * sizes.batch * (sizes.inputs + g),
        g * (sizes.inputs + h),
    ];
    let cost = Cost {
        flops: 2.0 * work.iter().map(|&n| n as f64).product::<f64>(),
        bytes: 4.0 * read.iter().map(|&n| n as f64).sum::<f64>(),
        efficiency: 0.2,
    };
    let name = format!("{}.f32.{}", n.node().op.to_lowercase(), secateur_simd::isa());
    Some(Candidate::new(name, cost, Layer { attrs, sizes, w, r }))
}

/// The weights of inputs, one matrix for each direction.
fn of_inputs(w: &[f32], cell: Cell, s: &Sizes) -> Panels {
    let strides = Strides {
        row: 1,
        col: s.inputs,
    };
    Panels::new(w, s.directions, (s.inputs, cell.gates() * s.hidden), strides)
}

/// The recurrent weights: for each direction those of the products of a step, of which a GRU has two.
fn of_state(r: &[f32], cell: Cell, s: &Sizes) -> Vec<Panels> {
    let strides = Strides {
        row: 1,
        col: s.hidden,
    };
    let mut all = vec![];
    let mut rest = r;
    for part in products(cell).repeat(s.directions) {
        let cols = part * s.hidden;
        let (own, behind) = rest.split_at(cols * s.hidden);
        all.push(Panels::new(own, 1, (s.hidden, cols), strides));
        rest = behind;
    }
    all
}

/// The gates of each product of a step.
fn products(cell: Cell) -> &'static [usize] {
    match cell {
        Cell::Gru => &[2, 1],
        Cell::Rnn => &[1],
        Cell::Lstm => &[4],
    }
}

/// The order that [`of_state`] makes.
fn order_of_state(cell: Cell, s: &Sizes) -> Order {
    let strides = Strides {
        row: 1,
        col: s.hidden,
    };
    let one = |gates: &usize| Panels::order(1, (s.hidden, gates * s.hidden), strides);
    let all: Vec<_> = products(cell).repeat(s.directions).iter().map(one).collect();
    Order {
        name: format!(
            "{cell:?} {}",
            all.iter().map(|o| &*o.name).collect::<Vec<_>>().join(", ")
        ),
        parts: all.into_iter().flat_map(|o| o.parts).collect(),
        ..Order::default()
    }
}

struct Layer {
    attrs: Attrs,
    sizes: Sizes,
    w: Option<Arc<Panels>>,
    r: Option<Arc<Vec<Panels>>>,
}

/// What all directions read, and where they write.
struct Given<'a> {
    x: &'a [f32],
    w: &'a Panels,
    r: &'a [Panels],
    b: Option<&'a [f32]>,
    p: Option<&'a [f32]>,
    lens: Vec<usize>,
    states: [Option<&'a [f32]>; 2],
    rounded: Option<Rounded<'a>>,
    y: Rows,
    last: [Rows; 2],
}

/// The sizes of steps: of the inputs, and of the weights of inputs and states.
struct Rounded<'a> {
    x: f32,
    weights: [&'a [f32]; 2],
    /// How many of the weights' each direction has.
    per: [usize; 2],
}

impl Rounded<'_> {
    /// `row = row * step * steps + add`, where `steps` are those of weights `i` in direction `d`.
    fn apply(&self, (i, d): (usize, usize), step: f32, row: &mut [f32], add: &[f32]) {
        let own = &self.weights[i][d * self.per[i]..(d + 1) * self.per[i]];
        for (j, (x, add)) in row.iter_mut().zip(add).enumerate() {
            *x = *x * (step * own[if self.per[i] == 1 { 0 } else { j }]) + add;
        }
    }
}

/// Rows of an output; null where nobody wants it.
#[derive(Clone, Copy)]
struct Rows(*mut f32);

// SAFETY: each direction writes rows of its own.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}

impl Rows {
    fn of(io: &mut Io, i: usize) -> Rows {
        let y = io.outputs.get(i).and_then(Option::as_ref);
        Rows(y.map_or(std::ptr::null_mut(), |y| y.ptr()))
    }

    /// # Safety
    ///
    /// The output has such a row of `from.len()` floats, and nobody else writes to it.
    unsafe fn write(self, row: usize, from: &[f32]) {
        if !self.0.is_null() {
            // SAFETY: as the caller promises.
            unsafe {
                self.0
                    .add(row * from.len())
                    .copy_from_nonoverlapping(from.as_ptr(), from.len())
            };
        }
    }
}

/// The memory of a direction.
struct Memory<'m> {
    /// What the inputs give to the gates, `[steps, batch, gates * hidden]` or with the batch first.
    gates: &'m mut [f32],
    /// Biases of the gates, then of what a GRU resets late.
    bias: &'m mut [f32],
    z: &'m mut [f32],
    h: &'m mut [f32],
    c: &'m mut [f32],
    t: &'m mut [f32],
}

impl Layer {
    /// Floats of each part of [`Memory`].
    fn parts(&self) -> [usize; 6] {
        let (s, g) = (&self.sizes, self.attrs.cell.gates());
        let state = s.batch * s.hidden;
        let line = |n: usize| n.next_multiple_of(16);
        [
            line(s.steps.saturating_mul(state * g).min(usize::MAX - 16)),
            line((g + 1) * s.hidden),
            line(g * state),
            line(state),
            line(state),
            line(state),
        ]
    }

    fn each(&self) -> usize {
        self.parts().iter().fold(0, |n: usize, &p| n.saturating_add(p))
    }

    /// Floats for rounded inputs.
    fn rounded(&self) -> usize {
        let s = &self.sizes;
        let all = s.steps.saturating_mul(s.batch).saturating_mul(s.inputs);
        if self.attrs.rounds { all } else { 0 }
    }

    fn memory<'m>(&self, mut rest: &'m mut [f32]) -> Memory<'m> {
        let [gates, bias, z, h, c, t] = self.parts().map(|len| {
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(len);
            rest = behind;
            part
        });
        Memory {
            gates,
            bias,
            z,
            h,
            c,
            t,
        }
    }
}

impl Kernel for Layer {
    fn reads(&self, i: usize) -> bool {
        !(i == W && self.w.is_some() || i == R && self.r.is_some())
    }

    fn scratch(&self, _threads: usize) -> usize {
        self.each()
            .saturating_mul(self.sizes.directions)
            .saturating_add(self.rounded())
            .saturating_mul(size_of::<f32>())
    }

    fn run(&self, io: &mut Io) -> Result<(), OpError> {
        let (s, cell) = (&self.sizes, self.attrs.cell);
        let views = io.inputs;
        let given = |i: usize| views.get(i).copied().flatten();
        let floats = |i: usize| given(i).map(|v| v.slice::<f32>());
        let lens = given(LENS).map(|v| v.slice::<i32>().iter().map(|&l| i64::from(l)).collect());
        let lens = lengths(lens, s)?;
        if let Some(y) = io.outputs[0]
            .as_mut()
            .filter(|_| lens.iter().any(|&l| l < s.steps))
        {
            y.slice::<f32>().fill(0.0);
        }
        let w = self.w.clone();
        let w = w.unwrap_or_else(|| Arc::new(of_inputs(floats(W).unwrap_or(&[]), cell, s)));
        let r = self.r.clone();
        let r = r.unwrap_or_else(|| Arc::new(of_state(floats(R).unwrap_or(&[]), cell, s)));
        let (pool, each) = (io.pool, self.each());
        let last = [1, 2].map(|i| Rows::of(io, i));
        let y = Rows::of(io, 0);
        let (all, rest) = bytemuck::cast_slice_mut(io.scratch).split_at_mut(each * s.directions);
        let (mut x, mut rounded) = (floats(X).unwrap_or(&[]), None);
        if self.attrs.rounds {
            let own = &mut rest[..self.rounded()];
            own.copy_from_slice(x);
            let longest = lens.iter().copied().max().unwrap_or(0);
            let step = bytes::count(&mut own[..longest * s.batch * s.inputs]);
            let weights = STEPS.map(|i| floats(i).unwrap_or(&[]));
            let per = [
                per_direction(weights[0].len(), s)?,
                per_direction(weights[1].len(), s)?,
            ];
            rounded = Some(Rounded {
                x: step,
                weights,
                per,
            });
            x = own;
        }
        let given = Given {
            x,
            w: &w,
            r: &r,
            b: floats(B),
            p: floats(P).filter(|_| cell == Cell::Lstm),
            lens,
            states: [floats(H0), floats(C0).filter(|_| cell == Cell::Lstm)],
            rounded,
            y,
            last,
        };
        let step = s.batch * s.hidden * s.hidden * cell.gates();
        if pool.threads() == 2 || step < SHARED {
            moves::chunks(pool, all, each, &|d, part| self.direction(d, &given, part, pool));
        } else {
            let parts = all.chunks_mut(each).enumerate();
            parts.for_each(|(d, part)| self.direction(d, &given, part, pool));
        }
        Ok(())
    }
}

impl Layer {
    fn direction(&self, d: usize, given: &Given, memory: &mut [f32], pool: &Pool) {
        let (s, h) = (&self.sizes, self.sizes.hidden);
        let mut m = self.memory(memory);
        self.biases(d, given, m.bias);
        self.inputs(d, given, &mut m, pool);
        for (i, state) in [&mut *m.h, &mut *m.c].into_iter().enumerate() {
            for (b, row) in state.chunks_exact_mut(h.max(1)).take(s.batch).enumerate() {
                let at = s.row_of_state(d, b) * h;
                match given.states[i] {
                    Some(from) => row.copy_from_slice(&from[at..at + h]),
                    None => row.fill(0.0),
                }
            }
        }
        for i in 0..given.lens.iter().copied().max().unwrap_or(0) {
            self.step(d, i, given, &mut m, pool);
        }
        for b in 0..s.batch {
            let row = s.row_of_state(d, b);
            // SAFETY: the states have these rows, which only this direction writes to.
            unsafe {
                given.last[0].write(row, &m.h[b * h..(b + 1) * h]);
                given.last[1].write(row, &m.c[b * h..(b + 1) * h]);
            }
        }
    }

    /// Sums of the biases of inputs and of recurrent weights, but for what is reset late.
    fn biases(&self, d: usize, given: &Given, bias: &mut [f32]) {
        let (h, g) = (self.sizes.hidden, self.attrs.cell.gates());
        bias.fill(0.0);
        let Some(b) = given.b else { return };
        let (w, r) = b[d * 2 * g * h..(d + 1) * 2 * g * h].split_at(g * h);
        bias[..g * h].copy_from_slice(w);
        let joint = if self.attrs.late_reset { 2 * h } else { g * h };
        bias[..joint].iter_mut().zip(r).for_each(|(b, r)| *b += r);
        bias[g * h..][..g * h - joint].copy_from_slice(&r[joint..]);
    }

    /// The product for the inputs of all steps.
    fn inputs(&self, d: usize, given: &Given, m: &mut Memory, pool: &Pool) {
        let (s, n) = (&self.sizes, self.attrs.cell.gates() * self.sizes.hidden);
        let gemm = product(s.steps * s.batch, n, s.inputs);
        let from = d * Panels::len(s.inputs, n);
        let x = Operands {
            a: given.x.as_ptr(),
            b: given.w.data.slice().as_ptr().wrapping_add(from),
            c: m.gates.as_mut_ptr(),
            add: match given.rounded {
                None => [row(m.bias), Addend::NONE],
                Some(_) => [Addend::NONE; 2],
            },
        };
        // SAFETY: the matrices have these sizes, and nobody else sees this direction's memory.
        unsafe { gemm.run(x, &mut [], pool) };
        if let Some(rounded) = &given.rounded {
            for row in m.gates[..s.steps * s.batch * n].chunks_exact_mut(n.max(1)) {
                rounded.apply((0, d), rounded.x, row, m.bias);
            }
        }
    }

    /// `out += state R`, with part `part` of the weights; with rounded ones `out = state R`.
    fn recur(&self, d: usize, part: usize, given: &Given, state: &[f32], out: &mut [f32], pool: &Pool) {
        let (s, parts) = (&self.sizes, given.r.len() / self.sizes.directions);
        let n = out.len() / s.batch.max(1);
        let x = Operands {
            a: state.as_ptr(),
            b: given.r[d * parts + part].data.slice().as_ptr(),
            c: out.as_mut_ptr(),
            add: match given.rounded {
                None => [Addend { row: n, ..row(out) }, Addend::NONE],
                Some(_) => [Addend::NONE; 2],
            },
        };
        // SAFETY: the state is `[batch, hidden]`, the output `[batch, n]`, and it is added to itself element by element.
        unsafe { product(s.batch, n, s.hidden).run(x, &mut [], pool) };
    }

    fn step(&self, d: usize, i: usize, given: &Given, m: &mut Memory, pool: &Pool) {
        let (s, h) = (&self.sizes, self.sizes.hidden);
        let g = self.attrs.cell.gates() * h;
        let at = |b: usize| {
            let len = given.lens[b];
            let step = if self.attrs.backwards[d] {
                len.wrapping_sub(i + 1)
            } else {
                i
            };
            (i < len).then_some(step)
        };
        match self.attrs.cell {
            Cell::Gru => self.gru(d, given, m, &at, pool),
            Cell::Lstm if let Some(rounded) = &given.rounded => {
                m.t.copy_from_slice(m.h);
                for b in (0..s.batch).filter(|&b| i > given.lens[b]) {
                    m.t[b * h..(b + 1) * h].fill(0.0);
                }
                let step = bytes::count(&mut m.t[..s.batch * h]);
                self.recur(d, 0, given, &m.t[..s.batch * h], &mut m.z[..s.batch * g], pool);
                for b in 0..s.batch {
                    let from = at(b).map_or(0, |step| s.row(step, b)) * g;
                    let add = &m.gates[from..from + g];
                    rounded.apply((1, d), step, &mut m.z[b * g..(b + 1) * g], add);
                }
            }
            _ => {
                for b in 0..s.batch {
                    let from = at(b).map_or(0, |step| s.row(step, b)) * g;
                    m.z[b * g..(b + 1) * g].copy_from_slice(&m.gates[from..from + g]);
                }
                self.recur(d, 0, given, &m.h[..s.batch * h], &mut m.z[..s.batch * g], pool);
            }
        }
        for b in 0..s.batch {
            let Some(step) = at(b) else { continue };
            let own = b * h..(b + 1) * h;
            let (state, c, t) = (&mut m.h[own.clone()], &mut m.c[own.clone()], &mut m.t[own]);
            match self.attrs.cell {
                Cell::Rnn => {
                    let z = &mut m.z[b * g..(b + 1) * g];
                    self.squash(self.attrs.functions[d][0], z);
                    state.copy_from_slice(z);
                }
                Cell::Lstm => self.lstm(d, given.p, &mut m.z[b * g..(b + 1) * g], [state, c, t]),
                Cell::Gru => {
                    let (z, candidate) = m.z.split_at(s.batch * 2 * h);
                    let (z, candidate) = (&z[b * 2 * h..], &candidate[b * h..]);
                    for j in 0..h {
                        state[j] = (1.0 - z[j]) * candidate[j] + z[j] * state[j];
                    }
                }
            }
            // SAFETY: the output has this row, which only this direction writes to.
            unsafe { given.y.write(s.row_of_y(step, d, b), &m.h[b * h..(b + 1) * h]) };
        }
    }

    /// The gates of a GRU: `z` and `r` of each sequence, and behind all of them the candidates.
    fn gru(&self, d: usize, given: &Given, m: &mut Memory, at: &dyn Fn(usize) -> Option<usize>, pool: &Pool) {
        let (s, h, f) = (&self.sizes, self.sizes.hidden, &self.attrs.functions[d]);
        let late = self.attrs.late_reset;
        let state = s.batch * h;
        let (zr, candidates) = m.z.split_at_mut(2 * state);
        let candidates = &mut candidates[..state];
        let from = |b: usize| at(b).map_or(0, |step| s.row(step, b)) * 3 * h;
        for b in 0..s.batch {
            let gates = &m.gates[from(b)..from(b) + 3 * h];
            zr[b * 2 * h..(b + 1) * 2 * h].copy_from_slice(&gates[..2 * h]);
            let start = if late {
                &m.bias[3 * h..4 * h]
            } else {
                &gates[2 * h..]
            };
            candidates[b * h..(b + 1) * h].copy_from_slice(start);
        }
        self.recur(d, 0, given, &m.h[..state], zr, pool);
        self.squash(f[0], zr);
        let resets = zr.chunks_exact(2 * h.max(1)).map(|zr| &zr[h..]);
        if late {
            self.recur(d, 1, given, &m.h[..state], candidates, pool);
            for (b, (row, r)) in candidates.chunks_exact_mut(h.max(1)).zip(resets).enumerate() {
                let gates = &m.gates[from(b) + 2 * h..];
                (0..h).for_each(|j| row[j] = gates[j] + r[j] * row[j]);
            }
        } else {
            let rows = m.t.chunks_exact_mut(h.max(1)).zip(m.h.chunks_exact(h.max(1)));
            for ((kept, old), r) in rows.zip(resets) {
                (0..h).for_each(|j| kept[j] = r[j] * old[j]);
            }
            self.recur(d, 1, given, &m.t[..state], candidates, pool);
        }
        self.squash(f[1], candidates);
    }

    /// The gates `z` of one sequence, and its state, cell and memory for a copy.
    fn lstm(&self, d: usize, p: Option<&[f32]>, z: &mut [f32], [state, c, t]: [&mut [f32]; 3]) {
        let (h, f) = (self.sizes.hidden, &self.attrs.functions[d]);
        let p = p.map(|p| &p[d * 3 * h..(d + 1) * 3 * h]);
        if let Some(p) = p {
            for j in 0..h {
                z[j] += p[j] * c[j];
                z[2 * h + j] += p[2 * h + j] * c[j];
            }
        }
        let (gates, candidate) = z.split_at_mut(3 * h);
        match p {
            None => self.squash(f[0], gates),
            Some(_) => {
                self.squash(f[0], &mut gates[..h]);
                self.squash(f[0], &mut gates[2 * h..]);
            }
        }
        self.squash(f[1], candidate);
        let (i, rest) = gates.split_at_mut(h);
        let (o, forget) = rest.split_at_mut(h);
        if self.attrs.coupled {
            (0..h).for_each(|j| forget[j] = 1.0 - i[j]);
        }
        (0..h).for_each(|j| c[j] = forget[j] * c[j] + i[j] * candidate[j]);
        if let Some(p) = p {
            (0..h).for_each(|j| o[j] += p[h + j] * c[j]);
            self.squash(f[0], o);
        }
        t.copy_from_slice(c);
        f[2].apply(t);
        (0..h).for_each(|j| state[j] = o[j] * t[j]);
    }

    fn squash(&self, f: Squash, x: &mut [f32]) {
        let clip = self.attrs.clip;
        if clip < f32::INFINITY {
            x.iter_mut().for_each(|x| *x = x.clamp(-clip, clip));
        }
        f.apply(x);
    }
}

/// A product with packed weights.
fn product(m: usize, n: usize, k: usize) -> Gemm {
    Gemm {
        m,
        n,
        k,
        a: Strides::rows(k),
        b: Rhs::Packed,
        batch: vec![Place::default()],
        alpha: 1.0,
        post: Post::NONE,
    }
}

/// The same floats added to each row.
fn row(x: &[f32]) -> Addend {
    Addend {
        ptr: x.as_ptr(),
        row: 0,
        col: 1,
        scale: 1.0,
    }
}
