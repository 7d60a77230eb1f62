//! Counting zeros without converting or copying.

use super::{DType, Tensor};

impl Tensor {
    /// The number of elements that are zero, `-0.0` and `false` included; 0 for strings.
    pub fn zeros_count(&self) -> usize {
        let bytes = self.bytes();
        match self.dtype().bits() {
            0 => 0,
            bits @ 1..8 => packed(bytes, bits, self.len(), sign(self.dtype())),
            8 => count::<1>(bytes, sign(self.dtype())),
            16 => count::<2>(bytes, sign(self.dtype())),
            32 => count::<4>(bytes, sign(self.dtype())),
            _ if matches!(self.dtype(), DType::C64 | DType::C128) => {
                let width = self.dtype().bits() / 8;
                let parts = |c: &&[u8]| c.chunks_exact(width / 2).all(|p| is_zero(p, 0x7f));
                bytes.chunks_exact(width).filter(parts).count()
            }
            _ => count::<8>(bytes, sign(self.dtype())),
        }
    }
}

/// The bits of the last byte that make a number differ from zero: all but the sign of a float that has a negative zero.
fn sign(dtype: DType) -> u8 {
    use DType::*;
    match dtype {
        F32 | F16 | F64 | BF16 | F8E4M3FN | F8E5M2 => 0x7f,
        F4E2M1 => 0x07,
        // The smallest power of two is no zero.
        F8E8M0 => 0,
        _ => 0xff,
    }
}

fn is_zero(element: &[u8], last: u8) -> bool {
    match element.split_last() {
        Some((high, low)) => high & last == 0 && low.iter().all(|&b| b == 0),
        None => false,
    }
}

fn count<const N: usize>(bytes: &[u8], last: u8) -> usize {
    if last == 0 {
        return 0;
    }
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .filter(|e| is_zero(&e[..], last))
        .count()
}

/// Elements of 2 or 4 bits, the first in the lowest.
fn packed(bytes: &[u8], bits: usize, len: usize, mask: u8) -> usize {
    let per = 8 / bits;
    let mask = mask & ((1 << bits) - 1);
    let element = |i: usize| bytes.get(i / per).map_or(0, |b| b >> (i % per * bits) & mask);
    (0..len).filter(|&i| element(i) == 0).count()
}

#[cfg(test)]
mod tests {
    use crate::ir::{Bytes, DType, Data, Tensor};

    #[test]
    fn zeros_of_every_width() {
        assert_eq!(
            Tensor::of(&[4], vec![0f32, -0.0, 1e-45, f32::NAN]).zeros_count(),
            2
        );
        assert_eq!(Tensor::of(&[3], vec![0i64, i64::MIN, 0]).zeros_count(), 2);
        assert_eq!(Tensor::of(&[2], vec![0i8, -128]).zeros_count(), 1);
        assert_eq!(Tensor::bools(&[3], [true, false, false]).zeros_count(), 2);
        let nibbles = Data::Bytes(Bytes::new(vec![0x80u8, 0x00]));
        let of = |dtype| {
            Tensor::new(dtype, vec![3], nibbles.clone())
                .unwrap()
                .zeros_count()
        };
        assert_eq!(of(DType::I4), 2, "-8 is no zero");
        assert_eq!(of(DType::F4E2M1), 3, "-0 is one");
        let complex = Data::Bytes(Bytes::new(vec![0f32, -0.0, 0.0, 1.0]));
        let t = Tensor::new(DType::C64, vec![2], complex).unwrap();
        assert_eq!(t.zeros_count(), 1);
    }
}
