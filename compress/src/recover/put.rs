//! Constants that get other elements.

use secateur_engine::Tensor;
use secateur_engine::ir::{Graph, Links, Model, ValueId};

use crate::place::{At, Scope, Site, held, places};
use crate::{Change, Plan, Raw, Replace, apply};

/// Where the constant `v` of the main graph is held: an initialiser, or the tensor of a node `Constant`.
pub(super) fn site(graph: &Graph, v: ValueId) -> Option<Site> {
    let at = match graph.konst(v) {
        Some(_) => At::Initializer(v),
        None => {
            let mut makers = graph.iter().filter(|(_, n)| n.outputs.first() == Some(&Some(v)));
            let (id, _) = makers.next()?;
            At::Attr(id, held(graph, id)?.0)
        }
    };
    let scope = Scope::default();
    Some(Site { scope, at })
}

/// The elements of the constant `v` of the main graph, if only one input reads it.
pub(crate) fn own(model: &Model, links: &Links, v: ValueId) -> Option<Tensor> {
    let alone = links.readers(v).len() == 1 && !links.kept(v);
    let site = site(&model.graph, v).filter(|_| alone)?;
    Some((*site.constant(model)?.tensor).clone())
}

/// Gives the constant `v` of the main graph these elements, in its own type. Whether it is one of as many.
pub(super) fn put(model: &mut Model, v: ValueId, elements: &[f64]) -> bool {
    let change = replacement(model, v, elements);
    change.is_some_and(|change| apply(&Plan(vec![change]), model).is_ok())
}

fn replacement(model: &Model, v: ValueId, elements: &[f64]) -> Option<Change> {
    let site = site(&model.graph, v)?;
    let place = places(model).into_iter().find(|p| p.site == site)?;
    let old = &place.site.constant(model)?.tensor;
    let fits = Some(old).filter(|t| t.len() == elements.len());
    let new = fits.and_then(|t| Tensor::rounded(t.dtype(), t.dims(), elements))?;
    Some(Change::Replace(Replace {
        value: place.name,
        elements: new.len() as u64,
        data: Raw(new.bytes().to_vec()),
    }))
}
