//! Residual blocks and layers left out.

use std::collections::HashMap;

use secateur_engine::ir::{Model, Node, NodeId, ValueId};
use secateur_engine::opt::{self, PASSES, Scope};

use crate::blocks::alike;
use crate::change::{Bypass, Skip};
use crate::error::{ApplyError, ApplyErrorKind};

/// Makes a sum of `model` one of its inputs, and drops what nothing needs any more.
pub(super) fn bypass(change: &Bypass, model: &mut Model) -> Result<(), ApplyError> {
    let none = || ApplyError::new(ApplyErrorKind::NoBlock, &change.sum);
    let g = &model.graph;
    let sum = g.find(&change.sum).ok_or_else(none)?;
    let (id, _) = g.links().producer(sum).ok_or_else(none)?;
    let inputs: &[Option<ValueId>] = &g[id].inputs;
    let two = inputs.len() == 2 && (g[id].is("Add") || g[id].is("Sum"));
    let stays = inputs.get(change.stays).copied().flatten();
    let stays = stays.filter(|_| two).ok_or_else(none)?;
    replace(model, sum, stays)
}

/// Lets what goes into layers of `model` take the place of what comes out, and drops what nothing needs any more. The last layer goes
/// first: what goes into it may be what comes out of another that goes.
pub(super) fn skip(mut changes: Vec<&Skip>, model: &mut Model) -> Result<(), ApplyError> {
    if let Some(change) = changes.iter().find(|c| made(model, &c.value).is_none()) {
        return Err(ApplyError::new(ApplyErrorKind::NoLayer, &change.value));
    }
    changes.sort_by_key(|s| {
        let at = made(model, &s.value).and_then(|n| model.graph.order.iter().position(|o| *o == n));
        std::cmp::Reverse(at)
    });
    for change in changes {
        let find = |name: &String| {
            let found = model.graph.find(name);
            found.ok_or_else(|| ApplyError::new(ApplyErrorKind::NoLayer, name))
        };
        // What only a layer needed that went before, such as the encoder of a decoder, went with it.
        if made(model, &change.value).is_some() {
            let (value, stays) = (find(&change.value)?, find(&change.stays)?);
            replace(model, value, stays)?;
        }
    }
    Ok(())
}

/// What makes the value `name`.
fn made(model: &Model, name: &str) -> Option<NodeId> {
    let graph = &model.graph;
    let found = graph.links().producer(graph.find(name)?)?;
    Some(found.0)
}

/// Lets `stays`, which is made before it, take the place of `gone`, and drops what nothing needs any more.
fn replace(model: &mut Model, gone: ValueId, stays: ValueId) -> Result<(), ApplyError> {
    let any = opt::infer::infer(model, &HashMap::new()).unwrap_or_default();
    let g = &mut model.graph;
    let (links, name) = (g.links(), g[gone].name.to_string());
    if !alike(&any, stays, gone) {
        let what = "what stays has not the shape of what goes, for inputs of all sizes".to_owned();
        return Err(ApplyError::new(ApplyErrorKind::Mismatch(what), &name));
    }
    if links.kept(gone) {
        let sole = links.producer(gone).filter(|(n, _)| g[*n].outputs.len() == 1);
        let (id, _) = sole.ok_or_else(|| ApplyError::new(ApplyErrorKind::NoLayer, &name))?;
        g[id] = Node {
            name: g[id].name.clone(),
            ..Node::new("Identity", vec![Some(stays)], vec![Some(gone)])
        };
    } else {
        for &n in links.readers(gone) {
            let readers = g[n].inputs.iter_mut().flatten();
            readers.filter(|v| **v == gone).for_each(|v| *v = stays);
        }
    }
    let dead: Vec<_> = PASSES.iter().copied().filter(|p| p.name() == "dead").collect();
    let swept = opt::apply(model, Scope::Portable, &dead);
    swept.map_err(|e| ApplyError::new(ApplyErrorKind::Shape(e.to_string()), &name))?;
    Ok(())
}
