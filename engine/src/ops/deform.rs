//! `DeformConv`: a convolution whose windows are bent.

use super::between::{Axis, Beside, Mode, between as sampled};
use super::case::floats;
use super::formula::{given as present, reshape, slice, transpose};
use super::matmul::matrices::check_size;
use super::pick::given;
use super::shape::{arity, ranked, same_dtype, show};
use super::window::Windows;
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, Tie, onnx};
use crate::cpu::window::Window;
use crate::expr::Ex;
use crate::ir::{DType, Dim, Tensor, count};

/// A convolution of which each element of the window is moved by an offset, interpolated and multiplied by a mask.
pub struct DeformConv;

/// Images, weights, offsets, bias and mask.
const X: usize = 0;
const W: usize = 1;
const OFFSET: usize = 2;
const BIAS: usize = 3;
const MASK: usize = 4;

fn positive(n: &NodeRef, name: &str) -> Result<usize, OpError> {
    let found = n.int_or(name, 1)?;
    usize::try_from(found)
        .ok()
        .filter(|&g| g > 0)
        .ok_or_else(|| OpError::new(format!("attribute {name:?} is {found}; expected at least 1")))
}

/// The windows, where their sizes are known.
fn windows(n: &NodeRef, rank: usize) -> Result<Option<Windows>, OpError> {
    let weights = n.shape(W).map(|s| s[2..].iter().map(Dim::known).collect());
    let weights: Option<Vec<i64>> = weights.flatten();
    let size = match (n.ints("kernel_shape")?.filter(|k| !k.is_empty()), weights) {
        (Some(k), Some(w)) if k != w => {
            return Err(OpError::new(format!(
                "attribute \"kernel_shape\" is {k:?}, but the weights have {w:?}"
            )));
        }
        (Some(k), None) => k.to_vec(),
        (_, Some(w)) => w,
        (None, None) => {
            n.ignore(&["dilations", "pads", "strides"]);
            return Ok(None);
        }
    };
    Windows::of(n, rank - 2, size).map(Some)
}

fn rank(n: &NodeRef) -> Result<Option<usize>, OpError> {
    let Some(rank) = [X, W, OFFSET, MASK].iter().find_map(|&i| n.rank(i)) else {
        n.ignore(&["dilations", "kernel_shape", "pads", "strides"]);
        return Ok(None);
    };
    for i in [X, W, OFFSET, MASK] {
        ranked(n, i, rank)?;
    }
    match rank {
        ..3 => Err(OpError::new(format!("{rank} axes; expected at least 3"))),
        _ => Ok(Some(rank)),
    }
}

impl Op for DeformConv {
    fn name(&self) -> OpName {
        onnx("DeformConv")
    }

