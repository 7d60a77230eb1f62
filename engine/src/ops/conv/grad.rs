//! Gradients of convolutions and of their transposes.

use super::{group, windows};
use crate::cpu::Candidate;
use crate::expr::{Call, Ex};
use crate::ir::{Attr, Dim};
use crate::ops::formula::{ints, reshape, transpose};
use crate::ops::grad::at;
use crate::ops::shape::{arity, same_dtype};
use crate::ops::window::Windows;
use crate::ops::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, Tie, private};

/// The gradient of the weights of `Conv`, from its image and the gradient of its output: `Σ X[.., p s + k d] dY[.., p]`.
///
/// Attributes are those of `Conv`, `kernel_shape` among them. More windows may fit than there are positions.
pub struct GradW;

/// How windows lie over an image, of which some sizes may not be known.
pub(in crate::ops) struct Frame {
    pub(in crate::ops) rank: usize,
    pub(in crate::ops) group: i64,
    pub(in crate::ops) size: Vec<i64>,
    pub(in crate::ops) strides: Vec<i64>,
    pub(in crate::ops) dilations: Vec<i64>,
    /// Before all axes, then behind all axes.
    pub(in crate::ops) pads: Vec<i64>,
}

impl Frame {
    fn attrs(&self, strides: &[i64], dilations: &[i64]) -> Vec<Attr> {
        vec![
            Attr::new("dilations", dilations),
            Attr::new("group", self.group),
            Attr::new("pads", &self.pads[..]),
            Attr::new("strides", strides),
        ]
    }

    /// The convolution of `x`.
    pub(in crate::ops) fn conv<'a>(&self, x: Ex<'a>, w: Ex<'a>) -> Ex<'a> {
        x.with("Conv", &[w], self.attrs(&self.strides, &self.dilations))
    }

    /// The transpose of the convolution, with `extra` elements behind each axis.
    fn transposed<'a>(&self, dy: Ex<'a>, w: Ex<'a>, extra: Vec<i64>) -> Ex<'a> {
        let mut attrs = self.attrs(&self.strides, &self.dilations);
        attrs.push(Attr::new("output_padding", extra));
        dy.with("ConvTranspose", &[w], attrs)
    }

    /// The gradient of the weights where `image` is what windows lie over and `dy` has one element for each.
    pub(in crate::ops) fn weights<'a>(&self, image: Ex<'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
        let mut attrs = self.attrs(&self.strides, &self.dilations);
        attrs.push(Attr::new("kernel_shape", &self.size[..]));
        let call = Call {
            domain: "secateur",
            op: "ConvGradW",
            inputs: &[Some(image.id), Some(dy.id)],
            attrs,
            outputs: 1,
        };
        image.call(call).first().copied()
    }

    /// The gradient of the bias.
    pub(in crate::ops) fn bias<'a>(&self, dy: Ex<'a>) -> Ex<'a> {
        let axes: Vec<_> = (0..self.rank as i64).filter(|&a| a != 1).collect();
        dy.with("ReduceSum", &[ints(dy, &axes)], vec![Attr::new("keepdims", 0)])
    }

    fn reach(&self, axis: usize) -> i64 {
        (self.size[axis] - 1) * self.dilations[axis] + 1
    }

    /// Elements behind the last window, over an image of size `size`; `None` where that is not known.
    fn left(&self, axis: usize, size: &Dim) -> Option<i64> {
        let stride = self.strides[axis];
        match size.known() {
            Some(size) => {
                let room = size + self.pads[axis] + self.pads[axis + self.rank - 2] - self.reach(axis);
                Some(room.max(0) % stride)
            }
            None => (stride == 1).then_some(0),
        }
    }
}

/// The frame of a convolution; `None` where a border depends on sizes that are not known.
fn frame(n: &NodeRef, w: &Windows) -> Option<Frame> {
    let rank = n.rank(0).or(n.rank(1))?;
    let unknown = vec![Dim::Unknown; rank - 2];
    Some(Frame {
        rank,
        group: group(n).ok()?,
        size: w.size.clone(),
        strides: w.strides().to_vec(),
        dilations: w.dilations().to_vec(),
        pads: w.border(n.shape(0).map_or(&unknown[..], |s| &s[2..]))?,
    })
}

/// `y`, cut to the spatial sizes of `x`, input 0 of `n`.
pub(in crate::ops) fn cut<'a>(n: &NodeRef, x: Ex<'a>, y: Ex<'a>) -> Option<Ex<'a>> {
    let axes: Vec<_> = (2..n.rank(0)? as i64).collect();
    let ends = match n.dims(0) {
        Some(dims) => ints(x, &dims[2..].iter().map(|&d| d as i64).collect::<Vec<_>>()),
        None => x.with("Shape", &[], vec![Attr::new("start", 2)]),
    };
    Some(y.op("Slice", &[ints(x, &vec![0; axes.len()]), ends, ints(x, &axes)]))
}

