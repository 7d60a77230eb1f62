//! Sizes of free dimensions: given with `-s`, read off arrays, or else 1.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use secateur::engine::ir::{DType, Dim, Model, Type};
use secateur::engine::run::nearest;
use secateur::train::data;

use super::ui::Ui;

/// An input that a caller must supply.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Its name.
    pub(crate) name: String,
    /// Its declared type.
    pub(crate) ty: Type,
}

impl Wanted {
    /// The element type; `float` where none is declared.
    pub(crate) fn dtype(&self) -> DType {
        self.ty.dtype().unwrap_or(DType::F32)
    }

    /// The size of its first axis, that of the batch, where it is fixed.
    pub(crate) fn batch(&self) -> Option<usize> {
        self.ty.shape()?.first()?.size()
    }

    /// What it takes of each example: all axes but that of the batch.
    pub(crate) fn example(&self) -> data::Wanted {
        data::Wanted {
            name: self.name.clone(),
            dtype: self.dtype(),
            dims: self
                .ty
                .shape()
                .into_iter()
                .flatten()
                .skip(1)
                .map(Dim::size)
                .collect(),
        }
    }

    /// The channels, height and width of the image that it takes, where they are fixed. Channels come last where they cannot come first.
    pub(crate) fn image(&self) -> Option<[usize; 3]> {
        let channels = |n: usize| matches!(n, 1 | 3 | 4);
        match self.example().dims[..] {
            [Some(h), Some(w), Some(c)] if channels(c) && !channels(h) => Some([c, h, w]),
            [Some(c), Some(h), Some(w)] => Some([c, h, w]),
            _ => None,
        }
    }
}

/// The inputs of `model` that have no initialiser.
pub(crate) fn wanted(model: &Model) -> Vec<Wanted> {
    let g = &model.graph;
    let needed = g.inputs.iter().filter(|p| g[p.value].konst.is_none());
    let input = |p: &secateur::engine::ir::Port| Wanted {
        name: g[p.value].name.to_string(),
        ty: p.ty.as_ref().map_or(Type::Unknown, |d| d.ty.clone()),
    };
    needed.map(input).collect()
}

/// What is known of the free dimensions of a model's inputs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes {
    known: BTreeMap<String, usize>,
    /// What was taken as 1 because nobody said.
    assumed: Vec<String>,
}

impl Sizes {
    /// The sizes `given` with `-s`.
    ///
    /// # Errors
    ///
    /// If no input has such a dimension.
    pub(crate) fn of(inputs: &[Wanted], given: &[(String, usize)]) -> Result<Sizes> {
        let symbols = symbols(inputs);
        if let Some((name, _)) = given.iter().find(|(n, _)| !symbols.contains(n)) {
            let near = nearest(name, &symbols);
            bail!("no free dimension {name:?}{near}; the free dimensions are {symbols:?}");
        }
        Ok(Sizes {
            known: given.iter().cloned().collect(),
            assumed: vec![],
        })
    }

    /// Takes over the sizes of an array that is handed in for an input of type `ty`.
    pub(crate) fn learn(&mut self, ty: &Type, dims: &[usize]) {
        for (d, &size) in ty.shape().into_iter().flatten().zip(dims) {
            self.learn_axis(d, size);
        }
    }

    /// Takes over the size of one dimension, unless it is known already.
    pub(crate) fn learn_axis(&mut self, dim: &Dim, size: usize) {
        if let Dim::Symbol(s) = dim {
            self.known.entry(s.to_string()).or_insert(size);
        }
    }

    /// The size of `dim`, if it is known.
    pub(crate) fn get(&self, dim: &Dim) -> Option<usize> {
        match dim {
            Dim::Symbol(s) => self.known.get(&**s).copied(),
            d => d.size(),
        }
    }

    /// The shape of `input`, with 1 where nothing is known.
    pub(crate) fn shape(&mut self, input: &Wanted) -> Vec<usize> {
        let dims = input.ty.shape().cloned().unwrap_or_default();
        let one = |(axis, dim): (usize, &Dim)| match self.get(dim) {
            Some(size) => size,
            None => {
                let name = match dim {
                    Dim::Symbol(s) => s.to_string(),
                    _ => format!("axis {axis} of {}", input.name),
                };
                if !self.assumed.contains(&name) {
                    self.assumed.push(name);
                }
                1
            }
        };
        dims.iter().enumerate().map(one).collect()
    }

    /// The shapes of all `inputs`, with 1 where nothing is known.
    pub(crate) fn shapes(&mut self, inputs: &[Wanted]) -> Vec<Vec<usize>> {
        inputs.iter().map(|i| self.shape(i)).collect()
    }

    /// Says which dimensions were taken as 1.
    pub(crate) fn note(&self, ui: &Ui) {
        if let [first, ..] = &self.assumed[..] {
            let all = self.assumed.join(", ");
            ui.note(&format!(
                "free dimensions taken as 1: {all} (set them with -s {first}=SIZE)"
            ));
        }
    }
}

/// The free dimensions of `inputs`, sorted.
fn symbols(inputs: &[Wanted]) -> Vec<String> {
    let dims = inputs.iter().filter_map(|i| i.ty.shape()).flatten();
    let mut names: Vec<String> = dims
        .filter_map(|d| match d {
            Dim::Symbol(s) => Some(s.to_string()),
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}
