//! Batches as if they were of one: what makes the choice of kernels the same for all of them.
//!
//! Which kernel is cheapest depends on the shapes, and another kernel sums in another order. So a deterministic program
//! plans every batch twice: dry for a batch of one, and then, for the real shapes, with the kernels that were chosen there.

use std::collections::HashMap;

use super::layout::Pick;
use super::lower::{Known, Lowering};
use crate::cpu::Layouts;
use crate::ir::{Dim, Graph, Model, Name, Type, ValueId};
use crate::opt::infer::infer;

/// What the first dimension of an input is called where the model does not name it.
const UNNAMED: &str = "batch#";

/// The free dimensions that are first in an input: the batch.
pub(crate) fn batch(graph: &Graph) -> Vec<Name> {
    let named = |d: Dim| match d {
        Dim::Symbol(s) => Some(s),
        _ => None,
    };
    let types = graph.inputs.iter().filter_map(|p| p.ty.as_ref());
    types
        .filter_map(|d| named(d.ty.shape()?.first()?.named()))
        .collect()
}

/// The sizes of values that follow from the batch.
#[derive(Default)]
pub(super) struct Single {
    batch: Vec<Name>,
    shapes: HashMap<ValueId, Vec<Dim>>,
}

impl Single {
    /// Of a model whose batch goes by the names `batch`; `around` are shapes of inputs that are known better than declared.
    pub(super) fn new(model: &Model, batch: &[Name], around: HashMap<ValueId, Vec<Dim>>) -> Single {
        let mut batch = batch.to_vec();
        batch.push(UNNAMED.into());
        let free = |(i, d): (usize, &Dim)| match d.named() {
            Dim::Unknown if i == 0 => Dim::symbol(UNNAMED),
            d => d,
        };
        let ports = model.graph.inputs.iter();
        let ports = ports.filter_map(|p| Some((p.value, &p.ty.as_ref()?.ty)));
        let declared = ports.filter_map(|(v, ty)| {
            let shape = ty.shape()?.iter().enumerate().map(free).collect();
            Some((v, with(ty, shape)))
        });
        let known = around.into_iter().map(|(v, shape)| {
            let shape = Some(shape);
            (v, Type::Tensor { dtype: None, shape })
        });
        let Ok(facts) = infer(model, &declared.chain(known).collect()) else {
            return Single::default();
        };
        let shapes = (0u32..).map(ValueId).take(model.graph.values.len());
        let shapes = shapes.filter_map(|v| Some((v, facts.of(v).ty.shape()?.clone())));
        let mut single = Single {
            batch,
            shapes: HashMap::new(),
        };
        single.shapes = shapes
            .filter(|(_, s)| s.iter().any(|d| single.follows(d)))
            .collect();
        single
    }

    /// The shape of `v`, if the batch is part of it.
    pub(super) fn shape(&self, v: ValueId) -> Option<&Vec<Dim>> {
        self.shapes.get(&v)
    }

    fn is_batch(&self, name: &str) -> bool {
        self.batch.iter().any(|s| &**s == name)
    }

    fn follows(&self, d: &Dim) -> bool {
        d.substitute(&|s| self.is_batch(s).then_some(Dim::Known(1))) != *d
    }

    /// The same values in a batch of one; `None` where that is what they are.
    pub(super) fn of(&self, known: &HashMap<ValueId, Known>) -> Option<HashMap<ValueId, Known>> {
        let mut sizes = HashMap::new();
        for (v, (ty, _)) in known {
            let named = self
                .shapes
                .get(v)
                .into_iter()
                .flatten()
                .zip(ty.shape().into_iter().flatten());
            for (name, size) in named {
                if let Dim::Symbol(s) = name {
                    sizes.insert(s.clone(), size.clone());
                }
            }
        }
        let value = |s: &str| match self.is_batch(s) {
            true => Some(Dim::Known(1)),
            false => sizes.get(s).cloned(),
        };
        let one = |(v, (ty, konst)): (&ValueId, &Known)| {
            let size = |(name, real): (&Dim, &Dim)| match name.substitute(&value) {
                Dim::Known(n) if n >= 0 && self.follows(name) => Dim::Known(n),
                _ => real.clone(),
            };
            let shape = self
                .shapes
                .get(v)
                .zip(ty.shape())
                .filter(|(a, b)| a.len() == b.len());
            let ty = match shape.filter(|_| konst.is_none()) {
                Some((names, real)) => with(ty, names.iter().zip(real).map(size).collect()),
                None => ty.clone(),
            };
            (*v, (ty, konst.clone()))
        };
        let all: HashMap<_, _> = known.iter().map(one).collect();
        let same = all
            .iter()
            .all(|(v, (ty, _))| known.get(v).is_some_and(|k| k.0 == *ty));
        (!same).then_some(all)
    }
}

fn with(ty: &Type, shape: Vec<Dim>) -> Type {
    Type::Tensor {
        dtype: ty.dtype(),
        shape: Some(shape),
    }
}

/// The kernels that were chosen, by the place of the node in the graph and the number of choices made for it before.
pub(super) type Choices = HashMap<(usize, usize), Choice>;

/// A kernel that was chosen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choice {
    op: Name,
    kernel: String,
    /// Inputs that are not read row by row, and outputs.
    layouts: (Vec<bool>, Layouts),
}

impl Choice {
    pub(super) fn of(op: &Name, pick: &Pick) -> Choice {
        Choice {
            op: op.clone(),
            kernel: pick.candidate.name.clone(),
            layouts: pick.layouts(),
        }
    }
}

impl Lowering<'_> {
    /// How far `pick` is from what was chosen for a batch of one: 0 where that is it.
    pub(super) fn strays(&self, op: &Name, pick: &Pick) -> u8 {
        let chosen = self.start.follow.and_then(|all| all.get(&self.turn));
        chosen.filter(|c| c.op == *op).map_or(0, |c| {
            2 * u8::from(c.kernel != pick.candidate.name) + u8::from(c.layouts != pick.layouts())
        })
    }
}
