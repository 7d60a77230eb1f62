//! Attributes that became inputs, and back.

use super::site::{Done, Site, float, floats, input, int, ints, set_input, take};
use crate::ir::{AttrValue, DType, Dim, Node, Tensor};

/// Refuses inputs that the older version does not take: nobody knows what they would be.
fn only(node: &Node, inputs: usize) -> Done {
    match node.inputs.len() > inputs {
        true => Err(format!("it has {} inputs; expected {inputs}", node.inputs.len())),
        false => Ok(()),
    }
}

/// The integers of attribute `name` as a constant; `None` where it is left out.
fn as_input(s: &mut Site, node: &mut Node, name: &str) -> Result<Option<crate::ir::ValueId>, String> {
    if let (Some(AttrValue::Ref(_)), true) = (node.attr(name), s.to >= 12) {
        let v = s.value();
        let mut constant = Node::new("Constant", vec![], vec![Some(v)]);
        constant.set("value_ints", take(node, name).unwrap_or(AttrValue::Nothing));
        constant.attrs[0].code = Some(7);
        s.put(constant)?;
        return Ok(Some(v));
    }
    let list = ints(node, name)?;
    take(node, name);
    Ok(list.map(|l| s.list(l)))
}

pub(super) fn reshape(s: &mut Site, mut node: Node) -> Done {
    only(&node, 1)?;
    take(&mut node, "consumed_inputs");
    let shape = as_input(s, &mut node, "shape")?.ok_or("its shape is missing")?;
    set_input(&mut node, 1, Some(shape));
    s.put(node)
}

pub(super) fn axes(s: &mut Site, mut node: Node) -> Done {
    only(&node, 1)?;
    let list = as_input(s, &mut node, "axes")?;
    if list.is_some() {
        set_input(&mut node, 1, list);
    }
    s.put(node)
}

pub(super) fn axes_back(s: &mut Site, mut node: Node) -> Done {
    if let Some(list) = s.ints(&node, 1, "axes")? {
        node.set("axes", list);
    }
    node.inputs.truncate(1);
    s.put(node)
}

pub(super) fn reduced_back(s: &mut Site, mut node: Node) -> Done {
    let list = s.ints(&node, 1, "axes")?.unwrap_or_default();
    let none = int(&node, "noop_with_empty_axes")?.unwrap_or(0) != 0;
    take(&mut node, "noop_with_empty_axes");
    node.inputs.truncate(1);
    if list.is_empty() && none {
        let itself = ["ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"];
        if !itself.contains(&&*node.op) {
            return Err("it reduces no axis".into());
        }
        node.op = "Identity".into();
        node.attrs.clear();
    } else if !list.is_empty() {
        node.set("axes", list);
    }
    s.put(node)
}

pub(super) fn upsample(s: &mut Site, mut node: Node) -> Done {
    only(&node, 1)?;
    let scales = floats(&node, "scales")?.ok_or("its scales are missing")?;
    take(&mut node, "scales");
    let scales = s.constant(Tensor::of(&[scales.len()], scales));
    set_input(&mut node, 1, Some(scales));
    s.put(node)
}

pub(super) fn upsample_back(s: &mut Site, mut node: Node) -> Done {
    let scales = s.known(&node, 1, "scales")?.and_then(|t| t.floats());
    let scales = scales.ok_or("its scales are missing")?;
    node.set("scales", scales.iter().map(|&x| x as f32).collect::<Vec<_>>());
    node.inputs.truncate(1);
    s.put(node)
}

pub(super) fn slice(s: &mut Site, mut node: Node) -> Done {
    only(&node, 1)?;
    for (i, name) in ["starts", "ends", "axes"].into_iter().enumerate() {
        let list = as_input(s, &mut node, name)?;
        if list.is_some() {
            set_input(&mut node, i + 1, list);
        }
    }
    s.put(node)
}

pub(super) fn slice_back(s: &mut Site, mut node: Node) -> Done {
    if s.ints(&node, 4, "steps")?
        .is_some_and(|steps| steps.iter().any(|&x| x != 1))
    {
        return Err("its steps are not all 1".into());
    }
    for (i, name) in ["starts", "ends", "axes"].into_iter().enumerate() {
        if let Some(list) = s.ints(&node, i + 1, name)? {
            node.set(name, list);
        }
    }
    node.inputs.truncate(1);
    s.put(node)
}

pub(super) fn top(s: &mut Site, mut node: Node) -> Done {
    only(&node, 1)?;
    let k = int(&node, "k")?.ok_or("attribute \"k\" is missing")?;
    take(&mut node, "k");
    let k = s.list(vec![k]);
    set_input(&mut node, 1, Some(k));
    s.put(node)
}

pub(super) fn top_back(s: &mut Site, mut node: Node) -> Done {
    let k = s.ints(&node, 1, "numbers")?.and_then(|k| k.first().copied());
    node.set("k", k.ok_or("its number is missing")?);
    node.inputs.truncate(1);
    s.put(node)
}

pub(super) fn clip(s: &mut Site, mut node: Node) -> Done {
    only(&node, 1)?;
    for (i, name) in ["min", "max"].into_iter().enumerate() {
        if let Some(x) = float(&node, name)? {
            let bound = s.scalar_like(&node, 0, x.into())?;
            set_input(&mut node, i + 1, Some(bound));
        }
        take(&mut node, name);
    }
    s.put(node)
}

