//! `BitCast`: the same bits as elements of another type.

use super::pick::given;
use super::shape::arity;
use super::{Case, Fact, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::{Candidate, Cost, Io};
use crate::ir::{DType, Tensor, count};

/// ONNX `BitCast`.
pub struct BitCast;

fn target(n: &NodeRef) -> Result<DType, OpError> {
    let code = n
        .int("to")?
        .ok_or_else(|| OpError::new("attribute \"to\" is missing"))?;
    let to = i32::try_from(code).map_or(DType::Other(0), DType::from_code);
    match to.bits() {
        0 => Err(OpError::new(format!(
            "attribute \"to\" is {code}; expected a type whose elements have a size"
        ))),
        _ => Ok(to),
    }
}

fn fits(from: DType, to: DType) -> Result<(), OpError> {
    match from.bits() == to.bits() {
        true => Ok(()),
        false => Err(OpError::new(format!(
            "elements of type {from} have {} bits, those of type {to} have {}",
            from.bits(),
            to.bits()
        ))),
    }
}

impl Op for BitCast {
    fn name(&self) -> OpName {
        onnx("BitCast")
    }

    fn since(&self) -> &'static [u16] {
        &[26]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        let to = target(n)?;
        n.dtype(0).map_or(Ok(()), |from| fits(from, to))?;
        Ok(vec![Fact::tensor(Some(to), n.shape(0).cloned())])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, to) = (given(x, 0)?, target(n)?);
        fits(x.dtype(), to)?;
        let y = Tensor::new(to, x.dims().to_vec(), x.data().clone());
        Ok(vec![y.map_err(|e| OpError::new(e.to_string()))?])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let len = n.out_dims(0).as_deref().and_then(count);
        let Some(bytes) = n.out_dtype(0).zip(len).and_then(|(d, len)| d.bytes(len)) else {
            return vec![];
        };
        let run = |io: &mut Io| {
            let x = io.input(0);
            io.output(0).bytes().copy_from_slice(x.bytes());
        };
        vec![Candidate::new(
            "bitcast.copy",
            Cost::bytes(bytes.saturating_mul(2)),
            run,
        )]
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("floats", [case::odd_floats(&[3, 4], 1)]).attr("to", 6i64),
            Case::new("integers", [Tensor::of(&[2], vec![1i64 << 62, -1])]).attr("to", 11i64),
            Case::new("bytes", [Tensor::of(&[3], vec![1u8, 2, 255])]).attr("to", 3i64),
            Case::new("a scalar", [Tensor::scalar(5i16)]).attr("to", 10i64),
        ]
    }
}
