//! Cases of quantisation.

use crate::ir::{DType, Tensor};
use crate::ops::case::{Case, floats, odd_floats};

fn of(dtype: DType, dims: &[usize], all: &[f64]) -> Tensor {
    Tensor::rounded(dtype, dims, all).unwrap_or_else(|| Tensor::bools(dims, all.iter().map(|_| false)))
}

/// `dims` numbers of type `dtype`, from `low` in steps of 1 to `high` and again.
fn steps(dtype: DType, dims: &[usize], low: i64, high: i64) -> Tensor {
    let n = dims.iter().product::<usize>() as i64;
    let all: Vec<_> = (0..n).map(|i| (low + i * 7 % (high - low + 1)) as f64).collect();
    of(dtype, dims, &all)
}

fn scales(dims: &[usize]) -> Tensor {
    let n = dims.iter().product::<usize>();
    Tensor::of(dims, (0..n).map(|i| 0.01 + 0.003 * i as f32).collect())
}

pub(super) fn quantize() -> Vec<Case> {
    let mut all = vec![
        Case::new(
            "bytes by default",
            [odd_floats(&[3, 7], 1), Tensor::scalar(0.01f32)],
        )
        .opset(10),
        Case::new(
            "a zero point",
            [
                floats(&[3, 1000], 1),
                Tensor::scalar(0.013f32),
                Tensor::scalar(-5i8),
            ],
        )
        .konst(&[1, 2]),
        Case::new(
            "by axis",
            [
                floats(&[2, 3, 5], 1),
                scales(&[3]),
                Tensor::of(&[3], vec![3u8, 128, 255]),
            ],
        )
        .opset(13),
        Case::new("by the last axis", [floats(&[7, 300], 1), scales(&[300])])
            .attr("axis", -1i64)
            .opset(19),
        Case::new("in blocks", [floats(&[3, 7], 1), scales(&[3, 3])])
            .attr("block_size", 3i64)
            .attr("output_dtype", 3i64),
        Case::new("in blocks of rows", [floats(&[5, 7, 2], 1), scales(&[5, 3, 2])])
            .attr("block_size", 3i64)
            .attr("axis", -2i64)
            .attr("output_dtype", 4i64),
        Case::new(
            "of integers",
            [
                Tensor::of(&[4], vec![1i32, -300, 70_000, 5]),
                Tensor::scalar(2.5f32),
                Tensor::scalar(7u16),
            ],
        ),
        Case::new("in other precision", [floats(&[40], 1), Tensor::scalar(0.1f32)])
            .attr("precision", i64::from(DType::F16.code())),
        Case::new(
            "a power of two",
            [floats(&[40], 1), of(DType::F8E8M0, &[], &[0.125])],
        ),
        Case::new("a scale of 0", [floats(&[4], 1), Tensor::scalar(0f32)]),
        Case::new("nothing", [floats(&[0, 3], 1), scales(&[3])]),
    ];
    for dtype in [DType::F16, DType::BF16] {
        let x = of(dtype, &[300], &vec![0.37; 300]);
        let scale = of(dtype, &[], &[0.011]);
        all.push(Case::new("halves", [x, scale, of(DType::I16, &[], &[3.0])]));
    }
    for dtype in [DType::U4, DType::I4, DType::U2, DType::I2, DType::F4E2M1] {
        let zero = of(dtype, &[3], &[1.0, 0.0, 1.0]);
        let x = [floats(&[3, 5], 2), scales(&[3]), zero];
        all.push(Case::new("few bits", x).attr("axis", 0i64));
    }
    for dtype in [
        DType::F8E4M3FN,
        DType::F8E4M3FNUZ,
        DType::F8E5M2,
        DType::F8E5M2FNUZ,
    ] {
        let x = || {
            [
                odd_floats(&[3, 5], 2),
                Tensor::scalar(0.3f32),
                of(dtype, &[], &[0.0]),
            ]
        };
        all.push(Case::new("small floats", x()));
        all.push(Case::new("not saturated", x()).attr("saturate", 0i64));
    }
    all
}

