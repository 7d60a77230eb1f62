//! ONNX Runtime's `Attention`, `MultiHeadAttention` and `DecoderMaskedMultiHeadAttention`: projections with biases, masks
//! of several forms, and then ONNX's `Attention`.

use super::super::formula::{apply, cast, concat, count_up, given, reshape, slice};
use super::super::shape::{arity, ranked, show};
use super::super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, microsoft};
use super::body::{apart, together};
use super::heads::{Heads, Known, Sizes, agree, heads, past, share};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Shape, Tensor};

/// ONNX Runtime's `Attention`: the projection to queries, keys and values is inside.
pub struct Projected;

/// ONNX Runtime's `MultiHeadAttention`.
pub struct MultiHead;

/// ONNX Runtime's `DecoderMaskedMultiHeadAttention`: one query for each sequence.
pub struct MaskedStep;

/// Where a node's inputs are.
struct Slots {
    bias: usize,
    mask: usize,
    extra: usize,
    past: [usize; 2],
    /// Inputs that only GPUs take.
    refused: &'static [usize],
}

const MULTI: Slots = Slots {
    bias: 3,
    mask: 4,
    extra: 5,
    past: [6, 7],
    refused: &[8, 9],
};

const STEP: Slots = Slots {
    bias: 10,
    mask: 3,
    extra: 4,
    past: [5, 6],
    refused: &[7, 8, 9],
};

/// What goes into ONNX's `Attention`, keys and values with heads apart.
struct Parts<'a> {
    q: Ex<'a>,
    k: Ex<'a>,
    v: Ex<'a>,
    past: Option<[Ex<'a>; 2]>,
    mask: Option<usize>,
    extra: Option<Ex<'a>>,
}

fn count(n: &NodeRef) -> Result<i64, OpError> {
    n.int("num_heads")?
        .filter(|&h| h > 0)
        .ok_or_else(|| OpError::new("attribute \"num_heads\": expected a number above 0"))
}

/// Reads the attributes that all of them have.
fn attrs(n: &NodeRef) -> Result<(), OpError> {
    n.float("scale")?;
    n.float("mask_filter_value")?;
    n.int("unidirectional")?;
    count(n).map(|_| ())
}

fn refuse(n: &NodeRef, slots: &Slots) -> Result<(), OpError> {
    match slots.refused.iter().find(|&&i| n.has(i)) {
        Some(i) => Err(OpError::new(format!(
            "input {i}: a cache that past and present share is not supported"
        ))),
        None => Ok(()),
    }
}

/// Queries, keys and values, however they are packed.
fn known(n: &NodeRef, slots: &Slots) -> Result<Option<Known>, OpError> {
    let count = count(n)?;
    let past = past(n, slots.past[0])?;
    let Some(q) = n.shape(0) else { return Ok(None) };
    let stacked = |s: &Shape| Heads {
        batch: s[0].clone(),
        heads: Dim::Known(count),
        length: s[1].clone(),
        size: s[4].clone(),
    };
    let (q, k, v) = match (q.len(), n.has(1)) {
        (5, _) => (stacked(q), stacked(q), stacked(q)),
        (3, false) => {
            let one = Heads {
                batch: q[0].clone(),
                heads: Dim::Known(count),
                length: q[1].clone(),
                size: share(&q[2], 3 * count)?,
            };
            (one.clone(), one.clone(), one)
        }
        (3, true) => {
            let Some(k) = n.shape(1) else { return Ok(None) };
            let q = heads(n, 0, Some(count))?;
            let (k, v) = match k.len() {
                5 => (Some(stacked(k)), Some(stacked(k))),
                _ => (heads(n, 1, Some(count))?, heads(n, 2, Some(count))?),
            };
            match (q, k, v) {
                (Some(q), Some(k), Some(v)) => (q, k, v),
                _ => return Ok(None),
            }
        }
        _ => {
            return Err(OpError::new(format!(
                "queries of shape {}; expected 3 or 5 dimensions",
                show(q)
            )));
        }
    };
    Known::new(q, k, v, past, true).map(Some)
}

