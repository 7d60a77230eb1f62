//! Rotary embedding, written out.

use super::read::{input, int, one};
use crate::expr::{Builder, Call, Ex};
use crate::ir::{Attr, AttrValue, DType, Dim, Tensor, ValueId};
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// `x·cos + rotate(x)·sin`, where `rotate` swaps the halves of each row, or neighbours, and negates what comes first, becomes
/// `RotaryEmbedding`: if both halves of the rows of `cos` and `sin`, or neighbours, are provably the same, for the operator
/// has one of each.
pub(super) struct Rotary;

/// Which two numbers of a row make a pair.
#[derive(Clone, Copy, PartialEq)]
enum Pairs {
    /// Those at the same place of both halves.
    Halves,
    /// Neighbours.
    Neighbours,
}

impl Rule for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn scope(&self) -> Scope {
        Scope::Engine
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![Pattern::loose(2, |x| x[0].op("Add|Add", &[x[1]]))]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let [left, right] = [0, 1].map(|i| {
            let node = site.call(m.inputs[i], "Mul")?;
            Some([input(node, 0)?, input(node, 1)?])
        });
        let (Some(left), Some(right)) = (left, right) else {
            return Err(Why::NoEffect);
        };
        let sides = [(left, right), (right, left)];
        let found = sides.iter().find_map(|&(plain, turned)| {
            let ((x, pairs), sin) = [0, 1]
                .iter()
                .find_map(|&i| Some((rotated(site, turned[i])?, turned[1 - i])))?;
            let at = plain.iter().position(|&v| v == x)?;
            Some(([x, plain[1 - at], sin], pairs))
        });
        let ([x, cos, sin], pairs) = found.ok_or(Why::NoEffect)?;
        let shape = site.shape(x).ok_or(Why::No("the rank is not known"))?;
        let [_, _, length, size] = &shape[..] else {
            return Err(Why::No("there are not four axes"));
        };
        let size = size
            .size()
            .filter(|s| s % 2 == 0)
            .ok_or(Why::No("the size of a head is not known"))?;
        if [x, cos, sin].iter().any(|&v| site.dtype(v) != Some(DType::F32)) {
            return Err(Why::No("there is no fused kernel for the element type"));
        }
        for v in [cos, sin] {
            if !agree(site, v, pairs, 8) {
                return Err(Why::No(match pairs {
                    Pairs::Halves => "both halves of the angles are not known to be the same",
                    Pairs::Neighbours => "neighbours among the angles are not known to be the same",
                }));
            }
        }
        site.private(m.nodes[0], &[x, cos, sin])?;
        let tables = [cos, sin].map(|v| table(site, b, [x, v], length, (size, pairs)));
        let [cos, sin] = tables;
        let call = Call {
            domain: "",
            op: "RotaryEmbedding",
            inputs: &[Some(x), Some(cos?), Some(sin?)],
            attrs: match pairs {
                Pairs::Halves => vec![],
                Pairs::Neighbours => vec![Attr::new("interleaved", 1)],
            },
            outputs: 1,
        };
        Ok(b.at(x).call(call)[0])
    }
}

/// `x` where `v` is the second of each pair, negated, and the first.
fn rotated(site: &Site, v: ValueId) -> Option<(ValueId, Pairs)> {
    if let Some([first, second]) = ends(site, v) {
        let (x, high) = half(site, input(site.call(first, "Neg")?, 0)?)?;
        let (y, low) = half(site, second)?;
        return (x == y && high && !low).then_some((x, Pairs::Halves));
    }
    let [first, second] = stacked(site, v)?;
    let (x, odd) = every_other(site, input(site.call(first, "Neg")?, 0)?)?;
    let (y, even) = every_other(site, second)?;
    (x == y && odd && !even && site.alike(v, x)).then_some((x, Pairs::Neighbours))
}

/// The two that `v` holds one behind the other in each row.
fn ends(site: &Site, v: ValueId) -> Option<[ValueId; 2]> {
    let node = site.call(v, "Concat")?;
    let rank = site.shape(v)?.len() as i64;
    let last = [-1, rank - 1].contains(&int(node, "axis", 0));
    (last && node.inputs.len() == 2).then_some([input(node, 0)?, input(node, 1)?])
}

