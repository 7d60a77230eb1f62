//! The gradient of normalisation by batches.

use crate::cpu::Candidate;
use crate::expr::{Call, Ex};
use crate::ir::{Attr, DType};
use crate::ops::case::floats;
use crate::ops::formula::{cast, ints};
use crate::ops::shape::{arity, same_dtype};
use crate::ops::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, Tie, grad, private};

/// What is needed to say a gradient with one number for each channel.
pub(super) struct Channels {
    rank: i64,
    epsilon: f64,
    /// The types of all inputs.
    types: [DType; 5],
}

impl Channels {
    pub(super) fn of(n: &NodeRef, x: &[Ex]) -> Option<Channels> {
        let types: Option<Vec<_>> = (0..x.len()).map(|i| n.dtype(i)).collect();
        Some(Channels {
            rank: n.rank(0)? as i64,
            epsilon: n.float_or("epsilon", 1e-5).ok()?.into(),
            types: types?.try_into().ok()?,
        })
    }

    /// Input `i`, in the type of the first.
    fn given<'a>(&self, x: &[Ex<'a>], i: usize) -> Ex<'a> {
        cast(x[i], self.types[i], self.types[0])
    }

    /// One number for each channel, in the rank of the input.
    fn wide<'a>(&self, p: Ex<'a>) -> Ex<'a> {
        match (1..self.rank - 1).collect::<Vec<_>>() {
            behind if behind.is_empty() => p,
            behind => p.op("Unsqueeze", &[ints(p, &behind)]),
        }
    }

    /// One number for each channel, made by `op` of those of all images.
    fn folded<'a>(&self, v: Ex<'a>, op: &str) -> Ex<'a> {
        let keep = i64::from(self.rank == 1);
        let others: Vec<_> = (0..self.rank).filter(|&a| a != 1).collect();
        v.with(op, &[ints(v, &others)], vec![Attr::new("keepdims", keep)])
    }

    fn inverse<'a>(&self, variance: Ex<'a>) -> Ex<'a> {
        (variance + self.epsilon).op("Sqrt", &[]).op("Reciprocal", &[])
    }

    /// The gradients of all inputs, in their own types.
    fn typed<'a>(&self, dx: [Option<Ex<'a>>; 5]) -> Grads<'a> {
        let own = |(dx, &to): (Option<Ex<'a>>, &DType)| dx.map(|dx| cast(dx, self.types[0], to));
        Some(dx.into_iter().zip(&self.types).map(own).collect())
    }

    /// The gradients where mean and variance are given.
    pub(super) fn fixed<'a>(&self, x: &[Ex<'a>], dy: Ex<'a>) -> Grads<'a> {
        let [scale, mean, variance] = [1, 3, 4].map(|i| self.given(x, i));
        let inverse = self.inverse(variance);
        let slope = scale * inverse;
        let sum = self.folded(dy, "ReduceSum");
        let product = self.folded(dy * (x[0] - self.wide(mean)), "ReduceSum");
        let dvariance = product * slope * (inverse * inverse) * -0.5;
        let dx = [
            dy * self.wide(slope),
            product * inverse,
            sum,
            -(sum * slope),
            dvariance,
        ];
        self.typed(dx.map(Some))
    }

    /// The gradients where mean and variance are those of the input, which the running ones are brought nearer to.
    pub(super) fn trained<'a>(&self, n: &NodeRef, x: &[Ex<'a>], dy: Exs<'_, 'a>) -> Grads<'a> {
        let (own, scale, dy0) = (self.types[0], self.given(x, 1), dy[0]?);
        let momentum = f64::from(n.float_or("momentum", 0.9).ok()?);
        let running = |i: usize| dy.get(i).copied().flatten();
        let new = |i: usize| running(i).map(|d| cast(d, self.types[2 + i], own) * (1.0 - momentum));
        let [dx, dscale, dbias] = match (new(1), new(2)) {
            (None, None) => self.call(x[0], scale, dy0)?,
            new => self.moved([x[0], scale, dy0], new),
        };
        let old = |i: usize| running(i).map(|d| cast(d, self.types[2 + i], own) * momentum);
        self.typed([Some(dx), Some(dscale), Some(dbias), old(1), old(2)])
    }

    /// The same as one operator.
    fn call<'a>(&self, x: Ex<'a>, scale: Ex<'a>, dy: Ex<'a>) -> Option<[Ex<'a>; 3]> {
        let call = Call {
            domain: "secateur",
            op: "BatchNormalizationGrad",
            inputs: &[Some(x.id), Some(scale.id), Some(dy.id)],
            attrs: vec![Attr::new("epsilon", self.epsilon as f32)],
            outputs: 3,
        };
        x.call(call).try_into().ok()
    }

    /// The gradients of input, scale and bias, with those of mean and variance where they have any.
    fn moved<'a>(
        &self,
        [x, scale, dy]: [Ex<'a>; 3],
        (mean, variance): (Option<Ex<'a>>, Option<Ex<'a>>),
    ) -> [Ex<'a>; 3] {
        let away = x - self.wide(self.folded(x, "ReduceMean"));
        let inverse = self.inverse(self.folded(away * away, "ReduceMean"));
        let sum = self.folded(dy, "ReduceSum");
        let product = self.folded(dy * away, "ReduceSum");
        let size = |x: Ex<'a>| grad::cast(x.op("Size", &[]), self.types[0]);
        let count = size(x) / size(scale);
        let slope = scale * inverse;
        // What each channel's mean and variance give to all its elements.
        let mean = mean.map_or(sum * slope, |d| sum * slope - d) / count;
        let spread = product * slope * (inverse * inverse);
        let spread = variance.map_or(spread, |d| spread - d * 2.0) / count;
        let dx = dy * self.wide(slope) - self.wide(mean) - away * self.wide(spread);
        [dx, product * inverse, sum]
    }
}

