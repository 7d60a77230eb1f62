//! Comparisons, and logic of truth values.

use super::arith::{axes, never_negative};
use super::binary::{self, align};
use super::case::{floats, odd_floats};
use super::{Axes, Case, Fact, Laws, NodeRef, Op, OpError, OpName, onnx};
use crate::cpu::number::Numbers;
use crate::cpu::walk::Walk;
use crate::cpu::{Candidate, Kernel, blocks, elementwise};
use crate::ir::{DType, Dim, Tensor};

/// A question about two elements.
pub trait Question: Copy + Send + Sync + 'static {
    /// The operator's name.
    const NAME: &'static str;
    /// The opsets at which its meaning changed.
    const SINCE: &'static [u16];
    /// Whether the operands may change places.
    const COMMUTES: bool;
    /// The answer.
    fn ask<T: PartialOrd + Default>(a: T, b: T) -> bool;
    /// Whether it is asked of elements of this type.
    fn takes(dtype: DType) -> bool;
}

/// The operator of some question.
pub struct Compare<Q>(pub Q);

impl<Q: Question> Op for Compare<Q> {
    fn name(&self) -> OpName {
        onnx(Q::NAME)
    }

    fn since(&self) -> &'static [u16] {
        Q::SINCE
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        if let Some(d) = (0..2).find_map(|i| n.dtype(i)).filter(|&d| !Q::takes(d)) {
            return Err(OpError::new(format!("inputs of type {d} cannot be compared so")));
        }
        let fact = binary::infer_same(n, align, Some(DType::Bool))?;
        Ok(vec![binary::follow(n, fact, |x| answer::<Q>(x[0], x[1]))])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        axes(n)
    }

    fn laws(&self) -> Laws {
        Laws {
            commutes: Q::COMMUTES,
            elementwise: true,
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let [a, b] = binary::two(x)?;
        let ([da, db], out) = binary::together(n, align, a.dims(), b.dims())?;
        let at = binary::stretch(&da, &out)
            .into_iter()
            .zip(binary::stretch(&db, &out));
        let wrong = || OpError::new(format!("cannot compare {} with {}", a.dtype(), b.dtype()));
        if a.dtype() != b.dtype() || !Q::takes(a.dtype()) {
            return Err(wrong());
        }
        let y: Vec<bool> = match (a.dtype(), Numbers::of(a), Numbers::of(b)) {
            (DType::String, ..) => {
                let (a, b) = (a.strings(), b.strings());
                at.map(|(i, j)| Q::ask(&a[i][..], &b[j][..])).collect()
            }
            (DType::Bool, ..) => {
                let (a, b) = (a.truths().ok_or_else(wrong)?, b.truths().ok_or_else(wrong)?);
                at.map(|(i, j)| Q::ask(a[i], b[j])).collect()
            }
            (_, Some(Numbers::Real(a)), Some(Numbers::Real(b))) => {
                at.map(|(i, j)| Q::ask(a[i], b[j])).collect()
            }
            (_, Some(Numbers::Int(a)), Some(Numbers::Int(b))) => {
                at.map(|(i, j)| Q::ask(a[i], b[j])).collect()
            }
            _ => return Err(wrong()),
        };
        Ok(vec![Tensor::bools(&out, y)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let kernel = binary::walk(n, align)
            .zip(n.dtype(0))
            .and_then(|(w, d)| kernel::<Q>(w, d));
        kernel.into_iter().map(|k| binary::candidate(n, "", k)).collect()
    }

    fn cases(&self) -> Vec<Case> {
        let mut all = cases();
        all.retain(|c| c.inputs[0].as_ref().is_some_and(|x| Q::takes(x.dtype())));
        all
    }
}

/// The answer for elements of shape computations, of which names are sizes.
fn answer<Q: Question>(a: &Dim, b: &Dim) -> Dim {
    let known = |yes: bool| Dim::Known(yes.into());
    match (a, b) {
        (Dim::Known(a), Dim::Known(b)) => known(Q::ask(*a, *b)),
        _ if !Q::takes(DType::I64) => Dim::Unknown,
        _ if a.same(b) => known(Q::ask(0, 0)),
        (Dim::Known(a), b) if *a < 0 && never_negative(b) => known(Q::ask(0, 1)),
        (a, Dim::Known(b)) if *b < 0 && never_negative(a) => known(Q::ask(1, 0)),
        _ => Dim::Unknown,
    }
}

fn kernel<Q: Question>(walk: Walk<2>, dtype: DType) -> Option<Box<dyn Kernel>> {
    let truths = blocks::truths();
    Some(match dtype {
        DType::F32 => elementwise::zip_floats(walk, |a: f32, b: f32| u8::from(Q::ask(a, b))),
        DType::F64 => elementwise::zip(walk, |a: f64, b: f64| u8::from(Q::ask(a, b))),
        DType::I64 => elementwise::zip(walk, |a: i64, b: i64| u8::from(Q::ask(a, b))),
        DType::I32 => elementwise::zip(walk, |a: i32, b: i32| u8::from(Q::ask(a, b))),
        DType::Bool => elementwise::zip(walk, |a: u8, b: u8| u8::from(Q::ask(a != 0, b != 0))),
        other => match (blocks::floats(other), blocks::ints(other)) {
            (Some(b), _) => blocks::zip(walk, (b, truths), |a, b| u8::from(Q::ask(a, b))),
            (None, Some(b)) => blocks::zip(walk, (b, truths), |a, b| u8::from(Q::ask(a, b))),
            (None, None) => return None,
        },
    })
}

fn cases() -> Vec<Case> {
    let bools = |bits: &[u8]| Tensor::bools(&[bits.len()], bits.iter().map(|&b| b != 0));
    let words = |w: &[&str]| {
        let data = crate::ir::Data::Strings(w.iter().map(|w| w.as_bytes().to_vec()).collect());
        Tensor::new(DType::String, vec![w.len()], data).ok()
    };
    let half = Tensor::rounded(DType::BF16, &[3], &[1.0, -2.0, f64::NAN]);
    let mut all = vec![
        Case::new("odd values", [odd_floats(&[5, 5], 1), odd_floats(&[5, 1], 2)]),
        Case::new("equal ones", [floats(&[40], 1), floats(&[40], 1)]),
        Case::new("nothing", [floats(&[0, 3], 1), floats(&[3], 2)]),
        Case::new(
            "integers",
            [
                Tensor::of(&[3, 1], vec![-1i64, 0, 1]),
                Tensor::of(&[3], vec![-1i64, 0, 1]),
            ],
        ),
        Case::new(
            "shape",
            [Tensor::of(&[3], vec![-1i64, 0, 1]), Tensor::of(&[], vec![-1i64])],
        ),
        Case::new(
            "large",
            [
                Tensor::of(&[2], vec![u64::MAX, 1]),
                Tensor::of(&[2], vec![1, u64::MAX]),
            ],
        ),
        Case::new("truth values", [bools(&[0, 0, 1, 1]), bools(&[0, 1, 0, 1])]),
        Case::new(
            "old truth values",
            [Tensor::bools(&[2, 2], [true, false, true, false]), bools(&[0, 1])],
        )
        .opset(1)
        .attr("broadcast", 1)
        .attr("axis", 0),
        Case::new(
            "old broadcast",
            [
                Tensor::of(&[2, 2], vec![1i32, 2, 3, 4]),
                Tensor::of(&[2], vec![1i32, 3]),
            ],
        )
        .opset(1)
        .attr("broadcast", 1)
        .attr("axis", 0),
    ];
    let strings = words(&["a", "b", "a"]).zip(words(&["a"]));
    all.extend(strings.map(|(a, b)| Case::new("strings", [a, b])));
    all.extend(half.map(|x| Case::new("bfloat16", [x.clone(), x])));
    all
}

/// `a == b`
#[derive(Clone, Copy)]
pub struct Equal;
impl Question for Equal {
    const NAME: &'static str = "Equal";
    const SINCE: &'static [u16] = &[1, 7, 11, 13, 19];
    const COMMUTES: bool = true;
    #[inline(always)]
    fn ask<T: PartialOrd + Default>(a: T, b: T) -> bool {
        a == b
    }
    fn takes(_: DType) -> bool {
        true
    }
}

/// `a > b`
#[derive(Clone, Copy)]
pub struct Greater;
impl Question for Greater {
    const NAME: &'static str = "Greater";
    const SINCE: &'static [u16] = &[1, 7, 9, 13];
    const COMMUTES: bool = false;
    #[inline(always)]
    fn ask<T: PartialOrd + Default>(a: T, b: T) -> bool {
        a > b
    }
    fn takes(dtype: DType) -> bool {
        numeric(dtype)
    }
}

/// `a >= b`
#[derive(Clone, Copy)]
pub struct GreaterOrEqual;
impl Question for GreaterOrEqual {
    const NAME: &'static str = "GreaterOrEqual";
    const SINCE: &'static [u16] = &[12, 16];
    const COMMUTES: bool = false;
    #[inline(always)]
    fn ask<T: PartialOrd + Default>(a: T, b: T) -> bool {
        a >= b
    }
    fn takes(dtype: DType) -> bool {
        numeric(dtype)
    }
}

/// `a < b`
#[derive(Clone, Copy)]
pub struct Less;
impl Question for Less {
    const NAME: &'static str = "Less";
    const SINCE: &'static [u16] = &[1, 7, 9, 13];
    const COMMUTES: bool = false;
    #[inline(always)]
    fn ask<T: PartialOrd + Default>(a: T, b: T) -> bool {
        a < b
    }
    fn takes(dtype: DType) -> bool {
        numeric(dtype)
    }
}

/// `a <= b`
#[derive(Clone, Copy)]
pub struct LessOrEqual;
impl Question for LessOrEqual {
    const NAME: &'static str = "LessOrEqual";
    const SINCE: &'static [u16] = &[12, 16];
    const COMMUTES: bool = false;
    #[inline(always)]
    fn ask<T: PartialOrd + Default>(a: T, b: T) -> bool {
        a <= b
    }
    fn takes(dtype: DType) -> bool {
        numeric(dtype)
    }
}

fn numeric(dtype: DType) -> bool {
    dtype.is_int() || dtype.is_float()
}

/// Whether both are true.
#[derive(Clone, Copy)]
pub struct And;
impl Question for And {
    const NAME: &'static str = "And";
    const SINCE: &'static [u16] = &[1, 7];
    const COMMUTES: bool = true;
    #[inline(always)]
    fn ask<T: PartialOrd + Default>(a: T, b: T) -> bool {
        a > T::default() && b > T::default()
    }
    fn takes(dtype: DType) -> bool {
        dtype == DType::Bool
    }
}

/// Whether one of them is true, or both are.
#[derive(Clone, Copy)]
pub struct Or;
impl Question for Or {
    const NAME: &'static str = "Or";
    const SINCE: &'static [u16] = &[1, 7];
    const COMMUTES: bool = true;
    #[inline(always)]
    fn ask<T: PartialOrd + Default>(a: T, b: T) -> bool {
        a > T::default() || b > T::default()
    }
    fn takes(dtype: DType) -> bool {
        dtype == DType::Bool
    }
}

/// Whether one of them is true, but not both.
#[derive(Clone, Copy)]
pub struct Xor;
impl Question for Xor {
    const NAME: &'static str = "Xor";
    const SINCE: &'static [u16] = &[1, 7];
    const COMMUTES: bool = true;
    #[inline(always)]
    fn ask<T: PartialOrd + Default>(a: T, b: T) -> bool {
        a != b
    }
    fn takes(dtype: DType) -> bool {
        dtype == DType::Bool
    }
}
