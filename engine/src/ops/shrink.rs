//! ONNX `Shrink`: numbers nearer to 0.

use secateur_simd::Simd;

use super::binary::candidate;
use super::case::{floats, odd_floats};
use super::grad::only;
use super::pick::given;
use super::shape::{arity, like_first};
use super::{Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, onnx};
use crate::cpu::act::ActFn;
use crate::cpu::number::Numbers;
use crate::cpu::{Candidate, Kernel, blocks, elementwise};
use crate::ir::{DType, Tensor, count};

/// ONNX `Shrink`: `x + bias` below `-lambd`, `x - bias` above `lambd`, else 0. Of integers the result is cut off.
pub struct Shrink;

#[derive(Clone, Copy)]
struct Soft {
    bias: f32,
    lambd: f32,
}

impl ActFn for Soft {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let bias = s.splat(self.bias);
        let above = s.select(s.lt(s.splat(self.lambd), x), s.sub(x, bias), s.splat(0.0));
        s.select(s.lt(x, s.splat(-self.lambd)), s.add(x, bias), above)
    }
}

impl Soft {
    fn exact(self, x: f64) -> f64 {
        let (bias, lambd) = (f64::from(self.bias), f64::from(self.lambd));
        match x {
            x if x < -lambd => x + bias,
            x if x > lambd => x - bias,
            _ => 0.0,
        }
    }

    fn int(self, x: i128) -> i128 {
        self.exact(x as f64) as i128
    }
}

fn read(n: &NodeRef) -> Result<Soft, OpError> {
    Ok(Soft {
        bias: n.float_or("bias", 0.0)?,
        lambd: n.float_or("lambd", 0.5)?,
    })
}

fn refuse(d: DType) -> OpError {
    OpError::new(format!("there is no Shrink of {d}"))
}

fn kernel(n: &NodeRef) -> Option<Box<dyn Kernel>> {
    let (soft, len, dtype) = (read(n).ok()?, count(&n.dims(0)?)?, n.dtype(0)?);
    Some(match dtype {
        DType::F32 => elementwise::map(len, soft),
        DType::F64 => elementwise::each(len, move |x: f64| soft.exact(x)),
        other => match (blocks::floats(other), blocks::ints(other)) {
            (Some(b), _) => blocks::map(len, b, soft),
            (None, Some(b)) => blocks::each(len, b, move |x| soft.int(x)),
            (None, None) => return None,
        },
    })
}

impl Op for Shrink {
    fn name(&self) -> OpName {
        onnx("Shrink")
    }

    fn since(&self) -> &'static [u16] {
        &[9]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        read(n)?;
        match n.dtype(0) {
            Some(d) if !d.is_float() && !d.is_int() => Err(refuse(d)),
            _ => like_first(n),
        }
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0],
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (soft, x) = (read(n)?, given(x, 0)?);
        let y = match Numbers::of(x) {
            Some(Numbers::Real(v)) => Numbers::Real(v.into_iter().map(|x| soft.exact(x)).collect()),
            Some(Numbers::Int(v)) => Numbers::Int(v.into_iter().map(|x| soft.int(x)).collect()),
            None => return Err(refuse(x.dtype())),
        };
        let y = y.tensor(x.dtype(), x.dims());
        Ok(vec![y.ok_or_else(|| refuse(x.dtype()))?])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (x, dy) = (x[0]?, dy[0]?);
        let lambd = x.constant(n.float_or("lambd", 0.5).ok()?.into());
        Some(vec![Some(only(x.op("Abs", &[]).op("Greater", &[lambd]), dy))])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernel(n).into_iter().map(|k| candidate(n, "", k)).collect()
    }

    fn cases(&self) -> Vec<Case> {
        let few = |d| Tensor::rounded(d, &[5], &[0.0, 1.0, 2.0, -2.0, -0.25]);
        let soft = |c: Case| c.attr("bias", 1.5f32).attr("lambd", 1.5f32);
        let mut all = vec![
            Case::new("by default", [floats(&[3, 7], 1)]),
            soft(Case::new("odd values", [odd_floats(&[5, 5], 1)]).within(0.0, 1e-6)),
            Case::new("nothing", [floats(&[0], 1)]),
        ];
        for d in [DType::F64, DType::F16, DType::I8, DType::U8, DType::I64] {
            all.extend(few(d).map(|x| soft(Case::new("other types", [x]).within(1e-3, 1e-3))));
        }
        all
    }
}
