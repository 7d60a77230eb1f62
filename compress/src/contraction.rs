//! Which inputs an operator multiplies and sums over, and which operators only carry elements along.

use std::collections::HashMap;

use secateur_engine::ir::{AttrValue, Dim, Graph, Model, Node, Opset, Tensor, Type, ValueId};
use secateur_engine::ops::{self, Axes, Fact, Input, NodeRef, Tie};
use secateur_engine::opt::infer::opset_of;

use crate::pattern::{Matrix, Role};

/// What the axes of a weight are.
#[derive(Clone, Copy)]
enum Form {
    /// What the equation says.
    Stated,
    /// [outputs, inputs, window…], outputs in groups.
    Conv,
    /// [inputs, outputs, window…], inputs in groups.
    Transposed,
    /// [directions, outputs, inputs].
    Recurrent,
}

/// Contractions whose equation no operator of the engine states, or not for every node or axis, with the inputs that may be
/// weights. Sorted by domain and name.
static CONTRACTIONS: &[(&str, &str, &[usize], Form)] = &[
    ("", "Conv", &[1], Form::Conv),
    ("", "ConvTranspose", &[1], Form::Transposed),
    ("", "DeformConv", &[1], Form::Conv),
    ("", "Einsum", &[0, 1], Form::Stated),
    ("", "GRU", &[1, 2], Form::Recurrent),
    ("", "Gemm", &[0, 1], Form::Stated),
    ("", "LSTM", &[1, 2], Form::Recurrent),
    ("", "MatMul", &[0, 1], Form::Stated),
    ("", "RNN", &[1, 2], Form::Recurrent),
    ("com.microsoft", "Attention", &[1], Form::Stated),
    ("com.microsoft", "FusedConv", &[1], Form::Conv),
    ("com.microsoft", "FusedGemm", &[0, 1], Form::Stated),
    ("com.microsoft", "FusedMatMul", &[0, 1], Form::Stated),
];

/// Operators that hand on elements of their first input (`Concat`: of all) in whatever order and precision, and make
/// nothing of others. Sorted.
static CARRIERS: &[&str] = &[
    "Cast",
    "Concat",
    "Dropout",
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
        let stated = || self.axes(node, i, &Fact::of(weight));
        listed(node, i).is_some() || stated().is_some_and(|axes| sums_products_of(&axes, i))
    }

    /// The axes of a constant as matrices that `node` multiplies by, if it contracts its input `i`: `weight`, whose axis `a` is
    /// axis `order[a]` of the constant.
    pub(crate) fn matrix(&self, node: &Node, i: usize, weight: &Fact, order: &[usize]) -> Option<Matrix> {
        let dims = weight
            .ty
            .shape()?
            .iter()
            .map(Dim::size)
            .collect::<Option<Vec<_>>>()?;
        let of = |role| move |&size: &usize| vec![(size, role)];
        let rest = |n: usize| dims.iter().skip(n).map(of(Role::Tap));
        let parts: Vec<Vec<(usize, Role)>> = match (listed(node, i).unwrap_or(Form::Stated), &dims[..]) {
            (Form::Stated, _) => {
                let axes = self.axes(node, i, weight)?;
                let role = |(axis, &size): (usize, &usize)| vec![(size, role(&axes, i, axis))];
                dims.iter().enumerate().map(role).collect()
            }
            (Form::Conv, &[outputs, inputs, ..]) => {
                let first = [grouped(node, outputs, Role::Output)?, of(Role::Input)(&inputs)];
                first.into_iter().chain(rest(2)).collect()
            }
            (Form::Transposed, &[inputs, outputs, ..]) => {
                let first = [grouped(node, inputs, Role::Input)?, of(Role::Output)(&outputs)];
                first.into_iter().chain(rest(2)).collect()
            }
            (Form::Recurrent, &[directions, outputs, inputs]) => vec![
                of(Role::Each)(&directions),
                of(Role::Output)(&outputs),
                of(Role::Input)(&inputs),
            ],
            _ => return None,
        };
        let mut back: Vec<usize> = (0..parts.len()).collect();
        back.sort_by_key(|&a| order.get(a));
        let axes = back.into_iter().flat_map(|a| parts[a].iter().copied());
        let (dims, roles) = axes.unzip();
        Some(Matrix { dims, roles })
    }

    /// The equation of `node`, whose input `i` is `weight`. Where it does not follow from what the graph says, inputs of
    /// which nothing is known are taken to have as many axes as the weight.
    fn axes(&self, node: &Node, i: usize, weight: &Fact) -> Option<Axes> {
        let rank = vec![Dim::Unknown; weight.ty.shape()?.len()];
        let guess = Fact::tensor(weight.ty.dtype(), Some(rank));
        [Fact::unknown(), guess].into_iter().find_map(|unknown| {
            let fact = |(j, v): (usize, &Option<ValueId>)| match v {
                Some(_) if j == i => weight.clone(),
                Some(v) => self.known(*v).unwrap_or(unknown.clone()),
                None => Fact::unknown(),
            };
            let facts: Vec<Fact> = node.inputs.iter().enumerate().map(fact).collect();
            self.stated(node, &facts)
        })
    }

    /// The equation that the operator of `node` states of inputs of which `facts` are known.
    fn stated(&self, node: &Node, facts: &[Fact]) -> Option<Axes> {
        let op = ops::find(node.domain(), &node.op)?;
        let input = |(v, fact): (&Option<ValueId>, _)| {
            v.map(|value| Input {
                value,
                fact,
                konst: self.graph.konst(value),
                fixed: false,
            })
        };
        let inputs = node.inputs.iter().zip(facts).map(input).collect();
        let n = NodeRef::new(node, opset_of(self.opsets, node), inputs);
        // An equation is stated of nodes that are well formed only.
        op.infer(&n).ok()?;
        op.axes(&n)
    }

    /// What the graph says of `v` itself.
    fn known(&self, v: ValueId) -> Option<Fact> {
        match &self.graph[v].konst {
            Some(c) => Some(Fact::of(&c.tensor)),
            None => self.declared.get(&v).map(|&ty| ty.clone().into()),
        }
    }
}