/// The gradients of a convolution.
pub(super) fn vjp<'a>(n: &NodeRef, x: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
    let (image, w, dy) = (at(x, 0)?, at(x, 1)?, at(dy, 0)?);
    let f = frame(n, &windows(n, 1).ok()??)?;
    let size = |a: usize| n.shape(0).map_or(&Dim::Unknown, |s| &s[a + 2]);
    let left: Vec<_> = (0..f.rank - 2).map(|a| f.left(a, size(a))).collect();
    // Where it is not known how many elements are left over, there may be one less than the stride.
    let extra = left.iter().zip(&f.strides).map(|(l, s)| l.unwrap_or(s - 1));
    let whole = f.transposed(dy, w, extra.collect());
    let dx = match left.contains(&None) {
        true => cut(n, image, whole)?,
        false => whole,
    };
    let bias = at(x, 2).map(|_| f.bias(dy));
    Some(vec![Some(dx), Some(f.weights(image, dy)?), bias])
}

fn infer(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    arity(n, 2, 2)?;
    same_dtype(n)?;
    let group = group(n)?;
    let size = n.ints("kernel_shape")?;
    let size = size.ok_or_else(|| OpError::new("attribute \"kernel_shape\" is missing"))?;
    Windows::of(n, size.len(), size.to_vec())?;
    for i in 0..2 {
        if n.rank(i).is_some_and(|r| r != size.len() + 2) {
            return Err(OpError::new(format!(
                "input {i}: expected {} axes",
                size.len() + 2
            )));
        }
    }
    let channels = |i: usize| n.shape(i).map_or(Dim::Unknown, |s| s[1].clone());
    let (inputs, outputs) = (channels(0), channels(1));
    if [&inputs, &outputs]
        .iter()
        .any(|c| c.known().is_some_and(|c| c % group != 0))
    {
        return Err(OpError::new(format!("channels do not make {group} groups")));
    }
    let mut shape = vec![outputs, inputs.floor_div(&Dim::Known(group))];
    shape.extend(size.iter().map(|&k| Dim::Known(k)));
    let dtype = n.dtype(0).or(n.dtype(1));
    Ok(vec![Fact::tensor(dtype, Some(shape))])
}

/// `[n, g c, ..]` as `[c, g n, ..]`; `None` where sizes other than `n` are not known.
fn grouped<'a>(n: &NodeRef, x: Ex<'a>, groups: i64) -> Option<Ex<'a>> {
    let shape = n.shape(0)?;
    let [channels, plane @ ..] = &shape[1..] else {
        return None;
    };
    let plane = plane.iter().map(Dim::size).collect::<Option<Vec<_>>>()?;
    let (groups, channels) = (usize::try_from(groups).ok()?, channels.size()?);
    let batch = shape[0].size();
    let to = |x: Ex<'a>, (a, b): (Option<usize>, Option<usize>), rest: &[usize]| {
        let size = |d: Option<usize>| d.map_or(-1, |d| d as i64);
        let mut dims = vec![size(a), size(b)];
        dims.extend(rest.iter().map(|&d| d as i64));
        match a.zip(b) {
            Some((a, b)) => reshape(x, &[&[a, b], rest].concat()),
            None => x.op("Reshape", &[ints(x, &dims)]),
        }
    };
    let each = channels / groups;
    let apart = to(x, (batch, Some(groups)), &[&[each], &plane[..]].concat());
    let mut perm: Vec<_> = (0..shape.len() + 1).collect();
    perm.swap(0, 2);
    let merged = batch.map(|b| b * groups);
    Some(to(transpose(apart, &perm), (Some(each), merged), &plane))
}

/// `x` with its first two of `rank` axes exchanged.
fn exchanged(x: Ex<'_>, rank: usize) -> Ex<'_> {
    let mut perm: Vec<_> = (0..rank).collect();
    perm.swap(0, 1);
    transpose(x, &perm)
}

impl Op for GradW {
    fn name(&self) -> OpName {
        private("ConvGradW")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0).or(n.rank(1))?;
        let tie = |output, inputs: &[(usize, usize)]| Tie {
            output,
            inputs: inputs.to_vec(),
        };
        let mut ties = vec![tie(Some(0), &[(1, 1)]), tie(None, &[(0, 0), (1, 0)])];
        if group(n).ok()? == 1 {
            ties.push(tie(Some(1), &[(0, 1)]));
        }
        ties.extend((2..rank).map(|a| tie(None, &[(1, a)])));
        Some(Axes(ties))
    }

    /// A convolution of the image with `dY`, where the batch is what is summed over; strides are dilations and dilations strides.
    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let (&[image, dy], size) = (x, n.ints("kernel_shape").ok()??) else {
            return None;
        };
        let f = frame(n, &Windows::of(n, size.len(), size.to_vec()).ok()?)?;
        let image = match f.group {
            1 => exchanged(image, f.rank),
            groups => grouped(n, image, groups)?,
        };
        let attrs = f.attrs(&f.dilations, &f.strides);
        let sums = image.with("Conv", &[exchanged(dy, f.rank)], attrs);
        let axes: Vec<_> = (2..f.rank as i64).collect();
        let start = ints(sums, &vec![0; axes.len()]);
        let cut = sums.op("Slice", &[start, ints(sums, &f.size), ints(sums, &axes)]);
        Some(vec![exchanged(cut, f.rank)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        super::cpu_grad::candidates(n)
    }

    fn cases(&self) -> Vec<Case> {
        super::cases::weights()
    }
}
