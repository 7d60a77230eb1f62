//! Residual blocks: sums of a value and of something made of it, which can be left out as a whole.

use std::collections::HashSet;

use secateur_engine::Tensor;
use secateur_engine::ir::{Dim, Graph, Links, Model, Node, NodeId, ValueId};
use secateur_engine::opt::Facts;
use secateur_engine::opt::infer::NodeError;

use crate::change::Bypass;
use crate::groups::{Sizes, traced};

/// A residual block `x + f(x)`, of which `f` can be left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The name of the sum.
    pub sum: String,
    /// Which input of the sum is the one that stays.
    pub stays: usize,
    /// The nodes that nothing else needs, the first first.
    pub nodes: Vec<String>,
    /// The elements of their constants.
    pub parameters: u64,
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
    let look = Look {
        graph: &model.graph,
        links: model.graph.links(),
        facts: &trace.facts,
        any: &trace.any,
    };
    let found: Vec<(NodeId, Block, HashSet<NodeId>)> = model
        .graph
        .iter()
        .filter_map(|(id, node)| look.block(id, node))
        .collect();
    let sums: Vec<NodeId> = found.iter().map(|f| f.0).collect();
    let inner = |own: &HashSet<NodeId>| !sums.iter().any(|s| own.contains(s));
    Ok(found.into_iter().filter(|f| inner(&f.2)).map(|f| f.1).collect())
}

struct Look<'a> {
    graph: &'a Graph,
    links: Links,
    facts: &'a Facts,
    /// What is known whatever the sizes of the inputs are.
    any: &'a Facts,
}

/// Whether `a` and `b` have the same shape whatever the sizes of the model's inputs are, as far as `any` knows.
pub(crate) fn alike(any: &Facts, a: ValueId, b: ValueId) -> bool {
    let known = |d: &Dim| *d != Dim::Unknown;
    match (any.of(a).ty.shape(), any.of(b).ty.shape()) {
        (Some(a), Some(b)) => a == b && a.iter().all(known),
        _ => false,
    }
}

impl Look<'_> {
    fn block(&self, id: NodeId, node: &Node) -> Option<(NodeId, Block, HashSet<NodeId>)> {
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
        let own = self.only(id, x);
        let order = self.graph.order.iter().filter(|n| own.contains(n) && **n != id);
        let constants = self.constants(&own);
        let weighty = constants.iter().any(|t| t.dims().len() > 1);
        let block = Block {
            sum: self.graph[sum].name.to_string(),
            stays,
            nodes: order.map(|n| self.graph[*n].label().to_owned()).collect(),
            parameters: constants.iter().map(|t| t.len() as u64).sum(),
            score: self.score(f, 0).unwrap_or_else(|| size(&constants)),
        };
        let mut inside = own;
        inside.remove(&id);
        weighty.then_some((id, block, inside))
    }

    fn made(&self, v: ValueId) -> Option<NodeId> {
        self.links.producer(v).map(|(n, _)| n)
    }

    fn depends(&self, on: ValueId, x: ValueId) -> bool {
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

    /// The nodes that are needed no more if `x` takes the place of what `sum` makes, `sum` among them.
    fn only(&self, sum: NodeId, x: ValueId) -> HashSet<NodeId> {
        let mut live = HashSet::new();
        let all = (0..self.graph.values.len() as u32).map(ValueId);
        let mut open: Vec<ValueId> = all.filter(|v| self.links.kept(*v)).collect();
        while let Some(v) = open.pop() {
            match self.made(v) {
                Some(n) if n == sum => open.push(x),
                Some(n) if live.insert(n) => open.extend(self.graph[n].inputs.iter().flatten()),
                _ => {}
            }
        }
        self.graph
            .order
            .iter()
            .copied()
            .filter(|n| !live.contains(n))
            .collect()
    }

    fn float(&self, v: ValueId) -> Option<&Tensor> {
        self.graph.konst(v).filter(|t| t.dtype().is_float())
    }

    fn constants(&self, own: &HashSet<NodeId>) -> Vec<&Tensor> {
        let mut values: Vec<ValueId> = own
            .iter()
            .flat_map(|n| self.graph[*n].inputs.iter().flatten().copied())
            .collect();
        values.sort();
        values.dedup();
        let elsewhere = |v: &ValueId| self.links.readers(*v).iter().any(|n| !own.contains(n));
        values
            .iter()
            .filter(|v| !elsewhere(v))
            .filter_map(|v| self.float(*v))
            .collect()
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
