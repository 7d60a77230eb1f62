//! Element types changed.

mod cpu;

pub(super) use cpu::widened;

use super::pick::given;
use super::shape::{arity, with_data};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::Candidate;
use crate::cpu::number::Numbers;
use crate::ir::{DType, Tensor};

/// ONNX `Cast`.
///
/// Floats become the nearest float; towards integers they are cut off and saturate, NaN is 0. Integers keep their low
/// bits. What is not 0 is true.
pub struct Cast;

/// ONNX `CastLike`: to the element type of another tensor.
pub struct CastLike;

/// The element type that a [`Cast`] node asks for.
fn target(n: &NodeRef) -> Result<DType, OpError> {
    n.ignore(&["saturate", "round_mode"]);
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
fn cast(x: &Tensor, to: DType) -> Result<Tensor, OpError> {
    let refuse = || refuse(x.dtype(), to);
    if x.dtype() == to {
        return Ok(x.clone());
    }
    match (x.dtype(), to) {
        (DType::String, to) if numeric(to) => return parsed(x, to),
        (from, DType::String) if numeric(from) => return written(x).ok_or_else(refuse),
        (from, to) if !numeric(from) || !numeric(to) => return Err(refuse()),
        _ => {}
    }
    let numbers = match x.truths() {
        Some(t) => Some(Numbers::Int(t.into_iter().map(i128::from).collect())),
        None => Numbers::of(x),
    };
    let y = match numbers.ok_or_else(refuse)? {
        Numbers::Int(all) if to.is_int() => Numbers::Int(all).tensor(to, x.dims()),
        // One rounding only: an f32 is as near to a 64-bit integer as can be.
        Numbers::Int(all) if to == DType::F32 => {
            Some(Tensor::of(x.dims(), all.iter().map(|&x| x as f32).collect()))
        }
        Numbers::Int(all) => {
            let wide: Vec<_> = all.iter().map(|&x| x as f64).collect();
            Tensor::rounded(to, x.dims(), &wide)
        }
        Numbers::Real(all) => Tensor::rounded(to, x.dims(), &all),
    };
    y.ok_or_else(refuse)
}

/// The numbers that strings spell. Where integers are asked for, a fraction is cut off.
fn parsed(x: &Tensor, to: DType) -> Result<Tensor, OpError> {
    let texts = x.strings().iter().map(|s| String::from_utf8_lossy(s));
    let wrong = |s: &str| OpError::new(format!("{s:?} is no number"));
    let real = |s: &str| s.trim().parse::<f64>().map_err(|_| wrong(s));
    let numbers = match to.is_int() {
        false => Numbers::Real(texts.map(|s| real(&s)).collect::<Result<_, _>>()?),
        true => {
            let int = |s: &str| match s.trim().parse::<i128>() {
                Ok(i) => Ok(i),
                Err(_) => real(s).map(|x| x as i128),
            };
            Numbers::Int(texts.map(|s| int(&s)).collect::<Result<_, _>>()?)
        }
    };
    let y = match numbers {
        // One rounding only.
        Numbers::Real(_) if to == DType::F32 => {
            let single = |s: &Vec<u8>| String::from_utf8_lossy(s).trim().parse().unwrap_or(f32::NAN);
            Some(Tensor::of(x.dims(), x.strings().iter().map(single).collect()))
        }
        Numbers::Real(all) => Tensor::rounded(to, x.dims(), &all),
        ints => ints.tensor(to, x.dims()),
    };
    y.ok_or_else(|| refuse(x.dtype(), to))
}

/// Numbers as strings: the fewest digits that tell a float from its neighbours, without an exponent.
fn written(x: &Tensor) -> Option<Tensor> {
    fn real(x: impl num_traits::Float + std::fmt::Display) -> String {
        match (x.is_infinite(), x.is_sign_negative()) {
            (true, true) => "-INF".into(),
            (true, false) => "INF".into(),
            _ => x.to_string(),
        }
    }
    let all: Vec<String> = match (x.dtype(), Numbers::of(x)) {
        (DType::F64, Some(Numbers::Real(all))) => all.into_iter().map(real).collect(),
        (_, Some(Numbers::Real(all))) => all.into_iter().map(|x| real(x as f32)).collect(),
        (_, Some(Numbers::Int(all))) => all.iter().map(i128::to_string).collect(),
        (_, None) => x.ints()?.iter().map(i64::to_string).collect(),
    };
    Some(Tensor::texts(x.dims(), all))
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

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        Ok(inferred(n, Some(target(n)?)))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![cast(given(x, 0)?, target(n)?)?])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::cast(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let types = DType::ALL.iter().copied().filter(|&d| numeric(d));
        let pairs = types.clone().flat_map(|a| types.clone().map(move |b| (a, b)));
        let mut cases: Vec<_> = pairs
            .filter_map(|(from, to)| {
                let x = cast(&odd_numbers(), from).ok()?;
                Some(Case::new("every pair", [x]).attr("to", i64::from(to.code())))
            })
            .collect();
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
            Case::new("to strings", [case::odd_floats(&[3, 5], 1)]).attr("to", 8i64),
            Case::new("integers to strings", [Tensor::of(&[2], vec![u64::MAX, 0])]).attr("to", 8i64),
            Case::new("from strings", [words(&["1e-5", "+INF", "-inf", "nan", "7"])]).attr("to", 1i64),
            Case::new("from strings to integers", [words(&["-12", "100.5", "0"])]).attr("to", 6i64),
            Case::new("of a shape", [Tensor::of(&[2], vec![3i64, 4])])
                .attr("to", 6i64)
                .konst(&[0]),
        ]);
        cases
    }
}

fn words(all: &[&str]) -> Tensor {
    Tensor::texts(&[all.len()], all.iter().copied())
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

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 2)?;
        n.ignore(&["saturate", "round_mode"]);
        Ok(inferred(n, n.dtype(1)))
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        Some(super::shape::tied(n.rank(0)?, |i| vec![(0, i)]))
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![cast(given(x, 0)?, given(x, 1)?.dtype())?])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu::cast(n).into_iter().collect()
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
