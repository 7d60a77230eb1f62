//! `QuantizeLinear`, `DequantizeLinear` and `DynamicQuantizeLinear`: floats as few bits, and back.

mod cases;
mod cpu;
mod grid;

use super::formula::ints;
use super::grad::shaped;
use super::pick::given;
use super::shape::{arity, same_dtype};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, Tie, microsoft, onnx};
use crate::cpu::Candidate;
use crate::expr::{Call, Ex};
use crate::ir::small::{self, to_bf16, to_f16};
use crate::ir::{Attr, DType, Tensor};
pub(crate) use cpu::{Loader, narrow};
pub(crate) use grid::{Grid, Piece};

/// `saturate(round(x / scale) + zero point)`, with a scale for all, for each slice of an axis, or for each block of it.
///
/// ONNX's own, or ONNX Runtime's, whose `axis` has no default.
pub struct Quantize<const MICROSOFT: bool>;

/// `(x - zero point) * scale`, the inverse of [`Quantize`] as far as there is one.
pub struct Dequantize<const MICROSOFT: bool>;

const fn name(microsoft_own: bool, name: &'static str) -> OpName {
    if microsoft_own {
        microsoft(name)
    } else {
        onnx(name)
    }
}

/// The element type that attribute `name` asks for; `None` where it is left out or 0.
fn asked(n: &NodeRef, name: &str) -> Result<Option<DType>, OpError> {
    let code = n.int_or(name, 0)?;
    match i32::try_from(code).map(DType::from_code) {
        _ if code == 0 => Ok(None),
        Ok(DType::Other(_)) | Err(_) => Err(OpError::new(format!(
            "attribute {name:?} is {code}, which is no element type"
        ))),
        Ok(dtype) => Ok(Some(dtype)),
    }
}

/// Refuses an input `i` of another type than `fits` says.
fn typed(n: &NodeRef, i: usize, fits: impl Fn(DType) -> bool, expected: &str) -> Result<(), OpError> {
    match n.dtype(i).filter(|&d| !fits(d)) {
        Some(d) => Err(OpError::new(format!(
            "input {i} is of type {d}; expected {expected}"
        ))),
        None => Ok(()),
    }
}

fn wide_float(d: DType) -> bool {
    d.is_float() && d.bits() >= 16
}

/// The types that numbers are quantised to.
fn quantised_type(d: DType) -> bool {
    let float = small::is_small(d) && d != DType::F8E8M0;
    float || (d.is_int() && d.bits() <= 16)
}

/// How the scales of a node lie along its input; the attributes are read in any case.
fn grid(n: &NodeRef, microsoft_own: bool) -> Result<Option<Grid>, OpError> {
    let (axis, block) = (n.int("axis")?, n.int_or("block_size", 0)?);
    let axis = if microsoft_own { axis } else { axis.or(Some(1)) };
    if block < 0 {
        return Err(OpError::new(format!(
            "attribute \"block_size\" is {block}; expected 0 or more"
        )));
    }
    let (Some(x), Some(scale)) = (n.dims(0), n.dims(1)) else {
        return Ok(None);
    };
    if let Some(zero) = n.dims(2).filter(|z| !Grid::alike(z, &scale)) {
        return Err(OpError::new(format!(
            "the zero point has shape {zero:?}; expected that of the scale, {scale:?}"
        )));
    }
    Grid::new(&x, &scale, axis, block as usize).map(Some)
}

/// Scales that differ along axes tie these to them.
fn axes(n: &NodeRef) -> Option<Axes> {
    let (rank, of_scale) = (n.rank(0)?, n.rank(1)?);
    let along = match of_scale {
        1 if n.dims(1).is_none_or(|d| d != [1]) => NodeRef::axis(n.int_or("axis", 1).ok()?, rank).ok(),
        _ => None,
    };
    let tie = |i: usize| {
        let scales = (1..3).filter(|&s| along == Some(i) && n.has(s)).map(|s| (s, 0));
        Tie {
            output: Some(i),
            inputs: std::iter::once((0, i)).chain(scales).collect(),
        }
    };
    (of_scale <= 1).then(|| Axes((0..rank).map(tie).collect()))
}

