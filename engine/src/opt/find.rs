//! Where patterns occur.
//!
//! Sums and products are matched as wholes: whatever the bracketing and the order, with subtraction and division of
//! constants as the addition and multiplication that they are, and with a neutral constant left out. A power with a small
//! whole exponent is the product of as many factors; roots, inverses and divisors are factors with an exponent, however
//! they are written.

use super::pattern::{Chain, Pattern, Want, split};
use crate::ir::{Attr, AttrValue, Graph, Links, Node, NodeId, Tensor, ValueId};

/// Tolerance for a constant in a pattern, relative to its size.
const CLOSE: f64 = 1e-4;

/// A place where a pattern was found.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// The value each hole stands for.
    pub inputs: Vec<ValueId>,
    /// The attributes the operator must have to mean the same.
    pub attrs: Vec<Attr>,
    /// The nodes the pattern covers, the root first.
    pub nodes: Vec<NodeId>,
}

#[derive(Clone, Default)]
struct Found {
    holes: Vec<Option<ValueId>>,
    attrs: Vec<Attr>,
    nodes: Vec<NodeId>,
}

/// An operand of a sum or product: all of it, and in products what it is a power of.
#[derive(Clone, Copy, Debug)]
struct Operand<T> {
    /// `None` for a divisor, which by itself is no value.
    whole: Option<T>,
    base: T,
    exponent: f64,
    /// The nodes that make the power of the base.
    nodes: [Option<NodeId>; 2],
}

impl<T: Copy> Operand<T> {
    fn plain(whole: T) -> Operand<T> {
        Operand {
            whole: Some(whole),
            base: whole,
            exponent: 1.0,
            nodes: [None; 2],
        }
    }

    /// One divided by it.
    fn inverse(self) -> Operand<T> {
        Operand {
            whole: None,
            exponent: -self.exponent,
            ..self
        }
    }
}

/// The operands of a sum or product: those that vary, the constants joined into one, and the inner nodes.
struct Operands<T> {
    varying: Vec<Operand<T>>,
    scalar: Option<f64>,
    nodes: Vec<NodeId>,
}

struct Search<'a> {
    pattern: &'a Pattern,
    graph: &'a Graph,
    links: &'a Links,
}

impl Pattern {
    /// Looks for the pattern ending at value `v`.
    pub fn find(&self, graph: &Graph, links: &Links, v: ValueId) -> Option<Match> {
        let search = Search {
            pattern: self,
            graph,
            links,
        };
        let start = Found {
            holes: vec![None; self.holes],
            ..Found::default()
        };
        let found = search.part(self.root, v, start)?;
        Some(Match {
            inputs: found.holes.into_iter().collect::<Option<_>>()?,
            attrs: found.attrs,
            nodes: found.nodes,
        })
    }
}

impl Match {
    /// Whether only nodes of the match read what its inner nodes make.
    pub fn is_private(&self, graph: &Graph, links: &Links) -> bool {
        self.nodes.iter().skip(1).all(|&n| {
            graph[n]
                .outputs
                .iter()
                .flatten()
                .all(|&v| !links.kept(v) && links.readers(v).iter().all(|r| self.nodes.contains(r)))
        })
    }
}