/// The two whose numbers take turns in the rows of `v`.
fn stacked(site: &Site, v: ValueId) -> Option<[ValueId; 2]> {
    let pairs = input(site.call(v, "Reshape")?, 0)?;
    let [flat, thin] = [site.shape(v)?, site.shape(pairs)?];
    let merged = flat.len() + 1 == thin.len() && thin.last()?.known() == Some(2);
    let kept = flat.iter().zip(thin).take(flat.len() - 1).all(|(a, b)| a.same(b));
    let column = |v: ValueId| {
        let node = site.call(v, "Unsqueeze")?;
        let x = input(node, 0)?;
        let axis = match (node.attr("axes"), input(node, 1)) {
            (Some(AttrValue::Ints(axes)), _) => axes.clone(),
            (_, Some(axes)) => site.facts.konst(axes)?.ints()?,
            _ => return None,
        };
        let rank = site.shape(v)?.len() as i64;
        (axis == [-1] || axis == [rank - 1]).then_some(x)
    };
    let [a, b] = ends(site, pairs)?;
    (merged && kept).then_some([column(a)?, column(b)?])
}

/// `x` where `v` is every second number of its rows, and whether they are the odd ones.
fn every_other(site: &Site, v: ValueId) -> Option<(ValueId, bool)> {
    let node = site.call(v, "Slice")?;
    let x = input(node, 0)?;
    let shape = site.shape(x)?;
    let (rank, size) = (shape.len() as i64, shape.last()?.known()?);
    let ints = |i: usize| site.facts.konst(input(node, i)?)?.ints();
    let [start, end, axis, step] = [1, 2, 3, 4].map(ints);
    let fits = step? == [2]
        && end?.first().is_some_and(|&end| end >= size)
        && [vec![-1], vec![rank - 1]].contains(&axis?);
    match start?[..] {
        [start @ (0 | 1)] if fits => Some((x, start == 1)),
        _ => None,
    }
}

/// `x` where `v` is half of each of its rows, and whether it is the second.
fn half(site: &Site, v: ValueId) -> Option<(ValueId, bool)> {
    let (at, slot) = site.links.producer(v)?;
    let node = &site.graph[at];
    let x = input(node, 0)?;
    let shape = site.shape(x)?;
    let (rank, size) = (shape.len() as i64, shape.last()?.known()?);
    let halved = site.shape(v)?.last()?.known()? * 2 == size;
    if node.is("Split") {
        let last = [-1, rank - 1].contains(&int(node, "axis", 0));
        return (last && halved && node.outputs.len() == 2).then_some((x, slot == 1));
    }
    if !node.is("Slice") {
        return None;
    }
    let ints = |i: usize| site.facts.konst(input(node, i)?)?.ints();
    let (starts, ends, axes) = (ints(1)?, ints(2)?, ints(3)?);
    let steps = input(node, 4).is_none() || ints(4)? == [1];
    let (&[start], &[_], &[axis]) = (&starts[..], &ends[..], &axes[..]) else {
        return None;
    };
    let start = if start < 0 { start + size } else { start };
    let fits = halved && steps && [-1, rank - 1].contains(&axis) && [0, size / 2].contains(&start);
    fits.then_some((x, start != 0))
}

