//! `BitwiseAnd`, `BitwiseOr`, `BitwiseXor`, `BitwiseNot` and `BitShift`: integers bit by bit.

use super::binary::{self, align};
use super::pick::given;
use super::shape::{arity, like_first};
use super::{Axes, Case, Fact, Laws, NodeRef, Op, OpError, OpName, onnx};
use crate::cpu::number::Numbers;
use crate::cpu::walk::Walk;
use crate::cpu::{Candidate, Kernel, elementwise};
use crate::ir::{DType, Tensor, count};

/// A function of the bits of two numbers.
pub trait Bits: Copy + Send + Sync + 'static {
    /// The operator's name.
    const NAME: &'static str;
    /// Its result, of which the low bits are kept.
    fn of(a: u64, b: u64) -> u64;
}

/// The operator of some [`Bits`].
pub struct Bitwise<F>(pub F);

/// Bits that are set in both numbers.
#[derive(Clone, Copy)]
pub struct And;
impl Bits for And {
    const NAME: &'static str = "BitwiseAnd";
    fn of(a: u64, b: u64) -> u64 {
        a & b
    }
}

/// Bits that are set in either number.
#[derive(Clone, Copy)]
pub struct Or;
impl Bits for Or {
    const NAME: &'static str = "BitwiseOr";
    fn of(a: u64, b: u64) -> u64 {
        a | b
    }
}

/// Bits in which the numbers differ.
#[derive(Clone, Copy)]
pub struct Xor;
impl Bits for Xor {
    const NAME: &'static str = "BitwiseXor";
    fn of(a: u64, b: u64) -> u64 {
        a ^ b
    }
}

fn integers(n: &NodeRef, signed: bool) -> Result<(), OpError> {
    let fits = |d: DType| {
        let sign = matches!(d, DType::I8 | DType::I16 | DType::I32 | DType::I64);
        d.is_int() && d.bits() >= 8 && (signed || !sign)
    };
    match n.dtype(0).or(n.dtype(1)).filter(|&d| !fits(d)) {
        Some(d) => Err(OpError::new(format!(
            "inputs of type {d}; expected {} of 8 to 64 bits",
            if signed { "integers" } else { "unsigned integers" }
        ))),
        None => Ok(()),
    }
}

fn eval(n: &NodeRef, x: &[Option<&Tensor>], f: impl Fn(u64, u64) -> u64) -> Result<Vec<Tensor>, OpError> {
    let [a, b] = binary::two(x)?;
    let ([da, db], out) = binary::together(n, align, a.dims(), b.dims())?;
    let at = binary::stretch(&da, &out)
        .into_iter()
        .zip(binary::stretch(&db, &out));
    let y = match (Numbers::of(a), Numbers::of(b)) {
        (Some(Numbers::Int(x)), Some(Numbers::Int(y))) if a.dtype() == b.dtype() => {
            let y = at.map(|(i, j)| f(x[i] as u64, y[j] as u64).into()).collect();
            Numbers::Int(y).tensor(a.dtype(), &out)
        }
        _ => None,
    };
    let wrong = || OpError::new(format!("no common bits of {} and {}", a.dtype(), b.dtype()));
    Ok(vec![y.ok_or_else(wrong)?])
}

fn cpu(n: &NodeRef, f: impl Fn(u64, u64) -> u64 + Copy + Send + Sync + 'static) -> Vec<Candidate> {
    let walk = binary::walk(n, align);
    let kernel = walk.zip(n.dtype(0)).and_then(|(w, d)| kernel(w, d.bits(), f));
    kernel.into_iter().map(|k| binary::candidate(n, "", k)).collect()
}

fn kernel(
    walk: Walk<2>,
    bits: usize,
    f: impl Fn(u64, u64) -> u64 + Copy + Send + Sync + 'static,
) -> Option<Box<dyn Kernel>> {
    Some(match bits {
        8 => elementwise::zip(walk, move |a: u8, b: u8| f(a.into(), b.into()) as u8),
        16 => elementwise::zip(walk, move |a: u16, b: u16| f(a.into(), b.into()) as u16),
        32 => elementwise::zip(walk, move |a: u32, b: u32| f(a.into(), b.into()) as u32),
        64 => elementwise::zip(walk, f),
        _ => return None,
    })
}

fn cases() -> Vec<Case> {
    let words = |dims: &[usize], k: u32| {
        let n = dims.iter().product::<usize>() as u32;
        Tensor::of::<u32>(dims, (0..n).map(|i| i.wrapping_mul(k)).collect())
    };
    vec![
        Case::new("words", [words(&[3, 7], 0x9e37_79b9), words(&[7], 0x85eb_ca6b)]),
        Case::new(
            "bytes",
            [
                Tensor::of(&[2, 2], vec![0u8, 255, 0xf0, 0x5a]),
                Tensor::of(&[1], vec![0x3cu8]),
            ],
        ),
        Case::new(
            "wide",
            [
                Tensor::of(&[2], vec![u64::MAX, 1 << 63]),
                Tensor::of(&[2], vec![0x0123_4567_89ab_cdefu64, u64::MAX]),
            ],
        ),
        Case::new(
            "short",
            [
                Tensor::of(&[2], vec![u16::MAX, 3]),
                Tensor::of(&[2], vec![1u16, 2]),
            ],
        ),
        Case::new("nothing", [words(&[0, 3], 1), words(&[3], 1)]),
    ]
}

