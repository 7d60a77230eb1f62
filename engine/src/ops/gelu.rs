//! ONNX Runtime's names of GELU and its relatives.

use super::formula::given;
use super::{Case, Fact, NodeRef, Op, OpError, OpName, case, microsoft, shape};
use crate::cpu::Act;
use crate::expr::Ex;
use crate::ir::{Attr, Dim};

/// `Gelu`: that of ONNX.
pub struct Gelu;

/// `BiasGelu`: of the sum with a bias.
pub struct BiasGelu;

/// `FastGelu`: the approximation by `tanh`, of the sum with a bias if there is one.
pub struct FastGelu;

/// `QuickGelu`: `x sigmoid(alpha x)`.
pub struct QuickGelu;

/// The default of `alpha`.
const ALPHA: f32 = 1.702;

/// The type of the first input, after checks of a bias as long as its last axis.
fn infer(n: &NodeRef, least: usize, most: usize) -> Result<Vec<Fact>, OpError> {
    shape::arity(n, least, most)?;
    shape::same_dtype(n)?;
    if let Some(d) = n.dtype(0).filter(|d| !d.is_float()) {
        return Err(OpError::new(format!("expected floats, found {d}")));
    }
    let bias = shape::ranked(n, 1, 1)?;
    if let (Some(x), Some(b)) = (n.shape(0), bias)
        && let (Some(Dim::Known(x)), Dim::Known(b)) = (x.last(), &b[0])
        && x != b
    {
        return Err(OpError::new(format!("a bias of {b} for rows of {x}")));
    }
    shape::like_first(n)
}

fn gelu<'a>(x: Ex<'a>, approximate: &str) -> Vec<Ex<'a>> {
    vec![x.with("Gelu", &[], vec![Attr::new("approximate", approximate)])]
}

/// Whether there is a node, not only a pattern to be written.
fn there(n: &NodeRef) -> Option<()> {
    n.has(0).then_some(())
}

fn cases(name: &'static str, bias: bool) -> Vec<Case> {
    let mut inputs = vec![case::floats(&[3, 37], 1)];
    inputs.extend(bias.then(|| case::floats(&[37], 2)));
    vec![Case::new(name, inputs).within(1e-6, 1e-6)]
}

impl Op for Gelu {
    fn name(&self) -> OpName {
        microsoft("Gelu")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n, 1, 1)
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        there(n)?;
        Some(gelu(x[0], "none"))
    }

    fn activation(&self, _: &NodeRef) -> Option<Act> {
        Some(Act::Gelu)
    }

    fn cases(&self) -> Vec<Case> {
        cases("plain", false)
    }
}

impl Op for BiasGelu {
    fn name(&self) -> OpName {
        microsoft("BiasGelu")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n, 2, 2)
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        there(n)?;
        Some(gelu(x[0] + *x.get(1)?, "none"))
    }

    fn cases(&self) -> Vec<Case> {
        cases("a bias", true)
    }
}

impl Op for FastGelu {
    fn name(&self) -> OpName {
        microsoft("FastGelu")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        infer(n, 1, 2)
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        there(n)?;
        Some(gelu(given(n, x, 1).map_or(x[0], |b| x[0] + b), "tanh"))
    }

    fn activation(&self, n: &NodeRef) -> Option<Act> {
        (!n.has(1)).then_some(Act::GeluTanh)
    }

    fn cases(&self) -> Vec<Case> {
        [cases("plain", false), cases("a bias", true)].concat()
    }
}

impl Op for QuickGelu {
    fn name(&self) -> OpName {
        microsoft("QuickGelu")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        n.float("alpha")?;
        infer(n, 1, 1)
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        there(n)?;
        let alpha = n.float_or("alpha", ALPHA).ok()?;
        Some(vec![x[0].with("Swish", &[], vec![Attr::new("alpha", alpha)])])
    }

    fn activation(&self, n: &NodeRef) -> Option<Act> {
        Some(Act::Silu {
            alpha: n.float_or("alpha", ALPHA).ok()?,
        })
    }

    fn cases(&self) -> Vec<Case> {
        let given = Case::new("alpha", [case::floats(&[3, 37], 1)]).attr("alpha", 0.7f32);
        [cases("plain", false), vec![given.within(1e-6, 1e-6)]].concat()
    }
}
