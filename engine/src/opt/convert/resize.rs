//! `Upsample` and the versions of `Resize`.

use super::site::{Done, Site, float, forward, input, ints, set_input, take, text};
use super::table::{Plain, nothing};
use crate::ir::{Dim, Node, Tensor};

/// Scales of height and width, as scales of all four axes.
pub(super) fn two_scales(s: &mut Site, mut node: Node) -> Done {
    let [h, w] = ["height_scale", "width_scale"].map(|name| float(&node, name));
    let missing = "height_scale or width_scale is missing";
    let scales = vec![1.0, 1.0, h?.ok_or(missing)?, w?.ok_or(missing)?];
    take(&mut node, "height_scale");
    take(&mut node, "width_scale");
    if text(&node, "mode", "nearest")? == "bilinear" {
        node.set("mode", "linear");
    }
    node.set("scales", scales);
    s.put(node)
}

/// Scales, if they are known.
fn scales(s: &Site, node: &Node, i: usize) -> Option<Vec<f32>> {
    let t = s.konst(node, i)?;
    t.floats().map(|x| x.iter().map(|&x| x as f32).collect())
}

pub(super) fn upsample(s: &mut Site, mut node: Node) -> Done {
    let scales = scales(s, &node, 1).ok_or("its scales (input 1) are not constant")?;
    if scales.iter().any(|&x| x < 1.0) {
        return Err("it makes an axis smaller".into());
    }
    node.op = "Upsample".into();
    s.put(node)
}

/// Coordinates and rounding, which were always the same before.
pub(super) fn explicit(s: &mut Site, mut node: Node) -> Done {
    if text(&node, "mode", "nearest")? == "nearest" {
        let scales = scales(s, &node, 1);
        let less = scales.as_ref().map(|x| x.iter().any(|&x| x < 1.0));
        let more = scales.as_ref().map(|x| x.iter().any(|&x| x > 1.0));
        node.set(
            "nearest_mode",
            match (less, more) {
                (Some(false), _) => "floor",
                (Some(true), Some(false)) => "ceil",
                (Some(true), _) => return Err("some axes become larger and others smaller".into()),
                _ => return Err("whether an axis becomes smaller is not known".into()),
            },
        );
    }
    node.set("coordinate_transformation_mode", "asymmetric");
    let given = input(&node, 1);
    let roi = s.constant(Tensor::of(&[0], Vec::<f32>::new()));
    set_input(&mut node, 1, Some(roi));
    set_input(&mut node, 2, given);
    s.put(node)
}

/// Back to the one way of coordinates and rounding that there was.
pub(super) fn simple(s: &mut Site, mut node: Node) -> Done {
    let mode = text(&node, "mode", "nearest")?;
    let way = text(&node, "coordinate_transformation_mode", "half_pixel")?;
    if mode == "cubic" {
        return Err("there is no cubic interpolation".into());
    }
    if way != "asymmetric" {
        return Err(format!("its coordinates are {way:?}, not \"asymmetric\""));
    }
    let scales = match scales(s, &node, 2).filter(|x| !x.is_empty()) {
        Some(scales) => scales,
        None => ratios(s, &node)?,
    };
    if mode == "nearest" {
        let rounding = text(&node, "nearest_mode", "round_prefer_floor")?;
        let whole = scales.iter().all(|x| x.fract() == 0.0 && *x >= 1.0);
        let fits = match &*rounding {
            "floor" => scales.iter().all(|&x| x >= 1.0),
            "ceil" => scales.iter().all(|&x| x <= 1.0),
            _ => whole && scales.iter().all(|&x| x <= 1.0),
        };
        if !fits {
            return Err(format!("its rounding is {rounding:?}"));
        }
    }
    let gone = [
        "coordinate_transformation_mode",
        "nearest_mode",
        "cubic_coeff_a",
        "exclude_outside",
        "extrapolation_value",
    ];
    node.attrs.retain(|a| !gone.contains(&&*a.name));
    let scales = s.constant(Tensor::of(&[scales.len()], scales));
    node.inputs.truncate(1);
    set_input(&mut node, 1, Some(scales));
    s.put(node)
}

