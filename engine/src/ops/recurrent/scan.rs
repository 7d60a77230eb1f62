//! Recurrent layers as a `Scan` for each direction, for their gradients.

use super::squash::Squash;
use super::{Attrs, B, C0, Cell, H0, LENS, P, R, Recurrent, W, X, letters};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Graph, Tensor, Type};
use crate::ops::NodeRef;
use crate::ops::formula::{apply, cast, concat, given, ints, transpose};
use crate::ops::turns::{scan, subgraph};

/// One direction of a layer.
struct Direction<'d> {
    a: &'d Attrs,
    functions: &'d [Squash],
    hidden: usize,
    /// Whether there are weights from the cell to the gates, and a recurrent bias that is reset.
    peepholes: bool,
    late_bias: bool,
    /// Whether sequences end before the last step.
    ends: bool,
}

/// The outputs of a layer whose inputs are `x`; `None` where the hidden size is not known, or it rounds.
pub(super) fn written<'a>(n: &NodeRef, op: &Recurrent, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
    let a = Attrs::of(n, op).ok().filter(|a| !a.rounds)?;
    let all = letters(n, &a).ok()?;
    let (hidden, dtype) = (all[3].size()?, n.dtype(X)?);
    let first = |i: usize| {
        let state = given(n, x, i)?;
        Some(if a.batch_first {
            transpose(state, &[1, 0, 2])
        } else {
            state
        })
    };
    let steps = if a.batch_first {
        transpose(x[X], &[1, 0, 2])
    } else {
        x[X]
    };
    let lengths = given(n, x, LENS).map(|l| cast(l, n.dtype(LENS).unwrap_or(DType::I32), DType::I64));
    let of = |e: Option<Ex<'a>>| parts(e, a.directions());
    let (w, r, b, p) = (
        of(Some(x[W])),
        of(Some(x[R])),
        of(given(n, x, B)),
        of(given(n, x, P)),
    );
    let (h0, c0) = (of(first(H0)), of(first(C0)));
    let mut made: Vec<Vec<Ex<'a>>> = vec![vec![]; 3];
    for (i, &backwards) in a.backwards.iter().enumerate() {
        let d = Direction {
            a: &a,
            functions: &a.functions[i],
            hidden,
            peepholes: p[i].is_some(),
            late_bias: a.late_reset && b[i].is_some(),
            ends: lengths.is_some(),
        };
        let own = [w[i], r[i], b[i], p[i], h0[i], c0[i]];
        let outputs = d.outputs(steps, own, (lengths, backwards), (dtype, &all[1]))?;
        for (list, y) in made.iter_mut().zip(outputs) {
            list.push(y);
        }
    }
    made.truncate(if a.cell == Cell::Lstm { 3 } else { 2 });
    let perms: [&[usize]; 3] = [&[2, 0, 1, 3], &[1, 0, 2], &[1, 0, 2]];
    let joined = made.into_iter().enumerate().map(|(i, list)| {
        let axis = usize::from(i == 0);
        let each: Vec<_> = list
            .iter()
            .map(|e| e.op("Unsqueeze", &[ints(*e, &[axis as i64])]))
            .collect();
        let all = if each.len() == 1 {
            each[0]
        } else {
            concat(each[0], &each[1..], axis)
        };
        if a.batch_first {
            transpose(all, perms[i])
        } else {
            all
        }
    });
    Some(joined.collect())
}