/// `x`, rounded to a float type of at least 16 bits.
pub(crate) fn rounded_to(dtype: DType, x: f64) -> f64 {
    match dtype {
        DType::F16 => to_f16(x).into(),
        DType::BF16 => to_bf16(x).into(),
        DType::F64 => x,
        _ => f64::from(x as f32),
    }
}

/// `sum * factor + zero` in a type of 8 bits: an integer is rounded before the zero point is added.
pub(crate) fn code_of(to: DType, sum: f64, factor: f64, zero: f64) -> u8 {
    let scaled = f64::from(sum as f32 * factor as f32);
    match small::limits(to) {
        Some((low, high)) => {
            let whole = scaled.round_ties_even().clamp(-1e9, 1e9) as i64;
            (whole + zero as i64).clamp(low, high) as u8
        }
        None => small::encode(to, scaled + zero, true),
    }
}

/// What a [`Quantize`] node asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantiser {
    /// The element type of the result.
    to: DType,
    /// The type in which it is divided.
    precision: DType,
    /// Whether what is out of range becomes the greatest number of a float type.
    saturate: bool,
}

impl Quantiser {
    /// `None` where the types of the inputs are not known.
    fn of(n: &NodeRef) -> Result<(Option<DType>, Option<Quantiser>), OpError> {
        let (asked_for, precision) = (asked(n, "output_dtype")?, asked(n, "precision")?);
        let saturate = n.int_or("saturate", 1)? != 0;
        typed(n, 0, |d| wide_float(d) || d == DType::I32, "floats")?;
        let scales = |d| wide_float(d) || matches!(d, DType::I32 | DType::F8E8M0);
        typed(n, 1, scales, "floats")?;
        if let Some(d) = precision.filter(|&d| !wide_float(d)) {
            return Err(OpError::new(format!(
                "attribute \"precision\" is {d}; expected a float type"
            )));
        }
        let to = match (n.has(2), n.dtype(2), asked_for) {
            (true, Some(zero), Some(asked)) if zero != asked => {
                return Err(OpError::new(format!(
                    "the zero point is of type {zero}; attribute \"output_dtype\" asks for {asked}"
                )));
            }
            (true, zero, asked) => zero.or(asked),
            (false, _, asked) => asked.or(Some(DType::U8)),
        };
        if let Some(d) = to.filter(|&d| !quantised_type(d)) {
            return Err(OpError::new(format!("nothing is quantised to {d}")));
        }
        let (Some(known), Some(x), Some(scale)) = (to, n.dtype(0), n.dtype(1)) else {
            return Ok((to, None));
        };
        let own = if wide_float(scale) { scale } else { x };
        let own = if wide_float(own) { own } else { DType::F32 };
        let quantiser = Quantiser {
            to: known,
            precision: precision.unwrap_or(own),
            saturate,
        };
        Ok((to, Some(quantiser)))
    }

    /// The quotient, rounded as the node asks.
    fn quotient(&self, x: f64, scale: f64) -> f64 {
        let r = |x| rounded_to(self.precision, x);
        r(r(x) / r(scale))
    }

    /// The code, or the low bits of the integer.
    fn code(&self, x: f64, scale: f64, zero: f64) -> i64 {
        let q = self.quotient(x, scale);
        match small::limits(self.to) {
            // NaN becomes the zero point.
            Some((low, high)) => {
                let whole = q.round_ties_even().clamp(-1e9, 1e9) as i64;
                (whole + zero as i64).clamp(low, high)
            }
            None if zero == 0.0 => small::encode(self.to, q, self.saturate).into(),
            None => {
                let sum = rounded_to(self.precision, q + zero);
                small::encode(self.to, sum, self.saturate).into()
            }
        }
    }

    /// The tensor of codes.
    fn tensor(&self, dims: &[usize], codes: Vec<i64>) -> Option<Tensor> {
        Some(match self.to {
            DType::U16 => Tensor::of(dims, codes.iter().map(|&c| c as u16).collect()),
            DType::I16 => Tensor::of(dims, codes.iter().map(|&c| c as i16).collect()),
            d => return Tensor::of_codes(d, dims, codes.iter().map(|&c| c as u8).collect()),
        })
    }
}

/// The elements of input `i` as `f64`; `absent` where it is left out.
fn numbers(x: &[Option<&Tensor>], i: usize, absent: f64) -> Result<Vec<f64>, OpError> {
    match x.get(i).copied().flatten() {
        None => Ok(vec![absent]),
        Some(t) => t
            .floats()
            .ok_or_else(|| OpError::new(format!("input {i} is of type {}; expected numbers", t.dtype()))),
    }
}

