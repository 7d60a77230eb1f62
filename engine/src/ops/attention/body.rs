//! Attention in terms of simpler operators.

use super::super::NodeRef;
use super::super::formula::{cast, concat, count_up, given, ints, longer, reshape, transpose};
use super::{Options, Sizes, sizes};
use crate::expr::Ex;
use crate::ir::{Attr, DType};

/// `x`, `[batch, length, heads * size]` or with heads apart already, as `[batch, heads, length, size]`.
pub(super) fn apart<'a>(x: Ex<'a>, dims: [usize; 4], packed: bool) -> Ex<'a> {
    let [batch, heads, length, size] = dims;
    match packed {
        true => transpose(reshape(x, &[batch, length, heads, size]), &[0, 2, 1, 3]),
        false => x,
    }
}

/// The opposite of [`apart`].
pub(super) fn together<'a>(x: Ex<'a>, dims: [usize; 4]) -> Ex<'a> {
    let [batch, heads, length, size] = dims;
    reshape(transpose(x, &[0, 2, 1, 3]), &[batch, length, heads * size])
}

/// 0 where `seen`, minus infinity elsewhere, in elements like those of `x`.
pub(super) fn bias<'a>(seen: Ex<'a>, x: Ex<'a>) -> Ex<'a> {
    seen.op("Where", &[x.constant(0.0), x.constant(f64::NEG_INFINITY)])
}

/// `x` of `heads` heads as products with as many matrices as there are heads of keys take it, or back.
pub(super) fn grouped<'a>(x: Ex<'a>, from: usize, dims: [usize; 4]) -> Ex<'a> {
    match from == dims[1] {
        true => x,
        false => reshape(x, &dims),
    }
}

/// `softmax(x)` along the last axis, zeros where all of a row is minus infinity.
pub(super) fn softmax<'a>(x: Ex<'a>, masked: bool) -> Ex<'a> {
    let softmax = |x: Ex<'a>| x.with("Softmax", &[], vec![Attr::new("axis", -1)]);
    if !masked {
        return softmax(x);
    }
    let greatest = x.op("ReduceMax", &[ints(x, &[-1])]);
    let unseen = greatest.op("Equal", &[x.constant(f64::NEG_INFINITY)]);
    // Zeros before it too, so that its gradient is a number.
    let seen = |y: Ex<'a>| unseen.op("Where", &[x.constant(0.0), y]);
    seen(softmax(seen(x)))
}

pub(super) fn attention<'a>(n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
    let (s, options) = (sizes(n)?, Options::of(n).ok()?);
    let types = [n.dtype(0)?, n.dtype(2)?];
    let q = apart(x[0], [s.batch, s.heads, s.queries, s.depth], s.packed);
    let k = apart(*x.get(1)?, [s.batch, s.kv_heads, s.keys, s.depth], s.packed);
    let v = apart(*x.get(2)?, [s.batch, s.kv_heads, s.keys, s.width], s.packed);
    let k = given(n, x, 4).map_or(k, |past| concat(past, &[k], 2));
    let v = given(n, x, 5).map_or(v, |past| concat(past, &[v], 2));
    let (scores, bias) = (scores(q, k, &s, &options), biases(n, x, q, &s, &options));
    let capped = match options.softcap {
        cap if cap > 0.0 => (scores / f64::from(cap)).tanh() * f64::from(cap),
        _ => scores,
    };
    let biased = bias.map_or(capped, |bias| capped + bias);
    let precision = options.precision.unwrap_or(types[0]);
    let masked = n.has(3) || n.has(6);
    let chosen = cast(
        softmax(cast(biased, types[0], precision), masked),
        precision,
        types[0],
    );
    let y = mixed(cast(chosen, types[0], types[1]), v, &s);
    let y = cast(y, types[1], types[0]);
    let mut all = vec![match s.packed {
        true => together(y, [s.batch, s.heads, s.queries, s.width]),
        false => y,
    }];
    if (1..4).any(|i| n.wants(i)) {
        let seen = [scores, capped, biased, chosen];
        all.extend([k, v, seen[usize::try_from(options.mode).ok()?]]);
    }
    Some(all)
}

/// `scale Q K^T`, `[batch, heads, queries, keys]`. Both are scaled by the root, so that half floats do not overflow.
fn scores<'a>(q: Ex<'a>, k: Ex<'a>, s: &Sizes, options: &Options) -> Ex<'a> {
    let root = options.scale(s.depth).sqrt();
    let rows = s.group() * s.queries;
    let q = grouped(q * root, s.heads, [s.batch, s.kv_heads, rows, s.depth]);
    let scores = q.matmul(transpose(k, &[0, 1, 3, 2]) * root);
    grouped(scores, s.kv_heads, [s.batch, s.heads, s.queries, s.total()])
}

/// The values, mixed as `chosen` says, `[batch, heads, queries, width]`.
pub(super) fn mixed<'a>(chosen: Ex<'a>, v: Ex<'a>, s: &Sizes) -> Ex<'a> {
    let rows = s.group() * s.queries;
    let chosen = grouped(chosen, s.heads, [s.batch, s.kv_heads, rows, s.total()]);
    grouped(
        chosen.matmul(v),
        s.kv_heads,
        [s.batch, s.heads, s.queries, s.width],
    )
}

/// What is added to scores; `None` for nothing.
fn biases<'a>(n: &NodeRef, x: &[Ex<'a>], like: Ex<'a>, s: &Sizes, options: &Options) -> Option<Ex<'a>> {
    let mask = given(n, x, 3).and_then(|mask| {
        let (from, dims) = (n.dtype(3)?, n.dims(3)?);
        let mask = match from {
            DType::Bool => bias(mask, like),
            other => cast(mask, other, n.dtype(0)?),
        };
        let short = s.total().saturating_sub(*dims.last()?);
        Some(match short {
            0 => mask,
            more => longer(mask, dims.len(), more, f64::NEG_INFINITY),
        })
    });
    let columns = count_up(like, &[1, s.total()], 0);
    let causal = options.causal.then(|| {
        let rows = count_up(like, &[s.queries, 1], s.past as i64);
        bias(rows.op("Less", &[columns]).op("Not", &[]), like)
    });
    let padding = given(n, x, 6).map(|lengths| {
        let seen = columns.op("Less", &[reshape(lengths, &[s.batch, 1])]);
        bias(reshape(seen, &[s.batch, 1, 1, s.total()]), like)
    });
    [mask, causal, padding].into_iter().flatten().reduce(|a, b| a + b)
}
