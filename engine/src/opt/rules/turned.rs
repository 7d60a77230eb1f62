//! Transposes of matrices that a product can read, or make, as they are.

use super::read::{input, int};
use crate::expr::{Builder, Ex};
use crate::ir::{Attr, AttrValue, DType, Node, ValueId};
use crate::ops::formula::{apply, transpose};
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

const PRODUCT: &str = "MatMul|com.microsoft.FusedMatMul";

/// A batch of products of which an operand is transposed, so that its columns were rows, becomes one that reads columns as rows; and
/// `Transpose(A B)`, where it exchanges rows and columns, the product of `B'` and `A'`. What is left of a transpose moves whole rows.
pub(super) struct Turned;

impl Rule for Turned {
    fn name(&self) -> &'static str {
        "turned-product"
    }

    fn scope(&self) -> Scope {
        Scope::Engine
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![
            Pattern::loose(2, |x| x[0].op(PRODUCT, &[x[1]]).op("Transpose", &[])),
            Pattern::loose(2, |x| x[0].op(PRODUCT, &[x[1]])),
        ]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let node = m
            .nodes
            .iter()
            .map(|&n| &site.graph[n])
            .find(|n| !n.is("Transpose"));
        let node = node.ok_or(Why::NoEffect)?;
        let rank = |v: ValueId| site.shape(v).map_or(0, |s| s.len());
        let [x, y] = [m.inputs[0], m.inputs[1]];
        let r = rank(x);
        if r < 3 || rank(y) != r || [x, y].iter().any(|&v| site.dtype(v) != Some(DType::F32)) {
            return Err(Why::NoEffect);
        }
        let batches = ["transBatchA", "transBatchB"]
            .iter()
            .any(|name| int(node, name, 0) != 0);
        if batches {
            return Err(Why::NoEffect);
        }
        let own = |v: ValueId, name: &str| Operand {
            x: b.at(v),
            turned: int(node, name, 0) != 0,
        };
        let (left, right) = (own(x, "transA"), own(y, "transB"));
        let root = &site.graph[m.nodes[0]];
        if root.is("Transpose") {
            let perm = order(root, r)
                .filter(|p| p[r - 1] == r - 2)
                .ok_or(Why::NoEffect)?;
            let [left, right] = [left, right].map(|o| Operand {
                turned: !o.turned,
                ..o
            });
            let all = perm.iter().map(|&a| if a < r - 2 { a } else { 2 * r - 3 - a });
            return Ok(in_order(product(node, right, left), &all.collect::<Vec<_>>()));
        }
        let read = |o: Operand<'a>, v| through(site, b, o, v, r);
        match (read(left, x), read(right, y)) {
            (None, None) => Err(Why::NoEffect),
            (l, r) => Ok(product(node, l.unwrap_or(left), r.unwrap_or(right))),
        }
    }
}

/// An operand, and whether rows and columns change places.
#[derive(Clone, Copy)]
struct Operand<'a> {
    x: Ex<'a>,
    turned: bool,
}

fn product<'a>(node: &Node, left: Operand<'a>, right: Operand<'a>) -> Ex<'a> {
    let mut attrs: Vec<_> = node
        .attrs
        .iter()
        .filter(|a| &*a.name == "alpha")
        .cloned()
        .collect();
    for (name, o) in [("transA", left), ("transB", right)] {
        attrs.extend(o.turned.then(|| Attr::new(name, 1)));
    }
    apply(left.x, "com.microsoft.FusedMatMul", &[Some(right.x)], attrs, 1)[0]
}

/// The axes of a `Transpose` of `rank` axes.
fn order(node: &Node, rank: usize) -> Option<Vec<usize>> {
    let Some(AttrValue::Ints(perm)) = node.attr("perm") else {
        return Some((0..rank).rev().collect());
    };
    let perm: Vec<_> = perm
        .iter()
        .map(|&a| usize::try_from(a).ok())
        .collect::<Option<_>>()?;
    (perm.len() == rank).then_some(perm)
}

fn in_order<'a>(x: Ex<'a>, perm: &[usize]) -> Ex<'a> {
    match perm.is_sorted() {
        true => x,
        false => transpose(x, perm),
    }
}

/// What operand `o`, the value `v`, was before a transpose made columns of its rows; `None` where there was none.
fn through<'a>(site: &Site, b: &'a Builder, o: Operand<'a>, v: ValueId, rank: usize) -> Option<Operand<'a>> {
    let node = site.call(v, "Transpose")?;
    let mut perm = order(node, rank).filter(|p| p[rank - 2] == rank - 1)?;
    perm.swap(rank - 2, rank - 1);
    Some(Operand {
        x: in_order(b.at(input(node, 0)?), &perm),
        turned: !o.turned,
    })
}
