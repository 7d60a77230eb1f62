//! Nodes that run by themselves, on the values that are there.

use crate::ir::{Datum, Node, Tensor};
use crate::ops::{self, Bodies, Fact, Input, NodeRef, OpError};
use crate::reference;

/// Bytes that results may have.
#[derive(Clone, Copy)]
pub(super) struct Limit(pub(super) usize);

/// The outputs of `node` by its reference implementation.
///
/// # Errors
///
/// If the inputs do not fit, an attribute is not understood, or the outputs would not fit in memory.
pub(super) fn direct(
    node: &Node,
    opset: i64,
    x: &[Option<Datum>],
    limit: Limit,
    bodies: Bodies,
) -> Result<Vec<Datum>, OpError> {
    let op = ops::find(node.domain(), &node.op).ok_or_else(|| OpError::new("the operator is unknown"))?;
    let facts: Vec<Option<Fact>> = x.iter().map(|x| x.as_ref().map(|x| x.ty().into())).collect();
    let inputs = node.inputs.iter().zip(facts.iter().zip(x)).map(|(v, (fact, x))| {
        Some(Input {
            value: (*v)?,
            fact: fact.as_ref()?,
            konst: x.as_ref()?.tensor(),
            fixed: false,
        })
    });
    let n = NodeRef::new(node, opset, inputs.collect()).bounded(limit.0);
    for (v, x) in node.inputs.iter().zip(x) {
        if v.is_some() && x.is_none() {
            return Err(OpError::new("an input is not there"));
        }
    }
    let inferred = op.infer(&n)?;
    let data: Vec<_> = x.iter().map(Option::as_ref).collect();
    let given: Vec<_> = data.iter().map(|d| d.and_then(Datum::tensor)).collect();
    limit.check(op, &inferred, &given)?;
    let y = match op.apply(&n, &data, bodies) {
        Some(y) => y?,
        None => {
            let tensors: Vec<Option<&Tensor>> = data.iter().map(|d| d.and_then(Datum::tensor)).collect();
            if let Some(i) = (0..data.len()).find(|&i| data[i].is_some() && tensors[i].is_none()) {
                return Err(OpError::new(format!("input {i}: expected a tensor")));
            }
            let y = reference::eval(op, &n, &tensors)?;
            y.into_iter().map(Datum::Tensor).collect()
        }
    };
    match &n.unread()[..] {
        [] => Ok(y),
        names => Err(OpError::unread(names)),
    }
}

/// Bytes for each number while a reference implementation is at work.
const WORK: usize = 16;

impl Limit {
    fn check(self, op: &dyn ops::Op, facts: &[Fact], x: &[Option<&Tensor>]) -> Result<(), OpError> {
        if op.laws().any {
            return Ok(());
        }
        // What is not known before is some of what is given, or where that stands.
        let some = |t: &&Tensor| t.len().saturating_mul(t.dims().len() + 1).saturating_mul(WORK);
        let given = x.iter().flatten().map(some).fold(0, usize::saturating_add);
        let bytes = |f: &Fact| match (reference::bytes(f, x), f.ty.dims()) {
            (Some(bytes), Some(dims)) => {
                let count = crate::ir::count(&dims).unwrap_or(usize::MAX);
                bytes.max(count.saturating_mul(WORK))
            }
            _ => given,
        };
        let needed = facts.iter().map(bytes).fold(0usize, usize::saturating_add);
        match needed > self.0 {
            true => Err(OpError::new(format!(
                "it works in {needed} bytes; there are {}",
                self.0
            ))),
            false => Ok(()),
        }
    }
}
