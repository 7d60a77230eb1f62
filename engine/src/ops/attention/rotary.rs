//! `RotaryEmbedding` of ONNX and of ONNX Runtime: pairs of numbers turned by an angle that grows with the place.

use super::super::formula::{apply, concat, count_up, given, ints, reshape, slice, stepped};
use super::super::shape::{arity, like_first, ranked, show};
use super::super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, microsoft, onnx};
use super::cpu::{Turns, rotary};
use super::heads::{Heads, LONGEST, agree, heads, share};
use crate::cpu::Candidate;
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Tensor};

/// ONNX's own. The tables of cosines and sines may be looked up by place, or be given for each element.
pub struct RotaryEmbedding;

/// ONNX Runtime's, which always looks up its tables.
pub struct Rotary;

/// What a node turns.
struct Turn {
    x: Heads,
    /// Numbers of an element that are turned, the first ones.
    turned: Dim,
    interleaved: bool,
}

/// The heads of input 0, and how many of their numbers are turned; `tables` is the input of the cosines.
fn turn(n: &NodeRef, tables: usize) -> Result<Option<Turn>, OpError> {
    let count = n.int_or("num_heads", 0)?;
    let turned = n.int_or("rotary_embedding_dim", 0)?;
    let interleaved = n.int_or("interleaved", 0)? != 0;
    let half = n.shape(tables).and_then(|s| s.last());
    let Some(shape) = n.shape(0) else { return Ok(None) };
    let x = match (&shape[..], half) {
        // The size of a head is that of the tables.
        ([batch, length, hidden], Some(half)) if count == 0 && turned == 0 => {
            let size = half.clone() * Dim::Known(2);
            let heads = match size.known() {
                Some(size) => share(hidden, size)?,
                None => Dim::Unknown,
            };
            Heads {
                batch: batch.clone(),
                heads,
                length: length.clone(),
                size,
            }
        }
        ([_, _, _], None) if count == 0 && n.has(tables) => return Ok(None),
        _ => match heads(n, 0, Some(count).filter(|&c| c > 0))? {
            Some(heads) => heads,
            None => return Ok(None),
        },
    };
    let turned = match turned {
        0 => x.size.clone(),
        some => Dim::Known(some),
    };
    if let (Some(all), Some(some)) = (x.size.known(), turned.known())
        && (some > all || some < 0 || some % 2 != 0)
    {
        return Err(OpError::new(format!(
            "{some} of {all} numbers are to be turned; expected an even number of them"
        )));
    }
    if let Some(half) = half {
        agree("cosines and pairs", half, &turned.floor_div(&Dim::Known(2)))?;
    }
    Ok(Some(Turn {
        x,
        turned,
        interleaved,
    }))
}

impl Op for RotaryEmbedding {
    fn name(&self) -> OpName {
        onnx("RotaryEmbedding")
    }

    fn since(&self) -> &'static [u16] {
        &[23]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 3, 4)?;
        let rank = if n.has(3) { 2 } else { 3 };
        for i in [1, 2] {
            ranked(n, i, rank)?;
        }
        if let (Some(c), Some(s)) = (n.shape(1), n.shape(2)) {
            for (c, s) in c.iter().zip(s) {
                agree("cosines and sines", c, s)?;
            }
        }
        turn(n, 1)?;
        like_first(n)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let t = turn(n, 1).ok()??;
        let (dims, turned, half) = (n.dims(0)?, t.turned.size()?, t.turned.size()? / 2);
        let [batch, heads, length, size] = [&t.x.batch, &t.x.heads, &t.x.length, &t.x.size].map(Dim::size);
        let (batch, heads, length, size) = (batch?, heads?, length?, size?);
        let packed = dims.len() == 3;
        let (apart, spread) = match packed {
            true => ([batch, length, heads, size], [batch, length, 1, half]),
            false => ([batch, heads, length, size], [batch, 1, length, half]),
        };
        let table = |i: usize| {
            let table = *x.get(i)?;
            let found = given(n, x, 3).map_or(table, |at| table.op("Gather", &[at]));
            Some(reshape(found, &spread))
        };
        let (cos, sin) = (table(1)?, table(2)?);
        let all = if packed { reshape(x[0], &apart) } else { x[0] };
        let (a, b) = match t.interleaved {
            true => (stepped(all, 3, 0, turned, 2), stepped(all, 3, 1, turned, 2)),
            false => (slice(all, 3, 0, half), slice(all, 3, half, turned)),
        };
        let (real, imaginary) = (a * cos - b * sin, a * sin + b * cos);
        let pairs = [apart[0], apart[1], apart[2], half, 1];
        let y = match t.interleaved {
            true => {
                let both = concat(reshape(real, &pairs), &[reshape(imaginary, &pairs)], 4);
                reshape(both, &[apart[0], apart[1], apart[2], turned])
            }
            false => concat(real, &[imaginary], 3),
        };
        let y = match turned < size {
            true => concat(y, &[slice(all, 3, turned, size)], 3),
            false => y,
        };
        Some(vec![if packed { reshape(y, &dims) } else { y }])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernel(n).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let at = || Tensor::of(&[2, 3], vec![0i64, 5, 1, 2, 3, -2]);
        let tables = |dims: &[usize]| [case::floats(dims, 2), case::floats(dims, 3)];
        let looked_up = |name, x: &[usize], half: usize| {
            let [cos, sin] = tables(&[6, half]);
            Case::new(name, [case::floats(x, 1), cos, sin, at()]).within(1e-5, 1e-5)
        };
        let [cos, sin] = tables(&[2, 3, 4]);
        vec![
            looked_up("heads apart", &[2, 4, 3, 8], 4),
            looked_up("interleaved", &[2, 4, 3, 8], 4).attr("interleaved", 1),
            looked_up("heads side by side", &[2, 3, 32], 4).attr("num_heads", 4),
            looked_up("some numbers", &[2, 4, 3, 8], 2)
                .attr("rotary_embedding_dim", 4)
                .attr("interleaved", 1),
            Case::new("for each element", [case::floats(&[2, 1, 3, 8], 1), cos, sin]).within(1e-5, 1e-5),
        ]
    }
}

