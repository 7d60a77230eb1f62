//! Which weights a ticket has.

use std::cmp::Ordering;

use secateur_engine::Tensor;
use secateur_engine::ir::{DType, Model, Node, Opset, Type};
use secateur_engine::ops;
use secateur_engine::random::Random;

use crate::error::TicketError;
use crate::methods::Scope;

/// Which elements of a weight are left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The initialiser's name.
    pub name: String,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// For each element, row-major, whether it is left.
    pub kept: Vec<bool>,
}

impl Layer {
    /// The number of elements that are left.
    pub fn count(&self) -> usize {
        self.kept.iter().filter(|&&k| k).count()
    }

    fn tensor(&self) -> Tensor {
        Tensor::bools(&self.dims, self.kept.iter().copied())
    }
}

/// The masks of all weights that are pruned, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masks(pub Vec<Layer>);

/// How much of what is left goes in a round, and how weights are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The share of a layer, or of all layers together, that goes.
    pub share: f64,
    /// Whether each layer loses that share, the output layers half of it, or all weights are ranked together.
    pub scope: Scope,
}

/// The end of the name of a mask that is an output of [`Masks::model`].
const SUFFIX: &str = ".mask";

impl Masks {
    /// The number of elements that are left, and of all.
    pub fn counts(&self) -> (u64, u64) {
        let both = self.0.iter().map(|l| (l.count() as u64, l.kept.len() as u64));
        both.fold((0, 0), |(a, b), (kept, all)| (a + kept, b + all))
    }

    /// The share that is left.
    pub fn remaining(&self) -> f64 {
        let (kept, all) = self.counts();
        kept as f64 / all as f64
    }

    /// By name, as [`Spec::masks`](secateur_train::Spec::masks) wants them.
    pub fn tensors(&self) -> Vec<(&str, Tensor)> {
        self.0.iter().map(|l| (&*l.name, l.tensor())).collect()
    }

    /// Those of the next round: of what is left the smallest of `trained` go. `last` are the output layers. Of equal magnitudes the
    /// first in the file stay.
    ///
    /// # Errors
    ///
    /// If `trained` does not have these weights.
    pub fn next(&self, trained: &Model, rate: Rate, last: &[String]) -> Result<Masks, TicketError> {
        let mut next = self.clone();
        let values: Vec<Vec<f64>> = self
            .0
            .iter()
            .map(|l| l.values(trained))
            .collect::<Result<_, _>>()?;
        let left = |i: usize| {
            let kept = self.0[i].kept.iter().zip(&values[i]).enumerate();
            kept.filter(|(_, (k, _))| **k)
                .map(move |(j, (_, x))| (x.abs(), i, j))
        };
        let pools: Vec<(f64, Vec<Rank>)> = match rate.scope {
            Scope::Global => vec![(rate.share, (0..self.0.len()).flat_map(left).collect())],
            Scope::Layer => {
                let half = |i: usize| if last.contains(&self.0[i].name) { 0.5 } else { 1.0 };
                (0..self.0.len())
                    .map(|i| (half(i) * rate.share, left(i).collect()))
                    .collect()
            }
        };
        for (share, mut pool) in pools {
            let gone = cut(share, pool.len());
            if gone > 0 {
                pool.select_nth_unstable_by(gone - 1, smaller);
            }
            pool[..gone]
                .iter()
                .for_each(|&(_, i, j)| next.0[i].kept[j] = false);
        }
        Ok(next)
    }

    /// As many elements of each weight, elsewhere.
    pub fn shuffled(&self, random: &mut Random) -> Masks {
        let one = |l: &Layer| {
            let mut kept = l.kept.clone();
            shuffle(&mut kept, random);
            Layer { kept, ..l.clone() }
        };
        Masks(self.0.iter().map(one).collect())
    }

    /// `model` with zeros where nothing is left. What is left keeps its bits.
    ///
    /// # Errors
    ///
    /// If `model` does not have these weights.
    pub fn applied(&self, model: &Model) -> Result<Model, TicketError> {
        let mut model = model.clone();
        for layer in &self.0 {
            let values = layer.values(&model)?.into_iter().zip(&layer.kept);
            let values: Vec<f64> = values.map(|(x, k)| if *k { x } else { 0.0 }).collect();
            set(&mut model, &layer.name, &values);
        }
        Ok(model)
    }

    /// A model without inputs whose outputs are the masks, each called as its weight with `.mask` behind.
    pub fn model(&self) -> Model {
        let mut model = Model {
            ir_version: Some(8),
            opsets: vec![Opset {
                domain: Some("".into()),
                version: Some(13.min(ops::OPSET)),
                extra: Default::default(),
            }],
            ..Model::default()
        };
        let graph = &mut model.graph;
        graph.name = Some("masks".into());
        for layer in &self.0 {
            let mask = graph.constant(layer.name.as_str(), layer.tensor());
            let out = graph.value(format!("{}{SUFFIX}", layer.name));
            graph.node(Node::new("Identity", vec![Some(mask)], vec![Some(out)]));
            let ty = Type::tensor(DType::Bool, layer.dims.iter().copied());
            graph.output(out, Some(ty));
        }
        model
    }

    /// Reads what [`Masks::model`] wrote of the same weights as these.
    ///
    /// # Errors
    ///
    /// If it is of others.
    pub fn read(&self, model: &Model) -> Result<Masks, TicketError> {
        let one = |l: &Layer| {
            let found = model.graph.find(&l.name).and_then(|v| model.graph.konst(v));
            let found = found.filter(|t| t.dims() == l.dims).and_then(Tensor::truths);
            let kept = found.ok_or_else(|| {
                let what = format!("expected a mask of {:?} with dimensions {:?}", l.name, l.dims);
                TicketError::wrong(what)
            })?;
            Ok(Layer { kept, ..l.clone() })
        };
        Ok(Masks(self.0.iter().map(one).collect::<Result<_, TicketError>>()?))
    }
}

