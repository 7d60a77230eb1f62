//! `RNN`, `GRU` and `LSTM`: layers that carry a state along a sequence.

mod bytes;
mod cases;
mod cpu;
mod scan;
mod squash;

use super::shape::{ranked, show};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, Tie, onnx, private};
use crate::cpu::Candidate;
use crate::expr::Ex;
use crate::ir::{DType, Dim, Shape, Tensor, count};
use squash::Squash;

/// What a layer does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    /// One function of input and state.
    Rnn,
    /// Gates that update and reset the state.
    Gru,
    /// Gates to a second state, the cell.
    Lstm,
}

impl Cell {
    fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru => 3,
            Cell::Lstm => 4,
        }
    }

    /// What it applies where the node does not say.
    fn functions(self) -> &'static [&'static str] {
        match self {
            Cell::Rnn => &["Tanh"],
            Cell::Gru => &["Sigmoid", "Tanh"],
            Cell::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// A layer that carries a state along a sequence.
pub struct Recurrent {
    name: &'static str,
    since: &'static [u16],
    cell: Cell,
    /// Whether inputs and states are rounded to bytes before they are multiplied.
    rounds: bool,
}

/// `H = f(X W + H R + B)`
pub static RNN: Recurrent = Recurrent {
    name: "RNN",
    since: &[1, 7, 14, 22],
    cell: Cell::Rnn,
    rounds: false,
};
/// Gates `z` and `r`, a candidate `h`, and `H = (1 - z) h + z H`.
pub static GRU: Recurrent = Recurrent {
    name: "GRU",
    since: &[1, 3, 7, 14, 22],
    cell: Cell::Gru,
    rounds: false,
};
/// Gates `i`, `o` and `f`, a candidate `c`, the cell `C = f C + i c` and `H = o h(C)`.
pub static LSTM: Recurrent = Recurrent {
    name: "LSTM",
    since: &[1, 7, 14, 22],
    cell: Cell::Lstm,
    rounds: false,
};

/// [`LSTM`] that multiplies no more than 256 different inputs, and states of a step, as ONNX Runtime's does with weights of
/// bytes: the weights are whole numbers, and two more inputs, `[directions]` or `[directions, 4 * hidden]`, are the sizes of their
/// steps. All inputs that any sequence has share one range, and so do the states of all sequences of a direction. The state
/// of a sequence that has ended counts for one more step, and as 0 then. With `layout` 0 only.
pub static ROUNDED_LSTM: Recurrent = Recurrent {
    name: "RoundedLSTM",
    since: &[1],
    cell: Cell::Lstm,
    rounds: true,
};

// The inputs.
const X: usize = 0;
const W: usize = 1;
const R: usize = 2;
const B: usize = 3;
const LENS: usize = 4;
const H0: usize = 5;
const C0: usize = 6;
const P: usize = 7;
/// The sizes of the steps of [`W`] and [`R`], where they have some.
const STEPS: [usize; 2] = [8, 9];

/// The attributes.
#[derive(Clone, Debug, PartialEq)]
struct Attrs {
    cell: Cell,
    /// Of each direction, whether it runs backwards.
    backwards: Vec<bool>,
    /// Whether the batch comes before the steps.
    batch_first: bool,
    /// The bound of what functions are applied to.
    clip: f32,
    /// Whether what an LSTM forgets is what it does not take in.
    coupled: bool,
    /// Whether a GRU resets after the product with the recurrent weights.
    late_reset: bool,
    /// Whether inputs and states are rounded to bytes.
    rounds: bool,
    /// The functions of each direction.
    functions: Vec<Vec<Squash>>,
    hidden: Option<i64>,
}

impl Attrs {
    fn of(n: &NodeRef, op: &Recurrent) -> Result<Attrs, OpError> {
        let cell = op.cell;
        // Older versions ask whether the first output is wanted; the outputs say so themselves.
        n.ignore(&["output_sequence"]);
        let backwards = match n.str_or("direction", "forward")? {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => return Err(OpError::new(format!("attribute \"direction\" is {other:?}"))),
        };
        let clip = n.float("clip")?.unwrap_or(f32::INFINITY);
        if clip.is_nan() || clip < 0.0 {
            return Err(OpError::new(format!(
                "attribute \"clip\" is {clip}; expected a positive number"
            )));
        }
        let batch_first = n.int_or("layout", 0)? != 0;
        if batch_first && op.rounds {
            return Err(OpError::new("attribute \"layout\": expected 0"));
        }
        Ok(Attrs {
            functions: squash::functions(n, cell.functions(), backwards.len())?,
            backwards,
            batch_first,
            clip,
            coupled: cell == Cell::Lstm && n.int_or("input_forget", 0)? != 0,
            late_reset: cell == Cell::Gru && n.int_or("linear_before_reset", 0)? != 0,
            rounds: op.rounds,
            hidden: n.int("hidden_size")?,
            cell,
        })
    }

    fn directions(&self) -> usize {
        self.backwards.len()
    }
}

/// `[steps, batch, inputs, hidden]`, as far as they are known.
fn letters(n: &NodeRef, a: &Attrs) -> Result<[Dim; 4], OpError> {
    let mut all = [Dim::Unknown, Dim::Unknown, Dim::Unknown, Dim::Unknown];
    if let Some(h) = a.hidden {
        all[3] = Dim::Known(h);
    }
    let gates = a.cell.gates() as i64;
    let (seq, batch) = if a.batch_first { (1, 0) } else { (0, 1) };
    let state = |i: usize| if a.batch_first { [1, 0, 2][i] } else { i };
    // Of each input and axis: which letter, how many times, `None` for directions.
    let mut seen: Vec<(usize, usize, Option<usize>, i64)> = vec![
        (X, seq, Some(0), 1),
        (X, batch, Some(1), 1),
        (X, 2, Some(2), 1),
        (W, 0, None, 1),
        (W, 2, Some(2), 1),
        (W, 1, Some(3), gates),
        (R, 0, None, 1),
        (R, 1, Some(3), gates),
        (R, 2, Some(3), 1),
        (B, 0, None, 1),
        (B, 1, Some(3), 2 * gates),
        (LENS, 0, Some(1), 1),
        (H0, state(0), None, 1),
        (H0, state(1), Some(1), 1),
        (H0, 2, Some(3), 1),
    ];
    if a.cell == Cell::Lstm {
        seen.extend([
            (C0, state(0), None, 1),
            (C0, state(1), Some(1), 1),
            (C0, 2, Some(3), 1),
            (P, 0, None, 1),
            (P, 1, Some(3), 3),
        ]);
    }
    for (i, rank) in [
        (X, 3),
        (W, 3),
        (R, 3),
        (B, 2),
        (LENS, 1),
        (H0, 3),
        (C0, 3),
        (P, 2),
    ] {
        ranked(n, i, rank)?;
    }
    for (i, axis, letter, times) in seen {
        let Some(shape) = n.shape(i) else { continue };
        let found = &shape[axis];
        let expected = letter.map_or(Dim::from(a.directions()), |l| all[l].clone()) * Dim::Known(times);
        match (found.known(), expected.known(), letter) {
            (Some(f), Some(e), _) if f != e => {
                return Err(OpError::new(format!(
                    "input {i} has shape {}; expected {e} for axis {axis}",
                    show(shape)
                )));
            }
            (Some(f), None, Some(_)) if f % times != 0 => {
                return Err(OpError::new(format!(
                    "input {i} has shape {}; expected a multiple of {times} for axis {axis}",
                    show(shape)
                )));
            }
            (_, None, Some(l)) => {
                let one = found.floor_div(&Dim::Known(times));
                if one != Dim::Unknown && all[l] == Dim::Unknown {
                    all[l] = one;
                } else if let Some(known) = one.known() {
                    all[l] = Dim::Known(known);
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

fn check(n: &NodeRef, op: &Recurrent) -> Result<Option<DType>, OpError> {
    let needed = (X..=R).chain(STEPS.into_iter().filter(|_| op.rounds));
    if let Some(i) = needed.into_iter().find(|&i| !n.has(i)) {
        return Err(OpError::new(format!("input {i} is left out")));
    }
    let most = match (op.cell, op.rounds) {
        (_, true) => 10,
        (Cell::Lstm, _) => 8,
        _ => 6,
    };
    if n.arity() > most {
        return Err(OpError::new(format!(
            "{} inputs; expected at most {most}",
            n.arity()
        )));
    }
    let floats = (0..most)
        .filter(|&i| i != LENS)
        .filter_map(|i| Some((i, n.dtype(i)?)));
    let mut first = None;
    for (i, d) in floats {
        if !d.is_float() || first.is_some_and(|f| f != d) {
            return Err(OpError::new(format!(
                "input {i} is of type {d}; expected {}",
                first.map_or("floats".into(), |f: DType| f.to_string())
            )));
        }
        first = Some(d);
    }
    if let Some(d) = n.dtype(LENS).filter(|d| !d.is_int()) {
        return Err(OpError::new(format!(
            "input {LENS} is of type {d}; expected integers"
        )));
    }
    Ok(first)
}

/// The sizes, all known.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
    directions: usize,
    batch_first: bool,
}

impl Sizes {
    fn of(n: &NodeRef, a: &Attrs) -> Result<Sizes, OpError> {
        let all = letters(n, a)?;
        let known: Option<Vec<usize>> = all.iter().map(Dim::size).collect();
        let Some(&[steps, batch, inputs, hidden]) = known.as_deref() else {
            return Err(OpError::new(format!("sizes {}; expected numbers", show(&all))));
        };
        let s = Sizes {
            steps,
            batch,
            inputs,
            hidden,
            directions: a.directions(),
            batch_first: a.batch_first,
        };
        let work = [steps, batch, hidden, a.directions(), 64];
        count(&work)
            .map(|_| s)
            .ok_or_else(|| OpError::new("the output is larger than memory"))
    }

    /// The row of the input, `[.., .., inputs]`.
    fn row(&self, step: usize, b: usize) -> usize {
        match self.batch_first {
            true => b * self.steps + step,
            false => step * self.batch + b,
        }
    }

    /// The row of the first output, `[.., .., .., hidden]`.
    fn row_of_y(&self, step: usize, direction: usize, b: usize) -> usize {
        match self.batch_first {
            true => (b * self.steps + step) * self.directions + direction,
            false => (step * self.directions + direction) * self.batch + b,
        }
    }

    /// The row of a state, `[.., .., hidden]`.
    fn row_of_state(&self, direction: usize, b: usize) -> usize {
        match self.batch_first {
            true => b * self.directions + direction,
            false => direction * self.batch + b,
        }
    }

    fn shapes(&self) -> [Vec<usize>; 2] {
        let Sizes {
            steps: t,
            batch: b,
            hidden: h,
            directions: d,
            ..
        } = *self;
        match self.batch_first {
            true => [vec![b, t, d, h], vec![b, d, h]],
            false => [vec![t, d, b, h], vec![d, b, h]],
        }
    }
}

/// The lengths of the sequences, which must be within the steps.
fn lengths(given: Option<Vec<i64>>, s: &Sizes) -> Result<Vec<usize>, OpError> {
    let Some(given) = given else {
        return Ok(vec![s.steps; s.batch]);
    };
    let fits = |l: &i64| usize::try_from(*l).ok().filter(|&l| l <= s.steps);
    let all: Option<Vec<usize>> = given.iter().map(fits).collect();
    all.filter(|l| l.len() == s.batch).ok_or_else(|| {
        OpError::new(format!(
            "lengths {given:?}; expected {} numbers from 0 to {}",
            s.batch, s.steps
        ))
    })
}

impl Op for Recurrent {
    fn name(&self) -> OpName {
        match self.rounds {
            true => private(self.name),
            false => onnx(self.name),
        }
    }

    fn since(&self) -> &'static [u16] {
        self.since
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        let dtype = check(n, self)?;
        let a = Attrs::of(n, self)?;
        let [t, b, _, h] = letters(n, &a)?;
        let d = Dim::from(a.directions());
        let (y, state): (Shape, Shape) = match a.batch_first {
            true => (vec![b.clone(), t, d.clone(), h.clone()], vec![b, d, h]),
            false => (vec![t, d.clone(), b.clone(), h.clone()], vec![d, b, h]),
        };
        let state = Fact::tensor(dtype, Some(state));
        let mut all = vec![Fact::tensor(dtype, Some(y)), state.clone()];
        if self.cell == Cell::Lstm {
            all.push(state);
        }
        Ok(all)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let a = Attrs::of(n, self).ok()?;
        let at = |ranks: &[(usize, usize, usize)]| -> Vec<(usize, usize)> {
            let there = |&&(i, rank, _): &&(usize, usize, usize)| n.rank(i) == Some(rank);
            ranks
                .iter()
                .filter(there)
                .map(|&(i, _, axis)| (i, axis))
                .collect()
        };
        let [steps, batch, directions] = if a.batch_first { [1, 0, 2] } else { [0, 2, 1] };
        let (x_steps, x_batch) = if a.batch_first { (1, 0) } else { (0, 1) };
        let tie = |output, inputs: &[(usize, usize, usize)]| Tie {
            output,
            inputs: at(inputs),
        };
        Some(Axes(vec![
            tie(Some(steps), &[(X, 3, x_steps)]),
            tie(Some(batch), &[(X, 3, x_batch), (LENS, 1, 0)]),
            tie(Some(directions), &[(W, 3, 0), (R, 3, 0), (B, 2, 0)]),
            tie(None, &[(X, 3, 2), (W, 3, 2)]),
        ]))
    }

    fn spelled<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        scan::written(n, self, x)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        super::pick::knowing(n, x, |n| {
            let a = Attrs::of(n, self)?;
            let s = Sizes::of(n, &a)?;
            let dtype = check(n, self)?.unwrap_or(DType::F32);
            eval(&a, &s, x, dtype)
        })
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::candidates(n, self).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        match self.rounds {
            true => cases::rounded(),
            false => cases::all(self.cell),
        }
    }
}

/// Weights of one direction, as doubles.
struct Weights<'a> {
    w: &'a [f64],
    r: &'a [f64],
    /// Of inputs, then recurrent.
    b: &'a [f64],
    /// Of the gates `i`, `o` and `f`.
    p: &'a [f64],
}

fn eval(a: &Attrs, s: &Sizes, x: &[Option<&Tensor>], dtype: DType) -> Result<Vec<Tensor>, OpError> {
    let floats = |i: usize| {
        x.get(i)
            .copied()
            .flatten()
            .map(|t| t.floats().unwrap_or_default())
    };
    let or_zeros = |i: usize, len: usize| floats(i).unwrap_or_else(|| vec![0.0; len]);
    let (g, h, d) = (a.cell.gates(), s.hidden, s.directions);
    let lens = lengths(x.get(LENS).copied().flatten().and_then(Tensor::ints), s)?;
    let (mut data, mut w, mut r) = (or_zeros(X, 0), or_zeros(W, 0), or_zeros(R, 0));
    let longest = lens.iter().copied().max().unwrap_or(0);
    if a.rounds {
        bytes::round(&mut data[..longest * s.batch * s.inputs]);
        scale(&mut w, s.inputs, &or_zeros(STEPS[0], 0), s)?;
        scale(&mut r, h, &or_zeros(STEPS[1], 0), s)?;
    }
    let (b, p) = (or_zeros(B, d * 2 * g * h), or_zeros(P, d * 3 * h));
    let [of_y, of_state] = s.shapes();
    let states = s.batch * d * h;
    let mut y = vec![0.0; s.steps * states];
    let (mut hs, mut cs) = (or_zeros(H0, states), or_zeros(C0, states));
    for direction in 0..d {
        let part = |len: usize| direction * len..(direction + 1) * len;
        let own = Weights {
            w: &w[part(g * h * s.inputs)],
            r: &r[part(g * h * h)],
            b: &b[part(2 * g * h)],
            p: &p[part(3 * h)],
        };
        for i in 0..longest {
            let at = |batch: usize| s.row_of_state(direction, batch) * h;
            let mut before = vec![0.0; s.batch * h];
            for batch in (0..s.batch).filter(|&b| i <= lens[b]) {
                before[batch * h..][..h].copy_from_slice(&hs[at(batch)..][..h]);
            }
            if a.rounds {
                bytes::round(&mut before);
            }
            for batch in (0..s.batch).filter(|&b| i < lens[b]) {
                let step = if a.backwards[direction] {
                    lens[batch] - 1 - i
                } else {
                    i
                };
                let row = &data[s.row(step, batch) * s.inputs..][..s.inputs];
                let own_h = &mut hs[at(batch)..][..h];
                let (functions, before) = (&a.functions[direction], &before[batch * h..][..h]);
                advance(
                    a,
                    functions,
                    &own,
                    [row, before],
                    [own_h, &mut cs[at(batch)..][..h]],
                );
                let to = s.row_of_y(step, direction, batch) * h;
                y[to..to + h].copy_from_slice(&hs[at(batch)..][..h]);
            }
        }
    }
    let made = [(of_y, y), (of_state.clone(), hs), (of_state, cs)];
    let count = if a.cell == Cell::Lstm { 3 } else { 2 };
    let made = made
        .iter()
        .take(count)
        .map(|(dims, v)| Tensor::rounded(dtype, dims, v));
    made.collect::<Option<_>>()
        .ok_or_else(|| OpError::new(format!("no recurrent layer of {dtype}")))
}

/// Multiplies weights, rows of `len`, by the sizes of their steps.
fn scale(weights: &mut [f64], len: usize, steps: &[f64], s: &Sizes) -> Result<(), OpError> {
    let per = per_direction(steps.len(), s)?;
    let rows = weights.chunks_exact_mut(len.max(1)).enumerate();
    for (row, weights) in rows {
        let step = steps[row * per / (4 * s.hidden)];
        weights.iter_mut().for_each(|w| *w *= step);
    }
    Ok(())
}

/// How many of `steps` sizes of steps each direction has: one, or one for each row of an LSTM's weights.
fn per_direction(steps: usize, s: &Sizes) -> Result<usize, OpError> {
    let all = [1, 4 * s.hidden];
    let found = all.into_iter().find(|n| n * s.directions == steps);
    found.ok_or_else(|| {
        OpError::new(format!(
            "{steps} sizes of steps; expected one, or one for each column"
        ))
    })
}

/// One step of one sequence, with the state `old` before it.
fn advance(a: &Attrs, f: &[Squash], w: &Weights, [x, old]: [&[f64]; 2], [h, c]: [&mut [f64]; 2]) {
    let size = h.len();
    let dot = |m: &[f64], row: usize, v: &[f64]| -> f64 {
        m[row * v.len()..][..v.len()]
            .iter()
            .zip(v)
            .map(|(m, v)| m * v)
            .sum()
    };
    let gates = a.cell.gates() * size;
    let of_input = |row: usize| dot(w.w, row, x) + w.b[row];
    let of_state = |row: usize, h: &[f64]| dot(w.r, row, h) + w.b[gates + row];
    let clip = f64::from(a.clip);
    let squash = |f: &Squash, x: f64| f.exact(x.clamp(-clip, clip));
    match a.cell {
        Cell::Rnn => (0..size).for_each(|j| h[j] = squash(&f[0], of_input(j) + of_state(j, old))),
        Cell::Gru => {
            let gate = |g: usize, j: usize| {
                let row = g * size + j;
                squash(&f[0], of_input(row) + of_state(row, old))
            };
            let reset: Vec<f64> = (0..size).map(|j| gate(1, j)).collect();
            let kept: Vec<f64> = old.iter().zip(&reset).map(|(h, r)| h * r).collect();
            for j in 0..size {
                let row = 2 * size + j;
                let recurrent = match a.late_reset {
                    true => reset[j] * of_state(row, old),
                    false => of_state(row, &kept),
                };
                let z = gate(0, j);
                h[j] = (1.0 - z) * squash(&f[1], of_input(row) + recurrent) + z * old[j];
            }
        }
        Cell::Lstm => {
            for j in 0..size {
                let sum = |g: usize| of_input(g * size + j) + of_state(g * size + j, old);
                let i = squash(&f[0], sum(0) + w.p[j] * c[j]);
                let forget = match a.coupled {
                    true => 1.0 - i,
                    false => squash(&f[0], sum(2) + w.p[2 * size + j] * c[j]),
                };
                c[j] = forget * c[j] + i * squash(&f[1], sum(3));
                let o = squash(&f[0], sum(1) + w.p[size + j] * c[j]);
                h[j] = o * f[2].exact(c[j]);
            }
        }
    }
}
