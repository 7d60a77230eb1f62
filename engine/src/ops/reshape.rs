//! The same elements in another shape.

use super::grad::shaped;
use super::pick::{given, knowing, sized};
use super::shape::{arity, product, show, spelt, with_data};
use super::{Axes, Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, case, onnx};
use crate::ir::{Dim, Shape, Tensor};

/// ONNX `Reshape`.
pub struct Reshape;

/// The laws of an operator that leaves the elements where they are.
pub(super) const VIEW: Laws = Laws {
    blocks: false,
    any: false,
    impure: false,
    commutes: false,
    associates: false,
    view: true,
    still: false,
    elementwise: false,
    in_place: &[],
};

/// What the node asks for: sizes, 0 for that of the input, -1 for what is left; `None` where not even the rank is known.
fn asked(n: &NodeRef) -> Result<Option<Shape>, OpError> {
    n.ignore(&["consumed_inputs"]);
    if n.opset() >= 5 {
        arity(n, 2, 2)?;
        return spelt(n, 1);
    }
    let ints = n.ints("shape")?.unwrap_or(&[]);
    Ok(Some(ints.iter().copied().map(Dim::Known).collect()))
}

/// The shape that `of` takes where `asked` for. Sizes of the input that are taken over cancel, known or not.
fn resolve(of: Option<&Shape>, asked: &[Dim], keep_zero: bool) -> Result<Shape, OpError> {
    let mut left: Vec<Option<Dim>> = match of {
        Some(s) => s.iter().cloned().map(Some).collect(),
        None => vec![Some(Dim::Unknown)],
    };
    let mut free = vec![];
    let mut shape = vec![];
    let mut rest = vec![];
    for (i, d) in asked.iter().enumerate() {
        match d {
            Dim::Known(0) if !keep_zero => {
                let size = of.map_or(Ok(Dim::Unknown), |s| {
                    s.get(i).cloned().ok_or_else(|| {
                        OpError::new(format!(
                            "shape {} takes over axis {i} of {}",
                            show(asked),
                            show(s)
                        ))
                    })
                })?;
                match of {
                    Some(_) => left[i] = None,
                    None => rest.push(size.clone()),
                }
                shape.push(size);
            }
            Dim::Known(-1) => {
                free.push(i);
                shape.push(Dim::Unknown);
            }
            Dim::Known(n) if *n < 0 => {
                return Err(OpError::new(format!("size {n} in shape {}", show(asked))));
            }
            d => {
                shape.push(d.clone());
                rest.push(d.clone());
            }
        }
    }
    if free.len() > 1 {
        return Err(OpError::new(format!("-1 stands twice in shape {}", show(asked))));
    }
    if keep_zero && free.len() == 1 && asked.contains(&Dim::Known(0)) {
        return Err(OpError::new(format!(
            "0 and -1 both stand in shape {}",
            show(asked)
        )));
    }
    let hidden: Vec<_> = (0..asked.len()).filter(|&i| asked[i] == Dim::Unknown).collect();
    if let (&[], &[i]) = (&free[..], &hidden[..]) {
        rest.retain(|d| *d != Dim::Unknown);
        if of.is_some_and(|s| s.contains(&Dim::Known(0))) || rest.contains(&Dim::Known(0)) {
            return Ok(shape);
        }
        free.push(i);
    }
    cancel(&mut left, &mut rest);
    let total = product(&left.into_iter().flatten().collect::<Vec<_>>());
    let taken = product(&rest);
    let misfit = || {
        let of = of.map_or("[..]".into(), |s| show(s));
        OpError::new(format!("shape {of} cannot become {}", show(asked)))
    };
    match (free.first(), total.known(), taken.known()) {
        (None, Some(a), Some(b)) if a != b => return Err(misfit()),
        // Sizes that are numbers and whose product is none are more than any input has.
        (None, Some(_), None) if rest.iter().all(|d| d.known().is_some()) => return Err(misfit()),
        (None, ..) => {}
        (Some(_), Some(a), Some(b)) if a.checked_rem(b) != Some(0) => return Err(misfit()),
        (Some(&i), ..) => shape[i] = total.floor_div(&taken),
    }
    Ok(shape)
}

