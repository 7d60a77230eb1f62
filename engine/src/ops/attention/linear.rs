//! ONNX `LinearAttention`: a state that is updated by each element, and asked by it.

use super::super::formula::{given as present, ints, reshape};
use super::super::pick::given;
use super::super::shape::{arity, ranked};
use super::super::turns::{scan, subgraph};
use super::super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, onnx};
use super::cpu;
use super::heads::{Heads, Known, Sizes, agree, heads};
use crate::cpu::Candidate;
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Tensor, Type};

/// ONNX `LinearAttention`.
pub struct LinearAttention;

/// How the state is updated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Update {
    /// Whether it fades before.
    pub(super) fades: bool,
    /// Whether only what differs from what it gives already is written, and at which rate.
    pub(super) corrects: bool,
    /// What is read is multiplied by this.
    pub(super) scale: Option<f32>,
}

impl Update {
    fn of(n: &NodeRef) -> Result<Update, OpError> {
        // A hint for kernels that take several elements at a time.
        n.ignore(&["chunk_size"]);
        let (fades, corrects) = match n.str_or("update_rule", "gated_delta")? {
            "linear" => (false, false),
            "gated" => (true, false),
            "delta" => (false, true),
            "gated_delta" => (true, true),
            other => {
                return Err(OpError::new(format!(
                    "attribute \"update_rule\": expected \"linear\", \"gated\", \"delta\" or \"gated_delta\", found {other:?}"
                )));
            }
        };
        for (i, wanted, what) in [(4, fades, "decay"), (5, corrects, "beta")] {
            if n.has(i) != wanted {
                let found = if wanted { "is missing" } else { "has no effect" };
                return Err(OpError::new(format!(
                    "input {i}, {what}, {found} under this update rule"
                )));
            }
        }
        Ok(Update {
            fades,
            corrects,
            scale: n.float("scale")?.filter(|&s| s != 0.0),
        })
    }

    /// What is read from a state of `depth` rows is multiplied by this.
    pub(super) fn scale(&self, depth: usize) -> f64 {
        self.scale.map_or(1.0 / (depth.max(1) as f64).sqrt(), f64::from)
    }
}

fn known(n: &NodeRef) -> Result<Option<Known>, OpError> {
    let count = |name: &str| {
        n.int(name)?
            .ok_or_else(|| OpError::new(format!("attribute {name:?} is missing")))
    };
    let (many, few) = (count("q_num_heads")?, count("kv_num_heads")?);
    for i in 0..3 {
        ranked(n, i, 3)?;
    }
    let heads = [
        heads(n, 0, Some(many))?,
        heads(n, 1, Some(few))?,
        heads(n, 2, Some(few))?,
    ];
    let [Some(q), Some(k), Some(v)] = heads else {
        return Ok(None);
    };
    agree("queries and keys", &q.length, &k.length)?;
    Known::new(q, k, v, Dim::Known(0), true).map(Some)
}

/// The sizes and the number of columns of decay and of beta.
fn sizes(n: &NodeRef) -> Option<(Sizes, [usize; 2])> {
    let s = known(n).ok()??.sizes()?;
    let columns = |i: usize| match n.has(i) {
        true => n.dims(i)?.last().copied(),
        false => Some(1),
    };
    Some((s, [columns(4)?, columns(5)?]))
}

/// Checks decay, beta and the earlier state against what is known.
fn check(n: &NodeRef, known: &Known) -> Result<(), OpError> {
    let Heads {
        batch,
        heads,
        length,
        size,
    } = &known.k;
    for i in [4, 5] {
        if let Some(s) = ranked(n, i, 3)? {
            agree(&format!("sequences of input {i}"), &s[0], batch)?;
            agree(&format!("elements of input {i}"), &s[1], length)?;
        }
    }
    if let Some(s) = ranked(n, 4, 3)? {
        let all = heads.clone() * size.clone();
        if let (Some(c), Some(h), Some(a)) = (s[2].known(), heads.known(), all.known())
            && c != h
            && c != a
        {
            return Err(OpError::new(format!(
                "decay has {c} columns; expected {h} or {a}"
            )));
        }
    }
    if let Some(s) = ranked(n, 5, 3)?
        && s[2] != Dim::Known(1)
    {
        agree("columns of beta and heads", &s[2], heads)?;
    }
    if let Some(s) = ranked(n, 3, 4)? {
        let wanted = [&known.k.batch, heads, size, &known.v.size];
        for (a, b) in s.iter().zip(wanted) {
            agree("sizes of the earlier state", a, b)?;
        }
    }
    Ok(())
}