/// The form of input `i` of `node` in the table.
fn listed(node: &Node, i: usize) -> Option<Form> {
    let key = (node.domain(), &*node.op);
    let at = CONTRACTIONS.binary_search_by(|&(domain, op, ..)| (domain, op).cmp(&key));
    let (_, _, inputs, form) = CONTRACTIONS[at.ok()?];
    inputs.contains(&i).then_some(form)
}

/// An axis of `size` outputs or inputs of all groups of the convolution `node`.
fn grouped(node: &Node, size: usize, role: Role) -> Option<Vec<(usize, Role)>> {
    let groups = match node.attr("group") {
        Some(AttrValue::Int(Some(n))) => usize::try_from(*n).ok()?,
        _ => 1,
    };
    match groups {
        1 => Some(vec![(size, role)]),
        n if n > 0 && size.is_multiple_of(n) => Some(vec![(n, Role::Each), (size / n, role)]),
        _ => None,
    }
}

/// What axis `axis` of input `i` is by the equation `axes`.
fn role(axes: &Axes, i: usize, axis: usize) -> Role {
    let summed = axes.0.iter().filter(|t| t.output.is_none());
    let with = |t: &&Tie| t.inputs.iter().any(|&(j, _)| j == i);
    let others = summed
        .filter(with)
        .flat_map(|t| t.inputs.iter().map(|x| x.0).filter(|&j| j != i));
    let operands: Vec<usize> = others.collect();
    let Some(tie) = axes.0.iter().find(|t| t.inputs.contains(&(i, axis))) else {
        return Role::Output;
    };
    let shared = tie.inputs.iter().any(|(j, _)| operands.contains(j));
    match (tie.output, shared) {
        (Some(_), true) => Role::Each,
        (Some(_), false) => Role::Output,
        (None, true) => Role::Input,
        (None, false) => Role::Tap,
    }
}

