//! Protobuf messages as sequences of records that remember where in the file they stand.

use std::ops::Range;

use super::{ErrorKind, OnnxError};
use crate::ir::{Bytes, Field};

/// Messages nested deeper are refused, as protobuf's own readers do.
const MAX_DEPTH: u32 = 100;
/// Protobuf's largest field number.
const MAX_NUMBER: u64 = (1 << 29) - 1;

/// How a record's content is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// A number of variable length.
    Varint,
    /// Eight bytes.
    Fixed64,
    /// A length and as many bytes: strings, messages, packed numbers.
    Len,
    /// Records up to an end mark.
    Group,
    /// Four bytes.
    Fixed32,
}

impl Wire {
    /// The wire type that a tag's lower three bits name.
    fn of(tag: u64) -> Option<Wire> {
        Some(match tag & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Len,
            3 => Wire::Group,
            5 => Wire::Fixed32,
            _ => return None,
        })
    }
}

/// A message: a stretch of the file.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    file: &'a Bytes,
    all: &'a [u8],
    start: usize,
    end: usize,
    depth: u32,
}

impl<'a> Message<'a> {
    /// The message that takes all of `file`.
    pub(super) fn new(file: &'a Bytes) -> Message<'a> {
        Message {
            file,
            all: file,
            start: 0,
            end: file.len(),
            depth: 0,
        }
    }

    /// Position of the first byte in the file.
    pub(super) fn start(self) -> usize {
        self.start
    }

    /// The content.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.all.get(self.start..self.end).unwrap_or(&[])
    }

    /// The content, sharing the file's memory.
    pub(super) fn shared(self) -> Bytes {
        self.share(self.start..self.end)
    }

    /// The records in the file's order. After an error there are no more.
    pub(super) fn records(self) -> Records<'a> {
        Records {
            of: self,
            at: self.start,
        }
    }

    /// The last record of field `number` that is laid out as `wire`: the one that counts where a field occurs twice.
    pub(super) fn last(self, number: u32, wire: Wire) -> Result<Option<Record<'a>>, OnnxError> {
        let mut found = None;
        for r in self.records() {
            let r = r?;
            if (r.number, r.wire) == (number, wire) {
                found = Some(r);
            }
        }
        Ok(found)
    }

    /// What `take` makes of each length-delimited record of field `number`.
    pub(super) fn each<T>(
        self,
        number: u32,
        mut take: impl FnMut(Record<'a>) -> Result<T, OnnxError>,
    ) -> Result<Vec<T>, OnnxError> {
        let mut all = vec![];
        for r in self.records() {
            let r = r?;
            if (r.number, r.wire) == (number, Wire::Len) {
                all.push(take(r)?);
            }
        }
        Ok(all)
    }

    /// The text of field `number` for use in messages, as far as it can be read.
    pub(super) fn label(self, number: u32) -> String {
        let wanted = |r: &Record| (r.number, r.wire) == (number, Wire::Len);
        let found = self.records().flatten().filter(wanted).last();
        found.map_or_else(String::new, |r| {
            String::from_utf8_lossy(r.bytes()).chars().take(80).collect()
        })
    }

    fn share(self, range: Range<usize>) -> Bytes {
        let part = self.file.slice(range);
        part.unwrap_or_else(|| Bytes::new(Vec::<u8>::new()))
    }
}

/// One record: a tag and its content.
#[derive(Clone)]
pub(super) struct Record<'a> {
    of: Message<'a>,
    /// The field's number.
    pub(super) number: u32,
    /// How the content is laid out.
    pub(super) wire: Wire,
    value: u64,
    whole: Range<usize>,
    body: Range<usize>,
}

impl<'a> Record<'a> {
    /// The content.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.of.all.get(self.body.clone()).unwrap_or(&[])
    }

    /// The content, sharing the file's memory.
    pub(super) fn shared(&self) -> Bytes {
        self.of.share(self.body.clone())
    }

    /// Position of the record's first byte in the file.
    pub(super) fn start(&self) -> usize {
        self.whole.start
    }

    /// Whether there is any content.
    pub(super) fn filled(&self) -> bool {
        !self.body.is_empty()
    }

    /// The content as text.
    pub(super) fn text(&self) -> Result<&'a str, OnnxError> {
        std::str::from_utf8(self.bytes())
            .map_err(|_| OnnxError::malformed(format!("field {} is not UTF-8", self.number)).at(self.start()))
    }

    /// The content as a message.
    pub(super) fn message(&self) -> Result<Message<'a>, OnnxError> {
        if self.of.depth >= MAX_DEPTH {
            let what = format!("messages are nested more than {MAX_DEPTH} deep");
            return Err(OnnxError::new(ErrorKind::TooLarge, what).at(self.start()));
        }
        Ok(Message {
            start: self.body.start,
            end: self.body.end,
            depth: self.of.depth + 1,
            ..self.of
        })
    }

    /// The content as a number, as protobuf's `int64` reads it.
    pub(super) fn int(&self) -> i64 {
        self.value.cast_signed()
    }

    /// The content as a number, as protobuf's `int32` and enumerations read it: the lower half counts.
    pub(super) fn int32(&self) -> i32 {
        let [a, b, c, d, ..] = self.value.to_le_bytes();
        i32::from_le_bytes([a, b, c, d])
    }

    /// The content as a number, as protobuf's `float` reads it.
    pub(super) fn float(&self) -> f32 {
        f32::from_bits(self.int32().cast_unsigned())
    }

    /// Adds the content to `out`: one number, or many where they are packed.
    pub(super) fn ints(&self, out: &mut Vec<i64>) -> Result<(), OnnxError> {
        if self.wire == Wire::Varint {
            out.push(self.int());
            return Ok(());
        }
        let body = self.bytes();
        out.reserve(numbers(body));
        for number in Varints(body) {
            let (number, _) = number.ok_or_else(|| broken(body).at(self.start()))?;
            out.push(number.cast_signed());
        }
        Ok(())
    }

    /// Adds the content to `out`: one number, or many where they are packed.
    pub(super) fn floats(&self, out: &mut Vec<f32>) -> Result<(), OnnxError> {
        if self.wire == Wire::Fixed32 {
            out.push(self.float());
            return Ok(());
        }
        let (words, rest) = self.bytes().as_chunks();
        if !rest.is_empty() {
            let what = format!("{} bytes are no whole number of floats", self.body.len());
            return Err(OnnxError::malformed(what).at(self.start()));
        }
        out.extend(words.iter().map(|w| f32::from_le_bytes(*w)));
        Ok(())
    }

    /// The whole record, to be written as it is.
    pub(super) fn keep(&self) -> Field {
        Field {
            number: self.number,
            record: self.of.share(self.whole.clone()),
        }
    }
}

