//! Attributes, types and outputs that come, go and change their form.

use super::site::{Done, Site, float, forward, input, int, ints, set_input, take, text, wants};
use super::table::{Plain, nothing};
use crate::ir::{Attr, AttrValue, DType, Dim, Node, Tensor, Type};

pub(super) fn paddings(s: &mut Site, mut node: Node) -> Done {
    if let Some(pads) = take(&mut node, "paddings") {
        node.set("pads", pads);
    }
    s.put(node)
}

pub(super) fn split_input(s: &mut Site, mut node: Node) -> Done {
    if let Some(t) = s.known(&node, 1, "parts")? {
        let parts = t.floats().ok_or("its parts are no numbers")?;
        node.set("split", parts.iter().map(|&x| x as i64).collect::<Vec<_>>());
        node.inputs.truncate(1);
    }
    s.put(node)
}

pub(super) fn whole_p(s: &mut Site, mut node: Node) -> Done {
    if let Some(p) = float(&node, "p")? {
        if p.fract() != 0.0 {
            return Err(format!("attribute \"p\" is {p}"));
        }
        node.set("p", p as i64);
    }
    s.put(node)
}

pub(super) fn concat_axis(s: &mut Site, mut node: Node) -> Done {
    if node.attr("axis").is_none() {
        node.set("axis", 1i64);
    }
    s.put(node)
}

pub(super) fn cast_name(s: &mut Site, mut node: Node) -> Done {
    let name = text(&node, "to", "")?.to_lowercase();
    let to = DType::ALL.iter().find(|d| d.name() == name);
    let to = to.ok_or_else(|| format!("attribute \"to\" is {name:?}"))?;
    node.set("to", i64::from(to.code()));
    s.put(node)
}

/// One number of tiles for one axis becomes one for each axis.
pub(super) fn tile(s: &mut Site, mut node: Node) -> Done {
    let number = |s: &Site, i, what| {
        let t = s.known(&node, i, what)?;
        let x = t
            .and_then(|t| t.item())
            .ok_or_else(|| format!("its {what} are missing"));
        x.map(|x| x as i64)
    };
    let (tiles, axis) = (number(s, 1, "tiles")?, number(s, 2, "axes")?);
    let rank = s.rank(&node, 0)?;
    let axis = forward(axis, rank)?;
    let repeats = (0..rank as i64).map(|a| if a == axis { tiles } else { 1 });
    let repeats = s.list(repeats.collect());
    node.inputs.truncate(1);
    set_input(&mut node, 1, Some(repeats));
    s.put(node)
}

pub(super) fn selu(s: &mut Site, mut node: Node) -> Done {
    take(&mut node, "consumed_inputs");
    for (name, old) in [("alpha", 1.6732f32), ("gamma", 1.0507)] {
        if node.attr(name).is_none() {
            node.set(name, old);
        }
    }
    s.put(node)
}

/// The second input's axes, which `axis` placed, come to stand under those of the first by themselves.
pub(super) fn broadcast(s: &mut Site, mut node: Node) -> Done {
    let (limited, axis) = (int(&node, "broadcast")?.unwrap_or(0), int(&node, "axis")?);
    take(&mut node, "broadcast");
    take(&mut node, "axis");
    if let Some(axis) = axis.filter(|_| limited != 0) {
        let (a, b) = (s.rank(&node, 0)?, s.rank(&node, 1)?);
        let start = forward(axis, a)? as usize;
        let ones = a
            .checked_sub(start + b)
            .ok_or("its second input has too many axes")?;
        trailing(s, &mut node, ones, b)?;
    }
    s.put(node)
}

fn trailing(s: &mut Site, node: &mut Node, ones: usize, rank: usize) -> Done {
    if ones > 0 && rank > 0 {
        let b = input(node, 1).ok_or("its second input is left out")?;
        let axes: Vec<i64> = (rank..rank + ones).map(|i| i as i64).collect();
        let b = s.apply("Unsqueeze", &[b], vec![Attr::new("axes", axes)]);
        set_input(node, 1, Some(b));
    }
    Ok(())
}

