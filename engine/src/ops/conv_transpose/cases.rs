//! Examples of transposed convolutions.

use crate::ir::{DType, Tensor};
use crate::ops::Case;
use crate::ops::case::floats;

fn case(name: &'static str, dims: &[&[usize]]) -> Case {
    let inputs = dims.iter().zip(1..).map(|(d, seed)| floats(d, seed));
    Case::new(name, inputs).within(1e-4, 1e-5)
}

pub(super) fn plain() -> Vec<Case> {
    let of = |dtype, dims: &[usize], seed| {
        let values = floats(dims, seed).floats().unwrap_or_default();
        Tensor::rounded(dtype, dims, &values).unwrap_or_else(|| Tensor::scalar(0f32))
    };
    let thin = |dims: &[usize]| {
        let all = floats(dims, 2).elements::<f32>().unwrap_or_default().into_owned();
        let some = all.into_iter().enumerate();
        Tensor::of(
            dims,
            some.map(|(i, w)| if i * i % 7 < 3 { w } else { 0.0 })
                .collect::<Vec<_>>(),
        )
    };
    let few = [floats(&[2, 32, 5, 9], 1), thin(&[32, 37, 4, 3]), floats(&[37], 3)];
    vec![
        Case::new("blocks, few weights", few)
            .within(1e-4, 1e-5)
            .attr("strides", vec![2i64, 2])
            .attr("pads", vec![1i64, 0, 1, 1])
            .konst(&[1, 2]),
        case("twice the size", &[&[2, 24, 9, 11], &[24, 5, 2, 2], &[5]])
            .attr("strides", vec![2i64, 2])
            .attr("kernel_shape", vec![2i64, 2])
            .konst(&[1, 2]),
        case("one channel", &[&[1, 6, 40, 60], &[6, 1, 2, 2], &[1]])
            .attr("strides", vec![2i64, 2])
            .konst(&[1]),
        case("overlapping windows", &[&[1, 7, 30, 33], &[7, 40, 4, 4], &[40]])
            .attr("strides", vec![2i64, 2])
            .attr("pads", vec![1i64; 4])
            .within(1e-3, 1e-5),
        case("blocks, overlapping", &[&[2, 20, 5, 9], &[20, 37, 4, 4], &[37]])
            .attr("strides", vec![2i64, 2])
            .attr("pads", vec![1i64; 4])
            .konst(&[1, 2]),
        case("blocks, gaps", &[&[2, 16, 4, 3], &[16, 20, 1, 1]])
            .attr("strides", vec![2i64, 2])
            .attr("output_padding", vec![1i64, 0]),
        case("blocks, gaps along one axis", &[&[1, 17, 4, 3], &[17, 16, 1, 3]])
            .attr("strides", vec![3i64, 1])
            .attr("pads", vec![0i64, 1, 0, 1]),
        case("blocks, odd strides", &[&[1, 16, 4, 3], &[16, 40, 5, 3]])
            .attr("strides", vec![3i64, 2])
            .attr("pads", vec![1i64, 0, 2, 1])
            .attr("output_padding", vec![1i64, 0])
            .konst(&[1]),
        case("blocks, groups on a line", &[&[2, 32, 11], &[32, 16, 4], &[32]])
            .attr("strides", vec![2i64])
            .attr("group", 2)
            .konst(&[1, 2]),
        case("blocks, no steps", &[&[1, 33, 3, 12], &[33, 7, 3, 3], &[7]])
            .attr("pads", vec![1i64; 4])
            .konst(&[1, 2]),
        case("fresh, no steps", &[&[2, 33, 6, 9], &[33, 20, 3, 3], &[20]]).attr("pads", vec![1i64; 4]),
        case("fresh, cut and steps", &[&[2, 20, 5, 9], &[20, 37, 4, 3]])
            .attr("strides", vec![2i64, 2])
            .attr("pads", vec![1i64, 0, 1, 1]),
        case("fresh, groups", &[&[1, 32, 3, 4], &[32, 16, 3, 3], &[32]])
            .attr("group", 2)
            .attr("pads", vec![1i64; 4]),
        case("cut to less than the window", &[&[1, 2, 3, 3], &[2, 2, 3, 128]])
            .attr("output_shape", vec![10i64, 8])
            .attr("strides", vec![3i64, 2]),
        case("cut to a corner of the window", &[&[1, 2, 2, 2], &[2, 1, 40, 50]])
            .attr("pads", vec![19i64, 30, 19, 18]),
        case("no steps", &[&[1, 3, 5, 6], &[3, 4, 3, 3]]),
        case("holes and gaps", &[&[1, 3, 5, 6], &[3, 4, 3, 2]])
            .attr("strides", vec![3i64, 1])
            .attr("dilations", vec![2i64, 3])
            .attr("pads", vec![1i64, 0, 2, 1])
            .attr("output_padding", vec![1i64, 0]),
        case("groups", &[&[2, 6, 5, 4], &[6, 2, 3, 3], &[6]])
            .attr("group", 3)
            .attr("strides", vec![2i64, 2]),
        case("depthwise", &[&[1, 4, 5, 4], &[4, 1, 3, 3]]).attr("group", 4),
        case("sizes of the output", &[&[1, 2, 3, 3], &[2, 2, 3, 3]])
            .attr("output_shape", vec![10i64, 8])
            .attr("strides", vec![3i64, 2])
            .attr("output_padding", vec![1i64, 1]),
        case("smaller sizes of the output", &[&[1, 2, 3, 3], &[2, 2, 4, 3]])
            .attr("output_shape", vec![1i64, 2, 7, 6])
            .attr("auto_pad", "SAME_UPPER")
            .attr("strides", vec![2i64, 2])
            .opset(1),
        case("larger sizes of the output", &[&[1, 2, 3, 3], &[2, 2, 2, 2]])
            .attr("output_shape", vec![9i64, 6])
            .attr("strides", vec![2i64, 2]),
        case("same, upper", &[&[1, 1, 3, 3], &[1, 2, 3, 4]])
            .attr("auto_pad", "SAME_UPPER")
            .attr("strides", vec![2i64, 2])
            .opset(11),
        case("same, lower", &[&[1, 1, 3, 3], &[1, 2, 2, 4]])
            .attr("auto_pad", "SAME_LOWER")
            .attr("strides", vec![1i64, 3]),
        case("valid", &[&[1, 1, 3, 3], &[1, 2, 2, 4]]).attr("auto_pad", "VALID"),
        case("one axis", &[&[2, 3, 50], &[3, 6, 16], &[6]])
            .attr("strides", vec![8i64])
            .attr("pads", vec![4i64, 4])
            .konst(&[1]),
        case("three axes", &[&[1, 2, 3, 4, 5], &[2, 3, 2, 3, 2]])
            .attr("strides", vec![1i64, 2, 3])
            .attr("pads", vec![1i64, 0, 1, 0, 1, 1]),
        case("flat", &[&[1, 2, 1, 1, 9], &[2, 3, 1, 1, 2]]).attr("strides", vec![1i64, 1, 2]),
        case("four axes", &[&[1, 2, 2, 2, 2, 3], &[2, 1, 2, 1, 2, 2]]),
        case("no images", &[&[0, 2, 4, 4], &[2, 3, 3, 3], &[3]]),
        case("no channels", &[&[1, 0, 4, 4], &[0, 3, 3, 3], &[3]]),
        Case::new(
            "half precision",
            [of(DType::F16, &[1, 2, 4, 4], 1), of(DType::F16, &[2, 3, 2, 2], 2)],
        )
        .within(1e-2, 1e-2),
        Case::new(
            "double precision",
            [of(DType::F64, &[1, 2, 4, 4], 1), of(DType::F64, &[2, 3, 2, 2], 2)],
        )
        .within(1e-12, 1e-12),
    ]
}

pub(super) fn dynamic() -> Vec<Case> {
    let pads = || Tensor::of(&[4], vec![1i64, 0, 1, 1]);
    let x = || [floats(&[1, 3, 5, 6], 1), floats(&[3, 4, 3, 3], 2)];
    let with = |name, more: Vec<Tensor>| Case::new(name, x().into_iter().chain(more)).within(1e-4, 1e-5);
    vec![
        with("a border and a bias", vec![pads(), floats(&[4], 3)])
            .konst(&[1, 2])
            .opset(1),
        with("a border that is not known", vec![pads()])
            .attr("strides", vec![2i64, 2])
            .opset(1),
        with("no border", vec![]).opset(1),
    ]
}
