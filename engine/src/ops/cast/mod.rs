//! Element types changed.

mod cpu;
mod text;

pub(super) use cpu::widened;

use super::pick::given;
use super::shape::{arity, with_data};
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::Candidate;
use crate::cpu::number::Numbers;
use crate::ir::small::{self, Towards};
use crate::ir::{DType, Tensor};

/// ONNX `Cast`.
///
/// Floats become the nearest float; towards integers they are cut off and saturate, NaN is 0, but of those of 2 and 4 bits
/// they give the low bits. Integers keep their low bits. What is not 0 is true. Numbers become the shortest decimals that
/// stand for them, without exponents.
pub struct Cast;

/// ONNX `CastLike`: to the element type of another tensor.
pub struct CastLike;

/// How numbers become floats of at most 8 bits that cannot hold them.
#[derive(Clone, Copy, Debug)]
struct Mode {
    /// Whether what is out of range becomes the greatest number, not infinity or NaN.
    saturate: bool,
    /// Where numbers between two powers of two go, if these are all that there is.
    towards: Towards,
}

/// What holds unless attributes say otherwise.
const USUAL: Mode = Mode {
    saturate: true,
    towards: Towards::Up,
};

impl Mode {
    fn of(n: &NodeRef) -> Result<Mode, OpError> {
        let towards = match n.str_or("round_mode", "up")? {
            "up" => Towards::Up,
            "down" => Towards::Down,
            "nearest" => Towards::Nearest,
            other => {
                return Err(OpError::new(format!(
                    "attribute \"round_mode\" is {other:?}; expected \"up\", \"down\" or \"nearest\""
                )));
            }
        };
        Ok(Mode {
            saturate: n.int_or("saturate", 1)? != 0,
            towards,
        })
    }

    /// The code for `x` in `dtype`, a float type of at most 8 bits.
    fn code(self, dtype: DType, x: f64) -> u8 {
        match dtype {
            DType::F8E8M0 => small::scale_code(x, self.towards, self.saturate),
            _ => small::encode(dtype, x, self.saturate),
        }
    }
}

/// The element type that a [`Cast`] node asks for.
fn target(n: &NodeRef) -> Result<DType, OpError> {
    let missing = || OpError::new("attribute \"to\" is missing");
    if n.opset() < 6 {
        let name = n.bytes("to")?.ok_or_else(missing)?;
        let name = String::from_utf8_lossy(name).to_lowercase();
        let found = DType::ALL.iter().find(|d| d.name() == name);
        return found
            .copied()
            .ok_or_else(|| OpError::new(format!("attribute \"to\" is {name:?}, which is no element type")));
    }
    let code = n.int("to")?.ok_or_else(missing)?;
    match i32::try_from(code).map(DType::from_code) {
        Ok(DType::Other(_)) | Err(_) => Err(OpError::new(format!(
            "attribute \"to\" is {code}, which is no element type"
        ))),
        Ok(dtype) => Ok(dtype),
    }
}

/// Whether the type is one that is computed with.
fn numeric(d: DType) -> bool {
    d == DType::Bool || Tensor::rounded(d, &[0], &[]).is_some()
}

fn refuse(from: DType, to: DType) -> OpError {
    OpError::new(format!("casting {from} to {to} is not supported"))
}

/// `x` with elements of type `to`, one by one.
fn cast(x: &Tensor, to: DType, mode: Mode) -> Result<Tensor, OpError> {
    let refuse = || refuse(x.dtype(), to);
    if x.dtype() == to {
        return Ok(x.clone());
    }
    if x.dtype() == DType::String {
        return text::read(x, to, mode);
    }
    if !numeric(x.dtype()) {
        return Err(refuse());
    }
    let numbers = match x.truths() {
        Some(t) => Some(Numbers::Int(t.into_iter().map(i128::from).collect())),
        None => Numbers::of(x),
    };
    let numbers = numbers.ok_or_else(refuse)?;
    match to {
        DType::String => text::write(x, &numbers),
        _ if numeric(to) => converted(numbers, x.dims(), to, mode).ok_or_else(refuse),
        _ => Err(refuse()),
    }
}

/// The tensor of `numbers` as elements of type `to`.
fn converted(numbers: Numbers, dims: &[usize], to: DType, mode: Mode) -> Option<Tensor> {
    let codes = |all: &[f64]| {
        let codes = all.iter().map(|&x| mode.code(to, x)).collect();
        Tensor::of_codes(to, dims, codes)
    };
    match numbers {
        Numbers::Int(all) if to.is_int() => Numbers::Int(all).tensor(to, dims),
        // One rounding only: an f32 is as near to a 64-bit integer as can be.
        Numbers::Int(all) if to == DType::F32 => {
            Some(Tensor::of(dims, all.iter().map(|&x| x as f32).collect()))
        }
        Numbers::Int(all) => {
            let wide = all.iter().map(|&x| x as f64).collect();
            converted(Numbers::Real(wide), dims, to, mode)
        }
        Numbers::Real(all) if small::is_small(to) => codes(&all),
        Numbers::Real(all) if to.is_int() && to.bits() < 8 => {
            let whole = all.iter().map(|&x| (x as i64).into()).collect();
            Numbers::Int(whole).tensor(to, dims)
        }
        Numbers::Real(all) => Tensor::rounded(to, dims, &all),
    }
}

