//! Numbers of 16 bits and fewer: how their bits are read, and how an `f64` is rounded to them once.

use half::{bf16, f16};

use super::DType;

/// How a float type lays out its bits: a sign, an exponent, a mantissa.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Layout {
    /// Bits of the mantissa.
    mantissa: u32,
    /// The exponent of the least normal number.
    least: i32,
    /// The place of the sign bit.
    sign: u32,
    /// The code of the greatest finite number.
    greatest: u32,
    /// What lies beyond it.
    beyond: Beyond,
}

/// What a float type has beyond finite numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Beyond {
    /// Infinity comes next, then NaN.
    Infinity,
    /// NaN comes next, of either sign.
    Nan,
    /// Minus zero is NaN; there is no zero with a sign.
    NoMinusZero,
    /// Nothing.
    Nothing,
}

const fn of(mantissa: u32, least: i32, sign: u32, greatest: u32, beyond: Beyond) -> Layout {
    Layout {
        mantissa,
        least,
        sign,
        greatest,
        beyond,
    }
}

const F16: Layout = of(10, -14, 15, 0x7bff, Beyond::Infinity);
const BF16: Layout = of(7, -126, 15, 0x7f7f, Beyond::Infinity);

/// The layout of a float type of at most 16 bits that has a mantissa; `None` for others.
pub(crate) fn layout(dtype: DType) -> Option<Layout> {
    Some(match dtype {
        DType::F16 => F16,
        DType::BF16 => BF16,
        DType::F8E4M3FN => of(3, -6, 7, 0x7e, Beyond::Nan),
        DType::F8E4M3FNUZ => of(3, -7, 7, 0x7f, Beyond::NoMinusZero),
        DType::F8E5M2 => of(2, -14, 7, 0x7b, Beyond::Infinity),
        DType::F8E5M2FNUZ => of(2, -15, 7, 0x7f, Beyond::NoMinusZero),
        DType::F4E2M1 => of(1, 0, 3, 0x7, Beyond::Nothing),
        _ => return None,
    })
}

/// `2^e`, for exponents of normal doubles.
fn power(e: i32) -> f64 {
    f64::from_bits(((e + 1023) as u64) << 52)
}

impl Layout {
    /// The number that `bits` stand for.
    pub(crate) fn decode(self, bits: u32) -> f64 {
        let sign = bits >> self.sign & 1 == 1;
        let size = bits & ((1 << self.sign) - 1);
        if self.beyond == Beyond::NoMinusZero && sign && size == 0 {
            return f64::NAN;
        }
        let signed = |x: f64| if sign { -x } else { x };
        if size > self.greatest {
            let infinite = self.beyond == Beyond::Infinity && size == self.greatest + 1;
            return signed(if infinite { f64::INFINITY } else { f64::NAN });
        }
        let (exponent, mantissa) = (size >> self.mantissa, size & ((1 << self.mantissa) - 1));
        let steps = if exponent == 0 {
            mantissa
        } else {
            mantissa | 1 << self.mantissa
        };
        let e = self.least + exponent.max(1) as i32 - 1 - self.mantissa as i32;
        signed(f64::from(steps) * power(e))
    }

    /// The code of the number nearest to `x`, ties to even. What is beyond the greatest becomes that one where `saturate`
    /// says so, else infinity, or NaN where there is none.
    pub(crate) fn encode(self, x: f64, saturate: bool) -> u32 {
        let sign = u32::from(x.is_sign_negative()) << self.sign;
        if x.is_nan() {
            return match self.beyond {
                Beyond::Infinity => sign | (self.greatest + 1) | 1 << (self.mantissa - 1),
                Beyond::Nan => sign | (self.greatest + 1),
                Beyond::NoMinusZero => 1 << self.sign,
                // There is no NaN; other implementations give minus zero, too.
                Beyond::Nothing => 1 << self.sign,
            };
        }
        let size = self.nearest(x.abs());
        if size > self.greatest {
            return match self.beyond {
                _ if saturate => sign | self.greatest,
                Beyond::Nothing => sign | self.greatest,
                Beyond::Infinity | Beyond::Nan => sign | (self.greatest + 1),
                Beyond::NoMinusZero => 1 << self.sign,
            };
        }
        match self.beyond {
            Beyond::NoMinusZero if size == 0 => 0,
            _ => sign | size,
        }
    }

