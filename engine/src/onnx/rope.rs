//! Messages being written: small things by copy, weights by reference.

use std::collections::VecDeque;
use std::io::{self, Write};

use crate::ir::{Bytes, Extra, Field};

/// Shorter contents are copied, longer ones shared.
const SHARE: usize = 4096;

/// Bytes in pieces, some of them other people's.
#[derive(Default)]
pub(super) struct Rope {
    parts: Vec<Part>,
    tail: Vec<u8>,
    len: u64,
}

enum Part {
    Owned(Vec<u8>),
    Shared(Bytes),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Part::Owned(bytes) => bytes,
            Part::Shared(bytes) => bytes,
        }
    }
}

impl Rope {
    /// Bytes altogether.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds a copy of `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.len += wide(bytes.len());
    }

    /// Adds `bytes`, by reference where they are many.
    pub(super) fn share(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARE {
            return self.push(bytes);
        }
        self.flush();
        self.parts.push(Part::Shared(bytes.clone()));
        self.len += wide(bytes.len());
    }

    /// Adds a number of variable length.
    pub(super) fn varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                return self.push(&[low & 0x7f]);
            }
            self.push(&[low | 0x80]);
        }
    }

    /// Writes everything, piece by piece.
    pub(super) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        for part in &self.parts {
            out.write_all(part.bytes())?;
        }
        out.write_all(&self.tail)
    }

    /// Everything in one piece.
    pub(super) fn into_vec(self) -> Vec<u8> {
        let mut all = Vec::with_capacity(usize::try_from(self.len).unwrap_or(0));
        for part in self.parts {
            all.extend_from_slice(part.bytes());
        }
        all.extend_from_slice(&self.tail);
        all
    }

    fn append(&mut self, other: Rope) {
        self.len += other.len;
        if other.parts.is_empty() {
            self.tail.extend_from_slice(&other.tail);
            return;
        }
        self.flush();
        self.parts.extend(other.parts);
        self.tail = other.tail;
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.parts.push(Part::Owned(std::mem::take(&mut self.tail)));
        }
    }
}

/// A length as the wire has it.
pub(super) fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// How many bytes `value` takes as a number of variable length.
pub(super) fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).unwrap_or(10)
}

/// A message being written, its fields in ascending order.
///
/// Kept records, if there are any, go between them by number. A field that is written supersedes kept records of its
/// number and layout.
#[derive(Default)]
pub(super) struct Encoder<'a> {
    rope: Rope,
    kept: VecDeque<&'a Field>,
    /// The tag written last.
    last: u64,
}

impl<'a> Encoder<'a> {
    /// A message that keeps the records of `extra`.
    pub(super) fn new(extra: &'a Extra) -> Encoder<'a> {
        let mut kept: VecDeque<&Field> = extra.0.iter().collect();
        kept.make_contiguous().sort_by_key(|f| f.number);
        Encoder {
            kept,
            ..Encoder::default()
        }
    }

    /// A number: `int32`, `int64` or an enumeration.
    pub(super) fn int(&mut self, number: u32, value: i64) {
        self.tag(number, 0);
        self.rope.varint(value.cast_unsigned());
    }

    /// A `float`.
    pub(super) fn float(&mut self, number: u32, value: f32) {
        self.tag(number, 5);
        self.rope.push(&value.to_le_bytes());
    }

    /// A `string` or `bytes`.
    pub(super) fn bytes(&mut self, number: u32, value: impl AsRef<[u8]>) {
        self.len(number, wide(value.as_ref().len()));
        self.rope.push(value.as_ref());
    }

    /// A `string` or `bytes`, where there is one.
    pub(super) fn some(&mut self, number: u32, value: Option<impl AsRef<[u8]>>) {
        if let Some(value) = value {
            self.bytes(number, value);
        }
    }

    /// A `string`, where it is not empty.
    pub(super) fn filled(&mut self, number: u32, value: &str) {
        self.some(number, Some(value).filter(|v| !v.is_empty()));
    }

    /// A length-delimited field, by reference where it is long.
    pub(super) fn shared(&mut self, number: u32, value: &Bytes) {
        self.len(number, wide(value.len()));
        self.rope.share(value);
    }

    /// A message or packed numbers.
    pub(super) fn rope(&mut self, number: u32, value: Rope) {
        self.len(number, value.len);
        self.rope.append(value);
    }

    /// The message.
    pub(super) fn finish(mut self) -> Rope {
        for f in std::mem::take(&mut self.kept) {
            self.rope.share(&f.record);
        }
        self.rope
    }

    fn len(&mut self, number: u32, len: u64) {
        self.tag(number, 2);
        self.rope.varint(len);
    }

    fn tag(&mut self, number: u32, wire: u8) {
        let tag = u64::from(number) << 3 | u64::from(wire);
        if tag != self.last {
            self.last = tag;
            while let Some(f) = self.kept.pop_front_if(|f| f.number < number) {
                self.rope.share(&f.record);
            }
            let layout = |f: &Field| f.record.first().map(|b| b & 7);
            self.kept
                .retain(|f| f.number != number || layout(f) != Some(wire));
        }
        self.rope.varint(tag);
    }
}
