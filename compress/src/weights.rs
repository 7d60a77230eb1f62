//! Which constants of a model are weights: the operands of its contractions.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use secateur_engine::Tensor;
use secateur_engine::ir::{Constant, Dim, Graph, Model, Name, Node, NodeId, ValueId};
use secateur_engine::ops::Fact;

use crate::contraction::{Lens, carries, order};
use crate::math::Kind;
use crate::pattern::Matrix;
use crate::place::{At, Place, Scope, Site, branches, held, places};

/// A floating-point constant of a model, which may be a weight.
#[derive(Clone, Debug)]
pub struct Weight {
    /// What no other constant of the model is called: the value's name, in a subgraph with the way to it in front.
    pub name: String,
    /// The value's name in its own graph.
    pub value: Name,
    /// The nodes that read it, once each, in order, also where `Transpose` and its like stand between.
    pub nodes: Vec<String>,
    /// The elements.
    pub tensor: Arc<Tensor>,
    /// The type of the elements.
    pub kind: Kind,
    /// How its operators multiply by it; `None` where they differ or that is not known.
    pub matrix: Option<Matrix>,
    /// Why it is not to be pruned, if it is not.
    pub exempt: Option<Exempt>,
}

/// Why a floating-point constant is not pruned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exempt {
    /// It has fewer than two axes, as biases and the scales of norms have.
    Vector,
    /// Nothing reads it.
    Unread,
    /// An operator reads it that does not sum over products with it, such as the `Gather` of an embedding.
    Reader(String),
    /// It is an output of a graph.
    Output,
    /// The caller wants it kept.
    Kept,
    /// The pattern wants to know which of its axes are outputs and which inputs.
    Unordered,
    /// The method cannot see what it is multiplied by, or how the model depends on it.
    Unobserved(String),
}

impl fmt::Display for Exempt {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Exempt::Vector => f.write_str("fewer than two axes"),
            Exempt::Unread => f.write_str("not read"),
            Exempt::Reader(op) => write!(f, "read by {op}"),
            Exempt::Output => f.write_str("an output"),
            Exempt::Kept => f.write_str("kept on request"),
            Exempt::Unobserved(why) => f.write_str(why),
            Exempt::Unordered => f.write_str("its outputs and inputs are not known"),
        }
    }
}

impl Weight {
    /// The number of elements.
    pub fn elements(&self) -> u64 {
        self.tensor.len() as u64
    }
}

/// Every floating-point constant of `model` with elements, in the order of the file.
///
/// Those that are not exempt are the weights: tensors of at least two axes that are multiplied and summed over (the
/// weights of convolutions, matrix products, recurrent layers), and that nothing else reads. Initialisers that a caller
/// may override count too. One that several nodes read is there once. Weights handed to a model-local function are exempt;
/// constants inside of one are not.
pub fn weights(model: &Model) -> Vec<Weight> {
    let places = places(model);
    let mut trace = Trace {
        model,
        places: &places,
        index: places.iter().enumerate().map(|(i, p)| (&p.site, i)).collect(),
        uses: places.iter().map(|_| Uses::default()).collect(),
    };
    trace.graph(&model.graph, Scope::default(), None);
    for (i, f) in model.functions.iter().enumerate() {
        let scope = Scope {
            function: Some(i),
            path: vec![],
        };
        trace.graph(&f.graph, scope, None);
    }
    let found = places.iter().zip(trace.uses);
    found
        .filter_map(|(p, uses)| weight(p, p.site.constant(model)?, uses))
        .collect()
}

fn weight(place: &Place, constant: &Constant, uses: Uses) -> Option<Weight> {
    let tensor = constant.tensor.clone();
    let kind = Kind::of(tensor.dtype())?;
    if tensor.is_empty() {
        return None;
    }
    let vector = (tensor.dims().len() < 2).then_some(Exempt::Vector);
    let unread = (!uses.contracted).then_some(Exempt::Unread);
    Some(Weight {
        name: place.name.clone(),
        value: place.value.clone(),
        nodes: uses.nodes,
        kind,
        matrix: uses.matrix.flatten(),
        exempt: vector.or(uses.exempt).or(unread),
        tensor,
    })
}

