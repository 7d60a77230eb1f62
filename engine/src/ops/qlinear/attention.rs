//! `QAttention`: attention of a quantised tensor with quantised weights.

use super::{Composite, apply, cases, cast, there};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Tensor};
use crate::ops::qmatmul::{byte, typed};
use crate::ops::shape::ranked;
use crate::ops::{Fact, NodeRef, OpError};

/// Attention whose queries, keys and values come from one quantised product.
pub static ATTENTION: Composite = Composite {
    name: "QAttention",
    inputs: (5, 9),
    infer,
    body,
    cases: cases::attention,
};

fn heads(n: &NodeRef) -> Result<i64, OpError> {
    match n.int("num_heads")? {
        Some(heads) if heads > 0 => Ok(heads),
        found => Err(OpError::new(format!(
            "attribute \"num_heads\" is {found:?}; expected at least 1"
        ))),
    }
}

fn infer(n: &NodeRef) -> Result<Vec<Fact>, OpError> {
    typed(n, &[0, 1, 6, 7], byte)?;
    let heads = heads(n)?;
    n.float("scale")?;
    n.float("mask_filter_value")?;
    n.int("unidirectional")?;
    for name in ["do_rotary", "past_present_share_buffer"] {
        if n.int_or(name, 0)? != 0 {
            return Err(OpError::new(format!("attribute {name:?} is not supported")));
        }
    }
    let (x, w) = (ranked(n, 0, 3)?, ranked(n, 1, 2)?);
    let hidden = w.map_or(Dim::Unknown, |w| w[1].floor_div(&Dim::Known(3)));
    if hidden.known().is_some_and(|h| h % heads != 0) {
        return Err(OpError::new(format!("{hidden} features in {heads} heads")));
    }
    let batch = |i: usize| x.map_or(Dim::Unknown, |x| x[i].clone());
    if let Some(found) = n.shape(5).filter(|s| s.len() > 1).and_then(|s| s[0].known())
        && found != 1
        && batch(0).known().is_some_and(|b| b != found)
    {
        return Err(OpError::new(format!(
            "input 5: a mask of {found} sequences; expected {}",
            batch(0)
        )));
    }
    let past = match (n.has(8), ranked(n, 8, 5)?) {
        (false, _) => Dim::Known(0),
        (true, p) => p.map_or(Dim::Unknown, |p| p[3].clone()),
    };
    let dtype = n.dtype(3);
    let present = vec![
        Dim::Known(2),
        batch(0),
        Dim::Known(heads),
        past + batch(1),
        hidden.floor_div(&Dim::Known(heads)),
    ];
    Ok(vec![
        Fact::tensor(dtype, Some(vec![batch(0), batch(1), hidden])),
        Fact::tensor(dtype, Some(present)),
    ])
}

fn integers<'a>(x: Ex<'a>, all: &[i64]) -> Ex<'a> {
    x.tensor(Tensor::of(&[all.len()], all.to_vec()))
}

fn permuted<'a>(x: Ex<'a>, perm: &[i64]) -> Ex<'a> {
    x.with("Transpose", &[], vec![Attr::new("perm", perm)])
}

/// Slice `i` of the first axis.
fn part<'a>(x: Ex<'a>, i: i64) -> Ex<'a> {
    let index = x.tensor(Tensor::scalar(i));
    x.with("Gather", &[index], vec![Attr::new("axis", 0i64)])
}

/// The size of axis `axis`, as a scalar.
fn size<'a>(x: Ex<'a>, axis: i64) -> Ex<'a> {
    part(x.op("Shape", &[]), axis)
}

fn body<'a>(n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
    let (heads, own) = (heads(n).ok()?, n.dtype(3)?);
    let features = n.shape(1)?[1].size()? / 3;
    let head = features / usize::try_from(heads).ok()?;
    let wide = |x| if own == DType::F32 { x } else { cast(x, DType::F32) };
    let inputs = [Some(x[0]), Some(x[1]), there(n, x, 6), there(n, x, 7)];
    let sums = *apply("MatMulInteger", &inputs, vec![], 1)?.first()?;
    let all = cast(sums, DType::F32) * (wide(x[3]) * wide(x[4])) + wide(x[2]);
    let split = all.op("Reshape", &[integers(all, &[0, 0, 3, heads, head as i64])]);
    let split = permuted(split, &[2, 0, 3, 1, 4]);
    let new = {
        let both = integers(all, &[1, 2]);
        split.with("Gather", &[both], vec![Attr::new("axis", 0i64)])
    };
    let past = there(n, x, 8);
    let present = past.map_or(new, |p| {
        wide(p).with("Concat", &[new], vec![Attr::new("axis", 3i64)])
    });
    let (q, k, v) = (part(split, 0), part(present, 0), part(present, 1));
    let scale = n.float("scale").ok()?.filter(|&s| s != 0.0);
    let scale = scale.map_or(1.0 / (head as f64).sqrt(), f64::from);
    let mut scores = q.matmul(permuted(k, &[0, 1, 3, 2])) * scale;
    if n.has(5) {
        scores = scores + mask(n, x[5], scores)?;
    }
    if n.int_or("unidirectional", 0).ok()? != 0 {
        let ones = scores * 0.0 + 1.0;
        let before = past.map_or(x[0].tensor(Tensor::scalar(0i64)), |p| size(p, 3));
        let kept = ones.with("Trilu", &[before], vec![Attr::new("upper", 0i64)]);
        let least = scores.constant(f32::MIN.into());
        scores = cast(kept, DType::Bool).op("Where", &[scores, least]);
    }
    let weights = scores.with("Softmax", &[], vec![Attr::new("axis", 3i64)]);
    let y = permuted(weights.matmul(v), &[0, 2, 1, 3]);
    let y = y.op("Reshape", &[integers(y, &[0, 0, features as i64])]);
    let narrow = |x| if own == DType::F32 { x } else { cast(x, own) };
    Some(vec![narrow(y), narrow(present)])
}

/// What is added to the scores, `[batch, 1, 1, total]`: 0 where a key counts. The mask has a truth value for each key, or
/// the number of keys that count.
fn mask<'a>(n: &NodeRef, mask: Ex<'a>, scores: Ex<'a>) -> Option<Ex<'a>> {
    let shape = n.shape(5)?;
    let counted = match shape.len() {
        2 => mask.op("Reshape", &[integers(mask, &[0, 1, 1, -1])]),
        1 if shape[0].same(&n.shape(0)?[0]) => {
            let ends = cast(mask, DType::I64).op("Reshape", &[integers(mask, &[-1, 1, 1, 1])]);
            let from = mask.tensor(Tensor::scalar(0i64));
            let step = mask.tensor(Tensor::scalar(1i64));
            let places = from.op("Range", &[size(scores, 3), step]);
            places.op("Less", &[ends])
        }
        _ => return None,
    };
    let filter = n.float_or("mask_filter_value", -10000.0).ok()?;
    let counted = cast(counted, DType::F32);
    Some((counted.constant(1.0) - counted) * f64::from(filter))
}
