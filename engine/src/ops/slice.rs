//! ONNX `Slice`: from a start to an end by steps, along some axes.

use super::formula::{apply, ints};
use super::grad::{at, put_back};
use super::pick::{given, knowing, place, rearranged};
use super::shape::{arity, show, tied, with_data};
use super::{Axes, Case, Exs, Fact, Grads, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::blocked::{self, BLOCK};
use crate::cpu::copy::{Lay, StridedCopy, steps};
use crate::cpu::indices::integers;
use crate::cpu::moves::{Move, candidates, short, width};
use crate::cpu::{Candidate, Cost, Io};
use crate::ir::{DType, Dim, DimExpr, Shape, Tensor};

/// ONNX `Slice`.
pub struct Slice;

/// What to take along one axis, as the node says it.
#[derive(Clone, Debug)]
struct Cut {
    axis: usize,
    start: Dim,
    end: Dim,
    step: Option<i64>,
}

/// What to take along one axis, within its bounds.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: isize,
    step: isize,
    len: usize,
}

/// From here on a bound means the end of an axis of any size.
const FAR: i64 = i32::MAX as i64;

impl Cut {
    /// The span along an axis of `size`; `None` where a bound is not a number.
    fn span(&self, size: usize) -> Option<Span> {
        let (start, end, step) = (self.start.known()?, self.end.known()?, self.step?);
        let size = i128::try_from(size).ok()?;
        let back = i128::from(step < 0);
        let bound = |x: i64| {
            let x = i128::from(x);
            let from_start = if x < 0 { x + size } else { x };
            from_start.clamp(-back, size - back)
        };
        let (start, end, step) = (bound(start).max(0), bound(end), i128::from(step));
        let distance = if step < 0 { start - end } else { end - start };
        let by = step.abs();
        let len = ((distance + by - 1) / by).max(0);
        Some(Span {
            start: isize::try_from(start).ok()?,
            step: isize::try_from(step.clamp(-size - 1, size + 1)).ok()?,
            len: usize::try_from(if size == 0 { 0 } else { len }).ok()?,
        })
    }

    /// The number of elements taken along an axis of `size`. Sizes that are not known are taken to reach up to what is
    /// cut off at either end.
    fn len(&self, size: &Dim) -> Dim {
        if let Some(span) = size.size().and_then(|s| self.span(s)) {
            return span.len.into();
        }
        let Some(step) = self.step else {
            return Dim::Unknown;
        };
        if step > 0 {
            let (start, end) = (bound(&self.start, size, 0), bound(&self.end, size, 0));
            (end - start).ceil_div(&Dim::Known(step))
        } else {
            let (start, end) = (bound(&self.start, size, 1), bound(&self.end, size, 1));
            (start - end).ceil_div(&Dim::Known(step.saturating_neg()))
        }
    }
}

/// `x` counted from the start of an axis of `size`, at most `size - back`, at least `-back`.
fn bound(x: &Dim, size: &Dim, back: i64) -> Dim {
    match x {
        Dim::Known(x) if *x >= FAR => size.clone() - Dim::Known(back),
        Dim::Known(x) if *x <= -FAR => Dim::Known(-back),
        Dim::Known(0) => Dim::Known(0),
        x if negative(x) => size.clone() + x.clone(),
        x => x.lesser(&(size.clone() - Dim::Known(back))),
    }
}

/// Whether `x` is below 0 for symbols that are sizes.
fn negative(x: &Dim) -> bool {
    match x {
        Dim::Known(x) => *x < 0,
        Dim::Expr(e) => match &**e {
            DimExpr::Sum(terms) => terms.iter().all(|(_, k)| *k < 0),
            _ => false,
        },
        _ => false,
    }
}

