//! Which inputs an operator multiplies and sums over, and which operators only carry elements along.

use std::collections::HashMap;

use secateur_engine::ir::{Dim, Graph, Model, Node, Opset, Tensor, Type, ValueId};
use secateur_engine::ops::{self, Axes, Fact, Input, NodeRef};
use secateur_engine::opt::infer::opset_of;

/// Contractions whose equation no operator of the engine states, or not for every node, with the inputs that may be
/// weights. Sorted by domain and name.
static CONTRACTIONS: &[(&str, &str, &[usize])] = &[
    ("", "Conv", &[1]),
    ("", "ConvTranspose", &[1]),
    ("", "DeformConv", &[1]),
    ("", "Einsum", &[0, 1]),
    ("", "GRU", &[1, 2]),
    ("", "Gemm", &[0, 1]),
    ("", "LSTM", &[1, 2]),
    ("", "MatMul", &[0, 1]),
    ("", "RNN", &[1, 2]),
    ("com.microsoft", "Attention", &[1]),
    ("com.microsoft", "FusedConv", &[1]),
    ("com.microsoft", "FusedGemm", &[0, 1]),
    ("com.microsoft", "FusedMatMul", &[0, 1]),
];

/// Operators that hand on elements of their first input (`Concat`: of all) in whatever order and precision, and make
/// nothing of others. Sorted.
static CARRIERS: &[&str] = &[
    "Cast",
    "Concat",
    "Flatten",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// A graph as the operators of its nodes see it.
pub(crate) struct Lens<'a> {
    graph: &'a Graph,
    opsets: &'a [Opset],
    declared: HashMap<ValueId, &'a Type>,
}

impl<'a> Lens<'a> {
    pub(crate) fn new(model: &'a Model, function: Option<usize>, graph: &'a Graph) -> Lens<'a> {
        let opsets = function.and_then(|f| model.functions.get(f)).map(|f| &f.opsets);
        let ports = graph.infos.iter().chain(&graph.inputs);
        let types = ports.filter_map(|p| Some((p.value, &p.ty.as_ref()?.ty)));
        Lens {
            graph,
            opsets: opsets.unwrap_or(&model.opsets),
            declared: types.filter(|(_, ty)| ty.shape().is_some()).collect(),
        }
    }

    /// Whether `node` sums over products of its input `i`, the tensor `weight`, with another input.
    pub(crate) fn contracts(&self, node: &Node, i: usize, weight: &Tensor) -> bool {
        let key = (node.domain(), &*node.op);
        let listed = CONTRACTIONS.binary_search_by(|&(domain, op, _)| (domain, op).cmp(&key));
        listed.is_ok_and(|at| CONTRACTIONS[at].2.contains(&i))
            || self
                .axes(node, i, weight)
                .is_some_and(|axes| sums_products_of(&axes, i))
    }

    /// The equation of `node`, whose input `i` is `weight`. An input of which nothing is known is taken to have as many
    /// axes as the weight.
    fn axes(&self, node: &Node, i: usize, weight: &Tensor) -> Option<Axes> {
        let op = ops::find(node.domain(), &node.op)?;
        let rank = vec![Dim::Unknown; weight.dims().len()];
        let fact = |(j, v): (usize, &Option<ValueId>)| match v {
            _ if j == i => Fact::of(weight),
            Some(v) => self
                .known(*v)
                .unwrap_or(Fact::tensor(Some(weight.dtype()), Some(rank.clone()))),
            None => Fact::unknown(),
        };
        let facts: Vec<Fact> = node.inputs.iter().enumerate().map(fact).collect();
        let input = |(v, fact): (&Option<ValueId>, _)| {
            v.map(|value| Input {
                value,
                fact,
                konst: self.graph.konst(value),
                fixed: false,
            })
        };
        let inputs = node.inputs.iter().zip(&facts).map(input).collect();
        op.axes(&NodeRef::new(node, opset_of(self.opsets, node), inputs))
    }

    /// What the graph says of `v` itself.
    fn known(&self, v: ValueId) -> Option<Fact> {
        match &self.graph[v].konst {
            Some(c) => Some(Fact::of(&c.tensor)),
            None => self.declared.get(&v).map(|&ty| ty.clone().into()),
        }
    }
}

fn sums_products_of(axes: &Axes, i: usize) -> bool {
    axes.0.iter().any(|tie| {
        let has = |own: bool| tie.inputs.iter().any(|&(j, _)| (j == i) == own);
        tie.output.is_none() && has(true) && has(false)
    })
}

/// Whether the outputs of `node` have elements of its input `i`, in whatever order and precision.
pub(crate) fn carries(node: &Node, i: usize) -> bool {
    let listed = || node.domain().is_empty() && CARRIERS.binary_search(&&*node.op).is_ok();
    let view = || ops::find(node.domain(), &node.op).is_some_and(|op| op.laws().view);
    (i == 0 || node.is("Concat")) && (listed() || view())
}

#[cfg(test)]
mod tests {
    use secateur_engine::ops::Tie;

    use super::*;

    #[test]
    fn tables_are_sorted() {
        assert!(CONTRACTIONS.is_sorted_by_key(|&(domain, op, _)| (domain, op)));
        assert!(CARRIERS.is_sorted());
    }

    #[test]
    fn a_product_is_summed_where_a_letter_has_two_inputs_and_no_output() {
        let tie = |output, inputs: &[(usize, usize)]| Tie {
            output,
            inputs: inputs.to_vec(),
        };
        // ik,kj→ij with a bias j.
        let gemm = Axes(vec![
            tie(Some(0), &[(0, 0)]),
            tie(None, &[(0, 1), (1, 0)]),
            tie(Some(1), &[(1, 1), (2, 0)]),
        ]);
        assert!(sums_products_of(&gemm, 0) && sums_products_of(&gemm, 1));
        assert!(!sums_products_of(&gemm, 2));
        let mean = Axes(vec![tie(None, &[(0, 0)]), tie(None, &[(0, 1)])]);
        assert!(!sums_products_of(&mean, 0));
    }
}