/// Input `i` with its bias, `[batch, length, heads * size]`, and the same with heads apart.
fn part<'a>(n: &NodeRef, x: &[Ex<'a>], slots: &Slots, s: &Sizes, i: usize) -> Option<Ex<'a>> {
    let (length, size) = match i {
        0 => (s.queries, s.depth),
        1 => (s.keys, s.depth),
        _ => (s.keys, s.width),
    };
    let hidden = s.heads * size;
    let flat = [s.batch, length, hidden];
    let y = match (n.rank(0)?, n.has(1).then(|| n.rank(1)).flatten()) {
        (5, _) => reshape(slice(x[0], 3, i, i + 1), &flat),
        (_, None) => slice(x[0], 2, i * hidden, (i + 1) * hidden),
        (_, Some(5)) if i > 0 => reshape(slice(*x.get(1)?, 3, i - 1, i), &flat),
        // Keys and values that an earlier step has projected.
        (_, Some(4)) if i > 0 => return x.get(i).copied(),
        _ => *x.get(i)?,
    };
    let begin = [0, s.heads * s.depth, 2 * s.heads * s.depth][i];
    let y = given(n, x, slots.bias).map_or(y, |b| y + slice(b, 0, begin, begin + hidden));
    Some(apart(y, [s.batch, s.heads, length, size], true))
}

/// Which keys each query may see, `[batch, 1, queries or 1, keys]`, as input `i` says in one of its forms.
fn seen<'a>(n: &NodeRef, x: &[Ex<'a>], i: usize, s: &Sizes) -> Option<Ex<'a>> {
    let (mask, total) = (*x.get(i)?, s.total());
    let columns = count_up(mask, &[1, total], 0);
    let wide = || cast(mask, n.dtype(i).unwrap_or(DType::I32), DType::I64);
    let ends = |from: usize| reshape(slice(wide(), 0, from, from + s.batch), &[s.batch, 1]);
    match n.dims(i)?[..] {
        [b] if b == s.batch => Some(reshape(columns.op("Less", &[ends(0)]), &[s.batch, 1, 1, total])),
        [b] if b == 2 * s.batch => {
            let early = columns.op("Less", &[ends(s.batch)]).op("Not", &[]);
            let both = columns.op("Less", &[ends(0)]).op("And", &[early]);
            Some(reshape(both, &[s.batch, 1, 1, total]))
        }
        [_, t] if t == total => Some(reshape(
            mask.op("Greater", &[mask.constant(0.0)]),
            &[s.batch, 1, 1, total],
        )),
        [_, q, t] if t == total => Some(reshape(
            mask.op("Greater", &[mask.constant(0.0)]),
            &[s.batch, 1, q, total],
        )),
        _ => None,
    }
}

/// All outputs of ONNX's `Attention`, the first with heads side by side again.
fn attend<'a>(
    n: &NodeRef,
    x: &[Ex<'a>],
    parts: &Parts<'a>,
    s: &Sizes,
    outputs: usize,
) -> Option<Vec<Ex<'a>>> {
    let filter = n.float_or("mask_filter_value", -10_000.0).ok()?;
    let mask = match parts.mask {
        None => None,
        Some(i) => {
            let like = parts.q;
            let kept = [like.constant(0.0), like.constant(filter.into())];
            Some(seen(n, x, i, s)?.op("Where", &kept))
        }
    };
    let bias = [mask, parts.extra].into_iter().flatten().reduce(|a, b| a + b);
    let causal = n.int_or("unidirectional", 0).ok()? != 0;
    let mut attrs = vec![Attr::new("is_causal", i64::from(causal))];
    if outputs > 3 {
        attrs.push(Attr::new("qk_matmul_output_mode", 2));
    }
    if let Some(scale) = n.float("scale").ok()?.filter(|&s| s != 0.0) {
        attrs.push(Attr::new("scale", scale));
    }
    let [k, v] = [parts.past.map(|p| p[0]), parts.past.map(|p| p[1])];
    let rest = [Some(parts.k), Some(parts.v), bias, k, v];
    let mut all = apply(parts.q, "Attention", &rest, attrs, outputs);
    all[0] = together(all[0], [s.batch, s.heads, s.queries, s.width]);
    Some(all)
}

/// The number of outputs that are wanted, up to the last one.
fn wanted(n: &NodeRef) -> usize {
    (0..4).rfind(|&i| n.wants(i)).map_or(1, |i| i + 1)
}

fn multi<'a>(n: &NodeRef, x: &[Ex<'a>], slots: &Slots) -> Option<Vec<Ex<'a>>> {
    let s = known(n, slots).ok()??.sizes()?;
    let before = |i: usize| given(n, x, slots.past[i]);
    let parts = Parts {
        q: part(n, x, slots, &s, 0)?,
        k: part(n, x, slots, &s, 1)?,
        v: part(n, x, slots, &s, 2)?,
        past: before(0).zip(before(1)).map(|(k, v)| [k, v]),
        mask: Some(slots.mask).filter(|&i| n.has(i)),
        extra: given(n, x, slots.extra),
    };
    attend(n, x, &parts, &s, wanted(n))
}

