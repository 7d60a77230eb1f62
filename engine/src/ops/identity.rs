//! Operators that give back what they are given.

use super::pick::given;
use super::shape::{arity, like_first, with_data};
use super::{Bodies, Case, Fact, Laws, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::{Candidate, Cost, Io};
use crate::ir::{DType, Datum, Tensor, Type};

/// ONNX `Identity`: the input.
pub struct Identity;

impl Op for Identity {
    fn name(&self) -> OpName {
        onnx("Identity")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 13, 14, 16, 19, 21, 23, 24, 25]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        let same = like_first(n)?.remove(0);
        Ok(vec![with_data(same, n.data(0))])
    }

    fn laws(&self) -> Laws {
        Laws {
            view: true,
            ..Laws::default()
        }
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![given(x, 0)?.clone()])
    }

    fn apply(&self, _: &NodeRef, x: &[Option<&Datum>], _: Bodies) -> Option<Result<Vec<Datum>, OpError>> {
        match x.first().copied().flatten() {
            None | Some(Datum::Tensor(_)) => None,
            Some(other) => Some(Ok(vec![other.clone()])),
        }
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("floats", [case::floats(&[2, 3], 1)]),
            Case::new("integers", [Tensor::of(&[2], vec![5i64, -1])]).opset(1),
        ]
    }
}

/// ONNX `Dropout` as inference has it: the input, and a mask that keeps all.
pub struct Dropout;

/// Whether the node drops elements, as far as it is known.
fn drops(n: &NodeRef) -> Option<bool> {
    if n.opset() < 12 || !n.has(2) {
        return Some(false);
    }
    let training = n.konst(2)?.truths()?;
    let ratio = match n.has(1) {
        true => n.konst(1).and_then(Tensor::item),
        false => Some(0.5),
    };
    match (training.first(), ratio) {
        (Some(true), Some(0.0)) => Some(false),
        (Some(true), None) => None,
        (t, _) => t.copied(),
    }
}

fn training() -> OpError {
    OpError::new("training_mode is true with a ratio above 0; only inference is supported")
}

impl Op for Dropout {
    fn name(&self) -> OpName {
        onnx("Dropout")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 6, 7, 10, 12, 13, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, if n.opset() < 12 { 1 } else { 3 })?;
        n.ignore(&["ratio", "seed", "is_test", "consumed_inputs"]);
        if drops(n) == Some(true) {
            return Err(training());
        }
        let mask = match n.opset() {
            ..10 => n.dtype(0),
            10.. => Some(DType::Bool),
        };
        let same = like_first(n)?.remove(0);
        let mask = match &same.ty {
            Type::Unknown => Fact::tensor(mask, None),
            ty => Fact::tensor(mask, ty.shape().cloned()),
        };
        Ok(vec![same, mask])
    }

    fn laws(&self) -> Laws {
        Laws {
            view: true,
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = given(x, 0)?;
        if super::pick::knowing(n, x, drops) == Some(true) {
            return Err(training());
        }
        let ones = vec![1.0; data.len()];
        let dtype = if n.opset() < 10 { data.dtype() } else { DType::Bool };
        let mask = Tensor::rounded(dtype, data.dims(), &ones);
        Ok(vec![
            data.clone(),
            mask.ok_or_else(|| OpError::new(format!("a mask of type {dtype}")))?,
        ])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let Some(dtype) = n.dtype(0).filter(|d| d.is_float() && d.bits() >= 16) else {
            return vec![];
        };
        let mask = if n.opset() < 10 { dtype } else { DType::Bool };
        let one = Tensor::rounded(mask, &[], &[1.0]);
        let bytes = n.dims(0).map_or(0, |d| d.iter().product::<usize>());
        let run = move |io: &mut Io| {
            let flag = io.inputs.get(2).copied().flatten();
            let ratio = io.inputs.get(1).copied().flatten();
            let zero = ratio.is_some_and(|r| r.bytes().iter().all(|&b| b == 0));
            if flag.is_some_and(|f| f.bytes().contains(&1)) && !zero {
                return Err(training());
            }
            let x = io.input(0);
            if let Some(y) = io.outputs[0].as_mut() {
                y.bytes().copy_from_slice(x.bytes());
            }
            if let (Some(Some(mask)), Some(one)) = (io.outputs.get_mut(1), &one) {
                crate::cpu::moves::fill(io.pool, mask.bytes(), one.bytes());
            }
            Ok(())
        };
        vec![Candidate::new(
            "dropout.copy",
            Cost::bytes(bytes * dtype.bits() / 4),
            run,
        )]
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::odd_floats(&[3, 5], 1);
        vec![
            Case::new("alone", [x()]).attr("seed", 3i64),
            Case::new("with a mask", [x()]).outputs(2),
            Case::new(
                "ratio and mode",
                [x(), Tensor::scalar(0.3f32), Tensor::bools(&[], [false])],
            )
            .outputs(2)
            .opset(13),
            Case::new(
                "nothing to drop",
                [x(), Tensor::scalar(0f32), Tensor::bools(&[], [true])],
            ),
            Case::new("a mask of floats", [x()])
                .attr("ratio", 0.1f32)
                .outputs(2)
                .opset(7),
            Case::new("the first version", [x()])
                .attr("is_test", 1i64)
                .attr("consumed_inputs", vec![0i64])
                .opset(1),
        ]
    }
}
