//! ONNX Runtime's own forms of operators that ONNX has too: `Pad` and `Unique`.

use std::collections::HashMap;

use super::formula::{given as given_in, ints};
use super::pick::{given, rearranged};
use super::shape::{arity, ranked, show};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, microsoft};
use crate::expr::Ex;
use crate::ir::{Attr, DType, Dim, Shape, Tensor};

/// `Pad`, whose numbers may be a matrix of one row, whatever the opset.
pub struct Pad;

/// `Unique` of a vector, in the order in which elements first occur.
pub struct Unique;

/// The shape with what is put before and behind each axis.
fn padded(n: &NodeRef, of: &Shape) -> Result<Shape, OpError> {
    let Some(pads) = n.data(1) else {
        return Ok(vec![Dim::Unknown; of.len()]);
    };
    if pads.len() != 2 * of.len() {
        return Err(OpError::new(format!(
            "pads {} for {} axes",
            show(&pads),
            of.len()
        )));
    }
    let (before, behind) = pads.split_at(of.len());
    let sum = |i: usize| of[i].clone() + before[i].clone() + behind[i].clone();
    let shape: Shape = (0..of.len()).map(sum).collect();
    match shape.iter().any(|d| d.known().is_some_and(|d| d < 0)) {
        true => Err(OpError::new(format!("{} cut to {}", show(of), show(&shape)))),
        false => Ok(shape),
    }
}

impl Op for Pad {
    fn name(&self) -> OpName {
        microsoft("Pad")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 2, 3)?;
        let mode = n.str_or("mode", "constant")?;
        if !["constant", "edge", "reflect", "wrap"].contains(&mode) {
            return Err(OpError::new(format!(
                "attribute \"mode\" is {mode:?}, which has no meaning"
            )));
        }
        if n.dtype(1).is_some_and(|d| d != DType::I64) {
            return Err(OpError::new("pads: expected int64"));
        }
        let shape = n.shape(0).map(|of| padded(n, of)).transpose()?;
        Ok(vec![Fact::tensor(n.dtype(0), shape)])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn body<'a>(&self, n: &NodeRef, x: &[Ex<'a>]) -> Option<Vec<Ex<'a>>> {
        n.has(0).then_some(())?;
        let flat = |x: Ex<'a>, to: &[i64]| x.op("Reshape", &[ints(x, to)]);
        let mut rest = vec![flat(*x.get(1)?, &[-1])];
        rest.extend(given_in(n, x, 2).map(|v| flat(v, &[])));
        let mode = n.str_or("mode", "constant").ok()?;
        Some(vec![x[0].with("Pad", &rest, vec![Attr::new("mode", mode)])])
    }

    fn cases(&self) -> Vec<Case> {
        let of = |name, dims: &[usize], pads: Vec<i64>| {
            Case::new(name, [case::floats(&[2, 3], 1), Tensor::of(dims, pads)]).konst(&[1])
        };
        let mut value = of("a value", &[4], vec![0, 2, 1, -1]);
        value.inputs.push(Some(Tensor::of(&[1], vec![5f32])));
        vec![
            value,
            of("a row", &[1, 4], vec![0, 1, 0, 2]).attr("mode", "edge"),
            of("reflected", &[4], vec![1, 1, 0, 2]).attr("mode", "reflect"),
        ]
    }
}

/// The bytes by which equal elements are found; both zeros are one.
fn keys(x: &Tensor) -> Result<Vec<Vec<u8>>, OpError> {
    if x.dtype() == DType::String {
        return Ok(x.strings().to_vec());
    }
    let width = x.dtype().bits() / 8;
    if width == 0 {
        return Err(OpError::new(format!(
            "elements of type {} are not compared",
            x.dtype()
        )));
    }
    let zeros = x.floats().filter(|_| x.dtype().is_float());
    let key = |(i, bytes): (usize, &[u8])| match &zeros {
        Some(all) if all[i] == 0.0 => vec![0; width],
        _ => bytes.to_vec(),
    };
    Ok(x.bytes().chunks_exact(width).enumerate().map(key).collect())
}

impl Op for Unique {
    fn name(&self) -> OpName {
        microsoft("Unique")
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        ranked(n, 0, 1)?;
        let found = Some(vec![Dim::Unknown]);
        Ok(vec![
            Fact::tensor(n.dtype(0), found.clone()),
            Fact::tensor(Some(DType::I64), n.shape(0).cloned()),
            Fact::tensor(Some(DType::I64), found),
        ])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, _: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = given(x, 0)?;
        let (mut seen, mut first, mut counts) = (HashMap::new(), vec![], vec![]);
        let mut index = vec![];
        for (i, key) in keys(x)?.into_iter().enumerate() {
            let slot = *seen.entry(key).or_insert_with(|| {
                first.push(i);
                counts.push(0i64);
                counts.len() - 1
            });
            counts[slot] += 1;
            index.push(slot as i64);
        }
        let y = rearranged(x, &[first.len()], |at| first[at[0]])?;
        Ok(vec![
            y,
            Tensor::of(&[index.len()], index),
            Tensor::of(&[counts.len()], counts),
        ])
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("floats", [Tensor::of(&[6], vec![2f32, 1.0, 1.0, 3.0, 4.0, 3.0])]).outputs(3),
            Case::new("zeros", [Tensor::of(&[3], vec![0f32, -0.0, 1.0])]).outputs(3),
            Case::new("nothing", [Tensor::of::<i64>(&[0], vec![])]).outputs(3),
        ]
    }
}