/// How one constant is used.
#[derive(Default)]
struct Uses {
    nodes: Vec<String>,
    contracted: bool,
    exempt: Option<Exempt>,
    /// What all that read it agree on; not known before somebody does.
    matrix: Option<Option<Matrix>>,
}

/// A constant, by its index, and the order in which a value has its axes, where that is known: axis `a` of the value is axis
/// `order[a]` of the constant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    constant: usize,
    order: Option<Vec<usize>>,
}

impl Origin {
    /// As the outputs of `node` have it, which hands it on.
    fn through(&self, node: &Node) -> Origin {
        let order = self.order.as_ref().and_then(|old| {
            let new = order(node, old.len())?;
            Some(new.into_iter().map(|a| old[a]).collect())
        });
        Origin {
            constant: self.constant,
            order,
        }
    }
}

/// The constants of which each value of a graph has elements.
struct Origins<'a> {
    graph: &'a Graph,
    of: Vec<Vec<Origin>>,
    outer: Option<&'a Origins<'a>>,
    /// Made when first needed.
    names: Option<HashMap<Name, ValueId>>,
}

impl Origins<'_> {
    fn named(&self, name: &Name) -> Vec<Origin> {
        let here = self.names.as_ref().and_then(|names| names.get(name));
        match (here.map(|v| &self.of[v.0 as usize]), self.outer) {
            (Some(found), _) if !found.is_empty() => found.clone(),
            (_, Some(outer)) => outer.named(name),
            _ => vec![],
        }
    }
}

struct Trace<'a> {
    model: &'a Model,
    places: &'a [Place],
    index: HashMap<&'a Site, usize>,
    uses: Vec<Uses>,
}

impl Trace<'_> {
    fn graph(&mut self, graph: &Graph, scope: Scope, outer: Option<&Origins>) {
        let captured = |name| outer.map_or(vec![], |o: &Origins| o.named(name));
        let mut origins = Origins {
            graph,
            of: graph.values.iter().map(|v| captured(&v.name)).collect(),
            outer,
            names: None,
        };
        let set = graph.inputs.iter().map(|p| p.value);
        set.for_each(|v| origins.of[v.0 as usize].clear());
        for &v in &graph.initializers {
            origins.of[v.0 as usize] = self.at(&scope, At::Initializer(v));
        }
        let lens = Lens::new(self.model, scope.function, graph);
        for &id in &graph.order {
            self.node(&lens, id, &scope, &mut origins);
        }
        for origin in graph.outputs.iter().flat_map(|p| &origins.of[p.value.0 as usize]) {
            self.uses[origin.constant].exempt = Some(Exempt::Output);
        }
    }

    fn at(&self, scope: &Scope, at: At) -> Vec<Origin> {
        let site = Site {
            scope: scope.clone(),
            at,
        };
        let rank = site.constant(self.model).map(|c| c.tensor.dims().len());
        let origin = |&constant: &usize| Origin {
            constant,
            order: rank.map(|n| (0..n).collect()),
        };
        self.index.get(&site).map(origin).into_iter().collect()
    }

    fn node(&mut self, lens: &Lens, id: NodeId, scope: &Scope, origins: &mut Origins) {
        let graph = origins.graph;
        let node = &graph[id];
        let mut made = held(graph, id).map_or(vec![], |(attr, _)| self.at(scope, At::Attr(id, attr)));
        for (i, v) in node.inputs.iter().enumerate() {
            for origin in v.iter().flat_map(|v| &origins.of[v.0 as usize]) {
                match carries(node, i) {
                    true => made.push(origin.through(node)),
                    false => self.read(lens, node, i, origin),
                }
            }
        }
        made.sort();
        made.dedup();
        for v in node.outputs.iter().flatten() {
            origins.of[v.0 as usize] = made.clone();
        }
        if node.attrs.iter().any(|a| !a.value.graphs().is_empty()) {
            origins.names.get_or_insert_with(|| graph.names());
            for (inner, _, g) in branches(graph, id, scope) {
                self.graph(g, inner, Some(origins));
            }
        }
    }

    fn read(&mut self, lens: &Lens, node: &Node, i: usize, origin: &Origin) {
        let Some(c) = self.places[origin.constant].site.constant(self.model) else {
            return;
        };
        let uses = &mut self.uses[origin.constant];
        match lens.contracts(node, i, &c.tensor) {
            true => {
                uses.contracted = true;
                let matrix = matrix(lens, node, i, (&c.tensor, origin));
                let same = uses.matrix.as_ref().is_none_or(|old| *old == matrix);
                uses.matrix = Some(matrix.filter(|_| same));
            }
            false => uses.exempt = Some(Exempt::Reader(node.op.to_string())),
        }
        if uses.nodes.last().is_none_or(|n| n != node.label()) {
            uses.nodes.push(node.label().to_owned());
        }
    }
}