/// The kernel, if all but places are floats.
fn kernel(n: &NodeRef) -> Option<Candidate> {
    if (0..3).any(|i| n.dtype(i) != Some(DType::F32)) || n.dtype(3).is_some_and(|d| d != DType::I64) {
        return None;
    }
    let t = turn(n, 1).ok()??;
    let [batch, heads, length, size] = [&t.x.batch, &t.x.heads, &t.x.length, &t.x.size].map(Dim::size);
    let (batch, heads, length, size) = (batch?, heads?, length?, size?);
    let packed = n.rank(0)? == 3;
    let table = n.dims(1)?;
    let elements = match n.has(3) {
        true => n.dims(3)?,
        false => table[..2].to_vec(),
    };
    (elements == [batch, length]).then(|| {
        rotary(Turns {
            dims: match packed {
                true => [batch, length, heads, size],
                false => [batch, heads, length, size],
            },
            packed,
            half: t.turned.size().unwrap_or(0) / 2,
            interleaved: t.interleaved,
            table: n.has(3).then_some(table[0]),
        })
    })
}

impl Op for Rotary {
    fn name(&self) -> OpName {
        microsoft("RotaryEmbedding")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 4, 4)?;
        // ONNX Runtime reads `scale` and makes no use of it; batches of ragged sequences come with their places.
        n.ignore(&["scale", "is_packed_batching"]);
        for i in [2, 3] {
            ranked(n, i, 2)?;
        }
        turn(n, 2)?;
        if let Some(at) = n.shape(1).filter(|s| s.is_empty() || s.len() > 2) {
            return Err(OpError::new(format!(
                "places of shape {}; expected [1] or [batch, length]",
                show(at)
            )));
        }
        like_first(n)
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let t = turn(n, 2).ok()??;
        let batch = t.x.batch.size()?;
        let length = t.x.length.size().filter(|&l| l <= LONGEST)?;
        let at = match n.rank(1)? {
            1 => {
                let places = *x.get(1)? + count_up(x[0], &[1, length], 0);
                places.op("Expand", &[ints(x[0], &[batch as i64, length as i64])])
            }
            _ => *x.get(1)?,
        };
        let attrs = vec![
            Attr::new("num_heads", t.x.heads.known()?),
            Attr::new("rotary_embedding_dim", t.turned.known()?),
            Attr::new("interleaved", i64::from(t.interleaved)),
        ];
        let rest = [Some(*x.get(2)?), Some(*x.get(3)?), Some(at)];
        Some(apply(x[0], "RotaryEmbedding", &rest, attrs, 1))
    }

    fn cases(&self) -> Vec<Case> {
        let of = |name, x: &[usize], at: Tensor, half: usize| {
            let tables = [case::floats(&[9, half], 2), case::floats(&[9, half], 3)];
            let [cos, sin] = tables;
            Case::new(name, [case::floats(x, 1), at, cos, sin]).within(1e-5, 1e-5)
        };
        let at = || Tensor::of(&[2, 3], vec![0i64, 5, 1, 2, 3, 8]);
        vec![
            of("from a place on", &[2, 3, 16], Tensor::of(&[1], vec![4i64]), 4),
            of("by place", &[2, 3, 16], at(), 4).attr("interleaved", 1),
            of("heads apart", &[2, 2, 3, 8], at(), 4).attr("scale", 1.0f32),
            of("some numbers", &[2, 3, 16], at(), 2)
                .attr("num_heads", 2)
                .attr("rotary_embedding_dim", 4),
        ]
    }
}