/// A slope for each channel comes to stand under axis 1 by itself.
pub(super) fn slope(s: &mut Site, mut node: Node) -> Done {
    let single = |shape: &[Dim]| shape.iter().all(|d| *d == Dim::Known(1));
    let slope = s.shape(&node, 1).ok_or("the shape of its slope is not known")?;
    if slope.len() == 1 && !single(&slope) {
        let rank = s.rank(&node, 0)?;
        trailing(s, &mut node, rank.saturating_sub(2), 1)?;
    }
    s.put(node)
}

pub(super) fn inference(s: &mut Site, mut node: Node) -> Done {
    let test = int(&node, "is_test")?.unwrap_or(0);
    if test == 0 {
        return Err("it is for training".into());
    }
    take(&mut node, "is_test");
    s.put(node)
}

pub(super) fn same_shapes(s: &mut Site, node: Node) -> Done {
    let shapes: Vec<_> = (0..node.inputs.len()).map(|i| s.shape(&node, i)).collect();
    let known = |shape: &Option<Vec<Dim>>| shape.as_ref().is_some_and(|d| !d.contains(&Dim::Unknown));
    match shapes.windows(2).all(|w| known(&w[0]) && w[0] == w[1]) {
        true => s.put(node),
        false => Err("its inputs are not all of one shape".into()),
    }
}

pub(super) fn no_indices(s: &mut Site, mut node: Node) -> Done {
    if wants(&node, 1) {
        return Err("it gives indices".into());
    }
    node.outputs.truncate(1);
    take(&mut node, "storage_order");
    s.put(node)
}

/// The mask is made of truths in one version, and of numbers in the other.
pub(super) fn mask(s: &mut Site, mut node: Node) -> Done {
    let Some(mask) = node.outputs.get(1).copied().flatten() else {
        return s.put(node);
    };
    let dtype = match s.to > s.at {
        true => s.dtype(&node, 0)?,
        false => DType::Bool,
    };
    let new = s.value();
    node.outputs[1] = Some(new);
    s.put(node)?;
    s.apply_to(
        mask,
        "Cast",
        &[new],
        vec![Attr::new("to", i64::from(dtype.code()))],
    );
    Ok(())
}

pub(super) fn addend(s: &mut Site, mut node: Node) -> Done {
    if input(&node, 2).is_none() {
        let dtype = s.dtype(&node, 0)?;
        let zero = Tensor::rounded(dtype, &[1], &[0.0]).ok_or("it is of no number type")?;
        let zero = s.constant(zero);
        set_input(&mut node, 2, Some(zero));
    }
    s.put(node)
}

pub(super) fn greatest(s: &mut Site, mut node: Node) -> Done {
    nothing(&mut node, "largest", Plain::Int(1))?;
    take(&mut node, "sorted");
    signed(s, &mut node)?;
    s.put(node)
}

pub(super) fn dense(s: &mut Site, node: Node) -> Done {
    match node.attr("sparse_value") {
        Some(_) => Err("it is sparse".into()),
        None => s.put(node),
    }
}

/// Numbers and strings become tensors.
pub(super) fn one_value(s: &mut Site, mut node: Node) -> Done {
    let float = |x: Option<f32>| Tensor::scalar(x.unwrap_or(0.0));
    let Some(at) = node.attrs.iter().position(|a| a.name.starts_with("value_")) else {
        return s.put(node);
    };
    let t = match &node.attrs[at].value {
        AttrValue::Int(x) => Tensor::scalar(x.unwrap_or(0)),
        AttrValue::Float(x) => float(*x),
        AttrValue::Ints(x) => Tensor::of(&[x.len()], x.clone()),
        AttrValue::Floats(x) => Tensor::of(&[x.len()], x.clone()),
        AttrValue::Bytes(x) => Tensor::of_strings(&[], vec![x.clone().unwrap_or_default()]),
        AttrValue::Strings(x) => Tensor::of_strings(&[x.len()], x.clone()),
        _ => return Err(format!("its attribute {:?} is a parameter", node.attrs[at].name)),
    };
    node.attrs.remove(at);
    node.set("value", t);
    s.put(node)
}