pub(super) fn clip_back(s: &mut Site, mut node: Node) -> Done {
    for (i, name) in ["min", "max"].into_iter().enumerate() {
        if let Some(t) = s.known(&node, i + 1, "bounds")? {
            let x = t.item().ok_or("its bounds are no scalars")?;
            node.set(name, x as f32);
        }
    }
    node.inputs.truncate(1);
    s.put(node)
}

pub(super) fn pad(s: &mut Site, mut node: Node) -> Done {
    only(&node, 1)?;
    let pads = as_input(s, &mut node, "pads")?.ok_or("its pads are missing")?;
    set_input(&mut node, 1, Some(pads));
    let value = float(&node, "value")?.unwrap_or(0.0);
    take(&mut node, "value");
    if value != 0.0 {
        let value = s.scalar_like(&node, 0, value.into())?;
        set_input(&mut node, 2, Some(value));
    }
    s.put(node)
}

pub(super) fn pad_back(s: &mut Site, mut node: Node) -> Done {
    node.set("pads", s.ints(&node, 1, "pads")?.ok_or("its pads are missing")?);
    if let Some(t) = s.known(&node, 2, "values")? {
        node.set("value", t.item().ok_or("its value is no scalar")? as f32);
    }
    node.inputs.truncate(1);
    s.put(node)
}

/// The pads of all axes, where only some were spoken of.
pub(super) fn pad_axes(s: &mut Site, mut node: Node) -> Done {
    if let Some(axes) = s.ints(&node, 3, "axes")? {
        let rank = s.rank(&node, 0)?;
        let pads = s.ints(&node, 1, "pads")?.ok_or("its pads are missing")?;
        if pads.len() != 2 * axes.len() {
            return Err(format!("{} pads for {} axes", pads.len(), axes.len()));
        }
        let mut all = vec![0; 2 * rank];
        for (i, &axis) in axes.iter().enumerate() {
            let axis = super::site::forward(axis, rank)? as usize;
            let [begin, end] = [all.get(axis), all.get(axis + rank)].map(|x| x.is_some());
            if begin && end {
                all[axis] = pads[i];
                all[axis + rank] = pads[i + axes.len()];
            }
        }
        let all = s.list(all);
        set_input(&mut node, 1, Some(all));
    }
    set_input(&mut node, 3, None);
    s.put(node)
}

pub(super) fn split(s: &mut Site, mut node: Node) -> Done {
    only(&node, 1)?;
    let parts = as_input(s, &mut node, "split")?;
    if parts.is_some() {
        set_input(&mut node, 1, parts);
    }
    s.put(node)
}

pub(super) fn split_back(s: &mut Site, mut node: Node) -> Done {
    if let Some(parts) = s.ints(&node, 1, "parts")? {
        node.set("split", parts);
    }
    node.inputs.truncate(1);
    s.put(node)
}

/// Parts that need not be equal any more where they are counted.
pub(super) fn equal_parts(s: &mut Site, mut node: Node) -> Done {
    take(&mut node, "num_outputs");
    if input(&node, 1).is_some() {
        return s.put(node);
    }
    let parts = node.outputs.len().max(1) as i64;
    let rank = s.rank(&node, 0)?;
    let axis = super::site::forward(int(&node, "axis")?.unwrap_or(0), rank)? as usize;
    let size = s.shape(&node, 0).and_then(|d| d.get(axis).and_then(Dim::known));
    let size = size.ok_or("whether its parts are equal is not known")?;
    if size % parts != 0 {
        let each = size / parts + 1;
        let lengths = (0..parts).map(|i| (size - i * each).clamp(0, each));
        let lengths = s.list(lengths.collect());
        set_input(&mut node, 1, Some(lengths));
    }
    s.put(node)
}

pub(super) fn dropout(s: &mut Site, mut node: Node) -> Done {
    only(&node, 1)?;
    if let Some(ratio) = float(&node, "ratio")? {
        let ratio = s.constant(Tensor::scalar(ratio));
        set_input(&mut node, 1, Some(ratio));
    }
    take(&mut node, "ratio");
    s.put(node)
}

pub(super) fn dropout_back(s: &mut Site, mut node: Node) -> Done {
    let ratio = s.konst(&node, 1).and_then(|t| t.item());
    if input(&node, 2).is_some() {
        let training = s.known(&node, 2, "modes")?.and_then(|t| t.truths());
        if ratio != Some(0.0) && training.is_none_or(|t| t.contains(&true)) {
            return Err("it is for training".into());
        }
    }
    if let Some(ratio) = ratio {
        node.set("ratio", ratio as f32);
    }
    take(&mut node, "seed");
    node.inputs.truncate(1);
    s.put(node)
}

pub(super) fn dft(s: &mut Site, mut node: Node) -> Done {
    let axis = int(&node, "axis")?.unwrap_or(1);
    take(&mut node, "axis");
    let axis = s.constant(Tensor::scalar(axis));
    set_input(&mut node, 2, Some(axis));
    s.put(node)
}

pub(super) fn dft_back(s: &mut Site, mut node: Node) -> Done {
    let axis = s.ints(&node, 2, "axes")?.and_then(|a| a.first().copied());
    let axis = axis.unwrap_or(-2);
    let rank = s.rank(&node, 0)?;
    node.set("axis", super::site::forward(axis, rank)?);
    set_input(&mut node, 2, None);
    if s.type_of(&node, 0).is_some_and(|d| d == DType::Other(0)) {
        return Err("its element type is not known".into());
    }
    s.put(node)
}
