//! Examples of pools.

use crate::ir::{DType, Tensor};
use crate::ops::Case;
use crate::ops::case::{floats, odd_floats};

fn case(name: &'static str, dims: &[usize], size: &[i64]) -> Case {
    Case::new(name, [floats(dims, 1)]).attr("kernel_shape", size)
}

fn of(dtype: DType, dims: &[usize]) -> Tensor {
    let values: Vec<_> = floats(dims, 1)
        .floats()
        .unwrap_or_default()
        .iter()
        .map(|x| x * 20.0 + 40.0)
        .collect();
    Tensor::rounded(dtype, dims, &values).unwrap_or_else(|| Tensor::scalar(0f32))
}

/// What both kinds of pool share.
fn both() -> Vec<Case> {
    vec![
        case("3x3 with a border", &[2, 3, 12, 37], &[3, 3])
            .attr("pads", vec![1i64; 4])
            .attr("strides", vec![2i64, 2]),
        case("rounded up", &[1, 2, 7, 8], &[2, 3])
            .attr("ceil_mode", 1)
            .attr("strides", vec![2i64, 3]),
        case("rounded up beyond the border", &[1, 1, 4, 5], &[1, 2])
            .attr("ceil_mode", 1)
            .attr("strides", vec![3i64, 2])
            .attr("pads", vec![0i64, 1, 0, 0]),
        case("dilated", &[1, 2, 9, 9], &[3, 2]).attr("dilations", vec![2i64, 3]),
        case("same, upper", &[1, 2, 8, 7], &[3, 2])
            .attr("auto_pad", "SAME_UPPER")
            .attr("strides", vec![2i64, 2])
            .opset(11),
        case("same, lower", &[1, 2, 8, 7], &[3, 4])
            .attr("auto_pad", "SAME_LOWER")
            .opset(1),
        case("valid", &[1, 2, 8, 7], &[3, 4])
            .attr("auto_pad", "VALID")
            .opset(7),
        case("one axis", &[2, 3, 30], &[5])
            .attr("strides", vec![3i64])
            .attr("pads", vec![2i64, 1]),
        case("three axes", &[1, 2, 4, 5, 6], &[2, 3, 2]).attr("pads", vec![1i64, 0, 1, 0, 1, 1]),
        case("no images", &[0, 2, 4, 4], &[3, 3]),
        case("far beyond the image", &[1, 2, 3, 4], &[20_000, 30_000])
            .attr("pads", vec![9_999i64, 20_000, 10_000, 9_998]),
        case(
            "far beyond the image, all around",
            &[1, 1, 2, 2],
            &[1 << 20, 1 << 20],
        )
        .attr("auto_pad", "SAME_UPPER"),
        Case::new("half precision", [of(DType::F16, &[1, 2, 4, 4])])
            .attr("kernel_shape", vec![2i64, 2])
            .within(0.1, 1e-3),
        Case::new("brain floats", [of(DType::BF16, &[1, 2, 4, 4])])
            .attr("kernel_shape", vec![2i64, 2])
            .within(0.5, 1e-2),
        Case::new("double precision", [of(DType::F64, &[1, 2, 4, 4])])
            .attr("kernel_shape", vec![2i64, 2])
            .within(1e-12, 1e-12),
    ]
}

pub(super) fn max() -> Vec<Case> {
    let own = [
        case("indices", &[2, 2, 5, 6], &[3, 3])
            .attr("pads", vec![1i64; 4])
            .outputs(2),
        case("quarters", &[2, 19, 9, 7], &[2, 2]).attr("strides", vec![2i64, 2]),
        case("indices by column", &[1, 2, 5, 6], &[2, 2])
            .attr("storage_order", 1)
            .outputs(2),
        Case::new("odd values", [odd_floats(&[1, 1, 5, 5], 1)]).attr("kernel_shape", vec![2i64, 2]),
        Case::new("bytes", [of(DType::U8, &[1, 2, 5, 5])]).attr("kernel_shape", vec![2i64, 2]),
        Case::new("signed bytes", [of(DType::I8, &[1, 2, 5, 5])])
            .attr("kernel_shape", vec![2i64, 2])
            .outputs(2),
    ];
    both().into_iter().chain(own).collect()
}

pub(super) fn mean() -> Vec<Case> {
    let own = [
        case("the border counts", &[1, 2, 7, 8], &[3, 3])
            .attr("pads", vec![1i64; 4])
            .attr("count_include_pad", 1),
        case("the border counts, rounded up", &[1, 2, 7, 8], &[3, 3])
            .attr("pads", vec![1i64, 0, 1, 2])
            .attr("strides", vec![2i64, 3])
            .attr("ceil_mode", 1)
            .attr("count_include_pad", 1),
        case(
            "the border counts far beyond the image",
            &[1, 2, 3, 4],
            &[20_000, 30_000],
        )
        .attr("pads", vec![9_999i64, 20_000, 10_000, 9_998])
        .attr("count_include_pad", 1),
        case("the border counts, same", &[1, 1, 5, 5], &[3, 3])
            .attr("auto_pad", "SAME_UPPER")
            .attr("count_include_pad", 1),
        Case::new("odd values", [odd_floats(&[1, 1, 5, 5], 1)]).attr("kernel_shape", vec![1i64, 2]),
    ];
    let near = |c: Case| if c.atol == 0.0 { c.within(1e-6, 1e-6) } else { c };
    both().into_iter().chain(own).map(near).collect()
}

pub(super) fn global() -> Vec<Case> {
    vec![
        Case::new("two axes", [floats(&[2, 5, 7, 9], 1)]).within(1e-6, 1e-6),
        Case::new("one axis", [floats(&[2, 3, 100], 1)]).within(1e-6, 1e-6),
        Case::new("three axes", [floats(&[1, 3, 2, 3, 5], 1)]).within(1e-6, 1e-6),
        Case::new("no images", [floats(&[0, 3, 2, 3], 1)]),
        Case::new("infinities", [odd_floats(&[1, 4, 2, 2], 1)]).within(1e-6, 1e-6),
        Case::new("half precision", [of(DType::F16, &[1, 2, 4, 4])]).within(0.1, 1e-3),
        Case::new("double precision", [of(DType::F64, &[1, 2, 4, 4])]).within(1e-12, 1e-12),
    ]
}