    fn since(&self) -> &'static [u16] {
        &[19, 22]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 3, 5)?;
        same_dtype(n)?;
        let (group, offsets) = (positive(n, "group")?, positive(n, "offset_group")?);
        ranked(n, BIAS, 1)?;
        let Some(rank) = rank(n)? else {
            return Ok(vec![Fact::tensor(n.dtype(X), None)]);
        };
        let dim = |i: usize, axis: usize| n.shape(i).map_or(Dim::Unknown, |s| s[axis].clone());
        let windows = windows(n, rank)?;
        let taps = windows.as_ref().map(|w| w.size.iter().product::<i64>());
        let (c, o) = (dim(X, 1), dim(W, 0));
        let own = dim(W, 1) * Dim::from(group);
        let differ = |a: &Dim, b: &Dim| matches!((a.known(), b.known()), (Some(a), Some(b)) if a != b);
        let per = taps.map_or(Dim::Unknown, |t| Dim::Known(t) * Dim::from(offsets));
        let wrong = differ(&c, &own)
            || c.size().is_some_and(|c| c % offsets != 0)
            || o.size().is_some_and(|o| o % group != 0)
            || differ(&dim(OFFSET, 1), &(per.clone() * Dim::from(rank - 2)))
            || differ(&dim(MASK, 1), &per)
            || [OFFSET, MASK].iter().any(|&i| differ(&dim(i, 0), &dim(X, 0)))
            || (2..rank).any(|a| differ(&dim(OFFSET, a), &dim(MASK, a)))
            || n.shape(BIAS).is_some_and(|b| differ(&b[0], &o));
        if wrong {
            let shapes: Vec<_> = (0..5).filter_map(|i| n.shape(i)).map(|s| show(s)).collect();
            return Err(OpError::new(format!(
                "shapes {} in {group} groups, {offsets} of offsets, do not go together",
                shapes.join(", ")
            )));
        }
        let mut shape = vec![dim(X, 0), o];
        match (windows, n.shape(X)) {
            (Some(w), Some(x)) => {
                let sizes = w.outputs(&x[2..])?;
                if let Some(a) = (2..rank).find(|&a| differ(&dim(OFFSET, a), &sizes[a - 2])) {
                    return Err(OpError::new(format!(
                        "offsets have {} elements on axis {a}; expected {}",
                        dim(OFFSET, a),
                        sizes[a - 2]
                    )));
                }
                shape.extend(sizes);
            }
            _ => shape.extend((2..rank).map(|a| dim(OFFSET, a))),
        }
        Ok(vec![Fact::tensor(n.dtype(X), Some(shape))])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = rank(n).ok()??;
        let tie = |output, inputs: &[(usize, usize)]| Tie {
            output,
            inputs: inputs
                .iter()
                .copied()
                .filter(|(i, _)| n.rank(*i).is_some())
                .collect(),
        };
        let mut all = vec![
            tie(Some(0), &[(X, 0), (OFFSET, 0), (MASK, 0)]),
            tie(Some(1), &[(W, 0)]),
        ];
        if positive(n, "group").ok()? == 1 {
            all.push(tie(None, &[(X, 1), (W, 1)]));
        }
        all.extend((2..rank).map(|a| tie(Some(a), &[(OFFSET, a), (MASK, a)])));
        Some(Axes(all))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        super::pick::knowing(n, x, |n| eval(n, self.infer(n)?, x))
    }

    fn spelled<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        Some(vec![spelled(n, x)?])
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name, dims: &[&[usize]]| {
            let inputs = dims.iter().zip(1..).map(|(d, seed)| floats(d, seed));
            Case::new(name, inputs).within(1e-5, 1e-5)
        };
        let double = |dims: &[usize], seed| {
            let values = floats(dims, seed).floats().unwrap_or_default();
            Tensor::rounded(DType::F64, dims, &values).unwrap_or_else(|| Tensor::scalar(0f64))
        };
        vec![
            case("a border", &[&[1, 1, 4, 5], &[2, 1, 2, 2], &[1, 8, 5, 6]]).attr("pads", vec![1i64; 4]),
            case(
                "bias and mask",
                &[&[2, 2, 4, 5], &[2, 2, 2, 2], &[2, 8, 3, 4], &[2], &[2, 4, 3, 4]],
            ),
            case("groups", &[&[1, 4, 5, 5], &[6, 2, 3, 2], &[1, 24, 2, 3]])
                .attr("group", 2)
                .attr("offset_group", 2)
                .attr("strides", vec![2i64, 2])
                .attr("dilations", vec![1i64, 1])
                .attr("pads", vec![0i64, 1, 0, 0])
                .attr("kernel_shape", vec![3i64, 2]),
            case("one axis", &[&[1, 2, 9], &[1, 2, 3], &[1, 3, 7]]),
            case(
                "three axes",
                &[&[1, 1, 3, 3, 3], &[1, 1, 2, 1, 2], &[1, 12, 2, 3, 2]],
            ),
            Case::new(
                "double precision",
                [
                    double(&[1, 1, 3, 3], 1),
                    double(&[1, 1, 2, 2], 2),
                    double(&[1, 8, 2, 2], 3),
                ],
            ),
        ]
    }
}

/// What lies under the windows, times the weights; `None` where sizes are not known.
fn spelled<'a>(n: &NodeRef, x: &[Ex<'a>]) -> Option<Ex<'a>> {
    let (image, weights, bend, dtype) = (x[X], x[W], x[OFFSET], n.dtype(X)?);
    let (dims, of_w) = (n.dims(X)?, n.dims(W)?);
    let (group, bends) = (positive(n, "group").ok()?, positive(n, "offset_group").ok()?);
    let w = windows(n, dims.len()).ok()??.over(&dims[2..]).ok()?;
    let (taps, positions, axes) = (w.taps(), w.positions(), w.size.len());
    let (images, channels, outputs) = (dims[0], dims[1], of_w[0]);
    let bend = reshape(bend, &[images * bends, taps, axes, positions]);
    let axis = |a: usize| {
        let own = reshape(slice(bend, 2, a, a + 1), &[images * bends, taps, positions]);
        let straight = (0..taps * positions).map(|i| {
            let (mut tap, mut at) = (i / positions, i % positions);
            for b in (a + 1..axes).rev() {
                (tap, at) = (tap / w.size[b], at / w.output[b]);
            }
            let (tap, at) = (tap % w.size[a], at % w.output[a]);
            (at * w.strides[a] + tap * w.dilations[a]) as f64 - w.pads[a] as f64
        });
        let straight = Tensor::rounded(dtype, &[taps, positions], &straight.collect::<Vec<_>>())?;
        Some(Axis {
            size: w.input[a],
            place: reshape(own + own.tensor(straight), &[images * bends, taps * positions]),
            beside: Beside::Zeros,
        })
    };
    let places: Vec<_> = (0..axes).map(axis).collect::<Option<_>>()?;
    let flat = reshape(image, &[images * bends, channels / bends, w.plane()]);
    let mut under = sampled(flat, dtype, &places, Mode::Linear)?;
    if let Some(mask) = present(n, x, MASK) {
        under = under * reshape(mask, &[images * bends, 1, taps * positions]);
    }
    let rows = channels / group * taps;
    let under = reshape(under, &[images, group, rows, positions]);
    let sums = reshape(weights, &[group, outputs / group, rows]).matmul(under);
    let mut to = vec![images, outputs];
    to.extend(&w.output);
    let y = reshape(sums, &to);
    let last: Vec<_> = (0..dims.len()).filter(|&a| a != 1).chain([1]).collect();
    Some(match present(n, x, BIAS) {
        Some(b) => {
            let mut back: Vec<_> = (0..dims.len() - 1).collect();
            back.insert(1, dims.len() - 1);
            transpose(transpose(y, &last) + b, &back)
        }
        None => y,
    })
}