fn inferred(n: &NodeRef, to: Option<DType>) -> Vec<Fact> {
    let shape = n.shape(0).cloned();
    let follows = |d: DType| matches!(d, DType::I32 | DType::I64);
    let data = n.data(0).filter(|_| n.dtype(0).is_some_and(follows));
    vec![with_data(Fact::tensor(to, shape), data)]
}

impl Op for Cast {
    fn name(&self) -> OpName {
        onnx("Cast")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 6, 9, 13, 19, 21, 23, 24, 25]
    }

    fn laws(&self) -> Laws {
        Laws {
            still: true,
            ..Laws::default()
        }
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        Mode::of(n)?;
        Ok(inferred(n, Some(target(n)?)))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![cast(given(x, 0)?, target(n)?, Mode::of(n)?)?])
    }

    fn vjp<'a>(&self, n: &NodeRef, _: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let own = n.dtype(0)?;
        let dy = dy[0]?;
        Some(vec![own.is_float().then(|| super::grad::cast(dy, own))])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        Mode::of(n)
            .ok()
            .and_then(|m| cpu::cast(n, m))
            .into_iter()
            .collect()
    }

    fn cases(&self) -> Vec<Case> {
        let types = DType::ALL.iter().copied().filter(|&d| numeric(d));
        let pairs = types.clone().flat_map(|a| types.clone().map(move |b| (a, b)));
        let mut cases: Vec<_> = pairs
            .filter_map(|(from, to)| {
                let x = cast(&odd_numbers(), from, USUAL).ok()?;
                Some(Case::new("every pair", [x]).attr("to", i64::from(to.code())))
            })
            .collect();
        for to in DType::ALL.iter().copied().filter(|&d| small::is_small(d)) {
            let open = Case::new("not saturated", [odd_numbers()]).attr("to", i64::from(to.code()));
            cases.push(open.attr("saturate", 0i64));
        }
        for mode in ["up", "down", "nearest"] {
            let x = [0.3, 0.375, 1.0, 1e30, 1e-45, 3e38, 0.0].map(|x| x as f32);
            let of = Case::new("powers of two", [Tensor::of(&[7], x.to_vec())]);
            cases.push(
                of.attr("to", i64::from(DType::F8E8M0.code()))
                    .attr("round_mode", mode),
            );
        }
        let few = Tensor::of(&[6], vec![0.1f32, -1e10, f32::NAN, f32::NEG_INFINITY, 3.0, 1e-3]);
        let words = cast(&few, DType::String, USUAL);
        cases.extend(
            words
                .into_iter()
                .flat_map(|w| [1i64, 6, 11].map(|to| Case::new("words", [w.clone()]).attr("to", to))),
        );
        cases.push(Case::new("to words", [few]).attr("to", 8i64));
        let nibbles = Tensor::rounded(DType::I4, &[2, 701], &vec![-3.0; 1402]);
        cases.extend(nibbles.map(|x| Case::new("many of half a byte", [x]).attr("to", 25i64)));
        let large = Tensor::of(&[3], vec![(1i64 << 53) + 1, i64::MIN, 0x0100_0001_0000_0001]);
        cases.extend([
            Case::new("the first version", [case::floats(&[3, 1], 1)])
                .attr("to", "INT32")
                .opset(1),
            Case::new("long", [case::floats(&[123_457], 1)])
                .attr("to", 7i64)
                .attr("saturate", 1i64),
            Case::new("halves", [case::odd_floats(&[40_001], 1)]).attr("to", 10i64),
            Case::new("large integers", [large.clone()]).attr("to", 1i64),
            Case::new("low bits", [large]).attr("to", 2i64),
            Case::new("of a shape", [Tensor::of(&[2], vec![3i64, 4])])
                .attr("to", 6i64)
                .konst(&[0]),
        ]);
        cases
    }
}

/// Numbers that are odd in some type.
fn odd_numbers() -> Tensor {
    let all = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.75,
        1.5,
        255.5,
        256.0,
        -129.0,
        65504.0,
        65520.0,
        1e-7,
        3e9,
        -3e9,
        1e19,
        -1e19,
        2e19,
        1e300,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        127.99,
        1.0 + 1.0 / 2048.0,
    ];
    Tensor::of(&[4, 6], all.to_vec())
}

impl Op for CastLike {
    fn name(&self) -> OpName {
        onnx("CastLike")
    }

    fn since(&self) -> &'static [u16] {
        &[15, 19, 21, 23, 24, 25]
    }

    fn laws(&self) -> Laws {
        Laws {
            still: true,
            ..Laws::default()
        }
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        Mode::of(n)?;
        Ok(inferred(n, n.dtype(1)))
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        Some(super::shape::tied(n.rank(0)?, |i| vec![(0, i)]))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![cast(given(x, 0)?, given(x, 1)?.dtype(), Mode::of(n)?)?])
    }

    fn vjp<'a>(&self, n: &NodeRef, _: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (dy, own) = (dy[0]?, n.dtype(0)?);
        Some(vec![own.is_float().then(|| super::grad::cast(dy, own)), None])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        Mode::of(n)
            .ok()
            .and_then(|m| cpu::cast(n, m))
            .into_iter()
            .collect()
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new(
                "to integers",
                [case::odd_floats(&[3, 5], 1), Tensor::scalar(0i32)],
            ),
            Case::new(
                "to bools",
                [case::odd_floats(&[3, 5], 1), Tensor::bools(&[0], [])],
            )
            .attr("saturate", 1i64),
        ]
    }
}
