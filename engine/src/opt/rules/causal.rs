//! Masks by which a query sees the keys up to its own place.

use super::read::{input, int};
use crate::ir::{DType, Dim, Node, Tensor, ValueId};
use crate::opt::Site;

/// What is added to scores of which nothing is to be left: beside any other score, the exponential is zero.
pub(super) const FAR: f64 = -1e8;

/// Whether the mask `v` has a row for each query and a column for each key of scores of shape `size`.
pub(super) fn square(site: &Site, v: ValueId, size: &[Dim]) -> bool {
    let Some(shape) = site.shape(v) else { return false };
    let ends = shape.iter().rev().zip(size.iter().rev()).take(2);
    let outer = shape.len().saturating_sub(2);
    shape.len() >= 2
        && ends.into_iter().all(|(a, b)| a.same(b))
        && shape[..outer].iter().all(super::read::one)
}

/// Whether `v` adds nothing to keys up to the query's own place, and takes all weight from those behind.
pub(super) fn added_to_later(site: &Site, v: ValueId) -> bool {
    if let Some(t) = site.facts.konst(v) {
        return t.dtype().is_float() && triangle(t, |x| x == 0.0, |x| x <= FAR) == Some(true);
    }
    let Some(node) = site.made(v) else { return false };
    let numbers = (1..3).map(|i| input(node, i).and_then(|v| site.number(v)));
    match (&*node.op, &numbers.collect::<Vec<_>>()[..]) {
        ("Where", &[Some(a), Some(b)]) => match input(node, 0).and_then(|c| lower(site, c)) {
            Some(true) => a == 0.0 && b <= FAR,
            Some(false) => a <= FAR && b == 0.0,
            None => false,
        },
        ("Unsqueeze" | "Identity", _) => input(node, 0).is_some_and(|x| added_to_later(site, x)),
        // The upper triangle above the diagonal of what is far everywhere.
        ("Trilu", _) => {
            let far = input(node, 0)
                .and_then(|x| filled(site, x))
                .is_some_and(|x| x <= FAR);
            far && int(node, "upper", 1) != 0 && diagonal(site, node) == Some(1)
        }
        _ => false,
    }
}

/// Whether `v` is true, or not zero, just for the keys up to the query's own place; or just for those behind.
pub(super) fn lower(site: &Site, v: ValueId) -> Option<bool> {
    if let Some(t) = site.facts.konst(v) {
        return triangle(t, |x| x != 0.0, |x| x == 0.0);
    }
    let node = site.made(v)?;
    let x = input(node, 0)?;
    match &*node.op {
        "Cast" | "Unsqueeze" | "Identity" => lower(site, x),
        "Not" => lower(site, x).map(|b| !b),
        "Equal" => {
            let (a, b) = (x, input(node, 1)?);
            let other = if site.number(b) == Some(0.0) { a } else { b };
            (site.number(a) == Some(0.0) || site.number(b) == Some(0.0)).then_some(())?;
            lower(site, other).map(|b| !b)
        }
        "Trilu" => {
            filled(site, x).filter(|&x| x != 0.0)?;
            match (int(node, "upper", 1) != 0, diagonal(site, node)?) {
                (false, 0) => Some(true),
                (true, 1) => Some(false),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The diagonal at which `node`, a `Trilu`, cuts.
fn diagonal(site: &Site, node: &Node) -> Option<i64> {
    match input(node, 1) {
        None => Some(0),
        Some(k) => site.facts.konst(k)?.ints()?.first().copied(),
    }
}

/// The number that all elements of `v` are.
fn filled(site: &Site, v: ValueId) -> Option<f64> {
    if let Some(t) = site.facts.konst(v) {
        let all = numbers(t)?;
        return all.first().copied().filter(|x| all.iter().all(|y| y == x));
    }
    let node = site.made(v)?;
    match &*node.op {
        "Expand" | "Identity" | "Cast" => filled(site, input(node, 0)?),
        "ConstantOfShape" => match node.attr("value") {
            Some(crate::ir::AttrValue::Tensor(c)) => numbers(&c.tensor)?.first().copied(),
            _ => Some(0.0),
        },
        _ => None,
    }
}

fn numbers(t: &Tensor) -> Option<Vec<f64>> {
    match t.dtype() {
        DType::Bool => Some(t.truths()?.into_iter().map(|b| f64::from(u8::from(b))).collect()),
        d if d.is_float() => t.floats(),
        _ => Some(t.ints()?.into_iter().map(|i| i as f64).collect()),
    }
}

/// Whether the elements of a matrix up to the diagonal are `near` and those behind it `far`, or the other way round.
fn triangle(t: &Tensor, near: impl Fn(f64) -> bool, far: impl Fn(f64) -> bool) -> Option<bool> {
    let dims = t.dims();
    let outer = dims.len().checked_sub(2)?;
    let (rows, columns) = (dims[outer], dims[outer + 1]);
    // One row or column does not tell a triangle from other masks, but is one all the same.
    if dims[..outer].iter().any(|&d| d != 1) || rows * columns < 2 {
        return None;
    }
    let all = elements(t)?;
    let is = |swap: bool| {
        let at = |i: usize| match (i % columns <= i / columns) != swap {
            true => near(all(i)),
            false => far(all(i)),
        };
        (0..rows * columns).all(at)
    };
    match (is(false), is(true)) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// The elements as numbers, without a copy of all of them where that can be: masks of long sequences are large.
fn elements(t: &Tensor) -> Option<Box<dyn Fn(usize) -> f64 + '_>> {
    Some(match t.dtype() {
        DType::Bool => {
            let all = t.bytes();
            Box::new(move |i| f64::from(u8::from(all[i] != 0)))
        }
        DType::F32 => {
            let all = t.elements::<f32>()?;
            Box::new(move |i| all[i].into())
        }
        _ => {
            let all = numbers(t)?;
            Box::new(move |i| all[i])
        }
    })
}

/// Whether each row of the mask `t` has an element that is true, or not zero, if `when`; else one that is not.
pub(super) fn every_row(t: &Tensor, when: bool) -> bool {
    let columns = t.dims().last().copied().unwrap_or(0);
    let Some(all) = elements(t).filter(|_| columns > 0) else {
        return false;
    };
    let rows = 0..t.dims().iter().product::<usize>() / columns;
    let mut rows = rows.map(|r| r * columns..(r + 1) * columns);
    rows.all(|mut row| row.any(|i| (all(i) != 0.0) == when))
}