/// What the node takes; `None` where not even the axes are known.
fn cuts(n: &NodeRef) -> Result<Option<Vec<Cut>>, OpError> {
    let Some(rank) = n.rank(0) else { return Ok(None) };
    if n.opset() < 10 {
        let of = |name| Ok::<_, OpError>(n.ints(name)?.map(<[i64]>::to_vec));
        let dims = |list: Option<Vec<i64>>| list.map(|l| l.into_iter().map(Dim::Known).collect());
        return cuts_of(rank, [dims(of("starts")?), dims(of("ends")?)], of("axes")?, None);
    }
    for i in 1..n.arity() {
        if let Some(d) = n.dtype(i).filter(|d| !d.is_int()) {
            return Err(OpError::new(format!(
                "input {i} is of type {d}; expected integers"
            )));
        }
    }
    let hidden = |i| n.has(i) && n.data(i).is_none();
    let numbers = |i: usize| n.has(i).then(|| n.ints_in(i)).flatten();
    if n.has(3) && numbers(3).is_none() {
        return Ok(None);
    }
    let len = [1, 2].iter().find_map(|&i| {
        n.data(i)
            .map(|d| d.len())
            .or(n.dims(i).map(|d| d.iter().product()))
    });
    let Some(len) = len.or(numbers(3).map(|a| a.len())).filter(|&len| len <= rank) else {
        return match [1, 2].iter().all(|&i| hidden(i)) {
            true => Ok(None),
            false => Err(OpError::new(format!("more starts than the {rank} axes"))),
        };
    };
    for i in [1, 2, 3, 4] {
        if let Some(found) = n
            .dims(i)
            .map(|d| d.iter().product::<usize>())
            .filter(|&d| d != len)
        {
            return Err(OpError::new(format!(
                "input {i} has {found} elements; expected {len}"
            )));
        }
    }
    let bounds = [1, 2].map(|i| n.data(i).or(Some(vec![Dim::Unknown; len])));
    let steps = match n.has(4) {
        true => Some(
            n.data(4)
                .map_or(vec![None; len], |d| d.iter().map(Dim::known).collect()),
        ),
        false => None,
    };
    cuts_of(rank, bounds, numbers(3), steps)
}

