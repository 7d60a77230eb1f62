//! Bodies that run in turns, written with a `Scan`.

use super::OPSET;
use crate::expr::{Builder, Call, Ex};
use crate::ir::{Attr, AttrValue, Graph, Type};

/// A subgraph with inputs of `types`, whose outputs `write` makes of them. `last` is the type of the last of the outputs.
pub(crate) fn subgraph(
    types: &[Type],
    last: Type,
    write: impl for<'b> FnOnce(&[Ex<'b>]) -> Vec<Ex<'b>>,
) -> Option<Graph> {
    let mut graph = Graph::default();
    for (i, ty) in types.iter().enumerate() {
        let v = graph.input(format!("in{i}"), ty.clone());
        graph[v].ty = Some(ty.clone());
    }
    let b = Builder::new(&graph, OPSET);
    let x: Vec<_> = graph.inputs.iter().map(|p| b.at(p.value)).collect();
    let outputs: Vec<_> = write(&x).iter().map(|e| e.id).collect();
    let patch = b.finish();
    patch.apply(&mut graph).ok()?;
    for (i, &v) in outputs.iter().enumerate() {
        graph.output(v, (i + 1 == outputs.len()).then(|| last.clone()));
    }
    Some(graph)
}

/// A `Scan` over the last `slices` of `inputs` that gives `outputs`.
pub(crate) fn scan<'a>(
    inputs: &[Ex<'a>],
    slices: usize,
    body: Graph,
    mut attrs: Vec<Attr>,
    outputs: usize,
) -> Option<Vec<Ex<'a>>> {
    attrs.push(Attr::new("body", AttrValue::Graph(Box::new(body))));
    attrs.push(Attr::new("num_scan_inputs", slices as i64));
    let ids: Vec<_> = inputs.iter().map(|e| Some(e.id)).collect();
    Some(inputs.first()?.call(Call {
        domain: "",
        op: "Scan",
        inputs: &ids,
        attrs,
        outputs,
    }))
}