/// The gradients of input, scale and bias of `BatchNormalization` in training mode, from its input, the scale, and the gradient
/// of its output.
pub struct BatchNormalizationGrad;

impl Op for BatchNormalizationGrad {
    fn name(&self) -> OpName {
        private("BatchNormalizationGrad")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 3, 3)?;
        same_dtype(n)?;
        n.float("epsilon")?;
        super::parameters(n, 1..2)?;
        if let (Some(x), Some(dy)) = (n.dims(0), n.dims(2))
            && x != dy
        {
            return Err(OpError::new(format!(
                "input 2: expected {x:?}, as input 0, found {dy:?}"
            )));
        }
        let fact = |i: usize| Fact::tensor(n.dtype(i), n.shape(i).cloned());
        Ok(vec![fact(0), fact(1), fact(1)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        n.rank(0)?;
        Some(Axes(vec![Tie {
            output: Some(1),
            inputs: vec![(0, 1), (1, 0), (2, 1)],
        }]))
    }

    fn laws(&self) -> Laws {
        Laws {
            blocks: true,
            in_place: &[2],
            ..Laws::default()
        }
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let channels = Channels {
            rank: n.rank(0)? as i64,
            epsilon: n.float_or("epsilon", 1e-5).ok()?.into(),
            types: [n.dtype(0)?; 5],
        };
        Some(channels.moved(x.try_into().ok()?, (None, None)).to_vec())
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        super::cpu::gradient(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name, dims: &[usize]| {
            let (x, scale, dy) = (floats(dims, 1), floats(&dims[1..2], 2), floats(dims, 3));
            Case::new(name, [x, scale, dy]).outputs(3).within(1e-5, 1e-4)
        };
        vec![
            case("images", &[2, 3, 5, 7]),
            case("more than a block", &[3, 17, 20, 19]).attr("epsilon", 0.01f32),
            case("one axis", &[2, 16, 40]),
            case("no axis", &[6, 5]),
            case("no images", &[0, 3, 2]),
        ]
    }
}