    /// The code nearest to `x`, which is not negative, as if the exponents went on; far beyond the greatest, some code
    /// beyond it.
    fn nearest(self, x: f64) -> u32 {
        let e = ((x.to_bits() >> 52) as i32 - 1023).max(self.least);
        if e > 200 {
            return u32::MAX >> 1;
        }
        // Exact: only the exponent changes.
        let steps = (x * power(self.mantissa as i32 - e)).round_ties_even();
        ((e - self.least) as u32 * (1 << self.mantissa)).saturating_add(steps as u32)
    }
}

/// `x`, rounded once; `f16::from_f64` does not see the low half of the mantissa, or rounds by way of `f32`.
pub(crate) fn to_f16(x: f64) -> f16 {
    f16::from_bits(F16.encode(x, false) as u16)
}

/// `x`, rounded once.
pub(crate) fn to_bf16(x: f64) -> bf16 {
    bf16::from_bits(BF16.encode(x, false) as u16)
}

/// Where numbers between two powers of two go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Towards {
    /// To the greater.
    Up,
    /// To the lesser.
    Down,
    /// To the nearer; from the middle up.
    Nearest,
}

/// The power of two that a `float8e8m0` stands for.
pub(crate) fn scale(code: u8) -> f64 {
    match code {
        0xff => f64::NAN,
        e => power(i32::from(e) - 127),
    }
}

/// The `float8e8m0` for the size of `x`. What is out of range becomes the nearest one where `saturate` says so, else NaN.
pub(crate) fn scale_code(x: f64, towards: Towards, saturate: bool) -> u8 {
    let bits = x.abs().to_bits();
    let (e, fraction) = ((bits >> 52) as i32 - 1023, bits & ((1 << 52) - 1));
    let limited = |code: u8| if saturate { code } else { 0xff };
    if x.is_nan() || e < -127 {
        return if x.is_nan() { 0xff } else { limited(0) };
    }
    let up = match towards {
        Towards::Up => fraction != 0,
        Towards::Down => false,
        Towards::Nearest => fraction >= 1 << 51,
    };
    u8::try_from(e + 127 + i32::from(up))
        .ok()
        .filter(|&code| code != 0xff)
        .unwrap_or_else(|| limited(0xfe))
}

/// Whether a float type has at most 8 bits.
pub(crate) fn is_small(dtype: DType) -> bool {
    dtype.is_float() && (1..=8).contains(&dtype.bits())
}

/// The number that the low bits of a byte stand for, in a float type of at most 8 bits; NaN in others.
pub(crate) fn decode(dtype: DType, code: u8) -> f64 {
    match dtype {
        DType::F8E8M0 => scale(code),
        _ => layout(dtype).map_or(f64::NAN, |l| l.decode(code.into())),
    }
}

/// The code for `x` in a float type of at most 8 bits; 0 in others.
pub(crate) fn encode(dtype: DType, x: f64, saturate: bool) -> u8 {
    match dtype {
        DType::F8E8M0 => scale_code(x, Towards::Nearest, saturate),
        _ => layout(dtype).map_or(0, |l| l.encode(x, saturate) as u8),
    }
}

/// The least and the greatest integer of a type of at most 32 bits; `None` for other types.
pub(crate) fn limits(dtype: DType) -> Option<(i64, i64)> {
    use DType::{I2, I4, I8, I16, I32, U2, U4, U8, U16, U32};
    let bits = dtype.bits();
    match dtype {
        U2 | U4 | U8 | U16 | U32 => Some((0, (1 << bits) - 1)),
        I2 | I4 | I8 | I16 | I32 => Some((-1 << (bits - 1), (1 << (bits - 1)) - 1)),
        _ => None,
    }
}

/// The integer that the low bits of a byte stand for, in an integer type of 2 or 4 bits.
pub(crate) fn widened(dtype: DType, code: u8) -> i8 {
    let free = 8 - dtype.bits().min(8) as u32;
    match dtype {
        DType::I2 | DType::I4 => (code << free) as i8 >> free,
        _ => code as i8,
    }
}

