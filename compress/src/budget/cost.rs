//! What the parts of a model cost.

use std::collections::HashMap;
use std::sync::Arc;

use secateur_engine::ir::{Constant, DType, Form, Type};
use secateur_engine::onnx::sparsify;
use secateur_engine::opt::infer::infer;
use secateur_engine::plan::{Rates, macs};
use secateur_engine::{Model, Session};

use super::Quantity;
use crate::place::{Place, places};
use crate::recover::RecoverError;
use crate::{Exempt, Weight, weights};

/// The sizes by which costs are told.
#[derive(Clone, Debug)]
pub struct Sizes<'a> {
    /// The shapes of the inputs, in their order.
    pub shapes: Vec<Vec<usize>>,
    /// Threads that run.
    pub threads: usize,
    /// What kernels take.
    pub rates: &'a Arc<Rates>,
}

/// What a run of a model is predicted to cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Costs {
    /// By name of a weight the cost of what it is multiplied in; of megabytes, by name of any constant, what it takes.
    pub of: HashMap<String, f64>,
    /// That of all.
    pub whole: f64,
}

impl Costs {
    /// What a run of `model` costs.
    ///
    /// # Errors
    ///
    /// If it does not run with inputs of these shapes.
    pub fn new(model: &Model, quantity: Quantity, sizes: &Sizes) -> Result<Costs, RecoverError> {
        match quantity {
            Quantity::Mb => Ok(megabytes(model)),
            Quantity::Ms | Quantity::Macs => by_nodes(model, quantity, sizes),
        }
    }
}

/// All constants as a file holds them in which those are sparse that are smaller so.
fn megabytes(model: &Model) -> Costs {
    let mut model = model.clone();
    sparsify(&mut model);
    let size = |p: Place| Some((p.name, held(p.site.constant(&model)?) / 1e6));
    let of = places(&model).into_iter().filter_map(size).collect();
    let whole = total(&of);
    Costs { of, whole }
}

/// The sum, in an order that does not change from run to run.
fn total(costs: &HashMap<String, f64>) -> f64 {
    let mut all: Vec<f64> = costs.values().copied().collect();
    all.sort_by(f64::total_cmp);
    all.into_iter().sum()
}

/// Bytes of an index in a sparse initialiser.
const INDEX: f64 = 8.0;

/// The bytes of the elements of `constant` in its file.
fn held(constant: &Constant) -> f64 {
    let t = &constant.tensor;
    let texts: usize = t.strings().iter().map(Vec::len).sum();
    match constant.form {
        Form::Sparse { .. } => (t.len() - t.zeros_count()) as f64 * (t.dtype().bits() as f64 / 8.0 + INDEX),
        _ => (t.bytes().len() + texts) as f64,
    }
}

/// By the nodes of `model`.
fn by_nodes(model: &Model, quantity: Quantity, sizes: &Sizes) -> Result<Costs, RecoverError> {
    let model = named(model);
    let by_node = match quantity {
        Quantity::Macs => multiplications(&model, sizes)?,
        _ => milliseconds(&model, sizes)?,
    };
    let mut costs = Costs {
        of: HashMap::new(),
        whole: total(&by_node),
    };
    let all = weights(&model);
    let owners = owners(&model, &by_node);
    let shares = shares(&all, &owners);
    for w in all.iter().filter(|w| multiplied(w)) {
        let of = |n: &String| {
            let owner = owners.get(n)?;
            Some(by_node.get(owner)? * w.elements() as f64 / *shares.get(owner)? as f64)
        };
        let all: f64 = w.nodes.iter().filter_map(of).sum();
        let zeros = match quantity {
            // Kernels that leave zeros out are predicted so.
            Quantity::Ms => 0.0,
            _ => w.tensor.zeros_count() as f64 / w.tensor.len() as f64,
        };
        costs.whole -= zeros * all;
        costs.of.insert(w.name.clone(), (1.0 - zeros) * all);
    }
    Ok(costs)
}

/// Of each node the one that the cost of its work is told for: itself, or, where it was made part of another, the next behind it that has a
/// cost.
fn owners(model: &Model, costs: &HashMap<String, f64>) -> HashMap<String, String> {
    let graph = &model.graph;
    let nodes: Vec<_> = graph.iter().map(|(_, n)| n).collect();
    let mut readers: HashMap<_, Vec<usize>> = HashMap::new();
    for (i, node) in nodes.iter().enumerate() {
        let inputs = node.inputs.iter().flatten();
        inputs.for_each(|v| readers.entry(*v).or_default().push(i));
    }
    let mut owner: Vec<Option<usize>> = vec![None; nodes.len()];
    // Readers come behind what they read.
    for i in (0..nodes.len()).rev() {
        let outputs = nodes[i].outputs.iter().flatten();
        let behind = outputs.filter_map(|v| readers.get(v)).flatten();
        let behind: Vec<usize> = behind.filter_map(|r| owner[*r]).collect();
        owner[i] = match costs.contains_key(nodes[i].label()) {
            true => Some(i),
            false => behind.into_iter().min(),
        };
    }
    let each = nodes.iter().zip(owner);
    each.filter_map(|(n, o)| Some((n.label().to_owned(), nodes[o?].label().to_owned())))
        .collect()
}

/// Whether elements of `w` are what is multiplied in the nodes that read it; biases are not.
fn multiplied(w: &Weight) -> bool {
    !matches!(
        w.exempt,
        Some(Exempt::Vector | Exempt::Unread | Exempt::Reader(_))
    )
}

/// By owner the elements of all weights that it multiplies by.
fn shares<'o>(weights: &[Weight], owners: &'o HashMap<String, String>) -> HashMap<&'o String, u64> {
    let mut shares = HashMap::new();
    for w in weights.iter().filter(|w| multiplied(w)) {
        let owning = w.nodes.iter().filter_map(|n| owners.get(n));
        owning.for_each(|n| *shares.entry(n).or_default() += w.elements());
    }
    shares
}

fn milliseconds(model: &Model, sizes: &Sizes) -> Result<HashMap<String, f64>, RecoverError> {
    let builder = Session::builder(model).threads(sizes.threads);
    let session = builder.rates(sizes.rates.clone()).build()?;
    let mut all = HashMap::new();
    for step in session.plan(&sizes.shapes)?.steps() {
        *all.entry(step.node.clone()).or_default() += step.ms;
    }
    Ok(all)
}

/// In millions.
fn multiplications(model: &Model, sizes: &Sizes) -> Result<HashMap<String, f64>, RecoverError> {
    let graph = &model.graph;
    let fed = graph.inputs.iter().filter(|p| graph.konst(p.value).is_none());
    let typed = fed.zip(&sizes.shapes).map(|(p, dims)| {
        let dtype = graph[p.value]
            .ty
            .as_ref()
            .and_then(Type::dtype)
            .unwrap_or(DType::F32);
        (p.value, Type::tensor(dtype, dims.iter().copied()))
    });
    let facts = infer(model, &typed.collect()).map_err(|e| RecoverError::wrong(e.to_string()))?;
    let count = |id| macs(model, &facts, id).size().unwrap_or(0) as f64 / 1e6;
    Ok(graph
        .iter()
        .map(|(id, n)| (n.label().to_owned(), count(id)))
        .collect())
}

/// `model` with nodes that differ in name.
fn named(model: &Model) -> Model {
    let mut model = model.clone();
    for (i, id) in model.graph.order.clone().into_iter().enumerate() {
        model.graph[id].name = Some(format!("{i}").into());
    }
    model
}

#[cfg(test)]
mod tests;
