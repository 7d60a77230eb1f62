//! Layers that can be left out as a whole: what comes out has the shape of what goes in.

use std::collections::HashSet;

use secateur_engine::ir::{Model, NodeId, ValueId};
use secateur_engine::opt::infer::NodeError;

use crate::blocks::{Look, Residual, alike, innermost};
use crate::change::Skip;
use crate::groups::{Sizes, traced};
use crate::math::dirac;

/// A layer, which can be left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// What it is called: the value that the first of its products makes, of those that work on what goes in. It stays the same when other
    /// layers go, and none of these takes it.
    pub name: String,
    /// The name of what comes out.
    pub value: String,
    /// The name of what goes in.
    pub stays: String,
    /// The nodes that nothing else needs, the first first.
    pub nodes: Vec<String>,
    /// The floating-point constants that only these read.
    pub constants: Vec<String>,
    /// The elements of these.
    pub parameters: u64,
    /// The multiply-adds of these nodes, as far as equations say them, in a run with the example sizes.
    pub macs: u64,
    /// How much the layer does, as far as its weights say: of residual blocks the sum of their scores, else how far the weights
    /// are from handing on what comes in, from 0 to 1 (see [`dirac::distance`]).
    pub score: f64,
}

impl Layer {
    /// The change that leaves the layer out.
    pub fn skip(&self) -> Skip {
        Skip {
            value: self.value.clone(),
            stays: self.stays.clone(),
        }
    }
}

/// The layers of the main graph of `model`, in order. Where residual blocks follow each other as attention and feed-forward do, such
/// a run is a layer, up to where the next begins. Elsewhere a layer is a convolution, product or recurrent layer outside of residual
/// blocks with what follows it up to the next one, as far as that has the shape of its input. Shapes are followed as by
/// [`groups`](crate::groups()).
///
/// # Errors
///
/// The first node whose inputs do not fit it.
pub fn layers(model: &Model, sizes: &Sizes) -> Result<Vec<Layer>, NodeError> {
    let (trace, _) = traced(model, sizes)?;
    let look = Look::new(model, &trace);
    let all = look.blocks();
    let within: HashSet<NodeId> = all.iter().flat_map(|b| b.inside.iter().copied()).collect();
    let runs = runs(&look, &innermost(all));
    if !runs.is_empty() {
        return Ok(runs);
    }
    let nodes = look.graph.iter().map(|(id, _)| id);
    let free = nodes.filter(|id| !within.contains(id));
    Ok(free.filter_map(|id| plain(&look, id)).collect())
}

/// Operators by which a block attends: it mixes what stands at different places. Sorted.
static ATTEND: &[&str] = &[
    "Attention",
    "GroupQueryAttention",
    "MultiHeadAttention",
    "PackedMultiHeadAttention",
    "Softmax",
];

/// Operators with which a layer begins, where they have weights. Sorted.
static BEGIN: &[&str] = &["Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN"];

/// Whether `id` multiplies by a constant matrix, as layers do that are not only glue.
fn weighty(look: &Look, id: NodeId) -> bool {
    let node = &look.graph[id];
    let matrix = |v: &ValueId| look.float(*v).is_some_and(|t| t.dims().len() > 1);
    BEGIN.binary_search(&&*node.op).is_ok() && node.inputs.iter().flatten().any(matrix)
}

/// Blocks that attend, each followed by others that do, and at last by one that does not.
fn runs(look: &Look, blocks: &[Residual]) -> Vec<Layer> {
    let attends = |b: &Residual| {
        let mut ops = b.body.iter().map(|n| &*look.graph[*n].op);
        ops.any(|op| ATTEND.binary_search(&op).is_ok())
    };
    let gap = |pair: &[Residual]| handed(look, pair[0].sum, pair[1].x);
    let gaps: Vec<Option<Gap>> = blocks.windows(2).map(gap).collect();
    let (mut found, mut first) = (vec![], None);
    for (i, block) in blocks.iter().enumerate() {
        let begun = first.filter(|_| i > 0 && gaps[i - 1].is_some());
        first = match (attends(block), begun) {
            (true, begun) => Some(begun.unwrap_or(i)),
            (false, Some(begun)) => {
                let next = blocks.get(i + 1).filter(|_| gaps[i].is_some());
                let next = next.map(|b| bare(look, b.x));
                let end = next.or_else(|| tail(look, block.sum, &gaps[begun.saturating_sub(1)..i]));
                found.extend(run(look, &blocks[begun..=i], end));
                None
            }
            (false, None) => None,
        };
    }
    found
}