fn infer(n: &NodeRef, slots: &Slots, most: usize) -> Result<Vec<Fact>, OpError> {
    arity(n, 1, most)?;
    attrs(n)?;
    refuse(n, slots)?;
    let known = known(n, slots)?;
    if let Some(known) = &known {
        known.follows(n, slots.past)?;
    }
    let states = known.as_ref().map(Known::states);
    let state = |i: usize| Fact::tensor(n.dtype(0), states.as_ref().map(|s| s[i].clone()));
    let y = Fact::tensor(n.dtype(0), known.as_ref().map(Known::output));
    Ok(vec![y, state(0), state(1), state(2)])
}

impl Op for MultiHead {
    fn name(&self) -> OpName {
        microsoft("MultiHeadAttention")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n, &MULTI, 10)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        multi(n, x, &MULTI)
    }

    fn cases(&self) -> Vec<Case> {
        let of = |name, inputs: Vec<Option<Tensor>>| Case {
            inputs,
            ..Case::new(name, []).attr("num_heads", 2)
        };
        let x = |dims: &[usize], seed| Some(case::floats(dims, seed));
        let (q, k, v) = (x(&[2, 3, 8], 1), x(&[2, 5, 8], 2), x(&[2, 5, 12], 3));
        let plain = || vec![q.clone(), k.clone(), v.clone()];
        let mask = |dims: &[usize], all: Vec<i32>| Some(Tensor::of(dims, all));
        let with = |more: Vec<Option<Tensor>>| [plain(), more].concat();
        let state = |size| x(&[2, 2, 4, size], 7);
        vec![
            of("plain", plain()),
            of("a bias", with(vec![x(&[28], 4)])).attr("scale", 0.4f32),
            of("lengths", with(vec![None, mask(&[2], vec![3, 5])])),
            of(
                "a mask",
                with(vec![None, mask(&[2, 5], vec![1, 1, 0, 1, 1, 0, 1, 1, 1, 0])]),
            )
            .attr("mask_filter_value", -50.0f32),
            of("a bias of scores", with(vec![None, None, x(&[1, 2, 3, 5], 5)])).attr("unidirectional", 1),
            of("packed", vec![x(&[2, 3, 2, 3, 4], 1)]).outputs(3),
            of("packed keys", vec![q.clone(), x(&[2, 5, 2, 2, 4], 2)]),
            of(
                "keys of an earlier step",
                vec![q.clone(), x(&[2, 2, 5, 4], 2), x(&[2, 2, 5, 6], 3)],
            ),
            of("a cache", with(vec![None, None, None, state(4), state(6)])).outputs(4),
        ]
        .into_iter()
        .map(|c| c.within(1e-5, 1e-5))
        .collect()
    }
}

impl Op for MaskedStep {
    fn name(&self) -> OpName {
        microsoft("DecoderMaskedMultiHeadAttention")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        if n.int_or("past_present_share_buffer", 0)? != 0 {
            return Err(OpError::new(
                "a cache that past and present share is not supported",
            ));
        }
        n.ignore(&["output_qk"]);
        infer(n, &STEP, 11)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        multi(n, x, &STEP)
    }

    fn cases(&self) -> Vec<Case> {
        let x = |dims: &[usize], seed| Some(case::floats(dims, seed));
        let state = || x(&[2, 2, 4, 4], 7);
        let inputs = vec![
            x(&[2, 1, 8], 1),
            x(&[2, 1, 8], 2),
            x(&[2, 1, 8], 3),
            Some(Tensor::of(&[2, 5], vec![1i32, 1, 1, 1, 1, 0, 0, 1, 1, 1])),
            None,
            state(),
            state(),
        ];
        let packed = vec![x(&[2, 1, 24], 1)];
        let of = |name, inputs| Case {
            inputs,
            ..Case::new(name, []).attr("num_heads", 2).within(1e-5, 1e-5)
        };
        vec![of("a cache", inputs).outputs(3), of("packed", packed)]
    }
}

/// The hidden sizes of queries, keys and values of ONNX Runtime's `Attention`.
fn hidden(n: &NodeRef) -> Result<Option<[Dim; 3]>, OpError> {
    if let Some(list) = n.ints("qkv_hidden_sizes")?.filter(|l| !l.is_empty()) {
        return match list {
            &[q, k, v] if q == k && q > 0 && v > 0 => Ok(Some([q, k, v].map(Dim::Known))),
            _ => Err(OpError::new(format!(
                "attribute \"qkv_hidden_sizes\" is {list:?}"
            ))),
        };
    }
    let Some(w) = ranked(n, 1, 2)? else {
        return Ok(None);
    };
    let one = share(&w[1], 3)?;
    Ok(Some([one.clone(), one.clone(), one]))
}

