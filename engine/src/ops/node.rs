//! A node as its operator sees it.

use std::cell::Cell;
use std::fmt;

use crate::cpu::sparse::{Matrix, Zeros};
use crate::cpu::{Order, Packed, Packs, number};
use crate::ir::{AttrValue, DType, Dim, Node, Shape, Tensor, Type, ValueId};

/// What is known of a value before the model runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Its type.
    pub ty: Type,
    /// The elements of a small integer tensor, as far as they follow from the shapes of the inputs.
    pub data: Option<Vec<Dim>>,
}

impl Fact {
    /// Nothing is known.
    pub fn unknown() -> Fact {
        Type::Unknown.into()
    }

    /// A tensor; `None` for what is not known.
    pub fn tensor(dtype: Option<DType>, shape: Option<Shape>) -> Fact {
        Type::Tensor { dtype, shape }.into()
    }

    /// The same without what is known of the shape.
    pub fn without_shape(&self) -> Fact {
        match &self.ty {
            Type::Tensor { dtype, .. } => Fact::tensor(*dtype, None),
            other => other.clone().into(),
        }
    }

    /// A stack of an unknown number of such tensors.
    pub fn stacked(&self) -> Fact {
        let more = |s: &Shape| std::iter::once(Dim::Unknown).chain(s.iter().cloned()).collect();
        Fact::tensor(self.ty.dtype(), self.ty.shape().map(more))
    }

    /// A slice along `axis`, without that axis.
    pub fn slice(&self, axis: i64) -> Fact {
        let shape = self.ty.shape().and_then(|s| {
            let axis = NodeRef::axis(axis, s.len()).ok()?;
            let mut shape = s.clone();
            shape.remove(axis);
            Some(shape)
        });
        Fact::tensor(self.ty.dtype(), shape)
    }

    /// What is true of both.
    pub fn either(&self, other: &Fact) -> Fact {
        if self.ty == other.ty {
            return self.ty.clone().into();
        }
        match (&self.ty, &other.ty) {
            (Type::Tensor { dtype: a, .. }, Type::Tensor { dtype: b, .. }) if a == b => {
                let shapes = self.ty.shape().zip(other.ty.shape());
                let shape = shapes.filter(|(a, b)| a.len() == b.len()).map(|(a, b)| {
                    let both = a.iter().zip(b);
                    both.map(|(a, b)| if a == b { a.clone() } else { Dim::Unknown })
                        .collect()
                });
                Fact::tensor(*a, shape)
            }
            _ => Fact::unknown(),
        }
    }

    /// What is known of a tensor that is there.
    pub fn of(t: &Tensor) -> Fact {
        Type::tensor(t.dtype(), t.dims().iter().copied()).into()
    }
}

impl From<Type> for Fact {
    fn from(ty: Type) -> Fact {
        Fact { ty, data: None }
    }
}

/// What is known of one input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The value, by which packed weights are shared.
    pub value: ValueId,
    /// Type and, for shape computations, elements.
    pub fact: &'a Fact,
    /// The elements, if they are known before the model runs.
    pub konst: Option<&'a Tensor>,
    /// Whether the elements are those of an initialiser, the same whatever the shapes of the inputs are.
    pub fixed: bool,
}

/// Infers the outputs of a subgraph from its inputs and what is around it.
pub(crate) type Scope<'a> = &'a dyn Fn(&crate::ir::Graph, &[Fact]) -> Result<Vec<Fact>, OpError>;

/// Why a node cannot be understood or run. The caller adds which node it is, and its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct OpError(String);

impl OpError {
    /// An error; `what` says what was expected and what was found.
    pub fn new(what: impl Into<String>) -> OpError {
        OpError(what.into())
    }

    /// What is said of attributes that nobody reads.
    pub fn unread(names: &[&str]) -> OpError {
        OpError::new(format!("attributes {names:?} are not understood"))
    }

