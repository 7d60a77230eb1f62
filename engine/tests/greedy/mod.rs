//! Graphs of few lines that ask for more than there is.

pub(crate) mod loops;

use secateur_engine::ir::{Attr, AttrValue, DType, Dim, Function, Graph, Model, Node, Opset, Type, ValueId};
use secateur_engine::{Session, Tensor};

/// Bytes that sessions here may work in.
pub(crate) const MEMORY: usize = 64 << 20;

/// What is fed.
pub(crate) type Feeds = Vec<(&'static str, Tensor)>;

pub(crate) fn opset(domain: Option<&str>, version: i64) -> Opset {
    Opset {
        domain: domain.map(Into::into),
        version: Some(version),
        extra: Default::default(),
    }
}

pub(crate) fn model(version: i64, graph: Graph) -> Model {
    Model {
        ir_version: Some(10),
        opsets: vec![opset(None, version)],
        graph,
        ..Model::default()
    }
}

/// A graph under construction.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) graph: Graph,
    pub(crate) feeds: Feeds,
    next: usize,
}

impl Draft {
    /// One that stands in another.
    fn inner() -> Draft {
        Draft {
            next: 100,
            ..Draft::default()
        }
    }

    pub(crate) fn value(&mut self) -> ValueId {
        self.next += 1;
        self.graph.value(format!("v{}", self.next))
    }

    /// A value that is known before, or fed.
    pub(crate) fn given(&mut self, name: &'static str, t: Tensor, known: bool) -> ValueId {
        if known {
            return self.graph.constant(name, t);
        }
        let free = t.dims().iter().map(|_| Dim::Unknown);
        let v = self.graph.input(name, Type::tensor(t.dtype(), free));
        self.feeds.push((name, t));
        v
    }

    pub(crate) fn node(&mut self, op: &str, inputs: &[ValueId], attrs: Vec<Attr>) -> ValueId {
        let y = self.value();
        let inputs = inputs.iter().copied().map(Some).collect();
        self.graph.node(Node {
            name: Some(format!("the_{op}").into()),
            attrs,
            ..Node::new(op, inputs, vec![Some(y)])
        });
        y
    }

    pub(crate) fn done(mut self, y: ValueId, version: i64) -> (Model, Feeds) {
        self.graph.output(y, None);
        (model(version, self.graph), self.feeds)
    }
}

fn ints(x: &[i64]) -> Tensor {
    Tensor::of(&[x.len()], x.to_vec())
}

fn floats(dims: &[usize]) -> Tensor {
    Tensor::of(dims, vec![1.0f32; dims.iter().product()])
}

