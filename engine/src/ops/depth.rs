//! Blocks of pixels as channels, and back.

use super::formula::{ints, transpose};
use super::grad::shaped;
use super::pick::{given, knowing, place, rearranged, sized};
use super::shape::{arity, ranked, show, tied};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::Candidate;
use crate::cpu::copy::{Lay, StridedCopy, steps};
use crate::cpu::moves::{Move, candidates, width};
use crate::ir::{Attr, DType, Dim, Tensor};

/// ONNX `DepthToSpace`: `[batch, channels, h, w]` to `[batch, channels / size², h * size, w * size]`.
pub struct DepthToSpace;

/// ONNX `SpaceToDepth`: `[batch, channels, h, w]` to `[batch, channels * size², h / size, w / size]`.
pub struct SpaceToDepth;

fn block(n: &NodeRef) -> Result<i64, OpError> {
    match n.int("blocksize")? {
        Some(size @ 1..=0xffff) => Ok(size),
        Some(size) => Err(OpError::new(format!("blocksize is {size}; expected at least 1"))),
        None => Err(OpError::new("attribute \"blocksize\" is missing")),
    }
}

/// Whether the channels of the result vary slowest: mode CRD, not DCR.
fn channels_first(n: &NodeRef) -> Result<bool, OpError> {
    match n.str_or("mode", "DCR")? {
        "DCR" => Ok(false),
        "CRD" => Ok(true),
        mode => Err(OpError::new(format!("mode is {mode:?}; expected DCR or CRD"))),
    }
}

fn divided(d: &Dim, by: i64) -> Result<Dim, OpError> {
    match d.known().is_some_and(|d| d % by != 0) {
        true => Err(OpError::new(format!(
            "a size of {d}; expected a multiple of {by}"
        ))),
        false => Ok(d.floor_div(&Dim::Known(by))),
    }
}

/// Two tensors of the axes `[batch, channel, y, x, block y, block x]`.
fn copy(n: &NodeRef, dtype: DType, dims: [usize; 6], from: [isize; 6], to: [isize; 6]) -> Vec<Candidate> {
    let lay = |steps: [isize; 6]| Lay {
        start: 0,
        steps: steps.to_vec(),
    };
    let moves = || {
        Some(vec![Move {
            input: 0,
            output: 0,
            copy: StridedCopy::new(width(dtype)?, &dims, &lay(from), &lay(to))?,
        }])
    };
    candidates(&n.node().op.to_lowercase(), dtype, moves())
}

/// The steps of the axes of a tensor whose blocks are pixels, and of one whose blocks are channels.
fn blocks(size: usize, pixels: &[usize], deep: &[usize], first: bool) -> ([isize; 6], [isize; 6]) {
    let b = size as isize;
    let (p, d) = (steps(pixels), steps(deep));
    let (channel, block) = match first {
        true => (b.wrapping_mul(b), 1),
        false => (1, pixels[1] as isize),
    };
    let by = |k: isize| d[1].wrapping_mul(k);
    (
        [p[0], p[1], p[2].wrapping_mul(b), p[3].wrapping_mul(b), p[2], p[3]],
        [
            d[0],
            by(channel),
            d[2],
            d[3],
            by(block.wrapping_mul(b)),
            by(block),
        ],
    )
}

