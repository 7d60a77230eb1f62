//! Nodes that run by themselves, on the values that are there.

use super::memory;
use crate::ir::{Datum, Node, Tensor};
use crate::ops::{self, Bodies, Fact, Input, NodeRef, OpError};
use crate::reference;

/// Bytes that results may have; `None` for what the machine has free.
#[derive(Clone, Copy)]
pub(super) struct Limit(pub(super) Option<usize>);

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
    let n = NodeRef::new(node, opset, inputs.collect());
    for (v, x) in node.inputs.iter().zip(x) {
        if v.is_some() && x.is_none() {
            return Err(OpError::new("an input is not there"));
        }
    }
    let inferred = op.infer(&n)?;
    limit.check(&inferred)?;
    let data: Vec<_> = x.iter().map(Option::as_ref).collect();
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

impl Limit {
    fn check(self, facts: &[Fact]) -> Result<(), OpError> {
        let bytes = |f: &Fact| {
            let dims = f.ty.dims()?;
            let count = crate::ir::count(&dims);
            Some(count.and_then(|n| n.checked_mul(f.ty.dtype()?.bits().max(8).div_ceil(8))))
        };
        let sizes = facts.iter().filter_map(bytes);
        let needed = sizes.fold(0usize, |all, b| all.saturating_add(b.unwrap_or(usize::MAX)));
        let available = self.0.or_else(memory::available).unwrap_or(usize::MAX);
        match needed > available {
            true => Err(OpError::new(format!(
                "its results take {needed} bytes; there are {available}"
            ))),
            false => Ok(()),
        }
    }
}
