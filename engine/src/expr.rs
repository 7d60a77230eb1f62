//! The one vocabulary in which computation is written.
//!
//! Model definitions, operator bodies, rewrite results, gradients and patterns are all written with [`Ex`]. What the
//! writing *does* is up to the [`Sink`]: a [`Builder`] collects nodes in a patch, a
//! [`Pattern`](crate::opt::Pattern) records what to look for.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::ir::{Attr, AttrValue, Constant, DType, Graph, Name, Node, Patch, Tensor, Type, Value, ValueId};
use crate::ops::{self, Fact, Input, NodeRef};
use crate::opt::Facts;

/// One operator application on its way to a [`Sink`].
pub struct Call<'c> {
    /// The operator's domain; `""` is ONNX's own.
    pub domain: &'c str,
    /// The operator's name.
    pub op: &'c str,
    /// Inputs; `None` where an optional one is left out.
    pub inputs: &'c [Option<ValueId>],
    /// Attributes.
    pub attrs: Vec<Attr>,
    /// The number of outputs.
    pub outputs: usize,
}

/// Receives the operators an expression applies.
pub trait Sink {
    /// Applies an operator to values this sink handed out earlier.
    fn call(&self, call: Call) -> Vec<ValueId>;
    /// The scalar `x`, of the element type of `like`.
    fn scalar(&self, x: f64, like: ValueId) -> ValueId;
    /// A constant tensor.
    fn tensor(&self, t: Tensor) -> ValueId;
    /// The float attribute `name` of the operator whose body is being written, as a scalar of the element type of `like`.
    fn attr(&self, name: &'static str, default: f32, like: ValueId) -> ValueId;
}

/// A value under construction. Copyable, so formulas read like formulas.
#[derive(Clone, Copy)]
pub struct Ex<'a> {
    /// The value's handle in `sink`.
    pub id: ValueId,
    /// Where further operators go.
    pub sink: &'a dyn Sink,
}

impl<'a> Ex<'a> {
    /// Applies the standard operator `op` to `self` and `rest`.
    pub fn op(self, op: &str, rest: &[Ex<'a>]) -> Ex<'a> {
        self.with(op, rest, vec![])
    }

    /// Applies the standard operator `op` with `attrs` to `self` and `rest`.
    pub fn with(self, op: &str, rest: &[Ex<'a>], attrs: Vec<Attr>) -> Ex<'a> {
        let inputs: Vec<_> = std::iter::once(self)
            .chain(rest.iter().copied())
            .map(|e| Some(e.id))
            .collect();
        let call = Call {
            domain: "",
            op,
            inputs: &inputs,
            attrs,
            outputs: 1,
        };
        self.call(call)[0]
    }

    /// Applies any operator, its inputs given in `call`.
    pub fn call(self, call: Call) -> Vec<Ex<'a>> {
        let ids = self.sink.call(call);
        ids.into_iter().map(|id| Ex { id, ..self }).collect()
    }

    /// The error function.
    pub fn erf(self) -> Ex<'a> {
        self.op("Erf", &[])
    }

    /// The exponential.
    pub fn exp(self) -> Ex<'a> {
        self.op("Exp", &[])
    }

    /// The natural logarithm.
    pub fn log(self) -> Ex<'a> {
        self.op("Log", &[])
    }

    /// The hyperbolic tangent.
    pub fn tanh(self) -> Ex<'a> {
        self.op("Tanh", &[])
    }

    /// The logistic function.
    pub fn sigmoid(self) -> Ex<'a> {
        self.op("Sigmoid", &[])
    }

    /// The matrix product.
    pub fn matmul(self, rhs: Ex<'a>) -> Ex<'a> {
        self.op("MatMul", &[rhs])
    }

    /// The float attribute `name` of the operator whose body is being written, `default` where it is left out.
    pub fn attr(self, name: &'static str, default: f32) -> Ex<'a> {
        Ex {
            id: self.sink.attr(name, default, self.id),
            ..self
        }
    }

    /// The scalar `x`, of the same element type as `self`.
    pub fn constant(self, x: f64) -> Ex<'a> {
        Ex {
            id: self.sink.scalar(x, self.id),
            ..self
        }
    }

    /// A constant tensor.
    pub fn tensor(self, t: Tensor) -> Ex<'a> {
        Ex {
            id: self.sink.tensor(t),
            ..self
        }
    }
}

macro_rules! infix {
    ($($trait:ident $method:ident $op:literal),*) => {$(
        impl<'a> $trait for Ex<'a> {
            type Output = Ex<'a>;
            fn $method(self, rhs: Ex<'a>) -> Ex<'a> {
                self.op($op, &[rhs])
            }
        }
        impl<'a> $trait<f64> for Ex<'a> {
            type Output = Ex<'a>;
            fn $method(self, rhs: f64) -> Ex<'a> {
                self.op($op, &[self.constant(rhs)])
            }
        }
    )*};
}
infix!(Add add "Add", Sub sub "Sub", Mul mul "Mul", Div div "Div");

impl<'a> Neg for Ex<'a> {
    type Output = Ex<'a>;
    fn neg(self) -> Ex<'a> {
        self.op("Neg", &[])
    }
}

