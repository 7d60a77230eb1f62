//! Losses of a model as values of its graph.

use std::collections::HashMap;

use secateur_engine::expr::{Builder, Ex};
use secateur_engine::ir::{Dim, Graph, Model, Node, Type, ValueId};
use secateur_engine::ops;
use secateur_engine::opt::infer::infer;
use secateur_engine::opt::inline;

use crate::TrainError;
use crate::diff::newest;
use crate::settings::missing;
use crate::spec::Term;

/// A model whose outputs are losses.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The model, as for inference.
    pub model: Model,
    /// Names of the inputs that [`Term`]s asked for.
    pub labels: Vec<String>,
    /// The name of the output that is the loss.
    pub loss: String,
    /// Names of the outputs that are the terms, as they were given, without their factors.
    pub terms: Vec<String>,
}

/// `model` with the `terms` and their weighted sum as its outputs, to measure it by what it is trained by.
///
/// # Errors
///
/// If the terms do not fit the model.
pub fn measure(model: &Model, terms: &[Term]) -> Result<Measured, TrainError> {
    let mut model = model.clone();
    inline(&mut model)?;
    newest(&mut model)?;
    let mut labels = vec![];
    let (values, whole) = write(&mut model, terms, &mut labels)?;
    model.graph.outputs.clear();
    let (loss, terms) = outputs(&mut model, terms, (&values, whole));
    model.functions.clear();
    declare(&mut model)?;
    Ok(Measured {
        model,
        labels,
        loss,
        terms,
    })
}

/// Writes the terms; their values, and that of their weighted sum.
pub(crate) fn write(
    model: &mut Model,
    terms: &[Term],
    labels: &mut Vec<String>,
) -> Result<(Vec<ValueId>, ValueId), TrainError> {
    let mut args = vec![];
    for term in terms {
        args.push(arguments(model, term, labels)?);
    }
    let facts = infer(model, &HashMap::new())?;
    let graph = model.graph.clone();
    let b = Builder::new(&graph, ops::OPSET).knowing(&facts);
    let mut written = vec![];
    for (term, args) in terms.iter().zip(args) {
        let x: Vec<Ex> = args.into_iter().map(|v| b.at(v)).collect();
        written.push(term.loss.write(&x));
    }
    let weighted = terms.iter().zip(&written).filter(|(t, _)| t.weight != 0.0);
    let weighted = weighted.map(|(t, &x)| if t.weight == 1.0 { x } else { x * t.weight });
    let whole = weighted.reduce(|a, b| a + b);
    let whole = whole.ok_or_else(|| TrainError::wrong("there is no loss to make small"))?;
    let (terms, whole) = (written.iter().map(|x| x.id).collect(), whole.id);
    b.finish().apply(&mut model.graph)?;
    model.graph.sort();
    Ok((terms, whole))
}

/// Makes outputs of the loss and its terms; their names.
pub(crate) fn outputs(
    model: &mut Model,
    terms: &[Term],
    (values, whole): (&[ValueId], ValueId),
) -> (String, Vec<String>) {
    let loss = output(model, whole, "loss");
    let terms = terms.iter().zip(values).map(|(term, &v)| match v == whole {
        // The one term of all is the loss itself, which has one name.
        true => loss.clone(),
        false => output(model, v, term.loss.name()),
    });
    let terms = terms.collect();
    (loss, terms)
}

/// The values that a term compares; the second may be new.
fn arguments(model: &mut Model, term: &Term, labels: &mut Vec<String>) -> Result<Vec<ValueId>, TrainError> {
    let (name, takes) = (term.loss.name(), term.loss.takes());
    let (Some(first), true) = (term.of.first(), term.of.len() == takes.len()) else {
        let what = format!(
            "{name} compares {}; {} names are given",
            takes.join(" and "),
            term.of.len()
        );
        return Err(TrainError::wrong(what));
    };
    let first = known(&model.graph, first)?;
    let mut all = vec![first];
    for &of in &term.of[1..] {
        all.push(match model.graph.find(of) {
            Some(v) => v,
            None => {
                let facts = infer(model, &HashMap::new())?;
                let ty = term.loss.target(&facts.of(first).ty);
                labels.push(of.into());
                model.graph.input(of, plain(ty))
            }
        });
    }
    Ok(all)
}

/// Declares the types of the outputs, without which no file is valid.
pub(crate) fn declare(model: &mut Model) -> Result<(), TrainError> {
    let facts = infer(model, &HashMap::new())?;
    for port in &mut model.graph.outputs {
        port.ty = Some(plain(facts.of(port.value).ty.clone()).into());
    }
    Ok(())
}

/// The value called `name`.
pub(crate) fn known(graph: &Graph, name: &str) -> Result<ValueId, TrainError> {
    let names = || {
        graph
            .outputs
            .iter()
            .map(|p| &*graph[p.value].name)
            .collect::<Vec<_>>()
    };
    graph
        .find(name)
        .ok_or_else(|| TrainError::wrong(missing("value of the model", name, &names())))
}

/// A type that a file may declare: without computed sizes.
fn plain(ty: Type) -> Type {
    let plain = |d: &Dim| match d {
        Dim::Known(_) | Dim::Symbol(_) => d.clone(),
        _ => Dim::Unknown,
    };
    match (ty.dtype(), ty.shape()) {
        (Some(dtype), Some(shape)) => Type::tensor(dtype, shape.iter().map(plain)),
        _ => ty,
    }
}

/// Makes an output of `v`, called `name` or nearly so; its name.
pub(crate) fn output(model: &mut Model, v: ValueId, name: &str) -> String {
    let graph = &mut model.graph;
    // What is an input, or an output already, keeps its name: another value stands for it.
    let taken = graph.is_input(v) || graph.outputs.iter().any(|p| p.value == v);
    let name = graph.fresh(name);
    let v = match taken {
        true => {
            let copy = graph.value(name.clone());
            let node = Node::new("Identity", vec![Some(v)], vec![Some(copy)]);
            graph.node(node);
            copy
        }
        false => {
            graph[v].name = name.clone();
            v
        }
    };
    graph.output(v, None);
    name.to_string()
}
