//! What operators that change each element for itself have in common.

use super::binary::{candidate, follow};
use super::case::{floats, odd_floats, tame_floats};
use super::{Case, Exs, Fact, Grads, Laws, NodeRef, Op, OpError, OpName, onnx, shape};
use crate::cpu::act::ActFn;
use crate::cpu::number::Numbers;
use crate::cpu::{Act, Candidate, Kernel, blocks, elementwise};
use crate::expr::Ex;
use crate::ir::{DType, Dim, Tensor, count};

/// A function of one number, with its attributes. As an [`ActFn`] it is computed for `f32`.
pub trait Function: ActFn + 'static {
    /// The operator's name.
    const NAME: &'static str;
    /// The opsets at which its meaning changed.
    const SINCE: &'static [u16];
    /// What it is of integers, of whose result the low bits are kept; `None` if it takes none.
    const INTS: Option<fn(i128) -> i128> = None;
    /// What it is of elements of shape computations.
    const DIMS: Option<fn(&Dim) -> Dim> = None;
    /// The greatest absolute and relative difference of the vector form from the exact one.
    const WITHIN: (f64, f64);
    /// Whether its body can take the largest floats.
    const EXTREMES: bool = true;
    /// Whether it is a staircase, whose gradient is 0 wherever it has one.
    const FLAT: bool = false;

    /// The function that a node means.
    ///
    /// # Errors
    ///
    /// If an attribute is of the wrong kind.
    fn read(n: &NodeRef) -> Result<Self, OpError>;

    /// Its exact value.
    fn exact(self, x: f64) -> f64;

    /// The operator in terms of simpler ones; `None` for a primitive.
    fn body<'a>(_n: &NodeRef, _x: Ex<'a>) -> Option<Ex<'a>> {
        None
    }

    /// The gradient of `x`, of which `y` is made, whose own is `dy`; `None` where the body has one.
    fn vjp<'a>(self, _x: Ex<'a>, _y: Ex<'a>, _dy: Ex<'a>) -> Option<Ex<'a>> {
        None
    }

    /// Cases for its attributes, to which those for element types and odd values are added.
    fn cases() -> Vec<Case> {
        vec![]
    }
}

/// The operator of some function; `Pointwise<F>` holds no `F`, it only names it.
pub struct Pointwise<F>(std::marker::PhantomData<F>);

impl<F> Pointwise<F> {
    /// The operator.
    pub const fn new() -> Pointwise<F> {
        Pointwise(std::marker::PhantomData)
    }
}

impl<F> Default for Pointwise<F> {
    fn default() -> Pointwise<F> {
        Pointwise::new()
    }
}

impl<F: Function> Op for Pointwise<F> {
    fn name(&self) -> OpName {
        onnx(F::NAME)
    }

    fn since(&self) -> &'static [u16] {
        F::SINCE
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        n.ignore(&["consumed_inputs"]);
        F::read(n)?;
        let fits = |d: DType| d.is_float() || (F::INTS.is_some() && d.is_int());
        match n.dtype(0) {
            Some(d) if !fits(d) => Err(OpError::new(format!("there is no {} of {d}", F::NAME))),
            _ => {
                let fact = shape::like_first(n)?.swap_remove(0);
                Ok(vec![match F::DIMS {
                    Some(dim) => follow(n, fact, |x| dim(x[0])),
                    None => fact,
                }])
            }
        }
    }

    fn laws(&self) -> Laws {
        Laws {
            in_place: &[0],
            elementwise: true,
            ..Laws::default()
        }
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        Some(vec![F::body(n, *x.first()?)?])
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let f = F::read(n)?;
        let x = x.first().copied().flatten();
        let x = x.ok_or_else(|| OpError::new("expected an input"))?;
        let y = match (Numbers::of(x), F::INTS) {
            (Some(Numbers::Real(v)), _) => Numbers::Real(v.into_iter().map(|x| f.exact(x)).collect()),
            (Some(Numbers::Int(v)), Some(ints)) => Numbers::Int(v.into_iter().map(ints).collect()),
            _ => return Err(OpError::new(format!("there is no {} of {}", F::NAME, x.dtype()))),
        };
        let y = y.tensor(x.dtype(), x.dims());
        Ok(vec![y.ok_or_else(|| {
            OpError::new(format!("there is no {} of {}", F::NAME, x.dtype()))
        })?])
    }

    fn vjp<'a>(&self, n: &NodeRef, x: Exs<'_, 'a>, y: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
        match F::FLAT {
            true => Some(vec![None]),
            false => Some(vec![Some(F::read(n).ok()?.vjp(x[0]?, y[0]?, dy[0]?)?)]),
        }
    }

    fn activation(&self, n: &NodeRef) -> Option<Act> {
        F::read(n).ok()?.act()
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let kernel = F::read(n).ok().and_then(|f| kernel(f, n));
        kernel.into_iter().map(|k| candidate(n, "", k)).collect()
    }

    fn cases(&self) -> Vec<Case> {
        let mut all = cases::<F>();
        all.retain(|c| F::SINCE[0] <= 20 || i64::from(F::SINCE[0]) <= c.opset);
        all
    }
}

fn kernel<F: Function>(f: F, n: &NodeRef) -> Option<Box<dyn Kernel>> {
    let (len, dtype) = (count(&n.dims(0)?)?, n.dtype(0)?);
    Some(match (dtype, F::INTS) {
        (DType::F32, _) => elementwise::map(len, f),
        (DType::F64, _) => elementwise::each(len, move |x: f64| f.exact(x)),
        (other, ints) => match (blocks::floats(other), blocks::ints(other).zip(ints)) {
            (Some(b), _) => blocks::map(len, b, f),
            (None, Some((b, ints))) => blocks::each(len, b, ints),
            (None, None) => return None,
        },
    })
}

fn cases<F: Function>() -> Vec<Case> {
    let (atol, rtol) = F::WITHIN;
    let few = |dtype| Tensor::rounded(dtype, &[5], &[0.0, 1.0, 3.0, -2.0, -0.25]);
    let mut all = F::cases();
    all.extend([
        Case::new(
            "odd values",
            [if F::EXTREMES {
                odd_floats(&[5, 15], 1)
            } else {
                tame_floats(&[5, 15], 1)
            }],
        ),
        Case::new("scalar", [floats(&[], 1)]),
        Case::new("nothing", [floats(&[0, 3], 1)]),
    ]);
    all.extend(few(DType::F64).map(|x| Case::new("double", [x])));
    let mut all: Vec<_> = all.into_iter().map(|c| c.within(atol, rtol)).collect();
    let halves = [few(DType::F16), few(DType::BF16)].into_iter().flatten();
    all.extend(halves.map(|x| Case::new("half", [x]).within(0.02, 0.02)));
    if F::INTS.is_some() {
        let ints = [few(DType::I64), few(DType::I8)].into_iter().flatten();
        all.extend(ints.map(|x| Case::new("integers", [x])));
        all.push(Case::new("low", [Tensor::of(&[2], vec![i32::MIN, i32::MAX])]));
    }
    all
}
