//! Which values of a model are trained, and how differently.

use secateur_engine::glob::matches;
use secateur_engine::ir::{DType, Graph, Model, Tensor, ValueId};

use crate::TrainError;
use crate::settings::missing;
use crate::standardize;

/// What holds for the parameters whose names fit a pattern, or that nodes read whose names do.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The pattern: `*` stands for any characters or none, `?` for one. The first group that fits a parameter counts.
    pub pattern: String,
    /// The rate, as a factor of the whole step's.
    pub rate: f64,
    /// What is added to the gradient for each unit of the parameter: the gradient of `l2 / 2 · Σw²`.
    pub l2: f64,
    /// The share of the parameter that goes with each step, times the rate; `None` is what the optimiser usually takes.
    pub decay: Option<f64>,
    /// By how much each element goes towards 0 with each step, times the rate, and stays there: the proximal step of
    /// `l1 · Σ|w|`.
    pub l1: f64,
    /// Whether they are trained. `None`: those that look like weights are. Running statistics of what is not trained stay too.
    pub train: Option<bool>,
}

impl Group {
    /// The group of what fits `pattern`, treated as usual.
    pub fn new(pattern: impl Into<String>) -> Group {
        Group {
            pattern: pattern.into(),
            rate: 1.0,
            l2: 0.0,
            decay: None,
            l1: 0.0,
            train: None,
        }
    }

    /// The same, not trained.
    pub fn frozen(pattern: impl Into<String>) -> Group {
        Group {
            train: Some(false),
            ..Group::new(pattern)
        }
    }
}

/// An initialiser that is trained.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) value: ValueId,
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) group: Group,
}

/// Inputs that are no weights, by operator. Sorted.
static NO_WEIGHTS: &[(&str, &[usize])] = &[
    ("BatchNormalization", &[3, 4]),
    ("Clip", &[1, 2]),
    ("DequantizeLinear", &[1, 2]),
    ("Dropout", &[1, 2]),
    ("OneHot", &[1, 2]),
    ("Pad", &[2]),
    ("Pow", &[1]),
    ("QuantizeLinear", &[1, 2]),
    ("Range", &[0, 1, 2]),
    ("Resize", &[1, 2]),
    ("Upsample", &[1]),
];

/// What masks of attention hide is at least so far below 0; no weight is.
const FAR: f64 = 1e4;

/// Whether an initialiser that nothing is said of is trained: floats in at least one axis, none of them huge, that some node
/// reads as a weight.
fn looks_trained(graph: &Graph, v: ValueId, t: &Tensor) -> bool {
    let small = |x: &f64| x.abs() < FAR;
    let read = graph
        .iter()
        .flat_map(|(_, n)| n.inputs.iter().enumerate().map(move |(i, x)| (n, i, x)));
    let slots: Vec<_> = read.filter(|(_, _, x)| **x == Some(v)).collect();
    let weight = slots.iter().any(|(n, i, _)| {
        let none = NO_WEIGHTS.iter().find(|(op, _)| n.is(op));
        none.is_none_or(|(_, slots)| !slots.contains(i))
    });
    // What only a subgraph reads has no reader here.
    let weight = weight || slots.is_empty();
    let weight = weight && !graph[v].name.starts_with(standardize::NAME);
    weight && !t.dims().is_empty() && t.floats().is_some_and(|x| x.iter().all(small))
}

/// The names that patterns are compared with: its own, and those of the nodes that read it.
fn names(graph: &Graph, v: ValueId) -> Vec<&str> {
    let readers = graph.iter().filter(|(_, n)| n.inputs.contains(&Some(v)));
    let nodes = readers.filter_map(|(_, n)| n.name.as_deref());
    std::iter::once(&*graph[v].name).chain(nodes).collect()
}

/// The group of `v`; that of nothing in particular where none fits.
pub(crate) fn group_of(graph: &Graph, v: ValueId, groups: &[Group]) -> Group {
    let names = names(graph, v);
    let fits = |g: &&Group| names.iter().any(|n| matches(&g.pattern, n));
    groups
        .iter()
        .find(fits)
        .cloned()
        .unwrap_or_else(|| Group::new("*"))
}

/// The initialisers of the main graph that are trained, in the order of the file.
///
/// # Errors
///
/// If a pattern fits no float initialiser, or one that is to be trained is of a type in which no steps are taken.
pub(crate) fn parameters(model: &Model, groups: &[Group]) -> Result<Vec<Parameter>, TrainError> {
    let graph = &model.graph;
    let floats = graph.initializers.iter().filter_map(|&v| {
        let konst = graph[v].konst.as_ref()?;
        konst.tensor.dtype().is_float().then_some((v, &*konst.tensor))
    });
    let floats: Vec<_> = floats.collect();
    for g in groups {
        let fits = |v: ValueId| names(graph, v).iter().any(|n| matches(&g.pattern, n));
        if !floats.iter().any(|&(v, _)| fits(v)) {
            let known: Vec<&str> = floats.iter().map(|&(v, _)| &*graph[v].name).collect();
            return Err(TrainError::wrong(missing("parameter fits", &g.pattern, &known)));
        }
    }
    let mut found = vec![];
    for (v, t) in floats {
        let group = group_of(graph, v, groups);
        if !group.train.unwrap_or_else(|| looks_trained(graph, v, t)) {
            continue;
        }
        let name = graph[v].name.to_string();
        if !matches!(t.dtype(), DType::F32 | DType::F64) {
            let what = format!("{name:?} is of {}; only float and double are trained", t.dtype());
            return Err(TrainError::wrong(what));
        }
        found.push(Parameter {
            value: v,
            name,
            dtype: t.dtype(),
            group,
        });
    }
    same_type(&found)?;
    Ok(found)
}

fn same_type(all: &[Parameter]) -> Result<(), TrainError> {
    let Some(first) = all.first() else {
        return Err(TrainError::wrong(
            "the model has no initialiser that looks like a weight",
        ));
    };
    match all.iter().find(|p| p.dtype != first.dtype) {
        Some(p) => Err(TrainError::wrong(format!(
            "{:?} is of {} and {:?} of {}; all parameters must be of one type",
            first.name, first.dtype, p.name, p.dtype
        ))),
        None => Ok(()),
    }
}
