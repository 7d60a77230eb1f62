//! `ConvTranspose`, and the form of ONNX Runtime whose border is an input.

mod cases;
mod cpu;

use super::conv::grad::{Frame, cut};
use super::grad::at;
use super::matmul::matrices::check_size;
use super::shape::{ranked, show};
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, Tie, microsoft, onnx};
use crate::cpu::{Candidate, window::Window};
use crate::expr::Ex;
use crate::ir::{Dim, Shape, Tensor, count};

/// The transpose of a convolution: each element of the input adds the weighted window to the output.
pub struct ConvTranspose;

/// The same with its border in input 2 and the bias in input 3.
pub struct DynamicPads;

/// Elements of the largest window.
const MOST: i64 = 1 << 24;

/// Which inputs hold what.
#[derive(Clone, Copy)]
struct Inputs {
    bias: usize,
    pads: Option<usize>,
}

const PLAIN: Inputs = Inputs { bias: 2, pads: None };
const DYNAMIC: Inputs = Inputs {
    bias: 3,
    pads: Some(2),
};

macro_rules! op {
    ($op:ty, $name:expr, $since:expr, $inputs:expr, $cases:expr) => {
        impl Op for $op {
            fn name(&self) -> OpName {
                $name
            }

            fn since(&self) -> &'static [u16] {
                &$since
            }

            fn laws(&self) -> Laws {
                Laws {
                    blocks: $inputs.pads.is_none(),
                    ..Laws::default()
                }
            }

            fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
                infer(n, $inputs)
            }

            fn axes(&self, n: &NodeRef) -> Option<Axes> {
                axes(n, $inputs)
            }

            fn macs(&self, n: &NodeRef) -> Option<Dim> {
                Some(macs(n))
            }

            fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
                super::pick::knowing(n, x, |n| eval(n, $inputs, x))
            }

            fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
                vjp(n, $inputs, x, at(dy, 0)?)
            }

            fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
                cpu::candidates(n, $inputs)
            }

            fn cases(&self) -> Vec<Case> {
                $cases
            }
        }
    };
}
op!(
    ConvTranspose,
    onnx("ConvTranspose"),
    [1, 11, 22],
    PLAIN,
    cases::plain()
);
op!(
    DynamicPads,
    microsoft("ConvTransposeWithDynamicPads"),
    [1],
    DYNAMIC,
    cases::dynamic()
);

/// How the border that is cut off the result is chosen.
#[derive(Clone, Debug, PartialEq)]
enum Border {
    /// By numbers before all axes, then behind all axes.
    Given(Vec<i64>),
    /// By an input that is not known yet.
    Hidden,
    /// So that the output has these sizes; an odd element goes behind, or before.
    For { sizes: Vec<i64>, behind: bool },
    /// So that the output has the input's size times the stride.
    Same { behind: bool },
}

/// The attributes, with one number for each spatial axis.
#[derive(Clone, Debug)]
struct Spread {
    size: Vec<i64>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    extra: Vec<i64>,
    border: Border,
}

fn list(n: &NodeRef, name: &str, default: i64, len: usize, least: i64) -> Result<Vec<i64>, OpError> {
    let given = n.ints(name)?.filter(|l| !l.is_empty());
    let list = given.map_or(vec![default; len], <[i64]>::to_vec);
    in_range(&format!("attribute {name:?}"), list, len, least)
}

fn in_range(what: &str, list: Vec<i64>, len: usize, least: i64) -> Result<Vec<i64>, OpError> {
    if list.len() != len || list.iter().any(|&x| x < least || x > i64::from(i32::MAX)) {
        return Err(OpError::new(format!(
            "{what} is {list:?}; expected {len} numbers of at least {least}"
        )));
    }
    Ok(list)
}

impl Spread {
    fn of(n: &NodeRef, inputs: Inputs, size: Vec<i64>) -> Result<Spread, OpError> {
        let axes = size.len();
        let taps = size.iter().try_fold(1i64, |n, k| n.checked_mul(*k));
        if size.iter().any(|&k| k < 1) || taps.is_none_or(|n| n > MOST) {
            return Err(OpError::new(format!(
                "a window of {size:?}; expected positive sizes and at most {MOST} elements"
            )));
        }
        Ok(Spread {
            strides: list(n, "strides", 1, axes, 1)?,
            dilations: list(n, "dilations", 1, axes, 1)?,
            extra: list(n, "output_padding", 0, axes, 0)?,
            border: border(n, inputs, axes)?,
            size,
        })
    }

    /// What the window covers along `axis`.
    fn reach(&self, axis: usize) -> i64 {
        (self.size[axis] - 1) * self.dilations[axis] + 1
    }