impl Layer {
    /// The elements of this weight in `model`.
    pub(super) fn values(&self, model: &Model) -> Result<Vec<f64>, TicketError> {
        let found = model.graph.find(&self.name).and_then(|v| model.graph.konst(v));
        let found = found.filter(|t| t.dims() == self.dims).and_then(Tensor::floats);
        found.ok_or_else(|| {
            let what = format!(
                "the model has no weight {:?} of dimensions {:?}",
                self.name, self.dims
            );
            TicketError::wrong(what)
        })
    }
}

/// A magnitude, and where it is: its layer and place.
type Rank = (f64, usize, usize);

/// What goes first: the smaller, and of equals the last in the file.
fn smaller(a: &Rank, b: &Rank) -> Ordering {
    a.0.total_cmp(&b.0).then((b.1, b.2).cmp(&(a.1, a.2)))
}

/// How many of `n` go: no more than the share, so that no layer loses its last weight to rounding.
fn cut(share: f64, n: usize) -> usize {
    // A share such as 0.2 is a little off in binary.
    ((share * n as f64 + 1e-9).floor() as usize).min(n)
}

/// A random order (Fisher and Yates).
pub(super) fn shuffle<T>(x: &mut [T], random: &mut Random) {
    for i in (1..x.len()).rev() {
        x.swap(i, random.below(i + 1));
    }
}

/// Puts `values` in the place of the initialiser `name`.
pub(super) fn set(model: &mut Model, name: &str, values: &[f64]) {
    let Some(v) = model.graph.find(name) else { return };
    if let Some(konst) = model.graph[v].konst.take() {
        let new = Tensor::rounded(konst.tensor.dtype(), konst.tensor.dims(), values);
        model.graph[v].konst = Some(new.map_or(konst.clone(), |t| konst.with(t)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(w: &[(&str, Vec<f32>)]) -> Model {
        let mut model = Model::default();
        for (name, x) in w {
            model.graph.constant(*name, Tensor::of(&[x.len(), 1], x.clone()));
        }
        model
    }

    fn whole(w: &[(&str, Vec<f32>)]) -> Masks {
        let layer = |(name, x): &(&str, Vec<f32>)| Layer {
            name: name.to_string(),
            dims: vec![x.len(), 1],
            kept: vec![true; x.len()],
        };
        Masks(w.iter().map(layer).collect())
    }

    fn rate(share: f64, scope: Scope) -> Rate {
        Rate { share, scope }
    }

    #[test]
    fn e15_masks_come_from_trained_weights_and_values_from_initial_ones() {
        let first = model(&[("w", vec![0.5, -0.2, 0.1, 0.9])]);
        let trained = [("w", vec![1.2, -0.01, 0.4, -0.05])];
        let masks = whole(&trained);
        let masks = masks
            .next(&model(&trained), rate(0.5, Scope::Layer), &[])
            .unwrap();
        assert_eq!(masks.0[0].kept, [true, false, true, false]);
        let ticket = masks.applied(&first).unwrap();
        // The largest initial weight goes.
        assert_eq!(ticket, model(&[("w", vec![0.5, 0.0, 0.1, 0.0])]));
    }

    #[test]
    fn each_round_takes_a_share_of_what_is_left() {
        let w = [("a", (1..=10).map(|x| x as f32).collect()), ("b", vec![1.0; 10])];
        let trained = model(&w);
        let mut masks = whole(&w);
        let last = ["b".to_owned()];
        let mut left = vec![];
        for _ in 0..3 {
            masks = masks.next(&trained, rate(0.2, Scope::Layer), &last).unwrap();
            left.push((masks.0[0].count(), masks.0[1].count()));
        }
        assert_eq!(left, [(8, 9), (7, 9), (6, 9)]);
        assert_eq!(masks.counts(), (15, 20));
        // The largest are left, and of equals the first.
        assert!(masks.0[0].kept[4..].iter().all(|&k| k) && !masks.0[1].kept[9]);
        let all = whole(&w).next(&trained, rate(0.5, Scope::Global), &last).unwrap();
        assert_eq!(all.0.iter().map(Layer::count).collect::<Vec<_>>(), [10, 0]);
    }

    #[test]
    fn random_masks_have_as_many_elsewhere() {
        let w = [("a", vec![1.0; 50]), ("b", vec![1.0; 8])];
        let mut masks = whole(&w);
        masks.0[0].kept[..40].fill(false);
        let other = masks.shuffled(&mut Random::new(3));
        assert_ne!(other, masks);
        assert_eq!(other.0[0].count(), 10);
        assert_eq!(other.0[1].count(), 8);
        assert_eq!(masks.shuffled(&mut Random::new(3)), other);
    }

    #[test]
    fn masks_are_read_as_they_were_written() {
        let w = [("a", vec![1.0; 5]), ("b", vec![1.0; 3])];
        let mut masks = whole(&w);
        masks.0[0].kept[2] = false;
        let bytes = secateur_engine::onnx::to_bytes(&masks.model());
        let read = secateur_engine::onnx::parse(secateur_engine::ir::Bytes::new(bytes), None).unwrap();
        assert_eq!(whole(&w).read(&read).unwrap(), masks);
        let wrong = whole(&[("a", vec![1.0; 4])]).read(&read).unwrap_err();
        assert!(wrong.to_string().contains("[4, 1]"), "{wrong}");
    }
}
