//! Examples of convolutions.

use crate::ir::{DType, Tensor};
use crate::ops::Case;
use crate::ops::case::{floats, tame_floats};

fn case(name: &'static str, dims: &[&[usize]]) -> Case {
    let inputs = dims.iter().zip(1..).map(|(d, seed)| floats(d, seed));
    Case::new(name, inputs).within(1e-4, 1e-5)
}

pub(super) fn plain() -> Vec<Case> {
    let of = |dtype, dims: &[usize], seed| {
        let values = floats(dims, seed).floats().unwrap_or_default();
        Tensor::rounded(dtype, dims, &values).unwrap_or_else(|| Tensor::scalar(0f32))
    };
    vec![
        case("many sums of one channel", &[&[1, 1, 120], &[18, 1, 40]])
            .attr("strides", vec![20i64])
            .konst(&[1]),
        case("3x3 with a border", &[&[2, 5, 9, 11], &[14, 5, 3, 3], &[14]])
            .attr("pads", vec![1i64; 4])
            .konst(&[1, 2]),
        case("weights that are not known", &[&[1, 3, 6, 7], &[4, 3, 3, 3]])
            .attr("kernel_shape", vec![3i64, 3]),
        case("one pixel", &[&[1, 20, 5, 7], &[33, 20, 1, 1], &[33]]).konst(&[1]),
        case("one pixel, strides", &[&[1, 20, 5, 8], &[33, 20, 1, 1]])
            .attr("strides", vec![2i64, 3])
            .konst(&[1]),
        case("stem", &[&[1, 3, 21, 19], &[13, 3, 7, 7], &[13]])
            .attr("pads", vec![3i64; 4])
            .attr("strides", vec![2i64, 2])
            .konst(&[1]),
        case("groups", &[&[2, 6, 7, 7], &[9, 2, 3, 3], &[9]])
            .attr("group", 3)
            .attr("dilations", vec![2i64, 1])
            .konst(&[1]),
        case("depthwise", &[&[2, 7, 9, 18], &[7, 1, 3, 3], &[7]])
            .attr("group", 7)
            .attr("pads", vec![1i64, 1, 1, 1]),
        case("depthwise, two outputs", &[&[1, 3, 10, 9], &[6, 1, 5, 5]])
            .attr("group", 3)
            .attr("pads", vec![2i64, 1, 3, 0])
            .attr("strides", vec![2i64, 1])
            .konst(&[1]),
        case("same, upper", &[&[1, 2, 8, 7], &[3, 2, 3, 4]])
            .attr("auto_pad", "SAME_UPPER")
            .attr("strides", vec![2i64, 2]),
        case("same, lower", &[&[1, 2, 8, 7], &[3, 2, 2, 4]])
            .attr("auto_pad", "SAME_LOWER")
            .opset(1),
        case("valid", &[&[1, 2, 8, 7], &[3, 2, 2, 4]])
            .attr("auto_pad", "VALID")
            .attr("pads", vec![0i64; 4]),
        case("one axis", &[&[2, 3, 30], &[5, 3, 4], &[5]])
            .attr("strides", vec![3i64])
            .attr("pads", vec![2i64, 1])
            .opset(11)
            .konst(&[1]),
        case("three axes", &[&[1, 2, 4, 5, 6], &[3, 2, 2, 3, 2], &[3]])
            .attr("pads", vec![1i64, 0, 1, 0, 1, 1])
            .konst(&[1]),
        case("far beyond the image", &[&[1, 2, 3, 3], &[2, 2, 40, 50], &[2]])
            .attr("pads", vec![20i64, 25, 21, 24])
            .konst(&[1]),
        case("depthwise, three axes", &[&[1, 2, 4, 5, 6], &[2, 1, 2, 3, 2]]).attr("group", 2),
        case("no images", &[&[0, 2, 4, 4], &[3, 2, 3, 3], &[3]]),
        case("no channels", &[&[1, 0, 4, 4], &[3, 0, 3, 3], &[3]]),
        Case::new(
            "odd values",
            [tame_floats(&[1, 2, 5, 5], 1), floats(&[2, 2, 3, 3], 2)],
        )
        .attr("pads", vec![1i64; 4])
        .within(1e-4, 1e-5),
        case("fresh, blocks", &[&[2, 20, 6, 9], &[37, 20, 3, 3], &[37]]).attr("pads", vec![1i64; 4]),
        case(
            "fresh, many small images",
            &[&[41, 16, 5, 7], &[18, 16, 3, 3], &[18]],
        )
        .attr("pads", vec![1i64; 4]),
        case("fresh, many sums", &[&[1, 150, 2, 3], &[17, 150, 3, 3]])
            .attr("pads", vec![1i64; 4])
            .within(1e-3, 1e-5),
        case(
            "fresh, steps in groups",
            &[&[2, 32, 9, 7], &[32, 16, 3, 2], &[32]],
        )
        .attr("group", 2)
        .attr("strides", vec![2i64, 1])
        .attr("dilations", vec![1i64, 2]),
        case("fresh, one pixel", &[&[1, 40, 3, 5], &[18, 40, 1, 1], &[18]]),
        case("a fresh bias", &[&[1, 16, 5, 5], &[16, 16, 3, 3], &[16]]).konst(&[1]),
        Case::new(
            "half precision",
            [
                of(DType::F16, &[1, 2, 4, 4], 1),
                of(DType::F16, &[3, 2, 2, 2], 2),
                of(DType::F16, &[3], 3),
            ],
        )
        .within(1e-2, 1e-2),
        Case::new(
            "double precision",
            [of(DType::F64, &[1, 2, 4, 4], 1), of(DType::F64, &[2, 1, 2, 2], 2)],
        )
        .attr("group", 2)
        .within(1e-12, 1e-12),
    ]
}