    /// What an operator without a reference result answers.
    pub fn no_reference() -> OpError {
        OpError::new("the operator has no reference implementation")
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpError {}

/// A node with what is known of its inputs: the newest meaning of its operator, whatever its opset.
///
/// It notes which attributes are read: one that nobody reads has no effect, and the plan refuses it.
pub struct NodeRef<'a> {
    node: &'a Node,
    opset: i64,
    inputs: Vec<Option<Input<'a>>>,
    outputs: &'a [Fact],
    packs: Option<&'a Packs>,
    scope: Option<Scope<'a>>,
    memory: usize,
    seen: Cell<u64>,
    asked: Cell<u64>,
}

impl<'a> NodeRef<'a> {
    /// `node`, whose domain is imported at version `opset`.
    pub fn new(node: &'a Node, opset: i64, inputs: Vec<Option<Input<'a>>>) -> Self {
        NodeRef {
            node,
            opset,
            inputs,
            outputs: &[],
            packs: None,
            scope: None,
            memory: usize::MAX,
            seen: Cell::new(0),
            asked: Cell::new(0),
        }
    }

    /// The same with what inference found out of its outputs, and a place for packed weights: what kernels are made from.
    pub fn lowered(self, outputs: &'a [Fact], packs: &'a Packs) -> Self {
        NodeRef {
            outputs,
            packs: Some(packs),
            ..self
        }
    }

    /// The same where results may take `memory` bytes.
    pub(crate) fn bounded(self, memory: usize) -> Self {
        NodeRef { memory, ..self }
    }

    /// Checks that there are `bytes` for results whose number is only known when they are made.
    ///
    /// # Errors
    ///
    /// If there are not.
    pub fn room(&self, bytes: usize) -> Result<(), OpError> {
        match bytes > self.memory {
            true => Err(OpError::new(format!(
                "it works in {bytes} bytes; there are {}",
                self.memory
            ))),
            false => Ok(()),
        }
    }

    /// The same with something that infers subgraphs where the node stands.
    pub(crate) fn within(self, scope: Scope<'a>) -> Self {
        NodeRef {
            scope: Some(scope),
            ..self
        }
    }

    /// Types of the outputs of the subgraph that is attribute `name`, for inputs of the given types; `None` where subgraphs
    /// are not looked into.
    ///
    /// # Errors
    ///
    /// If a node in it does not fit.
    pub fn inside(&self, name: &str, inputs: &[Fact]) -> Result<Option<Vec<Fact>>, OpError> {
        match (self.graph(name)?, self.scope) {
            (Some(g), Some(scope)) => scope(g, inputs).map(Some),
            _ => Ok(None),
        }
    }

    /// The node itself.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// The version at which the node's domain is imported.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// The number of inputs, left-out ones in between included.
    pub fn arity(&self) -> usize {
        self.inputs.len()
    }

    /// Input `i`, unless it is left out.
    pub fn input(&self, i: usize) -> Option<&Input<'a>> {
        self.inputs.get(i)?.as_ref()
    }

    /// Whether input `i` is there.
    pub fn has(&self, i: usize) -> bool {
        self.input(i).is_some()
    }

    /// Whether the node has an output `i` that may be read.
    pub fn wants(&self, i: usize) -> bool {
        self.node.outputs.get(i).is_some_and(Option::is_some)
    }

    /// The element type of input `i`, if it is there and known.
    pub fn dtype(&self, i: usize) -> Option<DType> {
        self.input(i)?.fact.ty.dtype()
    }