    /// The output's size along `axis` before anything is cut off.
    fn whole(&self, axis: usize, input: &Dim) -> Dim {
        (input.clone() - Dim::Known(1)) * Dim::Known(self.strides[axis])
            + Dim::Known(self.extra[axis] + self.reach(axis))
    }

    fn output(&self, axis: usize, input: &Dim) -> Result<Dim, OpError> {
        let size = match &self.border {
            Border::Given(pads) => {
                self.whole(axis, input) - Dim::Known(pads[axis] + pads[axis + self.size.len()])
            }
            Border::Hidden => Dim::Unknown,
            Border::For { sizes, .. } => Dim::Known(sizes[axis]),
            Border::Same { .. } => input.clone() * Dim::Known(self.strides[axis]),
        };
        match size.known() {
            Some(s) if s < 0 => Err(OpError::new(format!(
                "the border cuts {} off axis {axis} of the output, which has {}",
                self.whole(axis, input) - size,
                self.whole(axis, input)
            ))),
            _ => Ok(size),
        }
    }

    fn outputs(&self, input: &[Dim]) -> Result<Shape, OpError> {
        (0..input.len()).map(|a| self.output(a, &input[a])).collect()
    }

    /// The window that slides over the output, one position for each element of an input of sizes `input`.
    fn over(&self, input: &[usize]) -> Result<Window, OpError> {
        let dims: Vec<_> = input.iter().map(|&d| Dim::from(d)).collect();
        let output = self.outputs(&dims)?;
        let unknown = || OpError::new("the output is larger than memory, or its size is not known");
        let sizes: Option<Vec<usize>> = output.iter().map(Dim::size).collect();
        let sizes = sizes.ok_or_else(unknown)?;
        let before = |axis: usize| -> Result<usize, OpError> {
            let behind = match &self.border {
                Border::Given(pads) => return Ok(pads[axis] as usize),
                Border::Hidden => return Err(unknown()),
                Border::For { behind, .. } | Border::Same { behind } => *behind,
            };
            let total = (self.whole(axis, &dims[axis]) - output[axis].clone()).known();
            let total = usize::try_from(total.ok_or_else(unknown)?.max(0)).unwrap_or(0);
            Ok(if behind { total / 2 } else { total.div_ceil(2) })
        };
        let wide = |l: &[i64]| l.iter().map(|&x| x as usize).collect::<Vec<_>>();
        Ok(Window {
            pads: (0..input.len()).map(before).collect::<Result<_, _>>()?,
            input: sizes,
            output: input.to_vec(),
            size: wide(&self.size),
            strides: wide(&self.strides),
            dilations: wide(&self.dilations),
        })
    }
}

fn border(n: &NodeRef, inputs: Inputs, axes: usize) -> Result<Border, OpError> {
    let auto = n.str_or("auto_pad", "NOTSET")?;
    let behind = auto == "SAME_UPPER";
    let pads = list(n, "pads", 0, 2 * axes, 0);
    if let Some(sizes) = n.ints("output_shape")?.filter(|l| !l.is_empty()) {
        // Some exporters write the sizes of batch and channels too.
        let last = match sizes.len() {
            len if len == axes + 2 => &sizes[2..],
            _ => sizes,
        };
        let sizes = in_range("attribute \"output_shape\"", last.to_vec(), axes, 0)?;
        return Ok(Border::For { sizes, behind });
    }
    match auto {
        "SAME_UPPER" | "SAME_LOWER" => Ok(Border::Same { behind }),
        "VALID" => Ok(Border::Given(vec![0; 2 * axes])),
        "NOTSET" | "" => match inputs.pads.filter(|&i| n.has(i)) {
            None => pads.map(Border::Given),
            Some(i) => match n.ints_in(i) {
                Some(p) => in_range(&format!("input {i}"), p, 2 * axes, 0).map(Border::Given),
                None => Ok(Border::Hidden),
            },
        },
        other => Err(OpError::new(format!("attribute \"auto_pad\" is {other:?}"))),
    }
}