pub(super) fn fused() -> Vec<Case> {
    vec![
        case("all", &[&[1, 5, 7, 7], &[14, 5, 3, 3], &[14], &[1, 14, 7, 7]])
            .attr("pads", vec![1i64; 4])
            .attr("activation", "Clip")
            .attr("params", vec![-1.0, 2.0])
            .konst(&[1, 2]),
        case(
            "a long sum",
            &[&[2, 130, 4, 4], &[20, 130, 3, 3], &[20], &[2, 20, 2, 2]],
        )
        .within(1e-3, 1e-5)
        .konst(&[1, 2]),
        case(
            "one pixel, no bias",
            &[&[2, 5, 7, 7], &[14, 5, 1, 1], &[], &[2, 14, 7, 7]],
        )
        .without(2)
        .konst(&[1]),
        case("depthwise", &[&[1, 5, 7, 7], &[5, 1, 3, 3], &[5], &[1, 5, 4, 4]])
            .attr("group", 5)
            .attr("strides", vec![2i64, 2])
            .attr("pads", vec![1i64; 4])
            .attr("activation", "HardSwish"),
        case("an activation", &[&[1, 5, 7, 7], &[14, 5, 1, 1], &[14]])
            .attr("activation", "HardSwish")
            .konst(&[1]),
        case("fresh", &[&[2, 18, 6, 5], &[20, 18, 3, 3], &[20], &[2, 20, 6, 5]])
            .attr("pads", vec![1i64; 4])
            .attr("activation", "Relu"),
        case("scaled", &[&[1, 5, 9, 7], &[14, 5, 3, 3], &[14], &[1, 14, 7, 5]])
            .attr("activation", "HardSwish")
            .attr("scale", 0.5f32)
            .attr("shift", -1.25f32)
            .konst(&[1, 2]),
        case("scaled, depthwise", &[&[1, 5, 7, 7], &[5, 1, 3, 3], &[5]])
            .attr("group", 5)
            .attr("activation", "Relu")
            .attr("scale", 2.0f32)
            .attr("shift", 1.0f32)
            .konst(&[1, 2]),
    ]
}

