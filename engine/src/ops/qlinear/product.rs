//! Products of quantised matrices.

use super::{Composite, apply, cases, cast, there};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Shape, Tensor};
use crate::ops::matmul::{fits, product_shape};
use crate::ops::qmatmul::{byte, typed};
use crate::ops::shape::ranked;
use crate::ops::{Fact, NodeRef, OpError};

/// The product of floats, quantised as they come, with quantised weights.
pub static DYNAMIC_MATMUL: Composite = Composite {
    name: "DynamicQuantizeMatMul",
    inputs: (3, 5),
    infer: |n| {
        typed(n, &[1, 3], byte)?;
        multiplied(n, n.dtype(2).or(n.dtype(0)), 4)
    },
    body: |n, x| {
        let quantised = apply("DynamicQuantizeLinear", &[Some(x[0])], vec![], 3)?;
        let [a, scale, zero] = quantised[..] else {
            return None;
        };
        let inputs = [Some(a), Some(x[1]), Some(zero), there(n, x, 3)];
        let sums = *apply("MatMulInteger", &inputs, vec![], 1)?.first()?;
        let y = cast(sums, DType::F32) * (scale * x[2]);
        Some(vec![there(n, x, 4).map_or(y, |bias| y + bias)])
    },
    cases: cases::dynamic_matmul,
};

/// The product of quantised matrices, as floats.
pub static MATMUL_TO_FLOAT: Composite = Composite {
    name: "MatMulIntegerToFloat",
    inputs: (4, 7),
    infer: |n| {
        typed(n, &[0, 1, 4, 5], byte)?;
        multiplied(n, n.dtype(2).or(n.dtype(3)), 6)
    },
    body: |n, x| {
        let inputs = [Some(x[0]), Some(x[1]), there(n, x, 4), there(n, x, 5)];
        let sums = *apply("MatMulInteger", &inputs, vec![], 1)?.first()?;
        let own = n.dtype(2).unwrap_or(DType::F32);
        let wide = |x| if own == DType::F32 { x } else { cast(x, DType::F32) };
        let y = cast(sums, DType::F32) * (wide(x[2]) * wide(x[3]));
        let y = there(n, x, 6).map_or(y, |bias| y + wide(bias));
        Some(vec![if own == DType::F32 { y } else { cast(y, own) }])
    },
    cases: cases::matmul_to_float,
};

/// The product of inputs 0 and 1; input `bias` is added to it.
fn multiplied(n: &NodeRef, dtype: Option<DType>, bias: usize) -> Result<Vec<Fact>, OpError> {
    let shape = match (n.shape(0), n.shape(1)) {
        (Some(a), Some(b)) => Some(product_shape(a, b)?),
        _ => None,
    };
    let fact = Fact::tensor(dtype, shape);
    fits(n, bias, &fact)?;
    Ok(vec![fact])
}

/// `alpha A B + C` of quantised matrices, as floats or quantised again.
pub static GEMM: Composite = Composite {
    name: "QGemm",
    inputs: (6, 9),
    infer: |n| {
        typed(n, &[0, 2, 3, 5, 8], byte)?;
        n.float("alpha")?;
        let quantised = n.has(7);
        let dtype = if n.has(8) { n.dtype(8) } else { Some(DType::F32) };
        let dtype = if quantised && !n.has(8) {
            Some(DType::U8)
        } else {
            dtype
        };
        let side = |i: usize, name: &str| -> Result<Option<Shape>, OpError> {
            let swap = n.int_or(name, 0)? != 0;
            let shape = ranked(n, i, 2)?.cloned();
            Ok(shape.map(|mut s| {
                if swap {
                    s.reverse();
                }
                s
            }))
        };
        let shape = match (side(0, "transA")?, side(3, "transB")?) {
            (Some(a), Some(b)) => Some(product_shape(&a, &b)?),
            (a, b) => {
                let dim = |s: Option<Shape>, i: usize| s.map_or(Dim::Unknown, |s| s[i].clone());
                Some(vec![dim(a, 0), dim(b, 1)])
            }
        };
        Ok(vec![Fact::tensor(dtype, shape)])
    },
    body: gemm,
    cases: cases::gemm,
};

fn gemm<'a>(n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
    let turned = |i: usize, name: &str| match n.int_or(name, 0) {
        Ok(0) => x[i],
        _ => x[i].with("Transpose", &[], vec![Attr::new("perm", vec![1i64, 0])]),
    };
    let (a, b) = (turned(0, "transA"), turned(3, "transB"));
    let inputs = [Some(a), Some(b), there(n, x, 2), there(n, x, 5)];
    let sums = *apply("MatMulInteger", &inputs, vec![], 1)?.first()?;
    let sums = there(n, x, 6).map_or(sums, |c| sums + c);
    let factor = x[1] * x[1].attr("alpha", 1.0) * x[4];
    let wide = cast(sums, DType::F32);
    let Some(scale) = there(n, x, 7) else {
        return Some(vec![wide * factor]);
    };
    // Multiplied, then rounded, as it is done elsewhere; a division would round otherwise.
    let scaled = wide * (factor / scale);
    let one = scaled.tensor(Tensor::scalar(1f32));
    apply(
        "QuantizeLinear",
        &[Some(scaled), Some(one), there(n, x, 8)],
        vec![],
        1,
    )
}
