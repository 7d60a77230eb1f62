//! Groups of axes cut: smaller tensors, and sizes that nodes spell out.

use std::collections::HashMap;
use std::rc::Rc;

use secateur_engine::Tensor;
use secateur_engine::ir::{Bytes, Data, Dim, Model, Type, ValueId};
use secateur_engine::opt::Facts;

use super::spell::Speller;
use crate::change::Narrow;
use crate::error::{ApplyError, ApplyErrorKind};
use crate::groups::{Groups, Letter, groups};

/// How wide a group was and is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Width {
    /// The group; see [`Group::name`](crate::groups::Group::name).
    pub group: String,
    /// The number of indices it had.
    pub before: usize,
    /// The number it has.
    pub after: usize,
}

/// Which indices of each letter stay.
pub(crate) type Keeps = HashMap<Letter, Rc<[bool]>>;

/// Cuts `model` as `change` says, and checks that its shapes are the expected ones.
pub(super) fn narrow(change: &Narrow, model: &mut Model) -> Result<Vec<Width>, ApplyError> {
    let name = change.groups.first().map_or("", |k| &k.group);
    let shape = |e: String| ApplyError::new(ApplyErrorKind::Shape(e), name);
    let (new, widths) = {
        let found = groups(model, &change.sizes).map_err(|e| shape(e.to_string()))?;
        let (keeps, widths) = keeps(change, &found)?;
        let new = cut(&found, &keeps).map_err(shape)?;
        (new, widths)
    };
    *model = new;
    Ok(widths)
}

fn keeps(change: &Narrow, found: &Groups) -> Result<(Keeps, Vec<Width>), ApplyError> {
    let by_name: HashMap<&str, _> = found.groups.iter().map(|g| (&*g.name, g)).collect();
    let (mut keeps, mut widths) = (Keeps::new(), vec![]);
    for k in &change.groups {
        let group = by_name
            .get(&*k.group)
            .ok_or_else(|| ApplyError::new(ApplyErrorKind::NoGroup, &k.group))?;
        let ascending = k.keep.is_sorted_by(|a, b| a < b);
        let inside = k.keep.last().is_some_and(|&i| i < group.size);
        if k.size != group.size || !ascending || !inside {
            let what = format!(
                "the group has {} indices; does not fit the change: {k}",
                group.size
            );
            return Err(ApplyError::new(ApplyErrorKind::Mismatch(what), &k.group));
        }
        let mut mask = vec![false; group.size];
        k.keep.iter().for_each(|&i| mask[i] = true);
        keeps.insert(group.letter, mask.into());
        widths.push(Width {
            group: group.name.clone(),
            before: group.size,
            after: k.keep.len(),
        });
    }
    Ok((keeps, widths))
}

/// The model of `found` with only the indices in `keeps`.
fn cut(found: &Groups, keeps: &Keeps) -> Result<Model, String> {
    let mut model = found.trace.model.clone();
    let mask = |l: Letter| keeps.get(&l).cloned();
    for h in &found.held {
        let axes = found.axes(h).iter();
        let masks: Vec<Vec<bool>> = axes.map(|s| found.trace.spaces.mask(s, &mask)).collect();
        if masks.iter().flatten().all(|k| *k) {
            continue;
        }
        let c = h
            .site
            .constant_mut(&mut model)
            .ok_or_else(|| format!("no constant {:?}", h.name))?;
        let less = taken(&c.tensor, &masks).ok_or_else(|| format!("{:?} cannot be cut", h.name))?;
        *c = c.with(less);
    }
    let width = |l: Letter| keeps.get(&l).map(|k| kept(k));
    let facts = Speller::new(&mut model, &found.trace, &width).all(&found.inputs)?;
    check(&facts, found, keeps)?;
    declare(&mut model, found, keeps);
    Ok(model)
}

/// `model` with everything zero that [`apply`](crate::apply()) would remove for `change`: as large as before, and computing what the
/// smaller one computes. What only scales down, divisors and variances, stays.
///
/// # Errors
///
/// If the change was made for another model.
pub fn forced(change: &Narrow, model: &Model) -> Result<Model, ApplyError> {
    Ok(forced_with(change, model)?.0)
}

/// By the name of a constant which indices of each of its axes stay.
pub(crate) type Stays = HashMap<String, Vec<Vec<bool>>>;

/// The same as [`forced`], with what stays of those constants that are cut.
///
/// # Errors
///
/// As [`forced`].
pub(crate) fn forced_with(change: &Narrow, model: &Model) -> Result<(Model, Stays), ApplyError> {
    let name = change.groups.first().map_or("", |k| &k.group);
    let found = groups(model, &change.sizes)
        .map_err(|e| ApplyError::new(ApplyErrorKind::Shape(e.to_string()), name))?;
    let (keeps, _) = keeps(change, &found)?;
    let mask = |l: Letter| keeps.get(&l).cloned();
    let divisors = divisors(model);
    let (mut new, mut stays) = (model.clone(), Stays::new());
    for h in &found.held {
        let axes = found.axes(h).iter();
        let masks: Vec<Vec<bool>> = axes.map(|s| found.trace.spaces.mask(s, &mask)).collect();
        if masks.iter().flatten().all(|k| *k) {
            continue;
        }
        let cut = h.site.constant_mut(&mut new);
        if let Some(c) = cut.filter(|_| !divisors.contains(&h.value)) {
            *c = c.with(zeroed(&c.tensor, &masks).unwrap_or_else(|| Tensor::clone(&c.tensor)));
        }
        stays.insert(h.name.clone(), masks);
    }
    Ok((new, stays))
}

