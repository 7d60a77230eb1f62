//! `FlexAttention`: attention whose scores and shares subgraphs may change.

use super::super::formula::{cast, transpose};
use super::super::pick::{given, knowing};
use super::super::shape::arity;
use super::super::{Axes, Bodies, Case, Fact, NodeRef, Op, OpError, OpName, case};
use super::body::{grouped, mixed, softmax};
use super::heads::{Known, Sizes, heads};
use super::{floats, precision};
use crate::expr::Ex;
use crate::ir::{DType, Datum, Dim, Tensor};
use crate::reference;

/// ONNX's preview of PyTorch's `flex_attention`.
pub struct FlexAttention;

/// The subgraphs: what changes the scores, and what changes the shares.
const SCORES: &str = "score_mod";
const SHARES: &str = "prob_mod";

fn known(n: &NodeRef) -> Result<Option<Known>, OpError> {
    if let Some(i) = (0..3).find(|&i| n.rank(i).is_some_and(|r| r != 4)) {
        return Err(OpError::new(format!("input {i}: expected 4 dimensions")));
    }
    let (q, k, v) = (heads(n, 0, None)?, heads(n, 1, None)?, heads(n, 2, None)?);
    let (Some(q), Some(k), Some(v)) = (q, k, v) else {
        return Ok(None);
    };
    Known::new(q, k, v, Dim::Known(0), false).map(Some)
}

/// The type in which scores are changed.
fn wide(n: &NodeRef) -> Option<DType> {
    let own = if n.dtype(0)? == DType::F64 {
        DType::F64
    } else {
        DType::F32
    };
    Some(precision(n).ok()?.unwrap_or(own))
}

/// `scale Q K^T` of the wide type, `[batch, heads, queries, keys]`.
fn scores<'a>(n: &NodeRef, x: &[Ex<'a>], s: &Sizes) -> Option<Ex<'a>> {
    let scale = match n.float("scale").ok()? {
        Some(scale) => f64::from(scale),
        None => 1.0 / (s.depth.max(1) as f64).sqrt(),
    };
    let root = scale.sqrt();
    let rows = s.group() * s.queries;
    let q = grouped(*x.first()? * root, s.heads, [s.batch, s.kv_heads, rows, s.depth]);
    let scores = q.matmul(transpose(*x.get(1)?, &[0, 1, 3, 2]) * root);
    let scores = grouped(scores, s.kv_heads, [s.batch, s.heads, s.queries, s.keys]);
    Some(cast(scores, n.dtype(0)?, wide(n)?))
}

/// The values mixed by `shares`, of the type of the values.
fn output<'a>(n: &NodeRef, shares: Ex<'a>, v: Ex<'a>, s: &Sizes) -> Option<Ex<'a>> {
    let (own, wide) = (n.dtype(2)?, wide(n)?);
    Some(cast(mixed(shares, cast(v, own, wide), s), wide, own))
}

/// A part of the computation, as an operator of its own.
struct Part<F>(F);

impl<F> Op for Part<F>
where
    F: for<'a> Fn(&NodeRef, &[Ex<'a>]) -> Option<Ex<'a>> + Sync,
{
    fn name(&self) -> OpName {
        FlexAttention.name()
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        Some(vec![self.0(n, x)?])
    }
}

/// What `write` makes of tensors, by definition.
fn evaluate(
    n: &NodeRef,
    x: &[Option<&Tensor>],
    write: impl for<'a> Fn(&NodeRef, &[Ex<'a>]) -> Option<Ex<'a>> + Sync,
) -> Result<Tensor, OpError> {
    Ok(reference::eval(&Part(write), n, x)?.remove(0))
}

/// What the subgraph `name` makes of `x`.
fn changed(name: &str, x: Tensor, bodies: Bodies) -> Result<Tensor, OpError> {
    let (dtype, dims) = (x.dtype(), x.dims().to_vec());
    match bodies(name, vec![x.into()])?.into_iter().next() {
        Some(Datum::Tensor(y)) if (y.dtype(), y.dims()) == (dtype, &dims) => Ok(y),
        _ => Err(OpError::new(format!(
            "subgraph {name:?}: expected one tensor like its input, {dtype}{dims:?}"
        ))),
    }
}

fn run(n: &NodeRef, x: &[Option<&Datum>], bodies: Bodies) -> Result<Vec<Datum>, OpError> {
    let x: Vec<_> = x.iter().map(|x| x.and_then(|x| x.tensor())).collect();
    let (q, k, v) = (given(&x, 0)?, given(&x, 1)?, given(&x, 2)?);
    knowing(n, &x, |n| {
        let s = known(n)?.and_then(|k| k.sizes());
        let s = s.ok_or_else(|| OpError::new("the shapes do not go together"))?;
        let mut rows = evaluate(n, &[Some(q), Some(k)], |n, x| scores(n, x, &s))?;
        if n.graph(SCORES)?.is_some() {
            rows = changed(SCORES, rows, &mut *bodies)?;
        }
        let mut shares = evaluate(n, &[Some(&rows)], |_, x| Some(softmax(*x.first()?, true)))?;
        if n.graph(SHARES)?.is_some() {
            shares = changed(SHARES, shares, &mut *bodies)?;
        }
        let y = evaluate(n, &[Some(&shares), Some(v)], |n, x| {
            output(n, *x.first()?, *x.get(1)?, &s)
        })?;
        Ok(vec![y.into()])
    })
}

impl Op for FlexAttention {
    fn name(&self) -> OpName {
        OpName {
            domain: "ai.onnx.preview",
            name: "FlexAttention",
        }
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 3, 3)?;
        floats(n, 0..3)?;
        n.float("scale")?;
        precision(n)?;
        n.graph(SCORES)?;
        n.graph(SHARES)?;
        let known = known(n)?;
        Ok(vec![Fact::tensor(n.dtype(0), known.map(|k| k.output()))])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        if n.graph(SCORES).ok()?.is_some() || n.graph(SHARES).ok()?.is_some() {
            return None;
        }
        let s = known(n).ok()??.sizes()?;
        let shares = softmax(scores(n, x, &s)?, false);
        Some(vec![output(n, shares, *x.get(2)?, &s)?])
    }

    fn apply(
        &self,
        n: &NodeRef,
        x: &[Option<&Datum>],
        bodies: Bodies,
    ) -> Option<Result<Vec<Datum>, OpError>> {
        let plain = [SCORES, SHARES]
            .iter()
            .all(|name| matches!(n.graph(name), Ok(None)));
        (!plain).then(|| run(n, x, bodies))
    }

    fn cases(&self) -> Vec<Case> {
        let qkv = || {
            [
                case::floats(&[2, 4, 3, 8], 1),
                case::floats(&[2, 2, 5, 8], 2),
                case::floats(&[2, 2, 5, 6], 3),
            ]
        };
        let half = |t: &Tensor| Tensor::rounded(DType::F16, t.dims(), &t.floats()?);
        let halves = qkv().iter().map(half).collect::<Option<Vec<_>>>();
        let mut all = vec![
            Case::new("groups", qkv()),
            Case::new("scaled", qkv())
                .attr("scale", 0.2f32)
                .attr("softmax_precision", 11),
        ];
        all.extend(halves.map(|x| Case::new("half", x)));
        all
    }
}