/// Removes from both what stands in both.
fn cancel(left: &mut [Option<Dim>], right: &mut Vec<Dim>) {
    for l in left {
        let same = right
            .iter()
            .position(|r| l.as_ref().is_some_and(|l| l.same(r) && *r != Dim::Known(0)));
        if let Some(i) = same {
            right.remove(i);
            *l = None;
        }
    }
}

impl Op for Reshape {
    fn name(&self) -> OpName {
        onnx("Reshape")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 5, 13, 14, 19, 21, 23, 24, 25]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 2)?;
        let keep_zero = n.opset() >= 14 && n.int_or("allowzero", 0)? != 0;
        let shape = match asked(n)? {
            Some(asked) => Some(resolve(n.shape(0), &asked, keep_zero)?),
            None => None,
        };
        Ok(vec![with_data(Fact::tensor(n.dtype(0), shape), n.data(0))])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn laws(&self) -> Laws {
        VIEW
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        reshaped(self, n, x)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        Some(vec![Some(shaped(n, 0, x[0]?, dy[0]?))])
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[2, 3, 4], 1);
        let to = |s: &[i64]| Tensor::of(&[s.len()], s.to_vec());
        vec![
            Case::new("sizes", [x(), to(&[4, 6])]),
            Case::new("a size taken over, one left", [x(), to(&[0, -1])]).konst(&[1]),
            Case::new("to a scalar", [case::floats(&[1, 1], 1), to(&[])]).konst(&[1]),
            Case::new("zeros that stay", [case::floats(&[0, 10], 1), to(&[7, 0])])
                .attr("allowzero", 1i64)
                .konst(&[1]),
            Case::new(
                "an empty axis taken over",
                [case::floats(&[0, 10], 1), to(&[0, 5, -1])],
            )
            .opset(13),
            Case::new("by attribute", [Tensor::bools(&[3], [true, false, true])])
                .attr("shape", vec![-1i64, 1])
                .attr("consumed_inputs", vec![0i64])
                .opset(1),
        ]
    }
}

/// Input 0 in the shape that inference finds.
pub(super) fn reshaped(op: &dyn Op, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let dims = knowing(n, x, |n| sized(op, n, 0))?;
    let y = given(x, 0)?.reshaped(&dims);
    Ok(vec![y.ok_or_else(|| {
        OpError::new(format!("no such shape: {dims:?}"))
    })?])
}

/// ONNX `Flatten`: the axes before `axis` as one, and the others as one.
pub struct Flatten;

impl Op for Flatten {
    fn name(&self) -> OpName {
        onnx("Flatten")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 9, 11, 13, 21, 23, 24, 25]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        let axis = n.int_or("axis", 1)?;
        let shape = match n.shape(0) {
            Some(s) => {
                let at = match usize::try_from(axis) {
                    Ok(a) if a == s.len() => a,
                    _ => NodeRef::axis(axis, s.len())?,
                };
                vec![product(&s[..at]), product(&s[at..])]
            }
            None => vec![Dim::Unknown; 2],
        };
        Ok(vec![with_data(Fact::tensor(n.dtype(0), Some(shape)), n.data(0))])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn laws(&self) -> Laws {
        VIEW
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        reshaped(self, n, x)
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        Some(vec![Some(shaped(n, 0, x[0]?, dy[0]?))])
    }

    fn cases(&self) -> Vec<Case> {
        let x = || case::floats(&[2, 3, 4, 5], 1);
        vec![
            Case::new("by default", [x()]),
            Case::new("all in columns", [x()]).attr("axis", 0i64),
            Case::new("all in rows", [x()]).attr("axis", 4i64),
            Case::new("from the end", [x()]).attr("axis", -1i64),
            Case::new("empty", [case::floats(&[3, 0], 1)]),
            Case::new("a scalar", [case::floats(&[], 1)]).attr("axis", 0i64),
        ]
    }
}
