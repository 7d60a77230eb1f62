//! What the constants of a model consist of.

use secateur_engine::Tensor;
use secateur_engine::ir::{DType, Model};

use crate::math::float::with_float;
use crate::math::{Kind, zeros};
use crate::place::places;
use crate::scan::{Effort, Piece};

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
    /// Elements that are NaN; 0 for types of less than 16 bits.
    pub nans: u64,
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
    /// Those that are NaN.
    pub nans: u64,
}

impl Totals {
    /// The constants in `stats` together.
    pub fn of(stats: &[TensorStats]) -> Totals {
        let parameters = stats.iter().filter(|s| s.is_parameter());
        parameters.fold(Totals::default(), |t, s| Totals {
            parameters: t.parameters + s.elements,
            zeros: t.zeros + s.zeros,
            nans: t.nans + s.nans,
        })
    }
}

/// Every constant of `model`, subgraphs and functions included, in the order of the file.
pub fn tensors(model: &Model) -> Vec<TensorStats> {
    tensors_with(model, &Effort::default())
}

/// The same as [`tensors`], on several threads and watched. The watch is told of one piece of work.
pub fn tensors_with(model: &Model, effort: &Effort) -> Vec<TensorStats> {
    let places = places(model);
    let named = places
        .iter()
        .filter_map(|p| Some((&p.name, &*p.site.constant(model)?.tensor)));
    let (names, tensors): (Vec<_>, Vec<_>) = named.unzip();
    let bytes = tensors.iter().map(|t| t.bytes().len() as u64).sum();
    effort.watch.begin("counting zeros", bytes);
    let counts = effort.sums(&tensors, |piece, bytes| {
        count(tensors[piece.tensor], piece, bytes)
    });
    let all = names.into_iter().zip(tensors).zip(counts);
    all.map(|((name, t), counts)| stats(name, t, counts)).collect()
}

fn stats(name: &str, t: &Tensor, counts: Counts) -> TensorStats {
    TensorStats {
        name: name.to_owned(),
        dtype: t.dtype(),
        dims: t.dims().to_vec(),
        elements: t.len() as u64,
        zeros: counts.zeros,
        nans: counts.nans,
    }
}

#[derive(Clone, Default)]
struct Counts {
    zeros: u64,
    nans: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.zeros += other.zeros;
        self.nans += other.nans;
    }
}

/// Zeros and NaNs in a piece of `t`.
fn count(t: &Tensor, piece: &Piece, bytes: &[u8]) -> Counts {
    let packed = 8usize.checked_div(t.dtype().bits()).unwrap_or(0).max(1);
    let left = t.len().saturating_sub(piece.bytes.start.saturating_mul(packed));
    let elements = left.min(bytes.len().saturating_mul(packed));
    Counts {
        zeros: zeros::zeros(t.dtype(), bytes, elements),
        nans: Kind::of(t.dtype()).map_or(0, |kind| with_float!(kind, F => zeros::nans::<F>(bytes))),
    }
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
        let counts: Vec<_> = stats
            .iter()
            .map(|s| (&*s.name, s.elements, s.zeros, s.nans))
            .collect();
        assert_eq!(
            counts,
            [
                ("w", 4, 2, 1),
                ("shape", 3, 2, 0),
                ("q", 3, 2, 0),
                ("none", 0, 0, 0)
            ]
        );
        let totals = Totals {
            parameters: 7,
            zeros: 4,
            nans: 1,
        };
        assert_eq!(Totals::of(&stats), totals);
    }

    #[test]
    fn half_a_byte_is_counted_too() {
        let mut model = Model::default();
        let t = Tensor::zeros(DType::I4, &[2_097_155]).unwrap();
        model.graph.constant("w", t);
        assert_eq!(tensors(&model)[0].zeros, 2_097_155);
    }
}