/// Constants that something is divided by.
fn divisors(model: &Model) -> Vec<ValueId> {
    let divisor = |n: &secateur_engine::ir::Node| match &*n.op {
        "Div" => n.inputs.get(1).copied().flatten(),
        "BatchNormalization" => n.inputs.get(4).copied().flatten(),
        _ => None,
    };
    model.graph.iter().filter_map(|(_, n)| divisor(n)).collect()
}

/// `t` with zeros where an index is not kept along some axis, if it is of floats.
fn zeroed(t: &Tensor, masks: &[Vec<bool>]) -> Option<Tensor> {
    let all = masks.iter().fold(vec![true], |outer, m| {
        let row = |o: &bool| m.iter().map(|k| *o && *k).collect::<Vec<_>>();
        outer.iter().flat_map(row).collect()
    });
    let floats = t.floats().filter(|_| t.dtype().is_float())?;
    let x: Vec<f64> = floats
        .iter()
        .zip(&all)
        .map(|(x, k)| if *k { *x } else { 0.0 })
        .collect();
    Tensor::rounded(t.dtype(), t.dims(), &x)
}

fn kept(mask: &[bool]) -> usize {
    mask.iter().filter(|k| **k).count()
}

/// The elements of `t` whose indices are kept along every axis.
fn taken(t: &Tensor, masks: &[Vec<bool>]) -> Option<Tensor> {
    let size = t.dtype().bits() / 8;
    let mut dims = t.dims().to_vec();
    let mut bytes = t.bytes().to_vec();
    for (axis, mask) in masks.iter().enumerate().filter(|(_, m)| m.iter().any(|k| !k)) {
        let row = dims[axis + 1..].iter().product::<usize>() * size;
        let rows = bytes.chunks(row.max(1)).zip(mask.iter().cycle());
        bytes = rows
            .filter(|(_, k)| **k)
            .flat_map(|(r, _)| r.iter().copied())
            .collect();
        dims[axis] = kept(mask);
    }
    Tensor::new(t.dtype(), dims, Data::Bytes(Bytes::new(bytes))).ok()
}

/// The shape of `v` after the cut, where it is known.
fn dims(found: &Groups, keeps: &Keeps, v: ValueId) -> Option<Vec<usize>> {
    let width = |l: Letter| keeps.get(&l).map(|k| kept(k));
    let axes = found.trace.of.get(&v)?;
    Some(axes.iter().map(|s| found.trace.spaces.kept(s, &width)).collect())
}

/// Brings declared shapes of values up to date, and those of constants that are listed among the inputs.
fn declare(model: &mut Model, found: &Groups, keeps: &Keeps) {
    let g = &mut model.graph;
    let constants: Vec<bool> = g.inputs.iter().map(|p| g[p.value].konst.is_some()).collect();
    let listed = g.inputs.iter_mut().zip(constants).filter(|(_, c)| *c);
    for port in g.infos.iter_mut().chain(listed.map(|(p, _)| p)) {
        let (Some(new), Some(old)) = (
            dims(found, keeps, port.value),
            found.trace.facts.of(port.value).ty.dims(),
        ) else {
            continue;
        };
        let Some(declared) = port.ty.as_mut().filter(|_| old != new) else {
            continue;
        };
        if let Type::Tensor {
            shape: Some(shape), ..
        } = &mut declared.ty
        {
            for (d, (old, new)) in shape.iter_mut().zip(old.iter().zip(&new)) {
                if old != new {
                    *d = Dim::from(*new);
                }
            }
            declared.proto = None;
        }
    }
}

/// Whether all shapes are those that were to be expected.
fn check(facts: &Facts, found: &Groups, keeps: &Keeps) -> Result<(), String> {
    let g = &found.trace.model.graph;
    for (_, node) in g.iter() {
        for &v in node.outputs.iter().flatten() {
            let (Some(expected), Some(is)) = (dims(found, keeps, v), facts.of(v).ty.dims()) else {
                continue;
            };
            if expected != is {
                let name = &g[v].name;
                return Err(format!(
                    "node {:?} ({}): expected {name:?} to be {expected:?} after the cut, found {is:?}",
                    node.label(),
                    node.op
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_taken_along_every_axis() {
        let t = Tensor::of(&[2, 3, 2], (0..12).collect::<Vec<i32>>());
        let masks = [vec![false, true], vec![true, false, true], vec![true, true]];
        let less = taken(&t, &masks).unwrap();
        assert_eq!(less.dims(), [1, 2, 2]);
        assert_eq!(less.ints().unwrap(), [6, 7, 10, 11]);
    }
}
