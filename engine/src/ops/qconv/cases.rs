//! Cases of convolutions of bytes.

use crate::ir::Tensor;
use crate::ops::case::Case;
use crate::ops::qmatmul::cases::{bytes, signed};

pub(super) fn integer() -> Vec<Case> {
    let case = |name, x: &[usize], w: &[usize]| Case::new(name, [bytes(x, 1), bytes(w, 2)]);
    let zeros = |name, x: &[usize], w: &[usize], zw: &[usize]| {
        let inputs = [bytes(x, 1), signed(w, 2), Tensor::scalar(77u8), signed(zw, 3)];
        Case::new(name, inputs)
    };
    vec![
        case("plain", &[1, 3, 9, 8], &[5, 3, 3, 3]),
        zeros("constant weights", &[2, 4, 9, 8], &[40, 4, 3, 3], &[])
            .attr("pads", vec![1i64, 1, 1, 1])
            .konst(&[1]),
        zeros("groups", &[1, 6, 7, 7], &[9, 2, 3, 3], &[9])
            .attr("group", 3i64)
            .attr("strides", vec![2i64, 1])
            .konst(&[1]),
        zeros("of single channels", &[2, 5, 9, 11], &[5, 1, 3, 3], &[5])
            .attr("group", 5i64)
            .attr("pads", vec![1i64, 2, 1, 0])
            .konst(&[1]),
        zeros("of single channels in steps", &[1, 5, 9, 11], &[5, 1, 3, 2], &[1])
            .attr("group", 5i64)
            .attr("auto_pad", "SAME_UPPER")
            .attr("dilations", vec![1i64, 2])
            .attr("strides", vec![2i64, 2]),
        zeros("one pixel", &[1, 20, 6, 7], &[33, 20, 1, 1], &[33]).konst(&[1, 2, 3]),
        zeros("one axis", &[1, 3, 20], &[2, 3, 5], &[]).attr("dilations", vec![2i64]),
        zeros("three axes", &[1, 2, 4, 5, 3], &[1, 2, 2, 2, 2], &[]),
        case("far beyond the image", &[1, 2, 3, 3], &[2, 2, 40, 50]).attr("pads", vec![20i64, 25, 21, 24]),
        case("nothing", &[0, 3, 5, 5], &[2, 3, 3, 3]),
        case("signed weights", &[1, 2, 4, 4], &[3, 2, 2, 2]).opset(10),
    ]
}

pub(super) fn linear() -> Vec<Case> {
    let case = |name, x: &[usize], w: &[usize], each: &[usize]| {
        let n: usize = each.iter().product();
        let scales = (0..n).map(|i| 0.01 + 0.003 * i as f32).collect();
        let bias = (0..w[0] as i32).map(|i| 1000 - 300 * i).collect();
        Case::new(
            name,
            [
                bytes(x, 1),
                Tensor::scalar(0.02f32),
                Tensor::scalar(101u8),
                signed(w, 2),
                Tensor::of(each, scales),
                Tensor::of(each, vec![0i8; n]),
                Tensor::scalar(0.7f32),
                Tensor::scalar(3i8),
                Tensor::of(&[w[0]], bias),
            ],
        )
    };
    vec![
        case("by channel", &[1, 4, 9, 8], &[33, 4, 3, 3], &[33])
            .attr("pads", vec![1i64, 1, 1, 1])
            .konst(&[3]),
        case("without a bias", &[2, 4, 5, 5], &[6, 2, 3, 3], &[])
            .attr("group", 2i64)
            .without(8),
        case("of single channels", &[1, 5, 9, 40], &[5, 1, 3, 3], &[5])
            .attr("group", 5i64)
            .attr("pads", vec![1i64, 1, 1, 1])
            .konst(&[3, 4, 5]),
    ]
}