/// Whether the two of each pair in the rows of `v` are the same.
fn agree(site: &Site, v: ValueId, pairs: Pairs, depth: usize) -> bool {
    if let Some(t) = site.facts.konst(v) {
        let size = t.dims().last().copied().unwrap_or(1);
        let same = |row: &[f64]| match pairs {
            Pairs::Halves => row[..size / 2] == row[size / 2..],
            Pairs::Neighbours => row.chunks_exact(2).all(|p| p[0] == p[1]),
        };
        return size > 0 && size % 2 == 0 && t.floats().is_some_and(|x| x.chunks_exact(size).all(same));
    }
    let Some(node) = site.made(v).filter(|_| depth > 0) else {
        return false;
    };
    let below = |i: usize| input(node, i).is_some_and(|v| agree(site, v, pairs, depth - 1));
    let rank = site.shape(v).map_or(0, Vec::len) as i64;
    let scalar = |i: usize| input(node, i).is_some_and(|v| site.number(v).is_some());
    match &*node.op {
        "Cos" | "Sin" | "Cast" | "Identity" | "Neg" => below(0),
        "Mul" | "Div" => (below(0) && scalar(1)) || (below(1) && scalar(0) && node.is("Mul")),
        "Unsqueeze" => site.axes(node, 1).is_some() && same_last(site, v, input(node, 0)) && below(0),
        "Gather" => int(node, "axis", 0) == 0 && same_last(site, v, input(node, 0)) && rank > 1 && below(0),
        "Concat" if pairs == Pairs::Halves => ends(site, v).is_some_and(|[a, b]| a == b),
        "Reshape" if pairs == Pairs::Neighbours => stacked(site, v).is_some_and(|[a, b]| a == b),
        "Tile" if pairs == Pairs::Halves => {
            let times = input(node, 1).and_then(|v| site.facts.konst(v)?.ints());
            times.is_some_and(|t| t.last() == Some(&2) && t[..t.len() - 1].iter().all(|&n| n == 1))
        }
        _ => false,
    }
}

/// Whether the last axes of both have the same known size, more than 1.
fn same_last(site: &Site, a: ValueId, b: Option<ValueId>) -> bool {
    let last = |v: ValueId| site.shape(v).and_then(|s| s.last()).and_then(Dim::known);
    last(a).is_some_and(|n| n > 1 && b.and_then(last) == Some(n))
}

/// The first of each pair in the rows of `v` as `[batch, length, half]`, where `x` is `[batch, heads, length, size]`.
fn table(
    site: &Site,
    b: &Builder,
    [x, v]: [ValueId; 2],
    length: &Dim,
    (size, pairs): (usize, Pairs),
) -> Result<ValueId, Why> {
    let shape = site
        .shape(v)
        .ok_or(Why::No("the shape of the angles is not known"))?;
    let n = shape.len();
    if n < 2 || !shape[n - 2].same(length) || shape[n - 1].size() != Some(size) {
        return Err(Why::No("there is not one row of angles for each place"));
    }
    if n > 4 || shape[..n - 2].iter().skip(n.saturating_sub(3)).any(|d| !one(d)) {
        return Err(Why::No("angles differ between heads"));
    }
    let ints = |x: Ex<'_>, v: &[i64]| x.tensor(Tensor::of(&[v.len()], v.to_vec())).id;
    let at = |id| Ex { id, ..b.at(v) };
    let all = b.at(v);
    let (end, step) = match pairs {
        Pairs::Halves => (size as i64 / 2, 1),
        Pairs::Neighbours => (size as i64, 2),
    };
    let range = [0, end, -1, step].map(|i| at(ints(all, &[i])));
    let half = all.op("Slice", &range);
    let axis = |x: Ex<'_>, op: &str, axis: i64| match site.opset {
        ..13 => x.with(op, &[], vec![Attr::new("axes", vec![axis])]).id,
        _ => {
            x.op(
                op,
                &[Ex {
                    id: ints(x, &[axis]),
                    ..x
                }],
            )
            .id
        }
    };
    let own = match n {
        4 => axis(half, "Squeeze", 1),
        3 => half.id,
        _ => axis(half, "Unsqueeze", 0),
    };
    let whole = site
        .shape(x)
        .is_some_and(|s| n == 4 && s[0].same(&shape[0]) || one(&s[0]));
    if whole {
        return Ok(own);
    }
    if n == 4 && !one(&shape[0]) {
        return Err(Why::No("there are not as many tables of angles as sequences"));
    }
    // One table for all sequences.
    let x = b.at(x);
    let batch = x
        .op("Shape", &[])
        .op("Slice", &[at(ints(x, &[0])), at(ints(x, &[1]))]);
    let target = batch.with(
        "Concat",
        &[at(ints(x, &[1, 1]))],
        vec![Attr::new("axis", AttrValue::from(0))],
    );
    Ok(at(own).op("Expand", &[target]).id)
}
