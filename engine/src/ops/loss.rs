//! Losses of classifiers.

use super::grad::{at, cast, int, unless};
use super::shape::{arity, broadcast, ranked, show};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::expr::{Call, Ex};
use crate::ir::{Attr, DType, Shape, Tensor};

/// ONNX `NegativeLogLikelihoodLoss`: minus the scores `[n, c, …]` of the target classes `[n, …]`, weighted by class.
pub struct NegativeLogLikelihoodLoss;

/// ONNX `SoftmaxCrossEntropyLoss`: [`NegativeLogLikelihoodLoss`] of the logarithm of the softmax along axis 1.
pub struct SoftmaxCrossEntropyLoss;

/// What becomes of the losses.
#[derive(Clone, Copy, PartialEq)]
enum Reduction {
    None,
    Sum,
    Mean,
}

fn reduction(n: &NodeRef) -> Result<Reduction, OpError> {
    match n.str_or("reduction", "mean")? {
        "none" => Ok(Reduction::None),
        "sum" => Ok(Reduction::Sum),
        "mean" => Ok(Reduction::Mean),
        other => Err(OpError::new(format!(
            "reduction {other:?}; expected none, sum or mean"
        ))),
    }
}

/// The type of the loss.
fn loss(n: &NodeRef) -> Result<Fact, OpError> {
    arity(n, 2, 3)?;
    n.int("ignore_index")?;
    let reduction = reduction(n)?;
    if let Some(d) = n.dtype(0).filter(|d| !d.is_float()) {
        return Err(OpError::new(format!("expected floats, found {d}")));
    }
    if let Some(d) = n.dtype(1).filter(|d| !d.is_int()) {
        return Err(OpError::new(format!(
            "the targets are of type {d}; expected integers"
        )));
    }
    ranked(n, 2, 1)?;
    if let (Some(x), Some(t)) = (n.shape(0), n.shape(1)) {
        let wrong = || {
            OpError::new(format!(
                "scores {} and targets {}; expected [n, c, …] and [n, …]",
                show(x),
                show(t)
            ))
        };
        if x.len() < 2 || t.len() + 1 != x.len() {
            return Err(wrong());
        }
        let rest: Shape = [&x[..1], &x[2..]].concat();
        let same = broadcast(&rest, t).map_err(|_| wrong())?;
        let differs = rest
            .iter()
            .zip(t)
            .any(|(a, b)| a.known().is_some() && b.known().is_some() && a != b);
        if differs || same.len() != t.len() {
            return Err(wrong());
        }
    }
    Ok(match reduction {
        Reduction::None => Fact::tensor(n.dtype(0), n.shape(1).cloned()),
        _ => Fact::tensor(n.dtype(0), Some(vec![])),
    })
}

fn list<'a>(x: Ex<'a>, l: &[i64]) -> Ex<'a> {
    x.tensor(Tensor::of(&[l.len()], l.to_vec()))
}

/// An operator along axes, which became an input with opset 13.
fn along<'a>(n: &NodeRef, x: Ex<'a>, op: &str, axes: &[i64]) -> Ex<'a> {
    match n.opset() {
        ..13 => x.with(op, &[], vec![Attr::new("axes", axes)]),
        _ => x.op(op, &[list(x, axes)]),
    }
}

fn sum(x: Ex<'_>) -> Ex<'_> {
    x.with("ReduceSum", &[], vec![Attr::new("keepdims", 0)])
}

impl Op for NegativeLogLikelihoodLoss {
    fn name(&self) -> OpName {
        onnx("NegativeLogLikelihoodLoss")
    }

    fn since(&self) -> &'static [u16] {
        &[12, 13, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        Ok(vec![loss(n)?])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let (scores, target) = (*x.first()?, *x.get(1)?);
        let target = target.with("Cast", &[], vec![Attr::new("to", i64::from(DType::I64.code()))]);
        let weight = x.get(2).filter(|_| n.has(2));
        let scalar = |i: i64| target.tensor(Tensor::scalar(i));
        // The place of what is ignored is that of class 0, its weight 0.
        let ignored = n.int("ignore_index").ok()?;
        let ignored = ignored.map(|i| target.op("Equal", &[scalar(i)]));
        let class = ignored.map_or(target, |i| i.op("Where", &[scalar(0), target]));
        let picked = along(n, class, "Unsqueeze", &[1]);
        let picked = scores.with("GatherElements", &[picked], vec![Attr::new("axis", 1)]);
        let loss = -along(n, picked, "Squeeze", &[1]);
        let zero = loss.constant(0.0);
        let weights = match (weight, ignored) {
            (Some(w), Some(i)) => Some(i.op("Where", &[zero, w.op("Gather", &[class])])),
            (Some(w), None) => Some(w.op("Gather", &[class])),
            (None, Some(i)) => Some(i.op("Where", &[zero, loss.constant(1.0)])),
            (None, None) => None,
        };
        // An infinite loss that is ignored is 0 too.
        let loss = ignored.map_or(loss, |i| i.op("Where", &[zero, loss]));
        let weighted = weight.and(weights).map_or(loss, |w| loss * w);
        Some(vec![match (reduction(n).ok()?, weights) {
            (Reduction::None, _) => weighted,
            (Reduction::Sum, _) => sum(weighted),
            (Reduction::Mean, Some(w)) => sum(weighted) / sum(w),
            (Reduction::Mean, None) => weighted.with("ReduceMean", &[], vec![Attr::new("keepdims", 0)]),
        }])
    }

    fn cases(&self) -> Vec<Case> {
        cases(1)
    }
}

/// The logarithm of the softmax along axis 1.
fn log_softmax<'a>(n: &NodeRef, x: Ex<'a>) -> Ex<'a> {
    let axis = |a: i64| vec![Attr::new("axis", a)];
    if n.opset() >= 13 {
        return x.with("LogSoftmax", &[], axis(1));
    }
    // Before opset 13 the sum runs over all axes from the one given on.
    let turn = |x: Ex<'a>| x.with("Transpose", &[], vec![Attr::new("perm", vec![0, 2, 1])]);
    let flat = turn(x.op("Reshape", &[list(x, &[0, 0, -1])]));
    turn(flat.with("LogSoftmax", &[], axis(2))).op("Reshape", &[x.op("Shape", &[])])
}

