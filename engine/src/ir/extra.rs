//! What a message holds beyond what the IR has a place for.

use super::Bytes;

/// A protobuf field kept as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The field's number.
    pub number: u32,
    /// The whole record: tag and content.
    pub record: Bytes,
}

/// Fields kept as they were read, in the file's order.
///
/// Documentation strings, metadata and everything this version of ONNX does not know travel here, so that they
/// survive every pass; `onnx::wire` reads and makes records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extra(pub Vec<Field>);

impl Extra {
    /// The records of field `number`.
    pub fn of(&self, number: u32) -> impl Iterator<Item = &Bytes> {
        self.0
            .iter()
            .filter(move |f| f.number == number)
            .map(|f| &f.record)
    }
}
