//! Operators of ONNX Runtime on quantised tensors, each defined by what it does to the numbers that they stand for.

mod attention;
mod cases;
mod lstm;
mod product;

use super::quant::{dequantised, requantised};
use super::shape::{arity, broadcast};
use super::window::Windows;
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, microsoft};
use crate::expr::{Call, Ex};
use crate::ir::{Attr, DType, Dim, Shape};
pub use attention::ATTENTION;
pub use lstm::LSTM;
pub use product::{DYNAMIC_MATMUL, GEMM, MATMUL_TO_FLOAT};

/// An operator that is its body.
pub struct Composite {
    name: &'static str,
    /// The least and the greatest number of inputs.
    inputs: (usize, usize),
    infer: fn(&NodeRef) -> Result<Vec<Fact>, OpError>,
    body: for<'a> fn(&NodeRef, &[Ex<'a>]) -> Option<Vec<Ex<'a>>>,
    cases: fn() -> Vec<Case>,
}

impl Op for Composite {
    fn name(&self) -> OpName {
        microsoft(self.name)
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 0, self.inputs.1)?;
        if n.arity() < self.inputs.0 {
            return Err(OpError::new(format!(
                "{} inputs; expected at least {}",
                n.arity(),
                self.inputs.0
            )));
        }
        (self.infer)(n)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        if x.len() < self.inputs.0 {
            return None;
        }
        (self.body)(n, x)
    }

    fn cases(&self) -> Vec<Case> {
        (self.cases)()
    }
}

/// `a + b` of quantised tensors.
pub static ADD: Composite = Composite {
    name: "QLinearAdd",
    inputs: (7, 8),
    infer: both,
    body: |n, x| {
        let (a, b) = (dequantised(n, x, [0, 1, 2])?, dequantised(n, x, [3, 4, 5])?);
        Some(vec![requantised(n, x, a + b, [6, 7])?])
    },
    cases: cases::binary,
};

/// `a * b` of quantised tensors.
pub static MUL: Composite = Composite {
    name: "QLinearMul",
    inputs: (7, 8),
    infer: both,
    body: multiplied,
    cases: cases::binary,
};

/// The means of windows of a quantised tensor.
pub static AVERAGE_POOL: Composite = Composite {
    name: "QLinearAveragePool",
    inputs: (4, 5),
    infer: |n| {
        n.int("count_include_pad")?;
        pooled(n, n.int_or("channels_last", 0)? != 0)
    },
    body: |n, x| {
        let last = n.int_or("channels_last", 0).ok()? != 0;
        let all = dequantised(n, x, [0, 1, 2])?;
        let y = pool(n, all, "AveragePool", last)?;
        Some(vec![requantised(n, x, y, [3, 4])?])
    },
    cases: cases::average_pool,
};

/// The mean of each channel of a quantised tensor.
pub static GLOBAL_AVERAGE_POOL: Composite = Composite {
    name: "QLinearGlobalAveragePool",
    inputs: (5, 5),
    infer: global,
    body: |n, x| {
        let last = n.int_or("channels_last", 0).ok()? != 0;
        let all = dequantised(n, x, [0, 1, 2])?;
        let y = moved(all, last, n.rank(0)?, |x| x.op("GlobalAveragePool", &[]));
        Some(vec![requantised(n, x, y, [3, 4])?])
    },
    cases: cases::global_average_pool,
};

/// Quantised tensors one behind the other.
pub static CONCAT: Composite = Composite {
    name: "QLinearConcat",
    inputs: (5, usize::MAX),
    infer: joined,
    body: |n, x| {
        let axis = n.int("axis").ok()??;
        let all: Vec<_> = (2..x.len())
            .step_by(3)
            .map(|i| dequantised(n, x, [i, i + 1, i + 2]))
            .collect::<Option<_>>()?;
        let (first, rest) = all.split_first()?;
        let y = first.with("Concat", rest, vec![Attr::new("axis", axis)]);
        Some(vec![requantised(n, x, y, [0, 1])?])
    },
    cases: cases::concat,
};

/// The logistic function of a quantised tensor.
pub static SIGMOID: Composite = Composite {
    name: "QLinearSigmoid",
    inputs: (4, 5),
    infer: like_first,
    body: |n, x| unary(n, x, |x| Some(x.sigmoid())),
    cases: cases::unary,
};