/// The scales that known sizes make.
fn ratios(s: &Site, node: &Node) -> Result<Vec<f32>, String> {
    let sizes = s
        .ints(node, 3, "sizes")?
        .ok_or("its scales (input 2) are not constant")?;
    let shape = s.shape(node, 0).unwrap_or_default();
    let dims: Option<Vec<i64>> = shape.iter().map(Dim::known).collect();
    let dims = dims.filter(|d| d.len() == sizes.len() && !d.contains(&0));
    let dims = dims.ok_or("its sizes are given, and those of its input are not known")?;
    let exact = |(&new, &old): (&i64, &i64)| {
        let ratio = new as f32 / old as f32;
        ((old as f32 * ratio).floor() == new as f32).then_some(ratio)
    };
    let all: Option<Vec<f32>> = sizes.iter().zip(&dims).map(exact).collect();
    all.ok_or_else(|| "its sizes are no multiples of those of its input".into())
}

fn empty_input(s: &Site, node: &Node, i: usize) -> bool {
    input(node, i).is_some_and(|v| super::is_nothing(&s.facts.of(v).ty))
}

/// Empty inputs become left-out ones.
pub(super) fn left_out(s: &mut Site, mut node: Node) -> Done {
    for i in [3, 2, 1] {
        if empty_input(s, &node, i) {
            set_input(&mut node, i, None);
        }
    }
    s.put(node)
}

/// Left-out inputs become empty ones.
pub(super) fn empty(s: &mut Site, mut node: Node) -> Done {
    for i in [1, 2] {
        if input(&node, i).is_none() {
            let none = s.constant(Tensor::of(&[0], Vec::<f32>::new()));
            set_input(&mut node, i, Some(none));
        }
    }
    s.put(node)
}

/// Scales or sizes of all axes, where only some were spoken of.
pub(super) fn all_axes(s: &mut Site, mut node: Node) -> Done {
    nothing(&mut node, "antialias", Plain::Int(0))?;
    nothing(&mut node, "keep_aspect_ratio_policy", Plain::Text("stretch"))?;
    let Some(axes) = ints(&node, "axes")? else {
        return s.put(node);
    };
    take(&mut node, "axes");
    let rank = s.rank(&node, 0)?;
    let axes = axes
        .iter()
        .map(|&a| forward(a, rank))
        .collect::<Result<Vec<_>, _>>()?;
    let at = |axis: usize| axes.iter().position(|&a| a as usize == axis);
    if input(&node, 1).is_some() && !empty_input(s, &node, 1) {
        let roi = s
            .known(&node, 1, "regions")?
            .and_then(|t| t.floats())
            .unwrap_or_default();
        let pick = |axis, or: f32, shift| {
            at(axis)
                .and_then(|i| roi.get(i + shift))
                .map_or(or, |&x| x as f32)
        };
        let all = (0..rank).map(|a| pick(a, 0.0, 0));
        let all: Vec<f32> = all.chain((0..rank).map(|a| pick(a, 1.0, axes.len()))).collect();
        let all = s.constant(Tensor::of(&[2 * rank], all));
        set_input(&mut node, 1, Some(all));
    }
    if input(&node, 2).is_some() && !empty_input(s, &node, 2) {
        let given = scales(s, &node, 2).ok_or("its scales (input 2) are not constant")?;
        let all = (0..rank).map(|a| at(a).and_then(|i| given.get(i).copied()).unwrap_or(1.0));
        let all: Vec<f32> = all.collect();
        let all = s.constant(Tensor::of(&[rank], all));
        set_input(&mut node, 2, Some(all));
    }
    if let Some(sizes) = s.ints(&node, 3, "sizes")?.filter(|x| !x.is_empty()) {
        let shape = s.shape(&node, 0).unwrap_or_default();
        let all = (0..rank).map(|a| match at(a) {
            Some(i) => sizes.get(i).copied(),
            None => shape[a].known(),
        });
        let all: Option<Vec<i64>> = all.collect();
        let all = all.ok_or("the sizes of its input are not known")?;
        let all = s.list(all);
        set_input(&mut node, 3, Some(all));
    }
    s.put(node)
}

pub(super) fn not_symmetric(s: &mut Site, node: Node) -> Done {
    let way = text(&node, "coordinate_transformation_mode", "half_pixel")?;
    match &*way {
        "half_pixel_symmetric" => Err(format!("its coordinates are {way:?}")),
        _ => s.put(node),
    }
}