/// Elements of fewer than 8 bits, each in the low bits of a byte of its own. The last byte may give too many.
pub(crate) fn unpacked(bytes: &[u8], bits: usize) -> Vec<u8> {
    let mask = (1 << bits) - 1;
    let parts = |b: &u8| {
        let b = *b;
        (0..8 / bits).map(move |i| b >> (i * bits) & mask)
    };
    bytes.iter().flat_map(parts).collect()
}

/// Elements in the low bits of bytes, as many in a byte as it takes. Bits above `bits` are dropped.
pub(crate) fn packed(elements: &[u8], bits: usize) -> Vec<u8> {
    let mask = (1u8 << bits) - 1;
    let join = |c: &[u8]| c.iter().rev().fold(0, |b, e| b << bits | e & mask);
    elements.chunks(8 / bits).map(join).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: [DType; 5] = [
        DType::F8E4M3FN,
        DType::F8E4M3FNUZ,
        DType::F8E5M2,
        DType::F8E5M2FNUZ,
        DType::F4E2M1,
    ];

    #[test]
    fn codes_return() {
        for d in SMALL {
            for code in 0..(1u16 << d.bits()) as u32 {
                let l = layout(d).unwrap();
                let x = l.decode(code);
                if !x.is_nan() {
                    assert_eq!(l.encode(x, false), code, "{d} {x}");
                }
            }
        }
        for code in 0..0xffu8 {
            assert_eq!(scale_code(scale(code), Towards::Up, true), code);
        }
    }

    #[test]
    fn what_tables_say() {
        let at = |d, code| decode(d, code);
        assert_eq!(at(DType::F8E4M3FN, 0x7e), 448.0);
        assert_eq!(at(DType::F8E4M3FN, 1), 0.001_953_125);
        assert_eq!(at(DType::F8E4M3FNUZ, 0x7f), 240.0);
        assert_eq!(at(DType::F8E5M2, 0x7b), 57344.0);
        assert_eq!(at(DType::F8E5M2FNUZ, 0x7f), 57344.0);
        assert_eq!(at(DType::F8E5M2, 0x7c), f64::INFINITY);
        assert!(at(DType::F8E4M3FNUZ, 0x80).is_nan() && at(DType::F8E4M3FN, 0xff).is_nan());
        assert_eq!(at(DType::F4E2M1, 0xd), -3.0);
        assert_eq!(encode(DType::F8E4M3FN, 464.0, false), 0x7e, "ties go to even");
        assert_eq!(encode(DType::F8E4M3FN, 465.0, false), 0x7f);
        assert_eq!(encode(DType::F8E4M3FN, f64::NEG_INFINITY, true), 0xfe);
        assert_eq!(encode(DType::F8E5M2, 61440.0, false), 0x7c, "ties go to even");
        assert_eq!(encode(DType::F8E4M3FNUZ, -1e-9, true), 0);
        assert_eq!(scale_code(1.1, Towards::Up, true), 128);
        assert_eq!(scale_code(0.0, Towards::Up, true), 0);
        assert_eq!(scale_code(f64::INFINITY, Towards::Nearest, false), 0xff);
    }

    #[test]
    fn halves_are_rounded_once() {
        for bits in 0..=u16::MAX {
            let x = f16::from_bits(bits);
            if x.is_nan() {
                assert!(to_f16(x.into()).is_nan());
                continue;
            }
            assert_eq!(to_f16(x.into()).to_bits(), bits);
            assert_eq!(F16.decode(bits.into()), f64::from(x));
            let b = bf16::from_bits(bits);
            assert!(b.is_nan() || to_bf16(b.into()).to_bits() == bits);
        }
        // Just above the middle, by less than an f32 can tell.
        let above = 1.0 + (0.5f64).powi(11) + (0.5f64).powi(45);
        assert_eq!(to_f16(above), f16::from_f32(1.0 + 1.0 / 1024.0));
        assert_eq!(to_f16(-65520.0), f16::NEG_INFINITY);
        assert_eq!(to_f16(65519.99), f16::MAX);
    }

    #[test]
    fn nibbles_have_signs() {
        assert_eq!([7, 8, 15].map(|c| widened(DType::I4, c)), [7, -8, -1]);
        assert_eq!([1, 2, 3].map(|c| widened(DType::I2, c)), [1, -2, -1]);
        assert_eq!(widened(DType::U4, 15), 15);
        assert_eq!(limits(DType::I2), Some((-2, 1)));
    }
}
