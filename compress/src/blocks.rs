//! Residual blocks: sums of a value and of something made of it, which can be left out as a whole.

use std::collections::HashSet;

use secateur_engine::Tensor;
use secateur_engine::ir::{Dim, Graph, Links, Model, Node, NodeId, ValueId};
use secateur_engine::opt::Facts;
use secateur_engine::opt::infer::NodeError;
use secateur_engine::plan::macs;

use crate::change::Bypass;
use crate::groups::{Sizes, Trace, traced};

/// A residual block `x + f(x)`, of which `f` can be left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The name of the sum.
    pub sum: String,
    /// Which input of the sum is the one that stays.
    pub stays: usize,
    /// The nodes that nothing else needs, the first first.
    pub nodes: Vec<String>,
    /// The floating-point constants that only these read.
    pub constants: Vec<String>,
    /// The elements of these.
    pub parameters: u64,
    /// The multiply-adds of these nodes, as far as equations say them, in a run with the example sizes.
    pub macs: u64,
    /// How much the block adds, as far as its last weights say: the root mean square of the scale of a normalisation, or that
    /// of the weights of the last product times the root of the number of its inputs.
    pub score: f64,
}

impl Block {
    /// The change that leaves the block out.
    pub fn bypass(&self) -> Bypass {
        Bypass {
            sum: self.sum.clone(),
            stays: self.stays,
        }
    }
}

/// The residual blocks of the main graph of `model` that have weights and no other block inside, in order. Shapes are followed
/// as by [`groups`](crate::groups()).
///
/// # Errors
///
/// The first node whose inputs do not fit it.
pub fn blocks(model: &Model, sizes: &Sizes) -> Result<Vec<Block>, NodeError> {
    let (trace, _) = traced(model, sizes)?;
    let look = Look::new(model, &trace);
    Ok(innermost(look.blocks()).into_iter().map(|f| f.block).collect())
}

/// Those of `all` that have no other inside.
pub(crate) fn innermost(all: Vec<Residual>) -> Vec<Residual> {
    let sums: Vec<NodeId> = all.iter().map(|f| f.node).collect();
    let inner = |own: &HashSet<NodeId>| !sums.iter().any(|s| own.contains(s));
    all.into_iter().filter(|f| inner(&f.body)).collect()
}

/// A block, and where it stands.
pub(crate) struct Residual {
    pub(crate) block: Block,
    /// What makes the sum.
    pub(crate) node: NodeId,
    pub(crate) sum: ValueId,
    /// What stays.
    pub(crate) x: ValueId,
    /// What makes the rest.
    pub(crate) inside: HashSet<NodeId>,
    /// What of that works on what stays; an encoder that only this block of a decoder needs does not.
    pub(crate) body: HashSet<NodeId>,
}

/// A model, looked at for what can be left out of it.
pub(crate) struct Look<'a> {
    model: &'a Model,
    pub(crate) graph: &'a Graph,
    pub(crate) links: Links,
    facts: &'a Facts,
    /// What is known whatever the sizes of the inputs are.
    pub(crate) any: &'a Facts,
}

/// Whether `a` and `b` have the same shape whatever the sizes of the model's inputs are, as far as `any` knows.
pub(crate) fn alike(any: &Facts, a: ValueId, b: ValueId) -> bool {
    let known = |d: &Dim| *d != Dim::Unknown;
    match (any.of(a).ty.shape(), any.of(b).ty.shape()) {
        (Some(a), Some(b)) => a == b && a.iter().all(known),
        _ => false,
    }
}

