//! Floating-point elements as files keep them, and their magnitudes as integers.

use half::{bf16, f16};
use secateur_engine::ir::DType;

/// A floating-point type. The bits of a number without its sign compare as the magnitudes do, NaNs above infinity.
pub trait Float {
    /// A stored element: little-endian, aligned to nothing.
    type Stored: Copy + Default + Send + Sync;
    /// Bits without the sign.
    type Bits: Copy + Ord + Send + Sync;
    /// The magnitude of infinity.
    const INFINITY: Self::Bits;

    /// The elements in `bytes`, a last incomplete one left out.
    fn split(bytes: &[u8]) -> &[Self::Stored];
    /// The elements in `bytes`, a last incomplete one left out.
    fn split_mut(bytes: &mut [u8]) -> &mut [Self::Stored];
    /// The bits of |x|.
    fn magnitude(x: Self::Stored) -> Self::Bits;
    /// The magnitude as a number, exactly.
    fn value(bits: Self::Bits) -> f64;
    /// The magnitude nearest to `x` ≥ 0, but not infinity unless `x` is.
    fn nearest(x: f64) -> Self::Bits;
    /// The bits one below; `bits` is not zero.
    fn below(bits: Self::Bits) -> Self::Bits;

    /// The largest magnitude that is at most `x`, with whether it is `x`. `x` is ≥ 0 and no NaN.
    fn floor(x: f64) -> (Self::Bits, bool) {
        let near = Self::nearest(x);
        match Self::value(near) > x {
            true => (Self::below(near), false),
            false => (near, Self::value(near) == x),
        }
    }

    /// |x| as a key that compares with those of every other type: the bits of an `f64`.
    fn key(x: Self::Stored) -> u64 {
        Self::value(Self::magnitude(x)).to_bits()
    }
}

macro_rules! floats {
    ($($name:ident: $t:ty, $bits:ty, $size:literal, $from:expr, $max:expr;)*) => { $(
        #[doc = concat!("`", stringify!($t), "`.")]
        pub enum $name {}

        impl Float for $name {
            type Stored = [u8; $size];
            type Bits = $bits;
            const INFINITY: $bits = <$t>::INFINITY.to_bits();

            fn split(bytes: &[u8]) -> &[Self::Stored] {
                bytes.as_chunks().0
            }

            fn split_mut(bytes: &mut [u8]) -> &mut [Self::Stored] {
                bytes.as_chunks_mut().0
            }

            fn magnitude(x: Self::Stored) -> $bits {
                <$bits>::from_le_bytes(x) & (<$bits>::MAX >> 1)
            }

            fn value(bits: $bits) -> f64 {
                <$t>::from_bits(bits).into()
            }

            fn nearest(x: f64) -> $bits {
                let bits = $from(x).to_bits();
                match x < f64::INFINITY {
                    true => bits.min($max.to_bits()),
                    false => bits,
                }
            }

            fn below(bits: $bits) -> $bits {
                bits - 1
            }
        }
    )* };
}
floats! {
    F16: f16, u16, 2, f16::from_f64, f16::MAX;
    BF16: bf16, u16, 2, bf16::from_f64, bf16::MAX;
    F32: f32, u32, 4, |x: f64| x as f32, f32::MAX;
    F64: f64, u64, 8, |x: f64| x, f64::MAX;
}

/// The floating-point types that are pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an `f32`.
    BF16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
}

impl Kind {
    /// The type of a tensor's elements; `None` where these are not pruned.
    pub fn of(dtype: DType) -> Option<Kind> {
        Some(match dtype {
            DType::F16 => Kind::F16,
            DType::BF16 => Kind::BF16,
            DType::F32 => Kind::F32,
            DType::F64 => Kind::F64,
            _ => return None,
        })
    }
}

/// Evaluates an expression in which `$f` is the type for a [`Kind`].
macro_rules! with_float {
    ($kind:expr, $f:ident => $value:expr) => {
        match $kind {
            $crate::math::Kind::F16 => {
                type $f = $crate::math::float::F16;
                $value
            }
            $crate::math::Kind::BF16 => {
                type $f = $crate::math::float::BF16;
                $value
            }
            $crate::math::Kind::F32 => {
                type $f = $crate::math::float::F32;
                $value
            }
            $crate::math::Kind::F64 => {
                type $f = $crate::math::float::F64;
                $value
            }
        }
    };
}
pub(crate) use with_float;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every magnitude of a 16-bit type lies between its neighbours.
    fn ordered<F: Float<Bits = u16>>() {
        for bits in 1..=F::INFINITY {
            let (x, below) = (F::value(bits), F::value(bits - 1));
            assert!(below < x);
            assert_eq!(F::floor(x), (bits, true));
            if bits < F::INFINITY {
                assert_eq!(F::floor(x.next_up()), (bits, false));
            }
            assert_eq!(F::floor(x.next_down()), (bits - 1, false));
        }
        assert!(F::value(F::INFINITY + 1).is_nan());
    }

    #[test]
    fn bits_order_as_magnitudes_do() {
        ordered::<F16>();
        ordered::<BF16>();
    }

    #[test]
    fn keys_of_all_types_compare() {
        let one = F32::key(1f32.to_le_bytes());
        assert_eq!(one, F64::key((-1f64).to_le_bytes()));
        assert_eq!(one, F16::key(f16::ONE.to_le_bytes()));
        assert_eq!(one, BF16::key(bf16::NEG_ONE.to_le_bytes()));
        assert!(F32::key(f32::NAN.to_le_bytes()) > F64::key(f64::INFINITY.to_le_bytes()));
        assert!(F64::key(f64::MAX.to_le_bytes()) > F32::key(f32::MAX.to_le_bytes()));
        assert_eq!(F32::key((-0f32).to_le_bytes()), 0);
    }

    #[test]
    fn only_infinity_is_rounded_to_infinity() {
        assert_eq!(F16::nearest(1e9), f16::MAX.to_bits());
        assert_eq!(F32::nearest(1e300), f32::MAX.to_bits());
        assert_eq!(F16::nearest(f64::INFINITY), F16::INFINITY);
        assert_eq!(F32::nearest(0.1), 0.1f32.to_bits());
    }
}
