//! Cases of operators on quantised tensors.

use crate::ir::Tensor;
use crate::ops::case::{Case, floats};
use crate::ops::qmatmul::cases::{bytes, signed};

fn scale(x: f32) -> Tensor {
    Tensor::scalar(x)
}

fn zero(x: u8) -> Tensor {
    Tensor::scalar(x)
}

pub(super) fn binary() -> Vec<Case> {
    let inputs = || {
        [
            bytes(&[2, 3, 5], 1),
            scale(0.1),
            zero(120),
            bytes(&[3, 1], 2),
            scale(0.03),
            zero(7),
            scale(0.15),
            zero(90),
        ]
    };
    vec![
        Case::new("bytes", inputs()),
        Case::new("without a zero point", inputs()).without(5).opset(11),
    ]
}

pub(super) fn unary() -> Vec<Case> {
    let inputs = || [bytes(&[2, 9], 1), scale(0.1), zero(120), scale(0.004), zero(0)];
    vec![
        Case::new("bytes", inputs()),
        Case::new(
            "signed",
            [
                signed(&[7], 1),
                scale(0.1),
                Tensor::scalar(-3i8),
                scale(0.004),
                Tensor::scalar(-128i8),
            ],
        ),
    ]
}

pub(super) fn leaky_relu() -> Vec<Case> {
    unary().into_iter().map(|c| c.attr("alpha", 0.2f32)).collect()
}

pub(super) fn softmax() -> Vec<Case> {
    let inputs = || {
        [
            bytes(&[2, 3, 4], 1),
            scale(0.02),
            zero(120),
            scale(0.004),
            zero(0),
        ]
    };
    vec![
        Case::new("one axis", inputs())
            .attr("opset", 13i64)
            .attr("axis", 1i64),
        Case::new("the last axes", inputs())
            .attr("opset", 11i64)
            .attr("axis", 1i64)
            .opset(11),
    ]
}

pub(super) fn concat() -> Vec<Case> {
    let inputs = [
        scale(0.1),
        zero(100),
        bytes(&[2, 3], 1),
        scale(0.1),
        zero(100),
        bytes(&[2, 4], 2),
        scale(0.2),
        zero(3),
    ];
    vec![Case::new("two", inputs).attr("axis", -1i64)]
}

pub(super) fn average_pool() -> Vec<Case> {
    let inputs = |dims: &[usize]| [bytes(dims, 1), scale(0.1), zero(100), scale(0.09), zero(90)];
    let pool = |c: Case| {
        c.attr("kernel_shape", vec![3i64, 2])
            .attr("strides", vec![2i64, 1])
    };
    vec![
        pool(Case::new("channels first", inputs(&[1, 3, 7, 6]))).attr("pads", vec![1i64, 0, 1, 1]),
        pool(Case::new("channels last", inputs(&[2, 7, 6, 3])))
            .attr("channels_last", 1i64)
            .attr("count_include_pad", 1i64),
    ]
}

pub(super) fn global_average_pool() -> Vec<Case> {
    let inputs = |dims: &[usize]| [bytes(dims, 1), scale(0.1), zero(100), scale(0.09), zero(90)];
    vec![
        Case::new("channels first", inputs(&[2, 3, 7, 6])),
        Case::new("channels last", inputs(&[1, 7, 6, 3])).attr("channels_last", 1i64),
    ]
}

pub(super) fn nhwc_max_pool() -> Vec<Case> {
    vec![
        Case::new("bytes", [bytes(&[1, 7, 6, 3], 1)])
            .attr("kernel_shape", vec![3i64, 3])
            .attr("pads", vec![1i64, 1, 0, 0])
            .attr("strides", vec![2i64, 2]),
    ]
}

pub(super) fn dynamic_matmul() -> Vec<Case> {
    let all = [
        floats(&[2, 3, 8], 1),
        signed(&[8, 5], 2),
        Tensor::of(&[5], vec![0.1f32, 0.2, 0.3, 0.4, 0.5]),
        signed(&[5], 3),
        floats(&[5], 4),
    ];
    vec![
        Case::new("all", all.clone()).konst(&[1]),
        Case::new("no zero point", all).without(3),
    ]
}

pub(super) fn matmul_to_float() -> Vec<Case> {
    let all = [
        bytes(&[3, 8], 1),
        signed(&[8, 5], 2),
        scale(0.1),
        Tensor::of(&[5], vec![0.1f32, 0.2, 0.3, 0.4, 0.5]),
        zero(100),
        signed(&[5], 3),
        floats(&[5], 4),
    ];
    vec![
        Case::new("all", all.clone()),
        Case::new("no zero points", all).without(4).without(5),
    ]
}

pub(super) fn gemm() -> Vec<Case> {
    let all = || {
        [
            bytes(&[3, 8], 1),
            scale(0.1),
            zero(100),
            signed(&[5, 8], 2),
            Tensor::of(&[5], vec![0.1f32, 0.2, 0.3, 0.4, 0.5]),
            signed(&[5], 3),
            Tensor::of(&[5], vec![100i32, -200, 300, 0, 7]),
            scale(40.0),
            zero(128),
        ]
    };
    vec![
        Case::new("quantised", all()).attr("transB", 1i64),
        Case::new("floats", all())
            .attr("transB", 1i64)
            .attr("alpha", 0.5f32)
            .without(6)
            .without(7)
            .without(8),
    ]
}

pub(super) fn attention() -> Vec<Case> {
    let all = || {
        [
            bytes(&[2, 3, 8], 1),
            signed(&[8, 12], 2),
            floats(&[12], 3),
            scale(0.01),
            scale(0.02),
            Tensor::of(&[2, 3], vec![1i32, 1, 1, 1, 1, 0]),
            zero(120),
            Tensor::scalar(1i8),
            floats(&[2, 2, 2, 2, 2], 4),
        ]
    };
    let heads = |c: Case| c.attr("num_heads", 2i64);
    vec![
        heads(Case::new("a mask", all())).without(8).outputs(2),
        heads(Case::new("the past", all()))
            .without(5)
            .attr("unidirectional", 1i64)
            .outputs(2),
        heads(Case::new("plain", all())).without(5).without(8),
    ]
}

pub(super) fn lstm() -> Vec<Case> {
    let bytes = |dims: &[usize], seed: usize| {
        let n = dims.iter().product::<usize>();
        Tensor::of(dims, (0..n).map(|i| ((i * 37 + seed) % 23) as i8 - 11).collect())
    };
    let case = |name, scale: &[usize], direction: &str| {
        let few = |dims: &[usize]| Tensor::of(dims, vec![0.02f32; dims.iter().product()]);
        let zero = |dims: &[usize]| Tensor::of(dims, vec![1i8; dims.iter().product()]);
        let directions = scale[0];
        let mut case = Case::new(
            name,
            [
                floats(&[4, 2, 3], 1),
                bytes(&[directions, 3, 20], 5),
                bytes(&[directions, 5, 20], 9),
                floats(&[directions, 40], 2),
                Tensor::of(&[2], vec![4i32, 4]),
                floats(&[directions, 2, 5], 3),
                floats(&[directions, 2, 5], 4),
                floats(&[directions, 15], 5),
                few(scale),
                zero(scale),
                few(scale),
                zero(scale),
            ],
        )
        .attr("hidden_size", 5i64)
        .attr("direction", direction)
        .outputs(3)
        .within(1e-5, 1e-5);
        case.inputs[4] = None;
        case.inputs[7] = None;
        case
    };
    vec![
        case("forward", &[1], "forward"),
        case("both ways", &[2], "bidirectional"),
        case("a scale for each column", &[1, 20], "reverse"),
    ]
}
