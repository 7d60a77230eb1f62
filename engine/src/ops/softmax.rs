//! `Softmax` and `LogSoftmax`.

use super::binary::candidate;
use super::case::{floats, odd_floats};
use super::grad::folded;
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, Tie, onnx, shape};
use crate::cpu::arg::Along;
use crate::cpu::softmax;
use crate::cpu::{Candidate, Cost};
use crate::expr::Ex;
use crate::ir::{DType, Tensor, count};

/// `e^x / Σ e^x`, or with `LOG` its logarithm. Before opset 13 the sum runs over all axes from `axis` on.
pub struct Softmax<const LOG: bool>;

/// The first axis and the one behind the last along which is summed.
pub(super) fn span(n: &NodeRef, rank: usize) -> Result<(usize, usize), OpError> {
    let old = n.opset() < 13;
    let axis = n.int_or("axis", if old { 1 } else { -1 })?;
    if rank == 0 && (-1..=1).contains(&axis) {
        return Ok((0, 0));
    }
    // A vector has no axis 1, the old default; all axes from there on are none.
    if old && usize::try_from(axis) == Ok(rank) {
        return Ok((rank, rank));
    }
    let axis = NodeRef::axis(axis, rank)?;
    Ok((axis, if old { rank } else { axis + 1 }))
}

impl<const LOG: bool> Op for Softmax<LOG> {
    fn name(&self) -> OpName {
        onnx(if LOG { "LogSoftmax" } else { "Softmax" })
    }

    fn since(&self) -> &'static [u16] {
        &[1, 11, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        span(n, n.rank(0).unwrap_or(usize::MAX >> 1))?;
        match n.dtype(0) {
            Some(d) if !d.is_float() => Err(OpError::new(format!("expected floats, found {d}"))),
            _ => shape::like_first(n),
        }
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let rank = n.rank(0)?;
        let (first, end) = span(n, rank).ok()?;
        let tie = |i| Tie {
            output: Some(i),
            inputs: vec![(0, i)],
        };
        Some(Axes(
            (0..rank).filter(|i| !(first..end).contains(i)).map(tie).collect(),
        ))
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0],
            ..Laws::default()
        }
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let t = x.first().copied().flatten();
        let known = t.and_then(|t| Some((t, t.floats().filter(|_| t.dtype().is_float())?)));
        let (t, v) = known.ok_or_else(|| OpError::new("expected a tensor of floats"))?;
        let (first, end) = span(n, t.dims().len())?;
        let size: usize = t.dims()[first..end].iter().product();
        let inner: usize = t.dims()[end..].iter().product();
        let mut y = v.clone();
        for start in (0..v.len()).filter(|i| (i / inner).is_multiple_of(size)) {
            let mut row: Vec<_> = (0..size).map(|k| v[start + k * inner]).collect();
            softmax::by_definition(&mut row, LOG);
            row.iter()
                .enumerate()
                .for_each(|(k, &r)| y[start + k * inner] = r);
        }
        let y = Tensor::rounded(t.dtype(), t.dims(), &y);
        Ok(vec![
            y.ok_or_else(|| OpError::new("expected a tensor of floats"))?,
        ])
    }

    fn vjp<'a>(&self, n: &NodeRef, _: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (y, dy, rank) = (y[0]?, dy[0]?, n.rank(0)?);
        let (first, end) = span(n, rank).ok()?;
        let axes: Vec<_> = (first as i64..end as i64).collect();
        let sum = |x: Ex<'a>| folded(x, "ReduceSum", &axes);
        Some(vec![Some(match LOG {
            true => dy - y.exp() * sum(dy),
            false => {
                let scaled = dy * y;
                scaled - y * sum(scaled)
            }
        })])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let kernel = || {
            let dims = n.dims(0)?;
            let (first, end) = span(n, dims.len()).ok()?;
            count(&dims)?;
            let along = Along {
                outer: count(&dims[..first])?,
                size: count(&dims[first..end])?,
                inner: count(&dims[end..])?,
            };
            softmax::kernel(n.dtype(0)?, along, LOG)
        };
        // Rows and elements of one, where elements stand side by side.
        let rows = n.dims(0).and_then(|d| {
            let (first, end) = span(n, d.len()).ok()?;
            let beside = count(&d[end..])? == 1;
            beside.then(|| d[..first].iter().product::<usize>())
        });
        let made = kernel().map(|k| candidate(n, if rows.is_some() { "" } else { ".columns" }, k));
        // Each row has a maximum, a sum, and a last vector that is not full.
        let with_rows = |c: Candidate| Candidate {
            cost: Cost {
                flops: 400.0 * rows.unwrap_or(0) as f64,
                efficiency: 0.04,
                ..c.cost
            },
            ..c
        };
        made.map(with_rows).into_iter().collect()
    }

    fn cases(&self) -> Vec<Case> {
        let few = |dtype| Tensor::rounded(dtype, &[2, 4], &[3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]);
        let infinite = [
            f32::INFINITY,
            1.0,
            f32::NEG_INFINITY,
            1.0,
            f32::NEG_INFINITY,
            f32::NEG_INFINITY,
        ];
        let mut all = vec![
            Case::new("rows", [floats(&[5, 37], 1)]),
            Case::new("long rows", [floats(&[2, 3000], 1)]),
            Case::new("columns", [floats(&[2, 5, 77], 1)]).attr("axis", 1),
            Case::new("outermost", [floats(&[7, 3], 1)]).attr("axis", -2),
            Case::new("old", [floats(&[2, 3, 5], 1)]).opset(12),
            Case::new("older", [floats(&[2, 3, 5], 1)])
                .opset(1)
                .attr("axis", 2),
            Case::new("odd values", [odd_floats(&[12, 1], 1)]),
            Case::new("rows with NaN", [odd_floats(&[3, 20], 1)]),
            Case::new("infinities", [Tensor::of(&[3, 2], infinite.to_vec())]),
            Case::new("infinities in columns", [Tensor::of(&[3, 2], infinite.to_vec())]).attr("axis", 0),
            Case::new("nothing", [floats(&[0, 3], 1)]),
            Case::new("rows of nothing", [floats(&[3, 0], 1)]),
            Case::new("scalar", [floats(&[], 1)]),
        ];
        all.extend(few(DType::F64).map(|x| Case::new("double", [x])));
        let mut all: Vec<_> = all.into_iter().map(|c| c.within(1e-6, 2e-6)).collect();
        for dtype in [DType::F16, DType::BF16] {
            all.extend(few(dtype).map(|x| Case::new("half", [x]).within(4e-3, 4e-3)));
            all.extend(few(dtype).map(|x| {
                Case::new("columns of half", [x])
                    .attr("axis", 0)
                    .within(4e-3, 4e-3)
            }));
        }
        all
    }
}
