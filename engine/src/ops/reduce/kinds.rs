//! The reductions that there are.

use super::{Reduction, USUAL, again, many, shared};
use crate::cpu::reduce::{Exponential, Finish, Greatest, Itself, Least, Plus, Size, Square, Times};
use crate::expr::Ex;
use crate::ir::Dim;
use crate::ops::NodeRef;
use crate::ops::grad::{only, spread, unless};

/// The sum.
#[derive(Clone, Copy)]
pub struct Sum;
impl Reduction for Sum {
    const NAME: &'static str = "ReduceSum";
    const SINCE: &'static [u16] = &[1, 11, 13];
    const MOVED: i64 = 13;
    const DIMS: Option<fn(&Dim, &Dim) -> Dim> = Some(|a, b| a.clone() + b.clone());
    type Join = Plus;
    type Term = Itself;
    fn real(x: &[f64]) -> f64 {
        x.iter().sum()
    }
    fn int(x: &[i128]) -> Option<i128> {
        Some(x.iter().sum())
    }
    fn vjp<'a>(n: &NodeRef, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Ex<'a> {
        spread(n, 0, x, dy)
    }
}

/// The mean; of integers rounded towards 0.
#[derive(Clone, Copy)]
pub struct Mean;
impl Reduction for Mean {
    const NAME: &'static str = "ReduceMean";
    const SINCE: &'static [u16] = USUAL;
    const MEAN: bool = true;
    type Join = Plus;
    type Term = Itself;
    const FINISH: Finish = |sum, n, _| sum / n as f64;
    fn real(x: &[f64]) -> f64 {
        x.iter().sum::<f64>() / x.len() as f64
    }
    fn int(x: &[i128]) -> Option<i128> {
        Some(x.iter().sum::<i128>().checked_div(x.len() as i128).unwrap_or(0))
    }
    fn vjp<'a>(n: &NodeRef, x: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Ex<'a> {
        spread(n, 0, x, dy / many(n, x, y))
    }
}

/// The greatest; NaN where there is one.
#[derive(Clone, Copy)]
pub struct Max;
impl Reduction for Max {
    const NAME: &'static str = "ReduceMax";
    const SINCE: &'static [u16] = &[1, 11, 12, 13, 18, 20];
    const DIMS: Option<fn(&Dim, &Dim) -> Dim> = Some(Dim::greater);
    type Join = Greatest;
    type Term = Itself;
    fn real(x: &[f64]) -> f64 {
        x.iter()
            .fold(f64::NEG_INFINITY, |a, &b| if a > b || a.is_nan() { a } else { b })
    }
    fn int(x: &[i128]) -> Option<i128> {
        x.iter().copied().max()
    }
    fn vjp<'a>(n: &NodeRef, x: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Ex<'a> {
        shared(n, x, y, dy, "Less")
    }
}

/// The least; NaN where there is one.
#[derive(Clone, Copy)]
pub struct Min;
impl Reduction for Min {
    const NAME: &'static str = "ReduceMin";
    const SINCE: &'static [u16] = &[1, 11, 12, 13, 18, 20];
    const DIMS: Option<fn(&Dim, &Dim) -> Dim> = Some(Dim::lesser);
    type Join = Least;
    type Term = Itself;
    fn real(x: &[f64]) -> f64 {
        x.iter()
            .fold(f64::INFINITY, |a, &b| if a < b || a.is_nan() { a } else { b })
    }
    fn int(x: &[i128]) -> Option<i128> {
        x.iter().copied().min()
    }
    fn vjp<'a>(n: &NodeRef, x: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Ex<'a> {
        shared(n, x, y, dy, "Greater")
    }
}

/// The product.
#[derive(Clone, Copy)]
pub struct Prod;
impl Reduction for Prod {
    const NAME: &'static str = "ReduceProd";
    const SINCE: &'static [u16] = USUAL;
    const DIMS: Option<fn(&Dim, &Dim) -> Dim> = Some(|a, b| a.clone() * b.clone());
    type Join = Times;
    type Term = Itself;
    fn real(x: &[f64]) -> f64 {
        x.iter().product()
    }
    fn int(x: &[i128]) -> Option<i128> {
        Some(x.iter().fold(1, |a, &b| a.wrapping_mul(b)))
    }
    fn vjp<'a>(n: &NodeRef, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Ex<'a> {
        // Of one zero the gradient is the product of the others, which have none; two leave none to any.
        let one = x.constant(1.0);
        let zero = x.op("Equal", &[x.constant(0.0)]);
        let others = zero.op("Where", &[one, x]);
        let zeros = again(n, "ReduceSum", only(zero, one));
        let most = unless(zeros.op("Greater", &[one]), dy * again(n, "ReduceProd", others));
        let alone = zeros.op("Equal", &[x.constant(0.0)]);
        zero.op("Where", &[most, only(alone, most / others)])
    }
}

