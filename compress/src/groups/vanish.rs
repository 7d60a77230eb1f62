//! Where values are zero if everything that constants have in a letter is.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use secateur_engine::ir::{AttrValue, Node, NodeId, ValueId};

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

/// Operators whose only output has the elements of their first input, each on its own. Sorted.
static ALONE: &[&str] = &[
    "Cast",
    "DequantizeLinear",
    "Identity",
    "Neg",
    "QuantizeLinear",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
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
    /// Constants, and copies of them: zero wherever any of their axes has an index of the letter, be it on several.
    constants: HashSet<ValueId>,
    /// The letters that each node sums over.
    summed: HashMap<NodeId, Letters>,
}

impl<'a, 'm> Vanish<'a, 'm> {
    fn new(trace: &'a Trace<'m>) -> Self {
        let mut vanish = Vanish {
            trace,
            of: HashMap::new(),
            constants: HashSet::new(),
            summed: HashMap::new(),
        };
        for sum in &trace.sums {
            let letters = trace.spaces.leaves(&sum.space);
            vanish.summed.entry(sum.node).or_default().extend(letters);
        }
        let g = &trace.model.graph;
        for &v in &g.initializers {
            vanish.of.insert(v, vanish.letters(v));
            vanish.constants.insert(v);
        }
        for (id, node) in g.iter() {
            vanish.made(id, node);
        }
        vanish
    }

    /// Notes where the outputs of a node vanish. A letter on two axes of one is zero where both have the index, no more, unless
    /// it is a constant.
    fn made(&mut self, id: NodeId, node: &Node) {
        let zero = self.node(id, node);
        let many = ["GRU", "LSTM", "RNN", "Split"].contains(&&*node.op);
        let first = node.inputs.first().copied().flatten();
        let copy =
            ALONE.binary_search(&&*node.op).is_ok() && first.is_some_and(|v| self.constants.contains(&v));
        let constant = node.is("Constant") || node.domain().is_empty() && copy;
        let outputs = node.outputs.iter().take(if many { usize::MAX } else { 1 });
        for &v in outputs.flatten() {
            let mut own = self.letters(v);
            own.retain(|l| zero.contains(l) && (constant || self.axes(v, *l) == 1));
            self.of.insert(v, own);
            if constant {
                self.constants.insert(v);
            }
        }
    }

    /// The number of axes of `v` that have the letter.
    fn axes(&self, v: ValueId, l: Letter) -> usize {
        let axes = self.trace.of.get(&v).into_iter().flatten();
        axes.filter(|s| self.trace.spaces.leaves(s).contains(&l)).count()
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

    /// Letters in which one of the first two inputs vanishes, on an axis of it that node `id` does not sum over.
    fn factors(&self, id: NodeId, node: &Node) -> Letters {
        let none = Letters::new();
        let summed = self.summed.get(&id).unwrap_or(&none);
        let mut found = Letters::new();
        for v in node.inputs.iter().take(2).flatten() {
            let other = |l: &Letter| !summed.contains(l) || !node.is("Einsum") && self.axes(*v, *l) > 1;
            found.extend(self.of.get(v).into_iter().flatten().filter(|l| other(l)));
        }
        found
    }

    /// Letters in which the outputs of `node` vanish, if they have them.
    fn node(&self, id: NodeId, node: &Node) -> Letters {
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
            "Div" | "QuantizeLinear" | "DequantizeLinear" => self.input(node, 0),
            "Mul" | "MatMul" | "Einsum" => self.factors(id, node),
            "Conv" | "ConvTranspose" | "Gemm" => self.product(id, node),
            "BatchNormalization" | "InstanceNormalization" => self.all(node, 1..3),
            // Other activations may make something of zero.
            "LSTM" | "GRU" | "RNN" if node.attr("activations").is_none() => {
                self.all(node, [1, 2, 3, 5, 6].into_iter())
            }
            "Resize" if number(node, "extrapolation_value") != 0.0 => Letters::new(),
            "Shrink" if number(node, "lambd") < 0.0 => Letters::new(),
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
    fn product(&self, id: NodeId, node: &Node) -> Letters {
        let product = self.factors(id, node);
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
                (_, Some(AttrValue::Float(x))) => Some(f64::from(x.unwrap_or(0.0))),
                _ => Some(0.0),
            }
        };
        match (bound(1, "min"), bound(2, "max")) {
            (Some(min), Some(max)) if min <= 0.0 && max >= 0.0 => self.input(node, 0),
            _ => Letters::new(),
        }
    }
}

/// A number among the attributes; 0 where it is left out.
fn number(node: &Node, name: &str) -> f32 {
    match node.attr(name) {
        Some(AttrValue::Float(x)) => x.unwrap_or(0.0),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_sorted() {
        assert!(KEEP.is_sorted() && ALONE.is_sorted());
    }
}
