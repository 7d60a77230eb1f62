//! `Not`, `IsNaN` and `IsInf`: questions about one element.

use super::binary::candidate;
use super::case::odd_floats;
use super::{Case, Fact, NodeRef, Op, OpError, OpName, onnx};
use crate::cpu::{Candidate, Kernel, elementwise};
use crate::ir::{DType, Tensor, count};

/// The bits by which a float type tells infinities and NaN.
#[derive(Clone, Copy)]
struct Format {
    /// All bits but the sign.
    size: u64,
    /// Infinity; whatever is above is NaN. `None` for the types without.
    infinity: Option<u64>,
    /// The only NaN of a type without infinities, its sign included or not.
    nan: u64,
    /// Whether that NaN has a sign bit of its own.
    either: bool,
}

fn format(dtype: DType) -> Option<Format> {
    let ieee = |size, infinity| Format {
        size,
        infinity: Some(infinity),
        nan: 0,
        either: false,
    };
    let finite = |nan, either| Format {
        size: 0x7f,
        infinity: None,
        nan,
        either,
    };
    Some(match dtype {
        DType::F64 => ieee(u64::MAX >> 1, 0x7ff << 52),
        DType::F32 => ieee(0x7fff_ffff, 0x7f80_0000),
        DType::F16 => ieee(0x7fff, 0x7c00),
        DType::BF16 => ieee(0x7fff, 0x7f80),
        DType::F8E5M2 => ieee(0x7f, 0x7c),
        DType::F8E4M3FN => finite(0x7f, true),
        DType::F8E4M3FNUZ | DType::F8E5M2FNUZ => finite(0x80, false),
        _ => return None,
    })
}

/// What is asked.
#[derive(Clone, Copy)]
enum Question {
    /// Whether it is NaN.
    Nan,
    /// Whether it is infinite, below or above 0.
    Infinite { below: bool, above: bool },
}

impl Question {
    fn ask(self, f: Format, bits: u64) -> bool {
        let size = bits & f.size;
        match (self, f.infinity) {
            (Question::Nan, Some(infinity)) => size > infinity,
            (Question::Nan, None) => (if f.either { size } else { bits }) == f.nan,
            (Question::Infinite { below, above }, Some(infinity)) => {
                size == infinity && if bits == size { above } else { below }
            }
            (Question::Infinite { .. }, None) => false,
        }
    }

    fn infer(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        match n.dtype(0) {
            Some(d) if format(d).is_none() => Err(OpError::new(format!("expected floats, found {d}"))),
            _ => Ok(vec![Fact::tensor(Some(DType::Bool), n.shape(0).cloned())]),
        }
    }

    fn eval(self, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = x.first().copied().flatten();
        let known = x.and_then(|x| Some((x, format(x.dtype())?)));
        let (x, f) = known.ok_or_else(|| OpError::new("expected floats"))?;
        let bits = |b: &[u8]| b.iter().rev().fold(0, |all, &b| all << 8 | u64::from(b));
        let elements = x.bytes().chunks(x.dtype().bits() / 8);
        Ok(vec![Tensor::bools(
            x.dims(),
            elements.map(|e| self.ask(f, bits(e))),
        )])
    }

    fn cpu(self, n: &NodeRef) -> Vec<Candidate> {
        let kernel = self.kernel(n).into_iter();
        kernel.map(|k| candidate(n, "", k)).collect()
    }

    fn kernel(self, n: &NodeRef) -> Option<Box<dyn Kernel>> {
        let (dtype, len) = (n.dtype(0)?, count(&n.dims(0)?)?);
        let f = format(dtype)?;
        Some(match dtype.bits() {
            64 => elementwise::each(len, move |x: u64| u8::from(self.ask(f, x))),
            32 => elementwise::each(len, move |x: u32| u8::from(self.ask(f, x.into()))),
            16 => elementwise::each(len, move |x: u16| u8::from(self.ask(f, x.into()))),
            8 => elementwise::each(len, move |x: u8| u8::from(self.ask(f, x.into()))),
            _ => return None,
        })
    }
}

