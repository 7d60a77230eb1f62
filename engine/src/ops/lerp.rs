//! `secateur.Lerp`: the convex combination of two tensors in one pass.

use super::binary::{broadcast_dims, candidate, stretch};
use super::case::{floats, tame_floats};
use super::{Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, private, shape};
use crate::cpu::elementwise::{any, zip3};
use crate::cpu::walk::Walk;
use crate::cpu::{Candidate, Io, Kernel};
use crate::expr::Ex;
use crate::ir::{DType, Tensor};

/// `λ a + (1 - λ) b`, element by element, of `λ`, `a` and `b`: on the segment between `a` and `b`, where `λ` is within
/// `[0, 1]`. ONNX has no such operator; exporters spell it out, and [rules](crate::opt::RULES) find it.
///
/// With the attribute `checked = 1`, a `λ` outside `[0, 1]` is an error.
pub struct Lerp;

fn checked(n: &NodeRef) -> Result<bool, OpError> {
    Ok(n.int_or("checked", 0)? != 0)
}

fn outside() -> OpError {
    OpError::new("the weight of a convex combination is not between 0 and 1")
}

/// Whether every weight is between 0 and 1.
pub(crate) fn is_share(t: &Tensor) -> bool {
    t.floats()
        .is_some_and(|x| x.iter().all(|x| (0.0..=1.0).contains(x)))
}

impl Op for Lerp {
    fn name(&self) -> OpName {
        private("Lerp")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        if let Some(i) = (0..3).find(|&i| !n.has(i)) {
            return Err(OpError::new(format!(
                "input {i} is left out; expected three inputs"
            )));
        }
        if let Some(d) = n.dtype(0).filter(|d| !d.is_float()) {
            return Err(OpError::new(format!("expected floats, found {d}")));
        }
        if checked(n)? && n.konst(0).is_some_and(|t| !is_share(t)) {
            return Err(outside());
        }
        shape::elementwise(n)
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0, 1, 2],
            elementwise: true,
            ..Laws::default()
        }
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let &[weight, a, b] = x else { return None };
        let formula = || vec![weight * a + (weight.constant(1.0) - weight) * b];
        (!checked(n).ok()?).then(formula)
    }

    fn arity(&self) -> usize {
        3
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let &[Some(weight), Some(a), Some(b)] = x else {
            return Err(OpError::new("expected three inputs"));
        };
        if checked(n)? && !is_share(weight) {
            return Err(outside());
        }
        let dims = broadcast_dims(&broadcast_dims(weight.dims(), a.dims())?, b.dims())?;
        let spread = |t: &Tensor| {
            let data = t.floats()?;
            Some(
                stretch(t.dims(), &dims)
                    .into_iter()
                    .map(|i| data[i])
                    .collect::<Vec<f64>>(),
            )
        };
        let y = || {
            let ((weight, a), b_) = (spread(weight).zip(spread(a))?, spread(b)?);
            let mix = |i: usize| weight[i] * a[i] + (1.0 - weight[i]) * b_[i];
            Tensor::rounded(b.dtype(), &dims, &(0..b_.len()).map(mix).collect::<Vec<f64>>())
        };
        Ok(vec![y().ok_or_else(|| OpError::new("expected floats"))?])
    }

    fn vjp<'a>(&self, _: &NodeRef, x: Exs<'_, 'a>, _: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let ([weight, a, b], dy) = ([x[0]?, x[1]?, x[2]?], dy[0]?);
        let da = dy * weight;
        Some(vec![Some(dy * (a - b)), Some(da), Some(dy - da)])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        kernel(n).into_iter().map(|k| candidate(n, "", k)).collect()
    }

    fn cases(&self) -> Vec<Case> {
        let share = |dims: &[usize], seed| {
            let x = floats(dims, seed).floats().unwrap_or_default();
            let x: Vec<f32> = x.iter().map(|x| (x / 4.0 + 0.5) as f32).collect();
            Tensor::of(dims, x)
        };
        let all = vec![
            Case::new(
                "plain",
                [share(&[37], 1), tame_floats(&[37], 2), floats(&[37], 3)],
            ),
            Case::new(
                "one weight",
                [share(&[], 1), floats(&[5, 7], 2), floats(&[5, 7], 3)],
            ),
            Case::new(
                "a weight a row",
                [share(&[5, 1], 1), floats(&[5, 7], 2), floats(&[5, 7], 3)],
            ),
            Case::new(
                "all broadcast",
                [share(&[4, 1], 1), floats(&[5], 2), floats(&[3, 1, 1], 3)],
            ),
            Case::new("outside", [floats(&[9], 1), floats(&[9], 2), floats(&[1], 3)]),
            Case::new("checked", [share(&[9], 1), floats(&[9], 2), floats(&[9], 3)]).attr("checked", 1i64),
            Case::new("nothing", [share(&[1], 1), floats(&[0, 3], 2), floats(&[3], 3)]),
        ];
        let mut all: Vec<_> = all.into_iter().map(|c| c.within(1e-6, 1e-6)).collect();
        let few = |dtype, x: f64| Tensor::rounded(dtype, &[3], &[x / 8.0, x / 4.0, x / 2.0]);
        for dtype in [DType::F64, DType::F16] {
            let three = few(dtype, 1.0).zip(few(dtype, 3.0)).zip(few(dtype, -7.0));
            all.extend(three.map(|((w, a), b)| Case::new("other types", [w, a, b]).within(1e-2, 1e-2)));
        }
        all
    }
}

fn kernel(n: &NodeRef) -> Option<Box<dyn Kernel>> {
    let (w, a, b) = (n.dims(0)?, n.dims(1)?, n.dims(2)?);
    let walk = Walk::new(&n.out_dims(0)?, [&w, &a, &b])?;
    let (mix, beyond): (_, fn(&Io) -> bool) = match n.dtype(0)? {
        DType::F32 => (zip3(walk, |w: f32, a: f32, b: f32| w * a + (1.0 - w) * b), |io| {
            any(io, 0, |w: f32| !(0.0..=1.0).contains(&w))
        }),
        DType::F64 => (zip3(walk, |w: f64, a: f64, b: f64| w * a + (1.0 - w) * b), |io| {
            any(io, 0, |w: f64| !(0.0..=1.0).contains(&w))
        }),
        _ => return None,
    };
    if !checked(n).ok()? {
        return Some(mix);
    }
    Some(Box::new(move |io: &mut Io| match beyond(io) {
        true => Err(outside()),
        false => mix.run(io),
    }))
}
