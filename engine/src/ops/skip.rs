//! Normalisation as ONNX Runtime has it: with a residual added before, with embeddings looked up before, and by the
//! root mean square.

use super::formula::{apply, cast, given, ints, reshape, slice, zeros};
use super::matmul::fits;
use super::norm::{LayerNormalization, RMSNormalization};
use super::shape::{arity, like_first, ranked, show};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, microsoft, onnx};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Shape, Tensor};

/// `SkipLayerNormalization`: of the sum with a residual and a bias.
pub struct SkipLayerNormalization;

/// `SkipSimplifiedLayerNormalization`: the same by the root mean square.
pub struct SkipSimplifiedLayerNormalization;

/// `SimplifiedLayerNormalization`, which ONNX Runtime writes in ONNX's own domain: today's `RMSNormalization`.
pub struct SimplifiedLayerNormalization;

/// `EmbedLayerNormalization`: of the sum of embeddings of words, places and segments.
pub struct EmbedLayerNormalization;

/// The default of `epsilon` where something is added before.
const EPSILON: f32 = 1e-12;

fn epsilon(n: &NodeRef, default: f32) -> Option<Attr> {
    Some(Attr::new("epsilon", n.float_or("epsilon", default).ok()?))
}

/// `1 / sqrt(mean(x²) + epsilon)` along the last axes, from `axis` on, of type `wide`.
fn inverse<'a>(n: &NodeRef, x: Ex<'a>, axes: &[i64], epsilon: f32, wide: DType) -> Option<Ex<'a>> {
    let x = cast(x, n.dtype(0)?, wide);
    let square = x * x;
    let mean = match n.opset() {
        ..18 => square.with("ReduceMean", &[], vec![Attr::new("axes", axes)]),
        _ => square.op("ReduceMean", &[ints(x, axes)]),
    };
    let sum = mean + f64::from(epsilon);
    Some(sum.op("Sqrt", &[]).op("Reciprocal", &[]))
}

/// The types of output, statistics and sum.
fn skipped(n: &NodeRef, vectors: std::ops::Range<usize>) -> Result<Vec<Fact>, OpError> {
    n.float("epsilon")?;
    for i in 0..2 {
        if let Some(s) = n.shape(i).filter(|s| s.len() != 2 && s.len() != 3) {
            return Err(OpError::new(format!(
                "input {i} has shape {}; expected 2 or 3 dimensions",
                show(s)
            )));
        }
    }
    for i in vectors {
        ranked(n, i, 1)?;
    }
    let y = like_first(n)?.swap_remove(0);
    for i in 1..n.arity() {
        fits(n, i, &y)?;
    }
    let rows = |s: &Shape| {
        let mut rows = s.clone();
        if let Some(last) = rows.last_mut() {
            *last = Dim::Known(1);
        }
        rows
    };
    let seen = Fact::tensor(Some(DType::F32), n.shape(0).map(rows));
    Ok(vec![y.clone(), seen.clone(), seen, y])
}

/// The sum of all that is added, the bias being input `bias`.
fn sum<'a>(n: &NodeRef, x: &[Ex<'a>], bias: usize) -> Option<Ex<'a>> {
    n.has(0).then_some(())?;
    let sum = x[0] + *x.get(1)?;
    Some(given(n, x, bias).map_or(sum, |b| sum + b))
}

fn skip_cases(vectors: &[usize], bias: usize) -> Vec<Case> {
    let of = |name, x: &[usize], skip: &[usize]| {
        let mut inputs = vec![case::floats(x, 1), case::floats(skip, 2)];
        inputs.extend(vectors.iter().map(|&i| case::floats(&[33], i as u64)));
        Case::new(name, inputs).within(1e-5, 1e-5)
    };
    vec![
        of("all", &[2, 5, 33], &[2, 5, 33]).attr("epsilon", 1e-3f32),
        of("a residual for all", &[2, 5, 33], &[5, 33]).without(bias),
        of("rows", &[5, 33], &[5, 33]).without(bias),
    ]
}