/// The recurrence by its definition.
struct Walk<'a> {
    s: Sizes,
    update: Update,
    columns: [usize; 2],
    q: &'a [f64],
    k: &'a [f64],
    v: &'a [f64],
    decay: Option<Vec<f64>>,
    beta: Option<Vec<f64>>,
}

impl Walk<'_> {
    /// Element `t` of sequence `b` through the state of head `h`; the results go to `out`.
    fn step(&self, [b, t, h]: [usize; 3], state: &mut [f64], out: &mut [f64]) {
        let (s, at) = (&self.s, b * self.s.keys + t);
        let k = &self.k[(at * s.kv_heads + h) * s.depth..][..s.depth];
        let mut v = self.v[(at * s.kv_heads + h) * s.width..][..s.width].to_vec();
        if let Some(decay) = &self.decay {
            let each = self.columns[0] / s.kv_heads;
            for (d, row) in state.chunks_mut(s.width.max(1)).enumerate().take(s.depth) {
                let g = decay[at * self.columns[0] + h * each + if each > 1 { d } else { 0 }];
                row.iter_mut().for_each(|x| *x *= g.exp());
            }
        }
        if let Some(beta) = &self.beta {
            let rate = beta[at * self.columns[1] + if self.columns[1] > 1 { h } else { 0 }];
            for (c, v) in v.iter_mut().enumerate() {
                let given: f64 = (0..s.depth).map(|d| state[d * s.width + c] * k[d]).sum();
                *v = rate * (*v - given);
            }
        }
        for (i, x) in state.iter_mut().enumerate() {
            *x += k[i / s.width] * v[i % s.width];
        }
        let scale = self.update.scale(s.depth);
        for g in 0..s.group() {
            let head = at * s.heads + h * s.group() + g;
            let q = &self.q[head * s.depth..][..s.depth];
            for c in 0..s.width {
                let read: f64 = (0..s.depth).map(|d| q[d] * state[d * s.width + c]).sum();
                out[head * s.width + c] = scale * read;
            }
        }
    }
}

/// The recurrence as a `Scan`; `None` where sizes are not known or types differ.
fn spelled<'a>(n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
    let (update, (s, columns), dtype) = (Update::of(n).ok()?, sizes(n)?, n.dtype(0)?);
    if n.has(3) && n.dtype(3)? != dtype {
        return None;
    }
    let (heads, group) = (s.kv_heads, s.group());
    let shape = [s.batch, heads, s.depth, s.width];
    let apart = |e: Ex<'a>, rest: &[usize]| reshape(e, &[&[s.batch, s.keys], rest].concat());
    let state = match present(n, x, 3) {
        Some(state) => state,
        None => super::super::formula::zeros(x[0], dtype, &shape)?,
    };
    // Each by what it has for an element of a sequence.
    let mut rests = vec![
        vec![heads, group, s.depth],
        vec![heads, 1, s.depth],
        vec![heads, 1, s.width],
    ];
    let mut inputs = vec![
        state,
        apart(x[0], &rests[0]),
        apart(x[1], &rests[1]),
        apart(x[2], &rests[2]),
    ];
    if let Some(decay) = present(n, x, 4) {
        rests.push(vec![heads, columns[0] / heads, 1]);
        inputs.push(apart(decay, &rests[3]));
    }
    if let Some(beta) = present(n, x, 5) {
        rests.push(vec![columns[1], 1, 1]);
        inputs.push(apart(beta, &rests[rests.len() - 1]));
    }
    let ty = |rest: &Vec<usize>| Type::tensor(dtype, [&[s.batch], &rest[..]].concat());
    let mut types = vec![Type::tensor(dtype, shape)];
    types.extend(rests.iter().map(ty));
    let last = ty(&vec![heads, group, s.width]);
    let body = subgraph(&types, last, |x| {
        let (mut state, q, k, mut v) = (x[0], x[1], x[2], x[3]);
        if update.fades {
            state = state * x[4].exp();
        }
        if let Some(&rate) = x.get(if update.fades { 5 } else { 4 }) {
            v = rate * (v - k.matmul(state));
        }
        let column = reshape(k, &[s.batch, heads, s.depth, 1]);
        let state = state + column * v;
        vec![state, q.matmul(state) * update.scale(s.depth)]
    })?;
    let count = inputs.len() - 1;
    let attrs = vec![
        Attr::new("scan_input_axes", vec![1i64; count]),
        Attr::new("scan_output_axes", vec![1i64]),
    ];
    let made = scan(&inputs, count, body, attrs, 2)?;
    let to = [s.batch, s.keys, s.heads * s.width].map(|d| d as i64);
    let y = made[1].with("Reshape", &[ints(x[0], &to)], vec![Attr::new("allowzero", 1)]);
    Some(vec![y, made[0]])
}

