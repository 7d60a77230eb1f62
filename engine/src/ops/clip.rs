//! `Clip`: cutting off what is beyond bounds.

use super::binary::candidate;
use super::case::{floats, odd_floats};
use super::grad::{at, only, unless};
use super::{Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, onnx, shape};
use crate::cpu::act;
use crate::cpu::number::{ByType, Int, Numbers, Real, by_type};
use crate::cpu::{Act, Candidate, Io, Kernel, View, blocks, elementwise};
use crate::ir::{DType, Tensor, count};

/// `min(max(x, low), high)`, either bound perhaps left out.
pub struct Clip;

/// The bounds as attributes, before opset 11.
fn attributes(n: &NodeRef) -> Result<[Option<f32>; 2], OpError> {
    if n.opset() >= 11 {
        return Ok([None; 2]);
    }
    if n.opset() < 6 {
        n.ignore(&["consumed_inputs"]);
    }
    Ok([n.float("min")?, n.float("max")?])
}

fn clip<T: PartialOrd>(x: T, low: T, high: T) -> T {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

impl Op for Clip {
    fn name(&self) -> OpName {
        onnx("Clip")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 6, 11, 12, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        attributes(n)?;
        shape::arity(n, 1, if n.opset() < 11 { 1 } else { 3 })?;
        shape::same_dtype(n)?;
        for i in 1..n.arity().min(3) {
            if n.dims(i).as_deref().and_then(count).is_some_and(|c| c != 1) {
                return Err(OpError::new(format!(
                    "input {i} has shape {}; expected a scalar",
                    shape::show(n.shape(i).map_or(&[], |s| s))
                )));
            }
        }
        if let Some(d) = n.dtype(0).filter(|d| !d.is_float() && !d.is_int()) {
            return Err(OpError::new(format!("there is no Clip of {d}")));
        }
        shape::like_first(n)
    }

    fn axes(&self, n: &NodeRef) -> Option<super::Axes> {
        let tie = |i| super::Tie {
            output: Some(i),
            inputs: vec![(0, i)],
        };
        Some(super::Axes((0..n.rank(0)?).map(tie).collect()))
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0],
            elementwise: true,
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let wrong = || OpError::new("expected a tensor of numbers, and bounds that are scalars of its type");
        let bound = |i: usize| match x.get(i).copied().flatten() {
            Some(b) => Some(Numbers::of(b).filter(|_| b.len() == 1).ok_or_else(wrong)).transpose(),
            None => Ok(None),
        };
        let [given_low, given_high] = attributes(n)?;
        let t = x.first().copied().flatten().ok_or_else(wrong)?;
        let (low, high) = (bound(1)?, bound(2)?);
        let y = match Numbers::of(t).ok_or_else(wrong)? {
            Numbers::Real(v) => {
                let real = |b: Option<Numbers>, given: Option<f32>, or: f64| match b {
                    Some(Numbers::Real(b)) => b[0],
                    _ => given.map_or(or, f64::from),
                };
                let low = real(low, given_low, f64::NEG_INFINITY);
                let high = real(high, given_high, f64::INFINITY);
                Numbers::Real(v.into_iter().map(|x| clip(x, low, high)).collect())
            }
            Numbers::Int(v) => {
                let int = |b: Option<Numbers>, or: i128| match b {
                    Some(Numbers::Int(b)) => b[0],
                    _ => or,
                };
                let (low, high) = (int(low, i128::MIN), int(high, i128::MAX));
                Numbers::Int(v.into_iter().map(|x| clip(x, low, high)).collect())
            }
        };
        Ok(vec![y.tensor(t.dtype(), t.dims()).ok_or_else(wrong)?])
    }

    fn activation(&self, n: &NodeRef) -> Option<Act> {
        let given = attributes(n).ok()?;
        let bound = |i: usize, or: f32| match n.has(i) {
            true => n.konst(i)?.elements::<f32>()?.first().copied(),
            false => Some(given[i - 1].unwrap_or(or)),
        };
        Some(Act::Clip {
            lo: bound(1, f32::NEG_INFINITY)?,
            hi: bound(2, f32::INFINITY)?,
        })
    }

    fn vjp<'a>(&self, _: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (x0, dy) = (x[0]?, dy[0]?);
        let (low, high) = (at(x, 1), at(x, 2));
        // The upper bound has the last word where they are crossed.
        let crossed = low.zip(high).map(|(low, high)| high.op("Less", &[low]));
        let dlow = low.map(|low| {
            let below = only(x0.op("Less", &[low]), dy);
            crossed.map_or(below, |crossed| unless(crossed, below))
        });
        let dhigh = high.map(|high| {
            let above = x0.op("Greater", &[high]);
            only(crossed.map_or(above, |crossed| above.op("Or", &[crossed])), dy)
        });
        Some(vec![Some(only(x0.op("Equal", &[y[0]?]), dy)), dlow, dhigh])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let (Some(len), Some(dtype), Ok(given)) =
            (n.dims(0).as_deref().and_then(count), n.dtype(0), attributes(n))
        else {
            return vec![];
        };
        let kernel: Option<Box<dyn Kernel>> = by_type(dtype, Loop { len, dtype, given });
        kernel.into_iter().map(|k| candidate(n, "", k)).collect()
    }

    fn cases(&self) -> Vec<Case> {
        let one = |x: f32| Tensor::of(&[], vec![x]);
        let few = |dtype| Tensor::rounded(dtype, &[5], &[0.0, 1.0, 3.0, 9.0, 27.0]);
        let single = |dtype, x| Tensor::rounded(dtype, &[], &[x]);
        let mut all = vec![
            Case::new("both", [odd_floats(&[5, 7], 1), one(-0.5), one(0.75)]),
            Case::new("only high", [floats(&[37], 1), one(0.0), one(0.75)]).without(1),
            Case::new("only low", [odd_floats(&[37], 1), one(0.25)]),
            Case::new("none", [odd_floats(&[37], 1)]),
            Case::new("crossed", [floats(&[37], 1), one(1.0), one(-1.0)]),
            Case::new("known", [floats(&[40_001], 1), one(0.0), one(1.0)]).konst(&[1, 2]),
            Case::new("nothing", [floats(&[0], 1), one(0.0), one(6.0)]),
            Case::new("old", [floats(&[37], 1)])
                .opset(6)
                .attr("min", 0.0)
                .attr("max", 0.5),
            Case::new("oldest", [floats(&[37], 1)])
                .opset(1)
                .attr("max", 0.5)
                .attr("consumed_inputs", vec![0]),
        ];
        for dtype in [
            DType::F64,
            DType::F16,
            DType::BF16,
            DType::I64,
            DType::I32,
            DType::I8,
            DType::U8,
        ] {
            let tensors = [few(dtype), single(dtype, 2.0), single(dtype, 20.0)];
            let tensors: Option<Vec<_>> = tensors.into_iter().collect();
            all.extend(tensors.map(|x| Case::new("other types", x)));
        }
        all
    }
}

