//! What the parts of a model cost.

use std::collections::HashMap;
use std::sync::Arc;

use secateur_engine::ir::{DType, Type};
use secateur_engine::opt::infer::infer;
use secateur_engine::plan::{Rates, macs};
use secateur_engine::{Model, Session};

use super::Quantity;
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
    /// By name of a weight the cost of what it is multiplied in.
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

fn megabytes(model: &Model) -> Costs {
    let live = |w: &Weight| w.tensor.len() - w.tensor.zeros_count();
    let bytes = |w: &Weight| live(w) as f64 * w.tensor.dtype().bits() as f64 / 8e6;
    let of: HashMap<_, _> = weights(model)
        .iter()
        .map(|w| (w.name.clone(), bytes(w)))
        .collect();
    let whole = total(&of);
    Costs { of, whole }
}

/// The sum, in an order that does not change from run to run.
fn total(costs: &HashMap<String, f64>) -> f64 {
    let mut all: Vec<f64> = costs.values().copied().collect();
    all.sort_by(f64::total_cmp);
    all.into_iter().sum()
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
    let shares = shares(&all);
    for w in all.iter().filter(|w| multiplied(w)) {
        let of = |n: &String| Some(by_node.get(n)? * w.elements() as f64 / *shares.get(n)? as f64);
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

/// Whether elements of `w` are what is multiplied in the nodes that read it; biases are not.
fn multiplied(w: &Weight) -> bool {
    !matches!(
        w.exempt,
        Some(Exempt::Vector | Exempt::Unread | Exempt::Reader(_))
    )
}

/// By node the elements of all weights that it multiplies by.
fn shares(weights: &[Weight]) -> HashMap<&String, u64> {
    let mut shares = HashMap::new();
    for w in weights.iter().filter(|w| multiplied(w)) {
        w.nodes
            .iter()
            .for_each(|n| *shares.entry(n).or_default() += w.elements());
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