impl Op for LinearAttention {
    fn name(&self) -> OpName {
        onnx("LinearAttention")
    }

    fn since(&self) -> &'static [u16] {
        &[27]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 3, 6)?;
        super::floats(n, 0..6)?;
        Update::of(n)?;
        let known = known(n)?;
        if let Some(k) = &known {
            check(n, k)?;
        }
        let state = known.as_ref().map(|k| {
            vec![
                k.k.batch.clone(),
                k.k.heads.clone(),
                k.k.size.clone(),
                k.v.size.clone(),
            ]
        });
        let own = if n.has(3) { n.dtype(3) } else { n.dtype(0) };
        Ok(vec![
            Fact::tensor(n.dtype(0), known.map(|k| k.output())),
            Fact::tensor(own, state),
        ])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        self.infer(n)?;
        let wrong = || OpError::new("the shapes do not go together");
        let (s, columns) = sizes(n).ok_or_else(wrong)?;
        let floats = |i: usize| x.get(i).copied().flatten().and_then(Tensor::floats);
        let (q, k, v) = (floats(0), floats(1), floats(2));
        let (q, k, v) = (q.ok_or_else(wrong)?, k.ok_or_else(wrong)?, v.ok_or_else(wrong)?);
        let walk = Walk {
            s,
            update: Update::of(n)?,
            columns,
            q: &q,
            k: &k,
            v: &v,
            decay: floats(4),
            beta: floats(5),
        };
        let each = s.depth * s.width;
        let dims = [s.batch, s.kv_heads, s.depth, s.width];
        let blank = || Tensor::zeros(DType::F64, &dims)?.floats();
        let mut states = floats(3).or_else(blank).ok_or_else(wrong)?;
        let mut out = vec![0.0; s.batch * s.queries * s.heads * s.width];
        for (head, state) in states.chunks_mut(each.max(1)).enumerate() {
            for t in 0..s.keys {
                walk.step([head / s.kv_heads, t, head % s.kv_heads], state, &mut out);
            }
        }
        let own = x
            .get(3)
            .copied()
            .flatten()
            .map_or(given(x, 0)?.dtype(), Tensor::dtype);
        let y = Tensor::rounded(
            given(x, 0)?.dtype(),
            &[s.batch, s.queries, s.heads * s.width],
            &out,
        );
        let states = Tensor::rounded(own, &dims, &states);
        [y, states].into_iter().collect::<Option<_>>().ok_or_else(wrong)
    }

    fn spelled<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        spelled(n, x)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let Ok(update) = Update::of(n) else { return vec![] };
        let kernel = sizes(n).and_then(|(s, columns)| cpu::linear(n, s, columns, update));
        kernel.into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let all = |columns: [usize; 2]| {
            [
                case::floats(&[2, 5, 32], 1),
                case::floats(&[2, 5, 16], 2),
                case::floats(&[2, 5, 12], 3),
                case::floats(&[2, 2, 8, 6], 4),
                case::floats(&[2, 5, columns[0]], 5),
                case::floats(&[2, 5, columns[1]], 6),
            ]
        };
        let of = |name, columns, rule: &'static str| {
            Case::new(name, all(columns))
                .attr("q_num_heads", 4)
                .attr("kv_num_heads", 2)
                .attr("update_rule", rule)
                .outputs(2)
        };
        let half = |t: &Tensor| {
            Tensor::rounded(
                DType::F16,
                t.dims(),
                &t.floats()?.iter().map(|x| x / 8.0).collect::<Vec<_>>(),
            )
        };
        let halves = all([16, 2]).iter().map(half).collect::<Option<Vec<_>>>();
        let mut cases = vec![
            of("all", [16, 2], "gated_delta").attr("chunk_size", 16),
            of("one rate for each head", [2, 1], "gated_delta").attr("scale", 0.25f32),
            of("fading", [2, 1], "gated").without(5),
            of("corrected", [2, 2], "delta").without(4).without(3),
            of("sums", [2, 2], "linear")
                .without(3)
                .without(4)
                .without(5)
                .outputs(1),
        ];
        let wide = |c: Case| c.within(2e-3, 1e-4);
        cases = cases.into_iter().map(wide).collect();
        cases.extend(halves.map(|x| {
            Case::new("half", x)
                .attr("q_num_heads", 4)
                .attr("kv_num_heads", 2)
                .outputs(2)
                .within(1e-2, 1e-2)
        }));
        cases
    }
}
