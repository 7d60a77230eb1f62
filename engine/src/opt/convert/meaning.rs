//! Operators that mean something else, said by others.

use super::is_nothing;
use super::site::{Done, Site, float, forward, input, int, set_input, take};
use crate::ir::{Attr, Dim, Node, Tensor, ValueId};

fn data(node: &Node) -> Result<ValueId, String> {
    input(node, 0).ok_or_else(|| "its input is left out".into())
}

fn output(node: &Node) -> Result<ValueId, String> {
    let first = node.outputs.first().copied().flatten();
    first.ok_or_else(|| "its output is left out".into())
}

/// The softmax over all axes from one on, as one over the last axis.
pub(super) fn one_axis(s: &mut Site, mut node: Node) -> Done {
    let axis = int(&node, "axis")?.unwrap_or(1);
    let x = data(&node)?;
    let shape = s.shape(&node, 0);
    let last = shape.as_ref().is_some_and(|shape| {
        let after = forward(axis, shape.len()).map_or(0, |a| a as usize + 1);
        shape[after.min(shape.len())..]
            .iter()
            .all(|d| *d == Dim::Known(1))
    });
    if last || is_nothing(&s.facts.of(x).ty) {
        let at = shape.map_or(Ok(axis), |shape| forward(axis, shape.len()))?;
        node.set("axis", at);
        return s.put(node);
    }
    let y = output(&node)?;
    let flat = s.apply("Flatten", &[x], vec![Attr::new("axis", axis)]);
    let soft = s.apply(&node.op, &[flat], vec![Attr::new("axis", -1i64)]);
    let shape = s.apply("Shape", &[x], vec![]);
    s.apply_to(y, "Reshape", &[soft, shape], vec![]);
    Ok(())
}

/// The softmax over one axis, as one over all from the last on.
pub(super) fn trailing_axes(s: &mut Site, mut node: Node) -> Done {
    let axis = int(&node, "axis")?.unwrap_or(-1);
    if axis == -1 {
        node.set("axis", -1i64);
        return s.put(node);
    }
    let rank = s.rank(&node, 0)?;
    let at = forward(axis, rank)?;
    if at as usize + 1 >= rank {
        node.set("axis", at);
        return s.put(node);
    }
    let (x, y) = (data(&node)?, output(&node)?);
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(at as usize, rank - 1);
    let moved = s.apply("Transpose", &[x], vec![Attr::new("perm", perm.clone())]);
    let soft = s.apply(&node.op, &[moved], vec![Attr::new("axis", rank as i64 - 1)]);
    s.apply_to(y, "Transpose", &[soft], vec![Attr::new("perm", perm)]);
    Ok(())
}

pub(super) fn or_equal(s: &mut Site, node: Node) -> Done {
    let (a, y) = (data(&node)?, output(&node)?);
    let b = input(&node, 1).ok_or("an input is left out")?;
    let strict = if &*node.op == "LessOrEqual" {
        "Less"
    } else {
        "Greater"
    };
    let beyond = s.apply(strict, &[a, b], vec![]);
    let equal = s.apply("Equal", &[a, b], vec![]);
    s.apply_to(y, "Or", &[beyond, equal], vec![]);
    Ok(())
}

pub(super) fn hard_swish(s: &mut Site, node: Node) -> Done {
    let (x, y) = (data(&node)?, output(&node)?);
    let gate = vec![Attr::new("alpha", 1.0f32 / 6.0), Attr::new("beta", 0.5f32)];
    let gate = s.apply("HardSigmoid", &[x], gate);
    s.apply_to(y, "Mul", &[x, gate], vec![]);
    Ok(())
}

/// A part of a shape, cut out of the whole.
pub(super) fn whole_shape(s: &mut Site, mut node: Node) -> Done {
    let (start, end) = (int(&node, "start")?.unwrap_or(0), int(&node, "end")?);
    take(&mut node, "start");
    take(&mut node, "end");
    if start == 0 && end.is_none() {
        return s.put(node);
    }
    let (x, y) = (data(&node)?, output(&node)?);
    let whole = s.apply("Shape", &[x], vec![]);
    let bounds = [start, end.unwrap_or(i64::MAX), 0].map(|i| s.list(vec![i]));
    s.apply_to(y, "Slice", &[whole, bounds[0], bounds[1], bounds[2]], vec![]);
    Ok(())
}

/// Scale and bias of each group, repeated for each of its channels.
pub(super) fn per_channel(s: &mut Site, mut node: Node) -> Done {
    let groups = int(&node, "num_groups")?
        .filter(|&g| g > 0)
        .ok_or("its number of groups is missing")?;
    let channels = s.shape(&node, 0).and_then(|d| d.get(1).and_then(Dim::known));
    let channels = channels.ok_or("the number of channels is not known")?;
    for i in 1..3 {
        let p = input(&node, i).ok_or("scale or bias is left out")?;
        let column = s.list(vec![-1, 1]);
        let column = s.apply("Reshape", &[p, column], vec![]);
        let each = s.list(vec![1, channels / groups]);
        let each = s.apply("Expand", &[column, each], vec![]);
        let row = s.list(vec![-1]);
        let row = s.apply("Reshape", &[each, row], vec![]);
        set_input(&mut node, i, Some(row));
    }
    s.put(node)
}

/// The normalisation of groups with a scale for each channel, by that of instances.
pub(super) fn group_norm(s: &mut Site, node: Node) -> Done {
    let groups = int(&node, "num_groups")?
        .and_then(|g| usize::try_from(g).ok())
        .filter(|g| (1..1 << 20).contains(g));
    let groups = groups.ok_or("its number of groups is missing")?;
    if int(&node, "stash_type")?.unwrap_or(1) != 1 {
        return Err("attribute \"stash_type\" is not 1".into());
    }
    let (x, y, rank) = (data(&node)?, output(&node)?, s.rank(&node, 0)?);
    let dtype = s.dtype(&node, 0)?;
    if is_nothing(&s.facts.of(x).ty) {
        s.apply_to(y, "Identity", &[x], vec![]);
        return Ok(());
    }
    let fill = |x: f64| Tensor::rounded(dtype, &[groups], &vec![x; groups]).ok_or("it is of no float type");
    let (ones, zeros) = (fill(1.0)?, fill(0.0)?);
    let shape = s.list(vec![0, groups as i64, -1]);
    let rows = s.apply("Reshape", &[x, shape], vec![]);
    let (one, zero) = (s.constant(ones), s.constant(zeros));
    let epsilon = Attr::new("epsilon", float(&node, "epsilon")?.unwrap_or(1e-5));
    let normal = s.apply("InstanceNormalization", &[rows, one, zero], vec![epsilon]);
    let shape = s.apply("Shape", &[x], vec![]);
    let normal = s.apply("Reshape", &[normal, shape], vec![]);
    let mut column = vec![1i64; rank.saturating_sub(1)];
    column.first_mut().into_iter().for_each(|c| *c = -1);
    let column = s.list(column);
    let mut shaped = vec![];
    for i in 1..3 {
        let p = input(&node, i).ok_or("scale or bias is left out")?;
        shaped.push(s.apply("Reshape", &[p, column], vec![]));
    }
    let scaled = s.apply("Mul", &[normal, shaped[0]], vec![]);
    s.apply_to(y, "Add", &[scaled, shaped[1]], vec![]);
    Ok(())
}