/// The layer that `blocks` are: up to `end`, or else to the last sum.
fn run(look: &Look, blocks: &[Residual], end: Option<ValueId>) -> Option<Layer> {
    let (first, last) = (blocks.first()?, blocks.last()?);
    let fits = |v: &ValueId| alike(look.any, first.x, *v);
    let end = end.filter(fits).or(Some(last.sum).filter(fits))?;
    layer(look, (first.x, end), blocks.iter().map(|b| b.block.score).sum())
}

/// The operators between a sum and the next block, sorted.
type Gap<'a> = Vec<&'a str>;

/// Operators that say nothing of how layers are made: copies, and constants, which may be shared. Sorted.
static SILENT: &[&str] = &["Constant", "Identity"];

/// What `to` is made of `from` with, if of that alone, and of constants, without weights: it is the same, or normalised.
fn handed<'a>(look: &Look<'a>, from: ValueId, to: ValueId) -> Option<Gap<'a>> {
    let (mut open, mut seen, mut met) = (vec![to], HashSet::new(), false);
    while let Some(v) = open.pop() {
        match look.made(v) {
            _ if v == from => met = true,
            Some(n) if weighty(look, n) => return None,
            Some(n) if seen.insert(n) => open.extend(look.graph[n].inputs.iter().flatten()),
            Some(_) => {}
            None if look.graph.konst(v).is_none() => return None,
            None => {}
        }
    }
    let ops = seen.iter().map(|n| &*look.graph[*n].op);
    let mut ops: Gap = ops.filter(|op| SILENT.binary_search(op).is_err()).collect();
    ops.sort_unstable();
    met.then_some(ops)
}

/// What `v` is a copy of: a layer that was left out before an output has left one.
fn bare(look: &Look, mut v: ValueId) -> ValueId {
    let copied = |v| {
        let node = look
            .made(v)
            .map(|n| &look.graph[n])
            .filter(|n| n.is("Identity"))?;
        node.inputs.first().copied().flatten()
    };
    while let Some(from) = copied(v) {
        v = from;
    }
    v
}

/// Where the layer ends of which `sum` is the last, as the one before it and its own blocks do (`gaps`): behind a normalisation, where they all
/// have one.
fn tail(look: &Look, sum: ValueId, gaps: &[Option<Gap>]) -> Option<ValueId> {
    let mut like = gaps.iter().flatten();
    let gap = like.next().filter(|g| like.all(|other| other == *g))?;
    let (mut open, mut seen) = (vec![sum], HashSet::new());
    while let Some(v) = open.pop() {
        match handed(look, sum, v) {
            Some(ops) if ops == *gap => return Some(v),
            Some(ops) if ops.len() < gap.len() => {
                let readers = look.links.readers(v).iter().filter(|n| seen.insert(**n));
                open.extend(readers.flat_map(|n| look.graph[*n].outputs.iter().flatten()));
            }
            _ => {}
        }
    }
    None
}

/// The layer that begins with `id` and is no residual block.
fn plain(look: &Look, id: NodeId) -> Option<Layer> {
    let node = look
        .graph
        .nodes
        .get(id.0 as usize)
        .filter(|_| weighty(look, id))?;
    let x = node.inputs.first().copied().flatten()?;
    let constant = look.graph.konst(x).is_some();
    let end = way(look, id).into_iter().rfind(|v| alike(look.any, x, *v));
    // What the model says at last is not left out.
    let end = end.filter(|v| !constant && !look.links.kept(*v))?;
    let far = node.inputs.get(1).copied().flatten().and_then(|w| look.float(w));
    let score = far.and_then(|w| dirac::distance(&w.floats()?, w.dims(), &node.op));
    layer(look, (x, end), score.unwrap_or(1.0))
}

