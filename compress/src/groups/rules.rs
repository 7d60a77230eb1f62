//! Operators of which an equation of whole axes says too little: what they join, cut, fold or count.

use secateur_engine::ir::{AttrValue, Node};
use secateur_engine::ops::NodeRef;

use super::space::{ONE, Space};
use super::trace::{Axes, Slot, View, What};

/// Ties the axes of a node; `None` where its sizes do not follow.
pub(crate) type Rule = fn(&mut View) -> Option<()>;

/// Sorted by name; all are ONNX's own but `FusedConv`, which is of ONNX Runtime.
static RULES: &[(&str, Rule)] = &[
    ("Col2Im", mixes),
    ("Concat", concat),
    ("Constant", constant),
    ("ConstantOfShape", filled),
    ("Conv", conv),
    ("ConvTranspose", transposed),
    ("DeformConv", mixes),
    ("DepthToSpace", depth_to_space),
    ("Expand", expand),
    ("Flatten", reshape),
    ("FusedConv", conv),
    ("GRU", recurrent::<3>),
    ("GroupNormalization", group_norm),
    ("LRN", mixes),
    ("LSTM", recurrent::<4>),
    ("NonMaxSuppression", mixes),
    ("RNN", recurrent::<1>),
    ("Reshape", reshape),
    ("Resize", resize),
    ("Shape", leaf),
    ("Size", leaf),
    ("Slice", slice),
    ("SpaceToDepth", space_to_depth),
    ("Split", split),
    ("Squeeze", reshape),
    ("Unsqueeze", reshape),
    ("Upsample", resize),
];

/// The rule of `node`, if it has one beside its operator's equation.
pub(crate) fn find(node: &Node) -> Option<Rule> {
    let at = RULES.binary_search_by(|(op, _)| (*op).cmp(&*node.op)).ok()?;
    let domain = match RULES[at].0 {
        "FusedConv" => "com.microsoft",
        _ => "",
    };
    (node.domain() == domain).then(|| RULES[at].1)
}

fn mixes(v: &mut View) -> Option<()> {
    v.pin_all("it mixes what lies along the axis");
    Some(())
}

/// What it makes hangs together with nothing: a constant, or integers made of sizes, which follow the sizes.
fn leaf(_: &mut View) -> Option<()> {
    Some(())
}

/// Elements that a tensor has are cut; those that other attributes list are not.
fn constant(v: &mut View) -> Option<()> {
    if !matches!(v.n.node().attr("value"), Some(AttrValue::Tensor(_))) {
        v.pin_all("its elements stand in an attribute that is not cut");
    }
    Some(())
}

fn axis(v: &View, name: &str, default: i64) -> Option<usize> {
    let rank = v.ins.first()?.as_ref()?.len();
    NodeRef::axis(v.n.int_or(name, default).ok()?, rank).ok()
}

fn concat(v: &mut View) -> Option<()> {
    let axis = axis(v, "axis", 1)?;
    let parts: Option<Vec<Space>> = (0..v.ins.len()).map(|i| v.input(i, axis)).collect();
    let out = v.output(0, axis)?;
    v.tie(&out, &Space::Sum(parts?));
    (0..v.ins.len()).for_each(|i| v.tie_axes(i, 0, Some(axis)));
    Some(())
}

fn split(v: &mut View) -> Option<()> {
    let axis = axis(v, "axis", 0)?;
    let parts: Option<Vec<Space>> = (0..v.outs.len()).map(|o| v.output(o, axis)).collect();
    let (whole, parts) = (v.input(0, axis)?, parts?);
    v.tie(&whole, &Space::Sum(parts.clone()));
    (0..parts.len()).for_each(|o| v.tie_axes(0, o, Some(axis)));
    let at = if v.n.opset() < 13 {
        Slot::Attr("split")
    } else {
        Slot::Input(1)
    };
    v.fix(at, What::Parts(parts));
    Some(())
}

/// The same elements in the same order: axes are factors of each other.
fn reshape(v: &mut View) -> Option<()> {
    let (ins, outs) = (v.ins.first()?.clone()?, v.outs.first()?.clone()?);
    if ins.iter().chain(&outs).any(|s| v.spaces.size(s) == 0) {
        return mixes(v);
    }
    for (a, b) in blocks(v, &ins, &outs) {
        v.tie(&Space::Product(a), &Space::Product(b));
    }
    if &*v.n.node().op == "Reshape" {
        let at = if v.n.opset() < 5 {
            Slot::Attr("shape")
        } else {
            Slot::Input(1)
        };
        v.fix(at, What::Sizes(outs.into_iter().map(Some).collect()));
    }
    Some(())
}

