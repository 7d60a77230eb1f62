//! Steps of optimisers: the domain `ai.onnx.preview.training`.
//!
//! Each takes the rate, the number of steps done, and then tensors in groups: all that are optimised, all gradients, and
//! the state of each kind.

use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Tensor};

const fn training(name: &'static str) -> OpName {
    OpName {
        domain: "ai.onnx.preview.training",
        name,
    }
}

/// ONNX `Adagrad`: steps divided by the root of the sum of the squares of all gradients so far.
pub struct Adagrad;

/// ONNX `Adam`: steps along a running mean of the gradients, divided by the root of that of their squares.
pub struct Adam;

/// ONNX `Momentum`: steps along a decaying sum of the gradients, perhaps Nesterov's.
pub struct Momentum;

/// The number of tensors that are optimised, of `kinds` inputs each.
fn tensors(n: &NodeRef, kinds: usize) -> Result<usize, OpError> {
    match n.arity().checked_sub(2) {
        Some(rest) if rest > 0 && rest % kinds == 0 => Ok(rest / kinds),
        _ => Err(OpError::new(format!(
            "{} inputs; expected two and {kinds} for each tensor",
            n.arity()
        ))),
    }
}

/// New tensors and states are like the old.
fn infer(n: &NodeRef, kinds: usize) -> Result<Vec<Fact>, OpError> {
    let count = tensors(n, kinds)?;
    if let Some(i) = (0..n.arity()).find(|&i| !n.has(i)) {
        return Err(OpError::new(format!("input {i} is missing")));
    }
    let old = (2..2 + count).chain(2 + 2 * count..n.arity());
    let like = |i| {
        n.input(i)
            .map_or_else(Fact::unknown, |x| x.fact.ty.clone().into())
    };
    Ok(old.map(like).collect())
}

/// A node's attributes, inputs and what follows from them for a tensor.
struct Step<'n, 'a> {
    n: &'n NodeRef<'n>,
    x: &'n [Ex<'a>],
    count: usize,
}

impl<'a> Step<'_, 'a> {
    /// Input `kind` of tensor `i`.
    fn of(&self, kind: usize, i: usize) -> Ex<'a> {
        self.x[2 + kind * self.count + i]
    }

    /// The rate and the number of steps, in the element type of tensor `i`.
    fn told(&self, i: usize) -> Option<[Ex<'a>; 2]> {
        let dtype = self.n.dtype(2 + i)?;
        let cast = |x: Ex<'a>| x.with("Cast", &[], vec![Attr::new("to", i64::from(dtype.code()))]);
        Some([cast(self.x[0]), cast(self.x[1])])
    }

    fn real(&self, name: &str, default: f32) -> Option<f64> {
        self.n.float_or(name, default).ok().map(f64::from)
    }

    /// The gradient of tensor `i` with that of the penalty for its size.
    fn gradient(&self, i: usize) -> Option<Ex<'a>> {
        let norm = self.real("norm_coefficient", 0.0)?;
        Some(match norm {
            0.0 => self.of(1, i),
            norm => self.of(0, i) * norm + self.of(1, i),
        })
    }
}

/// The outputs in their order: all new tensors, then all new states of each kind.
fn ordered<'a>(each: Vec<Vec<Ex<'a>>>) -> Vec<Ex<'a>> {
    let kinds = each.first().map_or(0, Vec::len);
    (0..kinds).flat_map(|k| each.iter().map(move |e| e[k])).collect()
}

fn body<'a>(
    n: &NodeRef,
    x: &[Ex<'a>],
    kinds: usize,
    one: impl Fn(&Step<'_, 'a>, usize) -> Option<Vec<Ex<'a>>>,
) -> Option<Vec<Ex<'a>>> {
    let count = tensors(n, kinds).ok()?;
    let step = Step { n, x, count };
    let each = (0..count).map(|i| one(&step, i)).collect::<Option<Vec<_>>>()?;
    Some(ordered(each))
}

/// The inputs of a step on a tensor or two, of `kinds` inputs each, after `done` steps.
fn inputs(count: usize, kinds: usize, done: i64, dtype: DType) -> Option<Vec<Tensor>> {
    let mut all = vec![Tensor::rounded(dtype, &[], &[0.1])?, Tensor::scalar(done)];
    for kind in 0..kinds {
        for i in 0..count {
            let some = case::floats(&[2, 3 + i], (kind * 7 + i) as u64 + 1).floats()?;
            // What is squared in the end has no sign.
            let some: Vec<f64> = if kind < 2 {
                some
            } else {
                some.iter().map(|x| x.abs()).collect()
            };
            all.push(Tensor::rounded(dtype, &[2, 3 + i], &some)?);
        }
    }
    Some(all)
}