/// What `id` makes and what becomes of it, as long as nobody else reads it and no other weights come in.
fn way(look: &Look, id: NodeId) -> Vec<ValueId> {
    let (mut all, mut at) = (vec![], Some(id));
    while let Some(n) = at {
        let Some(v) = sole(look, n) else { break };
        all.push(v);
        at = match look.links.readers(v) {
            [next] if !look.links.kept(v) && !weighty(look, *next) && alone(look, *next, v) => Some(*next),
            _ => None,
        };
    }
    all
}

/// The first output of `n`, if nobody wants another.
fn sole(look: &Look, n: NodeId) -> Option<ValueId> {
    let outputs = &look.graph[n].outputs;
    let wanted = |v: &ValueId| look.links.kept(*v) || !look.links.readers(*v).is_empty();
    let others = outputs.iter().skip(1).flatten().any(wanted);
    outputs.first().copied().flatten().filter(|_| !others)
}

/// Whether `n` reads `v` and constants only.
fn alone(look: &Look, n: NodeId, v: ValueId) -> bool {
    let mut inputs = look.graph[n].inputs.iter().flatten();
    inputs.all(|i| *i == v || look.graph.konst(*i).is_some() || constant(look, *i))
}

/// Whether a node `Constant` makes `v`.
fn constant(look: &Look, v: ValueId) -> bool {
    look.made(v).is_some_and(|n| look.graph[n].is("Constant"))
}

fn layer(look: &Look, (x, end): (ValueId, ValueId), score: f64) -> Option<Layer> {
    let own = look.only(end, x);
    let constants = look.constants(&own);
    let tensors = constants.iter().filter_map(|v| look.float(*v));
    let producer = look.made(end)?;
    // What is an output becomes a copy of what stays, which takes a node with one output.
    let copied = !look.links.kept(end) || look.graph[producer].outputs.len() == 1;
    (copied && !own.is_empty()).then(|| Layer {
        name: look.name(product(look, x, end).unwrap_or(end)),
        value: look.name(end),
        stays: look.name(x),
        nodes: look.labels(&own),
        parameters: tensors.map(|t| t.len() as u64).sum(),
        constants: constants.iter().map(|v| look.name(*v)).collect(),
        macs: look.macs(&own),
        score,
    })
}

/// What the first product between `x` and `end` makes, or, where weights are no floats, the first that reads a
/// matrix of constants. Whether others
/// need it too does not matter: that changes as layers go.
fn product(look: &Look, x: ValueId, end: ValueId) -> Option<ValueId> {
    let (mut open, mut between) = (vec![end], HashSet::new());
    while let Some(v) = open.pop() {
        if let Some(n) = look.made(v).filter(|n| v != x && between.insert(*n)) {
            open.extend(look.graph[n].inputs.iter().flatten());
        }
    }
    let made = |n: &NodeId| look.graph[*n].outputs.iter().flatten().next().copied();
    let first = |of: &dyn Fn(&Look, NodeId) -> bool| {
        let order = look
            .graph
            .order
            .iter()
            .filter(|n| between.contains(n) && of(look, **n));
        order.filter_map(made).find(|v| look.depends(*v, x))
    };
    first(&weighty).or_else(|| first(&matrix))
}

/// Whether `id` reads something of several axes that is made of constants alone, as weights of bytes are before they are multiplied by.
fn matrix(look: &Look, id: NodeId) -> bool {
    let mut inputs = look.graph[id].inputs.iter().flatten();
    inputs.any(|v| fixed(look, *v).is_some_and(|axes| axes > 1))
}

/// The most axes of the constants that `v` is made of, if of nothing else.
fn fixed(look: &Look, v: ValueId) -> Option<usize> {
    let (mut open, mut seen, mut axes) = (vec![v], HashSet::new(), 0);
    while let Some(v) = open.pop() {
        match (look.graph.konst(v), look.made(v)) {
            (Some(t), _) => axes = axes.max(t.dims().len()),
            (None, Some(n)) if seen.insert(n) => open.extend(look.graph[n].inputs.iter().flatten()),
            (None, Some(_)) => {}
            (None, None) => return None,
        }
    }
    Some(axes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_sorted() {
        assert!([ATTEND, BEGIN, SILENT].iter().all(|ops| ops.is_sorted()));
    }
}
