//! Fields of the model that the graph has no use for: who made it, what was done to it.

use super::external::{encode, pair};
use super::rope::Encoder;
use super::wire::{Message, Wire};
use crate::ir::{Bytes, Extra, Field, Model};

const METADATA: u32 = 14;
const PRODUCER: u32 = 2;
const PRODUCER_VERSION: u32 = 3;

/// The entries of `metadata_props` in order, as pairs of key and value. Entries that are not UTF-8 are left out.
pub fn metadata(model: &Model) -> Vec<(String, String)> {
    model.extra.of(METADATA).filter_map(entry).collect()
}

/// Sets the entry `key` of `metadata_props`, in place where there is one.
pub fn set_metadata(model: &mut Model, key: &str, value: &str) {
    let mut e = Encoder::default();
    e.rope(METADATA, encode(&(key.into(), value.into())));
    let new = Field {
        number: METADATA,
        record: Bytes::new(e.finish().into_vec()),
    };
    let fields = &mut model.extra.0;
    let is_old = |f: &&mut Field| f.number == METADATA && entry(&f.record).is_some_and(|(k, _)| k == key);
    match fields.iter_mut().find(is_old) {
        Some(old) => *old = new,
        None => fields.push(new),
    }
}

/// The program that made the model, and its version; empty where the file does not say.
pub fn producer(model: &Model) -> (String, String) {
    let field = |number| text(&model.extra, number).unwrap_or_default();
    (field(PRODUCER), field(PRODUCER_VERSION))
}

/// The text in field `number` of what a message holds beyond its places in the IR, such as a node's documentation
/// (field 6) or overload (field 8). `None` where there is none, or it is not UTF-8.
pub fn text(extra: &Extra, number: u32) -> Option<String> {
    let record = extra.of(number).last()?;
    let r = Message::new(record).last(number, Wire::Len).ok()??;
    r.text().ok().map(String::from)
}

fn entry(record: &Bytes) -> Option<(String, String)> {
    let r = Message::new(record).last(METADATA, Wire::Len).ok()??;
    pair(r.message().ok()?).ok()
}