    /// The shape of input `i`, if it is there and its rank is known.
    pub fn shape(&self, i: usize) -> Option<&'a Shape> {
        let fact = self.input(i)?.fact;
        fact.ty.shape()
    }

    /// The rank of input `i`, if it is there and known.
    pub fn rank(&self, i: usize) -> Option<usize> {
        self.shape(i).map(Vec::len)
    }

    /// The shape of input `i`, if every size is a number. Always so where kernels are made.
    pub fn dims(&self, i: usize) -> Option<Vec<usize>> {
        self.input(i)?.fact.ty.dims()
    }

    /// The shape of output `i`, if every size is a number. Always so where kernels are made, for outputs that are wanted.
    pub fn out_dims(&self, i: usize) -> Option<Vec<usize>> {
        self.outputs.get(i)?.ty.dims()
    }

    /// The element type of output `i`; known where kernels are made.
    pub fn out_dtype(&self, i: usize) -> Option<DType> {
        self.outputs.get(i)?.ty.dtype()
    }

    /// The elements of input `i`, if they are known before the model runs.
    pub fn konst(&self, i: usize) -> Option<&'a Tensor> {
        let konst = self.input(i)?.konst;
        if konst.is_none() {
            self.ask(i);
        }
        konst
    }

    fn ask(&self, i: usize) {
        self.asked.set(self.asked.get() | 1 << i.min(63));
    }

    /// The inputs whose elements were asked for and are not known, as bits.
    pub fn asked(&self) -> u64 {
        self.asked.get()
    }

    /// The elements of the integer input `i`, as far as they are known before the model runs.
    pub fn data(&self, i: usize) -> Option<Vec<Dim>> {
        let input = self.input(i)?;
        match input.konst.and_then(Tensor::ints) {
            Some(ints) => Some(ints.into_iter().map(Dim::Known).collect()),
            None => {
                self.ask(i);
                input.fact.data.clone()
            }
        }
    }

    /// The elements of the integer input `i`, if all are numbers known before the model runs.
    pub fn ints_in(&self, i: usize) -> Option<Vec<i64>> {
        self.data(i)?.iter().map(Dim::known).collect()
    }

    /// Weights packed from input `i` in `order`; those of an initialiser are made once for all plans of a session.
    pub fn packed<T: Packed>(&self, i: usize, order: &Order, make: impl FnOnce() -> T) -> std::sync::Arc<T> {
        match (self.packs, self.input(i)) {
            (
                Some(packs),
                Some(&Input {
                    value,
                    konst: Some(weight),
                    fixed: true,
                    ..
                }),
            ) => packs.get(value, weight, order, make),
            _ => std::sync::Arc::new(make()),
        }
    }

    /// What follows from input `i` in the way `name`; that of an initialiser is made once for all plans of a session.
    pub fn kept<T: Send + Sync + 'static>(
        &self,
        i: usize,
        name: &str,
        make: impl FnOnce() -> T,
    ) -> std::sync::Arc<T> {
        let make = || std::sync::Arc::new(make());
        match (self.packs, self.input(i)) {
            (Some(packs), Some(input)) if input.fixed => packs.keep(input.value, name, make),
            _ => make(),
        }
    }

    /// How many zeros input `i` has, seen as a matrix; `None` unless it is of floats and known.
    pub fn zeros(&self, i: usize, matrix: Matrix) -> Option<Zeros> {
        let w = self.konst(i).filter(|w| w.dtype() == DType::F32)?;
        let count = || Zeros::count(&w.elements().unwrap_or_default(), matrix);
        Some(*self.kept(i, &format!("zeros {matrix:?}"), count))
    }

    /// As [`packed`](NodeRef::packed), when the kernel is made: `make` gets the elements, which must be floats and known, with 0
    /// in the place of [subnormal](number::normal) ones.
    pub fn packs<T: Packed>(
        &self,
        i: usize,
        order: Order,
        make: impl FnOnce(&[f32]) -> T + Send + 'static,
    ) -> Option<impl FnOnce() -> std::sync::Arc<T> + Send + 'static> {
        let (input, tensor) = (self.input(i)?, self.konst(i)?.clone());
        if tensor.dtype() != DType::F32 {
            return None;
        }
        let shelf = self.packs.filter(|_| input.fixed).cloned().zip(Some(input.value));
        Some(move || {
            let make = || make(&number::normal(tensor.elements().unwrap_or_default()));
            let made = match shelf {
                Some((packs, value)) => packs.get(value, &tensor, &order, make),
                None => std::sync::Arc::new(make()),
            };
            tensor.unload();
            made
        })
    }

    /// Axis `axis` of a tensor of rank `rank`, counted from the end where it is negative.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    pub fn axis(axis: i64, rank: usize) -> Result<usize, OpError> {
        let r = i64::try_from(rank).unwrap_or(i64::MAX);
        let from_start = if axis < 0 { axis + r } else { axis };
        match usize::try_from(from_start) {
            Ok(a) if a < rank => Ok(a),
            _ => Err(OpError::new(format!("axis {axis} is not in [-{rank}, {rank})"))),
        }
    }

    fn attr(&self, name: &str) -> Option<&'a AttrValue> {
        let at = self.node.attrs.iter().position(|a| &*a.name == name)?;
        self.seen.set(self.seen.get() | 1 << at.min(63));
        Some(&self.node.attrs[at].value)
    }

    /// Marks attributes as having no effect on what the node means here.
    pub fn ignore(&self, names: &[&str]) {
        for name in names {
            let _ = self.attr(name);
        }
    }

    /// The names of attributes that nobody has read so far.
    pub fn unread(&self) -> Vec<&'a str> {
        let attrs = self.node.attrs.iter().enumerate();
        attrs
            .filter(|(i, _)| self.seen.get() & (1 << (*i).min(63)) == 0)
            .map(|(_, a)| &*a.name)
            .collect()
    }
}