impl Op for SkipLayerNormalization {
    fn name(&self) -> OpName {
        microsoft("SkipLayerNormalization")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 3, 5)?;
        skipped(n, 2..5)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let sum = sum(n, x, 4)?;
        let statistics = n.wants(1) || n.wants(2);
        let name = LayerNormalization.name().name;
        let rest = [Some(*x.get(2)?), given(n, x, 3)];
        let outputs = if statistics { 3 } else { 1 };
        let mut all = apply(sum, name, &rest, vec![epsilon(n, EPSILON)?], outputs);
        if n.wants(3) {
            // Nobody reads what stands in for statistics then.
            all.resize(3, all[0]);
            all.push(sum);
        }
        Some(all)
    }

    fn cases(&self) -> Vec<Case> {
        let mut all = skip_cases(&[3, 4, 5], 4);
        all[0] = all[0].clone().outputs(4);
        all[1] = all[1].clone().without(3);
        all
    }
}

impl Op for SkipSimplifiedLayerNormalization {
    fn name(&self) -> OpName {
        microsoft("SkipSimplifiedLayerNormalization")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 3, 4)?;
        if n.wants(1) {
            return Err(OpError::new("output 1, a mean, is computed by nobody"));
        }
        skipped(n, 2..4)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let sum = sum(n, x, 3)?;
        let epsilon = epsilon(n, EPSILON)?;
        let y = sum.with(RMSNormalization.name().name, &[*x.get(2)?], vec![epsilon]);
        let mut all = vec![y];
        if n.wants(2) {
            let epsilon = n.float_or("epsilon", EPSILON).ok()?;
            all.extend([y, inverse(n, sum, &[-1], epsilon, DType::F32)?]);
        }
        if n.wants(3) {
            all.resize(3, y);
            all.push(sum);
        }
        Some(all)
    }

    fn cases(&self) -> Vec<Case> {
        skip_cases(&[3, 4], 3)
    }
}

/// The first of the axes that are normalised.
fn first(n: &NodeRef, rank: usize) -> Result<usize, OpError> {
    NodeRef::axis(n.int_or("axis", -1)?, rank)
}

/// The type of the statistics.
fn stash(n: &NodeRef) -> Result<DType, OpError> {
    let code = n.int_or("stash_type", 1)?;
    let dtype = i32::try_from(code).map(DType::from_code).ok();
    dtype
        .filter(|d| matches!(d, DType::F32 | DType::F64))
        .ok_or_else(|| {
            OpError::new(format!(
                "attribute \"stash_type\": expected 1 or 11, found {code}"
            ))
        })
}

impl Op for SimplifiedLayerNormalization {
    fn name(&self) -> OpName {
        onnx("SimplifiedLayerNormalization")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        n.float("epsilon")?;
        let y = Fact::tensor(n.dtype(1), n.shape(0).cloned());
        fits(n, 1, &y)?;
        let rows = |s: &Shape| -> Result<Shape, OpError> {
            let first = first(n, s.len())?;
            let one = |(i, d): (usize, &Dim)| if i < first { d.clone() } else { Dim::Known(1) };
            Ok(s.iter().enumerate().map(one).collect())
        };
        let seen = Fact::tensor(Some(stash(n)?), n.shape(0).map(rows).transpose()?);
        Ok(vec![y, seen])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        RMSNormalization.axes(n)
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let rank = n.rank(0)?;
        let axis = first(n, rank).ok()? as i64 - rank as i64;
        let stash = stash(n).ok()?;
        let attrs = vec![
            Attr::new("axis", axis),
            epsilon(n, 1e-5)?,
            Attr::new("stash_type", i64::from(stash.code())),
        ];
        let mut all = vec![x[0].with(RMSNormalization.name().name, &[*x.get(1)?], attrs)];
        if n.wants(1) {
            let axes: Vec<_> = (axis..0).collect();
            let epsilon = n.float_or("epsilon", 1e-5).ok()?;
            all.push(inverse(n, x[0], &axes, epsilon, stash)?);
        }
        Some(all)
    }