impl Search<'_> {
    /// Matches part `want` against value `v`.
    fn part(&self, want: usize, v: ValueId, mut found: Found) -> Option<Found> {
        match &self.pattern.wants[want] {
            Want::Hole(i) => match found.holes[*i] {
                Some(seen) => (seen == v).then_some(found),
                None => {
                    found.holes[*i] = Some(v);
                    Some(found)
                }
            },
            Want::Scalar(x) => close(self.item(v)?, *x).then_some(found),
            Want::Attr(name, _) => bind(name, self.item(v)?, found),
            Want::Tensor(t) => (self.graph.konst(v)? == t).then_some(found),
            Want::Node { .. } => match self.chain_of(want) {
                Some(chain) => self.chain(chain, want, v, found),
                None => self.node(want, v, found),
            },
        }
    }

    /// Matches a part that is one node.
    fn node(&self, want: usize, v: ValueId, mut found: Found) -> Option<Found> {
        let Want::Node {
            ops,
            inputs,
            attrs,
            slot,
        } = &self.pattern.wants[want]
        else {
            return None;
        };
        let (at, made) = self.links.producer(v)?;
        let node = &self.graph[at];
        let named = |op: &String| split(op) == (node.domain(), &*node.op);
        if made != *slot || !ops.iter().any(named) || !self.attrs_fit(node, attrs) {
            return None;
        }
        let given: Vec<ValueId> = node.inputs.iter().copied().collect::<Option<_>>().or_else(|| {
            let first = node.inputs.get(..inputs.len())?;
            first.iter().copied().collect()
        })?;
        if given.len() != inputs.len() && !(self.pattern.loose && given.len() > inputs.len()) {
            return None;
        }
        found.nodes.push(at);
        let all = |order: &mut dyn Iterator<Item = usize>, found: Found| {
            inputs
                .iter()
                .zip(order)
                .try_fold(found, |f, (&w, i)| self.part(w, given[i], f))
        };
        all(&mut (0..inputs.len()), found.clone()).or_else(|| {
            let swaps = inputs.len() == 2
                && ops
                    .iter()
                    .filter_map(|o| super::pattern::operator(o))
                    .all(|o| o.laws().commutes);
            if swaps {
                all(&mut [1, 0].into_iter(), found)
            } else {
                None
            }
        })
    }

    fn attrs_fit(&self, node: &Node, attrs: &[Attr]) -> bool {
        let given = |a: &Attr| match (node.attr(&a.name), &a.value) {
            (Some(AttrValue::Float(Some(have))), AttrValue::Float(Some(want))) => {
                close((*have).into(), (*want).into())
            }
            (have, want) => have == Some(want),
        };
        attrs.iter().all(given) && (self.pattern.loose || node.attrs.len() == attrs.len())
    }

    /// Matches a part that is a sum or a product.
    fn chain(&self, chain: Chain, want: usize, v: ValueId, mut found: Found) -> Option<Found> {
        let wanted = self.wanted(chain, want);
        let mut given = self.given(chain, v, true);
        if self.pattern.loose && given.nodes.is_empty() {
            return None;
        }
        found.nodes.append(&mut given.nodes);
        if let Some(x) = wanted.scalar
            && !close(given.scalar.take().unwrap_or(chain.neutral()), x)
        {
            return None;
        }
        let (attrs, parts): (Vec<_>, Vec<_>) = wanted
            .varying
            .into_iter()
            .partition(|w| matches!(self.pattern.wants[w.base], Want::Attr(..)));
        for w in attrs {
            let Want::Attr(name, default) = self.pattern.wants[w.base] else {
                continue;
            };
            match given.scalar.take() {
                Some(x) => found = bind(name, x, found)?,
                None if default == chain.neutral() => {}
                None => return None,
            }
        }
        if given.scalar.is_some() || parts.len() != given.varying.len() {
            return None;
        }
        self.assign(&parts, &given.varying, found)
    }

    /// Matches each part with one of the values, trying every order.
    fn assign(&self, parts: &[Operand<usize>], values: &[Operand<ValueId>], found: Found) -> Option<Found> {
        let Some((&part, rest)) = parts.split_first() else {
            return Some(found);
        };
        (0..values.len()).find_map(|i| {
            let found = self.operand(part, values[i], found.clone())?;
            let others = [&values[..i], &values[i + 1..]].concat();
            self.assign(rest, &others, found)
        })
    }

    fn operand(&self, part: Operand<usize>, value: Operand<ValueId>, mut found: Found) -> Option<Found> {
        if part.exponent == 1.0 {
            return self.part(part.base, value.whole?, found);
        }
        if part.exponent != value.exponent {
            return None;
        }
        found.nodes.extend(value.nodes.into_iter().flatten());
        self.part(part.base, value.base, found)
    }

    fn chain_of(&self, want: usize) -> Option<Chain> {
        let Want::Node { ops, inputs, .. } = &self.pattern.wants[want] else {
            return None;
        };
        let (chain, inverted) = match &ops[..] {
            [op] if op == "Pow" => (Chain::Product, false),
            [op] => Chain::of(split(op).0, split(op).1)?,
            _ => return None,
        };
        let scalar = |&i: &usize| match self.pattern.wants[i] {
            Want::Scalar(x) => Some(x),
            _ => None,
        };
        let second = inputs.get(1).and_then(scalar);
        match (&*ops[0], chain) {
            ("Pow", _) => second.and_then(whole).map(|_| chain),
            (_, Chain::Product) => Some(chain),
            (_, Chain::Sum) => (!inverted || second.is_some()).then_some(chain),
        }
    }

    /// What part `want` is a power of, and the exponent.
    fn power_of_want(&self, want: usize) -> Operand<usize> {
        let mut all = Operand::plain(want);
        while let Want::Node { ops, inputs, .. } = &self.pattern.wants[all.base] {
            let second = inputs.get(1).and_then(|&i| match self.pattern.wants[i] {
                Want::Scalar(x) => Some(x),
                _ => None,
            });
            match ops.first().and_then(|op| exponent(op, second)) {
                Some(e) if all.exponent == 1.0 || joins(all.exponent, e) => {
                    all.exponent *= e;
                    all.base = inputs[0];
                }
                _ => break,
            }
        }
        all
    }

    /// What `v` is a power of, as far as nobody else reads what is in between; nor `v`, unless it is the `outermost`.
    fn power(&self, v: ValueId, outermost: bool) -> Operand<ValueId> {
        let mut all = Operand::plain(v);
        while let Some((at, 0)) = self.links.producer(all.base) {
            let node = &self.graph[at];
            let own = outermost && all.base == v;
            let alone = own || (self.links.readers(all.base).len() == 1 && !self.links.kept(all.base));
            let (Some(Some(a)), true, true) = (node.inputs.first(), alone, node.domain().is_empty()) else {
                break;
            };
            let second = node.inputs.get(1).copied().flatten();
            let (base, e) = match (&*node.op, second) {
                // One divided by something.
                ("Div", Some(b)) if self.item(*a) == Some(1.0) => (b, Some(-1.0)),
                _ => (*a, exponent(&node.op, second.and_then(|b| self.item(b)))),
            };
            match e {
                Some(e) if all.nodes[1].is_none() && (all.exponent == 1.0 || joins(all.exponent, e)) => {
                    all.exponent *= e;
                    all.base = base;
                    let free = usize::from(all.nodes[0].is_some());
                    all.nodes[free] = Some(at);
                }
                _ => break,
            }
        }
        all
    }

    /// The operands of part `want` of the pattern, which is a `chain`.
    fn wanted(&self, chain: Chain, want: usize) -> Operands<usize> {
        let mut all = Operands {
            varying: vec![],
            scalar: None,
            nodes: vec![],
        };
        let mut open = vec![(want, false)];
        while let Some((w, inverted)) = open.pop() {
            match &self.pattern.wants[w] {
                Want::Scalar(x) => {
                    let so_far = all.scalar.unwrap_or(chain.neutral());
                    all.scalar = Some(chain.join(so_far, *x, inverted));
                }
                _ if inverted => all.varying.push(self.power_of_want(w).inverse()),
                Want::Node { ops, inputs, .. } if self.chain_of(w) == Some(chain) => {
                    let times = match self.pattern.wants.get(inputs[1]) {
                        Some(Want::Scalar(x)) if ops[0] == "Pow" => whole(*x),
                        _ => None,
                    };
                    let second = Chain::of(split(&ops[0]).0, split(&ops[0]).1).is_some_and(|c| c.1);
                    match times {
                        Some(times) => open.extend(vec![(inputs[0], false); times]),
                        None => open.extend([(inputs[1], second), (inputs[0], false)]),
                    }
                }
                _ if chain == Chain::Product => all.varying.push(self.power_of_want(w)),
                _ => all.varying.push(Operand::plain(w)),
            }
        }
        all
    }

    /// The operands of value `v` as a `chain`: itself alone where it is none.
    fn given(&self, chain: Chain, v: ValueId, outermost: bool) -> Operands<ValueId> {
        let only = |operand| Operands {
            varying: vec![operand],
            scalar: None,
            nodes: vec![],
        };
        let alone = || match chain {
            Chain::Sum => only(Operand::plain(v)),
            Chain::Product => only(self.power(v, outermost)),
        };
        let Some((at, _)) = self.links.producer(v) else {
            return alone();
        };
        let node = &self.graph[at];
        let inner = outermost || (self.links.readers(v).len() == 1 && !self.links.kept(v));
        let &[Some(a), Some(b)] = &node.inputs[..] else {
            return alone();
        };
        if !inner || !node.attrs.is_empty() {
            return alone();
        }
        let (constant, second) = (self.item(a), self.item(b));
        let times = second
            .filter(|_| chain == Chain::Product && node.is("Pow"))
            .and_then(whole);
        let mut all = match (Chain::of(node.domain(), &node.op), constant, second) {
            _ if times.is_some() => Operands {
                varying: vec![Operand::plain(a); times.unwrap_or(1)],
                ..only(Operand::plain(a))
            },
            (Some((found, inverted)), _, Some(x)) if found == chain => self.with(chain, a, x, inverted),
            (Some((found, false)), Some(x), None) if found == chain => self.with(chain, b, x, false),
            (Some((Chain::Product, true)), Some(x), None) if chain == Chain::Product => Operands {
                scalar: Some(x),
                ..only(self.power(b, false).inverse())
            },
            (Some((Chain::Product, true)), None, None) if chain == Chain::Product => {
                let mut left = self.given(chain, a, false);
                left.varying.push(self.power(b, false).inverse());
                left
            }
            (Some((found, false)), None, None) if found == chain => {
                let (mut left, right) = (self.given(chain, a, false), self.given(chain, b, false));
                left.varying.extend(right.varying);
                left.nodes.extend(right.nodes);
                left.scalar = match (left.scalar, right.scalar) {
                    (Some(x), Some(y)) => Some(chain.join(x, y, false)),
                    (x, y) => x.or(y),
                };
                left
            }
            _ => return alone(),
        };
        all.nodes.insert(0, at);
        all
    }

    fn with(&self, chain: Chain, v: ValueId, x: f64, inverted: bool) -> Operands<ValueId> {
        let mut all = self.given(chain, v, false);
        let so_far = all.scalar.unwrap_or(chain.neutral());
        all.scalar = Some(chain.join(so_far, x, inverted));
        all
    }

    fn item(&self, v: ValueId) -> Option<f64> {
        let t: &Tensor = self.graph.konst(v)?;
        t.item().filter(|_| t.dims().len() <= 1 && t.dtype().is_float())
    }
}

/// The exponent that an operator puts on its first input, but for small whole ones; its second is the number `second`.
fn exponent(op: &str, second: Option<f64>) -> Option<f64> {
    match op {
        "Sqrt" => Some(0.5),
        "Reciprocal" => Some(-1.0),
        "Pow" => second.filter(|e| whole(*e).is_none()),
        _ => None,
    }
}

/// Whether a power of a power is the power by the product of both exponents, whatever the sign of the base.
fn joins(outer: f64, inner: f64) -> bool {
    outer == -1.0 || inner == -1.0
}

/// A small whole exponent.
fn whole(e: f64) -> Option<usize> {
    [2, 3, 4].into_iter().find(|&n| n as f64 == e)
}

fn close(have: f64, want: f64) -> bool {
    (have - want).abs() <= CLOSE * want.abs()
}

fn bind(name: &str, x: f64, mut found: Found) -> Option<Found> {
    let seen = found
        .attrs
        .iter()
        .find(|a| &*a.name == name)
        .map(|a| a.value.clone());
    match seen {
        Some(value) => (value == AttrValue::Float(Some(x as f32))).then_some(found),
        None => {
            found.attrs.push(Attr::new(name, x as f32));
            Some(found)
        }
    }
}