fn sums_products_of(axes: &Axes, i: usize) -> bool {
    axes.0.iter().any(|tie| {
        let has = |own: bool| tie.inputs.iter().any(|&(j, _)| (j == i) == own);
        tie.output.is_none() && has(true) && has(false)
    })
}

/// For each axis of the first output of `node`, which hands on its first input of `rank` axes, that of the input; `None` where
/// it cuts, joins or numbers axes anew.
pub(crate) fn order(node: &Node, rank: usize) -> Option<Vec<usize>> {
    match &*node.op {
        "Cast" | "Dropout" | "Identity" => Some((0..rank).collect()),
        "Transpose" => match node.attr("perm") {
            Some(AttrValue::Ints(perm)) => {
                let axis = |&a: &i64| usize::try_from(a).ok().filter(|a| *a < rank);
                perm.iter().map(axis).collect()
            }
            _ => Some((0..rank).rev().collect()),
        },
        _ => None,
    }
}

/// Whether the outputs of `node` have elements of its input `i`, in whatever order and precision.
pub(crate) fn carries(node: &Node, i: usize) -> bool {
    let listed = || node.domain().is_empty() && CARRIERS.binary_search(&&*node.op).is_ok();
    let view = || ops::find(node.domain(), &node.op).is_some_and(|op| op.laws().view);
    (i == 0 || node.is("Concat")) && (listed() || view())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        assert!(CONTRACTIONS.is_sorted_by_key(|&(domain, op, ..)| (domain, op)));
        assert!(CARRIERS.is_sorted());
    }

    fn node(op: &str, inputs: u32) -> Node {
        let inputs = (0..inputs).map(|v| Some(ValueId(v))).collect();
        Node::new(op, inputs, vec![])
    }

    /// A graph of values of which nothing is known.
    fn unknown(values: usize) -> Graph {
        let mut graph = Graph::default();
        for i in 0..values {
            graph.value(format!("v{i}"));
        }
        graph
    }

    #[test]
    fn operators_state_what_they_contract() {
        let (model, graph) = (Model::default(), unknown(3));
        let lens = Lens::new(&model, None, &graph);
        let weight = |dims: &[usize]| Tensor::of(dims, vec![1f32; dims.iter().product()]);
        let stated = |op, i: u32, w: &Tensor| {
            // The operators here take a bias, except for the product of elements.
            let inputs = if op == "Mul" { 2 } else { 3.min(i + 2) };
            let axes = lens.axes(&node(op, inputs), i as usize, &Fact::of(w));
            axes.map(|axes| sums_products_of(&axes, i as usize))
        };
        assert_eq!(stated("MatMul", 0, &weight(&[4, 5])), Some(true));
        assert_eq!(stated("Gemm", 1, &weight(&[4, 5])), Some(true));
        assert_eq!(stated("Gemm", 2, &weight(&[4, 5])), Some(false));
        assert_eq!(stated("Conv", 1, &weight(&[4, 3, 3, 3])), Some(true));
        assert_eq!(stated("Mul", 1, &weight(&[4, 5])), Some(false));
        assert_eq!(stated("Conv", 1, &weight(&[4])), None);
    }

    #[test]
    fn malformed_nodes_are_no_contractions() {
        let mut graph = unknown(4);
        let scalar = graph.input(
            "scalar",
            Type::tensor(secateur_engine::ir::DType::F32, [0usize; 0]),
        );
        let model = Model::default();
        let lens = Lens::new(&model, None, &graph);
        for op in ops::OPS.iter().map(|op| op.name()) {
            for dims in [&[][..], &[2], &[2, 2], &[2, 2, 2, 2, 2]] {
                let w = Tensor::of(dims, vec![1f32; dims.iter().product()]);
                for (i, other) in [(0, scalar), (1, scalar), (2, scalar), (1, ValueId(1))] {
                    let mut n = node(op.name, 4);
                    n.domain = Some(op.domain.into());
                    n.inputs[usize::from(i == 0)] = Some(other);
                    let w = Fact::of(&w);
                    lens.axes(&n, i, &w);
                    lens.matrix(&n, i, &w, &[0, 1]);
                }
            }
        }
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