fn cuts_of(
    rank: usize,
    [starts, ends]: [Option<Vec<Dim>>; 2],
    axes: Option<Vec<i64>>,
    steps: Option<Vec<Option<i64>>>,
) -> Result<Option<Vec<Cut>>, OpError> {
    let (Some(starts), Some(ends)) = (starts, ends) else {
        return Err(OpError::new("starts or ends are missing"));
    };
    let len = starts.len();
    let axes = axes.unwrap_or_else(|| (0..len as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![Some(1); len]);
    if [ends.len(), axes.len(), steps.len()] != [len; 3] {
        return Err(OpError::new(format!(
            "{len} starts, {} ends, {} axes, {} steps; expected as many of each",
            ends.len(),
            axes.len(),
            steps.len()
        )));
    }
    super::shape::distinct_axes(&axes, rank)?;
    if steps.contains(&Some(0)) {
        return Err(OpError::new("a step is 0"));
    }
    let cut = |i: usize| {
        Ok(Cut {
            axis: NodeRef::axis(axes[i], rank)?,
            start: starts[i].clone(),
            end: ends[i].clone(),
            step: steps[i],
        })
    };
    (0..len).map(cut).collect::<Result<_, _>>().map(Some)
}

/// The shape taken out of `of`.
fn taken(of: &Shape, cuts: &[Cut]) -> Shape {
    let mut shape = of.clone();
    for cut in cuts {
        shape[cut.axis] = cut.len(&of[cut.axis]);
    }
    shape
}

/// The span along every axis of `dims`; `None` where a bound is not a number.
fn spans(dims: &[usize], cuts: &[Cut]) -> Option<Vec<Span>> {
    let whole = |&len: &usize| Span {
        start: 0,
        step: 1,
        len,
    };
    let mut spans: Vec<_> = dims.iter().map(whole).collect();
    for cut in cuts {
        spans[cut.axis] = cut.span(dims[cut.axis])?;
    }
    Some(spans)
}

fn copy(dtype: DType, dims: &[usize], spans: &[Span]) -> Option<StridedCopy> {
    let inside = steps(dims);
    let out: Vec<_> = spans.iter().map(|s| s.len).collect();
    let mut from = Lay {
        start: 0,
        steps: vec![],
    };
    for (span, step) in spans.iter().zip(&inside) {
        from.start = from.start.checked_add(step.checked_mul(span.start)?)?;
        from.steps.push(match span.len {
            0 | 1 => 0,
            _ => step.checked_mul(span.step)?,
        });
    }
    StridedCopy::new(width(dtype)?, &out, &from, &Lay::dense(&out))
}

/// The kernel for bounds that are known only when it runs.
fn late(n: &NodeRef, dtype: DType) -> Option<Candidate> {
    let (dims, out) = (n.dims(0)?, n.out_dims(0)?);
    let bytes = width(dtype)? * out.iter().product::<usize>();
    let run = move |io: &mut Io| {
        let list = |i: usize| {
            let view = io.inputs.get(i).copied().flatten();
            view.and_then(|v| integers(&v).ok())
        };
        let dims_of = |l: Option<Vec<i64>>| l.map(|l| l.into_iter().map(Dim::Known).collect());
        let steps = list(4).map(|s| s.into_iter().map(Some).collect());
        let cuts = cuts_of(dims.len(), [dims_of(list(1)), dims_of(list(2))], list(3), steps)?;
        let spans = spans(&dims, &cuts.unwrap_or_default());
        let fits = |s: &Vec<Span>| s.iter().map(|s| s.len).eq(out.iter().copied());
        let copy = spans.filter(fits).and_then(|s| copy(dtype, &dims, &s));
        let copy = copy.ok_or_else(|| OpError::new(format!("the slice does not have shape {out:?}")))?;
        let x = io.input(0).bytes();
        let pool = io.pool;
        copy.run(pool, x, io.output(0).bytes());
        Ok(())
    };
    let name = format!("slice.{}.late", short(dtype));
    Some(Candidate::new(name, Cost::bytes(2 * bytes), run))
}

/// The copy of blocks of channels: whole ones, or up to the last.
fn in_blocks(dtype: DType, dims: &[usize], spans: &[Span]) -> Option<StridedCopy> {
    let blocks = blocked::dims(dims).filter(|_| dtype == DType::F32)?;
    let start = usize::try_from(spans[1].start).ok()?;
    let (whole, last) = (
        spans[1].len.is_multiple_of(BLOCK),
        start + spans[1].len == dims[1],
    );
    if spans[1].step != 1 || !start.is_multiple_of(BLOCK) || !(whole || last) {
        return None;
    }
    let mut all: Vec<_> = spans.to_vec();
    all[1] = Span {
        start: (start / BLOCK) as isize,
        len: spans[1].len.div_ceil(BLOCK),
        step: 1,
    };
    all.push(Span {
        start: 0,
        len: BLOCK,
        step: 1,
    });
    copy(dtype, &blocks, &all)
}

/// How many elements before and behind the slice are left out along each axis, if it has all in between.
fn zeros_around(n: &NodeRef) -> Option<Vec<i64>> {
    let dims = n.dims(0)?;
    let mut pads = vec![0; 2 * dims.len()];
    for cut in cuts(n).ok()?? {
        let size = dims[cut.axis];
        let span = cut.span(size).filter(|s| s.step == 1)?;
        pads[cut.axis] = span.start as i64;
        pads[cut.axis + dims.len()] = (size - span.len) as i64 - span.start as i64;
    }
    Some(pads)
}

impl Op for Slice {
    fn name(&self) -> OpName {
        onnx("Slice")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 10, 11, 13]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, if n.opset() < 10 { 1 } else { 3 }, 5)?;
        let shape = match (n.shape(0), cuts(n)?) {
            (Some(of), Some(cuts)) => Some(taken(of, &cuts)),
            (Some(of), None) => Some(vec![Dim::Unknown; of.len()]),
            _ => None,
        };
        if let Some(s) = shape
            .as_ref()
            .filter(|s| s.iter().any(|d| d.known().is_some_and(|d| d < 0)))
        {
            return Err(OpError::new(format!("{} is not a shape", show(s))));
        }
        let data = n.data(0).filter(|_| n.rank(0) == Some(1)).and_then(|data| {
            let span = *spans(&[data.len()], &cuts(n).ok()??)?.first()?;
            let at = |i: usize| usize::try_from(span.start + i as isize * span.step).ok();
            (0..span.len).map(|i| data.get(at(i)?).cloned()).collect()
        });
        Ok(vec![with_data(Fact::tensor(n.dtype(0), shape), data)])
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        let cuts = cuts(n).ok()??;
        Some(tied(n.rank(0)?, |i| match cuts.iter().any(|c| c.axis == i) {
            true => vec![],
            false => vec![(0, i)],
        }))
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = given(x, 0)?;
        let cuts = knowing(n, x, cuts)?.unwrap_or_default();
        let spans =
            spans(data.dims(), &cuts).ok_or_else(|| OpError::new("starts, ends or steps are unknown"))?;
        let dims: Vec<_> = spans.iter().map(|s| s.len).collect();
        let y = rearranged(data, &dims, |at| {
            let along = |(&i, s): (&usize, &Span)| (s.start + i as isize * s.step) as usize;
            place(at.iter().zip(&spans).map(along), data.dims())
        })?;
        Ok(vec![y])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let (x0, dy) = (x[0]?, dy[0]?);
        let rest: Vec<_> = (1..x.len()).map(|i| at(x, i)).collect();
        let dx = match zeros_around(n) {
            Some(pads) => dy.op("Pad", &[ints(dy, &pads)]),
            None => put_back(n, x0, dy, |places| apply(places, "Slice", &rest, vec![], 1)[0]),
        };
        Some(vec![Some(dx)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let (Some(dtype), Some(dims)) = (n.dtype(0), n.dims(0)) else {
            return vec![];
        };
        let Ok(Some(cuts)) = cuts(n) else {
            return late(n, dtype).into_iter().collect();
        };
        match spans(&dims, &cuts) {
            Some(spans) => {
                let one = |copy| {
                    vec![Move {
                        input: 0,
                        output: 0,
                        copy,
                    }]
                };
                let mut all = candidates("slice", dtype, copy(dtype, &dims, &spans).map(one));
                let blocks = in_blocks(dtype, &dims, &spans).map(one);
                let blocks = candidates("slice.blocks", dtype, blocks).into_iter();
                all.extend(blocks.map(|c| c.blocked(&[0], true)));
                all
            }
            None => late(n, dtype).into_iter().collect(),
        }
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[5, 6, 7], 1);
        let i = |l: &[i64]| Tensor::of(&[l.len()], l.to_vec());
        vec![
            Case::new("leading axes", [x(), i(&[1, 2]), i(&[4, 5])]).konst(&[1, 2]),
            Case::new("named axes", [x(), i(&[-3, 0]), i(&[-1, 1000]), i(&[-1, 0])]).konst(&[1, 2, 3]),
            Case::new(
                "steps, one back",
                [x(), i(&[5, 0]), i(&[i64::MIN, i64::MAX]), i(&[1, 2]), i(&[-2, 3])],
            )
            .konst(&[1, 2, 3, 4]),
            Case::new("every second", [x(), i(&[1]), i(&[7]), i(&[2]), i(&[2])]).konst(&[1, 2, 3, 4]),
            Case::new("reversed", [x(), i(&[-1]), i(&[-100]), i(&[2]), i(&[-1])]).konst(&[1, 2, 3, 4]),
            Case::new("known late", [x(), i(&[1]), i(&[3]), i(&[1])]),
            Case::new("nothing", [x(), i(&[3]), i(&[3])]).konst(&[1, 2]),
            Case::new(
                "nothing of nothing",
                [case::floats(&[0, 3], 1), i(&[-1]), i(&[-9]), i(&[0]), i(&[-1])],
            )
            .konst(&[1, 2, 3, 4]),
            Case::new("integers", [i(&[7, 8, 9]), i(&[1]), i(&[2])]).konst(&[0, 1, 2]),
            Case::new("by attribute", [x()])
                .attr("starts", vec![1i64, -2])
                .attr("ends", vec![2i64, i64::MAX])
                .attr("axes", vec![0i64, 1])
                .opset(1),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(start: i64, end: i64, step: i64) -> Cut {
        Cut {
            axis: 0,
            start: Dim::Known(start),
            end: Dim::Known(end),
            step: Some(step),
        }
    }

    #[test]
    fn sizes_follow_symbols() {
        let n = Dim::symbol("n");
        assert_eq!(cut(0, i64::MAX, 1).len(&n), n);
        assert_eq!(cut(1, i64::MAX, 1).len(&n), n.clone() - n.lesser(&Dim::Known(1)));
        assert_eq!(cut(0, -1, 1).len(&n), n.clone() - Dim::Known(1));
        assert_eq!(cut(-1, i64::MIN, -1).len(&n), n);
        assert_eq!(cut(-2, i64::MAX, 1).len(&n), Dim::Known(2));
        assert_eq!(cut(3, 2, 1).len(&Dim::Known(10)), Dim::Known(0));
        assert_eq!(
            cut(i64::MAX, i64::MIN, i64::MIN).len(&Dim::Known(10)),
            Dim::Known(1)
        );
    }
}