/// Runs of axes that have equally many indices, as short as they can be.
fn blocks(v: &View, a: &[Space], b: &[Space]) -> Vec<(Axes, Axes)> {
    let wide = |s: &&Space| **s != ONE;
    let mut a = a.iter().filter(wide).cloned().peekable();
    let mut b = b.iter().filter(wide).cloned().peekable();
    let size = |axes: &Axes| -> usize { axes.iter().map(|s| v.spaces.size(s)).product() };
    let mut found = vec![];
    while a.peek().is_some() || b.peek().is_some() {
        let (mut x, mut y): (Axes, Axes) = (a.next().into_iter().collect(), b.next().into_iter().collect());
        while size(&x) != size(&y) {
            let (short, more) = if size(&x) < size(&y) {
                (&mut x, a.next())
            } else {
                (&mut y, b.next())
            };
            match more {
                Some(s) => short.push(s),
                None => break,
            }
        }
        found.push((x, y));
    }
    found
}

/// The outputs' axes that inputs have too, and new ones: copies that can be counted differently.
fn expand(v: &mut View) -> Option<()> {
    let (ins, outs) = (v.ins.first()?.clone()?, v.outs.first()?.clone()?);
    let lead = outs.len().checked_sub(ins.len())?;
    for (i, out) in ins.iter().zip(&outs[lead..]) {
        if *i != ONE {
            v.tie(i, out);
        }
    }
    v.fix(Slot::Input(1), What::Sizes(outs.into_iter().map(Some).collect()));
    Some(())
}

fn filled(v: &mut View) -> Option<()> {
    let outs = v.outs.first()?.clone()?;
    v.fix(Slot::Input(0), What::Sizes(outs.into_iter().map(Some).collect()));
    Some(())
}

fn resize(v: &mut View) -> Option<()> {
    let outs = v.outs.first()?.clone()?;
    v.stated();
    if v.n.arity() > 3 {
        let listed = v.n.node().attr("axes");
        let axes: Option<Vec<usize>> = match listed {
            Some(AttrValue::Ints(axes)) => axes.iter().map(|&a| NodeRef::axis(a, outs.len()).ok()).collect(),
            _ => Some((0..outs.len()).collect()),
        };
        let spaces = axes?.into_iter().map(|a| outs.get(a).cloned()).collect();
        v.fix(Slot::Input(3), What::Sizes(spaces));
    }
    Some(())
}

/// Convolution in groups: outputs and inputs are [groups, channels of one].
fn conv(v: &mut View) -> Option<()> {
    grouped(v, (0, 1), (1, 0))
}

fn transposed(v: &mut View) -> Option<()> {
    grouped(v, (1, 0), (0, 1))
}

/// `outer` and `inner` are the axes of the weight that have (outputs, inputs): which of them is in groups.
fn grouped(v: &mut View, (out, of): (usize, usize), (group_in, group_out): (usize, usize)) -> Option<()> {
    let groups = usize::try_from(v.n.int_or("group", 1).ok()?).ok()?;
    if groups == 1 {
        v.stated();
        return Some(());
    }
    let [channels, outputs, w_out, w_in] =
        [v.input(0, 1)?, v.output(0, 1)?, v.input(1, out)?, v.input(1, of)?];
    let g = v.spaces.fresh(groups);
    let both = |inner: &Space| Space::Product(vec![g.clone(), inner.clone()]);
    // In a `Conv` the outputs are in groups, in a `ConvTranspose` the inputs.
    let (one_in, one_out) = match (group_in, group_out) {
        (1, 0) => (w_in.clone(), v.spaces.fresh(v.spaces.size(&outputs) / groups)),
        _ => (v.spaces.fresh(v.spaces.size(&channels) / groups), w_out.clone()),
    };
    v.tie(&channels, &both(&one_in));
    v.tie(&outputs, &both(&one_out));
    match (group_in, group_out) {
        (1, 0) => v.tie(&w_out, &both(&one_out)),
        _ => v.tie(&w_in, &both(&one_in)),
    }
    if let Some(bias) = v.input(2, 0) {
        v.tie(&bias, &outputs);
    }
    if let (Some(a), Some(b)) = (v.input(0, 0), v.output(0, 0)) {
        v.tie(&a, &b);
    }
    // What `FusedConv` adds to the sum.
    v.tie_axes(3, 0, None);
    v.sum(one_in, &[0, 1]);
    let window: Vec<Space> = (0..2)
        .flat_map(|i| v.ins[i].iter().flatten().skip(2).cloned())
        .collect();
    let image: Vec<Space> = v.outs.first()?.iter().flatten().skip(2).cloned().collect();
    window
        .iter()
        .chain(&image)
        .for_each(|s| v.pin(s, "it is the place of a window"));
    v.fix(Slot::Attr("group"), What::Size(g));
    Some(())
}

