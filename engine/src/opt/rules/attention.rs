//! Scaled-dot-product attention, written out.

use super::causal::{FAR, added_to_later, lower, square};
use super::read::{input, int, one};
use crate::expr::{Builder, Call, Ex};
use crate::ir::{Attr, AttrValue, DType, Dim, Node, Tensor, ValueId};
use crate::opt::{Match, Pattern, Rule, Scope, Site, Why};

/// `softmax(scale Q Kᵀ + mask) V` becomes `Attention`, which never holds all scores: with the scale on `Q`, on `K`, on both,
/// or on the scores; with `K` transposed in any way; with masks that are added or chosen by `Where`, lower triangles as
/// `is_causal`; with masks for each window of an image; with a soft cap; with keys and values that are repeated for groups of heads; with three or four axes.
///
/// A query that may see no key gets zeros, where the formula with a mask of minus infinity has no number for it.
///
/// Only for `float`, for which there is a kernel.
pub(super) struct Attention;

/// What limits which keys a query sees.
#[derive(Clone, Copy, Debug)]
enum Mask {
    /// Added to the scores.
    Added(ValueId),
    /// `fill` takes the place of scores where the condition is as the flag says.
    Filled(ValueId, bool, f64),
    /// Added to the scores of each window of an image: `[1, windows, 1, queries, keys]`, where sequences are the windows of
    /// one image after the other.
    Windows(ValueId),
}

/// What was found between the product with values and that of queries and keys.
struct Scores {
    masks: Vec<Mask>,
    scale: f64,
    softcap: f64,
    queries: ValueId,
    /// Keys with their last two axes swapped.
    swapped: ValueId,
}

/// Nodes between the softmax and the product of queries and keys.
const DEPTH: usize = 12;

impl Rule for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn scope(&self) -> Scope {
        Scope::Engine
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![
            Pattern::loose(2, |x| x[0].matmul(x[1])),
            Pattern::loose(2, |x| x[1].matmul(x[0].op("Transpose", &[]))),
        ]
    }

    fn rewrite<'a>(&self, m: &Match, site: &Site, b: &'a Builder) -> Result<Ex<'a>, Why> {
        let &[shares, v] = &m.inputs[..] else {
            return Err(Why::NoEffect);
        };
        // Values times shares, both turned.
        let turned = match m.nodes[..] {
            [_, n] => Some(swapping(&site.graph[n]).ok_or(Why::NoEffect)?),
            _ => None,
        };
        let scores = peel(site, scores(site, shares)?)?;
        let (q, factor) = site.scaled(scores.queries);
        let (swapped, more) = site.scaled(scores.swapped);
        let mut scale = scores.scale * factor * more;
        let (mut k, perm) = keys(site, swapped)?;
        if perm.is_none() {
            let (bare, last) = site.scaled(k);
            (k, scale) = (bare, scale * last);
        }
        let (k0, v0) = (k, v);
        let rank = site.shape(q).map(Vec::len);
        let (k, v) = match (ungrouped(site, k), ungrouped(site, v)) {
            (Some(k), Some(v)) if perm.is_none() && turned.is_none() && rank == Some(4) => (k, v),
            _ => (k, v),
        };
        check(site, [q, k0, v0], &perm)?;
        site.same_rank(m.nodes[0], q)?;
        let leaves: Vec<_> = [q, k, v]
            .into_iter()
            .chain(scores.masks.iter().map(Mask::value))
            .collect();
        site.private(m.nodes[0], &leaves)?;
        let size = sizes(site, q, k0, &perm);
        let writer = Writer {
            site,
            b,
            size,
            turned,
        };
        writer.write(&scores, scale, [q, k, v], perm)
    }
}

impl Mask {
    fn value(&self) -> ValueId {
        match *self {
            Mask::Added(v) | Mask::Filled(v, ..) | Mask::Windows(v) => v,
        }
    }
}