/// The records of a message.
pub(super) struct Records<'a> {
    of: Message<'a>,
    at: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, OnnxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.of.end {
            return None;
        }
        let first = self.at;
        let record = self.record(0).map_err(|e| e.at(first));
        if record.is_err() {
            self.at = self.of.end;
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn record(&mut self, depth: u32) -> Result<Record<'a>, OnnxError> {
        let first = self.at;
        let tag = self.varint()?;
        let number = Some(tag >> 3).filter(|n| (1..=MAX_NUMBER).contains(n));
        let number = number.and_then(|n| u32::try_from(n).ok());
        let (Some(number), Some(wire)) = (number, Wire::of(tag)) else {
            let what = format!("{tag} is no field's number and wire type");
            return Err(OnnxError::malformed(what));
        };
        let mut begin = self.at;
        let mut value = 0;
        match wire {
            Wire::Varint => value = self.varint()?,
            Wire::Fixed64 => value = self.fixed(8)?,
            Wire::Fixed32 => value = self.fixed(4)?,
            Wire::Len => {
                let len = self.varint()?;
                begin = self.at;
                self.skip(len)?;
            }
            Wire::Group => self.group(number, depth)?,
        }
        Ok(Record {
            of: self.of,
            number,
            wire,
            value,
            whole: first..self.at,
            body: begin..self.at,
        })
    }

    fn left(&self) -> &'a [u8] {
        self.of.all.get(self.at..self.of.end).unwrap_or(&[])
    }

    fn varint(&mut self) -> Result<u64, OnnxError> {
        let left = self.left();
        let (value, len) = varint(left).ok_or_else(|| broken(left))?;
        self.at += len;
        Ok(value)
    }

    fn fixed(&mut self, len: usize) -> Result<u64, OnnxError> {
        let mut le = [0; 8];
        match (self.left().get(..len), le.get_mut(..len)) {
            (Some(from), Some(to)) => to.copy_from_slice(from),
            _ => return Err(self.short(len)),
        }
        self.at += len;
        Ok(u64::from_le_bytes(le))
    }

    fn skip(&mut self, len: u64) -> Result<(), OnnxError> {
        match usize::try_from(len) {
            Ok(len) if len <= self.left().len() => self.at += len,
            _ => return Err(self.short(len)),
        }
        Ok(())
    }

    fn short(&self, len: impl std::fmt::Display) -> OnnxError {
        let found = self.left().len();
        OnnxError::malformed(format!("expected {len} more bytes, found {found}"))
    }

    /// Goes to the end of the group `number` that has just begun.
    fn group(&mut self, number: u32, depth: u32) -> Result<(), OnnxError> {
        if depth >= MAX_DEPTH {
            return Err(OnnxError::malformed("groups are nested too deep"));
        }
        loop {
            let left = self.left();
            let (tag, len) = varint(left).ok_or_else(|| broken(left))?;
            if tag & 7 == 4 {
                self.at += len;
                return match tag >> 3 == u64::from(number) {
                    true => Ok(()),
                    false => Err(OnnxError::malformed("a group ends that has not begun")),
                };
            }
            self.record(depth + 1)?;
        }
    }
}

/// The number at the beginning of `bytes`, and how many bytes it takes. `None` where it does not end.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Some((value, i + 1));
        }
    }
    None
}

/// Why there is no number at the beginning of `bytes`.
fn broken(bytes: &[u8]) -> OnnxError {
    OnnxError::malformed(match bytes.len() {
        ..10 => "the bytes end within a number",
        _ => "a number has more than 10 bytes",
    })
}

/// How many packed numbers `bytes` hold.
pub(super) fn numbers(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&b| b < 0x80).count()
}

/// Packed numbers, each with the bytes it takes; at last `None` where one does not end.
pub(super) struct Varints<'a>(pub(super) &'a [u8]);

impl Iterator for Varints<'_> {
    type Item = Option<(u64, usize)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let number = varint(self.0);
        let taken = number.map_or(self.0.len(), |(_, len)| len);
        self.0 = self.0.get(taken..).unwrap_or(&[]);
        Some(number)
    }
}
