//! Examples of resizing.

use crate::ir::Tensor;
use crate::ops::{Case, case};

fn floats(l: &[f32]) -> Tensor {
    Tensor::of(&[l.len()], l.to_vec())
}

fn sizes(name: &'static str, x: Tensor, to: &[i64]) -> Case {
    let empty = || floats(&[]);
    Case::new(name, [x, empty(), empty(), Tensor::of(&[to.len()], to.to_vec())])
        .without(1)
        .without(2)
        .konst(&[3])
        .within(2e-6, 2e-6)
}

fn scales(name: &'static str, x: Tensor, by: &[f32]) -> Case {
    Case::new(name, [x, floats(&[]), floats(by)])
        .without(1)
        .konst(&[2])
        .within(2e-6, 2e-6)
}

/// Every mode with every transformation, up and down.
pub(super) fn styles() -> Vec<Case> {
    let transformations = [
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_half_pixel_for_nn",
        "tf_crop_and_resize",
    ];
    let modes = ["nearest", "linear", "cubic"];
    let mut cases = vec![];
    for transformation in transformations {
        for mode in modes {
            for by in [0.6, 1.7] {
                let mut c = scales(
                    "every style",
                    case::floats(&[1, 2, 5, 6], 1),
                    &[1.0, 1.0, by, 1.5],
                );
                if transformation == "tf_crop_and_resize" {
                    c.inputs[1] = Some(floats(&[0.0, 0.0, 0.1, -0.2, 1.0, 1.0, 0.7, 1.1]));
                    c.konst.push(1);
                    c = c.attr("extrapolation_value", 10f32);
                }
                cases.push(
                    c.attr("mode", mode)
                        .attr("coordinate_transformation_mode", transformation),
                );
            }
        }
    }
    for nearest in ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"] {
        let down = sizes("every tie", case::floats(&[1, 1, 8, 7], 2), &[1, 1, 4, 3]);
        cases.push(down.attr("nearest_mode", nearest));
    }
    for mode in ["linear", "cubic"] {
        let c = scales("antialias", case::floats(&[1, 2, 9, 8], 3), &[1.0, 1.0, 0.4, 1.5]);
        cases.push(c.attr("mode", mode).attr("antialias", 1i64));
        let c = scales(
            "inside only",
            case::floats(&[1, 2, 4, 5], 4),
            &[1.0, 1.0, 2.0, 0.8],
        );
        cases.push(
            c.attr("mode", mode)
                .attr("exclude_outside", 1i64)
                .attr("cubic_coeff_a", -0.5f32),
        );
    }
    cases
}

/// Every way to ask for a size, and other types and ranks.
pub(super) fn forms() -> Vec<Case> {
    let x = || case::floats(&[2, 3, 4, 5], 5);
    let bytes = || Tensor::of(&[1, 1, 3, 4], (0..12).map(|i| i * 20).collect::<Vec<u8>>());
    let old = |c: Case| c.attr("mode", "linear");
    vec![
        scales("twice", x(), &[1.0, 1.0, 2.0, 2.0])
            .attr("coordinate_transformation_mode", "asymmetric")
            .attr("nearest_mode", "floor"),
        scales(
            "twice, channels last",
            case::floats(&[1, 4, 5, 19], 6),
            &[1.0, 2.0, 2.0, 1.0],
        )
        .attr("mode", "linear"),
        scales(
            "one long row",
            case::floats(&[1, 1, 3, 700], 7),
            &[1.0, 1.0, 30.0, 2.0],
        )
        .attr("mode", "linear"),
        sizes("two axes", x(), &[7, 8])
            .attr("axes", vec![3i64, -2])
            .attr("mode", "cubic"),
        sizes("not larger", x(), &[9, 9])
            .attr("axes", vec![2i64, 3])
            .attr("keep_aspect_ratio_policy", "not_larger"),
        sizes("not smaller", x(), &[9, 9])
            .attr("axes", vec![2i64, 3])
            .attr("mode", "linear")
            .attr("keep_aspect_ratio_policy", "not_smaller"),
        sizes("to nothing", x(), &[2, 3, 0, 5]),
        sizes("bytes", bytes(), &[1, 1, 6, 8]),
        sizes("bytes by weight", bytes(), &[1, 1, 5, 7])
            .attr("mode", "linear")
            .within(1.0, 0.0),
        sizes("three axes", case::floats(&[1, 3, 4, 5], 8), &[1, 5, 6, 9]).attr("mode", "linear"),
        sizes("doubles", Tensor::of(&[1, 3], vec![1f64, 2.0, 4.0]), &[1, 5]).attr("mode", "linear"),
        sizes("sizes known late", x(), &[2, 3, 8, 7])
            .attr("mode", "linear")
            .konst(&[]),
        scales("nothing changes", x(), &[1.0; 4]),
        old(Case::new(
            "the first version",
            [x(), floats(&[1.0, 1.0, 0.6, 2.0])],
        ))
        .konst(&[1])
        .within(2e-6, 2e-6)
        .opset(10),
        Case::new("the first version, nearest", [x(), floats(&[1.0, 1.0, 0.6, 2.0])])
            .konst(&[1])
            .opset(10),
    ]
}

/// Those of the older operator.
pub(super) fn upsample() -> Vec<Case> {
    let x = || case::floats(&[1, 2, 3, 4], 1);
    vec![
        Case::new("by input", [x(), floats(&[1.0, 1.0, 2.0, 3.0])])
            .konst(&[1])
            .opset(9),
        Case::new("by attribute", [x()])
            .attr("scales", vec![1f32, 1.0, 2.0, 2.0])
            .attr("mode", "linear")
            .within(2e-6, 2e-6)
            .opset(7),
        Case::new("the first version", [x()])
            .attr("height_scale", 2f32)
            .attr("width_scale", 1.5f32)
            .opset(1),
    ]
}