/// What goes into the softmax that makes `shares`.
fn scores(site: &Site, mut shares: ValueId) -> Result<ValueId, Why> {
    // PyTorch puts zeros in rows without a number; a cast to the same type changes nothing.
    for _ in 0..3 {
        let Some(node) = site.made(shares) else { break };
        let inner = match &*node.op {
            "Cast" => {
                input(node, 0).filter(|&v| site.dtype(v).is_some() && site.dtype(v) == site.dtype(shares))
            }
            "Where" => safe(site, node),
            "Identity" => input(node, 0),
            _ => None,
        };
        shares = match inner {
            Some(v) => v,
            None => break,
        };
    }
    let node = site.call(shares, "Softmax").ok_or(Why::NoEffect)?;
    let x = input(node, 0).ok_or(Why::NoEffect)?;
    let rank = site
        .shape(x)
        .map(Vec::len)
        .ok_or(Why::No("the rank of the scores is not known"))? as i64;
    let axis = int(node, "axis", if site.opset < 13 { 1 } else { -1 });
    match axis == -1 || axis == rank - 1 {
        true => Ok(x),
        false => Err(Why::No("the softmax runs along another axis than the keys")),
    }
}

/// `x` where `node` is `Where(IsNaN(x), 0, x)`.
fn safe(site: &Site, node: &Node) -> Option<ValueId> {
    let (c, zero, x) = (input(node, 0)?, input(node, 1)?, input(node, 2)?);
    let nan = site.call(c, "IsNaN").and_then(|n| input(n, 0));
    (nan == Some(x) && site.number(zero) == Some(0.0)).then_some(x)
}

/// Whether a product of two matrices that vary is below `v`.
fn leads_to_product(site: &Site, v: ValueId, depth: usize) -> bool {
    let Some(node) = site.made(v).filter(|_| depth > 0) else {
        return false;
    };
    let below = |i: usize| input(node, i).is_some_and(|v| leads_to_product(site, v, depth - 1));
    match &*node.op {
        "MatMul" => input(node, 1).is_some_and(|b| site.facts.konst(b).is_none()),
        "Add" | "Sub" | "Mul" | "Div" => below(0) || below(1),
        "Where" => below(1) || below(2),
        "Tanh" | "Identity" | "Reshape" | "Cast" | "Clip" => below(0),
        _ => false,
    }
}

fn peel(site: &Site, mut v: ValueId) -> Result<Scores, Why> {
    let mut masks = vec![];
    let (mut scale, mut softcap) = (1.0, 0.0);
    for _ in 0..DEPTH {
        let node = site.made(v).ok_or(Why::NoEffect)?;
        let (a, b) = (input(node, 0).ok_or(Why::NoEffect)?, input(node, 1));
        let leads = |v: ValueId| leads_to_product(site, v, DEPTH);
        match (&*node.op, b) {
            ("MatMul", Some(b)) => {
                return Ok(Scores {
                    masks,
                    scale,
                    softcap,
                    queries: a,
                    swapped: b,
                });
            }
            ("Add", Some(b)) => {
                let (inner, mask) = match (leads(a), leads(b)) {
                    (true, false) => (a, b),
                    (false, true) => (b, a),
                    (true, true) => {
                        return Err(Why::No("a sum of two products of matrices goes into the softmax"));
                    }
                    (false, false) => return Err(Why::NoEffect),
                };
                if scale != 1.0 || softcap != 0.0 {
                    return Err(Why::No("the mask is scaled or capped with the scores"));
                }
                masks.push(Mask::Added(mask));
                v = inner;
            }
            ("Where", Some(b)) => {
                let c = input(node, 2).ok_or(Why::NoEffect)?;
                if scale != 1.0 || softcap != 0.0 {
                    return Err(Why::No("the mask is scaled or capped with the scores"));
                }
                let (inner, fill, when) = match (site.number(b), site.number(c)) {
                    (Some(fill), None) => (c, fill, true),
                    (None, Some(fill)) => (b, fill, false),
                    _ => return Err(Why::No("masked scores do not get one constant")),
                };
                masks.push(Mask::Filled(a, when, fill));
                v = inner;
            }
            ("Tanh", None) => {
                return Err(Why::No(
                    "scores pass through a hyperbolic tangent without its factor",
                ));
            }
            ("Mul" | "Div", Some(b)) => {
                let inner = if leads(a) { a } else { b };
                let (bare, factor) = site.scaled(v);
                if bare == v {
                    return Err(match leads(inner) {
                        true => Why::No("the scale is not a constant"),
                        false => Why::NoEffect,
                    });
                }
                v = bare;
                match site.call(bare, "Tanh").and_then(|n| input(n, 0)) {
                    Some(x) if scale == 1.0 && softcap == 0.0 && factor > 0.0 => {
                        softcap = factor;
                        let (x, inside) = site.scaled(x);
                        scale = inside * factor;
                        v = x;
                    }
                    _ => scale *= factor,
                }
            }
            ("Identity", None) => v = a,
            ("Reshape", _) if leads(a) => {
                let found = windows(site, v).filter(|_| scale == 1.0 && softcap == 0.0);
                let (inner, mask) = found.ok_or(Why::No("the scores are reshaped before the softmax"))?;
                masks.push(Mask::Windows(mask));
                v = inner;
            }
            ("Cast", None) if leads(a) => return Err(Why::No("the scores change their element type")),
            _ => return Err(Why::NoEffect),
        }
    }
    Err(Why::NoEffect)
}