    fn cases(&self) -> Vec<Case> {
        let of = |name, x: &[usize], scale: &[usize]| {
            Case::new(name, [case::floats(x, 1), case::floats(scale, 2)]).within(1e-5, 1e-5)
        };
        vec![
            of("rows", &[2, 5, 33], &[33]).outputs(2).attr("stash_type", 1),
            of("two axes", &[2, 5, 7], &[5, 7])
                .outputs(2)
                .attr("axis", 1)
                .opset(14),
        ]
    }
}

impl Op for EmbedLayerNormalization {
    fn name(&self) -> OpName {
        microsoft("EmbedLayerNormalization")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        if let Some(i) = [0, 2, 3, 5, 6].into_iter().find(|&i| !n.has(i)) {
            return Err(OpError::new(format!("input {i} is missing")));
        }
        arity(n, 1, 9)?;
        if n.has(1) != n.has(4) {
            return Err(OpError::new("segments and their embeddings: one is missing"));
        }
        n.float("epsilon")?;
        n.ignore(&["mask_index_type"]);
        let (ids, words) = (ranked(n, 0, 2)?, ranked(n, 2, 2)?);
        for (i, rank) in [(1, 2), (3, 2), (4, 2), (5, 1), (6, 1), (7, 2), (8, 2)] {
            ranked(n, i, rank)?;
        }
        let all = Fact::tensor(None, ids.cloned());
        fits(n, 1, &all)?;
        fits(n, 8, &all)?;
        let shape = ids
            .zip(words)
            .map(|(ids, words)| vec![ids[0].clone(), ids[1].clone(), words[1].clone()]);
        let y = Fact::tensor(n.dtype(2), shape);
        let lengths = Fact::tensor(Some(DType::I32), ids.map(|ids| vec![ids[0].clone()]));
        Ok(vec![y.clone(), lengths, y])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let [batch, length] = n.dims(0)?[..] else {
            return None;
        };
        let hidden = n.dims(2)?[1];
        let words = x[2].op("Gather", &[x[0]]);
        let places = match given(n, x, 8) {
            Some(at) => x[3].op("Gather", &[at]),
            None => reshape(slice(x[3], 0, 0, length), &[1, length, hidden]),
        };
        let sum = words + places;
        let segments = given(n, x, 1).zip(given(n, x, 4));
        let sum = segments.map_or(sum, |(ids, all)| sum + all.op("Gather", &[ids]));
        let norm = [Some(x[5]), Some(x[6])];
        let y = apply(
            sum,
            LayerNormalization.name().name,
            &norm,
            vec![epsilon(n, EPSILON)?],
            1,
        )[0];
        let lengths = match given(n, x, 7) {
            None => zeros(x[0], DType::I32, &[batch])?,
            Some(mask) => {
                let own = cast(mask, n.dtype(7)?, DType::I32);
                match n.opset() {
                    ..13 => {
                        let attrs = vec![Attr::new("axes", vec![1i64]), Attr::new("keepdims", 0)];
                        own.with("ReduceSum", &[], attrs)
                    }
                    _ => {
                        let axes = ints(own, &[1]);
                        own.with("ReduceSum", &[axes], vec![Attr::new("keepdims", 0)])
                    }
                }
            }
        };
        Some(vec![y, lengths, sum])
    }

    fn cases(&self) -> Vec<Case> {
        let ids = |all: Vec<i32>| Tensor::of(&[2, 3], all);
        let inputs = || {
            [
                ids(vec![0, 4, 2, 3, 1, 0]),
                ids(vec![0, 1, 1, 0, 0, 1]),
                case::floats(&[5, 12], 1),
                case::floats(&[4, 12], 2),
                case::floats(&[2, 12], 3),
                case::floats(&[12], 4),
                case::floats(&[12], 5),
                ids(vec![1, 1, 0, 1, 1, 1]),
                ids(vec![3, 0, 1, 0, 1, 2]),
            ]
        };
        let all = [
            Case::new("all", inputs()).outputs(3),
            Case::new("no segments", inputs())
                .without(1)
                .without(4)
                .without(8)
                .without(7)
                .outputs(2),
        ];
        all.into_iter().map(|c| c.within(1e-5, 1e-5)).collect()
    }
}