/// `x`, or `alpha x` below 0, of a quantised tensor.
pub static LEAKY_RELU: Composite = Composite {
    name: "QLinearLeakyRelu",
    inputs: (4, 5),
    infer: |n| {
        n.float("alpha")?;
        like_first(n)
    },
    body: |n, x| {
        let alpha = n.float_or("alpha", 0.01).ok()?;
        unary(n, x, |x| {
            Some(x.with("LeakyRelu", &[], vec![Attr::new("alpha", alpha)]))
        })
    },
    cases: cases::leaky_relu,
};

/// The softmax of a quantised tensor, along one axis or, as before opset 13, all from one on.
pub static SOFTMAX: Composite = Composite {
    name: "QLinearSoftmax",
    inputs: (5, 5),
    infer: |n| {
        n.int("opset")?;
        n.int("axis")?;
        like_first(n)
    },
    body: |n, x| unary(n, x, |x| softmax(n, x)),
    cases: cases::softmax,
};

/// The greatest elements of windows of bytes, channels behind pixels.
pub static NHWC_MAX_POOL: Composite = Composite {
    name: "NhwcMaxPool",
    inputs: (1, 1),
    infer: |n| pooled(n, true),
    body: |n, x| Some(vec![pool(n, x[0], "MaxPool", true)?]),
    cases: cases::nhwc_max_pool,
};

/// Quantised bytes of the shape of input `i`.
fn bytes_like(n: &NodeRef, i: usize, shape: Option<Shape>) -> Result<Vec<Fact>, OpError> {
    match n.dtype(i).filter(|d| !matches!(d, DType::U8 | DType::I8)) {
        Some(d) => Err(OpError::new(format!(
            "input {i} is of type {d}; expected int8 or uint8"
        ))),
        None => Ok(vec![Fact::tensor(n.dtype(i), shape)]),
    }
}

fn like_first(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    bytes_like(n, 0, n.shape(0).cloned())
}

fn both(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    let shape = match (n.shape(0), n.shape(3)) {
        (Some(a), Some(b)) => Some(broadcast(a, b)?),
        _ => None,
    };
    bytes_like(n, 0, shape)
}

/// The shape of pools; `last` where channels are the last axis.
fn pooled(n: &NodeRef, last: bool) -> Result<Vec<Fact>, OpError> {
    let size = n
        .ints("kernel_shape")?
        .ok_or_else(|| OpError::new("attribute \"kernel_shape\" is missing"))?;
    let windows = Windows::of(n, size.len(), size.to_vec())?;
    let Some(x) = n.shape(0) else {
        return bytes_like(n, 0, None);
    };
    if x.len() != size.len() + 2 {
        return Err(OpError::new(format!(
            "input 0 has {} axes; expected {}",
            x.len(),
            size.len() + 2
        )));
    }
    let shape = match last {
        true => {
            let inner = windows.outputs(&x[1..x.len() - 1])?;
            [&x[..1], &inner[..], &x[x.len() - 1..]].concat()
        }
        false => [&x[..2], &windows.outputs(&x[2..])?[..]].concat(),
    };
    bytes_like(n, 0, Some(shape))
}

fn global(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    let last = n.int_or("channels_last", 0)? != 0;
    let shape = n.shape(0).map(|x| {
        let channel = if last { x.len().saturating_sub(1) } else { 1 };
        let size = |(i, d): (usize, &Dim)| match i == 0 || i == channel {
            true => d.clone(),
            false => Dim::Known(1),
        };
        x.iter().enumerate().map(size).collect()
    });
    if let Some(rank) = n.rank(0).filter(|&r| r < 3) {
        return Err(OpError::new(format!(
            "input 0 has {rank} axes; expected at least 3"
        )));
    }
    bytes_like(n, 0, shape)
}

