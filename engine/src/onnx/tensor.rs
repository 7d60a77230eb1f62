//! `TensorProto`, both ways.

use super::external::{self, Entries};
use super::read::Reader;
use super::rope::{Encoder, Rope};
use super::wire::{Message, Record, Wire};
use super::{OnnxError, packed};
use crate::ir::{Bytes, Constant, DType, Data, Extra, Form, Name, Tensor};

/// What a first look at the message finds.
#[derive(Default)]
struct Head {
    dims: Vec<usize>,
    dtype: Option<DType>,
    name: Name,
    external: bool,
    /// `raw_data` is there, and has at least one byte.
    raw: Option<bool>,
    /// The field for the type is there.
    typed: bool,
}

/// Which fields the elements come from.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    Raw,
    Typed(u32),
    External,
    /// No field that is understood.
    Nowhere,
}

impl Head {
    fn read(msg: Message) -> Result<Head, OnnxError> {
        let mut head = Head::default();
        let mut dims = vec![];
        let mut fields = 0u32;
        for r in msg.records() {
            let r = r?;
            match (r.number, r.wire) {
                (1, Wire::Varint | Wire::Len) => r.ints(&mut dims)?,
                (2, Wire::Varint) => head.dtype = Some(DType::from_code(r.int32())),
                (8, Wire::Len) => head.name = r.text()?.into(),
                (9, Wire::Len) => head.raw = Some(r.filled()),
                (14, Wire::Varint) => head.external = r.int32() == 1,
                (n @ 0..32, _) => fields |= 1 << n,
                _ => {}
            }
        }
        head.typed = packed::field(head.dtype()).is_some_and(|n| fields & 1 << n != 0);
        head.dims = sizes(&dims)?;
        Ok(head)
    }

    fn dtype(&self) -> DType {
        self.dtype.unwrap_or(DType::Other(0))
    }

    fn source(&self) -> Source {
        match (self.external, self.raw, packed::field(self.dtype())) {
            (true, ..) => Source::External,
            (_, Some(filled), _) if filled || !self.typed => Source::Raw,
            (_, _, Some(field)) => Source::Typed(field),
            _ => Source::Nowhere,
        }
    }
}

/// `dims` as sizes.
pub(super) fn sizes(dims: &[i64]) -> Result<Vec<usize>, OnnxError> {
    let size = |&d: &i64| {
        usize::try_from(d).map_err(|_| OnnxError::invalid(format!("expected a size, found dimension {d}")))
    };
    dims.iter().map(size).collect()
}

/// Whether a record says what the constant says anyway.
fn is_told(r: &Record, head: &Head, source: Source, named: bool) -> bool {
    match (r.number, r.wire) {
        (1, Wire::Varint | Wire::Len) => true,
        (2, Wire::Varint) => head.dtype().code() != 0,
        (8, Wire::Len) => named && !head.name.is_empty(),
        (9, Wire::Len) => source == Source::Raw,
        (13, Wire::Len) | (14, Wire::Varint) => source == Source::External,
        (n, _) => source == Source::Typed(n),
    }
}

/// Reads a tensor. Its name is left to the caller where `named`, else it stays among the other fields.
pub(super) fn read(reader: &mut Reader, msg: Message, named: bool) -> Result<(Name, Constant), OnnxError> {
    let head = Head::read(msg)?;
    let source = head.source();
    let mut extra = Extra::default();
    for r in msg.records() {
        let r = r?;
        if !is_told(&r, &head, source, named) {
            extra.0.push(r.keep());
        }
    }
    let (data, form) = match source {
        Source::Raw => (raw(msg, head.dtype())?, Form::Raw),
        Source::Typed(6) => strings(msg)?,
        Source::Typed(field) => typed(msg, head.dtype(), field)?,
        Source::External => {
            let entries = external::entries(msg, &mut extra)?;
            let (data, place) = reader.files.find(entries, head.dtype(), &head.dims)?;
            (Data::Bytes(data), Form::External(place))
        }
        Source::Nowhere => {
            let none = Data::Bytes(Bytes::new(Vec::<u8>::new()));
            (none, Form::Typed { payload: None })
        }
    };
    let dtype = head.dtype();
    let tensor = Tensor::new(dtype, head.dims.clone(), data)
        .map_err(|e| OnnxError::invalid(format!("{dtype}{:?}: {e}", head.dims)).at(msg.start()))?;
    let constant = Constant {
        tensor: tensor.into(),
        form,
        extra,
    };
    Ok((head.name, constant))
}

