//! Models whose free dimensions are set while they are trained.

use std::collections::HashMap;

use secateur::Model;
use secateur::engine::ir::{Dim, Port, Type};
use secateur::train::data::Input;

/// `model` with the free dimensions of its inputs as `sizes` say, but for those of batches, which come first.
pub(in crate::cmd) fn sized(model: &Model, sizes: &[(String, usize)]) -> Model {
    let known: HashMap<&str, usize> = sizes.iter().map(|(n, s)| (n.as_str(), *s)).collect();
    changed(model, |_, axis, dim| match dim {
        Dim::Symbol(s) if axis > 0 => known.get(&**s).copied(),
        _ => None,
    })
}

/// `model` with the sizes that examples of `inputs` have.
pub(in crate::cmd) fn fitted(model: &Model, inputs: &[Input]) -> Model {
    changed(model, |name, axis, dim| {
        let input = inputs.iter().find(|i| i.name == name)?;
        let size = axis.checked_sub(1).and_then(|a| input.dims.get(a));
        size.copied().filter(|_| dim.size().is_none())
    })
}

/// `model` with the inputs declared as those of `original`.
pub(in crate::cmd) fn freed(mut model: Model, original: &Model) -> Model {
    let old = &original.graph;
    for port in &mut model.graph.inputs {
        let name = &model.graph.values[port.value.0 as usize].name;
        let same = old.inputs.iter().find(|p| old[p.value].name == *name);
        if let Some(same) = same {
            port.ty = same.ty.clone();
        }
    }
    model
}

fn changed(model: &Model, size: impl Fn(&str, usize, &Dim) -> Option<usize>) -> Model {
    let mut model = model.clone();
    let names: Vec<String> = model
        .graph
        .inputs
        .iter()
        .map(|p| model.graph[p.value].name.to_string())
        .collect();
    for (port, name) in model.graph.inputs.iter_mut().zip(names) {
        if let Some(ty) = bound(port, |axis, dim| size(&name, axis, dim)) {
            port.ty = Some(ty.into());
        }
    }
    model
}

/// The type of `port` with what `size` knows; none where that is nothing.
fn bound(port: &Port, size: impl Fn(usize, &Dim) -> Option<usize>) -> Option<Type> {
    let ty = &port.ty.as_ref()?.ty;
    let (dtype, shape) = (ty.dtype()?, ty.shape()?);
    let each = || shape.iter().enumerate().map(|(axis, dim)| (size(axis, dim), dim));
    each().any(|(size, _)| size.is_some()).then(|| {
        let dims = each().map(|(size, dim)| size.map_or(dim.clone(), Dim::from));
        Type::tensor(dtype, dims)
    })
}

#[cfg(test)]
mod tests {
    use secateur::engine::ir::DType;

    use super::*;

    fn shape(model: &Model) -> Vec<Dim> {
        let ty = &model.graph.inputs[0].ty.as_ref().unwrap().ty;
        ty.shape().unwrap().to_vec()
    }

    #[test]
    fn free_sizes_are_set_and_come_back() {
        let mut model = Model::default();
        let free = [
            Dim::symbol("h"),
            3usize.into(),
            Dim::symbol("h"),
            Dim::symbol("w"),
        ];
        model.graph.input("x", Type::tensor(DType::F32, free));
        let sizes = [("h".to_owned(), 8), ("q".to_owned(), 2)];
        let set = sized(&model, &sizes);
        // The batch stays free, whatever it is called.
        assert_eq!(
            shape(&set),
            [Dim::symbol("h"), 3usize.into(), 8usize.into(), Dim::symbol("w")]
        );
        let input = Input {
            name: "x".into(),
            dtype: DType::F32,
            dims: vec![3, 8, 9],
        };
        assert_eq!(shape(&fitted(&set, &[input]))[1..], [3usize, 8, 9].map(Dim::from));
        assert_eq!(shape(&freed(set, &model)), shape(&model));
    }
}