/// The element of a plane between pixels, 0 beside it.
fn between(plane: &[f64], sizes: &[usize], place: &[f64]) -> f64 {
    let corners = 1usize << sizes.len();
    let corner = |corner: usize| {
        let (mut at, mut weight) = (0, 1.0);
        for (a, (&size, &x)) in sizes.iter().zip(place).enumerate() {
            let upper = corner >> a & 1 == 1;
            let (pixel, part) = (x.floor() + f64::from(u8::from(upper)), x - x.floor());
            weight *= if upper { part } else { 1.0 - part };
            if !(pixel >= 0.0 && pixel < size as f64) {
                return 0.0;
            }
            at = at * size + pixel as usize;
        }
        plane[at] * weight
    };
    (0..corners).map(corner).sum()
}

fn eval(n: &NodeRef, facts: Vec<Fact>, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (t, weights, offset) = (given(x, X)?, given(x, W)?, given(x, OFFSET)?);
    let wrong = || OpError::new(format!("no bent convolution of {}{:?}", t.dtype(), t.dims()));
    let dims = facts.first().and_then(|f| f.ty.dims()).ok_or_else(wrong)?;
    check_size(&dims)?;
    let (group, bends) = (positive(n, "group")?, positive(n, "offset_group")?);
    let w: Window = windows(n, dims.len())?.ok_or_else(wrong)?.over(&t.dims()[2..])?;
    let (taps, positions, axes) = (w.taps(), w.positions(), w.size.len());
    let floats = |i: usize| {
        x.get(i)
            .copied()
            .flatten()
            .map(|t| t.floats().ok_or_else(wrong))
            .transpose()
    };
    let (data, kernel) = (t.floats().ok_or_else(wrong)?, weights.floats().ok_or_else(wrong)?);
    let bend = offset.floats().ok_or_else(wrong)?;
    let (bias, mask) = (floats(BIAS)?, floats(MASK)?);
    let (channels, inner, plane) = (t.dims()[1], weights.dims()[1], w.plane());
    // What lies under each element of the window, of all input channels.
    let sample = |image: usize, c: usize, at: usize, tap: usize| {
        let bent = (image * bends + c / (channels / bends)) * taps + tap;
        let (mut place, mut rest, mut tap) = (vec![0.0; axes], at, tap);
        for a in (0..axes).rev() {
            let (p, k) = (rest % w.output[a], tap % w.size[a]);
            (rest, tap) = (rest / w.output[a], tap / w.size[a]);
            let straight = (p * w.strides[a] + k * w.dilations[a]) as f64 - w.pads[a] as f64;
            place[a] = straight + bend[(bent * axes + a) * positions + at];
        }
        let own = &data[(image * channels + c) * plane..][..plane];
        let factor = mask.as_ref().map_or(1.0, |m| m[bent * positions + at]);
        factor * between(own, &w.input, &place)
    };
    let mut y = Vec::with_capacity(count(&dims).unwrap_or(0));
    for image in 0..dims[0] {
        let mut under = vec![0.0; channels * taps * positions];
        for (i, u) in under.iter_mut().enumerate() {
            *u = sample(image, i / positions / taps, i % positions, i / positions % taps);
        }
        for o in 0..dims[1] {
            let first = o / (dims[1] / group) * inner * taps;
            let row = &kernel[o * inner * taps..(o + 1) * inner * taps];
            y.extend((0..positions).map(|at| {
                let products = row
                    .iter()
                    .enumerate()
                    .map(|(k, w)| w * under[(first + k) * positions + at]);
                bias.as_ref().map_or(0.0, |b| b[o]) + products.sum::<f64>()
            }));
        }
    }
    Ok(vec![Tensor::rounded(t.dtype(), &dims, &y).ok_or_else(wrong)?])
}
