//! Standardisation as the first nodes of a model.

use secateur_engine::Model;
use secateur_engine::ir::{Node, Tensor, ValueId};

use crate::TrainError;
use crate::data::Normalize;

/// What the names of the means and deviations begin with, by which they are known as no weights.
pub(crate) const NAME: &str = "standardize";

/// Lets `model` standardise its input `name` by itself, so that it takes examples as they are: all that read the input read
/// (x − mean) ÷ deviation instead.
///
/// # Errors
///
/// If there is no such input, it has no axis for the means, or the model does so already.
pub fn standardize(model: &mut Model, name: &str, by: &Normalize) -> Result<(), TrainError> {
    let graph = &mut model.graph;
    if graph.find(&format!("{NAME}.mean")).is_some() {
        return Err(TrainError::wrong("the model standardises its input already"));
    }
    let port = graph.inputs.iter().find(|p| *graph[p.value].name == *name);
    let port = port.ok_or_else(|| TrainError::wrong(format!("the model has no input {name:?}")))?;
    let (input, groups) = (port.value, by.mean.len());
    let shape = port.ty.as_ref().and_then(|t| t.ty.shape().cloned());
    let axis = shape.as_ref().and_then(|s| s.get(1)).and_then(|d| d.size());
    let rank = shape.map_or(0, |s| s.len());
    if groups != 1 && axis != Some(groups) {
        let what = format!("input {name:?} has no axis for {groups} means behind that of the batch");
        return Err(TrainError::wrong(what));
    }
    let dims: Vec<usize> = match groups {
        1 => vec![],
        n => std::iter::once(n)
            .chain(std::iter::repeat_n(1, rank - 2))
            .collect(),
    };
    let mut constant = |what: &str, x: &[f32]| {
        let name = graph.fresh(&format!("{NAME}.{what}"));
        graph.constant(name, Tensor::of(&dims, x.to_vec()))
    };
    let (mean, deviation) = (constant("mean", &by.mean), constant("deviation", &by.std));
    let mut made = |what: &str| {
        let name = graph.fresh(&format!("{NAME}.{what}"));
        graph.value(name)
    };
    let (centred, scaled) = (made("centred"), made("scaled"));
    reroute(model, input, scaled)?;
    let graph = &mut model.graph;
    graph.node(Node::new(
        "Sub",
        vec![Some(input), Some(mean)],
        vec![Some(centred)],
    ));
    graph.node(Node::new(
        "Div",
        vec![Some(centred), Some(deviation)],
        vec![Some(scaled)],
    ));
    graph.sort();
    Ok(())
}

/// Lets all that read `from` read `to`.
fn reroute(model: &mut Model, from: ValueId, to: ValueId) -> Result<(), TrainError> {
    let graph = &mut model.graph;
    let name = graph[from].name.clone();
    let inside = graph
        .iter()
        .flat_map(|(_, n)| &n.attrs)
        .flat_map(|a| a.value.graphs());
    if inside.into_iter().any(|g| g.captures().contains(&name)) {
        return Err(TrainError::wrong(format!("input {name:?} is read by a subgraph")));
    }
    for id in graph.order.clone() {
        for v in &mut graph[id].inputs {
            if *v == Some(from) {
                *v = Some(to);
            }
        }
    }
    for port in &mut graph.outputs {
        if port.value == from {
            port.value = to;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_engine::Session;
    use secateur_engine::ir::{DType, Dim, Type};

    /// `y = Exp(x)` of `[batch, 3]`.
    fn model() -> Model {
        let import = secateur_engine::ir::Opset {
            domain: Some("".into()),
            version: Some(secateur_engine::ops::OPSET),
            extra: Default::default(),
        };
        let mut model = Model {
            ir_version: Some(10),
            opsets: vec![import],
            ..Model::default()
        };
        let g = &mut model.graph;
        let x = g.input(
            "x",
            Type::tensor(DType::F32, [Dim::Symbol("batch".into()), 3usize.into()]),
        );
        let y = g.value("y");
        g.node(Node::new("Exp", vec![Some(x)], vec![Some(y)]));
        g.output(y, None);
        model
    }

    #[test]
    fn a_model_standardises_its_input() {
        let by = Normalize {
            mean: vec![200.0, 0.0, 1.0],
            std: vec![81.64966, 1.0, 2.0],
        };
        let mut m = model();
        standardize(&mut m, "x", &by).unwrap();
        let x = Tensor::of(&[2, 3], vec![100.0f32, 0.0, 1.0, 300.0, 1.0, 5.0]);
        let y = Session::builder(&m).build().unwrap().run([("x", &x)]).unwrap();
        let y: Vec<f64> = y[0].floats().unwrap().iter().map(|y| y.ln()).collect();
        let expected = [-1.2247, 0.0, 0.0, 1.2247, 1.0, 2.0];
        assert!(y.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{y:?}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let by = Normalize {
            mean: vec![0.0; 4],
            std: vec![1.0; 4],
        };
        assert!(standardize(&mut model(), "x", &by).is_err());
        assert!(standardize(&mut model(), "z", &by).is_err());
    }
}