impl<const MICROSOFT: bool> Op for Quantize<MICROSOFT> {
    fn name(&self) -> OpName {
        name(MICROSOFT, "QuantizeLinear")
    }

    fn since(&self) -> &'static [u16] {
        if MICROSOFT {
            &[1]
        } else {
            &[10, 13, 19, 21, 23, 24, 25]
        }
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 3)?;
        let (to, _) = Quantiser::of(n)?;
        grid(n, MICROSOFT)?;
        Ok(vec![Fact::tensor(to, n.shape(0).cloned())])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        super::pick::knowing(n, x, |n| {
            let (data, missing) = (given(x, 0)?, || OpError::new("expected numbers and a scale"));
            let quantiser = Quantiser::of(n)?.1.ok_or_else(missing)?;
            let grid = grid(n, MICROSOFT)?.ok_or_else(missing)?;
            let (all, scale, zero) = (numbers(x, 0, 0.0)?, numbers(x, 1, 1.0)?, numbers(x, 2, 0.0)?);
            let code = |(i, &v): (usize, &f64)| {
                let at = grid.place(i);
                quantiser.code(v, scale[at], zero[at.min(zero.len() - 1)])
            };
            let codes = all.iter().enumerate().map(code).collect();
            Ok(vec![quantiser.tensor(data.dims(), codes).ok_or_else(missing)?])
        })
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let (Ok((_, Some(quantiser))), Ok(Some(grid))) = (Quantiser::of(n), grid(n, MICROSOFT)) else {
            return vec![];
        };
        cpu::quantize(n, quantiser, grid).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        if MICROSOFT {
            cases::quantize_microsoft()
        } else {
            cases::quantize()
        }
    }
}

/// The element type of what a [`Dequantize`] node makes.
fn restored(n: &NodeRef) -> Result<Option<DType>, OpError> {
    let asked = asked(n, "output_dtype")?;
    typed(
        n,
        0,
        |d| quantised_type(d) || d == DType::I32,
        "quantised numbers",
    )?;
    typed(n, 1, |d| wide_float(d) || d == DType::F8E8M0, "floats")?;
    if let (Some(x), Some(zero)) = (n.dtype(0), n.dtype(2))
        && x != zero
    {
        return Err(OpError::new(format!(
            "the zero point is of type {zero}; expected that of the input, {x}"
        )));
    }
    let own = n.dtype(1).map(|d| if wide_float(d) { d } else { DType::F32 });
    match asked.or(own).filter(|&d| !wide_float(d)) {
        Some(d) => Err(OpError::new(format!("nothing is dequantised to {d}"))),
        None => Ok(asked.or(own)),
    }
}

impl<const MICROSOFT: bool> Op for Dequantize<MICROSOFT> {
    fn name(&self) -> OpName {
        name(MICROSOFT, "DequantizeLinear")
    }

    fn since(&self) -> &'static [u16] {
        if MICROSOFT {
            &[1]
        } else {
            &[10, 13, 19, 21, 23, 24, 25]
        }
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 3)?;
        let to = restored(n)?;
        grid(n, MICROSOFT)?;
        Ok(vec![Fact::tensor(to, n.shape(0).cloned())])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        super::pick::knowing(n, x, |n| {
            let (data, missing) = (given(x, 0)?, || OpError::new("expected numbers and a scale"));
            let (to, grid) = (
                restored(n)?.ok_or_else(missing)?,
                grid(n, MICROSOFT)?.ok_or_else(missing)?,
            );
            let (all, scale, zero) = (numbers(x, 0, 0.0)?, numbers(x, 1, 1.0)?, numbers(x, 2, 0.0)?);
            let r = |x| rounded_to(DType::F32, x);
            let number = |(i, &v): (usize, &f64)| {
                let at = grid.place(i);
                r(r(r(v) - zero[at.min(zero.len() - 1)]) * r(scale[at]))
            };
            let numbers: Vec<_> = all.iter().enumerate().map(number).collect();
            Ok(vec![
                Tensor::rounded(to, data.dims(), &numbers).ok_or_else(missing)?,
            ])
        })
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (scale, y, dy) = (x[1]?, y[0]?, dy[0]?);
        if n.rank(1)? > 1
            || asked(n, "output_dtype")
                .ok()?
                .is_some_and(|d| Some(d) != n.dtype(1))
        {
            return None;
        }
        let product = dy * y;
        let sums = match axes(n)?.0.into_iter().find(|t| t.inputs.contains(&(1, 0))) {
            Some(tie) => {
                let others: Vec<_> = (0..n.rank(0)? as i64)
                    .filter(|&a| Some(a as usize) != tie.output)
                    .collect();
                product.with("ReduceSum", &[ints(y, &others)], vec![Attr::new("keepdims", 0)])
            }
            None => shaped(
                n,
                1,
                scale,
                product.with("ReduceSum", &[], vec![Attr::new("keepdims", 0)]),
            ),
        };
        Some(vec![None, Some(sums / scale)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let (Ok(Some(to)), Ok(Some(grid))) = (restored(n), grid(n, MICROSOFT)) else {
            return vec![];
        };
        cpu::dequantize(n, to, grid).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        if MICROSOFT {
            cases::dequantize_microsoft()
        } else {
            cases::dequantize()
        }
    }
}