/// Scores, and the mask of each window, where `v` is `Reshape(Reshape(scores) + mask)` and the inner reshape tells windows
/// from images.
fn windows(site: &Site, v: ValueId) -> Option<(ValueId, ValueId)> {
    let sum = site.call(input(site.made(v)?, 0)?, "Add")?;
    let (a, b) = (input(sum, 0)?, input(sum, 1)?);
    let apart = |v: ValueId| input(site.call(v, "Reshape")?, 0).filter(|&x| leads_to_product(site, x, DEPTH));
    let (scores, wide, mask) = match (apart(a), apart(b)) {
        (Some(x), _) => (x, a, b),
        (_, Some(x)) => (x, b, a),
        _ => return None,
    };
    let [all, inner, wide, mask_] = [v, scores, wide, mask].map(|v| site.shape(v));
    let (all, inner, wide, mask_) = (all?, inner?, wide?, mask_?);
    if (all.len(), inner.len(), wide.len(), mask_.len()) != (4, 4, 5, 5) {
        return None;
    }
    let same = |a: &[Dim], b: &[Dim]| a.iter().zip(b).all(|(a, b)| a.same(b));
    let fits = same(&all[1..], &inner[1..])
        && same(&inner[1..], &wide[2..])
        && same(&inner[2..], &mask_[3..])
        && one(&mask_[0])
        && one(&mask_[2]);
    fits.then_some((scores, mask))
}

/// The permutation of `node`, if it swaps the last two axes and nothing else.
fn swapping(node: &Node) -> Option<Vec<i64>> {
    let Some(AttrValue::Ints(perm)) = node.attr("perm") else {
        return None;
    };
    let n = perm.len();
    let mut same: Vec<i64> = (0..n as i64).collect();
    (n > 1).then(|| same.swap(n - 1, n - 2))?;
    (*perm == same).then_some(same)
}

/// The keys, and how they are still to be permuted.
fn keys(site: &Site, swapped: ValueId) -> Result<(ValueId, Option<Vec<i64>>), Why> {
    let rank = site
        .shape(swapped)
        .map(Vec::len)
        .ok_or(Why::No("the rank of the keys is not known"))?;
    let swap = |mut p: Vec<i64>| {
        let n = p.len();
        p.swap(n - 1, n - 2);
        p
    };
    if rank < 2 {
        return Err(Why::NoEffect);
    }
    let same: Vec<i64> = (0..rank as i64).collect();
    if let Some(node) = site.call(swapped, "Transpose")
        && let (Some(x), Some(AttrValue::Ints(perm))) = (input(node, 0), node.attr("perm"))
        && perm.len() == rank
    {
        let left = swap(perm.clone());
        return Ok((x, (left != same).then_some(left)));
    }
    Ok(match around(site, swapped) {
        Some(k) => (k, None),
        None => (swapped, Some(swap(same))),
    })
}