pub(super) fn not_negative(s: &mut Site, mut node: Node) -> Done {
    let all = s.ints(&node, 0, "indices")?.unwrap_or_default();
    if all.iter().any(|&i| i < 0) {
        return Err("some of its indices are negative".into());
    }
    if int(&node, "axis")?.is_some_and(|a| a < -1) {
        let rank = s.rank(&node, 0)?;
        node.set("axis", forward(int(&node, "axis")?.unwrap_or(-1), rank + 1)?);
    }
    s.put(node)
}

pub(super) fn slice_axes(s: &mut Site, mut node: Node) -> Done {
    if let Some(axes) = s.ints(&node, 3, "axes")?
        && axes.iter().any(|&a| a < 0)
    {
        let rank = s.rank(&node, 0)?;
        let axes = axes
            .iter()
            .map(|&a| forward(a, rank))
            .collect::<Result<Vec<_>, _>>()?;
        let axes = s.list(axes);
        set_input(&mut node, 3, Some(axes));
    }
    s.put(node)
}

/// Counts negative axes from the front.
fn signed(s: &mut Site, node: &mut Node) -> Done {
    let extra = match &*node.op {
        "Unsqueeze" => ints(node, "axes")?.map_or(0, |a| a.len()),
        _ => 0,
    };
    if let Some(axis) = int(node, "axis")?.filter(|&a| a < 0) {
        node.set("axis", forward(axis, s.rank(node, 0)?)?);
    }
    if let Some(axes) = ints(node, "axes")?.filter(|a| a.iter().any(|&a| a < 0)) {
        let rank = s.rank(node, 0)? + extra;
        let axes = axes
            .iter()
            .map(|&a| forward(a, rank))
            .collect::<Result<Vec<_>, _>>()?;
        node.set("axes", axes);
    }
    Ok(())
}

pub(super) fn unsigned(s: &mut Site, mut node: Node) -> Done {
    signed(s, &mut node)?;
    s.put(node)
}

/// The exponent in the type of the base.
pub(super) fn exponent(s: &mut Site, mut node: Node) -> Done {
    let (Some(base), Some(power)) = (s.type_of(&node, 0), s.type_of(&node, 1)) else {
        return Err("its element types are not known".into());
    };
    if !base.is_float() {
        return Err(format!("it is a power of {base}"));
    }
    if base != power {
        let e = input(&node, 1).ok_or("its exponent is left out")?;
        let e = s.apply("Cast", &[e], vec![Attr::new("to", i64::from(base.code()))]);
        set_input(&mut node, 1, Some(e));
    }
    s.put(node)
}

pub(super) fn optional(s: &mut Site, node: Node) -> Done {
    let ty = input(&node, 0).map(|v| &s.facts.of(v).ty);
    match ty {
        Some(Type::Optional(_)) => s.put(node),
        _ => Err("its input is no optional value".into()),
    }
}

/// A scale for each slice of an axis goes; one for all stays.
pub(super) fn one_scale(s: &mut Site, mut node: Node) -> Done {
    let scale = s.shape(&node, 1).ok_or("the shape of its scale is not known")?;
    if scale.iter().any(|d| *d != Dim::Known(1)) {
        return Err("it has a scale for each slice of an axis".into());
    }
    take(&mut node, "axis");
    s.put(node)
}

pub(super) fn one_output(s: &mut Site, mut node: Node) -> Done {
    if (1..5).any(|i| wants(&node, i)) {
        return Err("it is for training".into());
    }
    node.outputs.truncate(1);
    s.put(node)
}

pub(super) fn no_training(s: &mut Site, mut node: Node) -> Done {
    nothing(&mut node, "training_mode", Plain::Int(0))?;
    one_output(s, node)
}