/// A kernel whose bounds are read when it runs.
struct Loop {
    len: usize,
    dtype: DType,
    given: [Option<f32>; 2],
}

/// The only element of input `i`, if it is there.
fn scalar<T: crate::ir::Element>(io: &Io, i: usize) -> Option<T> {
    let view: Option<&View> = io.inputs.get(i)?.as_ref();
    // A bound may be what is clipped, in place.
    let bytes = view?.to_vec();
    bytes.get(..size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

impl ByType for Loop {
    type Out = Box<dyn Kernel>;

    fn real<T: Real>(self) -> Box<dyn Kernel> {
        use num_traits::ToPrimitive;
        let Loop { len, dtype, given } = self;
        Box::new(move |io: &mut Io| {
            let bound = |i: usize, or: f64| match scalar::<T>(io, i + 1) {
                Some(x) => x.wide().to_f64().unwrap_or(or),
                None => given[i].map_or(or, f64::from),
            };
            let (low, high) = (bound(0, f64::NEG_INFINITY), bound(1, f64::INFINITY));
            let cut = act::Clip {
                lo: low as f32,
                hi: high as f32,
            };
            let kernel = match blocks::floats(dtype) {
                Some(b) => blocks::map(len, b, cut),
                None if dtype == DType::F32 => elementwise::map(len, cut),
                None => elementwise::each(len, move |x: f64| clip(x, low, high)),
            };
            kernel.run(io)
        })
    }

    fn int<T: Int>(self) -> Box<dyn Kernel> {
        let len = self.len;
        Box::new(move |io: &mut Io| {
            let low = scalar::<T>(io, 1).unwrap_or(T::min_value());
            let high = scalar::<T>(io, 2).unwrap_or(T::max_value());
            elementwise::each(len, move |x: T| clip(x, low, high)).run(io)
        })
    }
}
