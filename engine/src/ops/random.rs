//! Operators that draw random numbers.
//!
//! The numbers follow from a seed and a position alone (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom
//! number generators", 2014), so that they are the same on any number of threads. A node with a `seed` draws the same
//! numbers in every run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::pick::{given, room};
use super::shape::{arity, ranked};
use super::{Axes, Case, Fact, Laws, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::moves::{chunks, short};
use crate::cpu::number::{ByType, Int, Real, by_type};
use crate::cpu::{Candidate, Cost, Io, Pool, ViewMut};
use crate::ir::{DType, Dim, Tensor, count};

/// Elements that a task draws.
const PART: usize = 1 << 12;

/// Where random numbers come from.
#[derive(Clone, Copy)]
struct Stream(u64);

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Stream {
    /// A stream of its own for each `seed`; without one, another each time.
    fn new(seed: Option<f32>) -> Stream {
        static DRAWN: AtomicU64 = AtomicU64::new(0);
        match seed {
            Some(s) => Stream(mix(s.to_bits().into())),
            None => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let now = since.map_or(0, |d| d.as_nanos() as u64);
                Stream(mix(now ^ mix(DRAWN.fetch_add(1, Ordering::Relaxed))))
            }
        }
    }

    /// The `i`-th number, uniform in `[0, 1)`, of 53 bits.
    fn uniform(self, i: u64) -> f64 {
        let bits = mix(self
            .0
            .wrapping_add(i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The `i`-th number of the normal distribution with mean 0 and deviation 1 (Box and Muller).
    fn normal(self, i: u64) -> f64 {
        // ln 0 does not come up: 1 - u is above 0.
        let radius = (-2.0 * (1.0 - self.uniform(2 * i)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(2 * i + 1)).cos()
    }
}

/// What is drawn.
#[derive(Clone, Copy)]
enum Draw {
    Uniform { low: f64, high: f64 },
    Normal { mean: f64, scale: f64 },
}

impl Draw {
    fn at(self, stream: Stream, i: u64) -> f64 {
        match self {
            Draw::Uniform { low, high } => low + (high - low) * stream.uniform(i),
            Draw::Normal { mean, scale } => mean + scale * stream.normal(i),
        }
    }
}

/// ONNX `RandomUniform`, `RandomNormal` and, with the shape of an input, `RandomUniformLike` and `RandomNormalLike`.
pub struct Random {
    name: &'static str,
    normal: bool,
    like: bool,
}

/// ONNX `RandomNormal`.
pub const NORMAL: Random = Random {
    name: "RandomNormal",
    normal: true,
    like: false,
};
/// ONNX `RandomNormalLike`.
pub const NORMAL_LIKE: Random = Random {
    name: "RandomNormalLike",
    normal: true,
    like: true,
};
/// ONNX `RandomUniform`.
pub const UNIFORM: Random = Random {
    name: "RandomUniform",
    normal: false,
    like: false,
};
/// ONNX `RandomUniformLike`.
pub const UNIFORM_LIKE: Random = Random {
    name: "RandomUniformLike",
    normal: false,
    like: true,
};

/// The laws of an operator whose result is another each time.
const IMPURE: Laws = Laws {
    blocks: false,
    impure: true,
    any: false,
    commutes: false,
    associates: false,
    view: false,
    still: false,
    elementwise: false,
    in_place: &[],
};

/// The element type that attribute `dtype` names, if it is there; `fits` says which may be drawn.
fn dtype(n: &NodeRef, fits: fn(DType) -> bool) -> Result<Option<DType>, OpError> {
    let Some(code) = n.int("dtype")? else {
        return Ok(None);
    };
    let found = i32::try_from(code)
        .map(DType::from_code)
        .ok()
        .filter(|d| fits(*d));
    found.map(Some).ok_or_else(|| {
        OpError::new(format!(
            "attribute \"dtype\" is {code}, which is no type that can be drawn"
        ))
    })
}

fn drawable(d: DType) -> bool {
    matches!(d, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
}

impl Random {
    fn draw(&self, n: &NodeRef) -> Result<Draw, OpError> {
        let real = |name, default| Ok(f64::from(n.float_or(name, default)?));
        Ok(match self.normal {
            true => Draw::Normal {
                mean: real("mean", 0.0)?,
                scale: real("scale", 1.0)?,
            },
            false => Draw::Uniform {
                low: real("low", 0.0)?,
                high: real("high", 1.0)?,
            },
        })
    }
}

fn shape(n: &NodeRef) -> Result<Vec<Dim>, OpError> {
    let dims = n.ints("shape")?;
    let dims = dims.ok_or_else(|| OpError::new("attribute \"shape\" is missing"))?;
    match dims.iter().find(|&&d| d < 0) {
        Some(d) => Err(OpError::new(format!("a size of {d} in attribute \"shape\""))),
        None => Ok(dims.iter().copied().map(Dim::Known).collect()),
    }
}

/// A tensor of numbers drawn one by one.
fn drawn(dtype: DType, dims: &[usize], at: impl Fn(u64) -> f64) -> Result<Tensor, OpError> {
    let mut all = room(count(dims))?;
    all.extend((0..count(dims).unwrap_or(0) as u64).map(at));
    let y = Tensor::rounded(dtype, dims, &all);
    y.ok_or_else(|| OpError::new(format!("elements of type {dtype} cannot be drawn")))
}

impl Op for Random {
    fn name(&self) -> OpName {
        onnx(self.name)
    }

    fn since(&self) -> &'static [u16] {
        &[1, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, usize::from(self.like), usize::from(self.like))?;
        self.draw(n)?;
        n.float("seed")?;
        let told = dtype(n, drawable)?;
        if !self.like {
            return Ok(vec![Fact::tensor(
                Some(told.unwrap_or(DType::F32)),
                Some(shape(n)?),
            )]);
        }
        let own = n.dtype(0).filter(|_| told.is_none());
        if let Some(d) = own.filter(|d| !drawable(*d)) {
            return Err(OpError::new(format!("elements of type {d} cannot be drawn")));
        }
        Ok(vec![Fact::tensor(told.or(own), n.shape(0).cloned())])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        Some(super::shape::tied(n.rank(0)?, |i| vec![(0, i)]))
    }

    fn laws(&self) -> Laws {
        IMPURE
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let told = dtype(n, drawable)?;
        let (dims, own) = match self.like {
            true => (given(x, 0)?.dims().to_vec(), given(x, 0)?.dtype()),
            false => (super::shape::sizes(&shape(n)?)?, DType::F32),
        };
        let (draw, stream) = (self.draw(n)?, Stream::new(n.float("seed")?));
        Ok(vec![drawn(told.unwrap_or(own), &dims, |i| draw.at(stream, i))?])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let (Ok(draw), Ok(seed), Some(dtype)) = (self.draw(n), n.float("seed"), n.out_dtype(0)) else {
            return vec![];
        };
        candidate(n, dtype, move |pool, y| fill(pool, y, Stream::new(seed), draw))
    }

    fn cases(&self) -> Vec<Case> {
        let mut case = Case::new("by default", []).attr("shape", vec![40, 301]);
        let mut other = Case::new("another type", []).attr("shape", vec![3, 0, 2]);
        if self.like {
            case = Case::new("by default", [case::floats(&[40, 301], 1)]);
            other = Case::new("another type", [Tensor::of(&[3, 5], vec![0i64; 15])]);
        }
        let (a, b) = if self.normal {
            ("mean", "scale")
        } else {
            ("low", "high")
        };
        vec![
            case.attr("seed", 1.5f32),
            other
                .attr("seed", 2.0f32)
                .attr("dtype", 11)
                .attr(a, -3.0f32)
                .attr(b, 7.0f32)
                .opset(1),
        ]
    }
}

fn candidate(
    n: &NodeRef,
    dtype: DType,
    run: impl Fn(&Pool, &mut ViewMut) + Send + Sync + 'static,
) -> Vec<Candidate> {
    let bytes = n.out_dims(0).and_then(|d| dtype.bytes(count(&d)?)).unwrap_or(0);
    let name = format!("{}.{}", n.node().op.to_lowercase(), short(dtype));
    let run = move |io: &mut Io| run(io.pool, io.output(0));
    match drawable(dtype) {
        true => vec![Candidate::new(name, Cost::bytes(bytes), run)],
        false => vec![],
    }
}

/// Fills `y` on all threads.
fn fill(pool: &Pool, y: &mut ViewMut, stream: Stream, draw: Draw) {
    struct Fill<'a, 'v>(&'a Pool, &'a mut ViewMut<'v>, Stream, Draw);
    impl ByType for Fill<'_, '_> {
        type Out = ();
        fn real<T: Real>(self) {
            let Fill(pool, y, stream, draw) = self;
            chunks(pool, y.slice::<T>(), PART, &|part, y| {
                let places = (part * PART) as u64..;
                y.iter_mut()
                    .zip(places)
                    .for_each(|(y, i)| *y = T::rounded(draw.at(stream, i)));
            });
        }
        fn int<T: Int>(self) {}
    }
    let dtype = y.dtype();
    by_type(dtype, Fill(pool, y, stream, draw));
}

/// ONNX `Bernoulli`: 1 with the probability that the input says, else 0.
pub struct Bernoulli;

impl Op for Bernoulli {
    fn name(&self) -> OpName {
        onnx("Bernoulli")
    }

    fn since(&self) -> &'static [u16] {
        &[15, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        n.float("seed")?;
        if let Some(d) = n.dtype(0).filter(|d| !d.is_float()) {
            return Err(OpError::new(format!(
                "probabilities of type {d}; expected floats"
            )));
        }
        let told = dtype(n, |d| Tensor::rounded(d, &[0], &[]).is_some())?;
        Ok(vec![Fact::tensor(told.or(n.dtype(0)), n.shape(0).cloned())])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        Some(super::shape::tied(n.rank(0)?, |i| vec![(0, i)]))
    }

    fn laws(&self) -> Laws {
        IMPURE
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = given(x, 0)?;
        let told = dtype(n, |_| true)?.unwrap_or(x.dtype());
        let p = x
            .floats()
            .ok_or_else(|| OpError::new(format!("probabilities of type {}; expected floats", x.dtype())))?;
        let stream = Stream::new(n.float("seed")?);
        let one = |i: u64| f64::from(stream.uniform(i) < p[i as usize]);
        Ok(vec![drawn(told, x.dims(), one)?])
    }

    fn cases(&self) -> Vec<Case> {
        let p = || Tensor::of(&[2, 3], vec![0f32, 0.5, 1.0, 0.3, 0.5, 0.9]);
        vec![
            Case::new("by default", [p()]).attr("seed", 0.0f32),
            Case::new("truth values", [p()])
                .attr("seed", 4.0f32)
                .attr("dtype", 9)
                .opset(15),
        ]
    }
}

/// ONNX `Multinomial`: outcomes with the probabilities whose logarithms the input says, not normalised.
pub struct Multinomial;

fn samples(n: &NodeRef) -> Result<usize, OpError> {
    let size = n.int_or("sample_size", 1)?;
    usize::try_from(size).map_err(|_| OpError::new(format!("a sample_size of {size}")))
}

fn outcome_type(d: DType) -> bool {
    matches!(d, DType::I32 | DType::I64)
}

/// The outcome at `u` in `[0, 1)` of probabilities that are not normalised.
fn outcome(p: &[f64], u: f64) -> usize {
    let mut left = u * p.iter().sum::<f64>();
    for (i, p) in p.iter().enumerate() {
        left -= p;
        if left < 0.0 {
            return i;
        }
    }
    p.iter().rposition(|&p| p > 0.0).unwrap_or(0)
}

impl Op for Multinomial {
    fn name(&self) -> OpName {
        onnx("Multinomial")
    }

    fn since(&self) -> &'static [u16] {
        &[7, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        n.float("seed")?;
        let batch = ranked(n, 0, 2)?.map_or(Dim::Unknown, |s| s[0].clone());
        let told = dtype(n, outcome_type)?.unwrap_or(DType::I32);
        Ok(vec![Fact::tensor(
            Some(told),
            Some(vec![batch, samples(n)?.into()]),
        )])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn laws(&self) -> Laws {
        IMPURE
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = given(x, 0)?;
        let (&[batch, classes], Some(log)) = (x.dims(), x.floats()) else {
            return Err(OpError::new("expected floats [batch, classes]"));
        };
        if classes == 0 && batch > 0 {
            return Err(OpError::new("there is no class to draw"));
        }
        let (size, stream) = (samples(n)?, Stream::new(n.float("seed")?));
        let mut all = room(count(&[batch, size]))?;
        for (row, log) in log.chunks(classes.max(1)).enumerate() {
            let top = log.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let p: Vec<f64> = log.iter().map(|l| (l - top).exp()).collect();
            all.extend((0..size).map(|i| outcome(&p, stream.uniform((row * size + i) as u64)) as f64));
        }
        let told = dtype(n, outcome_type)?.unwrap_or(DType::I32);
        let y = Tensor::rounded(told, &[batch, size], &all);
        Ok(vec![y.ok_or_else(|| {
            OpError::new("the outcomes do not fit their type")
        })?])
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("one", [case::floats(&[3, 4], 1)]).attr("seed", 1.0f32),
            Case::new("many", [case::floats(&[2, 5], 1)])
                .attr("seed", 1.0f32)
                .attr("sample_size", 50)
                .attr("dtype", 7)
                .opset(7),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_moments_that_are_asked_for() {
        let stream = Stream::new(Some(3.0));
        let n = 100_000u64;
        let mean = |f: &dyn Fn(u64) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
        let (u, g) = (mean(&|i| stream.uniform(i)), mean(&|i| stream.normal(i)));
        let v = mean(&|i| stream.normal(i).powi(2));
        assert!(
            (u - 0.5).abs() < 5e-3 && g.abs() < 1e-2 && (v - 1.0).abs() < 2e-2,
            "{u} {g} {v}"
        );
        assert!((0..n).all(|i| (0.0..1.0).contains(&stream.uniform(i))));
    }

    #[test]
    fn streams_without_a_seed_differ() {
        assert_ne!(Stream::new(None).uniform(0), Stream::new(None).uniform(0));
        assert_eq!(
            Stream::new(Some(1.0)).uniform(7),
            Stream::new(Some(1.0)).uniform(7)
        );
    }

    #[test]
    fn outcomes_follow_their_probabilities() {
        assert_eq!(outcome(&[0.0, 1.0, 3.0], 0.0), 1);
        assert_eq!(outcome(&[0.0, 1.0, 3.0], 0.26), 2);
        assert_eq!(outcome(&[1.0, 0.0], 0.999_999_999), 0);
    }
}
