//! The typed data fields of `TensorProto`.

use super::OnnxError;
use super::rope::{Rope, varint_len};
use super::wire::{Varints, numbers};
use crate::ir::{Bytes, DType};

/// The field that holds elements of type `dtype` where `raw_data` does not.
pub(super) fn field(dtype: DType) -> Option<u32> {
    Some(match dtype {
        DType::F32 | DType::C64 => 4,
        DType::String => 6,
        DType::I64 => 7,
        DType::F64 | DType::C128 => 10,
        DType::U32 | DType::U64 => 11,
        DType::Other(_) => return None,
        _ => 5,
    })
}

/// The field's name.
pub(super) fn field_name(dtype: DType) -> &'static str {
    match field(dtype) {
        Some(4) => "float_data",
        Some(5) => "int32_data",
        Some(6) => "string_data",
        Some(7) => "int64_data",
        Some(10) => "double_data",
        Some(11) => "uint64_data",
        _ => "raw_data",
    }
}

/// Whether the field's packed content is the elements themselves, as in `raw_data`.
pub(super) fn is_plain(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::C64 | DType::F64 | DType::C128)
}

/// Bytes of the packed buffer that one number of the field stands for.
fn entry(dtype: DType) -> usize {
    (dtype.bits() / 8).clamp(1, 8)
}

/// A number of the field from the bytes it stands for.
fn widen(dtype: DType, entry: &[u8]) -> u64 {
    let signed = matches!(dtype, DType::I8 | DType::I16 | DType::I32);
    let negative = signed && entry.last().is_some_and(|b| b & 0x80 != 0);
    let mut le = if negative { [0xff; 8] } else { [0; 8] };
    le.iter_mut().zip(entry).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(le)
}

/// The packed elements of `payload`, and whether writing them again gives `payload`.
///
/// # Errors
///
/// If the last number does not end.
pub(super) fn decode(dtype: DType, payload: &Bytes) -> Result<(Bytes, bool), OnnxError> {
    if is_plain(dtype) {
        return Ok((payload.clone(), true));
    }
    let width = entry(dtype);
    let mut elements = Vec::with_capacity(numbers(payload).saturating_mul(width));
    let mut exact = true;
    for number in Varints(payload) {
        let (number, len) = number
            .ok_or_else(|| OnnxError::malformed(format!("{} ends within a number", field_name(dtype))))?;
        let le = number.to_le_bytes();
        let kept = le.get(..width).unwrap_or(&le);
        exact &= widen(dtype, kept) == number && varint_len(number) == len;
        elements.extend_from_slice(kept);
    }
    Ok((Bytes::new(elements), exact))
}

/// The field's content for packed elements.
pub(super) fn encode(dtype: DType, elements: &Bytes) -> Rope {
    let mut rope = Rope::default();
    if is_plain(dtype) {
        rope.share(elements);
        return rope;
    }
    for entry in elements.chunks(entry(dtype)) {
        rope.varint(widen(dtype, entry));
    }
    rope
}
