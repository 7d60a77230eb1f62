//! Patterns: expressions written down to be looked for.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::expr::{Call, Ex, Sink};
use crate::ir::{Attr, Node, Tensor, ValueId};
use crate::ops::{self, NodeRef, Op};

/// One part of a pattern. Parts refer to each other by position.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Want {
    /// An open input, by number.
    Hole(usize),
    /// A constant of one element, about this number.
    Scalar(f64),
    /// A constant of one element that becomes the float attribute of this name, with its default.
    Attr(&'static str, f64),
    /// A constant equal to this one.
    Tensor(Tensor),
    /// Output `slot` of an operator, one of `ops` (each with its domain in front, as in `secateur.Conv`).
    Node {
        ops: Vec<String>,
        inputs: Vec<usize>,
        attrs: Vec<Attr>,
        slot: usize,
    },
}

impl Want {
    /// Whether it depends on shapes: a tensor, or an operator along certain axes.
    fn is_shaped(&self) -> bool {
        let lists = |a: &Attr| matches!(a.value, crate::ir::AttrValue::Ints(_));
        match self {
            Want::Tensor(_) => true,
            Want::Node { attrs, .. } => attrs.iter().any(lists),
            _ => false,
        }
    }
}

/// What to look for, and how many inputs it leaves open.
#[derive(Debug)]
pub struct Pattern {
    pub(super) wants: Vec<Want>,
    pub(super) holes: usize,
    pub(super) root: usize,
    pub(super) loose: bool,
}

struct Recorder(RefCell<Vec<Want>>);

impl Recorder {
    fn push(&self, want: Want) -> ValueId {
        let mut wants = self.0.borrow_mut();
        wants.push(want);
        ValueId(wants.len() as u32 - 1)
    }
}

impl Sink for Recorder {
    fn call(&self, call: Call) -> Vec<ValueId> {
        let inputs: Vec<_> = call.inputs.iter().flatten().map(|v| v.0 as usize).collect();
        let ops: Vec<_> = call.op.split('|').map(str::to_owned).collect();
        let node = |slot| Want::Node {
            ops: ops.clone(),
            inputs: inputs.clone(),
            attrs: call.attrs.clone(),
            slot,
        };
        (0..call.outputs).map(|slot| self.push(node(slot))).collect()
    }

    fn scalar(&self, x: f64, _: ValueId) -> ValueId {
        self.push(Want::Scalar(x))
    }

    fn tensor(&self, t: Tensor) -> ValueId {
        self.push(Want::Tensor(t))
    }

    fn attr(&self, name: &'static str, default: f32, _: ValueId) -> ValueId {
        self.push(Want::Attr(name, default.into()))
    }
}

