//! Where values are zero if everything that constants have in a letter is.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use secateur_engine::ir::{Node, NodeId, ValueId};

use super::space::{Letter, Space};
use super::trace::Trace;

/// The letters in which a value vanishes: at all places with an index of it, once the constants are zero there.
type Letters = BTreeSet<Letter>;

/// Operators that make zeros of zeros, or only move elements of their first input. Sorted.
static KEEP: &[&str] = &[
    "Abs",
    "AveragePool",
    "Cast",
    "Ceil",
    "Celu",
    "DepthToSpace",
    "Dropout",
    "Elu",
    "Erf",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "Gelu",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "MaxPool",
    "Mish",
    "Neg",
    "PRelu",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "Round",
    "Selu",
    "Shrink",
    "Sign",
    "Sin",
    "Sinh",
    "Slice",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Swish",
    "Tan",
    "Tanh",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Upsample",
];

/// Pins the letters that are summed over though no factor vanishes in them: their zeros would change the sum.
pub(crate) fn pin(trace: &mut Trace) {
    let vanish = Vanish::new(trace);
    let mut wrong: Vec<(Letter, NodeId)> = vec![];
    for sum in &trace.sums {
        let letters = trace.spaces.leaves(&sum.space).into_iter();
        let gone = |l: &Letter| sum.operands.iter().any(|v| vanish.in_letter(*v, *l));
        wrong.extend(letters.filter(|l| !gone(l)).map(|l| (l, sum.node)));
    }
    for (l, node) in wrong {
        let op = trace.model.graph[node].label().to_owned();
        let why = format!("{op:?} sums over it, and what it sums is not zero where the weights are");
        trace.spaces.pin(&Space::Letter(l), &Rc::from(why));
    }
}

struct Vanish<'a, 'm> {
    trace: &'a Trace<'m>,
    of: HashMap<ValueId, Letters>,
}

impl<'a, 'm> Vanish<'a, 'm> {
    fn new(trace: &'a Trace<'m>) -> Self {
        let mut vanish = Vanish {
            trace,
            of: HashMap::new(),
        };
        let g = &trace.model.graph;
        for &v in &g.initializers {
            vanish.of.insert(v, vanish.letters(v));
        }
        for (_, node) in g.iter() {
            let zero = vanish.node(node);
            for &v in node.outputs.iter().flatten() {
                let own = vanish.letters(v);
                vanish.of.insert(v, own.intersection(&zero).copied().collect());
            }
        }
        vanish
    }

    fn in_letter(&self, v: ValueId, l: Letter) -> bool {
        self.of.get(&v).is_some_and(|of| of.contains(&l))
    }

    /// The letters of the axes of `v`.
    fn letters(&self, v: ValueId) -> Letters {
        let axes = self.trace.of.get(&v).into_iter().flatten();
        axes.flat_map(|s| self.trace.spaces.leaves(s)).collect()
    }

    fn input(&self, node: &Node, i: usize) -> Letters {
        let v = node.inputs.get(i).copied().flatten();
        v.and_then(|v| self.of.get(&v).cloned()).unwrap_or_default()
    }

    /// Letters in which every input in `inputs` vanishes that is there.
    fn all(&self, node: &Node, inputs: impl Iterator<Item = usize>) -> Letters {
        let there = inputs.filter(|&i| node.inputs.get(i).is_some_and(Option::is_some));
        let sets = there.map(|i| self.input(node, i));
        sets.reduce(|a, b| a.intersection(&b).copied().collect())
            .unwrap_or_default()
    }

    fn any(&self, node: &Node, inputs: &[usize]) -> Letters {
        inputs.iter().flat_map(|&i| self.input(node, i)).collect()
    }

    /// Letters in which the outputs of `node` vanish, if they have them.
    fn node(&self, node: &Node) -> Letters {
        if !node.domain().is_empty() {
            return Letters::new();
        }
        match &*node.op {
            "Constant" => node
                .outputs
                .iter()
                .flatten()
                .flat_map(|&v| self.letters(v))
                .collect(),
            "Add" | "Sub" | "Sum" | "Max" | "Min" | "Mean" => self.all(node, 0..node.inputs.len()),
            "Where" => self.all(node, 1..3),
            "Mul" => self.any(node, &[0, 1]),
            "Div" | "QuantizeLinear" | "DequantizeLinear" => self.input(node, 0),
            "MatMul" | "Einsum" => self.any(node, &[0, 1]),
            "Conv" | "ConvTranspose" | "Gemm" => self.product(node),
            "BatchNormalization" | "InstanceNormalization" => self.all(node, 1..3),
            "LSTM" | "GRU" | "RNN" => self.all(node, 1..4),
            "Concat" => self.concat(node),
            "Clip" => self.clip(node),
            // What it fills up with is not zero where it is given.
            "Pad" if node.inputs.get(2).is_none_or(Option::is_none) && node.attr("value").is_none() => {
                self.input(node, 0)
            }
            op if KEEP.binary_search(&op).is_ok() => self.input(node, 0),
            _ => Letters::new(),
        }
    }

    /// A product of the first two inputs and a third that is added.
    fn product(&self, node: &Node) -> Letters {
        let product = self.any(node, &[0, 1]);
        match node.inputs.get(2).copied().flatten() {
            Some(_) => product.intersection(&self.input(node, 2)).copied().collect(),
            None => product,
        }
    }

    /// All inputs that have the letter vanish in it.
    fn concat(&self, node: &Node) -> Letters {
        let inputs = || node.inputs.iter().flatten();
        let mut all: Letters = inputs().flat_map(|&v| self.letters(v)).collect();
        for &v in inputs() {
            let own = self.letters(v);
            all.retain(|l| !own.contains(l) || self.in_letter(v, *l));
        }
        all
    }

    fn clip(&self, node: &Node) -> Letters {
        let bound = |i: usize, name: &str| {
            let v = node.inputs.get(i).copied().flatten();
            let item = v.and_then(|v| self.trace.facts.konst(v)?.item());
            match (v, node.attr(name)) {
                (Some(_), _) => item,
                (_, Some(secateur_engine::ir::AttrValue::Float(x))) => Some(f64::from(x.unwrap_or(0.0))),
                _ => Some(0.0),
            }
        };
        match (bound(1, "min"), bound(2, "max")) {
            (Some(min), Some(max)) if min <= 0.0 && max >= 0.0 => self.input(node, 0),
            _ => Letters::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_sorted() {
        assert!(KEEP.is_sorted());
    }
}
