//! `Max`, `Min`, `Sum` and `Mean` of any number of tensors.

use num_traits::Float;

use super::arith::{Add, Arith, kernel};
use super::binary::{broadcast_dims, candidate, follow, stretch};
use super::case::{floats, odd_floats};
use super::grad::unless;
use super::{Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, onnx, shape};
use crate::cpu::chain::Chain;
use crate::cpu::number::Numbers;
use crate::cpu::walk::Walk;
use crate::cpu::{Candidate, Kernel, blocks, elementwise};
use crate::expr::Ex;
use crate::ir::{DType, Dim, Tensor, count};

/// How an operator folds its inputs.
pub trait Fold: Copy + Send + Sync + 'static {
    /// The operator's name.
    const NAME: &'static str;
    /// The opsets at which its meaning changed.
    const SINCE: &'static [u16];
    /// Whether the result is divided by the number of inputs.
    const MEAN: bool;
    /// The function of two.
    type Step: Arith;
    /// The operator that says that an element loses against the result; `None` where all have their part in it.
    const LOSES: Option<&'static str> = None;
}

/// The operator of some fold.
pub struct Variadic<F>(pub F);

/// The greatest element at each place; NaN where one of them is.
#[derive(Clone, Copy)]
pub struct Max;
impl Fold for Max {
    const NAME: &'static str = "Max";
    const SINCE: &'static [u16] = &[1, 6, 8, 12, 13];
    const MEAN: bool = false;
    const LOSES: Option<&'static str> = Some("Less");
    type Step = Max;
}
impl Arith for Max {
    const NAME: &'static str = "Max";
    const COMMUTES: bool = true;
    #[inline(always)]
    fn real<F: Float>(a: F, b: F) -> F {
        if a > b || a.is_nan() { a } else { b }
    }
    #[inline(always)]
    fn int(a: i128, b: i128) -> i128 {
        a.max(b)
    }
    fn dim(a: &Dim, b: &Dim) -> Dim {
        a.greater(b)
    }
}

/// The least element at each place; NaN where one of them is.
#[derive(Clone, Copy)]
pub struct Min;
impl Fold for Min {
    const NAME: &'static str = "Min";
    const SINCE: &'static [u16] = &[1, 6, 8, 12, 13];
    const MEAN: bool = false;
    const LOSES: Option<&'static str> = Some("Greater");
    type Step = Min;
}
impl Arith for Min {
    const NAME: &'static str = "Min";
    const COMMUTES: bool = true;
    #[inline(always)]
    fn real<F: Float>(a: F, b: F) -> F {
        if a < b || a.is_nan() { a } else { b }
    }
    #[inline(always)]
    fn int(a: i128, b: i128) -> i128 {
        a.min(b)
    }
    fn dim(a: &Dim, b: &Dim) -> Dim {
        a.lesser(b)
    }
}

/// The sum of the elements at each place.
#[derive(Clone, Copy)]
pub struct Sum;
impl Fold for Sum {
    const NAME: &'static str = "Sum";
    const SINCE: &'static [u16] = &[1, 6, 8, 13];
    const MEAN: bool = false;
    type Step = Add;
}

/// The mean of the elements at each place.
#[derive(Clone, Copy)]
pub struct Mean;
impl Fold for Mean {
    const NAME: &'static str = "Mean";
    const SINCE: &'static [u16] = &[1, 6, 8, 13];
    const MEAN: bool = true;
    type Step = Add;
}

impl<F: Fold> Op for Variadic<F> {
    fn name(&self) -> OpName {
        onnx(F::NAME)
    }

    fn since(&self) -> &'static [u16] {
        F::SINCE
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        n.ignore(&["consumed_inputs"]);
        if n.arity() == 0 || !(0..n.arity()).all(|i| n.has(i)) {
            return Err(OpError::new("expected one or more inputs, none of them left out"));
        }
        let fact = shape::elementwise(n)?.swap_remove(0);
        if F::MEAN {
            return Ok(vec![fact]);
        }
        let fold = |x: &[&Dim]| {
            let rest = x[1..].iter();
            rest.fold(x[0].clone(), |a, b| F::Step::dim(&a, b))
        };
        Ok(vec![follow(n, fact, fold)])
    }

    fn laws(&self) -> Laws {
        Laws {
            commutes: true,
            associates: !F::MEAN,
            in_place: &[0, 1],
            elementwise: true,
            ..Laws::default()
        }
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let all: Option<Vec<_>> = x.iter().copied().collect();
        let all = all.filter(|x| !x.is_empty());
        let x = all.ok_or_else(|| OpError::new("expected one or more inputs, none of them left out"))?;
        fold::<F>(&x)
    }

    fn vjp<'a>(&self, _: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        let dy = dy[0]?;
        match F::LOSES {
            _ if x.len() == 1 => Some(vec![Some(dy)]),
            Some(loses) => shares(x, y[0]?, dy, loses),
            None if F::MEAN => Some(vec![Some(dy / x.len() as f64); x.len()]),
            None => Some(vec![Some(dy); x.len()]),
        }
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let kernel = chain::<F>(n).into_iter();
        kernel.map(|k| candidate(n, "", Box::new(k))).collect()
    }

    fn cases(&self) -> Vec<Case> {
        cases()
    }
}