fn raw(msg: Message, dtype: DType) -> Result<Data, OnnxError> {
    if dtype == DType::String {
        return Err(OnnxError::invalid("expected strings in string_data, found raw_data").at(msg.start()));
    }
    let raw = msg.last(9, Wire::Len)?.map(|r| r.shared());
    Ok(Data::Bytes(raw.unwrap_or_else(|| Bytes::new(Vec::<u8>::new()))))
}

fn strings(msg: Message) -> Result<(Data, Form), OnnxError> {
    let strings = msg.each(6, |r| Ok(r.bytes().to_vec()))?;
    Ok((Data::Strings(strings.into()), Form::Typed { payload: None }))
}

fn typed(msg: Message, dtype: DType, field: u32) -> Result<(Data, Form), OnnxError> {
    let payload = payload(msg, field)?;
    let (data, exact) = packed::decode(dtype, &payload).map_err(|e| e.at(msg.start()))?;
    let payload = (!exact).then_some(payload);
    Ok((Data::Bytes(data), Form::Typed { payload }))
}

/// The packed content of `field`, put together where it is not in one record.
fn payload(msg: Message, field: u32) -> Result<Bytes, OnnxError> {
    let mut parts = 0usize;
    let mut last = None;
    for r in msg.records() {
        let r = r?;
        if r.number == field {
            parts += 1;
            last = Some(r);
        }
    }
    if let (Some(only), 1) = (&last, parts) {
        return Ok(only.shared());
    }
    let mut joined = vec![];
    for r in msg.records().flatten().filter(|r| r.number == field) {
        joined.extend_from_slice(r.bytes());
    }
    Ok(Bytes::new(joined))
}

/// The message for a tensor. `name` is left out where it is empty; `place` are the entries that say where in which
/// other file the elements are, `None` where they are in the message.
pub(super) fn write(c: &Constant, name: &str, place: Option<&Entries>) -> Rope {
    let dtype = c.tensor.dtype();
    let mut e = Encoder::new(&c.extra);
    for &d in c.tensor.dims() {
        e.int(1, i64::try_from(d).unwrap_or(i64::MAX));
    }
    if dtype.code() != 0 {
        e.int(2, dtype.code().into());
    }
    let field = match (place, &c.form, c.tensor.data()) {
        (Some(_), ..) => None,
        (_, Form::Typed { .. }, _) | (.., Data::Strings(_)) => packed::field(dtype),
        _ => Some(9),
    };
    if let Some(field @ 4..8) = field {
        write_data(&mut e, field, c);
    }
    e.filled(8, name);
    if let Some(field @ 9..) = field {
        write_data(&mut e, field, c);
    }
    if let Some(entries) = place {
        external::write_entries(&mut e, entries, &c.extra);
        e.int(14, 1);
    }
    e.finish()
}

fn write_data(e: &mut Encoder, field: u32, c: &Constant) {
    match (c.tensor.data(), &c.form) {
        (Data::Strings(strings), _) => strings.iter().for_each(|s| e.bytes(field, s)),
        (Data::Bytes(raw), _) if field == 9 => e.shared(9, raw),
        (_, Form::Typed { payload: Some(p) }) => e.shared(field, p),
        (Data::Bytes(bytes), _) if bytes.is_empty() => {}
        (Data::Bytes(bytes), _) => e.rope(field, packed::encode(c.tensor.dtype(), bytes)),
    }
}