/// Channels are in groups that are normalised together: whole groups can go.
fn group_norm(v: &mut View) -> Option<()> {
    let groups = usize::try_from(v.n.int("num_groups").ok()??).ok()?;
    let (x, y) = (v.ins.first()?.clone()?, v.outs.first()?.clone()?);
    v.tie_axes(0, 0, None);
    let channels = v.spaces.size(x.get(1)?);
    let g = v.spaces.fresh(groups);
    let each = v.spaces.fresh(channels / groups);
    v.tie(&y[1], &Space::Product(vec![g.clone(), each.clone()]));
    v.pin(&each, "it is normalised over");
    x.iter().skip(2).for_each(|s| v.pin(s, "it is normalised over"));
    for i in [1, 2] {
        let scale = v.input(i, 0)?;
        let like = if v.spaces.size(&scale) == channels {
            &y[1]
        } else {
            &g
        };
        v.tie(&scale, &like.clone());
    }
    v.fix(Slot::Attr("num_groups"), What::Size(g));
    Some(())
}

/// `X`, `W`, `R` and `B` by `GATES` gates, which stay; what can be cut is the hidden size.
fn recurrent<const GATES: usize>(v: &mut View) -> Option<()> {
    let hidden = v.input(2, 2)?;
    let first = v.n.int_or("layout", 0).ok()? != 0;
    let gates = |v: &mut View, n: usize| {
        let g = v.spaces.fresh(n);
        v.pin(&g, "they are its gates");
        g
    };
    let by = |g: Space, h: &Space| Space::Product(vec![g, h.clone()]);
    let directions = v.input(1, 0)?;
    v.pin(&directions, "they are its directions");
    for i in [1, 2] {
        let g = gates(v, GATES);
        let rows = v.input(i, 1)?;
        v.tie(&rows, &by(g, &hidden));
    }
    for (i, n) in [(3, 2 * GATES), (7, 3)] {
        if let Some(axis) = v.input(i, 1) {
            let g = gates(v, n);
            v.tie(&axis, &by(g, &hidden));
        }
        if let Some(d) = v.input(i, 0) {
            v.tie(&d, &directions);
        }
    }
    let (x, w) = (v.input(0, 2)?, v.input(1, 2)?);
    v.tie(&x, &w);
    v.sum(x, &[0, 1]);
    v.tie(&v.input(2, 0)?, &directions);
    let (steps, batch) = if first {
        (v.input(0, 1)?, v.input(0, 0)?)
    } else {
        (v.input(0, 0)?, v.input(0, 1)?)
    };
    v.pin(&steps, "they are its steps");
    if let Some(lens) = v.input(4, 0) {
        v.tie(&lens, &batch);
    }
    let state = if first {
        [batch.clone(), directions.clone(), hidden.clone()]
    } else {
        [directions.clone(), batch.clone(), hidden.clone()]
    };
    let all = if first {
        [batch, steps, directions, hidden.clone()]
    } else {
        [steps, directions, batch, hidden.clone()]
    };
    let states = [
        v.ins.get(5).cloned(),
        v.ins.get(6).cloned(),
        v.outs.get(1).cloned(),
        v.outs.get(2).cloned(),
    ];
    for axes in states.into_iter().flatten().flatten() {
        axes.iter().zip(&state).for_each(|(a, b)| v.tie(a, b));
    }
    for axes in v.outs.first().cloned().into_iter().flatten() {
        axes.iter().zip(&all).for_each(|(a, b)| v.tie(a, b));
    }
    v.fix(Slot::Attr("hidden_size"), What::Size(hidden));
    Some(())
}

/// What is taken along one axis: the first index, the step, and where that stands in the lists of the node; whether these are the
/// same for inputs of other sizes.
struct Taken {
    start: usize,
    step: i64,
    place: usize,
    fixed: bool,
}