fn cases() -> Vec<Case> {
    let halves = [DType::F16, DType::BF16, DType::F64].map(|d| {
        let odd = [f64::NAN, 1.0, f64::INFINITY, f64::NEG_INFINITY, 0.0];
        Tensor::rounded(d, &[5], &odd).map(|x| Case::new("other types", [x]))
    });
    let bytes = [
        DType::F8E4M3FN,
        DType::F8E4M3FNUZ,
        DType::F8E5M2,
        DType::F8E5M2FNUZ,
    ]
    .map(|d| {
        let data = crate::ir::Bytes::new((0..=255u8).collect::<Vec<_>>());
        let x = Tensor::new(d, vec![256], crate::ir::Data::Bytes(data));
        x.ok().map(|x| Case::new("bytes", [x]))
    });
    let mut all = vec![
        Case::new("odd values", [odd_floats(&[5, 7], 1)]),
        Case::new("nothing", [odd_floats(&[0], 1)]),
    ];
    all.extend(halves.into_iter().chain(bytes).flatten());
    all
}

/// Whether an element is not a number.
pub struct IsNaN;

impl Op for IsNaN {
    fn name(&self) -> OpName {
        onnx("IsNaN")
    }

    fn since(&self) -> &'static [u16] {
        &[9, 13, 20]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        Question::infer(n)
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Question::Nan.eval(x)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        Question::Nan.cpu(n)
    }

    fn cases(&self) -> Vec<Case> {
        cases()
    }
}

/// Whether an element is infinite.
pub struct IsInf;

impl IsInf {
    fn read(n: &NodeRef) -> Result<Question, OpError> {
        Ok(Question::Infinite {
            below: n.int_or("detect_negative", 1)? != 0,
            above: n.int_or("detect_positive", 1)? != 0,
        })
    }
}

impl Op for IsInf {
    fn name(&self) -> OpName {
        onnx("IsInf")
    }

    fn since(&self) -> &'static [u16] {
        &[10, 20]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        IsInf::read(n)?;
        Question::infer(n)
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        IsInf::read(n)?.eval(x)
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        IsInf::read(n).map(|q| q.cpu(n)).unwrap_or_default()
    }

    fn cases(&self) -> Vec<Case> {
        let mut all = cases();
        all.push(Case::new("above", [odd_floats(&[9], 1)]).attr("detect_negative", 0));
        all.push(Case::new("below", [odd_floats(&[9], 1)]).attr("detect_positive", 0));
        all
    }
}

/// Whether a truth value is false.
pub struct Not;

impl Op for Not {
    fn name(&self) -> OpName {
        onnx("Not")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        super::shape::arity(n, 1, 1)?;
        match n.dtype(0) {
            Some(d) if d != DType::Bool => Err(OpError::new(format!("expected bool, found {d}"))),
            _ => {
                let fact = Fact::tensor(Some(DType::Bool), n.shape(0).cloned());
                Ok(vec![super::binary::follow(n, fact, |x| match x[0].known() {
                    Some(x) => i64::from(x == 0).into(),
                    None => crate::ir::Dim::Unknown,
                })])
            }
        }
    }

    fn laws(&self) -> super::Laws {
        super::Laws {
            in_place: &[0],
            ..super::Laws::default()
        }
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = x.first().copied().flatten();
        let known = x.and_then(|x| Some((x.dims(), x.truths()?)));
        let (dims, truths) = known.ok_or_else(|| OpError::new("expected truth values"))?;
        Ok(vec![Tensor::bools(dims, truths.into_iter().map(|x| !x))])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let Some(len) = n.dims(0).as_deref().and_then(count) else {
            return vec![];
        };
        vec![candidate(n, "", elementwise::each(len, |x: u8| u8::from(x == 0)))]
    }

    fn cases(&self) -> Vec<Case> {
        let bools = |dims: &[usize]| Tensor::bools(dims, (0..dims.iter().product()).map(|i| i % 3 == 0));
        vec![
            Case::new("odd size", [bools(&[3, 7])]),
            Case::new("nothing", [bools(&[0])]),
        ]
    }
}