/// Each of `x` that does not lose against `y` has an equal share of `dy`.
fn shares<'a>(x: Exs<'_, 'a>, y: Ex<'a>, dy: Ex<'a>, loses: &str) -> Grads<'a> {
    let all: Vec<_> = x.iter().copied().collect::<Option<_>>()?;
    let lost: Vec<_> = all.iter().map(|x| x.op(loses, &[y])).collect();
    let ones = lost.iter().map(|l| unless(*l, dy.constant(1.0)));
    let share = dy / ones.reduce(|a, b| a + b)?;
    Some(lost.into_iter().map(|l| Some(unless(l, share))).collect())
}

fn fold<F: Fold>(x: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
    let dtype = x[0].dtype();
    let out = x
        .iter()
        .try_fold(vec![], |out, x| broadcast_dims(&out, x.dims()))?;
    let wrong = || {
        OpError::new(format!(
            "expected tensors of one numeric type, the first is of {dtype}"
        ))
    };
    let stretched = |x: &Tensor| {
        let at = stretch(x.dims(), &out).into_iter();
        Some(match Numbers::of(x)? {
            Numbers::Real(v) => Numbers::Real(at.map(|i| v[i]).collect()),
            Numbers::Int(v) => Numbers::Int(at.map(|i| v[i]).collect()),
        })
    };
    let mut sum = stretched(x[0]).ok_or_else(wrong)?;
    for x in &x[1..] {
        match (&mut sum, stretched(x)) {
            (Numbers::Real(a), Some(Numbers::Real(b))) => {
                a.iter_mut().zip(b).for_each(|(a, b)| *a = F::Step::real(*a, b));
            }
            (Numbers::Int(a), Some(Numbers::Int(b))) => {
                a.iter_mut().zip(b).for_each(|(a, b)| *a = F::Step::int(*a, b));
            }
            _ => return Err(wrong()),
        }
    }
    match &mut sum {
        Numbers::Real(a) if F::MEAN => a.iter_mut().for_each(|a| *a /= x.len() as f64),
        _ => {}
    }
    Ok(vec![sum.tensor(dtype, &out).ok_or_else(wrong)?])
}

fn chain<F: Fold>(n: &NodeRef) -> Option<Chain> {
    let (out, dtype) = (n.out_dims(0)?, n.dtype(0)?);
    let dims: Vec<_> = (0..n.arity()).map(|i| n.dims(i)).collect::<Option<_>>()?;
    let mut steps = vec![];
    for (i, x) in dims.iter().enumerate().skip(1) {
        let so_far = if i == 1 { &dims[0] } else { &out };
        steps.push(kernel::<F::Step>(Walk::new(&out, [so_far, x])?, dtype)?);
    }
    let finish = F::MEAN || steps.is_empty();
    let divisor = if F::MEAN { dims.len() as f32 } else { 1.0 };
    let last = match finish {
        true => Some(divide(count(&out)?, dtype, divisor)?),
        false => None,
    };
    Some(Chain { steps, last })
}

fn divide(len: usize, dtype: DType, by: f32) -> Option<Box<dyn Kernel>> {
    Some(match dtype {
        DType::F32 => elementwise::each(len, move |x: f32| x / by),
        DType::F64 => elementwise::each(len, move |x: f64| x / f64::from(by)),
        other => match (blocks::floats(other), blocks::ints(other)) {
            (Some(b), _) => blocks::each(len, b, move |x| x / by),
            (None, Some(b)) => blocks::each(len, b, |x| x),
            (None, None) => return None,
        },
    })
}

fn cases() -> Vec<Case> {
    let half = |seed| Tensor::rounded(DType::F16, &[9], &floats(&[9], seed).floats().unwrap_or_default());
    let mut all = vec![
        Case::new("one", [floats(&[37], 1)]),
        Case::new("odd values", [odd_floats(&[5, 5], 1), odd_floats(&[5, 1], 2)]),
        Case::new(
            "three",
            [floats(&[5, 1], 1), floats(&[7], 2), floats(&[2, 1, 7], 3)],
        )
        .within(1e-6, 1e-6),
        Case::new("four", [1, 2, 3, 4].map(|i| floats(&[33], i)))
            .opset(6)
            .within(1e-6, 1e-6),
        Case::new("nothing", [floats(&[0, 3], 1), floats(&[3], 2)]),
        Case::new(
            "double",
            [
                Tensor::of(&[2], vec![1.0f64, 2.5]),
                Tensor::of(&[1], vec![2.0f64]),
            ],
        ),
    ];
    let halves: Option<Vec<_>> = (1..4).map(half).collect();
    all.extend(halves.map(|x| Case::new("half", x).within(3e-3, 2e-3)));
    all
}