impl Op for SoftmaxCrossEntropyLoss {
    fn name(&self) -> OpName {
        onnx("SoftmaxCrossEntropyLoss")
    }

    fn since(&self) -> &'static [u16] {
        &[12, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        Ok(vec![loss(n)?, Fact::tensor(n.dtype(0), n.shape(0).cloned())])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let log = log_softmax(n, *x.first()?);
        let mut inputs = vec![Some(log.id), Some(x.get(1)?.id)];
        inputs.extend(x.get(2).filter(|_| n.has(2)).map(|w| Some(w.id)));
        let mut all = log.call(Call {
            domain: "",
            op: "NegativeLogLikelihoodLoss",
            inputs: &inputs,
            attrs: n.node().attrs.clone(),
            outputs: 1,
        });
        if n.wants(1) {
            all.push(log);
        }
        Some(all)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        if n.has(2) || at(dy, 1).is_some() {
            return None;
        }
        let (scores, target, dy) = (x[0]?, x[1]?, dy[0]?);
        let ignored = n.int("ignore_index").ok()?;
        let ignored = ignored.map(|i| {
            let i = int(target, i);
            target.op("Equal", &[cast(i, n.dtype(1).unwrap_or(DType::I64))])
        });
        let ones = ignored.map(|i| unless(i, dy.constant(1.0)));
        let all = |x: Ex<'a>| x.with("ReduceSum", &[], vec![Attr::new("keepdims", 0)]);
        let each = match (reduction(n).ok()?, ones) {
            (Reduction::Mean, Some(ones)) => dy / all(ones),
            (Reduction::Mean, None) => dy / cast(target.op("Size", &[]), n.dtype(0)?),
            _ => dy,
        };
        let each = ignored.map_or(each, |i| unless(i, each));
        let axis = vec![Attr::new("axis", 1)];
        let share = match at(y, 1) {
            Some(log) => log.exp(),
            None => scores.with("Softmax", &[], axis.clone()),
        };
        let switch = dy.tensor(Tensor::rounded(n.dtype(0)?, &[2], &[0.0, 1.0])?);
        let cut = vec![Attr::new("start", 1), Attr::new("end", 2)];
        let there = target.with("OneHot", &[scores.with("Shape", &[], cut), switch], axis);
        let single = ignored.is_none() && reduction(n).ok()? != Reduction::None;
        let each = if single {
            each
        } else {
            along(n, each, "Unsqueeze", &[1])
        };
        Some(vec![Some((share - there) * each), None])
    }

    fn cases(&self) -> Vec<Case> {
        cases(2)
    }
}

fn cases(outputs: usize) -> Vec<Case> {
    let target = |dims: &[usize], l: &[i64]| Tensor::of(dims, l.to_vec());
    let weights = || case::floats(&[5], 9);
    let flat = || [case::floats(&[3, 5], 1), target(&[3], &[1, 4, 0])];
    let deep = |t: &[i64]| [case::floats(&[2, 5, 3], 1), target(&[2, 3], t)];
    let with = |[a, b]: [Tensor; 2]| [a, b, weights()];
    let all = vec![
        Case::new("by default", flat()),
        Case::new("sum", flat()).attr("reduction", "sum").opset(12),
        Case::new("none", deep(&[0, 1, 2, 3, 4, 0])).attr("reduction", "none"),
        Case::new("older", deep(&[0, 1, 2, 3, 4, 0])).opset(12),
        Case::new("weights", with(deep(&[0, 1, 2, 3, 4, 0]))),
        Case::new("some ignored", deep(&[0, -1, 2, -1, 4, 0])).attr("ignore_index", -1),
        Case::new("some ignored, weights", with(deep(&[0, 1, 10, 10, 4, 0])))
            .attr("ignore_index", 10)
            .attr("reduction", "none"),
        Case::new(
            "32 bits",
            [case::floats(&[2, 3], 1), Tensor::of(&[2], vec![1i32, 2])],
        ),
    ];
    let all = all.into_iter().map(|c| c.outputs(outputs).within(1e-6, 1e-6));
    all.collect()
}