impl Pattern {
    /// Records the expression that `write` builds from `holes` open inputs. Nodes match that have exactly the attributes
    /// that it gives them. `None` if `write` gives `None`.
    pub fn exact(holes: usize, write: impl for<'a> FnOnce(&[Ex<'a>]) -> Option<Ex<'a>>) -> Option<Pattern> {
        let wants = (0..holes).map(Want::Hole).collect();
        let recorder = Recorder(RefCell::new(wants));
        let open: Vec<_> = (0..holes)
            .map(|i| Ex {
                id: ValueId(i as u32),
                sink: &recorder,
            })
            .collect();
        let root = write(&open)?.id.0 as usize;
        Some(Pattern {
            wants: recorder.0.into_inner(),
            holes,
            root,
            loose: false,
        })
    }

    /// The same, but nodes match whatever attributes and further inputs they have, and `|` separates names of operators
    /// that may stand in a place: `x.op("Relu|Clip", &[])`.
    pub fn loose(holes: usize, write: impl for<'a> FnOnce(&[Ex<'a>]) -> Ex<'a>) -> Pattern {
        let exact = Pattern::exact(holes, |x| Some(write(x)));
        // `write` cannot refuse.
        let exact = exact.unwrap_or(Pattern {
            wants: vec![Want::Hole(0)],
            holes: 1,
            root: 0,
            loose: true,
        });
        Pattern { loose: true, ..exact }
    }

    /// The pattern of `op`'s body; `None` for a primitive, where there is more than one output, and for bodies with constants
    /// that depend on the node, such as axes: those need rules, which can look at shapes.
    pub fn of(op: &dyn Op) -> Option<Pattern> {
        let node = Node::new(op.name().name, vec![], vec![]);
        let newest = op.since().last().copied().unwrap_or(1);
        let n = NodeRef::new(&node, newest.into(), vec![]);
        let holes = op.arity();
        Pattern::exact(holes, |x| match op.body(&n, x)?[..] {
            [y] => Some(y),
            _ => None,
        })
        .filter(|p| !matches!(p.wants[p.root], Want::Hole(_)))
        .filter(|p| !p.wants.iter().any(Want::is_shaped))
    }

    /// Names of the operators, without domains, that nodes at the root of a match have.
    fn roots(&self) -> Vec<&str> {
        let Want::Node { ops, .. } = &self.wants[self.root] else {
            return vec![];
        };
        let own = ops.iter().map(|op| split(op).1);
        let chain = match &ops[..] {
            [op] => Chain::of(split(op).0, split(op).1).map(|(chain, _)| chain),
            _ => None,
        };
        match chain {
            Some(Chain::Sum) => vec!["Add", "Sub"],
            Some(Chain::Product) => vec!["Mul", "Div", "Pow", "Sqrt", "Reciprocal"],
            None if ops.len() == 1 && ops[0] == "Pow" => vec!["Mul", "Pow"],
            None => own.collect(),
        }
    }
}

/// Which of some patterns may end at a node, by its operator.
pub(super) struct Index(HashMap<String, Vec<usize>>);

impl Index {
    /// An index of `patterns`.
    pub(super) fn of<'p>(patterns: impl Iterator<Item = &'p Pattern>) -> Index {
        let mut all: HashMap<String, Vec<usize>> = HashMap::new();
        for (i, p) in patterns.enumerate() {
            for op in p.roots() {
                all.entry(op.to_owned()).or_default().push(i);
            }
        }
        Index(all)
    }

    /// Numbers of the patterns, in order.
    pub(super) fn at(&self, node: &Node) -> &[usize] {
        self.0.get(&*node.op).map_or(&[], |all| all)
    }
}

/// Splits `secateur.Conv` into domain and name.
pub(super) fn split(op: &str) -> (&str, &str) {
    op.rsplit_once('.').unwrap_or(("", op))
}

/// The chain of one commutative and associative operator that a part or a value belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Chain {
    Sum,
    Product,
}

impl Chain {
    /// The chain that `op` with its domain makes, and whether it brings its second operand inverted.
    pub(super) fn of(domain: &str, op: &str) -> Option<(Chain, bool)> {
        match (domain, op) {
            ("", "Add") => Some((Chain::Sum, false)),
            ("", "Sub") => Some((Chain::Sum, true)),
            ("", "Mul") => Some((Chain::Product, false)),
            ("", "Div") => Some((Chain::Product, true)),
            _ => None,
        }
    }

    /// What leaves every operand as it is.
    pub(super) fn neutral(self) -> f64 {
        match self {
            Chain::Sum => 0.0,
            Chain::Product => 1.0,
        }
    }

    /// `a` with the constant `b` brought in, inverted or not.
    pub(super) fn join(self, a: f64, b: f64, inverted: bool) -> f64 {
        match (self, inverted) {
            (Chain::Sum, false) => a + b,
            (Chain::Sum, true) => a - b,
            (Chain::Product, false) => a * b,
            (Chain::Product, true) => a / b,
        }
    }
}

/// The operator that a full name such as `secateur.Conv` means.
pub(super) fn operator(full: &str) -> Option<&'static dyn Op> {
    let (domain, name) = split(full);
    ops::find(domain, name)
}
