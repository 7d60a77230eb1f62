//! Sizes as tensors.

use super::pick::given;
use super::shape::{arity, product, with_data};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::{Candidate, Cost, Io};
use crate::ir::{DType, Dim, Tensor};

/// ONNX `Shape`: the sizes of the axes.
pub struct ShapeOf;

/// ONNX `Size`: the number of elements.
pub struct Size;

/// The axes of a tensor of rank `rank` whose sizes are wanted.
fn range(n: &NodeRef, rank: usize) -> Result<std::ops::Range<usize>, OpError> {
    let wanted = |name, default: usize| {
        let rank = i64::try_from(rank).unwrap_or(i64::MAX);
        let at = match n.opset() {
            ..15 => None,
            15.. => n.int(name)?,
        };
        let clamp = |a: i64| if a < 0 { a.saturating_add(rank) } else { a }.clamp(0, rank);
        Ok::<_, OpError>(at.map_or(default, |a| usize::try_from(clamp(a)).unwrap_or(0)))
    };
    let (start, end) = (wanted("start", 0)?, wanted("end", rank)?);
    Ok(start..end.max(start))
}

/// A kernel that knows its result.
fn told(op: &str, values: Vec<i64>) -> Vec<Candidate> {
    let run = move |io: &mut Io| {
        io.output(0).slice::<i64>().copy_from_slice(&values);
        Ok(())
    };
    vec![Candidate::new(format!("{op}.told"), Cost::bytes(0), run)]
}

impl Op for ShapeOf {
    fn name(&self) -> OpName {
        onnx("Shape")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 13, 15, 19, 21, 23, 24, 25]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        let Some(shape) = n.shape(0) else {
            range(n, 0)?;
            return Ok(vec![Fact::tensor(Some(DType::I64), Some(vec![Dim::Unknown]))]);
        };
        let data = shape[range(n, shape.len())?].to_vec();
        let fact = Fact::tensor(Some(DType::I64), Some(vec![data.len().into()]));
        Ok(vec![with_data(fact, Some(data))])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let dims = given(x, 0)?.dims();
        let sizes: Vec<_> = dims[range(n, dims.len())?].iter().map(|&d| d as i64).collect();
        Ok(vec![Tensor::of(&[sizes.len()], sizes)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let sizes = || {
            let dims = n.dims(0)?;
            let range = range(n, dims.len()).ok()?;
            Some(dims[range].iter().map(|&d| d as i64).collect())
        };
        sizes().map_or(vec![], |sizes| told("shape", sizes))
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[2, 0, 4], 1);
        vec![
            Case::new("all", [x()]).opset(1),
            Case::new("some", [x()]).attr("start", -2i64).attr("end", 100i64),
            Case::new("none", [x()]).attr("start", 2i64).attr("end", 1i64),
            Case::new("a scalar", [case::floats(&[], 1)]),
        ]
    }
}

impl Op for Size {
    fn name(&self) -> OpName {
        onnx("Size")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 13, 19, 21, 23, 24, 25]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        let scalar = Fact::tensor(Some(DType::I64), Some(vec![]));
        Ok(vec![with_data(scalar, n.shape(0).map(|s| vec![product(s)]))])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![Tensor::scalar(given(x, 0)?.len() as i64)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let count = n.dims(0).and_then(|d| crate::ir::count(&d));
        count.map_or(vec![], |count| told("size", vec![count as i64]))
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("some", [case::floats(&[2, 3], 1)]),
            Case::new("none", [case::floats(&[2, 0], 1)]).opset(1),
            Case::new("a scalar", [case::floats(&[], 1)]),
        ]
    }
}