fn slice(v: &mut View) -> Option<()> {
    let (ins, outs) = (v.ins.first()?.clone()?, v.outs.first()?.clone()?);
    let list = |name: &str, i: usize| match v.n.opset() < 10 {
        true => v.n.ints(name).ok().flatten().map(<[i64]>::to_vec),
        false => v.n.ints_in(i),
    };
    let given = |name: &str, i: usize| v.n.has(i) || v.n.node().attr(name).is_some();
    let axes = match given("axes", 3) {
        true => list("axes", 3)?,
        false => (0..ins.len() as i64).collect(),
    };
    let steps = if v.n.has(4) {
        list("steps", 4)?
    } else {
        vec![1; axes.len()]
    };
    let starts = list("starts", 1);
    let fixed = v.n.opset() < 10 || v.fixed(1).is_some() && v.fixed(2).is_some();
    let mut places: Vec<(usize, i64, Option<i64>)> = vec![];
    for (p, &a) in axes.iter().enumerate() {
        places.push((
            NodeRef::axis(a, ins.len()).ok()?,
            *steps.get(p)?,
            starts.as_ref().and_then(|s| s.get(p).copied()),
        ));
    }
    for (axis, (i, o)) in ins.iter().zip(&outs).enumerate() {
        match places.iter().position(|x| x.0 == axis) {
            None => v.tie(i, o),
            Some(place) => {
                let (_, step, start) = places[place];
                let size = v.spaces.size(i) as i64;
                let start = start.map(|s| if s < 0 { s + size } else { s }.clamp(0, size));
                match start {
                    Some(start) => taken(
                        v,
                        i,
                        o,
                        Taken {
                            start: start as usize,
                            step,
                            place,
                            fixed,
                        },
                    ),
                    None => {
                        v.pin(i, "where it begins depends on values");
                        v.pin(o, "where it begins depends on values");
                    }
                }
            }
        }
    }
    Some(())
}

fn taken(v: &mut View, i: &Space, o: &Space, t: Taken) {
    let (all, len) = (v.spaces.size(i), v.spaces.size(o));
    match t.step {
        1 if all == len => {
            v.tie(i, o);
            if t.fixed {
                bounds(v, i, t.place, [Space::Sum(vec![]), i.clone()]);
            }
        }
        _ if !t.fixed => {
            v.pin(i, "where it begins and ends depends on the sizes of inputs");
            v.pin(o, "where it begins and ends depends on the sizes of inputs");
        }
        1 if t.start + len <= all => {
            let [before, after] = [t.start, all - t.start - len].map(|n| (n > 0).then(|| v.spaces.fresh(n)));
            let parts = [before.clone(), Some(o.clone()), after.clone()];
            v.tie(i, &Space::Sum(parts.into_iter().flatten().collect()));
            let upto = Space::Sum(before.clone().into_iter().chain([o.clone()]).collect());
            bounds(v, i, t.place, [Space::Sum(before.into_iter().collect()), upto]);
        }
        step if step > 1
            && all % step as usize == 0
            && len == all / step as usize
            && t.start < step as usize =>
        {
            let digit = v.spaces.fresh(step as usize);
            v.pin(&digit, "it takes every so many");
            v.tie(i, &Space::Product(vec![o.clone(), digit]));
            let before = (t.start > 0).then(|| v.spaces.fresh(t.start));
            bounds(
                v,
                i,
                t.place,
                [Space::Sum(before.into_iter().collect()), i.clone()],
            );
        }
        _ => {
            v.pin(i, "it turns or thins out the axis");
            v.pin(o, "it turns or thins out the axis");
        }
    }
}

/// Notes where number `place` of the bounds of a `Slice` are on the axis `all`: behind what is given, however they are counted.
fn bounds(v: &mut View, all: &Space, place: usize, behind: [Space; 2]) {
    let slots = match v.n.opset() < 10 {
        true => [Slot::Attr("starts"), Slot::Attr("ends")],
        false => [Slot::Input(1), Slot::Input(2)],
    };
    for (at, upto) in slots.into_iter().zip(behind) {
        let all = all.clone();
        v.fix(at, What::Bound { place, upto, all });
    }
}

/// The axes [b, c, h, w] of the image and the size of a block.
fn block(v: &View, o: bool) -> Option<(Axes, usize)> {
    let axes = if o {
        v.outs.first()?.clone()?
    } else {
        v.ins.first()?.clone()?
    };
    let block = usize::try_from(v.n.int("blocksize").ok()??).ok()?;
    (axes.len() == 4).then_some((axes, block))
}

fn depth_to_space(v: &mut View) -> Option<()> {
    let ((x, b), (y, _)) = (block(v, false)?, block(v, true)?);
    let columns = v.n.str_or("mode", "DCR").ok()? == "CRD";
    depth(v, x, y, b, columns)
}

fn space_to_depth(v: &mut View) -> Option<()> {
    let ((x, b), (y, _)) = (block(v, false)?, block(v, true)?);
    depth(v, y, x, b, false)
}

fn depth(v: &mut View, deep: Axes, wide: Axes, b: usize, columns: bool) -> Option<()> {
    let window = v.spaces.fresh(b * b);
    v.pin(&window, "they are places of a block");
    let c = wide.get(1)?.clone();
    let parts = if columns { vec![c, window] } else { vec![window, c] };
    v.tie(deep.get(1)?, &Space::Product(parts));
    v.tie(deep.first()?, wide.first()?);
    deep[2..]
        .iter()
        .chain(&wide[2..])
        .for_each(|s| v.pin(s, "they are places of a block"));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_sorted() {
        assert!(RULES.is_sorted_by_key(|r| r.0));
    }
}