/// `K` where `v` is `K` with its last two axes swapped by way of three axes, as PyTorch's exporter does it.
fn around(site: &Site, v: ValueId) -> Option<ValueId> {
    let turned = input(site.call(v, "Reshape")?, 0)?;
    let node = site.call(turned, "Transpose")?;
    if node.attr("perm") != Some(&AttrValue::Ints(vec![0, 2, 1])) {
        return None;
    }
    let flat = input(node, 0)?;
    let k = input(site.call(flat, "Reshape")?, 0)?;
    let (to, of, mid) = (site.shape(v)?, site.shape(k)?, site.shape(flat)?);
    let n = of.len();
    let fits = to.len() == n
        && n == 4
        && mid.len() == 3
        && of[n - 1].same(&mid[2])
        && of[n - 1].same(&to[n - 2])
        && of[n - 2].same(&mid[1])
        && of[n - 2].same(&to[n - 1])
        && of[1].same(&to[1]);
    fits.then_some(k)
}

/// Keys or values before they were repeated for groups of heads.
fn ungrouped(site: &Site, v: ValueId) -> Option<ValueId> {
    let wide = input(site.call(v, "Reshape")?, 0)?;
    let thin = input(site.call(wide, "Expand")?, 0)?;
    let node = site.made(thin).filter(|n| n.is("Unsqueeze") || n.is("Reshape"))?;
    let base = input(node, 0)?;
    let [all, spread, narrow, own] = [v, wide, thin, base].map(|v| site.shape(v));
    let (all, spread, narrow, own) = (all?, spread?, narrow?, own?);
    let (&[b, heads, len, size], &[_, few, times, ..], &[_, _, gap, ..], &[b0, own_heads, len0, size0]) = (
        &all.iter().collect::<Vec<_>>()[..],
        &spread.iter().collect::<Vec<_>>()[..],
        &narrow.iter().collect::<Vec<_>>()[..],
        &own.iter().collect::<Vec<_>>()[..],
    ) else {
        return None;
    };
    let counted = few.known()?.checked_mul(times.known()?) == Some(heads.known()?) && few.same(own_heads);
    // The number of elements settles the last size that is not known.
    let fits = spread.len() == 5 && one(gap) && size.same(size0) && (b.same(b0) || len.same(len0));
    (counted && fits).then_some(base)
}

/// Checks types and shapes of queries, keys and values.
fn check(site: &Site, [q, k, v]: [ValueId; 3], perm: &Option<Vec<i64>>) -> Result<(), Why> {
    if [q, k, v].iter().any(|&x| site.dtype(x) != Some(DType::F32)) {
        return Err(Why::No("there is no fused kernel for the element type"));
    }
    let [q, k, v] = [q, k, v].map(|x| site.shape(x));
    let (Some(q), Some(k), Some(v)) = (q, k, v) else {
        return Err(Why::No("the rank of queries, keys or values is not known"));
    };
    let k: Vec<Dim> = match perm {
        Some(p) => p.iter().map(|&i| k[i as usize].clone()).collect(),
        None => k.clone(),
    };
    if !(3..=4).contains(&q.len()) || k.len() != q.len() || v.len() != q.len() {
        return Err(Why::No(
            "queries, keys and values do not all have three or all four axes",
        ));
    }
    // Products broadcast; attention does not.
    let outer = q.len() - 2;
    let differ = |a: &Dim, b: &Dim| match (a.known(), b.known()) {
        (Some(a), Some(b)) => a != b,
        (Some(1), None) | (None, Some(1)) => true,
        _ => false,
    };
    if (0..outer).any(|i| differ(&q[i], &k[i]) || differ(&q[i], &v[i])) {
        return Err(Why::No("a product broadcasts over sequences or heads"));
    }
    Ok(())
}