/// How `node` multiplies by the constant `t`, which its input `i` has elements of.
fn matrix(lens: &Lens, node: &Node, i: usize, (t, origin): (&Tensor, &Origin)) -> Option<Matrix> {
    let order = origin.order.as_ref()?;
    let dims = order.iter().map(|&a| Dim::from(t.dims()[a])).collect();
    lens.matrix(node, i, &Fact::tensor(Some(t.dtype()), Some(dims)), order)
}

#[cfg(test)]
mod tests {
    use secateur_engine::ir::{Attr, DType, Function, Type};

    use super::*;

    fn tensor(dims: &[usize]) -> Tensor {
        Tensor::of(dims, vec![1f32; dims.iter().product()])
    }

    /// Adds a node with one output, called like the node.
    fn node(g: &mut Graph, op: &str, name: &str, inputs: &[ValueId]) -> ValueId {
        let y = g.value(name);
        let mut node = Node::new(op, inputs.iter().copied().map(Some).collect(), vec![Some(y)]);
        node.name = Some(format!("n_{name}").into());
        g.node(node);
        y
    }

    fn found(model: &Model) -> Vec<(String, Option<Exempt>)> {
        weights(model).into_iter().map(|w| (w.name, w.exempt)).collect()
    }

    fn reader(op: &str) -> Option<Exempt> {
        Some(Exempt::Reader(op.into()))
    }

    #[test]
    fn operands_of_contractions_are_weights() {
        let mut model = Model::default();
        let g = &mut model.graph;
        let x = g.input("x", Type::Unknown);
        let [w, r, b] =
            [("w", 3), ("r", 3), ("b", 2)].map(|(n, rank)| g.constant(n, tensor(&[2; 3][..rank])));
        let y = node(g, "LSTM", "lstm", &[x, w, r, b]);
        let k = g.constant("kernel", tensor(&[2, 2, 1, 1]));
        let bias = g.constant("bias", tensor(&[2]));
        let y = node(g, "Conv", "conv", &[y, k, bias]);
        let scale = g.constant("scale", tensor(&[2, 1, 1]));
        let y = node(g, "Mul", "mul", &[y, scale]);
        let ints = g.constant("ints", Tensor::of(&[2, 2], vec![1i8; 4]));
        let y = node(g, "MatMul", "mm", &[y, ints]);
        g.constant("unread", tensor(&[2, 2]));
        g.constant("empty", tensor(&[0, 2]));
        g.output(y, None);
        let expected = [
            ("w", None),
            ("r", None),
            ("b", reader("LSTM")),
            ("kernel", None),
            ("bias", Some(Exempt::Vector)),
            ("scale", reader("Mul")),
            ("unread", Some(Exempt::Unread)),
        ];
        assert_eq!(found(&model), expected.map(|(n, e)| (n.to_owned(), e)));
    }

