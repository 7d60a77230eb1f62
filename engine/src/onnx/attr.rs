//! `AttributeProto`, both ways.

use super::read::{Reader, graph};
use super::rope::{Encoder, Rope};
use super::wire::{Message, Wire};
use super::write::Writer;
use super::{OnnxError, tensor, types};
use crate::ir::{Attr, AttrValue, Constant, Extra};

/// Fields that hold values and the `AttributeType` that selects each.
const FIELDS: [(u32, i32); 14] = [
    (2, 1),
    (3, 2),
    (4, 3),
    (5, 4),
    (6, 5),
    (7, 6),
    (8, 7),
    (9, 8),
    (10, 9),
    (11, 10),
    (22, 11),
    (23, 12),
    (14, 13),
    (15, 14),
];
/// The field that names an attribute of the function around.
const REF: u32 = 21;

/// Reads an attribute.
pub(super) fn read(reader: &mut Reader, msg: Message) -> Result<Attr, OnnxError> {
    read_attr(reader, msg).map_err(|e| e.within(format!("attribute {:?}", msg.label(1))))
}

fn read_attr(reader: &mut Reader, msg: Message) -> Result<Attr, OnnxError> {
    let mut name = "";
    let mut code = None;
    let mut present = 0u32;
    for r in msg.records() {
        let r = r?;
        match (r.number, r.wire) {
            (1, Wire::Len) => name = r.text()?,
            (20, Wire::Varint) => code = Some(r.int32()),
            (n @ 0..32, _) if n != REF || r.filled() => present |= 1 << n,
            _ => {}
        }
    }
    let field = choose(code, present);
    let (value, taken) = read_value(reader, msg, field)?;
    let mut extra = Extra::default();
    for r in msg.records() {
        let r = r?;
        let told = match (r.number, r.wire) {
            (1, Wire::Len) => !name.is_empty(),
            (20, Wire::Varint) => true,
            (n, wire) => n == field && taken.contains(&wire),
        };
        if !told {
            extra.0.push(r.keep());
        }
    }
    Ok(Attr {
        name: name.into(),
        value,
        code,
        extra,
    })
}

/// The field that holds the value: what the type says, else the first that is present.
fn choose(code: Option<i32>, present: u32) -> u32 {
    let has = |field: u32| present & 1 << field != 0;
    if has(REF) {
        return REF;
    }
    let found = FIELDS.iter().find(|&&(field, selected_by)| match code {
        None | Some(0) => has(field),
        Some(code) => code == selected_by,
    });
    found.map_or(0, |&(field, _)| field)
}

/// The value in `field`, and the layouts of the records it is made of.
fn read_value(
    reader: &mut Reader,
    msg: Message,
    field: u32,
) -> Result<(AttrValue, &'static [Wire]), OnnxError> {
    let single = match field {
        4 | 5 | 6 | 14 | 21 | 22 => msg.last(field, Wire::Len)?,
        _ => None,
    };
    let mut tensor = |m| Ok::<Constant, OnnxError>(tensor::read(reader, m, false)?.1);
    let value = match (field, single) {
        (2, _) => {
            let float = msg.last(2, Wire::Fixed32)?.map(|r| r.float());
            return Ok((AttrValue::Float(float), &[Wire::Fixed32]));
        }
        (3, _) => {
            let int = msg.last(3, Wire::Varint)?.map(|r| r.int());
            return Ok((AttrValue::Int(int), &[Wire::Varint]));
        }
        (7, _) => return Ok((floats(msg)?, &[Wire::Fixed32, Wire::Len])),
        (8, _) => return Ok((ints(msg)?, &[Wire::Varint, Wire::Len])),
        (4, bytes) => AttrValue::Bytes(bytes.map(|r| r.bytes().to_vec())),
        (5, Some(r)) => AttrValue::Tensor(tensor(r.message()?)?),
        (6, Some(r)) => AttrValue::Graph(Box::new(graph(reader, r.message()?)?)),
        (14, Some(r)) => AttrValue::Type(types::read(r.message()?)?),
        (REF, Some(r)) => AttrValue::Ref(r.text()?.into()),
        (22, Some(r)) => AttrValue::Sparse(r.shared()),
        (9, _) => AttrValue::Strings(msg.each(9, |r| Ok(r.bytes().to_vec()))?),
        (10, _) => AttrValue::Tensors(msg.each(10, |r| tensor(r.message()?))?),
        (11, _) => AttrValue::Graphs(msg.each(11, |r| graph(reader, r.message()?))?),
        (15, _) => AttrValue::Types(msg.each(15, |r| types::read(r.message()?))?),
        (23, _) => AttrValue::Sparses(msg.each(23, |r| Ok(r.shared()))?),
        _ => AttrValue::Nothing,
    };
    Ok((value, &[Wire::Len]))
}

fn floats(msg: Message) -> Result<AttrValue, OnnxError> {
    let mut all = vec![];
    for r in msg.records() {
        let r = r?;
        if r.number == 7 && matches!(r.wire, Wire::Fixed32 | Wire::Len) {
            r.floats(&mut all)?;
        }
    }
    Ok(AttrValue::Floats(all))
}

fn ints(msg: Message) -> Result<AttrValue, OnnxError> {
    let mut all = vec![];
    for r in msg.records() {
        let r = r?;
        if r.number == 8 && matches!(r.wire, Wire::Varint | Wire::Len) {
            r.ints(&mut all)?;
        }
    }
    Ok(AttrValue::Ints(all))
}

/// The message for an attribute.
pub(super) fn write(w: &Writer, attr: &Attr) -> Rope {
    let mut e = Encoder::new(&attr.extra);
    e.filled(1, &attr.name);
    // The fields are numbered so that all but these three values stand before the type.
    let late = matches!(
        attr.value,
        AttrValue::Ref(_) | AttrValue::Sparse(_) | AttrValue::Sparses(_)
    );
    if !late {
        write_value(w, &mut e, &attr.value);
    }
    if let Some(code) = attr.code {
        e.int(20, code.into());
    }
    if late {
        write_value(w, &mut e, &attr.value);
    }
    e.finish()
}

fn write_value(w: &Writer, e: &mut Encoder, value: &AttrValue) {
    match value {
        AttrValue::Float(x) => x.iter().for_each(|&x| e.float(2, x)),
        AttrValue::Int(x) => x.iter().for_each(|&x| e.int(3, x)),
        AttrValue::Bytes(x) => e.some(4, x.as_ref()),
        AttrValue::Tensor(x) => e.rope(5, w.tensor(x, "")),
        AttrValue::Graph(x) => e.rope(6, w.graph(x)),
        AttrValue::Floats(x) => x.iter().for_each(|&x| e.float(7, x)),
        AttrValue::Ints(x) => x.iter().for_each(|&x| e.int(8, x)),
        AttrValue::Strings(x) => x.iter().for_each(|x| e.bytes(9, x)),
        AttrValue::Tensors(x) => x.iter().for_each(|x| e.rope(10, w.tensor(x, ""))),
        AttrValue::Graphs(x) => x.iter().for_each(|x| e.rope(11, w.graph(x))),
        AttrValue::Type(x) => e.rope(14, types::write(x)),
        AttrValue::Types(x) => x.iter().for_each(|x| e.rope(15, types::write(x))),
        AttrValue::Ref(name) => e.filled(REF, name),
        AttrValue::Sparse(x) => e.shared(22, x),
        AttrValue::Sparses(x) => x.iter().for_each(|x| e.shared(23, x)),
        AttrValue::Nothing => {}
    }
}
