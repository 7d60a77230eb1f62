//! Values by themselves, as ONNX's test data keep them.

use super::error::OnnxError;
use super::wire::{Message, Record, Wire};
use super::{external, read, tensor};
use crate::ir::{Bytes, Datum, Map, Tensor, Type};

/// Reads a `TensorProto`, `SequenceProto`, `OptionalProto` or `MapProto` by itself: what a value of type `ty` is kept as.
///
/// # Errors
///
/// If the bytes are no such message, or a tensor's data is not as long as its type and dimensions ask for.
pub fn parse_value(bytes: Bytes, ty: &Type) -> Result<Datum, OnnxError> {
    let mut reader = read::Reader::new(external::Files::new(None), bytes.len());
    value(&mut reader, Message::new(&bytes), ty)
}

fn value(reader: &mut read::Reader, m: Message, ty: &Type) -> Result<Datum, OnnxError> {
    match ty {
        Type::Sequence(of) => {
            let mut all = m.each(kept(of), |r| value(reader, r.message()?, of))?;
            // Older writers put any value in the field for tensors.
            if all.is_empty() {
                all = m.each(3, |r| value(reader, r.message()?, of))?;
            }
            Ok(Datum::Sequence((**of).clone(), all))
        }
        Type::Optional(of) => {
            let held = m.last(kept(of), Wire::Len)?;
            let held = held.map(|r| value(reader, r.message()?, of)).transpose()?;
            Ok(Datum::Optional((**of).clone(), held.map(Box::new)))
        }
        Type::Map { .. } => map(reader, m),
        _ => Ok(tensor::read(reader, m, true)?.1.tensor.as_ref().clone().into()),
    }
}

/// The field of a sequence or optional in which values of type `of` are.
fn kept(of: &Type) -> u32 {
    match of {
        Type::Sequence(_) => 5,
        Type::Map { .. } => 6,
        Type::Optional(_) => 7,
        _ => 3,
    }
}

fn map(reader: &mut read::Reader, m: Message) -> Result<Datum, OnnxError> {
    let mut ints = vec![];
    for r in m.records() {
        let r = r?;
        if r.number == 3 {
            r.ints(&mut ints)?;
        }
    }
    let strings = m.each(4, |r: Record| Ok(r.bytes().to_vec()))?;
    let keys = match strings.is_empty() {
        true => Tensor::of(&[ints.len()], ints),
        false => Tensor::of_strings(&[strings.len()], strings),
    };
    let held = m.last(5, Wire::Len)?;
    let values = held
        .map(|r| sequence_as_tensor(reader, r.message()?))
        .transpose()?;
    let values = values.unwrap_or_else(|| Tensor::of::<f32>(&[0], vec![]));
    Ok(Datum::Map(Map { keys, values }))
}

/// The values of a map, which are a sequence of scalars or one tensor.
fn sequence_as_tensor(reader: &mut read::Reader, m: Message) -> Result<Tensor, OnnxError> {
    let all = m.each(3, |r| Ok(tensor::read(reader, r.message()?, true)?.1.tensor))?;
    match &all[..] {
        [one] => Ok(one.as_ref().clone()),
        _ => {
            let parts: Vec<Tensor> = all.iter().map(|t| t.as_ref().clone()).collect();
            crate::ops::parts::stack(&parts, 0, None).map_err(|e| OnnxError::malformed(e.to_string()))
        }
    }
}