    #[test]
    fn weights_are_followed_through_carriers_and_counted_once() {
        let mut model = Model::default();
        let g = &mut model.graph;
        let x = g.input("x", Type::Unknown);
        // Old files list initialisers as inputs too.
        let w = g.input("w", Type::Unknown);
        g[w].konst = Some(Constant::new(tensor(&[2, 2])));
        g.initializers.push(w);
        let t = node(g, "Transpose", "t", &[w]);
        let other = g.constant("other", tensor(&[1, 2]));
        let t = node(g, "Concat", "both", &[t, other]);
        let t = node(g, "Slice", "slice", &[t]);
        let a = node(g, "MatMul", "a", &[x, t]);
        let b = node(g, "Gemm", "b", &[a, w]);
        let c = g.value("c");
        let mut constant = Node::new("Constant", vec![], vec![Some(c)]);
        constant.set("value", tensor(&[2, 2]));
        g.node(constant);
        let d = node(g, "MatMul", "d", &[c, b]);
        g.output(d, None);
        let all = weights(&model);
        assert!(all.iter().all(|w| w.exempt.is_none()));
        let nodes: Vec<_> = all.iter().map(|w| (&*w.name, w.nodes.join(" "))).collect();
        let expected = [("w", "n_a n_b"), ("other", "n_a"), ("c", "n_d")];
        assert_eq!(nodes, expected.map(|(w, n)| (w, n.to_owned())));
    }

    #[test]
    fn what_something_else_reads_is_left_alone() {
        let mut model = Model::default();
        let g = &mut model.graph;
        let x = g.input("x", Type::tensor(DType::I64, [1usize]));
        let tied = g.constant("tied", tensor(&[2, 2]));
        let e = node(g, "Gather", "e", &[tied, x]);
        let t = node(g, "Transpose", "t", &[tied]);
        let y = node(g, "MatMul", "y", &[e, t]);
        let shown = g.constant("shown", tensor(&[2, 2]));
        let z = node(g, "MatMul", "z", &[y, shown]);
        g.output(z, None);
        g.output(shown, None);
        let expected = [("tied", reader("Gather")), ("shown", Some(Exempt::Output))];
        assert_eq!(found(&model), expected.map(|(n, e)| (n.to_owned(), e)));
    }

    #[test]
    fn subgraphs_read_the_weights_around_them_and_functions_have_their_own() {
        let mut inner = Graph::default();
        // What the graph does not define comes from outside.
        let [x, w, t] = ["x", "w", "t"].map(|n| inner.value(n));
        let own = inner.constant("own", tensor(&[2, 2]));
        let y = node(&mut inner, "MatMul", "y1", &[x, w]);
        let y = node(&mut inner, "MatMul", "y2", &[y, t]);
        let y = node(&mut inner, "MatMul", "y3", &[y, own]);
        inner.output(y, None);
        let mut model = Model::default();
        let g = &mut model.graph;
        let x = g.input("x", Type::Unknown);
        g.constant("w", tensor(&[2, 2]));
        let v = g.constant("v", tensor(&[2, 2]));
        node(g, "Transpose", "t", &[v]);
        let y = node(g, "If", "if", &[x]);
        let last = g.order[g.order.len() - 1];
        g[last].attrs.push(Attr::new("then_branch", inner.clone()));
        let called = g.constant("called", tensor(&[2, 2]));
        let y = node(g, "Linear", "linear", &[y, called]);
        g.output(y, None);
        let mut body = Graph::default();
        let x = body.input("x", Type::Unknown);
        let c = body.value("c");
        let mut constant = Node::new("Constant", vec![], vec![Some(c)]);
        constant.set("value", tensor(&[2, 2]));
        body.node(constant);
        node(&mut body, "MatMul", "y", &[x, c]);
        model.functions.push(Function {
            name: "Linear".into(),
            graph: body,
            ..Function::default()
        });
        let expected = [
            ("w", None),
            ("v", None),
            ("called", reader("Linear")),
            ("if.then_branch/own", None),
            ("Linear/c", None),
        ];
        assert_eq!(found(&model), expected.map(|(n, e)| (n.to_owned(), e)));
    }

