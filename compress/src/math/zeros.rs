//! Zeros counted.

use secateur_engine::ir::DType;

use super::float::with_float;
use super::{Float, Kind};

/// The elements of `bytes` that are zero, of either sign. Types of fewer than 8 bits are packed, the first element in
/// the lowest bits, and what follows the last of `count` elements is not looked at. None for types that have no zero.
pub fn zeros(dtype: DType, bytes: &[u8], count: usize) -> u64 {
    use DType::*;
    let found = match (Kind::of(dtype), dtype) {
        (Some(kind), _) => with_float!(kind, F => floats::<F>(bytes)),
        (_, F8E4M3FN | F8E5M2) => bytes.iter().filter(|&&b| b & 0x7f == 0).count(),
        (_, F4E2M1) => packed::<4>(bytes, count, 0x7),
        (_, U4 | I4) => packed::<4>(bytes, count, 0xf),
        (_, U2 | I2) => packed::<2>(bytes, count, 0x3),
        (_, C64) => of_size(bytes, |x: &[u8; 8]| u64::from_le_bytes(*x) << 1 & !(1 << 32) == 0),
        (_, C128) => of_size(bytes, |x: &[u8; 16]| {
            u128::from_le_bytes(*x) << 1 & !(1 << 64) == 0
        }),
        (_, F8E8M0 | String | Other(_)) => 0,
        _ => match dtype.bits() {
            8 => bytes.iter().filter(|&&b| b == 0).count(),
            16 => of_size(bytes, |x: &[u8; 2]| *x == [0; 2]),
            32 => of_size(bytes, |x: &[u8; 4]| *x == [0; 4]),
            64 => of_size(bytes, |x: &[u8; 8]| *x == [0; 8]),
            _ => 0,
        },
    };
    found as u64
}

/// The NaNs in `bytes`.
pub fn nans<F: Float>(bytes: &[u8]) -> u64 {
    let is_nan = |x: &&F::Stored| F::magnitude(**x) > F::INFINITY;
    F::split(bytes).iter().filter(is_nan).count() as u64
}

fn floats<F: Float>(bytes: &[u8]) -> usize {
    let zero = F::floor(0.0).0;
    F::split(bytes)
        .iter()
        .filter(|x| F::magnitude(**x) == zero)
        .count()
}

fn of_size<const N: usize>(bytes: &[u8], is_zero: impl Fn(&[u8; N]) -> bool) -> usize {
    bytes.as_chunks().0.iter().filter(|x| is_zero(x)).count()
}

fn packed<const BITS: usize>(bytes: &[u8], count: usize, mask: u8) -> usize {
    let element = |i: usize| bytes.get(i * BITS / 8).map_or(1, |b| b >> (i * BITS % 8) & mask);
    (0..count).filter(|&i| element(i) == 0).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_zeros_of_every_type_are_found() {
        let of = |d, bytes: &[u8], n| zeros(d, bytes, n);
        assert_eq!(of(DType::F32, &[0, 0, 0, 0x80, 1, 0, 0, 0, 0, 0, 0, 0], 3), 2);
        assert_eq!(of(DType::BF16, &[0, 0x80, 0, 1], 2), 1);
        assert_eq!(of(DType::I8, &[0, 0x80, 1], 3), 1);
        assert_eq!(of(DType::I64, &[0; 16], 2), 2);
        assert_eq!(of(DType::F8E5M2, &[0, 0x80, 1], 3), 2);
        assert_eq!(of(DType::F8E5M2FNUZ, &[0, 0x80, 1], 3), 1);
        assert_eq!(of(DType::F8E8M0, &[0, 0], 2), 0);
        assert_eq!(of(DType::I4, &[0x10, 0x00], 3), 2);
        assert_eq!(of(DType::F4E2M1, &[0x18], 2), 1);
        assert_eq!(of(DType::U2, &[0b00_01_00_10], 4), 2);
        let complex: Vec<_> = [-0f32, 0.0, 0.0, 1.0]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        assert_eq!(of(DType::C64, &complex, 2), 1);
    }
}