/// An operator, opset, inputs with names; the first is data, the others sizes.
type Asking = (&'static str, i64, Vec<Tensor>);

/// Operators that ask for a terabyte and more.
pub(crate) fn asking() -> Vec<Asking> {
    let huge = 1i64 << 40;
    vec![
        ("ConstantOfShape", 21, vec![ints(&[1 << 20, 1 << 20])]),
        ("ConstantOfShape", 21, vec![ints(&[i64::MAX, i64::MAX])]),
        ("Expand", 21, vec![floats(&[1]), ints(&[huge])]),
        ("Tile", 21, vec![floats(&[4]), ints(&[huge])]),
        (
            "Range",
            21,
            vec![Tensor::scalar(0i64), Tensor::scalar(huge), Tensor::scalar(1i64)],
        ),
        (
            "Range",
            21,
            vec![
                Tensor::scalar(0f32),
                Tensor::scalar(1e30f32),
                Tensor::scalar(1e-30f32),
            ],
        ),
        ("Pad", 21, vec![floats(&[4]), ints(&[0, huge])]),
        ("Pad", 21, vec![floats(&[4]), ints(&[i64::MAX, i64::MAX])]),
        (
            "Upsample",
            9,
            vec![
                floats(&[1, 1, 4, 4]),
                Tensor::of(&[4], vec![1.0f32, 1.0, 1e6, 1e6]),
            ],
        ),
        (
            "OneHot",
            21,
            vec![ints(&[0, 1]), ints(&[huge]), Tensor::of(&[2], vec![0.0f32, 1.0])],
        ),
        ("Reshape", 21, vec![floats(&[4]), ints(&[huge, -1])]),
        // No element, but an axis without end.
        (
            "Upsample",
            9,
            vec![
                floats(&[0, 1, 4, 4]),
                Tensor::of(&[4], vec![1.0f32, 1.0, 1e15, 1.0]),
            ],
        ),
        (
            "Resize",
            21,
            vec![
                floats(&[1, 1, 4, 4]),
                floats(&[0]),
                Tensor::of(&[4], vec![1.0f32, 1.0, 1e6, 1e6]),
            ],
        ),
        (
            "Resize",
            21,
            vec![
                floats(&[1, 1, 4, 4]),
                floats(&[0]),
                floats(&[0]),
                ints(&[1, 1, 1 << 20, 1 << 20]),
            ],
        ),
        ("CenterCropPad", 21, vec![floats(&[4]), ints(&[huge])]),
        (
            "AffineGrid",
            21,
            vec![floats(&[1, 2, 3]), ints(&[1, 1, 1 << 20, 1 << 20])],
        ),
        ("HannWindow", 21, vec![Tensor::scalar(huge)]),
        ("MatMul", 21, vec![floats(&[1 << 20, 1]), floats(&[1, 1 << 20])]),
        ("Add", 21, vec![floats(&[1 << 20, 1]), floats(&[1, 1 << 20])]),
        (
            "Resize",
            10,
            vec![
                floats(&[1, 1, 4, 4]),
                Tensor::of(&[4], vec![1.0f32, 1.0, 1e6, 1e6]),
            ],
        ),
    ]
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// `asking` as a graph: with sizes that are known, or fed.
pub(crate) fn alone((op, version, inputs): &Asking, known: bool) -> (Model, Feeds) {
    let mut d = Draft::default();
    let given = inputs.iter().zip(NAMES);
    let inputs: Vec<_> = given.map(|(t, name)| d.given(name, t.clone(), known)).collect();
    let y = d.node(op, &inputs, vec![]);
    d.done(y, *version)
}

/// The same in a branch, or in the body of a loop.
pub(crate) fn inside((op, version, inputs): &Asking, known: bool, turns: Option<i64>) -> (Model, Feeds) {
    let mut d = Draft::default();
    let given = inputs.iter().zip(NAMES);
    for (t, name) in given {
        d.given(name, t.clone(), known);
    }
    let mut inner = Draft::inner();
    let read: Vec<_> = NAMES[..inputs.len()]
        .iter()
        .map(|n| inner.graph.value(*n))
        .collect();
    let condition = match turns {
        Some(_) => {
            inner
                .graph
                .input("turn", Type::tensor(DType::I64, Vec::<usize>::new()));
            let go = inner
                .graph
                .input("go", Type::tensor(DType::Bool, Vec::<usize>::new()));
            Some(inner.node("Identity", &[go], vec![]))
        }
        None => None,
    };
    let y = inner.node(op, &read, vec![]);
    condition.into_iter().for_each(|c| inner.graph.output(c, None));
    inner.graph.output(y, None);
    let body = inner.graph;
    let y = match turns {
        Some(turns) => {
            let m = d.given("m", Tensor::scalar(turns), true);
            d.node("Loop", &[m], vec![Attr::new("body", body)])
        }
        None => {
            let c = d.given("go", Tensor::bools(&[], [true]), false);
            let branches = ["then_branch", "else_branch"].map(|n| Attr::new(n, body.clone()));
            d.node("If", &[c], branches.into())
        }
    };
    d.done(y, *version)
}

/// `x` put behind itself again and again.
pub(crate) fn doubling(known: bool) -> (Model, Feeds) {
    let mut d = Draft::default();
    let mut x = d.given("a", floats(&[1024]), known);
    for _ in 0..50 {
        x = d.node("Concat", &[x, x], vec![Attr::new("axis", 0i64)]);
    }
    d.done(x, 21)
}

/// Indices of indices: the rank nearly doubles with each.
pub(crate) fn indexing(known: bool) -> (Model, Feeds) {
    let mut d = Draft::default();
    let mut x = d.given("a", Tensor::of(&[2, 2], vec![0i64; 4]), known);
    for _ in 0..8 {
        x = d.node("Gather", &[x, x], vec![]);
    }
    d.done(x, 21)
}

/// Many constants of moderate size, each of another.
pub(crate) fn folding() -> (Model, Feeds) {
    let mut d = Draft::default();
    let s = d.given("a", ints(&[1 << 22]), true);
    let mut all = vec![d.node("ConstantOfShape", &[s], vec![])];
    for _ in 0..200 {
        all.push(d.node("Neg", &all[all.len() - 1..], vec![]));
    }
    let y = d.node("Sum", &all, vec![]);
    d.done(y, 21)
}

/// A size squared again and again.
pub(crate) fn squaring() -> (Model, Feeds) {
    let mut d = Draft::default();
    let x = d.graph.input(
        "x",
        Type::tensor(DType::F32, [Dim::symbol("n"), Dim::symbol("m")]),
    );
    d.feeds.push(("x", floats(&[2, 3])));
    let mut s = d.node("Shape", &[x], vec![]);
    let one = d.given("one", ints(&[1]), true);
    for _ in 0..60 {
        let more = d.node("Add", &[s, one], vec![]);
        s = d.node("Mul", &[more, more], vec![]);
        let half = d.node("Div", &[s, more], vec![]);
        s = d.node("Max", &[half, s], vec![]);
    }
    d.done(s, 21)
}

/// A loop that piles up a megabyte each turn.
pub(crate) fn piling() -> (Model, Feeds) {
    inside(
        &("ConstantOfShape", 21, vec![ints(&[1 << 18])]),
        true,
        Some(1 << 31),
    )
}

/// A loop whose state doubles each turn: a tensor, or a list.
pub(crate) fn growing(list: bool) -> (Model, Feeds) {
    let mut d = Draft::default();
    let x = d.given("a", floats(&[if list { 1 << 16 } else { 1024 }]), false);
    let mut inner = Draft::inner();
    inner
        .graph
        .input("turn", Type::tensor(DType::I64, Vec::<usize>::new()));
    let go = inner
        .graph
        .input("go", Type::tensor(DType::Bool, Vec::<usize>::new()));
    let state = inner.graph.input("state", Type::Unknown);
    let c = inner.node("Identity", &[go], vec![]);
    let y = match list {
        false => inner.node("Concat", &[state, state], vec![Attr::new("axis", 0i64)]),
        true => {
            let one = inner.graph.value("a");
            inner.node("SequenceInsert", &[state, one], vec![])
        }
    };
    inner.graph.output(c, None);
    inner.graph.output(y, None);
    let m = d.given("m", Tensor::scalar(1i64 << 31), true);
    let go = d.given("go", Tensor::bools(&[], [true]), true);
    let first = match list {
        true => d.node("SequenceConstruct", &[x], vec![]),
        false => x,
    };
    let y = d.node("Loop", &[m, go, first], vec![Attr::new("body", inner.graph)]);
    d.done(y, 21)
}

/// A loop without a trip count whose condition stays true.
pub(crate) fn endless() -> (Model, Feeds) {
    let mut d = Draft::default();
    let go = d.given("go", Tensor::bools(&[], [true]), true);
    let x = d.given("a", floats(&[1]), false);
    let mut inner = Draft::inner();
    inner
        .graph
        .input("turn", Type::tensor(DType::I64, Vec::<usize>::new()));
    let c = inner
        .graph
        .input("go_on", Type::tensor(DType::Bool, Vec::<usize>::new()));
    let s = inner.graph.input("state", Type::tensor(DType::F32, [1usize]));
    let c = inner.node("Identity", &[c], vec![]);
    let y = inner.node("Neg", &[s], vec![]);
    inner.graph.output(c, None);
    inner.graph.output(y, None);
    let y = d.value();
    let body = Attr::new("body", inner.graph);
    d.graph.node(Node {
        name: Some("the_Loop".into()),
        attrs: vec![body],
        ..Node::new("Loop", vec![None, Some(go), Some(x)], vec![Some(y)])
    });
    d.done(y, 21)
}

/// A branch that reads what its own node makes.
pub(crate) fn selfish() -> (Model, Feeds) {
    let mut d = Draft::default();
    let c = d.given("go", Tensor::bools(&[], [true]), false);
    let mut inner = Draft::inner();
    let own = inner.graph.value("v1");
    let y = inner.node("Neg", &[own], vec![]);
    inner.graph.output(y, None);
    let branches = ["then_branch", "else_branch"].map(|n| Attr::new(n, inner.graph.clone()));
    let y = d.node("If", &[c], branches.into());
    d.done(y, 21)
}

/// Two nodes that wait for each other.
pub(crate) fn circle() -> (Model, Feeds) {
    let mut d = Draft::default();
    let x = d.given("a", floats(&[1]), false);
    let (p, q) = (d.value(), d.value());
    d.graph
        .node(Node::new("Add", vec![Some(x), Some(q)], vec![Some(p)]));
    d.graph.node(Node::new("Neg", vec![Some(p)], vec![Some(q)]));
    d.done(q, 21)
}

/// Two nodes that make the same value.
pub(crate) fn twice() -> (Model, Feeds) {
    let mut d = Draft::default();
    let x = d.given("a", floats(&[1]), false);
    let y = d.node("Neg", &[x], vec![]);
    d.graph.node(Node::new("Abs", vec![Some(x)], vec![Some(y)]));
    d.done(y, 21)
}

/// Subgraphs in subgraphs, `depth` of them.
pub(crate) fn nested(depth: usize) -> (Model, Feeds) {
    let mut graph = Graph::default();
    let x = graph.value("a");
    let y = graph.value("y");
    graph.node(Node::new("Neg", vec![Some(x)], vec![Some(y)]));
    graph.output(y, None);
    for i in 0..depth {
        let mut outer = Graph::default();
        let c = outer.value("go");
        let y = outer.value(format!("y{i}"));
        outer.node(Node {
            attrs: vec![
                Attr::new("then_branch", graph),
                Attr::new("else_branch", {
                    let mut g = Graph::default();
                    let x = g.value("a");
                    g.output(x, None);
                    g
                }),
            ],
            ..Node::new("If", vec![Some(c)], vec![Some(y)])
        });
        outer.output(y, None);
        graph = outer;
    }
    let mut d = Draft::default();
    let _ = d.given("a", floats(&[1]), false);
    let c = d.given("go", Tensor::bools(&[], [true]), false);
    let branches = ["then_branch", "else_branch"].map(|n| Attr::new(n, graph.clone()));
    let y = d.node("If", &[c], branches.into());
    d.done(y, 21)
}

/// Functions of which each calls the one before twice; the first calls the last if `circle`.
pub(crate) fn functions(count: usize, circle: bool) -> (Model, Feeds) {
    let name = |i: usize| format!("f{i}");
    let call = |op: String, from: ValueId, to: ValueId| Node {
        domain: Some("own".into()),
        ..Node::new(op, vec![Some(from)], vec![Some(to)])
    };
    let function = |i: usize| {
        let mut graph = Graph::default();
        let x = graph.input("x", Type::Unknown);
        let [m, y] = ["m", "y"].map(|n| graph.value(n));
        for (from, to) in [(x, m), (m, y)] {
            match (i, circle) {
                (0, false) => graph.node(Node::new("Neg", vec![Some(from)], vec![Some(to)])),
                (0, true) => graph.node(call(name(count - 1), from, to)),
                _ => graph.node(call(name(i - 1), from, to)),
            };
        }
        graph.output(y, None);
        Function {
            name: name(i).into(),
            domain: Some("own".into()),
            graph,
            opsets: vec![opset(None, 21), opset(Some("own"), 1)],
            ..Function::default()
        }
    };
    let mut d = Draft::default();
    let x = d.given("a", floats(&[1]), false);
    let y = d.value();
    d.graph.node(call(name(count - 1), x, y));
    let (mut m, feeds) = d.done(y, 21);
    m.opsets.push(opset(Some("own"), 1));
    m.functions = (0..count).map(function).collect();
    (m, feeds)
}

/// An attribute list that breaks a node: many numbers where few are expected.
pub(crate) fn long_axes() -> (Model, Feeds) {
    let mut d = Draft::default();
    let x = d.given("a", floats(&[2]), false);
    let y = d.node(
        "Transpose",
        &[x],
        vec![Attr::new("perm", AttrValue::Ints(vec![0; 1 << 16]))],
    );
    d.done(y, 21)
}

/// A border of two values.
pub(crate) fn two_borders() -> (Model, Feeds) {
    let mut d = Draft::default();
    let x = d.given("a", floats(&[4]), false);
    let pads = d.given("pads", ints(&[1, 1]), true);
    let c = d.given("c", floats(&[2]), false);
    let y = d.node("Pad", &[x, pads, c], vec![]);
    d.done(y, 21)
}

/// Earlier keys for more sequences than there are.
pub(crate) fn foreign_keys() -> (Model, Feeds) {
    let mut d = Draft::default();
    let [q, k, v] = ["q", "k", "v"].map(|n| d.given(n, floats(&[2, 3, 4, 8]), false));
    let [past_k, past_v] =
        [("past_k", 2), ("past_v", 0)].map(|(n, b)| d.given(n, floats(&[b, 3, 5, 8]), false));
    let outputs: Vec<_> = (0..3).map(|_| Some(d.value())).collect();
    let y = outputs[2].unwrap();
    d.graph.node(Node {
        name: Some("the_Attention".into()),
        ..Node::new(
            "Attention",
            vec![Some(q), Some(k), Some(v), None, Some(past_k), Some(past_v)],
            outputs,
        )
    });
    d.done(y, 24)
}

/// What is clipped is a bound too, and nobody else reads it.
pub(crate) fn own_bound() -> (Model, Feeds) {
    let mut d = Draft::default();
    let x = d.given("a", floats(&[]), false);
    let low = d.given("low", floats(&[]), true);
    let x = d.node("Neg", &[x], vec![]);
    let y = d.node("Clip", &[x, low, x], vec![]);
    d.done(y, 21)
}

/// Indices that nobody reads.
pub(crate) fn unread_indices() -> (Model, Feeds) {
    let mut d = Draft::default();
    let x = d.given("a", floats(&[1, 1, 4]), false);
    let (y, indices) = (d.value(), d.value());
    d.graph.node(Node {
        attrs: vec![Attr::new("kernel_shape", vec![2i64])],
        ..Node::new("MaxPool", vec![Some(x)], vec![Some(y), Some(indices)])
    });
    d.done(y, 21)
}

/// What a session says, from building to the end of a run.
pub(crate) fn answer((model, feeds): &(Model, Feeds)) -> Result<(), String> {
    let session = Session::builder(model).threads(1).memory(MEMORY);
    let session = session.build().map_err(|e| e.to_string())?;
    let run = session.run(feeds.iter().map(|(n, t)| (*n, t)));
    run.map(|_| ()).map_err(|e| e.to_string())
}

/// A value of one element and one of none, in the same place: `Add` may take over neither.
pub(crate) fn nothing_in_place() -> (Model, Feeds) {
    let mut d = Draft::default();
    let none = d.given("none", floats(&[0]), false);
    let one = d.given("one", floats(&[]), false);
    let none = d.node("Cos", &[none], vec![]);
    let one = d.node("Cos", &[one], vec![]);
    let y = d.node("Add", &[none, one], vec![]);
    let y = d.node("Neg", &[y], vec![]);
    d.done(y, 21)
}

/// Statistics without what they are of.
pub(crate) fn first_left_out() -> (Model, Feeds) {
    let mut d = Draft::default();
    let x = d.given("a", floats(&[2, 3]), false);
    let s = d.given("s", floats(&[3]), true);
    let m = d.value();
    d.graph.node(Node::new(
        "LayerNormalization",
        vec![Some(x), Some(s)],
        vec![None, Some(m)],
    ));
    d.done(m, 21)
}

/// Sizes whose product is beyond all numbers.
pub(crate) fn overflowing() -> (Model, Feeds) {
    let mut d = Draft::default();
    let x = d.given("a", floats(&[2, 3]), false);
    let s = d.given("s", ints(&[1, i64::MAX, 42]), true);
    let y = d.node("Reshape", &[x, s], vec![]);
    d.done(y, 21)
}

/// More inputs than the operator has, or fewer.
pub(crate) fn inputs(op: &str, count: usize) -> (Model, Feeds) {
    let mut d = Draft::default();
    let x = d.given("a", Tensor::bools(&[1], [true]), false);
    let y = d.node(op, &vec![x; count], vec![]);
    d.done(y, 21)
}
