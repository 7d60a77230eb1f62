//! Model-local functions, written out where they are called.

use std::collections::HashMap;

use crate::ir::{Attr, AttrValue, Flaw, Function, Graph, Model, Name, Node, Opset, Value, ValueId, version};
use crate::opt::PassError;

/// Calls within calls may be this deep; functions that call themselves never end.
const DEPTH: usize = 64;

/// Calls may be written out to this much: nodes, with what their attributes take.
const WEIGHT: usize = 1 << 19;

/// The function of `model` that `node` calls.
pub fn function<'a>(model: &'a Model, node: &Node) -> Option<&'a Function> {
    let overload = overload(node);
    model.functions.iter().find(|f| {
        let domain = match f.domain.as_deref() {
            Some("ai.onnx") | None => "",
            Some(other) => other,
        };
        f.name == node.op
            && domain == node.domain()
            && f.overload.as_deref().unwrap_or("").as_bytes() == overload.unwrap_or_default()
    })
}

/// `NodeProto.overload`, field 8: a tag of one byte, a length, and the name.
fn overload(node: &Node) -> Option<&[u8]> {
    let record = node.extra.of(8).last()?;
    let name = record.get(2..)?;
    (usize::from(*record.get(1)?) == name.len()).then_some(name)
}

/// Writes out every call of a function of `model`, in subgraphs and in functions too, and drops the functions. Where a
/// function is written in another version of ONNX's own operators, all become those of the newest of the versions.
///
/// # Errors
///
/// If functions call each other in a circle, a call has more inputs or outputs than its function, or a function is written in
/// a version of an operator set under which its nodes mean something else and which cannot be converted.
pub fn inline(model: &mut Model) -> Result<(), PassError> {
    if model.functions.is_empty() {
        return Ok(());
    }
    let other = |f: &Function| differs(&f.graph, &f.opsets, &model.opsets).is_some();
    if model.functions.iter().any(other) {
        let versions = model.functions.iter().filter_map(|f| version(&f.opsets, ""));
        if let Some(newest) = versions.chain(model.opset("")).max() {
            super::convert(model, "", newest)?;
        }
    }
    let functions = std::mem::take(&mut model.functions);
    let lib = Model {
        functions,
        ..Model::default()
    };
    for opset in lib.functions.iter().flat_map(|f| &f.opsets) {
        let domain = opset.domain.as_deref().unwrap_or("");
        if version(&model.opsets, if domain == "ai.onnx" { "" } else { domain }).is_none() {
            model.opsets.push(opset.clone());
        }
    }
    let mut known = vec![Weight::New; lib.functions.len()];
    if calls(&lib, &model.graph, &mut known, 0)? > WEIGHT {
        let what = format!("write out to more than {WEIGHT} nodes");
        return Err(Flaw::new("model-local functions", what).into());
    }
    expand(&lib, &model.opsets, &mut model.graph)?;
    Ok(())
}

/// What a function is written out to.
#[derive(Clone, Copy)]
enum Weight {
    New,
    Open,
    Known(usize),
}

/// What the calls in `graph` are written out to.
fn calls(lib: &Model, graph: &Graph, known: &mut [Weight], depth: usize) -> Result<usize, Flaw> {
    let mut all = 0usize;
    for (_, node) in graph.iter() {
        for g in node.attrs.iter().flat_map(|a| a.value.graphs()) {
            all = all.saturating_add(calls(lib, g, known, depth)?);
        }
        let Some(f) = function(lib, node) else { continue };
        let at = lib.functions.iter().position(|g| std::ptr::eq(f, g)).unwrap_or(0);
        let weight = match known[at] {
            Weight::Known(weight) => weight,
            Weight::New if depth <= DEPTH => {
                known[at] = Weight::Open;
                let inner = calls(lib, &f.graph, known, depth + 1)?;
                let weight = inner.saturating_add(own(&f.graph));
                known[at] = Weight::Known(weight);
                weight
            }
            _ => {
                let what = format!("calls itself in a circle, or others more than {DEPTH} deep");
                return Err(Flaw::new(format!("model-local function {:?}", f.name), what));
            }
        };
        all = all.saturating_add(weight);
    }
    Ok(all)
}

/// What `graph` itself weighs: its nodes and values, and the numbers in their attributes.
fn own(graph: &Graph) -> usize {
    let attr = |a: &Attr| match &a.value {
        AttrValue::Ints(x) => x.len() / 16,
        AttrValue::Floats(x) => x.len() / 32,
        AttrValue::Strings(x) => x.iter().map(|s| 1 + s.len() / 128).sum(),
        AttrValue::Bytes(x) => x.as_ref().map_or(0, Vec::len) / 128,
        value => value.graphs().iter().map(own).sum(),
    };
    let nodes = graph
        .iter()
        .map(|(_, n)| 1 + n.attrs.iter().map(attr).sum::<usize>());
    nodes.sum::<usize>() + graph.values.len() / 4
}

fn expand(lib: &Model, opsets: &[Opset], graph: &mut Graph) -> Result<(), Flaw> {
    let order = std::mem::take(&mut graph.order);
    for id in order {
        let Some(f) = function(lib, &graph[id]) else {
            let mut attrs = std::mem::take(&mut graph[id].attrs);
            for g in attrs.iter_mut().flat_map(|a| a.value.graphs_mut()) {
                expand(lib, opsets, g)?;
            }
            graph[id].attrs = attrs;
            graph.order.push(id);
            continue;
        };
        let call = graph[id].clone();
        let mut body = f.graph.clone();
        check(f, &call, opsets)?;
        expand(lib, opsets, &mut body)?;
        paste(graph, f, body, &call);
    }
    Ok(())
}