/// Numbers of queries and keys, and the axes before them.
fn sizes(site: &Site, q: ValueId, k: ValueId, perm: &Option<Vec<i64>>) -> Vec<Dim> {
    let (q, k) = (site.shape(q), site.shape(k));
    let (Some(q), Some(k)) = (q, k) else { return vec![] };
    let n = q.len();
    let at = perm.as_ref().map_or(n - 2, |p| p[n - 2] as usize);
    let mut all: Vec<Dim> = q[..n - 1].to_vec();
    all.push(k[at].clone());
    all
}

struct Writer<'w, 'a> {
    site: &'w Site<'w>,
    b: &'a Builder<'a>,
    /// The shape of the scores.
    size: Vec<Dim>,
    /// How values and the result are turned, if they are.
    turned: Option<Vec<i64>>,
}

impl<'a> Writer<'_, 'a> {
    fn write(
        &self,
        scores: &Scores,
        scale: f64,
        [q, k, v]: [ValueId; 3],
        perm: Option<Vec<i64>>,
    ) -> Result<Ex<'a>, Why> {
        let mut causal = false;
        let mut rest = vec![];
        for &mask in &scores.masks {
            let lower = match mask {
                Mask::Added(v) => added_to_later(self.site, v),
                Mask::Filled(c, when, fill) => fill <= FAR && lower(self.site, c) == Some(!when),
                Mask::Windows(_) => false,
            };
            match lower && square(self.site, mask.value(), &self.size) {
                true => causal = true,
                false => rest.push(mask),
            }
        }
        let n = self.size.len();
        let axis = perm.as_ref().map_or(n as i64 - 2, |p| p[n - 2]);
        let mask = self.mask(&rest, q, (k, axis))?;
        let flat = self.size.len() == 3;
        let turn = |x: Ex<'a>| match &self.turned {
            Some(p) => x.with("Transpose", &[], vec![Attr::new("perm", p.clone())]),
            None => x,
        };
        let thick = |x: Ex<'a>| if flat { self.unsqueeze(x) } else { x };
        let [q, k, v] = [q, k, v].map(|v| self.b.at(v));
        let k = match perm {
            Some(p) => k.with("Transpose", &[], vec![Attr::new("perm", p)]),
            None => k,
        };
        let mut inputs: Vec<_> = [q, k, turn(v)].into_iter().map(|x| Some(thick(x).id)).collect();
        inputs.extend(mask.map(|m| Some(m.id)));
        let mut attrs = vec![Attr::new("scale", scale as f32)];
        if causal {
            attrs.push(Attr::new("is_causal", 1));
        }
        if scores.softcap > 0.0 {
            attrs.push(Attr::new("softcap", scores.softcap as f32));
        }
        let call = Call {
            domain: "",
            op: "Attention",
            inputs: &inputs,
            attrs,
            outputs: 1,
        };
        let y = q.call(call)[0];
        Ok(turn(if flat { self.axis(y, "Squeeze") } else { y }))
    }

    /// With an axis of one head.
    fn unsqueeze(&self, x: Ex<'a>) -> Ex<'a> {
        self.axis(x, "Unsqueeze")
    }

    fn axis(&self, x: Ex<'a>, op: &str) -> Ex<'a> {
        match self.site.opset {
            ..13 => x.with(op, &[], vec![Attr::new("axes", vec![1i64])]),
            _ => x.op(op, &[x.tensor(Tensor::of(&[1], vec![1i64]))]),
        }
    }

    /// All masks as one.
    fn mask(&self, masks: &[Mask], q: ValueId, keys: (ValueId, i64)) -> Result<Option<Ex<'a>>, Why> {
        let Some((&first, more)) = masks.split_first() else {
            return Ok(None);
        };
        for mask in masks {
            if !matches!(mask, Mask::Windows(_)) {
                self.fits(mask.value())?;
            }
            match *mask {
                Mask::Filled(_, _, fill) if fill > FAR => {
                    return Err(Why::No("masked scores keep some of their weight"));
                }
                Mask::Added(v) | Mask::Windows(v) if self.site.dtype(v) != Some(DType::F32) => {
                    return Err(Why::No("the mask is of another element type"));
                }
                _ => {}
            }
        }
        let one = match first {
            Mask::Filled(c, when, f64::NEG_INFINITY) if more.is_empty() => {
                let c = self.b.at(c);
                if when { c.op("Not", &[]) } else { c }
            }
            _ => {
                let first = self.added(first, q);
                more.iter().fold(first, |sum, &mask| sum + self.added(mask, q))
            }
        };
        let rank = masks
            .iter()
            .filter_map(|m| Some(self.site.shape(m.value())?.len()))
            .max();
        let whole = self.whole_rows(masks, one, keys);
        Ok(Some(match (self.size.len(), rank) {
            // The axis of heads.
            (3, Some(3)) => self.unsqueeze(whole),
            _ => whole,
        }))
    }

    /// What `mask` adds to scores of the queries `q`.
    fn added(&self, mask: Mask, q: ValueId) -> Ex<'a> {
        match mask {
            Mask::Added(v) => self.b.at(v),
            Mask::Windows(v) => self.each_window(self.b.at(v), self.b.at(q)),
            Mask::Filled(c, when, fill) => {
                let c = self.b.at(c);
                let (zero, fill) = (
                    c.tensor(Tensor::scalar(0.0f32)),
                    c.tensor(Tensor::scalar(fill as f32)),
                );
                let [a, b] = if when { [fill, zero] } else { [zero, fill] };
                c.op("Where", &[a, b])
            }
        }
    }

    /// `mask` for the windows of all images, `[sequences, 1, queries, keys]`.
    fn each_window(&self, mask: Ex<'a>, q: Ex<'a>) -> Ex<'a> {
        let ints = |v: &[i64]| mask.tensor(Tensor::of(&[v.len()], v.to_vec()));
        let size = |x: Ex<'a>, axis: i64| {
            x.op("Shape", &[])
                .op("Slice", &[ints(&[axis]), ints(&[axis + 1])])
        };
        let images = size(q, 0) / size(mask, 1);
        let join = |x: Ex<'a>, rest: &[Ex<'a>]| x.with("Concat", rest, vec![Attr::new("axis", 0)]);
        let all = mask.op("Expand", &[join(images, &[ints(&[1, 1, 1, 1])])]);
        all.op(
            "Reshape",
            &[join(ints(&[-1, 1]), &[size(mask, 3), size(mask, 4)])],
        )
    }

    /// `mask` with as many columns as there are keys along an axis of a value: behind the last column of a mask no key is
    /// seen, where a sum repeats a single one.
    fn whole_rows(&self, masks: &[Mask], mask: Ex<'a>, (k, axis): (ValueId, i64)) -> Ex<'a> {
        let keys = self.size.last().unwrap_or(&Dim::Unknown);
        let last = |m: &Mask| self.site.shape(m.value()).and_then(|s| s.last()).cloned();
        if masks.iter().any(|m| last(m).is_some_and(|d| d.same(keys))) {
            return mask;
        }
        let ints = |v: &[i64]| mask.tensor(Tensor::of(&[v.len()], v.to_vec()));
        let size = match keys.known() {
            Some(n) => ints(&[1, n]),
            None => {
                let shape = self.b.at(k).op("Shape", &[]);
                let n = shape.op("Slice", &[ints(&[axis]), ints(&[axis + 1])]);
                ints(&[1]).with("Concat", &[n], vec![Attr::new("axis", 0)])
            }
        };
        mask.op("Expand", &[size])
    }

    /// Checks that the mask does not make the scores larger.
    fn fits(&self, mask: ValueId) -> Result<(), Why> {
        let shape = self
            .site
            .shape(mask)
            .ok_or(Why::No("the rank of the mask is not known"))?;
        let wide = Why::No("the mask is larger than the scores");
        if shape.len() > self.size.len() || shape.is_empty() {
            return Err(wide);
        }
        let pairs = shape.iter().rev().zip(self.size.iter().rev());
        let fits = |(m, s): (&Dim, &Dim)| match (m.known(), s.known()) {
            (Some(1), _) => true,
            (Some(m), Some(s)) => m == s,
            (_, Some(1)) => false,
            _ => true,
        };
        pairs.into_iter().all(fits).then_some(()).ok_or(wide)
    }
}