impl<'a> Look<'a> {
    pub(crate) fn new(model: &'a Model, trace: &'a Trace) -> Look<'a> {
        Look {
            model,
            graph: &model.graph,
            links: model.graph.links(),
            facts: &trace.facts,
            any: &trace.any,
        }
    }

    /// All residual blocks, in order.
    pub(crate) fn blocks(&self) -> Vec<Residual> {
        let found = self.graph.iter().filter_map(|(id, node)| self.block(id, node));
        found.collect()
    }

    fn block(&self, id: NodeId, node: &Node) -> Option<Residual> {
        let (&[Some(a), Some(b)], &[Some(sum)]) = (&node.inputs[..], &node.outputs[..]) else {
            return None;
        };
        if !(node.is("Add") || node.is("Sum")) {
            return None;
        }
        let (stays, x, f) = [(0, a, b), (1, b, a)]
            .into_iter()
            .find(|&(_, x, f)| self.depends(f, x))?;
        if !alike(self.any, x, sum) {
            return None;
        }
        let own = self.only(sum, x);
        let constants = self.constants(&own);
        let tensors: Vec<&Tensor> = constants.iter().filter_map(|v| self.float(*v)).collect();
        let weighty = tensors.iter().any(|t| t.dims().len() > 1);
        let mut inside = own;
        inside.remove(&id);
        let block = Block {
            sum: self.name(sum),
            stays,
            nodes: self.labels(&inside),
            constants: constants.iter().map(|v| self.name(*v)).collect(),
            parameters: tensors.iter().map(|t| t.len() as u64).sum(),
            macs: self.macs(&inside),
            score: self.score(f, 0).unwrap_or_else(|| size(&tensors)),
        };
        let found = Residual {
            block,
            node: id,
            sum,
            x,
            body: self.made_with(x, &inside),
            inside,
        };
        weighty.then_some(found)
    }

    pub(crate) fn name(&self, v: ValueId) -> String {
        self.graph[v].name.to_string()
    }

    /// The names of `nodes`, the first first.
    pub(crate) fn labels(&self, nodes: &HashSet<NodeId>) -> Vec<String> {
        let order = self.graph.order.iter().filter(|n| nodes.contains(n));
        order.map(|n| self.graph[*n].label().to_owned()).collect()
    }

    /// The multiply-adds of `nodes`.
    pub(crate) fn macs(&self, nodes: &HashSet<NodeId>) -> u64 {
        let of = |n: &NodeId| macs(self.model, self.facts, *n).size().unwrap_or(0);
        nodes.iter().map(|n| of(n) as u64).sum()
    }

    pub(crate) fn made(&self, v: ValueId) -> Option<NodeId> {
        self.links.producer(v).map(|(n, _)| n)
    }

    /// Whether `on` is made with `x`.
    pub(crate) fn depends(&self, on: ValueId, x: ValueId) -> bool {
        let (mut open, mut seen) = (vec![on], HashSet::new());
        while let Some(v) = open.pop() {
            if v == x && v != on {
                return true;
            }
            if let Some(n) = self.made(v).filter(|n| seen.insert(*n)) {
                open.extend(self.graph[n].inputs.iter().flatten());
            }
        }
        false
    }

    /// Those of `nodes` that something made with `x` goes through.
    fn made_with(&self, x: ValueId, nodes: &HashSet<NodeId>) -> HashSet<NodeId> {
        let (mut values, mut found) = (HashSet::from([x]), HashSet::new());
        for &id in self.graph.order.iter().filter(|n| nodes.contains(n)) {
            let node = &self.graph[id];
            if node.inputs.iter().flatten().any(|v| values.contains(v)) {
                values.extend(node.outputs.iter().flatten());
                found.insert(id);
            }
        }
        found
    }

    /// The nodes that are needed no more if `x` takes the place of `gone`.
    pub(crate) fn only(&self, gone: ValueId, x: ValueId) -> HashSet<NodeId> {
        let mut live = HashSet::new();
        let all = (0..self.graph.values.len() as u32).map(ValueId);
        let mut open: Vec<ValueId> = all.filter(|v| self.links.kept(*v)).collect();
        while let Some(v) = open.pop() {
            let v = if v == gone { x } else { v };
            if let Some(n) = self.made(v).filter(|n| live.insert(*n)) {
                open.extend(self.graph[n].inputs.iter().flatten());
            }
        }
        self.graph
            .order
            .iter()
            .copied()
            .filter(|n| !live.contains(n))
            .collect()
    }

    pub(crate) fn float(&self, v: ValueId) -> Option<&Tensor> {
        self.graph.konst(v).filter(|t| t.dtype().is_float())
    }

    /// The floating-point constants that only `own` read.
    pub(crate) fn constants(&self, own: &HashSet<NodeId>) -> Vec<ValueId> {
        let mut values: Vec<ValueId> = own
            .iter()
            .flat_map(|n| self.graph[*n].inputs.iter().flatten().copied())
            .collect();
        values.sort();
        values.dedup();
        let elsewhere = |v: &ValueId| self.links.readers(*v).iter().any(|n| !own.contains(n));
        values.retain(|v| !elsewhere(v) && self.float(*v).is_some());
        values
    }

    /// How large `v` is by the last weights that it is made with.
    fn score(&self, v: ValueId, depth: usize) -> Option<f64> {
        let node = &self.graph[self.made(v).filter(|_| depth < 16)?];
        let input = |i: usize| node.inputs.get(i).copied().flatten();
        let go_on = |i: usize| self.score(input(i)?, depth + 1);
        match &*node.op {
            // What is zero before is only shifted.
            "BatchNormalization" => match go_on(0) {
                Some(0.0) => Some(size(&[self.float(input(2)?)?])),
                _ => Some(size(&[self.float(input(1)?)?])),
            },
            "Conv" | "Gemm" | "MatMul" => {
                let w = self.float(input(1)?)?;
                let outputs = match &*node.op {
                    "Conv" => *w.dims().first()?,
                    _ => self.facts.of(v).ty.dims()?.last().copied()?,
                };
                Some(size(&[w]) * (w.len() as f64 / outputs.max(1) as f64).sqrt())
            }
            "Add" if self.float(input(0)?).is_some() => go_on(1),
            "Add" if self.float(input(1)?).is_some() => go_on(0),
            "Dropout" | "Identity" | "Reshape" | "Transpose" => go_on(0),
            _ => None,
        }
    }
}

/// The root of the mean square of all elements.
fn size(tensors: &[&Tensor]) -> f64 {
    let squares = |t: &&Tensor| -> f64 { t.floats().unwrap_or_default().iter().map(|x| x * x).sum() };
    let count: usize = tensors.iter().map(|t| t.len()).sum();
    (tensors.iter().map(squares).sum::<f64>() / count.max(1) as f64).sqrt()
}

/// Those of `blocks` that go if `share` of them does: of the least score, of equal ones the last.
pub fn least(blocks: &[Block], share: f64) -> Vec<Bypass> {
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by(|&a, &b| blocks[a].score.total_cmp(&blocks[b].score).then(b.cmp(&a)));
    order.truncate((blocks.len() as f64 * share).round() as usize);
    order.sort_unstable();
    order.into_iter().map(|i| blocks[i].bypass()).collect()
}