impl<F: Bits> Op for Bitwise<F> {
    fn name(&self) -> OpName {
        onnx(F::NAME)
    }

    fn since(&self) -> &'static [u16] {
        &[18]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        integers(n, true)?;
        Ok(vec![binary::infer_same(n, align, None)?])
    }

    fn laws(&self) -> Laws {
        Laws {
            commutes: true,
            associates: true,
            in_place: &[0, 1],
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(n, x, F::of)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        cpu(n, F::of)
    }

    fn cases(&self) -> Vec<Case> {
        let signed = [
            Tensor::of(&[3], vec![-1i8, 5, -128]),
            Tensor::of(&[3], vec![7i8, -2, 127]),
        ];
        let mut all = cases();
        all.push(Case::new("signed", signed).opset(18));
        all
    }
}

/// ONNX `BitShift`: unsigned integers shifted to the left or to the right; what is shifted out is lost.
pub struct BitShift;

fn left(n: &NodeRef) -> Result<bool, OpError> {
    match n.str_or("direction", "")? {
        "LEFT" => Ok(true),
        "RIGHT" => Ok(false),
        other => Err(OpError::new(format!(
            "attribute \"direction\" is {other:?}; expected \"LEFT\" or \"RIGHT\""
        ))),
    }
}

fn shifted(left: bool) -> impl Fn(u64, u64) -> u64 + Copy + Send + Sync + 'static {
    move |x, by| {
        let by = u32::try_from(by).unwrap_or(u32::MAX);
        let shifted = if left {
            x.checked_shl(by)
        } else {
            x.checked_shr(by)
        };
        shifted.unwrap_or(0)
    }
}

impl Op for BitShift {
    fn name(&self) -> OpName {
        onnx("BitShift")
    }

    fn since(&self) -> &'static [u16] {
        &[11]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        left(n)?;
        integers(n, false)?;
        Ok(vec![binary::infer_same(n, align, None)?])
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0, 1],
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        eval(n, x, shifted(left(n)?))
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        left(n).map_or(vec![], |left| cpu(n, shifted(left)))
    }

    fn cases(&self) -> Vec<Case> {
        let by = |d: &str| cases().into_iter().map(move |c| c.attr("direction", d)).collect();
        let few = [
            Tensor::of(&[4], vec![1u8, 0x81, 255, 3]),
            Tensor::of(&[4], vec![0u8, 1, 7, 8]),
        ];
        let mut all: Vec<Case> = by("RIGHT");
        all.push(Case::new("to the left", few).attr("direction", "LEFT").opset(11));
        all
    }
}

/// ONNX `BitwiseNot`: every bit turned over.
pub struct Not;

impl Op for Not {
    fn name(&self) -> OpName {
        onnx("BitwiseNot")
    }

    fn since(&self) -> &'static [u16] {
        &[18]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        integers(n, true)?;
        like_first(n)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        super::shape::aligned(n)
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0],
            ..Laws::default()
        }
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = given(x, 0)?;
        let y = match Numbers::of(x) {
            Some(Numbers::Int(all)) => {
                Numbers::Int(all.into_iter().map(|x| !x).collect()).tensor(x.dtype(), x.dims())
            }
            _ => None,
        };
        let wrong = || OpError::new(format!("no bits of {}", x.dtype()));
        Ok(vec![y.ok_or_else(wrong)?])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let Some((len, dtype)) = n.dims(0).as_deref().and_then(count).zip(n.dtype(0)) else {
            return vec![];
        };
        let kernel = match dtype.bits() {
            8 => elementwise::each(len, |x: u8| !x),
            16 => elementwise::each(len, |x: u16| !x),
            32 => elementwise::each(len, |x: u32| !x),
            64 => elementwise::each(len, |x: u64| !x),
            _ => return vec![],
        };
        vec![binary::candidate(n, "", kernel)]
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("bytes", [Tensor::of(&[3], vec![0u8, 255, 0x5a])]),
            Case::new("signed", [Tensor::of(&[2, 1], vec![-1i32, 77])]),
            Case::new("wide", [Tensor::of(&[1], vec![1u64])]),
            Case::new("short", [Tensor::of(&[2], vec![1i16, -1])]).opset(18),
            Case::new("nothing", [Tensor::of::<u8>(&[0], vec![])]),
        ]
    }
}
