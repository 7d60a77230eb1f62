//! `TypeProto`, both ways.

use super::OnnxError;
use super::rope::{Encoder, Rope};
use super::wire::{Message, Wire};
use crate::ir::{DType, Declared, Dim, Shape, Type};

/// Reads a type, and keeps the message where writing the type would give other bytes.
pub(super) fn read(msg: Message) -> Result<Declared, OnnxError> {
    let ty = read_type(msg).map_err(|e| e.within("type"))?;
    let same = encode(&ty).into_vec() == msg.bytes();
    Ok(Declared {
        ty,
        proto: (!same).then(|| msg.shared()),
    })
}

/// The message for a declared type.
pub(super) fn write(declared: &Declared) -> Rope {
    let mut rope = Rope::default();
    match &declared.proto {
        Some(proto) => rope.share(proto),
        None => rope = encode(&declared.ty),
    }
    rope
}

fn read_type(msg: Message) -> Result<Type, OnnxError> {
    let mut ty = Type::Unknown;
    for r in msg.records() {
        let r = r?;
        if r.wire != Wire::Len {
            continue;
        }
        ty = match r.number {
            1 => {
                let (dtype, shape) = read_tensor(r.message()?)?;
                Type::Tensor { dtype, shape }
            }
            8 => {
                let (dtype, shape) = read_tensor(r.message()?)?;
                Type::Sparse { dtype, shape }
            }
            4 => Type::Sequence(Box::new(inner(r.message()?, 1)?)),
            9 => Type::Optional(Box::new(inner(r.message()?, 1)?)),
            5 => read_map(r.message()?)?,
            7 => read_opaque(r.message()?)?,
            _ => ty,
        };
    }
    Ok(ty)
}

/// The type in field `number`.
fn inner(msg: Message, number: u32) -> Result<Type, OnnxError> {
    match msg.last(number, Wire::Len)? {
        Some(r) => read_type(r.message()?),
        None => Ok(Type::Unknown),
    }
}

fn read_map(msg: Message) -> Result<Type, OnnxError> {
    let key = msg.last(1, Wire::Varint)?.map_or(0, |r| r.int32());
    Ok(Type::Map {
        key: DType::from_code(key),
        value: Box::new(inner(msg, 2)?),
    })
}

fn read_opaque(msg: Message) -> Result<Type, OnnxError> {
    let text = |number| match msg.last(number, Wire::Len)? {
        Some(r) => r.text(),
        None => Ok(""),
    };
    Ok(Type::Opaque {
        domain: text(1)?.into(),
        name: text(2)?.into(),
    })
}

fn read_tensor(msg: Message) -> Result<(Option<DType>, Option<Shape>), OnnxError> {
    let code = msg.last(1, Wire::Varint)?.map(|r| r.int32());
    let dtype = code.filter(|&code| code != 0).map(DType::from_code);
    let shape = match msg.last(2, Wire::Len)? {
        Some(r) => Some(r.message()?.each(1, |d| read_dim(d.message()?))?),
        None => None,
    };
    Ok((dtype, shape))
}

fn read_dim(msg: Message) -> Result<Dim, OnnxError> {
    let mut dim = Dim::Unknown;
    for r in msg.records() {
        let r = r?;
        dim = match (r.number, r.wire) {
            (1, Wire::Varint) if r.int() >= 0 => Dim::Known(r.int()),
            (2, Wire::Len) if r.filled() => Dim::symbol(r.text()?),
            (1, Wire::Varint) | (2, Wire::Len) => Dim::Unknown,
            _ => dim,
        };
    }
    Ok(dim)
}

fn encode(ty: &Type) -> Rope {
    let mut e = Encoder::default();
    match ty {
        Type::Tensor { dtype, shape } => e.rope(1, encode_tensor(*dtype, shape.as_ref())),
        Type::Sparse { dtype, shape } => e.rope(8, encode_tensor(*dtype, shape.as_ref())),
        Type::Sequence(t) => e.rope(4, encode_inner(1, t)),
        Type::Optional(t) => e.rope(9, encode_inner(1, t)),
        Type::Map { key, value } => {
            let mut map = Encoder::default();
            map.int(1, key.code().into());
            map.rope(2, encode(value));
            e.rope(5, map.finish());
        }
        Type::Opaque { domain, name } => {
            let mut opaque = Encoder::default();
            opaque.filled(1, domain);
            opaque.filled(2, name);
            e.rope(7, opaque.finish());
        }
        Type::Unknown => {}
    }
    e.finish()
}

fn encode_inner(number: u32, ty: &Type) -> Rope {
    let mut e = Encoder::default();
    e.rope(number, encode(ty));
    e.finish()
}

fn encode_tensor(dtype: Option<DType>, shape: Option<&Shape>) -> Rope {
    let mut e = Encoder::default();
    if let Some(dtype) = dtype {
        e.int(1, dtype.code().into());
    }
    if let Some(shape) = shape {
        let mut dims = Encoder::default();
        for dim in shape {
            dims.rope(1, encode_dim(dim));
        }
        e.rope(2, dims.finish());
    }
    e.finish()
}

fn encode_dim(dim: &Dim) -> Rope {
    let mut e = Encoder::default();
    match dim {
        Dim::Known(n) => e.int(1, *n),
        Dim::Symbol(name) => e.bytes(2, name.as_bytes()),
        Dim::Expr(_) => e.bytes(2, dim.to_string()),
        Dim::Unknown => {}
    }
    e.finish()
}
