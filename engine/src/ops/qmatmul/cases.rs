//! Cases of products of bytes.

use crate::ir::{DType, Tensor};
use crate::ops::case::Case;

/// Bytes that look random.
pub(crate) fn bytes(dims: &[usize], seed: u32) -> Tensor {
    let n: usize = dims.iter().product();
    let next = |i: usize| (i as u32 ^ seed << 16).wrapping_mul(0x9e37_79b9) >> 23;
    Tensor::of(dims, (0..n).map(|i| next(i) as u8).collect())
}

/// Signed bytes that look random.
pub(crate) fn signed(dims: &[usize], seed: u32) -> Tensor {
    let unsigned = bytes(dims, seed);
    Tensor::of(dims, unsigned.bytes().iter().map(|&b| b as i8).collect())
}

pub(super) fn integer() -> Vec<Case> {
    let case = |name, a: &[usize], b: &[usize]| Case::new(name, [bytes(a, 1), signed(b, 2)]);
    let zero = |name, a: &[usize], b: &[usize], za: &[usize], zb: &[usize]| {
        Case::new(name, [bytes(a, 1), bytes(b, 2), bytes(za, 3), bytes(zb, 4)])
    };
    vec![
        case("odd sizes", &[13, 17], &[17, 33]),
        case("constant weights", &[13, 17], &[17, 33]).konst(&[1]),
        case("a long sum", &[3, 1100], &[1100, 35]).konst(&[1]),
        case("many rows", &[150, 40], &[40, 70]).konst(&[1]),
        case("a batch against one matrix", &[2, 3, 5, 7], &[7, 9]).konst(&[1]),
        case("batches that broadcast", &[2, 1, 5, 7], &[3, 7, 4]),
        case("vector and matrix", &[7], &[3, 7, 4]),
        case("two vectors", &[70], &[70]),
        case("no rows", &[0, 3], &[3, 4]),
        case("empty sums", &[2, 0], &[0, 3]),
        zero("zero points", &[5, 9], &[9, 40], &[], &[1]).konst(&[1, 2, 3]),
        zero("by row and column", &[5, 9], &[9, 40], &[5], &[40]).konst(&[1]),
        zero("of a batch", &[2, 5, 9], &[2, 9, 4], &[2, 5, 1], &[2, 1, 4]),
        zero("only of the right", &[5, 9], &[9, 4], &[], &[]).without(2),
    ]
}

pub(super) fn linear() -> Vec<Case> {
    let scale = |dims: &[usize], s: f32| {
        let n: usize = dims.iter().product();
        Tensor::of(dims, (0..n).map(|i| s * (1.0 + i as f32 / 7.0)).collect())
    };
    let case = |name, a: &[usize], b: &[usize], pa: &[usize], pb: &[usize]| {
        Case::new(
            name,
            [
                bytes(a, 1),
                scale(pa, 0.01),
                bytes(pa, 2),
                signed(b, 3),
                scale(pb, 0.02),
                signed(pb, 4),
                scale(&[], 0.3),
                Tensor::scalar(120u8),
            ],
        )
    };
    let half = |x: f64| Tensor::rounded(DType::F16, &[], &[x]).unwrap_or_else(|| Tensor::scalar(0f32));
    let small = |dims: &[usize], x: f64| {
        let n: usize = dims.iter().product();
        let all: Vec<_> = (0..n).map(|i| x * (i as f64 - 3.0)).collect();
        Tensor::rounded(DType::F8E4M3FN, dims, &all).unwrap_or_else(|| Tensor::scalar(0f32))
    };
    vec![
        case("constant weights", &[13, 17], &[17, 33], &[], &[]).konst(&[3, 4, 5]),
        case("by row and column", &[5, 40], &[40, 33], &[5], &[33]).opset(10),
        case("a batch", &[2, 3, 7], &[2, 7, 4], &[], &[]),
        Case::new(
            "halves as scales",
            [
                signed(&[3, 5], 1),
                half(0.02),
                Tensor::scalar(3i8),
                signed(&[5, 4], 2),
                half(0.01),
                Tensor::scalar(0i8),
                half(0.1),
                Tensor::scalar(-7i8),
            ],
        ),
        Case::new(
            "small floats",
            [
                small(&[2, 3], 0.5),
                Tensor::scalar(1f32),
                small(&[], 0.0),
                small(&[3, 2], 1.5),
                Tensor::scalar(2f32),
                small(&[], 0.0),
                Tensor::scalar(3f32),
                small(&[], 0.0),
            ],
        ),
    ]
}
