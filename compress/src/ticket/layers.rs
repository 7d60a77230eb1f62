//! The weights that tickets are drawn of.

use std::collections::HashSet;

use secateur_engine::ir::{Graph, Model, NodeId, ValueId};

use super::masks::{Layer, Masks};
use crate::error::TicketError;
use crate::weights;

/// Masks that leave all of the weights that are called `trained` and that are [weights](crate::weights()) to prune.
///
/// # Errors
///
/// If there are none.
pub(super) fn whole(model: &Model, trained: &[String]) -> Result<Masks, TicketError> {
    let found = weights(model).into_iter().filter(|w| w.exempt.is_none());
    let found = found.filter(|w| trained.contains(&w.name));
    let layer = |w: crate::Weight| Layer {
        dims: w.tensor.dims().to_vec(),
        kept: vec![true; w.tensor.len()],
        name: w.name,
    };
    let all: Vec<Layer> = found.map(layer).collect();
    match all.is_empty() {
        true => Err(TicketError::wrong(
            "the model has no weight that is trained and could be pruned: an initialiser of two axes or more that a convolution or product reads",
        )),
        false => Ok(Masks(all)),
    }
}

/// The names of those of `names` behind which comes no other: the output layers.
pub(super) fn last(model: &Model, names: &[&str]) -> Vec<String> {
    let graph = &model.graph;
    let moving = moving(graph);
    let each: Vec<(&str, Vec<NodeId>)> = names
        .iter()
        .filter_map(|name| Some((*name, readers(graph, graph.find(name)?, &moving))))
        .collect();
    let ends = each.iter().filter(|(name, readers)| {
        let behind = behind(graph, readers);
        let others = each.iter().filter(|(other, _)| other != name);
        // What only a subgraph reads is nowhere in the order.
        !readers.is_empty() && !others.flat_map(|(_, r)| r).any(|n| behind.contains(n))
    });
    ends.map(|(name, _)| (*name).to_owned()).collect()
}

/// Values that follow from the inputs.
fn moving(graph: &Graph) -> HashSet<ValueId> {
    let given = graph.inputs.iter().map(|p| p.value);
    let mut moving: HashSet<ValueId> = given.filter(|&v| graph.konst(v).is_none()).collect();
    spread(graph, &mut moving);
    moving
}

/// Adds what follows from `values`.
fn spread(graph: &Graph, values: &mut HashSet<ValueId>) {
    for (_, n) in graph.iter() {
        if n.inputs.iter().flatten().any(|v| values.contains(v)) {
            values.extend(n.outputs.iter().flatten());
        }
    }
}

/// The nodes that join `weight`, turned or cut perhaps, with what follows from the inputs.
fn readers(graph: &Graph, weight: ValueId, moving: &HashSet<ValueId>) -> Vec<NodeId> {
    let mut own = HashSet::from([weight]);
    let mut readers = vec![];
    for (id, n) in graph.iter() {
        if !n.inputs.iter().flatten().any(|v| own.contains(v)) {
            continue;
        }
        match n.outputs.iter().flatten().any(|v| moving.contains(v)) {
            true => readers.push(id),
            false => own.extend(n.outputs.iter().flatten()),
        }
    }
    readers
}

/// The nodes that read what `nodes` make, and what is made of that.
fn behind(graph: &Graph, nodes: &[NodeId]) -> HashSet<NodeId> {
    let made = graph.iter().filter(|(id, _)| nodes.contains(id));
    let mut values: HashSet<ValueId> = made
        .flat_map(|(_, n)| n.outputs.iter().flatten().copied())
        .collect();
    spread(graph, &mut values);
    let reads = graph
        .iter()
        .filter(|(_, n)| n.inputs.iter().flatten().any(|v| values.contains(v)));
    reads.map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use secateur_engine::Tensor;
    use secateur_engine::ir::{DType, Node, Type};

    use super::*;

    /// Products one after the other, the last two beside each other and added up; the second weight is turned first.
    fn model() -> Model {
        let mut model = Model::default();
        let g = &mut model.graph;
        let x = g.input("x", Type::tensor(DType::F32, [1usize, 2]));
        let w = |g: &mut Graph, name: &str| g.constant(name, Tensor::of(&[2, 2], vec![1.0f32; 4]));
        let join = |g: &mut Graph, op: &str, a, b| {
            let y = g.value(format!("{op}{}", g.values.len()));
            g.node(Node::new(op, vec![Some(a), Some(b)], vec![Some(y)]));
            y
        };
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| w(g, name));
        let h = join(g, "MatMul", x, a);
        let turned = g.value("turned");
        g.node(Node::new("Transpose", vec![Some(b)], vec![Some(turned)]));
        let h = join(g, "MatMul", h, turned);
        let [left, right] = [c, d].map(|w| join(g, "MatMul", h, w));
        let y = join(g, "Add", left, right);
        g.output(y, None);
        model
    }

    #[test]
    fn output_layers_are_those_behind_which_comes_no_other() {
        assert_eq!(last(&model(), &["a", "b", "c", "d"]), ["c", "d"]);
        assert_eq!(last(&model(), &["a", "b"]), ["b"]);
        assert_eq!(last(&model(), &["a"]), ["a"]);
    }

    #[test]
    fn weights_are_those_that_are_trained() {
        let names = |trained: &[&str]| {
            let trained: Vec<String> = trained.iter().map(ToString::to_string).collect();
            let masks = whole(&model(), &trained)?;
            Ok::<Vec<_>, TicketError>(masks.0.into_iter().map(|l| l.name).collect())
        };
        assert_eq!(names(&["a", "d", "other"]).unwrap(), ["a", "d"]);
        let none = names(&["other"]).unwrap_err().to_string();
        assert!(none.contains("no weight that is trained"), "{none}");
    }
}
