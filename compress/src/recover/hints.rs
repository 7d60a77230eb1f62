//! What a model learns of a teacher besides its outputs.

use std::collections::{HashMap, HashSet};

use secateur_engine::ir::{Links, Model, NodeId, Type, ValueId};
use secateur_engine::opt::infer::{Facts, infer};
use secateur_train::{Course, Term};

use crate::weights::weights;

/// The names of what `model` says on the way to its outputs (hints, Romero et al. 2015, arXiv:1412.6550), as far as `pupil` has it too, in the same
/// known shape, in the order of the graph:
/// - what its last nodes with weights make: the scores behind which there are only a sigmoid, a softmax, the decoding of boxes. A
///   bias that is added counts as theirs. A model that learns these learns each of them as well as the others, however much or little of
///   it the outputs show.
/// - the sums in which residual blocks end. A model that learns these has for each of its blocks something to go by, not only
///   for all of them together.
pub fn hints(model: &Model, pupil: &Model) -> Vec<String> {
    let all = weights(model);
    let pruned = all.iter().filter(|w| w.exempt.is_none());
    let walk = Walk {
        model,
        links: model.graph.links(),
        weighted: pruned.flat_map(|w| w.nodes.iter().map(String::as_str)).collect(),
    };
    let facts = |model: &Model| infer(model, &HashMap::new()).unwrap_or_default();
    let (facts, theirs) = (facts(model), facts(pupil));
    let mut found = HashSet::new();
    let mut seen = HashSet::new();
    let mut next: Vec<ValueId> = model.graph.outputs.iter().map(|p| p.value).collect();
    while let Some(value) = next.pop() {
        if !seen.insert(value) {
            continue;
        }
        match walk.last(value) {
            true => drop(found.insert(value)),
            false => next.extend(walk.behind(value)),
        }
    }
    let outputs = model.graph.iter().flat_map(|(_, n)| n.outputs.iter().flatten());
    let sums = walk.sums();
    let names = outputs
        .filter(|v| found.contains(v) || sums.contains(v))
        .filter_map(|v| {
            let name = &model.graph[*v].name;
            let there = shape(&theirs, pupil.graph.find(name)?);
            (there.is_some() && there == shape(&facts, *v)).then(|| name.to_string())
        });
    names.collect()
}

/// The way from outputs to the last weights.
struct Walk<'a> {
    model: &'a Model,
    links: Links,
    /// The labels of nodes that read weights.
    weighted: HashSet<&'a str>,
}

impl Walk<'_> {
    /// Whether a node with weights makes `value`, or the sum of what one makes with a constant.
    fn last(&self, value: ValueId) -> bool {
        let Some((id, _)) = self.links.producer(value) else {
            return false;
        };
        if self.is_weighted(id) {
            return true;
        }
        let graph = &self.model.graph;
        let inputs = || graph[id].inputs.iter().flatten();
        let made = |v: &ValueId| {
            self.links
                .producer(*v)
                .is_some_and(|(id, _)| self.is_weighted(id))
        };
        graph[id].is("Add") && inputs().any(|v| graph.konst(*v).is_some()) && inputs().any(made)
    }

    /// Sums both of whose summands follow from what one and the same node with weights makes, and one of which follows from others besides:
    /// blocks, and what goes round them.
    fn sums(&self) -> HashSet<ValueId> {
        let graph = &self.model.graph;
        // By value the numbers of the nodes with weights that it follows from, as bits.
        let mut from: HashMap<ValueId, Vec<u64>> = HashMap::new();
        let (mut found, mut number) = (HashSet::new(), 0);
        for (id, node) in graph.iter() {
            let known = node.inputs.iter().flatten().filter_map(|v| from.get(v));
            let mut all = known.clone().fold(vec![], |all, one| joined(all, one));
            if let [a, b] = known.clone().collect::<Vec<_>>()[..]
                && node.is("Add")
                && a != b
                && a.iter().zip(b).any(|(a, b)| a & b != 0)
            {
                found.extend(node.outputs.iter().flatten());
            }
            if self.is_weighted(id) {
                all = joined(all, &bit(number));
                number += 1;
            }
            if !all.is_empty() {
                let made = node.outputs.iter().flatten();
                from.extend(made.map(|v| (*v, all.clone())));
            }
        }
        found
    }

    fn is_weighted(&self, id: NodeId) -> bool {
        self.weighted.contains(self.model.graph[id].label())
    }

    /// What `value` is made of.
    fn behind(&self, value: ValueId) -> Vec<ValueId> {
        let node = self.links.producer(value).map(|(id, _)| &self.model.graph[id]);
        node.map_or(vec![], |n| n.inputs.iter().flatten().copied().collect())
    }
}

/// The bit of this number.
fn bit(number: usize) -> Vec<u64> {
    let mut bits = vec![0; number / 64];
    bits.push(1 << (number % 64));
    bits
}

/// The bits of either.
fn joined(mut all: Vec<u64>, more: &[u64]) -> Vec<u64> {
    all.resize(all.len().max(more.len()), 0);
    all.iter_mut().zip(more).for_each(|(a, b)| *a |= b);
    all
}

/// The terms of `course` but those that compare a value which `model` has no more, or in another shape than the teacher.
pub(super) fn learnable<'t>(model: &Model, course: &Course<'t>) -> Vec<Term<'t>> {
    let facts = |model: &Model| infer(model, &HashMap::new()).unwrap_or_default();
    let own = facts(model);
    let teachers: Vec<Facts> = course.teachers.iter().map(|t| facts(t.model)).collect();
    let same = |term: &&Term<'t>| {
        let [value, label] = term.of else { return true };
        let Some(at) = course.teachers.iter().position(|t| t.label == *label) else {
            return true;
        };
        let taught = course.teachers[at];
        let there = taught.model.graph.find(taught.output);
        let Some(there) = there.and_then(|v| shape(&teachers[at], v)) else {
            return true;
        };
        // Where sizes are free, what is there is taken to be the same.
        let here = model.graph.find(value);
        here.is_some_and(|v| shape(&own, v).is_none_or(|here| here == there))
    };
    course.spec.terms.iter().filter(same).copied().collect()
}

/// The shape of a value, if it is known but for its first axis.
fn shape(facts: &Facts, value: ValueId) -> Option<Vec<usize>> {
    let Type::Tensor {
        shape: Some(dims), ..
    } = &facts.of(value).ty
    else {
        return None;
    };
    dims.iter().skip(1).map(|d| d.size()).collect()
}