/// A size of 0 is one that is taken over, unless there is none.
pub(super) fn no_zero(s: &mut Site, mut node: Node) -> Done {
    if int(&node, "allowzero")?.unwrap_or(0) != 0 {
        let shape = s.ints(&node, 1, "sizes")?.unwrap_or_default();
        if shape.contains(&0) {
            return Err("it makes an axis of size 0".into());
        }
    }
    take(&mut node, "allowzero");
    s.put(node)
}

pub(super) fn cast_to(s: &mut Site, mut node: Node) -> Done {
    let to = s.dtype(&node, 1)?;
    node.op = "Cast".into();
    node.inputs.truncate(1);
    node.set("to", i64::from(to.code()));
    s.put(node)
}

pub(super) fn roi_mode(s: &mut Site, mut node: Node) -> Done {
    node.set("coordinate_transformation_mode", "output_half_pixel");
    s.put(node)
}

pub(super) fn roi_mode_back(s: &mut Site, mut node: Node) -> Done {
    let way = text(&node, "coordinate_transformation_mode", "half_pixel")?;
    if way != "output_half_pixel" {
        return Err(format!("its coordinates are {way:?}"));
    }
    take(&mut node, "coordinate_transformation_mode");
    s.put(node)
}

/// Equal parts have to be counted.
pub(super) fn outputs(s: &mut Site, mut node: Node) -> Done {
    if input(&node, 1).is_none() {
        node.set("num_outputs", node.outputs.len() as i64);
    }
    s.put(node)
}

pub(super) fn scatter_18(s: &mut Site, node: Node) -> Done {
    let way = text(&node, "reduction", "none")?;
    match &*way {
        "none" | "add" | "mul" => s.put(node),
        _ => Err(format!("its reduction is {way:?}")),
    }
}

pub(super) fn no_wrap(s: &mut Site, node: Node) -> Done {
    match &*text(&node, "mode", "constant")? {
        "wrap" => Err("its mode is \"wrap\"".into()),
        _ => s.put(node),
    }
}

fn renamed(s: &mut Site, mut node: Node, names: [(&str, &str); 2]) -> Done {
    let mode = text(&node, "mode", "")?;
    if let Some((_, new)) = names.iter().find(|(old, _)| *old == mode) {
        node.set("mode", *new);
    }
    s.put(node)
}

pub(super) fn grid_mode(s: &mut Site, node: Node) -> Done {
    renamed(s, node, [("bilinear", "linear"), ("bicubic", "cubic")])
}

pub(super) fn grid_mode_back(s: &mut Site, node: Node) -> Done {
    if s.rank(&node, 0)? != 4 {
        return Err("it does not sample images".into());
    }
    renamed(s, node, [("linear", "bilinear"), ("cubic", "bicubic")])
}

/// Scales of one node, for which zero points are written.
const SCALES: usize = 1 << 24;

/// The type is that of the zero point again.
pub(super) fn quantised_type(s: &mut Site, mut node: Node) -> Done {
    nothing(&mut node, "block_size", Plain::Int(0))?;
    let to = int(&node, "output_dtype")?.unwrap_or(0);
    take(&mut node, "output_dtype");
    if to != 0 && input(&node, 2).is_none() {
        let shape = s.shape(&node, 1).unwrap_or_default();
        let dims: Option<Vec<usize>> = shape.iter().map(Dim::size).collect();
        let dtype = i32::try_from(to).map(DType::from_code).ok();
        let zero = dims.zip(dtype).filter(|_| s.shape(&node, 1).is_some());
        let zero = zero.filter(|(dims, _)| crate::ir::count(dims).is_some_and(|n| n <= SCALES));
        let zero = zero.and_then(|(dims, dtype)| Tensor::zeros(dtype, &dims));
        let zero = s.constant(zero.ok_or("the shape of its scale is not known, or larger than any")?);
        set_input(&mut node, 2, Some(zero));
    }
    s.put(node)
}

pub(super) fn six_inputs(s: &mut Site, node: Node) -> Done {
    match input(&node, 6) {
        Some(_) => Err("it has lengths of keys (input 6)".into()),
        None => s.put(node),
    }
}