/// The sum of sizes.
#[derive(Clone, Copy)]
pub struct L1;
impl Reduction for L1 {
    const NAME: &'static str = "ReduceL1";
    const SINCE: &'static [u16] = USUAL;
    type Join = Plus;
    type Term = Size;
    fn real(x: &[f64]) -> f64 {
        x.iter().map(|x| x.abs()).sum()
    }
    fn int(x: &[i128]) -> Option<i128> {
        Some(x.iter().map(|x| x.abs()).sum())
    }
    fn vjp<'a>(_: &NodeRef, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Ex<'a> {
        dy * x.op("Sign", &[])
    }
}

/// The root of the sum of squares.
#[derive(Clone, Copy)]
pub struct L2;
impl Reduction for L2 {
    const NAME: &'static str = "ReduceL2";
    const SINCE: &'static [u16] = USUAL;
    const ROUNDS: bool = true;
    type Join = Plus;
    type Term = Square;
    const FINISH: Finish = |sum, _, _| sum.sqrt();
    fn real(x: &[f64]) -> f64 {
        SumSquare::real(x).sqrt()
    }
    fn int(_: &[i128]) -> Option<i128> {
        None
    }
    fn vjp<'a>(_: &NodeRef, x: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Ex<'a> {
        x * unless(y.op("Equal", &[y.constant(0.0)]), dy / y)
    }
}

/// The sum of squares.
#[derive(Clone, Copy)]
pub struct SumSquare;
impl Reduction for SumSquare {
    const NAME: &'static str = "ReduceSumSquare";
    const SINCE: &'static [u16] = USUAL;
    type Join = Plus;
    type Term = Square;
    fn real(x: &[f64]) -> f64 {
        x.iter().map(|x| x * x).sum()
    }
    fn int(x: &[i128]) -> Option<i128> {
        Some(x.iter().fold(0, |a, b| a.wrapping_add(b.wrapping_mul(*b))))
    }
    fn vjp<'a>(_: &NodeRef, x: Ex<'a>, _: Ex<'a>, dy: Ex<'a>) -> Ex<'a> {
        (dy * 2.0) * x
    }
}

/// The logarithm of the sum.
#[derive(Clone, Copy)]
pub struct LogSum;
impl Reduction for LogSum {
    const NAME: &'static str = "ReduceLogSum";
    const SINCE: &'static [u16] = USUAL;
    const ROUNDS: bool = true;
    type Join = Plus;
    type Term = Itself;
    const FINISH: Finish = |sum, _, _| sum.ln();
    fn real(x: &[f64]) -> f64 {
        x.iter().sum::<f64>().ln()
    }
    fn int(_: &[i128]) -> Option<i128> {
        None
    }
    fn vjp<'a>(n: &NodeRef, x: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Ex<'a> {
        spread(n, 0, x, dy / y.exp())
    }
}

/// The logarithm of the sum of exponentials.
#[derive(Clone, Copy)]
pub struct LogSumExp;
impl Reduction for LogSumExp {
    const NAME: &'static str = "ReduceLogSumExp";
    const SINCE: &'static [u16] = USUAL;
    const ROUNDS: bool = true;
    type Join = Plus;
    type Term = Exponential;
    const FINISH: Finish = |sum, _, greatest| sum.ln() + greatest;
    fn real(x: &[f64]) -> f64 {
        let greatest = Some(Max::real(x)).filter(|m| m.is_finite()).unwrap_or(0.0);
        x.iter().map(|x| (x - greatest).exp()).sum::<f64>().ln() + greatest
    }
    fn int(_: &[i128]) -> Option<i128> {
        None
    }
    fn vjp<'a>(_: &NodeRef, x: Ex<'a>, y: Ex<'a>, dy: Ex<'a>) -> Ex<'a> {
        dy * (x - y).exp()
    }
}