fn cases(kinds: usize, more: &dyn Fn(Case) -> Case) -> Vec<Case> {
    let one = |name, count, done, dtype| {
        let case = Case::new(name, inputs(count, kinds, done, dtype)?);
        Some(case.opset(1).outputs(count * (kinds - 1)).within(1e-6, 1e-6))
    };
    let all = [
        one("the first step", 1, 0, DType::F32),
        one("two tensors", 2, 3, DType::F32).map(more),
        one("doubles", 1, 3, DType::F64).map(more),
    ];
    all.into_iter().flatten().collect()
}

fn none(_: &NodeRef) -> Option<Axes> {
    None
}

impl Op for Adagrad {
    fn name(&self) -> OpName {
        training("Adagrad")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        for name in ["norm_coefficient", "decay_factor", "epsilon"] {
            n.float(name)?;
        }
        infer(n, 3)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        none(n)
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        body(n, x, 3, |s, i| {
            let ([rate, done], g) = (s.told(i)?, s.gradient(i)?);
            let rate = rate / (done * s.real("decay_factor", 0.0)? + 1.0);
            let squares = s.of(2, i) + g * g;
            let root = squares.op("Sqrt", &[]) + s.real("epsilon", 1e-6)?;
            Some(vec![s.of(0, i) - rate * g / root, squares])
        })
    }

    fn cases(&self) -> Vec<Case> {
        cases(3, &|c| {
            c.attr("norm_coefficient", 0.01f32)
                .attr("decay_factor", 0.1f32)
                .attr("epsilon", 1e-3f32)
        })
    }
}

impl Op for Adam {
    fn name(&self) -> OpName {
        training("Adam")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        for name in [
            "norm_coefficient",
            "norm_coefficient_post",
            "epsilon",
            "alpha",
            "beta",
        ] {
            n.float(name)?;
        }
        infer(n, 4)
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        none(n)
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        body(n, x, 4, |s, i| {
            let ([rate, done], g) = (s.told(i)?, s.gradient(i)?);
            let (alpha, beta) = (s.real("alpha", 0.9)?, s.real("beta", 0.999)?);
            let mean = s.of(2, i) * alpha + g * (1.0 - alpha);
            let squares = s.of(3, i) * beta + g * g * (1.0 - beta);
            let root = squares.op("Sqrt", &[]) + s.real("epsilon", 1e-6)?;
            // What the means still lack for having begun at 0.
            let left = |c: f64| done.constant(1.0) - done.constant(c).op("Pow", &[done]);
            let adjusted = rate * left(beta).op("Sqrt", &[]) / left(alpha);
            let begun = done.op("Greater", &[done.constant(0.0)]);
            let rate = begun.op("Where", &[adjusted, rate]);
            let new = s.of(0, i) - rate * mean / root;
            let new = match s.real("norm_coefficient_post", 0.0)? {
                0.0 => new,
                norm => new * (1.0 - norm),
            };
            Some(vec![new, mean, squares])
        })
    }

    fn cases(&self) -> Vec<Case> {
        cases(4, &|c| {
            c.attr("norm_coefficient", 0.01f32)
                .attr("norm_coefficient_post", 0.02f32)
                .attr("alpha", 0.95f32)
                .attr("beta", 0.1f32)
                .attr("epsilon", 1e-3f32)
        })
    }
}

impl Op for Momentum {
    fn name(&self) -> OpName {
        training("Momentum")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        for name in ["norm_coefficient", "alpha", "beta"] {
            n.float(name)?;
        }
        match n.str_or("mode", "standard")? {
            "standard" | "nesterov" => infer(n, 3),
            other => Err(OpError::new(format!(
                "mode {other:?}; expected standard or nesterov"
            ))),
        }
    }

    fn axes(&self, n: &NodeRef) -> Option<Axes> {
        none(n)
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        let nesterov = n.str_or("mode", "standard").ok()? == "nesterov";
        body(n, x, 3, |s, i| {
            let ([rate, done], g) = (s.told(i)?, s.gradient(i)?);
            let (alpha, beta) = (s.real("alpha", 0.0)?, s.real("beta", 1.0)?);
            let begun = done.op("Greater", &[done.constant(0.0)]);
            let beta = begun.op("Where", &[done.constant(beta), done.constant(1.0)]);
            let sum = s.of(2, i) * alpha + beta * g;
            let along = if nesterov { g + sum * alpha } else { sum };
            Some(vec![s.of(0, i) - rate * along, sum])
        })
    }

    fn cases(&self) -> Vec<Case> {
        let told = |c: Case| {
            c.attr("norm_coefficient", 0.01f32)
                .attr("alpha", 0.95f32)
                .attr("beta", 0.8f32)
        };
        let mut all = cases(3, &|c| told(c).attr("mode", "standard"));
        all.extend(cases(3, &|c| told(c).attr("mode", "nesterov")));
        all
    }
}