/// The attributes, given the rank and the window; `None` where they are not known.
fn spread(n: &NodeRef, inputs: Inputs) -> Result<Option<Spread>, OpError> {
    const ALL: [&str; 7] = [
        "auto_pad",
        "dilations",
        "kernel_shape",
        "output_padding",
        "output_shape",
        "pads",
        "strides",
    ];
    let Some(rank) = n.rank(0).or(n.rank(1)) else {
        n.ignore(&ALL);
        return Ok(None);
    };
    for i in 0..2 {
        if rank < 3 || n.rank(i).is_some_and(|r| r != rank) {
            let shape = n.shape(i).map_or_else(String::new, |s| show(s));
            return Err(OpError::new(format!(
                "input {i} has shape {shape}; expected {rank} axes, and at least 3"
            )));
        }
    }
    let weights = n.shape(1).map(|s| s[2..].iter().map(Dim::known).collect());
    let weights: Option<Vec<i64>> = weights.flatten();
    let size = match (n.ints("kernel_shape")?.filter(|k| !k.is_empty()), weights) {
        (Some(k), Some(w)) if k != w => {
            return Err(OpError::new(format!(
                "attribute \"kernel_shape\" is {k:?}, but the weights have {w:?}"
            )));
        }
        (_, Some(w)) => w,
        (Some(k), None) if k.len() == rank - 2 => k.to_vec(),
        _ => {
            n.ignore(&ALL);
            return Ok(None);
        }
    };
    Spread::of(n, inputs, size).map(Some)
}

fn group(n: &NodeRef) -> Result<i64, OpError> {
    match n.int_or("group", 1)? {
        g if g < 1 => Err(OpError::new(format!(
            "attribute \"group\" is {g}; expected at least 1"
        ))),
        g => Ok(g),
    }
}

fn infer(n: &NodeRef, inputs: Inputs) -> Result<Vec<Fact>, OpError> {
    for i in 0..2 {
        if !n.has(i) {
            return Err(OpError::new(format!("input {i} is left out")));
        }
    }
    let typed = [0, 1, inputs.bias].map(|i| n.dtype(i));
    let dtype = typed.iter().flatten().next().copied();
    if let Some(found) = typed.iter().flatten().find(|d| Some(**d) != dtype) {
        return Err(OpError::new(format!(
            "inputs of type {} and {found}; expected one type",
            typed[0].unwrap_or(*found)
        )));
    }
    let (group, spread) = (group(n)?, spread(n, inputs)?);
    let Some(rank) = n.rank(0).or(n.rank(1)) else {
        return Ok(vec![Fact::tensor(dtype, None)]);
    };
    let dim = |i: usize, axis: usize| n.shape(i).map_or(Dim::Unknown, |s| s[axis].clone());
    let (c, per_group) = (dim(0, 1), dim(1, 1));
    let channels = per_group * Dim::Known(group);
    let bias = ranked(n, inputs.bias, 1)?.map_or(Dim::Unknown, |s| s[0].clone());
    let differ = |a: &Dim, b: &Dim| matches!((a.known(), b.known()), (Some(a), Some(b)) if a != b);
    if differ(&c, &dim(1, 0)) || differ(&bias, &channels) || c.known().is_some_and(|c| c % group != 0) {
        let shapes: Vec<_> = [0, 1, inputs.bias]
            .iter()
            .filter_map(|&i| n.shape(i))
            .map(|s| show(s))
            .collect();
        return Err(OpError::new(format!(
            "shapes {} in {group} groups do not go together",
            shapes.join(", ")
        )));
    }
    let channels = if channels.known().is_none() && bias.known().is_some() {
        bias
    } else {
        channels
    };
    let mut shape = vec![dim(0, 0), channels];
    match (spread, n.shape(0)) {
        (Some(s), Some(x)) => shape.extend(s.outputs(&x[2..])?),
        _ => shape.resize(rank, Dim::Unknown),
    }
    Ok(vec![Fact::tensor(dtype, Some(shape))])
}

/// Batch, output channels, and what is summed over: input channels.
fn axes(n: &NodeRef, inputs: Inputs) -> Option<Axes> {
    let rank = n.rank(0).or(n.rank(1)).filter(|&r| r > 2)?;
    let tie = |output, inputs: &[(usize, usize)]| Tie {
        output,
        inputs: inputs.iter().copied().filter(|(i, _)| n.has(*i)).collect(),
    };
    let mut ties = vec![tie(Some(0), &[(0, 0)])];
    match group(n).ok()? {
        1 => {
            ties.push(tie(Some(1), &[(1, 1), (inputs.bias, 0)]));
            ties.push(tie(None, &[(0, 1), (1, 0)]));
        }
        _ => ties.push(tie(Some(1), &[(inputs.bias, 0)])),
    }
    ties.extend((2..rank).map(|a| tie(None, &[(1, a)])));
    ties.extend((2..rank).map(|a| tie(Some(a), &[])));
    Some(Axes(ties))
}

/// Each element of the input is multiplied by all weights of its channel, however many elements the output has.
fn macs(n: &NodeRef) -> Dim {
    let (Some(x), Some(w)) = (n.shape(0), n.shape(1)) else {
        return Dim::Unknown;
    };
    let sizes = x.iter().chain(w.iter().skip(1));
    sizes.cloned().fold(Dim::Known(1), |all, d| all * d)
}

