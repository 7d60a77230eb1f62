//! What the constants of a model consist of.

use secateur_engine::Tensor;
use secateur_engine::ir::{DType, Model};

use crate::place::places;

/// One constant: an initialiser, or the tensor of a `Constant` node.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorStats {
    /// What no other constant of the model is called; see [`Weight::name`](crate::Weight::name).
    pub name: String,
    /// The type of the elements.
    pub dtype: DType,
    /// The size of each axis, outermost first.
    pub dims: Vec<usize>,
    /// The number of elements.
    pub elements: u64,
    /// Elements that are zero, of either sign; 0 for strings.
    pub zeros: u64,
}

impl TensorStats {
    /// Whether the elements are parameters of the model, and not indices, shapes or texts.
    pub fn is_parameter(&self) -> bool {
        !matches!(self.dtype, DType::I64 | DType::Bool | DType::String)
    }
}

/// The constants of a model together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Elements of all constants that are neither `int64`, nor `bool`, nor strings.
    pub parameters: u64,
    /// Those that are zero.
    pub zeros: u64,
}

impl Totals {
    /// The constants in `stats` together.
    pub fn of(stats: &[TensorStats]) -> Totals {
        let parameters = stats.iter().filter(|s| s.is_parameter());
        parameters.fold(Totals::default(), |t, s| Totals {
            parameters: t.parameters + s.elements,
            zeros: t.zeros + s.zeros,
        })
    }
}

/// Every constant of `model`, subgraphs and functions included, in the order of the file.
pub fn tensors(model: &Model) -> Vec<TensorStats> {
    let places = places(model).into_iter();
    let constants = places.filter_map(|p| Some((p.name, &*p.site.constant(model)?.tensor)));
    let stats = |(name, t): (String, &Tensor)| TensorStats {
        name,
        dtype: t.dtype(),
        dims: t.dims().to_vec(),
        elements: t.len() as u64,
        zeros: t.zeros_count() as u64,
    };
    constants.map(stats).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_counted() {
        let mut model = Model::default();
        let g = &mut model.graph;
        g.constant("w", Tensor::of(&[2, 2], vec![0f32, -0.0, f32::NAN, 1.0]));
        g.constant("shape", Tensor::of(&[3], vec![0i64, 0, 2]));
        g.constant("q", Tensor::of(&[3], vec![0u8, 0, 2]));
        g.constant("none", Tensor::of(&[0], Vec::<f32>::new()));
        let stats = tensors(&model);
        let counts: Vec<_> = stats.iter().map(|s| (&*s.name, s.elements, s.zeros)).collect();
        assert_eq!(
            counts,
            [("w", 4, 2), ("shape", 3, 2), ("q", 3, 2), ("none", 0, 0)]
        );
        let totals = Totals {
            parameters: 7,
            zeros: 4,
        };
        assert_eq!(Totals::of(&stats), totals);
    }
}
