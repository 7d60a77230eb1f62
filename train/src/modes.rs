//! A model made to behave as it does while it is trained.

use std::collections::HashMap;

use secateur_engine::expr::{Builder, Ex};
use secateur_engine::ir::{Attr, DType, Model, Node, NodeId, ValueId};
use secateur_engine::ops;
use secateur_engine::opt::infer::infer;

use crate::TrainError;
use crate::group::{Group, group_of};
use crate::words::{cast, either, int};

/// Lets normalisations use what they see, and keep running statistics: for each of these the value before the step and that
/// after it.
pub(crate) fn normalize(model: &mut Model, groups: &[Group]) -> Vec<(ValueId, ValueId)> {
    let mut running: Vec<(ValueId, ValueId)> = vec![];
    let nodes: Vec<NodeId> = model.graph.iter().map(|(id, _)| id).collect();
    for id in nodes {
        if !model.graph[id].is("BatchNormalization") {
            continue;
        }
        let Some(stats) = statistics(model, id, groups) else {
            continue;
        };
        let new = stats.map(|v| {
            let name = format!("{}.next", model.graph[v].name);
            let name = model.graph.fresh(&name);
            model.graph.value(name)
        });
        // A second node with the same statistics goes on from what the first one made of them.
        let now = |v: ValueId| running.iter().rfind(|(old, _)| *old == v).map_or(v, |r| r.1);
        let node = &mut model.graph.nodes[id.0 as usize];
        node.set("training_mode", 1);
        for (i, &v) in stats.iter().enumerate() {
            node.inputs[3 + i] = Some(now(v));
        }
        node.outputs.truncate(1);
        node.outputs.extend(new.map(Some));
        for (old, new) in stats.into_iter().zip(new) {
            running.retain(|r| r.0 != old);
            running.push((old, new));
        }
    }
    running
}

/// The running mean and variance of a node that are initialisers and not frozen.
fn statistics(model: &Model, id: NodeId, groups: &[Group]) -> Option<[ValueId; 2]> {
    let graph = &model.graph;
    let stats = [
        graph[id].inputs.get(3).copied()??,
        graph[id].inputs.get(4).copied()??,
    ];
    let free = |&v: &ValueId| {
        let frozen = group_of(graph, v, groups).train == Some(false);
        graph[v].konst.is_some() && !frozen
    };
    stats.iter().all(free).then_some(stats)
}

/// The largest number that 31 bits hold, which is prime.
const PRIME: i64 = (1 << 31) - 1;

/// Makes nodes that drop elements do so, other ones in each `step` (a scalar integer), as `seed` says. The elements follow
/// from integers alone, so that every runtime drops the same.
pub(crate) fn drop(model: &mut Model, step: ValueId, seed: u32) -> Result<(), TrainError> {
    let nodes: Vec<NodeId> = model.graph.iter().map(|(id, _)| id).collect();
    let mut place = 0i64;
    for id in nodes {
        if !model.graph[id].is("Dropout") || share(model, &model.graph[id]) == Some(0.0) {
            continue;
        }
        place += 1;
        dropped(
            model,
            id,
            step,
            (i64::from(seed) * 1_000_003 + place * 7_368_787) % PRIME,
        )?;
    }
    Ok(())
}

/// The share that a node drops, where it is known.
fn share(model: &Model, node: &Node) -> Option<f64> {
    match node.inputs.get(1).copied().flatten() {
        Some(v) => model.graph.konst(v)?.item(),
        None => Some(0.5),
    }
}

/// Writes out one node that drops.
fn dropped(model: &mut Model, id: NodeId, step: ValueId, seed: i64) -> Result<(), TrainError> {
    let facts = infer(model, &HashMap::new())?;
    let node = model.graph[id].clone();
    let Some(x) = node.inputs.first().copied().flatten() else {
        return Ok(());
    };
    let ratio = node.inputs.get(1).copied().flatten();
    let graph = model.graph.clone();
    let b = Builder::new(&graph, ops::OPSET).knowing(&facts);
    let (x, step) = (b.at(x), b.at(step));
    let ratio = ratio.map_or(x.constant(0.5), |v| b.at(v).op("CastLike", &[x]));
    let keep = kept(x, cast(ratio, DType::F64), step, seed);
    let y = either(keep, x / (x.constant(1.0) - ratio), x.constant(0.0));
    let made = [y.id, keep.id];
    let mut patch = b.finish();
    for (old, new) in node.outputs.iter().zip(made) {
        patch.replace.extend(old.map(|old| (old, new)));
    }
    patch.remove.push(id);
    patch.apply(&mut model.graph)?;
    model.graph.sort();
    Ok(())
}

/// Whether each element of `x` stays. Its number and that of the step, mixed by a fifth power in the field of [`PRIME`]
/// elements, where it is a permutation, are compared with the share; no product needs more than 62 bits.
fn kept<'a>(x: Ex<'a>, ratio: Ex<'a>, step: Ex<'a>, seed: i64) -> Ex<'a> {
    let prime = int(x, PRIME);
    let remainder = |y: Ex<'a>| y.op("Mod", &[prime]);
    let numbers = int(x, 0).op("Range", &[x.op("Size", &[]), int(x, 1)]);
    let start = remainder(step * int(x, 1_640_531_527) + int(x, seed));
    let mixed = remainder(remainder(numbers) * int(x, 48_271) + start);
    let square = remainder(mixed * mixed);
    let fifth = remainder(remainder(square * square) * mixed);
    let bar = cast(ratio * PRIME as f64, DType::I64);
    let flat = fifth.op("GreaterOrEqual", &[bar]);
    flat.with("Reshape", &[x.op("Shape", &[])], vec![Attr::new("allowzero", 1)])
}