pub(super) fn runtime() -> Vec<Case> {
    let one = |name, dims: &[&[usize]]| case(name, dims).opset(1).konst(&[1]);
    vec![
        one("all", &[&[1, 5, 7, 7], &[14, 5, 3, 3], &[14], &[1, 14, 7, 7]])
            .attr("pads", vec![1i64; 4])
            .attr("activation", "LeakyRelu")
            .attr("activation_params", vec![0.25f32]),
        one("a clip", &[&[1, 5, 7, 7], &[14, 5, 3, 3], &[14]])
            .attr("activation", "Clip")
            .attr("activation_params", vec![-1.0f32, 2.0]),
        one("no bias", &[&[1, 5, 7, 7], &[14, 5, 1, 1], &[], &[1, 14, 7, 7]])
            .without(2)
            .attr("activation", "Relu"),
        one("a hard sigmoid", &[&[1, 5, 7, 7], &[5, 1, 3, 3]])
            .attr("activation", "HardSigmoid")
            .attr("group", 5),
    ]
}

pub(super) fn weights() -> Vec<Case> {
    let window = |name, dims: &[&[usize]], size: &[i64]| case(name, dims).attr("kernel_shape", size);
    let of = |dims: &[usize], seed| {
        let values = floats(dims, seed).floats().unwrap_or_default();
        Tensor::rounded(DType::F64, dims, &values).unwrap_or_else(|| Tensor::scalar(0f32))
    };
    vec![
        window("3x3 with a border", &[&[2, 3, 5, 6], &[2, 4, 5, 6]], &[3, 3]).attr("pads", vec![1i64; 4]),
        window(
            "steps that leave some over",
            &[&[2, 3, 8, 9], &[2, 2, 3, 2]],
            &[3, 4],
        )
        .attr("strides", vec![2i64, 4]),
        window("holes in groups", &[&[2, 6, 7, 7], &[2, 9, 3, 5]], &[3, 3])
            .attr("group", 3)
            .attr("dilations", vec![2i64, 1]),
        window("depthwise", &[&[2, 4, 7, 6], &[2, 4, 4, 3]], &[3, 3])
            .attr("group", 4)
            .attr("pads", vec![1i64; 4])
            .attr("strides", vec![2i64, 2]),
        window("blocks", &[&[3, 20, 9, 10], &[3, 37, 9, 10]], &[3, 3])
            .attr("pads", vec![1i64; 4])
            .within(1e-3, 1e-5),
        window("blocks, few pixels", &[&[9, 33, 3, 5], &[9, 16, 3, 5]], &[3, 3]).attr("pads", vec![1i64; 4]),
        window(
            "blocks, nothing beside the image",
            &[&[1, 16, 7, 15], &[1, 18, 5, 13]],
            &[3, 3],
        ),
        window("blocks, steps", &[&[2, 17, 11, 8], &[2, 20, 5, 3]], &[3, 4])
            .attr("strides", vec![2i64, 2])
            .attr("pads", vec![1i64, 0, 1, 0]),
        window(
            "blocks, holes in groups",
            &[&[2, 32, 9, 12], &[2, 48, 5, 6]],
            &[3, 3],
        )
        .attr("group", 2)
        .attr("dilations", vec![2i64, 3]),
        window("one pixel", &[&[2, 24, 5, 7], &[2, 40, 5, 7]], &[1, 1]),
        window("stem", &[&[9, 3, 13, 11], &[9, 20, 7, 6]], &[5, 5])
            .attr("strides", vec![2i64, 2])
            .attr("pads", vec![2i64; 4]),
        window("depthwise, blocks", &[&[10, 20, 9, 7], &[10, 20, 9, 7]], &[3, 3])
            .attr("group", 20)
            .attr("pads", vec![1i64; 4]),
        window("one axis", &[&[2, 3, 20], &[2, 5, 7]], &[4])
            .attr("strides", vec![3i64])
            .attr("pads", vec![2i64, 1]),
        window("three axes", &[&[1, 2, 3, 4, 5], &[1, 3, 2, 3, 4]], &[2, 2, 2]),
        window("no images", &[&[0, 2, 4, 4], &[0, 3, 2, 2]], &[3, 3]),
        Case::new("double precision", [of(&[1, 2, 4, 4], 1), of(&[1, 3, 3, 3], 2)])
            .attr("kernel_shape", vec![2i64, 2])
            .within(1e-12, 1e-12),
    ]
}