macro_rules! readers {
    ($($(#[$doc:meta])* $method:ident -> $t:ty, $kind:literal, $pattern:pat => $value:expr;)*) => {
        impl<'a> NodeRef<'a> {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                ///
                /// If the attribute is there and is of another kind.
                pub fn $method(&self, name: &str) -> Result<Option<$t>, OpError> {
                    match self.attr(name) {
                        None => Ok(None),
                        Some($pattern) => Ok(Some($value)),
                        Some(other) => {
                            let found = other.code().unwrap_or(0);
                            Err(OpError::new(format!(
                                "attribute {name:?}: expected {}, found attribute type {found}", $kind
                            )))
                        }
                    }
                }
            )*
        }
    };
}
readers! {
    /// The integer attribute `name`.
    int -> i64, "an integer", AttrValue::Int(x) => x.unwrap_or(0);
    /// The float attribute `name`.
    float -> f32, "a float", AttrValue::Float(x) => x.unwrap_or(0.0);
    /// The string attribute `name`, as bytes.
    bytes -> &'a [u8], "a string", AttrValue::Bytes(x) => x.as_deref().unwrap_or(&[]);
    /// The attribute `name`, a list of integers.
    ints -> &'a [i64], "a list of integers", AttrValue::Ints(x) => x;
    /// The attribute `name`, a list of floats.
    floats -> &'a [f32], "a list of floats", AttrValue::Floats(x) => x;
    /// The attribute `name`, a list of strings.
    strings -> &'a [Vec<u8>], "a list of strings", AttrValue::Strings(x) => x;
    /// The tensor attribute `name`.
    tensor -> &'a Tensor, "a tensor", AttrValue::Tensor(x) => &*x.tensor;
    /// The subgraph attribute `name`.
    graph -> &'a crate::ir::Graph, "a graph", AttrValue::Graph(x) => x;
    /// The type attribute `name`.
    ty -> &'a Type, "a type", AttrValue::Type(x) => &x.ty;
}

impl<'a> NodeRef<'a> {
    /// The integer attribute `name`, `default` where it is left out.
    ///
    /// # Errors
    ///
    /// If the attribute is there and is of another kind.
    pub fn int_or(&self, name: &str, default: i64) -> Result<i64, OpError> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// The float attribute `name`, `default` where it is left out.
    ///
    /// # Errors
    ///
    /// If the attribute is there and is of another kind.
    pub fn float_or(&self, name: &str, default: f32) -> Result<f32, OpError> {
        Ok(self.float(name)?.unwrap_or(default))
    }

    /// The string attribute `name`, `default` where it is left out.
    ///
    /// # Errors
    ///
    /// If the attribute is there and is of another kind or not UTF-8.
    pub fn str_or(&self, name: &str, default: &'a str) -> Result<&'a str, OpError> {
        match self.bytes(name)? {
            None => Ok(default),
            Some(b) => {
                std::str::from_utf8(b).map_err(|_| OpError::new(format!("attribute {name:?} is not UTF-8")))
            }
        }
    }
}