fn projected(n: &NodeRef) -> Result<Option<Known>, OpError> {
    let count = count(n)?;
    let (x, w) = (ranked(n, 0, 3)?, ranked(n, 1, 2)?);
    let before = match ranked(n, 4, 5)? {
        Some(s) => s[3].clone(),
        None if n.has(4) => Dim::Unknown,
        None => Dim::Known(0),
    };
    let (Some(x), Some(w), Some(hidden)) = (x, w, hidden(n)?) else {
        return Ok(None);
    };
    agree("columns of the input and rows of the weights", &x[2], &w[0])?;
    let [q, k, v] = hidden;
    agree(
        "columns of the weights",
        &w[1],
        &(q.clone() + k.clone() + v.clone()),
    )?;
    let heads = |hidden: &Dim| -> Result<Heads, OpError> {
        Ok(Heads {
            batch: x[0].clone(),
            heads: Dim::Known(count),
            length: x[1].clone(),
            size: share(hidden, count)?,
        })
    };
    Known::new(heads(&q)?, heads(&k)?, heads(&v)?, before, true).map(Some)
}

impl Op for Projected {
    fn name(&self) -> OpName {
        microsoft("Attention")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 7)?;
        attrs(n)?;
        n.ignore(&["rotary_embedding_dim"]);
        if n.int_or("do_rotary", 0)? != 0 || n.int_or("past_present_share_buffer", 0)? != 0 || n.has(6) {
            return Err(OpError::new(
                "rotary embeddings and a cache that past and present share are not supported here",
            ));
        }
        let known = projected(n)?;
        let state = known.as_ref().map(|k| {
            let [keys, ..] = k.states();
            [vec![Dim::Known(2)], keys].concat()
        });
        Ok(vec![
            Fact::tensor(n.dtype(0), known.map(|k| k.output())),
            Fact::tensor(n.dtype(0), state),
        ])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let s = projected(n).ok()??.sizes()?;
        let all = x[0].matmul(*x.get(1)?);
        let all = given(n, x, 2).map_or(all, |b| all + b);
        let part = |i: usize, size: usize| {
            let (begin, hidden) = (i * s.heads * s.depth, s.heads * size);
            let part = slice(all, 2, begin, begin + hidden);
            apart(part, [s.batch, s.heads, s.queries, size], true)
        };
        let dims = [s.batch, s.heads, s.past, s.depth];
        let parts = Parts {
            q: part(0, s.depth),
            k: part(1, s.depth),
            v: part(2, s.width),
            past: given(n, x, 4).map(|p| [0, 1].map(|i| reshape(slice(p, 0, i, i + 1), &dims))),
            mask: Some(3).filter(|&i| n.has(i)),
            extra: given(n, x, 5),
        };
        let keeps = n.wants(1);
        let all = attend(n, x, &parts, &s, if keeps { 3 } else { 1 })?;
        if !keeps {
            return Some(all);
        }
        let dims = [1, s.batch, s.heads, s.total(), s.depth];
        let [k, v] = [1, 2].map(|i| reshape(all[i], &dims));
        Some(vec![all[0], concat(k, &[v], 0)])
    }

    fn cases(&self) -> Vec<Case> {
        let x = |dims: &[usize], seed| case::floats(dims, seed);
        let plain = |width: usize| [x(&[2, 3, 5], 1), x(&[5, 16 + width], 2), x(&[16 + width], 3)];
        let of = |name, width, more: Vec<Option<Tensor>>| {
            let mut case = Case::new(name, plain(width))
                .attr("num_heads", 2)
                .within(1e-5, 1e-5);
            case.inputs.extend(more);
            case
        };
        let mask = |dims: &[usize], all: Vec<i32>| Some(Tensor::of(dims, all));
        let three = vec![1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1];
        vec![
            of("plain", 8, vec![]).outputs(2),
            of("no bias", 8, vec![]).without(2).attr("unidirectional", 1),
            of("wide values", 12, vec![]).attr("qkv_hidden_sizes", vec![8i64, 8, 12]),
            of("a mask", 8, vec![mask(&[2, 3], vec![1, 1, 0, 1, 1, 1])]),
            of("a mask for each query", 8, vec![mask(&[2, 3, 3], three)]),
            of("begins and ends", 8, vec![mask(&[4], vec![2, 3, 0, 1])]),
            of(
                "a cache",
                8,
                vec![None, Some(x(&[2, 2, 2, 4, 4], 4)), Some(x(&[2, 1, 3, 7], 5))],
            )
            .outputs(2),
        ]
    }
}
