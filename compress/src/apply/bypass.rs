//! Residual blocks left out.

use std::collections::HashMap;

use secateur_engine::ir::{Model, Node, ValueId};
use secateur_engine::opt::{self, PASSES, Scope};

use crate::blocks::alike;
use crate::change::Bypass;
use crate::error::{ApplyError, ApplyErrorKind};

/// Makes a sum of `model` one of its inputs, and drops what nothing needs any more.
pub(super) fn bypass(change: &Bypass, model: &mut Model) -> Result<(), ApplyError> {
    let any = opt::infer::infer(model, &HashMap::new()).unwrap_or_default();
    let none = || ApplyError::new(ApplyErrorKind::NoBlock, &change.sum);
    let g = &mut model.graph;
    let links = g.links();
    let sum = g.find(&change.sum).ok_or_else(none)?;
    let (id, _) = links.producer(sum).ok_or_else(none)?;
    let inputs: &[Option<ValueId>] = &g[id].inputs;
    let two = inputs.len() == 2 && (g[id].is("Add") || g[id].is("Sum"));
    let stays = inputs
        .get(change.stays)
        .copied()
        .flatten()
        .filter(|_| two)
        .ok_or_else(none)?;
    if !alike(&any, stays, sum) {
        let what = "what stays has not the shape of the sum for inputs of all sizes".to_owned();
        return Err(ApplyError::new(ApplyErrorKind::Mismatch(what), &change.sum));
    }
    if links.kept(sum) {
        g[id] = Node {
            name: g[id].name.clone(),
            ..Node::new("Identity", vec![Some(stays)], vec![Some(sum)])
        };
    } else {
        for &n in links.readers(sum) {
            let readers = g[n].inputs.iter_mut().flatten();
            readers.filter(|v| **v == sum).for_each(|v| *v = stays);
        }
    }
    let dead: Vec<_> = PASSES.iter().copied().filter(|p| p.name() == "dead").collect();
    let swept = opt::apply(model, Scope::Portable, &dead);
    swept.map_err(|e| ApplyError::new(ApplyErrorKind::Shape(e.to_string()), &change.sum))?;
    Ok(())
}