impl Op for DepthToSpace {
    fn name(&self) -> OpName {
        onnx("DepthToSpace")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 11, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        let size = block(n)?;
        channels_first(n)?;
        let shape = match ranked(n, 0, 4)? {
            Some(s) => {
                let by = Dim::Known(size);
                vec![
                    s[0].clone(),
                    divided(&s[1], size * size)?,
                    s[2].clone() * by.clone(),
                    s[3].clone() * by,
                ]
            }
            None => vec![Dim::Unknown; 4],
        };
        Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        Some(tied(1, |i| vec![(0, i)]))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = given(x, 0)?;
        let dims = knowing(n, x, |n| sized(self, n, 0))?;
        let (size, first) = (block(n)? as usize, channels_first(n)?);
        let y = rearranged(data, &dims, |at| {
            let block = at[2] % size * size + at[3] % size;
            let channel = match first {
                true => at[1] * size * size + block,
                false => block * dims[1] + at[1],
            };
            place([at[0], channel, at[2] / size, at[3] / size], data.dims())
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (dy, size) = (dy[0]?, block(n).ok()?);
        if !channels_first(n).ok()? {
            return Some(vec![Some(dy.with(
                "SpaceToDepth",
                &[],
                vec![Attr::new("blocksize", size)],
            ))]);
        }
        // Channels behind blocks are put before them.
        let (x, deep) = (x[0]?, n.shape(0)?.get(1)?.known()? / (size * size));
        let apart = dy.with("SpaceToDepth", &[], vec![Attr::new("blocksize", size)]);
        let apart = apart.op("Reshape", &[ints(x, &[0, size * size, deep, -1])]);
        Some(vec![Some(shaped(n, 0, x, transpose(apart, &[0, 2, 1, 3])))])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let (Some(dtype), Some(deep), Some(pixels)) = (n.dtype(0), n.dims(0), n.out_dims(0)) else {
            return vec![];
        };
        let (Ok(size), Ok(first)) = (block(n), channels_first(n)) else {
            return vec![];
        };
        let size = size as usize;
        let (to, from) = blocks(size, &pixels, &deep, first);
        let dims = [deep[0], pixels[1], deep[2], deep[3], size, size];
        copy(n, dtype, dims, from, to)
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[2, 12, 3, 5], 1);
        vec![
            Case::new("by default", [x()]).attr("blocksize", 2i64),
            Case::new("channels first", [x()])
                .attr("blocksize", 2i64)
                .attr("mode", "CRD"),
            Case::new("the first version", [case::floats(&[1, 9, 2, 2], 2)])
                .attr("blocksize", 3i64)
                .opset(1),
            Case::new("bytes", [Tensor::of(&[1, 4, 1, 2], (0..8u8).collect())]).attr("blocksize", 2i64),
        ]
    }
}

impl Op for SpaceToDepth {
    fn name(&self) -> OpName {
        onnx("SpaceToDepth")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        let size = block(n)?;
        let shape = match ranked(n, 0, 4)? {
            Some(s) => vec![
                s[0].clone(),
                s[1].clone() * Dim::Known(size * size),
                divided(&s[2], size)?,
                divided(&s[3], size)?,
            ],
            None => vec![Dim::Unknown; 4],
        };
        if shape.iter().any(|d| d.known().is_some_and(|d| d < 0)) {
            return Err(OpError::new(format!("{} is not a shape", show(&shape))));
        }
        Ok(vec![Fact::tensor(n.dtype(0), Some(shape))])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        Some(tied(1, |i| vec![(0, i)]))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = given(x, 0)?;
        let dims = knowing(n, x, |n| sized(self, n, 0))?;
        let size = block(n)? as usize;
        let y = rearranged(data, &dims, |at| {
            let (block, channel) = (at[1] / data.dims()[1], at[1] % data.dims()[1]);
            let (y, x) = (at[2] * size + block / size, at[3] * size + block % size);
            place([at[0], channel, y, x], data.dims())
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, _: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        Some(vec![Some(dy[0]?.with(
            "DepthToSpace",
            &[],
            n.node().attrs.clone(),
        ))])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let (Some(dtype), Some(pixels), Some(deep)) = (n.dtype(0), n.dims(0), n.out_dims(0)) else {
            return vec![];
        };
        let Ok(size) = block(n) else { return vec![] };
        let size = size as usize;
        let (from, to) = blocks(size, &pixels, &deep, false);
        let dims = [pixels[0], pixels[1], deep[2], deep[3], size, size];
        copy(n, dtype, dims, from, to)
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("two", [case::floats(&[2, 3, 4, 6], 1)]).attr("blocksize", 2i64),
            Case::new("three", [case::floats(&[1, 1, 3, 6], 1)])
                .attr("blocksize", 3i64)
                .opset(1),
            Case::new("doubles", [Tensor::of(&[1, 1, 2, 2], vec![1f64, 2.0, 3.0, 4.0])])
                .attr("blocksize", 2i64),
        ]
    }
}
