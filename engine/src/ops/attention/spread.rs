//! `secateur.Attention`: attention as products of matrices and sums have it, which broadcast.

use super::super::formula::{apply, cast, ints};
use super::super::shape::{broadcast, ranked, show};
use super::super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, private};
use super::{Options, cases, floats};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Shape};

/// ONNX's `Attention` of four axes, where queries, keys, values and mask broadcast over sequences, heads and queries, and a
/// single key is as many as the mask has columns. Heads of keys and values may be fewer than those of queries, in groups. Half
/// floats are computed as `float`, with a mask of `float` or `bool`.
///
/// Its body is `Attention` of what is spread as far as it must be.
pub struct Spread;

const Q: usize = 0;
const K: usize = 1;
const V: usize = 2;
const MASK: usize = 3;

/// `[sequences, heads, queries, keys]`; `None` where a rank is not known.
fn scores(n: &NodeRef) -> Result<Option<Shape>, OpError> {
    let (Some(q), Some(k), Some(v)) = (n.shape(Q), n.shape(K), n.shape(V)) else {
        return Ok(None);
    };
    let one = Dim::Known(1);
    let mut all: Shape = vec![one.clone(), one.clone(), one.clone(), k[2].clone()];
    match (n.has(MASK), n.shape(MASK)) {
        (true, None) => return Ok(None),
        (true, Some(mask)) if mask.len() > 4 => {
            return Err(OpError::new(format!(
                "input {MASK} has shape {}; expected at most 4 dimensions",
                show(mask)
            )));
        }
        (_, mask) => all = broadcast(&all, mask.map_or(&[], |m| m))?,
    }
    let sequences = broadcast(&[q[0].clone()], &broadcast(&k[..1], &v[..1])?)?;
    all = broadcast(&all, &[sequences[0].clone(), q[1].clone(), q[2].clone(), one])?;
    if all[1].known() == Some(1) {
        all[1] = broadcast(&k[1..2], &v[1..2])?[0].clone();
    }
    if q[1].known().is_none_or(|heads| heads == 1) && all[1].known().is_none() {
        all[1] = Dim::Unknown;
    }
    Ok(Some(all))
}

impl Op for Spread {
    fn name(&self) -> OpName {
        private("Attention")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        super::arity(n, 3, 4)?;
        floats(n, [Q, K, V])?;
        Options::of(n)?;
        for i in [Q, K, V] {
            ranked(n, i, 4)?;
        }
        let shape = scores(n)?.zip(n.shape(V)).map(|(mut all, v)| {
            all[3] = v[3].clone();
            all
        });
        Ok(vec![Fact::tensor(n.dtype(Q), shape)])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let all = scores(n).ok()??;
        let all: Vec<usize> = all.iter().map(Dim::size).collect::<Option<_>>()?;
        let [q, k, v] = [n.dims(Q)?, n.dims(K)?, n.dims(V)?];
        let (&[sequences, heads, queries, keys], few) = (&all[..], k[1].max(v[1])) else {
            return None;
        };
        let own = n.dtype(Q)?;
        let float = |i: usize| cast(x[i], own, DType::F32);
        let mut inputs = vec![
            Some(wide(float(K), &k, &[sequences, few, keys, k[3]])),
            Some(wide(float(V), &v, &[sequences, few, v[2], v[3]])),
        ];
        if n.has(MASK) {
            let mask = n.dims(MASK)?;
            let mut to = mask.clone();
            *to.last_mut()? = keys;
            inputs.push(Some(wide(*x.get(MASK)?, &mask, &to)));
        }
        let q = wide(float(Q), &q, &[sequences, heads, queries, q[3]]);
        let attrs: Vec<Attr> = n.node().attrs.clone();
        let y = apply(q, "Attention", &inputs, attrs, 1)[0];
        Some(vec![cast(y, DType::F32, own)])
    }

    fn cases(&self) -> Vec<Case> {
        cases::spread()
    }
}

/// `x`, which has dimensions `from`, in those of `to`.
fn wide<'a>(x: Ex<'a>, from: &[usize], to: &[usize]) -> Ex<'a> {
    let dims: Vec<i64> = to.iter().map(|&d| d as i64).collect();
    match from == to {
        true => x,
        false => x.op("Expand", &[ints(x, &dims)]),
    }
}