/// The window over the output, and whether more of them fit than the input has elements; `None` where that is not known.
fn frame(n: &NodeRef, s: &Spread) -> Option<(Frame, bool)> {
    let axes = s.size.len();
    let (pads, more) = match &s.border {
        Border::Given(pads) => (pads.clone(), (0..axes).any(|a| s.extra[a] >= s.strides[a])),
        _ => {
            let w = s.over(&n.dims(0)?[2..]).ok()?;
            let behind = |a: usize| {
                let whole = (w.output[a].max(1) - 1) as i64 * s.strides[a] + s.reach(a);
                whole - (w.input[a] + w.pads[a]) as i64
            };
            let all: Vec<_> = (0..axes).map(behind).collect();
            let before = w.pads.iter().map(|&p| p as i64);
            let pads = before.chain(all.iter().map(|&p| p.max(0))).collect();
            (pads, (0..axes).any(|a| -all[a] >= s.strides[a]))
        }
    };
    let frame = Frame {
        rank: axes + 2,
        group: group(n).ok()?,
        size: s.size.clone(),
        strides: s.strides.clone(),
        dilations: s.dilations.clone(),
        pads,
    };
    Some((frame, more))
}

fn vjp<'a>(n: &NodeRef, inputs: Inputs, x: Exs<'_, 'a>, dy: Ex<'a>) -> Grads<'a> {
    let (image, w) = (at(x, 0)?, at(x, 1)?);
    let (f, more) = frame(n, &spread(n, inputs).ok()??)?;
    let dx = match more {
        true => cut(n, image, f.conv(dy, w))?,
        false => f.conv(dy, w),
    };
    let mut all = vec![Some(dx), f.weights(dy, image), None, None];
    all.truncate(inputs.bias);
    all.push(at(x, inputs.bias).map(|_| f.bias(dy)));
    Some(all)
}

/// Images, groups, input and output channels of a group, and the window over the output.
struct Sizes {
    images: usize,
    groups: usize,
    inputs: usize,
    outputs: usize,
    window: Window,
}

impl Sizes {
    fn of(n: &NodeRef, inputs: Inputs, x: &[usize], w: &[usize]) -> Result<Sizes, OpError> {
        let groups = usize::try_from(group(n)?).unwrap_or(1);
        let wrong = || OpError::new(format!("{x:?} and {w:?} in {groups} groups do not go together"));
        if x.len() != w.len() || x.len() < 3 || x[1] != w[0] || !x[1].is_multiple_of(groups) {
            return Err(wrong());
        }
        let s = Sizes {
            images: x[0],
            groups,
            inputs: x[1] / groups,
            outputs: w[1],
            window: spread(n, inputs)?.ok_or_else(wrong)?.over(&x[2..])?,
        };
        count(&s.dims()).ok_or_else(wrong)?;
        Ok(s)
    }

    fn dims(&self) -> Vec<usize> {
        let mut dims = vec![self.images, self.groups.saturating_mul(self.outputs)];
        dims.extend(&self.window.input);
        dims
    }
}

fn eval(n: &NodeRef, inputs: Inputs, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let bias = x.get(inputs.bias).copied().flatten();
    let (Some(Some(x)), Some(Some(w))) = (x.first(), x.get(1)) else {
        return Err(OpError::new("expected an image and weights"));
    };
    let s = Sizes::of(n, inputs, x.dims(), w.dims())?;
    let dims = s.dims();
    check_size(&dims)?;
    let wrong = || OpError::new(format!("no transposed convolution of {}", x.dtype()));
    let (data, weights) = (x.floats().ok_or_else(wrong)?, w.floats().ok_or_else(wrong)?);
    let bias = bias
        .map(|b| b.floats().filter(|b| b.len() == dims[1]).ok_or_else(wrong))
        .transpose()?;
    let (taps, plane) = (s.window.taps(), s.window.plane());
    let mut y = Vec::with_capacity(count(&dims).unwrap_or(0));
    for channel in 0..s.images * dims[1] {
        let o = channel % dims[1];
        let group = channel / s.outputs;
        let mut sums = vec![bias.as_ref().map_or(0.0, |b| b[o]); plane];
        for c in 0..s.inputs {
            let w_row = ((group % s.groups * s.inputs + c) * s.outputs + o % s.outputs) * taps;
            for at in 0..s.window.positions() {
                let x = data[(group * s.inputs + c) * s.window.positions() + at];
                for (tap, under) in s.window.covered(at) {
                    sums[under] += x * weights[w_row + tap];
                }
            }
        }
        y.extend(sums);
    }
    Ok(vec![Tensor::rounded(x.dtype(), &dims, &y).ok_or_else(wrong)?])
}
