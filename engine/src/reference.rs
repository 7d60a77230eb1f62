//! The reference interpreter: one node after the other, by definition only.

use std::collections::HashMap;

use crate::expr::Builder;
use crate::ir::{Graph, Tensor, ValueId};
use crate::ops::{self, Fact, Input, NodeRef, Op, OpError};

/// The outputs of one node: [`Op::eval`] of a primitive, the body of a composite.
///
/// # Errors
///
/// If the operator has neither, or says what is wrong with the inputs.
pub fn eval(op: &dyn Op, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let mut graph = Graph::default();
    let mut env = HashMap::new();
    for x in x {
        let v = graph.value(format!("x{}", graph.values.len()));
        if let Some(t) = x {
            graph[v].ty = Some(Fact::of(t).ty);
            env.insert(v, (*t).clone());
        }
    }
    let domain = op.name().domain;
    let opset = ops::body_opset(domain, n.opset());
    let builder = Builder::inside(&graph, opset, &n.node().attrs);
    let ids = (0u32..).map(ValueId).take(x.len());
    let holes: Vec<_> = ids.map(|v| builder.at(v)).collect();
    let Some(outputs) = op.body(n, &holes) else {
        return op.eval(n, x);
    };
    let outputs: Vec<_> = outputs.iter().map(|e| e.id).collect();
    let patch = builder.finish();
    for (i, value) in (graph.values.len() as u32..).zip(&patch.values) {
        if let Some(c) = &value.konst {
            env.insert(ValueId(i), Tensor::clone(&c.tensor));
        }
    }
    for node in &patch.nodes {
        let op = ops::find(node.domain(), &node.op)
            .ok_or_else(|| OpError::new(format!("its body uses {}, which is unknown", node.op)))?;
        let x: Vec<_> = node.inputs.iter().map(|v| v.and_then(|v| env.get(&v))).collect();
        let facts: Vec<_> = x.iter().map(|t| t.map(Fact::of)).collect();
        let first = op.since().first().copied().unwrap_or(1).into();
        let opset = if op.name().domain == domain {
            n.opset()
        } else {
            opset
        };
        let inner = NodeRef::new(node, opset.max(first), given(&node.inputs, &facts, &x));
        let y = eval(op, &inner, &x)?;
        env.extend(node.outputs.iter().zip(y).filter_map(|(v, y)| Some(((*v)?, y))));
    }
    let missing = || OpError::new("its body does not compute every output");
    outputs
        .iter()
        .map(|v| env.get(v).cloned().ok_or_else(missing))
        .collect()
}

/// Bytes that a result like `fact` takes, if its shape is known: for strings, if each has the length of the longest of
/// every input together.
pub(crate) fn bytes(fact: &Fact, x: &[Option<&Tensor>]) -> Option<usize> {
    let count = match fact.ty.dims() {
        Some(dims) => crate::ir::extent(&dims).unwrap_or(usize::MAX),
        None => return None,
    };
    let dtype = fact.ty.dtype()?;
    let longest = |t: &&Tensor| t.strings().iter().map(Vec::len).max().unwrap_or(0);
    let each = match dtype {
        crate::ir::DType::String => 24 + x.iter().flatten().map(longest).sum::<usize>(),
        d => d.bits().div_ceil(8).max(1),
    };
    Some(count.saturating_mul(each))
}

/// What a node sees of inputs that are all there.
pub fn given<'a>(
    ids: &[Option<ValueId>],
    facts: &'a [Option<Fact>],
    x: &[Option<&'a Tensor>],
) -> Vec<Option<Input<'a>>> {
    let ids = ids.iter().map(|v| v.unwrap_or(ValueId(u32::MAX)));
    ids.zip(facts.iter().zip(x))
        .map(|(value, (fact, &konst))| {
            Some(Input {
                value,
                fact: fact.as_ref()?,
                konst,
                fixed: false,
            })
        })
        .collect()
}
