//! `HannWindow`, `HammingWindow` and `BlackmanWindow`.

use super::at_least;
use crate::ir::{DType, Dim, Tensor};
use crate::ops::pick::{given, integers, room};
use crate::ops::shape::arity;
use crate::ops::{Case, Fact, NodeRef, Op, OpError, OpName, onnx};

/// A window `a - b cos(2πi / n) + c cos(4πi / n)`.
pub struct Taper {
    name: &'static str,
    terms: [f64; 3],
}

/// `sin²`
pub static HANN: Taper = Taper {
    name: "HannWindow",
    terms: [0.5, 0.5, 0.0],
};
/// The first side lobe is cancelled.
pub static HAMMING: Taper = Taper {
    name: "HammingWindow",
    terms: [25.0 / 46.0, 21.0 / 46.0, 0.0],
};
/// Three terms.
pub static BLACKMAN: Taper = Taper {
    name: "BlackmanWindow",
    terms: [0.42, 0.5, 0.08],
};

/// The element type that attribute `output_datatype` asks for.
pub(super) fn dtype(n: &NodeRef) -> Result<DType, OpError> {
    let code = n.int_or("output_datatype", 1)?;
    let dtype = i32::try_from(code).map(DType::from_code).ok();
    dtype
        .filter(|d| (d.is_float() || d.is_int()) && Tensor::rounded(*d, &[], &[0.0]).is_some())
        .ok_or_else(|| {
            OpError::new(format!(
                "attribute \"output_datatype\" is {code}; expected a number type"
            ))
        })
}

impl Op for Taper {
    fn name(&self) -> OpName {
        onnx(self.name)
    }

    fn since(&self) -> &'static [u16] {
        &[17]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        n.int("periodic")?;
        let size = at_least(n, 0, 0)?.unwrap_or(Dim::Unknown);
        Ok(vec![Fact::tensor(Some(dtype(n)?), Some(vec![size]))])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let periodic = n.int_or("periodic", 1)? != 0;
        let size = integers(given(x, 0)?, 0)?;
        let wrong = || OpError::new(format!("a window of length {size:?}"));
        let size = size
            .first()
            .and_then(|&s| usize::try_from(s).ok())
            .ok_or_else(wrong)?;
        let mut y: Vec<f64> = room(Some(size))?;
        let whole = if periodic {
            size
        } else {
            size.saturating_sub(1).max(1)
        };
        let [a, b, c] = self.terms;
        y.extend((0..size).map(|i| {
            let angle = std::f64::consts::TAU * i as f64 / whole as f64;
            a - b * angle.cos() + c * (2.0 * angle).cos()
        }));
        Ok(vec![Tensor::rounded(dtype(n)?, &[size], &y).ok_or_else(wrong)?])
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("periodic", [Tensor::scalar(10i64)]).konst(&[0]),
            Case::new("symmetric", [Tensor::scalar(9i32)]).attr("periodic", 0),
            Case::new("doubles", [Tensor::scalar(7i64)]).attr("output_datatype", 11),
            Case::new("one element", [Tensor::scalar(1i64)]).attr("periodic", 0),
            Case::new("nothing", [Tensor::scalar(0i64)]),
        ]
    }
}