    /// The matrix of the weight of one node `op`, with a `Transpose` before it if there is an order.
    fn matrix(op: &str, dims: &[usize], attrs: &[(&str, i64)], perm: Option<&[i64]>) -> Option<String> {
        let mut model = Model::default();
        let g = &mut model.graph;
        let x = g.input("x", Type::Unknown);
        let mut w = g.constant("w", tensor(dims));
        if let Some(perm) = perm {
            w = node(g, "Transpose", "t", &[w]);
            let last = g.order[g.order.len() - 1];
            g[last].set("perm", perm.to_vec());
        }
        let y = node(g, op, "y", &[x, w]);
        let last = g.order[g.order.len() - 1];
        attrs.iter().for_each(|(name, n)| g[last].set(name, *n));
        g.output(y, None);
        let m = weights(&model).remove(0).matrix?;
        let axis = |(d, r): (&usize, &crate::pattern::Role)| format!("{d} {r:?}");
        Some(
            m.dims
                .iter()
                .zip(&m.roles)
                .map(axis)
                .collect::<Vec<_>>()
                .join(", "),
        )
    }

    #[test]
    fn outputs_and_inputs_are_told_apart() {
        type Case = (
            &'static str,
            &'static [usize],
            &'static [(&'static str, i64)],
            &'static str,
        );
        let cases: &[Case] = &[
            ("Conv", &[8, 3, 5, 7], &[], "8 Output, 3 Input, 5 Tap, 7 Tap"),
            (
                "Conv",
                &[8, 3, 5],
                &[("group", 2)],
                "2 Each, 4 Output, 3 Input, 5 Tap",
            ),
            ("ConvTranspose", &[8, 3, 5], &[], "8 Input, 3 Output, 5 Tap"),
            (
                "ConvTranspose",
                &[8, 3, 5],
                &[("group", 4)],
                "4 Each, 2 Input, 3 Output, 5 Tap",
            ),
            ("MatMul", &[3, 5], &[], "3 Input, 5 Output"),
            ("MatMul", &[2, 3, 5], &[], "2 Each, 3 Input, 5 Output"),
            ("Gemm", &[3, 5], &[], "3 Input, 5 Output"),
            ("Gemm", &[5, 3], &[("transB", 1)], "5 Output, 3 Input"),
            ("LSTM", &[2, 12, 3], &[], "2 Each, 12 Output, 3 Input"),
        ];
        for (op, dims, attrs, expected) in cases {
            assert_eq!(
                matrix(op, dims, attrs, None).as_deref(),
                Some(*expected),
                "{op} {attrs:?}"
            );
        }
        let turned = matrix("MatMul", &[5, 3], &[], Some(&[1, 0]));
        assert_eq!(turned.as_deref(), Some("5 Output, 3 Input"));
        let turned = matrix("Conv", &[3, 5, 8], &[("group", 2)], Some(&[2, 0, 1]));
        assert_eq!(turned.as_deref(), Some("3 Input, 5 Tap, 2 Each, 4 Output"));
        assert_eq!(matrix("Conv", &[8, 3, 5], &[("group", 3)], None), None);
    }

    #[test]
    fn readers_that_differ_leave_it_open() {
        let mut model = Model::default();
        let g = &mut model.graph;
        let x = g.input("x", Type::Unknown);
        let w = g.constant("w", tensor(&[2, 2]));
        let v = g.constant("v", tensor(&[2, 2]));
        let flat = node(g, "Reshape", "flat", &[v]);
        let t = node(g, "Transpose", "t", &[w]);
        let a = node(g, "MatMul", "a", &[x, w]);
        let b = node(g, "MatMul", "b", &[a, t]);
        let c = node(g, "MatMul", "c", &[b, flat]);
        g.output(c, None);
        let mut all = weights(&model);
        assert!(all.iter().all(|w| w.exempt.is_none() && w.matrix.is_none()));
        crate::Pattern::Unstructured.mark(&mut all);
        assert!(all.iter().all(|w| w.exempt.is_none()));
        crate::Pattern::Row.mark(&mut all);
        assert!(all.iter().all(|w| w.exempt == Some(Exempt::Unordered)));
    }
}
