//! What lies between the product with values and that of queries and keys.

use super::input;
use crate::ir::{Dim, Node, ValueId};
use crate::opt::rules::read::{int, one};
use crate::opt::{Site, Why};

/// What limits which keys a query sees.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mask {
    /// Added to the scores.
    Added(ValueId),
    /// `fill` takes the place of scores where the condition is as the flag says.
    Filled(ValueId, bool, f64),
    /// Added to the scores of each window of an image: `[1, windows, 1, queries, keys]`, where sequences are the windows of
    /// one image after the other.
    Windows(ValueId),
}

impl Mask {
    pub(super) fn value(&self) -> ValueId {
        match *self {
            Mask::Added(v) | Mask::Filled(v, ..) | Mask::Windows(v) => v,
        }
    }
}

/// What was found on the way.
pub(super) struct Scores {
    pub(super) masks: Vec<Mask>,
    pub(super) scale: f64,
    pub(super) softcap: f64,
    pub(super) queries: ValueId,
    /// Keys with their last two axes swapped.
    pub(super) swapped: ValueId,
}

impl Scores {
    /// Refuses a mask that goes through what was found before.
    fn unscaled(&self) -> Result<(), Why> {
        match self.scale == 1.0 && self.softcap == 0.0 {
            true => Ok(()),
            false => Err(Why::No("the mask is scaled or capped with the scores")),
        }
    }
}

/// Nodes between the softmax and the product of queries and keys.
const DEPTH: usize = 12;

/// What goes into the softmax that makes `shares`.
pub(super) fn below_softmax(site: &Site, mut shares: ValueId) -> Result<ValueId, Why> {
    // PyTorch puts zeros in rows without a number; the softmax of half floats is often one of floats.
    for _ in 0..3 {
        let Some(node) = site.made(shares) else { break };
        let inner = match &*node.op {
            "Cast" => input(node, 0).filter(|&v| floats(site, [v, shares])),
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

/// Whether both are of float types.
fn floats(site: &Site, all: [ValueId; 2]) -> bool {
    all.iter().all(|&v| site.dtype(v).is_some_and(|d| d.is_float()))
}

/// What lies between the softmax of `v` and the product of queries and keys.
///
/// # Errors
///
/// If there is no such product, or what is between is no part of attention.
pub(super) fn peel(site: &Site, mut v: ValueId) -> Result<Scores, Why> {
    let mut seen = Scores {
        masks: vec![],
        scale: 1.0,
        softcap: 0.0,
        queries: v,
        swapped: v,
    };
    for _ in 0..DEPTH {
        let node = site.made(v).ok_or(Why::NoEffect)?;
        let a = input(node, 0).ok_or(Why::NoEffect)?;
        v = match (&*node.op, input(node, 1)) {
            ("MatMul", Some(b)) => {
                return Ok(Scores {
                    queries: a,
                    swapped: b,
                    ..seen
                });
            }
            ("Add", Some(b)) => sum(site, [a, b], &mut seen)?,
            ("Where", Some(_)) => filled(site, node, &mut seen)?,
            ("Tanh", None) => {
                return Err(Why::No(
                    "scores pass through a hyperbolic tangent without its factor",
                ));
            }
            ("Mul" | "Div", Some(b)) => factor(site, v, [a, b], &mut seen)?,
            ("Identity", None) => a,
            ("Reshape", _) if leads(site, a) => {
                let found = windows(site, v).filter(|_| seen.unscaled().is_ok());
                let (inner, mask) = found.ok_or(Why::No("the scores are reshaped before the softmax"))?;
                seen.masks.push(Mask::Windows(mask));
                inner
            }
            ("Cast", None) if leads(site, a) && floats(site, [a, v]) => a,
            _ => return Err(Why::NoEffect),
        };
    }
    Err(Why::NoEffect)
}

fn leads(site: &Site, v: ValueId) -> bool {
    leads_to_product(site, v, DEPTH)
}

/// The scores in a sum with a mask.
fn sum(site: &Site, [a, b]: [ValueId; 2], seen: &mut Scores) -> Result<ValueId, Why> {
    let (inner, mask) = match (leads(site, a), leads(site, b)) {
        (true, false) => (a, b),
        (false, true) => (b, a),
        (true, true) => return Err(Why::No("a sum of two products of matrices goes into the softmax")),
        (false, false) => return Err(Why::NoEffect),
    };
    seen.unscaled()?;
    seen.masks.push(Mask::Added(mask));
    Ok(inner)
}

/// The scores that `node`, a `Where`, lets through.
fn filled(site: &Site, node: &Node, seen: &mut Scores) -> Result<ValueId, Why> {
    let [condition, a, b] = [0, 1, 2].map(|i| input(node, i).ok_or(Why::NoEffect));
    let (condition, a, b) = (condition?, a?, b?);
    seen.unscaled()?;
    let (inner, fill, when) = match (site.number(a), site.number(b)) {
        (Some(fill), None) => (b, fill, true),
        (None, Some(fill)) => (a, fill, false),
        _ => return Err(Why::No("masked scores do not get one constant")),
    };
    seen.masks.push(Mask::Filled(condition, when, fill));
    Ok(inner)
}

/// The scores in `v`, which multiplies or divides `a` and `b`, perhaps around a soft cap.
fn factor(site: &Site, v: ValueId, [a, b]: [ValueId; 2], seen: &mut Scores) -> Result<ValueId, Why> {
    let inner = if leads(site, a) { a } else { b };
    let (bare, factor) = site.scaled(v);
    if bare == v {
        return Err(match leads(site, inner) {
            true => Why::No("the scale is not a constant"),
            false => Why::NoEffect,
        });
    }
    let capped = site.call(bare, "Tanh").and_then(|n| input(n, 0));
    match capped.filter(|_| seen.unscaled().is_ok() && factor > 0.0) {
        Some(x) => {
            let (x, inside) = site.scaled(x);
            (seen.softcap, seen.scale) = (factor, inside * factor);
            Ok(x)
        }
        None => {
            seen.scale *= factor;
            Ok(bare)
        }
    }
}

/// Scores, and the mask of each window, where `v` is `Reshape(Reshape(scores) + mask)` and the inner reshape tells windows
/// from images.
fn windows(site: &Site, v: ValueId) -> Option<(ValueId, ValueId)> {
    let sum = site.call(input(site.made(v)?, 0)?, "Add")?;
    let (a, b) = (input(sum, 0)?, input(sum, 1)?);
    let apart = |v: ValueId| input(site.call(v, "Reshape")?, 0).filter(|&x| leads(site, x));
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