/// Collects what is written as a [`Patch`] for a graph.
pub struct Builder<'g> {
    graph: &'g Graph,
    opset: i64,
    attrs: &'g [Attr],
    around: Option<&'g Facts>,
    patch: RefCell<Patch>,
    /// What is known of the values of the patch, one for each.
    facts: RefCell<Vec<Fact>>,
}

impl<'g> Builder<'g> {
    /// A builder for a patch of `graph`, whose nodes mean what `opset` says.
    pub fn new(graph: &'g Graph, opset: i64) -> Self {
        Builder::inside(graph, opset, &[])
    }

    /// The same, for writing the body of a node that has `attrs`.
    pub fn inside(graph: &'g Graph, opset: i64, attrs: &'g [Attr]) -> Self {
        Builder {
            graph,
            opset,
            attrs,
            around: None,
            patch: RefCell::new(Patch::new(graph)),
            facts: RefCell::default(),
        }
    }

    /// The same where `facts` are known of the values of the graph.
    pub fn knowing(self, facts: &'g Facts) -> Self {
        Builder {
            around: Some(facts),
            ..self
        }
    }

    /// An expression for a value of the graph.
    pub fn at(&self, id: ValueId) -> Ex<'_> {
        Ex { id, sink: self }
    }

    /// What was written.
    pub fn finish(self) -> Patch {
        self.patch.into_inner()
    }

    /// What is known of `v`, a value of the graph or one that was written.
    pub fn fact(&self, v: ValueId) -> Fact {
        let facts = self.facts.borrow();
        match self.patch.borrow().place(v).and_then(|i| facts.get(i)) {
            Some(own) => own.clone(),
            None => match self.around {
                Some(facts) => facts.of(v).clone(),
                None => self.graph[v].ty.clone().map_or_else(Fact::unknown, Fact::from),
            },
        }
    }

    /// Calls `v`, which was written, `name`, by which a subgraph finds it. No other value may have the name.
    pub fn rename(&self, v: ValueId, name: impl Into<Name>) {
        let mut patch = self.patch.borrow_mut();
        if let Some(i) = patch.place(v) {
            patch.values[i].name = name.into();
        }
    }

    /// Notes what is known of `v`, which was written, and inference does not find out.
    pub fn know(&self, v: ValueId, fact: Fact) {
        if let Some(i) = self.patch.borrow().place(v) {
            self.facts.borrow_mut()[i] = fact;
        }
    }

    fn add(&self, name: Name, fact: Fact, konst: Option<Tensor>) -> ValueId {
        let konst = konst.map(Constant::new);
        let ty = Some(fact.ty.clone()).filter(|ty| *ty != Type::Unknown);
        self.facts.borrow_mut().push(fact);
        self.patch.borrow_mut().value(Value { name, ty, konst })
    }

    fn infer(&self, node: &Node) -> Vec<Fact> {
        let facts: Vec<_> = node.inputs.iter().map(|v| v.map(|v| (v, self.fact(v)))).collect();
        let patch = self.patch.borrow();
        let konst = |v: ValueId| match patch.own(v) {
            Some(value) => value.konst.as_ref().map(|c| &*c.tensor),
            None => match self.around {
                Some(facts) => facts.konst(v).map(|t| &**t),
                None => self.graph.konst(v),
            },
        };
        let inputs = facts.iter().map(|f| {
            f.as_ref().map(|(v, fact)| Input {
                value: *v,
                fact,
                konst: konst(*v),
                fixed: false,
            })
        });
        let inferred = ops::find(node.domain(), &node.op)
            .and_then(|op| {
                let first = op.since().first().copied().unwrap_or(1).into();
                let opset = self.opset.max(first);
                op.infer(&NodeRef::new(node, opset, inputs.collect())).ok()
            })
            .unwrap_or_default();
        let mut facts = inferred.into_iter();
        let known = |_| facts.next().unwrap_or_else(Fact::unknown);
        node.outputs.iter().map(known).collect()
    }
}

impl Sink for Builder<'_> {
    fn call(&self, call: Call) -> Vec<ValueId> {
        let mut node = Node {
            domain: (!call.domain.is_empty()).then(|| call.domain.into()),
            attrs: call.attrs,
            ..Node::new(call.op, call.inputs.to_vec(), vec![None; call.outputs])
        };
        for (i, fact) in self.infer(&node).into_iter().enumerate() {
            node.outputs[i] = Some(self.add(call.op.into(), fact, None));
        }
        let outputs = node.outputs.iter().copied().flatten().collect();
        self.patch.borrow_mut().nodes.push(node);
        outputs
    }

    fn scalar(&self, x: f64, like: ValueId) -> ValueId {
        let dtype = self.fact(like).ty.dtype().unwrap_or(DType::F32);
        let scalar = Tensor::rounded(dtype, &[], &[x]).unwrap_or_else(|| Tensor::scalar(x as f32));
        self.tensor(scalar)
    }

    fn tensor(&self, t: Tensor) -> ValueId {
        self.add("constant".into(), Fact::of(&t), Some(t))
    }

    fn attr(&self, name: &'static str, default: f32, like: ValueId) -> ValueId {
        let given = self.attrs.iter().find(|a| &*a.name == name).map(|a| &a.value);
        match given {
            Some(AttrValue::Float(x)) => self.scalar(x.unwrap_or(0.0).into(), like),
            _ => self.scalar(default.into(), like),
        }
    }
}