/// ONNX `DynamicQuantizeLinear`: floats as bytes, with the scale and zero point of a range that holds them all and 0.
pub struct DynamicQuantizeLinear;

impl Op for DynamicQuantizeLinear {
    fn name(&self) -> OpName {
        onnx("DynamicQuantizeLinear")
    }

    fn since(&self) -> &'static [u16] {
        &[11]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        same_dtype(n)?;
        typed(n, 0, |d| d == DType::F32, "float")?;
        let scalar = |dtype| Fact::tensor(Some(dtype), Some(vec![]));
        Ok(vec![
            Fact::tensor(Some(DType::U8), n.shape(0).cloned()),
            scalar(DType::F32),
            scalar(DType::U8),
        ])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        Some(super::shape::tied(n.rank(0)?, |i| vec![(0, i)]))
    }

    fn body<'a>(&self, _: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let x = *x.first()?;
        let zero = x.constant(0.0);
        let end = |reduce: &str, adjust: &str| {
            let keep = vec![Attr::new("keepdims", 0i64)];
            x.with(reduce, &[], keep).op(adjust, &[zero])
        };
        let (low, high) = (end("ReduceMin", "Min"), end("ReduceMax", "Max"));
        let scale = (high - low) / 255.0;
        let place = (zero - low / scale).op("Clip", &[zero, x.constant(255.0)]);
        let to = vec![Attr::new("to", i64::from(DType::U8.code()))];
        let place = place.op("Round", &[]).with("Cast", &[], to);
        Some(vec![x.op("QuantizeLinear", &[scale, place]), scale, place])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::dynamic(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        cases::dynamic()
    }
}

/// `(x - zero) * scale`, for the bodies of operators on quantised tensors; `i` are the inputs of x, scale and zero point.
pub(crate) fn dequantised<'a>(n: &NodeRef, x: &[Ex<'a>], i: [usize; 3]) -> Option<Ex<'a>> {
    call(n, x, "DequantizeLinear", *x.get(i[0])?, [i[1], i[2]])
}

/// `y` in the quantised form whose scale and zero point are inputs `i`.
pub(crate) fn requantised<'a>(n: &NodeRef, x: &[Ex<'a>], y: Ex<'a>, i: [usize; 2]) -> Option<Ex<'a>> {
    call(n, x, "QuantizeLinear", y, i)
}

fn call<'a>(n: &NodeRef, x: &[Ex<'a>], op: &str, first: Ex<'a>, i: [usize; 2]) -> Option<Ex<'a>> {
    let zero = x.get(i[1]).filter(|_| n.has(i[1])).copied();
    // Without a zero point, quantisation would make unsigned bytes of whatever the node has.
    let signed = op == "QuantizeLinear" && n.dtype(0) == Some(DType::I8);
    let zero = zero.or(signed.then(|| first.tensor(Tensor::scalar(0i8))));
    let inputs = [Some(first.id), Some(x.get(i[0])?.id), zero.map(|z| z.id)];
    let call = Call {
        domain: "",
        op,
        inputs: &inputs,
        attrs: vec![],
        outputs: 1,
    };
    first.call(call).first().copied()
}