pub(super) fn quantize_microsoft() -> Vec<Case> {
    vec![
        Case::new("one scale", [floats(&[3, 7], 1), Tensor::scalar(0.1f32)]),
        Case::new(
            "by axis",
            [
                floats(&[3, 7], 1),
                scales(&[3]),
                Tensor::of(&[3], vec![1i16, -5, 0]),
            ],
        )
        .attr("axis", 0i64),
        Case::new(
            "half bytes",
            [
                floats(&[3, 3], 1),
                Tensor::scalar(0.3f32),
                of(DType::I4, &[], &[1.0]),
            ],
        ),
    ]
}

pub(super) fn dequantize() -> Vec<Case> {
    let mut all = vec![
        Case::new(
            "bytes",
            [steps(DType::U8, &[3, 7], 0, 255), Tensor::scalar(0.1f32)],
        )
        .opset(10),
        Case::new(
            "a zero point",
            [
                steps(DType::I8, &[3, 1000], -128, 127),
                Tensor::scalar(0.013f32),
                Tensor::scalar(-5i8),
            ],
        )
        .konst(&[1, 2]),
        Case::new(
            "by axis",
            [
                steps(DType::U8, &[2, 3, 5], 0, 255),
                scales(&[3]),
                Tensor::of(&[3], vec![3u8, 128, 255]),
            ],
        )
        .opset(13),
        Case::new(
            "by the last axis",
            [steps(DType::I8, &[7, 300], -128, 127), scales(&[300])],
        )
        .attr("axis", -1i64),
        Case::new(
            "sums",
            [
                Tensor::of(&[3], vec![i32::MAX, -7, 123_456_789]),
                Tensor::scalar(0.3f32),
            ],
        ),
        Case::new(
            "nothing",
            [Tensor::of::<u8>(&[0], vec![]), Tensor::scalar(0.3f32)],
        ),
        Case::new(
            "to halves",
            [steps(DType::I16, &[700], -300, 300), of(DType::F16, &[], &[0.1])],
        ),
        Case::new(
            "to brain floats",
            [steps(DType::U16, &[7], 0, 300), Tensor::scalar(0.1f32)],
        )
        .attr("output_dtype", 16i64),
        Case::new(
            "a power of two",
            [
                steps(DType::F4E2M1, &[2, 9], -6, 6),
                of(DType::F8E8M0, &[2], &[0.5, 4.0]),
            ],
        )
        .attr("axis", 0i64),
    ];
    for dtype in [DType::U4, DType::I4, DType::U2, DType::I2] {
        let x = [
            steps(dtype, &[3, 35], -2, 5),
            scales(&[3, 3]),
            of(dtype, &[3, 3], &[1.0; 9]),
        ];
        all.push(Case::new("few bits", x).attr("block_size", 16i64));
    }
    for dtype in [DType::F8E4M3FN, DType::F8E5M2FNUZ] {
        let x = of(dtype, &[5], &[1.0, -0.3, 448.0, 1e-3, f64::NAN]);
        all.push(Case::new("small floats", [x, Tensor::scalar(0.3f32)]));
    }
    all
}

pub(super) fn dequantize_microsoft() -> Vec<Case> {
    vec![
        Case::new(
            "one scale",
            [
                steps(DType::U8, &[3, 7], 0, 255),
                Tensor::scalar(0.1f32),
                Tensor::scalar(128u8),
            ],
        ),
        Case::new("by axis", [steps(DType::I32, &[3, 7], -1000, 1000), scales(&[3])]).attr("axis", 0i64),
    ]
}

pub(super) fn dynamic() -> Vec<Case> {
    let tame = |dims: &[usize], seed| crate::ops::case::floats(dims, seed);
    let above = Tensor::of(&[3], vec![1.0f32, 2.5, 3.0]);
    vec![
        Case::new("a range", [tame(&[3, 1001], 1)]).outputs(3),
        Case::new("many", [tame(&[40_001], 2)]).outputs(3),
        Case::new("above 0", [above]).outputs(3).opset(11),
        Case::new("zeros", [Tensor::of(&[5], vec![0f32; 5])]).outputs(3),
    ]
}