fn joined(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    let axis = n
        .int("axis")?
        .ok_or_else(|| OpError::new("attribute \"axis\" is missing"))?;
    if !(n.arity() - 2).is_multiple_of(3) {
        return Err(OpError::new("expected a scale and a zero point for each input"));
    }
    let shapes: Option<Vec<_>> = (2..n.arity()).step_by(3).map(|i| n.shape(i)).collect();
    let Some(shapes) = shapes else {
        return bytes_like(n, 1, None);
    };
    let mut all = shapes[0].clone();
    let axis = NodeRef::axis(axis, all.len())?;
    for s in &shapes[1..] {
        let differ =
            |i: usize| i != axis && matches!((&all[i], &s[i]), (Dim::Known(a), Dim::Known(b)) if a != b);
        if s.len() != all.len() || (0..all.len()).any(differ) {
            return Err(OpError::new(format!(
                "shapes {} and {} do not go behind each other",
                super::shape::show(&all),
                super::shape::show(s)
            )));
        }
        all[axis] = all[axis].clone() + s[axis].clone();
    }
    bytes_like(n, 1, Some(all))
}

fn unary<'a>(n: &NodeRef, x: &[Ex<'a>], f: impl FnOnce(Ex<'a>) -> Option<Ex<'a>>) -> Option<Vec<Ex<'a>>> {
    let y = f(dequantised(n, x, [0, 1, 2])?)?;
    Some(vec![requantised(n, x, y, [3, 4])?])
}

/// The product of whole numbers, which is exact, is scaled once: ties are rounded as ONNX Runtime does.
fn multiplied<'a>(n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
    let one = x[1].constant(1.0);
    let whole = |i: usize| {
        let inputs = [Some(x[i]), Some(one), there(n, x, i + 2)];
        apply("DequantizeLinear", &inputs, vec![], 1)?.first().copied()
    };
    let y = whole(0)? * whole(3)? * (x[1] * x[4] / x[6]);
    let mut scaled = x.to_vec();
    scaled[6] = one;
    Some(vec![requantised(n, &scaled, y, [6, 7])?])
}

/// `f` of a tensor whose channels are moved from behind to the second place and back, where they are `last`.
fn moved<'a>(x: Ex<'a>, last: bool, rank: usize, f: impl FnOnce(Ex<'a>) -> Ex<'a>) -> Ex<'a> {
    if !last {
        return f(x);
    }
    let to = |perm: Vec<i64>| vec![Attr::new("perm", perm)];
    let rank = rank as i64;
    let front = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    let back = [0].into_iter().chain(2..rank).chain([1]).collect();
    f(x.with("Transpose", &[], to(front))).with("Transpose", &[], to(back))
}

/// The pool `op` with the attributes of the node.
fn pool<'a>(n: &NodeRef, x: Ex<'a>, op: &str, last: bool) -> Option<Ex<'a>> {
    let attrs = n.node().attrs.iter().filter(|a| &*a.name != "channels_last");
    let attrs: Vec<_> = attrs.cloned().collect();
    let rank = n.ints("kernel_shape").ok()??.len() + 2;
    Some(moved(x, last, rank, |x| x.with(op, &[], attrs)))
}

fn softmax<'a>(n: &NodeRef, x: Ex<'a>) -> Option<Ex<'a>> {
    let (opset, axis) = (n.int("opset").ok()??, n.int_or("axis", -1).ok()?);
    let axis = NodeRef::axis(axis, n.rank(0)?).ok()? as i64;
    let along = |axis: i64| vec![Attr::new("axis", axis)];
    match opset {
        ..13 => {
            let flat = x.with("Flatten", &[], along(axis)).with("Softmax", &[], along(1));
            Some(flat.op("Reshape", &[x.op("Shape", &[])]))
        }
        _ if n.opset() >= 13 || axis as usize + 1 == n.rank(0)? => Some(x.with("Softmax", &[], along(axis))),
        _ => None,
    }
}

/// Applies the standard operator `op`, of whose inputs some may be left out.
fn apply<'a>(op: &str, inputs: &[Option<Ex<'a>>], attrs: Vec<Attr>, outputs: usize) -> Option<Vec<Ex<'a>>> {
    let ids: Vec<_> = inputs.iter().map(|x| x.map(|x| x.id)).collect();
    let call = Call {
        domain: "",
        op,
        inputs: &ids,
        attrs,
        outputs,
    };
    Some(inputs.first().copied()??.call(call))
}

/// Input `i`, if it is there.
fn there<'a>(n: &NodeRef, x: &[Ex<'a>], i: usize) -> Option<Ex<'a>> {
    x.get(i).copied().filter(|_| n.has(i))
}

/// `x` as elements of type `to`.
fn cast(x: Ex, to: DType) -> Ex {
    x.with("Cast", &[], vec![Attr::new("to", i64::from(to.code()))])
}
