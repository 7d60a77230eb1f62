//! Reading formulas back from a graph step by step, where what to look for depends on shapes and patterns cannot say it.

use crate::ir::{AttrValue, DType, Dim, Node, NodeId, Shape, ValueId};
use crate::opt::{Site, Why};

/// What is said where a part of a formula is needed for something else too.
pub(super) const ELSEWHERE: Why = Why::No("an intermediate value is read elsewhere");

/// Sums and products of more operands are not read.
const MOST: usize = 16;

/// A product: a number times powers of values.
#[derive(Clone, Debug)]
pub(super) struct Product {
    pub(super) scalar: f64,
    pub(super) factors: Vec<(ValueId, f64)>,
}

/// A sum: a number plus values, each with its sign.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    pub(super) scalar: f64,
    pub(super) terms: Vec<(ValueId, f64)>,
}

/// Input `i` of `node`.
pub(super) fn input(node: &Node, i: usize) -> Option<ValueId> {
    node.inputs.get(i).copied().flatten()
}

/// The integer attribute `name`.
pub(super) fn int(node: &Node, name: &str, default: i64) -> i64 {
    match node.attr(name) {
        Some(AttrValue::Int(x)) => x.unwrap_or(0),
        _ => default,
    }
}

impl Site<'_> {
    /// The standard operator whose first output `v` is.
    pub(super) fn made(&self, v: ValueId) -> Option<&Node> {
        let (at, slot) = self.links.producer(v)?;
        let node = &self.graph[at];
        (slot == 0 && node.domain().is_empty()).then_some(node)
    }

    /// The same if it is `op`.
    pub(super) fn call(&self, v: ValueId, op: &str) -> Option<&Node> {
        self.made(v).filter(|n| &*n.op == op)
    }

    /// The number that the constant `v` of one element is.
    pub(super) fn number(&self, v: ValueId) -> Option<f64> {
        let t = self.facts.konst(v)?;
        (t.len() == 1).then(|| t.item())?
    }

    /// The shape of `v`, if its rank is known.
    pub(super) fn shape(&self, v: ValueId) -> Option<&Shape> {
        self.facts.of(v).ty.shape()
    }

    /// The element type of `v`.
    pub(super) fn dtype(&self, v: ValueId) -> Option<DType> {
        self.facts.of(v).ty.dtype()
    }

    /// The axes that `node` works along, counted from the end, ascending: an attribute or the constant input `slot`.
    pub(super) fn axes(&self, node: &Node, slot: usize) -> Option<Vec<i64>> {
        let given = match (node.attr("axes"), input(node, slot)) {
            (Some(AttrValue::Ints(axes)), _) => axes.clone(),
            (None, Some(v)) => self.facts.konst(v)?.ints()?,
            _ => return None,
        };
        let rank = || Some(self.shape(input(node, 0)?)?.len() as i64);
        let mut axes = given
            .into_iter()
            .map(|a| if a < 0 { Some(a) } else { Some(a - rank()?) })
            .collect::<Option<Vec<_>>>()?;
        axes.sort_unstable();
        (!axes.is_empty()).then_some(axes)
    }

    /// `x` and axes, where `v` is `ReduceMean(x)`, or a sum divided by how many were summed, and keeps its rank.
    pub(super) fn mean(&self, v: ValueId) -> Option<(ValueId, Vec<i64>)> {
        let keeps = |n: &&Node| int(n, "keepdims", 1) != 0;
        if let Some(node) = self.call(v, "ReduceMean").filter(keeps) {
            return Some((input(node, 0)?, self.axes(node, 1)?));
        }
        let whole = self.product(v, &[]);
        let &[(sum, 1.0)] = &whole.factors[..] else {
            return None;
        };
        let node = self.call(sum, "ReduceSum").filter(keeps)?;
        let (x, axes) = (input(node, 0)?, self.axes(node, 1)?);
        let shape = self.shape(x)?;
        let size = |&a: &i64| shape.get(usize::try_from(a + shape.len() as i64).ok()?)?.known();
        let count: i64 = axes.iter().map(size).product::<Option<i64>>()?;
        ((whole.scalar * count as f64 - 1.0).abs() < 1e-6).then_some((x, axes))
    }

    /// `x` where `v` is its square.
    pub(super) fn square(&self, v: ValueId) -> Option<ValueId> {
        let node = self.made(v)?;
        let (a, b) = (input(node, 0)?, input(node, 1)?);
        let is = node.is("Mul") && a == b || node.is("Pow") && self.number(b) == Some(2.0);
        is.then_some(a)
    }

    /// `v` as a product, whatever its bracketing; the values in `stop` stay whole.
    pub(super) fn product(&self, v: ValueId, stop: &[ValueId]) -> Product {
        let mut all = Product {
            scalar: 1.0,
            factors: vec![],
        };
        let mut open = vec![(v, 1.0)];
        while let Some((v, e)) = open.pop() {
            if let Some(x) = self
                .number(v)
                .filter(|_| self.dtype(v).is_some_and(|d| d.is_float()))
            {
                all.scalar *= x.powf(e);
                continue;
            }
            let full = all.factors.len() + open.len() >= MOST || stop.contains(&v);
            match self.made(v).filter(|_| !full).and_then(|n| self.parts(n, e)) {
                Some((sign, parts)) => {
                    all.scalar *= sign;
                    open.extend(parts.into_iter().rev());
                }
                None => all.factors.push((v, e)),
            }
        }
        all
    }

    /// What `node` multiplies, raised to the power `e`.
    fn parts(&self, node: &Node, e: f64) -> Option<(f64, Vec<(ValueId, f64)>)> {
        let (a, b) = (input(node, 0)?, input(node, 1));
        let simple = e.abs() == 1.0;
        Some(match (&*node.op, b) {
            // A square stays one factor, so that it can be told from a product of two.
            ("Mul", Some(b)) if simple && a != b => (1.0, vec![(a, e), (b, e)]),
            ("Div", Some(b)) if simple => (1.0, vec![(a, e), (b, -e)]),
            ("Neg", None) if simple => (-1.0, vec![(a, e)]),
            ("Sqrt", None) if simple => (1.0, vec![(a, e * 0.5)]),
            ("Reciprocal", None) => (1.0, vec![(a, -e)]),
            ("Pow", Some(b)) if simple => (1.0, vec![(a, e * self.number(b).filter(|x| x.abs() < 2.0)?)]),
            ("Identity", None) => (1.0, vec![(a, e)]),
            _ => return None,
        })
    }

    /// `v` as a sum, whatever its bracketing.
    pub(super) fn sum(&self, v: ValueId) -> Sum {
        let mut all = Sum {
            scalar: 0.0,
            terms: vec![],
        };
        let mut open = vec![(v, 1.0)];
        while let Some((v, sign)) = open.pop() {
            if let Some(x) = self.number(v) {
                all.scalar += sign * x;
                continue;
            }
            let full = all.terms.len() + open.len() >= MOST;
            let node = self.made(v).filter(|_| !full);
            match node.map(|n| (&*n.op, input(n, 0), input(n, 1))) {
                Some(("Add", Some(a), Some(b))) => open.extend([(b, sign), (a, sign)]),
                Some(("Sub", Some(a), Some(b))) => open.extend([(b, -sign), (a, sign)]),
                Some(("Neg", Some(a), None)) => open.push((a, -sign)),
                Some(("Identity", Some(a), None)) => open.push((a, sign)),
                _ => all.terms.push((v, sign)),
            }
        }
        all
    }

    /// `v` without constant factors, and their product.
    pub(super) fn scaled(&self, mut v: ValueId) -> (ValueId, f64) {
        let mut scale = 1.0;
        while let Some(node) = self.made(v) {
            let (Some(a), b) = (input(node, 0), input(node, 1)) else {
                break;
            };
            let (x, y) = (self.number(a), b.and_then(|b| self.number(b)));
            (v, scale) = match (&*node.op, x, y, b) {
                ("Mul" | "Div", Some(_), Some(_), _) => break,
                ("Mul", None, Some(y), _) => (a, scale * y),
                ("Mul", Some(x), None, Some(b)) => (b, scale * x),
                ("Div", None, Some(y), _) => (a, scale / y),
                ("Identity", ..) => (a, scale),
                _ => break,
            };
        }
        (v, scale)
    }

    /// Whether the shapes of both are known to be the same.
    pub(super) fn alike(&self, a: ValueId, b: ValueId) -> bool {
        match (self.shape(a), self.shape(b)) {
            (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            _ => false,
        }
    }

    /// Checks that nothing reads what is computed between `leaves` and `root`, but for `root` itself. Shapes and constants
    /// may be read by anybody.
    ///
    /// # Errors
    ///
    /// If something does.
    pub(super) fn private(&self, root: NodeId, leaves: &[ValueId]) -> Result<(), Why> {
        let mut cone = vec![root];
        let mut at = 0;
        while let Some(&n) = cone.get(at) {
            at += 1;
            for &v in self.graph[n].inputs.iter().flatten() {
                let shapes = self.dtype(v).is_some_and(|d| d.is_int());
                if shapes || leaves.contains(&v) || self.facts.konst(v).is_some() {
                    continue;
                }
                match self.links.producer(v) {
                    Some((p, _)) if !cone.contains(&p) => cone.push(p),
                    _ => {}
                }
            }
            if cone.len() > 256 {
                return Err(Why::NoEffect);
            }
        }
        let inner = cone[1..]
            .iter()
            .flat_map(|&n| self.graph[n].outputs.iter().flatten());
        let read = |v: &ValueId| {
            leaves.contains(v)
                || (!self.links.kept(*v)
                    && self
                        .links
                        .readers(*v)
                        .iter()
                        .all(|r| cone.contains(r) || self.shapes(*r)))
        };
        inner.copied().all(|v| read(&v)).then_some(()).ok_or(ELSEWHERE)
    }

    /// Checks that no constant gives the output of `root` more axes than `x` has.
    ///
    /// # Errors
    ///
    /// If one does, or the number of axes is not known.
    pub(super) fn same_rank(&self, root: NodeId, x: ValueId) -> Result<(), Why> {
        let out = self.graph[root].outputs.first().copied().flatten();
        let ranks = [out, Some(x)].map(|v| self.shape(v?).map(Vec::len));
        match ranks {
            [Some(a), Some(b)] if a == b => Ok(()),
            [Some(_), Some(_)] => Err(Why::No("the result has more axes than the input")),
            _ => Err(Why::No("the rank is not known")),
        }
    }

    /// Whether the node only looks at the shape of its input.
    fn shapes(&self, n: NodeId) -> bool {
        self.graph[n].is("Shape") || self.graph[n].is("Size")
    }
}

/// Whether `dim` is 1.
pub(super) fn one(dim: &Dim) -> bool {
    dim.known() == Some(1)
}
