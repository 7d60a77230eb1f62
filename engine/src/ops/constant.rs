//! Tensors that the model states.

use super::pick::{given, knowing, rearranged, sized};
use super::shape::{arity, show, spelt, with_data};
use super::{Axes, Case, Fact, NodeRef, Op, OpError, OpName, case, onnx};
use crate::cpu::moves::{fill, short, width};
use crate::cpu::{Candidate, Cost, Io};
use crate::ir::{AttrValue, DType, Data, Dim, Tensor, count};

/// ONNX `Constant`.
pub struct Constant;

/// The tensor that the node states.
fn stated(n: &NodeRef) -> Result<Tensor, OpError> {
    let strings = |s: &[Vec<u8>], dims: Vec<usize>| {
        Tensor::new(DType::String, dims, Data::Strings(s.to_vec().into()))
            .map_err(|e| OpError::new(e.to_string()))
    };
    let mut found = vec![];
    found.extend(n.tensor("value")?.cloned());
    found.extend(n.float("value_float")?.map(Tensor::scalar));
    found.extend(n.int("value_int")?.map(Tensor::scalar));
    found.extend(
        n.floats("value_floats")?
            .map(|x| Tensor::of(&[x.len()], x.to_vec())),
    );
    found.extend(n.ints("value_ints")?.map(|x| Tensor::of(&[x.len()], x.to_vec())));
    if let Some(s) = n.bytes("value_string")? {
        found.push(strings(&[s.to_vec()], vec![])?);
    }
    if let Some(s) = n.strings("value_strings")? {
        found.push(strings(s, vec![s.len()])?);
    }
    let sparse = |a: &&crate::ir::Attr| matches!(a.value, AttrValue::Sparse(_));
    if let Some(a) = n.node().attrs.iter().find(sparse) {
        return Err(OpError::new(format!(
            "attribute {:?} is a sparse tensor, which is not supported",
            a.name
        )));
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        found => Err(OpError::new(format!(
            "expected one attribute with the value, found {found}"
        ))),
    }
}

impl Op for Constant {
    fn name(&self) -> OpName {
        onnx("Constant")
    }

    fn since(&self) -> &'static [u16] {
        &[1, 9, 11, 12, 13, 19, 21, 23, 24, 25]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 0, 0)?;
        let t = stated(n)?;
        let data = t.ints().map(|x| x.into_iter().map(Dim::Known).collect());
        Ok(vec![with_data(Fact::of(&t), data)])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, _: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![stated(n)?])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let Some(t) = stated(n).ok().filter(|t| t.dtype() != DType::String) else {
            return vec![];
        };
        let cost = Cost::bytes(t.bytes().len());
        let run = move |io: &mut Io| {
            io.output(0).bytes().copy_from_slice(t.bytes());
            Ok(())
        };
        vec![Candidate::new("constant.told", cost, run)]
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name, attr, value: AttrValue| Case::new(name, []).attr(attr, value);
        let text = vec![b"a".to_vec(), b"bc".to_vec()];
        vec![
            case("a tensor", "value", case::floats(&[2, 3], 1).into()).opset(1),
            case("a float", "value_float", 1.5f32.into()),
            case("an integer", "value_int", 7i64.into()),
            case("floats", "value_floats", vec![1f32, -2.0].into()),
            case("integers", "value_ints", vec![1i64, 2, 3].into()),
            case("a string", "value_string", "text".into()),
            case("strings", "value_strings", AttrValue::Strings(text)),
        ]
    }
}

/// ONNX `ConstantOfShape`: one value throughout.
pub struct ConstantOfShape;

fn value(n: &NodeRef) -> Result<Tensor, OpError> {
    match n.tensor("value")? {
        None => Ok(Tensor::scalar(0f32)),
        Some(t) if t.len() == 1 => Ok(t.clone()),
        Some(t) => Err(OpError::new(format!(
            "the value has {} elements; expected one",
            t.len()
        ))),
    }
}

impl Op for ConstantOfShape {
    fn name(&self) -> OpName {
        onnx("ConstantOfShape")
    }

    fn since(&self) -> &'static [u16] {
        &[9, 20, 21, 23, 24, 25]
    }

    fn infer(&self, n: &NodeRef) -> Result<Vec<Fact>, OpError> {
        arity(n, 1, 1)?;
        let value = value(n)?;
        let shape = spelt(n, 0)?;
        if let Some(s) = shape
            .as_ref()
            .filter(|s| s.iter().any(|d| d.known().is_some_and(|d| d < 0)))
        {
            return Err(OpError::new(format!("{} is not a shape", show(s))));
        }
        let fact = Fact::tensor(Some(value.dtype()), shape);
        let size = fact.ty.dims().and_then(|d| count(&d)).filter(|&n| n <= 64);
        let data = size.and_then(|size| Some(vec![Dim::Known(value.ints()?[0]); size]));
        Ok(vec![with_data(fact, data)])
    }

    fn axes(&self, _: &NodeRef) -> Option<Axes> {
        None
    }

    fn eval(&self, n: &NodeRef, x: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        given(x, 0)?;
        let dims = knowing(n, x, |n| sized(self, n, 0))?;
        Ok(vec![rearranged(&value(n)?, &dims, |_| 0)?])
    }

    fn cpu(&self, n: &NodeRef) -> Vec<Candidate> {
        let Ok(value) = value(n) else { return vec![] };
        let (Some(_), Some(dims)) = (width(value.dtype()), n.out_dims(0)) else {
            return vec![];
        };
        let bytes = value
            .bytes()
            .len()
            .saturating_mul(count(&dims).unwrap_or(usize::MAX));
        let name = format!("constantofshape.{}", short(value.dtype()));
        let run = move |io: &mut Io| {
            let pool = io.pool;
            fill(pool, io.output(0).bytes(), value.bytes());
            Ok(())
        };
        vec![Candidate::new(name, Cost::bytes(bytes), run)]
    }

    fn cases(&self) -> Vec<Case> {
        let to = |s: &[i64]| Tensor::of(&[s.len()], s.to_vec());
        vec![
            Case::new("zeros", [to(&[2, 3])]).konst(&[0]),
            Case::new("integers", [to(&[3])])
                .attr("value", Tensor::of(&[1], vec![-5i64]))
                .konst(&[0]),
            Case::new("known late", [to(&[200, 300])]).attr("value", Tensor::scalar(1.5f32)),
            Case::new("a scalar", [to(&[])])
                .attr("value", Tensor::bools(&[1], [true]))
                .opset(9),
            Case::new("nothing", [to(&[4, 0])]),
        ]
    }
}
