//! What the gradient of rounding is.

use secateur_engine::expr::Ex;
use secateur_engine::ir::{Attr, DType};
use secateur_engine::ops::{Exs, Grads, NodeRef};

/// What the gradient of rounding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rounding {
    /// 0 everywhere, as it is almost everywhere.
    #[default]
    Zero,
    /// That of no rounding: [straight through](https://arxiv.org/abs/1308.3432). So it is for `Round`, and for
    /// `QuantizeLinear` with `DequantizeLinear` behind it, except where the quantised number was cut off.
    StraightThrough,
}

/// The gradients of the inputs of a node that rounds, as if it did not; `None` for any other.
pub(crate) fn through<'a>(n: &NodeRef, x: Exs<'_, 'a>, dy: Exs<'_, 'a>) -> Grads<'a> {
    match &*n.node().op {
        _ if !n.node().domain().is_empty() => None,
        "Round" => Some(dy.to_vec()),
        // What goes to the quantised number is the gradient of the number that it stands for.
        "DequantizeLinear" if n.dtype(0)?.is_int() => Some(dy.to_vec()),
        "QuantizeLinear" => Some(vec![Some(inside(n, x, dy[0]?)?)]),
        _ => None,
    }
}

/// `dy`, but 0 where the quantised number is cut off. `None` for scales of blocks.
fn inside<'a>(n: &NodeRef, x: Exs<'_, 'a>, dy: Ex<'a>) -> Option<Ex<'a>> {
    let along = |p: Ex<'a>, rank: usize| match rank {
        0 => Some(p),
        1 if n.dims(1)? == [1] => Some(p),
        1 => {
            let axis = NodeRef::axis(n.int_or("axis", 1).ok()?, n.rank(0)?).ok()?;
            let behind: Vec<_> = (1..(n.rank(0)? - axis) as i64).collect();
            Some(match behind.is_empty() {
                true => p,
                false => p.op("Unsqueeze", &[axes(p, behind)]),
            })
        }
        _ => None,
    };
    let to = Attr::new("to", i64::from(n.dtype(0)?.code()));
    let rank = n.rank(1)?;
    let mut whole = (x[0]? / along(x[1]?, rank)?).op("Round", &[]);
    if let Some(zero) = x.get(2).copied().flatten() {
        whole = whole + along(zero.with("Cast", &[], vec![to]), rank)?;
    }
    let (low, high) = bounds(n)?;
    let above = whole.op("GreaterOrEqual", &[whole.constant(low)]);
    let below = whole.op("LessOrEqual", &[whole.constant(high)]);
    Some(above.op("And", &[below]).op("Where", &[dy, dy.constant(0.0)]))
}

fn axes(x: Ex<'_>, all: Vec<i64>) -> Ex<'_> {
    x.tensor(secateur_engine::Tensor::of(&[all.len()], all))
}

/// The least and the greatest number of the type that is quantised to.
fn bounds(n: &NodeRef) -> Option<(f64, f64)> {
    let code = n.int_or("output_dtype", 0).ok()?;
    let asked = i32::try_from(code).ok().filter(|&c| c != 0).map(DType::from_code);
    let dtype = n.dtype(2).or(asked).unwrap_or(DType::U8);
    let signed = matches!(dtype, DType::I2 | DType::I4 | DType::I8 | DType::I16);
    let count = 2f64.powi(i32::try_from(dtype.bits()).ok()?);
    dtype.is_int().then_some(match signed {
        true => (-count / 2.0, count / 2.0 - 1.0),
        false => (0.0, count - 1.0),
    })
}