fn check(f: &Function, call: &Node, opsets: &[Opset]) -> Result<(), Flaw> {
    let wrong = |what: String| Flaw::new(format!("node {:?}, a call of {:?}", call.label(), f.name), what);
    let (inputs, outputs) = (f.graph.inputs.len(), f.graph.outputs.len());
    if call.inputs.len() > inputs || call.outputs.len() > outputs {
        return Err(wrong(format!(
            "has {} inputs and {} outputs; the function has {inputs} and {outputs}",
            call.inputs.len(),
            call.outputs.len()
        )));
    }
    differs(&f.graph, &f.opsets, opsets).map_or(Ok(()), |op| {
        Err(wrong(format!(
            "is written in an opset in which {op:?} means something else than in the model's"
        )))
    })
}

/// An operator of `graph` whose meaning under `own` is another than under `outer`.
fn differs(graph: &Graph, own: &[Opset], outer: &[Opset]) -> Option<String> {
    graph.iter().find_map(|(_, node)| {
        let inner = node.attrs.iter().flat_map(|a| a.value.graphs());
        let nested = inner.filter_map(|g| differs(g, own, outer)).next();
        let op = crate::ops::find(node.domain(), &node.op);
        let meaning = |opsets: &[Opset]| {
            let v = version(opsets, node.domain())?;
            let since = op?.since().iter().copied();
            since.rev().find(|&s| i64::from(s) <= v)
        };
        nested.or_else(|| (meaning(own) != meaning(outer)).then(|| node.op.to_string()))
    })
}

/// Puts `body` in the place of `call`: its inputs and outputs become those of the call, its other values get new names.
fn paste(graph: &mut Graph, f: &Function, body: Graph, call: &Node) {
    let stem = call.label().to_owned();
    let mut at: Vec<Option<ValueId>> = vec![None; body.values.len()];
    let mut bound = vec![false; body.values.len()];
    for (i, p) in body.inputs.iter().enumerate() {
        at[p.value.0 as usize] = call.inputs.get(i).copied().flatten();
        bound[p.value.0 as usize] = true;
    }
    let mut copies = vec![];
    for (p, y) in body.outputs.iter().zip(&call.outputs) {
        let (i, Some(y)) = (p.value.0 as usize, *y) else {
            continue;
        };
        match bound[i] {
            true => copies.push((p.value, y)),
            false => at[i] = Some(y),
        }
        bound[i] = true;
    }
    let mut renamed: HashMap<Name, Option<Name>> = HashMap::new();
    for (i, value) in body.values.iter().enumerate() {
        if !bound[i] {
            let name: Name = unique(graph, &stem, &value.name);
            graph.values.push(Value {
                name,
                ..value.clone()
            });
            let v = ValueId(graph.values.len() as u32 - 1);
            if value.konst.is_some() {
                graph.initializers.push(v);
            }
            at[i] = Some(v);
        }
        renamed.insert(value.name.clone(), at[i].map(|v| graph[v].name.clone()));
    }
    for (_, node) in body.iter() {
        let mut node = node.clone();
        let ends = node.inputs.iter_mut().chain(&mut node.outputs);
        ends.for_each(|v| *v = v.and_then(|v| at[v.0 as usize]));
        node.name = Some(format!("{stem}/{}", node.label()).into());
        attributes(&mut node, f, call);
        for g in node.attrs.iter_mut().flat_map(|a| a.value.graphs_mut()) {
            inside(g, f, call, &renamed);
        }
        graph.node(node);
    }
    for (from, to) in copies {
        let x = at[from.0 as usize];
        graph.node(Node::new("Identity", vec![x], vec![Some(to)]));
    }
}

fn unique(graph: &Graph, stem: &str, name: &str) -> Name {
    // Values are numbered, so that no name can be there twice.
    format!("{stem}/{name}#{}", graph.values.len()).into()
}

/// Puts the values of attributes of `call` in the place of references to them; a reference to one that the call leaves out and
/// that has no default goes.
fn attributes(node: &mut Node, f: &Function, call: &Node) {
    node.attrs.retain_mut(|a| {
        let AttrValue::Ref(name) = &a.value else {
            return true;
        };
        let given = call.attr(name);
        let default = || f.defaults.iter().find(|d| d.name == *name).map(|d| &d.value);
        match given.or_else(default) {
            Some(value) => {
                *a = Attr::new(a.name.clone(), value.clone());
                true
            }
            None => false,
        }
    });
}

/// The same for a subgraph, in which values of the function have new names too.
fn inside(graph: &mut Graph, f: &Function, call: &Node, renamed: &HashMap<Name, Option<Name>>) {
    let captured = graph.captures();
    let mut inner = renamed.clone();
    let defined: Vec<_> = graph
        .values
        .iter()
        .map(|v| v.name.clone())
        .filter(|n| !captured.contains(n))
        .collect();
    defined.iter().for_each(|n| drop(inner.remove(n)));
    for v in &mut graph.values {
        if let Some(Some(new)) = inner.get(&v.name) {
            v.name = new.clone();
        }
    }
    for id in graph.order.clone() {
        let values = &graph.values;
        let gone = |v: &ValueId| matches!(inner.get(&values[v.0 as usize].name), Some(None));
        let holes: Vec<_> = graph[id].inputs.iter().map(|v| v.filter(|v| !gone(v))).collect();
        let node = &mut graph[id];
        node.inputs = holes;
        attributes(node, f, call);
        for g in node.attrs.iter_mut().flat_map(|a| a.value.graphs_mut()) {
            inside(g, f, call, &inner);
        }
    }
}