/// What of `e` belongs to each direction, without the axis of directions, which is the first.
fn parts(e: Option<Ex<'_>>, directions: usize) -> Vec<Option<Ex<'_>>> {
    let Some(e) = e else { return vec![None; directions] };
    let all = split(e, directions, 0);
    all.into_iter()
        .map(|e| Some(e.op("Squeeze", &[ints(e, &[0])])))
        .collect()
}

/// `e` in `count` equal parts along `axis`.
fn split(e: Ex<'_>, count: usize, axis: i64) -> Vec<Ex<'_>> {
    let attrs = vec![Attr::new("axis", axis), Attr::new("num_outputs", count as i64)];
    match count {
        1 => vec![e],
        _ => apply(e, "Split", &[], attrs, count),
    }
}

fn turned(e: Ex<'_>) -> Ex<'_> {
    transpose(e, &[1, 0])
}

impl Direction<'_> {
    /// All states, the last one, and that of the cell.
    fn outputs<'a>(
        &self,
        x: Ex<'a>,
        [w, r, b, p, h0, c0]: [Option<Ex<'a>>; 6],
        (lengths, backwards): (Option<Ex<'a>>, bool),
        (dtype, batch): (DType, &Dim),
    ) -> Option<Vec<Ex<'a>>> {
        let (gates, lstm) = (self.a.cell.gates(), self.a.cell == Cell::Lstm);
        let turn = |e: Ex<'a>| match (backwards, lengths) {
            (true, Some(l)) => e.with("ReverseSequence", &[l], reversal()),
            _ => e,
        };
        let mut sums = turn(x).matmul(turned(w?));
        let mut rest = self.recurrent(turned(r?));
        if let Some(b) = b {
            let [of_input, of_state] = split(b, 2, 0)[..] else {
                return None;
            };
            sums = sums + of_input;
            if self.late_bias {
                let each = split(of_state, 3, 0);
                sums = sums
                    + concat(
                        each[0],
                        &[each[1], x.tensor(Tensor::zeros(dtype, &[self.hidden])?)],
                        0,
                    );
                rest.push(each[2]);
            } else {
                sums = sums + of_state;
            }
        }
        if let Some(p) = p {
            rest.extend(split(p, 3, 0));
        }
        let zeros = || {
            let to = match batch.known() {
                Some(b) => ints(x, &[b, self.hidden as i64]),
                None => {
                    let attrs = vec![Attr::new("start", 1), Attr::new("end", 2)];
                    concat(x.with("Shape", &[], attrs), &[ints(x, &[self.hidden as i64])], 0)
                }
            };
            x.constant(0.0).op("Expand", &[to])
        };
        let mut states = vec![h0.unwrap_or_else(zeros)];
        if lstm {
            states.push(c0.unwrap_or_else(zeros));
        }
        let (own, kept) = (states.len(), rest.len());
        let mut inputs: Vec<_> = states.into_iter().chain(rest.iter().copied()).collect();
        let mut slices = vec![sums];
        slices.extend(lengths.map(|l| within(x, l)));
        let count = slices.len();
        inputs.extend(slices);
        let row = |size: usize| Type::tensor(dtype, [batch.clone(), Dim::from(size)]);
        let mut types = vec![row(self.hidden); own];
        types.extend(self.types(dtype));
        types.push(row(gates * self.hidden));
        types.extend(
            self.ends
                .then(|| Type::tensor(DType::Bool, [batch.clone(), Dim::Known(1)])),
        );
        let mut attrs = vec![];
        if backwards && lengths.is_none() {
            attrs.push(Attr::new("scan_input_directions", vec![1i64; count]));
            attrs.push(Attr::new("scan_output_directions", vec![1i64]));
        }
        let body = self.body(&types, own, kept)?;
        let made = scan(&inputs, count, body, attrs, own + kept + 1)?;
        let mut outputs = vec![turn(*made.last()?)];
        outputs.extend(&made[..own]);
        Some(outputs)
    }

    /// The recurrent weights `[hidden, gates * hidden]`, apart where one gate's are needed later.
    fn recurrent<'a>(&self, r: Ex<'a>) -> Vec<Ex<'a>> {
        if self.a.cell != Cell::Gru || self.a.late_reset {
            return vec![r];
        }
        let h = self.hidden as i64;
        let attrs = vec![Attr::new("axis", 1)];
        apply(r, "Split", &[Some(ints(r, &[2 * h, h]))], attrs, 2)
    }

    /// The types of what is the same in all steps.
    fn types(&self, dtype: DType) -> Vec<Type> {
        let (h, gates) = (self.hidden, self.a.cell.gates());
        let mut all = match self.a.cell == Cell::Gru && !self.a.late_reset {
            true => vec![Type::tensor(dtype, [h, 2 * h]), Type::tensor(dtype, [h, h])],
            false => vec![Type::tensor(dtype, [h, gates * h])],
        };
        let rows = usize::from(self.late_bias) + if self.peepholes { 3 } else { 0 };
        all.extend(vec![Type::tensor(dtype, [h]); rows]);
        all
    }

    /// One step, of inputs of the given types: `own` states, `kept` values that stay what they are, and slices.
    fn body(&self, types: &[Type], own: usize, kept: usize) -> Option<Graph> {
        subgraph(types, types[0].clone(), |x| {
            let (states, rest, sums) = (&x[..own], &x[own..own + kept], x[own + kept]);
            let mut new = self.step(states, rest, sums);
            let mut y = new[0];
            if let Some(there) = x.get(own + kept + 1) {
                y = there.op("Where", &[y, y.constant(0.0)]);
                let pairs = new.iter().zip(states);
                new = pairs.map(|(new, old)| there.op("Where", &[*new, *old])).collect();
            }
            new.extend(rest);
            new.push(y);
            new
        })
    }

    /// The states after a step.
    fn step<'b>(&self, states: &[Ex<'b>], rest: &[Ex<'b>], x: Ex<'b>) -> Vec<Ex<'b>> {
        let (h, f) = (states[0], self.functions);
        let squash = |f: Squash, x: Ex<'b>| f.body(self.clipped(x));
        match self.a.cell {
            Cell::Rnn => vec![squash(f[0], x + h.matmul(rest[0]))],
            Cell::Gru => {
                let of_input = split(x, 3, 1);
                let gates = split(h.matmul(rest[0]), if self.a.late_reset { 3 } else { 2 }, 1);
                let gate = |i: usize| squash(f[0], of_input[i] + gates[i]);
                let (z, r) = (gate(0), gate(1));
                let recurrent = match (self.a.late_reset, self.late_bias) {
                    (true, true) => r * (gates[2] + rest[1]),
                    (true, false) => r * gates[2],
                    _ => (h * r).matmul(rest[1]),
                };
                let new = squash(f[1], of_input[2] + recurrent);
                vec![new + z * (h - new)]
            }
            Cell::Lstm => {
                let (c, sums) = (states[1], split(x + h.matmul(rest[0]), 4, 1));
                let seen = |sum: Ex<'b>, i: usize, c: Ex<'b>| match self.peepholes {
                    true => squash(f[0], sum + rest[1 + i] * c),
                    false => squash(f[0], sum),
                };
                let i = seen(sums[0], 0, c);
                let forget = match self.a.coupled {
                    true => i.constant(1.0) - i,
                    false => seen(sums[2], 2, c),
                };
                let c = forget * c + i * squash(f[1], sums[3]);
                vec![seen(sums[1], 1, c) * f[2].body(c), c]
            }
        }
    }

    fn clipped<'b>(&self, x: Ex<'b>) -> Ex<'b> {
        let clip = f64::from(self.a.clip);
        match clip.is_finite() {
            true => x.op("Clip", &[x.constant(-clip), x.constant(clip)]),
            false => x,
        }
    }
}

fn reversal() -> Vec<Attr> {
    vec![Attr::new("batch_axis", 1), Attr::new("time_axis", 0)]
}

/// Whether each step of `x`, `[steps, batch, ..]`, is within the length of its sequence: `[steps, batch, 1]`.
fn within<'a>(x: Ex<'a>, lengths: Ex<'a>) -> Ex<'a> {
    let one = |i: i64| x.tensor(Tensor::scalar(i));
    let steps = x.with("Shape", &[], vec![Attr::new("start", 0), Attr::new("end", 1)]);
    let steps = one(0).op("Range", &[steps.op("Squeeze", &[]), one(1)]);
    let column = steps.op("Unsqueeze", &[ints(x, &[1, 2])]);
    column.op("Less", &[lengths.op("Unsqueeze", &[ints(x, &[0, 2])])])
}

impl Squash {
    /// It by simpler operators.
    fn body(self, x: Ex<'_>) -> Ex<'_> {
        match self {
            Squash::Affine(a, b) => x * f64::from(a) + f64::from(b),
            Squash::ScaledTanh(a, b) => (x * f64::from(b)).tanh() * f64::from(a),
            Squash::Act(act) => act.body(x),
        }
    }
}
